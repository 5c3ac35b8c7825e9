"""Data: toy distributions in the plane, and real images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fmcore.data import toy
from fmcore.data.celeba import celeba64
from fmcore.data.cifar10 import cifar10
from fmcore.data.digits import digits
from fmcore.data.files import default_folder
from fmcore.data.image_folder import image_folder
from fmcore.data.imagenet import imagenet
from fmcore.data.images import ImageData, dequantize, scale, to_uint8
from fmcore.data.verification import verify_prepared
from fmcore.validation import unknown_name

__all__ = [
    "NAMES",
    "ImageData",
    "by_name",
    "celeba64",
    "cifar10",
    "default_folder",
    "dequantize",
    "digits",
    "image_folder",
    "imagenet",
    "scale",
    "to_uint8",
    "toy",
    "verify_prepared",
]

_KNOWN: dict[str, Callable[[Path | None], ImageData]] = {
    "digits": lambda folder: digits(),
    "cifar10": cifar10,
    "imagenet32": lambda folder: imagenet(32, folder),
    "imagenet64": lambda folder: imagenet(64, folder),
    "imagenet128": lambda folder: imagenet(128, folder),
    "celeba64": celeba64,
}
NAMES = tuple(_KNOWN)


def by_name(name: str, folder: Path | None = None) -> ImageData:
    """The images of that name; see the function of each data set for what it expects and raises.

    Args:
        name: one of NAMES.
        folder: of the data set, or None for its own in `default_folder`. The digits need none.

    Raises:
        ValueError: on an unknown name; the known ones are listed.
    """
    if name not in _KNOWN:
        raise unknown_name("data set", name, _KNOWN)
    return _KNOWN[name](folder)
