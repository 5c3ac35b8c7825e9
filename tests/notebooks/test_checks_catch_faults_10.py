"""The checks of the exercises to chapter 10 name the mistakes that learners make."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.nn.functional import normalize

from tests.notebooks import exercise_sheets

SHEET = "10_source_direction"
names = partial(exercise_sheets.names, SHEET)


def test_answers_are_right():
    exercise_sheets.answers_are_right(SHEET, checks=6)


def tangent(mu, noise):
    return noise - (noise @ mu)[:, None] * mu


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda mu, w, z: w[:, None] * mu + (1 - w[:, None] ** 2).sqrt() * normalize(z, dim=1), "not orthogonal to mu"),
        (lambda mu, w, z: w[:, None] * mu + (1 - w[:, None] ** 2).sqrt() * tangent(mu, z), "has not length 1"),
        (
            lambda mu, w, z: w[:, None] * mu + (1 - w[:, None] ** 2).sqrt() * tangent(mu, normalize(z, dim=1)),
            "before its part along mu",
        ),
        (
            lambda mu, w, z: w[:, None] * mu + (1 - w[:, None] ** 2).sqrt() * normalize(tangent(mu, z), dim=0),
            "along the batch",
        ),
        (lambda mu, w, z: w[:, None] * mu + (1 - w[:, None] ** 2) * normalize(tangent(mu, z), dim=1), "square root"),
        (lambda mu, w, z: w[:, None] * mu + (1 - w[:, None]) * normalize(tangent(mu, z), dim=1), "1 - w;"),
        (lambda mu, w, z: w[:, None] * mu + normalize(tangent(mu, z), dim=1), "is missing"),
        (
            lambda mu, w, z: (1 - w[:, None] ** 2).sqrt() * mu + w[:, None] * normalize(tangent(mu, z), dim=1),
            "are swapped",
        ),
        (lambda mu, w, z: w * mu + w, "raises RuntimeError"),
    ],
)
def test_around(attempt, words):
    names("around", attempt, words)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda a, kappa, dim: kappa * a.cos(), "factor sin^(d-2) is missing"),
        (lambda a, kappa, dim: kappa * a.cos() + dim * a.sin().log(), "power of the sine is d;"),
        (lambda a, kappa, dim: kappa * a.cos() + (dim - 1) * a.sin().log(), "power of the sine is d - 1"),
        (lambda a, kappa, dim: kappa * a.cos() + (dim - 3) * a.sin().log(), "density of the cosine"),
        (lambda a, kappa, dim: kappa * a.cos() - (dim - 2) * a.sin().log(), "sign of its logarithm"),
        (lambda a, kappa, dim: -kappa * a.cos() + (dim - 2) * a.sin().log(), "sign of kappa"),
        (lambda a, kappa, dim: kappa * a + (dim - 2) * a.sin().log(), "angle itself"),
        (lambda a, kappa, dim: (kappa * a.cos()).exp() * a.sin() ** (dim - 2), "its logarithm is asked"),
        (lambda a, kappa, dim: kappa * a.cos() + (dim - 2) * a.sin(), "its logarithm must be"),
    ],
)
def test_density_of_the_angle(attempt, words):
    names("log_density_of_angle", attempt, words)


def kappa_of(r, d):
    return r * (d - r**2) / (1 - r**2)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda x, mu: kappa_of((x @ mu).mean() / mu.norm(), x.shape[1]), "data are not normalized"),
        (lambda x, mu: kappa_of((normalize(x, dim=1) @ mu).mean(), x.shape[1]), "mu is not normalized"),
        (lambda x, mu: kappa_of((x @ mu).mean(), x.shape[1]), "neither"),
        (
            lambda x, mu: kappa_of(normalize(x.mean(0), dim=0) @ normalize(mu, dim=0), x.shape[1]),
            "cosine of the mean vector",
        ),
        (
            lambda x, mu: kappa_of((normalize(x, dim=0) @ normalize(mu, dim=0)).mean(), x.shape[1]),
            "along the batch",
        ),
        (lambda x, mu: (normalize(x, dim=1) @ normalize(mu, dim=0)).mean(), "this is r"),
        (lambda x, mu: kappa_of((normalize(x, dim=1) @ normalize(mu, dim=0)).mean(), len(x)), "n stands where d"),
        (lambda x, mu: kappa_of(normalize(x, dim=1) @ normalize(mu, dim=0), x.shape[1]), "take the mean"),
    ],
)
def test_concentration(attempt, words):
    names("concentration", attempt, words)


@pytest.mark.parametrize("wrong", ["denominator", "term", "factor"])
def test_formula_of_concentration(wrong):
    words = {"denominator": "1 - r; it must", "term": "-r^2 beside d", "factor": "factor r is missing"}
    formula = {
        "denominator": lambda r, d: r * (d - r**2) / (1 - r),
        "term": lambda r, d: r * d / (1 - r**2),
        "factor": lambda r, d: (d - r**2) / (1 - r**2),
    }

    def attempt(x, mu):
        return formula[wrong]((normalize(x, dim=1) @ normalize(mu, dim=0)).mean(), x.shape[1])

    names("concentration", attempt, words[wrong])


@pytest.mark.parametrize(
    ("vectors", "choose", "finish", "words"),
    [
        ("u", "argmax", lambda m: m, "not length 1"),
        ("x", "argmax", lambda m: normalize(m, dim=1), "long ones count more"),
        ("x", "argmax", lambda m: m, "neither"),
        ("u", "argmin", lambda m: normalize(m, dim=1), "smallest cosine"),
        ("u", "argmax", lambda m: normalize(m, dim=0), "wrong axis"),
    ],
)
def test_k_means_step(vectors, choose, finish, words):
    def attempt(x, centres):
        u = normalize(x, dim=1)
        belongs = getattr(u @ centres.T, choose)(dim=1)
        means = [{"u": u, "x": x}[vectors][belongs == k].mean(0) for k in range(len(centres))]
        return finish(torch.stack(means))

    names("k_means_step", attempt, words)


@pytest.mark.parametrize(
    ("weigh", "words"),
    [
        (lambda z: torch.full_like(z, 1 / len(z)), "weights are missing"),
        (lambda z: z.exp(), "not normalized"),
        (lambda z: z / z.sum(), "logarithms of the densities"),
        (lambda z: torch.softmax(-z, dim=0), "sign of the log-density"),
    ],
)
def test_weights_of_disagreement(weigh, words):
    def attempt(log_density, points, x, t):
        w, v = weigh(log_density((x - t * points) / (1 - t)))[:, None], (points - x) / (1 - t)
        return (w * (v - (w * v).sum(0)).square()).sum()

    names("disagreement", attempt, words)


@pytest.mark.parametrize(
    ("starts", "words"),
    [
        (lambda points, x, t: x - t * points, "must be divided by 1 - t"),
        (lambda points, x, t: points, "taken at the data points"),
        (lambda points, x, t: x.expand_as(points), "every data point counts the same"),
    ],
)
def test_starts_of_disagreement(starts, words):
    def attempt(log_density, points, x, t):
        w, v = torch.softmax(log_density(starts(points, x, t)), dim=0)[:, None], (points - x) / (1 - t)
        return (w * (v - (w * v).sum(0)).square()).sum()

    names("disagreement", attempt, words)


@pytest.mark.parametrize(
    ("finish", "words"),
    [
        (lambda w, v: (w * v.square()).sum(), "mean is not subtracted"),
        (lambda w, v: (w * (v - v.mean(0)).square()).sum(), "no weights in it"),
        (lambda w, v: (v - (w * v).sum(0)).square().sum(1).mean(), "weights are in the mean only"),
        (lambda w, v: (w * (v - (w * v).sum(0)).square()).sum(0).mean(), "mean over the coordinates"),
        (lambda w, v: (w * (v - (w * v).sum(0)).square()).sum().sqrt(), "standard deviation"),
        (lambda w, v: (w * v).sum(0).square().sum(), "mean velocity"),
        (lambda w, v: (w * (v - (w * v).sum(0)).square()).sum(0), "take the mean (or sum) over all"),
    ],
)
def test_variance_of_disagreement(finish, words):
    def attempt(log_density, points, x, t):
        w = torch.softmax(log_density((x - t * points) / (1 - t)), dim=0)[:, None]
        return finish(w, (points - x) / (1 - t))

    names("disagreement", attempt, words)


def test_the_division_of_the_targets():
    def attempt(log_density, points, x, t):
        w = torch.softmax(log_density((x - t * points) / (1 - t)), dim=0)[:, None]
        return (w * (points - (w * points).sum(0)).square()).sum()

    names("disagreement", attempt, "1/(1-t)^2 is missing")
