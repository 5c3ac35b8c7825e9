"""Grids of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fmcore.course import style
from fmcore.course.plotting.points import _panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def images(
    batch: Tensor,
    *,
    columns: int | None = None,
    low: float | None = None,
    high: float | None = None,
    titles: Sequence[str] | None = None,
    rows: Sequence[str] | None = None,
    width: float | None = None,
    title: str = "",
    ax: Any = None,
) -> Figure:
    """A grid of images, row by row.

    batch: (n, C, H, W) with C = 1 or 3, or (n, H, W); uint8 shows 0..255, floats show [-1, 1].
    columns: images per row. low, high: the values drawn black and white (digits of 17 levels: 0 and 16).
    titles: one per column, above it. rows: one per row, at its left.
    """
    batch = batch.detach().cpu()
    if batch.ndim == 3:
        batch = batch[:, None]
    if batch.ndim != 4 or batch.shape[1] not in (1, 3):
        raise ValueError(f"images must be (n, 1 or 3, H, W) or (n, H, W), got {tuple(batch.shape)}")
    whole = not batch.dtype.is_floating_point
    low = low if low is not None else (0.0 if whole else -1.0)
    high = high if high is not None else (255.0 if whole else 1.0)
    scaled = ((batch.float() - low) / (high - low)).clamp(0, 1).nan_to_num()
    n, channels, h, w = scaled.shape
    columns = columns or (len(titles) if titles else min(n, 10))
    count = -(-n // columns)
    gap = max(1, round(h * 0.06))
    sheet = torch.ones(channels, count * (h + gap) - gap, columns * (w + gap) - gap)
    for i in range(n):
        top, left = (i // columns) * (h + gap), (i % columns) * (w + gap)
        sheet[:, top : top + h, left : left + w] = scaled[i]
    wide = width if width is not None else min(style.WIDTH, 0.9 * columns)
    figure, ax = _panel(
        ax, width=wide, height=wide * sheet.shape[1] / sheet.shape[2] + (0.35 if title or titles else 0.1)
    )
    factor = max(1, 64 // h)  # enlarge by whole pixels, so that small images keep sharp edges
    sheet = sheet.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    picture = sheet[0] if channels == 1 else sheet.permute(1, 2, 0)
    ax.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.grid(False)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    if titles:
        ax.xaxis.tick_top()
        ax.set_xticks([(i * (w + gap) + w / 2) * factor for i in range(len(titles))], list(titles))
    if rows:
        ax.set_yticks([(i * (h + gap) + h / 2) * factor for i in range(len(rows))], list(rows))
    ax.set_title(title)
    return figure
