"""Whether the files of a run are what was written, and belong together: all of them are read."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from fmcore.checkpoints import load_checkpoint
from fmcore.experiments.run import pruning_axes
from fmcore.experiments.run.finished import Run
from fmcore.experiments.run.fitted_file import check_kept
from fmcore.experiments.run.folder import CHECKPOINT, RECORD
from fmcore.experiments.run.snapshots import kept_steps
from fmcore.training.checkpointing import Checkpointer


def verify_run(folder: Path) -> list[str]:
    """Read configuration, data, source, weights, snapshots, axes, checkpoint and record of a finished run.

    Returns:
        One sentence for each file that is damaged, belongs to another run, or has no digest, since an earlier version
        wrote it; empty if all is well.
    """
    problems: list[str] = []

    def tried(check: Callable[[], object]) -> None:
        try:
            check()
        except (ValueError, OSError) as error:
            problems.append(str(error))

    with warnings.catch_warnings(record=True) as former:
        warnings.simplefilter("always")
        try:
            run = Run(folder)
        except (ValueError, OSError) as error:  # nothing tells what the other files should belong to
            return [str(error)]
        for file in kept_steps(folder).values():
            tried(lambda file=file: run.use_weights(file))  # type: ignore[misc]
        if (folder / pruning_axes.FILE).exists():
            tried(lambda: check_kept(folder / pruning_axes.FILE, run.identity))
        if (folder / CHECKPOINT).exists():
            checkpoints = Checkpointer(folder / CHECKPOINT, belongs_to=run.identity)
            tried(lambda: checkpoints.check_belongs(load_checkpoint(folder / CHECKPOINT).get("belongs_to")))
        if (folder / RECORD).exists():
            tried(run.record)
    return problems + [str(one.message) for one in former]
