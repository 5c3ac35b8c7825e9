"""The axes of the training images in which there are no data: found once, and kept in the folder of the run."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from fmcore import sources
from fmcore.data.images import ImageData
from fmcore.experiments.run.fitted_file import keep, kept
from fmcore.experiments.run.identity import Identity

FILE = "pruning.safetensors"


def axes_to_prune(data: ImageData, images: Tensor, flips: bool, tau: float) -> sources.PruningAxes:
    """The principal axes of training images (n, C, H, W), and which of their ends are rejected.

    Raises:
        ValueError: if none is, so that nothing would be pruned.
    """
    axes = sources.pruning_axes(images, tau, flips, data.scaled)
    if axes.count == 0:
        raise ValueError(f"nothing to prune at tau={tau:g}: {axes.why_none()}")
    return axes


def axes_tensors(axes: sources.PruningAxes) -> dict[str, Tensor]:
    """The rejected axes, by name; those of which no end is rejected are left out."""
    rejected = axes.rejected()
    return {"axes": rejected.axes, "positive": rejected.positive, "negative": rejected.negative}


def axes_from(fitted: dict[str, Tensor]) -> sources.PruningAxes:
    """The axes back from `axes_tensors`."""
    return sources.PruningAxes(fitted["axes"], fitted["positive"], fitted["negative"])


def keep_axes(
    data: ImageData, images: Tensor, flips: bool, tau: float, file: Path, run: Identity | None = None
) -> sources.PruningAxes:
    """The axes without data: those that a file has, else found, which takes a minute for CIFAR-10, and kept in it.

    Kept axes of another tau, of other flips, of another number of images or of another run, and damaged ones, are never
    taken: they are replaced.

    Raises:
        ValueError: if there are none, so that nothing would be pruned.
    """
    about = {"tau": tau, "flips": flips, "images": len(images)}
    try:
        found = kept(about, file, run)
    except ValueError:  # of something else, or cut off: they can be found again
        found = None
    if found is None or not len(found["axes"]):
        found = keep_found(axes_to_prune(data, images, flips, tau), images, flips, tau, file, run)
    return axes_from(found)


def keep_found(
    axes: sources.PruningAxes, images: Tensor, flips: bool, tau: float | None, file: Path, run: Identity | None = None
) -> dict[str, Tensor]:
    """Keep axes that were found; returns their tensors as they are read back."""
    found = {name: value.cpu().contiguous() for name, value in axes_tensors(axes).items()}
    keep(found, {"tau": tau, "flips": flips, "images": len(images)}, file, run)
    return found
