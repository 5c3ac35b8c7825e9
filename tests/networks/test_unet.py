"""The U-Net: its size, what it depends on, and what it refuses."""

import copy

import pytest
import torch
from torch import nn

from fmcore.likelihood import velocity_and_divergence
from fmcore.networks import UNet
from fmcore.networks.unet import Attention, time_features
from fmcore.networks.winograd import CHANNELS, Convolution

# The networks of Lipman et al. 2023, Table 3, and the number of parameters that TorchCFM's have: tests/peers holds
# theirs to these numbers.
LIPMAN = {
    name: (dict(zip(("shape", "channels", "blocks", "multipliers", "attention"), sizes, strict=True)), parameters)
    for name, parameters, *sizes in (
        ("cifar10", 142_861_315, (3, 32, 32), 256, 2, (1, 2, 2, 2), (16,)),
        ("imagenet32", 196_069_123, (3, 32, 32), 256, 3, (1, 2, 2, 2), (16, 8)),
        ("imagenet64", 264_904_515, (3, 64, 64), 192, 3, (1, 2, 3, 4), (32, 16, 8)),
        ("imagenet128", 485_015_043, (3, 128, 128), 256, 3, (1, 1, 2, 3, 4), (32, 16, 8)),
    )
}
for settings, _ in LIPMAN.values():
    settings["head_channels"] = 64


def small(**changes):
    """A small U-Net whose zero-initialized layers are switched on."""
    settings = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "heads": 2} | changes
    generator = torch.Generator().manual_seed(3)
    network = UNet((1, 8, 8), **settings).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


def images(n, seed=0, shape=(1, 8, 8)):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def test_the_cifar10_network_has_the_published_number_of_parameters():
    network = UNet((3, 32, 32), channels=128, multipliers=(1, 2, 2, 2), blocks=2, attention=(16,), head_channels=64)
    assert sum(parameter.numel() for parameter in network.parameters()) == 35_746_307


@pytest.mark.parametrize(("settings", "parameters"), LIPMAN.values(), ids=LIPMAN)
def test_the_networks_of_lipman_et_al_can_be_built(settings, parameters):
    with torch.device("meta"):
        network = UNet(**settings)
        x = torch.zeros(2, *settings["shape"])
        assert network(x, torch.rand(2)).shape == x.shape
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_the_untrained_network_predicts_zero_velocity():
    network = UNet((1, 8, 8), channels=8, multipliers=(1, 2), blocks=1, attention=(4,))
    assert torch.equal(network(images(3), torch.tensor(0.3)), torch.zeros(3, 1, 8, 8))


def test_one_time_for_all_equals_the_same_time_for_each():
    network, x = small(), images(3)
    torch.testing.assert_close(network(x, torch.tensor(0.4)), network(x, torch.full((3,), 0.4)))


def test_samples_of_a_batch_do_not_mix():
    network, x, t = small(), images(4), torch.tensor([0.1, 0.4, 0.6, 0.9])
    together = network(x, t)
    for index in range(4):
        alone = network(x[index : index + 1], t[index])
        torch.testing.assert_close(together[index : index + 1], alone, atol=1e-5, rtol=1e-4)


def test_every_pixel_sees_every_pixel():
    network, x = small(), images(1).requires_grad_()
    (gradient,) = torch.autograd.grad(network(x, torch.tensor(0.5))[0, 0, 0, 0], x)
    assert (gradient != 0).all()


def test_every_parameter_is_used():
    network = small(num_classes=3)
    network(images(4), torch.rand(4), torch.tensor([0, 1, 2, 3])).square().sum().backward()
    assert [name for name, parameter in network.named_parameters() if not parameter.grad.abs().sum() > 0] == []


def test_attention_equals_the_one_of_pytorch():
    torch.manual_seed(0)
    ours, theirs = Attention(16, heads=4), nn.MultiheadAttention(16, 4, batch_first=True)
    x = torch.randn(2, 16, 3, 5)
    with torch.no_grad():
        ours.out.weight.normal_()
        # ours keeps the queries, keys and values of one head together; theirs all queries, then all keys, ...
        theirs.in_proj_weight.copy_(ours.qkv.weight.unflatten(0, (4, 3, 4)).transpose(0, 1).flatten(0, 2))
        theirs.in_proj_bias.copy_(ours.qkv.bias.unflatten(0, (4, 3, 4)).transpose(0, 1).flatten())
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    pixels = ours.norm(x).flatten(2).transpose(1, 2)
    expected = x + theirs(pixels, pixels, pixels)[0].transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(ours(x), expected, atol=1e-5, rtol=1e-4)


def test_times_a_hundredth_apart_have_different_features():
    features = time_features(torch.linspace(0, 1, 101), 64)
    apart = torch.cdist(features, features) + 10 * torch.eye(101)
    assert apart.min() > 0.2  # of a length of sqrt(32)


def test_the_velocity_depends_on_the_time():
    network, x = small(), images(2)
    assert (network(x, torch.tensor(0.2)) - network(x, torch.tensor(0.7))).abs().max() > 1e-2


def test_labels_change_the_velocity_and_none_is_a_label_of_its_own():
    network, x, t = small(num_classes=3), images(2), torch.tensor(0.5)
    outputs = [network(x, t, torch.full((2,), label)) for label in range(4)]
    for first in range(4):
        for second in range(first):
            assert (outputs[first] - outputs[second]).abs().max() > 1e-2
    assert torch.equal(network(x, t), outputs[3])


def test_dropout_is_active_in_training_only():
    network, x, t = small(dropout=0.5), images(2), torch.tensor(0.5)
    assert torch.equal(network(x, t), network(x, t))
    network.train()
    assert not torch.equal(network(x, t), network(x, t))


