"""The visit to a GPU, rehearsed on the CPU from end to end, with no more packages than such a machine has."""

import json
import os
import shlex
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from benchmarks.gpu import checks, packages, step_speed, training, visit
from fmcore.experiments.run import pretrained
from fmcore.experiments.run.network import build_network

ROOT = Path(__file__).resolve().parents[2]
# Packages of the environment that a machine with a GPU may lack.
LACKING = ["matplotlib", "tqdm", "tyro", "rich", "pooch", "filelock", "ot", "torchcfm", "torch_fidelity", "torchvision"]
REHEARSAL = """
    import runpy, sys

    class Without:
        def __init__(self, finder):
            self.finder = finder

        def find_spec(self, name, path=None, target=None):
            lacks = name.split(".")[0] in {lacking}
            return None if lacks else self.finder.find_spec(name, path, target)

    sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
    sys.argv = ["benchmarks.gpu", "--minutes", "0", "--out", {out!r}]
    runpy.run_module("benchmarks.gpu", run_name="__main__")
"""


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    code = textwrap.dedent(REHEARSAL.format(lacking=LACKING, out=str(folder / "out")))
    environment = {**os.environ, "FMCORE_DATA": str(folder / "cache"), "CUDA_VISIBLE_DEVICES": ""}
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, env=environment, check=False
    )
    return found, folder / "out"


def test_every_part_is_done_with_the_packages_of_such_a_machine(rehearsed):
    found, out = rehearsed
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.splitlines()[-1].endswith("all right")
    assert "no NVIDIA GPU here" in found.stdout
    assert "torchcfm is not here: without the step of TorchCFM's published script beside ours (it needs" in found.stdout
    assert "training: 88 of 88 images" in found.stderr, "lines where there is no bar"
    assert (out / "log.txt").read_text() == found.stdout


