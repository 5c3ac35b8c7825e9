"""The command line, as a person uses it."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from matplotlib.image import imread

from fmcore import cli, doctor

TINY = [
    "channels=8",
    "attention=",
    "batch=8",
    "method=euler",
    "solver_steps=2",
    "generated_sets=2",
    "rtol=0.1",
    "atol=0.1",
]


def fmcore(*arguments, cwd=None):
    """Run one command in this process, in another folder; returns exit status and what was printed."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.chdir(cwd or Path.cwd())
        patch.setenv("COLUMNS", "120")
        patch.setenv("NO_COLOR", "1")
        patch.delenv("FMCORE_TRACEBACK", raising=False)
        try:
            cli.main(arguments)
        except SystemExit as left:
            status = left.code or 0
    return SimpleNamespace(returncode=status, stdout=out.getvalue(), stderr=err.getvalue())


@pytest.fixture(scope="module", autouse=True)
def own_cache(kept_classifiers):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FMCORE_DATA", str(kept_classifiers))
        yield


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    process = fmcore("train", "digits", *TINY, "--steps", "4", cwd=folder)
    assert process.returncode == 0, process.stderr
    return folder, process


def test_training_prints_the_record_as_a_table(workplace):
    folder, process = workplace
    record = json.loads((folder / "runs" / "digits" / "record.json").read_text())
    assert record["configuration"]["training"]["steps"] == 4
    assert record["configuration"]["network"]["channels"] == 8
    for measure, rows in record["values"].items():
        assert measure.replace("_", " ") in process.stdout
        for of, found in rows.items():
            assert of in process.stdout
            assert f"{found['value']:.3f}" in process.stdout
    assert "images/s" in process.stderr


def test_a_second_training_needs_a_decision_and_resume_goes_on(workplace):
    folder, _ = workplace
    refused = fmcore("train", "digits", *TINY, "--steps", "4", cwd=folder)
    assert refused.returncode == 2
    assert "add --resume" in refused.stderr
    changed = fmcore("train", "digits", *TINY, "lr=0.5", "--steps", "4", "--resume", cwd=folder)
    assert changed.returncode == 2
    assert "training.lr (was 0.003, now 0.5)" in changed.stderr
    weights = (folder / "runs" / "digits" / "weights.safetensors").read_bytes()
    resumed = fmcore("train", "digits", *TINY, "--steps", "4", "--resume", cwd=folder)
    assert resumed.returncode == 0, resumed.stderr
    assert (folder / "runs" / "digits" / "weights.safetensors").read_bytes() == weights


def test_sampling_writes_a_picture_that_follows_from_the_seed(workplace):
    folder, _ = workplace
    pictures = []
    for name, seed in (("a.png", "1"), ("b.png", "1"), ("c.png", "2")):
        process = fmcore("sample", "runs/digits", "--n", "9", "--out", name, "--seed", seed, cwd=folder)
        assert process.returncode == 0, process.stderr
        assert f"wrote 9 images to {name} (NFE 2)" in process.stdout
        pictures.append(imread(folder / name))
    assert (pictures[0] == pictures[1]).all()
    assert not (pictures[0] == pictures[2]).all()


def test_evaluating_again_prints_the_same_values(workplace):
    folder, process = workplace
    again = fmcore("evaluate", "runs/digits", cwd=folder)
    assert again.returncode == 0, again.stderr
    table = process.stdout[process.stdout.index("what was measured") :]
    assert table in again.stdout


def test_evaluating_with_other_settings_keeps_the_run(workplace, tmp_path):
    folder = tmp_path / "digits"
    shutil.copytree(workplace[0] / "runs" / "digits", folder)
    config = (folder / "config.json").read_bytes()
    changes = ["draws=2", "probe_repeats=2", "likelihood_images=5", "set_images=10"]
    process = fmcore("evaluate", str(folder), *changes, cwd=workplace[0])
    assert process.returncode == 0, process.stderr
    assert "flow, K = 2" in process.stdout
    assert "between probes" in process.stdout
    record = json.loads((folder / "record.json").read_text())
    assert record["evaluation"]["generated"] == 20
    assert record["evaluation"]["likelihood_images"] == 5
    assert record["configuration"]["evaluation"]["draws"] == 2
    assert (folder / "config.json").read_bytes() == config


