"""Which images make batch k, which process takes which of them, and where all noise comes from.

Everything here depends on the seed and the number of the step alone, never on what came before: a resumed run needs no
state of a generator, and several processes need no messages to take different images of one batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

from fmcore.training.config import TrainingConfig

Prepare = Callable[[Any, torch.Generator], Any]


class Rows(Protocol):
    """Training data: a tensor, a TensorDataset, or anything else that gives a batch for a tensor of row numbers."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor, /) -> Any: ...


def batch_rows(rows: int, step: int, batch: int, seed: int) -> Tensor:
    """The row numbers of one batch, int64 (batch,).

    The batches of all steps, laid end to end, run through shuffled copies of 0..rows - 1: every image is seen equally
    often. The result depends on the arguments alone. Several processes can therefore each take a slice of one batch.
    """
    positions = torch.arange(step * batch, (step + 1) * batch)
    epochs = positions // rows
    parts = []
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
        parts.append(epoch_order(rows, epoch, seed)[positions[epochs == epoch] % rows])
    return torch.cat(parts)


@lru_cache(maxsize=2)
def epoch_order(rows: int, epoch: int, seed: int) -> Tensor:
    """The order of 0..rows - 1 in one epoch; kept, since hundreds of batches in a row ask for the same."""
    return torch.randperm(rows, generator=seeded_generator(seed, f"epoch {epoch}"))


def derived_seed(seed: int, purpose: str) -> int:
    """A seed of its own for each purpose, so that, say, noise and dropout of one run are independent."""
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose}".encode()).digest()[:4], "big")


def seeded_generator(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on a device, with the seed of `derived_seed`."""
    return torch.Generator(device).manual_seed(derived_seed(seed, purpose))


def microbatches(batch: int, accumulate: int, rank: int = 0, processes: int = 1) -> list[range]:
    """The parts of a batch that one process works on, one after the other, as positions in the batch.

    All processes have equally many parts, and no part is more than one image larger than another. Those of all
    processes, in order, are the whole batch.

    Raises:
        ValueError: if the batch is too small for every part to have an image.
    """
    each = -(-accumulate // processes)
    count = each * processes
    if batch < count:
        raise ValueError(
            f"a batch of {batch} cannot be cut into {count} micro-batches, {each} for each of {processes} processes: "
            "raise batch, lower accumulate, or start fewer processes"
        )
    edges = [part * batch // count for part in range(count + 1)]
    return [range(edges[part], edges[part + 1]) for part in range(rank * each, (rank + 1) * each)]


def prepared_rows(
    fetch: Callable[[Tensor], Any],
    rows: Tensor,
    mine: range,
    step: int,
    config: TrainingConfig,
    prepare: Prepare | None,
    device: torch.device,
) -> Any:
    """The positions `mine` of a batch of these rows, prepared.

    What `prepare` draws depends on the seed, the step and the position of the block that it gets. A process prepares
    whole blocks, and then keeps its own part of them: so it does not matter how many processes there are.
    """
    if prepare is None:
        return fetch(rows[mine.start : mine.stop])
    size = config.coupling_batch or config.batch
    begin = mine.start // size * size
    blocks = []
    for start in range(begin, mine.stop, size):
        block = rows[start : start + size]
        generator = seeded_generator(config.seed, f"prepare {step} {start}", device)
        with torch.no_grad():
            made = prepare(fetch(block), generator)
        check_rows(made, len(block))
        blocks.append(made)
    return cut(joined(blocks), mine.start - begin, mine.stop - begin)


def random_flips(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image (..., W) of a batch left to right with probability 1/2, on the device that holds them.

    To be called before the coupling: pairs are made of the images that the network sees.
    """
    heads = torch.rand(len(images), generator=generator, device=generator.device) < 0.5
    return torch.where(heads.to(images.device).view(-1, *[1] * (images.ndim - 1)), images.flip(-1), images)


def cut(batch: Any, start: int, stop: int) -> Any:
    """Rows start..stop - 1 of a tensor, or of each of several."""
    if isinstance(batch, Tensor):
        return batch[start:stop]
    return tuple(cut(part, start, stop) for part in batch)


def joined(blocks: list[Any]) -> Any:
    """The rows of several tensors, or of several tuples of them, one below the other."""
    if len(blocks) == 1:
        return blocks[0]
    if isinstance(blocks[0], Tensor):
        return torch.cat(blocks)
    return tuple(joined(list(parts)) for parts in zip(*blocks, strict=True))


def check_rows(made: Any, expected: int) -> None:
    """Raise ValueError unless all that `prepare` returned are tensors with one row an image."""
    if not isinstance(made, Tensor):
        if not isinstance(made, (tuple, list)):
            raise ValueError(f"prepare returned {type(made).__name__}: return a tensor, or a tuple of tensors")
        for part in made:
            check_rows(part, expected)
    elif made.ndim == 0 or len(made) != expected:
        raise ValueError(f"prepare returned shape {tuple(made.shape)} for a batch of {expected}: keep one row an image")
