"""All sources alike: what they are asked for, and what can be done with them besides sampling."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch

from fmcore import sources
from fmcore.ensemble import Arcs, Member, three_directions
from fmcore.sources import (
    DCT,
    AroundPoints,
    ChiSphere,
    FlowSource,
    Gaussian,
    GaussianMixture,
    NormAligned,
    Pruned,
    PruningAxes,
    Source,
    VonMisesFisher,
    pruning_axes,
    spherical_k_means,
)
from tests.analytic import seeded

ENDS = torch.tensor([True, False])
SOURCES = {
    "Gaussian": Gaussian((2,), 1.5),
    "ChiSphere": ChiSphere((2,), 5),
    "VonMisesFisher": VonMisesFisher(torch.eye(2), 3.0, torch.tensor([1.0, 2.0])),
    "AroundPoints": AroundPoints(torch.eye(2), 3.0),
    "GaussianMixture": GaussianMixture.fit(torch.randn(30, 2, generator=seeded(0)), 2),
    "DCT": DCT((1, 8, 8), torch.arange(64).view(1, 8, 8) < 20),
    "FlowSource": FlowSource(ChiSphere((2,)), torch.nn.Tanh()),
    "NormAligned": NormAligned(ChiSphere((2,)), 2.0),
    "Pruned": Pruned(ChiSphere((2,)), PruningAxes(torch.eye(2), ENDS, ~ENDS), 0.5),
    "Arcs": Arcs(0.9),
}
every = pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
WHOLE = torch.randint(0, 256, (12, 1, 8, 8), generator=seeded(1)).to(torch.uint8)


def test_every_source_is_looked_at():
    kinds = {value for value in vars(sources).values() if isinstance(value, type) and hasattr(value, "sample")}
    assert kinds - {Source, sources.SourceWithDensity} == {type(source) for source in SOURCES.values()} - {Arcs}


@every
def test_a_source_has_a_shape_and_samples(source):
    assert isinstance(source, Source)
    assert source.sample(3, seeded(0)).shape == (3, *source.shape)
    assert source.sample(np.int64(2), seeded(0)).shape == (2, *source.shape)
    assert not isinstance(torch.nn.Tanh(), Source)


@every
def test_copies_draw_the_same(source):
    expected = source.sample(50, seeded(2))
    for twin in (pickle.loads(pickle.dumps(source)), copy.deepcopy(source), copy.copy(source)):
        assert torch.equal(twin.sample(50, seeded(2)), expected)
    assert {source: 1}[source] == 1


@every
def test_no_samples_are_an_empty_batch(source):
    assert source.sample(0, seeded(0)).shape == (0, *source.shape)


@every
@pytest.mark.parametrize(
    ("n", "message"),
    [
        (2.0, "n=2.0: .*write n=2"),
        (2.5, "n=2.5: a number of samples is a whole number"),
        (True, "n=True: a number of samples is a whole number"),
        (-1, "n is -1: it must be at least 0"),
    ],
)
def test_a_number_of_samples_is_a_whole_number(source, n, message):
    with pytest.raises(ValueError, match=message):
        source.sample(n, seeded(0))


@every
@pytest.mark.parametrize("generator", [7, np.random.default_rng(0), "seed"], ids=["int", "numpy", "str"])
def test_what_is_no_generator_is_named(source, generator):
    with pytest.raises(TypeError, match="generator is .*pass a torch.Generator"):
        source.sample(3, generator)


@every
def test_a_generator_of_another_device_is_named(source):
    """Every machine has "meta", a device without numbers."""
    with pytest.raises(ValueError, match="generator is on cpu and draws numbers for meta"):
        source.sample(3, seeded(0), device="meta")


def test_generators_of_everything_else_that_draws():
    x = torch.eye(2)
    for draw in (
        lambda: AroundPoints(x, 3.0).given(x, 3),
        lambda: sources.uniform_directions(3, 2, 3),
        lambda: SOURCES["Pruned"].share_kept(10, 3),
        lambda: SOURCES["Pruned"].sample_counted(10, 3),
        lambda: three_directions(10, 3),
    ):
        with pytest.raises(TypeError, match=r"generator is 3 \(int\): pass a torch.Generator"):
            draw()


def test_members_of_an_ensemble_take_any_source():
    from typing import get_type_hints

    assert get_type_hints(Member)["source"] is Source


@pytest.mark.parametrize(
    "call",
    [
        lambda: DCT.fit(WHOLE),
        lambda: SOURCES["DCT"].masked(WHOLE),
        lambda: GaussianMixture.fit(WHOLE, 2),
        lambda: VonMisesFisher.fit(WHOLE, 2, 3.0),
        lambda: VonMisesFisher(WHOLE, 3.0),
        lambda: spherical_k_means(WHOLE, 2),
        lambda: pruning_axes(WHOLE, 0.1),
        lambda: AroundPoints(WHOLE, 3.0),
        lambda: AroundPoints(WHOLE.float(), 3.0).given(WHOLE),
        lambda: SOURCES["Pruned"].contains(WHOLE[:, 0, 0, :2]),
        lambda: Gaussian((1, 8, 8)).log_prob(WHOLE),
        lambda: ChiSphere((1, 8, 8)).log_prob(WHOLE),
        lambda: VonMisesFisher(torch.ones(1, 1, 8, 8), 3.0).log_prob(WHOLE),
        lambda: NormAligned(Gaussian((1, 8, 8)), 1.0).log_prob(WHOLE),
        lambda: FlowSource(Gaussian((1, 8, 8)), torch.nn.Tanh(), lambda x: x).log_prob(WHOLE),
        lambda: SOURCES["GaussianMixture"].log_prob(WHOLE[:, 0, 0, :2]),
        lambda: DCT((1, 8, 8), torch.ones(1, 8, 8, dtype=torch.bool)).log_prob(WHOLE),
    ],
)
def test_whole_numbers_are_refused_wherever_points_are_taken(call):
    with pytest.raises(TypeError, match=r"holds torch.uint8: .*to floating point first \(images to \[-1, 1\]\)"):
        call()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "call",
    [
        lambda x: DCT.fit(x),
        lambda x: GaussianMixture.fit(x, 2),
        lambda x: spherical_k_means(x, 2),
        lambda x: pruning_axes(x, 0.1),
        lambda x: pruning_axes(x, 0.1, flips=True, chunk=5),
        lambda x: AroundPoints(x, 3.0).given(x),
    ],
)
def test_values_that_are_not_finite_are_called_that(call, value):
    x = torch.rand(12, 1, 8, 8, generator=seeded(3)) + 0.1
    x[7, 0, 2, 3] = value
    with pytest.raises(ValueError, match="has NaN or infinite values in 1 of"):
        call(x)


def test_images_of_another_shape_cannot_be_masked():
    with pytest.raises(ValueError, match=r"images have shape \(2, 3, 8, 8\): pass \(n, 1, H, W\)"):
        SOURCES["DCT"].masked(torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match="multiples of 8"):
        SOURCES["DCT"].masked(torch.zeros(2, 1, 8, 9))


def test_the_density_of_a_source_that_does_not_know_it():
    class Dots:
        shape = (2,)

        def sample(self, n, generator=None, device=None):
            return torch.ones(n, 2)

    with pytest.raises(ValueError, match="Dots has no log_prob: the density of its samples is not known"):
        NormAligned(Dots(), 1.0).log_prob(torch.zeros(1, 2))


def test_a_length_without_degrees_of_freedom_is_refused():
    with pytest.raises(ValueError, match="dof is 0: a chi distribution has at least one degree of freedom"):
        VonMisesFisher(torch.eye(2), 3.0, dof=0)
