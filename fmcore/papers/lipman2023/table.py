"""Table 1 of Lipman et al. 2023 beside ours: their numbers from data/reference, ours from records."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmcore.experiments.config.former import completed
from fmcore.experiments.config.overrides import flat, without_place
from fmcore.papers import reference
from fmcore.papers.blocks import cell
from fmcore.papers.lipman2023.experiments import ROWS, SIZES
from fmcore.papers.lipman2023.order import agreement

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
    "the records say by how much. ± is the standard deviation over seeds of the training where there are several, and "
    "the standard error over images where there is one.",
    "ImageNet 32: Table 1 gives 3.54 for FM w/ Diffusion and 3.56 for Score Matching, Table 4 gives 3.56 and 3.57; "
    "Table 4 is shown.",
    "CIFAR-10: Table 3 gives 1000 epochs at a batch of 256, which are 195k steps, and 391k steps; ours takes the "
    "latter.",
    "The paper's s_t is minus the score: its samplers are right with s_t, and with the score run away from the data.",
    "FD is the Frechet distance in the features of a classifier of the same data set, from generated images to the "
    "training split, and 'FD real' that of as many held-out images. It is no FID and says nothing beside one.",
)


SEED = "training.seed"  # a run with another one is the same experiment
# What is compared with the paper's order, by its name in `Row.ours` and in `Row.paper`, with the title of its column.
COMPARED = {
    "nll_one": ("nll_one", "bits/dim, K = 1"),
    "classifier_distance": ("fid", "Frechet distance"),
    "nfe": ("nfe", "NFE"),
}


@dataclass(frozen=True)
class Row:
    """One method on one data set; None where there is no number.

    Attributes:
        size, method: as in the name of the experiment.
        paper: nll_one, nll_many, draws, fid, nfe.
        by_seed: ours for each seed of the training: nll_one, nll_many, draws, nll_error, fid, classifier_distance,
            real_distance, nfe, steps, generated.
        changed: settings of our runs that differ from the catalog, apart from seed and evaluation; as field=value.
    """

    size: str
    method: str
    paper: dict[str, float | None]
    by_seed: Mapping[int, dict[str, float | None]]
    changed: tuple[str, ...] = ()

    @property
    def ours(self) -> dict[str, float | None]:
        """Our numbers: the mean over seeds. Empty where nothing was run."""
        names = next(iter(self.by_seed.values()), {})
        return {name: self._over_seeds(name, statistics.fmean) for name in names}

    def spread(self, name: str) -> float | None:
        """The standard deviation of one of our numbers over seeds; None where there are fewer than two."""
        return self._over_seeds(name, statistics.stdev) if len(self.by_seed) > 1 else None

    def _over_seeds(self, name: str, of: Callable[[list[float]], float]) -> float | None:
        numbers = [value for ours in self.by_seed.values() if (value := ours[name]) is not None]
        return of(numbers) if len(numbers) == len(self.by_seed) else None


def lipman2023(folders: Sequence[Path] = ()) -> list[Row]:
    """Table 1 of Lipman et al. 2023 at every size, with the records in data/results and in further folders.

    Where several records of one experiment are found, those in the last folder count, and in it the last by name with
    those that differ from it in the seed alone.

    Raises:
        FileNotFoundError: if a folder does not exist, or the package runs without its data folder.
        ValueError: if a record is damaged.
    """
    first = {(row["data"], row["method"]): row for row in reference.read_reference("lipman2023_table1")}
    fourth = {(row["data"], row["method"]): row for row in reference.read_reference("lipman2023_table4")}
    found = reference.find_seeds([reference.RESULTS, *folders])
    rows = []
    for size, one in SIZES.items():
        for method in one.methods:
            paper = {**first.get((size, method), {}), **fourth.get((size, method), {})}
            records = found.get(f"lipman2023/{size}/{method}", {})
            numbers = {name: number(paper.get(name)) for name in ("nll_one", "nll_many", "draws", "fid", "nfe")}
            if numbers["nll_many"] is None:
                numbers["nll_many"] = number(paper.get("nll"))  # ImageNet 128 is not in Table 4
            by_seed = {}
            for seed, record in sorted(records.items()):
                with reference.reading(record):
                    by_seed[seed] = measured(record)
            first_seed = records[min(records)] if records else None
            with reference.reading(first_seed):
                rows.append(Row(size, method, numbers, by_seed, () if first_seed is None else changed(first_seed)))
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
    """The settings in which a run differs from the experiment of its name, apart from its seed and the evaluation.

    What the configuration of an older record lacks is what was done before there was a choice.
    """
    ours, named = flat(completed(record["configuration"])), flat(without_place(ROWS[record["experiment"]]))
    return tuple(
        f"{name.rpartition('.')[2]}={ours[name]}"
        for name, value in named.items()
        if not name.startswith("evaluation.") and name != SEED and name in ours and ours[name] != value
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
        for line in orders(rows, size):
            console.print(line, markup=False)
        console.print()
    for note in NOTES:
        console.print(f"- {note}", markup=False)


def orders(rows: Sequence[Row], size: str) -> list[str]:
    """For each measure, a line that says how many pairs of our rows stand in the order of the paper's CIFAR-10 rows."""
    block = {row.method: row.ours for row in rows if row.size == size and row.by_seed}
    lines = []
    for name, (of_paper, title) in COMPARED.items():
        paper = {r.method: value for r in rows if r.size == "cifar10" and (value := r.paper[of_paper]) is not None}
        ours = {method: value for method, numbers in block.items() if (value := numbers[name]) is not None}
        if len(ours) == len(METHODS):
            found = agreement(paper, ours)
            lines.append(
                f"{title}: {found.agreed:g} of {found.pairs} pairs of rows stand as in the paper's CIFAR-10 column; a "
                f"random order has as many or more with probability {found.by_chance:.2f}"
            )
    return lines


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
    ours = ("K=1", "K", "FID-50k", "FD", "FD real", "NFE", "steps", "images", "seeds")
    for title in ours:
        table.add_column(f"ours\n{title}", justify="right", no_wrap=True)
    for row in rows:
        cells = [METHODS[row.method] + ("*" if row.changed else "")]
        if in_paper:
            decimals = {"nll_one": 2, "nll_many": 2, "fid": 2, "nfe": 0}
            cells += [cell(row.paper[name], places) for name, places in decimals.items()]
        table.add_row(*cells, *our_cells(row))
    return table


def our_cells(row: Row) -> list[str]:
    """Our part of a line: what was measured, with its spread, and over how many seeds; blanks where nothing was run."""
    ours = row.ours
    if not ours:
        return [""] * 9
    errors = {"nll_one": ours["nll_error"]} if len(row.by_seed) == 1 else {}
    places = {"nll_one": 3, "nll_many": 3, "fid": 2, "classifier_distance": 2, "real_distance": 2, "nfe": 0}
    cells = {name: cell(ours[name], digits) for name, digits in places.items()}
    for name, digits in places.items():
        spread = errors.get(name, row.spread(name))
        if cells[name] and spread is not None and name != "real_distance":
            cells[name] += f" ± {spread:.{digits}f}"
    if cells["nll_many"]:
        cells["nll_many"] += f" (K={ours['draws']:.0f})"
    return [*cells.values(), cell(ours["steps"], 0), cell(ours["generated"], 0), str(len(row.by_seed))]
