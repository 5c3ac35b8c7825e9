"""The checks of the exercises to chapter 07 name the mistakes that are planted here."""

from __future__ import annotations

import math

import pytest
import torch

from tests.notebooks import exercise_sheets


def squares(x, t, p):
    return (x[:, None] - t[:, None, None] * p).square().sum(2)


def kept_in_a_list(q, rho, chunks):
    points = torch.cat(list(chunks))
    return torch.softmax(rho * points @ q - rho**2 * points.square().sum(1) / 2, 0) @ points


def running(shrink_weight=True, shrink_total=True, subtract=True, divide=True, bias=0.5):
    """A running softmax with a part left out."""

    def running_mean(q, rho, chunks):
        largest, weight, total = torch.tensor(-torch.inf, dtype=q.dtype), 0.0, torch.zeros_like(q)
        for points in chunks:
            exponents = rho * points @ q - bias * rho**2 * points.square().sum(1)
            new = torch.maximum(largest, exponents.max()) if subtract else torch.zeros((), dtype=q.dtype)
            shrink = torch.exp(largest - new) if subtract else 1.0
            share = torch.exp(exponents - new)
            weight = weight * (shrink if shrink_weight else 1) + share.sum()
            total = total * (shrink if shrink_total else 1) + share @ points
            largest = new
        return total / weight if divide else total

    return running_mean


def chunk_by_chunk(reduce):
    """A running mean from the means of single chunks."""
    return lambda q, rho, chunks: reduce([kept_in_a_list(q, rho, [points]) for points in chunks])


