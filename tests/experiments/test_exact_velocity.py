"""A network beside the exact velocity: against brute force in float64, and where the answer is known in advance."""

import dataclasses
import math
from types import SimpleNamespace

import matplotlib.image
import pytest
import torch

from fmcore.closed_form import EmpiricalVelocity
from fmcore.data import digits
from fmcore.experiments.config.overrides import with_overrides
from fmcore.experiments.evaluate import exact_velocity, nearest
from fmcore.experiments.evaluate.pictures import hybrids_figure
from fmcore.experiments.run.training_batch import training_images
from fmcore.papers import catalog
from fmcore.sources import Gaussian

SETTINGS = ["velocity_pairs=40", "velocity_times=0,0.3,0.9", "hybrid_switches=0,0.3,1", "hybrid_images=6"]
SETTINGS += ["solver_batch=4", "train_images=20"]


class Loaded:
    """What `exact_velocity` reads of a run, with any velocity in place of the network's."""

    def __init__(self, velocity=None, *changes):
        self.configuration = with_overrides(catalog.by_name("bertrand2025/digits/hybrid"), [*SETTINGS, *changes])
        self.data, self.path, self.device = digits(), self.configuration.build_path(), torch.device("cpu")
        self.source = Gaussian(self.data.shape, std=self.path.source_scale)
        self.fitted = SimpleNamespace(source=Gaussian(self.data.shape))
        self.training_images = training_images(self.configuration, self.data)
        self.velocity = velocity or (lambda x, t: torch.zeros_like(x))


def exact(run):
    return EmpiricalVelocity(exact_velocity.training_points(run), run.path, scale=run.data.scaled)


def seeded():
    return torch.Generator().manual_seed(3)


def brute_velocity(points, x, t):
    """u* of the rectified path in float64, as the formula says."""
    points, x = points.double().flatten(1), x.double().flatten(1)
    weights = torch.softmax(-torch.cdist(x, t * points).square() / (2 * (1 - t) ** 2), dim=1)
    return (weights @ points - x) / (1 - t)


def test_the_error_of_the_exact_velocity_is_zero():
    run = Loaded()
    run.velocity = exact(run)
    for one in exact_velocity.velocity_errors(run, seeded()):
        assert one["error"] == 0
        assert one["exact"] > 1


def test_errors_against_brute_force():
    run = Loaded()
    points = run.data.scaled(run.training_images)
    generator = seeded()
    rows = torch.randint(20, (40,), generator=generator)
    x1, x0 = points[rows], run.source.sample(40, generator)
    for one in exact_velocity.velocity_errors(run, seeded()):
        t = one["t"]
        u = brute_velocity(points, (1 - t) * x0 + t * x1, t)
        assert one["exact"] == pytest.approx(float(u.square().mean()), rel=1e-5)
        assert one["error"] == pytest.approx(one["exact"], rel=1e-6)  # a network that predicts nothing
        conditional = (u - (x1 - x0).flatten(1).double()).square().mean()
        assert one["conditional"] == pytest.approx(float(conditional), rel=1e-4, abs=1e-9)
        spread = u.square().mean(dim=1).std() / 40**0.5
        assert one["standard_error"] == pytest.approx(float(spread), rel=1e-4)


def test_the_scale_of_the_path_is_there_once():
    """Variance exploding: x_t = x1 + sigma x0 with sigma = 0.01 * 5000^(1 - t), and sigma' = -ln(5000) sigma."""
    run = Loaded(None, "path=variance_exploding", "velocity_times=0,0.3,0.9,1")
    points = run.data.scaled(run.training_images).flatten(1).double()
    generator = seeded()
    rows = torch.randint(20, (40,), generator=generator)
    x1, x0 = points[rows], torch.randn(40, 1, 8, 8, generator=generator).flatten(1).double()
    found = exact_velocity.velocity_errors(run, seeded())
    for one, t in zip(found, (0, 0.3, 0.9, 1 - 1e-5), strict=True):
        sigma = 0.01 * 5000 ** (1 - t)
        xt = x1 + sigma * x0
        weights = torch.softmax(-torch.cdist(xt, points).square() / (2 * sigma**2), dim=1)
        u = -math.log(5000) * (xt - weights @ points)
        assert one["exact"] == pytest.approx(float(u.square().mean()), rel=1e-3)
    # far from the data u* is sigma' x0: (50 ln 5000)^2 times E x0^2, which is 1 up to sqrt(2 / 2560)
    assert found[0]["exact"] == pytest.approx((50 * math.log(5000)) ** 2, rel=0.1)


