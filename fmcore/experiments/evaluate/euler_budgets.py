"""Samples for a few Euler steps, from the source of the training and from the pruned one.

Lee et al. 2025 (arXiv 2512.18184) compare sources at 5, 10, 20, 40 and 100 network evaluations. All budgets start from
the same noise. Pruning (`fmcore.sources.pruned`) changes where samples start and nothing else: it needs no training.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch

from fmcore.experiments.evaluate.frechet import References, over_sets
from fmcore.experiments.run.finished import Run, Variant
from fmcore.experiments.run.samples import Samples, samples
from fmcore.sources import alignment_factor
from fmcore.training import seeded_generator

# Proposals from which the share of kept noise is estimated.
PROPOSALS = 2000


def measured_budgets(run: Run, one: References, own: Samples) -> dict[str, Any]:
    """Frechet distances of generated images to the training split, for each of the budgets of the configuration.

    Args:
        run: whose flow.
        one: the feature space of the distances, with its references.
        own: samples of the run as it is, which are not drawn again where a budget asks for the same.

    Returns:
        "budgets", one entry a start, a grid and a number of steps: "start" ("source" or "pruned"), "steps" ("uniform"
        or "aligned"), "nfe", "frechet_distance" with its "spread" over generated sets, and "to_held_out"; "pruning",
        what was pruned; "step_alignment_factor". Nothing without budgets.
    """
    settings = run.configuration.evaluation
    if not settings.budgets:
        return {}
    found: dict[str, Any] = {"budgets": []}
    starts: dict[str, Any] = {"source": None}
    if settings.prune_tau is not None:
        starts["pruned"], pruned = run.pruned()
        generator = seeded_generator(settings.evaluation_seed, "pruning")
        found["pruning"] = {
            "tau": settings.prune_tau,
            "threshold": settings.prune_threshold,
            "rejected_axes": pruned.axes.count,
            "of_axes": 2 * pruned.axes.axes.shape[1],
            "share_kept": pruned.share_kept(PROPOSALS, generator),
            "proposals_per_sample": pruned.sample_counted(100, generator)[1] / 100,
        }
    factors = {"uniform": 1.0}
    if settings.align_steps:
        factors["aligned"] = factor = alignment(run)
        found["step_alignment_factor"] = factor
    for (start, source), (grid, factor), steps in product(starts.items(), factors.items(), settings.budgets):
        own_solver = settings.method == "euler" and settings.solver_steps == steps
        if source is None and factor == 1 and own_solver:
            images = own.images
        else:
            images = samples(run, len(own.images), source=source, variant=Variant(steps, factor)).images
        to_train, to_held_out = over_sets(one, images, settings.generated_sets)
        found["budgets"].append(
            {
                "start": start,
                "steps": grid,
                "nfe": steps,
                "feature_space": one.space.name,
                "frechet_distance": to_train["value"],
                "spread": to_train["spread"],
                "to_held_out": to_held_out["value"],
            }
        )
    return found


def alignment(run: Run) -> float:
    """E ||x0|| / E ||x1|| of the source of a run and the images that it was trained on."""
    parts = run.training_images.split(1000)
    lengths = torch.cat([run.data.scaled(part).flatten(1).double().norm(dim=1) for part in parts])
    return alignment_factor(run.fitted.source, float(lengths.mean()))
