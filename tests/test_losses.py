"""Losses against analytic regressions, each other, and batches taken apart sample by sample."""

from __future__ import annotations

import functools
import inspect
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.testing import assert_close

from fmcore import losses, networks
from fmcore.closed_form import EmpiricalVelocity
from tests.analytic import FIVE, RECTIFIED, VP, GaussianFlow, differentiate, modest, schedules, seeded

five_cases = pytest.mark.parametrize("case", FIVE, ids=str)
SIMPLE = {
    "conditional_flow_matching": losses.conditional_flow_matching,
    "noise_prediction": losses.noise_prediction,
    "score_matching": losses.score_matching,
    "score_flow": losses.score_flow,
    "exact_flow_matching": lambda model, path, x0, x1, *others, **options: losses.exact_flow_matching(
        model, path, x0, x1, lambda x, t: -x, *others, **options
    ),
}
every_loss = pytest.mark.parametrize("loss", SIMPLE.values(), ids=SIMPLE.keys())


def batch(seed, n=6, shape=(2,), dtype=torch.float64):
    g = seeded(seed)
    x0, x1 = torch.randn(2, n, *shape, generator=g, dtype=dtype)
    return x0, 0.5 * x1 + 1, 0.05 + 0.9 * torch.rand(n, generator=g, dtype=dtype)


def wavy(x, t):
    """A model without meaning, different at every point and time."""
    return torch.sin(3 * x) + torch.cos(5 * t).reshape(-1, *[1] * (x.ndim - 1)) * x


# What the losses are minimal at


@five_cases
@pytest.mark.parametrize(
    ("name", "prediction"),
    [("conditional_flow_matching", "velocity"), ("noise_prediction", "noise"), ("score_matching", "score"),
     ("score_flow", "score")],
)  # fmt: skip
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_the_best_affine_model_is_the_posterior_mean_of_gaussian_data(case, name, prediction, t):
    """For Gaussian data what a network should predict is affine in x, and known.

    Four pairs (x0, x1) have exactly the mean and covariance of the population, so the affine model that is best on
    them is the analytic one, with no sampling error. A loss is quadratic in the model's two numbers: its minimum is one
    Newton step from zero.
    """
    mean, std, root = 0.8, 0.5, math.sqrt(2)
    x0 = torch.tensor([[root], [-root], [0.0], [0.0]], dtype=torch.float64)
    x1 = mean + std * x0.flip(0)
    time = torch.tensor(t, dtype=torch.float64)

    def loss(numbers):
        return SIMPLE[name](lambda x, t: numbers[0] * x + numbers[1], case.path, x0, x1, t=time)

    zero = torch.zeros(2, dtype=torch.float64)
    gradient = torch.autograd.functional.jacobian(loss, zero)
    slope, constant = -torch.linalg.solve(torch.autograd.functional.hessian(loss, zero), gradient)
    truth = GaussianFlow(case, torch.tensor([mean], dtype=torch.float64), torch.tensor([std], dtype=torch.float64))
    x = torch.tensor([[-1.0], [0.0], [2.0]], dtype=torch.float64)
    assert_close(slope * x + constant, getattr(truth, prediction)(x, time), rtol=1e-8, atol=1e-8)


def gradients(loss, model):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


@five_cases
def test_conditional_and_exact_flow_matching_have_the_same_gradient_on_average(case):
    """Lipman et al. 2023, Theorem 2. The difference of the two gradients on shared batches averages to zero."""
    g, batches, size = seeded(0), 50, 128
    data = torch.tensor([[1.0, 0.5], [-1.0, 0.2], [0.3, -1.4]], dtype=torch.float64)
    other = data.flip(1) + 0.5
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = networks.MLP(2, width=4, depth=1).double()
    exact, wrong = EmpiricalVelocity(data, case.path), EmpiricalVelocity(other, case.path)
    rows = []
    for _ in range(batches):
        x0 = torch.randn(size, 2, generator=g, dtype=torch.float64)
        x1 = data[torch.randint(0, 3, (size,), generator=g)]
        t = 0.9 * torch.rand(size, generator=g, dtype=torch.float64)
        conditional = gradients(losses.conditional_flow_matching(model, case.path, x0, x1, t), model)
        rows.append([
            conditional - gradients(losses.exact_flow_matching(model, case.path, x0, x1, velocity, t), model)
            for velocity in (exact, wrong)
        ])  # fmt: skip
    right, control = (torch.stack([row[i] for row in rows]) for i in range(2))

    def standard_errors(difference):
        return (difference.mean(dim=0) / (difference.std(dim=0) / math.sqrt(batches))).abs().max()

    assert standard_errors(right) < 4.5
    assert standard_errors(control) > 9  # the same test finds the velocity of other data out


