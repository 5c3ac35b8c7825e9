"""Affine probability paths: how a source sample becomes a data sample.

| Name | Path |
|---|---|
| `rectified`, `ot` | straight lines (Liu et al. 2022; Lipman et al. 2023) |
| `variance_preserving`, `variance_exploding` | the two diffusions (Song et al. 2021) |
| `cosine` | on the unit circle (Nichol & Dhariwal 2021) |
| `by_name` | any of them, from a configuration |
| `AffinePath` | what they are: schedules, points, velocities, and conversions between predictions |
"""

from fmcore.paths.affine import LAST_TIME, AffinePath, Schedule
from fmcore.paths.named import by_name, cosine, ot, rectified, variance_exploding, variance_preserving

__all__ = [
    "LAST_TIME",
    "AffinePath",
    "Schedule",
    "by_name",
    "cosine",
    "ot",
    "rectified",
    "variance_exploding",
    "variance_preserving",
]
