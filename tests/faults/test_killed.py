"""kill -9 at any moment, then resume: the same weights as without."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fmcore.checkpoints import load_checkpoint

SCRIPT = Path(__file__).with_name("training_process.py")


def start(checkpoint, *arguments):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(checkpoint), *arguments], stdout=subprocess.PIPE, text=True
    )


def finish(checkpoint, *arguments):
    with start(checkpoint, *arguments) as process:
        steps = len(process.stdout.readlines())
    assert process.returncode == 0
    return steps


def flattened(content, name=""):
    if isinstance(content, dict):
        return {key: value for part in content for key, value in flattened(content[part], f"{name}/{part}").items()}
    if isinstance(content, list):
        return flattened(dict(enumerate(content)), name)
    return {name: content}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    checkpoint = tmp_path_factory.mktemp("whole") / "run.pt"
    assert finish(checkpoint) == 30
    return load_checkpoint(checkpoint)


# A new moment on every run of the tests; the message of a failure says which it was.
@pytest.mark.parametrize("attempt", [1, 2])
def test_a_killed_run_resumes_to_identical_weights(tmp_path, uninterrupted, attempt):
    checkpoint = tmp_path / "run.pt"
    moment = random.randint(1, 29)
    with start(checkpoint) as process:
        for _ in range(moment):
            process.stdout.readline()
        process.kill()
    assert process.returncode == -9
    steps = finish(checkpoint, "--resume")
    assert steps >= 30 - moment, f"killed at step {moment}"
    if moment > 4:
        assert steps < 30, f"killed at step {moment}: it started again from the beginning"

    whole, resumed = flattened(uninterrupted), flattened(load_checkpoint(checkpoint))
    assert whole.keys() == resumed.keys()
    different = [
        name
        for name, value in whole.items()
        if name != "/seconds"
        and not (torch.equal(value, resumed[name]) if torch.is_tensor(value) else value == resumed[name])
    ]
    assert different == [], f"killed at step {moment}"
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]
