"""Records: spreads, where they were measured, and files that are read back or refused."""

import importlib.metadata
import subprocess
from pathlib import Path

import pytest
import torch

import fmcore
from fmcore.experiments import records


def test_a_measurement_states_its_spread():
    values = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert records.measurement(values, "sets")["spread"] == pytest.approx(1.2909944)
    assert records.measurement(values, "sets", standard_error=True)["spread"] == pytest.approx(0.6454972)


def test_the_processor_commit_and_versions_are_those_of_git_and_pip():
    found = records.environment()
    assert found["versions"]["torchdiffeq"] == importlib.metadata.version("torchdiffeq")
    assert found["hardware"]["threads"] == torch.get_num_threads()
    root = Path(records.__file__).parents[2]
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    expected = git.stdout.strip() if git.returncode == 0 and (root / ".git").exists() else None
    assert (found["commit"] or "").removesuffix("+changes") == (expected or "")


def test_a_tree_without_its_history_takes_the_commit_that_it_is_told(tmp_path, monkeypatch):
    (tmp_path / "fmcore" / "experiments").mkdir(parents=True)
    monkeypatch.setattr(records, "__file__", str(tmp_path / "fmcore" / "experiments" / "records.py"))
    assert records.commit() is None
    monkeypatch.setenv("FMCORE_COMMIT", "abc123")
    assert records.commit() == "abc123"


def test_a_package_that_is_not_there_has_no_version():
    versions = records.environment()["versions"]
    assert versions["fmcore"] == fmcore.__version__
    assert versions["torch"] == importlib.metadata.version("torch")
    assert records.version("no such package") is None


def test_what_is_written_is_read_back_and_what_is_cut_off_is_refused(tmp_path):
    content = {"name": "a", "values": [1, 2.5, None, True], "inside": {"of": "b"}}
    file = tmp_path / "record.json"
    records.write_json(file, content)
    assert records.read_json(file) == content
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"record.json is damaged: it is not JSON"):
        records.read_json(file)
    file.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ValueError, match=r"record.json is damaged"):
        records.read_json(file)


@pytest.mark.parametrize(
    "left", ["record.json", "picture.png", "record.json.partial", "picture.png.0a1b2c3d.partial"], ids=str
)
def test_a_measurement_is_replaced_on_request_with_what_a_killed_one_left(tmp_path, left):
    files = ("record.json", "picture.png")
    records.check_folder(tmp_path / "new", overwrite=False, files=files)
    (tmp_path / left).write_text("")
    with pytest.raises(FileExistsError, match="is not empty: add --overwrite"):
        records.check_folder(tmp_path, overwrite=False, files=files)
    records.check_folder(tmp_path, overwrite=True, files=files)
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(FileExistsError, match=r"holds other things than a measurement \(thesis.tex\)"):
        records.check_folder(tmp_path, overwrite=True, files=files)


def test_a_file_is_no_folder_for_a_measurement(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="is a file: name a folder"):
        records.check_folder(tmp_path / "file", overwrite=True, files=())
