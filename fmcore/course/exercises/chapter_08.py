"""The judges of the exercises to chapter 08, generalization."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fmcore.course import checks
from fmcore.course.checks import Outcome
from fmcore.course.exercises import measurements

_Formula = Callable[..., Any]
_BLUR = ("widths", "copies", "train", "held_out", "best", "verdict")


def _normal(seed: int, *shape: int) -> Tensor:
    """The same normal numbers at every call, in double precision."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _two_nearest(samples: Tensor, train: Tensor, p: float = 2.0) -> Tensor:
    """The two smallest of all distances, (2, B), from the differences."""
    apart = (samples[:, None] - train[None]).flatten(2)
    return torch.linalg.vector_norm(apart, ord=p, dim=2).sort(dim=1).values[:, :2].T


def _share(samples: Tensor, train: Tensor) -> Tensor:
    nearest, second = _two_nearest(samples, train)
    return (3 * nearest < second).double().mean()


def exercise_1(share_of_copies: Any) -> Outcome:
    """The share of copies of random images; then with distances in the ratio 1/3, and images that occur twice."""

    def share_if(rule: Callable[[Tensor, Tensor], Tensor], p: float = 2.0) -> _Formula:
        return lambda samples, train: rule(*_two_nearest(samples, train, p)).double().mean()

    mistakes: dict[str, _Formula] = {
        "that is the number of copies; divide by the number of samples": lambda s, train: _share(s, train) * len(s),
        "that is the share of samples that are NOT copies": share_if(lambda a, b: 3 * a >= b),
        "squared distances are compared with a third; their ratio would have to be below 1/9": share_if(
            lambda a, b: 3 * a**2 < b**2
        ),
        "the nearest distance itself is compared with 1/3, whatever the second is": share_if(lambda a, b: a < 1 / 3),
        "the nearest must be below a third of the second, not below the second": share_if(lambda a, b: a < b),
        "the copies are counted among the training images; swap the arguments of cdist, or take the other axis": (
            lambda samples, train: _share(train, samples)
        ),
        "the distances are sums of absolute differences (p=1); Euclidean ones are asked": share_if(
            lambda a, b: 3 * a < b, p=1.0
        ),
    }
    generator, cases = torch.Generator().manual_seed(1), []
    for B, n, size, shape in ((40, 12, 2.0, (1, 2, 3)), (30, 20, 0.3, (3, 2, 2)), (50, 9, 1.0, (1, 1, 5))):
        train = size * torch.randn(n, *shape, generator=generator)
        near = size * 0.6 * torch.rand(B, 1, 1, 1, generator=generator) * torch.randn(B, *shape, generator=generator)
        cases.append((train[torch.randint(n, (B,), generator=generator)] + near, train))
    if not (found := checks.compare("share_of_copies", share_of_copies, _share, cases, mistakes)):
        return found
    places = torch.tensor([[0.0, 0], [4, 0], [-64, 0], [-64, 8], [0, 900], [0, 900]]).double().view(6, 1, 1, 2)
    ratios = torch.tensor([[1.0, 0], [-64, 2], [-64, 1], [0, 0.5], [0, 900]]).double().view(5, 1, 1, 2)
    equal = {
        "a copy is nearer than a third of the second distance, by however little; at exactly a third it is none": (
            share_if(lambda a, b: 3 * a <= b)
        ),
        "a distance divided by zero: with an image that occurs twice both distances may be 0, and 0 is not below 0": (
            share_if(lambda a, b: (3 * a < b) | (b == 0))
        ),
    }
    return checks.compare("share_of_copies at the limit", share_of_copies, _share, [(ratios, places)], equal)


def _conditional(points: Tensor, x: Tensor, t: float) -> Tensor:
    """The conditional velocities to all points, (n, d)."""
    return (points - x) / (1 - t)


def _weights(points: Tensor, x: Tensor, t: float) -> Tensor:
    return torch.softmax(-(x - t * points).square().sum(dim=1) / (2 * (1 - t) ** 2), dim=0)


def _u2(points: Tensor, x: Tensor, t: float, i: int, j: int) -> Tensor:
    """The exact velocity of two of the points, (1, d)."""
    from fmcore import closed_form

    return closed_form.EmpiricalVelocity(points[[i, j]])(x, t)


