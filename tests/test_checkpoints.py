"""Checkpoint files: what is read back, what is refused, and what a failure leaves."""

import errno
import os
import zipfile

import pytest
import torch

from fmcore.checkpoints import CONTENT, FORMAT, check_same, load_checkpoint, save_checkpoint

STATE = {
    "config": {"steps": 3, "lr": 1e-3, "decay": "none", "coupling_batch": None},
    "model": {"weight": torch.tensor([[1.5, -2.0], [0.0, 3.0]]), "count": torch.tensor(7)},
    "ema": {},
    "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
    "losses": torch.tensor([3.0, 2.0, 1.0]),
    "seconds": 0.25,
    "processes": 2,
    "notes": ["a note"],
}


def test_what_was_saved_is_read_back(tmp_path):
    save_checkpoint(STATE, tmp_path / "run.pt")
    found = load_checkpoint(tmp_path / "run.pt")
    assert found.keys() == CONTENT.keys() == {"format", *STATE}
    assert found.pop("format") == FORMAT
    for name in ("config", "ema", "seconds", "processes", "notes"):
        assert found[name] == STATE[name]
    for name in ("weight", "count"):
        assert torch.equal(found["model"][name], STATE["model"][name])
        assert found["model"][name].dtype == STATE["model"][name].dtype
    assert torch.equal(found["losses"], STATE["losses"])
    assert found["optimizer"]["param_groups"] == STATE["optimizer"]["param_groups"]
    assert os.listdir(tmp_path) == ["run.pt"]


def test_two_that_save_at_once_leave_a_whole_checkpoint_of_one(tmp_path, monkeypatch):
    """The second begins and ends while the first is writing."""
    path, save, depth = tmp_path / "run.pt", torch.save, []

    def slow(content, file):
        depth.append(content["processes"])
        if len(depth) == 1:
            file.write(b"")
            save_checkpoint({**STATE, "processes": 9, "losses": torch.arange(5000.0)}, path)
            assert load_checkpoint(path)["processes"] == 9
        save(content, file)

    monkeypatch.setattr(torch, "save", slow)
    save_checkpoint(STATE, path)
    assert depth == [2, 9]
    found = load_checkpoint(path)
    assert found["processes"] == 2
    assert torch.equal(found["losses"], STATE["losses"])
    assert os.listdir(tmp_path) == ["run.pt"]


@pytest.mark.parametrize(
    ("number", "words", "advice"),
    [
        (errno.ENOSPC, "No space left on device", "make room and run again"),
        (errno.EACCES, "Permission denied", "write to another folder, or have its owner let you write to it"),
    ],
)
def test_a_failure_says_what_to_do_and_keeps_the_older_one(tmp_path, monkeypatch, number, words, advice):
    """PyTorch's writer may answer the error of the system with one of its own, about positions in the file."""

    def failing(content, file):
        try:
            raise OSError(number, words)
        except OSError:
            raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904

    path = tmp_path / "run.pt"
    save_checkpoint(STATE, path)
    monkeypatch.setattr(torch, "save", failing)
    with pytest.raises(OSError, match=f"{words} .the version before it is intact.; {advice}$"):
        save_checkpoint({**STATE, "processes": 9}, path)
    assert load_checkpoint(path)["processes"] == 2
    with pytest.raises(OSError, match=f"{words} .nothing was saved.; {advice}$"):
        save_checkpoint(STATE, tmp_path / "other.pt")
    assert os.listdir(tmp_path) == ["run.pt"]


def test_an_error_that_is_not_the_disks_is_raised_as_it_is(tmp_path):
    with pytest.raises((AttributeError, TypeError), match="pickle"):
        save_checkpoint({**STATE, "notes": [lambda: None]}, tmp_path / "run.pt")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("missing", sorted(set(CONTENT) - {"format"}))
def test_what_is_missing_is_named(tmp_path, missing):
    state = {name: value for name, value in STATE.items() if name != missing}
    save_checkpoint(state, tmp_path / "run.pt")
    with pytest.raises(ValueError, match=f"run.pt is not a checkpoint of this package: it lacks {missing}"):
        load_checkpoint(tmp_path / "run.pt")


def test_another_format_is_told_by_its_number(tmp_path):
    torch.save({**STATE, "format": FORMAT + 1}, tmp_path / "run.pt")
    with pytest.raises(ValueError, match=f"format {FORMAT + 1}, this one reads {FORMAT}"):
        load_checkpoint(tmp_path / "run.pt")


def test_a_folder_or_an_archive_of_other_things_is_no_checkpoint(tmp_path):
    with zipfile.ZipFile(tmp_path / "run.pt", "w") as archive:
        archive.writestr("letter.txt", "dear reader")
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(ValueError, match="run.pt is damaged or is not a checkpoint"):
        load_checkpoint(tmp_path / "run.pt")
    for name in ("folder.pt", "nothing.pt"):  # nothing is known of what is in them
        with pytest.raises(OSError, match=f"cannot read .*{name}"):
            load_checkpoint(tmp_path / name)


@pytest.mark.parametrize(("name", "value"), [("config", [1]), ("losses", [0.5]), ("notes", "none"), ("seconds", None)])
def test_what_is_of_another_kind_is_named(tmp_path, name, value):
    torch.save({**STATE, "format": FORMAT, name: value}, tmp_path / "run.pt")
    with pytest.raises(ValueError, match=f"is not a checkpoint of this package: its {name} is no"):
        load_checkpoint(tmp_path / "run.pt")


def test_each_setting_that_differs_is_named_with_both_values():
    check_same({"a": 1, "b": (1, 2)}, {"a": 1.0, "b": (1, 2)}, "it was made")
    with pytest.raises(ValueError, match=r"^it was made .*: a \(was 1, now 2\), c \(was None, now 0\); resume"):
        check_same({"a": 1, "b": 5}, {"a": 2, "b": 5, "c": 0}, "it was made")
