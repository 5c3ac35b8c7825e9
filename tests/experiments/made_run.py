"""A run without training: any velocity in place of the network's, in a folder that can be evaluated."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import torch

from fmcore.data import digits
from fmcore.experiments import records
from fmcore.experiments.config.overrides import with_overrides
from fmcore.experiments.run.finished import Run
from fmcore.experiments.run.fitted_source import FittedSource
from fmcore.experiments.run.identity import identity
from fmcore.experiments.run.training_batch import training_images
from fmcore.papers import catalog
from fmcore.sources import Gaussian

SPREAD = 0.3  # standard deviation of the data whose exact velocity `gaussian` is


def gaussian(x, t):
    """The velocity of the rectified path from N(0, 1) to N(0, SPREAD^2), as the mean of x1 - x0 given x_t."""
    return x * (t * SPREAD**2 - (1 - t)) / ((1 - t) ** 2 + (t * SPREAD) ** 2)


class MadeRun(Run):
    """A `Run` of digits whose velocity, folder and settings are given."""

    def __init__(self, folder, *changes, velocity=gaussian, experiment="digits"):
        self.folder, self.device = folder, torch.device("cpu")
        self.configuration = with_overrides(catalog.by_name(experiment), changes)
        self.data, self.path = digits(), self.configuration.build_path()
        self.training_images = training_images(self.configuration, self.data)
        self.identity = identity(self.configuration, None)
        self.fitted = FittedSource(self.configuration.source, Gaussian(self.data.shape))
        self.source = self.fitted.start()
        self.velocity = self.sampling_velocity = velocity
        self.loaded = []
        folder.mkdir(parents=True, exist_ok=True)
        records.write_json(folder / "record.json", {"experiment": experiment})

    def use_weights(self, file):
        self.loaded.append(file.name)


def frechet(a, b):
    """The Frechet distance of the Gaussians fitted to two sets of features, from the formula, by SciPy."""
    a, b = (np.asarray(x, dtype=np.float64) for x in (a, b))
    ca, cb = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm(ca @ cb)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca + cb - 2 * np.real(root)))
