"""Records and settings as tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fmcore.experiments.configuration import Configuration, flat, to_dict


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
        ("distance", f"{evaluation['feature_space']}, to the {evaluation['reference']}"),
        (
            "hardware",
            f"{record['environment']['hardware']['cpu']}, {record['environment']['hardware']['threads']} threads",
        ),
        ("commit", record["environment"]["commit"] or "not known"),
    ):
        about.add_row(name, text)
    console.print(about)

    values = Table(title="what was measured", title_justify="left")
    values.add_column("measure", style="bold")
    values.add_column("of")
    values.add_column("value", justify="right")
    values.add_column("spread", justify="right")
    values.add_column("spread is the", style="dim")
    for measure, rows in record["values"].items():
        for number, (of, found) in enumerate(rows.items()):
            spread = "" if found["spread"] is None else f"{found['spread']:.3f}"
            values.add_row(
                measure.replace("_", " ") if number == 0 else "",
                of,
                f"{found['value']:.3f}",
                spread,
                found["spread_is"] or "",
            )
        values.add_section()
    console.print(values)


def show_experiments(experiments: Mapping[str, Configuration]) -> None:
    """Print one line an experiment."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="experiments: fmcore train NAME", title_justify="left")
    for title in ("name", "data", "path", "loss", "steps", "batch"):
        table.add_column(title)
    for name, one in experiments.items():
        settings = one.training
        table.add_row(name, one.data, one.path, one.loss.replace("_", " "), f"{settings.steps:,}", str(settings.batch))
    Console().print(table)


def show_settings(configuration: Configuration) -> None:
    """Print every setting of an experiment as field=value, as the command line takes it."""
    print(f"settings of {configuration.experiment}: fmcore train {configuration.experiment} FIELD=VALUE ...")
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
