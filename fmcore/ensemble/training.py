"""Training of an ensemble: every member has its own data, pairs, times and first weights.

What a member draws depends on its seed and the number of the step alone. So member k of an ensemble gets the weights of
the same member trained alone, up to the rounding of products, which the libraries may arrange in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from threading import Event, Lock

import torch
from torch import Tensor

from fmcore.ensemble.networks import Ensemble
from fmcore.ensemble.pairing import pair
from fmcore.sources import Source
from fmcore.training.batches import derived_seed
from fmcore.validation import check_count

# Samples that a member draws at once, for several steps.
DRAWN = 4096
# Most members trained at once. With fewer, starting operations takes a larger part of the time; with more, weights,
# gradients and moments leave the cache.
GROUP = 50


@dataclass(frozen=True, eq=False)
class Member:
    """What one member learns from.

    Attributes:
        source: of x0; samples are (n, dim).
        data: (n, dim) float32, the points x1.
        seed: of all that it draws. Its first weights come from the seeds of `Ensemble`.
        transport: whether x0 is paired with x1 by optimal transport within the batch, or independently.
    """

    source: Source
    data: Tensor
    seed: int
    transport: bool = False


def steps_at_once(batch: int) -> int:
    """Steps of a block, for which a member draws with one generator."""
    return max(1, DRAWN // batch)


def draw_batches(member: Member, block: int, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """The batches of one block of steps: x0, x1 (S, B, dim) and t (S, B), with S = `steps_at_once` (B).

    Block b has the steps from b S on. Data are visited in random order, an epoch after the other from the start of the
    block, and what does not fill a batch is left out: a batch never has a point twice. t is uniform on [0, 1).

    Raises:
        ValueError: for fewer data than a batch.
    """
    check_count("batch", batch, "points")
    steps, n = steps_at_once(batch), len(member.data)
    if batch > n:
        raise ValueError(f"a batch of {batch} cannot be drawn from {n} points without repeating any.")
    generator = torch.Generator().manual_seed(derived_seed(member.seed, f"block {block}"))
    whole = n // batch
    epochs = [torch.randperm(n, generator=generator)[: whole * batch] for _ in range(-(-steps // whole))]
    x1 = member.data[torch.cat(epochs)[: steps * batch]].view(steps, batch, -1)
    x0 = member.source.sample(steps * batch, generator).view_as(x1)
    t = torch.rand(steps, batch, generator=generator)
    return (pair(x0, x1) if member.transport else x0), x1, t


def train(
    ensemble: Ensemble,
    members: Sequence[Member],
    steps: int,
    batch: int = 16,
    lr: float = 1e-3,
    keep: Sequence[int] = (),
    group: int = GROUP,
    threads: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> tuple[Tensor, dict[int, Ensemble]]:
    """Train all members in place by conditional flow matching on straight paths, with Adam.

    The loss of each is the mean of |v(x_t, t) - (x1 - x0)|^2 with x_t = (1 - t) x0 + t x1 (Lipman et al. 2023 with
    sigma_min = 0; Tong et al. 2024 with sigma = 0).

    Groups of members are trained beside each other, each by one thread: threads that share an operation would have to
    wait for each other at the end of each, several ten times per step. Meanwhile PyTorch is set to one thread.

    Args:
        ensemble: R networks.
        members: R, what each learns from.
        steps: of every member.
        batch: points per step and member.
        lr: learning rate of Adam; its other parameters are those of PyTorch.
        keep: numbers of steps after which to keep a copy of the weights.
        group: most members trained at once; groups are of one size, give or take a member.
        threads: groups trained at the same time; as many as PyTorch uses by default.
        progress: called with the number of model-steps done since its last call, from one thread at a time.

    Returns:
        The mean loss of each block of steps, (blocks, R), and the copies kept, by their numbers of steps.

    Raises:
        ValueError: for another number of members, or steps to keep that are not reached.
        RuntimeError: when a loss stops being finite.
    """
    if len(members) != ensemble.members:
        raise ValueError(f"the ensemble has {ensemble.members} networks, and there are {len(members)} members.")
    check_count("steps", steps)
    check_count("batch", batch, "points")
    check_count("group", group, "members")
    if not all(1 <= step <= steps for step in keep):
        raise ValueError(f"steps is {steps} and keep {list(keep)}: steps start at 1, and none is kept after the last.")
    count = -(-ensemble.members // group)
    ends = [ensemble.members * k // count for k in range(count + 1)]
    before = torch.get_num_threads()
    losses = torch.empty(-(-steps // steps_at_once(batch)), ensemble.members)
    kept = {step: ensemble.part(range(ensemble.members)) for step in keep}
    stop, lock = Event(), Lock()

    def run(rows: range) -> None:
        part = ensemble.part(rows)

        def after(step: int) -> None:
            if step in kept:
                kept[step].put(rows, part)

        def done(model_steps: int) -> None:
            if progress is not None:
                with lock:
                    progress(model_steps)

        losses[:, rows.start : rows.stop] = _train(
            part, [members[k] for k in rows], steps, batch, lr, after, done, stop
        )
        ensemble.put(rows, part)

    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads or before, thread_name_prefix="ensemble")
    try:
        running = [pool.submit(run, range(start, end)) for start, end in pairwise(ends)]
        for future in running:
            future.result()
    finally:  # also when one fails or the user interrupts: the others end with their block
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(before)
    return losses, kept


def _train(
    ensemble: Ensemble,
    members: Sequence[Member],
    steps: int,
    batch: int,
    lr: float,
    after: Callable[[int], None],
    done: Callable[[int], None],
    stop: Event,
) -> Tensor:
    """Train these members all at once; the mean loss of each block, (blocks, R)."""
    each = steps_at_once(batch)
    blocks = range(-(-steps // each))
    optimizer = torch.optim.Adam([ensemble.flat], lr=lr, fused=True)
    ensemble.flat.grad = ensemble.flat_gradient
    losses = torch.zeros(len(blocks), ensemble.members)
    for block in blocks:
        if stop.is_set():
            break
        inputs, targets = _inputs(members, block, batch)
        first, last = block * each, min(steps, (block + 1) * each)
        for step in range(first, last):
            losses[block] += ensemble.gradient(inputs[step - first], targets[step - first])
            optimizer.step()
            after(step + 1)
        losses[block] /= last - first
        if not torch.isfinite(losses[block]).all():
            seeds = [member.seed for member, loss in zip(members, losses[block], strict=True) if not loss.isfinite()]
            raise RuntimeError(f"by step {last} the losses of the members with seeds {seeds} are not finite.")
        done((last - first) * ensemble.members)
    ensemble.flat.grad = None
    return losses


def _inputs(members: Sequence[Member], block: int, batch: int) -> tuple[Tensor, Tensor]:
    """What the steps of a block need of all members: (x_t, t) of shape (S, R, B, dim + 1), and x1 - x0."""
    steps, dim = steps_at_once(batch), members[0].data.shape[1]
    inputs = torch.empty(steps, len(members), batch, dim + 1)
    targets = torch.empty(steps, len(members), batch, dim)
    for k, member in enumerate(members):
        x0, x1, t = draw_batches(member, block, batch)
        torch.sub(x1, x0, out=targets[:, k])
        inputs[:, k, :, :dim] = torch.addcmul(x0, t[..., None], targets[:, k])
        inputs[:, k, :, dim] = t
    return inputs, targets
