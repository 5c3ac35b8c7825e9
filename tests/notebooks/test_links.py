"""Every link and picture in the pages that people open leads to a file of the repository, and no picture to the web."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)|<img[^>]*\bsrc=\"()([^\"]+)\"")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "chapters").rglob("*.ipynb"))]


def broken(text: str, folder: Path) -> list[str]:
    """The links of a Markdown text that lead nowhere, and the pictures that need the web."""
    problems = []
    for picture, target, _, source in LINK.findall(text):
        place = target or source
        if place.startswith(("http://", "https://", "mailto:")):
            if picture or source:
                problems.append(f"a picture from the web: {place}")
        elif not place.startswith(("#", "data:", "attachment:")) and not (folder / place.split("#")[0]).exists():
            problems.append(f"no such file: {place}")
    return problems


def words(page: Path) -> str:
    if page.suffix == ".md":
        return page.read_text(encoding="utf-8")
    notebook = nbformat.read(page, as_version=4)
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert broken(words(page), page.parent) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[next](missing.ipynb)", "no such file"),
        ("![figure](https://example.org/a.png)", "from the web"),
        ('<img alt="" src="figures/missing.png">', "no such file"),
    ],
)
def test_a_planted_fault_is_found(text: str, said: str, tmp_path: Path) -> None:
    assert said in broken(text, tmp_path)[0]


def test_good_links_pass(tmp_path: Path) -> None:
    (tmp_path / "here.md").touch()
    assert broken("[a](here.md) [b](here.md#part) [c](#part) [d](https://example.org)", tmp_path) == []
