"""A 3x3 convolution with a quarter of the multiplications (Winograd 1980; Lavin and Gray 2016).

The image is cut into tiles of 4x4 outputs, each of which needs 6x6 inputs. The product of two polynomials is found from
their values at a few points: a linear map takes a tile d to values, the same is done once to the weights g, values are
multiplied, and another linear map takes the products back,

    y = A^T [ (G g G^T) * (B^T d B) ] A,

36 products for 16 outputs in place of 144. Summed over the channels, they are 36 matrix products, one per value. The
two maps read and write each tile once: this pays for many channels, and where nobody else has done it, on the CPU.

It is made of pad, slices and matrix products only. PyTorch differentiates it as often and in whichever way is asked.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Small numbers of both signs, among them the inverse of one another: rounding errors are two thirds of those with the
# usual 0, 1, -1, 2, -2, and below those of adding the terms one by one. Libraries that add in blocks have smaller ones.
POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)
TILE, TAPS = 4, 3
SPAN = TILE + TAPS - 1  # inputs a tile, in each direction

# From here on it is faster, forward and backward: 1.4 times at 128 channels, 1.8 at 256 (two cores with AVX2), while 64
# channels gain nothing. With few tiles, making and reading the 36 values of each weight costs what the products save.
CHANNELS, TILES = 128, 64


class Convolution(nn.Conv2d):
    """A 3x3 convolution that keeps the size of the image, by Winograd's way where that is faster.

    Args:
        inputs, outputs: channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, TAPS, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, inputs, H, W) to (B, outputs, H, W)."""
        batch, inputs, height, width = x.shape
        pays = min(inputs, self.out_channels) >= CHANNELS and batch * height * width >= TILES * TILE**2
        fits = height % TILE == 0 and width % TILE == 0
        if pays and fits and on_cpu_in_float32(x):
            return winograd(x, self.weight, self.bias)
        return super().forward(x)


def on_cpu_in_float32(x: Tensor) -> bool:
    """Whether the arithmetic is that for which this pays: cuDNN chooses by itself, units for bfloat16 are faster."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


def winograd(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return conv2d(x, weight, bias, padding=1), with the channels innermost in memory.

    Args:
        x: (B, C, H, W), float32; H and W are divisible by 4.
        weight: (O, C, 3, 3).
        bias: (O,) or None.

    Returns:
        (B, O, H, W), in the memory format channels_last.
    """
    batch, inputs, height, width = x.shape
    outputs, rows, columns = len(weight), height // TILE, width // TILE
    tiles = batch * rows * columns

    # A tile is a block of 4x4 pixels and the two rows and columns after it. Cut from whole blocks, because the backward
    # pass of overlapping windows (Tensor.unfold) adds up pixel by pixel.
    d = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, TILE - 1, 1, TILE - 1)).unflatten(2, (columns + 1, TILE))
    d = torch.cat([d[:, :, :-1], d[:, :, 1:, : TAPS - 1]], dim=3)  # (B, H + 4, columns, 6, C)
    d = d.unflatten(1, (rows + 1, TILE)).transpose(2, 3)
    d = torch.cat([d[:, :-1], d[:, 1:, :, : TAPS - 1]], dim=3)  # (B, rows, columns, 6, 6, C)

    d = torch.bmm(FROM_INPUT.expand(tiles, -1, -1), d.reshape(tiles, SPAN**2, inputs))
    g = (FROM_WEIGHT @ weight.permute(2, 3, 0, 1).reshape(TAPS**2, -1)).view(SPAN**2, outputs, inputs)
    y = torch.bmm(d.transpose(0, 1), g.transpose(1, 2))  # (36, tiles, O): one matrix product for each of the 36 values
    y = torch.bmm(TO_OUTPUT.expand(tiles, -1, -1), y.transpose(0, 1))  # (tiles, 16, O)
    if bias is not None:
        y = y + bias
    y = y.view(batch, rows, columns, TILE, TILE, outputs).transpose(2, 3)
    return y.reshape(batch, height, width, outputs).permute(0, 3, 1, 2)


def maps() -> tuple[Tensor, Tensor, Tensor]:
    """Return the maps of tiles (36, 36), of weights (36, 9), and of products to outputs (16, 36).

    In one dimension, output k is sum_j d_(k + j) g_j. The transpose of that sum multiplies polynomials, which Lagrange
    interpolation at the points (and at infinity, the leading coefficient) does; all three maps are read off it.
    """
    points = torch.tensor(POINTS, dtype=torch.float64)
    outputs = torch.zeros(TILE, SPAN, dtype=torch.float64)
    weights = torch.zeros(SPAN, TAPS, dtype=torch.float64)
    inputs = torch.zeros(SPAN, SPAN, dtype=torch.float64)
    outputs[-1, -1] = weights[-1, -1] = 1
    for i, point in enumerate(points):
        others = torch.cat([points[:i], points[i + 1 :]])
        outputs[:, i] = point ** torch.arange(TILE)
        weights[i] = point ** torch.arange(TAPS) / (point - others).prod()
        inputs[i, :-1] = coefficients(others)
    inputs[-1] = coefficients(points)
    # The map of an image is the one of its rows, then the one of its columns.
    return tuple(torch.kron(one, one).float() for one in (inputs, weights, outputs))  # type: ignore[return-value]


def coefficients(roots: Tensor) -> Tensor:
    """Coefficients of the polynomial prod (x - root), the constant one first."""
    found = torch.ones(1, dtype=roots.dtype)
    for root in roots:
        found = F.pad(found, (1, 0)) - root * F.pad(found, (0, 1))
    return found


FROM_INPUT, FROM_WEIGHT, TO_OUTPUT = maps()
