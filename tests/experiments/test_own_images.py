"""Images of one's own: a folder of files is trained on as a data set is, with the same numbers."""

import numpy as np
import pytest
import torch
from PIL import Image

from fmcore import data
from fmcore.data import digits
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


def test_the_same_pixels_train_to_the_same_numbers(folder, tmp_path, monkeypatch):
    """Images that are read from files, or held in memory in the same order, are one data set."""
    row = with_overrides(catalog.by_name("own_images"), [*SMALL, f"data_dir={folder}", "size=8"])
    images = load_data(row)
    train_run(row, tmp_path / "one", progress=False)
    held = data.ImageData(
        "folder",
        images.train.clone(),
        images.held_out.clone(),
        images.train_labels.clone(),
        images.held_out_labels.clone(),
        classes=images.classes,
    )
    monkeypatch.setattr(data, "image_folder", lambda *_: held)
    train_run(row, tmp_path / "other", progress=False)
    one, other = (Run(tmp_path / name).network.state_dict() for name in ("one", "other"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["data=folder"], "images of a folder of your own are reduced to a size"),
        (["size=32"], "data=digits with size=32"),
    ],
)
def test_a_folder_has_a_size_and_others_have_theirs(settings, words):
    with pytest.raises(ValueError, match=words):
        with_overrides(catalog.by_name("digits"), settings)


def test_which_folder_must_be_said():
    with pytest.raises(ValueError, match="data=folder needs data_dir=FOLDER"):
        load_data(catalog.by_name("own_images"))
