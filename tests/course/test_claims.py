"""The table "What you saw"."""

from __future__ import annotations

import io
import math
import re
import sys

import pytest
import torch

from fmcore.course import claims
from fmcore.course.claims import Claim, about, above, below, between, exactly


@pytest.mark.parametrize(
    ("rule", "yes", "no", "text"),
    [
        (about(1.0, 0.1), [0.9, 1.0, 1.1], [0.89, 1.11], "1 ± 0.1"),
        (below(1e-4), [0.0, -5.0, 0.99e-4], [1e-4, 1.0], "< 0.0001"),
        (below(1e-6), [0.0], [1e-6], "< 1e-6"),
        (above(0.9), [0.91, 5.0], [0.9, -1.0], "> 0.9"),
        (between(2, 4), [2, 3, 4], [1.9, 4.1], "2 to 4"),
        (exactly(40), [40], [39, 41], "= 40"),
        (exactly(35_746_307), [35_746_307], [35_746_308], "= 35,746,307"),
    ],
)
def test_a_rule_holds_where_its_words_say(rule: claims.Rule, yes: list[float], no: list[float], text: str) -> None:
    assert rule.text == text
    assert all(rule.holds(value) for value in yes)
    assert not any(rule.holds(value) for value in [*no, math.nan])


def test_numbers_are_rounded_or_marked_as_those_of_one_machine() -> None:
    assert Claim("slope", torch.tensor(1.0234), about(1, 0.1), digits=1).seen == "1.0"
    assert Claim("zero", -1e-9, about(0, 0.1), digits=2).seen == "0.00"  # no minus sign that depends on rounding
    assert Claim("images", 50_000, exactly(50_000), digits=0).seen == "50,000"
    assert Claim("error", 3.217e-7, below(1e-5)).seen == "≈ 3.2e-7"
    assert Claim("ratio", 12345.678, above(10)).seen == "≈ 12,346"
    assert Claim("count", 40, exactly(40)).seen == "40"
    assert Claim("error", 0.5, below(1e-5)).seen == "0.5"  # a claim that fails shows its number


def test_the_table_is_the_same_text_for_numbers_that_differ_a_little_but_for_what_is_marked() -> None:
    texts = []
    for noise in (0.0, 1e-3):
        rows = [Claim("order", 1.02 + noise, about(1, 0.1), digits=1), Claim("gap", 1e-7 + noise, below(0.01))]
        texts.append(str(claims.render(rows)))
    assert texts[0] != texts[1]
    assert re.sub("≈ .*", "", texts[0]) == re.sub("≈ .*", "", texts[1])
    lines = texts[0].splitlines()
    assert lines[0] == "What you saw"
    assert [line.split()[0] for line in lines[2:]] == ["✓", "✓"]
    assert {line.rindex(seen) for line, seen in zip(lines[2:], ("1.0", "≈"), strict=True)} == {lines[1].index("Seen")}


def test_ten_rows_are_in_view_and_the_others_folded() -> None:
    rows = [Claim(f"claim {i}", i, exactly(i)) for i in range(13)]
    in_view, folded = claims.render(rows).html.split("<details>")
    assert in_view.count("<tr><td") == 10
    assert folded.count("<tr><td") == 3
    assert "<summary>3 more</summary>" in folded
    assert str(claims.render(rows)).count("✓") == 13
    assert "details" not in claims.render(rows[:10]).html


def test_a_folded_claim_that_fails_is_unfolded() -> None:
    rows = [Claim(f"claim {i}", i, exactly(i)) for i in range(11)]
    html = claims.render([*rows, Claim("wrong", 1, exactly(2))]).html
    assert "<details open><summary>2 more, of which 1 do not hold</summary>" in html


def test_a_claim_that_does_not_hold_is_named_with_its_number(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Claim("the flow comes back", 0.5, below(1e-3)), Claim("two and two", 4, exactly(4), digits=0)]
    with pytest.raises(AssertionError, match=r"1 of 2 claims.*\n.*the flow comes back: expected < 0.001, measured 0.5"):
        claims.table(rows)
    assert "✗  the flow comes back" in capsys.readouterr().out  # the reader sees the table before the error


def test_columns_align_where_signs_are_spelled(monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding="ascii", write_through=True))
    with pytest.raises(AssertionError):
        claims.table([Claim("σ² is right", 1.02, about(1, 0.1), digits=1), Claim("gap", 1.0, below(0.01))])
    assert content.getvalue().decode().splitlines() == [
        "What you saw",
        "     Claim             Expected  Seen",
        "yes  sigma^2 is right  1 +- 0.1  1.0",
        "no   gap               < 0.01    1",
    ]


def test_html_holds_the_same_numbers_and_escapes_words() -> None:
    html = claims.render([Claim("a < b", 0.25, about(0.2, 0.1), digits=2)]).html
    assert "a &lt; b" in html
    assert "0.25" in html
    assert "0.2 ± 0.1" in html


def test_mistakes_of_authors_are_told() -> None:
    with pytest.raises(ValueError, match="exactly"):
        about(1.0, 0.0)
    with pytest.raises(ValueError, match="low < high"):
        between(2, 1)
    with pytest.raises(ValueError, match="at least one"):
        claims.table([])
    with pytest.raises(TypeError, match="'many'.*one number"):
        claims.table([Claim("many", torch.zeros(3), below(1))])
