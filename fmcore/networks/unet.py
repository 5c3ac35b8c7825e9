"""The U-Net of Dhariwal and Nichol 2021 ("Diffusion Models Beat GANs on Image Synthesis"), as a velocity field.

    x --> conv --> level 0 ----------------- skips ----------------> level 0 --> conv --> v
                     |                                                  ^
                   halve                                             double
                     v                                                  |
                   level 1 ----------------- skips ----------------> level 1
                     |                                                  ^
                    ...  ------------------> middle ------------------> ...

Going down, every layer leaves its output on a stack; going up, every block takes one from the stack and joins it to its
input. A block is a residual pair of convolutions, told about the time (and the label) by a vector added between them;
at the chosen resolutions it ends with self-attention over all pixels. The last layer, and the last of every residual
branch, start at zero: the untrained network predicts zero velocity, and the branches wait to be switched on.

Wide 3x3 convolutions take a shorter way on the CPU (`fmcore.networks.winograd`). For a GPU, train with bfloat16
autocast, channels_last and torch.compile: the whole network is one graph.

With 128 channels, multipliers (1, 2, 2, 2), 2 blocks and attention at 16x16 this is the network of 35.7 million
parameters in most CIFAR-10 work on flow matching.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmcore.networks.inputs import check_precision, labels_of, time_of
from fmcore.networks.sizes import check_labels, check_sizes, head_count
from fmcore.networks.winograd import Convolution

# Times in [0, 1] are stretched by this before their sines and cosines are taken, at wavelengths from 2 pi to
# 2 pi 10,000. Without it, most features are nearly constant; with 1000, the number of steps of discrete diffusion, the
# velocity wiggles in t. On the digits (two seeds, 400 steps), 30 had the lowest held-out loss of 1, 30 and 1000 and
# needed 44 network evaluations to sample, against 50 and 62 to 68.
TIME_SCALE = 30.0


class UNet(nn.Module):
    """Velocity v(x, t) or v(x, t, labels) of images.

    Args:
        shape: (C, H, W) of one image; H and W are divisible by 2^(levels - 1), where levels = len(multipliers).
        channels: width of level 0; level i is channels * multipliers[i] wide.
        multipliers: one a level, at least one of them, each at least 1.
        blocks: residual blocks a level going down (one more going up), at least 1.
        attention: resolutions (heights of the feature map, e.g. 16) at which blocks end with self-attention; the
            middle of the network always has it.
        heads: number of attention heads.
        head_channels: channels of one head, instead of heads: the number of heads then follows from the width.
        dropout: probability in [0, 1), inside each residual block.
        num_classes: number of labels. There is then one further label, num_classes, which means "none": pass it (or
            no labels at all) for the unconditional velocity that classifier-free guidance needs.

    Raises:
        ValueError: on sizes that are no whole numbers, are too small, or do not fit together; see `sizes`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (16,),
        heads: int = 4,
        head_channels: int | None = None,
        dropout: float = 0.0,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.channels, self.num_classes = tuple(shape), channels, num_classes
        check_sizes(self.shape, channels, multipliers, blocks, attention, dropout)
        check_labels(num_classes)
        width = 4 * channels  # of the vector that carries time and label
        self.time = nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(num_classes + 1, width) if num_classes else None

        def block(inputs: int, outputs: int, attend: bool) -> Block:
            return Block(inputs, outputs, width, dropout, attend, head_count(outputs, heads, head_channels))

        images, resolution, now = self.shape[0], self.shape[1], channels
        self.first = nn.Conv2d(images, now, 3, padding=1)
        self.down = nn.ModuleList()
        skips = [now]  # the widths on the stack
        for level, multiplier in enumerate(multipliers):
            if level > 0:
                self.down.append(Downsample(now))
                skips.append(now)
                resolution //= 2
            for _ in range(blocks):
                self.down.append(block(now, channels * multiplier, resolution in attention))
                now = channels * multiplier
                skips.append(now)

        self.middle = nn.ModuleList([block(now, now, True), block(now, now, False)])

        self.up = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for _ in range(blocks + 1):
                self.up.append(block(now + skips.pop(), channels * multiplier, resolution in attention))
                now = channels * multiplier
            if level > 0:
                self.up.append(Upsample(now))
                resolution *= 2
        self.last = nn.Sequential(norm(now), nn.SiLU(), zeroed(nn.Conv2d(now, images, 3, padding=1)))

    def forward(self, x: Tensor, t: Tensor | float, labels: Tensor | None = None) -> Tensor:
        """Return the velocity, shaped like x.

        Args:
            x: (B, C, H, W), on the scale [-1, 1] at the data.
            t: a number, () or (B,), in [0, 1].
            labels: (B,) whole numbers in {0, ..., num_classes}, a tensor, a NumPy array or a list, or None.

        Raises:
            ValueError: on an x of another shape or precision, on times or labels that do not match it, and on labels
                given to a network that was built without num_classes. The values of times and labels are looked at on
                the CPU, not compiled; elsewhere the lookup of the embedding fails on labels.
        """
        if x.ndim != 4 or tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"this U-Net takes images of shape (B, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}"
            )
        check_precision(x, self.first.weight)
        t = time_of(x, t)
        labels = None if labels is None else labels_of(x, labels, self.num_classes)
        condition = F.silu(self.embed(t.expand(len(x)), labels))
        h = self.first(x)
        skips = [h]
        for layer in self.down:
            h = layer(h, condition)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, condition)
        for layer in self.up:
            if isinstance(layer, Block):
                h = torch.cat([h, skips.pop()], dim=1)
            h = layer(h, condition)
        return self.last(h)

    def embed(self, t: Tensor, labels: Tensor | None) -> Tensor:
        """The condition vector (B, 4 channels) of times (B,) and labels (B,), without autocast.

        bfloat16 would round the features by up to 0.004, which is what a change of t by 0.0001 makes of them.
        """
        kind = t.device.type  # "meta", for counting, knows no autocast
        with nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False):
            condition = self.time(time_features(t, self.channels).to(self.first.weight.dtype))
            if self.label is None:
                return condition
            if labels is None:
                labels = torch.full((len(t),), self.label.num_embeddings - 1, device=t.device)
            return condition + self.label(labels)


