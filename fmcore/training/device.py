"""What the loop asks of the device: its generators, its arithmetic, and that it keeps memory that is freed."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def borrowed_generators(device: torch.device) -> Iterator[list[torch.Generator]]:
    """PyTorch's own generators, which dropout draws from: to seed at will, and given back as they were."""
    gpus = [device] if device.type == "cuda" else []
    if gpus:
        torch.cuda.init()  # before it, there are no generators
    with torch.random.fork_rng(gpus):
        yield [torch.default_generator, *(torch.cuda.default_generators[gpu.index] for gpu in gpus)]


@contextmanager
def matmul_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Allow or forbid TF32 on an NVIDIA GPU, by default allowed in convolutions only; and put it back.

    With TF32 or bfloat16, convolutions are also tried in several ways at first, and the fastest is kept. Which one that
    is can differ from run to run, and with it the rounding: not so with "fp32".
    """
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    cudnn.allow_tf32 = cudnn.benchmark = precision != "fp32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32, cudnn.benchmark = before[1:]


@contextmanager
def fastest_convolutions() -> Iterator[None]:
    """Let cuDNN try its ways to compute each convolution, and keep the fastest."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def keep_freed_memory(device: torch.device) -> bool:
    """Let the process keep memory that it frees, on the CPU under Linux; says whether that was possible.

    A step allocates and frees the same tensors again and again. The C library gives large ones back to the system each
    time, and every page of the next one has to be made anew: a tenth of the time of a small U-Net's training step.

    It stays so until the process ends: the C library does not tell what was set before, and any value turns off its
    own adjusting for good, so that nothing would put it back. No result depends on it; the process may hold up to 2 GiB
    of freed memory, which it uses first when it needs more.
    """
    if device.type != "cpu" or not sys.platform.startswith("linux"):
        return False
    change = getattr(ctypes.CDLL(None), "mallopt", None)
    if change is None:
        return False
    trim_threshold, mmap_threshold = -1, -3  # of malloc.h
    return bool(change(mmap_threshold, 32 * 2**20)) and bool(change(trim_threshold, 2**31 - 1))
