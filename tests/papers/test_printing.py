"""Records and settings as they are printed: each number where it belongs, and settings that can be typed back in."""

from dataclasses import replace

import pytest
from rich.console import Console

from fmcore.experiments.config.meanings import meanings
from fmcore.experiments.config.overrides import with_overrides
from fmcore.papers import blocks, catalog, measurements, printing, tables


def measured(value, spread=None, says=None):
    return {"value": value, "spread": spread, "spread_is": says}


def cells(line):
    return [text.strip() for text in line.split("│")[1:-1]]


def printed(table):
    console = Console(width=140)
    with console.capture() as captured:
        console.print(table)
    return captured.get().splitlines()


RECORD = {
    "experiment": "digits",
    "parameters": 123_456,
    "environment": {"hardware": {"cpu": "a processor", "threads": 2}, "commit": None},
    "training": {
        "steps": 12_000,
        "global_batch": 64,
        "wall_seconds": 81.6,
        "images_per_second": 9_412.4,
        "seed": 3,
    },
    "evaluation": {
        "weights": "ema",
        "generated": 50_000,
        "solver": "euler, 10 steps",
        "nfe": 10.4,
        "likelihood": "7 held-out images, K = 3",
        "likelihood_spread": {
            "draws": 3,
            "deviation_between_probes": 0.01234,
            "deviation_between_draws": 0.0456,
            "bias_of_K_draws": {"gaussian_model": -0.0021, "second_order": -0.0019},
        },
        "feature_space": "32 features",
        "reference": "train split",
    },
    "values": {
        "bits_per_dim": {
            "flow": measured(2.34567, 0.0123, "standard error over 7 held-out images"),
            "uniform": measured(4.0875),
        },
        "time": {"never reached": measured(None)},
    },
    "curve": [{"step": 2_000, "epoch": 0.5, "classifier_frechet_distance": 3.456, "mean_loss": 0.98765, "nfe": 61.7}],
}


def test_a_record_says_what_was_run_and_what_came_out(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    printing.show_record(RECORD)
    lines = [cells(line) for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert ["network", "123,456 parameters, sampled with the ema weights"] in lines
    assert ["training", "12,000 steps of 64 images in 82 s (9,412 images/s), seed 3"] in lines
    assert ["samples", "50,000 images, euler, 10 steps, NFE 10"] in lines
    assert ["noise", "0.012 bits/dim an image between probes, 0.046 between draws and probes"] in lines
    assert ["bias", "-0.002 bits/dim of K = 3 are this noise (Gaussian model; to second order -0.002)"] in lines
    assert ["at step", "2,000: classifier Frechet distance 3.46, loss 0.9877, NFE 62"] in lines
    assert ["commit", "not known"] in lines
    assert ["bits per dim", "flow", "2.346", "0.012", "standard error over 7 held-out images"] in lines
    assert ["", "uniform", "4.088", "", ""] in lines
    assert ["time", "never reached", "never", "", ""] in lines


def test_noise_of_the_likelihood_is_said_as_far_as_it_was_measured():
    assert printing.noise_of_likelihood({"draws": 1, "bits_per_nat": 0.02}) == []
    [(name, text)] = printing.noise_of_likelihood({"deviation_between_probes": 0.5})
    assert (name, text) == ("noise", "0.500 bits/dim an image between probes")


def test_spreads_have_as_many_decimals_as_asked_for():
    values = {"mean_cosine_at": {"t = 0.5": measured(0.98765, 0.00123, "standard error over 9 pairs")}}
    lines = [cells(line) for line in printed(printing.values_table("title", values, decimals_of_spread=4))]
    assert ["mean cosine at", "t = 0.5", "0.988", "0.0012", "standard error over 9 pairs"] in lines


@pytest.mark.parametrize("name", ["digits", "bertrand2025/digits/hybrid", "lee2025/digits/kmeans50"])
def test_printed_settings_can_be_typed_back_in(name, capsys):
    """The settings of one experiment, given to another as overrides, make it the same but for its name."""
    printing.show_settings(catalog.by_name(name))
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"settings of {name}: fmcore train {name} FIELD=VALUE ..."
    settings = [line.strip() for line in lines if "=" in line]
    other = with_overrides(catalog.by_name("lipman2023/digits/sf"), settings)
    assert replace(other, experiment=name) == catalog.by_name(name)


def test_every_experiment_and_measurement_is_listed_once(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    printing.show_experiments(catalog.EXPERIMENTS)
    measurements.show_all()
    names = [cells(line)[0] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert sorted(names) == sorted([*catalog.EXPERIMENTS, *measurements.MEASUREMENTS])


@pytest.mark.parametrize("paper", list(tables.PAPERS))
def test_tables_print_with_the_records_of_the_repository(paper, capsys):
    tables.PAPERS[paper]([])
    out = capsys.readouterr().out
    assert "None" not in out
    assert "…" not in out  # nothing is cut off
    assert "nan" not in out.split()


def test_a_paper_is_named_above_its_own_blocks(capsys, tmp_path):
    tables.PAPERS["simulation"]([tmp_path])
    out = capsys.readouterr().out
    assert out.startswith("Lee et al. 2025, table 7: paper against ours; blank where nothing was run")
    assert "Geometry of" not in out
    assert blocks.cell(1234.5) == "1,234.50"


@pytest.mark.parametrize(
    "name", ["digits", "lee2025/digits/ot", "bertrand2025/digits/collapse", "lee2025/geometry/digits"]
)
def test_every_setting_is_explained(name, capsys):
    one = catalog.EXPERIMENTS.get(name) or measurements.by_name(name)
    without = [setting for setting, text in meanings(one).items() if not text and setting != "experiment"]
    assert without == []
    printing.show_settings(one, explain=True)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines[1:]) <= 110


def test_what_a_setting_means_is_its_docstring_and_its_choices():
    said = meanings(catalog.by_name("digits"))
    assert said["coupling"].startswith("which source sample meets which image in a batch")
    assert said["coupling"].endswith("[independent, minibatch_ot, nearest_noise, reflow]")
    assert (
        said["training.beta2"]
        == said["training.beta1"]
        == "decay of Adam's averages of the gradient and of its square."
    )
    assert said["network.heads"] == "number of attention heads."
    assert "[classifier, inception, dinov2]" in said["evaluation.features"]


def test_what_a_classifier_found_is_one_row():
    evaluation = {"classifier_confident": {"generated": 0.5, "held out (real)": 0.75}}
    assert printing.classes_found({}) == []
    [(_, text)] = printing.classes_found(evaluation)
    assert text == "a classifier is sure of the class of 50.0% of samples, 75.0% of real"
    more = {"classifier_agreement": {"all": 0.9}, "classifier_accuracy_on_held_out": 0.95}
    [(_, text)] = printing.classes_found(evaluation | more)
    assert text.endswith("; it finds the one asked for in 90.0% (of real images 95.0%)")
