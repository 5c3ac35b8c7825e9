"""Whether there is a place to write to."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def check_place(folder: Path) -> None:
    """Raise PermissionError or NotADirectoryError where no folder can be made: at once, not after the work.

    A `folder` that is there itself is judged by whoever writes into it, if it is no folder.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if there != folder and not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    if not os.access(there, os.W_OK | os.X_OK) and there.is_dir():
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))
