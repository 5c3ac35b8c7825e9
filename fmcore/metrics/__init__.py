"""How close generated samples are to data, and learned velocities to exact ones."""

from fmcore.metrics.classifier import Classifier, kept_classifier, train_classifier
from fmcore.metrics.frechet import frechet_distance
from fmcore.metrics.memorization import Nearest, nearest_training_images
from fmcore.metrics.two_sample import energy_distance, mmd, wasserstein2
from fmcore.metrics.velocities import cosine_to_conditional, failure_to_learn

__all__ = [
    "Classifier",
    "Nearest",
    "cosine_to_conditional",
    "energy_distance",
    "failure_to_learn",
    "frechet_distance",
    "kept_classifier",
    "mmd",
    "nearest_training_images",
    "train_classifier",
    "wasserstein2",
]
