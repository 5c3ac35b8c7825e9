"""The source of given points, from which the scenarios that approximate the density start."""

from __future__ import annotations

import pytest
import torch

from fmcore.papers.lee2025.simulation import Cached
from fmcore.sources import NormAligned, Source
from tests.analytic import seeded

POINTS = torch.arange(20.0).view(10, 2)


def test_given_points_are_a_source():
    source = Cached(POINTS)
    assert isinstance(source, Source)
    assert source.shape == (2,)
    drawn = source.sample(200, seeded(0))
    rows = torch.randint(10, (200,), generator=seeded(0))
    assert torch.equal(drawn, POINTS[rows])
    assert len(set(rows.tolist())) == 10
    assert source.sample(0, seeded(0)).shape == (0, 2)
    assert torch.equal(NormAligned(source, 1.0, 2.0).sample(5, seeded(0)), POINTS[rows[:5]] / 2)


def test_samples_are_on_the_device_that_was_asked_for():
    """Every machine has "meta", a device without numbers: rows drawn there cannot choose points of another."""
    assert Cached(POINTS.to("meta")).sample(3, device="meta").device.type == "meta"
    with pytest.raises(NotImplementedError, match="meta tensor"):
        Cached(POINTS).sample(3, device="meta")


def test_what_cannot_be_drawn_is_named():
    with pytest.raises(ValueError, match="n=2.0: .*write n=2"):
        Cached(POINTS).sample(2.0)
    with pytest.raises(TypeError, match="generator is 7"):
        Cached(POINTS).sample(2, 7)
    with pytest.raises(ValueError, match="generator is on cpu and draws numbers for meta"):
        Cached(POINTS).sample(2, seeded(0), device="meta")
