"""The look of the course: one palette with roles, one font, small sharp figures.

A colour means the same thing in every chapter. Time runs along one map, evenly from the light colour of the source to
the dark one of the data, so a point's colour says how far along the path it is.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

SOURCE = "#DB7612"  # where a flow starts, t = 0
PATH = "#BE3068"  # what lies between, 0 < t < 1
DATA = "#3B1499"  # where it should end, t = 1
MODEL = "#0E8FA8"  # whatever a network says
EXACT = "#1F2328"  # closed forms and references
MUTED = "#8B939B"  # context that should not call for attention, and can still be seen on a projector
INK = "#1F2328"  # text and axes
GRID = "#E6E9ED"
GOOD = "#1A7F37"
BAD = "#B42318"
ROLES = {"source": SOURCE, "data": DATA, "model": MODEL, "path": PATH, "exact": EXACT, "muted": MUTED}
CYCLE = (DATA, SOURCE, MODEL, PATH, "#4E6E1F", EXACT)  # curves with no role, told apart by lightness too
MARKERS = ("o", "s", "^", "D", "v", "P")

WIDTH = 9.0  # inches: a figure as wide as the text
DPI = 144  # pixels an inch; pages show two of them as one, so figures stay sharp on dense screens
HEAVY = 40_000  # bytes: larger pictures are reduced to 256 colours


def time_map() -> Colormap:
    """The colour map of time: `SOURCE` at t = 0, through `PATH`, `DATA` at t = 1; lightness falls evenly."""
    from matplotlib.colors import LinearSegmentedColormap

    stops = [(0.0, SOURCE), (0.25, "#CF5640"), (0.5, PATH), (0.67, "#962788"), (0.83, "#6D119D"), (1.0, DATA)]
    return LinearSegmentedColormap.from_list("fmcore_time", stops)


def color_of(t: float) -> str:
    """The colour of time t, as a hex string; times outside [0, 1] get the colour of the nearer end."""
    from matplotlib.colors import to_hex

    return to_hex(time_map()(min(max(float(t), 0.0), 1.0)))


def density_map() -> Colormap:
    """The colour map of densities: white where there is none, `DATA` where there is most."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(
        "fmcore_density", ["#FFFFFF", "#E4DDF4", "#B7A3E2", "#7C59C6", DATA, "#1D0A52"]
    )


def rc() -> dict[str, Any]:
    """Matplotlib settings of the course."""
    from cycler import cycler

    return {
        "figure.figsize": (WIDTH, 3.4),
        "figure.dpi": DPI / 2,
        "figure.facecolor": "white",
        "figure.constrained_layout.use": True,
        "figure.constrained_layout.h_pad": 0.07,
        "figure.constrained_layout.w_pad": 0.07,
        "savefig.dpi": DPI,
        "savefig.facecolor": "white",
        "font.family": "DejaVu Sans",
        "font.size": 11,
        "axes.titlesize": 12,
        "axes.titlepad": 8,
        "axes.labelsize": 11,
        "axes.labelcolor": INK,
        "axes.edgecolor": "#6E7781",
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.prop_cycle": cycler(color=CYCLE),
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "xtick.color": "#57606A",
        "ytick.color": "#57606A",
        "xtick.labelsize": 10,
        "ytick.labelsize": 10,
        "text.color": INK,
        "lines.linewidth": 2.0,
        "lines.markersize": 6,
        "lines.solid_capstyle": "round",
        "legend.frameon": False,
        "legend.fontsize": 10,
        "image.cmap": "gray",
        "mathtext.fontset": "dejavusans",
    }


def use() -> None:
    """Set the look for this process; in a notebook, also show each figure once, sharp and small.

    A figure is shown by making it the last expression of a cell or by `display(figure)`.
    """
    import matplotlib

    from fmcore.course.display import in_notebook

    if in_notebook():
        from IPython import get_ipython
        from matplotlib.figure import Figure

        shell = get_ipython()
        shell.run_line_magic("matplotlib", "inline")
        formatters = shell.display_formatter.formatters
        formatters["image/png"].for_type(Figure, _notebook_png)
        formatters["text/plain"].for_type(Figure, lambda figure, printer, cycle: printer.text(_describe(figure)))
    matplotlib.rcParams.update(cast(Any, rc()))


def figure(
    rows: int = 1, columns: int = 1, *, height: float | None = None, width: float = WIDTH, **options: Any
) -> tuple[Figure, Any]:
    """A new figure and its axes, in the look of the course: `figure, axes = style.figure(1, 3)`.

    The figure does not belong to pyplot: nothing shows it twice and nothing keeps it in memory.
    `height` and `width` are in inches; height is chosen so that panels are about square. Further options
    go to `Figure.subplots` (for example `sharey=True`).
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if height is None:
        height = 3.6 if columns == 1 and rows == 1 else rows * (width / columns) + 0.15
    with matplotlib.rc_context(cast(Any, rc())):
        made = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(made)
        axes = made.subplots(rows, columns, **options)
    return made, axes


def blank(ax: Axes, limit: float | None = None) -> Axes:
    """Make `ax` a square map of the plane without ticks, showing [-limit, limit] in both directions."""
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(True)
        spine.set_color("#D0D7DE")
    if limit is not None:
        ax.set_xlim(-limit, limit)
        ax.set_ylim(-limit, limit)
    return ax


def png(figure: Figure, dpi: int = DPI) -> bytes:
    """The figure as PNG bytes; the same figure gives the same bytes. Heavy pictures are reduced to 256 colours."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context(cast(Any, rc())):
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    raw = buffer.getvalue()
    if len(raw) <= HEAVY:
        return raw
    from PIL import Image

    small = io.BytesIO()
    picture = Image.open(io.BytesIO(raw)).convert("RGB")
    picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return min(raw, small.getvalue(), key=len)


def _describe(figure: Figure) -> str:
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    return "Figure: " + "; ".join(titles) if titles else "Figure"


def _notebook_png(figure: Figure) -> tuple[bytes, dict[str, int]]:
    picture = png(figure)
    width, height = (round(inches * DPI / 2) for inches in figure.get_size_inches())
    import matplotlib.pyplot as plt

    plt.close(figure)  # so that the inline backend does not show a pyplot figure a second time
    return picture, {"width": width, "height": height}
