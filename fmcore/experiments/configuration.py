"""What an experiment is: one frozen dataclass, every field of which can be set from the command line as field=value."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import torch

from fmcore import paths
from fmcore.experiments.evaluation_config import EvaluationConfig
from fmcore.experiments.source_config import EXTRA_FORBIDDEN, SourceConfig
from fmcore.paths import AffinePath
from fmcore.training import TrainingConfig
from fmcore.validation import unknown_name

# Losses whose network is the velocity itself.
VELOCITY_LOSSES = ("conditional_flow_matching", "empirical_flow_matching")
# Paths that start at x0 itself.
STANDARD_PATHS = ("rectified", "ot", "cosine")
Settings = TypeVar("Settings", bound=Any)  # a frozen dataclass: that of an experiment, or of a measurement


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


def with_overrides(configuration: Settings, overrides: Iterable[str]) -> Settings:
    """Apply settings like ``steps=500``, ``lr=1e-3``, ``multipliers=1,2``, ``head_channels=none``.

    Settings that belong together (method and solver_steps) are applied together.

    Raises:
        ValueError: on a field that does not exist (the known ones are listed), a value of the wrong type, or values
            that do not go together.
    """
    groups = settable_fields(configuration)
    changes: dict[str, dict[str, Any]] = {}
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise ValueError(f"{override!r} is not a setting: write field=value, for example steps=500")
        if name not in groups:
            raise unknown_name("field", name, groups)
        changes.setdefault(groups[name], {})[name] = parsed(owner(configuration, groups[name]), name, text)
    groups_changed = {group: replace(getattr(configuration, group), **changes[group]) for group in changes if group}
    return replace(configuration, **changes.get("", {}), **groups_changed)


def settable_fields(configuration: Any) -> dict[str, str]:
    """Every field that can be set, and the group it belongs to ("" for the experiment itself)."""
    found = {}
    for top in fields(configuration):
        value = getattr(configuration, top.name)
        if is_dataclass(value):
            found.update({inner.name: top.name for inner in fields(value)})
        elif top.name != "experiment":
            found[top.name] = ""
    return found


def owner(configuration: Any, group: str) -> Any:
    """The dataclass that holds the fields of a group."""
    return configuration if group == "" else getattr(configuration, group)


def parsed(group: Any, name: str, text: str) -> Any:
    """The value that a text stands for, by the type of the field."""
    from pydantic import TypeAdapter, ValidationError

    kind = get_type_hints(type(group))[name]
    value: Any = text
    if get_origin(kind) is tuple:
        value = [part for part in text.strip("()[] ").replace(" ", "").split(",") if part]
    elif text.lower() == "none" and type(None) in get_args(kind):
        value = None
    try:
        result = TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ValueError(f"{name}={text}: {error.errors()[0]['msg']}") from None
    if isinstance(result, float) and not math.isfinite(result):
        raise ValueError(f"{name}={text}: the number must be finite")
    return result


def to_dict(configuration: Any) -> dict[str, Any]:
    """The configuration as the dictionaries and lists that JSON gives back."""
    return json.loads(json.dumps(asdict(configuration)))


def without_place(configuration: Any) -> dict[str, Any]:
    """The configuration as `to_dict`, without the folder of the data: what makes two runs the same, on any machine."""
    return {name: value for name, value in to_dict(configuration).items() if name != "data_dir"}


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


def flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"training": {"steps": 5}} to {"training.steps": 5}, to compare and to name single fields."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[prefix + key] = list(value) if isinstance(value, tuple) else value
    return found
