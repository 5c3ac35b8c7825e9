"""A learner's function that is called once: its result, or words about why there is none."""

from __future__ import annotations

import pytest

from fmcore.course.checks import Outcome
from fmcore.course.exercises.attempts import tried


def test_a_result_is_given_back_and_nothing_is_said(capsys):
    assert tried("double", lambda x: 2 * x, 3) == 6
    assert tried("zero", lambda: 0) == 0
    assert capsys.readouterr().out == ""


def refuse(x):
    raise NotImplementedError


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (None, "not written yet"),
        (..., "not written yet"),
        (lambda x: None, "not written yet"),
        (lambda x: ..., "not written yet"),
        (refuse, "not written yet"),
        (3, "a function is asked"),
        (lambda x: x / 0, "ZeroDivisionError"),
        (lambda: 1, "must take the arguments (x)"),
    ],
)
def test_what_is_no_result_is_said(attempt, words, capsys):
    found = tried("double", attempt, 3, names=["x"])
    assert isinstance(found, Outcome)
    assert not found
    said = capsys.readouterr().out
    assert said.startswith("✗ double:")
    assert words in said
