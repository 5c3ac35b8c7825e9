"""Photographs in folders: which files there are, which are held out, and how each becomes a small square."""

from __future__ import annotations

import hashlib
import io
import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fmcore.data.colours import as_rgb
from fmcore.data.orientation import turn_of
from fmcore.data.plain_files import file_size, read_plain
from fmcore.data.recipe import Block, Shard, SourceFile

SUFFIXES = {".jpeg", ".jpg", ".png"}
SHARD = 1024  # photographs that are read between two moments at which a killed preparation can go on
MOST_BYTES = 2**26  # of the images of a shard, which are in memory at once: fewer of them above 147 pixels
# What Pillow raises for files that are cut off, altered, or no images.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError, struct.error)


@dataclass(frozen=True)
class Reduction:
    """How a photograph becomes size x size pixels.

    Attributes:
        size: of the result.
        crop: side of the square that is cut from the middle first; "shorter side" for the largest one, or None to
            squeeze the whole picture.
        expected: (width, height) that every photograph must have; None allows all.
        upright: turn the photograph first as its EXIF data say.
    """

    size: int
    crop: int | str | None = "shorter side"
    expected: tuple[int, int] | None = None
    upright: bool = False


def reduce(image: Any, reduction: Reduction) -> np.ndarray:
    """A Pillow image as (3, size, size) uint8: cut, then reduced with a box filter: each pixel is
    the mean of those whose centres lie in its area.

    Every kind of image becomes RGB first, see `fmcore.data.colours.as_rgb`; transparency is ignored.

    Raises:
        ValueError: if the image does not have the expected size, or is of a mode without a known white.
    """
    from PIL import Image

    turn = turn_of(image) if reduction.upright else None
    if turn is not None:
        image = as_rgb(image).transpose(turn)
    width, height = image.size
    if reduction.expected not in (None, (width, height)):
        raise ValueError(f"it has {width}x{height} pixels, expected {'x'.join(map(str, reduction.expected or ()))}")
    if reduction.crop is None:
        box = (0, 0, width, height)
    else:
        side = min(width, height) if isinstance(reduction.crop, str) else reduction.crop
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
    # Cut first: in resize(box=...) a pixel between two areas falls to one or the other by where the square lies.
    small = as_rgb(image).crop(box).resize((reduction.size, reduction.size), Image.Resampling.BOX)
    return np.asarray(small).transpose(2, 0, 1)


def photograph_shards(
    root: Path, files: Sequence[SourceFile], labels: Sequence[int], reduction: Reduction, skip_broken: bool
) -> list[Shard]:
    """The work of a split: files are read in the order of the hash of their names, which mixes the classes."""
    order = sorted(range(len(files)), key=lambda index: name_hash(files[index].name))
    together = max(1, min(SHARD, MOST_BYTES // (3 * reduction.size**2)))
    shards = []
    for start in range(0, len(order), together):
        rows = order[start : start + together]
        part = tuple(files[row] for row in rows)
        chosen = np.array([labels[row] for row in rows], dtype=np.int64)
        shards.append(Shard(part, len(part), PhotographReader(root, part, chosen, reduction, skip_broken)))
    return shards


@dataclass(frozen=True, eq=False)
class PhotographReader:
    """Reads the photographs of one shard, several at a time (Pillow lets other threads run while it decodes)."""

    root: Path
    files: tuple[SourceFile, ...]
    labels: np.ndarray
    reduction: Reduction
    skip_broken: bool

    def __call__(self) -> Block:
        """The shard; raises ValueError naming the first file that does not decode, unless they are skipped."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            images = list(pool.map(self.read, self.files))
        good = [index for index, image in enumerate(images) if isinstance(image, np.ndarray)]
        broken = tuple(str(image) for image in images if not isinstance(image, np.ndarray))
        if broken and not self.skip_broken:
            raise ValueError(
                f"{broken[0]}. Get the file again, remove it and start the preparation anew, or leave out what does "
                "not decode with skip_broken=True"
            )
        size = self.reduction.size
        pixels = np.stack([images[index] for index in good]) if good else np.empty((0, 3, size, size), np.uint8)
        return Block(pixels, self.labels[good], broken)

    def read(self, file: SourceFile) -> np.ndarray | str:
        """One photograph, or what is wrong with it; raises OSError if the disk does not give the file."""
        from PIL import Image

        path = self.root / file.name
        content = read_plain(path)
        if len(content) != file.size:
            raise ValueError(f"{path} has {len(content):,} bytes, expected {file.size:,}: it changed meanwhile")
        try:
            with Image.open(io.BytesIO(content)) as image:
                if image.format == "EPS":  # Pillow would hand it to Ghostscript, which may run for ever
                    raise ValueError("it is PostScript, a program, which is never run")
                return reduce(image, self.reduction)
        except (*BROKEN, Image.DecompressionBombError) as error:
            reason = str(error).replace(f"{error.__class__.__name__}: ", "")
            if isinstance(error, Image.UnidentifiedImageError):
                reason = "it is no image"
            return f"{path} does not decode: {reason}"


def photographs_in(root: Path, folder: Path) -> list[SourceFile]:
    """The photographs directly in a folder, sorted by name; their names are relative to root.

    Raises:
        ValueError: if something with the name of a photograph is a folder, a pipe, a device, or a link to nothing.
    """
    with os.scandir(folder) as entries:
        found = [
            (entry.name, file_size(Path(entry.path)))
            for entry in entries
            if os.path.splitext(entry.name)[1].lower() in SUFFIXES and not entry.name.startswith(".")
        ]
    prefix = folder.relative_to(root).as_posix()
    return [SourceFile(f"{prefix}/{name}" if prefix != "." else name, size) for name, size in sorted(found)]


def name_hash(name: str) -> bytes:
    """SHA-256 of a file's name: an order and a split that no change of a random generator can alter."""
    return hashlib.sha256(os.fsencode(name)).digest()


def is_held_out(name: str, fraction: float) -> bool:
    """Whether a photograph is held out: a choice by its name alone, which more files do not change."""
    return int.from_bytes(name_hash(f"held out {name}")[:8], "big") < fraction * 2**64
