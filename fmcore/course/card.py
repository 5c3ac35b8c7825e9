"""The card that opens a chapter: what it teaches, what to know before, how long it runs, which exercises follow."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from fmcore.course import display
from fmcore.course.style import PATH

TIMES = Path(__file__).resolve().parents[2] / "data" / "results" / "chapter_times.json"
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
    parts = [
        ("After this chapter you can", list(goals)),
        ("Know before", list(before) or ["nothing: start here"]),
        ("Run time", [run_time(chapter)]),
        ("Exercises", list(exercises) or ["none"]),
    ]
    title = f"Chapter {number}: {name.replace('_', ' ').capitalize()}"
    text = "\n".join([title, *(f"  {head}\n" + "\n".join(f"    - {line}" for line in lines) for head, lines in parts)])
    blocks = "".join(
        f'<div style="flex:1 1 {"20em" if i in (0, 3) else "12em"};min-width:12em">'
        f'<div style="{_HEAD}">{head}</div>'
        f'<ul style="margin:0;padding-left:1.1em">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul></div>'
        for i, (head, lines) in enumerate(parts)
    )
    html = (
        f'<div style="{_FRAME};border-left:6px solid {PATH}">'
        f'<div style="font-weight:600;font-size:115%;margin-bottom:.7em">{escape(title)}</div>'
        f'<div style="display:flex;flex-wrap:wrap;gap:1em 2em">{blocks}</div></div>'
    )
    return display.Rendered(text, html)


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
