"""Checkpoints: what a training needs to go on, in one file that holds no code."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from fmcore.atomic import cannot, replaced

# What reading a file that was cut off, altered, or never was a checkpoint may raise.
DAMAGE = (
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    EOFError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
)
# Raised with every change of what a checkpoint holds.
FORMAT = 2
CONTENT = {
    "format": int,
    "config": dict,
    "model": dict,
    "ema": dict,
    "optimizer": dict,
    "losses": torch.Tensor,
    "seconds": float,
    "processes": int,
    "notes": list,
}


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Save tensors, numbers, strings and containers of them; raises OSError as `fmcore.atomic.replaced`.

    Tensors go straight to the file, one after the other: a large network needs no second copy in memory.
    """
    with replaced(path) as file:
        torch.save({"format": FORMAT, **state}, file)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without unpickling anything but tensors and plain containers; tensors land on the CPU.

    Raises:
        ValueError: if the file is damaged, is not a checkpoint, or was made by another version of this package.
        OSError: if it cannot be read, which says nothing about what is in it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # PyTorch itself does not compare the checksums that it writes
                raise zipfile.BadZipFile("a checksum does not match")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about foreign files, which are refused anyway
            state = dict(torch.load(path, map_location="cpu", weights_only=True))
    except OSError as error:
        raise cannot("read", path, error) from error
    except DAMAGE as error:
        raise ValueError(f"{path} is damaged or is not a checkpoint; train again from the start") from error
    made_by = state.get("format", 1)
    if made_by != FORMAT and {"config", "model", "optimizer"} <= set(state):
        raise ValueError(
            f"{path} was made by another version of this package (format {made_by}, this one reads {FORMAT}): "
            "finish the run with that version, or train again from the start"
        )
    if missing := sorted(set(CONTENT) - set(state)):
        raise ValueError(f"{path} is not a checkpoint of this package: it lacks {', '.join(missing)}")
    if wrong := [name for name, kind in CONTENT.items() if not isinstance(state[name], kind)]:
        raise ValueError(
            f"{path} is not a checkpoint of this package: its {wrong[0]} is no {CONTENT[wrong[0]].__name__}"
        )
    return state


def check_same(saved: dict[str, Any], asked: dict[str, Any], what: str) -> None:
    """Raise ValueError naming the fields in which two configurations differ."""
    fields = [key for key in {**saved, **asked} if saved.get(key) != asked.get(key)]
    if fields:
        differences = ", ".join(f"{key} (was {saved.get(key)}, now {asked.get(key)})" for key in fields)
        raise ValueError(
            f"{what} with another configuration: {differences}; resume with the same, or start again elsewhere"
        )
