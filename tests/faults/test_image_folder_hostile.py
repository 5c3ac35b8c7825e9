"""Files in a folder of images that are not what their names say: each is named, or left out where that is asked for."""

import json
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from fmcore.data import image_folder

NOISE = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
FIRST, SECOND = (Image.fromarray(pixels) for pixels in NOISE)
posix = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a POSIX system")


def truncated(path):
    FIRST.resize((64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:100])


def chunk(kind, content):
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def bomb(path):
    """A PNG of 50 bytes that claims 60,000 x 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")))


def fractional_place(path):
    """A TIFF file whose pixels start at byte 8.5, on which Pillow fails with a TypeError."""
    FIRST.save(path, format="TIFF")
    content = bytearray(path.read_bytes())
    first = struct.unpack("<I", content[4:8])[0]
    entries = struct.unpack("<H", content[first : first + 2])[0]
    for entry in range(first + 2, first + 2 + 12 * entries, 12):
        if struct.unpack("<H", content[entry : entry + 2])[0] == 273:
            content[entry + 2 : entry + 12] = struct.pack("<HIf", 11, 1, 8.5)  # kind 11: numbers with a point
    path.write_bytes(content)


DOES_NOT_DECODE = {
    "truncated.png": (truncated, "truncated.png does not decode: .*truncated"),
    "text.jpg": (lambda path: path.write_text("404 not found"), "text.jpg does not decode: it is no image"),
    "empty.webp": (lambda path: path.write_bytes(b""), "empty.webp does not decode: it is no image"),
    "bomb.png": (bomb, "bomb.png does not decode: .*decompression bomb"),
    "float.png": (
        lambda path: Image.new("F", (8, 8), 0.5).save(path, format="TIFF"),
        "float.png does not decode: .*mode F.* save it as grey or RGB of 8 bits",
    ),
    "program.png": (
        lambda path: FIRST.save(path, format="EPS"),
        "program.png does not decode: it is PostScript, a program, which is never run",
    ),
    "fraction.png": (fractional_place, "fraction.png does not decode: .*cannot be interpreted as an integer"),
}
NO_FILES = {
    "pipe.png": (lambda path: os.mkfifo(path), "pipe.png is a pipe where a file is expected"),
    "gone.png": (lambda path: path.symlink_to("nowhere"), r"gone.png is a broken symbolic link \(to nowhere\)"),
    "round.png": (lambda path: path.symlink_to("round.png"), "round.png is a broken symbolic link"),
    "folder.jpg": (lambda path: path.mkdir(), "folder.jpg is a folder where a file is expected"),
    "two\nlines.png": (lambda path: FIRST.save(path), r"two\\nlines.png' has control characters or bytes that are no"),
    "no text \udcff.png": (lambda path: FIRST.save(path), r"no text \\udcff.png' has control characters or bytes"),
}


@pytest.fixture
def tree(tmp_path):
    """Two images to train on and two that are held out."""
    for split in ("train", "val"):
        (tmp_path / "tree" / split / "a").mkdir(parents=True)
        for k in range(2):
            Image.new("RGB", (8, 8), (k, k, k)).save(tmp_path / "tree" / split / "a" / f"{k}.png")
    return tmp_path / "tree"


def prepare(tree, **settings):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # of damaged files, beside the error
        return image_folder(tree, 8, prepared=tree.parent / "out", progress=False, **settings)


@posix
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("name", [*DOES_NOT_DECODE, *NO_FILES])
def test_it_is_named_or_left_out(tree, name, split):
    make, message = (DOES_NOT_DECODE | NO_FILES)[name]
    make(tree / split / "a" / name)
    with pytest.raises(ValueError, match=message) as found:
        prepare(tree)
    assert "skip_broken=True" in str(found.value)
    assert "\n" not in str(found.value)
    assert not (tree.parent / "out" / "manifest.json").exists()
    data = prepare(tree, skip_broken=True)
    for images, labels in ((data.train, data.train_labels), (data.held_out, data.held_out_labels)):
        assert sorted(images[:, 0, 0, 0].tolist()) == [0, 1]
        assert labels.tolist() == [0, 0]
    splits = json.loads((tree.parent / "out" / "manifest.json").read_text())["splits"]
    (sentence,) = splits["train"]["broken"] + splits["held_out"]["broken"]
    assert ascii(name)[1:-1].replace("\\\\", "\\") in sentence
    # It is listed as a part of the source, so that another folder without it is another source.
    listed = (tree.parent / "out" / "sources.txt").read_text()
    assert json.dumps(f"{split}/a/{name}") in listed
    assert len(prepare(tree, skip_broken=True, verify=True).train) == 2


@posix
def test_all_at_once(tree):
    for name, (make, _) in (DOES_NOT_DECODE | NO_FILES).items():
        make(tree / "train" / "a" / name)
    assert len(prepare(tree, skip_broken=True).train) == 2
    manifest = json.loads((tree.parent / "out" / "manifest.json").read_text())
    assert len(manifest["splits"]["train"]["broken"]) == len(DOES_NOT_DECODE) + len(NO_FILES)


@pytest.mark.parametrize("name", ["animation.png", "animation.webp"])
def test_of_an_animation_the_first_picture_is_taken(tree, name):
    FIRST.save(tree / "train" / "a" / name, save_all=True, append_images=[SECOND, SECOND], lossless=True)
    with Image.open(tree / "train" / "a" / name) as image:
        assert image.n_frames > 1
    data = prepare(tree)
    assert NOISE[0].transpose(2, 0, 1).tobytes() in [image.numpy().tobytes() for image in data.train]


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1)])
def test_of_a_line_the_middle_is_taken(tree, size):
    """The largest square in it is one pixel, which is enlarged."""
    image = Image.new("RGB", size)
    image.putpixel([(side - 1) // 2 for side in size], (9, 50, 200))
    image.save(tree / "train" / "a" / "line.png")
    (line,) = (found for found in prepare(tree).train if found.max() > 1)
    assert line.flatten(1).unique(dim=1).flatten().tolist() == [9, 50, 200]


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
@pytest.mark.parametrize(
    "note", [b"XX*\x00\x08\x00\x00\x00", b"", b"II*\x00\xff\xff\xff\xff", b"MM\x00*\x00\x00\x00\x08\x00\xff"]
)
def test_exif_data_that_cannot_be_read_turn_nothing(tree, kind, note):
    lower = Image.new("RGB", (8, 8))
    lower.paste((255, 255, 255), (0, 4, 8, 8))
    lower.save(tree / "train" / "a" / f"exif.{kind}", exif=b"Exif\x00\x00" + note, lossless=True)
    (image,) = (found for found in prepare(tree).train if found.max() > 1)
    assert image[:, :4].max() < 5
    assert image[:, 4:].min() > 250


def test_too_few_are_left(tree):
    (tree / "val" / "a" / "1.png").write_text("404 not found")
    with pytest.raises(ValueError, match="out holds 2 images to train on and 1 held-out ones, since others do not dec"):
        prepare(tree, skip_broken=True)
    with pytest.raises(ValueError, match="delete this folder of prepared files, and prepare it again"):
        prepare(tree, skip_broken=True)


@posix
def test_only_files_that_are_none(tree):
    for path in (tree / "val" / "a").iterdir():
        path.unlink()
    os.mkfifo(tree / "val" / "a" / "0.png")
    with pytest.raises(ValueError, match="val holds no images"):
        prepare(tree, skip_broken=True)


@posix
def test_folders_in_a_circle_or_without_a_name(tree):
    (tree / "train" / "a" / "up").symlink_to("..")
    with pytest.raises(ValueError, match="train/a/up is a link to a folder that it lies in: remove the link"):
        prepare(tree, skip_broken=True)
    (tree / "train" / "a" / "up").unlink()
    (tree / "train" / "a" / "x").symlink_to("x")  # leads nowhere, and has no ending of an image: passed over
    os.mkfifo(tree / "train" / "a" / "pipe")
    (tree / "train" / "b\tc").mkdir()
    with pytest.raises(ValueError, match=r"train/b\\tc' has control characters"):
        prepare(tree, skip_broken=True)


@posix
def test_links_to_images_and_folders_are_followed(tree):
    (tree / "train" / "b").symlink_to(tree / "train" / "a")
    (tree / "train" / "a" / "2.png").symlink_to(tree / "val" / "a" / "1.png")
    data = prepare(tree)
    assert data.classes == ("a", "b")
    assert sorted(zip(data.train[:, 0, 0, 0].tolist(), data.train_labels.tolist(), strict=True)) == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 0),
        (1, 1),
        (1, 1),
    ]
