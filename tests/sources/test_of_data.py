"""Sources made from data: mixtures, masked frequencies, aligned lengths, and the samples of a flow."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.fft import dctn

from fmcore import sources
from fmcore.sources import DCT, FlowSource, Gaussian, GaussianMixture, NormAligned
from fmcore.sources.cosine_transform import block_coefficients, from_block_coefficients
from tests.analytic import seeded


def two_clouds(n=2000):
    rows = torch.arange(n) % 4 == 0
    return torch.where(rows[:, None], torch.tensor([4.0, 1.0]), torch.tensor([-2.0, 0.0])) + 0.5 * torch.randn(
        n, 2, generator=seeded(0)
    )


def test_a_mixture_has_the_moments_of_its_data_and_the_density_of_scikit_learn():
    from sklearn.mixture import GaussianMixture as Fit

    data = two_clouds()
    source = GaussianMixture.fit(data, 2, standardized=False)
    x = source.sample(40_000, seeded(1))
    assert torch.allclose(x.mean(0), data.mean(0), atol=0.08)
    assert torch.allclose(torch.cov(x.T), torch.cov(data.T), rtol=0.05, atol=0.05)
    truth = Fit(2, random_state=0).fit(data.double().numpy())
    assert np.allclose(source.log_prob(x[:200].double()), truth.score_samples(x[:200].double().numpy()), atol=1e-3)


def test_a_standardized_mixture_has_mean_0_and_variance_1_and_a_density_of_mass_1():
    source = GaussianMixture.fit(two_clouds(), 2)
    x = source.sample(40_000, seeded(2))
    assert float(x.mean()) == pytest.approx(0, abs=0.02)
    assert float(x.var()) == pytest.approx(1, abs=0.02)
    grid = torch.linspace(-5, 5, 401, dtype=torch.float64)
    points = torch.cartesian_prod(grid, grid)
    assert float(source.log_prob(points).exp().sum()) * 0.025**2 == pytest.approx(1, abs=1e-3)


def test_wrong_mixtures():
    with pytest.raises(ValueError, match="need more points than 5"):
        GaussianMixture.fit(torch.randn(5, 2), 5)
    with pytest.raises(ValueError, match="weights must be above 0"):
        GaussianMixture((2,), torch.tensor([0.5]), torch.zeros(1, 2), torch.eye(2)[None])
    with pytest.raises(ValueError, match=r"need means \(1, 2\)"):
        GaussianMixture((2,), torch.ones(1), torch.zeros(1, 3), torch.eye(2)[None])


def test_block_coefficients_against_scipy_and_back():
    images = torch.randn(2, 3, 16, 24, generator=seeded(3), dtype=torch.float64)
    found = block_coefficients(images)
    luminance = torch.einsum("c,nchw->nhw", torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64), images)
    assert np.allclose(found[1, 0, 1, 2], dctn(luminance[1, 8:16, 16:24].numpy(), norm="ortho"))
    red = 0.713 * (images[:, 0] - luminance)
    assert np.allclose(found[0, 1, 0, 1], dctn(red[0, :8, 8:16].numpy(), norm="ortho"))
    assert torch.allclose(from_block_coefficients(found), images)


def test_the_frequencies_that_the_data_lack_are_missing_from_noise_and_data():
    coarse = torch.nn.functional.interpolate(torch.rand(40, 3, 8, 8, generator=seeded(4)) * 2 - 1, size=16)
    source = DCT.fit(coarse, "strong")
    assert 0 < int(source.kept.sum()) < 192
    x = source.sample(2000, seeded(5))
    assert float(x.std()) == pytest.approx(1, abs=0.01)
    found = block_coefficients(x)
    assert float(found[..., :, :].mul(~source.kept[:, None, None]).abs().max()) < 1e-4
    masked = source.masked(coarse)
    assert torch.allclose(source.masked(masked), masked, atol=1e-5)
    assert DCT.fit(coarse, "weak").kept.sum() >= source.kept.sum()
    with pytest.raises(ValueError, match="fill a subspace only"):
        source.log_prob(x)


def test_with_all_frequencies_it_is_the_gaussian():
    source = DCT((3, 8, 8), torch.ones(3, 8, 8, dtype=torch.bool))
    assert source.std == pytest.approx(1)
    x = source.sample(200, seeded(6))
    assert torch.allclose(x, Gaussian((3, 8, 8)).sample(200, seeded(6)), atol=1e-4)
    assert torch.allclose(source.log_prob(x), Gaussian((3, 8, 8)).log_prob(x))


def test_wrong_images_for_the_cosine_transform():
    with pytest.raises(ValueError, match="multiples of 8"):
        DCT.fit(torch.zeros(2, 3, 12, 16))
    with pytest.raises(ValueError, match="unknown strength 'medium'"):
        DCT.fit(torch.zeros(2, 3, 8, 8), "medium")
    with pytest.raises(ValueError, match="not all of them False"):
        DCT((3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.bool))


def test_aligned_noise_has_the_mean_length_of_the_data():
    source = NormAligned(Gaussian((3, 32, 32)), 27.198)
    assert source.factor == pytest.approx(55.421 / 27.198, rel=1e-4)
    x = source.sample(500, seeded(7))
    assert float(x.flatten(1).norm(dim=1).mean()) == pytest.approx(27.198, abs=0.06)
    smaller = NormAligned(Gaussian((3,)), 0.5)
    y = smaller.sample(10, seeded(8)).double()
    expected = stats.multivariate_normal(np.zeros(3), 1 / smaller.factor**2).logpdf(y.numpy())
    assert np.allclose(smaller.log_prob(y), expected)
    with pytest.raises(ValueError, match="data_norm is 0: it is the mean length"):
        NormAligned(Gaussian((3,)), 0)


def test_the_mean_length_of_a_source_that_does_not_know_it_is_measured():
    assert sources.mean_norm(GaussianMixture.fit(two_clouds(), 1)) == pytest.approx(1.3, abs=0.2)
    assert sources.mean_norm(Gaussian((5,), 2.0)) == pytest.approx(2 * stats.chi(5).mean())


def test_the_samples_of_a_map_and_their_density():
    base = Gaussian((3,))
    source = FlowSource(base, lambda x: 2 * x + 1, lambda x: base.log_prob((x - 1) / 2) - 3 * math.log(2), at_once=7)
    x = source.sample(20, seeded(9))
    assert torch.equal(x, 2 * base.sample(20, seeded(9)) + 1)
    expected = stats.multivariate_normal(np.ones(3), 4).logpdf(x.double().numpy())
    assert np.allclose(source.log_prob(x), expected, atol=1e-5)
    with pytest.raises(ValueError, match="built without log_density"):
        FlowSource(base, lambda x: x).log_prob(x)
    with pytest.raises(ValueError, match="keep the shape"):
        FlowSource(base, lambda x: x[:, :2]).sample(4, seeded(9))
    for at_once, words in ((0, "at_once is 0: it must be at least 1"), (1e3, r"at_once=1000\.0: .*write at_once=1000")):
        with pytest.raises(ValueError, match=words):
            FlowSource(base, lambda x: x, at_once=at_once)


@pytest.mark.parametrize("wrong", [0, 2.0, True])
def test_a_number_of_components_is_a_whole_number(wrong):
    points = two_clouds()
    for fit in (GaussianMixture.fit, sources.spherical_k_means):
        with pytest.raises(ValueError, match="components( is 0: it must be at least 1|=.* is a whole number)"):
            fit(points, wrong)
