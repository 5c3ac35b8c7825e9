"""Files that are there in full or not at all, and checkpoints made of them."""

from __future__ import annotations

import io
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

# What reading a file that was cut off, altered, or never was a checkpoint may raise.
DAMAGE = (
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
CONTENT = {"config", "model", "ema", "optimizer", "generator", "cpu_rng", "gpu_rng", "losses", "seconds"}


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Save tensors, numbers, strings and containers of them; see `write_file`."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_file(path, buffer.getbuffer())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without unpickling anything but tensors and plain containers; tensors land on the CPU.

    Raises:
        ValueError: if the file is damaged or is not a checkpoint.
    """
    content = io.BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(content) as archive:
            if archive.testzip() is not None:  # PyTorch itself does not compare the checksums that it writes
                raise zipfile.BadZipFile("a checksum does not match")
        content.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about foreign files, which are refused anyway
            state = torch.load(content, map_location="cpu", weights_only=True)
        missing = CONTENT - set(state)
    except DAMAGE as error:
        raise ValueError(f"{path} is damaged or is not a checkpoint; train again from the start") from error
    if missing:
        raise ValueError(f"{path} is not a checkpoint of this package: it lacks {', '.join(sorted(missing))}")
    return state


def write_file(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that it is there in full or not at all, whatever happens in between.

    It is written under another name in the same folder, flushed to the disk and renamed, which replaces an older
    version in one step.

    Raises:
        OSError: if it cannot be written (a full disk, say); what was written is removed, the older version stays.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        kept = "the version before it is intact" if path.exists() else "nothing was saved"
        raise OSError(
            error.errno, f"cannot write {path}: {error.strerror} ({kept}); make room and run again"
        ) from error


def check_same(saved: dict[str, Any], asked: dict[str, Any], what: str) -> None:
    """Raise ValueError naming the fields in which two configurations differ."""
    fields = [key for key in {**saved, **asked} if saved.get(key) != asked.get(key)]
    if fields:
        differences = ", ".join(f"{key} (was {saved.get(key)}, now {asked.get(key)})" for key in fields)
        raise ValueError(
            f"{what} with another configuration: {differences}; resume with the same, or start again elsewhere"
        )
