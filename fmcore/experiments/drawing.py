"""Drawing that several pictures share: sheets of images, colours, and files that are written in full or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fmcore.atomic import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_IMAGES = 10_000  # in one picture; of digits that is 9,000 pixels square
INK, MUTED = "#1F2328", "#6E7781"


def save_grid(images: Tensor, file: Path, levels: int, columns: int | None = None) -> None:
    """Save whole-number images (n, C, H, W) as one picture, whose format follows from the file's name.

    Args:
        images: in rows, from left to right.
        file: to write.
        levels: grey levels.
        columns: images in a row; None for a nearly square picture.

    Raises:
        ValueError: for more than 10,000 images; `save_grids` makes several pictures of them.
    """
    from matplotlib.figure import Figure

    if len(images) > MOST_IMAGES:
        raise ValueError(
            f"{len(images):,} images: a picture holds at most {MOST_IMAGES:,}; pass the first of them, "
            f"images[:{MOST_IMAGES}], or make several pictures with save_grids"
        )

    columns = columns or max(1, round(len(images) ** 0.5))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(0.6 * columns + 0.2, 0.6 * rows + 0.2), layout="constrained")
    show(figure.add_subplot(), tiled(images, columns), None, levels)
    save(figure, file)


def numbered(file: Path, number: int) -> Path:
    """The file of the part `number` (from 1) of a picture that is too large for one: a.png, a-2.png, a-3.png, ..."""
    return file if number == 1 else file.with_name(f"{file.stem}-{number}{file.suffix}")


def save_grids(images: Tensor, file: Path, levels: int, first: int = 1) -> list[Path]:
    """Save any number of images as `save_grid` does, at most 10,000 in a file; returns the files, as `numbered`.

    Args:
        images: (n, C, H, W) whole numbers.
        file: of the first picture.
        levels: grey levels.
        first: number of the first picture, where others were written before.
    """
    files = []
    for number, part in enumerate(images.split(MOST_IMAGES), first):
        files.append(numbered(file, number))
        save_grid(part, files[-1], levels)
    return files


def save_squares(sets: Sequence[Tensor], columns: int, file: Path, levels: int) -> None:
    """Save sets of images side by side as a PNG, each pixel at least twice as large as it is, without any text."""
    import io

    from PIL import Image

    sheets = [(tiled(images, columns) / (levels - 1)).nan_to_num(1.0) for images in sets]
    gap = torch.ones(*sheets[0].shape[:2], max(2, sheets[0].shape[2] // 20))
    whole = torch.cat([part for sheet in sheets for part in (sheet, gap)][:-1], dim=2)
    times = max(2, round(1000 / whole.shape[2]))
    pixels = (255 * whole).round().to(torch.uint8).expand(3, -1, -1).permute(1, 2, 0)
    buffer = io.BytesIO()
    large = pixels.repeat_interleave(times, 0).repeat_interleave(times, 1).contiguous()
    Image.fromarray(large.numpy()).save(buffer, format="PNG")
    write_file(file, buffer.getvalue())


def tiled(images: Tensor, columns: int) -> Tensor:
    """Images (n, C, H, W) in rows, with one empty pixel between them: float (C, height, width), NaN where empty."""
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    sheet = torch.full((channels, rows * (height + 1) + 1, columns * (width + 1) + 1), torch.nan)
    for place, image in enumerate(images):
        top, left = place // columns * (height + 1) + 1, place % columns * (width + 1) + 1
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def show(axes: Any, sheet: Tensor, title: str | None, levels: int) -> None:
    """Draw a sheet of `tiled` images without axes."""
    white = (sheet / (levels - 1)).nan_to_num(1.0).permute(1, 2, 0).squeeze(2).numpy()
    axes.imshow(white, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if title:
        axes.set_title(title, fontsize=11, loc="left")


def save(figure: Any, file: Path) -> None:
    """Write a figure in full or not at all.

    Raises:
        ValueError: on a picture format that does not exist; the known ones are listed.
    """
    import io

    kind = check_picture(file)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=150)
    write_file(file, buffer.getvalue())


def check_picture(file: Path) -> str:
    """The picture format that a file's name ends in; raises as `save`."""
    from matplotlib.backend_bases import FigureCanvasBase

    known = FigureCanvasBase.get_supported_filetypes()
    kind = file.suffix.lstrip(".").lower()
    if kind not in known:
        raise ValueError(f"{file.name} names no picture format: end it in .png, or one of {', '.join(sorted(known))}")
    return kind


def plain(axes: Axes) -> None:
    """Axes on two sides only, in grey."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=10)
