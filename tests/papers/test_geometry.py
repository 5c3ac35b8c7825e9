"""The geometry of images: lengths, pruning, frequencies and clusters by other means; records, tables, the command."""

import json
import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import scipy.fft
import scipy.stats
import torch
from PIL import Image
from pydantic import TypeAdapter
from sklearn.decomposition import PCA

from fmcore import cli, data, sources
from fmcore.data.images import ImageData
from fmcore.experiments import records
from fmcore.experiments.config.overrides import with_overrides
from fmcore.papers import catalog, reference, tables
from fmcore.papers.lee2025 import geometry, geometry_table, pruned_share
from fmcore.papers.lee2025.geometry import MEASUREMENTS, GeometryConfig, measure, rounded_colours
from fmcore.papers.lee2025.geometry_report import geometry_figure
from fmcore.papers.measurements import by_name

NAME = "lee2025/geometry/digits"
COUNT = 200_000  # directions, here and in brute force
QUICK = ["directions=2000", "thresholds="]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def directions_of(images):
    """Images (n, C, H, W) of whole numbers as unit vectors in float64: their grey levels around the middle of all."""
    levels = 16 if images.shape[1] == 1 else 255
    flat = (2.0 * images.numpy().reshape(len(images), -1) / levels) - 1
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def rejected_ends(directions, tau):
    """Ends (m, d) of the axes of scikit-learn's PCA to which no direction comes nearer than a cosine of tau."""
    axes = PCA().fit(directions).components_
    ends = np.concatenate([axes, -axes])
    return ends[(ends @ directions.T).max(axis=1) <= tau]


def largest_cosines(ends, seed=0, count=COUNT):
    noise = np.random.default_rng(seed).standard_normal((count, ends.shape[1]))
    return (noise @ ends.T).max(axis=1) / np.linalg.norm(noise, axis=1)


@pytest.fixture(scope="module")
def digits():
    return measure(with_overrides(by_name(NAME), [f"directions={COUNT}"]), progress=False)


@pytest.fixture(scope="module")
def brute():
    """Rejected ends of the digits, and the largest cosine of noise with one of them."""
    ends = rejected_ends(directions_of(data.digits().train), 0.1)
    return ends, largest_cosines(ends)


@pytest.fixture
def few_samples(monkeypatch):
    """Fewer proposals are counted, where their number is not what a test is about."""
    monkeypatch.setattr(pruned_share, "SAMPLES", 100)


@pytest.fixture
def coloured(monkeypatch, tmp_path):
    """Smooth images in colour in place of CIFAR-10, and where they were asked for."""
    coarse = torch.rand(250, 3, 3, 3, generator=seeded(0))
    fine = torch.rand(250, 1, 8, 8, generator=seeded(1))
    large = torch.nn.functional.interpolate(coarse, (8, 8), mode="bicubic", align_corners=True)
    images = (256 * (0.85 * large + 0.15 * fine)).clamp(0, 255).to(torch.uint8)
    asked = []

    def fake(name, folder):
        asked.append((name, folder))
        labels = torch.zeros(250, dtype=torch.int64)
        return ImageData("cifar10", images, images[:2], labels, labels[:2])

    monkeypatch.setattr(data, "by_name", fake)
    settings = ["tau=0.1", "threshold=0.2", *QUICK, f"data_dir={tmp_path}"]
    return images, with_overrides(by_name("lee2025/geometry/cifar10"), settings), asked


def test_lengths_are_those_of_the_pixels_and_of_chi(digits):
    found = digits.record["values"]["mean_length"]
    pixels = data.digits().train.numpy().reshape(1500, -1)
    own = np.linalg.norm(pixels / 8 - 1, axis=1)  # 0 to 16 at -1 to 1
    bins = np.linalg.norm((2 * pixels + 1) / 17 - 1, axis=1)
    for name, truth in (("images", own), ("images, middles of bins", bins)):
        assert found[name]["value"] == pytest.approx(truth.mean(), rel=1e-6)
        assert found[name]["spread"] == pytest.approx(truth.std(ddof=1), rel=1e-5)
    noise = scipy.stats.chi(64).mean()
    assert found["noise"]["value"] == pytest.approx(noise, rel=1e-9)
    assert found["noise / images"]["value"] == pytest.approx(noise / own.mean(), rel=1e-6)
    assert found["noise / images, middles of bins"]["value"] == pytest.approx(noise / bins.mean(), rel=1e-6)


