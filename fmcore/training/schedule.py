"""What changes with the step: pure functions, so that there is nothing to save."""

from __future__ import annotations

import math
from dataclasses import replace

from fmcore.training.config import TrainingConfig


def may_end_anywhere(config: TrainingConfig) -> bool:
    """Whether no rate depends on the number of steps."""
    return config.decay == "none" and config.minutes is None


def may_end_elsewhere(before: TrainingConfig, asked: TrainingConfig) -> bool:
    """Whether a run that was given the steps of one configuration can end after those of another: all else is the same.

    The rate must not depend on the number of steps. The run is then exactly one that was given these from the start.
    """
    return may_end_anywhere(asked) and replace(before, steps=asked.steps) == asked


def learning_rate(config: TrainingConfig, step: int) -> float:
    """The learning rate of step 0, 1, ..., steps - 1.

    Lipman et al. 2023 raise it linearly from 1e-8 to the peak and keep it there, or lower it linearly to 1e-8
    (appendix E). Here both ends are 0, and the first and last steps are next to them: with ``decay="linear"`` or
    ``"none"`` and the same warmup, no step's rate differs by more than about 1e-8 + lr / min(warmup, steps - warmup).
    """
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    if config.decay == "linear":
        return config.lr * (1 - done)
    if config.decay == "cosine":
        return config.lr * (1 + math.cos(math.pi * done)) / 2
    return config.lr
