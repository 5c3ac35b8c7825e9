"""Run an experiment: train, sample, evaluate, and leave everything in one folder.

config.json            the whole configuration
checkpoint.pt          everything needed to resume
weights.safetensors    the averaged weights, to sample from
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
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fmcore import data, distributed
from fmcore import velocity as velocities
from fmcore.atomic import write_file
from fmcore.checkpoints import check_same
from fmcore.data.images import ImageData
from fmcore.experiments import fitted_source, records
from fmcore.experiments.configuration import (
    Configuration,
    flat,
    from_dict,
    to_dict,
    with_overrides,
    without_place,
)
from fmcore.experiments.learned_velocity import as_velocity, build_network, for_sampling, load_weights
from fmcore.experiments.sampling import Variant
from fmcore.experiments.snapshots import FOLDER as SNAPSHOTS
from fmcore.experiments.snapshots import Snapshots, keep_weights
from fmcore.experiments.training_pairs import batch_loss, batch_maker, training_images
from fmcore.solvers import Solution, solve
from fmcore.sources import Pruned
from fmcore.training import train
from fmcore.training.loop import Keep

FILES = (
    "config.json",
    "checkpoint.pt",
    "weights.safetensors",
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

    Started by torchrun, all processes call this; process 0 writes. With `minutes`, the configuration that is left has
    the number of steps that fitted into them.

    Args:
        configuration: of the experiment.
        folder: of the run.
        resume, overwrite: what to do if there is a run already.
        progress: whether to show it.
        keep: called as that of `fmcore.training.train`, for what else should be kept at each checkpoint.

    Raises:
        FileExistsError: if the folder is not empty and neither resume nor overwrite was asked for.
        ValueError: if resume was asked for with another configuration; the message names the fields that differ.
    """
    with distributed.session(distributed.local_device()):
        images = load_data(configuration)
        train_on = training_images(configuration, images)
        settings = configuration.training
        model = build_network(configuration, images.shape).to(distributed.local_device())
        distributed.first(lambda: prepare_folder(configuration, folder, resume, overwrite))
        distributed.first(lambda: fitted_source.fit_once(configuration, folder, images, train_on))
        source = fitted_source.of_run(configuration, folder, images, train_on)
        snapshots = Snapshots(folder, configuration.evaluation.curve_every)

        def keep_all(step: int, averaged: nn.Module) -> None:
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
            records.write_json(folder / "record.json", record)

        distributed.first(leave)


def load_data(configuration: Configuration) -> ImageData:
    """The data set of a configuration; the errors of `fmcore.data.by_name` say what is missing and where to get it."""
    place = configuration.data_dir
    return data.by_name(configuration.data, None if place is None else Path(place).expanduser())


def prepare_folder(configuration: Configuration, folder: Path, resume: bool, overwrite: bool) -> None:
    """Make the folder ready for a run and write config.json; raises as `train_run`."""
    if resume and overwrite:
        raise ValueError("--resume continues a run and --overwrite starts it anew: choose one")
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: name a folder for the run with --run-dir")
    config = folder / "config.json"
    if folder.exists() and any(folder.iterdir()):
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
    if overwrite:
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / SNAPSHOTS, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    records.write_json(config, to_dict(configuration))


