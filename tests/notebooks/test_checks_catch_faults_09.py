"""The checks of the exercises to chapter 09 name the mistakes that learners make."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from tests.notebooks import exercise_sheets

SHEET = "09_source_geometry"
names = partial(exercise_sheets.names, SHEET)


def test_answers_are_right():
    exercise_sheets.answers_are_right(SHEET, checks=5)


LOG2, LOG_PI = math.log(2), math.log(math.pi)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda r, d: -d / 2 * (LOG2 + LOG_PI) - r**2 / 2, "density of a point"),
        (
            lambda r, d: ((1 - d / 2) * LOG2 - math.lgamma(d / 2) + (d - 1) * torch.log(r) - r**2 / 2).exp(),
            "its logarithm is asked",
        ),
        (lambda r, d: (1 - d / 2) * LOG2 - math.lgamma(d / 2) + d * torch.log(r) - r**2 / 2, "not like r^d"),
        (lambda r, d: (1 - d / 2) * LOG2 - math.lgamma(d / 2) - r**2 / 2, "area of the unit sphere"),
        (lambda r, d: -d / 2 * LOG2 - math.lgamma(d / 2) + (d - 1) * torch.log(r) - r**2 / 2, "factor 2"),
        (lambda r, d: (1 - d / 2) * LOG2 - math.lgamma(d) + (d - 1) * torch.log(r) - r**2 / 2, "not Gamma(d)"),
        (lambda r, d: (1 - d / 2) * LOG2 + math.lgamma(d / 2) + (d - 1) * torch.log(r) - r**2 / 2, "subtracted"),
        (lambda r, d: (1 - d / 2) * LOG2 + (d - 1) * torch.log(r) - r**2 / 2, "Gamma(d/2) is missing"),
        (
            lambda r, d: LOG2 + d / 2 * LOG_PI - math.lgamma(d / 2) + (d - 1) * torch.log(r) - r**2 / 2,
            "(2 pi)^(-d/2)",
        ),
        (lambda r, d: (1 - d / 2) * LOG2 - math.lgamma(d / 2) + (d - 1) * torch.log(r) - r**2, "not -r^2"),
        (lambda r, d: (1 - d / 2) * LOG2 - math.lgamma(d / 2) + (d - 1) * torch.log(r), "exponential"),
    ],
)
def test_length(attempt, words):
    names("log_length_density", attempt, words)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (lambda a, b: (a * b).sum(1), "inner product"),
        (lambda a, b: (a * b).sum(1) / a.norm(dim=1), "length of the noise"),
        (lambda a, b: (a * b).sum(1) / b.norm(dim=1), "length of the images"),
        (lambda a, b: (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)), "square roots"),
        (lambda a, b: (a * b).sum(1) / (a.norm() * b.norm()), "whole batch"),
        (lambda a, b: ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).acos(), "that is the angle"),
    ],
)
def test_cosines(rule, words):
    names("cosines", lambda images, noise: rule(images.flatten(1), noise.flatten(1)), words)


def test_cosines_of_centred_images():
    def attempt(images, noise):
        a, b = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (images, noise))
        return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))

    names("cosines", attempt, "correlation")


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (lambda q, p, n, m: torch.minimum(q / n, p / m).sum(), "can stay"),
        (lambda q, p, n, m: (q - p).clamp(min=0).sum(), "divide by n and m"),
        (lambda q, p, n, m: (q / n - p / m).abs().sum(), "take half"),
        (lambda q, p, n, m: (q / n - p / m).max(), "largest surplus"),
        (lambda q, p, n, m: (q / n - p / m).sum(), "cancel"),
        (lambda q, p, n, m: ((q / n - p / m) ** 2).sum(), "squared"),
        (lambda q, p, n, m: 1 - (q / n * p / m).sum(), "independently"),
        (lambda q, p, n, m: (q / n - p / m).clamp(min=0).mean(), "add up"),
    ],
)
def test_must_cross(rule, words):
    def attempt(source, data, modes):
        q, p = (torch.bincount(x, minlength=modes).float() for x in (source, data))
        return rule(q, p, len(source), len(data))

    names("must_cross", attempt, words)


@pytest.mark.parametrize(
    ("best", "last", "words"),
    [
        (lambda v: v.min(), lambda v: v[:, -1].mean(), "each run has its own best"),
        (lambda v: v.mean(0).min(), lambda v: v[:, -1].mean(), "mean over runs is taken before"),
        (lambda v: v.min(0).values.mean(), lambda v: v[:, -1].mean(), "wrong axis"),
        (lambda v: v.max(1).values.mean(), lambda v: v[:, -1].mean(), "small is good"),
        (lambda v: v.min(1).values.mean(), lambda v: v[-1].mean(), "last run"),
        (lambda v: v.min(1).values.mean(), lambda v: v.mean(), "mean over all checkpoints"),
        (lambda v: v.min(1).values.mean(), lambda v: v[:, 0].mean(), "first checkpoint"),
        (lambda v: v[:, -1].mean(), lambda v: v.min(1).values.mean(), "other order"),
    ],
)
def test_best_and_last(best, last, words):
    names("best_and_last", lambda values: torch.stack([best(values), last(values)]), words)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda mean, std: mean, "mean of the values"),
        (lambda mean, std: mean + 1.54 * std, "not above it"),
        (lambda mean, std: mean - 1.54, "standard deviation is missing"),
        (lambda mean, std: mean - std, "one standard deviation below"),
        (lambda mean, std: mean - 1.54 * std / math.sqrt(10), "no mean"),
        (lambda mean, std: mean - 1.54 * std**2, "not to be squared"),
    ],
)
def test_smallest_of_ten(attempt, words):
    names("smallest_of_ten", attempt, words)
