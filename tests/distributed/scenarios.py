"""What several processes do in one start: torchrun ... scenarios.py FOLDER. Each leaves what it found in the folder."""

import contextlib
import errno
import io
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch.utils.data import TensorDataset

from fmcore import distributed
from fmcore.locks import locked
from fmcore.training import TrainingConfig, train
from fmcore.training.minutes import StepsForMinutes
from tests.distributed.tasks import (
    CONFIG,
    DATA,
    INPUTS,
    TARGETS,
    linear,
    network,
    pairs,
    regression_loss,
    velocity_loss,
)

FOLDER = Path(sys.argv[1])
RANK = int(os.environ["RANK"])
found = {}


def training(name=None, config=CONFIG, loss=velocity_loss, prepare=pairs, seed=0, **settings):
    checkpoint = None if name is None else FOLDER / f"{name}.pt"
    return train(network(seed), loss, DATA, config, checkpoint, progress=False, prepare=prepare, **settings)


def noted(name, act):
    """Keep what an act raised, and whether it left anything behind."""
    try:
        act()
    except (Exception, KeyboardInterrupt) as error:
        found[name] = (type(error).__name__, str(error))
    assert not dist.is_initialized(), name
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")], name


def gradient():
    config = TrainingConfig(steps=1, batch=7, clip=1e9, warmup=0, accumulate=3)
    train(linear(), regression_loss, TensorDataset(INPUTS, TARGETS), config, FOLDER / "linear.pt", progress=False)


def order():
    seen = []

    def loss(model, batch, generator):
        seen.append(batch.flatten().tolist())
        return (model.weight * batch[:, None]).square().mean()

    rows = torch.arange(30.0)
    train(torch.nn.Linear(1, 1, bias=False), loss, rows, CONFIG, progress=False)
    found["rows"] = seen


def counted(fault):
    """The loss, with a fault in the call that has this number in this process."""
    calls = 0

    def loss(model, batch, generator):
        nonlocal calls
        calls += 1
        return fault(calls, velocity_loss(model, batch, generator))

    return loss


def nan_in_the_last_process(call, value):
    return value * (float("nan") if (RANK, call) == (dist.get_world_size() - 1, 8) else 1)


def error_in_process_1(call, value):
    if (RANK, call) == (1, 8):
        raise ValueError("this image is torn")
    return value


def interrupt_in_process_1(call, value):
    if (RANK, call) == (1, 8):
        raise KeyboardInterrupt
    return value


def error_outside_of_training():
    """Process 1 fails before it trains; process 0 waits for it in the training loop."""
    with distributed.session(torch.device("cpu")):
        if RANK == 1:
            raise ValueError("no images here")
        training()


def full_disk():
    synced, fsync = [], os.fsync

    def full(descriptor):
        synced.append(descriptor)
        if len(synced) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    os.fsync = full
    try:
        training("full_disk")
    finally:
        os.fsync = fsync


def shown():
    with contextlib.redirect_stderr(io.StringIO()) as shown:
        train(network(), velocity_loss, DATA, CONFIG, progress=True, prepare=pairs)
    found["bar"] = shown.getvalue()


def resumed():
    """Stop by an error after a checkpoint, and go on."""
    with contextlib.suppress(ZeroDivisionError):
        training("resumed", loss=counted(lambda call, value: value if call <= 7 else 1 / 0))
    training("resumed", resume=True)


def lock():
    """Process 0 holds a folder for all, also a second time; one that process 1 holds is refused in each."""
    folder, other = FOLDER / "run", FOLDER / "other" / "run"
    with distributed.session(torch.device("cpu")):
        with distributed.in_first(locked(folder)), distributed.in_first(locked(folder)):
            found["held"] = (FOLDER / ".run.lock").read_text().split()[:2], distributed.first(os.getpid)
            dist.barrier()  # until all have read it
        with locked(other) if RANK == 1 else contextlib.nullcontext():
            dist.barrier()  # until it is held
            with distributed.in_first(locked(other)):
                raise AssertionError("held twice")


def minutes():
    """Every process would set a number of steps of its own."""
    counted, StepsForMinutes.number = StepsForMinutes.number, lambda self: 9 + RANK
    try:
        trained = training(config=replace(CONFIG, warmup=4, minutes=1.0))
    finally:
        StepsForMinutes.number = counted
    found["minutes"] = trained.config.steps, len(trained.losses)


def main():
    torch.set_num_threads(1)
    whole = training("whole", seed=RANK)  # the weights of process 0 count
    found["whole"] = whole.model.state_dict()
    found["summary"] = (whole.processes, whole.images_per_second > 0, whole.notes, whole.losses)
    found["blocks"] = training(config=replace(CONFIG, coupling_batch=5, accumulate=3), ahead=3).model.state_dict()
    gradient()
    order()
    shown()
    resumed()
    minutes()
    if dist.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 2:
        return
    noted("nan", lambda: training("nan", loss=counted(nan_in_the_last_process)))
    noted("full_disk", full_disk)
    noted("unlike", lambda: training(config=replace(CONFIG, seed=RANK)))
    noted("small", lambda: training(config=replace(CONFIG, batch=1)))
    noted("again", lambda: training("whole"))
    noted("error", lambda: training("error", loss=counted(error_in_process_1)))
    noted("interrupt", lambda: training(loss=counted(interrupt_in_process_1)))
    noted("outside", error_outside_of_training)
    noted("lock", lock)
    with distributed.session(torch.device("cpu")):  # a group that is there already is used, and kept
        training("kept")
        found["alone"] = distributed.first(lambda: training().processes)
        found["kept"] = dist.is_initialized()


if __name__ == "__main__":
    main()
    torch.save(found, FOLDER / f"found_{RANK}.pt")
