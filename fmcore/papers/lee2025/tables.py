"""The tables of Lee, Kim and Lee 2025 on images: what the paper says of them and of sources, and our records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fmcore.papers import reference
from fmcore.papers.blocks import Block, with_spread
from fmcore.papers.lee2025 import geometry_table
from fmcore.papers.lee2025.experiments import BUDGETS, MAIN, SIZES, sources_of

Record = dict[str, Any]

TITLES = {
    "cifar10": "CIFAR-10",
    "imagenet64": "ImageNet-64",
    "cifar10_small": "CIFAR-10, small network",
    "digits": "digits, 8x8",
}
PAIRS = {"ot": "OT", "independent": "I", "ot_norm": "OT", "independent_norm": "I"}
NAMES = {
    "ot": "Gaussian, OT",
    "independent": "Gaussian, independent",
    "ot_norm": "norms aligned, data up, OT",
    "independent_norm": "norms aligned, data up, I",
    "ot_norm_down": "norms aligned, noise down, OT",
    "independent_norm_down": "norms aligned, noise down, I",
    "pruned_ot": "pruned in training too, OT",
    "pruned_independent": "pruned in training too, I",
    "dct_weak": "DCT weak",
    "dct_strong": "DCT strong",
    "flow": "continuous normalizing flow",
    "oracle": "around each image, kappa = inf",
    "chi_sphere": "chi-sphere",
}
NOTES = (
    "FD is the Frechet distance in the features of a classifier of the same data set to its training split. It is no "
    "FID: compare our numbers with each other, and the order of rows with the paper's.",
    "Pruned: sampling starts without the directions in which there are no data; the network is the same. Norm: data "
    "scaled up in training, divided at the end. Both: the two together.",
    "kappa is that of 3,072 dimensions; digits, with 64, have 1/48 of it, which gives about the same mean cosine. "
    "Digits have no frequencies that DCT masks: there its rows are the Gaussian again.",
    "The pretrained network was trained without norm alignment; norm there means Euler steps that are equal in the "
    "time of data scaled up, which is what norm alignment does to sampling.",
    *geometry_table.NOTES,
)


def lee2025(folders: Sequence[Path] = ()) -> list[Block]:
    """All tables, with the records in data/results and in further folders; rows that were not run are blank.

    Raises:
        FileNotFoundError: if a folder does not exist, or the package runs without its data folder.
        ValueError: if a record is damaged.
    """
    found = reference.find_records([reference.RESULTS, *folders])
    ours = {name.removeprefix("lee2025/"): one for name, one in found.items() if name.startswith("lee2025/")}
    paper = {
        (row["data"], row["row"], row["start"], int(row["nfe"])): row["fid"]
        for row in reference.read_reference("lee2025_fid")
    }
    blocks = []
    for size in SIZES:
        blocks += [by_steps(size, ours, paper), by_source(size, ours, paper)]
    blocks = [*(block for block in blocks if block.rows), pretrained(found.get("cifar10"))]
    return [*blocks, *geometry_table.blocks(found)]


def by_steps(size: str, ours: dict[str, Record], paper: dict[Any, str]) -> Block:
    """Prune, norm and both against the number of Euler steps."""
    of_paper = any(data == size for data, *_ in paper)
    rows = []
    for name in MAIN:
        if name not in sources_of(SIZES[size]):
            continue
        measured = cells_of(ours.get(f"{size}/{name}"))
        for start in ("source", "pruned"):
            theirs = [paper.get((size, name, start, steps), "") for steps in BUDGETS] if of_paper else []
            mine = [measured.get((start, "uniform", steps), "") for steps in BUDGETS]
            rows.append((says(name, start), *theirs, *mine))
    columns = [f"{kind}\n{steps}" for kind in (["FID"] if of_paper else []) + ["our FD"] for steps in BUDGETS]
    return Block(
        f"{TITLES[size]}: Euler steps",
        ("pairs, method", *columns),
        tuple(rows),
        "Pruning where samples start helps at every number of steps. Norm alignment helps from 20 steps (OT) or 40 (I) "
        "on and hurts below; both together are best at 40 and 100 steps.",
    )


def by_source(size: str, ours: dict[str, Record], paper: dict[Any, str]) -> Block:
    """All sources at 100 steps."""
    if SIZES[size].rows:
        return Block("", (), (), "")
    rows = []
    for name in sources_of(SIZES[size]):
        fid = paper.get(("cifar10", name, "source", BUDGETS[-1]), "") if size == "cifar10" else ""
        record = ours.get(f"{size}/{name}")
        kinds = ("generated", "generated, to held out", "held out (real)")
        with reference.reading(record):
            distance = record["values"].get("classifier_frechet_distance", {}) if record else {}
            rows.append((source_name(name), fid, *(with_spread(distance, kind) for kind in kinds)))
    return Block(
        f"{TITLES[size]}: sources at {BUDGETS[-1]} Euler steps",
        ("source", "paper FID\nCIFAR-10", "FD to\ntrain", "FD to\nheld out", "FD real"),
        tuple(rows),
        "Without knowing the images no source beats the Gaussian by much: those that approximate the density of the "
        "data are worst, and those that concentrate on directions lose the more, the larger kappa. The oracle, which "
        "knows the direction of every image, is best. Pruning in training does less than pruning at inference.",
    )


def pretrained(record: Record | None) -> Block:
    """The network of data/pretrained: the same weights from other starts and with other steps."""
    measured = cells_of(record)
    budgets = sorted({steps for _, _, steps in measured}) or list(BUDGETS)
    named = {
        ("source", "uniform"): "plain",
        ("pruned", "uniform"): "prune",
        ("source", "aligned"): "norm (steps only)",
        ("pruned", "aligned"): "both",
    }
    return Block(
        "CIFAR-10, the network of data/pretrained (I, 1.5M parameters): Euler steps",
        ("method", *(f"our FD\n{steps}" for steps in budgets)),
        tuple((text, *(measured.get((*key, steps), "") for steps in budgets)) for key, text in named.items()),
        "As above; the paper trains networks with norms aligned.",
    )


def cells_of(record: Record | None) -> dict[tuple[str, str, int], str]:
    """Text of the distance for each start, grid and number of steps of a record."""
    with reference.reading(record):
        return {
            (one["start"], one.get("steps", "uniform"), int(one["nfe"])): (
                f"{one['frechet_distance']:.2f} ± {one['spread']:.2f}"
            )
            for one in (record or {}).get("budgets", [])
        }


def says(name: str, start: str) -> str:
    """The name of a row in the paper's table: I, I + prune, I + norm, I + both."""
    methods = {(False, "source"): "", (False, "pruned"): " + prune", (True, "source"): " + norm"}
    return PAIRS[name] + methods.get((name.endswith("_norm"), start), " + both")


def source_name(name: str) -> str:
    """A row in words."""
    for prefix, text in {"mixture": "Gaussian mixture, K = ", "oracle": "around each image, kappa = "}.items():
        if name not in NAMES and name.startswith(prefix):
            return text + name.removeprefix(prefix)
    return NAMES.get(name) or f"around 3 mean directions, kappa = {name.removeprefix('kmeans')}"
