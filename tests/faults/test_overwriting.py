"""--overwrite: what is there goes only when all else is known to be right, and only what a run made."""

import json
import shutil
from pathlib import Path

import pytest

from fmcore.cli import main
from fmcore.experiments.config.overrides import with_overrides
from fmcore.experiments.run.train import train_run
from fmcore.papers import catalog
from fmcore.sources import pruned

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
# Each is an experiment that cannot be trained, found late: when the network, the batches or the source are made.
WRONG = {
    "more micro-batches than images": ["accumulate=100"],
    "compiled for one size": ["compile=true", "accumulate=3"],
    "a level of no channels": ["multipliers=0,1"],
    "a negative level": ["multipliers=-1"],
    "heads of no channels": ["attention=8", "head_channels=0"],
    "heads that do not divide": ["attention=8", "heads=3"],
    "more components than images": ["distribution=mixture", "components=5000", "likelihood_images=0"],
    "nothing left to start from": ["prune_tau=1", "prune_threshold=1e-9", "budgets=2"],
    "nothing to prune": ["prune_tau=-0.9", "prune_threshold=0.1", "budgets=2"],
    "a source of which nothing is left": ["distribution=pruned", "tau=1", "threshold=1e-9"],
    "more training images than there are": ["train_images=100000"],
    "data that are not there": ["data=imagenet32", "data_dir=/nowhere"],
    "a feature space that is not there": ["features=inception"],
    "weights that are not there": ["start_from=/nowhere/weights.safetensors"],
    "a teacher that is not there": ["coupling=reflow", "teacher=/nowhere"],
    "guidance without classes": ["guidance_scale=2"],
    "the stochastic equation without steps": ["method=sde"],
    "images of one's own without a size": ["data=folder", "data_dir=/nowhere"],
    "a folder of images that is not there": ["data=folder", "data_dir=/nowhere", "size=8"],
    "no steps": ["steps=0"],
    "a word for a number": ["lr=fast"],
    "an unknown setting": ["learning=1"],
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "run"
    train_run(BASE, folder, progress=False)
    return folder


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("changes", list(WRONG.values()), ids=list(WRONG))
def test_a_finished_run_stays_whole_when_its_successor_cannot_be_trained(base, tmp_path, monkeypatch, capsys, changes):
    monkeypatch.setattr(pruned, "MOST_PROPOSALS", 2000)  # after which a region counts as empty
    folder = shutil.copytree(base, tmp_path / "run")
    before = contents(folder)
    with pytest.raises(SystemExit) as stopped:
        main(["train", "digits", *TINY, *changes, "--overwrite", "--run-dir", str(folder)])
    assert stopped.value.code == 2
    assert contents(folder) == before
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.strip().splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("content", ["{}", "[]", "3", '{"name": "an app"}', "not json", ""])
def test_in_a_folder_of_somebody_else_nothing_is_touched(tmp_path, content):
    """They too have a config.json, a losses.csv and snapshots."""
    folder = tmp_path / "theirs"
    (folder / "snapshots").mkdir(parents=True)
    for name in (
        "losses.csv",
        "record.json",
        "checkpoint.pt",
        "snapshots/monday.zip",
        "snapshots/00000001.safetensors",
    ):
        (folder / name).write_text("theirs")
    (folder / "config.json").write_text(content)
    before = contents(folder)
    for choice in ({"overwrite": True}, {"resume": True}, {}):
        with pytest.raises((FileExistsError, ValueError), match="config.json|is not empty"):
            train_run(BASE, folder, progress=False, **choice)
        assert contents(folder) == before


def test_files_of_others_in_the_folder_of_a_run_stay(base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "run")
    theirs = [folder / "notes.txt", folder / "snapshots" / "best.safetensors", folder / "snapshots" / "00000001.txt"]
    for file in theirs:
        file.write_text("theirs")
    train_run(with_overrides(BASE, ["curve_every=0"]), folder, overwrite=True, progress=False)
    assert all(file.read_text() == "theirs" for file in theirs)
    assert sorted(path.name for path in (folder / "snapshots").iterdir()) == ["00000001.txt", "best.safetensors"]


def test_killed_at_any_moment_of_it_some_command_goes_on(base, tmp_path, monkeypatch):
    """After each file that is removed or written: the folder can be overwritten, and is never taken for a whole run."""
    moments = []
    unlink, write = Path.unlink, __import__("os").replace

    def watched(act):
        def acted(*arguments, **settings):
            act(*arguments, **settings)
            if (tmp_path / "run").exists():
                moments.append(shutil.copytree(tmp_path / "run", tmp_path / "moments" / str(len(moments))))

        return acted

    shutil.copytree(base, tmp_path / "run")
    (tmp_path / "moments").mkdir()
    other = with_overrides(BASE, ["seed=5"])
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", watched(unlink))
        patched.setattr("os.replace", watched(write))
        train_run(other, tmp_path / "run", overwrite=True, progress=False)
    assert len(moments) > 15
    expected = contents(tmp_path / "run")[Path("weights.safetensors")]
    for number, folder in enumerate(moments):
        for name in contents(folder):
            if name.name.endswith(".partial"):
                (folder / name).unlink()
        train_run(other, folder, overwrite=True, progress=False)
        assert contents(folder)[Path("weights.safetensors")] == expected, number
        assert json.loads((folder / "config.json").read_text())["training"]["seed"] == 5


def test_nothing_to_resume_is_said(tmp_path):
    with pytest.warns(UserWarning, match=r"nothing to resume in .*run: the training starts from the beginning"):
        train_run(BASE, tmp_path / "run", resume=True, progress=False)
