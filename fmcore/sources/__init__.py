"""Source distributions: where a flow starts.

Each is a `Source`: it has a ``shape`` and ``sample(n, generator=None, device=None) -> (n, *shape)``. Where its density
is known, it has ``log_prob(x) -> (n,)``, too.

| Source | Direction and length of a sample |
|---|---|
| `Gaussian` | any direction alike, length about sqrt(d) |
| `ChiSphere` | any direction alike, length chi(k) for any k |
| `VonMisesFisher` | directions near some given ones, length chi(k) |
| `AroundPoints` | directions near those of the data themselves, length chi(d) |
| `GaussianMixture` | fitted to data: an approximation of its density |
| `DCT` | a Gaussian without the frequencies that the data lack |
| `FlowSource` | the samples of a map of another source, such as a trained flow |
| `NormAligned` | another source, scaled to the mean length of the data |
| `Pruned` | a Gaussian without the directions in which there is no data |

From `ChiSphere` on they are those of Lee, Kim and Lee 2025, "Is There a Better Source Distribution than Gaussian?"
(arXiv 2512.18184).
"""

from __future__ import annotations

from fmcore.sources.around import AroundPoints
from fmcore.sources.axes import PruningAxes, pruning_axes
from fmcore.sources.cosine_transform import DCT
from fmcore.sources.flow import FlowSource
from fmcore.sources.gaussian import Gaussian
from fmcore.sources.mixture import GaussianMixture
from fmcore.sources.norms import NormAligned, alignment_factor, mean_norm
from fmcore.sources.pruned import Pruned
from fmcore.sources.source import Source, SourceWithDensity
from fmcore.sources.sphere import ChiSphere, uniform_directions
from fmcore.sources.von_mises_fisher import VonMisesFisher, spherical_k_means

__all__ = [
    "DCT",
    "AroundPoints",
    "ChiSphere",
    "FlowSource",
    "Gaussian",
    "GaussianMixture",
    "NormAligned",
    "Pruned",
    "PruningAxes",
    "Source",
    "SourceWithDensity",
    "VonMisesFisher",
    "alignment_factor",
    "mean_norm",
    "pruning_axes",
    "spherical_k_means",
    "uniform_directions",
]
