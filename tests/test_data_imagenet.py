"""ImageNet from photographs and from the down-sampled release; CelebA, which is prepared in the same way."""

import importlib
import io
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fmcore.data import imagenet
from fmcore.data.photographs import Reduction, is_held_out, reduce

MODULE = importlib.import_module("fmcore.data.imagenet")
CLASSES = ["n01440764", "n01443537", "n02102040"]
REPOSITORY = Path(__file__).resolve().parents[1]


def write_photograph(path, colour, size=(50, 40)):
    """A photograph of one colour, which JPEG keeps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, quality=100, subsampling=0)


@pytest.fixture
def tree(tmp_path):
    """Three classes of 20 photographs to train on and 4 to validate; the grey of each says which it is."""
    for label, wnid in enumerate(CLASSES):
        for index in range(20):
            write_photograph(tmp_path / "tree" / "train" / wnid / f"{wnid}_{index}.JPEG", (60 * label + index,) * 3)
        for index in range(4):
            write_photograph(tmp_path / "tree" / "val" / wnid / f"{index}.JPEG", (200 + 5 * label + index,) * 3)
    return tmp_path / "tree"


def greys(images):
    """The grey of each image, after a check that it has no other."""
    flat = images.flatten(1)
    assert torch.equal(flat.amin(1), flat.amax(1))
    return flat[:, 0].tolist()


def test_photographs_and_labels_by_their_folders(tree, tmp_path):
    data = imagenet(32, tree, prepared=tmp_path / "out", progress=False)
    pairs = sorted(zip(greys(data.train), data.train_labels.tolist(), strict=True))
    assert pairs == [(60 * label + index, label) for label in range(3) for index in range(20)]
    pairs = sorted(zip(greys(data.held_out), data.held_out_labels.tolist(), strict=True))
    assert pairs == [(200 + 5 * label + index, label) for label in range(3) for index in range(4)]
    assert (data.name, data.shape, data.num_classes) == ("imagenet32", (3, 32, 32), 3)
    assert data.classes == tuple(CLASSES)
    assert data.train_labels.tolist() != sorted(data.train_labels.tolist())  # the first rows are of all classes


def test_photographs_held_out_in_another_folder(tree, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (tree / "val").rename(elsewhere)
    data = imagenet(64, tree, held_out_folder=elsewhere, prepared=tmp_path / "out", progress=False)
    assert sorted(greys(data.held_out)) == [200 + 5 * label + index for label in range(3) for index in range(4)]
    again = imagenet(64, tree, held_out_folder=elsewhere, prepared=tmp_path / "out", verify=True, progress=False)
    assert torch.equal(data.train, again.train)


def test_without_val_photographs_are_held_out_by_their_names(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(MODULE, "HELD_OUT", 0.3)
    (tree / "val").rename(tmp_path / "val")
    first = imagenet(32, tree, prepared=tmp_path / "first", progress=False)
    everything = sorted(60 * label + index for label in range(3) for index in range(20))
    assert sorted(greys(first.train) + greys(first.held_out)) == everything
    assert 5 < len(first.held_out) < 35

    write_photograph(tree / "train" / CLASSES[1] / "new.JPEG", (250,) * 3)
    second = imagenet(32, tree / "train", prepared=tmp_path / "second", progress=False)
    assert {*greys(second.train)} - {250} == {*greys(first.train)}
    assert {*greys(second.held_out)} - {250} == {*greys(first.held_out)}


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.5])
def test_the_share_that_is_held_out(fraction):
    chosen = sum(is_held_out(f"n01440764/n01440764_{index}.JPEG", fraction) for index in range(20_000))
    assert abs(chosen - 20_000 * fraction) < 4 * (20_000 * fraction * (1 - fraction)) ** 0.5


def averages(side, size):
    """(size, side): the mean over the pixels whose centres lie in each of size equal parts of a side, in float64."""
    centres, parts = 2 * np.arange(side) + 1, 2 * side * np.arange(size)[:, None]  # in units of half a pixel / size
    inside = (parts < size * centres) & (size * centres <= parts + 2 * side)
    return inside / inside.sum(1, keepdims=True)


@settings(max_examples=40)
@given(width=st.integers(64, 200), height=st.integers(64, 200), crop=st.sampled_from(["shorter side", None, 64]))
def test_each_pixel_is_the_mean_of_its_area(width, height, crop):
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3)).astype(np.uint8)
    side = {"shorter side": min(width, height), 64: 64}.get(crop)
    top, left = ((height - side) // 2, (width - side) // 2) if side else (0, 0)
    cut = pixels[top : top + side, left : left + side] if side else pixels
    rows, columns = averages(cut.shape[0], 32), averages(cut.shape[1], 32)
    expected = np.einsum("ih,hwc,jw->cij", rows, cut.astype(float), columns, optimize=True)
    found = reduce(Image.fromarray(pixels), Reduction(32, crop))
    assert (found.shape, found.dtype) == ((3, 32, 32), np.uint8)
    assert np.abs(found - expected).max() < 1.01  # Pillow rounds after the first axis, and after the second


@pytest.mark.parametrize(
    ("mode", "kind"), [("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"), ("1", "PNG")]
)
def test_grey_cmyk_and_palette_become_rgb(tree, tmp_path, mode, kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    path = tree / "val" / CLASSES[0] / "0.JPEG"
    Image.fromarray(noise).convert(mode).save(path, format=kind)
    for other in (tree / "val").rglob("*.JPEG"):
        if other != path:
            write_photograph(other, (0, 0, 0))
    data = imagenet(64, tree, prepared=tmp_path / "out", progress=False)
    expected = np.asarray(Image.open(path).convert("RGB"))
    (found,) = (image for image in data.held_out if image.any())
    assert torch.equal(found.permute(1, 2, 0), torch.from_numpy(expected.copy()))


def test_a_photograph_that_does_not_decode(tree, tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8))
    content = io.BytesIO()
    noise.save(content, format="JPEG")
    cut, text, empty = (tree / "train" / CLASSES[1] / f"{CLASSES[1]}_{index}.JPEG" for index in (3, 4, 5))
    cut.write_bytes(content.getvalue()[:2000])
    with pytest.raises(ValueError, match=f"{cut.name} does not decode: .*truncated.*skip_broken=True"):
        imagenet(32, tree, prepared=tmp_path / "out", progress=False)
    text.write_text("404 not found")
    empty.write_bytes(b"")
    # Another answer to the same files is another preparation: the first has noted their sizes.
    data = imagenet(32, tree, prepared=tmp_path / "second", skip_broken=True, progress=False)
    kept = [
        60 * label + index
        for label in range(3)
        for index in range(20)
        if (label, index) not in [(1, 3), (1, 4), (1, 5)]
    ]
    assert sorted(greys(data.train)) == kept
    assert [label for _, label in sorted(zip(greys(data.train), data.train_labels.tolist(), strict=True))] == [
        grey // 60 for grey in kept
    ]
    manifest = json.loads((tmp_path / "second" / "manifest.json").read_text())
    named = sorted(sentence.split(" ")[0] for sentence in manifest["splits"]["train"]["broken"])
    assert named == [str(cut), str(text), str(empty)]
    assert manifest["splits"]["held_out"]["broken"] == []


def test_a_broken_photograph_can_be_skipped_after_the_error(tree, tmp_path):
    (tree / "val" / CLASSES[0] / "1.JPEG").write_text("404 not found")
    with pytest.raises(ValueError, match="1.JPEG does not decode: it is no image"):
        imagenet(32, tree, prepared=tmp_path / "out", progress=False)
    data = imagenet(32, tree, prepared=tmp_path / "out", skip_broken=True, progress=False)
    assert (len(data.train), len(data.held_out)) == (60, 11)


def test_wrong_folders(tree, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="size must be one of 32, 64, 128, got 28"):
        imagenet(28, tree, prepared=out)
    with pytest.raises(
        FileNotFoundError, match=r"missing is not there: imagenet32 is prepared from a folder with train/"
    ):
        imagenet(32, tmp_path / "missing", prepared=out)
    with pytest.raises(
        FileNotFoundError, match=r"missing is not there: name a folder with <wnid>/\*.JPEG or val_data.npz"
    ):
        imagenet(32, tree, held_out_folder=tmp_path / "missing", prepared=out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no folders of photographs: expected <wnid>"):
        imagenet(32, tmp_path / "empty", prepared=out)

    (tree / "train" / "n09999999").mkdir()
    with pytest.raises(ValueError, match="n09999999 holds no photographs"):
        imagenet(32, tree, prepared=out)
    (tree / "train" / "n09999999").rmdir()

    write_photograph(tree / "val" / "n09999999" / "1.JPEG", (1, 1, 1))
    with pytest.raises(ValueError, match="n09999999 is a class that .*train does not have"):
        imagenet(32, tree, prepared=out)
    for path in sorted((tree / "val").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()

    write_photograph(tree / "val" / "ILSVRC2012_val_00000001.JPEG", (1, 1, 1))
    with pytest.raises(ValueError, match="val holds no folders of photographs .it holds 1 photographs: sort them"):
        imagenet(32, tree, prepared=out)
    (tree / "val" / "ILSVRC2012_val_00000001.JPEG").unlink()
    (tree / "val").rmdir()
    for path in (tree / "train").rglob("*.JPEG"):
        if path.stem[-2:] != "_0":
            path.unlink()
    with pytest.raises(ValueError, match="has too few photographs .3. to hold out 5%"):
        imagenet(32, tree, prepared=out)
    assert not (out / "manifest.json").exists()


@pytest.fixture
def release(tmp_path):
    """The npz files of the release with 7 images each; returns their folder, all images and all labels (from 1)."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "release"
    folder.mkdir()
    images = generator.integers(0, 256, (11, 7, 3 * 32 * 32)).astype(np.uint8)
    labels = generator.integers(1, 1001, (11, 7))
    labels[0, :2] = 1, 1000
    for name, data, label in zip(
        [*(f"train_data_batch_{k}" for k in range(1, 11)), "val_data"], images, labels, strict=True
    ):
        np.savez(folder / f"{name}.npz", data=data, labels=label, mean=data.mean(0))
    return folder, images, labels


