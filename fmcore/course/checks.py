"""Exercise checks that say what is wrong.

    checks.exercise("00.3", euler)

is what a sheet calls: it finds the judge of exercise 3 of chapter 00 in `fmcore.course.exercises`. Judges are made of

    checks.compare("velocity", velocity, reference, cases=[(x0, x1, t)], mistakes={"t squared": with_t_squared})

which compares an attempt with the reference on each case and prints one line: a tick, or the mistake that explains the
difference. `fmcore.course.diagnosis` lists the mistakes that are tried besides the ones given.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fmcore.console import signs
from fmcore.course import diagnosis


class Outcome(int):
    """1 (right) or 0, to be used as a truth value; shows nothing of its own at the end of a notebook cell.

    `problem` is what the printed line says is wrong, None when all is right.
    """

    problem: str | None

    def __new__(cls, problem: str | None) -> Outcome:
        """The outcome for a problem in words, or for None."""
        made = super().__new__(cls, problem is None)
        made.problem = problem
        return made

    def _ipython_display_(self) -> None:
        pass


def exercise(number: str, *answers: Any) -> Outcome:
    """Judge the answers to one exercise; print a line for each, return the outcome of the last that was looked at.

    Args:
        number: chapter and exercise, as in "00.3"; a letter names a part: "00.1b".
        answers: the functions or values that the exercise asks for, in the order of the sheet.

    Raises:
        ValueError: if there is no such exercise, or it asks for another number of answers.
    """
    chapter, _, rest = number.partition(".")
    try:
        judges = importlib.import_module(f"fmcore.course.exercises.chapter_{chapter}")
        judge = getattr(judges, f"exercise_{rest}")
    except (ModuleNotFoundError, AttributeError):
        raise ValueError(f"there is no exercise {number!r}; sheet 00 has 00.1, 00.2, and so on") from None
    asked = list(inspect.signature(judge).parameters)
    if len(answers) != len(asked):
        raise ValueError(f"exercise {number} takes {len(asked)} answers ({', '.join(asked)}), got {len(answers)}")
    outcome: Outcome = judge(*answers)
    return outcome


def compare(
    name: str,
    attempt: Callable[..., Any],
    reference: Callable[..., Any],
    cases: Sequence[Sequence[Any]],
    mistakes: Mapping[str, Callable[..., Any]] | None = None,
    rtol: float = 1e-3,
    atol: float = 1e-4,
) -> Outcome:
    """Check the function `attempt` against `reference` on every case; print one line, return the outcome.

    Args:
        name: what the line calls the attempt.
        attempt: the learner's function.
        reference: the right function. The names of its arguments matter: with `t`, `x0` and `x1`, `alpha` and
            `sigma`, `mean` and `std` the mistakes that belong to them are tried.
        cases: tuples of arguments. Tensors are cloned and generators copied, so that each call sees the same ones.
        mistakes: a name of a mistake -> a function of the same arguments that makes it. They are tried before the
            usual ones; a mistake is named only if it explains the result of every case.
        rtol, atol: tolerances of equality, as in `torch.allclose`.

    Raises:
        ValueError: without cases.
    """
    if not cases:
        raise ValueError("compare needs at least one case: a tuple of arguments")
    if attempt is None or attempt is Ellipsis:
        return _say(name, "not written yet")
    if not callable(attempt):
        return _say(name, f"{name} is a {type(attempt).__name__}, a function is asked: write `def {name}(...):`")
    names = diagnosis.argument_names(reference, cases[0])
    expected = [reference(*_copy(case)) for case in cases]
    results = []
    for case, right in zip(cases, expected, strict=True):
        given = _copy(case)
        try:
            result = attempt(*given)
        except NotImplementedError:
            return _say(name, "not written yet")
        except Exception as error:  # whatever a learner's code raises is explained in words
            return _say(name, diagnosis.of_error(error, names, case))
        for argument, before, after in zip(names, case, given, strict=True):
            if isinstance(before, Tensor) and not torch.equal(before, after):
                return _say(name, f"your function changes its argument {argument} in place; make a new tensor")
        problem = diagnosis.of_kind(result, right)
        if problem:
            return _say(name, problem)
        results.append(result)
    close = diagnosis.Closeness(rtol, atol)
    if all(close(result, right) for result, right in zip(results, expected, strict=True)):
        return _say(name, None)
    for mistake, wrong in (mistakes or {}).items():
        if _explains(wrong, cases, results, expected, close):
            return _say(name, mistake)
    if problem := diagnosis.of_zeros(results, expected):
        return _say(name, problem)
    for mistake, wrong in diagnosis.usual_mistakes(reference, names, cases):
        if _explains(wrong, cases, results, expected, close):
            return _say(name, mistake)
    return _say(name, diagnosis.of_values(results, expected, close))


def value(
    name: str,
    attempt: Any,
    expected: Any,
    mistakes: Mapping[str, Any] | None = None,
    rtol: float = 1e-3,
    atol: float = 1e-4,
) -> Outcome:
    """Check one number or tensor; `mistakes` maps the name of a mistake to the value that it leads to."""
    if attempt is None or attempt is Ellipsis:
        return _say(name, "not written yet")
    problem = diagnosis.of_kind(attempt, expected, "your answer is")
    if problem:
        return _say(name, problem)
    wrong = {mistake: (lambda answer=answer: answer) for mistake, answer in (mistakes or {}).items()}
    return compare(name, lambda: attempt, lambda: expected, [()], wrong, rtol, atol)


def choice(name: str, attempt: Any, answer: Any, hints: Mapping[Any, str] | None = None) -> Outcome:
    """Check a choice (a word or a whole number); `hints` says what each wrong choice overlooks."""
    if attempt is None or attempt is Ellipsis:
        return _say(name, "not written yet")
    if isinstance(attempt, list | tuple | dict | set) or getattr(attempt, "ndim", 0) > 0:
        return _say(name, f"one choice is asked, a word or a number; your answer is a {type(attempt).__name__}")
    if attempt == answer:
        return _say(name, None)
    return _say(name, (hints or {}).get(attempt, f"{attempt!r} is not the answer"))


def holds(name: str, condition: Any, otherwise: str) -> Outcome:
    """Check a property that many answers may have; `otherwise` says what is wrong where it does not hold."""
    if condition is None or condition is Ellipsis:
        return _say(name, "not written yet")
    try:
        met = bool(condition)
        number = float(condition)
    except (TypeError, ValueError, RuntimeError):
        return _say(name, f"a number or a truth value is asked; yours is a {type(condition).__name__}")
    return _say(name, "your result is not a number (NaN)" if math.isnan(number) else None if met else otherwise)


def _say(name: str, problem: str | None) -> Outcome:
    said = "right" if problem is None else problem
    signs.say(f"{'✓' if problem is None else '✗'} {name}: {said if said.endswith(('.', '?', '!')) else f'{said}.'}")
    return Outcome(problem)


def _explains(
    wrong: Callable[..., Any],
    cases: Sequence[Sequence[Any]],
    results: Sequence[Any],
    expected: Sequence[Any],
    close: diagnosis.Closeness,
) -> bool:
    """True when the mistake gives the attempt's result in every case, and in some case not the right one."""
    differs = False
    for case, result, right in zip(cases, results, expected, strict=True):
        try:
            guess = wrong(*_copy(case))
        except Exception:  # the mistake makes no sense for these arguments
            return False
        if guess is None or not close(result, guess):
            return False
        differs = differs or not close(guess, right)
    return differs


def _copy(case: Sequence[Any]) -> list[Any]:
    return [_twin(a) for a in case]


def _twin(a: Any) -> Any:
    if isinstance(a, Tensor):
        return a.clone()
    if isinstance(a, torch.Generator):
        twin = torch.Generator(a.device)
        twin.set_state(a.get_state())
        return twin
    return a
