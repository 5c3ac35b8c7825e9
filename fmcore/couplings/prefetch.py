"""Pairing the next batch while the current one trains."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from fmcore.validation import check_count

Item = TypeVar("Item")
Pairs = TypeVar("Pairs")


def prefetch_pairs(draw: Callable[[Item], Pairs], items: Iterable[Item], ahead: int = 1) -> Iterator[Pairs]:
    """Yield ``draw(item)`` for each item, in order, computed up to ``ahead`` items early by one background thread.

    The assignment runs on the host and releases Python's lock, so a training step on a device does not wait for it.
    Let ``draw`` make the whole batch from the number of the step, with a generator of its own: then the batches are the
    same with a thread, without one, and after a resume.

        def draw(step):
            generator = torch.Generator().manual_seed(derived_seed(seed, f"pairs {step}"))
            x1 = data[batch_rows(len(data), step, batch, seed)]
            return coupling(source.sample(len(x1), generator), x1, generator=generator)

        for x0, x1 in prefetch_pairs(draw, range(steps)): ...

    Items are taken in the caller's thread. What ``draw`` raises is raised here, at its turn. The thread ends with the
    loop, also when that is left early. Modes that PyTorch keeps a thread, such as autocast and no_grad, do not reach
    into ``draw``.

    Args:
        draw: makes one batch; must not use a generator that the caller uses too.
        items: what to make batches from.
        ahead: batches kept ready, at least 1; to pair in place, call the coupling itself.

    Raises:
        ValueError: unless ahead is a whole number of at least 1.
    """
    check_count("ahead", ahead, "batches")
    return _ahead(draw, items, ahead)


def _ahead(draw: Callable[[Item], Pairs], items: Iterable[Item], ahead: int) -> Iterator[Pairs]:
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
    waiting: deque[Future[Pairs]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(draw, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
