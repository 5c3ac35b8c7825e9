"""Files that are there in full or not at all, and checkpoints made of them."""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

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
# Raised with every change of what a checkpoint holds.
FORMAT = 2
CONTENT = {"format", "config", "model", "ema", "optimizer", "losses", "seconds", "processes", "notes"}


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Save tensors, numbers, strings and containers of them; raises OSError as `replaced`.

    Tensors go straight to the file, one after the other: a large network needs no second copy in memory.
    """
    with replaced(path) as file:
        torch.save({"format": FORMAT, **state}, file)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without unpickling anything but tensors and plain containers; tensors land on the CPU.

    Raises:
        ValueError: if the file is damaged, is not a checkpoint, or was made by another version of this package.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # PyTorch itself does not compare the checksums that it writes
                raise zipfile.BadZipFile("a checksum does not match")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about foreign files, which are refused anyway
            state = dict(torch.load(path, map_location="cpu", weights_only=True))
        missing = CONTENT - set(state)
    except DAMAGE as error:
        raise ValueError(f"{path} is damaged or is not a checkpoint; train again from the start") from error
    made_by = state.get("format", 1)
    if made_by != FORMAT and {"config", "model", "optimizer"} <= set(state):
        raise ValueError(
            f"{path} was made by another version of this package (format {made_by}, this one reads {FORMAT}): "
            "finish the run with that version, or train again from the start"
        )
    if missing:
        raise ValueError(f"{path} is not a checkpoint of this package: it lacks {', '.join(sorted(missing))}")
    return state


def write_file(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that it is there in full or not at all; raises OSError as `replaced`."""
    with replaced(path) as file:
        file.write(content)


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes its place at the end if all went well, whatever happens in between.

    It is written under another name in the same folder, flushed to the disk and renamed, which replaces an older
    version in one step.

    Raises:
        OSError: if it cannot be written (a full disk, say); what was written is removed, the older version stays.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        # torch.save may answer the OSError of a full disk with a RuntimeError about positions in the file
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError) or not isinstance(error, (OSError, RuntimeError)):
            raise
        kept = "the version before it is intact" if path.exists() else "nothing was saved"
        raise OSError(
            cause.errno, f"cannot write {path}: {cause.strerror} ({kept}); make room and run again"
        ) from error


def check_same(saved: dict[str, Any], asked: dict[str, Any], what: str) -> None:
    """Raise ValueError naming the fields in which two configurations differ."""
    fields = [key for key in {**saved, **asked} if saved.get(key) != asked.get(key)]
    if fields:
        differences = ", ".join(f"{key} (was {saved.get(key)}, now {asked.get(key)})" for key in fields)
        raise ValueError(
            f"{what} with another configuration: {differences}; resume with the same, or start again elsewhere"
        )
