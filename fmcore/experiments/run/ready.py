"""A run made ready to train: whatever can fail comes before anything in its folder is replaced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fmcore import distributed, sources
from fmcore.data.images import ImageData
from fmcore.experiments.config.experiment import Configuration
from fmcore.experiments.run import fitted_source, pruning_axes, reflow, same_data, warm_start
from fmcore.experiments.run.fitted_source import FittedSource
from fmcore.experiments.run.folder import (
    CHECKPOINT,
    PAIRS,
    begin,
    check_folder,
    read_configuration,
    write_configuration,
)
from fmcore.experiments.run.identity import Identity
from fmcore.experiments.run.pruning_axes import axes_to_prune, keep_axes, keep_found


def make_ready(
    configuration: Configuration,
    images: ImageData,
    train_on: Tensor,
    folder: Path,
    run: Identity,
    resume: bool,
    overwrite: bool,
    start: dict[str, Any] | None = None,
) -> None:
    """Make the folder ready for a run; whatever can fail comes before anything is replaced; raises as `train_run`."""
    goes_on = check_folder(configuration, images, folder, resume, overwrite)
    pairs = None
    if configuration.teacher is not None and not (resume and (folder / PAIRS).exists()):
        pairs = reflow.make(configuration, configuration.teacher_pairs or len(train_on))
    if goes_on and ((folder / fitted_source.FILE).exists() or (folder / CHECKPOINT).exists()):
        source = fitted_source.of_run(configuration, folder, images, train_on, run)
        file = folder / pruning_axes.FILE
        check_sources(
            configuration, source, lambda tau: keep_axes(images, train_on, configuration.flips, tau, file, run)
        )
        # data_dir may be another; the steps are more only once they have been made
        steps = read_configuration(folder).training.steps
        write_configuration(replace(configuration, training=replace(configuration.training, steps=steps)), folder)
        if not (folder / CHECKPOINT).exists():  # else nobody knows what a run of an earlier version has seen
            same_data.keep(images, folder)
        _keep_pairs(pairs, folder, run)
        return
    fitted = fitted_source.fit(configuration.source, images, train_on, configuration.flips, configuration.training.seed)
    source = fitted_source.from_fitted(configuration, fitted, images, train_on)
    axes = check_sources(configuration, source, lambda tau: axes_to_prune(images, train_on, configuration.flips, tau))
    begin(configuration, images, folder, run, fitted, overwrite)
    warm_start.keep(start, folder)
    _keep_pairs(pairs, folder, run)
    if axes is not None:
        tau = configuration.evaluation.prune_tau
        keep_found(axes, train_on, configuration.flips, tau, folder / pruning_axes.FILE, run)


def _keep_pairs(pairs: reflow.Pairs | None, folder: Path, run: Identity) -> None:
    if pairs is not None:
        reflow.keep(pairs, folder, run)


def check_network(model: nn.Module, images: ImageData) -> None:
    """Raise ValueError if the network cannot be evaluated: found before anything is replaced, and not at step 0."""
    device = distributed.local_device()
    x = torch.zeros(1, *images.shape, device=device)
    was = model.training
    model.eval()  # draws nothing, so the training stays the one that it is without this
    try:
        with torch.no_grad():
            model(x, torch.zeros(1, device=device))
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"the network cannot be evaluated: {str(error).splitlines()[0]}; change its settings"
        ) from None
    finally:
        model.train(was)


def check_sources(
    configuration: Configuration, source: FittedSource, find: Callable[[float], sources.PruningAxes]
) -> sources.PruningAxes | None:
    """The axes that the evaluation prunes, if it does; `find` gives those of a tau.

    Raises:
        ValueError: if samples of a pruned source cannot be drawn, those of training or those of the evaluation.
    """
    tau, threshold = configuration.evaluation.prune_tau, configuration.evaluation.prune_threshold
    if configuration.source.distribution == "pruned":
        fitted_source.check_starts(source.source)
    if tau is None or threshold is None:
        return None
    axes = find(tau)
    fitted_source.check_starts(fitted_source.pruned_start(source, threshold, axes)[1])
    return axes
