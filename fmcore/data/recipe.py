"""What a data set is prepared from: its source's files, and the work that makes images of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SourceFile:
    """A file that a data set is made from: its name relative to the source's folder, and its size in bytes."""

    name: str
    size: int


@dataclass(frozen=True, eq=False)
class Block:
    """What a shard holds.

    Attributes:
        pixels: (n, C, H, W) uint8.
        labels: (n,) int64.
        broken: what was left out, one sentence a file.
    """

    pixels: np.ndarray
    labels: np.ndarray
    broken: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shard:
    """The work between two moments at which a preparation can be interrupted without loss.

    Attributes:
        files: that it is read from.
        images: how many it gives at most.
        read: does the work.
    """

    files: tuple[SourceFile, ...]
    images: int
    read: Callable[[], Block]


@dataclass(frozen=True)
class Recipe:
    """How to prepare a data set.

    Attributes:
        shape: (C, H, W) of one image.
        classes: the name of each label.
        train, held_out: the shards of each split, in order.
    """

    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    train: list[Shard]
    held_out: list[Shard]
