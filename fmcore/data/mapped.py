"""Reading a prepared data set: its images stay on the disk until their rows are used.

A process that touches a page of a mapped file which is no longer there is ended by the system without a word (SIGBUS).
So the size of the file is asked for before each use of a mapped tensor, which takes a few microseconds; a copy would
take the memory that mapping saves. A file that is cut in the very moment of a use still ends the process.
"""

from __future__ import annotations

import math
import mmap
import platform
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmcore.data.images import ImageData
from fmcore.data.manifest import MANIFEST, SPLITS, again, count, read_manifest
from fmcore.data.plain_files import open_plain
from fmcore.data.verification import SMALL, check_shards, odd_labels, read_labels, without_digests
from fmcore.validation import level_of_caller

# Linux counts a private mapping as memory in use, and refuses one larger than the machine's, unless told otherwise.
# Python names the flag from 3.13 on; this is its value on the processors that PyTorch is built for.
NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if platform.machine() in ("x86_64", "aarch64") else 0)


def load(folder: Path, name: str, verify: bool = False) -> ImageData:
    """The prepared data set in a folder; sizes are always checked, and the checksums of files up to 64 MiB.

    A data set whose manifest has no checksums is loaded with a warning.

    Args:
        folder: that holds manifest.json.
        name: of the data set that is expected in it.
        verify: compare every byte with the checksums in the manifest, of large files too; see
            `fmcore.data.verification.verify_prepared`.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is truncated or altered, or the folder holds another data set.
    """
    manifest = read_manifest(folder)
    if manifest["name"] != name:
        raise ValueError(f"{folder} holds {manifest['name']}, not {name}: name another folder")
    if without_digests(folder, manifest):
        warnings.warn(
            f"{folder / MANIFEST} carries no checksums of some rows, so that changes of them go unnoticed: prepare "
            "the data set again to have them",
            stacklevel=level_of_caller(),
        )
    check_shards(folder, manifest, None if verify else SMALL)
    images, labels = {}, {}
    for split in SPLITS:
        images[split] = map_images(folder / f"{split}.pixels", (count(manifest, split), *manifest["shape"]))
        found = read_labels(folder, manifest, split)
        for sentence in odd_labels(folder, manifest, split, found):
            raise ValueError(sentence)
        labels[split] = torch.from_numpy(found)
    classes = tuple(manifest["classes"])
    return ImageData(name, images["train"], images["held_out"], labels["train"], labels["held_out"], classes=classes)


def map_images(path: Path, shape: tuple[int, ...]) -> Tensor:
    """A file of uint8 as a tensor of that shape, without reading it; it may be far larger than the memory.

    Its pages are shared with other processes that map it. What is written to the tensor stays in this process and never
    reaches the file, so that a mistake is neither a crash nor a damaged data set.

    Raises:
        ValueError: if the file is shorter than that, now or at a later use of the tensor.
    """
    length = math.prod(shape)
    with open_plain(path) as file:
        try:
            if sys.platform == "linux":
                private = mmap.MAP_PRIVATE | NO_RESERVE
                mapping = mmap.mmap(file.fileno(), length, flags=private, prot=mmap.PROT_READ | mmap.PROT_WRITE)
            else:
                mapping = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_COPY)
        except ValueError as error:
            raise ValueError(f"{path} cannot be mapped as {length:,} bytes ({error}){again(path.parent)}") from error
    plain = torch.from_numpy(np.frombuffer(mapping, dtype=np.uint8).reshape(shape))
    return _Mapped.of(plain, path, mapping)


class _Mapped(Tensor):
    """A tensor on a mapped file, and its views: each use asks first whether the file is still as long as it was."""

    _path: Path
    _mapping: mmap.mmap

    @classmethod
    def of(cls, plain: Tensor, path: Path, mapping: mmap.mmap) -> _Mapped:
        mapped = plain.as_subclass(cls)
        mapped._path, mapped._mapping = path, mapping
        return mapped

    def __reduce_ex__(self, protocol: Any) -> Any:
        """In another process it is a plain tensor, with its values."""
        return self.clone().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.clone()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            mapped = list(_mapped_in((args, kwargs or {})))
            for tensor in mapped:
                expected, found = len(tensor._mapping), tensor._mapping.size()
                if found < expected:
                    raise ValueError(
                        f"{tensor._path} has {found:,} bytes, expected {expected:,}: it was cut while it was in use"
                        f"{again(tensor._path.parent)}"
                    )
            return _marked(func(*args, **(kwargs or {})), mapped)


def _mapped_in(value: Any) -> Any:
    """The mapped tensors among the arguments of a function, in lists too."""
    if isinstance(value, _Mapped):
        if hasattr(value, "_mapping"):
            yield value
    elif isinstance(value, (list, tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _mapped_in(part)


def _marked(result: Any, mapped: list[_Mapped]) -> Any:
    """A result of which the parts that lie in a mapped file are again guarded; what was copied is a plain tensor."""
    if isinstance(result, (list, tuple)) and any(isinstance(part, Tensor) for part in result):
        parts = [_marked(part, mapped) for part in result]
        return type(result)(parts) if type(result) in (list, tuple) else result
    if isinstance(result, Tensor) and not isinstance(result, _Mapped) and result.device.type == "cpu":
        start = result.untyped_storage().data_ptr() if result.layout == torch.strided else None
        for tensor in mapped:
            if start == tensor.untyped_storage().data_ptr():
                return _Mapped.of(result, tensor._path, tensor._mapping)
    return result
