"""The error of a solve that cannot go on, and what it says."""

from __future__ import annotations

NOT_FINITE = (
    "the solution stopped being finite: the velocity returns NaN or grows without bound. Check the network, "
    "end at path.t_max where the velocity is singular at t = 1, or take more steps."
)


class SolveError(RuntimeError, FloatingPointError):
    """A solve that cannot go on: the velocity is not finite, or an adaptive solver finds no step that is small enough.

    It is a RuntimeError, and a FloatingPointError as that of a training whose loss is not finite.
    """


def too_fine(rtol: float, atol: float, dtype: object) -> SolveError:
    """Build the error for tolerances so small that an adaptive solver finds no first step."""
    name = str(dtype).removeprefix("torch.")
    return SolveError(
        f"rtol={rtol:g} and atol={atol:g} ask for more digits than {name} has, and no step is small enough: write "
        "rtol=1e-5 and atol=1e-5, or another pair of tolerances above the rounding of the state."
    )
