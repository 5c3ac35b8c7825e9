"""The training loop.

The last lines of `train` are what training is: take a batch, compute the gradient of its loss, update the weights and
their average, save now and then. A step is in `fmcore.training.step`, what is saved in `fmcore.training.checkpointing`.
A run that was killed and resumed ends with exactly the weights of a run that was not, with one process and with many:
all randomness follows from the seed and the number of the step, so the weights, Adam's moments and the step are all
there is to save.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from fmcore import distributed
from fmcore.training.arguments import check_data, check_network, check_precision, parts_of_batch
from fmcore.training.batches import Prepare, Rows
from fmcore.training.checkpointing import Checkpointer, Keep
from fmcore.training.config import TrainingConfig
from fmcore.training.device import borrowed_generators, keep_freed_memory, matmul_precision
from fmcore.training.feeding import feed
from fmcore.training.history import History
from fmcore.training.minutes import Steps
from fmcore.training.progress import progress_bar
from fmcore.training.step import Loss, Objective, Step, rehearse

__all__ = ["Keep", "Loss", "Trained", "train"]
ModelType = TypeVar("ModelType", bound=nn.Module)


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
    belongs_to: Mapping[str, Any] | None = None,
) -> Trained[ModelType]:
    """Train a network on batches of rows of data, on the device that holds the network.

    Started by torchrun, or inside a process group, all processes call this with the same arguments (and, each, a model
    on its own device, see `fmcore.distributed.local_device`). They share each batch, and step together.

    For one seed, the images of a batch and all that `prepare` draws do not depend on the number of processes; nor do
    the weights, but for the rounding of sums. What the loss draws and dropout differ from micro-batch to micro-batch,
    and so depend on how a batch is cut: they stay the same as long as the number of micro-batches does (`accumulate`).

    Args:
        model: trained in place. The network itself: it is compiled here (`config.compile`), and shared among processes.
        loss: ``loss(model, batch, generator) -> scalar``, a mean over the rows of the batch, on the model's device. Its
            noise comes from the generator, on the same device, seeded for each micro-batch.
        data: the training set; see `Rows`. The model should see ``data[rows]`` on any device. A batch that is larger
            than the training set has some of its rows more than once.
        config: see `TrainingConfig`.
        checkpoint: file to save to, which process 0 does; None saves nothing.
        resume: continue from the checkpoint where there is one.
        progress: show a bar with loss, images per second and time left.
        prepare: ``prepare(batch, generator) -> batch``, without gradient, for all that should not depend on how the
            batch is cut: flips, noise, times, and the coupling, which sees `config.coupling_batch` images at once.
            What it returns, a tensor or a tuple of them with one row an image, goes to the loss in place of
            ``data[rows]``.
        ahead: how many batches a thread prepares early; 0 for no thread. `prepare` must draw from its generator only.
        keep: ``keep(steps made, averaged network)``, the network in evaluation mode, which process 0 calls before each
            checkpoint that it writes, so that a resumed run has kept all that one without interruption has.
        belongs_to: what else makes this training what it is, such as its loss, path and data: names and plain values.
            The checkpoint holds them; a training with others does not go on from it, nor together with this one.

    Raises:
        FileExistsError: if the checkpoint exists and resume was not asked for.
        FloatingPointError: if the loss or its gradient stops being finite; the checkpoint holds a state before that.
        OSError: if a checkpoint cannot be written; the one before stays as it was.
        ProcessLost: if another process failed or was killed.
        TypeError: if the model is no network, or data are a numpy array, a list, or something without rows.
        ValueError: if the checkpoint is damaged or belongs to another configuration, if micro-batches of two sizes
            would be compiled, if the model is compiled or wrapped already or has nothing to train, or without data.
    """
    check_network(model)
    check_data(data)
    check_precision(config)
    device = next(model.parameters()).device
    checkpoints = Checkpointer(None if checkpoint is None else Path(checkpoint), keep, belongs_to)
    with ExitStack() as stack:
        stack.enter_context(distributed.session(device))
        stack.enter_context(matmul_precision(config.precision, device))
        dropout = stack.enter_context(borrowed_generators(device))
        keep_freed_memory(device)
        processes = distributed.processes()
        distributed.check_equal("a training of", {**asdict(config), "images": len(data), "belongs_to": belongs_to})
        state = distributed.first(checkpoints.state, config, resume)

        parts = parts_of_batch(config, distributed.rank(), processes)
        if config.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        model.train()
        network = torch.compile(model) if config.compile else model
        objective = stack.enter_context(distributed.data_parallel(Objective(network, loss)))
        if processes > 2:
            first_batch = next(feed(data, config, range(1), parts[-1:], device, prepare, ahead=0))
            rehearse(objective, first_batch[0], device)

        step, history = Step(model, objective, parts, config, dropout), History()
        if state is not None:
            checkpoints.restore(state, step, history)
            if config.minutes is not None:
                step.config = config = replace(config, steps=state["config"]["steps"])
            state = None  # as large as the network, the average and Adam's moments together
        steps = Steps(config, len(history.losses), device, ahead)
        batches = stack.enter_context(closing(feed(data, config, steps, parts, device, prepare, ahead)))
        bar = stack.enter_context(progress_bar(config, steps.begin, progress and distributed.rank() == 0))

        history.start()
        for number, batch in zip(steps, batches, strict=True):
            seen = step.gradient(number, batch)
            save = steps.known and checkpoints.due(number, steps.config)
            read = save or steps.end_with(number)
            history.add(seen, read, bar, config.batch, checkpoints.path if checkpoints.kept else None)
            step.update(number)
            if steps.made(number):
                step.config = steps.config
                bar.total = steps.config.steps * config.batch
                bar.refresh()
            if save:
                checkpoints.save(step, history, steps.config)
        history.pause()
    speed = len(history.losses) * config.batch / history.seconds
    ema, losses, notes = cast(ModelType, step.averaged.module), torch.tensor(history.losses), history.notes
    return Trained(model, ema, losses, history.seconds, speed, processes, steps.config, tuple(notes))
