"""What the judge of a single exercise says of answers, without the sheet around it."""

from __future__ import annotations

import contextlib
import io
from typing import Any

from fmcore.course import build
from fmcore.course import checks as course_checks
from tests.notebooks import checks, exercise_sheets, test_execution


def says(number: str, *answers: Any) -> list[str]:
    """The lines that are printed; the outcome agrees with the last."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        outcome = course_checks.exercise(number, *answers)
    lines = printed.getvalue().splitlines()
    assert lines
    assert all(line[:1] in "✓✗" for line in lines), lines
    assert bool(outcome) == lines[-1].startswith("✓"), lines
    return lines


def refuses(number: str, *answers: Any, words: str, said: str = "") -> None:
    """The last line, and no other, is a refusal with these words, of the answer of this name if one is given."""
    *before, last = says(number, *answers)
    assert all(line.startswith("✓") for line in before), before
    assert last.startswith(f"✗ {said}"), last
    assert words in last, last


def accepts(number: str, *answers: Any) -> None:
    """All lines are ticks."""
    lines = says(number, *answers)
    assert all(line.startswith("✓") for line in lines), lines


def empty_sheet_says_so(sheet: str) -> None:
    """Without answers no cell fails, each exercise is open, and nothing is right."""
    notebook = build.read(build.ROOT / "chapters" / "solutions" / f"{sheet}.py", student=True)
    exercise_sheets.execute_here(notebook)
    assert not checks.stored_outputs(notebook)
    for number, said in enumerate(test_execution.verdicts(notebook), 1):
        assert "not written yet" in said, f"exercise {number}: {said!r}"
        assert "✓" not in said, f"exercise {number}: {said}"
