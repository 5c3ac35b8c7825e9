"""Which precision is faster on this machine, found by a trial: bfloat16 gains only where the hardware has it.

The trial is made once, when a training starts; what it found is written into the configuration, so that a resumed run
computes as it began.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from fmcore import distributed
from fmcore.data.images import ImageData
from fmcore.experiments.config.experiment import Configuration
from fmcore.experiments.run.folder import CONFIG, read_configuration
from fmcore.experiments.run.network import build_network

GAIN = 1.1  # by which bf16 must be faster: its rounding is not worth less
IMAGES, ROUNDS = 32, 3


def settled(configuration: Configuration, images: ImageData, folder: Path, resume: bool) -> tuple[Configuration, str]:
    """The configuration with a precision in place of "auto", and a note for the record; "" if it was none.

    A run that is resumed keeps the precision that it began with.
    """
    if configuration.training.precision != "auto":
        return configuration, ""
    training = configuration.training
    if resume and (folder / CONFIG).exists():
        before = read_configuration(folder).training.precision
        return replace(configuration, training=replace(training, precision=before)), ""
    gain = distributed.first(lambda: gain_of_bf16(configuration, images))
    chosen: Literal["bf16", "fp32"] = "bf16" if gain >= GAIN else "fp32"
    note = f"precision=auto: a step in bf16 is {gain:.2f} times as fast as in fp32 here, so {chosen}"
    return replace(configuration, training=replace(training, precision=chosen)), note


def gain_of_bf16(configuration: Configuration, images: ImageData) -> float:
    """How many times as fast a forward and a backward pass in bfloat16 autocast are, of a few images."""
    device = distributed.local_device()
    network = build_network(configuration, images.shape, images.num_classes).to(device)
    if configuration.training.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.zeros(min(IMAGES, configuration.training.batch), *images.shape, device=device)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for number in range(ROUNDS + 1):  # in turn, so that what else the machine does meets both
        for rounded in seconds:
            began = _now(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=rounded):
                network(x, torch.full((), 0.5, device=device)).square().mean().backward()
            if number:  # the first is for warming up
                seconds[rounded].append(_now(device) - began)
    return min(seconds[False]) / min(seconds[True])


def _now(device: torch.device) -> float:
    """The time when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
