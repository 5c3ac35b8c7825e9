"""Files from elsewhere are read only if they are plain files, and JSON only if it has a form that can be read."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from fmcore.atomic import ADVICE

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def file_size(path: Path) -> int:
    """The size of a plain file in bytes, without opening it: opening a pipe waits for somebody who writes to it.

    Raises:
        FileNotFoundError: if nothing is there.
        ValueError: if it is no plain file, or a symbolic link that leads nowhere.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        if os.path.islink(path) and error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            raise ValueError(
                f"{path} is a broken symbolic link (to {os.readlink(path)}): remove it, or put back what it leads to"
            ) from error
        raise
    check_plain(path, found.st_mode)
    return found.st_size


def check_plain(path: Path, mode: int) -> None:
    """Raise ValueError unless the mode of `os.stat` is that of a plain file."""
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "no plain file")
        raise ValueError(f"{path} is {kind} where a file is expected: remove it, or put the file there")


def open_plain(path: Path) -> BinaryIO:
    """A plain file, open for reading; raises as `file_size` and never waits."""
    file_size(path)
    # Not blocking, in case that something else took its place meanwhile; of plain files nothing changes.
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))  # noqa: SIM115
    try:
        check_plain(path, os.fstat(file.fileno()).st_mode)
    except ValueError:
        file.close()
        raise
    return file


def read_plain(path: Path) -> bytes:
    """The content of a plain file; raises as `file_size`."""
    with open_plain(path) as file:
        return file.read()


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: naming the file if it is no plain file, no JSON in UTF-8, or lists in lists without end.
    """
    content = read_plain(path)
    try:
        return json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        reason = "lists or objects too deep in each other" if isinstance(error, RecursionError) else str(error)
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {reason})") from error


def advice(error: OSError) -> str:
    """What to do about an error of the operating system, with a semicolon before; empty where it is not known."""
    found = ADVICE.get(errno.errorcode.get(error.errno or 0, ""), "")
    return f"; {found}" if found else ""


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a number")
