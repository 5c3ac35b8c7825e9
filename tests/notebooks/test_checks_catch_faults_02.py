"""The checks of the exercises to chapter 02 name the mistakes that learners make."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch

from fmcore import solvers, sources
from fmcore.course import plotting
from tests.notebooks import exercise_sheets
from tests.notebooks.one_judge import accepts, empty_sheet_says_so, refuses, says

SHEET = "02_flows"


def test_answers_are_right():
    exercise_sheets.answers_are_right(SHEET, checks=12)


def test_an_empty_sheet_runs_and_says_so():
    empty_sheet_says_so(SHEET)


def test_in_the_sheet_a_mistake_is_named_and_the_other_exercises_stay_right():
    normal = sources.Gaussian((2,)).log_prob

    def attempt(x1, inverse, log_prob0):
        return log_density(x1, inverse, normal if x1.shape[1] == 2 else sources.Gaussian(x1.shape[1:]).log_prob)

    exercise_sheets.names(SHEET, "log_density", attempt, "log_prob0 is not used")


def heun(velocity, x0, steps, second=None, weights=(0.5, 0.5), shift=0):
    x, h = x0, 1 / steps
    for i in range(steps):
        t = torch.tensor((i + shift) * h)
        k1 = velocity(x, t)
        k2 = second(velocity, x, t, h, k1) if second else velocity(x + h * k1, t + h)
        x = x + h * (weights[0] * k1 + weights[1] * k2)
    return x


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"second": lambda v, x, t, h, k: v(x + h * k, t)}, "this is the broken method"),
        ({"second": lambda v, x, t, h, k: v(x, t + h)}, "the look-ahead is at x + h k1"),
        ({"second": lambda v, x, t, h, k: v(x + h / 2 * k, t + h / 2), "weights": (0, 1)}, "midpoint method"),
        ({"weights": (1, 1)}, "added, not averaged"),
        ({"weights": (1, 0)}, "Euler's method"),
        ({"weights": (0, 1)}, "not the right values"),
        ({"shift": 1}, "one step ahead"),
    ],
)
def test_heun(change, words):
    accepts("02.1a", heun)
    refuses("02.1a", partial(heun, **change), words=words, said="heun:")


def two_points(steps, errors, i, j):
    return torch.log(errors[i] / errors[j]) / torch.log(steps[j] / steps[i])


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (partial(two_points, i=0, j=-1), "the first and the last point only"),
        (partial(two_points, i=0, j=1), "first two points only"),
        (partial(two_points, i=-2, j=-1), "last two points only"),
        (lambda n, e: -(e.log().diff() / n.log().diff()).mean(), "mean of the slopes between neighbours"),
        (lambda n, e: plotting.slope(n, e), "slope against the number of steps"),
        (lambda n, e: 2 ** -plotting.slope(n, e), "its logarithm to base 2"),
        (lambda n, e: -plotting.slope(n[[0, -1]], e[[0, -1]]), "the first and the last point only"),
        (lambda n, e: 2.0, "2 everywhere"),
        (lambda n, e: round(-plotting.slope(n, e)), "not the right values"),
    ],
)
def test_order(attempt, words):
    refuses("02.1b", attempt, words=words, said="order:")


def test_order_may_be_computed_in_other_ways():
    accepts("02.1b", lambda n, e: -plotting.slope(n, e))
    accepts("02.1b", lambda n, e: -np.polyfit(np.log10(n.numpy()), np.log10(e.numpy()), 1)[0])


def radial(x, f, df, formula=lambda s, d, f, df: d * f(s) + 2 * s * df(s)):
    return formula(x.square().sum(1), x.shape[1], f, df)


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        (lambda s, d, f, df: 2 * f(s) + 2 * s * df(s), "not always 2"),
        (lambda s, d, f, df: d * f(s) + s * df(s), "factor 2"),
        (lambda s, d, f, df: d * f(s), "term with its derivative is missing"),
        (lambda s, d, f, df: f(s) + 2 * s * df(s), "appears d times"),
        (lambda s, d, f, df: d * f(s.sqrt()) + 2 * s * df(s.sqrt()), "not of the length"),
        (lambda s, d, f, df: (d * f(s) + 2 * s * df(s)).sum(), "you averaged (or summed) over everything"),
        (lambda s, d, f, df: 4 * (1 - s / 2 - s**2 / 16) / (1 + s / 4) ** 2, "not the right values"),  # of the whirl
    ],
)
def test_the_divergence_of_a_radial_field(formula, words):
    refuses("02.2", partial(radial, formula=formula), lambda d: -d, words=words, said="radial_divergence:")


@pytest.mark.parametrize(
    ("power", "words"),
    [
        (lambda d: 1 - d, "power of the length of the velocity"),
        (lambda d: -d / 2, "the power of s"),
        (lambda d: -2.0, "-2 everywhere"),
        (lambda d: d, "sign flipped"),
        (lambda d: None, "not written yet"),
    ],
)
def test_the_power_of_a_source(power, words):
    accepts("02.2", radial, lambda d: -float(d))
    refuses("02.2", radial, power, words=words, said="power_of_a_source:")


def log_density(x1, inverse, log_prob0, sign=1, at=None, change=lambda det: det.abs().log()):
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: inverse(row[None])[0]))(x1)
    return log_prob0(x1 if at else inverse(x1)) + sign * change(torch.linalg.det(jacobian))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sign": -1}, "wrong sign in front"),
        ({"sign": 0}, "this is the density of x0 only"),
        ({"at": "x1"}, "the point of the source that x1 came from"),
        ({"change": lambda det: det.log()}, "not a number (NaN)"),
        ({"change": lambda det: det.abs()}, "not the right values"),
        ({"change": lambda det: det.square().log()}, "not the right values"),
    ],
)
def test_the_density_under_a_map(change, words):
    refuses("02.3", partial(log_density, **change), lambda c, d: c ** (2 * d), words=words, said="log_density:")


def test_the_density_must_use_the_density_of_the_source():
    def ignores(x1, inverse, log_prob0):
        return log_density(x1, inverse, sources.Gaussian(x1.shape[1:]).log_prob)

    refuses("02.3", ignores, lambda c, d: c ** (2 * d), words="log_prob0 is not used", said="log_density:")
    refuses(
        "02.3", lambda x1, *a: log_density(x1[:1], *a).expand(len(x1)), lambda c, d: 1.0, words="not the right values"
    )


@pytest.mark.parametrize(
    ("mass", "words"),
    [
        (lambda c, d: c**d, "the factor of the volume once"),
        (lambda c, d: c ** (-2 * d), "the other way round"),
        (lambda c, d: c**4, "not the right values"),
        (lambda c, d: 16.0, "16 everywhere"),
    ],
)
def test_the_mass_of_the_broken_density(mass, words):
    accepts("02.3", log_density, lambda c, d: c ** (2 * d))
    refuses("02.3", log_density, mass, words=words, said="broken_mass:")


def quarter_turn(x):
    return torch.stack([-x[:, 1], x[:, 0]], dim=1)


def stirring(x, mean, covariance):
    return -quarter_turn((x - mean) @ torch.linalg.inv(covariance))


FIXED = torch.tensor([[1.5, 0.6], [0.6, 0.5]]).double()


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda x, m, c: stirring(x, 0 * m, c), "turned about the origin"),
        (lambda x, m, c: stirring(x, m, torch.eye(2).double()), "only round Gaussians"),
        (lambda x, m, c: stirring(x, m, torch.linalg.inv(c)), "the score has its inverse"),
        (lambda x, m, c: -quarter_turn(stirring(x, m, c)), "this is the score"),
        (lambda x, m, c: -quarter_turn(x - m) @ torch.linalg.inv(c), "the quarter turn comes last"),
        (lambda x, m, c: -stirring(x, m, c), "sign flipped"),
        (lambda x, m, c: stirring(x, m, FIXED), "not the right values"),
        (lambda x, m, c: stirring(x, torch.tensor([1.0, -0.5]).double(), c), "not the right values"),
        (lambda x, m, c: torch.zeros_like(x), "zero everywhere"),
    ],
)
def test_stirring(attempt, words):
    accepts("02.4", stirring)
    refuses("02.4", attempt, words=words, said="stirring:")


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda a: torch.triu(a, 1), "(j, i) have the same signs"),
        (lambda a: torch.triu(a + a.T, 1) / 2, "each pair stands for two terms"),
        (lambda a: 2 * torch.triu(a, 1), "right for symmetric matrices only"),
        (lambda a: a + a.T - 2 * torch.diag(a.diagonal()), "put zeros where i > j"),
        (lambda a: torch.triu(a + a.T), "belong to the trace"),
        (lambda a: torch.tril(a + a.T, -1), "not the right values"),
    ],
)
def test_the_first_step_of_the_proof(attempt, words):
    accepts("02.5a", lambda a: torch.triu(a + a.T, 1))
    refuses("02.5a", attempt, words=words, said="coefficients:")


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda i, j, k, m: float(bool({i, j} & {k, m})), "1 if the pairs share an index"),
        (lambda i, j, k, m: 1.0, "1 for all"),
        (lambda i, j, k, m: 0.0, "zero everywhere"),
        (lambda i, j, k, m: float(i == k or j == m), "both must agree"),
        (lambda i, j, k, m: "one", "a str"),
    ],
)
def test_the_second_step_of_the_proof(attempt, words):
    accepts("02.5b", lambda i, j, k, m: (i, j) == (k, m))
    accepts("02.5b", lambda i, j, k, m: int(i == k) * (j == m))
    refuses("02.5b", attempt, words=words, said="mean_of_four:")


def off(a):
    return a - torch.diag(a.diagonal())


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda a: off(a + a.T).square().sum() / 2, "a square root is missing"),
        (lambda a: (2 * off(a).square().sum()).sqrt(), "A is not made symmetric first"),
        (lambda a: (((a + a.T) / 2).square().sum() * 2).sqrt(), "the diagonal is included"),
        (lambda a: torch.triu(a + a.T, 1).square().sum().div(2).sqrt(), "each pair is counted once"),
        (lambda a: (2 * off(a + a.T).square().sum()).sqrt(), "factor 2"),
    ],
)
def test_the_third_step_of_the_proof(attempt, words):
    accepts("02.5c", lambda a: float(torch.triu(a + a.T, 1).norm()))
    refuses("02.5c", attempt, words=words, said="spread:")


FIELDS = {
    "smooth": lambda x, t: 1 + x**2 / 2,
    "kink": lambda x, t: 1 + x.abs() / 2,
    "jump": lambda x, t: 1 + (x > 0).to(x) / 2,
}
ENDS = {  # from negative x at t = 0 to t = 1
    "smooth": lambda x: math.sqrt(2) * torch.tan(torch.atan(x / math.sqrt(2)) + 1 / math.sqrt(2)),
    "kink": lambda x: 2 * (math.exp(0.5) / (1 - x / 2) - 1),
    "jump": lambda x: (3 + 3 * x) / 2,
}
ORDERS = {"rk4": [4, 2, 1], "midpoint": [2, 2, 1]}


def orders(method, seed, counts=(8, 16, 32, 64), finest=None, dtype=torch.float64, low=-0.9, used=None, change=None):
    """A report on three fields; `change` alters it."""
    x0 = low + (-0.1 - low) * torch.rand(300, 1, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    report = {"steps": list(counts), "orders": ORDERS.get(used or method, [0, 0, 0])}
    for name, field in FIELDS.items():
        truth = solvers.solve(field, x0, method="rk4", steps=finest).x if finest else ENDS[name](x0)
        ends = [solvers.solve(field, x0, method=used or method, steps=n).x for n in counts]
        report[name] = [float((end - truth).abs().mean()) for end in ends]
    return report | (change(report) if change else {})


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (partial(orders, counts=(8, 16, 64)), "at least four"),
        (partial(orders, counts=(8, 10, 12, 14)), "eight times the smallest"),
        (partial(orders, dtype=torch.float32), "the dtype (float64)"),
        (partial(orders, finest=64), "exact enough"),
        (partial(orders, low=-0.15), "mean error is"),
        (partial(orders, used="rk4"), "midpoint, smooth"),
        (partial(orders, change=lambda r: {"kink": r["smooth"]}), "rk4, kink"),
        (partial(orders, change=lambda r: {"jump": r["jump"][0]}), "one mean error for each"),
        (partial(orders, change=lambda r: {"orders": "4, 2, 1"}), "three whole numbers"),
        (partial(orders, change=lambda r: {"orders": [4.0, 2.1, 1.0]}), "three whole numbers"),
        (partial(orders, change=lambda r: {"orders": None}), "not written yet"),
        (lambda method, seed: orders(method, 7), "another seed gives the same numbers"),
        (lambda method, seed: orders(method, int(torch.randint(10**6, ()))), "the same seed differ"),
        (lambda method, seed: {"steps": [8]}, "'smooth' is missing"),
        (lambda method, seed: None, "not written yet"),
    ],
)
def test_the_measurement_of_orders(attempt, words):
    refuses("02.6", attempt, words=words, said="experiment:")


@pytest.mark.parametrize(
    ("concluded", "words"), [([4, 4, 4], "kink: you"), ([4, 2, 2], "jump: you"), ([3, 2, 1], "smooth")]
)
def test_the_orders_must_follow_from_the_numbers(concluded, words):
    accepts("02.6", orders)
    refuses("02.6", partial(orders, change=lambda r: {"orders": concluded}), words=words, said="orders:")


def test_a_wrong_attempt_leaves_nothing_behind():
    first = says("02.5c", lambda a: torch.triu(a + a.T, 1).norm())
    refuses("02.5c", lambda a: a.norm() + 1, words="not the right values")
    assert says("02.5c", lambda a: torch.triu(a + a.T, 1).norm()) == first


def test_all_probes_are_all_signs():
    from fmcore.course.exercises import chapter_02

    assert sorted(map(tuple, chapter_02._signs(3).tolist())) == sorted(itertools.product([-1.0, 1.0], repeat=3))
    assert math.isclose(float(chapter_02._estimates(torch.eye(4).double()).mean()), 4)
