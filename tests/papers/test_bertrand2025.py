"""The experiments of Bertrand et al. 2025: their settings, from training to record, and their tables."""

import pytest
import torch

from fmcore import data, losses
from fmcore.closed_form import EmpiricalVelocity
from fmcore.data import ImageData, digits
from fmcore.experiments import records, sealed
from fmcore.experiments.config.overrides import with_overrides, without_place
from fmcore.experiments.evaluate.evaluation import evaluate_run
from fmcore.experiments.run.finished import Run
from fmcore.experiments.run.network import build_network
from fmcore.experiments.run.train import train_run
from fmcore.experiments.run.training_batch import batch_loss, batch_maker, training_images
from fmcore.papers import blocks, catalog, printing, reference
from fmcore.papers.bertrand2025 import tables as bertrand2025_tables
from fmcore.papers.bertrand2025.experiments import SIZES

SMALL = ["channels=4", "head_channels=none", "heads=2", "blocks=1", "steps=2", "batch=4", "checkpoint_every=2"]
SMALL += ["method=euler", "solver_steps=2", "rtol=0.5", "atol=0.5", "set_images=3", "solver_batch=6", "curve_every=0"]
SMALL += ["classifier_steps=2", "nearest_images=2", "generated_sets=2", "warmup=1"]
ROWS = [name for name in catalog.EXPERIMENTS if name.startswith("bertrand2025/")]


def photographs(size):
    generator = torch.Generator().manual_seed(0)
    train, held_out = (torch.randint(256, (n, 3, size, size), generator=generator).to(torch.uint8) for n in (12, 8))
    return ImageData("noise", train, held_out, torch.arange(12) % 3, torch.arange(8) % 3)


def test_every_figure_has_its_rows_at_every_size():
    targets = {"cfm", "ot_cfm", "efm128", "efm256", "efm1000", "hybrid"}
    few = {10, 100, 1000, 2000, 3000, 4000, 5000, 10_000}  # figure 2 of the paper
    assert {name for name in ROWS if "/cifar10/" in name} == {
        f"bertrand2025/cifar10/{row}" for row in targets | {f"n{n}" for n in few}
    }
    for size in SIZES:
        assert targets <= {name.split("/")[2] for name in ROWS if f"/{size}/" in name}


def test_full_size_rows_have_the_settings_of_the_paper():
    row = catalog.by_name("bertrand2025/cifar10/efm256")
    count = sum(parameter.numel() for parameter in build_network(row, (3, 32, 32)).parameters())
    assert count == 35_746_307
    assert (row.network.dropout, row.training.lr, row.training.warmup, row.training.ema) == (0.1, 2e-4, 5000, 0.9999)
    assert (row.training.steps, row.training.batch, row.training.clip) == (500_000, 128, 1.0)
    assert (row.bank, row.loss, row.flips, row.dequantize) == (256, "empirical_flow_matching", True, False)
    few = catalog.by_name("bertrand2025/cifar10/n3000")
    assert (few.train_images, few.training.steps, few.flips, few.loss) == (
        3000,
        50_000,
        False,
        "conditional_flow_matching",
    )
    assert catalog.by_name("bertrand2025/celeba64/ot_cfm").coupling == "minibatch_ot"
    assert catalog.by_name("bertrand2025/celeba64/hybrid").evaluation.hybrid_switches[0] == 0


