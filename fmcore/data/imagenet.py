"""ImageNet (Russakovsky et al. 2015) at 32, 64 or 128 pixels, from photographs or from the down-sampled release.

Photographs lie in train/<wnid>/*.JPEG and, if they are there, val/<wnid>/*.JPEG. The down-sampled release
(Chrabaszcz et al. 2017) in its npz form is train_data_batch_1.npz to train_data_batch_10.npz and val_data.npz.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from fmcore.data import npz
from fmcore.data.files import default_folder
from fmcore.data.images import ImageData
from fmcore.data.manifest import MANIFEST
from fmcore.data.mapped import load
from fmcore.data.photographs import Reduction, is_held_out, photograph_shards, photographs_in
from fmcore.data.plain_files import open_plain
from fmcore.data.prepared import obtain
from fmcore.data.recipe import Block, Recipe, Shard, SourceFile

SIZES = (32, 64, 128)
HELD_OUT = 0.05  # of the photographs, when there is no val
BATCHES = [f"train_data_batch_{k}" for k in range(1, 11)]
VALIDATION = "val_data"
CLASSES = 1000  # of the down-sampled release


def imagenet(
    size: int,
    folder: Path | str | None = None,
    held_out_folder: Path | str | None = None,
    prepared: Path | str | None = None,
    crop: bool = True,
    skip_broken: bool = False,
    verify: bool = False,
    progress: bool = True,
) -> ImageData:
    """ImageNet as uint8 of shape (n, 3, size, size), mapped from files that are prepared at the first call.

    Photographs are cut to the square of their shorter side in the middle, and reduced with Pillow's box filter, each
    pixel the mean of its area: the "box" filter of Chrabaszcz et al. 2017. Their release has no cut, it squeezes the
    whole photograph into the square; crop=False does that. A photograph smaller than size is enlarged. Labels are the
    places of the wnids in sorted order. Without val, 5 per cent of the photographs, chosen by the hash of their names,
    are held out.

    From the npz files nothing is recomputed. Labels are those of the release minus one; their order is not that of the
    sorted wnids, so classes are named "1" to "1000".

    Args:
        size: 32, 64 or 128.
        folder: of the photographs (holds train/) or of the npz files; or was prepared before, and is loaded as
            it is. None is imagenet/ in `fmcore.data.default_folder`, and need not exist once the data is prepared.
        held_out_folder: of the held-out photographs or of val_data.npz, if they are not with the others.
        prepared: where the prepared files go. None is imagenet32/ (64, 128) in `fmcore.data.default_folder`. The full
            set takes 4, 16 or 65 GB; an interrupted preparation goes on at the next call.
        crop: see above; only for photographs.
        skip_broken: leave out photographs that do not decode; the manifest lists them.
        verify: compare all bytes with the manifest's checksums (done once after the preparation in any case), and the
            source's files with their list.
        progress: show a bar while preparing.

    Raises:
        FileNotFoundError: if there is no data.
        OSError: if the disk is full; what is done is kept.
        ValueError: if a file is damaged, altered or pickled, or the prepared files are of another source or settings.
    """
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(map(str, SIZES))}, got {size}")
    name = f"imagenet{size}"
    source = default_folder() / "imagenet" if folder is None else Path(folder).expanduser()
    if (source / MANIFEST).exists():
        return load(source, name, verify)
    target = default_folder() / name if prepared is None else Path(prepared).expanduser()
    held_out = None if held_out_folder is None else Path(held_out_folder).expanduser()
    there = source.is_dir()
    if not there and (folder is not None or not (target / MANIFEST).exists()):
        raise FileNotFoundError(
            f"{source} is not there: {name} is prepared from a folder with train/<wnid>/*.JPEG or the npz files of the "
            "down-sampled release (register at https://image-net.org/download-images); name it as folder"
        )
    if held_out is not None and there and not held_out.is_dir():
        raise FileNotFoundError(f"{held_out} is not there: name a folder with <wnid>/*.JPEG or {VALIDATION}.npz")
    settings = {"filter": "box", "crop": crop}
    sources = [source, *([held_out] if held_out else [])] if there else []
    recipe = partial(describe, size, source, held_out, crop, skip_broken)
    return obtain(target, name, settings, sources, recipe, verify, progress)


def describe(size: int, source: Path, held_out: Path | None, crop: bool, skip_broken: bool) -> Recipe:
    """How to prepare what is in the folder; raises as `imagenet`."""
    for batch in [*BATCHES, VALIDATION]:
        for folder in filter(None, (source, held_out)):
            if (folder / batch).is_file() and not (folder / f"{batch}.npz").exists():
                raise ValueError(
                    f"{folder / batch} is the pickled form of the down-sampled release, which is never read: "
                    f"unpickling a file runs the code in it. Get the npz form ({batch}.npz) from image-net.org"
                )
    if any(source.glob("*_data*.npz")):
        return describe_release(size, source, held_out)
    train = source / "train" if (source / "train").is_dir() else source
    validation = held_out or (source / "val" if (source / "val").is_dir() else None)
    return describe_photographs(Reduction(size, "shorter side" if crop else None), train, validation, skip_broken)


def describe_photographs(reduction: Reduction, train: Path, validation: Path | None, skip_broken: bool) -> Recipe:
    """From folders of photographs, one per class."""
    classes = class_folders(train)
    files, labels = labelled(train, classes)
    rows = range(len(files))
    chosen = {row for row in rows if validation is None and is_held_out(files[row].name, HELD_OUT)}
    shards = partial(photograph_shards, reduction=reduction, skip_broken=skip_broken)

    def part(rows: list[int]) -> list[Shard]:
        return shards(train, [files[row] for row in rows], [labels[row] for row in rows])

    if validation is None:
        held_out = part(sorted(chosen))
        if not held_out:
            raise ValueError(
                f"{train} has too few photographs ({len(files)}) to hold out {HELD_OUT:.0%}: add val/<wnid>/"
            )
    else:
        known = class_folders(validation)
        unknown = sorted({*known} - {*classes})
        if unknown:
            raise ValueError(
                f"{validation / unknown[0]} is a class that {train} does not have: is it another data set?"
            )
        held_out = shards(validation, *labelled(validation, known, classes))
    train_shards = part([row for row in rows if row not in chosen])
    return Recipe((3, reduction.size, reduction.size), tuple(classes), train_shards, held_out)


def class_folders(root: Path) -> list[str]:
    """The names of the folders in a folder, sorted; raises ValueError if there is none."""
    found = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not found:
        photographs = len(photographs_in(root, root))
        hint = f" (it holds {photographs:,} photographs: sort them into one folder a class)" if photographs else ""
        raise ValueError(
            f"{root} holds no folders of photographs{hint}: expected <wnid>/*.JPEG, as in n01440764/1.JPEG"
        )
    return found


def labelled(root: Path, folders: list[str], classes: list[str] | None = None) -> tuple[list[SourceFile], list[int]]:
    """The photographs of all classes and their labels; raises ValueError if a class has none."""
    place = {name: label for label, name in enumerate(classes or folders)}
    files: list[SourceFile] = []
    labels: list[int] = []
    for name in folders:
        found = photographs_in(root, root / name)
        if not found:
            raise ValueError(f"{root / name} holds no photographs (*.JPEG): get the class again, or remove its folder")
        files += found
        labels += [place[name]] * len(found)
    return files, labels


def describe_release(size: int, source: Path, held_out: Path | None) -> Recipe:
    """From the npz files of the down-sampled release: one shard a file."""
    places = [source / f"{batch}.npz" for batch in BATCHES] + [(held_out or source) / f"{VALIDATION}.npz"]
    missing = [path for path in places if not path.exists()]
    if missing:
        raise FileNotFoundError(
            f"{missing[0]} is missing, expected {BATCHES[0]}.npz to {BATCHES[-1]}.npz and {VALIDATION}.npz: get it "
            "from image-net.org, where larger sizes come in two parts"
        )
    shards = [ReleaseFile(path, size).shard() for path in places]
    return Recipe((3, size, size), tuple(str(label) for label in range(1, CLASSES + 1)), shards[:-1], shards[-1:])


@dataclass(frozen=True)
class ReleaseFile:
    """One npz file: data (n, 3 size size) uint8 and labels (n,) in 1..1000."""

    path: Path
    size: int

    def shard(self) -> Shard:
        """The work of reading it; raises ValueError if its arrays are not what the release holds, unread."""
        images = self.checked().shape[0]
        return Shard((SourceFile(self.path.name, self.path.stat().st_size),), images, self.read)

    def checked(self) -> npz.Header:
        """What data is, after a look at the headers alone: no memory is taken for what a file only claims."""
        width = 3 * self.size**2
        try:
            found = npz.headers(self.path, ("data", "labels"))
        except npz.Pickled as error:
            raise ValueError(
                f"{self.path} holds pickled objects, which are never read: unpickling a file runs the code in it. "
                "Get the npz form of the release from image-net.org again"
            ) from error
        except npz.DAMAGE as error:
            raise self.damaged(error) from error
        data, labels = found["data"], found["labels"]
        if len(data.shape) != 2 or data.shape[1] != width or data.shape[0] == 0 or data.dtype != np.uint8:
            raise ValueError(
                f"{self.path}: data is {data.shape} {data.dtype}, expected (n, {width}) uint8: another size?"
            )
        if labels.shape != data.shape[:1] or labels.dtype.kind not in "iuf":
            raise self.odd_labels(data.shape[0], f"{labels.shape} {labels.dtype}")
        return data

    def read(self) -> Block:
        """The images and labels; raises ValueError if they are not what the release holds."""
        self.checked()
        try:
            with open_plain(self.path) as file, np.load(file, allow_pickle=False) as arrays:
                data, labels = arrays["data"], arrays["labels"]
        except npz.DAMAGE as error:
            raise self.damaged(error) from error
        # NaN is not in the range either.
        odd = labels[~((labels >= 1) & (labels <= CLASSES) & (labels == np.floor(labels)))]
        if len(odd):
            raise self.odd_labels(len(data), f"{odd[0]} ({len(odd):,} such)")
        return Block(data.reshape(-1, 3, self.size, self.size), labels.astype(np.int64) - 1)

    def odd_labels(self, images: int, found: str) -> ValueError:
        """The error for labels that are not the whole numbers of the release."""
        return ValueError(f"{self.path}: labels must be {images} numbers in 1..{CLASSES}, got {found}: get it again")

    def damaged(self, error: Exception) -> ValueError:
        """The error for a file that cannot be read."""
        return ValueError(f"{self.path} is truncated or altered ({error}): get it again from image-net.org")
