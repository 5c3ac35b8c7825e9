"""What may be wrong with the network behind a velocity: its mode, and the dtype of its weights."""

from __future__ import annotations

import dis
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

# How many objects a search for networks looks at: wrapped velocities are a few deep.
REACH = 200
# What PyTorch's layers say of two dtypes.
MISMATCHES = ("same dtype", "scalar type", "dtype mismatch", "mixed dtype", "input type")


def networks_behind(velocity: Callable[..., Any]) -> list[nn.Module]:
    """The networks that a velocity leads to: itself, what it wraps, closes over, or names in its own module."""
    found: list[nn.Module] = []
    seen: dict[int, object] = {}
    todo: list[object] = [velocity]
    while todo and len(seen) < REACH:
        thing = todo.pop()
        if id(thing) in seen:
            continue
        seen[id(thing)] = thing
        if isinstance(thing, nn.Module):
            found.append(thing)
        elif callable(thing):
            todo += [part for part in _parts(thing) if callable(part) and not isinstance(part, type)]
    return found


def _parts(thing: Callable[..., Any]) -> Iterator[object]:
    """What a callable that is no network may call."""
    if isinstance(thing, FunctionType):
        for cell in thing.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # not filled yet
                continue
        for line in dis.get_instructions(thing.__code__):
            named = thing.__globals__.get(line.argval) if line.opname == "LOAD_GLOBAL" else None
            # No further than this module: what it imports has its own.
            if not isinstance(named, FunctionType) or named.__globals__ is thing.__globals__:
                yield named
    elif isinstance(thing, MethodType):
        yield thing.__func__
        yield from getattr(thing.__self__, "__dict__", {}).values()
    elif isinstance(thing, partial):
        yield from (thing.func, *thing.args, *thing.keywords.values())
    else:
        yield from getattr(thing, "__dict__", {}).values()


def warn_of_training_mode(velocity: Callable[..., Any]) -> None:
    """Warn if a network behind a velocity is in training mode and has layers that then behave otherwise.

    Active dropout makes the flow random, so that an adaptive solver takes many times the steps; batch normalization
    mixes the samples of a batch. Without such layers both modes are the same, and nothing is said.
    """
    for network in networks_behind(velocity):
        for layer in network.modules():
            if not layer.training:
                continue
            if isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0:
                does = f"its {type(layer).__name__}(p={layer.p:g}) is active and makes the flow random"
            elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
                does = f"its {type(layer).__name__} mixes the samples of a batch and changes with each call"
            else:
                continue
            name = type(getattr(network, "_orig_mod", network)).__name__  # of what torch.compile wraps
            warnings.warn(
                f"the network {name} is in training mode: {does}; call .eval() before it samples.",
                UserWarning,
                stacklevel=4,
            )
            return


def about_dtypes(error: RuntimeError) -> bool:
    """Whether a layer says that it was given two dtypes."""
    return any(words in str(error).lower() for words in MISMATCHES)


def explained(error: RuntimeError, velocity: Callable[..., Any], x: Tensor) -> Exception:
    """An error about dtypes in words about x and the weights, or the error itself if they are not the reason."""
    weights = next(
        (p.dtype for net in networks_behind(velocity) for p in net.parameters() if p.is_floating_point()), x.dtype
    )
    if weights == x.dtype:
        return error
    return ValueError(
        f"x is {_name(x.dtype)} and the network's weights are {_name(weights)}: convert one of them, "
        f"x0.{_method(weights)}() or network.{_method(x.dtype)}(). PyTorch says: {error}"
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _method(dtype: torch.dtype) -> str:
    return {torch.float32: "float", torch.float64: "double", torch.float16: "half"}.get(dtype, "bfloat16")
