"""What is asked of a stored notebook. Every function returns a list of problems, empty when all is well."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from fmcore.course.execution import is_card

CLAIMS = "nbval-check-output"
LONGEST_CELL = 25
ABSOLUTE_PATH = re.compile(r"(?<![\w.~:/-])/(home|root|tmp|work|Users|usr|opt|var|mnt)/|\b[A-Z]:\\\w")
WARNING = re.compile(r"\w*Warning:|^\s*warnings?:", re.IGNORECASE | re.MULTILINE)
BASE64 = re.compile(r"base64,[A-Za-z0-9+/=]+")
SLIDE_TYPES = {"slide", "subslide", "fragment", "skip", "notes", "-"}
LOOPHOLES = {"nbval-skip", "nbval-raises-exception", "raises-exception"}  # nbval would not look at these cells


def code_cells(notebook: Any) -> list[tuple[int, Any]]:
    """Code cells that say something, with their place in the notebook."""
    return [(i, c) for i, c in enumerate(notebook.cells) if c.cell_type == "code" and c.source.strip()]


def tags(cell: Any) -> set[str]:
    return set(cell.metadata.get("tags", []))


def texts(outputs: Any) -> Iterator[str]:
    """All that outputs say in words: not pictures."""
    for output in outputs:
        for words in [output.get("text", ""), *(v for k, v in output.get("data", {}).items() if k.startswith("text/"))]:
            yield BASE64.sub("base64,", words)


def stored_outputs(notebook: Any) -> list[str]:
    problems = []
    for i, cell in code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "error":
                problems.append(f"cell {i}: stored error {output.ename}: {output.evalue}")
            if output.get("name") == "stderr":
                problems.append(f"cell {i}: stored text on stderr: {output.text[:200]!r}")
        for text in [*texts(cell.outputs), cell.source]:
            if found := ABSOLUTE_PATH.search(text):
                problems.append(f"cell {i}: a path of one machine: {text[found.start() : found.start() + 60]!r}")
        for text in texts(cell.outputs):
            if found := WARNING.search(text):
                problems.append(f"cell {i}: a warning: {text[found.start() : found.start() + 100]!r}")
    return problems


def executed_in_order(notebook: Any) -> list[str]:
    counts = [cell.execution_count for _, cell in code_cells(notebook)]
    return (
        [] if counts == list(range(1, len(counts) + 1)) else [f"executed in the order {counts}, not from top to bottom"]
    )


def short_cells(notebook: Any) -> list[str]:
    lengths = [(i, len(cell.source.splitlines())) for i, cell in code_cells(notebook)]
    return [f"cell {i}: {n} lines of code, at most {LONGEST_CELL} are read" for i, n in lengths if n > LONGEST_CELL]


def card_first(notebook: Any) -> list[str]:
    cards = [i for i, cell in enumerate(notebook.cells) if is_card(cell)]
    if len(cards) != 1 or cards[0] > 3:
        return [f"the card (card.show) stands once, within the first four cells; found in cells {cards}"]
    return [] if notebook.cells[cards[0]].outputs else ["the card shows nothing"]


def slides(notebook: Any) -> list[str]:
    types = [cell.metadata.get("slideshow", {}).get("slide_type") for cell in notebook.cells]
    problems = [f"cell {i}: unknown slide_type {t!r}" for i, t in enumerate(types) if t and t not in SLIDE_TYPES]
    if types[:1] != ["slide"] or types.count("slide") < 2:
        problems.append("no slides: the first cell and each new idea have metadata slideshow={'slide_type': 'slide'}")
    return problems


def widget(notebook: Any) -> list[str]:
    """At least one widget, stored as a still picture."""
    explorers = [cell for _, cell in code_cells(notebook) if "widgets.explore(" in cell.source]
    if not explorers:
        return ["no widget (widgets.explore)"]
    shown = [any("image/png" in output.get("data", {}) for output in cell.outputs) for cell in explorers]
    return [] if all(shown) else ["a widget has no stored picture; run `make chapters`"]


def claims(notebook: Any) -> list[str]:
    """A table of claims whose text nbval compares, and no cell that nbval is told to pass over."""
    problems = []
    for i, cell in code_cells(notebook):
        comments = {
            line.strip("# ").lower().replace("_", "-") for line in cell.source.splitlines() if line.startswith("#")
        }
        marks = tags(cell) | comments
        if marks & LOOPHOLES:
            problems.append(f"cell {i}: {sorted(marks & LOOPHOLES)} hides the cell from the checks")
        if CLAIMS in marks and "nbval-ignore-output" in marks:
            problems.append(f"cell {i}: both {CLAIMS} and nbval-ignore-output")
        if CLAIMS in tags(cell) and not any(text.strip() for text in texts(cell.outputs)):
            problems.append(f"cell {i}: tagged {CLAIMS}, but no text is stored that could be compared")
    tables = [i for i, cell in code_cells(notebook) if "claims.table(" in cell.source]
    if not tables:
        problems.append("no table of claims (claims.table)")
    problems += [
        f"cell {i}: a table of claims without the tag {CLAIMS}" for i in tables if CLAIMS not in tags(notebook.cells[i])
    ]
    return problems
