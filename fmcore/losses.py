"""Losses: what the network is regressed on.

Each takes ``(model, path, x0, x1, ...)`` with x0 ~ N(0, I) and x1 data, both (B, *shape), draws t ~ U[0, t_max] where
none is given, and returns the mean over batch and dimensions as a scalar. What only one of them needs, a known velocity
or a bank of points, follows x1. They differ in what the model's output means:

    conditional_flow_matching   velocity    || v(x_t, t) - (alpha' x1 + sigma' x0) ||^2
    exact_flow_matching         velocity    || v(x_t, t) - u(x_t, t) ||^2, for a known marginal velocity u
    empirical_flow_matching     velocity    || v(x_t, t) - u_M(x_t, t) ||^2, u_M that of x1 and M - 1 more data points
    noise_prediction            noise       || e(x_t, t) - x0 ||^2
    data_prediction             data        || f(x_t, t) - x1 ||^2
    score_matching              score       sigma^2 || s(x_t, t) + x0 / sigma ||^2
    score_flow                  score       g^2 || s(x_t, t) + x0 / sigma ||^2
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor

from fmcore.closed_form import bank_velocity
from fmcore.paths import AffinePath
from fmcore.paths.times import check_not_integer, check_within
from fmcore.validation import check_finite, check_generator, check_pair, check_time, expand_time
from fmcore.velocity import Velocity, explained

Weight = Callable[[Tensor], Tensor]
Arguments = ParamSpec("Arguments")


def path_second(loss: Callable[Arguments, Tensor]) -> Callable[Arguments, Tensor]:
    """Let a loss name its order of arguments when something else stands where the path should."""

    @functools.wraps(loss)
    def checked(*arguments: Arguments.args, **options: Arguments.kwargs) -> Tensor:
        given = len(arguments) > 1 or "path" in options  # if not, Python says itself what is missing
        path: Any = arguments[1] if len(arguments) > 1 else options.get("path")
        if given and not hasattr(path, "interpolate"):
            found = f"{path!r}" if path is None or isinstance(path, str) else f"of type {type(path).__name__}"
            raise TypeError(
                f"the path is {found}: the order is {loss.__name__}({', '.join(inspect.signature(loss).parameters)}), "
                "with a path of fmcore.paths, for example paths.rectified()."
            )
        return loss(*arguments, **options)

    return checked


@path_second
def conditional_flow_matching(
    model: Velocity,
    path: AffinePath,
    x0: Tensor,
    x1: Tensor,
    t: Tensor | float | None = None,
    weight: Weight | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Conditional flow matching, E || v(x_t, t) - d x_t/dt ||^2 (Lipman et al. 2023, eq. 9 and 14).

    Args:
        model: ``(x, t) -> v``, shaped like x.
        path: the probability path.
        x0, x1: (B, *shape), paired by a coupling.
        t: a number, (B,) or () times in [0, 1], up to t_max where the path is singular beyond; drawn uniformly in
            [0, t_max], one per sample, when None.
        weight: a function of t, shape (B,) or (), that multiplies each sample's squared error.
        generator: draws t.

    Returns:
        Scalar, the mean over batch and dimensions (a mean, so that it compares across image sizes).

    Raises:
        ValueError: for mismatched x0 and x1, a wrong shape of t, whole-number times or (on the CPU) times outside
            [0, 1], NaN data, a model output of another shape, or a network in another precision than the data.
        TypeError: for data of integers, a model output that is no tensor, or a generator or path that is none.
    """
    t = _times(path, x0, x1, t, generator)
    xt, target = path.interpolate_with_target(x0, x1, t)
    _require_finite(xt, x0, x1)
    return _mean_square(_output(model, xt, t), target, t, weight)


