"""The checks of the exercises to chapter 09 name the mistakes that learners make."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from tests.notebooks import exercise_sheets
from tests.notebooks.one_judge import accepts, empty_sheet_says_so, refuses, says

SHEET = "09_source_geometry"
ROOT = math.sqrt(0.5)


def test_answers_are_right():
    exercise_sheets.answers_are_right(SHEET, checks=11)


def test_an_empty_sheet_runs_and_says_so():
    empty_sheet_says_so(SHEET)


def test_in_the_sheet_a_mistake_is_named_and_the_other_exercises_stay_right():
    exercise_sheets.names(SHEET, "spread_of_length", lambda d, std: std, "both terms")


@pytest.mark.parametrize(
    ("length", "spread", "words"),
    [
        (lambda d, s: s * d**0.5, None, "root of the mean of r^2"),
        (lambda d, s: s * (d - 2) ** 0.5, None, "not d - 2"),
        (lambda d, s: s * s * (d - 1), None, "square of the most likely length"),
        (lambda d, s: (d - 1) ** 0.5, None, "std is missing"),
        (lambda d, s: 0.0, None, "where a point is most likely"),
        (lambda d, s: s * math.sqrt(3071), None, "not the right values"),
        (lambda d, s: None, None, "not written yet"),
        (None, lambda d, s: s, "both terms of the logarithm"),
        (None, lambda d, s: s * s / 2, "variance"),
        (None, lambda d, s: -2 / s**2, "second derivative"),
        (None, lambda d, s: ROOT, "std is missing"),
        (None, lambda d, s: 0.7 * s, "not the right values"),
        (None, lambda d, s: s / d**0.5, "then d drops out"),
    ],
)
def test_most_likely_length(length, spread, words):
    right = (lambda d, s: torch.tensor(s * (d - 1) ** 0.5), lambda d, s: s * ROOT)
    accepts("09.1", *right)
    said = "most_likely_length:" if length else "spread_of_length:"
    if words == "not the right values" and spread:
        words = "factor"
    refuses("09.1", length or right[0], spread or right[1], words=words, said=said)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"a": "the second moments"}, "a: Gaussian noise"),
        ({"b": "nothing"}, "b: compare the fourth moments"),
        ({"b": "the second moments"}, "b: the axes of a cube"),
        ({"c": "nothing"}, "c: look at the second moments"),
        ({"c": "the fourth moments only"}, "c: look at the second moments"),
        ({"c": 3}, "c: 3 is not the answer"),
    ],
)
def test_samplers_of_directions(change, words):
    right = {"a": "nothing", "b": "the fourth moments only", "c": "the second moments"}
    accepts("09.2a", right.get)
    refuses("09.2a", (right | change).get, words=words)


def directions(cosine, v, sine=None):
    sine = (1 - cosine**2).clamp(min=0).sqrt() if sine is None else sine
    phi = 2 * math.pi * v
    return torch.stack([sine * phi.cos(), sine * phi.sin(), cosine], dim=1)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda u, v: directions((math.pi * u).cos(), v), "mean squares of the coordinates"),
        (lambda u, v: directions(u, v), "not uniform on [-1, 1]"),
        (lambda u, v: directions(2 * u - 1, v / 2), "not uniform on [-1, 1]"),
        (lambda u, v: directions(2 * u - 1, u), "too dense"),
        (lambda u, v: directions(2 * u - 1, v, sine=(math.pi * u).sin()), "not length 1"),
        (lambda u, v: directions(2 * u - 1, v).T, "shape (3, 20000)"),
        (lambda u, v: torch.nn.functional.normalize(torch.randn(len(u), 3), dim=1), "the same u and v give other"),
        (lambda u, v: (u, v), "a tuple"),
        (lambda u: u, "must take the arguments (u, v)"),
        (lambda u, v: None, "not written yet"),
    ],
)
def test_mended_directions(attempt, words):
    refuses("09.2b", attempt, words=words, said="direction:")


def test_directions_may_be_mended_in_other_ways():
    accepts("09.2b", lambda u, v: directions(1 - 2 * v, u))
    accepts("09.2b", lambda u, v: directions(torch.acos(2 * u - 1).cos(), v).roll(1, dims=1))

    def of_two(u, v):  # two normal numbers in the plane of two uniform ones, and their heights
        return directions(torch.where(u < 0.5, 4 * u - 1, 3 - 4 * u), v)

    accepts("09.2b", of_two)


@pytest.mark.parametrize(
    ("mean", "std", "words"),
    [
        (lambda R, d: d + R, None, "not squared"),
        (lambda R, d: d, None, "noise alone"),
        (lambda R, d: (d + R * R) ** 0.5, None, "root"),
        (lambda R, d: (d**0.5 - R) ** 2, None, "noise has no direction"),
        (lambda R, d: 3072 + R * R, None, "not the right values"),
        (None, lambda R, d: (2 * d) ** 0.5, "|x0|^2 alone"),
        (None, lambda R, d: 2 * d + 4 * R * R, "this is the variance"),
        (None, lambda R, d: (2 * d) ** 0.5 + 2 * R, "variances add up"),
        (None, lambda R, d: (2 * d + 2 * R * R) ** 0.5, "factor 2 of the mixed term"),
        (None, lambda R, d: (2 * d + R * R) ** 0.5, "not -R z"),
        (None, lambda R, d: (d + 4 * R * R) ** 0.5, "variance 2, not 1"),
        (None, lambda R, d: 2 * R, "mixed term alone"),
        (None, lambda R, d: (2 * d + 4 * R) ** 0.5, "R is not squared"),
    ],
)
def test_distance_of_noise(mean, std, words):
    right = (lambda R, d: R * R + d, lambda R, d: torch.tensor(2.0 * d + 4 * R**2).sqrt())
    accepts("09.3", *right)
    said = "mean_squared_distance:" if mean else "std_of_squared_distance:"
    refuses("09.3", mean or right[0], std or right[1], words=words, said=said)


def stays(q, p):
    return 1 - (q - p).clamp(min=0).sum()


def plan(q, p):
    """Fill from the first surplus and the first deficit on: another right plan than that of the sheet."""
    made = torch.diag(torch.minimum(q, p))
    surplus, deficit = (q - p).clamp(min=0), (p - q).clamp(min=0)
    for j in range(len(q)):
        for k in range(len(q)):
            amount = min(float(surplus[j]), float(deficit[k]))
            made[j, k] += amount
            surplus[j] -= amount
            deficit[k] -= amount
    return made


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        (lambda q, p: (q - p).clamp(min=0).sum(), "must cross"),
        (lambda q, p: (q * p).sum(), "independently"),
        (lambda q, p: 1 - (q - p).abs().sum(), "both taken off"),
        (lambda q, p: 1 - (q - p).max(), "largest surplus"),
        (lambda q, p: torch.maximum(q, p).sum(), "larger share"),
        (lambda q, p: torch.minimum(q, p), "bound on each entry"),
        (lambda q, p: torch.minimum(q, q.flip(0)).sum(), "not the right values"),
    ],
)
def test_what_can_stay(bound, words):
    refuses("09.4", bound, plan, words=words, said="most_that_stays:")


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda q, p: torch.outer(q, p), "of its pairs cross"),
        (lambda q, p: plan(q, p).T, "transposed"),
        (lambda q, p: torch.diag(torch.minimum(q, p)), "rows do not sum to q"),
        (lambda q, p: torch.diag(q), "columns do not sum to p"),
        (lambda q, p: torch.diag(p) + torch.outer(q - p, torch.ones_like(p) / len(p)), "not negative"),
        (
            lambda q, p: (
                torch.diag(torch.minimum(q, p))
                + torch.outer((q - p).clamp(min=0), (p - q).clamp(min=0)) / (p - q).clamp(min=0).sum()
            ),
            "where q = p",
        ),
        (lambda q, p: torch.minimum(q, p), "shape (2,)"),
        (lambda q, p: None, "not written yet"),
        (lambda q: q, "must take the arguments (q, p)"),
    ],
)
def test_plans(attempt, words):
    accepts("09.4", stays, plan)
    accepts("09.4", lambda q, p: float(stays(q, p)), lambda q, p: plan(q, p).tolist())
    refuses("09.4", stays, attempt, words=words, said="best_plan:")


def smallest(n):
    x = torch.linspace(-9, 9, 6001, dtype=torch.float64)
    chance = torch.special.ndtr(-x) ** n  # of all being larger than x
    return -(x * chance.diff(prepend=chance[:1])).sum()


def best(mean, std, rho, n):
    return mean + std * (1 - rho) ** 0.5 * smallest(n)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda n: -smallest(n), "sign flipped"),
        (lambda n: stats.norm.isf(0.5 ** (1 / n)), "median"),
        (lambda n: smallest(10), "same number for every n"),
        (lambda n: smallest(n) / n, "factor n of the density"),
        (lambda n: smallest(n + 1) * n / (n + 1), "one factor too many"),
        (lambda n: {1: 0, 10: -1.54}.get(n, -2.0), "not the right values"),
    ],
)
def test_smallest(attempt, words):
    accepts("09.5", smallest, best)
    refuses("09.5", attempt, best, words=words, said="smallest:")


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda m, s, r, n: best(m, s, 0, n), "plays no part"),
        (lambda m, s, r, n: m + s * (1 - r) * smallest(n), "take its root"),
        (lambda m, s, r, n: best(m, s, 1 - r, n), "cannot be chosen; what differs can"),
        (lambda m, s, r, n: m + s * (r**0.5 + (1 - r) ** 0.5) * smallest(n), "out of the minimum"),
        (lambda m, s, r, n: m - s * (1 - r) ** 0.5 * smallest(n), "not above it"),
        (lambda m, s, r, n: best(m, s, r, 10), "n is an argument"),
        (lambda m, s, r, n: m + (1 - r) ** 0.5 * smallest(n), "standard deviation is missing"),
        (lambda m, s, r, n: 0.3 - 1.54 * 0.05, "everywhere"),
    ],
)
def test_best_of_correlated_checkpoints(attempt, words):
    refuses("09.5", smallest, attempt, words=words, said="best_on_average:")


def made_up(two, control, spread=0.3, verdict="more than a head start", runs=4, change=None):
    """Distances without any training."""

    def experiment(points, steps, seed):
        generator = torch.Generator().manual_seed(seed)
        a, b = spread * torch.randn(2, runs, generator=generator)
        found = {"two flows": two + a, "control": control + b, "verdict": verdict}
        return found | (change(found) if change else {})

    return experiment


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (made_up(3.5, 7.8), "'control' has the mean distance 7.79, like a single flow of 300 steps"),
        (made_up(7.8, 5.5), "'two flows' has the mean distance"),
        (made_up(0.5, 5.5), "'two flows' has the mean distance"),
        (made_up(3.5, 5.5, runs=3), "at least 4 runs"),
        (made_up(3.5, 5.5, spread=0.0), "each needs a seed of its own"),
        (made_up(-3.5, 5.5), "not above 0"),
        (made_up(3.5, 5.5, change=lambda f: {"two flows": torch.cat([f["two flows"]] * 2)}), "as many runs"),
        (made_up(3.5, 5.5, change=lambda f: {"control": 5.5 + 0.2 * torch.randn(4)}), "same seed differ"),
        (made_up(3.5, 5.5, change=lambda f: {"control": [5.1, 5.4, 5.9, 5.7]}), "another seed gives the same"),
        (made_up(3.5, 5.5, change=lambda f: {"control": float(f["control"][0])}), "at least 4 runs"),
        (made_up(3.5, 5.5, change=lambda f: {"verdict": ...}), "not written yet"),
        (lambda points, steps, seed: [1, 2], "return a dictionary"),
        (lambda points, steps, seed: None, "not written yet"),
    ],
)
def test_two_flows(attempt, words):
    refuses("09.6", attempt, words=words, said="experiment:")


def test_the_verdict_on_two_flows():
    accepts("09.6", made_up(3.4, 5.6))
    refuses("09.6", made_up(3.4, 5.6, verdict="cannot tell"), words="standard errors", said="verdict:")
    refuses("09.6", made_up(3.4, 5.6, verdict="less than a head start"), words="standard errors", said="verdict:")
    refuses("09.6", made_up(3.4, 5.6, verdict="yes"), words="'yes' is not the answer", said="verdict:")


def test_a_wrong_attempt_leaves_nothing_behind():
    first = says("09.4", stays, plan)
    refuses("09.4", stays, lambda q, p: q.mul_(0), words="shape", said="best_plan:")
    assert says("09.4", stays, plan) == first
