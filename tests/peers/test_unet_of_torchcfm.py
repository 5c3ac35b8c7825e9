"""The U-Net of TorchCFM: with the same weights it gives the same velocity, and it has as many of them."""

from __future__ import annotations

import pytest
import torch

from fmcore.networks import UNet
from fmcore.networks.unet import TIME_SCALE
from tests.networks.test_unet import LIPMAN

peer = pytest.importorskip(
    "torchcfm.models.unet.unet",
    reason="TorchCFM is not installed: `make bench` installs it in build/peers, for PYTHONPATH",
)


def theirs(shape, channels, multipliers, blocks, attention, head_channels, num_classes=None):
    return peer.UNetModelWrapper(
        dim=shape,
        num_channels=channels,
        channel_mult=list(multipliers),
        num_res_blocks=blocks,
        attention_resolutions=",".join(map(str, attention)),
        num_head_channels=head_channels,
        class_cond=num_classes is not None,
        num_classes=num_classes,
    )


@pytest.mark.parametrize(("settings", "parameters"), LIPMAN.values(), ids=LIPMAN)
def test_the_networks_of_lipman_et_al_have_as_many_parameters(settings, parameters):
    with torch.device("meta"):
        network = theirs(**settings)
    assert sum(weight.numel() for weight in network.parameters()) == parameters


@pytest.mark.parametrize("batch", [1, 4])  # with four images the wide layers take Winograd's way
def test_the_same_weights_give_the_same_velocity(batch):
    settings = {"channels": 128, "multipliers": (1, 2, 1), "blocks": 1, "attention": (8, 4), "head_channels": 64}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ours, other = UNet((3, 16, 16), **settings), theirs((3, 16, 16), **settings)
        x, t = torch.randn(batch, 3, 16, 16), torch.rand(batch)
        with torch.no_grad():
            for weight, same in zip(ours.parameters(), other.parameters(), strict=True):
                weight.add_(0.03 * torch.randn_like(weight))
                same.copy_(weight.view(same.shape))  # the layers are defined in the same order
            # their features of the time are ours of a time not stretched
            found, expected = ours(x, t), other(TIME_SCALE * t, x)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
