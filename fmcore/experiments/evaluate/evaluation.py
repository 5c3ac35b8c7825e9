"""Measure a run, and put each value beside one that it can be compared with.

Bits/dim of held-out images beside simple models; Frechet distances of generated images to the training images beside
the same distances of equally many held-out images. Started by torchrun, all processes sample; process 0 writes.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from fmcore import distributed
from fmcore.atomic import write_file
from fmcore.data.images import ImageData
from fmcore.experiments import records
from fmcore.experiments.config.evaluation import EvaluationConfig
from fmcore.experiments.config.overrides import without_place
from fmcore.experiments.evaluate import bits_per_dim, exact_velocity, simple_models
from fmcore.experiments.evaluate.euler_budgets import measured_budgets
from fmcore.experiments.evaluate.pictures import hybrids_figure, samples_figure
from fmcore.experiments.run.finished import Run
from fmcore.experiments.run.samples import samples
from fmcore.experiments.run.snapshots import kept_steps
from fmcore.metrics import features
from fmcore.metrics.classifier import cached_classifier
from fmcore.metrics.features import FeatureSpace, Moments
from fmcore.metrics.memorization import nearest_training_images
from fmcore.training import derived_seed, resident
from fmcore.training.device import matmul_precision

if TYPE_CHECKING:
    from fmcore.experiments.run.finished import Run

SEVERAL = {"classifier": "classifier_frechet_distance"}  # the measures whose value is a mean over generated sets


def evaluate_run(run: Run) -> dict[str, Any]:
    """Measure a finished run; completes record.json and draws samples.png in its folder, and returns the record.

    On an NVIDIA GPU all of it is computed without TF32, which would be off by a thousandth; samples are drawn as
    `sample_precision` says.

    Raises:
        ValueError: if a feature space needs a package that is not installed.
    """
    settings, data = run.configuration.evaluation, run.data
    check_features(settings)
    with distributed.session(run.device), matmul_precision("fp32", run.device):
        record = distributed.first(lambda: records.read_json(run.folder / "record.json"))
        started = time.perf_counter()
        set_images = len(data.held_out) if settings.set_images is None else settings.set_images
        generated = samples(run, settings.generated_sets * set_images)
        sampled = time.perf_counter()

        likelihood, density = likelihoods(run)
        solved = time.perf_counter()

        classifier = None
        if "classifier" in settings.features:
            classifier = cached_classifier(data, settings.evaluation_seed, settings.classifier_steps, run.device)
        spaces = [] if classifier is None else [features.classifier_space(classifier, data, run.device)]
        spaces += [features.network_space(name, data, run.device) for name in settings.features if name != "classifier"]
        real = data.held_out[spread(len(data.held_out), set_images)]
        distances: dict[str, Any] = {}
        for space in spaces:
            reference = features.train_moments(space, data)
            distances |= frechet(space, reference, generated.images, settings.generated_sets, real)
        sets = list(generated.images.split(set_images))
        nearest = distributed.first(lambda: nearest_distances(run, sets, real))
        curve = measured_curve(run, classifier_only(spaces))
        budgets = measured_budgets(run, spaces, generated, real)
        exact = distributed.first(lambda: beside_exact(run))

        record["configuration"] = without_place(run.configuration)
        record["evaluation"] = {
            "environment": records.environment(),
            "processes": distributed.processes(),
            "weights": "ema" if run.configuration.training.ema > 0 else "last",
            "solver": solver(settings),
            "time_grid": f"{'adaptive' if settings.solver_steps is None else 'uniform'} on [0, {run.path.t_max}]",
            "solver_batch": settings.solver_batch,
            "sample_precision": settings.sample_precision,
            "nfe": float(generated.nfe.mean()),
            "generated": len(generated.images),
            "generated_sets": settings.generated_sets,
            "source": source_in_words(run),
            "seed": settings.evaluation_seed,
            "reference": f"train split ({len(data.train)} images, no flips)",
            "held_out_reference": f"{len(real)} of {len(data.held_out)} held-out images, no flips",
            "feature_space": "; ".join(space.says for space in spaces),
            "classifier_accuracy_on_held_out": None if classifier is None else classifier.accuracy,
            **likelihood,
            "sampling_seconds": round(sampled - started, 2),
            "likelihood_seconds": round(solved - sampled, 2),
            "wall_seconds": round(time.perf_counter() - started, 2),
        }
        record["values"] = {
            **({"bits_per_dim": density} if density else {}),
            **distances,
            **nearest,
        }
        record["curve"] = curve
        record |= exact | budgets

        def leave() -> None:
            samples_figure(run, generated.images, round(float(generated.nfe.mean())), run.folder / "samples.png")
            if curve:
                lines = [",".join(map(str, point.values())) for point in curve]
                write_file(run.folder / "curve.csv", "\n".join([",".join(curve[0]), *lines, ""]).encode())
            records.write_json(run.folder / "record.json", record)

        distributed.first(leave)
        return record


def check_features(settings: EvaluationConfig) -> None:
    """Raise ValueError if a feature space needs a package that is not installed; better before training than after."""
    for space in settings.features:
        features.check_installed(space)


def generator(settings: EvaluationConfig, purpose: str) -> torch.Generator:
    """A generator for one purpose, seeded by the configuration."""
    return torch.Generator().manual_seed(derived_seed(settings.evaluation_seed, purpose))


def spread(count: int, wanted: int | None) -> Tensor:
    """Rows of `wanted` of `count` images, evenly spread, since images may be sorted; all if there are not more."""
    return torch.arange(count) if wanted is None or wanted >= count else torch.arange(wanted) * count // wanted


def frechet(
    space: FeatureSpace, reference: Moments, generated: Tensor, sets: int, real: Tensor
) -> dict[str, dict[str, Any]]:
    """Frechet distances in one space: of a classifier a mean over sets, of Inception and DINOv2 one for all images."""
    held_out = features.moments(space, real)
    if space.name in SEVERAL:
        found = [features.moments(space, images) for images in generated.split(len(generated) // sets)]
        return {
            SEVERAL[space.name]: {
                "generated": over_sets([features.distance(one, reference) for one in found]),
                "generated, to held out": over_sets([features.distance(one, held_out) for one in found]),
                "held out (real)": single(features.distance(held_out, reference)),
            }
        }
    everything = features.moments(space, generated)
    values = {
        features.label(space.name, len(generated)): {"generated": single(features.distance(everything, reference))}
    }
    name = features.label(space.name, len(real))
    values.setdefault(name, {})["held out (real)"] = single(features.distance(held_out, reference))
    return values


def likelihoods(run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """How bits/dim were measured, and bits/dim of the run beside simple models; ({...}, {}) if none are wanted."""
    settings, data = run.configuration.evaluation, run.data
    if settings.likelihood_images == 0:
        return {"likelihood": "not measured", "likelihood_images": 0}, {}
    held_out = data.held_out[spread(len(data.held_out), settings.likelihood_images)]
    values, about = bits_per_dim.summary(found := bits_per_dim.densities(run, held_out))
    nfe = float(found.nfe.mean())
    said = {
        "likelihood": f"{len(held_out)} held-out images, {estimate(settings)}, K = {settings.draws}, "
        f"dopri5, rtol {settings.rtol:g}, atol {settings.atol:g}, NFE {nfe:.0f}",
        "likelihood_images": len(held_out),
        "likelihood_nfe": nfe,
        "likelihood_spread": about,
    }
    simple = distributed.first(lambda: without_network(data, held_out, generator(settings, "baseline")))
    return said, values | simple


def beside_exact(run: Run) -> dict[str, Any]:
    """What the configuration asks for beside the exact velocity; see `fmcore.experiments.evaluate.exact_velocity`."""
    settings = run.configuration.evaluation
    found: dict[str, Any] = {}
    if settings.velocity_pairs:
        found["velocity_error"] = exact_velocity.velocity_errors(run, generator(settings, "velocity_pairs"))
    if settings.hybrid_switches:
        samples_of = exact_velocity.hybrid_samples(run, generator(settings, "hybrids"))
        found["hybrid"] = exact_velocity.hybrid_measures(run, samples_of)
        hybrids_figure(run, samples_of, run.folder / "hybrids.png")
    return found


def without_network(data: ImageData, held_out: Tensor, chance: torch.Generator) -> dict[str, Any]:
    """Bits/dim of models without a network, on the same images; the uniform one alone for large images."""
    few = replace(data, held_out=held_out)
    found = {"uniform": in_bits(simple_models.uniform_bits_per_dim(few))}
    if held_out[0].numel() <= simple_models.MOST_PIXELS:
        found = {"histogram a pixel": in_bits(simple_models.histogram_bits_per_dim(few)), **found}
        if len(simple_models.fitting_images(data)) > held_out[0].numel():  # else the covariance is singular
            found = {"Gaussian, full covariance": in_bits(simple_models.gaussian_bits_per_dim(few, chance)), **found}
    return found


def nearest_distances(run: Run, sets: list[Tensor], real: Tensor) -> dict[str, Any]:
    """Mean Euclidean distance to the nearest training image, on the scale [-1, 1], and the share of copies.

    Of `nearest_images` images of each set, and of as many held-out ones, among the images that the run was trained on.
    Mirror images are not among them, also where the training had them: the copy of one counts as new.
    Distances far below those of held-out images, or copies, say that training images are being repeated.
    """
    count, data = run.configuration.evaluation.nearest_images, run.data
    if count == 0:
        return {}

    train = cast(Tensor, resident(run.training_images, run.device)[0])

    def look_up(images: Tensor) -> tuple[float, float]:
        found = nearest_training_images(data.scaled(images[:count].to(run.device)), train, data.scaled)
        return float(found.distance[:, 0].mean()), found.share_of_copies()

    distances, copies = zip(*map(look_up, sets), strict=True)
    real_distance, real_copies = look_up(real)
    return {
        "distance_to_nearest_training_image": {
            "generated": over_sets(list(distances)),
            "held out (real)": single(real_distance),
        },
        "share_of_copies": {"generated": over_sets(list(copies)), "held out (real)": single(real_copies)},
    }


def measured_curve(run: Run, space: FeatureSpace | None) -> list[dict[str, float]]:
    """The classifier Frechet distance and NFE of samples at each snapshot, beside the training loss up to there.

    Every point starts from the same noise. The distances are of `curve_images` images: compare them with each other.
    """
    settings, steps = run.configuration.evaluation, kept_steps(run.folder)
    if not steps or space is None:
        return []
    lines = (run.folder / "losses.csv").read_text().splitlines()[1:]
    losses = torch.tensor([float(line.split(",")[1]) for line in lines])
    reference = features.train_moments(space, run.data)
    curve, before = [], 0
    for step, file in steps.items():
        run.use_weights(file)
        found = samples(run, settings.curve_images, "curve")
        curve.append(
            {
                "step": step,
                "epoch": round(step * run.configuration.training.batch / len(run.data.train), 3),
                "mean_loss": float(losses[before:step].mean()),
                "classifier_frechet_distance": features.distance(features.moments(space, found.images), reference),
                "nfe": float(found.nfe.mean()),
            }
        )
        before = step
    run.use_weights(run.folder / "weights.safetensors")
    return curve


def classifier_only(spaces: list[FeatureSpace]) -> FeatureSpace | None:
    """The classifier's space, if it is among them: the one cheap enough for a curve."""
    return next((space for space in spaces if space.name == "classifier"), None)


