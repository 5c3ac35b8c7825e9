"""Spaces in which the Frechet distance compares images: a classifier's, Inception's (FID), DINOv2's.

A distance is only worth its protocol. FID is the distance in the 2,048 pooled features of one particular Inception
network, ported from TensorFlow, between 50,000 generated images and the training split, none of them mirrored. It is
biased by the number of images, so with any other number it is another quantity and gets another name (`label`).
The networks come from torch-fidelity, which is imported, and their weights downloaded, only when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmcore import memory
from fmcore.data.images import ImageData
from fmcore.metrics.cache import Tensors, cached, fingerprint
from fmcore.metrics.classifier import AT_ONCE, TrainedClassifier
from fmcore.metrics.frechet import gaussian_frechet_distance
from fmcore.validation import unknown_name

FID_IMAGES = 50_000
FEW = 64  # images that are extracted together whatever the memory
# Our name -> torch-fidelity's name of the network and of the layer, images at once, and what the record says of it.
NETWORKS = {
    "inception": ("inception-v3-compat", "2048", 100, "2048 features of Inception-v3 (TensorFlow weights of 2015)"),
    "dinov2": ("dinov2-vit-l-14", "dinov2", 50, "1024 features of DINOv2 ViT-L/14"),
}
PACKAGES = ("torch_fidelity", "torchvision")
# To be raised with every change that leads to other moments of the same features: those that were kept are then left.
MOMENTS = 1


@dataclass(frozen=True, eq=False)
class FeatureSpace:
    """A map from images to features.

    Attributes:
        name: classifier, inception or dinov2.
        says: what a record says of it.
        extract: uint8 (B, C, H, W) images of the data set to features (B, d), on any device.
        at_once: images extracted together.
    """

    name: str
    says: str
    extract: Callable[[Tensor], Tensor]
    at_once: int = AT_ONCE


@dataclass(frozen=True, eq=False)
class Moments:
    """What a Frechet distance needs: the number of images, and mean (d,) and covariance (d, d) of features, float64."""

    count: int
    mean: Tensor
    covariance: Tensor


def label(space: str, images: int) -> str:
    """What a distance from so many generated images may be called; only 50,000 make a "FID-50k".

    Raises:
        ValueError: for an unknown space.
    """
    if space == "classifier":
        return "classifier Frechet distance"
    if space not in NETWORKS:
        raise unknown_name("feature space", space, ["classifier", *NETWORKS])
    if images == FID_IMAGES:
        return {"inception": "FID-50k", "dinov2": "FD-50k (DINOv2)"}[space]
    return f"{ {'inception': 'Inception', 'dinov2': 'DINOv2'}[space] } Frechet distance of {images:,} images"


def check_installed(space: str) -> None:
    """Raise ValueError, saying what to install, if a space needs a package that is not there."""
    missing = [package for package in PACKAGES if space in NETWORKS and find_spec(package) is None]
    if missing:
        raise ValueError(
            f"features={space} needs {' and '.join(missing)}: pip install torch-fidelity torchvision "
            "(its network is downloaded at the first use), or leave features=classifier"
        )


def classifier_space(trained: TrainedClassifier, data: ImageData, device: torch.device | str = "cpu") -> FeatureSpace:
    """The features of a classifier of the data set."""
    count = trained.network.head.in_features
    says = f"{count} features of a classifier of {data.name} ({trained.steps} steps, seed {trained.seed})"
    return FeatureSpace("classifier", says, lambda images: trained.network.features(data.scaled(images.to(device))))


def network_space(space: str, data: ImageData, device: torch.device | str = "cpu") -> FeatureSpace:
    """The features of Inception-v3 or DINOv2, for images of any size; grey ones are repeated in three channels.

    Raises:
        ValueError: for an unknown space, or a package that is not installed.
        OSError: if the network cannot be downloaded.
    """
    if space not in NETWORKS:
        raise unknown_name("feature space", space, NETWORKS)
    check_installed(space)
    name, layer, at_once, says = NETWORKS[space]
    network = load_network(name, layer).to(device)

    def extract(images: Tensor) -> Tensor:
        pixels = images.to(device)
        if data.levels != 256:  # both networks read pixels from 0 to 255
            pixels = (pixels.float() * (255 / (data.levels - 1))).round().to(torch.uint8)
        with torch.no_grad():
            return network(pixels.expand(-1, 3, -1, -1))[0]

    return FeatureSpace(space, says, extract, at_once)


def load_network(name: str, layer: str) -> Any:
    """A feature extractor of torch-fidelity, in evaluation mode; downloads its weights at the first use."""
    from torch_fidelity.utils import create_feature_extractor

    return create_feature_extractor(name, [layer], cuda=False, verbose=False)


def moments(space: FeatureSpace, images: Tensor) -> Moments:
    """Mean and covariance of the features of images (n, C, H, W), n at least 2, without keeping the features.

    Sums of float64, of features moved close to their mean, so that nothing is lost when there are a million.
    """
    if len(images) < 2:
        raise ValueError(f"a covariance needs at least 2 images, got {len(images)}")
    origin: Tensor | None = None
    total = square = torch.zeros(())
    for batch in images.split(fitting(space, images)):
        features = space.extract(batch).double()
        if origin is None:
            origin = features.mean(0)
            total, square = torch.zeros_like(origin), origin.new_zeros(len(origin), len(origin))
        moved = features - origin
        total, square = total + moved.sum(0), square + moved.T @ moved
    assert origin is not None
    shift = total / len(images)
    covariance = (square - len(images) * torch.outer(shift, shift)) / (len(images) - 1)
    return Moments(len(images), (origin + shift).cpu(), covariance.cpu())


def fitting(space: FeatureSpace, images: Tensor) -> int:
    """How many images to extract together: `at_once`, or fewer where the memory is short."""
    if min(len(images), space.at_once) <= FEW:
        return space.at_once
    device = space.extract(images[:1]).device
    return memory.most_at_once(lambda count: space.extract(images[:count]), space.at_once, device)


def train_moments(space: FeatureSpace, data: ImageData, folder: Path | None = None) -> Moments:
    """The moments of the whole training split; kept between runs where the features are the same in every run."""
    if space.name == "classifier":
        return moments(space, data.train)

    def make() -> Tensors:
        found = moments(space, data.train)
        return {"mean": found.mean, "covariance": found.covariance}

    how = {"version": MOMENTS, "features": space.says}
    found = cached(f"moments-{space.name}-{data.name}-{fingerprint(data)[:16]}", make, folder, how)
    return Moments(len(data.train), found["mean"], found["covariance"])


def distance(a: Moments, b: Moments) -> float:
    """The Frechet distance between two sets of images."""
    return gaussian_frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
