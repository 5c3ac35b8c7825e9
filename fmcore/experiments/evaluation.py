"""Measure a run, and put each value beside one that it can be compared with.

Bits/dim of the held-out images beside simple models; distances of generated images to the training images beside the
same distances of held-out images.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from fmcore.data.images import ImageData, to_uint8
from fmcore.experiments import baselines, records
from fmcore.experiments.figures import samples_figure
from fmcore.experiments.runner import Run
from fmcore.likelihood import bits_per_dim
from fmcore.metrics.classifier import Classifier, train_classifier
from fmcore.metrics.frechet import frechet_distance
from fmcore.training import derived_seed


def evaluate_run(run: Run) -> dict[str, Any]:
    """Measure a finished run; completes record.json and draws samples.png in its folder, and returns the record."""
    settings, data = run.configuration.evaluation, run.data
    record = records.read_json(run.folder / "record.json")
    started = time.perf_counter()

    solution = run.sample(settings.generated_sets * len(data.held_out), generator(run, "samples"))
    generated = to_uint8(solution.x, data.levels)
    sampling_seconds = time.perf_counter() - started

    classifier, accuracy = train_classifier(data, settings.evaluation_seed)
    bits = bits_per_dim(
        run.velocity,
        data.held_out,
        run.source,
        levels=data.levels,
        draws=settings.draws,
        generator=generator(run, "likelihood"),
        divergence=settings.divergence,
        probes=settings.probes,
        t1=run.path.t_max,
        rtol=settings.rtol,
        atol=settings.atol,
    )
    samples_figure(run, generated, solution.nfe, run.folder / "samples.png")

    sets = list(generated.split(len(data.held_out)))
    solver = f"{settings.method}, " + (
        f"rtol {settings.rtol:g}, atol {settings.atol:g}"
        if settings.solver_steps is None
        else f"{settings.solver_steps} steps"
    )
    estimate = (
        "exact divergence"
        if settings.divergence == "exact"
        else f"Hutchinson's estimate, {settings.probes} probe{'s' * (settings.probes > 1)}"
    )
    record["evaluation"] = {
        "environment": records.environment(),
        "weights": "ema" if run.configuration.training.ema > 0 else "last",
        "solver": solver,
        "time_grid": f"{'adaptive' if settings.solver_steps is None else 'uniform'} on [0, {run.path.t_max}]",
        "nfe": solution.nfe,
        "generated": len(generated),
        "seed": settings.evaluation_seed,
        "reference": f"train split ({len(data.train)} images, no flips)",
        "feature_space": f"{classifier.head.in_features} features of a classifier of {data.name}",
        "classifier_accuracy_on_held_out": accuracy,
        "likelihood": f"{len(data.held_out)} held-out images, {estimate}, K = {bits.draws}, NFE {bits.nfe:.0f}",
        "sampling_seconds": round(sampling_seconds, 2),
        "wall_seconds": round(time.perf_counter() - started, 2),
    }
    record["values"] = {
        "bits_per_dim": {
            "flow": held_out(bits.per_image),
            "Gaussian, full covariance": held_out(baselines.gaussian_bits_per_dim(data, generator(run, "baseline"))),
            "histogram a pixel": held_out(baselines.histogram_bits_per_dim(data)),
            "uniform": held_out(baselines.uniform_bits_per_dim(data)),
        },
        "classifier_frechet_distance": {
            "generated": over_sets([classifier_distance(classifier, data, images) for images in sets]),
            "held out (real)": single(classifier_distance(classifier, data, data.held_out)),
        },
        "distance_to_nearest_training_image": {
            "generated": over_sets([nearest_training_image(data, images) for images in sets]),
            "held out (real)": single(nearest_training_image(data, data.held_out)),
        },
    }
    records.write_json(run.folder / "record.json", record)
    return record


def generator(run: Run, purpose: str) -> torch.Generator:
    """A generator for one purpose, seeded by the configuration."""
    return torch.Generator().manual_seed(derived_seed(run.configuration.evaluation.evaluation_seed, purpose))


def classifier_distance(classifier: Classifier, data: ImageData, images: Tensor) -> float:
    """Frechet distance of whole-number images to the training split, in the classifier's features."""
    return frechet_distance(classifier.features(data.scaled(images)), classifier.features(data.scaled(data.train)))


def nearest_training_image(data: ImageData, images: Tensor) -> float:
    """Mean Euclidean distance of images to their nearest training image, on the scale [-1, 1].

    Far below the distance of held-out images, it says that training images are being repeated.
    """
    a, b = data.scaled(images).flatten(1), data.scaled(data.train).flatten(1)
    return float(torch.cdist(a, b).min(dim=1).values.mean())


def held_out(values: Tensor) -> dict[str, Any]:
    """Mean of one value a held-out image, with its standard error."""
    return records.measurement(values, "held-out images", standard_error=True)


def over_sets(values: list[float]) -> dict[str, Any]:
    """Mean of one value a generated set, with their standard deviation."""
    return records.measurement(torch.tensor(values, dtype=torch.float64), "generated sets")


def single(value: float) -> dict[str, Any]:
    """A value of the one held-out split, which has no spread."""
    return {"value": value, "spread": None, "spread_is": None}
