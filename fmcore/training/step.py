"""One step of training: the gradient of a batch, and what it does to the weights and their average."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from fmcore import distributed
from fmcore.training.averaging import ema_decay, update_average
from fmcore.training.batches import derived_seed
from fmcore.training.config import TrainingConfig
from fmcore.training.schedule import learning_rate

Loss = Callable[[Any, Any, torch.Generator], Tensor]


class Step:
    """A step, in two halves: `gradient`, after which the loss can be looked at, and `update`.

    Attributes:
        model: the network, whose weights change.
        averaged: their exponential moving average, in evaluation mode.
        optimizer: Adam, with its moments.

    Args:
        model: the network.
        objective: the loss as a module, which holds the network or its compiled form; see `Objective`.
        parts: the micro-batches of this process, as positions in the batch.
        config: of the run.
        dropout: the generators that dropout draws from.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: nn.Module,
        parts: list[range],
        config: TrainingConfig,
        dropout: list[torch.Generator],
    ) -> None:
        self.model, self.objective, self.parts, self.config = model, objective, parts, config
        self.device = next(model.parameters()).device
        self.noise, self.dropout = torch.Generator(self.device), dropout
        self.averaged = AveragedModel(model).eval()
        adam = torch.optim.AdamW if config.weight_decay else torch.optim.Adam
        self.optimizer = adam(
            model.parameters(),
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )

    def gradient(self, step: int, batch: list[Any]) -> Tensor:
        """Leave the clipped gradient of the whole batch's loss in the weights' ``grad``.

        Args:
            step: its number, from 0.
            batch: the micro-batches of this process.

        Returns:
            (2,): the loss of the whole batch, and the norm of its gradient before clipping. On the device.
        """
        self.optimizer.zero_grad()
        value = torch.zeros((), device=self.device)
        for part, rows in zip(self.parts, batch, strict=True):
            self.seed(step, part.start)
            with exchange(self.objective, part is self.parts[-1]):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
                    share = self.objective(rows, self.noise) * (len(part) / self.config.batch)
                # over processes the mean of the gradients is taken: make it their sum
                (share * distributed.processes()).backward()
            value += share.detach()
        most = math.inf if self.config.clip is None else self.config.clip
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), most)
        return torch.stack([distributed.total(value), norm.float()])

    def update(self, step: int) -> None:
        """Move the weights by Adam, at the learning rate of this step, and their average towards them."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, step)
        self.optimizer.step()
        update_average(self.averaged, self.model, ema_decay(self.config.ema, step))

    def seed(self, step: int, start: int) -> None:
        """Seed all that the micro-batch from this position on draws: by the run's seed, the step and the position."""
        self.noise.manual_seed(derived_seed(self.config.seed, f"noise {step} {start}"))
        for generator in self.dropout:
            generator.manual_seed(derived_seed(self.config.seed, f"dropout {step} {start}"))


class Objective(nn.Module):
    """The loss as a module, for which DistributedDataParallel sees one forward pass however many the network has."""

    def __init__(self, model: Any, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Any, generator: torch.Generator) -> Tensor:
        """The loss of a micro-batch."""
        return self.loss(self.model, batch, generator)


@contextmanager
def exchange(objective: nn.Module, now: bool) -> Iterator[None]:
    """Let gradients add up in each process until the last micro-batch: they are exchanged once per step."""
    if now or not isinstance(objective, DistributedDataParallel):
        yield
        return
    with objective.no_sync():
        yield


def rehearse(objective: nn.Module, batch: Any, device: torch.device) -> None:
    """Compute gradients for nothing, before the weights of a checkpoint are loaded.

    DistributedDataParallel arranges gradients anew after its first backward pass, and with it the order in which three
    or more processes add them up. Without this, the first step after a resume would be rounded as none was before.
    """
    objective(batch, torch.Generator(device)).backward()


def check_one_size(batch: int, parts: int) -> None:
    """Raise ValueError if micro-batches differ in size: each size would be compiled, or the first size for all."""
    if batch % parts:
        raise ValueError(
            f"compile=true with a batch of {batch} in {parts} micro-batches, which are not all of one size: make batch "
            f"a multiple of {parts}"
        )
