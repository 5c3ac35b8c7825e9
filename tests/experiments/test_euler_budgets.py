"""Samples for a few Euler steps: the steps by hand, on a flow between Gaussians, where each is a factor."""

import numpy as np
import pytest
import torch
from scipy import stats

from fmcore.data import to_uint8
from fmcore.experiments.evaluate import euler_budgets
from fmcore.experiments.evaluate.frechet import References
from fmcore.experiments.run.samples import Samples
from fmcore.metrics import features
from fmcore.metrics.features import FeatureSpace
from fmcore.training import seeded_generator
from tests.experiments.made_run import SPREAD, MadeRun, frechet

SETTINGS = ["generated_sets=2", "solver_batch=40", "budgets=2,5"]
# Three pixels; two of the middle would do, and the corner is always 0.
SPACE = FeatureSpace("classifier", "three pixels", lambda images: images[:, 0, 3, 2:5].double())
GENERATOR = torch.Generator().manual_seed(5)
OWN = Samples(torch.randint(17, (80, 1, 8, 8), generator=GENERATOR).to(torch.uint8), torch.full((80,), 2.0))


def measured(run):
    one = References(SPACE, features.moments(SPACE, run.data.train), features.moments(SPACE, run.data.held_out[:40]))
    return euler_budgets.measured_budgets(run, one, OWN)


def distances(run, images, reference=None):
    """Means over two sets, to the training split."""
    goal = SPACE.extract(run.data.train if reference is None else reference)
    return [frechet(SPACE.extract(part), goal) for part in images.split(40)]


def by_hand(run, steps, factor=1.0):
    """Euler steps on [0, 1 - 1e-5] for data scaled up by a factor, N(0, (factor SPREAD)^2), and back."""
    end, spread, gain = 1 - 1e-5, factor * SPREAD, 1.0
    for k in range(steps):
        t = k * end / steps
        gain *= 1 + end / steps * (t * spread**2 - (1 - t)) / ((1 - t) ** 2 + (t * spread) ** 2)
    noise = [torch.randn(40, 1, 8, 8, generator=seeded_generator(0, f"samples {chunk}")) for chunk in range(2)]
    return to_uint8(torch.cat(noise) * gain / factor, run.data.levels)


def by_kind(found):
    return {(one["start"], one["steps"], one["nfe"]): one for one in found["budgets"]}


def test_each_budget_is_what_its_euler_steps_lead_to(tmp_path):
    run = MadeRun(tmp_path, *SETTINGS)
    found = by_kind(measured(run))
    assert list(found) == [("source", "uniform", 2), ("source", "uniform", 5)]
    for (_, _, steps), one in found.items():
        expected = distances(run, by_hand(run, steps))
        assert one["frechet_distance"] == pytest.approx(np.mean(expected), rel=1e-6)
        assert one["spread"] == pytest.approx(np.std(expected, ddof=1), rel=1e-5)
        to_held_out = distances(run, by_hand(run, steps), run.data.held_out[:40])
        assert one["to_held_out"] == pytest.approx(np.mean(to_held_out), rel=1e-6)
        assert one["feature_space"] == "classifier"


def test_aligned_steps_are_drawn_anew_where_the_uniform_ones_are_those_of_the_run(tmp_path):
    """Its own samples stand for its own steps alone: not for other grids, other numbers or another method."""
    run = MadeRun(tmp_path, *SETTINGS, "align_steps=True", "method=euler", "solver_steps=2")
    measure = measured(run)
    found, factor = by_kind(measure), measure["step_alignment_factor"]
    expected = {
        ("source", "uniform", 2): OWN.images,
        ("source", "uniform", 5): by_hand(run, 5),
        ("source", "aligned", 2): by_hand(run, 2, factor),
        ("source", "aligned", 5): by_hand(run, 5, factor),
    }
    assert list(found) == list(expected)
    values = {key: np.mean(distances(run, images)) for key, images in expected.items()}
    for key, value in values.items():
        assert found[key]["frechet_distance"] == pytest.approx(value, rel=1e-6)
    assert len({round(value, 3) for value in values.values()}) == 4
    other = by_kind(measured(MadeRun(tmp_path, *SETTINGS, "method=heun", "solver_steps=2")))
    assert other["source", "uniform", 2]["frechet_distance"] == pytest.approx(
        np.mean(distances(run, by_hand(run, 2))), rel=1e-6
    )


def test_the_factor_is_the_ratio_of_mean_lengths_of_noise_and_of_the_images_trained_on(tmp_path):
    run = MadeRun(tmp_path, "train_images=30")
    grey = run.training_images.numpy().reshape(30, -1).astype(float)
    lengths = np.linalg.norm((grey + 0.5) * 2 / 17 - 1, axis=1)
    assert euler_budgets.alignment(run) == pytest.approx(stats.chi(64).mean() / lengths.mean(), rel=1e-6)


def test_pruned_starts_are_compared_too_and_never_with_the_own_samples(tmp_path):
    changes = [*SETTINGS, "prune_tau=0.1", "prune_threshold=0.3", "method=euler", "solver_steps=2"]
    run = MadeRun(tmp_path, *changes)
    measure = measured(run)
    found, pruned = by_kind(measure), measure["pruning"]
    assert list(found) == [(start, "uniform", steps) for start in ("source", "pruned") for steps in (2, 5)]
    assert found["pruned", "uniform", 2]["frechet_distance"] != found["source", "uniform", 2]["frechet_distance"]
    # as many directions of 2,000 as have no cosine above the threshold with a rejected end of an axis
    axes = run.pruned()[1].axes
    noise = torch.randn(20_000, 64, generator=torch.Generator().manual_seed(1))
    kept = float((axes.largest_cosine(noise.view(-1, 1, 8, 8)) <= 0.3).double().mean())
    assert pruned["share_kept"] == pytest.approx(kept, abs=4 * (kept * (1 - kept) / 2000) ** 0.5)
    assert (pruned["of_axes"], pruned["tau"], pruned["threshold"]) == (128, 0.1, 0.3)
    assert pruned["proposals_per_sample"] >= 1


def test_without_budgets_nothing_is_drawn(tmp_path):
    def refuse(x, t):
        raise AssertionError("a velocity was asked for")

    assert measured(MadeRun(tmp_path, "budgets=", velocity=refuse)) == {}
