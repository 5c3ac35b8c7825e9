"""A classifier trained on the spot, whose features compare sets of small images.

Inception features, which FID is defined by, say little about 8x8 digits. The last hidden layer of a classifier that
knows the digits does say something. The distance in its features is called "classifier Frechet distance", never FID:
its values mean nothing outside this data set and this classifier.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmcore.data.images import ImageData, dequantize
from fmcore.training import TrainingConfig, derived_seed, train


class Classifier(nn.Module):
    """Two convolutions and two linear layers for images of shape (C, H, W); `features` is the layer before the last."""

    def __init__(self, shape: tuple[int, int, int], num_classes: int, features: int = 32) -> None:
        super().__init__()
        channels, height, width = shape
        if height % 2 or width % 2:
            raise ValueError(
                f"the classifier halves the image once: height and width must be even, got {height}x{width}"
            )
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(32 * (height // 2) * (width // 2), features),
            nn.Tanh(),
        )
        self.head = nn.Linear(features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) for images x (B, C, H, W) on the scale [-1, 1]."""
        return self.head(self.body(x))

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Features (B, 32) in (-1, 1), for the Frechet distance."""
        return self.body(x)


def train_classifier(data: ImageData, seed: int = 0, steps: int = 400) -> tuple[Classifier, float]:
    """Train on the training split, seconds on a CPU; returns the classifier and its accuracy on the held-out split.

    It sees the same dequantized images as the flow, so that the noise inside a grey level does not matter to it.
    """
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(derived_seed(seed, "classifier"))
        classifier = Classifier(data.shape, data.num_classes)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> Tensor:
        images, labels = batch
        return F.cross_entropy(model(dequantize(images, data.levels, generator)), labels)

    rows = torch.utils.data.TensorDataset(data.train, data.train_labels)
    config = TrainingConfig(steps=steps, batch=128, lr=3e-3, warmup=20, decay="cosine", ema=0.98, seed=seed)
    trained = train(classifier, loss, rows, config, progress=False).ema
    with torch.no_grad():
        guesses = trained(data.scaled(data.held_out)).argmax(dim=1)
    return trained, float((guesses == data.held_out_labels).float().mean())
