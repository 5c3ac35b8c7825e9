"""The Frechet distance between two sets of features, each summed up by its mean and covariance."""

from __future__ import annotations

import torch
from torch import Tensor

from fmcore.validation import check_finite, check_floating


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared 2-Wasserstein distance between the Gaussians fitted to two sets of features.

        |mean_a - mean_b|^2 + tr(A) + tr(B) - 2 tr((A^1/2 B A^1/2)^1/2)

    with A and B the covariances (Dowson and Landau 1982; Heusel et al. 2017 use it on Inception features, where it is
    called FID). The estimate is biased upwards, by more the fewer samples there are and the more features: compare
    only values from equally many samples.

    Args:
        a, b: (n, d) and (m, d) features, n and m at least 2.

    Returns:
        The distance, at least 0, in squared units of the features.

    Raises:
        ValueError: for sets of other shapes, fewer than two samples, or values that are not finite.
        TypeError: for whole numbers, such as images in place of features.
    """
    for name, features in (("a", a), ("b", b)):
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(
                f"{name} has shape {tuple(features.shape)}: pass features of shape (n, d) with n at least 2."
            )
        check_floating(name, features)
        check_finite(name, features)
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"a has {a.shape[1]} features and b has {b.shape[1]}: compare sets from the same feature space."
        )
    a, b = a.double(), b.double()
    return gaussian_frechet_distance(a.mean(0), torch.cov(a.T), b.mean(0), torch.cov(b.T))


def gaussian_frechet_distance(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> float:
    """The same distance between two known Gaussians: means of shape (d,), covariances of shape (d, d), in float64.

    The trace of the square root is the sum of the singular values of A^1/2 B^1/2, since (A^1/2 B A^1/2) is that matrix
    times its transpose. Unlike the square root of the matrix A B, nothing here breaks when a covariance is singular,
    as it is with fewer samples than features.
    """
    d = mean_a.numel()
    covariance_a, covariance_b = covariance_a.double().reshape(d, d), covariance_b.double().reshape(d, d)
    overlap = torch.linalg.svdvals(square_root(covariance_a) @ square_root(covariance_b)).sum()
    between = (mean_a.double() - mean_b.double()).square().sum()
    return max(0.0, float(between + covariance_a.trace() + covariance_b.trace() - 2 * overlap))


def square_root(covariance: Tensor) -> Tensor:
    """The symmetric square root of a symmetric matrix without negative eigenvalues (those of rounding are cut off)."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
