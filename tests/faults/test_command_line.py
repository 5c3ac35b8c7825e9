"""Whatever is typed, and wherever the output goes: one sentence and an exit status, never a trace, and nothing made."""

import os
from pathlib import Path

import pytest

from fmcore.console.arguments import ordered
from tests.forked import ROOT, python

pytestmark = pytest.mark.xdist_group(__name__)

PATIENCE = 120
TINY = [
    "channels=8",
    "multipliers=1",
    "attention=",
    "batch=8",
    "method=euler",
    "solver_steps=2",
    "generated_sets=2",
    "set_images=4",
]
TINY += ["likelihood_images=2", "classifier_steps=2", "steps=2"]


def environment(**extra):
    inherited = {name: value for name, value in os.environ.items() if name not in ("FMCORE_TRACEBACK", "RANK")}
    return {**inherited, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NO_COLOR": "1", **extra}


def fmcore(*arguments, **extra):
    """Run one command in a process of its own; returns the exit status, stdout and stderr."""
    with python(["-m", "fmcore", *arguments], environment(**extra), separate_errors=True) as process:
        printed, errors = process.communicate(PATIENCE)
    return process.returncode, printed, errors


def redirected(code, *arguments, **extra):
    """As `fmcore`, after some code that does to the output what a shell would do."""
    code += "\nimport sys, runpy\nsys.argv = ['fmcore', *sys.argv[1:]]\nrunpy.run_module('fmcore', run_name='__main__')"
    with python(["-c", code, *arguments], environment(**extra), separate_errors=True) as process:
        printed, errors = process.communicate(PATIENCE)
    return process.returncode, printed, errors


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


SIZES = [
    *(
        f"{name}={value}"
        for name in ("channels", "blocks", "heads", "head_channels", "multipliers")
        for value in (0, -1)
    ),
    *("multipliers=0,1", "multipliers=", "dropout=-1", "dropout=2", "attention=-1", "attention=0"),
    *("train_images=0", "draws=-1", "steps=1e30", "seed=-1", "lr=nan", "lr=inf", "batch=", "clip=word"),
    *(f"{name}=" + "9" * 30 for name in ("channels", "batch", "steps", "seed", "budgets", "set_images")),
]


@pytest.mark.parametrize("setting", SIZES)
def test_a_number_that_cannot_be_is_a_sentence_that_names_the_setting(setting, place, capsys):
    from fmcore import cli

    with pytest.raises(SystemExit) as left:
        cli.main(
            ["train", "digits", *[one for one in TINY if one.partition("=")[0] != setting.partition("=")[0]], setting]
        )
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert len(said.strip().splitlines()) == 1
    assert setting.partition("=")[0].removesuffix("_channels") in said
    assert "this is a bug" not in said
    assert not [*place.iterdir()]


@pytest.mark.parametrize("seed", ["-1", "1e30", "x"])
def test_a_seed_that_cannot_be_is_refused(seed, place):
    status, _, said = fmcore("sample", "nowhere", "--seed", seed)
    assert status == 2
    assert "--seed" in said
    assert "Traceback" not in said
    assert not [*place.iterdir()]


@pytest.mark.parametrize(
    ("typed", "understood"),
    [
        ("train a --run-dir x steps=5", "train a steps=5 --run-dir x"),
        ("train a steps=5 --run-dir x lr=1", "train a steps=5 lr=1 --run-dir x"),
        ("train --resume a steps=5", "train a steps=5 --resume"),
        ("train --run_dir x --overwrite a b=1", "train a b=1 --run_dir x --overwrite"),
        ("train a --run-dir=x b=1 --steps 5 c=2", "train a b=1 c=2 --run-dir=x --steps 5"),
        ("sample r --seed -1 --pruned draws=2 --out a=b.png", "sample r draws=2 --seed -1 --pruned --out a=b.png"),
        ("train a -- --run-dir b=1", "train a -- --run-dir b=1"),
        ("train a --run-dir --resume", "train a --run-dir --resume"),
        ("--help", "--help"),
        ("train a lr=-1 --run-dir ~/x", "train a lr=-1 --run-dir HOME/x"),
        ("train a --run-dir=~/x data_dir=~", "train a data_dir=HOME --run-dir=HOME/x"),
        ("evaluate ~other/x a~/b --out=~x", "evaluate ~other/x a~/b --out=~x"),
    ],
)
def test_flags_stand_anywhere_and_a_tilde_is_the_home_folder(typed, understood, monkeypatch):
    monkeypatch.setenv("HOME", "HOME")
    monkeypatch.setenv("USERPROFILE", "HOME")
    assert ordered(typed.split()) == understood.split()


def test_every_flag_that_takes_no_value_is_known():
    from fmcore.console.arguments import ALONE

    found = set()
    for command in ("train", "evaluate", "measure", "sample", "export", "table", "list", "doctor"):
        _, printed, _ = fmcore(command, "--help", COLUMNS="200")
        for line in printed.splitlines():
            words = line.replace("│", " ").split()
            if words and words[0].startswith("--") and (len(words) == 1 or not words[1].isupper()):
                found.add(words[0].strip(","))
    assert found - ALONE == set()
    assert {"--resume", "--overwrite", "--pruned"} <= found


def test_a_run_goes_to_the_home_folder_with_settings_after_flags(place):
    home = place / "home"
    status, _, said = fmcore("train", "digits", *TINY, "--run-dir=~/runs/x", "lr=1e-2", HOME=str(home))
    assert status == 0, said
    assert '"lr": 0.01' in (home / "runs" / "x" / "config.json").read_text()
    status, _, said = fmcore("sample", "~/runs/x", "--n", "1", "--out=~/x.png", "rtol=0.1", HOME=str(home))
    assert status == 0, said
    assert (home / "x.png").exists()
    assert [path.name for path in place.iterdir()] == ["home"]


@pytest.mark.parametrize(
    ("typed", "meant"), [("stepz", "steps"), ("Lr", "lr"), ("run_batch", "batch"), ("seeds", "seed")]
)
def test_an_unknown_setting_names_near_ones(typed, meant):
    from fmcore.experiments.config.overrides import with_overrides
    from fmcore.papers import catalog

    with pytest.raises(ValueError, match=rf"unknown field '{typed}': choose one of .* Did you mean .*\b{meant}\b"):
        with_overrides(catalog.by_name("digits"), [f"{typed}=3"])


COMMANDS = [["list"], ["table", "lipman2023"], ["--help"]]  # a list, a wide table, and what the parser prints
CLOSED = {
    "stderr": "import os, sys; os.close(2); sys.stderr = None",
    "stdout": "import os, sys; os.close(1); sys.stdout = None",
    "both": "import os, sys; os.close(1); os.close(2); sys.stdout = sys.stderr = None",
}
FULL = "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), {number})"
NOBODY = "import os; read, write = os.pipe(); os.close(read); os.dup2(write, {number})"


@pytest.mark.parametrize(
    ("closed", "arguments", "status"),
    [
        ("stderr", ["list"], 0),
        ("stderr", ["list", "nothing"], 2),
        ("stdout", ["list"], 0),
        ("stdout", ["train", "x"], 2),
        ("both", ["list", "nothing"], 2),
    ],
)
def test_closed_output_changes_neither_the_status_nor_a_file(closed, arguments, status, place):
    found, printed, said = redirected(CLOSED[closed], *arguments)
    assert found == status
    assert "Traceback" not in printed + said
    if closed == "stderr":
        assert "error" not in printed  # which Python's print would send there
    if closed == "stdout" and status:
        assert said.startswith("error: ")
    assert not [*place.iterdir()]


def test_a_training_without_stderr_writes_the_same_files(place):
    for name, code in (("a", "pass"), ("b", CLOSED["stderr"])):
        status, _, _ = redirected(code, "train", "digits", *TINY, "--run-dir", name)
        assert status == 0
    for file in ("weights.safetensors", "losses.csv", "config.json"):
        assert (place / "a" / file).read_bytes() == (place / "b" / file).read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_full_disk_under_stdout_is_a_sentence(arguments):
    status, _, said = redirected(FULL.format(number=1), *arguments)
    assert status == 2
    assert said.startswith("error: no space left on device: make room where the output or the files go")
    assert len(said.strip().splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_under_stderr_leaves_the_status():
    assert redirected(FULL.format(number=2), "list", "nothing")[0] == 2


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_who_reads_only_the_first_line_hears_nothing(arguments):
    status, _, said = redirected(NOBODY.format(number=1), *arguments)
    assert (status, said) == (1, "")


BUG = """
import sys
from fmcore.papers import printing
def broken(*_):
    raise {kind}
printing.show_experiments = broken
"""


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [
        ("KeyError('training')", 70, "error: this is a bug in fmcore: KeyError: 'training' ("),
        ("RuntimeError('two\\nlines')", 70, "RuntimeError: two lines ("),
        ("ModuleNotFoundError('No module named x')", 2, "error: No module named x: fmcore doctor says what is missing"),
        ("ValueError", 2, "error: ValueError without a reason"),
        ("MemoryError", 2, "error: memory ran out"),
    ],
)
def test_an_error_that_nobody_foresaw_is_one_line(kind, status, words):
    found, _, said = redirected(BUG.format(kind=kind), "list")
    assert found == status
    assert words in said
    assert len(said.strip().splitlines()) == 1
    if status == 70:
        assert "FMCORE_TRACEBACK=1" in said
        assert "fmcore/cli" in said


def test_whoever_asks_for_the_trace_gets_it():
    status, _, said = redirected(BUG.format(kind="KeyError('training')"), "list", FMCORE_TRACEBACK="1")
    assert status == 1
    assert "Traceback (most recent call last)" in said
    assert said.strip().endswith("KeyError: 'training'")
