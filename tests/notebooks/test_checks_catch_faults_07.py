"""The checks of the exercises to chapter 07 name the mistakes that learners make, and accept every right answer."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from fmcore import closed_form, solvers
from tests.notebooks import exercise_sheets
from tests.notebooks.one_judge import accepts, empty_sheet_says_so, refuses, says

SHEET = "07_closed_form"


def test_answers_are_right():
    exercise_sheets.answers_are_right(SHEET, checks=11)


def test_the_empty_sheet():
    empty_sheet_says_so(SHEET)


def weight_with(formula):
    def weight_of_a(x, a, b, alpha, sigma):
        return torch.sigmoid(formula(x @ (a - b), a @ a - b @ b, alpha, sigma))

    return weight_of_a


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        (lambda m, q, A, S: -(A * m - A * A * q / 2) / S**2, "weight of b"),
        (lambda m, q, A, S: A * m / S**2, "second term is missing"),
        (lambda m, q, A, S: (A * m + A * A * q / 2) / S**2, "wrong sign"),
        (lambda m, q, A, S: (A * m - A * A * q) / S**2, "factor 1/2"),
        (lambda m, q, A, S: (m - q / 2) / S**2, "forgot alpha"),
        (lambda m, q, A, S: (A * m - A * q / 2) / S**2, "alpha is not squared"),
        (lambda m, q, A, S: (A * m - A * A * q / 2) / S, "sigma is not squared"),
        (lambda m, q, A, S: (S * m - S * S * q / 2) / A**2, "alpha and sigma swapped"),
        (lambda m, q, A, S: (A * m - A * A * q / 2) / (1 - A) ** 2, "not the right values"),  # the straight path
    ],
)
def test_two_points(formula, words):
    refuses("07.1", weight_with(formula), words=words)


def test_two_points_far_away():
    right = weight_with(lambda m, q, A, S: (A * m - A * A * q / 2) / S**2)
    accepts("07.1", right)
    accepts(
        "07.1", lambda x, a, b, A, S: torch.softmax(-(torch.cdist(x, A * torch.stack([a, b])) ** 2) / 2 / S**2, 1)[:, 0]
    )

    def by_exp(x, a, b, alpha, sigma):
        at_a, at_b = (torch.exp(-(x - alpha * p).square().sum(1) / (2 * sigma**2)) for p in (a, b))
        return at_a / (at_a + at_b)

    refuses("07.1", by_exp, words="not a number", said="weight_of_a far from both:")
    refuses("07.1", lambda *a: torch.logit(right(*a)), words="sigmoid is missing")


def borders(points, p):
    return torch.special.ndtri(p[points.argsort()].cumsum(0)[:-1])


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda x, p: (x.sort().values[1:] + x.sort().values[:-1]) / 2, "half way between"),
        (lambda x, p: torch.special.ndtri(p.cumsum(0)[:-1]), "not sorted"),
        (lambda x, p: p[x.argsort()].cumsum(0)[:-1], "probabilities of the noise"),
        (lambda x, p: torch.special.ndtr(p[x.argsort()].cumsum(0)[:-1]), "its inverse is needed"),
        (lambda x, p: torch.special.ndtri(torch.arange(1, len(p)) / len(p)).double(), "the same probability"),
        (lambda x, p: borders(-x, p), "from the right"),
        (lambda x, p: -borders(x, p), "sign flipped"),
        (lambda x, p: torch.special.ndtri(p[x.argsort()].cumsum(0)), "is asked"),
    ],
)
def test_borders(attempt, words):
    accepts("07.2", borders)
    accepts("07.2", lambda x, p: torch.tensor([torch.special.ndtri(p[x <= one].sum()) for one in x.sort().values[:-1]]))
    refuses("07.2", attempt, words=words)


def test_borders_are_where_the_flow_divides():
    """The judge's formula against the flow: points of multiplicity 1, 2 and 1 (followed from both sides)."""
    points = torch.tensor([[0.0], [-2.0], [0.5], [0.0]]).double()
    cuts = borders(torch.tensor([0.0, -2.0, 0.5]), torch.tensor([0.5, 0.25, 0.25])).double()
    starts = torch.stack([cuts - 0.02, cuts + 0.02], 1).flatten()[:, None]
    ends = solvers.solve(closed_form.EmpiricalVelocity(points), starts, t1=0.9999, rtol=1e-6, atol=1e-6).x
    assert torch.allclose(ends[:, 0], torch.tensor([-2.0, 0.0, 0.0, 0.5]).double(), atol=1e-2)


