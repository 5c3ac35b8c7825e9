"""Data sets by name, and the folder that they are looked for in."""

from pathlib import Path

import pytest
import torch

from fmcore.atomic import write_file
from fmcore.data import NAMES, ImageData, by_name, default_folder, digits
from fmcore.data.files import file_digest

REPOSITORY = Path(__file__).resolve().parents[1]


def test_every_name_is_known(tmp_path):
    assert NAMES == ("digits", "cifar10", "imagenet32", "imagenet64", "imagenet128", "celeba64")
    assert torch.equal(by_name("digits").train, digits().train)
    for name in NAMES[2:]:
        with pytest.raises(FileNotFoundError, match=f"missing is not there: {name} is prepared from a folder"):
            by_name(name, tmp_path / "missing")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        ValueError, match=r"unknown data set 'cifar': choose one of celeba64, cifar10, digits, imagenet128"
    ):
        by_name("cifar")


def test_the_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("FMCORE_DATA", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.setenv("FMCORE_DATA", "~/sets")
    assert default_folder() == Path.home() / "sets"
    for unset in ("", None):
        monkeypatch.setenv("FMCORE_DATA", unset) if unset is not None else monkeypatch.delenv("FMCORE_DATA")
        assert default_folder() == REPOSITORY / "data" / "cache"


def test_the_default_folder_of_an_installed_package(monkeypatch, tmp_path):
    monkeypatch.delenv("FMCORE_DATA", raising=False)
    monkeypatch.setattr("fmcore.data.files.__file__", str(tmp_path / "site-packages" / "fmcore" / "data" / "files.py"))
    assert default_folder() == Path.home() / ".cache" / "fmcore"


def test_classes_count_where_they_are_named():
    images, labels = torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1])
    assert ImageData("tiny", images, images, labels, labels).num_classes == 2
    assert ImageData("tiny", images, images, labels, labels, classes=("a", "b", "c")).num_classes == 3


def test_files_and_their_checksums(tmp_path):
    write_file(tmp_path / "a", b"abc")
    assert file_digest(tmp_path / "a", "md5") == "900150983cd24fb0d6963f7d28e17f72"  # RFC 1321
    assert (
        file_digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )  # FIPS 180-2
    with pytest.raises(OSError, match="No such file"):
        write_file(tmp_path / "missing" / "a", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
