"""Bits/dim of held-out images: against known densities, brute force, and simulated noise."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from fmcore.data import ImageData
from fmcore.experiments.config.evaluation import EvaluationConfig
from fmcore.experiments.evaluate import bits_per_dim
from fmcore.sources import Gaussian

CPU = torch.device("cpu")


def run_of(velocity, **settings):
    """What is needed of a run: a velocity on images of 1x2x2 pixels with 4 grey levels."""
    generator = torch.Generator().manual_seed(0)
    train, held_out = (torch.randint(4, (n, 1, 2, 2), generator=generator).to(torch.uint8) for n in (5, 7))
    data = ImageData("tiny", train, held_out, torch.zeros(5).long(), torch.zeros(7).long(), levels=4)
    return SimpleNamespace(
        configuration=SimpleNamespace(evaluation=EvaluationConfig(**settings)),
        data=data,
        velocity=velocity,
        source=Gaussian((1, 2, 2)),
        path=SimpleNamespace(t_max=1.0),
        device=CPU,
    )


def still(x, t):
    return 0.0 * x


def test_a_flow_that_does_nothing_has_the_density_of_its_source():
    run = run_of(still, draws=3, probe_repeats=2, solver_batch=4)
    found = bits_per_dim.densities(run, run.data.held_out)
    rows, _ = bits_per_dim.summary(found)
    # all y in a bin k are N(0, 1) of a pixel; the mean over u of log N(y), by quadrature
    grid = (np.arange(20_000) + 0.5) / 20_000
    level = [stats.norm.logpdf(2 * (k + grid) / 4 - 1).mean() for k in range(4)]
    expected = [-sum(level[k] for k in image.flatten()) / (4 * math.log(2)) + 1 for image in run.data.held_out]
    assert rows["flow"]["value"] == pytest.approx(np.mean(expected), abs=0.05)
    assert found.draws.shape == (3, 7)
    assert torch.equal(found.draws[0], found.repeats[0])
    assert torch.allclose(found.repeats[0], found.repeats[1])  # no divergence, so no noise of an estimate
    assert not torch.allclose(found.draws[0], found.draws[1])


def test_a_linear_flow_has_the_density_of_a_scaled_gaussian():
    run = run_of(lambda x, t: math.log(3.0) * x, divergence="exact", draws=1, solver_batch=7)
    y = torch.randn(7, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    found = bits_per_dim.log_likelihood(run.velocity, y, run.source, "exact").log_prob
    expected = stats.norm(scale=3).logpdf(y.numpy()).reshape(7, -1).sum(1)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)
    value = bits_per_dim.summary(bits_per_dim.densities(run, run.data.held_out))[0]["flow"]["value"]
    # N(0, 9) is nearly flat over [-1, 1]: every pixel has density 1 / (3 sqrt(2 pi)) per unit of y, 2/4 a level
    assert value == pytest.approx(math.log2(3 * math.sqrt(2 * math.pi)) + 1, abs=0.1)


def test_bits_count_grey_levels():
    # a density that is 1 / 2^d everywhere on [-1, 1]^d knows nothing: log2(levels) bits per pixel
    nothing = torch.full((1, 5), -3072 * math.log(2.0))
    found = bits_per_dim.Densities(nothing, nothing, torch.ones(5), 3072, 256)
    assert found.bits(nothing).flatten().tolist() == pytest.approx([8.0] * 5)
    assert found.bits(torch.zeros(1)).tolist() == pytest.approx([7.0])  # the constant of the paper


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_the_shares_of_processes_add_up_to_the_same(processes):
    run = run_of(lambda x, t: torch.sin(3 * x) * t, draws=2, probe_repeats=2, solver_batch=2)
    whole = bits_per_dim.share(run, run.data.held_out)
    parts = [bits_per_dim.share(run, run.data.held_out, rank, processes) for rank in range(processes)]
    for name in ("draws", "repeats", "nfe"):
        assert torch.equal(sum(getattr(part, name) for part in parts), getattr(whole, name))
    assert (whole.nfe > 0).all()


def test_the_mean_density_by_brute_force():
    values = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double()
    expected = np.log(np.exp(values.numpy()).mean(0))
    np.testing.assert_allclose(bits_per_dim.log_mean(values).numpy(), expected)
    np.testing.assert_allclose(bits_per_dim.log_mean(values - 2000).numpy(), expected - 2000)


def test_more_draws_need_fewer_bits_and_one_draw_is_averaged():
    draws = 5 * torch.randn(8, 200, generator=torch.Generator().manual_seed(0)) - 100
    rows, about = bits_per_dim.summary(bits_per_dim.Densities(draws, draws[:1], torch.ones(200), 64, 17))
    one = -draws / (64 * math.log(2)) + math.log2(8.5)
    assert rows["flow"]["value"] == pytest.approx(float(one.mean()), abs=1e-5)
    assert rows["flow, K = 8"]["value"] < rows["flow"]["value"]
    assert about["deviation_between_draws"] == pytest.approx(5 / (64 * math.log(2)), rel=0.1)
    assert "bias_of_K_draws" not in about  # the noise was not measured


@pytest.mark.parametrize(("noise", "spread", "count"), [(0.3, 0.5, 4), (0.3, 3.0, 10), (4.0, 1.0, 8), (6.0, 5.0, 20)])
def test_the_bias_against_noise_that_is_added(noise, spread, count):
    generator = torch.Generator().manual_seed(0)
    clean = spread * torch.randn(count, 20_000, generator=generator, dtype=torch.float64)
    noisy = clean + noise * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    bias = float((bits_per_dim.log_mean(noisy) - bits_per_dim.log_mean(clean)).mean())
    second_order, gaussian = bits_per_dim.bias_of_noise(noisy, noise**2)
    assert gaussian == pytest.approx(bias, rel=0.12, abs=0.005)
    if noise < 1:
        assert second_order == pytest.approx(bias, rel=0.15)
    else:
        assert second_order < 0.9 * bias  # where it does not hold, it is too small


def test_one_draw_has_no_bias():
    draws = torch.randn(1, 50)
    assert bits_per_dim.bias_of_noise(torch.cat([draws, draws]), 0.0) == (0.0, pytest.approx(0.0))
    assert bits_per_dim.gain_of_draws(3.0, 1) == pytest.approx(0.0, abs=1e-12)


def test_noise_of_the_estimate_is_seen_between_probes():
    # div v = tr A is estimated by e^T A e with random signs: variance 2 sum of the squared off-diagonal (symmetric A)
    a = torch.zeros(4, 4)
    a[0, 1] = a[1, 0] = 0.7
    run = run_of(lambda x, t: (x.flatten(1) @ a).reshape(x.shape), probe_repeats=40, solver_batch=7)
    found = bits_per_dim.densities(run, run.data.held_out)
    _, about = bits_per_dim.summary(found)
    deviation = about["deviation_between_probes"] / about["bits_per_nat"]
    assert deviation == pytest.approx(1.4, rel=0.1)


def test_equal_images_get_noise_of_their_own_also_in_another_chunk():
    run = run_of(still, draws=1, solver_batch=2)
    same = run.data.held_out[:1].expand(6, -1, -1, -1)
    found = bits_per_dim.densities(run, same).draws[0]
    assert len(found.unique()) == 6
