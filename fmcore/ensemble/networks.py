"""R multilayer perceptrons as one: stacked weights, batched products, and a gradient written by hand.

A member is h_0 = (x, t), h_i = selu(W_i h_{i-1} + b_i), v = W_L h_{L-1} + b_L. All members are evaluated by one batched
product a layer. For the loss |v - u|^2, averaged over batch and dimensions, backpropagation is

    d_L = 2 (v - u) / (batch * dim),   d_{i-1} = (d_i W_i) * selu'(h_{i-1}),   dW_i = d_i^T h_{i-1},   db_i = sum d_i,

where selu' follows from the output of selu alone. With all buffers kept and most operations in place this is twice as
fast as automatic differentiation, which `forward` leaves possible.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from fmcore.validation import check_time, expand_time

# Of selu(z) = SCALE * z for z > 0 and SCALE * ALPHA * (exp(z) - 1) below (Klambauer et al. 2017).
SCALE, ALPHA = 1.0507009873554805, 1.6732632423543772
# Below, exp(z) - 1 is -1 in float32; and exp is many times slower where its result is a denormal number.
LOWEST = -20.0


class SeluMLP(nn.Module):
    """One member on its own: a velocity (x, t) -> v with x (B, dim) and t of shape () or (B,).

    Args:
        dim, width, depth: dimensions of x, hidden units a layer, hidden layers.
    """

    def __init__(self, dim: int = 2, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(layer_sizes(dim, width, depth)):
            layers += [nn.Linear(inputs, outputs), nn.SELU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor, t: Tensor | float) -> Tensor:
        """Return v (B, dim)."""
        return self.layers(torch.cat([x, check_time(t, x).expand(len(x))[:, None]], dim=1))


def layer_sizes(dim: int, width: int, depth: int) -> list[int]:
    """Numbers that enter and leave the layers; time is one more input.

    Raises:
        ValueError: for sizes below 1.
    """
    if min(dim, width, depth) < 1:
        raise ValueError(f"networks need dim, width and depth of at least 1, but have {dim}, {width}, {depth}.")
    return [dim + 1, *[width] * depth, dim]


@dataclass(frozen=True, eq=False)
class Workspace:
    """Buffers of `Ensemble.gradient` for one batch size, and views of its parameters.

    Attributes:
        key: what they were made for.
        layers: weight, its transpose, bias, and where the gradients of weight and bias go.
        hidden: (R, B, width) each, what the hidden layers return.
        deltas: two like them, for what is passed back.
        output: (R, B, dim).
    """

    key: tuple[int, int, int]
    layers: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]
    hidden: list[Tensor]
    deltas: list[Tensor]
    output: Tensor


class Ensemble(nn.Module):
    """R networks with the shape of `SeluMLP`, each with first weights of its own.

    Member k starts as ``torch.manual_seed(seeds[k]); SeluMLP(dim, width, depth)`` would.

    Args:
        seeds: R seeds, one per member.
        dim, width, depth: as in `SeluMLP`.

    Attributes:
        flat: all parameters in one vector, in which those of a layer and of all members lie together.
        flat_gradient: where `gradient` writes; of the same layout.
    """

    flat_gradient: Tensor

    def __init__(self, seeds: Sequence[int], dim: int = 2, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        self.dim, self.width, self.depth, self.members = dim, width, depth, len(seeds)
        self.sizes = layer_sizes(dim, width, depth)
        if self.members < 1:
            raise ValueError("an ensemble needs at least one seed, one per member.")
        each = sum((inputs + 1) * outputs for inputs, outputs in pairwise(self.sizes))
        self.flat = nn.Parameter(torch.empty(self.members * each))
        self.register_buffer("flat_gradient", torch.zeros_like(self.flat.detach()), persistent=False)
        self._room: Workspace | None = None
        layers = self.layers(self.flat.detach())
        for k, seed in enumerate(seeds):
            generator = torch.Generator().manual_seed(seed)
            for weight, bias in layers:
                first = nn.init.kaiming_uniform_(torch.empty(weight.shape[1:]), a=math.sqrt(5), generator=generator)
                weight[k].copy_(first)
                bound = 1 / math.sqrt(weight.shape[2])
                bias[k].uniform_(-bound, bound, generator=generator)

    def layers(self, flat: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The weights (R, outputs, inputs) and biases (R, 1, outputs) of each layer, as views of a vector like flat.

        Those of the first layer lie transposed: with three inputs its gradient is several times faster that way.
        """
        found, start = [], 0
        for inputs, outputs in pairwise(self.sizes):
            middle = start + self.members * inputs * outputs
            end = middle + self.members * outputs
            if start:
                weight = flat[start:middle].view(self.members, outputs, inputs)
            else:
                weight = flat[:middle].view(self.members, inputs, outputs).transpose(1, 2)
            found.append((weight, flat[middle:end].view(self.members, 1, outputs)))
            start = end
        return found

    def forward(self, x: Tensor, t: Tensor | float) -> Tensor:
        """Return v (R, B, dim) for points x (R, B, dim), those of member k in row k, and t of shape (), (R,) or (R, B).

        Raises:
            ValueError: for other shapes.
        """
        if x.ndim != 3 or x.shape[0] != self.members or x.shape[2] != self.dim:
            raise ValueError(
                f"x has shape {tuple(x.shape)}: this ensemble takes ({self.members}, B, {self.dim}), points per member."
            )
        t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
        times = t[..., None] if t.shape == x.shape[:2] else expand_time(check_time(t, x), x)
        h = torch.cat([x, times.expand(*x.shape[:2], 1)], dim=2)
        for i, (weight, bias) in enumerate(self.layers(self.flat)):
            h = torch.baddbmm(bias, h if i == 0 else nn.functional.selu(h), weight.transpose(1, 2))
        return h

    @torch.no_grad()
    def gradient(self, inputs: Tensor, target: Tensor) -> Tensor:
        """Write the gradient of every member's loss, mean |v - u|^2, to `flat_gradient`; return the losses (R,).

        Args:
            inputs: (R, B, dim + 1), points and, last, their times; contiguous.
            target: (R, B, dim), the velocities u.
        """
        room = self._workspace(inputs)
        h = inputs
        for (_, turned, bias, _, _), z in zip(room.layers, room.hidden, strict=False):
            h = selu_(torch.baddbmm(bias, h, turned, out=z), room.deltas[0])
        _, turned, bias, _, _ = room.layers[-1]
        d = torch.baddbmm(bias, h, turned, out=room.output).sub_(target)
        losses = d.square().mean(dim=(1, 2))
        d.mul_(2 / d[0].numel())
        for i in range(self.depth, -1, -1):
            weight, _, _, of_weight, of_bias = room.layers[i]
            torch.sum(d, dim=1, keepdim=True, out=of_bias)
            if i == 0:  # stored the other way round, see `layers`
                torch.bmm(inputs.transpose(1, 2), d, out=of_weight.transpose(1, 2))
                break
            below = room.hidden[i - 1]
            torch.bmm(d.transpose(1, 2), below, out=of_weight)
            d = torch.bmm(d, weight, out=room.deltas[i % 2])
            # The derivative from the output: SCALE above 0, and h + SCALE * ALPHA below.
            torch.ops.aten.elu_backward.grad_input(d, ALPHA, SCALE, 1.0, True, below, grad_input=d)
        return losses

    def _workspace(self, inputs: Tensor) -> Workspace:
        """Buffers and views for the batch size of these inputs, made once."""
        key = (inputs.shape[1], self.flat.data_ptr(), self.flat_gradient.data_ptr())
        if self._room is None or self._room.key != key:
            made = [inputs.new_empty(self.members, inputs.shape[1], self.width) for _ in range(self.depth + 2)]
            views = [
                (weight, weight.transpose(1, 2), bias, of_weight, of_bias)
                for (weight, bias), (of_weight, of_bias) in zip(
                    self.layers(self.flat.detach()), self.layers(self.flat_gradient), strict=True
                )
            ]
            output = inputs.new_empty(self.members, inputs.shape[1], self.dim)
            self._room = Workspace(key, views, made[2:], made[:2], output)
        return self._room

    @torch.no_grad()
    def member(self, k: int) -> SeluMLP:
        """Member k as a network of its own, with a copy of its weights."""
        network = SeluMLP(self.dim, self.width, self.depth)
        linear = [layer for layer in network.layers if isinstance(layer, nn.Linear)]
        for layer, (weight, bias) in zip(linear, self.layers(self.flat), strict=True):
            layer.weight.copy_(weight[k])
            layer.bias.copy_(bias[k, 0])
        return network

    @torch.no_grad()
    def part(self, rows: Sequence[int]) -> Ensemble:
        """An ensemble of some of the members, with copies of their weights."""
        made = Ensemble([0] * len(rows), self.dim, self.width, self.depth)
        for own, theirs in zip(made.layers(made.flat), self.layers(self.flat), strict=True):
            for a, b in zip(own, theirs, strict=True):
                a.copy_(b[list(rows)])
        return made

    @torch.no_grad()
    def put(self, rows: Sequence[int], other: Ensemble) -> None:
        """Take the weights of the other ensemble's members for those in rows."""
        for own, theirs in zip(self.layers(self.flat), other.layers(other.flat), strict=True):
            for a, b in zip(own, theirs, strict=True):
                a[list(rows)] = b


def selu_(z: Tensor, room: Tensor) -> Tensor:
    """Selu in place, with a buffer of the same shape.

    Written with exp: the exp(z) - 1 of torch.selu takes several times as long, for digits that are lost in the sum of
    the next layer.
    """
    torch.clamp(z, min=LOWEST, max=0, out=room).exp_().sub_(1)
    return z.clamp_(min=0).mul_(SCALE).add_(room, alpha=SCALE * ALPHA)
