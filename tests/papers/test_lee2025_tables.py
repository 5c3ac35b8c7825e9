"""The tables of Lee et al. 2025: the paper's numbers in their places, and ours beside them."""

import pytest

from fmcore.experiments import records
from fmcore.experiments.config.overrides import without_place
from fmcore.papers import catalog, reference, tables
from fmcore.papers.lee2025 import experiments as lee2025
from fmcore.papers.lee2025 import tables as lee2025_tables


@pytest.fixture
def no_results(tmp_path, monkeypatch):
    empty = tmp_path / "results"
    empty.mkdir()
    monkeypatch.setattr(reference, "RESULTS", empty)
    return empty


def made_up(name, **budgets):
    measured = lambda value: {"value": value, "spread": 0.25, "spread_is": "standard deviation"}  # noqa: E731
    return {
        "experiment": name,
        "configuration": without_place(catalog.by_name(name)),
        "values": {
            "classifier_frechet_distance": {
                "generated": measured(7.5),
                "generated, to held out": measured(8.5),
                "held out (real)": {"value": 1.25, "spread": None, "spread_is": None},
            }
        },
        "budgets": [
            {"start": start, "steps": grid, "nfe": nfe, "frechet_distance": value, "spread": 0.5}
            for start, grid, nfe, value in budgets["entries"]
        ],
    }


def cells(line):
    return [text.strip() for text in line.split("│")[1:-1]]


def lines_of(capsys, folders=()):
    tables.lee2025(folders)
    return capsys.readouterr().out.splitlines()


def test_rows_of_the_paper_stand_where_they_belong(no_results, capsys):
    records.write_json(no_results / "a.json", made_up("lee2025/cifar10/ot", entries=[]))
    rows = [cells(line) for line in lines_of(capsys) if line.startswith("│")]
    assert ["OT + prune", "17.24", "9.17", "6.34", "4.92", "4.15", *[""] * 5] in rows
    assert ["I + norm", "52.20", "18.94", "8.10", "4.93", "3.79", *[""] * 5] in rows
    assert ["I + both", "48.10", "16.58", "7.04", "4.56", "3.64", *[""] * 5] in rows
    assert ["around each image, kappa = inf", "0.74", "", "", ""] in rows
    assert ["around 3 mean directions, kappa = 300", "4.64", "", "", ""] in rows
    assert ["Gaussian mixture, K = 10", "12.11", "", "", ""] in rows
    assert ["Gaussian, OT", "4.40", "7.50 ± 0.25", "8.50 ± 0.25", "1.25"] in rows


def test_our_budgets_stand_beside_the_paper_s(no_results, capsys):
    entries = [("source", "uniform", 5, 2.0), ("source", "uniform", 100, 1.0), ("pruned", "uniform", 20, 3.0)]
    records.write_json(no_results / "a.json", made_up("lee2025/imagenet64/ot", entries=entries))
    lines = lines_of(capsys)
    rows = [cells(line) for line in lines if line.startswith("│")]
    paper = ["53.95", "18.84", "10.62", "", "9.10"]
    assert ["OT", *paper, "2.00 ± 0.50", "", "", "", "1.00 ± 0.50"] in rows
    assert ["OT + prune", "49.56", "16.70", "9.54", "", "8.78", "", "", "3.00 ± 0.50", "", ""] in rows
    assert "- not run: digits, 8x8: Euler steps" in lines
    assert not [line for line in lines if "…" in line]


def test_the_pretrained_network_has_a_table_of_its_own(no_results, capsys):
    entries = [(start, grid, 10, 1.5) for start in ("source", "pruned") for grid in ("uniform", "aligned")]
    record = made_up("lee2025/digits/ot", entries=entries) | {"experiment": "cifar10"}
    records.write_json(no_results / "a.json", record)
    rows = [cells(line) for line in lines_of(capsys) if line.startswith("│")]
    for name in ("plain", "prune", "norm (steps only)", "both"):
        assert [name, "1.50 ± 0.50"] in rows


def test_every_number_of_the_paper_has_an_experiment():
    rows = reference.read_reference("lee2025_fid")
    assert len(rows) == 8 * 5 + 2 * 4 + 16
    for row in rows:
        experiment = catalog.by_name(f"lee2025/{row['data']}/{row['row']}")
        assert int(row["nfe"]) in experiment.evaluation.budgets
        if row["start"] == "pruned":
            assert experiment.evaluation.prune_tau is not None


def test_full_size_rows_have_the_settings_of_the_paper():
    cifar, imagenet = (catalog.by_name(f"lee2025/{data}/ot") for data in ("cifar10", "imagenet64"))
    assert (cifar.training.steps, cifar.training.batch, cifar.training.lr) == (200_000, 512, 2e-4)
    assert (cifar.evaluation.prune_tau, cifar.evaluation.prune_threshold) == (0.01, 0.048)
    assert (imagenet.training.steps, imagenet.training.batch, imagenet.training.warmup) == (350_000, 384, 20_000)
    assert (imagenet.evaluation.prune_tau, imagenet.evaluation.prune_threshold) == (0.005, 0.026)
    assert cifar.training.ema == imagenet.training.ema == 0.9999
    assert cifar.evaluation.generated_sets * cifar.evaluation.set_images == 50_000


def test_kappa_of_digits_gives_the_mean_cosine_of_the_paper_s():
    from mpmath import besseli

    for name in ("oracle3000", "oracle1500", "kmeans1500", "kmeans300", "kmeans50"):
        large, small = (catalog.by_name(f"lee2025/{size}/{name}").source.kappa for size in ("cifar10", "digits"))
        cosine = besseli(1536, large) / besseli(1535, large)
        assert float(besseli(32, small) / besseli(31, small)) == pytest.approx(float(cosine), rel=0.02)


def test_the_four_main_rows_alone_are_measured_at_all_budgets():
    for name, row in lee2025.ROWS.items():
        main = name.rsplit("/", 1)[1] in lee2025.MAIN
        assert row.evaluation.budgets == (lee2025.BUDGETS if main else (100,))
        assert (row.evaluation.prune_tau is not None) == main
    assert lee2025_tables.says("independent_norm", "pruned") == "I + both"
