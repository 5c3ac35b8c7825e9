"""The simulation in the plane of Lee, Kim and Lee 2025 (arXiv 2512.18184, table 7): ten ways to start a flow.

All scenarios have the same target (`fmcore.ensemble.three_directions`), network, loss and measures. They differ in the
source, the pairing, and in one of them in where sampling starts:

    independent           the ring, independent pairs
    transport             the ring, optimal transport within the batch
    pruned                the networks of `independent`, started away from a direction in which there are no data
    density_20 ... 10000  20,000 points of a flow that was trained for so many steps on independent pairs, transport
    directional           within a cosine of .9 of the directions of the data, transport
    directional_tight     the same within .98
    directional_full      the same within .9, transport between as many points as there are data in each direction

What the released code does and this does not: it draws a fixed number of points a direction and batch (here only
`directional_full` does, otherwise each is drawn by itself), takes a sign for the pruned axis that PCA leaves open (here
its end farther from the data), and does not give the flows behind the density scenarios.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from fmcore.ensemble import Arcs, Ensemble, Member, three_directions, train
from fmcore.ensemble.plane import ANGLES, DATA_DOF, SOURCE_DOF, at_angles
from fmcore.ensemble.training import GROUP
from fmcore.metrics import (
    covered_share,
    distances_to_data,
    mmd,
    mode_divergence,
    normalized_wasserstein,
    wasserstein2,
    wasserstein_given_shares,
)
from fmcore.papers.lee2025.simulation_setting import DENSITY_STEPS, MEASURES, PAPER, SCENARIOS, Setting, is_full
from fmcore.solvers import solve
from fmcore.sources import ChiSphere, Pruned, PruningAxes, pruning_axes
from fmcore.sources.checks import drawing_device
from fmcore.sources.tabulated import chi
from fmcore.training import derived_seed, seeded_generator
from fmcore.validation import unknown_name

CACHED, PRUNED_COSINE, TOLERANCE = 20_000, 0.98, 1e-4


@dataclass(frozen=True, eq=False)
class Cached:
    """A source of given points (n, 2): each sample is one of them, with replacement."""

    points: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample, (2,)."""
        return tuple(self.points.shape[1:])

    def sample(
        self, n: int, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Draw n of the points, (n, 2), on the device (by default the generator's)."""
        device = drawing_device(n, generator, device)
        rows = torch.randint(len(self.points), (n,), generator=generator, device=device)
        return self.points[rows.to(self.points.device)].to(rows.device)


def target(setting: Setting) -> Tensor:
    """The data of all runs, (points, 2)."""
    return three_directions(setting.points, seeded(setting, "target"))


def seeded(setting: Setting, purpose: str) -> torch.Generator:
    """A generator of its own for each purpose."""
    return seeded_generator(setting.seed, purpose)


def pruned_ring(data: Tensor) -> Pruned:
    """The ring without the directions near one end of the second principal axis, the one farther from the data."""
    found = pruning_axes(data, tau=-1.0, flips=False)
    assert found.largest is not None
    positive = found.largest[1, 0] <= found.largest[1, 1]
    axes = PruningAxes(found.axes[1:2], positive.view(1), ~positive.view(1))
    return Pruned(ChiSphere((2,), SOURCE_DOF), axes, PRUNED_COSINE)


def sources(data: Tensor, setting: Setting, scenarios: Sequence[str]) -> dict[str, Any]:
    """The source of each scenario, for sampling; `pruned` is trained with that of `independent`.

    Those that approximate the density are made here, which takes the training of one network.
    """
    ring = ChiSphere((2,), SOURCE_DOF)
    made: dict[str, Any] = {
        "independent": ring,
        "transport": ring,
        "pruned": pruned_ring(data),
        "directional": Arcs(0.9),
        "directional_tight": Arcs(0.98),
        # With other numbers a direction than the data have, points of one direction go to data of another.
        "directional_full": Arcs(0.9, group=setting.points),
    }
    wanted = [steps for steps in DENSITY_STEPS if f"density_{steps}" in scenarios]
    if wanted:
        base = Ensemble([derived_seed(setting.seed, "density weights")])
        member = Member(ring, data, derived_seed(setting.seed, "density draws"))
        _, kept = train(base, [member], max(wanted), setting.batch, keep=wanted)
        start = ring.sample(CACHED, seeded(setting, "density points"))
        for steps in wanted:
            made[f"density_{steps}"] = Cached(generate(kept[steps], 0, start))
    return {name: made[name] for name in scenarios}


def generate(ensemble: Ensemble, k: int, x0: Tensor) -> Tensor:
    """The ends (n, 2) of the flow of member k from x0 (n, 2), by dopri5 with tolerances of 1e-4."""
    return solve(ensemble.member(k), x0, rtol=TOLERANCE, atol=TOLERANCE).x


def measure(generated: Tensor, data: Tensor, generator: torch.Generator) -> Tensor:
    """The MEASURES of one set of generated points, (8,) float64; failures and coverage are shares in [0, 1].

    The last two are the two definitions of the normalized Wasserstein distance, of the text and of the released code.
    """
    distance = distances_to_data(generated, data)
    centres = at_angles(torch.tensor(ANGLES, dtype=torch.float64), torch.full((3,), chi(DATA_DOF).mean))
    values = (
        float(distance.mean()),
        float((distance > 1).double().mean()),
        wasserstein2(generated, data),
        covered_share(generated, data),
        mmd(generated, data, bandwidth=1.0),
        mode_divergence(generated, data),
        normalized_wasserstein(generated, data),
        wasserstein_given_shares(generated, centres, lambda n, counts: three_directions(n, generator, counts)),
    )
    return torch.tensor(values, dtype=torch.float64)


def simulate(
    setting: Setting = PAPER,
    scenarios: Sequence[str] = SCENARIOS,
    progress: Callable[[str], object] | None = None,
) -> dict[str, Tensor]:
    """Train and measure: for each scenario a tensor (runs, checkpoints, measures), float64.

    Args:
        setting: how long and how often; PAPER or RELEASED for those of the paper and of its code.
        scenarios: names among SCENARIOS.
        progress: called with a line of text at every stage.

    Raises:
        ValueError: for an unknown scenario; the known ones are listed.
    """
    for name in scenarios:
        if name not in SCENARIOS:
            raise unknown_name("scenario", name, SCENARIOS)
    say = progress or (lambda line: None)
    data = target(setting)
    say("flows for the sources that approximate the density")
    starts = sources(data, setting, scenarios)
    results: dict[str, Tensor] = {}
    for full in (False, True):
        mine = [name for name in scenarios if is_full(name) == full]
        if not mine:
            continue
        trained = [*dict.fromkeys("independent" if name == "pruned" else name for name in mine)]
        checkpoints = setting.checkpoints(mine[0])
        say(f"{len(trained) * setting.runs} networks: {', '.join(trained)}")
        ensemble, members = _networks(trained, {**starts, "independent": ChiSphere((2,), SOURCE_DOF)}, data, setting)
        batch = len(data) if full else setting.batch
        # Pairs of all data take longer than the networks do, and the thread of a group finds them one after the other.
        group = -(-setting.runs // torch.get_num_threads()) if full else GROUP
        _, kept = train(ensemble, members, checkpoints[-1], batch, keep=checkpoints, group=group)
        for name in mine:
            say(f"measure {name}")
            first = trained.index("independent" if name == "pruned" else name) * setting.runs
            results[name] = _measured(name, starts[name], kept, first, data, setting)
    return {name: results[name] for name in starts}


def _measured(name: str, start: Any, kept: dict[int, Ensemble], first: int, data: Tensor, setting: Setting) -> Tensor:
    """The measures of a scenario, whose first network is given, (runs, checkpoints, measures); a network a thread."""

    def one(job: tuple[int, int]) -> Tensor:
        run, steps = job
        generator = seeded(setting, f"{name} {run} measured at {steps}")
        x0 = start.sample(setting.points, generator)
        return measure(generate(kept[steps], first + run, x0), data, generator)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, thread_name_prefix="measure") as pool:
            found = [*pool.map(one, product(range(setting.runs), kept))]
    finally:
        torch.set_num_threads(threads)
    return torch.stack(found).view(setting.runs, len(kept), len(MEASURES))


def _networks(
    names: Sequence[str], starts: dict[str, Any], data: Tensor, setting: Setting
) -> tuple[Ensemble, list[Member]]:
    """The networks of some scenarios, scenario by scenario, and what they learn from."""
    runs = [(name, run) for name in names for run in range(setting.runs)]
    ensemble = Ensemble([derived_seed(setting.seed, f"{name} {run} weights") for name, run in runs])
    members = [
        Member(starts[name], data, derived_seed(setting.seed, f"{name} {run} draws"), transport=name != "independent")
        for name, run in runs
    ]
    return ensemble, members


def summary(values: Tensor, best: bool = True) -> Tensor:
    """Mean and standard deviation over runs of each measure, (measures, 2), from values (runs, checkpoints, measures).

    Args:
        values: of one scenario.
        best: each measure at the best checkpoint of each run, as the paper reports; otherwise at the last checkpoint.
            The best of several noisy values is better than any of them is on average.
    """
    signs = torch.tensor([-1.0 if name == "coverage" else 1.0 for name in MEASURES], dtype=values.dtype)
    chosen = (values * signs).amin(dim=1) * signs if best else values[:, -1]
    spread = chosen.std(dim=0) if len(chosen) > 1 else torch.full_like(chosen[0], torch.nan)
    return torch.stack([chosen.mean(dim=0), spread], dim=1)
