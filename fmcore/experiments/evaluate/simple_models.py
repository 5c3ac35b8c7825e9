"""Bits/dim of models that anyone can fit without a network: what a flow has to beat to be worth its training."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fmcore.data.images import ImageData, dequantize
from fmcore.likelihood import bits_from_log_prob

# Their cost and memory grow with the square of the pixels: 3,072 are those of a 32x32 image in colour.
MOST_PIXELS = 3072
MOST_IMAGES = 10_000


def fitting_images(data: ImageData) -> Tensor:
    """The training images that the simple models are fitted to: all, or the first 10,000."""
    return data.train[:MOST_IMAGES]


def uniform_bits_per_dim(data: ImageData) -> Tensor:
    """Every grey level of every pixel equally likely: log2(levels), one value an image, shape (held out,)."""
    return torch.full((len(data.held_out),), math.log2(data.levels))


def histogram_bits_per_dim(data: ImageData) -> Tensor:
    """Pixels independent, each with its own histogram of grey levels, one value a held-out image.

    Each level counts once before any image is seen (Laplace's rule), so that no held-out pixel is impossible.
    """
    train, held_out = fitting_images(data).flatten(1).long(), data.held_out.flatten(1).long()
    counts = torch.ones(train.shape[1], data.levels).scatter_add_(1, train.T, torch.ones(train.T.shape))
    probability = counts / counts.sum(dim=1, keepdim=True)
    return -probability.log2().gather(1, held_out.T).T.mean(dim=1)


def gaussian_bits_per_dim(data: ImageData, generator: torch.Generator) -> Tensor:
    """A Gaussian with full covariance, fitted to the dequantized training images, one value a held-out image.

    Measured as `fmcore.likelihood.bits_per_dim` measures a flow, with one draw of the dequantization noise.
    """
    train = dequantize(fitting_images(data), data.levels, generator).flatten(1).double()
    held_out = dequantize(data.held_out, data.levels, generator).flatten(1).double()
    fitted = torch.distributions.MultivariateNormal(train.mean(0), torch.cov(train.T))
    return bits_from_log_prob(fitted.log_prob(held_out), train.shape[1], data.levels)
