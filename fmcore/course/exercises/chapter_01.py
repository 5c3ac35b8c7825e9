"""Judges of the exercises to chapter 01, Diffusion."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from fmcore.course import checks
from fmcore.course.checks import Outcome
from fmcore.course.exercises import attempts, measurements
from fmcore.paths import AffinePath

_NUMBERS = torch.Generator()
_SIZES = (2, 3, 5)


def _draw(seed: int, *shape: int) -> Tensor:
    """Standard normal numbers that are the same at every call."""
    return torch.randn(shape, generator=_NUMBERS.manual_seed(seed), dtype=torch.float64)


def _times(seed: int, n: int) -> Tensor:
    """Times from 0.2 to 0.8, one for each row."""
    return 0.2 + 0.6 * torch.rand(n, generator=_NUMBERS.manual_seed(seed), dtype=torch.float64)


def _paths() -> list[AffinePath]:
    from fmcore import paths

    exploding = paths.variance_exploding(sigma_min=0.05, sigma_max=3.0)
    return [paths.variance_preserving(), paths.cosine(), exploding]


def exercise_1(step_sizes: Any) -> Outcome:
    """Step sizes of three paths, as a float64 tensor, with all their digits."""
    from fmcore import paths

    def alphas(path: AffinePath, K: int) -> Tensor:
        return path.alpha(1 - torch.arange(K + 1, dtype=torch.float64) / K)

    def right(path: AffinePath, K: int) -> Tensor:
        return -(2 * alphas(path, K).log()).diff().expm1()

    first, other, wave = paths.variance_preserving(), paths.variance_preserving(0.5, 8.0), paths.cosine()
    made = attempts.tried("step_sizes", step_sizes, first, 5, names=("path", "K"))
    if isinstance(made, Outcome):
        return made
    if not isinstance(made, Tensor):
        return checks.holds("step_sizes", False, f"a tensor of shape (K,) is asked, yours is a {type(made).__name__}")
    if made.shape == (5,) and made.dtype != torch.float64:
        said = f"your tensor is {made.dtype}; small steps lose digits in it: compute in torch.float64"
        return checks.holds("step_sizes", False, said)

    def by_rate(path: AffinePath, K: int) -> Tensor:
        return path.diffusion(1 - torch.arange(1, K + 1, dtype=torch.float64) / K) ** 2 / K

    mistakes: dict[str, Callable[..., Tensor]] = {
        "DDPM's approximation beta(s_k)/K; the exact step is a ratio of two alphas": by_rate,
        "the ratio of the alphas is not squared: the chain multiplies by the root of 1 - b": lambda path, K: (
            1 - alphas(path, K)[1:] / alphas(path, K)[:-1]
        ),
        "1 - b where b belongs: this is the share of the variance that is kept": lambda path, K: 1 - right(path, K),
        "this is the noise after k steps, not the noise of step k: divide by the alpha before": lambda path, K: (
            1 - alphas(path, K)[1:] ** 2
        ),
        "ordered from the source to the data; b_1 is the first step away from the data": lambda path, K: right(
            path, K
        ).flip(0),
    }
    if problem := _lost_digits(step_sizes, first, right):
        return checks.holds("step_sizes", False, problem)
    cases = [(first, 5), (first, 12), (other, 7), (wave, 6)]
    return checks.compare("step_sizes", step_sizes, right, cases, mistakes, rtol=1e-6, atol=1e-12)


def _lost_digits(step_sizes: Any, path: AffinePath, right: Callable[..., Tensor]) -> str | None:
    """Asked first, with many steps: where steps are large, nobody sees what single precision loses."""
    try:
        off = (step_sizes(path, 200) / right(path, 200) - 1).abs().max()
    except Exception:  # `compare` will say what is wrong
        return None
    if 1e-6 < off < 5e-3:
        return (
            "only the first digits are right: a part is computed in single precision (torch.arange(K) / K is float32)"
        )
    return None


def exercise_2(gaussian_noise: Any) -> Outcome:
    """The noise prediction, against the gradient of a Gaussian log-density; three paths, 2, 3 and 5 dimensions."""

    def right(x: Tensor, t: Tensor, mean: Tensor, std: float, path: AffinePath) -> Tensor:
        alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
        x = x.detach().requires_grad_()
        density = torch.distributions.Normal(alpha * mean, (alpha**2 * std**2 + sigma**2).sqrt())
        return -sigma * torch.autograd.grad(density.log_prob(x).sum(), x)[0]

    def other(formula: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda x, t, mean, std, path: formula(x, mean, std, path.alpha(t)[:, None], path.sigma(t)[:, None])

    mistakes = {
        "this is the score; the mean noise is minus sigma times it": other(
            lambda x, m, c, a, s: -(x - a * m) / (a**2 * c**2 + s**2)
        ),
        "sign flipped: the noise points from the data to x": other(
            lambda x, m, c, a, s: -s * (x - a * m) / (a**2 * c**2 + s**2)
        ),
        "the noise is divided by sigma and not multiplied: that is right for a single data point, c = 0": other(
            lambda x, m, c, a, s: (x - a * m) / s
        ),
        "c is not squared in the variance of x_t": other(lambda x, m, c, a, s: s * (x - a * m) / (a**2 * c + s**2)),
        "alpha is not squared in the variance of x_t": other(lambda x, m, c, a, s: s * (x - a * m) / (a * c**2 + s**2)),
        "the spread of the data shrinks with alpha: the variance of x_t is not c^2 + sigma^2": other(
            lambda x, m, c, a, s: s * (x - a * m) / (c**2 + s**2)
        ),
        "the mean of x_t is alpha times m": other(lambda x, m, c, a, s: s * (x - m) / (a**2 * c**2 + s**2)),
        "the variance of x_t is missing: this is sigma times the distance from its mean": other(
            lambda x, m, c, a, s: s * (x - a * m)
        ),
    }
    cases = [
        (2 * _draw(i, 4, d), _times(10 + i, 4), _draw(20 + i, d), std, path)
        for i, (d, std, path) in enumerate(zip(_SIZES, (0.5, 1.7, 3.0), _paths(), strict=True))
    ]
    cases.append((_draw(3, 2, 2), _times(13, 2), _draw(23, 2), 0.3, cases[0][-1]))  # as many rows as columns
    return checks.compare("gaussian_noise", gaussian_noise, right, cases, mistakes)


def exercise_3(cause: Any, sde_step: Any) -> Outcome:
    """Which term has which symptom, and the Euler-Maruyama step."""
    falls = "the spread falls to 0 with more steps"
    small = "the spread is too small by the same factor for any number of steps"
    hints = {
        falls: {"score term": "mend the score term alone: the spread still falls, so something else must be the cause"},
        small: {
            "noise term": "mend the noise term alone: the spread then depends on the steps no longer, and is small"
        },
    }
    outcome = measurements.choices("cause", cause, {falls: "noise term", small: "score term"}, hints)
    if not outcome:
        return outcome

    def right(x: Tensor, v: Tensor, score: Tensor, g: float, h: float, z: Tensor) -> Tensor:
        return x + h * v + (g * g * h) * score / 2 + (g * g * h) ** 0.5 * z

    def other(
        pull: Callable[[float, float], float] = lambda g, h: g * g * h / 2,
        push: Callable[[float, float], float] = lambda g, h: g * h**0.5,
    ) -> Callable[..., Tensor]:
        return lambda x, v, score, g, h, z: x + h * v + pull(g, h) * score + push(g, h) * z

    mistakes = {
        "this is the broken step": other(lambda g, h: g * g * h, lambda g, h: g * h),
        "the noise is multiplied by h; Brownian motion moves by the square root of h": other(push=lambda g, h: g * h),
        "the noise is not scaled with the step: the square root of h is missing": other(push=lambda g, h: g),
        "the noise is missing: this is an ODE, and not the one with these marginals": other(push=lambda g, h: 0.0),
        "the factor 1/2 of the score term is missing": other(lambda g, h: g * g * h),
        "g is not squared in the score term": other(lambda g, h: g * h / 2),
        "sign of the score term flipped: it must pull back what the noise spreads": other(lambda g, h: -g * g * h / 2),
        "the score term is missing: nothing balances the noise": other(lambda g, h: 0.0),
        "the score term is not multiplied by h": other(lambda g, h: g * g / 2),
    }
    cases = [
        (_draw(30 + d, 4, d), _draw(40 + d, 4, d), _draw(50 + d, 4, d), g, h, _draw(60 + d, 4, d))
        for d, g, h in ((2, 1.7, 0.1), (3, 0.6, 0.02), (5, 4.0, 0.003))
    ]
    return checks.compare("sde_step", sde_step, right, cases, mistakes)


def exercise_4(exploding_velocity: Any) -> Outcome:
    """The velocity on two variance-exploding paths; with exact scores of two moons it must lead to them."""
    from fmcore import closed_form, data, paths, solvers

    def right(score: Tensor, t: Tensor, path: AffinePath) -> Tensor:
        return path.score_to_velocity(score, torch.zeros_like(score), t)

    def with_factor(factor: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
        return lambda score, t, path: factor(path.sigma(t), path.d_sigma(t))[:, None] * score

    mistakes = {
        "sign flipped: sigma falls with t, its derivative is negative, and the velocity goes along the score": (
            with_factor(lambda sigma, d_sigma: sigma * d_sigma)
        ),
        "the derivative of sigma is missing": with_factor(lambda sigma, d_sigma: -sigma),
        "sigma is missing: the mean noise is minus sigma times the score": with_factor(lambda sigma, d_sigma: -d_sigma),
        "divided by sigma, where it should be multiplied": with_factor(lambda sigma, d_sigma: -d_sigma / sigma),
        "a factor 1/2 too many: d(sigma^2)/dt is 2 sigma d_sigma": with_factor(
            lambda sigma, d_sigma: -sigma * d_sigma / 2
        ),
    }
    narrow, wide = paths.variance_exploding(sigma_min=0.05, sigma_max=3.0), paths.variance_exploding(0.01, 20.0)
    cases = [
        (_draw(70 + b, b, d), _times(80 + b, b), path) for b, d, path in ((5, 2, narrow), (2, 2, wide), (4, 3, wide))
    ]
    outcome = checks.compare("exploding_velocity", exploding_velocity, right, cases, mistakes)
    if not outcome:
        return outcome
    moons = data.toy.two_moons(300, _NUMBERS.manual_seed(7)).double()
    exact = closed_form.EmpiricalVelocity(moons, narrow)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return exploding_velocity(narrow.velocity_to_score(exact(x, t), x, t), t.expand(len(x)), narrow)

    end = solvers.solve(velocity, 3 * _draw(90, 200, 2), t1=narrow.t_max, method="midpoint", steps=50).x
    near = torch.cdist(end, moons).min(dim=1).values.mean() < 0.15
    return checks.holds("samples that follow it end on the data", near, "they do not")


def exercise_5a(rate_of_y: Any) -> Outcome:
    """The derivative of x / alpha along a trajectory, against a central difference, on three paths."""

    def right(e: Tensor, path: AffinePath, t: Tensor) -> Tensor:
        x, small = 1.0 + 0 * e, 1e-5  # any place with this noise prediction: the rate does not depend on it
        v = path.noise_to_velocity(e, x, t)
        ahead, behind = (x + s * v for s in (small, -small))
        return (ahead / path.alpha(t + small) - behind / path.alpha(t - small)) / (2 * small)

    def with_factor(factor: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda e, path, t: factor(path.alpha(t), path.sigma(t), path.d_alpha(t), path.d_sigma(t)) * e

    mistakes = {
        "the derivative of 1 / alpha is missing": with_factor(lambda a, s, da, ds: ds / a),
        "sign in the quotient rule: the term with the derivative of alpha is subtracted": with_factor(
            lambda a, s, da, ds: (ds * a + s * da) / a**2
        ),
        "the denominator of the quotient rule is alpha squared": with_factor(
            lambda a, s, da, ds: (ds * a - s * da) / a
        ),
        "this is the ratio sigma / alpha itself; its derivative is asked": with_factor(lambda a, s, da, ds: s / a),
        "the quotient is upside down: this belongs to alpha / sigma": with_factor(
            lambda a, s, da, ds: (da * s - a * ds) / s**2
        ),
    }
    cases = [
        (_draw(100 + d, 4, d), path, torch.tensor(t, dtype=torch.float64))
        for d, t, path in zip(_SIZES, (0.3, 0.55, 0.7), _paths(), strict=True)
    ]
    return checks.compare("rate_of_y", rate_of_y, right, cases, mistakes)


def exercise_5b(ddim_step: Any) -> Outcome:
    """DDIM's step, against the joining of data and noise prediction with the coefficients of the new time."""

    def right(x: Tensor, e: Tensor, path: AffinePath, t: Tensor, r: Tensor) -> Tensor:
        x1 = path.velocity_to_data(path.noise_to_velocity(e, x, t), x, t)
        return path.alpha(r) * x1 + path.sigma(r) * e

    def y(x: Tensor, e: Tensor, path: AffinePath, t: Tensor, r: Tensor) -> Tensor:
        return right(x, e, path, t, r) / path.alpha(r)

    def rho(path: AffinePath, t: Tensor) -> Tensor:
        return path.sigma(t) / path.alpha(t)

    mistakes: dict[str, Callable[..., Tensor]] = {
        "this is y at the new time; multiply by alpha there to get x": y,
        "multiplied by alpha of the old time; the point is at the new one": lambda x, e, path, t, r: (
            path.alpha(t) * y(x, e, path, t, r)
        ),
        "x is taken for y: divide it by alpha of the old time first": lambda x, e, path, t, r: (
            path.alpha(r) * (x + (rho(path, r) - rho(path, t)) * e)
        ),
        "an Euler step in t; the step is one in rho": lambda x, e, path, t, r: (
            x + (r - t) * path.noise_to_velocity(e, x, t)
        ),
        "the step in rho is r - t, but rho is sigma / alpha": lambda x, e, path, t, r: (
            path.alpha(r) * (x / path.alpha(t) + (r - t) * e)
        ),
        "sign of the step flipped: rho falls from rho_t to rho_r": lambda x, e, path, t, r: (
            path.alpha(r) * (x / path.alpha(t) - (rho(path, r) - rho(path, t)) * e)
        ),
        "t and r swapped: the step goes from t to r": lambda x, e, path, t, r: right(x, e, path, r, t),
    }
    cases = [
        (_draw(110 + d, 4, d), _draw(120 + d, 4, d), path, *torch.tensor(times, dtype=torch.float64))
        for d, times, path in zip(_SIZES, ((0.2, 0.5), (0.3, 0.7), (0.6, 0.65)), _paths(), strict=True)
    ]
    return checks.compare("ddim_step", ddim_step, right, cases, mistakes)


