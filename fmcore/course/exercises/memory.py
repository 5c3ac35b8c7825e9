"""How much memory a learner's function takes while data stream by."""

from __future__ import annotations

import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class _Alive(TorchFunctionMode):
    """Counts the bytes of the tensors that are made while it is active and still alive, and the most of them."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.most = 0
        self.known: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it makes."""
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, list | tuple) else (made,):
            if isinstance(one, Tensor) and id(one) not in self.known:  # known: changed in place
                size = one.numel() * one.element_size()
                self.bytes += size
                self.known.add(id(one))
                weakref.finalize(one, self._gone, id(one), size)
        self.most = max(self.most, self.bytes)
        return made

    def _gone(self, number: int, size: int) -> None:
        self.known.discard(number)
        self.bytes -= size


def stream(chunks: int, rows: int = 8, d: int = 16) -> Iterator[Tensor]:
    """Chunks (rows, d) of normal numbers, each made when it is asked for; nothing keeps them."""
    generator = torch.Generator().manual_seed(chunks)
    for _ in range(chunks):
        yield torch.randn(rows, d, generator=generator, dtype=torch.float64)


def most(run: Callable[[], Any]) -> tuple[int, int]:
    """The most bytes at a time in the tensors that `run` makes, and in objects of Python and NumPy."""
    was_on = tracemalloc.is_tracing()
    if not was_on:
        tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    with _Alive() as alive:
        run()
    _, peak = tracemalloc.get_traced_memory()
    if not was_on:
        tracemalloc.stop()
    return alive.most, peak - before
