"""Preparing a data set once, into the files that `fmcore.data.mapped` reads.

The work is cut into shards. A shard is read, its rows are appended and flushed to the disk, and only then is it noted
in journal.json. A preparation that was killed, or ran into a full disk, cuts the files back to what the journal notes
and goes on from there. The manifest is written last, in one step: without it nothing is loaded.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fmcore.atomic import write_file
from fmcore.data.files import waiting_for
from fmcore.data.images import ImageData
from fmcore.data.mapped import FORMAT, MANIFEST, SPLITS, again, count, load, read_manifest, verify_shards

JOURNAL = "journal.json"
SOURCES = "sources.txt"


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


def obtain(
    folder: Path,
    name: str,
    settings: dict[str, Any],
    sources: list[Path],
    recipe: Callable[[], Recipe],
    verify: bool = False,
    progress: bool = True,
) -> ImageData:
    """The data set in a prepared folder; it is prepared first if it is not there in full.

    Args:
        folder: of the prepared files.
        name: of the data set.
        settings: all that decides what becomes of the source's files, as JSON.
        sources: folders of the source's files; empty if they are not there.
        recipe: lists the source's files; called only when needed.
        verify: compare all bytes with the checksums, and the source's files, where it is there, with their list.
        progress: show a bar.

    Raises:
        OSError: if the disk is full; what is done is kept, and another call goes on from there.
        ValueError: if a file is damaged, or the folder was prepared from another source or with other settings.
    """
    if not (folder / MANIFEST).exists():
        with waiting_for(folder, f"preparing {name} in {folder}"):
            if not (folder / MANIFEST).exists():
                prepare(folder, name, settings, sources, recipe(), progress)
    manifest = read_manifest(folder)
    if manifest["name"] == name:
        check_settings(folder, manifest["settings"], settings)
    # Listing a million files takes a while: a source at the place where it was is taken to be the same.
    if sources and (verify or manifest.get("sources") != resolved(sources)):
        check_sources(folder, source_list(recipe()))
    return load(folder, name, verify)


def prepare(
    folder: Path, name: str, settings: dict[str, Any], sources: list[Path], recipe: Recipe, progress: bool
) -> None:
    """Do what is left to do, and write the manifest. The caller holds the folder's lock; raises as `obtain`."""
    journal = start(folder, name, settings, sources, recipe)
    shards = {split: getattr(recipe, split) for split in SPLITS}
    left = {split: shards[split][len(journal["splits"][split]["shards"]) :] for split in SPLITS}
    total = sum(shard.images for split in SPLITS for shard in shards[split])
    to_do = sum(shard.images for split in SPLITS for shard in left[split])
    check_room(folder, to_do * (math.prod(recipe.shape) + 8))

    from tqdm import tqdm

    with tqdm(total=total, initial=total - to_do, desc=name, unit=" images", disable=not progress) as bar:
        for split in SPLITS:
            for shard in left[split]:
                append(folder, split, shard.read(), journal, recipe.shape)
                bar.update(shard.images)
            if count(journal, split) == 0:
                raise ValueError(f"{name}: no image of the source's {split} split could be read")
    verify_shards(folder, journal)
    write_file(folder / MANIFEST, as_json(journal))
    (folder / JOURNAL).unlink()


def start(folder: Path, name: str, settings: dict[str, Any], sources: list[Path], recipe: Recipe) -> dict[str, Any]:
    """The journal: a new one, or that of an interrupted preparation, with the files cut back to what it notes."""
    path = folder / JOURNAL
    listing = source_list(recipe)
    if not path.exists():
        write_file(folder / SOURCES, listing)
        fresh = {
            "format": FORMAT,
            "name": name,
            "shape": list(recipe.shape),
            "classes": list(recipe.classes),
            "settings": settings,
            "sources": resolved(sources),
            "sources_sha256": hashlib.sha256(listing).hexdigest(),
            "splits": {split: {"shards": [], "broken": []} for split in SPLITS},
        }
        write_file(path, as_json(fresh))
    try:
        journal: dict[str, Any] = json.loads(path.read_bytes())
        check_settings(folder, {"name": journal["name"], **journal["settings"]}, {"name": name, **settings})
        sizes = {split: count(journal, split) for split in SPLITS}
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}){again(folder)}") from error
    check_sources(folder, listing)
    for split in SPLITS:
        for kind, size in (("pixels", math.prod(recipe.shape)), ("labels", 8)):
            with open(folder / f"{split}.{kind}", "ab") as file:
                if file.tell() < sizes[split] * size:
                    raise ValueError(f"{file.name} is shorter than {JOURNAL} says: it is altered{again(folder)}")
                file.truncate(sizes[split] * size)
    return journal


