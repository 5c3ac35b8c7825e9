"""Settings as frozen dataclasses: each field is checked against its type when the dataclass is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from torch import Tensor

from fmcore.validation import unknown_name

WORDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}


def checked(settings: Any) -> None:
    """Check every field of a frozen dataclass against its type, and make plain Python values of it.

    To be called first in ``__post_init__``. Types may be int, float, bool, str, Literal, tuple, another dataclass, and
    any of them or None. Scalars of numpy and torch become Python numbers, a whole number becomes a float where the type
    is float, and lists and arrays of one axis become tuples: what is kept in a file is then read back as the same.

    Args:
        settings: the dataclass, whose fields are set anew where the value was converted.

    Raises:
        ValueError: on a value of another type, a name that is not one of those of the Literal (which are listed), a
            bool in place of a number, or a number that is not finite; the message names the field.
    """
    kinds = _kinds(settings.__class__)
    for field in fields(settings):
        value = getattr(settings, field.name)
        plain = _checked(field.name, value, kinds[field.name])
        if plain is not value:
            object.__setattr__(settings, field.name, plain)


@lru_cache
def _kinds(settings: type) -> dict[str, Any]:
    return get_type_hints(settings)


def _checked(name: str, value: Any, kind: Any) -> Any:
    """The value as its kind has it; raises as `checked`."""
    if isinstance(value, np.generic) or (isinstance(value, (np.ndarray, Tensor)) and value.ndim == 0):
        value = value.item()
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    optional = ""
    if NoneType in kinds:
        if value is None:
            return None
        optional = ", or None"
        kinds = tuple(one for one in kinds if one is not NoneType)
    if len(kinds) != 1:
        return value  # of several kinds: their own checks say which
    only = kinds[0]
    if get_origin(only) is Literal:
        if not any(type(value) is type(known) and value == known for known in get_args(only)):
            raise unknown_name(name, value, map(str, get_args(only)))
        return value
    if get_origin(only) is tuple:
        return _checked_tuple(name, value, get_args(only))
    if only in WORDS:
        return _checked_scalar(name, value, only, optional)
    if isinstance(only, type) and is_dataclass(only) and not isinstance(value, only):
        raise ValueError(f"{name}={value!r}: give {only.__name__}(...){optional}")
    return value


def _checked_tuple(name: str, value: Any, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    if isinstance(value, (np.ndarray, Tensor)):
        value = value.tolist()
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError(f"{name}={value!r}: give several values, as a tuple, for example {name}=({value!r},)")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise ValueError(f"{name}={value!r}: give {len(kinds)} values, not {len(value)}")
    parts = tuple(_checked(name, one, kind) for one, kind in zip(value, kinds, strict=True))
    if isinstance(value, tuple) and all(one is other for one, other in zip(parts, value, strict=True)):
        return value
    return parts


def _checked_scalar(name: str, value: Any, kind: type, optional: str) -> Any:
    if type(value) is int and kind is float:
        return float(value)
    if type(value) is float and kind in (int, float) and not math.isfinite(value):
        raise ValueError(f"{name}={value}: the number must be finite{optional}")
    if type(value) is float and kind is int and value.is_integer():
        raise ValueError(f"{name}={value}: give a whole number{optional}, write {name}={int(value)}")
    if type(value) is not kind:
        raise ValueError(f"{name}={value!r}: give {WORDS[kind]}{optional}")
    return value
