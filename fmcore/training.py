"""The training loop.

`train` reads from top to bottom: draw a batch, compute the loss, step, average the weights, save now and then. A run
that was killed and resumed ends with exactly the weights of a run that was not: nothing is random but through two
generators whose states are in the checkpoint, and which images make batch k depends on the seed and k alone.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fmcore.checkpoints import check_same, load_checkpoint, save_checkpoint

ModelType = TypeVar("ModelType", bound=nn.Module)
Loss = Callable[[Any, Any, torch.Generator], Tensor]


class Rows(Protocol):
    """Training data: a tensor, a TensorDataset, or anything else that gives a batch for a tensor of row numbers."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor, /) -> Any: ...


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. All of it is needed to repeat a run.

    Attributes:
        steps: optimizer steps.
        batch: images a step.
        lr: peak learning rate of Adam.
        warmup: steps over which the learning rate rises linearly from 0.
        decay: what it does afterwards, until the last step: falls to 0 linearly, as a half cosine, or not at all.
        ema: decay of the exponential moving average of the weights; the first steps use a smaller one (`ema_decay`).
        clip: largest norm of the gradient; larger ones are scaled down to it.
        seed: of the order of the images and of all noise.
        checkpoint_every: steps between checkpoints.
        precision: "fp32", or "bf16" for bfloat16 autocast (faster where the hardware has it, far slower elsewhere).
    """

    steps: int = 1000
    batch: int = 128
    lr: float = 1e-3
    warmup: int = 100
    decay: Literal["none", "linear", "cosine"] = "none"
    ema: float = 0.999
    clip: float = 1.0
    seed: int = 0
    checkpoint_every: int = 500
    precision: Literal["fp32", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("lr", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.warmup < 0 or self.seed < 0:
            raise ValueError(f"warmup and seed must not be negative, got {self.warmup} and {self.seed}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is a decay in [0, 1), where 0 means no averaging; got {self.ema}")


@dataclass(frozen=True, eq=False)
class Trained(Generic[ModelType]):
    """What `train` returns.

    Attributes:
        model: the network with its last weights.
        ema: a copy with the averaged weights, in evaluation mode: the one to sample from.
        losses: float32 (steps,), the loss of each step's batch.
        seconds: spent in training steps, over all resumed parts.
    """

    model: ModelType
    ema: ModelType
    losses: Tensor
    seconds: float


def train(
    model: ModelType,
    loss: Loss,
    data: Rows,
    config: TrainingConfig,
    checkpoint: Path | str | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Trained[ModelType]:
    """Train a network on batches of rows of data, on the device that holds the network.

    Args:
        model: trained in place.
        loss: ``loss(model, batch, generator) -> scalar``, where batch is ``data[rows]`` on the model's device and all
            noise comes from the generator (on the same device).
        data: the training set; see `Rows`.
        config: see `TrainingConfig`.
        checkpoint: file to save to; None saves nothing.
        resume: continue from the checkpoint where there is one.
        progress: show a bar with loss, images a second and time left.

    Raises:
        FileExistsError: if the checkpoint exists and resume was not asked for.
        FloatingPointError: if the loss or its gradient stops being finite; the checkpoint holds a state before that.
        OSError: if a checkpoint cannot be written; the one before stays as it was.
        ValueError: if the checkpoint is damaged or belongs to another configuration.
    """
    path = None if checkpoint is None else Path(checkpoint)
    if len(data) == 0:
        raise ValueError("data is empty: there is nothing to train on")
    if path and path.exists() and not resume:
        raise FileExistsError(f"{path} exists: resume from it, delete it, or name another file")
    device = next(model.parameters()).device
    on_gpu = [device] if device.type == "cuda" else []
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, fused=device.type in ("cpu", "cuda"))
    ema = AveragedModel(model, multi_avg_fn=ema_update(config.ema))
    generator = torch.Generator(device).manual_seed(derived_seed(config.seed, "noise"))
    losses: list[float] = []
    seconds = 0.0

    # Dropout draws from PyTorch's own generators: borrow them, and give them back as they were.
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(on_gpu))
        torch.default_generator.manual_seed(derived_seed(config.seed, "dropout"))
        if on_gpu:
            torch.cuda.manual_seed(derived_seed(config.seed, "dropout"))
        if path and path.exists():
            state = load_checkpoint(path)
            check_same(state["config"], asdict(config), f"{path} was made")
            restore(path, state, model, ema, optimizer)
            generator.set_state(state["generator"])
            torch.set_rng_state(state["cpu_rng"])
            for gpu, rng in zip(on_gpu, state["gpu_rng"], strict=True):
                torch.cuda.set_rng_state(rng, gpu)
            losses, seconds = state["losses"].tolist(), state["seconds"]

        model.train()
        bar = stack.enter_context(progress_bar(config, len(losses), progress))
        for step in range(len(losses), config.steps):
            started = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, step)
            batch = to_device(data[batch_rows(len(data), step, config.batch, config.seed)], device)
            with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                value = loss(model, batch, generator)
            optimizer.zero_grad()
            value.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            if not math.isfinite(value.item() + norm.item()):
                raise diverged(value.item(), norm.item(), step, path)
            optimizer.step()
            ema.update_parameters(model)
            losses.append(value.item())
            seconds += time.perf_counter() - started
            bar.set_postfix(loss=f"{sum(losses[-50:]) / len(losses[-50:]):.4f}", refresh=False)
            bar.update(config.batch)

            if path and ((step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps):
                state = {
                    "config": asdict(config),
                    "model": model.state_dict(),
                    "ema": ema.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "generator": generator.get_state(),
                    "cpu_rng": torch.get_rng_state(),
                    "gpu_rng": [torch.cuda.get_rng_state(gpu) for gpu in on_gpu],
                    "losses": torch.tensor(losses),
                    "seconds": seconds,
                }
                save_checkpoint(state, path)
    averaged = cast(ModelType, ema.module.eval())
    return Trained(model, averaged, torch.tensor(losses), seconds)


def learning_rate(config: TrainingConfig, step: int) -> float:
    """The learning rate of step 0, 1, ..., steps - 1: a pure function, so there is no schedule to save."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    if config.decay == "linear":
        return config.lr * (1 - done)
    if config.decay == "cosine":
        return config.lr * (1 + math.cos(math.pi * done)) / 2
    return config.lr


