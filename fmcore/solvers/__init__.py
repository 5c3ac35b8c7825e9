"""Solvers: follow a velocity from the source to the data, or back.

| Name | What |
|---|---|
| `solve` | the ordinary differential equation dx/dt = v(x, t), by torchdiffeq |
| `solve_sde` | the stochastic equation that shares the marginals of the flow, by Euler-Maruyama |
| `bounded_diffusion` | a diffusion for it that is finite on every path |
| `SolveError` | what a solve that cannot go on raises |
| `Solution` | the end of a solve, its trajectory, and the network evaluations that it took (NFE) |

The time grid is fixed here, evaluations are counted exactly, and a velocity is never evaluated outside [t0, t1].
"""

from fmcore.solvers.counted import MAX_NFE, CountedVelocity
from fmcore.solvers.errors import NOT_FINITE, SolveError
from fmcore.solvers.grid import FIXED_STEP, METHODS, check_method, time_dtype, time_grid
from fmcore.solvers.ode import Solution, integrate, solve
from fmcore.solvers.sde import bounded_diffusion, solve_sde
from fmcore.solvers.training_mode import warn_of_training_mode

__all__ = [
    "FIXED_STEP",
    "MAX_NFE",
    "METHODS",
    "NOT_FINITE",
    "CountedVelocity",
    "Solution",
    "SolveError",
    "bounded_diffusion",
    "check_method",
    "integrate",
    "solve",
    "solve_sde",
    "time_dtype",
    "time_grid",
    "warn_of_training_mode",
]
