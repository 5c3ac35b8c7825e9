"""The nearest of a few noise samples: against a loop in float64; what that does to the source, by order statistics.

Where the nearest of k draws can be told from one number of each, its mean is that of the largest or smallest of k.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from fmcore.couplings import MinibatchOT, NearestNoise, nearest, prefetch_pairs
from tests.analytic import modest, seeded
from tests.test_couplings_far import clouds


def squared(x0, x1):
    """||x0_i - x1_i||^2 in float64, (B,)."""
    return (x0.double() - x1.double()).square().reshape(len(x0), -1).sum(dim=1)


def by_loop(x0, x1, candidates, labels=None):
    """Which row each x1 takes, one distance at a time: its own, then the next of its class, round and round."""
    x0, x1 = (x.double().reshape(len(x), -1).numpy() for x in (x0, x1))
    labels = [0] * len(x1) if labels is None else [int(label) for label in labels]
    chosen = []
    for i in range(len(x1)):
        after = [*range(i, len(x1)), *range(i)]
        offered = [j for j in after if labels[j] == labels[i]][:candidates]
        chosen.append(min(offered, key=lambda j: sum((x0[j] - x1[i]) ** 2)))
    return chosen


@modest
@given(
    n=st.integers(1, 9),
    shape=st.sampled_from([(), (1,), (2,), (3, 2), (1, 2, 2)]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    candidates=st.integers(1, 12),
    classes=st.sampled_from([0, 1, 2, 4]),
    seed=st.integers(0, 999),
)
def test_as_by_a_loop(n, shape, dtype, candidates, classes, seed):
    g = seeded(seed)
    x0, x1 = (torch.randn(n, *shape, generator=g).to(dtype) for _ in range(2))
    labels = torch.randint(0, classes, (n,), generator=g) if classes else None
    found, data = NearestNoise(candidates)(x0, x1, labels)
    assert data is x1
    assert found.dtype == dtype
    expected = squared(x0[by_loop(x0, x1, candidates, labels)], x1)
    assert torch.allclose(squared(found, x1), expected, rtol=1e-5, atol=0)  # of two as near, rounding may take either


@pytest.mark.parametrize("block", [1, 700, 10**9])
def test_the_size_of_blocks_changes_nothing(block, monkeypatch):
    x0, x1 = torch.randn(2, 30, 3, 8, 8, generator=seeded(1))
    monkeypatch.setattr(nearest, "BLOCK", block)
    assert torch.equal(NearestNoise(5)(x0, x1)[0], x0[by_loop(x0, x1, 5)])


def test_never_farther_than_its_own_and_nearer_with_more():
    x0, x1 = torch.randn(2, 200, 8, generator=seeded(2))
    before = squared(x0, x1)
    for candidates in (1, 2, 3, 8, 200):
        found = squared(NearestNoise(candidates)(x0, x1)[0], x1)
        assert (found <= before).all()
        assert (found.sum() < before.sum()) == (candidates > 1)
        before = found


def test_one_candidate_is_independent():
    x0, x1 = torch.randn(2, 10, 2, generator=seeded(3))
    assert torch.equal(NearestNoise(1)(x0, x1)[0], x0)


def test_more_candidates_than_rows_are_all_rows_and_below_every_permutation():
    """Few candidates stay above the best permutation here; all of them, taken as often as they please, lie below it."""
    x0, x1 = torch.randn(2, 256, 2, generator=seeded(4))
    exact = float(squared(MinibatchOT()(x0, x1)[0], x1).sum())
    few, whole, more = (NearestNoise(k)(x0, x1)[0] for k in (4, 256, 10**9))
    assert torch.equal(whole, more)
    assert torch.equal(whole, x0[torch.cdist(x1.double(), x0.double()).argmin(dim=1)])
    assert float(squared(whole, x1).sum()) < exact < float(squared(few, x1).sum()) < float(squared(x0, x1).sum())


def test_each_row_is_offered_to_as_many_as_there_are_candidates():
    groups = [np.array([0, 3, 4, 7, 8]), np.array([1, 2, 5, 6])]
    table = nearest.candidate_rows(groups, 3)
    assert table.shape == (3, 9)
    assert (np.bincount(table.ravel()) == 3).all()
    assert table[:, 7].tolist() == [7, 8, 0]
    assert table[:, 6].tolist() == [6, 1, 2]
    small = nearest.candidate_rows([np.array([0, 2]), np.array([1, 3, 4])], 10)
    assert [sorted(set(small[:, i])) for i in range(5)] == [[0, 2], [1, 3, 4], [0, 2], [1, 3, 4], [1, 3, 4]]
    assert small.shape == (3, 5)


# What happens to the source


@pytest.mark.parametrize("k", [1, 2, 4])
def test_data_at_the_origin_leave_a_kth_of_the_squared_norm(k):
    """||x0||^2 in the plane is exponential with mean 2, the smallest of k such has mean and deviation 2 / k."""
    n = 40_000
    x0 = torch.randn(n, 2, generator=seeded(5))
    norms = NearestNoise(k)(x0, torch.zeros(n, 2))[0].square().sum(dim=1).double()
    assert float(norms.mean()) == pytest.approx(2 / k, abs=5 * (2 / k) * (k / n) ** 0.5)


def largest_of(k):
    """E of the largest of k normal variables, whose distribution function is F^k: 1.03 for k = 4."""
    return float(quad(lambda z: 1 - norm.cdf(z) ** k - norm.cdf(-z) ** k, 0, 12)[0])


@pytest.mark.parametrize("labelled", [False, True])
def test_each_class_is_tilted_towards_its_own_data_with_labels_and_without(labelled):
    """Data far out on one side: nearest is who lies farthest on that side, on average 1.03 of 4 draws."""
    n, g = 20_000, seeded(6)
    labels = torch.randint(0, 2, (n,), generator=g)
    x1 = torch.tensor([[-1e3, 0.0], [1e3, 0.0]])[labels]
    found, _ = NearestNoise(4)(torch.randn(n, 2, generator=g), x1, labels if labelled else None)
    for label, side in ((0, -1), (1, 1)):
        mine = found[labels == label].double()
        assert float(mine[:, 0].mean()) == pytest.approx(side * largest_of(4), abs=0.03)
        assert float(mine[:, 1].mean()) == pytest.approx(0, abs=0.05)
    exact, _ = MinibatchOT()(torch.randn(500, 2, generator=g), x1[:500], labels[:500])
    assert abs(float(exact[labels[:500] == 1, 0].mean())) < 0.3


def test_images_are_given_short_noise_more_than_near_noise():
    """The fall of the squared distance, its two parts, and the one that a permutation cannot have.

    ||x0||^2 - 2 <x0, x1> is close to normal, of variance 2 d + 4 E||x1||^2 = 3 d: the smallest of k is largest_of(k)
    deviations below the mean, and by regression 2 d of 3 d of that are the norm's.
    """
    n, d, g = 1024, 3072, seeded(7)
    x0, x1 = torch.randn(n, d, generator=g), 0.5 * torch.randn(n, d, generator=g)
    found, _ = NearestNoise(4)(x0, x1)
    fall = largest_of(4) * (3 * d) ** 0.5
    shorter = float(x0.square().sum(dim=1).mean() - found.square().sum(dim=1).mean())
    nearer = 2 * float(((found - x0) * x1).sum(dim=1).mean())
    assert shorter == pytest.approx(fall * 2 / 3, rel=0.1)
    assert nearer == pytest.approx(fall / 3, rel=0.15)
    assert shorter / d == pytest.approx(0.021, abs=0.002)
    permuted, _ = MinibatchOT()(x0[:64], x1[:64])
    assert float(permuted.square().sum()) == pytest.approx(float(x0[:64].square().sum()), rel=1e-6)


# Far points, precision, graph


@pytest.mark.parametrize("dim", [2, 20])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_two_clusters_in_float32(offset, dim):
    x0, x1 = clouds(64, offset, 8, dim), clouds(64, offset, 9, dim)
    best = squared(x0[by_loop(x0, x1, 6)], x1)
    assert torch.allclose(squared(NearestNoise(6)(x0, x1)[0], x1), best, rtol=1e-5)
    assert int((best < 1e3).sum()) > 55  # inner products in float32 could not tell these from one another


def test_clusters_in_float64_further_out_than_float32_could_tell():
    x0, x1 = clouds(40, 1e9, 8, dtype=torch.float64), clouds(40, 1e9, 9, dtype=torch.float64)
    assert torch.equal(NearestNoise(6)(x0, x1)[0], x0[by_loop(x0, x1, 6)])


def test_autocast_changes_nothing():
    x0, x1 = torch.randn(2, 100, 64, generator=seeded(10))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = NearestNoise()(x0, x1)
    assert torch.equal(found, x0[by_loop(x0, x1, 4)])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_points_of_low_precision_are_compared_in_float32(dtype):
    x0, x1 = torch.randn(2, 200, 64, generator=seeded(15)).to(dtype)
    assert torch.equal(NearestNoise(8)(x0, x1)[0], x0[by_loop(x0, x1, 8)])


def test_of_equally_near_rows_the_first_is_taken():
    x0 = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    assert torch.equal(NearestNoise(4)(x0, torch.zeros(4, 1))[0], x0)


def test_a_row_that_is_taken_twice_gets_the_gradient_of_both_and_inputs_stay():
    x0 = torch.tensor([[5.0], [0.0], [9.0]], requires_grad=True)
    x1 = torch.tensor([[0.1], [-0.1], [9.0]])
    kept, data = x0.detach().clone(), x1.clone()
    found, _ = NearestNoise(3)(x0, x1)
    assert found.flatten().tolist() == [0, 0, 9]
    found.sum().backward()
    assert x0.grad.flatten().tolist() == [0, 2, 1]
    assert torch.equal(x0.detach(), kept)
    assert torch.equal(x1, data)


def test_nothing_is_drawn_and_a_thread_gives_the_same():
    x0, x1 = torch.randn(2, 50, 3, generator=seeded(11))
    before, generator = torch.random.get_rng_state(), seeded(12)
    state = generator.get_state()
    first = NearestNoise()(x0, x1, generator=generator)[0]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(generator.get_state(), state)
    for found, _ in prefetch_pairs(lambda step: NearestNoise()(x0, x1, generator=seeded(step)), range(3)):
        assert torch.equal(found, first)


@pytest.mark.parametrize("kind", [list, np.array, lambda labels: torch.tensor(labels, dtype=torch.uint8)])
def test_labels_of_any_kind(kind):
    x0, x1 = torch.randn(2, 9, 2, generator=seeded(13))
    labels = [7, 0, 7, 7, 0, 0, 7, 0, 7]
    assert torch.equal(NearestNoise(3)(x0, x1, kind(labels))[0], x0[by_loop(x0, x1, 3, labels)])
    assert torch.equal(NearestNoise(3)(x0, x1, list(range(9)))[0], x0)


# What is refused


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        (0, "candidates is 0: it must be at least 1"),
        (-3, "candidates is -3: it must be at least 1"),
        (4.0, "candidates=4.0: a number of candidates is a whole number, write candidates=4"),
        (True, "candidates=True: a number of candidates is a whole number"),
        (None, "candidates=None: a number of candidates is a whole number"),
    ],
)
def test_candidates_that_cannot_be_counted(candidates, message):
    with pytest.raises(ValueError, match=message):
        NearestNoise(candidates)


@pytest.mark.parametrize("candidates", [1, 3])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("which", [0, 1])
def test_values_that_are_not_finite_are_refused_by_name(which, bad, candidates):
    pair = [x.clone() for x in torch.randn(2, 4, 2, generator=seeded(14))]
    pair[which][2, 0] = bad
    with pytest.raises(ValueError, match=rf"x{which} has NaN or infinite values in 1 of 4 .*number 2"):
        NearestNoise(candidates)(*pair)


def test_pairs_labels_and_generators_that_do_not_fit_are_refused():
    x, couple = torch.zeros(4, 2), NearestNoise()
    with pytest.raises(ValueError, match="x0 has shape"):
        couple(x, x[:3])
    with pytest.raises(TypeError, match="x1 holds torch.uint8"):
        couple(x, x.byte())
    with pytest.raises(ValueError, match=r"labels have shape \(3,\)"):
        couple(x, x, [0, 1, 2])
    with pytest.raises(TypeError, match="labels hold torch.float32"):
        couple(x, x, torch.zeros(4))
    with pytest.raises(TypeError, match="generator is 5"):
        couple(x, x, generator=5)
    with pytest.raises(ValueError, match="squared distances of x0 and x1 overflow"):
        couple(x, x + 1e30)


def test_an_empty_batch_comes_back():
    x = torch.zeros(0, 3)
    for labels in (None, []):
        found, data = NearestNoise()(x, x, labels)
        assert found.shape == data.shape == (0, 3)
