"""Classifier-free guidance: one network, asked with the label and without it (Ho and Salimans 2022).

With v(x, t, c) the velocity of class c and v(x, t) that of all classes together, the guided velocity is

    v(x, t) + scale (v(x, t, c) - v(x, t)).

On an affine path from a Gaussian it belongs to the score of p_t(x) p_t(c | x)^scale: scale 0 ignores the label, 1
samples the class, and more pushes to where the class is most certain, at the price of diversity. The network learns
both velocities at once by losing its labels now and then (`drop_labels`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fmcore.validation import check_generator
from fmcore.velocity import Evaluations, count_evaluations


@dataclass(frozen=True)
class Guided:
    """The guided velocity (x, t) -> v of a network (x, t, labels) -> v; made by :func:`guided`.

    Attributes:
        evaluations: forward passes of the network for each sample in one call: 2, or 1 where the scale needs only one
            of the two velocities. Solvers count these (NFE), not the calls, also where it is part of another velocity.
    """

    model: Callable[[Tensor, Tensor, Tensor], Tensor]
    labels: Tensor
    scale: float
    null: int

    @property
    def evaluations(self) -> int:
        """Forward passes of the network for each sample."""
        return 1 if self.scale in (0.0, 1.0) else 2

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Return v, shaped like x (B, *shape), for t () or (B,); raises ValueError if B is not that of labels."""
        if len(x) != len(self.labels):
            raise ValueError(f"guidance has {len(self.labels)} labels for {len(x)} samples: pass one label a sample.")
        labels = self.labels.to(x.device)
        none = torch.full_like(labels, self.null)
        with Evaluations() as one:
            if self.evaluations == 1:
                v = self.model(x, t, labels if self.scale else none)
            else:  # one batch of twice the size, which fills a device better than two calls
                v = self.model(torch.cat([x, x]), torch.cat([t, t]) if t.ndim else t, torch.cat([none, labels]))
        count_evaluations(self.evaluations * one.total)
        if self.evaluations == 1:
            return v
        without, with_label = v.chunk(2)
        return torch.lerp(without, with_label, self.scale)


def guided(
    model: Callable[[Tensor, Tensor, Tensor], Tensor], labels: Tensor, scale: float, null: int | None = None
) -> Guided:
    """Return the velocity that guides samples to their labels.

    Args:
        model: network (x, t, labels) -> v, trained with :func:`drop_labels`.
        labels: (B,) integers, the class of each sample to be drawn.
        scale: 0 without guidance, 1 for the class as it is, more to exaggerate it.
        null: the label that means "none"; by default the model's ``num_classes``, as in `fmcore.networks.UNet`.

    Raises:
        ValueError: for labels that are not a vector of integers, or a null that is neither given nor known.
    """
    if labels.ndim != 1 or labels.is_floating_point():
        raise ValueError(f"labels must be whole numbers of shape (B,), got {labels.dtype} {tuple(labels.shape)}.")
    if null is None:
        null = getattr(model, "num_classes", None)
    if null is None:
        raise ValueError('guidance needs the label that means "none": pass null, or a network built with num_classes.')
    return Guided(model, labels, float(scale), null)


def drop_labels(labels: Tensor, probability: float, null: int, generator: torch.Generator | None = None) -> Tensor:
    """Return labels of which each was replaced by ``null`` with the given probability, for training.

    Args:
        labels: (B,) integers.
        probability: in [0, 1]; 0.1 to 0.2 is usual.
        null: the label that means "none".
        generator: draws which; on the device of the labels.

    Raises:
        ValueError: for a probability outside [0, 1], or a generator on another device.
        TypeError: for a generator that is no ``torch.Generator``.
    """
    check_generator(generator, labels.device)
    if not 0 <= probability <= 1:
        raise ValueError(f"probability is {probability}: it must be in [0, 1].")
    dropped = torch.rand(labels.shape, generator=generator, device=labels.device) < probability
    return labels.masked_fill(dropped, null)
