"""What an experiment is: one frozen dataclass, every field of which can be set from the command line as field=value."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch

from fmcore import paths
from fmcore.training import TrainingConfig
from fmcore.validation import unknown_name

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
        generated_sets: how many sets are generated, each as large as the held-out split, so that their distances to
            the training split compare with that of the held-out images themselves.
        divergence, probes, draws: of bits/dim; see `fmcore.likelihood.bits_per_dim`.
        evaluation_seed: of the samples, the dequantization noise, the probes and the classifier.
    """

    __pydantic_config__ = EXTRA_FORBIDDEN

    method: Literal["dopri5", "euler", "midpoint", "heun", "rk4"] = "dopri5"
    solver_steps: int | None = None
    rtol: float = 1e-5
    atol: float = 1e-5
    generated_sets: int = 3
    divergence: Literal["exact", "hutchinson"] = "hutchinson"
    probes: int = 1
    draws: int = 1
    evaluation_seed: int = 0

    def __post_init__(self) -> None:
        if (self.method == "dopri5") != (self.solver_steps is None):
            raise ValueError(
                f"method={self.method} with solver_steps={self.solver_steps}: dopri5 chooses its own steps "
                "(leave solver_steps out), every other method needs solver_steps"
            )
        if self.generated_sets < 2:
            raise ValueError(f"generated_sets must be at least 2, to show a spread; got {self.generated_sets}")
        if not self.rtol > 0 or not self.atol > 0:
            raise ValueError(f"rtol and atol must be above 0, got {self.rtol} and {self.atol}")


@dataclass(frozen=True)
class Configuration:
    """One experiment: which data, path, coupling and loss, and how to train and evaluate.

    Attributes:
        experiment: its name in the catalog.
        data: name of a data set.
        path: name of a path; see `fmcore.paths`.
        coupling: which source sample meets which image in a batch.
        loss: what the network predicts; see `fmcore.losses`.
    """

    __pydantic_config__ = EXTRA_FORBIDDEN

    experiment: str
    data: Literal["digits"]
    path: Literal["rectified", "ot", "variance_preserving", "variance_exploding", "cosine"] = "rectified"
    coupling: Literal["independent", "minibatch_ot"] = "independent"
    loss: Literal["conditional_flow_matching", "noise_prediction", "score_matching", "score_flow"] = (
        "conditional_flow_matching"
    )
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        start = paths.by_name(self.path).alpha(torch.zeros(()))
        if self.loss != "conditional_flow_matching" and float(start) == 0:
            raise ValueError(
                f"loss={self.loss} says nothing about the velocity at t = 0 of the {self.path} path, which is pure "
                "noise there: use path=variance_preserving, or loss=conditional_flow_matching"
            )


def with_overrides(configuration: Configuration, overrides: Iterable[str]) -> Configuration:
    """Apply settings like ``steps=500``, ``lr=1e-3``, ``multipliers=1,2``, ``head_channels=none``.

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
    for group, values in changes.items():
        if group == "":
            configuration = replace(configuration, **values)
        else:
            configuration = replace(configuration, **{group: replace(getattr(configuration, group), **values)})
    return configuration


def settable_fields(configuration: Configuration) -> dict[str, str]:
    """Every field that can be set, and the group it belongs to ("" for the experiment itself)."""
    found = {}
    for top in fields(configuration):
        value = getattr(configuration, top.name)
        if is_dataclass(value):
            found.update({inner.name: top.name for inner in fields(value)})
        elif top.name != "experiment":
            found[top.name] = ""
    return found


def owner(configuration: Configuration, group: str) -> Any:
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


def to_dict(configuration: Configuration) -> dict[str, Any]:
    """The configuration as plain dictionaries and lists, for JSON."""
    return asdict(configuration)


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
