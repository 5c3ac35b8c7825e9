"""The command line: ``fmcore train | sample | evaluate | export | verify | measure | table | list | doctor``.

Everything but the parser is imported by the command that needs it, so that ``fmcore --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import tyro
from tyro.conf import Positional, arg

from fmcore.console import ending
from fmcore.console.arguments import ordered
from fmcore.console.places import check_place

Name: TypeAlias = Annotated[str, arg(metavar="NAME")]
Folder: TypeAlias = Annotated[Path, arg(metavar="FOLDER")]

app = tyro.extras.SubcommandApp()


@app.command
def train(
    name: Positional[Name],
    overrides: Positional[Annotated[tuple[str, ...], arg(metavar="[FIELD=VALUE ...]")]] = (),
    run_dir: Annotated[Path | None, arg(metavar="FOLDER")] = None,
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    steps: Annotated[int | None, arg(metavar="N")] = None,
) -> None:
    """Train a named experiment, evaluate it, and print the record as a table.

    Example: fmcore train digits steps=500 batch=64 lr=1e-3

    Args:
        name: The experiment; "fmcore list" shows them.
        overrides: Settings that differ from the experiment's; "fmcore list NAME" shows all of them.
        run_dir: Where everything is written; runs/NAME unless told otherwise.
        resume: Continue a run that was stopped. It ends with the weights of one that was not.
        overwrite: Start anew in a folder that holds a run.
        steps: Number of training steps, the same as steps=N.
    """
    from fmcore import distributed
    from fmcore.experiments import kept
    from fmcore.experiments.config.overrides import with_overrides
    from fmcore.experiments.evaluate.evaluation import check_features
    from fmcore.experiments.run.train import train_run
    from fmcore.locks import locked
    from fmcore.papers import catalog

    settings = [*overrides, *([] if steps is None else [f"steps={steps}"])]
    folder = run_dir or Path("runs") / name
    configuration = with_overrides(catalog.by_name(name), settings)
    check_features(configuration.evaluation)  # before the training, not after it
    check_place(folder)
    # One lock for both: between them, another process could start anew in the folder.
    with (
        kept.training(folder, overwrite),
        distributed.session(distributed.local_device()),
        distributed.in_first(locked(folder)),
    ):
        train_run(configuration, folder, resume=resume, overwrite=overwrite)
        evaluate(folder)


@app.command
def evaluate(
    run: Positional[Folder],
    overrides: Positional[Annotated[tuple[str, ...], arg(metavar="[FIELD=VALUE ...]")]] = (),
) -> None:
    """Measure a finished run again and print the record as a table.

    Example: fmcore evaluate runs/digits rtol=1e-5 draws=5

    Args:
        run: The folder of the run, for example runs/digits.
        overrides: Settings of the evaluation that differ from the run's; the record keeps them.
    """
    from fmcore import distributed
    from fmcore.experiments import kept, records
    from fmcore.experiments.evaluate.evaluation import evaluate_run
    from fmcore.experiments.run.finished import Run
    from fmcore.locks import locked
    from fmcore.papers import printing

    with (
        kept.evaluation(run, overrides),
        distributed.session(distributed.local_device()),
        distributed.in_first(locked(run)),
    ):
        loaded = Run(run, overrides)
        first = distributed.rank() == 0
        distributed.first(lambda: records.of_training(loaded.record(), run / kept.RECORD))  # what is shown at the end
        if first:
            print("evaluating ...", file=sys.stderr)
        record = evaluate_run(loaded, if_not_written=printing.show_record)
        if first:
            printing.show_record(record)
            print(f"record, weights and pictures are in {run}")


@app.command
def measure(
    name: Positional[Name],
    overrides: Positional[Annotated[tuple[str, ...], arg(metavar="[FIELD=VALUE ...]")]] = (),
    run_dir: Annotated[Path | None, arg(metavar="FOLDER")] = None,
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Measure what needs no image network: a collapse, the geometry of images, or the simulation in the plane.

    Example: fmcore measure bertrand2025/digits/collapse pairs=128

    Args:
        name: The measurement; "fmcore list" shows them.
        overrides: Settings that differ from the measurement's; "fmcore list NAME" shows all of them.
        run_dir: Where record.json and a picture are written; runs/NAME unless told otherwise.
        overwrite: Replace a measurement that is there.
    """
    from fmcore.experiments import kept
    from fmcore.experiments.config.overrides import with_overrides
    from fmcore.papers import measurements

    folder = run_dir or Path("runs") / name
    configuration = with_overrides(measurements.by_name(name), overrides)
    check_place(folder)
    with kept.measurement(folder):
        record = measurements.measure_run(configuration, folder, overwrite=overwrite)
    measurements.show_values(configuration, record)
    print(f"record and picture are in {folder}")


@app.command
def table(
    name: Positional[Name],
    folders: Positional[Annotated[tuple[Path, ...], arg(metavar="[FOLDER ...]")]] = (),
) -> None:
    """Print a paper's table beside ours.

    Example: fmcore table lipman2023 runs

    Args:
        name: The paper, lipman2023, bertrand2025 or lee2025, or simulation (table 7 of lee2025).
        folders: Where to look for records besides data/results, for example runs; later ones win.
    """
    from fmcore.papers import tables
    from fmcore.validation import unknown_name

    if name not in tables.PAPERS:
        raise unknown_name("table", name, tables.PAPERS)
    tables.PAPERS[name](folders)


