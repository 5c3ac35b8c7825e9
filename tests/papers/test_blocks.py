"""A table beside ours: text of numbers, and what is printed around the tables."""

import pytest

from fmcore.papers.blocks import Block, cell, show_blocks, with_spread

COLUMNS = ("method", "first\nnumber", "second")


def block(title, *rows, paper="It is so."):
    return Block(title, COLUMNS, rows, paper)


@pytest.mark.parametrize(
    ("value", "places", "text"),
    [
        (None, 2, ""),
        (0.0, 2, "0.00"),
        (0.125, 1, "0.1"),
        (2.675, 0, "3"),
        (391_000, 0, "391,000"),
        (12345.678, 2, "12,345.68"),
    ],
)
def test_numbers_as_text(value, places, text):
    assert cell(value, places) == text


def test_numbers_have_two_decimals_unless_told_otherwise():
    assert cell(0.456) == "0.46"


def test_a_spread_follows_its_value_where_there_is_one():
    values = {"a": {"value": 7.456, "spread": 0.251}, "b": {"value": 1.25, "spread": None}}
    assert with_spread(values, "a") == "7.46 ± 0.25"
    assert with_spread(values, "b") == "1.25"
    assert with_spread(values, "c") == ""


def test_a_block_is_measured_if_a_row_has_more_than_its_name():
    assert block("a", ("x", "", "1")).has_numbers
    assert not block("a", ("x", "", ""), ("y", "", "")).has_numbers
    assert not block("a").has_numbers


def test_what_the_paper_says_follows_the_last_table_of_its_figure(capsys):
    row = ("x", "1", "2")
    show_blocks(
        "title",
        [block("one", row), block("two", row), block("empty", ("x", "", "")), block("three", row, paper="Otherwise.")],
        ["Read this."],
    )
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0] == "title: paper against ours; blank where nothing was run"
    texts = [line for line in lines if line in ("one", "two", "three") or line.startswith(("Paper", "- "))]
    assert texts == ["one", "two", "Paper: It is so.", "three", "Paper: Otherwise.", "- not run: empty", "- Read this."]


def test_markup_in_names_is_printed_as_it_is(capsys):
    show_blocks("[t]", [block("a", ("x", "1", "2"), paper="in [0, 1]")], ["at [1, 2]"])
    out = capsys.readouterr().out
    assert "[t]: paper" in out
    assert "Paper: in [0, 1]" in out
    assert "- at [1, 2]" in out
