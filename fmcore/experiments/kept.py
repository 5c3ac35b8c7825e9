"""What a command that was stopped has kept, from the files that it left, and how to go on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from fmcore.console.stopping import saying

# Of the folder of a run; see `fmcore.experiments.run.folder`.
CONFIG, CHECKPOINT, WEIGHTS, RECORD = "config.json", "checkpoint.pt", "weights.safetensors", "record.json"


def training(folder: Path, overwrite: bool) -> AbstractContextManager[None]:
    """Train within; one that is stopped says what there is of it in the folder of the run.

    Args:
        folder: of the run.
        overwrite: whether a run in it is to be started anew.
    """
    was = files(folder, CONFIG, CHECKPOINT, WEIGHTS, RECORD)
    return saying(lambda: of_training(was, overwrite))


def evaluation(folder: Path, overrides: Sequence[str]) -> AbstractContextManager[None]:
    """Evaluate within the run in a folder, with such settings; as `training`."""
    was = files(folder, RECORD)
    return saying(lambda: of_evaluation(was, " ".join(["evaluate", str(folder), *overrides])))


def measurement(folder: Path) -> AbstractContextManager[None]:
    """Measure within, for a folder; as `training`."""
    was = files(folder, RECORD)
    return saying(lambda: of_measurement(was))


def picture(file: Path) -> AbstractContextManager[None]:
    """Draw a picture within; as `training`."""
    was = files(file.parent, file.name)
    return saying(lambda: of_picture(was))


@dataclass(frozen=True)
class Files:
    """Files in a folder, and which version of each there was when a command began."""

    folder: Path
    before: dict[str, tuple[int, int] | None]

    def there(self, name: str) -> bool:
        """Whether there is such a file now."""
        return version(self.folder / name) is not None

    def is_new(self, name: str) -> bool:
        """Whether there is such a file, and the command has written it."""
        found = version(self.folder / name)
        return found is not None and found != self.before.get(name)


def files(folder: Path, *names: str) -> Files:
    """The files as they are now."""
    return Files(folder, {name: version(folder / name) for name in names})


def version(file: Path) -> tuple[int, int] | None:
    """What changes when a file is replaced; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def of_training(was: Files, overwrite: bool) -> str:
    """What there is of a training that was stopped.

    Args:
        was: the four files of the run.
        overwrite: whether a run in the folder was to be started anew.
    """
    folder, place = was.folder, " in place of --overwrite" if overwrite else ""
    if overwrite and any(was.before.values()) and not any(was.is_new(name) for name in was.before):
        return f"the run in {folder} is as it was; run the same command again to replace it"
    if not was.there(CONFIG):
        return "nothing was kept, since the training had not begun; run the same command again"
    if was.there(WEIGHTS) and was.there(RECORD):
        return f"the training is finished, and kept in {folder}; go on with: fmcore evaluate {folder}"
    if not was.there(CHECKPOINT):
        return (
            f"nothing was kept but the settings in {folder}, since there was no checkpoint yet; the same command with "
            f"--resume{place} starts at the first step"
        )
    return f"{step_of(folder / CHECKPOINT)} is kept in {folder}; go on with the same command and --resume{place}"


def step_of(checkpoint: Path) -> str:
    """A checkpoint by its step, of which it holds the losses up to there; without, if it cannot be read."""
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)  # reads next to nothing
        return f"the checkpoint of step {len(state['losses']):,}"
    except Exception:  # whatever is wrong with it is for the training that goes on from it to say
        return "a checkpoint"


def of_evaluation(was: Files, again: str) -> str:
    """What there is of an evaluation that was stopped; `again` is the command to repeat."""
    if was.is_new(RECORD):
        return f"the evaluation is finished, and {was.folder / RECORD} is written"
    return f"nothing of this evaluation was kept, and {was.folder / RECORD} is as it was; go on with: fmcore {again}"


def of_measurement(was: Files) -> str:
    """What there is of a measurement that was stopped."""
    if was.is_new(RECORD):
        return f"{was.folder / RECORD} is written, its picture may be missing; for that, measure anew with --overwrite"
    return "nothing was kept; run the same command again"


def of_picture(was: Files) -> str:
    """What there is of the picture that was being drawn."""
    (name,) = was.before
    if was.is_new(name):
        return f"{was.folder / name} is written; if there are to be more, the same command draws anew with --overwrite"
    return "no picture was written; run the same command again"
