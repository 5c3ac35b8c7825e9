"""The geometry of images that Lee et al. 2025 argue from: lengths, empty directions, faint frequencies, clusters.

On all training images of a data set (arXiv 2512.18184), with their mirror images where it is trained on them:

    lengths       mean ||x1|| of images and E ||x0|| of the Gaussian, whose ratio is the factor of norm alignment; and
                  how many images have which length
    pruning       ends of principal axes that no image comes near, and the share of noise that does (`pruned_share`)
    frequencies   coefficients of the DCT that hardly vary, which `fmcore.sources.DCT` masks
    clusters      spherical k-means, whose centres are the mean directions of `fmcore.sources.VonMisesFisher`

Where our numbers are not those of the paper, a second way of counting is measured too. Without mirror images more ends
are rejected. With colours rounded to whole numbers, as OpenCV converts them, fewer frequencies are faint: as many as
the paper has. Networks here see the middle of each bin, the brightest pixel at 255/256 and not at 1, so images
are that much shorter than in the paper (`fmcore.data.images`).
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import torch
from torch import Tensor

from fmcore import sources
from fmcore.data.images import ImageData
from fmcore.experiments import records
from fmcore.experiments.config.experiment import check_data_dir
from fmcore.experiments.config.overrides import EXTRA_FORBIDDEN, without_place
from fmcore.experiments.config.source import SourceConfig, check_pruning
from fmcore.experiments.records import number
from fmcore.experiments.run import fitted_source
from fmcore.papers.chosen_images import chosen_training_images
from fmcore.papers.lee2025 import experiments as lee2025
from fmcore.papers.lee2025.pruned_share import Shares, shares_of
from fmcore.settings import checked
from fmcore.sources.cosine_transform import TO_COLOUR_DIFFERENCES
from fmcore.training import seeded_generator

CHUNK = 1000  # images at once
BINS = 40  # of the histogram of lengths
SHOWN = 6  # ends of axes in the picture, of each kind
# Further thresholds at which noise is counted. Those of CIFAR-10 are the paper's.
THRESHOLDS = {
    "cifar10": (0.05, 0.055, 0.06, 0.07, 0.08),
    "digits": (0.3, 0.35, 0.4),
    "imagenet64": (0.027, 0.028, 0.03, 0.035),
}


@dataclass(frozen=True)
class GeometryConfig:
    """One measurement of the geometry of a data set.

    Attributes:
        experiment: its name in `MEASUREMENTS`.
        data: the data set.
        tau, threshold: of pruning, see `fmcore.sources.pruned`.
        thresholds: further ones, at which the share of rejected noise is measured too.
        data_dir: folder that holds the data set; none for the one in the environment variable FMCORE_DATA, or else the
            package's own. Records leave it out.
        flips: whether mirror images count too.
        images: training images, chosen at random; none for all.
        directions: of noise, of which those that are rejected are counted.
        masks: strengths at which faint frequencies are counted; empty for none.
        clusters: of spherical k-means, which has all images in memory; 0 for none.
        seed: of the images, the noise and the clusters.
    """

    __pydantic_config__ = EXTRA_FORBIDDEN

    experiment: str
    data: Literal["digits", "cifar10", "imagenet64"]
    tau: float
    threshold: float
    thresholds: tuple[float, ...] = ()
    data_dir: str | None = None
    flips: bool = True
    images: int | None = None
    directions: int = 1_000_000
    masks: tuple[Literal["weak", "strong"], ...] = ()
    clusters: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        checked(self)
        check_data_dir(self.data, self.data_dir)
        for name, bound in {"images": 2, "directions": 100, "clusters": 0, "seed": 0}.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise ValueError(f"{name} must be at least {bound}; got {value}")
        check_pruning(self.tau, self.threshold, "tau", "threshold")
        together = (self.threshold, *self.thresholds)
        if len(set(together)) < len(together) or not all(0 < value <= 1 for value in together):
            raise ValueError(
                f"thresholds={','.join(map(str, self.thresholds))} with threshold={self.threshold}: all are cosines, "
                "above 0 and at most 1, and none comes twice"
            )
        if len(set(self.masks)) < len(self.masks):
            raise ValueError(f"masks={','.join(self.masks)}: name none twice")

    @property
    def all_thresholds(self) -> tuple[float, ...]:
        """The thresholds at which noise is counted, in ascending order."""
        return tuple(sorted((self.threshold, *self.thresholds)))

    @property
    def versions(self) -> dict[str, bool]:
        """The sets of images for which axes are pruned: their names, and whether mirror images count."""
        if not self.flips:
            return {"images": False}
        return {"with mirror images": True, "without mirror images": False}


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured, and what the picture shows.

    Attributes:
        record: as JSON has it.
        full, empty: ends of axes (n, C, H, W): of the largest cosines with an image, and rejected ones.
        full_cosines, empty_cosines: (n,), their largest cosine with an image.
        centres: mean directions of the clusters, (K, C, H, W); the largest cluster first.
    """

    record: dict[str, Any]
    full: Tensor
    empty: Tensor
    full_cosines: Tensor
    empty_cosines: Tensor
    centres: Tensor


