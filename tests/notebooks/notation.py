"""Do the names in a table of notation exist in fmcore?"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from functools import cache
from typing import Any

import fmcore
from fmcore import paths

HEADER = re.compile(r"^\|\s*Symbol\s*\|\s*Name in code\s*\|\s*Meaning\s*\|\s*$", re.MULTILINE)
# What a dotted name may start with besides a module: an argument, with a thing that is passed for it.
EXAMPLES = {"path": paths.rectified()}


def names(markdown: str) -> list[str]:
    """Every name in backticks in the second column of the table of notation; empty when there is no such table."""
    header = HEADER.search(markdown)
    if header is None:
        return []
    found = []
    for row in markdown[header.end() :].strip().splitlines()[1:]:
        if not row.startswith("|"):
            break
        found += re.findall(r"`([^`]+)`", row.split("|")[2])
    return found


def resolves(name: str) -> bool:
    """Whether a name means something in fmcore.

    `fmcore.losses.x` or `losses.x`: an attribute of that module. `path.velocity`: an attribute of a path. A bare name:
    a public class or function, an argument of one, or a public attribute of a class. So are the words after "(".
    """
    head, _, rest = name.partition("(")
    arguments = re.findall(r"[A-Za-z_]\w*", rest)
    return _resolves(head.strip()) and all(_resolves(argument) for argument in arguments)


def _resolves(name: str) -> bool:
    if not re.fullmatch(r"[A-Za-z_][\w.]*", name):
        return False
    head, _, rest = name.removeprefix("fmcore.").partition(".")
    if not rest and not name.startswith("fmcore."):
        return name in vocabulary()
    thing: Any = EXAMPLES[head] if head in EXAMPLES and not name.startswith("fmcore.") else fmcore
    for part in rest.split(".") if thing is not fmcore else [head, *filter(None, rest.split("."))]:
        if inspect.ismodule(thing) and not hasattr(thing, part):
            try:
                importlib.import_module(f"{thing.__name__}.{part}")
            except ImportError:
                return False
        if not hasattr(thing, part) and part not in _fields(thing):
            return False
        thing = getattr(thing, part, None)
    return True


def _fields(thing: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(thing)} if dataclasses.is_dataclass(thing) else set()


@cache
def vocabulary() -> frozenset[str]:
    """Public names of fmcore: modules, classes and functions, their arguments, and the attributes of classes."""
    words: set[str] = set()
    for info in pkgutil.walk_packages(fmcore.__path__, "fmcore."):
        if info.name.split(".")[1] in ("course", "cli", "__main__"):
            continue
        module = importlib.import_module(info.name)
        words.add(info.name.rpartition(".")[2])
        for name, thing in vars(module).items():
            if name.startswith("_") or getattr(thing, "__module__", None) != info.name:
                continue
            if inspect.isfunction(thing) or inspect.isclass(thing):
                words |= {name, *_arguments(thing)}
            if inspect.isclass(thing):
                words |= _fields(thing)
                for attribute, value in vars(thing).items():
                    if not attribute.startswith("_"):
                        words |= {attribute, *_arguments(value)}
                words |= set(_arguments(thing.__call__)) if "__call__" in vars(thing) else set()
                words |= set(_arguments(thing.forward)) if "forward" in vars(thing) else set()
    return frozenset(words)


def _arguments(function: Any) -> list[str]:
    try:
        return [name for name in inspect.signature(function).parameters if not name.startswith("_")]
    except (TypeError, ValueError):
        return []
