"""Mean velocities: flows of one step, or a few.

A solver needs many evaluations because v changes along the way. The mean velocity of a whole interval needs one. With
phi_{s->t}(x) the place at time t of the point that is at x at time s and follows v,

    u(x, s, t) = (phi_{s->t}(x) - x) / (t - s),     u(x, s, s) = v(x, s),

so the step x + (t - s) u(x, s, t) is exact however long it is, and x0 + u(x0, 0, 1) is a sample. Steps can be joined:

    (t - s) u(x, s, t) = (r - s) u(x, s, r) + (t - r) u(phi_{s->r}(x), r, t).

It is learned without solving (Geng et al. 2025, "Mean flows for one-step generative modeling", arXiv 2505.13447). Along
a trajectory x_s, (t - s) u(x_s, s, t) is the integral of v(x_r, r) from s to t. Differentiate both sides in s, t held:
-u + (t - s) du/ds = -v(x_s, s), where du/ds follows the trajectory, dx_s/ds = v. Hence

    u = v + (t - s) du/ds,     du/ds = (v . grad_x) u + partial_s u,

one Jacobian-vector product with the tangents v for x, 1 for s and 0 for t. (In the paper time runs from the data to the
noise and the point stands at the later end of its interval r, t: there the identity is u = v - (t - r) du/dt.)

A network of (x, s, t) regresses on the right-hand side, computed with the network itself and held constant. This side
is linear in v for a given u, so v may be that of one pair, whose mean given x_s is the marginal velocity, as in flow
matching. Flow maps (Boffi et al. 2024, arXiv 2406.07507) learn phi by the same equation; shortcut models (Frans et al.
2024, arXiv 2410.12557) learn u by joining two steps.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from fmcore.networks import MLP
from fmcore.networks.inputs import time_of
from fmcore.networks.sizes import check_layers
from fmcore.paths import AffinePath
from fmcore.paths.times import check_not_integer, check_within
from fmcore.solvers import NOT_FINITE, Solution, SolveError, solve, time_grid, warn_of_training_mode
from fmcore.time_sampling import uniform
from fmcore.validation import check_count, check_finite, check_floating, check_time, expand_time, unknown_name
from fmcore.velocity import Evaluations, Velocity, count_evaluations

Time = Tensor | float  # of shape () or (B,)
Times = Callable[..., Tensor]  # (n, generator=, device=) -> (n,), as in fmcore.time_sampling
Mean = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x, s, t) -> u, shaped like x (B, *shape)


class MeanVelocity(nn.Module):
    """A perceptron (x, s, t) -> u whose inputs are x, s and t - s; sizes, shapes and errors as `networks.MLP`."""

    def __init__(self, dim: int, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        check_layers(dim=dim)
        self.dim = dim
        # The length of the interval travels as one more coordinate; what comes out for it is dropped.
        self.network = MLP(dim + 1, width, depth)

    def forward(self, x: Tensor, s: Time, t: Time) -> Tensor:
        """Return u, shaped like x (B, *shape), for s and t in [0, 1], numbers or of shape () or (B,)."""
        if x.shape[1:].numel() != self.dim:
            raise ValueError(f"x has shape {tuple(x.shape)}, but this network was built for {self.dim} dimensions.")
        s, t = time_of(x, s).to(x.dtype), time_of(x, t).to(x.dtype)
        inputs = torch.cat([x.flatten(1), (t - s).expand(len(x))[:, None]], dim=1)
        return self.network(inputs, s)[:, :-1].reshape(x.shape)

    def velocity(self, x: Tensor, t: Time) -> Tensor:
        """Return u(x, t, t), the velocity that the network has learned, as solvers take it."""
        return self(x, t, t)


def exact_mean_velocity(
    velocity: Velocity, x: Tensor, s: Time, t: Time, steps: int | None = None, rtol: float = 1e-6, atol: float = 1e-6
) -> Tensor:
    """The mean velocity of a known velocity, by following it: the oracle, without gradient.

    With r the share of the interval that has passed and y = (x_r - x) / (t - s), it is y(1) of

        dy/dr = v(x + (t - s) y, s + r (t - s)),     y(0) = 0.

    Each sample has its own interval, nothing is divided by t - s, and s = t gives v(x, s).

    Args:
        velocity: ``(x, t) -> v`` for t of shape () and (B,), for example ``closed_form.EmpiricalVelocity``.
        x: (B, *shape), the points at time s.
        s, t: in [0, 1], numbers or of shape () or (B,), in either order; end at ``path.t_max`` where v is singular.
        steps: of the Runge-Kutta method of order 4; None for dopri5, whose tolerances are on u itself.

    Raises:
        ValueError: for times outside [0, 1] or of another shape, or NaN in x. The rest is as in `solvers.solve`.
    """
    check_floating("x", x)
    check_finite("x", x)
    s, t = _time(s, x), _time(t, x)
    length, first, last = expand_time(t - s, x), torch.minimum(s, t), torch.maximum(s, t)

    def along(y: Tensor, r: Tensor) -> Tensor:
        # Rounding must not lead past the end, where a velocity may be singular.
        return velocity(x + length * y, (s + r.to(s) * (t - s)).clamp(first, last))

    return solve(along, torch.zeros_like(x), 0.0, 1.0, "dopri5" if steps is None else "rk4", steps, rtol, atol).x


def total_derivative(model: Mean, x: Tensor, v: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return u(x, s, t) and du/ds = (v . grad_x) u + partial_s u, from one pass of forward-mode differentiation.

    The model is made of operations that PyTorch can differentiate forward, and is not compiled. x and v are (B, *shape)
    points and how they move as s grows; s and t are (B,). Raises ValueError for a u that is not shaped like x.
    """
    _load_forward_mode()
    with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no forward derivative
        x, s = forward_ad.make_dual(x, v), forward_ad.make_dual(s, torch.ones_like(s))
        u, rate = forward_ad.unpack_dual(_output(model(x, s, t), x))
    return u, torch.zeros_like(u) if rate is None else rate


