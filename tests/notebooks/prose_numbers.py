"""Numbers and comparisons in the prose of a chapter that nothing on its page shows: a reader takes them on trust.

A number is backed where an output or the code of the page, or a table of a paper in data/reference, has it, rounded as
in the prose. A share in percent is backed by the share, a fraction in words ("a third", "three in ten", "twice") by a
number of the same section that rounds to it. A comparison ("larger than") is backed where its section prints or draws
something; that it is the right thing, only reading tells.
"""

from __future__ import annotations

import csv
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fmcore.papers.reference import REFERENCE

SMALL = 12  # whole numbers up to here count things ("three rows") as often as they state what was measured
WORDS = {
    name: value
    for value, names in {
        1: "one a an", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine",
        10: "ten", 11: "eleven", 12: "twelve", 20: "twenty", 100: "hundred", 1000: "thousand",
    }.items()
    for name in names.split()
}  # fmt: skip
PARTS = {
    "half": 2,
    "third": 3,
    "quarter": 4,
    "fifth": 5,
    "sixth": 6,
    "seventh": 7,
    "eighth": 8,
    "tenth": 10,
    "twelfth": 12,
}
NUMBER = re.compile(r"(?<![\w.^_{\\-])(\d{1,3}(?:,\d{3})+|\d+)?(\.\d+)?(e-?\d+)?(?: ?(%))?(?!\w)")
ANY = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.?\d+(?:e[+-]?\d+)?")
COUNT = "|".join(WORDS)
SHARE = re.compile(rf"\b({COUNT}) (?:in|of|out of) (?:every )?({COUNT})\b", re.IGNORECASE)
FRACTION = re.compile(rf"\b(?:({COUNT})[ -])?({'|'.join(PARTS)})s?\b(?!\s+turn)", re.IGNORECASE)
COMPARED = re.compile(
    r"\b(larger|smaller|fewer|worse|better|higher|lower|nearer|farther|faster|slower|cheaper)\s+than\b", re.IGNORECASE
)
# What sums up, and shows nothing of its own.
SUMMARIES = re.compile(r"^##+ (To remember|Exercises|References|Notation|Words of the course)\b", re.MULTILINE)
# What carries digits without stating a result: code, formulas, links, headings, names and citations.
NO_PROSE = [
    (r"```.*?```|\$\$.*?\$\$|<!--.*?-->|<[^>]+>", re.DOTALL),
    (r"\$[^$]*\$|`[^`]*`|\]\([^)]*\)", re.DOTALL),
    (r"^#+ .*$|^ {4,}.*$|^\d+\. ", re.MULTILINE),
    (
        r"\b(?:chapters?|figures?|tables?|theorems?|sections?|equations?|appendix|exercises?|slide|lemma)\s+[\d.]+"
        r"(?:(?:,| and| to)\s+\d+)*",
        re.IGNORECASE,
    ),
    (r"arXiv[:\s]+\d+\.\d+|\b(?:19|20)\d\d\b|\d+[-–]\d+|\d+ ?[x×] ?\d+(?: ?[x×] ?\d+)?|[A-Za-z]+-\d+k?", 0),
]


@dataclass(frozen=True)
class Number:
    """A number as the prose has it."""

    cell: int
    said: str
    value: float
    rounding: float  # half of its last digit
    around: str
    in_words: bool = False

    @property
    def is_share(self) -> bool:
        return self.in_words or self.said.endswith("%")


@dataclass
class Page:
    """What a chapter says, and the numbers that its outputs and code show, by section."""

    numbers: list[Number] = field(default_factory=list)
    sections: list[set[float]] = field(default_factory=lambda: [set()])
    place: dict[int, int] = field(default_factory=dict)  # the section of a cell

    @property
    def shown(self) -> set[float]:
        return set().union(*self.sections)


def prose(text: str) -> str:
    """Text without what carries digits and states nothing."""
    for pattern, flags in NO_PROSE:
        text = re.sub(pattern, " ", text, flags=flags)
    return text


