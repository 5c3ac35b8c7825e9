"""Sheets of images and picture files."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread
from PIL import Image

from fmcore.experiments.drawing import plain, save, save_grid, save_squares, tiled


def test_a_sheet_holds_every_image_in_reading_order():
    images = torch.arange(1, 6).reshape(5, 1, 1, 1).expand(5, 1, 2, 2)
    sheet = tiled(images, 3)[0].nan_to_num(0)
    assert [int(sheet[row, column]) for row in (1, 4) for column in (1, 4, 7)] == [1, 2, 3, 4, 5, 0]
    assert int((sheet > 0).sum()) == 5 * 4


def test_a_picture_shows_black_and_white_where_they_belong(tmp_path):
    images = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    images[1] = 16
    save_grid(images, tmp_path / "two.png", 17)
    picture = imread(tmp_path / "two.png")[..., :3].mean(-1)
    middle = picture.shape[1] // 2
    assert picture[picture.shape[0] // 4, middle] == 0
    assert picture[3 * picture.shape[0] // 4, middle] == 1


def test_an_unknown_picture_format_lists_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"names no picture format: end it in .png, or one of .*svg"):
        save_grid(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), tmp_path / "picture.docx", 17)


def test_colours_keep_their_channels(tmp_path):
    images = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    images[0, 2] = 255
    save_squares([images], 1, tmp_path / "blue.png", 256)
    pixels = np.asarray(Image.open(tmp_path / "blue.png").convert("RGB"))
    assert pixels[len(pixels) // 2, pixels.shape[1] // 2].tolist() == [0, 0, 255]
    assert pixels[0, 0].tolist() == [255, 255, 255]  # the empty pixel around an image


def test_sets_of_images_stand_side_by_side(tmp_path):
    dark, bright = (torch.full((4, 1, 8, 8), level, dtype=torch.uint8) for level in (0, 16))
    save_squares([dark, bright], 2, tmp_path / "two.png", 17)
    pixels = np.asarray(Image.open(tmp_path / "two.png").convert("L")).astype(float)
    half = pixels.shape[1] // 2
    assert pixels[:, :half].mean() < 100
    assert pixels[:, half:].min() == 255


def test_a_figure_that_cannot_be_written_leaves_the_one_before(tmp_path):
    figure = Figure(figsize=(1, 1))
    save(figure, tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    figure.text(0, 0, "$\\unknown$")  # an error of matplotlib while it draws
    with pytest.raises(ValueError, match="unknown"):
        save(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_plain_axes_have_two_sides():
    axes = Figure().add_subplot()
    plain(axes)
    assert {side for side, spine in axes.spines.items() if spine.get_visible()} == {"left", "bottom"}
