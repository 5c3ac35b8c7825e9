"""The collapse of the exact velocity: cosines by brute force, the time of collapse, records, errors, the command."""

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from matplotlib.image import imread
from pydantic import TypeAdapter

from fmcore import cli, data
from fmcore.closed_form import EmpiricalVelocity
from fmcore.data.images import ImageData
from fmcore.experiments.config.overrides import with_overrides
from fmcore.papers.bertrand2025 import collapse, collapse_cosines
from fmcore.papers.bertrand2025.collapse import MEASUREMENTS, CollapseConfig, measure
from fmcore.papers.bertrand2025.collapse_cosines import cosines, lasting_from, time_of_collapse
from fmcore.papers.bertrand2025.collapse_report import collapse_figure
from fmcore.papers.measurements import by_name

NAME = "bertrand2025/digits/collapse"
QUICK = ["images=200", "pairs=64", "times=20", "shown=0.05,0.5,0.95"]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def brute_force(points, x0, x1, times):
    """cos(u*, x1 - x0) in float64, one pair, one time and one point after the other; u* is the posterior's velocity."""
    points, x0, x1 = (x.flatten(1).numpy().astype(np.float64) for x in (points, x0, x1))
    found = np.empty((len(times), len(x0)))
    for row, t in enumerate(np.float64(np.float32(times))):
        for pair, (a, b) in enumerate(zip(x0, x1, strict=True)):
            x = (1 - t) * a + t * b
            weights = scipy.special.softmax([-((x - t * point) ** 2).sum() / (2 * (1 - t) ** 2) for point in points])
            u = (weights[:, None] * (points - x) / (1 - t)).sum(axis=0)
            found[row, pair] = u @ (b - a) / np.linalg.norm(u) / np.linalg.norm(b - a)
    return found


@pytest.fixture
def seen(monkeypatch):
    """What `measure` passes to `cosines`, and gets."""
    calls = []

    def watched(velocity, x0, x1, times, advance):
        found = cosines(velocity, x0, x1, times, advance)
        calls.append((velocity, x0, x1, times, found))
        return found

    monkeypatch.setattr(collapse, "cosines", watched)
    return calls


@pytest.fixture(scope="module")
def record():
    return measure(with_overrides(by_name(NAME), QUICK), progress=False)


@pytest.mark.parametrize("shape", [(2,), (3, 4, 4)])
def test_cosines_are_those_of_brute_force(shape):
    points = torch.randn(40, *shape, generator=seeded(0))
    x0, x1 = torch.randn(5, *shape, generator=seeded(1)), points[:5]
    times = torch.arange(23, dtype=torch.float64) * 0.045
    assert len(times) > 2 * collapse_cosines.TOGETHER  # three calls, the last one shorter
    done = []
    found = cosines(EmpiricalVelocity(points), x0, x1, times, done.append)
    np.testing.assert_allclose(found.numpy(), brute_force(points, x0, x1, times.numpy()), rtol=0, atol=2e-5)
    assert sum(done) == len(times)


def test_few_queries_fit_in_a_call_of_large_images(monkeypatch):
    points, times = torch.randn(9, 1, 4, 4, generator=seeded(0)), torch.tensor([0.0, 0.5, 0.9])
    x0, x1, done = torch.randn(3, 1, 4, 4, generator=seeded(1)), points[:3], []
    whole = cosines(EmpiricalVelocity(points), x0, x1, times)
    monkeypatch.setattr(collapse_cosines, "QUERIES", 1)
    torch.testing.assert_close(cosines(EmpiricalVelocity(points), x0, x1, times, done.append), whole)
    assert done == [1, 1, 1]


def test_one_training_point_is_known_from_the_start():
    point = torch.randn(1, 1, 3, 3, generator=seeded(0))
    times = torch.arange(10, dtype=torch.float64) / 10
    x0 = torch.randn(20, 1, 3, 3, generator=seeded(1))
    found = cosines(EmpiricalVelocity(point), x0, point.expand(20, 1, 3, 3), times)
    torch.testing.assert_close(found, torch.ones(10, 20, dtype=torch.float64), rtol=0, atol=1e-6)
    assert found.max() <= 1
    value = time_of_collapse(found, times, 0.9, 1.0, seeded(2))
    assert (value["value"], value["spread"]) == (0, 0)


