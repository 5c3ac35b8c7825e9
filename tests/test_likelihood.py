"""Densities against analytic Gaussians, divergences against full Jacobians, bits against known codes."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from torch import nn
from torch.testing import assert_close

from fmcore import likelihood, networks
from fmcore.data.images import dequantize, scale
from fmcore.sources import Gaussian
from tests.analytic import FIVE, RECTIFIED, VE, gaussian_flow, seeded

# Evaluations before a solve, which look at the gradient of the velocity and are not counted.
CHECKS = 4


def still(x, t):
    """The velocity of the identity."""
    return torch.zeros_like(x)


@dataclass
class Flat:
    """A source with the same log-density everywhere."""

    value: float = 0.0

    def log_prob(self, x):
        return torch.full((len(x),), self.value, dtype=x.dtype)


# Log-densities


@pytest.mark.parametrize("case", FIVE, ids=str)
@pytest.mark.parametrize("shape", [(2,), (1, 2, 2)], ids=str)
def test_log_density_of_a_gaussian_flow(case, shape):
    """The flow is an affine map, so the source N(0, sigma_0^2) arrives as a normal law with known mean and spread."""
    truth, path = gaussian_flow(case, shape), case.path
    source = Gaussian(shape, std=path.source_scale)
    x1 = truth.sample(8, path.t_max, seeded(0))
    found = likelihood.log_likelihood(truth.velocity, x1, source, t1=path.t_max, rtol=1e-7, atol=1e-7)
    zero, one = (truth.flow(torch.full_like(truth.mean, z), 0.0, path.t_max) for z in (0.0, 1.0))
    normal = torch.distributions.Normal(zero, path.source_scale * (one - zero))
    expected = normal.log_prob(x1).flatten(1).sum(dim=1)
    assert_close(found.log_prob, expected, rtol=0, atol=1e-4)
    assert_close(found.x0, truth.flow(x1, path.t_max, 0.0), rtol=0, atol=1e-3 * path.source_scale)


def test_log_density_equals_that_of_the_data_where_the_path_reaches_them():
    truth = gaussian_flow(RECTIFIED)
    x1 = truth.sample(8, 1.0, seeded(1))
    found = likelihood.log_likelihood(truth.velocity, x1, Gaussian((2,)), t1=RECTIFIED.path.t_max)
    expected = torch.distributions.Normal(truth.mean, truth.std).log_prob(x1).sum(dim=1)
    assert_close(found.log_prob, expected, rtol=0, atol=1e-4)


def test_the_density_of_a_nonlinear_flow_integrates_to_one():
    """In one dimension, v = sin(2 x) + t: the density sums to one over a fine grid, and is no Gaussian."""
    x = torch.linspace(-6, 7, 1301, dtype=torch.float64)[:, None]
    found = likelihood.log_likelihood(lambda x, t: torch.sin(2 * x) + t, x, Gaussian((1,)), rtol=1e-7, atol=1e-7)
    density = found.log_prob.exp()
    assert float(density.sum()) * 0.01 == pytest.approx(1, abs=1e-6)
    mean = float((density * x[:, 0]).sum()) * 0.01
    assert abs(float((density * (x[:, 0] - mean) ** 2).sum()) * 0.01 - 1) > 0.1


def test_part_of_the_interval():
    """exp(t - t0) growth over [0.25, 0.75]: the log-density falls by d / 2."""
    x = torch.randn(4, 3, generator=seeded(2), dtype=torch.float64)
    found = likelihood.log_likelihood(lambda x, t: x, x, Flat(), t0=0.25, t1=0.75)
    assert_close(found.log_prob, torch.full((4,), -1.5, dtype=torch.float64), rtol=0, atol=1e-5)
    assert_close(found.x0, x * math.exp(-0.5), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_divergence_of_a_network_in_another_memory_layout(channels):
    """Layers in channels_last cannot be differentiated for many vectors at once."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, channels, 3, padding=1))
    layers = layers.double().to(memory_format=torch.channels_last)

    def velocity(x, t):
        return layers(x.contiguous(memory_format=torch.channels_last))

    x = torch.randn(3, channels, 4, 4, generator=seeded(1), dtype=torch.float64)
    unit = torch.eye(x[0].numel(), dtype=x.dtype).reshape(-1, *x.shape[1:])
    _, found = likelihood.velocity_and_divergence(velocity, x, torch.tensor(0.5), unit)
    jacobians = [torch.autograd.functional.jacobian(lambda y: velocity(y[None], None)[0], one) for one in x]
    expected = torch.stack([jacobian.reshape(len(unit), len(unit)).trace() for jacobian in jacobians])
    assert_close(found, expected)


