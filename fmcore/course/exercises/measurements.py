"""What experiments of the learner report: whether it is complete, possible, and the same when they are repeated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fmcore.course import checks
from fmcore.course.checks import Outcome
from fmcore.course.exercises import attempts


def report(experiment: Any, arguments: Sequence[Any], keys: Sequence[str]) -> dict[str, Any] | Outcome:
    """The dictionary that an experiment returns; an Outcome, which has been printed, if it lacks one of these keys."""
    found = attempts.tried("experiment", experiment, *arguments)
    if isinstance(found, Outcome):
        return found
    if not isinstance(found, dict):
        asked = ", ".join(repr(key) for key in keys)
        return checks.holds("experiment", False, f"return a dictionary with {asked}; yours is a {type(found).__name__}")
    missing = [key for key in keys if key not in found]
    if missing:
        return checks.holds("experiment", False, f"{missing[0]!r} is missing in what your experiment returns")
    if any(found[key] is None or found[key] is Ellipsis for key in keys):
        return checks.holds("experiment", None, "")
    return found


def three_runs(
    experiment: Any,
    arguments: Sequence[Any],
    keys: Sequence[str],
    measured: Sequence[str],
    unlikely: Callable[[dict[str, Any]], str | None],
) -> list[dict[str, Any]] | Outcome:
    """Reports of an experiment that takes a seed last, for the seeds 1, 1 and 2; a printed Outcome if one will not do.

    Args:
        experiment: the learner's function.
        arguments: what it takes before the seed.
        keys: what a report holds.
        measured: those of the keys whose numbers depend on the seed.
        unlikely: says what is wrong with a single report, or None.
    """
    runs: list[dict[str, Any]] = []
    for seed in (1, 1, 2):
        run = report(experiment, (*(a.clone() if isinstance(a, Tensor) else a for a in arguments), seed), keys)
        if isinstance(run, Outcome):
            return run
        if problem := unlikely(run):
            return checks.holds("experiment", False, problem)
        runs.append(run)
    if problem := repeated(runs, measured, [[key] for key in measured], "numbers; draw new ones"):
        return checks.holds("experiment", False, problem)
    return runs


def repeated(
    runs: Sequence[Mapping[str, Any]], measured: Sequence[str], new: Sequence[Sequence[str]], words: str
) -> str | None:
    """What is wrong with reports for the seeds 1, 1 and 2: the first two are the same, the third one is not.

    Args:
        runs: the reports; more may follow.
        measured: the keys that the same seed must give again.
        new: groups of keys, none of which another seed may give again.
        words: what another seed gives again, and what to do: "times; draw new pairs".
    """
    if not same(runs[0], runs[1], measured):
        return "two runs with the same seed differ; take all random numbers from a generator that starts from the seed"
    if any(same(runs[0], runs[2], keys) for keys in new):
        return f"another seed gives the same {words} for each seed"
    return None


def numbers(value: Any) -> Tensor | None:
    """A list, array or tensor of finite numbers as (n,) float64; None if it is something else."""
    try:
        made = torch.as_tensor(value).detach().double()
    except (TypeError, ValueError, RuntimeError):
        return None
    return made if made.ndim == 1 and bool(made.isfinite().all()) else None


def same(first: Mapping[str, Any], second: Mapping[str, Any], keys: Sequence[str]) -> bool:
    """True when two reports hold the same numbers under these keys."""
    pairs = [(numbers(first[key]), numbers(second[key])) for key in keys]
    return all(a is not None and b is not None and torch.equal(a, b) for a, b in pairs)


def choices(name: str, chosen: Any, right: Mapping[Any, Any], hints: Mapping[Any, Mapping[Any, str]]) -> Outcome:
    """Judge a function that names a choice for each key of `right`; the line is about the first wrong one."""
    for argument, answer in right.items():
        said = attempts.tried(name, chosen, argument)
        if isinstance(said, Outcome):
            return said
        try:
            hit = bool(said == answer)
            hint = hints.get(argument, {}).get(said, f"{said!r} is not the answer")
        except (TypeError, ValueError, RuntimeError):
            hit, hint = False, f"one of the words is asked; yours is a {type(said).__name__}"
        if not hit:
            return checks.holds(name, False, f"{argument}: {hint}")
    return checks.holds(name, True, "")
