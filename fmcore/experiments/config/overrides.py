"""Settings as text: field=value from the command line to any frozen dataclass, and back to JSON."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, fields, is_dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from fmcore.experiments.config.former import RENAMED
from fmcore.validation import unknown_name

if TYPE_CHECKING:
    from pydantic import TypeAdapter

EXTRA_FORBIDDEN = {"extra": "forbid"}  # read by pydantic: a field that does not exist is an error
FORMER_NAMES = {old.rpartition(".")[2]: new.rpartition(".")[2] for old, new in RENAMED.items()}
LARGEST = 2**63  # of whole numbers that PyTorch can count with
# What each kind of value is, by the first word of the kind of error that pydantic has for it.
MEANT = {
    "int": "give a whole number, written as in {name}=20",
    "float": "give a number, written as in {name}=0.5 or {name}=1e-3",
    "bool": "give true or false, as in {name}=true",
}
Settings = TypeVar("Settings", bound=Any)  # a frozen dataclass: that of an experiment, or of a measurement


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
        if name in FORMER_NAMES and name not in groups:
            raise ValueError(f"{name} is called {FORMER_NAMES[name]} now: write {FORMER_NAMES[name]}={text}")
        if name not in groups:
            raise unknown_field(name, groups)
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


def unknown_field(name: str, groups: Iterable[str]) -> ValueError:
    """The error for a field that does not exist: the nearest ones, then all."""
    known = unknown_name("field", name, groups)
    near = difflib.get_close_matches(name.lower(), list(groups), n=3, cutoff=0.6)
    return ValueError(f"{known} Did you mean {' or '.join(near)}?") if near else known


def owner(configuration: Any, group: str) -> Any:
    """The dataclass that holds the fields of a group."""
    return configuration if group == "" else getattr(configuration, group)


def parsed(group: Any, name: str, text: str) -> Any:
    """The value that a text stands for, by the type of the field."""
    from pydantic import ValidationError

    kind = get_type_hints(type(group))[name]
    value: Any = text
    if get_origin(kind) is tuple:
        value = [part for part in text.strip("()[] ").replace(" ", "").split(",") if part]
    elif text.lower() == "none" and type(None) in get_args(kind):
        value = None
    try:
        result = adapter(kind).validate_python(value)
    except ValidationError as error:
        problem = error.errors()[0]
        shown = text if len(text) <= 60 else f"{text[:60]}..."
        said = MEANT.get(problem["type"].partition("_")[0], "").format(name=name)
        raise ValueError(f"{name}={shown}: {said or problem['msg']}") from None
    if isinstance(result, float) and not math.isfinite(result):
        raise ValueError(f"{name}={text}: the number must be finite")
    if any(
        isinstance(one, int) and abs(one) >= LARGEST for one in (result if isinstance(result, tuple) else (result,))
    ):
        raise ValueError(f"{name}={text[:60]}: the number is too large; whole numbers end below 2^63")
    return result


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """What checks values against a type; made once, since that takes as long as loading a small network."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def to_dict(configuration: Any) -> dict[str, Any]:
    """The configuration as the dictionaries and lists that JSON gives back."""
    return json.loads(json.dumps(asdict(configuration)))


def without_place(configuration: Any) -> dict[str, Any]:
    """The configuration as `to_dict`, without the folder of the data: what makes two runs the same, on any machine."""
    return {name: value for name, value in to_dict(configuration).items() if name != "data_dir"}


def flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"training": {"steps": 5}} to {"training.steps": 5}, to compare and to name single fields."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[prefix + key] = list(value) if isinstance(value, tuple) else value
    return found
