"""The checks of the exercises to chapter 00 name the mistakes that learners make."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from fmcore import closed_form, losses, paths, solvers
from tests.notebooks import exercise_sheets
from tests.notebooks.one_judge import accepts, empty_sheet_says_so, refuses, says

SHEET = "00_start_here"


def test_answers_are_right():
    exercise_sheets.answers_are_right(SHEET, checks=9)


def test_an_empty_sheet_runs_and_says_so():
    empty_sheet_says_so(SHEET)


def test_in_the_sheet_a_mistake_is_named_and_the_other_exercises_stay_right():
    exercise_sheets.names(SHEET, "mended_loss", lambda *a: loss(*a).detach(), "no gradient", "gradient of mended_loss")


def euler(velocity, x0, n, time=lambda k, n: k / n, steps=lambda n: n, length=lambda n: 1 / n):
    x = x0
    for k in range(steps(n)):
        x = x + length(n) * velocity(x, torch.tensor(time(k, n)))
    return x


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"time": lambda k, n: (k + 1) / n}, "time starts at h"),
        ({"time": lambda k, n: 0.0}, "time never moves"),
        ({"time": lambda k, n: float(k)}, "t = k h"),
        ({"time": lambda k, n: 1 - k / n}, "other way"),
        ({"steps": lambda n: n - 1}, "one step too few"),
        ({"length": lambda n: 1.0}, "step length h is missing"),
        ({"steps": lambda n: 1}, "only one step"),
        ({"steps": lambda n: 4, "length": lambda n: 1 / 4, "time": lambda k, n: k / 4}, "not the right values"),
    ],
)
def test_euler(change, words):
    refuses("00.1", partial(euler, **change), words=words, said="euler:")


def test_euler_may_not_change_its_start_and_gives_the_velocity_a_tensor():
    def in_place(velocity, x0, n):
        for k in range(n):
            x0 += velocity(x0, torch.tensor(k / n)) / n
        return x0

    refuses("00.1", in_place, words="changes its argument x0")
    refuses("00.1", lambda v, x0, n: euler(lambda x, t: v(x, float(t)), x0, n), words="raises AttributeError: 'float'")


@pytest.mark.parametrize("loss_of", [{"A": "two moons"}, {"B": "too wide"}, {"C": "two moons"}, {"C": "moons"}])
def test_what_a_loss_leads_to(loss_of):
    right = {"A": "too wide", "B": "two moons", "C": "as at the start"}
    accepts("00.2a", right.get)
    refuses("00.2a", (right | loss_of).get, words=f"{next(iter(loss_of))}: ")
    refuses("00.2a", lambda name: [right[name]], words="one of the words is asked")
    refuses("00.2a", lambda name: right["D"], words="KeyError")
    refuses("00.2a", lambda name: None, words="not written yet")


def error(model, x0, x1, t):
    s = t.reshape(-1, *[1] * (x0.ndim - 1))
    return model((1 - s) * x0 + s * x1, t) - (x1 - x0)


def loss(*a):
    return error(*a).square().mean()


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda *a: error(*a).square().sum(1).mean() / 2, "only where that axis has two entries"),
        (lambda *a: error(*a).square().sum(1).mean(), "summed over axis 1"),
        (lambda *a: error(*a).square().sum(), "sum instead of mean"),
        (lambda *a: error(*a).square().mean(0), "take the mean (or sum) over all"),
        (lambda *a: error(*a).square().sum() / a[1].shape[0] / 2, "not the right values"),
        (lambda model, x0, x1, t: loss(model, x1, x0, t), "x0 and x1 swapped"),
        (lambda model, x0, x1, t: loss(model, x0, x1, 1 - t), "time runs the other way"),
        (lambda model, x0, x1, t: loss(lambda x, s: model(x0 + x1 - x, t), x0, x1, t), "changed places"),
        (
            lambda model, x0, x1, t: loss(lambda x, s: model(x, s) - x0, x0, x1, t),
            "the velocity of the pair is x1 - x0",
        ),
        (lambda model, x0, x1, t: loss(lambda x, s: model(x1, t), x0, x1, t), "asked at x1"),
        (lambda model, x0, x1, t: loss(model, x0, x1, t[:1].expand(len(t))), "one time is used for all rows"),
        (lambda model, x0, x1, t: (model(x0 * (1 - t) + x1 * t, t) - x1 + x0).square().mean(), "t not broadcast"),
        (
            lambda model, x0, x1, t: (model(x0 * (1 - t[:, None]) + x1 * t[:, None], t) - x1 + x0).square().mean(),
            "along the rows of each image",
        ),
    ],
)
def test_the_value_of_the_loss(attempt, words):
    refuses("00.2b", attempt, words=words, said="value of mended_loss:")


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda *a: loss(*a).detach(), "no gradient reaches the model"),
        (lambda *a: loss(*a).item(), "no gradient reaches the model"),
        (lambda *a: (error(*a) * error(*a).detach()).mean(), "a part of the error is detached"),
        (lambda model, *a: loss(lambda x, t: model(x, t).detach(), *a), "no gradient reaches the model"),
    ],
)
def test_the_gradient_of_the_loss(attempt, words):
    refuses("00.2b", attempt, words=words, said="gradient of mended_loss:")


def test_the_loss_may_be_written_in_other_ways():
    accepts("00.2b", loss)
    accepts("00.2b", lambda *a: torch.nn.functional.mse_loss(error(*a), torch.zeros_like(a[1])))
    accepts("00.2b", lambda model, *a: losses.conditional_flow_matching(model, paths.rectified(), *a))
    accepts("00.2b", lambda *a: error(*a).flatten(1).square().mean(1).mean())


@pytest.mark.parametrize(
    ("share", "left", "words"),
    [
        (lambda t, h: h, None, "what is left of it at time t is shorter"),
        (lambda t, h: (1 - t - h) / (1 - t), None, "left after the step"),
        (lambda t, h: h * (1 - t), None, "the velocity divides by it"),
        (lambda t, h: h / t, None, "divided by t"),
        (None, lambda k, n: k / n, "part of the way that is done"),
        (None, lambda k, n: 1 - 1 / (n - k + 1), "not the right values"),
        (None, lambda k, n: (1 - 1 / n) ** k, "not all the same"),
        (None, lambda k, n: 1 - (k + 1) / n, "one step too many"),
        (None, lambda k, n: 0.0, "zero everywhere"),
        (None, lambda k, n: None, "not written yet"),
    ],
)
def test_the_proof(share, left, words):
    right = (lambda t, h: h / (1 - t), lambda k, n: (n - k) / n)
    accepts("00.3", *right)
    refuses("00.3", share or right[0], left or right[1], words=words, said="share:" if share else "left:")


@pytest.mark.parametrize(
    ("answer", "left", "words"),
    [
        (lambda a, b, p: (a + b) / 2, None, "plain average"),
        (lambda a, b, p: (1 - p) * a + p * b, None, "shares are swapped"),
        (lambda a, b, p: a if p >= 0.5 else b, None, "more frequent kind"),
        (lambda a, b, p: p * a, None, "the term with b is missing"),
        (None, lambda a, b, p: p * (1 - p) * (a - b).norm(), "not squared"),
        (None, lambda a, b, p: p * (1 - p) * (a - b).square().mean(), "averaged over the coordinates"),
        (None, lambda a, b, p: p * (1 - p) * (a - b).square().sum() / 2, "factor 1/2"),
        (None, lambda a, b, p: (1 - p) * (a - b).square().sum(), "L at v = a"),
        (None, lambda a, b, p: (a - b).square().sum() / 4, "for p = 1/2"),
        (None, lambda a, b, p: p * (1 - p) ** 2 * (a - b).square().sum(), "one of the two terms"),
        (None, lambda a, b, p: torch.tensor(0.0), "zero everywhere"),
    ],
)
def test_where_lines_cross(answer, left, words):
    right = (lambda a, b, p: b + p * (a - b), lambda a, b, p: float(p * (1 - p) * ((a - b) @ (a - b))))
    accepts("00.4", *right)
    refuses("00.4", answer or right[0], left or right[1], words=words, said="best_answer:" if answer else "loss_left:")


def copies(points, seed, follow=None, each=100, verdict="equally often", steps=60, method="midpoint", change=None):
    generator = torch.Generator().manual_seed(seed)
    n = len(points)
    x0 = torch.randn(each * n, 2, generator=generator)
    velocity = closed_form.EmpiricalVelocity(points)
    x = follow(x0) if follow else solvers.solve(velocity, x0, t1=0.999, method=method, steps=steps).x
    counts = {
        "flow": torch.bincount(torch.cdist(x, points).argmin(1), minlength=n),
        "control": torch.bincount(torch.randint(n, (each * n,), generator=generator), minlength=n),
        "verdict": verdict,
    }
    return counts | (change(counts, n) if change else {})


def lots(n, seed=None):
    generator = torch.Generator().manual_seed(seed) if seed is not None else None
    return torch.bincount(torch.randint(n, (100 * n,), generator=generator), minlength=n)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (partial(copies, follow=lambda x0: x0), "far from those of the exact velocity"),
        (partial(copies, method="euler", steps=20), "take more steps"),
        (partial(copies, each=20), "at least 50"),
        (partial(copies, change=lambda c, n: {"flow": c["flow"] / c["flow"].sum()}), "not shares"),
        (partial(copies, change=lambda c, n: {"flow": c["flow"][:5]}), "one count for each of the 20"),
        (partial(copies, change=lambda c, n: {"flow": [100] * 20}), "one count for each of the 25"),
        (partial(copies, change=lambda c, n: {"flow": c["control"]}), "one of them is a copy"),
        (partial(copies, change=lambda c, n: {"flow": lots(n, 5)}), "another seed gives the same counts"),
        (partial(copies, change=lambda c, n: {"flow": lots(n, int(c["flow"][0] + 7 * c["flow"][1]))}), "other counts"),
        (partial(copies, change=lambda c, n: {"control": torch.full((n,), 100)}), "the control scatters 0.00"),
        (partial(copies, change=lambda c, n: {"control": lots(n)}), "two runs with the same seed differ"),
        (partial(copies, change=lambda c, n: {"control": 2 * lots(n, 1)}), "take equally many"),
        (partial(copies, change=lambda c, n: {"verdict": ...}), "not written yet"),
        (lambda points, seed: copies(points, 3), "another seed gives the same counts"),
        (lambda points, seed: {"flow": [100] * len(points)}, "'control' is missing"),
        (lambda points, seed: [100] * len(points), "return a dictionary"),
        (lambda points: None, "positional argument"),
        (lambda points, seed: None, "not written yet"),
    ],
)
def test_counts_of_copies(attempt, words):
    refuses("00.5", attempt, words=words, said="experiment:")


def test_the_verdict_on_copies():
    accepts("00.5", lambda *a: {key: getattr(v, "tolist", lambda v=v: v)() for key, v in copies(*a).items()})
    refuses("00.5", partial(copies, verdict="some more often"), words="your numbers do not show this", said="verdict:")


def test_a_wrong_attempt_leaves_nothing_behind():
    first = says("00.2b", loss)
    refuses("00.2b", lambda *a: loss(*a) + 1, words="off by a constant")
    assert says("00.2b", loss) == first
