"""How two programs are compared: in turn, in one process, by the ratio of their times."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what, against: our program and the one it is compared with.
        ratio: median over repetitions of their time over ours (speed), or of our amount over theirs (memory).
        low, high: quartiles of the ratio.
        goal: what the ratio should reach, "at least" or "at most" so much, or "as fast": both do the same work, and
            the quartiles reach 1.
        note: how far the two results differ, or what else there is to say.
    """

    what: str
    against: str
    ratio: float
    low: float
    high: float
    goal: str
    note: str = ""

    def __post_init__(self) -> None:
        for watch in watchers:
            watch(self)

    @property
    def reached(self) -> bool:
        """Whether the ratio keeps to the goal."""
        if self.goal == "as fast":
            return self.high >= 1
        word, number = self.goal.rsplit(" ", 1)
        return self.ratio >= float(number) if word == "at least" else self.ratio <= float(number)

    @property
    def line(self) -> str:
        """The row in Markdown."""
        ratio = f"{self.ratio:.2f} ({self.low:.2f} to {self.high:.2f})"
        reached = "yes" if self.reached else "no"
        return f"| {self.what} | {self.against} | {ratio} | {self.goal} | {reached} | {self.note} |"


watchers: list[Callable[[Row], object]] = []  # each is called with a row as soon as it is measured


def speed(ours: Callable[[], object], theirs: Callable[[], object], repetitions: int) -> tuple[float, float, float]:
    """Return the median and the quartiles of (their time / our time) over pairs of runs, after one run to warm up.

    The two take turns, and who goes first alternates, so that whatever else the machine does meets both alike.
    """
    pair = [ours, theirs]
    ratios = []
    for repetition in range(repetitions + 1):
        spent = [0.0, 0.0]
        for which in (0, 1) if repetition % 2 else (1, 0):
            started = time.perf_counter()
            pair[which]()
            spent[which] = time.perf_counter() - started
        ratios.append(spent[1] / spent[0])
    low, median, high = np.quantile(ratios[1:], [0.25, 0.5, 0.75])
    return float(median), float(low), float(high)


def installed(peer: str) -> bool:
    """Whether a peer can be imported; says so when it cannot."""
    if importlib.util.find_spec(peer) is not None:
        return True
    print(f"{peer} is not installed: its rows are left out (`make bench` installs it).")
    return False


def table(rows: list[Row]) -> str:
    """Return the rows as a table in Markdown."""
    return "\n".join(
        ["| what | against | ratio (quartiles) | goal | reached | note |", "|---|---|---|---|---|---|"]
        + [row.line for row in rows]
    )


def busy() -> str:
    """Return a warning if the machine has other work, which makes ratios scatter; empty if not."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    return (
        f"The machine is busy (load {load:.1f} on {cores} cores): repeat when it is not.\n" if load > cores / 2 else ""
    )
