"""The U-Net of 35.7 million parameters against TorchCFM's: training steps, and sampling.

On the CPU a step has 8 images, because both take seconds for them. On a GPU it has 128, as in TorchCFM's CIFAR-10
example, which is the peer as it stands: float32, eager. Ours has bfloat16 autocast, channels_last and torch.compile.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import Row, installed, speed
from fmcore import networks, solvers
from fmcore.networks.unet import TIME_SCALE

TRAINING_FLOPS = 37.3e9  # of one image, forward and backward
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bfloat16 products per second, of the name's device
SIZE = "U-Net 35.7M"


def ours(device: str = "cpu") -> networks.UNet:
    shape = (3, 32, 32)
    return networks.UNet(shape, 128, (1, 2, 2, 2), blocks=2, attention=(16,), head_channels=64).to(device)


def theirs(device: str = "cpu") -> nn.Module:
    from torchcfm.models.unet.unet import UNetModelWrapper

    return UNetModelWrapper(
        dim=(3, 32, 32),
        num_channels=128,
        num_res_blocks=2,
        channel_mult=[1, 2, 2, 2],
        num_heads=4,
        num_head_channels=64,
        attention_resolutions="16",
    ).to(device)


@torch.no_grad()
def give_weights(model: nn.Module, peer: nn.Module, noise: float = 0.02) -> None:
    """Give both networks the same weights, none of them zero.

    They define their layers in the same order. Theirs takes t as it is: peer(TIME_SCALE t, x) is then model(x, t).
    """
    for weight, other in zip(model.parameters(), peer.parameters(), strict=True):
        weight.add_(noise * torch.randn_like(weight))
        other.copy_(weight.view(other.shape))


def training_step(
    model: Callable[..., Tensor], weights: nn.Module, u: Tensor, *inputs: Tensor, bf16: bool = False, **adam: Any
) -> Callable[[], None]:
    """Forward, backward and Adam, and the wait for a GPU to be done."""
    device = u.device.type
    optimizer = torch.optim.Adam(weights.parameters(), lr=1e-6, **adam)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16) if bf16 else nullcontext():
            v = model(*inputs)
        (v - u).square().mean().backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def bfloat16_pays() -> bool:
    """Whether the CPU has a unit for bfloat16: products are then faster, and without it many times slower."""
    a = torch.randn(1024, 1024)
    b = a.bfloat16()
    return speed(lambda: b @ b, lambda: a @ a, 5)[0] > 1.3


def on_cpu() -> list[Row]:
    model, peer = ours(), theirs()
    give_weights(model, peer)
    x, u = torch.randn(2, 8, 3, 32, 32)
    t = torch.rand(8)
    with torch.no_grad():
        difference = (model(x, t) - peer(TIME_SCALE * t, x)).norm() / model(x, t).norm()
    note = f"the same weights: outputs differ by {float(difference):.0e}"

    def solve() -> Tensor:
        return solvers.solve(frozen, x[:4], method="euler", steps=5).x

    def odeint() -> Tensor:
        import torchdiffeq

        with torch.no_grad():
            return torchdiffeq.odeint(peer, x[:4], torch.linspace(0, 1, 6), method="euler")[-1]

    frozen = model.eval()
    rows = [
        Row(
            f"{SIZE}, 4 images in 5 Euler steps",
            "TorchCFM's under torchdiffeq",
            *speed(solve, odeint, 5),
            "as fast",
            note,
        )
    ]
    model.train()
    reference = training_step(peer, peer, u, t, x)
    what = f"{SIZE}, training step, 8 images"
    full = training_step(model, model, u, x, t, fused=True)
    rows.append(Row(f"{what}, fp32", "TorchCFM, fp32", *speed(full, reference, 6), "at least 1.2", note))
    if bfloat16_pays():
        half = training_step(model, model, u, x, t, bf16=True, fused=True)
        other = training_step(peer, peer, u, t, x, bf16=True)
        for against, step, goal in (
            ("ours, fp32", full, "at least 1"),
            ("TorchCFM, fp32", reference, "at least 1.2"),
            ("TorchCFM, bf16", other, "as fast"),
        ):
            rows.append(Row(f"{what}, bf16", against, *speed(half, step, 6), goal))
    else:
        print("this processor has no unit for bfloat16: its rows are left out.")
    return rows


def on_gpu() -> list[Row]:
    import time

    model, peer = ours("cuda"), theirs("cuda")
    x, u = torch.randn(2, 128, 3, 32, 32, device="cuda")
    t = torch.rand(128, device="cuda")
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    last = x.contiguous(memory_format=torch.channels_last)
    fast = training_step(torch.compile(model), model, u, last, t, bf16=True, fused=True)
    ratio = speed(fast, training_step(peer, peer, u, t, x), 20)  # the run to warm up compiles
    started = time.perf_counter()
    for _ in range(20):
        fast()
    images = 20 * len(x) / (time.perf_counter() - started)
    name = torch.cuda.get_device_name()
    peak = next((value for key, value in PEAKS.items() if key in name), None)
    share = f", {images * TRAINING_FLOPS / peak:.0%} of the peak" if peak else ""
    return [
        Row(
            f"{SIZE}, training step, 128 images, bf16, channels_last, compiled",
            "TorchCFM, as published (fp32, eager)",
            *ratio,
            "at least 2",
            f"{name}: {images:,.0f} images/s{share}",
        )
    ]


def run() -> list[Row]:
    if not installed("torchcfm"):
        return []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return on_gpu() if torch.cuda.is_available() else on_cpu()