def test_the_release_is_taken_as_it_is(release, tmp_path):
    folder, images, labels = release
    data = imagenet(32, folder, prepared=tmp_path / "out", progress=False)
    assert data.train.numpy().tobytes() == images[:10].tobytes()
    assert data.held_out.numpy().tobytes() == images[10].tobytes()
    assert (data.train_labels + 1).tolist() == labels[:10].reshape(-1).tolist()
    assert (data.held_out_labels + 1).tolist() == labels[10].tolist()
    assert (data.num_classes, data.classes[0], data.classes[999]) == (1000, "1", "1000")
    green = images[3, 2].reshape(3, 32, 32)[1]
    assert data.train[3 * 7 + 2, 1, 5, 9] == green[5, 9]


def test_the_validation_file_elsewhere(release, tmp_path):
    folder, images, _ = release
    (tmp_path / "val").mkdir()
    (folder / "val_data.npz").rename(tmp_path / "val" / "val_data.npz")
    with pytest.raises(FileNotFoundError, match="val_data.npz is missing, expected train_data_batch_1.npz to"):
        imagenet(32, folder, prepared=tmp_path / "out", progress=False)
    data = imagenet(32, folder, held_out_folder=tmp_path / "val", prepared=tmp_path / "out", progress=False)
    assert data.held_out.numpy().tobytes() == images[10].tobytes()


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path(os.environ["BOMB"]),)


