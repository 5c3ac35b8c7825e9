"""The checks of the exercises to chapter 10 name the mistakes that learners make."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

from fmcore.sources.tabulated import angle_to_axis
from tests.notebooks import exercise_sheets
from tests.notebooks.one_judge import accepts, empty_sheet_says_so, refuses, says

SHEET = "10_source_direction"


def test_answers_are_right():
    exercise_sheets.answers_are_right(SHEET, checks=12)


def test_an_empty_sheet_runs_and_says_so():
    empty_sheet_says_so(SHEET)


def test_in_the_sheet_a_mistake_is_named_and_the_other_exercises_stay_right():
    exercise_sheets.names(
        SHEET, "concentration", lambda x, mu: kappa_of(cosine(x, mu).abs(), x.shape[1]), "negative kappa"
    )


def tangent(mu, noise):
    return noise - (noise @ mu)[:, None] * mu


def unit(mu, noise):
    return normalize(tangent(mu, noise), dim=1)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda mu, w, z: w * mu + (1 - w**2).sqrt() * normalize(z, dim=1), "not orthogonal to mu"),
        (lambda mu, w, z: w * mu + (1 - w**2).sqrt() * tangent(mu, z), "has not length 1"),
        (lambda mu, w, z: w * mu + (1 - w**2).sqrt() * tangent(mu, normalize(z, dim=1)), "before its part along mu"),
        (lambda mu, w, z: w * mu + (1 - w**2).sqrt() * normalize(tangent(mu, z), dim=0), "along the batch"),
        (lambda mu, w, z: w * mu + (1 - w**2) * unit(mu, z), "square root"),
        (lambda mu, w, z: w * mu + (1 - w) * unit(mu, z), "1 - w;"),
        (lambda mu, w, z: w * mu + unit(mu, z), "is missing"),
        (lambda mu, w, z: (1 - w**2).sqrt() * mu + w * unit(mu, z), "not the right values"),
        (lambda mu, w, z: w.abs() * mu + (1 - w**2).sqrt() * unit(mu, z), "absolute values"),
        (lambda mu, w, z: normalize(mu + w.acos().tan() * unit(mu, z), dim=1), "right for positive cosines only"),
        (lambda mu, w, z: mu + w.acos().tan() * unit(mu, z), "multiply it by cos(a)"),
        (lambda mu, w, z: w.clamp(min=0) * mu + (1 - w.clamp(min=0) ** 2).sqrt() * unit(mu, z), "not the right values"),
        (lambda mu, w, z: w[:, 0] * mu + w[:, 0], "raises RuntimeError"),
    ],
)
def test_around(attempt, words):
    refuses("10.1", lambda mu, w, z: attempt(mu, w[:, None], z), words=words)


def test_directions_may_be_made_in_other_ways():
    def of_angles(mu, w, z):
        a = w[:, None].clamp(-1, 1).acos()
        return mu * a.cos() + unit(mu, z) * a.sin()

    accepts("10.1", of_angles)
    accepts("10.1", lambda mu, w, z: of_angles(mu.float(), w.float(), z.float()))
    accepts("10.1", lambda mu, w, z: torch.stack([of_angles(mu, w[k : k + 1], z[k : k + 1])[0] for k in range(len(w))]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({(3072, 50): "overflow"}, "(3072, 50): off by one in 3,072"),
        ({(3072, 1500): "a wrong power"}, "exp(1500) is no number"),
        ({(3072, 1500): "nothing"}, "far from right"),
        ({(3, 5): "nothing"}, "(3, 5): with the power 2"),
        ({(3, 5): "overflow"}, "exp(5) is no large number"),
    ],
)
def test_what_a_setting_shows(change, words):
    right = {(3072, 50): "nothing", (3072, 1500): "overflow", (3, 5): "a wrong power"}
    accepts("10.2a", right.get)
    refuses("10.2a", (right | change).get, words=words)


def angles(n, dim, kappa, generator, power=2, along=torch.cos, of=torch.softmax):
    a = torch.linspace(0, math.pi, 20_001, dtype=torch.float64)[1:-1]
    cumulative = of(kappa * along(a) + (dim - power) * a.sin().log(), dim=0).cumsum(0)
    drawn = torch.rand(n, generator=generator, dtype=torch.float64) * cumulative[-1]
    return a[torch.searchsorted(cumulative, drawn).clamp(max=len(a) - 1)]


def plain_exp(z, dim):
    return z.exp() / z.exp().sum()


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (partial(angles, power=1), "the power of the sine is d - 1"),
        (partial(angles, power=0), "d = 3, kappa = 5"),
        (partial(angles, power=3), "d = 3, kappa = 5"),
        (partial(angles, along=torch.sin), "the distribution functions differ by"),
        (partial(angles, of=plain_exp), "does an exponential overflow?"),
        (lambda n, dim, kappa, g: angles(n, dim, 50.0, g), "d = 3, kappa = 5"),
        (lambda n, dim, kappa, g: angles(n, dim, max(kappa, 1), g), "d = 3, kappa = 0"),
        (lambda n, dim, kappa, g: angles(n, max(dim, 3), kappa, g), "d = 2, kappa = 5"),
        (lambda n, dim, kappa, g: angles(n, dim, min(kappa, 700), g), "kappa = 2000"),
        (lambda n, dim, kappa, g: torch.pi - angles(n, dim, kappa, g), "the mean cosine is"),
        (lambda n, dim, kappa, g: angles(n, dim, kappa, g).cos(), "between 0 and pi"),
        (lambda n, dim, kappa, g: angles(n, dim, kappa, g)[: n // 2], "shape (2000,)"),
        (lambda n, dim, kappa, g: angles(n, dim, kappa, None), "equal generators give other angles"),
        (
            lambda n, dim, kappa, g: angles(n, dim, kappa, torch.Generator().manual_seed(3)),
            "other generators give the same",
        ),
        (lambda n, dim, kappa: None, "must take the arguments (n, dim, kappa, generator)"),
        (lambda n, dim, kappa, g: None, "not written yet"),
    ],
)
def test_mended_sampler(attempt, words):
    refuses("10.2b", attempt, words=words, said="drawn_angles:")


def test_another_sampler_is_right():
    accepts("10.2b", angles)
    accepts("10.2b", lambda n, dim, kappa, g: angle_to_axis(dim, kappa).sample(n, g).float())


def kappa_of(r, d):
    return r * d / (1 - r**2)


def cosine(x, mu):
    return cosine_similarity(x, mu[None], dim=1).mean()


@pytest.mark.parametrize(
    ("r", "words"),
    [
        (lambda x, mu: (x @ mu).mean() / mu.norm(), "data are not normalized"),
        (lambda x, mu: (normalize(x, dim=1) @ mu).mean(), "mu is not normalized"),
        (lambda x, mu: (x @ mu).mean(), "neither"),
        (lambda x, mu: normalize(x.mean(0), dim=0) @ normalize(mu, dim=0), "cosine of the mean vector"),
        (lambda x, mu: (normalize(x, dim=0) @ normalize(mu, dim=0)).mean(), "along the batch"),
        (lambda x, mu: cosine(x, mu).abs(), "right for positive r only"),
        (lambda x, mu: (normalize(x, dim=1) @ (mu / mu.norm())).mean().clamp(min=0), "not the right values"),
        (lambda x, mu: normalize(x, dim=1).mean(0).norm(), "length of the mean direction"),
        (lambda x, mu: normalize(x, dim=1) @ normalize(mu, dim=0), "take the mean"),
    ],
)
def test_mean_cosine(r, words):
    refuses("10.3", lambda x, mu: kappa_of(r(x, mu), x.shape[1]), words=words)


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        (lambda r, d, n: r, "this is r"),
        (lambda r, d, n: kappa_of(r, n), "n stands where d"),
        (lambda r, d, n: r * d / (1 - r), "1 - r; it must"),
        (lambda r, d, n: r * d, "first term"),
        (lambda r, d, n: r * d / (1 + r * r), "flipped"),
        (lambda r, d, n: r * (d - r * r) / (1 - r * r), "Banerjee"),
        (lambda r, d, n: d / (1 - r * r), "factor r is missing"),
        (lambda r, d, n: kappa_of(r, 3), "not the right values"),
        (lambda r, d, n: kappa_of(r.abs(), d), "right for positive r only"),
    ],
)
def test_formula_of_concentration(formula, words):
    accepts("10.3", lambda x, mu: float(x.shape[1] / (1 / cosine(x, mu) - cosine(x, mu))))
    refuses("10.3", lambda x, mu: formula(cosine(x, mu), x.shape[1], len(x)), words=words)


PROOF = {
    "slope_by_moments": lambda m1, m2: m2 - m1 * m1,
    "mean_sine_squared": lambda A, kappa, d: torch.tensor((d - 1) * A / kappa),
    "slope": lambda A, kappa, d: 1 - A * A - (d - 1) * A / kappa,
    "newton_step": lambda kappa, r, A, d: kappa - (A - r) / (1 - A**2 - (d - 1) * A / kappa),
}


@pytest.mark.parametrize(
    ("name", "attempt", "words"),
    [
        ("slope_by_moments", lambda m1, m2: m2, "second moment alone"),
        ("slope_by_moments", lambda m1, m2: m2 - m1, "m1 must be squared"),
        ("slope_by_moments", lambda m1, m2: (m2 - m1**2) ** 0.5, "standard deviation"),
        ("slope_by_moments", lambda m1, m2: m2 + m1**2, "not the right values"),
        ("mean_sine_squared", lambda A, k, d: d * A / k, "d - 1, not d"),
        ("mean_sine_squared", lambda A, k, d: (d - 2) * A / k, "not d - 2"),
        ("mean_sine_squared", lambda A, k, d: (d - 1) * A, "kappa is missing"),
        ("mean_sine_squared", lambda A, k, d: (d - 1) * A * k, "divide by it"),
        ("mean_sine_squared", lambda A, k, d: 1 - A**2, "1 - A^2"),
        ("mean_sine_squared", lambda A, k, d: (d - 1) / k, "factor A"),
        ("mean_sine_squared", lambda A, k, d: (d - 1) * abs(A) / k, "not the right values"),
        ("slope", lambda A, k, d: 1 - (d - 1) * A / k, "mean of cos^2"),
        ("slope", lambda A, k, d: (d - 1) * A / k - A**2, "subtracted from 1"),
        ("slope", lambda A, k, d: 1 - (d - 1) * A / k - A, "A must be squared"),
        ("slope", lambda A, k, d: 1 - A**2, "sin^2 is missing"),
        ("slope", lambda A, k, d: None, "not written yet"),
        ("newton_step", lambda k, r, A, d: 2 * k - PROOF["newton_step"](k, r, A, d), "wrong way"),
        ("newton_step", lambda k, r, A, d: PROOF["newton_step"](k, r, A, d) - k, "add it to kappa"),
        ("newton_step", lambda k, r, A, d: k + (r - A) * PROOF["slope"](A, k, d), "multiplied by the slope"),
        ("newton_step", lambda k, r, A, d: k + r - A, "not the right values"),
        ("newton_step", lambda k, r, A, d: k, "not the right values"),
    ],
)
def test_the_proof(name, attempt, words):
    accepts("10.4", *PROOF.values())
    refuses("10.4", *(PROOF | {name: attempt}).values(), words=words, said=f"{name}:")


def spread(log_density, points, modes, x, t, starts=None, weigh=None, targets=None, finish=None):
    s = (x - t * points) / (1 - t) if starts is None else starts(points, x, t)
    z = log_density(s, modes)
    w = (torch.softmax(z, dim=0) if weigh is None else weigh(z))[:, None]
    v = (points - x) / (1 - t) if targets is None else targets(points, s)
    return (w * (v - (w * v).sum(0)).square()).sum() if finish is None else finish(w, v)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"weigh": lambda z: torch.full_like(z, 1 / len(z))}, "weights are missing"),
        ({"weigh": lambda z: z.exp()}, "not normalized"),
        ({"weigh": lambda z: z / z.sum()}, "logarithms of the densities"),
        ({"weigh": lambda z: (-z).softmax(0)}, "sign of the log-density"),
        ({"starts": lambda points, x, t: x - t * points}, "must be divided by 1 - t"),
        ({"starts": lambda points, x, t: points}, "taken at the data points"),
        ({"starts": lambda points, x, t: x.expand_as(points)}, "the density is taken at x"),
        ({"targets": lambda points, s: points}, "variance of the data points"),
        ({"targets": lambda points, s: s}, "variance of the starts"),
        ({"finish": lambda w, v: (w * v.square()).sum()}, "mean is not subtracted"),
        ({"finish": lambda w, v: (w * (v - v.mean(0)).square()).sum()}, "no weights in it"),
        ({"finish": lambda w, v: (v - (w * v).sum(0)).square().sum(1).mean()}, "weights are in the mean only"),
        ({"finish": lambda w, v: (w * (v - (w * v).sum(0)).square()).sum(0).mean()}, "averaged over the coordinates"),
        ({"finish": lambda w, v: (w * (v - (w * v).sum(0)).square()).sum().sqrt()}, "standard deviation"),
        ({"finish": lambda w, v: (w * v).sum(0).square().sum()}, "squared length of the mean"),
        ({"finish": lambda w, v: (w * (v - (w * v).sum(0)).square()).sum(0)}, "take the mean (or sum) over all"),
    ],
)
def test_disagreement(parts, words):
    accepts("10.5", spread)
    refuses("10.5", partial(spread, **parts), words=words, said="disagreement:")


@pytest.mark.parametrize(
    ("log_density", "words"),
    [
        (lambda f, s, k: -s.square().sum(1) / 2, "log_density is not used"),
        (lambda f, s, k: -s.square().sum(1) / 8, "not the right values"),
        (lambda f, s, k: -3 * s.abs().sum(1), "not the right values"),
        (lambda f, s, k: 0 * s[:, 0], "weights are missing"),
        (lambda f, s, k: f(s, 0 * k), "modes are not used"),
        (lambda f, s, k: f(s, k.flip(0)), "not the right values"),
        (lambda f, s, k: torch.stack([f(s, 0 * k + j) for j in range(3)]).logsumexp(0), "independent pairs only"),
    ],
)
def test_disagreement_of_another_source(log_density, words):
    def attempt(given, *rest):
        return spread(lambda s, modes: log_density(given, s, modes), *rest)

    refuses("10.5", attempt, words=words, said="disagreement:")


def test_disagreement_with_tiny_densities():
    attempt = partial(spread, weigh=lambda z: z.exp() / z.exp().sum())
    refuses("10.5", attempt, words="not a number", said="disagreement with tiny densities:")


def shares(dim, seed, known=None, unknown=None, ratio=None, numbers=None, scatter=0.01):
    """Shares without any draws: those of the best rule, and a rise from 1/2 that reaches 0.9 near 3.7 sqrt(d)."""
    generator = torch.Generator().manual_seed(seed)
    n = torch.tensor(sorted({*range(1, 12), *(int(12 * 1.2**k) for k in range(9)), int(4 * dim**0.5) + 8}))
    n = n[n <= 4 * dim**0.5 + 8] if numbers is None else torch.tensor(numbers)
    drift = scatter * torch.rand(2, len(n), generator=generator)
    first = torch.special.ndtr(n.sqrt() / 2) if known is None else known(n)
    second = torch.special.ndtr((n - 1) / (3 * dim**0.5)) if unknown is None else unknown(n)
    first, second = (first + drift[0]).clamp(max=1), (second + drift[1]).clamp(max=1)
    found = {"numbers": n, "known": first, "unknown": second, "ratio": 0.0}
    if bool((first >= 0.9).any()) and bool((second >= 0.9).any()):
        found["ratio"] = float(n[second >= 0.9][0] / n[first >= 0.9][0])
    return found | ({} if ratio is None else {"ratio": ratio})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"known": lambda n: torch.special.ndtr(n.sqrt())}, "better than any rule"),
        ({"known": lambda n: torch.special.ndtr((n - 1) / 10)}, "is possible"),
        ({"unknown": lambda n: torch.special.ndtr(n.sqrt() / 2)}, "does it use mu?"),
        ({"unknown": lambda n: 0 * n + 0.5}, "too few"),
        ({"unknown": lambda n: 0.5 + 0.37 * n / n.max()}, "very many directions"),
        ({"known": lambda n: -1.0 * n}, "shares of right decisions"),
        ({"ratio": 100.0}, "by your shares it is"),
        ({"ratio": "large"}, "must be a number"),
        ({"ratio": ...}, "not written yet"),
        ({"numbers": [1, 2, 4, 8, 16, 20]}, "must grow from 1 to at least 24"),
        ({"numbers": [2, 4, 6, 8, 16, 32]}, "must grow from 1"),
        ({"scatter": 0.0}, "another seed gives the same numbers"),
    ],
)
def test_directions_needed(options, words):
    right = "more in more dimensions"
    refuses("10.6", lambda dim, seed: shares(dim, seed, **options), right, words=words, said="experiment:")


def test_the_verdict_on_directions():
    accepts("10.6", shares, "more in more dimensions")
    for wrong in ("less in more dimensions", "the same in all dimensions"):
        refuses("10.6", shares, wrong, words="your experiment has a ratio of", said="verdict:")
    refuses("10.6", shares, ..., words="not written yet", said="verdict:")
    refuses("10.6", lambda dim, seed: shares(dim, int(torch.randint(10**6, ()))), "", words="same seed differ")
    refuses("10.6", lambda dim: None, "", words="positional argument")


def test_a_wrong_attempt_leaves_nothing_behind():
    first = says("10.5", spread)
    refuses("10.5", lambda f, points, *rest: spread(f, points.mul_(2), *rest), words="in place", said="disagreement:")
    assert says("10.5", spread) == first
