"""A GPU without memory: tensors on cuda:0 know their shape and device, those on the CPU are real.

PyTorch's FakeTensorMode makes tensors without memory on any device, and raises where an operation is given tensors on
two devices. Alone it makes those on the CPU fake too, and code that reads a number stops. Here only operations that
touch cuda:0 are fake. Whatever the host reads from there is made up, and noted: a place where the host would wait until
the device has done all that it was asked for.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
ROOT = Path(__file__).resolve().parents[2]
OF_THE_HOST = {aten._pin_memory.default, aten.is_pinned.default}


class FakeGPU(TorchDispatchMode):
    """The mode; entered by the thread that checks; see `prefetch_pairs` for others.

    Attributes:
        waits: (kind, place, thread) to the number of times that the host waited there.
        truth: what a truth value on the device is read as.
    """

    def __init__(self, truth: bool = True) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.truth = truth
        self.waits: Counter[tuple[str, str, str]] = Counter()
        self.generator = torch.Generator().manual_seed(0)

    def __enter__(self) -> FakeGPU:
        # torch.tensor(1.0, device="cuda") is then seen as the copy that it is
        self.lifted_before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        self.patches = [
            patch.object(FakeTensor, "__deepcopy__", deep_copy, create=True),
            patch.object(FakeTensor, "tolist", lambda x: x.cpu().tolist(), create=True),  # one wait, not one a number
            patch.object(torch.utils, "swap_tensors", swapped),
        ]
        for one in self.patches:
            one.start()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for one in self.patches:
            one.stop()
        torch._C._set_only_lift_cpu_tensors(self.lifted_before)

    def prefetch_pairs(self, draw: Callable[[Any], Any], items: Iterable[Any], ahead: int) -> Iterator[Any]:
        """As `fmcore.couplings.prefetch_pairs`: each draw in another thread, but while this one waits for it.

        Fake tensors are not made for two threads at once. What PyTorch keeps a thread is another thread's, though: the
        current stream, autocast, no_grad.
        """

        def inside(item: Any) -> Any:
            with OfAnotherThread(self):
                return draw(item)

        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as pool:
            waiting: deque[Any] = deque()
            for item in items:
                waiting.append(pool.submit(inside, item).result())
                if len(waiting) > ahead:
                    yield waiting.popleft()
            yield from waiting

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        asked = kwargs.get("device")
        to_gpu = asked is not None and torch.device(asked).type == "cuda"
        if func in OF_THE_HOST or not (to_gpu or any(map(on_gpu, tensors))):
            return func(*args, **kwargs)

        first = tensors[0] if tensors else None
        if func is aten._local_scalar_dense.default:
            self.wait("number read")
            return self.made_up(first).item()
        if func is aten.equal.default:
            self.wait("comparison read")
            return self.truth
        if func is aten._to_copy.default and asked is not None and torch.device(asked).type == "cpu":
            self.wait("copy to the host")
            return self.made_up(first, kwargs.get("dtype"))
        if func is aten.copy_.default and not on_gpu(args[0]):
            self.wait("copy to the host")
            return args[0].copy_(self.made_up(args[1], args[0].dtype))
        if func in (aten._to_copy.default, aten.copy_.default) and not all(map(on_gpu, tensors)):
            source = args[0] if func is aten._to_copy.default else args[1]
            if not on_gpu(source) and not (kwargs.get("non_blocking") or (len(args) > 2 and args[2])):
                self.wait("blocking copy to the device")
        if func is aten.record_stream.default:
            return None
        if func is aten.nonzero.default:
            self.wait("rows found")
            return self.rows(first)
        if func in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default):
            args = (args[0], self.indices(func, args), *args[2:])
        with self.fake:
            return func(*args, **kwargs)

    def indices(self, func: Any, args: Any) -> list[Any]:
        """Indices as a kernel wants them: row numbers, on the device."""
        found: list[Any] = []
        fills = func is not aten.index.Tensor and args[2].numel() == 1  # masked_fill does it
        for index in args[1]:
            if isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) and not fills:
                self.wait("rows found")
                found += self.rows(index).unbind(1)
            else:
                if isinstance(index, Tensor) and not on_gpu(index) and index.ndim:
                    self.wait("blocking copy to the device")
                found.append(index)
        return found

    def rows(self, x: Tensor) -> Tensor:
        """What nonzero returns if nothing is zero."""
        with self.fake:
            return torch.zeros(x.numel(), x.ndim, dtype=torch.int64, device=x.device)

    def made_up(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """A real tensor on the host, shaped like a fake one: what was read."""
        kind = x.dtype if dtype is None else dtype
        if kind == torch.bool:
            return torch.full(x.shape, self.truth)
        if kind.is_floating_point:
            return torch.rand(x.shape, generator=self.generator).add(0.5).to(kind)
        return torch.ones(x.shape, dtype=kind)

    def wait(self, kind: str) -> None:
        """Note where the host waits: the innermost line of the package, and the library that it called, if any."""
        frame, place, library = sys._getframe(1), "", ""
        while frame is not None and not place:
            file = Path(frame.f_code.co_filename)
            if ROOT / "fmcore" in file.parents:
                place = f"{file.relative_to(ROOT)}:{frame.f_lineno}"
            elif "site-packages" in file.parts and "torch" not in file.parts and not library:
                library = " in " + file.parts[file.parts.index("site-packages") + 1]
            frame = frame.f_back
        thread = threading.current_thread()
        name = "" if thread is threading.main_thread() else thread.name.rpartition("_")[0] or thread.name
        self.waits[kind, (place or "elsewhere") + library, name] += 1


class OfAnotherThread(TorchDispatchMode):
    """The mode of another thread: each thread has a stack of modes of its own."""

    def __init__(self, gpu: FakeGPU) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.gpu.__torch_dispatch__(func, types, args, kwargs)


def on_gpu(x: Any) -> bool:
    """Whether x is a tensor on the device."""
    return isinstance(x, FakeTensor) and x.device.type == "cuda"


def deep_copy(x: Tensor, memo: dict[int, Any]) -> Tensor:
    """What copy.deepcopy makes of a leaf: without this it would copy the memory that there is not."""
    if id(x) not in memo:
        made = x.detach().clone()
        memo[id(x)] = torch.nn.Parameter(made, x.requires_grad) if isinstance(x, torch.nn.Parameter) else made
    return memo[id(x)]


def swapped(x: Tensor, other: Tensor, swap: Callable[[Tensor, Tensor], None] = torch.utils.swap_tensors) -> None:
    """How a module takes other weights; fake ones cannot be swapped a second time."""
    if on_gpu(x) and on_gpu(other):
        x.data = other.detach()
    else:
        swap(x, other)
