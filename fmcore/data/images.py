"""Images as whole numbers, and the one scale on which networks see them.

A pixel is a whole number k in {0, ..., levels - 1}. Networks and likelihoods work with real numbers in [-1, 1]. Both
use the same scale: the interval [-1, 1] is cut into `levels` bins of equal width, and bin k stands for grey level k.

    dequantize   y = 2 (k + u) / levels - 1,  u ~ U(0, 1)   a random place in the bin  (training, bits/dim)
    scale        y = 2 (k + 1/2) / levels - 1               the middle of the bin      (showing, measuring)
    to_uint8     k = floor(levels (y + 1) / 2)              which bin y lies in        (samples)

With 256 levels, dequantize is y = 2^-7 (k + u) - 1, the convention of Lipman et al. 2023 for bits/dim.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ImageData:
    """A set of labelled images with a fixed split.

    Attributes:
        name: of the data set.
        train, held_out: (n, C, H, W) uint8 with values in {0, ..., levels - 1}.
        train_labels, held_out_labels: (n,) int64.
        levels: grey levels of a pixel, 256 for 8-bit images.
        classes: the name of each label; empty where the data set gives none.

    The images of a large data set are mapped from a file: rows are read from the disk when they are used, and what is
    written to them stays in this process.
    """

    name: str
    train: Tensor
    held_out: Tensor
    train_labels: Tensor
    held_out_labels: Tensor
    levels: int = 256
    classes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width

    @property
    def num_classes(self) -> int:
        """Number of different labels, 0..num_classes - 1."""
        return len(self.classes) or int(self.train_labels.max()) + 1

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each label; its number where the data set gives none."""
        return self.classes or tuple(map(str, range(self.num_classes)))

    def scaled(self, images: Tensor) -> Tensor:
        """The middle of each pixel's bin, float32 in (-1, 1); see `scale`."""
        return scale(images, self.levels)

    def __repr__(self) -> str:
        return (
            f"ImageData({self.name!r}: {len(self.train)} train and {len(self.held_out)} held-out images of shape "
            f"{self.shape}, {self.levels} grey levels, {self.num_classes} classes)"
        )


def scale(images: Tensor, levels: int = 256) -> Tensor:
    """Whole-number images to the middle of their bins: 2 (k + 1/2) / levels - 1, float32 in (-1, 1).

    Raises:
        ValueError: if the images are not whole numbers in {0, ..., levels - 1}.
    """
    check_levels(images, levels)
    return (images.float() + 0.5) * (2 / levels) - 1


def dequantize(images: Tensor, levels: int = 256, generator: torch.Generator | None = None) -> Tensor:
    """Whole-number images to a random place in their bins: 2 (k + u) / levels - 1 with u ~ U(0, 1), float32 in [-1, 1].

    The noise turns a distribution over whole numbers into a density: the average of log density over u bounds the
    log-probability of the whole numbers from below (Theis et al. 2016). The noise is drawn on the generator's device.

    Raises:
        ValueError: if the images are not whole numbers in {0, ..., levels - 1}.
    """
    check_levels(images, levels)
    device = images.device if generator is None else generator.device
    noise = torch.rand(images.shape, generator=generator, device=device, dtype=torch.float32).to(images.device)
    return (images.float() + noise) * (2 / levels) - 1


def to_uint8(x: Tensor, levels: int = 256) -> Tensor:
    """The grey level of the bin that each value lies in, uint8; values outside [-1, 1] go to the nearest level.

    Undoes `scale` exactly, and `dequantize` up to the float32 rounding of values on the edge of a bin.

    Raises:
        ValueError: if a value is not finite.
    """
    if not torch.isfinite(x).all():
        raise ValueError("images hold values that are not finite (NaN or infinity): they have no grey level")
    return torch.floor((x.float() + 1) * (levels / 2)).clamp(0, levels - 1).to(torch.uint8)


def check_levels(images: Tensor, levels: int) -> None:
    """Raise ValueError unless the images are whole numbers in {0, ..., levels - 1}."""
    if images.is_floating_point():
        raise ValueError(
            f"expected whole-number pixels in 0..{levels - 1}, got {images.dtype}: these images look scaled already"
        )
    if images.dtype == torch.uint8 and levels >= 256:
        return  # nothing else fits into a byte, and a look at the values would wait for the device
    low, high = torch.stack(torch.aminmax(images)).tolist() if images.numel() else (0, 0)
    if low < 0 or high >= levels:
        raise ValueError(
            f"expected pixels in 0..{levels - 1}, got values from {low} to {high}: "
            "pass the number of grey levels of this data set as levels"
        )
