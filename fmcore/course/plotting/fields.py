"""Functions of the plane: velocity fields as arrows or streamlines, densities as shades or contours."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fmcore.course import style
from fmcore.course.plotting.points import _panel, shade

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def grid(limit: float = 4.0, points: int = 41) -> Tensor:
    """Points (points^2, 2) of a square grid on [-limit, limit]^2, row by row from the bottom."""
    line = torch.linspace(-limit, limit, points)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x.reshape(-1), y.reshape(-1)], 1)


def field(
    velocity: Callable[[Tensor, Tensor], Tensor],
    t: float,
    *,
    limit: float = 4.0,
    points: int = 19,
    kind: str = "arrows",
    data: Tensor | None = None,
    color: str | None = None,
    speed: float | None = None,
    title: str = "t = {t:.2f}",
    ax: Any = None,
) -> Figure:
    """The velocity at time t on a grid.

    kind: "arrows" (length shows speed) or "streams" (streamlines, thicker where faster).
    data: points (n, 2) drawn faintly behind.
    color: of the arrows; by default the colour of the time t.
    speed: the speed of the longest arrow, anything faster is drawn as long; set it to compare panels. By default 9 of
        10 arrows are slower.
    """
    if kind not in ("arrows", "streams"):
        raise ValueError(f'kind is "arrows" or "streams", got {kind!r}')
    figure, ax = _panel(ax, width=4.6, height=4.6)
    shade(data, ax)
    where = grid(limit * (1 - 0.5 / points), points)
    with torch.no_grad():
        v = velocity(where, torch.full((len(where),), float(t))).detach().cpu()
    hue = color or style.color_of(t)
    norm = v.norm(dim=1)
    top = speed if speed is not None else float(norm[torch.isfinite(norm)].quantile(0.9).clamp_min(1e-12))
    v = v / (norm / top).clamp_min(1)[:, None]
    if kind == "arrows":
        cell = 2 * limit / points
        shown = v / top * cell * 1.15
        ax.quiver(
            *where.T.numpy(), *shown.T.numpy(), color=hue, angles="xy", scale_units="xy", scale=1,
            width=0.0045, headwidth=3.6, headlength=4, headaxislength=3.6, pivot="mid", alpha=0.9,
        )  # fmt: skip
    else:
        line = where[:points, 0].numpy()
        u = v.reshape(points, points, 2).numpy()
        weight = (norm / top).clamp(max=1).reshape(points, points).numpy()
        ax.streamplot(
            line,
            line,
            u[..., 0],
            u[..., 1],
            color=color,
            linewidth=0.4 + 1.4 * weight,
            density=1.1,
            arrowsize=0.8,
        )
    style.blank(ax, limit).set_title(title.format(t=float(t)))
    return figure


def density(
    log_density: Callable[[Tensor], Tensor],
    *,
    limit: float = 4.0,
    points: int = 121,
    kind: str = "filled",
    data: Tensor | None = None,
    chunk: int = 4096,
    top: float | None = None,
    title: str = "",
    ax: Any = None,
) -> Figure:
    """A density over the plane, from its logarithm: a callable (n, 2) -> (n,).

    kind: "filled" (shades) or "contours" (lines that hold 30, 60 and 90 % of the mass on the grid).
    top: the density drawn darkest; set it to compare panels. By default the largest on the grid.
    data: points drawn on top.
    """
    if kind not in ("filled", "contours"):
        raise ValueError(f'kind is "filled" or "contours", got {kind!r}')
    figure, ax = _panel(ax, width=4.6, height=4.6)
    where = grid(limit, points)
    with torch.no_grad():
        values = torch.cat([log_density(part).detach().cpu().reshape(-1) for part in where.split(chunk)]).double().exp()
    if values.shape != (len(where),):
        raise ValueError(f"log_density must give one number a point: {len(where)} points gave {len(values)} numbers")
    picture = values.reshape(points, points).numpy()
    peak = top if top is not None else float(values.max())
    if kind == "filled":
        edge = (-limit, limit, -limit, limit)
        ax.imshow(
            picture,
            extent=edge,
            origin="lower",
            cmap=style.density_map(),
            vmin=0,
            vmax=peak,
            interpolation="bilinear",
        )
    else:
        line = where[:points, 0].numpy()
        ordered = values.sort(descending=True).values
        mass = ordered.cumsum(0) / ordered.sum()
        levels = sorted({float(ordered[int((mass < share).sum())]) for share in (0.9, 0.6, 0.3)})
        ax.contour(line, line, picture, levels=levels, colors=style.DATA, linewidths=[0.8, 1.3, 1.8][-len(levels) :])
    if data is not None:
        ax.scatter(data[:, 0], data[:, 1], s=4, color=style.SOURCE, alpha=0.7, linewidths=0)
    style.blank(ax, limit).set_title(title)
    return figure
