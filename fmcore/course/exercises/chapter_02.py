"""Judges of the exercises to chapter 02, Flows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from fmcore.course import checks
from fmcore.course.checks import Outcome
from fmcore.course.exercises import measurements

_NUMBERS = torch.Generator()


def _draw(seed: int, *shape: int) -> Tensor:
    """Standard normal numbers that are the same at every call."""
    return torch.randn(shape, generator=_NUMBERS.manual_seed(seed), dtype=torch.float64)


def _quarter_turn(x: Tensor) -> Tensor:
    return torch.stack([-x[:, 1], x[:, 0]], dim=1)


def _whirl(x: Tensor, t: Any) -> Tensor:
    t = torch.as_tensor(t, dtype=x.dtype).reshape(-1, 1)
    square = x.square().sum(dim=1, keepdim=True)
    return 2 * (4 - square) / (4 + square) * x + 4 * t * _quarter_turn(x)


def _waves(x: Tensor, t: Tensor) -> Tensor:
    """A field in any number of dimensions that moves each coordinate by the next one."""
    return torch.cos(x.roll(1, dims=1) + 3 * t.expand(len(x))[:, None])


def exercise_1a(heun: Any) -> Outcome:
    """Heun's method on two fields that depend on time, in two and three dimensions."""
    from fmcore import solvers

    def right(velocity: Any, x0: Tensor, steps: int) -> Tensor:
        return solvers.solve(velocity, x0, method="heun", steps=steps).x

    def other(second: Callable[..., Tensor], average: Callable[..., Tensor], shift: int = 0) -> Callable[..., Tensor]:
        def solver(velocity: Any, x0: Tensor, steps: int) -> Tensor:
            x, h = x0, 1 / steps
            for i in range(steps):
                t = torch.tensor((i + shift) * h)
                k1 = velocity(x, t)
                x = x + h * average(k1, second(velocity, x, t, h, k1))
            return x

        return solver

    def ahead(velocity: Any, x: Tensor, t: Tensor, h: float, k1: Tensor) -> Tensor:
        return velocity(x + h * k1, t + h)

    def mean(k1: Tensor, k2: Tensor) -> Tensor:
        return (k1 + k2) / 2

    mistakes = {
        "this is the broken method: its second velocity is taken at time t, and the look-ahead is at t + h": other(
            lambda velocity, x, t, h, k1: velocity(x + h * k1, t), mean
        ),
        "the second velocity is taken at x; the look-ahead is at x + h k1": other(
            lambda velocity, x, t, h, k1: velocity(x, t + h), mean
        ),
        "time is one step ahead: the first step starts at t = 0": other(ahead, mean, shift=1),
        "the two velocities are added, not averaged: a factor 1/2 is missing": other(ahead, lambda k1, k2: k1 + k2),
        "this is Euler's method: the second velocity is not used": other(ahead, lambda k1, k2: k1),
        "this is the midpoint method: it has order 2 too, but Heun averages the velocities at both ends": other(
            lambda velocity, x, t, h, k1: velocity(x + h / 2 * k1, t + h / 2), lambda k1, k2: k2
        ),
    }
    cases = [(_whirl, _draw(1, 5, 2), 6), (_whirl, _draw(2, 5, 2), 13), (_waves, _draw(3, 4, 3), 5)]
    return checks.compare("heun", heun, right, cases, mistakes, rtol=1e-5, atol=1e-6)


def _fit(u: Tensor, v: Tensor) -> Tensor:
    """Slope of the least-squares line."""
    a = torch.stack([u.double(), torch.ones(len(u), dtype=torch.float64)], dim=1)
    return torch.linalg.lstsq(a, v.double()[:, None]).solution[0, 0]


