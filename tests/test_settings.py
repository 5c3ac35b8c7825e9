"""Fields of configurations, checked against their types when the dataclass is made."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
import torch

from fmcore.experiments.config.evaluation import EvaluationConfig
from fmcore.experiments.config.experiment import Configuration, NetworkConfig, from_dict
from fmcore.experiments.config.overrides import to_dict
from fmcore.experiments.config.source import SourceConfig
from fmcore.papers import catalog, measurements
from fmcore.papers.bertrand2025.collapse import CollapseConfig
from fmcore.papers.lee2025.geometry import GeometryConfig
from fmcore.papers.lee2025.simulation_setting import Setting, SimulationConfig
from fmcore.settings import checked
from fmcore.training import TrainingConfig

# Every configuration of the package, with what it cannot do without.
MADE = {
    Configuration: {"experiment": "x", "data": "digits"},
    NetworkConfig: {},
    SourceConfig: {},
    TrainingConfig: {},
    EvaluationConfig: {},
    CollapseConfig: {"experiment": "x", "data": "digits", "sizes": (8,)},
    GeometryConfig: {"experiment": "x", "data": "digits", "tau": 0.1, "threshold": 0.2},
    Setting: {},
    SimulationConfig: {},
}


@dataclass(frozen=True)
class Inner:
    depth: int = 1


@dataclass(frozen=True)
class Every:
    count: int = 1
    rate: float = 0.5
    on: bool = False
    name: str = "a"
    kind: Literal["slow", "fast"] = "slow"
    several: tuple[int, ...] = ()
    pair: tuple[int, float] = (1, 2.0)
    kinds: tuple[Literal["slow", "fast"], ...] = ()
    maybe: int | None = None
    maybe_kind: Literal["slow", "fast"] | None = None
    inner: Inner = Inner()

    def __post_init__(self) -> None:
        checked(self)


@pytest.mark.parametrize(
    ("field", "given", "expected"),
    [
        ("count", np.int64(3), 3),
        ("count", np.array(3), 3),
        ("count", torch.tensor(3), 3),
        ("rate", np.float64(0.25), 0.25),
        ("rate", np.float32(0.25), 0.25),
        ("rate", torch.tensor(0.25), 0.25),
        ("rate", 2, 2.0),
        ("rate", np.int32(2), 2.0),
        ("on", np.bool_(True), True),
        ("name", np.str_("b"), "b"),
        ("kind", np.str_("fast"), "fast"),
        ("several", [1, np.int64(2)], (1, 2)),
        ("several", np.arange(3), (0, 1, 2)),
        ("several", torch.arange(3), (0, 1, 2)),
        ("pair", [np.int8(3), 4], (3, 4.0)),
        ("kinds", ["fast"], ("fast",)),
        ("maybe", np.int64(3), 3),
        ("maybe", None, None),
    ],
)
def test_values_become_plain_python_ones(field, given, expected):
    found = getattr(Every(**{field: given}), field)
    assert found == expected
    assert type(found) is type(expected)
    if isinstance(expected, tuple):
        assert [type(one) for one in found] == [type(one) for one in expected]
    json.dumps(found)  # which numpy's numbers would stop


@pytest.mark.parametrize(
    ("field", "given", "says"),
    [
        ("count", 10.0, "count=10.0: give a whole number, write count=10"),
        ("count", np.float64(10.0), "count=10.0: give a whole number, write count=10"),
        ("count", 10.5, "count=10.5: give a whole number$"),
        ("count", True, "count=True: give a whole number"),
        ("count", np.bool_(True), "count=True: give a whole number"),
        ("count", "10", "count='10': give a whole number"),
        ("count", None, "count=None: give a whole number$"),
        ("count", torch.ones(2), "count=tensor.*give a whole number"),
        ("rate", "fast", "rate='fast': give a number"),
        ("rate", False, "rate=False: give a number"),
        ("rate", float("nan"), "rate=nan: the number must be finite"),
        ("rate", np.float32("inf"), "rate=inf: the number must be finite"),
        ("on", 1, "on=1: give True or False"),
        ("on", "true", "on='true': give True or False"),
        ("name", 3, "name=3: give a text"),
        ("kind", "Fast", "unknown kind 'Fast': choose one of fast, slow"),
        ("kind", None, "unknown kind None: choose one of fast, slow"),
        ("kinds", ("fast", "quick"), "unknown kinds 'quick': choose one of fast, slow"),
        ("kinds", "fast", r"kinds='fast': give several values, as a tuple, for example kinds=\('fast',\)"),
        ("several", 3, "several=3: give several values, as a tuple"),
        ("several", (1, 2.5), "several=2.5: give a whole number"),
        ("several", (1, True), "several=True: give a whole number"),
        ("pair", (1,), "give 2 values, not 1"),
        ("maybe", 1.5, "maybe=1.5: give a whole number, or None"),
        ("maybe_kind", "quick", "unknown maybe_kind 'quick'"),
        ("inner", {"depth": 1}, r"inner=\{'depth': 1\}: give Inner\(\.\.\.\)"),
    ],
)
def test_values_of_another_type_are_refused_by_field(field, given, says):
    with pytest.raises(ValueError, match=says):
        Every(**{field: given})


def test_what_is_right_stays_the_same_object():
    several, inner = (1, 2), Inner(3)
    made = Every(several=several, inner=inner)
    assert made.several is several
    assert made.inner is inner


def test_every_configuration_of_the_catalog_is_one_that_is_tried_here():
    used = {type(one) for one in [*catalog.EXPERIMENTS.values(), *measurements.MEASUREMENTS.values()]}
    groups = {
        type(value)
        for one in catalog.EXPERIMENTS.values()
        for field in dataclasses.fields(one)
        if dataclasses.is_dataclass(value := getattr(one, field.name))
    }
    assert used | groups <= set(MADE)


@pytest.mark.parametrize("kind", MADE, ids=lambda kind: kind.__name__)
def test_no_field_of_any_configuration_takes_a_value_of_another_type(kind):
    made = kind(**MADE[kind])
    for field in dataclasses.fields(made):
        with pytest.raises(ValueError, match=field.name):
            dataclasses.replace(made, **{field.name: object()})


@pytest.mark.parametrize("kind", MADE, ids=lambda kind: kind.__name__)
def test_numbers_of_numpy_are_kept_as_those_of_python(kind):
    made = kind(**MADE[kind])
    numbers = {
        field.name: value
        for field in dataclasses.fields(made)
        if type(value := getattr(made, field.name)) in (int, float, bool)
    }
    again = dataclasses.replace(made, **{name: np.asarray(value)[()] for name, value in numbers.items()})
    assert again == made
    for name, value in numbers.items():
        assert type(getattr(again, name)) is type(value)
    assert to_dict(again) == to_dict(made)


def test_a_bool_in_a_file_is_no_number():
    content = to_dict(catalog.by_name("digits"))
    for wrong in (True, "5", 5.5):
        content["training"]["steps"] = wrong
        with pytest.raises(ValueError, match=r"training.steps: Input should be a valid integer"):
            from_dict(content)
