"""The named experiments. `fmcore list` prints them, `fmcore train NAME` runs one."""

from __future__ import annotations

from fmcore.experiments.configuration import Configuration, EvaluationConfig, NetworkConfig
from fmcore.training import TrainingConfig
from fmcore.validation import unknown_name

EXPERIMENTS: dict[str, Configuration] = {
    # Flow matching on 1,500 images of 8x8 pixels, from scratch, within two minutes on two CPU cores.
    "digits": Configuration(
        experiment="digits",
        data="digits",
        network=NetworkConfig(channels=32, multipliers=(1, 2), blocks=1, attention=(4,), heads=2),
        training=TrainingConfig(steps=640, batch=64, lr=3e-3, warmup=100, decay="cosine", ema=0.995),
        evaluation=EvaluationConfig(rtol=1e-3, atol=1e-3),
    ),
}


def by_name(name: str) -> Configuration:
    """The configuration of a named experiment.

    Raises:
        ValueError: on an unknown name; the known ones are listed.
    """
    if name not in EXPERIMENTS:
        raise unknown_name("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name]
