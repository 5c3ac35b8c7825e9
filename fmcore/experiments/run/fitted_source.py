"""The source of an experiment: fitted to its training images, kept with the run, rebuilt to sample from it.

What a source takes from the data (cluster centres, covariances, axes, the factor of norm alignment, ...) is written to
source.safetensors, together with its configuration and the run that it belongs to, when a training starts. Sampling
reads it from there. So a network is never sampled with another source than it was trained with, unless pruning is asked
for: see `pruned_start`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fmcore import sources
from fmcore.data.images import ImageData, dequantize
from fmcore.experiments.config.experiment import Configuration
from fmcore.experiments.config.source import SourceConfig
from fmcore.experiments.run.fitted_file import keep, kept
from fmcore.experiments.run.identity import Identity
from fmcore.experiments.run.pruning_axes import axes_from, axes_tensors, axes_to_prune
from fmcore.networks.concat_squash import ConcatSquashNet
from fmcore.solvers import solve
from fmcore.sources import Source
from fmcore.training import derived_seed
from fmcore.training.maximum_likelihood import fit_flow
from fmcore.velocity import Velocity

FILE = "source.safetensors"
Couple = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
FLOW_STEPS = 8  # midpoint steps with which samples of a flow source are drawn


@dataclass(frozen=True, eq=False)
class FittedSource:
    """What x0 is drawn from, and what the network sees of a pair.

    Attributes:
        config: what it was asked for.
        source: of x0, before norm alignment.
        norms: E ||x0|| and E ||x1||, of which norm alignment makes one from the other; None without.
        path_scale: by which the path multiplies x0 at t = 0 (`AffinePath.source_scale`).
    """

    config: SourceConfig
    source: Source
    norms: tuple[float, float] | None = None
    path_scale: float = 1.0

    @property
    def factor(self) -> float:
        """E ||x0|| / E ||x1||, by which data are scaled up, or noise down; 1 without norm alignment."""
        return 1.0 if self.norms is None else self.norms[0] / self.norms[1]

    def pairs(self, x1: Tensor, couple: Couple, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw x0 for the points x1 (B, *shape) and pair them, both on the scale of the network."""
        if isinstance(self.source, sources.DCT):
            x1 = self.source.masked(x1)
        if isinstance(self.source, sources.AroundPoints):
            x0 = self.source.given(x1, generator)
        else:
            x0 = self.source.sample(len(x1), generator)
        if self.config.norm == "data_up":
            x1 = self.factor * x1
        elif self.config.norm == "noise_down":
            x0 = x0 / self.factor
        return couple(x0, x1)

    def velocity(self, network: Velocity) -> Velocity:
        """The velocity on the scale of the data: with data scaled up by c in training, (x, t) -> v(c x, t) / c."""
        if self.config.norm != "data_up":
            return network
        factor = self.factor
        return lambda x, t: network(factor * x, t) / factor

    @property
    def at_start(self) -> Source:
        """The distribution of x_t at t = 0: the variance-exploding path starts from N(0, sigma_max^2 I)."""
        if isinstance(self.source, sources.Gaussian):
            return replace(self.source, std=self.source.std * self.path_scale)
        return self.source

    def start(self, source: Source | None = None) -> Source:
        """`at_start` on the scale of the data; ``source`` in its place, if it is given."""
        chosen = self.at_start if source is None else source
        return chosen if self.norms is None else sources.NormAligned(chosen, self.norms[1], self.norms[0])


def fit(config: SourceConfig, data: ImageData, images: Tensor, flips: bool, seed: int) -> dict[str, Tensor]:
    """What the source takes from the training images (n, C, H, W), by name; empty for a standard Gaussian.

    Args:
        config: of the source.
        data: the data set of the images, for their scale.
        images: whole numbers.
        flips: whether mirror images are trained on too.
        seed: of everything that is drawn.
    """
    found = _fit(config, data, images, flips, derived_seed(seed, "source"))
    found = {name: value.contiguous() for name, value in found.items()}  # as read back: the layout changes roundings
    if config.norm != "none":
        lengths = [data.scaled(part).flatten(1).double().norm(dim=1) for part in images.split(1000)]
        source = _build(config, data.shape, found, images, data.scaled)
        found["norms"] = torch.tensor([sources.mean_norm(source), torch.cat(lengths).mean()], dtype=torch.float64)
    return found


def _fit(config: SourceConfig, data: ImageData, images: Tensor, flips: bool, seed: int) -> dict[str, Tensor]:
    def points() -> Tensor:
        scaled = data.scaled(images)
        return torch.cat([scaled, scaled.flip(-1)]) if flips else scaled

    if config.distribution == "dct":
        assert config.masking is not None  # checked by the configuration, as all that a source needs
        return {"kept": sources.DCT.fit(data.scaled(images), config.masking).kept}
    if config.distribution == "mixture":
        assert config.components is not None
        made = sources.GaussianMixture.fit(points(), config.components, seed=seed % 2**32)
        numbers = torch.tensor([made.shift, made.scale], dtype=torch.float64)
        return {"weights": made.weights, "means": made.means, "factors": made.factors, "standardized": numbers}
    if config.distribution == "von_mises_fisher" and config.components is not None:
        centres, sizes = sources.spherical_k_means(points(), config.components, seed=seed)
        return {"directions": centres, "weights": sizes}
    if config.distribution == "pruned":
        assert config.tau is not None
        return axes_tensors(axes_to_prune(data, images, flips, config.tau))
    if config.distribution == "flow":
        assert config.flow_steps is not None
        network = _flow_network(config, data.shape, seed)

        def draw(n: int, generator: torch.Generator) -> Tensor:
            rows = torch.randint(len(images), (n,), generator=generator)
            return dequantize(images[rows], data.levels, generator)

        fit_flow(network, sources.Gaussian(data.shape), draw, config.flow_steps, seed=seed)
        return {name: value.detach() for name, value in network.state_dict().items()}
    return {}


