"""What is kept between runs: read again, made again where it is damaged, and told apart."""

import dataclasses

import pytest
import torch

from fmcore.data import digits
from fmcore.metrics import cached_classifier
from fmcore.metrics.cache import cached, fingerprint


def test_tensors_are_made_once(tmp_path):
    made = []

    def make():
        made.append(1)
        return {"a": torch.arange(3.0), "b": torch.tensor(2)}

    first, again = cached("name", make, tmp_path / "folder"), cached("name", make, tmp_path / "folder")
    assert len(made) == 1
    assert torch.equal(first["a"], again["a"])
    assert int(again["b"]) == 2
    cached("other", make, tmp_path / "folder")
    assert len(made) == 2


def test_a_damaged_file_is_made_again(tmp_path):
    cached("name", lambda: {"a": torch.zeros(2)}, tmp_path)
    (tmp_path / "name.safetensors").write_bytes(b"abc")
    assert torch.equal(cached("name", lambda: {"a": torch.ones(2)}, tmp_path)["a"], torch.ones(2))
    assert torch.equal(cached("name", lambda: {"a": torch.zeros(2)}, tmp_path)["a"], torch.ones(2))


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    found = cached("name", lambda: {"a": torch.ones(1)}, tmp_path / "file")
    assert float(found["a"]) == 1
    assert "not kept for the next run" in capsys.readouterr().err


def test_the_data_cache_is_the_usual_place(tmp_path, monkeypatch):
    monkeypatch.setenv("FMCORE_DATA", str(tmp_path))
    cached("name", lambda: {"a": torch.ones(1)})
    assert (tmp_path / "metrics" / "name.safetensors").exists()


@pytest.mark.parametrize("part", ["train", "held_out", "train_labels", "held_out_labels"])
def test_the_fingerprint_tells_data_apart(part):
    data = digits()
    changed = getattr(data, part).clone()
    changed[0] = 9 - changed[0]
    assert fingerprint(dataclasses.replace(data, **{part: changed})) != fingerprint(data)
    assert fingerprint(digits()) == fingerprint(data)
    assert fingerprint(dataclasses.replace(data, train=data.train[:-1])) != fingerprint(data)


def test_one_classifier_serves_all_runs(tmp_path):
    data = digits()
    first = cached_classifier(data, seed=1, steps=30, folder=tmp_path)
    again = cached_classifier(data, seed=1, steps=30, folder=tmp_path)
    other = cached_classifier(data, seed=2, steps=30, folder=tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    x = data.scaled(data.held_out[:20])
    assert torch.equal(first.network.features(x), again.network.features(x))
    assert not torch.equal(first.network.features(x), other.network.features(x))
    guesses = again.network(data.scaled(data.held_out)).argmax(1)
    assert again.accuracy == pytest.approx(float((guesses == data.held_out_labels).double().mean()))
    assert not again.network.training
