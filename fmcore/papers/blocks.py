"""A table of a paper beside ours, and how it is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Block:
    """One table: a title, names of columns, rows of text of which the first cell is a name, and what the paper says."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    paper: str

    @property
    def has_numbers(self) -> bool:
        """Whether any row has a number."""
        return any(any(row[1:]) for row in self.rows)


def with_spread(values: dict[str, Any], of: str) -> str:
    """A value with its spread, if it has one; blank if it was not measured."""
    if of not in values:
        return ""
    value, spread = values[of]["value"], values[of]["spread"]
    return f"{value:.2f}" + (f" ± {spread:.2f}" if spread else "")


def show_blocks(title: str, blocks: Sequence[Block], notes: Sequence[str]) -> None:
    """Print tables one below the other, and after those of one figure what the paper says about it."""
    from rich.table import Table

    from fmcore.console.tables import WHOLE, Console

    console = Console(least=140)  # wide tables, beside which notes of 80 columns look lost
    console.print(f"{title}: paper against ours; blank where nothing was run\n", markup=False)
    shown = [block for block in blocks if block.has_numbers]
    for block, after in zip(shown, [*shown[1:], None], strict=True):
        table = Table(title=block.title, title_justify="left", min_width=len(block.title))
        for number, name in enumerate(block.columns):
            table.add_column(name, justify="right" if number else "left", **WHOLE)
        for row in block.rows:
            table.add_row(*row)
        console.show(table)
        if after is None or after.paper != block.paper:
            console.print(f"Paper: {block.paper}\n", markup=False)
    for block in blocks:
        if not block.has_numbers:
            console.print(f"- not run: {block.title}", markup=False)
    for note in notes:
        console.print(f"- {note}", markup=False)


def cell(value: float | None, places: int = 2) -> str:
    """A number with so many decimals and commas between thousands; nothing for None."""
    return "" if value is None else f"{value:,.{places}f}"