def exercise_1b(order: Any) -> Outcome:
    """The least-squares slope for errors that scatter, with numbers of steps that are not powers of two."""

    def right(steps: Tensor, errors: Tensor) -> Tensor:
        return _fit(-steps.double().log(), errors.log())

    def between(i: int, j: int) -> Callable[..., Tensor]:
        return lambda steps, errors: torch.log(errors[i] / errors[j]) / torch.log(steps[j] / steps[i])

    mistakes: dict[str, Callable[..., Tensor]] = {
        "computed from the first and the last point only; all points take part in a least-squares fit": between(0, -1),
        "computed from the first two points only; all points take part in a least-squares fit": between(0, 1),
        "computed from the last two points only; all points take part in a least-squares fit": between(-2, -1),
        "this is the mean of the slopes between neighbours, not the line of least squares": lambda steps, errors: (
            -(errors.log().diff() / steps.double().log().diff()).mean()
        ),
        "this is the slope against the number of steps; the order is the slope against h = 1 / steps": (
            lambda steps, errors: -right(steps, errors)
        ),
        "this is the factor by which the error falls when the step is halved; its logarithm to base 2 is the order": (
            lambda steps, errors: 2 ** right(steps, errors)
        ),
    }
    cases = []
    for p, counts in ((1.0, [10, 15, 40, 100]), (2.0, [16, 32, 64, 128, 256]), (4.0, [8, 12, 24])):
        scatter = torch.exp(0.2 * _draw(int(10 + p), len(counts)))
        cases.append((torch.tensor(counts), 0.7 * torch.tensor(counts).double() ** -p * scatter))
    return checks.compare("order", order, right, cases, mistakes)