# How the losses are related


@five_cases
@pytest.mark.parametrize("shape", [(2,), (1, 2, 2)], ids=str)
def test_losses_of_one_prediction_in_three_forms(case, shape):
    """One noise prediction e as score s = -e / sigma and as velocity: the losses differ by known factors of t only.

    The velocity of e is the slope of the path through (x, e): with x_t fixed, x1 = (x - sigma e) / alpha, so an error
    in e moves the velocity by sigma' - alpha' sigma / alpha. The factors come from differentiated schedules.
    """
    x0, x1, t = batch(1, shape=shape)
    path = case.path
    (alpha, sigma), (d_alpha, d_sigma) = differentiate(schedules(case), t)

    def column(value):
        return value.reshape(-1, *[1] * len(shape))

    def score(x, t):
        return -wavy(x, t) / column(sigma)

    def velocity(x, t):
        data = (x - column(sigma) * wavy(x, t)) / column(alpha)
        return column(d_alpha) * data + column(d_sigma) * wavy(x, t)

    noise_loss = functools.partial(losses.noise_prediction, wavy, path, x0, x1, t)
    assert_close(losses.score_matching(score, path, x0, x1, t), noise_loss())
    factor = (d_sigma - d_alpha * sigma / alpha) ** 2
    assert_close(losses.conditional_flow_matching(velocity, path, x0, x1, t), noise_loss(weight=lambda _: factor))
    h = 1e-6  # g^2 / sigma^2 = -d log(sigma^2 / alpha^2) / dt, differenced
    after, before = (torch.log((s / a) ** 2) for a, s in (schedules(case)(t + h), schedules(case)(t - h)))
    rate = -(after - before) / (2 * h)
    assert_close(losses.score_flow(score, path, x0, x1, t), noise_loss(weight=lambda _: rate), rtol=1e-6, atol=0)


def test_score_flow_weighs_the_score_error_by_beta():
    x0, x1, t = batch(2)
    beta = 0.1 + 19.9 * (1 - t)
    xt = VP.path.interpolate(x0, x1, t)
    alpha, sigma = (value[:, None] for value in schedules(VP)(t))
    normal = torch.distributions.Normal(alpha * x1, sigma)
    error = torch.autograd.functional.jacobian(lambda x: normal.log_prob(x).sum(), xt) - wavy(xt, t)
    assert_close(losses.score_flow(wavy, VP.path, x0, x1, t), (beta[:, None] * error**2).mean())


def test_score_matching_stays_finite_up_to_the_data():
    x0, x1, _ = batch(3)
    loss = losses.score_matching(lambda x, t: torch.zeros_like(x), RECTIFIED.path, x0, x1, t=torch.tensor(1.0))
    assert_close(loss, (x0**2).mean())


@five_cases
def test_a_perfect_model_has_no_loss(case):
    x0, x1, t = batch(4)
    path = case.path
    perfect = losses.conditional_flow_matching(lambda x, t: path.velocity(x, x1, t), path, x0, x1, t)
    assert perfect < 1e-18
    assert losses.noise_prediction(lambda x, t: x0, path, x0, x1, t) == 0
    assert losses.exact_flow_matching(wavy, path, x0, x1, wavy, t) == 0
    assert losses.score_matching(lambda x, t: -x0 / schedules(case)(t)[1][:, None], path, x0, x1, t) < 1e-18


def test_exact_flow_matching_does_not_train_its_target():
    x0, x1, t = batch(5)
    scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    loss = losses.exact_flow_matching(lambda x, t: scale * x, RECTIFIED.path, x0, x1, lambda x, t: 2 * scale * x, t)
    loss.backward()
    xt = RECTIFIED.path.interpolate(x0, x1, t)
    assert_close(scale.grad, -2 * (xt**2).mean())  # d/da (a - 2)^2 x^2 at a = 1


# Means, weights and times


