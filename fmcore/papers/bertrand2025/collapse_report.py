"""The collapse of the exact velocity for people: its picture, and tables of its values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fmcore.experiments.drawing import INK, MUTED, plain
from fmcore.papers.bertrand2025.collapse import label
from fmcore.papers.printing import values_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {
    "two_moons": "Two moons",
    "digits": "Digits",
    "cifar10": "CIFAR-10",
    "imagenet32": "ImageNet 32x32",
    "imagenet64": "ImageNet 64x64",
    "imagenet128": "ImageNet 128x128",
}


def collapse_figure(record: dict[str, Any]) -> Figure:
    """Figure 1 of Bertrand et al. 2025 from a record: histograms of the cosine, and the share of large ones against t.

    Left the largest size, one row a time; each row is as high as its tallest bar, since the first are wide and the last
    are all in one bin. Right one line a size, with a dot at the time of collapse.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.1])
    settings = record["configuration"]
    images = record["measurement"]["images"]
    kind = "points" if settings["data"] == "two_moons" else "images"
    figure.suptitle(
        f"{TITLES[settings['data']]}, {images:,} training {kind}", x=0.008, ha="left", fontsize=13, color=INK
    )
    histograms_panel(left, record["curves"][-1])
    shares_panel(right, record)
    return figure


def histograms_panel(axes: Axes, curve: dict[str, Any]) -> None:
    """One row a time, from the first on top, and the mean of each at its right end."""
    from matplotlib import colormaps

    edges, rows = curve["edges"], curve["histograms"]
    ground = range(len(rows) - 1, -1, -1)
    colors = colormaps["plasma"]
    for base, row in zip(ground, rows, strict=True):
        tallest = max(row["counts"])
        heights = [base + 0.78 * count / tallest for count in row["counts"]]
        color = colors(0.72 * (1 - row["t"]))
        axes.stairs(heights, edges, baseline=base, fill=True, color=color, alpha=0.9)
        axes.axhline(base, color=MUTED, linewidth=0.6)
        mean = curve["mean_cosine"][nearest(curve["times"], row["t"])]
        axes.text(1.04, base + 0.06, f"{mean:.3f}", fontsize=10, color=INK)
    axes.text(1.04, len(rows) - 0.12, "mean", fontsize=10, color=MUTED)
    axes.set(xlim=(-1, 1), ylim=(0, len(rows)), xticks=[-1, -0.5, 0, 0.5, 1])
    axes.set_yticks([*ground], [f"t = {row['t']:.2f}" for row in rows], va="bottom")
    axes.set_xlabel("cosine of the exact with the conditional velocity")
    axes.set_title(f"Pairs by their cosine, {label(curve['size'])}", loc="left", fontsize=11, color=INK)
    plain(axes)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def shares_panel(axes: Axes, record: dict[str, Any]) -> None:
    """One line a size: the share of pairs above the threshold against t."""
    from matplotlib import colormaps

    settings, curves = record["configuration"], record["curves"]
    colors, count = colormaps["viridis"], len(curves)
    for number, curve in enumerate(curves):
        color = colors(0.85 * (1 - number / (count - 1)) if count > 1 else 0.25)
        dimension = f"{curve['dimension']:,} dimensions"
        name = dimension if curve["size"] is None else f"{label(curve['size'])},\n{dimension}"
        axes.plot(curve["times"], curve["share_above"], color=color, linewidth=2.2, label=name)
        time = record["values"]["time_of_collapse"][label(curve["size"])]["value"]
        if time is not None:
            share = curve["share_above"][nearest(curve["times"], time)]
            axes.plot([time], [share], "o", color=color, markersize=8, markeredgecolor="white", zorder=3, clip_on=False)
    dashes = f"collapsed from the time on\nat which {settings['share']:g} is passed for good"
    axes.axhline(settings["share"], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label=dashes)
    fifths = [0, 0.2, 0.4, 0.6, 0.8, 1]
    axes.set(xlim=(0, 1), ylim=(0, 1.04), xticks=fifths, yticks=fifths)
    axes.set(xlabel="time t, from noise to data", ylabel="share of pairs")
    axes.set_title(f"Pairs with a cosine above {settings['threshold']:g}", loc="left", fontsize=11, color=INK)
    axes.grid(color="#E6E9ED", linewidth=0.8)
    axes.set_axisbelow(True)
    # Outside, since lines may run anywhere inside.
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.02), frameon=False, fontsize=9.5, labelspacing=0.9)
    plain(axes)


def nearest(times: list[float], t: float) -> int:
    """The number of the time that is nearest to t."""
    return min(range(len(times)), key=lambda k: abs(times[k] - t))


def show_values(record: dict[str, Any]) -> None:
    """Print what was measured, each value with its spread."""
    from fmcore.console.tables import Console

    about, console = record["measurement"], Console()
    console.show(values_table(f"{record['experiment']}: what was measured", record["values"], decimals_of_spread=4))
    console.print(f"time of collapse: {about['time_of_collapse_is']}", markup=False)
    console.print(f"mean cosine: {about['mean_cosine_at_is']}", markup=False)
