"""Images of one's own, from any tree of folders."""

import hashlib
import importlib
import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from fmcore.data import ImageData, image_folder, imagenet, verify_prepared
from fmcore.data.photographs import Reduction, is_held_out, photograph_shards, reduce
from fmcore.data.recipe import SourceFile

PHOTOGRAPHS = importlib.import_module("fmcore.data.photographs")


def noise(seed, height=32, width=32):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def write(path, pixels, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **settings)


def prepare(folder, out, size=32, **settings):
    return image_folder(folder, size, prepared=out, progress=False, **settings)


def images_of(pixels, labels):
    """Each image as bytes of (3, H, W), with its label."""
    return {(image.numpy().tobytes(), int(label)) for image, label in zip(pixels, labels, strict=True)}


def expected(files, label):
    return {(pixels.transpose(2, 0, 1).tobytes(), label) for pixels in files}


@pytest.fixture
def tree(tmp_path):
    """Three classes of 15 random images of 32 pixels, as PNG; one has more folders in it."""
    for label, name in enumerate(("ant", "bee", "cat")):
        for k in range(15):
            below = "young/small" if name == "bee" and k % 2 else ""
            write(tmp_path / "tree" / name / below / f"{k}.{'PNG' if k % 3 else 'png'}", noise(100 * label + k))
    return tmp_path / "tree"


def test_images_of_the_right_size_keep_their_pixels_and_labels(tree, tmp_path):
    (tree / "bee" / "note.txt").write_text("no image")
    write(tree / "bee" / ".hidden.png", noise(1))
    write(tree / ".hidden" / "1.png", noise(1))
    write(tree / "cat" / ".thumbnails" / "1.png", noise(1))
    data = prepare(tree, tmp_path / "out", held_out=0.3)
    assert (data.name, data.shape, data.classes, data.num_classes) == ("folder", (3, 32, 32), ("ant", "bee", "cat"), 3)
    assert {len(data.train), len(data.train_labels)} == {45 - len(data.held_out)}
    everything = [expected([noise(100 * label + k) for k in range(15)], label) for label in range(3)]
    found = images_of(data.train, data.train_labels), images_of(data.held_out, data.held_out_labels)
    assert found[0] | found[1] == set.union(*everything)
    assert not found[0] & found[1]
    assert 5 < len(data.held_out) < 25
    assert data.train_labels.tolist() != sorted(data.train_labels.tolist())  # the first rows are of all classes
    assert verify_prepared(tmp_path / "out") == []


def test_the_split_is_by_the_names_alone(tree, tmp_path):
    first = prepare(tree, tmp_path / "first", held_out=0.3)
    held_out = {
        noise(100 * label + int(path.stem)).transpose(2, 0, 1).tobytes()
        for label, name in enumerate(("ant", "bee", "cat"))
        for path in (tree / name).rglob("*.[Pp][Nn][Gg]")
        # The first 64 bits of the hash, as a fraction of all: beside the implementation.
        if int(hashlib.sha256(f"held out {path.relative_to(tree).as_posix()}".encode()).hexdigest()[:16], 16) / 2**64
        < 0.3
    }
    assert {image.numpy().tobytes() for image in first.held_out} == held_out
    moved = tmp_path / "elsewhere"
    shutil.copytree(tree, moved)
    for k in range(5):
        write(moved / "dog" / f"{k}.png", noise(900 + k))
    second = prepare(moved, tmp_path / "second", held_out=0.3)
    assert second.classes == ("ant", "bee", "cat", "dog")
    assert {image.numpy().tobytes() for image in second.held_out[second.held_out_labels < 3]} == held_out


def test_only_images_have_no_classes(tmp_path):
    names = [f"{k}.png" for k in range(20)]
    for k, name in enumerate(names):
        write(tmp_path / "tree" / name, noise(k, 8, 8))
    (tmp_path / "tree" / "notes").mkdir()  # without images: no class
    data = prepare(tmp_path / "tree", tmp_path / "out", size=8, held_out=0.4)
    assert (data.classes, data.num_classes, data.train_labels.dtype) == ((), 1, torch.int64)
    assert not data.train_labels.any()
    assert not data.held_out_labels.any()
    assert len(data.held_out) == sum(is_held_out(name, 0.4) for name in names) > 1
    assert images_of(data.train, data.train_labels) == expected(
        [noise(k, 8, 8) for k, name in enumerate(names) if not is_held_out(name, 0.4)], 0
    )


