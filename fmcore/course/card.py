"""The card that opens a chapter: what it teaches, what to know before, how long it runs, which exercises follow."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from fmcore.course import display
from fmcore.course.style import PATH

TIMES = Path(__file__).resolve().parents[2] / "data" / "results" / "chapter_times.json"
_NUMBER = re.compile(r"^\d+\.\s*")
_HEAD = "font-size:85%;letter-spacing:.04em;text-transform:uppercase;opacity:.7;margin-bottom:.3em"
_FRAME = "border:1px solid #D0D7DE;border-radius:6px;padding:1em 1.2em;line-height:1.5"


def show(chapter: str, goals: Sequence[str], before: Sequence[str] = (), exercises: Sequence[str] = ()) -> None:
    """Show the card of `chapter`, for example "01_diffusion".

    The run time is read from data/results/chapter_times.json, which the build of the chapters writes.
    """
    display.show(render(chapter, goals, before, exercises))


def render(
    chapter: str, goals: Sequence[str], before: Sequence[str] = (), exercises: Sequence[str] = ()
) -> display.Rendered:
    """The card as text and HTML."""
    number, _, name = chapter.partition("_")
    if not number.isdigit() or not name:
        raise ValueError(f'a chapter is named like "01_diffusion", got {chapter!r}')
    for part, lines in (("goals", goals), ("before", before), ("exercises", exercises)):
        if isinstance(lines, str):
            raise TypeError(f"{part} must be a list of sentences, got one string; write [{lines!r}]")
    numbered = [f"{i}. {_NUMBER.sub('', line)}" for i, line in enumerate(exercises, 1)]
    parts = [
        ("After this chapter you can", list(goals), 24),
        ("Know before", list(before) or ["nothing: start here"], 12),
        ("Exercises", numbered or ["none"], 14),
        ("Run time", [run_time(chapter)], 9),
    ]
    title = f"Chapter {number}: {name.replace('_', ' ').capitalize()}"
    text = [title]
    blocks = ""
    for head, lines, width in parts:
        text += [f"  {head}", *(f"    {line}" for line in lines)]
        items = "".join(f'<div style="margin-bottom:.25em">{escape(line)}</div>' for line in lines)
        blocks += f'<div style="flex:{width} 1 {width * 0.6:g}em"><div style="{_HEAD}">{head}</div>{items}</div>'
    html = (
        f'<div style="{_FRAME};border-left:6px solid {PATH}">'
        f'<div style="font-weight:600;font-size:115%;margin-bottom:.7em">{escape(title)}</div>'
        f'<div style="display:flex;flex-wrap:wrap;gap:1em 1.6em">{blocks}</div></div>'
    )
    return display.Rendered("\n".join(text), html)


def run_time(chapter: str) -> str:
    """The measured run time of a chapter in words, or "not measured yet"."""
    try:
        entry = json.loads(TIMES.read_text(encoding="utf-8"))[chapter]
        seconds, cores = float(entry["seconds"]), int(entry["cores"])
    except FileNotFoundError:
        return "not measured yet"
    except KeyError:
        return "not measured yet"
    length = f"{math.ceil(seconds)} seconds" if seconds < 90 else f"{seconds / 60:.1f} minutes"
    return f"{length} on {cores} CPU core{'s' if cores != 1 else ''} (measured)"
