"""Judges of the exercises to chapter 11, Norms and pruning."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fmcore.course import checks
from fmcore.course.checks import Outcome
from fmcore.course.exercises import measurements

_Formula = Callable[..., Any]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normal(seed: int, *shape: int) -> Tensor:
    """Standard normal numbers that are the same at every call, in double precision."""
    return torch.randn(shape, generator=_generator(seed), dtype=torch.float64)


def exercise_1(verdict_on: Any) -> Outcome:
    """Which of four ways to align norms are right."""
    right = {"a": "too large", "b": "right", "c": "right for centred Gaussian data only", "d": "right"}
    only = "right for centred Gaussian data only"
    flow_up = "the flow of data up leads to c times an image: who divides by c?"
    starts = "from where does the flow of data up start, and from where does this one?"
    down = "the path of noise down starts at x0 / c and ends at x1: does this way do anything else?"
    hints = {
        "a": {"right": flow_up, only: flow_up},
        "b": {"too large": "the division by c is there", only: "its flow starts from x0, as its path does"},
        "c": {"right": starts, "too large": "look at its standard deviation for Gaussian data"},
        "d": {"too large": down, only: down},
    }
    return measurements.choices("verdict_on", verdict_on, right, hints)


def exercise_2(noise_down_velocity: Any) -> Outcome:
    """The velocity of noise down, against that of data up at c times the point, for several velocities."""
    from fmcore import velocity

    def reference(v: Any, y: Tensor, s: Tensor, c: float) -> Tensor:
        return velocity.scaled_up(v, c)(c * y, s) / c

    def variant(time: Any = None, point: Any = None, join: Any = None) -> _Formula:
        """The right formula with one part replaced."""

        def wrong(v: Any, y: Tensor, s: Tensor, c: float) -> Tensor:
            b = ((1 - s) / c + s)[:, None]
            u = v(y / b if point is None else point(y, b, c), s / b[:, 0] if time is None else time(s, b[:, 0], c))
            made: Tensor = ((1 - 1 / c) * y + u / c) / b if join is None else join(y, u, b, c)
            return made

        return wrong

    mistakes: dict[str, _Formula] = {
        "this is the velocity of data up; here noise is divided by c, and data stay": lambda v, y, s, c: (
            velocity.scaled_up(v, c)(y, s)
        ),
        "v is asked at the time s; its own clock shows t = s / b": variant(time=lambda s, b, c: s),
        "v is asked at the time c s / b; the weight of the data is s": variant(time=lambda s, b, c: c * s / b),
        "v is asked at the point y; divide it by b first": variant(point=lambda y, b, c: y),
        "the change of scale is missing: (1 - 1/c) y / b": variant(join=lambda y, u, b, c: u / c / b),
        "the sign of the change of scale is flipped": variant(join=lambda y, u, b, c: (-(1 - 1 / c) * y + u / c) / b),
        "the factor 1/c of v is missing": variant(join=lambda y, u, b, c: ((1 - 1 / c) * y + u) / b),
        "only v is divided by b; the change of scale must be too, since x = y / b": variant(
            join=lambda y, u, b, c: (1 - 1 / c) * y + u / c / b
        ),
        "v is divided by b squared: y = b x takes one b back": variant(
            join=lambda y, u, b, c: (1 - 1 / c) * y / b + u / c / b**2
        ),
        "the division by b is missing": variant(join=lambda y, u, b, c: (1 - 1 / c) * y + u / c),
    }

    def turning(x: Tensor, t: Tensor) -> Tensor:
        return torch.sin(x.roll(1, dims=1)) * (1 + t[:, None])

    def pulling(x: Tensor, t: Tensor) -> Tensor:
        return (t[:, None] ** 2 - 0.7) * x + 3

    cases = []
    for k, (v, D, c) in enumerate(((turning, 2, 2.0), (pulling, 3, 0.6), (turning, 5, 1.25), (pulling, 4, 40.0))):
        times = torch.rand(4, generator=_generator(k), dtype=torch.float64)
        cases.append((v, 2 * _normal(k, 4, D), times, c))
    cases.append((turning, _normal(9, 2, 2), torch.tensor([0.0, 1.0], dtype=torch.float64), 2.0))
    return checks.compare("noise_down_velocity", noise_down_velocity, reference, cases, mistakes, rtol=1e-4, atol=1e-5)


def _of_ends() -> list[tuple[Tensor, Tensor, float]]:
    """Axes, points and tau: turned at random, with ends on the border, with points of very different lengths."""
    cases: list[tuple[Tensor, Tensor, float]] = []
    for seed, (n, D, tau) in enumerate(((12, 4, 0.1), (9, 5, 0.3), (15, 6, 0.2), (5, 3, -0.1))):
        basis = torch.linalg.qr(_normal(seed, D, D)).Q
        coordinates = 20 * _normal(seed + 10, n, D)
        coordinates[:, 0], coordinates[:, 1] = coordinates[:, 0].abs() + 6, -coordinates[:, 1].abs()
        coordinates[:, 2] *= 0.02
        coordinates[0] *= 1000
        cases.append((basis.T.contiguous(), coordinates @ basis.T, tau))
    corner = torch.eye(3, dtype=torch.float64)
    border = torch.tensor([[3.0, 0.0, -1.0], [2.0, 5.0, -4.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
    return [*cases, (corner, border, 0.0), (corner[:2], border, 0.0)]


def exercise_3(rejected_ends: Any) -> Outcome:
    """Rejected ends by the distance of unit vectors, with ends that lie on the border."""

    def reference(axes: Tensor, points: Tensor, tau: float) -> Tensor:
        unit = points / points.norm(dim=1, keepdim=True)
        both = torch.stack([axes, -axes], dim=1)
        return torch.stack([torch.stack([(unit @ end).max() <= tau for end in ends]) for ends in both])

    def at_most(largest: _Formula, unit: bool = True) -> _Formula:
        """The right rule with something else in place of the largest cosines with both ends."""

        def wrong(axes: Tensor, points: Tensor, tau: float) -> Tensor:
            p = (points / points.norm(dim=1, keepdim=True) if unit else points) @ axes.T
            return torch.stack(largest(p), dim=1) <= tau

        return wrong

    right = at_most(lambda p: (p.amax(0), -p.amin(0)))

    def hasty(axes: Tensor, points: Tensor, tau: float) -> Tensor:
        small = (points @ axes.T / points.norm()).abs().amax(dim=0) < tau
        return torch.stack([small, small], dim=1)

    near = "one near point is enough to keep an end: take the largest"
    mistakes: dict[str, _Formula] = {
        "this is what the function that is to be mended says": hasty,
        "all points are divided by one length; each has its own": lambda axes, x, tau: at_most(
            lambda p: (p.amax(0), -p.amin(0)), unit=False
        )(axes, x / x.norm(), tau),
        "the points are not divided by their lengths: these are products, not cosines": at_most(
            lambda p: (p.amax(0), -p.amin(0)), unit=False
        ),
        "an end whose largest cosine is exactly tau is rejected, too: <= in place of <": lambda axes, x, tau: right(
            axes, x, math.nextafter(tau, -1)
        ),
        "the two columns are swapped: +a first": at_most(lambda p: (-p.amin(0), p.amax(0))),
        "these are the ends that are kept; the rejected ones are asked": lambda *a: ~right(*a),
        f"the smallest cosine is compared; {near}": at_most(lambda p: (p.amin(0), -p.amax(0))),
        f"the mean cosine is compared; {near}": at_most(lambda p: (p.mean(0), -p.mean(0))),
        "both ends get the answer of +a; -a has its own largest cosine": at_most(lambda p: (p.amax(0), p.amax(0))),
        "an end is rejected only with its opposite; each end has its own answer": at_most(
            lambda p: (p.abs().amax(0), p.abs().amax(0))
        ),
    }
    return checks.compare("rejected_ends", rejected_ends, reference, _of_ends(), mistakes)


def _shorter(d: int) -> Callable[[Any], Tensor]:
    """The share of noise in d dimensions that is shorter than a length."""

    def share(length: Any) -> Tensor:
        length = torch.as_tensor(length, dtype=torch.float64)
        return torch.special.gammainc(torch.tensor(d / 2, dtype=torch.float64), length.square() / 2)

    return share


def exercise_4(proposed: Any, acceptance: Any, share_kept: Any) -> Outcome:
    """Both probabilities for noise in 2, 3 and 5 dimensions; the share kept against counts of Gaussians."""

    def density(q: Tensor, bound: float, shorter: Any) -> Tensor:
        return torch.stack([shorter(bound / x) if x > 0 else torch.ones((), dtype=q.dtype) for x in q])

    def accept(q: Tensor, threshold: float, bound: float, shorter: Any) -> Tensor:
        return (q <= threshold) * shorter(bound / threshold) / density(q, bound, shorter)

    settings = ((2, 0.4, 0.7), (3, 0.6, 1.2), (5, 0.25, 0.5), (4, 0.9, 2.0))
    cases = []
    for seed, (d, threshold, bound) in enumerate(settings):
        q = 1.6 * threshold * torch.rand(12, generator=_generator(seed), dtype=torch.float64)
        q[:3], q[3], q[4] = -q[:3], 0.0, threshold
        cases.append((q, threshold, bound, _shorter(d)))
    of_density: dict[str, _Formula] = {
        "where q is negative or 0 the bound is never met: the probability is 1": lambda q, b, F: F(b / q.abs()),
        "where q is negative, the probability is 1, not 0": lambda q, b, F: (q > 0) * density(q, b, F),
        "r q <= bound means r <= bound / q, not r <= bound q": lambda q, b, F: torch.where(q > 0, F(b * q), 1.0),
        "this is the probability that the bound cuts it off": lambda q, b, F: 1 - density(q, b, F),
        "q plays no part: the bound is on r q, not on r": lambda q, b, F: torch.where(q > 0, F(b), 1.0),
        "shorter plays no part: how often is r <= bound / q?": lambda q, b, F: (q <= b).double(),
    }
    shown = [(q, bound, F) for q, _, bound, F in cases]
    if not (outcome := checks.compare("proposed", proposed, density, shown, of_density)):
        return outcome
    if not (outcome := checks.compare("acceptance", acceptance, accept, cases, _acceptance_mistakes(density, accept))):
        return outcome
    return _judge_share_kept(share_kept)


def _acceptance_mistakes(density: _Formula, accept: _Formula) -> dict[str, _Formula]:
    def of(rule: _Formula) -> _Formula:
        """A rule of three parts: whether q is within the threshold, the constant, the density of the proposals."""
        return lambda q, u, b, F: rule(q <= u, F(b / u), density(q, b, F))

    mistakes: dict[str, _Formula] = {
        "directions beyond the threshold are accepted too: they must have the probability 0": of(lambda k, C, p: C / p),
        "all that is within the threshold is accepted: the coin toss is missing": of(lambda k, C, p: k.double()),
        "directions beyond the threshold are kept, and the others thrown away": of(lambda k, C, p: ~k * C / p),
        "the ratio is upside down, and above 1: no probability": of(lambda k, C, p: k * p / C),
        "the constant is missing: above 1, no probability": of(lambda k, C, p: k / p),
        "the density of the proposals must be divided by, to undo what they favour": of(lambda k, C, p: k * p),
        "the same probability for all that pass: the density of the proposals is missing": of(lambda k, C, p: k * C),
        "F is taken at bound times the cosine; a length of bound / cosine touches the bound": lambda q, u, b, F: (
            (q <= u) * F(b * u) / torch.where(q > 0, F(b * q), 1.0)
        ),
        "where q is negative the bound never bites: F is 1 there, not F(bound / |q|)": lambda q, u, b, F: (
            (q <= u) * F(b / u) / F(b / q.abs())
        ),
        "where q is negative, directions pass too": lambda q, u, b, F: (q > 0) * accept(q, u, b, F),
        "q = threshold is kept: <= in place of <": lambda q, u, b, F: (q < u) * accept(q, u, b, F),
    }
    for d in (1, 2, 3, 4, 5, 64):
        words = f"shorter is not used: this is right for noise of dimension {d} only"
        mistakes[words] = lambda q, u, b, F, d=d: accept(q, u, b, _shorter(d))
    return mistakes


# dimension, rejected ends, threshold, bound
_COUNTED = ((2, 1, 0.4, 0.7), (3, 2, 0.5, 1.0), (5, 3, 0.3, 0.9), (4, 1, 0.2, 3.0))


def _judge_share_kept(share_kept: Any) -> Outcome:
    """The share kept from the rate of acceptance, both counted among Gaussians."""
    cases, counted = [], {}
    for seed, (d, ends, threshold, bound) in enumerate(_COUNTED):
        x = _normal(seed + 20, 200_000, d)
        q = x[:, :ends].amax(dim=1) / x.norm(dim=1)
        passes = x[:, :ends].amax(dim=1) <= bound
        F = _shorter(d)
        density = torch.where(q > 0, F(bound / q.clamp(min=1e-9)), 1.0)
        chance = (q <= threshold) * F(bound / threshold) / density
        rate = float(chance[passes].mean())
        cases.append((rate, threshold, bound, F, ends))
        counted[rate] = float((q <= threshold).double().mean())

    def phi(bound: float) -> float:
        return float(torch.special.ndtr(torch.tensor(bound, dtype=torch.float64)))

    mistakes: dict[str, _Formula] = {
        "this is the share of the proposals; how many Gaussians are proposals? Phi(bound)^m is missing": (
            lambda rate, u, b, F, m: rate / F(b / u)
        ),
        "the constant of step 2 is missing: divide by it": lambda rate, u, b, F, m: rate * phi(b) ** m,
        "Phi(bound)^m is divided by; a rate among fewer Gaussians is a smaller share of all": lambda rate, u, b, F, m: (
            rate / phi(b) ** m / F(b / u)
        ),
        "multiplied by the constant of step 2; divide by it": lambda rate, u, b, F, m: rate * phi(b) ** m * F(b / u),
        "there are m bounds: Phi(bound) to the power m": lambda rate, u, b, F, m: rate * phi(b) / F(b / u),
        "m times Phi(bound); the coordinates are independent, so take the power": lambda rate, u, b, F, m: (
            rate * m * phi(b) / F(b / u)
        ),
    }

    def right(rate: float, threshold: float, bound: float, shorter: Any, ends: int) -> float:
        return counted[rate]

    return checks.compare("share_kept", share_kept, right, cases, mistakes, rtol=0.012)


def exercise_5(total_variation: Any, kullback_leibler: Any, kept_in_space: Any) -> Outcome:
    """Both measures by integration over a cut normal density; the share kept by counting directions."""
    x = torch.linspace(-9, 9, 90_001, dtype=torch.float64)
    whole = torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)

    def cut(Z: float) -> Tensor:
        kept = torch.where(torch.special.ndtr(x) <= Z, whole, 0.0)
        return kept / torch.trapezoid(kept, x)

    def variation(Z: float) -> float:
        return float(torch.trapezoid((cut(Z) - whole).abs(), x)) / 2

    def kullback(Z: float) -> float:
        p = cut(Z)
        return float(torch.trapezoid(torch.where(p > 0, p * (p.clamp(min=1e-300) / whole).log(), 0.0), x))

    cases = [(Z,) for Z in (1.0, 0.8, 0.5, 0.3, 0.02)]
    of_variation: dict[str, _Formula] = {
        "the factor 1/2 is missing": lambda Z: 2 * (1 - Z),
        "this is the share that is kept": lambda Z: Z,
        "only where noise is left out: what is kept becomes denser, which counts as much": lambda Z: (1 - Z) / 2,
    }
    name, close = "total_variation", {"rtol": 2e-3, "atol": 5e-4}
    if not (outcome := checks.compare(name, total_variation, variation, cases, of_variation, **close)):
        return outcome
    of_kullback: dict[str, _Formula] = {
        "a divergence is not negative: sign flipped": lambda Z: math.log(Z),
        "the kept density has the integral 1 already: no further factor Z": lambda Z: -Z * math.log(Z),
        "this is the total variation": lambda Z: 1 - Z,
        "natural logarithms are asked": lambda Z: -math.log2(Z),
    }
    name = "kullback_leibler"
    if not (outcome := checks.compare(name, kullback_leibler, kullback, cases, of_kullback, **close)):
        return outcome
    u = torch.nn.functional.normalize(_normal(40, 400_000, 3), dim=1)
    cosines = torch.cat([u, -u], dim=1)

    def counted(threshold: float, ends: int) -> float:
        return float((cosines[:, :ends].amax(dim=1) <= threshold).double().mean())

    of_space: dict[str, _Formula] = {
        "this is what is rejected; the share that is kept is asked": lambda u, m: m * (1 - u) / 2,
        "the cosine is uniform on [-1, 1], an interval of length 2": lambda u, m: 1 - m * (1 - u),
        "the cones do not overlap, so their shares add up; they are not independent": lambda u, m: ((1 + u) / 2) ** m,
        "that is the share of the angles, as in the plane": lambda u, m: 1 - m * math.acos(u) / math.pi,
    }
    settings = [(u, m) for u, m in ((0.75, 1), (0.75, 6), (0.9, 3), (0.72, 2), (0.95, 4), (1.0, 5))]
    return checks.compare("kept_in_space", kept_in_space, counted, settings, of_space, rtol=0, atol=3e-3)


def _euler_error(variances: Tensor, steps: int, factor: float) -> float:
    """Root of the mean squared error over noise of Euler's method, with steps equal in the time of a factor."""
    from fmcore import solvers

    def pull(x: Tensor, t: Tensor) -> Tensor:
        made: Tensor = (t * variances - (1 - t)) / ((1 - t) ** 2 + t**2 * variances) * x
        return made

    s = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    times = factor * s / (1 - s + factor * s)
    end = solvers.solve(pull, torch.ones_like(variances), method="euler", times=times).x
    return float((end - variances.sqrt()).norm())


