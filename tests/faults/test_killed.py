"""kill -9 at any moment, then resume: the same weights as without, for one process and for two."""

import os
import random
import signal
from pathlib import Path

import pytest
import torch

from fmcore.checkpoints import load_checkpoint
from tests.distributed.launch import PATIENCE, torchrun, unattended

pytestmark = pytest.mark.xdist_group(__name__)

SCRIPT = Path(__file__).with_name("training_process.py")
STEPS, SAVED_EVERY = 30, 3


def finish(processes, checkpoint, *arguments):
    """Run to the end; returns how many steps it took, and all that was printed."""
    output = ""
    for process in unattended(processes, SCRIPT, checkpoint, *arguments):
        with process:
            printed, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, printed
        output += printed
    calls = [line for line in output.splitlines() if line.startswith("process 0 ")]
    return len(calls) // (2 // processes), output  # one process takes two micro-batches per step


def until(process, moment, processes=1):
    """Read on until process 0 is at this step; returns the process ids."""
    found, steps = {}, 0
    while steps < moment or len(found) < processes:
        word, rank, pid = process.stdout.readline().split()
        assert word == "process"
        found[int(rank)] = int(pid)
        steps += (rank == "0") / (2 // processes)
    return found


def flattened(content, name=""):
    if isinstance(content, dict):
        return {key: value for part in content for key, value in flattened(content[part], f"{name}/{part}").items()}
    if isinstance(content, list):
        return flattened(dict(enumerate(content)), name)
    return {name: content}


def assert_same_bits(whole, checkpoint, story):
    """Weights, averages, Adam's moments, losses: everything but the time it took."""
    whole, resumed = flattened(whole), flattened(load_checkpoint(checkpoint))
    assert whole.keys() == resumed.keys()
    different = [
        name
        for name, value in whole.items()
        if name != "/seconds"
        and not (torch.equal(value, resumed[name]) if torch.is_tensor(value) else value == resumed[name])
    ]
    assert different == [], story
    assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]


def assert_resumes(processes, checkpoint, whole, moment):
    story = f"{processes} processes, killed at step {moment}"
    steps, output = finish(processes, checkpoint, "--resume")
    print(f"{story}, {STEPS - steps} steps kept")
    assert steps >= STEPS - moment, story
    if moment > SAVED_EVERY + 1:
        assert steps < STEPS, f"{story}: it started again from the beginning"
    assert "instead of" not in output
    assert_same_bits(whole, checkpoint, story)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    found = {}
    for processes in (1, 2):
        checkpoint = tmp_path_factory.mktemp("whole") / "run.pt"
        assert finish(processes, checkpoint)[0] == STEPS
        found[processes] = load_checkpoint(checkpoint)
    return found


# A new moment on every run of the tests; the message of a failure says which it was.
def test_a_killed_run_resumes_to_identical_weights(tmp_path, uninterrupted):
    checkpoint = tmp_path / "run.pt"
    moment = random.randint(1, STEPS - 1)
    (process,) = unattended(1, SCRIPT, checkpoint, "--slowly")
    with process:
        until(process, moment)
        process.kill()
    assert process.returncode == -9
    assert_resumes(1, checkpoint, uninterrupted[1], moment)


def test_two_processes_killed_together_resume_to_identical_weights(tmp_path, uninterrupted):
    checkpoint = tmp_path / "run.pt"
    moment = random.randint(1, STEPS - 1)
    with torchrun(2, SCRIPT, checkpoint, "--slowly") as process:
        for pid in until(process, moment, 2).values():
            os.kill(pid, signal.SIGKILL)
        output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0, output
    assert "SIGKILL" in output
    assert_resumes(2, checkpoint, uninterrupted[2], moment)


@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_of_two_is_killed_the_other_says_so_and_both_resume(tmp_path, uninterrupted, victim):
    """Nobody looks after the processes here: the survivor has to notice by itself."""
    checkpoint = tmp_path / "run.pt"
    moment = random.randint(SAVED_EVERY + 2, STEPS - 1)
    both = unattended(2, SCRIPT, checkpoint, "--slowly")
    killed, survivor = both[victim], both[1 - victim]
    with killed, survivor:
        for _ in range(moment):
            killed.stdout.readline()
        killed.kill()
        output, _ = survivor.communicate(timeout=PATIENCE)
    assert survivor.returncode == 1, output
    assert "stopped: another training process is gone (killed, out of memory" in output
    assert "resume" in output
    kept = len(load_checkpoint(checkpoint)["losses"])
    assert 0 < kept <= moment
    assert kept % SAVED_EVERY == 0
    if victim == 0:  # with the other, the rest of the test is the same
        assert_resumes(2, checkpoint, uninterrupted[2], moment)
    else:
        assert_goes_on_alone(checkpoint, uninterrupted, kept)


def assert_goes_on_alone(checkpoint, uninterrupted, kept):
    """One process takes over from two, says so, and ends where they would have: noise and dropout are the same."""
    _, output = finish(1, checkpoint, "--resume")
    assert f"UserWarning: resumed at step {kept} with 1 process instead of 2" in output
    state = load_checkpoint(checkpoint)
    assert len(state["notes"]) == 1
    assert f"resumed at step {kept} with 1 process instead of 2" in state["notes"][0]
    for processes in (1, 2):
        for name, value in uninterrupted[processes]["model"].items():
            torch.testing.assert_close(state["model"][name], value, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(state["losses"], uninterrupted[processes]["losses"], rtol=1e-4, atol=1e-5)
