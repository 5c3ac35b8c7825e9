"""Simple models of the digits: their bits/dim against SciPy and against counting."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from fmcore.data import ImageData, dequantize, digits
from fmcore.experiments.evaluate import simple_models


def test_the_uniform_model_needs_the_logarithm_of_the_levels():
    values = simple_models.uniform_bits_per_dim(digits())
    assert values.shape == (297,)
    assert 2 ** float(values[0]) == pytest.approx(17, rel=1e-5)


def test_the_histogram_model_by_counting():
    generator = torch.Generator().manual_seed(0)
    train, held_out = (torch.randint(4, (n, 1, 2, 2), generator=generator).to(torch.uint8) for n in (50, 7))
    data = ImageData("tiny", train, held_out, torch.zeros(50).long(), torch.zeros(7).long(), levels=4)
    found = simple_models.histogram_bits_per_dim(data)
    for image, value in zip(held_out, found, strict=True):
        bits = 0.0
        for row in range(2):
            for column in range(2):
                same = sum(int(other[0, row, column] == image[0, row, column]) for other in train)
                bits -= math.log2((same + 1) / (50 + 4))
        assert float(value) == pytest.approx(bits / 4, rel=1e-5)


def test_the_gaussian_model_against_scipy():
    data = digits()
    found = simple_models.gaussian_bits_per_dim(data, torch.Generator().manual_seed(4))
    generator = torch.Generator().manual_seed(4)
    train, held_out = (
        dequantize(images, 17, generator).flatten(1).double().numpy() for images in (data.train, data.held_out)
    )
    log_density = stats.multivariate_normal(train.mean(0), np.cov(train.T)).logpdf(held_out)
    # a change of variables back to grey levels k + u = 17 (y + 1) / 2 turns nats of y into bits of a pixel
    expected = -(log_density + 64 * np.log(2 / 17)) / (64 * np.log(2))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_each_model_knows_more_than_the_one_before():
    data = digits()
    uniform = simple_models.uniform_bits_per_dim(data).mean()
    gaussian = simple_models.gaussian_bits_per_dim(data, torch.Generator().manual_seed(0)).mean()
    assert simple_models.histogram_bits_per_dim(data).mean() < uniform
    assert gaussian < uniform
