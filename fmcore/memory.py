"""Memory: how much there is, how many samples fit into it, and what to do when it runs out."""

from __future__ import annotations

import os
import re
import sys
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Assumed where the system does not say how much there is.
UNKNOWN = 2**31
# The part of the free memory that a batch may take: what was measured is not all that convolutions use.
SHARE = 0.3
# Words by which libraries say that there is no memory; PyTorch raises a RuntimeError for the CPU.
NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "cannot allocate memory",
    "unable to allocate",
    "bad_alloc",
    "alloc_failed",
    "could not create a memory object",
)
# Settings that say how much is taken at once, and a value to try where the command names none.
SMALLER = {"batch": 32, "solver_batch": 100, "--n": 64, "accumulate": 8}
OF_COMMAND = {"train": "batch", "evaluate": "solver_batch", "sample": "solver_batch"}


def available(device: torch.device | str = "cpu") -> int:
    """Bytes that this process can still take on a device: of the machine, its container and its own limit the least."""
    device = torch.device(device)
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + kept)
    return max(0, min([*_of_machine(), *_of_containers(), *_of_process()], default=UNKNOWN))


def most_at_once(take: Callable[[int], object], count: int, device: torch.device | str = "cpu") -> int:
    """How many of `count` samples fit into the free memory, from 1 to `count`, for something that is linear in them.

    What one and two samples take is measured, so `take` is called twice, unless there is only one.

    Args:
        take: computes with so many samples.
        count: samples that there are.
        device: where it computes.
    """
    if count <= 1:
        return count
    one, two = peak(lambda: take(1)), peak(lambda: take(2))
    each = max(two - one, two // 4, 1)
    return max(1, min(count, int(SHARE * available(device)) // each))


def peak(compute: Callable[[], object]) -> int:
    """The most bytes that tensors made within a call held at one time, on any device; others' work is not seen."""
    with _Live() as live:
        compute()
    return live.most


class _Live(TorchDispatchMode):
    """Counts the bytes of the tensors that are made while it runs, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        before = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        for leaf in tree_leaves(found):
            if isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided:
                storage = leaf.untyped_storage()
                if storage not in self.known and id(storage) not in before:
                    self.known.add(storage)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._freed, storage.nbytes())
        self.most = max(self.most, self.now)
        return found

    def _freed(self, size: int) -> None:
        self.now -= size


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out: that of Python, of PyTorch for a device or the CPU, or the system."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    said = str(error).lower()
    return isinstance(error, (RuntimeError, OSError)) and any(words in said for words in NO_MEMORY)


def explained(error: BaseException, arguments: Sequence[str] = ()) -> str | None:
    """A sentence with a smaller setting for an error that says that memory ran out; None for any other error.

    Args:
        error: as it was caught; those that it was raised from are looked at too.
        arguments: of the command line, whose own settings are made half as large.
    """
    seen: BaseException | None = error
    while seen is not None and not ran_out(seen):
        seen = seen.__cause__
    if seen is None:
        return None
    wanted = re.search(r"allocate (?:memory: you tried to allocate )?([\d.]+ ?\w+)", str(seen))
    asked = f" ({wanted.group(1)} more were asked for)" if wanted else ""
    return f"memory ran out{asked}: take less at once, for example {_smaller(list(arguments))}"


def _smaller(arguments: list[str]) -> str:
    words = [word for argument in arguments for word in argument.split("=", 1)]
    for name in ("solver_batch", "batch", "--n"):
        if name in words[:-1]:
            value = words[words.index(name) + 1]
            if value.isdecimal() and int(value) > 1:
                return f"{name}={int(value) // 2}" if name != "--n" else f"--n {int(value) // 2}"
    name = OF_COMMAND.get(arguments[0] if arguments else "", "")
    if name:
        return f"{name}={SMALLER[name]}"
    return f"batch={SMALLER['batch']} for train, solver_batch={SMALLER['solver_batch']} for evaluate and sample"


def _of_machine() -> list[int]:
    """Free memory of the machine, as Linux tells it; elsewhere half of what is built in, where that is known."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return [int(line.split()[1]) * 1024]
    except (OSError, ValueError):
        pass
    try:
        return [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2]
    except (AttributeError, OSError, ValueError):
        return []


def _of_containers(root: Path = Path("/sys/fs/cgroup"), groups: Path = Path("/proc/self/cgroup")) -> list[int]:
    """What the control groups of this process (version 2 or 1) leave, each with those above it; files count as free."""
    found = []
    try:
        lines = [line.split(":", 2) for line in groups.read_text().splitlines()]
    except OSError:
        return []
    for _, kinds, place in (line for line in lines if len(line) == 3):
        if kinds not in ("", "memory") and "memory" not in kinds.split(","):
            continue
        base = root / "memory" if kinds else root
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if kinds else ("memory.max", "memory.current")
        inside = base / place.lstrip("/")
        for folder in (inside, *inside.parents):
            try:
                limit, used = (int((folder / name).read_text()) for name in names)
                cache = re.search(r"^(?:total_)?inactive_file (\d+)", (folder / "memory.stat").read_text(), re.M)
                found.append(limit - used + (int(cache.group(1)) if cache else 0))
            except (OSError, ValueError):  # no such group here, or no limit ("max")
                pass
            if folder == base:
                break
    return found


def _of_process() -> list[int]:
    """What the limit on the address space of this process (`ulimit -v`) leaves."""
    if sys.platform == "win32":
        return []
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return []
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):
        return [limit]
    return [limit - pages * resource.getpagesize()]
