"""A trained network beside the oracle: the exact velocity u* of the images that it was trained on.

u* leads every sample to a training image. Two measurements say when a network departs from it (Bertrand et al. 2025,
arXiv 2506.03719): the error E || v - u* ||^2 at each time (figure 2, left), and hybrid samples, which follow u* up to a
time tau and the network from there on (figure 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from fmcore.closed_form import EmpiricalVelocity
from fmcore.data.images import to_uint8
from fmcore.metrics.memorization import nearest_training_images
from fmcore.metrics.velocities import velocity_mse
from fmcore.solvers import solve
from fmcore.training import resident

if TYPE_CHECKING:
    from fmcore.experiments.run.finished import Run

# Euler steps of a hybrid sample, as in the code of Bertrand et al. 2025.
STEPS = 100


@dataclass(frozen=True, eq=False)
class Hybrids:
    """Samples from the same starts, one set for each switch.

    Attributes:
        switches: the times tau, increasing.
        images: (switches, n, C, H, W), on the CPU; pixels in the middle of their bins, as whole numbers would be.
        exact: (n, C, H, W), where u* alone leads.
    """

    switches: tuple[float, ...]
    images: Tensor
    exact: Tensor


def training_points(run: Run) -> Tensor:
    """All images that the network could see in training, whole numbers; with their mirror images if flips were on.

    They are where the run computes, if they fit.
    """
    images = run.training_images
    images = torch.cat([images, images.flip(-1)]) if run.configuration.flips else images
    return cast(Tensor, resident(images, run.device)[0])


def velocity_errors(run: Run, generator: torch.Generator) -> list[dict[str, float]]:
    """E || v - u* ||^2 / d at each of `velocity_times`, at points on the way to training images.

    Returns:
        One entry a time: "t"; "error" and its "standard_error" over pairs; "exact", E || u* ||^2 / d, the error of a
        network that predicts 0; "conditional", E || u* - d x_t/dt ||^2 / d, how far single targets are from u*.
    """
    settings, points = run.configuration.evaluation, training_points(run)
    exact = EmpiricalVelocity(points, run.path, scale=run.data.scaled)
    rows = torch.randint(len(points), (settings.velocity_pairs,), generator=generator)
    # x0 as the network saw it in training: run.source has the scale of the path already, and x_t would have it twice.
    pairs = run.data.scaled(points[rows.to(points.device)]), run.fitted.source.sample(len(rows), generator)
    found = []
    for t in settings.velocity_times:
        parts = []
        for x1, x0 in zip(*(part.split(settings.solver_batch) for part in pairs), strict=True):
            x1, x0 = x1.to(run.device), x0.to(run.device)
            time = min(t, run.path.t_max)  # where sigma = 0, the exact velocity is not finite
            xt, target = run.path.interpolate_with_target(x0, x1, time)
            u = exact(xt, torch.tensor(time, device=run.device))

            def error(velocity: Any, u: Tensor = u, x0: Tensor = x0, x1: Tensor = x1, t: float = time) -> Tensor:
                return velocity_mse(velocity, lambda x, t: u, run.path, x0, x1, t)

            others = error(lambda x, t: torch.zeros_like(x)), error(lambda x, t, v=target: v)
            parts.append(torch.stack([error(run.velocity), *others]).double().cpu())
        errors = torch.cat(parts, dim=1)
        learned, nothing, conditional = errors.mean(dim=1).tolist()
        spread = float(errors[0].std()) / len(rows) ** 0.5
        found.append({"t": t, "error": learned, "standard_error": spread, "exact": nothing, "conditional": conditional})
    return found


def hybrid_samples(run: Run, generator: torch.Generator) -> Hybrids:
    """Follow u* up to each switch and the network from there on, in Euler steps of 1/100, from the same noise."""
    settings = run.configuration.evaluation
    exact = EmpiricalVelocity(training_points(run), run.path, scale=run.data.scaled)
    start = run.source.sample(settings.hybrid_images, generator)
    grid = torch.linspace(0, 1, STEPS + 1, dtype=torch.float64).clamp(max=run.path.t_max)
    ends = [round(switch * STEPS) for switch in settings.hybrid_switches]
    images: list[list[Tensor]] = [[] for _ in ends]
    alone = []
    for x in start.to(run.device).split(settings.solver_batch):
        at = 0
        for place, end in enumerate(ends):
            x, at = follow(exact, x, grid[at : end + 1]), end
            images[place].append(follow(run.velocity, x, grid[end:]))
        alone.append(follow(exact, x, grid[at:]))
    found = torch.stack([torch.cat(parts) for parts in images])
    bins = [run.data.scaled(to_uint8(x, run.data.levels)).cpu() for x in (found, torch.cat(alone))]
    return Hybrids(settings.hybrid_switches, *bins)


def follow(velocity: Any, x: Tensor, grid: Tensor) -> Tensor:
    """Euler steps along a grid of times; x itself if the grid is a single time."""
    if len(grid) < 2:
        return x
    return solve(velocity, x, t0=float(grid[0]), t1=float(grid[-1]), method="euler", times=grid).x


def hybrid_measures(run: Run, samples: Hybrids) -> list[dict[str, float]]:
    """How much of each set repeats training images.

    Returns:
        One entry a switch: "switch"; "distance_to_nearest_training_image" and its "standard_error" over starts, on the
        scale [-1, 1], and "share_of_copies", both among the images themselves, as in `nearest.nearest_distances`;
        "share_decided", of starts from which the nearest training image is the one that u* alone leads to. Where mirror
        images were trained on, u* leads to them too: the share is taken among both, and so are
        "distance_with_mirror_images" and "share_of_copies_with_mirror_images", which are there only then.
    """
    scaled, points = run.data.scaled, training_points(run)
    images_alone = points[: len(run.training_images)]
    goal = nearest_training_images(samples.exact.to(run.device), points, scaled).row[:, 0]
    found = []
    for switch, images in zip(samples.switches, samples.images, strict=True):
        among_all = nearest_training_images(images.to(run.device), points, scaled)
        mirrored = len(points) > len(images_alone)
        near = nearest_training_images(images.to(run.device), images_alone, scaled) if mirrored else among_all
        distance = near.distance[:, 0]
        entry = {
            "switch": switch,
            "distance_to_nearest_training_image": float(distance.mean()),
            "standard_error": float(distance.std()) / len(distance) ** 0.5 if len(distance) > 1 else 0.0,
            "share_of_copies": near.share_of_copies(),
            "share_decided": float((among_all.row[:, 0] == goal).double().mean()),
        }
        if mirrored:
            entry["distance_with_mirror_images"] = float(among_all.distance[:, 0].mean())
            entry["share_of_copies_with_mirror_images"] = among_all.share_of_copies()
        found.append(entry)
    return found
