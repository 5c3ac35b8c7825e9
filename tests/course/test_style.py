"""The look of the course: colours that can be told apart, small pictures, figures shown once."""

from __future__ import annotations

import io
import itertools

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

from fmcore.course import style

# Machado, Oliveira & Fernandes 2009, severity 1: what dichromats see, in linear RGB.
SEEN_BY = {
    "everyone": np.eye(3),
    "protanopes": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopes": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopes": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def lab(color: str, viewer: str = "everyone") -> np.ndarray:
    """CIELAB of a colour as someone sees it; distances of 10 are plain to see."""
    rgb = np.array(matplotlib.colors.to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(np.array(SEEN_BY[viewer]) @ linear, 0, 1) / np.array([0.95047, 1, 1.08883])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("viewer", SEEN_BY)
@pytest.mark.parametrize("palette", [tuple(style.ROLES.values()), style.CYCLE], ids=["roles", "cycle"])
def test_colours_are_told_apart_by_everyone(palette: tuple[str, ...], viewer: str) -> None:
    distances = {(a, b): np.linalg.norm(lab(a, viewer) - lab(b, viewer)) for a, b in itertools.combinations(palette, 2)}
    nearest = min(distances, key=distances.__getitem__)
    assert distances[nearest] > 12, f"{nearest} are hard to tell apart for {viewer}"


def test_time_runs_evenly_from_the_light_source_to_the_dark_data() -> None:
    shades = [lab(style.color_of(t)) for t in np.linspace(0, 1, 11)]
    lightness = np.array([shade[0] for shade in shades])
    assert (np.diff(lightness) < -2).all()
    assert style.color_of(0.0).upper() == style.SOURCE
    assert style.color_of(1.0).upper() == style.DATA
    assert np.linalg.norm(shades[5] - lab(style.PATH)) < 1
    assert style.color_of(-3) == style.color_of(0)


def test_text_and_graphics_have_contrast_on_white() -> None:
    every = [*style.ROLES.values(), *style.CYCLE, *(style.color_of(t) for t in np.linspace(0, 1, 21))]
    for colors, least in (((style.INK, style.GOOD, style.BAD), 4.5), (every, 3.0)):  # WCAG 2 AA
        for color in colors:
            rgb = np.array(matplotlib.colors.to_rgb(color))
            linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
            assert 1.05 / (TO_XYZ[1] @ linear + 0.05) > least, color


def test_png_is_the_same_for_the_same_figure_and_small_even_when_busy() -> None:
    def draw():
        generator = torch.Generator().manual_seed(0)
        figure, axes = style.figure(1, 4)
        for ax in axes:
            x = torch.randn(3000, 2, generator=generator)
            ax.scatter(x[:, 0], x[:, 1], c=x[:, 0], cmap="viridis", alpha=0.4)
        return figure

    first, second = style.png(draw()), style.png(draw())
    assert first == second
    assert len(first) < 150_000
    picture = Image.open(io.BytesIO(first))
    assert picture.width == round(style.WIDTH * style.DPI)


def test_reducing_the_colours_of_a_heavy_picture_cannot_be_seen() -> None:
    figure, ax = style.figure()
    ax.imshow(np.random.default_rng(0).random((200, 200, 3)), aspect="auto")
    reduced = np.asarray(Image.open(io.BytesIO(style.png(figure))).convert("RGB"), dtype=float)
    heavy, style.HEAVY = style.HEAVY, 10**9
    try:
        full = np.asarray(Image.open(io.BytesIO(style.png(figure))).convert("RGB"), dtype=float)
    finally:
        style.HEAVY = heavy
    assert abs(reduced - full).mean() < 12  # of 255, for pure noise of all colours, the hardest picture there is
    assert not np.array_equal(reduced, full)


def test_figures_do_not_belong_to_pyplot_and_keep_the_look_without_changing_settings() -> None:
    before = dict(matplotlib.rcParams)
    open_before = plt.get_fignums()
    figure, ax = style.figure()
    ax.plot([0, 1], [0, 1])
    style.png(figure)
    assert plt.get_fignums() == open_before
    assert dict(matplotlib.rcParams) == before
    assert not ax.spines["top"].get_visible()


def test_use_sets_the_look(monkeypatch: pytest.MonkeyPatch) -> None:
    with matplotlib.rc_context():
        style.use()
        assert matplotlib.rcParams["font.family"] == ["DejaVu Sans"]
        figure, ax = plt.subplots()
        assert matplotlib.colors.to_hex(ax.plot([0, 1])[0].get_color()) == style.CYCLE[0].lower()
        plt.close(figure)
