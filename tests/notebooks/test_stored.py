"""The notebooks as they are stored: in step with their sources, clean, and with all that a chapter has."""

from __future__ import annotations

import nbformat
import pytest

from fmcore.course import build
from tests.notebooks import checks, notation

CHAPTERS = [pair for pair in build.pairs() if not pair.student]
SHEETS = [pair for pair in build.pairs() if pair.student]


@pytest.fixture(params=CHAPTERS, ids=lambda pair: pair.name)
def chapter(request):
    return nbformat.read(request.param.notebook, as_version=4)


def test_every_notebook_is_in_step_with_its_source():
    assert CHAPTERS, "no chapter found"
    messages = build.out_of_step()
    assert not messages, "\n\n".join(messages)


@pytest.mark.parametrize(
    "check",
    [
        checks.stored_outputs,
        checks.executed_in_order,
        checks.short_cells,
        checks.card_first,
        checks.slides,
        checks.widget,
        checks.claims,
    ],
    ids=lambda check: check.__name__,
)
def test_stored_chapter(chapter, check):
    problems = check(chapter)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda pair: pair.name)
def test_cells_of_an_exercise_sheet_are_short(sheet):
    problems = checks.short_cells(nbformat.read(sheet.notebook, as_version=4))
    assert not problems, "\n".join(problems)


def test_every_name_in_the_table_of_notation_exists():
    chapter = nbformat.read(build.ROOT / "chapters" / "00_start_here.ipynb", as_version=4)
    named = [name for cell in chapter.cells for name in notation.names(cell.source)]
    assert len(named) >= 8, f"chapter 00 has the table Symbol | Name in code | Meaning; names found: {named}"
    missing = [name for name in named if not notation.resolves(name)]
    assert not missing, f"not in fmcore: {missing}"