def test_the_histogram_counts_every_length_once(digits):
    found = digits.record["histograms"]["length of images"]
    own = np.linalg.norm(data.digits().train.numpy().reshape(1500, -1) / 8 - 1, axis=1)  # 0 to 16 at -1 to 1
    counts, edges = np.histogram(own, bins=40, range=(0, 8))  # a white image has the length 8, the square root of 64
    assert found["counts"] == counts.tolist()
    assert sum(found["counts"]) == 1500
    np.testing.assert_allclose(found["edges"], edges, rtol=1e-12)


def test_the_longest_images_are_in_the_last_bin(monkeypatch):
    images = torch.cat([torch.zeros(2, 1, 8, 8), torch.full((1, 1, 8, 8), 16), torch.full((3, 1, 8, 8), 8)])
    few = ImageData(
        "digits", images.to(torch.uint8), images[:2].to(torch.uint8), torch.zeros(6), torch.zeros(2), levels=17
    )
    found = geometry.length_histogram(few, geometry.lengths_of(few, few.train))
    assert found["counts"] == [3, *[0] * 38, 3]  # grey, at 0; black and white, at 8


def test_the_stored_histogram_has_the_stored_mean():
    record = json.loads((reference.RESULTS / "lee2025/geometry/cifar10.json").read_text())
    found, mean = record["histograms"]["length of images"], record["values"]["mean_length"]["images"]
    edges, counts = np.array(found["edges"]), np.array(found["counts"])
    middles = (edges[1:] + edges[:-1]) / 2
    assert counts.sum() == record["measurement"]["images"]
    assert np.average(middles, weights=counts) == pytest.approx(mean["value"], abs=0.1)  # a bin is 1.4 wide
    spread = math.sqrt(np.cov(middles, fweights=counts) - (edges[1] - edges[0]) ** 2 / 12)  # less that within a bin
    assert spread == pytest.approx(mean["spread"], rel=0.02)


def test_a_record_without_the_histogram_is_in_the_table_too(digits):
    older = {name: value for name, value in digits.record.items() if name != "histograms"}
    assert geometry_table.block_of(older) == geometry_table.block_of(digits.record)


def test_ends_and_shares_are_those_of_brute_force(digits, brute):
    ends, cosines = brute
    values = digits.record["values"]
    assert values["rejected_ends"]["images"]["ends"]["value"] == len(ends)
    assert list(values["rejected_share"]["images"]) == ["0.25", "0.3", "0.35", "0.4"]
    for at, found in values["rejected_share"]["images"].items():
        truth = (cosines > float(at)).mean()
        error = math.sqrt(truth * (1 - truth) / COUNT)
        assert found["spread"] == pytest.approx(error, rel=0.05)
        assert abs(found["value"] - truth) < 5 * math.hypot(error, found["spread"])
        assert found["by"] == "counting"
    pairs = len(np.unique(np.round(np.abs(ends @ ends.T), 6).argmax(axis=1)))  # opposite ends share their first row
    counts = values["rejected_ends"]["images"]
    assert counts["one end"]["value"] + counts["both ends"]["value"] == pairs
    assert counts["one end"]["value"] + 2 * counts["both ends"]["value"] == len(ends)


def test_the_curve_is_the_share_at_every_threshold(digits, brute):
    curve = digits.record["curves"]["images"]
    truth = [(brute[1] > at).mean() for at in curve["thresholds"]]
    assert len(truth) == 121
    np.testing.assert_allclose(curve["rejected_share"], truth, atol=0.006)
    assert curve["rejected_share"][-1] == 0
    assert curve["rejected_share"][0] > 0.99


def test_the_sampler_says_the_same_where_few_are_left_to_count(digits, brute, monkeypatch):
    monkeypatch.setattr(pruned_share, "FEW", COUNT + 1)
    again = measure(with_overrides(by_name(NAME), [f"directions={COUNT}"]), progress=False).record["values"]
    for at, found in again["rejected_share"]["images"].items():
        truth = (brute[1] > float(at)).mean()
        assert found["by"] == "sampler"
        assert 0 < found["spread"] < 0.02
        assert abs(found["value"] - truth) < 5 * found["spread"] + 0.005
        assert found["value"] != digits.record["values"]["rejected_share"]["images"][at]["value"]


