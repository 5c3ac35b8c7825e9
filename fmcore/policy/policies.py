"""Three policies that learn from the same demonstrations: the mean action, a flow, a diffusion.

A policy is a callable ``policy(observation, generator) -> actions``, with observation (B, o) and a chunk of actions
(B, chunk, 2). Regression answers with the mean of all that the expert did after such an observation, which is itself
wrong where the expert has two ways. A flow or a diffusion draws from the distribution of what it did: Diffusion Policy
(Chi et al. 2023, arXiv 2303.04137) and, with flow matching, pi0 (Black et al. 2024, arXiv 2410.24164).

All count their evaluations of the network (NFE) for a ``fmcore.velocity.Evaluations`` around them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fmcore import losses, paths
from fmcore.networks import MLP
from fmcore.paths import AffinePath
from fmcore.policy.demonstrations import Demonstrations
from fmcore.solvers import METHODS, check_method, solve, time_grid
from fmcore.training import TrainingConfig, train
from fmcore.validation import check_count, check_generator, unknown_name
from fmcore.velocity import Velocity, count_evaluations, from_noise

Batch = tuple[Tensor, Tensor]  # observations (B, o) and chunks of actions (B, chunk, 2)
Policy: TypeAlias = Callable[[Tensor, torch.Generator | None], Tensor]
AnyPolicy = TypeVar("AnyPolicy", "RegressionPolicy", "FlowPolicy", "DiffusionPolicy")


class ChunkNetwork(nn.Module):
    """An MLP (x, t, observation) -> output shaped like x, a chunk of actions (B, chunk, 2).

    Args:
        chunk: actions in a chunk.
        observed: numbers in an observation.
        width, depth: of the MLP.

    Raises:
        ValueError: for sizes that are no whole numbers, or below 1.
    """

    def __init__(self, chunk: int, observed: int = 2, width: int = 128, depth: int = 3) -> None:
        super().__init__()
        check_count("chunk", chunk, "actions")
        check_count("observed", observed, "numbers in an observation")
        self.shape, self.observed = (chunk, 2), observed
        self.mlp = MLP(2 * chunk + observed, width, depth)  # the observation is input only: its outputs are dropped

    def forward(self, x: Tensor, t: Tensor | float, observation: Tensor) -> Tensor:
        """Return the output (B, chunk, 2) for x (B, chunk, 2), t of shape () or (B,), and observation (B, observed)."""
        if x.shape[1:] != self.shape or observation.shape != (len(x), self.observed):
            raise ValueError(
                f"actions of shape {tuple(x.shape)} and an observation of shape {tuple(observation.shape)}: this "
                f"network takes (B, {self.shape[0]}, 2) and (B, {self.observed})."
            )
        return self.mlp(torch.cat([x.flatten(1), observation], dim=1), t)[:, : x[0].numel()].reshape(x.shape)

    def given(self, observation: Tensor) -> Velocity:
        """Return the callable (x, t) -> output of this observation (B, observed), for losses and solvers."""
        return lambda x, t: self(x, t, observation)


@dataclass(frozen=True)
class RegressionPolicy:
    """The mean action: min E || f(o) - a ||^2, at f(o) = E[a | o]. One evaluation; nothing is drawn.

    Attributes:
        network: given zeros in the place of noisy actions and time 0, so that it is as large as that of the others.
    """

    network: ChunkNetwork

    def loss(self, network: ChunkNetwork, batch: Batch, generator: torch.Generator) -> Tensor:
        """The mean square error of the actions."""
        observation, actions = batch
        return F.mse_loss(network(torch.zeros_like(actions), 0.0, observation), actions)

    @torch.no_grad()
    def __call__(self, observation: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the mean actions (B, chunk, 2) for observations (B, o)."""
        count_evaluations(1)
        return self.network(observation.new_zeros(len(observation), *self.network.shape), 0.0, observation)


