"""A training run in a process of its own, or in several: training_process.py CHECKPOINT [--resume] [--slowly].

Slowly, it can be killed at a moment that is chosen.
"""

import os
import sys
import time

import torch

from fmcore import losses, paths
from fmcore.data import dequantize
from fmcore.networks import UNet
from fmcore.training import TrainingConfig, train

# Two micro-batches per step, for one process as for two: so both have the same noise and dropout.
CONFIG = TrainingConfig(steps=30, batch=4, lr=1e-3, warmup=5, ema=0.9, checkpoint_every=3, accumulate=2)

IMAGES = torch.randint(17, (200, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def prepare(images, generator):
    return dequantize(images, 17, generator)


def loss(model, x1, generator):
    x0 = torch.randn(x1.shape, generator=generator)
    if "--slowly" in sys.argv:
        time.sleep(0.02)  # leaves time to be killed in
    print(f"process {os.environ.get('RANK', 0)} {os.getpid()}\n", end="", flush=True)
    return losses.conditional_flow_matching(model, paths.rectified(), x0, x1, generator=generator)


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = UNet((1, 8, 8), channels=8, multipliers=(1, 2), blocks=1, attention=(4,), heads=2, dropout=0.2)
    resume = "--resume" in sys.argv
    try:
        train(model, loss, IMAGES, CONFIG, sys.argv[1], resume, progress=False, prepare=prepare)
    except ConnectionError as error:
        sys.exit(f"stopped: {error}")


if __name__ == "__main__":
    main()
