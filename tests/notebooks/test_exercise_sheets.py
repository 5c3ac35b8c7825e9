"""A sheet of which only a part is run again says what the whole would say."""

from __future__ import annotations

import contextlib
import io

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests.notebooks import checks, exercise_sheets

SETUP = """\
import torch
generator = torch.Generator().manual_seed(0)
torch.manual_seed(1)
def say(name, right):
    print("✓" if right else "✗", name, float(torch.rand(1, generator=generator)), float(torch.rand(1)))
def both(x):
    return one(two(x))
"""
CELLS = [
    (SETUP, "setup"),
    ("def one(x):\n    return x + 1", "exercise"),
    ("found = one(2)\ncases = [1, 2]", "check"),
    ("say('one', found == 3)", "check"),
    ("def two(x):\n    return 2 * x", "exercise"),
    ("cases = [3, 4]\nsay('two', two(cases[0]) == 6)", "check"),
    ("def three(x):\n    one = x\n    return one - 3", "exercise"),
    ("say('three', three(5) == 2)", "check"),
    ("def four(x):\n    return both(x)", "exercise"),
    ("say('four', four(cases[1]) == 9)", "check"),
    ("say('found', found == 3)", "check"),
]


def notebook():
    return new_notebook(cells=[new_code_cell(code, metadata={"tags": [tag]}) for code, tag in CELLS])


def whole(attempts):
    """The lines that the whole sheet prints, all of it run again."""
    names, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for code, _ in CELLS:
            exec(code, names)
            names.update({name: attempt for name, attempt in attempts.items() if f"def {name}(" in code})
    return printed.getvalue().splitlines()


def test_an_attempt_is_judged_as_if_the_whole_sheet_were_run():
    sheet = exercise_sheets.run_with_answers(notebook())
    wrong = dict.fromkeys(["four", "one", "two", "three", "one"], abs)
    for attempts in [{name: abs} for name in wrong] + [{"one": abs, "three": abs}, {"three": lambda x: x - 3}]:
        lines = sheet.judge(attempts)
        assert lines == whole(attempts), attempts
        assert any(line.startswith("✗") for line in lines) == (abs in attempts.values())
    with pytest.raises(AssertionError, match="defines"):
        sheet.judge({"five": abs})


def test_only_what_uses_the_attempt_is_run_again():
    sheet = exercise_sheets.run_with_answers(notebook())
    run, ran = sheet.run, []
    sheet.run = lambda section, attempts: ran.append(sheet.sections.index(section)) or run(section, attempts)
    for name, sections in {"one": [1, 4], "two": [2, 4], "three": [3], "four": [4]}.items():
        ran.clear()
        sheet.judge({name: abs})
        assert ran == sections, name


def test_what_a_sheet_prints_without_a_kernel_is_in_its_cells():
    codes = [
        "print('a')\n1 + 1",
        "import sys\nprint('b', file=sys.stderr)",
        "def f(): pass",
        "from pathlib import Path",
    ]
    sheet = new_notebook(cells=[new_code_cell(code) for code in codes])
    exercise_sheets.execute_here(sheet)
    assert list(checks.texts(sheet.cells[0].outputs)) == ["a\n"]
    assert checks.stored_outputs(sheet) == ["cell 1: stored text on stderr: 'b\\n'"]
    with pytest.raises(ZeroDivisionError):
        exercise_sheets.execute_here(new_notebook(cells=[new_code_cell("x = 0\n1 / x")]))
