"""What every velocity field is, and how other predictions become one.

A velocity is any callable ``(x, t) -> v`` with x of shape (B, *shape), t of shape () or (B,) and v shaped like x: a
network, a closed form, a plain function. Solvers, likelihoods and losses ask for nothing more.

Numbers of 16 bits. Between 0.5 and 1 bfloat16 knows 128 times and float16 knows 1,024; the last of them is 1, where
many velocities are singular. A solver therefore passes t in float32 with x in 16 bits, and what is computed here from t
is computed, and returned, in float32; the network is given x as it is. Only a network that cannot take x and t in two
dtypes is given t in that of x, where it is called (`asking`).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import TypeAlias

import torch
from torch import Tensor, nn

from fmcore.paths import AffinePath
from fmcore.validation import expand_time

Velocity: TypeAlias = Callable[[Tensor, Tensor], Tensor]

# What PyTorch's layers say when they are given two dtypes.
MISMATCHES = ("same dtype", "scalar type", "dtype mismatch", "mixed dtype", "input type")


def float32_at_least(x: Tensor) -> Tensor:
    """Return x in float32 if it holds floating-point numbers of fewer bits, or x itself."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def about_dtypes(error: RuntimeError) -> bool:
    """Whether a layer says that it was given two dtypes."""
    return any(words in str(error).lower() for words in MISMATCHES)


def two_dtypes(x: torch.dtype, weights: torch.dtype, points: tuple[str, ...] = ("x",)) -> ValueError:
    """Build the error for points of one dtype and weights of another; ``points`` are the names of what to convert."""
    convert = " and ".join(f"{name}.{_conversion(weights)}" for name in points)
    return ValueError(
        f"x is {_name(x)} and the network's weights are {_name(weights)}: convert one of them, {convert} or "
        f"network.{_conversion(x)}."
    )


def explained(error: RuntimeError, x: Tensor, points: tuple[str, ...] = ("x",)) -> ValueError | None:
    """The error of :func:`two_dtypes` for a velocity that raised ``error`` at x, or None if that is not the reason.

    The weights are those of the innermost network in which the error was raised, however it is wrapped.
    """
    if not about_dtypes(error):
        return None
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        network = frame.f_locals.get("self")
        if isinstance(network, nn.Module):
            for weight in network.parameters():
                if weight.is_floating_point():
                    return None if weight.dtype == x.dtype else two_dtypes(x.dtype, weight.dtype, points)
    return None


def asking(model: Velocity) -> Velocity:
    """The model, given t in the dtype of x from then on if it turns out that it cannot take the two in two dtypes.

    That is a network that joins x of 16 bits and t of 32. Its weights would round t in any case; but what is computed
    from t around it is not to be rounded with it, so this stands where the network itself is called.
    """
    rounded = False

    def asked(x: Tensor, t: Tensor) -> Tensor:
        nonlocal rounded
        if not isinstance(t, Tensor) or t.dtype == x.dtype:
            return model(x, t)
        if not rounded:
            try:
                with Evaluations() as one:
                    v = model(x, t)
            except RuntimeError as error:
                if not about_dtypes(error):
                    raise
                rounded = True
            else:
                count_evaluations(one.counted)
                return v
        return model(x, t.to(x.dtype))

    return asked


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _conversion(dtype: torch.dtype) -> str:
    """The call that converts a tensor or a network, as one writes it."""
    short = {torch.float32: "float", torch.float64: "double", torch.float16: "half", torch.bfloat16: "bfloat16"}
    return f"{short[dtype]}()" if dtype in short else f"to({dtype})"


class Evaluations:
    """Counts the forward passes of a network for each sample while a ``with`` block runs.

    A velocity that asks its network more than once says so where that happens, by :func:`count_evaluations`. So the
    count is right however the velocity is wrapped: in a conversion, a plain function or another count. A block in
    which nothing was said is one evaluation. Threads that the block starts are not heard.

    What says nothing is not noticed beside what does: ``guided(x, t) + network(x, t)`` counts the two forward passes
    that guidance names, not the third, and ``network(x, t) + other(x, t)`` counts one. Whoever writes such a sum calls
    ``count_evaluations(1)``, or ``count_evaluations(2)``, in it.
    """

    def __init__(self) -> None:
        self.counted = 0
        self._before: Token[Evaluations | None] | None = None

    @property
    def total(self) -> int:
        """Forward passes for each sample, at least 1."""
        return max(1, self.counted)

    def __enter__(self) -> Evaluations:
        self._before = _RUNNING.set(self)
        return self

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            _RUNNING.reset(self._before)


_RUNNING: ContextVar[Evaluations | None] = ContextVar("the count that is running", default=None)


def count_evaluations(forwards: int) -> None:
    """Add forward passes for each sample to the innermost :class:`Evaluations` that runs, if one does."""
    running = _RUNNING.get()
    if running is not None:
        running.counted += forwards


def from_noise(model: Velocity, path: AffinePath) -> Velocity:
    """Return the velocity of a network that predicts the noise E[x0 | x], as DDPM does."""
    return _converted(path.noise_to_velocity, model, path)


def from_score(model: Velocity, path: AffinePath) -> Velocity:
    """Return the velocity of a network that predicts the score grad log p_t(x).

    The score points towards the data: the same formula with minus the score, as one symbol of Lipman et al. 2023
    is defined, runs away from them.
    """
    return _converted(path.score_to_velocity, model, path)


def from_data(model: Velocity, path: AffinePath) -> Velocity:
    """Return the velocity of a network that predicts the clean data E[x1 | x] (a denoiser)."""
    return _converted(path.data_to_velocity, model, path)


def _converted(convert: Callable[[Tensor, Tensor, Tensor], Tensor], model: Velocity, path: AffinePath) -> Velocity:
    """The velocity ``convert(model(x, t), x, t)``; its attribute ``path`` says to a solver where it ends."""
    model = asking(model)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        prediction, wide = model(x, t), float32_at_least(x)
        return convert(prediction if wide is x else float32_at_least(prediction), wide, t)

    velocity.path = path  # type: ignore[attr-defined]
    return velocity


def scaled_up(velocity: Velocity, factor: float) -> Velocity:
    """The velocity of the straight path to factor * x1, from that of the straight path to x1, without any training.

    With y_s = (1 - s) x0 + s c x1, a = 1 - s + c s and t = c s / a, a point of one path is one of the other,
    y_s = a x_t. So, by the chain rule with dt/ds = c / a^2,

        dy/ds = (c - 1) y / a + (c / a) v(y / a, t).

    Both flows lead from x0 to the same place, up to the factor c. What differs are the steps of a solver: equal ones in
    s are short in t near the data if c is above 1. Norm alignment by c (Lee et al. 2025, arXiv 2512.18184) is that. Its
    expected loss is c times that of the other path for every velocity: only the draws of the times differ.

    Args:
        velocity: of x_t = (1 - t) x0 + t x1.
        factor: c, above 0.

    Raises:
        ValueError: for a factor that is not above 0.
    """
    if not factor > 0:
        raise ValueError(f"factor is {factor}: data are scaled by a number above 0.")
    velocity = asking(velocity)

    def scaled(y: Tensor, s: Tensor) -> Tensor:
        dtype, y, s = y.dtype, float32_at_least(y), float32_at_least(s)
        a = 1 + (factor - 1) * s
        broad = expand_time(a, y)
        return ((factor - 1) * y + factor * velocity((y / broad).to(dtype), factor * s / a)) / broad

    return scaled
