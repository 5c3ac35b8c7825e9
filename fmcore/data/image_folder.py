"""Images of one's own: any tree of folders with images as a data set."""

from __future__ import annotations

import hashlib
import operator
import os
from functools import partial
from numbers import Real
from pathlib import Path

import numpy as np

from fmcore.data.files import default_folder
from fmcore.data.image_tree import Part, part_of, splits, walk
from fmcore.data.images import ImageData
from fmcore.data.manifest import MANIFEST
from fmcore.data.mapped import load
from fmcore.data.photographs import Reduction, is_held_out, photograph_shards
from fmcore.data.prepared import obtain
from fmcore.data.recipe import Block, Recipe, Shard, SourceFile
from fmcore.data.verification import SOURCES
from fmcore.validation import check_count

NAME = "folder"
SIZES = (4, 512)
FEWEST = 2  # images of each split


def image_folder(
    folder: Path | str,
    size: int,
    prepared: Path | str | None = None,
    held_out: float = 0.1,
    skip_broken: bool = False,
    verify: bool = False,
    progress: bool = True,
) -> ImageData:
    """The images of a folder as uint8 (n, 3, size, size), mapped from files that are prepared at the first call.

    Images are .jpg, .jpeg, .png and .webp files; others, and hidden ones, are passed over. Folders directly in the
    folder are the classes, in sorted order, and all that lies below one belongs to it. If there are only images, all
    labels are 0 and classes is empty. With train/ and val/ (or else test/) these are the splits, and the classes lie
    in them. Otherwise a share of the images is held out, chosen by the hash of their names relative to the folder: more
    images change nothing for those that were there.

    Each image is turned upright as its EXIF data say, becomes RGB as in `fmcore.data.colours.as_rgb`, and is cut to the
    square of its shorter side in the middle. The square is reduced with Pillow's box filter, each pixel the mean of its
    area, or enlarged if it is smaller. Of an animation the first picture is taken. An RGB image of size x size pixels
    that is stored without loss keeps its pixels.

    Args:
        folder: of the images; or was prepared before, and is loaded as it is. It need not exist any more once it is
            prepared in the place of its own.
        size: an even number of pixels from 4 to 512.
        prepared: where the prepared files go, outside of folder. None is a place of its own for each folder and size in
            `fmcore.data.default_folder`, see `place_of`. An interrupted preparation goes on at the next call.
        held_out: the share that is held out, between 0 and 1; not used where there are splits.
        skip_broken: leave out what does not decode or is no file; the manifest lists it.
        verify: compare all bytes with the manifest's checksums (done once after the preparation in any case), and the
            folder's files with their list. Otherwise changes in the folder after the preparation are not noticed.
        progress: show a bar while preparing.

    Raises:
        FileNotFoundError: if the folder is not there.
        OSError: if the disk is full, or a file cannot be read; what is done is kept.
        ValueError: if the folder has another form, a file is damaged or altered, there are fewer than two images to
            train on or to hold out, or the prepared files are of another source or settings.
    """
    size, held_out = _checked_size(size), _checked_share(held_out)
    if folder is None or not str(folder):
        raise ValueError(f"folder={folder!r}: name the folder of the images")
    source = Path(folder).expanduser()
    if is_prepared(source):
        data = load(source, NAME, verify)
        if data.shape != (3, size, size):
            raise ValueError(
                f"{source} holds images prepared at {data.shape[-1]} pixels, not {size}: write size={data.shape[-1]}, "
                "or name the folder of the images themselves"
            )
        return data
    target = place_of(source, size) if prepared is None else Path(prepared).expanduser()
    there = source.is_dir()
    if source.exists() and not there:
        raise ValueError(f"{source} is a file: name the folder that the images lie in")
    if not there and (prepared is not None or not (target / MANIFEST).exists()):
        raise FileNotFoundError(f"{source} is not there: name a folder of images, with a folder for each class in it")
    if there and target.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"the prepared files would go to {target}, among the images: name another place as prepared")
    settings = {"size": size, "filter": "box", "crop": True, "exif": True, "held_out": held_out}
    recipe = partial(describe, size, source, held_out, skip_broken)
    data = obtain(target, NAME, settings, [source] if there else [], recipe, verify, progress)
    if min(len(data.train), len(data.held_out)) < FEWEST:
        raise ValueError(
            f"{target} holds {len(data.train)} images to train on and {len(data.held_out)} held-out ones, since others "
            f"do not decode ({MANIFEST} lists them), and at least {FEWEST} of each are needed: replace those images, "
            "delete this folder of prepared files, and prepare it again"
        )
    return data


