"""What is trained, by one process in the tests and by several in `scenarios.py`."""

import torch
from torch import nn

from fmcore.couplings import MinibatchOT
from fmcore.training import TrainingConfig, random_flips

DATA = torch.randn(30, 1, 2, 2, generator=torch.Generator().manual_seed(0))
# 13 images do not divide by 2 or 3: the processes get unequal parts.
CONFIG = TrainingConfig(steps=12, batch=13, lr=1e-2, warmup=3, ema=0.9, clip=0.5, checkpoint_every=5)


def network(seed=0):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 40), nn.Tanh(), nn.Linear(40, 4), nn.Unflatten(1, (1, 2, 2)))


def pairs(images, generator):
    x1 = random_flips(images, generator)
    x0 = torch.randn(x1.shape, generator=generator)
    x0, x1 = MinibatchOT()(x0, x1)
    return x0, x1, torch.rand(len(x1), 1, 1, 1, generator=generator)


def velocity_loss(model, batch, generator):
    x0, x1, t = batch
    return (model(t * x1 + (1 - t) * x0) - (x1 - x0)).square().mean()


# A linear regression whose one batch is all of its data, so that the gradient can be written down.
INPUTS = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
TARGETS = torch.randn(7, 2, generator=torch.Generator().manual_seed(2))


def linear():
    layer = nn.Linear(3, 2, bias=False)
    nn.init.constant_(layer.weight, 0.1)
    return layer


def regression_loss(model, batch, generator):
    return (model(batch[0]) - batch[1]).square().mean()
