"""How close generated samples are to data."""

from fmcore.metrics.classifier import Classifier, kept_classifier, train_classifier
from fmcore.metrics.frechet import frechet_distance
from fmcore.metrics.two_sample import energy_distance, mmd, wasserstein2

__all__ = [
    "Classifier",
    "energy_distance",
    "frechet_distance",
    "kept_classifier",
    "mmd",
    "train_classifier",
    "wasserstein2",
]
