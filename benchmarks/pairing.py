"""Exact optimal transport within a batch: the same optimum as TorchCFM's, sooner, and beside the training step."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from benchmarks.measure import Row, installed, speed
from fmcore.couplings import MinibatchOT, NearestNoise, prefetch_pairs
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


def nearest() -> list[Row]:
    """The nearest of four noise samples: how much sooner than a permutation, how near, and what is left of the source.

    Distances are squared, as shares of those of independent pairs; where the source is kept, its mean square is 100%.
    """
    rows, ours = [], NearestNoise(candidates=4)
    for kind, n in (("image", 128), ("image", 512), ("plane", 256)):
        x0, x1 = batches(kind, n)
        spread = float((torch.cdist(x0.flatten(1), x1.flatten(1)) ** 2).std())
        peers = {"MinibatchOT, exact": MinibatchOT(), "MinibatchOT, sinkhorn": MinibatchOT("sinkhorn", 0.1 * spread)}
        for name, peer in peers.items():
            near, best = (
                share(couple(x0, x1, generator=torch.Generator().manual_seed(n))[0] - x1, x0 - x1)
                for couple in (ours, peer)
            )
            timed = speed(lambda a=x0, b=x1: ours(a, b), lambda a=x0, b=x1, c=peer: c(a, b), 20)
            note = f"distances {near:.1%} against {best:.1%}, mean square of x0 {share(ours(x0, x1)[0], x0):.1%}"
            rows.append(Row(f"NearestNoise, 4 of {n} {kind} samples", name, *timed, "at least 2", note))
    return rows


def share(part: Tensor, whole: Tensor) -> float:
    """The squared norm of one by that of the other."""
    return float(part.double().square().sum() / whole.double().square().sum())


def run() -> list[Row]:
    rows = [overlapped(), *nearest()]
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