def draw_intervals(
    n: int, generator: Generator | None = None, equal: float = 0.5, times: Times = uniform, device: str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Draw n intervals s <= t in [0, 1], two tensors (n,) in float32.

    Args:
        n, generator, device: how many, from what, and where.
        equal: the share in [0, 1] with s = t, each by chance: they are then one draw of ``times``, else two in order.
        times: ``times(n, generator=, device=) -> (n,)``, as in `fmcore.time_sampling`.
    """
    if not 0 <= equal <= 1:
        raise ValueError(f"equal={equal}: the share of intervals with s = t is a number from 0 to 1, for example 0.5.")
    first, second = (times(n, generator=generator, device=device) for _ in range(2))
    second = torch.where(torch.rand(n, generator=generator, device=device) < equal, first, second)
    return torch.minimum(first, second), torch.maximum(first, second)


def mean_flow_matching(
    model: Mean,
    path: AffinePath,
    x0: Tensor,
    x1: Tensor,
    generator: Generator | None = None,
    *,
    s: Time | None = None,
    t: Time | None = None,
    equal: float = 0.5,
    times: Times = uniform,
    weight: str = "none",
    power: float = 1.0,
) -> Tensor:
    """The loss of a mean velocity, E || u(x_s, s, t) - target ||^2 (Geng et al. 2025, algorithm 1).

        target = v + (t - s) [ (v . grad_x) u + partial_s u ](x_s, s, t),     v = alpha_s' x1 + sigma_s' x0,

    held constant: the gradient goes through the prediction alone. Where s = t it is conditional flow matching.
    Returned is the mean over batch and dimensions, a scalar.

    Args:
        model: ``(x, s, t) -> u``, for example :class:`MeanVelocity`; see :func:`total_derivative`.
        path: the probability path.
        x0, x1: (B, *shape), paired by a coupling.
        generator: draws s and t.
        s, t: numbers, () or (B,) times in [0, 1] in place of drawn ones, which end at ``path.t_max``.
        equal, times: as in :func:`draw_intervals`.
        weight: "none", or "adaptive" (Geng et al. 2025, section 4), which multiplies the error of each sample by
            (|| u - target ||^2 + 1e-3)^-power, held constant. At power 1 the loss hardly changes in training.
        power: of the adaptive weight, from 0.

    Raises:
        ValueError: for mismatched x0 and x1, times of a wrong shape or outside [0, 1], one of s and t alone, NaN data,
            an unknown weight, a power below 0, a share outside [0, 1], or a model output of another shape.
        TypeError: for data of integers, a path or generator that is none, or an output that is no tensor.
    """
    if not hasattr(path, "interpolate"):
        raise TypeError(f"the path is a {type(path).__name__}: the order is model, path, x0, x1; see fmcore.paths.")
    if weight not in ("none", "adaptive"):
        raise unknown_name("weight", weight, ("none", "adaptive"))
    if not 0 <= power < math.inf:
        raise ValueError(f"power={power}: the power of the adaptive weight is a number from 0, for example 1.0.")
    if (s is None) != (t is None):
        raise ValueError(f"s is {s} and t is {t}: give both ends of the interval, or neither and they are drawn.")
    if s is None or t is None:
        s, t = (path.t_max * end for end in draw_intervals(len(x1), generator, equal, times, str(x1.device)))
    s, t = (_time(end, x1).expand(len(x1)).contiguous() for end in (s, t))
    xs, v = path.interpolate_with_target(x0, x1, s)
    if xs.device.type == "cpu":  # elsewhere the answer would keep the host waiting
        check_finite("x0 or x1", xs)
    with torch.no_grad():  # cheaper than a graph of both that the prediction shares
        target = v + expand_time(t - s, v) * total_derivative(model, xs, v, s, t)[1]
    u = model(xs, s, t)
    if weight == "none":
        return F.mse_loss(u.to(target.dtype), target)
    squares = (u - target).square().flatten(1)
    return (squares.mean(dim=1) * (squares.detach().sum(dim=1) + 1e-3) ** -power).mean()


def few_steps(model: Mean, x0: Tensor, steps: int, t1: float = 1.0) -> Solution:
    """Sample from x0 (B, *shape) in equal steps x + (t - s) u(x, s, t) from time 0 to t1, one evaluation each.

    The model is given s and t of shape (). The solution has no trajectory; its ``nfe`` counts as in `solvers.solve`,
    which raises and warns as this does. Take ``path.t_max`` for t1 where u is singular beyond.
    """
    check_count("steps", steps)
    check_floating("x0", x0)
    check_finite("x0", x0)
    grid = time_grid(0.0, t1, steps, None)[0]
    x, nfe = x0, 0
    with torch.no_grad(), warn_of_training_mode():
        for s, t in pairwise(grid.to(x0)):
            with Evaluations() as one:
                x = x + (t - s) * _output(model(x, s, t), x)
            count_evaluations(one.total)
            nfe += one.total
    if not torch.isfinite(x).all():
        raise SolveError(NOT_FINITE)
    return Solution(x, nfe, grid[[0, -1]])


def one_step(model: Mean, x0: Tensor, t1: float = 1.0) -> Solution:
    """Sample by x0 + t1 u(x0, 0, t1); see :func:`few_steps`."""
    return few_steps(model, x0, 1, t1)


def _time(t: Time, x: Tensor) -> Tensor:
    """Times of shape () or (B,) in [0, 1], on the device and in the dtype of x."""
    check_not_integer(t)
    t = check_time(t, x)
    check_within(t)
    return t


@cache
def _load_forward_mode() -> None:
    """Make a first dual number, at which PyTorch 2.13 warns of a function that it calls itself."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.filterwarnings("ignore", r"`torch\.jit\.script`", DeprecationWarning)
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))


def _output(u: Tensor, x: Tensor) -> Tensor:
    if not isinstance(u, Tensor):
        raise TypeError(f"the model returned a {type(u).__name__}: a mean velocity is one tensor, shaped like x.")
    if u.shape != x.shape:
        raise ValueError(f"the model returned shape {tuple(u.shape)} for x of shape {tuple(x.shape)}.")
    return u
