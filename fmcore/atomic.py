"""Files that are there in full or not at all, also after a kill, a full disk or a loss of power."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_file(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that it is there in full or not at all; raises OSError as `replaced`."""
    with replaced(path) as file:
        file.write(content)


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes its place at the end if all went well, whatever happens in between.

    It is written under another name in the same folder, flushed to the disk and renamed, which replaces an older
    version in one step.

    Raises:
        OSError: if it cannot be written (a full disk, say); what was written is removed, the older version stays.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        # torch.save may answer the OSError of a full disk with a RuntimeError about positions in the file
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError) or not isinstance(error, (OSError, RuntimeError)):
            raise
        kept = "the version before it is intact" if path.exists() else "nothing was saved"
        raise OSError(
            cause.errno, f"cannot write {path}: {cause.strerror} ({kept}); make room and run again"
        ) from error
