"""What the plots draw is what they were given."""

from __future__ import annotations

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import same_color, to_hex
from matplotlib.quiver import Quiver
from PIL import Image
from torch import Tensor

from fmcore import solvers
from fmcore.course import plotting, style

generator = torch.Generator().manual_seed(0)
X0, X1 = torch.randn(2, 50, 2, generator=generator)
TIMES = torch.linspace(0, 1, 11)


def turn(x: Tensor, t: Tensor) -> Tensor:
    return torch.stack([-x[:, 1], x[:, 0]], 1) * (1 + t)[..., None]


def dots(ax) -> list[PathCollection]:
    return [c for c in ax.collections if isinstance(c, PathCollection)]


def test_clouds_draw_each_point_in_the_colour_of_its_role() -> None:
    ax = plotting.clouds(source=X0, data=X1, others={"fifth": X0 + 1}, behind=X1, limit=4).axes[0]
    behind, source, data, fifth = dots(ax)
    for drawn, points in ((behind, X1), (source, X0), (data, X1), (fifth, X0 + 1)):
        np.testing.assert_allclose(drawn.get_offsets(), points, rtol=1e-6)
    assert same_color(to_hex(source.get_facecolor()[0]), style.SOURCE)
    assert same_color(to_hex(data.get_facecolor()[0]), style.DATA)
    assert same_color(to_hex(behind.get_facecolor()[0]), style.MUTED)
    assert to_hex(fifth.get_facecolor()[0]).upper() not in (style.SOURCE, style.DATA)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["source", "data", "fifth"]
    assert ax.get_xlim() == (-4, 4)
    assert ax.get_aspect() == 1


def test_the_plane_shown_holds_nearly_all_points_and_ignores_what_is_not_finite() -> None:
    strange = torch.cat([X0, torch.tensor([[float("nan"), 0.0], [float("inf"), 1.0]])])
    limit = plotting.clouds(model=strange).axes[0].get_xlim()[1]
    assert float(X0.abs().max()) * 0.8 < limit < float(X0.abs().max()) * 1.2


