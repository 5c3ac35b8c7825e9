"""A Gaussian without the directions in which there is no data.

Lee et al. 2025 (arXiv 2512.18184) look for axes, principal components of the data and their opposites, to which no
image comes close: the cosine of every image with them is at most tau. Noise that points along such an axis is thrown
away: x0 is kept if its cosine with each of them is at most a second threshold tau_r. It is done when sampling only,
with networks that were trained on all noise.

Throwing away costs: at tau_r = .048 in 3,072 dimensions one in tens of thousands of Gaussian samples is kept. `Pruned`
draws the same distribution with far fewer proposals. Let u be the direction of x0, m its largest cosine with a rejected
axis, and F the distribution function of chi(d), that of the length of x0. Direction and length of a Gaussian are
independent, and being kept depends on the direction alone. A proposal is a Gaussian whose coordinates along rejected
axes are cut off at a bound b. Its direction has the density, relative to the uniform one, P(r m <= b) = F(b / m) up to
a constant. So it is accepted with the probability

    1[m <= tau_r] F(b / tau_r) / F(b / m),

which is at most 1, and gets a fresh length: the result is exact for any b. The rate of acceptance is the share of kept
directions times F(b / tau_r) / P(a Gaussian is within the bounds), of which the second is known: b maximizes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fmcore.sources.axes import PruningAxes
from fmcore.sources.checks import drawing_device
from fmcore.sources.gaussian import Gaussian
from fmcore.sources.sphere import ChiSphere
from fmcore.sources.tabulated import Tabulated, chi
from fmcore.validation import check_count

# Without a single acceptance among so many proposals the region counts as empty.
MOST_PROPOSALS = 100_000
# Numbers of proposals in one block, 32 MB in float64.
BLOCK = 2**22


@dataclass(frozen=True, eq=False)
class Pruned:
    """A source of uniform direction, restricted to directions whose cosine with no rejected axis passes a threshold.

    Attributes:
        source: a Gaussian or a ChiSphere.
        axes: see `fmcore.sources.pruning_axes`.
        threshold: tau_r, above 0 and at most 1.
        bound: where proposals are cut off, in standard deviations; chosen for the best rate of acceptance.

    Raises:
        ValueError: if the axes have another dimension or no rejected end, or for a threshold out of range.
    """

    source: Gaussian | ChiSphere
    axes: PruningAxes
    threshold: float
    bound: float = field(init=False)

    def __post_init__(self) -> None:
        dim = math.prod(self.source.shape)
        if dim != self.axes.axes.shape[1]:
            raise ValueError(f"the axes have {self.axes.axes.shape[1]} dimensions, samples of the source have {dim}.")
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}: it is a cosine, above 0 and at most 1.")
        if self.axes.count == 0:
            raise ValueError(f"nothing to prune: {self.axes.why_none()}.")
        bounds = torch.linspace(0.05, 6, 1200, dtype=torch.float64)
        hardly_longer = math.sqrt(dim) + 8  # than any Gaussian is; a bound of tau_r times that is plain rejection
        if self.threshold * hardly_longer > 6:
            further = torch.linspace(6, self.threshold * hardly_longer, 200, dtype=torch.float64)
            bounds = torch.cat([bounds, further])
        rates = self._log_share_below(bounds / self.threshold) - self._log_mass(bounds)
        object.__setattr__(self, "bound", float(bounds[rates.argmax()]))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.source.shape

    @property
    def mean_norm(self) -> float:
        """E ||x||, that of the source: pruning looks at directions only."""
        return self.source.mean_norm

    def contains(self, x: Tensor) -> Tensor:
        """Whether points (n, *shape) are kept, (n,) bool."""
        return self.axes.largest_cosine(x) <= self.threshold

    def sample(
        self, n: int, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Draw n samples, (n, *shape) float32, on the device (by default the generator's).

        Raises:
            RuntimeError: if none of 100,000 proposals is accepted.
            ValueError: if n is not a whole number of at least 0, or the generator is on another device.
            TypeError: for a generator that is none of PyTorch's.
        """
        return self.sample_counted(n, generator, device)[0]

    def sample_counted(
        self, n: int, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> tuple[Tensor, int]:
        """The samples, and how many proposals they took."""
        device = drawing_device(n, generator, device)
        axes = self.axes.rejected()
        rejected = axes.axes.to(device or "cpu", torch.float64)
        remaining = chi(rejected.shape[1] - len(rejected)) if len(rejected) < rejected.shape[1] else None
        found, proposals = [rejected.new_empty(0, len(rejected))], 0
        block = max(16, BLOCK // max(1, len(rejected)))
        while (have := sum(map(len, found))) < n:
            rate = have / proposals if have else 1 / (20 + proposals)
            size = min(block, max(64, int(1.2 * (n - have) / rate)))
            cosines = self._proposals(axes, remaining, size, generator, device)
            if have + len(cosines) > n:  # those that were needed, of a block of which some were not
                size = size * (n - have) // len(cosines)
            found.append(cosines)
            proposals += size
            if proposals >= MOST_PROPOSALS and not sum(map(len, found)):
                raise RuntimeError(
                    f"none of {proposals:,} proposals is within the threshold {self.threshold:g} of {axes.count} "
                    "rejected axes: hardly any direction is left. Raise the threshold, or lower tau"
                )
        cosines = torch.cat(found)[:n]
        along = cosines @ rejected
        noise = torch.randn(n, rejected.shape[1], generator=generator, device=device, dtype=torch.float64)
        aside = torch.nn.functional.normalize(noise - (noise @ rejected.T) @ rejected, dim=1)
        directions = along + (1 - along.square().sum(dim=1, keepdim=True)).clamp(min=0).sqrt() * aside
        lengths = self._lengths(n, generator, device)
        return (lengths[:, None] * directions).float().view(n, *self.shape), proposals

    def share_kept(self, proposals: int = 10_000, generator: torch.Generator | None = None) -> float:
        """An unbiased estimate of the share of directions that are kept, P(m <= tau_r).

        The rate of acceptance is this share times a known number; where plain rejection would find nothing, it still
        has something to count.

        Raises:
            ValueError: unless proposals is a whole number of at least 1.
            TypeError: for a generator that is none of PyTorch's.
        """
        check_count("proposals", proposals)
        device = drawing_device(proposals, generator, None)
        axes, accepted, done = self.axes.rejected(), 0, 0
        remaining = chi(axes.axes.shape[1] - len(axes.axes)) if len(axes.axes) < axes.axes.shape[1] else None
        block = max(16, BLOCK // max(1, len(axes.axes)))
        while done < proposals:
            size = min(block, proposals - done)
            accepted += len(self._proposals(axes, remaining, size, generator, device))
            done += size
        bound = torch.tensor(self.bound, dtype=torch.float64)
        return (
            accepted / proposals * float((self._log_mass(bound) - self._log_share_below(bound / self.threshold)).exp())
        )

    def _proposals(
        self,
        axes: PruningAxes,
        remaining: Tabulated | None,
        size: int,
        generator: torch.Generator | None,
        device: torch.device | str | None,
    ) -> Tensor:
        """Cosines with the rejected axes (accepted, m) float64 of those of `size` proposals that were accepted.

        remaining: the length of a Gaussian orthogonal to the axes; None if nothing is.
        """
        bound = torch.tensor(self.bound, dtype=torch.float64)
        low = torch.where(axes.negative, torch.special.ndtr(-bound), 0.0).to(device or "cpu")
        high = torch.where(axes.positive, torch.special.ndtr(bound), 1.0).to(device or "cpu")
        uniform = torch.rand(size, len(low), generator=generator, device=device, dtype=torch.float64)
        tiny = 1e-16  # ndtri(0) is -inf
        coordinates = torch.special.ndtri((low + (high - low) * uniform).clamp(tiny, 1 - tiny))
        squares = coordinates.square().sum(dim=1)
        if remaining is not None:
            squares = squares + remaining.sample(size, generator, device).square()
        cosines = coordinates / squares.sqrt()[:, None]
        worst = axes.worst(cosines)
        log_rate = self._log_share_below(bound / self.threshold) - self._log_share_below(
            torch.where(worst > 0, self.bound / worst.clamp(min=1e-300), math.inf)
        )
        chance = torch.rand(size, generator=generator, device=device, dtype=torch.float64)
        return cosines[(worst <= self.threshold) & (chance.log() < log_rate)]

    def _log_share_below(self, length: Tensor) -> Tensor:
        """Logarithm of F(length), the share of Gaussians in d dimensions that are shorter; float64."""
        half = torch.as_tensor(self.axes.axes.shape[1] / 2, dtype=torch.float64, device=length.device)
        return torch.special.gammainc(half, (length.double().square() / 2).clamp(max=1e30)).log()

    def _log_mass(self, bound: Tensor) -> Tensor:
        """Logarithm of P(a Gaussian is within the bounds), which is a product over axes."""
        both = int((self.axes.positive & self.axes.negative).sum())
        one = self.axes.count - 2 * both
        inside = torch.special.erf(bound / math.sqrt(2))
        return one * torch.special.log_ndtr(bound) + both * inside.log()

    def _lengths(self, n: int, generator: torch.Generator | None, device: torch.device | str | None) -> Tensor:
        """Lengths of n samples of the source, (n,) float64."""
        if isinstance(self.source, Gaussian):
            return self.source.std * chi(math.prod(self.shape)).sample(n, generator, device)
        return self.source.radius.sample(n, generator, device)
