"""Every link and picture in the pages that people open leads to a file of the repository, and no picture to the web."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from fmcore.course import contents

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)|<img[^>]*\bsrc=\"()([^\"]+)\"")
CHAPTERS = sorted(file.stem for file in (ROOT / "chapters" / "source").glob("*.py"))
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


def targets(page: Path) -> list[str]:
    """The chapters that a page links to, by name, in the order of its text."""
    places = [Path(target or source) for _, target, _, source in LINK.findall(words(page))]
    return [place.stem for place in places if place.suffix == ".ipynb" and place.stem in CHAPTERS]


def test_every_chapter_has_its_question_in_the_one_list():
    assert list(contents.QUESTIONS) == CHAPTERS
    assert all(question.endswith("?") for question in contents.QUESTIONS.values())


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_is_linked_from_the_readme_and_the_map(chapter):
    assert targets(ROOT / "README.md").count(chapter) == 1
    home = ROOT / "chapters" / f"{contents.HOME}.ipynb"
    assert chapter in targets(home) or chapter == contents.HOME
    question = contents.QUESTIONS[chapter]
    assert question in words(home) or chapter == contents.HOME


@pytest.mark.parametrize(("chapter", "after"), [*zip(CHAPTERS, [*CHAPTERS[1:], contents.HOME], strict=True)])
def test_a_chapter_ends_with_the_way_to_the_next_and_the_last_with_the_way_to_the_map(chapter, after):
    page = ROOT / "chapters" / f"{chapter}.ipynb"
    last = [line for line in words(page).splitlines() if line][-2]  # the last is the comment that closes the place
    assert f"({after}.ipynb)" in last, last
    assert contents.QUESTIONS[after] in last or after == contents.HOME


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_page_points_at_a_chapter_that_is_not_there(chapter):
    numbers = {name[:2] for name in CHAPTERS}
    for found in re.findall(
        r"[Cc]hapters? (\d\d(?:(?:, | and | to )\d\d)*)", words(ROOT / "chapters" / f"{chapter}.ipynb")
    ):
        assert {*re.findall(r"\d\d", found)} <= numbers, f"chapter {found}"


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
