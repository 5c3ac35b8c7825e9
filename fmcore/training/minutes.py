"""How many steps fit into so many minutes: measured during the warm-up, on the run itself.

While the learning rate rises, it does not depend on the number of steps, and neither does anything else. So the number
can be set at the end of the warm-up, from the speed of its second half, and the run is exactly one that was given this
number from the start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from fmcore import distributed
from fmcore.training.config import TrainingConfig

# Of the time that is left, for checkpoints, and for a speed that changes.
KEPT_BACK = 0.03
# Steps that are under way, or prepared early, when the number is set.
MARGIN = 2


class StepsForMinutes:
    """Sets the number of steps of a run that was given minutes.

    Args:
        config: of the run.
        device: that trains; waited for twice, to measure.
        ahead: how many batches are prepared early.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        config: TrainingConfig,
        device: torch.device,
        ahead: int = 1,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.config, self.device, self.ahead, self.clock = config, device, ahead, clock
        self.began = clock()
        self.halfway = 0.0

    def after(self, step: int) -> TrainingConfig | None:
        """To be told of each step that was made; the configuration with the number of steps, at the end of warm-up."""
        if step + 1 == self.config.warmup // 2:
            self.halfway = self.now()
        if step + 1 != self.config.warmup:
            return None
        return replace(self.config, steps=distributed.first(self.number))

    def number(self) -> int:
        """The number of steps, by the speed of the second half of the warm-up."""
        assert self.config.minutes is not None
        now, warmup = self.now(), self.config.warmup
        seconds_per_step = (now - self.halfway) / (warmup - warmup // 2)
        left = (1 - KEPT_BACK) * (60 * self.config.minutes - (now - self.began))
        return warmup + max(self.ahead + MARGIN, int(left / seconds_per_step))

    def now(self) -> float:
        """The time when all that was asked of the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.clock()


class Steps:
    """The steps of a run: as many as the configuration says, or, where it gives minutes, until their number is set.

    Attributes:
        config: of the run; with the number of steps as soon as it is known.
        known: whether it is.

    Args:
        config: of the run.
        begin: the first step that is to be made.
        device: that trains.
        ahead: how many batches are prepared early.
    """

    def __init__(self, config: TrainingConfig, begin: int, device: torch.device, ahead: int) -> None:
        self.config, self.begin = config, begin
        self.known = config.minutes is None or begin > 0  # checkpoints begin when the number is set, and hold it
        self.pace = StepsForMinutes(config, device, ahead)

    def __iter__(self) -> Iterator[int]:
        """Their numbers. To be iterated over twice at once: batches are prepared ahead of the steps that need them."""
        step = self.begin
        while not self.known or step < self.config.steps:
            yield step
            step += 1

    def end_with(self, step: int) -> bool:
        """Whether this is the last step."""
        return self.known and step + 1 == self.config.steps

    def made(self, step: int) -> bool:
        """To be told of each step; whether it was the one after which their number was set."""
        if self.known or (settled := self.pace.after(step)) is None:
            return False
        self.config, self.known = settled, True
        return True
