"""Exact optimal transport within a batch: the same optimum as TorchCFM's, sooner."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.measure import Row, installed, speed
from fmcore.couplings import MinibatchOT
from fmcore.data import toy

GOALS = {128: "at least 1", 256: "at least 1", 512: "at least 3", 1024: "at least 3"}


def batches(kind: str, n: int) -> tuple[Tensor, Tensor]:
    """Draw noise and data: Gaussians or smooth images of 3 x 32 x 32, or points in the plane."""
    g = torch.Generator().manual_seed(n)
    if kind == "plane":
        return torch.randn(n, 2, generator=g), toy.two_moons(n, generator=g)
    x0 = torch.randn(n, 3, 32, 32, generator=g)
    if kind == "Gaussian":
        return x0, 0.5 * torch.randn(n, 3, 32, 32, generator=g)
    coarse = 0.5 * torch.randn(n, 3, 4, 4, generator=g)
    return x0, torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear", align_corners=False)


def run() -> list[Row]:
    if not installed("torchcfm"):
        return []
    from torchcfm.optimal_transport import OTPlanSampler

    rows = []
    peer, ours = OTPlanSampler(method="exact"), MinibatchOT()
    for kind, sizes in (("Gaussian", (128, 256, 512, 1024)), ("image", (128, 512, 1024)), ("plane", (256, 1024))):
        for n in sizes:
            x0, x1 = batches(kind, n)
            far = torch.cdist(x0.double().flatten(1), x1.double().flatten(1)) ** 2
            best = float((torch.as_tensor(peer.get_map(x0, x1)).double() * far).sum())
            found = float((ours(x0, x1)[0].double() - x1.double()).square().flatten(1).sum(dim=1).mean())
            timed = speed(
                lambda a=x0, b=x1: ours(a, b), lambda a=x0, b=x1: peer.sample_plan(a, b), 40 if n < 1024 else 15
            )
            goal = GOALS[n] if kind != "plane" else "at least 1"
            difference = f"{found / best - 1:+.0e} of the cost"
            rows.append(Row(f"MinibatchOT, {n} {kind} samples", "TorchCFM OTPlanSampler", *timed, goal, difference))
    return rows
