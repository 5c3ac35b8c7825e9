"""Shared by the tests of experiments."""

import pytest


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """A folder of the module's own for classifiers and the like, in place of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FMCORE_DATA", str(tmp_path_factory.mktemp("cache")))
        yield
