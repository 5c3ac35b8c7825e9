"""The checks of the exercises to chapter 01 name the mistakes that learners make."""

from __future__ import annotations

import re
from functools import partial
from itertools import pairwise

import pytest
import torch

from fmcore import closed_form, solvers
from fmcore.course import build
from tests.notebooks import exercise_sheets
from tests.notebooks.one_judge import accepts, empty_sheet_says_so, refuses, says

SHEET = "01_diffusion"


def test_answers_are_right():
    exercise_sheets.answers_are_right(SHEET, checks=10)


def test_an_empty_sheet_runs_and_says_so():
    empty_sheet_says_so(SHEET)


def test_in_the_sheet_a_mistake_is_named_and_the_other_exercises_stay_right():
    exercise_sheets.names(SHEET, "step_sizes", lambda path, K: steps(path, K).float(), "torch.float32")


def test_the_only_step_that_is_in_the_sheet_is_the_broken_one():
    sheet = build.read(build.ROOT / "chapters" / "solutions" / f"{SHEET}.py", student=True)
    code = "\n".join(cell.source for cell in sheet.cells if cell.cell_type == "code")
    assert re.findall(r"def (\w+)\(x, v, score, g, h, z\)", code) == ["broken_step", "sde_step"]
    assert not re.findall(r"def right\w*", code)


def steps(path, K, dtype=torch.float64):
    alpha = path.alpha(1 - torch.arange(K + 1, dtype=dtype) / K)
    return 1 - (alpha[1:] / alpha[:-1]) ** 2


def times(path, K):
    return 1 - torch.arange(K + 1, dtype=torch.float64) / K


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (partial(steps, dtype=torch.float32), "small steps lose digits in it: compute in torch.float64"),
        (lambda path, K: steps(path, K, torch.float32).double(), "a part is computed in single precision"),
        (lambda path, K: steps(path, K).tolist(), "a tensor of shape (K,) is asked, yours is a list"),
        (lambda path, K: steps(path, K).numpy(), "yours is a ndarray"),
        (lambda path, K: path.diffusion(times(path, K)[1:]) ** 2 / K, "DDPM's approximation"),
        (lambda path, K: 1 - (1 - steps(path, K)).sqrt(), "not squared"),
        (lambda path, K: 1 - steps(path, K), "is kept"),
        (lambda path, K: 1 - path.alpha(times(path, K))[1:] ** 2, "not the noise of step k"),
        (lambda path, K: steps(path, K).flip(0), "ordered from the source"),
        (lambda path, K: steps(path, K)[:-1], "shape (4,), but (5,) is asked"),
        (lambda path, K: steps(path, K) ** 2, "square of the right one"),
    ],
)
def test_step_sizes(attempt, words):
    refuses("01.1", attempt, words=words, said="step_sizes:")


def test_step_sizes_may_be_written_with_logarithms():
    accepts("01.1", lambda path, K: -torch.expm1(2 * path.alpha(times(path, K)).log().diff()))


def gaussian_noise(x, t, mean, std, path, formula=None):
    a, s = path.alpha(t)[:, None], path.sigma(t)[:, None]
    right = s * (x - a * mean) / (a**2 * std**2 + s**2)
    return right if formula is None else formula(x - a * mean, std, a, s)


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        (lambda x, c, a, s: -x / (a**2 * c**2 + s**2), "this is the score"),
        (lambda x, c, a, s: -s * x / (a**2 * c**2 + s**2), "sign flipped"),
        (lambda x, c, a, s: x / s, "right for a single data point"),
        (lambda x, c, a, s: s * x / (a**2 * c + s**2), "c is not squared"),
        (lambda x, c, a, s: s * x / (c**2 + s**2), "shrinks with alpha"),
        (lambda x, c, a, s: s * x, "variance of x_t is missing"),
        (lambda x, c, a, s: s * x / (a**2 * 0.25 + s**2), "not the right values"),
        (lambda x, c, a, s: s * x / (a**2 * c**2 + 1 - a**2), "not the right values"),
    ],
)
def test_the_noise_of_gaussian_data(formula, words):
    refuses("01.2", partial(gaussian_noise, formula=formula), words=words, said="gaussian_noise:")


def test_the_noise_of_gaussian_data_for_other_arguments():
    accepts("01.2", gaussian_noise)
    refuses(
        "01.2", lambda x, t, m, c, path: gaussian_noise(x, t, 0 * m, c, path), words="the term with mean is missing"
    )
    refuses(
        "01.2", lambda x, t, m, c, path: gaussian_noise(x, t[:1].expand(len(t)), m, c, path), words="one time is used"
    )
    refuses("01.2", lambda x, t, m, c, path: gaussian_noise(x, 1 - t, m, c, path), words="time runs the other way")


