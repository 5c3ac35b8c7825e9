"""Tables in narrow terminals, and with signs that these lack."""

from __future__ import annotations

import io
import os
import sys

import pytest
from rich.table import Table

from fmcore.console.tables import WHOLE, WORDS, Console

NAMES = ["bertrand2025/imagenet128/collapse", "three directions", "1.25 ± 0.50"]
SENTENCE = "sizes 8, 16, 32, 64 and 128; 256 pairs at 100 times, drawn from the split for training"


@pytest.fixture
def stdout(monkeypatch):
    """Prints to bytes in the given width and encoding; returns what was printed, as text."""

    def with_stdout(show, width, encoding):
        content = io.BytesIO()
        stream = io.TextIOWrapper(content, encoding=encoding, write_through=True)
        monkeypatch.setattr(sys, "stdout", stream)
        if width is None:
            monkeypatch.delenv("COLUMNS", raising=False)
            monkeypatch.setattr(os, "get_terminal_size", no_terminal)  # rich asks stdin and stderr too
        else:
            monkeypatch.setenv("COLUMNS", str(width))
        show()
        return content.getvalue().decode(encoding)

    return with_stdout


def no_terminal(*_):
    raise OSError("not a terminal")


def show_table():
    table = Table(title="what there is")
    for title in ("name", "data", "value"):
        table.add_column(title, **WHOLE)
    for title in ("what", "why"):
        table.add_column(title, **WORDS)
    table.add_row(*NAMES, SENTENCE, SENTENCE)
    table.add_row("short", "x", "2", "y", "z")
    Console().show(table)


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
@pytest.mark.parametrize("width", [10, 40, 80, 120, 400, None])
def test_names_stay_whole_and_the_frame_straight(stdout, width, encoding):
    printed = stdout(show_table, width, encoding)
    sign = "+-" if encoding == "ascii" else "±"
    for name in NAMES:
        assert name.replace("±", sign) in printed
    assert "…" not in printed
    lines = printed.rstrip("\n").split("\n")[1:]  # below the title
    assert {len(line) for line in lines} == {len(lines[0])}
    assert len(lines[0]) <= max(width or 80, 140)  # not wider than it needs, either
    rows = [line.replace("|", "│").split("│") for line in lines]
    column = " ".join(row[4].strip() for row in rows if len(row) == 7 and row[4].strip() != "what")
    assert column.split()[: len(SENTENCE.split())] == SENTENCE.split(), "a word was broken or lost"


def test_a_wide_terminal_is_not_widened(stdout):
    console_width = []
    stdout(lambda: console_width.append((Console().width, Console(least=140).width)), 200, "utf-8")
    stdout(lambda: console_width.append((Console().width, Console(least=140).width)), 60, "utf-8")
    assert console_width == [(200, 200), (60, 140)]


def test_text_after_a_table_has_the_width_of_the_terminal(stdout):
    def show():
        console = Console()
        table = Table()
        table.add_column("name", **WHOLE)
        table.add_row("n" * 60)
        console.show(table)
        console.print("word " * 20)

    printed = stdout(show, 40, "utf-8")
    assert max(len(line) for line in printed.splitlines() if "word" in line) <= 40
    assert "n" * 60 in printed