def test_proposals_are_those_of_the_two_ways_to_sample(digits, brute):
    found = digits.record["values"]["proposals"]["images"]
    ends, cosines = brute
    kept = (cosines <= 0.25).mean()
    assert found["plain"]["value"] == pytest.approx(1 / kept, rel=0.02)
    share = digits.record["values"]["rejected_share"]["images"]["0.25"]
    above, below = (1 / (1 - share["value"] - sign * share["spread"]) for sign in (1, -1))
    assert found["plain"]["spread"] == pytest.approx((above - below) / 2, rel=0.01)
    # What the exact sampler accepts of noise that is cut off along the ends, from noise that was not.
    axes = sources.pruning_axes(data.digits().train, 0.1, False, data.digits().scaled)
    bound = sources.Pruned(sources.Gaussian((1, 8, 8)), axes, 0.25).bound
    noise = np.random.default_rng(1).standard_normal((COUNT, 64))
    largest = (noise @ ends.T).max(axis=1)
    inside = largest <= bound
    worst = (largest / np.linalg.norm(noise, axis=1))[inside]
    chances = scipy.stats.chi(64).cdf(bound / 0.25) / scipy.stats.chi(64).cdf(bound / np.maximum(worst, 1e-9))
    rate = np.where(worst <= 0.25, chances, 0).mean()
    assert abs(found["truncated"]["value"] - 1 / rate) < 5 * found["truncated"]["spread"]
    assert found["truncated"]["spread"] == pytest.approx(math.sqrt((1 - rate) / 2000) / rate, rel=0.1)


def test_ends_in_the_picture_are_full_and_empty(digits, brute):
    directions = directions_of(data.digits().train)
    for ends, cosines in ((digits.full, digits.full_cosines), (digits.empty, digits.empty_cosines)):
        flat = ends.flatten(1).double().numpy()
        np.testing.assert_allclose((flat @ directions.T).max(axis=1), cosines, atol=1e-5)
        assert list(cosines) == sorted(cosines, reverse=True)
    axes = PCA().fit(directions).components_
    assert float(digits.full_cosines[0]) == pytest.approx(np.abs(axes @ directions.T).max(), abs=1e-5)
    emptiest = (brute[0] @ directions.T).max(axis=1)
    assert float(digits.empty_cosines[-1]) == pytest.approx(emptiest.min(), abs=1e-3)  # float32
    assert float(digits.empty_cosines[0]) <= 0.1


def test_colours_are_rounded_to_whole_numbers():
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=seeded(2))
    found = 127.5 * (rounded_colours(images, 256).double() + 1)
    red, green, blue = found.unbind(1)
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    ours = torch.stack([luminance, (blue - luminance) * 0.564 + 128, (red - luminance) * 0.713 + 128], dim=1)
    assert float((ours - ours.round()).abs().max()) < 1e-3
    theirs = np.stack(
        [
            np.asarray(Image.fromarray(one.permute(1, 2, 0).numpy()).convert("YCbCr")).transpose(2, 0, 1)
            for one in images
        ]
    ).astype(float)
    assert np.abs(ours.numpy() - theirs).max() < 1.001  # this one cuts decimals off
    assert float((found - images).abs().mean()) > 0.1


def faint(images, round_to, factor):
    """How many of 192 frequencies of 8x8 images (n, 3, 8, 8) hardly vary at weak and strong, and how many are of Y."""
    red, green, blue = np.moveaxis(images.numpy().astype(float), 1, 0)
    y = round_to(0.299 * red + 0.587 * green + 0.114 * blue)
    planes = np.stack([y - 127.5, round_to((red - y) * 0.713), round_to((blue - y) * 0.564)], axis=1)
    found = scipy.fft.dctn(factor * planes, axes=(2, 3), norm="ortho")
    small = np.abs(found.mean(axis=0)) < 0.1
    return {
        name: (int((mask := small & (found.var(axis=0) < bound)).sum()), int(mask[0].sum()))
        for name, bound in {"weak": 2, "strong": 4}.items()
    }


