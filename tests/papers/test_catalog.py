"""The named experiments: against the paper's table of hyper-parameters, and every row from training to record."""

import dataclasses

import pytest
import torch

from fmcore import data
from fmcore.data import ImageData, digits
from fmcore.experiments.config.overrides import with_overrides
from fmcore.experiments.evaluate.evaluation import evaluate_run
from fmcore.experiments.run.finished import Run
from fmcore.experiments.run.network import build_network
from fmcore.experiments.run.train import train_run
from fmcore.papers import catalog, reference
from fmcore.papers.lipman2023 import experiments as lipman2023

PAPER_SIZES = ["cifar10", "imagenet32", "imagenet64", "imagenet128"]
ROWS = [name for name in catalog.EXPERIMENTS if name.startswith("lipman2023/")]
SMALL = ["channels=4", "head_channels=none", "heads=2", "blocks=1", "steps=2", "batch=2", "checkpoint_every=2"]
QUICK = ["method=euler", "solver_steps=2", "rtol=0.5", "atol=0.5", "set_images=3", "solver_batch=6", "probe_repeats=1"]
QUICK += [
    "likelihood_images=2",
    "draws=1",
    "classifier_steps=2",
    "nearest_images=2",
    "curve_every=0",
    "generated_sets=2",
]


def photographs(size):
    """Random images in the shape of a data set."""
    generator = torch.Generator().manual_seed(0)
    train, held_out = (torch.randint(256, (n, 3, size, size), generator=generator).to(torch.uint8) for n in (12, 8))
    return ImageData("noise", train, held_out, torch.arange(12) % 3, torch.arange(8) % 3)


def of_shape(name, place=None):
    size = {"cifar10": 32, "imagenet32": 32, "imagenet64": 64, "imagenet128": 128}.get(name)
    return digits() if size is None else photographs(size)


def test_the_rows_of_the_table_are_all_there():
    expected = {f"lipman2023/{size}/{method}" for size in PAPER_SIZES[:3] for method in lipman2023.METHODS}
    expected |= {"lipman2023/imagenet128/fm_ot"}
    expected |= {f"lipman2023/{size}/{method}" for size in ("digits", "cifar10_small") for method in lipman2023.METHODS}
    assert set(ROWS) == expected
    assert len(ROWS) == 26


@pytest.mark.parametrize("row", reference.read_reference("lipman2023_table3"), ids=lambda row: row["data"])
def test_full_size_rows_have_the_hyperparameters_of_the_paper(row):
    for method in lipman2023.SIZES[row["data"]].methods:
        found = lipman2023.lipman2023(row["data"], method)
        network, training = found.network, found.training
        assert found.data == row["data"]
        assert network.channels == int(row["channels"])
        assert network.blocks == int(row["depth"])
        assert network.multipliers == tuple(map(int, row["multipliers"].split()))
        assert network.attention == tuple(map(int, row["attention"].split()))
        assert network.head_channels == int(row["head_channels"])
        assert network.dropout == float(row["dropout"])
        assert (training.batch, training.steps) == (int(row["batch"]), int(row["steps"]))
        assert (training.lr, training.warmup) == (float(row["lr"]), int(row["warmup"]))
        assert training.decay == row["decay"]
        assert (found.evaluation.method, found.evaluation.rtol, found.evaluation.atol) == ("dopri5", 1e-5, 1e-5)
        assert found.evaluation.generated_sets * found.evaluation.set_images == 50_000
        assert network.channels // network.head_channels in (int(row["heads"]), 3)  # 3 at the width 192


@pytest.mark.parametrize("size", lipman2023.SIZES)
def test_rows_of_a_size_differ_in_path_loss_and_rate_alone(size):
    rows = [lipman2023.lipman2023(size, method) for method in lipman2023.SIZES[size].methods]
    same = {
        dataclasses.replace(
            row,
            experiment="",
            path="rectified",
            loss="conditional_flow_matching",
            training=dataclasses.replace(row.training, lr=1.0),
        )
        for row in rows
    }
    assert len(same) == 1
    assert len({(row.path, row.loss) for row in rows}) == len(rows)


@pytest.mark.parametrize("size", PAPER_SIZES)
def test_full_size_networks_can_be_built(size):
    configuration = lipman2023.lipman2023(size, "fm_ot")
    with torch.device("meta"):  # shapes without memory
        network = build_network(configuration, of_shape(configuration.data).shape)
    assert sum(parameter.numel() for parameter in network.parameters()) > 100e6


def test_the_small_network_is_small():
    configuration = lipman2023.lipman2023("cifar10_small", "fm_ot")
    count = sum(parameter.numel() for parameter in build_network(configuration, photographs(32).shape).parameters())
    assert 5e5 < count < 3e6
    assert configuration.training.precision == "fp32"


# Every method on the digits, two of them on the small photographs, and every other size once.
TRIED = [f"lipman2023/digits/{method}" for method in lipman2023.METHODS]
TRIED += [f"lipman2023/{size}/fm_ot" for size in lipman2023.SIZES if size != "digits"]
TRIED += ["lipman2023/cifar10_small/sf"]


@pytest.mark.parametrize("name", TRIED)
def test_every_kind_of_row_runs_from_training_to_record(name, tmp_path, monkeypatch, few_images_a_step):
    monkeypatch.setenv("FMCORE_DATA", str(tmp_path / "cache"))
    configuration = catalog.by_name(name)
    narrow = ",".join("1" for _ in configuration.network.multipliers)
    configuration = with_overrides(configuration, [*SMALL, *QUICK, f"multipliers={narrow}"])
    monkeypatch.setattr(data, "by_name", of_shape)
    train_run(configuration, tmp_path / "run", progress=False)
    record = evaluate_run(Run(tmp_path / "run"))
    assert record["experiment"] == name
    assert record["training"]["global_batch"] * record["training"]["steps"] == 4
    assert record["values"]["bits_per_dim"]["flow"]["value"] > 0
    assert record["evaluation"]["nfe"] == 2
    assert record["evaluation"]["generated"] == 6


@pytest.mark.parametrize(
    ("size", "method", "message"),
    [
        ("cifar", "fm_ot", "unknown size 'cifar': choose one of cifar10"),
        ("cifar10", "fm", "unknown method of lipman2023/cifar10 'fm': choose one of ddpm"),
        ("imagenet128", "ddpm", "unknown method of lipman2023/imagenet128 'ddpm': choose one of fm_ot"),
    ],
)
def test_unknown_rows_list_the_known_ones(size, method, message):
    with pytest.raises(ValueError, match=message):
        lipman2023.lipman2023(size, method)
