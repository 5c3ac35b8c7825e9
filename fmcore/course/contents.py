"""The table of chapters in README.md, made of what the chapters say about themselves."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BETWEEN = re.compile(r"(<!-- chapters: .*? -->\n).*?(<!-- end of chapters -->)", re.DOTALL)


def table(notebooks: Sequence[tuple[str, Any]], times: Path) -> str:
    """One line a chapter, for (name, notebook) pairs: title, the goals on its card, the measured run time."""
    measured = json.loads(times.read_text(encoding="utf-8")) if times.is_file() else {}
    lines = ["| Chapter | After it you can | Run time |", "|---|---|---|"]
    for name, notebook in notebooks:
        title = notebook.cells[0].source.splitlines()[0].lstrip("# ")
        seconds = f"{measured[name]['seconds']:.0f} s" if name in measured else ""
        lines.append(f"| [{title}](chapters/{name}.ipynb) | {'; '.join(goals(notebook))} | {seconds} |")
    return "\n".join(lines) + "\n"


def goals(notebook: Any) -> list[str]:
    """The goals on the card of a chapter, read from the code that shows it."""
    for cell in notebook.cells:
        if cell.cell_type != "code" or "card.show(" not in cell.source:
            continue
        for call in (node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)):
            if ast.unparse(call.func) == "card.show":
                return next((ast.literal_eval(word.value) for word in call.keywords if word.arg == "goals"), [])
    return []


def updated(readme: str, contents: str) -> str:
    """The text of README.md with the table between its two markers; unchanged when there are no markers."""
    return BETWEEN.sub(lambda found: found[1] + contents + found[2], readme)