def test_frequencies_are_those_of_scipy_with_and_without_rounding(monkeypatch):
    """Colours that vary by about the bounds, so that rounding counts."""
    y = torch.randint(60, 190, (400, 1, 8, 8), generator=seeded(3))
    images = (y + 2.2 * torch.randn(400, 3, 8, 8, generator=seeded(4))).round().clamp(0, 255).to(torch.uint8)
    labels = torch.zeros(400, dtype=torch.int64)
    monkeypatch.setattr(data, "by_name", lambda *_: ImageData("cifar10", images, images[:2], labels, labels[:2]))
    settings = ["tau=0.1", "threshold=0.3", "clusters=0", *QUICK]
    values = measure(with_overrides(by_name("lee2025/geometry/cifar10"), settings), progress=False).record["values"]
    plain = faint(images, lambda whole: whole, 255 / 256)  # as networks see them
    rounded = faint(images, np.round, 1)
    for strength in ("weak", "strong"):
        for name, truth in ((strength, plain), (f"{strength}, colours rounded", rounded)):
            found = (values["masked"][name]["value"], values["masked_luminance"][name]["value"])
            assert found == truth[strength]
    assert plain["strong"][0] > plain["weak"][0] > rounded["weak"][0] > 0
    assert "clusters" not in values


def test_mirror_images_are_counted_and_the_folder_is_asked(coloured, tmp_path):
    images, configuration, asked = coloured
    found = measure(replace(configuration, directions=50_000), progress=False)
    values = found.record["values"]
    assert asked == [("cifar10", tmp_path)]
    both = torch.cat([images, images.flip(-1)])
    for version, points in (("with mirror images", both), ("without mirror images", images)):
        ends = rejected_ends(directions_of(points), 0.1)
        assert values["rejected_ends"][version]["ends"]["value"] == len(ends) > 0
        truth = (largest_cosines(ends, count=50_000) > 0.2).mean()
        assert values["rejected_share"][version]["0.2"]["value"] == pytest.approx(truth, abs=0.01)
    counts = [one["ends"]["value"] for one in values["rejected_ends"].values()]
    assert counts[0] != counts[1]
    # Clusters: each centre is the mean direction of the images that are nearest to it, and their mirror images.
    directions = directions_of(both)
    centres = found.centres.flatten(1).double().numpy()
    own = (directions @ centres.T).argmax(axis=1)
    shares = [values["clusters"][f"share of cluster {k + 1}"]["value"] for k in range(3)]
    assert shares == pytest.approx([(own == k).mean() for k in range(3)])
    assert shares == sorted(shares, reverse=True)
    for k in range(3):
        mean = directions[own == k].mean(axis=0)
        np.testing.assert_allclose(centres[k], mean / np.linalg.norm(mean), atol=2e-3)
    cosines = np.einsum("nd,nd->n", directions, centres[own])
    assert values["clusters"]["cosine of images with their centre"]["value"] == pytest.approx(cosines.mean(), abs=1e-5)
    assert values["clusters"]["cosine of centres 1 and 3"]["value"] == pytest.approx(centres[0] @ centres[2], abs=1e-5)
    fewer = measure(replace(configuration, images=40), progress=False).record
    assert fewer["measurement"]["images"] == 40
    with pytest.raises(ValueError, match="images=251, and cifar10 has 250: take fewer, or all"):
        measure(replace(configuration, images=251), progress=False)
    with pytest.raises(ValueError, match="clusters=41, and there are 40 images: take fewer clusters"):
        measure(replace(configuration, images=40, clusters=41), progress=False)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps=3", "unknown field 'steps': choose one of clusters, data, data_dir, directions"),
        ("data=mnist", "data=mnist: Input should be 'digits', 'cifar10' or 'imagenet64'"),
        ("tau=2", "tau=2.0 and threshold=0.25 are cosines"),
        ("threshold=0", "are cosines, and the second is above 0"),
        ("thresholds=0.3,0.3", "none comes twice"),
        ("thresholds=0.25", "none comes twice"),
        ("thresholds=-0.1", "all are cosines, above 0 and at most 1"),
        ("thresholds=nan", "thresholds=nan: the number must be finite"),
        ("images=1", "images must be at least 2; got 1"),
        ("directions=9", "directions must be at least 100; got 9"),
        ("clusters=-1", "clusters must be at least 0; got -1"),
        ("masks=weak,weak", "masks=weak,weak: name none twice"),
        ("masks=faint", "Input should be 'weak' or 'strong'"),
        ("seed=-1", "seed must be at least 0; got -1"),
    ],
)
def test_wrong_settings_are_refused_with_a_remedy(override, message):
    with pytest.raises(ValueError, match=message):
        with_overrides(by_name(NAME), [override])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tau=-0.9"], "so none is rejected: raise tau"),
        (["tau=1", "threshold=0.126"], "hardly any direction is left. Raise the threshold, or lower tau"),
    ],
)
def test_axes_that_leave_nothing_to_measure_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        measure(with_overrides(by_name(NAME), [*QUICK, *overrides]), progress=False)


