"""What a classifier makes of generated images: how sure it is, and whether it finds the class that was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fmcore.data.images import scale
from fmcore.experiments.run.samples import Samples
from fmcore.metrics.classifier import AT_ONCE, TrainedClassifier

if TYPE_CHECKING:
    from fmcore.experiments.run.finished import Run

CONFIDENT = 0.9  # a probability of one class from which it counts as sure of it


def classes_found(run: Run, classifier: TrainedClassifier | None, generated: Samples) -> dict[str, Any]:
    """The classes that the classifier of the data set finds in generated images; nothing without a classifier.

    Returns:
        "classifier_confident": the share of images of which it gives one class a probability of at least 0.9, of
        generated and of held-out images. Where the network knows classes, "classifier_agreement": the share of images
        in which it finds the class that they were drawn of, of all and of each class, to be compared with its accuracy
        on held-out images.
    """
    if classifier is None:
        return {}
    guesses = probabilities(classifier, generated.images, run)
    real = probabilities(classifier, run.data.held_out, run)
    found: dict[str, Any] = {
        "classifier_confident": {"generated": sure(guesses), "held out (real)": sure(real)},
    }
    if generated.labels is not None:
        right = guesses.argmax(dim=1) == generated.labels
        of_each = {
            name: share(right[generated.labels == label])
            for label, name in enumerate(run.data.class_names)
            if (generated.labels == label).any()
        }
        found["classifier_agreement"] = {"all": share(right), **of_each}
    return found


def probabilities(classifier: TrainedClassifier, images: Tensor, run: Run) -> Tensor:
    """The probability of each class, (n, classes), for whole-number images (n, C, H, W)."""
    with torch.no_grad():
        parts = [
            classifier.network(scale(part.to(run.device), run.data.levels)).softmax(dim=1).cpu()
            for part in images.split(AT_ONCE)
        ]
    return torch.cat(parts)


def sure(guesses: Tensor) -> float:
    """The share of images of which the largest probability is at least 0.9."""
    return share(guesses.amax(dim=1) >= CONFIDENT)


def share(found: Tensor) -> float:
    """The share of True, in four decimals."""
    return round(float(found.double().mean()), 4)
