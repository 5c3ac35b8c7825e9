"""The trained experiments of Bertrand et al. 2025, "On the Closed-Form of Flow Matching": bertrand2025/SIZE/ROW.

    n10, n100, ...                           figure 2: flow matching on n images
    hybrid                                   figure 3: on all images, then samples that follow u* up to some time
    cfm, ot_cfm, efm128, efm256, efm1000     figure 4: conditional flow matching, with optimal pairs, and empirical

Figure 1 needs no network: see `fmcore.papers.bertrand2025.collapse`. The paper trains on pixels without dequantization
noise, so that the training set is the finite one of the closed form, and so do these; bits/dim are not measured.

These experiments follow the text of the paper. Its code (github.com/generativemodels/closedformfm) differs: the
targets of empirical flow matching average over the 128 images of the batch and 128 more, so its "128" acts like 256;
the 128 are a batch of a second shuffled loader, drawn without replacement within an epoch; the average of the weights
starts at step 1,000; samples drawn during training take 9 Euler steps (a grid of 10 times).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from fmcore.experiments.config.evaluation import EvaluationConfig
from fmcore.experiments.config.experiment import Configuration, NetworkConfig
from fmcore.papers import networks
from fmcore.training import TrainingConfig

# Figure 4: what the network regresses on.
TARGETS: dict[str, dict[str, Any]] = {
    "cfm": {},
    "ot_cfm": {"coupling": "minibatch_ot"},
    **{f"efm{points}": {"loss": "empirical_flow_matching", "bank": points} for points in (128, 256, 1000)},
}
SWITCHES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Size:
    """What the experiments of one data set have in common.

    Attributes:
        data: name of the data set.
        network: of all.
        training: of figures 3 and 4.
        images: numbers of training images of figure 2; empty where the paper has none.
        steps: training steps of figure 2.
        evaluation: of all.
        flips: of figure 4. Figures 2 and 3 compare with u* of the images as they are, and do without.
    """

    data: Literal["digits", "cifar10", "celeba64"]
    network: NetworkConfig
    training: TrainingConfig
    images: tuple[int, ...]
    steps: int
    evaluation: EvaluationConfig
    flips: bool = True


PAPER_TRAINING = TrainingConfig(500_000, 128, 2e-4, 5000, "none", ema=0.9999, clip=1.0, checkpoint_every=5000)
# 50,000 generated images, compared with the training and with the held-out ones. FID-50k and FD-50k of DINOv2 need
# another package: features=classifier,inception,dinov2.
PAPER_EVALUATION = EvaluationConfig(
    generated_sets=5,
    set_images=10_000,
    solver_batch=500,
    likelihood_images=0,
    classifier_steps=600,
    curve_every=50_000,
    curve_images=5000,
)

SIZES: dict[str, Size] = {
    "cifar10": Size(
        "cifar10",
        networks.CIFAR10,
        PAPER_TRAINING,
        (10, 100, 1000, 2000, 3000, 4000, 5000, 10_000),
        50_000,
        PAPER_EVALUATION,
    ),
    "celeba64": Size(
        "celeba64",
        networks.CIFAR10,
        PAPER_TRAINING,
        (),
        0,
        replace(PAPER_EVALUATION, solver_batch=250, nearest_images=100),
    ),
    # Real CIFAR-10 on one CPU core, seven to eleven minutes each: 687,347 parameters and half an epoch. Rows compare
    # with each other only.
    "cifar10_small": Size(
        "cifar10",
        networks.CIFAR10_SMALL,
        TrainingConfig(steps=400, batch=64, lr=2e-3, warmup=40, decay="linear", ema=0.99, checkpoint_every=100),
        (10, 100, 1000, 10_000),
        400,
        EvaluationConfig(
            rtol=1e-4,
            atol=1e-4,
            generated_sets=2,
            set_images=250,
            solver_batch=50,
            likelihood_images=0,
            classifier_steps=600,
            nearest_images=250,
            curve_every=100,
            curve_images=100,
            hybrid_images=64,
        ),
    ),
    # About a minute each on two CPU cores. Digits have no mirror images.
    "digits": Size(
        "digits",
        networks.DIGITS,
        TrainingConfig(steps=400, batch=64, lr=1e-2, warmup=50, decay="linear", ema=0.99, checkpoint_every=100),
        (10, 100, 1000),
        400,
        EvaluationConfig(
            rtol=1e-4,
            atol=1e-4,
            generated_sets=2,
            solver_batch=297,
            likelihood_images=0,
            curve_every=100,
            curve_images=297,
        ),
        flips=False,
    ),
}


def bertrand2025(size: str) -> dict[str, Configuration]:
    """All experiments of one size, by name."""
    one = SIZES[size]
    common: dict[str, Any] = {"data": one.data, "path": "rectified", "dequantize": False, "network": one.network}
    compared = replace(one.evaluation, velocity_pairs=256, curve_every=0)
    rows: dict[str, dict[str, Any]] = {}
    for images in one.images:
        training = replace(one.training, steps=one.steps)
        rows[f"n{images}"] = {"train_images": images, "training": training, "evaluation": compared}
    rows["hybrid"] = {"training": one.training, "evaluation": replace(compared, hybrid_switches=SWITCHES)}
    for name, target in TARGETS.items():
        rows[name] = {"training": one.training, "evaluation": one.evaluation, "flips": one.flips, **target}
    return {
        f"bertrand2025/{size}/{name}": Configuration(experiment=f"bertrand2025/{size}/{name}", **common, **row)
        for name, row in rows.items()
    }


ROWS: dict[str, Configuration] = {name: row for size in SIZES for name, row in bertrand2025(size).items()}
