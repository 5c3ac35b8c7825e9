"""Signs that an encoding lacks."""

from __future__ import annotations

import io
import sys

import pytest

from fmcore.console import signs


@pytest.mark.parametrize(
    ("sign", "text"),
    [
        ("±", "+-"),
        ("✓", "yes"),
        ("✗", "no"),
        ("²", "^2"),
        ("é", "e"),
        ("ñ", "n"),
        ("₀", "0"),
        ("σ", "sigma"),
        ("Σ", "Sigma"),
        ("χ", "chi"),
        ("…", "..."),
        ("−", "-"),
        ("─", "-"),
        ("│", "|"),
        ("╭", "+"),
        ("┼", "+"),
        ("█", "#"),
        ("▏", "#"),
        ("漢", "?"),
        ("\udce9", "?"),  # a byte of a file name that is no text
        ("a", "a"),
    ],
)
def test_a_sign_is_spelled_by_what_it_means(sign: str, text: str) -> None:
    assert signs.spelled(sign) == text


def test_every_sign_there_is_becomes_ascii() -> None:
    for number in range(0x3000):
        text = signs.spelled(chr(number))
        assert text
        assert text.isascii(), f"{chr(number)!r} becomes {text!r}"


def test_only_what_the_encoding_lacks_is_replaced() -> None:
    text = "✓ σ² ± é"
    assert signs.writable(text, "utf-8") == text
    assert signs.writable(text, None) == text
    assert signs.writable(text, "no such encoding") == text
    assert signs.writable(text, "cp1252") == "yes sigma² ± é"
    assert signs.writable(text, "ascii") == "yes sigma^2 +- e"
    assert signs.writable("a\udce9.png", "utf-8") == "a?.png"


def printed(encoding: str, monkeypatch: pytest.MonkeyPatch) -> tuple[io.TextIOWrapper, io.BytesIO]:
    content = io.BytesIO()
    stream = io.TextIOWrapper(content, encoding=encoding, write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    return stream, content


def test_anything_printed_to_a_stream_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, content = printed("cp1252", monkeypatch)
    with pytest.raises(UnicodeEncodeError):
        print("✓ 1 ± 2")
    signs.spell_on(stream, io.StringIO(), None)
    print("✓ 1 ± 2")
    assert content.getvalue().decode("cp1252") == "yes 1 ± 2\n"


def test_said_with_the_signs_that_stdout_has(monkeypatch: pytest.MonkeyPatch) -> None:
    _, content = printed("ascii", monkeypatch)
    signs.say("✗ drift: t² is missing")
    assert content.getvalue() == b"no drift: t^2 is missing\n"
    memory = io.StringIO()
    monkeypatch.setattr(sys, "stdout", memory)
    signs.say("✗ drift")
    assert memory.getvalue() == "✗ drift\n"
