"""Conditional flow matching: one loss and its gradient, on the same network and batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.measure import Row, installed, speed
from fmcore import losses, networks, paths


def torchcfm(model: torch.nn.Module, x0: Tensor, x1: Tensor) -> Callable[[Tensor | None], Tensor]:
    """The loss as TorchCFM's examples write it."""
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

    matcher = ConditionalFlowMatcher(sigma=0.0)

    def loss(t: Tensor | None) -> Tensor:
        t, xt, ut = matcher.sample_location_and_conditional_flow(x0, x1, t)
        return torch.mean((model(xt, t) - ut) ** 2)

    return loss


def meta(model: torch.nn.Module, x0: Tensor, x1: Tensor) -> Callable[[Tensor | None], Tensor]:
    """The loss as Meta's examples write it."""
    from flow_matching.path import AffineProbPath
    from flow_matching.path.scheduler import CondOTScheduler

    path = AffineProbPath(scheduler=CondOTScheduler())

    def loss(t: Tensor | None) -> Tensor:
        t = torch.rand(x1.shape[0], device=x1.device) if t is None else t
        sample = path.sample(t=t, x_0=x0, x_1=x1)
        return torch.pow(model(sample.x_t, sample.t) - sample.dx_t, 2).mean()

    return loss


def run() -> list[Row]:
    rows = []
    for dim, width in ((2, 64), (784, 256)):
        g = torch.Generator().manual_seed(dim)
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            model = networks.MLP(dim, width=width)
        x0, x1 = torch.randn(2, 256, dim, generator=g)
        path, times = paths.rectified(), torch.rand(256, generator=g)

        def ours(t: Tensor | None, model=model, path=path, x0=x0, x1=x1, g=g) -> Tensor:
            return losses.conditional_flow_matching(model, path, x0, x1, t, generator=g)

        def step(loss: Callable[[Tensor | None], Tensor], model=model) -> Callable[[], None]:
            def run() -> None:
                model.zero_grad()
                loss(None).backward()

            return run

        for name, peer, build in (("TorchCFM", "torchcfm", torchcfm), ("Meta", "flow_matching", meta)):
            if installed(peer):
                theirs = build(model, x0, x1)
                difference = f"losses differ by {abs((ours(times) / theirs(times)).item() - 1):.0e}"
                what = f"loss and gradient, MLP, 256 x {dim}"
                rows.append(Row(what, name, *speed(step(ours), step(theirs), 400), "as fast", difference))
    return rows
