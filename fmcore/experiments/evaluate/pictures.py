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
    from fmcore.experiments.run.samples import Samples

MOST_CLASSES = 12  # that have a column each


def samples_figure(run: Run, generated: Samples, file: Path, columns: int = 8) -> None:
    """Save a picture: a sheet of generated images, one of held-out ones, and three samples on their way from noise.

    Where the network knows classes, each has a column, of both sheets. Without matplotlib it is the two sheets alone.
    """
    data, steps = run.data, columns
    nfe = round(float(generated.nfe.mean()))
    made, real = generated.images, data.held_out
    if generated.labels is not None and data.num_classes <= MOST_CLASSES:
        sheets = by_class(generated.labels, data.num_classes), by_class(data.held_out_labels, data.num_classes)
        if all(len(rows) for rows in sheets):  # else a class is missing in one of them
            columns, made, real = data.num_classes, made[sheets[0]], real[sheets[1]]
    count = min(columns * min(columns, 8), len(made), len(real))
    try:
        from matplotlib.figure import Figure
    except ImportError:
        save_squares([made[:count], real[:count]], columns, file, data.levels)
        return
    figure = Figure(figsize=(9, 6.6), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=[columns, 3.6])
    panels = [
        (grid[0, 0], made[:count], columns, f"generated ({nfe} network evaluations)"),
        (grid[0, 1], real[:count], columns, "real, held out from training"),
    ]
    for place, images, across, title in panels:
        show(figure.add_subplot(place), tiled(images, across), title, data.levels)

    times = torch.linspace(0, run.path.t_max, 2 * steps + 1, dtype=torch.float64)
    start = seeded_generator(run.configuration.evaluation.evaluation_seed, "journeys")
    journeys = run.sample(3, start, times=times).trajectory
    assert journeys is not None
    journeys = journeys.cpu()
    states = to_uint8(journeys / journeys.abs().amax(dim=(1, 2, 3, 4), keepdim=True).clamp(min=1), data.levels)
    axes = figure.add_subplot(grid[1, :])
    show(axes, tiled(states.transpose(0, 1).flatten(0, 1), len(times)), "from noise to images", data.levels)
    width = data.shape[2] + 1
    axes.set_xticks([width * place + width / 2 for place in (0, steps, 2 * steps)], ["t = 0", "t = 1/2", "t = 1"])

    save(figure, file)


def by_class(labels: Tensor, classes: int) -> Tensor:
    """Rows in which the classes 0, 1, ..., classes - 1 follow each other, over and over, as long as there are all."""
    of_each = [torch.nonzero(labels == label).flatten() for label in range(classes)]
    least = min(len(rows) for rows in of_each)
    return torch.stack([rows[:least] for rows in of_each], dim=1).flatten()


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
