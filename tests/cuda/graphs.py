"""How many graphs torch.compile makes of the U-Net: one is right, more are as many launches of Python in every call.

Only the tracing of Python is run: what Triton makes of a graph needs a GPU. Where the stub of the driver is loaded, the
tensors are on cuda:0, and hold nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch._dynamo.utils import counters

from fmcore.networks import UNet

LARGE = {"channels": 128, "multipliers": (1, 2, 2, 2), "blocks": 2, "attention": (16,), "head_channels": 64}
SMALL = {"channels": 32, "multipliers": (1, 2), "blocks": 1, "attention": (8,), "heads": 2}
CASES: dict[str, dict[str, Any]] = {
    "35.7M, training, bf16, channels_last": {"size": LARGE, "bf16": True, "last": True, "train": True},
    "35.7M, sampling, float32": {"size": LARGE},
    "training, dropout, bf16, channels_last": {"dropout": 0.1, "bf16": True, "last": True, "train": True},
    "training, float32": {"train": True},
    "training, labels, bf16": {"classes": 10, "labels": True, "bf16": True, "train": True},
    "sampling, labels": {"classes": 10, "labels": True},
    "sampling, built for labels, without": {"classes": 10, "bf16": True},
    "sampling, one time for all, bf16, channels_last": {"time": (), "bf16": True, "last": True},
    "sampling, digits": {"shape": (1, 8, 8), "attention": (4,)},
    "sampling, 64x64": {"shape": (3, 64, 64), "attention": (32,), "bf16": True, "last": True},
    "sampling, three batch sizes": {"batches": (4, 6, 8), "graphs": 2},  # the second stands for all sizes
}


def graph_checks() -> dict[str, Callable[[Any], str]]:
    """The checks, by name."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {f"graphs: {name}, {device}": lambda _, case=case: traced(device, **case) for name, case in CASES.items()}


def traced(
    device: str,
    size: dict[str, Any] = SMALL,
    shape: tuple[int, int, int] = (3, 16, 16),
    attention: tuple[int, ...] | None = None,
    classes: int | None = None,
    labels: bool = False,
    time: tuple[int, ...] | None = None,
    dropout: float = 0.0,
    bf16: bool = False,
    last: bool = False,
    train: bool = False,
    batches: tuple[int, ...] = (4,),
    graphs: int = 1,
) -> str:
    """Trace the network, and raise AssertionError unless there are as many graphs as there should be, without breaks.

    Returns:
        What was found, in words.
    """
    torch._dynamo.reset()
    counters.clear()
    if size is LARGE:
        shape = (3, 32, 32)
    options = {**size, **({} if attention is None else {"attention": attention})}
    model = UNet(shape, dropout=dropout, num_classes=classes, **options).to(device).train(train)
    if last:
        model.to(memory_format=torch.channels_last)
    made: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        made.append(graph)
        (outputs,) = next(node for node in graph.graph.nodes if node.op == "output").args
        known = [node.meta["example_value"] for node in outputs]
        return lambda *_: tuple(torch.empty([int(n) for n in x.shape], dtype=x.dtype, device=device) for x in known)

    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for batch in batches:
        x = torch.empty(batch, *shape, device=device)
        if last:
            x = x.contiguous(memory_format=torch.channels_last)
        t = torch.empty((batch,) if time is None else time, device=device)
        given = (torch.zeros(batch, dtype=torch.int64, device=device),) if labels else ()
        with torch.set_grad_enabled(train), torch.autocast(device, torch.bfloat16) if bf16 else nullcontext():
            compiled(x, t, *given)
    breaks = sum(counters["graph_break"].values())
    assert len(made) == graphs, f"{len(made)} graphs instead of {graphs}"
    assert breaks == 0, f"{breaks} breaks: {next(iter(counters['graph_break'])).splitlines()[0]}"
    return f"{len(made)} graph{'s' * (len(made) > 1)} of {sum(len(graph.graph.nodes) for graph in made)} nodes"
