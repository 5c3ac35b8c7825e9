"""The command line, as a person uses it."""

import contextlib
import errno
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from matplotlib.image import imread

from fmcore import cli, doctor
from fmcore.console import errors, signs

TINY = [
    "channels=8",
    "multipliers=1",
    "attention=",
    "batch=8",
    "method=euler",
    "solver_steps=2",
    "generated_sets=2",
    "rtol=0.1",
    "atol=0.1",
]


def fmcore(*arguments, cwd=None, columns=120, encoding="utf-8"):
    """Run one command in this process, in another folder; returns exit status and what was printed.

    Its output is text of the given encoding in a terminal of so many columns; a sign that does not exist in it is an
    error, as in a terminal.
    """
    bytes_out, bytes_err, status = io.BytesIO(), io.BytesIO(), 0
    out, err = (io.TextIOWrapper(file, encoding=encoding, write_through=True) for file in (bytes_out, bytes_err))
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.chdir(cwd or Path.cwd())
        patch.setenv("COLUMNS", str(columns))
        patch.setenv("NO_COLOR", "1")
        patch.delenv("FMCORE_TRACEBACK", raising=False)
        try:
            cli.main(arguments)
        except SystemExit as left:
            status = left.code or 0
    stdout, stderr = (file.getvalue().decode(encoding) for file in (bytes_out, bytes_err))
    return SimpleNamespace(returncode=status, stdout=stdout, stderr=stderr)


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
        (
            ["sample", "runs/digits", "--out", "runs/digits/config.json/a/b.png"],
            "config.json: not a directory; work in",
        ),
        (
            ["export", "runs/digits", "--out", "runs/digits/config.json"],
            "config.json: file exists; work in a folder of",
        ),
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
    environment |= {"PYTHONIOENCODING": "ascii"}
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
    get = f"""pip install -e ".[test]", in {Path(doctor.__file__).resolve().parents[1]}"""
    assert f"Missing: nbval, for testing the chapters. Get it with: {get}" in out
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


def whole_frames(printed):
    """Every line of a table is as long as the one above it."""
    lines = printed.splitlines()
    pairs = [pair for pair in itertools.pairwise(lines) if all(line.startswith(("|", "+-")) for line in pair)]
    assert pairs
    return all(len(above) == len(below) for above, below in pairs)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("columns", [40, 80])
def test_all_names_are_listed_whole_in_any_terminal(columns, encoding):
    from fmcore.papers import catalog, measurements

    process = fmcore("list", columns=columns, encoding=encoding)
    assert process.returncode == 0, process.stderr
    words = process.stdout.split()
    assert {*catalog.EXPERIMENTS, *measurements.MEASUREMENTS} <= {*words}
    assert "…" not in process.stdout
    assert "..." not in process.stdout


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437"])
@pytest.mark.parametrize("name", ["lipman2023", "bertrand2025", "lee2025", "simulation"])
def test_tables_are_printed_to_the_end_with_the_signs_that_the_terminal_has(name, encoding):
    right, process = fmcore("table", name), fmcore("table", name, columns=40, encoding=encoding)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    assert process.stdout.split()[-3:] == signs.writable(right.stdout, encoding).split()[-3:]
    assert "…" not in right.stdout
    assert whole_frames(process.stdout)
    spelled = {"ascii": "+-", "cp1252": "±", "cp437": "±"}[encoding]
    if "±" in right.stdout and "±".encode(encoding, "replace") == b"?":
        spelled = "+-"
    assert right.stdout.count("±") == len(re.findall(re.escape(spelled) + r"(?=[ .\d])", process.stdout))


def test_every_other_command_runs_in_a_terminal_of_ascii(workplace, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "import_seconds", lambda: 0.0)
    monkeypatch.setattr(doctor, "chromium", lambda: None)
    run = tmp_path / "σ²"
    shutil.copytree(workplace[0] / "runs" / "digits", run)
    quick = ["set_images=4", "likelihood_images=2", "probe_repeats=1", "draws=1"]
    for arguments in (
        ["doctor"],
        ["list", "digits"],
        ["list", "lee2025/simulation/paper"],
        ["train", "--help"],
        ["sample", str(run), "--n", "1", "--out", str(run / "é.png")],
        ["evaluate", str(run), *quick],
        ["export", str(run), "--out", str(tmp_path / "±")],
        [
            "measure",
            "bertrand2025/two_moons/collapse",
            "pairs=8",
            "times=5",
            "shown=0.2",
            "--run-dir",
            str(tmp_path / "✓"),
        ],
    ):
        process = fmcore(*arguments, columns=40, encoding="ascii")
        assert process.returncode == 0, process.stderr
        assert process.stdout
        assert "..." not in process.stdout.replace("FIELD=VALUE ...", "")
    for arguments in (["table", "σ"], ["evaluate", "nowhere/σ"]):
        process = fmcore(*arguments, encoding="ascii")
        assert process.returncode == 2
        assert "sigma" in process.stderr


