"""What is known of a run besides its weights: the loss of each step, the seconds it took, and notes."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class History:
    """Losses, seconds and notes of a run. Losses are shown on a bar, and stop the run when they are not finite.

    Attributes:
        losses: of the steps that were looked at.
        seconds: spent in training steps, over all resumed parts, until the last pause.
        notes: for the record of the run.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.seconds = 0.0
        self.notes: list[str] = []
        self.unread: list[Tensor] = []
        self.started = time.perf_counter()

    def add(self, seen: Tensor, read: bool, bar: Any, images: int, kept: Path | None) -> None:
        """Take the loss and the gradient's norm of a step, (2,); look at them if asked to, or at all that waited.

        Args:
            seen: what `Step.gradient` returned. Reading it waits for the device.
            read: whether to look at this one and those before it now.
            bar: to show the mean of the last 50 losses on.
            images: of a step.
            kept: the checkpoint that holds a state before, for the message.

        Raises:
            FloatingPointError: at the first loss or norm that is not finite.
        """
        self.unread.append(seen)
        if not read and len(self.unread) < steps_between_reads(seen.device):
            return
        for loss, norm in torch.stack(self.unread).tolist():
            if not math.isfinite(loss + norm):
                raise diverged(loss, norm, len(self.losses), kept)
            self.losses.append(loss)
        bar.set_postfix(loss=f"{sum(self.losses[-50:]) / len(self.losses[-50:]):.4f}", refresh=False)
        bar.update(len(self.unread) * images)
        self.unread.clear()

    def start(self) -> None:
        """Let time count again."""
        self.started = time.perf_counter()

    def pause(self) -> None:
        """Add the time since the start; what follows, the writing of a checkpoint, does not count."""
        self.seconds += time.perf_counter() - self.started


def steps_between_reads(device: torch.device) -> int:
    """How often losses are looked at: a GPU works through steps that the host has queued, and reading waits for it.

    Whatever this is, they are looked at before a checkpoint is written.
    """
    return 20 if device.type == "cuda" else 1


def diverged(value: float, norm: float, step: int, checkpoint: Path | None) -> FloatingPointError:
    """The error for a loss or a gradient that is not finite."""
    kept = f"; {checkpoint} holds the state before" if checkpoint else ""
    return FloatingPointError(
        f"training diverged at step {step}: loss {value}, gradient norm {norm}{kept}. "
        "Try a lower lr, a longer warmup or a smaller clip, and check the data for NaN"
    )
