"""The point robot: distances against brute force, its bounds, and who passes on which side."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from fmcore.policy import Obstacle, PointRobot, segment_distance
from tests.analytic import seeded


def test_the_distance_of_a_segment_is_that_of_its_nearest_point():
    first, second = torch.randn(2, 300, 2, generator=seeded(0), dtype=torch.float64)
    second[:20] = first[:20]  # segments without length
    point, parts = (0.3, -0.2), 4000
    share = torch.linspace(0, 1, parts + 1, dtype=torch.float64)[:, None, None]
    among = (
        ((1 - share) * first + share * second - torch.tensor(point, dtype=torch.float64)).norm(dim=2).min(dim=0).values
    )
    excess = among - segment_distance(first, second, point)
    assert excess.min() > -1e-12
    assert (excess <= (second - first).norm(dim=1) / parts + 1e-12).all()


@pytest.mark.parametrize(
    ("first", "second", "clearance"),
    [
        ((-5.0, 2.0), (5.0, 2.0), 1.0),  # passes beside
        ((-5.0, 1.0), (5.0, 1.0), 0.0),  # grazes
        ((-5.0, 0.0), (5.0, 0.0), -1.0),  # goes through the middle, with both ends outside
        ((3.0, 4.0), (6.0, 8.0), 4.0),  # ends before, or begins behind
        ((6.0, 8.0), (3.0, 4.0), 4.0),
        ((3.0, 4.0), (3.0, 4.0), 4.0),  # stands
    ],
)
def test_clearance_between_two_states(first, second, clearance):
    states = torch.tensor([first]), torch.tensor([second])
    assert_close(Obstacle().clearance(*states), torch.tensor([clearance]))
    assert PointRobot().touches(*states).item() == (clearance <= 0)


def test_a_fast_action_keeps_its_direction_and_a_slow_one_its_speed():
    robot = PointRobot(max_speed=5.0, dt=0.1, noise=0.0)
    actions = torch.tensor([[30.0, 40.0], [0.3, -0.4], [0.0, 0.0]])
    after = robot.step(torch.ones(3, 2), actions)
    assert_close(after, torch.tensor([[1.3, 1.4], [1.03, 0.96], [1.0, 1.0]]))


def test_noise_and_starts_are_spread_as_said():
    robot = PointRobot(noise=0.05, spread=0.3)
    start = robot.reset(20_000, seeded(0))
    moved = robot.step(start, torch.zeros_like(start), seeded(1)) - start
    assert_close(moved.std(dim=0), torch.full((2,), 0.05), rtol=0.03, atol=0)
    offset = start - torch.tensor(robot.start)
    assert 0.29 < offset.abs().max() <= 0.3 + 1e-6
    assert_close(offset.std(dim=0), torch.full((2,), 0.3 / math.sqrt(3)), rtol=0.03, atol=0)


def test_left_is_as_one_who_walks_to_the_goal_has_it():
    to_the_right = PointRobot(Obstacle((5.0, 1.0)), start=(0.0, 1.0), goal=(10.0, 1.0))
    above = torch.tensor([[0.0, 0.0], [3.0, 0.5], [5.2, 3.0], [8.0, -4.0], [10.0, 1.0]])
    mirrored = above * torch.tensor([1.0, -1.0]) + torch.tensor([0.0, 2.0])
    runs = torch.stack([above, mirrored], dim=1)
    assert to_the_right.left(runs).tolist() == [True, False]
    back = PointRobot(Obstacle((5.0, 1.0)), start=(10.0, 1.0), goal=(0.0, 1.0))
    assert back.left(runs).tolist() == [False, True]


def test_an_observation_is_relative_to_the_obstacle():
    robot = PointRobot(Obstacle((1.0, -1.0), 0.5))
    assert_close(robot.observation(torch.tensor([[1.0, 2.0]])), torch.tensor([[0.0, 3.0]]))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_speed": 0.0}, "max_speed=0.0: it is a finite number above 0"),
        ({"dt": math.nan}, "dt=nan"),
        ({"noise": -0.1}, "noise=-0.1: it is a finite number from 0"),
        ({"spread": math.inf}, "spread=inf"),
        ({"horizon": 2.5}, "a number of steps is a whole number"),
        ({"start": (0.0, -1.1)}, "can lie within the obstacle"),
        ({"goal": (0.5, 0.5)}, "move one of them away"),
        ({"goal": (0.0, -3.0)}, "there is no way to go"),
        ({"goal": (0.0, 1.0, 2.0)}, "a point of the plane is two finite numbers"),
    ],
)
def test_an_impossible_environment_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        PointRobot(**settings)


def test_an_impossible_obstacle_is_refused():
    with pytest.raises(ValueError, match="radius=0.0: it is a finite number above 0"):
        Obstacle(radius=0.0)
    with pytest.raises(ValueError, match="centre="):
        Obstacle(centre=(0.0, math.nan))


def test_states_and_actions_of_another_shape_are_refused():
    robot, state = PointRobot(), torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"state has shape \(2,\)"):
        robot.step(torch.zeros(2), state)
    with pytest.raises(ValueError, match="1 actions for 3 robots"):
        robot.step(state, torch.zeros(1, 2))
    with pytest.raises(ValueError, match="action has NaN"):
        robot.step(state, state / 0)
    with pytest.raises(ValueError, match="give whole trajectories"):
        robot.left(state)
    with pytest.raises(ValueError, match="n is 0"):
        robot.reset(0)