def _chances(points: Tensor, x: Tensor, t: float) -> Tensor:
    """By counting: draw b_1 and b_2 uniformly, make x from b_1, and divide by the probability of x."""
    n = len(points)
    density = torch.distributions.Normal(0.0, 1 - t).log_prob(x - t * points).sum(dim=1)
    joint = (density - density.max()).exp()[:, None].expand(n, n) / n**2
    return joint / joint.sum()


def _bank_cases() -> list[tuple[Tensor, Tensor, float]]:
    return [(_normal(n, n, d) * 1.3, _normal(d, 1, d), t) for n, d, t in ((5, 2, 0.5), (3, 3, 0.3), (4, 5, 0.6))]


def exercise_2a(chances: Any) -> Outcome:
    """Step 1: the probabilities of all banks."""
    w = _weights
    mistakes: dict[str, _Formula] = {
        "b_1 is drawn like b_2; but x was made from b_1, which is point i with probability w_i": lambda p, x, t: (
            torch.full((len(p), len(p)), 1 / len(p) ** 2).to(p)
        ),
        "both points are drawn with the weights w; b_2 is drawn uniformly": lambda p, x, t: (
            w(p, x, t)[:, None] * w(p, x, t)
        ),
        "the 1/n of b_2 is missing: the probabilities sum to n": lambda p, x, t: w(p, x, t)[:, None].expand(len(p), -1),
        "i and j are swapped: b_1 is the point of the row": lambda p, x, t: w(p, x, t).expand(len(p), -1) / len(p),
        "b_2 may be the same point as b_1": lambda p, x, t: (
            w(p, x, t)[:, None] * (1 - torch.eye(len(p)).to(p)) / (len(p) - 1)
        ),
    }
    return checks.compare("chances", chances, _chances, _bank_cases(), mistakes, rtol=1e-4, atol=1e-7)


def exercise_2b(both_orders: Any) -> Outcome:
    """Step 2: the two banks with the same two points, against the sum over both."""

    def reference(points: Tensor, x: Tensor, t: float, i: int, j: int) -> Tensor:
        chance = _chances(points, x, t)
        return (chance[i, j] + chance[j, i]) * _u2(points, x, t, i, j)

    def without(points: Tensor, x: Tensor, t: float, i: int, j: int) -> Tensor:
        w, u = _weights(points, x, t), _conditional(points, x, t)
        return (w[[i, j], None] * u[[i, j]]).sum(dim=0, keepdim=True)

    mistakes: dict[str, _Formula] = {
        "the 1/n of the other point is missing": without,
        "this is u_2 of the two points; it must be weighed with the probability of the two banks": _u2,
        "only the bank (i, j) is counted; (j, i) belongs to it": lambda p, x, t, i, j: (
            _chances(p, x, t)[i, j] * _u2(p, x, t, i, j)
        ),
        "the weights are swapped: w_i belongs to the velocity to point i": lambda p, x, t, i, j: (
            (_weights(p, x, t)[[j, i], None] * _conditional(p, x, t)[[i, j]]).sum(dim=0, keepdim=True) / len(p)
        ),
    }
    cases = [(*case, i, j) for case in _bank_cases() for i, j in ((0, 1), (2, 1))]
    return checks.compare("both_orders", both_orders, reference, cases, mistakes, rtol=1e-4, atol=1e-6)


def exercise_2c(variance: Any) -> Outcome:
    """Step 3: the variance of u_2 given x, which is not larger than that of the conditional velocity."""

    def spread(chance: Tensor, points: Tensor, x: Tensor, t: float) -> Tensor:
        from fmcore import closed_form

        best = closed_form.EmpiricalVelocity(points)(x, t)
        n = range(len(points))
        return torch.stack([chance[i, j] * (_u2(points, x, t, i, j) - best).square().sum() for i in n for j in n]).sum()

    def reference(points: Tensor, x: Tensor, t: float) -> Tensor:
        return spread(_chances(points, x, t), points, x, t)

    def single(points: Tensor, x: Tensor, t: float) -> Tensor:
        w, u = _weights(points, x, t), _conditional(points, x, t)
        return (w * (u - w @ u).square().sum(dim=1)).sum()

    mistakes: dict[str, _Formula] = {
        "this is the variance of the conditional velocity, M = 1": single,
        "this is what the bank takes away; what is left is asked": lambda *a: single(*a) - reference(*a),
        "averaged over the coordinates; the squared length is their sum": lambda p, x, t: (
            reference(p, x, t) / p.shape[1]
        ),
        "all banks count the same; b_1 is point i with probability w_i": lambda p, x, t: spread(
            torch.full((len(p), len(p)), 1 / len(p) ** 2).to(p), p, x, t
        ),
    }
    return checks.compare("variance", variance, reference, _bank_cases(), mistakes, rtol=1e-4, atol=1e-6)


