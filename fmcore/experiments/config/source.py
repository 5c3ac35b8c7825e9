"""Which source an experiment starts from: its name and numbers. What is fitted to the data is in `fitted_source`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fmcore.experiments.config.overrides import EXTRA_FORBIDDEN
from fmcore.settings import checked

# The numbers that each source needs, and those that it may do without.
NUMBERS: dict[str, tuple[str, ...]] = {
    "gaussian": (),
    "chi_sphere": (),
    "dct": ("masking",),
    "mixture": ("components",),
    "von_mises_fisher": (),
    "flow": ("flow_steps", "flow_width"),
    "pruned": ("tau", "threshold"),
}
OPTIONAL: dict[str, tuple[str, ...]] = {"von_mises_fisher": ("components", "kappa")}
# Paths that start at x0 itself.
STANDARD_PATHS = ("rectified", "ot", "cosine")


@dataclass(frozen=True)
class SourceConfig:
    """The source; see `fmcore.sources`.

    Attributes:
        distribution: its name. The source of a run is the one that it was trained with: it cannot be changed later.
        norm: align mean lengths of source and data (`fmcore.sources.norms`): data_up trains on data that are scaled up
            and divides samples by the factor, noise_down scales the noise down. No other distribution is drawn.
        masking: of dct, the frequencies that are masked in noise and data.
        components: of mixture, the number of Gaussians; of von_mises_fisher, the number of mean directions, found by
            spherical k-means, or none for the oracle, in which x0 is drawn around the direction of its own x1.
        kappa: of von_mises_fisher, the concentration, or none for the mean directions themselves (kappa = infinity).
        flow_steps: of flow, training steps of the continuous normalizing flow (maximum likelihood).
        flow_width: of flow, channels of its hidden layers.
        tau, threshold: of pruned, which axes are rejected and at which cosine noise is (`fmcore.sources.pruned`). To
            prune where samples start but not in training, leave the source as it is and set those of the evaluation.
    """

    __pydantic_config__ = EXTRA_FORBIDDEN

    distribution: Literal["gaussian", "chi_sphere", "dct", "mixture", "von_mises_fisher", "flow", "pruned"] = "gaussian"
    norm: Literal["none", "data_up", "noise_down"] = "none"
    masking: Literal["weak", "strong"] | None = None
    components: int | None = None
    kappa: float | None = None
    flow_steps: int | None = None
    flow_width: int | None = None
    tau: float | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        checked(self)
        needed, optional = NUMBERS[self.distribution], OPTIONAL.get(self.distribution, ())
        for name in sorted({name for names in (*NUMBERS.values(), *OPTIONAL.values()) for name in names}):
            value = getattr(self, name)
            if value is None and name in needed:
                raise ValueError(f"distribution={self.distribution} needs {' and '.join(needed)}: set {name}")
            if value is not None and name not in (*needed, *optional):
                raise ValueError(f"{name}={value} does not belong to distribution={self.distribution}: leave it out")
        for name in ("components", "flow_steps", "flow_width"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.kappa is not None and not 0 <= self.kappa < math.inf:
            raise ValueError(f"kappa must be a finite number of at least 0, or none for infinity; got {self.kappa}")
        check_pruning(self.tau, self.threshold, "tau", "threshold")

    @property
    def is_oracle(self) -> bool:
        """Whether each x0 is drawn around the direction of its own x1."""
        return self.distribution == "von_mises_fisher" and self.components is None

    @property
    def is_plain(self) -> bool:
        """Whether it is the standard Gaussian as it is."""
        return self.distribution == "gaussian" and self.norm == "none"

    @property
    def has_uniform_direction(self) -> bool:
        """Whether all directions of x0 are alike: those sources can be pruned, and their density is known."""
        return self.distribution in ("gaussian", "chi_sphere")

    @property
    def words(self) -> str:
        """Its name and its norm, as errors say them."""
        return f"distribution={self.distribution} with norm={self.norm}"

    def check_training(self, path: str, loss: str, coupling: str) -> None:
        """Raise ValueError if it is trained with what is known of the standard Gaussian only.

        Args:
            path, loss, coupling: of the experiment.
        """
        if self.is_plain:
            return
        if path not in STANDARD_PATHS or loss != "conditional_flow_matching":
            raise ValueError(
                f"{self.words} needs loss=conditional_flow_matching and path={' or '.join(STANDARD_PATHS)}: the "
                "others are derived for a standard Gaussian"
            )
        if self.is_oracle and coupling != "independent":
            raise ValueError(f"{self.words} and no components draws x0 around its own x1: use coupling=independent")


def check_pruning(tau: float | None, threshold: float | None, *names: str) -> None:
    """Raise ValueError unless both are missing, or both are cosines, the second above 0."""
    if (tau is None) != (threshold is None):
        raise ValueError(f"{names[0]}={tau} with {names[1]}={threshold}: pruning needs both; give both or neither")
    if tau is not None and threshold is not None and not (-1 <= tau <= 1 and 0 < threshold <= 1):
        raise ValueError(f"{names[0]}={tau} and {names[1]}={threshold} are cosines, and the second is above 0")