def _jacobians(field: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """dv/dx of each row, (B, d, d)."""
    return torch.stack([torch.autograd.functional.jacobian(lambda row: field(row[None])[0], row) for row in x])


def exercise_2(radial_divergence: Any, power_of_a_source: Any) -> Outcome:
    """The divergence of three radial fields in 2, 3 and 5 dimensions, by autograd; the power of the source."""

    def right(x: Tensor, f: Any, df: Any) -> Tensor:
        field = _jacobians(lambda y: f(y.square().sum(dim=1))[:, None] * y, x)
        return field.diagonal(dim1=1, dim2=2).sum(dim=1)

    def other(formula: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda x, f, df: formula(x.square().sum(dim=1), x.shape[1], f, df)

    mistakes = {
        "the dimension is d, not always 2": other(lambda s, d, f, df: 2 * f(s) + 2 * s * df(s)),
        "the factor 2 of the derivative of the square is missing": other(lambda s, d, f, df: d * f(s) + s * df(s)),
        "f depends on x too: the term with its derivative is missing": other(lambda s, d, f, df: d * f(s)),
        "the first term is summed over i: it appears d times": other(lambda s, d, f, df: f(s) + 2 * s * df(s)),
        "f is a function of the squared length of x, not of the length": other(
            lambda s, d, f, df: d * f(s.sqrt()) + 2 * s * df(s.sqrt())
        ),
    }
    fields: list[tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = [
        (lambda s: 2 * (4 - s) / (4 + s), lambda s: -16 / (4 + s) ** 2),
        (torch.sin, torch.cos),
        (lambda s: 1 / (1 + s), lambda s: -1 / (1 + s) ** 2),
    ]
    cases = [(_draw(20 + d, 4, d), *pair) for d, pair in zip((2, 3, 5), fields, strict=True)]
    outcome = checks.compare("radial_divergence", radial_divergence, right, cases, mistakes)
    if not outcome:
        return outcome

    def root(d: int) -> Tensor:
        x = torch.ones(1, d, dtype=torch.float64) / math.sqrt(d)  # of length 1: the divergence is linear in p there
        at = [right(x, lambda s, p=p: s ** (p / 2), None) for p in (0.0, 1.0)]
        return (-at[0] / (at[1] - at[0]))[0]

    wrong = {
        "this is the power of the length of the velocity; v has the factor x besides": lambda d: 1 - d,
        "this is the power of s; the length is its square root": lambda d: -d / 2,
    }
    return checks.compare("power_of_a_source", power_of_a_source, root, [(2,), (3,), (5,)], wrong)


def exercise_3(log_density: Any, broken_mass: Any) -> Outcome:
    """The density under four maps, for four densities p_0, in 2, 3 and 5 dimensions; the mass of the broken one."""

    def other(formula: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda x1, inverse, log_prob0: formula(
            x1, inverse(x1), log_prob0, torch.linalg.slogdet(_jacobians(inverse, x1)).logabsdet
        )

    right = other(lambda x1, x0, p, change: p(x0) + change)
    mistakes = {
        "the determinant has the wrong sign in front: where space grows on the way, the density falls": other(
            lambda x1, x0, p, change: p(x0) - change
        ),
        "the determinant is missing: this is the density of x0 only": other(lambda x1, x0, p, change: p(x0)),
        "log p_0 is taken at x1; take it at the point of the source that x1 came from": other(
            lambda x1, x0, p, change: p(x1) + change
        ),
        "log_prob0 is not used: a standard Gaussian stands in its place": other(
            lambda x1, x0, p, change: _normal(x0) + change
        ),
    }
    mirror = torch.eye(3, dtype=torch.float64) * torch.tensor([0.5, -2.0, 1.5]).double() + 0.1 * _draw(30, 3, 3)
    densities: list[Callable[[Tensor], Tensor]] = [
        _normal,
        lambda x: -x.abs().sum(dim=1) - x.shape[1] * math.log(2),
        lambda x: _normal(x / 3 - 1) - x.shape[1] * math.log(3),
        lambda x: -torch.log(math.pi * (1 + x.square())).sum(dim=1),
    ]
    maps: list[tuple[int, Callable[[Tensor], Tensor]]] = [
        (2, _undo_whirl),
        (3, lambda x: (x - 1.0) @ mirror.T),
        (5, lambda x: torch.sinh(x).roll(1, dims=1) / 2),
        (2, lambda x: -_quarter_turn(x) / 3),
    ]
    cases = [(_draw(31 + i, 4, d), undo, p) for i, ((d, undo), p) in enumerate(zip(maps, densities, strict=True))]
    outcome = checks.compare("log_density", log_density, right, cases, mistakes)
    if not outcome:
        return outcome

    def measured(c: float, d: int) -> float:
        """In one dimension by a sum over a fine grid; d dimensions are a product."""
        x = torch.linspace(-12 * c, 12 * c, 4001, dtype=torch.float64)
        return float(torch.trapezoid((_normal(x[:, None] / c) - math.log(1 / c)).exp(), x)) ** d

    wrong = {
        "this is the factor of the volume once; the code has the determinant the wrong way round, and so off twice": (
            lambda c, d: c**d
        ),
        "the mass of the broken density does not shrink: the other way round": lambda c, d: c ** (-2 * d),
    }
    return checks.compare("broken_mass", broken_mass, measured, [(2.0, 2), (1.5, 3), (0.7, 5), (3.0, 1)], wrong)


def _normal(x: Tensor) -> Tensor:
    """Log-density of a standard Gaussian."""
    return -0.5 * (x.square() + math.log(2 * math.pi)).sum(dim=1)


def _undo_whirl(x1: Tensor) -> Tensor:
    """From t = 1 back to t = 0, in closed form."""
    r1 = x1.norm(dim=1, keepdim=True)
    q = (2 / r1 - r1 / 2) * math.exp(2.0)
    return ((q**2 + 4).sqrt() - q) / r1 * (math.cos(2.0) * x1 - math.sin(2.0) * _quarter_turn(x1))


def exercise_4(stirring: Any) -> Outcome:
    """The field for two Gaussians, by autograd; then points that follow it must stay on their level lines."""
    from fmcore import solvers

    def right(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        log_prob = torch.distributions.MultivariateNormal(mean, covariance).log_prob(x)
        return _quarter_turn(torch.autograd.grad(log_prob.sum(), x)[0])

    mistakes = {
        "turned about the origin, not about the mean": lambda x, mean, covariance: right(x, 0 * mean, covariance),
        "the covariance is missing: a rotation leaves only round Gaussians unchanged": lambda x, mean, covariance: (
            right(x, mean, torch.eye(2, dtype=x.dtype))
        ),
        "multiplied by the covariance; the score has its inverse": lambda x, mean, covariance: right(
            x, mean, torch.linalg.inv(covariance)
        ),
        "this is the score; turn it by a quarter turn": lambda x, mean, covariance: (
            -_quarter_turn(right(x, mean, covariance))
        ),
        "turned first and divided by the covariance after; the quarter turn comes last": lambda x, mean, covariance: (
            -torch.linalg.solve(covariance, _quarter_turn(x - mean).T).T
        ),
    }
    first, second = torch.tensor([[1.5, 0.6], [0.6, 0.5]]).double(), torch.tensor([[0.4, -0.3], [-0.3, 2.0]]).double()
    cases = [(_draw(40, 6, 2), _draw(41, 2), first), (_draw(42, 5, 2), 3 * _draw(43, 2), second)]
    outcome = checks.compare("stirring", stirring, right, cases, mistakes)
    if not outcome:
        return outcome
    x, mean, covariance = cases[1]
    gaussian = torch.distributions.MultivariateNormal(mean, covariance)
    moved = solvers.solve(lambda y, t: stirring(y, mean, covariance), x, rtol=1e-8, atol=1e-8).x
    stay = (gaussian.log_prob(moved) - gaussian.log_prob(x)).abs().max() < 1e-4
    return checks.holds("every point stays on its level line", stay, "points leave their level lines")


def _signs(d: int) -> Tensor:
    """All 2^d probes."""
    return torch.tensor(list(itertools.product([-1.0, 1.0], repeat=d)), dtype=torch.float64)


def _estimates(matrix: Tensor) -> Tensor:
    """The value of the quadratic form for every probe."""
    return torch.einsum("ki,ij,kj->k", _signs(len(matrix)), matrix, _signs(len(matrix)))


_MATRICES = [(2, 50), (3, 51), (5, 52)]


def exercise_5a(coefficients: Any) -> Outcome:
    """The coefficients of the products of two signs, as means over all probes."""

    def right(matrix: Tensor) -> Tensor:
        probes = _signs(len(matrix))
        return torch.triu(torch.einsum("k,ki,kj->ij", _estimates(matrix), probes, probes) / len(probes), diagonal=1)

    mistakes: dict[str, Callable[[Tensor], Tensor]] = {
        "only the entry above the diagonal is taken; (i, j) and (j, i) have the same signs": lambda a: torch.triu(a, 1),
        "these are the entries of S; each pair stands for two terms": lambda a: torch.triu(a + a.T, 1) / 2,
        "twice the entry above the diagonal is right for symmetric matrices only": lambda a: 2 * torch.triu(a, 1),
        "each pair is there twice; put zeros where i > j": lambda a: a + a.T - 2 * torch.diag(a.diagonal()),
        "the terms of the diagonal are not random and belong to the trace": lambda a: torch.triu(a + a.T),
    }
    return checks.compare(
        "coefficients", coefficients, right, [(_draw(seed, d, d),) for d, seed in _MATRICES], mistakes
    )


def exercise_5b(mean_of_four: Any) -> Outcome:
    """The mean of a product of four signs, over all probes, for all pairs of pairs of four indices."""

    def right(i: int, j: int, k: int, m: int) -> float:
        probes = _signs(4)
        return float((probes[:, i] * probes[:, j] * probes[:, k] * probes[:, m]).mean())

    pairs = list(itertools.combinations(range(4), 2))
    cases = [(*first, *second) for first in pairs for second in pairs]
    wrong = {
        "this is 1 if the pairs share an index; then two different signs are left, whose product has the mean 0": (
            lambda i, j, k, m: float(bool({i, j} & {k, m}))
        ),
        "1 for all: the signs of different pairs do not drop out": lambda i, j, k, m: 1.0,
        "one index in common is not enough: both must agree": lambda i, j, k, m: float(i == k or j == m),
    }
    return checks.compare("mean_of_four", mean_of_four, right, cases, wrong)


def exercise_5c(spread: Any) -> Outcome:
    """The standard deviation over all probes, for three matrices that are not symmetric."""

    def right(matrix: Tensor) -> Tensor:
        return _estimates(matrix).std(correction=0)

    def off_diagonal(matrix: Tensor) -> Tensor:
        return matrix - torch.diag(matrix.diagonal())

    mistakes: dict[str, Callable[[Tensor], Tensor]] = {
        "A is not made symmetric first; entries A_ij and A_ji add before they are squared": lambda matrix: (
            2 * off_diagonal(matrix).square().sum()
        ).sqrt(),
        "the diagonal is included; with signs it has no part in the spread": lambda matrix: (
            2 * ((matrix + matrix.T) / 2).square().sum()
        ).sqrt(),
        "each pair is counted once in the sum of the claim; it runs over i < j and i > j": (
            lambda matrix: right(matrix) / math.sqrt(2)
        ),
    }
    return checks.compare("spread", spread, right, [(_draw(seed, d, d),) for d, seed in _MATRICES], mistakes)


def exercise_6(experiment: Any) -> Outcome:
    """Errors on three fields: complete, reproducible, equal to a measurement of our own, and the orders concluded."""
    fields = ("smooth", "kink", "jump")
    for method in ("rk4", "midpoint"):
        keys = ("steps", *fields, "orders")
        runs = measurements.three_runs(experiment, [method], keys, fields, partial(_unlikely_errors, method=method))
        if isinstance(runs, Outcome):
            return runs
        for run, (field, p) in itertools.product(runs, enumerate(fields)):
            slope = float(_fit(-torch.as_tensor(run["steps"]).log(), torch.as_tensor(run[p]).log()))
            if run["orders"][field] != round(slope):
                said = (
                    f"{method}, {p}: you conclude order {run['orders'][field]}, your errors fall with order {slope:.1f}"
                )
                return checks.holds("orders", False, said)
    return checks.holds("experiment", True, "")


def _unlikely_errors(report: dict[str, Any], method: str) -> str | None:
    """What is wrong with the errors of one run."""
    steps, orders = (measurements.numbers(report[key]) for key in ("steps", "orders"))
    if steps is None or len(steps) < 4 or bool((steps != steps.round()).any()) or bool((steps < 2).any()):
        return "'steps' must hold at least four numbers of steps, whole numbers from 2 on"
    if steps.max() < 8 * steps.min():
        return "the largest number of steps must be at least eight times the smallest, or no order can be seen"
    if orders is None or len(orders) != 3 or bool((orders != orders.round()).any()):
        return "'orders' must hold three whole numbers, for smooth, kink and jump"
    for field, right in _errors(method, tuple(int(n) for n in steps)).items():
        values = measurements.numbers(report[field])
        if values is None or values.shape != steps.shape:
            return f"{field!r} must hold one mean error for each number of steps"
        off = (values / right).clamp(min=1e-9).log().abs()
        if off.max() > 0.5:
            k = int(off.argmax())
            said = (
                f"{method}, {field}, {int(steps[k])} steps: your mean error is {values[k]:.2g}, ours {right[k]:.2g}; "
            )
            return (
                said
                + "look at the true solution (exact enough?), the starts (300 in (-0.9, -0.1)), the dtype (float64)"
            )
    return None


@cache
def _errors(method: str, steps: tuple[int, ...]) -> dict[str, Tensor]:
    """Mean absolute errors for 2000 starts on a grid; the true solutions are exact."""
    from fmcore import solvers

    x0 = -0.9 + 0.8 * (torch.arange(2000, dtype=torch.float64)[:, None] + 0.5) / 2000
    at, root = 2 * torch.log(1 - x0 / 2), math.sqrt(2)  # dx/dt = 1 - x / 2 passes 0 at this time
    fields: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Tensor]] = {
        "smooth": (lambda x, t: 1 + x**2 / 2, root * torch.tan(torch.atan(x0 / root) + 1 / root)),
        "kink": (lambda x, t: 1 + x.abs() / 2, 2 * torch.expm1((1 - at) / 2)),
        "jump": (lambda x, t: 1 + (x > 0).to(x) / 2, 1.5 * (1 + x0)),
    }
    return {
        name: torch.stack([(solvers.solve(v, x0, method=method, steps=n).x - end).abs().mean() for n in steps])
        for name, (v, end) in fields.items()
    }
