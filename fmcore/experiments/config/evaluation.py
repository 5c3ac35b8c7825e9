"""How a run is measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fmcore.experiments.config.overrides import EXTRA_FORBIDDEN
from fmcore.experiments.config.source import SourceConfig, check_pruning
from fmcore.settings import checked


@dataclass(frozen=True)
class EvaluationConfig:
    """How samples are drawn and what is measured.

    Attributes:
        method, solver_steps, rtol, atol: the solver; solver_steps is for all methods but dopri5. "sde" is the
            stochastic equation that shares the flow's marginals, by Euler-Maruyama; bits/dim are still the flow's.
        sde_scale: of its noise, g(t)^2 = 2 sde_scale sigma_t; see `fmcore.solvers.bounded_diffusion`.
        solver_batch: images solved together, for samples and bits/dim. An adaptive solver chooses its steps for the
            whole batch, so NFE depends on it (a little). It is also the unit in which processes share the work.
        sample_precision: of the network while it samples. "bf16" is bfloat16 autocast, for a solver with fixed steps:
            an adaptive one would take the rounding for error. Everything else is measured in float32.
        sample_compile: compile the network for sampling with torch.compile; worth its minute for thousands of images.
        guidance_scale: of a network that knows classes: 0 ignores the class, 1 samples it as it is, more exaggerates
            it at twice the evaluations; see `fmcore.guidance`.
        generated_sets: how many sets of images are generated, at least two, to show a spread.
        set_images: images of a set; none for as many as are held out. A Frechet distance is biased by the number of
            images, so generated and held-out images are compared with the training split in equal numbers.
        likelihood_images: how many held-out images bits/dim are measured on; none for all of them, 0 to leave it out.
        divergence, probes, draws: of bits/dim; see `fmcore.likelihood.bits_per_dim`.
        probe_repeats: estimates of the first draw with independent probes; two or more tell the noise of Hutchinson's
            estimate, and with it the bias of bits/dim from several draws.
        features: spaces for Frechet distances: classifier, inception (FID), dinov2. The latter two need another
            package and download a network.
        classifier_steps: training steps of the classifier, whose weights are kept for the next run.
        nearest_images: images of each set whose nearest training image is looked up; 0 for none.
        curve_every: training steps between snapshots for the curve of Frechet distance against step; 0 for none.
        curve_images: images generated for each point of that curve.
        velocity_pairs: pairs of noise and training image at which the network is compared with the exact velocity of
            the training images; 0 to leave it out. It, and hybrid_switches, are for networks whose loss that velocity
            minimizes: independent pairs with a standard Gaussian, and pixels without dequantization noise.
        velocity_times: the times of that comparison.
        hybrid_switches: times up to which samples follow the exact velocity, and from which on the network; each a
            multiple of 0.01, the Euler step that they are drawn with. None are drawn if it is empty.
        hybrid_images: samples drawn for each of these.
        budgets: numbers of Euler steps with which samples are drawn and compared too, from the same noise; none if it
            is empty.
        prune_tau, prune_threshold: with both, samples of these budgets are drawn a second time, from the source without
            the directions in which there are no data (`fmcore.sources.pruned`). The network stays as it is. Everything
            else that is measured starts from the source of the training.
        align_steps: draw samples of the budgets once more, with Euler steps that are equal in the time of aligned norms
            (`fmcore.velocity.scaled_up`). The network stays as it is.
        evaluation_seed: of the samples, the dequantization noise, the probes and the classifier.
    """

    __pydantic_config__ = EXTRA_FORBIDDEN

    method: Literal["dopri5", "euler", "midpoint", "heun", "rk4", "sde"] = "dopri5"
    solver_steps: int | None = None
    sde_scale: float = 1.0
    rtol: float = 1e-5
    atol: float = 1e-5
    solver_batch: int = 1000
    sample_precision: Literal["fp32", "bf16"] = "fp32"
    sample_compile: bool = False
    guidance_scale: float = 1.0
    generated_sets: int = 3
    set_images: int | None = None
    likelihood_images: int | None = None
    divergence: Literal["exact", "hutchinson"] = "hutchinson"
    probes: int = 1
    draws: int = 1
    probe_repeats: int = 1
    features: tuple[Literal["classifier", "inception", "dinov2"], ...] = ("classifier",)
    classifier_steps: int = 400
    nearest_images: int = 1000
    curve_every: int = 0
    curve_images: int = 500
    velocity_pairs: int = 0
    velocity_times: tuple[float, ...] = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
    hybrid_switches: tuple[float, ...] = ()
    hybrid_images: int = 256
    budgets: tuple[int, ...] = ()
    prune_tau: float | None = None
    prune_threshold: float | None = None
    align_steps: bool = False
    evaluation_seed: int = 0

    def __post_init__(self) -> None:
        checked(self)
        if (self.method == "dopri5") != (self.solver_steps is None):
            raise ValueError(
                f"method={self.method} with solver_steps={self.solver_steps}: dopri5 chooses its own steps "
                "(leave solver_steps out), every other method needs solver_steps"
            )
        if self.sample_precision == "bf16" and self.method == "dopri5":
            raise ValueError(
                "sample_precision=bf16 with method=dopri5: an adaptive solver takes the rounding for error and makes "
                "ever smaller steps; choose fixed ones, for example method=heun solver_steps=25"
            )
        least = {"generated_sets": 2, "set_images": 2, "likelihood_images": 0, "curve_images": 2, "velocity_pairs": 0}
        least |= dict.fromkeys(("solver_batch", "solver_steps", "probes", "draws", "probe_repeats", "hybrid_images"), 1)
        least |= {"classifier_steps": 1, "nearest_images": 0, "curve_every": 0, "evaluation_seed": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                why = ", to show a spread" if name == "generated_sets" else ""
                raise ValueError(f"{name} must be at least {bound}{why}; got {value}")
        if not 0 <= self.sde_scale < math.inf or (self.sde_scale != 1 and self.method != "sde"):
            raise ValueError(f"sde_scale={self.sde_scale} with method={self.method}: a number from 0, for method=sde")
        for name, value in (("likelihood_images", self.likelihood_images), ("velocity_pairs", self.velocity_pairs)):
            if value == 1:
                raise ValueError(f"{name} must be 0, to leave it out, or at least 2, to show a spread; got 1")
        for name in ("velocity_times", "hybrid_switches"):
            values = getattr(self, name)
            if list(values) != sorted(set(values)) or any(not 0 <= value <= 1 for value in values):
                raise ValueError(f"{name} must be increasing times from 0 to 1, got {','.join(map(str, values))}")
        if any(abs(100 * value - round(100 * value)) > 1e-9 for value in self.hybrid_switches):
            raise ValueError(
                f"hybrid_switches must be multiples of 0.01, got {','.join(map(str, self.hybrid_switches))}: hybrid "
                "samples take 100 Euler steps, and the velocity changes between two of them"
            )
        if list(self.budgets) != sorted(set(self.budgets)) or any(steps < 1 for steps in self.budgets):
            raise ValueError(
                f"budgets must be increasing numbers of steps, at least 1, got {','.join(map(str, self.budgets))}"
            )
        check_pruning(self.prune_tau, self.prune_threshold, "prune_tau", "prune_threshold")
        if self.prune_tau is not None and not self.budgets:
            raise ValueError("prune_tau without budgets: say with how many steps to draw, for example budgets=5,10,20")
        if self.align_steps and not self.budgets:
            raise ValueError(
                "align_steps without budgets: say with how many steps to draw, for example budgets=5,10,20"
            )
        if not self.rtol > 0 or not self.atol > 0:
            raise ValueError(f"rtol and atol must be above 0, got {self.rtol} and {self.atol}")
        if self.divergence == "exact" and (self.probes, self.probe_repeats) != (1, 1):
            raise ValueError("an exact divergence has no probes: leave out probes and probe_repeats")
        if len(set(self.features)) < max(1, len(self.features)):
            raise ValueError(f"features={','.join(self.features)}: name each space once, and at least one")

    def check_snapshots(self, checkpoint_every: int) -> None:
        """Raise ValueError unless snapshots fall on checkpoints, of which there is one in so many steps."""
        if self.curve_every % checkpoint_every:
            raise ValueError(
                f"curve_every={self.curve_every} with checkpoint_every={checkpoint_every}: snapshots are taken from "
                "checkpoints, so make curve_every a multiple of checkpoint_every"
            )

    def check_source(self, source: SourceConfig, path: str) -> None:
        """Raise ValueError if something is to be measured that is not known of the source, or of the path."""
        if not source.is_plain and (self.velocity_pairs or self.hybrid_switches):
            raise ValueError(
                f"{source.words} has another exact velocity than velocity_pairs and hybrid_switches know: "
                "leave them out"
            )
        if self.method == "sde" and not source.is_plain:
            raise ValueError(
                f"method=sde with {source.words}: the score follows from the velocity for a standard Gaussian source "
                "alone; choose a solver of the flow, for example method=heun solver_steps=25"
            )
        if self.likelihood_images != 0 and not source.has_uniform_direction:
            raise ValueError(
                f"{source.words}: bits/dim are measured for gaussian and chi_sphere only; set likelihood_images=0"
            )
        if self.prune_tau is not None and not source.has_uniform_direction:
            raise ValueError(
                f"prune_tau with distribution={source.distribution}: pruning needs a source of uniform direction, "
                "gaussian or chi_sphere"
            )
        if self.align_steps and (path != "rectified" or source.norm != "none"):
            raise ValueError(
                f"align_steps with path={path} and norm={source.norm}: it stands for norm alignment of a "
                "straight path that was trained without; use path=rectified and norm=none, or leave it out"
            )

    def check_exact_velocity(self, dequantize: bool, coupling: str) -> None:
        """Raise ValueError if a network is to be compared with u*, and something else minimizes its loss.

        u* is the minimizer for independent pairs with finitely many images (Bertrand et al. 2025, arXiv 2506.03719).
        Dequantization noise makes another image of each at every step, and mini-batch transport other pairs.
        """
        asked = [name for name in ("velocity_pairs", "hybrid_switches") if getattr(self, name)]
        wrong = {"dequantize=true": "dequantize=false"} if dequantize else {}
        wrong |= {f"coupling={coupling}": "coupling=independent"} if coupling != "independent" else {}
        if asked and wrong:
            raise ValueError(
                f"{' and '.join(asked)} with {' and '.join(wrong)}: the exact velocity of the training images is not "
                f"what such a network learns; train with {' and '.join(wrong.values())}, or leave out "
                f"{' and '.join(asked)}"
            )
