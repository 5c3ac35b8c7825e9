"""Bits per dimension of whole-number images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fmcore.data.images import dequantize
from fmcore.likelihood.density import log_likelihood
from fmcore.solvers.training_mode import one_warning
from fmcore.sources import Gaussian
from fmcore.validation import check_count
from fmcore.velocity import Velocity


@dataclass(frozen=True)
class BitsPerDim:
    """Negative log2-likelihood a dimension of integer-valued images.

    Attributes:
        value: mean over images.
        per_image: (B,).
        standard_error: of the mean over images.
        draws: K, dequantization draws averaged inside the logarithm; compare only values of equal K.
        nfe: evaluations of the velocity a batch and draw, averaged.
    """

    value: float
    per_image: Tensor
    standard_error: float
    draws: int
    nfe: float


def bits_from_log_prob(log_prob: Tensor, dim: int, levels: int = 256) -> Tensor:
    """Return bits/dim, -log p(y) / (d ln 2) + log2(levels / 2), of images (Lipman et al. 2023, appendix E.1).

    The second term leads from the scale [-1, 1], on which a grey level is 2 / levels wide, to whole numbers.

    Args:
        log_prob: log p(y) in nats, of any shape, for y = 2 (pixel + u) / levels - 1 (`fmcore.data.images.dequantize`).
        dim: d, the pixels of an image times its channels.
        levels: grey levels of a pixel.

    Returns:
        Bits per dimension, shaped like log_prob.

    Raises:
        ValueError: for dim or levels below 1.
    """
    if dim < 1 or levels < 1:
        raise ValueError(f"dim is {dim} and levels is {levels}: both are whole numbers from 1 on.")
    return -log_prob / (dim * math.log(2)) + math.log2(levels / 2)


def bits_per_dim(
    velocity: Velocity,
    images: Tensor,
    source: Gaussian,
    levels: int = 256,
    draws: int = 1,
    batch_size: int = 256,
    generator: torch.Generator | None = None,
    divergence: str = "hutchinson",
    probes: int = 1,
    t1: float = 1.0,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    t0: float = 0.0,
    method: str = "dopri5",
    steps: int | None = None,
) -> BitsPerDim:
    """Return bits/dim of integer images by uniform dequantization (Lipman et al. 2023, appendix E.1).

    y = 2 (pixel + u) / levels - 1 with u ~ U(0, 1); bits/dim = -log p(y) / (d ln 2) + log2(levels / 2). With K draws
    of u, p is averaged over them inside the logarithm. With exact log-densities more draws tighten the bound; with
    Hutchinson's noisy ones, the log of a mean of exponentials is also biased towards *fewer* bits (Jensen), so
    values of different K or probes must not be compared.

    Args:
        velocity: callable (x, t) -> v on images scaled to [-1, 1].
        images: (B, *shape) integers in [0, levels).
        source: distribution at t0.
        levels: grey levels of a pixel: 256 for 8-bit images, 17 for scikit-learn's digits.
        draws: K >= 1.
        batch_size: images solved together, at least 1.
        generator: draws u and the probes.
        divergence: as in :func:`log_likelihood`. Here "hutchinson" by default: the exact divergence of an image takes
            one vector-Jacobian product a pixel and colour in each evaluation, which the mean over images does not need.
        probes, t0, t1, method, steps, rtol, atol: as in :func:`log_likelihood`.

    Raises:
        ValueError: for floating-point images (their integer values are needed), values outside [0, levels), no images,
            no draws, and as :func:`log_likelihood`.
    """
    if len(images) == 0:
        raise ValueError("images is empty: pass at least one image.")
    check_count("draws", draws, "draws")
    check_count("batch_size", batch_size, "images")
    dim = images[0].numel()
    log_probs, calls = [], []
    with one_warning():
        for batch in images.split(batch_size):
            per_draw = []
            for _ in range(draws):
                y = dequantize(batch, levels, generator)
                found = log_likelihood(
                    velocity, y, source, divergence, probes, t0, t1, method, steps, rtol, atol, generator
                )
                per_draw.append(found.log_prob)
                calls.append(found.nfe)
            log_probs.append(torch.logsumexp(torch.stack(per_draw), dim=0) - math.log(draws))
    per_image = bits_from_log_prob(torch.cat(log_probs), dim, levels)
    error = float(per_image.std() / math.sqrt(len(per_image))) if len(per_image) > 1 else math.nan
    return BitsPerDim(float(per_image.mean()), per_image, error, draws, sum(calls) / len(calls))