def _variances() -> list[tuple[Tensor, int]]:
    """Variances and numbers of steps: equal, falling fast and slowly, larger than those of noise."""
    k = torch.arange(1, 65, dtype=torch.float64)
    flat = torch.full((5,), 0.24, dtype=torch.float64)
    return [(flat, 10), (k**-2, 10), (k[:8] ** -0.5, 40), (1 + k[:30], 20), (4 / k, 5)]


def exercise_6(experiment: Any) -> Outcome:
    """Errors by factor: complete, wide enough, those that Euler's method makes, and the verdict of each run."""
    name, verdicts = "experiment", []
    for variances, steps in _variances():
        c = float((len(variances) / variances.sum()).sqrt())
        both = []
        for _ in range(2):
            run = measurements.report(experiment, (variances.clone(), steps), ("factors", "errors", "verdict"))
            if isinstance(run, Outcome):
                return run
            if problem := _of_factors(run, variances, steps, c):
                return checks.holds(name, False, problem)
            both.append(run)
        if not measurements.same(both[0], both[1], ("factors", "errors")):
            return checks.holds(name, False, "two runs differ: use no random numbers, or a generator with a fixed seed")
        verdicts.append((both[0], c))
    outcome = checks.holds(name, True, "")
    for run, c in verdicts:
        factors, errors = _numbers(run)
        at_c, at_1, least = errors[(factors - c).abs().argmin()], errors[(factors - 1).abs().argmin()], errors.min()
        word = "best" if at_c <= 1.01 * least else "better than 1" if at_c < at_1 else "worse than 1"
        if run["verdict"] != word:
            said = f"by your errors c = {c:.2f} has {float(at_c / least):.3f} times the smallest error"
            said += f" and {float(at_c / at_1):.3f} times that of the factor 1"
            hints = dict.fromkeys(("best", "better than 1", "worse than 1"), said)
            return checks.choice("verdict", run["verdict"], word, hints)
    return outcome


