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

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from fmcore import distributed
from fmcore.atomic import write_file
from fmcore.experiments import records, sealed
from fmcore.experiments.config.experiment import Configuration
from fmcore.experiments.config.overrides import flat, without_place
from fmcore.experiments.run import fitted_source, precision, reflow, same_data, warm_start
from fmcore.experiments.run.folder import CHECKPOINT, RECORD, WEIGHTS, write_configuration
from fmcore.experiments.run.identity import identity
from fmcore.experiments.run.network import build_network
from fmcore.experiments.run.ready import check_network, make_ready
from fmcore.experiments.run.snapshots import Snapshots
from fmcore.experiments.run.training_batch import batch_loss, batch_maker, load_data, training_images, training_rows
from fmcore.experiments.run.weights import keep_weights
from fmcore.locks import locked
from fmcore.training import train
from fmcore.training.arguments import parts_of_batch
from fmcore.training.batches import Rows
from fmcore.training.loop import Keep


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
        distributed.check_equal("the experiment", flat(without_place(configuration)))
        images = load_data(configuration)
        configuration, choice = precision.settled(configuration, images, folder, resume)
        train_on = training_images(configuration, images)
        settings = configuration.training
        run = identity(configuration, same_data.fingerprint(images))
        model = build_network(configuration, images.shape, images.num_classes).to(distributed.local_device())
        parts_of_batch(settings, distributed.rank(), distributed.processes())
        check_network(model, images)
        start = None if resume and (folder / CHECKPOINT).exists() else warm_start.load(configuration, model)
        distributed.first(lambda: make_ready(configuration, images, train_on, folder, run, resume, overwrite, start))
        start = warm_start.kept(folder)
        source = fitted_source.of_run(configuration, folder, images, train_on, run)
        snapshots = Snapshots(folder, configuration.evaluation.curve_every, run)
        saved: list[int] = []  # steps after which there was a checkpoint; none if the training was finished already

        def keep_all(step: int, averaged: nn.Module) -> None:
            saved.append(step)
            snapshots.keep(step, averaged)
            if keep is not None:
                keep(step, averaged)

        if configuration.teacher is not None:
            rows: Rows = reflow.kept(folder, run).rows()
            prepare = reflow.batch_maker(configuration, images.num_classes)
        else:
            rows = training_rows(configuration, images, train_on)
            prepare = batch_maker(configuration, images, source)
        trained = train(
            model,
            batch_loss(configuration, images, train_on),
            rows,
            settings,
            folder / CHECKPOINT,
            resume=resume,
            progress=progress,
            prepare=prepare,
            keep=keep_all,
            belongs_to=run,
        )
        configuration = replace(configuration, training=trained.config)
        settings = trained.config
        lines = [f"{step},{loss:.6g}" for step, loss in enumerate(trained.losses.tolist())]
        record: dict[str, Any] = {
            "experiment": configuration.experiment,
            "configuration": without_place(configuration),
            "data": {"name": images.name, "fingerprint": same_data.kept(folder)},
            "environment": records.environment(),
            "norm_factor": source.factor,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "training": {
                "split": "train",
                "images": len(rows),
                "flips": configuration.flips,
                "global_batch": settings.batch,
                "processes": trained.processes,
                "steps": settings.steps,
                "epochs": round(settings.steps * settings.batch / len(rows), 2),
                "seed": settings.seed,
                "ema": settings.ema,
                "wall_seconds": round(trained.seconds, 2),
                "images_per_second": round(trained.images_per_second, 1),
                "mean_loss_of_last_100_steps": float(trained.losses[-100:].mean()),
                "notes": [*([choice] if choice else []), *trained.notes],
            },
        }
        seen = warm_start.images_seen(start, settings.steps * settings.batch)
        if start is not None:
            record["training"] |= {"start": start, "images_seen": seen}

        def leave() -> None:
            write_configuration(configuration, folder)
            digest = keep_weights(
                trained.ema.state_dict(), folder / WEIGHTS, run, steps=settings.steps, images_seen=seen
            )
            write_file(folder / "losses.csv", "\n".join(["step,loss", *lines, ""]).encode())
            if saved or not has_record(folder, digest):  # else it may have been evaluated: these values would be lost
                sealed.write(folder / RECORD, record | {"weights_digest": digest})

        distributed.first(leave)


def has_record(folder: Path, digest: str) -> bool:
    """Whether the folder has the record of these weights, perhaps evaluated, that can be read."""
    try:
        found = sealed.read(folder / RECORD)
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and "training" in found and found.get("weights_digest", digest) == digest