def test_trajectories_take_each_point_along_its_solution_coloured_by_time() -> None:
    solution = solvers.solve(turn, X0, method="rk4", times=TIMES)
    ax = plotting.trajectories(solution, count=7, data=X1).axes[0]
    (lines,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    segments = np.stack(lines.get_segments()).reshape(7, 10, 2, 2)
    assert solution.trajectory is not None
    for i in range(7):
        np.testing.assert_allclose(segments[i, :, 0], solution.trajectory[:-1, i], rtol=1e-5)
        np.testing.assert_allclose(segments[i, :, 1], solution.trajectory[1:, i], rtol=1e-5)
    np.testing.assert_allclose(np.asarray(lines.get_array()).reshape(7, 10)[3], (TIMES[1:] + TIMES[:-1]) / 2, rtol=1e-6)
    assert lines.get_clim() == (0, 1)
    start, end = dots(ax)[-2:]
    np.testing.assert_allclose(start.get_offsets(), X0[:7], rtol=1e-6)
    np.testing.assert_allclose(end.get_offsets(), solution.x[:7], rtol=1e-5)


def test_pairs_are_straight() -> None:
    ax = plotting.pairs(X0, X1).axes[0]
    (lines,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    middle = np.stack(lines.get_segments()).reshape(50, 19, 2, 2)[:, 9].mean(1)  # the middle of the middle piece
    np.testing.assert_allclose(middle, (X0 + X1) / 2, atol=1e-5)


def test_snapshots_show_the_stored_state_nearest_each_time() -> None:
    states = torch.stack([X0 + i for i in range(11)])
    figure = plotting.snapshots((TIMES, states), times=[0, 0.52, 1], data=X1)
    assert [ax.get_title() for ax in figure.axes] == ["t = 0.00", "t = 0.50", "t = 1.00"]
    for ax, i in zip(figure.axes, (0, 5, 10), strict=True):
        np.testing.assert_allclose(dots(ax)[-1].get_offsets(), states[i], rtol=1e-6)
        assert same_color(to_hex(dots(ax)[-1].get_facecolor()[0]), style.color_of(i / 10))
    assert len({ax.get_xlim() for ax in figure.axes}) == 1  # one scale for all panels
    assert len(plotting.snapshots((TIMES, states), times=[0.5]).axes) == 1


def test_arrows_point_along_the_velocity_and_their_lengths_compare_speeds() -> None:
    ax = plotting.field(turn, 0.5, limit=2, points=5, speed=10.0).axes[0]
    (arrows,) = [c for c in ax.collections if isinstance(c, Quiver)]
    where = torch.as_tensor(arrows.XY)
    drawn = torch.stack([torch.as_tensor(arrows.U), torch.as_tensor(arrows.V)], 1).float()
    right = turn(where.float(), torch.full((25,), 0.5))
    scale = drawn.norm() / right.norm()
    torch.testing.assert_close(drawn, right * scale, rtol=1e-4, atol=1e-5)  # below the top speed: in proportion
    twice = plotting.field(lambda x, t: 2 * turn(x, t), 0.5, limit=2, points=5, speed=10.0).axes[0].collections[0]
    np.testing.assert_allclose(twice.U, 2 * arrows.U, rtol=1e-4, atol=1e-6)  # a given speed makes panels comparable
    fast = plotting.field(lambda x, t: 1000 * turn(x, t), 0.5, limit=2, points=5, speed=10.0).axes[0].collections[0]
    lengths = np.hypot(fast.U, fast.V)
    assert lengths[lengths > 1e-6].max() / lengths[lengths > 1e-6].min() < 1.001  # faster ones are drawn as long


def test_streamlines_follow_the_velocity() -> None:
    ax = plotting.field(turn, 0.5, limit=2, points=25, kind="streams").axes[0]
    (lines,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    segments = torch.as_tensor(np.stack(lines.get_segments()))
    along, middle = segments[:, 1] - segments[:, 0], segments.mean(1)
    long = along.norm(dim=1) > 1e-3
    cosine = torch.cosine_similarity(along[long], turn(middle[long], torch.full((int(long.sum()),), 0.5)))
    assert cosine.mean() > 0.99  # around the origin


def log_normal(x: Tensor) -> Tensor:
    return -x.square().sum(1) / 2


def test_contours_hold_the_stated_mass() -> None:
    ax = plotting.density(log_normal, kind="contours", limit=5, points=201).axes[0]
    radii = sorted(float(np.linalg.norm(path.vertices, axis=1).mean()) for path in ax.collections[0].get_paths())
    # A standard Gaussian of the plane has mass m within the radius sqrt(-2 ln(1 - m)).
    np.testing.assert_allclose(radii, [np.sqrt(-2 * np.log(1 - m)) for m in (0.3, 0.6, 0.9)], rtol=0.02)


def test_shades_are_the_density_the_right_way_up() -> None:
    def corner(x: Tensor) -> Tensor:
        return -(x - torch.tensor([2.0, -1.0])).square().sum(1)

    figure = plotting.density(corner, limit=3, points=61, data=X0)
    (picture,) = figure.axes[0].images
    shown = np.asarray(picture.get_array())
    row, column = np.unravel_index(shown.argmax(), shown.shape)
    assert picture.origin == "lower"
    assert (column / 60 * 6 - 3, row / 60 * 6 - 3) == pytest.approx((2.0, -1.0))
    assert shown.max() == pytest.approx(1.0)


@pytest.mark.parametrize("order", [0.5, 1.0, 4.0])
def test_slope_is_the_order(order: float) -> None:
    steps = [4, 8, 16, 32]
    assert plotting.slope(steps, [3.0 * n**-order for n in steps]) == pytest.approx(-order)
    ax = plotting.error_against(steps, {"method": [3.0 * n**-order for n in steps]}).axes[0]
    assert ax.get_legend().get_texts()[0].get_text() == f"method  (slope −{order:.1f})"
    assert ax.get_yscale() == "log"


def test_histogram_has_unit_area_and_the_density_on_top() -> None:
    x = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    ax = plotting.histogram(
        x, range=(-4, 4), bins=40, density=lambda x: (-x.square() / 2).exp() / (2 * np.pi) ** 0.5
    ).axes[0]
    outline = ax.patches[0].get_path().vertices
    area = 0.5 * abs(np.dot(outline[:-1, 0], outline[1:, 1]) - np.dot(outline[:-1, 1], outline[1:, 0]))
    assert area == pytest.approx(1.0, rel=1e-2)
    assert ax.lines[0].get_ydata().max() == pytest.approx((2 * np.pi) ** -0.5, rel=1e-3)


def test_curves_and_bands() -> None:
    ax = plotting.curves(TIMES, {"a": TIMES**2, "b": 1 - TIMES}, bands={"a": 0.1 * torch.ones(11)}, log="y").axes[0]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), TIMES**2, rtol=1e-6)
    band = ax.collections[0].get_paths()[0].vertices
    at_end = band[np.isclose(band[:, 0], 1.0), 1]
    assert (at_end.min(), at_end.max()) == pytest.approx((0.9, 1.1))
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "log")


