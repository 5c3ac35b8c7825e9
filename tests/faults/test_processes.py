"""Processes that cannot meet: each says at once what is wrong, or for whom it waits."""

import os
import signal
import socket

import pytest

from tests.faults.test_command_line import PATIENCE, TINY, environment
from tests.forked import python

pytestmark = pytest.mark.xdist_group(__name__)

MEETING = """
from datetime import timedelta
import sys, torch
from fmcore import distributed
from fmcore.console import ending
from fmcore.distributed import meeting
meeting.TIMEOUT, meeting.SILENCE = timedelta(seconds={seconds}), 0.05
def meet():
    with distributed.session(torch.device("cpu")):
        print("met")
sys.exit(ending.status_of(meet, lambda error: None))
"""
TWO = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


def start(seconds=1, **variables):
    code = MEETING.format(seconds=seconds)
    return python(["-c", code], environment(**variables), separate_errors=True)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"WORLD_SIZE": "x"}, "WORLD_SIZE=x in the environment: it is a whole number of at least 1"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0 in the environment"),
        ({"WORLD_SIZE": "-2"}, "WORLD_SIZE=-2 in the environment"),
        ({"RANK": "1"}, "RANK=1 is set and WORLD_SIZE is not"),
        (TWO | {"RANK": "7"}, "RANK=7 with WORLD_SIZE=2: processes have numbers from 0 to 1"),
        (TWO | {"RANK": "x"}, "RANK=x in the environment"),
        (TWO | {"MASTER_PORT": "x"}, "MASTER_PORT=x in the environment"),
        (TWO | {"MASTER_PORT": "65536"}, "MASTER_PORT=65536: a port is a number from 1 to 65535"),
        (TWO | {"MASTER_ADDR": "nowhere.invalid"}, "MASTER_ADDR=nowhere.invalid: there is no machine of this name"),
        (TWO | {"MASTER_ADDR": "a" * 70}, "there is no machine of this name"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "WORLD_SIZE is set but MASTER_ADDR, MASTER_PORT is not"),
    ],
)
def test_a_wrong_environment_is_a_sentence(variables, words):
    with start(**variables) as process:
        printed, said = process.communicate(PATIENCE)
    assert process.returncode == 2
    assert printed == ""
    assert words in said.splitlines()[-1]
    assert "Traceback" not in said


def test_processes_of_two_experiments_do_not_train_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    meet = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = [
        python(
            ["-m", "fmcore", "train", "digits", *TINY, "--run-dir", "run", setting],
            environment(**meet, RANK=str(rank)),
            separate_errors=True,
        )
        for rank, setting in enumerate(["path=rectified", "path=ot"])
    ]
    with started[0], started[1]:
        said = [process.communicate(PATIENCE)[1] for process in started]
    assert [process.returncode for process in started] == [2, 2], said
    expected = "process 0 was started with the experiment path=rectified, process 1 with the experiment path=ot: start"
    assert all(expected in words for words in said), said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_who_waits_says_for_whom_and_gives_up_with_a_sentence(rank):
    other = {0: "the 1 other", 1: "process 0"}[rank]
    port = str(free_port())
    with start(**TWO | {"RANK": str(rank), "MASTER_PORT": port}) as process:
        _, said = process.communicate(PATIENCE)
    assert process.returncode == 2, said
    assert f"process {rank} of 2 waits for {other} at 127.0.0.1, port {port} ..." in said
    assert f"error: process {rank} of 2 did not meet {other} at 127.0.0.1, port {port} within 1 seconds" in said
    assert "Traceback" not in said


def test_a_taken_port_is_a_sentence():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with start(**TWO | {"RANK": "0", "MASTER_PORT": port}) as process:
            _, said = process.communicate(PATIENCE)
    assert process.returncode == 2, said
    assert f"error: MASTER_PORT={port} is taken by another program" in said.splitlines()[-1]


def test_who_waits_can_be_stopped():
    with start(seconds=100, **TWO | {"MASTER_PORT": str(free_port())}) as process:
        assert "waits for process 0" in process.stderr.readline()
        os.kill(process.pid, signal.SIGTERM)
        _, said = process.communicate(PATIENCE)
    assert process.returncode == 143
    assert "process 1 stopped (SIGTERM)" in said


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]
