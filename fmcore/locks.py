"""Locks that end with the process that holds them, and folders that one process at a time works in.

They are locks of the system (flock), so that a killed process leaves none behind. Where Python has no flock (Windows),
filelock stands in for folders; where a disk has no such locks, nothing is held.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TRIES = 20  # to hold a file that others remove in between; each lost try is a race lost by microseconds
HELD: set[tuple[Path, int, int]] = set()  # folder, process, and thread: a forked process holds nothing


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Work in a folder alone, or not at all: whoever comes second is refused until the first has ended.

    For work of which each has its own, such as a training run: a second one must not wait and then go on in the files
    of the first. Where the second wants the very thing that the first makes, such as a downloaded data set, it waits:
    see `fmcore.data.files.waiting_for`.

    Within the block, the same thread may lock the folder again; the outermost block lets go of it. Another thread is
    refused as another process is.

    The lock is a hidden file beside the folder, which need not exist yet; folders above it that were made for the lock
    are removed at the end if nothing else came into them. The system releases the lock when the process ends, however
    that happens; reading needs none. A lock file that another user left, or holds, need only be readable. Where no such
    file can be made or locked (a folder above that can only be read, a network disk without locks), nothing is held and
    the work goes on.

    Raises:
        BlockingIOError: if the folder is held; the message says by which process.
    """
    place = folder.resolve()
    key = (place, os.getpid(), threading.get_ident())
    if key in HELD:
        yield
        return
    lock, made = place.parent / f".{place.name}.lock", list[Path]()
    try:
        release = _acquired(lock, folder, made) if has_flock() else _acquired_elsewhere(lock, folder, made)
        try:
            HELD.add(key)
            yield
        finally:
            HELD.discard(key)
            release()
    finally:
        for one in reversed(made):
            with suppress(OSError):  # something is in it by now
                one.rmdir()


def has_flock() -> bool:
    """Whether Python has the system's flock here; it has none on Windows."""
    return fcntl is not None


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


def is_still(path: Path, file: IO[Any]) -> bool:
    """Whether the name is that of the open file: it may have been removed between its opening and its lock."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _acquired(lock: Path, folder: Path, made: list[Path]) -> Callable[[], None]:
    """Hold a lock; returns what lets go of it, notes the folders made for it, and raises as `locked`."""
    for _ in range(TRIES):
        made += _made(lock.parent)
        try:
            file = _opened(lock)
        except FileNotFoundError:
            continue  # whoever let go removed it, or the folder, in between
        except OSError:
            break
        if hold(file) is False:
            with file:
                file.seek(0)
                raise _in_use(folder, file.read())
        if not is_still(lock, file):
            file.close()  # its holder removed it between our opening and holding it
            continue
        with suppress(OSError):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M')}")
            file.flush()
        return partial(_let_go, lock, file)
    return lambda: None


def _let_go(lock: Path, file: IO[str]) -> None:
    with suppress(OSError):  # while it is held: afterwards it may be another's
        lock.unlink()
    with suppress(OSError):
        file.close()


def _opened(lock: Path) -> IO[str]:
    """The file of a lock, made if it is not there; to read only, which is enough to lock it, if that is all we may."""
    try:
        return open(lock, "a+", encoding="utf-8", opener=_no_link)
    except FileNotFoundError:
        raise
    except OSError:
        return open(lock, encoding="utf-8", opener=_no_link)


def _no_link(path: str, flags: int) -> int:
    """Open a file, but never through a link, which may lead to a file that the lock has nothing to do with."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _acquired_elsewhere(lock: Path, folder: Path, made: list[Path]) -> Callable[[], None]:
    """As `_acquired`, where Python has no flock."""
    from filelock import FileLock, Timeout

    made += _made(lock.parent)
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise _in_use(folder, "") from None
    except OSError:
        return lambda: None
    return held.release


def _made(folder: Path) -> list[Path]:
    """Make a folder and those above it, as far as that can be done; returns the new ones, outermost first."""
    missing = [one for one in (folder, *folder.parents) if not os.path.exists(one)]
    made = []
    with suppress(OSError):
        for one in reversed(missing):
            with suppress(FileExistsError):  # another process was faster
                one.mkdir()
                made.append(one)
    return made


def _in_use(folder: Path, holder: str) -> BlockingIOError:
    return BlockingIOError(
        f"{folder} is in use by {holder or 'another process'}: wait until that has ended, or end it and run again; "
        "for a second run name another folder"
    )
