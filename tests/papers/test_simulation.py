"""The ten scenarios at a size of seconds, and how runs and checkpoints become one number."""

from __future__ import annotations

import math

import pytest
import torch

from fmcore.metrics import wasserstein2
from fmcore.papers.lee2025 import simulation
from fmcore.papers.lee2025.simulation_setting import MEASURES, PAPER, RELEASED, SCENARIOS, Setting
from tests.analytic import seeded

TINY = Setting(steps=40, batch=8, every=20, full_steps=6, full_every=4, runs=2, points=96, seed=1)


def test_settings_are_those_of_the_paper_and_of_its_code():
    assert PAPER.checkpoints("transport") == (5_000, 10_000, 15_000, 20_000)
    assert RELEASED.checkpoints("pruned") == tuple(range(10_000, 100_001, 10_000))
    assert (PAPER.batch, RELEASED.batch, PAPER.runs, PAPER.points) == (16, 10, 10, 1024)
    assert TINY.checkpoints("directional_full") == (4, 6)
    assert (
        PAPER.checkpoints("directional_full")
        == RELEASED.checkpoints("directional_full")
        == (*range(312, 3121, 312), 3125)
    )
    assert len(SCENARIOS) == 10


def test_every_scenario_runs_and_is_measured(monkeypatch):
    monkeypatch.setattr(simulation, "CACHED", 200)
    names = [name for name in SCENARIOS if name not in ("density_200", "density_6000", "density_10000")]
    said = []
    results = simulation.simulate(TINY, names, said.append)
    assert list(results) == names
    for name, values in results.items():
        assert values.shape == (2, 2, len(MEASURES)), name
        assert values.isfinite().all(), name
        assert (values[0] - values[1]).abs().max() > 1e-3, name
    again = simulation.simulate(TINY, ["independent"])["independent"]
    assert torch.allclose(again, results["independent"], atol=1e-3)
    assert "10 networks: independent, transport, density_20, directional, directional_tight" in said
    assert "2 networks: directional_full" in said


def test_measures_of_the_data_themselves():
    data = simulation.target(PAPER)
    values = dict(zip(MEASURES, simulation.measure(data, data, seeded(0)).tolist(), strict=True))
    assert [values[name] for name in ("distance", "failures", "wasserstein2", "normalized_wasserstein")] == [0, 0, 0, 0]
    assert values["coverage"] == 1
    assert values["mode_divergence"] == pytest.approx(0, abs=1e-12)
    assert 0.1 < values["wasserstein_given_shares"] < 1
    fresh = simulation.three_directions(1024, seeded(3))
    found = dict(zip(MEASURES, simulation.measure(fresh, data, seeded(0)).tolist(), strict=True))
    assert found["wasserstein2"] == pytest.approx(wasserstein2(fresh, data))
    assert found["failures"] < 0.05


def test_the_pruned_ring_keeps_away_from_an_empty_direction():
    data = simulation.target(PAPER)
    ring = simulation.pruned_ring(data)
    assert ring.axes.count == 1
    points = ring.sample(4000, seeded(0))
    (sign,) = 1 - 2 * ring.axes.negative.long()
    cosines = (sign * torch.nn.functional.normalize(points) @ ring.axes.axes.T)[:, 0]
    assert cosines.max() <= 0.98 + 1e-6
    assert cosines.max() > 0.97
    removed = 2 * math.degrees(math.acos(0.98))
    empty = torch.nn.functional.normalize(data) @ (sign * ring.axes.axes[0])
    assert empty.max() < (torch.nn.functional.normalize(data) @ (-sign * ring.axes.axes[0])).max()
    assert removed == pytest.approx(23, abs=0.1)


def test_summary_takes_the_best_checkpoint_of_each_run_or_the_last():
    values = torch.arange(2 * 3 * len(MEASURES), dtype=torch.float64).view(2, 3, -1)
    coverage = MEASURES.index("coverage")
    best, last = simulation.summary(values), simulation.summary(values, best=False)
    for m in range(len(MEASURES)):
        chosen = values[:, 2 if m == coverage else 0, m]
        assert best[m].tolist() == pytest.approx([chosen.mean().item(), chosen.std().item()])
        assert last[m].tolist() == pytest.approx([values[:, 2, m].mean().item(), values[:, 2, m].std().item()])
    assert simulation.summary(values[:1])[0, 1].isnan()


def test_an_unknown_scenario_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown scenario 'gaussian'.*directional_full"):
        simulation.simulate(TINY, ["gaussian"])
