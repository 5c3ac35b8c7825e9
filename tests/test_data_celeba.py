"""CelebA at 64 pixels."""

import numpy as np
import pytest
import torch
from PIL import Image

from fmcore.data import celeba64

N = 60


@pytest.fixture
def faces(tmp_path):
    """Sixty photographs of one grey, with a frame that the cut takes away."""
    folder = tmp_path / "celeba" / "img_align_celeba"
    folder.mkdir(parents=True)
    for index in range(N):
        pixels = np.full((218, 178, 3), 255, np.uint8)
        pixels[35:183, 15:163] = 2 * index
        Image.fromarray(pixels).save(folder / f"{index:06}.jpg", quality=100, subsampling=0)
    return tmp_path / "celeba"


def greys(images):
    """The grey in the middle of each image, after a check that nothing of the white frame is in it."""
    assert int(images.max()) < 2 * N + 20
    return images[:, 0, 32, 32].tolist()


def test_the_official_split(faces, tmp_path):
    parts = [0] * 40 + [1] * 10 + [2] * 10
    lines = [f"{index:06}.jpg {part}" for index, part in enumerate(parts)]
    (faces / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    data = celeba64(faces, prepared=tmp_path / "out", progress=False)
    assert sorted(greys(data.train)) == [2 * index for index in range(40)]
    assert sorted(greys(data.held_out)) == [2 * index for index in range(50, 60)]
    assert (data.name, data.shape, data.num_classes, data.classes) == ("celeba64", (3, 64, 64), 1, ())
    assert not data.train_labels.any()
    assert data.train_labels.dtype == torch.int64
    inside = celeba64(faces / "img_align_celeba", prepared=tmp_path / "inside", progress=False)
    assert torch.equal(inside.held_out, data.held_out)

    (faces / "list_eval_partition.txt").write_text("\n".join([*lines[:20], *lines[21:]]))
    with pytest.raises(ValueError, match=r"000020.jpg is not in .*list_eval_partition.txt"):
        celeba64(faces, prepared=tmp_path / "third")
    (faces / "list_eval_partition.txt").write_text("\n".join([*lines, "000060.jpg 0"]))
    with pytest.raises(ValueError, match=r"000060.jpg is in .*list_eval_partition.txt, but not there .as 0 more."):
        celeba64(faces, prepared=tmp_path / "third")
    (faces / "list_eval_partition.txt").write_text("<html>\n")
    with pytest.raises(ValueError, match=r"list_eval_partition.txt, line 1: '<html>' is not a name and 0, 1 or 2"):
        celeba64(faces, prepared=tmp_path / "third")


def test_without_the_official_split_some_are_held_out_by_name(faces, tmp_path):
    data = celeba64(faces, prepared=tmp_path / "out", progress=False)
    assert sorted(greys(data.train) + greys(data.held_out)) == [2 * index for index in range(N)]
    assert 1 <= len(data.held_out) <= 15


def test_the_middle_is_cut(faces, tmp_path):
    narrow = celeba64(faces, prepared=tmp_path / "narrow", crop=140, progress=False)
    greys(narrow.train)
    with pytest.raises(ValueError, match=r"prepared with other settings: crop .was 140, now 148."):
        celeba64(faces, prepared=tmp_path / "narrow", progress=False)
    wide = celeba64(faces, prepared=tmp_path / "wide", crop=178, progress=False)
    assert (wide.train[:, :, 0] == 255).all()
    with pytest.raises(ValueError, match=r"crop must be in 64..178, got 200"):
        celeba64(faces, prepared=tmp_path / "out", crop=200)


def test_photographs_of_another_size_are_named(faces, tmp_path):
    Image.new("RGB", (178, 178)).save(faces / "img_align_celeba" / "000007.jpg")
    with pytest.raises(ValueError, match="000007.jpg does not decode: it has 178x178 pixels, expected 178x218"):
        celeba64(faces, prepared=tmp_path / "out", progress=False)


def test_wrong_folders(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"missing is not there: celeba64 is prepared from a folder with img_align"
    ):
        celeba64(tmp_path / "missing", prepared=tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"holds no photographs, expected img_align_celeba/000001.jpg"):
        celeba64(tmp_path, prepared=tmp_path / "out")
