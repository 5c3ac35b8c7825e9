"""Table 1 of Lipman et al. 2023 beside ours: their numbers from data/reference, ours from records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmcore.experiments.config.former import completed
from fmcore.experiments.config.overrides import flat, without_place
from fmcore.papers import reference
from fmcore.papers.blocks import cell
from fmcore.papers.lipman2023.experiments import ROWS, SIZES

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
    first = {(row["data"], row["method"]): row for row in reference.read_reference("lipman2023_table1")}
    fourth = {(row["data"], row["method"]): row for row in reference.read_reference("lipman2023_table4")}
    found = reference.find_records([reference.RESULTS, *folders])
    rows = []
    for size, one in SIZES.items():
        for method in one.methods:
            paper = {**first.get((size, method), {}), **fourth.get((size, method), {})}
            record = found.get(f"lipman2023/{size}/{method}")
            numbers = {name: number(paper.get(name)) for name in ("nll_one", "nll_many", "draws", "fid", "nfe")}
            if numbers["nll_many"] is None:
                numbers["nll_many"] = number(paper.get("nll"))  # ImageNet 128 is not in Table 4
            with reference.reading(record):
                ours = {} if record is None else measured(record)
                rows.append(Row(size, method, numbers, ours, () if record is None else changed(record)))
    return rows


def measured(record: dict[str, Any]) -> dict[str, float | None]:
    """Our numbers of a record, by the names of `Row`."""
    values, evaluation = record["values"], record["evaluation"]
    bits, draws = values["bits_per_dim"], record["configuration"]["evaluation"]["draws"]
    distance = values.get("classifier_frechet_distance", {})
    many = bits.get(f"flow, K = {draws}", {})
    found = {
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
    for name, value in found.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise ValueError(f"{name} is {value!r}, which is no number")
    return found


def changed(record: dict[str, Any]) -> tuple[str, ...]:
    """The settings in which a run differs from the experiment of its name, apart from those of the evaluation.

    What the configuration of an older record lacks is what was done before there was a choice.
    """
    ours, named = flat(completed(record["configuration"])), flat(without_place(ROWS[record["experiment"]]))
    return tuple(
        f"{name.rpartition('.')[2]}={ours[name]}"
        for name, value in named.items()
        if not name.startswith("evaluation.") and name in ours and ours[name] != value
    )


def number(text: str | None) -> float | None:
    """A number of a table, None for an empty cell."""
    return float(text) if text else None


def show_comparison(rows: Sequence[Row]) -> None:
    """Print the paper's numbers beside ours, one table a data set, and what one must know to read them."""
    from fmcore.console.tables import Console

    console = Console(least=140)
    console.print("Lipman et al. 2023, Table 1: paper against ours; blank where nothing was run\n", markup=False)
    for size in SIZES:
        block = [row for row in rows if row.size == size]
        console.show(block_table(size, block))
        for row in block:
            if row.changed:
                console.print(f"* {METHODS[row.method]}: our run has {', '.join(row.changed)}", markup=False)
        console.print()
    for note in NOTES:
        console.print(f"- {note}", markup=False)


def block_table(size: str, rows: Sequence[Row]) -> Any:
    """The table of one data set; without the paper's columns where the paper has no such size."""
    from rich.table import Table

    in_paper = any(value is not None for row in rows for value in row.paper.values())
    draws = [row.paper["draws"] or 0 for row in rows]
    network, training = SIZES[size].network, SIZES[size].training
    about = f"{TITLES[size]}: {network.channels} channels, {training.steps:,} steps of {training.batch} images"
    table = Table(title=about + ("" if in_paper else "; no paper value"), title_justify="left")
    table.add_column("method", style="bold", no_wrap=True)
    if in_paper:
        for title in ("K=1", f"K={max(draws):.0f}" if any(draws) else "K", "FID", "NFE"):
            table.add_column(f"paper\n{title}", justify="right", no_wrap=True)
    ours = ("K=1", "K", "FID-50k", "FD", "FD real", "NFE", "steps", "images")
    for title in ours:
        table.add_column(f"ours\n{title}", justify="right", no_wrap=True)
    for row in rows:
        cells = [METHODS[row.method] + ("*" if row.changed else "")]
        if in_paper:
            decimals = {"nll_one": 2, "nll_many": 2, "fid": 2, "nfe": 0}
            cells += [cell(row.paper[name], places) for name, places in decimals.items()]
        one, many = cell(row.ours.get("nll_one"), 3), cell(row.ours.get("nll_many"), 3)
        one += f" ± {row.ours['nll_error']:.3f}" if one else ""
        many += f" (K={row.ours['draws']:.0f})" if many else ""
        places = {"fid": 2, "classifier_distance": 2, "real_distance": 2, "nfe": 0, "steps": 0, "generated": 0}
        table.add_row(*cells, one, many, *(cell(row.ours.get(name), digits) for name, digits in places.items()))
    return table
