"""A run from training to record, small, and the rules of its folder."""

import json
import random
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fmcore import cli, data, locks
from fmcore.experiments import sealed
from fmcore.experiments.config.overrides import with_overrides
from fmcore.experiments.evaluate import evaluation, simple_models
from fmcore.experiments.evaluate.evaluation import evaluate_run
from fmcore.experiments.run.finished import Run
from fmcore.experiments.run.folder import read_configuration
from fmcore.experiments.run.train import train_run
from fmcore.likelihood import bits_per_dim
from fmcore.papers import catalog
from tests.experiments.former_run import made_former

TINY = ["channels=8", "multipliers=1", "attention=", "steps=6", "batch=8", "checkpoint_every=2", "warmup=2"]
QUICK = ["method=euler", "solver_steps=2", "generated_sets=2", "rtol=0.1", "atol=0.1"]
CONFIGURATION = with_overrides(catalog.by_name("digits"), TINY + QUICK)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def finished(own_cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    train_run(CONFIGURATION, folder, progress=False)
    return folder, evaluate_run(Run(folder))


def test_a_run_leaves_its_files_and_nothing_else(finished):
    folder, _ = finished
    assert sorted(contents(folder)) == [
        "checkpoint.pt",
        "config.json",
        "data.json",
        "losses.csv",
        "record.json",
        "samples.png",
        "source.safetensors",
        "weights.safetensors",
    ]
    lines = (folder / "losses.csv").read_text().splitlines()
    assert lines[0] == "step,loss"
    assert [int(line.split(",")[0]) for line in lines[1:]] == list(range(6))


def test_the_saved_weights_are_the_averaged_ones(finished):
    folder, _ = finished
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    for name, value in load_file(folder / "weights.safetensors").items():
        assert torch.equal(value, state["ema"][f"module.{name}"])
    assert not torch.equal(state["ema"]["module.first.weight"], state["model"]["first.weight"])


def test_the_record_says_what_was_run_and_what_came_out(finished):
    folder, record = finished
    assert sealed.read(folder / "record.json") == record
    assert record["training"]["global_batch"] * record["training"]["steps"] == 48
    rounded = record["training"]["wall_seconds"]
    assert 48 / (rounded + 0.006) <= record["training"]["images_per_second"] + 1
    assert rounded < 0.01 or record["training"]["images_per_second"] <= 48 / (rounded - 0.006) + 1
    assert record["environment"]["versions"]["torch"] == torch.__version__.split("+")[0] or "+" in torch.__version__
    evaluation = record["evaluation"]
    assert (evaluation["nfe"], evaluation["solver"], evaluation["generated"]) == (2, "euler, 2 steps", 2 * 297)
    assert 0.9 < evaluation["classifier_accuracy_on_held_out"] <= 1
    bits = record["values"]["bits_per_dim"]
    assert bits["uniform"]["value"] == pytest.approx(4.0875, abs=1e-3)
    assert bits["flow"]["spread"] > 0
    distances = record["values"]["classifier_frechet_distance"]
    assert distances["generated"]["value"] > distances["held out (real)"]["value"] > 0
    assert "standard deviation over 2 generated sets" in distances["generated"]["spread_is"]


def test_evaluating_again_gives_the_same_values(finished):
    folder, record = finished
    again = evaluate_run(Run(folder))
    assert again["values"] == record["values"]


def test_samples_follow_from_the_seed(finished):
    run = Run(finished[0])
    first, again, other = (run.sample(3, torch.Generator().manual_seed(seed)).x for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_folder_with_files_needs_a_decision(finished, tmp_path):
    folder, _ = finished
    with pytest.raises(FileExistsError, match="is not empty: add --resume .*--overwrite"):
        train_run(CONFIGURATION, folder, progress=False)
    with pytest.raises(ValueError, match="choose one"):
        train_run(CONFIGURATION, folder, resume=True, overwrite=True, progress=False)
    (tmp_path / "letter.txt").write_text("dear reader")
    for choice in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(FileExistsError, match="holds no run"):
            train_run(CONFIGURATION, tmp_path, progress=False, **choice)
    assert contents(tmp_path) == {"letter.txt": b"dear reader"}
    with pytest.raises(FileExistsError, match="is a file"):
        train_run(CONFIGURATION, tmp_path / "letter.txt", progress=False)


class TestAFinishedRunIsResumed:
    """Nothing is left to train: what was measured stays, until it is measured again."""

    @pytest.fixture
    def copy(self, finished, tmp_path):
        return shutil.copytree(finished[0], tmp_path / "run")

    def test_its_record_stays_as_it_is(self, finished, copy):
        before = contents(copy)
        train_run(CONFIGURATION, copy, resume=True, progress=False)
        assert contents(copy) == before
        assert json.loads(before["record.json"])["values"] == finished[1]["values"]

    @pytest.mark.parametrize("content", [None, b"{", b"[]", b"{}"])
    def test_a_record_that_is_lost_or_damaged_is_written_again(self, finished, copy, content):
        file = copy / "record.json"
        file.unlink() if content is None else file.write_bytes(content)
        train_run(CONFIGURATION, copy, resume=True, progress=False)
        record = json.loads(file.read_text())
        assert "values" not in record
        found, before = record["training"], finished[1]["training"]
        timed = {"wall_seconds", "images_per_second"}  # the end of the last step is not in the checkpoint
        assert {name: found[name] for name in found.keys() - timed} == {
            name: before[name] for name in before.keys() - timed
        }
        assert found.keys() == before.keys()

    def test_one_that_trains_again_has_a_new_record(self, copy):
        (copy / "checkpoint.pt").unlink()
        train_run(CONFIGURATION, copy, resume=True, progress=False)
        assert "values" not in json.loads((copy / "record.json").read_text())

    def test_the_evaluation_follows_on_the_command_line(self, finished, copy, monkeypatch):
        measured = []

        def stopped(run, **_):
            measured.append(run.folder)
            raise KeyboardInterrupt

        monkeypatch.setattr(evaluation, "evaluate_run", stopped)
        before = (copy / "record.json").read_bytes()
        with pytest.raises(SystemExit):
            cli.main(["train", "digits", *TINY, *QUICK, "--resume", "--run-dir", str(copy)])
        assert measured == [copy]
        assert (copy / "record.json").read_bytes() == before


class TestKilledBeforeTheFirstStep:
    """A folder in which the first file was half written holds nothing that could be lost."""

    LEFT = ("config.json.0a1b2c3d.partial", "config.json.partial")

    @pytest.mark.parametrize("choice", [{}, {"resume": True}, {"overwrite": True}])
    def test_the_run_is_begun_again(self, tmp_path, choice):
        for name in self.LEFT:
            (tmp_path / name).write_bytes(b"{")
        said = pytest.warns(UserWarning, match="nothing to resume") if "resume" in choice else nullcontext()
        with said:
            train_run(with_overrides(CONFIGURATION, ["steps=1"]), tmp_path, progress=False, **choice)
        assert read_configuration(tmp_path).training.steps == 1
        assert not [name for name in contents(tmp_path) if name.endswith(".partial")] or not locks.has_flock()

    @pytest.mark.parametrize("other", ["letter.txt", "letter.txt.partial", "letter.0a1b2c3d.partial", "my config.json"])
    def test_other_files_are_still_respected(self, tmp_path, other):
        for name in (other, *self.LEFT):
            (tmp_path / name).write_bytes(b"{")
        before = contents(tmp_path)
        for choice in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(FileExistsError, match="is not empty"):
                train_run(CONFIGURATION, tmp_path, progress=False, **choice)
        assert contents(tmp_path) == before

    def test_a_folder_is_a_run_at_every_moment_while_it_is_overwritten(self, finished, tmp_path, monkeypatch):
        """Killed at any removal or writing of a file, it can be started anew with the same command."""
        folder = shutil.copytree(finished[0], tmp_path / "run")
        (folder / "notes.txt").write_text("mine")
        unlink, moments = Path.unlink, []

        def watched(path, **settings):
            unlink(path, **settings)
            moments.append((folder / "config.json").exists())

        monkeypatch.setattr(Path, "unlink", watched)
        train_run(with_overrides(CONFIGURATION, ["steps=1"]), folder, overwrite=True, progress=False)
        assert len(moments) > 8
        assert all(moments)


def test_resuming_with_another_configuration_names_the_fields(finished):
    folder, _ = finished
    before = contents(folder)
    other = with_overrides(CONFIGURATION, ["lr=0.5", "channels=16"])
    with pytest.raises(ValueError, match="network.channels \\(was 8, now 16\\), training.lr \\(was 0.003, now 0.5\\)"):
        train_run(other, folder, resume=True, progress=False)
    assert contents(folder) == before


class TestOtherImages:
    """A run goes on, and is measured, with the images that it was started with."""

    @pytest.fixture
    def copy(self, finished, tmp_path):
        for name, content in contents(finished[0]).items():
            (tmp_path / name).write_bytes(content)
        return tmp_path

    @pytest.fixture
    def exchanged(self, monkeypatch):
        """Digits of the same name and number, in another order."""
        own = data.digits()
        other = replace(own, train=own.train.flip(0), train_labels=own.train_labels.flip(0))
        monkeypatch.setattr(data, "by_name", lambda name, folder=None: other)

    def test_the_fingerprint_is_in_the_folder_and_in_the_record(self, finished):
        folder, record = finished
        [name, kept] = sealed.read(folder / "data.json").values()
        assert record["data"] == {"name": "digits", "fingerprint": kept}
        assert name == "digits"
        assert len(kept) == 64

    def test_a_run_does_not_go_on_with_them(self, copy, exchanged):
        before = contents(copy)
        with pytest.raises(ValueError, match=r"was trained on other images: digits had the fingerprint [0-9a-f]{12}"):
            train_run(CONFIGURATION, copy, resume=True, progress=False)
        assert contents(copy) == before

    def test_a_run_is_not_measured_beside_them(self, copy, exchanged):
        with pytest.raises(ValueError, match="was trained on other images"):
            Run(copy)

    def test_starting_anew_takes_them(self, copy, exchanged):
        before = json.loads((copy / "data.json").read_text())
        train_run(CONFIGURATION, copy, overwrite=True, progress=False)
        Run(copy)
        assert json.loads((copy / "data.json").read_text()) != before

    def test_a_run_of_an_earlier_version_says_nothing_of_them(self, copy, exchanged):
        made_former(copy)
        (copy / "record.json").unlink()  # which is left as it is otherwise: nothing is left to train
        with pytest.warns(UserWarning, match="earlier version"):
            Run(copy)
        with pytest.warns(UserWarning, match="earlier version"):
            train_run(CONFIGURATION, copy, resume=True, progress=False)
        assert not (copy / "data.json").exists()  # nobody knows what it has seen
        assert json.loads((copy / "record.json").read_text())["data"]["fingerprint"] is None

    def test_its_files_tell_where_the_fingerprint_is_lost(self, copy, exchanged):
        (copy / "data.json").unlink()
        with pytest.raises(ValueError, match="source.safetensors belongs to another run: fingerprint of the data"):
            Run(copy)

    def test_a_run_that_had_just_begun_has_one_after_all(self, copy):
        before = json.loads((copy / "data.json").read_text())
        for name in ("data.json", "checkpoint.pt"):
            (copy / name).unlink()
        train_run(CONFIGURATION, copy, resume=True, progress=False)
        assert json.loads((copy / "data.json").read_text()) == before

    @pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"fingerprint": 3}'])
    def test_a_damaged_file_is_named(self, copy, content):
        (copy / "data.json").write_bytes(content)
        with pytest.raises(ValueError, match="data.json is damaged"):
            Run(copy)


def test_a_run_of_an_earlier_version_goes_on_and_is_measured(finished, tmp_path):
    """Its configuration lacks fields that came later, and names one as it was named then."""
    for name, content in contents(finished[0]).items():
        (tmp_path / name).write_bytes(content)
    made_former(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["training"]["coupled"] = config["training"].pop("coupling_batch")
    del config["dequantize"], config["source"], config["training"]["minutes"], config["evaluation"]["budgets"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match="earlier version") as warned:
        assert Run(tmp_path).configuration == CONFIGURATION
    assert len(warned) == 3  # of the configuration, the source, the weights
    with pytest.warns(UserWarning, match="earlier version"):
        train_run(CONFIGURATION, tmp_path, resume=True, progress=False)
    assert json.loads((tmp_path / "config.json").read_text())["dequantize"] is True


def test_training_and_measuring_leave_the_process_as_it_was(own_cache, tmp_path):
    def settings():
        return (
            torch.get_rng_state().tolist(),
            str(np.random.get_state()),  # noqa: NPY002
            random.getstate(),
            torch.get_num_threads(),
            torch.get_default_dtype(),
            torch.get_float32_matmul_precision(),
            torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.allow_tf32,
        )

    torch.manual_seed(12345)
    before = settings()
    quick = ["dropout=0.1", "set_images=4", "likelihood_images=2", "classifier_steps=2", "nearest_images=0"]
    train_run(with_overrides(CONFIGURATION, [*quick, "steps=2"]), tmp_path, progress=False)
    assert settings() == before
    evaluate_run(Run(tmp_path))
    assert settings() == before


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of PyTorch's own compiler, when it is loaded
def test_a_loaded_network_has_no_dropout(tmp_path):
    train_run(with_overrides(CONFIGURATION, ["dropout=0.9", "steps=2"]), tmp_path, progress=False)
    run = Run(tmp_path)
    for weight in run.network.parameters():
        weight.fill_(0.1)  # untrained, the part behind the dropout is zero
    x, t = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor(0.5)
    assert torch.equal(run.velocity(x, t), run.velocity(x, t))
    run.network.train()
    assert not torch.equal(run.velocity(x, t), run.velocity(x, t))  # the dropout is there


def test_overwriting_starts_anew_and_keeps_other_files(tmp_path):
    train_run(CONFIGURATION, tmp_path, progress=False)
    (tmp_path / "notes.txt").write_text("mine")
    train_run(with_overrides(CONFIGURATION, ["steps=3"]), tmp_path, overwrite=True, progress=False)
    assert len((tmp_path / "losses.csv").read_text().splitlines()) == 4
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "settings",
    [
        ["path=variance_preserving", "loss=noise_prediction"],
        ["path=variance_preserving", "loss=score_matching"],
        ["path=variance_preserving", "loss=score_flow"],
        ["path=variance_exploding"],
        ["coupling=minibatch_ot", "precision=bf16"],
    ],
)
def test_every_kind_of_training_gives_a_run_that_samples(tmp_path, settings):
    train_run(with_overrides(CONFIGURATION, [*settings, "steps=2"]), tmp_path, progress=False)
    run = Run(tmp_path)
    solution = run.sample(2, torch.Generator().manual_seed(0))
    assert torch.isfinite(solution.x).all()
    assert not torch.equal(solution.x[0], solution.x[1])
    assert run.source.std == pytest.approx(50.0 if "path=variance_exploding" in settings else 1.0, rel=1e-3)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", b"{", "config.json is damaged: it is not JSON"),
        ("config.json", b"[]", "not a configuration of this version"),
        ("weights.safetensors", b"abc", "weights.safetensors is damaged"),
        ("weights.safetensors", None, "the training has not finished"),
        ("config.json", None, "holds no run .*; the runs in .* are other"),
    ],
)
def test_damaged_runs_are_refused_by_file(finished, tmp_path, file, content, message):
    for name, kept in contents(finished[0]).items():
        for folder in (tmp_path / "run", tmp_path / "other"):
            folder.mkdir(exist_ok=True)
            (folder / name).write_bytes(kept)
    path = tmp_path / "run" / file
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        Run(tmp_path / "run")


