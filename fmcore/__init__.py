"""fmcore: flow matching from first principles.

    sources + data -> couplings -> paths -> losses -> networks -> training -> solvers -> likelihood -> metrics

One module for each noun. Everything is a velocity field: a callable (x, t) -> v, with t = 0 at the source and t = 1 at
the data. The modules are loaded when they are first used: ``import fmcore; fmcore.paths.ot()`` works.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmcore import closed_form as closed_form
    from fmcore import couplings as couplings
    from fmcore import data as data
    from fmcore import ensemble as ensemble
    from fmcore import guidance as guidance
    from fmcore import likelihood as likelihood
    from fmcore import losses as losses
    from fmcore import metrics as metrics
    from fmcore import networks as networks
    from fmcore import paths as paths
    from fmcore import solvers as solvers
    from fmcore import sources as sources
    from fmcore import training as training
    from fmcore import velocity as velocity

__version__ = "0.1.0"

__all__ = [
    "closed_form",
    "couplings",
    "data",
    "ensemble",
    "guidance",
    "likelihood",
    "losses",
    "metrics",
    "networks",
    "paths",
    "solvers",
    "sources",
    "training",
    "velocity",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"fmcore.{name}")
    raise AttributeError(f"module 'fmcore' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
