"""What an evaluation leaves in the folder of a run, and whether that can be written; a measurement asks the same."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fmcore.atomic import cannot

FILES = ("record.json", "samples.png", "curve.csv", "hybrids.png")
ROOM = 2**16  # bytes that there must be room for at the start: a record with its curve, and hardly a picture


def check_can_write(folder: Path, files: Sequence[str] = FILES) -> None:
    """Raise OSError where the files of an evaluation cannot be written: before the measuring, not after it.

    A file without a name is written there and goes again. A disk that runs full in the meantime is another matter.

    Args:
        folder: that is there.
        files: names of what will be written there, the record first.
    """
    for name in files:
        if (folder / name).is_dir():
            raise cannot("write", folder / name, OSError(errno.EISDIR, os.strerror(errno.EISDIR)))
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(ROOM))
            file.flush()
    except OSError as error:
        raise cannot("write", folder / (files or FILES)[0], error, " (nothing was measured yet)") from error
