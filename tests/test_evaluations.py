"""Network evaluations are counted where they happen, however a velocity is wrapped: against rows that a model saw."""

from __future__ import annotations

import pytest
import torch

from fmcore import solvers
from fmcore.closed_form import HybridVelocity
from fmcore.guidance import guided
from fmcore.likelihood import log_likelihood
from fmcore.sources import Gaussian
from fmcore.velocity import Evaluations, count_evaluations, from_data, from_noise, from_score, scaled_up
from tests.analytic import OT, VP, seeded

X = torch.randn(4, 2, generator=seeded(0), dtype=torch.float64)


class Model:
    """A network (x, t, labels) -> v that counts the rows of x it has seen."""

    def __init__(self):
        self.rows = 0

    def __call__(self, x, t, labels=None):
        self.rows += len(x)
        return -x if labels is None else -x * (1 + 0.1 * labels[:, None])


def guide(model, scale=2.0):
    return guided(model, torch.tensor([0, 1, 0, 1]), scale, null=2)


WRAPPED = {
    "alone": lambda v: v,
    "in a function": lambda v: lambda x, t: v(x, t),
    "scaled": lambda v: scaled_up(v, 2.0),
    "of data": lambda v: from_data(v, OT.path),
    "of noise": lambda v: from_noise(v, VP.path),
    "of a score": lambda v: from_score(v, VP.path),
    "scaled, in a function, of data": lambda v: scaled_up(lambda x, t: from_data(v, OT.path)(x, t), 0.5),
    "first half": lambda v: HybridVelocity(v, v, 0.5),
    "a mean": lambda v: lambda x, t: (v(x, t) + v(x, t + 0.01)) / 2,
    "a solve in a solve": lambda v: lambda x, t: solvers.solve(v, x, method="euler", steps=3).x,
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize(("method", "steps"), [("euler", 3), ("heun", 2), ("dopri5", None)])
def test_a_guided_velocity_counts_twice_in_any_wrapping(wrap, method, steps):
    model = Model()
    solution = solvers.solve(wrap(guide(model)), X, t1=0.9, method=method, steps=steps)
    assert solution.nfe * len(X) == model.rows
    if method != "dopri5":
        each = {"a mean": 4, "a solve in a solve": 6}.get(next(n for n, w in WRAPPED.items() if w is wrap), 2)
        assert solution.nfe == each * steps * (2 if method == "heun" else 1)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_guidance_that_needs_one_forward_counts_one_in_any_wrapping(scale):
    model = Model()
    velocity = scaled_up(lambda x, t: guide(model, scale)(x, t), 2.0)
    assert solvers.solve(velocity, X, method="euler", steps=5).nfe == 5
    assert model.rows == 5 * len(X)


@pytest.mark.parametrize("wrap", list(WRAPPED.values())[:8], ids=list(WRAPPED)[:8])
def test_a_plain_network_counts_once(wrap):
    model = Model()
    solution = solvers.solve(wrap(lambda x, t: model(x, t)), X, t1=0.9, method="euler", steps=6)
    assert solution.nfe == 6
    assert model.rows == 6 * len(X)


def test_a_sum_counts_what_its_parts_say_and_nothing_that_says_nothing():
    """A limit, told in `Evaluations`: beside guidance, a plain network has to be counted by whoever adds it."""
    model = Model()
    guiding = guide(model)

    def silent(x, t):
        return guiding(x, t) + model(x, t)

    def told(x, t):
        count_evaluations(1)
        return guiding(x, t) + model(x, t)

    def two(x, t):
        return model(x, t) + model(x, -t)

    found = [solvers.solve(v, X, method="euler", steps=5).nfe for v in (silent, told, two)]
    assert found == [10, 15, 5]
    assert model.rows == (15 + 15 + 10) * len(X)


@pytest.mark.parametrize(
    ("first", "second", "nfe"),
    [(True, False, 4 * 2 + 6), (False, True, 4 + 6 * 2), (True, True, 20), (False, False, 10)],
)
def test_each_part_of_a_hybrid_counts_its_own(first, second, nfe):
    model = Model()
    parts = [guide(model) if one else (lambda x, t: model(x, t)) for one in (first, second)]
    solution = solvers.solve(HybridVelocity(*parts, 0.4), X, method="euler", steps=10)
    assert solution.nfe == nfe
    assert model.rows == nfe * len(X)


@pytest.mark.parametrize(("guided_part", "most"), [((0, 1), 2), ((0,), 2), ((), 1)])
def test_times_on_both_sides_of_a_switch_count_as_the_most_expensive_row(guided_part, most):
    def part(k):
        def plain(x, t):
            if k in guided_part:
                count_evaluations(2)
            return x

        return plain

    with Evaluations() as found:
        HybridVelocity(part(0), part(1), 0.5)(X, torch.tensor([0.1, 0.9, 0.2, 0.8]).double())
    assert found.total == most


def test_guidance_of_a_model_that_says_what_it_costs():
    """An ensemble of three networks, guided: six forwards per sample."""

    def three(x, t, labels):
        count_evaluations(3)
        return -x

    assert solvers.solve(guide(three), X, method="euler", steps=2).nfe == 12


def test_the_stochastic_solver_counts_the_same():
    model = Model()
    solution = solvers.solve_sde(from_noise(guide(model), VP.path), VP.path, X, steps=5, generator=seeded(1))
    assert solution.nfe * len(X) == model.rows == 10 * len(X)


def test_likelihoods_count_the_same():
    for velocity, forwards in ((lambda model: lambda x, t: model(x, t), 1), (lambda m: scaled_up(guide(m), 2.0), 2)):
        found = log_likelihood(velocity(Model()), X, Gaussian((2,)), method="euler", steps=4)
        assert found.nfe == 4 * forwards


def test_a_count_ends_with_its_block_and_with_an_error_in_it():
    def broken(x, t):
        count_evaluations(5)
        raise KeyError("broken")

    with Evaluations() as outer:
        with pytest.raises(KeyError):
            solvers.solve(broken, X, method="euler", steps=1)
        count_evaluations(3)
    assert outer.total == 3
    count_evaluations(7)  # nobody counts
    assert outer.total == 3
    with Evaluations() as nothing:
        pass
    assert nothing.total == 1