def test_the_exact_velocity_is_asked_up_to_the_last_time_of_the_path_only():
    """At t = 1 of the rectified path it is 0 / 0; just before, it is the conditional velocity x1 - x0 of each pair."""
    asked = []

    def network(x, t):
        asked.append(float(t))
        return torch.zeros_like(x)

    run = Loaded(network, "velocity_times=0.9,1")
    generator = seeded()
    rows = torch.randint(20, (40,), generator=generator)
    x1, x0 = run.data.scaled(run.training_images)[rows], torch.randn(40, 1, 8, 8, generator=generator)
    last = exact_velocity.velocity_errors(run, seeded())[-1]
    assert last["t"] == 1
    assert max(asked) == pytest.approx(1 - 1e-5, abs=1e-7)
    assert max(asked) < 1
    assert last["error"] == pytest.approx(float((x1 - x0).square().mean()), rel=0.03)
    assert last["conditional"] < 1e-3


def test_hybrid_samples_end_at_the_last_time_of_the_path():
    """The last step is a thousandth shorter than the others, and stops that much short of where it leads."""
    edge, asked = 2 * 8 / 17 - 1, []
    goal = edge + 2e-4  # just inside bin 8

    def network(x, t):
        asked.append(float(t))
        return 100 * (goal - x) if t > 0.985 else 0 * x

    run = Loaded(network, "hybrid_switches=0,1")
    found = exact_velocity.hybrid_samples(run, seeded()).images[0]
    assert len(asked) == 2 * 100  # two batches of 100 steps from the switch at 0, and none from the one at 1
    assert max(asked) == pytest.approx(0.99)
    start = run.source.sample(6, seeded())
    below, above = start < goal - 0.5, start > goal
    assert min(int(below.sum()), int(above.sum())) > 50
    assert torch.allclose(found[below], torch.tensor(2 * 7.5 / 17 - 1))  # still in bin 7
    assert torch.allclose(found[above], torch.tensor(2 * 8.5 / 17 - 1))


def test_a_switch_at_one_leads_to_training_images_and_one_at_zero_is_the_network_s():
    run = Loaded(lambda x, t: torch.full_like(x, -0.25))
    found = exact_velocity.hybrid_samples(run, seeded())
    assert found.images.shape == (3, 6, 1, 8, 8)
    train = run.data.scaled(run.training_images)
    for image in found.images[-1]:
        assert (train == image).flatten(1).all(dim=1).any()
    assert torch.equal(found.images[-1], found.exact)
    start = run.source.sample(6, seeded())
    alone = (start - 0.25).clamp(-1, 1)  # a constant velocity moves every pixel by the same
    assert (found.images[0] - alone).abs().max() <= 1 / run.data.levels + 1e-4

    measures = exact_velocity.hybrid_measures(run, found)
    assert [one["switch"] for one in measures] == [0, 0.3, 1]
    assert measures[-1]["distance_to_nearest_training_image"] == 0
    assert (measures[-1]["share_of_copies"], measures[-1]["share_decided"]) == (1, 1)
    brute = torch.cdist(found.images[0].flatten(1).double(), train.flatten(1).double())
    nearest = brute.min(dim=1).values
    assert measures[0]["distance_to_nearest_training_image"] == pytest.approx(float(nearest.mean()))
    assert measures[0]["standard_error"] == pytest.approx(float(nearest.std()) / 6**0.5)


