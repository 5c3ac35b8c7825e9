"""The last table of a chapter, "What you saw": each claim with its number, checked where it stands.

    claims.table([
        claims.Claim("Euler's error falls with order 1", slope, claims.about(1.0, 0.1), digits=1),
        claims.Claim("the flow comes back to where it started", error, claims.below(1e-4)),
    ])

A rule says both what is expected and whether a number meets it. With `digits` the number is shown, rounded; without,
the table states the inequality, so that the text is the same on every machine.
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

    digits: decimals shown of the measured number. None states the expected inequality in place of the number: choose
    it for numbers that differ from machine to machine (errors near zero, outcomes of training).
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
    def shown(self) -> str:
        """What the table shows as measured: the rounded number, or the rule it meets."""
        if not self.holds:
            return f"{self.value:.6g}"
        if self.digits is None:
            return self.rule.text
        rounded = round(self.value, self.digits)
        return f"{rounded + 0.0:.{max(self.digits, 0)}f}"  # + 0.0 turns -0.0 into 0.0

    @property
    def expected(self) -> str:
        """The rule in words; empty when the measured column already states it."""
        return "" if self.holds and self.digits is None else self.rule.text


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
    """The table as text (columns aligned) and HTML, without raising.

    encoding: that of the terminal where the text is printed; signs that it lacks are spelled. None has all signs.
    """
    head = ("", "Claim", "Measured", "Expected")
    body = [("✓" if row.holds else "✗", row.statement, row.shown, row.expected) for row in rows]
    lines = [[writable(c, encoding) for c in line] for line in [head, *body]]
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    text = [
        title,
        *("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines),
    ]
    cell = "padding:.35em .8em;text-align:left;vertical-align:top"
    html = "".join(
        f'<tr><td style="{cell};color:{"#1A7F37" if mark == "✓" else "#B42318"}">{mark}</td>'
        f'<td style="{cell}">{escape(claim)}</td><td style="{cell};white-space:nowrap"><b>{escape(measured)}</b></td>'
        f'<td style="{cell};white-space:nowrap;opacity:.75">{escape(expected)}</td></tr>'
        for mark, claim, measured, expected in body
    )
    heads = "".join(f'<th style="{cell}">{name}</th>' for name in head)
    return Rendered(
        "\n".join(text),
        f'<table style="border-collapse:collapse;font-size:100%"><caption style="text-align:left;font-weight:600;'
        f'padding:.3em .8em">{escape(title)}</caption><thead><tr>{heads}</tr></thead><tbody>{html}</tbody></table>',
    )


def _short(value: float) -> str:
    return f"{value:g}".replace("e-0", "e-").replace("e+0", "e+")
