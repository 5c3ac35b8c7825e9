"""The chapters in order, and the three places that list them, all written by the build from this one list.

README.md has a table of them, chapter 00 a map, and the last cell of each chapter the way to the next one. Each place
stands between two comments, `<!-- NAME: ... -->` and `<!-- end of NAME -->`, of which only the inside is written.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# What each chapter answers.
QUESTIONS: dict[str, str] = {
    "00_start_here": "What is a flow, how is one trained, and what does this course hold?",
    "01_diffusion": "How do diffusion models make data from noise, and why is that a flow?",
    "02_flows": "When is a flow invertible, how dense are its samples, how exact is a solver?",
    "03_flow_matching": "Why does regression on single pairs learn the velocity of all of them?",
    "04_probability_paths": "Which path is best: diffusion or a straight line?",
    "05_optimal_transport": "What changes when pairs are chosen, not drawn?",
    "06_images": "How do five ways of training compare on images at equal cost?",
    "07_closed_form": "What does the exact velocity do in many dimensions?",
    "08_generalization": "Why does a network make new data when the exact velocity does not?",
    "09_source_geometry": "What does a Gaussian look like in many dimensions, and is a better source possible?",
    "10_source_direction": "What if the source already points at the data?",
    "11_norms_and_pruning": "How much is gained by sizes that match and directions left out?",
}
HOME = "00_start_here"


def listed(titles: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Title and question of each chapter, for its name and title."""
    return {name: (head, QUESTIONS.get(name, "")) for name, head in titles.items()}


def table(notebooks: Sequence[tuple[str, Any]], times: Path) -> str:
    """README's table, for (name, notebook) pairs: title, the goals on the card, the measured run time."""
    measured = json.loads(times.read_text(encoding="utf-8")) if times.is_file() else {}
    lines = ["| Chapter | After it you can | Run time |", "|---|---|---|"]
    for name, notebook in notebooks:
        seconds = f"{measured[name]['seconds']:.0f} s" if name in measured else ""
        lines.append(f"| [{title(notebook)}](chapters/{name}.ipynb) | {'; '.join(goals(notebook))} | {seconds} |")
    return "\n".join(lines) + "\n"


def overview(chapters: Mapping[str, tuple[str, str]]) -> str:
    """The map of chapter 00: each other chapter, and what it answers."""
    lines = ["| Chapter | What it answers |", "|---|---|"]
    lines += [f"| [{head}]({name}.ipynb) | {asks} |" for name, (head, asks) in chapters.items() if name != HOME]
    return "\n".join(lines) + "\n"


def onward(name: str, chapters: Mapping[str, tuple[str, str]]) -> str:
    """The end of a chapter: the next one with its question, or, from the last one, the way back to the map."""
    order = list(chapters)
    after = order[order.index(name) + 1 :]
    if not after:
        return f"This is the last chapter. The map of all of them is in [{chapters[order[0]][0]}]({order[0]}.ipynb).\n"
    head, asks = chapters[after[0]]
    return f"Next: [{head}]({after[0]}.ipynb). {asks}\n"


def title(notebook: Any) -> str:
    """The heading of a chapter, for example "01 Diffusion"."""
    return notebook.cells[0].source.splitlines()[0].lstrip("# ")


def goals(notebook: Any) -> list[str]:
    """The goals on the card of a chapter, read from the code that shows it."""
    for cell in notebook.cells:
        if cell.cell_type != "code" or "card.show(" not in cell.source:
            continue
        for call in (node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)):
            if ast.unparse(call.func) == "card.show":
                return next((ast.literal_eval(word.value) for word in call.keywords if word.arg == "goals"), [])
    return []


def updated(text: str, name: str, inside: str) -> str:
    """The text with what stands between the two comments of this name; unchanged when there are no such comments.

    Where the comments are lines of Python comments, as in a chapter's source, so is what is written between them. Empty
    lines keep a comment from being read as the last row of a table.
    """
    place = re.compile(
        rf"^((?:# )?)(<!-- {name}: .*? -->\n).*?^(?:# )?(<!-- end of {name} -->)", re.DOTALL | re.MULTILINE
    )

    def filled(found: re.Match[str]) -> str:
        sign, start, end = found.groups()
        lines = [(sign + line).rstrip() + "\n" for line in ["", *inside.splitlines(), ""]]
        return sign + start + "".join(lines) + sign + end

    return place.sub(filled, text)
