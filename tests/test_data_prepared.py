"""Prepared data sets: what is checked when they are loaded again, and how they lie in memory."""

import hashlib
import json
import os
import shutil
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fmcore.data import by_name, imagenet
from fmcore.data.mapped import load, map_images

CLASSES = ("n01440764", "n01443537")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Photographs, and the folder prepared from them; both are only read."""
    root = tmp_path_factory.mktemp("made")
    generator = np.random.default_rng(0)
    for split, n in (("train", 15), ("val", 5)):
        for wnid in CLASSES:
            (root / "tree" / split / wnid).mkdir(parents=True)
            for index in range(n):
                pixels = generator.integers(0, 256, (32, 32, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(root / "tree" / split / wnid / f"{index}.PNG")
    imagenet(32, root / "tree", prepared=root / "out", progress=False)
    return root


@pytest.fixture
def copy(made, tmp_path):
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def edit(path, position, value=None):
    content = bytearray(path.read_bytes())
    content[position] = content[position] ^ 1 if value is None else value
    path.write_bytes(content)


def test_the_files_are_what_the_manifest_says(made):
    manifest = json.loads((made / "out" / "manifest.json").read_text())
    assert (manifest["name"], manifest["shape"], manifest["classes"]) == ("imagenet32", [3, 32, 32], list(CLASSES))
    for split, n in (("train", 30), ("held_out", 10)):
        (shard,) = manifest["splits"][split]["shards"]
        pixels, labels = ((made / "out" / f"{split}.{kind}").read_bytes() for kind in ("pixels", "labels"))
        assert (shard["images"], len(pixels), len(labels)) == (n, n * 3072, n * 8)
        assert shard["pixels"] == hashlib.sha256(pixels).hexdigest()
        assert shard["labels"] == hashlib.sha256(labels).hexdigest()
    sources = (made / "out" / "sources.txt").read_bytes()
    assert manifest["sources_sha256"] == hashlib.sha256(sources).hexdigest()
    assert sources.decode().count(".PNG") == 40
    assert not (made / "out" / "journal.json").exists()


def test_rows_are_the_pixels_of_the_photographs(made):
    data = imagenet(32, made / "out")
    found = {
        (image.permute(1, 2, 0).contiguous().numpy().tobytes(), CLASSES[label])
        for image, label in zip(data.train, data.train_labels.tolist(), strict=True)
    }
    expected = {(Image.open(path).tobytes(), path.parent.name) for path in (made / "tree" / "train").glob("*/*.PNG")}
    assert found == expected


def test_a_bar_shows_how_far_it_is(made, tmp_path, capfd):
    imagenet(32, made / "tree", prepared=tmp_path / "out")
    shown = capfd.readouterr().err
    assert "imagenet32: 100%" in shown
    assert "40/40" in shown
    imagenet(32, made / "tree", prepared=tmp_path / "quiet", progress=False)
    imagenet(32, made / "tree", prepared=tmp_path / "out")
    assert capfd.readouterr().err == ""


def test_the_photographs_are_read_once(copy):
    data = imagenet(32, copy / "tree", prepared=copy / "second", progress=False)
    for path in (copy / "tree").rglob("*.PNG"):
        path.write_bytes(b"")
    again = imagenet(32, copy / "tree", prepared=copy / "second")
    assert torch.equal(again.train, data.train)


def test_prepared_data_needs_no_source(copy, monkeypatch):
    shutil.rmtree(copy / "tree")
    data = imagenet(32, copy / "out", verify=True)
    monkeypatch.setenv("FMCORE_DATA", str(copy))
    with pytest.raises(FileNotFoundError, match="imagenet is not there: imagenet32 is prepared from a folder"):
        by_name("imagenet32")
    (copy / "out").rename(copy / "imagenet32")
    assert torch.equal(by_name("imagenet32").train, data.train)
    with pytest.raises(FileNotFoundError, match="tree is not there"):
        imagenet(32, copy / "tree")


def test_another_source_is_refused_by_its_first_file(copy, tmp_path):
    moved = tmp_path / "moved"
    (copy / "tree").rename(moved)
    imagenet(32, moved, prepared=copy / "out", progress=False)

    path = moved / "train" / CLASSES[1] / "3.PNG"
    path.write_bytes(path.read_bytes() + b"more")
    size = path.stat().st_size
    with pytest.raises(
        ValueError, match=rf"train n01443537/3.PNG \({size - 4} bytes then, {size} now\); put the files back"
    ):
        imagenet(32, moved, prepared=copy / "out")
    path.unlink()
    (moved / "val" / CLASSES[0] / "new.PNG").write_bytes(b"123")
    with pytest.raises(
        ValueError, match=r"held_out n01440764/new.PNG \(no bytes then, 3 now\), train .*3.PNG .*no now"
    ):
        imagenet(32, moved, prepared=copy / "out")


def test_a_changed_source_is_found_where_it_was_on_request(copy):
    imagenet(32, copy / "tree", prepared=copy / "second", progress=False)
    (copy / "tree" / "train" / CLASSES[0] / "7.PNG").unlink()
    imagenet(32, copy / "tree", prepared=copy / "second")
    with pytest.raises(ValueError, match=r"second was prepared from: train n01440764/7.PNG \(\d+ bytes then, no now\)"):
        imagenet(32, copy / "tree", prepared=copy / "second", verify=True)


def test_other_settings_and_sizes_are_refused(made):
    with pytest.raises(
        ValueError, match=r"prepared with other settings: crop \(was True, now False\); name another folder"
    ):
        imagenet(32, made / "tree", prepared=made / "out", crop=False)
    with pytest.raises(ValueError, match="out holds imagenet32, not imagenet64: name another folder"):
        imagenet(64, made / "tree", prepared=made / "out")
    with pytest.raises(ValueError, match="out holds imagenet32, not celeba64"):
        by_name("celeba64", made / "out")


@pytest.mark.parametrize("split", ["train", "held_out"])
@pytest.mark.parametrize("kind", ["pixels", "labels"])
def test_an_altered_file_is_named(copy, split, kind):
    path = copy / "out" / f"{split}.{kind}"
    whole = path.read_bytes()
    edit(path, 8 * 4)  # label 4 of 0 and 1 becomes the other
    for verify in (False, True):  # small files are compared at every load
        with pytest.raises(
            ValueError, match=rf"{split}.{kind} is altered: rows 0 to \d+ have SHA-256 .*prepare it again"
        ):
            load(copy / "out", "imagenet32", verify)
    for content in (whole[:-1], whole + b"1", b""):
        path.write_bytes(content)
        with pytest.raises(
            ValueError,
            match=rf"{split}.{kind} has {len(content):,} bytes, expected {len(whole):,}: .*again from its source",
        ):
            load(copy / "out", "imagenet32")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{split}.{kind} is missing, expected {len(whole):,} bytes"):
        load(copy / "out", "imagenet32")


def test_labels_outside_the_classes(copy):
    path = copy / "out" / "train.labels"
    edit(path, 16, 7)
    manifest = json.loads((copy / "out" / "manifest.json").read_text())
    manifest["splits"]["train"]["shards"][0]["labels"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (copy / "out" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"train.labels holds labels outside 0..1; delete"):
        load(copy / "out", "imagenet32")


@given(cut=st.integers(0, 10_000))
def test_a_truncated_manifest_is_refused(made, tmp_path_factory, cut):
    content = (made / "out" / "manifest.json").read_bytes()
    folder = tmp_path_factory.mktemp("cut")
    (folder / "manifest.json").write_bytes(content[: cut % len(content)])
    with pytest.raises(ValueError, match="manifest.json is damaged .*prepare it again"):
        load(folder, "imagenet32")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", 2),
        ("shape", "3"),
        ("shape", [3, 32, "32"]),
        ("classes", None),
        ("splits", {"train": {"shards": []}, "held_out": {"shards": []}}),
        ("splits", {"train": 5, "held_out": 5}),
        ("splits", {}),
    ],
)
def test_a_manifest_with_other_fields_is_refused(copy, field, value):
    path = copy / "out" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(ValueError, match="manifest.json is damaged"):
        load(copy / "out", "imagenet32")


@given(seed=st.integers(0, 2**31), rows=st.lists(st.integers(0, 99), max_size=40))
def test_rows_of_a_mapped_file(tmp_path_factory, seed, rows):
    content = np.random.default_rng(seed).integers(0, 256, 100 * 12).astype(np.uint8).tobytes()
    path = tmp_path_factory.mktemp("mapped") / "pixels"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = map_images(path, (100, 3, 2, 2))
    batch = images[torch.tensor(rows, dtype=torch.int64)]
    assert batch.shape == (len(rows), 3, 2, 2)
    assert batch.numpy().tobytes() == b"".join(content[12 * row : 12 * row + 12] for row in rows)


def test_writing_to_a_mapped_tensor_does_not_reach_the_file(tmp_path):
    path = tmp_path / "pixels"
    path.write_bytes(bytes(range(24)))
    path.chmod(0o444)
    images = map_images(path, (2, 3, 2, 2))
    images.add_(1)
    assert images.flatten().tolist() == [*range(1, 25)]
    assert path.read_bytes() == bytes(range(24))
    assert map_images(path, (2, 3, 2, 2)).flatten().tolist() == [*range(24)]


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="asks the operating system for the size of the memory")
def test_a_file_larger_than_the_memory_is_mapped(tmp_path):
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    n = 3 * memory // (3 * 128 * 128)
    path = tmp_path / "pixels"
    with open(path, "wb") as file:
        try:
            file.truncate(n * 3 * 128 * 128)  # a file of holes takes no room
        except OSError as error:
            pytest.skip(f"no sparse files here: {error}")
        file.seek((n - 5) * 3 * 128 * 128)
        file.write(b"\x07")
    images = map_images(path, (n, 3, 128, 128))
    assert images[torch.tensor([n - 6, n - 5, 0])].sum((1, 2, 3)).tolist() == [0, 7, 0]
