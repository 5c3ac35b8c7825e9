"""Unpacking archives from elsewhere: plain files inside one folder, and nothing else.

A tar archive can name files outside the folder it is unpacked to, links, and devices. The archives of data sets hold
none of these, so one that does was made by somebody else and is refused before anything is written.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from fmcore.data.files import CHUNK
from fmcore.data.plain_files import advice

DAMAGE = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError)


def unpack(archive: Path, folder: Path, name: str, limit: int) -> Path:
    """Unpack a tar archive that holds one folder.

    Args:
        archive: the file, compressed or not.
        folder: where the archive's folder goes.
        name: of the archive's folder; folder / name must not exist.
        limit: largest total size of the content in bytes: a small archive can unpack to any size.

    Returns:
        folder / name. It is there in full or not at all.

    Raises:
        ValueError: if the archive is damaged, holds anything but plain files inside its folder, or is too large.
        OSError: if the files cannot be written; what was written is removed.
    """
    partial = folder / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed
    try:
        with tarfile.open(archive) as tar:
            members = tar.getmembers()
            while tar.fileobj and tar.fileobj.read(CHUNK):
                pass  # to the end, where the checksum of a compressed archive is compared
            for member in members:
                check_member(member, archive, name)
            size = sum(member.size for member in members)
            if size > limit:
                raise ValueError(f"{archive} unpacks to {size:,} bytes, more than the {limit:,} expected: refused")
            # Python's own filter checks again where there is one: from 3.12 on, and in later releases of 3.10 and 3.11.
            safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            tar.extractall(partial, members, **safe)  # type: ignore[arg-type]
        os.replace(partial / name, folder / name)
    except DAMAGE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(":")
        raise ValueError(f"{archive} is truncated or damaged ({reason}): delete it and get it again") from error
    except OSError as error:
        raise OSError(error.errno, f"cannot unpack {archive} into {folder}: {error.strerror}{advice(error)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder / name


def check_member(member: tarfile.TarInfo, archive: Path, name: str) -> None:
    """Raise ValueError unless the member is a folder or a plain file that lands inside the archive's own folder."""
    outside = ".." in PurePosixPath(member.name).parts or re.match(r"/|.*[\\:]", member.name)
    if outside or PurePosixPath(member.name).parts[:1] != (name,):
        kind = "path outside its folder"
    elif member.islnk() or member.issym():
        kind = "link"
    elif not (member.isfile() or member.isdir()):
        kind = "device or other special file"
    else:
        return
    raise ValueError(
        f"{archive} holds a {kind} ({member.name!r}), where plain files in {name}/ are expected: it is not the "
        "official archive and nothing of it was unpacked; delete it and get it again"
    )
