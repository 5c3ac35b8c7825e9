"""The simulation in the plane as a measurement: configuration, record and picture, and the table beside the paper's.

`fmcore measure lee2025/simulation/paper` takes the setting of the paper's text, `.../released` that of its code, which
trains five times as long; see `fmcore.papers.lee2025.simulation`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmcore.experiments import records
from fmcore.experiments.config.overrides import to_dict
from fmcore.papers import reference
from fmcore.papers.blocks import Block, show_blocks
from fmcore.papers.lee2025.simulation import simulate, summary
from fmcore.papers.lee2025.simulation_setting import (
    DENSITY_STEPS,
    MEASUREMENTS,
    MEASURES,
    SCENARIOS,
    SimulationConfig,
)

NAMES = {
    "independent": "ring, independent",
    "transport": "ring, OT",
    "pruned": "ring, started pruned",
    **{f"density_{steps}": f"flow of {steps:,} steps, OT" for steps in DENSITY_STEPS},
    "directional": "directional .9, OT",
    "directional_tight": "directional .98, OT",
    "directional_full": "directional .9, OT of all",
}
COLUMNS = ("distance", "failures", "mode_divergence", "wasserstein_given_shares")
OTHERS = ("normalized_wasserstein", "wasserstein2", "coverage", "mmd")
TITLES = {
    "distance": "distance",
    "failures": "fail %",
    "mode_divergence": "MDD",
    "wasserstein_given_shares": "NW",
    "normalized_wasserstein": "W1 / mean",
    "wasserstein2": "W2",
    "coverage": "coverage",
    "mmd": "MMD",
}
SETTINGS = {"paper": "setting of the text", "released": "setting of the released code"}
NOTES = (
    "Best: each measure at the best checkpoint of each run, as the paper reports. The best of several noisy values is "
    "lower than any of them is on average: compare with the last checkpoint.",
    "NW is W2 to fresh data that have the generated shares of the directions, as the released code computes it; W1 / "
    "mean is the definition in the text. MDD is the divergence of mode shares in nats.",
    "Mean ± standard deviation over runs.",
)


def measured(configuration: SimulationConfig, progress: bool = True) -> dict[str, Any]:
    """Train and measure all scenarios of a configuration; the record."""
    started = time.perf_counter()
    say = (lambda line: print(line, file=sys.stderr)) if progress else None
    results = simulate(configuration, configuration.scenarios, say)
    return record_of(configuration, results, time.perf_counter() - started)


def record_of(configuration: SimulationConfig, results: dict[str, Tensor], seconds: float) -> dict[str, Any]:
    """The record of what `fmcore.papers.lee2025.simulation.simulate` returned, (runs, checkpoints, measures) each."""
    return {
        "experiment": configuration.experiment,
        "configuration": to_dict(configuration),
        "environment": records.environment(),
        "measures": list(MEASURES),
        "checkpoints": {name: list(configuration.checkpoints(name)) for name in results},
        "values": {
            name: {which: rounded(summary(values, which == "best")) for which in ("best", "last")}
            for name, values in results.items()
        },
        "runs": {name: rounded(values) for name, values in results.items()},
        "values_are": "for each measure the mean and the standard deviation over runs",
        "wall_seconds": round(seconds, 1),
    }


def rounded(values: Tensor) -> Any:
    """Nested lists of numbers with five digits; None where there is no number."""
    if values.ndim > 0:
        return [rounded(part) for part in values]
    return float(f"{float(values):.5g}") if bool(values.isfinite()) else None


def distances_figure(record: dict[str, Any]) -> Any:
    """The distance to the data against training steps, a panel a scenario, a line a run, and the mean of all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(record["runs"])
    columns = min(5, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(2.7 * columns, 2.5 * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    which = record["measures"].index("distance")
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    for axes, name in zip(panels, names, strict=False):
        steps = [step / 1000 for step in record["checkpoints"][name]]
        lines = torch.tensor(record["runs"][name], dtype=torch.float64)[:, :, which]
        axes.plot(steps, lines.T, color="#9DB7D5", linewidth=0.9)
        axes.plot(steps, lines.mean(dim=0), color="#1F4E8C", linewidth=2.4)
        axes.set_title(NAMES[name], loc="left", fontsize=10)
        axes.set_yscale("log")
        axes.grid(color="#E6E9ED", linewidth=0.8)
        axes.set_xlim(0, max(steps) * 1.04)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.supxlabel("training steps, thousands", fontsize=10)
    figure.supylabel("mean distance to the data", fontsize=10)
    return figure


def show_values(record: dict[str, Any]) -> None:
    """Print what was measured beside the paper."""
    show_blocks("Lee et al. 2025, table 7", blocks_of(record), NOTES)


def simulation(folders: Sequence[Path] = ()) -> list[Block]:
    """Table 7, with the records in data/results and in further folders; settings that were not run are blank.

    Raises:
        FileNotFoundError: if a folder does not exist, or the package runs without its data folder.
        ValueError: if a record is damaged.
    """
    found = reference.find_records([reference.RESULTS, *folders])
    made = [blocks_of(found.get(name, {"experiment": name})) for name in MEASUREMENTS]
    return [block for blocks in made for block in blocks]


def blocks_of(record: dict[str, Any]) -> list[Block]:
    """The tables of one setting: best checkpoints beside the paper, last ones, and the other measures."""
    with reference.reading(record):
        return blocks_of_numbers(record)


def blocks_of_numbers(record: dict[str, Any]) -> list[Block]:
    """As `blocks_of`, for a record that has all that it should."""
    name = record["experiment"].rsplit("/", 1)[-1]
    configuration, values = record.get("configuration", {}), record.get("values", {})
    about = SETTINGS.get(name, name)
    if configuration:
        about += f", {configuration['steps']:,} steps of {configuration['batch']}, {configuration['runs']} runs"
    paper = {row["scenario"]: row for row in reference.read_reference("lee2025_table7")} if values else {}
    theirs = ("distance", "failures", "mode_divergence", "normalized")
    best, last, others = [], [], []
    for scenario in SCENARIOS:
        ours, first = values.get(scenario, {}), NAMES[scenario]
        of_paper = (paper.get(scenario, {}).get(column, "") for column in theirs)
        best.append((first, *of_paper, *cells(ours.get("best"), COLUMNS)))
        last.append((first, *cells(ours.get("last"), COLUMNS)))
        others.append((first, *cells(ours.get("best"), OTHERS), *cells(ours.get("last"), OTHERS)))
    says = "Independent pairs come nearer to the data than optimal ones; a source that approximates their density does "
    says += "not help; directions near those of the data give the right shares, and too near ones hurt."
    heads = [TITLES[column] for column in COLUMNS]
    columns = [f"{kind}\n{head}" for kind in ("paper", "ours") for head in heads]
    more = [f"{kind}\n{TITLES[column]}" for kind in ("best", "last") for column in OTHERS]
    return [
        Block(f"Best checkpoint of each run, {about}", ("scenario", *columns), tuple(best), says),
        Block(f"Last checkpoint, {about}", ("scenario", *heads), tuple(last), says),
        Block(f"Other measures, {about}", ("scenario", *more), tuple(others), says),
    ]


def cells(values: list[list[float]] | None, columns: Sequence[str]) -> list[str]:
    """Mean and spread of some measures as text; blank without values. Failures in percent."""
    if values is None:
        return [""] * len(columns)
    found = []
    for column in columns:
        mean, spread = values[MEASURES.index(column)]
        factor, places = (100, 1) if column == "failures" else (1, 3 if column in ("mode_divergence", "mmd") else 2)
        found.append(f"{factor * mean:.{places}f}" + ("" if spread is None else f" ±{factor * spread:.{places}f}"))
    return found
