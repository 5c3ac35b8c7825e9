"""Judges of the exercises to chapter 00, Start here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fmcore.course import checks
from fmcore.course.checks import Outcome
from fmcore.course.exercises import measurements

_NUMBERS = torch.Generator()


def _draw(seed: int, *shape: int, double: bool = False) -> Tensor:
    """Standard normal numbers that are the same at every call."""
    return torch.randn(shape, generator=_NUMBERS.manual_seed(seed), dtype=torch.float64 if double else torch.float32)


def exercise_1(euler: Any) -> Outcome:
    """The last state of Euler's method, for two velocities in two and in three dimensions."""
    from fmcore import solvers

    def right(velocity: Any, x0: Tensor, n: int) -> Tensor:
        return solvers.solve(velocity, x0, method="euler", steps=n).x

    mistakes = {
        "time starts at h; the first step uses t = 0": _euler(lambda k, n: (k + 1) / n),
        "time never moves: the velocity is always taken at t = 0": _euler(lambda k, n: 0.0),
        "time runs the other way, from 1 to 0": _euler(lambda k, n: 1 - k / n),
        "the step k is used as the time; t = k h": _euler(lambda k, n: float(k)),
        "the step length h is missing": _euler(lambda k, n: k / n, step=lambda n: 1.0),
        "the velocity is always taken at x0; take it where the point is now": _euler(lambda k, n: k / n, old=True),
        "one step too few": _euler(lambda k, n: k / n, fewer=1),
        "only one step is taken; repeat it for k = 0, ..., n - 1": lambda velocity, x0, n: (
            x0 + velocity(x0, torch.tensor(0.0)) / n
        ),
    }
    cases = [(_turning, _draw(1, 5, 2), 4), (_turning, _draw(2, 5, 2), 7), (_leaning, _draw(3, 4, 3, double=True), 5)]
    return checks.compare("euler", euler, right, cases, mistakes)


def _euler(
    times: Callable[[int, int], float],
    step: Callable[[int], float] = lambda n: 1 / n,
    old: bool = False,
    fewer: int = 0,
) -> Callable[..., Tensor]:
    """An Euler solver with a mistake: it takes the velocity at these times, or always at x0, or stops early."""

    def solver(velocity: Any, x0: Tensor, n: int) -> Tensor:
        x = x0
        for k in range(n - fewer):
            x = x + step(n) * velocity(x0 if old else x, torch.tensor(times(k, n)))
        return x

    return solver


def _turning(x: Tensor, t: Tensor) -> Tensor:
    """Turns the plane faster and faster, and moves it to the right."""
    return (1 + t) * torch.stack([-x[:, 1], x[:, 0]], dim=1) + x.new_tensor([1.0, 0.0])


def _leaning(x: Tensor, t: Tensor) -> Tensor:
    """Bends space, with each coordinate moved by the next."""
    return torch.cos(x.roll(1, dims=1)) + t.expand(len(x))[:, None].to(x) ** 2 * x


def exercise_2a(leads_to: Any) -> Outcome:
    """Which samples each of the three losses leads to."""
    factor = "the sum of two coordinates is twice their mean; think about what a factor does to the minimum"
    hints = {
        "A": {
            "two moons": "its best answer is the average of x1, not of x1 - x0, and is too large by that of x0",
            "as at the start": "look at the picture again, and compare the size of the cloud with that of the source",
        },
        "B": {"too wide": factor, "as at the start": factor},
        "C": {
            "two moons": "errors of opposite sign cancel in the mean before it is squared, so little is left to learn",
            "too wide": "look at the picture again, and compare the size of the cloud with that of the source",
        },
    }
    right = {"A": "too wide", "B": "two moons", "C": "as at the start"}
    return measurements.choices("leads_to", leads_to, right, hints)


