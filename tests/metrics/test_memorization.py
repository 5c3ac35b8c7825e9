"""The nearest training images: against scikit-learn's brute force, planted copies, and distances known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors
from torch.testing import assert_close

from fmcore import data
from fmcore.data.images import scale
from fmcore.data.mapped import map_images
from fmcore.metrics import Nearest, memorization, nearest_training_images
from tests.analytic import modest, seeded


def brute_force(images, train):
    """Distances and rows of the two nearest, by scikit-learn in float64."""
    images, train = images.double().flatten(1).numpy(), train.double().flatten(1).numpy()
    return NearestNeighbors(n_neighbors=2, algorithm="brute").fit(train).kneighbors(images)


@modest
@given(
    n=st.integers(2, 40),
    batch=st.integers(1, 5),
    shape=st.sampled_from([(1,), (2,), (1, 3, 3)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_equals_brute_force(n, batch, shape, dtype):
    g = seeded(n)
    train, images = (torch.randn(k, *shape, generator=g).to(dtype) for k in (n, batch))
    found = nearest_training_images(images, train)
    distance, row = brute_force(images, train)
    assert_close(found.distance, torch.from_numpy(distance), rtol=1e-6, atol=1e-7)
    assert (found.row.numpy() == row).all()
    assert_close(found.ratio, torch.from_numpy(distance[:, 0] / distance[:, 1]), rtol=1e-6, atol=1e-7)


def test_equals_brute_force_on_images_in_pieces(monkeypatch):
    """In many chunks of training images, blocks of images and pieces of candidates, none of which divide evenly."""
    digits = data.by_name("digits")
    train, images = digits.scaled(digits.train), digits.scaled(digits.held_out)
    distance, row = brute_force(images, train)
    for block, piece, chunk in ((2**22, 2**20, 2**14), (1000, 700, 90), (100, 1, 64)):
        monkeypatch.setattr(memorization, "BLOCK", block)
        monkeypatch.setattr(memorization, "PIECE", piece)
        monkeypatch.setattr(memorization, "CHUNK", chunk)
        found = nearest_training_images(images, train)
        assert_close(found.distance, torch.from_numpy(distance), rtol=1e-7, atol=1e-7)
        same = np.isclose(distance[:, 0], distance[:, 1])  # either may be called the nearest
        assert (found.row.numpy() == row)[~same].all()


def test_whole_numbers_are_scaled_chunk_by_chunk(tmp_path, monkeypatch):
    digits = data.by_name("digits")
    (tmp_path / "train.pixels").write_bytes(digits.train.numpy().tobytes())
    mapped = map_images(tmp_path / "train.pixels", tuple(digits.train.shape))
    expected = nearest_training_images(digits.scaled(digits.held_out), digits.scaled(digits.train))
    sizes = []

    def scaled(images):
        sizes.append(len(images))
        return digits.scaled(images)

    monkeypatch.setattr(memorization, "CHUNK", 256)
    for images in (digits.held_out, digits.scaled(digits.held_out)):
        found = nearest_training_images(images, mapped, scaled)
        assert torch.equal(found.distance, expected.distance)
    assert len(digits.train) not in sizes


def planted(seed, n=300, dim=500, offset=0.0):
    g = seeded(seed)
    return offset + torch.rand(n, dim, generator=g) * 2 - 1, g


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_an_exact_copy_is_at_distance_zero_and_near_copies_at_theirs(offset):
    """Where one product of float32 would return its rounding: about 0.01 here, and 1 far from the origin."""
    train, g = planted(0, offset=offset)
    images, moves = train[:50].clone(), torch.logspace(-4, 0, 40, dtype=torch.float64)
    for i, move in enumerate(moves):
        direction = torch.randn(500, generator=g, dtype=torch.float64)
        images[i] = (train[i].double() + move * direction / direction.norm()).float()
    found = nearest_training_images(images, train)
    assert (found.row[:, 0] == torch.arange(50)).all()
    assert (found.distance[40:, 0] == 0).all()
    assert (found.ratio[40:] == 0).all()
    truth = (images.double() - train[:50].double()).norm(dim=1)
    assert_close(found.distance[:, 0], truth, rtol=1e-12, atol=0)
    naive = torch.cdist(images, train).min(dim=1).values.double()
    assert (naive - truth).abs().max() > 1e-3
    if offset == 0:
        assert_close(truth[:40], moves, rtol=1e-2, atol=1e-4)


def test_crowds_of_almost_equal_images_do_not_hide_the_nearest():
    """More of them than are kept as candidates, and nearer to each other than float32 products can tell."""
    g = seeded(1)
    centre = 10 * torch.randn(200, generator=g)
    train = torch.cat([centre + 1e-3 * torch.randn(100, 200, generator=g), torch.randn(100, 200, generator=g)])
    images = centre + 1e-3 * torch.randn(20, 200, generator=g)
    found = nearest_training_images(images, train)
    truth = torch.cdist(images.double(), train.double(), compute_mode="donot_use_mm_for_euclid_dist")
    truth, order = truth.sort(dim=1)
    assert_close(found.distance, truth[:, :2], rtol=1e-9, atol=0)
    assert torch.equal(found.row, order[:, :2])
    naive = (train.square().sum(dim=1) - 2 * images @ train.T).argmin(dim=1)
    assert (naive != order[:, 0]).float().mean() > 0.5


def test_a_copy_of_an_image_held_twice_is_a_copy():
    train, _ = planted(2, n=20)
    train[7] = train[3]
    found = nearest_training_images(train[3:4].clone(), train)
    assert sorted(found.row[0].tolist()) == [3, 7]
    assert found.distance.tolist() == [[0, 0]]
    assert found.ratio.tolist() == [0]
    assert found.share_of_copies() == 1
    everything_equal = nearest_training_images(train[:1], train[:1].expand(50, -1))
    assert everything_equal.distance.tolist() == [[0, 0]]


def test_the_share_of_copies_is_counted_below_a_third():
    """On a line with training points at 0 and 4: at x the ratio is x / (4 - x), a third at 1."""
    train = torch.tensor([[0.0], [4.0]])
    images = torch.tensor([[0.0], [0.5], [0.99], [1.0], [1.01], [1.9], [2.5], [3.5]])
    found = nearest_training_images(images, train)
    assert_close(found.ratio[:6], (images / (4 - images)).double().squeeze(1)[:6], rtol=1e-6, atol=0)
    assert found.share_of_copies() == 4 / 8  # 0, 0.5, 0.99 and 3.5; at exactly a third it is none
    assert found.share_of_copies(0.2) == 3 / 8
    assert found.share_of_copies(1) == 1


def test_memorized_and_held_out_images_are_told_apart():
    digits = data.by_name("digits")
    train = digits.scaled(digits.train)
    noisy = train[:200] + 0.05 * torch.randn(200, 1, 8, 8, generator=seeded(3))
    assert nearest_training_images(noisy, train).share_of_copies() > 0.95
    assert nearest_training_images(digits.scaled(digits.held_out), train).share_of_copies() < 0.05


def test_only_the_images_that_are_given_are_searched():
    """A part of the training split, of which the others are no copies, and nor are mirror images."""
    digits = data.by_name("digits")
    given = digits.train[:100]
    images = torch.cat([given[:5], digits.train[100:110], given[5:9].flip(-1)])
    distance, row = brute_force(digits.scaled(images), digits.scaled(given))
    found = nearest_training_images(images, given, digits.scaled)
    assert_close(found.distance, torch.from_numpy(distance), rtol=1e-6, atol=1e-6)
    assert (found.row[:, 0].numpy() == row[:, 0]).all()
    assert (found.distance[:5, 0] == 0).all()
    assert (found.distance[5:, 0] > 0.5).all()
    assert found.share_of_copies() == pytest.approx((distance[:, 0] < distance[:, 1] / 3).mean())
    everything = nearest_training_images(images, torch.cat([given, given.flip(-1)]), digits.scaled)
    assert (everything.distance[-4:, 0] == 0).all()
    assert everything.share_of_copies() > found.share_of_copies()


def test_no_block_holds_all_distances():
    """2,000 images among 20,000: 40 million distances, in blocks of 4 million."""
    from torch.utils._python_dispatch import TorchDispatchMode

    sizes = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for made in result if isinstance(result, (tuple, list)) else [result]:
                if isinstance(made, torch.Tensor):
                    sizes.append(made.numel())
            return result

    g = seeded(4)
    train, images = torch.randn(20_000, 3, generator=g), torch.randn(2_000, 3, generator=g)
    with Sizes():
        nearest_training_images(images, train)
    assert max(sizes) <= memorization.BLOCK


def test_autocast_and_tf32_do_not_reach_the_products():
    train, g = planted(5)
    images = train[:20] + 0.01 * torch.randn(20, 500, generator=g)
    expected = nearest_training_images(images, train)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            found = nearest_training_images(images, train)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(found.distance, expected.distance)


# Bad input


def test_one_training_image_has_a_nearest_but_no_ratio():
    found = nearest_training_images(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2))
    assert found.distance.tolist() == [[5, float("inf")]]
    assert found.row.tolist() == [[0, -1]]
    with pytest.raises(ValueError, match="at least two training images"):
        found.share_of_copies()


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.1, float("nan")])
def test_thresholds_outside_zero_and_one_are_refused(threshold):
    found = Nearest(torch.tensor([[1.0, 2.0]]), torch.tensor([[0, 1]]))
    with pytest.raises(ValueError, match="threshold is"):
        found.share_of_copies(threshold)


def test_bad_images_are_refused():
    good, whole = torch.zeros(3, 1, 2, 2), torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(ValueError, match="images have shape \\(1, 2, 1\\), training images \\(1, 2, 2\\)"):
        nearest_training_images(good[..., :1], good)
    for images, train, name in (
        (good[:0], good, "images"),
        (good, good[:0], "train"),
        (torch.zeros(3), good, "images"),
    ):
        with pytest.raises(ValueError, match=f"{name} has shape .*at least one"):
            nearest_training_images(images, train)
    with pytest.raises(TypeError, match=r"train holds torch\.uint8: pass scale"):
        nearest_training_images(good, whole)
    with pytest.raises(ValueError, match="expected pixels in 0..15"):
        nearest_training_images(whole + 20, whole, lambda images: scale(images, 16))
    for position, name in ((0, "images"), (1, "train")):
        bad = [good.clone(), good.clone()]
        bad[position][1, 0, 0, 1] = float("nan")
        with pytest.raises(ValueError, match=f"{name}.* has NaN or infinite values in 1 of 3"):
            nearest_training_images(*bad)
