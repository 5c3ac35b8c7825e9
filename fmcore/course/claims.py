"""The last table of a chapter, "What you saw": each claim, what was expected and what was seen.

    claims.table([
        claims.Claim("Euler's error falls with order 1", slope, claims.about(1.0, 0.1), digits=1),
        claims.Claim("the flow comes back to where it started", error, claims.below(1e-4)),
    ])

A rule says both what is expected and whether a number meets it. With `digits` the number is rounded to what is the same
on every machine. Without, it is shown as "≈ 3.2e-7": a number of the machine that ran it, of which only the tick counts
where outputs are compared. The first rows are in view, the others are folded below them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from fmcore.console.signs import writable
from fmcore.course.display import Rendered, show

IN_VIEW = 10  # rows that a reader takes in; authors put those first that matter most
HEAD = ("", "Claim", "Expected", "Seen")


@dataclass(frozen=True)
class Rule:
    """Holds for numbers in [low, high] (open ends at infinity); `text` says so in words."""

    low: float
    high: float
    text: str
    strict: bool = False

    def holds(self, value: float) -> bool:
        """True when the value meets the rule. Not-a-number never does."""
        if self.strict:
            return self.low < value < self.high
        return self.low <= value <= self.high


def about(value: float, tolerance: float) -> Rule:
    """Within `tolerance` of `value`."""
    if tolerance <= 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}; for an exact value use claims.exactly({value})")
    return Rule(value - tolerance, value + tolerance, f"{_short(value)} ± {_short(tolerance)}")


def below(bound: float) -> Rule:
    """Strictly less than `bound`."""
    return Rule(-math.inf, bound, f"< {_short(bound)}", strict=True)


def above(bound: float) -> Rule:
    """Strictly more than `bound`."""
    return Rule(bound, math.inf, f"> {_short(bound)}", strict=True)


def between(low: float, high: float) -> Rule:
    """From `low` to `high`, both included."""
    if not low < high:
        raise ValueError(f"between(low, high) needs low < high, got {low} and {high}")
    return Rule(low, high, f"{_short(low)} to {_short(high)}")


def exactly(value: float) -> Rule:
    """Equal to `value`: for counts."""
    return Rule(value, value, f"= {_short(value)}")


@dataclass(frozen=True)
class Claim:
    """One line of the table: a statement, the number measured for it, and the rule that the number should meet.

    digits: decimals shown of the measured number, where these are the same on every machine. None is for numbers that
    differ from machine to machine (errors near zero, outcomes of training): shown after "≈", to two digits or so.
    """

    statement: str
    measured: Any
    rule: Rule
    digits: int | None = None

    @property
    def value(self) -> float:
        """The measured number as a float. Raises TypeError when it is not one number."""
        try:
            return float(self.measured.detach() if hasattr(self.measured, "detach") else self.measured)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"claim {self.statement!r}: measured must be one number, got {type(self.measured).__name__}"
            ) from error

    @property
    def holds(self) -> bool:
        """Whether the measured number meets the rule."""
        return self.rule.holds(self.value)

    @property
    def seen(self) -> str:
        """What the table shows as seen: the rounded number, or "≈" and the number of this machine."""
        if not self.holds:
            return f"{self.value:.6g}"
        if self.digits is not None:
            return f"{round(self.value, self.digits) + 0.0:,.{max(self.digits, 0)}f}"  # + 0.0 turns -0.0 into 0.0
        if self.rule.low == self.rule.high:
            return _short(self.value)
        if 1000 <= abs(self.value) < 1e7:
            return f"≈ {self.value:,.0f}"
        return f"≈ {_short(float(f'{self.value:.2g}') + 0.0)}"


def table(rows: Sequence[Claim], title: str = "What you saw") -> None:
    """Show the claims as a table, then raise AssertionError naming each claim that does not hold."""
    if not rows:
        raise ValueError("claims.table needs at least one claim")
    show(render(rows, title, getattr(sys.stdout, "encoding", None)))
    failed = [row for row in rows if not row.holds]
    if failed:
        lines = "\n".join(f"  {row.statement}: expected {row.rule.text}, measured {row.value:.6g}" for row in failed)
        raise AssertionError(f"{len(failed)} of {len(rows)} claims do not hold:\n{lines}")


def render(rows: Sequence[Claim], title: str = "What you saw", encoding: str | None = None) -> Rendered:
    """The table as text (columns aligned) and HTML (the rows after the first ten folded), without raising.

    encoding: that of the terminal where the text is printed; signs that it lacks are spelled. None has all signs.
    """
    body = [("✓" if row.holds else "✗", row.statement, row.rule.text, row.seen) for row in rows]
    lines = [[writable(cell, encoding) for cell in line] for line in [HEAD, *body]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    text = [title, *("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)]
    html = _html(body[:IN_VIEW], title)
    if folded := body[IN_VIEW:]:
        failing = sum(mark == "✗" for mark, *_ in folded)
        said = f"{len(folded)} more" + (f", of which {failing} do not hold" if failing else "")
        html += f"<details{' open' if failing else ''}><summary>{said}</summary>{_html(folded)}</details>"
    return Rendered("\n".join(text), html)


def _html(body: Sequence[tuple[str, str, str, str]], title: str = "") -> str:
    """An HTML table of marks, claims, what was expected and what was seen."""
    cell = "padding:.35em .8em;text-align:left;vertical-align:top"
    lines = "".join(
        f'<tr><td style="{cell};color:{"#1A7F37" if mark == "✓" else "#B42318"}">{mark}</td>'
        f'<td style="{cell}">{escape(claim)}</td><td style="{cell};white-space:nowrap">{escape(expected)}</td>'
        f'<td style="{cell};white-space:nowrap"><b>{escape(seen)}</b></td></tr>'
        for mark, claim, expected, seen in body
    )
    heads = "".join(f'<th scope="col" style="{cell}">{name}</th>' for name in HEAD)
    caption = f'<caption style="text-align:left;font-weight:600;padding:.3em .8em">{escape(title)}</caption>'
    return (
        f'<table style="border-collapse:collapse;font-size:100%">{caption if title else ""}'
        f"<thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"
    )


def _short(value: float) -> str:
    if 1000 <= abs(value) < 1e9 and value == int(value):
        return f"{int(value):,}"
    return f"{value:g}".replace("e-0", "e-").replace("e+0", "e+")
