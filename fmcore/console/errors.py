"""What an error says to who typed the command, and the status with which the command ends.

2    what was asked for, or the machine, is the reason: the sentence says what to do
70   the package is the reason: an error that none of its checks knows
"""

from __future__ import annotations

import errno
import os
import traceback
from pathlib import Path

MENDABLE, BUG = 2, 70
ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
PLACES = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)


def answer(error: Exception) -> tuple[str, int]:
    """The sentence for an error, and the exit status."""
    if isinstance(error, ImportError):
        return f"{error}: fmcore doctor says what is missing, and how to get it", MENDABLE
    if isinstance(error, (ValueError, OSError, FloatingPointError)):
        return explained(error), MENDABLE
    said = " ".join(str(error).split())
    return (
        f"this is a bug in fmcore: {type(error).__name__}{': ' * bool(said)}{said[:300]} ({place(error)}). Please "
        "report it; with FMCORE_TRACEBACK=1 in the environment the same command shows where it comes from",
        BUG,
    )


def explained(error: Exception) -> str:
    """What an error says; of the system's own about a file, what to do."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error) or f"{type(error).__name__} without a reason; FMCORE_TRACEBACK=1 shows where it comes from"
    if error.filename is None:
        if error.errno in ROOM and error.strerror == os.strerror(error.errno):  # of stdout, or of a library's file
            return f"{error.strerror.lower()}: make room where the output or the files go, and run the command again"
        return error.strerror  # a sentence of ours with the system's number
    said = f"{error.filename}: {error.strerror.lower()}"
    if error.errno in PLACES:
        said += (
            "; work in a folder of your own, or name another place: --run-dir for train and measure, --out for sample "
            "and export, the environment variable FMCORE_DATA for data"
        )
    return said


def place(error: Exception) -> str:
    """The line of this package that an error comes through last."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "fmcore" in Path(frame.filename).parts]
    if not frames:
        return "outside the package"
    parts = Path(frames[-1].filename).parts
    start = len(parts) - 1 - parts[::-1].index("fmcore")
    return f"{'/'.join(parts[start:])}, line {frames[-1].lineno}"
