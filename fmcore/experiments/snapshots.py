"""Snapshots: the averaged weights at some steps of a training, kept to see afterwards how samples became better.

The training loop says when it is about to save a checkpoint. Nothing is measured while the network trains, so a curve
costs the training next to nothing, and it can be measured again with other settings.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from torch import Tensor, nn

from fmcore.atomic import write_file
from fmcore.experiments.source_config import SourceConfig

FOLDER = "snapshots"


class Snapshots:
    """Keeps the averaged weights of every checkpoint whose step is a multiple of `every`; none if that is 0.

    Attributes:
        folder: of the run.
        every: steps between snapshots, a multiple of the steps between checkpoints.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every = folder, every

    def keep(self, step: int, averaged: nn.Module) -> None:
        """Keep the averaged network after so many steps, if it is their turn; `fmcore.training.train` calls this."""
        if self.every and step % self.every == 0:
            (self.folder / FOLDER).mkdir(exist_ok=True)
            keep_weights(averaged.state_dict(), self.folder / FOLDER / f"{step:08d}.safetensors")


def kept_steps(folder: Path) -> dict[int, Path]:
    """The snapshots of a run: step to weights file, in order."""
    files = sorted((folder / FOLDER).glob("*.safetensors"))
    return {int(file.stem): file for file in files if file.stem.isdigit()}


def keep_weights(weights: dict[str, Tensor], file: Path, source: SourceConfig | None = None) -> None:
    """Write weights to a safetensors file, in full or not at all, with the source that they were trained from."""
    from safetensors.torch import save

    about = None if source is None else {"source": json.dumps(asdict(source), sort_keys=True)}
    write_file(file, save({name: value.detach().cpu().contiguous() for name, value in weights.items()}, about))
