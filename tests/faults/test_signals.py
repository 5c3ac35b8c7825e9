"""Ctrl-C and SIGTERM at every stage: what is said of what was kept is true, and the exit status is theirs."""

import signal
import time

import pytest

from fmcore.experiments import kept
from fmcore.experiments.run import folder
from tests.distributed.launch import forked
from tests.faults.test_command_line import PATIENCE, TINY, environment
from tests.forked import python

pytestmark = pytest.mark.xdist_group(__name__)

# At a stage, named by a function that begins it, the process says so and waits.
WAITING = """
import os, sys, time
from importlib import import_module
from pathlib import Path
module, name, *arguments = sys.argv[1:]
def wait(*_, **__):
    Path("reached" + os.environ.get("RANK", "0")).touch()
    for _ in range(1000):
        time.sleep(0.1)  # not once for long: a signal just before that would be heard at its end
setattr(import_module(module), name, wait)
from fmcore.cli import main
main(arguments)
"""
RUN, EVALUATION = "fmcore.experiments.run.train", "fmcore.experiments.evaluate.evaluation"
TRAIN = ["train", "digits", *TINY, "--run-dir", "run"]
BEGUN = "nothing was kept, since the training had not begun; run the same command again"
NO_CHECKPOINT = (
    "nothing was kept but the settings in run, since there was no checkpoint yet; the same command with --resume"
)
CHECKPOINT = "the checkpoint of step 2 is kept in run; go on with the same command and --resume"
NOT_EVALUATED = "nothing of this evaluation was kept, and run/record.json is as it was; go on with: fmcore evaluate run"
STAGES = {
    "loading": (RUN, "load_data", TRAIN, BEGUN),
    "before a checkpoint": (RUN, "batch_loss", TRAIN, NO_CHECKPOINT),
    "after a checkpoint": (RUN, "keep_weights", TRAIN, CHECKPOINT),
    "evaluating after training": (EVALUATION, "samples", TRAIN, NOT_EVALUATED),
    "measuring": (
        "fmcore.experiments.records",
        "check_folder",
        ["measure", "bertrand2025/two_moons/collapse"],
        "nothing was kept; run the same command again",
    ),
    "printing": (
        "fmcore.papers.printing",
        "show_experiments",
        ["list"],
        "nothing was kept; run the same command again",
    ),
}
LATER = {
    "evaluating": (EVALUATION, "samples", ["evaluate", "run", "rtol=0.1"], f"{NOT_EVALUATED} rtol=0.1"),
    "sampling": ("fmcore.experiments.run.finished", "solve", ["sample", "run"], "no picture was written; run the same"),
    "before overwriting": (
        RUN,
        "load_data",
        [*TRAIN, "--overwrite"],
        "the run in run is as it was",
    ),
    "after overwriting": (
        RUN,
        "batch_loss",
        [*TRAIN, "--overwrite"],
        f"{NO_CHECKPOINT} in place of --overwrite",
    ),
    "finished before": (
        RUN,
        "load_data",
        [*TRAIN, "--resume"],
        "the training is finished, and kept in run; go on",
    ),
}


def reached(place, rank=0):
    deadline = time.monotonic() + PATIENCE
    while not (place / f"reached{rank}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def stopped(place, stage, number):
    """Start, send a signal at the stage; returns the exit status and what was said."""
    import os

    module, name, arguments, _ = stage
    with python(["-c", WAITING, module, name, *arguments], environment(), separate_errors=True) as process:
        reached(place)
        os.kill(process.pid, number)
        _, said = process.communicate(PATIENCE)
    (place / "reached0").unlink()
    return process.returncode, said


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("name", STAGES)
def test_a_command_that_is_stopped_says_what_was_kept(name, number, place):
    status, said = stopped(place, STAGES[name], number)
    assert status == 128 + number, said
    last = said.strip().splitlines()[-1]
    by = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}[number]
    assert last.startswith(f"stopped ({by}): {STAGES[name][3]}")
    assert "Traceback" not in said
    if STAGES[name][3] is BEGUN:
        assert not [*place.iterdir()]


