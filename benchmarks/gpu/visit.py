"""The order of a visit: fail fast, save as you go, and leave one folder of eight small files.

log.txt               everything that was said, with the seconds
results.jsonl         checks, speeds and what was trained, one line each
kernels.txt           where the time of a step goes
record.json           the training and its evaluation, as `fmcore train` leaves it
losses.csv            of the training
weights.safetensors   averaged weights in bfloat16, renewed at every checkpoint
samples.png           samples beside real images
table.md              results as a table
"""

from __future__ import annotations

import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import checks, packages, step_speed, training
from fmcore import data
from fmcore.data.images import ImageData

FILES = {
    "log.txt",
    "results.jsonl",
    "kernels.txt",
    "record.json",
    "losses.csv",
    "weights.safetensors",
    "samples.png",
    "table.md",
}
PARTS = ("checks", "speed", "train")


class TimeIsUp(BaseException):
    """The limit of the visit was reached; not an Exception, so that no part goes on after it."""


class Visit:
    """Says everything to the screen and to the folder, and goes on where a part fails.

    Args:
        out: the folder to leave; files of an earlier visit in it are replaced.
    """

    def __init__(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (out / name).unlink(missing_ok=True)
        self.out, self.began = out, time.perf_counter()
        self.results: list[tuple[str, dict[str, Any]]] = []
        self.failed: list[str] = []
        self.part = "start"

    def say(self, text: str) -> None:
        """One line to the screen and the log."""
        line = f"[{time.perf_counter() - self.began:6.1f} s] {text}"
        print(line, flush=True)
        with open(self.out / "log.txt", "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def found(self, result: dict[str, Any]) -> None:
        """Write a result down."""
        self.results.append((self.part, result))
        line = training.as_line(result)
        self.say(line)
        with open(self.out / "results.jsonl", "a", encoding="utf-8") as file:
            file.write(line + "\n")
        self.write_table()

    def write_table(self) -> None:
        """All results so far as one table."""
        lines = ["| part | what | found |", "|---|---|---|"]
        for part, result in self.results:
            name = str(result.get("check", result.get("what")))
            rest = {key: value for key, value in result.items() if key not in ("check", "what") and value is not None}
            text = "; ".join(f"{key} {training.as_line(value)}" for key, value in rest.items())
            lines.append(f"| {part} | {name.replace('_', ' ')} | {text.replace('|', '/')} |")
        (self.out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def attempt(self, part: str, action: Callable[[], None]) -> None:
        """Do a part; if it fails, say how, and go on."""
        self.part = part
        self.say(f"== {part}")
        try:
            action()
        except Exception as error:
            self.failed.append(part)
            self.say(f"{part} FAILED: {type(error).__name__}: {error}")
            for line in traceback.format_exc().splitlines()[-12:]:
                self.say(f"    {line}")


def run(
    minutes: float, folder: Path | None, out: Path, parts: Sequence[str] = PARTS, limit: float | None = None
) -> int:
    """Make the visit; returns 0 if all that was asked for was right.

    Args:
        minutes: of training.
        folder: that holds cifar-10-batches-bin; a rehearsal without a GPU takes the digits.
        out: the folder to leave.
        parts: which of `PARTS` to do.
        limit: seconds after which the visit ends with what it has.
    """
    visit = Visit(out)
    lacking = packages.missing()
    if lacking:
        visit.say(f"missing: {', '.join(lacking)}. Nothing can be done without: pip install {' '.join(lacking)}")
        return 2
    for line in packages.said():
        visit.say(line)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    previous = None
    if limit is not None:
        previous = signal.signal(signal.SIGALRM, alarmed)
        signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        go(visit, minutes, folder, parts, device)
    except TimeIsUp:
        visit.failed.append(f"{visit.part} (time is up)")
        visit.say(f"time is up after {limit:g} s, in {visit.part}: what is in the folder is what there is")
    finally:
        if limit is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
    visit.say(f"left in {out}: {', '.join(sorted(path.name for path in out.iterdir() if path.name in FILES))}")
    visit.say(f"FAILED: {', '.join(visit.failed)}" if visit.failed else "all right")
    return 1 if visit.failed else 0


def alarmed(number: int, frame: Any) -> None:
    """What happens at the limit."""
    raise TimeIsUp


def go(visit: Visit, minutes: float, folder: Path | None, parts: Sequence[str], device: torch.device) -> None:
    """The parts, in order."""
    tiny = device.type != "cuda"
    images = data.by_name("digits") if tiny else cifar10_or_noise(folder, visit.say)

    def right() -> None:
        if not checks.run(device, visit.found):
            raise AssertionError("the device differs from the CPU; see the lines above")

    def speed() -> None:
        step_speed.run(images, device, packages.importable("torchcfm"), visit.found)
        table = step_speed.top_kernels(images, device)
        (visit.out / "kernels.txt").write_text(table + "\n", encoding="utf-8")

    def train() -> None:
        with tempfile.TemporaryDirectory() as place:
            training.run(training.configuration(minutes, folder, tiny), Path(place) / "run", visit.out, visit.found)

    for part, action in {"checks": right, "speed": speed, "train": train}.items():
        if part in parts:
            visit.attempt(part, action)


def cifar10_or_noise(folder: Path | None, say: Callable[[str], None]) -> ImageData:
    """CIFAR-10 to measure speeds on; where it is not here, noise in its shape, which trains as fast."""
    try:
        return data.by_name("cifar10", folder)
    except (OSError, ValueError, ImportError) as error:
        say(f"no CIFAR-10 ({error}): speeds are measured on noise, and the training will fail")
        images = torch.randint(0, 256, (20_000, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
        labels = torch.arange(len(images)) % 10
        return ImageData("cifar10", images, images[:100], labels, labels[:100])
