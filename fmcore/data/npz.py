"""Arrays in npz files from elsewhere: what a file claims is compared with its size before memory is taken for it."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from fmcore.data.plain_files import open_plain

MOST_PACKED = 1032  # bytes that deflate makes of one at best
# What zipfile, zlib and NumPy raise for files that are cut, altered or made up.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ArithmeticError,
    EOFError,
    KeyError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class Header:
    """What an array in a file claims to be."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Pickled(ValueError):
    """An array of Python objects: reading it would run the code in it."""


def headers(path: Path, names: tuple[str, ...]) -> dict[str, Header]:
    """The shapes and types of arrays in an npz file; their content is not read.

    Raises:
        Pickled: if one holds objects.
        one of DAMAGE: if the file is no npz file, lacks an array, or claims more than its bytes can hold.
    """
    with open_plain(path) as file, zipfile.ZipFile(file) as archive:
        return {name: _header(archive, name) for name in names}


def _header(archive: zipfile.ZipFile, name: str) -> Header:
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as member:
        version = npy.read_magic(member)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        if read is None:
            raise ValueError(f"{name}.npy is of version {version}")
        shape, _, dtype = read(member)
        begin = member.tell()
    if dtype.hasobject:
        raise Pickled(name)
    claimed, held = math.prod(shape) * dtype.itemsize, info.file_size - begin
    if min(shape, default=0) < 0 or claimed != held or info.file_size > MOST_PACKED * info.compress_size + 1024:
        raise ValueError(f"{name}.npy claims {shape} {dtype}, {claimed:,} bytes, and its entry holds other bytes")
    return Header(shape, dtype)
