"""A training run in a process of its own, to be killed: training_process.py CHECKPOINT [--resume]."""

import sys
import time

import torch

from fmcore import losses, paths
from fmcore.data import dequantize, digits
from fmcore.networks import UNet
from fmcore.training import TrainingConfig, train

CONFIG = TrainingConfig(steps=30, batch=4, lr=1e-3, warmup=5, ema=0.9, checkpoint_every=3)


def loss(model, images, generator):
    x1 = dequantize(images, 17, generator)
    x0 = torch.randn(x1.shape, generator=generator)
    time.sleep(0.02)  # leaves time to be killed in
    print("step", flush=True)
    return losses.conditional_flow_matching(model, paths.rectified(), x0, x1, generator=generator)


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = UNet((1, 8, 8), channels=8, multipliers=(1, 2), blocks=1, attention=(4,), heads=2, dropout=0.2)
    train(model, loss, digits().train, CONFIG, sys.argv[1], resume="--resume" in sys.argv, progress=False)


if __name__ == "__main__":
    main()