def test_the_pairs_are_training_images_and_noise_the_same_at_every_size(seen):
    measure(with_overrides(by_name(NAME), [*QUICK, "images=none", "pairs=256", "times=4", "shown=0.5"]), progress=False)
    digits = data.by_name("digits")
    assert [tuple(call[0].data.shape) for call in seen] == [(1500, 1, 2, 2), (1500, 1, 4, 4), (1500, 1, 8, 8)]
    _, x0, x1, times, _ = seen[-1]
    assert times.tolist() == [0, 0.25, 0.5, 0.75]
    rows = {tuple(image.flatten().tolist()) for image in digits.scaled(digits.train)}
    chosen = [tuple(image.flatten().tolist()) for image in x1]
    assert set(chosen) <= rows
    assert len(set(chosen)) == 256
    assert scipy.stats.kstest(x0.flatten().numpy(), "norm").pvalue > 0.01
    for velocity, noise, images, *_ in seen:
        step = 8 // noise.shape[-1]
        for small, large in ((noise, x0), (images, x1), (velocity.data, digits.train)):
            assert all(
                torch.equal(small[..., i, j], large[..., step * i, step * j])
                for i in range(small.shape[-2])
                for j in range(small.shape[-1])
            )


def test_a_record_holds_what_brute_force_finds(seen):
    record = measure(with_overrides(by_name(NAME), ["images=30", "pairs=6", "times=4", "shown=0.25,0.75"]), False)
    assert len(record["curves"]) == 3
    for curve, (velocity, x0, x1, times, _) in zip(record["curves"], seen, strict=True):
        points = (velocity.data.float() + 0.5) / 17 * 2 - 1  # the middle of 17 bins of [-1, 1]
        truth = brute_force(points, x0, x1, times.numpy())
        assert (curve["size"], curve["dimension"], curve["images"]) == (x0.shape[-1], x0[0].numel(), 30)
        assert curve["times"] == [0, 0.25, 0.5, 0.75]
        np.testing.assert_allclose(curve["mean_cosine"], truth.mean(axis=1), rtol=0, atol=1e-5)
        np.testing.assert_allclose(curve["share_above"], (truth > 0.9).mean(axis=1), rtol=0, atol=1e-6)
        for row, shown in zip((1, 3), curve["histograms"], strict=True):
            assert shown["counts"] == np.histogram(np.minimum(truth[row], 1), bins=np.linspace(-1, 1, 41))[0].tolist()
    for row, value in zip((1, 3), record["values"]["mean_cosine_at"].values(), strict=True):
        assert value["value"] == pytest.approx(truth[row].mean(), abs=1e-5)
        assert value["spread"] == pytest.approx(scipy.stats.sem(truth[row]), abs=1e-5)
        assert value["spread_is"] == "standard error over 6 pairs"


def test_histograms_count_every_pair_once(record):
    for curve in record["curves"]:
        assert [row["t"] for row in curve["histograms"]] == [0.05, 0.5, 0.95]
        assert {sum(row["counts"]) for row in curve["histograms"]} == {64}
        assert curve["edges"] == pytest.approx(np.linspace(-1, 1, 41))
    assert record["curves"][-1]["histograms"][-1]["counts"][-1] == 64  # all collapsed


def test_the_more_dimensions_the_earlier_and_in_the_plane_never(record):
    """Bertrand et al. 2025, figure 1."""
    found = [value["value"] for value in record["values"]["time_of_collapse"].values()]
    times = [1.0 if value is None else value for value in found]
    assert list(record["values"]["time_of_collapse"]) == ["2x2 pixels", "4x4 pixels", "8x8 pixels"]
    assert times == sorted(times, reverse=True)
    assert times[2] < times[1] - 0.1 < times[0]
    plane = measure(with_overrides(by_name("bertrand2025/two_moons/collapse"), [*QUICK, "images=5000"]), False)
    assert plane["values"]["time_of_collapse"] == {"the plane": {"value": None, "spread": None, "spread_is": None}}
    assert (plane["curves"][0]["size"], plane["curves"][0]["dimension"], plane["curves"][0]["images"]) == (
        None,
        2,
        5000,
    )


@pytest.mark.parametrize(
    ("shares", "level", "row"),
    [
        ([0.2, 0.95, 0.4, 0.9, 1.0], 0.9, 3),  # a share that falls again does not count
        ([1.0, 1.0, 1.0], 0.9, 0),
        ([0.0, 0.5], 0.5, 1),
        ([1.0, 0.89], 0.9, 2),
    ],
)
def test_the_time_from_which_on_the_share_lasts(shares, level, row):
    assert lasting_from(torch.tensor(shares, dtype=torch.float64), level).item() == row
    columns = torch.tensor([shares, shares[::-1]], dtype=torch.float64).T
    assert lasting_from(columns, level)[0].item() == row


