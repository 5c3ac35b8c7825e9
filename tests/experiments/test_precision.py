"""precision=auto: a trial decides once, what it found is recorded, and a resumed run computes as it began."""

import pytest

from fmcore.experiments.config.overrides import with_overrides
from fmcore.experiments.run import precision
from fmcore.experiments.run.finished import Run
from fmcore.experiments.run.folder import read_configuration
from fmcore.experiments.run.train import train_run
from fmcore.papers import catalog

AUTO = with_overrides(
    catalog.by_name("digits"), ["channels=8", "attention=", "batch=8", "steps=2", "decay=none", "precision=auto"]
)


@pytest.mark.parametrize(("gain", "expected"), [(0.4, "fp32"), (1.05, "fp32"), (1.8, "bf16")])
def test_bf16_is_taken_where_it_gains(tmp_path, monkeypatch, gain, expected):
    monkeypatch.setattr(precision, "gain_of_bf16", lambda *_: gain)
    train_run(AUTO, tmp_path / "run", progress=False)
    assert read_configuration(tmp_path / "run").training.precision == expected
    assert Run(tmp_path / "run").record()["training"]["notes"] == [
        f"precision=auto: a step in bf16 is {gain:.2f} times as fast as in fp32 here, so {expected}"
    ]
    monkeypatch.setattr(precision, "gain_of_bf16", lambda *_: 1 / gain)  # another machine
    train_run(with_overrides(AUTO, ["steps=3"]), tmp_path / "run", resume=True, progress=False)
    assert read_configuration(tmp_path / "run").training.precision == expected


def test_the_trial_is_of_this_network():
    from fmcore.data import digits

    assert 0.05 < precision.gain_of_bf16(AUTO, digits()) < 20
