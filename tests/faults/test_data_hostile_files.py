"""Files that are not what their names say: each is a sentence with the name of the file."""

import copy
import importlib
import json
import os
import pickle
import shutil
import socket
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from fmcore.data import imagenet, verify_prepared
from fmcore.data.colours import as_rgb
from fmcore.data.mapped import load, map_images
from fmcore.data.photographs import photographs_in

MODULE = importlib.import_module("fmcore.data.imagenet")
cifar10_module = importlib.import_module("fmcore.data.cifar10")
DTYPES = {"I;16": "<u2", "I;16L": "<u2", "I;16B": ">u2", "I;16N": "=u2"}


@pytest.mark.parametrize("mode", DTYPES)
@pytest.mark.parametrize("level", [0, 1, 100, 128, 254, 255])
def test_grey_of_16_bits_keeps_its_level(mode, level):
    image = Image.frombytes(mode, (3, 2), np.full(6, level * 257, DTYPES[mode]).tobytes())
    assert (np.asarray(as_rgb(image)) == level).all()


@pytest.mark.parametrize("mode", ["I", "F"])
def test_modes_without_a_known_white_are_refused(mode):
    with pytest.raises(ValueError, match=f"mode {mode}, .*save it as grey or RGB"):
        as_rgb(Image.new(mode, (2, 2), 100))


COLOURS = {
    "1": (1, (255,) * 3),
    "L": (70, (70,) * 3),
    "LA": ((70, 10), (70,) * 3),
    "RGB": ((10, 20, 30), (10, 20, 30)),
    "RGBA": ((10, 20, 30, 0), (10, 20, 30)),
    "RGBa": ((10, 20, 30, 51), (50, 100, 150)),
    "La": ((20, 20, 20, 51), (100,) * 3),
    "RGBX": ((10, 20, 30, 0), (10, 20, 30)),
    "CMYK": ((255, 0, 0, 0), (0, 255, 255)),
    "YCbCr": ((90, 128, 128), (90,) * 3),
    "HSV": ((0, 0, 90), (90,) * 3),
}


@pytest.mark.parametrize("mode", COLOURS)
def test_modes_have_their_colour(mode):
    given, expected = COLOURS[mode]
    if mode == "La":
        image = Image.frombytes("LA", (1, 1), bytes([100, 51])).convert("La")
    else:
        image = (
            Image.frombytes(mode, (1, 1), bytes(given))
            if mode != "1" and mode != "L"
            else Image.new(mode, (1, 1), given)
        )
    assert np.abs(np.asarray(as_rgb(image)).reshape(3).astype(int) - expected).max() <= 1


def spoil(path, kind):
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    else:
        path.symlink_to("nowhere")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a POSIX system")
@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a socket", "a device", "a broken symbolic link"])
def test_no_plain_file_is_read(tmp_path, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from pathlib import Path

    spoil(Path("x.JPEG"), kind)
    with pytest.raises(ValueError, match=f"x.JPEG is {kind}"):
        photographs_in(Path(), Path())
    spoil(Path("manifest.json"), kind)
    with pytest.raises(ValueError, match=f"manifest.json is {kind}"):
        load(Path(), "imagenet32")


LABELS = {
    "strings": np.array(["1"] * 7),
    "fractions": np.full(7, 1.5),
    "NaN": np.full(7, np.nan),
    "negative": np.full(7, -1),
    "too few": np.ones(6, int),
    "bool": np.ones(7, bool),
}


@pytest.mark.parametrize("kind", LABELS)
def test_odd_labels_of_the_release(tmp_path, kind):
    path = tmp_path / "train_data_batch_1.npz"
    np.savez(path, data=np.zeros((7, 3072), np.uint8), labels=LABELS[kind])
    with pytest.raises(ValueError, match="batch_1.npz: labels must be 7 numbers"):
        MODULE.ReleaseFile(path, 32).shard().read()


def test_rows_that_are_only_claimed(tmp_path):
    import io
    import zipfile

    path, out = tmp_path / "train_data_batch_1.npz", io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": (10**12, 3072)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.npy", out.getvalue())
        archive.writestr("labels.npy", out.getvalue())
    with pytest.raises(ValueError, match=r"batch_1.npz is truncated or altered .*claims \(1000000000000, 3072\)"):
        MODULE.ReleaseFile(path, 32).shard()


@pytest.fixture
def out(tmp_path):
    for split in ("train", "val"):
        (tmp_path / "tree" / split / "a").mkdir(parents=True)
        for k in range(3):
            Image.new("RGB", (32, 32), (k, k, k)).save(tmp_path / "tree" / split / "a" / f"{k}.png")
    imagenet(32, tmp_path / "tree", prepared=tmp_path / "out", progress=False)
    return tmp_path / "out"


