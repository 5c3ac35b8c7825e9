"""Many samples of a run, shared between processes.

Samples are drawn in chunks of `solver_batch` images. The noise of a chunk follows from the seed and the number of the
chunk, and an adaptive solver chooses its steps for one chunk. So the images and their NFE are the same for any number
of processes, of which each takes every n-th chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fmcore import distributed
from fmcore.data.images import to_uint8
from fmcore.experiments.run.finished import Run, Variant
from fmcore.experiments.run.fitted_source import check_starts
from fmcore.sources import Source
from fmcore.training import seeded_generator

# Samples of one generator that `drawn` draws together.
AT_ONCE = 10_000


@dataclass(frozen=True, eq=False)
class Samples:
    """Generated images.

    Attributes:
        images: (n, C, H, W) uint8, whole-number grey levels, on the CPU.
        nfe: (n,) float32, the network evaluations that each image took (all of a chunk took the same).
        labels: (n,) int64, the class that each was drawn of; None without classes.
    """

    images: Tensor
    nfe: Tensor
    labels: Tensor | None = None


def chunks(count: int, size: int, rank: int = 0, processes: int = 1) -> list[tuple[int, slice]]:
    """The chunks of `count` images that a process works on: the number of each, and its place among the images."""
    number = -(-count // size)
    return [(k, slice(k * size, min((k + 1) * size, count))) for k in range(rank, number, processes)]


def share(
    run: Run,
    count: int,
    purpose: str,
    rank: int = 0,
    processes: int = 1,
    source: Source | None = None,
    variant: Variant | None = None,
) -> Samples:
    """The part of `count` samples that one of several processes draws; the rest of both tensors is zero.

    Args:
        run: whose flow, and whose `solver_batch` and `evaluation_seed`.
        count: of images, over all processes.
        purpose: names the noise, so that samples for different uses differ.
        rank, processes: which process, of how many.
        source, variant: other starts and steps than those of the run.
    """
    settings = run.configuration.evaluation
    images = torch.zeros(count, *run.data.shape, dtype=torch.uint8)
    nfe = torch.zeros(count)
    labels = torch.zeros(count, dtype=torch.int64) if run.configuration.labels else None
    for number, place in chunks(count, settings.solver_batch, rank, processes):
        # On the CPU, whatever the device: the same noise everywhere.
        generator = seeded_generator(settings.evaluation_seed, f"{purpose} {number}")
        size = place.stop - place.start
        chosen = run.draw_labels(size, seeded_generator(settings.evaluation_seed, f"{purpose} labels {number}"))
        if labels is not None and chosen is not None:
            labels[place] = chosen
        solution = run.sample(size, generator, source=source, variant=variant, labels=chosen)
        images[place] = to_uint8(solution.x, run.data.levels).cpu()
        nfe[place] = solution.nfe
    return Samples(images, nfe, labels)


def samples(
    run: Run,
    count: int,
    purpose: str = "samples",
    source: Source | None = None,
    variant: Variant | None = None,
) -> Samples:
    """All samples, in every process; see `share`."""
    mine = share(run, count, purpose, distributed.rank(), distributed.processes(), source, variant)
    labels = None if mine.labels is None else together(mine.labels, run.device)
    return Samples(together(mine.images, run.device), together(mine.nfe, run.device), labels)


def together(part: Tensor, device: torch.device) -> Tensor:
    """The parts of all processes, each zero where another's is not, as one tensor on the CPU."""
    if distributed.processes() == 1:
        return part
    return distributed.total(part.to(device)).cpu()


def drawn(
    run: Run,
    count: int,
    generator: torch.Generator,
    source: Source | None = None,
    labels: Tensor | None = None,
    guidance: float | None = None,
) -> Iterator[Samples]:
    """Draw samples from one generator, in parts of at most 10,000, so that memory does not grow with the number.

    For up to 10,000 the images are those of one `Run.sample`; they do not depend on how many parts are read.

    Args:
        run: whose flow.
        count: of images, over all parts.
        generator: of the source.
        source: other starts than those of the run.
        labels: (count,) the class of each; None draws them where the network knows classes.
        guidance: its scale; None for that of the configuration.

    Raises:
        ValueError: if nothing can be drawn, since pruning has left hardly any direction.
    """
    if source is not None:
        check_starts(source)
    for first in range(0, count, AT_ONCE):
        size = min(AT_ONCE, count - first)
        chosen = run.draw_labels(size, generator) if labels is None else labels[first : first + size]
        solution = run.sample(size, generator, source=source, labels=chosen, guidance=guidance)
        images = to_uint8(solution.x, run.data.levels).cpu()
        yield Samples(images, torch.full((len(images),), float(solution.nfe)), chosen)


def classes_asked(run: Run, count: int, label: str | None, guidance: float | None) -> Tensor | None:
    """The classes of samples that were asked for by the name or number of one, or in turn; None without classes.

    Raises:
        ValueError: for a class that there is not, or where the network knows none and a class or guidance is given.
    """
    if not run.configuration.labels:
        if label is not None or guidance is not None:
            raise ValueError(f"{run.folder} was trained without classes: leave out --label and --guidance")
        return None
    names = list(run.data.class_names)
    if label is None:
        return torch.arange(count) % len(names)
    numbers = {str(number): number for number in range(len(names))}
    number = names.index(label) if label in names else numbers.get(label)
    if number is None:
        raise ValueError(f"--label {label}: the classes are {', '.join(f'{n} {name}' for n, name in enumerate(names))}")
    return torch.full((count,), number)
