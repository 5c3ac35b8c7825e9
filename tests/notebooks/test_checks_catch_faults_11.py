"""The checks of the exercises to chapter 11 name the mistakes that learners make."""

from __future__ import annotations

import math

import pytest
import torch

from tests.notebooks import exercise_sheets
from tests.notebooks.one_judge import accepts, empty_sheet_says_so, refuses, says

SHEET = "11_norms_and_pruning"


def test_answers_are_right():
    exercise_sheets.answers_are_right(SHEET, checks=10)


def test_an_empty_sheet_runs_and_says_so():
    empty_sheet_says_so(SHEET)


def test_in_the_sheet_a_mistake_is_named_and_the_other_exercises_stay_right():
    exercise_sheets.names(SHEET, "kullback_leibler", lambda Z: math.log(Z), "sign flipped")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"a": "right"}, "a: the flow of data up leads to c times an image"),
        ({"b": "right for centred Gaussian data only"}, "b: its flow starts from x0"),
        ({"c": "right"}, "c: from where"),
        ({"c": "too large"}, "c: look at its standard deviation"),
        ({"d": "right for centred Gaussian data only"}, "d: the path of noise down"),
        ({"d": "yes"}, "d: 'yes' is not the answer"),
        ({"b": None}, "not written yet"),
    ],
)
def test_ways_to_align(change, words):
    right = {"a": "too large", "b": "right", "c": "right for centred Gaussian data only", "d": "right"}
    accepts("11.1", right.get)
    refuses("11.1", (right | change).get, words=words)


def down(v, y, s, c, clock=None, place=None, join=None):
    b = ((1 - s) / c + s)[:, None]
    u = v(y / b if place is None else place(y, b, c), s / b[:, 0] if clock is None else clock(s, b[:, 0], c))
    return ((1 - 1 / c) * y + u / c) / b if join is None else join(y, u, b, c)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"clock": lambda s, b, c: s}, "at the time s; its own clock"),
        ({"clock": lambda s, b, c: c * s / b}, "at the time c s / b"),
        ({"place": lambda y, b, c: y}, "at the point y"),
        ({"join": lambda y, u, b, c: u / c / b}, "change of scale is missing"),
        ({"join": lambda y, u, b, c: ((1 / c - 1) * y + u / c) / b}, "is flipped"),
        ({"join": lambda y, u, b, c: ((1 - 1 / c) * y + u) / b}, "factor 1/c of v"),
        ({"join": lambda y, u, b, c: (1 - 1 / c) * y + u / c / b}, "only v is divided"),
        ({"join": lambda y, u, b, c: (1 - 1 / c) * y / b + u / c / b**2}, "b squared"),
        ({"join": lambda y, u, b, c: (1 - 1 / c) * y + u / c}, "division by b is missing"),
    ],
)
def test_noise_down(parts, words):
    refuses("11.2", lambda *a: down(*a, **parts), words=words)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (
            lambda v, y, s, c: (c - 1) * y + c * v(y / (1 - s + c * s)[:, None], c * s / (1 - s + c * s)),
            "not the right",
        ),
        (
            lambda v, y, s, c: down(lambda x, t: torch.sin(x.roll(1, dims=1)) * (1 + t[:, None]), y, s, c),
            "not the right",
        ),
        (lambda v, y, s, c: down(v, y, s, 2.0), "not the right"),
        (lambda v, y, s, c: down(v, y, s[:1].expand_as(s), c), "not the right"),
        (lambda v, y, s, c: ((1 - 1 / c) * y + v(y, s) / c) / ((1 - s) / c + s), "raises RuntimeError"),
        (lambda v, y, s, c: down(v, y.float(), s.float(), c), None),
    ],
)
def test_noise_down_of_other_velocities_factors_and_times(attempt, words):
    if words is None:
        accepts("11.2", attempt)
    else:
        refuses("11.2", attempt, words=words)


def ends(axes, points, tau, change):
    return torch.stack(change(points @ axes.T, points.norm(dim=1, keepdim=True), tau), dim=1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p, n, tau: (p.amax(0) <= tau, (-p).amax(0) <= tau), "not divided by their lengths"),
        (
            lambda p, n, tau: ((p / n.norm()).amax(0) <= tau, (-p / n.norm()).amax(0) <= tau),
            "one length; each has its own",
        ),
        (lambda p, n, tau: ((-p / n).amax(0) <= tau, (p / n).amax(0) <= tau), "swapped"),
        (lambda p, n, tau: ((p / n).amax(0) > tau, (-p / n).amax(0) > tau), "that are kept"),
        (lambda p, n, tau: ((p / n).mean(0) <= tau, (-p / n).mean(0) <= tau), "mean cosine"),
        (lambda p, n, tau: ((p / n).amin(0) <= tau, (-p / n).amin(0) <= tau), "smallest cosine is compared"),
        (lambda p, n, tau: ((p / n).amax(0) <= tau, (p / n).amax(0) <= tau), "answer of +a"),
        (lambda p, n, tau: ((p / n).abs().amax(0) <= tau, (p / n).abs().amax(0) <= tau), "only with its opposite"),
        (lambda p, n, tau: ((p / n).amax(0) < tau, (-p / n).amax(0) < tau), "<= in place of <"),
        (lambda p, n, tau: ((p / n.norm()).abs().amax(0) < tau,) * 2, "that is to be mended"),
        (lambda p, n, tau: ((p / n).amax(0) <= 0.1, (-p / n).amax(0) <= 0.1), "not the right values"),
    ],
)
def test_rejected_ends(change, words):
    refuses("11.3", lambda *a: ends(*a, change), words=words)