def test_the_table_shows_a_run_beside_the_paper(tmp_path):
    quick = [*TINY, "set_images=4", "likelihood_images=2", "probe_repeats=1", "draws=1", "curve_every=0"]
    process = fmcore("train", "lipman2023/digits/ddpm", *quick, "classifier_steps=5", "--steps", "2", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "runs" / "lipman2023" / "digits" / "ddpm" / "record.json").exists()
    table = fmcore("table", "lipman2023", "runs", cwd=tmp_path)
    assert table.returncode == 0, table.stderr
    assert "CIFAR-10: 256 channels" in table.stdout
    assert "* DDPM: our run has" in table.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "cifar"], "unknown experiment 'cifar': choose one of"),
        (["train", "digits", "features=inception"], "pip install torch-fidelity torchvision"),
        (["train", "lipman2023/cifar10/fm_ot", "curve_every=7"], "make curve_every a multiple of checkpoint_every"),
        (["evaluate", "runs/digits", "lr=0.5"], "only settings of the evaluation can be changed"),
        (["evaluate", "runs/digits", "draws=0"], "draws must be at least 1"),
        (["table", "lee"], "unknown table 'lee': choose one of bertrand2025, lee2025, lipman2023, simulation."),
        (["table", "lipman2023", "nowhere"], "nowhere is no folder"),
        (["train", "digits", "stepz=3"], "unknown field 'stepz': choose one of"),
        (["train", "digits", "steps=x"], "steps=x: "),
        (["train", "digits", "heads=7"], "cannot be split into 7 heads"),
        (["sample", "nowhere"], "nowhere holds no run"),
        (["evaluate", "nowhere"], "nowhere holds no run"),
        (["sample", "runs/digits", "--n", "0"], "--n must be at least 1"),
        (["sample", "runs/digits", "--out", "a.xyz"], "names no picture format"),
        (["list", "nothing"], "unknown experiment 'nothing'"),
        (["measure", "digits"], "unknown measurement 'digits': choose one of bertrand2025/cifar10/collapse"),
        (["measure", "bertrand2025/digits/collapse", "steps=3"], "unknown field 'steps': choose one of data, data_dir"),
        (["measure", "bertrand2025/digits/collapse", "data_dir"], "'data_dir' is not a setting: write field=value"),
        (["measure", "bertrand2025/digits/collapse", "images=2000"], "images=2000, and digits has 1500"),
    ],
)
def test_errors_are_one_line_and_leave_nothing_behind(workplace, arguments, message):
    folder, _ = workplace
    before = sorted(path.name for path in folder.rglob("*"))
    process = fmcore(*arguments, *(["--run-dir", "other"] if arguments[0] in ("train", "measure") else []), cwd=folder)
    assert process.returncode == 2
    assert process.stderr.startswith("error: ")
    assert message in process.stderr
    assert len(process.stderr.strip().splitlines()) == 1
    assert sorted(path.name for path in folder.rglob("*")) == before


def test_a_process_of_its_own_prints_help_errors_and_exit_status():
    code = (
        "import runpy, sys\n"
        "sys.argv = ['fmcore', '--help']\n"
        "try:\n    runpy.run_module('fmcore', run_name='__main__')\nexcept SystemExit:\n    pass\n"
        "heavy = [m for m in ('sklearn', 'matplotlib', 'scipy', 'ot', 'torchdiffeq', 'pydantic') if m in sys.modules]\n"
        "print('heavy', heavy)\n"
        "sys.argv = ['fmcore', 'list', 'nothing']\n"
        "runpy.run_module('fmcore', run_name='__main__')\n"  # what python -m does
    )
    environment = {name: value for name, value in os.environ.items() if name != "FMCORE_TRACEBACK"}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    for command in ("train", "evaluate", "sample", "export", "measure", "table", "list", "doctor"):
        assert command in process.stdout
    assert process.stdout.splitlines()[-1] == "heavy []"
    assert process.returncode == 2
    assert process.stderr.startswith("error: unknown experiment 'nothing': choose one of bertrand2025/")
    assert all(f" {name}," in process.stderr for name in ("bertrand2025/digits/collapse", "cifar10", "digits"))
    assert len(process.stderr.splitlines()) == 1


def test_help_of_train_shows_an_example_that_is_valid():
    process = fmcore("train", "--help")
    line = next(line for line in process.stdout.splitlines() if "Example: " in line)
    words = line.split("Example: ", 1)[1].split()
    assert words[:3] == ["fmcore", "train", "digits"]
    from fmcore.experiments.config.overrides import with_overrides
    from fmcore.papers import catalog

    assert with_overrides(catalog.by_name(words[2]), words[3:]) != catalog.by_name(words[2])


def test_the_settings_listed_for_an_experiment_can_be_given_back():
    from fmcore.experiments.config.overrides import with_overrides
    from fmcore.papers import catalog

    lines = fmcore("list", "digits").stdout.splitlines()[1:]
    settings = [line.strip() for line in lines if "=" in line]
    assert len(settings) > 20
    assert with_overrides(catalog.by_name("digits"), settings) == catalog.by_name("digits")
    assert "digits" in fmcore("list").stdout


def test_doctor_tells_what_is_there():
    process = fmcore("doctor")
    assert process.returncode == 0, process.stderr
    assert f"{sys.version_info.major}.{sys.version_info.minor}." in process.stdout
    assert torch.__version__ in process.stdout
    assert "beyond import torch" in process.stdout
    assert "bfloat16 on the cpu" in process.stdout


def test_doctor_names_what_is_missing_and_how_to_get_it(monkeypatch, capsys):
    real = doctor.version
    monkeypatch.setattr(doctor, "version", lambda package: None if package == "nbval" else real(package))
    monkeypatch.setattr(doctor, "chromium", lambda: None)
    monkeypatch.setattr(doctor, "import_seconds", lambda: 0.0)
    doctor.show_report()
    out = " ".join(capsys.readouterr().out.split())
    assert 'Missing: nbval, for testing the chapters. Get it with: pip install "fmcore[test]"' in out
    assert "Missing: Chromium, for testing the course in a browser. Get it with: playwright install chromium" in out


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (None, "not known"),
        ({"avx2"}, "no: precision=bf16"),
        ({"avx512_bf16", "amx_bf16"}, "yes (amx_bf16, avx512_bf16)"),
    ],
)
def test_doctor_judges_bfloat16_by_the_processor(flags, text):
    assert doctor.bfloat16_support(flags).startswith(text)


def test_a_stopped_run_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    from fmcore.experiments.run import train as run_train

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_train, "train", stopped)
    with pytest.raises(SystemExit) as found:
        cli.main(["train", "digits", "--run-dir", str(tmp_path / "run")])
    assert found.value.code == 130
    assert "--resume" in capsys.readouterr().err
    assert (Path(tmp_path) / "run" / "config.json").exists()
