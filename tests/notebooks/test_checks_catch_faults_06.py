"""The checks of the exercises to chapter 06 name the mistakes that learners make, and accept every right answer."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from fmcore.metrics import frechet_distance
from tests.notebooks import exercise_sheets
from tests.notebooks.one_judge import accepts, empty_sheet_says_so, refuses, says

SHEET = "06_images"


def test_answers_are_right():
    exercise_sheets.answers_are_right(SHEET, checks=12)


def test_the_empty_sheet():
    empty_sheet_says_so(SHEET)


def points(k, u, levels):
    return (2 * k + 2 * u) / levels - 1


def levels_of(y, levels):
    return torch.floor((y + 1) * levels / 2).clamp(0, levels - 1)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda k, u, n: 2 * k / n - 1, "no noise"),
        (lambda k, u, n: 2 * (k + 0.5) / n - 1, "the middle of each bin"),
        (lambda k, u, n: (k + u) / (n - 1) * 2 - 1, "bins are too wide"),
        (lambda k, u, n: 2 * k / (n - 1) - 1 + u / n, "and the noise spans half of a bin"),
        (lambda k, u, n: 2 * k / (n - 1) - 1 + 2 * u / n, "edges are those of L - 1 bins"),
        (lambda k, u, n: 2 * k / n - 1 + u / n, "every second half stays empty"),
        (lambda k, u, n: 2 * k / n - 1 + u, "added after the scaling"),
        (lambda k, u, n: (k + u) / n, "fill [0, 1]"),
        (lambda k, u, n: 2 * (k + u) / 17 - 1, "not the right values"),
        (lambda k, u, n: 2 * (k + u) / (17 if n == 17 else 4 if n == 4 else 256) - 1, "not the right values"),
    ],
)
def test_points(attempt, words):
    refuses("06.1", attempt, levels_of, words=words, said="to_points:")


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda y, n: ((y + 1) / 2 * (n - 1)).round().long(), "levels that do not exist"),
        (lambda y, n: ((y + 1) / 2 * (n - 1)).round().clamp(0, n - 1), "rounded among L - 1 bins"),
        (lambda y, n: ((y + 1) / 2 * n).round().clamp(0, n - 1), "nearest edge"),
        (lambda y, n: ((y + 1) / 2 * n).floor(), "numbers outside get levels that do not exist"),
        (lambda y, n: ((y + 1) / 2 * n).long(), "cut off toward zero"),
        (lambda y, n: ((y + 1) / 2 * n).floor().clamp(0, 16), "not the right values"),
        (lambda y, n: levels_of(y.clamp(-1, 1), n - 1), "not the right values"),
    ],
)
def test_levels(attempt, words):
    refuses("06.1", points, attempt, words=words, said="to_levels:")


def test_a_dequantizer_may_be_written_otherwise():
    accepts("06.1", points, levels_of)
    accepts(
        "06.1", lambda k, u, n: torch.lerp(-torch.ones(()).double(), torch.ones(()).double(), (k + u) / n), levels_of
    )
    inner = [
        lambda y, n: sum((y >= edge).long() for edge in torch.linspace(-1, 1, n + 1).double()[1:-1]) + 0 * y.long()
    ]
    accepts("06.1", points, inner[0])


def bits(p, s, n):
    return (s.log().sum() - p) / (len(s) * math.log(2)) + math.log2(n / 2)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda p, s, n: -p / (len(s) * math.log(2)) + math.log2(n / 2), "s is not used"),
        (lambda p, s, n: (-s.log().sum() - p) / (len(s) * math.log(2)) + math.log2(n / 2), "sign of log s"),
        (lambda p, s, n: bits(p, s, n) - math.log2(n / 2), "constant log2(L / 2) is missing"),
        (lambda p, s, n: bits(p, s, n) + 1, "bins on [0, 1]"),
        (lambda p, s, n: bits(p, s, n) - 2 * math.log2(n / 2), "sign of the constant"),
        (lambda p, s, n: bits(p, s, n) * len(s), "divide by d"),
        (lambda p, s, n: bits(p, s, n) * math.log(2), "nats/dim"),
        (lambda p, s, n: bits(p, s.mean().expand_as(s), n), "logarithm of the mean of s"),
        (lambda p, s, n: bits(p, s, n).mean(), "averaged (or summed) over everything"),
        (lambda p, s, n: bits(p, s[:1].expand(64), n), "not the right values"),
    ],
)
def test_bits(attempt, words):
    accepts("06.2", bits)
    refuses("06.2", attempt, words=words)


def log_mean(p):
    return p.logsumexp(0) - math.log(len(p))


def by_one_maximum(p):
    return p.max() + (p - p.max()).exp().mean(0).log()


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda p: p.mean(0), "mean of the logarithms"),
        (lambda p: p.exp().mean(0).log(), "overflows"),
        (lambda p: p.logsumexp(0), "forgot log K"),
        (lambda p: p.logsumexp(0) / len(p), "outside of the logarithm"),
        (lambda p: p.max(0).values, "largest of the draws"),
        (lambda p: p.logsumexp(1) - math.log(p.shape[1]), "over the images"),
        (by_one_maximum, "one maximum is taken out for all images"),
        (lambda p: p.mean() + (p - p.mean()).exp().mean(0).log(), "is right"),
        (lambda p: p.float().logsumexp(0).double() - math.log(len(p)), "not the right values"),
        (lambda p: log_mean(p[:3]), "not the right values"),
    ],
)
def test_log_mean(attempt, words):
    accepts("06.3a", log_mean)
    accepts("06.3a", lambda p: torch.tensor(np.logaddexp.reduce(p.numpy()) - math.log(len(p))))
    refuses("06.3a", attempt, words=words)


def others(p):
    return torch.stack([log_mean(torch.cat([p[:j], p[j + 1 :]])) for j in range(len(p))])


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda p: others(p) + math.log((len(p) - 1) / len(p)), "divided by K"),
        (lambda p: others(p) + math.log(len(p) - 1), "log(K - 1) is missing"),
        (lambda p: log_mean(p).expand_as(p), "among its own others"),
        (lambda p: (p.sum(0) - p) / (len(p) - 1), "mean of the logarithms of the others"),
        (
            lambda p: p.max(0).values + (((e := (p - p.max(0).values).exp()).sum(0) - e) / (len(p) - 1)).log(),
            "leaves only rounding",
        ),
        (lambda p: others(p).mean(0), "is asked"),
    ],
)
def test_without_each(attempt, words):
    accepts("06.3b", others)
    refuses("06.3b", attempt, words=words)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda p: others(p).mean(0) - log_mean(p), "sign flipped"),
        (lambda p: log_mean(p) - p.mean(0), "the difference to K = 1"),
        (lambda p: log_mean(p) - log_mean(others(p)), "take the mean of the logarithms"),
        (lambda p: (log_mean(p) - others(p).mean(0)).mean(), "keep one value"),
    ],
)
def test_gain(attempt, words):
    accepts("06.3c", lambda p: (log_mean(p) - others(p)).mean(0))
    refuses("06.3c", attempt, words=words)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda s, d: s**2 / 2 / d, "in nats"),
        (lambda s, d: s**2 / d / math.log(2), "factor 1/2 of the exponent"),
        (lambda s, d: s**2 / 2 / math.log(2), "bits of an image"),
        (lambda s, d: s / (2 * d * math.log(2)), "not squared"),
        (lambda s, d: s**2 / (2 * 64 * math.log(2)), "not the right values"),
    ],
)
def test_fall(attempt, words):
    for number in (float, np.float64, torch.tensor):
        accepts("06.3d", lambda s, d, number=number: number(s**2 / (2 * d) / math.log(2)))
    refuses("06.3d", attempt, words=words)


def at_start(k, n):
    return (2 / n) ** 2 * (k.double().var(0, correction=0).mean() + 1 / 12)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda k, n: at_start(k, n) - (2 / n) ** 2 / 12, "noise of dequantization is missing"),
        (lambda k, n: at_start(k, n) * n**2 / 4, "not scaled"),
        (lambda k, n: at_start(k, n) + 1, "variance of x0"),
        (lambda k, n: at_start(k, n) * k.shape[1], "summed over the pixels"),
        (lambda k, n: (2 / n) ** 2 * (k.double().var(0).mean() + 1 / 12), "divided by n - 1"),
        (lambda k, n: (2 / n) ** 2 * (k.double().var(correction=0) + 1 / 12), "one mean for all pixels"),
        (lambda k, n: (2 / 17) ** 2 * (k.double().var(0, correction=0).mean() + 1 / 12), "not the right values"),
    ],
)
def test_loss_at_start(attempt, words):
    accepts("06.4a", at_start)
    accepts("06.4a", lambda k, n: np.float64(at_start(k, n)))
    refuses("06.4a", attempt, words=words)


def test_loss_at_the_end():
    accepts("06.4b", 1, torch.tensor(0.0).double())
    refuses("06.4b", 0.0, 0.0, words="needs x0", said="end_with_noise:")
    refuses("06.4b", 1.0, 1.0, words="says which", said="end_without_noise:")
    refuses("06.4b", 1.0, ..., words="not written yet")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f, p, x, t: (f(x, t), 1), "the model still gets t"),
        (lambda f, p, x, t: (f(x, 1 - t), -1), "still added"),
        (lambda f, p, x, t: (f(x, t), -1), "neither of the two"),
        (lambda f, p, x, t: (-f(x, 1 - t), 1), "sign of the noise is flipped"),
        (lambda f, p, x, t: (-p.sigma(t)[:, None] * f(x, 1 - t), 1), "taken for a score"),
        (lambda f, p, x, t: (torch.sin(2 * x) + 1 - t[:, None], 1), "not the right values"),
    ],
)
def test_velocity_of_a_borrowed_network(change, words):
    def attempt(model, path, x, t):
        e, sign = change(model, path, x, t)
        c = t[:, None]
        return path.d_alpha(c) / path.alpha(c) * (x - sign * path.sigma(c) * e) + path.d_sigma(c) * e

    refuses("06.5", attempt, words=words)


def test_velocity_may_be_written_otherwise():
    accepts("06.5", lambda model, path, x, t: path.noise_to_velocity(model(x, 1 - t), x, t))
    refuses("06.5", lambda model, path, x, t: model(x, 1 - t), words="noise itself")
    refuses(
        "06.5",
        lambda model, path, x, t: (
            (x - path.sigma(t)[:, None] * model(x, 1 - t)) / path.alpha(t)[:, None] - model(x, 1 - t)
        ),
        words="straight path only",
    )


def measured(real, model, seed, counts=(15, 40, 160), repeats=60, change=None, own=None, verdict=None):
    generator, counts = torch.Generator().manual_seed(own if own is not None else seed), [*counts, 200]
    reference = real(2000, generator)
    lines = {
        name: [sum(frechet_distance(draw(n, generator), reference) for _ in range(repeats)) / repeats for n in counts]
        for name, draw in (("model", model), ("control", real))
    }
    ratio = (lines["model"][0] - lines["model"][-1]) / (lines["control"][0] - lines["control"][-1])
    said = "equal" if 0.8 <= ratio <= 1.25 else "smaller" if ratio < 1 else "larger"
    found = {"counts": counts, **lines, "verdict": verdict or said}
    return found | (change(found) if change else {})


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (partial(measured, own=3), "another seed gives the same"),
        (partial(measured, counts=(40, 100, 160)), "at least eight times"),
        (partial(measured, counts=(15,)), "at least four"),
        (partial(measured, counts=(3, 15, 40)), "larger than the 6 features"),
        (lambda real, model, seed: measured(model, real, seed), "ours"),
        (lambda real, model, seed: measured(real, real, seed), "'model', n = 15"),
        (partial(measured, change=lambda f: {"control": f["model"]}), "'control', n = 15"),
        (partial(measured, change=lambda f: {"control": [v / 2 for v in f["control"]]}), "'control', n = 15"),
        (partial(measured, change=lambda f: {"model": f["model"][:2]}), "one mean distance for each"),
        (partial(measured, change=lambda f: {"model": [v + torch.rand(1).item() / 1e3 for v in f["model"]]}), "differ"),
        (partial(measured, change=lambda f: {"verdict": ...}), "not written yet"),
        (lambda real, model, seed: {"counts": [1]}, "is missing"),
        (lambda real, model, seed: None, "not written yet"),
    ],
)
def test_measured_distances(attempt, words):
    refuses("06.6", attempt, words=words, said="experiment:")


def test_the_verdict_on_the_bias():
    accepts("06.6", measured)
    accepts("06.6", lambda *a: {k: torch.tensor(v) if k != "verdict" else v for k, v in measured(*a).items()})
    refuses("06.6", partial(measured, verdict="equal"), words="by your own numbers", said="verdict:")
    refuses("06.6", partial(measured, verdict="smaller"), words="by your own numbers", said="verdict:")


def test_a_wrong_attempt_leaves_nothing_behind():
    first = says("06.3a", log_mean)
    refuses("06.3a", by_one_maximum, words="one maximum")
    assert says("06.3a", log_mean) == first
