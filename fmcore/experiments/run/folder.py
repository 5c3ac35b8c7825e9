"""The folder of a run: which files are the run's own, and what may be done where there are some already.

Nothing in a folder is replaced or removed but what a run leaves there, and only once all else that could fail is known
not to: see `check_folder` and `begin`.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from torch import Tensor

from fmcore.atomic import original_name
from fmcore.checkpoints import check_same
from fmcore.data.images import ImageData
from fmcore.experiments import records, sealed
from fmcore.experiments.config.experiment import Configuration, from_dict
from fmcore.experiments.config.overrides import flat, to_dict, without_place
from fmcore.experiments.run import fitted_source, pruning_axes, same_data, snapshots, warm_start
from fmcore.experiments.run.identity import Identity
from fmcore.training.schedule import may_end_elsewhere

CONFIG, CHECKPOINT, WEIGHTS, RECORD = "config.json", "checkpoint.pt", "weights.safetensors", "record.json"
PAIRS = "pairs.safetensors"  # of a teacher; see `fmcore.experiments.run.reflow`
FILES = (
    CONFIG,
    CHECKPOINT,
    WEIGHTS,
    same_data.FILE,
    warm_start.FILE,
    PAIRS,
    fitted_source.FILE,
    pruning_axes.FILE,
    "losses.csv",
    "curve.csv",
    "samples.png",
    "hybrids.png",
    RECORD,
)


def read_configuration(folder: Path) -> Configuration:
    """The configuration of the run in a folder; warns of one of an earlier version, which has no digest.

    Raises:
        ValueError: naming the file, if it is damaged, or was changed after it was written.
        OSError: if it cannot be read.
    """
    file = folder / CONFIG
    content = records.read_json(file)
    if isinstance(content, dict) and not sealed.is_sealed(content):
        warnings.warn(
            f"{folder} is a run of an earlier version: its files have no digests, so nothing tells whether they are "
            "intact and belong together",
            stacklevel=2,
        )
    try:
        return from_dict(sealed.opened(content, file))
    except ValueError as error:
        raise ValueError(str(error) if str(file) in str(error) else f"{file}: {error}") from None


def is_sealed(folder: Path) -> bool:
    """Whether the configuration of the run in a folder carries its digest, as those of earlier versions do not."""
    return sealed.is_sealed(records.read_json(folder / CONFIG))


def write_configuration(configuration: Configuration, folder: Path) -> None:
    """Leave config.json in the folder of a run."""
    sealed.write(folder / CONFIG, to_dict(configuration))


def check_folder(configuration: Configuration, images: ImageData, folder: Path, resume: bool, overwrite: bool) -> bool:
    """Whether there is a run to go on with; changes nothing.

    Raises:
        FileExistsError: if the folder holds something, and neither resume nor overwrite was asked for, or it is no run.
        ValueError: if resume was asked for with another configuration or other images, or files are damaged.
    """
    if resume and overwrite:
        raise ValueError("--resume continues a run and --overwrite starts it anew: choose one")
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: name a folder for the run with --run-dir")
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    # A process that was killed when it first wrote config.json left a part of it, and nothing else: no run has begun.
    if not any(name == CONFIG or original_name(name) != CONFIG for name in names):
        if resume:
            warnings.warn(f"nothing to resume in {folder}: the training starts from the beginning", stacklevel=2)
        return False
    if not resume and not overwrite:
        raise FileExistsError(
            f"{folder} is not empty: add --resume to continue the run in it, --overwrite to start anew, "
            "or --run-dir to write elsewhere"
        )
    if not (folder / CONFIG).exists():
        raise FileExistsError(f"{folder} is not empty and holds no run (no config.json): choose another --run-dir")
    check_is_run(folder, damaged=resume)
    if overwrite:
        return False
    saved = read_configuration(folder)
    asked = without_place(configuration)
    other_end = may_end_elsewhere(saved.training, configuration.training)
    if other_end or configuration.training.minutes is not None:  # the steps that fit into them may have been set
        asked["training"]["steps"] = saved.training.steps
    check_same(flat(without_place(saved)), flat(asked), f"the run in {folder} was started")
    same_data.check(images, folder)
    return True


def check_is_run(folder: Path, damaged: bool = False) -> None:
    """Raise FileExistsError if config.json is not that of a run: it may be a stranger's folder.

    damaged: whether to let one pass that cannot be read, for whoever names it then.
    """
    try:
        content = records.read_json(folder / CONFIG)
    except ValueError:
        if damaged:
            return
        content = None
    if not isinstance(content, dict) or not {"experiment", "training", "evaluation"} <= content.keys():
        raise FileExistsError(
            f"{folder} holds a config.json that is not of a run, so what is in it stays: choose another --run-dir, or "
            "empty the folder yourself"
        )


def begin(
    configuration: Configuration,
    images: ImageData,
    folder: Path,
    run: Identity,
    fitted: dict[str, Tensor],
    overwrite: bool,
) -> None:
    """Make the folder that of this run, with its configuration, fingerprint and source; what a former run left goes."""
    if overwrite:
        for name in FILES:
            if name != CONFIG:  # replaced below: without one, a kill in between would leave a folder of no run
                (folder / name).unlink(missing_ok=True)
        snapshots.remove(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_configuration(configuration, folder)
    same_data.keep(images, folder)
    fitted_source.keep_fitted(fitted, configuration.source, folder, run)
