"""The judges of the exercises to chapter 04, probability paths."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fmcore.course import checks
from fmcore.course.checks import Outcome
from fmcore.course.exercises.attempts import tried
from fmcore.course.exercises.measurements import numbers

Schedule = Callable[[Tensor], Tensor]


def _rate(f: Schedule, t: Tensor, h: float = 1e-5) -> Tensor:
    """The derivative of f at times t, by central differences."""
    return (f(t + h) - f(t - h)) / (2 * h)


def _normal(*shape: int) -> Tensor:
    """The same normal numbers of this shape each time, in double precision."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def exercise_1(alpha_of: Any) -> Outcome:
    """The alpha that keeps the aim at the data, against a numerical solution of its differential equation."""

    def reference(sigma: Schedule, t: Tensor, steps: int = 500) -> Tensor:
        """Solve alpha' = (1 - alpha) k with the rate k = -sigma' / sigma, by the midpoint rule."""
        alpha, h = torch.zeros_like(t), t / steps
        for k in range(steps):
            middle = (k + 0.5) * h
            pull = -_rate(sigma, middle) / sigma(middle) * h / 2
            alpha = ((1 - pull) * alpha + 2 * pull) / (1 + pull)
        return alpha

    mistakes = {
        "sigma_0 is missing: alpha_0 is not 0 then": lambda sigma, t: 1 - sigma(t),
        "alpha = 1 always points at the data, but alpha_0 = 0 is asked": lambda sigma, t: torch.ones_like(t),
        "alpha^2 + sigma^2 = 1 is the rule of the VP path, which does not point at the data": lambda sigma, t: (
            1 - sigma(t) ** 2
        ).sqrt(),
    }
    times = torch.tensor([0.0, 0.13, 0.4, 0.77, 0.9], dtype=torch.float64)
    sigmas: list[Schedule] = [
        lambda t: 1 - t,
        lambda t: (math.pi / 2 * t).cos(),
        lambda t: 50.0 * (0.01 / 50.0) ** t,
        lambda t: 3 / (1 + 4 * t**2),
    ]
    return checks.compare("alpha_of", alpha_of, reference, [(s, times[k:]) for k, s in enumerate(sigmas)], mistakes)