def _flow_network(config: SourceConfig, shape: tuple[int, ...], seed: int = 0) -> ConcatSquashNet:
    assert config.flow_width is not None
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(derived_seed(seed, "flow"))
        return ConcatSquashNet(shape[0], config.flow_width)


def build(
    config: SourceConfig,
    shape: tuple[int, ...],
    fitted: dict[str, Tensor],
    images: Tensor,
    scaled: Callable[[Tensor], Tensor],
    path_scale: float = 1.0,
) -> FittedSource:
    """The source from what was fitted; images (whole numbers) and scaled are for the oracle, which knows them all."""
    source = _build(config, shape, fitted, images, scaled)
    if config.norm == "none":
        return FittedSource(config, source, path_scale=path_scale)
    of_source, of_data = fitted["norms"].tolist()
    return FittedSource(config, source, (of_source, of_data), path_scale)


def _build(
    config: SourceConfig,
    shape: tuple[int, ...],
    fitted: dict[str, Tensor],
    images: Tensor,
    scaled: Callable[[Tensor], Tensor],
) -> Source:
    kappa = float("inf") if config.kappa is None else config.kappa
    match config.distribution:
        case "gaussian":
            return sources.Gaussian(shape)
        case "chi_sphere":
            return sources.ChiSphere(shape)
        case "dct":
            return sources.DCT(shape, fitted["kept"])
        case "mixture":
            shift, scale = fitted["standardized"].tolist()
            return sources.GaussianMixture(shape, fitted["weights"], fitted["means"], fitted["factors"], shift, scale)
        case "von_mises_fisher" if config.is_oracle:
            return sources.AroundPoints(images, kappa, scaled)
        case "von_mises_fisher":
            return sources.VonMisesFisher(fitted["directions"], kappa, fitted["weights"])
        case "pruned":
            assert config.threshold is not None
            return sources.Pruned(sources.Gaussian(shape), axes_from(fitted), config.threshold)
        case _:
            network = _flow_network(config, shape)
            network.load_state_dict({name: value for name, value in fitted.items() if name != "norms"})
            network.eval().requires_grad_(False)

            def transport(x: Tensor) -> Tensor:
                return solve(network.to(x.device), x, method="midpoint", steps=FLOW_STEPS).x

            return sources.FlowSource(sources.Gaussian(shape), transport)


def keep_fitted(found: dict[str, Tensor], config: SourceConfig, folder: Path, run: Identity | None = None) -> None:
    """Keep in the folder of a run what `fit` has found."""
    keep(found, asdict(config), folder / FILE, run)


def of_run(
    configuration: Configuration, folder: Path, images: ImageData, train_on: Tensor, run: Identity | None = None
) -> FittedSource:
    """The source that is kept in the folder of a run.

    Raises:
        ValueError: if the file is damaged or belongs to another source or run.
        FileNotFoundError: if there is none, and the source is not the standard Gaussian.
    """
    file = folder / FILE
    found = kept(asdict(configuration.source), file, run)
    if found is None and not configuration.source.is_plain:
        raise FileNotFoundError(f"{file} is missing, and nothing else says where samples start: train the run again")
    return from_fitted(configuration, found or {}, images, train_on)


def from_fitted(
    configuration: Configuration, found: dict[str, Tensor], images: ImageData, train_on: Tensor
) -> FittedSource:
    """The source of an experiment from what `fit` has found."""
    scale = configuration.build_path().source_scale
    return build(configuration.source, images.shape, found, train_on, images.scaled, scale)


def pruned_start(fitted: FittedSource, threshold: float, axes: sources.PruningAxes) -> tuple[Source, sources.Pruned]:
    """The source without the directions in which there are no data, for a network that was trained on all of them.

    Args:
        fitted: the source of the training, of uniform direction.
        threshold: see `fmcore.sources.Pruned`.
        axes: without data, see `keep_axes`.

    Returns:
        The source on the scale of the data, and the pruned one without norm alignment.
    """
    source = fitted.at_start
    assert isinstance(source, (sources.Gaussian, sources.ChiSphere))  # checked by the configuration
    pruned = sources.Pruned(source, axes, threshold)
    return fitted.start(pruned), pruned


def check_starts(source: Source) -> None:
    """Draw one sample, before the training and not after it.

    Raises:
        ValueError: if nothing can be drawn, since pruning has left hardly any direction.
    """
    try:
        source.sample(1, torch.Generator().manual_seed(0))
    except RuntimeError as error:
        raise ValueError(f"nothing to start from: {error}") from None
