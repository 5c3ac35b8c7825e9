"""Exercise checks: each planted mistake is named, and right answers pass however they are written."""

from __future__ import annotations

import io
import math
import re
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fmcore.course import checks

generator = torch.Generator().manual_seed(0)
X0, X1 = torch.randn(2, 5, 2, generator=generator)
T = torch.rand(5, generator=generator)
SQUARE = (*torch.randn(2, 2, 2, generator=generator), torch.rand(2, generator=generator))


def wide(t: Tensor, x: Tensor) -> Tensor:
    return t.reshape(-1, 1) if t.ndim else t


def curved(x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """A reference in which no two mistakes look alike."""
    s = wide(t, x0)
    return (1 - s**2) * x0 + s.exp() * x1 + 3


def distance(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().mean()


def norms(x: Tensor) -> Tensor:
    return x.square().sum(1).sqrt()


def with_entries(x: Tensor, value: float) -> Tensor:
    """The tensor with this value in its first three entries."""
    return torch.cat([torch.full((3,), value), x.reshape(-1)[3:]]).reshape(x.shape)


PLANTED: list[tuple[str, Callable[..., Any]]] = [
    ("not written yet", lambda x0, x1, t: None),
    ("not written yet", lambda x0, x1, t: ...),
    ("sign flipped", lambda x0, x1, t: -curved(x0, x1, t)),
    ("time runs the other way", lambda x0, x1, t: curved(x0, x1, 1 - t)),
    ("x0 and x1 swapped", lambda x0, x1, t: curved(x1, x0, t)),
    ("factor 2", lambda x0, x1, t: 2 * curved(x0, x1, t)),
    ("factor 1/2", lambda x0, x1, t: curved(x0, x1, t) / 2),
    ("factor pi", lambda x0, x1, t: curved(x0, x1, t) * math.pi),
    ("right one minus 3", lambda x0, x1, t: curved(x0, x1, t) - 3),
    ("squared|square of", lambda x0, x1, t: curved(x0, x1, t) ** 2),
    ("exponential", lambda x0, x1, t: curved(x0, x1, t).exp()),
    ("1 over", lambda x0, x1, t: 1 / curved(x0, x1, t)),
    ("factor t is missing", lambda x0, x1, t: curved(x0, x1, t) / wide(t, x0)),
    ("one factor t too many", lambda x0, x1, t: curved(x0, x1, t) * wide(t, x0)),
    ("term with x1 is missing", lambda x0, x1, t: curved(x0, 0 * x1, t)),
    ("one time is used for all rows", lambda x0, x1, t: curved(x0, x1, t[:1].expand(len(t)))),
    ("zero everywhere", lambda x0, x1, t: torch.zeros_like(x0)),
    ("zero everywhere", lambda x0, x1, t: 1e-9 * curved(x0, x1, t)),
    ("infinite everywhere", lambda x0, x1, t: curved(x0, x1, t) / 0),
    (r"not a number \(NaN\) everywhere", lambda x0, x1, t: x0 * math.nan),
    (r"not a number \(NaN\) in 3 of 10 entries", lambda x0, x1, t: with_entries(curved(x0, x1, t), math.nan)),
    ("infinite in 3 of 10 entries", lambda x0, x1, t: with_entries(curved(x0, x1, t), -math.inf)),
    (r"your result is 1\.5 everywhere", lambda x0, x1, t: torch.full_like(x0, 1.5)),
    (r"shape \(2, 5\), but \(5, 2\).*transposed", lambda x0, x1, t: curved(x0, x1, t).T),
    (r"shape \(\).*averaged", lambda x0, x1, t: curved(x0, x1, t).mean()),
    (r"shape \(4, 2\), but \(5, 2\) is asked", lambda x0, x1, t: curved(x0, x1, t)[1:]),
    ("one number.*tensor of shape", lambda x0, x1, t: 3.0),
    ("a str, a tensor", lambda x0, x1, t: "x"),
    ("t not broadcast.*shape \\(5, 1\\)", lambda x0, x1, t: (1 - t**2) * x0 + t.exp() * x1 + 3),
    (r"arguments \(x0, x1, t\)", lambda x0, x1: x0),
    ("raises KeyError: 'speed'", lambda x0, x1, t: {}["speed"]),
    ("changes its argument x0 in place", lambda x0, x1, t: x0.mul_(2)),
    ("not the right values: for example", lambda x0, x1, t: curved(x0, x1, t).sin()),
]


@pytest.mark.parametrize(("words", "attempt"), PLANTED, ids=[words for words, _ in PLANTED])
def test_planted_mistakes_are_named(words: str, attempt: Any, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = checks.compare("point", attempt, curved, [(X0, X1, T)])
    assert not outcome
    said = capsys.readouterr().out
    assert said.startswith("✗ point: ")
    assert said.count("\n") == 1
    assert re.search(words, said), said
    assert outcome.problem in said


@pytest.mark.parametrize(
    ("words", "reference", "attempt", "cases"),
    [
        ("sum instead of mean", distance, lambda x, y: (x - y).square().sum(), [(X0, X1)]),
        ("sum instead of mean", lambda x: x.mean(1), lambda x: x.sum(1), [(X0,)]),
        ("mean instead of sum", lambda x: x.square().sum(1), lambda x: x.square().mean(1), [(X0,)]),
        ("square root is missing", norms, lambda x: x.square().sum(1), [(X0,)]),
        ("a square is missing", lambda x: x.square().sum(1), norms, [(X0,)]),
        ("shape .*take the mean", distance, lambda x, y: (x - y).square().mean(1), [(X0, X1)]),
        ("sum .or average. over the last axis", norms, lambda x: x.abs(), [(X0,)]),
        ("every row met every other row", lambda x, t: x * t, lambda x, t: x[:, None] * t, [(X0[:, 0], T)]),
        ("t not broadcast.*last axis", curved, lambda x0, x1, t: (1 - t**2) * x0 + t.exp() * x1 + 3, [SQUARE]),
        ("mean and std swapped", lambda mean, std: mean + 2 * std, lambda mean, std: std + 2 * mean, [(X0, X1)]),
        ("factor 1/ln 2", lambda x: x.exp().log(), lambda x: x / math.log(2), [(torch.tensor(0.7),)]),
    ],
)
def test_mistakes_in_other_shapes_are_named(
    words: str, reference: Any, attempt: Any, cases: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not checks.compare("f", attempt, reference, cases)
    said = capsys.readouterr().out
    assert re.search(words, said), said


FEW = torch.tensor([0.5, 1.0, 2.0])
# References for which a usual mistake gives zero too, exactly or within the tolerances.
ZERO_TOO: list[tuple[Any, tuple[Any, ...]]] = [
    (lambda x: x[:, None] + x, (FEW,)),  # larger than its argument: a mean over no entries
    (lambda x: torch.outer(x, x).reshape(-1), (FEW,)),
    (lambda x: x.sum(), (torch.full((20_000,), 1e-5),)),  # the mean is 1e-5
    (lambda x: x.square().sum(1), (torch.full((2, 4000), 3e-3),)),
    (lambda x: x / 200, (FEW,)),  # its square is less than 1e-4
    (lambda x: x * 0 + 1, (FEW,)),  # its logarithm is 0
    (lambda x: x, (FEW,)),  # 0 for x = 0
    (lambda x0, x1: x0 + x1, (FEW, -FEW * torch.tensor([1.0, 1.0, 2.0]))),
    (lambda mean, std: mean, (FEW, FEW * 0)),  # swapped, they give 0
]


@pytest.mark.parametrize(("reference", "case"), ZERO_TOO)
def test_an_answer_of_zeros_is_told_that_and_nothing_else(reference: Any, case: Any) -> None:
    def zeros(*given: Any) -> Tensor:
        return torch.zeros_like(reference(*given))

    assert checks.compare("f", zeros, reference, [case]).problem == "your result is zero everywhere"
    assert checks.compare("f", reference, reference, [case])


def test_numbers_that_are_zero_are_told_that() -> None:
    for right in (1.0, 0.009, -3.0, math.e):
        assert checks.value("number", 0.0, right).problem == "your result is zero everywhere"
    assert checks.value("number", 0.0, 0.0)
    assert checks.value("number", 0.0, 1.0, {"log 1 is not asked": 0.0}).problem == "log 1 is not asked"


def test_a_small_mean_is_not_taken_for_zero() -> None:
    outcome = checks.compare("f", lambda x: x.mean(), lambda x: x.sum(), [(torch.full((2000,), 1e-4),)])
    assert outcome.problem == "mean instead of sum"


def test_zeros_of_another_shape_are_told_of_the_shape() -> None:
    outcome = checks.compare("f", lambda x: torch.zeros(()), lambda x: x, [(X0,)])
    assert outcome.problem is not None
    assert outcome.problem.startswith("shape (), but (5, 2) is asked")


def test_a_factor_is_no_sum_where_no_mean_runs_over_so_many_entries() -> None:
    outcome = checks.compare("f", lambda x: 2 * x[:2], lambda x: x[:2], [(torch.tensor([1.0, 2.0, 5.0, 7.0, 8.0]),)])
    assert outcome.problem == "factor 2: your result is 2 times the right one"


def test_a_constant_where_the_right_one_is_constant_too_is_off_by_a_factor() -> None:
    outcome = checks.compare("f", lambda x: x * 0 + 1.5, lambda x: x * 0 + 3, [(FEW,)])
    assert outcome.problem == "factor 1/2: your result is 1/2 times the right one"


def test_verdicts_are_printed_where_there_is_no_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding="cp1252", write_through=True))
    assert checks.value("one", 1, 1)
    assert not checks.holds("σ", False, "σ² grows")
    assert content.getvalue().decode("cp1252").splitlines() == ["yes one: right.", "no sigma: sigma² grows."]


def test_right_answers_pass_however_they_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    cases = [(X0, X1, T), SQUARE, (X0, X1, torch.tensor(0.5))]
    assert checks.compare("point", curved, curved, cases)
    assert checks.compare("point", lambda x0, x1, t: curved(x0.double(), x1.double(), t.double()), curved, cases)
    assert checks.compare("point", lambda a, b, c: curved(a, b, c).requires_grad_(), curved, cases)
    assert checks.compare("half", lambda n: n / 2, lambda n: torch.tensor(n / 2), [(3,), (4,)])
    assert capsys.readouterr().out == "✓ point: right.\n" * 3 + "✓ half: right.\n"


def test_a_mistake_is_named_only_if_it_explains_every_case() -> None:
    def right_at_first(x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        return curved(x0, x1, t) if len(t) == 5 else -curved(x0, x1, t)

    outcome = checks.compare("point", right_at_first, curved, [(X0, X1, T), SQUARE])
    assert outcome.problem is not None
    assert "sign flipped" not in outcome.problem
    assert "not the right values" in outcome.problem


def test_a_factor_is_not_blamed_on_an_argument_that_never_changes() -> None:
    half = torch.tensor(0.5)
    outcome = checks.compare("f", lambda x, t: 2 * (x + t), lambda x, t: x + t, [(X0, half), (X1, half)])
    assert outcome.problem == "factor 2: your result is 2 times the right one"


def test_given_mistakes_come_first_and_are_named_in_their_words() -> None:
    mistakes = {"the minus belongs to the noise": lambda x0, x1, t: -curved(x0, x1, t)}
    outcome = checks.compare("point", lambda x0, x1, t: -curved(x0, x1, t), curved, [(X0, X1, T)], mistakes)
    assert outcome.problem == "the minus belongs to the noise"


def test_a_given_mistake_that_is_right_is_never_named() -> None:
    assert checks.compare("point", curved, curved, [(X0, X1, T)], {"wrong": curved})
    outcome = checks.compare("point", lambda *a: -curved(*a), curved, [(X0, X1, T)], {"wrong": curved})
    assert outcome.problem is not None
    assert "sign flipped" in outcome.problem


def test_both_functions_draw_the_same_random_numbers() -> None:
    def noisy(x: Tensor, generator: torch.Generator) -> Tensor:
        return x + torch.randn(x.shape, generator=generator)

    seeded = torch.Generator().manual_seed(3)
    before = seeded.get_state()
    assert checks.compare("noisy", noisy, noisy, [(X0, seeded)])
    assert torch.equal(seeded.get_state(), before)
    assert not checks.compare("noisy", lambda x, generator: x + torch.randn(x.shape), noisy, [(X0, seeded)])


def test_attempts_that_are_not_functions() -> None:
    for attempt in (None, ...):
        assert checks.compare("f", attempt, curved, [(X0, X1, T)]).problem == "not written yet"
    outcome = checks.compare("f", X0, curved, [(X0, X1, T)])
    assert outcome.problem == "f is a Tensor, a function is asked: write `def f(...):`"

    def stub(x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        raise NotImplementedError

    assert checks.compare("f", stub, curved, [(X0, X1, T)]).problem == "not written yet"
    with pytest.raises(ValueError, match="at least one case"):
        checks.compare("f", curved, curved, [])


def test_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert checks.value("slope", torch.tensor(1.02), 1.0, rtol=0.1)
    assert checks.value("slope", 2.1, 1.0, {"logarithm of one axis only": 2.1}).problem == "logarithm of one axis only"
    assert checks.value("slope", ..., 1.0).problem == "not written yet"
    assert checks.value("slope", -1.0, 1.0).problem == "your result is minus the right one: sign flipped"
    assert checks.value("slope", "steep", 1.0).problem == "your answer is a str, one number is asked"
    assert "shape (3,), but () is asked" in (checks.value("slope", torch.ones(3), 1.0).problem or "")


def test_choices_and_properties(capsys: pytest.CaptureFixture[str]) -> None:
    assert checks.choice("path", "VP", "VP")
    assert checks.choice("path", "VE", "VP", {"VE": "alpha stays 1 there"}).problem == "alpha stays 1 there"
    assert checks.choice("path", "OT", "VP").problem == "'OT' is not the answer"
    assert checks.choice("path", ..., "VP").problem == "not written yet"
    assert checks.holds("invertible", torch.tensor(True), "it does not come back")
    assert checks.holds("invertible", False, "it does not come back").problem == "it does not come back"
    assert checks.holds("invertible", None, "it does not come back").problem == "not written yet"


def test_an_outcome_is_a_truth_value_that_shows_nothing_in_a_notebook(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = checks.value("one", 1, 1)
    capsys.readouterr()
    assert outcome == True  # noqa: E712
    outcome._ipython_display_()
    assert capsys.readouterr().out == ""
    assert sum([checks.value("one", 1, 1), checks.value("one", 2, 1)]) == 1


@pytest.mark.parametrize("attempt", [["Euler"], torch.ones(2), {"a": 1}, np.ones(3)])
def test_a_choice_that_is_no_choice_is_told_in_words(attempt: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert not checks.choice("method", attempt, "Euler", {"Heun": "no"})
    assert (
        f"one choice is asked, a word or a number; your answer is a {type(attempt).__name__}" in capsys.readouterr().out
    )


@pytest.mark.parametrize("condition", [math.nan, torch.tensor(math.nan), np.float64("nan")])
def test_not_a_number_holds_nowhere(condition: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert not checks.holds("loss", condition, "too large")
    assert "not a number" in capsys.readouterr().out


def test_a_property_of_many_numbers_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert not checks.holds("loss", torch.ones(3) > 0, "too large")
    assert "a number or a truth value is asked; yours is a Tensor" in capsys.readouterr().out
    assert checks.holds("loss", torch.ones(3).mean() > 0, "too large")


def test_complex_results_are_told_apart_from_real_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert not checks.compare("root", lambda x: x.to(torch.complex64).sqrt(), lambda x: x.sqrt(), [(torch.ones(3),)])
    assert "complex numbers; real ones are asked" in capsys.readouterr().out


def test_a_judge_is_found_by_number_and_told_of_missing_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    judges = types.ModuleType("fmcore.course.exercises.chapter_77")
    judges.exercise_2b = lambda first, second: checks.value("sum", first + second, 3)
    monkeypatch.setitem(sys.modules, judges.__name__, judges)
    assert checks.exercise("77.2b", 1, 2)
    assert not checks.exercise("77.2b", 1, 1)
    for number in ("77.3", "78.1", "77", ""):
        with pytest.raises(ValueError, match="there is no exercise"):
            checks.exercise(number, 1)
    with pytest.raises(ValueError, match=r"exercise 77.2b takes 2 answers \(first, second\), got 1"):
        checks.exercise("77.2b", 1)
