"""What an evaluation leaves in the folder of a run: whether it can be written, and whether the record holds numbers."""

from __future__ import annotations

import errno
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fmcore.atomic import cannot

FILES = ("record.json", "samples.png", "curve.csv", "hybrids.png")
ROOM = 2**16  # bytes that there must be room for at the start: a record with its curve, and hardly a picture


def check_can_write(folder: Path) -> None:
    """Raise OSError where the files of an evaluation cannot be written: before the measuring, not after it.

    A file without a name is written there and goes again. A disk that runs full in the meantime is another matter.
    """
    for name in FILES:
        if (folder / name).is_dir():
            raise cannot("write", folder / name, OSError(errno.EISDIR, os.strerror(errno.EISDIR)))
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(ROOM))
            file.flush()
    except OSError as error:
        raise cannot("write", folder / FILES[0], error, " (nothing was measured yet)") from error


def check_numbers(record: dict[str, Any]) -> None:
    """Raise ValueError naming every number of a record that is NaN or infinite: JSON has no such numbers."""
    wrong = [f"{name} is {value}" for name, value in numbers(record) if not math.isfinite(value)]
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(
            f"the record was not written, since it would hold what is no number: {', '.join(wrong[:5])}{more}. Look at "
            "the samples first; a network whose training diverged is to be trained again, with a smaller lr for example"
        )


def numbers(content: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """The floating-point numbers in dictionaries and lists, each with its place, as in values.bits_per_dim.flow."""
    if isinstance(content, float):
        yield name, content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from numbers(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, (list, tuple)):
        for place, value in enumerate(content):
            yield from numbers(value, f"{name}[{place}]")