def test_make_gpu_is_this_command(tmp_path):
    asked = ["MINUTES=0", "DATA=my data", f"OUT={tmp_path}", "LIMIT=600"]
    said = subprocess.run(
        ["make", "--no-print-directory", "-n", "gpu", *asked], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    words = shlex.split(said.replace("\\\n", " "))
    place = words.index("-m")
    assert words[place:] == [
        *("-m", "benchmarks.gpu", "--minutes", "0", "--data", "my data", "--out", str(tmp_path), "--limit", "600")
    ]
    assert words[0].startswith("PYTHONPATH=build/peers:")


def test_it_leaves_eight_small_files(rehearsed):
    _, out = rehearsed
    assert {file.name for file in out.iterdir()} == visit.FILES
    assert all(0 < file.stat().st_size < training.MOST_BYTES for file in out.iterdir())


def test_every_check_was_made_and_right(rehearsed):
    _, out = rehearsed
    results = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [result["check"] for result in results if "check" in result] == list(checks.ALL)
    assert all(result["right"] for result in results if "check" in result)
    assert sum("images per second" in result for result in results) >= 3
    assert (out / "table.md").read_text().count("\n") == 2 + len(results)


def test_weights_and_record_are_those_of_the_training(rehearsed):
    _, out = rehearsed
    record, weights = json.loads((out / "record.json").read_text()), load_file(out / "weights.safetensors")
    assert sum(weight.numel() for weight in weights.values()) == record["parameters"]
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert record["training"]["steps"] == len((out / "losses.csv").read_text().splitlines()) - 1
    assert record["configuration"]["training"]["minutes"] == 0
    assert record["evaluation"]["sample_precision"] == "bf16"
    assert record["evaluation"]["nfe"] == 4
    assert record["evaluation"]["nfe_of_dopri5"] > 4
    with Image.open(out / "samples.png") as picture:
        assert picture.size[0] > 600


def test_what_is_left_can_be_kept_as_it_is(rehearsed, tmp_path):
    _, out = rehearsed
    for name, kept in (("weights.safetensors", "mine.safetensors"), ("record.json", "mine.json")):
        (tmp_path / kept).write_bytes((out / name).read_bytes())
    network = pretrained.load("mine", tmp_path)
    found = network.sample(2, torch.Generator().manual_seed(0), method="euler", steps=2)
    assert found.x.shape == (2, 1, 8, 8)
    assert network.record["weights"]["relative_change_of_velocity_by_rounding"] < 0.01


def test_the_full_size_is_the_experiment_of_the_catalog_and_fits_into_a_file():
    full = training.configuration(8, None, tiny=False)
    assert (full.experiment, full.training.minutes, full.training.precision) == ("cifar10_gpu", 8, "bf16")
    assert full.training.compile
    assert full.training.channels_last
    assert full.evaluation.likelihood_images == 1000
    parameters = sum(weight.numel() for weight in build_network(full, (3, 32, 32)).parameters())
    assert step_speed.flops_per_image(full.network, (3, 32, 32)) == pytest.approx(9.52e9, rel=1e-3)
    assert step_speed.flops_per_image(step_speed.FULL, (3, 32, 32)) == pytest.approx(37.3e9, rel=1e-3)
    assert 2 * parameters < training.MOST_BYTES


def test_what_is_missing_is_named_at_the_start(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(packages, "importable", lambda name: name not in ("pydantic", "PIL"))
    assert visit.run(0, None, tmp_path) == 2
    assert "missing: pydantic, pillow" in capsys.readouterr().out
    assert {file.name for file in tmp_path.iterdir()} == {"log.txt"}


def test_a_part_that_fails_does_not_keep_the_next_from_running(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(checks.ALL, "pairing", lambda device: 1 / 0)
    for name in sorted(set(checks.ALL) - {"pairing"}):
        monkeypatch.setitem(checks.ALL, name, lambda device: {"difference": 0.0})
    monkeypatch.setattr(step_speed, "run", lambda images, device, peer, say: say({"what": "speed", "rate": 1.0}))
    monkeypatch.setattr(step_speed, "top_kernels", lambda images, device: "none")
    assert visit.run(0, None, tmp_path, ["checks", "speed"]) == 1
    said = capsys.readouterr().out
    assert "checks FAILED" in said
    assert '"error": "ZeroDivisionError: division by zero"' in said
    assert (tmp_path / "kernels.txt").read_text() == "none\n"
    assert said.splitlines()[-1].endswith("FAILED: checks")


def test_at_the_limit_it_ends_with_what_it_has(tmp_path, monkeypatch, capsys):
    def endless(device, say):
        say({"check": "first", "right": True})
        while True:
            time.sleep(0.01)

    monkeypatch.setattr(checks, "run", endless)
    assert visit.run(0, None, tmp_path, ["checks", "speed"], limit=0.5) == 1
    said = capsys.readouterr().out
    assert "time is up" in said
    assert "== speed" not in said
    assert "first" in (tmp_path / "results.jsonl").read_text()


class TestCompilerThatFails:
    CONFIG = training.configuration(0, None, tiny=False)

    def attempt(self, folder, fails):
        said, tried = [], []

        def train(config):
            tried.append(config)
            fails(config)

        training.compiled_or_not(train, self.CONFIG, folder, said.append)
        return said, tried

    def test_the_training_is_made_without_it(self, tmp_path):
        def fails(config):
            if config.training.compile:
                raise RuntimeError("no triton")

        said, (first, second) = self.attempt(tmp_path, fails)
        assert said == [{"what": "not compiled", "because": "RuntimeError: no triton"}]
        assert (first, second.training.compile, second.evaluation.sample_compile) == (self.CONFIG, False, False)
        assert second.network == first.network

    def test_an_error_without_it_or_after_a_checkpoint_is_the_error(self, tmp_path):
        def fails(config):
            raise RuntimeError("no memory")

        with pytest.raises(RuntimeError, match="no memory"):
            self.attempt(tmp_path, fails)
        (tmp_path / "checkpoint.pt").touch()
        tried = []
        with pytest.raises(RuntimeError, match="no memory"):
            training.compiled_or_not(lambda c: tried.append(c) or fails(c), self.CONFIG, tmp_path, print)
        assert len(tried) == 1


def test_a_check_finds_a_device_that_is_wrong(monkeypatch):
    exact = checks.closed_form.EmpiricalVelocity
    wrong = {torch.float32: 1.01, torch.float64: 1.0}
    monkeypatch.setattr(
        checks.closed_form,
        "EmpiricalVelocity",
        lambda data: lambda x, t: exact(data)(x, t) * wrong[data.dtype],
    )
    monkeypatch.setattr(checks, "ALL", {"exact_velocity": checks.exact_velocity})
    said = []
    assert not checks.run(torch.device("cpu"), said.append)
    assert "differs by 1.0e-02" in said[0]["error"]
