"""A step of training as it is: data, noise, flips, loss, gradient, clip, Adam, average. Ours beside TorchCFM's script.

Theirs is the step of the script that TorchCFM publishes for CIFAR-10, written down here from what it does: float32,
eager, a U-Net of 35.7 million parameters, 128 images. Its batches are cut from images on the device, which flatters it:
the script waits for a loader. Ours is `fmcore.training.train` itself, timed from inside its loss.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.unet import PEAKS
from fmcore import networks
from fmcore.data.images import ImageData
from fmcore.experiments.config.experiment import Configuration, NetworkConfig
from fmcore.experiments.run.network import build_network
from fmcore.experiments.run.training_batch import batch_loss, batch_maker
from fmcore.papers.catalog import by_name
from fmcore.training import train

FULL = NetworkConfig(128, (1, 2, 2, 2), 2, (16,), head_channels=64)
TINY = NetworkConfig(16, (1, 2), 1, (), head_channels=16)


def flops_per_image(network: NetworkConfig, shape: tuple[int, int, int]) -> float:
    """Operations of one image, forward and backward, counted without computing anything."""
    from torch.utils.flop_counter import FlopCounterMode

    model = networks.UNet(
        shape,
        network.channels,
        network.multipliers,
        network.blocks,
        network.attention,
        network.heads,
        network.head_channels,
    ).to("meta")
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *shape, device="meta"), torch.zeros(1, device="meta")).sum().backward()
    return counter.get_total_flops()


def share_of_peak(images_per_second: float, flops: float) -> float | None:
    """Of the dense bfloat16 rate in the data sheet; None for a device whose rate is not known here."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    peak = next((value for key, value in PEAKS.items() if key in name), None)
    return None if peak is None else images_per_second * flops / peak


class Stopwatch:
    """Rates between marks: each is a number of steps, at which the device is waited for."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.times = device, dict[int, float]()

    def mark(self, step: int) -> None:
        """Note the time when all before this step is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.times[step] = time.perf_counter()

    def steps_per_second(self, first: int, last: int) -> float:
        """Between two marks."""
        return (last - first) / (self.times[last] - self.times[first])


