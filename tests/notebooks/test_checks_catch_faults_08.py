"""The checks of the exercises to chapter 08 name the mistakes that learners make."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from fmcore.closed_form import EmpiricalVelocity
from tests.notebooks import exercise_sheets

SHEET = "08_generalization"
names = partial(exercise_sheets.names, SHEET)


def test_answers_are_right():
    exercise_sheets.answers_are_right(SHEET, checks=5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b, x, s, e: ((e[:, 1:] / e[:, 1:].sum(1, keepdim=True)) @ b[0, 1:] - x) / s, "b_1 = x1 is missing"),
        (lambda b, x, s, e: (b[:, 0] - x) / s, "conditional velocity of x1 alone"),
        (lambda b, x, s, e: (b.mean(1) - x) / s, "weights are missing"),
        (lambda b, x, s, e: ((e[:, :, None] * b).sum(1) - x) / s, "not normalized"),
        (lambda b, x, s, e: ((e / e.sum(0))[:, :, None] * b).sum(1) / s - x / s, "over the batch"),
        (lambda b, x, s, e: ((e**2 / (e**2).sum(1, keepdim=True))[:, :, None] * b).sum(1) / s - x / s, "factor 2"),
        (lambda b, x, s, e: ((e / e.sum(1, keepdim=True))[:, :, None] * b).sum(1) - x, "division by 1 - t"),
        (lambda b, x, s, e: ((e / e.sum(1, keepdim=True))[:, :, None] * b).sum(1), "mean of the points"),
        (lambda b, x, s, e: (b[torch.arange(len(x)), e.argmax(1)] - x) / s, "most likely point"),
    ],
)
def test_target(change, words):
    def attempt(xt, x1, t, bank):
        points = torch.cat([x1[:, None], bank.expand(len(x1), -1, -1)], dim=1)
        s = 1 - t[:, None]
        exponentials = torch.exp(-(xt[:, None] - t[:, None, None] * points).square().sum(2) / (2 * s**2))
        return change(points, xt, s, exponentials)

    names("target", attempt, words)


@pytest.mark.parametrize(
    ("exponent", "words"),
    [
        (lambda x, b, t: -(x - b).square().sum(2) / (2 * (1 - t) ** 2), "it must be to t b_i"),
        (lambda x, b, t: (x - t[..., None] * b).square().sum(2) / (2 * (1 - t) ** 2), "sign in the softmax is flipped"),
        (lambda x, b, t: -(x - t[..., None] * b).square().sum(2), "not divided by 2 (1 - t)^2"),
        (lambda x, b, t: -(x - t[..., None] * b).square().sum(2) / (2 - 2 * t), "1 - t is not squared"),
        (lambda x, b, t: -(x - t[..., None] * b).norm(dim=2) / (2 * (1 - t) ** 2), "distance is not squared"),
    ],
)
def test_exponent_of_target(exponent, words):
    def attempt(xt, x1, t, bank):
        points = torch.cat([x1[:, None], bank.expand(len(x1), -1, -1)], dim=1)
        weights = torch.softmax(exponent(xt[:, None], points, t[:, None]), dim=1)
        return ((weights[:, :, None] * points).sum(1) - xt) / (1 - t[:, None])

    names("target", attempt, words)


@pytest.mark.parametrize(
    ("chance", "words"),
    [
        (lambda w, i, j, n: 1 / n**2, "mean is biased"),
        (lambda w, i, j, n: w[i] * w[j], "drawn with the weights w"),
        (lambda w, i, j, n: w[i], "1/n of b_2 is missing"),
        (lambda w, i, j, n: w[i] / n if i != j else 0, "pairs with i = j are left out"),
        (lambda w, i, j, n: w[i] / n if i < j else 0, "only pairs with i < j"),
    ],
)
def test_mean_over_banks(chance, words):
    def attempt(points, x, t):
        w, n = EmpiricalVelocity(points).weights(x, t)[0], len(points)
        return sum(chance(w, i, j, n) * EmpiricalVelocity(points[[i, j]])(x, t) for i in range(n) for j in range(n))

    names("mean_over_banks", attempt, words)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (lambda a, b, x, k, tau, n: x + (b if k / n < tau else a)(x, torch.tensor(k / n)) / n, "swapped"),
        (lambda a, b, x, k, tau, n: x + (a if k / n <= tau else b)(x, torch.tensor(k / n)) / n, "not t <= switch"),
        (lambda a, b, x, k, tau, n: x + (a if k + 1 < tau * n else b)(x, torch.tensor((k + 1) / n)) / n, "at the end"),
        (lambda a, b, x, k, tau, n: x + a(x, torch.tensor(k / n)) / n, "first leads all the way"),
        (lambda a, b, x, k, tau, n: x + b(x, torch.tensor(k / n)) / n, "second leads all the way"),
        (lambda a, b, x, k, tau, n: x + (a if k / n < tau else b)(x, torch.tensor(k / n)), "not multiplied"),
        (
            lambda a, b, x, k, tau, n: x + (a if k < tau * n else b)(x, torch.tensor(k / n)) / (n - 1),
            "length of a step",
        ),
    ],
)
def test_hybrid(step, words):
    def attempt(first, second, x0, switch, steps):
        x = x0
        for k in range(steps):
            x = step(first, second, x, k, switch, steps)
        return x

    names("hybrid", attempt, words)


@pytest.mark.parametrize(
    ("times", "words"),
    [(lambda n: range(n - 1), "last step is missing"), (lambda n: range(n + 1), "one beyond t = 1")],
)
def test_number_of_steps(times, words):
    def attempt(first, second, x0, switch, steps):
        x = x0
        for k in times(steps):
            x = x + (first if k / steps < switch else second)(x, torch.tensor(k / steps)) / steps
        return x

    names("hybrid", attempt, words)


def test_start_of_the_second_part():
    def attempt(first, second, x0, switch, steps):
        x = x0
        for k in range(steps):
            if k / steps >= switch:
                x = x + second(x, torch.tensor(k / steps)) / steps
        return x

    names("hybrid", attempt, "second starts from x0 again")


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (lambda d: (d[:, 0] < d[:, 1] / 3).double().sum(), "number of copies"),
        (lambda d: (d[:, 0] >= d[:, 1] / 3).double().mean(), "NOT copies"),
        (lambda d: (d[:, 0] ** 2 < d[:, 1] ** 2 / 3).double().mean(), "squared distances"),
        (lambda d: (d[:, 0] < 1 / 3).double().mean(), "nearest distance itself"),
        (lambda d: (d[:, 0] < d[:, 1] / 2).double().mean(), "threshold is a half"),
        (lambda d: (d[:, 1] < d[:, 0] / 3).double().mean(), "no sample can pass"),
        (lambda d: (d[:, -1] < d[:, -2] / 3).double().mean(), "no sample can pass"),
    ],
)
def test_copies(share, words):
    names(
        "share_of_copies",
        lambda samples, train: share(torch.cdist(samples.flatten(1), train.flatten(1)).sort(1).values),
        words,
    )


def test_copies_along_the_wrong_axis():
    def attempt(samples, train):
        nearest, second = torch.cdist(samples.flatten(1), train.flatten(1)).sort(0).values[:2]
        return (nearest < second / 3).double().mean()

    names("share_of_copies", attempt, "counted among the training images")