def test_a_hybrid_follows_the_first_velocity_up_to_the_switch():
    """With a network that stands still, the sample is where u* was at the switch."""
    run = Loaded()
    found = exact_velocity.hybrid_samples(run, seeded())
    x, velocity = run.source.sample(6, seeded()), exact(run)
    for step in range(30):
        x = x + velocity(x, torch.tensor(step / 100)) / 100
    assert (found.images[1] - x.clamp(-1, 1)).abs().max() <= 1 / run.data.levels + 1e-3


def test_batches_do_not_change_the_samples():
    whole = exact_velocity.hybrid_samples(Loaded(None, "solver_batch=6"), seeded())
    parts = exact_velocity.hybrid_samples(Loaded(None, "solver_batch=1"), seeded())
    assert torch.equal(whole.images, parts.images)


def test_mirror_images_count_where_the_training_had_them():
    assert len(exact_velocity.training_points(Loaded())) == 20
    points = exact_velocity.training_points(Loaded(None, "flips=True"))
    assert len(points) == 40
    assert torch.equal(points[20:], points[:20].flip(-1))


def test_copies_of_mirror_images_have_a_name_of_their_own():
    """One sample is a training image, one the mirror image of another: one copy or two."""
    run = Loaded(None, "flips=True")
    train = run.training_images
    drawn = torch.stack([train[3], train[5].flip(-1)])
    scaled = run.data.scaled(drawn)
    made = exact_velocity.Hybrids((0.0,), scaled[None], scaled)
    [one] = exact_velocity.hybrid_measures(run, made)
    brute = torch.cdist(scaled.flatten(1).double(), run.data.scaled(train).flatten(1).double())
    assert one["share_of_copies"] == 0.5
    assert one["distance_to_nearest_training_image"] == pytest.approx(float(brute.min(dim=1).values.mean()))
    assert one["share_of_copies_with_mirror_images"] == 1
    assert one["distance_with_mirror_images"] == 0
    assert one["share_decided"] == 1
    # the names that records share mean the same in both places
    beside = nearest.nearest_distances(run, [drawn, drawn], run.data.held_out)
    for name in ("share_of_copies", "distance_to_nearest_training_image"):
        assert beside[name]["generated"]["value"] == pytest.approx(one[name])
    [plain] = exact_velocity.hybrid_measures(Loaded(), made)
    assert not [name for name in plain if "mirror" in name]


def test_the_picture_has_a_row_a_start_and_a_column_a_switch(tmp_path):
    run = Loaded()
    found = exact_velocity.hybrid_samples(run, seeded())
    hybrids_figure(run, found, tmp_path / "a.png")
    narrow = dataclasses.replace(found, switches=(0.0, 0.3), images=found.images[:2])
    hybrids_figure(run, narrow, tmp_path / "b.png")  # u* alone becomes the third column
    a, b = (matplotlib.image.imread(tmp_path / name) for name in ("a.png", "b.png"))
    assert a.shape == b.shape
    assert (a == b).all()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("hybrid_switches=0.3,0.1", "hybrid_switches must be increasing times from 0 to 1, got 0.3,0.1"),
        ("hybrid_switches=0,1.5", "increasing times from 0 to 1"),
        ("hybrid_switches=0.125", "must be multiples of 0.01, got 0.125"),
        ("velocity_times=0,0", "velocity_times must be increasing"),
        ("velocity_pairs=1", "velocity_pairs must be 0, to leave it out, or at least 2"),
        ("hybrid_images=0", "hybrid_images must be at least 1"),
        ("train_images=1", "train_images must be at least 2"),
    ],
)
def test_wrong_settings_are_refused_with_a_remedy(setting, message):
    with pytest.raises(ValueError, match=message):
        Loaded(None, setting)
