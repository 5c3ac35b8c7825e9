"""What every network takes for a time, a label and a point, and what it refuses in words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fmcore import networks
from fmcore.networks.inputs import labels_of
from fmcore.networks.unet import time_features

NETWORKS = {
    "MLP": lambda: networks.MLP(64, width=8, depth=1),
    "UNet": lambda: networks.UNet((1, 8, 8), channels=8, multipliers=(1, 2), blocks=1, attention=(4,), heads=2),
    "ConcatSquashNet": lambda: networks.ConcatSquashNet(1, width=4, depth=1),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def switched_on(network):
    """The network with small random weights in place of zeros, so that outputs depend on all inputs."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def built(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return switched_on(NETWORKS[name]())


def images(n=3, dtype=torch.float32):
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(1)).to(dtype)


@every_network
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_one_time_in_all_its_forms_is_the_same_time(name, dtype):
    network, x = built(name).to(dtype), images(dtype=dtype)
    expected = network(x, torch.full((3,), 0.25))
    assert expected.dtype == dtype
    for t in (
        0.25,
        torch.tensor(0.25),
        np.float32(0.25),
        np.float64(0.25),
        np.full(3, 0.25),
        torch.tensor(0.25).double(),
    ):
        assert torch.equal(network(x, t), expected)
    assert torch.equal(network(x, 1), network(x, torch.ones(3)))
    assert not torch.equal(network(x, 0), expected)


@every_network
@pytest.mark.parametrize(
    "t",
    [
        torch.arange(3),
        torch.tensor(500),
        torch.randint(0, 1000, (3,)),
        torch.ones(3, dtype=torch.bool),
        500,
        np.arange(3),
    ],
    ids=["range", "scalar", "drawn", "bool", "int", "NumPy"],
)
def test_integer_time_steps_are_refused(name, t):
    with pytest.raises(ValueError, match=r"times are real numbers from 0 \(source\) to 1 \(data\); divide steps"):
        built(name)(images(), t)


@every_network
@pytest.mark.parametrize("t", [2.3, torch.tensor(-1.5), torch.tensor([0.0, 0.5, 40.0])], ids=str)
def test_times_that_an_adaptive_solver_guesses_are_let_through(name, t):
    """torchdiffeq, in the hands of others, evaluates its first guess of a step wherever that leads."""
    assert built(name)(images(), t).isfinite().all()


@every_network
def test_a_difference_quotient_at_the_ends_is_let_through(name):
    network, x = built(name).double(), images(dtype=torch.float64)
    ahead, behind = network(x, 1 + 1e-3).sum(), network(x, 1 - 1e-3).sum()
    t = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(network(x, t).sum(), t)
    # The U-Net's features of t are made in float32, so a difference has three digits.
    torch.testing.assert_close((ahead - behind) / 2e-3, slope, rtol=1e-2, atol=1e-3)


@every_network
def test_times_are_looked_at_neither_in_function_transforms_nor_in_graphs(name):
    network, x, t = built(name), images(), torch.tensor([0.1, 0.5, 0.9])
    expected = network(x, t)
    if name != "UNet":  # PyTorch has no rule yet for many attentions at once
        mapped = torch.func.vmap(lambda one, time: network(one[None], time)[0])(x, t)
        torch.testing.assert_close(mapped, expected, rtol=1e-4, atol=1e-5)
    torch.compiler.reset()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, t), expected, rtol=1e-4, atol=1e-5)
    assert (expected - network(x, t.flip(0))).abs().max() > 1e-3


@every_network
@pytest.mark.parametrize(
    ("of_x", "of_weights", "words"),
    [
        (
            torch.float64,
            torch.float32,
            r"x is float64 and the network's weights are float32: .*x\.float\(\) or network\.double\(\)",
        ),
        (
            torch.float32,
            torch.float64,
            r"x is float32 and the network's weights are float64: .*x\.double\(\) or network\.float",
        ),
        (torch.bfloat16, torch.float32, r"x is bfloat16 and the network's weights are float32"),
        (torch.uint8, torch.float32, r"x is uint8: a velocity takes real numbers, images on the scale \[-1, 1\]"),
    ],
    ids=["double", "float", "half", "bytes"],
)
def test_points_and_weights_of_two_precisions_are_both_named(name, of_x, of_weights, words):
    with pytest.raises(ValueError, match=words):
        built(name).to(of_weights)(images(dtype=of_x), 0.5)


