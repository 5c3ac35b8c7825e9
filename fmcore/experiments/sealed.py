"""JSON files that carry the digest of their own content, so that a change by hand or by a faulty disk is noticed.

The digest is one more entry, "digest", of the outermost object. Files without one, of earlier versions and those that
are meant to be written by hand, are read as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmcore import digests
from fmcore.experiments import records

NAME = "digest"


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with its digest as the last entry; raises ValueError for NaN or infinity, which JSON has not."""
    plain = {name: value for name, value in content.items() if name != NAME}
    return {**plain, NAME: digests.of_settings(plain)}


def is_sealed(content: Any) -> bool:
    """Whether JSON that was read carries its digest."""
    return isinstance(content, dict) and NAME in content


def opened(content: Any, file: Path) -> Any:
    """What was sealed, without the digest; what carries none, as it is.

    Raises:
        ValueError: if the content is not what was sealed.
    """
    if not is_sealed(content):
        return content
    plain = {name: value for name, value in content.items() if name != NAME}
    if digests.of_settings(plain) != content[NAME]:
        raise ValueError(
            f"{file} was changed after it was written (its digest is another): put back the original. Settings are "
            "changed on the command line, as FIELD=VALUE, and not in this file"
        )
    return plain


def write(file: Path, content: Mapping[str, Any]) -> None:
    """Write JSON with its digest, in full or not at all."""
    records.write_json(file, sealed(content))


def read(file: Path) -> Any:
    """Read JSON; raises as `opened` and `fmcore.experiments.records.read_json`."""
    return opened(records.read_json(file), file)
