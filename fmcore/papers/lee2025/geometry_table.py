"""The geometry of images as a table: what the paper says, and our records."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from fmcore.papers import reference
from fmcore.papers.blocks import Block, cell
from fmcore.papers.lee2025.geometry import MEASUREMENTS

Record = dict[str, Any]
Numbers = dict[tuple[str, str], float]

TITLES = {"cifar10": "CIFAR-10", "digits": "digits, 8x8", "imagenet64": "ImageNet-64"}
LENGTHS = {
    "images": "mean length of images in [-1, 1]",
    "images, middles of bins": "mean length of images, middles of bins",
    "noise": "mean length of noise",
    "noise / images": "factor of norm alignment",
    "noise / images, middles of bins": "factor of norm alignment, middles of bins",
}
NOTES = (
    "Lengths: grey levels put at -1 to 1, as the paper has them, and at the middles of their bins, where networks here "
    "see them. ± is the standard deviation over images for means of images, and a standard error elsewhere.",
    "Rejected: the share of uniform directions with a cosine above the threshold with a rejected end of an axis, by "
    "counting; with *, from the acceptance rate of the exact sampler, where too few pass to be counted.",
    "Proposals: for one sample at the threshold of the source, by plain rejection and by the exact sampler.",
    "Colours rounded: luminance and colour differences as whole numbers, as OpenCV converts 8-bit images.",
)
SAYS = (
    "CIFAR-10 images are about half as long as noise; many ends of principal axes have no image near them, and nearly "
    "all noise has a cosine above .05 with one of these; the frequencies that hardly vary are all of the colours."
)


def blocks(found: dict[str, Record]) -> list[Block]:
    """One table a data set, from records by experiment; blank beside the paper where nothing was run."""
    made = []
    for name in MEASUREMENTS:
        record = found.get(name, {"experiment": name})
        with reference.reading(record):
            made.append(block_of(record))
    return made


def block_of(record: Record) -> Block:
    """The table of one record: the paper's numbers, ours, and ours without mirror images."""
    name, values = record["experiment"], record.get("values", {})
    data = record["configuration"]["data"] if values else MEASUREMENTS[name].data
    versions = list(values.get("rejected_ends", MEASUREMENTS[name].versions))
    paper = of_paper(data)
    rows: list[tuple[str, ...]] = []
    for what, theirs, ours in rows_of(record, versions, paper) if values else [("not measured", "", [])]:
        blanks = [""] * (len(versions) - len(ours))
        rows.append((what, *([theirs] if paper else []), *ours, *blanks))
    columns = ("measure", *(["paper"] if paper else []), "here", *(f"here,\n{version}" for version in versions[1:]))
    return Block(f"Geometry of {TITLES[data]}", columns, tuple(rows), SAYS)


def rows_of(record: Record, versions: Sequence[str], paper: Numbers) -> Iterator[tuple[str, str, list[str]]]:
    """What was measured, the paper's number, and ours: one for each set of images, or one for all."""
    settings, values = record["configuration"], record["values"]
    for of, one in values["mean_length"].items():
        yield LENGTHS.get(of, of), cell(paper.get(("mean_length", of)), 4), [text(one, 4)]
    ends = [values["rejected_ends"][version]["ends"] for version in versions]
    count = 2 * math.prod(record["measurement"]["shape"])
    yield f"rejected ends at tau = {settings['tau']:g}, of {count:,}", "", [text(one, 0) for one in ends]
    shares = [values["rejected_share"][version] for version in versions]
    for at in shares[0]:
        theirs = paper.get(("rejected_percent", at))
        ours = [text(one[at], None, 100) + ("*" if one[at]["by"] == "sampler" else "") for one in shares]
        yield f"noise rejected at {at}, %", "" if theirs is None else f"{theirs:g}", ours
    for kind, by in (("plain", "plain rejection"), ("truncated", "the exact sampler")):
        counts = [values["proposals"][version][kind] for version in versions]
        yield f"proposals per sample, {by}", "", [text(one, None) for one in counts]
    for kind, what in (("masked", "frequencies masked"), ("masked_luminance", "of luminance")):
        for of, one in values.get(kind, {}).items():
            yield f"{what}, {of}", cell(paper.get((kind, of.split(",")[0])), 0), [text(one, 0)]
    for of, one in values.get("clusters", {}).items():
        yield of, "", [text(one, 3)]


def of_paper(data: str) -> Numbers:
    """What the paper says of a data set, by measure and of what; with the ratio of the lengths."""
    rows = reference.read_reference("lee2025_geometry")
    found = {(row["measure"], row["of"]): float(row["value"]) for row in rows if row["data"] == data}
    if found:
        found["mean_length", "noise / images"] = found["mean_length", "noise"] / found["mean_length", "images"]
    return found


def text(found: dict[str, Any], places: int | None, factor: float = 1) -> str:
    """A measured number, and its spread where it has one; without a number of decimals, as the first of the spread."""
    value, spread = factor * found["value"], None if found["spread"] is None else factor * found["spread"]
    if places is None:
        places = min(6, max(0, -math.floor(math.log10(spread)))) if spread else 2
    shown = f"{value:,.{places}f}"
    return shown if spread is None else f"{shown} ± {spread:,.{places}f}"
