"""Several processes that train one model: which of them this is, and what all of them must know.

``torchrun --nproc_per_node=N ...`` starts N processes and tells each of them its place through environment variables.
They meet in a `session`: over NCCL for tensors on GPUs, over gloo for everything else. With a single process nothing
here does anything, so that the code which calls it reads the same for one process and for many.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fmcore.distributed import meeting

Result = TypeVar("Result")

# Every session meets under a name of its own: torchrun's store outlives a session, and with it the old addresses.
SESSIONS = itertools.count()
# What `first` calls runs in one process while the others wait: it must not wait for them in turn.
ALONE: ContextVar[bool] = ContextVar("alone", default=False)
INSIDE: ContextVar[bool] = ContextVar("inside", default=False)


class ProcessLost(ConnectionError):
    """Another process of the same training ended before its time."""


def joined() -> bool:
    """Whether this process has met others, and they do now what it does."""
    return dist.is_available() and dist.is_initialized() and not ALONE.get()


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if joined() else 1


def rank() -> int:
    """The number of this process, from 0. The one that writes files and shows progress is 0."""
    return dist.get_rank() if joined() else 0


def local_device() -> torch.device:
    """The device of this process: under torchrun each gets a GPU of its own; the CPU where there are none.

    Raises:
        ValueError: if LOCAL_RANK names a GPU that is not there.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    number = meeting.number_of("LOCAL_RANK", 0)
    if number >= torch.cuda.device_count():
        raise ValueError(
            f"LOCAL_RANK={number}, and there are {torch.cuda.device_count()} GPUs here: start at most as many "
            "processes on this machine"
        )
    return torch.device("cuda", number)


@contextmanager
def session(device: torch.device) -> Iterator[None]:
    """Meet the processes that torchrun started, and part at the end, whatever happens in between.

    Where there is a process group already, it is used and left as it is. A session within a session is the same one.
    An error in one process ends the session in all: the others raise it too, as soon as they wait for that process.

    Raises:
        ProcessLost: if another process failed, or was stopped or killed.
        ValueError: if the environment that tells each process its place has something wrong in it.
        ConnectionError: if the processes do not meet.
    """
    nested = ALONE.get() or INSIDE.get()
    if nested or (not joined() and meeting.described().count < 2):
        yield
        return
    number = next(SESSIONS)
    ours = not joined()
    if ours:
        meet(device, number)
    failed, token = True, INSIDE.set(True)
    try:
        yield
        failed = False
    except (Exception, KeyboardInterrupt) as error:
        lost = tell_or_ask(error, f"fmcore failure {number}")
        if lost is None:
            raise
        raise lost from error
    finally:
        INSIDE.reset(token)
        if ours and failed and device.type == "cuda":
            # destroying would wait for what is under way on the GPU, and that may never end
            dist.distributed_c10d._abort_process_group()
        elif ours:
            dist.destroy_process_group()


def meet(device: torch.device, number: int) -> None:
    """Start the process group that torchrun's environment describes.

    Its GPU becomes the current one of this process, also afterwards: under torchrun it has no other.

    Raises:
        ValueError: if the environment describes none.
        ConnectionError: if the processes do not meet.
    """
    place = meeting.described()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with meeting.waiting(place):
        store, rank, count = meeting.answered(lambda: next(dist.rendezvous("env://", timeout=meeting.TIMEOUT)))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=dist.PrefixStore(f"fmcore session {number}", store),
            rank=rank,
            world_size=count,
            timeout=meeting.TIMEOUT,
        )


def tell_or_ask(error: BaseException, key: str) -> ProcessLost | None:
    """Leave word of an error for the others; or, if it only says that one of them is gone, find out why.

    Words are left in the store through which the processes met, which needs no cooperation of anyone who is busy.
    """
    contact = isinstance(error, RuntimeError) and any(word in str(error).lower() for word in ("gloo", "nccl", "peer"))
    try:
        store = dist.distributed_c10d._get_default_store()
        if not contact:
            why = f": {type(error).__name__}: {error}" if isinstance(error, Exception) else f" by {error or 'Ctrl-C'}"
            store.set(key, f"process {rank()} of {processes()} stopped{why}")
            return None
        if store.check([key]):
            return ProcessLost(store.get(key).decode())
    except RuntimeError:  # the store went with the process that kept it
        if not contact:
            return None
    return ProcessLost(
        "another training process is gone (killed, out of memory, or its machine failed), or does not answer. The last "
        "checkpoint is intact: start all processes again and resume"
    )


@contextmanager
def data_parallel(module: nn.Module) -> Iterator[nn.Module]:
    """The module, such that each backward pass leaves the mean over all processes of the gradients.

    All processes get the weights of process 0. At the end the wrapper lets go of the process group: were it the last
    to hold it, ending the group could wait for ever, for a thread of gloo that waits for Python's lock.
    """
    if processes() == 1:
        yield module
        return
    together = DistributedDataParallel(module)
    try:
        yield together
    finally:
        del together.reducer, together.logger, together.process_group


def first(action: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function in process 0 alone. All processes return its result, or raise its error.

    For the function, process 0 is the only one: what it calls may train, or call `first` itself.
    """
    if processes() == 1:
        return action(*arguments)
    answer: list[Any] = [None, None]
    if rank() == 0:
        token = ALONE.set(True)
        try:
            answer[0] = action(*arguments)
        except Exception as error:
            answer[1] = portable(error)
        finally:
            ALONE.reset(token)
    dist.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]


@contextmanager
def in_first(context: AbstractContextManager[Any]) -> Iterator[None]:
    """Enter a context in process 0 alone, a lock of a folder for example; all processes raise its error."""
    with ExitStack() as stack:

        def enter() -> None:
            stack.enter_context(context)

        first(enter)
        yield


def portable(error: Exception) -> Exception:
    """The error, or its words if it cannot be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def check_equal(what: str, value: object) -> None:
    """Raise ValueError, in all processes, unless each of them has the same; of dictionaries it shows what differs."""
    found: list[Any] = [value] * processes()
    if joined():
        dist.all_gather_object(found, value)
    for place, other in enumerate(found):
        if other != found[0]:
            one, another = _differences(found[0], other)
            raise ValueError(
                f"process 0 was started with {what} {one}, process {place} with {what} {another}: start all alike"
            )


def _differences(one: Any, other: Any) -> tuple[Any, Any]:
    """Both, or if they are dictionaries what is not the same in them, as settings are typed."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return one, other
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    one, other = (" ".join(f"{name}={each.get(name)}" for name in names) for each in (one, other))
    return one, other


def total(x: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if processes() > 1:
        dist.all_reduce(x)
    return x
