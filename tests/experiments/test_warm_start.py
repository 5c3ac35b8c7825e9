"""A training that starts at the weights of another: where it begins, what the record says, and what is refused."""

import shutil

import pytest
import torch

from fmcore.experiments.config.overrides import with_overrides
from fmcore.experiments.run import warm_start
from fmcore.experiments.run.finished import Run
from fmcore.experiments.run.network import build_network
from fmcore.experiments.run.train import train_run
from fmcore.papers import catalog

SMALL = ["channels=8", "attention=", "batch=8", "warmup=1", "decay=none"]


def row(*settings):
    return with_overrides(catalog.by_name("digits"), [*SMALL, *settings])


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first") / "run"
    train_run(row("steps=3"), folder, progress=False)
    return folder


def test_it_begins_there_and_the_record_counts_all_images(first, tmp_path):
    file = first / "weights.safetensors"
    one = row(f"start_from={file}", "steps=1", "lr=1e-9", "seed=5")
    train_run(one, tmp_path / "second", progress=False)
    second = Run(tmp_path / "second")
    for name, value in Run(first).network.state_dict().items():
        torch.testing.assert_close(second.network.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    said = second.record()["training"]
    assert said["start"]["images_seen"] == 24
    assert (said["start"]["experiment"], said["start"]["steps"]) == ("digits", 3)
    assert said["images_seen"] == 32
    train_run(
        row(f"start_from={tmp_path / 'second' / 'weights.safetensors'}", "steps=2"), tmp_path / "third", progress=False
    )
    assert Run(tmp_path / "third").record()["training"]["images_seen"] == 48
    assert "images_seen" not in Run(first).record()["training"]


def test_it_is_resumed_without_the_file(first, tmp_path):
    file = tmp_path / "start.safetensors"
    shutil.copy(first / "weights.safetensors", file)
    whole, part = row(f"start_from={file}", "steps=4"), row(f"start_from={file}", "steps=2")
    train_run(whole, tmp_path / "whole", progress=False)
    train_run(part, tmp_path / "part", progress=False)
    file.unlink()
    train_run(whole, tmp_path / "part", resume=True, progress=False)
    one, other = (Run(tmp_path / name) for name in ("whole", "part"))
    for name, value in one.network.state_dict().items():
        assert torch.equal(other.network.state_dict()[name], value)
    assert other.record()["training"]["images_seen"] == 24 + 32


def test_a_network_that_is_told_classes_may_start_at_one_that_is_not(first):
    configuration = row(f"start_from={first / 'weights.safetensors'}", "labels=true")
    network = build_network(configuration, (1, 8, 8), 10)
    before = network.label.weight.clone()
    warm_start.load(configuration, network)
    assert torch.equal(network.label.weight, before)
    assert torch.equal(network.first.weight, Run(first).network.first.weight)


@pytest.mark.parametrize("settings", [["channels=16"], ["multipliers=1"], ["blocks=2"]])
def test_weights_of_another_network_are_refused_before_anything_is_replaced(first, tmp_path, settings):
    with pytest.raises(ValueError, match=r"start_from=.*weights.safetensors is of another network: .* differ"):
        train_run(row(f"start_from={first / 'weights.safetensors'}", *settings), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_missing_or_damaged_file_is_named(first, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train_run(row(f"start_from={tmp_path / 'nowhere'}"), tmp_path / "run", progress=False)
    content = bytearray((first / "weights.safetensors").read_bytes())
    content[-10] ^= 1
    (tmp_path / "bad.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.safetensors"):
        train_run(row(f"start_from={tmp_path / 'bad.safetensors'}"), tmp_path / "run", progress=False)
