"""The command line: ``fmcore train | sample | evaluate | export | measure | table | list | doctor``.

Everything but the parser is imported by the command that needs it, so that ``fmcore --help`` answers at once.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import tyro
from tyro.conf import Positional, arg

from fmcore.console import signs

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
    with distributed.session(distributed.local_device()), distributed.in_first(locked(folder)):
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
    from fmcore.experiments.evaluate.evaluation import evaluate_run
    from fmcore.experiments.run.finished import Run
    from fmcore.locks import locked
    from fmcore.papers import printing

    with distributed.session(distributed.local_device()), distributed.in_first(locked(run)):
        loaded = Run(run, overrides)
        first = distributed.rank() == 0
        if first:
            print("evaluating ...", file=sys.stderr)
        record = evaluate_run(loaded)
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
    from fmcore.experiments.config.overrides import with_overrides
    from fmcore.papers import measurements

    folder = run_dir or Path("runs") / name
    configuration = with_overrides(measurements.by_name(name), overrides)
    check_place(folder)
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
) -> None:
    """Draw new images from a finished run.

    Example: fmcore sample runs/lee2025/digits/ot --pruned

    Args:
        run: The folder of the run, for example runs/digits.
        overrides: Settings of the evaluation that differ from the run's.
        n: How many images.
        out: The picture to write; its ending chooses the format.
        seed: Seed of the noise that the images start from.
        pruned: Start without the directions in which there are no data, by prune_tau and prune_threshold.
    """
    import torch

    from fmcore.data.images import to_uint8
    from fmcore.experiments.drawing import check_picture, save_grid
    from fmcore.experiments.run.finished import Run

    if n < 1:
        raise ValueError(f"--n must be at least 1, got {n}")
    check_picture(out)
    check_place(out.parent)
    out.parent.mkdir(parents=True, exist_ok=True)
    loaded = Run(run, overrides)
    start = loaded.pruned()[0] if pruned else None
    solution = loaded.sample(n, torch.Generator().manual_seed(seed), source=start)
    save_grid(to_uint8(solution.x.cpu(), loaded.data.levels), out, loaded.data.levels)
    print(f"wrote {n} images to {out} (NFE {solution.nfe})")


@app.command
def export(
    run: Positional[Folder],
    out: Annotated[Path | None, arg(metavar="FOLDER")] = None,
) -> None:
    """Keep the weights of a finished run, in half the size, beside its record; chapters load them by name.

    Args:
        run: The folder of the run, for example runs/cifar10.
        out: The folder to write to; data/pretrained unless told otherwise.
    """
    from fmcore.experiments.run import pretrained
    from fmcore.experiments.run.finished import Run

    file = pretrained.keep(Run(run), out or pretrained.FOLDER)
    print(f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB) and its record {file.with_suffix('.json').name}")


@app.command(name="list")
def list_experiments(name: Positional[Annotated[str | None, arg(metavar="[NAME]")]] = None) -> None:
    """List the named experiments and measurements, or all settings of one.

    Args:
        name: The experiment or measurement whose settings to show.
    """
    from fmcore.papers import catalog, measurements, printing
    from fmcore.validation import unknown_name

    if name is None:
        printing.show_experiments(catalog.EXPERIMENTS)
        measurements.show_all()
    elif name in measurements.MEASUREMENTS:
        printing.show_settings(measurements.MEASUREMENTS[name], "measure")
    elif name in catalog.EXPERIMENTS:
        printing.show_settings(catalog.EXPERIMENTS[name])
    else:
        raise unknown_name("experiment", name, [*catalog.EXPERIMENTS, *measurements.MEASUREMENTS])


@app.command
def doctor() -> None:
    """Say what is installed, what this machine can do, and what is missing for which feature."""
    from fmcore.doctor import show_report

    show_report()


def check_place(folder: Path) -> None:
    """Raise PermissionError or NotADirectoryError where no folder can be made: at once, not after the work.

    A `folder` that is there itself is judged by whoever writes into it, if it is no folder.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if there != folder and not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    if not os.access(there, os.W_OK | os.X_OK) and there.is_dir():
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))


def explained(error: Exception) -> str:
    """What an error says; of the system's own about a file, what to do."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    if error.filename is None:
        return error.strerror  # a sentence of ours with the system's number
    said = f"{error.filename}: {error.strerror.lower()}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
        said += (
            "; work in a folder of your own, or name another place: --run-dir for train and measure, --out for sample "
            "and export, the environment variable FMCORE_DATA for data"
        )
    return said


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; an error that the caller can mend is one line on stderr and exit status 2."""
    # Before torch is loaded: threads that spin while they wait for each other make training many times slower when
    # other programs use the processor too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signs.spell_on(sys.stdout, sys.stderr)
    try:
        try:
            app.cli(prog="fmcore", args=arguments, description="Flow matching from first principles.")
        finally:
            if sys.stdout is not None:  # closed by whoever started this
                sys.stdout.flush()  # here, where it may fail, and not at the end of Python
    except BrokenPipeError:
        # Nobody reads on, as in "fmcore list | head -1". What is left goes nowhere, or Python would complain about it.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nstopped; a training run continues with the same command and --resume", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("FMCORE_TRACEBACK"):
            raise
        print(f"error: {explained(error)}", file=sys.stderr)
        sys.exit(2)
