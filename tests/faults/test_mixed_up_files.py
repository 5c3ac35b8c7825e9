"""Files of one run in the folder of another: whatever differs between the runs, and whichever file it is."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from fmcore import data
from fmcore.experiments import sealed
from fmcore.experiments.config.experiment import Configuration, from_dict
from fmcore.experiments.config.overrides import flat, to_dict, with_overrides
from fmcore.experiments.run.finished import Run
from fmcore.experiments.run.identity import identity
from fmcore.experiments.run.train import train_run
from fmcore.papers import catalog
from tests.experiments.former_run import made_former

TINY = [
    "channels=8",
    "multipliers=1",
    "attention=",
    "steps=2",
    "batch=8",
    "warmup=1",
    "checkpoint_every=1",
    "curve_every=1",
]
BASE = with_overrides(catalog.by_name("digits"), TINY)
# Runs that differ from it in one thing, and all of which have networks of the same shape.
OTHERS = {
    "seed": ["seed=1"],
    "path": ["path=variance_preserving"],
    "coupling": ["coupling=minibatch_ot"],
    "loss": ["loss=empirical_flow_matching", "bank=16"],
    "training subset": ["train_images=500"],
    "mirror images": ["flips=true"],
    "source": ["distribution=chi_sphere"],
    "norms": ["norm=data_up"],
    "learning rate": ["lr=0.01"],
    "precision": ["precision=bf16"],
}
FILES = ("weights.safetensors", "source.safetensors", "checkpoint.pt", "record.json", "config.json", "data.json")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "run"
    train_run(BASE, folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    folder = tmp_path_factory.mktemp("others")
    for name, changes in OTHERS.items():
        train_run(with_overrides(BASE, changes), folder / name, progress=False)
    return folder


def used(folder):
    """Everything that reads the files of a run: sampling from it, its record, and going on with it."""
    run = Run(folder)
    run.record()
    for file in (folder / "snapshots").iterdir():
        run.use_weights(file)
    train_run(run.configuration, folder, resume=True, progress=False)


@pytest.mark.parametrize("name", list(OTHERS))
@pytest.mark.parametrize("file", FILES)
def test_a_file_of_another_run_is_refused(base, others, tmp_path, name, file):
    folder = shutil.copytree(base, tmp_path / "run")
    other = (others / name / file).read_bytes()
    if other == (base / file).read_bytes():
        assert file == "data.json"  # the same images
        return
    (folder / file).write_bytes(other)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(ValueError, match=r"another run|other weights|another configuration|another source"):
        used(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("name", list(OTHERS))
def test_a_snapshot_of_another_run_or_another_step_is_refused(base, others, tmp_path, name):
    folder = shutil.copytree(base, tmp_path / "run")
    first, second = sorted((folder / "snapshots").iterdir())
    own = first.read_bytes()
    first.write_bytes((others / name / "snapshots" / first.name).read_bytes())
    with pytest.raises(ValueError, match=f"{first.name} belongs to another run"):
        Run(folder).use_weights(first)
    second.write_bytes(own)
    with pytest.raises(ValueError, match=f"{second.name} belongs to another run: steps is 1 there and 2 here"):
        Run(folder).use_weights(second)


def test_every_setting_of_the_training_makes_another_run():
    """One that is added to the configuration later is part of the identity without a word about it here."""
    fields = flat(to_dict(BASE))
    known = set(identity(BASE, "1"))
    assert set(fields) - known == {name for name in fields if name.startswith("evaluation.")} | {
        "data_dir",
        "training.steps",
        "training.minutes",
    }


def test_a_configuration_that_was_edited_is_refused_and_the_record_stays(base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "run")
    content = json.loads((folder / "config.json").read_text())
    record = (folder / "record.json").read_bytes()
    content["path"] = "variance_preserving"
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"config.json was changed after it was written"):
        Run(folder)
    with pytest.raises(ValueError, match=r"config.json was changed after it was written"):
        train_run(replace(BASE, path="variance_preserving"), folder, resume=True, progress=False)
    sealed.write(folder / "config.json", content)  # by somebody who writes the digest anew
    with pytest.raises(ValueError, match="belongs to another run: path is rectified there and variance_pres"):
        Run(folder)
    with pytest.raises(ValueError, match="path"):
        train_run(replace(BASE, path="variance_preserving"), folder, resume=True, progress=False)
    assert (folder / "record.json").read_bytes() == record


@pytest.mark.parametrize("name", sorted(flat(to_dict(BASE)).keys() - {"data_dir"}))
def test_a_configuration_that_lacks_a_field_is_refused_or_stands_for_what_was_done_then(name):
    content = to_dict(BASE)
    group, _, field = name.rpartition(".")
    del (content[group] if group else content)[field]
    try:
        found = from_dict(json.loads(json.dumps(content)))
    except ValueError as error:
        assert field in str(error)  # noqa: PT017
    else:
        assert isinstance(found, Configuration)
        assert flat(to_dict(found))[name] == flat(to_dict(BASE))[name] or name in ("dequantize",)


def test_weights_of_the_same_settings_but_of_another_training_are_not_those_of_the_record(base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "run")
    run = Run(folder)
    other = {name: value + 1e-3 for name, value in run.network.state_dict().items()}
    from fmcore.experiments.run.weights import keep_weights

    keep_weights(other, folder / "weights.safetensors", run.identity, steps=2)
    with pytest.raises(ValueError, match=r"record.json is of other weights"):
        Run(folder).record()


def test_weights_without_a_digest_are_not_those_of_a_run_with_digests(base, tmp_path):
    former = made_former(shutil.copytree(base, tmp_path / "former"))
    folder = shutil.copytree(base, tmp_path / "run")
    (folder / "weights.safetensors").write_bytes((former / "weights.safetensors").read_bytes())
    with pytest.warns(UserWarning, match="no digest"), pytest.raises(ValueError, match="it is another's"):
        Run(folder)


def test_a_run_on_other_images_is_not_resumed_nor_measured_though_its_fingerprint_was_exchanged(
    base, tmp_path, monkeypatch
):
    own = data.digits()
    other = replace(own, train=own.train.flip(0), train_labels=own.train_labels.flip(0))
    folder = shutil.copytree(base, tmp_path / "run")
    monkeypatch.setattr(data, "by_name", lambda name, folder=None: other)
    train_run(BASE, tmp_path / "other", progress=False)
    (folder / "data.json").write_bytes((tmp_path / "other" / "data.json").read_bytes())
    with pytest.raises(ValueError, match="fingerprint of the data"):
        Run(folder)
    with pytest.raises(ValueError, match="fingerprint of the data"):
        train_run(BASE, folder, resume=True, progress=False)
    assert torch.equal(other.train, own.train.flip(0))
