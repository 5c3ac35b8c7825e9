"""The network of an experiment: its weights follow from the seed, and its prediction becomes a velocity."""

import math

import pytest
import torch

from fmcore.experiments.config.overrides import with_overrides
from fmcore.experiments.run.network import as_velocity, build_network
from fmcore.papers import catalog

CONFIGURATION = with_overrides(catalog.by_name("digits"), ["channels=8", "attention="])


def test_weights_follow_from_the_seed_and_nothing_else():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = build_network(CONFIGURATION, (1, 8, 8)).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again = build_network(CONFIGURATION, (1, 8, 8)).state_dict()
    other = build_network(with_overrides(CONFIGURATION, ["seed=1"]), (1, 8, 8)).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["first.weight"], other["first.weight"])


def test_every_setting_of_the_network_reaches_it():
    settings = ["channels=16", "multipliers=1,2,2", "blocks=1", "attention=2", "heads=2", "dropout=0.25"]
    network = build_network(with_overrides(CONFIGURATION, settings), (3, 8, 8))
    assert network.shape == (3, 8, 8)
    assert network.first.out_channels == 16
    assert network.last[-1].in_channels == 16
    assert {layer.p for layer in network.modules() if isinstance(layer, torch.nn.Dropout)} == {0.25}
    assert {part.heads for part in network.modules() if hasattr(part, "heads")} == {2}
    assert sum(type(layer).__name__ == "Downsample" for layer in network.modules()) == 2


@pytest.mark.parametrize(
    ("loss", "path"),
    [
        ("conditional_flow_matching", "rectified"),
        ("noise_prediction", "variance_preserving"),
        ("score_matching", "variance_preserving"),
        ("score_flow", "variance_preserving"),
    ],
)
def test_what_the_network_predicts_becomes_the_velocity_of_the_flow(loss, path):
    """Data at a single point c: x_t ~ N(alpha c, sigma^2), and all four predictions are known in closed form."""
    c = 0.7
    configuration = with_overrides(CONFIGURATION, [f"loss={loss}", f"path={path}"])
    x, t = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None], torch.tensor(0.6, dtype=torch.float64)

    def mean_and_spread(time):
        if path == "rectified":
            return time * c, 1 - time
        s = 1 - time
        decay = math.exp(-(0.1 * s + 19.9 * s * s / 2) / 2)
        return decay * c, math.sqrt(1 - decay**2)

    mean, spread = mean_and_spread(0.6)
    noise = (x - mean) / spread
    step = 1e-5
    (late_mean, late_spread), (early_mean, early_spread) = mean_and_spread(0.6 + step), mean_and_spread(0.6 - step)
    expected = (late_mean + late_spread * noise - early_mean - early_spread * noise) / (2 * step)  # along a trajectory
    predicted = {"noise_prediction": noise, "conditional_flow_matching": expected}.get(loss, -noise / spread)
    found = as_velocity(lambda x, t: predicted, configuration)(x, t)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