class Run:
    """A finished run, loaded from its folder, on the device of this process.

    Attributes:
        configuration, data, path: what it was trained on.
        training_images: the images of the training split that it saw, whole numbers.
        device: where it computes.
        velocity: the learned velocity on the scale of the data, whatever the network predicts, in float32.
        sampling_velocity: the same, computed as samples are drawn (`sample_precision`, `sample_compile`).
        fitted: the source of the training.
        source: the distribution that samples start from, on the scale of the data.

    Args:
        folder: of the run.
        overrides: settings like ``rtol=1e-3`` that differ from those of the run: of the evaluation, or data_dir.

    Raises:
        FileNotFoundError: if the folder is no run, or its training has not finished.
        ValueError: if a file in it is damaged, or a setting cannot be changed any more.
    """

    def __init__(self, folder: Path, overrides: Sequence[str] = ()) -> None:
        self.folder = folder
        if not (folder / "config.json").exists():
            raise FileNotFoundError(
                f"{folder} holds no run (no config.json): train one with fmcore train NAME{listed(folder)}"
            )
        trained = from_dict(records.read_json(folder / "config.json"))
        self.configuration = with_overrides(trained, overrides)
        check_only_evaluation(trained, self.configuration)
        self.data = load_data(self.configuration)
        self.training_images = training_images(self.configuration, self.data)
        self.path = self.configuration.build_path()
        self.fitted = fitted_source.of_run(self.configuration, folder, self.data, self.training_images)
        self.source = self.fitted.start()
        self.device = distributed.local_device()
        self.network = build_network(self.configuration, self.data.shape).to(self.device).eval().requires_grad_(False)
        self.velocity = self.fitted.velocity(as_velocity(self.network, self.configuration))
        fast = for_sampling(self.network, self.configuration)
        self.sampling_velocity = (
            self.velocity if fast is self.network else self.fitted.velocity(as_velocity(fast, self.configuration))
        )
        self.use_weights(folder / "weights.safetensors")

    def use_weights(self, file: Path) -> None:
        """Load other weights, such as those of a snapshot; raises as the class."""
        load_weights(self.network, file, self.configuration.source)

    def pruned(self) -> tuple[Any, Pruned]:
        """The source without directions in which there are no data, as `fmcore.experiments.fitted_source.pruned_start`.

        Raises:
            ValueError: unless the evaluation has prune_tau and prune_threshold.
        """
        tau, threshold = self.configuration.evaluation.prune_tau, self.configuration.evaluation.prune_threshold
        if tau is None or threshold is None:
            raise ValueError("nothing says what to prune: set prune_tau and prune_threshold")
        file, flips = self.folder / fitted_source.AXES_FILE, self.configuration.flips
        distributed.first(lambda: fitted_source.keep_axes(self.data, self.training_images, flips, tau, file))
        return fitted_source.pruned_start(self.fitted, threshold, file)

    def sample(
        self,
        n: int,
        generator: torch.Generator,
        times: Tensor | None = None,
        source: Any = None,
        variant: Variant | None = None,
    ) -> Solution:
        """Follow the flow from n source samples, with the solver of the configuration.

        Args:
            n: number of samples.
            generator: of the source.
            times: at which to keep the state; also the grid of a fixed-step method, in place of its own.
            source: to start from, in place of that of the training.
            variant: other steps.
        """
        settings = self.configuration.evaluation
        x0 = (self.source if source is None else source).sample(n, generator).to(self.device)
        if variant is not None:
            factor = variant.factor
            moving = self.sampling_velocity
            velocity = moving if factor == 1 else velocities.scaled_up(moving, factor)
            found = solve(velocity, x0, t1=self.path.t_max, method="euler", steps=variant.euler_steps)
            return replace(found, x=found.x / factor)
        return solve(
            self.sampling_velocity,
            x0,
            t1=self.path.t_max,
            method=settings.method,
            steps=settings.solver_steps if times is None else None,
            rtol=settings.rtol,
            atol=settings.atol,
            times=times,
        )


def check_only_evaluation(trained: Configuration, asked: Configuration) -> None:
    """Raise ValueError if more than the evaluation differs: the network is what it is."""
    same = flat(without_place(replace(asked, evaluation=trained.evaluation)))
    changed = [name for name, value in flat(without_place(trained)).items() if same[name] != value]
    if changed:
        raise ValueError(
            f"the run was trained with another {', '.join(changed)}: only settings of the evaluation can be changed "
            f"afterwards ({', '.join(field.name for field in fields(asked.evaluation))}), and data_dir"
        )


def listed(folder: Path) -> str:
    """The runs beside a folder that is none, or inside it, as a hint."""
    found = [*folder.parent.glob("*/config.json"), *folder.rglob("config.json")]
    runs = sorted({path.parent.relative_to(folder.parent).as_posix() for path in found})
    return f"; the runs in {folder.parent} are {', '.join(runs)}" if runs else ""
