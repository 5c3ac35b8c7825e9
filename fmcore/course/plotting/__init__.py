"""Pure functions that draw: each takes tensors and returns a matplotlib Figure, and none shows or saves it.

Every function takes `ax=` to draw into a panel of a larger figure made with `canvas(rows, columns)`; it then returns
the figure that the panel belongs to.
"""

from __future__ import annotations

from fmcore.course.plotting.fields import density, field, grid
from fmcore.course.plotting.graphs import bars, curves, error_against, histogram, slope
from fmcore.course.plotting.image_grid import images
from fmcore.course.plotting.overview import flow_map, save_flow_map
from fmcore.course.plotting.points import clouds, pairs, snapshots, trajectories
from fmcore.course.style import figure as canvas

__all__ = [
    "bars",
    "canvas",
    "clouds",
    "curves",
    "density",
    "error_against",
    "field",
    "flow_map",
    "grid",
    "histogram",
    "images",
    "pairs",
    "save_flow_map",
    "slope",
    "snapshots",
    "trajectories",
]
