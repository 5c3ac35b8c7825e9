"""Measure a run, and put each value beside one that it can be compared with.

likelihoods     bits/dim of held-out images beside simple models
frechet         Frechet distances of generated images to the training images, beside those of as many held-out images
nearest         distances to the nearest training image, and copies
by_class        what a classifier makes of samples of each class
curve           the Frechet distance at each snapshot
euler_budgets   the same for a few Euler steps, from other starts
exact_velocity  the network beside the exact velocity of its training images

Started by torchrun, all processes sample; process 0 writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from fmcore import distributed
from fmcore.experiments import records, sealed
from fmcore.experiments.config.evaluation import EvaluationConfig
from fmcore.experiments.config.overrides import without_place
from fmcore.experiments.evaluate import exact_velocity, frechet
from fmcore.experiments.evaluate.by_class import classes_found
from fmcore.experiments.evaluate.curve import measured_curve, write_curve
from fmcore.experiments.evaluate.euler_budgets import measured_budgets
from fmcore.experiments.evaluate.leaving import check_can_write
from fmcore.experiments.evaluate.likelihoods import likelihoods
from fmcore.experiments.evaluate.nearest import nearest_distances
from fmcore.experiments.evaluate.pictures import hybrids_figure, samples_figure
from fmcore.experiments.run.fitted_source import check_starts
from fmcore.experiments.run.samples import Samples, samples
from fmcore.locks import locked
from fmcore.metrics import features
from fmcore.training import seeded_generator
from fmcore.training.device import matmul_precision

if TYPE_CHECKING:
    from fmcore.experiments.run.finished import Run

Value = TypeVar("Value")


def evaluate_run(run: Run, if_not_written: Callable[[dict[str, Any]], object] | None = None) -> dict[str, Any]:
    """Measure a finished run; completes record.json and draws samples.png in its folder, and returns the record.

    On an NVIDIA GPU all of it is computed without TF32, which would be off by a thousandth; samples are drawn as
    `sample_precision` says.

    The folder is locked meanwhile (`fmcore.locks.locked`). Whoever must be sure that nobody trains in it between the
    loading of the run and this call locks it around both.

    Args:
        run: what to measure.
        if_not_written: is given the record in process 0 where it cannot be written, so that hours of measuring are not
            lost with it: prints it, say. The error is raised after that.

    Raises:
        BlockingIOError: if another process, or another thread, trains or evaluates in the folder.
        OSError: if nothing can be written in the folder, which is tried at the start, or not any more at the end.
        ValueError: if a feature space needs a package that is not installed, set_images is more than are held out,
            there is nothing to prune, or a value is NaN or infinite; the record is then left as it was.
    """
    settings, data = run.configuration.evaluation, run.data
    check_features(settings)
    count = frechet.images_of_a_set(run)
    with (
        distributed.session(run.device),
        distributed.in_first(locked(run.folder)),
        matmul_precision("fp32", run.device),
    ):
        distributed.first(lambda: check_can_write(run.folder))
        record = distributed.first(run.record)
        check_pruning(run)
        started = time.perf_counter()
        real = data.held_out[frechet.spread(len(data.held_out), count)]
        generated, sampling_seconds = timed(lambda: samples(run, settings.generated_sets * count))
        (likelihood, density), likelihood_seconds = timed(lambda: likelihoods(run))
        classifier = frechet.trained_classifier(run)
        spaces = frechet.references(run, classifier, real)
        distances: dict[str, Any] = {}
        for one in spaces:
            distances |= frechet.measured_distances(one, generated.images, settings.generated_sets)
        nearest = distributed.first(lambda: nearest_distances(run, list(generated.images.split(count)), real))
        classes = classes_found(run, classifier, generated)
        curve = measured_curve(run, frechet.classifier_only(spaces))
        budgets = measured_budgets(run, spaces[0], generated) if spaces else {}
        pictures: list[Callable[[], None]] = []
        exact = distributed.first(lambda: beside_exact(run, pictures))

        record["configuration"] = without_place(run.configuration)
        record["evaluation"] = {
            **how_samples_were_drawn(run, generated),
            "reference": f"train split ({len(data.train)} images, no flips)",
            "held_out_reference": f"{len(real)} of {len(data.held_out)} held-out images, no flips",
            "feature_space": "; ".join(one.space.says for one in spaces) or "none, since the images have no classes",
            "classifier_accuracy_on_held_out": None if classifier is None else classifier.accuracy,
            **likelihood,
            **classes,
            "sampling_seconds": sampling_seconds,
            "likelihood_seconds": likelihood_seconds,
            "wall_seconds": round(time.perf_counter() - started, 2),
        }
        record["values"] = {**({"bits_per_dim": density} if density else {}), **distances, **nearest}
        record["curve"] = curve
        record |= exact | budgets

        def end() -> None:
            try:
                leave(run, generated, record, pictures)
            except Exception:
                if if_not_written is not None:
                    if_not_written(record)
                raise

        distributed.first(end)
        return record


def check_features(settings: EvaluationConfig) -> None:
    """Raise ValueError if a feature space needs a package that is not installed; better before training than after."""
    for space in settings.features:
        features.check_installed(space)


def check_pruning(run: Run) -> None:
    """Raise ValueError if samples of a pruned source are asked for and there are none; better now than at the end."""
    if run.configuration.evaluation.prune_tau is not None:
        _, pruned = run.pruned()
        distributed.first(lambda: check_starts(pruned))


def timed(measure: Callable[[], Value]) -> tuple[Value, float]:
    """What a function returns, and the seconds that it took, in two decimals."""
    started = time.perf_counter()
    return measure(), round(time.perf_counter() - started, 2)


def beside_exact(run: Run, pictures: list[Callable[[], None]]) -> dict[str, Any]:
    """What the configuration asks for beside the exact velocity; see `fmcore.experiments.evaluate.exact_velocity`.

    What draws a picture of it is added to `pictures`, to be called at the end.
    """
    settings = run.configuration.evaluation
    found: dict[str, Any] = {}
    if settings.velocity_pairs:
        generator = seeded_generator(settings.evaluation_seed, "velocity_pairs")
        found["velocity_error"] = exact_velocity.velocity_errors(run, generator)
    if settings.hybrid_switches:
        generator = seeded_generator(settings.evaluation_seed, "hybrids")
        samples_of = exact_velocity.hybrid_samples(run, generator)
        found["hybrid"] = exact_velocity.hybrid_measures(run, samples_of)
        pictures.append(lambda: hybrids_figure(run, samples_of, run.folder / "hybrids.png"))
    return found


def leave(run: Run, generated: Samples, record: dict[str, Any], pictures: list[Callable[[], None]]) -> None:
    """Write the pictures, the curve and the record into the folder of the run, the record last.

    Raises:
        ValueError: if a value of the record is NaN or infinite.
    """
    records.check_finite(record, run.folder / "record.json")
    for draw in pictures:
        draw()
    samples_figure(run, generated, run.folder / "samples.png")
    write_curve(record["curve"], run.folder / "curve.csv")
    sealed.write(run.folder / "record.json", record)


def how_samples_were_drawn(run: Run, generated: Samples) -> dict[str, Any]:
    """What a record says of its samples: where, with which weights and solver, from which start, and how many."""
    settings = run.configuration.evaluation
    return {
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
        **({"guidance_scale": settings.guidance_scale} if run.configuration.labels else {}),
        "seed": settings.evaluation_seed,
    }


def solver(settings: EvaluationConfig) -> str:
    """The solver in words."""
    if settings.method == "sde":
        return f"Euler-Maruyama, {settings.solver_steps} steps, g^2 = {2 * settings.sde_scale:g} sigma"
    if settings.solver_steps is None:
        return f"{settings.method}, rtol {settings.rtol:g}, atol {settings.atol:g}"
    return f"{settings.method}, {settings.solver_steps} steps"


def source_in_words(run: Run) -> str:
    """Where the samples of a record start; those of budgets that say so start from the pruned source."""
    config = run.configuration.source
    if config.is_plain:
        return f"Gaussian of standard deviation {run.path.source_scale:g}"
    named = {name: getattr(config, name) for name in ("masking", "components", "kappa", "tau", "threshold")}
    numbers = ", ".join(f"{name} {value}" for name, value in named.items() if value is not None)
    words = config.distribution.replace("_", " ") + (f" ({numbers})" if numbers else "")
    return words + ("" if config.norm == "none" else f", norms aligned ({config.norm}, factor {run.fitted.factor:.4f})")
