"""What each setting means, taken from the docstrings of the configurations, where it is written once."""

from __future__ import annotations

import inspect
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

from fmcore.experiments.config.experiment import NetworkConfig

# Docstrings that say it in another place.
ELSEWHERE = {NetworkConfig: "fmcore.networks.UNet"}


def meanings(configuration: Any) -> dict[str, str]:
    """The meaning of every setting, by its name as in `flat`: "times", "training.lr", ...; "" where nothing says it."""
    found: dict[str, str] = {}
    said = described(type(configuration))
    hints = get_type_hints(type(configuration))
    for field in fields(configuration):
        value = getattr(configuration, field.name)
        if is_dataclass(value):
            found |= {f"{field.name}.{name}": text for name, text in meanings(value).items()}
        else:
            found[field.name] = said.get(field.name, "") + choices(hints[field.name])
    return found


def choices(hint: Any) -> str:
    """The words that a setting may be, where only some are allowed: " [one of a, b]"."""
    words = [word for word in _words(hint) if isinstance(word, str)]
    return f" [{', '.join(words)}]" if words else ""


def _words(hint: Any) -> list[Any]:
    """The values of Literals inside a type."""
    found: list[Any] = []
    for part in get_args(hint):
        found += [part] if isinstance(part, str) else _words(part)
    return found


def described(kind: type) -> dict[str, str]:
    """What a docstring says of each argument or attribute; "a, b: text" is said of both."""
    text = inspect.getdoc(_of_other(kind)) or ""
    found: dict[str, str] = {}
    names: list[str] = []
    inside = False
    for line in text.splitlines():
        if not line.startswith(" ") and line.strip():
            inside = line in ("Args:", "Attributes:")
        elif inside and line.startswith("    ") and not line.startswith("     ") and ":" in line:
            head, _, rest = line.strip().partition(":")
            names = [name.strip() for name in head.split(",")]
            found |= dict.fromkeys(names, rest.strip())
        elif inside and line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def _of_other(kind: type) -> Any:
    if kind not in ELSEWHERE:
        return kind
    module, _, name = ELSEWHERE[kind].rpartition(".")
    from importlib import import_module

    return getattr(import_module(module), name)
