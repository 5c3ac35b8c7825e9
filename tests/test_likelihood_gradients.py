"""Velocities that hide their gradient are refused; those that do not, of every kind and up to the data, are not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fmcore import likelihood, networks, paths
from fmcore.closed_form import EmpiricalVelocity
from fmcore.likelihood import density
from fmcore.likelihood.hidden_gradients import check_gradient
from fmcore.sources import Gaussian
from tests.analytic import FIVE, seeded

G = Gaussian((2,))
both_types = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


def built(make, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def perceptron(dim=2, activation=nn.SiLU, gain=1.0, seed=0):
    network = built(
        lambda: nn.Sequential(nn.Linear(dim, 32), activation(), nn.Linear(32, 32), activation(), nn.Linear(32, dim)),
        seed,
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(gain)
    return network.double()


WEIGHT = nn.Parameter(torch.tensor(-1.0))
NET = perceptron()


def of_the_net(x):
    return NET(x.double()).to(x.dtype)


def energy_of_a_copy(x, t):
    """The gradient of an energy, taken at a detached copy of x: it has a graph, which does not lead to x."""
    copy = x.detach().requires_grad_(True)
    return torch.autograd.grad((WEIGHT * copy**2).sum(), copy, create_graph=True)[0]


def through_numpy(x, t):
    return WEIGHT * torch.from_numpy(x.detach().numpy().copy())


HIDDEN = {
    "detach": lambda x, t: WEIGHT * x.detach(),
    "data": lambda x, t: WEIGHT * x.data,
    "no_grad": torch.no_grad()(lambda x, t: WEIGHT * x),
    "energy": energy_of_a_copy,
    "NumPy": through_numpy,
    "network": lambda x, t: of_the_net(x.detach()),
    "detach, and zero times x": lambda x, t: WEIGHT * x.detach() + 0 * x,
    "half of it": lambda x, t: WEIGHT * x.detach() - x / 2,
    "half with the other sign": lambda x, t: WEIGHT * x.detach() + x / 2,
    "network, and zero times x": lambda x, t: of_the_net(x.detach()) + 0 * x,
    "beside a large constant": lambda x, t: 10 + WEIGHT * x.detach() + 0 * x,
    "rounded through": lambda x, t: 2 * x + (torch.sin(5 * x) - 2 * x).detach() + 0 * WEIGHT,
}
every_hidden = pytest.mark.parametrize("name", HIDDEN)


@every_hidden
@both_types
@pytest.mark.parametrize("options", [{}, {"divergence": "hutchinson"}, {"method": "rk4", "steps": 3}], ids=str)
def test_a_hidden_gradient_is_refused(name, dtype, options):
    x = torch.randn(8, 2, generator=seeded(0), dtype=dtype)
    with pytest.raises(ValueError, match=r"the velocity (depends on|changes with) x .*remove \.detach\(\)"):
        likelihood.log_likelihood(HIDDEN[name], x, G, **options)


@pytest.mark.parametrize("name", ["detach", "energy", "no_grad"])
def test_a_hidden_gradient_is_refused_at_every_time(name):
    """Only the first evaluation is compared with differences; where one first has no gradient at all, it is asked."""

    def later(x, t):
        return HIDDEN[name](x, t) if t < 0.5 else WEIGHT * x

    with pytest.raises(ValueError, match="depends on x but keeps no gradient"):
        likelihood.log_likelihood(later, torch.randn(4, 2, generator=seeded(1)), G)
    with pytest.raises(ValueError, match="depends on x but keeps no gradient"):
        likelihood.velocity_and_divergence(HIDDEN[name], torch.ones(3, 2), torch.tensor(0.5), torch.eye(2))


@both_types
@pytest.mark.parametrize(
    "field",
    [
        lambda x, t: torch.ones_like(x),
        lambda x, t: WEIGHT.to(x).expand_as(x) + 2,
        lambda x, t: torch.ones_like(x) + 0 * x,
        torch.no_grad()(lambda x, t: torch.ones_like(x)),
    ],
    ids=["constant", "learned", "zero times x", "no_grad"],
)
def test_a_field_that_does_not_depend_on_x_moves_the_source_as_it_is(field, dtype):
    x = torch.randn(4, 2, generator=seeded(2), dtype=dtype)
    found = likelihood.log_likelihood(field, x, G)
    assert_close(found.log_prob, -((x - 1) ** 2).sum(dim=1) / 2 - math.log(2 * math.pi), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "field",
    [lambda x, t: torch.full_like(x, 0.3), lambda x, t: WEIGHT.to(x).expand_as(x) * 0.3],
    ids=["number", "learned"],
)
@pytest.mark.parametrize("options", [{}, {"divergence": "hutchinson"}, {"method": "euler", "steps": 8}], ids=str)
def test_a_constant_field_in_16_bits_moves_the_source_as_it_is(field, dtype, options):
    """0.3 rounded to 16 bits is not 0.3 rounded to 32."""
    x = torch.randn(4, 2, generator=seeded(2)).to(dtype)
    found = likelihood.log_likelihood(field, x, G, **options)
    start = x.double() - field(x, 0.0).double()
    assert_close(found.log_prob.double(), -(start**2).sum(dim=1) / 2 - math.log(2 * math.pi), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="depends on x but keeps no gradient"):
        likelihood.log_likelihood(lambda x, t: x.detach(), x, G, **options)


@pytest.mark.parametrize(
    "field", [lambda x, t: torch.ones_like(x), lambda x, t: WEIGHT.expand_as(x)], ids=["none", "elsewhere"]
)
def test_a_field_without_a_gradient_in_x_is_asked_once_more_and_no_more(field):
    calls = []

    def velocity(x, t):
        calls.append(len(x))
        return field(x, t)

    found = likelihood.log_likelihood(velocity, torch.ones(3, 2), G, method="euler", steps=20)
    assert found.nfe == 20
    assert len(calls) == 1 + 20 + 1  # before the solve, in it, and where x has moved


def test_a_field_of_the_time_alone_moves_the_source_as_it_is():
    x = torch.randn(4, 2, generator=seeded(3), dtype=torch.float64)
    found = likelihood.log_likelihood(lambda x, t: WEIGHT * (2 * t).expand_as(x), x, G)  # moves by -1
    assert_close(found.log_prob, -((x + 1) ** 2).sum(dim=1) / 2 - math.log(2 * math.pi), rtol=1e-4, atol=1e-4)


# No false alarms


@both_types
@pytest.mark.parametrize("activation", [nn.ReLU, nn.SiLU, nn.Tanh])
@pytest.mark.parametrize("gain", [1.0, 3.0, 10.0])
@pytest.mark.parametrize("batch", [1, 64])
def test_networks_are_let_through(activation, gain, batch, dtype):
    """Kinks, saturation and steep slopes, for single points too."""
    for seed in range(6):
        network = perceptron(1 + seed % 3, activation, gain, seed).to(dtype)
        x = torch.randn(batch, 1 + seed % 3, generator=seeded(seed), dtype=dtype)
        check_gradient(lambda x, t, network=network: network(x), x, torch.tensor(0.5, dtype=dtype))


@both_types
@pytest.mark.parametrize("frequency", [1, 30, 1000])
def test_fields_that_wiggle_are_let_through(frequency, dtype):
    for seed in range(5):
        waves = frequency * torch.randn(2, 32, generator=seeded(seed), dtype=dtype)
        field = lambda x, t, waves=waves: torch.sin(x @ waves) @ waves.T / frequency  # noqa: E731
        check_gradient(field, torch.randn(16, 2, generator=seeded(seed), dtype=dtype), torch.tensor(0.5, dtype=dtype))
        check_gradient(field, torch.randn(1, 2, generator=seeded(seed), dtype=dtype), torch.tensor(0.5, dtype=dtype))


@pytest.mark.parametrize("inner", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("outer", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_networks_of_fewer_digits_inside_are_let_through(inner, outer):
    for seed in range(8):
        network = perceptron(seed=seed).to(inner)
        field = lambda x, t, network=network: network(x.to(inner)).to(x.dtype)  # noqa: E731
        x = torch.randn(16, 2, generator=seeded(seed), dtype=outer)
        check_gradient(field, x, torch.tensor(0.5, dtype=outer))


@both_types
@pytest.mark.parametrize("size", [1e-2, 1.0, 50.0])
@pytest.mark.parametrize("untrained", [True, False])
def test_a_unet_is_let_through(size, untrained, dtype):
    network = built(lambda: networks.UNet((1, 8, 8), channels=8, multipliers=(1, 2), blocks=1, attention=(4,), heads=2))
    if not untrained:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=seeded(4)))
    network = network.to(dtype)
    x = size * torch.randn(4, 1, 8, 8, generator=seeded(5), dtype=dtype)
    for t in (0.0, 0.5, 1.0):
        check_gradient(network, x, torch.tensor(t, dtype=dtype))


@both_types
@pytest.mark.parametrize("case", FIVE, ids=str)
@pytest.mark.parametrize(("points", "dim"), [(10, 2), (500, 1), (200, 30)])
def test_exact_velocities_are_let_through_up_to_the_data(case, points, dim, dtype):
    """At the data they are stiff, and jump from one point to the next within lengths of sigma squared."""
    data = torch.randn(points, dim, generator=seeded(6), dtype=dtype)
    velocity, path = EmpiricalVelocity(data, case.path), case.path
    x0, elsewhere = torch.randn(2, 16, dim, generator=seeded(7), dtype=dtype)
    x1 = data[torch.randint(points, (16,), generator=seeded(8))]
    for t in (0.0, 0.5, 0.99, path.t_max):
        time = torch.tensor(t, dtype=dtype)
        for x in (path.interpolate(x0, x1, time), x1, elsewhere):
            check_gradient(velocity, x, time)


def test_dropout_makes_no_alarm_and_its_draws_stay_the_same():
    network = built(lambda: nn.Sequential(nn.Linear(2, 32), nn.SiLU(), nn.Dropout(0.5), nn.Linear(32, 2)))
    before = torch.random.get_rng_state()
    check_gradient(lambda x, t: network(x), torch.randn(8, 2, generator=seeded(9)), torch.tensor(0.5))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_what_is_not_finite_is_left_to_the_solver():
    for field in (lambda x, t: x * torch.nan, lambda x, t: x.detach() * torch.nan):
        with pytest.raises(RuntimeError, match="stopped being finite"):
            likelihood.log_likelihood(field, torch.ones(3, 2), G)


def test_an_energy_that_needs_the_graph_of_its_input_works():
    """v = -grad E(x) with E = |x|^2 / 2: the same numbers as v = -x."""

    def descent(x, t):
        return -torch.autograd.grad((x**2 / 2).sum(), x, create_graph=True)[0]

    x = torch.randn(4, 2, generator=seeded(10), dtype=torch.float64)
    found = likelihood.log_likelihood(descent, x, G)
    assert_close(found.log_prob, likelihood.log_likelihood(lambda x, t: -x, x, G).log_prob, rtol=1e-9, atol=1e-9)


def test_the_checks_are_not_counted():
    calls = []

    def velocity(x, t):
        calls.append(float(t))
        return -x

    found = likelihood.log_likelihood(velocity, torch.ones(3, 2), G, t1=0.75, method="euler", steps=5)
    assert found.nfe == 5
    assert calls[:4] == [0.75] * 4  # before the solve, where it starts
    assert len(calls) == 4 + 5


def test_a_stiff_late_solve_is_unchanged_by_the_check(monkeypatch):
    """A closed form solved from the data side, from its last time on."""
    data = torch.randn(5, 2, generator=seeded(11), dtype=torch.float64)
    path = paths.rectified()

    def solved():
        return likelihood.log_likelihood(
            EmpiricalVelocity(data, path), data + 1e-6, G, t1=path.t_max, rtol=1e-3, atol=1e-3
        )

    found = solved()
    asked = []
    monkeypatch.setattr(density, "check_gradient", lambda *given: asked.append(given))
    without = solved()
    assert len(asked) == 1
    assert torch.equal(found.log_prob, without.log_prob)
    assert torch.equal(found.x0, without.x0)
    assert found.nfe == without.nfe > 10
