"""A command that is stopped, by Ctrl-C (SIGINT) or by the system (SIGTERM), says what was kept and how to go on.

Its exit status is that of shells, 128 and the number of the signal: 130 and 143.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Signals within so many seconds of the first are the same occasion: a terminal tells all processes, torchrun its own.
OCCASION = 2.0
NOTHING = "nothing was kept; run the same command again"
# The number of the signal that asked this process to stop. Code that is interrupted at a bad moment, in the middle of
# an import say, may swallow that and fail with something else: it is a stop all the same.
_ASKED: list[int] = []


class Stopped(KeyboardInterrupt):
    """A signal asked this process to stop; raised wherever it is, as KeyboardInterrupt.

    Attributes:
        number: of the signal.
        kept: what was kept and how to go on, a sentence; None while nobody has said it.
    """

    def __init__(self, number: int, kept: str | None = None) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.kept = number, kept


@contextmanager
def stoppable() -> Iterator[None]:
    """Within, SIGINT and SIGTERM raise `Stopped`, once: what follows at once is ignored, so that all is left in order.

    One that comes later ends the process at once, in case something hangs. A signal that whoever started this process
    has set aside (nohup, a shell's background) stays so.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main one may set this, and is told
        yield
        return
    since: list[float] = []
    _ASKED.clear()

    def stop(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not since:
            since.append(now)
            _ASKED.append(number)
            raise Stopped(number)
        if now - since[0] > OCCASION:
            os._exit(128 + number)

    usual = (signal.SIG_DFL, signal.default_int_handler)
    before = {number: signal.signal(number, stop) for number in SIGNALS if signal.getsignal(number) in usual}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def as_stop(error: BaseException) -> BaseException:
    """An error as it is, or, once this process was asked to stop, the stop that has led to it."""
    if isinstance(error, Stopped) or not (_ASKED or isinstance(error, KeyboardInterrupt)):
        return error
    return Stopped(_ASKED[0] if _ASKED else signal.SIGINT)


@contextmanager
def saying(kept: Callable[[], str]) -> Iterator[None]:
    """Within, a stop is told what was kept; the innermost of these has the word.

    Args:
        kept: asked when it happens.
    """
    try:
        yield
    except (KeyboardInterrupt, Exception) as error:
        found = as_stop(error)
        if found is error and not isinstance(found, Stopped):
            raise
        if isinstance(found, Stopped) and found.kept is None:
            found.kept = kept()
        raise found from None


def sentence(stop: KeyboardInterrupt) -> tuple[str, int]:
    """What a stopped command says, and its exit status. Of several processes, the first speaks for all."""
    found = stop if isinstance(stop, Stopped) else Stopped(signal.SIGINT)
    by = "Ctrl-C" if found.number == signal.SIGINT else str(found)
    rank = os.environ.get("RANK", "0")
    if rank != "0" and "WORLD_SIZE" in os.environ:
        return f"process {rank} stopped ({by})", 128 + found.number
    return f"stopped ({by}): {found.kept or NOTHING}", 128 + found.number
