"""Pruned sampling against plain rejection, where that is feasible, and axes against scikit-learn's PCA."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.decomposition import PCA

from fmcore.sources import ChiSphere, Gaussian, Pruned, PruningAxes, pruning_axes
from tests.analytic import seeded

DIM = 16


def some_axes(kept=0.6):
    axes = torch.linalg.qr(torch.randn(DIM, DIM, generator=seeded(0), dtype=torch.float64)).Q.float()
    chance = torch.rand(2, DIM, generator=seeded(1))
    return PruningAxes(axes, chance[0] > kept, chance[1] > kept + 0.1)


def rejection(axes, threshold, n, source):
    found = []
    generator = seeded(2)
    while sum(map(len, found)) < n:
        x = source.sample(200_000, generator)
        cosines = (x / x.norm(dim=1, keepdim=True)) @ axes.axes.T
        worst = torch.cat([cosines[:, axes.positive], -cosines[:, axes.negative]], dim=1).amax(dim=1)
        found.append(x[worst <= threshold])
    return torch.cat(found)[:n]


@pytest.mark.parametrize("source", [Gaussian((DIM,), std=2.0), ChiSphere((4, 4), dof=50)], ids=["gaussian", "chi"])
@pytest.mark.parametrize("threshold", [0.25, 0.45])
def test_the_distribution_is_that_of_plain_rejection(source, threshold):
    axes = some_axes()
    flat = Gaussian((DIM,), 2.0) if isinstance(source, Gaussian) else ChiSphere((DIM,), 50)
    ours = Pruned(source, axes, threshold).sample(12_000, seeded(3)).flatten(1)
    plain = rejection(axes, threshold, 12_000, flat)
    level = 1e-3 / (2 * DIM + 2)
    along = [((x @ axes.axes.T)[:, k].numpy() for x in (ours, plain)) for k in range(DIM)]
    assert min(stats.ks_2samp(*pair).pvalue for pair in along) > level
    norms = [x.norm(dim=1).numpy() for x in (ours, plain)]
    assert stats.ks_2samp(*norms).pvalue > level
    assert stats.ks_2samp(*(axes.largest_cosine(x).numpy() for x in (ours, plain))).pvalue > level
    # length and worst cosine stay independent, as in the source
    assert abs(np.corrcoef(ours.norm(dim=1).numpy(), axes.largest_cosine(ours).numpy())[0, 1]) < 0.04
    difference = (torch.cov(ours.T) - torch.cov(plain.T)).abs().max() / torch.cov(plain.T).diagonal().max()
    assert difference < 0.06


def test_the_bound_does_not_change_the_distribution():
    axes = some_axes()
    chosen = Pruned(Gaussian((DIM,)), axes, 0.4)
    loose = Pruned(Gaussian((DIM,)), axes, 0.4)
    object.__setattr__(loose, "bound", 1.6 * chosen.bound)
    x, few = chosen.sample_counted(8000, seeded(4))
    y, many = loose.sample_counted(8000, seeded(5))
    assert few < many
    assert min(stats.ks_2samp(x[:, k].numpy(), y[:, k].numpy()).pvalue for k in range(DIM)) > 1e-3 / DIM


def test_the_share_of_kept_directions():
    axes = some_axes()
    x = torch.randn(400_000, DIM, generator=seeded(6))
    truth = float((axes.largest_cosine(x) <= 0.4).float().mean())
    assert Pruned(Gaussian((DIM,)), axes, 0.4).share_kept(40_000, seeded(7)) == pytest.approx(truth, rel=0.05)


def test_in_many_dimensions_a_thousand_times_fewer_proposals():
    """2,000 rejected axes of 3,072: plain rejection would need more than the thousandfold."""
    dim = 3072
    axes = PruningAxes(torch.eye(dim)[:2000], torch.ones(2000, dtype=torch.bool), torch.zeros(2000, dtype=torch.bool))
    source = Pruned(Gaussian((dim,)), axes, 0.048)
    x, proposals = source.sample_counted(64, seeded(8))
    assert bool(source.contains(x).all())
    share = source.share_kept(1000, seeded(9))
    assert proposals / 64 < 1 / (1000 * share)
    assert float(x.norm(dim=1).mean()) == pytest.approx(55.42, abs=0.4)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.9])
def test_where_hardly_anything_is_rejected_hardly_a_proposal_is_lost(threshold):
    ends = torch.ones(192, dtype=torch.bool)
    loose = Pruned(Gaussian((192,)), PruningAxes(torch.eye(192), ends, ends), threshold)
    noise = Gaussian((192,)).sample(20_000, seeded(6))
    kept = float(loose.contains(noise).double().mean())
    proposals = loose.sample_counted(2000, seeded(7))[1]
    assert 2000 / proposals > 0.97 * kept
    assert loose.share_kept(4000, seeded(8)) == pytest.approx(kept, abs=0.02)


def test_axes_are_principal_and_rejected_where_no_data_are():
    images = torch.randn(300, 1, 4, 4, generator=seeded(10)).abs() * torch.linspace(0.2, 2, 16).view(1, 1, 4, 4)
    found = pruning_axes(images, tau=0.05, flips=True, chunk=64)
    both = torch.cat([images, images.flip(-1)]).flatten(1)
    directions = (both / both.norm(dim=1, keepdim=True)).numpy()
    truth = PCA().fit(directions).components_
    assert np.allclose(np.abs((found.axes.numpy() * truth).sum(axis=1)), 1, atol=1e-3)
    cosines = directions @ found.axes.numpy().T
    assert np.array_equal(found.positive.numpy(), cosines.max(axis=0) <= 0.05)
    assert np.array_equal(found.negative.numpy(), -cosines.min(axis=0) <= 0.05)
    assert found.count >= 1  # the mean image is far from one end of the first axis, at least
    whole = (127 * images.clamp(0, 2)).to(torch.uint8) + 1
    scaled = pruning_axes(whole, 0.05, flips=True, scale=lambda part: part.float())
    assert torch.allclose(scaled.largest, pruning_axes(whole.float(), 0.05, flips=True).largest)


def test_an_empty_region_is_an_error():
    everything = torch.ones(DIM, dtype=torch.bool)
    axes = PruningAxes(torch.eye(DIM), everything, everything)
    with pytest.raises(RuntimeError, match="hardly any direction is left. Raise the threshold"):
        Pruned(Gaussian((DIM,)), axes, 0.2501).sample(1, seeded(11))  # 1 / sqrt(16) = .25 is the least possible


def test_wrong_arguments():
    axes = some_axes()
    with pytest.raises(ValueError, match="it is a cosine, above 0 and at most 1"):
        Pruned(Gaussian((DIM,)), axes, 0)
    with pytest.raises(ValueError, match="the axes have 16 dimensions, samples of the source have 3"):
        Pruned(Gaussian((3,)), axes, 0.1)
    with pytest.raises(ValueError, match="orthonormal rows"):
        PruningAxes(torch.ones(2, 3), torch.ones(2).bool(), torch.ones(2).bool())
    with pytest.raises(ValueError, match="as many booleans"):
        PruningAxes(torch.eye(3), torch.ones(2).bool(), torch.ones(3).bool())
    with pytest.raises(ValueError, match="at least two points"):
        pruning_axes(torch.ones(1, 1, 2, 2), 0.1)
    with pytest.raises(ValueError, match="length 0"):
        pruning_axes(torch.zeros(3, 1, 2, 2), 0.1)
    with pytest.raises(ValueError, match="as many booleans"):
        PruningAxes(torch.eye(3), torch.ones(3), torch.ones(3))
    with pytest.raises(ValueError, match="tau is 1.5: it is a cosine"):
        pruning_axes(torch.eye(3), 1.5)
    with pytest.raises(ValueError, match="chunk is 0"):
        pruning_axes(torch.eye(3), 0.5, chunk=0)
    with pytest.raises(ValueError, match=r"flips=True needs images \(n, C, H, W\)"):
        pruning_axes(torch.eye(3), 0.5, flips=True)
    with pytest.raises(ValueError, match="length infinity: scale the data"):
        pruning_axes(torch.full((3, 4), 3e38), 0.5)
    with pytest.raises(ValueError, match=r"chunk=2\.5: a number of points is a whole number"):
        pruning_axes(torch.eye(3), 0.5, chunk=2.5)
    with pytest.raises(ValueError, match="proposals is 0"):
        Pruned(Gaussian((DIM,)), axes, 0.4).share_kept(0)
    with pytest.raises(ValueError, match=r"^proposals=2\.5: a number of proposals is a whole number"):
        Pruned(Gaussian((DIM,)), axes, 0.4).share_kept(2.5)


def test_the_share_is_estimated_where_the_generator_draws(monkeypatch):
    """PyTorch refuses a generator of another device than that of the numbers; the CPU's own stands for all here."""
    devices, proposals = [], Pruned._proposals

    def watched(self, axes, remaining, size, generator, device):
        devices.append(device)
        return proposals(self, axes, remaining, size, generator, device)

    source = Pruned(Gaussian((DIM,)), some_axes(), 0.4)
    expected = source.share_kept(500, seeded(13))
    monkeypatch.setattr(Pruned, "_proposals", watched)
    assert source.share_kept(500, seeded(13)) == expected
    source.share_kept(500)
    assert devices == [torch.device("cpu"), None]


