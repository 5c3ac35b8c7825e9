"""What an experiment is: one frozen dataclass, every field of which can be set from the command line as field=value."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import torch

from fmcore import paths
from fmcore.paths import AffinePath
from fmcore.training import TrainingConfig
from fmcore.validation import unknown_name

# Losses whose network is the velocity itself.
VELOCITY_LOSSES = ("conditional_flow_matching", "empirical_flow_matching")
Settings = TypeVar("Settings", bound=Any)  # a frozen dataclass: that of an experiment, or of a measurement
EXTRA_FORBIDDEN = {"extra": "forbid"}  # read by pydantic: a field that does not exist is an error


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
class EvaluationConfig:
    """How samples are drawn and what is measured.

    Attributes:
        method, solver_steps, rtol, atol: the solver; solver_steps is for fixed-step methods only.
        solver_batch: images solved together, for samples and bits/dim. An adaptive solver chooses its steps for the
            whole batch, so NFE depends on it (a little). It is also the unit in which processes share the work.
        generated_sets: how many sets of images are generated, at least two, to show a spread.
        set_images: images of a set; none for as many as are held out. A Frechet distance is biased by the number of
            images, so generated and held-out images are compared with the training split in equal numbers.
        likelihood_images: how many held-out images bits/dim are measured on; none for all of them, 0 to leave it out.
        divergence, probes, draws: of bits/dim; see `fmcore.likelihood.bits_per_dim`.
        probe_repeats: estimates of the first draw with independent probes; two or more tell the noise of Hutchinson's
            estimate, and with it the bias of bits/dim from several draws.
        features: spaces for Frechet distances: classifier, inception (FID), dinov2. The latter two need another
            package and download a network.
        classifier_steps: training steps of the classifier, whose weights are kept for the next run.
        nearest_images: images of each set whose nearest training image is looked up; 0 for none.
        curve_every: training steps between snapshots for the curve of Frechet distance against step; 0 for none.
        curve_images: images generated for each point of that curve.
        velocity_pairs: pairs of noise and training image at which the network is compared with the exact velocity of
            the training images; 0 to leave it out.
        velocity_times: the times of that comparison.
        hybrid_switches: times up to which samples follow the exact velocity, and from which on the network; each a
            multiple of 0.01, the Euler step that they are drawn with. None are drawn if it is empty.
        hybrid_images: samples drawn for each of these.
        evaluation_seed: of the samples, the dequantization noise, the probes and the classifier.
    """

    __pydantic_config__ = EXTRA_FORBIDDEN

    method: Literal["dopri5", "euler", "midpoint", "heun", "rk4"] = "dopri5"
    solver_steps: int | None = None
    rtol: float = 1e-5
    atol: float = 1e-5
    solver_batch: int = 1000
    generated_sets: int = 3
    set_images: int | None = None
    likelihood_images: int | None = None
    divergence: Literal["exact", "hutchinson"] = "hutchinson"
    probes: int = 1
    draws: int = 1
    probe_repeats: int = 1
    features: tuple[Literal["classifier", "inception", "dinov2"], ...] = ("classifier",)
    classifier_steps: int = 400
    nearest_images: int = 1000
    curve_every: int = 0
    curve_images: int = 500
    velocity_pairs: int = 0
    velocity_times: tuple[float, ...] = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
    hybrid_switches: tuple[float, ...] = ()
    hybrid_images: int = 256
    evaluation_seed: int = 0

    def __post_init__(self) -> None:
        if (self.method == "dopri5") != (self.solver_steps is None):
            raise ValueError(
                f"method={self.method} with solver_steps={self.solver_steps}: dopri5 chooses its own steps "
                "(leave solver_steps out), every other method needs solver_steps"
            )
        least = {"generated_sets": 2, "set_images": 2, "likelihood_images": 0, "curve_images": 2, "velocity_pairs": 0}
        least |= dict.fromkeys(("solver_batch", "solver_steps", "probes", "draws", "probe_repeats", "hybrid_images"), 1)
        least |= {"classifier_steps": 1, "nearest_images": 0, "curve_every": 0, "evaluation_seed": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                why = ", to show a spread" if name == "generated_sets" else ""
                raise ValueError(f"{name} must be at least {bound}{why}; got {value}")
        for name, value in (("likelihood_images", self.likelihood_images), ("velocity_pairs", self.velocity_pairs)):
            if value == 1:
                raise ValueError(f"{name} must be 0, to leave it out, or at least 2, to show a spread; got 1")
        for name in ("velocity_times", "hybrid_switches"):
            values = getattr(self, name)
            if list(values) != sorted(set(values)) or any(not 0 <= value <= 1 for value in values):
                raise ValueError(f"{name} must be increasing times from 0 to 1, got {','.join(map(str, values))}")
        if any(abs(100 * value - round(100 * value)) > 1e-9 for value in self.hybrid_switches):
            raise ValueError(
                f"hybrid_switches must be multiples of 0.01, got {','.join(map(str, self.hybrid_switches))}: hybrid "
                "samples take 100 Euler steps, and the velocity changes between two of them"
            )
        if not self.rtol > 0 or not self.atol > 0:
            raise ValueError(f"rtol and atol must be above 0, got {self.rtol} and {self.atol}")
        if self.divergence == "exact" and (self.probes, self.probe_repeats) != (1, 1):
            raise ValueError("an exact divergence has no probes: leave out probes and probe_repeats")
        if len(set(self.features)) < max(1, len(self.features)):
            raise ValueError(f"features={','.join(self.features)}: name each space once, and at least one")


@dataclass(frozen=True)
class Configuration:
    """One experiment: which data, path, coupling and loss, and how to train and evaluate.

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