def exponents(q, rho, points, bias=0.5):
    return rho * points @ q - bias * rho**2 * points.square().sum(1)


def kept(collect):
    """The posterior mean of all points at once, from what was collected of the chunks."""

    def running_mean(q, rho, chunks):
        points = collect(chunks)
        return torch.softmax(exponents(q, rho, points), 0) @ points

    return running_mean


def joined(chunks):
    points = torch.zeros(0)
    for chunk in chunks:
        points = chunk if len(points) == 0 else torch.cat([points, chunk])
    return points


def running(shrink_weight=True, shrink_total=True, subtract=True, divide=True, bias=0.5, start=-torch.inf, keep=None):
    """A running softmax, with a part left out or something kept."""

    def running_mean(q, rho, chunks):
        seen = []
        largest, weight, total = torch.tensor(start, dtype=q.dtype), 0.0, torch.zeros_like(q)
        for points in chunks:
            found = exponents(q, rho, points, bias)
            seen += [keep(points, found)] if keep else []
            new = torch.maximum(largest, found.max()) if subtract else torch.zeros((), dtype=q.dtype)
            shrink = torch.exp(largest - new) if subtract else 1.0
            share = torch.exp(found - new)
            weight = weight * (shrink if shrink_weight else 1) + share.sum()
            total = total * (shrink if shrink_total else 1) + share @ points
            largest = new
        return total / weight if divide else total

    return running_mean


def chunk_by_chunk(reduce):
    """A running mean from the means of single chunks."""
    return lambda q, rho, chunks: reduce([torch.softmax(exponents(q, rho, p), 0) @ p for p in chunks])


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
def test_running_mean(attempt, words):
    refuses("07.3", attempt, words=words, said="running_mean:")


@pytest.mark.parametrize(
    "attempt",
    [
        kept(lambda chunks: torch.cat(list(chunks))),
        kept(joined),
        kept(lambda chunks: torch.tensor([row for chunk in chunks for row in chunk.tolist()]).double()),
        kept(lambda chunks: torch.tensor(np.concatenate([chunk.numpy() for chunk in chunks]))),
        kept(lambda chunks: torch.tensor(np.concatenate([chunk.numpy().copy() for chunk in chunks]))),
        running(keep=lambda points, found: found),
        running(keep=lambda points, found: points.float()),
        running(keep=lambda points, found: found.tolist()),
    ],
)
def test_a_running_mean_that_keeps_what_goes_by(attempt):
    refuses("07.3", attempt, words="keep nothing else that grows", said="running_mean, memory:")


def by_numpy(q, rho, chunks):
    largest, weight, total = -math.inf, 0.0, 0.0
    for chunk in chunks:
        points = chunk.numpy()
        found = rho * points @ q.numpy() - rho**2 / 2 * (points**2).sum(1)
        new = max(largest, found.max())
        share = np.exp(found - new)
        weight, total = weight * math.exp(largest - new) + share.sum(), total * math.exp(largest - new) + share @ points
        largest = new
    return torch.tensor(total / weight)


def by_logarithms(q, rho, chunks):
    log_weight, mean = None, None
    for points in chunks:
        found = exponents(q, rho, points)
        own, of_chunk = torch.logsumexp(found, 0), torch.softmax(found, 0) @ points
        if log_weight is None:
            log_weight, mean = own, of_chunk
        else:
            both = torch.logaddexp(log_weight, own)
            mean = mean * torch.exp(log_weight - both) + of_chunk * torch.exp(own - both)
            log_weight = both
    return mean


