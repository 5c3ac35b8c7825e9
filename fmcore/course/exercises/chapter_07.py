"""The judges of the exercises to chapter 07, the closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from fmcore.course import checks
from fmcore.course.checks import Outcome
from fmcore.course.exercises import measurements, memory

_Formula = Callable[..., Any]
_SAME = 0.03  # collapse times that differ by less are called equal


def _normal(seed: int, *shape: int) -> Tensor:
    """The same normal numbers at every call, in double precision."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _without_nan(function: Any) -> Any:
    """The same function with -1e6 in the place of NaN, so that a check can say what a NaN comes from."""

    def inner(*arguments: Any) -> Any:
        result = function(*arguments)
        return result.nan_to_num(nan=-1e6) if isinstance(result, Tensor) else result

    return inner if callable(function) else function


def _all_without_nan(mistakes: dict[str, _Formula]) -> dict[str, _Formula]:
    return {words: _without_nan(wrong) for words, wrong in mistakes.items()}


def exercise_1(weight_of_a: Any) -> Outcome:
    """The weight of one of two points, against the two densities; in 2, 3 and 5 dimensions, near and far."""

    def reference(x: Tensor, a: Tensor, b: Tensor, alpha: float, sigma: float) -> Tensor:
        log_density = torch.stack([-(x - alpha * p).square().sum(dim=1) / (2 * sigma**2) for p in (a, b)])
        return torch.softmax(log_density, dim=0)[0]

    def inside(formula: Callable[[Tensor, Tensor, float, float], Tensor]) -> _Formula:
        """A sigmoid of m = <x, a - b> and l = |a|^2 - |b|^2, for a formula of m, l, alpha and sigma."""
        return lambda x, a, b, alpha, sigma: torch.sigmoid(formula(x @ (a - b), a @ a - b @ b, alpha, sigma))

    mistakes = {
        "this is the weight of b: sign flipped": inside(lambda m, q, A, S: (A * A * q / 2 - A * m) / S**2),
        "the second term is missing: a and b may have different lengths": inside(lambda m, q, A, S: A * m / S**2),
        "the second term has the wrong sign: the longer point needs more evidence": inside(
            lambda m, q, A, S: (A * m + A * A * q / 2) / S**2
        ),
        "the factor 1/2 of the second term is missing": inside(lambda m, q, A, S: (A * m - A * A * q) / S**2),
        "forgot alpha: the points stand at alpha a and alpha b": inside(lambda m, q, A, S: (m - q / 2) / S**2),
        "alpha is not squared in the second term": inside(lambda m, q, A, S: (A * m - A * q / 2) / S**2),
        "sigma is not squared: the variance belongs there": inside(lambda m, q, A, S: (A * m - A * A * q / 2) / S),
        "the sigmoid is missing: this is the difference of the exponents": lambda x, a, b, A, S: torch.logit(
            reference(x, a, b, A, S)
        ),
    }
    cases = []
    for n, d, alpha, sigma in ((5, 2, 0.41, 0.91), (4, 3, 0.77, 0.64), (6, 5, 0.58, 0.8), (2, 2, 0.3, 1.7)):
        cases.append((_normal(n, n, d), 1.5 * _normal(d, d), _normal(d + 9, d), alpha, sigma))
    if not (found := checks.compare("weight_of_a", weight_of_a, reference, cases, mistakes, rtol=1e-5, atol=1e-7)):
        return found
    far = [(900 * _normal(3, 8, 3), 40 * _normal(4, 3), 30 * _normal(5, 3), 0.97, 0.02)]
    return checks.compare("weight_of_a far from both", weight_of_a, reference, far, rtol=1e-5, atol=1e-7)


