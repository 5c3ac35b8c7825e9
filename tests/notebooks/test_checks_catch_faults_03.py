"""The checks of the exercises to chapter 03 name the mistakes that learners make, and accept every right answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fmcore.closed_form import EmpiricalVelocity
from fmcore.course import checks
from tests.notebooks import exercise_sheets, one_judge

SHEET = "03_flow_matching"
NUMBERS = {
    "conditional_velocity": "03.1",
    "marginal_velocity": "03.2",
    "training_loss": "03.3a",
    "perfect_loss_at": "03.4a",
    "perfect_loss": "03.4b",
    "rate": "03.5a",
    "mean_rate": "03.5b",
    "rate_of_square": "03.5c",
}


def names(name, attempt, words, said=None):
    """The judge of this answer refuses the attempt with these words."""
    one_judge.refuses(NUMBERS[name], attempt, words=words, said=f"{said or name}:")


def test_answers_are_right():
    exercise_sheets.answers_are_right(SHEET, checks=12)


def test_without_answers_the_sheet_is_open():
    one_judge.empty_sheet_says_so(SHEET)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda x, x1, t, s: (x1 - x) / (1 - t[:, None]), "sigma_min is left out"),
        (lambda x, x1, t, s: (x1 - (1 - s) * x) / (1 - t[:, None]), "the denominator is 1 - t"),
        (lambda x, x1, t, s: x1 - (1 - s) * x, "x is put in where x0 belongs"),
        (
            lambda x, x1, t, s: (x1 - (1 - s) * x) / (1 - (1 - s) * t[:, None]) * (2 / x.shape[1]),
            "not the right values",
        ),
    ],
)
def test_conditional_velocity(attempt, words):
    names("conditional_velocity", attempt, words)


def marginal(logits_of, axis=1):
    def attempt(x, t, points, log_source):
        weights = torch.softmax(logits_of(x[:, None], t[:, None, None], points, log_source), dim=axis)
        return (weights @ points - x) / (1 - t[:, None])

    return attempt


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (marginal(lambda x, t, p, f: -((x - t * p) / (1 - t)).square().sum(-1) / 2), "log_source is not used"),
        (marginal(lambda x, t, p, f: f(x - t * p)), "the noise sample that leads there"),
        (marginal(lambda x, t, p, f: -f((x - t * p) / (1 - t))), "sign of the exponent"),
        (marginal(lambda x, t, p, f: f((x - t * p) / (1 - t)), axis=0), "not the right values"),
        (lambda x, t, p, f: EmpiricalVelocity(p)(x, t), "log_source is not used"),
    ],
)
def test_marginal_velocity(attempt, words):
    names("marginal_velocity", attempt, words)


def test_densities_that_vanish_in_double_precision():
    def attempt(x, t, points, log_source):
        chances = log_source((x[:, None] - t[:, None, None] * points) / (1 - t[:, None, None])).exp()
        return (chances @ points / chances.sum(dim=1, keepdim=True) - x) / (1 - t[:, None])

    names("marginal_velocity", attempt, "not a number", said="marginal_velocity far from the data")


def loss_with(reduce, times=lambda x1, g: torch.rand(len(x1), generator=g), target=lambda x0, x1, xt: x1 - x0):
    def attempt(model, x1, generator):
        t = times(x1, generator)
        x0 = torch.randn(x1.shape, generator=generator)
        xt = (1 - t[:, None]) * x0 + t[:, None] * x1
        return reduce(model(xt, t) - target(x0, x1, xt))

    return attempt


def mean_square(error):
    return error.square().mean()


def shared_time(x1, generator):
    return torch.rand(1, generator=generator).expand(len(x1))


def time_of_each_coordinate(model, x1, generator):
    t = torch.rand(x1.shape, generator=generator)
    x0 = torch.randn(x1.shape, generator=generator)
    return mean_square(model((1 - t) * x0 + t * x1, t[:, 0]) - (x1 - x0))


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (loss_with(lambda e: e.square().sum(1).mean() / 2), "a mean only where d = 2"),
        (loss_with(lambda e: e.square().sum(1).mean()), "the mean runs over rows and dimensions"),
        (loss_with(lambda e: e.square().sum()), "summed over rows and dimensions"),
        (loss_with(mean_square, target=lambda x0, x1, xt: x0 - x1), "target is x0 - x1"),
        (loss_with(mean_square, target=lambda x0, x1, xt: x1), "target is x1"),
        (loss_with(mean_square, target=lambda x0, x1, xt: x1 - torch.randn_like(x1)), "draw x0 once"),
        (loss_with(mean_square, times=shared_time), "not uniform on [0, 1]"),
        (loss_with(mean_square, times=lambda x1, g: torch.randn(len(x1), generator=g)), "not uniform on [0, 1]"),
        (loss_with(mean_square, times=lambda x1, g: torch.rand(len(x1))), "same generator gives another loss"),
        (time_of_each_coordinate, "a row has one time"),
        (loss_with(lambda e: e.detach().square().mean()), "no gradient"),
        (loss_with(lambda e: float(e.detach().square().mean())), "return a tensor"),
        (loss_with(lambda e: (e.detach() * e).mean() * 1.0), "a part detached"),
    ],
)
def test_training_loss(attempt, words):
    names("training_loss", attempt, words)


def test_training_loss_may_be_written_otherwise():
    def attempt(model, x1, generator):
        x0 = torch.randn(x1.shape, generator=generator)
        t = 1 - torch.rand(len(x1), generator=generator)
        return torch.nn.functional.mse_loss(model(torch.lerp(x0, x1, t[:, None]), t), x1 - x0)

    assert checks.exercise("03.3a", attempt)


@pytest.mark.parametrize("word", ["velocity", "noise", "zero", "x1"])
def test_what_is_learned(word):
    assert not checks.exercise("03.3b", word)
    assert checks.exercise("03.3b", "data")


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda t, s, rho: s**2 / ((1 - t) ** 2 + t**2 * s**2), "rho is left out"),
        (lambda t, s, rho: 1 + s**2 - 2 * rho * s, "when x_t is not known"),
        (
            lambda t, s, rho: s**2 / ((1 - t) ** 2 + t**2 * s**2 + 2 * rho * t * (1 - t) * s),
            "numerator lacks 1 - rho^2",
        ),
        (
            lambda t, s, rho: s**2 * (1 - rho**2) / ((1 - t) ** 2 + t**2 * s**2 + 2 * abs(rho) * t * (1 - t) * s),
            "not the right values",
        ),
    ],
)
def test_perfect_loss_at(attempt, words):
    names("perfect_loss_at", attempt, words)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda s: math.pi / 2, "the value for s = 1"),
        (lambda s: math.pi * s / 4, "factor 2 is missing"),
        (lambda s: 0.0, "only if x_t determines x0 and x1"),
    ],
)
def test_perfect_loss(attempt, words):
    names("perfect_loss", attempt, words)


@pytest.mark.parametrize("number", [float, np.float32, np.float64, lambda x: torch.tensor(x).double(), torch.tensor])
def test_perfect_loss_in_other_types(number):
    assert checks.exercise("03.4b", lambda s: number(math.pi * s / 2))


def along(phi, x, direction):
    x = x.clone().requires_grad_()
    return (torch.autograd.grad(phi(x).sum(), x)[0] * direction).sum(dim=1)


@pytest.mark.parametrize(
    ("name", "attempt", "words"),
    [
        ("rate", lambda phi, x0, x1, t: along(phi, x1, x1 - x0), "taken at x1"),
        ("rate", lambda phi, x0, x1, t: along(phi, (1 - t[:, None]) * x0 + t[:, None] * x1, x0 - x1), "sign flipped"),
        ("rate", lambda phi, x0, x1, t: torch.zeros(len(x0)), "zero everywhere"),
        (
            "mean_rate",
            lambda phi, x, t, p: torch.stack([along(phi, x, (q - x) / (1 - t)) for q in p]).mean(0),
            "all pairs have the same weight",
        ),
        ("mean_rate", lambda phi, x, t, p: along(phi, x, -EmpiricalVelocity(p)(x, t)), "sign flipped"),
        ("rate_of_square", lambda t, p: 2 * t * p.square().sum(1).mean(), "the part of the noise is missing"),
        ("rate_of_square", lambda t, p: -2 * (1 - t) + 2 * t * p.square().sum(1).mean(), "E |x0|^2 is d"),
        (
            "rate_of_square",
            lambda t, p: -4 * (1 - t) + 2 * t * p.square().sum(1).mean(),
            "not the right values",
        ),
    ],
)
def test_steps_of_the_proof(name, attempt, words):
    names(name, attempt, words)


RANKING = ["stratified", "independent", "one for all"]


def measured(repeats=250, seeded=True, one=False, scale=1.0):
    def attempt(loss_of, ways, batch, seed):
        generator = torch.Generator().manual_seed(seed if seeded is True else 0)
        if seeded is None:
            generator.seed()
        found = {}
        for name, draw in ways.items():
            draw = ways["independent"] if one else draw
            losses = torch.stack([loss_of(draw(batch, generator), generator) for _ in range(repeats)])
            found[name] = (float(losses.mean()), scale * float(losses.std()), repeats)
        return found

    return attempt


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (measured(repeats=20), "200 are needed"),
        (measured(seeded=None), "the same seed gives other numbers"),
        (measured(seeded=False), "the seed is not used"),
        (measured(one=True), "on a loss with a known spread"),
        (measured(scale=1 / 250**0.5), "standard deviation of the losses of whole batches"),
        (lambda loss_of, ways, batch, seed: {}, "an entry for each of"),
        (lambda loss_of, ways, batch, seed: dict.fromkeys(ways, (2.0, 0.4, 500)), "known spread"),
        (lambda loss_of, ways, batch, seed: dict.fromkeys(ways, ("much", "little", "often")), "must be (mean"),
    ],
)
def test_measure_times(attempt, words):
    sheet = exercise_sheets.answered(SHEET).names
    one_judge.refuses("03.6", attempt, RANKING, sheet["loss_of"], sheet["WAYS"], words=words, said="measure_times")


@pytest.mark.parametrize(
    ("ranking", "right"),
    [
        (["stratified", "independent", "one for all"], True),
        (("stratified", "independent", "one for all"), True),
        (["independent", "stratified", "one for all"], False),
        (["one for all", "independent", "stratified"], False),
        (["stratified"], False),
        ("stratified", False),
    ],
)
def test_a_ranking_is_judged_by_the_measurement(ranking, right):
    sheet = exercise_sheets.answered(SHEET).names
    assert bool(checks.exercise("03.6", measured(), ranking, sheet["loss_of"], sheet["WAYS"])) is right