@app.command
def sample(
    run: Positional[Folder],
    overrides: Positional[Annotated[tuple[str, ...], arg(metavar="[FIELD=VALUE ...]")]] = (),
    n: Annotated[int, arg(metavar="N")] = 64,
    out: Annotated[Path, arg(metavar="FILE")] = Path("samples.png"),
    seed: Annotated[int, arg(metavar="N")] = 0,
    pruned: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    label: Annotated[str | None, arg(metavar="CLASS")] = None,
    guidance: Annotated[float | None, arg(metavar="SCALE")] = None,
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Draw new images from a finished run.

    Example: fmcore sample runs/lee2025/digits/ot --pruned

    Args:
        run: The folder of the run, for example runs/digits.
        overrides: Settings of the evaluation that differ from the run's.
        n: How many images.
        out: The picture to write; its ending chooses the format.
        seed: Seed of the noise that the images start from.
        label: Of one class, by its name or number, where the network knows classes; all of them unless told otherwise.
        guidance: 1 for a class as it is, more to exaggerate it; the run's guidance_scale unless told otherwise.
        pruned: Start without the directions in which there are no data, by prune_tau and prune_threshold.
        overwrite: Replace a picture that is there.
    """
    import torch

    from fmcore.experiments import kept
    from fmcore.experiments.drawing import check_picture, numbered, save_grid
    from fmcore.experiments.run import samples
    from fmcore.experiments.run.finished import Run

    if n < 1:
        raise ValueError(f"--n must be at least 1, got {n}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"--seed must be a whole number from 0 to 2^64 - 1, got {seed}")
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists: add --overwrite to replace it, or name another file with --out")
    check_picture(out)
    check_place(out.parent)
    out.parent.mkdir(parents=True, exist_ok=True)
    with kept.picture(out):
        loaded = Run(run, overrides)
        start = loaded.pruned()[0] if pruned else None
        labels = samples.classes_asked(loaded, n, label, guidance)
        # Of all classes in turn, each has a column.
        columns = loaded.data.num_classes if labels is not None and label is None else None
        nfe, files = 0.0, []
        parts = samples.drawn(loaded, n, torch.Generator().manual_seed(seed), start, labels, guidance)
        for number, part in enumerate(parts, 1):
            files.append(numbered(out, number))
            save_grid(part.images, files[-1], loaded.data.levels, columns)
            nfe += float(part.nfe.sum()) / n
    more = f" and {len(files) - 1} more, up to {files[-1].name}" if len(files) > 1 else ""
    print(f"wrote {n} images to {out}{more} (NFE {nfe:.0f})")


@app.command
def export(
    run: Positional[Folder],
    out: Annotated[Path | None, arg(metavar="FOLDER")] = None,
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Keep the weights of a finished run, in half the size, beside its record; chapters load them by name.

    Args:
        run: The folder of the run, for example runs/cifar10.
        out: The folder to write to; data/pretrained unless told otherwise.
        overwrite: Replace a network of that name.
    """
    from fmcore.experiments import kept, records
    from fmcore.experiments.run import pretrained
    from fmcore.experiments.run.finished import Run

    loaded = Run(run)
    records.of_training(loaded.record(), run / kept.RECORD)
    file = pretrained.keep(loaded, out or pretrained.FOLDER, overwrite)
    print(f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB) and its record {file.with_suffix('.json').name}")


@app.command
def verify(folder: Positional[Folder]) -> None:
    """Read all files of a run, or of a prepared data set, and compare them with their digests.

    Example: fmcore verify runs/digits

    Args:
        folder: Of the run, or of the data set.
    """
    from fmcore.data import verify_prepared
    from fmcore.experiments.run.folder import CONFIG
    from fmcore.experiments.run.verification import verify_run

    problems = verify_run(folder) if (folder / CONFIG).exists() else verify_prepared(folder)
    if problems:
        raise ValueError("; ".join(problems))
    print(f"all files in {folder} are what was written")


@app.command(name="list")
def list_experiments(
    name: Positional[Annotated[str | None, arg(metavar="[NAME]")]] = None,
    explain: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """List the named experiments and measurements, or all settings of one.

    Example: fmcore list digits --explain

    Args:
        name: The experiment or measurement whose settings to show.
        explain: Say what each setting means.
    """
    from fmcore.papers import catalog, measurements, printing
    from fmcore.validation import unknown_name

    if name is None and explain:
        raise ValueError("--explain says what the settings of an experiment mean: name one, as in fmcore list digits")
    if name is None:
        printing.show_experiments(catalog.EXPERIMENTS)
        measurements.show_all()
    elif name in measurements.MEASUREMENTS:
        printing.show_settings(measurements.MEASUREMENTS[name], "measure", explain)
    elif name in catalog.EXPERIMENTS:
        printing.show_settings(catalog.EXPERIMENTS[name], explain=explain)
    else:
        raise unknown_name("experiment", name, [*catalog.EXPERIMENTS, *measurements.MEASUREMENTS])


@app.command
def doctor() -> None:
    """Say what is installed, what this machine can do, and what is missing for which feature."""
    from fmcore.doctor import show_report

    show_report()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; whatever goes wrong is one line on stderr and an exit status, see `fmcore.console.ending`."""
    # Before torch is loaded: threads that spin while they wait for each other make training many times slower when
    # other programs use the processor too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    typed = list(sys.argv[1:] if arguments is None else arguments)

    def command() -> None:
        app.cli(prog="fmcore", args=ordered(typed), description="Flow matching from first principles.")

    def out_of_memory(error: Exception) -> str | None:
        from fmcore.memory import explained

        return explained(error, typed)

    if status := ending.status_of(command, out_of_memory):
        sys.exit(status)
