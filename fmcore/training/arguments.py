"""What `train` cannot train, or train on: said before anything is started, with what to pass instead."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from fmcore.training.batches import microbatches
from fmcore.training.config import TrainingConfig
from fmcore.training.step import check_one_size

# Wrappers that share a batch out among processes or devices, which `train` does itself.
SHARING = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule")


def check_network(model: Any) -> None:
    """Raise TypeError or ValueError unless this is a network of its own, with weights to train.

    A compiled or wrapped network has other names for its weights ("_orig_mod.", "module."), which would end up in
    checkpoints and in the average, where nothing else knows them.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is of type {type(model).__name__}: only a torch.nn.Module has weights to train")
    kinds = {kind.__name__ for kind in type(model).__mro__}
    if wrappers := [name for name in SHARING if name in kinds]:
        itself = "the network itself, model.module" if hasattr(model, "module") else "the network before it was sharded"
        raise ValueError(
            f"model is wrapped in {wrappers[0]}: pass {itself}. Started by torchrun, train shares each batch among the "
            "processes"
        )
    if any("_orig_mod" in dict(part.named_children()) for part in model.modules()):
        raise ValueError(
            "model is compiled, or a part of it is: pass the network itself, and TrainingConfig(compile=True), "
            "with which train compiles it"
        )
    if not any(weight.requires_grad for weight in model.parameters()):
        raise ValueError(
            "model has no weights to train: none of its parameters requires a gradient. Call model.requires_grad_() "
            "if they were frozen for sampling"
        )


def check_precision(config: TrainingConfig) -> None:
    """Raise ValueError for a precision that is still to be found out, which runs of experiments do."""
    if config.precision == "auto":
        raise ValueError(
            "precision=auto is settled where an experiment is run: name it here, fp32 or bf16 where the hardware has it"
        )


def check_data(data: Any) -> None:
    """Raise TypeError or ValueError unless these are rows of which ``data[rows]`` can be a batch; see `Rows`."""
    rows = "a batch is data[rows], for a tensor of row numbers"
    if isinstance(data, np.ndarray):
        raise TypeError(
            f"data is a numpy array of {data.dtype}: pass torch.from_numpy(data), converted to the floating point "
            "numbers of the network with .float() unless prepare does it"
        )
    if isinstance(data, (list, tuple, dict)):
        raise TypeError(
            f"data is a {type(data).__name__}, and {rows}: pass one tensor, for example torch.stack(data), or a "
            "torch.utils.data.TensorDataset of several"
        )
    if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
        raise TypeError(
            f"data is of type {type(data).__name__}, and {rows}: pass a tensor, a torch.utils.data.TensorDataset, or "
            "what has __len__ and such a __getitem__; a DataLoader is not needed"
        )
    if isinstance(data, Tensor) and data.ndim == 0:
        raise ValueError("data has shape (): give it an axis of rows, (n, *shape)")
    if len(data) == 0:
        raise ValueError("data is empty: there is nothing to train on")


def parts_of_batch(config: TrainingConfig, rank: int, processes: int) -> list[range]:
    """The micro-batches of one process; raises ValueError if the batch cannot be cut, or not as compiling needs it."""
    parts = microbatches(config.batch, config.accumulate, rank, processes)
    if config.compile:
        check_one_size(config.batch, len(parts) * processes)
    return parts
