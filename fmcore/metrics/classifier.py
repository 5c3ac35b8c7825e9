"""A classifier trained on the spot, whose features compare sets of small images.

Inception features, which FID is defined by, say little about 8x8 digits, and cost more than the whole training of a
small model. The last hidden layer of a classifier that knows the data set does say something. The distance in its
features is called "classifier Frechet distance", never FID: its values mean nothing outside this data set and this
classifier, so all runs on one data set share one (`fmcore.metrics.cache`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmcore.data.images import ImageData, dequantize
from fmcore.metrics.cache import Tensors, cached, fingerprint
from fmcore.training import TrainingConfig, derived_seed, train

AT_ONCE = 1000  # images whose features are computed together
# Of what `recipe` does not say by itself. To be raised with every change that leads to other weights: a classifier that
# was kept is then not taken for one of today. tests/metrics/test_classifier.py says when it was forgotten.
RECIPE = 1


class Classifier(nn.Module):
    """Convolutions and two linear layers for images of shape (C, H, W); `features` is the layer before the last.

    The image is halved until it is at most 4x4 (once for digits, three times for 32x32), with twice the channels each
    time but the first.
    """

    def __init__(self, shape: tuple[int, int, int], num_classes: int, features: int = 32) -> None:
        super().__init__()
        channels, height, width = shape
        if height % 2 or width % 2:
            raise ValueError(
                f"the classifier halves the image at least once: height and width must be even, got {height}x{width}"
            )
        if num_classes < 2:
            raise ValueError(
                f"a classifier needs at least two classes, and this data set has {num_classes}: "
                "use features=inception or features=dinov2"
            )
        layers: list[nn.Module] = [nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU()]
        now, outputs = 32, 32
        while True:
            layers += [nn.Conv2d(now, outputs, 3, stride=2, padding=1), nn.ReLU()]
            now, outputs, height, width = outputs, 2 * outputs, height // 2, width // 2
            if min(height, width) <= 4 or height % 2 or width % 2:
                break
        self.body = nn.Sequential(
            *layers, nn.Flatten(), nn.Dropout(0.2), nn.Linear(now * height * width, features), nn.Tanh()
        )
        self.head = nn.Linear(features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) for images x (B, C, H, W) on the scale [-1, 1]."""
        return self.head(self.body(x))

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Features (B, features) in (-1, 1), for the Frechet distance."""
        return self.body(x)


@dataclass(frozen=True, eq=False)
class TrainedClassifier:
    """A classifier in evaluation mode, and what a record must say of it.

    Attributes:
        network: the classifier.
        accuracy: on the held-out split.
        steps, seed: of its training.
    """

    network: Classifier
    accuracy: float
    steps: int
    seed: int


def train_classifier(
    data: ImageData, seed: int = 0, steps: int = 400, device: torch.device | str = "cpu"
) -> tuple[Classifier, float]:
    """Train on the training split, for minutes at most; returns the classifier and its accuracy on the held-out split.

    It sees the same dequantized images as the flow, so that the noise inside a grey level does not matter to it.

    Raises:
        ValueError: if the data set has fewer than two classes, or images of odd size.
    """
    classifier = untrained(data, seed).to(device)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> Tensor:
        images, labels = batch
        return F.cross_entropy(model(dequantize(images, data.levels, generator)), labels)

    rows = torch.utils.data.TensorDataset(data.train, data.train_labels)
    trained = train(classifier, loss, rows, how_to_train(data, seed, steps), progress=False).ema
    right = 0
    with torch.no_grad():
        for images, labels in zip(data.held_out.split(AT_ONCE), data.held_out_labels.split(AT_ONCE), strict=True):
            guesses = trained(data.scaled(images.to(device))).argmax(dim=1)
            right += int((guesses.cpu() == labels).sum())
    return trained, right / len(data.held_out)


def how_to_train(data: ImageData, seed: int, steps: int) -> TrainingConfig:
    """The settings of the training of a classifier."""
    # The gentler rate for photographs, where 3e-3 costs some accuracy.
    rate = 3e-3 if data.shape[1] < 16 else 1e-3
    return TrainingConfig(steps=steps, batch=128, lr=rate, warmup=20, decay="cosine", ema=0.98, seed=seed)


def recipe(data: ImageData, seed: int, steps: int) -> dict[str, Any]:
    """What the weights of a classifier follow from, apart from the images: its layers and its training."""
    layers = str(untrained(data, seed))
    return {"version": RECIPE, "layers": layers, "training": asdict(how_to_train(data, seed, steps))}


def cached_classifier(
    data: ImageData,
    seed: int = 0,
    steps: int = 400,
    device: torch.device | str = "cpu",
    folder: Path | None = None,
) -> TrainedClassifier:
    """As `train_classifier`, but trained only once for each data set, seed and number of steps; see `cached`.

    It is trained anew where the file is damaged, or was trained in another way (`recipe`).
    """

    def make() -> Tensors:
        classifier, accuracy = train_classifier(data, seed, steps, device)
        return {**classifier.state_dict(), "accuracy": torch.tensor(accuracy, dtype=torch.float64)}

    name = f"classifier-{data.name}-{fingerprint(data)[:16]}-seed{seed}-steps{steps}"
    state = dict(cached(name, make, folder, recipe(data, seed, steps)))
    accuracy = float(state.pop("accuracy"))
    network = untrained(data, seed)
    network.load_state_dict(state)
    return TrainedClassifier(network.to(device).eval().requires_grad_(False), accuracy, steps, seed)


def untrained(data: ImageData, seed: int) -> Classifier:
    """The classifier for a data set before training: 32 features of digits, 64 of larger images."""
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(derived_seed(seed, "classifier"))
        return Classifier(data.shape, data.num_classes, features=32 if data.shape[1] < 16 else 64)
