"""Bits/dim of a run beside those of models without a network on the same images, and how they were measured."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fmcore import distributed
from fmcore.data.images import ImageData
from fmcore.experiments import records
from fmcore.experiments.config.evaluation import EvaluationConfig
from fmcore.experiments.evaluate import bits_per_dim, simple_models
from fmcore.experiments.evaluate.frechet import spread
from fmcore.training import seeded_generator

if TYPE_CHECKING:
    from fmcore.experiments.run.finished import Run

GIVEN = "flow, given the class"


def likelihoods(run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """How bits/dim were measured, and bits/dim of the run beside simple models; ({...}, {}) if none are wanted."""
    settings, data = run.configuration.evaluation, run.data
    if settings.likelihood_images == 0:
        return {"likelihood": "not measured", "likelihood_images": 0}, {}
    rows = spread(len(data.held_out), settings.likelihood_images)
    held_out = data.held_out[rows]
    values, about = bits_per_dim.summary(found := bits_per_dim.densities(run, held_out))
    if run.configuration.labels:
        given = bits_per_dim.densities(run, held_out, data.held_out_labels[rows])
        values = bits_per_dim.summary(given, GIVEN)[0] | values
    nfe = float(found.nfe.mean())
    said = {
        "likelihood": f"{len(held_out)} held-out images, {estimate(settings)}, K = {settings.draws}, "
        f"dopri5, rtol {settings.rtol:g}, atol {settings.atol:g}, NFE {nfe:.0f}",
        "likelihood_images": len(held_out),
        "likelihood_nfe": nfe,
        "likelihood_spread": about,
    }
    generator = seeded_generator(settings.evaluation_seed, "baseline")
    simple = distributed.first(lambda: without_network(data, held_out, generator))
    return said, values | simple


def estimate(settings: EvaluationConfig) -> str:
    """The divergence in words."""
    if settings.divergence == "exact":
        return "exact divergence"
    return f"Hutchinson's estimate, {settings.probes} probe{'s' * (settings.probes > 1)}"


def without_network(data: ImageData, held_out: Tensor, generator: torch.Generator) -> dict[str, Any]:
    """Bits/dim of models without a network, on the same images; the uniform one alone for large images."""
    few = replace(data, held_out=held_out)
    found = {"uniform": in_bits(simple_models.uniform_bits_per_dim(few))}
    if held_out[0].numel() <= simple_models.MOST_PIXELS:
        found = {"histogram a pixel": in_bits(simple_models.histogram_bits_per_dim(few)), **found}
        if len(simple_models.fitting_images(data)) > held_out[0].numel():  # else the covariance is singular
            found = {"Gaussian, full covariance": in_bits(simple_models.gaussian_bits_per_dim(few, generator)), **found}
    return found


def in_bits(values: Tensor) -> dict[str, Any]:
    """Mean of one value a held-out image, with its standard error."""
    return records.measurement(values, "held-out images", standard_error=True)
