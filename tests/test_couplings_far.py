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


def test_a_set_and_itself_need_no_differences(monkeypatch):
    """Nothing is nearer to a point than its copy, so nothing is left to decide, be it far away or not."""
    monkeypatch.setattr(minibatch, "minus_half_squares", None)
    for offset in (0.0, 100.0):
        x1 = torch.randn(200, 8, generator=seeded(15)) + offset
        mixed = x1[torch.randperm(200, generator=seeded(16))]
        assert torch.equal(MinibatchOT()(mixed, x1)[0], x1)


def test_copies_do_not_hide_that_the_others_were_decided_by_rounding():
    """Three of four pairs are copies, so the median pair is at a distance of 0; the fourth ones are mixed up."""
    x1 = clouds(64, 1e5, 0)
    x0 = x1.clone()
    x0[::4] += 0.3 * torch.randn(16, 2, generator=seeded(17))
    x0 = x0[torch.randperm(64, generator=seeded(18))]
    best = total(x0[smallest(x0, x1)], x1)
    by_products = linear_sum_assignment(-products.inner_products(x1, x0).astype(np.float64))[1]
    assert total(x0[by_products], x1) > 2 * best
    assert total(MinibatchOT()(x0, x1)[0], x1) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("moved", [0, 1, 16])
def test_one_pair_that_moves_is_enough_to_ask_about_rounding(moved):
    x1 = torch.randn(64, 2, generator=seeded(22))
    x0 = x1.clone()
    x0[:moved] += 0.3
    assert products.rounding_decides(np.ones((1, 1)), x0, x1, np.arange(64)) is (moved > 0)


class WithoutFloat64(torch.Tensor):
    """What an Apple GPU does: float64 is refused until the numbers are on the host."""

    fetched = 0

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.Tensor.cpu:
            cls.fetched += 1
            return args[0].as_subclass(torch.Tensor)
        found = super().__torch_function__(function, types, args, kwargs or {})
        if isinstance(found, torch.Tensor) and found.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype.")
        return found


@pytest.mark.parametrize("offset", [0.0, 1e5])
@pytest.mark.parametrize("couple", [MinibatchOT(), MinibatchOT("sinkhorn", 2.0)], ids=["exact", "sinkhorn"])
def test_devices_without_float64(couple, offset, monkeypatch):
    monkeypatch.setattr(products, "WITHOUT_FLOAT64", ("cpu",))
    x0, x1 = clouds(64, offset, 0), clouds(64, offset, 1)
    with pytest.raises(TypeError, match="MPS"):
        x0.as_subclass(WithoutFloat64).double()
    expected = couple(x0, x1, generator=seeded(19))[0]
    found, _ = couple(x0.as_subclass(WithoutFloat64), x1.as_subclass(WithoutFloat64), generator=seeded(19))
    assert torch.equal(found.as_subclass(torch.Tensor), expected)


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float32), (torch.bfloat16, torch.float32)], ids=str)
def test_the_device_is_waited_for_once_to_judge_the_rounding(dtypes):
    x0, x1 = (clouds(500, 10.0, seed).to(dtype) for seed, dtype in enumerate(dtypes))
    order = smallest(x0, x1)
    median = (x0[order][::7].double() - x1[::7].double()).square().sum(dim=1).median()
    on_device = [x.as_subclass(WithoutFloat64) for x in (x0, x1)]
    for share, decides in ((0.9, False), (1.1, True)):
        gain = np.full((1, 1), share * products.ROUNDING_SHARE * float(median) / np.finfo(np.float64).eps * 2)
        before = WithoutFloat64.fetched
        assert products.rounding_decides(gain, *on_device, order) is decides
        assert WithoutFloat64.fetched == before + 1


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
    for n, message in ((2.0, "n=2.0: .*write n=2"), (-1, "n is -1: it must be at least 0")):
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


def test_a_warning_points_outside_the_package_from_any_depth(monkeypatch):
    monkeypatch.setattr(minibatch, "ITERATIONS", 2)
    gain = torch.randn(40, 40, generator=seeded(13)).numpy()
    for draw in (
        lambda: minibatch.entropic_plan(gain, 0.2),
        lambda: MinibatchOT("sinkhorn", 0.2)._draw(gain, seeded(14)),
    ):
        with pytest.warns(UserWarning, match="Sinkhorn stopped after 2 iterations") as caught:
            draw()
        assert {warning.filename for warning in caught} == {__file__}
