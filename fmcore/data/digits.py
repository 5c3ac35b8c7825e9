"""The data set that needs no download: 1,797 handwritten digits of 8x8 pixels with 17 grey levels.

They come with scikit-learn (the test part of "Optical Recognition of Handwritten Digits", Alpaydin and Kaynak 1998).
Each pixel counts how many of the 4x4 points of a finer scan are ink, hence the 17 levels 0, 1, ..., 16.
"""

from __future__ import annotations

import gzip
import hashlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fmcore.data.images import ImageData

LEVELS = 17
TRAIN_IMAGES = 1500
SHA256 = "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"  # of the pixels, uint8, in stored order


def digits() -> ImageData:
    """The digits, as uint8 of shape (n, 1, 8, 8) with values 0..16: 1,500 to train on and 297 held out.

    The split is the same on every machine.

    Raises:
        ValueError: if the pixels are not the ones this package was tested with.
    """
    table = torch.from_numpy(read_table())
    pixels, labels = table[:, :-1].reshape(-1, 8, 8).to(torch.uint8), table[:, -1].to(torch.int64)
    check_pixels(pixels)
    order = torch.tensor(shuffled(len(pixels)))
    train, held_out = order[:TRAIN_IMAGES], order[TRAIN_IMAGES:]
    images = pixels.unsqueeze(1)
    return ImageData("digits", images[train], images[held_out], labels[train], labels[held_out], LEVELS)


def read_table() -> NDArray[np.floating]:
    """One row a digit: 64 pixels and the label, as in the file that scikit-learn reads.

    The file is read where it lies. Loading scikit-learn for it would take a second of every program that starts.
    """
    package = find_spec("sklearn")
    for folder in (package.submodule_search_locations or []) if package else []:
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return _numbers(file).copy()
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.column_stack([bunch.data, bunch.target])


@lru_cache
def _numbers(file: Path) -> NDArray[np.floating]:
    """The table in a file, which is read once: a program that loads many runs loads the digits as often."""
    with gzip.open(file, "rt") as lines:
        return np.loadtxt(lines, delimiter=",")


@lru_cache
def shuffled(n: int) -> tuple[int, ...]:
    """0..n-1 ordered by a hash: a shuffle that no change of a random generator can alter."""
    return tuple(sorted(range(n), key=lambda index: hashlib.sha256(f"digit {index}".encode()).digest()))


def check_pixels(pixels: torch.Tensor) -> None:
    """Raise ValueError unless the uint8 pixels are the expected ones, byte for byte."""
    found = hashlib.sha256(pixels.contiguous().numpy().tobytes()).hexdigest()
    if found != SHA256:
        raise ValueError(
            f"the digits that scikit-learn holds are not the expected ones (sha256 of the pixels {found[:12]}..., "
            f"expected {SHA256[:12]}...): its data file is damaged or was replaced. "
            "Reinstall it with: pip install --force-reinstall --no-deps scikit-learn"
        )
