"""What an experiment is: one frozen dataclass, every field of which can be set from the command line as field=value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from fmcore import paths
from fmcore.experiments.config.evaluation import EvaluationConfig
from fmcore.experiments.config.overrides import EXTRA_FORBIDDEN
from fmcore.experiments.config.source import SourceConfig
from fmcore.paths import AffinePath
from fmcore.training import TrainingConfig

# Losses whose network is the velocity itself.
VELOCITY_LOSSES = ("conditional_flow_matching", "empirical_flow_matching")
# Paths that start at x0 itself.
STANDARD_PATHS = ("rectified", "ot", "cosine")


@dataclass(frozen=True)
class NetworkConfig:
    """The U-Net; see `fmcore.networks.UNet`."""

    __pydantic_config__ = EXTRA_FORBIDDEN

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (16,)
    heads: int = 4
    head_channels: int | None = None
    dropout: float = 0.0


@dataclass(frozen=True)
class Configuration:
    """One experiment: which source, data, path, coupling and loss, and how to train and evaluate.

    Attributes:
        experiment: its name in the catalog.
        data: name of a data set.
        data_dir: folder that holds the data set; none for the one in the environment variable FMCORE_DATA, or else the
            package's own. It says where the data is, not what is done: records leave it out, and a run may be resumed
            with another.
        path: name of a path; see `fmcore.paths`.
        sigma_min: standard deviation that the OT path keeps at the data. The paper's text gives no value; 0 is the
            rectified flow.
        coupling: which source sample meets which image in a batch.
        loss: what the network predicts; see `fmcore.losses`.
        bank: M of empirical flow matching, the number of points in the closed form that is its target: the image of a
            row and M - 1 further training images, drawn with replacement for each micro-batch. None with other losses.
        train_images: train on this many images of the training split, drawn by the training seed (more images contain
            fewer ones); none for all. Frechet distances are still taken to the whole split.
        dequantize: put each pixel at a random place in its bin, so that images have a density. Without, pixels are in
            the middle of their bins, and the training set is the finite one of the closed form.
        flips: mirror each training image with probability 1/2. Reference images are never mirrored.
    """

    __pydantic_config__ = EXTRA_FORBIDDEN

    experiment: str
    data: Literal["digits", "cifar10", "imagenet32", "imagenet64", "imagenet128", "celeba64"]
    data_dir: str | None = None
    path: Literal["rectified", "ot", "variance_preserving", "variance_exploding", "cosine"] = "rectified"
    sigma_min: float = 0.0
    coupling: Literal["independent", "minibatch_ot"] = "independent"
    loss: Literal[
        "conditional_flow_matching", "empirical_flow_matching", "noise_prediction", "score_matching", "score_flow"
    ] = "conditional_flow_matching"
    bank: int | None = None
    train_images: int | None = None
    dequantize: bool = True
    flips: bool = False
    source: SourceConfig = field(default_factory=SourceConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        if self.sigma_min and self.path != "ot":
            raise ValueError(f"sigma_min belongs to path=ot, and the path is {self.path}: leave it out")
        if (self.loss == "empirical_flow_matching") != (self.bank is not None):
            raise ValueError(
                f"loss={self.loss} with bank={self.bank}: empirical flow matching needs the number of points of its "
                "target, for example bank=128, and other losses have none"
            )
        if self.bank is not None and (self.bank < 1 or self.coupling != "independent"):
            raise ValueError(
                f"bank={self.bank} with coupling={self.coupling}: a bank has at least one point, and its velocity is "
                "that of independent pairs, so use coupling=independent"
            )
        if self.train_images is not None and self.train_images < 2:
            raise ValueError(f"train_images must be at least 2, got {self.train_images}")
        start = self.build_path().alpha(torch.zeros(()))
        if self.loss not in VELOCITY_LOSSES and float(start) == 0:
            raise ValueError(
                f"loss={self.loss} says nothing about the velocity at t = 0 of the {self.path} path, which is pure "
                "noise there: use path=variance_preserving, or loss=conditional_flow_matching"
            )
        every, saved = self.evaluation.curve_every, self.training.checkpoint_every
        if every % saved:
            raise ValueError(
                f"curve_every={every} with checkpoint_every={saved}: snapshots are taken from checkpoints, so make "
                "curve_every a multiple of checkpoint_every"
            )

        if not self.source.is_plain:
            self._check_source()
        if self.evaluation.prune_tau is not None and self.source.distribution not in ("gaussian", "chi_sphere"):
            raise ValueError(
                f"prune_tau with distribution={self.source.distribution}: pruning needs a source of uniform direction, "
                "gaussian or chi_sphere"
            )

        if self.evaluation.align_steps and (self.path != "rectified" or self.source.norm != "none"):
            raise ValueError(
                f"align_steps with path={self.path} and norm={self.source.norm}: it stands for norm alignment of a "
                "straight path that was trained without; use path=rectified and norm=none, or leave it out"
            )

    def _check_source(self) -> None:
        """Raise ValueError for what is known of the standard Gaussian only."""
        says = f"distribution={self.source.distribution} with norm={self.source.norm}"
        if self.path not in STANDARD_PATHS or self.loss != "conditional_flow_matching":
            raise ValueError(
                f"{says} needs loss=conditional_flow_matching and path={' or '.join(STANDARD_PATHS)}: the "
                "others are derived for a standard Gaussian"
            )
        if self.source.is_oracle and self.coupling != "independent":
            raise ValueError(f"{says} and no components draws x0 around its own x1: use coupling=independent")
        if self.evaluation.velocity_pairs or self.evaluation.hybrid_switches:
            raise ValueError(
                f"{says} has another exact velocity than velocity_pairs and hybrid_switches know: leave them out"
            )
        if self.evaluation.likelihood_images != 0 and self.source.distribution not in ("gaussian", "chi_sphere"):
            raise ValueError(f"{says}: bits/dim are measured for gaussian and chi_sphere only; set likelihood_images=0")

    def build_path(self) -> AffinePath:
        """The path, with its parameters."""
        return paths.by_name(self.path, **({"sigma_min": self.sigma_min} if self.path == "ot" else {}))


def from_dict(content: Any) -> Configuration:
    """The configuration back from JSON, with every type checked.

    Raises:
        ValueError: on fields that are missing, unknown or of the wrong type; the message names them.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Configuration).validate_python(content)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'it'}: {item['msg']}" for item in error.errors())
        raise ValueError(f"not a configuration of this version: {problems}") from None
