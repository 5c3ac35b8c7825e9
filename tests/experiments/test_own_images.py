"""Images of one's own: a folder of files is trained on as a data set is, with the same numbers."""

import numpy as np
import pytest
import torch
from PIL import Image

from fmcore import data
from fmcore.data import digits
from fmcore.data.photographs import name_hash
from fmcore.experiments.config.overrides import with_overrides
from fmcore.experiments.evaluate.evaluation import evaluate_run
from fmcore.experiments.run.finished import Run
from fmcore.experiments.run.train import train_run
from fmcore.experiments.run.training_batch import load_data
from fmcore.papers import catalog

SMALL = [
    "channels=8",
    "multipliers=1",
    "attention=",
    "steps=3",
    "batch=8",
    "warmup=1",
    "precision=fp32",
    "solver_steps=2",
]
SMALL += ["likelihood_images=2", "classifier_steps=3", "nearest_images=2", "checkpoint_every=2"]


def write(images, labels, folder):
    """Grey images of 17 levels as PNG files of three colours, in a folder for each label."""
    for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        place = folder / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image[0] * 15).numpy().astype(np.uint8)).convert("RGB").save(place / f"{number:04d}.png")


@pytest.fixture
def folder(tmp_path, own_cache):
    few = digits()
    write(few.train[:80], few.train_labels[:80], tmp_path / "photos" / "train")
    write(few.held_out[:20], few.train_labels[:20], tmp_path / "photos" / "val")
    return tmp_path / "photos"


def test_a_folder_is_trained_on_and_measured(folder, tmp_path):
    row = with_overrides(catalog.by_name("own_images"), [*SMALL, f"data_dir={folder}", "size=8", "labels=true"])
    images = load_data(row)
    assert images.train.shape == (80, 3, 8, 8)
    assert images.classes == tuple(map(str, range(10)))
    train_run(row, tmp_path / "run", progress=False)
    record = evaluate_run(Run(tmp_path / "run"))
    assert record["training"]["images"] == 80
    assert record["data"]["name"] == "folder"
    assert record["values"]["classifier_frechet_distance"]["generated"]["value"] > 0


def test_images_without_classes_have_no_classifier(folder, tmp_path):
    for number, file in enumerate(sorted(folder.rglob("*.png"))):
        (tmp_path / "flat").mkdir(exist_ok=True)
        file.rename(tmp_path / "flat" / f"{number}.png")
    row = with_overrides(catalog.by_name("own_images"), [*SMALL, f"data_dir={tmp_path / 'flat'}", "size=8"])
    train_run(row, tmp_path / "run", progress=False)
    record = evaluate_run(Run(tmp_path / "run"))
    assert record["evaluation"]["feature_space"] == "none, since the images have no classes"
    measured = {"bits_per_dim", "distance_to_nearest_training_image", "share_of_copies"}
    assert record["values"].keys() == measured
    with pytest.raises(ValueError, match="needs images of at least two classes"):
        train_run(with_overrides(row, ["labels=true"]), tmp_path / "other", progress=False)


def test_a_data_set_written_as_files_trains_to_the_same_numbers(tmp_path, own_cache, monkeypatch):
    """Photographs of random pixels, once held in memory and once as PNG files whose names keep their order."""
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (60, 3, 8, 8), generator=draw).to(torch.uint8)
    labels = torch.randint(3, (60,), generator=draw)
    held = data.ImageData("folder", pixels[:48], pixels[48:], labels[:48], labels[48:], classes=("a", "b", "c"))
    for split, images, classes in (
        ("train", held.train, held.train_labels),
        ("val", held.held_out, held.held_out_labels),
    ):
        names = [f"{name}/{number}.png" for name in held.classes for number in range(200)]
        names = sorted(names, key=lambda name: name_hash(f"{split}/{name}"))  # the order of a folder
        for image, label in zip(images, classes.tolist(), strict=True):
            place = next(k for k, name in enumerate(names) if name.startswith(held.classes[label]))
            name, names = names[place], names[place + 1 :]
            file = tmp_path / "photos" / split / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(file)
    settings = [*SMALL, f"data_dir={tmp_path / 'photos'}", "size=8", "labels=true"]
    row = with_overrides(catalog.by_name("own_images"), settings)
    train_run(row, tmp_path / "files", progress=False)
    monkeypatch.setattr(data, "image_folder", lambda *_, **__: held)
    train_run(row, tmp_path / "memory", progress=False)
    one, other = (Run(tmp_path / name) for name in ("files", "memory"))
    assert one.digest == other.digest
    assert (tmp_path / "files" / "losses.csv").read_bytes() == (tmp_path / "memory" / "losses.csv").read_bytes()


def test_what_does_not_decode_is_refused_or_left_out(folder, own_cache):
    (folder / "train" / "0" / "torn.png").write_bytes(b"no image")
    row = with_overrides(catalog.by_name("own_images"), [f"data_dir={folder}", "size=8"])
    with pytest.raises(ValueError, match=r"torn\.png does not decode: it is no image.*skip_broken=True"):
        load_data(row)
    assert len(load_data(with_overrides(row, ["skip_broken=true"])).train) == 80


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["data=folder"], "images of a folder of your own are reduced to a size"),
        (["size=32"], "data=digits with size=32"),
        (["skip_broken=true"], "it is for data=folder"),
    ],
)
def test_a_folder_has_a_size_and_others_have_theirs(settings, words):
    with pytest.raises(ValueError, match=words):
        with_overrides(catalog.by_name("digits"), settings)


def test_which_folder_must_be_said():
    with pytest.raises(ValueError, match="data=folder needs data_dir=FOLDER"):
        load_data(catalog.by_name("own_images"))
