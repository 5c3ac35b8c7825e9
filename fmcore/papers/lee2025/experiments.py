"""The trained experiments of Lee, Kim and Lee 2025, "Is There a Better Source Distribution than Gaussian?".

lee2025/SIZE/ROW (arXiv 2512.18184):

    ot, independent                        the Gaussian, with optimal pairs in a batch and without
    ot_norm, independent_norm              norms aligned by scaling the data up, as the text of the paper has it
    ot_norm_down, independent_norm_down    by scaling the noise down, as the notes of its code have it
    pruned_ot, pruned_independent          trained and sampled without the directions in which there are no data
    dct_weak, dct_strong                   without the frequencies that the data lack
    mixture1, ...                          a Gaussian mixture fitted to the data
    flow                                   a continuous normalizing flow trained by maximum likelihood
    oracle, oracle3000, ...                around the direction of each image; kappa = infinity, or the number
    kmeans1500, ...                        around three mean directions; kappa is the number
    chi_sphere                             a uniform direction and a length chi(d): the Gaussian again

The first four rows are measured at 5, 10, 20, 40 and 100 Euler steps, each from its own source and from the pruned one:
what the paper calls OT, OT + prune, OT + norm, OT + both, and the same for I. The others are measured at 100.
Concentrations are per dimension: a row of another size has kappa times d / 3,072.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from fmcore.experiments.config.evaluation import EvaluationConfig
from fmcore.experiments.config.experiment import Configuration, NetworkConfig
from fmcore.experiments.config.source import SourceConfig
from fmcore.papers import networks
from fmcore.training import TrainingConfig

BUDGETS = (5, 10, 20, 40, 100)
ORACLE_KAPPA, KMEANS_KAPPA = (3000, 1500), (1500, 900, 300, 100, 50)
CIFAR10_DIMENSION = 3072
OT = {"coupling": "minibatch_ot"}
# The networks of the table with five budgets.
MAIN = ("ot", "independent", "ot_norm", "independent_norm")


@dataclass(frozen=True)
class Size:
    """What the experiments of one data set have in common.

    Attributes:
        data: name of the data set.
        dimension: numbers of an image.
        network, training: of all.
        evaluation: of the rows with one budget.
        tau, threshold: of pruning.
        flow_steps, flow_width: of the continuous normalizing flow.
        components: of the mixtures.
        flips: whether mirror images are trained on.
        rows: those that the paper has; none for all.
    """

    data: Literal["digits", "cifar10", "imagenet64"]
    dimension: int
    network: NetworkConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    tau: float
    threshold: float
    flow_steps: int
    flow_width: int
    components: tuple[int, ...] = (1, 2, 10)
    flips: bool = True
    rows: tuple[str, ...] = ()


PAPER_EVALUATION = EvaluationConfig(
    method="euler",
    solver_steps=100,
    generated_sets=5,
    set_images=10_000,
    solver_batch=500,
    likelihood_images=0,
    classifier_steps=600,
)
SIZES: dict[str, Size] = {
    "cifar10": Size(
        "cifar10",
        CIFAR10_DIMENSION,
        networks.CIFAR10,
        TrainingConfig(200_000, 512, 2e-4, 5000, "none", ema=0.9999, clip=1.0, checkpoint_every=5000),
        PAPER_EVALUATION,
        tau=0.01,
        threshold=0.048,
        flow_steps=50_000,
        flow_width=64,
    ),
    "imagenet64": Size(
        "imagenet64",
        12_288,
        NetworkConfig(128, (1, 2, 2, 2), 3, (32, 16), head_channels=64, dropout=0.1),
        TrainingConfig(350_000, 384, 2e-4, 20_000, "none", ema=0.9999, clip=1.0, checkpoint_every=5000),
        replace(PAPER_EVALUATION, solver_batch=250, nearest_images=0),
        tau=0.005,
        threshold=0.026,
        flow_steps=1,
        flow_width=1,
        rows=("ot",),
    ),
    # Real CIFAR-10 on one CPU core: 687,347 parameters and half an epoch. Rows compare with each other only.
    "cifar10_small": Size(
        "cifar10",
        CIFAR10_DIMENSION,
        networks.CIFAR10_SMALL,
        TrainingConfig(steps=400, batch=64, lr=2e-3, warmup=40, decay="linear", ema=0.99, checkpoint_every=100),
        EvaluationConfig(
            method="euler",
            solver_steps=100,
            generated_sets=2,
            set_images=250,
            solver_batch=50,
            likelihood_images=0,
            classifier_steps=600,
            nearest_images=250,
        ),
        tau=0.01,
        threshold=0.048,
        flow_steps=200,
        flow_width=16,
    ),
    # About a minute each on two CPU cores. Digits have no mirror images and no colour.
    "digits": Size(
        "digits",
        64,
        networks.DIGITS,
        TrainingConfig(steps=400, batch=64, lr=1e-2, warmup=50, decay="linear", ema=0.99, checkpoint_every=100),
        EvaluationConfig(
            method="euler",
            solver_steps=100,
            generated_sets=5,
            solver_batch=297,
            likelihood_images=0,
            nearest_images=297,
        ),
        tau=0.1,
        threshold=0.25,
        flow_steps=200,
        flow_width=32,
        flips=False,
    ),
}


def scaled_kappa(kappa: float, size: Size) -> float:
    """A concentration of the paper at another dimension, where it gives about the same mean cosine."""
    return kappa * size.dimension / CIFAR10_DIMENSION


def sources_of(size: Size) -> dict[str, dict[str, Any]]:
    """The rows of a size: name, and what is special about each."""
    up, down = SourceConfig(norm="data_up"), SourceConfig(norm="noise_down")
    pruned = SourceConfig(distribution="pruned", tau=size.tau, threshold=size.threshold)
    rows: dict[str, dict[str, Any]] = {
        "ot": OT,
        "independent": {},
        "ot_norm": {**OT, "source": up},
        "independent_norm": {"source": up},
        "ot_norm_down": {**OT, "source": down},
        "independent_norm_down": {"source": down},
        "pruned_ot": {**OT, "source": pruned},
        "pruned_independent": {"source": pruned},
        "dct_weak": {**OT, "source": SourceConfig(distribution="dct", masking="weak")},
        "dct_strong": {**OT, "source": SourceConfig(distribution="dct", masking="strong")},
        **{
            f"mixture{k}": {**OT, "source": SourceConfig(distribution="mixture", components=k)} for k in size.components
        },
        "flow": {
            **OT,
            "source": SourceConfig(distribution="flow", flow_steps=size.flow_steps, flow_width=size.flow_width),
        },
        "oracle": {"source": SourceConfig(distribution="von_mises_fisher")},
    }
    for kappa in ORACLE_KAPPA:
        near = SourceConfig(distribution="von_mises_fisher", kappa=scaled_kappa(kappa, size))
        rows[f"oracle{kappa}"] = {"source": near}
    for kappa in KMEANS_KAPPA:
        near = SourceConfig(distribution="von_mises_fisher", components=3, kappa=scaled_kappa(kappa, size))
        rows[f"kmeans{kappa}"] = {**OT, "source": near}
    rows["chi_sphere"] = {**OT, "source": SourceConfig(distribution="chi_sphere")}
    return {name: row for name, row in rows.items() if not size.rows or name in size.rows}


def lee2025(size: str) -> dict[str, Configuration]:
    """All experiments of one size, by name."""
    one = SIZES[size]
    common: dict[str, Any] = {"data": one.data, "path": "rectified", "network": one.network, "training": one.training}
    compared = replace(one.evaluation, budgets=BUDGETS, prune_tau=one.tau, prune_threshold=one.threshold)
    made = {}
    for name, row in sources_of(one).items():
        evaluation = compared if name in MAIN else replace(one.evaluation, budgets=BUDGETS[-1:])
        made[f"lee2025/{size}/{name}"] = Configuration(
            experiment=f"lee2025/{size}/{name}", evaluation=evaluation, flips=one.flips, **common, **row
        )
    return made


ROWS: dict[str, Configuration] = {name: row for size in SIZES for name, row in lee2025(size).items()}
