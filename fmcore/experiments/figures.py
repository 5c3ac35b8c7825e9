"""The picture of a run: samples beside real images, and how noise becomes an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fmcore.atomic import write_file
from fmcore.data.images import to_uint8
from fmcore.training import derived_seed

if TYPE_CHECKING:
    from fmcore.experiments.oracle import Hybrids
    from fmcore.experiments.runner import Run


def samples_figure(run: Run, generated: Tensor, nfe: int, file: Path, columns: int = 8) -> None:
    """Save a picture: a square of generated images, one of held-out ones, and three samples on their way from noise.

    Without matplotlib it is the two squares alone.
    """
    data = run.data
    count = min(columns**2, len(generated), len(data.held_out))
    try:
        from matplotlib.figure import Figure
    except ImportError:
        save_squares([generated[:count], data.held_out[:count]], columns, file, data.levels)
        return
    figure = Figure(figsize=(9, 6.6), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=[columns, 3.6])
    panels = [
        (grid[0, 0], generated[:count], columns, f"generated ({nfe} network evaluations)"),
        (grid[0, 1], data.held_out[:count], columns, "real, held out from training"),
    ]
    for place, images, across, title in panels:
        show(figure.add_subplot(place), tiled(images, across), title, data.levels)

    times = torch.linspace(0, run.path.t_max, 2 * columns + 1, dtype=torch.float64)
    start = torch.Generator().manual_seed(derived_seed(run.configuration.evaluation.evaluation_seed, "journeys"))
    journeys = run.sample(3, start, times=times).trajectory
    assert journeys is not None
    journeys = journeys.cpu()
    states = to_uint8(journeys / journeys.abs().amax(dim=(1, 2, 3, 4), keepdim=True).clamp(min=1), data.levels)
    axes = figure.add_subplot(grid[1, :])
    show(axes, tiled(states.transpose(0, 1).flatten(0, 1), len(times)), "from noise to images", data.levels)
    width = data.shape[2] + 1
    axes.set_xticks([width * place + width / 2 for place in (0, columns, 2 * columns)], ["t = 0", "t = 1/2", "t = 1"])

    save(figure, file)


def hybrids_figure(run: Run, samples: Hybrids, file: Path, starts: int = 4) -> None:
    """Save a picture: one row a start, one column a switch; the last is what the exact velocity alone leads to."""
    from matplotlib.figure import Figure

    count = min(starts, len(samples.exact))
    columns, labels = samples.images[:, :count], [f"{switch:g}" for switch in samples.switches]
    if samples.switches[-1] < 1:
        columns, labels = torch.cat([columns, samples.exact[None, :count]]), [*labels, "1"]
    switches = len(columns)
    figure = Figure(figsize=(0.9 * switches + 0.4, 0.9 * count + 0.6), layout="constrained")
    axes = figure.add_subplot()
    images = to_uint8(columns.transpose(0, 1).flatten(0, 1), run.data.levels)
    show(axes, tiled(images, switches), None, run.data.levels)
    width = images.shape[-1] + 1
    axes.set_xticks([(k + 0.5) * width for k in range(switches)], labels, fontsize=9)
    axes.set_xlabel("the exact velocity u* up to this time, the network from there on", fontsize=10)
    save(figure, file)


def save_grid(images: Tensor, file: Path, levels: int) -> None:
    """Save whole-number images (n, C, H, W) as one nearly square picture, whose format follows from the file's name."""
    from matplotlib.figure import Figure

    columns = max(1, round(len(images) ** 0.5))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(0.6 * columns + 0.2, 0.6 * rows + 0.2), layout="constrained")
    show(figure.add_subplot(), tiled(images, columns), None, levels)
    save(figure, file)


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

    known = figure.canvas.get_supported_filetypes()
    kind = file.suffix.lstrip(".").lower()
    if kind not in known:
        raise ValueError(f"{file.name} names no picture format: end it in .png, or one of {', '.join(sorted(known))}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=150)
    write_file(file, buffer.getvalue())
