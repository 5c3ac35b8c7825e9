"""Output that was closed, that nobody reads on, or that has no room: nothing of it ends in a trace."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO


def open_closed() -> None:
    """Let what was closed by whoever started this process (``2>&-``) lead nowhere.

    Python has None in place of such a stream, at which libraries fail that print to it. And the system would give its
    number to the next file that is opened: what is written to stderr by number would end in a checkpoint.
    """
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(number)
        except OSError:
            file = os.open(os.devnull, os.O_RDWR)
            if file != number:
                os.dup2(file, number)
                os.close(file)
        setattr(sys, name, open(os.devnull, "r" if number == 0 else "w", encoding="utf-8"))  # noqa: SIM115


def say(text: str) -> None:
    """Print a line to stderr, if that takes it."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def silenced(stream: TextIO | None) -> None:
    """Let a stream that takes nothing more lead nowhere: Python would complain about what is left in it at its end."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
    except ValueError:  # it is closed
        pass