def is_prepared(folder: Path) -> bool:
    """Whether a folder holds prepared files. A manifest.json alone is somebody else's: many things are called that."""
    beside = ("train.pixels", "held_out.pixels", "train.labels", "held_out.labels", SOURCES)
    return (folder / MANIFEST).exists() and any((folder / name).exists() for name in beside)


def place_of(folder: Path, size: int) -> Path:
    """Where the prepared files of a folder go by default: folder-NAME-SIZE-HASH, with a hash of its resolved path."""
    whole = folder.resolve()
    # A name may have 255 bytes, four a letter.
    return default_folder() / f"{NAME}-{whole.name[:50]}-{size}-{hashlib.sha256(os.fsencode(whole)).hexdigest()[:8]}"


def describe(size: int, source: Path, held_out: float, skip_broken: bool) -> Recipe:
    """How to prepare what is in the folder; raises as `image_folder`."""
    tree = walk(source)
    train, validation = splits(tree)
    used = (train, *([validation] if validation else []))
    odd = {name: reason for name, reason in tree.odd.items() if name.startswith(used)}
    if odd and not skip_broken:
        raise ValueError(f"{next(iter(odd.values()))}; or leave out what cannot be read with skip_broken=True")
    first = part_of(tree, train)
    if validation:
        second = part_of(tree, validation)
        check_classes(first, second, source / train, source / validation)
    else:
        first, second = divided(first, held_out)
    n, m = len(first.files), len(second.files)
    if min(n, m) < FEWEST:
        advice = "add images" if validation else f"add images, or hold out another share than held_out={held_out:g}"
        raise ValueError(
            f"{source} gives {n} image{'s' * (n != 1)} to train on and {m} to hold out, and at least {FEWEST} of each "
            f"are needed: {advice}"
        )
    reduction = Reduction(size, upright=True)
    place = {name: label for label, name in enumerate(first.classes)}
    shards = [
        photograph_shards(source, part.files, [place.get(name, 0) for name in part.class_of], reduction, skip_broken)
        for part in (first, second)
    ]
    if odd:
        nothing = partial(left_out, size, tuple(odd.values()))
        shards[0].append(Shard(tuple(SourceFile(name, 0) for name in odd), 0, nothing))
    return Recipe((3, size, size), first.classes, *shards)


def check_classes(train: Part, held_out: Part, train_folder: Path, held_out_folder: Path) -> None:
    """Raise ValueError unless each class that is held out is also trained on."""
    unknown = sorted({*held_out.classes} - {*train.classes})
    if unknown:
        raise ValueError(
            f"{held_out_folder / unknown[0]} is a class that {train_folder} does not have: is it another data set?"
        )
    if train.classes and not held_out.classes:
        raise ValueError(
            f"{held_out_folder} holds images without classes, and {train_folder} has {train.classes[0]}/ and so on: "
            "sort them into the same folders"
        )


def divided(part: Part, share: float) -> tuple[Part, Part]:
    """The images to train on, and those that are held out: a choice by the name of each alone."""
    chosen = [is_held_out(file.name, share) for file in part.files]

    def those(wanted: bool) -> Part:
        rows = [row for row, held_out in enumerate(chosen) if held_out == wanted]
        return Part(tuple(part.files[row] for row in rows), part.classes, tuple(part.class_of[row] for row in rows))

    return those(False), those(True)


def left_out(size: int, reasons: tuple[str, ...]) -> Block:
    """No images, and why there are none."""
    return Block(np.empty((0, 3, size, size), np.uint8), np.empty(0, np.int64), reasons)


def _checked_size(size: int) -> int:
    low, high = SIZES
    check_count("size", size, "pixels", low)
    size = operator.index(size)
    if size > high or size % 2:
        near = min(size + size % 2, high)
        raise ValueError(f"size is {size}: it must be an even number from {low} to {high}, for example size={near}")
    return size


def _checked_share(held_out: float) -> float:
    if not isinstance(held_out, Real) or isinstance(held_out, bool) or not 0 < held_out < 1:
        raise ValueError(f"held_out={held_out!r}: it is the share that is held out, between 0 and 1, such as 0.1")
    return float(held_out)