@pytest.mark.parametrize("name", ["cifar10/efm1000", "cifar10_small/ot_cfm", "celeba64/hybrid", "digits/n10"])
def test_rows_run_from_training_to_record(name, tmp_path, monkeypatch, few_images_a_step):
    monkeypatch.setenv("FMCORE_DATA", str(tmp_path / "cache"))
    row = catalog.by_name(f"bertrand2025/{name}")
    narrow = ",".join("1" for _ in row.network.multipliers)
    quick = [*SMALL, f"multipliers={narrow}", "velocity_times=0.5"]
    quick += ["velocity_pairs=3"] if row.evaluation.velocity_pairs else []
    quick += ["hybrid_switches=0.98,1", "hybrid_images=2"] if row.evaluation.hybrid_switches else []
    row = with_overrides(row, quick)
    monkeypatch.setattr(
        data,
        "by_name",
        lambda data, place: digits() if data == "digits" else photographs(64 if "celeba" in name else 32),
    )
    train_run(row, tmp_path / "run", progress=False)
    record = evaluate_run(Run(tmp_path / "run"))
    assert sealed.read(tmp_path / "run" / "record.json") == record
    assert record["training"]["images"] == (10 if name == "digits/n10" else 12)
    assert set(record["values"]) == {
        "classifier_frechet_distance",
        "distance_to_nearest_training_image",
        "share_of_copies",
    }
    assert record["evaluation"]["likelihood"] == "not measured"
    assert [one["t"] for one in record.get("velocity_error", [])] == ([0.5] if row.evaluation.velocity_pairs else [])
    assert ("hybrid" in record) == (tmp_path / "run" / "hybrids.png").exists() == ("hybrid" in name)
    printing.show_record(record)  # does not fail without bits/dim


def test_fewer_images_are_among_more_and_drawn_by_the_seed():
    images = digits()
    few, more = (
        training_images(with_overrides(catalog.by_name("digits"), [f"train_images={n}"]), images) for n in (5, 9)
    )
    assert torch.equal(more[:5], few)
    assert len(torch.unique(more.flatten(1), dim=0)) == 9
    other = training_images(with_overrides(catalog.by_name("digits"), ["train_images=9", "seed=1"]), images)
    assert not torch.equal(other, more)
    assert training_images(catalog.by_name("digits"), images) is images.train
    with pytest.raises(ValueError, match="train_images=2000, and digits has 1500: ask for fewer, or for none"):
        training_images(with_overrides(catalog.by_name("digits"), ["train_images=2000"]), images)


def test_without_dequantization_images_are_points_in_the_middle_of_their_bins():
    row, images = catalog.by_name("bertrand2025/digits/cfm"), digits()
    batch = images.train[:7]
    _, x1 = batch_maker(row, images)(batch, torch.Generator().manual_seed(0))
    assert torch.equal(x1, images.scaled(batch))
    _, noisy = batch_maker(with_overrides(row, ["dequantize=True"]), images)(batch, torch.Generator().manual_seed(0))
    assert not torch.equal(noisy, x1)
    assert (noisy - x1).abs().max() <= 1 / images.levels


def test_the_loss_of_a_row_is_empirical_flow_matching_on_its_training_images():
    """Where the bank is everything, the target is nearly u*: a model that predicts u* has almost no loss left."""
    images = digits()
    row = with_overrides(catalog.by_name("bertrand2025/digits/efm128"), ["train_images=5", "bank=4000"])
    train_on = training_images(row, images)
    x0 = torch.randn(200, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    x1 = images.scaled(train_on[torch.arange(200) % 5])
    u = EmpiricalVelocity(images.scaled(train_on))

    def loss(row):
        return float(batch_loss(row, images, train_on)(u, (x0, x1), torch.Generator().manual_seed(2)))

    many, one = loss(row), loss(with_overrides(row, ["bank=1"]))
    assert many < 1e-3 * one
    plain = losses.conditional_flow_matching(u, row.build_path(), x0, x1, generator=torch.Generator().manual_seed(2))
    assert one == pytest.approx(float(plain), rel=1e-5)  # a bank of one point is conditional flow matching


def test_flipped_training_draws_flipped_banks():
    """One image, bright on the left: from noise the target is half of it mirrored, if banks are mirrored too."""
    images = digits()
    one = torch.zeros(64, 1, 8, 8, dtype=torch.uint8)
    one[..., :4] = images.levels - 1
    x1 = images.scaled(one)
    x0 = torch.zeros_like(x1)

    def loss(setting):
        row = with_overrides(catalog.by_name("bertrand2025/digits/efm128"), [setting])
        return float(
            batch_loss(row, images, one)(lambda x, t: torch.zeros_like(x), (x0, x1), torch.Generator().manual_seed(0))
        )

    plain, flipped = loss("flips=False"), loss("flips=True")
    assert plain == pytest.approx(float(x1.square().mean()), rel=1e-5)  # u* is x1 - x0
    assert flipped < 0.95 * plain


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["loss=empirical_flow_matching"], "needs the number of points of its target, for example bank=128"),
        (["bank=5"], "other losses have none"),
        (["loss=empirical_flow_matching", "bank=0"], "a bank has at least one point"),
        (["loss=empirical_flow_matching", "bank=5", "coupling=minibatch_ot"], "use coupling=independent"),
    ],
)
def test_a_bank_belongs_to_empirical_flow_matching(settings, message):
    with pytest.raises(ValueError, match=message):
        with_overrides(catalog.by_name("digits"), settings)