def test_weights_of_another_network_are_refused(finished, tmp_path):
    for name, kept in contents(finished[0]).items():
        (tmp_path / name).write_bytes(kept)
    content = json.loads((tmp_path / "config.json").read_text())
    content["network"]["channels"] = 16
    sealed.write(tmp_path / "config.json", content)
    with pytest.raises(ValueError, match=r"belongs to another run: .*network.channels is 8 there and 16 here"):
        Run(tmp_path)


def test_a_short_training_beats_a_gaussian(tmp_path):
    """By 0.34 bits/dim on these 40 images; other seeds of the training change that by 0.04."""
    quick = ["channels=16", "attention=", "steps=120", "batch=48", "warmup=10", "lr=0.006", "ema=0.9"]
    quick = with_overrides(catalog.by_name("digits"), quick)
    train_run(quick, tmp_path, progress=False)
    run, generator = Run(tmp_path), torch.Generator().manual_seed(0)
    found = bits_per_dim(
        run.velocity,
        run.data.held_out[:40],
        run.source,
        levels=17,
        generator=generator,
        t1=run.path.t_max,
        rtol=0.01,
        atol=0.01,
    )
    assert found.value < float(simple_models.gaussian_bits_per_dim(run.data, generator)[:40].mean())


def test_a_run_goes_on_for_more_steps_and_is_another_afterwards(tmp_path):
    few = with_overrides(catalog.by_name("digits"), ["channels=8", "attention=", "steps=2", "batch=8", "decay=none"])
    more = with_overrides(few, ["steps=4"])
    train_run(few, tmp_path / "run", progress=False)
    train_run(more, tmp_path / "run", resume=True, progress=False)
    train_run(more, tmp_path / "whole", progress=False)
    one, other = (Run(tmp_path / name) for name in ("run", "whole"))
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name])
    assert one.record()["training"]["notes"] == ["4 steps in place of 2"]
    assert one.record()["training"]["steps"] == 4
    with pytest.raises(ValueError, match=r"steps \(was 4, now 2\)"):
        train_run(few, tmp_path / "run", resume=True, progress=False)
