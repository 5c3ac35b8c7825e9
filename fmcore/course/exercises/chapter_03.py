"""The judges of the exercises to chapter 03, flow matching."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fmcore.course import checks
from fmcore.course.checks import Outcome
from fmcore.course.exercises.attempts import tried
from fmcore.course.exercises.measurements import numbers


def exercise_1(conditional_velocity: Any) -> Outcome:
    """The velocity towards a small Gaussian, against that of the package; in 2, 3 and 5 dimensions, t = 0 included."""
    from fmcore import paths

    def reference(x: Tensor, x1: Tensor, t: Tensor, sigma_min: float) -> Tensor:
        return paths.ot(sigma_min).velocity(x, x1, t)

    def rest(x: Tensor, x1: Tensor, t: Tensor, s: float) -> tuple[Tensor, Tensor]:
        return x1 - (1 - s) * x, 1 - (1 - s) * t[:, None]

    mistakes = {
        "sigma_min is left out: this is the velocity of the straight path": lambda x, x1, t, s: (
            (x1 - x) / (1 - t[:, None])
        ),
        "x is put in where x0 belongs: solve x_t = x for x0 first": lambda x, x1, t, s: rest(x, x1, t, s)[0],
        "the denominator is 1 - t; it is the factor of x0, 1 - (1 - sigma_min) t": lambda x, x1, t, s: (
            rest(x, x1, t, s)[0] / (1 - t[:, None])
        ),
        "the derivative of the factor of x0 is -(1 - sigma_min), not -1": lambda x, x1, t, s: (
            x1 - (x - t[:, None] * x1) / rest(x, x1, t, s)[1]
        ),
        "this is x0, solved for; the velocity is x1 - (1 - sigma_min) x0": lambda x, x1, t, s: (
            (x - t[:, None] * x1) / rest(x, x1, t, s)[1]
        ),
    }
    cases = []
    for n, d, s in ((5, 2, 0.1), (2, 2, 0.3), (7, 3, 0.05), (4, 5, 0.5)):
        x, x1 = 3 * _normal(2, n, d)
        cases.append((x, x1, torch.linspace(0, 0.8, n, dtype=torch.float64).flip(0), s))
    return checks.compare("conditional_velocity", conditional_velocity, reference, cases, mistakes)


def _normal(*shape: int) -> Tensor:
    """The same normal numbers of this shape each time, in double precision."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def _gaussian(x: Tensor) -> Tensor:
    return -x.square().sum(dim=-1) / 2


