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
    """

    images: Tensor
    nfe: Tensor


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
    for number, place in chunks(count, settings.solver_batch, rank, processes):
        # On the CPU, whatever the device: the same noise everywhere.
        generator = seeded_generator(settings.evaluation_seed, f"{purpose} {number}")
        solution = run.sample(place.stop - place.start, generator, source=source, variant=variant)
        images[place] = to_uint8(solution.x, run.data.levels).cpu()
        nfe[place] = solution.nfe
    return Samples(images, nfe)


def samples(
    run: Run,
    count: int,
    purpose: str = "samples",
    source: Source | None = None,
    variant: Variant | None = None,
) -> Samples:
    """All samples, in every process; see `share`."""
    mine = share(run, count, purpose, distributed.rank(), distributed.processes(), source, variant)
    return Samples(together(mine.images, run.device), together(mine.nfe, run.device))


def together(part: Tensor, device: torch.device) -> Tensor:
    """The parts of all processes, each zero where another's is not, as one tensor on the CPU."""
    if distributed.processes() == 1:
        return part
    return distributed.total(part.to(device)).cpu()


def drawn(run: Run, count: int, generator: torch.Generator, source: Source | None = None) -> Iterator[Samples]:
    """Draw samples from one generator, in parts of at most 10,000, so that memory does not grow with the number.

    For up to 10,000 the images are those of one `Run.sample`; they do not depend on how many parts are read.

    Args:
        run: whose flow.
        count: of images, over all parts.
        generator: of the source.
        source: other starts than those of the run.

    Raises:
        ValueError: if nothing can be drawn, since pruning has left hardly any direction.
    """
    if source is not None:
        check_starts(source)
    for first in range(0, count, AT_ONCE):
        solution = run.sample(min(AT_ONCE, count - first), generator, source=source)
        images = to_uint8(solution.x, run.data.levels).cpu()
        yield Samples(images, torch.full((len(images),), float(solution.nfe)))