@pytest.mark.parametrize("name", ["val", "test"])
def test_splits_by_their_folders(tmp_path, name):
    for label, kind in enumerate(("a", "b", "c")):
        for k in range(4):
            write(tmp_path / "tree" / "train" / kind / f"{k}.png", noise(10 * label + k))
            if kind != "b":
                write(tmp_path / "tree" / name / kind / "deep" / f"{k}.png", noise(100 + 10 * label + k))
    if name == "val":
        write(tmp_path / "tree" / "test" / "other.png", noise(5))  # with val it is left alone
        os.symlink("nowhere", tmp_path / "tree" / "test" / "gone.png")
    data = prepare(tmp_path / "tree", tmp_path / "out")
    assert data.classes == ("a", "b", "c")
    assert images_of(data.train, data.train_labels) == set.union(
        *(expected([noise(10 * label + k) for k in range(4)], label) for label in range(3))
    )
    assert images_of(data.held_out, data.held_out_labels) == set.union(
        *(expected([noise(100 + 10 * label + k) for k in range(4)], label) for label in (0, 2))
    )


def test_splits_without_classes(tmp_path):
    for k in range(3):
        write(tmp_path / "tree" / "train" / f"{k}.png", noise(k))
        write(tmp_path / "tree" / "val" / f"{k}.png", noise(10 + k))
    data = prepare(tmp_path / "tree", tmp_path / "out")
    assert (data.classes, data.num_classes) == ((), 1)
    assert images_of(data.held_out, data.held_out_labels) == expected([noise(10 + k) for k in range(3)], 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_images_are_turned_upright(orientation, kind, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(noise(0, 21, 32))
    image.save(tmp_path / "turned", kind, exif=exif, lossless=True)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "turned")))
    assert (upright.shape[:2] == (32, 21)) == (orientation > 4)
    for size in (21, 16):
        assert (
            reduce(Image.open(tmp_path / "turned"), Reduction(size, upright=True))
            == reduce(Image.fromarray(upright), Reduction(size))
        ).all()
        # The data sets of others stay as they were.
        assert (reduce(Image.open(tmp_path / "turned"), Reduction(size)) == reduce(image, Reduction(size))).all()


def test_a_camera_held_upright(tree, tmp_path):
    """A photograph of which the left half is red as stored; the camera says that its top is at the right (6)."""
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:, :20, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    shutil.rmtree(tree / "ant")
    for k in range(15):
        write(tree / "ant" / f"{k}.png", pixels, exif=exif)
    data = prepare(tree, tmp_path / "out", size=4, held_out=0.3)
    for image in data.train[data.train_labels == 0]:
        assert (image[0, :2] == 255).all()  # turned a quarter with the clock, the left half is on top
        assert not image[0, 2:].any()
        assert not image[1:].any()


def test_large_images_are_cut_and_reduced_and_small_ones_enlarged(tree, tmp_path):
    big, small = noise(7, 64, 100), noise(8, 16, 20)
    shutil.rmtree(tree / "ant")
    shutil.rmtree(tree / "cat")
    for k in range(15):
        write(tree / "ant" / f"{k}.png", big)
        write(tree / "cat" / f"{k}.png", small)
    data = prepare(tree, tmp_path / "out", held_out=0.3)
    mean = big[:, 18:82].reshape(32, 2, 32, 2, 3).astype(float).mean((1, 3)).transpose(2, 0, 1)
    for image in data.train[data.train_labels == 0]:
        assert np.abs(image.numpy() - mean).max() <= 1  # rounded after each axis
    repeated = small[:, 2:18].repeat(2, 0).repeat(2, 1).transpose(2, 0, 1)
    for image in data.train[data.train_labels == 2]:
        assert (image.numpy() == repeated).all()


def test_every_kind_of_colours(tmp_path):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    colour = np.stack([grey, grey.T, 255 - grey], 2)
    kinds = {
        "l.png": (Image.fromarray(grey), (grey,) * 3),
        "i16.png": (Image.fromarray(grey.astype(np.uint16) * 257), (grey,) * 3),
        "p.png": (Image.fromarray(grey).convert("P"), (grey,) * 3),
        "rgba.png": (Image.fromarray(np.dstack([colour, grey])), colour.transpose(2, 0, 1)),
        "rgb.webp": (Image.fromarray(colour), colour.transpose(2, 0, 1)),
        "cmyk.JPG": (Image.new("CMYK", (8, 8), (255, 0, 0, 0)), np.stack([grey * 0, grey * 0 + 255, grey * 0 + 255])),
        "l.jpeg": (Image.new("L", (8, 8), 77), np.full((3, 8, 8), 77)),
    }
    for split in ("train", "val"):
        for name, (image, _) in kinds.items():
            (tmp_path / "tree" / split / name.replace(".", "-")).mkdir(parents=True)
            image.save(tmp_path / "tree" / split / name.replace(".", "-") / name, quality=100, lossless=True)
    data = prepare(tmp_path / "tree", tmp_path / "out", size=8)
    assert len(data.train) == len(kinds)
    for image, label in zip(data.train, data.train_labels, strict=True):
        name = data.classes[label].replace("-", ".")
        assert np.abs(image.numpy().astype(int) - np.stack(kinds[name][1])).max() <= (1 if "j" in name.lower() else 0)


