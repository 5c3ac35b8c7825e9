"""States, points and networks of 16 bits, against the same in float64 and against solutions known by formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fmcore import networks, solvers
from fmcore.closed_form import EmpiricalVelocity, HybridVelocity, bank_velocity
from fmcore.guidance import guided
from fmcore.paths import LAST_TIME
from fmcore.velocity import count_evaluations, from_data, from_noise, from_score, scaled_up
from tests.analytic import RECTIFIED, VP, gaussian_flow, seeded

SIXTEEN = [torch.bfloat16, torch.float16]
both_kinds = pytest.mark.parametrize("dtype", SIXTEEN, ids=["bfloat16", "float16"])


def rounding(dtype):
    """Half the distance of two neighbours just above 1."""
    return {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}[dtype]


# Solvers


@both_kinds
@pytest.mark.parametrize("steps", [10, 1000, 3000])
def test_euler_of_any_number_of_steps_is_the_power_that_it_should_be(dtype, steps):
    """(1 - 1/n)^n for dx/dt = -x from 1: in 16 bits alone, steps below the rounding of x would not move it."""
    end = solvers.solve(lambda x, t: -x, torch.ones(2, 1, dtype=dtype), method="euler", steps=steps).x
    assert end.dtype == dtype
    assert_close(end.double(), torch.full((2, 1), (1 - 1 / steps) ** steps).double(), rtol=2 * rounding(dtype), atol=0)


@both_kinds
@pytest.mark.parametrize("method", ["dopri5", "midpoint", "heun", "rk4"])
def test_every_method_follows_the_exponential_and_keeps_its_states(dtype, method):
    steps = {} if method == "dopri5" else {"steps": 200}
    times = [0.0, 0.5, 1.0]
    solution = solvers.solve(lambda x, t: -x, torch.ones(2, 1, dtype=dtype), method=method, times=times, **steps)
    expected = torch.tensor([math.exp(-t) for t in times]).double()
    assert solution.trajectory.dtype == solution.x.dtype == dtype
    assert_close(solution.trajectory[:, 1, 0].double(), expected, rtol=4 * rounding(dtype), atol=0)
    assert solution.nfe < 1000


@both_kinds
@pytest.mark.parametrize("method", ["euler", "rk4", "dopri5"])
def test_the_velocity_is_given_x_as_it_is_and_times_that_stay_before_the_end(dtype, method):
    seen = []

    def velocity(x, t):
        seen.append((x.dtype, t.dtype, float(t)))
        return -x

    steps = {} if method == "dopri5" else {"steps": 300}
    solvers.solve(velocity, torch.ones(2, 1, dtype=dtype), t1=LAST_TIME, method=method, **steps)
    assert {kinds[:2] for kinds in seen} == {(dtype, torch.float32)}
    times = {time for *_, time in seen}
    assert max(times) < 1
    assert min(times) == 0
    if method == "euler":
        assert len(times) == 300


@both_kinds
def test_the_stochastic_equation_takes_the_same_way_as_in_float32(dtype):
    x = torch.randn(6, 2, generator=seeded(0)).to(dtype)

    def end(x):
        times = [0.0, 0.45, 0.9]
        return solvers.solve_sde(lambda x, t: -x, VP.path, x, 0.0, 0.9, 200, times=times, generator=seeded(1))

    found, expected = end(x), end(x.float())
    assert found.x.dtype == found.trajectory.dtype == dtype
    assert (expected.x - x.float()).abs().max() > 0.5
    assert_close(found.x.float(), expected.x, rtol=0, atol=10 * rounding(dtype))
    assert_close(found.trajectory.float(), expected.trajectory, rtol=0, atol=10 * rounding(dtype))
    assert torch.equal(found.trajectory[0], x)


def test_an_end_that_float16_cannot_hold_is_an_error_that_names_it():
    with pytest.raises(RuntimeError, match=r"too large for torch\.float16: start from x0\.float\(\)"):
        solvers.solve(lambda x, t: torch.full(x.shape, 1e6), torch.ones(2, 1).half(), method="euler", steps=3)


# Networks


class Joined(nn.Module):
    """A network that joins x and t as they come."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 3))

    def forward(self, x, t):
        return self.layers(torch.cat([x, t.expand(len(x), 1)], dim=1))