def _by_pairs(x: Tensor, t: Tensor, points: Tensor, log_source: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean of x1 - x0 over the pairs that meet at x, one row and one data point after the other."""
    rows = []
    for place, time in zip(x, t, strict=True):
        starts = torch.stack([(place - time * point) / (1 - time) for point in points])
        chances = torch.stack([log_source(start[None])[0] for start in starts])
        weights = (chances - chances.max()).exp()
        rows.append(((points - starts) * weights[:, None]).sum(dim=0) / weights.sum())
    return torch.stack(rows)


def exercise_2(marginal_velocity: Any) -> Outcome:
    """The marginal velocity of other sources, against the mean over pairs, one by one; near the data and far away."""
    laplace, heavy = (lambda x: -(x - 1).abs().sum(-1)), (lambda x: -3 * (1 + x.square().sum(-1) / 2).log() + 7)
    generator = torch.Generator().manual_seed(2)

    def case(n: int, m: int, d: int, source: Callable[[Tensor], Tensor], width: float) -> tuple[Any, ...]:
        x, points = (width * torch.randn(k, d, generator=generator, dtype=torch.float64) for k in (n, m))
        return x, 0.1 + 0.7 * torch.rand(n, generator=generator, dtype=torch.float64), points, source

    def weighted(logits_of: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The velocity with other weights, made of x (B, 1, d), t (B, 1, 1), points (n, d) and the source."""

        def velocity(x: Tensor, t: Tensor, points: Tensor, source: Callable[[Tensor], Tensor]) -> Tensor:
            weights = torch.softmax(logits_of(x[:, None], t[:, None, None], points, source), dim=1)
            return (weights @ points - x) / (1 - t[:, None])

        return velocity

    mistakes = {
        "log_source is not used: these are the weights of a Gaussian source": weighted(
            lambda x, t, p, f: _gaussian((x - t * p) / (1 - t))
        ),
        "log_source is asked at x - t x1; the noise sample that leads there is (x - t x1) / (1 - t)": weighted(
            lambda x, t, p, f: f(x - t * p)
        ),
        "all data points have the same weight": weighted(lambda x, t, p, f: torch.zeros(len(x), len(p)).to(x)),
        "the sign of the exponent is flipped: unlikely noise weighs most": weighted(
            lambda x, t, p, f: -f((x - t * p) / (1 - t))
        ),
        "this is the mean of the data points as seen from x; the velocity leads there from x": lambda x, t, p, f: (
            _by_pairs(x, t, p, f) * (1 - t[:, None]) + x
        ),
        "the division by 1 - t is missing": lambda x, t, p, f: _by_pairs(x, t, p, f) * (1 - t[:, None]),
    }
    near = [case(5, 4, 2, _gaussian, 1), case(3, 6, 3, laplace, 1), case(4, 3, 5, heavy, 1), case(2, 2, 2, heavy, 2)]
    if not (found := checks.compare("marginal_velocity", marginal_velocity, _by_pairs, near, mistakes)):
        return found
    far = [case(4, 5, 3, _gaussian, 30), case(4, 3, 2, laplace, 900)]  # densities down to exp(-10,000)
    return checks.compare("marginal_velocity far from the data", marginal_velocity, _by_pairs, far, mistakes)


class _Recorder(torch.nn.Module):
    """A model that keeps what it is asked."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(-1, 1, d * d).reshape(d, d) + 2 * torch.eye(d))
        self.asked: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.asked.append((x.detach().clone(), torch.as_tensor(t).detach().clone()))
        return x @ self.weight.to(x) + torch.as_tensor(t).reshape(-1, 1)


def _problem_of_draws(x: Tensor, t: Tensor, x1: Tensor) -> str | None:
    """What is wrong with the points and times that a model is trained on."""
    if x.shape != x1.shape or t.shape != (len(x1),):
        return f"the model is asked with x of shape {tuple(x.shape)} and t of shape {tuple(t.shape)}; (B, d) and (B,)"
    mean, std = float(t.mean()), float(t.std())
    if t.min() < 0 or t.max() > 1 or abs(mean - 0.5) > 0.02 or abs(std - 12**-0.5) > 0.02:
        return f"the times are not uniform on [0, 1]: their mean is {mean:.2f}, their standard deviation {std:.2f}"
    inner = t < 0.9
    x0 = ((x - t[:, None] * x1) / (1 - t[:, None]))[inner]  # the noise that the point must have come from
    standard = (x0.mean(dim=0).abs() < 0.06) & ((x0.std(dim=0) - 1).abs() < 0.04)
    if standard[0] and not standard.all():
        return "only coordinate 0 of a row is at the time of that row: a row has one time for all of them"
    if not standard.all():
        return (
            "x_t is not (1 - t) x0 + t x1 with x0 from a standard Gaussian: solved for x0, its mean is "
            f"{float(x0.mean()):.2f} and its standard deviation {float(x0.std()):.2f}"
        )
    return None


def _mistakes_of_loss(v: Tensor, x0: Tensor, x1: Tensor, x: Tensor) -> dict[str, Tensor]:
    error, d = v - (x1 - x0), x1.shape[1]
    return {
        "summed over the dimensions, then halved: a mean only where d = 2": error.square().sum(dim=1).mean() / 2,
        "summed over the dimensions; the mean runs over rows and dimensions": error.square().mean() * d,
        "summed over rows and dimensions; the mean runs over both": error.square().sum(),
        "the target is x0 - x1: sign flipped, the samples would flow away from the data": (v + x1 - x0).square().mean(),
        "the target is x1: that trains a network to predict the data, not the velocity": (v - x1).square().mean(),
        "the target is x1 - xt: the rest of the way, not divided by the rest of the time": (v - x1 + x).square().mean(),
    }


def exercise_3a(training_loss: Any) -> Outcome:
    """The mended loss: what it asks the model, its value, its gradient and its random numbers; d = 2, 3 and 5."""
    name = "training_loss"
    for d in (2, 3, 5):
        generator = torch.Generator().manual_seed(d)
        x1 = 3 + 2 * torch.randn(20_000, d, generator=generator)
        model, again = _Recorder(d), _Recorder(d)
        names = ("model", "x1", "generator")
        loss = tried(name, training_loss, model, x1.clone(), torch.Generator().manual_seed(7), names=names)
        if isinstance(loss, Outcome):
            return loss
        if len(model.asked) != 1:
            return checks.holds(name, False, f"the model is asked {len(model.asked)} times; once is right")
        x, t = model.asked[0]
        if problem := _problem_of_draws(x, t, x1):
            return checks.holds(name, False, problem)
        with torch.no_grad():
            v, x0 = model(x, t), (x - t[:, None] * x1) / (1 - t[:, None]).clamp(min=1e-9)
        right, data = (v - (x1 - x0)).square().mean(), (v - x1).square().mean()
        given = loss.detach() if isinstance(loss, Tensor) else loss
        if not isinstance(given, Tensor):
            return checks.holds(name, False, "return a tensor, or nothing can be learned")
        if given.ndim == 0 and abs(float(given - data) - 1) < 0.05 < abs(float(given - right)):
            return checks.holds(name, False, "the noise in the target is not the noise in x_t: draw x0 once")
        if given.shape != right.shape or not abs(float(given / right) - 1) <= 2e-3:
            return checks.value(name, given, right, _mistakes_of_loss(v, x0, x1, x))
        if not loss.requires_grad:
            return checks.holds(name, False, "the loss has no gradient, so nothing is learned (detach, no_grad?)")
        (gradient,) = torch.autograd.grad(loss, model.weight)
        slope = 2 * x.T @ (v - (x1 - x0)) / x1.numel()
        if not torch.allclose(gradient, slope, rtol=2e-2, atol=1e-3 * float(slope.abs().max())):
            return checks.holds(name, False, "the value is right, its gradient is not: is a part detached?")
        repeated = training_loss(again, x1.clone(), torch.Generator().manual_seed(7))
        if float(repeated.detach()) != float(loss.detach()):
            return checks.holds(name, False, "the same generator gives another loss: draw all random numbers from it")
    return checks.holds(name, True, "")


def exercise_3b(learned: Any) -> Outcome:
    """What a network learns when the noise of the target is drawn anew."""
    hints = {
        "velocity": "the noise of the target would have to be the noise of x_t; it is independent of x_t here",
        "noise": "the new noise is independent of x_t, and its mean is zero: it leaves nothing to be learned",
        "zero": "the mean of the new noise is zero, that of x1 given x_t is not",
    }
    return checks.choice("learned", learned, "data", hints)


def _conditional_variance(t: Tensor, s: Tensor, rho: Tensor) -> Tensor:
    """Var(x1 - x0 | x_t), from the inverse of the covariance of (x_t, x1 - x0) itself."""
    t, s, rho = (torch.as_tensor(a, dtype=torch.float64) for a in (t, s, rho))
    one = torch.ones_like(t)
    mix = torch.stack([torch.stack([1 - t, t], dim=-1), torch.stack([-one, one], dim=-1)], dim=-2)
    both = torch.stack([torch.stack([one, rho * s], dim=-1), torch.stack([rho * s, s**2], dim=-1)], dim=-2)
    return 1 / torch.linalg.inv(mix @ both @ mix.mT)[..., 1, 1]  # one over an entry of the precision matrix


def exercise_4a(perfect_loss_at: Any) -> Outcome:
    """The irreducible loss of correlated Gaussian pairs, against the inverse of their covariance."""

    def spread(t: Tensor, s: Tensor, rho: Tensor) -> Tensor:
        return (1 - t) ** 2 + t**2 * s**2 + 2 * rho * t * (1 - t) * s

    mistakes = {
        "this is the variance of x1 - x0 when x_t is not known": lambda t, s, rho: 1 + s**2 - 2 * rho * s,
        "rho is left out: this is the value for independent pairs": lambda t, s, rho: (
            s**2 / ((1 - t) ** 2 + t**2 * s**2)
        ),
        "the numerator lacks 1 - rho^2": lambda t, s, rho: s**2 / spread(t, s, rho),
        "this is the variance of x1 given x_t; the target is x1 - x0": lambda t, s, rho: (
            (1 - t) ** 2 * s**2 * (1 - rho**2) / spread(t, s, rho)
        ),
        "this is the variance of x0 given x_t; the target is x1 - x0": lambda t, s, rho: (
            t**2 * s**2 * (1 - rho**2) / spread(t, s, rho)
        ),
    }
    generator = torch.Generator().manual_seed(4)
    cases = []
    for n in (6, 9):
        t, s, rho = torch.rand(3, n, generator=generator, dtype=torch.float64)
        cases.append((t, 0.4 + 2 * s, 1.8 * rho - 0.9))
    return checks.compare("perfect_loss_at", perfect_loss_at, _conditional_variance, cases, mistakes)


def exercise_4b(perfect_loss: Any) -> Outcome:
    """Its mean over the times for independent pairs, against an integral over 100,001 times."""

    def reference(s: float) -> Tensor:
        t = torch.linspace(0, 1, 100_001, dtype=torch.float64)
        return torch.trapezoid(_conditional_variance(t, torch.full_like(t, s), torch.zeros_like(t)), t)

    mistakes = {
        "a perfect network has the loss 0 only if x_t determines x0 and x1": lambda s: 0.0,
        "that is its value at t = 0; the loss is the mean over t": lambda s: s**2,
        "that is its value at t = 1/2; the loss is the mean over t": lambda s: 4 * s**2 / (1 + s**2),
        "that is the value for s = 1, for every s": lambda s: math.pi / 2,
        "a factor 2 is missing: z runs from 0 to infinity, and arctan to pi / 2": lambda s: math.pi * s / 4,
        "the factor s is lost at the bottom: one s remains on top": lambda s: math.pi / (2 * s),
    }
    return checks.compare("perfect_loss", perfect_loss, reference, [(0.4,), (1.0,), (2.5,)], mistakes)


def _tests_of(d: int) -> list[Callable[[Tensor], Tensor]]:
    """Test functions of places (B, d)."""
    direction = torch.linspace(-1, 1.5, d, dtype=torch.float64)
    return [
        lambda x: (x @ direction).sin(),
        lambda x: (-x.square().sum(dim=1) / 4).exp() + x[:, -1] ** 3,
        lambda x: x.prod(dim=1) - 2 * x[:, 0],
    ]


def _slope(phi: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor, h: float = 1e-5) -> Tensor:
    """The derivative of phi at x along a direction, by central differences."""
    return (phi(x + h * direction) - phi(x - h * direction)) / (2 * h)


def exercise_5a(rate: Any) -> Outcome:
    """Step 1: the rate of phi along the line of a pair, against finite differences in t."""

    def reference(phi: Callable[[Tensor], Tensor], x0: Tensor, x1: Tensor, t: Tensor, h: float = 1e-5) -> Tensor:
        ends = [phi((1 - s[:, None]) * x0 + s[:, None] * x1) for s in (t + h, t - h)]
        return (ends[0] - ends[1]) / (2 * h)

    mistakes = {
        "the gradient is taken at x1, not at x_t": lambda phi, x0, x1, t: _slope(phi, x1, x1 - x0),
        "the direction is x_t; it is the velocity of the pair": lambda phi, x0, x1, t: _slope(
            phi, (1 - t[:, None]) * x0 + t[:, None] * x1, (1 - t[:, None]) * x0 + t[:, None] * x1
        ),
        "this is phi(x1) - phi(x0), the change over the whole time": lambda phi, x0, x1, t: phi(x1) - phi(x0),
    }
    times = torch.linspace(0, 1, 6, dtype=torch.float64)
    cases = [(phi, *_normal(2, 6, d), times) for d in (2, 3, 5) for phi in _tests_of(d)]
    return checks.compare("rate", rate, reference, cases, mistakes)


def exercise_5b(mean_rate: Any) -> Outcome:
    """Step 2: the mean of that rate over the pairs that meet at x, against the mean over all data points."""

    def reference(phi: Callable[[Tensor], Tensor], x: Tensor, t: float, points: Tensor) -> Tensor:
        rows = []
        for place in x:
            starts = (place - t * points) / (1 - t)
            chances = torch.distributions.Normal(0.0, 1.0).log_prob(starts).sum(dim=1)
            rates = _slope(phi, place.expand_as(points), points - starts)
            rows.append((torch.softmax(chances, dim=0) * rates).sum())
        return torch.stack(rows)

    def plain(phi: Callable[[Tensor], Tensor], x: Tensor, t: float, points: Tensor) -> Tensor:
        return torch.stack([_slope(phi, x, (p - x) / (1 - t)) for p in points]).mean(dim=0)

    mistakes = {
        "all pairs have the same weight; those that meet at x have the weights w_i(x, t)": plain,
        "the direction is minus u*: sign flipped": lambda phi, x, t, p: -reference(phi, x, t, p),
    }
    dimensions = ((2, 0.3), (3, 0.6), (5, 0.45))
    cases = [(phi, _normal(4, d), t, _normal(7, d) - 0.5) for d, t in dimensions for phi in _tests_of(d)]
    return checks.compare("mean_rate", mean_rate, reference, cases, mistakes)


def exercise_5c(rate_of_square: Any) -> Outcome:
    """Step 3: the rate of the mean square, against that of pairs whose second moments are exact."""

    def reference(t: float, points: Tensor) -> Tensor:
        time = torch.tensor(t, dtype=torch.float64, requires_grad=True)
        n, d = points.shape
        # Pairs of each data point with plus and minus sqrt(d) on every axis: the moments of a standard Gaussian.
        starts = math.sqrt(d) * torch.cat([torch.eye(d), -torch.eye(d)]).to(points)
        x0, x1 = starts.repeat(n, 1), points.repeat_interleave(2 * d, dim=0)
        mean = ((1 - time) * x0 + time * x1).square().sum(dim=1).mean()
        return torch.autograd.grad(mean, time)[0]

    def square(points: Tensor) -> float:
        return float(points.square().sum(dim=1).mean())

    mistakes = {
        "E |x0|^2 is d, not 1": lambda t, p: -2 * (1 - t) + 2 * t * square(p),
        "the part of the noise is missing: -2 (1 - t) d": lambda t, p: 2 * t * square(p),
        "this is the mean square itself, not its rate": lambda t, p: (1 - t) ** 2 * p.shape[1] + t**2 * square(p),
    }
    sizes = ((0.3, 5, 2, 1.0), (0.5, 8, 3, 2.0), (0.8, 6, 5, 0.5))
    cases = [(t, 1 + scale * _normal(n, d)) for t, n, d, scale in sizes]
    return checks.compare("rate_of_square", rate_of_square, reference, cases, mistakes)


def _measured(loss_of: Any, measure_times: Any, ways: dict[str, Any], batch: int, seed: int) -> Tensor | Outcome:
    """Mean, spread and repeats of each way (ways, 3), or what is wrong with the measurement, which has been said."""
    name, rows = "measure_times", []
    found = tried(name, measure_times, loss_of, ways, batch, seed, names=("loss_of", "ways", "batch", "seed"))
    if isinstance(found, Outcome):
        return found
    if not isinstance(found, dict) or set(found) != set(ways):
        return checks.holds(name, False, f"return a dictionary with an entry for each of {', '.join(ways)}")
    for way in ways:
        row = numbers(found[way])
        if row is None or len(row) != 3 or row[1] <= 0:
            return checks.holds(name, False, f"the entry of {way} must be (mean, spread, repeats), the spread above 0")
        if row[2] < 200:
            return checks.holds(name, False, f"{way}: {int(row[2])} repeats; 200 are needed to know a spread to 5%")
        rows.append(row)
    return torch.stack(rows)


def exercise_6(measure_times: Any, ranking: Any, loss_of: Any, ways: dict[str, Any]) -> Outcome:
    """The measurements on a loss whose mean and spread are known; then whether they support the ranking."""
    name, batch = "measure_times", 16

    def known(t: Tensor, generator: torch.Generator) -> Tensor:
        """4 t plus noise: the mean is 2, and the variance of 4 t is 16 / 12."""
        return (4 * t + torch.randn(len(t), generator=generator)).mean()

    def mirrored(n: int, generator: torch.Generator) -> Tensor:
        """Times with their mirror images: all of the variance of 4 t is removed."""
        half = torch.rand(n // 2, generator=generator)
        return torch.cat([half, 1 - half])

    controls, tables = {**ways, "mirrored": mirrored}, []
    for seed in (0, 0, 1):
        if isinstance(table := _measured(known, measure_times, controls, batch, seed), Outcome):
            return table
        tables.append(table)
    variance = {"independent": (16 / 12 + 1) / batch, "one for all": 16 / 12 + 1 / batch}
    for way, (mean, spread, repeats) in zip(controls, tables[0].tolist(), strict=True):
        right = math.sqrt(variance.get(way, 1 / batch))
        if abs(spread / right - 1) > 0.25:
            words = f"{way}: on a loss with a known spread of {right:.3f} yours is {spread:.3f}"
            return checks.holds(name, False, f"{words}: take the standard deviation of the losses of whole batches")
        if abs(mean - 2) > 5 * right / math.sqrt(repeats):
            return checks.holds(name, False, f"{way}: on a loss with the mean 2 yours is {mean:.3f}")
    if not torch.equal(tables[0], tables[1]):
        return checks.holds(name, False, "the same seed gives other numbers: make one generator from the seed")
    if torch.equal(tables[0], tables[2]):
        return checks.holds(name, False, "another seed gives the same numbers: the seed is not used")
    checks.holds(name, True, "")
    if ranking is None or ranking is Ellipsis:
        return checks.holds("ranking", ranking, "")
    if not isinstance(ranking, list | tuple) or sorted(map(str, ranking)) != sorted(ways):
        return checks.holds("ranking", False, f"list the names {', '.join(ways)}, the least noisy first")
    if isinstance(table := _measured(loss_of, measure_times, ways, 64, 2), Outcome):
        return table
    spreads = dict(zip(ways, table[:, 1].tolist(), strict=True))
    said = ", ".join(f"{way} {spread:.3f}" for way, spread in spreads.items())
    supported = list(ranking) == sorted(ways, key=lambda way: spreads[way])
    return checks.holds("ranking", supported, f"your own measurement says otherwise: spreads {said}")