def exercise_2a(moved_velocity: Any) -> Outcome:
    """The velocity in other coordinates, against a short piece of the trajectory itself."""

    def place(velocity: Any, s: Schedule, c: Schedule, x: Tensor, t: Tensor, later: Tensor) -> Tensor:
        """Where x is at another time: there, along the velocity by a step of order 4, and back."""
        y, start, h = c(t)[:, None] * x, s(t), s(later) - s(t)
        k1 = velocity(y, start)
        k2 = velocity(y + h[:, None] / 2 * k1, start + h / 2)
        k3 = velocity(y + h[:, None] / 2 * k2, start + h / 2)
        k4 = velocity(y + h[:, None] * k3, start + h)
        return (y + h[:, None] / 6 * (k1 + 2 * k2 + 2 * k3 + k4)) / c(later)[:, None]

    def reference(velocity: Any, s: Schedule, c: Schedule, x: Tensor, t: Tensor, h: float = 1e-4) -> Tensor:
        ends = [place(velocity, s, c, x, t, t + e) for e in (h, -h)]
        return (ends[0] - ends[1]) / (2 * h)

    def parts(v: Any, s: Schedule, c: Schedule, x: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        there = v(c(t)[:, None] * x, s(t))
        return there, _rate(s, t)[:, None], c(t)[:, None], _rate(c, t)[:, None] * x

    def wrong(formula: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda v, s, c, x, t: formula(*parts(v, s, c, x, t))

    mistakes = {
        "the term with c'(t) is missing: the unit of length changes along the way": wrong(
            lambda v, ds, c, dcx: ds * v / c
        ),
        "the factor s'(t) is missing: the other time runs at another speed": wrong(lambda v, ds, c, dcx: (v - dcx) / c),
        "the sign of the term with c'(t) is flipped": wrong(lambda v, ds, c, dcx: (ds * v + dcx) / c),
        "the velocity is asked at x, not at y = c(t) x": lambda v, s, c, x, t: (
            (_rate(s, t)[:, None] * v(x, s(t)) - _rate(c, t)[:, None] * x) / c(t)[:, None]
        ),
    }
    velocities = (
        lambda y, s: (2 * y.roll(1, dims=1)).sin() + s[:, None] * y,
        lambda y, s: y.square() / 5 - (1 + s[:, None]) ** 2,
    )
    cases = []
    clocks: tuple[Schedule, ...] = (lambda t: t**2 + 0.1, lambda t: t.exp() - 1, lambda t: 1 - t)
    factors: tuple[Schedule, ...] = (lambda t: 2 - t.sin(), lambda t: (1 + t) ** 3, lambda t: 0.3 + t**2)
    for k, (n, d) in enumerate(((4, 2), (5, 3), (3, 5))):
        for velocity in velocities:
            times = torch.linspace(0.15, 0.83, n, dtype=torch.float64)
            cases.append((velocity, clocks[k], factors[(k + 1) % 3], 2 * _normal(n, d), times))
    return checks.compare("moved_velocity", moved_velocity, reference, cases, mistakes)


def exercise_2b(time_on_rectified: Any, scale_to_rectified: Any) -> Outcome:
    """Time and factor from the rectified to the cosine path, against a bisection for the same signal to noise."""
    from fmcore import paths

    here, there = paths.cosine(), paths.rectified()

    def time(t: Tensor) -> Tensor:
        low, high = torch.zeros_like(t), torch.ones_like(t)
        for _ in range(50):
            middle = (low + high) / 2
            early = there.alpha(middle) * here.sigma(t) < here.alpha(t) * there.sigma(middle)
            low, high = torch.where(early, middle, low), torch.where(early, high, middle)
        return low

    def scale(t: Tensor) -> Tensor:
        return there.sigma(time(t)) / here.sigma(t)

    of_time = {
        "the time is not changed; the two paths reach a ratio at different times": lambda t: t,
        "this is the ratio alpha / sigma; which s has s / (1 - s) equal to it?": lambda t: (
            here.alpha(t) / here.sigma(t)
        ),
        "this is alpha_t; it is s only where alpha + sigma = 1": here.alpha,
        "noise over signal: the ratio is upside down": lambda t: 1 - time(t),
    }
    of_scale = {
        "sigma of the rectified path is taken at t; it is needed at s(t)": lambda t: (1 - t) / here.sigma(t),
        "this is sigma of the rectified path; divide it by that of the cosine path": lambda t: 1 - time(t),
        "the factor is not 1: on the cosine path alpha + sigma is larger than 1": torch.ones_like,
    }
    cases = [(torch.tensor([0.05, 0.3, 0.5, 0.61, 0.9], dtype=torch.float64),), (torch.tensor([0.72]).double(),)]
    if not (found := checks.compare("time_on_rectified", time_on_rectified, time, cases, of_time)):
        return found
    return checks.compare("scale_to_rectified", scale_to_rectified, scale, cases, of_scale)


def exercise_3a(wrong_on_vp: Any, wrong_on_ve: Any) -> Outcome:
    """Which end of the path is to blame, on both paths."""
    solver = {"solver": "four times as many steps leave the mean and the standard deviation where they are"}
    of_vp = {"source": "sigma_0 is 1 on the VP path up to 1e-4: the start is right"} | solver
    of_ve = {"data": "velocities that are right up to t = 1 hardly change the standard deviation"} | solver
    if not (found := checks.choice("wrong_on_vp", wrong_on_vp, "data", of_vp)):
        return found
    return checks.choice("wrong_on_ve", wrong_on_ve, "source", of_ve)


@dataclass(frozen=True)
class _Gaussian:
    """The exact velocity towards N(mean, std^2) in each coordinate."""

    path: Any
    mean: float
    std: float

    def __call__(self, x: Tensor, t: Tensor | float) -> Tensor:
        time = torch.as_tensor(t, dtype=x.dtype)
        alpha, sigma = self.path.alpha(time), self.path.sigma(time)
        seen = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2) * (x - alpha * self.mean)
        return self.path.data_to_velocity(self.mean + seen, x, time)

    def end(self, noise: Tensor) -> Tensor:
        """Where the flow ends: it keeps the distance from the mean in units of the standard deviation."""
        alpha, sigma = (f(torch.tensor([0.0, self.path.t_max]).double()) for f in (self.path.alpha, self.path.sigma))
        spread = (alpha**2 * self.std**2 + sigma**2).sqrt()
        return alpha[1] * self.mean + (sigma[0] * noise - alpha[0] * self.mean) * spread[1] / spread[0]


def exercise_3b(sampler: Any) -> Outcome:
    """The mended sampler, against the exact flow of Gaussian data on five paths, in 2 to 6 dimensions."""
    from fmcore import paths

    def heun(velocity: Any, path: Any, noise: Tensor, steps: int, scale: float, last: float, stop: float) -> Tensor:
        x, h = scale * noise, stop / steps
        for k in range(steps):
            one = velocity(x, min(k * h, last))
            x = x + h / 2 * (one + velocity(x + h * one, min((k + 1) * h, last)))
        return x

    mistakes = {
        "nothing is mended: it still starts from the noise itself and stops the clock at 0.9": lambda v, p, x, n: heun(
            v, p, x, n, 1.0, 0.9, 1.0
        ),
        "the data end is right; at the source the noise must be as wide as the path says": lambda v, p, x, n: heun(
            v, p, x, n, 1.0, p.t_max, p.t_max
        ),
        "the source is right; near t = 1 the velocity is still that of t = 0.9": lambda v, p, x, n: heun(
            v, p, x, n, p.source_scale, 0.9, 1.0
        ),
        "the flow stops at t = 0.9": lambda v, p, x, n: heun(v, p, x, n, p.source_scale, 0.9, 0.9),
    }
    fields = [
        _Gaussian(paths.rectified(), 2.0, 0.5),
        _Gaussian(paths.variance_preserving(), -3.0, 0.7),
        _Gaussian(paths.variance_exploding(0.01, 20.0), 1.0, 0.5),
        _Gaussian(paths.cosine(), 1.0, 0.3),
        _Gaussian(paths.ot(0.1), -1.0, 0.4),
    ]
    cases = [(field, field.path, _normal(3, 2 + k), 120 + 20 * k) for k, field in enumerate(fields)]
    return checks.compare("sampler", sampler, lambda v, p, x, n: v.end(x), cases, mistakes, rtol=5e-3, atol=5e-3)


def exercise_4a(weight_of_time_change: Any) -> Outcome:
    """The weight at t = g(tau), against the two losses of an error that is not zero only near that time."""

    def reference(g: Schedule, tau: Tensor, width: float = 2e-3) -> Tensor:
        grid = torch.linspace(-1, 1, 2001, dtype=torch.float64) * width
        weights = []
        for moment in tau:
            here = moment + grid
            error = 1 - (grid / width) ** 2  # squared error of the old network along tau
            new = torch.trapezoid(_rate(g, here, 1e-6) ** 2 * error, here)
            weights.append(new / torch.trapezoid(error, g(here)))  # the old loss integrates over t
        return torch.stack(weights)

    mistakes = {
        "one factor g' is cancelled by d tau = dt / g'": lambda g, tau: _rate(g, tau) ** 2,
        "the velocities are squared, so the factor g' enters twice before d tau takes one away": lambda g, tau: (
            torch.ones_like(tau)
        ),
    }
    tau = torch.tensor([0.1, 0.35, 0.5, 0.8], dtype=torch.float64)
    cases = [(lambda t: t**2, tau), (lambda t: (math.pi / 2 * t).sin(), tau), (lambda t: (t + t**3) / 2, tau[:2])]
    return checks.compare("weight_of_time_change", weight_of_time_change, reference, cases, mistakes)


def exercise_4b(time_of_equal_weights: Any) -> Outcome:
    """The time change for which the noise counts equally, against an inversion of the integral of dt / t."""

    def reference(tau: Tensor, first: float) -> Tensor:
        grid = torch.linspace(first, 1, 200_001, dtype=torch.float64)
        passed = torch.cumulative_trapezoid(1 / grid, grid)  # tau is proportional to the integral of 1 / t
        where = torch.searchsorted(passed, tau.double() * passed[-1]).clamp(max=len(passed) - 1)
        return grid[where]

    mistakes = {
        "this is the straight line from t_0 to 1; g'/g must be constant": lambda tau, first: first + (1 - first) * tau,
        "time runs the other way: g(0) = t_0 is asked": lambda tau, first: first**tau,
    }
    tau = torch.tensor([0.0, 0.2, 0.55, 0.8, 1.0], dtype=torch.float64)
    cases = [(tau, 0.1), (tau, 0.5), (tau[1:4], 0.02)]
    return checks.compare("time_of_equal_weights", time_of_equal_weights, reference, cases, mistakes)


def _balanced(n: int, d: int, m: float) -> tuple[Tensor, Tensor]:
    """Samples x0 and x1 (n, d) whose moments are exact: E x0 x0' = I, E x1 x0' = 0, E |x1|^2 = m."""
    columns = torch.linalg.qr(_normal(n, 2 * d))[0] * math.sqrt(n)
    return columns[:, :d], columns[:, d:] * math.sqrt(m / d)


def _energy_at(path: Any, t: Tensor, m: float, d: int, h: float = 1e-5) -> Tensor:
    """The mean square of the velocities at each time, from differences of the samples' places."""
    x0, x1 = _balanced(64, d, m)
    later, before = ([path.interpolate(x0, x1, float(s) + e) for s in t] for e in (h, -h))
    return (torch.stack(later) - torch.stack(before)).square().sum(dim=2).mean(dim=1) / (2 * h) ** 2


def _paths() -> list[Any]:
    from fmcore import paths

    return [paths.rectified(), paths.cosine(), paths.ot(0.3), paths.variance_exploding(0.5, 4.0)]


def exercise_5a(mean_square: Any) -> Outcome:
    """Step 1, against samples with exact moments that are moved a little in time."""
    mistakes = {
        "E |x0|^2 is d": lambda path, t, m, d: path.d_alpha(t) ** 2 * m + path.d_sigma(t) ** 2,
        "these are the places, not the velocities": lambda path, t, m, d: (
            path.alpha(t) ** 2 * m + path.sigma(t) ** 2 * d
        ),
        "the derivatives are not squared": lambda path, t, m, d: path.d_alpha(t) * m + path.d_sigma(t) * d,
        "m is the mean of the square already": lambda path, t, m, d: (
            path.d_alpha(t) ** 2 * m**2 + path.d_sigma(t) ** 2 * d
        ),
    }
    times = torch.tensor([0.1, 0.45, 0.8], dtype=torch.float64)
    cases = [(path, times, m, d) for path, m, d in zip(_paths(), (0.5, 3.0, 7.0, 2.0), (2, 3, 5, 1), strict=True)]
    return checks.compare("mean_square", mean_square, _energy_at, cases, mistakes)


def _variance_of_slope(f: Schedule) -> Tensor:
    """The variance of f' over 20,000 midpoints of [0, 1]."""
    middle = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    return _rate(f, middle, 1e-6).var(correction=0)


def exercise_5b(excess: Any) -> Outcome:
    """Step 2, against the variance of differences."""
    mistakes = {"the square of f(1) - f(0) is not subtracted": lambda f: _variance_of_slope(f) + _step(f) ** 2}
    slopes: list[Schedule] = [
        lambda t: t**3,
        lambda t: 2 - 3 * t,
        lambda t: (2 * t).exp(),
        lambda t: (5 * t).sin() - t,
        lambda t: (math.pi / 2 * t).cos(),
    ]
    return checks.compare("excess", excess, _variance_of_slope, [(f,) for f in slopes], mistakes, rtol=2e-3)


def _step(f: Schedule) -> Tensor:
    """The difference f(1) - f(0)."""
    ends = f(torch.tensor([0.0, 1.0], dtype=torch.float64))
    return ends[1] - ends[0]


def exercise_5c(extra_energy: Any) -> Outcome:
    """Step 3, against the energies of samples on the path and on the linear path with the same ends."""

    def reference(path: Any, m: float, d: int) -> Tensor:
        middle = (torch.arange(200, dtype=torch.float64) + 0.5) / 200
        x0, x1 = _balanced(64, d, m)
        linear = (_step(path.alpha) * x1 + _step(path.sigma) * x0).square().sum(dim=1).mean()
        return _energy_at(path, middle, m, d).mean() - linear

    def parts(path: Any) -> tuple[Tensor, Tensor]:
        return _variance_of_slope(path.alpha), _variance_of_slope(path.sigma)

    mistakes = {
        "the factors m and d are missing": lambda path, m, d: sum(parts(path)),
        "the factors m and d are swapped": lambda path, m, d: d * parts(path)[0] + m * parts(path)[1],
        "the part of the noise is missing": lambda path, m, d: m * parts(path)[0],
    }
    cases = [(path, m, d) for path, m, d in zip(_paths()[1:], (3.0, 7.0, 2.0), (2, 5, 3), strict=True)]
    return checks.compare("extra_energy", extra_energy, reference, cases, mistakes, rtol=5e-3)


def exercise_5d(energy_ratio: Any) -> Outcome:
    """The energy of the cosine path over that of the rectified one."""
    mistakes = {
        "that is the square of the largest slope; take the mean of cos^2 over the path, 1/2": math.pi**2 / 4,
        "that is upside down: the cosine path needs more": 8 / math.pi**2,
        "that is the largest slope": math.pi / 2,
    }
    return checks.value("energy_ratio", energy_ratio, math.pi**2 / 8, mistakes)


def _errors(m: float, s: float, steps: int) -> dict[str, float]:
    """Root mean square error of Euler's method from x0 = -1 and x0 = 1, for data N(m, s^2)."""
    angle, found = math.pi / 2, {}
    schedules: dict[str, Callable[[float], tuple[float, ...]]] = {  # alpha, sigma and their derivatives
        "rectified": lambda t: (t, 1 - t, 1.0, -1.0),
        "cosine": lambda t: (
            *(math.sin(angle * t), math.cos(angle * t)),
            *(angle * math.cos(angle * t), -angle * math.sin(angle * t)),
        ),
    }
    for name, at in schedules.items():
        ends = [-1.0, 1.0]
        for k in range(steps):
            a, b, da, db = at(k / steps)
            stretch = (a * da * s**2 + b * db) / (a**2 * s**2 + b**2)  # V' / (2 V) for the variance V of x_t
            ends = [x + (da * m + stretch * (x - a * m)) / steps for x in ends]
        found[name] = math.sqrt(((ends[0] - m + s) ** 2 + (ends[1] - m - s) ** 2) / 2)
    return found


def exercise_6(measure: Any, better_rectified: Any, better_cosine: Any, verdict: Any) -> Outcome:
    """Errors for data and steps of the judge; then whether the two witnesses decide the question."""
    name = "measure"
    for data, steps in (([(0.0, 0.3), (2.0, 0.05), (-1.0, 1.0), (0.5, 4.0)], 10), ([(0.0, 1.0), (1.0, 2.5)], 33)):
        found = tried(name, measure, data, steps, names=("data", "steps"))
        if isinstance(found, Outcome):
            return found
        if not isinstance(found, dict) or set(found) != {"rectified", "cosine"}:
            return checks.holds(name, False, "return a dictionary with the entries 'rectified' and 'cosine'")
        for path, given in found.items():
            errors, right = numbers(given), torch.tensor([_errors(*pair, steps)[path] for pair in data]).double()
            if errors is None or errors.shape != right.shape:
                return checks.holds(name, False, f"{path}: one error for each of the {len(data)} pairs (m, s) is asked")
            k = int((errors - right).abs().argmax())
            if abs(errors[k] - right[k]) > 1e-3 + 1e-2 * right[k]:
                words = f"{path}, (m, s) = {data[k]}, {steps} steps: {errors[k]:.4f}, and {right[k]:.4f} is right"
                return checks.holds(name, False, words)
    checks.holds(name, True, "")
    return _verdict({"better_rectified": better_rectified, "better_cosine": better_cosine}, verdict)


def _verdict(witnesses: dict[str, Any], verdict: Any) -> Outcome:
    """Each witness must show what it is named for, and the verdict must follow from them."""
    for name, pair in witnesses.items():
        if pair is Ellipsis:
            return checks.holds(name, pair, "")
        if pair is None:
            return checks.holds(name, False, "there is one: for which data is the velocity on that path very simple?")
        given = numbers(pair)
        if given is None or len(given) != 2 or not 0.05 <= given[1] <= 1000 or abs(given[0]) > 10:
            return checks.holds(name, False, "a pair (m, s) is asked, with s from 0.05 to 1000 and |m| up to 10")
        errors = _errors(float(given[0]), float(given[1]), 10)
        better, other = ("rectified", "cosine") if name == "better_rectified" else ("cosine", "rectified")
        if errors[better] >= errors[other] / 2:
            words = ", ".join(f"{path} {error:.4f}" for path, error in errors.items())
            return checks.holds(name, False, f"with 10 steps the errors for (m, s) = {pair} are: {words}")
    words = "one of your two witnesses speaks against it"
    return checks.choice("verdict", verdict, "depends on the data", {"rectified": words, "cosine": words})