class Block(nn.Module):
    """Two 3x3 convolutions around the condition vector, a residual connection, then self-attention where asked for."""

    def __init__(self, inputs: int, outputs: int, width: int, dropout: float, attend: bool, heads: int) -> None:
        super().__init__()
        self.before = nn.Sequential(norm(inputs), nn.SiLU(), Convolution(inputs, outputs))
        self.condition = nn.Linear(width, outputs)
        self.after = nn.Sequential(norm(outputs), nn.SiLU(), nn.Dropout(dropout), zeroed(Convolution(outputs, outputs)))
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.attention = Attention(outputs, heads) if attend else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map x (B, inputs, H, W) and condition (B, width) to (B, outputs, H, W)."""
        h = self.before(x) + self.condition(condition)[:, :, None, None]
        return self.attention(self.skip(x) + self.after(h))


class Attention(nn.Module):
    """Multi-head self-attention over the pixels of a feature map, added to its input."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, C, H, W) to the same shape."""
        pixels = self.norm(x).flatten(2).transpose(1, 2)  # (B, H W, C)
        # each head's queries, keys and values lie side by side in the channels
        q, k, v = self.qkv(pixels).unflatten(2, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4)  # each (B, heads, H W, c)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.out(mixed).transpose(1, 2).reshape(x.shape)


class Downsample(nn.Module):
    """Half the resolution, by a convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map x (B, C, H, W) to (B, C, H / 2, W / 2); the condition is not used."""
        return self.conv(x)


class Upsample(nn.Module):
    """Twice the resolution: every pixel repeated, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Convolution(channels, channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map x (B, C, H, W) to (B, C, 2 H, 2 W); the condition is not used."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def time_features(t: Tensor, count: int) -> Tensor:
    """Cosines and sines of TIME_SCALE t at count / 2 frequencies from 1 to 1/10,000 (Vaswani et al. 2017)."""
    half = count // 2
    frequencies = torch.exp(torch.arange(half, device=t.device, dtype=torch.float32) * (-math.log(10_000) / half))
    angles = TIME_SCALE * t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def norm(channels: int) -> nn.GroupNorm:
    """Group normalization with 32 groups, or fewer where a group would have less than 4 channels.

    A normalization of single channels would take out of each what the condition has just added to it, and with it the
    time and the label.
    """
    groups = 32
    while groups > 1 and (channels % groups or channels // groups < 4):
        groups //= 2
    return nn.GroupNorm(groups, channels)


def zeroed(layer: nn.Module) -> nn.Module:
    """The layer, with all its parameters set to zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
