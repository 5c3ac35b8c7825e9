"""How to train."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fmcore.settings import checked


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. All of it is needed to repeat a run; the number of processes and the kind of device are not.

    Attributes:
        steps: optimizer steps.
        batch: images per step, over all processes.
        lr: peak learning rate of Adam.
        warmup: steps over which the learning rate rises linearly from 0.
        decay: what it does afterwards, until the last step: falls to 0 linearly, as a half cosine, or not at all. See
            `fmcore.training.schedule.learning_rate`.
        ema: decay of the exponential moving average of the weights; the first steps use a smaller one (`ema_decay`).
        beta1, beta2: decay of Adam's averages of the gradient and of its square.
        weight_decay: by which the weights shrink at each step, times the rate (AdamW, Loshchilov and Hutter 2019).
        clip: largest norm of the gradient; larger ones are scaled down to it. None leaves them as they are.
        seed: of the order of the images and of all noise.
        checkpoint_every: steps between checkpoints.
        precision: of a network with float32 weights. "fp32": float32 throughout. "tf32": products inside convolutions
            and matrix multiplications of an NVIDIA GPU keep 10 bits of the mantissa; elsewhere the same as fp32.
            "bf16": bfloat16 autocast (faster where the hardware has it, far slower elsewhere), TF32 for the rest.
            "auto": bf16 if a trial shows that it is faster here; for runs of experiments, which settle it
            (`fmcore.experiments.run.precision`).
        accumulate: micro-batches per step, over all processes. Each process takes its share of them, one after the
            other, so none has more than about batch / accumulate images in memory at once; the gradient is that of the
            whole batch. Rounded up to a multiple of the number of processes.
        coupling_batch: images that `prepare` (the coupling, say) sees together; None for the whole batch. Smaller
            blocks are cheaper to pair, and each process prepares only the blocks that it needs.
        channels_last: store images and convolution weights with the channels last (faster on recent GPUs with bf16).
        compile: compile the network with torch.compile (the first step takes a minute or more, the others less).
            Micro-batches must then be of one size, since another one would be compiled anew.
        minutes: how long to train, compiling included, in place of `steps`; none for a number of steps. The second half
            of the warm-up tells the speed. At its end, the last moment at which nothing depends on it, the number of
            steps is set, and the rate decays in full. Checkpoints begin there and hold that number: what follows, also
            after a resume, is exactly a run that was given these steps.
    """

    steps: int = 1000
    batch: int = 128
    lr: float = 1e-3
    warmup: int = 100
    decay: Literal["none", "linear", "cosine"] = "none"
    ema: float = 0.999
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0
    clip: float | None = 1.0
    seed: int = 0
    checkpoint_every: int = 500
    precision: Literal["fp32", "tf32", "bf16", "auto"] = "fp32"
    accumulate: int = 1
    coupling_batch: int | None = None
    channels_last: bool = False
    compile: bool = False
    minutes: float | None = None

    def __post_init__(self) -> None:
        checked(self)
        for name in ("steps", "batch", "checkpoint_every", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.lr > 0:
            raise ValueError(f"lr must be above 0, got {self.lr}")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be above 0, or none to leave gradients as they are; got {self.clip}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is a decay in [0, 1); got {getattr(self, name)}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be a number from 0, got {self.weight_decay}")
        if self.warmup < 0 or self.seed < 0:
            raise ValueError(f"warmup and seed must not be negative, got {self.warmup} and {self.seed}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is a decay in [0, 1), where 0 means no averaging; got {self.ema}")
        if self.minutes is not None and (not 0 <= self.minutes < math.inf or self.warmup < 4):
            raise ValueError(
                f"minutes={self.minutes} with warmup={self.warmup}: minutes must be a finite number from 0, and the "
                "speed is measured during the warm-up, which needs at least 4 steps"
            )
        if self.coupling_batch is not None and self.coupling_batch < 1:
            raise ValueError(
                f"coupling_batch must be at least 1 image, or None for the whole batch; got {self.coupling_batch}"
            )