def append(folder: Path, split: str, block: Block, journal: dict[str, Any], shape: tuple[int, int, int]) -> None:
    """Add a shard to the files, and then to the journal."""
    if block.pixels.shape[1:] != shape or block.pixels.dtype != np.uint8 or len(block.pixels) != len(block.labels):
        raise ValueError(f"a shard has pixels {block.pixels.shape} {block.pixels.dtype} and {len(block.labels)} labels")
    entry: dict[str, Any] = {"images": len(block.pixels)}
    try:
        for kind, array in (("pixels", block.pixels), ("labels", block.labels.astype("<i8"))):
            content = np.ascontiguousarray(array).data.cast("B") if len(array) else b""
            entry[kind] = hashlib.sha256(content).hexdigest()
            with open(folder / f"{split}.{kind}", "ab") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        noted = journal["splits"][split]
        noted["shards"].append(entry)
        noted["broken"].extend(block.broken)
        write_file(folder / JOURNAL, as_json(journal))
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write {split}.{kind} in {folder}: {error.strerror}; the {count(journal, split):,} images of this "
            "split before it are kept: make room and run again to go on from there",
        ) from error


def check_room(folder: Path, needed: int) -> None:
    """Raise OSError before hours of work if the disk cannot hold the result."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"{folder} needs {needed / 1e9:,.2f} GB more and its disk has {free / 1e9:,.2f} GB left: make room, or "
            "name a folder on another disk",
        )


def check_settings(folder: Path, saved: dict[str, Any], asked: dict[str, Any]) -> None:
    """Raise ValueError naming what differs between the settings of a prepared folder and those asked for."""
    different = [key for key in {**saved, **asked} if saved.get(key) != asked.get(key)]
    if different:
        listed = ", ".join(f"{key} (was {saved.get(key)}, now {asked.get(key)})" for key in different)
        raise ValueError(
            f"{folder} was prepared with other settings: {listed}; name another folder, or delete this one"
        )


def source_list(recipe: Recipe) -> bytes:
    """One line a file, with split, size and name, and an empty line after each shard: the plan of a preparation."""
    lines = []
    for split in SPLITS:
        for shard in getattr(recipe, split):
            lines += [f"{split} {file.size} {json.dumps(file.name)}" for file in shard.files] + [""]
    return "\n".join([*lines, ""]).encode()


def check_sources(folder: Path, now: bytes) -> None:
    """Raise ValueError naming the files in which a source differs from the one that a folder was prepared from."""
    path = folder / SOURCES
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing{again(folder)}")
    before = path.read_bytes()
    if before == now:
        return
    was, found = sizes(before), sizes(now)
    names = sorted(name for name in {**was, **found} if was.get(name) != found.get(name))
    differences = [f"{name} ({was.get(name, 'no')} bytes then, {found.get(name, 'no')} now)" for name in names[:3]]
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    raise ValueError(
        f"the source is not the one that {folder} was prepared from: {', '.join(differences) or 'another order'}{more}"
        "; put the files back, or delete the folder and prepare it again"
    )


def sizes(listing: bytes) -> dict[str, str]:
    """The size of each file in a list of `source_list`, by split and name."""
    rows = [line.split(" ", 2) for line in listing.decode().split("\n") if line]
    return {f"{split} {json.loads(name)}": size for split, size, name in rows}


def resolved(folders: list[Path]) -> list[str]:
    """Where folders are, as text."""
    return [str(folder.resolve()) for folder in folders]


def as_json(content: dict[str, Any]) -> bytes:
    """As a file to be read by people too."""
    return json.dumps(content, indent=1).encode()
