"""Weights of another training at which one starts, and how many images they had seen by then.

What is known of them lies in the folder of the run from its start on, so that it can be resumed and sampled from
without the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from fmcore.data.files import file_digest
from fmcore.experiments import sealed
from fmcore.experiments.config.experiment import Configuration
from fmcore.experiments.run.weights import plain_names
from fmcore.tensor_file import TensorFile, read_tensors

FILE = "start.json"
OF_CLASSES = "label."  # a network that is told classes may start from one that was not


def load(configuration: Configuration, network: nn.Module) -> dict[str, Any] | None:
    """Start a network at the weights that its configuration names; returns what is known of them, or None.

    A network that is told classes may start at weights of one that was told none: its embedding stays as drawn.

    Returns:
        "file", its name; "sha256"; "images_seen", by the training that it comes from, and before that; "steps" and
        "experiment" of that training. None where the file does not say.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or of a network of another shape.
    """
    if configuration.start_from is None:
        return None
    file = Path(configuration.start_from).expanduser()
    read = read_tensors(file, "name another file with start_from, or leave it out", warn=False)
    kept = {name: value.float() for name, value in plain_names(read.tensors).items()}
    own = network.state_dict()
    missing = [name for name in own if name not in kept and not name.startswith(OF_CLASSES)]
    further = [name for name in kept if name not in own]
    unlike = [name for name in own if name in kept and own[name].shape != kept[name].shape]
    if missing or further or unlike:
        raise ValueError(
            f"start_from={file} is of another network: {', '.join([*unlike, *missing, *further][:3])} differ. Give "
            "this one the same channels, multipliers, blocks and attention, or leave start_from out"
        )
    network.load_state_dict(own | kept)
    return {"file": file.name, "sha256": file_digest(file), **_history(read)}


def _history(read: TensorFile) -> dict[str, Any]:
    """What a weights file says of the training that it comes from."""
    said = read.belongs_to or {}
    run = said.get("run") or {}
    return {"images_seen": said.get("images_seen"), "steps": said.get("steps"), "experiment": run.get("experiment")}


def keep(start: dict[str, Any] | None, folder: Path) -> None:
    """Leave what is known of the start in the folder of a run."""
    if start is not None:
        sealed.write(folder / FILE, start)


def kept(folder: Path) -> dict[str, Any] | None:
    """What is known of the start of the run in a folder; None if it started at random weights.

    Raises:
        ValueError: if the file is damaged.
    """
    file = folder / FILE
    if not file.exists():
        return None
    content = sealed.read(file)
    if not isinstance(content, dict) or not isinstance(content.get("sha256"), str):
        raise ValueError(f"{file} is damaged: it does not say what the training started at; train again")
    return content


def images_seen(start: dict[str, Any] | None, images: int) -> int | None:
    """How many images weights have seen that saw so many after their start; None if nobody knows what was before."""
    if start is None:
        return images
    before = start.get("images_seen")
    return None if before is None else before + images
