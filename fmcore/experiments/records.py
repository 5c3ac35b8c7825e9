"""Records: what was run, on what, and what came out, as JSON that outlives the run."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fmcore
from fmcore.atomic import original_name, write_file

PACKAGES = ("torch", "torchdiffeq", "numpy", "scipy", "scikit-learn", "POT", "safetensors")


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
    """Write plain dictionaries and lists, in full or not at all."""
    write_file(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read plain dictionaries and lists.

    Raises:
        ValueError: naming the file, if it is not JSON.
        OSError: if it cannot be read.
    """
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: it is not JSON ({error})") from None


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
