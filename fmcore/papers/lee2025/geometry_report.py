"""The geometry of images for people: its picture, and the table of its values.

`fmcore measure lee2025/geometry/DATA`; see `fmcore.papers.lee2025.geometry`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fmcore.experiments.drawing import INK, MUTED, plain
from fmcore.papers.blocks import show_blocks
from fmcore.papers.lee2025.geometry import Measured
from fmcore.papers.lee2025.geometry_table import NOTES, TITLES, block_of, of_paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS, THEIRS = "#1F4E8C", "#C4551A"


def geometry_figure(found: Measured) -> Figure:
    """The share of noise near rejected ends against the threshold, and full and empty ends and clusters as images."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = [
        ("Ends of axes that images come nearest to, and the largest cosine", found.full, cosines(found.full_cosines)),
        ("Rejected ends, from the nearest to the emptiest", found.empty, cosines(found.empty_cosines)),
    ]
    if len(found.centres):
        of = found.record["values"]["clusters"]
        shares = [f"{100 * of[f'share of cluster {k + 1}']['value']:.0f}%" for k in range(len(found.centres))]
        groups.append(("Mean directions of clusters, and the share of images", found.centres, shares))
    figure = Figure(figsize=(12, 1.46 * len(groups) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.2], wspace=0.03, squeeze=False)[0]
    settings, about = found.record["configuration"], found.record["measurement"]
    mirrored = " and their mirror images" if settings["flips"] else ""
    figure.suptitle(
        f"{TITLES[settings['data']]}, {about['images']:,} training images{mirrored}",
        x=0.008,
        ha="left",
        fontsize=13,
        color=INK,
    )
    shares_panel(left.subplots(), found.record)
    for part, (title, images, labels) in zip(
        right.subfigures(len(groups), 1, squeeze=False)[:, 0], groups, strict=True
    ):
        images_row(part, title, images, labels)
    return figure


def shares_panel(axes: Axes, record: dict[str, Any]) -> None:
    """One line a set of images: the share of rejected noise against the threshold, and the paper's as circles."""
    settings, curves = record["configuration"], record["curves"]
    for (version, curve), dashes in zip(curves.items(), ((), (4, 2)), strict=False):
        lines = axes.plot(curve["thresholds"], curve["rejected_share"], color=OURS, linewidth=2.2, label=version)
        if dashes:
            lines[0].set(dashes=dashes, linewidth=1.6, alpha=0.75)
    paper = [(float(of), share / 100) for (what, of), share in of_paper(settings["data"]).items() if "percent" in what]
    if paper:
        axes.plot(
            *zip(*paper, strict=True),
            "o",
            color="white",
            markeredgecolor=THEIRS,
            markeredgewidth=2,
            markersize=8,
            label="the paper",
            zorder=3,
        )
    threshold = settings["threshold"]
    axes.axvline(threshold, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label=f"sampling at {threshold:g}")
    rising = [
        at
        for curve in curves.values()
        for at, share in zip(curve["thresholds"], curve["rejected_share"], strict=True)
        if share > 0.001
    ]
    axes.set(
        xlim=(min(*rising, threshold) * 0.97, max(rising) * 1.02), ylim=(0, 1.04), yticks=[0, 0.2, 0.4, 0.6, 0.8, 1]
    )
    axes.set(xlabel="threshold: cosine of noise with a rejected end", ylabel="share of noise")
    axes.set_title("Rejected noise", loc="left", fontsize=11, color=INK)
    axes.grid(color="#E6E9ED", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(loc="upper right", frameon=False, fontsize=9.5, labelspacing=0.7)
    plain(axes)


def images_row(figure: Any, title: str, images: Tensor, labels: Sequence[str]) -> None:
    """Images in a row below a title, each stretched around grey as far as it goes, with its label below."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK)
    places = figure.subplots(1, 6)
    for axes in places:
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_visible(False)
    for axes, image, label in zip(places, images, labels, strict=False):
        shown = (0.5 + 0.5 * image / image.abs().max().clamp(min=1e-12)).permute(1, 2, 0).squeeze(2)
        axes.imshow(shown.clamp(0, 1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_xlabel(label, fontsize=9.5, color=INK, labelpad=3)


def cosines(values: Tensor) -> list[str]:
    """Two digits of each, below an image."""
    return [f"{value:#.2g}" for value in values.tolist()]


def show_values(record: dict[str, Any]) -> None:
    """Print what was measured beside the paper."""
    show_blocks("Lee et al. 2025, geometry of images", [block_of(record)], NOTES)
