"""fmcore: flow matching from first principles.

    sources + data -> couplings -> paths -> losses -> networks -> training -> solvers -> likelihood -> metrics

One module for each noun. Everything is a velocity field: a callable (x, t) -> v, with t = 0 at the source and t = 1 at
the data.
"""

from fmcore import (
    closed_form,
    couplings,
    data,
    likelihood,
    losses,
    networks,
    paths,
    solvers,
    sources,
    velocity,
)

__version__ = "0.1.0"

__all__ = [
    "closed_form",
    "couplings",
    "data",
    "likelihood",
    "losses",
    "networks",
    "paths",
    "solvers",
    "sources",
    "velocity",
]
