"""Points in the plane: clouds, pairs, trajectories, and rows of panels over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fmcore.course import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def clouds(
    *,
    source: Tensor | None = None,
    data: Tensor | None = None,
    model: Tensor | None = None,
    exact: Tensor | None = None,
    path: Tensor | None = None,
    others: Mapping[str, Tensor] | None = None,
    behind: Tensor | None = None,
    limit: float | None = None,
    size: float | None = None,
    legend: bool = True,
    title: str = "",
    ax: Any = None,
) -> Figure:
    """Scatter plots of points (n, 2), one colour for each role.

    others: further clouds by label, in colours of `style.CYCLE`.
    behind: points drawn faintly behind, for comparison (for example the data behind samples).
    limit: the plot shows [-limit, limit]^2; by default as much as the points need.
    size: area of a dot in points squared; by default smaller for more points.
    """
    given = {"source": source, "data": data, "model": model, "exact": exact, "path": path}
    drawn = [(name, x, style.ROLES[name]) for name, x in given.items() if x is not None]
    free = [color for color in style.CYCLE if color not in [c for _, _, c in drawn]] or list(style.CYCLE)
    drawn += [(name, x, free[i % len(free)]) for i, (name, x) in enumerate((others or {}).items())]
    if not drawn:
        raise ValueError("clouds draws nothing: pass source=, data=, model=, exact=, path= or others={label: points}")
    figure, ax = _panel(ax, width=4.6, height=4.6)
    shade(behind, ax)
    for name, x, color in drawn:
        x = flat(x, name)
        area = size if size is not None else dot_area(len(x))
        ax.scatter(x[:, 0], x[:, 1], s=area, color=color, alpha=0.65, linewidths=0, label=name)
    style.blank(ax, limit if limit is not None else extent(*(x for _, x, _ in drawn), behind))
    if legend and len(drawn) > 1:
        ax.legend(loc="upper right", markerscale=max(1.0, (30 / dot_area(1000)) ** 0.5), handletextpad=0.1)
    ax.set_title(title)
    return figure


def pairs(x0: Tensor, x1: Tensor, *, limit: float | None = None, title: str = "", ax: Any = None) -> Figure:
    """Lines from each x0 to its x1, both (n, 2), coloured by time from source to data."""
    if x0.shape != x1.shape:
        raise ValueError(f"pairs needs as many x0 as x1, got shapes {tuple(x0.shape)} and {tuple(x1.shape)}")
    times = torch.linspace(0, 1, 20)
    lines = (1 - times)[:, None, None] * x0.detach().cpu() + times[:, None, None] * x1.detach().cpu()
    return trajectories((times, lines), limit=limit, title=title, ax=ax, ends=True)


def trajectories(
    solution: Any,
    *,
    count: int | None = 200,
    data: Tensor | None = None,
    limit: float | None = None,
    ends: bool = True,
    width: float = 1.1,
    title: str = "",
    ax: Any = None,
) -> Figure:
    """Paths of points through the plane, coloured by time.

    solution: a `solvers.Solution` with a trajectory, or a pair (times (T,), trajectory (T, B, 2)).
    count: at most so many paths are drawn, the first ones; None draws all.
    data: points (n, 2) drawn faintly behind.
    ends: dots where each path starts (source) and ends (data).
    """
    from matplotlib.collections import LineCollection

    times, states = path_of(solution)
    states = states[:, :count]
    figure, ax = _panel(ax, width=4.6, height=4.6)
    shade(data, ax)
    lines = states.permute(1, 0, 2)  # (B, T, 2)
    # Few long pieces with flat ends: where round ends of transparent pieces overlap, a line looks dotted.
    length = max(1, (len(times) - 1) // 25)
    starts = range(0, len(times) - 1, length)
    pieces = [line[k : k + length + 1].numpy() for line in lines for k in starts]
    middle = torch.stack([times[k : k + length + 1].mean() for k in starts]).repeat(len(lines)).numpy()
    colored = LineCollection(pieces, cmap=style.time_map(), linewidths=width, alpha=0.6, capstyle="butt")
    colored.set_array(middle)
    colored.set_clim(0, 1)
    ax.add_collection(colored)
    if ends:
        for x, color in ((states[0], style.SOURCE), (states[-1], style.DATA)):
            ax.scatter(x[:, 0], x[:, 1], s=9, color=color, linewidths=0, zorder=3)
    style.blank(ax, limit if limit is not None else extent(states[0], states[-1], data))
    ax.set_title(title)
    return figure


def snapshots(
    solution: Any,
    *,
    times: Sequence[float] | None = None,
    data: Tensor | None = None,
    count: int = 5,
    limit: float | None = None,
    size: float | None = None,
    title: str = "t = {t:.2f}",
    axes: Any = None,
) -> Figure:
    """A row of panels: where the points are at each time, in the colour of that time.

    solution: a `solvers.Solution` with a trajectory, or a pair (times (T,), trajectory (T, B, 2)).
    times: the times to show (the nearest stored ones are); by default `count` evenly spaced ones.
    axes: panels to draw into, one per time.
    """
    stored, states = path_of(solution)
    wanted = torch.linspace(float(stored[0]), float(stored[-1]), count) if times is None else torch.as_tensor(times)
    picks = [int((stored - t).abs().argmin()) for t in wanted]
    if axes is None:
        _, axes = style.figure(1, len(picks), squeeze=False)
    axes = list(axes.flat) if hasattr(axes, "flat") else list(axes)
    if len(axes) != len(picks):
        raise ValueError(f"snapshots draws {len(picks)} times into {len(axes)} panels; give as many axes as times")
    limit = limit if limit is not None else extent(states[picks].reshape(-1, 2), data)
    for ax, i in zip(axes, picks, strict=True):
        shade(data, ax, scale=0.5)
        area = size if size is not None else dot_area(states.shape[1]) / 1.5
        color = style.color_of(float(stored[i]))
        ax.scatter(states[i, :, 0], states[i, :, 1], s=area, color=color, alpha=0.7, linewidths=0)
        style.blank(ax, limit).set_title(title.format(t=float(stored[i])))
    return axes[0].figure


def path_of(solution: Any) -> tuple[Tensor, Tensor]:
    """Times (T,) and states (T, B, 2) on the CPU, from a Solution or a pair. Raises ValueError without a trajectory."""
    times, states = (solution.times, solution.trajectory) if hasattr(solution, "trajectory") else solution
    if times is None or states is None:
        raise ValueError("the solution has no trajectory: solve with times=torch.linspace(0, 1, 50)")
    times, states = (
        torch.as_tensor(times).detach().cpu().float(),
        torch.as_tensor(states).detach().cpu().float(),
    )
    if states.ndim != 3 or states.shape[-1] != 2 or len(states) != len(times):
        raise ValueError(
            f"need times (T,) and a trajectory (T, B, 2), got {tuple(times.shape)} and {tuple(states.shape)}"
        )
    return times, states


def flat(x: Tensor, name: str) -> Tensor:
    """Points (n, 2) on the CPU. Raises ValueError for any other shape."""
    x = torch.as_tensor(x).detach().cpu().float()
    if x.ndim != 2 or x.shape[1] != 2:
        raise ValueError(f"{name} must have shape (n, 2), got {tuple(x.shape)}")
    return x


def shade(points: Tensor | None, ax: Axes, scale: float = 1.0) -> None:
    """Draw points faintly, as background; nothing for None."""
    if points is not None:
        x = flat(points, "the background")
        ax.scatter(x[:, 0], x[:, 1], s=scale * dot_area(len(x)), color=style.MUTED, alpha=0.5, linewidths=0, zorder=0.5)


def extent(*clouds: Tensor | None) -> float:
    """Half the side of the square around the origin that holds nearly all points."""
    points = torch.cat([torch.as_tensor(x).detach().cpu().float().reshape(-1, 2) for x in clouds if x is not None])
    points = points[torch.isfinite(points).all(1)]
    if not len(points):
        return 1.0
    reach = points.abs().amax(1).sort().values
    return 1.08 * max(float(reach[int(0.997 * (len(reach) - 1))]), 1e-6)


def dot_area(n: int) -> float:
    """Area of a dot in points squared, smaller for larger clouds."""
    return float(min(30.0, max(1.5, 6000 / max(n, 1))))


def _panel(ax: Any, width: float, height: float) -> tuple[Any, Any]:
    return (ax.figure, ax) if ax is not None else style.figure(width=width, height=height)