def exercise_2b(mended_loss: Any) -> Outcome:
    """The loss of flow matching for rows of 2, 3 and 5 numbers and for images, and its gradient."""
    cases = [
        _batch(seed, *shape) for seed, shape in enumerate([(5, 2), (2, 2), (4, 3), (3, 5), (3, 1, 3, 3), (4, 4, 2)])
    ]
    outcome = checks.compare("value of mended_loss", mended_loss, _loss, cases, _loss_mistakes())
    if not outcome:
        return outcome
    for case in cases:
        value = mended_loss(*case)
        if not getattr(value, "requires_grad", False):
            said = "no gradient reaches the model: its output is detached, or the result is turned into a plain number"
            return checks.holds("gradient of mended_loss", False, said)
        got, right = (torch.autograd.grad(made, case[0].weight)[0] for made in (value, _loss(*case)))
        if not torch.allclose(got, right, rtol=1e-3, atol=1e-5):
            said = "the value is right and its gradient is not: a part of the error is detached"
            return checks.holds("gradient of mended_loss", False, said)
    return checks.holds("gradient of mended_loss", True, "")


class _Model:
    """A velocity with one weight for each entry of a sample."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.requires_grad_()

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.sin(2 * x * self.weight) + _beside(t, x) * self.weight


def _batch(seed: int, *shape: int) -> tuple[_Model, Tensor, Tensor, Tensor]:
    times = torch.rand(shape[0], generator=_NUMBERS.manual_seed(seed))
    return _Model(_draw(30 + seed, *shape[1:])), _draw(10 + seed, *shape), _draw(20 + seed, *shape), times


def _beside(t: Tensor, x: Tensor) -> Tensor:
    return t.reshape(-1, *[1] * (x.ndim - 1))


def _loss(model: Any, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    return _error(model, x0, x1, t).square().mean()


def _error(model: Any, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    from fmcore import paths

    path = paths.rectified()
    return model(path.interpolate(x0, x1, t), t) - path.target(x0, x1, t)


def _loss_mistakes() -> dict[str, Callable[..., Tensor]]:
    def at(point: Callable[..., Tensor], target: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda model, x0, x1, t: (model(point(x0, x1, _beside(t, x0)), t) - target(x0, x1)).square().mean()

    def there(x0: Tensor, x1: Tensor, s: Tensor) -> Tensor:
        return (1 - s) * x0 + s * x1

    def rows_of_images(model: Any, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        s = t[:, None]
        return (model((1 - s) * x0 + s * x1, t) - (x1 - x0)).square().mean()

    return {
        "right for points; for images t[:, None] runs along the rows of each image: give t as many axes as x has": (
            rows_of_images
        ),
        "half of the sum over axis 1 is the mean only where that axis has two entries; take the mean over all": (
            lambda *a: _error(*a).square().sum(dim=1).mean() / 2
        ),
        "summed over axis 1; take the mean over it too": lambda *a: _error(*a).square().sum(dim=1).mean(),
        "x0 and x1 have changed places in the point on the path": at(
            lambda x0, x1, s: there(x1, x0, s), lambda x0, x1: x1 - x0
        ),
        "compared with x1, but the velocity of the pair is x1 - x0": at(there, lambda x0, x1: x1),
        "the velocity of the pair has the wrong sign: it goes from x0 to x1": at(there, lambda x0, x1: x0 - x1),
        "the model is asked at x1; it should be asked at the point on the path": at(
            lambda x0, x1, s: x1, lambda x0, x1: x1 - x0
        ),
    }


def exercise_3(share: Any, left: Any) -> Outcome:
    """Shares of the way, as measured on Euler steps from random points in three dimensions."""
    from fmcore import paths

    x0, x1 = _draw(40, 6, 3, double=True), _draw(41, 6, 3, double=True)

    def step(x: Tensor, t: float, h: float) -> Tensor:
        return x + h * paths.rectified().velocity(x, x1, torch.tensor(t, dtype=x.dtype))

    def measured_share(t: float, h: float) -> float:
        return float(((step(x0, t, h) - x0).norm(dim=1) / (x1 - x0).norm(dim=1)).mean())

    def measured_left(k: int, n: int) -> float:
        x = x0
        for i in range(k):
            x = step(x, i / n, 1 / n)
        return float(((x - x1).norm(dim=1) / (x0 - x1).norm(dim=1)).mean())

    mistakes: dict[str, Callable[..., float]] = {
        "h is a share of the whole time; what is left of it at time t is shorter": lambda t, h: h,
        "this is the part that is left after the step; the part that the step goes is asked": (
            lambda t, h: (1 - t - h) / (1 - t)
        ),
        "multiplied by the time that is left, where the velocity divides by it": lambda t, h: h * (1 - t),
        "divided by t, but the velocity is divided by the time that is left": lambda t, h: h / t,
    }
    cases = [(0.2, 0.1), (0.25, 0.75), (0.6, 0.3), (0.05, 0.5)]
    outcome = checks.compare("share", share, measured_share, cases, mistakes)
    if not outcome:
        return outcome
    mistakes = {
        "this is the part of the way that is done; what is left of it is asked": lambda k, n: k / n,
        "this is the factor of one step; multiply the factors of the first k": lambda k, n: (n - k - 1) / (n - k),
        "the factors are not all the same: the denominator 1 - t changes from step to step": (
            lambda k, n: (1 - 1 / n) ** k
        ),
        "one step too many": lambda k, n: 1 - (k + 1) / n,
    }
    return checks.compare("left", left, measured_left, [(1, 3), (2, 7), (4, 9), (5, 5), (1, 1)], mistakes)


def exercise_4(best_answer: Any, loss_left: Any) -> Outcome:
    """The minimizer of the mean squared error, and its minimum, for vectors of 2, 3 and 5 numbers."""

    def loss(v: Tensor, a: Tensor, b: Tensor, p: float) -> Tensor:
        return p * (v - a).square().sum() + (1 - p) * (v - b).square().sum()

    def minimizer(a: Tensor, b: Tensor, p: float) -> Tensor:
        v = torch.zeros_like(a, requires_grad=True)  # one step of Newton's method; the second derivative is 2
        return -torch.autograd.grad(loss(v, a, b, p), v)[0] / 2

    def minimum(a: Tensor, b: Tensor, p: float) -> Tensor:
        return loss(minimizer(a, b, p), a, b, p)

    cases = [
        (_draw(50 + d, d, double=True), _draw(60 + d, d, double=True), p) for d, p in ((2, 0.3), (3, 0.85), (5, 0.5))
    ]
    mistakes: dict[str, Callable[..., Tensor]] = {
        "each kind counts by its share: this is the plain average": lambda a, b, p: (a + b) / 2,
        "the shares are swapped: p belongs to a": lambda a, b, p: (1 - p) * a + p * b,
        "this is the velocity of the more frequent kind; the mean squared error is smallest elsewhere": (
            lambda a, b, p: a if p >= 0.5 else b
        ),
    }
    outcome = checks.compare("best_answer", best_answer, minimizer, cases, mistakes)
    if not outcome:
        return outcome
    mistakes = {
        "the distance of a and b is not squared": lambda a, b, p: p * (1 - p) * (a - b).norm(),
        "averaged over the coordinates; L has the squared length": (
            lambda a, b, p: p * (1 - p) * (a - b).square().mean()
        ),
        "this is L at v = a; put the best answer into L": lambda a, b, p: (1 - p) * (a - b).square().sum(),
        "this is L at v = b; put the best answer into L": lambda a, b, p: p * (a - b).square().sum(),
        "this is the smallest L for p = 1/2": lambda a, b, p: (a - b).square().sum() / 4,
        "only one of the two terms of L": lambda a, b, p: p * (1 - p) ** 2 * (a - b).square().sum(),
        "only the other of the two terms of L": lambda a, b, p: (1 - p) * p**2 * (a - b).square().sum(),
    }
    return checks.compare("loss_left", loss_left, minimum, cases, mistakes)


def exercise_5(experiment: Any) -> Outcome:
    """Counts of copied data points: complete, reproducible, with a control, not the solver's fault, and the verdict."""
    from fmcore import data

    moons = data.toy.two_moons(20, _NUMBERS.manual_seed(5))
    far = torch.cat([0.3 * _draw(70, 24, 2), torch.tensor([[2.5, 2.0]])])
    order = torch.randperm(len(moons), generator=_NUMBERS.manual_seed(6))
    found: dict[str, dict[str, Any]] = {}
    for name, points, seed in (
        ("first", moons, 1),
        ("again", moons, 1),
        ("other seed", moons, 2),
        ("far", far, 3),
        ("shuffled", moons[order], 1),
    ):
        report = measurements.report(experiment, (points.clone(), seed), ("flow", "control", "verdict"))
        if isinstance(report, Outcome):
            return report
        if problem := _unlikely_counts(report, len(points)):
            return checks.holds("experiment", False, problem)
        found[name] = report
    if problem := _unlikely_runs(found, order):
        return checks.holds("experiment", False, problem)
    outcome = checks.holds("experiment", True, "")
    for report in found.values():
        if report["verdict"] != "equally often":
            said = "the counts of your flow scatter no more than lots do, so your numbers do not show this"
            return checks.choice("verdict", report["verdict"], "equally often", {"some more often": said})
    return outcome


