"""The checks of the exercises to chapter 11 name the mistakes that learners make."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from tests.notebooks import exercise_sheets

SHEET = "11_norms_and_pruning"
names = partial(exercise_sheets.names, SHEET)


def test_answers_are_right():
    exercise_sheets.answers_are_right(SHEET, checks=4)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda t, c: c * t / (1 + (c - 1) * t), "its inverse is asked"),
        (lambda t, c: t / c, "only divided by c"),
        (lambda t, c: t.clone(), "c plays no part"),
        (lambda t, c: t / (c + c * t - t), "is flipped"),
        (lambda t, c: t / (c - c * t + t) * c, "too much"),
        (lambda t, c: c * (c - c * t + t) ** -2, "density"),
    ],
)
def test_aligned_time(attempt, words):
    names("aligned_time", attempt, words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v, y, s, c, a: ((c - 1) * y + c * v(y / a, s)) / a, "at the time s; its own clock"),
        (lambda v, y, s, c, a: ((c - 1) * y + c * v(y / a, c * s)) / a, "at the time c s"),
        (lambda v, y, s, c, a: ((c - 1) * y + c * v(y, c * s / a[:, 0])) / a, "at the point y"),
        (lambda v, y, s, c, a: c / a * v(y / a, c * s / a[:, 0]), "change of scale is missing"),
        (lambda v, y, s, c, a: ((1 - c) * y + c * v(y / a, c * s / a[:, 0])) / a, "is flipped"),
        (lambda v, y, s, c, a: ((c - 1) * y + v(y / a, c * s / a[:, 0])) / a, "factor c of v"),
        (lambda v, y, s, c, a: (c - 1) * y + c * v(y / a, c * s / a[:, 0]), "missing at the end"),
        (lambda v, y, s, c, a: (c - 1) * y + c / a * v(y / a, c * s / a[:, 0]), "only v is divided"),
        (lambda v, y, s, c, a: ((c - 1) * y + c / a * v(y / a, c * s / a[:, 0])) / a, "a squared"),
    ],
)
def test_aligned_velocity(change, words):
    def attempt(v, y, s, c):
        return change(v, y, s, c, (1 + (c - 1) * s)[:, None])

    names("aligned_velocity", attempt, words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p, n, tau: (p.amax(0) <= tau, (-p).amax(0) <= tau), "not divided by their lengths"),
        (lambda p, n, tau: ((-p / n).amax(0) <= tau, (p / n).amax(0) <= tau), "swapped"),
        (lambda p, n, tau: ((p / n).amax(0) > tau, (-p / n).amax(0) > tau), "that are kept"),
        (lambda p, n, tau: ((p / n).mean(0) <= tau, (-p / n).mean(0) <= tau), "mean cosine"),
        (lambda p, n, tau: ((p / n).amin(0) <= tau, (-p / n).amin(0) <= tau), "smallest cosine is compared"),
        (lambda p, n, tau: ((p / n).amax(0) <= tau, (p / n).amax(0) <= tau), "answer of +a"),
        (lambda p, n, tau: ((p / n).abs().amax(0) <= tau, (p / n).abs().amax(0) <= tau), "only with its opposite"),
    ],
)
def test_rejected_ends(change, words):
    def attempt(axes, points, tau):
        return torch.stack(change(points @ axes.T, points.norm(dim=1, keepdim=True), tau), dim=1)

    names("rejected_ends", attempt, words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda inside, top, share: top / share, "accepted too"),
        (lambda inside, top, share: inside.float(), "coin toss is missing"),
        (lambda inside, top, share: ~inside * top / share, "the others thrown away"),
        (lambda inside, top, share: inside * share / top, "upside down"),
        (lambda inside, top, share: inside / share, "F(bound / threshold) is missing"),
        (lambda inside, top, share: inside * share, "must be divided by"),
        (lambda inside, top, share: inside * top, "same probability for all"),
    ],
)
def test_acceptance(change, words):
    def attempt(m, threshold, bound, shorter):
        share = shorter(bound / m.clamp(min=1e-7))
        return change(m <= threshold, shorter(bound / threshold), share)

    names("acceptance", attempt, words)


def test_acceptance_of_negative_cosines():
    def attempt(m, threshold, bound, shorter):
        return (m <= threshold) * shorter(bound / threshold) / shorter(bound / m.abs())

    names("acceptance", attempt, "F is 1 there, not F(bound / |m|)")
