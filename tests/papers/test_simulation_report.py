"""The simulation by name: record, picture, and Table 7 beside the paper's."""

import pytest
import torch

from fmcore.cli import main
from fmcore.experiments import records
from fmcore.experiments.config.overrides import with_overrides
from fmcore.papers import measurements, reference, tables
from fmcore.papers.lee2025 import simulation_report
from fmcore.papers.lee2025.simulation_setting import MEASURES, PAPER, RELEASED, SCENARIOS

TINY = ["steps=20", "batch=8", "every=10", "runs=2", "points=40", "scenarios=independent,pruned"]


@pytest.fixture
def no_results(tmp_path, monkeypatch):
    empty = tmp_path / "results"
    empty.mkdir()
    monkeypatch.setattr(reference, "RESULTS", empty)
    return empty


def cells(line):
    return [text.strip() for text in line.split("│")[1:-1]]


def test_both_settings_have_a_name():
    for name, setting in {"paper": PAPER, "released": RELEASED}.items():
        found = measurements.by_name(f"lee2025/simulation/{name}")
        assert (found.steps, found.batch, found.every, found.runs) == (
            setting.steps,
            setting.batch,
            setting.every,
            setting.runs,
        )
        assert found.scenarios == SCENARIOS


def test_a_measurement_leaves_a_record_and_a_picture(no_results, tmp_path, capsys):
    folder = tmp_path / "run"
    main(["measure", "lee2025/simulation/paper", *TINY, "--run-dir", str(folder)])
    record = records.read_json(folder / "record.json")
    assert sorted(path.name for path in folder.iterdir()) == ["record.json", "simulation.png"]
    assert record["checkpoints"] == {"independent": [10, 20], "pruned": [10, 20]}
    runs = torch.tensor(record["runs"]["pruned"], dtype=torch.float64)
    assert runs.shape == (2, 2, len(MEASURES))
    last = torch.tensor(record["values"]["pruned"]["last"], dtype=torch.float64)
    assert torch.allclose(last[:, 0], runs[:, -1].mean(dim=0), rtol=1e-4)
    best = torch.tensor(record["values"]["pruned"]["best"], dtype=torch.float64)[0]
    assert float(best[0]) == pytest.approx(float(runs[..., 0].amin(dim=1).mean()), rel=1e-4)
    assert "ring, independent" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["measure", "lee2025/simulation/paper", *TINY, "--run-dir", str(folder)])
    assert "--overwrite" in capsys.readouterr().err


def test_table_7_has_the_paper_beside_ours(no_results, capsys):
    configuration = with_overrides(measurements.by_name("lee2025/simulation/released"), ["runs=2"])
    first = torch.arange(1.0, 9.0).double() / 8
    values = torch.stack([torch.stack([first, 2 * first]), torch.stack([2 * first, 3 * first])])
    record = simulation_report.record_of(configuration, {"transport": values}, 1.0)
    records.write_json(no_results / "a.json", record)
    tables.PAPERS["simulation"]([])
    lines = capsys.readouterr().out.splitlines()
    rows = [cells(line) for line in lines if "ring, OT" in line]
    paper = [".29", "4.35", ".066", "1.50"]
    # Best of checkpoints: the first of each run, 1 and 2 times the numbers; last: 2 and 3 times.
    assert rows[0] == ["ring, OT", *paper, "0.19 ±0.09", "37.5 ±17.7", "1.125 ±0.530", "1.50 ±0.71"]
    assert rows[1] == ["ring, OT", "0.31 ±0.09", "62.5 ±17.7", "1.875 ±0.530", "2.50 ±0.71"]
    assert any(
        "Best checkpoint of each run, setting of the released code, 100,000 steps of 10, 2 runs" in x for x in lines
    )
    assert any(line.startswith("- not run: Best checkpoint of each run, setting of the text") for line in lines)
    assert not [line for line in lines if "…" in line]


def test_coverage_is_best_where_it_is_largest():
    values = torch.zeros(1, 2, len(MEASURES)).double()
    values[0, :, MEASURES.index("coverage")] = torch.tensor([0.5, 0.25]).double()
    record = simulation_report.record_of(measurements.by_name("lee2025/simulation/paper"), {"pruned": values}, 0.0)
    assert record["values"]["pruned"]["best"][MEASURES.index("coverage")][0] == 0.5
    assert record["values"]["pruned"]["best"][0][1] is None  # one run has no spread


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["scenarios=ring"], "unknown scenario 'ring'"),
        (["scenarios="], "at least one scenario"),
        (["runs=0"], "runs must be at least 1"),
        (["points=8"], "as many points as a batch"),
        (["experiment=x"], "unknown field"),
    ],
)
def test_bad_settings_say_what_to_do(settings, says):
    with pytest.raises(ValueError, match=says):
        with_overrides(measurements.by_name("lee2025/simulation/paper"), settings)
