"""Configurations: settings from the command line, and from JSON."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from fmcore.experiments.config.experiment import Configuration, from_dict
from fmcore.experiments.config.former import ADDED, RENAMED, completed
from fmcore.experiments.config.overrides import flat, settable_fields, to_dict, with_overrides, without_place
from fmcore.papers import catalog
from fmcore.papers.bertrand2025.collapse import CollapseConfig
from fmcore.papers.lee2025.geometry import GeometryConfig
from fmcore.papers.lipman2023 import table

DIGITS = catalog.by_name("digits")
DATA = Path(catalog.__file__).resolve().parents[2] / "data"
KEPT = {
    file.relative_to(DATA).as_posix(): record
    for file in sorted([*DATA.glob("results/**/*.json"), *DATA.glob("pretrained/*.json")])
    if (record := json.loads(file.read_text())).get("experiment") in catalog.EXPERIMENTS
}


def test_settings_reach_their_field_with_their_type():
    found = with_overrides(
        DIGITS,
        ["steps=500", "lr=1e-3", "multipliers=1,2,4", "attention=", "head_channels=8", "path=cosine", "decay=linear"],
    )
    assert found.training.steps == 500
    assert type(found.training.steps) is int
    assert found.training.lr == 0.001
    assert found.network.multipliers == (1, 2, 4)
    assert found.network.attention == ()
    assert found.network.head_channels == 8
    assert (found.path, found.training.decay) == ("cosine", "linear")
    assert with_overrides(found, ["head_channels=none", "multipliers=(3,)"]).network.multipliers == (3,)
    assert found.training.batch == DIGITS.training.batch  # what was not named stays
    assert catalog.by_name("digits") == DIGITS


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps", "'steps' is not a setting: write field=value"),
        ("stepz=3", "unknown field 'stepz': choose one of .*batch.*steps"),
        ("experiment=x", "unknown field 'experiment'"),
        ("steps=many", "steps=many: give a whole number"),
        ("steps=1.5", "steps=1.5: give a whole number"),
        ("steps=0", "steps must be at least 1"),
        ("lr=fast", "lr=fast: give a number"),
        ("lr=nan", "lr=nan: the number must be finite"),
        ("path=straight", "path=straight: Input should be 'rectified', 'ot'"),
        ("multipliers=1,x", "multipliers=1,x: give a whole number"),
        ("head_channels=all", "head_channels=all: give a whole number"),
        ("loss=noise_prediction", "use path=variance_preserving"),
        ("method=euler", "every other method needs solver_steps"),
        ("generated_sets=1", "generated_sets must be at least 2, to show a spread; got 1"),
        ("solver_batch=0", "solver_batch must be at least 1; got 0"),
        ("nearest_images=-1", "nearest_images must be at least 0"),
        ("likelihood_images=1", "likelihood_images must be 0, to leave it out, or at least 2"),
        ("rtol=0", "rtol and atol must be above 0"),
        ("features=vgg", "features=vgg: Input should be 'classifier', 'inception'"),
        ("features=", "name each space once, and at least one"),
        ("features=inception,inception", "name each space once"),
        ("sigma_min=0.1", "sigma_min belongs to path=ot, and the path is rectified"),
        ("curve_every=300", "make curve_every a multiple of checkpoint_every"),
        ("data_dir=/somewhere", "data_dir=/somewhere with data=digits: digits come with scikit-learn"),
        ("velocity_times=0,nan", "velocity_times=nan: the number must be finite"),
        ("coupled=64", "coupled is called coupling_batch now: write coupling_batch=64"),
    ],
)
def test_wrong_settings_are_refused_with_a_remedy(override, message):
    with pytest.raises(ValueError, match=message):
        with_overrides(DIGITS, [override])


def test_an_exact_divergence_has_no_probes():
    with pytest.raises(ValueError, match="an exact divergence has no probes"):
        with_overrides(DIGITS, ["divergence=exact", "probe_repeats=2"])


def test_the_ot_path_ends_at_sigma_min():
    path = with_overrides(DIGITS, ["path=ot", "sigma_min=0.1"]).build_path()
    assert float(path.sigma(torch.tensor(1.0))) == pytest.approx(0.1)
    assert float(with_overrides(DIGITS, ["path=ot"]).build_path().sigma(torch.tensor(1.0))) == 0.0


def test_the_place_of_the_data_is_no_part_of_what_was_done():
    there = catalog.by_name("cifar10")
    moved = with_overrides(there, ["data_dir=/somewhere"])
    assert moved != there
    assert without_place(moved) == without_place(there)
    assert "data_dir" not in without_place(moved)


def test_settings_that_belong_together_are_applied_together():
    found = with_overrides(DIGITS, ["method=euler", "solver_steps=10"])
    assert (found.evaluation.method, found.evaluation.solver_steps) == ("euler", 10)


@pytest.mark.parametrize("experiment", catalog.EXPERIMENTS.values(), ids=catalog.EXPERIMENTS.keys())
def test_every_experiment_survives_json_and_has_its_name(experiment):
    assert from_dict(json.loads(json.dumps(to_dict(experiment)))) == experiment
    assert catalog.by_name(experiment.experiment) is experiment


def test_no_two_fields_share_a_name():
    groups = [
        value for field in dataclasses.fields(DIGITS) if dataclasses.is_dataclass(value := getattr(DIGITS, field.name))
    ]
    names = [field.name for group in [DIGITS, *groups] for field in dataclasses.fields(group)]
    assert len(names) == len(set(names))
    assert len(settable_fields(DIGITS)) == len(names) - 1 - len(groups)  # all but the name and the groups themselves


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["training"].update(stepz=3), "training.stepz: "),
        (lambda content: content["network"].update(width=3), "network.width: "),
        (lambda content: content.update(colour="red"), "colour: "),
        (lambda content: content["training"].update(lr="fast"), "training.lr: "),
        (lambda content: content.pop("data"), "data: "),
    ],
)
def test_json_with_wrong_fields_is_refused_by_field(change, message):
    content = json.loads(json.dumps(to_dict(DIGITS)))
    change(content)
    with pytest.raises(ValueError, match=f"not a configuration of this version: .*{message}"):
        from_dict(content)


def test_an_unknown_experiment_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown experiment 'digit': choose one of .*digits"):
        catalog.by_name("digit")


class TestTheExactVelocity:
    """It can be compared with a network only where it minimizes the network's loss."""

    @pytest.mark.parametrize("asked", ["velocity_pairs=4", "hybrid_switches=0.5"])
    @pytest.mark.parametrize(
        ("settings", "says"),
        [
            (["dequantize=true"], "with dequantize=true: .* train with dequantize=false, or leave out"),
            (
                ["dequantize=false", "coupling=minibatch_ot"],
                "with coupling=minibatch_ot: .* train with coupling=independent, or leave out",
            ),
            (
                ["dequantize=true", "coupling=minibatch_ot"],
                "with dequantize=true and coupling=minibatch_ot: .*dequantize=false and coupling=independent",
            ),
        ],
    )
    def test_it_is_refused_where_the_loss_has_another_minimizer(self, asked, settings, says):
        with pytest.raises(ValueError, match=f"{asked.partition('=')[0]} {says}"):
            with_overrides(DIGITS, [*settings, asked])
        with_overrides(DIGITS, settings)

    @pytest.mark.parametrize("loss", [[], ["loss=empirical_flow_matching", "bank=8"], ["flips=true"]])
    def test_it_is_measured_where_it_is_the_minimizer(self, loss):
        asked = ["dequantize=false", "velocity_pairs=4", "hybrid_switches=0.5"]
        assert with_overrides(DIGITS, [*loss, *asked]).evaluation.velocity_pairs == 4


