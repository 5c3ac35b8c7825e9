"""Records and settings as tables for people."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from fmcore.experiments.config.experiment import Configuration
from fmcore.experiments.config.meanings import meanings
from fmcore.experiments.config.overrides import flat, to_dict


def show_record(record: dict[str, Any]) -> None:
    """Print a record: what was trained, how it was evaluated, and each value with its spread."""
    from rich.table import Table

    from fmcore.console.tables import WHOLE, WORDS, Console

    console = Console()
    training, evaluation = record["training"], record["evaluation"]
    about = Table(title=f"{record['experiment']}: the run", title_justify="left", show_header=False)
    about.add_column(style="bold", **WHOLE)
    about.add_column(**WORDS)
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
        *classes_found(evaluation),
        *(("at step", point) for point in curve_points(record.get("curve", []))),
        (
            "hardware",
            f"{record['environment']['hardware']['cpu']}, {record['environment']['hardware']['threads']} threads",
        ),
        ("commit", record["environment"]["commit"] or "not known"),
    ):
        about.add_row(name, text)
    console.show(about)
    console.show(values_table("what was measured", record["values"]))


def classes_found(evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a classifier made of samples and of real images, as a row; none in a record that does not say it."""
    if "classifier_confident" not in evaluation:
        return []
    sure = evaluation["classifier_confident"]
    made, real = sure["generated"], sure["held out (real)"]
    text = f"a classifier is sure of the class of {made:.1%} of samples, {real:.1%} of real"
    if found := evaluation.get("classifier_agreement"):
        accuracy = evaluation["classifier_accuracy_on_held_out"]
        text += f"; it finds the one asked for in {found['all']:.1%} (of real images {accuracy:.1%})"
    return [("classes", text)]


def values_table(title: str, values: dict[str, Any], decimals_of_spread: int = 3) -> Any:
    """The values of a record with their spreads; one that is None was never reached."""
    from rich.table import Table

    from fmcore.console.tables import WHOLE, WORDS

    table = Table(title=title, title_justify="left")
    table.add_column("measure", style="bold", **WORDS)
    table.add_column("of", **WORDS)
    table.add_column("value", justify="right", **WHOLE)
    table.add_column("spread", justify="right", **WHOLE)
    table.add_column("spread is the", style="dim", **WORDS)
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


def show_experiments(experiments: Mapping[str, Configuration]) -> None:
    """Print one line an experiment."""
    from rich.table import Table

    from fmcore.console.tables import WHOLE, Console

    table = Table(title="experiments: fmcore train NAME", title_justify="left")
    for title in ("name", "data", "path", "loss", "steps", "batch"):
        table.add_column(title, **WHOLE)
    for name, one in experiments.items():
        settings = one.training
        table.add_row(name, one.data, one.path, one.loss.replace("_", " "), f"{settings.steps:,}", str(settings.batch))
    Console().show(table)


def show_settings(configuration: Any, command: str = "train", explain: bool = False) -> None:
    """Print every setting of an experiment, or of what another command does, as field=value on its command line.

    Args:
        configuration: of the experiment.
        command: that takes them.
        explain: print what each means below it.
    """
    said = meanings(configuration) if explain else {}
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
        margin = "    " if above else "  "
        print(f"{margin}{field}={text}")
        if said.get(name):
            print(textwrap.fill(said[name], 100, initial_indent=f"{margin}    ", subsequent_indent=f"{margin}    "))
