"""Feature spaces: their names, their moments against NumPy, and the networks that are asked for only when needed."""

import dataclasses
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from fmcore.data import digits
from fmcore.metrics import Classifier, features, frechet_distance
from fmcore.metrics.classifier import TrainedClassifier
from fmcore.metrics.features import FeatureSpace, Moments


def test_only_fifty_thousand_images_make_an_fid_50k():
    assert features.label("inception", 50_000) == "FID-50k"
    assert features.label("dinov2", 50_000) == "FD-50k (DINOv2)"
    for count in (10, 10_000, 49_999, 50_001, 51_200):
        for space in ("inception", "dinov2"):
            assert "50k" not in features.label(space, count)
            assert f"{count:,}" in features.label(space, count)
    assert features.label("classifier", 50_000) == "classifier Frechet distance"


@pytest.mark.parametrize("count", [1000, 50_000])
def test_a_record_says_fid_50k_of_that_many_images_only(count):
    from fmcore.experiments.evaluate.frechet import References, measured_distances

    means = FeatureSpace("inception", "a stub", lambda images: images.float().flatten(1)[:, :2], at_once=10_000)
    generator = torch.Generator().manual_seed(0)
    generated = torch.randint(256, (count, 1, 1, 2), generator=generator).to(torch.uint8)
    real = generated[:500]
    references = References(means, features.moments(means, generated[:900]), features.moments(means, real))
    found = measured_distances(references, generated, 2)
    assert ("FID-50k" in found) == (count == 50_000)
    assert {name for name, rows in found.items() if "held out (real)" in rows} == {
        "Inception Frechet distance of 500 images"
    }


def test_moments_against_numpy():
    data = digits()
    space = FeatureSpace("inception", "pixels", lambda images: images.float().flatten(1) + 1e4, at_once=100)
    found = features.moments(space, data.train)
    pixels = data.train.flatten(1).double().numpy() + 1e4
    assert found.count == 1500
    np.testing.assert_allclose(found.mean.numpy(), pixels.mean(0), rtol=1e-9)
    np.testing.assert_allclose(found.covariance.numpy(), np.cov(pixels.T), atol=1e-4)
    other = features.moments(space, data.held_out)
    expected = frechet_distance(torch.from_numpy(pixels), data.held_out.flatten(1).double() + 1e4)
    assert features.distance(found, other) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        features.moments(space, data.train[:1])


def test_moments_of_the_training_split_are_kept(tmp_path):
    calls = []

    def extract(images):
        calls.append(len(images))
        return images.float().flatten(1)

    space = FeatureSpace("dinov2", "a stub", extract)
    first, again = (features.train_moments(space, digits(), tmp_path) for _ in range(2))
    assert [size for size in calls if size > 2] == [1000, 500]  # one and two to see what they take
    assert isinstance(again, Moments)
    assert torch.equal(first.covariance, again.covariance)


@pytest.mark.parametrize("name", ["classifier", "dinov2"])
def test_reference_moments_are_those_of_the_training_images_as_they_are(name, tmp_path):
    """Not of their mirror images, whatever a run was trained on: digits lean, so pixels tell. Nor of held-out ones."""
    data = digits()
    space = FeatureSpace(name, "pixels", lambda images: images.double().flatten(1), at_once=400)
    pixels = data.train.flatten(1).double().numpy()
    mirrored = np.concatenate([pixels, data.train.flip(-1).flatten(1).double().numpy()])
    assert np.abs(np.cov(mirrored.T) - np.cov(pixels.T)).max() > 1
    for found in (features.train_moments(space, data, tmp_path), features.train_moments(space, data, tmp_path)):
        assert found.count == len(data.train)
        np.testing.assert_allclose(found.mean.numpy(), pixels.mean(0), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found.covariance.numpy(), np.cov(pixels.T), rtol=1e-9, atol=1e-7)


def test_references_in_the_space_of_a_classifier():
    data = digits()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Classifier(data.shape, data.num_classes).eval()
    space = features.classifier_space(TrainedClassifier(network, 0.0, 0, 0), data)
    seen = network.features(data.scaled(data.train)).double().numpy()
    turned = network.features(data.scaled(data.train.flip(-1))).double().numpy()
    found = features.train_moments(space, data)
    np.testing.assert_allclose(found.mean.numpy(), seen.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.covariance.numpy(), np.cov(seen.T), atol=1e-7)
    assert np.abs((seen.mean(0) - turned.mean(0)) / 2).max() > 1e-4


@pytest.mark.parametrize("space", ["inception", "dinov2"])
def test_a_missing_package_is_named_with_its_remedy(space, monkeypatch):
    monkeypatch.setattr(features, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match="needs torch_fidelity and torchvision: pip install torch-fidelity torchvision"
    ):
        features.network_space(space, digits())
    features.check_installed("classifier")


@pytest.mark.parametrize("call", [lambda: features.label("vgg", 5), lambda: features.network_space("vgg", digits())])
def test_unknown_spaces_list_the_known_ones(call):
    with pytest.raises(ValueError, match="unknown feature space 'vgg': choose one of .*inception"):
        call()


@pytest.mark.parametrize(("space", "network"), [("inception", "inception-v3-compat"), ("dinov2", "dinov2-vit-l-14")])
def test_networks_see_three_channels_of_bytes(space, network, monkeypatch):
    seen = {}

    class Extractor(torch.nn.Module):
        def forward(self, images):
            seen["images"] = images
            return (images.float().mean(dim=(2, 3)),)

    def create_feature_extractor(name, layers, cuda, verbose):
        seen["asked"] = (name, layers)
        return Extractor()

    package, module = ModuleType("torch_fidelity"), ModuleType("torch_fidelity.utils")
    module.create_feature_extractor = create_feature_extractor
    monkeypatch.setitem(sys.modules, "torch_fidelity", package)
    monkeypatch.setitem(sys.modules, "torch_fidelity.utils", module)
    monkeypatch.setattr(features, "find_spec", lambda name: object())
    data = digits()
    images = data.train[:5].clone()
    images[0] = 16  # white, of 17 grey levels
    found = features.network_space(space, data).extract(images)
    assert seen["asked"][0] == network
    assert seen["images"].shape == (5, 3, 8, 8)
    assert seen["images"].dtype == torch.uint8
    assert found[0].tolist() == [255.0] * 3
    photographs = dataclasses.replace(data, levels=256)
    assert torch.equal(features.network_space(space, photographs).extract(images)[0], torch.full((3,), 16.0))


def test_the_classifier_grows_with_the_image():
    for size, halvings in ((8, 1), (32, 3), (64, 4), (12, 2)):
        classifier = Classifier((3, size, size), 10)
        strided = [layer for layer in classifier.body if getattr(layer, "stride", None) == (2, 2)]
        assert len(strided) == halvings
        assert classifier(torch.zeros(2, 3, size, size)).shape == (2, 10)


def test_a_data_set_without_classes_has_no_classifier():
    with pytest.raises(ValueError, match="at least two classes, and this data set has 1: use features=inception"):
        Classifier((1, 8, 8), 1)
