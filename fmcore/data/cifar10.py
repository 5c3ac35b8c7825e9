"""CIFAR-10: 60,000 colour photographs of 32x32 pixels in ten classes (Krizhevsky 2009).

The official *binary version* holds records of one label byte and 3,072 pixel bytes (the red, green and blue plane, row
by row), 10,000 records a file. No order of the records is official beyond the archive, so the images are put in the
order of their checksums: whoever has the same 60,000 images gets the same batches.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import torch

from fmcore.data.archives import unpack
from fmcore.data.files import default_folder, file_digest, waiting_for
from fmcore.data.images import ImageData
from fmcore.data.plain_files import file_size
from fmcore.validation import level_of_caller

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
ARCHIVE = "cifar-10-binary.tar.gz"
ARCHIVE_MD5 = "c32a1d4ab5d03f1284b67883e8d13530"
FOLDER = "cifar-10-batches-bin"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORDS = 10_000  # in each file
RECORD_BYTES = 1 + 3 * 32 * 32
SPLITS = {"train": tuple(f"data_batch_{k}.bin" for k in range(1, 6)), "held_out": ("test_batch.bin",)}
FILES = (*SPLITS["train"], *SPLITS["held_out"])
# SHA-256 over the sorted SHA-256 checksums of a split's records: every pixel and label, but not their order.
SHA256 = {
    "train": "55a61f79a40ece2ceda9fb5f9f7078f6ea2fc4952489cef56682bcf92cfcc260",
    "held_out": "325704b01eb92e1e2a6215ae6a916bb7db7de054af0c496be1c7be2e0fcfbf5f",
}
PICKLED = ("cifar-10-batches-py", "cifar-10-python.tar.gz")
GET_IT = f"get {URL} (md5 {ARCHIVE_MD5})"


def cifar10(folder: Path | str | None = None, download: bool = True, progress: bool = True) -> ImageData:
    """CIFAR-10 as uint8 of shape (n, 3, 32, 32): 50,000 images to train on, and the 10,000 of the test split held out.

    The mean norm of a training image is 27.198 on the scale 2 k / 255 - 1 of most papers, and 27.092 on the scale of
    `fmcore.data.scale`, whose greys are the middle of bins.

    Args:
        folder: holds cifar-10-batches-bin or the archive cifar-10-binary.tar.gz, or is the former itself; if there is
            neither, the archive is downloaded to it. Files that the folder lacks are taken from the archive beside it,
            with a warning. None is `fmcore.data.default_folder`.
        download: get the archive (170 MB) if it is not there.
        progress: show a bar while downloading.

    Raises:
        FileNotFoundError: if the data is not there, and download is False.
        OSError: if the download fails or its checksum is wrong, or the disk is full.
        ValueError: if a file is truncated, altered, not CIFAR-10, or the pickled version.
    """
    root = default_folder() if folder is None else Path(folder).expanduser()
    if root.name == FOLDER:
        root = root.parent
    batches = unpacked(root)
    if batches is None:
        check_not_pickled(root)
        if not (download or (root / ARCHIVE).exists()):
            raise FileNotFoundError(f"{root} holds neither {FOLDER} nor {ARCHIVE}: {GET_IT}, or allow the download")
        with waiting_for(root, "getting CIFAR-10"):
            batches = unpacked(root)
            if batches is None:
                archive = obtain_archive(root, download, progress)
                batches = unpack_missing(archive, root)
    (train, train_labels), (held_out, held_out_labels) = (read_split(batches, split) for split in SPLITS)
    return ImageData("cifar10", train, held_out, train_labels, held_out_labels, classes=CLASSES)


def unpacked(root: Path) -> Path | None:
    """The folder with the .bin files: inside the one given, or that itself; None if there is none.

    Raises:
        FileNotFoundError: if it lacks files and there is no archive to take them from.
    """
    there = [path for path in (root / FOLDER, root) if len(missing(path)) < len(FILES)]
    whole = next((path for path in there if not missing(path)), None)
    if whole is None and there and not (root / ARCHIVE).exists():
        raise FileNotFoundError(
            f"{', '.join(str(there[0] / name) for name in missing(there[0]))} is missing: delete the folder and "
            f"{GET_IT}"
        )
    return whole


def missing(batches: Path) -> list[str]:
    """The files that a folder lacks."""
    return [name for name in FILES if not (batches / name).exists()]


def unpack_missing(archive: Path, root: Path) -> Path:
    """The folder with all .bin files, of which those that it lacks, which are told, come from a good archive."""
    limit, target = 2 * len(FILES) * RECORDS * RECORD_BYTES, root / FOLDER
    if not target.exists():
        return unpack(archive, root, FOLDER, limit)
    lacking = missing(target)
    warnings.warn(f"{target} lacks {', '.join(lacking)}: taken from {archive}", stacklevel=level_of_caller())
    beside = root / f"{FOLDER}.missing"
    shutil.rmtree(beside, ignore_errors=True)  # left by a process that was killed
    beside.mkdir()
    try:
        whole = unpack(archive, beside, FOLDER, limit)
        for name in lacking:
            if (whole / name).exists():
                os.replace(whole / name, target / name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return target


def check_not_pickled(root: Path) -> None:
    """Raise ValueError if all that is there is the version for Python: reading a pickle runs whatever it contains."""
    for name in PICKLED:
        if (root / name).exists() and not (root / ARCHIVE).exists():
            raise ValueError(
                f"{root / name} is the pickled version of CIFAR-10, which is never read: unpickling a file runs the "
                f"code in it. Use the binary version instead: {GET_IT}"
            )
    if root.name == PICKLED[0] or (root / "batches.meta").exists():
        raise ValueError(f"{root} holds the pickled version of CIFAR-10, which is never read: {GET_IT}")


def obtain_archive(root: Path, download: bool, progress: bool) -> Path:
    """The archive with the right checksum: the one in the folder, or else downloaded to it; raises as `cifar10`."""
    archive = root / ARCHIVE
    damaged = ""
    if archive.exists():
        found = file_digest(archive, "md5")
        if found == ARCHIVE_MD5:
            return archive
        damaged = f"{archive} is truncated or altered (md5 {found}, expected {ARCHIVE_MD5})"
        if not download:
            raise ValueError(f"{damaged}: delete it and {GET_IT}")

    import pooch

    pooch.get_logger().setLevel("WARNING")  # what it tells is in the progress bar and in the errors below
    downloader = pooch.HTTPDownloader(progressbar=progress, chunk_size=2**16)
    try:
        pooch.retrieve(URL, f"md5:{ARCHIVE_MD5}", fname=ARCHIVE, path=root, downloader=downloader)
    except (OSError, ValueError) as error:  # no network, a status such as 404, an interruption; a wrong checksum
        damaged = damaged and f"; {damaged}"
        raise OSError(
            f"cannot download {URL} to {archive}: {error}{damaged}. Run again, or get the file by other means "
            f"(md5 {ARCHIVE_MD5}) and put it there"
        ) from error
    return archive


def read_split(batches: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n, 3, 32, 32) uint8 and labels (n,) int64 of a split, in the order of their checksums.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is truncated or altered.
    """
    records = np.concatenate([read_batch(batches / name) for name in SPLITS[split]])
    digests = [hashlib.sha256(record).digest() for record in records]
    order = sorted(range(len(digests)), key=digests.__getitem__)
    found = hashlib.sha256(b"".join(digests[index] for index in order)).hexdigest()
    if found != SHA256[split]:
        counts = np.bincount(records[:, 0], minlength=10).tolist()
        raise ValueError(
            f"{', '.join(SPLITS[split])} in {batches} do not hold the {len(records):,} images of CIFAR-10 "
            f"(checksum over all records {found[:12]}..., expected {SHA256[split][:12]}...; {counts} images per class, "
            f"expected {len(records) // 10} each): a file is altered or not CIFAR-10. Delete the folder and {GET_IT}"
        )
    images, labels = records[order, 1:].reshape(-1, 3, 32, 32), records[order, 0].astype(np.int64)
    return torch.from_numpy(images), torch.from_numpy(labels)


def read_batch(path: Path) -> np.ndarray:
    """The records of one file, (10,000, 3,073) uint8; raises as `read_split`."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: delete the folder and {GET_IT}")
    size = file_size(path)
    if size != RECORDS * RECORD_BYTES:
        raise ValueError(
            f"{path} has {size:,} bytes, expected {RECORDS * RECORD_BYTES:,} ({RECORDS:,} records of {RECORD_BYTES}): "
            f"it is truncated or altered. Delete the folder and {GET_IT}"
        )
    records = np.fromfile(path, dtype=np.uint8).reshape(RECORDS, RECORD_BYTES)
    if records[:, 0].max() > 9:
        bad = int((records[:, 0] > 9).argmax())
        raise ValueError(
            f"{path}: record {bad} has label {records[bad, 0]}, expected 0..9: the file is altered. "
            f"Delete the folder and {GET_IT}"
        )
    return records
