"""Which kinds of elements a chapter has on its page, and the cheapest chapters that together have them all."""

from __future__ import annotations

import ast
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import nbformat

from fmcore.course import build

IN_TEXT = {
    "formula in the text": re.compile(r"\$"),
    "table in the text": re.compile(r"^\|", re.MULTILINE),
    "figure in the text": re.compile(r"!\[|<img\b"),
    "list in the text": re.compile(r"^ *([-*]|\d+\.) ", re.MULTILINE),
    "code in the text": re.compile(r"^```", re.MULTILINE),
}
TAG = re.compile(r"<([a-z][a-z0-9]*)")
FIGURES = {"plotting", "style"}  # modules whose figures are seen as their type, image/png


def of(notebook: Any) -> set[str]:
    """The kinds of elements in a stored notebook."""
    found: set[str] = set()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            found |= {kind for kind, pattern in IN_TEXT.items() if pattern.search(cell.source)}
            found |= {f"<{tag}> in the text" for tag in TAG.findall(cell.source)}
        elif cell.cell_type == "code":
            found |= set(_calls(ast.parse(cell.source)))
            for output in cell.outputs:
                data = output.get("data", {output.get("name", output.output_type): ""})
                found |= set(data) | {f"<{tag}>" for tag in TAG.findall(data.get("text/html", ""))}
    return found


def _calls(code: ast.AST) -> Iterator[str]:
    """What code calls of the modules that show something: each function of widgets, and the names of the others."""
    for node in ast.walk(code):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            module, function = node.func.value.id, node.func.attr
            if module in SHOWING:
                yield f"{module}.{function}" if module == "widgets" else module
            if any(keyword.arg == "quick" for keyword in node.keywords):
                yield f"{module}.{function}, quick"
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (name for name in names if name and name.split(".")[0] in ("IPython", "ipywidgets"))


SHOWING = {file.stem for file in (build.ROOT / "fmcore" / "course").glob("*.py")} - FIGURES


def of_chapters() -> dict[str, set[str]]:
    """The kinds of elements of each chapter, by its name."""
    chapters = [pair for pair in build.pairs() if not pair.student]
    return {pair.name: of(nbformat.read(pair.notebook, as_version=4)) for pair in chapters}


def cheapest(kinds: Mapping[str, set[str]], seconds: Mapping[str, float]) -> tuple[str, ...]:
    """The chapters with all kinds of elements between them that take the least time to run."""
    everything = set().union(*kinds.values())
    sets = (s for size in range(len(kinds) + 1) for s in itertools.combinations(kinds, size))
    whole = [s for s in sets if set().union(*(kinds[name] for name in s)) == everything]
    return min(whole, key=lambda names: sum(seconds[name] for name in names))


def seconds(names: Any) -> dict[str, float]:
    """The recorded run time of each chapter; long where none is recorded."""
    times = json.loads((build.ROOT / build.TIMES).read_text(encoding="utf-8"))
    return {name: times[name]["seconds"] if name in times else 120.0 for name in names}


def slowest_first(names: Iterable[str], seconds: Mapping[str, float]) -> list[str]:
    """Sorted by their time, and equal ones by name: every process lists them in the same order."""
    return sorted(names, key=lambda name: (-seconds[name], name))