FALLS = "the spread falls to 0 with more steps"
SMALL = "the spread is too small by the same factor for any number of steps"
CAUSES = {FALLS: "noise term", SMALL: "score term"}


def sde_step(x, v, score, g, h, z, pull=lambda g, h: g**2 * h / 2, push=lambda g, h: g * h**0.5):
    return x + h * v + pull(g, h) * score + push(g, h) * z


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pull": lambda g, h: g * g * h, "push": lambda g, h: g * h}, "this is the broken step"),
        ({"push": lambda g, h: g * h}, "square root of h"),
        ({"push": lambda g, h: g}, "square root of h is missing"),
        ({"push": lambda g, h: 0.0}, "noise is missing"),
        ({"pull": lambda g, h: g * g * h}, "1/2 of the score term"),
        ({"pull": lambda g, h: g * h / 2}, "g is not squared"),
        ({"pull": lambda g, h: -g * g * h / 2}, "sign of the score term"),
        ({"pull": lambda g, h: 0.0}, "score term is missing"),
        ({"pull": lambda g, h: g * g / 2}, "not multiplied by h"),
    ],
)
def test_the_step_of_the_sde(change, words):
    refuses("01.3", CAUSES.get, partial(sde_step, **change), words=words, said="sde_step:")


def test_the_causes_and_other_ways_to_write_the_step():
    accepts(
        "01.3", CAUSES.get, lambda x, v, score, g, h, z: x + (v + score * g**2 / 2) * h + g * torch.tensor(h).sqrt() * z
    )
    refuses("01.3", {**CAUSES, FALLS: "score term"}.get, sde_step, words="the spread still falls", said="cause:")
    refuses("01.3", dict.fromkeys(CAUSES, "noise term").get, sde_step, words="mend the noise term alone", said="cause:")
    refuses("01.3", dict(zip(CAUSES, [3, 4], strict=True)).get, sde_step, words="3 is not the answer", said="cause:")


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (lambda s, ds: s * ds, "sign flipped"),
        (lambda s, ds: -s, "derivative of sigma is missing"),
        (lambda s, ds: -ds, "sigma is missing"),
        (lambda s, ds: -ds / s, "divided by sigma"),
        (lambda s, ds: -s * ds / 2, "a factor 1/2 too many"),
        (lambda s, ds: torch.log(torch.tensor(60.0)) * s**2 + 0 * ds, "not the right values"),  # of one path only
    ],
)
def test_the_exploding_ode(factor, words):
    def attempt(score, t, path):
        return factor(path.sigma(t), path.d_sigma(t))[:, None] * score

    refuses("01.4", attempt, words=words, said="exploding_velocity:")


def rate(e, path, t, factor=lambda a, s, da, ds: (ds - s * da / a) / a):
    return factor(path.alpha(t), path.sigma(t), path.d_alpha(t), path.d_sigma(t)) * e


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (lambda a, s, da, ds: ds / a, "derivative of 1 / alpha is missing"),
        (lambda a, s, da, ds: (ds * a + s * da) / a**2, "sign in the quotient rule"),
        (lambda a, s, da, ds: (ds * a - s * da) / a, "alpha squared"),
        (lambda a, s, da, ds: s / a, "its derivative is asked"),
        (lambda a, s, da, ds: (da * s - a * ds) / s**2, "upside down"),
    ],
)
def test_the_first_step_of_the_proof(factor, words):
    accepts("01.5a", rate)
    refuses("01.5a", partial(rate, factor=factor), words=words, said="rate_of_y:")


def ddim(x, e, path, t, r):
    return path.alpha(r) / path.alpha(t) * (x - path.sigma(t) * e) + path.sigma(r) * e


def rho(path, t):
    return path.sigma(t) / path.alpha(t)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda x, e, path, t, r: ddim(x, e, path, t, r) / path.alpha(r), "multiply by alpha there"),
        (lambda x, e, path, t, r: ddim(x, e, path, t, r) / path.alpha(r) * path.alpha(t), "alpha of the old time"),
        (lambda x, e, path, t, r: path.alpha(r) * (x + (rho(path, r) - rho(path, t)) * e), "x is taken for y"),
        (lambda x, e, path, t, r: path.alpha(r) * (x / path.alpha(t) + (r - t) * e), "rho is sigma / alpha"),
        (lambda x, e, path, t, r: ddim(x, e, path, r, t), "t and r swapped"),
        (lambda x, e, path, t, r: x + (r - t) * path.noise_to_velocity(e, x, t), "an Euler step in t"),
        (lambda x, e, path, t, r: ddim(x, 0 * e, path, t, r), "term with e is missing"),
    ],
)
def test_the_second_step_of_the_proof(attempt, words):
    accepts("01.5b", ddim)
    refuses("01.5b", attempt, words=words, said="ddim_step:")