def in_place(q, rho, chunks):
    largest, sums = -math.inf, torch.zeros(len(q) + 1).to(q)
    for points in chunks:
        found = exponents(q, rho, points)
        new = max(largest, found.max().item())
        sums *= math.exp(largest - new)
        sums[0] += torch.exp(found - new).sum()
        sums[1:] += torch.exp(found - new) @ points
        largest = new
    return sums[1:] / sums[0]


def test_a_wrong_attempt_leaves_nothing_behind():
    for right in (running(), by_numpy, by_logarithms, in_place):
        refuses("07.3", kept(joined), words="keep nothing else", said="running_mean, memory:")
        refuses("07.3", running(bias=0.0), words="is missing")
        accepts("07.3", right)
    assert says("07.3", running()) == says("07.3", by_numpy)


def entr(w):
    return torch.special.entr(w).sum(1)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda e: torch.exp(-(torch.softmax(e, 1) * torch.softmax(e, 1).log()).sum(1)), "0 log 0 became NaN"),
        (lambda e: torch.exp(-(torch.softmax(e, 0) * torch.softmax(e, 0).log2()).sum(1)), "none of the three"),
        (lambda e: torch.exp(-(torch.softmax(e, 0) * torch.softmax(e, 0).log()).sum(1)), "over the batch, and 0 log 0"),
        (lambda e: torch.exp(entr(torch.softmax(e, 0)) / math.log(2)), "over the batch, and the entropy is in bits"),
        (lambda e: entr(torch.softmax(e, 1)), "its exponential is missing"),
        (lambda e: torch.exp(-entr(torch.softmax(e, 1))), "minus sign is missing"),
        (lambda e: 1 / torch.softmax(e, 1).square().sum(1), "sum of w^2"),
        (lambda e: torch.exp(entr(torch.softmax(e, 1)) / math.log(2)), "in bits"),
        (lambda e: entr(torch.softmax(e, 0)).exp(), "over the batch"),
        (lambda e: entr(torch.softmax(e, 1)).mean().exp(), "mixed into one number"),
        (lambda e: entr(torch.softmax(e, 1) + 1e-3).exp(), "not the right values"),
    ],
)
def test_effective_number(attempt, words):
    accepts("07.4", lambda e: 2 ** (entr(torch.softmax(e, 1)) / math.log(2)))
    accepts("07.4", lambda e: torch.distributions.Categorical(logits=e).entropy().exp())
    refuses("07.4", attempt, words=words)


@pytest.mark.parametrize(
    ("width", "rest", "words"),
    [
        (lambda rho, lam: rho**2 + 1 / lam, None, "1 over the right one"),
        (lambda rho, lam: lam / (1 + rho * lam), None, "not the right values"),
        (lambda rho, lam: lam, None, "the term with rho is missing"),
        (None, lambda q, rho, m, lam: (q - m) ** 2 / (2 * (1 + rho**2 * lam)), "rho m, not m"),
        (None, lambda q, rho, m, lam: (q - rho * m) ** 2 / 2, "variance of q is missing"),
        (None, lambda q, rho, m, lam: (q - rho * m) ** 2 / (1 + rho**2 * lam), "factor 2"),
        (None, lambda q, rho, m, lam: (q - rho * m) ** 2 / (2 * rho**2 * lam), "noise is missing"),
        (None, lambda q, rho, m, lam: q**2 / (2 * (1 + rho**2 * lam)), "m = 0"),
    ],
)
def test_the_completed_square(width, rest, words):
    right = (
        lambda rho, lam: 1 / (rho**2 + 1 / lam),
        lambda q, rho, m, lam: (q - rho * m) ** 2 / (2 + 2 * rho**2 * lam),
    )
    accepts("07.5a", *right)
    refuses("07.5a", width or right[0], rest or right[1], words=words, said="width:" if width else "rest:")