def exercise_2(borders: Any) -> Outcome:
    """Where the basins on a line begin and end, for points in any order and with any probabilities."""

    def reference(points: Tensor, p: Tensor) -> Any:
        return math.sqrt(2) * torch.erfinv(2 * p[points.argsort()].cumsum(dim=0)[:-1] - 1)

    def middles(points: Tensor, p: Tensor) -> Tensor:
        inner = points.sort().values
        return (inner[1:] + inner[:-1]) / 2

    normal = torch.distributions.Normal(0.0, 1.0)
    mistakes: dict[str, _Formula] = {
        "these are the places half way between neighbours: that would be the basins of the nearest point": middles,
        "the points are not sorted: add up the probabilities from the leftmost point on": lambda x, p: normal.icdf(
            p.cumsum(dim=0)[:-1]
        ),
        "these are probabilities of the noise to the left; at which place is that much of it to the left?": (
            lambda x, p: p[x.argsort()].cumsum(dim=0)[:-1]
        ),
        "the distribution function is applied; its inverse is needed": lambda x, p: normal.cdf(
            p[x.argsort()].cumsum(dim=0)[:-1]
        ),
        "all points are given the same probability": lambda x, p: reference(x, torch.full_like(p, 1 / len(p))),
        "counted from the right": lambda x, p: reference(-x, p),
    }
    cases = []
    for n in (2, 3, 5, 8):
        p = torch.softmax(_normal(n, n), dim=0)
        cases.append((3 * _normal(n + 20, n) - 1, p))
    return checks.compare("borders", borders, reference, cases, mistakes, rtol=1e-4, atol=1e-5)


def _exponents(q: Tensor, rho: float, points: Tensor) -> Tensor:
    return rho * (points @ q) - 0.5 * rho**2 * points.square().sum(dim=1)


def _posterior_mean(q: Tensor, rho: float, points: Tensor, size: int) -> Tensor:
    return torch.softmax(_exponents(q, rho, points), dim=0) @ points


def _mistakes_of_running_mean() -> dict[str, _Formula]:
    def of_chunks(q: Tensor, rho: float, points: Tensor, size: int) -> Tensor:
        return torch.stack([_posterior_mean(q, rho, chunk, size) for chunk in points.split(size)])

    def old_sums(shrink_weight: bool, shrink_total: bool) -> _Formula:
        """The running softmax in which the old sums are scaled down or not."""

        def wrong(q: Tensor, rho: float, points: Tensor, size: int) -> Any:
            largest, weight, total = -math.inf, torch.zeros(()), torch.zeros(())
            for chunk in points.split(size):
                exponents = _exponents(q, rho, chunk)
                new = max(largest, float(exponents.max()))
                share, shrink = torch.exp(exponents - new), math.exp(largest - new)
                weight = weight * (shrink if shrink_weight else 1) + share.sum()
                total = total * (shrink if shrink_total else 1) + share @ chunk
                largest = new
            return total / weight

        return wrong

    def plain(q: Tensor, rho: float, points: Tensor, size: int) -> Tensor:
        share = _exponents(q, rho, points).exp()
        return (share @ points) / share.sum()

    return {
        "the old sums are not scaled down when a larger exponent comes": old_sums(False, False),
        "only the sum of the points is scaled down; the sum of the weights must be, too": old_sums(False, True),
        "only the sum of the weights is scaled down; the sum of the points must be, too": old_sums(True, False),
        "the largest exponent is not subtracted: exp overflows, infinity / infinity is NaN": plain,
        "this is the plain average of the means of the chunks; a chunk counts as much as its weights sum to": (
            lambda *a: of_chunks(*a).mean(dim=0)
        ),
        "this is the mean of the last chunk alone": lambda *a: of_chunks(*a)[-1],
        "this is the mean of the first chunk alone: is the return inside the loop?": lambda *a: of_chunks(*a)[0],
        "the sum of the weights is missing: divide by it at the end": lambda q, rho, p, size: (
            torch.exp(_exponents(q, rho, p) - _exponents(q, rho, p).max()) @ p
        ),
        "the bias of the keys, - rho^2 |x_i|^2 / 2, is missing": lambda q, rho, p, size: (
            torch.softmax(rho * p @ q, 0) @ p
        ),
        "the factor 1/2 of the bias is missing": lambda q, rho, p, size: (
            torch.softmax(rho * p @ q - rho**2 * p.square().sum(1), 0) @ p
        ),
    }