def test_the_place_of_the_prepared_files(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("FMCORE_DATA", str(tmp_path / "data"))
    data = image_folder(tree, 32, held_out=0.3, progress=False)
    digest = hashlib.sha256(str(tree.resolve()).encode()).hexdigest()[:8]
    place = tmp_path / "data" / f"folder-tree-32-{digest}"
    assert [path.name for path in (tmp_path / "data").iterdir()] == [place.name]
    manifest = json.loads((place / "manifest.json").read_text())
    assert manifest["settings"] == {"size": 32, "filter": "box", "crop": True, "exif": True, "held_out": 0.3}
    assert (manifest["name"], manifest["classes"]) == ("folder", ["ant", "bee", "cat"])
    monkeypatch.chdir(tree)
    monkeypatch.setattr(PHOTOGRAPHS, "reduce", lambda *_: pytest.fail("an image was read again"))
    shutil.rmtree(tree / "cat")  # what is prepared is not compared with the folder, unless it is asked for
    for again in (
        image_folder(".", 32, held_out=0.3, progress=False),
        image_folder(place, 32, progress=False),
        image_folder(place, 32, verify=True, held_out=0.9),
    ):
        assert isinstance(again, ImageData)
        assert torch.equal(again.train, data.train)
        assert torch.equal(again.held_out_labels, data.held_out_labels)
    with pytest.raises(ValueError, match=r"prepared with other settings: held_out .was 0.3, now 0.1."):
        image_folder(tree, 32, progress=False)
    with pytest.raises(ValueError, match=r"holds images prepared at 32 pixels, not 16: write size=32"):
        image_folder(place, 16)
    with pytest.raises(ValueError, match=r"the source is not the one .* train cat/\d+.(png|PNG) .*put the files back"):
        image_folder(tree, 32, held_out=0.3, verify=True)
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(tree)
    assert torch.equal(image_folder(tree, 32, held_out=0.3).train, data.train)
    with pytest.raises(FileNotFoundError, match="tree is not there: name a folder of images"):
        image_folder(tree, 32, held_out=0.3, prepared=place)
    with pytest.raises(FileNotFoundError, match="tree is not there: name a folder of images"):
        image_folder(tree, 16)
    with pytest.raises(ValueError, match="holds folder, not imagenet32: name another folder"):
        imagenet(32, place)


def test_another_size_in_the_same_place_is_refused(tree, tmp_path):
    prepare(tree, tmp_path / "out", held_out=0.3)
    with pytest.raises(ValueError, match=r"prepared with other settings: size .was 32, now 16.; name another folder"):
        prepare(tree, tmp_path / "out", size=16, held_out=0.3)


def test_a_manifest_of_something_else_makes_no_prepared_folder(tree, tmp_path):
    (tree / "manifest.json").write_text('{"icons": []}')
    assert prepare(tree, tmp_path / "out", held_out=0.3).num_classes == 3


class PowerCut(BaseException):
    """Nothing after it is carried out."""


@pytest.mark.parametrize("moment", [12, 44])
def test_an_interrupted_preparation_goes_on(tree, tmp_path, monkeypatch, moment):
    monkeypatch.setattr(PHOTOGRAPHS, "SHARD", 8)
    whole = prepare(tree, tmp_path / "whole", held_out=0.3)
    read = []

    def until(*arguments, most=moment):
        read.append(1)
        if len(read) > most:
            raise PowerCut
        return reduce(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(PHOTOGRAPHS, "reduce", until)
        with pytest.raises(PowerCut):
            prepare(tree, tmp_path / "out", held_out=0.3)
    assert not (tmp_path / "out" / "manifest.json").exists()
    read.clear()
    monkeypatch.setattr(PHOTOGRAPHS, "reduce", lambda *arguments: read.append(1) or reduce(*arguments))
    data = prepare(tree, tmp_path / "out", held_out=0.3)
    assert 45 - moment <= len(read) < 45 - moment + 16
    assert torch.equal(data.train, whole.train)
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize(("size", "images"), [(32, 1024), (128, 1024), (512, 85)])
def test_shards_of_large_images_are_smaller(tmp_path, size, images):
    files = [SourceFile(f"{k}.png", 1) for k in range(2000)]
    shards = photograph_shards(tmp_path, files, [0] * 2000, Reduction(size), False)
    assert [shard.images for shard in shards[:-1]] == [images] * (len(shards) - 1)
    assert sum(shard.images for shard in shards) == 2000
    assert images * 3 * size**2 <= 2**26


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (32.0, "size=32.0: a number of pixels is a whole number, write size=32"),
        ("32", "size='32': a number of pixels is a whole number"),
        (True, "size=True: a number of pixels is a whole number"),
        (2, "size is 2: it must be at least 4"),
        (33, "size is 33: it must be an even number from 4 to 512, for example size=34"),
        (1024, "size is 1024: it must be an even number from 4 to 512, for example size=512"),
    ],
)
def test_sizes_that_are_none(tree, size, message):
    with pytest.raises(ValueError, match=message):
        image_folder(tree, size)


