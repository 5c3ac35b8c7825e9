"""Measurements that are the same for every run on one data set, kept between runs: a classifier, reference moments.

They lie in the folder `metrics` of the data cache, one safetensors file each, named by what they follow from. A file
that is missing or damaged is made again; a folder that cannot be written costs only time.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from fmcore import distributed
from fmcore.atomic import write_file
from fmcore.data.files import default_folder
from fmcore.data.images import ImageData

ROWS_IN_FINGERPRINT = 1000

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


def cached(name: str, make: Callable[[], Tensors], folder: Path | None = None) -> Tensors:
    """The tensors of that name: read if they were kept, else made and kept.

    Under torchrun all processes call this; process 0 reads and writes, and either all of them make the tensors
    together or none does.

    Args:
        name: a file name without ending, which says everything that the tensors follow from.
        make: makes them.
        folder: None for `metrics` in the data cache.
    """
    file = (default_folder() / "metrics" if folder is None else folder) / f"{name}.safetensors"
    found = distributed.first(lambda: read(file))
    if found is None:
        found = {key: tensor.detach().cpu().contiguous() for key, tensor in make().items()}
        distributed.first(lambda: write(file, found))
    return found


def read(file: Path) -> Tensors | None:
    """The tensors in a file; None if it is not there or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(file.read_bytes())
    except (OSError, SafetensorError):
        return None


def write(file: Path, tensors: Tensors) -> None:
    """Keep tensors for the next run; says so on stderr if that is not possible."""
    from safetensors.torch import save

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, save(tensors))
    except OSError as error:
        print(f"not kept for the next run: {error}", file=sys.stderr)
