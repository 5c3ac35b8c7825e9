"""A multilayer perceptron for points in a few dimensions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fmcore.networks.inputs import check_precision, labels_of, time_of
from fmcore.networks.sizes import check_labels, check_layers


class MLP(nn.Module):
    """Fully connected velocity (x, t) -> v or (x, t, labels) -> v; time is one more input.

    Args:
        dim: number of dimensions of a sample, the product of its shape.
        width: hidden units a layer.
        depth: hidden layers.
        num_classes: number of labels, each of which adds a vector of its own to the first hidden layer. There is then
            one further label, num_classes, which means "none": pass it, or no labels, for the unconditional velocity.

    Raises:
        ValueError: for sizes that are no whole numbers, or below 1.
    """

    def __init__(self, dim: int, width: int = 64, depth: int = 3, num_classes: int | None = None) -> None:
        super().__init__()
        check_layers(dim=dim, width=width, depth=depth)
        check_labels(num_classes)
        self.dim, self.num_classes = dim, num_classes
        sizes = [dim + 1, *[width] * depth]
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += [nn.Linear(sizes[i], sizes[i + 1]), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, dim))
        self.label = nn.Embedding(num_classes + 1, width) if num_classes else None

    def forward(self, x: Tensor, t: Tensor | float, labels: Tensor | None = None) -> Tensor:
        """Return v, shaped like x (B, *shape), for t in [0, 1], a number or of shape () or (B,).

        Args:
            x: (B, *shape) with dim numbers a sample.
            t: times.
            labels: (B,) whole numbers in {0, ..., num_classes}, a tensor, a NumPy array or a list, or None.

        Raises:
            ValueError: on an x of another size or precision than the network, on times as `inputs.time_of`, and on
                labels as `inputs.labels_of`.
        """
        if x.shape[1:].numel() != self.dim:
            raise ValueError(f"x has shape {tuple(x.shape)}, but this MLP was built for {self.dim} dimensions.")
        check_precision(x, self.layers[0].weight)  # type: ignore[arg-type]
        t = time_of(x, t).to(x.dtype).expand(len(x))
        inputs = torch.cat([x.flatten(1), t[:, None]], dim=1)
        if labels is not None:
            labels = labels_of(x, labels, self.num_classes)
        if self.label is None:
            return self.layers(inputs).reshape(x.shape)
        if labels is None:
            labels = torch.full((len(x),), self.label.num_embeddings - 1, device=x.device)
        return self.layers[1:](self.layers[0](inputs) + self.label(labels)).reshape(x.shape)