def test_rejected_ends_may_be_found_in_other_ways():
    accepts("11.3", lambda *a: ends(*a, lambda p, n, tau: ((p / n).amax(0) <= tau, (p / n).amin(0) >= -tau)))
    accepts("11.3", lambda axes, x, tau: (x @ torch.stack([axes, -axes]).mT <= tau * x.norm(dim=1)[:, None]).all(1).T)
    accepts("11.3", lambda *a: ends(*a, lambda p, n, tau: ((p / n).amax(0) <= tau, (-p / n).amax(0) <= tau)).long())


def density(q, bound, shorter):
    return torch.where(q > 0, shorter(bound / q.clamp(min=1e-7)), 1.0)


def accept(q, threshold, bound, shorter):
    return (q <= threshold) * shorter(bound / threshold) / density(q, bound, shorter)


def kept(rate, threshold, bound, shorter, m):
    return float(rate * (0.5 + math.erf(bound / 2**0.5) / 2) ** m / shorter(bound / threshold))


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda q, b, F: F(b / q.abs()), "never met"),
        (lambda q, b, F: (q > 0) * density(q, b, F), "is 1, not 0"),
        (lambda q, b, F: torch.where(q > 0, F(b * q), 1.0), "not r <= bound q"),
        (lambda q, b, F: 1 - density(q, b, F), "cuts it off"),
        (lambda q, b, F: torch.where(q > 0, F(b), 1.0), "q plays no part"),
        (lambda q, b, F: torch.where(q > b, 0.0, 1.0), "shorter plays no part"),
        (lambda q, b, F: torch.where(q > 0, 1 - torch.exp(-((b / q) ** 2) / 2), 1.0), "not the right values"),
    ],
)
def test_share_of_proposals(attempt, words):
    refuses("11.4", attempt, accept, kept, words=words, said="proposed:")


def in_dimensions(d):
    return lambda length: torch.special.gammainc(torch.tensor(d / 2), torch.as_tensor(length).float() ** 2 / 2).double()


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda q, u, b, F: F(b / u) / density(q, b, F), "accepted too"),
        (lambda q, u, b, F: (q <= u).float(), "coin toss is missing"),
        (lambda q, u, b, F: (q > u) * F(b / u) / density(q, b, F), "the others thrown away"),
        (lambda q, u, b, F: (q <= u) * density(q, b, F) / F(b / u), "upside down"),
        (lambda q, u, b, F: (q <= u) / density(q, b, F), "constant is missing"),
        (lambda q, u, b, F: (q <= u) * density(q, b, F), "must be divided by"),
        (lambda q, u, b, F: (q <= u) * F(b / u), "same probability for all"),
        (lambda q, u, b, F: (q <= u) * F(b / u) / F(b / q.abs()), "F is 1 there, not F(bound / |q|)"),
        (lambda q, u, b, F: (q > 0) * accept(q, u, b, F), "directions pass too"),
        (lambda q, u, b, F: (q < u) * accept(q, u, b, F), "<= in place of <"),
        *(
            (lambda q, u, b, F, d=d: accept(q, u, b, in_dimensions(d)), f"dimension {d} only")
            for d in (1, 2, 3, 4, 5, 64)
        ),
        (lambda q, u, b, F: accept(q, u, b, in_dimensions(7)), "not the right values"),
        (lambda q, u, b, F: accept(q, u, b, lambda r: torch.ones_like(torch.as_tensor(r))), "coin toss is missing"),
        (lambda q, u, b, F: accept(q, 0.4, b, F), "not the right values"),
    ],
)
def test_acceptance(attempt, words):
    accepts("11.4", density, accept, kept)
    refuses("11.4", density, attempt, kept, words=words, said="acceptance:")


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda r, u, b, F, m: r / F(b / u), "how many Gaussians are proposals"),
        (lambda r, u, b, F, m: kept(r, u, b, F, m) * F(b / u), "constant of step 2 is missing"),
        (lambda r, u, b, F, m: r**2 / F(b / u) ** 2 / kept(r, u, b, F, m), "is divided by"),
        (lambda r, u, b, F, m: kept(r, u, b, F, m) * F(b / u) ** 2, "multiplied by the constant"),
        (lambda r, u, b, F, m: kept(r, u, b, F, 1), "to the power m"),
        (lambda r, u, b, F, m: m * kept(r, u, b, F, 1), "take the power"),
        (lambda r, u, b, F, m: kept(r, u, b, in_dimensions(3), m), "not the right values"),
        (lambda r, u, b, F, m: r, "not the right values"),
    ],
)
def test_share_kept(attempt, words):
    refuses("11.4", density, accept, attempt, words=words, said="share_kept:")


