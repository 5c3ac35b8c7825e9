"""Pictures of a run: which image stands where, read back from the figure or from the file."""

import sys

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from fmcore.data import to_uint8
from fmcore.experiments import drawing
from fmcore.experiments.evaluate import pictures
from fmcore.experiments.evaluate.exact_velocity import Hybrids
from fmcore.experiments.run.samples import Samples
from fmcore.training import seeded_generator
from tests.experiments.made_run import MadeRun

GENERATED = torch.randint(17, (20, 1, 8, 8), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
SAMPLES = Samples(GENERATED, torch.full((20,), 7.0))


@pytest.fixture
def figures(monkeypatch):
    """The figures that were to be saved."""
    found = []
    monkeypatch.setattr(pictures, "save", lambda figure, file: found.append(figure))
    return found


def images_in(axes, count, columns, size=8):
    """The images of a sheet in reading order, read from its panel: (count, size, size), white is 1."""
    sheet = np.asarray(axes.images[0].get_array())
    places = [(k // columns * (size + 1) + 1, k % columns * (size + 1) + 1) for k in range(count)]
    return np.stack([sheet[top : top + size, left : left + size] for top, left in places])


def grey(images):
    return images[:, 0].numpy() / 16


def test_generated_images_stand_beside_real_ones(figures, tmp_path):
    run = MadeRun(tmp_path, "method=euler", "solver_steps=3")
    pictures.samples_figure(run, SAMPLES, tmp_path / "samples.png", columns=4)
    drawn, real, _ = figures[0].axes
    assert [axes.get_title(loc="left") for axes in (drawn, real)] == [
        "generated (7 network evaluations)",
        "real, held out from training",
    ]
    np.testing.assert_allclose(images_in(drawn, 16, 4), grey(GENERATED[:16]), atol=1e-6)
    np.testing.assert_allclose(images_in(real, 16, 4), grey(run.data.held_out[:16]), atol=1e-6)


def test_three_samples_come_from_noise_to_where_the_flow_leads(figures, tmp_path):
    run = MadeRun(tmp_path, velocity=lambda x, t: -0.5 + 0 * x, experiment="lipman2023/digits/fm_ot")
    pictures.samples_figure(run, SAMPLES, tmp_path / "samples.png", columns=2)
    path = figures[0].axes[2]
    assert path.get_title(loc="left") == "from noise to images"
    shown = images_in(path, 15, 5).reshape(3, 5, 8, 8)
    noise = torch.randn(3, 1, 8, 8, generator=seeded_generator(0, "journeys"))
    for column in range(5):  # t = 0, 1/4, ..., 1, and every pixel falls by t / 2
        state = noise - 0.5 * column / 4
        expected = to_uint8(state / state.abs().max().clamp(min=1), 17)[:, 0] / 16
        # a pixel on the edge of a bin may fall to either side
        assert np.abs(shown[:, column] - expected.numpy()).max() < 1.5 / 16
        assert (np.abs(shown[:, column] - expected.numpy()) < 1e-6).mean() > 0.98
    assert [label.get_text() for label in path.get_xticklabels()] == ["t = 0", "t = 1/2", "t = 1"]
    assert path.get_xticks().tolist() == [4.5, 22.5, 40.5]  # the middles of columns 0, 2 and 4, 9 pixels each


def test_without_matplotlib_the_two_squares_are_there(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    run = MadeRun(tmp_path, velocity=None)  # and nothing is drawn from the flow
    pictures.samples_figure(run, SAMPLES, tmp_path / "samples.png", columns=2)
    monkeypatch.undo()
    picture = imread(tmp_path / "samples.png")[..., 0]
    times = round(1000 / 40)  # two sheets of 2 (8 + 1) + 1 pixels, and a gap of 2
    assert picture.shape == (19 * times, 40 * times)
    small = picture[times // 2 :: times, times // 2 :: times]
    assert (small[:, 19:21] == 1).all()
    for left, images in ((0, GENERATED[:4]), (21, run.data.held_out[:4])):
        for k, image in enumerate(grey(images)):
            top, start = 9 * (k // 2) + 1, left + 9 * (k % 2) + 1
            np.testing.assert_allclose(small[top : top + 8, start : start + 8], image, atol=1 / 255)


def test_no_more_images_are_shown_than_there_are(figures, tmp_path):
    run = MadeRun(tmp_path, "method=euler", "solver_steps=1")
    pictures.samples_figure(run, Samples(GENERATED[:3], torch.ones(3)), tmp_path / "samples.png", columns=4)
    for axes in figures[0].axes[:2]:
        assert np.asarray(axes.images[0].get_array()).shape == (10, 37)  # one row of four, the last of them empty
        assert (images_in(axes, 4, 4)[3] == 1).all()


def test_a_row_a_start_and_a_column_a_switch(figures, tmp_path):
    run = MadeRun(tmp_path)
    sets = run.data.scaled(GENERATED[:12]).view(2, 6, 1, 8, 8)  # two switches, six starts
    exact = run.data.scaled(GENERATED[12:18])
    pictures.hybrids_figure(run, Hybrids((0.0, 0.3), sets, exact), tmp_path / "hybrids.png", starts=4)
    [axes] = figures[0].axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.3", "1"]
    shown = images_in(axes, 12, 3).reshape(4, 3, 8, 8)
    for column, first in enumerate((0, 6, 12)):
        np.testing.assert_allclose(shown[:, column], grey(GENERATED[first : first + 4]), atol=1e-6)
    pictures.hybrids_figure(run, Hybrids((0.0, 1.0), sets, exact), tmp_path / "hybrids.png")
    assert [label.get_text() for label in figures[1].axes[0].get_xticklabels()] == ["0", "1"]


def test_sheets_have_white_between_images():
    sheet = drawing.tiled(torch.zeros(3, 1, 2, 2), 2)
    assert sheet.shape == (1, 7, 7)
    assert sheet.isnan().sum() == 49 - 3 * 4
    assert sheet[0, 1:3, 4:6].tolist() == [[0, 0], [0, 0]]


def test_of_a_network_that_knows_classes_each_has_a_column(figures, tmp_path):
    run = MadeRun(tmp_path, "method=euler", "solver_steps=3")
    labels = torch.arange(20).flip(0) % 10
    pictures.samples_figure(
        run, Samples(GENERATED, torch.full((20,), 7.0), labels), tmp_path / "samples.png", columns=2
    )
    drawn, real, _ = figures[0].axes
    np.testing.assert_allclose(images_in(drawn, 20, 10)[3], grey(GENERATED[labels == 3])[0], atol=1e-6)
    np.testing.assert_allclose(images_in(drawn, 20, 10)[13], grey(GENERATED[labels == 3])[1], atol=1e-6)
    sevens = run.data.held_out[run.data.held_out_labels == 7]
    np.testing.assert_allclose(images_in(real, 20, 10)[[7, 17]], grey(sevens[:2]), atol=1e-6)


def test_where_a_class_is_missing_there_are_no_columns(figures, tmp_path):
    run = MadeRun(tmp_path, "method=euler", "solver_steps=3")
    few = Samples(GENERATED, torch.full((20,), 7.0), torch.arange(20) % 9)
    pictures.samples_figure(run, few, tmp_path / "samples.png", columns=4)
    np.testing.assert_allclose(images_in(figures[0].axes[0], 16, 4), grey(GENERATED[:16]), atol=1e-6)
