"""A hundred small networks trained as one, against the loop that trains one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.measure import Row, installed, speed
from fmcore.couplings import MinibatchOT, independent
from fmcore.ensemble import Ensemble, Member, SeluMLP, pair, three_directions, train
from fmcore.sources import ChiSphere

MEMBERS, BATCH, STEPS, PLAIN_STEPS = 100, 16, 256, 250
PAPER_STEPS = 20_000


def plain_loop(data: Tensor, source: ChiSphere, transport: bool) -> tuple[str, Callable[[], None]]:
    """One network, batch by batch: with TorchCFM's matcher and network, or our own where it is not installed."""
    if installed("torchcfm"):
        from torchcfm.conditional_flow_matching import (
            ConditionalFlowMatcher,
            ExactOptimalTransportConditionalFlowMatcher,
        )
        from torchcfm.models.models import MLP

        matcher = (ExactOptimalTransportConditionalFlowMatcher if transport else ConditionalFlowMatcher)(sigma=0.0)
        name, draw, network = "TorchCFM", matcher.sample_location_and_conditional_flow, MLP(dim=2, time_varying=True)
    else:
        couple = MinibatchOT() if transport else independent

        def draw(x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            x0, x1 = couple(x0, x1)
            t = torch.rand(len(x0))
            return t, (1 - t[:, None]) * x0 + t[:, None] * x1, x1 - x0

        name, network = "a plain loop", SeluMLP().layers
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

    def run() -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # more make so small a network slower
        for _ in range(PLAIN_STEPS):
            optimizer.zero_grad()
            x0, x1 = source.sample(BATCH), data[torch.randperm(len(data))[:BATCH]]
            t, xt, ut = draw(x0, x1)
            loss = torch.mean((network(torch.cat([xt, t[:, None]], dim=-1)) - ut) ** 2)
            loss.backward()
            optimizer.step()
        torch.set_num_threads(threads)

    return f"{name}, one network, batch {BATCH}, one thread", run


def loops() -> list[Row]:
    """Model-steps per second, drawing and pairing included, with and without transport."""
    data, source = three_directions(generator=torch.Generator().manual_seed(0)), ChiSphere((2,), dof=3072)
    rows = []
    for transport in (False, True):
        name, theirs = plain_loop(data, source, transport)
        members = [Member(source, data, k, transport) for k in range(MEMBERS)]
        ensemble, spent = Ensemble(range(MEMBERS)), []

        def ours(ensemble=ensemble, members=members, spent=spent) -> None:
            started = time.perf_counter()
            train(ensemble, members, STEPS, BATCH)
            spent.append((time.perf_counter() - started) / STEPS)

        ratios = [ratio * MEMBERS * STEPS / PLAIN_STEPS for ratio in speed(ours, theirs, 5)]
        each = sorted(spent[1:])[len(spent) // 2 - 1]
        note = f"{MEMBERS / each:,.0f} model-steps/s; {PAPER_STEPS:,} steps of all in {PAPER_STEPS * each / 60:.1f} min"
        what = f"train, {MEMBERS} networks, {'exact transport' if transport else 'independent pairs'}"
        rows.append(Row(what, name, ratios[0], ratios[1], ratios[2], "at least 30", note))
    return rows


def gradients() -> Row:
    """The gradient written by hand, and that of automatic differentiation on the same products."""
    ensemble, g = Ensemble(range(50)), torch.Generator().manual_seed(0)
    x, t = 30 * torch.randn(50, BATCH, 2, generator=g), torch.rand(50, BATCH, generator=g)
    inputs, target = torch.cat([x, t[..., None]], dim=2), 30 * torch.randn(50, BATCH, 2, generator=g)

    def ours() -> Tensor:
        ensemble.gradient(inputs, target)
        return ensemble.flat_gradient

    def theirs() -> Tensor:
        losses = nn.functional.mse_loss(ensemble(x, t), target, reduction="none").mean(dim=(1, 2))
        return torch.autograd.grad(losses.sum(), ensemble.flat)[0]

    difference = float((ours() - theirs()).norm() / theirs().norm())
    note = f"gradients differ by {difference:.0e}"
    return Row("gradient of 50 networks", "automatic differentiation", *speed(ours, theirs, 200), "at least 1", note)


def transport() -> list[Row]:
    """Pairs of 256 batches of 16, in one call or by the matcher's, one batch at a time."""
    if not installed("torchcfm"):
        return []
    from torchcfm.optimal_transport import OTPlanSampler

    peer, data = OTPlanSampler(method="exact"), three_directions(generator=torch.Generator().manual_seed(0))
    x0 = ChiSphere((2,), dof=3072).sample(256 * BATCH, torch.Generator().manual_seed(1)).view(256, BATCH, 2)
    x1 = data[torch.randint(len(data), (256, BATCH), generator=torch.Generator().manual_seed(2))]

    def theirs() -> None:
        for a, b in zip(x0, x1, strict=True):
            peer.sample_plan(a, b)

    plans = [torch.as_tensor(peer.get_map(a, b)) for a, b in zip(x0, x1, strict=True)]
    costs = torch.cdist(x0.double(), x1.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
    best = sum(float((plan * cost).sum()) for plan, cost in zip(plans, costs, strict=True)) / len(plans)
    found = float((pair(x0, x1).double() - x1.double()).square().sum(dim=2).mean())
    note = f"costs differ by {abs(found / best - 1):.0e}"
    timed = speed(lambda: pair(x0, x1), theirs, 10)
    return [Row("pair, 256 batches of 16 points", "TorchCFM OTPlanSampler", *timed, "at least 1", note)]


def run() -> list[Row]:
    return [*loops(), gradients(), *transport()]
