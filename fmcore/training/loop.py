"""The training loop.

`train` reads from top to bottom: take a batch, compute the loss, step, average the weights, save now and then. A run
that was killed and resumed ends with exactly the weights of a run that was not, with one process and with many: all
randomness follows from the seed and the number of the step, so the weights, Adam's moments and the step are all there
is to save.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from fmcore import distributed
from fmcore.checkpoints import save_checkpoint
from fmcore.training.averaging import ema_decay, update_average
from fmcore.training.batches import Prepare, Rows, derived_seed, microbatches
from fmcore.training.config import TrainingConfig
from fmcore.training.device import borrowed_generators, keep_freed_memory, matmul_precision
from fmcore.training.feeding import feed
from fmcore.training.minutes import StepsForMinutes
from fmcore.training.progress import progress_bar
from fmcore.training.resuming import changed_processes, restore, saved_state
from fmcore.training.schedule import learning_rate

ModelType = TypeVar("ModelType", bound=nn.Module)
Loss = Callable[[Any, Any, torch.Generator], Tensor]
Keep = Callable[[int, nn.Module], None]


@dataclass(frozen=True, eq=False)
class Trained(Generic[ModelType]):
    """What `train` returns, in every process.

    Attributes:
        model: the network with its last weights.
        ema: a copy with the averaged weights, in evaluation mode: the one to sample from.
        losses: float32 (steps,), the loss of each step's whole batch.
        seconds: spent in training steps, over all resumed parts.
        images_per_second: the images of all steps, over all processes, by these seconds.
        processes: how many trained together, in the last part.
        config: how it was trained; with the number of steps, where minutes were given.
        notes: what a record of the run must say besides, such as that the number of processes changed.
    """

    model: ModelType
    ema: ModelType
    losses: Tensor
    seconds: float
    images_per_second: float
    processes: int
    config: TrainingConfig
    notes: tuple[str, ...]


def train(
    model: ModelType,
    loss: Loss,
    data: Rows,
    config: TrainingConfig,
    checkpoint: Path | str | None = None,
    resume: bool = False,
    progress: bool = True,
    prepare: Prepare | None = None,
    ahead: int = 1,
    keep: Keep | None = None,
) -> Trained[ModelType]:
    """Train a network on batches of rows of data, on the device that holds the network.

    Started by torchrun, or inside a process group, all processes call this with the same arguments (and, each, a model
    on its own device, see `fmcore.distributed.local_device`). They share each batch, and step together.

    For one seed, the images of a batch and all that `prepare` draws do not depend on the number of processes; nor do
    the weights, but for the rounding of sums. What the loss draws and dropout differ from micro-batch to micro-batch,
    and so depend on how a batch is cut: they stay the same as long as the number of micro-batches does (`accumulate`).

    Args:
        model: trained in place.
        loss: ``loss(model, batch, generator) -> scalar``, a mean over the rows of the batch, on the model's device. Its
            noise comes from the generator, on the same device, seeded for each micro-batch.
        data: the training set; see `Rows`. The model should see ``data[rows]`` on any device.
        config: see `TrainingConfig`.
        checkpoint: file to save to, which process 0 does; None saves nothing.
        resume: continue from the checkpoint where there is one.
        progress: show a bar with loss, images a second and time left.
        prepare: ``prepare(batch, generator) -> batch``, without gradient, for all that should not depend on how the
            batch is cut: flips, noise, times, and the coupling, which sees `config.coupled` images at once. What it
            returns, a tensor or a tuple of them with one row an image, goes to the loss in place of ``data[rows]``.
        ahead: how many batches a thread prepares early; 0 for no thread. `prepare` must draw from its generator only.
        keep: ``keep(steps made, averaged network)``, which process 0 calls before each checkpoint that it writes, so
            that a resumed run has kept all that one without interruption has.

    Raises:
        FileExistsError: if the checkpoint exists and resume was not asked for.
        FloatingPointError: if the loss or its gradient stops being finite; the checkpoint holds a state before that.
        OSError: if a checkpoint cannot be written; the one before stays as it was.
        ProcessLost: if another process failed or was killed.
        ValueError: if the checkpoint is damaged or belongs to another configuration, or if micro-batches of two sizes
            would be compiled.
    """
    path = None if checkpoint is None else Path(checkpoint)
    if len(data) == 0:
        raise ValueError("data is empty: there is nothing to train on")
    device = next(model.parameters()).device
    with ExitStack() as stack:
        stack.enter_context(distributed.session(device))
        stack.enter_context(matmul_precision(config.precision, device))
        dropout = stack.enter_context(borrowed_generators(device))
        keep_freed_memory(device)
        processes = distributed.processes()
        distributed.check_equal("the configuration and number of images", (asdict(config), len(data)))
        state = distributed.first(saved_state, path, config, resume)
        kept = state is not None

        parts = microbatches(config.batch, config.accumulate, distributed.rank(), processes)
        if config.compile:
            check_one_size(config.batch, len(parts) * processes)
        if config.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        model.train()
        network = torch.compile(model) if config.compile else model
        objective = stack.enter_context(distributed.data_parallel(Objective(network, loss)))
        noise = torch.Generator(device)
        if processes > 2:
            rehearsal = feed(data, config, range(1), parts[-1:], device, prepare, ahead=0)
            rehearse(objective, next(rehearsal)[0], noise)

        averaged = AveragedModel(model)
        optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, fused=device.type in ("cpu", "cuda"))
        losses: list[float] = []
        seconds, notes = 0.0, []
        if state is not None:
            restore(path, state, model, averaged, optimizer)
            config = replace(config, steps=state["config"]["steps"])
            losses, seconds, notes = state["losses"].tolist(), state["seconds"], state["notes"]
            notes += changed_processes(len(losses), state["processes"], processes)
            state = None  # as large as the network, the average and Adam's moments together

        begin, open_end = len(losses), config.minutes is not None and not kept

        def steps() -> Iterator[int]:
            step = begin
            while open_end or step < config.steps:
                yield step
                step += 1

        batches = stack.enter_context(closing(feed(data, config, steps(), parts, device, prepare, ahead)))
        bar = stack.enter_context(progress_bar(config, begin, progress and distributed.rank() == 0))
        unread: list[Tensor] = []
        pace = StepsForMinutes(config, device, ahead)
        started = time.perf_counter()
        for step, batch in zip(steps(), batches, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, step)
            optimizer.zero_grad()
            value = torch.zeros((), device=device)
            for part, rows in zip(parts, batch, strict=True):
                noise.manual_seed(derived_seed(config.seed, f"noise {step} {part.start}"))
                for generator in dropout:
                    generator.manual_seed(derived_seed(config.seed, f"dropout {step} {part.start}"))
                with without_exchange(objective) if part is not parts[-1] else nullcontext():
                    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                        share = objective(rows, noise) * (len(part) / config.batch)
                    (share * processes).backward()  # the gradients' mean over processes is taken: make it their sum
                value += share.detach()
            distributed.total(value)
            norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip)

            unread.append(torch.stack([value, norm.float()]))
            end = step + 1 == config.steps and not open_end
            save = path is not None and not open_end and ((step + 1) % config.checkpoint_every == 0 or end)
            if save or end or len(unread) == steps_between_reads(device):
                for loss_, norm_ in torch.stack(unread).tolist():
                    if not math.isfinite(loss_ + norm_):
                        raise diverged(loss_, norm_, len(losses), path if kept else None)
                    losses.append(loss_)
                bar.set_postfix(loss=f"{sum(losses[-50:]) / len(losses[-50:]):.4f}", refresh=False)
                bar.update(len(unread) * config.batch)
                unread.clear()

            optimizer.step()
            update_average(averaged, model, ema_decay(config.ema, step))
            if open_end and (settled := pace.after(step)) is not None:
                config, open_end = settled, False
                bar.total = config.steps * config.batch
                bar.refresh()
            if save and path is not None:
                seconds += time.perf_counter() - started
                state = {
                    "config": asdict(config),
                    "model": model.state_dict(),
                    "ema": averaged.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "losses": torch.tensor(losses),
                    "seconds": seconds,
                    "processes": processes,
                    "notes": notes,
                }
                if keep is not None and distributed.rank() == 0:
                    keep(step + 1, averaged.module)
                distributed.first(save_checkpoint, state, path)
                kept = True
                started = time.perf_counter()
        seconds += time.perf_counter() - started
    speed = len(losses) * config.batch / seconds
    ema = cast(ModelType, averaged.module.eval())
    return Trained(model, ema, torch.tensor(losses), seconds, speed, processes, config, tuple(notes))


class Objective(nn.Module):
    """The loss as a module, for which DistributedDataParallel sees one forward pass however many the network has."""

    def __init__(self, model: Any, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Any, generator: torch.Generator) -> Tensor:
        """The loss of a micro-batch."""
        return self.loss(self.model, batch, generator)


def without_exchange(objective: nn.Module) -> AbstractContextManager[None]:
    """Let gradients add up in each process: they are exchanged once a step, with the last micro-batch."""
    return objective.no_sync() if isinstance(objective, DistributedDataParallel) else nullcontext()


def rehearse(objective: nn.Module, batch: Any, noise: torch.Generator) -> None:
    """Compute gradients for nothing, before the weights of a checkpoint are loaded.

    DistributedDataParallel arranges gradients anew after its first backward pass, and with it the order in which three
    or more processes add them up. Without this, the first step after a resume would be rounded as none was before.
    """
    objective(batch, noise).backward()


def steps_between_reads(device: torch.device) -> int:
    """How often losses are looked at: a GPU works through steps that the host has queued, and reading waits for it.

    Whatever this is, they are looked at before a checkpoint is written.
    """
    return 20 if device.type == "cuda" else 1


def check_one_size(batch: int, parts: int) -> None:
    """Raise ValueError if micro-batches differ in size: each size would be compiled, or the first size for all."""
    if batch % parts:
        raise ValueError(
            f"compile=true with a batch of {batch} in {parts} micro-batches, which are not all of one size: make batch "
            f"a multiple of {parts}"
        )


def diverged(value: float, norm: float, step: int, checkpoint: Path | None) -> FloatingPointError:
    """The error for a loss or a gradient that is not finite."""
    kept = f"; {checkpoint} holds the state before" if checkpoint else ""
    return FloatingPointError(
        f"training diverged at step {step}: loss {value}, gradient norm {norm}{kept}. "
        "Try a lower lr, a longer warmup or a smaller clip, and check the data for NaN"
    )
