"""The table of words in chapter 00: every name in it is a name of the package."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest

import fmcore

SOURCE = Path(__file__).parents[2] / "chapters" / "source" / "00_start_here.py"


def table_of_words() -> list[tuple[str, list[str], str]]:
    """Symbol, names in code, meaning, for each line of the table."""
    lines = SOURCE.read_text(encoding="utf-8").splitlines()
    start = lines.index("# | Symbol | Name in code | Meaning |") + 2
    rows = []
    for line in lines[start:]:
        if not line.startswith("# |"):
            break
        symbol, names, meaning = (cell.strip() for cell in re.split(r"(?<!\\)\|", line[3:].rstrip().rstrip("|")))
        rows.append((symbol, re.findall(r"`([^`]+)`", names), meaning))
    return rows


def resolve(name: str) -> Any:
    """The object of a full name; fields of dataclasses count as names. Raises AttributeError."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
            break
        except ModuleNotFoundError:
            continue
    else:
        raise AttributeError(name)
    for part in parts[cut:]:
        fields = getattr(found, "__dataclass_fields__", {})
        found = fields[part] if part in fields else getattr(found, part)
    return found


def public_parameters() -> set[str]:
    """Names of the parameters of all public functions and methods of the package, outside of the course."""
    names: set[str] = set()
    for module in pkgutil.walk_packages(fmcore.__path__, "fmcore."):
        if module.name.startswith("fmcore.course") or module.name.split(".")[-1].startswith("_"):
            continue
        for name, thing in vars(importlib.import_module(module.name)).items():
            if name.startswith("_") or not str(getattr(thing, "__module__", "")).startswith("fmcore"):
                continue
            members = [thing, *vars(thing).values()] if inspect.isclass(thing) else [thing]
            for member in members:
                if inspect.isfunction(member):
                    names.update(inspect.signature(member).parameters)
    return names


ROWS = table_of_words()


def test_the_table_is_read_whole() -> None:
    assert len(ROWS) >= 15
    assert all(names and meaning for _, names, meaning in ROWS)
    assert {"t", "x0", "x1", "xt"} <= {name for _, names, _ in ROWS for name in names}


@pytest.mark.parametrize("name", sorted({name for _, names, _ in ROWS for name in names}))
def test_each_name_is_one_of_the_package(name: str) -> None:
    if "." in name:
        assert name.startswith("fmcore.")
        resolve(name)
    else:
        assert name in public_parameters()


@pytest.mark.parametrize("name", ["fmcore.paths.AffinePath.beta", "fmcore.flows.solve", "fmcore.solvers.Solution.cost"])
def test_a_name_that_is_none_would_be_found_out(name: str) -> None:
    with pytest.raises(AttributeError):
        resolve(name)
    assert "x_t" not in public_parameters()
