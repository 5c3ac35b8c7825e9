"""Layers that behave otherwise in training, found where they run."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from fmcore.validation import level_of_caller

# What stands between this package and itself while it solves.
BETWEEN = ("contextlib", "torch", "torchdiffeq")
# What PyTorch says where a compiled network meets a hook; here the hook is made for that.
OF_COMPILED = r"Using `torch\.compile\(module\)` when there are global hooks"

_WATCHING: ContextVar[bool] = ContextVar("whether an evaluation is under watch", default=False)
_WARNED: ContextVar[list[str] | None] = ContextVar("what a block of several solves has warned of", default=None)


@contextmanager
def warn_of_training_mode() -> Iterator[list[str]]:
    """Warn, at the end of the block, of a layer that ran in it in training mode and then behaves otherwise.

    Active dropout makes the flow random, so that an adaptive solver takes many times the steps; batch normalization
    mixes the samples of a batch. Layers that are there and do not run are not looked at, and one warning is enough.
    The warning points to the line outside this package that led here. It is also in the list that the block is given,
    once the block has ended.

    Of what ``torch.compile`` made, a network is looked at as a whole, and nothing that runs after it; the layers inside
    a compiled function are not seen. Nothing is looked at outside the main thread: all threads share one filter of
    warnings.
    """
    said: list[str] = []
    warned = _WARNED.get()
    if _WATCHING.get() or warned or threading.current_thread() is not threading.main_thread():
        yield said
        return
    ran: list[nn.Module] = []
    thread = threading.get_ident()

    def look(module: nn.Module, _: object) -> None:
        if torch.compiler.is_compiling() or threading.get_ident() != thread:
            return
        ran.append(module)
        if hasattr(module, "_orig_mod"):
            handle.remove()  # traced with the hook, it would be compiled again without it

    token = _WATCHING.set(True)
    handle = register_module_forward_pre_hook(look)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", OF_COMPILED, UserWarning)
            yield said
    finally:
        handle.remove()
        _WATCHING.reset(token)
    words = _found(ran)
    if words is not None:
        for told in (said, warned):
            if told is not None:
                told.append(words)
        warnings.warn(words, UserWarning, stacklevel=level_of_caller(BETWEEN))


@contextmanager
def one_warning() -> Iterator[None]:
    """Let the solves of a block warn of training mode once together."""
    token = _WARNED.set([])
    try:
        yield
    finally:
        _WARNED.reset(token)


def _found(ran: list[nn.Module]) -> str | None:
    """What is to be said of modules that ran, in their order."""
    for module in ran:
        layers = module.modules() if hasattr(module, "_orig_mod") else (module,)
        for layer in layers:
            does = _does(layer)
            if does is not None:
                network = next(one for one in ran if any(part is layer for part in one.modules()))
                name = type(getattr(network, "_orig_mod", network)).__name__  # of what torch.compile wraps
                return f"the network {name} is in training mode: {does}; call .eval() before it samples."
    return None


def _does(layer: nn.Module) -> str | None:
    """What a layer does in training mode only."""
    if not layer.training:
        return None
    if isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0:
        return f"its {type(layer).__name__}(p={layer.p:g}) is active and makes the flow random"
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return f"its {type(layer).__name__} mixes the samples of a batch and changes with each call"
    return None
