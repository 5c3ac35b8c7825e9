"""Frechet distances of generated images to the training split, beside those of equally many held-out images.

A Frechet distance is biased by the number of images, so the held-out images, which say how small a distance can be, are
as many as one set of generated images has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fmcore.experiments import records
from fmcore.metrics import features
from fmcore.metrics.classifier import TrainedClassifier, cached_classifier
from fmcore.metrics.features import FeatureSpace, Moments

if TYPE_CHECKING:
    from fmcore.experiments.run.finished import Run

SEVERAL = {"classifier": "classifier_frechet_distance"}  # the measures whose value is a mean over generated sets


@dataclass(frozen=True, eq=False)
class References:
    """A feature space, and what generated images are compared with in it.

    Attributes:
        space: maps images to features.
        train: of the whole training split, never mirrored, also where a run was trained on a part of it or with flips.
        held_out: of as many held-out images as one generated set has.
    """

    space: FeatureSpace
    train: Moments
    held_out: Moments


def images_of_a_set(run: Run) -> int:
    """How many images one generated set has: `set_images`, or as many as are held out.

    Raises:
        ValueError: if that is more than are held out, since distances of unequal numbers do not compare.
    """
    wanted, held_out = run.configuration.evaluation.set_images, len(run.data.held_out)
    if wanted is None:
        return held_out
    if wanted > held_out:
        raise ValueError(
            f"set_images={wanted}, and {run.data.name} has {held_out} held-out images: a Frechet distance depends on "
            "the number of images, so a generated set is compared with equally many held-out ones; write "
            "set_images=none to take them all, and raise generated_sets for more images"
        )
    return wanted


def spread(count: int, wanted: int | None) -> Tensor:
    """Rows of `wanted` of `count` images, evenly spread, since images may be sorted; all if there are not more."""
    return torch.arange(count) if wanted is None or wanted >= count else torch.arange(wanted) * count // wanted


def trained_classifier(run: Run) -> TrainedClassifier | None:
    """The classifier of the data set, which is kept between runs; None if its features are not asked for.

    Of images without classes there is none, and no distance in its features: a folder of photographs may have none.
    """
    settings = run.configuration.evaluation
    if "classifier" not in settings.features or run.data.num_classes < 2:
        return None
    return cached_classifier(run.data, settings.evaluation_seed, settings.classifier_steps, run.device)


def references(run: Run, classifier: TrainedClassifier | None, real: Tensor) -> list[References]:
    """The spaces that the configuration asks for, the classifier's first, each with its references taken once.

    Args:
        run: whose data, device and settings.
        classifier: see `trained_classifier`.
        real: held-out images, as many as a generated set has.
    """
    names = [name for name in run.configuration.evaluation.features if name != "classifier"]
    spaces = [] if classifier is None else [features.classifier_space(classifier, run.data, run.device)]
    spaces += [features.network_space(name, run.data, run.device) for name in names]
    return [References(one, features.train_moments(one, run.data), features.moments(one, real)) for one in spaces]


def classifier_only(spaces: list[References]) -> References | None:
    """The classifier's space, if it is among them: the one cheap enough for a curve."""
    return next((one for one in spaces if one.space.name == "classifier"), None)


def measured_distances(one: References, generated: Tensor, sets: int) -> dict[str, dict[str, Any]]:
    """Frechet distances in one space: of a classifier a mean over sets, of Inception and DINOv2 one for all images.

    Args:
        one: the space and its references.
        generated: uint8 images (n, C, H, W) of all sets together.
        sets: how many they are.

    Returns:
        By measure, and in it by what was compared; see `fmcore.metrics.features.label` for the names.
    """
    real = records.number(features.distance(one.held_out, one.train))
    if one.space.name in SEVERAL:
        to_train, to_held_out = over_sets(one, generated, sets)
        values = {"generated": to_train, "generated, to held out": to_held_out, "held out (real)": real}
        return {SEVERAL[one.space.name]: values}
    everything = features.moments(one.space, generated)
    values = {
        features.label(one.space.name, len(generated)): {
            "generated": records.number(features.distance(everything, one.train))
        }
    }
    values.setdefault(features.label(one.space.name, one.held_out.count), {})["held out (real)"] = real
    return values


def over_sets(one: References, generated: Tensor, sets: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Distances to the training split and to the held-out images, each a mean over generated sets with its spread.

    Args:
        one: the space and its references.
        generated: uint8 images (n, C, H, W), one set after the other.
        sets: how many they are; n is a multiple of it.
    """
    found = [features.moments(one.space, images) for images in generated.split(len(generated) // sets)]

    def to(reference: Moments) -> dict[str, Any]:
        distances = [features.distance(images, reference) for images in found]
        return records.measurement(torch.tensor(distances, dtype=torch.float64), "generated sets")

    return to(one.train), to(one.held_out)
