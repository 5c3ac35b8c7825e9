"""A point robot in the plane that has to pass an obstacle on its way to a goal.

Lengths are in metres, times in seconds. One step lasts ``dt`` and moves the robot from s to

    s + dt a + noise z,     |a| <= max_speed,  z ~ N(0, I),

with the velocity a as its action. It is the smallest task with two right answers: left or right of the obstacle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fmcore.validation import check_count, check_generator

Point = tuple[float, float]


def segment_distance(first: Tensor, second: Tensor, point: Point) -> Tensor:
    """Return the distance (B,) of a point from the straight segments between ``first`` and ``second``, both (B, 2).

    Raises:
        ValueError: for ends of another shape, or that are not finite.
    """
    _check_points("first", first)
    _check_points("second", second)
    to_point, along = first.new_tensor(point) - first, second - first
    squared = along.square().sum(-1)
    # The foot of the perpendicular, kept between the ends. A segment without length is its first end.
    share = ((to_point * along).sum(-1) / squared.clamp(min=torch.finfo(first.dtype).tiny)).clamp(0, 1)
    return (to_point - share[..., None] * along).norm(dim=-1)


@dataclass(frozen=True)
class Obstacle:
    """A disc that must not be touched.

    Attributes:
        centre: of the disc, in metres.
        radius: in metres, above 0.

    Raises:
        ValueError: for a radius that is not above 0, or a centre that is no point of the plane.
    """

    centre: Point = (0.0, 0.0)
    radius: float = 1.0

    def __post_init__(self) -> None:
        _check_point("centre", self.centre)
        _check_length("radius", self.radius)

    def clearance(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the distance (B,) of the segments between ``first`` and ``second`` (B, 2) from the disc.

        It is exact between states, not only at them; negative by the depth to which a segment enters the disc.
        """
        return segment_distance(first, second, self.centre) - self.radius


@dataclass(frozen=True)
class PointRobot:
    """The environment. Its state is the position of the robot (B, 2), for B robots that do not meet, on the CPU.

    Attributes:
        obstacle: on the way.
        start: centre of the square in which a run starts.
        spread: half the side of that square, from 0.
        goal, goal_radius: the disc in which a run succeeds.
        max_speed: bound of the velocity, in metres per second; a faster action keeps its direction.
        dt: seconds a step.
        noise: standard deviation, per step and coordinate, of what moves the robot besides its action, from 0.
        horizon: steps after which a run ends.

    Raises:
        ValueError: for a length, speed or time that is not above 0, for a negative spread or noise, a horizon that is
            no whole number, or a start or goal within the obstacle.
    """

    obstacle: Obstacle = field(default_factory=Obstacle)
    start: Point = (0.0, -3.0)
    spread: float = 0.2
    goal: Point = (0.0, 3.0)
    goal_radius: float = 0.3
    max_speed: float = 3.0
    dt: float = 0.2
    noise: float = 0.03
    horizon: int = 24

    def __post_init__(self) -> None:
        for name in ("goal_radius", "max_speed", "dt"):
            _check_length(name, getattr(self, name))
        for name in ("spread", "noise"):
            _check_length(name, getattr(self, name), zero=True)
        check_count("horizon", self.horizon, "steps")
        for name, room in (("start", self.spread * math.sqrt(2)), ("goal", 0.0)):
            point = getattr(self, name)
            _check_point(name, point)
            if math.dist(point, self.obstacle.centre) <= self.obstacle.radius + room:
                raise ValueError(f"{name}={point} can lie within the obstacle {self.obstacle}: move one of them away.")
        if math.dist(self.start, self.goal) == 0:
            raise ValueError(f"start and goal are both {self.goal}: there is no way to go; move one of them.")

    def reset(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return n first states (n, 2), uniform in the square around the start; raises ValueError for n below 1."""
        check_count("n", n, "robots")
        check_generator(generator, "cpu")
        return torch.tensor(self.start) + self.spread * (2 * torch.rand(n, 2, generator=generator) - 1)

    def step(self, state: Tensor, action: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the next state (B, 2).

        Args:
            state: (B, 2), in metres.
            action: (B, 2), the velocity in metres per second, shortened to ``max_speed``.
            generator: draws the noise, if there is any.

        Raises:
            ValueError: for a state or action of another shape, or one that is not finite.
        """
        _check_points("state", state)
        _check_points("action", action)
        if len(action) != len(state):
            raise ValueError(f"{len(action)} actions for {len(state)} robots: give each robot one action (B, 2).")
        check_generator(generator, "cpu")
        speed = action.norm(dim=-1, keepdim=True)
        moved = state + self.dt * action * (self.max_speed / speed.clamp(min=self.max_speed))
        if self.noise:
            moved = moved + self.noise * torch.randn(state.shape, generator=generator)
        return moved

    def observation(self, state: Tensor) -> Tensor:
        """Return what the robot sees (B, 2): its position relative to the centre of the obstacle."""
        _check_points("state", state)
        return state - state.new_tensor(self.obstacle.centre)

    def touches(self, state: Tensor, after: Tensor) -> Tensor:
        """Whether (B,) the straight way from a state (B, 2) to the state after it touches the obstacle."""
        return self.obstacle.clearance(state, after) <= 0

    def reaches(self, state: Tensor, after: Tensor) -> Tensor:
        """Whether (B,) the straight way from a state (B, 2) to the state after it enters the goal."""
        return segment_distance(state, after, self.goal) <= self.goal_radius

    def left(self, states: Tensor) -> Tensor:
        """Whether (B,) trajectories (T+1, B, 2) pass on the left, seen from start to goal.

        Each is judged at its state that is nearest to level with the centre of the obstacle.

        Raises:
            ValueError: for trajectories of another shape.
        """
        if states.ndim != 3 or states.shape[2] != 2 or not len(states):
            raise ValueError(f"states has shape {tuple(states.shape)}: give whole trajectories, shape (T+1, B, 2).")
        ahead = states.new_tensor(self.goal) - states.new_tensor(self.start)
        sideways = torch.stack([-ahead[1], ahead[0]])
        offset = states - states.new_tensor(self.obstacle.centre)
        level = (offset @ ahead).abs().argmin(dim=0)
        return (offset @ sideways).gather(0, level[None])[0] > 0


def _check_points(name: str, x: Tensor) -> None:
    """Raise ValueError unless these are finite points (B, 2)."""
    if x.ndim != 2 or x.shape[1] != 2:
        raise ValueError(f"{name} has shape {tuple(x.shape)}: give one point of the plane a robot, shape (B, 2).")
    if not torch.isfinite(x).all():
        raise ValueError(f"{name} has NaN or infinite values: a robot moves between finite positions.")


def _check_length(name: str, value: float, zero: bool = False) -> None:
    if not (value > 0 or (zero and value == 0)) or value == math.inf:
        raise ValueError(f"{name}={value}: it is a finite number {'from' if zero else 'above'} 0.")


def _check_point(name: str, point: Point) -> None:
    if len(point) != 2 or not all(math.isfinite(number) for number in point):
        raise ValueError(f"{name}={point}: a point of the plane is two finite numbers, for example (0.0, 1.0).")
