"""The table "What you saw"."""

from __future__ import annotations

import io
import math
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
    ],
)
def test_a_rule_holds_where_its_words_say(rule: claims.Rule, yes: list[float], no: list[float], text: str) -> None:
    assert rule.text == text
    assert all(rule.holds(value) for value in yes)
    assert not any(rule.holds(value) for value in [*no, math.nan])


def test_numbers_are_rounded_or_replaced_by_the_inequality() -> None:
    assert Claim("slope", torch.tensor(1.0234), about(1, 0.1), digits=1).shown == "1.0"
    assert Claim("zero", -1e-9, about(0, 0.1), digits=2).shown == "0.00"  # no minus sign that depends on rounding
    assert Claim("error", 3.2e-7, below(1e-5)).shown == "< 1e-5"
    assert Claim("error", 0.5, below(1e-5)).shown == "0.5"  # a claim that fails shows its number


def test_the_table_is_the_same_text_for_numbers_that_differ_a_little(capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for noise in (0.0, 1e-3):
        claims.table([Claim("order", 1.02 + noise, about(1, 0.1), digits=1), Claim("gap", 1e-7 + noise, below(0.01))])
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    lines = texts[0].splitlines()
    assert lines[0] == "What you saw"
    assert {line.index("1") for line in lines if "order" in line} == {lines[1].index("Measured")}  # columns align


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
        "     Claim             Measured  Expected",
        "yes  sigma^2 is right  1.0       1 +- 0.1",
        "no   gap               1         < 0.01",
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
