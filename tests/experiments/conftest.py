"""Shared by the tests of experiments."""

import pytest

from fmcore.metrics import classifier
from fmcore.training import TrainingConfig


@pytest.fixture(scope="module")
def own_cache(kept_classifiers):
    """A folder of the tests' own for classifiers and the like, in place of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FMCORE_DATA", str(kept_classifiers))
        yield


@pytest.fixture
def few_images_a_step(monkeypatch):
    """Classifiers learn from 8 images a step, not 128: for tests of what is written down, whatever they know."""

    def config(**settings):
        return TrainingConfig(**(settings | {"batch": 8}))

    monkeypatch.setattr(classifier, "TrainingConfig", config)
