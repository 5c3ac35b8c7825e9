"""Pairs made by the flow of a finished run, its teacher, on which another is trained: reflow (Liu et al. 2022).

Noise and the image that the teacher leads it to are kept in the folder of the run, so that it can be resumed without
the teacher. The lines between them cross less than those of independent pairs, so that few steps do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from fmcore.experiments.config.experiment import Configuration
from fmcore.experiments.run.finished import Run
from fmcore.experiments.run.folder import PAIRS
from fmcore.experiments.run.identity import Identity, check_label, label
from fmcore.guidance import drop_labels
from fmcore.tensor_file import read_tensors, write_tensors
from fmcore.training import Prepare, seeded_generator

AT_ONCE = 1000  # pairs that the teacher makes together


@dataclass(frozen=True, eq=False)
class Pairs:
    """What a run is trained on in place of images.

    Attributes:
        x0, x1: (n, C, H, W) float32, noise and the image that it is led to.
        labels: (n,) int64, the class that each was drawn of; None without classes.
    """

    x0: Tensor
    x1: Tensor
    labels: Tensor | None = None

    def rows(self) -> TensorDataset:
        """What batches are taken from."""
        return TensorDataset(*(part for part in (self.x0, self.x1, self.labels) if part is not None))


def make(configuration: Configuration, count: int) -> Pairs:
    """Draw noise, and follow the teacher's flow from it, with the solver of the teacher's evaluation.

    Args:
        configuration: of the run that is to be trained.
        count: of pairs.

    Raises:
        FileNotFoundError: if the teacher is no finished run.
        ValueError: if it starts from another source, goes along another path, is of other images, or knows other
            classes than the run that is to be trained.
    """
    assert configuration.teacher is not None  # checked by the configuration
    teacher = Run(Path(configuration.teacher).expanduser())
    check_teacher(configuration, teacher)
    parts = []
    for first in range(0, count, AT_ONCE):
        size = min(AT_ONCE, count - first)
        generator = seeded_generator(configuration.training.seed, f"reflow {first}")
        state = generator.get_state()
        x0 = teacher.source.sample(size, generator)
        labels = teacher.draw_labels(size, seeded_generator(configuration.training.seed, f"reflow labels {first}"))
        generator.set_state(state)  # the teacher draws the same noise, and follows it
        x1 = teacher.sample(size, generator, labels=labels).x.cpu()
        parts.append(Pairs(x0, x1, labels))
    classes = [part.labels for part in parts if part.labels is not None]
    return Pairs(
        torch.cat([part.x0 for part in parts]),
        torch.cat([part.x1 for part in parts]),
        torch.cat(classes) if classes else None,
    )


def check_teacher(configuration: Configuration, teacher: Run) -> None:
    """Raise ValueError if pairs of this teacher are not what a run of this configuration is to be trained on."""
    theirs = teacher.configuration
    for name in ("data", "path", "sigma_min", "labels"):
        if getattr(theirs, name) != getattr(configuration, name):
            raise ValueError(
                f"teacher={configuration.teacher} has {name}={getattr(theirs, name)}, and this run "
                f"{name}={getattr(configuration, name)}: name another teacher, or set {name} alike"
            )
    if theirs.evaluation.method == "sde":
        raise ValueError(
            f"teacher={configuration.teacher} samples with method=sde, which leads the same noise to many images: "
            "reflow follows the flow, so train the teacher with another method, such as dopri5"
        )
    if not theirs.source.is_plain:
        raise ValueError(f"teacher={configuration.teacher} starts from {theirs.source.words}: reflow starts from noise")


def keep(pairs: Pairs, folder: Path, run: Identity) -> None:
    """Leave pairs in the folder of a run."""
    tensors = {"x0": pairs.x0, "x1": pairs.x1}
    if pairs.labels is not None:
        tensors["labels"] = pairs.labels
    write_tensors(tensors, label("pairs", run), folder / PAIRS)


def kept(folder: Path, run: Identity) -> Pairs:
    """The pairs in the folder of a run; raises as `fmcore.tensor_file.read_tensors`, and if they are another's."""
    read = read_tensors(folder / PAIRS, "train again with --overwrite")
    check_label(read.belongs_to, folder / PAIRS, "pairs", run)
    try:
        return Pairs(read.tensors["x0"], read.tensors["x1"], read.tensors.get("labels"))
    except KeyError as error:
        raise ValueError(f"{folder / PAIRS} is damaged: it lacks {error}; train again with --overwrite") from None


def batch_maker(configuration: Configuration, classes: int) -> Prepare:
    """Pairs as they are, or both ends mirrored: the flow of mirrored noise is the mirrored image, on average."""

    def prepare(batch: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
        x0, x1, *labels = batch
        if configuration.flips:
            heads = torch.rand(len(x0), generator=generator, device=generator.device) < 0.5
            mirrored = heads.to(x0.device).view(-1, 1, 1, 1)
            x0, x1 = torch.where(mirrored, x0.flip(-1), x0), torch.where(mirrored, x1.flip(-1), x1)
        told = [drop_labels(some, configuration.label_dropout, classes, generator) for some in labels]
        return (x0, x1, *told)

    return prepare