def test_the_spread_is_that_of_the_bootstrap():
    """If each pair stays above from a time of its own, the time of collapse is a quantile of these times."""
    own = torch.randint(20, 80, (256,), generator=seeded(0))
    found = (torch.arange(100)[:, None] >= own).double()
    times = torch.arange(100, dtype=torch.float64) / 100
    value = time_of_collapse(found, times, 0.5, 0.9, seeded(1))

    def quantile(x, axis):
        return np.quantile(x, 0.9, axis=axis, method="inverted_cdf")

    assert value["value"] == quantile(own.numpy(), 0) / 100
    truth = scipy.stats.bootstrap(
        (own.double().numpy(),), quantile, n_resamples=4000, random_state=0, method="percentile"
    )
    assert value["spread"] == pytest.approx(truth.standard_error / 100, rel=0.15)


def test_no_spread_where_some_resamplings_never_collapse():
    found = torch.ones(5, 10)
    found[:, 0] = -1  # nine of ten: as many as it takes, unless the one is drawn twice
    value = time_of_collapse(found.double(), torch.arange(5) / 5, 0.9, 0.9, seeded(0))
    assert value == {"value": 0.0, "spread": None, "spread_is": None}


def test_a_record_comes_back_from_json_and_measures_the_same(record, tmp_path):
    back = json.loads(json.dumps(record))
    assert back == record
    assert "data_dir" not in back["configuration"]
    configuration = TypeAdapter(CollapseConfig).validate_python(back["configuration"])
    assert configuration == with_overrides(by_name(NAME), QUICK)
    again = measure(configuration, progress=False)
    for key in ("experiment", "configuration", "values", "curves"):
        assert again[key] == record[key]
    other = measure(replace(configuration, seed=1), progress=False)
    assert other["curves"] != record["curves"]
    assert {"commit", "versions", "hardware"} <= set(record["environment"])
    assert record["measurement"]["wall_seconds"] > 0
    assert len(json.dumps(record["curves"])) < 10_000


def test_images_in_colour_come_from_the_folder_and_stay_whole_numbers(seen, monkeypatch, tmp_path):
    images = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8, generator=seeded(0))
    folders = []

    def fake(name, folder):
        folders.append((name, folder))
        labels = torch.zeros(40, dtype=torch.int64)
        return ImageData(name, images, images[:2], labels, labels[:2])

    monkeypatch.setattr(data, "by_name", fake)
    settings = ["data=imagenet32", f"data_dir={tmp_path}", "sizes=16,8", "pairs=10", "times=5", "shown=0.2"]
    record = measure(with_overrides(by_name(NAME), settings), progress=False)
    assert folders == [("imagenet32", tmp_path)]
    assert [curve["dimension"] for curve in record["curves"]] == [192, 768]  # in ascending order
    assert all(call[0].data.dtype == torch.uint8 for call in seen)
    assert all(call[0].data.untyped_storage().data_ptr() == images.untyped_storage().data_ptr() for call in seen)
    measure(with_overrides(by_name(NAME), [*settings, "images=12"]), progress=False)
    chosen = {image.numpy().tobytes() for image in seen[-1][0].data}
    assert len(chosen) == 12
    assert chosen <= {image.numpy().tobytes() for image in images[..., ::2, ::2]}
    assert chosen != {image.numpy().tobytes() for image in images[:12, :, ::2, ::2]}  # classes may be in order
    with pytest.raises(ValueError, match="images=41, and imagenet32 has 40: take fewer, or all"):
        measure(with_overrides(by_name(NAME), [*settings, "images=41"]))
    with pytest.raises(ValueError, match="pairs=41, and there are 40 training points"):
        measure(with_overrides(by_name(NAME), [*settings, "pairs=41"]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps=3", "unknown field 'steps': choose one of .*images.*pairs"),
        ("experiment=x", "unknown field 'experiment'"),
        ("data=mnist", "data=mnist: Input should be 'two_moons', 'digits'"),
        ("sizes=3", "those that divide 8"),
        ("sizes=16", "those that divide 8"),
        ("sizes=0", "those that divide 8"),
        ("sizes=4,4", "none twice"),
        ("sizes=", "name at least one height"),
        ("data=two_moons", "leave the sizes out"),
        ("data=cifar10", None),
        ("images=1", "images must be at least 2; got 1"),
        ("images=100", "take fewer pairs, or more images"),
        ("pairs=1", "pairs must be at least 2; got 1"),
        ("times=0", "times must be at least 1; got 0"),
        ("times=10", "shown=0.01,0.21,0.4,0.6,0.79,0.99: .* only those of the grid, the multiples of 1/10 below 1"),
        ("shown=1", "only those of the grid"),
        ("shown=nan", "shown=nan: the number must be finite"),
        ("shown=", "name at least one time"),
        ("shown=0.5,0.5", "none twice"),
        ("threshold=1", "above -1 and below 1"),
        ("share=0", "above 0 and at most 1"),
        ("seed=-1", "seed must be at least 0; got -1"),
    ],
)
def test_wrong_settings_are_refused_with_a_remedy(override, message):
    if message is None:
        assert with_overrides(by_name(NAME), [override]).data == "cifar10"
        return
    with pytest.raises(ValueError, match=message):
        with_overrides(by_name(NAME), [override])