def test_a_record_is_shown_whole_in_a_narrow_terminal(workplace, monkeypatch, capsys):
    from fmcore.papers import printing

    record = json.loads((workplace[0] / "runs" / "digits" / "record.json").read_text())
    monkeypatch.setenv("COLUMNS", "40")
    printing.show_record(record)
    printed = capsys.readouterr().out
    assert "…" not in printed
    words = {*printed.split()}
    for measure, rows in record["values"].items():
        assert {*measure.split("_")} <= words
        for of, found in rows.items():
            assert {*of.split(), f"{found['value']:.3f}"} <= words


@pytest.mark.parametrize("arguments", [["list", "digits"], ["list"], ["train", "--help"]], ids=" ".join)
def test_who_reads_only_the_beginning_hears_no_complaint(arguments):
    read, write = os.pipe()
    os.close(read)
    stdout, errors = os.fdopen(write, "w", encoding="utf-8"), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 1
    assert errors.getvalue() == ""
    stdout.close()  # as at the end of Python, with what could not be written


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "runs"),
            "runs: permission denied; work in a folder of your",
        ),
        (OSError(errno.EROFS, "Read-only file system", "runs"), "runs: read-only file system; work in a folder of"),
        (OSError(errno.ENOSPC, "No space left on device", "a"), "a: no space left on device"),
        (OSError(errno.ENOSPC, "cannot write a: make room"), "cannot write a: make room"),
        (FileNotFoundError("nowhere holds no run"), "nowhere holds no run"),
        (ValueError("steps=0: too few"), "steps=0: too few"),
    ],
)
def test_an_error_of_the_system_says_what_to_do(error, text):
    said = errors.explained(error)
    assert said.startswith(text)
    assert "Errno" not in said
    assert ("--run-dir for train and measure" in said) == ("; work in" in text)


@pytest.mark.parametrize("command", [["train", "digits"], ["measure", "bertrand2025/two_moons/collapse"]])
def test_a_folder_that_is_not_writable_is_refused_before_the_work(command, tmp_path, monkeypatch):
    from fmcore.experiments.run import train as run_train
    from fmcore.papers import measurements

    worked = []
    monkeypatch.setattr(run_train, "train_run", lambda *_, **__: worked.append("train"))
    monkeypatch.setattr(measurements, "measure_run", lambda *_, **__: worked.append("measure"))
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write anywhere
    process = fmcore(*command, cwd=tmp_path)
    assert process.returncode == 2
    assert process.stderr.startswith(f"error: {tmp_path}: permission denied; work in a folder of your own")
    assert not worked
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("cuda", "mps", "text"),
    [
        (False, False, "cpu"),
        (False, True, "cpu: fmcore does not compute on the GPU of a Mac (mps)"),
        (True, False, "cuda: H200"),
    ],
)
def test_doctor_says_where_it_computes(cuda, mps, text, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H200")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert doctor.device_used() == text


def test_doctor_names_nothing_that_the_index_has_under_another_project(monkeypatch):
    assert {remedy for _, remedy in doctor.NEEDED.values()} == {
        "pip install -e .",
        'pip install -e ".[course]"',
        'pip install -e ".[test]"',
    }
    assert doctor.course_folder() == str(Path(cli.__file__).resolve().parents[1])
    monkeypatch.setattr(doctor, "__file__", "/somewhere/site-packages/fmcore/doctor.py")
    assert doctor.course_folder() == "the folder of the course"


def test_a_picture_that_cannot_be_written_is_refused_before_the_sampling(tmp_path, capsys):
    """The run is not even looked for: there is none."""
    with pytest.raises(SystemExit):
        cli.main(["sample", str(tmp_path / "no run"), "--out", str(tmp_path / "picture.docx")])
    assert "names no picture format: end it in .png" in capsys.readouterr().err


def test_without_stdout_the_error_is_still_said(tmp_path):
    command = f"{sys.executable} -m fmcore list nothing >&-"
    process = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=120)
    assert process.returncode == 2
    assert process.stderr.startswith("error: unknown experiment 'nothing'")
