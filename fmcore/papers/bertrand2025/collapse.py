"""How soon the exact velocity of a finite data set points at one single image: figure 1 of Bertrand et al. 2025.

For pairs x0 ~ N(0, I) and x1 from the training points, on the rectified path x_t = (1 - t) x0 + t x1, the figure shows

    cos(u*(x_t, t), x1 - x0)

against t (arXiv 2506.03719). Once it is 1, x_t tells which point it came from, and the target of flow matching is no
longer noisy: the exact velocity has collapsed onto the conditional one. The more dimensions, the earlier. To vary the
dimension and nothing else, images are subsampled: of a size k times smaller every k-th row and column is left.

What the cosine does not show: at t = 0 the exact velocity is E[x1] - x0, which knows nothing of x1, and its cosine with
x1 - x0 is about sqrt(d / (d + ||x1||^2)) for centred images. That is .9 on CIFAR-10, at every size: half of the pairs
are above .9 for this reason alone. A collapse is therefore where nearly all of them are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from fmcore import data
from fmcore.closed_form import EmpiricalVelocity
from fmcore.experiments import records
from fmcore.experiments.config.experiment import check_data_dir
from fmcore.experiments.config.overrides import EXTRA_FORBIDDEN, without_place
from fmcore.papers.bertrand2025.collapse_cosines import cosines, time_of_collapse
from fmcore.papers.chosen_images import chosen_training_images
from fmcore.paths import rectified
from fmcore.settings import checked
from fmcore.training import seeded_generator

HEIGHTS = {"digits": 8, "cifar10": 32, "imagenet32": 32, "imagenet64": 64, "imagenet128": 128}
BINS = 40  # of the histograms, over [-1, 1]


@dataclass(frozen=True)
class CollapseConfig:
    """One measurement of the collapse.

    Attributes:
        experiment: its name in `MEASUREMENTS`.
        data: a data set of images, or two_moons in the plane.
        data_dir: folder that holds the data set; none for the one in the environment variable FMCORE_DATA, or else the
            package's own. Records leave it out.
        sizes: heights of the images in pixels, each of which divides that of the data set; none for two_moons.
        images: training points, chosen at random; none for all. Points of two_moons are drawn, so it must be a number.
        pairs: of x0 and x1; no training point comes twice.
        times: of the grid 0, 1/times, ..., 1 - 1/times.
        shown: times of the grid whose histograms and mean cosines are kept.
        threshold: pairs with a larger cosine are counted.
        share: of the pairs, from which on the velocity counts as collapsed.
        seed: of the points, the pairs and the resampling.
    """

    __pydantic_config__ = EXTRA_FORBIDDEN

    experiment: str
    data: Literal["two_moons", "digits", "cifar10", "imagenet32", "imagenet64", "imagenet128"]
    data_dir: str | None = None
    sizes: tuple[int, ...] = ()
    images: int | None = None
    pairs: int = 256
    times: int = 100
    shown: tuple[float, ...] = (0.01, 0.21, 0.40, 0.60, 0.79, 0.99)
    threshold: float = 0.9
    share: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        checked(self)
        check_data_dir(self.data, self.data_dir)
        for name, bound in {"images": 2, "pairs": 2, "times": 1, "seed": 0}.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise ValueError(f"{name} must be at least {bound}; got {value}")
        if not -1 < self.threshold < 1 or not 0 < self.share <= 1:
            raise ValueError(
                f"threshold={self.threshold} and share={self.share}: the one is a cosine, above -1 and below 1, and "
                "the other a part of the pairs, above 0 and at most 1"
            )
        if self.images is not None:
            check_pairs(self.pairs, self.images)
        check_sizes(self)
        grid = [k / self.times for k in range(self.times)]
        off = [t for t in self.shown if not any(math.isclose(t, k, abs_tol=1e-9) for k in grid)]
        if off or len(set(self.shown)) < max(1, len(self.shown)):
            raise ValueError(
                f"shown={','.join(map(str, self.shown))}: name at least one time, none twice, and only those of the "
                f"grid, the multiples of 1/{self.times} below 1"
            )


def check_pairs(pairs: int, images: int) -> None:
    """Raise ValueError if there are more pairs than training points, of which none is taken twice."""
    if pairs > images:
        raise ValueError(
            f"pairs={pairs}, and there are {images} training points, each of which belongs to one pair at most: take "
            "fewer pairs, or more images"
        )


def check_sizes(configuration: CollapseConfig) -> None:
    """Raise ValueError unless the sizes go with the data."""
    name, sizes = configuration.data, configuration.sizes
    given = f"data={name} with sizes={','.join(map(str, sizes))}"
    if name == "two_moons":
        if sizes:
            raise ValueError(f"{given}: points in the plane have no pixels, leave the sizes out (sizes=)")
        if configuration.images is None:
            raise ValueError("data=two_moons with images=none: the points are drawn, say how many (images=50000)")
        return
    height = HEIGHTS[name]
    if not sizes or len(set(sizes)) < len(sizes) or any(size < 1 or height % size for size in sizes):
        raise ValueError(
            f"{given}: name at least one height, none twice, and only those that divide {height}, "
            "since every k-th row and column is kept"
        )


def _named(data_set: Any, **settings: Any) -> tuple[str, CollapseConfig]:
    name = f"bertrand2025/{data_set}/collapse"
    return name, CollapseConfig(experiment=name, data=data_set, **settings)


# The paper has two moons and CIFAR-10, 50,000 points each, and Imagenette from 8 to 256 pixels.
MEASUREMENTS: dict[str, CollapseConfig] = dict(
    [
        _named("two_moons", images=50_000),
        _named("digits", sizes=(2, 4, 8)),
        _named("cifar10", sizes=(8, 16, 32)),
        _named("imagenet128", sizes=(8, 16, 32, 64, 128)),
    ]
)


def training_points(configuration: CollapseConfig) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
    """The training points (n, *shape), as they are kept, and what scales some of them; None for points in the plane.

    Raises:
        ValueError: if there are fewer than asked for, or fewer than pairs.
        OSError: if the data is not there.
    """
    generator = seeded_generator(configuration.seed, "points")
    if configuration.data == "two_moons":
        assert configuration.images is not None  # checked by the configuration
        return data.toy.two_moons(configuration.images, generator), None
    found, points = chosen_training_images(configuration.data, configuration.data_dir, configuration.images, generator)
    check_pairs(configuration.pairs, len(points))
    return points, found.scaled


def measure(configuration: CollapseConfig, progress: bool = True) -> dict[str, Any]:
    """Measure the collapse at every size, and return the record.

    The pairs are the same at every size: x0 and x1 are subsampled alike.

    Raises:
        ValueError, OSError: as `training_points`.
    """
    from tqdm.auto import tqdm

    points, scale = training_points(configuration)
    start = time.perf_counter()
    generator = seeded_generator(configuration.seed, "pairs")
    chosen = points[torch.randperm(len(points), generator=generator)[: configuration.pairs]]
    x1 = chosen if scale is None else scale(chosen)
    x0 = torch.randn(x1.shape, generator=generator)
    times = torch.arange(configuration.times, dtype=torch.float64) / configuration.times
    sizes: list[int | None] = [*sorted(configuration.sizes)] or [None]
    found: dict[int | None, Tensor] = {}
    with tqdm(total=len(sizes) * len(times), desc=configuration.experiment, unit=" times", disable=not progress) as bar:
        for size in sizes:
            velocity = EmpiricalVelocity(subsampled(points, size), rectified(), scale=scale)
            found[size] = cosines(velocity, subsampled(x0, size), subsampled(x1, size), times, bar.update)
    largest = sizes[-1]
    threshold, share = configuration.threshold, configuration.share
    return {
        "experiment": configuration.experiment,
        "configuration": without_place(configuration),
        "environment": records.environment(),
        "measurement": {
            "split": "train",
            "images": len(points),
            "pairs": configuration.pairs,
            "seed": configuration.seed,
            "path": "rectified",
            "time_of_collapse_is": f"first time of the grid from which on at least {share:g} of the pairs have a "
            f"cosine above {threshold:g}",
            "mean_cosine_at_is": f"over pairs, of {label(largest)}",
            "wall_seconds": round(time.perf_counter() - start, 2),
        },
        "values": {
            "time_of_collapse": {
                label(size): time_of_collapse(
                    found[size], times, threshold, share, seeded_generator(configuration.seed, "resampling")
                )
                for size in sizes
            },
            "mean_cosine_at": {
                f"t = {t:g}": records.measurement(found[largest][row], "pairs", standard_error=True)
                for t, row in rows_shown(configuration)
            },
        },
        "curves": [
            {"size": size, "dimension": subsampled(x0, size)[0].numel(), "images": len(points)}
            | curve(found[size], times, configuration)
            for size in sizes
        ],
    }


def subsampled(images: Tensor, size: int | None) -> Tensor:
    """Every k-th row and column of images (n, C, H, H), so that `size` of each are left; a view. None leaves all."""
    if size is None:
        return images
    every = images.shape[-1] // size
    return images[..., ::every, ::every]


def curve(found: Tensor, times: Tensor, configuration: CollapseConfig) -> dict[str, Any]:
    """What a record keeps of the cosines (T, pairs) at one size, in six digits."""

    def rounded(values: Tensor) -> list[float]:
        return [round(value, 6) for value in values.tolist()]

    return {
        "times": rounded(times),
        "mean_cosine": rounded(found.mean(dim=1)),
        "share_above": rounded((found > configuration.threshold).double().mean(dim=1)),
        "histograms": [
            {"t": t, "counts": [int(count) for count in torch.histc(found[row], BINS, -1, 1).tolist()]}
            for t, row in rows_shown(configuration)
        ],
        "edges": rounded(torch.linspace(-1, 1, BINS + 1, dtype=torch.float64)),
    }


def rows_shown(configuration: CollapseConfig) -> list[tuple[float, int]]:
    """The times to show, in order, and their rows in the grid."""
    return [(t, round(t * configuration.times)) for t in sorted(configuration.shown)]


def label(size: int | None) -> str:
    """What a size is called in records and pictures."""
    return "the plane" if size is None else f"{size}x{size} pixels"
