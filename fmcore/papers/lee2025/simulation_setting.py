"""What the simulation in the plane is: its scenarios, its measures, how long and how often."""

from __future__ import annotations

from dataclasses import dataclass, fields

from fmcore.settings import checked
from fmcore.validation import unknown_name

DENSITY_STEPS = (20, 200, 6_000, 10_000)
SCENARIOS = (
    "independent",
    "transport",
    "pruned",
    *(f"density_{steps}" for steps in DENSITY_STEPS),
    "directional",
    "directional_tight",
    "directional_full",
)
MEASURES = (
    "distance",
    "failures",
    "wasserstein2",
    "coverage",
    "mmd",
    "mode_divergence",
    "normalized_wasserstein",
    "wasserstein_given_shares",
)


@dataclass(frozen=True)
class Setting:
    """How long and how often.

    Attributes:
        steps, batch: of training.
        every: steps between checkpoints.
        full_steps, full_every: the same where the batch is all of the data. The paper does not give them; these are
            those of its code.
        runs: networks a scenario.
        points: of the target, and generated ones.
        seed: of the target, and of everything that the runs draw.
    """

    steps: int = 20_000
    batch: int = 16
    every: int = 5_000
    full_steps: int = 3_125
    full_every: int = 312
    runs: int = 10
    points: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        checked(self)

    def checkpoints(self, scenario: str) -> tuple[int, ...]:
        """Steps after which a scenario is measured, the last among them."""
        steps, every = (self.full_steps, self.full_every) if is_full(scenario) else (self.steps, self.every)
        return tuple(sorted({*range(every, steps + 1, every), steps}))


PAPER = Setting()
RELEASED = Setting(steps=100_000, batch=10, every=10_000)


def is_full(scenario: str) -> bool:
    """Whether a scenario pairs all of the data at once."""
    return scenario == "directional_full"


@dataclass(frozen=True)
class SimulationConfig(Setting):
    """A simulation that can be measured by name; see `Setting`.

    Attributes:
        experiment: its name in `MEASUREMENTS`.
        scenarios: which of them.
    """

    experiment: str = ""
    scenarios: tuple[str, ...] = SCENARIOS

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.scenarios:
            if name not in SCENARIOS:
                raise unknown_name("scenario", name, SCENARIOS)
        for field in ("steps", "batch", "every", "full_steps", "full_every", "runs"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        if not self.scenarios or self.points < max(3, self.batch):
            raise ValueError(
                f"scenarios={','.join(self.scenarios)} with points={self.points} and batch={self.batch}: name at "
                "least one scenario, and have at least as many points as a batch"
            )


def _named(name: str, setting: Setting) -> SimulationConfig:
    own = {field.name: getattr(setting, field.name) for field in fields(setting)}
    return SimulationConfig(experiment=f"lee2025/simulation/{name}", **own)


MEASUREMENTS = {one.experiment: one for one in (_named("paper", PAPER), _named("released", RELEASED))}