@path_second
def exact_flow_matching(
    model: Velocity,
    path: AffinePath,
    x0: Tensor,
    x1: Tensor,
    velocity: Velocity,
    t: Tensor | float | None = None,
    weight: Weight | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Flow matching against a known marginal velocity, E || v(x_t, t) - u(x_t, t) ||^2 (Lipman et al. 2023, eq. 5).

    Its gradient in the model equals that of :func:`conditional_flow_matching` in expectation (Theorem 2). Arguments
    as there, and after x1 ``velocity``, for example ``closed_form.EmpiricalVelocity``, evaluated without gradient.
    """
    xt, t = _point(path, x0, x1, t, generator)
    with torch.no_grad():
        target = _output(velocity, xt, t, "velocity")
    return _mean_square(_output(model, xt, t), target, t, weight)


@path_second
def empirical_flow_matching(
    model: Velocity,
    path: AffinePath,
    x0: Tensor,
    x1: Tensor,
    bank: Tensor,
    t: Tensor | float | None = None,
    weight: Weight | None = None,
    generator: torch.Generator | None = None,
    exclude: Tensor | None = None,
) -> Tensor:
    """Empirical flow matching, E || v(x_t, t) - u_M(x_t, t) ||^2 (Bertrand et al. 2025, section 4).

    The target is the marginal velocity of M points, of which x1 is one (see ``closed_form.bank_velocity``):

        u_M(x, t) = sum_i w_i u_t(x | b_i),  w = softmax_i( -||x - alpha_t b_i||^2 / (2 sigma_t^2) ),  b_1 = x1

    Its mean given x_t is the velocity of all data, as that of conditional flow matching, so the minimizer is the same;
    its variance is lower, and falls with M. It is computed without gradient.

    Args:
        model: ``(x, t) -> v``, shaped like x.
        path: the probability path; Bertrand et al. take the rectified one.
        x0, x1: (B, *shape), paired independently.
        bank: b_2, ..., b_M, further data points drawn independently of x1 (``closed_form.draw_bank``), on the scale of
            x1: (M - 1, *shape) for the whole batch, or (B, M - 1, *shape). Empty, it is conditional flow matching.
        t, weight, generator: as in :func:`conditional_flow_matching`.
        exclude: (B, M - 1) bool, points of the bank that do not count for a sample. For a bank drawn without
            replacement these are its own x1, ``bank_rows == x1_rows[:, None]``; with replacement nothing is excluded.

    Returns:
        Scalar, the mean over batch and dimensions.

    Raises:
        ValueError: as :func:`conditional_flow_matching`; for a bank or exclude of a wrong shape, or NaN in the bank.
        TypeError: for a bank of integers, or exclude of anything but bool.
    """
    xt, t = _point(path, x0, x1, t, generator)
    with torch.no_grad():
        target = bank_velocity(path, x0, x1, t, bank, exclude)
    return _mean_square(_output(model, xt, t), target, t, weight)


@path_second
def noise_prediction(
    model: Velocity,
    path: AffinePath,
    x0: Tensor,
    x1: Tensor,
    t: Tensor | float | None = None,
    weight: Weight | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Noise prediction, E || e(x_t, t) - x0 ||^2 (Ho et al. 2020, the unweighted loss).

    Arguments as :func:`conditional_flow_matching`; the model predicts x0. ``velocity.from_noise`` turns it into a flow.
    """
    xt, t = _point(path, x0, x1, t, generator)
    return _mean_square(_output(model, xt, t), x0, t, weight)


@path_second
def data_prediction(
    model: Velocity,
    path: AffinePath,
    x0: Tensor,
    x1: Tensor,
    t: Tensor | float | None = None,
    weight: Weight | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Data prediction, E || f(x_t, t) - x1 ||^2: the network is a denoiser (Karras et al. 2022, unweighted).

    Arguments as :func:`conditional_flow_matching`; the model predicts x1. ``velocity.from_data`` turns it into a flow.
    """
    xt, t = _point(path, x0, x1, t, generator)
    return _mean_square(_output(model, xt, t), x1, t, weight)


@path_second
def score_matching(
    model: Velocity,
    path: AffinePath,
    x0: Tensor,
    x1: Tensor,
    t: Tensor | float | None = None,
    weight: Weight | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Denoising score matching, E lambda(t) || s(x_t, t) + x0 / sigma_t ||^2 (Vincent 2011; Song et al. 2021).

    Arguments as :func:`conditional_flow_matching`; the model predicts the score grad log p_t. By default
    lambda = sigma_t^2, computed as || sigma_t s + x0 ||^2, which stays finite as sigma_t goes to 0.
    ``weight`` multiplies this default. ``velocity.from_score`` turns the model into a flow.
    """
    xt, t = _point(path, x0, x1, t, generator)
    return _mean_square(path.sigma(expand_time(t, xt)) * _output(model, xt, t), -x0, t, weight)


@path_second
def score_flow(
    model: Velocity,
    path: AffinePath,
    x0: Tensor,
    x1: Tensor,
    t: Tensor | float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Score matching with the likelihood weight lambda = g(t)^2 (ScoreFlow, Song et al. 2021).

    For the variance-preserving path g^2 = beta(1 - t). Arguments as :func:`score_matching`. Relative to sigma^2 the
    weight grows like 1 / (1 - t) near the data, so single batches scatter more than with the other losses.
    """
    return score_matching(
        model, path, x0, x1, t, weight=lambda s: (path.diffusion(s) / path.sigma(s)) ** 2, generator=generator
    )


def _point(
    path: AffinePath, x0: Tensor, x1: Tensor, t: Tensor | float | None, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Return x_t and t (B,), drawing t where it is None."""
    t = _times(path, x0, x1, t, generator)
    xt = path.interpolate(x0, x1, t)
    _require_finite(xt, x0, x1)
    return xt, t


def _times(
    path: AffinePath, x0: Tensor, x1: Tensor, t: Tensor | float | None, generator: torch.Generator | None
) -> Tensor:
    """Return t (B,), drawn from U[0, t_max] where it is None."""
    check_pair(x0, x1)
    if t is None:
        check_generator(generator, x1.device)
        return path.t_max * torch.rand(len(x1), generator=generator, device=x1.device, dtype=x1.dtype)
    check_not_integer(t)
    t = check_time(t, x1)
    check_within(t)
    return t.expand(len(x1))


def _require_finite(xt: Tensor, x0: Tensor, x1: Tensor) -> None:
    """Refuse NaN and infinity in the samples, which one sum over x_t finds at a twentieth of the cost of a search.

    On a device the answer would keep the host waiting; there the training loop watches the loss.
    """
    if xt.device.type == "cpu" and not math.isfinite(xt.detach().sum().item()):
        check_finite("x0", x0)
        check_finite("x1", x1)


def _output(model: Velocity, xt: Tensor, t: Tensor, name: str = "model") -> Tensor:
    """Evaluate the model, and refuse an output that would broadcast into a wrong loss."""
    try:
        prediction = model(xt, t)
    except RuntimeError as error:
        reason = explained(error, xt, ("x0", "x1"))
        if reason is None:
            raise
        raise reason from error
    if not isinstance(prediction, Tensor):
        raise TypeError(
            f"the {name} returned a {type(prediction).__name__}: a velocity, noise or score is one tensor, shaped like "
            "x; wrap one that returns more, for example lambda x, t: model(x, t)[0]."
        )
    if prediction.shape != xt.shape:
        raise ValueError(
            f"the {name} returned shape {tuple(prediction.shape)} for x of shape {tuple(xt.shape)}: "
            "a velocity, noise or score has the shape of x."
        )
    return prediction


def _mean_square(prediction: Tensor, target: Tensor, t: Tensor, weight: Weight | None) -> Tensor:
    if weight is None:  # one kernel each way, without the tensors in between
        return F.mse_loss(prediction.to(target.dtype), target)
    squares = (prediction - target).square()
    return (squares * expand_time(weight(t), squares)).mean()
