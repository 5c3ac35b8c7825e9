"""Write the notebooks of the course from their sources.

    python -m fmcore.course.build                  every chapter (executed) and every exercise sheet
    python -m fmcore.course.build 01_diffusion     the chapter and the exercises of that name
    python -m fmcore.course.build --check          write nothing; exit 1 when a notebook is not what its source says

A chapter is written in chapters/source/NN_topic.py (jupytext's percent format) and read in chapters/NN_topic.ipynb,
with its outputs. Exercises and answers are written together in chapters/solutions/NN_topic.py; learners get
chapters/exercises/NN_topic.ipynb, without what stands between `### BEGIN SOLUTION` and `### END SOLUTION`.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TIMES = Path("data", "results", "chapter_times.json")
CORES = 2  # what a chapter may use, and what its run time is stated for
CARD = re.compile(r"\bcard\.show\(")
VIEW, STATE = (f"application/vnd.jupyter.widget-{kind}+json" for kind in ("view", "state"))
PICTURE = re.compile(r'<img[^>]*\bwidth:(\d+)px[^>]*\bsrc="data:image/png;base64,([^"]+)"')
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "pygments_lexer": "ipython3",
    },
}


class BuildError(Exception):
    """A source that cannot become a notebook; the message names the file and what to change."""


@dataclass(frozen=True)
class Pair:
    """A source and the notebook written from it."""

    source: Path
    notebook: Path
    student: bool  # an exercise sheet: without solutions, never executed

    @property
    def name(self) -> str:
        """For example 01_diffusion."""
        return self.source.stem

    def fresh(self) -> Any:
        """The notebook that the source stands for, without outputs."""
        return read(self.source, self.student)


def pairs(root: Path = ROOT) -> list[Pair]:
    """Every source with its notebook: chapters first, then exercises, each in order."""
    chapters = root / "chapters"
    return [
        Pair(source, target / f"{source.stem}.ipynb", student)
        for folder, target, student in (
            (chapters / "source", chapters, False),
            (chapters / "solutions", chapters / "exercises", True),
        )
        for source in sorted(folder.glob("*.py"))
    ]


def read(source: Path, student: bool = False) -> Any:
    """The notebook written in a percent file. Metadata and cell ids depend on the content alone."""
    import jupytext
    import nbformat

    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(METADATA)
    seen: Counter[str] = Counter()
    for number, cell in enumerate(notebook.cells):
        if student and cell.cell_type == "code":
            cell.source = without_solution(cell.source, f"{source.name}, cell {number}")
        content = f"{source.stem}\n{cell.cell_type}\n{cell.source}"
        seen[content] += 1  # two equal cells get two ids
        cell.metadata.pop("lines_to_next_cell", None)  # about the layout of the source
        cell.id = hashlib.sha256(f"{content}\n{seen[content]}".encode()).hexdigest()[:12]
    return notebook


def without_solution(code: str, where: str = "cell") -> str:
    """Replace each solution region by `...  # your code here`, indented as its first marker."""
    lines: list[str] = []
    inside = False
    for line in code.splitlines():
        marker = line.strip()
        if marker == ("### END SOLUTION" if inside else "### BEGIN SOLUTION"):
            if not inside:
                lines.append(f"{line[: len(line) - len(line.lstrip())]}...  # your code here")
            inside = not inside
        elif marker in ("### BEGIN SOLUTION", "### END SOLUTION"):
            raise BuildError(f"{where}: {marker!r} where the other marker is expected; they come in pairs")
        elif not inside:
            lines.append(line)
    if inside:
        raise BuildError(f"{where}: '### END SOLUTION' is missing")
    stub = "\n".join(lines)
    if stub != code:
        try:
            ast.parse(stub)
        except SyntaxError as error:
            raise BuildError(f"{where}: not Python once the solution is taken out ({error.msg}):\n{stub}") from error
    return stub


def execute(notebook: Any, folder: Path, timeout: int = 600) -> float:
    """Run all cells in `folder`; outputs and widget state are stored in the notebook. Returns the seconds taken.

    Raises nbclient.exceptions.CellExecutionError at the first cell that fails.
    """
    from nbclient import NotebookClient

    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # the kernel's debugger warns on stderr otherwise
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=40"],  # no note in the terminal that the kernel listens on TCP
        resources={"metadata": {"path": str(folder)}},
    )
    start = time.perf_counter()
    client.execute()
    return time.perf_counter() - start


def build(pair: Pair, root: Path = ROOT) -> float | None:
    """Write one notebook. Returns the seconds that a chapter took; None for exercises, which are not executed."""
    import nbformat

    notebook = pair.fresh()
    seconds = None
    if not pair.student:
        seconds = execute(notebook, pair.notebook.parent)
        if record_time(pair.name, seconds, root / TIMES):
            refresh_card(notebook, pair.notebook.parent)
        still_pictures(notebook)
        notebook.metadata = nbformat.from_dict(METADATA)
    pair.notebook.parent.mkdir(parents=True, exist_ok=True)
    _replace(pair.notebook, nbformat.writes(notebook) + "\n")
    return seconds


def record_time(name: str, seconds: float, file: Path) -> bool:
    """Note how long a chapter took, unless the known time is within a quarter of it. Returns whether it was noted."""
    times = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    entry = {"seconds": round(seconds) if seconds >= 10 else round(seconds, 1), "cores": CORES}
    known = times.get(name)
    if known and known["cores"] == CORES and abs(known["seconds"] - seconds) <= 0.25 * seconds:
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    _replace(file, json.dumps({**times, name: entry}, indent=2, sort_keys=True) + "\n")
    return True


def refresh_card(notebook: Any, folder: Path) -> None:
    """Draw the card again, which shows the run time: run the cells as far as the card and take its output."""
    import nbformat

    place = next((i for i, cell in enumerate(notebook.cells) if is_card(cell)), None)
    if place is not None:
        opening = nbformat.from_dict({**notebook, "metadata": METADATA, "cells": notebook.cells[: place + 1]})
        execute(opening, folder)
        notebook.cells[place].outputs = opening.cells[place].outputs


def is_card(cell: Any) -> bool:
    """Whether a cell shows the card of its chapter."""
    return cell["cell_type"] == "code" and CARD.search(cell["source"]) is not None


def still_pictures(notebook: Any) -> None:
    """Store each widget as the picture it shows, for readers without a kernel: on the web, and before the first run."""
    models = notebook.metadata.pop("widgets", {}).get(STATE, {}).get("state", {})
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        view = output.get("data", {}).pop(VIEW, None)
        picture = view and next(_pictures(models, view["model_id"]), None)
        if picture:
            width, png = picture
            output.data["image/png"] = png
            output.metadata = {"image/png": {"width": int(width)}}


def _pictures(models: Any, model_id: str) -> Iterator[tuple[str, str]]:
    """Width and base64 PNG of each picture in a widget, depth first."""
    state = models.get(model_id, {}).get("state", {})
    yield from PICTURE.findall(str(state.get("value", "")))
    for child in state.get("children", ()):
        yield from _pictures(models, child.removeprefix("IPY_MODEL_"))


def difference(pair: Pair) -> str:
    """In what way a notebook is not what its source says; empty when they are in step. Outputs are not compared."""
    import nbformat
    from jupytext.compare import NotebookDifference, compare_notebooks

    if not pair.notebook.is_file():
        return f"{pair.notebook.name} does not exist"
    found, expected = nbformat.read(pair.notebook, as_version=4), pair.fresh()
    try:
        compare_notebooks(found, expected, "py:percent", allow_expected_differences=False, compare_ids=False)
    except NotebookDifference as problem:
        return str(problem)
    if found.metadata != expected.metadata:
        return f"notebook metadata: {dict(found.metadata)}\nexpected:          {dict(expected.metadata)}"
    if [cell.id for cell in found.cells] != [cell.id for cell in expected.cells]:
        return "cell ids differ"
    if pair.student and any(cell.get("outputs") for cell in found.cells):
        return "exercise sheets are kept without outputs"
    return ""


def orphans(root: Path = ROOT) -> list[Path]:
    """Notebooks under chapters/ that no source stands for."""
    known = {pair.notebook for pair in pairs(root)}
    return sorted(
        path
        for path in (root / "chapters").rglob("*.ipynb")
        if path not in known and ".ipynb_checkpoints" not in path.parts
    )


def out_of_step(root: Path = ROOT, names: tuple[str, ...] = ()) -> list[str]:
    """One message for each notebook that is not in step with its source, or has none."""
    messages = []
    for pair in pairs(root):
        problem = difference(pair) if not names or pair.name in names else ""
        if problem:
            messages.append(f"{pair.notebook.relative_to(root)} against {pair.source.relative_to(root)}:\n{problem}")
    if not names:
        messages += [f"{path.relative_to(root)} has no source" for path in orphans(root)]
    return messages


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    partial.replace(path)


def main(arguments: list[str] | None = None) -> int:
    """Build or check what the command line names. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fmcore.course.build", description="Write the notebooks of the course."
    )
    parser.add_argument("names", nargs="*", help="chapters, for example 01_diffusion (default: all)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a notebook is out of step")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    root, names = options.root.resolve(), tuple(options.names)
    known = [pair.name for pair in pairs(root)]
    for name in names:
        if name not in known:
            parser.error(f"unknown chapter {name!r}; there are {', '.join(dict.fromkeys(known)) or 'none'}")
    if options.check:
        messages = out_of_step(root, names)
        print(
            "\n\n".join([*messages, "Run `make chapters`."])
            if messages
            else "Every notebook is in step with its source."
        )
        return 1 if messages else 0
    from nbclient.exceptions import CellExecutionError

    os.environ["OMP_NUM_THREADS"] = str(CORES)
    if hasattr(os, "sched_setaffinity"):  # so that the run time means what it says on a larger machine
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    failed = False
    for pair in pairs(root):
        if names and pair.name not in names:
            continue
        try:
            seconds = build(pair, root)
            print(f"{pair.notebook.relative_to(root)}" + (f"  {seconds:.1f} s" if seconds else ""), flush=True)
        except (BuildError, CellExecutionError) as error:
            failed = True
            print(f"{pair.notebook.relative_to(root)} was not written: {error}", file=sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