@dataclass(frozen=True)
class FlowPolicy:
    """Actions that a flow has carried from noise to those of the expert, given the observation (Black et al. 2024).

    Attributes:
        network: the velocity v(x, t, o).
        method, steps: of `fmcore.solvers.solve`; an Euler step is one evaluation.
        path: of the flow; straight unless another one is given.

    Raises:
        ValueError: for an unknown method, or steps that do not fit it.
    """

    network: ChunkNetwork
    method: str = "euler"
    steps: int | None = 8
    path: AffinePath = field(default_factory=paths.rectified)

    def __post_init__(self) -> None:
        check_method(self.method, self.steps)

    def loss(self, network: ChunkNetwork, batch: Batch, generator: torch.Generator) -> Tensor:
        """Conditional flow matching: E || v(x_t, t, o) - (a - x0) ||^2 on the straight path, x0 ~ N(0, I)."""
        observation, actions = batch
        x0 = torch.randn(actions.shape, generator=generator, device=actions.device)
        return losses.conditional_flow_matching(network.given(observation), self.path, x0, actions, generator=generator)

    def __call__(self, observation: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return actions (B, chunk, 2), one draw for each observation (B, o)."""
        x0 = _noise(observation, self.network, generator)
        return solve(self.network.given(observation), x0, method=self.method, steps=self.steps).x


@dataclass(frozen=True)
class DiffusionPolicy:
    """Actions from which a diffusion has taken the noise, given the observation (Chi et al. 2023).

    Attributes:
        network: the noise e(x, t, o) that is in a noisy chunk x.
        method: "ddim" (Song et al. 2021, arXiv 2010.02502, without noise on the way), or how to solve the probability
            flow ODE, one of the methods of `fmcore.solvers.solve`.
        steps: equal in t; one of DDIM is one evaluation.
        path: from noise to actions; variance preserving unless another one is given, with alpha(0) > 0.
        bound: of each number of an action, above 0, to which DDIM clips its guesses of them, as Chi et al. do; the
            noise is then what is left of x. None lets them be.

    Raises:
        ValueError: for an unknown method, steps that do not fit it, or a bound that is not above 0.
    """

    network: ChunkNetwork
    method: str = "ddim"
    steps: int | None = 8
    path: AffinePath = field(default_factory=paths.variance_preserving)
    bound: float | None = 3.0

    def __post_init__(self) -> None:
        if self.method not in ("ddim", *METHODS):
            raise unknown_name("method", self.method, ("ddim", *METHODS))
        if self.method == "ddim":
            check_count("steps", self.steps)
        else:
            check_method(self.method, self.steps)
        if self.bound is not None and not self.bound > 0:
            raise ValueError(f"bound={self.bound}: it is a number above 0, or None to clip nothing.")

    def loss(self, network: ChunkNetwork, batch: Batch, generator: torch.Generator) -> Tensor:
        """Noise prediction, E || e(x_t, t, o) - x0 ||^2."""
        observation, actions = batch
        x0 = torch.randn(actions.shape, generator=generator, device=actions.device)
        return losses.noise_prediction(network.given(observation), self.path, x0, actions, generator=generator)

    @torch.no_grad()
    def __call__(self, observation: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return actions (B, chunk, 2), one draw for each observation (B, o)."""
        x = _noise(observation, self.network, generator)
        noise_of = self.network.given(observation)
        if self.method != "ddim":
            return solve(from_noise(noise_of, self.path), x, method=self.method, steps=self.steps).x
        times = time_grid(0.0, 1.0, self.steps, None)[0]
        for now, following in pairwise(times):
            count_evaluations(1)
            noise = noise_of(x, now)
            actions = self.path.velocity_to_data(self.path.noise_to_velocity(noise, x, now), x, now)
            if self.bound is not None:
                actions = actions.clamp(-self.bound, self.bound)
                noise = self.path.velocity_to_noise(self.path.data_to_velocity(actions, x, now), x, now)
            x = self.path.interpolate(noise, actions, following)
        return x


def fit(policy: AnyPolicy, demonstrations: Demonstrations, config: TrainingConfig, progress: bool = False) -> AnyPolicy:
    """Return the policy with a network trained on demonstrations: the average of its weights over the last steps.

    Args:
        policy: whose network is trained in place, by `fmcore.training.train`.
        demonstrations: with chunks as long as those of the network.
        config: steps, batch, seed.
        progress: show a bar.

    Raises:
        ValueError: for chunks or observations of another shape than the network's.
    """
    rows = TensorDataset(demonstrations.observations, demonstrations.actions)
    run = train(policy.network, policy.loss, rows, config, progress=progress, ahead=0)
    return dataclasses.replace(policy, network=run.ema)


def _noise(observation: Tensor, network: ChunkNetwork, generator: torch.Generator | None) -> Tensor:
    check_generator(generator, observation.device)
    return torch.randn(len(observation), *network.shape, generator=generator, device=observation.device)
