"""Mean velocities against flows that are known, finite differences, and a fine solve of each trajectory."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.testing import assert_close

from fmcore import losses, networks
from fmcore.closed_form import EmpiricalVelocity
from fmcore.data import toy
from fmcore.mean_velocity import (
    MeanVelocity,
    draw_intervals,
    exact_mean_velocity,
    few_steps,
    mean_flow_matching,
    one_step,
    total_derivative,
)
from fmcore.metrics import energy_distance
from fmcore.solvers import SolveError, solve
from fmcore.time_sampling import logit_normal
from fmcore.velocity import Evaluations, count_evaluations
from tests.analytic import COSINE, FIVE, RECTIFIED, VP, differentiate, gaussian_flow, modest, schedules, seeded

five_cases = pytest.mark.parametrize("case", FIVE, ids=str)
FINE = {"rtol": 1e-9, "atol": 1e-9}
THREE_POINTS = torch.tensor([[1.0, 0.5], [-1.0, 0.2], [0.3, -1.4]], dtype=torch.float64)


def points(seed, n=6, shape=(2,)):
    return torch.randn(n, *shape, generator=seeded(seed), dtype=torch.float64)


def column(t, x):
    return t.reshape(-1, *[1] * (x.ndim - 1))


def network(seed=0, **sizes):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MeanVelocity(2, **({"width": 16, "depth": 2} | sizes))


def wavy(x, s, t):
    """A model without meaning, different at every point, start and end."""
    return torch.sin(2 * x) * column(torch.cos(3 * s), x) + column(torch.sin(2 * s) * t, x) * x.flip(1)


def difference(model, x, v, s, t, h=1e-5):
    """The change of u along (x, s), by central differences."""
    return (model(x + h * v, s + h, t) - model(x - h * v, s - h, t)) / (2 * h)


# The oracle


@five_cases
def test_the_mean_velocity_of_a_gaussian(case):
    """The flow to Gaussian data is an affine map that is known, from any time to any other."""
    truth = gaussian_flow(case)
    x = 2 * points(0) + 1
    s, t = torch.tensor([[0.0, 0.1, 0.4, 0.9, 0.3, 0.7], [0.95, 0.8, 0.45, 0.2, 0.3, 0.71]], dtype=torch.float64)
    u = exact_mean_velocity(truth.velocity, x, s, t, **FINE)
    for i in range(len(x)):
        start, end = s[i].item(), t[i].item()
        if start == end:
            expected = truth.velocity(x[i : i + 1], s[i])
        else:
            expected = (truth.flow(x[i : i + 1], start, end) - x[i : i + 1]) / (end - start)
        assert_close(u[i : i + 1], expected, rtol=1e-6, atol=1e-6)


def test_the_mean_velocity_of_a_data_set_follows_each_trajectory():
    """Each sample is solved alone, in its own time, which the oracle scales."""
    v = EmpiricalVelocity(THREE_POINTS)
    x, s = points(1), torch.tensor([0.0, 0.2, 0.5, 0.1, 0.9, 0.8], dtype=torch.float64)
    t = torch.tensor([0.999, 0.7, 0.9, 0.11, 0.3, 0.0], dtype=torch.float64)
    u = exact_mean_velocity(v, x, s, t, **FINE)
    for i in range(len(x)):
        end = solve(v, x[i : i + 1], s[i].item(), t[i].item(), **FINE).x
        assert_close(x[i] + (t[i] - s[i]) * u[i], end[0], rtol=0, atol=1e-6)


def test_at_equal_times_it_is_the_velocity():
    v, x = EmpiricalVelocity(THREE_POINTS.float()), points(2).float()
    t = torch.linspace(0.0, 0.9, 6)
    assert_close(exact_mean_velocity(v, x, t, t), v(x, t))
    assert_close(exact_mean_velocity(v, x, 0.5, 0.5, steps=1), v(x, torch.tensor(0.5)))


def test_no_velocity_is_asked_outside_its_interval():
    """In float32, s + (t - s) may be larger than t: where t is the last time of a path, too late."""
    g, asked = seeded(28), []
    s, t = torch.rand(2, 2000, generator=g) ** 3
    assert ((s + (t - s) > t) & (s < t)).any()

    def v(x, at):
        asked.append(at)
        return x

    exact_mean_velocity(v, torch.ones(2000, 1), s, t, steps=2)
    for at in asked:
        assert (torch.minimum(s, t) <= at).all()
        assert (at <= torch.maximum(s, t)).all()
    assert (asked[-1] - t).abs().max() < 1e-6


def test_one_time_for_all_equals_that_time_for_each():
    v, x = EmpiricalVelocity(THREE_POINTS), points(3)
    each = exact_mean_velocity(v, x, torch.full((6,), 0.2).double(), torch.full((6,), 0.9).double(), **FINE)
    assert_close(exact_mean_velocity(v, x, 0.2, 0.9, **FINE), each)
    assert_close(exact_mean_velocity(v, x, 0.2, torch.full((6,), 0.9).double(), **FINE), each)


def test_fixed_steps_have_order_four():
    truth, x = gaussian_flow(COSINE), points(4)
    expected = (truth.flow(x, 0.1, 0.9) - x) / 0.8
    errors = [(exact_mean_velocity(truth.velocity, x, 0.1, 0.9, steps=n) - expected).abs().max() for n in (8, 16)]
    assert 11 < errors[0] / errors[1] < 23


@pytest.mark.parametrize(("s", "r", "t"), [(0.0, 0.4, 0.9), (0.2, 0.21, 0.7), (0.3, 0.8, 0.5), (0.6, 0.5, 0.3)])
def test_intervals_join(s, r, t):
    """(t - s) u(x, s, t) = (r - s) u(x, s, r) + (t - r) u(phi(x), r, t), whatever the order of the times."""
    u = functools.partial(exact_mean_velocity, EmpiricalVelocity(THREE_POINTS), **FINE)
    x = points(5, n=3)
    first = (r - s) * u(x, s, r)
    assert_close((t - s) * u(x, s, t), first + (t - r) * u(x + first, r, t), rtol=0, atol=1e-6)


@pytest.mark.parametrize("t", [0.3, 0.95])
def test_the_identity_holds_for_the_exact_mean_velocity(t):
    """u = v + (t - s) du/ds along the trajectory, for s before and after t."""
    v = EmpiricalVelocity(THREE_POINTS)
    x, s = points(6), torch.tensor([0.05, 0.1, 0.3, 0.5, 0.7, 0.8], dtype=torch.float64)
    u = functools.partial(exact_mean_velocity, v, rtol=1e-10, atol=1e-10)
    along = difference(u, x, v(x, s), s, t, h=1e-3)
    assert along.abs().amax(dim=1).min() > 0.05
    assert_close(u(x, s, t), v(x, s) + column(t - s, x) * along, rtol=1e-4, atol=1e-5)


# The derivative and the loss


@pytest.mark.parametrize("model", [wavy, network().double()], ids=["function", "network"])
def test_the_derivative_along_the_trajectory_equals_finite_differences(model):
    x, v = points(7), points(8)
    s, t = torch.linspace(0.1, 0.6, 6).double(), torch.linspace(0.9, 0.3, 6).double()
    u, rate = total_derivative(model, x, v, s, t)
    assert_close(u, model(x, s, t), rtol=0, atol=0)
    assert_close(rate, difference(model, x, v, s, t), rtol=1e-7, atol=1e-8)


def test_a_model_that_does_not_move_has_no_derivative():
    x, s = points(9), torch.rand(6, generator=seeded(9), dtype=torch.float64)
    _, rate = total_derivative(lambda x, s, t: torch.ones_like(x.detach()), x, x, s, s)
    assert_close(rate, torch.zeros_like(x))


def by_differences(model, case, x0, x1, s, t):
    """Points and targets of the loss, from the definitions of the schedules and from finite differences."""
    (alpha, sigma), (d_alpha, d_sigma) = differentiate(schedules(case), s)
    xs = column(alpha, x0) * x1 + column(sigma, x0) * x0
    v = column(d_alpha, x0) * x1 + column(d_sigma, x0) * x0
    with torch.no_grad():
        return xs, v + column(t - s, x0) * difference(model, xs, v, s, t)


def batch(seed, shape=(2,)):
    g = seeded(seed)
    x0, x1 = torch.randn(2, 6, *shape, generator=g, dtype=torch.float64)
    s, t = 0.05 + 0.9 * torch.rand(2, 6, generator=g, dtype=torch.float64)
    return x0, 0.5 * x1 + 1, s, t


@pytest.mark.parametrize("case", [RECTIFIED, VP, COSINE], ids=str)
@pytest.mark.parametrize("shape", [(2,), (1, 2, 2)], ids=str)
def test_the_loss_is_the_squared_distance_to_the_target(case, shape):
    x0, x1, s, t = batch(10, shape)
    xs, target = by_differences(wavy, case, x0, x1, s, t)
    loss = mean_flow_matching(wavy, case.path, x0, x1, s=s, t=t)
    assert_close(loss, (wavy(xs, s, t) - target).square().mean(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("weight", ["none", "adaptive"])
def test_the_gradient_goes_through_the_prediction_alone(weight):
    model = network().double()
    x0, x1, s, t = batch(11)
    xs, target = by_differences(model, RECTIFIED, x0, x1, s, t)
    errors = (model(xs, s, t) - target).square()
    total = errors.detach().sum(dim=1)
    scale = torch.ones_like(total) if weight == "none" else 1 / (total + 1e-3) ** 0.75
    parameters = list(model.parameters())
    expected = torch.autograd.grad((errors * scale[:, None]).mean(), parameters)
    loss = mean_flow_matching(model, RECTIFIED.path, x0, x1, s=s, t=t, weight=weight, power=0.75)
    for found, right in zip(torch.autograd.grad(loss, parameters), expected, strict=True):
        assert_close(found, right, rtol=1e-6, atol=1e-9)


def test_the_adaptive_weight_hides_how_large_the_errors_are():
    x0, x1, s, t = batch(12)
    for scale in (1.0, 10.0):

        def far(x, s, t, scale=scale):
            return scale * (10 + wavy(x, s, t))

        loss = mean_flow_matching(far, RECTIFIED.path, x0, x1, s=s, t=t, weight="adaptive")
        assert_close(loss.item(), 1 / 2, rtol=1e-3, atol=0)  # |error|^2 / |error|^2 / (2 dimensions)


def test_at_equal_times_the_loss_is_conditional_flow_matching():
    x0, x1, s, _ = batch(13)
    mean = mean_flow_matching(wavy, VP.path, x0, x1, s=s, t=s)
    assert_close(mean, losses.conditional_flow_matching(lambda x, t: wavy(x, t, t), VP.path, x0, x1, s))


def gaussian_mean_velocity(truth, x, s, t):
    (m0, s0), (m1, s1) = truth.moments(s), truth.moments(t)
    return (m1 + s1 * (x - m0) / s0 - x) / column(t - s, x)


@five_cases
@pytest.mark.parametrize(("s", "t"), [(0.0, 0.95), (0.2, 0.3), (0.6, 0.9)])
def test_the_exact_mean_velocity_of_a_gaussian_is_the_minimum(case, s, t):
    """The target is linear in the pair's velocity, so at a fixed s and t only second moments count.

    Four pairs have exactly those of the population. The mean residual, and that times x_s, must vanish without any
    sampling error: they are the gradient in the two numbers of an affine change of the model.
    """
    truth = gaussian_flow(case, (1,))
    root = math.sqrt(2)
    x0 = torch.tensor([[root], [-root], [0.0], [0.0]], dtype=torch.float64)
    x1 = truth.mean + truth.std * x0.flip(0)

    def gradient(model):
        numbers = torch.zeros(2, dtype=torch.float64, requires_grad=True)

        def changed(x, s, t):
            return model(x, s, t) + numbers[0] * x + numbers[1]

        loss = mean_flow_matching(changed, case.path, x0, x1, s=s, t=t)
        return torch.autograd.grad(loss, numbers)[0]

    scale = truth.velocity(x0, torch.tensor(s)).abs().max()
    assert_close(gradient(functools.partial(gaussian_mean_velocity, truth)) / scale**2, torch.zeros(2).double())
    wrong = gradient(lambda x, s, t: 1.1 * gaussian_mean_velocity(truth, x, s, t))
    assert wrong.abs().max() > 1e-3 * scale


def test_drawn_intervals_are_stationary_at_the_exact_mean_velocity():
    """The same with everything drawn: a gradient of which each part is within its sampling error of zero."""
    truth, g, rows = gaussian_flow(RECTIFIED), seeded(14), {"exact": [], "velocity": []}
    models = {
        "exact": functools.partial(gaussian_mean_velocity, truth),
        "velocity": lambda x, s, t: gaussian_mean_velocity(truth, x, s, s + 1e-3),
    }
    for _ in range(40):
        x0 = torch.randn(256, 2, generator=g, dtype=torch.float64)
        x1 = truth.sample(256, 1.0, g)
        numbers = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        for name, model in models.items():

            def changed(x, s, t, model=model, numbers=numbers):
                return model(x, s, t) + numbers[0] + numbers[1] * x + numbers[2] * column(t, x) * x

            loss = mean_flow_matching(changed, RECTIFIED.path, x0, x1, g, equal=0.0)
            rows[name].append(torch.autograd.grad(loss, numbers)[0])
    scores = {
        name: (torch.stack(row).mean(dim=0) / (torch.stack(row).std(dim=0) / math.sqrt(40))).abs()
        for name, row in rows.items()
    }
    assert scores["exact"].max() < 4.5
    assert scores["velocity"].max() > 9  # the same test finds the velocity out


# Intervals


def test_intervals_are_two_ordered_times_or_one():
    n = 20_000
    s, t = draw_intervals(n, seeded(15), equal=0.3)
    same = s == t
    assert (s <= t).all()
    assert abs(same.double().mean() - 0.3) < 4 * math.sqrt(0.21 / n)
    # the smaller and the larger of two uniform times have densities 2 (1 - s) and 2 t, a single one has 1
    assert stats.kstest(s[~same].double(), lambda q: 1 - (1 - q) ** 2).pvalue > 1e-4
    assert stats.kstest(t[~same].double(), lambda q: q**2).pvalue > 1e-4
    assert stats.kstest(s[same].double(), "uniform").pvalue > 1e-4


def test_intervals_of_other_times():
    times = functools.partial(logit_normal, mean=-1.0)
    s, t = draw_intervals(20_000, seeded(16), equal=1.0, times=times)
    assert torch.equal(s, t)
    assert stats.kstest(torch.logit(s.double()), stats.norm(-1, 1).cdf).pvalue > 1e-4


def test_drawn_intervals_end_where_the_path_does():
    """The rectified path ends just before 1, where its marginal velocity is singular."""
    seen = []

    def model(x, s, t):
        seen.append((s.detach(), t.detach()))
        return x

    x = points(17, n=2000).float()
    path = gaussian_flow(RECTIFIED).case.path
    for end in (path.t_max, 0.5):
        mean_flow_matching(model, type(path)(**(vars(path) | {"t_max": end})), x, x, seeded(17), equal=0.25)
        s, t = seen.pop()
        assert 0.99 * end < t.max() <= end
        assert abs((s == t).float().mean() - 0.25) < 0.05
    first, second, other = (mean_flow_matching(wavy, path, x, x, seeded(seed)) for seed in (18, 18, 19))
    assert first == second != other


# The network


@modest
@given(
    batch=st.integers(1, 5),
    shape=st.sampled_from([(1,), (3,), (2, 2), (1, 2, 3)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_numbers_scalars_and_vectors_of_equal_times_agree(batch, shape, dtype):
    x = torch.randn(batch, *shape, generator=seeded(19), dtype=dtype)
    model = MeanVelocity(x[0].numel(), width=8, depth=1).to(dtype)
    u = model(x, 0.3, 0.8)
    assert u.shape == x.shape
    assert u.dtype == dtype
    s, t = torch.tensor(0.3, dtype=dtype), torch.tensor(0.8, dtype=dtype)
    assert_close(model(x, s, t), u, rtol=0, atol=0)
    assert_close(model(x, s.expand(batch), t), u, rtol=0, atol=0)
    assert_close(model(x, 0.3, t.expand(batch)), u, rtol=0, atol=0)


def test_the_network_depends_on_both_times_of_each_sample():
    model, x = network(), points(20).float()
    s, t = torch.linspace(0, 0.5, 6), torch.linspace(0.5, 1, 6)
    u = model(x, s, t)
    for i in range(6):
        assert_close(model(x[i : i + 1], s[i], t[i]), u[i : i + 1])
    for other in (model(x, s + 0.2, t), model(x, s, t + 0.2), model(x + 0.2, s, t)):
        assert (other - u).abs().amax(dim=1).min() > 1e-4
    assert_close(model.velocity(x, s), model(x, s, s), rtol=0, atol=0)
    assert solve(model.velocity, x, method="euler", steps=3).nfe == 3


def test_the_network_is_told_the_start_and_the_length():
    model, x = network(), points(29).float()
    with torch.no_grad():
        model.network.layers[0].weight[:, 3] = 0  # of the start, after the point and the length
    assert_close(model(x, 0.1, 0.4), model(x, 0.5, 0.8))
    assert (model(x, 0.1, 0.4) - model(x, 0.1, 0.5)).abs().amax(dim=1).min() > 1e-4


# Sampling


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_steps_of_the_exact_mean_velocity_all_end_where_the_flow_does(steps):
    v = EmpiricalVelocity(THREE_POINTS)
    x0, end = points(21), v.path.t_max
    solution = few_steps(functools.partial(exact_mean_velocity, v, **FINE), x0, steps, t1=end)
    assert_close(solution.x, solve(v, x0, 0.0, end, **FINE).x, rtol=0, atol=1e-6)
    assert_close(solution.times, torch.tensor([0.0, end], dtype=torch.float64))


def test_one_step_adds_the_mean_velocity():
    model, x0 = network(), points(22).float()
    solution = one_step(model, x0)
    assert_close(solution.x, x0 + model(x0, 0.0, 1.0))
    assert not solution.x.requires_grad
    half = x0 + 0.5 * model(x0, 0.0, 0.5)
    assert_close(few_steps(model, x0, 2).x, half + 0.5 * model(half, 0.5, 1.0))


def test_evaluations_are_counted():
    def twice(x, s, t):
        count_evaluations(2)
        return -x

    x0 = points(23)
    with Evaluations() as count:
        assert one_step(network().double(), x0).nfe == 1
        assert few_steps(wavy, x0, 3).nfe == 3
        assert few_steps(twice, x0, 4).nfe == 8
    assert count.total == 12


def test_a_network_in_training_mode_is_warned_of():
    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x, s, t):
            return self.drop(x)

    with pytest.warns(UserWarning, match=r"Dropping is in training mode.*call \.eval\(\)"):
        few_steps(Dropping(), points(24), 3)


def test_one_step_of_a_mean_velocity_is_better_than_one_step_along_a_velocity():
    """From the source all velocities point to the mean of the data: one Euler step ends there, whatever is trained."""
    g = seeded(25)
    with torch.random.fork_rng():
        torch.manual_seed(25)
        flow = networks.MLP(2, width=64, depth=3)
        mean = MeanVelocity(2, width=64, depth=3)
    objectives = {
        flow: lambda x0, x1: losses.conditional_flow_matching(flow, RECTIFIED.path, x0, x1, generator=g),
        mean: lambda x0, x1: mean_flow_matching(mean, RECTIFIED.path, x0, x1, g),
    }
    for model, loss in objectives.items():
        optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
        for _ in range(300):
            optimizer.zero_grad()
            loss(torch.randn(256, 2, generator=g), toy.two_moons(256, g)).backward()
            optimizer.step()
    x0, data = torch.randn(1000, 2, generator=g), toy.two_moons(1000, g)
    euler = energy_distance(solve(flow, x0, method="euler", steps=1).x, data)
    step = energy_distance(one_step(mean, x0).x, data)
    many = energy_distance(solve(flow, x0, method="euler", steps=30).x, data)
    assert many < 0.1 < euler  # the velocity has been learned, and needs steps
    assert step < euler / 10


# What is passed in


def loss_of(model=wavy, path=RECTIFIED.path, x0=None, x1=None, **options):
    x0 = points(26) if x0 is None else x0
    return mean_flow_matching(model, path, x0, points(27) if x1 is None else x1, **options)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: loss_of(path="rectified"), TypeError, "the path is a str: the order is model, path, x0, x1"),
        (lambda: loss_of(x1=points(0, n=5)), ValueError, "each source sample needs exactly one data sample"),
        (lambda: loss_of(x0=torch.ones(6, 2).long(), x1=torch.ones(6, 2).long()), TypeError, "holds torch.int64"),
        (lambda: loss_of(x0=points(0) / 0), ValueError, "x0 or x1 has NaN or infinite values in 6 of 6 samples"),
        (lambda: loss_of(s=0.5), ValueError, "give both ends of the interval, or neither"),
        (lambda: loss_of(s=0.5, t=1.5), ValueError, "t is 1.5: times are real numbers from 0"),
        (lambda: loss_of(s=0.5, t=torch.ones(6, 1)), ValueError, "t has shape (6, 1)"),
        (lambda: loss_of(s=3, t=7), ValueError, "t is 3: times are real numbers from 0"),
        (lambda: loss_of(equal=1.5), ValueError, "equal=1.5: the share of intervals with s = t is a number"),
        (lambda: loss_of(weight="huber"), ValueError, "unknown weight 'huber': choose one of adaptive, none"),
        (lambda: loss_of(weight="adaptive", power=-1), ValueError, "power=-1: the power of the adaptive weight"),
        (lambda: loss_of(generator=0), TypeError, "pass a torch.Generator"),
        (lambda: loss_of(lambda x, s, t: x[:, :1]), ValueError, "the model returned shape (6, 1) for x of shape"),
        (lambda: loss_of(lambda x, s, t: (x, x)), TypeError, "the model returned a tuple"),
        (lambda: loss_of(network()), ValueError, "float64 and the network's weights are float32"),
        (lambda: exact_mean_velocity(wavy, points(0) / 0, 0.0, 1.0), ValueError, "x has NaN or infinite values"),
        (lambda: exact_mean_velocity(wavy, torch.ones(2, 2).int(), 0.0, 1.0), TypeError, "x holds torch.int32"),
        (lambda: exact_mean_velocity(wavy, points(0), 0.0, 1.1), ValueError, "t is 1.1: times are real numbers from 0"),
        (lambda: exact_mean_velocity(wavy, points(0), torch.rand(3), 1.0), ValueError, "t has shape (3,), but x has"),
        (lambda: exact_mean_velocity(lambda x, t: x, points(0), 0.0, 1.0, steps=2.0), ValueError, "write steps=2"),
        (lambda: few_steps(wavy, points(0), 0), ValueError, "steps is 0: it must be at least 1"),
        (lambda: few_steps(wavy, points(0), 4.0), ValueError, "write steps=4"),
        (lambda: few_steps(wavy, points(0) / 0, 4), ValueError, "x0 has NaN or infinite values"),
        (lambda: few_steps(lambda x, s, t: x / 0, points(0), 4), SolveError, "the solution stopped being finite"),
        (lambda: one_step(lambda x, s, t: x.sum(), points(0)), ValueError, "the model returned shape () for x"),
        (lambda: MeanVelocity(0), ValueError, "dim is 0: it must be at least 1"),
        (lambda: MeanVelocity(2, depth=1.5), ValueError, "a number of depth is a whole number"),
        (lambda: network()(torch.ones(6, 3), 0.0, 1.0), ValueError, "this network was built for 2 dimensions"),
        (lambda: network()(torch.ones(6, 2), 0.0, torch.ones(6, 1)), ValueError, "t has shape (6, 1)"),
    ],
)  # fmt: skip
def test_what_is_passed_in_is_named(call, error, words):
    with pytest.raises(error) as raised:
        call()
    assert words in str(raised.value)


def test_no_samples():
    none = torch.empty(0, 2)
    assert exact_mean_velocity(EmpiricalVelocity(THREE_POINTS.float()), none, 0.0, 0.5).shape == (0, 2)
    assert few_steps(network(), none, 2).x.shape == (0, 2)
