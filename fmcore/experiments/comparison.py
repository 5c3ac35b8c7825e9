"""The papers' tables beside ours: their numbers from data/reference, ours from records."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmcore.experiments import records
from fmcore.experiments.catalog import by_name
from fmcore.experiments.catalog.lipman2023 import SIZES
from fmcore.experiments.configuration import flat, without_place

ROOT = Path(__file__).resolve().parents[2] / "data"
REFERENCE, RESULTS = ROOT / "reference", ROOT / "results"

METHODS = {
    "ddpm": "DDPM",
    "sm": "Score Matching",
    "sf": "ScoreFlow",
    "fm_diffusion": "FM w/ Diffusion",
    "fm_ot": "FM w/ OT",
}
TITLES = {
    "cifar10": "CIFAR-10",
    "imagenet32": "ImageNet 32x32",
    "imagenet64": "ImageNet 64x64",
    "imagenet128": "ImageNet 128x128",
    "cifar10_small": "CIFAR-10, small network",
    "digits": "digits, 8x8",
}
# What one must know to read the numbers, and where the paper contradicts itself.
NOTES = (
    "bits/dim: from one draw of the dequantization noise (K = 1) and from K draws. Only equal K compare: the paper's "
    "Table 1 gives K draws, its Table 4 both. The noise of Hutchinson's estimate lowers the value of K draws, and "
    "the records say by how much. ± is the standard error over images.",
    "ImageNet 32: Table 1 gives 3.54 for FM w/ Diffusion and 3.56 for Score Matching, Table 4 gives 3.56 and 3.57; "
    "Table 4 is shown.",
    "CIFAR-10: Table 3 gives 1000 epochs at a batch of 256, which are 195k steps, and 391k steps; ours takes the "
    "latter.",
    "The paper's s_t is minus the score: its samplers are right with s_t, and with the score run away from the data.",
    "FD is the Frechet distance in the features of a classifier of the same data set, from generated images to the "
    "training split, and 'FD real' that of as many held-out images. It is no FID and says nothing beside one.",
)


@dataclass(frozen=True)
class Row:
    """One method on one data set; None where there is no number.

    Attributes:
        size, method: as in the name of the experiment.
        paper: nll_one, nll_many, draws, fid, nfe.
        ours: nll_one, nll_many, draws, nll_error, fid, classifier_distance, real_distance, nfe, steps, generated.
        changed: settings of our run that differ from the catalog, apart from the evaluation; each as field=value.
    """

    size: str
    method: str
    paper: dict[str, float | None]
    ours: dict[str, float | None]
    changed: tuple[str, ...] = ()


def lipman2023(folders: Sequence[Path] = ()) -> list[Row]:
    """Table 1 of Lipman et al. 2023 at every size, with the records in data/results and in further folders.

    Where several records of one experiment are found, the one in the last folder counts, and in it the last by name.

    Raises:
        FileNotFoundError: if a folder does not exist, or the package runs without its data folder.
        ValueError: if a record is damaged.
    """
    first = {(row["data"], row["method"]): row for row in read_reference("lipman2023_table1")}
    fourth = {(row["data"], row["method"]): row for row in read_reference("lipman2023_table4")}
    found = find_records([RESULTS, *folders])
    rows = []
    for size, one in SIZES.items():
        for method in one.methods:
            paper = {**first.get((size, method), {}), **fourth.get((size, method), {})}
            record = found.get(f"lipman2023/{size}/{method}")
            numbers = {name: number(paper.get(name)) for name in ("nll_one", "nll_many", "draws", "fid", "nfe")}
            if numbers["nll_many"] is None:
                numbers["nll_many"] = number(paper.get("nll"))  # ImageNet 128 is not in Table 4
            ours = {} if record is None else measured(record)
            rows.append(Row(size, method, numbers, ours, () if record is None else changed(record)))
    return rows


def read_reference(name: str) -> list[dict[str, str]]:
    """The rows of a table in data/reference; lines that start with # say where it is from.

    Raises:
        FileNotFoundError: if the package runs without its data folder.
    """
    file = REFERENCE / f"{name}.csv"
    if not file.exists():
        raise FileNotFoundError(
            f"{file} is missing: the papers' tables come with the repository; run from a checkout of it"
        )
    return list(csv.DictReader(line for line in file.read_text().splitlines() if not line.startswith("#")))


def find_records(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """The finished records in folders and below, by experiment; later ones win. Raises as `lipman2023`."""
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder: name one that holds runs or records")
        for file in sorted(folder.rglob("*.json")):
            content = records.read_json(file)
            if isinstance(content, dict) and {"experiment", "values", "configuration"} <= set(content):
                found[content["experiment"]] = content
    return found


def measured(record: dict[str, Any]) -> dict[str, float | None]:
    """Our numbers of a record, by the names of `Row`."""
    values, evaluation = record["values"], record["evaluation"]
    bits, draws = values["bits_per_dim"], record["configuration"]["evaluation"]["draws"]
    distance = values.get("classifier_frechet_distance", {})
    many = bits.get(f"flow, K = {draws}", {})
    return {
        "nll_one": bits["flow"]["value"],
        "nll_error": bits["flow"]["spread"],
        "nll_many": many.get("value"),
        "draws": draws if many else None,
        "fid": values.get("FID-50k", {}).get("generated", {}).get("value"),
        "classifier_distance": distance.get("generated", {}).get("value"),
        "real_distance": distance.get("held out (real)", {}).get("value"),
        "nfe": evaluation["nfe"],
        "steps": record["training"]["steps"],
        "generated": evaluation["generated"],
    }


def changed(record: dict[str, Any]) -> tuple[str, ...]:
    """The settings in which a run differs from the experiment of its name, apart from those of the evaluation."""
    ours, named = flat(record["configuration"]), flat(without_place(by_name(record["experiment"])))
    return tuple(
        f"{name.rpartition('.')[2]}={ours.get(name)}"
        for name, value in named.items()
        if not name.startswith("evaluation.") and ours.get(name) != value
    )


def number(text: str | None) -> float | None:
    """A number of a table, None for an empty cell."""
    return float(text) if text else None