def test_the_named_measurements_have_the_numbers_of_the_experiments():
    assert {name: one.experiment for name, one in MEASUREMENTS.items()} == {name: name for name in MEASUREMENTS}
    for one in MEASUREMENTS.values():
        trained = catalog.by_name(f"lee2025/{one.data}/ot")
        assert (one.tau, one.threshold) == (trained.evaluation.prune_tau, trained.evaluation.prune_threshold)
        assert one.flips == trained.flips
    large = by_name("lee2025/geometry/cifar10")
    assert (large.masks, large.clusters) == (("weak", "strong"), 3)
    assert (large.tau, large.all_thresholds) == (0.01, (0.048, 0.05, 0.055, 0.06, 0.07, 0.08))
    huge = by_name("lee2025/geometry/imagenet64")  # trained from the Gaussian only, and too large for k-means
    assert (huge.masks, huge.clusters, huge.tau, huge.threshold) == ((), 0, 0.005, 0.026)


def test_a_record_comes_back_from_json_and_measures_the_same(coloured, few_samples):
    _, configuration, _ = coloured
    record = measure(configuration, progress=False).record
    back = json.loads(json.dumps(record))
    assert back == record
    assert "data_dir" not in back["configuration"]
    again = measure(TypeAdapter(GeometryConfig).validate_python(back["configuration"]), progress=False).record
    for part in ("values", "curves", "histograms"):
        assert again[part] == record[part]
    other = measure(replace(configuration, seed=1), progress=False).record
    assert other["values"]["rejected_share"] != record["values"]["rejected_share"]
    assert {"commit", "versions", "hardware"} <= set(record["environment"])


def cells(line):
    return [text.strip() for text in line.split("│")[1:-1]]


def test_a_record_stands_in_the_table_beside_the_paper(coloured, few_samples, tmp_path, monkeypatch, capsys):
    _, configuration, _ = coloured
    settings = replace(configuration, threshold=0.048, thresholds=(0.05, 0.2), masks=("strong",))
    monkeypatch.setattr(
        sources.Pruned, "sample_counted", lambda self, n, generator: (None, 4 * n)
    )  # in 192 dimensions .048 keeps nothing
    monkeypatch.setattr(sources.Pruned, "share_kept", lambda self, n, generator: 2**-12)
    record = measure(settings, progress=False).record
    empty = tmp_path / "results"
    empty.mkdir()
    monkeypatch.setattr(reference, "RESULTS", empty)
    records.write_json(empty / "a.json", record)
    tables.lee2025([])
    lines = capsys.readouterr().out.splitlines()
    rows = {row[0]: row[1:] for row in map(cells, lines) if len(row) == 4}
    ends = [f"{one['ends']['value']}" for one in record["values"]["rejected_ends"].values()]
    assert rows["rejected ends at tau = 0.1, of 384"] == ["", *ends]
    assert rows["noise rejected at 0.05, %"] == ["99.94", *["99.98 ± 0.00*"] * 2]
    assert rows["noise rejected at 0.048, %"] == ["", *["99.98 ± 0.00*"] * 2]
    assert rows["proposals per sample, plain rejection"][1].startswith("4,096")
    assert rows["proposals per sample, the exact sampler"] == ["", "4.0 ± 0.3", "4.0 ± 0.3"]
    assert rows["mean length of noise"] == ["55.4185", f"{scipy.stats.chi(192).mean():.4f}", ""]
    assert rows["factor of norm alignment"][0] == "2.0376"
    masked = record["values"]["masked"]
    assert rows["frequencies masked, strong"] == ["63", f"{masked['strong']['value']}", ""]
    assert rows["of luminance, strong"][0] == "0"
    assert "- not run: Geometry of digits, 8x8" in lines
    assert not [line for line in lines if "…" in line]


def test_every_number_of_the_paper_is_measured_in_the_stored_record():
    stored = reference.find_records([reference.RESULTS])["lee2025/geometry/cifar10"]
    assert TypeAdapter(GeometryConfig).validate_python(stored["configuration"]) == MEASUREMENTS[stored["experiment"]]
    assert stored["measurement"]["images"] == 50_000
    values = stored["values"]
    paper = geometry_table.of_paper("cifar10")
    assert len(paper) == len(reference.read_reference("lee2025_geometry")) + 1
    for (measured, of), number in paper.items():
        if measured == "rejected_percent":
            # No definition that was tried gives all of them: at .06 ours is 5.6 in 100 below.
            found, tolerance = 100 * values["rejected_share"]["with mirror images"][of]["value"], 6
        else:
            found = values[measured][of]["value"]
            tolerance = 1 if measured == "masked" else 0.005
        assert abs(found - number) <= tolerance, (measured, of)
    assert values["rejected_ends"]["with mirror images"]["ends"]["value"] == 2335
    for strength in ("weak", "strong"):
        assert values["masked"][f"{strength}, colours rounded"]["value"] == paper["masked", strength]


