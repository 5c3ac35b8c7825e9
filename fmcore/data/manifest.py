"""The manifest of a prepared data set: what its files are, and a check of its form before anything is believed.

manifest.json                    what it is: shape, classes, settings, and the SHA-256 of each shard (a run of rows)
train.pixels, held_out.pixels    (n, C, H, W) uint8, row after row
train.labels, held_out.labels    (n,) int64, little-endian
sources.txt                      the files that it was made from; see `fmcore.data.prepared`
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from fmcore.data.plain_files import file_size, read_json

FORMAT = 1
MANIFEST = "manifest.json"
SPLITS = ("train", "held_out")
FIELDS = {"format": int, "name": str, "shape": list, "classes": list, "settings": dict, "splits": dict}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared folder, after a check of its form and of the sizes of all files.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is truncated, or the manifest is damaged.
    """
    path = folder / MANIFEST
    manifest = read_description(path)
    for split in SPLITS:
        if count(manifest, split) < 1:
            raise ValueError(f"{path} is damaged (ValueError: a split without images){again(folder)}")
    for name, expected in file_sizes(manifest).items():
        file = folder / name
        try:
            found = file_size(file)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{file} is missing, expected {expected:,} bytes{again(folder)}") from error
        if found != expected:
            raise ValueError(
                f"{file} has {found:,} bytes, expected {expected:,}: it is truncated or altered{again(folder)}"
            )
    return manifest


def read_description(path: Path) -> dict[str, Any]:
    """A manifest, or the journal of one that is not finished, with all fields of their types.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is damaged, with the field.
    """
    try:
        found: dict[str, Any] = read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}{again(path.parent)}") from error
    try:
        check_form(found)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}){again(path.parent)}") from error
    return found


def check_form(found: Any) -> None:
    """Raise KeyError, TypeError or ValueError, naming the field, unless this is the content of a manifest."""
    _require("the content", found, dict)
    for field, kind in FIELDS.items():
        _require(field, found[field], kind)
    if found["format"] != FORMAT:
        raise ValueError(f"format {found['format']}, this package reads {FORMAT}")
    if len(found["shape"]) != 3:
        raise ValueError(f"shape is {found['shape']}, expected three numbers")
    for side in found["shape"]:
        _require("a number of shape", side, int)
        if side < 1:
            raise ValueError(f"shape is {found['shape']}, expected numbers from 1")
    for name in found["classes"]:
        _require("a name of classes", name, str)
    for place in _require("sources", found.get("sources", []), list):
        _require("a folder of sources", place, str)
    if "sources_sha256" in found:
        _check_digest("sources_sha256", found["sources_sha256"])
    for split in SPLITS:
        noted = _require(f"splits.{split}", found["splits"][split], dict)
        for sentence in _require(f"splits.{split}.broken", noted.get("broken", []), list):
            _require(f"a sentence of splits.{split}.broken", sentence, str)
        for shard in _require(f"splits.{split}.shards", noted["shards"], list):
            _require(f"a shard of splits.{split}", shard, dict)
            if _require("images", shard["images"], int) < 0:
                raise ValueError(f"images is {shard['images']}")
            for part in ("pixels", "labels"):
                if part in shard:
                    _check_digest(part, shard[part])


def file_sizes(manifest: dict[str, Any]) -> dict[str, int]:
    """The size in bytes of each file of pixels and labels."""
    return {
        f"{split}.{kind}": count(manifest, split) * size
        for split in SPLITS
        for kind, size in row_bytes(manifest["shape"]).items()
    }


def row_bytes(shape: list[int] | tuple[int, ...]) -> dict[str, int]:
    """The bytes of one row of the pixels and of the labels."""
    return {"pixels": math.prod(shape), "labels": 8}


def count(manifest: dict[str, Any], split: str) -> int:
    """The number of images of a split, by its manifest or journal."""
    return sum(shard["images"] for shard in manifest["splits"][split]["shards"])


def again(folder: Path) -> str:
    """What to do about a damaged file."""
    return f"; delete {folder} and prepare it again from its source"


def _require(name: str, value: Any, kind: type) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name} is {str(value)[:50]!r} ({type(value).__name__}), not a {kind.__name__}")
    return value


def _check_digest(name: str, value: Any) -> None:
    if not re.fullmatch("[0-9a-f]{64}", _require(name, value, str)):
        raise ValueError(f"{name} is {value[:70]!r}, not a SHA-256 in hexadecimal")
