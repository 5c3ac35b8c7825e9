"""Which images a run is trained on: their fingerprint lies in its folder, and others are not taken for them.

A name and a folder do not say which images there are: a file may have been replaced, or hold them in another order.
Runs of earlier versions have no fingerprint, and are taken as they are.
"""

from __future__ import annotations

from pathlib import Path

from fmcore.data.images import ImageData
from fmcore.experiments import sealed
from fmcore.metrics.cache import fingerprint

FILE = "data.json"


def keep(images: ImageData, folder: Path) -> None:
    """Leave the fingerprint of a data set in the folder of a run."""
    sealed.write(folder / FILE, {"data": images.name, "fingerprint": fingerprint(images)})


def kept(folder: Path) -> str | None:
    """The fingerprint in the folder of a run; None if there is none.

    Raises:
        ValueError: if the file is damaged.
    """
    file = folder / FILE
    if not file.exists():
        return None
    content = sealed.read(file)
    if not isinstance(content, dict) or not isinstance(content.get("fingerprint"), str):
        raise ValueError(f"{file} is damaged: it has no fingerprint; restore it, or delete it if the data are the same")
    return content["fingerprint"]


def check(images: ImageData, folder: Path) -> None:
    """Raise ValueError if the run in a folder was trained on other images than these, or its file is damaged."""
    before = kept(folder)
    if before is not None and before != (now := fingerprint(images)):
        raise ValueError(
            f"the run in {folder} was trained on other images: {images.name} had the fingerprint {before[:12]}, and "
            f"has {now[:12]} now. Bring back the data that it was started with (data_dir names their folder), or "
            "train anew"
        )
