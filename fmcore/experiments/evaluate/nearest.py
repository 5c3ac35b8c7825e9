"""Do generated images repeat training images? Their nearest ones, beside those of held-out images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from fmcore.experiments import records
from fmcore.metrics.memorization import Nearest, nearest_training_images
from fmcore.training import resident

if TYPE_CHECKING:
    from fmcore.experiments.run.finished import Run

AT_ONCE = 10_000  # images that are looked up together


def nearest_distances(run: Run, sets: list[Tensor], real: Tensor) -> dict[str, Any]:
    """Mean Euclidean distance to the nearest training image, on the scale [-1, 1], and the share of copies.

    Of `nearest_images` images of each set, and of as many held-out ones, among the images that the run was trained on.
    Mirror images are not among them, also where the training had them: the copy of one counts as new.
    Distances far below those of held-out images, or copies, say that training images are being repeated.

    Args:
        run: whose training images.
        sets: generated images, uint8 (n, C, H, W) each.
        real: held-out images, at least as many as a set has.
    """
    count, data = run.configuration.evaluation.nearest_images, run.data
    if count == 0:
        return {}

    train = cast(Tensor, resident(run.training_images, run.device)[0])

    def look_up(images: Tensor) -> tuple[float, float]:
        parts = [  # whatever the number, not all of them are in floating point at a time
            nearest_training_images(data.scaled(part.to(run.device)), train, data.scaled)
            for part in images[:count].split(AT_ONCE)
        ]
        found = Nearest(torch.cat([part.distance for part in parts]), torch.cat([part.row for part in parts]))
        return float(found.distance[:, 0].mean()), found.share_of_copies()

    distances, copies = zip(*map(look_up, sets), strict=True)
    real_distance, real_copies = look_up(real)
    return {
        "distance_to_nearest_training_image": beside_real(distances, real_distance),
        "share_of_copies": beside_real(copies, real_copies),
    }


def beside_real(generated: tuple[float, ...], real: float) -> dict[str, Any]:
    """One value a generated set, as a mean with its spread, beside that of the held-out images."""
    values = torch.tensor(generated, dtype=torch.float64)
    return {"generated": records.measurement(values, "generated sets"), "held out (real)": records.number(real)}