def _numbers(run: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Factors and errors of a run; empty ones if they are no lists of numbers."""
    found = (measurements.numbers(run[key]) for key in ("factors", "errors"))
    factors, errors = (torch.empty(0) if values is None else values for values in found)
    return factors, errors


def _of_factors(run: dict[str, Any], variances: Tensor, steps: int, c: float) -> str | None:
    """What is wrong with factors and errors of one run."""
    factors, errors = _numbers(run)
    if len(factors) == 0 or len(factors) != len(errors):
        return "'factors' and 'errors' must be two lists of numbers of the same length"
    if len(set(factors.tolist())) < 12 or float(factors.min()) <= 0:
        return "at least 12 different factors above 0 are asked"
    if float((factors - 1).abs().min()) > 1e-4:
        return "the factor 1, the flow without alignment, is the control: it must be among the factors"
    if float((factors - c).abs().min()) > 1e-4 * c:
        return f"c = {c:.3f} must be among the factors"
    if float(factors.min()) > min(0.5, c / 2) or float(factors.max()) < 2 * c - 1e-6:
        return "the factors must reach from 1/2 and c/2, or less, to 2 c or more"
    for factor, error in zip(factors.tolist(), errors.tolist(), strict=True):
        right = _euler_error(variances, steps, factor)
        if abs(error - right) <= 0.05 * right:
            continue
        if abs(error * len(variances) ** 0.5 - right) < 0.05 * right:
            return "the squared distance is the sum over axes, not their mean"
        if abs(error - _euler_error(variances, steps, 1 / factor)) < 0.02 * error:
            return "the factors f and 1/f are exchanged: t = f s / (1 - s + f s)"
        if abs(error - right**2) < 0.02 * error:
            return "this is the mean square; take its root"
        return f"with {steps} steps and the factor {factor:.2f} the error is {error:.4f}, and {right:.4f} is right"
    return None