def test_pickled_batches_are_refused_unread(release, tmp_path, monkeypatch):
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    folder, _, labels = release
    objects = np.empty(7, dtype=object)
    objects[:] = [Bomb()] * 7
    np.savez(folder / "train_data_batch_4.npz", data=objects, labels=labels[3])
    with pytest.raises(
        ValueError, match=r"train_data_batch_4.npz holds pickled objects, which are never read.*Get the npz"
    ):
        imagenet(32, folder, prepared=tmp_path / "out", progress=False)

    (folder / "train_data_batch_1.npz").unlink()
    (folder / "train_data_batch_1").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(
        ValueError, match=r"train_data_batch_1 is the pickled form .*Get the npz form .train_data_batch_1.npz"
    ):
        imagenet(32, folder, prepared=tmp_path / "out2", progress=False)
    assert not (tmp_path / "exploded").exists()


def test_damaged_batches_are_named(release, tmp_path):
    folder, _, _ = release
    path = folder / "train_data_batch_7.npz"
    whole = path.read_bytes()
    altered = bytearray(whole)
    altered[len(whole) // 3] ^= 1

    def refused(match):
        with pytest.raises(ValueError, match=f"train_data_batch_7.npz{match}"):
            imagenet(32, folder, prepared=tmp_path / "out", progress=False)

    path.write_bytes(whole[:-100])
    refused(" is truncated or altered .*get it again")
    path.write_bytes(altered)
    refused(r" is truncated or altered \(Bad CRC-32.*get it again")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data, labels: {"data": data[:, :768], "labels": labels},
            r"data is \(7, 768\) uint8, expected \(n, 3072\)",
        ),
        (lambda data, labels: {"data": data.astype(np.float32), "labels": labels}, "float32, expected"),
        (lambda data, labels: {"data": data, "labels": labels - labels.min()}, r"labels must be 7 numbers in 1..1000"),
        (lambda data, labels: {"data": data, "labels": labels + 1000}, r"labels must be 7 numbers in 1..1000"),
        (lambda data, labels: {"data": data, "labels": labels[:6]}, r"labels must be 7 numbers in 1..1000, got \(6,\)"),
        (lambda data, labels: {"data": data}, "truncated or altered .*labels"),
        (lambda data, labels: {"data": data[:0], "labels": labels[:0]}, r"data is \(0, 3072\)"),
    ],
    ids=["size", "floats", "label 0", "label 1001", "lengths", "no labels", "empty"],
)
def test_batches_with_another_content(release, tmp_path, change, message):
    folder, images, labels = release
    np.savez(folder / "train_data_batch_7.npz", **change(images[6], labels[6]))
    with pytest.raises(ValueError, match=f"train_data_batch_7.npz.*{message}"):
        imagenet(32, folder, prepared=tmp_path / "out", progress=False)


