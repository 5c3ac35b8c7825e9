"""Networks that come with the repository: what is kept of a run, and what is refused on loading it."""

import json

import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_sample_images
from torch.nn import functional

from fmcore.cli import main
from fmcore.data.images import dequantize
from fmcore.experiments import sealed
from fmcore.experiments.config.overrides import with_overrides
from fmcore.experiments.evaluate.evaluation import evaluate_run
from fmcore.experiments.run import pretrained
from fmcore.experiments.run.finished import Run
from fmcore.experiments.run.train import train_run
from fmcore.losses import conditional_flow_matching
from fmcore.papers import catalog

TINY = [
    "channels=8",
    "multipliers=1",
    "attention=",
    "steps=6",
    "batch=8",
    "warmup=2",
    "classifier_steps=5",
    "nearest_images=5",
]
TINY += ["method=euler", "solver_steps=2", "rtol=0.1", "atol=0.1", "set_images=10", "likelihood_images=4"]
KEPT = sorted(file.stem for file in pretrained.FOLDER.glob("*.safetensors"))


@pytest.fixture(scope="module", params=["digits", "lipman2023/digits/sm"])
def finished(request, own_cache, tmp_path_factory):
    """A run that predicts velocities, and one that predicts scores; kept."""
    folder = tmp_path_factory.mktemp("runs")
    train_run(with_overrides(catalog.by_name(request.param), [*TINY, "curve_every=0"]), folder / "run", progress=False)
    evaluate_run(Run(folder / "run"))
    main(["export", str(folder / "run"), "--out", str(folder / "kept")])
    return Run(folder / "run"), request.param.replace("/", "_"), folder / "kept"


def test_the_kept_network_is_the_trained_one_up_to_rounding(finished):
    run, name, folder = finished
    loaded = pretrained.load(name, folder)
    kept = load_file(folder / f"{name}.safetensors")
    for key, value in load_file(run.folder / "weights.safetensors").items():
        assert kept[key].dtype == torch.bfloat16
        assert torch.equal(loaded.network.state_dict()[key], value.bfloat16().float())
    assert loaded.configuration == run.configuration
    assert (loaded.shape, loaded.levels) == (run.data.shape, run.data.levels)

    ours = loaded.sample(5, torch.Generator().manual_seed(3), method="euler", steps=2)
    theirs = run.sample(5, torch.Generator().manual_seed(3))
    assert ours.nfe == theirs.nfe
    assert 0 < (ours.x - theirs.x).norm() < 0.02 * theirs.x.norm()  # bfloat16 keeps 8 bits: 2^-9 a weight


def test_its_record_is_that_of_the_run_and_says_what_the_rounding_does(finished):
    run, name, folder = finished
    record = pretrained.load(name, folder).record
    about = record.pop("weights")
    assert record == run.record()
    assert about["bytes"] == (folder / f"{name}.safetensors").stat().st_size
    assert 1e-5 < about["relative_change_of_velocity_by_rounding"] < 0.02
    trained = load_file(run.folder / "weights.safetensors")  # measuring it must leave the run as it was
    assert all(torch.equal(value, trained[key]) for key, value in run.network.state_dict().items())


def test_altered_weights_are_refused(finished, tmp_path):
    _, name, folder = finished
    content = bytearray((folder / f"{name}.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / f"{name}.safetensors").write_bytes(content)
    (tmp_path / f"{name}.json").write_bytes((folder / f"{name}.json").read_bytes())
    with pytest.raises(ValueError, match="another checksum"):
        pretrained.load(name, tmp_path)


def test_unknown_names_list_the_known_ones(finished, tmp_path):
    _, name, folder = finished
    with pytest.raises(ValueError, match=f"(?s)pretrained network.*{name}"):
        pretrained.load("mnist", folder)
    with pytest.raises(FileNotFoundError, match="come with the repository"):
        pretrained.load(name, tmp_path / "nowhere")


def test_a_run_that_was_not_evaluated_is_not_kept(finished, tmp_path):
    run, _, _ = finished
    record = json.loads((run.folder / "record.json").read_text())
    other = tmp_path / "run"
    other.mkdir()
    for name in ("config.json", "weights.safetensors", "source.safetensors"):
        (other / name).write_bytes((run.folder / name).read_bytes())
    sealed.write(other / "record.json", {key: record[key] for key in record if key != "values"})
    with pytest.raises(ValueError, match="fmcore evaluate"):
        pretrained.keep(Run(other), tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def pieces_of_photographs(size):
    """Squares of the two photographs in scikit-learn, whole numbers: real images that no network was trained on."""
    photographs = torch.stack([torch.from_numpy(image.copy()) for image in load_sample_images().images])
    small = functional.avg_pool2d(photographs.permute(0, 3, 1, 2).float(), 3)
    squares = small.unfold(2, size, size).unfold(3, size, size)
    return squares.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, size, size).round().to(torch.uint8)


@pytest.mark.parametrize("name", KEPT)
def test_networks_in_the_repository_are_small_and_know_something(name):
    network = pretrained.load(name)
    assert network.record["weights"]["bytes"] < 16e6
    assert not network.record["environment"]["commit"].endswith("+changes")
    generator = torch.Generator().manual_seed(0)
    x1 = dequantize(pieces_of_photographs(network.shape[-1]), network.levels, generator)
    x0 = network.source.sample(len(x1), generator)
    with torch.no_grad():
        loss = conditional_flow_matching(network.velocity, network.path, x0, x1, generator=generator)
    assert len(x1) > 20
    assert loss < 0.5 * (x1 - x0).square().mean()
