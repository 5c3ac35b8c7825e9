"""Likelihood: the density that a flow gives to a point, and bits per dimension of images.

Along dx/dt = v(x, t) the log-density changes by d log p_t(x_t)/dt = -div v(x_t, t) (instantaneous change of
variables, Chen et al. 2018). Running the flow from data to source,

    log p_1(x1) = log p_0(x0) - integral over t of div v(x_t, t).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fmcore.data.images import dequantize
from fmcore.solvers import NOT_FINITE, CountedVelocity, check_method, integrate, time_grid
from fmcore.sources import Gaussian
from fmcore.validation import check_finite, unknown_name
from fmcore.velocity import Velocity

DIVERGENCES = ("exact", "hutchinson")
# Vector-Jacobian products taken at once; bounds the memory of an exact divergence in many dimensions.
AT_ONCE = 64


@dataclass(frozen=True)
class Likelihood:
    """Log-density of data under a flow.

    Attributes:
        log_prob: (B,), nats.
        x0: (B, *shape), the point of the source that each x1 came from.
        nfe: evaluations of the velocity; the divergence reuses them.
    """

    log_prob: Tensor
    x0: Tensor
    nfe: int


@dataclass(frozen=True)
class BitsPerDim:
    """Negative log2-likelihood a dimension of integer-valued images.

    Attributes:
        value: mean over images.
        per_image: (B,).
        standard_error: of the mean over images.
        draws: K, dequantization draws averaged inside the logarithm; compare only values of equal K.
        nfe: evaluations of the velocity a batch and draw, averaged.
    """

    value: float
    per_image: Tensor
    standard_error: float
    draws: int
    nfe: float


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
        v (B, *shape) and the sums (B,).
    """
    # Outside inference mode and on copies: a graph is needed whatever the caller has switched off.
    with torch.inference_mode(False), torch.enable_grad():
        x, t = x.detach().clone().requires_grad_(True), t.detach().clone()
        v = velocity(x, t)
        if not v.requires_grad:
            _require_constant(velocity, x.detach(), t, v)
            return v, x.new_zeros(len(x)).detach()
        if vectors.ndim == x.ndim:
            vectors = vectors[:, None].expand(-1, *x.shape)
        total = x.new_zeros(len(x))
        for group in vectors.split(AT_ONCE):
            products = _vector_jacobian_products(v, x, group)
            if products is None:  # v does not depend on x
                break
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


def _require_constant(velocity: Velocity, x: Tensor, t: Tensor, v: Tensor) -> None:
    """A velocity without a graph in x has divergence zero if it is constant, and hides it if it is not."""
    inner = velocity.velocity if isinstance(velocity, CountedVelocity) else velocity  # not an evaluation of the solve
    if not torch.equal(inner(x + 0.1, t), v):
        raise ValueError(
            "the velocity depends on x but keeps no gradient, so its divergence cannot be computed: "
            "remove torch.no_grad(), inference mode or .detach() inside it."
        )


