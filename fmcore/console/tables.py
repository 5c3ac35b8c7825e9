"""Tables that are never narrower than what they hold. Import this where a table is printed: it loads rich."""

from __future__ import annotations

from typing import Any

import rich.console
from rich.table import Table
from rich.text import Text

from fmcore.console.signs import writable

# Columns by what they hold, as arguments of rich's add_column. A name or a number stays in one piece; sentences run
# over several lines. All such columns of a table have one least width: rich takes room from the widest first.
WHOLE: dict[str, Any] = {"no_wrap": True}
WORDS: dict[str, Any] = {"overflow": "fold", "min_width": 18}


class Console(rich.console.Console):
    """Prints text and tables to stdout, with signs that its encoding has.

    In a pipe it is as wide as the terminal that the command was typed in, and 80 where there is none.

    Args:
        least: a terminal that is narrower than this many columns is treated as one of this width.
    """

    def __init__(self, least: int = 0) -> None:
        super().__init__()
        self.width = max(self.width, least)

    def render_str(self, text: str, **options: Any) -> Text:
        """Text to print; replaced here, before widths are computed, since "+-" is wider than "±"."""
        return super().render_str(writable(text, getattr(self.file, "encoding", None)), **options)

    def show(self, table: Table) -> None:
        """Print a table, beyond the edge of the terminal if it is too narrow for the columns that are `WHOLE`."""
        own = self.width
        room = self.options.update(width=10_000)  # measured in less, it would seem to need no more than that
        for column in table.columns:
            if column.no_wrap:  # of which rich would take away as much as of the others, down to the longest word
                texts = [column.header, *column.cells]
                column.min_width = max(self.measure(text, options=room).maximum for text in texts)
        self.width = max(own, self.measure(table, options=room).minimum)
        self.print(table)
        self.width = own
