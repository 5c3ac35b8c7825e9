"""Products whose digits count: distances are differences of large numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_products(device: torch.device) -> Iterator[None]:
    """Matrix products inside are of the precision of their factors: no autocast, no TF32.

    A training step may ask for both, and would turn the squared distance of two images, about a thousand, wrong by
    about one: as much as decides between them.
    """
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