def made(kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Joined() if kind == "joined" else networks.MLP(3, width=32, depth=1)


@both_kinds
@pytest.mark.parametrize("kind", ["joined", "MLP"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_networks_of_16_bits_move_x_as_the_float32_ones_do(dtype, kind, wrapped):
    network, x = made(kind), torch.randn(5, 3, generator=seeded(2)).to(dtype)

    def end(x):
        velocity = (lambda x, t: network(x, t)) if wrapped else network
        return solvers.solve(velocity, x, method="euler", steps=100)

    expected = end(x.float())
    network = network.to(dtype)
    found = end(x)
    assert found.nfe == 100
    assert (expected.x - x.float()).abs().max() > 0.1
    assert_close(found.x.float(), expected.x, rtol=0, atol=10 * rounding(dtype))


ENDS = {
    "itself": (lambda net: net, 0.0, 1.0),
    "scaled up": (lambda net: scaled_up(net, 2.0), 0.0, 1.0),
    "before a switch": (lambda net: HybridVelocity(net, lambda x, t: x, 0.5), 0.0, 1.0),
    "after a switch": (lambda net: HybridVelocity(lambda x, t: x, net, 0.5), 0.0, 1.0),
    "of data": (lambda net: from_data(net, RECTIFIED.path), 0.0, LAST_TIME),
    "of data, in a function": (lambda net: from_data(lambda x, t: net(x, t), RECTIFIED.path), 0.0, LAST_TIME),
    "of noise": (lambda net: from_noise(net, VP.path), 0.0, LAST_TIME),
    "of data, scaled up": (lambda net: scaled_up(from_data(net, RECTIFIED.path), 0.5), 0.0, 0.99),
}


@both_kinds
@pytest.mark.parametrize(("wrap", "steps"), [*((wrap, 50) for wrap in ENDS), ("of data", 1000), ("scaled up", 1000)])
def test_networks_of_16_bits_that_join_x_and_t_move_x_in_any_wrapping(dtype, wrap, steps):
    """Only what the network itself is given is rounded: 1000 steps reach times that 16 bits round to 1."""
    network, x = made("joined"), torch.randn(5, 3, generator=seeded(2)).to(dtype)
    make, t0, t1 = ENDS[wrap]
    expected = solvers.solve(make(network), x.float(), t0, t1, method="euler", steps=steps)
    given = []

    def watched(x, t):
        given.append((x.dtype, t.dtype))
        return network(x, t)

    network = network.to(dtype)
    found = solvers.solve(make(watched), x, t0, t1, method="euler", steps=steps)
    assert found.nfe == steps
    assert given[:2] == [(dtype, torch.float32), (dtype, dtype)]
    assert (expected.x - x.float()).abs().max() > 0.1
    size = float(expected.x.abs().max())
    assert_close(found.x.float(), expected.x, rtol=0, atol=20 * rounding(dtype) * max(1.0, size))


@both_kinds
def test_times_a_sample_reach_a_joined_network_too(dtype):
    network, x = made("joined").to(dtype), torch.randn(4, 3, generator=seeded(2)).to(dtype)
    t = torch.tensor([0.1, 0.2, 0.8, 0.9])
    plain = torch.cat([network(x[i : i + 1], t[i].to(dtype)) for i in range(4)])

    class Rows(nn.Module):
        def forward(self, x, t):
            return network.layers(torch.cat([x, t[:, None]], dim=1))

    rows = Rows()
    found = HybridVelocity(rows, rows, 0.5)(x, t)
    assert_close(found, plain, rtol=4 * rounding(dtype), atol=4 * rounding(dtype))


def test_a_forward_that_fails_on_two_dtypes_is_not_counted():
    network = made("joined").bfloat16()

    def twice(x, t):
        count_evaluations(1)
        network(x, t)
        count_evaluations(1)
        return network(x, t)

    x = torch.randn(4, 3, generator=seeded(2)).bfloat16()
    for velocity in (twice, scaled_up(twice, 2.0), HybridVelocity(twice, twice, 0.5)):
        assert solvers.solve(velocity, x, method="euler", steps=5).nfe == 10


def test_guidance_of_a_network_of_16_bits():
    network = made("MLP").bfloat16()
    x = torch.randn(4, 3, generator=seeded(3)).bfloat16()

    def model(x, t, labels):
        return network(x, t) * (1 + labels[:, None]).to(x.dtype)

    velocity = guided(model, torch.tensor([0, 1, 0, 1]), 2.0, null=2)
    found = solvers.solve(velocity, x, method="euler", steps=1)
    times = torch.tensor([1.0, 2.0, 1.0, 2.0])
    without = network(x, torch.tensor(0.0)).float()  # v (3 + 2 (1 + label - 3)), for one step of length 1
    expected = x.float() + without * (3 + 2 * (times - 3))[:, None]
    assert_close(found.x.float(), expected.detach(), rtol=0.03, atol=0.03)


# The closed form


POINTS = torch.randn(20, 3, generator=seeded(4), dtype=torch.float64)
QUERIES = torch.randn(6, 3, generator=seeded(5), dtype=torch.float64)


def brute_force(points, x, t):
    """Weights, their mean and the velocity of the rectified path in float64, one query at a time."""
    weights = torch.stack([torch.softmax(-(((q - t * points) ** 2).sum(1)) / (2 * (1 - t) ** 2), 0) for q in x])
    mean = weights @ points
    return weights, mean, (mean - x) / (1 - t)


@both_kinds
@pytest.mark.parametrize("t", [0.3, 0.9, 0.999, LAST_TIME, 1.0])
@pytest.mark.parametrize("of_data", [True, False], ids=["data of 16 bits", "data of 64 bits"])
def test_the_exact_velocity_of_points_of_16_bits(dtype, t, of_data):
    x = QUERIES.to(dtype)
    points = POINTS.to(dtype) if of_data else POINTS
    exact = EmpiricalVelocity(points)
    time = min(torch.tensor(t), torch.tensor(LAST_TIME)).double().item()  # as float32 holds it
    weights, mean, velocity = brute_force(points.double(), x.double(), time)
    for given in (t, torch.tensor(t), torch.full((6,), t)):
        assert_close(exact(x, given).double(), velocity, rtol=1e-4, atol=1e-4)
        assert_close(exact.posterior_mean(x, given).double(), mean, rtol=1e-4, atol=1e-4)
        assert_close(exact.weights(x, given).double(), weights, rtol=1e-4, atol=1e-4)


@both_kinds
def test_its_flow_ends_on_the_points(dtype):
    end = solvers.solve(EmpiricalVelocity(POINTS), QUERIES.to(dtype), path=RECTIFIED.path, method="euler", steps=100).x
    assert end.dtype == dtype
    assert torch.cdist(end.double(), POINTS).min(dim=1).values.max() < 10 * rounding(dtype)


@both_kinds
def test_a_bank_of_16_bits(dtype):
    """One further point, a few sigma_t from each x1, at a time that 16 bits would round to 1."""
    x0, x1, bank = QUERIES[:3].to(dtype), (0.002 * QUERIES[3:]).to(dtype), (0.001 * QUERIES[:1]).to(dtype)
    t = 0.999
    found = bank_velocity(RECTIFIED.path, x0, x1, torch.tensor(t), bank)
    x0, x1, bank = x0.double(), x1.double(), bank.double()
    xt = t * x1 + (1 - t) * x0
    expected = torch.cat([brute_force(torch.cat([x1[i : i + 1], bank]), xt[i : i + 1], t)[2] for i in range(3)])
    assert found.dtype == dtype
    assert (expected - (x1 - x0)).abs().max() > 0.2
    assert_close(found.double(), expected, rtol=4 * rounding(dtype), atol=4 * rounding(dtype))


@both_kinds
@pytest.mark.parametrize("shape", [(), (3,)], ids=["one time", "each its own"])
def test_a_hybrid_switches_at_the_time_and_not_at_its_rounding(dtype, shape):
    """0.4999 in 16 bits is 0.5."""
    hybrid = HybridVelocity(lambda x, t: x, lambda x, t: -x, 0.5)
    x = torch.ones(3, 2, dtype=dtype)
    assert torch.equal(hybrid(x, torch.full(shape, 0.4999)), x)
    assert torch.equal(hybrid(x, torch.full(shape, 0.5)), -x)


# Conversions


@both_kinds
@pytest.mark.parametrize("case", [RECTIFIED, VP], ids=str)
@pytest.mark.parametrize("t", [0.5, 0.999])
@pytest.mark.parametrize(
    ("convert", "prediction"),
    [(from_noise, "noise"), (from_score, "score"), (from_data, "data")],
    ids=["noise", "score", "data"],
)
def test_predictions_of_16_bits_become_the_velocity_of_their_values(dtype, case, t, convert, prediction):
    truth = gaussian_flow(case)
    time = torch.tensor(t).double()
    mean, std = truth.moments(time)
    x = (mean + std * torch.randn(5, 2, generator=seeded(6), dtype=torch.float64)).to(dtype)
    predicted = getattr(truth, prediction)(x.double(), time).to(dtype)
    seen = []

    def model(x, t):
        seen.append(x.dtype)
        return predicted

    found = convert(model, case.path)(x, time.float())
    by_float64 = convert(lambda x, t: predicted.double(), case.path)(x.double(), time)
    assert seen == [dtype]
    assert_close(found.double(), by_float64, rtol=1e-3, atol=1e-3)


@both_kinds
def test_data_scaled_up_in_16_bits(dtype):
    y = torch.randn(4, 3, generator=seeded(7), dtype=torch.float64).to(dtype)
    seen = []

    def velocity(x, t):
        seen.append((x.dtype, t.dtype))
        return torch.full_like(x, 2.0)

    for s in (torch.tensor(0.999), torch.full((4,), 0.999)):
        found = scaled_up(velocity, 4.0)(y, s)
        # dy/ds = ((c - 1) y + c v) / a with a = 1 + 3 s
        assert_close(found.double(), (3 * y.double() + 8) / (1 + 3 * 0.999), rtol=1e-4, atol=1e-4)
    assert seen == [(dtype, torch.float32)] * 2
