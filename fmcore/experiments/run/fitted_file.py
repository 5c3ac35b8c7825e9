"""What was fitted to training images, in a file that says to what: it is never taken for something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from fmcore.atomic import write_file


def keep(fitted: dict[str, Tensor], about: dict[str, Any], file: Path) -> None:
    """Write what was fitted, and to what (`about`, plain values), in full or not at all."""
    from safetensors.torch import save

    tensors = {name: value.cpu().contiguous() for name, value in fitted.items()}
    write_file(file, save(tensors, {"fitted": json.dumps(about, sort_keys=True)}))


def kept(about: dict[str, Any], file: Path) -> dict[str, Tensor] | None:
    """What was fitted and kept in a file; None if there is no file.

    Raises:
        ValueError: if the file is damaged, or was fitted to something else; the message names what differs.
    """
    from safetensors import SafetensorError, safe_open

    if not file.exists():
        return None
    try:
        with safe_open(file, "pt") as opened:
            found = json.loads((opened.metadata() or {})["fitted"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise ValueError(f"{file} is damaged: {str(error).splitlines()[0]}; restore it, or train again") from None
    wanted = json.loads(json.dumps(about))
    differs = sorted(name for name in {**found, **wanted} if found.get(name) != wanted.get(name))
    if differs:
        changes = ", ".join(f"{name} (was {found.get(name)}, now {wanted.get(name)})" for name in differs)
        raise ValueError(f"{file} was fitted to another source: {changes}; use the run that it belongs to")
    return tensors
