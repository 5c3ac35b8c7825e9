"""Tensors in a file that says what they belong to, and shows whether it still holds what was written.

The file is of the safetensors format, which holds no code. Its header has one entry, "sealed", with JSON of

belongs_to    what the tensors belong to: plain values
digest        of `belongs_to` and of all tensors (see `fmcore.digests`)

so that a file which was damaged, or put in another's place, is not taken for the right one.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fmcore import digests
from fmcore.atomic import cannot, write_file

SEALED = "sealed"


@dataclass(frozen=True, eq=False)
class TensorFile:
    """What a file holds.

    Attributes:
        tensors: by name, on the CPU.
        belongs_to: what they belong to; None in a file of an earlier version.
        digest: of tensors and what they belong to; None in a file of an earlier version.
        header: the words of its header, as they are.
    """

    tensors: dict[str, Tensor]
    belongs_to: dict[str, Any] | None
    digest: str | None
    header: dict[str, str]


def write_tensors(tensors: Mapping[str, Tensor], belongs_to: Mapping[str, Any], file: Path) -> str:
    """Write tensors, and what they belong to (plain values), in full or not at all; returns their digest."""
    from safetensors.torch import save

    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    digest = _digest(plain, belongs_to)
    said = json.dumps({"belongs_to": dict(belongs_to), "digest": digest}, sort_keys=True, allow_nan=False)
    write_file(file, save(plain, {SEALED: said}))  # one entry: several would come in any order
    return digest


def read_tensors(file: Path, repair: str, warn: bool = True) -> TensorFile:
    """Read a file that `write_tensors` wrote, and compare it with its digest.

    A file of an earlier version, without a digest, is read with a warning.

    Args:
        file: to read.
        repair: what to do about a damaged one, to end the message with: "train again".
        warn: of a file without a digest; not needed where something else tells that it is intact.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, or no such file.
        OSError: if it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    if file.is_dir():
        raise ValueError(f"{file} is a folder, and should be a file of tensors: {repair}")
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing: {repair}")
    try:
        with safe_open(file, "pt") as opened:
            header = dict(opened.metadata() or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        belongs_to, digest = None, None
        if SEALED in header:
            said = json.loads(header[SEALED])
            belongs_to, digest = said["belongs_to"], str(said["digest"])
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        said = f"it lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise ValueError(f"{file} is damaged: {said}; {repair}") from None
    except OSError as error:
        raise cannot("read", file, error) from error
    if digest is None and warn:
        warnings.warn(
            f"{file} was written by an earlier version and has no digest: nothing tells whether it is damaged",
            stacklevel=2,
        )
    if digest is not None and digest != _digest(tensors, belongs_to):
        raise ValueError(f"{file} is damaged: it does not hold what was written (another digest); {repair}")
    return TensorFile(tensors, belongs_to, digest, header)


def _digest(tensors: Mapping[str, Tensor], belongs_to: Any) -> str:
    return digests.of_settings({"tensors": digests.of_tensors(tensors), "belongs_to": belongs_to})