def ours(
    images: ImageData, network: NetworkConfig, batch: int, steps: int, device: torch.device, compile: bool = True
) -> dict[str, Any]:
    """The loop of `fmcore.training.train`: first without cudnn.benchmark, then with it, as it trains.

    Args:
        images: trained on.
        network: of the U-Net.
        batch: images per step.
        steps: to time of each kind; a quarter as many before them are not timed, and the first compiles.
        device: trains.
        compile: off for a rehearsal, which has no minute for it.
    """
    base = by_name("cifar10_gpu")
    early = max(2, steps // 4)
    marks = [early, early + steps, 2 * early + steps, 2 * early + 2 * steps]
    training = replace(
        base.training, steps=marks[-1] + 1, batch=batch, warmup=4, compile=compile, checkpoint_every=10**6
    )
    configuration: Configuration = replace(base, data=images.name, network=network, training=training)
    measure, watch, made = batch_loss(configuration, images, images.train), Stopwatch(device), 0

    def timed(*arguments: Any) -> Tensor:
        nonlocal made
        torch.backends.cudnn.benchmark = made >= marks[1]
        if made in (0, 1, *marks):
            watch.mark(made)
        made += 1
        return measure(*arguments)

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = build_network(configuration, images.shape).to(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    trained = train(model, timed, images.train, training, progress=False, prepare=batch_maker(configuration, images))
    rates = {"without cudnn.benchmark": marks[:2], "as trained": marks[2:]}
    found = {name: batch * watch.steps_per_second(*pair) for name, pair in rates.items()}
    flops = flops_per_image(network, images.shape)
    return {
        "what": f"U-Net, {sum(p.numel() for p in model.parameters()):,} parameters, {batch} images per step, bf16",
        "images per second": {name: round(rate, 1) for name, rate in found.items()},
        "share of peak": share_of_peak(found["as trained"], flops),
        "flops per image": flops,
        "first step, seconds": round(watch.times[1] - watch.times[0], 1),
        "graphs": torch._dynamo.utils.counters["stats"].get("unique_graphs", 0),
        "graph breaks": sum(torch._dynamo.utils.counters["graph_break"].values()),
        "GiB at most": round(torch.cuda.max_memory_allocated(device) / 2**30, 2) if device.type == "cuda" else None,
        "loss": float(trained.losses[-steps:].mean()),
    }


def torchcfm(images: ImageData, batch: int, steps: int, device: torch.device, tiny: bool = False) -> dict[str, Any]:
    """The step of TorchCFM's script for CIFAR-10."""
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher
    from torchcfm.models.unet.unet import UNetModelWrapper

    model = UNetModelWrapper(
        dim=images.shape,
        num_channels=32 if tiny else 128,
        num_res_blocks=1 if tiny else 2,
        channel_mult=[1, 2] if tiny else [1, 2, 2, 2],
        num_heads=1 if tiny else 4,
        num_head_channels=32 if tiny else 64,
        attention_resolutions="4" if tiny else "16",
        dropout=0.1,
    ).to(device)
    averaged = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(step + 1, 5000) / 5000)
    matcher, watch, early = ConditionalFlowMatcher(sigma=0.0), Stopwatch(device), max(2, steps // 4)
    for step, x1 in zip(range(early + steps), batches(images, batch, device), strict=False):
        if step == early:
            watch.mark(early)
        optimizer.zero_grad()
        t, xt, ut = matcher.sample_location_and_conditional_flow(torch.randn_like(x1), x1)
        torch.mean((model(t, xt) - ut) ** 2).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        now, mean = model.state_dict(), averaged.state_dict()
        for name in now:
            mean[name].data.copy_(mean[name].data * 0.9999 + now[name].data * 0.0001)
    watch.mark(early + steps)
    size = sum(p.numel() for p in model.parameters())
    return {
        "what": f"TorchCFM's script, {size:,} parameters, {batch} images per step, fp32",
        "images per second": round(batch * watch.steps_per_second(early, early + steps), 1),
    }


def batches(images: ImageData, batch: int, device: torch.device) -> Iterator[Tensor]:
    """Images on the device in [-1, 1], each mirrored or not."""
    held = images.scaled(images.train[: 50 * batch]).to(device)
    while True:
        x1 = held[torch.randint(len(held), (batch,), device=device)]
        heads = torch.rand(batch, device=device) < 0.5
        yield torch.where(heads[:, None, None, None], x1.flip(-1), x1)


def top_kernels(images: ImageData, device: torch.device) -> str:
    """Where the time of a step goes: the profiler's table over five steps of the network and its gradient, compiled."""
    from torch.profiler import ProfilerActivity, profile

    network, batch = (FULL, 128) if device.type == "cuda" else (TINY, 8)
    configuration = replace(by_name("cifar10_gpu"), data=images.name, network=network)
    model = build_network(configuration, images.shape).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    called = torch.compile(model) if device.type == "cuda" else model
    x = next(batches(images, batch, device)).contiguous(memory_format=torch.channels_last)
    t = torch.rand(batch, device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            called(x, t).square().mean().backward()

    for _ in range(3):
        step()
    activities = [ProfilerActivity.CUDA] if device.type == "cuda" else [ProfilerActivity.CPU]
    with profile(activities=activities) as found:
        for _ in range(5):
            step()
    by = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    return found.key_averages().table(sort_by=by, row_limit=25, max_name_column_width=70)


def run(images: ImageData, device: torch.device, with_torchcfm: bool, say: Callable[[dict], None]) -> None:
    """Measure and say one dictionary each: theirs, ours at 128 images, theirs again, ours at 512."""
    tiny = device.type != "cuda"
    network, small, large, steps = (TINY, 8, 16, 4) if tiny else (FULL, 128, 512, 40)

    def theirs() -> float:
        if not with_torchcfm:
            return float("nan")
        found = torchcfm(images, small, steps, device, tiny)
        say(found)
        return float(found["images per second"])

    before = theirs()
    found = ours(images, network, small, steps, device, compile=not tiny)
    say(found)
    if with_torchcfm:
        rate = found["images per second"]["as trained"]
        say({"what": "ours over TorchCFM's script", "ratio": round(2 * rate / (before + theirs()), 2)})
    say(ours(images, network, large, steps // 2, device, compile=not tiny))
