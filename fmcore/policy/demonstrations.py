"""Demonstrations: an expert passes the obstacle, on either side equally often."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from fmcore.policy.environment import PointRobot
from fmcore.validation import check_count, check_generator

# Of the horizon, the share in which the expert reaches the goal: policies learned from it have time to spare.
SHARE_OF_HORIZON = 0.75
# How far from the edge of the obstacle the expert passes, in metres: uniform between these.
MARGIN = (0.5, 1.0)


@dataclass(frozen=True)
class Demonstrations:
    """What policies learn from, and the runs it was cut from.

    Attributes:
        observations: (N, 2), what the robot saw. N = steps * n, and row k n + i is step k of run i.
        actions: (N, chunk, 2), the next ``chunk`` actions of the expert from there on; at the goal it waits.
        states: (steps + 1, n, 2), the runs.
        left: (n,) bool, the runs that passed on the left, as `PointRobot.left` sees them.
    """

    observations: Tensor
    actions: Tensor
    states: Tensor
    left: Tensor


def expert_route(environment: PointRobot, start: Tensor, left: Tensor, margin: Tensor) -> Tensor:
    """Return routes (steps + 1, B, 2) around the obstacle: the way to the goal, bent to one side by an arc of a sine.

    Args:
        environment: with an obstacle about half way between start and goal.
        start: (B, 2), where each begins.
        left: (B,) bool, on which side each passes.
        margin: (B,) how far it keeps from the edge of the obstacle where it is level with its centre, in metres.
    """
    steps = max(1, round(SHARE_OF_HORIZON * environment.horizon))
    s = torch.linspace(0, 1, steps + 1)[:, None, None]
    goal = torch.tensor(environment.goal)
    ahead = goal - torch.tensor(environment.start)
    sideways = torch.stack([-ahead[1], ahead[0]]) / ahead.norm()
    # The centre of the obstacle need not lie on the line from start to goal.
    beside = (torch.tensor(environment.obstacle.centre) - torch.tensor(environment.start)) @ sideways
    height = beside + torch.where(left, 1.0, -1.0) * (environment.obstacle.radius + margin)
    return (1 - s) * start + s * goal + torch.sin(math.pi * s) * height[:, None] * sideways


def demonstrations(
    environment: PointRobot, n: int, chunk: int, generator: torch.Generator | None = None
) -> Demonstrations:
    """Let the expert run n times, and cut what it did into chunks.

    The expert steers to the next point of its route from wherever the noise has moved it, so that its actions also show
    how to come back. The side is that of a fair coin for each run, whatever its start.

    Args:
        environment: the robot and its obstacle.
        n: runs.
        chunk: actions in a chunk.
        generator: draws starts, sides, margins and noise.

    Raises:
        ValueError: for an n or chunk below 1, or an environment in which the expert touches the obstacle or does not
            reach the goal: the route is too long for the horizon and speed, or the noise too large.
    """
    check_count("n", n, "runs")
    check_count("chunk", chunk, "actions")
    check_generator(generator, "cpu")
    state = environment.reset(n, generator)
    to_left = torch.rand(n, generator=generator) < 0.5
    margin = MARGIN[0] + (MARGIN[1] - MARGIN[0]) * torch.rand(n, generator=generator)
    states, actions = [state], []
    for following in expert_route(environment, state, to_left, margin)[1:]:
        actions.append((following - state) / environment.dt)
        state = environment.step(state, actions[-1], generator)
        states.append(state)
    runs = torch.stack(states)
    ways = list(pairwise(runs))
    touched = torch.stack([environment.touches(state, after) for state, after in ways]).any(0)
    reached = torch.stack([environment.reaches(state, after) for state, after in ways]).any(0)
    if failed := int((touched | ~reached).sum()):
        raise ValueError(
            f"the expert fails in {failed} of {n} runs: its route around the obstacle needs a larger horizon or "
            "max_speed, less noise, or an obstacle nearer to the middle of the way."
        )
    waiting = torch.zeros(chunk - 1, n, 2)
    chunks = torch.cat([torch.stack(actions), waiting]).unfold(0, chunk, 1)  # (steps, n, 2, chunk)
    observations = environment.observation(runs[:-1].flatten(0, 1))
    return Demonstrations(observations, chunks.transpose(2, 3).flatten(0, 1), runs, environment.left(runs))
