"""The divergence of a velocity, by vector-Jacobian products."""

from __future__ import annotations

import torch
from torch import Tensor

from fmcore.likelihood.hidden_gradients import require_constant
from fmcore.velocity import Velocity

# Vector-Jacobian products taken at once; bounds the memory of an exact divergence in many dimensions.
AT_ONCE = 64


def velocity_and_divergence(velocity: Velocity, x: Tensor, t: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return v(x, t) and sum_k e_k^T (dv/dx) e_k for each sample.

    With ``vectors`` the d unit vectors the sum is the exact divergence; with K random sign vectors, its mean over K
    is Hutchinson's unbiased estimate.

    Args:
        velocity: callable (x, t) -> v that treats the samples of a batch independently.
        x: (B, *shape).
        t: shape () or (B,).
        vectors: (K, *shape) shared by the batch, or (K, B, *shape).

    Returns:
        v (B, *shape) and the sums (B,), without a graph.

    Raises:
        ValueError: for a velocity that depends on x without any gradient in it, for which it is evaluated once more.
    """
    v, total = divergence_if_any(velocity, x, t, vectors)
    if total is None:
        require_constant(velocity, x, t, v)
        total = x.new_zeros(len(x)).detach()
    return v, total


def divergence_if_any(velocity: Velocity, x: Tensor, t: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor | None]:
    """As :func:`velocity_and_divergence`, but None in place of the sums if no graph leads from v to x."""
    # Outside inference mode and on copies: a graph is needed whatever the caller has switched off.
    with torch.inference_mode(False), torch.enable_grad():
        x, t = x.detach().clone().requires_grad_(True), t.detach().clone()
        v = velocity(x, t)
        if not v.requires_grad:
            return v, None
        if vectors.ndim == x.ndim:
            vectors = vectors[:, None].expand(-1, *x.shape)
        total = x.new_zeros(len(x))
        for group in vectors.split(AT_ONCE):
            products = _vector_jacobian_products(v, x, group)
            if products is None:
                return v.detach(), None
            total = total + (products * group).flatten(2).sum(dim=(0, 2))
    return v.detach(), total.detach()


def _vector_jacobian_products(v: Tensor, x: Tensor, vectors: Tensor) -> Tensor | None:
    """e_k^T dv/dx for vectors (K, B, *shape), shaped like them; None if v does not depend on x."""
    if len(vectors) > 1:
        try:
            return torch.autograd.grad(v, x, vectors, retain_graph=True, is_grads_batched=True, allow_unused=True)[0]
        except RuntimeError as error:  # not every layer and memory layout can be batched, channels_last for one
            if not any(word in str(error).lower() for word in ("vmap", "batching rule")):
                raise
    products = [torch.autograd.grad(v, x, vector, retain_graph=True, allow_unused=True)[0] for vector in vectors]
    return None if products[0] is None else torch.stack(products)
