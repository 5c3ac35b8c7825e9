"""The mental-model figure of the course: a source moves along a velocity and becomes the data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fmcore.course import style
from fmcore.velocity import Velocity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OVERVIEW = Path(__file__).resolve().parents[3] / "chapters" / "figures" / "overview.png"
_SPACING, _LEAN, _DEPTH = (
    21.0,
    0.36,
    0.62,
)  # distance of the planes for one unit of time; how a plane is seen from the side
_REACH = 2.75  # half the side of a plane


def flow_map(points: int = 900, lines: int = 110, seed: int = 0) -> Figure:
    """Draw 2D points that an exact velocity carries from a Gaussian to two moons, with time running to the right.

    Five planes show the points at t = 0, 1/4, 1/2, 3/4 and 1; lines join the places of some of them; arrows on the
    middle plane are the velocity there. The velocity is `EmpiricalVelocity` of 2,000 points of two moons, the lines
    are solutions of its differential equation; the last plane is at t = 0.999, before the velocity is singular.
    """
    from fmcore import closed_form, data, solvers

    generator = torch.Generator().manual_seed(seed)
    velocity = closed_form.EmpiricalVelocity(data.toy.two_moons(2000, generator, noise=0.09))
    x0 = torch.randn(points, 2, generator=generator)
    x0 = x0[(x0.abs() < _REACH - 0.1).all(1)]
    times = torch.linspace(0, 1, 81) * 0.999
    flow = solvers.solve(velocity, x0, t1=0.999, rtol=1e-4, atol=1e-4, times=times)
    assert flow.trajectory is not None
    figure, ax = style.figure(width=12.0, height=5.0)
    _planes(ax, times, flow.trajectory)
    _lines(ax, times, flow.trajectory[:, :lines])
    _arrows(ax, velocity, t=0.5)
    _words(ax)
    ax.set(aspect="equal", xlim=(-2.4, _SPACING + 2.4), ylim=(-7.1, _REACH * (1 + _LEAN) + 0.3))
    ax.axis("off")
    return figure


def save_flow_map(to: Path = OVERVIEW) -> Path:
    """Draw the figure and write it as PNG.

    The README shows it; `python -c "from fmcore.course import plotting; plotting.save_flow_map()"` makes it anew.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(style.png(flow_map()))
    return to


def _seen(x: Tensor, t: Tensor | float) -> Tensor:
    """Where the point x (..., 2) of the plane at time t appears on the page."""
    depth, height = x[..., 0], x[..., 1]
    return torch.stack([_SPACING * t + _DEPTH * depth, height + _LEAN * depth], -1)


def _planes(ax: Axes, times: Tensor, states: Tensor) -> None:
    corners = _REACH * torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    for k in range(5):
        i = round(k / 4 * (len(times) - 1))
        t = float(times[i])
        color = style.color_of(t)
        order = 10 * k
        ax.fill(*_seen(corners, t).T, facecolor="white", alpha=0.6, edgecolor="none", zorder=order)
        ax.fill(
            *_seen(corners, t).T,
            facecolor="none",
            edgecolor=color,
            linewidth=1.0,
            alpha=0.55,
            zorder=order + 1,
        )
        across, up = _seen(states[i], t).T
        ax.scatter(across, up, s=7, color=color, alpha=0.75, linewidths=0, zorder=order + 2)


def _lines(ax: Axes, times: Tensor, states: Tensor) -> None:
    """The lines, quarter by quarter, so that each quarter lies between its two planes."""
    from matplotlib.collections import LineCollection

    step = (len(times) - 1) // 4
    for k in range(4):
        part = slice(k * step, (k + 1) * step + 1)
        seen = _seen(states[part], times[part, None])  # (steps, lines, 2)
        pieces = torch.stack([seen[:-1], seen[1:]], 2).reshape(-1, 2, 2)
        drawn = LineCollection(
            list(pieces.numpy()), cmap=style.time_map(), linewidths=0.9, alpha=0.55, zorder=10 * k + 4
        )
        drawn.set_array(((times[part][:-1] + times[part][1:]) / 2).repeat_interleave(states.shape[1]).numpy())
        drawn.set_clim(0, 1)
        ax.add_collection(drawn)


def _arrows(ax: Axes, velocity: Velocity, t: float) -> None:
    line = torch.linspace(-0.86 * _REACH, 0.86 * _REACH, 9)
    where = torch.cartesian_prod(line, line)
    v = velocity(where, torch.tensor(t))
    start, end = _seen(where, t), _seen(where + 0.16 * v, t)
    ax.quiver(
        *start.T, *(end - start).T, color=style.EXACT, angles="xy", scale_units="xy", scale=1, width=0.0014,
        headwidth=4, headlength=4.5, headaxislength=4, alpha=0.85, zorder=29,
    )  # fmt: skip


def _words(ax: Axes) -> None:
    below = -_REACH * (1 + _LEAN) - 0.25
    said = {
        0.0: ("source", r"$x_0 \sim p_0$", style.SOURCE),
        0.25: ("path", r"$x_t = (1-t)\,x_0 + t\,x_1$", style.color_of(0.25)),
        0.5: ("velocity", r"$\dot x = v(x, t)$", style.PATH),
        0.75: ("solver", r"$x \leftarrow x + h\,v(x, t)$", style.color_of(0.75)),
        1.0: ("data", r"$x_1 \sim p_1$", style.DATA),
    }
    for t, (word, formula, color) in said.items():
        ax.text(_SPACING * t, below, word, ha="center", va="top", fontsize=14, fontweight="bold", color=color)
        ax.text(_SPACING * t, below - 0.75, formula, ha="center", va="top", fontsize=11.5, color=style.INK)
    ax.annotate(
        "", (_SPACING + 1.8, below - 1.75), (-1.6, below - 1.75),
        arrowprops={"arrowstyle": "-|>", "color": style.MUTED, "linewidth": 1.2},
    )  # fmt: skip
    for t in (0.0, 0.25, 0.5, 0.75, 1.0):
        ax.text(_SPACING * t, below - 1.9, f"t = {t:g}", ha="center", va="top", fontsize=10.5, color="#57606A")
