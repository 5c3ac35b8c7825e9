"""Bits/dim of held-out images: from one draw of the dequantization noise, from K draws, and how far to trust each.

With y = 2 (pixel + u) / levels - 1, u ~ U(0, 1), and d pixels,

    bits/dim = -log p / (d ln 2) + log2(levels / 2),     log p = log p(y)                     K = 1
                                                         log p = log (1/K) sum_k p(y_k)       K draws

(Lipman et al. 2023, appendix E.1; with 256 levels y = 2^-7 (pixel + u) - 1 and the constant is 7). The flow is solved
backwards by dopri5, whatever samples are drawn with. More draws can only lower the bits: compare values of equal K,
3.11 with 3.11 and not with 2.99 (their tables 4 and 1).

The log-densities are themselves estimates: Hutchinson's trace adds noise with variance s^2 nats^2, which is harmless on
average for K = 1, and makes the logarithm of a mean of exponentials too large for K > 1, so that a noisier estimate
looks like a better model. Two estimates of this bias are given (`bias_of_noise`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from fmcore import distributed, memory
from fmcore.data.images import dequantize
from fmcore.experiments import records
from fmcore.experiments.run.in_batches import FEW
from fmcore.experiments.run.samples import chunks, together
from fmcore.likelihood import bits_from_log_prob, log_likelihood
from fmcore.likelihood.divergence import velocity_and_divergence
from fmcore.training import seeded_generator
from fmcore.velocity import Velocity

if TYPE_CHECKING:
    from fmcore.experiments.run.finished import Run


@dataclass(frozen=True, eq=False)
class Densities:
    """Log-densities of dequantized images, in nats.

    Attributes:
        draws: (K, n), one row a draw of the dequantization noise, each with its own probes.
        repeats: (R, n), estimates for the first draw with R independent sets of probes; the first row is draws[0].
        nfe: (n,) network evaluations of a solve, averaged over draws.
        dim: pixels of an image, times channels.
        levels: grey levels of a pixel.
    """

    draws: Tensor
    repeats: Tensor
    nfe: Tensor
    dim: int
    levels: int

    def bits(self, log_density: Tensor) -> Tensor:
        """Log-densities in nats to bits/dim."""
        return bits_from_log_prob(log_density, self.dim, self.levels)


def densities(run: Run, images: Tensor, labels: Tensor | None = None) -> Densities:
    """Log-densities of whole-number images (n, C, H, W), with the settings of the run, in every process.

    Chunks of `solver_batch` images are shared between processes as samples are: noise and result do not depend on how
    many there are.

    Args:
        run: whose flow.
        images: of which the densities are taken.
        labels: (n,) their classes, for densities given these, without guidance; None for those of all images.
    """
    mine = share(run, images, distributed.rank(), distributed.processes(), labels)
    draws, repeats, nfe = (together(part, run.device) for part in (mine.draws, mine.repeats, mine.nfe))
    return Densities(draws, repeats, nfe, mine.dim, mine.levels)


def share(run: Run, images: Tensor, rank: int = 0, processes: int = 1, labels: Tensor | None = None) -> Densities:
    """The part that one of several processes computes; the rest is zero."""
    settings, levels = run.configuration.evaluation, run.data.levels
    draws = torch.zeros(settings.draws, len(images))
    repeats = torch.zeros(settings.probe_repeats, len(images))
    nfe = torch.zeros(len(images))

    at_once = fitting(run, images)

    def velocity(place: slice) -> Velocity:
        return run.velocity if labels is None else run.given(labels[place], guidance=1)

    def estimate(y: Tensor, first: int, probes: str) -> tuple[Tensor, float]:
        # Probes are drawn where y is: a device draws others than the CPU, from the same distribution.
        generator = seeded_generator(settings.evaluation_seed, probes, run.device)
        found = [
            log_likelihood(
                velocity(slice(first + start, first + start + len(part))),
                part.to(run.device),
                cast(Any, run.source),  # one whose density is known: the configuration has seen to it
                settings.divergence,
                settings.probes,
                t1=run.path.t_max,
                rtol=settings.rtol,
                atol=settings.atol,
                generator=generator,
            )
            for start, part in zip(range(0, len(y), at_once), y.split(at_once), strict=True)
        ]
        log_prob = torch.cat([part.log_prob for part in found])
        return log_prob.cpu(), sum(part.nfe * len(part.log_prob) for part in found) / len(log_prob)

    for number, place in chunks(len(images), settings.solver_batch, rank, processes):
        for draw in range(settings.draws):
            noise = seeded_generator(settings.evaluation_seed, f"dequantization {number} {draw}")
            y = dequantize(images[place], levels, noise)
            draws[draw, place], calls = estimate(y, place.start, f"probes {number} {draw} 0")
            nfe[place] += calls / settings.draws
            if draw == 0:
                repeats[0, place] = draws[0, place]
                for repeat in range(1, settings.probe_repeats):
                    repeats[repeat, place], _ = estimate(y, place.start, f"probes {number} 0 {repeat}")
    return Densities(draws, repeats, nfe, images[0].numel(), levels)


def fitting(run: Run, images: Tensor) -> int:
    """How many images are solved together: `solver_batch`, or fewer where the memory is short, with other probes."""
    settings = run.configuration.evaluation
    most = min(settings.solver_batch, len(images))
    if most <= FEW:
        return settings.solver_batch

    def take(count: int) -> object:
        x = torch.zeros(count, *run.data.shape, device=run.device)
        exact = torch.eye(x[0].numel(), device=run.device).view(-1, *run.data.shape)
        vectors = exact if settings.divergence == "exact" else x.new_ones(settings.probes, *x.shape)
        return velocity_and_divergence(run.velocity, x, torch.ones((), device=run.device) / 2, vectors)

    found = memory.most_at_once(take, most, run.device)
    return settings.solver_batch if found >= most else found


def log_mean(log_densities: Tensor) -> Tensor:
    """Logarithm of the mean density, log (1/K) sum_k p_k, for log-densities (K, n): shape (n,)."""
    return torch.logsumexp(log_densities.double(), dim=0) - math.log(len(log_densities))


def summary(found: Densities, name: str = "flow") -> tuple[dict[str, Any], dict[str, Any]]:
    """The rows of bits/dim for a record, and what the record says of their spread and bias."""
    count = len(found.draws)
    one = found.bits(found.draws.double()).mean(dim=0)  # the same expectation as a single draw, with less noise
    rows = {name: records.measurement(one, "held-out images", standard_error=True)}
    about: dict[str, Any] = {"draws": count, "bits_per_nat": 1 / (found.dim * math.log(2))}
    if count > 1:
        many = found.bits(log_mean(found.draws))
        rows[f"{name}, K = {count}"] = records.measurement(many, "held-out images", standard_error=True)
        about["deviation_between_draws"] = pooled_deviation(found.draws) * about["bits_per_nat"]
    if len(found.repeats) > 1:
        about["probe_repeats"] = len(found.repeats)
        about["deviation_between_probes"] = pooled_deviation(found.repeats) * about["bits_per_nat"]
        if count > 1:
            noise = pooled_deviation(found.repeats) ** 2
            second_order, gaussian = bias_of_noise(found.draws, noise)
            about["bias_of_K_draws"] = {
                "second_order": -second_order * about["bits_per_nat"],
                "gaussian_model": -gaussian * about["bits_per_nat"],
                "noise_in_nats": math.sqrt(noise),
                "means": "bits/dim by which the noise of Hutchinson's estimate lowers the value of K draws; the "
                "second-order one holds for noise well below 1 nat",
            }
    return rows, about


def pooled_deviation(values: Tensor) -> float:
    """The standard deviation along the first axis, (m, n) with m at least 2, pooled over the second."""
    return float(values.double().var(dim=0).mean().sqrt())


def bias_of_noise(draws: Tensor, noise: float) -> tuple[float, float]:
    """By how many nats independent noise raises the log of the mean of K exponentials, on average: two estimates.

    Args:
        draws: (K, n) noisy log-densities.
        noise: variance of the noise of each, in nats^2.

    Returns:
        To second order in the noise, 1/2 s^2 (1 - sum_k w_k^2) with w the softmax over draws: right for s well below
        1 nat, and too small above, where the noise itself decides the weights. And in a Gaussian model at any s: the
        log-densities of the K draws are normal with the variance that was seen, of which `noise` is noise.
    """
    weights = torch.softmax(draws.double(), dim=0)
    second_order = noise / 2 * float((1 - weights.square().sum(dim=0)).mean())
    seen = float(draws.double().var(dim=0).mean())
    without = max(0.0, seen - noise)
    with_noise = max(seen, noise)
    count = len(draws)
    return second_order, gain_of_draws(math.sqrt(with_noise), count) - gain_of_draws(math.sqrt(without), count)


def gain_of_draws(deviation: float, count: int, samples: int = 20_000) -> float:
    """E log (1/K) sum_k exp(deviation z_k), z_k standard normal, by simulation; 0 for K = 1 or no deviation."""
    z = torch.randn(count, samples, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = torch.cat([z, -z], dim=1)  # pairs that cancel: for K = 1 the mean is exactly 0
    return float(log_mean(deviation * z).mean())
