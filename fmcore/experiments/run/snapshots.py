"""Snapshots: the averaged weights at some steps of a training, kept to see afterwards how samples became better.

The training loop says when it is about to save a checkpoint. Nothing is measured while the network trains, so a curve
costs the training next to nothing, and it can be measured again with other settings.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from torch import nn

from fmcore.experiments.run.identity import Identity
from fmcore.experiments.run.weights import keep_weights

FOLDER = "snapshots"


class Snapshots:
    """Keeps the averaged weights of every checkpoint whose step is a multiple of `every`; none if that is 0.

    Attributes:
        folder: of the run.
        every: steps between snapshots, a multiple of the steps between checkpoints.
        run: the identity of the run.
    """

    def __init__(self, folder: Path, every: int, run: Identity | None = None) -> None:
        self.folder, self.every, self.run = folder, every, run

    def keep(self, step: int, averaged: nn.Module) -> None:
        """Keep the averaged network after so many steps, if it is their turn; `fmcore.training.train` calls this."""
        if self.every and step % self.every == 0:
            (self.folder / FOLDER).mkdir(exist_ok=True)
            file = self.folder / FOLDER / f"{step:08d}.safetensors"
            keep_weights(averaged.state_dict(), file, self.run, steps=step)


def kept_steps(folder: Path) -> dict[int, Path]:
    """The snapshots of a run: step to weights file, in order."""
    files = sorted((folder / FOLDER).glob("*.safetensors"))
    return {int(file.stem): file for file in files if file.stem.isdigit()}


def remove(folder: Path) -> None:
    """Remove the snapshots of a run, and their folder, if it holds nothing else."""
    for file in kept_steps(folder).values():
        file.unlink()
    with suppress(OSError):  # not there, or something of somebody else is in it
        (folder / FOLDER).rmdir()
