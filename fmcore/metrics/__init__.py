"""How close generated samples are to data, and learned velocities to exact ones."""

from fmcore.metrics.classifier import Classifier, cached_classifier, train_classifier
from fmcore.metrics.coverage import (
    covered_share,
    distances_to_data,
    mode_divergence,
    normalized_wasserstein,
    share_divergence,
    wasserstein1,
    wasserstein_given_shares,
)
from fmcore.metrics.frechet import frechet_distance
from fmcore.metrics.memorization import Nearest, nearest_training_images
from fmcore.metrics.two_sample import energy_distance, mmd, wasserstein2
from fmcore.metrics.velocities import cosine_to_conditional, velocity_mse

__all__ = [
    "Classifier",
    "Nearest",
    "cached_classifier",
    "cosine_to_conditional",
    "covered_share",
    "distances_to_data",
    "energy_distance",
    "frechet_distance",
    "mmd",
    "mode_divergence",
    "nearest_training_images",
    "normalized_wasserstein",
    "share_divergence",
    "train_classifier",
    "velocity_mse",
    "wasserstein1",
    "wasserstein2",
    "wasserstein_given_shares",
]