@pytest.mark.parametrize(
    ("place", "attempt", "words"),
    [
        (0, lambda Z: 2 * (1 - Z), "1/2 is missing"),
        (0, lambda Z: Z, "share that is kept"),
        (0, lambda Z: (1 - Z) / 2, "becomes denser"),
        (1, lambda Z: math.log(Z), "sign flipped"),
        (1, lambda Z: -Z * math.log(Z), "no further factor Z"),
        (1, lambda Z: 1 - Z, "total variation"),
        (1, lambda Z: -math.log2(Z), "natural logarithms"),
        (2, lambda u, m: m * (1 - u) / 2, "what is rejected"),
        (2, lambda u, m: 1 - m * (1 - u), "length 2"),
        (2, lambda u, m: ((1 + u) / 2) ** m, "not independent"),
        (2, lambda u, m: 1 - m * math.acos(u) / math.pi, "in the plane"),
        (2, lambda u, m: (1 + u) / 2, "not the right values"),
    ],
)
def test_cost_of_pruning(place, attempt, words):
    names = ("total_variation", "kullback_leibler", "kept_in_space")
    right = [lambda Z: 1 - Z, lambda Z: torch.tensor(1 / Z).log(), lambda u, m: 1 - m / 2 + m * u / 2]
    accepts("11.5", *right)
    refuses("11.5", *right[:place], attempt, *right[place + 1 :], words=words, said=names[place])


def error(variances, steps, factor):
    s = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    t = factor * s / (1 - s + factor * s)
    pull = (t[:, None] * variances - 1 + t[:, None]) / ((1 - t[:, None]) ** 2 + t[:, None] ** 2 * variances)
    return float(((1 + t.diff()[:, None] * pull[:-1]).prod(dim=0) - variances.sqrt()).norm())


def measured(change=None, verdict=None, of=error, count=40, low=0.1, high=20.0, more=(1.0,)):
    def experiment(variances, steps):
        c = float((len(variances) / variances.sum()) ** 0.5)
        factors = torch.tensor([low * (high / low) ** (k / count) for k in range(count + 1)] + [*more, c])
        factors = factors.double() if c > 0 else factors
        errors = torch.tensor([of(variances, steps, float(f)) for f in factors])
        best = errors[-1] <= 1.01 * errors.min()
        found = {"factors": factors, "errors": errors}
        found["verdict"] = "best" if best else "better than 1" if errors[-1] < errors[-2] else "worse than 1"
        if verdict is not None:
            found["verdict"] = verdict
        return found | (change(found) if change else {})

    return experiment


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (measured(of=lambda v, n, f: error(v, n, f) / len(v) ** 0.5), "sum over axes"),
        (measured(of=lambda v, n, f: error(v, n, f) ** 2), "take its root"),
        (measured(of=lambda v, n, f: error(v, n, 1 / f)), "exchanged"),
        (measured(of=lambda v, n, f: error(v, 10, f)), "with 40 steps"),
        (measured(of=lambda v, n, f: error(v, n, 1.0)), "is right"),
        (measured(count=5), "at least 12"),
        (measured(more=(1.1,)), "is the control"),
        (measured(low=0.6), "reach from"),
        (measured(high=3.0), "reach from"),
        (measured(lambda f: {"factors": f["factors"][:-1], "errors": f["errors"][:-1]}), "must be among the factors"),
        (measured(lambda f: {"errors": f["errors"][:-1]}), "same length"),
        (measured(lambda f: {"errors": f["errors"] * (1 + 1e-3 * torch.rand(len(f["errors"])))}), "two runs differ"),
        (measured(lambda f: {"verdict": ...}), "not written yet"),
        (measured(lambda f: {"factors": "many"}), "same length"),
        (lambda variances, steps: None, "not written yet"),
        (lambda variances: {}, "positional argument"),
    ],
)
def test_factors(attempt, words):
    refuses("11.6", attempt, words=words, said="experiment:")


def test_the_verdict_on_the_factor():
    accepts("11.6", measured())
    accepts("11.6", measured(lambda found: {key: getattr(v, "tolist", lambda v=v: v)() for key, v in found.items()}))
    for verdict in ("best", "better than 1", "worse than 1"):
        refuses("11.6", measured(verdict=verdict), words="by your errors c =", said="verdict:")


def test_a_wrong_attempt_leaves_nothing_behind():
    first = says("11.4", density, accept, kept)
    refuses(
        "11.4", density, lambda q, *rest: accept(q, *rest) + 0 * q.zero_(), kept, words="in place", said="acceptance:"
    )
    assert says("11.4", density, accept, kept) == first
