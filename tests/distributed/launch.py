"""Start training processes the way users do, and without anyone to look after them."""

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

from torch.distributed import TCPStore

from tests.forked import python

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 240  # seconds after which a test calls a process hung; far more than a busy machine needs


def environment(**extra):
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COV_")}
    return {**inherited, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **extra}


class Torchrun(subprocess.Popen):
    """Torchrun ends its processes when it is told to end, as by a test that waited in vain."""

    def __exit__(self, kind, *rest):
        if kind is not None:
            self.terminate()
        super().__exit__(kind, *rest)


def torchrun(processes, script, *arguments):
    """All processes under torchrun, which ends all of them when one fails."""
    return Torchrun(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"),
            *(str(script), *map(str, arguments)),
        ],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def unattended(processes, script, *arguments):
    """Each process on its own: when one dies, nobody stops the others."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    return forked(processes, script, arguments, MASTER_PORT=str(port))


@contextlib.contextmanager
def as_under_torchrun(processes, script, *arguments):
    """Each process on its own, in the environment that torchrun makes, with a store that outlives their sessions."""
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    meeting = {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_PORT": str(store.port)}
    with contextlib.ExitStack() as ending:  # all of them, where one failed or did not end
        yield [ending.enter_context(process) for process in forked(processes, script, arguments, **meeting)]
    del store


def forked(processes, script, arguments, **meeting):
    return [
        python(
            [script, *arguments],
            environment(RANK=str(rank), WORLD_SIZE=str(processes), MASTER_ADDR="localhost", **meeting),
        )
        for rank in range(processes)
    ]
