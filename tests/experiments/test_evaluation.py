"""What a record says of a run: each number taken once more from its definition, on a run whose velocity is known."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from fmcore.data import dequantize
from fmcore.experiments import sealed
from fmcore.experiments.evaluate import evaluation, frechet, likelihoods
from fmcore.experiments.run import samples
from fmcore.metrics import features
from fmcore.metrics.classifier import cached_classifier
from fmcore.metrics.features import FeatureSpace
from fmcore.training import seeded_generator
from tests.experiments.made_run import SPREAD, MadeRun
from tests.experiments.made_run import frechet as by_scipy

SETTINGS = ["set_images=60", "generated_sets=2", "method=euler", "solver_steps=3", "solver_batch=50", "draws=3"]
SETTINGS += ["likelihood_images=7", "rtol=1e-4", "atol=1e-4", "divergence=exact", "classifier_steps=5"]
SETTINGS += ["train_images=40", "flips=True", "nearest_images=20", "curve_images=50", "budgets=2,3", "batch=8"]


@pytest.fixture(scope="module")
def evaluated(own_cache, tmp_path_factory):
    """A run with two snapshots, its record, and how often moments of the training split were taken for it."""
    folder = tmp_path_factory.mktemp("runs") / "made"
    run = MadeRun(folder, *SETTINGS)
    (folder / "snapshots").mkdir()
    for step in (4, 10):
        (folder / "snapshots" / f"{step:08d}.safetensors").touch()
    lines = [f"{step},{step}.5" for step in range(10)]
    (folder / "losses.csv").write_text("\n".join(["step,loss", *lines, ""]))
    with pytest.MonkeyPatch.context() as patch:
        taken, moments = [], features.moments

        def counted(space, images):
            if len(images) == len(run.data.train):
                taken.append(space.name)
            return moments(space, images)

        patch.setattr(features, "moments", counted)
        return run, evaluation.evaluate_run(run), taken


def in_features(run, images):
    trained = cached_classifier(run.data, 0, 5, run.device)
    return trained.network.features(run.data.scaled(images)).numpy()


def value(record, measure, of):
    return record["values"][measure][of]["value"]


def test_held_out_images_are_spread_over_the_split_and_compared_with_all_training_images(evaluated):
    run, record, _ = evaluated
    rows = [k * 297 // 60 for k in range(60)]
    real, train = in_features(run, run.data.held_out[rows]), in_features(run, run.data.train)
    found = value(record, "classifier_frechet_distance", "held out (real)")
    assert found == pytest.approx(by_scipy(real, train), rel=1e-3)
    first = by_scipy(in_features(run, run.data.held_out[:60]), train)
    mirrored = by_scipy(real, in_features(run, torch.cat([run.data.train, run.data.train.flip(-1)])))
    seen = by_scipy(real, in_features(run, run.training_images))
    for other in (first, mirrored, seen, 0):
        assert found != pytest.approx(other, rel=1e-2)


def test_generated_sets_are_compared_with_both_splits(evaluated):
    run, record, _ = evaluated
    drawn = samples.share(run, 120, "samples").images
    rows = [k * 297 // 60 for k in range(60)]
    for of, images in (("generated", run.data.train), ("generated, to held out", run.data.held_out[rows])):
        goal = in_features(run, images)
        distances = [by_scipy(in_features(run, one), goal) for one in (drawn[:60], drawn[60:])]
        found = record["values"]["classifier_frechet_distance"][of]
        assert found["value"] == pytest.approx(np.mean(distances), rel=1e-3)
        assert found["spread"] == pytest.approx(np.std(distances, ddof=1), rel=0.05)
        assert found["spread_is"] == "standard deviation over 2 generated sets"


def test_the_training_split_is_extracted_once(evaluated):
    _, record, taken = evaluated
    assert len(record["curve"]) == len(record["budgets"]) == 2
    assert taken == ["classifier"]


def test_the_nearest_image_is_one_of_those_trained_on_and_not_mirrored(evaluated):
    run, record, _ = evaluated
    drawn = samples.share(run, 120, "samples").images
    rows = [k * 297 // 60 for k in range(20)]

    def brute(images, train):
        scaled = (run.data.scaled(x).flatten(1).double() for x in (images, train))
        return float(torch.cdist(*scaled).min(dim=1).values.mean())

    of_sets = [brute(one, run.training_images) for one in (drawn[:20], drawn[60:80])]
    found = record["values"]["distance_to_nearest_training_image"]
    assert found["generated"]["value"] == pytest.approx(np.mean(of_sets))
    assert found["held out (real)"]["value"] == pytest.approx(brute(run.data.held_out[rows], run.training_images))
    assert found["held out (real)"]["value"] > 1.1 * brute(run.data.held_out[rows], run.data.train)


def test_a_point_of_the_curve_says_how_often_the_images_of_the_training_were_seen(evaluated):
    run, record, _ = evaluated
    first, second = record["curve"]
    assert [(point["step"], point["epoch"]) for point in (first, second)] == [(4, 0.8), (10, 2.0)]  # 8 of 40 per step
    assert (first["mean_loss"], second["mean_loss"]) == (2.0, 7.0)  # of steps 0 to 3, and 4 to 9
    assert run.loaded == ["00000004.safetensors", "00000010.safetensors", "weights.safetensors"]
    drawn = samples.share(run, 50, "curve").images
    expected = by_scipy(in_features(run, drawn), in_features(run, run.data.train))
    assert first["classifier_frechet_distance"] == pytest.approx(expected, rel=1e-3)
    with (run.folder / "curve.csv").open() as file:
        rows = [{name: float(text) for name, text in row.items()} for row in csv.DictReader(file)]
    assert rows == record["curve"]


def test_bits_of_a_known_density_and_what_the_record_says_of_them(evaluated):
    """The flow ends in N(0, SPREAD^2): bits/dim from its density, for the same dequantization noise."""
    run, record, _ = evaluated
    images = run.data.held_out[[k * 297 // 7 for k in range(7)]]
    draws = [dequantize(images, 17, seeded_generator(0, f"dequantization 0 {draw}")) for draw in range(3)]
    log_p = np.array([stats.norm(scale=SPREAD).logpdf(y.double().numpy()).reshape(7, -1).sum(1) for y in draws])
    one = -log_p / (64 * math.log(2)) + math.log2(17 / 2)
    bits = record["values"]["bits_per_dim"]
    assert bits["flow"]["value"] == pytest.approx(one.mean(), rel=1e-3)
    assert bits["flow"]["spread"] == pytest.approx(one.mean(0).std(ddof=1) / 7**0.5, rel=1e-2)
    many = -(np.logaddexp.reduce(log_p, axis=0) - math.log(3)) / (64 * math.log(2)) + math.log2(17 / 2)
    assert bits["flow, K = 3"]["value"] == pytest.approx(many.mean(), rel=1e-3)
    said = record["evaluation"]["likelihood"]
    assert said.startswith("7 held-out images, exact divergence, K = 3, dopri5, rtol 0.0001, atol 0.0001, NFE ")
    assert bits["uniform"]["value"] == pytest.approx(math.log2(17))


@pytest.mark.parametrize(("draws", "probes", "words"), [(1, 1, "1 probe, K = 1"), (2, 3, "3 probes, K = 2")])
def test_the_number_of_draws_is_said(tmp_path, draws, probes, words):
    changes = [f"draws={draws}", f"probes={probes}", "likelihood_images=2", "rtol=0.1", "atol=0.1"]
    said, values = likelihoods.likelihoods(MadeRun(tmp_path, *changes))
    assert f"2 held-out images, Hutchinson's estimate, {words}, dopri5" in said["likelihood"]
    assert ("flow, K = 2" in values) == (draws == 2)
    assert said["likelihood_spread"]["draws"] == draws


def test_the_record_in_the_folder_says_how_the_samples_were_drawn(evaluated):
    run, record, _ = evaluated
    assert sealed.read(run.folder / "record.json") == record
    found = record["evaluation"]
    assert (found["generated"], found["generated_sets"], found["nfe"]) == (120, 2, 3)
    assert found["reference"] == "train split (1500 images, no flips)"
    assert found["held_out_reference"] == "60 of 297 held-out images, no flips"
    assert (found["solver"], found["source"]) == ("euler, 3 steps", "Gaussian of standard deviation 1")
    assert found["time_grid"] == "uniform on [0, 0.99999]"
    assert sorted(file.name for file in run.folder.iterdir()) == [
        "curve.csv",
        "losses.csv",
        "record.json",
        "samples.png",
        "snapshots",
    ]


def test_more_images_in_a_set_than_are_held_out_are_refused(tmp_path):
    run = MadeRun(tmp_path, "set_images=298")
    with pytest.raises(ValueError, match=r"set_images=298, and digits has 297 held-out images: .*set_images=none"):
        evaluation.evaluate_run(run)
    assert json.loads((tmp_path / "record.json").read_text()) == {"experiment": "digits"}
    assert frechet.images_of_a_set(MadeRun(tmp_path, "set_images=297")) == 297
    assert frechet.images_of_a_set(MadeRun(tmp_path, "set_images=none")) == 297
    assert frechet.images_of_a_set(MadeRun(tmp_path, "set_images=5")) == 5


def test_images_are_spread_evenly():
    assert frechet.spread(10, 4).tolist() == [0, 2, 5, 7]
    assert frechet.spread(3, 9).tolist() == frechet.spread(3, None).tolist() == [0, 1, 2]


def test_networks_of_features_compare_all_generated_images_and_name_the_number(tmp_path):
    """Only a classifier is cheap enough for several sets; other numbers of images are other quantities."""
    run = MadeRun(tmp_path)
    generator = torch.Generator().manual_seed(0)
    train, real, generated = (torch.rand(n, 1, 2, 2, generator=generator) for n in (50, 10, 30))
    space = FeatureSpace("inception", "two pixels", lambda images: images.flatten(1)[:, :2])
    one = frechet.References(space, features.moments(space, train), features.moments(space, real))
    found = frechet.measured_distances(one, generated, 3)
    two = [x.flatten(1)[:, :2] for x in (train, real, generated)]
    of_generated = found["Inception Frechet distance of 30 images"]["generated"]
    of_real = found["Inception Frechet distance of 10 images"]["held out (real)"]
    assert of_generated["value"] == pytest.approx(by_scipy(two[2], two[0]))
    assert of_real["value"] == pytest.approx(by_scipy(two[1], two[0]))
    assert of_generated["spread"] is None
    assert frechet.classifier_only([one]) is None
    assert run.loaded == []
