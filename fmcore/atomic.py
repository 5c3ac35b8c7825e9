"""Files that are there in full or not at all, and folders that one process at a time works in.

Both also after a kill, a full disk or a loss of power: what a killed process left is recognized, since the system lets
go of its locks.
"""

from __future__ import annotations

import errno
import glob
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

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
    stays. What killed writers left is removed by the next writer of the same file.

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
            if fcntl is not None:  # while it is held: nobody may take it for a left-over
                os.replace(partial, path)
        if fcntl is None:  # Windows renames no open file, and removes none
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
    """Remove what writers of this file left that were killed; what one is writing now stays."""
    for found in [*glob.glob(f"{glob.escape(str(path))}.*{PARTIAL}"), f"{path}{PARTIAL}"]:
        if original_name(os.path.basename(found)) != path.name:
            continue
        with suppress(OSError), open(found, "r+b") as file:  # network disks lock only what may be written
            if hold(file):
                os.unlink(found)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Work in a folder alone: a second process, or a second call in this one, is refused until this one has ended.

    The lock is a hidden file beside the folder, which need not exist yet. The system releases it when the process ends,
    however that happens; reading needs none. Where no such file can be made or locked (a folder above that can only be
    read, a network disk without locks), nothing is held and the work goes on.

    Raises:
        BlockingIOError: if the folder is held; the message says by which process.
    """
    place = folder.resolve()
    lock = place.with_name(f".{place.name}.lock")
    with suppress(OSError):
        lock.parent.mkdir(parents=True, exist_ok=True)
    release = _acquired(lock, folder) if fcntl is not None else _acquired_elsewhere(lock, folder)
    try:
        yield
    finally:
        release()


def hold(file: IO[Any]) -> bool | None:
    """Lock an open file until it is closed, or the process ends in whatever way.

    Returns:
        Whether it is ours now: False if another has it, None if the system or the disk has no such locks.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EAGAIN, errno.EACCES) else None
    return True


def cannot(do: str, path: Path, cause: OSError, state: str = "") -> OSError:
    """The error for something that cannot be done with a file, with what to do about it."""
    advice = ADVICE.get(errno.errorcode.get(cause.errno or 0, ""), "")
    return OSError(cause.errno, f"cannot {do} {path}: {cause.strerror or cause}{state}{'; ' * bool(advice)}{advice}")


def _begun(path: Path) -> tuple[Path, BinaryIO]:
    """A new file beside the path, held, and its name."""
    while True:
        partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PARTIAL}")
        file = open(partial, "xb")  # noqa: SIM115
        if hold(file) is not False and _still(partial, file):
            return partial, file
        file.close()  # somebody took it for a left-over before it was held


def _acquired(lock: Path, folder: Path) -> Callable[[], None]:
    """Hold a lock; returns what lets go of it, and raises as `locked`."""
    while True:
        try:
            file = open(lock, "a+", encoding="utf-8")  # noqa: SIM115
        except OSError:
            return lambda: None
        if hold(file) is False:
            with file:
                file.seek(0)
                raise _in_use(folder, file.read())
        if _still(lock, file):
            break
        file.close()  # its holder removed it between our opening and holding it
    with suppress(OSError):
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M')}")
        file.flush()

    def release() -> None:
        with suppress(OSError):  # while it is held: afterwards it may be another's
            lock.unlink()
        with suppress(OSError):
            file.close()

    return release


def _acquired_elsewhere(lock: Path, folder: Path) -> Callable[[], None]:
    """As `_acquired`, where Python has no flock."""
    from filelock import FileLock, Timeout

    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise _in_use(folder, "") from None
    except OSError:
        return lambda: None
    return held.release


def _still(path: Path, file: IO[Any]) -> bool:
    """Whether the name is that of the open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _in_use(folder: Path, holder: str) -> BlockingIOError:
    return BlockingIOError(
        f"{folder} is in use by {holder or 'another process'}: wait until that has ended, or end it and run again; "
        "for a second run name another folder"
    )