def exercise_3(running_mean: Any) -> Outcome:
    """The posterior mean from chunks that come by once, in memory that does not grow with their number."""

    def attempt(q: Tensor, rho: float, points: Tensor, size: int) -> Any:
        return running_mean(q, rho, iter([chunk.clone() for chunk in points.split(size)]))

    cases = []
    for n, d, rho, size in ((10, 2, 1.0, 4), (14, 3, 2.0, 4), (13, 5, 80.0, 3), (9, 3, 1.5, 1), (12, 2, 700.0, 5)):
        points = _normal(n + d, n, d)
        points = points[(points @ points[0]).argsort()]  # the best match comes late
        cases.append((_normal(n, d) + rho * points[-2], rho, points, size))
    cases.append((_normal(6, 3), 0.7, _normal(5, 8, 3).flip(0), 20))  # a single chunk
    written = callable(running_mean)
    name, mistakes = "running_mean", _all_without_nan(_mistakes_of_running_mean())
    given = _without_nan(attempt) if written else running_mean
    if not (found := checks.compare(name, given, _posterior_mean, cases, mistakes, rtol=1e-6, atol=1e-8)):
        return found

    def taken(count: int) -> tuple[int, int]:
        return memory.most(lambda: running_mean(_normal(1, 16), 0.3, memory.stream(count)))

    taken(20)  # what is made once, whatever the number of chunks
    few, many = taken(100), taken(500)
    grown = max(many[0] - few[0] - 4096, 0) + max(many[1] - few[1] - 60_000, 0)  # Python's own tables grow a little
    said = (
        f"100 chunks of 1 kB take {sum(few) / 1000:.0f} kB at a time and 500 chunks {sum(many) / 1000:.0f} kB: "
        "use each chunk, then let it go, and keep nothing else that grows"
    )
    return checks.holds("running_mean, memory", grown == 0, said)


def exercise_4(effective_number: Any) -> Outcome:
    """The mended effective number of images, for wide and narrow exponents, equal ones and a single one."""

    def reference(exponents: Tensor) -> Tensor:
        log_w = torch.log_softmax(exponents, dim=1)
        return torch.exp(-torch.where(log_w > -700, log_w.exp() * log_w, 0.0).sum(dim=1))

    def entropy(exponents: Tensor) -> Tensor:
        return reference(exponents).log()

    def raw(exponents: Tensor, dim: int = 1) -> Tensor:
        w = torch.softmax(exponents, dim=dim)
        return torch.exp(-(w * w.log()).sum(dim=1))

    def mixed(exponents: Tensor) -> Tensor:
        return torch.special.entr(torch.softmax(exponents, dim=0)).sum(dim=1)

    mistakes: dict[str, _Formula] = {
        "0 log 0 became NaN: use torch.log_softmax or torch.special.entr": raw,
        "this is the entropy: its exponential is missing": entropy,
        "the minus sign is missing: this is 1 / n_eff": lambda e: 1 / reference(e),
        "this is 1 / sum of w^2, another effective number, which is never larger": lambda e: (
            1 / torch.softmax(e, dim=1).square().sum(dim=1)
        ),
        "the entropy is in bits: 2 to its power, or the natural logarithm": lambda e: (entropy(e) / math.log(2)).exp(),
        "the softmax runs over the batch: over the images, dim=1": lambda e: mixed(e).exp(),
        "the softmax runs over the batch, and the entropy is in bits": lambda e: (mixed(e) / math.log(2)).exp(),
        "the softmax runs over the batch, and 0 log 0 became NaN": lambda e: raw(e, 0),
        "none of the three faults is mended": lambda e: (raw(e, 0).log() / math.log(2)).exp(),
        "all rows are mixed into one number": lambda e: entropy(e).mean().exp(),
    }
    cases = [
        (spread * _normal(n, B, n) + 1.5,) for B, n, spread in ((3, 7, 1.0), (4, 5, 900.0), (5, 20, 2.0), (2, 2, 0.0))
    ]
    cases.append((1000 * torch.eye(4, dtype=torch.float64)[:, :3] - 5000,))
    wrong = _all_without_nan(mistakes)
    return checks.compare("effective_number", _without_nan(effective_number), reference, cases, wrong, 1e-5, 1e-7)


def _squares(q: float, rho: float, m: float, lam: float, x: Tensor) -> Tensor:
    """What stands in the exponent at each x: noise and prior of one coordinate."""
    return (q - rho * x) ** 2 / 2 + (x - m) ** 2 / (2 * lam)


