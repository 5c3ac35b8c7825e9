"""The chapters that test_chapters_in_jupyterlab.py leaves out; part of `make test-all`."""

from __future__ import annotations

import pytest

from tests.browser import elements

KINDS = elements.of_chapters()
SECONDS = elements.seconds(KINDS)
OTHERS = elements.slowest_first(set(KINDS) - set(elements.cheapest(KINDS, SECONDS)), SECONDS)


@pytest.mark.parametrize("name", OTHERS)
def test_chapter(lab, name):
    lab.study(name)