def test_of_a_run_that_is_there_it_says_what_has_become_of_it(place):
    with python(["-m", "fmcore", *TRAIN], environment(), separate_errors=True) as process:
        _, said = process.communicate(PATIENCE)
    assert process.returncode == 0, said
    record = (place / "run" / "record.json").read_bytes()
    for name in ("evaluating", "sampling", "finished before", "before overwriting", "after overwriting"):
        status, said = stopped(place, LATER[name], signal.SIGTERM)
        assert status == 143, said
        assert said.strip().splitlines()[-1].startswith(f"stopped (SIGTERM): {LATER[name][3]}"), name
        if name != "after overwriting":
            assert (place / "run" / "record.json").read_bytes() == record
            assert not (place / "samples.png").exists()


def test_what_it_says_of_a_checkpoint_leads_to_the_same_weights(place):
    """Stopped after the training's last checkpoint, and gone on with as it says."""
    _, said = stopped(place, STAGES["after a checkpoint"], signal.SIGTERM)
    assert said.strip().endswith("--resume")
    for arguments in ([*TRAIN, "--resume"], ["train", "digits", *TINY, "--run-dir", "whole"]):
        with python(["-m", "fmcore", *arguments], environment(), separate_errors=True) as process:
            _, said = process.communicate(PATIENCE)
        assert process.returncode == 0, said
    runs = [(place / name / "losses.csv").read_bytes() for name in ("run", "whole")]
    assert runs[0] == runs[1]


def test_the_files_looked_at_are_those_of_a_run():
    names = ("CONFIG", "CHECKPOINT", "WEIGHTS", "RECORD")
    assert [getattr(kept, name) for name in names] == [getattr(folder, name) for name in names]


def test_two_processes_that_are_told_to_stop_both_do_and_one_says_what_was_kept(place):
    """The second waits for the first outside Python, where no signal is heard until the first has left."""
    import os

    script = place / "script.py"
    script.write_text(WAITING)
    with_port = free_port()
    both = forked(2, script, [RUN, "keep_weights", *TRAIN], MASTER_PORT=with_port)
    with both[0], both[1]:
        reached(place)
        for process in both:
            os.kill(process.pid, signal.SIGTERM)
        said = [process.communicate(PATIENCE)[0] for process in both]
    assert [process.returncode for process in both] == [143, 143], said
    assert said[0].strip().endswith(f"stopped (SIGTERM): {CHECKPOINT}")
    assert said[1].strip().endswith("process 1 stopped (SIGTERM)")
    assert "Traceback" not in said[0] + said[1]


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return str(probe.getsockname()[1])


LATE = """
import os, signal, time
from fmcore.console import stopping
stopping.OCCASION = 0.05
def loop():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(100)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)  # of the same occasion
        time.sleep(0.1)
        print("tidied", flush=True)
        os.kill(os.getpid(), {number})
        print("hung", flush=True)
with stopping.stoppable():
    loop()
"""


def test_a_second_signal_waits_for_the_tidying_and_a_late_one_does_not():
    with python(["-c", LATE.format(number="signal.SIGTERM")], environment(), separate_errors=True) as process:
        printed, said = process.communicate(PATIENCE)
    assert (printed, said) == ("tidied\n", "")
    assert process.returncode == 143


def test_signals_do_afterwards_what_they_did_before():
    from fmcore.console.stopping import stoppable

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"), stoppable():
        signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


SWALLOWED = """
import sys
from fmcore.console import ending, stopping
def loading():
    try:
        import os, signal, time
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    except BaseException:
        raise RecursionError("half of a module is loaded") from None
def within():
    with stopping.saying(lambda: "the first half is kept"):
        loading()
sys.exit(ending.status_of(within if sys.argv[1:] else loading, lambda error: None))
"""


@pytest.mark.parametrize(
    ("arguments", "kept"), [([], "nothing was kept; run the same command again"), (["x"], "the first half is kept")]
)
def test_what_fails_because_it_was_stopped_is_a_stop(arguments, kept):
    """An import that is interrupted swallows that, and fails with something of its own."""
    with python(["-c", SWALLOWED, *arguments], environment(), separate_errors=True) as process:
        _, said = process.communicate(PATIENCE)
    assert said.strip() == f"stopped (Ctrl-C): {kept}"
    assert process.returncode == 130
