"""Records: what was run, on what, and what came out, as JSON that outlives the run."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import math
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fmcore
from fmcore.atomic import original_name, write_file

PACKAGES = ("torch", "torchdiffeq", "numpy", "scipy", "scikit-learn", "POT", "safetensors")
# What a record has as soon as the training has ended.
TRAINING = {"experiment": str, "configuration": dict, "training": dict, "environment": dict, "parameters": int}
# What to do where the system does not let a file be read.
UNREADABLE = {
    errno.EACCES: "permission denied; have its owner let you read it",
    errno.EPERM: "permission denied; have its owner let you read it",
    errno.EISDIR: "it is a folder; move that away, and put back the file",
    errno.EIO: "the disk reports an error; restore it from a copy",
    errno.ELOOP: "it is a link that leads to itself; put back the file",
    errno.ENAMETOOLONG: "its name is too long; choose a shorter one",
}


def measurement(values: Tensor, over: str, standard_error: bool = False) -> dict[str, Any]:
    """A mean with its spread: the standard deviation of the values, or the standard error of their mean."""
    spread = float(values.std())
    return {
        "value": float(values.mean()),
        "spread": spread / math.sqrt(len(values)) if standard_error else spread,
        "spread_is": f"{'standard error' if standard_error else 'standard deviation'} over {len(values)} {over}",
    }


def environment() -> dict[str, Any]:
    """Commit, versions and hardware of this process."""
    return {
        "commit": commit(),
        "versions": {
            "python": platform.python_version(),
            "fmcore": fmcore.__version__,  # installed under another name; the index has a foreign project of this one
            **{name: version(name) for name in PACKAGES},
        },
        "hardware": {
            "cpu": cpu_model(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def version(package: str) -> str | None:
    """The installed version, None if there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit of this source tree, with "+changes" if files differ from it; None for an installed package.

    A copy of the tree without its history takes the commit from the environment variable FMCORE_COMMIT.
    """
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return os.environ.get("FMCORE_COMMIT") or None

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None  # no git here, or no commit yet


def cpu_model() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def write_json(path: Path, content: Any) -> None:
    """Write plain dictionaries and lists, in full or not at all.

    Raises:
        ValueError: naming every number that is NaN or infinite, which JSON has not; nothing is written then.
        OSError: if it cannot be written.
    """
    check_finite(content, path)
    write_file(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def check_finite(content: Any, path: Path) -> None:
    """Raise ValueError unless all numbers are ones that JSON has; the message says where in the content others are.

    Args:
        content: plain dictionaries, lists and values.
        path: the file that it is meant for.
    """
    wrong = [f"{where or 'it'} is {value}" for where, value in _numbers(content) if not math.isfinite(value)]
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(
            f"{path} was not written, since JSON has neither NaN nor infinity: {', '.join(wrong[:5])}{more}. A mean "
            "needs at least one value, a spread two; a training that diverged is run again, with a smaller lr for "
            "example"
        )


def _numbers(content: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """The floating-point numbers in dictionaries and lists, each with where it stands, as in values.distance.flow."""
    if isinstance(content, float):
        yield name, content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from _numbers(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, (list, tuple)):
        for place, value in enumerate(content):
            yield from _numbers(value, f"{name}[{place}]")


def read_json(path: Path) -> Any:
    """Read plain dictionaries and lists.

    Raises:
        ValueError: naming the file, if it is not JSON (NaN and infinity are none), or nested without end.
        OSError: naming the file, if it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number, parse_float=_finite)
    except ValueError as error:  # of bytes that are no text, of text that is no JSON, of numbers without end
        raise ValueError(f"{path} is damaged: it is not JSON ({error})") from None
    except RecursionError:
        raise ValueError(f"{path} is damaged: lists stand in lists without end; put back the original") from None
    except OSError as error:
        if error.errno not in UNREADABLE:
            raise
        raise OSError(error.errno, f"cannot read {path}: {UNREADABLE[error.errno]}") from error


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def of_training(content: Any, file: Path) -> dict[str, Any]:
    """What was read from the record of a run, which has what its training leaves there.

    Raises:
        ValueError: naming the file, and what is missing in it.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{file} is damaged: it is no record; put back the original, or train again with --overwrite")
    lacks = [name for name, kind in TRAINING.items() if not isinstance(content.get(name), kind)]
    if lacks:
        raise ValueError(
            f"{file} is damaged: it is a record without {', '.join(lacks)}; put back the original, or train again "
            "with --overwrite"
        )
    return content


def read_losses(file: Path) -> list[float]:
    """The losses of a training, one a step, from losses.csv: lines of step and loss below their names.

    Raises:
        ValueError: naming the file and the line, if it is damaged.
        OSError: if it cannot be read.
    """
    try:
        head, *lines = file.read_text(encoding="utf-8").splitlines()
        if head != "step,loss":
            raise ValueError("its first line is not step,loss")
        losses = []
        for step, line in enumerate(lines):
            number, comma, loss = line.partition(",")
            if not comma or number != str(step) or not math.isfinite(float(loss)):
                raise ValueError(f"line {step + 2} is not {step},LOSS")
            losses.append(float(loss))
    except ValueError as error:
        raise ValueError(
            f"{file} is damaged ({error or 'it is empty'}): put back the original, or train again"
        ) from None
    return losses


def check_folder(folder: Path, overwrite: bool, files: Sequence[str]) -> None:
    """Raise FileExistsError if something may be lost in the folder of a measurement, which leaves `files` there."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: name a folder for the measurement with --run-dir")
    found = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if found and not overwrite:
        raise FileExistsError(
            f"{folder} is not empty: add --overwrite to measure anew, or --run-dir to write elsewhere"
        )
    others = [name for name in found if original_name(name) not in files]
    if others:
        raise FileExistsError(f"{folder} holds other things than a measurement ({others[0]}): choose another --run-dir")


def number(value: float, spread: float | None = None, spread_is: str | None = None) -> dict[str, Any]:
    """A number as records have it."""
    return {"value": value, "spread": spread, "spread_is": spread_is}
