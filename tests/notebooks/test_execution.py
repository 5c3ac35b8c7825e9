"""Run every exercise sheet from top to bottom: with its answers, and empty.

Both in this process; test_solutions_in_a_kernel.py has the kernels. Chapters are run by nbval (see close_numbers.py).
"""

from __future__ import annotations

import nbformat
import pytest

from fmcore.course import build
from tests.notebooks import checks, exercise_sheets

SHEETS = [pair for pair in build.pairs() if pair.student]


def verdicts(notebook) -> list[str]:
    """For each exercise, what the check cells after it say."""
    said: list[str] = []
    for cell in notebook.cells:
        if "exercise" in checks.tags(cell):
            said.append("")
        if "check" in checks.tags(cell):
            said[-1] += "\n".join(checks.texts(cell.outputs))
    return said


def assert_right(notebook) -> None:
    """Nothing failed, and the checks of each exercise are content with its answer."""
    problems = checks.stored_outputs(notebook)
    assert not problems, "\n".join(problems)
    assert verdicts(notebook), "no cell is tagged 'exercise'"
    for number, said in enumerate(verdicts(notebook), 1):
        assert "✓" in said, f"exercise {number}: nothing says that the solution is right: {said!r}"
        assert "✗" not in said, f"exercise {number}: {said}"


@pytest.mark.parametrize("pair", SHEETS, ids=lambda pair: pair.name)
def test_solutions_pass_every_check(pair):
    notebook = build.read(pair.source)
    exercise_sheets.execute_here(notebook)
    assert_right(notebook)


@pytest.mark.parametrize("pair", SHEETS, ids=lambda pair: pair.name)
def test_empty_exercise_sheet_runs_and_no_check_is_content(pair):
    notebook = nbformat.read(pair.notebook, as_version=4)
    exercise_sheets.execute_here(notebook)
    problems = checks.stored_outputs(notebook)
    assert not problems, "\n".join(problems)
    for number, said in enumerate(verdicts(notebook), 1):
        assert "not written yet" in said, f"exercise {number}: nothing says that it is open: {said!r}"
        assert "✓" not in said, f"exercise {number}: right without an answer: {said}"
