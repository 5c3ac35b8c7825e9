"""Signs that an encoding lacks, written with those that it has.

A terminal with LANG=C knows ASCII only, one of Windows often some 200 signs: no tick, no Greek letters, no frames of
tables. Printing such a sign there is an error in the middle of a line. Here it becomes "+-", "yes", "sigma" or "|".
"""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata
from contextlib import suppress
from typing import TextIO

ERRORS = "fmcore.spelled"  # the name under which Python finds `_replacement`
SPELLED = {
    "±": "+-",
    "✓": "yes",
    "✗": "no",
    "²": "^2",
    "³": "^3",
    "×": "x",
    "·": "*",
    "•": "*",
    "−": "-",
    "‐": "-",
    "–": "-",
    "—": "-",
    "≤": "<=",
    "≥": ">=",
    "≠": "!=",
    "≈": "~",
    "→": "->",
    "←": "<-",
    "↦": "->",
    "∞": "inf",
    "√": "sqrt",
    "∂": "d",
    "‖": "||",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
}


def spelled(sign: str) -> str:
    """One sign in ASCII: by its meaning, its Greek name, its place in a frame or without its accent; else "?"."""
    if sign.isascii():
        return sign
    if sign in SPELLED:
        return SPELLED[sign]
    name = unicodedata.name(sign, "")
    if name.startswith("BOX DRAWINGS"):
        line = name.split()[-1] if " AND " not in name else ""
        return {"HORIZONTAL": "-", "VERTICAL": "|"}.get(line, "+")
    if "BLOCK" in name or name.endswith("SHADE"):
        return "#"
    if name.startswith("GREEK") and " LETTER " in name:
        letter = name.partition(" LETTER ")[2].split()[0]
        return letter.capitalize() if " CAPITAL " in name else letter.lower()
    parts = unicodedata.normalize("NFKD", sign)  # e and an accent for é, 5 for a small 5, three dots for an ellipsis
    if parts == sign:
        return "?"
    return "".join(spelled(part) for part in parts if not unicodedata.combining(part)) or "?"


def writable(text: str, encoding: str | None) -> str:
    """The text, with each sign that the encoding lacks in ASCII; as it is where the encoding is None or not known."""
    try:
        text.encode(encoding or "utf-8")
    except LookupError:
        return text
    except UnicodeEncodeError:
        return "".join(sign if _has(encoding or "utf-8", sign) else spelled(sign) for sign in text)
    return text


def say(text: object) -> None:
    """Print to stdout what its encoding can write of the text."""
    print(writable(str(text), getattr(sys.stdout, "encoding", None)))


def spell_on(*streams: TextIO | None) -> None:
    """Let whatever is printed to these streams from now on be written, by anyone, as `writable` has it."""
    codecs.register_error(ERRORS, _replacement)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):  # text that stays in memory has every sign
            with suppress(OSError):  # a file that has become a pipe cannot say where it stands
                stream.reconfigure(errors=ERRORS)


def _has(encoding: str, sign: str) -> bool:
    try:
        sign.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _replacement(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(spelled(sign) for sign in error.object[error.start : error.end]), error.end
