"""The curve of a training: which weights are kept, and what is measured on them."""

import csv

import pytest
import torch
from safetensors.torch import load_file

from fmcore.experiments.config.overrides import with_overrides
from fmcore.experiments.evaluate.evaluation import evaluate_run
from fmcore.experiments.run import snapshots
from fmcore.experiments.run.finished import Run
from fmcore.experiments.run.train import train_run
from fmcore.papers import catalog

TINY = [
    "channels=8",
    "multipliers=1",
    "attention=",
    "steps=7",
    "batch=8",
    "checkpoint_every=2",
    "curve_every=4",
    "warmup=2",
]
TINY += ["rtol=0.5", "atol=0.5", "likelihood_images=2", "set_images=4", "curve_images=6", "classifier_steps=5"]
CONFIGURATION = with_overrides(catalog.by_name("digits"), TINY)


def table(file):
    return list(csv.DictReader(file.read_text().splitlines()))


@pytest.fixture(scope="module")
def finished(own_cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    train_run(CONFIGURATION, folder, progress=False)
    return folder, evaluate_run(Run(folder))


def test_weights_are_kept_at_multiples_only(finished):
    folder, _ = finished
    assert list(snapshots.kept_steps(folder)) == [4]


def test_a_snapshot_is_what_a_shorter_training_would_leave(finished, tmp_path):
    shorter = with_overrides(CONFIGURATION, ["steps=4", "decay=none"])
    longer = with_overrides(CONFIGURATION, ["steps=8", "decay=none"])
    train_run(shorter, tmp_path / "shorter", progress=False)
    train_run(longer, tmp_path / "longer", progress=False)
    kept = snapshots.kept_steps(tmp_path / "longer")
    assert list(kept) == [4, 8]
    expected = load_file(tmp_path / "shorter" / "weights.safetensors")
    for name, value in load_file(kept[4]).items():
        assert torch.equal(value, expected[name])
    last = load_file(tmp_path / "longer" / "weights.safetensors")
    for name, value in load_file(kept[8]).items():
        assert torch.equal(value, last[name])


def test_the_curve_is_in_the_record_and_in_a_file(finished):
    folder, record = finished
    [point] = record["curve"]
    losses = [float(row["loss"]) for row in table(folder / "losses.csv")]
    assert point["step"] == 4
    assert point["epoch"] == pytest.approx(4 * 8 / 1500, abs=1e-3)
    assert point["mean_loss"] == pytest.approx(sum(losses[:4]) / 4, rel=1e-4)
    [row] = table(folder / "curve.csv")
    assert {name: float(value) for name, value in row.items()} == point


def test_measuring_a_curve_leaves_the_weights_of_the_run(finished):
    folder, _ = finished
    run = Run(folder)
    run.use_weights(snapshots.kept_steps(folder)[4])
    early = run.sample(2, torch.Generator().manual_seed(0)).x
    final = Run(folder).sample(2, torch.Generator().manual_seed(0)).x
    assert not torch.equal(early, final)
    again = evaluate_run(run)
    assert again["values"]["bits_per_dim"] != finished[1]["values"]["bits_per_dim"]  # measured on the early weights
    assert torch.equal(run.sample(2, torch.Generator().manual_seed(0)).x, final)


def test_a_resumed_run_has_the_same_snapshots(tmp_path):
    stopped, constant = tmp_path / "stopped", with_overrides(CONFIGURATION, ["decay=none"])
    train_run(constant, stopped, progress=False)
    whole = load_file(snapshots.kept_steps(stopped)[4])
    for file in [*snapshots.kept_steps(stopped).values(), stopped / "weights.safetensors"]:
        file.unlink()
    # as if killed between the snapshot of step 4, which comes first, and its checkpoint
    train_run(with_overrides(constant, ["steps=2"]), tmp_path / "part", progress=False)
    state = torch.load(tmp_path / "part" / "checkpoint.pt", weights_only=True)
    state["config"] = torch.load(stopped / "checkpoint.pt", weights_only=True)["config"]
    torch.save(state, stopped / "checkpoint.pt")
    train_run(constant, stopped, resume=True, progress=False)
    [file] = snapshots.kept_steps(stopped).values()
    for name, value in load_file(file).items():
        assert torch.equal(value, whole[name])


def test_snapshots_need_checkpoints():
    with pytest.raises(ValueError, match="make curve_every a multiple of checkpoint_every"):
        with_overrides(CONFIGURATION, ["curve_every=3"])


def test_overwriting_a_run_removes_its_snapshots(tmp_path):
    train_run(CONFIGURATION, tmp_path, progress=False)
    train_run(with_overrides(CONFIGURATION, ["curve_every=0", "steps=2"]), tmp_path, overwrite=True, progress=False)
    assert snapshots.kept_steps(tmp_path) == {}
