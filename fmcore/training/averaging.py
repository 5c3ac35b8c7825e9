"""The exponential moving average of the weights, which is sampled from: its update and its decay."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def ema_decay(decay: float, updates: int) -> float:
    """min(decay, (1 + n) / (10 + n)) after n updates: early on, the average spans about the last tenth of the steps.

    With the full decay from the start, a short run would mostly average weights from before it had learned anything.
    The first update, n = 0, takes the weights as they are.
    """
    return min(decay, (1 + updates) / (10 + updates)) if updates else 0.0


@torch.no_grad()
def update_average(averaged: AveragedModel, model: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the present ones, and take over what else the network keeps.

    AveragedModel's own method copies its counter to the device in every step, and waits until the copy has arrived.
    """
    weights = list(model.parameters())
    get_ema_multi_avg_fn(decay)(list(averaged.module.parameters()), weights, averaged.n_averaged)  # type: ignore[arg-type]
    for ours, buffer in zip(averaged.module.buffers(), model.buffers(), strict=True):
        ours.copy_(buffer)
    averaged.n_averaged += 1
