"""The checks of the exercises to chapter 06 name the mistakes that learners make."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from tests.notebooks import exercise_sheets

SHEET = "06_images"
names = partial(exercise_sheets.names, SHEET)


def test_answers_are_right():
    exercise_sheets.answers_are_right(SHEET, checks=6)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda k, u, levels: 2 * k / levels - 1, "no noise"),
        (lambda k, u, levels: 2 * (k + 0.5) / levels - 1, "the middle of each bin"),
        (lambda k, u, levels: (k + u) / (levels - 1) * 2 - 1, "bins are too wide"),
        (lambda k, u, levels: 2 * k / levels - 1 + u, "added after the scaling"),
        (lambda k, u, levels: (k + u) / levels, "fill [0, 1]"),
        (lambda k, u, levels: (k + u) / 127.5 - 1, "not the right values"),
    ],
)
def test_dequantization(attempt, words):
    names("place_in_bin", attempt, words)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda p, d, L: -p / (d * math.log(2)) - math.log2(L / 2), "sign of the constant"),
        (lambda p, d, L: -p / math.log(2) + math.log2(L / 2), "forgot d"),
        (lambda p, d, L: -p / d + math.log2(L / 2), "still in nats"),
        (lambda p, d, L: -p / d + math.log(L / 2), "nats/dim"),
        (lambda p, d, L: -p / (d * math.log(2)), "constant is missing"),
        (lambda p, d, L: -p / (d * math.log(2)) + math.log2(L), "bins on [0, 1]"),
        (lambda p, d, L: p / (d * math.log(2)) + math.log2(L / 2), "minus sign of the log-density"),
        (
            lambda p, d, L: (-p / (d * math.log(2)) + math.log2(L / 2)).mean(),
            "averaged (or summed) over everything",
        ),
    ],
)
def test_bits(attempt, words):
    names("bits_per_dim", attempt, words)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda p: p.mean(0), "mean of the logarithms"),
        (lambda p: p.exp().mean(0).log(), "overflows"),
        (lambda p: p.logsumexp(0), "forgot log K"),
        (lambda p: p.logsumexp(0) / len(p), "outside the logarithm"),
        (lambda p: p.max(0).values, "largest of the draws"),
        (lambda p: p.logsumexp(1) - math.log(p.shape[1]), "over the images"),
    ],
)
def test_log_mean(attempt, words):
    names("log_mean", attempt, words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m, A, B, root: (A + B - 2 * root(root(A) @ B @ root(A))).trace(), "means are missing"),
        (lambda m, A, B, root: m @ m + (A + B - 2 * A @ B).trace(), "outer square root"),
        (lambda m, A, B, root: m.norm() + (A + B - 2 * root(root(A) @ B @ root(A))).trace(), "is not squared"),
        (lambda m, A, B, root: m @ m + (A + B - 2 * root(A) @ root(B)).trace(), "same axes"),
        (lambda m, A, B, root: m @ m + (A + B - root(root(A) @ B @ root(A))).trace(), "factor 2"),
        (lambda m, A, B, root: (m @ m + (A + B - 2 * root(root(A) @ B @ root(A))).trace()).sqrt(), "square root"),
        (lambda m, A, B, root: m @ m, "covariances are missing"),
    ],
)
def test_frechet_distance(change, words):
    def root(matrix):
        values, vectors = torch.linalg.eigh(matrix)
        return vectors * values.clamp(min=0).sqrt() @ vectors.T

    def attempt(a, b):
        return change(a.mean(0) - b.mean(0), torch.cov(a.T), torch.cov(b.T), root)

    names("frechet", attempt, words)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda e, a, s, da, ds, x: da / a * (x + s * e) - ds * e, "sign of the noise"),
        (lambda e, a, s, da, ds, x: da / a * (x + s * s * e) - s * ds * e, "taken for a score"),
        (lambda e, a, s, da, ds, x: da / a * (x - s * e), "term with sigma' is missing"),
        (lambda e, a, s, da, ds, x: da * (x - s * e) + ds * e, "without being divided by alpha"),
        (lambda e, a, s, da, ds, x: e, "noise itself"),
        (lambda e, a, s, da, ds, x: (x - s * e) / a - e, "straight path only"),
    ],
)
def test_velocity_of_noise(attempt, words):
    def velocity(model, path, x, t):
        c = t[:, None]
        return attempt(model(x, t), path.alpha(c), path.sigma(c), path.d_alpha(c), path.d_sigma(c), x)

    names("velocity", velocity, words)
