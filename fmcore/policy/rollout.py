"""Following a policy with a receding horizon: plan a chunk, execute its first actions, look, and plan again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fmcore.policy.environment import PointRobot
from fmcore.policy.policies import Policy
from fmcore.validation import check_count
from fmcore.velocity import Evaluations


@dataclass(frozen=True)
class Rollout:
    """What became of B robots.

    Attributes:
        states: (T + 1, B, 2), where they were; a robot stands still once it has touched the obstacle or reached the
            goal. T is the horizon of the environment.
        success: (B,) bool, reached the goal, and never touched the obstacle.
        collided: (B,) bool, touched the obstacle. Neither of the two: still on its way at the end.
        left: (B,) bool, on which side they passed; see `PointRobot.left`.
        nfe: evaluations of the network for one robot, over all plans of the run.
    """

    states: Tensor
    success: Tensor
    collided: Tensor
    left: Tensor
    nfe: int


def rollout(
    environment: PointRobot, policy: Policy, n: int, execute: int, generator: torch.Generator | None = None
) -> Rollout:
    """Let n robots follow a policy from the start to the end of the horizon (receding horizon, Chi et al. 2023).

    Args:
        environment: the robot and its obstacle.
        policy: ``policy(observation, generator) -> (B, chunk, 2)``.
        n: robots.
        execute: actions of each chunk that are executed before the policy is asked again, at most the whole chunk.
        generator: draws starts, actions and noise.

    Raises:
        ValueError: for an n or execute below 1, more actions to execute than a chunk has, or actions of another shape.
    """
    check_count("execute", execute, "actions")
    state = environment.reset(n, generator)
    states, nfe = [state], 0
    success = torch.zeros(n, dtype=torch.bool)
    collided = success.clone()
    for number in range(environment.horizon):
        if number % execute == 0:
            with Evaluations() as one:
                plan = policy(environment.observation(state), generator)
            nfe += one.total
            _check_plan(plan, n, execute)
        after = environment.step(state, plan[:, number % execute], generator)
        after = torch.where((success | collided)[:, None], state, after)
        collided = collided | (environment.touches(state, after) & ~success)
        success = success | (environment.reaches(state, after) & ~collided)
        state = after
        states.append(state)
    runs = torch.stack(states)
    return Rollout(runs, success, collided, environment.left(runs), nfe)


def _check_plan(plan: Tensor, n: int, execute: int) -> None:
    if plan.ndim != 3 or len(plan) != n or plan.shape[2] != 2:
        raise ValueError(f"the policy gave actions of shape {tuple(plan.shape)} for {n} robots: (B, chunk, 2) is due.")
    if execute > plan.shape[1]:
        raise ValueError(f"execute={execute}: a chunk of this policy has {plan.shape[1]} actions to execute.")
