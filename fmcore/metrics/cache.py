"""Measurements that are the same for every run on one data set, kept between runs: a classifier, reference moments.

They lie in the folder `metrics` of the data cache, one safetensors file each, named by what they follow from: the data
set, and the recipe by which they are made. Beside the tensors, a file holds its own name and a digest of the tensors.
What does not agree with them is made again: a damaged file, one that was put there under another's name, or one of an
earlier version of this package, which wrote no digest. A folder that cannot be written costs only time.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from fmcore import digests, distributed
from fmcore.atomic import write_file
from fmcore.data.files import default_folder
from fmcore.data.images import ImageData

ROWS_IN_FINGERPRINT = 1000
DIGITS_OF_RECIPE = 12  # hexadecimal ones, in the name of a file
LENGTH = 8  # bytes before the header of a safetensors file, which say how long it is

Tensors = dict[str, Tensor]


def fingerprint(data: ImageData) -> str:
    """A checksum (hexadecimal) of the split sizes and of 1,000 images and labels of each, evenly spread.

    Reading all of a large data set would take minutes; another data set, split or order is noticed all the same.
    """
    digest = hashlib.sha256(f"{data.name} {data.levels} {data.shape}".encode())
    for images, labels in ((data.train, data.train_labels), (data.held_out, data.held_out_labels)):
        rows = torch.linspace(0, len(images) - 1, min(len(images), ROWS_IN_FINGERPRINT)).long()
        digest.update(f" {len(images)} ".encode())
        digest.update(images[rows].contiguous().numpy().tobytes())
        digest.update(labels[rows].contiguous().numpy().tobytes())
    return digest.hexdigest()


def cached(name: str, make: Callable[[], Tensors], folder: Path | None = None, recipe: object = None) -> Tensors:
    """The tensors of that name: read if they were kept, else made and kept.

    Under torchrun all processes call this; process 0 reads and writes, and either all of them make the tensors
    together or none does. A file that cannot be used is named on stderr and made again.

    Args:
        name: a file name without ending, which says for whom the tensors are.
        make: makes them.
        folder: None for `metrics` in the data cache.
        recipe: plain values (`digests.of_settings`) that say how they are made. Their digest becomes part of the file's
            name, so that what another recipe made is another file.
    """
    if recipe is not None:
        name = f"{name}-recipe{digests.of_settings(recipe)[:DIGITS_OF_RECIPE]}"
    file = (default_folder() / "metrics" if folder is None else folder) / f"{name}.safetensors"
    found = distributed.first(lambda: read(file))
    if found is None:
        found = {key: tensor.detach().cpu().contiguous() for key, tensor in make().items()}
        distributed.first(lambda: write(file, found))
    return found


def read(file: Path) -> Tensors | None:
    """The tensors in a file; None if it is not there, or if what it holds is not what was kept, which stderr says."""
    try:
        return _as_kept(file.read_bytes(), file.stem)
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = error.strerror or str(error)
    except ValueError as error:
        reason = str(error)
    print(f"warning: {file} cannot be used ({reason}): what it is for is made again", file=sys.stderr)
    return None


def write(file: Path, tensors: Tensors) -> None:
    """Keep tensors for the next run, with their digest; says so on stderr if that is not possible."""
    from safetensors.torch import save

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, save(tensors, {"name": file.stem, "digest": digests.of_tensors(tensors)}))
    except OSError as error:
        print(f"not kept for the next run: {error}", file=sys.stderr)


def _as_kept(content: bytes, name: str) -> Tensors:
    """The tensors in the bytes of a file; raises ValueError with the reason if they are not those that were kept."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(content)
        length = int.from_bytes(content[:LENGTH], "little")
        said = json.loads(content[LENGTH : LENGTH + length]).get("__metadata__") or {}
    # Beside its own error, safetensors lets through those of sizes and kinds of numbers that do not fit together.
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError("it is damaged") from error
    if "digest" not in said:
        raise ValueError("it holds no digest, as files of earlier versions do not")
    if said.get("name") != name:
        raise ValueError(f"it was kept as {said.get('name')}")
    if said["digest"] != digests.of_tensors(tensors):
        raise ValueError("it is damaged: its values are not those of its digest")
    return tensors
