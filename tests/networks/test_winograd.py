"""The short way of a convolution gives what the long way gives."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from fmcore.networks import winograd
from fmcore.networks.winograd import Convolution
from tests.analytic import seeded


def problem(inputs=6, outputs=5, shape=(8, 12), batch=2):
    g = seeded(0)
    x = torch.randn(batch, inputs, *shape, generator=g)
    weight = torch.randn(outputs, inputs, 3, 3, generator=g) / (9 * inputs) ** 0.5
    return x, weight, torch.randn(outputs, generator=g)


@pytest.mark.parametrize("shape", [(4, 4), (8, 12), (16, 4)], ids=str)
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=str)
def test_it_is_the_convolution(shape, memory):
    x, weight, bias = problem(shape=shape)
    expected = F.conv2d(x.double(), weight.double(), bias.double(), padding=1).float()
    x, weight = x.contiguous(memory_format=memory), weight.contiguous(memory_format=memory)
    assert_close(winograd.winograd(x, weight, bias), expected, rtol=1e-5, atol=1e-5)


def test_rounding_is_less_than_that_of_adding_terms_one_by_one():
    """Errors of n additions in a row, each of half a unit in the last place or less, add up like a random walk. What
    the long way gives is no measure: libraries add in blocks, whose size depends on the processor."""
    x, weight, _ = problem(256, 256, (16, 16))
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    error = (winograd.winograd(x, weight) - exact).norm() / exact.norm()
    assert error < math.sqrt(9 * 256) * torch.finfo(torch.float32).eps


def test_first_and_second_derivatives_are_those_of_the_convolution():
    found = []
    for convolve in (winograd.winograd, lambda *inputs: F.conv2d(*inputs, padding=1)):
        inputs = [part.requires_grad_() for part in problem()]
        gradients = torch.autograd.grad(convolve(*inputs).pow(3).sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(part.pow(2).sum() for part in gradients), inputs)
        found.append([*gradients, *second])
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.detach().abs().max()))


@pytest.mark.parametrize(
    ("channels", "shape", "batch", "dtype", "autocast", "short"),
    [
        (128, (16, 16), 4, torch.float32, False, True),
        (128, (16, 16), 3, torch.float32, False, False),
        (64, (16, 16), 4, torch.float32, False, False),
        (128, (14, 16), 8, torch.float32, False, False),
        (128, (16, 16), 4, torch.float64, False, False),
        (128, (16, 16), 4, torch.float32, True, False),
    ],
)
def test_the_way_follows_from_size_and_arithmetic(monkeypatch, channels, shape, batch, dtype, autocast, short):
    taken = []
    way = winograd.winograd
    monkeypatch.setattr(winograd, "winograd", lambda *inputs: taken.append(True) or way(*inputs))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = Convolution(channels, 128).to(dtype)
    x = torch.randn(batch, channels, *shape, generator=seeded(1), dtype=dtype)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = layer(x)
    expected = F.conv2d(x, layer.weight, layer.bias, padding=1).detach()
    tolerance = 2e-2 if autocast else 1e-5
    assert_close(found.to(dtype), expected, rtol=tolerance, atol=tolerance)
    assert bool(taken) == short
