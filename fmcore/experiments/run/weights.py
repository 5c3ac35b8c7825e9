"""Weights files: averaged weights, and the run that they belong to.

Names are those of the network as it is built. torch.compile puts "_orig_mod." before them: files never have it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from fmcore.checkpoints import check_same
from fmcore.experiments.config.source import SourceConfig
from fmcore.experiments.run.identity import Identity, check_label, label
from fmcore.networks.unet import UNet
from fmcore.tensor_file import read_tensors, write_tensors

COMPILED = "_orig_mod."


def keep_weights(weights: Mapping[str, Tensor], file: Path, run: Identity | None = None, **more: Any) -> str:
    """Write weights to a safetensors file, in full or not at all.

    Args:
        weights: by name.
        file: to write.
        run: the identity of the run that they belong to; None for weights of none.
        more: what else they belong to: ``steps``, after how many of them.

    Returns:
        The digest of the file's content.
    """
    return write_tensors(plain_names(weights), label("weights", run, **more), file)


def load_weights(
    network: UNet,
    file: Path,
    run: Identity | None = None,
    source: SourceConfig | None = None,
    warn: bool = True,
    **more: Any,
) -> str | None:
    """Load what `keep_weights` wrote.

    Args:
        network: to load them into.
        file: to read.
        run, more: what they must belong to; what is not given here is not asked for.
        source: from which they must have been trained, where a file of an earlier version says only that.
        warn: of a file of an earlier version.

    Returns:
        The digest of the file's content; None if it is of an earlier version.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, or belongs to another network or run; the message names what differs.
    """
    repair = "put back the file of this run, or train again"
    if not file.exists():
        raise FileNotFoundError(
            f"{file} is missing: the training has not finished; continue it with fmcore train ... --resume"
        )
    found = read_tensors(file, repair, warn)
    check_label(found.belongs_to, file, "weights", run, **more)
    if (said := found.header.get("source")) is not None and source is not None:
        check_same(json.loads(said), asdict(source), f"the weights in {file} were trained")
    try:
        network.load_state_dict(plain_names(found.tensors))
    except RuntimeError as error:
        what = " ".join(str(error).split())[:300]
        raise ValueError(f"{file} is damaged or belongs to another network: {what}; {repair}") from None
    return found.digest


def plain_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names that they have in a network that is not compiled, whichever part of it was."""
    return {name.replace(COMPILED, ""): value for name, value in weights.items()}
