"""Where data sets lie on the disk, how processes wait for one that makes them, and their checksums."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fmcore.data.plain_files import open_plain

CHUNK = 2**22  # bytes read at once


def default_folder() -> Path:
    """The folder that holds the data sets when none is named.

    It is the one in the environment variable FMCORE_DATA if that is set, else data/cache of the repository when the
    package runs from a checkout, else ~/.cache/fmcore.
    """
    named = os.environ.get("FMCORE_DATA")
    if named:
        return Path(named).expanduser()
    root = Path(__file__).resolve().parents[2]
    if (root / "pyproject.toml").is_file() and (root / "data").is_dir():
        return root / "data" / "cache"
    return Path.home() / ".cache" / "fmcore"


@contextmanager
def waiting_for(folder: Path, doing: str) -> Iterator[None]:
    """Hold the folder for this process, after waiting for others that have it; a killed one lets go.

    For what all of them want and one makes for all, such as a download: whoever waited looks whether it is there now.
    For work of which each has its own, such as a training run, see `fmcore.locks.locked`, which refuses at once.

    Args:
        folder: made if it is not there; a file named .lock in it stays behind and is harmless.
        doing: what a waiting process tells its user ("another process is {doing}; waiting for it").
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another process is {doing}; waiting for it", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """The checksum of a plain file, in hexadecimal; raises ValueError for a pipe, a folder or a device."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open_plain(path) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