@pytest.mark.parametrize("held_out", [0, 1, -0.1, 2, float("nan"), "0.1", True, None])
def test_shares_that_are_none(tree, tmp_path, held_out):
    with pytest.raises(ValueError, match=r"held_out=.*: it is the share that is held out, between 0 and 1"):
        prepare(tree, tmp_path / "out", held_out=held_out)


def test_wrong_folders(tree, tmp_path):
    out = tmp_path / "out"

    def refused(message, folder=tree, error=ValueError, prepared=out, **settings):
        with pytest.raises(error, match=message):
            image_folder(folder, 32, prepared=prepared, progress=False, **settings)

    refused("missing is not there: name a folder of images", tmp_path / "missing", FileNotFoundError)
    for nothing in (None, ""):
        refused("folder=.*: name the folder of the images", nothing)
    refused("0.png is a file: name the folder that the images lie in", tree / "ant" / "0.png")
    for inside in (tree, tree / "prepared", tree / "ant" / ".out"):
        refused("among the images: name another place as prepared", prepared=inside)
    (tmp_path / "empty").mkdir()
    refused(r"empty holds no images \(.jpeg, .jpg, .png, .webp\): put", tmp_path / "empty")

    write(tree / "loose.png", noise(0))
    refused(r"tree/loose.png lies beside folders of images, such as ant/, which are classes: move it into")
    (tree / "loose.png").unlink()
    (tree / "dog" / "pups").mkdir(parents=True)
    refused(r"tree/dog holds no images .*: put the images of this class there, or remove it")
    shutil.rmtree(tree / "dog")

    refused(r"gives 45 images to train on and 0 to hold out, .* another share than held_out=1e-09", held_out=1e-9)
    refused(r"gives 0 images to train on and 45 to hold out, and at least 2 of each are needed", held_out=1 - 1e-9)
    assert not (out / "manifest.json").exists()


def test_wrong_splits(tmp_path):
    root, out = tmp_path / "tree", tmp_path / "out"

    def refused(message, folder=root):
        with pytest.raises(ValueError, match=message):
            prepare(folder, out)

    for k in range(3):
        write(root / "train" / "a" / f"{k}.png", noise(k))
    refused(r"tree holds train/, which looks like splits, not classes: splits are train/ and val/ .or test/.; to have")
    write(root / "Valid" / "a" / "1.png", noise(9))
    refused(r"tree holds Valid/, train/, which looks like splits")
    (root / "Valid").rename(root / "val")
    refused("tree gives 3 images to train on and 1 to hold out, and at least 2 of each are needed: add images$")
    write(root / "val" / "a" / "2.png", noise(10))
    write(root / "val" / "b" / "2.png", noise(11))
    refused("tree/val/b is a class that .*tree/train does not have: is it another data set")
    shutil.rmtree(root / "val")
    write(root / "val" / "1.png", noise(9))
    write(root / "val" / "2.png", noise(9))
    refused("tree/val holds images without classes, and .*tree/train has a/ and so on: sort them")
    write(root / "b" / "1.png", noise(9))
    refused("tree/b/1.png lies beside train/ and val/, which are the two splits: move it")
    (root / "b").rename(root / "train" / "b")
    write(root / "1.png", noise(9))
    refused("tree/1.png lies beside train/ and val/")


def test_a_class_may_be_called_train(tmp_path):
    for name in ("bus", "train"):
        for k in range(10):
            write(tmp_path / "tree" / name / f"{k}.png", noise(k))
    assert prepare(tmp_path / "tree", tmp_path / "out", held_out=0.5).classes == ("bus", "train")