@every_loss
@modest
@given(
    n=st.integers(1, 5),
    shape=st.sampled_from([(1,), (3,), (1, 2, 2)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    case=st.sampled_from(FIVE),
)
def test_a_loss_is_the_mean_over_samples_and_dimensions(loss, n, shape, dtype, case):
    x0, x1, t = batch(6, n, shape, dtype)
    whole = loss(wavy, case.path, x0, x1, t)
    assert whole.shape == ()
    assert whole.dtype == dtype
    parts = [loss(wavy, case.path, x0[i : i + 1], x1[i : i + 1], t[i : i + 1]) for i in range(n)]
    assert_close(whole, torch.stack(parts).mean(), rtol=1e-4, atol=1e-6)
    twice = loss(wavy, case.path, torch.cat([x0, x0], dim=1), torch.cat([x1, x1], dim=1), t)
    assert_close(twice, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in SIMPLE if name != "score_flow"])
def test_a_weight_multiplies_the_loss_of_each_sample(name):
    loss, (x0, x1, t) = SIMPLE[name], batch(7)
    alone = torch.stack([loss(wavy, VP.path, x0[i : i + 1], x1[i : i + 1], t[i : i + 1]) for i in range(6)])
    weighted = loss(wavy, VP.path, x0, x1, t, weight=lambda t: t**3)
    assert_close(weighted, (t**3 * alone).mean())
    assert_close(loss(wavy, VP.path, x0, x1, t, weight=lambda t: torch.tensor(3.0).double()), 3 * alone.mean())


@every_loss
def test_one_time_for_all_equals_the_same_time_for_each(loss):
    x0, x1, _ = batch(8)
    together = loss(wavy, VP.path, x0, x1, torch.tensor(0.4))
    assert_close(together, loss(wavy, VP.path, x0, x1, torch.full((6,), 0.4).double()), rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match=r"t has shape \(6, 1\)"):
        loss(wavy, VP.path, x0, x1, torch.full((6, 1), 0.4))


@every_loss
def test_times_are_drawn_uniformly_up_to_t_max_one_a_sample_by_the_generator(loss):
    seen = []

    def model(x, t):
        seen.append(t)
        return x

    n = 4000
    x0 = torch.randn(n, 1, generator=seeded(9))
    before = torch.random.get_rng_state()
    for seed in (1, 1, 2):
        loss(model, VP.path, x0, x0 + 1, generator=seeded(seed))
    assert torch.equal(torch.random.get_rng_state(), before)
    first, again, other = seen
    assert first.shape == (n,)
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert ((first >= 0) & (first <= VP.path.t_max)).all()
    assert len(first.unique()) > n - 10
    assert stats.kstest(first.numpy(), "uniform").pvalue > 1e-3


def test_times_reach_one_only_where_the_path_allows_it():
    """The draws scale with t_max: a path cut at 0.5 never sees a later time."""
    from dataclasses import replace

    seen = []
    short = replace(RECTIFIED.path, t_max=0.5)
    x = torch.randn(1000, 1, generator=seeded(10))
    losses.conditional_flow_matching(lambda x, t: seen.append(t) or x, short, x, x, generator=seeded(11))
    assert 0.49 < seen[0].max() <= 0.5


# Bad input


@pytest.mark.parametrize("name", SIMPLE)
@pytest.mark.parametrize("shape", [(6, 1), (6,), (1, 2), (6, 2, 1), ()], ids=str)
def test_a_model_output_of_another_shape_is_refused(name, shape):
    x0, x1, t = batch(12)
    with pytest.raises(ValueError, match=r"the model returned shape .* for x of shape \(6, 2\)"):
        SIMPLE[name](lambda x, t: torch.zeros(shape, dtype=torch.float64), VP.path, x0, x1, t)


@every_loss
@pytest.mark.parametrize("which", ["x0", "x1"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_data_that_are_not_finite_are_refused_by_name(loss, which, bad):
    x0, x1, t = batch(13)
    {"x0": x0, "x1": x1}[which][3, 1] = bad
    with pytest.raises(ValueError, match=f"{which} has NaN or infinite values in 1 of 6 samples .*number 3"):
        loss(wavy, VP.path, x0, x1, t)


@every_loss
def test_data_so_large_that_their_sum_overflows_are_not_called_infinite(loss):
    x0 = batch(13)[0].float()
    x1 = torch.full_like(x0, 3e38)
    t = torch.full((len(x0),), 0.99)
    assert not torch.isfinite(VP.path.interpolate(x0, x1, t).sum())
    loss(lambda x, t: 0 * x, VP.path, x0, x1, t)


@every_loss
def test_integers_and_pairs_that_do_not_fit_are_refused(loss):
    x0, x1, t = batch(14)
    with pytest.raises(TypeError, match="x1 holds torch.uint8: scale it"):
        loss(wavy, VP.path, x0, x1.to(torch.uint8), t)
    with pytest.raises(ValueError, match="each source sample needs exactly one data sample"):
        loss(wavy, VP.path, x0[:5], x1, t)


# The order of arguments


PATH_SECOND = {
    **{name: getattr(losses, name) for name in SIMPLE},
    "empirical_flow_matching": losses.empirical_flow_matching,
}


@pytest.mark.parametrize("name", PATH_SECOND)
def test_every_loss_takes_model_path_and_pair_in_this_order(name):
    names = list(inspect.signature(PATH_SECOND[name]).parameters)
    assert names[:4] == ["model", "path", "x0", "x1"]
    assert names[5 if name.startswith(("exact", "empirical")) else 4] == "t"


@pytest.mark.parametrize("name", PATH_SECOND)
@pytest.mark.parametrize(
    "wrong", [torch.zeros(6, 2), lambda x, t: x, "rectified", networks.MLP(2)], ids=lambda w: type(w).__name__
)
def test_something_else_in_the_place_of_the_path_is_told_the_order(name, wrong):
    x0, x1, _ = batch(15)
    extra = {"exact_flow_matching": [wavy], "empirical_flow_matching": [x1]}.get(name, [])
    with pytest.raises(
        TypeError, match=rf"the path is .*: the order is {name}\(model, path, x0, x1, .*paths\.rectified\(\)"
    ):
        PATH_SECOND[name](wavy, wrong, x0, x1, *extra)
    with pytest.raises(TypeError, match=r"the order is"):
        PATH_SECOND[name](wavy, path=wrong, x0=x0, x1=x1)


@pytest.mark.parametrize("name", PATH_SECOND)
def test_no_path_is_told_the_order(name):
    x0, x1, _ = batch(15)
    extra = {"exact_flow_matching": [wavy], "empirical_flow_matching": [x1]}.get(name, [])
    words = rf"the path is None: the order is {name}\(model, path, x0, x1, .*paths\.rectified\(\)"
    with pytest.raises(TypeError, match=words):
        PATH_SECOND[name](wavy, None, x0, x1, *extra)
    with pytest.raises(TypeError, match=words):
        PATH_SECOND[name](wavy, path=None, x0=x0, x1=x1)
    with pytest.raises(TypeError, match=r"missing .* required positional argument.*'path'"):
        PATH_SECOND[name](wavy, x0=x0, x1=x1)


def test_other_orders_are_told_the_right_one():
    x0, x1, t = batch(16)
    with pytest.raises(TypeError, match=r"exact_flow_matching\(model, path, x0, x1, velocity, t, weight, generator\)"):
        losses.exact_flow_matching(wavy, EmpiricalVelocity(x1), VP.path, x0, x1, t)
    order = r"empirical_flow_matching\(model, path, x0, x1, bank, t, weight, generator, exclude\)"
    with pytest.raises(TypeError, match=order):
        losses.empirical_flow_matching(wavy, x0, x1, x1)
    with pytest.raises(TypeError, match=order):
        losses.empirical_flow_matching(wavy, x0, x1, x1, seeded(0))
    with pytest.raises(TypeError, match=order):
        losses.empirical_flow_matching(wavy, x0, x1, x1, path=VP.path, t=t)
    with pytest.raises(TypeError, match=r"t is a torch\.Generator: pass it by its name"):
        losses.empirical_flow_matching(wavy, VP.path, x0, x1, x1, seeded(0))


@pytest.mark.parametrize("loss", PATH_SECOND.values(), ids=PATH_SECOND.keys())
def test_a_loss_can_be_sent_to_other_processes(loss):
    assert pickle.loads(pickle.dumps(loss)) is loss


# Times and outputs that cannot be meant


@every_loss
@pytest.mark.parametrize(
    "t",
    [torch.arange(6), torch.tensor(500), torch.zeros(6, dtype=torch.bool), 7, np.arange(6)],
    ids=["tensor", "scalar", "bool", "int", "NumPy"],
)
def test_counted_times_are_refused(loss, t):
    x0, x1, _ = batch(17)
    with pytest.raises(ValueError, match=r"t (holds|is) .*times are real numbers from 0 \(source\) to 1 \(data\)"):
        loss(wavy, VP.path, x0, x1, t)


@every_loss
@pytest.mark.parametrize(
    ("t", "words"),
    [
        (torch.tensor([0.5, 999.0, 0, 0, 0, 0]), "t runs from 0 to 999"),
        (torch.full((6,), -0.1), "t is -0.1"),
        (1.5, "t is 1.5"),
        (torch.tensor([0.5, math.nan, 0, 0, 0, 0]), "t runs from nan"),
    ],
    ids=["steps", "negative", "beyond", "NaN"],
)
def test_times_outside_the_unit_interval_are_refused(loss, t, words):
    x0, x1, _ = batch(18)
    with pytest.raises(ValueError, match=f"{words}.*: times are real numbers from 0"):
        loss(wavy, VP.path, x0, x1, t)


def test_the_numbers_of_the_unit_interval_are_times():
    x0, x1, _ = batch(19)
    values = [
        losses.conditional_flow_matching(wavy, VP.path, x0, x1, t)
        for t in (0, 0.0, torch.tensor(0.0), np.float32(0), np.zeros(6))
    ]
    assert all(torch.equal(value, values[0]) for value in values)
    losses.score_matching(wavy, VP.path, x0, x1, 1)


@every_loss
@pytest.mark.parametrize(
    ("output", "name"), [(lambda x: (x, x), "tuple"), (lambda x: {"v": x}, "dict"), (lambda x: None, "NoneType")]
)
def test_a_model_that_returns_no_tensor_is_told_to_return_one(loss, output, name):
    x0, x1, t = batch(20)
    with pytest.raises(TypeError, match=rf"the model returned a {name}: .* one tensor, shaped like x"):
        loss(lambda x, t: output(x), VP.path, x0, x1, t)


def test_a_known_velocity_of_another_shape_is_refused_as_the_model_is():
    x0, x1, t = batch(21)
    with pytest.raises(ValueError, match="the velocity returned shape"):
        losses.exact_flow_matching(wavy, VP.path, x0, x1, lambda x, t: x[:, :1], t)


class Plain(nn.Module):
    """A network that leaves precision to PyTorch's layers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x, t):
        return self.layer(x)


@every_loss
@pytest.mark.parametrize("make", [Plain, lambda: networks.MLP(2, 4, 1)], ids=["plain", "MLP"])
def test_data_and_weights_of_two_precisions_are_both_named(loss, make):
    x0, x1, t = batch(22)
    network = make()
    with pytest.raises(ValueError, match=r"x is float64 and the network's weights are float32: convert one of them"):
        loss(network, VP.path, x0, x1, t)
    if make is Plain:
        words = r"weights are float32: convert one of them, x0\.float\(\) and x1\.float\(\) or network\.double\(\)"
        with pytest.raises(ValueError, match=words):
            loss(lambda x, t: network(x, t), VP.path, x0, x1, t)
    loss(network.double(), VP.path, x0, x1, t)


class Complaining(nn.Module):
    """A network of float32 with an error of its own that speaks of types."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x, t):
        raise RuntimeError("this type of cell is out of prototypes")


def test_an_error_with_the_word_type_is_not_taken_for_one_about_precision():
    x0, x1, t = batch(22)
    with pytest.raises(RuntimeError, match="^this type of cell is out of prototypes$"):
        losses.conditional_flow_matching(Complaining(), VP.path, x0, x1, t)


def test_other_errors_of_a_model_arrive_as_they_are():
    x0, x1, t = batch(23)
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        losses.noise_prediction(lambda x, t: nn.Linear(3, 2).double()(x), VP.path, x0, x1, t)


@every_loss
@pytest.mark.parametrize("generator", [0, np.random.default_rng(0)], ids=["seed", "NumPy"])
def test_other_kinds_of_generators_are_refused(loss, generator):
    x0, x1, _ = batch(24)
    with pytest.raises(TypeError, match=r"pass a torch\.Generator"):
        loss(wavy, VP.path, x0, x1, generator=generator)
