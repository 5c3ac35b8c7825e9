"""Empirical flow matching against conditional flow matching: what a bank of 999 more points costs a training step.

The network is the U-Net of 35.7 million parameters, with 8 images per step on the CPU and 128 on a GPU. The cost of the
target is a small part of a step, and hardly grows with the batch: its share for 128 images is smaller still.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.measure import Row, speed
from benchmarks.unet import SIZE, ours
from fmcore import closed_form, losses, paths

POINTS, BATCH = 1_000, 128


def run() -> list[Row]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    g = torch.Generator(device).manual_seed(0)
    data = 2 * torch.rand(5_000, 3, 32, 32, generator=g, device=device) - 1
    path = paths.rectified()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ours(device)
    images = BATCH if device == "cuda" else 8
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-6, fused=True)

    def batch(n: int) -> tuple[Tensor, Tensor]:
        x1 = data[torch.randint(len(data), (n,), generator=g, device=device)]
        return torch.randn(x1.shape, generator=g, device=device), x1

    def empirical() -> Tensor:
        bank, _ = closed_form.draw_bank(data, POINTS - 1, g)
        return losses.empirical_flow_matching(model, path, *batch(images), bank, generator=g)

    def conditional() -> Tensor:
        return losses.conditional_flow_matching(model, path, *batch(images), generator=g)

    def step(loss: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
            if device == "cuda":
                torch.cuda.synchronize()

        return run

    x0, x1 = batch(BATCH)
    t = torch.rand(BATCH, generator=g, device=device)
    bank, _ = closed_form.draw_bank(data, POINTS - 1, g)

    def products() -> None:
        points = bank.flatten(1)
        torch.softmax(x1.flatten(1) @ points.T, dim=1) @ points
        if device == "cuda":
            torch.cuda.synchronize()

    def target() -> None:
        closed_form.bank_velocity(path, x0, x1, t, bank)
        if device == "cuda":
            torch.cuda.synchronize()

    return [
        Row(
            f"empirical flow matching, M = {POINTS}, {SIZE}, training step, {images} images",
            "conditional flow matching",
            *speed(step(empirical), step(conditional), 6 if device == "cpu" else 50),
            "at least 0.95",
        ),
        Row(
            f"its target alone, M = {POINTS}, {BATCH} images",
            "two products and a softmax in float32",
            *speed(target, products, 20),
            "at least 0.3",
            "logits are taken in float64",
        ),
    ]