@every_network
def test_autocast_takes_the_points_that_it_converts(name):
    network = built(name)
    with torch.autocast("cpu", torch.bfloat16):
        found = network(images(dtype=torch.bfloat16), 0.5)
        torch.testing.assert_close(found.float(), network(images(), 0.5).float(), rtol=0.1, atol=0.1)
        with pytest.raises(ValueError, match="x is float64"):
            network(images(dtype=torch.float64), 0.5)


@pytest.mark.parametrize("of_images", [(3, 2, 8, 8), (1, 8, 8), (3, 64)], ids=str)
def test_a_convolutional_network_names_the_images_that_it_takes(of_images):
    with pytest.raises(ValueError, match=r"takes images of shape \(B, 1, H, W\)"):
        built("ConcatSquashNet")(torch.zeros(of_images), 0.5)


def test_an_empty_batch_of_another_size_is_refused_in_words():
    assert built("MLP")(torch.zeros(0, 64), 0.5).shape == (0, 64)
    with pytest.raises(ValueError, match="built for 64 dimensions"):
        built("MLP")(torch.zeros(0, 63), 0.5)


# Labels


@pytest.mark.parametrize(
    "labels",
    [np.array([0, 2, 3]), np.array([0, 2, 3], dtype=np.int32), np.array([0, 2, 3], dtype=np.uint8), [0, 2, 3],
     torch.tensor([0, 2, 3], dtype=torch.uint8), torch.tensor([0, 2, 3], dtype=torch.int16)],
    ids=["int64", "int32", "uint8", "list", "bytes", "short"],
)  # fmt: skip
def test_labels_of_every_kind_are_looked_up_alike(labels):
    network = switched_on(
        networks.UNet((1, 8, 8), channels=8, multipliers=(1, 2), blocks=1, attention=(4,), heads=2, num_classes=3)
    )
    expected = network(images(), 0.5, torch.tensor([0, 2, 3]))
    assert torch.equal(network(images(), 0.5, labels), expected)
    assert not torch.equal(network(images(), 0.5), expected)


@pytest.mark.parametrize("labels", [np.array([0.0, 1.0, 2.0]), torch.tensor([True, False, True]), [0, 1]], ids=str)
def test_labels_that_are_none_are_refused(labels):
    network = networks.UNet((1, 8, 8), channels=8, multipliers=(1, 2), blocks=1, attention=(4,), heads=2, num_classes=3)
    with pytest.raises(ValueError, match=r"labels must be whole numbers of shape \(3,\)"):
        network(images(), 0.5, labels)


@pytest.mark.parametrize("kind", [torch.tensor, list, np.array], ids=["tensor", "list", "array"])
def test_labels_go_where_x_is_and_are_looked_at_before(kind):
    """The device "meta" has no values: what is refused was looked at on the CPU."""
    labels = kind([0, 2, 3])
    x = torch.zeros(3, 1, 8, 8, device="meta")
    found = labels_of(x, labels, 3)
    assert found.device == x.device
    assert found.dtype == torch.int64
    labels[1] = 4
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2, or be 3 for no label; got values from 0 to 4"):
        labels_of(x, labels, 3)


def test_the_features_of_the_time_do_not_depend_on_the_default_dtype():
    t = torch.linspace(0, 1, 7, dtype=torch.float32)
    expected = time_features(t, 8)
    torch.set_default_dtype(torch.float64)
    try:
        found = time_features(t, 8)
        assert isinstance(networks.MLP(2, 4, 1).double()(torch.zeros(3, 2), 0.5), torch.Tensor)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    assert nn.Linear(1, 1).weight.dtype == torch.float32
