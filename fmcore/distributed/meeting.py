"""Where processes meet: what torchrun's environment says of it, and what a process says while it waits for others.

torchrun tells each process its number (RANK, and LOCAL_RANK on its machine), how many there are (WORLD_SIZE), and where
process 0 is (MASTER_ADDR, MASTER_PORT). Others who start processes set the same by hand, and may get it wrong.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

Result = TypeVar("Result")

# How long a process waits for the others before it gives up. Longer than process 0 takes to write a large checkpoint.
TIMEOUT = timedelta(minutes=10)
SILENCE = 1.0  # seconds after which a process that waits says for whom
TORCHRUN = ("RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Place:
    """The number of a process, from 0, of how many, and the address at which process 0 listens."""

    rank: int = 0
    count: int = 1
    address: str = ""
    port: int = 0

    @property
    def others(self) -> str:
        """Who is waited for, and where."""
        who = "process 0" if self.rank else f"the {self.count - 1} other{'s' * (self.count > 2)}"
        return f"{who} at {self.address}, port {self.port}"


def described() -> Place:
    """The place that the environment gives to this process; the only one, if it gives none.

    Raises:
        ValueError: on what is no number, a number that does not exist, or a variable without the others.
    """
    if "WORLD_SIZE" not in os.environ:
        if number_of("RANK", 0) > 0:
            raise ValueError(
                f"RANK={os.environ['RANK']} is set and WORLD_SIZE is not: start the processes with torchrun, or "
                "unset RANK"
            )
        return Place()
    count = number_of("WORLD_SIZE", 1, least=1)
    rank = number_of("RANK", 0)
    if rank >= count:
        raise ValueError(
            f"RANK={rank} with WORLD_SIZE={count}: processes have numbers from 0 to {count - 1}; start them with "
            "torchrun"
        )
    if count == 1:
        return Place()
    if missing := [name for name in TORCHRUN if name not in os.environ]:
        raise ValueError(f"WORLD_SIZE is set but {', '.join(missing)} is not: start the processes with torchrun")
    port = number_of("MASTER_PORT", 0, least=1)
    if port >= 2**16:
        raise ValueError(f"MASTER_PORT={port}: a port is a number from 1 to 65535, for example MASTER_PORT=29500")
    return Place(rank, count, os.environ["MASTER_ADDR"], port)


def number_of(name: str, missing: int, least: int = 0) -> int:
    """The whole number in a variable of the environment; `missing` if there is none. Raises ValueError, naming it."""
    text = os.environ.get(name)
    if text is None:
        return missing
    if not (text.isascii() and text.isdigit()) or int(text) < least:
        raise ValueError(
            f"{name}={text} in the environment: it is a whole number of at least {least}; torchrun sets it, so start "
            f"the processes with torchrun, or unset {name}"
        )
    return int(text)


@contextmanager
def waiting(place: Place) -> Iterator[None]:
    """Meet others; who waits for longer than a moment says on stderr for whom.

    Raises:
        ValueError: if there is no machine of that name.
        ConnectionError: if they do not meet, or the port is taken.
    """
    saying = threading.Timer(SILENCE, say_who_waits, [place])
    saying.daemon = True
    saying.start()
    try:
        answered(lambda: socket.getaddrinfo(place.address, place.port))
        yield
    except (socket.gaierror, UnicodeError) as error:
        raise ValueError(
            f"MASTER_ADDR={place.address}: there is no machine of this name ({error}); process 0 runs there, so name "
            "the machine on which it was started"
        ) from error
    except RuntimeError as error:  # that of PyTorch, which names addresses in C++
        said = str(error)
        if "EADDRINUSE" in said or "in use" in said:
            raise ConnectionError(
                f"MASTER_PORT={place.port} is taken by another program on {place.address}: choose another port, the "
                "same for all processes"
            ) from error
        raise ConnectionError(
            f"process {place.rank} of {place.count} did not meet {place.others} within {TIMEOUT.total_seconds():g} "
            f"seconds: start all of them, with the same MASTER_ADDR and MASTER_PORT ({said.splitlines()[0][:200]})"
        ) from error
    finally:
        saying.cancel()


def say_who_waits(place: Place) -> None:
    """Print for whom this process waits."""
    print(f"process {place.rank} of {place.count} waits for {place.others} ...", file=sys.stderr, flush=True)


def answered(ask: Callable[[], Result]) -> Result:
    """What a function returns that waits outside Python, in a thread: a signal still ends this process at once."""
    found: list[Result] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(ask())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="fmcore meeting", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.05)
    if failed:
        raise failed[0]
    return found[0]
