"""What a training shows while it runs: a bar where tqdm is installed, else a line now and then."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from fmcore.training.config import TrainingConfig

SECONDS_BETWEEN_LINES = 10.0


def progress_bar(config: TrainingConfig, done: int, show: bool) -> Any:
    """Something that counts images, for a run of which `done` steps are behind; a context manager.

    It has tqdm's `update(images)`, `set_postfix(loss=...)`, and a `total`, which may change.
    """
    try:
        from tqdm.auto import tqdm
    except ImportError:
        tqdm = None
    if not show or tqdm is None:
        return Lines(config.steps * config.batch, done * config.batch, show)
    return tqdm(
        total=config.steps * config.batch,
        initial=done * config.batch,
        unit=" images",
        unit_scale=True,
        desc="training",
    )


class Lines:
    """Progress as lines on stderr, one every ten seconds and one at the end; for logs, and where there is no tqdm."""

    def __init__(self, total: int, initial: int, show: bool) -> None:
        self.total, self.n, self.show = total, initial, show
        self.said, self.loss = initial, ""
        self.began = time.monotonic()
        self.last = self.began

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.n != self.said:
            self.say()

    def set_postfix(self, loss: str, refresh: bool = False) -> None:
        """The loss to show."""
        self.loss = loss

    def update(self, images: int) -> None:
        """Count images, and say so if the last line is long ago."""
        self.n += images
        if time.monotonic() - self.last >= SECONDS_BETWEEN_LINES:
            self.say()

    def refresh(self) -> None:
        """For tqdm, which draws its bar anew when the total has changed."""

    def say(self) -> None:
        """Print a line."""
        if self.show:
            now = time.monotonic()
            speed = (self.n - self.said) / max(now - self.last, 1e-9)
            left = max(0, self.total - self.n) / max(speed, 1e-9)
            text = f"training: {self.n:,} of {self.total:,} images, {speed:,.0f} images/s"
            print(f"{text}, {left:.0f} s left, loss {self.loss}", file=sys.stderr, flush=True)
            self.last, self.said = now, self.n
