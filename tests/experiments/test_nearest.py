"""Which training images a run's own images are compared with: against scikit-learn's brute force."""

from __future__ import annotations

import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from fmcore.experiments.evaluate.nearest import nearest_distances
from tests.experiments.made_run import MadeRun


def brute_force(run, images):
    """Distances of each image to the two nearest of those that the run was trained on, in float64."""
    images, train = (run.data.scaled(x).double().flatten(1).numpy() for x in (images, run.training_images))
    return NearestNeighbors(n_neighbors=2, algorithm="brute").fit(train).kneighbors(images)[0]


def test_a_run_searches_the_images_that_it_was_trained_on(tmp_path):
    """Of a run with 100 images: copies of those count, images of the rest of the split do not."""
    run = MadeRun(tmp_path, "train_images=100", "nearest_images=50")
    seen, held_out = run.training_images, run.data.held_out
    assert len(seen) == 100
    known = {image.numpy().tobytes() for image in seen}
    others = torch.stack([image for image in run.data.train if image.numpy().tobytes() not in known][:50])
    found = nearest_distances(run, [seen[:50], others], held_out)
    distance = brute_force(run, others)
    copied = (distance[:, 0] < distance[:, 1] / 3).mean()
    generated = found["distance_to_nearest_training_image"]["generated"]["value"]
    assert generated == pytest.approx(distance[:, 0].mean() / 2, rel=1e-6)
    assert found["share_of_copies"]["generated"]["value"] == pytest.approx((1 + copied) / 2)
    real = found["distance_to_nearest_training_image"]["held out (real)"]["value"]
    assert real == pytest.approx(brute_force(run, held_out[:50])[:, 0].mean(), rel=1e-6)


def test_nothing_is_searched_unless_it_is_asked_for(tmp_path):
    run = MadeRun(tmp_path, "nearest_images=0")
    assert nearest_distances(run, [run.training_images[:5]], run.data.held_out) == {}
