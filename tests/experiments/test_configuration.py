"""Configurations: settings from the command line, and from JSON."""

import dataclasses
import json

import pytest
import torch

from fmcore.experiments.config.experiment import from_dict
from fmcore.experiments.config.overrides import settable_fields, to_dict, with_overrides, without_place
from fmcore.papers import catalog

DIGITS = catalog.by_name("digits")


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
        ("steps=many", "steps=many: .*valid integer"),
        ("steps=1.5", "steps=1.5: .*valid integer"),
        ("steps=0", "steps must be at least 1"),
        ("lr=fast", "lr=fast: .*valid number"),
        ("lr=nan", "lr=nan: the number must be finite"),
        ("path=straight", "path=straight: Input should be 'rectified', 'ot'"),
        ("multipliers=1,x", "multipliers=1,x: .*valid integer"),
        ("head_channels=all", "head_channels=all: .*valid integer"),
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
    moved = with_overrides(DIGITS, ["data_dir=/somewhere"])
    assert moved != DIGITS
    assert without_place(moved) == without_place(DIGITS)
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
