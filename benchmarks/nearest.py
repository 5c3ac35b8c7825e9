"""The two nearest of 50,000 training images, against scikit-learn's brute force.

The default is 1,000 images; ``python -m benchmarks.nearest 10000`` takes ten times as long.
"""

from __future__ import annotations

import sys

import torch

from benchmarks.measure import Row, speed, table
from fmcore.metrics import nearest_training_images

POINTS, DIM, IMAGES = 50_000, 3072, 1_000


def run(count: int = IMAGES, repetitions: int = 3) -> list[Row]:
    from sklearn.neighbors import NearestNeighbors

    g = torch.Generator().manual_seed(0)
    train = torch.empty(POINTS, DIM).uniform_(-1, 1, generator=g)
    images = 0.7 * train[:count] + 0.3 * torch.randn(count, DIM, generator=g)
    peer = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(train.numpy())
    found = {}

    def ours() -> None:
        found["ours"] = nearest_training_images(images, train).distance

    def theirs() -> None:
        found["theirs"] = torch.from_numpy(peer.kneighbors(images.numpy())[0])

    timed = speed(ours, theirs, repetitions)
    difference = f"distances differ by {float((found['ours'] - found['theirs']).abs().max()):.0e}"
    product = speed(ours, lambda: [images @ part.T for part in train.split(2**14)], repetitions)
    what = f"nearest_training_images, {count:,} of {POINTS} x {DIM}"
    return [
        Row(what, "scikit-learn NearestNeighbors, brute force", *timed, "as fast", difference),
        Row(what, "its matrix product", *product, "at least 0.7"),
    ]


if __name__ == "__main__":
    print(table(run(int(sys.argv[1]) if len(sys.argv) > 1 else IMAGES, 1)))
