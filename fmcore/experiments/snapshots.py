"""Snapshots: the averaged weights at some steps of a training, kept to see afterwards how samples became better.

The training loop saves a checkpoint now and then, and this module looks for new ones. Nothing is measured while the
network trains, so a curve costs the training next to nothing, and it can be measured again with other settings.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from fmcore import distributed
from fmcore.atomic import write_file
from fmcore.checkpoints import load_checkpoint
from fmcore.experiments.source_config import SourceConfig

FOLDER = "snapshots"


class Snapshots:
    """Keeps the averaged weights of every checkpoint whose step is a multiple of `every`; none if that is 0.

    Attributes:
        folder: of the run, which holds checkpoint.pt.
        every: steps between snapshots, a multiple of the steps between checkpoints.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every = folder, every
        self.seen: int | None = None

    def watching(self, loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The same loss, which looks for a new checkpoint whenever process 0 computes it."""
        if self.every == 0 or distributed.rank() != 0:
            return loss

        def watched(*arguments: Any, **named: Any) -> Tensor:
            self.look()
            return loss(*arguments, **named)

        return watched

    def look(self) -> None:
        """Keep the weights of a checkpoint that was not there before."""
        checkpoint = self.folder / "checkpoint.pt"
        if self.every == 0 or not checkpoint.exists():
            return
        written = checkpoint.stat().st_mtime_ns  # microseconds a step; a checkpoint is replaced in one go
        if written == self.seen:
            return
        self.seen = written
        state = load_checkpoint(checkpoint)
        step = len(state["losses"])
        if step % self.every == 0:
            (self.folder / FOLDER).mkdir(exist_ok=True)
            weights = {name.removeprefix("module."): value for name, value in state["ema"].items()}
            weights.pop("n_averaged", None)
            keep_weights(weights, self.folder / FOLDER / f"{step:08d}.safetensors")


def kept_steps(folder: Path) -> dict[int, Path]:
    """The snapshots of a run: step to weights file, in order."""
    files = sorted((folder / FOLDER).glob("*.safetensors"))
    return {int(file.stem): file for file in files if file.stem.isdigit()}


def keep_weights(weights: dict[str, Tensor], file: Path, source: SourceConfig | None = None) -> None:
    """Write weights to a safetensors file, in full or not at all, with the source that they were trained from."""
    from safetensors.torch import save

    about = None if source is None else {"source": json.dumps(asdict(source), sort_keys=True)}
    write_file(file, save({name: value.detach().cpu().contiguous() for name, value in weights.items()}, about))
