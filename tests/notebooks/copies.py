"""Copy the stored chapters to build/notebooks, each with one more cell at its end: `python -m tests.notebooks.copies`.

The cell (last_cell.py) moves the widgets and looks at what they show. What it should print is stored with it, so that
nbval judges it as any other cell. That the chapters are in step with their sources is a test of its own (test_stored).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nbformat

from fmcore.course import build
from tests.notebooks import checks

FOLDER = build.ROOT / "build" / "notebooks"
LAST = Path(__file__).with_name("last_cell.py")
ALL_IS_WELL = "The widgets show what they should.\n"


def with_last_cell(notebook: Any) -> Any:
    """The notebook, and at its end the cell that looks at the widgets."""
    said = nbformat.v4.new_output("stream", name="stdout", text=ALL_IS_WELL)
    cell = nbformat.v4.new_code_cell(LAST.read_text(encoding="utf-8"), execution_count=0, outputs=[said])
    cell.metadata["tags"] = [checks.CLAIMS]
    notebook.cells.append(cell)
    return notebook


def main() -> None:
    """Write the copies; those of earlier runs are removed."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    for pair in build.pairs():
        if not pair.student:
            notebook = with_last_cell(nbformat.read(pair.notebook, as_version=4))
            nbformat.write(notebook, FOLDER / pair.notebook.name)


if __name__ == "__main__":
    main()
