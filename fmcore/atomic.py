"""Files that are there in full or not at all, also after a kill, a full disk or a loss of power.

Where the system has flock and the disk knows it, what a killed writer left is recognized, since its lock went with it,
and removed; elsewhere it stays until it is deleted by hand.
"""

from __future__ import annotations

import errno
import glob
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from fmcore import locks

PARTIAL = ".partial"
ADVICE = {
    **dict.fromkeys(("ENOSPC", "EDQUOT"), "make room and run again"),
    "EFBIG": "write to a disk, or under a limit, that takes files of this size",
    **dict.fromkeys(("EACCES", "EPERM"), "write to another folder, or have its owner let you write to it"),
    "EROFS": "what is there can only be read: write to another folder",
    "ENOENT": "make the folder first",
    "ENOTDIR": "a part of this path is a file: write to a folder",
    "EISDIR": "there is a folder of this name: choose another name, or move it away",
}


def write_file(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that it is there in full or not at all; raises OSError as `replaced`."""
    with replaced(path) as file:
        file.write(content)


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes its place at the end if all went well, whatever happens in between.

    It is written under a name of its own in the same folder, `NAME.some letters.partial`, flushed to the disk and
    renamed, which replaces an older version in one step. Several writers do not see each other: the last one to end
    stays. What killed writers left is removed by the next writer of the same file, where the system has flock.

    Raises:
        OSError: if it cannot be written (a full disk, say); what was written is removed, the older version stays.
    """
    remove_left_overs(path)
    partial = path
    try:
        partial, file = _begun(path)
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if locks.has_flock():  # while it is held: nobody may take it for a left-over
                os.replace(partial, path)
        if not locks.has_flock():  # Windows renames no open file, and removes none
            os.replace(partial, path)
    except BaseException as error:
        if partial != path:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
        # torch.save may answer the OSError of a full disk with a RuntimeError about positions in the file
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError) or not isinstance(error, (OSError, RuntimeError)):
            raise
        kept = "the version before it is intact" if os.path.exists(path) else "nothing was saved"
        raise cannot("write", path, cause, f" ({kept})") from error


def original_name(name: str) -> str:
    """The name of the file that a left-over was to become; any other name as it is.

    ``record.json.1a2b3c4d.partial`` and, of earlier versions of this package, ``record.json.partial`` were to become
    ``record.json``.
    """
    if not name.endswith(PARTIAL):
        return name
    name = name.removesuffix(PARTIAL)
    front, _, letters = name.rpartition(".")
    return front if front and len(letters) == 8 and set(letters) <= set("0123456789abcdef") else name


def remove_left_overs(path: Path) -> None:
    """Remove what writers of this file left that were killed; what one is writing now stays.

    Nothing is removed where there is no flock to tell the one from the other.
    """
    for found in [*glob.glob(f"{glob.escape(str(path))}.*{PARTIAL}"), f"{path}{PARTIAL}"]:
        if original_name(os.path.basename(found)) != path.name:
            continue
        with suppress(OSError), open(found, "r+b") as file:  # network disks lock only what may be written
            if locks.hold(file):
                os.unlink(found)


def cannot(do: str, path: Path, cause: OSError, state: str = "") -> OSError:
    """The error for something that cannot be done with a file, with what to do about it."""
    advice = ADVICE.get(errno.errorcode.get(cause.errno or 0, ""), "")
    return OSError(cause.errno, f"cannot {do} {path}: {cause.strerror or cause}{state}{'; ' * bool(advice)}{advice}")


def _begun(path: Path) -> tuple[Path, BinaryIO]:
    """A new file beside the path, held, and its name."""
    while True:
        partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PARTIAL}")
        file = open(partial, "xb")  # noqa: SIM115
        if locks.hold(file) is not False and locks.is_still(partial, file):
            return partial, file
        file.close()  # somebody took it for a left-over before it was held
