"""The named experiments. `fmcore list` prints them, `fmcore train NAME` runs one.

The experiments of a paper are in a file of its name, each at the size of the paper and at sizes that a CPU can do.
"""

from __future__ import annotations

from fmcore.experiments.config.evaluation import EvaluationConfig
from fmcore.experiments.config.experiment import Configuration, NetworkConfig
from fmcore.papers.bertrand2025 import experiments as bertrand2025
from fmcore.papers.lee2025 import experiments as lee2025
from fmcore.papers.lipman2023 import experiments as lipman2023
from fmcore.training import TrainingConfig
from fmcore.validation import unknown_name

EXPERIMENTS: dict[str, Configuration] = {
    # Flow matching on 1,500 images of 8x8 pixels, from scratch, in one and a half to two and a half minutes
    # on two CPU cores.
    "digits": Configuration(
        experiment="digits",
        data="digits",
        network=NetworkConfig(channels=32, multipliers=(1, 2), blocks=1, attention=(4,), heads=2),
        training=TrainingConfig(steps=640, batch=64, lr=3e-3, warmup=100, decay="cosine", ema=0.995),
        evaluation=EvaluationConfig(rtol=1e-3, atol=1e-3),
    ),
    # The same network again, from where "digits" ended, on the pairs of noise and image that its flow makes.
    "digits_reflow": Configuration(
        experiment="digits_reflow",
        data="digits",
        coupling="reflow",
        teacher="runs/digits",
        start_from="runs/digits/weights.safetensors",
        network=NetworkConfig(channels=32, multipliers=(1, 2), blocks=1, attention=(4,), heads=2),
        training=TrainingConfig(steps=640, batch=64, lr=1e-3, warmup=100, decay="cosine", ema=0.995),
        evaluation=EvaluationConfig(rtol=1e-3, atol=1e-3, budgets=(1, 2, 4, 8)),
    ),
    # Images of your own: fmcore train own_images data_dir=FOLDER. 2.7 million parameters: hours on one CPU core.
    "own_images": Configuration(
        experiment="own_images",
        data="folder",
        size=32,
        flips=True,
        network=NetworkConfig(channels=32, multipliers=(1, 2, 4), blocks=1, attention=(8,), heads=4),
        training=TrainingConfig(
            steps=4000, batch=64, lr=1e-3, warmup=200, ema=0.999, checkpoint_every=200, precision="auto"
        ),
        evaluation=EvaluationConfig(
            method="heun",
            solver_steps=18,
            generated_sets=2,
            solver_batch=100,
            rtol=1e-3,
            atol=1e-3,
            likelihood_images=100,
            classifier_steps=600,
            nearest_images=100,
        ),
    ),
    # The network of data/pretrained: flow matching on CIFAR-10, 1.5M parameters and 3.3 epochs, in one to two hours on
    # one CPU core. What it draws has the colours and the layout of photographs, and no objects.
    "cifar10": Configuration(
        experiment="cifar10",
        data="cifar10",
        flips=True,
        network=NetworkConfig(channels=24, multipliers=(1, 2, 4), blocks=1, attention=(8,), heads=4),
        training=TrainingConfig(
            steps=2560, batch=64, lr=2e-3, warmup=100, decay="cosine", ema=0.999, checkpoint_every=128
        ),
        evaluation=EvaluationConfig(
            generated_sets=2,
            set_images=500,
            solver_batch=100,
            likelihood_images=100,
            probe_repeats=2,
            classifier_steps=600,
            nearest_images=500,
            curve_every=512,
            curve_images=100,
        ),
    ),
    # The same with classes and more parameters, 4.4 million, for many hours on one CPU core: the rate stays, so that it
    # may end after any number of steps, and go on from there.
    "cifar10_by_class": Configuration(
        experiment="cifar10_by_class",
        data="cifar10",
        flips=True,
        labels=True,
        times="logit_normal",
        times_uniform=0.5,
        network=NetworkConfig(channels=64, multipliers=(1, 2, 2), blocks=1, attention=(16,), heads=4),
        training=TrainingConfig(
            steps=31_250, batch=64, lr=1e-3, warmup=500, ema=0.9995, checkpoint_every=100, precision="auto"
        ),
        evaluation=EvaluationConfig(
            method="heun",
            solver_steps=18,
            generated_sets=2,
            set_images=1000,
            solver_batch=100,
            rtol=1e-3,
            atol=1e-3,
            likelihood_images=1000,
            classifier_steps=600,
            nearest_images=500,
        ),
    ),
    # Flow matching on CIFAR-10 in minutes on one GPU: fmcore train cifar10_gpu minutes=8. 6.5 million parameters, since
    # minutes are worth more images than parameters: a quarter of the operations of the U-Net of 35.7 million.
    "cifar10_gpu": Configuration(
        experiment="cifar10_gpu",
        data="cifar10",
        flips=True,
        network=NetworkConfig(channels=64, multipliers=(1, 2, 2), blocks=2, attention=(16,), head_channels=64),
        training=TrainingConfig(
            steps=15_000,
            batch=512,
            lr=1e-3,
            warmup=500,
            decay="cosine",
            ema=0.999,
            checkpoint_every=2500,
            precision="bf16",
            channels_last=True,
            compile=True,
        ),
        evaluation=EvaluationConfig(
            method="heun",
            solver_steps=25,
            solver_batch=500,
            sample_precision="bf16",
            sample_compile=True,
            generated_sets=2,
            likelihood_images=1000,
            classifier_steps=600,
        ),
    ),
    **lipman2023.ROWS,
    **bertrand2025.ROWS,
    **lee2025.ROWS,
}


def by_name(name: str) -> Configuration:
    """The configuration of a named experiment.

    Raises:
        ValueError: on an unknown name; the known ones are listed.
    """
    if name not in EXPERIMENTS:
        raise unknown_name("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name]
