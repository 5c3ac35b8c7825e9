"""How a command ends: with what was asked for, or with one line on stderr and an exit status.

0    it did what was asked for
1    nobody reads what it prints, as in "fmcore list | head -1"
2    what was asked for, or the machine, is the reason; see `fmcore.console.errors`
70   the package is the reason
130  stopped by Ctrl-C, 143 by SIGTERM; see `fmcore.console.stopping`
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from fmcore.console import errors, signs, stopping, streams


def status_of(command: Callable[[], object], out_of_memory: Callable[[Exception], str | None]) -> int:
    """Run a command; returns the exit status, after the one line that there is to say.

    With the environment variable FMCORE_TRACEBACK an error is raised instead, to be looked at.

    Args:
        command: what to run; where it leaves by SystemExit, as parsers of command lines do, that is let through.
        out_of_memory: the sentence for an error that says that memory ran out; None for any other error.
    """
    streams.open_closed()
    signs.spell_on(sys.stdout, sys.stderr)
    with stopping.stoppable():
        try:
            try:
                with stopping.saying(lambda: stopping.NOTHING):
                    command()
            finally:
                sys.stdout.flush()  # here, where it may fail, and not at the end of Python
        except BrokenPipeError:
            streams.silenced(sys.stdout)
            said, status = "", 1
        except KeyboardInterrupt as stop:
            streams.silenced(sys.stdout)
            said, status = stopping.sentence(stop)
        except Exception as error:
            streams.silenced(sys.stdout)
            if os.environ.get("FMCORE_TRACEBACK"):
                raise
            said, status = errors.answer(error)
            if lacking := out_of_memory(error):
                said, status = lacking, errors.MENDABLE
            said = f"error: {said}"
        else:
            return 0
        if said:
            streams.say(said)
        streams.silenced(sys.stderr)
        return status