def test_bars_write_their_numbers() -> None:
    ax = plotting.bars({"Euler": 1.234, "midpoint": torch.tensor(0.4)}, spread={"Euler": 0.1}).axes[0]
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([1.234, 0.4])
    assert [text.get_text() for text in ax.texts] == ["1.23 ± 0.10", "0.40"]


def test_images_stand_in_reading_order_with_exact_grey_values() -> None:
    batch = torch.arange(6).reshape(6, 1, 1, 1).expand(6, 1, 4, 4) * 3
    ax = plotting.images(batch, columns=3, low=0, high=15, titles=["a", "b", "c"], rows=["first", "second"]).axes[0]
    sheet = np.asarray(ax.images[0].get_array())
    assert sheet.shape == (2 * 64 + 16, 3 * 64 + 2 * 16)  # each pixel 16 x 16, a white gap of one pixel
    seen = [[sheet[80 * row + 32, 80 * column + 32] for column in range(3)] for row in range(2)]
    np.testing.assert_allclose(seen, [[0, 0.2, 0.4], [0.6, 0.8, 1.0]], atol=1e-6)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b", "c"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["first", "second"]


def test_images_know_the_usual_ranges_and_colours() -> None:
    red = torch.tensor([1.0, -1.0, -1.0]).reshape(1, 3, 1, 1).expand(1, 3, 8, 8)
    for batch in (red, ((red + 1) * 127.5).to(torch.uint8)):
        sheet = np.asarray(plotting.images(batch).axes[0].images[0].get_array())
        np.testing.assert_allclose(sheet[3, 3], [1, 0, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: plotting.clouds(), "draws nothing"),
        (lambda: plotting.clouds(data=torch.randn(5, 3)), r"data must have shape \(n, 2\), got \(5, 3\)"),
        (lambda: plotting.pairs(X0, X1[:3]), "as many x0 as x1"),
        (lambda: plotting.trajectories(solvers.solve(turn, X0, method="euler", steps=2)), "no trajectory.*times="),
        (lambda: plotting.snapshots((TIMES, torch.randn(11, 5, 3))), r"trajectory \(T, B, 2\)"),
        (lambda: plotting.field(turn, 0.5, kind="dots"), '"arrows" or "streams"'),
        (lambda: plotting.density(log_normal, kind="dots"), '"filled" or "contours"'),
        (lambda: plotting.density(lambda x: x.sum()), "one number a point"),
        (lambda: plotting.slope([1, 2], [0.0, 1.0]), "positive"),
        (lambda: plotting.slope([1], [1.0]), "two or more"),
        (lambda: plotting.images(torch.zeros(4, 2, 8, 8)), r"\(n, 1 or 3, H, W\)"),
    ],
)
def test_wrong_input_is_told(draw, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        draw()


def test_panels_are_drawn_into_the_figure_that_they_belong_to() -> None:
    figure, axes = plotting.canvas(1, 3)
    assert plotting.clouds(source=X0, ax=axes[0]) is figure
    assert plotting.field(turn, 0.2, ax=axes[1]) is figure
    assert plotting.density(log_normal, ax=axes[2]) is figure
    assert plt.get_fignums() == []


def test_the_overview_is_small_and_made_by_the_package(tmp_path) -> None:
    written = plotting.save_flow_map(tmp_path / "figures" / "overview.png")
    assert written.stat().st_size < 300_000
    kept = plotting.overview.OVERVIEW
    fresh, stored = (np.asarray(Image.open(io.BytesIO(p.read_bytes())).convert("L"), float) for p in (written, kept))
    assert fresh.shape == stored.shape
    assert abs(fresh - stored).mean() < 2  # of 255: the committed figure is what the function draws
