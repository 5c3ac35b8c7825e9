"""The paths of the papers, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fmcore.paths import schedules
from fmcore.paths.affine import LAST_TIME, AffinePath
from fmcore.validation import unknown_name


def ot(sigma_min: float = 0.0) -> AffinePath:
    """Conditional optimal-transport path: alpha = t, sigma = 1 - (1 - sigma_min) t (Lipman et al. 2023, eq. 20).

    Args:
        sigma_min: standard deviation at the data, in [0, 1). The paper's text gives no value; 0 is rectified flow.
    """
    if not 0 <= sigma_min < 1:
        raise ValueError(f"sigma_min is {sigma_min}: it must be at least 0 and below 1.")
    return _affine(
        "ot",
        schedules.OT(sigma_min),
        t_max=1.0 if sigma_min > 0 else LAST_TIME,
        parameters={"sigma_min": sigma_min},
        straight=sigma_min == 0,
    )


def rectified() -> AffinePath:
    """Straight line x_t = (1 - t) x0 + t x1: the OT path with sigma_min = 0 (Liu et al. 2022)."""
    return _affine("rectified", schedules.Rectified(), straight=True)


def variance_preserving(beta_min: float = 0.1, beta_max: float = 20.0) -> AffinePath:
    """Variance-preserving diffusion path: alpha = exp(-T(s)/2), sigma^2 = 1 - alpha^2, with s = 1 - t.

    T(s) = s beta_min + s^2 (beta_max - beta_min) / 2 is the integral of the noise rate beta (Song et al. 2021;
    Lipman et al. 2023, eq. 18). sigma is computed with expm1, which keeps its digits near the data.

    Args:
        beta_min, beta_max: noise rates at the data and at the source, 0 < beta_min <= beta_max.
    """
    if not 0 < beta_min <= beta_max:
        raise ValueError(f"beta_min is {beta_min} and beta_max {beta_max}: they must satisfy 0 < beta_min <= beta_max.")
    return _affine(
        "variance_preserving",
        schedules.VariancePreserving(beta_min, beta_max),
        parameters={"beta_min": beta_min, "beta_max": beta_max},
    )


def variance_exploding(sigma_min: float = 0.01, sigma_max: float = 50.0) -> AffinePath:
    """Variance-exploding diffusion path: alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^(1 - t).

    Song et al. 2021 and Lipman et al. 2023, eq. 16. The data keep their size and the noise starts large, so sampling
    starts from N(0, sigma_max^2 I), not from N(0, I): see :attr:`AffinePath.source_scale`.

    Args:
        sigma_min, sigma_max: standard deviation of the noise at the data and at the source, 0 < sigma_min < sigma_max.
    """
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"sigma_min is {sigma_min} and sigma_max {sigma_max}: they must satisfy 0 < min < max.")
    return _affine(
        "variance_exploding",
        schedules.VarianceExploding(sigma_min, sigma_max),
        parameters={"sigma_min": sigma_min, "sigma_max": sigma_max},
    )


def cosine() -> AffinePath:
    """Trigonometric path: alpha = sin(pi t / 2), sigma = cos(pi t / 2), so alpha^2 + sigma^2 = 1.

    The continuous form of the cosine schedule of Nichol & Dhariwal 2021 (Albergo & Vanden-Eijnden 2023).
    """
    return _affine("cosine", schedules.Cosine())


def _affine(name: str, of: schedules.Schedules, **others: Any) -> AffinePath:
    return AffinePath(name, of.alpha, of.sigma, of.d_alpha, of.d_sigma, **others)


_KNOWN: dict[str, Callable[..., AffinePath]] = {
    make.__name__: make for make in (rectified, ot, variance_preserving, variance_exploding, cosine)
}


def by_name(name: str, **parameters: float) -> AffinePath:
    """Build a path from a configuration: ``by_name("ot", sigma_min=0.1)``.

    Raises:
        ValueError: for an unknown name (the known ones are listed) or a parameter that the path does not take.
    """
    if name not in _KNOWN:
        raise unknown_name("path", name, _KNOWN)
    try:
        return _KNOWN[name](**parameters)
    except TypeError as error:
        raise ValueError(f"path {name!r} does not take these parameters: {error}") from error