def log_mean_weight(q, rho, m, lam):
    v = 1 + rho**2 * lam
    return -(v.log() + (q - rho * m) ** 2 / v).sum() / 2


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda q, rho, m, lam: -((q - rho * m) ** 2 / (1 + rho**2 * lam)).sum() / 2, "of each coordinate is missing"),
        (lambda q, rho, m, lam: log_mean_weight(q, rho, 0 * m, lam), "means are left out"),
        (lambda *a: log_mean_weight(*a).exp(), "its logarithm is asked"),
        (lambda q, rho, m, lam: log_mean_weight(q[:2], rho, m[:2], lam[:2]), "not the right values"),
        (lambda q, rho, m, lam: log_mean_weight(q, rho, m, lam.mean().expand_as(lam)), "not the right values"),
    ],
)
def test_log_mean_weight(attempt, words):
    accepts("07.5b", log_mean_weight)
    accepts("07.5b", lambda *a: float(log_mean_weight(*a)))
    refuses("07.5b", attempt, words=words)


def collapse(n, lam, evidence=lambda rho, lam: torch.log1p(rho**2 * lam).sum() / 2):
    low, high = 0.0, 1.0
    for _ in range(50):
        t = (low + high) / 2
        low, high = (t, high) if evidence(t / (1 - t), lam) < math.log(n) else (low, t)
    return low


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda n, lam: collapse(n, lam) / (1 - collapse(n, lam)), "this is rho"),
        (lambda n, lam: collapse(n**0.5, lam), "factor 1/2 of the evidence"),
        (lambda n, lam: collapse(n, lam.mean().expand_as(lam)), "mean variance"),
        (lambda n, lam: collapse(n, lam**2), "it is squared here"),
        (lambda n, lam: collapse(n, lam.sqrt()), "where the variance belongs"),
        (lambda n, lam: collapse(n, lam, lambda rho, lam: (rho**2 * lam).sum() / 2), "approximation for small rho"),
        (lambda n, lam: (r := math.sqrt(n ** (2 / len(lam)) - 1)) / (1 + r), "not the right values"),
    ],
)
def test_collapse_time(attempt, words):
    accepts("07.5c", collapse)
    accepts("07.5c", lambda n, lam: np.float64(collapse(n, lam)))
    refuses("07.5c", attempt, words=words)


def tried(points, seed, count=5, cover=None, own=None, change=None, verdict=None):
    measure = exercise_sheets.answered(SHEET).names["measured_collapse"]
    generator, found = torch.Generator().manual_seed(seed if own is None else own), {"data": [], "control": []}
    covariance = torch.cov(points.T) if cover is None else cover(points)
    root = torch.linalg.cholesky(covariance + 1e-9 * torch.eye(len(covariance)))
    for _ in range(count):
        found["data"].append(measure(points, generator))
        found["control"].append(measure(torch.randn(points.shape, generator=generator).double() @ root.T, generator))
    later = (sum(found["data"]) - sum(found["control"])) / count
    said = "no difference" if abs(later) <= 0.03 else "later" if later > 0 else "earlier"
    found["verdict"] = verdict or said
    return found | (change(found) if change else {})


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (partial(tried, count=3), "at least five"),
        (partial(tried, own=4), "another seed gives the same times"),
        (partial(tried, cover=lambda p: p.var() * torch.eye(p.shape[1]).double()), "does the control share"),
        (partial(tried, cover=lambda p: torch.diag(p.var(0))), "does the control share"),
        (partial(tried, change=lambda f: {"control": f["data"]}), "does the control share"),
        (partial(tried, change=lambda f: {"data": [f["data"][0]] * 5}), "all repeats are equal"),
        (partial(tried, change=lambda f: {"data": [t + torch.rand(1).item() / 100 for t in f["data"]]}), "differ"),
        (partial(tried, change=lambda f: {"data": [t + 1 for t in f["data"]]}), "between 0 and 1"),
        (partial(tried, change=lambda f: {"verdict": ...}), "not written yet"),
        (lambda points, seed: {"data": [0.5] * 5}, "is missing"),
        (lambda points, seed: None, "not written yet"),
    ],
)
def test_measured_collapse_times(attempt, words):
    refuses("07.6", attempt, words=words, said="experiment:")


def test_the_verdict_on_the_covariance():
    accepts("07.6", tried)
    for verdict in ("later", "no difference", "earlier"):
        refuses("07.6", partial(tried, verdict=verdict), words="in your own numbers", said="verdict:")