def log_likelihood(
    velocity: Velocity,
    x1: Tensor,
    source: Gaussian,
    divergence: str = "exact",
    probes: int = 1,
    t0: float = 0.0,
    t1: float = 1.0,
    method: str = "dopri5",
    steps: int | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    generator: torch.Generator | None = None,
) -> Likelihood:
    """Return log p_1(x1) of the flow that starts from ``source`` at t0.

    Args:
        velocity: callable (x, t) -> v, differentiable in x.
        x1: (B, *shape) points at t1.
        source: distribution at t0, with ``log_prob``.
        divergence: "exact" (d vector-Jacobian products an evaluation) or "hutchinson" (``probes`` of them, with
            random signs drawn once for the whole solve, so that the estimate is of one fixed integral).
        probes: random vectors a sample, for Hutchinson.
        t0, t1: interval; end at ``path.t_max`` where the path is singular at t = 1.
        method, steps, rtol, atol: as in :func:`fmcore.solvers.solve`.
        generator: draws the probes.

    Raises:
        ValueError: for an unknown divergence or method, steps that do not fit the method, probes below 1, NaN in x1,
            a velocity that hides its gradient, or a shape that the source does not have.
        RuntimeError: when the velocity is not finite along the way.
    """
    if divergence not in DIVERGENCES:
        raise unknown_name("divergence", divergence, DIVERGENCES)
    if probes < 1:
        raise ValueError(f"probes is {probes}: it must be at least 1.")
    check_method(method, steps)
    check_finite("x1", x1)
    shape = x1.shape[1:]
    if divergence == "exact":
        vectors = torch.eye(shape.numel(), dtype=x1.dtype, device=x1.device).reshape(-1, *shape)
    else:
        signs = torch.randint(0, 2, (probes, *x1.shape), generator=generator, device=x1.device)
        vectors = 2 * signs.to(x1) - 1
    function = CountedVelocity(velocity, t0, t1)

    def rates(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        v, total = velocity_and_divergence(function, state[0], t, vectors)
        return v, total / (1 if divergence == "exact" else probes)

    grid, kept = time_grid(t1, t0, steps, None, adaptive=method == "dopri5")
    with torch.no_grad():
        (x, change), _ = integrate(rates, (x1, x1.new_zeros(len(x1))), grid, kept, method, rtol, atol)
    if not torch.isfinite(x[-1]).all() or not torch.isfinite(change[-1]).all():
        raise RuntimeError(NOT_FINITE)
    return Likelihood(source.log_prob(x[-1]) + change[-1], x[-1], function.nfe)


def bits_per_dim(
    velocity: Velocity,
    images: Tensor,
    source: Gaussian,
    levels: int = 256,
    draws: int = 1,
    batch_size: int = 256,
    generator: torch.Generator | None = None,
    divergence: str = "hutchinson",
    probes: int = 1,
    t1: float = 1.0,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> BitsPerDim:
    """Return bits/dim of integer images by uniform dequantization (Lipman et al. 2023, appendix E.1).

    y = 2 (pixel + u) / levels - 1 with u ~ U(0, 1); bits/dim = -log p(y) / (d ln 2) + log2(levels / 2). With K draws
    of u, p is averaged over them inside the logarithm. With exact log-densities more draws tighten the bound; with
    Hutchinson's noisy ones, the log of a mean of exponentials is also biased towards *fewer* bits (Jensen), so
    values of different K or probes must not be compared.

    Args:
        velocity: callable (x, t) -> v on images scaled to [-1, 1].
        images: (B, *shape) integers in [0, levels).
        source: distribution at t = 0.
        levels: grey levels of a pixel: 256 for 8-bit images, 17 for scikit-learn's digits.
        draws: K >= 1.
        batch_size: images solved together.
        generator: draws u and the probes.
        divergence, probes, t1, rtol, atol: as in :func:`log_likelihood`.

    Raises:
        ValueError: for floating-point images (their integer values are needed) or values outside [0, levels).
    """
    if len(images) == 0:
        raise ValueError("images is empty: pass at least one image.")
    if draws < 1:
        raise ValueError(f"draws is {draws}: it must be at least 1.")
    dim = images[0].numel()
    log_probs, calls = [], []
    for batch in images.split(batch_size):
        per_draw = []
        for _ in range(draws):
            y = dequantize(batch, levels, generator)
            found = log_likelihood(
                velocity, y, source, divergence, probes, t1=t1, rtol=rtol, atol=atol, generator=generator
            )
            per_draw.append(found.log_prob)
            calls.append(found.nfe)
        log_probs.append(torch.logsumexp(torch.stack(per_draw), dim=0) - math.log(draws))
    per_image = -torch.cat(log_probs) / (dim * math.log(2)) + math.log2(levels / 2)
    error = float(per_image.std() / math.sqrt(len(per_image))) if len(per_image) > 1 else math.nan
    return BitsPerDim(float(per_image.mean()), per_image, error, draws, sum(calls) / len(calls))
