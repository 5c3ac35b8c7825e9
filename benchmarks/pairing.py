"""Exact optimal transport within a batch: the same optimum as TorchCFM's, sooner, and beside the training step."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from benchmarks.measure import Row, installed, speed
from fmcore.couplings import MinibatchOT, prefetch_pairs
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


def overlapped() -> Row:
    """Ten steps that leave the host idle, as a device does, each with 512 pairs: made in place, or one step ahead."""
    x0, x1 = batches("image", 512)
    steps, couple = 10, MinibatchOT()

    def in_place() -> None:
        for _ in range(steps):
            couple(x0, x1)
            time.sleep(0.05)

    def ahead() -> None:
        for _ in prefetch_pairs(lambda _: couple(x0, x1), range(steps)):
            time.sleep(0.05)

    def nothing() -> None:
        time.sleep(0.05 * steps)

    share = speed(ahead, nothing, 5)
    gain = speed(ahead, in_place, 5)[0]
    return Row(
        "prefetch, 512 image samples, steps of 50 ms",
        "the steps alone",
        *share,
        "at least 0.9",
        f"{gain:.2f} times as fast as pairing in place",
    )


def run() -> list[Row]:
    rows = [overlapped()]
    if not installed("torchcfm"):
        return rows
    from torchcfm.optimal_transport import OTPlanSampler

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
            difference = f"costs differ by {abs(found / best - 1):.0e}"
            rows.append(Row(f"MinibatchOT, {n} {kind} samples", "TorchCFM OTPlanSampler", *timed, goal, difference))
    return rows
