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
from pathlib import Path
from typing import Any

import numpy as np

from fmcore.atomic import cannot, write_file
from fmcore.data.files import waiting_for
from fmcore.data.images import ImageData
from fmcore.data.manifest import FORMAT, MANIFEST, SPLITS, again, count, read_description, read_manifest, row_bytes
from fmcore.data.mapped import load
from fmcore.data.plain_files import advice
from fmcore.data.recipe import Block, Recipe
from fmcore.data.source_list import check_sources, resolved, source_list
from fmcore.data.verification import SOURCES, check_shards

JOURNAL = "journal.json"


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
    check_shards(folder, journal)
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
    journal = read_description(path)
    check_settings(folder, {"name": journal["name"], **journal["settings"]}, {"name": name, **settings})
    sizes = {split: count(journal, split) for split in SPLITS}
    check_sources(folder, listing)
    for split in SPLITS:
        for kind, size in row_bytes(recipe.shape).items():
            with open(folder / f"{split}.{kind}", "ab") as file:
                if file.tell() < sizes[split] * size:
                    raise ValueError(f"{file.name} is shorter than {JOURNAL} says: it is altered{again(folder)}")
                try:
                    file.truncate(sizes[split] * size)
                except OSError as error:
                    raise cannot("cut", folder / f"{split}.{kind}", error) from error
    return journal


def append(folder: Path, split: str, block: Block, journal: dict[str, Any], shape: tuple[int, int, int]) -> None:
    """Add a shard to the files, and then to the journal."""
    if block.pixels.shape[1:] != shape or block.pixels.dtype != np.uint8 or len(block.pixels) != len(block.labels):
        raise ValueError(f"a shard has pixels {block.pixels.shape} {block.pixels.dtype} and {len(block.labels)} labels")
    entry: dict[str, Any] = {"images": len(block.pixels)}
    name = JOURNAL
    try:
        for kind, array in (("pixels", block.pixels), ("labels", block.labels.astype("<i8"))):
            content = np.ascontiguousarray(array).data.cast("B") if len(array) else b""
            entry[kind] = hashlib.sha256(content).hexdigest()
            name = f"{split}.{kind}"
            with open(folder / name, "ab") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        name = JOURNAL
        noted = journal["splits"][split]
        noted["shards"].append(entry)
        noted["broken"].extend(block.broken)
        write_file(folder / JOURNAL, as_json(journal))
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write {name} in {folder}: {error.strerror}; the {count(journal, split):,} images of this split "
            f"before it are kept, and another run goes on from there{advice(error)}",
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


def as_json(content: dict[str, Any]) -> bytes:
    """As a file to be read by people too."""
    return json.dumps(content, indent=1).encode()
