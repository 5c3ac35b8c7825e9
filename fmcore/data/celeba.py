"""CelebA (Liu et al. 2015) at 64 pixels, from the aligned and cropped photographs of 178x218 pixels."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fmcore.data.files import default_folder
from fmcore.data.images import ImageData
from fmcore.data.manifest import MANIFEST
from fmcore.data.mapped import load
from fmcore.data.photographs import Reduction, is_held_out, photograph_shards, photographs_in
from fmcore.data.plain_files import read_plain
from fmcore.data.prepared import obtain
from fmcore.data.recipe import Recipe

PHOTOGRAPHS = "img_align_celeba"
SPLIT_FILE = "list_eval_partition.txt"
HELD_OUT = 0.1  # of the photographs, without the official split, in which the test part is a tenth
SIZE = 64
PIXELS = (178, 218)


def celeba64(
    folder: Path | str | None = None,
    prepared: Path | str | None = None,
    crop: int = 148,
    skip_broken: bool = False,
    verify: bool = False,
    progress: bool = True,
) -> ImageData:
    """CelebA as uint8 of shape (n, 3, 64, 64), mapped from files that are prepared at the first call; all labels are 0.

    A square of crop x crop pixels is cut from the middle and reduced with a box filter: each pixel is the mean of its
    area. With list_eval_partition.txt the official training part (162,770 images) is trained on, the test part (19,962)
    is held out, and the validation part is left out. Without it a tenth, chosen by the hash of the names, is held out.

    Args:
        folder: holds img_align_celeba/*.jpg, or is that folder; or was prepared before, and is loaded as it is. None is
            celeba/ in `fmcore.data.default_folder`.
        prepared: where the prepared files go (2.3 GB). None is celeba64/ in `fmcore.data.default_folder`.
        crop: side of the square: 148 and 140 are in use.
        skip_broken, verify, progress: as for `fmcore.data.imagenet`.

    Raises:
        FileNotFoundError: if there is no data.
        OSError: if the disk is full; what is done is kept.
        ValueError: if a file is damaged or altered, or the prepared files are of another source or settings.
    """
    if not SIZE <= crop <= min(PIXELS):
        raise ValueError(f"crop must be in {SIZE}..{min(PIXELS)}, got {crop}")
    source = default_folder() / "celeba" if folder is None else Path(folder).expanduser()
    if (source / MANIFEST).exists():
        return load(source, "celeba64", verify)
    target = default_folder() / "celeba64" if prepared is None else Path(prepared).expanduser()
    there = source.is_dir()
    if not there and (folder is not None or not (target / MANIFEST).exists()):
        raise FileNotFoundError(
            f"{source} is not there: celeba64 is prepared from a folder with {PHOTOGRAPHS}/*.jpg and {SPLIT_FILE} "
            "(https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html); name it as folder"
        )
    recipe = partial(describe, source, crop, skip_broken)
    settings = {"filter": "box", "crop": crop}
    return obtain(target, "celeba64", settings, [source] if there else [], recipe, verify, progress)


def describe(source: Path, crop: int, skip_broken: bool) -> Recipe:
    """How to prepare the photographs in the folder; raises as `celeba64`."""
    photographs = source / PHOTOGRAPHS if (source / PHOTOGRAPHS).is_dir() else source
    files = photographs_in(photographs, photographs)
    if not files:
        raise FileNotFoundError(f"{photographs} holds no photographs, expected {PHOTOGRAPHS}/000001.jpg and so on")
    lists = [path for path in (source / SPLIT_FILE, photographs.parent / SPLIT_FILE) if path.exists()]
    if lists:
        parts = read_split(lists[0])
        here = {file.name for file in files}
        for odd, where in (
            (sorted(here - {*parts}), f"is not in {lists[0]}"),
            (sorted({*parts} - here), f"is in {lists[0]}, but not there"),
        ):
            if odd:
                raise ValueError(
                    f"{photographs / odd[0]} {where} (as {len(odd) - 1:,} more): unpack the photographs again, or "
                    f"remove {lists[0].name} to hold out a tenth by the hash of the names"
                )
        train, held_out = ([file for file in files if parts[file.name] == part] for part in (0, 2))
    else:
        train, held_out = (
            [file for file in files if is_held_out(file.name, HELD_OUT) == chosen] for chosen in (False, True)
        )
    if not train or not held_out:
        raise ValueError(
            f"{photographs} has {len(train)} photographs to train on and {len(held_out)} to hold out: too few"
        )
    reduction = Reduction(SIZE, crop, PIXELS)
    shards = (
        photograph_shards(photographs, part, [0] * len(part), reduction, skip_broken) for part in (train, held_out)
    )
    return Recipe((3, SIZE, SIZE), (), *shards)


def read_split(path: Path) -> dict[str, int]:
    """The official part of each photograph: 0 to train on, 1 for validation, 2 for the test; raises ValueError."""
    parts = {}
    try:
        text = read_plain(path).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text ({error}): get the file again") from error
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
            raise ValueError(f"{path}, line {number}: {line!r} is not a name and 0, 1 or 2: get the file again")
        parts[fields[0]] = int(fields[1])
    return parts
