"""Run an experiment: train, sample, evaluate, and leave everything in one folder.

config.json            the whole configuration
checkpoint.pt          everything needed to resume
weights.safetensors    the averaged weights, to sample from
data.json              the fingerprint of the data set
source.safetensors     what the source took from the data, and its configuration
pruning.safetensors    axes without data, if prune_tau was set
losses.csv             step, loss
snapshots/             the averaged weights at some steps, if curve_every was set
curve.csv              what samples of these were worth
samples.png            samples beside real images
hybrids.png            samples that follow the exact velocity up to some time, if hybrid_switches was set
record.json            what was run, on what, and what came out
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from fmcore import distributed
from fmcore.atomic import original_name, write_file
from fmcore.checkpoints import check_same
from fmcore.data.images import ImageData
from fmcore.experiments import records
from fmcore.experiments.config.experiment import Configuration, from_dict
from fmcore.experiments.config.overrides import flat, to_dict, without_place
from fmcore.experiments.run import fitted_source, same_data
from fmcore.experiments.run.fitted_source import FittedSource
from fmcore.experiments.run.network import build_network
from fmcore.experiments.run.snapshots import FOLDER as SNAPSHOTS
from fmcore.experiments.run.snapshots import Snapshots
from fmcore.experiments.run.training_batch import batch_loss, batch_maker, load_data, training_images
from fmcore.experiments.run.weights import keep_weights
from fmcore.locks import locked
from fmcore.training import train
from fmcore.training.loop import Keep

FILES = (
    "config.json",
    "checkpoint.pt",
    "weights.safetensors",
    same_data.FILE,
    fitted_source.FILE,
    fitted_source.AXES_FILE,
    "losses.csv",
    "curve.csv",
    "samples.png",
    "hybrids.png",
    "record.json",
)


def train_run(
    configuration: Configuration,
    folder: Path,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    keep: Keep | None = None,
) -> None:
    """Train and leave config, checkpoint, weights, losses and the training half of the record in the folder.

    The folder is locked meanwhile (`fmcore.locks.locked`). A training that is resumed when it was finished already
    leaves its record as it is, with what the evaluation has found.

    Started by torchrun, all processes call this; process 0 writes. With `minutes`, the configuration that is left has
    the number of steps that fitted into them.

    The process is left as it was, PyTorch's generators and settings too, with one exception: on the CPU under Linux it
    goes on keeping memory that it frees (`fmcore.training.device.keep_freed_memory`), which cannot be undone.

    Args:
        configuration: of the experiment.
        folder: of the run.
        resume, overwrite: what to do if there is a run already.
        progress: whether to show it.
        keep: called as that of `fmcore.training.train`, for what else should be kept at each checkpoint.

    Raises:
        BlockingIOError: if another process, or another thread, trains or evaluates in the folder.
        FileExistsError: if the folder is not empty and neither resume nor overwrite was asked for.
        ValueError: if resume was asked for with another configuration (the message names the fields that differ) or
            other images, or if there is nothing to prune.
    """
    with distributed.session(distributed.local_device()), distributed.in_first(locked(folder)):
        images = load_data(configuration)
        train_on = training_images(configuration, images)
        settings = configuration.training
        model = build_network(configuration, images.shape).to(distributed.local_device())
        distributed.first(lambda: prepare_folder(configuration, images, folder, resume, overwrite))
        distributed.first(lambda: fitted_source.fit_once(configuration, folder, images, train_on))
        source = fitted_source.of_run(configuration, folder, images, train_on)
        distributed.first(lambda: check_sources(configuration, images, train_on, source, folder))
        snapshots = Snapshots(folder, configuration.evaluation.curve_every)
        saved: list[int] = []  # steps after which there was a checkpoint; none if the training was finished already

        def keep_all(step: int, averaged: nn.Module) -> None:
            saved.append(step)
            snapshots.keep(step, averaged)
            if keep is not None:
                keep(step, averaged)

        trained = train(
            model,
            batch_loss(configuration, images, train_on),
            train_on,
            settings,
            folder / "checkpoint.pt",
            resume=resume,
            progress=progress,
            prepare=batch_maker(configuration, images, source),
            keep=keep_all,
        )
        configuration = replace(configuration, training=trained.config)
        settings = trained.config
        lines = [f"{step},{loss:.6g}" for step, loss in enumerate(trained.losses.tolist())]
        record = {
            "experiment": configuration.experiment,
            "configuration": without_place(configuration),
            "data": {"name": images.name, "fingerprint": same_data.kept(folder)},
            "environment": records.environment(),
            "norm_factor": source.factor,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "training": {
                "split": "train",
                "images": len(train_on),
                "flips": configuration.flips,
                "global_batch": settings.batch,
                "processes": trained.processes,
                "steps": settings.steps,
                "epochs": round(settings.steps * settings.batch / len(train_on), 2),
                "seed": settings.seed,
                "ema": settings.ema,
                "wall_seconds": round(trained.seconds, 2),
                "images_per_second": round(trained.images_per_second, 1),
                "mean_loss_of_last_100_steps": float(trained.losses[-100:].mean()),
                "notes": list(trained.notes),
            },
        }

        def leave() -> None:
            records.write_json(folder / "config.json", to_dict(configuration))
            keep_weights(trained.ema.state_dict(), folder / "weights.safetensors", configuration.source)
            write_file(folder / "losses.csv", "\n".join(["step,loss", *lines, ""]).encode())
            if saved or not has_record(folder):  # else it may have been evaluated, and these values would be lost
                records.write_json(folder / "record.json", record)

        distributed.first(leave)


def has_record(folder: Path) -> bool:
    """Whether the folder has the record of a training, perhaps evaluated, that can be read."""
    try:
        found = records.read_json(folder / "record.json")
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and "training" in found


def check_sources(
    configuration: Configuration, images: ImageData, train_on: Tensor, source: FittedSource, folder: Path
) -> None:
    """Raise ValueError if samples of a pruned source cannot be drawn: those of training, or those of the evaluation."""
    tau, threshold = configuration.evaluation.prune_tau, configuration.evaluation.prune_threshold
    if configuration.source.distribution == "pruned":
        fitted_source.check_starts(source.source)
    if tau is not None and threshold is not None:
        file = folder / fitted_source.AXES_FILE
        axes = fitted_source.keep_axes(images, train_on, configuration.flips, tau, file)
        fitted_source.check_starts(fitted_source.pruned_start(source, threshold, axes)[1])


def prepare_folder(
    configuration: Configuration, images: ImageData, folder: Path, resume: bool, overwrite: bool
) -> None:
    """Make the folder ready for a run; write config.json and data.json; raises as `train_run`."""
    if resume and overwrite:
        raise ValueError("--resume continues a run and --overwrite starts it anew: choose one")
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: name a folder for the run with --run-dir")
    config = folder / "config.json"
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    # A process that was killed when it first wrote config.json left a part of it, and nothing else: no run has begun.
    if any(name == config.name or original_name(name) != config.name for name in names):
        if not resume and not overwrite:
            raise FileExistsError(
                f"{folder} is not empty: add --resume to continue the run in it, --overwrite to start anew, "
                "or --run-dir to write elsewhere"
            )
        if not config.exists():
            raise FileExistsError(f"{folder} is not empty and holds no run (no config.json): choose another --run-dir")
    if resume and config.exists():
        saved = from_dict(records.read_json(config))
        asked = without_place(configuration)
        if configuration.training.minutes is not None:  # the steps that fit into them may have been set
            asked["training"]["steps"] = saved.training.steps
        check_same(flat(without_place(saved)), flat(asked), f"the run in {folder} was started")
        same_data.check(images, folder)
    if overwrite:
        for name in FILES:
            if name != config.name:  # replaced below: without one, a kill in between would leave a folder of no run
                (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / SNAPSHOTS, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    records.write_json(config, to_dict(configuration))
    if not (folder / "checkpoint.pt").exists():  # else nobody knows what a run of an earlier version has seen
        same_data.keep(images, folder)