def _named(data: Any) -> tuple[str, GeometryConfig]:
    """The measurement with the numbers of the experiments of the same size, as far as those have such sources."""
    size, name = lee2025.SIZES[data], f"lee2025/geometry/{data}"
    rows = [row["source"] for row in lee2025.sources_of(size).values() if "source" in row]
    masks = tuple(row.masking for row in rows if row.distribution == "dct")
    clusters = max([row.components or 0 for row in rows if row.distribution == "von_mises_fisher"], default=0)
    return name, GeometryConfig(
        name, data, size.tau, size.threshold, THRESHOLDS[data], flips=size.flips, masks=masks, clusters=clusters
    )


MEASUREMENTS: dict[str, GeometryConfig] = dict(_named(data) for data in THRESHOLDS)


def measure(configuration: GeometryConfig, progress: bool = True) -> Measured:
    """Measure everything.

    Raises:
        ValueError: if there are fewer images than asked for, tau rejects no end, or the threshold nearly all noise.
        OSError: if the data is not there.
    """
    say: Callable[[str], Any] = (lambda line: print(line, file=sys.stderr)) if progress else (lambda line: None)
    data, images = chosen_training_images(
        configuration.data, configuration.data_dir, configuration.images, seeded_generator(configuration.seed, "points")
    )
    if configuration.clusters > len(images):
        raise ValueError(f"clusters={configuration.clusters}, and there are {len(images)} images: take fewer clusters")
    start = time.perf_counter()
    say(f"lengths of {len(images):,} images")
    of_images = lengths_of(data, images)
    values: dict[str, Any] = mean_lengths(data, of_images)
    found: dict[str, Shares] = {}
    for version, flips in configuration.versions.items():
        say(f"principal axes, {version}, and {configuration.directions:,} directions of noise")
        axes = sources.pruning_axes(images, configuration.tau, flips, data.scaled)
        found[version] = shares_of(
            axes,
            data.shape,
            configuration.threshold,
            configuration.all_thresholds,
            configuration.directions,
            seeded_generator(configuration.seed, "noise"),
        )
    first = next(iter(found.values()))
    for part in ("rejected_ends", "rejected_share", "proposals"):
        values[part] = {version: getattr(one, part) for version, one in found.items()}
    if configuration.masks:
        say("frequencies")
        values |= frequencies(configuration, data, images)
    centres = torch.empty(0, *data.shape)
    if configuration.clusters:
        say(f"spherical k-means, {configuration.clusters} clusters")
        centres, values["clusters"] = clusters(configuration, data, images)
    record = {
        "experiment": configuration.experiment,
        "configuration": without_place(configuration),
        "environment": records.environment(),
        "measurement": {
            "split": "train",
            "images": len(images),
            "shape": list(data.shape),
            "directions": configuration.directions,
            "seed": configuration.seed,
            "rejected_share_is": "of uniform directions, those with a cosine above the threshold with a rejected end",
            "wall_seconds": round(time.perf_counter() - start, 2),
        },
        "values": values,
        "curves": {version: one.curve for version, one in found.items()},
        "histograms": {"length of images": length_histogram(data, of_images)},
    }
    full, full_cosines = first.full(SHOWN)
    empty, empty_cosines = first.empty(SHOWN)
    return Measured(
        record, full.view(-1, *data.shape), empty.view(-1, *data.shape), full_cosines, empty_cosines, centres
    )


def lengths_of(data: ImageData, images: Tensor) -> Tensor:
    """Lengths of images (n, C, H, W) with grey levels put at -1 to 1; (n,) float64, from 0 to the square root of d."""
    found = torch.cat([data.scaled(part).flatten(1).double().norm(dim=1) for part in images.split(CHUNK)])
    return found * data.levels / (data.levels - 1)


