"""The checks of the exercises to chapter 04 name the mistakes that learners make, and accept every right answer."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch

from fmcore import paths
from fmcore.course import checks
from fmcore.course.exercises.chapter_04 import _errors
from tests.notebooks import exercise_sheets, one_judge

SHEET = "04_probability_paths"
NUMBERS = {
    "alpha_of": "04.1",
    "moved_velocity": "04.2a",
    "sampler": "04.3b",
    "weight_of_time_change": "04.4a",
    "time_of_equal_weights": "04.4b",
    "mean_square": "04.5a",
    "excess": "04.5b",
    "extra_energy": "04.5c",
}


def names(name, attempt, words):
    """The judge of this answer refuses the attempt with these words."""
    one_judge.refuses(NUMBERS[name], attempt, words=words, said=f"{name}:")


def test_answers_are_right():
    exercise_sheets.answers_are_right(SHEET, checks=15)


def test_without_answers_the_sheet_is_open():
    one_judge.empty_sheet_says_so(SHEET)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda sigma, t: 1 - sigma(t), "sigma_0 is missing"),
        (lambda sigma, t: torch.ones_like(t), "alpha_0 = 0 is asked"),
        (lambda sigma, t: (1 - sigma(t) ** 2).sqrt(), "not a number"),
        (lambda sigma, t: t, "not the right values"),
        (lambda sigma, t: 1 - (math.pi / 2 * t).cos(), "not the right values"),
    ],
)
def test_alpha(attempt, words):
    names("alpha_of", attempt, words)


def rate(f, t):
    return (f(t + 1e-5) - f(t - 1e-5)) / 2e-5


def moved(formula, place=lambda c, x: c * x, time=lambda s, t: s(t)):
    def attempt(velocity, s, c, x, t):
        there = velocity(place(c(t)[:, None], x), time(s, t))
        return formula(there, rate(s, t)[:, None], c(t)[:, None], rate(c, t)[:, None] * x)

    return attempt


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (moved(lambda v, ds, c, dcx: ds * v / c), "the term with c'(t) is missing"),
        (moved(lambda v, ds, c, dcx: (v - dcx) / c), "the factor s'(t) is missing"),
        (moved(lambda v, ds, c, dcx: (ds * v + dcx) / c), "sign of the term with c'(t)"),
        (moved(lambda v, ds, c, dcx: (ds * v - dcx) / c, place=lambda c, x: x), "asked at x, not at y"),
        (moved(lambda v, ds, c, dcx: (ds * v - dcx) / c, time=lambda s, t: t), "not the right values"),
        (lambda velocity, s, c, x, t: velocity(x, t), "not the right values"),
        (lambda velocity, s, c, x, t: torch.zeros_like(x), "zero everywhere"),
    ],
)
def test_moved_velocity(attempt, words):
    names("moved_velocity", attempt, words)


def test_moved_velocity_may_take_differences():
    assert checks.exercise("04.2a", moved(lambda v, ds, c, dcx: (ds * v - dcx) / c))


COSINE = paths.cosine()


def right_time(t):
    return COSINE.alpha(t) / (COSINE.alpha(t) + COSINE.sigma(t))


@pytest.mark.parametrize(
    ("time", "scale", "words"),
    [
        (lambda t: t, torch.ones_like, "time is not changed"),
        (lambda t: COSINE.alpha(t) / COSINE.sigma(t), torch.ones_like, "the ratio alpha / sigma"),
        (lambda t: 1 - right_time(t), torch.ones_like, "upside down"),
        (right_time, torch.ones_like, "the factor is not 1"),
        (right_time, lambda t: (1 - t) / COSINE.sigma(t), "taken at t"),
        (right_time, lambda t: 1 - right_time(t), "divide it by that of the cosine path"),
    ],
)
def test_time_and_scale(time, scale, words, capsys):
    assert not checks.exercise("04.2b", time, scale)
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("vp", "ve", "words"),
    [
        ("source", "source", "the start is right"),
        ("solver", "source", "four times as many steps"),
        ("data", "data", "hardly change"),
        ("data", "solver", "four times as many steps"),
        ("both", "source", "is not the answer"),
        (["data"], "source", "one choice is asked"),
    ],
)
def test_ends_at_fault(vp, ve, words, capsys):
    assert not checks.exercise("04.3a", vp, ve)
    assert words in capsys.readouterr().out


def heun(velocity, path, noise, steps, scaled=True, last=None, end=None):
    x, h = (path.source_scale if scaled else 1) * noise, (end or path.t_max) / steps
    for k in range(steps):
        first = velocity(x, min(k * h, last or 1))
        x = x + h / 2 * (first + velocity(x + h * first, min((k + 1) * h, last or 1)))
    return x


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (partial(heun, scaled=False, last=0.9, end=1.0), "nothing is mended"),
        (partial(heun, scaled=False), "at the source the noise must be as wide"),
        (partial(heun, last=0.9, end=1.0), "still that of t = 0.9"),
        (partial(heun, end=0.9), "stops at t = 0.9"),
        (lambda v, p, x, n: heun(v, p, x, 2), "not the right values"),
        (lambda v, p, x, n: 2 + 0.5 * x, "not the right values"),
        (partial(heun, end=1.0), "NaN"),
    ],
)
def test_sampler(attempt, words):
    names("sampler", attempt, words)


def test_another_method_and_tensors_of_time_pass():
    def runge_kutta(velocity, path, noise, steps):
        x = noise * path.source_scale
        times = torch.linspace(0, path.t_max, steps + 1, dtype=noise.dtype)
        for t, end in itertools.pairwise(times):
            h = end - t
            k1 = velocity(x, t)
            k2 = velocity(x + h / 2 * k1, t + h / 2)
            k3 = velocity(x + h / 2 * k2, t + h / 2)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + velocity(x + h * k3, end))
        return x

    assert checks.exercise("04.3b", runge_kutta)


@pytest.mark.parametrize(
    ("name", "attempt", "words"),
    [
        ("weight_of_time_change", lambda g, tau: rate(g, tau) ** 2, "one factor g' is cancelled"),
        ("weight_of_time_change", lambda g, tau: torch.ones_like(tau), "enters twice"),
        ("weight_of_time_change", lambda g, tau: 2 * tau, "not the right values"),
        ("time_of_equal_weights", lambda tau, first: first + (1 - first) * tau, "straight line"),
        ("time_of_equal_weights", lambda tau, first: first**tau, "time runs the other way"),
        ("time_of_equal_weights", lambda tau, first: 0.1 ** (1 - tau), "not the right values"),
        ("mean_square", lambda p, t, m, d: p.d_alpha(t) ** 2 * m + p.d_sigma(t) ** 2, "E |x0|^2 is d"),
        ("mean_square", lambda p, t, m, d: p.alpha(t) ** 2 * m + p.sigma(t) ** 2 * d, "the places, not the velocities"),
        ("mean_square", lambda p, t, m, d: p.d_alpha(t) ** 2 * m + p.d_sigma(t) ** 2 * 2, "not the right values"),
        ("excess", lambda f: (rate(f, torch.linspace(0, 1, 2001).double()) ** 2).mean(), "is not subtracted"),
        ("excess", lambda f: 0.0, "zero everywhere"),
    ],
)
def test_time_change_and_steps_of_the_proof(name, attempt, words):
    names(name, attempt, words)


def slope_variance(f):
    return rate(f, (torch.arange(5000).double() + 0.5) / 5000).var(correction=0)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda path, m, d: slope_variance(path.alpha) + slope_variance(path.sigma), "factors m and d are missing"),
        (lambda path, m, d: d * slope_variance(path.alpha) + m * slope_variance(path.sigma), "are swapped"),
        (lambda path, m, d: m * slope_variance(path.alpha), "the part of the noise is missing"),
        (lambda path, m, d: (math.pi**2 / 8 - 1) * (m + d), "not the right values"),
    ],
)
def test_extra_energy(attempt, words):
    names("extra_energy", attempt, words)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (math.pi**2 / 8, True),
        (np.float32(math.pi**2 / 8), True),
        (torch.tensor(math.pi**2 / 8).double(), True),
        (math.pi**2 / 4, False),
        (8 / math.pi**2, False),
        ("1.23", False),
    ],
)
def test_energy_ratio(answer, right):
    assert bool(checks.exercise("04.5d", answer)) is right


def measured(data, steps):
    errors = [_errors(float(m), float(s), steps) for m, s in data]
    return {name: [error[name] for error in errors] for name in ("rectified", "cosine")}


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda data, steps: measured(data, 10), "33 steps"),
        (lambda data, steps: measured([(0, s) for _, s in data], steps), "is right"),
        (lambda data, steps: measured(data[:1], steps), "one error for each of the 4 pairs"),
        (lambda data, steps: {"rectified": [0.1] * len(data)}, "a dictionary with the entries"),
        (lambda data, steps: {name: ["small"] * len(data) for name in measured(data, 1)}, "one error for each"),
    ],
)
def test_measure(attempt, words):
    one_judge.refuses("04.6", attempt, (5.0, 0.2), (0.0, 1.0), "depends on the data", words=words, said="measure:")


@pytest.mark.parametrize(
    ("rectified", "cosine", "verdict", "words"),
    [
        ((5.0, 0.2), (0.0, 1.0), "depends on the data", "✓ verdict"),
        ([10, 0.5], torch.tensor([0.0, 0.9]), "depends on the data", "✓ verdict"),
        ((0.0, 0.3), (0.0, 1.0), "depends on the data", "the errors for (m, s) = (0.0, 0.3) are"),
        ((5.0, 0.2), (5.0, 0.2), "depends on the data", "the errors for (m, s) = (5.0, 0.2) are"),
        ((5.0, 0.2), None, "rectified", "there is one"),
        ((5.0, 0.2), (0.0, 1.0), "rectified", "speaks against it"),
        ((0.0, 0.001), (0.0, 1.0), "depends on the data", "a pair (m, s) is asked"),
        (5.0, (0.0, 1.0), "depends on the data", "a pair (m, s) is asked"),
        (..., ..., ..., "not written yet"),
    ],
)
def test_verdict(rectified, cosine, verdict, words, capsys):
    checks.exercise("04.6", measured, rectified, cosine, verdict)
    assert words in capsys.readouterr().out.splitlines()[-1]
