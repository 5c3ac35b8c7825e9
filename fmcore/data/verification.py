"""Whether the files of a prepared data set are still those that were written: every byte against its checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fmcore.data.files import CHUNK, file_digest
from fmcore.data.manifest import SPLITS, again, count, read_manifest, row_bytes
from fmcore.data.plain_files import open_plain

SOURCES = "sources.txt"
SMALL = 2**26  # bytes of a file that is compared at every load: less than a tenth of a second of computing


def verify_prepared(folder: Path | str) -> list[str]:
    """Read all files of a prepared folder and compare them with the checksums of its manifest.

    Args:
        folder: of the prepared files, which holds manifest.json.

    Returns:
        one sentence for each file, or run of rows, that is missing, altered or has no checksum; empty if all is well.
    """
    folder = Path(folder).expanduser()
    try:
        manifest = read_manifest(folder)
        found = [f"{name} carries no checksums{again(folder)}" for name in without_digests(folder, manifest)]
        found += list(altered(folder, manifest))
        for split in SPLITS:
            found += odd_labels(folder, manifest, split, read_labels(folder, manifest, split))
        return found + _altered_sources(folder, manifest)
    except (OSError, ValueError) as error:
        return [str(error)]


def check_shards(folder: Path, manifest: dict[str, Any], most: int | None = None) -> None:
    """Raise ValueError naming the first file and rows whose bytes do not have the checksum of the manifest.

    most: bytes of the largest file that is read; None reads all.
    """
    for sentence in altered(folder, manifest, most):
        raise ValueError(sentence)


def altered(folder: Path, manifest: dict[str, Any], most: int | None = None) -> Iterator[str]:
    """A sentence for each run of rows whose bytes do not have their checksum; rows without one are passed over."""
    for split in SPLITS:
        for kind, size in row_bytes(manifest["shape"]).items():
            path, row = folder / f"{split}.{kind}", 0
            if most is not None and count(manifest, split) * size > most:
                continue
            with open_plain(path) as file:
                for shard in manifest["splits"][split]["shards"]:
                    digest, left = hashlib.sha256(), shard["images"] * size
                    while left and (chunk := file.read(min(CHUNK, left))):
                        digest.update(chunk)
                        left -= len(chunk)
                    if kind in shard and digest.hexdigest() != shard[kind]:
                        yield (
                            f"{path} is altered: rows {row} to {row + shard['images'] - 1} have SHA-256 "
                            f"{digest.hexdigest()[:12]}..., expected {shard[kind][:12]}...{again(folder)}"
                        )
                    row += shard["images"]


def without_digests(folder: Path, manifest: dict[str, Any]) -> list[Path]:
    """The files of which some rows have no checksum in the manifest."""
    return [
        folder / f"{split}.{kind}"
        for split in SPLITS
        for kind in ("pixels", "labels")
        if any(kind not in shard for shard in manifest["splits"][split]["shards"])
    ]


def read_labels(folder: Path, manifest: dict[str, Any], split: str) -> np.ndarray:
    """The labels of a split, (n,) int64; raises ValueError if the file was cut meanwhile."""
    path = folder / f"{split}.labels"
    labels = np.fromfile(path, dtype="<i8").astype(np.int64)
    if len(labels) != count(manifest, split):
        raise ValueError(f"{path} has {len(labels):,} labels, expected {count(manifest, split):,}{again(folder)}")
    return labels


def odd_labels(folder: Path, manifest: dict[str, Any], split: str, labels: np.ndarray) -> list[str]:
    """A sentence if a label is not the number of a class."""
    top = max(1, len(manifest["classes"])) - 1
    if labels.min() >= 0 and labels.max() <= top:
        return []
    return [f"{folder / split}.labels holds labels outside 0..{top}{again(folder)}"]


def _altered_sources(folder: Path, manifest: dict[str, Any]) -> list[str]:
    if "sources_sha256" not in manifest or file_digest(folder / SOURCES) == manifest["sources_sha256"]:
        return []
    return [f"{folder / SOURCES} is altered: it does not have the SHA-256 of the manifest{again(folder)}"]