def mean_lengths(data: ImageData, of_images: Tensor) -> dict[str, Any]:
    """Mean lengths of images and noise, and their ratio, on two scales: grey levels put at -1 to 1, and bins.

    of_images: as `lengths_of` has them.
    """
    noise = sources.Gaussian(data.shape)
    kinds = {"": of_images, ", middles of bins": of_images * (data.levels - 1) / data.levels}
    values = {f"images{kind}": records.measurement(one, "images") for kind, one in kinds.items()}
    ratios = {
        f"noise / images{kind}": number(sources.alignment_factor(noise, float(one.mean())))
        for kind, one in kinds.items()
    }
    return {"mean_length": {**values, "noise": number(noise.mean_norm), **ratios}}


def length_histogram(data: ImageData, of_images: Tensor) -> dict[str, Any]:
    """How many images have which length: counts (BINS,) and edges (BINS + 1,) from 0 to the square root of d.

    A bin includes its lower edge, and the last one its upper edge too. of_images: as `lengths_of` has them.
    """
    width = math.sqrt(math.prod(data.shape)) / BINS
    places = (of_images / width).long().clamp(max=BINS - 1)
    return {
        "edges": [width * k for k in range(BINS + 1)],
        "counts": torch.bincount(places, minlength=BINS).tolist(),
    }


def frequencies(configuration: GeometryConfig, data: ImageData, images: Tensor) -> dict[str, Any]:
    """How many coefficients of the DCT are masked, of all and of luminance; also with colours as whole numbers.

    As for the source, mirror images are not looked at: they have the same variances.
    """
    kept: dict[str, Tensor] = {}
    for strength in configuration.masks:
        wanted = SourceConfig(distribution="dct", masking=strength)
        kept[strength] = fitted_source.fit(wanted, data, images, configuration.flips, configuration.seed)["kept"]
    if data.shape[0] == 3:
        coloured = torch.cat([rounded_colours(part, data.levels) for part in images.split(CHUNK)])
        for strength in configuration.masks:
            kept[f"{strength}, colours rounded"] = sources.DCT.fit(coloured, strength).kept
    return {
        "masked": {name: number(int((~one).sum())) for name, one in kept.items()},
        "masked_luminance": {name: number(int((~one[0]).sum())) for name, one in kept.items()},
    }


def rounded_colours(images: Tensor, levels: int) -> Tensor:
    """Images (n, 3, H, W) in whole numbers whose luminance and colour differences were rounded; in [-1, 1] or near.

    As OpenCV does it: the luminance, rounded; then differences to that, rounded and cut off at the ends.
    """
    red, green, blue = images.double().unbind(1)
    weights, top = TO_COLOUR_DIFFERENCES, levels - 1
    luminance = (weights[0, 0] * red + weights[0, 1] * green + weights[0, 2] * blue).round()
    # A difference is a multiple of R - Y or B - Y, of which the matrix has the coefficient of R or B: c (1 - w).
    factors = (weights[1, 0] / (1 - weights[0, 0]), weights[2, 2] / (1 - weights[0, 2]))
    half = levels // 2
    cr, cb = (
        ((colour - luminance) * factor + half).round().clamp(0, top) - half
        for colour, factor in zip((red, blue), factors, strict=True)
    )
    back = torch.linalg.inv(weights)
    turned = torch.einsum("cd,ndhw->nchw", back, torch.stack([luminance, cr, cb], dim=1))
    return (2 / top * turned - 1).float()


def clusters(configuration: GeometryConfig, data: ImageData, images: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """Mean directions (K, C, H, W) as the source has them, the largest cluster first, and what is known of them."""
    wanted = SourceConfig(distribution="von_mises_fisher", components=configuration.clusters)
    fitted = fitted_source.fit(wanted, data, images, configuration.flips, configuration.seed)
    order = fitted["weights"].argsort(descending=True)
    shares, centres = (fitted["weights"] / fitted["weights"].sum())[order], fitted["directions"][order]
    flat, own = centres.flatten(1), []
    for part in images.split(CHUNK):
        points = data.scaled(part)
        for version in (points, points.flip(-1)) if configuration.flips else (points,):
            own.append((torch.nn.functional.normalize(version.flatten(1), dim=1) @ flat.T).amax(dim=1))
    values = {f"share of cluster {k + 1}": number(float(share)) for k, share in enumerate(shares)}
    for a, b in combinations(range(len(flat)), 2):
        values[f"cosine of centres {a + 1} and {b + 1}"] = number(float(flat[a] @ flat[b]))
    values["cosine of images with their centre"] = records.measurement(torch.cat(own).double(), "images")
    return centres, values
