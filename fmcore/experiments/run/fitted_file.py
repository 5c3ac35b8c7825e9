"""What was fitted to training images, in a file that says to what: it is never taken for something else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fmcore.experiments.run.identity import Identity, check_label, label
from fmcore.tensor_file import read_tensors, write_tensors

FITTED = "what was fitted to training images"


def keep(fitted: Mapping[str, Tensor], about: Mapping[str, Any], file: Path, run: Identity | None = None) -> str:
    """Write what was fitted, to what (`about`, plain values), and of which run; returns the digest of it all."""
    return write_tensors(fitted, label(FITTED, run, about=dict(about)), file)


def kept(
    about: Mapping[str, Any], file: Path, run: Identity | None = None, warn: bool = True
) -> dict[str, Tensor] | None:
    """What was fitted and kept in a file; None if there is no file.

    Raises:
        ValueError: if the file is damaged, was fitted to something else, or belongs to another run; the message names
            what differs.
    """
    if not file.exists():
        return None
    found = read_tensors(file, "restore it, or train again", warn)
    said, wanted = found.belongs_to, json.loads(json.dumps(about))
    before = json.loads(found.header.get("fitted", "null")) if said is None else said.get("about")
    if not isinstance(before, dict):
        raise ValueError(f"{file} is damaged: it does not say what was fitted; restore it, or train again")
    differs = sorted(name for name in {**before, **wanted} if before.get(name) != wanted.get(name))
    if differs:
        changes = ", ".join(f"{name} (was {before.get(name)}, now {wanted.get(name)})" for name in differs)
        raise ValueError(f"{file} was fitted to another source: {changes}; use the run that it belongs to")
    check_label(said, file, FITTED, run)
    return found.tensors


def check_kept(file: Path, run: Identity) -> None:
    """Raise ValueError if a file is damaged, or belongs to another run."""
    said = read_tensors(file, "delete it; it is found again when it is needed").belongs_to
    check_label(said, file, FITTED, run)
