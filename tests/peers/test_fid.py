"""FID beside torch-fidelity: the distance on the same features, and the whole way from bytes to FID on one network.

The weights of Inception, which torch-fidelity downloads, are random here, in a file where PyTorch keeps downloads: so
both packages take their usual way. All that is left open is the published weights.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fmcore.data.images import ImageData
from fmcore.metrics import features, frechet_distance
from fmcore.metrics.features import FeatureSpace


def stand_in_for_torchvision(patch: pytest.MonkeyPatch) -> None:
    """Let torch-fidelity load without torchvision, which does not load beside every build of PyTorch.

    It derives three classes from data sets of torchvision, and reads image files and builds other networks with it;
    an FID of tensors needs nothing of it.
    """
    for name in ("", ".datasets", ".transforms", ".transforms.functional"):
        module = ModuleType("torchvision" + name)
        module.__spec__ = ModuleSpec(module.__name__, None)
        patch.setitem(sys.modules, module.__name__, module)
    for name in ("CIFAR10", "CIFAR100", "STL10"):
        setattr(sys.modules["torchvision.datasets"], name, object)


with pytest.MonkeyPatch.context() as while_it_loads:
    stand_in_for_torchvision(while_it_loads)
    peer = pytest.importorskip(
        "torch_fidelity",
        reason="torch-fidelity is not installed: `make bench` installs it in build/peers, for PYTHONPATH",
    )
inception = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
fid = pytest.importorskip("torch_fidelity.metric_fid")

FAR, TINY = 1e4, 1e-6
# Relative errors. With a singular covariance torch-fidelity takes roots of eigenvalues that are 0 but for rounding.
REGULAR, SINGULAR = 1e-10, 1e-6


def correlated(n: int, d: int, seed: int) -> Tensor:
    """Features (n, d), float64, with standard deviations that differ by a factor of 100."""
    g = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=g, dtype=torch.float64) * torch.logspace(0, -2, d, dtype=torch.float64)
    return torch.randn(n, d, generator=g, dtype=torch.float64) @ mixing + mixing[0]


def distance_from_points(a: Tensor, b: Tensor) -> float:
    """The distance without a matrix root: A^1/2 B^1/2 has the singular values of the centred inner products."""
    products = (a - a.mean(0)) @ (b - b.mean(0)).T / ((len(a) - 1) * (len(b) - 1)) ** 0.5
    between = (a.mean(0) - b.mean(0)).square().sum()
    return float(between + a.var(0).sum() + b.var(0).sum() - 2 * torch.linalg.svdvals(products).sum())


@pytest.mark.parametrize(
    ("n", "m", "d", "apart", "scale", "tolerance"),
    [
        (500, 300, 2, 0, 1, REGULAR),
        (500, 300, 40, 0, 1, REGULAR),
        (1000, 400, 200, 1, 1, REGULAR),
        (500, 300, 40, FAR, 1, REGULAR),
        (500, 300, 40, 0, TINY, REGULAR),
        (30, 500, 100, 0, 1, SINGULAR),
        (30, 40, 100, 0, 1, SINGULAR),
        (30, 40, 100, FAR, 1, SINGULAR),
        (30, 40, 100, 0, TINY, SINGULAR),
        (2, 3, 64, 1, 1, SINGULAR),
    ],
)
def test_the_distance_on_the_same_features(n, m, d, apart, scale, tolerance):
    a, b = scale * (correlated(n, d, 1) + apart), scale * correlated(m, d, 2)
    theirs = fid.fid_statistics_to_metric(*map(fid.fid_features_to_statistics, (a, b)), verbose=False)
    expected = pytest.approx(theirs[peer.KEY_METRIC_FID], rel=tolerance, abs=0)
    assert frechet_distance(a, b) == expected
    space = FeatureSpace("inception", "these features", lambda rows: rows, at_once=70)
    assert features.distance(*(features.moments(space, rows) for rows in (a, b))) == expected
    assert distance_from_points(a, b) == expected


class Images(torch.utils.data.Dataset):
    """Bytes in three channels, as torch-fidelity wants them."""

    def __init__(self, images: Tensor):
        self.images = images.expand(-1, 3, -1, -1)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def structured(n: int, channels: int, size: int, blobs: int, seed: int) -> Tensor:
    """Images (n, channels, size, size) of bytes: smooth blobs, black and white places, and noise of the pixels."""
    g = torch.Generator().manual_seed(seed)
    smooth = interpolate(torch.rand(n, channels, blobs, blobs, generator=g), size=(size, size), mode="bicubic")
    noisy = 400 * smooth - 70 + 20 * torch.randn(n, channels, size, size, generator=g)
    return noisy.clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    """A folder for TORCH_HOME with random weights of Inception; its features differ from image to image."""
    home = tmp_path_factory.mktemp("torch")
    file = home / "hub" / "checkpoints" / Path(inception.URL_INCEPTION_V3).name
    file.parent.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng([]):
        torch.manual_seed(0)
        patch.setattr(inception, "load_state_dict_from_url", lambda *args, **kwargs: None)
        patch.setattr(inception.FeatureExtractorInceptionV3, "load_state_dict", lambda self, weights: None)
        network = inception.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():  # normalize every layer by these images, or nothing is left after so many
        network.train()(torch.cat([structured(4, 3, 64, blobs, 9) for blobs in (3, 8)]))
    torch.save(network.state_dict(), file)
    return home


@pytest.fixture
def usual_way(downloads, monkeypatch):
    """What a user has: both packages, and the weights where PyTorch keeps what it downloaded."""
    stand_in_for_torchvision(monkeypatch)
    monkeypatch.setenv("TORCH_HOME", str(downloads))


def data_of(train: Tensor, held_out: Tensor) -> ImageData:
    return ImageData("structured", train, held_out, *(torch.zeros(len(one)).long() for one in (train, held_out)))


THEIR_SETTINGS = {"batch_size": 7, "cuda": False, "cache": False, "verbose": False, "save_cpu_ram": True}


def test_from_bytes_to_fid(usual_way, tmp_path):
    train, generated = structured(8, 3, 32, 3, 1), structured(6, 3, 32, 6, 2)
    theirs = peer.calculate_metrics(input1=Images(generated), input2=Images(train), fid=True, **THEIR_SETTINGS)
    data = data_of(train, generated)
    space = replace(features.network_space("inception", data), at_once=4)
    found = features.distance(features.moments(space, generated), features.train_moments(space, data, tmp_path))
    assert found > 10
    assert found == pytest.approx(theirs[peer.KEY_METRIC_FID], rel=1e-5)


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 64)])
def test_from_bytes_to_moments(channels, size, usual_way):
    """Of grey and of larger images; the distance follows from the moments, and takes longer than they do."""
    images = structured(5, channels, size, 5, 3)
    network = peer.utils.create_feature_extractor("inception-v3-compat", ["2048"], **THEIR_SETTINGS)
    theirs = fid.fid_input_id_to_statistics(1, network, "2048", input1=Images(images), **THEIR_SETTINGS)
    space = replace(features.network_space("inception", data_of(images, images)), at_once=2)
    found = features.moments(space, images)
    assert theirs["mu"].shape == (2048,)
    assert theirs["mu"].std() > 0.05
    np.testing.assert_allclose(found.mean, theirs["mu"], rtol=0, atol=1e-5 * theirs["mu"].std())
    np.testing.assert_allclose(found.covariance, theirs["sigma"], rtol=0, atol=1e-6 * theirs["sigma"].max())
