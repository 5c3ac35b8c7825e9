"""A multilayer perceptron for points in a few dimensions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fmcore.networks.inputs import check_precision, time_of
from fmcore.networks.sizes import check_layers


class MLP(nn.Module):
    """Fully connected velocity (x, t) -> v; time is one more input.

    Args:
        dim: number of dimensions of a sample, the product of its shape.
        width: hidden units a layer.
        depth: hidden layers.

    Raises:
        ValueError: for sizes that are no whole numbers, or below 1.
    """

    def __init__(self, dim: int, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        check_layers(dim=dim, width=width, depth=depth)
        self.dim = dim
        sizes = [dim + 1, *[width] * depth]
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += [nn.Linear(sizes[i], sizes[i + 1]), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, dim))

    def forward(self, x: Tensor, t: Tensor | float) -> Tensor:
        """Return v, shaped like x (B, *shape), for t in [0, 1], a number or of shape () or (B,).

        Raises:
            ValueError: on an x of another size or precision than the network, and on times as `inputs.time_of`.
        """
        if x.shape[1:].numel() != self.dim:
            raise ValueError(f"x has shape {tuple(x.shape)}, but this MLP was built for {self.dim} dimensions.")
        check_precision(x, self.layers[0].weight)  # type: ignore[arg-type]
        t = time_of(x, t).to(x.dtype).expand(len(x))
        return self.layers(torch.cat([x.flatten(1), t[:, None]], dim=1)).reshape(x.shape)