def solver(settings: EvaluationConfig) -> str:
    """The solver in words."""
    if settings.solver_steps is None:
        return f"{settings.method}, rtol {settings.rtol:g}, atol {settings.atol:g}"
    return f"{settings.method}, {settings.solver_steps} steps"


def estimate(settings: EvaluationConfig) -> str:
    """The divergence in words."""
    if settings.divergence == "exact":
        return "exact divergence"
    return f"Hutchinson's estimate, {settings.probes} probe{'s' * (settings.probes > 1)}"


def in_bits(values: Tensor) -> dict[str, Any]:
    """Mean of one value a held-out image, with its standard error."""
    return records.measurement(values, "held-out images", standard_error=True)


def over_sets(values: list[float]) -> dict[str, Any]:
    """Mean of one value a generated set, with their standard deviation."""
    return records.measurement(torch.tensor(values, dtype=torch.float64), "generated sets")


def single(value: float) -> dict[str, Any]:
    """A value of one set of images, which has no spread."""
    return {"value": value, "spread": None, "spread_is": None}


def source_in_words(run: Run) -> str:
    """Where the samples of a record start; those of budgets that say so start from the pruned source."""
    config = run.configuration.source
    if config.is_plain:
        return f"Gaussian of standard deviation {run.source.std:g}"
    named = {name: getattr(config, name) for name in ("masking", "components", "kappa", "tau", "threshold")}
    numbers = ", ".join(f"{name} {value}" for name, value in named.items() if value is not None)
    words = config.distribution.replace("_", " ") + (f" ({numbers})" if numbers else "")
    return words + ("" if config.norm == "none" else f", norms aligned ({config.norm}, factor {run.fitted.factor:.4f})")
