"""The exact velocity of a finite data set: all of it, a random part of it, or up to some time.

| Name | What |
|---|---|
| `EmpiricalVelocity` | u*(x, t), the velocity that a network would learn if it learned the training set exactly |
| `HybridVelocity` | one velocity up to a time, another from there on |
| `bank_velocity`, `draw_bank` | u_M(x, t), the same for M random points: the target of empirical flow matching |

All follow from Proposition 1 of Bertrand et al. 2025 (arXiv 2506.03719).
"""

from fmcore.closed_form.banks import bank_velocity, draw_bank
from fmcore.closed_form.empirical import LOGIT_TOLERANCE, EmpiricalVelocity
from fmcore.closed_form.hybrid import HybridVelocity

__all__ = ["LOGIT_TOLERANCE", "EmpiricalVelocity", "HybridVelocity", "bank_velocity", "draw_bank"]
