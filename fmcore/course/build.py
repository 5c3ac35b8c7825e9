"""Write the notebooks of the course from their sources.

    python -m fmcore.course.build                  every chapter (executed) and every exercise sheet
    python -m fmcore.course.build 01_diffusion     the chapter and the exercises of that name
    python -m fmcore.course.build --text           only what is text: nothing is run, outputs stay as they are
    python -m fmcore.course.build --check          write nothing; exit 1 when a notebook is not what its source says

A chapter is written in chapters/source/NN_topic.py (jupytext's percent format) and read in chapters/NN_topic.ipynb,
with its outputs. Exercises and answers are written together in chapters/solutions/NN_topic.py; learners get
chapters/exercises/NN_topic.ipynb, without what stands between `### BEGIN SOLUTION` and `### END SOLUTION`.
What one chapter says of others is written into README.md and into the sources too (`fmcore.course.contents`).
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmcore.course import contents
from fmcore.course.execution import CORES, METADATA, execute, record_time, refresh_card, replace, still_pictures

ROOT = Path(__file__).resolve().parents[2]
TIMES = Path("data", "results", "chapter_times.json")
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
MARKER = re.compile(r"#[\W_]*(begin|end)[\W_]*solution", re.IGNORECASE)  # as somebody may write it in a hurry


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
        if marker == (END if inside else BEGIN):
            if not inside:
                lines.append(f"{line[: len(line) - len(line.lstrip())]}...  # your code here")
            inside = not inside
        elif marker in (BEGIN, END):
            raise BuildError(f"{where}: {marker!r} where the other marker is expected; they come in pairs")
        elif MARKER.search(line):  # else the answer would stand in the sheet
            raise BuildError(f"{where}: {marker!r} is no marker; write {BEGIN!r} or {END!r} on a line of its own")
        elif not inside:
            lines.append(line)
    if inside:
        raise BuildError(f"{where}: {END!r} is missing")
    stub = "\n".join(lines)
    if stub != code:
        try:
            ast.parse(stub)
        except SyntaxError as error:
            raise BuildError(f"{where}: not Python once the solution is taken out ({error.msg}):\n{stub}") from error
    return stub


def build(pair: Pair, root: Path = ROOT, text: bool = False) -> float | None:
    """Write one notebook. Returns the seconds that a chapter took; None if it was not executed.

    Exercise sheets are never executed. With `text`, chapters are not either: outputs are those of the stored notebook.
    """
    import nbformat

    notebook = pair.fresh()
    seconds = None
    if not pair.student and text:
        keep_outputs(notebook, pair.notebook)
    elif not pair.student:
        seconds = execute(notebook, pair.notebook.parent)
        if record_time(pair.name, seconds, root / TIMES):
            refresh_card(notebook, pair.notebook.parent)
        still_pictures(notebook)
        notebook.metadata = nbformat.from_dict(METADATA)
    pair.notebook.parent.mkdir(parents=True, exist_ok=True)
    replace(pair.notebook, nbformat.writes(notebook) + "\n")
    return seconds


def keep_outputs(notebook: Any, file: Path) -> None:
    """Take over the outputs of the stored notebook, whose code must be the same."""
    import nbformat

    stored = stored_notebook(file) if file.is_file() else nbformat.v4.new_notebook()
    new, old = ([cell for cell in one.cells if cell.cell_type == "code"] for one in (notebook, stored))
    if [cell.source for cell in new] != [cell.source for cell in old]:
        raise BuildError("its code has changed, so it must be run: leave out --text")
    for cell, before in zip(new, old, strict=True):
        cell.outputs, cell.execution_count = before.outputs, before.execution_count


def stored_notebook(file: Path) -> Any:
    """A notebook as it is stored. Raises BuildError, naming the file, if it is broken."""
    import nbformat

    try:
        return nbformat.read(file, as_version=4)
    except Exception as error:  # of nbformat, of JSON, of text that is none: each of another class
        raise BuildError(
            f"{file.name} is broken ({type(error).__name__}): move it away, and run `make chapters NAME={file.stem}`"
        ) from error


def difference(pair: Pair) -> str:
    """In what way a notebook is not what its source says; empty when they are in step. Outputs are not compared."""
    from jupytext.compare import NotebookDifference, compare_notebooks

    if not pair.notebook.is_file():
        return f"{pair.notebook.name} does not exist"
    try:
        expected, found = pair.fresh(), stored_notebook(pair.notebook)
    except BuildError as error:
        return str(error)
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
    for path, text in with_contents(root).items():
        if text != path.read_text(encoding="utf-8"):
            messages.append(f"{path.relative_to(root)}: what it says of the chapters is not what they say")
    return messages


def with_contents(root: Path = ROOT) -> dict[Path, str]:
    """README.md and the sources of the chapters, with the places written again that list chapters."""
    chapters = [pair for pair in pairs(root) if not pair.student]
    notebooks = [(pair.name, pair.fresh()) for pair in chapters]
    texts = {}
    if (readme := root / "README.md").is_file():
        texts[readme] = contents.updated(
            readme.read_text(encoding="utf-8"), "chapters", contents.table(notebooks, root / TIMES)
        )
    known = contents.listed({name: contents.title(notebook) for name, notebook in notebooks})
    for pair in chapters:
        text = contents.updated(pair.source.read_text(encoding="utf-8"), "map", contents.overview(known))
        texts[pair.source] = contents.updated(text, "next", contents.onward(pair.name, known))
    return texts


def write_contents(root: Path = ROOT) -> None:
    """Write what `with_contents` has, where it is new."""
    for path, text in with_contents(root).items():
        if text != path.read_text(encoding="utf-8"):
            replace(path, text)


def main(arguments: list[str] | None = None) -> int:
    """Build or check what the command line names. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fmcore.course.build", description="Write the notebooks of the course."
    )
    parser.add_argument("names", nargs="*", help="chapters, for example 01_diffusion (default: all)")
    parser.add_argument("--text", action="store_true", help="run nothing: outputs stay, where the code is the same")
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
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # threads that spin while they wait slow each other down tenfold
    if hasattr(os, "sched_setaffinity"):  # so that the run time means what it says on a larger machine
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    write_contents(root)
    failed = False
    for pair in pairs(root):
        if names and pair.name not in names:
            continue
        try:
            seconds = build(pair, root, options.text)
            print(f"{pair.notebook.relative_to(root)}" + (f"  {seconds:.1f} s" if seconds else ""), flush=True)
        except (BuildError, CellExecutionError) as error:
            failed = True
            print(f"{pair.notebook.relative_to(root)} was not written: {error}", file=sys.stderr, flush=True)
    write_contents(root)  # again, with the times just measured
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