def ema_decay(decay: float, updates: int) -> float:
    """min(decay, (1 + n) / (10 + n)) after n updates: early on, the average spans about the last tenth of the steps.

    With the full decay from the start, a short run would mostly average weights from before it had learned anything.
    """
    return min(decay, (1 + updates) / (10 + updates))


def ema_update(decay: float) -> Callable[..., None]:
    """The update of `torch.optim.swa_utils.AveragedModel` for `ema_decay`."""

    def update(averages: Any, weights: Any, updates: Tensor | int) -> None:
        get_ema_multi_avg_fn(ema_decay(decay, int(updates)))(averages, weights, updates)

    return update


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
    return torch.randperm(rows, generator=torch.Generator().manual_seed(derived_seed(seed, f"epoch {epoch}")))


def derived_seed(seed: int, purpose: str) -> int:
    """A seed of its own for each purpose, so that, say, noise and dropout of one run are independent."""
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose}".encode()).digest()[:4], "big")


def restore(path: Path, state: dict[str, Any], model: nn.Module, ema: nn.Module, optimizer: Any) -> None:
    """Load the weights and Adam's moments of a checkpoint; raises ValueError if they are another network's."""
    try:
        model.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path} belongs to another network: {str(error).splitlines()[-1].strip()}") from error


def diverged(value: float, norm: float, step: int, checkpoint: Path | None) -> FloatingPointError:
    """The error for a loss or a gradient that is not finite."""
    kept = f"; {checkpoint} holds the state before" if checkpoint and checkpoint.exists() else ""
    return FloatingPointError(
        f"training diverged at step {step}: loss {value}, gradient norm {norm}{kept}. "
        "Try a lower lr, a longer warmup or a smaller clip, and check the data for NaN"
    )


def to_device(batch: Any, device: torch.device) -> Any:
    """Move a tensor, or a sequence of them, to a device."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    return tuple(to_device(part, device) for part in batch)


def progress_bar(config: TrainingConfig, done: int, show: bool) -> Any:
    """A bar counting images, for a run of which `done` steps are behind."""
    from tqdm.auto import tqdm

    return tqdm(
        total=config.steps * config.batch,
        initial=done * config.batch,
        unit=" images",
        unit_scale=True,
        desc="training",
        disable=not show,
    )
