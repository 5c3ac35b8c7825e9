"""The checks of the exercises to chapter 08 name the mistakes that learners make, and accept every right answer."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from fmcore.closed_form import EmpiricalVelocity
from tests.notebooks import exercise_sheets
from tests.notebooks.one_judge import accepts, empty_sheet_says_so, refuses, says

SHEET = "08_generalization"


def test_answers_are_right():
    exercise_sheets.answers_are_right(SHEET, checks=10)


def test_the_empty_sheet():
    empty_sheet_says_so(SHEET)


def sharing(rule, axis=1):
    """A share of copies by a rule for the sorted distances, (B, n)."""
    return lambda samples, train: rule(torch.cdist(samples.flatten(1), train.flatten(1)).sort(axis).values)


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (lambda d: (d[:, 0] < d[:, 1] / 3).double().sum(), "number of copies"),
        (lambda d: (d[:, 0] >= d[:, 1] / 3).double().mean(), "NOT copies"),
        (lambda d: (d[:, 0] ** 2 < d[:, 1] ** 2 / 3).double().mean(), "squared distances"),
        (lambda d: (d[:, 0] < 1 / 3).double().mean(), "nearest distance itself"),
        (lambda d: (d[:, 0] < d[:, 1]).double().mean(), "not below the second"),
        (lambda d: (d[:, 1] < d[:, 0] / 3).double().mean(), "zero everywhere"),
    ],
)
def test_copies(share, words):
    refuses("08.1", sharing(share), words=words, said="share_of_copies:")


def test_copies_along_the_wrong_axis():
    attempt = sharing(lambda d: (d[0] < d[1] / 3).double().mean(), axis=0)
    refuses("08.1", attempt, words="counted among the training images")


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (lambda d: (d[:, 0] <= d[:, 1] / 3).double().mean(), "at exactly a third it is none"),
        (lambda d: (3 * d[:, 0] <= d[:, 1]).double().mean(), "at exactly a third it is none"),
        (lambda d: 1 - (d[:, 0] / d[:, 1] >= 1 / 3).double().mean(), "0 is not below 0"),
    ],
)
def test_copies_at_the_limit(share, words):
    refuses("08.1", sharing(share), words=words, said="share_of_copies at the limit:")


def test_copies_may_be_counted_otherwise():
    accepts("08.1", sharing(lambda d: (3 * d[:, 0] < d[:, 1]).double().mean()))
    accepts("08.1", sharing(lambda d: float((d[:, 0] / d[:, 1] < 1 / 3).float().mean())))
    accepts("08.1", sharing(lambda d: (9 * d[:, 0] ** 2 < d[:, 1] ** 2).numpy().mean()))


def weights(points, x, t):
    return EmpiricalVelocity(points).weights(x, t)[0]


def probabilities(points, x, t):
    return weights(points, x, t)[:, None] / len(points) * torch.ones(len(points))


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda p, x, t: torch.ones(len(p), len(p)).double() / len(p) ** 2, "b_1 is drawn like b_2"),
        (lambda p, x, t: torch.outer(weights(p, x, t), weights(p, x, t)), "both points are drawn with the weights"),
        (lambda p, x, t: weights(p, x, t)[:, None].expand(len(p), -1), "1/n of b_2 is missing"),
        (lambda p, x, t: probabilities(p, x, t).T, "i and j are swapped"),
        (lambda p, x, t: probabilities(p, x, t) * (1 - torch.eye(len(p))), "not the right values"),
        (lambda p, x, t: weights(p, x, t) / len(p), "shape"),
    ],
)
def test_chances_of_banks(attempt, words):
    accepts("08.2a", probabilities)
    refuses("08.2a", attempt, words=words)


def of_two(points, x, t, i, j):
    return EmpiricalVelocity(points[[i, j]])(x, t)


def weighed(share_of):
    def attempt(points, x, t, i, j):
        w, u = weights(points, x, t), (points - x) / (1 - t)
        return share_of(w, u, i, j, len(points))[None]

    return attempt


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (weighed(lambda w, u, i, j, n: w[i] * u[i] + w[j] * u[j]), "1/n of the other point"),
        (of_two, "weighed with the probability"),
        (lambda p, x, t, i, j: probabilities(p, x, t)[i, j] * of_two(p, x, t, i, j), "only the bank (i, j)"),
        (weighed(lambda w, u, i, j, n: (w[j] * u[i] + w[i] * u[j]) / n), "weights are swapped"),
        (weighed(lambda w, u, i, j, n: (u[i] + u[j]) / n**2), "not the right values"),
    ],
)
def test_both_orders(attempt, words):
    accepts("08.2b", weighed(lambda w, u, i, j, n: (w[i] * u[i] + w[j] * u[j]) / n))
    refuses("08.2b", attempt, words=words)


def spread(points, x, t, chance=probabilities):
    best, n = EmpiricalVelocity(points)(x, t), range(len(points))
    each = chance(points, x, t)
    return sum(each[i, j] * (of_two(points, x, t, i, j) - best).square().sum() for i in n for j in n)


def of_one(points, x, t):
    w, u = weights(points, x, t), (points - x) / (1 - t)
    return w @ (u - w @ u).square().sum(1)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (of_one, "M = 1"),
        (lambda *a: of_one(*a) - spread(*a), "what the bank takes away"),
        (lambda p, x, t: spread(p, x, t) / p.shape[1], "averaged over the coordinates"),
        (lambda *a: spread(*a, chance=lambda p, x, t: torch.ones(len(p), len(p)) / len(p) ** 2), "count the same"),
        (lambda *a: 0.0, "zero everywhere"),
    ],
)
def test_variance_of_the_target(attempt, words):
    accepts("08.2c", spread)
    refuses("08.2c", attempt, words=words)


def bias(points, x, t):
    mean = sum(of_two(points, x, t, i, j) for i in range(len(points)) for j in range(len(points))) / len(points) ** 2
    return mean - EmpiricalVelocity(points)(x, t)


def test_squared_bias():
    accepts("08.2d", lambda *a: float(bias(*a).square().sum()))
    refuses("08.2d", lambda *a: bias(*a).norm(), words="its square is asked")
    refuses("08.2d", lambda *a: bias(*a).square().mean(), words="mean over the coordinates")
    refuses("08.2d", lambda *a: 0.0, words="zero is the bias with x1 in the bank")
    refuses("08.2d", lambda *a: 0.0731, words="everywhere")
    refuses("08.2d", lambda p, x, t: (bias(p, x, t) + EmpiricalVelocity(p)(x, t)).square().sum(), words="subtract u*")


def stepped(step, times=range):
    def attempt(first, second, x0, switch, steps):
        x = x0
        for k in times(steps):
            x = step(first, second, x, k, switch, steps)
        return x

    return attempt


def led(rule):
    return stepped(lambda a, b, x, k, tau, n: x + (a if rule(k, tau, n) else b)(x, torch.tensor(k / n)) / n)


def added_up(first, second, x0, switch, steps):
    x, t = x0, 0.0
    for _ in range(steps):
        x = x + (first if t < switch else second)(x, torch.tensor(t)) / steps
        t += 1 / steps
    return x


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (led(lambda k, tau, n: k < int(tau * n)), "int(switch * steps) cuts off"),
        (led(lambda k, tau, n: k < round(tau * n)), "round(switch * steps)"),
        (led(lambda k, tau, n: k < int(tau * n) + 1), "not the right values"),
        (added_up, "rounding errors add up"),
        (led(lambda k, tau, n: k / n <= tau), "not t <= switch"),
        (led(lambda k, tau, n: k / n >= tau), "swapped"),
        (led(lambda k, tau, n: (k + 1) / n <= tau), "not the right values"),
        (led(lambda k, tau, n: True), "first leads all the way"),
        (led(lambda k, tau, n: False), "second leads all the way"),
        (stepped(lambda a, b, x, k, tau, n: x + (a if k / n < tau else b)(x, torch.tensor(k / n))), "right values"),
        (stepped(lambda a, b, x, k, tau, n: x + (a if k / n < tau else b)(x, torch.tensor((k + 1) / n)) / n), "right"),
        (
            lambda a, b, x0, tau, n: led(lambda k, tau, n: k / n < tau)(a, b, x0, tau, n - 1 or 1),
            "not the right values",
        ),
        (
            stepped(
                lambda a, b, x, k, tau, n: x + (a if k / n < tau else b)(x, torch.tensor(k / n)) / n,
                times=lambda n: range(n + 1),
            ),
            "not the right values",
        ),
    ],
)
def test_hybrid(attempt, words):
    refuses("08.3", attempt, words=words)


@pytest.mark.parametrize(
    "attempt",
    [
        led(lambda k, tau, n: k / n < tau),
        led(lambda k, tau, n: k < tau * n),
        led(lambda k, tau, n: k < math.ceil(tau * n)),
        stepped(lambda a, b, x, k, tau, n: x + (a if k / n < tau else b)(x, k / n) / n),
        stepped(
            lambda a, b, x, k, tau, n: torch.lerp(x, x + (b if k / n >= tau else a)(x, torch.tensor(k / n)), 1 / n)
        ),
    ],
)
def test_a_hybrid_may_be_written_otherwise(attempt):
    accepts("08.3", attempt)


def left(M, n, r):
    return (1 - (1 - r / n) ** M) * n / (M * r)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda M, n, r: 1 / M, "all n images are rivals"),
        (lambda M, n, r: 1 / (1 + (M - 1) * r / n), "mean of 1 / (1 + B) is larger"),
        (lambda M, n, r: (1 - r / n) ** (M - 1), "no rival"),
        (lambda M, n, r: (1 - (1 - r / n) ** (M - 1)) * n / (M * r), "the power is M"),
        (lambda M, n, r: 1 - left(M, n, r), "takes away"),
        (lambda M, n, r: left(M, 1500, r), "not the right values"),
    ],
)
def test_share_left(attempt, words):
    for number in (float, np.float64, lambda v: torch.tensor(v).double()):
        accepts("08.4", lambda M, n, r, number=number: number(left(M, n, r)))
    refuses("08.4", attempt, words=words)


def chance(train, images=None):
    images = torch.unique(train, dim=0) if images is None else images
    return torch.logsumexp((train == images[:, None]).double().mean(1).log().sum(1), 0)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda x: chance(x, x), "count each distinct image once"),
        (lambda x: (1 - x.shape[1]) * math.log(len(x)), "equal values add up"),
        (lambda x: (x == x[:, None]).double().mean(1).log().sum(1).max(), "likeliest image"),
        (lambda x: chance(x).exp(), "its logarithm is asked"),
        (lambda x: 0.0, "zero everywhere"),
        (lambda x: chance(x.round()), "not the right values"),
        (lambda x: (x == torch.unique(x, dim=0)[:, None]).double().mean(1).prod(1).sum().log(), "infinite"),
    ],
)
def test_chance_of_a_copy(attempt, words):
    accepts("08.5", chance)
    accepts("08.5", lambda x: float(chance(x)))
    refuses("08.5", attempt, words=words)


def blurred(train, held_out, seed, own=None, widths=None, change=None, verdict=None, noise=1.0, best=None):
    generator = torch.Generator().manual_seed(seed if own is None else own)
    widths, n = torch.logspace(-2.3, 0.4, 16).double() if widths is None else widths, len(train)
    found = {"widths": widths, "copies": [], "train": [], "held_out": []}
    for h in widths:
        x = train[torch.randint(n, (1500,), generator=generator)]
        distance = torch.cdist(x + noise * h * torch.randn(x.shape, generator=generator), train).sort(1).values
        found["copies"].append(float((3 * distance[:, 0] < distance[:, 1]).double().mean()))
        for name, points in (("train", train), ("held_out", held_out)):
            kernels = torch.distributions.Normal(0, h).log_prob(points[:, None] - train).sum(2)
            found[name].append(float(torch.logsumexp(kernels, 1).mean()) - math.log(n))
    k = int(torch.tensor(found[best or "held_out"]).argmax())
    found |= {"best": float(widths[k]), "verdict": verdict or ("copies" if found["copies"][k] > 0.5 else "new")}
    return found | (change(found) if change else {})


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (partial(blurred, own=1), "another seed gives the same copies"),
        (partial(blurred, widths=torch.logspace(-2, 0, 4)), "at least six"),
        (partial(blurred, widths=torch.logspace(0.4, -2, 16)), "growing order"),
        (partial(blurred, widths=torch.logspace(-2, -1.5, 8).double()), "widen their range"),
        (partial(blurred, noise=0.0), "'copies': at the width"),
        (partial(blurred, best="train"), "'best' must be the width"),
        (partial(blurred, change=lambda f: {"best": "the widest"}), "'best' must be the width"),
        (partial(blurred, change=lambda f: {"held_out": f["train"]}), "'held_out': the mean log-density"),
        (partial(blurred, change=lambda f: {"train": [2 * v for v in f["train"]]}), "'train': the mean log-density"),
        (partial(blurred, change=lambda f: {"copies": [100 * v for v in f["copies"]]}), "between 0 and 1"),
        (
            partial(blurred, change=lambda f: {"copies": [v * (1 - torch.rand(1).item() / 50) for v in f["copies"]]}),
            "differ",
        ),
        (partial(blurred, change=lambda f: {"verdict": ...}), "not written yet"),
        (lambda train, held_out, seed: blurred(held_out, train, seed), "mean log-density"),
        (lambda train, held_out, seed: {}, "is missing"),
        (lambda train, held_out, seed: None, "not written yet"),
    ],
)
def test_blurred_points(attempt, words):
    refuses("08.6", attempt, words=words, said="experiment:")


def test_the_verdict_on_copies():
    accepts("08.6", blurred)
    accepts("08.6", lambda *a: {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in blurred(*a).items()})
    for verdict in ("copies", "new"):
        refuses("08.6", partial(blurred, verdict=verdict), words="at your best width", said="verdict:")


def test_a_wrong_attempt_leaves_nothing_behind():
    right = led(lambda k, tau, n: k / n < tau)
    first = says("08.3", right)
    refuses("08.3", added_up, words="add up")
    assert says("08.3", right) == first