@pytest.mark.parametrize(("method", "cost"), [("euler", 1), ("midpoint", 2), ("heun", 2), ("rk4", 4)])
def test_evaluations_are_counted_and_shared_with_the_divergence(method, cost):
    calls = []

    def velocity(x, t):
        calls.append(float(t))
        return -x * t

    x = torch.randn(3, 4, generator=seeded(3))
    for divergence in likelihood.DIVERGENCES:
        calls.clear()
        found = likelihood.log_likelihood(
            velocity, x, Gaussian((4,)), divergence, probes=3, method=method, steps=5, generator=seeded(0)
        )
        assert found.nfe == len(calls) - CHECKS == 5 * cost
    calls.clear()
    found = likelihood.log_likelihood(velocity, x, Gaussian((4,)), t1=0.9)
    assert found.nfe == len(calls) - CHECKS
    assert max(calls) <= float(torch.tensor(0.9))
    assert min(calls) >= 0


# Divergences


class Convolution(nn.Module):
    """A small convolutional velocity that mixes all pixels and channels."""

    def __init__(self, channels):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, channels, 3, padding=1)
        )

    def forward(self, x, t):
        return self.layers(x) * (1 + t)


def network(kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "mlp":
            return networks.MLP(3, width=16, depth=2).double(), (3,)
        if kind == "wide convolution":  # more dimensions than are differentiated at once
            return Convolution(2).double(), (2, 6, 7)
        return Convolution(1).double(), (1, 4, 4)


every_network = pytest.mark.parametrize("kind", ["mlp", "convolution", "wide convolution"])


def jacobians(velocity, x, t):
    """One Jacobian a sample, (B, d, d)."""
    rows = []
    for i in range(len(x)):
        full = torch.autograd.functional.jacobian(lambda one: velocity(one, t), x[i : i + 1])
        rows.append(full.reshape(x[0].numel(), x[0].numel()))
    return torch.stack(rows)


@every_network
def test_the_exact_divergence_is_the_trace_of_the_jacobian(kind):
    velocity, shape = network(kind)
    x, t = torch.randn(2, *shape, generator=seeded(4), dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    units = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    v, divergence = likelihood.velocity_and_divergence(velocity, x, t, units)
    expected = torch.stack([torch.trace(matrix) for matrix in jacobians(velocity, x, t)])
    assert_close(divergence, expected, rtol=1e-9, atol=1e-12)
    assert_close(v, velocity(x, t).detach())
    assert not v.requires_grad
    assert not divergence.requires_grad


@every_network
def test_one_euler_step_backward_adds_minus_the_divergence(kind):
    velocity, shape = network(kind)
    x = torch.randn(2, *shape, generator=seeded(5), dtype=torch.float64)
    found = likelihood.log_likelihood(velocity, x, Flat(2.0), t0=0.5, t1=0.7, method="euler", steps=1)
    t = torch.tensor(0.7, dtype=torch.float64)
    expected = torch.stack([torch.trace(matrix) for matrix in jacobians(velocity, x, t)])
    assert_close(found.log_prob, 2.0 - 0.2 * expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["mlp", "convolution"])
@pytest.mark.parametrize("probes", [1, 4])
def test_hutchinson_is_unbiased_and_scatters_as_random_signs_do(kind, probes):
    """The same point 4000 times, each with signs of its own: Var(z'Jz) = sum_{i != j} (J_ij + J_ji)^2 / 2."""
    velocity, shape = network(kind)
    n = 4000
    x = torch.randn(1, *shape, generator=seeded(6), dtype=torch.float64)
    found = likelihood.log_likelihood(
        velocity, x.expand(n, *shape), Flat(), "hutchinson", probes, t0=0.4, t1=0.5, method="euler", steps=1,
        generator=seeded(7),
    )  # fmt: skip
    estimates = -found.log_prob / 0.1
    matrix = jacobians(velocity, x, torch.tensor(0.5, dtype=torch.float64))[0]
    off_diagonal = matrix + matrix.T - 2 * torch.diag(matrix.diag())
    variance = float((off_diagonal**2).sum()) / 2 / probes
    assert abs(float(estimates.mean() - matrix.trace())) < 4 * math.sqrt(variance / n)
    assert float(estimates.var()) == pytest.approx(variance, rel=0.15)


@pytest.mark.parametrize("probes", [1, 3])
def test_hutchinson_is_exact_for_a_diagonal_jacobian(probes):
    """Random signs square to one; Gaussian probes would scatter."""
    x = torch.randn(5, 4, generator=seeded(8), dtype=torch.float64)
    velocity = lambda x, t: torch.sin(x) * (1 + t)  # noqa: E731
    exact = likelihood.log_likelihood(velocity, x, Gaussian((4,)))
    estimate = likelihood.log_likelihood(velocity, x, Gaussian((4,)), "hutchinson", probes, generator=seeded(9))
    assert_close(estimate.log_prob, exact.log_prob, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["euler", "rk4", "dopri5"])
def test_signs_are_drawn_once_for_the_whole_solve(method):
    """For a swap of two coordinates z'Jz is 2 or -2: signs kept through the solve leave exactly these integrals."""
    velocity = lambda x, t: x.flip(1)  # noqa: E731
    x = torch.randn(64, 2, generator=seeded(10), dtype=torch.float64)
    found = likelihood.log_likelihood(
        velocity, x, Flat(), "hutchinson", method=method, steps=None if method == "dopri5" else 6, generator=seeded(11)
    )
    assert_close(found.log_prob.abs(), torch.full((64,), 2.0, dtype=torch.float64), rtol=1e-9, atol=0)
    assert abs(int((found.log_prob > 0).sum()) - 32) < 4.5 * 4


def test_the_generator_alone_decides_the_signs():
    x = torch.randn(8, 2, generator=seeded(12), dtype=torch.float64)
    before = torch.random.get_rng_state()
    first, again, other = (
        likelihood.log_likelihood(
            lambda x, t: x.flip(1) * x, x, Flat(), "hutchinson", method="rk4", steps=3, generator=seeded(seed)
        ).log_prob
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_velocity_without_x_has_no_divergence():
    x = torch.randn(3, 2, generator=seeded(13), dtype=torch.float64)
    found = likelihood.log_likelihood(lambda x, t: torch.ones_like(x), x, Gaussian((2,)))
    assert_close(found.log_prob, Gaussian((2,)).log_prob(x - 1), rtol=1e-6, atol=1e-6)


def test_a_learned_constant_velocity_has_no_divergence():
    shift = nn.Parameter(torch.ones(2, dtype=torch.float64))
    x = torch.randn(3, 2, generator=seeded(13), dtype=torch.float64)
    found = likelihood.log_likelihood(lambda x, t: shift.expand_as(x), x, Gaussian((2,)))
    assert_close(found.log_prob, Gaussian((2,)).log_prob(x - 1), rtol=1e-6, atol=1e-6)


def test_it_works_under_no_grad_and_leaves_parameters_alone():
    velocity, shape = network("mlp")
    x = torch.randn(2, *shape, generator=seeded(14), dtype=torch.float64)
    free = likelihood.log_likelihood(velocity, x, Gaussian(shape), method="rk4", steps=4)
    with torch.no_grad():
        guarded = likelihood.log_likelihood(velocity, x, Gaussian(shape), method="rk4", steps=4)
    assert torch.equal(free.log_prob, guarded.log_prob)
    assert all(parameter.grad is None for parameter in velocity.parameters())


def test_it_works_in_inference_mode():
    velocity, shape = network("mlp")
    x = torch.randn(2, *shape, generator=seeded(14), dtype=torch.float64)
    free = likelihood.log_likelihood(velocity, x, Gaussian(shape), method="rk4", steps=4)
    with torch.inference_mode():
        guarded = likelihood.log_likelihood(velocity, x, Gaussian(shape), method="rk4", steps=4)
    assert torch.equal(free.log_prob, guarded.log_prob)


def test_a_velocity_that_hides_its_gradient_is_refused():
    """It depends on x, but records no graph: no divergence can be had from it."""
    hidden = torch.no_grad()(lambda x, t: torch.sin(x))
    with pytest.raises((ValueError, RuntimeError), match="grad"):
        likelihood.log_likelihood(hidden, torch.ones(3, 2), Gaussian((2,)), method="rk4", steps=4)


# Bits per dimension


@dataclass
class Table:
    """A density on [-1, 1]^d that is constant within each bin: the histogram of a discrete law, independent pixels."""

    probabilities: torch.Tensor

    def log_prob(self, x):
        levels = len(self.probabilities)
        bins = ((x.double() + 1) * levels / 2).floor().long().clamp(0, levels - 1)
        return (self.probabilities[bins].log() + math.log(levels / 2)).flatten(1).sum(dim=1)


def discrete_law(levels):
    weights = torch.rand(levels, generator=seeded(15), dtype=torch.float64) + 0.05
    return weights / weights.sum()


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("shape", [(1,), (3, 2, 2)], ids=str)
@pytest.mark.parametrize("draws", [1, 3])
def test_bits_of_a_density_constant_in_each_bin_are_the_code_length_of_the_discrete_law(levels, shape, draws):
    """-log2 P(pixel), whatever the dequantization noise, the number of draws and the batches."""
    law = discrete_law(levels)
    images = torch.randint(0, levels, (10, *shape), generator=seeded(16))
    found = likelihood.bits_per_dim(
        still, images, Table(law), levels, draws, batch_size=4, generator=seeded(17), divergence="exact"
    )
    codes = -law[images].log2().flatten(1).mean(dim=1)
    assert_close(found.per_image.double(), codes, rtol=0, atol=2e-5)
    assert found.value == pytest.approx(float(codes.mean()), abs=2e-5)
    assert found.standard_error == pytest.approx(stats.sem(codes.numpy()), abs=2e-5)
    assert found.draws == draws


@pytest.mark.parametrize("levels", [17, 256])
def test_a_uniform_density_needs_log2_levels_bits(levels):
    images = torch.randint(0, levels, (5, 1, 3, 3), generator=seeded(18)).to(torch.uint8)
    found = likelihood.bits_per_dim(still, images, Flat(-9 * math.log(2)), levels, generator=seeded(19))
    assert_close(found.per_image, torch.full((5,), math.log2(levels)))


def gaussian_bits(level, levels, std):
    """Expected bits of one pixel of this level under N(0, std^2): the mean over the bin, by quadrature."""
    low, high = 2 * level / levels - 1, 2 * (level + 1) / levels - 1
    mean = quad(lambda y: -stats.norm.logpdf(y, scale=std), low, high)[0] / (high - low)
    return mean / math.log(2) + math.log2(levels / 2)


@pytest.mark.parametrize("levels", [17, 256])
def test_bits_of_a_gaussian_equal_quadrature(levels):
    n, level, std = 4000, levels // 5, 0.4
    images = torch.full((n, 2), level)
    found = likelihood.bits_per_dim(still, images, Gaussian((2,), std), levels, batch_size=n, generator=seeded(20))
    assert abs(found.value - gaussian_bits(level, levels, std)) < 4.5 * found.standard_error
    assert 0 < found.standard_error < 0.02


def test_many_draws_approach_the_probability_of_the_bin():
    """The mean density over a wide bin times its width is the bin's probability: log2 of it needs no dequantization."""
    levels, level, std = 4, 0, 0.4
    probability = stats.norm.cdf(-0.5, scale=std) - stats.norm.cdf(-1.0, scale=std)
    images = torch.full((400, 1), level)
    bits = {
        draws: likelihood.bits_per_dim(
            still, images, Gaussian((1,), std), levels, draws, batch_size=400, generator=seeded(21)
        )
        for draws in (1, 4, 60)
    }
    assert bits[1].value > bits[4].value + 3 * bits[1].standard_error > bits[60].value
    assert bits[60].value == pytest.approx(-math.log2(probability), abs=4.5 * bits[60].standard_error + 0.01)
    assert bits[1].value == pytest.approx(gaussian_bits(level, levels, std), abs=4.5 * bits[1].standard_error)


@pytest.mark.parametrize("shape", [(1,), (2, 3, 3)], ids=str)
@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_a_flow_that_doubles_every_direction_costs_one_bit(shape, divergence):
    """x1 = 2 x0: the density falls by 2 in each dimension."""
    images = torch.randint(0, 256, (6, *shape), generator=seeded(22)).to(torch.uint8)
    doubled, plain = (
        likelihood.bits_per_dim(velocity, images, Flat(), divergence=divergence, generator=seeded(23)).per_image
        for velocity in (lambda x, t: math.log(2) * x, still)
    )
    assert_close(doubled - plain, torch.ones(6), rtol=0, atol=1e-4)


def test_bits_of_a_flow_equal_bits_of_its_density():
    """The Gaussian flow of the VE path and the density that it ends in code the same dequantized images alike."""
    truth, path = gaussian_flow(VE, (2,)), VE.path
    images = torch.randint(0, 256, (6, 2), generator=seeded(24)).to(torch.uint8)
    flow = likelihood.bits_per_dim(
        truth.velocity, images, Gaussian((2,), path.source_scale), divergence="exact", t1=path.t_max,
        generator=seeded(25),
    )  # fmt: skip
    zero, one = (truth.flow(torch.full_like(truth.mean, z), 0.0, path.t_max) for z in (0.0, 1.0))

    class Arrival:
        def log_prob(self, x):
            return torch.distributions.Normal(zero, path.source_scale * (one - zero)).log_prob(x.double()).sum(dim=1)

    direct = likelihood.bits_per_dim(still, images, Arrival(), generator=seeded(25), divergence="exact")
    assert_close(flow.per_image.double(), direct.per_image.double(), rtol=0, atol=1e-3)


def test_evaluations_are_averaged_over_batches_and_draws():
    calls = []

    def velocity(x, t):
        calls.append(len(x))
        return -x

    images = torch.randint(0, 256, (5, 2), generator=seeded(26))
    found = likelihood.bits_per_dim(velocity, images, Gaussian((2,)), draws=3, batch_size=2, generator=seeded(27))
    assert found.nfe == pytest.approx(len(calls) / 9 - CHECKS)  # three batches, three draws
    assert set(calls) == {1, 2}


def test_one_image_has_no_standard_error():
    found = likelihood.bits_per_dim(still, torch.zeros(1, 2, dtype=torch.uint8), Flat(), generator=seeded(28))
    assert math.isnan(found.standard_error)
    assert found.value == pytest.approx(7)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("dim", [1, 64, 3072])
def test_bits_of_a_log_density_are_those_of_the_whole_numbers(levels, dim):
    """All equally likely: the density is 1 / 2 on [-1, 1] in each dimension, and the code has log2 levels bits."""
    uniform = torch.full((2, 3), -dim * math.log(2), dtype=torch.float64)
    assert_close(
        likelihood.bits_from_log_prob(uniform, dim, levels),
        torch.full_like(uniform, math.log2(levels)),
        rtol=1e-12,
        atol=0,
    )
    halved = likelihood.bits_from_log_prob(uniform - dim * math.log(2), dim, levels)  # half the density: one bit more
    assert_close(halved, torch.full_like(uniform, math.log2(levels) + 1), rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="dim is 0 and levels is"):
        likelihood.bits_from_log_prob(uniform, 0, levels)


def test_bits_per_dim_hands_the_solver_on():
    """v = x over [0.25, 0.75] by Euler steps: backward, each multiplies by 1 - h and adds -d h to the log-density."""
    images = torch.randint(0, 256, (4, 3), generator=seeded(40)).to(torch.uint8)
    options = {"t0": 0.25, "t1": 0.75, "method": "euler", "steps": 5, "divergence": "exact"}
    found, plain = (
        likelihood.bits_per_dim(velocity, images, Flat(), generator=seeded(41), **options)
        for velocity in (lambda x, t: x, still)
    )
    assert found.nfe == 5
    assert_close(found.per_image - plain.per_image, torch.full((4,), 0.5 / math.log(2)), rtol=0, atol=1e-5)


def test_bits_do_not_depend_on_the_default_dtype():
    images = torch.randint(0, 17, (4, 3), generator=seeded(42))
    found = []
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            found.append(likelihood.bits_per_dim(still, images, Gaussian((3,)), 17, generator=seeded(43)).per_image)
            assert scale(images, 17).dtype == dequantize(images, 17).dtype == torch.float32
        finally:
            torch.set_default_dtype(torch.float32)
    assert torch.equal(*found)


# What comes back


def test_the_result_has_no_gradient_and_says_so_where_one_is_asked_for():
    velocity, shape = network("mlp")
    x = torch.randn(2, *shape, generator=seeded(44), dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = likelihood.log_likelihood(velocity, x, Gaussian(shape), method="euler", steps=2)
        with torch.no_grad():
            likelihood.log_likelihood(velocity, x.requires_grad_(True), Gaussian(shape), method="euler", steps=2)
    with pytest.warns(UserWarning, match=r"x1\.detach\(\), or see fmcore\.training\.maximum_likelihood"):
        found = likelihood.log_likelihood(velocity, x, Gaussian(shape), method="euler", steps=2)
    assert torch.equal(found.log_prob, plain.log_prob)
    assert not found.log_prob.requires_grad
    assert not plain.log_prob.requires_grad


def test_a_network_in_training_mode_with_dropout_is_named():
    model = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    x = torch.randn(2, 2, generator=seeded(45))
    with pytest.warns(UserWarning, match=r"call \.eval\(\)") as seen:
        likelihood.log_likelihood(lambda x, t: model(x), x, Gaussian((2,)), method="euler", steps=1)
    assert len(seen) == 1


def test_an_empty_batch_has_no_densities():
    found = likelihood.log_likelihood(lambda x, t: -x, torch.zeros(0, 2), Gaussian((2,)))
    assert found.log_prob.shape == (0,)
    assert found.x0.shape == (0, 2)
    assert found.nfe == 0


def test_sixteen_bits_keep_the_density_to_their_own_precision():
    x = torch.randn(8, 2, generator=seeded(46))
    exact = likelihood.log_likelihood(lambda x, t: torch.sin(x) * (1 + t), x, Gaussian((2,)), method="rk4", steps=8)
    for divergence in likelihood.DIVERGENCES:  # the Jacobian is diagonal: random signs give the exact divergence
        found = likelihood.log_likelihood(
            lambda x, t: torch.sin(x) * (1 + t.to(x.dtype)), x.bfloat16(), Gaussian((2,)), divergence,
            method="rk4", steps=8, generator=seeded(47),
        )  # fmt: skip
        assert found.x0.dtype == torch.bfloat16
        assert_close(found.log_prob, exact.log_prob, rtol=0, atol=0.05)


# Bad input


def test_points_and_generators_of_another_type_are_refused():
    with pytest.raises(TypeError, match=r"x1 holds torch\.int64: .*x1\.float\(\)"):
        likelihood.log_likelihood(still, torch.zeros(3, 2, dtype=torch.int64), Gaussian((2,)))
    with pytest.raises(TypeError, match="pass a torch.Generator"):
        likelihood.log_likelihood(still, torch.zeros(3, 2), Gaussian((2,)), "hutchinson", generator=3)
    with pytest.raises(ValueError, match="batch_size is 0"):
        likelihood.bits_per_dim(still, torch.zeros(2, 3, dtype=torch.uint8), Gaussian((3,)), batch_size=0)
    with pytest.raises(ValueError, match=r"steps=10\.0: .* write steps=10"):
        likelihood.log_likelihood(still, torch.zeros(3, 2), Gaussian((2,)), method="euler", steps=10.0)


def test_unknown_divergences_points_and_shapes_are_refused():
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="unknown divergence 'skilling': choose one of exact, hutchinson"):
        likelihood.log_likelihood(still, x, Gaussian((2,)), "skilling")
    with pytest.raises(ValueError, match="x1 has NaN"):
        likelihood.log_likelihood(still, x * torch.nan, Gaussian((2,)))
    with pytest.raises(ValueError, match=r"samples have shape \(3,\)"):
        likelihood.log_likelihood(still, x, Gaussian((3,)))
    with pytest.raises(ValueError, match="the velocity returned shape"):
        likelihood.log_likelihood(lambda x, t: x[:, :1], x, Gaussian((2,)))
    with pytest.raises(ValueError, match="needs steps="):
        likelihood.log_likelihood(still, x, Gaussian((2,)), method="euler")


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_a_velocity_that_is_not_finite_is_an_error_that_says_so(method):
    with pytest.raises(RuntimeError, match="stopped being finite"):
        likelihood.log_likelihood(
            lambda x, t: x * torch.nan, torch.ones(3, 2), Gaussian((2,)), method=method,
            steps=None if method == "dopri5" else 4,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "rk45", "steps": 3}, "unknown method 'rk45'"),
        ({"method": "dopri5", "steps": 3}, "dopri5 chooses its own steps"),
        ({"method": "euler", "steps": 0}, "steps is 0"),
        ({"divergence": "hutchinson", "probes": 0}, "probes is 0"),
    ],
)
def test_options_of_the_solver_are_checked_as_by_solve(options, message):
    with pytest.raises(ValueError, match=message):
        likelihood.log_likelihood(still, torch.ones(3, 2), Gaussian((2,)), **options)


@pytest.mark.parametrize(
    ("images", "levels", "message"),
    [
        (torch.zeros(2, 3), 256, r"whole-number pixels in 0\.\.255, got torch\.float32"),
        (torch.full((2, 3), 17), 17, r"got values from 17 to 17"),
        (torch.full((2, 3), -1), 256, r"got values from -1"),
    ],
)
def test_images_that_are_not_levels_are_refused(images, levels, message):
    with pytest.raises(ValueError, match=message):
        likelihood.bits_per_dim(still, images, Gaussian((3,)), levels)


def test_at_least_one_draw():
    with pytest.raises(ValueError, match="draws is 0"):
        likelihood.bits_per_dim(still, torch.zeros(2, 3, dtype=torch.uint8), Gaussian((3,)), draws=0)


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="images is empty"):
        likelihood.bits_per_dim(lambda x, t: x, torch.zeros(0, 2, dtype=torch.uint8), Gaussian((2,)))