def end(x, c, path, t, r, old=None, new=None):
    e = (x - path.alpha(t) * c) / (path.sigma(t) if old is None else old)
    return path.alpha(r) * c + (path.sigma(r) if new is None else new) * e


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (partial(end, old=1.0), "not divided by sigma of the old time"),
        (partial(end, new=1.0), "sigma of the new time is missing"),
        (lambda x, c, path, t, r: c.expand_as(x), "at t = 1 only"),
        (lambda x, c, path, t, r: end(x, c, path, t, r) - (path.alpha(r) - path.alpha(t)) * c, "alpha of the old time"),
        (lambda x, c, path, t, r: c, "shape (2,), but (4, 2) is asked"),
    ],
)
def test_the_third_step_of_the_proof(attempt, words):
    accepts("01.5c", end)
    refuses("01.5c", attempt, words=words, said="end_of_trajectory:")


def errors(path, points, seed, counts=(4, 8, 16), starts=200, t1=0.95, change=None, same=False):
    """A report on DDIM and Euler; `change` alters it."""
    x0 = path.source_scale * torch.randn(starts, 2, generator=torch.Generator().manual_seed(seed))

    def distances(points, counts):
        exact = closed_form.EmpiricalVelocity(points, path)
        truth = solvers.solve(exact, x0, t1=0.95, rtol=1e-4, atol=1e-4).x
        for n in counts:
            x, times = x0, torch.linspace(0, t1, n + 1)
            for t, r in pairwise(times):
                x = ddim(x, path.velocity_to_noise(exact(x, t), x, t), path, t, r)
            other = x if same else solvers.solve(exact, x0, t1=t1, method="euler", times=times).x
            yield [float((found - truth).norm(dim=1).mean()) for found in (x, other)]

    first, second = zip(*distances(points, counts), strict=True)
    report = {"steps": list(counts), "DDIM": list(first), "Euler": list(second)}
    report |= {"control": next(distances(points[:1], counts[:1])), "nearer": "DDIM" if first < second else "Euler"}
    return report | (change(report) if change else {})


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (partial(errors, counts=(4, 16)), "at least three numbers of steps"),
        (partial(errors, counts=(4, 5, 6)), "four times the smallest"),
        (partial(errors, same=True), "variance_preserving, Euler with"),
        (partial(errors, change=lambda r: {"DDIM": [0.2, 0.1, 0.05]}), "variance_preserving, DDIM"),
        (partial(errors, change=lambda r: {"DDIM": r["DDIM"][:2]}), "one mean distance for each"),
        (partial(errors, change=lambda r: {"control": 0.0}), "two distances"),
        (partial(errors, change=lambda r: {"control": r["control"][::-1]}), "with one data point DDIM is exact"),
        (partial(errors, change=lambda r: {"control": [0.0, 0.0]}), "with one data point Euler's distance"),
        (lambda path, points, seed: errors(path, points, 1), "another seed gives the same numbers"),
        (
            lambda path, points, seed: errors(path, points, int(torch.randint(10**6, ()))),
            "two runs with the same seed differ",
        ),
        (partial(errors, change=lambda r: {"nearer": ...}), "not written yet"),
        (lambda path, points, seed: None, "not written yet"),
        (lambda path, points, seed: ("DDIM", "Euler"), "return a dictionary"),
    ],
)
def test_the_comparison_of_ddim_and_euler(attempt, words):
    refuses("01.6", attempt, words=words, said="experiment:")


def test_the_comparison_may_not_be_that_of_another_path():
    from fmcore import paths

    fixed = paths.variance_preserving()
    refuses("01.6", lambda path, points, seed: errors(fixed, points, seed), words="variance_exploding, ")


def test_the_verdict_must_follow_from_the_numbers():
    accepts("01.6", errors)
    wrong = partial(errors, change=lambda r: {"nearer": "Euler"})
    refuses("01.6", wrong, words="smaller for DDIM at most numbers of steps, path variance_exploding", said="nearer:")


def test_a_wrong_attempt_leaves_nothing_behind():
    first = says("01.5b", ddim)
    refuses("01.5b", lambda *a: ddim(*a) + 1, words="off by a constant")
    assert says("01.5b", ddim) == first
