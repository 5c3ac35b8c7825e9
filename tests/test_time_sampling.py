"""Times and weights of a loss: against their distributions, and against what they stand for."""

import math

import pytest
import scipy.stats
import torch

from fmcore import losses, paths, time_sampling


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_logits_are_normal():
    t = time_sampling.logit_normal(20_000, mean=0.5, std=0.8, generator=seeded())
    assert t.min() >= 0
    assert t.max() <= 1
    logits = torch.logit(t.double())
    assert scipy.stats.kstest(((logits - 0.5) / 0.8).numpy(), "norm").pvalue > 1e-3
    assert scipy.stats.kstest(((logits - 0.4) / 0.8).numpy(), "norm").pvalue < 1e-6


def test_a_shift_moves_times_as_more_noise_does():
    """The time at which noise hides as much: sigma / alpha of the shifted time is the shift times that of the other."""
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    for shift in (0.5, 1.0, 3.0):
        moved = time_sampling.shifted(t, shift)
        torch.testing.assert_close((1 - moved) / moved, shift * (1 - t) / t)
    assert time_sampling.shifted(torch.tensor([0.0, 1.0]), 3.0).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("path", [paths.rectified(), paths.ot(0.1), paths.variance_preserving(), paths.cosine()])
@pytest.mark.parametrize(("name", "convert"), [("noise", "velocity_to_noise"), ("data", "velocity_to_data")])
def test_a_weighted_loss_is_that_of_the_other_prediction(path, name, convert):
    x0, x1 = torch.randn(64, 5, generator=seeded()).double(), torch.randn(64, 5, generator=seeded(1)).double()
    t = 0.05 + 0.9 * torch.rand(64, generator=seeded(2)).double()

    def velocity(x, t):
        return 0.3 * x + 0.1

    found = losses.conditional_flow_matching(velocity, path, x0, x1, t, weight=time_sampling.weight(name, path))
    xt = path.interpolate(x0, x1, t)
    predicted = getattr(path, convert)(velocity(xt, t), xt, t)
    torch.testing.assert_close(found, (predicted - {"noise": x0, "data": x1}[name]).square().mean())


def test_data_prediction_is_least_at_the_posterior_mean():
    """For data N(0, s^2) on the rectified path E[x1 | x] is known; any other factor is worse."""
    path, s, t = paths.rectified(), 0.5, torch.full((20_000,), 0.4)
    x0, x1 = torch.randn(20_000, 1, generator=seeded()), s * torch.randn(20_000, 1, generator=seeded(1))
    best = 0.4 * s**2 / (0.4**2 * s**2 + 0.6**2)
    values = [
        float(losses.data_prediction(lambda x, t, f=factor: f * x, path, x0, x1, t)) for factor in (best, 0, 2 * best)
    ]
    assert values[0] == min(values)
    assert values[0] == pytest.approx(s**2 * 0.36 / (0.4**2 * s**2 + 0.36), rel=0.03)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: time_sampling.logit_normal(4, std=0), "std above 0"),
        (lambda: time_sampling.logit_normal(4, mean=math.nan), "mean=nan"),
        (lambda: time_sampling.shifted(torch.rand(3), 0), "shift=0"),
        (lambda: time_sampling.weight("snr", paths.rectified()), "choose one of none, noise, data"),
    ],
)
def test_wrong_numbers_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
    assert time_sampling.weight("none", paths.rectified()) is None
