"""Does a sample repeat a training image? Distances to the two nearest, and the share of samples that are copies.

A copy is much nearer to one training image than to any other. How much is a matter of convention; here, as in Yoon et
al. 2023 ("Diffusion probabilistic models generalize when they fail to memorize") and Gu et al. 2023 ("On memorization
in diffusion models"), a sample is a copy if its distance to the nearest is below a third of that to the second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fmcore.closed_form.precision import full_products
from fmcore.validation import check_finite, check_floating

COPY_RATIO = 1 / 3
# Candidates that one product selects; their distances are then taken from the differences.
CANDIDATES = 8
# Elements of one block of products, 16 MB in float32, and of one piece of differences, 8 MB in float64.
BLOCK, PIECE = 2**22, 2**20
# Training images at once, at most.
CHUNK = 2**14


@dataclass(frozen=True, eq=False)
class Nearest:
    """The two nearest training images of each sample.

    Attributes:
        distance: (B, 2) float64, Euclidean, in increasing order; infinite where there is no second training image.
        row: (B, 2) int64, their numbers; -1 where there is none. Among equally near ones the choice is arbitrary.
    """

    distance: Tensor
    row: Tensor

    @property
    def ratio(self) -> Tensor:
        """Distance to the nearest over that to the second nearest; (B,) float64 in [0, 1].

        It is 0 for an exact copy, also of an image that the training set holds twice.

        Raises:
            ValueError: if there is only one training image.
        """
        nearest, second = self.distance.T
        if torch.isinf(second).any():
            raise ValueError("the ratio of distances needs at least two training images, and there is one.")
        return torch.where(nearest == 0, 0.0, nearest / second)

    def share_of_copies(self, threshold: float = COPY_RATIO) -> float:
        """The share of samples whose ratio is below the threshold; in [0, 1].

        The ratio is that of the training images that were searched, as they were given. A copy of the mirror image of
        one counts only where mirror images were given, too; so a share with them and one without are two quantities,
        and must not be compared with each other. With more images to search, the second nearest is nearer: the ratio
        rises, and a share may fall.

        Raises:
            ValueError: if there is only one training image, or the threshold lies outside (0, 1].
        """
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold is {threshold}: it is a ratio of distances, above 0 and at most 1.")
        return float((self.ratio < threshold).double().mean())


@torch.no_grad()
def nearest_training_images(images: Tensor, train: Tensor, scale: Callable[[Tensor], Tensor] | None = None) -> Nearest:
    """Find the two training images nearest to each image, exactly, in memory that does not grow with B times n.

    Matrix products ||x_i||^2 - 2 <x, x_i> select a few candidates; distances are then taken from their differences in
    float64, so that a copy is at distance 0. A bound on the rounding of the products says whether a nearer one could
    have been missed; such rows (near sets of almost equal images) are done again with products in float64.

    Args:
        images: (B, *shape), B >= 1.
        train: (n, *shape), n >= 1; it may be mapped from a file. All that are searched: pass the images that the model
            was trained on, and their mirror images where it saw them and copies of those should count.
        scale: turns whole numbers into floating point, chunk by chunk (``ImageData.scaled``); not applied to floats.

    Raises:
        ValueError: for other shapes, no images, or values that are not finite.
        TypeError: for whole numbers without ``scale``.
    """
    for name, x in (("images", images), ("train", train)):
        if x.ndim < 2 or len(x) == 0:
            raise ValueError(f"{name} has shape {tuple(x.shape)}: pass at least one point, shape (n, *shape).")
        if scale is None:
            check_floating(name, x, scale=True)
    if images.shape[1:] != train.shape[1:]:
        raise ValueError(
            f"images have shape {tuple(images.shape[1:])}, training images {tuple(train.shape[1:])}: they must agree."
        )

    def points(x: Tensor) -> Tensor:
        x = x.to(images.device)  # before it is scaled: whole numbers are a quarter of the bytes
        return (x if scale is None or x.is_floating_point() else scale(x)).flatten(1)

    query = points(images)
    check_finite("images", query)
    with full_products(query.device):
        distance, row, certain = _select(query, train, points)
        if query.dtype != torch.float64 and not certain.all():
            again = ~certain
            distance[again], row[again], _ = _select(query[again].double(), train, points)
    return Nearest(distance, row)


def _select(query: Tensor, train: Tensor, points: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Distances (B, 2) and rows (B, 2) of the two nearest of some candidates, and whether no other can be nearer."""
    width, n = query.shape[1], len(train)
    # A multiple of 64: products with an odd number of columns can take a third longer.
    at_once = min(n, CHUNK, max(64, 4 * PIECE // width // 64 * 64))
    block = max(1, BLOCK // at_once)
    score = query.new_full((len(query), CANDIDATES), torch.inf)
    row = torch.full((len(query), CANDIDATES), -1, dtype=torch.int64, device=query.device)
    radius = 0.0
    for start in range(0, n, at_once):
        chunk = points(train[start : start + at_once]).to(query)
        squares = chunk.square().sum(dim=1)
        check_finite(f"train[{start}:{start + len(chunk)}]", squares)
        radius = max(radius, float(squares.max()) ** 0.5)
        for first in range(0, len(query), block):
            rows = slice(first, first + block)
            values = torch.addmm(squares, query[rows], chunk.T, alpha=-2)
            found, column = values.topk(min(CANDIDATES, len(chunk)), largest=False, sorted=False)
            both, numbers = torch.cat([score[rows], found], dim=1), torch.cat([row[rows], column + start], dim=1)
            score[rows], kept = both.topk(CANDIDATES, largest=False)
            row[rows] = numbers.gather(1, kept)
    exact = torch.full(row.shape, torch.inf, dtype=torch.float64, device=query.device)
    for part in row.ge(0).nonzero().split(max(1, PIECE // width)):
        r, c = part.T
        near = points(train[row[r, c].to(train.device)])
        exact[r, c] = (query[r].double() - near.double()).square().sum(dim=1)
    squared, order = exact.sort(dim=1)
    squared, order = squared[:, :2], order[:, :2]
    # Whatever was left out has a score of at least the last one kept, and both are rounded.
    norm = query.double().norm(dim=1)
    rounding = 16 * torch.finfo(query.dtype).eps * radius * (radius + 2 * norm)
    certain = squared[:, 1] <= score[:, -1].double() + norm**2 - rounding
    return squared.sqrt(), row.gather(1, order), certain