def exercise_2d(squared_bias: Any) -> Outcome:
    """Without x1 in the bank: the squared length of the bias, for several sets of points, places and times."""

    def bias(points: Tensor, x: Tensor, t: float, same: bool = True) -> Tensor:
        pairs = [(i, j) for i, j in itertools.product(range(len(points)), repeat=2) if same or i != j]
        mean = torch.stack([_u2(points, x, t, i, j) for i, j in pairs]).mean(dim=0)
        return mean - _weights(points, x, t) @ _conditional(points, x, t)

    def reference(points: Tensor, x: Tensor, t: float) -> Tensor:
        return bias(points, x, t).square().sum()

    mistakes: dict[str, _Formula] = {
        "this is the length; its square is asked": lambda *a: reference(*a).sqrt(),
        "that is the mean over the coordinates; the squared length is their sum": lambda p, x, t: (
            reference(p, x, t) / p.shape[1]
        ),
        "zero is the bias with x1 in the bank": lambda *a: 0.0,
        "pairs with i = j are left out; the two points are drawn independently": lambda p, x, t: (
            bias(p, x, t, False).square().sum()
        ),
        "this is the squared length of the mean; subtract u* first": lambda p, x, t: (
            (bias(p, x, t) + _weights(p, x, t) @ _conditional(p, x, t)).square().sum()
        ),
    }
    return checks.compare("squared_bias", squared_bias, reference, _bank_cases(), mistakes, rtol=1e-4, atol=1e-6)


def exercise_3(hybrid: Any) -> Outcome:
    """The hybrid flow, for switches on and between the steps, few and many steps; two flows one after the other."""

    def euler(velocity: Any, x: Tensor, first: int, last: int, steps: int) -> Tensor:
        for k in range(first, last):
            x = x + velocity(x, torch.tensor(k / steps)) / steps
        return x

    def parted(cut_of: Callable[[float, int], int], again: bool = False) -> _Formula:
        """`first` for that many steps, then `second`."""

        def flow(first: Any, second: Any, x0: Tensor, switch: float, steps: int) -> Tensor:
            cut = cut_of(switch, steps)
            return euler(second, euler(first, x0, 0, cut, steps), 0 if again else cut, steps, steps)

        return flow

    def cut(switch: float, steps: int) -> int:
        return next((k for k in range(steps) if k / steps >= switch), steps)

    def added_up(switch: float, steps: int) -> int:
        times = itertools.accumulate([0.0] + [1 / steps] * (steps - 1))
        return sum(t < switch for t in times)

    right = parted(cut)
    mistakes: dict[str, _Formula] = {
        "int(switch * steps) cuts off: a step that starts just before the switch belongs to first": parted(
            lambda switch, steps: int(switch * steps)
        ),
        "round(switch * steps): between two steps it decides by what is nearer, not by where the step starts": parted(
            lambda switch, steps: round(switch * steps)
        ),
        "the times are sums of 1/steps, whose rounding errors add up: compute each as k / steps": parted(added_up),
        "first and second are swapped": lambda a, b, *rest: right(b, a, *rest),
        "the step that starts at the switch belongs to second: t < switch, not t <= switch": parted(
            lambda switch, steps: sum(k / steps <= switch for k in range(steps))
        ),
        "the switch plays no part: first leads all the way": parted(lambda switch, steps: steps),
        "the switch plays no part: second leads all the way": parted(lambda switch, steps: 0),
        "second runs its whole way from t = 0 after the switch; it must go on at t = switch": parted(cut, again=True),
    }
    settings = [(0.5, 10, 2), (0.25, 8, 3), (0.75, 10, 5), (0.52, 10, 2), (0.83, 7, 3), (0.04, 10, 2), (0.0, 5, 2)]
    settings += [(1.0, 6, 2), (0.29, 100, 2), (0.8, 10, 3), (0.5, 12, 2), (0.7, 300, 2), (0.3337, 300, 5)]
    cases = []
    for number, (switch, steps, d) in enumerate(settings):
        first, second = (_turn, _shrink) if number % 2 else (_shrink, _push)
        cases.append((first, second, _normal(number, 4, d), switch, steps))
    return checks.compare("hybrid", hybrid, right, cases, mistakes, rtol=1e-6, atol=2e-6)


