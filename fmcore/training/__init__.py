"""Training: one loop for one process and for many.

config        TrainingConfig: everything that is needed to repeat a run
schedule      the learning rate, as a function of the step
batches       which images make batch k, which process takes which of them, and the seeds of all noise
feeding       how batches reach the device
arguments     what cannot be trained, or trained on
step          one step: the gradient of a batch, the update of the weights and of their average
averaging     the average of the weights, which is sampled from
history       losses, seconds, and the stop when a loss is not finite
checkpointing what is saved when, and going on from there
minutes       the number of steps that fits into so many minutes
progress      a bar, or lines
device        its generators, arithmetic and memory
loop          train

maximum_likelihood    fits a flow by its log-density, for sources that are flows
"""

from fmcore.training.averaging import ema_decay
from fmcore.training.batches import (
    Prepare,
    Rows,
    batch_rows,
    derived_seed,
    epoch_order,
    microbatches,
    random_flips,
    seeded_generator,
)
from fmcore.training.config import TrainingConfig
from fmcore.training.feeding import resident
from fmcore.training.loop import Loss, Trained, train
from fmcore.training.schedule import learning_rate

__all__ = [
    "Loss",
    "Prepare",
    "Rows",
    "Trained",
    "TrainingConfig",
    "batch_rows",
    "derived_seed",
    "ema_decay",
    "epoch_order",
    "learning_rate",
    "microbatches",
    "random_flips",
    "resident",
    "seeded_generator",
    "train",
]
