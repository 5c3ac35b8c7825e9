"""A Gaussian without the frequencies that the data lack.

Lee et al. 2025 (arXiv 2512.18184): cut images into blocks of 8 x 8 pixels, in luminance and two colour differences, and
take the discrete cosine transform of each. Coefficients that hardly vary over the data, with |mean| < 0.1 and variance
below 2 ("weak") or 4 ("strong") on the scale of 0 to 255, are set to 0, in the noise and in the data. The noise is then
standardized.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fmcore.sources.checks import check_shape, drawing_device
from fmcore.validation import check_finite, check_floating, unknown_name

SIDE = 8
# Luminance and colour differences of red and blue (ITU-R BT.601), without the offset that keeps them positive.
LUMINANCE = (0.299, 0.587, 0.114)
TO_COLOUR_DIFFERENCES = torch.tensor(
    [
        LUMINANCE,
        tuple(0.713 * ((1.0 if k == 0 else 0.0) - LUMINANCE[k]) for k in range(3)),
        tuple(0.564 * ((1.0 if k == 2 else 0.0) - LUMINANCE[k]) for k in range(3)),
    ],
    dtype=torch.float64,
)
VARIANCE_BELOW = {"weak": 2.0, "strong": 4.0}
MEAN_BELOW = 0.1


def cosine_matrix(side: int = SIDE) -> Tensor:
    """The orthonormal DCT-II, (side, side) float64: row k is sqrt(2 / side) cos(pi (j + 1/2) k / side)."""
    k, j = torch.arange(side, dtype=torch.float64)[:, None], torch.arange(side, dtype=torch.float64)
    rows = math.sqrt(2 / side) * torch.cos(math.pi * (j + 0.5) * k / side)
    rows[0] /= math.sqrt(2)
    return rows


def block_coefficients(images: Tensor) -> Tensor:
    """DCT of the blocks of images (n, C, H, W): (n, C, H / 8, W / 8, 8, 8), in the same dtype.

    The three channels of colour images become Y, Cr, Cb; the one of grey images is Y already.
    """
    n, channels, height, width = images.shape
    turned = images if channels == 1 else torch.einsum("dc,nchw->ndhw", TO_COLOUR_DIFFERENCES.to(images), images)
    blocks = turned.reshape(n, channels, height // SIDE, SIDE, width // SIDE, SIDE).transpose(3, 4)
    matrix = cosine_matrix().to(images)
    return matrix @ blocks @ matrix.T


def from_block_coefficients(coefficients: Tensor) -> Tensor:
    """The inverse of `block_coefficients`."""
    n, channels, rows, columns, _, _ = coefficients.shape
    matrix = cosine_matrix().to(coefficients)
    blocks = (matrix.T @ coefficients @ matrix).transpose(3, 4).reshape(n, channels, rows * SIDE, columns * SIDE)
    if channels == 1:
        return blocks
    return torch.einsum("cd,ndhw->nchw", torch.linalg.inv(TO_COLOUR_DIFFERENCES).to(coefficients), blocks)


def check_blocks(shape: tuple[int, ...]) -> None:
    """Raise ValueError unless images of this shape have one or three channels and can be cut into blocks."""
    if len(shape) != 3 or shape[0] not in (1, 3) or shape[1] % SIDE or shape[2] % SIDE:
        raise ValueError(f"images have shape {shape}: blocks need (3, H, W) or (1, H, W), H and W multiples of {SIDE}.")


@dataclass(frozen=True, eq=False)
class DCT:
    """Gaussian noise of standard deviation 1 without masked frequencies.

    Attributes:
        shape: (C, H, W), C 3 or 1, H and W multiples of 8.
        kept: (C, 8, 8) bool, the frequencies of Y, Cr and Cb, or of Y alone, that stay.
        std: standard deviation of unit noise after masking, over all numbers; samples are divided by it.
    """

    shape: tuple[int, ...]
    kept: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        check_blocks(self.shape)
        channels = self.shape[0]
        if self.kept.shape != (channels, SIDE, SIDE) or self.kept.dtype != torch.bool or not bool(self.kept.any()):
            raise ValueError(f"kept must be booleans ({channels}, {SIDE}, {SIDE}), not all of them False.")
        # Masking is linear: with B the transform of one block, the variance of B^-1 M B noise is that of its rows.
        unit = torch.eye(channels * SIDE * SIDE, dtype=torch.float64).view(-1, channels, SIDE, SIDE)
        object.__setattr__(self, "_std", float(self.masked(unit).square().sum() / len(unit)) ** 0.5)

    @property
    def std(self) -> float:
        """Standard deviation of unit noise after masking."""
        return self._std  # type: ignore[attr-defined]

    @classmethod
    def fit(cls, data: Tensor, strength: str = "weak") -> DCT:
        """Mask the frequencies that hardly vary over images (n, C, H, W) in [-1, 1].

        Raises:
            ValueError: for an unknown strength, images of another shape, or values that are not finite.
            TypeError: for whole numbers: scale images to [-1, 1] first.
        """
        if strength not in VARIANCE_BELOW:
            raise unknown_name("strength", strength, VARIANCE_BELOW)
        if data.ndim != 4 or len(data) == 0:
            raise ValueError(f"data has shape {tuple(data.shape)}: pass images (n, C, H, W), at least one.")
        check_blocks(tuple(data.shape[1:]))
        check_floating("data", data)
        check_finite("data", data)
        count, total = 0, torch.zeros(data.shape[1], SIDE, SIDE).double()
        square = torch.zeros_like(total)
        for part in data.split(1000):
            found = block_coefficients(127.5 * part.double()).transpose(1, 3).flatten(0, 2)  # (blocks, C, 8, 8)
            count, total, square = count + len(found), total + found.sum(0), square + found.square().sum(0)
        mean = total / count
        faint = (mean.abs() < MEAN_BELOW) & (square / count - mean.square() < VARIANCE_BELOW[strength])
        return cls(tuple(data.shape[1:]), ~faint)

    def masked(self, images: Tensor) -> Tensor:
        """Images (n, C, H, W) without the masked frequencies: what training data become.

        Raises:
            ValueError: for images of another number of channels, or that cannot be cut into blocks.
            TypeError: for whole numbers, which cannot hold what is left: scale images to [-1, 1] first.
        """
        if images.ndim != 4 or images.shape[1] != len(self.kept):
            raise ValueError(f"images have shape {tuple(images.shape)}: pass (n, {len(self.kept)}, H, W).")
        check_blocks(tuple(images.shape[1:]))
        check_floating("images", images)
        return from_block_coefficients(block_coefficients(images) * self.kept[:, None, None].to(images))

    def sample(
        self, n: int, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Draw n samples, (n, C, H, W) float32, on the device (by default the generator's)."""
        device = drawing_device(n, generator, device)
        return self.masked(torch.randn(n, *self.shape, generator=generator, device=device)) / self.std

    def log_prob(self, x: Tensor) -> Tensor:
        """Not known where frequencies are missing: samples lie in a subspace, which has no volume.

        Raises:
            ValueError: always, unless every frequency is kept.
        """
        check_shape(x, self.shape)
        if not bool(self.kept.all()):
            raise ValueError("samples without some frequencies fill a subspace only: they have no density.")
        return -x.flatten(1).square().sum(dim=1) / 2 - math.prod(self.shape) * math.log(2 * math.pi) / 2
