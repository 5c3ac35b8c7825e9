"""Settings that every test shares."""

from __future__ import annotations

import os
from pathlib import Path

# Before anything imports torch: two workers on two cores must not run two threads each.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    threads = max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
from hypothesis import settings

# Equal runs on every machine. HYPOTHESIS_PROFILE=explore looks for new examples, and takes its time.
settings.register_profile("repeat", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Send the tests of a module that share what it makes once to one worker: two would make it twice."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None and shared_in_module(item):
            item.add_marker(pytest.mark.xdist_group(item.location[0]))
        group = item.get_closest_marker("xdist_group")
        if group is not None and getattr(config.option, "loadgroup", False) and hasattr(item, "_id"):
            # What --dist loadgroup goes by. pytest-xdist 3.8 writes it where pytest 9.2 does not read it any more.
            item._id = type(item._id).parse(f"{item.nodeid}@{group.args[0]}")


def shared_in_module(item):
    found = (fixture for name in item.fixturenames for fixture in item._fixtureinfo.name2fixturedefs.get(name, ()))
    return any(fixture.scope == "module" for fixture in found)


@pytest.fixture(scope="session")
def kept_classifiers(tmp_path_factory) -> Path:
    """A folder for FMCORE_DATA, where modules find the classifiers that others have trained."""
    return tmp_path_factory.mktemp("classifiers")


@pytest.fixture(scope="module")
def own_cache(kept_classifiers):
    """A folder of the tests' own for classifiers and the like, in place of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FMCORE_DATA", str(kept_classifiers))
        yield


@pytest.fixture
def few_images_a_step(monkeypatch):
    """Classifiers learn from 8 images per step, not 128: for tests of what is written down, whatever they know."""
    from fmcore.metrics import classifier
    from fmcore.training import TrainingConfig

    def config(**settings):
        return TrainingConfig(**(settings | {"batch": 8}))

    monkeypatch.setattr(classifier, "TrainingConfig", config)
