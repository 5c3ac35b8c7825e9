"""The checks of the exercises to chapter 05 name the mistakes that learners make, and accept every right answer."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from fmcore.couplings import MinibatchOT
from fmcore.course import checks
from tests.notebooks import exercise_sheets, one_judge

SHEET = "05_optimal_transport"
NUMBERS = {
    "pair_on_a_line": "05.1",
    "pair_within_classes": "05.2a",
    "share_alone": "05.2b",
    "entropic_correlation": "05.3",
    "sinkhorn": "05.4b",
    "straightness": "05.5b",
}


def names(name, attempt, words, said=None):
    """The judge of this answer refuses the attempt with these words."""
    one_judge.refuses(NUMBERS[name], attempt, words=words, said=f"{said or name}:")


def exact(x0, x1):
    return MinibatchOT()(x0, x1)[0]


def test_answers_are_right():
    exercise_sheets.answers_are_right(SHEET, checks=14)


def test_without_answers_the_sheet_is_open():
    one_judge.empty_sheet_says_so(SHEET)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda x0, x1: x0.sort(dim=0).values, "x1 is not"),
        (lambda x0, x1: x0.sort(dim=0).values[x1[:, 0].argsort()], "the inverse permutation"),
        (lambda x0, x1: x0[x1[:, 0].argsort().argsort()], "must be sorted before"),
        (lambda x0, x1: x0.sort(dim=0, descending=True).values[x1[:, 0].argsort().argsort()], "order is reversed"),
        (lambda x0, x1: x0[torch.cdist(x1, x0).argmin(dim=1)], "used twice"),
        (lambda x0, x1: x0.abs().sort(dim=0).values[x1[:, 0].argsort().argsort()], "not the right values"),
    ],
)
def test_pair_on_a_line(attempt, words):
    names("pair_on_a_line", attempt, words)


def within(classes, couple_of=lambda couple: couple):
    def attempt(couple, x0, x1, labels):
        paired = x0.clone()
        for label in classes(labels):
            mine = labels == label
            if mine.any():
                paired[mine] = couple_of(couple)(x0[mine], x1[mine])
        return paired

    return attempt


def each(labels):
    return labels.unique()


def joined(couple, x0, x1, labels):
    return torch.cat([couple(x0[labels == c], x1[labels == c]) for c in labels.unique()])


def first_rows(couple, x0, x1, labels):
    paired = x0.clone()
    for c in labels.unique():
        paired[labels == c] = couple(x0[: (labels == c).sum()], x1[labels == c])
    return paired


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda couple, x0, x1, labels: MinibatchOT()(x0, x1, labels)[0], "couple is not used"),
        (within(each, lambda couple: exact), "couple is not used"),
        (within(lambda labels: range(3)), "only the classes 0, 1 and 2 are paired"),
        (within(lambda labels: range(int(labels.max()) + 1)), "labels below zero are left out"),
        (within(lambda labels: labels.unique()[:-1]), "the largest label is left out"),
        (within(lambda labels: labels.unique()[:1]), "not the right values"),
        (within(each, lambda couple: lambda a, b: couple(b, a)), "this returns data"),
        (within(each, lambda couple: lambda a, b: a), "as they came"),
        (lambda couple, x0, x1, labels: couple(x0, x1), "the labels are ignored"),
        (joined, "joined one after the other"),
        (first_rows, "so noise is used twice"),
    ],
)
def test_pair_within_classes(attempt, words):
    names("pair_within_classes", attempt, words)


def test_the_code_with_the_faults_fails():
    broken = exercise_sheets.answered(SHEET).names["broken_pairs"]
    assert not checks.exercise("05.2a", broken)


def test_pairs_by_row_numbers_pass():
    def attempt(couple, x0, x1, labels):
        rows = torch.cat([(labels == c).nonzero()[:, 0] for c in set(labels.tolist())])
        return joined_in_order(couple, x0, x1, labels)[rows.argsort()]

    def joined_in_order(couple, x0, x1, labels):
        return torch.cat([couple(x0[labels == c], x1[labels == c]) for c in set(labels.tolist())])

    assert checks.exercise("05.2a", attempt)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda b, p: (p * (1 - p) ** b).sum(), "batch - 1 other images"),
        (lambda b, p: (p * (1 - p)).sum(), "all others must"),
        (lambda b, p: ((1 - p) ** (b - 1)).mean(), "average with it"),
        (lambda b, p: torch.tensor((1 - 1 / len(p)) ** (b - 1)), "only for equally frequent"),
        (lambda b, p: (1 - 1 / 1000) ** 255, "everywhere"),
    ],
)
def test_share_alone(attempt, words):
    names("share_alone", attempt, words)


def test_share_alone_as_a_number_passes():
    assert checks.exercise("05.2b", lambda b, p: float(np.sum(p.numpy() * (1 - p.numpy()) ** (b - 1))))


def root(p):
    return -p / 2 + (p**2 / 4 + 1).sqrt()


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda e, s0, s1: root(e / 2), "s0 and s1 are missing"),
        (lambda e, s0, s1: root(e / (s0 * s1)), "a factor 2 is lost"),
        (lambda e, s0, s1: s0 * s1 * root(e / (2 * s0 * s1)), "that is the covariance"),
        (lambda e, s0, s1: -e / (2 * s0 * s1) - root(e / (2 * s0 * s1)), "the other root"),
        (lambda e, s0, s1: (-e / (2 * s0 * s1)).exp(), "not the right values"),
    ],
)
def test_entropic_correlation(attempt, words):
    names("entropic_correlation", attempt, words)


def test_the_other_form_of_the_root_passes():
    assert checks.exercise("05.3", lambda e, s0, s1: root(e / (2 * s0 * s1)))


@pytest.mark.parametrize("letter", ["a", "b", "C", None])
def test_explanation(letter):
    assert not checks.exercise("05.4a", letter)


def sinkhorn(costs, epsilon, rounds, size=None, rows_first=True):
    log_K = -costs / epsilon
    log_a, log_b = torch.zeros(len(costs)), torch.zeros(len(costs))
    size = len(costs) if size is None else size
    for k in range(2 * rounds):
        if (k % 2 == 0) == rows_first:
            log_a = -torch.logsumexp(log_K + log_b, dim=1) - math.log(size)
        else:
            log_b = -torch.logsumexp(log_K + log_a[:, None], dim=0) - math.log(size)
    return (log_a[:, None] + log_K + log_b).exp()


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (partial(sinkhorn, size=1), "must sum to 1/n"),
        (partial(sinkhorn, rows_first=False), "the rows come first"),
        (lambda c, e, r: sinkhorn(-c, e, r), "minus sign in K"),
        (lambda c, e, r: sinkhorn(c, 1.0, r), "epsilon is missing"),
        (lambda c, e, r: sinkhorn(c, e, r).T, "transposed"),
        (lambda c, e, r: sinkhorn(c, e, 100), "not the right values"),
        (lambda c, e, r: sinkhorn(c, e, r).float(), "in single precision"),
    ],
)
def test_sinkhorn(attempt, words):
    names("sinkhorn", attempt, words)


@pytest.mark.parametrize(
    "attempt",
    [
        lambda c, e, r: exercise_sheets.answered(SHEET).names["plain_sinkhorn"](c, e, r),
        lambda c, e, r: exercise_sheets.answered(SHEET).names["plain_sinkhorn"](c - c.min(), e, r),
        lambda c, e, r: exercise_sheets.answered(SHEET).names["plain_sinkhorn"](c, e, r).nan_to_num(1 / len(c) ** 2),
    ],
)
def test_sinkhorn_that_breaks(attempt):
    exercise_sheets.answered(SHEET)
    names("sinkhorn", attempt, "", said="sinkhorn for small epsilon and large costs")


def speed(S0, S1, t, at=lambda S0, S1, t: (1 - t) ** 2 * S0 + t**2 * S1):
    A = (t * S1 - (1 - t) * S0) @ torch.linalg.inv((1 - t) ** 2 * S0 + t**2 * S1)
    return (A @ at(S0, S1, t) @ A.T).trace()


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (partial(speed, at=lambda S0, S1, t: (1 - t) * S0 + t * S1), None, "not (1 - t) S0 + t S1"),
        (partial(speed, at=lambda S0, S1, t: torch.eye(len(S0)).double()), None, "covariance of x_t is missing"),
        (lambda S0, S1, t: (S0 + S1).trace(), None, "this is C"),
        (lambda S0, S1, t: (S0 + S1).trace() - speed(S0, S1, t), None, "the other part"),
        (speed, lambda S0, S1, t: (S0 + S1).trace(), "this is C"),
        (speed, speed, "the other part"),
    ],
)
def test_step_1(first, second, words, capsys):
    assert not checks.exercise("05.5a", first, second)
    assert words in capsys.readouterr().out


def integral(S0, S1):
    t = torch.linspace(0, 1, 301).double()
    return torch.trapezoid(torch.stack([speed(S0, S1, time) for time in t]), t)


def cost_of_flow(S0, S1, steps=300):
    z = torch.linalg.cholesky(S0)  # columns with the second moment S0, moved by the midpoint rule
    start = z
    for k in range(steps):
        half = z
        for t, h, base in ((k / steps, 0.5 / steps, z), ((k + 0.5) / steps, 1 / steps, z)):
            A = (t * S1 - (1 - t) * S0) @ torch.linalg.inv((1 - t) ** 2 * S0 + t**2 * S1)
            half = base + h * A @ half
        z = half
    return (z - start).square().sum()


def test_step_3_from_columns_passes():
    assert checks.exercise("05.5b", lambda S0, S1: integral(S0, S1) - cost_of_flow(S0, S1))


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (integral, "take off the cost of the flow"),
        (cost_of_flow, "this is the cost of the flow"),
        (lambda S0, S1: (S0 + S1).trace() - cost_of_flow(S0, S1), "which is V + S"),
        (lambda S0, S1: (integral(S0, S1) - cost_of_flow(S0, S1)) / 2, "factor 1/2"),
        (lambda S0, S1: 0.5, "not the same everywhere"),
    ],
)
def test_step_3(attempt, words):
    names("straightness", attempt, words)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (2 - math.pi / 2, True),
        (np.float64(2 - math.pi / 2), True),
        (torch.tensor(2 - math.pi / 2).double(), True),
        (0.0, False),
        (math.pi / 2, False),
        (0.44, False),
    ],
)
def test_straightness_of_nothing(answer, right):
    assert bool(checks.exercise("05.5c", answer)) is right


def pairings(pair=exact, draws=lambda batch: batch, half=lambda batch: batch // 2, seeded=True, shuffled=False):
    def attempt(draw, batch, repeats, seed):
        generator = torch.Generator().manual_seed(seed if seeded is True else 0)
        if seeded is None:
            generator.seed()
        found = {"permutation": [], "replacement": [], "half": []}
        for _ in range(repeats):
            for kind, size in (("permutation", batch), ("half", half(batch))):
                x0, x1 = draw(size, generator)
                x0 = pair(x0, x1)
                found[kind].append([x0[:, 0].mean(), (x1 - x0).square().sum(1).mean()])
                if kind == "permutation":
                    rows = torch.randint(batch, (draws(batch),), generator=generator)
                    partner = rows.roll(1) if shuffled else rows
                    cost = (x1[partner] - x0[rows]).square().sum(1).mean()
                    found["replacement"].append([x0[rows, 0].mean(), cost])
        return {kind: torch.tensor(rows) for kind, rows in found.items()}

    return attempt


def copied(draw, batch, repeats, seed):
    return dict.fromkeys(("permutation", "replacement", "half"), pairings()(draw, batch, repeats, seed)["permutation"])


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (pairings(pair=lambda x0, x1: x0), "draw whole pairs from the optimal plan"),
        (pairings(shuffled=True), "draw whole pairs from the optimal plan"),
        (pairings(draws=lambda batch: 4 * batch), "replacement: the batch mean of the control has the variance"),
        (pairings(half=lambda batch: batch), "half: the batch mean of the control has the variance"),
        (pairings(seeded=None), "the same seed gives other numbers"),
        (pairings(seeded=False), "the seed is not used"),
        (lambda draw, batch, repeats, seed: pairings()(draw, batch, 10, seed), "of shape (300, 2) is asked"),
        (lambda draw, batch, repeats, seed: pairings()(draw, 64, repeats, seed), "has the variance"),
        (lambda draw, batch, repeats, seed: {"permutation": [1.0]}, "a dictionary with the entries"),
        (lambda *arguments: {**copied(*arguments), "half": "much"}, "half: a tensor of finite numbers"),
        (copied, "replacement: the batch mean of the control"),
    ],
)
def test_experiment(attempt, words):
    one_judge.refuses("05.6", attempt, 2.0, "same noise, longer pairs", words=words, said="experiment")


@pytest.mark.parametrize(
    ("ratio", "verdict", "words"),
    [
        (2.0, "same noise, same pairs", "the mean squared distance is"),
        (2.0, "less noise, same pairs", "the variance of the control is"),
        (1.58, "same noise, longer pairs", "share of pairs that is used"),
        (1.0, "same noise, longer pairs", "adds to the variance"),
        (..., ..., "not written yet"),
    ],
)
def test_verdict(ratio, verdict, words):
    one_judge.refuses("05.6", pairings(), ratio, verdict, words=words)


@pytest.mark.parametrize("ratio", [2, torch.tensor(2.0), np.float64(2.0)])
def test_the_right_verdict_passes(ratio):
    one_judge.accepts("05.6", pairings(), ratio, "same noise, longer pairs")