def _unlikely_runs(found: dict[str, dict[str, Any]], order: Tensor) -> str | None:
    """What is wrong with several runs, each of which is possible."""
    first, both = found["first"], ("flow", "control")
    if not measurements.same(first, found["again"], both):
        return "two runs with the same seed differ; take all random numbers from a generator that starts from the seed"
    if measurements.same(first, found["other seed"], ["flow"]):
        return "another seed gives the same counts; draw new starts for each seed"
    if measurements.same(first, {"flow": first["control"]}, ["flow"]):
        return "the flow and the control have the same counts: one of them is a copy"
    before, after = (measurements.numbers(found[name]["flow"]) for name in ("first", "shuffled"))
    assert before is not None
    assert after is not None
    if (after - before[order]).abs().sum() > 0.05 * before.sum():
        return "the same data points in another order get other counts, so these are not the counts of the flow"
    return None


def _scatter(counts: Tensor) -> float:
    """Mean of (count - mean)^2 / mean: about 1 for lots, give or take sqrt(2 / n)."""
    return float(((counts - counts.mean()) ** 2 / counts.mean()).mean())


def _unlikely_counts(report: dict[str, Any], n: int) -> str | None:
    """What is wrong with the counts of one run."""
    counts = {key: measurements.numbers(report[key]) for key in ("flow", "control")}
    for key, values in counts.items():
        if values is None or values.shape != (n,):
            return f"{key!r} must hold one count for each of the {n} data points"
        if bool((values < 0).any()) or bool((values != values.round()).any()):
            return f"{key!r} must hold counts: whole numbers from 0 on, not shares"
    flow, control = counts["flow"], counts["control"]
    assert flow is not None
    assert control is not None
    if flow.sum() != control.sum():
        return f"the flow has {flow.sum():.0f} samples and the control {control.sum():.0f}; take equally many"
    if flow.sum() < 50 * n:
        return f"{flow.sum():.0f} samples for {n} data points; at least 50 for each are asked, or chance hides all"
    most = 1 + 5 * (2 / n) ** 0.5
    if not 0.15 < _scatter(control) < most:
        return (
            f"the control scatters {_scatter(control):.2f} times as much as lots; draw its data points with "
            "torch.randint, each with the same chance"
        )
    if _scatter(flow) > 20:
        return (
            "the counts of the flow are far from those of the exact velocity; follow it from t = 0 to almost 1, and "
            "count each sample at the data point nearest to its end"
        )
    if _scatter(flow) > most:
        return (
            f"the counts of the flow scatter {_scatter(flow):.1f} times as much as lots; a part of this is an error of "
            "the solver: stop nearer to t = 1, or take more steps, until the counts do not change"
        )
    return None
