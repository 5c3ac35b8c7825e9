"""Start training processes the way users do, and without anyone to look after them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 240  # seconds after which a test calls a process hung; far more than a busy machine needs


def environment(**extra):
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COV_")}
    return {**inherited, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **extra}


def torchrun(processes, script, *arguments):
    """All processes under torchrun, which ends all of them when one fails."""
    return subprocess.Popen(
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
    return [
        subprocess.Popen(
            [sys.executable, str(script), *map(str, arguments)],
            env=environment(RANK=str(rank), WORLD_SIZE=str(processes), MASTER_ADDR="localhost", MASTER_PORT=str(port)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]
