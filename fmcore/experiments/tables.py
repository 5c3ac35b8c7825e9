"""Records and settings as tables for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fmcore.experiments import comparison, generalization, source_comparison
from fmcore.experiments.catalog.lipman2023 import SIZES
from fmcore.experiments.comparison import METHODS, NOTES, TITLES, Row
from fmcore.experiments.configuration import Configuration, flat, to_dict
from fmcore.experiments.generalization import Block


def show_record(record: dict[str, Any]) -> None:
    """Print a record: what was trained, how it was evaluated, and each value with its spread."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    training, evaluation = record["training"], record["evaluation"]
    about = Table(title=f"{record['experiment']}: the run", title_justify="left", show_header=False)
    about.add_column(style="bold")
    about.add_column(overflow="fold")
    for name, text in (
        ("network", f"{record['parameters']:,} parameters, sampled with the {evaluation['weights']} weights"),
        (
            "training",
            f"{training['steps']:,} steps of {training['global_batch']} images in {training['wall_seconds']:.0f} s "
            f"({training['images_per_second']:,.0f} images/s), seed {training['seed']}",
        ),
        ("samples", f"{evaluation['generated']:,} images, {evaluation['solver']}, NFE {evaluation['nfe']:.0f}"),
        ("likelihood", evaluation["likelihood"]),
        *noise_of_likelihood(evaluation.get("likelihood_spread", {})),
        ("distance", f"{evaluation['feature_space']}, to the {evaluation['reference']}"),
        *(("at step", point) for point in curve_points(record.get("curve", []))),
        (
            "hardware",
            f"{record['environment']['hardware']['cpu']}, {record['environment']['hardware']['threads']} threads",
        ),
        ("commit", record["environment"]["commit"] or "not known"),
    ):
        about.add_row(name, text)
    console.print(about)
    console.print(values_table("what was measured", record["values"]))


def values_table(title: str, values: dict[str, Any], decimals_of_spread: int = 3) -> Any:
    """The values of a record with their spreads; one that is None was never reached."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("measure", style="bold")
    table.add_column("of")
    table.add_column("value", justify="right")
    table.add_column("spread", justify="right")
    table.add_column("spread is the", style="dim")
    for measure, rows in values.items():
        for number, (of, found) in enumerate(rows.items()):
            name = measure.replace("_", " ") if number == 0 else ""
            value = "never" if found["value"] is None else f"{found['value']:.3f}"
            spread = "" if found["spread"] is None else f"{found['spread']:.{decimals_of_spread}f}"
            table.add_row(name, of, value, spread, found["spread_is"] or "")
        table.add_section()
    return table


def noise_of_likelihood(about: dict[str, Any]) -> list[tuple[str, str]]:
    """How noisy the estimates of bits/dim are, and what that does to the value of K draws."""
    found = []
    if "deviation_between_probes" in about:
        text = f"{about['deviation_between_probes']:.3f} bits/dim an image between probes"
        if "deviation_between_draws" in about:
            text += f", {about['deviation_between_draws']:.3f} between draws and probes"
        found.append(("noise", text))
    if bias := about.get("bias_of_K_draws"):
        text = f"{bias['gaussian_model']:+.3f} bits/dim of K = {about['draws']} are this noise (Gaussian model"
        found.append(("bias", f"{text}; to second order {bias['second_order']:+.3f})"))
    return found


def curve_points(curve: list[dict[str, float]]) -> list[str]:
    """The points of a training curve, one line each."""
    return [
        f"{point['step']:,}: classifier Frechet distance {point['classifier_frechet_distance']:.2f}, "
        f"loss {point['mean_loss']:.4f}, NFE {point['nfe']:.0f}"
        for point in curve
    ]


def show_comparison(rows: Sequence[Row]) -> None:
    """Print the paper's numbers beside ours, one table a data set, and what one must know to read them."""
    from rich.console import Console

    console = Console()
    # Wide enough for every column, also where the output is no terminal and its width is not known.
    console = Console(width=max(console.width, 140))
    console.print("Lipman et al. 2023, Table 1: paper against ours; blank where nothing was run\n", markup=False)
    for size in SIZES:
        block = [row for row in rows if row.size == size]
        console.print(block_table(size, block))
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


def show_blocks(title: str, blocks: Sequence[Block], notes: Sequence[str]) -> None:
    """Print tables one below the other, and after those of one figure what the paper says about it."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console = Console(width=max(console.width, 140))
    console.print(f"{title}: paper against ours; blank where nothing was run\n", markup=False)
    shown = [block for block in blocks if block.measured]
    for block, after in zip(shown, [*shown[1:], None], strict=True):
        table = Table(title=block.title, title_justify="left", min_width=len(block.title))
        for number, name in enumerate(block.columns):
            table.add_column(name, justify="right" if number else "left", no_wrap=True)
        for row in block.rows:
            table.add_row(*row)
        console.print(table)
        if after is None or after.paper != block.paper:
            console.print(f"Paper: {block.paper}\n", markup=False)
    for block in blocks:
        if not block.measured:
            console.print(f"- not run: {block.title}", markup=False)
    for note in notes:
        console.print(f"- {note}", markup=False)


def cell(value: float | None, places: int) -> str:
    """A number with its decimals, or nothing."""
    return "" if value is None else f"{value:,.{places}f}"


def show_experiments(experiments: Mapping[str, Configuration]) -> None:
    """Print one line an experiment."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="experiments: fmcore train NAME", title_justify="left")
    for title in ("name", "data", "path", "loss", "steps", "batch"):
        table.add_column(title, no_wrap=True)
    for name, one in experiments.items():
        settings = one.training
        table.add_row(name, one.data, one.path, one.loss.replace("_", " "), f"{settings.steps:,}", str(settings.batch))
    console = Console()
    Console(width=max(console.width, 140)).print(table)


def show_settings(configuration: Any, command: str = "train") -> None:
    """Print every setting of an experiment, or of what another command does, as field=value on its command line."""
    print(f"settings of {configuration.experiment}: fmcore {command} {configuration.experiment} FIELD=VALUE ...")
    group = ""
    for name, value in flat(to_dict(configuration)).items():
        if name == "experiment":
            continue
        *above, field = name.split(".")
        if above and above[0] != group:
            group = above[0]
            print(f"  {group}")
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value).lower() if value is None else value
        print(f"{'    ' if above else '  '}{field}={text}")


def lipman2023(folders: Sequence[Path]) -> None:
    """Print Table 1 of Lipman et al. 2023; raises as `comparison.lipman2023`."""
    show_comparison(comparison.lipman2023(folders))


def bertrand2025(folders: Sequence[Path]) -> None:
    """Print the figures of Bertrand et al. 2025; raises as `generalization.bertrand2025`."""
    show_blocks("Bertrand et al. 2025, figures 1 to 4", generalization.bertrand2025(folders), generalization.NOTES)


def lee2025(folders: Sequence[Path]) -> None:
    """Print the tables of Lee et al. 2025 on images; raises as `source_comparison.lee2025`."""
    show_blocks("Lee et al. 2025, sources", source_comparison.lee2025(folders), source_comparison.NOTES)


def simulation(folders: Sequence[Path]) -> None:
    """Print Table 7 of Lee et al. 2025; raises as `simulation_report.simulation`."""
    from fmcore.experiments import simulation_report

    show_blocks("Lee et al. 2025, table 7", simulation_report.simulation(folders), simulation_report.NOTES)


PAPERS: dict[str, Callable[[Sequence[Path]], None]] = {
    "lipman2023": lipman2023,
    "bertrand2025": bertrand2025,
    "lee2025": lee2025,
    "simulation": simulation,
}