def exercise_5c(end_of_trajectory: Any) -> Outcome:
    """The end of the trajectory of a single data point, against a solver."""
    from fmcore import closed_form, solvers

    def right(x: Tensor, c: Tensor, path: AffinePath, t: Tensor, r: Tensor) -> Tensor:
        velocity = closed_form.EmpiricalVelocity(c[None], path)
        return solvers.solve(velocity, x, float(t), float(r), rtol=1e-8, atol=1e-8).x

    mistakes: dict[str, Callable[..., Tensor]] = {
        "the noise is not divided by sigma of the old time": lambda x, c, path, t, r: (
            path.alpha(r) * c + path.sigma(r) * (x - path.alpha(t) * c)
        ),
        "this is the data point: the trajectory gets there at t = 1 only": lambda x, c, path, t, r: c.expand_as(x),
        "the noise keeps its size: sigma of the new time is missing": lambda x, c, path, t, r: (
            path.alpha(r) * c + (x - path.alpha(t) * c) / path.sigma(t)
        ),
        "the data point has the coefficient alpha of the old time": lambda x, c, path, t, r: (
            path.alpha(t) * c + path.sigma(r) * (x - path.alpha(t) * c) / path.sigma(t)
        ),
    }
    cases = [
        (_draw(130 + d, 4, d), _draw(140 + d, d), path, *torch.tensor(times, dtype=torch.float64))
        for d, times, path in zip(_SIZES, ((0.2, 0.5), (0.3, 0.7), (0.4, 0.9)), _paths(), strict=True)
    ]
    return checks.compare("end_of_trajectory", end_of_trajectory, right, cases, mistakes)