class TestDataWithoutAFolder:
    def test_it_takes_none(self):
        with pytest.raises(ValueError, match="digits come with scikit-learn, so leave data_dir out"):
            Configuration("x", "digits", data_dir="/somewhere")
        with pytest.raises(ValueError, match="digits come with scikit-learn"):
            GeometryConfig("x", "digits", 0.1, 0.2, data_dir="/somewhere")
        with pytest.raises(ValueError, match="points in the plane are drawn, so leave data_dir out"):
            CollapseConfig("x", "two_moons", data_dir="/somewhere", images=500)
        assert Configuration("x", "cifar10", data_dir="/somewhere").data_dir == "/somewhere"

    def test_a_run_that_named_one_is_still_read(self):
        content = {**to_dict(DIGITS), "data_dir": "/somewhere"}
        assert from_dict(content) == DIGITS
        assert content["data_dir"] == "/somewhere"  # what was read is left as it is


class TestFormerConfigurations:
    """Records outlive the version that wrote them."""

    def test_there_are_some(self):
        assert len(KEPT) > 50
        lacking = {name for one in KEPT.values() for name in flat(to_dict(DIGITS)).keys() - flat(one["configuration"])}
        assert {"dequantize", "source.norm", "training.minutes", "evaluation.budgets"} <= lacking

    @pytest.mark.parametrize("name", KEPT)
    def test_every_record_has_every_field_of_today_once_completed(self, name):
        before = json.dumps(KEPT[name]["configuration"])
        found = completed(KEPT[name]["configuration"])
        assert set(flat(found)) == set(flat(without_place(DIGITS)))  # a field that is new needs its place in ADDED
        assert json.dumps(KEPT[name]["configuration"]) == before
        assert flat(without_place(from_dict(found))) == flat(found)
        assert from_dict(KEPT[name]["configuration"]) == from_dict(found)

    @pytest.mark.parametrize("name", [name for name in KEPT if "lipman2023" in name])
    def test_no_setting_is_called_changed_for_being_younger_than_the_record(self, name):
        assert table.changed(KEPT[name]) == ()

    def test_a_setting_that_was_changed_is_still_named(self):
        record = json.loads(json.dumps(next(one for name, one in KEPT.items() if name.endswith("digits/fm_ot.json"))))
        record["configuration"]["training"]["lr"] = 0.5
        record["configuration"]["dequantize"] = False
        assert sorted(table.changed(record)) == ["dequantize=False", "lr=0.5"]

    def test_a_field_has_the_meaning_that_its_absence_had(self):
        """Whatever the default is today: a record from before dequantize is of a run that had the noise."""
        old = flat(completed({"data": "digits", "training": {}, "evaluation": {}}))
        assert old["dequantize"] is True
        assert (old["source.distribution"], old["source.norm"]) == ("gaussian", "none")
        assert (old["evaluation.velocity_pairs"], old["evaluation.sample_precision"]) == (0, "fp32")
        assert all(name in flat(to_dict(DIGITS)) for name in [*ADDED, *RENAMED.values()])
        assert not any(name in flat(to_dict(DIGITS)) for name in RENAMED)

    def test_what_a_configuration_says_is_not_filled_in(self):
        found = completed({"dequantize": False, "source": {"norm": "data_up"}, "training": {"coupled": 64}})
        assert found["dequantize"] is False
        assert found["source"]["norm"] == "data_up"
        assert found["training"]["coupling_batch"] == 64
        assert "coupled" not in found["training"]

    def test_a_field_has_one_name(self):
        content = to_dict(DIGITS)
        content["training"]["coupled"] = content["training"].pop("coupling_batch")
        assert from_dict(content) == DIGITS

    @pytest.mark.parametrize("content", [[], 3, None, {"training": 3}, {"data": ["digits"]}])
    def test_what_is_no_configuration_is_still_refused_by_field(self, content):
        with pytest.raises(ValueError, match="not a configuration of this version"):
            from_dict(content)