def exercise_5a(width: Any, rest: Any) -> Outcome:
    """Step 1: the completed square, against the curvature and the minimum of the exponent."""

    def curvature(rho: float, lam: float) -> float:
        left, middle, right = _squares(0.7, rho, -0.4, lam, torch.tensor([-1.0, 0.0, 1.0]).double()).tolist()
        return 1 / (left - 2 * middle + right)

    if not (found := checks.compare("width", width, curvature, [(0.5, 2.0), (1.7, 0.3), (3.0, 1.0)])):
        return found

    def minimum(q: float, rho: float, m: float, lam: float) -> float:
        left, middle, right = _squares(q, rho, m, lam, torch.tensor([-1.0, 0.0, 1.0]).double()).tolist()
        slope, bend = (right - left) / 2, left - 2 * middle + right
        return middle - slope**2 / (2 * bend)

    mistakes: dict[str, _Formula] = {
        "the mean of q is rho m, not m": lambda q, rho, m, lam: (q - m) ** 2 / (2 * (1 + rho**2 * lam)),
        "the variance of q is missing in the denominator: 1 + rho^2 lambda": lambda q, rho, m, lam: (
            (q - rho * m) ** 2 / 2
        ),
        "the noise is missing in the denominator: 1 + rho^2 lambda": lambda q, rho, m, lam: (
            (q - rho * m) ** 2 / (2 * rho**2 * lam)
        ),
    }
    cases = [(1.3, 0.5, -0.6, 2.0), (-2.0, 1.7, 0.8, 0.3), (4.0, 3.0, 1.0, 1.0), (0.2, 1.2, 3.0, 0.05)]
    return checks.compare("rest", rest, minimum, cases, mistakes)


def _log_integral(q: Tensor, rho: float, m: Tensor, lam: Tensor) -> Tensor:
    """Log E_x exp(-|q - rho x|^2 / 2) for independent normal coordinates, by sums over a fine grid."""
    z = torch.linspace(-14, 14, 20_001, dtype=torch.float64)
    x = m[:, None] + lam.sqrt()[:, None] * z
    terms = -z.square() / 2 - math.log(2 * math.pi) / 2 - (q[:, None] - rho * x) ** 2 / 2
    return (torch.logsumexp(terms, dim=1) + math.log(float(z[1] - z[0]))).sum()


def _log_evidence(rho: float, lam: Tensor) -> Tensor:
    return torch.log1p(rho**2 * lam).sum() / 2


def exercise_5b(log_mean_weight: Any) -> Outcome:
    """Step 2: the logarithm of the mean weight, against sums over a grid; d = 2, 3 and 5."""
    mistakes: dict[str, _Formula] = {
        "the factor sqrt(v / lambda) of each coordinate is missing": lambda q, rho, m, lam: (
            _log_integral(q, rho, m, lam) + _log_evidence(rho, lam)
        ),
        "log sqrt(v / lambda) is -log(1 + rho^2 lambda) / 2: the 1/2 is missing": lambda q, rho, m, lam: (
            _log_integral(q, rho, m, lam) - _log_evidence(rho, lam)
        ),
        "the means are left out": lambda q, rho, m, lam: _log_integral(q, rho, 0 * m, lam),
        "this is the mean weight itself: its logarithm is asked": lambda *a: _log_integral(*a).exp(),
    }
    cases = [
        (2 * _normal(d, d), rho, _normal(d + 30, d), 0.1 + 2 * _normal(d + 40, d) ** 2)
        for d, rho in ((2, 0.5), (3, 1.4), (5, 0.9), (2, 2.0))
    ]
    return checks.compare("log_mean_weight", log_mean_weight, _log_integral, cases, mistakes)


def exercise_5c(collapse_time: Any) -> Outcome:
    """Step 3: the time at which the mean log-ratio is log n, measured with quadrature over x_0 and x_1."""

    def mean_log_ratio(rho: float, lam: Tensor) -> float:
        z = torch.linspace(-9, 9, 201, dtype=torch.float64)
        chance = torch.softmax(-z.square() / 2, dim=0)
        v = (1 + rho**2 * lam)[:, None]
        q = v.sqrt() * z  # x0 + rho x1 is normal with this variance
        log_mean = -q.square() / (2 * v) - v.log() / 2
        return float(((-z.square() / 2 - log_mean) @ chance).sum())

    def when(n: float, lam: Tensor, ratio: Callable[[float, Tensor], float] = mean_log_ratio) -> float:
        low, high = 0.0, 1.0
        for _ in range(30):
            t = (low + high) / 2
            low, high = (t, high) if ratio(t / (1 - t), lam) < math.log(n) else (low, t)
        return low

    mistakes: dict[str, _Formula] = {
        "this is rho; the time is rho / (1 + rho)": lambda n, lam: when(n, lam) / (1 - when(n, lam)),
        "the factor 1/2 of the evidence is missing": lambda n, lam: when(n**0.5, lam),
        "all directions were given the mean variance": lambda n, lam: when(n, lam.mean().expand_as(lam)),
        "lambda is a variance; it is squared here": lambda n, lam: when(n, lam**2),
        "the square root of lambda stands where the variance belongs": lambda n, lam: when(n, lam.sqrt()),
        "the sum of rho^2 lambda / 2 is its approximation for small rho": lambda n, lam: when(
            n, lam, lambda rho, lam: float(rho**2 * lam.sum() / 2)
        ),
    }
    variances = [torch.ones(16), 0.25 * torch.ones(64), 0.1 + 3 * _normal(3, 5) ** 2, 2.0 ** -torch.arange(12)]
    cases = [(n, lam.double()) for n, lam in zip((1000, 50_000, 20, 300), variances, strict=True)]
    return checks.compare("collapse_time", collapse_time, when, cases, mistakes, rtol=1e-4, atol=1e-5)


