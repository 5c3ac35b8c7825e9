"""The card that opens a chapter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fmcore.course import card


@pytest.fixture
def times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "chapter_times.json"
    monkeypatch.setattr(card, "TIMES", file)
    return file


def test_run_time_is_what_was_measured(times: Path) -> None:
    assert card.run_time("01_diffusion") == "not measured yet"
    times.write_text(
        json.dumps({"01_diffusion": {"seconds": 11.2, "cores": 2}, "06_images": {"seconds": 114, "cores": 1}})
    )
    assert card.run_time("01_diffusion") == "12 seconds on 2 CPU cores (measured)"
    assert card.run_time("06_images") == "1.9 minutes on 1 CPU core (measured)"
    assert card.run_time("02_flows") == "not measured yet"


def test_card_says_everything_in_text_and_html(times: Path, capsys: pytest.CaptureFixture[str]) -> None:
    goals, before, exercises = ["tell a < b"], ["chapter 00"], ["1. first", "second"]
    card.show("01_diffusion", goals, before, exercises)
    text = capsys.readouterr().out
    html = card.render("01_diffusion", goals, before, exercises).html
    for words in ("Chapter 01: Diffusion", "chapter 00", "not measured yet", "1. first", "2. second"):
        assert words in text
        assert words in html
    assert "tell a < b" in text
    assert "tell a &lt; b" in html


@pytest.mark.parametrize("name", ["diffusion", "01", "x1_diffusion"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="01_diffusion"):
        card.render(name, goals=["x"])


def test_one_string_where_a_list_belongs_is_refused() -> None:
    with pytest.raises(TypeError, match=r"write \['know things'\]"):
        card.render("01_diffusion", goals="know things")