def test_mirror_images_are_counted_only_on_request():
    """A point on the first axis: its mirror image is on the other."""
    data = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, -0.1]])
    found = pruning_axes(data, 0.5)
    for x in (data, data.view(3, 1, 1, 2)):
        plain = pruning_axes(x, 0.5)
        directions = data / data.norm(dim=1, keepdim=True)
        cosines = directions @ plain.axes.T
        assert torch.allclose(plain.largest, torch.stack([cosines.amax(0), -cosines.amin(0)], dim=1))
        assert torch.equal(plain.largest, found.largest)
    both = pruning_axes(data.view(3, 1, 1, 2), 0.5, flips=True)
    assert not torch.allclose(both.largest, found.largest, atol=0.1)


def test_data_in_float64_have_axes_in_float64():
    data = torch.randn(60, 5, generator=seeded(12), dtype=torch.float64) + 1
    found = pruning_axes(data, 0.3)
    assert found.axes.dtype == found.largest.dtype == torch.float64
    directions = (data / data.norm(dim=1, keepdim=True)).numpy()
    assert np.allclose(np.abs((found.axes.numpy() * PCA().fit(directions).components_).sum(axis=1)), 1, atol=1e-9)
    single = pruning_axes(data.float(), 0.3)
    assert single.axes.dtype == torch.float32
    assert torch.equal(single.positive | single.negative, found.positive | found.negative)
    half = pruning_axes(data.bfloat16(), 0.3)
    assert torch.equal(half.axes, pruning_axes(data.bfloat16().float(), 0.3).axes)