def test_points_in_the_plane_have_a_number():
    with pytest.raises(ValueError, match="say how many .images=50000."):
        with_overrides(by_name("bertrand2025/two_moons/collapse"), ["images=none"])


def test_the_named_measurements_are_those_of_the_paper():
    assert {name: one.experiment for name, one in MEASUREMENTS.items()} == {name: name for name in MEASUREMENTS}
    for one in MEASUREMENTS.values():
        assert (one.pairs, one.times, one.threshold) == (256, 100, 0.9)
        assert one.shown == (0.01, 0.21, 0.40, 0.60, 0.79, 0.99)
        if one.data != "two_moons":
            assert max(one.sizes) == collapse.HEIGHTS[one.data]
    with pytest.raises(ValueError, match="unknown measurement 'digits': choose one of bertrand2025/cifar10/collapse"):
        by_name("digits")


def test_the_picture_shows_the_curves_and_no_text_on_another(record):
    figure = collapse_figure(record)
    figure.draw_without_rendering()
    left, right = figure.axes
    lines = [line for line in right.lines if len(line.get_xdata()) == 20]
    for line, curve in zip(lines, record["curves"], strict=True):
        assert list(line.get_xdata()) == curve["times"]
        assert list(line.get_ydata()) == curve["share_above"]
    legend = right.get_legend()
    dots = [line for line in right.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in dots] == [
        value["value"] for value in record["values"]["time_of_collapse"].values() if value["value"] is not None
    ]
    assert len(dots) == 2
    texts = [figure._suptitle, *left.texts, *left.get_xticklabels(), *left.get_yticklabels(), *legend.get_texts()]
    texts += [axis.label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    texts += [axes._left_title for axes in figure.axes] + [*right.get_xticklabels(), *right.get_yticklabels()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    assert len(boxes) > 25
    for (one, box), (other, another) in combinations(boxes, 2):
        assert not box.overlaps(another), f"{one!r} lies on {other!r}"
    for text, box in boxes:
        assert figure.bbox.contains(box.x0, box.y0), text
        assert figure.bbox.contains(box.x1, box.y1), text
    assert not legend.get_window_extent().overlaps(right.get_window_extent())


def test_the_command_leaves_record_and_picture_and_measures_anew_on_request(tmp_path, monkeypatch, capsys, record):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / NAME
    cli.main(["measure", NAME, *QUICK])
    printed = capsys.readouterr()
    assert sorted(path.name for path in folder.iterdir()) == ["collapse.png", "record.json"]
    kept = json.loads((folder / "record.json").read_text())
    assert kept["values"] == record["values"]
    assert imread(folder / "collapse.png").shape[1] > 1000
    for measured, rows in kept["values"].items():
        assert measured.replace("_", " ") in printed.out
        for of, found in rows.items():
            assert of in printed.out
            assert ("never" if found["value"] is None else f"{found['value']:.3f}") in printed.out
    assert "60/60" in printed.err  # three sizes of 20 times

    def fails(*arguments):
        with pytest.raises(SystemExit) as left:
            cli.main(["measure", NAME, *QUICK, *arguments])
        assert left.value.code == 2
        return capsys.readouterr().err

    assert "is not empty: add --overwrite to measure anew, or --run-dir to write elsewhere" in fails()
    assert json.loads((folder / "record.json").read_text()) == kept
    cli.main(["measure", NAME, *QUICK, "seed=3", "--overwrite"])
    assert json.loads((folder / "record.json").read_text())["configuration"]["seed"] == 3
    (folder / "config.json").write_text("{}")  # as in the folder of a training
    assert "holds other things than a measurement (config.json)" in fails("--overwrite")
    assert "is a file: name a folder" in fails("--run-dir", str(folder / "config.json"))
    assert "cannot" not in fails("share=2", "--run-dir", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_listed_settings_can_be_given_back(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    cli.main(["list"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in MEASUREMENTS)
    for name, one in MEASUREMENTS.items():
        cli.main(["list", name])
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(f"settings of {name}: fmcore measure")
        settings = [line.strip() for line in lines[1:]]
        assert len(settings) == 10
        assert with_overrides(one, settings) == one
