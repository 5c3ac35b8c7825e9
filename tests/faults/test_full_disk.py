"""A disk that fills up while a checkpoint is written."""

import errno
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from fmcore.atomic import write_file
from fmcore.checkpoints import load_checkpoint, save_checkpoint
from fmcore.training import TrainingConfig, train
from tests.forked import python

CONFIG = TrainingConfig(steps=10, batch=4, checkpoint_every=5)


def training(checkpoint, resume=False):
    data = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = nn.Linear(3, 3)
    return train(model, lambda m, x, _: (m(x) - x).square().mean(), data, CONFIG, checkpoint, resume, progress=False)


def test_the_second_checkpoint_fails_and_the_first_can_be_resumed(tmp_path, monkeypatch):
    whole = training(tmp_path / "whole.pt")
    synced, fsync = [], os.fsync

    def full(descriptor):
        synced.append(descriptor)
        if len(synced) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match="cannot write .*run.pt: No space left on device .the version before it is intact"
    ) as found:
        training(tmp_path / "run.pt")
    assert found.value.errno == errno.ENOSPC
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.pt", "whole.pt"]
    assert len(load_checkpoint(tmp_path / "run.pt")["losses"]) == 5
    monkeypatch.undo()
    resumed = training(tmp_path / "run.pt", resume=True)
    assert torch.equal(resumed.model.weight, whole.model.weight)


FILE_SIZE_LIMIT = """
import resource, signal, sys
from pathlib import Path
import torch
from fmcore.checkpoints import save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    save_checkpoint({"a": torch.zeros(100_000)}, Path(sys.argv[1]))
except OSError as error:
    print(error)
"""


@pytest.mark.xdist_group(__name__)
@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX limit on the size of files")
def test_the_operating_system_refuses_the_write(tmp_path):
    path = tmp_path / "run.pt"
    save_checkpoint({"a": torch.ones(3)}, path)
    with python(["-c", FILE_SIZE_LIMIT, path], os.environ) as process:
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0, printed
    assert "File too large (the version before it is intact)" in printed
    assert os.listdir(tmp_path) == ["run.pt"]
    assert torch.equal(torch.load(path, weights_only=True)["a"], torch.ones(3))


def test_a_real_file_system_runs_full(tmp_path):
    mounted = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)], capture_output=True, check=False
        )
        if sys.platform == "linux" and os.geteuid() == 0
        else None
    )
    if mounted is None or mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root on Linux")
    try:
        path = tmp_path / "run.pt"
        with pytest.raises(OSError, match="No space left on device .nothing was saved"):
            write_file(path, bytes(1_000_000))
        assert os.listdir(tmp_path) == []
        write_file(path, b"first")
        with pytest.raises(OSError, match="No space left on device .the version before it is intact"):
            write_file(path, bytes(1_000_000))
        assert path.read_bytes() == b"first"
        assert os.listdir(tmp_path) == ["run.pt"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(OSError, match="cannot write .*No such file or directory .nothing was saved"):
        write_file(tmp_path / "missing" / "run.pt", b"")
