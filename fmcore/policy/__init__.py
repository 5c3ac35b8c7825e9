"""Policies: a flow conditioned on what a robot sees gives its next actions.

environment      a point robot in the plane, an obstacle, and when a run succeeds
demonstrations   an expert that passes the obstacle on the left or on the right, cut into chunks of actions
policies         regression, flow and diffusion policies with one interface, and how they are trained
rollout          following a policy: plan a chunk, execute its first actions, plan again
"""

from fmcore.policy.demonstrations import Demonstrations, demonstrations
from fmcore.policy.environment import Obstacle, PointRobot, segment_distance
from fmcore.policy.policies import ChunkNetwork, DiffusionPolicy, FlowPolicy, Policy, RegressionPolicy, fit
from fmcore.policy.rollout import Rollout, rollout

__all__ = [
    "ChunkNetwork",
    "Demonstrations",
    "DiffusionPolicy",
    "FlowPolicy",
    "Obstacle",
    "PointRobot",
    "Policy",
    "RegressionPolicy",
    "Rollout",
    "demonstrations",
    "fit",
    "rollout",
    "segment_distance",
]
