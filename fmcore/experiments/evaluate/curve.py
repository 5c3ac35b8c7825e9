"""The curve of a training: how good samples were at each of its snapshots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from fmcore.atomic import write_file
from fmcore.experiments import records
from fmcore.experiments.evaluate.frechet import References
from fmcore.experiments.run.samples import samples
from fmcore.experiments.run.snapshots import kept_steps
from fmcore.metrics import features

if TYPE_CHECKING:
    from fmcore.experiments.run.finished import Run


def measured_curve(run: Run, classifier: References | None) -> list[dict[str, float]]:
    """The classifier Frechet distance and NFE of samples at each snapshot, beside the training loss up to there.

    Every point starts from the same noise. The distances are of `curve_images` images: compare them with each other.

    Returns:
        One entry a snapshot: "step"; "epoch", how often each image of the training was seen, in three decimals;
        "mean_loss" since the snapshot before; "classifier_frechet_distance" to the training split; "nfe". Empty
        without snapshots or without the classifier's space.
    """
    settings, steps = run.configuration.evaluation, kept_steps(run.folder)
    if not steps or classifier is None:
        return []
    losses = torch.tensor(records.read_losses(run.folder / "losses.csv"))
    curve, before = [], 0
    for step, file in steps.items():
        run.use_weights(file)
        found = samples(run, settings.curve_images, "curve")
        images = features.moments(classifier.space, found.images)
        curve.append(
            {
                "step": step,
                "epoch": round(step * run.configuration.training.batch / len(run.training_images), 3),
                "mean_loss": float(losses[before:step].mean()),
                "classifier_frechet_distance": features.distance(images, classifier.train),
                "nfe": float(found.nfe.mean()),
            }
        )
        before = step
    run.use_weights(run.folder / "weights.safetensors")
    return curve


def write_curve(curve: list[dict[str, float]], file: Path) -> None:
    """Write the curve as a table, one line a snapshot; nothing if it has no points."""
    if curve:
        lines = [",".join(map(str, point.values())) for point in curve]
        write_file(file, "\n".join([",".join(curve[0]), *lines, ""]).encode())
