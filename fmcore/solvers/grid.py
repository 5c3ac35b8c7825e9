"""Methods, steps and times of a solve."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fmcore.validation import check_count, unknown_name

# Our name -> torchdiffeq's name. Orders 1, 2, 2, 4; evaluations per step 1, 2, 2, 4. Its rk4 is the 3/8 rule.
FIXED_STEP = {"euler": "euler", "midpoint": "midpoint", "heun": "heun2", "rk4": "rk4"}
METHODS = ("dopri5", *FIXED_STEP)
# Times are float64, but on devices that have none.
TIME_DTYPES = {"mps": torch.float32}


def time_dtype(device: torch.device) -> torch.dtype:
    """The dtype of times on a device: float64, or float32 on Apple GPUs ("mps"), which have no float64."""
    return TIME_DTYPES.get(device.type, torch.float64)


def check_method(method: str, steps: int | None) -> None:
    """Require a known method, and a number of steps only where the method takes one.

    Raises:
        ValueError: if they are not, or steps is no whole number of at least 1.
    """
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    if method == "dopri5" and steps is not None:
        raise ValueError("dopri5 chooses its own steps: leave steps out, or use a fixed-step method such as 'euler'.")
    if steps is not None:
        check_count("steps", steps)


def check_tolerances(rtol: float, atol: float) -> None:
    """Require finite tolerances above 0.

    Raises:
        ValueError: with the name of the one that is not.
    """
    for name, value in (("rtol", rtol), ("atol", atol)):
        try:
            fits = not isinstance(value, bool) and 0 < float(value) < math.inf
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise ValueError(f"{name}={value!r}: a tolerance is a finite number above 0, for example {name}=1e-5.")


def time_grid(
    t0: float, t1: float, steps: int | None, times: Sequence[float] | Tensor | None, adaptive: bool = False
) -> tuple[Tensor, list[int]]:
    """Return the step boundaries from t0 to t1 (float64) and the indices of ``times`` among them.

    Raises:
        ValueError: for times that are not finite, an interval of no length, no steps for a method that needs them, or
            ``times`` that do not run from t0 to t1 or lie off the grid.
    """
    if not (math.isfinite(t0) and math.isfinite(t1)):
        raise ValueError(f"t0 is {t0} and t1 is {t1}: a solve starts and ends at finite times, from 0 to 1 as a rule.")
    if t0 == t1:
        raise ValueError(f"t0 and t1 are both {t0}: there is nothing to solve.")
    if times is None:
        if steps is None and not adaptive:
            raise ValueError("a fixed-step method needs steps=..., for example steps=50, or a grid of times.")
        return torch.linspace(t0, t1, (steps or 1) + 1, dtype=torch.float64), []
    wanted = torch.as_tensor(times, dtype=torch.float64, device="cpu")
    span = t1 - t0
    share = (wanted - t0) / span
    if (
        wanted.ndim != 1
        or len(wanted) == 0
        or not torch.isfinite(share).all()
        or share.min() < -1e-6
        or share.max() > 1 + 1e-6
        or (share.diff() <= 0).any()
    ):
        raise ValueError(
            f"times must go one way from t0 = {t0} to t1 = {t1} without repeats, but are {wanted.tolist()}."
        )
    if steps is not None:
        kept = (share * steps).round().long()
        if ((share * steps - kept).abs() > 1e-4).any():
            raise ValueError(
                f"times must lie on the grid of {steps} steps from {t0} to {t1}: choose others, or leave steps out."
            )
        return torch.linspace(t0, t1, steps + 1, dtype=torch.float64), kept.tolist()
    start = [t0] if share[0] > 1e-9 else []
    end = [t1] if share[-1] < 1 - 1e-9 else []
    grid = torch.tensor([*start, *wanted.tolist(), *end], dtype=torch.float64)
    return grid, list(range(len(start), len(start) + len(wanted)))


def grid_for_state(grid: Tensor, dtype: torch.dtype) -> Tensor:
    """The grid in float32 for a float32 state, which saves a conversion of t an evaluation; else the grid as it is.

    Nothing is lost: the velocity is given t in float32 anyway, and the difference of two neighbours is exact, so that
    the steps add up to the interval. A grid so fine that neighbours would become equal stays as it is.
    """
    rounded = grid.float()
    return rounded if dtype == torch.float32 and (rounded.diff() != 0).all() else grid