def numbers_of(text: str, cell: int) -> Iterator[Number]:
    """The numbers of a text cell, in digits and in words."""
    text = prose(text)

    def number(found: re.Match[str], value: float, rounding: float, in_words: bool = False) -> Number:
        around = " ".join(text[max(0, found.start() - 60) : found.end() + 40].split())
        return Number(cell, found.group().strip(), value, rounding, around, in_words)

    for found in NUMBER.finditer(text):
        whole, decimals, exponent, percent = found.groups()
        if not (whole or decimals):
            continue
        value = float((whole or "0").replace(",", "") + (decimals or "") + (exponent or ""))
        if decimals or exponent or percent or value > SMALL:
            scale = (0.01 if percent else 1.0) * 10.0 ** int((exponent or "e0")[1:])
            rounding = 0.51 * 10.0 ** -max(len(decimals or ".") - 1, 0) * scale
            yield number(found, value * (0.01 if percent else 1.0), rounding)
    for found in SHARE.finditer(text):
        part, whole = (WORDS[word.lower()] for word in found.groups())
        if part < whole and whole >= 5:  # "one of two", "two of three" count things
            yield number(found, part / whole, 0.5 / whole, in_words=True)
    for found in FRACTION.finditer(text):
        count = WORDS[found.group(1).lower()] if found.group(1) else 1
        if found.group(1) or found.group(2).lower() == "half":
            value = count / PARTS[found.group(2).lower()]
            if value < 1:
                yield number(found, value, 0.1 * value, in_words=True)


def values(text: str) -> set[float]:
    """All numbers of an output or of code."""
    return {float(found.replace(",", "")) for found in ANY.findall(text)}


def read(notebook: Any) -> Page:
    """What the prose of a chapter says, and what its page shows."""
    page = Page()
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            if re.search(r"^##? ", cell.source, re.MULTILINE):
                page.sections.append(set())
            page.numbers += numbers_of(cell.source, i)
        page.place[i] = len(page.sections) - 1
        if cell.cell_type == "code":
            page.sections[-1] |= values(cell.source)
            for output in cell.get("outputs", []):
                texts = [
                    output.get("text", ""),
                    *(v for k, v in output.get("data", {}).items() if k.startswith("text/")),
                ]
                for text in texts:
                    page.sections[-1] |= values(html.unescape(re.sub(r"<[^>]+>", " ", text)))
    return page


def references() -> set[float]:
    """All numbers of the papers' tables."""
    files = [file.read_text(encoding="utf-8") for file in REFERENCE.glob("*.csv")]
    return {value for text in files for line in csv.reader(text.splitlines()) for value in values(" ".join(line))}


def unbacked(notebook: Any, known: set[float]) -> list[Number]:
    """The numbers of a chapter's prose that neither its page nor the papers' tables have."""
    page = read(notebook)
    everywhere = page.shown | known

    def backed(number: Number) -> bool:
        near = everywhere
        if number.in_words:
            here = page.place[number.cell]
            near = set().union(*page.sections[max(here - 1, 0) : here + 2])
        if number.is_share:  # printed as a share, in percent, or as what is left of it
            near = {v for value in near for v in (value, value / 100, 1 - value, 1 - value / 100)}
        return any(abs(value - number.value) <= number.rounding for value in near)

    return [number for number in page.numbers if not backed(number)]


def comparisons(notebook: Any) -> list[str]:
    """The comparisons of a chapter, each with what stands around it, in sections that print and draw nothing."""
    found: list[list[str]] = [[]]
    shows, summary = [False], False
    for cell in notebook.cells:
        if cell.cell_type == "code":
            data = [output.get("data", {}) for output in cell.get("outputs", [])]
            shows[-1] |= any(output.get("text") for output in cell.get("outputs", [])) or any(
                "image/png" in d for d in data
            )
            continue
        if re.search(r"^##? ", cell.source, re.MULTILINE):
            found.append([])
            shows.append(False)
        if re.search(r"^##+ ", cell.source, re.MULTILINE):
            summary = bool(SUMMARIES.search(cell.source))
        text = prose(cell.source)
        if not summary:
            found[-1] += [text[max(0, m.start() - 60) : m.end() + 40] for m in COMPARED.finditer(text)]
    return [said for some, shown in zip(found, shows, strict=True) if not shown for said in some]
