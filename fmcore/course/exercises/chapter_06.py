"""The judges of the exercises to chapter 06, images."""

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
_REFERENCE, _REPEATS = 2000, 60  # of our own measurement of a Fréchet distance


def _normal(seed: int, *shape: int) -> Tensor:
    """The same normal numbers at every call, in double precision."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _uniform(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exercise_1(to_points: Any, to_levels: Any) -> Outcome:
    """Points in their bins, and the bin of any number; 2 to 256 levels, numbers outside of [-1, 1] as well."""
    mistakes: dict[str, _Formula] = {
        "there is no noise: y is the lower edge of each bin": lambda k, u, n: 2 / n * k - 1,
        "there is no noise: y is the middle of each bin": lambda k, u, n: 2 / n * (k + 0.5) - 1,
        "the bins are too wide: L levels make L bins, not L - 1": lambda k, u, n: 2 / (n - 1) * (k + u) - 1,
        "the bins are too wide (L levels make L bins), and the noise spans half of a bin": (
            lambda k, u, n: 2 * k / (n - 1) - 1 + u / n
        ),
        "the bins are right, and the noise spans half of a bin: every second half stays empty": (
            lambda k, u, n: 2 * k / n - 1 + u / n
        ),
        "the noise is right, but the lower edges are those of L - 1 bins": lambda k, u, n: (
            2 * k / (n - 1) - 1 + 2 * u / n
        ),
        "256 levels are taken for granted; the number of levels is an argument": lambda k, u, n: (k + u) / 128 - 1,
        "the noise is added after the scaling, so it spans half of [-1, 1]; it must span one bin": (
            lambda k, u, n: 2 / n * k - 1 + u
        ),
        "the bins fill [0, 1]; they must fill [-1, 1]": lambda k, u, n: (k + u) / n,
        "the bins fill [0, 2]: the - 1 is missing": lambda k, u, n: 2 / n * (k + u),
        "the noise is centred: y moves down by half a bin, below -1": lambda k, u, n: 2 / n * (k + u - 0.5) - 1,
        "the noise is subtracted: y lies in the bin below": lambda k, u, n: 2 / n * (k - u) - 1,
    }

    def points(k: Tensor, u: Tensor, levels: int) -> Tensor:
        edges = torch.linspace(-1, 1, levels + 1, dtype=u.dtype)
        return torch.lerp(edges[:-1][k], edges[1:][k], u)

    generator = torch.Generator().manual_seed(1)
    cases: list[tuple[Any, ...]] = []
    for levels, shape in ((17, (3, 4)), (4, (2, 1, 3, 3)), (256, (40,)), (2, (6, 2))):
        noise = torch.rand(shape, generator=generator, dtype=torch.float64)
        cases.append((torch.randint(levels, shape, generator=generator), noise, levels))
    if not (found := checks.compare("to_points", to_points, points, cases, mistakes, rtol=1e-5, atol=1e-6)):
        return found

    def bins(y: Tensor, levels: int) -> Tensor:
        inner = torch.linspace(-1, 1, levels + 1, dtype=y.dtype)[1:-1]
        return torch.bucketize(y, inner, right=True)

    def scaled(y: Tensor, n: int) -> Tensor:
        return (y + 1) / 2 * n

    mistakes = {
        "rounded to the nearest edge; ask which bin y lies in": lambda y, n: scaled(y, n).round().clamp(0, n - 1),
        "rounded among L - 1 bins": lambda y, n: scaled(y, n - 1).round().clamp(0, n - 1),
        "rounded among L - 1 bins, and numbers outside of [-1, 1] get levels that do not exist": (
            lambda y, n: scaled(y, n - 1).round()
        ),
        "right inside of [-1, 1]; numbers outside get levels that do not exist": lambda y, n: scaled(y, n).floor(),
        "right inside of [-1, 1], but levels outside do not exist (the fraction is cut off toward zero)": (
            lambda y, n: scaled(y, n).trunc()
        ),
    }
    cases = [
        (torch.cat([3 * _uniform(n, 40) - 1.5, torch.tensor([-1.0, 1.0, -7.0, 90.0]).double()]), n) for n in (2, 17)
    ]
    cases += [(2.4 * _uniform(3, 2, 1, 5, 5) - 1.2, 256), (torch.linspace(-1, 1, 9).double(), 4)]
    return checks.compare("to_levels", to_levels, bins, cases, mistakes)


def exercise_2(bits_per_dim: Any) -> Outcome:
    """Bits/dim from the log-density of standardized pixels, against the mass of the box in their coordinates."""

    def reference(log_density: Tensor, s: Tensor, levels: int) -> Tensor:
        sides = 2 / levels / s  # of the box of an image, after y is divided by s
        return -(log_density + sides.log().sum()) / math.log(2) / len(s)

    def plain(p: Tensor, s: Tensor, n: int) -> Tensor:
        return -p / (len(s) * math.log(2)) + math.log2(n / 2)

    mistakes: dict[str, _Formula] = {
        "s is not used: this is right for a density on the scale [-1, 1]": plain,
        "the sign of log s is flipped: where s is small, the density of z is smaller than that of y": (
            lambda p, s, n: plain(p, s, n) - s.log2().mean()
        ),
        "log s is in nats: divide by ln 2": lambda p, s, n: plain(p, s, n) + s.log().mean(),
        "the sum of log s is not divided by d": lambda p, s, n: plain(p, s, n) + s.log2().sum(),
        "the logarithm of the mean of s; each pixel has its own factor": lambda p, s, n: (
            plain(p, s, n) + s.mean().log2()
        ),
        "the constant log2(L / 2) is missing": lambda p, s, n: reference(p, s, n) - math.log2(n / 2),
        "the sign of the constant is flipped": lambda p, s, n: reference(p, s, n) - 2 * math.log2(n / 2),
        "the constant is log2(L), for bins on [0, 1]; here they fill [-1, 1]": lambda p, s, n: reference(p, s, n) + 1,
        "the minus sign of the log-density is missing": lambda p, s, n: plain(-p, s, n) + s.log2().mean(),
        "this is nats/dim: the change to bits, 1 / ln 2, is missing": lambda p, s, n: reference(p, s, n) * math.log(2),
        "the density is still in nats": lambda p, s, n: -p / len(s) + math.log2(n / 2) + s.log2().mean(),
        "these are bits of the whole image; divide by d": lambda p, s, n: reference(p, s, n) * len(s),
    }
    cases = [
        (200 * _normal(d, 5) - 60, 0.05 + 3 * _uniform(d, d) ** 2, n) for d, n in ((64, 17), (3, 256), (5, 8), (2, 2))
    ]
    return checks.compare("bits_per_dim", bits_per_dim, reference, cases, mistakes, rtol=1e-5)


def _log_mean(p: Tensor) -> Tensor:
    """The logarithm of the mean of exponentials over the first axis, with the largest taken out of each column."""
    largest = p.amax(dim=0)
    return largest + (p - largest).exp().mean(dim=0).log()


def _draws() -> list[tuple[Tensor]]:
    """Log-densities (K, n): around 0; far below and far above; images a thousand apart; one draw far above the rest."""
    some = [level + 2 * _normal(K, K, n) for K, n, level in ((3, 4, 0.0), (10, 3, -5000.0), (5, 6, 5000.0))]
    apart = 2 * _normal(7, 4, 5) + 1000 * torch.arange(-2, 3)
    alone = _normal(8, 6, 3)
    alone[2] += 1000
    return [(one,) for one in (*some, apart, alone, _normal(9, 2, 2))]


def exercise_3a(log_mean: Any) -> Outcome:
    """Step 1: the logarithm of a mean, whatever the size of the densities."""
    mistakes = {
        "this is the mean of the logarithms, the bound of one draw; the mean belongs inside the logarithm": (
            lambda p: p.mean(dim=0)
        ),
        "exp overflows (or underflows to 0) before the logarithm: use torch.logsumexp": lambda p: (
            p.exp().mean(dim=0).log()
        ),
        "forgot log K: this is the logarithm of the sum, not of the mean": lambda p: torch.logsumexp(p, dim=0),
        "log K is added; a mean is smaller than the sum": lambda p: torch.logsumexp(p, dim=0) + math.log(len(p)),
        "divided by K outside of the logarithm; that is a subtraction of log K": lambda p: (
            torch.logsumexp(p, dim=0) / len(p)
        ),
        "this is the largest of the draws": lambda p: p.amax(dim=0),
        "the mean runs over the images: the draws are the first axis": lambda p: (
            torch.logsumexp(p, dim=1) - math.log(p.shape[1])
        ),
        "divided by the number of images, not of draws": lambda p: torch.logsumexp(p, dim=0) - math.log(p.shape[1]),
        "all images are mixed: keep one value for each": lambda p: (
            torch.logsumexp(p.flatten(), 0) - math.log(p.numel())
        ),
    }
    mistakes["one maximum is taken out for all images: those far below it are lost; take out that of each image"] = (
        lambda p: p.max() + (p - p.max()).exp().mean(dim=0).log()
    )
    return _compare("log_mean", log_mean, _log_mean, mistakes)


def _compare(
    name: str, attempt: Any, reference: Callable[..., Any], mistakes: dict[str, Callable[..., Any]]
) -> Outcome:
    """Compare on all draws, with a large number in the place of infinity and NaN, so that their cause can be said."""

    def finite(function: Any) -> Any:
        def inner(p: Tensor) -> Any:
            result = function(p)
            return result.nan_to_num(nan=9e8, posinf=9e8, neginf=-9e8) if isinstance(result, Tensor) else result

        return inner if callable(function) else function

    wrong = {words: finite(one) for words, one in mistakes.items()}
    return checks.compare(name, finite(attempt), reference, _draws(), wrong, rtol=1e-9, atol=1e-5)


def _others(p: Tensor) -> Tensor:
    """For each draw, the log-mean of all others."""
    return torch.stack([_log_mean(torch.cat([p[:j], p[j + 1 :]])) for j in range(len(p))])


def exercise_3b(without_each: Any) -> Outcome:
    """Step 2: the log-means of all draws but one."""
    mistakes = {
        "the sum of the others is divided by K; there are K - 1 of them": lambda p: (
            _others(p) + math.log((len(p) - 1) / len(p))
        ),
        "this is the sum of the others: log(K - 1) is missing": lambda p: _others(p) + math.log(len(p) - 1),
        "each draw is still among its own others": lambda p: _log_mean(p).expand_as(p),
        "where one draw is nearly all of the sum, taking it out again leaves only rounding": lambda p: (
            p.amax(dim=0) + (((p - p.amax(dim=0)).exp().sum(dim=0) - (p - p.amax(dim=0)).exp()) / (len(p) - 1)).log()
        ),
        "the mean of the logarithms of the others; the logarithm is taken of their mean": lambda p: (
            (p.sum(dim=0) - p) / (len(p) - 1)
        ),
    }
    return _compare("without_each", without_each, _others, mistakes)


def exercise_3c(gain: Any) -> Outcome:
    """Step 3: what one more draw adds, which is never negative."""
    mistakes = {
        "the logarithm of the mean of the K means is log_mean itself: take the mean of the logarithms": (
            lambda p: _log_mean(_others(p)) - _log_mean(p)
        ),
        "the difference to K = 1, not to K - 1 draws": lambda p: _log_mean(p) - p.mean(dim=0),
    }
    return checks.compare("gain", gain, lambda p: _log_mean(p) - _others(p).mean(dim=0), _draws(), mistakes, 1e-7, 1e-7)


def exercise_3d(fall: Any) -> Outcome:
    """Step 4: the fall in bits/dim for normal log-densities, against a numerical integral."""

    def reference(s: float, d: int) -> float:
        z = torch.linspace(-40, 40, 40_001, dtype=torch.float64)
        log_terms = -z.square() / 2 - math.log(2 * math.pi) / 2 + s * z + math.log(float(z[1] - z[0]))
        return float(torch.logsumexp(log_terms, 0)) / (d * math.log(2))

    mistakes: dict[str, _Formula] = {
        "this is in nats: divide by ln 2": lambda s, d: s**2 / (2 * d),
        "these are bits of an image; divide by d": lambda s, d: s**2 / (2 * math.log(2)),
        "the factor 1/2 of the exponent is missing": lambda s, d: s**2 / (d * math.log(2)),
        "s is not squared": lambda s, d: s / (2 * d * math.log(2)),
        "bits/dim fall by a positive number": lambda s, d: -(s**2) / (2 * d * math.log(2)),
    }
    return checks.compare("fall", fall, reference, [(1.0, 64), (5.3, 3072), (0.4, 3), (12.0, 5)], mistakes)


def exercise_4a(loss_at_start: Any) -> Outcome:
    """The loss of the exact velocity at t = 0, against a mean over images and places in the bin."""

    def reference(k: Tensor, levels: int, places: int = 400) -> Tensor:
        u = (torch.arange(places, dtype=torch.float64) + 0.5) / places
        y = 2 / levels * (k.double()[..., None] + u) - 1  # (n, d, places)
        best = y.mean(dim=(0, 2), keepdim=True)
        return (y - best).square().mean()

    def spread(k: Tensor, levels: int, mean_of: int | tuple[int, int] = 0) -> Tensor:
        y = 2 / levels * k.double()
        return (y - y.mean(dim=mean_of, keepdim=True)).square().mean()

    mistakes = {
        "the noise of dequantization is missing: its variance is Delta^2 / 12": lambda k, n: spread(k, n),
        "these levels are not scaled: a bin has the width 2 / L": lambda k, n: reference(k, n) * n**2 / 4,
        "the noise of dequantization is not scaled: a bin has the width 2 / L": lambda k, n: spread(k, n) + 1 / 12,
        "the variance of a uniform number on [0, Delta] is Delta^2 / 12": lambda k, n: spread(k, n) + (2 / n) ** 2 / 3,
        "one mean for all pixels: the best answer knows the mean image": lambda k, n: (
            spread(k, n, (0, 1)) + (2 / n) ** 2 / 12
        ),
        "the variance of x0 is in it: at t = 0 the network sees x0": lambda k, n: reference(k, n) + 1,
        "summed over the pixels; the loss is a mean over them": lambda k, n: reference(k, n) * k.shape[1],
        "the variances are divided by n - 1; each image has probability 1/n": lambda k, n: (
            spread(k, n) * len(k) / (len(k) - 1) + (2 / n) ** 2 / 12
        ),
    }
    generator = torch.Generator().manual_seed(4)
    sizes = ((6, 2, 17), (5, 3, 256), (9, 5, 2), (4, 3, 3))
    cases = [(torch.randint(levels, (n, d), generator=generator), levels) for n, d, levels in sizes]
    return checks.compare("loss_at_start", loss_at_start, reference, cases, mistakes, rtol=1e-4, atol=1e-6)


def exercise_4b(end_with_noise: Any, end_without_noise: Any) -> Outcome:
    """The limits of that loss near t = 1."""
    wrong = {
        "x1 is nearly known from x_t, but x1 - x0 = (x_t - x0) / t needs x0: what does x_t say about it in a bin?": 0.0,
        "x_t says nearly all about x1; the target is (x_t - x0) / t": 2.0,
    }
    if not (found := checks.value("end_with_noise", end_with_noise, 1.0, wrong)):
        return found
    wrong = {"without noise x1 is one of n points, and x_t near t = 1 says which: then x0 is known, too": 1.0}
    return checks.value("end_without_noise", end_without_noise, 0.0, wrong)


def exercise_5(velocity: Any) -> Outcome:
    """The velocity of a noise predictor whose time runs the other way; two models, three paths, d = 2, 3 and 5."""
    from fmcore import paths

    def bent(x: Tensor, s: Tensor) -> Tensor:
        return torch.sin(2 * x) + s[:, None]

    def steep(x: Tensor, s: Tensor) -> Tensor:
        return (1 + s[:, None]) ** 3 * x.roll(1, dims=1) - 0.4

    def with_noise(noise_of: _Formula, sign: float = 1.0) -> _Formula:
        """From the data that x and the noise stand for, and the derivative of the path through both."""

        def right(model: Any, path: Any, x: Tensor, t: Tensor) -> Tensor:
            e, c = noise_of(model, path, x, t), t[:, None]
            return path.d_alpha(c) * (x - sign * path.sigma(c) * e) / path.alpha(c) + path.d_sigma(c) * e

        return right

    def there(model: Any, path: Any, x: Tensor, t: Tensor) -> Tensor:
        noise: Tensor = model(x, 1 - t)
        return noise

    def unturned(model: Any, path: Any, x: Tensor, t: Tensor) -> Tensor:
        noise: Tensor = model(x, t)
        return noise

    reference = with_noise(there)
    mistakes: dict[str, _Formula] = {
        "the model still gets t; its own time is s = 1 - t": with_noise(unturned),
        "the noise is still added where it must be taken out": with_noise(there, -1),
        "neither of the two faults is mended": with_noise(unturned, -1),
        "the path is asked at s = 1 - t; only the model uses that time": lambda f, path, x, t: with_noise(unturned)(
            f, path, x, 1 - t
        ),
        "the sign of the noise is flipped, as if the network predicted the score times sigma": with_noise(
            lambda f, path, x, t: -there(f, path, x, t)
        ),
        "the prediction is taken for a score; the model predicts noise": with_noise(
            lambda f, path, x, t: -path.sigma(t[:, None]) * there(f, path, x, t)
        ),
        "that is the noise itself; it must be turned into a velocity": there,
        "alpha' stands without being divided by alpha": lambda f, path, x, t: (
            path.d_alpha(t)[:, None] * (x - path.sigma(t)[:, None] * there(f, path, x, t))
            + path.d_sigma(t)[:, None] * there(f, path, x, t)
        ),
        "x1 - x0 is the velocity of the straight path only": lambda f, path, x, t: (
            (x - path.sigma(t)[:, None] * there(f, path, x, t)) / path.alpha(t)[:, None] - there(f, path, x, t)
        ),
    }
    cases = []
    ways = ((paths.variance_preserving(), bent, 4, 2), (paths.cosine(), steep, 5, 3), (paths.ot(0.1), bent, 3, 5))
    for path, model, n, d in (*ways, (paths.variance_preserving(), steep, 2, 2)):
        cases.append((model, path, 2 * _normal(n, n, d), 0.15 + 0.7 * _uniform(d, n)))
    return checks.compare("velocity", velocity, reference, cases, mistakes)


def exercise_6(experiment: Any) -> Outcome:
    """Distances of few samples: reproducible, equal to a measurement of our own, and the verdict of the numbers."""
    keys, settings = ("counts", "model", "control", "verdict"), {"smaller": 0.4, "larger": 2.0, "equal": 1.0}
    runs: list[dict[str, Any]] = []
    for spread in settings.values():
        for seed in (1, 1, 2) if spread == 0.4 else (3,):
            found = measurements.report(experiment, (_drawer(1.0, 0.0), _drawer(spread, 0.1), seed), keys)
            if isinstance(found, Outcome):
                return found
            if problem := _unlikely_distances(found, spread):
                return checks.holds("experiment", False, problem)
            runs.append(found)
    if problem := measurements.repeated(runs, keys[:3], [["model"]], "distances; draw new samples"):
        return checks.holds("experiment", False, problem)
    outcome = checks.holds("experiment", True, "")
    for found in runs:
        falls = [float(values[0] - values[-1]) for values in map(torch.as_tensor, (found["model"], found["control"]))]
        ratio = falls[0] / falls[1]
        right = "equal" if 0.8 <= ratio <= 1.25 else "smaller" if ratio < 1 else "larger"
        if found["verdict"] != right:
            said = f"by your own numbers the fall of the model is {ratio:.2f} times that of the control"
            return checks.choice("verdict", found["verdict"], right, dict.fromkeys(settings, said))
    return outcome


def _drawer(spread: float, shift: float, features: int = 6) -> Callable[[int, torch.Generator], Tensor]:
    """Draws Gaussian features of this standard deviation around `shift`."""
    return lambda n, generator: spread * torch.randn(n, features, generator=generator, dtype=torch.float64) + shift


def _unlikely_distances(found: dict[str, Any], spread: float) -> str | None:
    """What is wrong with the distances of one run."""
    from fmcore.metrics import frechet_distance

    counts = measurements.numbers(found["counts"])
    if counts is None or len(counts) < 4 or bool((counts != counts.round()).any()) or counts.min() < 8:
        return "'counts' must hold at least four whole numbers, each larger than the 6 features"
    if bool((counts.diff() <= 0).any()) or counts[-1] < 8 * counts[0] or counts[-1] > 2000:
        return "'counts' must grow, the last at least eight times the first (and at most 2,000)"
    generator = torch.Generator().manual_seed(99)
    for name, draw in (("model", _drawer(spread, 0.1)), ("control", _drawer(1.0, 0.0))):
        values = measurements.numbers(found[name])
        if values is None or values.shape != counts.shape:
            return f"{name!r} must hold one mean distance for each of the counts"
        for n, value in zip(counts.int().tolist(), values.tolist(), strict=True):
            if n not in (counts[0], counts[-1]):
                continue
            reference = _drawer(1.0, 0.0)(_REFERENCE, generator)
            own = torch.tensor([frechet_distance(draw(n, generator), reference) for _ in range(_REPEATS)])
            if abs(value - own.mean()) > 0.02 + 0.05 * own.mean() + own.std():
                return (
                    f"{name!r}, n = {n}: your mean distance is {value:.3g}, ours {own.mean():.3g}; is it the mean of "
                    "distances to a reference of 2,000 real samples?"
                )
    return None
