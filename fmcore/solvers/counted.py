"""A velocity that is counted and checked while a solver asks it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fmcore.solvers.errors import SolveError
from fmcore.solvers.training_mode import warn_of_training_mode
from fmcore.validation import check_count
from fmcore.velocity import Evaluations, Velocity, asking, count_evaluations, explained

# Evaluations after which an adaptive solve gives up. A smooth flow takes tens to thousands, at any tolerance.
MAX_NFE = 100_000


class CountedVelocity:
    """A velocity that counts its evaluations, keeps t within the interval of the solve, and checks what it returns.

    Args:
        velocity: callable ``(x, t) -> v``.
        t0, t1: ends of the interval, in either order. An adaptive solver tries a first step of a length that it
            guesses, which may lead past the end, and rounding may lead any solver there, where a velocity may be
            singular: what is asked beyond is asked at the end.
        adaptive: whether the solver chooses how often it asks.
        dtype: in which the velocity is given x, while t has that of the state; by default both have that of the state.
        max_nfe: evaluations that an adaptive solver may take; a fixed number of steps is one that was asked for.
        sampling: warn of a network in training mode, whose dropout makes the flow random, if it runs in the first,
            second, fourth, eighth, ... evaluation: some networks take over on the way.

    Attributes:
        calls: of this object.
        nfe: network forwards per sample, which the velocity may say are more than one per call.
    """

    def __init__(
        self,
        velocity: Velocity,
        t0: float,
        t1: float,
        adaptive: bool = True,
        dtype: torch.dtype | None = None,
        max_nfe: int = MAX_NFE,
        sampling: bool = True,
    ) -> None:
        check_count("max_nfe", max_nfe, "evaluations")
        self.velocity = velocity
        self._asked = asking(velocity)
        self.t0, self.t1 = t0, t1
        self.first, self.last = min(t0, t1), max(t0, t1)
        self.adaptive = adaptive
        self.dtype = dtype
        self.max_nfe = max_nfe
        # Compiled functions are not watched: they would be compiled once with the watch and once without.
        compiled = hasattr(velocity, "_torchdynamo_orig_callable") and not isinstance(velocity, nn.Module)
        self.sampling = sampling and not compiled
        self.calls = 0
        self.nfe = 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Return v(x, t) in the dtype of x.

        Raises:
            ValueError: when v is not shaped like x, or x and the weights of a network are of two dtypes.
            TypeError: when v is no tensor.
            SolveError: when an adaptive solver asks for more than ``max_nfe`` evaluations.
        """
        self.calls += 1
        t = t.to(x)
        if self.adaptive and self.nfe >= self.max_nfe:
            raise SolveError(
                f"{self.nfe:,} evaluations have led from t = {self.t0:g} only to t = {float(t):g}, on the way to "
                f"{self.t1:g}: the velocity is stiff or singular there, jumps, or is rounded to fewer digits than the "
                "tolerances ask for. Take larger rtol and atol, a float64 state, a fixed-step method such as "
                "method='rk4', an earlier end, or raise max_nfe."
            )
        t = t.clamp(self.first, self.last)
        v, forwards = self._ask(x if self.dtype is None else x.to(self.dtype), t)
        self.nfe += forwards
        count_evaluations(forwards)  # this solve may be part of another velocity
        if not isinstance(v, Tensor):
            first = "lambda x, t: network(x, t)[0]" if isinstance(v, (tuple, list)) else "a function that returns it"
            raise TypeError(
                f"the velocity returned a {type(v).__name__}, not a tensor: a solver needs v alone; pass {first}."
            )
        if v.shape != x.shape:
            raise ValueError(f"the velocity returned shape {tuple(v.shape)} for x of shape {tuple(x.shape)}.")
        return v.to(x.dtype)

    def _ask(self, x: Tensor, t: Tensor) -> tuple[Tensor, int]:
        """v(x, t) and the forward passes that it took."""
        try:
            if not self.sampling or self.calls & (self.calls - 1):
                return self._answer(x, t)
            with warn_of_training_mode() as said:
                answer = self._answer(x, t)
            self.sampling = not said
            return answer
        except RuntimeError as error:
            reason = explained(error, x, ("x0",))
            if reason is None:
                raise
            raise reason from error

    def _answer(self, x: Tensor, t: Tensor) -> tuple[Tensor, int]:
        with Evaluations() as one:
            return self._asked(x, t), one.total