def exercise_6(experiment: Any) -> Outcome:
    """Errors of DDIM and Euler: complete, reproducible, equal to a measurement of our own, and the verdict."""
    keys = ("steps", "DDIM", "Euler", "control", "nearer")
    for name in ("preserving", "exploding"):
        setting = _setting(name)
        runs = measurements.three_runs(experiment, setting, keys, keys[1:3], partial(_unlikely_errors, setting=name))
        if isinstance(runs, Outcome):
            return runs
        for run in runs:
            ddim, euler = (torch.as_tensor(run[method]) for method in keys[1:3])
            nearer = "DDIM" if (ddim < euler).double().mean() > 0.5 else "Euler"
            if run["nearer"] != nearer:
                said = f"your own errors are smaller for {nearer} at most numbers of steps, path {setting[0].name}"
                return checks.choice("nearer", run["nearer"], nearer, {"DDIM": said, "Euler": said})
    return checks.holds("experiment", True, "")


@cache
def _setting(name: str) -> tuple[AffinePath, Tensor]:
    """A path and data for it."""
    from fmcore import data, paths

    if name == "preserving":
        return paths.variance_preserving(), data.toy.two_moons(100, _NUMBERS.manual_seed(8))
    return paths.variance_exploding(sigma_min=0.05, sigma_max=3.0), data.toy.ring(100, _NUMBERS.manual_seed(9))