def _turn(x: Tensor, t: Tensor) -> Tensor:
    return (x.roll(1, dims=1) + 2.0) * (1 + t)


def _shrink(x: Tensor, t: Tensor) -> Tensor:
    return torch.sin(x) - 2 * t * x - 1.0


def _push(x: Tensor, t: Tensor) -> Tensor:
    return torch.ones_like(x) * (2 - t)


def exercise_4(share_left: Any) -> Outcome:
    """The mean of 1 / (1 + rivals) over all banks, against a sum over the binomial distribution."""

    def reference(M: int, n: int, r: int) -> float:
        q = r / n
        return sum(math.comb(M - 1, k) * q**k * (1 - q) ** (M - 1 - k) / (1 + k) for k in range(M))

    mistakes: dict[str, _Formula] = {
        "1 / M is right only if all n images are rivals": lambda M, n, r: 1 / M,
        "this is 1 over the mean number; the mean of 1 / (1 + B) is larger": lambda M, n, r: 1 / (1 + (M - 1) * r / n),
        "this is the chance that the bank has no rival": lambda M, n, r: (1 - r / n) ** (M - 1),
        "the power is M": lambda M, n, r: (1 - (1 - r / n) ** (M - 1)) * n / (M * r),
        "this is the share that the bank takes away": lambda M, n, r: 1 - reference(M, n, r),
    }
    cases = [(128, 1500, 1100), (16, 1500, 3), (2, 5, 2), (1, 10, 4), (300, 50, 50), (5, 7, 7), (64, 1000, 20)]
    return checks.compare("share_left", share_left, reference, cases, mistakes, rtol=1e-5, atol=1e-9)


def exercise_5(log_chance_of_copy: Any) -> Outcome:
    """The probability that independent pixels hit a training image, by going through all images that can come out."""

    def reference(train: Tensor) -> Tensor:
        columns = [{float(v): float((column == v).sum()) / len(train) for v in column} for column in train.T]
        images = {tuple(image) for image in train.tolist()}
        if train.shape[1] < 6:
            everything = itertools.product(*columns)
            hits = [
                math.prod(c[v] for c, v in zip(columns, image, strict=True)) for image in everything if image in images
            ]
            return torch.tensor(sum(hits)).double().log()
        logs = [sum(math.log(c[v]) for c, v in zip(columns, image, strict=True)) for image in images]
        return torch.tensor(logs).double().logsumexp(0)

    def of_each(train: Tensor) -> Tensor:
        counts = (train[:, None] == train[None]).double().mean(dim=1)  # of the value of each pixel
        return counts.log().sum(dim=1)

    mistakes: dict[str, _Formula] = {
        "an image that occurs twice is one image: count each distinct image once": lambda x: torch.logsumexp(
            of_each(x), dim=0
        ),
        "this takes all values of a pixel for different: equal values add up": lambda x: (
            (1 - x.shape[1]) * math.log(len(x))
        ),
        "this is the chance of the likeliest image": lambda x: of_each(x).max(),
        "this is the probability; its logarithm is asked": lambda x: reference(x).exp(),
    }
    generator = torch.Generator().manual_seed(5)
    shapes = ((5, 2, 3), (6, 3, 2), (4, 5, 3), (7, 3, 4))
    cases: list[tuple[Tensor]] = []
    for n, d, levels in shapes:
        train = torch.randint(levels, (n, d), generator=generator).double() / 2 - 0.5
        cases.append((torch.cat([train, train[:2]]),))
    cases.append((torch.randint(2, (9, 1500), generator=generator).double() - 0.5,))
    return checks.compare("log_chance_of_copy", log_chance_of_copy, reference, cases, mistakes, rtol=1e-5, atol=1e-6)


