"""How the conventions of two other libraries translate into this package's; the tests beside this file hold to it.

Both count time as this package does: t = 0 at the source, t = 1 at the data. (Diffusion papers count the other way;
Meta's VPScheduler has turned it round already, so its beta runs from beta_max at t = 0 down to beta_min.)

TorchCFM 1.0

    rectified()                      ConditionalFlowMatcher(sigma=0). With sigma > 0 it adds noise of constant width to
                                     x_t and leaves the target as it is: no affine path, the noise is not that of x0.
    ot(sigma_min=s), x0 ~ N(0, I)    TargetConditionalFlowMatcher(sigma=s). It ignores the x0 that it is given and draws
                                     its own, which it returns as the noise.
    cosine()                         VariancePreservingConditionalFlowMatcher(sigma=0)
    target(x0, x1, t)                ut of sample_location_and_conditional_flow
    MinibatchOT()                    OTPlanSampler("exact"). Its plan is our permutation / B, rows are x0, columns x1;
                                     sample_plan draws B pairs from it with replacement, so some samples are lost.
    MinibatchOT("sinkhorn", r)       OTPlanSampler("sinkhorn", reg=r), B pairs of the plan; we draw one x0 for each x1
    model(x, t)                      model(t, x) in its image networks, model(cat([x, t])) in the plane

Meta flow_matching 1.0

    rectified()                      CondOTProbPath(), AffineProbPath(CondOTScheduler())
    variance_preserving(min, max)    AffineProbPath(VPScheduler(beta_min, beta_max))
    cosine()                         AffineProbPath(CosineScheduler())
    interpolate, target              path.sample(x_0, x_1, t).x_t, .dx_t
    data_to_velocity, ..._to_data    target_to_velocity, velocity_to_target, all four with t that broadcasts, (B, 1)
    noise_to_velocity, ..._to_noise  epsilon_to_velocity, velocity_to_epsilon
    model(x, t), by position         model(x=x, t=t), by keyword
    solve(v, x0, method, steps=n)    ODESolver(v).sample(x0, step_size=1/n, method); time_grid=[1, 0] runs backward
    log_likelihood(v, x1, source)    ODESolver(v).compute_likelihood(x1, log_p0, ...), which returns (x0, log_prob)
"""

from __future__ import annotations

import torch
from torch import Tensor

from fmcore.paths import AffinePath


def pairs(shape: tuple[int, ...] = (3, 4), n: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    """Return x0 and x1 (n, *shape) and times (n,) below 0.999, equal on every call; float64 keeps rounding small."""
    g = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(2, n, *shape, generator=g, dtype=torch.float64)
    return x0, x1, 0.999 * torch.rand(n, generator=g, dtype=torch.float64)


def agree(path: AffinePath, xt: Tensor, target: Tensor, x0: Tensor, x1: Tensor, t: Tensor) -> None:
    """Require that x_t and the target of another library are those of ``path``."""
    torch.testing.assert_close(path.interpolate(x0, x1, t), xt, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(path.target(x0, x1, t), target, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(path.velocity(xt, x1, t), target, rtol=1e-7, atol=1e-7)
