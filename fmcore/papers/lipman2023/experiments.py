"""The rows of Lipman et al. 2023, Table 1: lipman2023/SIZE/METHOD.

Five ways to train one network, at the sizes of the paper (with the settings of its Table 3) and at two that a CPU can
do, where the numbers mean nothing beside the paper's, but the order of the rows may.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from fmcore.experiments.config.evaluation import EvaluationConfig
from fmcore.experiments.config.experiment import Configuration, NetworkConfig
from fmcore.papers import networks
from fmcore.training import TrainingConfig
from fmcore.validation import unknown_name

# Method: the path, and what the network learns on it. The OT path ends at sigma_min = 0, since the paper's text gives
# no value; sigma_min=1e-4, say, changes that.
METHODS: dict[str, dict[str, Any]] = {
    "ddpm": {"path": "variance_preserving", "loss": "noise_prediction"},
    "sm": {"path": "variance_preserving", "loss": "score_matching"},
    "sf": {"path": "variance_preserving", "loss": "score_flow"},
    "fm_diffusion": {"path": "variance_preserving", "loss": "conditional_flow_matching"},
    "fm_ot": {"path": "ot", "loss": "conditional_flow_matching"},
}


@dataclass(frozen=True)
class Size:
    """What the rows of one data set have in common.

    Attributes:
        data: name of the data set.
        network, training, evaluation: of every row.
        methods: the rows.
        rates: peak learning rates of rows that differ from the others.
    """

    data: Literal["digits", "cifar10", "imagenet32", "imagenet64", "imagenet128"]
    network: NetworkConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    methods: tuple[str, ...] = tuple(METHODS)
    rates: tuple[tuple[str, float], ...] = ()


def paper_network(
    channels: int, multipliers: tuple[int, ...], blocks: int, attention: tuple[int, ...]
) -> NetworkConfig:
    """A U-Net of Table 3. Its "4 heads of 64 channels" are 4 at a width of 256; wider layers get more such heads."""
    return NetworkConfig(channels, multipliers, blocks, attention, head_channels=64, dropout=0.0)


def paper_training(steps: int, batch: int, lr: float, warmup: int, decay: Any, precision: Any) -> TrainingConfig:
    """Training of Table 3. The paper mentions neither an average of the weights nor a clipped gradient: those are ours.

    Adam (0.9, 0.999, 1e-8), no weight decay. Mixed precision is bfloat16 here and float16 there.
    """
    return TrainingConfig(
        steps, batch, lr, warmup, decay, ema=0.9999, clip=1.0, checkpoint_every=5000, precision=precision
    )


def paper_evaluation(draws: int, nearest_images: int = 1000) -> EvaluationConfig:
    """The protocol of the paper: dopri5 at 1e-5, NFE over 50,000 samples, Hutchinson's trace, K draws.

    Two choices are ours. FID-50k needs another package, so it is measured on demand: features=classifier,inception.
    And K draws for all held-out images would cost more than the training: 1,000 are measured, whose standard error the
    record states; likelihood_images=none takes all.
    """
    return EvaluationConfig(
        generated_sets=5,
        set_images=10_000,
        solver_batch=500,
        likelihood_images=1000,
        draws=draws,
        probe_repeats=2,
        classifier_steps=600,
        nearest_images=nearest_images,
        curve_images=5000,
    )


SIZES: dict[str, Size] = {
    # 1000 epochs of 50,000 images at a batch of 256 are 195k steps; the 391k of Table 3 are 1000 epochs at a batch of
    # 128 (or twice as many at 256). The table's own numbers of steps and images per step are kept.
    "cifar10": Size(
        "cifar10",
        paper_network(256, (1, 2, 2, 2), 2, (16,)),
        paper_training(391_000, 256, 5e-4, 45_000, "linear", "fp32"),
        paper_evaluation(50),
    ),
    "imagenet32": Size(
        "imagenet32",
        paper_network(256, (1, 2, 2, 2), 3, (16, 8)),
        paper_training(250_000, 1024, 1e-4, 20_000, "linear", "fp32"),
        paper_evaluation(15),
    ),
    "imagenet64": Size(
        "imagenet64",
        paper_network(192, (1, 2, 3, 4), 3, (32, 16, 8)),
        paper_training(157_000, 2048, 1e-4, 0, "none", "bf16"),
        paper_evaluation(10, nearest_images=100),
    ),
    "imagenet128": Size(
        "imagenet128",
        paper_network(256, (1, 1, 2, 3, 4), 3, (32, 16, 8)),
        paper_training(500_000, 1536, 1e-4, 20_000, "linear", "bf16"),
        paper_evaluation(1, nearest_images=0),
        methods=("fm_ot",),
    ),
    # Real CIFAR-10 on one CPU core, less than an hour a row: three quarters of an epoch, then samples, likelihoods and
    # a curve at the paper's tolerances. Rows compare with each other only; the rate was not searched.
    "cifar10_small": Size(
        "cifar10",
        networks.CIFAR10_SMALL,
        TrainingConfig(steps=600, batch=64, lr=2e-3, warmup=60, decay="linear", ema=0.995, checkpoint_every=150),
        EvaluationConfig(
            generated_sets=2,
            set_images=250,
            solver_batch=50,
            likelihood_images=64,
            draws=3,
            probe_repeats=2,
            classifier_steps=600,
            nearest_images=250,
            curve_every=150,
            curve_images=100,
        ),
    ),
    # About a minute a row on two CPU cores, more than half of it for the evaluation at the paper's tolerances.
    "digits": Size(
        "digits",
        networks.DIGITS,
        TrainingConfig(steps=400, batch=64, lr=1e-2, warmup=50, decay="linear", ema=0.995, checkpoint_every=100),
        EvaluationConfig(
            generated_sets=2,
            solver_batch=297,
            likelihood_images=100,
            draws=3,
            probe_repeats=2,
            curve_every=100,
            curve_images=100,
        ),
        # Of 3e-3 and 1e-2, the rate with fewer bits/dim (one seed): 1e-2 gained 0.04 to 0.10 with the other methods,
        # and lost 0.09 with ScoreFlow, whose weight makes single batches scatter.
        rates=(("sf", 3e-3),),
    ),
}


def lipman2023(size: str, method: str) -> Configuration:
    """One row of Table 1, at one size.

    Raises:
        ValueError: on an unknown size or method, or a method that the paper has no such row of.
    """
    if size not in SIZES:
        raise unknown_name("size", size, SIZES)
    one = SIZES[size]
    if method not in one.methods:
        raise unknown_name(f"method of lipman2023/{size}", method, one.methods)
    training = replace(one.training, lr=dict(one.rates).get(method, one.training.lr))
    return Configuration(
        experiment=f"lipman2023/{size}/{method}",
        data=one.data,
        network=one.network,
        training=training,
        evaluation=one.evaluation,
        **METHODS[method],
    )


ROWS: dict[str, Configuration] = {
    row.experiment: row for row in (lipman2023(size, method) for size, one in SIZES.items() for method in one.methods)
}
