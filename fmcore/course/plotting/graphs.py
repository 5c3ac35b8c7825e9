"""Numbers against numbers: curves, errors with their fitted order, histograms, bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fmcore.course import style
from fmcore.course.plotting.points import _panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Numbers = Tensor | Sequence[float]


def slope(x: Numbers, y: Numbers) -> float:
    """Least-squares slope of log y against log x: the order p in y ~ x^p. All values must be positive."""
    u, v = _numbers(x), _numbers(y)
    if len(u) < 2 or len(u) != len(v):
        raise ValueError(f"a slope needs two or more pairs, got {len(u)} x and {len(v)} y")
    if (u <= 0).any() or (v <= 0).any():
        raise ValueError("a log-log slope needs positive numbers")
    u, v = u.log(), v.log()
    u = u - u.mean()
    return float((u * (v - v.mean())).sum() / (u * u).sum())


def error_against(
    x: Numbers,
    errors: Mapping[str, Numbers],
    *,
    xlabel: str = "steps",
    ylabel: str = "error",
    fit: bool = True,
    colors: Mapping[str, str] | None = None,
    title: str = "",
    ax: Any = None,
) -> Figure:
    """Errors against steps (or NFE) on logarithmic axes, each curve labelled with its fitted slope.

    errors: label -> as many errors as x. Read the number of a slope with `slope(x, errors[label])`.
    """
    figure, ax = _panel(ax, width=6.0, height=3.8)
    for i, (label, values) in enumerate(errors.items()):
        color = (colors or {}).get(label, style.CYCLE[i % len(style.CYCLE)])
        name = f"{label}  (slope {slope(x, values):.1f})".replace("-", "\N{MINUS SIGN}") if fit else label
        ax.plot(
            _numbers(x),
            _numbers(values),
            marker=style.MARKERS[i % len(style.MARKERS)],
            color=color,
            label=name,
        )
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ticks = _numbers(x)
    ax.set_xticks(ticks.tolist(), [f"{value:g}" for value in ticks.tolist()])
    ax.minorticks_off()
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_title(title)
    ax.legend()
    return figure


def curves(
    x: Numbers,
    lines: Mapping[str, Numbers],
    *,
    xlabel: str = "",
    ylabel: str = "",
    colors: Mapping[str, str] | None = None,
    bands: Mapping[str, Numbers] | None = None,
    log: str = "",
    markers: bool = False,
    title: str = "",
    ax: Any = None,
) -> Figure:
    """Curves over a common x, each with a name.

    bands: label -> half width of a shaded band around that curve (for example a standard error).
    log: which axes are logarithmic: "", "x", "y" or "xy".
    """
    figure, ax = _panel(ax, width=6.0, height=3.6)
    for i, (label, values) in enumerate(lines.items()):
        color = (colors or {}).get(label, style.CYCLE[i % len(style.CYCLE)])
        marker = style.MARKERS[i % len(style.MARKERS)] if markers else None
        xs, ys = _numbers(x), _numbers(values)
        ax.plot(xs, ys, color=color, marker=marker, label=label)
        if bands and label in bands:
            half = _numbers(bands[label])
            ax.fill_between(xs, ys - half, ys + half, color=color, alpha=0.18, linewidth=0)
    if "x" in log:
        ax.set_xscale("log")
    if "y" in log:
        ax.set_yscale("log")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_title(title)
    if len(lines) > 1:
        ax.legend()
    return figure


def histogram(
    values: Mapping[str, Numbers] | Numbers,
    *,
    bins: int = 40,
    range: tuple[float, float] | None = None,
    density: Callable[[Tensor], Tensor] | None = None,
    density_label: str = "exact density",
    xlabel: str = "",
    colors: Mapping[str, str] | None = None,
    title: str = "",
    ax: Any = None,
) -> Figure:
    """Histograms scaled to unit area, with a density curve on top if one is given.

    values: one set of numbers, or several by label. density: a callable (n,) -> (n,).
    """
    named = values if isinstance(values, Mapping) else {"": values}
    figure, ax = _panel(ax, width=5.4, height=3.4)
    every = torch.cat([_numbers(v).reshape(-1) for v in named.values()])
    low, high = range if range is not None else (float(every.min()), float(every.max()))
    if high <= low:
        low, high = low - 0.5, high + 0.5
    for i, (label, numbers) in enumerate(named.items()):
        color = (colors or {}).get(label, style.CYCLE[i % len(style.CYCLE)])
        ax.hist(
            _numbers(numbers).reshape(-1).numpy(), bins=bins, range=(low, high), density=True, color=color, alpha=0.45,
            histtype="stepfilled", edgecolor=color, linewidth=1.0, label=label or None,
        )  # fmt: skip
    if density is not None:
        line = torch.linspace(low, high, 300)
        ax.plot(line, density(line).detach().cpu(), color=style.EXACT, label=density_label)
    ax.set(xlabel=xlabel, yticks=[])
    ax.spines["left"].set_visible(False)
    ax.grid(False)
    ax.set_title(title)
    if density is not None or any(named):
        ax.legend()
    return figure


def bars(
    values: Mapping[str, float | Tensor],
    *,
    spread: Mapping[str, float] | None = None,
    xlabel: str = "",
    digits: int = 2,
    colors: Mapping[str, str] | None = None,
    title: str = "",
    ax: Any = None,
) -> Figure:
    """Horizontal bars, one a label, with the number written at the end of each."""
    figure, ax = _panel(ax, width=6.0, height=0.7 + 0.42 * len(values))
    numbers = {label: float(value) for label, value in values.items()}
    top = max([abs(v) for v in numbers.values() if math.isfinite(v)] or [1.0])
    for i, (label, value) in enumerate(numbers.items()):
        color = (colors or {}).get(label, style.CYCLE[i % len(style.CYCLE)])
        half = float((spread or {}).get(label, 0.0))
        ax.barh(i, value, color=color, height=0.62, xerr=half or None, ecolor=style.INK)
        said = f"{value:.{digits}f}" + (f" ± {half:.{digits}f}" if half else "")
        ax.text(max(value, 0.0) + half + 0.015 * top, i, said, va="center", fontsize=10)
    ax.set_yticks(list(range(len(values))), list(values))
    ax.invert_yaxis()
    ax.margins(x=0.16)
    ax.grid(False)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(length=0)
    ax.set(xlabel=xlabel, xticks=[])
    ax.set_title(title)
    return figure


def _numbers(values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().cpu().double()
    return torch.tensor([float(value) for value in values], dtype=torch.float64)