def _collapse_time(points: Tensor, generator: torch.Generator, count: int = 300) -> float:
    """The time at which the median posterior weight of the true point is one half."""
    own = torch.randint(len(points), (count,), generator=generator)
    inner = torch.randn(count, points.shape[1], generator=generator, dtype=torch.float64) @ points.T
    gaps, squares = inner - inner.gather(1, own[:, None]), torch.cdist(points[own], points).square()
    low, high = 0.0, 1.0
    for _ in range(10):
        t = (low + high) / 2
        rho = t / (1 - t)
        weight = torch.exp(-torch.logsumexp(rho * gaps - rho**2 * squares / 2, dim=1)).median()
        low, high = (low, t) if weight > 0.5 else (t, high)
    return low


@cache
def _clouds() -> dict[str, tuple[Tensor, float, float]]:
    """Points (n, d), their collapse time and that of Gaussian points with the same mean and covariance."""
    mix, centres = _normal(50, 8, 8) / 3, 3 * _normal(51, 12, 6)
    clouds = {
        "Gaussian": _normal(52, 300, 8) @ mix + 0.5,
        "clusters": centres.repeat(25, 1) + 0.1 * _normal(53, 300, 6),
        "long": _normal(54, 200, 5) * torch.tensor([3.0, 2.0, 0.5, 0.5, 0.1]),
    }
    found = {}
    for name, points in clouds.items():
        generator = torch.Generator().manual_seed(60)
        root = torch.linalg.cholesky(torch.cov(points.T))
        normal = [torch.randn(points.shape, generator=generator, dtype=torch.float64) @ root.T for _ in range(4)]
        data, control = (sum(_collapse_time(one, generator) for one in sets) / 4 for sets in ([points] * 4, normal))
        found[name] = points, data, control
    return found


def exercise_6(experiment: Any) -> Outcome:
    """Collapse times of data and of a control: reproducible, equal to our own, and the verdict that they support."""
    keys = ("data", "control", "verdict")
    runs: list[dict[str, Any]] = []
    for name, (points, alone, control) in _clouds().items():
        for seed in (1, 1, 2) if name == "Gaussian" else (3,):
            found = measurements.report(experiment, (points.clone(), seed), keys)
            if isinstance(found, Outcome):
                return found
            for key, own in (("data", alone), ("control", control)):
                times = measurements.numbers(found[key])
                if times is None or len(times) < 5 or bool(((times <= 0) | (times >= 1)).any()):
                    said = f"{key!r} must hold at least five collapse times, each between 0 and 1"
                    return checks.holds("experiment", False, said)
                if len(times.unique()) == 1:
                    said = f"{key!r}: all repeats are equal; use new pairs (and a new control) for each"
                    return checks.holds("experiment", False, said)
                if abs(float(times.mean()) - own) > _SAME:
                    said = f"{name}, {key!r}: your mean is {float(times.mean()):.3f}, ours {own:.3f}"
                    return checks.holds(
                        "experiment", False, f"{said}; does the control share number, mean, covariance?"
                    )
            runs.append(found)
    if problem := measurements.repeated(runs, keys[:2], [["data"]], "times; draw new pairs"):
        return checks.holds("experiment", False, problem)
    outcome = checks.holds("experiment", True, "")
    for found in runs:
        means = [float(torch.as_tensor(found[key]).double().mean()) for key in keys[:2]]
        difference = means[0] - means[1]
        right = "no difference" if abs(difference) <= _SAME else "later" if difference > 0 else "earlier"
        if found["verdict"] != right:
            said = f"in your own numbers the data collapse at {means[0]:.3f} and the control at {means[1]:.3f}"
            return checks.holds("verdict", False, said)
    return outcome
