"""Run the exercise sheets with answers of one's own, to see what their checks say."""

from __future__ import annotations

import contextlib
import io

from fmcore.course import build


def judged(sheet: str, replace: dict | None = None, student: bool = False) -> list[str]:
    """Run an exercise sheet with other functions in place of answers; the lines that its checks print."""
    names: dict = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for cell in build.read(build.ROOT / "chapters" / "solutions" / f"{sheet}.py", student).cells:
            if cell.cell_type == "code":
                exec(cell.source, names)
                names.update({name: a for name, a in (replace or {}).items() if f"def {name}(" in cell.source})
    return [line for line in printed.getvalue().splitlines() if line[:1] in "✓✗"]


def names(sheet: str, name: str, attempt: object, words: str) -> None:
    """The check of `name` says these words of an attempt, and the other checks of the sheet are content."""
    lines = judged(sheet, {name: attempt})
    (wrong,) = [line for line in lines if line.startswith("✗")]
    assert wrong.startswith(f"✗ {name}:"), lines
    assert words in wrong, wrong


def answers_are_right(sheet: str, checks: int) -> None:
    """All checks of the sheet accept its own answers, and say of a sheet without answers that they are missing."""
    lines = judged(sheet)
    assert [line[:1] for line in lines] == ["✓"] * checks, lines
    assert all("not written yet" in line for line in judged(sheet, student=True))
