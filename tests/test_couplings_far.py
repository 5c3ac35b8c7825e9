"""Points far from the origin: pairs are those of the squared distances in float64, by SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from fmcore.couplings import FixedPairs, MinibatchOT, independent, minibatch, products
from fmcore.ensemble import pair
from fmcore.sources import ChiSphere
from tests.analytic import seeded


def clouds(n, offset, seed, dim=2, shares=(0.5, 0.5), dtype=torch.float32):
    """Clouds of spread 1 at -offset and offset on the first axis, in these shares, in random order."""
    g = seeded(seed)
    sides = torch.tensor([-1.0, 1.0]).repeat_interleave(torch.tensor([round(n * share) for share in shares]))
    x = torch.randn(n, dim, generator=g, dtype=dtype)
    x[:, 0] += offset * sides[torch.randperm(n, generator=g)]
    return x


def smallest(x0, x1):
    """The order of x0 with the smallest total, from differences in float64."""
    cost = np.square(x1.double().numpy()[:, None] - x0.double().numpy()[None]).sum(axis=2)
    return linear_sum_assignment(cost)[1]


def median_cost(x0, x1):
    return float((x0.double() - x1.double()).square().sum(dim=1).median())


def total(x0, x1):
    return float((x0.double() - x1.double()).square().sum())


@pytest.mark.parametrize("dim", [2, 20])
@pytest.mark.parametrize("offset", [0.0, 1e2, 1e3, 1e5, 1e6])
def test_two_clusters_in_float32(offset, dim):
    x0, x1 = clouds(64, offset, 0, dim), clouds(64, offset, 1, dim)
    expected = total(x0[smallest(x0, x1)], x1)
    assert total(MinibatchOT()(x0, x1)[0], x1) == pytest.approx(expected, rel=1e-3)
    assert total(pair(x0[None], x1[None])[0], x1) == pytest.approx(expected, rel=1e-9)


def test_two_clusters_of_other_sizes():
    """Some pairs must go across; what they cost does not hide that the others are near."""
    x0, x1 = clouds(64, 1e5, 0), clouds(64, 1e5, 1, shares=(0.375, 0.625))
    found, best = MinibatchOT()(x0, x1)[0], x0[smallest(x0, x1)]
    assert median_cost(best, x1) < 1
    assert median_cost(found, x1) < 1.2 * median_cost(best, x1)
    near = (best - x1).norm(dim=1) < 1e4
    assert int(((found - x1).norm(dim=1) < 1e4).sum()) == int(near.sum()) == 56
    assert total(found, x1) == pytest.approx(total(best, x1), rel=1e-9)


def test_clusters_in_float64_further_out_than_float32_could_tell():
    x0, x1 = clouds(40, 1e9, 0, dtype=torch.float64), clouds(40, 1e9, 1, dtype=torch.float64)
    assert total(MinibatchOT()(x0, x1)[0], x1) == pytest.approx(total(x0[smallest(x0, x1)], x1), rel=1e-5)


@pytest.mark.parametrize("batch", [16, 200])
@pytest.mark.parametrize("offset", [1e3, 1e6])
def test_one_cloud_far_away(offset, batch):
    x0, x1 = torch.randn(2, batch, 2, generator=seeded(2)) + offset
    expected = total(x0[smallest(x0, x1)], x1)
    assert total(MinibatchOT()(x0, x1)[0], x1) == pytest.approx(expected, rel=1e-3)
    assert total(pair(x0[None], x1[None])[0], x1) == pytest.approx(expected, rel=1e-9)


def test_within_classes():
    x0, x1 = clouds(60, 1e5, 3), clouds(60, 1e5, 4)
    labels = torch.arange(60) % 3
    found = MinibatchOT()(x0, x1, labels)[0]
    for label in range(3):
        a, b, c = (x[labels == label] for x in (x0, x1, found))
        best = a[smallest(a, b)]
        assert total(c, b) == pytest.approx(total(best, b), rel=1e-4)


def test_sinkhorn_draws_as_it_would_near_the_origin():
    """The same two clouds, 20 and 2e5 apart: no plan goes across, and the chances within are the same."""
    near, far = [], []
    for offset, found in ((10.0, near), (2.0**17, far)):
        for seed in range(30):
            x0, x1 = ((clouds(12, 0.0, k) * 64).round() / 64 for k in (5, 6))
            side = torch.tensor([-offset, offset]).repeat_interleave(6)
            x0[:, 0] += side
            x1[:, 0] += side
            paired = MinibatchOT("sinkhorn", 0.5)(x0, x1, generator=seeded(seed))[0]
            found.append([int((x0 == row).all(dim=1).nonzero()) for row in paired])
    assert near == far
    assert len({tuple(order) for order in near}) > 5


ORDINARY = {
    "plane": lambda g: (torch.randn(512, 2, generator=g), 3 * torch.rand(512, 2, generator=g)),
    "ring": lambda g: (ChiSphere((2,), 3072).sample(256, g), 25 + torch.randn(256, 2, generator=g)),
    "images": lambda g: (torch.randn(128, 3, 32, 32, generator=g), torch.rand(128, 3, 32, 32, generator=g) * 2 - 1),
    "bright images": lambda g: (torch.randn(64, 192, generator=g), 0.9 + 0.1 * torch.rand(64, 192, generator=g)),
    "half": lambda g: (torch.randn(64, 8, generator=g).bfloat16(), torch.randn(64, 8, generator=g).bfloat16()),
}


@pytest.mark.parametrize("draw", ORDINARY.values(), ids=ORDINARY.keys())
@pytest.mark.parametrize("couple", [MinibatchOT(), MinibatchOT("sinkhorn", 2.0)], ids=["exact", "sinkhorn"])
def test_ordinary_points_are_paired_by_products_alone(draw, couple, monkeypatch):
    """So their pairs are, to the bit, those of inner products in float32."""

    def differences(x1, x0):
        raise AssertionError("these points are near the origin")

    monkeypatch.setattr(minibatch, "minus_half_squares", differences)
    x0, x1 = draw(seeded(7))
    paired, _ = couple(x0, x1, generator=seeded(8))
    if couple.method == "exact":
        gain = products.inner_products(x1, x0)
        assert torch.equal(paired, x0[torch.from_numpy(linear_sum_assignment(-gain.astype(np.float64))[1])])


# What is given


def test_labels_in_other_containers():
    x0, x1 = torch.randn(2, 20, 3, generator=seeded(9))
    labels = torch.randint(0, 4, (20,), generator=seeded(10))
    expected = MinibatchOT()(x0, x1, labels)[0]
    for same in (labels.numpy(), labels.numpy().astype(np.uint8), labels.tolist(), labels.numpy().astype("uint16")):
        assert torch.equal(MinibatchOT()(x0, x1, same)[0], expected)
    with pytest.raises(TypeError, match="labels hold float64: pass integer classes, np.asarray"):
        MinibatchOT()(x0, x1, labels.numpy().astype(float))
    with pytest.raises(TypeError, match="labels hold <U4"):
        MinibatchOT()(x0, x1, ["cats"] * 20)
    with pytest.raises(ValueError, match=r"labels have shape \(19,\)"):
        MinibatchOT()(x0, x1, labels.numpy()[1:])


@pytest.mark.parametrize(
    "couple", [independent, MinibatchOT(), MinibatchOT("sinkhorn", 1.0)], ids=["independent", "exact", "sinkhorn"]
)
@pytest.mark.parametrize("labels", [None, torch.zeros(0, dtype=torch.int64), []], ids=["none", "tensor", "list"])
def test_an_empty_batch_comes_back(couple, labels):
    x0, x1 = couple(torch.zeros(0, 3, 2), torch.ones(0, 3, 2), labels)
    assert x0.shape == x1.shape == (0, 3, 2)


@pytest.mark.parametrize("generator", [3, np.random.default_rng(0)], ids=["int", "numpy"])
def test_what_is_no_generator_is_named(generator):
    x = torch.randn(4, 2, generator=seeded(11))
    for couple in (independent, MinibatchOT(), MinibatchOT("sinkhorn", 1.0)):
        with pytest.raises(TypeError, match="generator is .*pass a torch.Generator"):
            couple(x, x, generator=generator)
    with pytest.raises(TypeError, match="generator is .*pass a torch.Generator"):
        FixedPairs(x, x).sample(2, generator)


def test_a_number_of_pairs_is_a_whole_number():
    pairs = FixedPairs(torch.zeros(4, 2), torch.zeros(4, 2))
    assert pairs.sample(0)[0].shape == (0, 2)
    for n, message in ((2.0, "n=2.0: .*write n=2"), (-1, "n=-1: a number of samples is at least 0")):
        with pytest.raises(ValueError, match=message):
            pairs.sample(n)


def test_batches_that_cannot_be_paired_say_why():
    x = torch.randn(3, 4, 2, generator=seeded(12))
    bad = x.clone()
    bad[1, 2, 0] = float("nan")
    with pytest.raises(ValueError, match="x1 has NaN or infinite values in 1 of 3"):
        pair(x, bad)
    with pytest.raises(TypeError, match="x0 holds torch.uint8: scale it"):
        pair(x.to(torch.uint8), x.to(torch.uint8))
    assert pair(x[:, :0], x[:, :0]).shape == (3, 0, 2)
    assert pair(x[:0], x[:0]).shape == (0, 4, 2)


def test_a_warning_points_at_the_line_that_asked_for_the_pairs(monkeypatch):
    """Where Sinkhorn is stopped early."""
    monkeypatch.setattr(minibatch, "ITERATIONS", 2)
    x0, x1 = torch.randn(2, 40, 2, generator=seeded(13))
    with pytest.warns(UserWarning, match="Sinkhorn stopped after 2 iterations") as caught:
        MinibatchOT("sinkhorn", 0.2)(x0, x1, generator=seeded(14))
    assert caught[0].filename == __file__