@pytest.mark.parametrize("name", ["train.pixels", "held_out.pixels", "train.labels", "held_out.labels", "sources.txt"])
@pytest.mark.parametrize("place", [0, 11, -1])
def test_verification_names_the_altered_file(out, name, place):
    assert verify_prepared(out) == []
    content = bytearray((out / name).read_bytes())
    content[place] ^= 1
    (out / name).write_bytes(content)
    assert any(name in sentence and "altered" in sentence for sentence in verify_prepared(out))


BAD = ["[" * 10_000, "[]", "5", "NaN", "null"]
BAD += [("format", True), ("shape", [3, 32, [32]]), ("shape", [3, "32", 32]), ("shape", [3, float("nan"), 32])]
BAD += [("shape", [3, -32, -32]), ("classes", [1]), ("sources", 5), ("splits", {"train": [], "held_out": []})]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
@pytest.mark.parametrize("name", ["manifest.json", "journal.json"])
def test_json_of_another_form(out, bad, name):
    content = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").unlink()
    (out / name).write_text(bad if isinstance(bad, str) else json.dumps({**content, bad[0]: bad[1]}))
    with pytest.raises(ValueError, match=f"{name} is damaged .*prepare it again"):
        imagenet(32, out.parent / "tree", prepared=out, progress=False)


def test_a_data_set_without_checksums_says_so(out):
    content = json.loads((out / "manifest.json").read_text())
    del content["splits"]["train"]["shards"][0]["pixels"]
    (out / "manifest.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="manifest.json carries no checksums"):
        load(out, "imagenet32")
    assert ["train.pixels carries no checksums" in line for line in verify_prepared(out)] == [True]


@pytest.mark.parametrize("view", [lambda x: x, lambda x: x[2:], lambda x: x.flatten(1), lambda x: x.split(4)[1]])
def test_a_file_that_is_cut_while_it_is_mapped(tmp_path, view):
    path = tmp_path / "train.pixels"
    path.write_bytes(bytes(100 * 3 * 32 * 32))
    rows = view(map_images(path, (100, 3, 32, 32)))
    assert type(rows[torch.tensor([0, 1])]) is torch.Tensor
    os.truncate(path, 10)
    with pytest.raises(ValueError, match="train.pixels has 10 bytes, expected 307,200: it was cut while"):
        rows[torch.tensor([0, 1])]


class TestMappedImages:
    """What leaves the process, or is copied, is a plain tensor with the values of the file."""

    @pytest.fixture
    def images(self, tmp_path):
        values = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 4), dtype=np.uint8)
        (tmp_path / "train.pixels").write_bytes(values.tobytes())
        return map_images(tmp_path / "train.pixels", values.shape), torch.from_numpy(values)

    @pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda x: pickle.loads(pickle.dumps(x))])
    def test_copies_have_the_values(self, images, copied):
        mapped, values = images
        for found, expected in ((copied(mapped), values), (copied(mapped[1:3]), values[1:3])):
            assert torch.equal(found, expected)

    def test_rows_are_plain_tensors_and_views_stay_guarded(self, images):
        mapped, values = images
        rows = mapped[torch.tensor([3, 1])]
        assert type(rows) is torch.Tensor
        assert torch.equal(rows, values[[3, 1]])
        assert type(mapped[1:3]) is type(mapped) is not torch.Tensor


class TestIncompleteCifar10:
    """Files are missing from the folder, and the archive lies beside it."""

    @pytest.fixture
    def place(self, tmp_path, monkeypatch):
        """An archive of few records, and a folder that lacks one of its files."""
        monkeypatch.setattr(cifar10_module, "RECORDS", 2)
        source = tmp_path / "made" / cifar10_module.FOLDER
        source.mkdir(parents=True)
        for number, name in enumerate(cifar10_module.FILES):
            (source / name).write_bytes(bytes([number]) * (2 * cifar10_module.RECORD_BYTES))
        with tarfile.open(tmp_path / cifar10_module.ARCHIVE, "w:gz") as archive:
            archive.add(source, cifar10_module.FOLDER)
        shutil.copytree(source, tmp_path / cifar10_module.FOLDER)
        self.lost = cifar10_module.FILES[2]
        (tmp_path / cifar10_module.FOLDER / self.lost).unlink()
        return tmp_path, source

    def test_they_are_named_and_taken_from_it(self, place):
        root, source = place
        with pytest.warns(UserWarning, match=f"lacks {self.lost}: taken from"):
            batches = cifar10_module.unpack_missing(root / cifar10_module.ARCHIVE, root)
        for name in cifar10_module.FILES:
            assert (batches / name).read_bytes() == (source / name).read_bytes()
        assert sorted(path.name for path in root.iterdir()) == [cifar10_module.FOLDER, cifar10_module.ARCHIVE, "made"]

    def test_without_the_archive_they_are_named(self, place):
        root, _ = place
        (root / cifar10_module.ARCHIVE).unlink()
        with pytest.raises(FileNotFoundError, match=f"{self.lost} is missing: delete the folder"):
            cifar10_module.unpacked(root)