@pytest.mark.parametrize("training", [True, False])
def test_it_compiles_into_one_graph(training):
    """Without a break, labels and all; wide layers take Winograd's way and narrow ones do not, both in the graph."""
    network = small(num_classes=3, dropout=0.1, channels=64, multipliers=(2, 1), heads=4).train(training)
    layers = [module for module in network.modules() if isinstance(module, Convolution)]
    assert {min(one.in_channels, one.out_channels) >= CHANNELS for one in layers} == {True, False}
    x, t, labels = images(16), torch.rand(16, generator=torch.Generator().manual_seed(1)), torch.arange(16) % 4
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    found = []
    for run in (compiled, network):
        network.zero_grad()
        torch.manual_seed(2)
        v = run(x, t, labels)
        v.square().mean().backward()
        found.append([v.detach(), *(parameter.grad.clone() for parameter in network.parameters())])
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5 * max(1.0, float(plain.abs().max())))


def test_autocast_to_bfloat16_learns_as_fast():
    """The mean loss of each ten of 60 steps stays within a hundredth of that in float32."""
    curves, start = [], small(num_classes=3)
    for enabled in (False, True):
        network, generator = copy.deepcopy(start).train(), torch.Generator().manual_seed(0)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        losses = []
        for _ in range(60):
            t = torch.rand(8, generator=generator)
            x0 = torch.randn(8, 1, 8, 8, generator=generator)
            labels = torch.randint(4, (8,), generator=generator)
            x1 = 0.3 * labels[:, None, None, None].expand(x0.shape) - 0.5
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                v = network(torch.lerp(x0, x1, t[:, None, None, None]), t, labels)
            loss = (v.float() - (x1 - x0)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert v.dtype == (torch.bfloat16 if enabled else torch.float32)
        curves.append(torch.tensor(losses))
    assert curves[0][-10:].mean() < 0.8 * curves[0][:10].mean()
    torch.testing.assert_close(curves[1].view(6, 10).mean(dim=1), curves[0].view(6, 10).mean(dim=1), rtol=1e-2, atol=0)


def test_autocast_leaves_the_time_in_float32():
    network, t = small(), torch.tensor([0.5, 0.501])
    with torch.autocast("cpu", torch.bfloat16):
        condition = network.embed(t, None)
    torch.testing.assert_close(condition, network.embed(t, None), rtol=0, atol=0)


def test_its_divergence_is_the_trace_of_its_jacobian():
    network, x, t = small().double(), images(2).double(), torch.tensor(0.6, dtype=torch.float64)
    units = torch.eye(64, dtype=torch.float64).reshape(64, 1, 8, 8)
    _, divergence = velocity_and_divergence(network, x, t, units)
    for index in range(2):
        jacobian = torch.autograd.functional.jacobian(lambda point: network(point[None], t)[0], x[index])
        torch.testing.assert_close(divergence[index], jacobian.reshape(64, 64).trace())


def test_images_need_not_be_square():
    network = UNet((2, 8, 12), channels=8, multipliers=(1, 2), blocks=1, attention=(4,), heads=2)
    nn.init.normal_(network.last[2].weight)
    x = images(2, shape=(2, 8, 12))
    out = network(x, torch.tensor(0.5))
    assert out.shape == x.shape
    assert out.abs().sum(dim=(0, 1)).min() > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (1, 10, 10), "multipliers": (1, 1, 1)}, "divisible by 4; got 10x10: pass fewer multipliers"),
        ({"shape": (8, 8)}, "shape must be \\(channels, height, width\\)"),
        ({"channels": 7}, "even number"),
        ({"attention": (16,)}, "attention at resolution 16, but this network only has \\[8, 4\\]"),
        ({"heads": 3}, "cannot be split into 3 heads"),
        ({"head_channels": 5}, "cannot be split into heads of 5 channels"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    settings = {"shape": (1, 8, 8), "channels": 8, "multipliers": (1, 2), "attention": (4,), "heads": 2} | changes
    with pytest.raises(ValueError, match=message):
        UNet(settings.pop("shape"), **settings)


@pytest.mark.parametrize(
    ("x", "t", "labels", "message"),
    [
        (
            torch.zeros(2, 3, 8, 8),
            torch.tensor(0.5),
            None,
            "takes images of shape \\(B, 1, 8, 8\\), got \\(2, 3, 8, 8\\)",
        ),
        (torch.zeros(1, 8, 8), torch.tensor(0.5), None, "takes images of shape"),
        (torch.zeros(2, 1, 8, 8), torch.zeros(3), None, "one per sample \\(shape \\(2,\\)\\)"),
        (torch.zeros(2, 1, 8, 8), torch.zeros(2, 1), None, "one per sample \\(shape \\(2,\\)\\)"),
        (torch.zeros(2, 1, 8, 8), torch.tensor(0.5), torch.zeros(2), "whole numbers of shape \\(2,\\)"),
        (torch.zeros(2, 1, 8, 8), torch.tensor(0.5), torch.tensor([0]), "whole numbers of shape \\(2,\\)"),
        (
            torch.zeros(2, 1, 8, 8),
            torch.tensor(0.5),
            torch.tensor([0, 4]),
            "or be 3 for no label; got values from 0 to 4",
        ),
        (torch.zeros(2, 1, 8, 8), torch.tensor(0.5), torch.tensor([-1, 0]), "got values from -1 to 0"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x, t, labels, message):
    with pytest.raises(ValueError, match=message):
        small(num_classes=3)(x, t, labels)


def test_labels_for_a_network_without_them_are_refused():
    with pytest.raises(ValueError, match="build it with num_classes"):
        small()(images(2), torch.tensor(0.5), torch.tensor([0, 1]))