def _log_density(at: Tensor, train: Tensor, h: float) -> float:
    """Mean log-density at some places of a Gaussian of width h around each training point."""
    squares = (at[:, None] - train).square().sum(dim=2)
    n, d = train.shape
    return float(
        (torch.logsumexp(-squares / (2 * h * h), dim=1) - math.log(n) - d / 2 * math.log(2 * math.pi * h * h)).mean()
    )


def _clouds() -> dict[str, tuple[Tensor, Tensor]]:
    """Training points and held-out points: few and many of one cloud, and single points of small clusters."""
    from fmcore import data

    moons = data.toy.two_moons(240, torch.Generator().manual_seed(6)).double()
    cloud, centres = _normal(61, 180, 3), 2 * _normal(62, 15, 3)
    near = centres.repeat(6, 1) + 0.03 * _normal(63, 90, 3)
    return {"moons": (moons[:12], moons[12:]), "cloud": (cloud[:80], cloud[80:]), "clusters": (near[:15], near[15:])}


def exercise_6(experiment: Any) -> Outcome:
    """Copies and log-densities of blurred training points: possible, equal to our own, and the verdict."""
    runs: list[dict[str, Any]] = []
    for name, (train, held_out) in _clouds().items():
        for seed in (1, 1, 2) if name == "moons" else (3,):
            found = measurements.report(experiment, (train.clone(), held_out.clone(), seed), _BLUR)
            if isinstance(found, Outcome):
                return found
            if problem := _unlikely_blur(found, train, held_out):
                return checks.holds("experiment", False, f"{name}: {problem}")
            runs.append(found)
    if problem := measurements.repeated(runs, _BLUR[:4], [["copies"]], "copies; draw new samples"):
        return checks.holds("experiment", False, problem)
    outcome = checks.holds("experiment", True, "")
    for found in runs:
        widths, copies = (torch.as_tensor(found[key]) for key in ("widths", "copies"))
        share = float(copies[int((widths - float(found["best"])).abs().argmin())])
        right = "copies" if share > 0.5 else "new"
        if found["verdict"] != right:
            said = f"at your best width {float(found['best']):.3g} your share of copies is {share:.0%}"
            return checks.holds("verdict", False, said)
    return outcome


def _unlikely_blur(found: dict[str, Any], train: Tensor, held_out: Tensor) -> str | None:
    """What is wrong with one run."""
    widths, copies, at_train, at_held = (measurements.numbers(found[key]) for key in _BLUR[:4])
    if widths is None or len(widths) < 6 or bool((widths.diff() <= 0).any()) or widths[0] <= 0:
        return "'widths' must hold at least six positive numbers in growing order"
    if copies is None or copies.shape != widths.shape or bool(((copies < 0) | (copies > 1)).any()):
        return "'copies' must hold one share between 0 and 1 for each width"
    for key, values, places in (("train", at_train, train), ("held_out", at_held, held_out)):
        if values is None or values.shape != widths.shape:
            return f"{key!r} must hold one mean log-density for each width"
        for h, value in zip(widths.tolist(), values.tolist(), strict=True):
            right = _log_density(places, train, h)
            if abs(value - right) > 1e-2 * (1 + abs(right)):
                return f"{key!r}: the mean log-density at the width {h:.3g} is {right:.4g}; yours is {value:.4g}"
    assert at_held is not None
    for k in (0, int(at_held.argmax()), len(widths) - 1):
        generator = torch.Generator().manual_seed(7)
        noise = torch.randn(4000, train.shape[1], generator=generator, dtype=torch.float64)
        samples = train[torch.randint(len(train), (4000,), generator=generator)] + widths[k] * noise
        own = float(_share(samples, train))
        if abs(own - float(copies[k])) > 0.08:
            return f"'copies': at the width {float(widths[k]):.3g} our share is {own:.2f}, yours {float(copies[k]):.2f}"
    k = int(at_held.argmax())
    if k in (0, len(widths) - 1):
        return "the held-out log-density is largest at the end of your widths: widen their range"
    best = measurements.numbers([found["best"]])
    hit = best is not None and abs(float(best[0] / widths[k]) - 1) < 1e-6
    return None if hit else "'best' must be the width with the largest mean log-density of the held-out points"
