"""Going on from a checkpoint."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fmcore import distributed
from fmcore.checkpoints import check_same, load_checkpoint
from fmcore.training.config import TrainingConfig


def saved_state(path: Path | None, config: TrainingConfig, resume: bool) -> dict[str, Any] | None:
    """The state to continue from, or None at the start of a run; raises as `train`."""
    if path is None or not path.exists():
        return None
    if not resume:
        raise FileExistsError(f"{path} exists: resume from it, delete it, or name another file")
    state = load_checkpoint(path)
    asked = asdict(config)
    if config.minutes is not None:  # the steps that fit into them were set then
        asked["steps"] = state["config"]["steps"]
    check_same(state["config"], asked, f"{path} was made")
    return state


def restore(
    path: Path | None, state: dict[str, Any], model: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Load the weights and Adam's moments of a checkpoint; raises ValueError if they are another network's."""
    try:
        model.load_state_dict(state["model"])
        averaged.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path} belongs to another network: {str(error).splitlines()[-1].strip()}") from error


def changed_processes(step: int, before: int, now: int) -> list[str]:
    """What to note, and to warn of, when a run goes on with another number of processes."""
    if before == now:
        return []
    note = (
        f"resumed at step {step} with {now} process{'es' * (now > 1)} instead of {before}: same batches, but sums are "
        "rounded differently, and dropout and what the loss draws may differ"
    )
    if distributed.rank() == 0:
        warnings.warn(note, stacklevel=3)
    return [note]
