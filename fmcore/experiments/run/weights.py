"""Weights files: averaged weights, and the source that they were trained from.

Names are those of the network as it is built. torch.compile puts "_orig_mod." before them: files never have it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from fmcore.atomic import write_file
from fmcore.checkpoints import check_same
from fmcore.experiments.config.source import SourceConfig
from fmcore.networks.unet import UNet

COMPILED = "_orig_mod."


def keep_weights(weights: dict[str, Tensor], file: Path, source: SourceConfig | None = None) -> None:
    """Write weights to a safetensors file, in full or not at all, with the source that they were trained from."""
    from safetensors.torch import save

    about = None if source is None else {"source": json.dumps(asdict(source), sort_keys=True)}
    plain = plain_names(weights)
    write_file(file, save({name: value.detach().cpu().contiguous() for name, value in plain.items()}, about))


def load_weights(network: UNet, path: Path, source: SourceConfig | None = None) -> None:
    """Load a safetensors file; raises as `Run`, also if its weights were trained from another source."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: the training has not finished; continue it with fmcore train ... --resume"
        )
    try:
        with safe_open(path, "pt") as opened:
            said = (opened.metadata() or {}).get("source")
        network.load_state_dict(plain_names(load_file(path)))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged or belongs to another network: {str(error).splitlines()[0]}") from None
    check_source(said, source, path)


def plain_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names that they have in a network that is not compiled, whichever part of it was."""
    return {name.replace(COMPILED, ""): value for name, value in weights.items()}


def check_source(said: str | None, source: SourceConfig | None, path: Path) -> None:
    """Raise ValueError if weights say that they were trained from another source."""
    if said is not None and source is not None:
        check_same(json.loads(said), asdict(source), f"the weights in {path} were trained")
