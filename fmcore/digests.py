"""Digests: what tells whether tensors, settings or bytes are the ones that they are taken for.

They are SHA-256, in hexadecimal digits. They find damage and mix-ups; they are no signature, since whoever changes a
file on purpose can write its digest anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """The digest of tensors by name: of their names, kinds of numbers, shapes and values, bit for bit.

    The order of the names does not matter, nor does the device or the layout in memory.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def of_settings(settings: Any) -> str:
    """The digest of plain values (what JSON holds: numbers, words, lists, and mappings, whose order does not matter).

    Raises:
        ValueError: for NaN or infinity, which JSON has not.
    """
    plain = json.loads(json.dumps(settings, allow_nan=False))  # as it is read back: names are texts, also of numbers
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
