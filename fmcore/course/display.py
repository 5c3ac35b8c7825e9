"""Show one object as HTML where HTML can be shown, and as the same words in plain text everywhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fmcore.console import signs


@dataclass(frozen=True)
class Rendered:
    """Something with an HTML and a plain-text form. Notebooks pick one of the two; `print` gives the text."""

    text: str
    html: str

    def __str__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": self.text, "text/html": self.html}


def in_notebook() -> bool:
    """True when a Jupyter kernel runs this code (not a script, a test or a terminal)."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    return shell is not None and getattr(shell, "kernel", None) is not None


def show(rendered: Rendered) -> None:
    """Display `rendered` in a notebook, print its text anywhere else."""
    if in_notebook():
        from IPython.display import display

        display(rendered)
    else:
        signs.say(rendered.text)
