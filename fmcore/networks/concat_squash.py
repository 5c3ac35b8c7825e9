"""A small convolutional velocity for maximum likelihood, where derivatives of derivatives are needed.

The layers of FFJORD (Grathwohl et al. 2019, arXiv 1810.01367): a convolution, gated and shifted channel by channel by
the time, h = conv(x) * sigmoid(a t + b) + c t. Softplus between them is smooth, so that divergences have gradients.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from fmcore.networks.inputs import check_precision, time_of
from fmcore.networks.sizes import check_layers


class ConcatSquash(nn.Module):
    """One layer: (x, t) -> conv(x) * sigmoid(a t + b) + c t, with x (B, inputs, H, W) and t (B,)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.gate = nn.Linear(1, outputs)
        self.shift = nn.Linear(1, outputs, bias=False)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return (B, outputs, H, W)."""
        gate, shift = (layer(t[:, None])[..., None, None] for layer in (self.gate, self.shift))
        return self.convolution(x) * gate.sigmoid() + shift


class ConcatSquashNet(nn.Module):
    """A velocity (x, t) -> v with x (B, channels, H, W) and t of shape () or (B,). It starts as v = 0.

    Args:
        channels: of the images.
        width: channels of the hidden layers; 64 in FFJORD.
        depth: hidden layers; 3 in FFJORD.

    Raises:
        ValueError: for sizes that are no whole numbers, or below 1.
    """

    def __init__(self, channels: int, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        check_layers(channels=channels, width=width, depth=depth)
        self.channels = channels
        sizes = [channels, *[width] * depth, channels]
        self.layers = nn.ModuleList(ConcatSquash(inputs, outputs) for inputs, outputs in pairwise(sizes))
        for name, parameter in self.layers[-1].named_parameters():
            if not name.startswith("gate"):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor | float) -> Tensor:
        """Return v (B, channels, H, W), for t in [0, 1], a number or of shape () or (B,).

        Raises:
            ValueError: on an x of another shape or precision than the network, and on times as `inputs.time_of`.
        """
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(f"this network takes images of shape (B, {self.channels}, H, W), got {tuple(x.shape)}.")
        check_precision(x, self.layers[0].convolution.weight)  # type: ignore[arg-type, union-attr]
        t = time_of(x, t).to(x.dtype).expand(len(x))
        for k, layer in enumerate(self.layers):
            x = layer(x if k == 0 else nn.functional.softplus(x), t)
        return x
