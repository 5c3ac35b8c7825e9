"""Plant one fault at a time in a copy of the repository and see whether a test notices: `python -m tests.mutants`.

It takes about a quarter of an hour on two cores, so it is run by hand: after a change of the core, or of its tests.

    python -m tests.mutants              every fault
    python -m tests.mutants averaging    those whose name contains a word

Each fault of `planted.py` replaces one piece of text in one file, and names the tests that should fail. First these run
without it: where they fail already, nothing can be said.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

from tests.mutants.planted import PLANTED, Mutant

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 2
LIMIT = 400  # seconds for the tests of one fault; a fault that makes them hang is noticed
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "build", "runs", "cache", "__pycache__", "*.ipynb", ".*_cache")


def copy_of_the_repository(folder: Path) -> Path:
    """The files that tests need; notebooks are not among them."""
    return Path(shutil.copytree(ROOT, folder / "copy", ignore=LEFT_OUT))


def run_tests(copy: Path, tests: tuple[str, ...]) -> int | None:
    """Exit status of pytest: 0 passed, 1 failed, others broken; None if it took too long."""
    settings = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:nbval", "-p", "no:cacheprovider", *tests]
    try:
        return subprocess.run(command, cwd=copy, env=settings, capture_output=True, timeout=LIMIT).returncode
    except subprocess.TimeoutExpired:
        return None


def verdict(copy: Path, mutant: Mutant) -> str:
    """What became of one fault; the copy is left as it was."""
    file = copy / mutant.file
    text = file.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        return f"NOT PLANTED: the text is there {text.count(mutant.old)} times"
    file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        code = run_tests(copy, mutant.tests)
    finally:
        file.write_text(text, encoding="utf-8")
    return {0: "SURVIVED", 1: "caught", None: "caught (the tests hang)"}.get(code, f"BROKEN: pytest ended with {code}")


def main() -> int:
    """Print one line a fault and a last line with their number; 1 if any survived or could not be planted."""
    chosen = [mutant for mutant in PLANTED if all(word in mutant.name for word in sys.argv[1:])]
    if not chosen:
        print(f"no fault has {' and '.join(sys.argv[1:])} in its name")
        return 1
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(WORKERS) as pool:
        copies: Queue[Path] = Queue()
        for number in range(WORKERS):
            copies.put(copy_of_the_repository(Path(place) / str(number)))

        def with_a_copy(task, *arguments):
            copy = copies.get()
            try:
                return task(copy, *arguments)
            finally:
                copies.put(copy)

        wanted = sorted({test for mutant in chosen for test in mutant.tests})
        status = pool.map(lambda test: with_a_copy(run_tests, (test,)), wanted)
        failing = [test for test, code in zip(wanted, status, strict=True) if code != 0]
        if failing:
            print(f"these fail without any fault, mend them first: {' '.join(failing)}")
            return 1
        found = []
        for mutant, said in zip(chosen, pool.map(lambda one: with_a_copy(verdict, one), chosen), strict=True):
            print(f"{said:24} {mutant.name}", flush=True)
            found.append(said)
    caught = sum(said.startswith("caught") for said in found)
    print(f"{caught} of {len(found)} caught")
    return int(caught < len(found))


if __name__ == "__main__":
    sys.exit(main())
