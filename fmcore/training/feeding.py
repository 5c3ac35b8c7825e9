"""How batches reach the device: data that fits lives there, everything else is fetched while the device computes."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from fmcore.couplings import prefetch_pairs
from fmcore.training.batches import Prepare, Rows, batch_rows, cut, prepared_rows
from fmcore.training.config import TrainingConfig

# A GPU keeps the whole data set if it takes no more than this share of the memory that is free when training starts.
RESIDENT_SHARE = 0.25


def feed(
    data: Rows,
    config: TrainingConfig,
    steps: Iterable[int],
    parts: list[range],
    device: torch.device,
    prepare: Prepare | None,
    ahead: int,
) -> Generator[list[Any], None, None]:
    """Yield, for each step, this process's micro-batches on the device.

    A thread makes them `ahead` steps early where that helps: for a GPU, and to prepare. On a GPU it has a stream of its
    own: a coupling that waits for distances to arrive on the host must not wait for the training step as well.
    """
    data, home = resident(data, device)
    mine = range(parts[0].start, parts[-1].stop)
    stream = torch.cuda.Stream(device, priority=-1) if device.type == "cuda" else None  # first: its kernels are small
    if stream is not None:
        stream.wait_stream(torch.cuda.current_stream(device))  # the data may still be on their way

    def fetch(rows: Tensor) -> Any:
        return to_device(data[to_device(rows, home)], device)

    def make(step: int) -> tuple[list[Any], Any]:
        with torch.cuda.stream(stream) if stream is not None else nullcontext():
            rows = batch_rows(len(data), step, config.batch, config.seed)
            batch = prepared_rows(fetch, rows, mine, step, config, prepare, device)
            made = [cut(batch, part.start - mine.start, part.stop - mine.start) for part in parts]
            made = [arranged(part, config.channels_last) for part in made]
            return made, stream.record_event() if stream is not None else None

    early = ahead > 0 and (prepare is not None or stream is not None)
    for made, ready in prefetch_pairs(make, steps, ahead) if early else map(make, steps):
        if stream is not None:
            training = torch.cuda.current_stream(device)
            training.wait_event(ready)
            for tensor in tensors(made):
                tensor.record_stream(training)  # its memory must not be reused while the step reads it
        yield made


def resident(data: Rows, device: torch.device) -> tuple[Rows, torch.device]:
    """The data, moved to a GPU if they are tensors that fit (`RESIDENT_SHARE`), and the device they are on."""
    if isinstance(data, TensorDataset):
        held = list(data.tensors)
    elif isinstance(data, Tensor):
        held = [data]
    else:
        return data, torch.device("cpu")
    if device.type != "cuda" or all(part.device == device for part in held):
        return data, held[0].device
    if sum(part.nbytes for part in held) > RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
        return data, held[0].device
    moved = [part.to(device) for part in held]
    return (TensorDataset(*moved) if isinstance(data, TensorDataset) else moved[0]), device


def to_device(batch: Any, device: torch.device) -> Any:
    """Move a tensor, or a sequence of them, to a device; to a GPU without waiting, from memory that cannot move."""
    if not isinstance(batch, Tensor):
        return tuple(to_device(part, device) for part in batch)
    if device.type == "cuda" and batch.device.type == "cpu":
        return batch.pin_memory().to(device, non_blocking=True)
    return batch.to(device)


def arranged(batch: Any, channels_last: bool) -> Any:
    """The batch, its images (B, C, H, W) stored with the channels last if asked for."""
    if not channels_last:
        return batch
    if not isinstance(batch, Tensor):
        return tuple(arranged(part, channels_last) for part in batch)
    return batch.contiguous(memory_format=torch.channels_last) if batch.ndim == 4 else batch


def tensors(batch: Any) -> Iterator[Tensor]:
    """All tensors in nested sequences."""
    if isinstance(batch, Tensor):
        yield batch
    else:
        for part in batch:
            yield from tensors(part)
