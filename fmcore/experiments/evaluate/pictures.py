"""The picture of a run: samples beside real images, and how noise becomes an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fmcore.data.images import to_uint8
from fmcore.experiments.drawing import save, save_squares, show, tiled
from fmcore.training import seeded_generator

if TYPE_CHECKING:
    from fmcore.experiments.evaluate.exact_velocity import Hybrids
    from fmcore.experiments.run.finished import Run


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
    start = seeded_generator(run.configuration.evaluation.evaluation_seed, "journeys")
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