def test_nothing_to_prune_is_said_when_the_source_is_made():
    """With the least tau that helps, where the axes were measured; the ones found and the ones made by hand agree."""
    none = torch.zeros(3, dtype=torch.bool)
    by_hand = PruningAxes(torch.eye(3), none, none)
    assert by_hand.count == by_hand.rejected().count == len(by_hand.rejected().axes) == 0
    assert by_hand.largest_cosine(torch.ones(2, 3)).tolist() == [-1, -1]
    for axes in (by_hand, by_hand.rejected()):
        with pytest.raises(ValueError, match="nothing to prune: no end of .* is rejected; raise tau, or sample"):
            Pruned(Gaussian((3,)), axes, 0.5)
    data = torch.randn(200, 3, generator=seeded(13)) + torch.tensor([0.5, 0.0, 0.0])
    with pytest.raises(ValueError, match="nothing to prune: .* raise tau to [.0-9]+ or more, or sample") as error:
        Pruned(Gaussian((3,)), pruning_axes(data, 0.1), 0.5)
    tau = float(str(error.value).split("raise tau to ")[1].split(" ")[0])
    assert pruning_axes(data, tau).count >= 1
    assert pruning_axes(data, tau - 2e-4).count == 0
    assert Pruned(Gaussian((3,)), pruning_axes(data, tau), 0.99).sample(4, seeded(14)).shape == (4, 3)
