"""The digits and the scale of images."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.datasets import load_digits

from fmcore.data import dequantize, digits, scale, to_uint8

digits_module = sys.modules["fmcore.data.digits"]  # fmcore.data has the function under this name


def test_every_digit_is_in_exactly_one_split_with_its_label():
    data, original = digits(), load_digits()
    assert (len(data.train), len(data.held_out)) == (1500, 297)
    found = [
        (image.numpy().tobytes(), int(label))
        for images, labels in ((data.train, data.train_labels), (data.held_out, data.held_out_labels))
        for image, label in zip(images, labels, strict=True)
    ]
    expected = [
        (image.astype(np.uint8).tobytes(), int(label))
        for image, label in zip(original.images, original.target, strict=True)
    ]
    assert sorted(found) == sorted(expected)


def test_no_held_out_image_was_trained_on():
    data = digits()
    train = {image.numpy().tobytes() for image in data.train}
    assert not [index for index, image in enumerate(data.held_out) if image.numpy().tobytes() in train]


def test_the_split_is_the_one_that_records_were_made_with():
    found = hashlib.sha256(digits().held_out.numpy().tobytes()).hexdigest()
    assert found == "9c1d1b06423e48bd3a21baae91fccf15f77ac99b512ec8a02f996526ccd19b0a"


def test_they_are_read_without_loading_scikit_learn_and_by_it_where_its_file_lies_elsewhere(monkeypatch):
    code = "import sys; from fmcore import data; data.digits(); print('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
    direct = digits_module.read_table()
    monkeypatch.setattr(digits_module, "find_spec", lambda name: None)
    assert np.array_equal(digits_module.read_table(), direct)


def test_altered_pixels_are_refused_with_a_remedy(monkeypatch):
    table = digits_module.read_table()
    table[7, 27] += 1
    monkeypatch.setattr(digits_module, "read_table", lambda: table)
    with pytest.raises(ValueError, match="pip install --force-reinstall --no-deps scikit-learn"):
        digits()


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_every_grey_level_survives_scaling(levels):
    pixels = torch.arange(levels, dtype=torch.uint8)
    scaled = scale(pixels, levels)
    assert torch.equal(to_uint8(scaled, levels), pixels)
    assert torch.allclose(scaled, -scaled.flip(0))  # black and white are equally far from zero
    assert torch.allclose(scaled.diff(), torch.tensor(2 / levels))


@settings(deadline=None, max_examples=25, derandomize=True)
@given(levels=st.integers(2, 256), seed=st.integers(0, 2**31))
def test_dequantized_values_lie_in_the_bin_of_their_pixel(levels, seed):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(levels, (2000,), generator=generator).to(torch.uint8)
    y = dequantize(pixels, levels, generator).double()
    bins = torch.linspace(-1, 1, levels + 1, dtype=torch.float64)
    low, high = bins[:-1][pixels.long()], bins[1:][pixels.long()]
    assert (y >= low - 1e-6).all()
    assert (y <= high + 1e-6).all()
    assert (to_uint8(y, levels) != pixels).sum() <= 1  # rounding at the edge of a bin


def test_the_noise_is_uniform_over_the_bin():
    pixels = torch.full((5000,), 9, dtype=torch.uint8)
    y = dequantize(pixels, 17, torch.Generator().manual_seed(0))
    low = 2 * 9 / 17 - 1
    assert stats.kstest(y.numpy(), stats.uniform(low, 2 / 17).cdf).pvalue > 0.01


def test_dequantization_repeats_with_its_seed_only():
    pixels = torch.zeros(50, dtype=torch.uint8)
    first, again, other = (dequantize(pixels, 17, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_values_outside_the_scale_go_to_the_nearest_level():
    assert to_uint8(torch.tensor([-3.0, -1.0, 1.0, 9.0]), 17).tolist() == [0, 0, 16, 16]


def test_wrong_pixels_are_refused():
    with pytest.raises(ValueError, match="look scaled already"):
        dequantize(torch.zeros(3), 17)
    with pytest.raises(ValueError, match="got values from 0 to 17"):
        scale(torch.tensor([0, 17], dtype=torch.uint8), 17)
    with pytest.raises(ValueError, match="not finite"):
        to_uint8(torch.tensor([0.0, torch.nan]), 17)


def test_a_data_set_describes_itself():
    data = digits()
    assert data.shape == (1, 8, 8)
    assert data.num_classes == 10
    assert repr(data).startswith("ImageData('digits': 1500 train and 297 held-out images of shape (1, 8, 8)")
    assert torch.equal(data.scaled(data.train[:5]), scale(data.train[:5], 17))
