"""A kept classifier that was altered, exchanged or cut off: noticed and trained again, or harmless."""

import json
import random

import pytest
import torch
from safetensors.torch import load, save

from fmcore.data import digits
from fmcore.metrics import cached_classifier, classifier
from fmcore.metrics.cache import cached

STEPS = 2


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A classifier, and the file that it was kept in."""
    folder = tmp_path_factory.mktemp("metrics")
    trained = cached_classifier(digits(), steps=STEPS, folder=folder)
    [file] = folder.iterdir()
    return trained, file.name, file.read_bytes()


@pytest.fixture
def loaded(kept, tmp_path, monkeypatch):
    """Load the classifier from other bytes: its weights, and how often it was trained for that."""
    trained, name, _ = kept
    times = []

    def again(data, seed, steps, device):
        times.append(steps)
        return trained.network, trained.accuracy

    monkeypatch.setattr(classifier, "train_classifier", again)

    def load_from(content):
        times.clear()
        (tmp_path / name).write_bytes(content)
        return cached_classifier(digits(), steps=STEPS, folder=tmp_path), len(times), tmp_path / name

    return load_from


def same(one, other):
    weights = one.network.state_dict()
    return one.accuracy == other.accuracy and all(
        torch.equal(value, weights[name]) for name, value in other.network.state_dict().items()
    )


def test_a_flipped_bit_is_noticed_or_harmless(kept, loaded, capsys):
    trained, _, content = kept
    draw = random.Random(0)
    header = 8 + int.from_bytes(content[:8], "little")
    # As many in the header, which is small, as in the values.
    places = [draw.randrange(header) for _ in range(30)] + [draw.randrange(header, len(content)) for _ in range(30)]
    noticed = 0
    for place in places:
        altered = bytearray(content)
        altered[place] ^= 1 << draw.randrange(8)
        found, times, file = loaded(bytes(altered))
        assert same(found, trained)  # trained again here means: the same weights as before
        said = capsys.readouterr().err
        assert (str(file) in said) == (times == 1)
        noticed += times
    assert noticed >= 30  # all of those in the values, at least


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content, tensors, about: content[:-1], "it is damaged"),
        (lambda content, tensors, about: content[:100], "it is damaged"),
        (lambda content, tensors, about: b"", "it is damaged"),
        (lambda content, tensors, about: b"\xff" * 200, "it is damaged"),
        (lambda content, tensors, about: save(tensors), "holds no digest, as files of earlier versions"),
        (lambda content, tensors, about: save({**tensors, "head.bias": 0 * tensors["head.bias"]}, about), "its values"),
        (lambda content, tensors, about: save({"a": torch.ones(2)}, about), "its values are not those of its digest"),
        (lambda content, tensors, about: save(tensors, about | {"name": "classifier-faces"}), "as classifier-faces"),
        (
            lambda content, tensors, about: save({k: v for k, v in tensors.items() if k != "accuracy"}, about),
            "its values",
        ),
    ],
)
def test_another_file_in_its_place_is_named_and_replaced(kept, loaded, capsys, change, words):
    trained, _, content = kept
    about = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    found, times, file = loaded(change(content, load(content), about))
    said = capsys.readouterr().err
    assert times == 1
    assert same(found, trained)
    assert words in said
    assert str(file) in said
    assert loaded(file.read_bytes())[1] == 0
    assert capsys.readouterr().err == ""


def test_a_folder_in_its_place_is_named(kept, tmp_path, capsys):
    (tmp_path / "name.safetensors").mkdir()
    assert torch.equal(cached("name", lambda: {"a": torch.ones(2)}, tmp_path)["a"], torch.ones(2))
    said = capsys.readouterr().err
    assert "name.safetensors cannot be used (Is a directory)" in said
    assert "not kept for the next run" in said


def test_what_another_recipe_made_is_another_file(tmp_path, monkeypatch):
    data = digits()

    def files():
        cached_classifier(data, steps=STEPS, folder=tmp_path)
        return len(list(tmp_path.iterdir()))

    assert files() == files() == 1
    monkeypatch.setattr(classifier, "RECIPE", classifier.RECIPE + 1)
    assert files() == 2
    config = classifier.TrainingConfig
    monkeypatch.setattr(classifier, "TrainingConfig", lambda **settings: config(**(settings | {"lr": 5e-4})))
    assert files() == 3
    layers = classifier.Classifier
    monkeypatch.setattr(classifier, "Classifier", lambda *shape, features: layers(*shape, features=features + 1))
    assert files() == 4
