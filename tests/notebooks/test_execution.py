"""Run every notebook from top to bottom.

Chapters go to build/executed/, with the claims and the card of the stored notebook. `make notebooks` then runs them a
second time under nbval in strict mode: it finds a text that two runs print differently, and a claim that is not the
stored one.
"""

from __future__ import annotations

import nbformat
import pytest

from fmcore.course import build, execution
from tests.notebooks import checks

EXECUTED = build.ROOT / "build" / "executed"


def verdicts(notebook) -> list[str]:
    """For each exercise, what the check cells after it say."""
    said: list[str] = []
    for cell in notebook.cells:
        if "exercise" in checks.tags(cell):
            said.append("")
        if "check" in checks.tags(cell):
            said[-1] += "\n".join(checks.texts(cell.outputs))
    return said


@pytest.mark.parametrize("pair", [p for p in build.pairs() if not p.student], ids=lambda pair: pair.name)
def test_chapter_runs(pair, tmp_path):
    stored = nbformat.read(pair.notebook, as_version=4)
    notebook = pair.fresh()
    execution.execute(notebook, tmp_path, timeout=300)
    problems = checks.stored_outputs(notebook) + checks.widget_errors(notebook)
    assert not problems, "\n".join(problems)
    EXECUTED.mkdir(parents=True, exist_ok=True)
    nbformat.write(checks.with_stored_texts(notebook, stored), EXECUTED / pair.notebook.name)


@pytest.mark.parametrize("pair", [p for p in build.pairs() if p.student], ids=lambda pair: pair.name)
def test_solutions_pass_every_check(pair, tmp_path):
    notebook = build.read(pair.source)
    execution.execute(notebook, tmp_path)
    problems = checks.stored_outputs(notebook)
    assert not problems, "\n".join(problems)
    assert verdicts(notebook), "no cell is tagged 'exercise'"
    for number, said in enumerate(verdicts(notebook), 1):
        assert "✓" in said, f"exercise {number}: nothing says that the solution is right: {said!r}"
        assert "✗" not in said, f"exercise {number}: {said}"


@pytest.mark.parametrize("pair", [p for p in build.pairs() if p.student], ids=lambda pair: pair.name)
def test_empty_exercise_sheet_runs_and_no_check_is_content(pair, tmp_path):
    notebook = nbformat.read(pair.notebook, as_version=4)
    execution.execute(notebook, tmp_path)
    problems = checks.stored_outputs(notebook)
    assert not problems, "\n".join(problems)
    for number, said in enumerate(verdicts(notebook), 1):
        assert "not written yet" in said, f"exercise {number}: nothing says that it is open: {said!r}"
        assert "✓" not in said, f"exercise {number}: right without an answer: {said}"
