"""Judges of the exercises to chapter 10, Source direction."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fmcore.course import checks
from fmcore.course.checks import Outcome
from fmcore.course.exercises import attempts, measurements

_Formula = Callable[..., Any]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normal(seed: int, *shape: int) -> Tensor:
    """Standard normal numbers that are the same at every call, in double precision."""
    return torch.randn(shape, generator=_generator(seed), dtype=torch.float64)


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def exercise_1(around: Any) -> Outcome:
    """Directions with given cosines, negative ones and both ends too, in 2, 3, 5 and 20 dimensions."""

    def built(aside: _Formula | None = None, sine: _Formula | None = None, unit: _Formula | None = None) -> _Formula:
        """The vectors with one part replaced."""

        def make(mu: Tensor, cosines: Tensor, noise: Tensor) -> Tensor:
            w = cosines[:, None]
            tangent = noise - torch.outer(noise @ mu, mu) if aside is None else aside(noise, mu)
            v = _unit(tangent) if unit is None else unit(tangent)
            made: Tensor = w * mu + v * ((1 - w * w).clamp(min=0) ** 0.5 if sine is None else sine(w))
            return made

        return make

    along = partial(torch.nn.functional.normalize, dim=0)
    right = built()
    mistakes: dict[str, _Formula] = {
        "v is not orthogonal to mu: the part of the noise along mu is still in it": built(
            aside=lambda noise, mu: noise
        ),
        "v has not length 1: normalize what is left of the noise": built(unit=lambda v: v),
        "v is normalized before its part along mu is taken away; then it is no longer of length 1": built(
            aside=lambda noise, mu: _unit(noise) - torch.outer(_unit(noise) @ mu, mu), unit=lambda v: v
        ),
        "v is normalized along the batch; each row needs length 1: dim=1": built(unit=along),
        "the part along mu is added to the noise, not taken away": built(
            aside=lambda noise, mu: noise + torch.outer(noise @ mu, mu)
        ),
        "a square root is missing: v is multiplied by 1 - w^2": built(sine=lambda w: 1 - w**2),
        "v is multiplied by 1 - w; it must be sqrt(1 - w^2), so that the length is 1": built(sine=lambda w: 1 - w),
        "v is multiplied by 1: the factor sqrt(1 - w^2) is missing": built(sine=torch.ones_like),
        "the cosine and the sine are swapped": lambda mu, w, z: right(mu, (1 - w**2).sqrt(), z),
        "the cosine is taken of the cosines: they are no angles": lambda mu, w, z: right(mu, w.cos(), z),
        "right for positive cosines only: mu + tan(a) v, given length 1, points to the side of mu for every a": (
            lambda mu, w, z: _unit(mu + w.acos().tan()[:, None] * right(mu, 0 * w, z))
        ),
        "mu + tan(a) v has not length 1: multiply it by cos(a)": lambda mu, w, z: (
            mu + w.acos().tan()[:, None] * right(mu, 0 * w, z)
        ),
        "the absolute values of the cosines are used: a negative cosine points away from mu": lambda mu, w, z: right(
            mu, w.abs(), z
        ),
    }
    cases = []
    for n, d in ((4, 3), (5, 2), (6, 5), (3, 20)):
        w = 1.96 * torch.rand(n, generator=_generator(d), dtype=torch.float64) - 0.98
        w[0], w[1] = -w[0].abs(), w[1].abs()
        cases.append((_unit(_normal(d, d)), w, _normal(d + 30, n, d)))
    cases.append((torch.tensor([0.0, -1.0]), torch.tensor([1.0, -1.0, 0.0, -0.6]), _normal(7, 4, 2).float()))
    return checks.compare("around", around, right, cases, mistakes)


def exercise_2a(shows: Any) -> Outcome:
    """What each setting shows of the faults of a sampler."""
    few = "with the power 2 in place of 1 the mean cosine is off by many standard errors: compare the means"
    right = {(3072, 50): "nothing", (3072, 1500): "overflow", (3, 5): "a wrong power"}
    large = "exp(1500) is no number in double precision, and infinity / infinity is none at all"
    near = "off by one in 3,072 dimensions, and exp(50) is a number: is the difference above a standard error?"
    hints = {
        (3072, 50): {"overflow": near, "a wrong power": near},
        (3072, 1500): {"nothing": "the mean cosine there is far from right", "a wrong power": large},
        (3, 5): {"nothing": few, "overflow": "exp(5) is no large number: " + few},
    }
    return measurements.choices("shows", shows, right, hints)


_SETTINGS = (
    (3072, 50.0),
    (3, 5.0),
    (2, 5.0),
    (3, 0.0),
    (5, 1.0),
    (64, 20.0),
    (3, 2000.0),
    (3072, 1500.0),
    (3072, 3000.0),
)


def exercise_2b(drawn_angles: Any) -> Outcome:
    """Angles by their distribution function (Kolmogorov and Smirnov), beside sums over a fine grid."""
    name, n, names = "drawn_angles", 4000, ("n", "dim", "kappa", "generator")
    for dim, kappa in _SETTINGS:
        a = attempts.tried(name, drawn_angles, n, dim, kappa, _generator(dim), names=names)
        if isinstance(a, Outcome):
            return a
        where = f"d = {dim}, kappa = {kappa:g}"
        if not isinstance(a, Tensor) or a.shape != (n,):
            shape = f"shape {tuple(a.shape)}" if isinstance(a, Tensor) else f"a {type(a).__name__}"
            return checks.holds(name, False, f"{shape}, but a tensor of shape ({n},) is asked")
        a = a.detach().double()
        if not bool(((a >= 0) & (a <= math.pi)).all()):
            return checks.holds(name, False, f"{where}: some angles do not lie between 0 and pi")
        gap = _gap(a, kappa, dim - 2)
        if gap > 0.04:  # by chance in less than one case of 10^5
            mean, right = float(a.cos().mean()), float(_moment(dim, kappa, 1))
            said = f"{where}: the mean cosine is {mean:.3f}, and {right:.3f} is right"
            if abs(mean - right) < 0.02:
                said = f"{where}: the distribution functions differ by {gap:.2f}"
            if dim < 100 and _gap(a, kappa, dim - 1) < 0.04:
                said += "; the power of the sine is d - 1, and d - 2 is right"
            elif kappa > 700:
                said += "; does an exponential overflow?"
            return checks.holds(name, False, said)
    first, again, other = (drawn_angles(n, 64, 20.0, _generator(seed)) for seed in (1, 1, 2))
    if not torch.equal(first, again):
        return checks.holds(name, False, "equal generators give other angles: draw everything from `generator`")
    if torch.equal(first, other):
        return checks.holds(name, False, "other generators give the same angles: draw everything from `generator`")
    return checks.holds(name, True, "")


def _weights(kappa: float, power: float) -> tuple[Tensor, Tensor]:
    """A fine grid of angles around the bulk, and their probabilities under exp(kappa cos a) sin(a)^power."""
    a = torch.linspace(0, math.pi, 400_001, dtype=torch.float64)[1:-1]
    return a, torch.softmax(kappa * a.cos() + power * a.sin().log(), dim=0)


def _gap(sample: Tensor, kappa: float, power: int) -> float:
    """The largest difference between the distribution function of a sample and that of a power of the sine."""
    a, p = _weights(kappa, power)
    sample = sample.sort().values
    exact = p.cumsum(dim=0)[torch.searchsorted(a, sample).clamp(max=len(a) - 1)]
    return float((exact - (torch.arange(len(sample)) + 0.5) / len(sample)).abs().max())


def _moment(dim: int, kappa: float, power: int) -> float:
    """The mean of a power of the cosine."""
    a, p = _weights(kappa, dim - 2)
    return float((p * a.cos() ** power).sum())


def exercise_3(concentration: Any) -> Outcome:
    """The concentration from data that gather around, beside and opposite to a mean direction of any length."""
    from fmcore.sources import VonMisesFisher

    def cosine(x: Tensor, mu: Tensor) -> Tensor:
        return torch.cosine_similarity(x, mu[None], dim=1).mean()

    def kappa_of(r: Tensor, d: float) -> Tensor:
        return d / (1 / r - r)

    def with_r(rule: Callable[[Tensor, Tensor], Tensor]) -> _Formula:
        return lambda x, mu: kappa_of(rule(x, mu), x.shape[1])

    def of_r(rule: Callable[[Tensor, int], Tensor]) -> _Formula:
        return lambda x, mu: rule(cosine(x, mu), x.shape[1])

    mistakes: dict[str, _Formula] = {
        "the data are not normalized: these are inner products, not cosines": with_r(
            lambda x, mu: (x @ mu).mean() / mu.norm()
        ),
        "mu is not normalized: divide by its length": with_r(lambda x, mu: (_unit(x) @ mu).mean()),
        "neither the data nor mu are normalized: take cosines": with_r(lambda x, mu: (x @ mu).mean()),
        "the cosine of the mean vector is taken, not the mean of the cosines: normalize each row first": with_r(
            lambda x, mu: torch.cosine_similarity(x.mean(dim=0), mu, dim=0)
        ),
        "the data are normalized along the batch; each row needs length 1: dim=1": with_r(
            lambda x, mu: (x / x.norm(dim=0) @ _unit(mu)).mean()
        ),
        "this is the length of the mean direction, which cannot be negative; the mean cosine with mu is asked": with_r(
            lambda x, mu: _unit(x).mean(dim=0).norm()
        ),
        "right for positive r only: the absolute value of r is taken, but data opposite to mu have a negative kappa": (
            with_r(lambda x, mu: cosine(x, mu).abs())
        ),
        "this is r, the mean cosine; kappa is asked": cosine,
        "n stands where d belongs: the number of dimensions is data.shape[1]": lambda x, mu: kappa_of(
            cosine(x, mu), len(x)
        ),
        "the denominator is 1 - r; it must be 1 - r^2": of_r(lambda r, d: r * d / (1 - r)),
        "this is the first term of the fraction, r = kappa / d": of_r(lambda r, d: r * d),
        "the sign of r^2 is flipped: 1/r - r is d / kappa": of_r(lambda r, d: r * d / (1 + r**2)),
        "with the correction -r^3 of Banerjee and others (2005)": of_r(lambda r, d: r * (d - r**2) / (1 - r**2)),
        "the factor r is missing": of_r(lambda r, d: d / (1 - r**2)),
    }
    cases = []
    for n, d, kappa, sign in ((30, 3, 4.0, 1), (40, 5, 9.0, -1), (20, 8, 15.0, 1), (25, 2, 1.5, -1), (30, 4, 2.0, 1)):
        mu = 3 * _normal(d, d)
        lengths = 0.5 + 9 * torch.rand(n, 1, generator=_generator(d), dtype=torch.float64)
        x = lengths * VonMisesFisher(mu[None], kappa).sample(n, _generator(d)).double()
        cases.append((x, sign * mu))
    cases.append((cases[0][0].float(), 1000 * cases[0][1].float()))
    return checks.compare("concentration", concentration, with_r(cosine), cases, mistakes)


def exercise_4(slope_by_moments: Any, mean_sine_squared: Any, slope: Any, newton_step: Any) -> Outcome:
    """Each step against integrals over the angle, and slopes against differences of the mean cosine."""
    settings = [(d, kappa) for d in (2, 3, 5, 64) for kappa in (0.3, 2.0, 15.0, -4.0)]
    A, second = ({setting: _moment(*setting, power) for setting in settings} for power in (1, 2))
    steep = {(d, k): (_moment(d, k + 1e-4, 1) - _moment(d, k - 1e-4, 1)) / 2e-4 for d, k in settings}
    by_moments = {(A[one], second[one]): steep[one] for one in settings}
    judge = partial(checks.compare, rtol=1e-3, atol=1e-5)
    mistakes: dict[str, _Formula] = {
        "this is the second moment alone: the derivative of 1 / Z counts, too": lambda m1, m2: m2,
        "m1 must be squared": lambda m1, m2: m2 - m1,
        "this is a standard deviation": lambda m1, m2: (m2 - m1**2) ** 0.5,
    }
    cases: list[Any] = list(by_moments)
    if not (found := judge("slope_by_moments", slope_by_moments, lambda m1, m2: by_moments[m1, m2], cases, mistakes)):
        return found
    mistakes = {
        "the power of the sine that is differentiated is d - 1, not d": lambda A, k, d: d * A / k,
        "the power of the sine that is differentiated is d - 1, not d - 2": lambda A, k, d: (d - 2) * A / k,
        "kappa is missing: it stands beside the sine before the parts are integrated": lambda A, k, d: (d - 1) * A,
        "multiplied by kappa; divide by it": lambda A, k, d: (d - 1) * A * k,
        "this is 1 - A^2; the mean of cos^2 is not the square of the mean": lambda A, k, d: 1 - A**2,
        "the factor A, the mean of cos a, is missing": lambda A, k, d: (d - 1) / k,
    }
    cases = [(A[d, k], k, d) for d, k in settings]
    if not (
        found := judge(
            "mean_sine_squared", mean_sine_squared, lambda A, kappa, d: 1 - second[d, kappa], cases, mistakes
        )
    ):
        return found
    mistakes = {
        "this is the mean of cos^2; the square of the mean is not subtracted": lambda A, k, d: 1 - (d - 1) * A / k,
        "the mean of sin^2 is subtracted from 1, since cos^2 = 1 - sin^2": lambda A, k, d: (d - 1) * A / k - A**2,
        "A must be squared": lambda A, k, d: 1 - (d - 1) * A / k - A,
        "the mean of sin^2 is missing": lambda A, k, d: 1 - A**2,
    }
    if not (found := judge("slope", slope, lambda A, kappa, d: steep[d, kappa], cases, mistakes)):
        return found

    def newton(kappa: float, r: float, A: float, d: int) -> Tensor:
        return torch.tensor(kappa + (r - A) / steep[d, kappa])

    mistakes = {
        "the step goes the wrong way: kappa must grow if r is above A": lambda k, r, a, d: 2 * k - newton(k, r, a, d),
        "multiplied by the slope; divide by it": lambda k, r, a, d: k + (r - a) * steep[d, k],
        "this is the change of kappa; add it to kappa": lambda k, r, a, d: newton(k, r, a, d) - k,
    }
    steps = [
        (k, A[d, k] + shift, A[d, k], d) for (d, k), shift in zip(settings, 4 * (0.02, -0.1, 0.0, 0.05), strict=True)
    ]
    return judge("newton_step", newton_step, newton, steps, mistakes)


def _gaussian(x: Tensor, modes: Tensor) -> Tensor:
    """Standard Gaussian noise for every mode."""
    return -x.square().sum(dim=1) / 2


def _of_modes(seed: int, d: int, power: int, small: float = 1.0) -> _Formula:
    """The log-density of each of three modes: normal (power 2) or double exponential (1), of different widths."""
    centres, widths = 2 * _normal(seed, 3, d), small * torch.tensor([0.7, 1.2, 1.8], dtype=torch.float64)

    def log_density(x: Tensor, modes: Tensor) -> Tensor:
        width = widths[modes]
        away = (x - centres[modes]).abs() / width[:, None]
        return -(away**power).sum(dim=1) / power - d * width.log()

    return log_density


def exercise_5(disagreement: Any) -> Outcome:
    """The variance of the target at a place, for sources that know the mode of the data point, near and far."""

    def spread_of(**parts: _Formula) -> _Formula:
        """The variance with one part replaced: starts, density, weigh, targets or finish."""

        def make(log_density: Any, points: Tensor, modes: Tensor, x: Tensor, t: float) -> Tensor:
            s = parts["starts"](points, x, t) if "starts" in parts else (x - t * points) / (1 - t)
            z = parts["density"](log_density, s, modes) if "density" in parts else log_density(s, modes)
            w = parts["weigh"](z) if "weigh" in parts else z.softmax(dim=0)
            v = parts["targets"](points, s) if "targets" in parts else (points - x) / (1 - t)
            u = w @ v
            made: Tensor = parts["finish"](w, v, u) if "finish" in parts else w @ (v - u).square().sum(dim=1)
            return made

        return make

    def of_all_modes(f: Any, s: Tensor, modes: Tensor) -> Tensor:
        return torch.stack([f(s, torch.full_like(modes, k)) for k in range(3)]).logsumexp(dim=0)

    of_density: dict[str, _Formula] = {
        "right for independent pairs only: the start belongs to the mode of its data point": of_all_modes,
        "the modes are not used: each start has the density of its own mode": lambda f, s, k: f(s, 0 * k),
        "log_density is not used: right for standard Gaussian noise only": lambda f, s, k: _gaussian(s, k),
    }
    of_weights: dict[str, _Formula] = {
        "every data point counts the same: the weights are missing": lambda z: torch.full_like(z, 1 / len(z)),
        "the weights are not normalized: divide by their sum": lambda z: z.exp(),
        "the logarithms of the densities are used as weights": lambda z: z / z.sum(),
        "the sign of the log-density is flipped": lambda z: (-z).softmax(dim=0),
    }
    of_starts: dict[str, _Formula] = {
        "the density is taken at x; the start belongs to the pair: where did the path of each point start?": (
            lambda points, x, t: x.expand_as(points)
        ),
        "the start is x - t x_i: it must be divided by 1 - t": lambda points, x, t: x - t * points,
        "the density is taken at the data points; it belongs to the source": lambda points, x, t: points,
    }
    of_variance: dict[str, _Formula] = {
        "the mean is not subtracted: this is the mean square of the targets": lambda w, v, u: w @ v.square().sum(dim=1),
        "the mean of the targets has no weights in it": lambda w, v, u: w @ (v - v.mean(dim=0)).square().sum(dim=1),
        "the weights are in the mean only: the squares need them, too": lambda w, v, u: (v - u).square().sum(1).mean(),
        "averaged over the coordinates; the squared length is their sum": lambda w, v, u: w @ (v - u).square().mean(1),
        "this is the standard deviation; the variance is asked": lambda w, v, u: (w @ (v - u).square().sum(1)) ** 0.5,
        "this is the squared length of the mean; the variance is asked": lambda w, v, u: u.square().sum(),
    }
    mistakes = {words: spread_of(weigh=rule) for words, rule in of_weights.items()}
    mistakes |= {words: spread_of(density=rule) for words, rule in of_density.items()}
    mistakes |= {words: spread_of(starts=rule) for words, rule in of_starts.items()}
    mistakes["this is the variance of the data points; the targets are theirs divided by 1 - t"] = spread_of(
        targets=lambda points, s: points
    )
    mistakes["this is the variance of the starts, not of x_1 - x_0"] = spread_of(targets=lambda points, s: s)
    mistakes |= {words: spread_of(finish=rule) for words, rule in of_variance.items()}
    cases = []
    for k, (n, d, t, power) in enumerate(((6, 3, 0.3, 2), (9, 2, 0.5, 2), (7, 5, 0.2, 1), (8, 3, 0.8, 1))):
        modes = torch.arange(n) * 2 % 3
        cases.append((_of_modes(k, d, power), _normal(n, n, d), modes, 0.5 * _normal(d, d), t))
    name, reference = "disagreement", spread_of()
    if not (outcome := checks.compare(name, disagreement, reference, cases, mistakes)):
        return outcome
    far = [(_of_modes(k, cases[k][1].shape[1], 2, 0.02), *cases[k][1:]) for k in (0, 1)]
    return checks.compare("disagreement with tiny densities", disagreement, reference, far, mistakes)


def exercise_6(experiment: Any, verdict: Any) -> Outcome:
    """Shares of right decisions in 16 and 256 dimensions: possible, reproducible, and the verdict from them."""
    keys, ratios = ("numbers", "known", "unknown", "ratio"), []
    for dim in (16, 256):
        runs = measurements.three_runs(experiment, (dim,), keys, keys[1:3], partial(_unlikely, dim=dim))
        if isinstance(runs, Outcome):
            return runs
        ratios.append((float(runs[0]["ratio"]) + float(runs[2]["ratio"])) / 2)
    checks.holds("experiment", True, "")
    grown = ratios[1] / ratios[0]
    words = ("more in more dimensions", "less in more dimensions", "the same in all dimensions")
    right = words[0] if grown > 1.4 else words[1] if grown < 0.7 else words[2]
    said = f"your experiment has a ratio of {ratios[0]:.1f} in 16 dimensions and of {ratios[1]:.1f} in 256"
    return checks.choice("verdict", verdict, right, dict.fromkeys(words, said))


def _unlikely(run: dict[str, Any], dim: int) -> str | None:
    """What is wrong with the shares of one run, given what the best rule for a known direction can reach."""
    numbers, known, unknown = (measurements.numbers(run[key]) for key in ("numbers", "known", "unknown"))
    if numbers is None or known is None or unknown is None or not len(numbers) == len(known) == len(unknown):
        return "'numbers', 'known' and 'unknown' must be lists of numbers of the same length"
    if len(numbers) < 6 or numbers[0] != 1 or bool((numbers.diff() <= 0).any()) or numbers[-1] < 4 * dim**0.5 + 8:
        return f"'numbers' must grow from 1 to at least {4 * dim**0.5 + 8:.0f} in at least five steps"
    for key, shares in (("known", known), ("unknown", unknown)):
        if float(shares.min()) < 0.3 or float(shares.max()) > 1:
            return f"{key!r} must hold shares of right decisions, which lie about between 1/2 and 1"
        if float(shares[-1]) < 0.85:
            return f"{key!r}: {float(shares[-1]):.0%} for the largest n is too few; which number do you look at?"
    most = torch.special.ndtr(numbers.sqrt() / 2)  # cosines 1/sqrt(d) apart, with a scatter of 1/sqrt(d)
    if float((known - most).max()) > 0.09:
        return "'known' is better than any rule can be: is the border chosen on the draws on which you count?"
    if float((most - known).max()) > 0.13:
        n = int(numbers[(most - known).argmax()])
        return f"'known' for n = {n}: {float(known[numbers == n]):.2f}, but {float(most[numbers == n]):.2f} is possible"
    if float((unknown - known).max()) > 0.09 or abs(float(unknown[0]) - 0.5) > 0.1:
        return "'unknown' knows too much: a single direction says nothing if mu may be anything; does it use mu?"
    needed = numbers[unknown >= 0.9]
    if len(needed) == 0 or needed[0] > 8 * dim**0.5:
        return "'unknown' needs very many directions; is there a number that all n directions change together?"
    try:
        ratio = float(run["ratio"])
    except (TypeError, ValueError, RuntimeError):
        return "'ratio' must be a number"
    right = float(needed[0] / numbers[known >= 0.9][0])
    return None if abs(ratio - right) < 0.02 * right else f"'ratio' is {ratio:.2f}; by your shares it is {right:.2f}"
