"""An evaluation whose record cannot be written, or would hold what is no number."""

import json
import math
import os
import sys
from pathlib import Path

import pytest

from fmcore.experiments import records
from fmcore.experiments.evaluate import evaluation, leaving
from tests.experiments.made_run import MadeRun

QUICK = ["set_images=8", "generated_sets=2", "method=euler", "solver_steps=1", "likelihood_images=0"]
QUICK += ["nearest_images=4", "classifier_steps=2"]


def tried(run, said):
    return evaluation.evaluate_run(run, if_not_written=said.append)


@pytest.mark.parametrize("name", ["samples.png", "curve.csv", "hybrids.png"])
def test_a_folder_in_the_place_of_a_file_is_named_before_anything_is_drawn(tmp_path, name):
    run = MadeRun(tmp_path / "run", *QUICK, velocity=None)  # drawing would be a TypeError
    (run.folder / name).mkdir()
    with pytest.raises(OSError, match=f"cannot write .*{name}: Is a directory; there is a folder of this name"):
        evaluation.evaluate_run(run)


def test_a_folder_in_the_place_of_the_record_is_named_before_anything_is_drawn(tmp_path):
    run = MadeRun(tmp_path / "run", *QUICK, velocity=None)
    (run.folder / "record.json").unlink()
    (run.folder / "record.json").mkdir()
    with pytest.raises(OSError, match=r"cannot write .*record.json: Is a directory"):
        evaluation.evaluate_run(run)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_can_only_be_read_is_named_before_anything_is_drawn(tmp_path):
    run = MadeRun(tmp_path / "run", *QUICK, velocity=None)
    run.folder.chmod(0o555)
    try:
        with pytest.raises(OSError, match=r"cannot write .*record.json: Permission denied .nothing was measured yet"):
            evaluation.evaluate_run(run)
    finally:
        run.folder.chmod(0o755)


def test_a_disk_that_takes_nothing_is_named_before_anything_is_drawn(tmp_path, monkeypatch):
    run = MadeRun(tmp_path / "run", *QUICK, velocity=None)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(leaving.tempfile, "TemporaryFile", full)
    with pytest.raises(OSError, match=r"record.json: No space left on device .nothing was measured yet.; make room"):
        evaluation.evaluate_run(run)


def test_the_values_are_said_when_the_disk_is_full_at_the_end(own_cache, tmp_path, monkeypatch):
    run, said = MadeRun(tmp_path / "run", *QUICK), []

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(evaluation.records, "write_json", full)
    with pytest.raises(OSError, match="No space left on device"):
        tried(run, said)
    [record] = said
    assert record["values"]["classifier_frechet_distance"]["generated"]["value"] > 0
    assert json.loads((run.folder / "record.json").read_text()) == {"experiment": "digits"}


def test_what_is_no_number_is_named_and_never_written(own_cache, tmp_path, monkeypatch):
    run, said = MadeRun(tmp_path / "run", *QUICK), []
    nearest = {"distance_to_nearest_training_image": {"generated": {"value": math.nan, "spread": math.inf}}}
    monkeypatch.setattr(evaluation, "nearest_distances", lambda *_: nearest)
    names = r"values.distance_to_nearest_training_image.generated.value is nan, .*generated.spread is inf"
    with pytest.raises(ValueError, match=names):
        tried(run, said)
    assert said[0]["values"]["classifier_frechet_distance"]["generated"]["value"] > 0
    assert json.loads((run.folder / "record.json").read_text()) == {"experiment": "digits"}


def test_every_number_is_looked_at():
    wrong = {"a": [1.0, {"b": (2.0, -math.inf)}], "c": None, "d": True, "e": 3, "nan": "nan"}
    with pytest.raises(ValueError, match=r"nor infinity: a\[1\]\.b\[1\] is -inf\. A mean"):
        records.check_finite(wrong, Path("record.json"))
    records.check_finite({"a": [1.0, {"b": 2.0}], "c": None, "d": True, "nan": "nan"}, Path("record.json"))
