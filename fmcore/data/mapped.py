"""Reading a prepared data set: its manifest is checked, its images stay on the disk until their rows are used.

manifest.json                    what it is: shape, classes, settings, and the SHA-256 of each shard (a run of rows)
train.pixels, held_out.pixels    (n, C, H, W) uint8, row after row
train.labels, held_out.labels    (n,) int64, little-endian
sources.txt                      the files that it was made from; see `fmcore.data.prepared`
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmcore.data.files import CHUNK
from fmcore.data.images import ImageData

FORMAT = 1
MANIFEST = "manifest.json"
SPLITS = ("train", "held_out")
FIELDS = {"format": int, "name": str, "shape": list, "classes": list, "settings": dict, "splits": dict}
# Linux counts a private mapping as memory in use, and refuses one larger than the machine's, unless told otherwise.
# Python names the flag from 3.13 on; this is its value on the processors that PyTorch is built for.
NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if platform.machine() in ("x86_64", "aarch64") else 0)


def load(folder: Path, name: str, verify: bool = False) -> ImageData:
    """The prepared data set in a folder; sizes are always checked.

    Args:
        folder: that holds manifest.json.
        name: of the data set that is expected in it.
        verify: compare every byte with the checksums in the manifest, too.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is truncated or altered, or the folder holds another data set.
    """
    manifest = read_manifest(folder)
    if manifest["name"] != name:
        raise ValueError(f"{folder} holds {manifest['name']}, not {name}: name another folder")
    if verify:
        verify_shards(folder, manifest)
    images, labels = {}, {}
    for split in SPLITS:
        n = count(manifest, split)
        images[split] = map_images(folder / f"{split}.pixels", (n, *manifest["shape"]))
        labels[split] = torch.from_numpy(np.fromfile(folder / f"{split}.labels", dtype="<i8").astype(np.int64))
        if not 0 <= int(labels[split].min()) <= int(labels[split].max()) < max(1, len(manifest["classes"])):
            raise ValueError(
                f"{folder / split}.labels holds labels outside 0..{len(manifest['classes']) - 1}{again(folder)}"
            )
    classes = tuple(manifest["classes"])
    return ImageData(name, images["train"], images["held_out"], labels["train"], labels["held_out"], classes=classes)


def map_images(path: Path, shape: tuple[int, ...]) -> Tensor:
    """A file of uint8 as a tensor of that shape, without reading it; it may be far larger than the memory.

    Its pages are shared with other processes that map it. What is written to the tensor stays in this process and never
    reaches the file, so that a mistake is neither a crash nor a damaged data set.
    """
    if sys.platform != "linux":
        return torch.from_numpy(np.memmap(path, dtype=np.uint8, mode="c", shape=shape))
    with open(path, "rb") as file:
        private = mmap.MAP_PRIVATE | NO_RESERVE
        mapping = mmap.mmap(file.fileno(), math.prod(shape), flags=private, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    return torch.from_numpy(np.frombuffer(mapping, dtype=np.uint8).reshape(shape))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared folder, after a check of its form and of the sizes of all files; raises as `load`."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        for field, kind in FIELDS.items():
            if not isinstance(manifest[field], kind):
                raise TypeError(f"{field} is not a {kind.__name__}")
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']}, this package reads {FORMAT}")
        sizes = {
            f"{split}.{kind}": count(manifest, split) * size
            for split in SPLITS
            for kind, size in (("pixels", math.prod(manifest["shape"])), ("labels", 8))
        }
        if min(sizes.values()) < 1:
            raise ValueError("a split without images")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}){again(folder)}") from error
    for name, expected in sizes.items():
        file = folder / name
        if not file.exists():
            raise FileNotFoundError(f"{file} is missing, expected {expected:,} bytes{again(folder)}")
        if file.stat().st_size != expected:
            raise ValueError(
                f"{file} has {file.stat().st_size:,} bytes, expected {expected:,}: it is truncated or altered"
                f"{again(folder)}"
            )
    return manifest


def count(manifest: dict[str, Any], split: str) -> int:
    """The number of images of a split, by its manifest or journal."""
    return sum(shard["images"] for shard in manifest["splits"][split]["shards"])


def verify_shards(folder: Path, manifest: dict[str, Any]) -> None:
    """Raise ValueError naming the first file and rows whose bytes do not have the checksum of the manifest."""
    for split in SPLITS:
        for kind, size in (("pixels", math.prod(manifest["shape"])), ("labels", 8)):
            path, row = folder / f"{split}.{kind}", 0
            with open(path, "rb") as file:
                for shard in manifest["splits"][split]["shards"]:
                    digest, left = hashlib.sha256(), shard["images"] * size
                    while left and (chunk := file.read(min(CHUNK, left))):
                        digest.update(chunk)
                        left -= len(chunk)
                    if digest.hexdigest() != shard[kind]:
                        raise ValueError(
                            f"{path} is altered: rows {row} to {row + shard['images'] - 1} have SHA-256 "
                            f"{digest.hexdigest()[:12]}..., expected {shard[kind][:12]}...{again(folder)}"
                        )
                    row += shard["images"]


def again(folder: Path) -> str:
    """What to do about a damaged file."""
    return f"; delete {folder} and prepare it again from its source"