def _unlikely_errors(report: dict[str, Any], setting: str) -> str | None:
    """What is wrong with the errors of one run."""
    steps, control = (measurements.numbers(report[key]) for key in ("steps", "control"))
    if steps is None or len(steps) < 3 or bool((steps != steps.round()).any()) or bool((steps < 1).any()):
        return "'steps' must hold at least three numbers of steps, whole numbers from 1 on"
    if steps.max() < 4 * steps.min():
        return "the largest number of steps must be at least four times the smallest, or no trend can be seen"
    if control is None or len(control) != 2:
        return "'control' must hold two distances, DDIM's and Euler's"
    expected = _errors(setting, tuple(int(n) for n in steps))
    for name, right in zip(("DDIM", "Euler"), expected, strict=True):
        values = measurements.numbers(report[name])
        if values is None or values.shape != steps.shape:
            return f"{name!r} must hold one mean distance for each number of steps"
        off = (values / right).clamp(min=1e-9).log().abs()
        k = int(off.argmax())
        if off[k] > 0.5:
            return (
                f"path {_setting(setting)[0].name}, {name} with {int(steps[k])} steps: your mean distance is "
                f"{values[k]:.3g}, ours is {right[k]:.3g}; look at the start, the end (t = 0.95) and the equal steps"
            )
    ddim, euler = (float(values[0]) for values in _errors(setting, (int(steps.min()),), alone=True))
    if abs(control[0] - ddim) > 5e-3:
        return f"control: with one data point DDIM is exact, and its distance is {control[0]:.3g} in yours"
    if abs(control[1] - euler) > 0.3 * euler:
        return f"control: with one data point Euler's distance is {control[1]:.3g} in yours, and {euler:.3g} in ours"
    return None


@cache
def _errors(setting: str, steps: tuple[int, ...], alone: bool = False) -> list[Tensor]:
    """Mean distances of DDIM and of Euler from the end of the ODE for 300 starts; alone: with the first data point."""
    from fmcore import closed_form, solvers

    path, points = _setting(setting)
    exact = closed_form.EmpiricalVelocity(points[:1] if alone else points, path)
    x0 = path.source_scale * _draw(150, 300, 2).to(points)
    truth = solvers.solve(exact, x0, t1=0.95, rtol=1e-5, atol=1e-5).x
    ends = []
    for n in steps:
        x = x0
        for t, r in pairwise(torch.linspace(0, 0.95, n + 1)):
            v = exact(x, t)
            x = path.alpha(r) * path.velocity_to_data(v, x, t) + path.sigma(r) * path.velocity_to_noise(v, x, t)
        ends.append((x, solvers.solve(exact, x0, t1=0.95, method="euler", steps=n).x))
    return [torch.tensor([float((end[i] - truth).norm(dim=1).mean()) for end in ends]).double() for i in (0, 1)]