def real_photographs():
    folder = Path(os.environ.get("FMCORE_IMAGENET", REPOSITORY.parent / "shared" / "datasets" / "imagenet_sample"))
    if not (folder / "train").is_dir():
        pytest.skip("no real photographs here: name a folder that holds train/<wnid>/*.JPEG in FMCORE_IMAGENET")
    return folder


@pytest.mark.parametrize("size", [32, 64, 128])
def test_real_photographs(tmp_path, size):
    folder = tmp_path / "some"
    (folder / "train").mkdir(parents=True)
    classes = sorted(path.name for path in (real_photographs() / "train").iterdir())
    if "FMCORE_IMAGENET" in os.environ:
        classes = classes[:50]  # of a full ImageNet, some are enough
    for name in classes:
        (folder / "train" / name).symlink_to(real_photographs() / "train" / name)
    data = imagenet(size, folder, prepared=tmp_path / "out", progress=False)
    files = sorted((folder / "train").glob("*/*.JPEG"))
    assert len(data.train) + len(data.held_out) == len(files)
    assert 0.02 < len(data.held_out) / len(files) < 0.08

    images, labels = torch.cat([data.train, data.held_out]), torch.cat([data.train_labels, data.held_out_labels])
    by_label = {int(label): image for label, image in zip(labels, images, strict=True)}
    for path in files[::40]:
        photograph = Image.open(path).convert("RGB")
        side = min(photograph.size)
        left, top = (photograph.width - side) // 2, (photograph.height - side) // 2
        cut = photograph.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BOX)
        of_class = images[labels == classes.index(path.parent.name)]
        assert (of_class == torch.from_numpy(np.array(cut)).permute(2, 0, 1)).flatten(1).all(1).sum() == 1, path
    assert sorted(by_label) == [*range(len(classes))]
    # Photographs are a little darker and redder than middle grey, at every size.
    mean = (images.to(torch.float32).mean((0, 2, 3)) / 255).tolist()
    assert mean == pytest.approx([0.485, 0.456, 0.406], abs=0.03)  # the means of ImageNet that networks are fed with