def test_the_picture_shows_the_curve_and_no_text_on_another(digits):
    figure = geometry_figure(digits)
    figure.draw_without_rendering()
    left = figure.axes[0]
    curve = digits.record["curves"]["images"]
    assert list(left.lines[0].get_xdata()) == curve["thresholds"]
    assert list(left.lines[0].get_ydata()) == curve["rejected_share"]
    shown = [axes.images[0].get_array() for axes in figure.axes[1:] if axes.images]
    assert len(shown) == 6 + 6 + 3
    np.testing.assert_allclose(shown[0] - 0.5, digits.full[0, 0] / (2 * digits.full[0].abs().max()), atol=1e-6)
    labels = [axes.get_xlabel() for axes in figure.axes[1:] if axes.images]
    assert labels[0] == f"{float(digits.full_cosines[0]):#.2g}"
    share = digits.record["values"]["clusters"]["share of cluster 1"]["value"]
    assert labels[12] == f"{100 * share:.0f}%"
    titles = [part._suptitle for part in (figure, *figure.subfigs[1].subfigs)]
    texts = [*titles, left._left_title, left.xaxis.label, left.yaxis.label, *left.get_legend().get_texts()]
    for axis, (low, high) in ((left.xaxis, left.get_xlim()), (left.yaxis, left.get_ylim())):
        texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    texts += [axes.xaxis.label for axes in figure.axes[1:]]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    assert len(boxes) > 25
    for (one, box), (other, another) in combinations(boxes, 2):
        assert not box.overlaps(another), f"{one!r} lies on {other!r}"
    for text, box in boxes:
        assert figure.bbox.contains(box.x0, box.y0), text
        assert figure.bbox.contains(box.x1, box.y1), text


def test_the_paper_s_points_are_in_the_picture_of_its_data(coloured, few_samples):
    figure = geometry_figure(measure(coloured[1], progress=False))
    (points,) = [line for line in figure.axes[0].lines if line.get_label() == "the paper"]
    assert list(points.get_xdata()) == [0.05, 0.055, 0.06, 0.07, 0.08]
    assert list(points.get_ydata()) == pytest.approx([0.9994, 0.949, 0.701, 0.119, 0.0097])


def test_the_command_leaves_record_and_picture_and_measures_anew_on_request(few_samples, tmp_path, capsys):
    folder = tmp_path / "run"

    def fails(*arguments):
        with pytest.raises(SystemExit) as left:
            cli.main(["measure", NAME, *QUICK, *arguments, "--run-dir", str(folder)])
        assert left.value.code == 2
        return capsys.readouterr().err

    assert "raise tau" in fails("tau=-0.9")
    assert not folder.exists()
    cli.main(["measure", NAME, *QUICK, "--run-dir", str(folder)])
    printed = capsys.readouterr()
    assert sorted(path.name for path in folder.iterdir()) == ["geometry.png", "record.json"]
    kept = records.read_json(folder / "record.json")
    ends = kept["values"]["rejected_ends"]["images"]["ends"]["value"]
    assert ["rejected ends at tau = 0.1, of 128", f"{ends}"] in [cells(line) for line in printed.out.splitlines()]
    assert "spherical k-means, 3 clusters" in printed.err
    assert "is not empty: add --overwrite to measure anew" in fails()
    cli.main(["measure", NAME, *QUICK, "seed=3", "--overwrite", "--run-dir", str(folder)])
    assert records.read_json(folder / "record.json")["configuration"]["seed"] == 3
    (folder / "config.json").write_text("{}")  # as in the folder of a training
    assert "holds other things than a measurement (config.json)" in fails("--overwrite")


def test_listed_settings_can_be_given_back(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    cli.main(["list"])
    printed = capsys.readouterr().out
    for name, one in MEASUREMENTS.items():
        assert name in printed
        cli.main(["list", name])
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(f"settings of {name}: fmcore measure")
        settings = [line.strip() for line in lines[1:]]
        assert with_overrides(one, settings) == one