class TestExercises07:
    SHEET = "07_closed_form"

    def test_answers_are_right(self):
        exercise_sheets.answers_are_right(self.SHEET, checks=6)

    @pytest.mark.parametrize(
        ("attempt", "words"),
        [
            (lambda x, t, p: torch.softmax(squares(x, t, p) / (2 * (1 - t[:, None]) ** 2), 1), "sign flipped"),
            (lambda x, t, p: torch.softmax(-squares(x, t**0, p) / (2 * (1 - t[:, None]) ** 2), 1), "forgot t"),
            (lambda x, t, p: torch.softmax(-squares(x, t, p) / (1 - t[:, None]) ** 2, 1), "factor 2"),
            (lambda x, t, p: torch.softmax(-squares(x, t, p) / (2 * (1 - t[:, None])), 1), "not squared: the variance"),
            (lambda x, t, p: torch.softmax(-squares(x, t, p), 1), "denominator is missing"),
            (
                lambda x, t, p: torch.softmax(-squares(x, t, p).sqrt() / (2 * (1 - t[:, None]) ** 2), 1),
                "distance is not squared",
            ),
            (
                lambda x, t, p: (
                    (e := torch.exp(-squares(x, t, p) / (2 * (1 - t[:, None]) ** 2))) / e.sum(1, keepdim=True)
                ),
                "maximum is not subtracted",
            ),
            (lambda x, t, p: torch.softmax(-squares(x, t, p) / (2 * (1 - t[:, None]) ** 2), 0), "over the batch"),
            (
                lambda x, t, p: torch.softmax(-squares(x, t, p) / (2 * (1 - t[:, None]) ** 2), 1).log(),
                "logarithms of the weights",
            ),
            (
                lambda x, t, p: torch.softmax(-squares(x, t, p) / (2 * p.shape[1] * (1 - t[:, None]) ** 2), 1),
                "averaged over the dimensions",
            ),
            (
                lambda x, t, p: torch.softmax(-squares(x, t[:1].expand_as(t), p) / (2 * (1 - t[0]) ** 2), 1),
                "t not broadcast over the batch",
            ),
            (
                lambda x, t, p: torch.softmax(-squares(x, t, p) / (2 * (1 - t) ** 2), 1),
                "t not broadcast over the batch",
            ),
        ],
    )
    def test_weights(self, attempt, words):
        self.names("weights", attempt, words)

    @pytest.mark.parametrize(
        ("formula", "words"),
        [
            (lambda m, q, A, S: -(A * m - A * A * q / 2) / S**2, "weight of b"),
            (lambda m, q, A, S: A * m / S**2, "second term is missing"),
            (lambda m, q, A, S: (A * m + A * A * q / 2) / S**2, "wrong sign"),
            (lambda m, q, A, S: (A * m - A * A * q) / S**2, "factor 1/2"),
            (lambda m, q, A, S: (A * m / 2 - A * A * q / 2) / S**2, "has a 2 in its denominator"),
            (lambda m, q, A, S: (2 * A * m - A * A * q / 2) / S**2, "factor 2 is left"),
            (lambda m, q, A, S: (m - q / 2) / S**2, "forgot alpha"),
            (lambda m, q, A, S: (m - A * A * q / 2) / S**2, "alpha is missing in the mixed term"),
            (lambda m, q, A, S: (A * m - A * q / 2) / S**2, "alpha is not squared"),
            (lambda m, q, A, S: (A * m - A * A * q / 2) / S, "sigma is not squared"),
            (lambda m, q, A, S: A * m - A * A * q / 2, "sigma is missing"),
            (lambda m, q, A, S: (S * m - S * S * q / 2) / A**2, "alpha and sigma swapped"),
        ],
    )
    def test_two_points(self, formula, words):
        def weight_of_a(x, a, b, alpha, sigma):
            return torch.sigmoid(formula(x @ (a - b), a @ a - b @ b, alpha, sigma))

        self.names("weight_of_a", weight_of_a, words)

    def test_two_points_without_the_sigmoid(self):
        def weight_of_a(x, a, b, alpha, sigma):
            return (alpha * x @ (a - b) - alpha**2 * (a @ a - b @ b) / 2) / sigma**2

        self.names("weight_of_a", weight_of_a, "sigmoid is missing")

    @pytest.mark.parametrize(
        ("attempt", "words"),
        [
            (running(shrink_weight=False, shrink_total=False), "old sums are not scaled down"),
            (running(shrink_weight=False), "only the sum of the points is scaled down"),
            (running(shrink_total=False), "only the sum of the weights is scaled down"),
            (running(subtract=False), "exp overflows"),
            (running(divide=False), "sum of the weights is missing"),
            (running(bias=0.0), "is missing"),
            (running(bias=1.0), "factor 1/2 of the bias"),
            (chunk_by_chunk(lambda means: sum(means) / len(means)), "plain average"),
            (chunk_by_chunk(lambda means: means[-1]), "last chunk alone"),
            (chunk_by_chunk(lambda means: means[0]), "first chunk alone"),
        ],
    )
    def test_running_mean(self, attempt, words):
        self.names("running_mean", attempt, words)

    def test_a_running_mean_that_keeps_the_chunks(self):
        self.names("running_mean", kept_in_a_list, "chunks were kept at a time", said="running_mean, memory")

    @pytest.mark.parametrize(
        ("attempt", "words"),
        [
            (lambda e: torch.exp(-(torch.softmax(e, 1) * torch.softmax(e, 1).log()).sum(1)), "0 log 0 became NaN"),
            (lambda e: torch.special.entr(torch.softmax(e, 1)).sum(1), "its exponential is missing"),
            (lambda e: torch.exp(-torch.special.entr(torch.softmax(e, 1)).sum(1)), "minus sign is missing"),
            (lambda e: 1 / torch.softmax(e, 1).square().sum(1), "sum of w^2"),
            (lambda e: torch.exp(torch.special.entr(torch.softmax(e, 1)).sum(1) / math.log(2)), "in bits"),
            (lambda e: torch.special.entr(torch.softmax(e, 1)).mean(1).exp(), "averaged over the images"),
            (lambda e: (torch.softmax(e, 1) > 0).sum(1), "above zero"),
            (lambda e: torch.special.entr(torch.softmax(e, 0)).sum(1).exp(), "over the batch"),
            (lambda e: torch.exp(-(e.exp() * e).sum(1)), "taken for log-weights"),
            (lambda e: torch.special.entr(torch.softmax(e, 1)).sum(1).mean().exp(), "mixed into one number"),
        ],
    )
    def test_effective_number(self, attempt, words):
        self.names("effective_number", attempt, words)

    @pytest.mark.parametrize(
        ("rho", "words"),
        [
            (lambda n, d, s: (n ** (2 / d) - 1) / s**2, "square root is missing"),
            (lambda n, d, s: math.sqrt(n ** (1 / d) - 1) / s, "not 1 / d"),
            (lambda n, d, s: math.sqrt(n ** (2 / d)) / s, "forgot the 1"),
            (lambda n, d, s: math.sqrt(n ** (2 / d) - 1), "s is missing"),
            (lambda n, d, s: math.sqrt(n ** (2 / d) - 1) * s, "times s"),
            (lambda n, d, s: math.sqrt(2 * math.log(n) / d) / s, "many dimensions"),
            (lambda n, d, s: math.sqrt(math.log(n) / d) / s, "first guess"),
        ],
    )
    def test_collapse_time(self, rho, words):
        self.names("collapse_time", lambda n, d, s: rho(n, d, s) / (1 + rho(n, d, s)), words)

    @pytest.mark.parametrize(
        ("attempt", "words"), [(lambda r: r, "this is rho"), (lambda r: r / (1 - r), "not by rho / (1 - rho)")]
    )
    def test_collapse_time_from_rho(self, attempt, words):
        self.names("collapse_time", lambda n, d, s: attempt(math.sqrt(n ** (2 / d) - 1) / s), words)

    def names(self, name, attempt, words, said=None):
        exercise_sheets.names(self.SHEET, name, attempt, words, said)