@pytest.fixture
def no_results(tmp_path, monkeypatch):
    empty = tmp_path / "results"
    empty.mkdir()
    monkeypatch.setattr(reference, "RESULTS", empty)
    return empty


def made_up(name):
    measured = lambda value: {"value": value, "spread": 0.25, "spread_is": "standard deviation"}  # noqa: E731
    return {
        "experiment": name,
        "configuration": without_place(catalog.by_name(name)),
        "training": {"steps": 400},
        "evaluation": {"nfe": 61.2},
        "values": {
            "classifier_frechet_distance": {
                "generated": measured(7.5),
                "generated, to held out": measured(8.5),
                "held out (real)": {"value": 1.25, "spread": None, "spread_is": None},
            },
            "distance_to_nearest_training_image": {"generated": measured(3.75), "held out (real)": measured(2.5)},
            "share_of_copies": {"generated": measured(0.5)},
        },
        "velocity_error": [{"t": t, "error": t / 10} for t in (0.15, 0.3, 0.5, 0.7, 0.9, 0.99)],
        "hybrid": [
            {
                "switch": 0.4,
                "distance_to_nearest_training_image": 1.5,
                "standard_error": 0.125,
                "share_of_copies": 0.75,
                "share_decided": 0.875,
            }
        ],
    }


def lines_of(capsys, folders=()):
    blocks.show_blocks("figures", bertrand2025_tables.bertrand2025(folders), bertrand2025_tables.NOTES)
    return capsys.readouterr().out.splitlines()


def cells(line):
    return [text.strip() for text in line.split("│")[1:-1]]


def test_records_stand_in_the_tables(no_results, capsys):
    records.write_json(no_results / "a.json", made_up("bertrand2025/digits/hybrid"))
    records.write_json(no_results / "b.json", made_up("bertrand2025/digits/efm256"))
    lines = lines_of(capsys)
    samples = ["7.50 ± 0.25", "8.50 ± 0.25", "1.25", "3.75 ± 0.25", "2.50 ± 0.25", "0.50 ± 0.25", "61", "400"]
    all_images = [cells(line) for line in lines if line.startswith("│ all")]
    assert ["all", "0.015", "0.030", "0.050", "0.070", "0.090"] in all_images
    assert ["all", *samples] in all_images
    assert next(cells(line) for line in lines if "M = 256" in line) == ["EFM, M = 256", *samples]
    assert next(cells(line) for line in lines if "OT-CFM" in line) == ["OT-CFM", *[""] * 8]
    assert next(cells(line) for line in lines if line.startswith("│ 0.4")) == ["0.4", "1.50 ± 0.12", "0.75", "0.88"]
    assert not [line for line in lines if "…" in line]  # nothing is cut off
    assert any(line.startswith("- not run: Figure 3, CelebA") for line in lines)


def test_without_records_every_figure_is_named_and_the_paper_s_numbers_are_there(no_results, capsys):
    lines = lines_of(capsys)
    for figure in (1, 2, 3, 4):
        assert any(line.startswith(f"- not run: Figure {figure}") for line in lines)
    numbers = [cells(line) for line in lines if "MNIST" in line]
    assert ["MNIST", "25", "1024", "1.84"] in numbers
    assert ["FashionMNIST", "200", "1", "19.67"] in numbers
    assert len(numbers) == 8
