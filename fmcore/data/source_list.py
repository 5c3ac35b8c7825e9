"""The list of the files that a data set is prepared from, by which a source that changed is noticed."""

from __future__ import annotations

import json
from pathlib import Path

from fmcore.data.manifest import SPLITS, again
from fmcore.data.plain_files import read_plain
from fmcore.data.recipe import Recipe
from fmcore.data.verification import SOURCES


def source_list(recipe: Recipe) -> bytes:
    """One line a file, with split, size and name, and an empty line after each shard: the plan of a preparation."""
    lines = []
    for split in SPLITS:
        for shard in getattr(recipe, split):
            lines += [f"{split} {file.size} {json.dumps(file.name)}" for file in shard.files] + [""]
    return "\n".join([*lines, ""]).encode()


def check_sources(folder: Path, now: bytes) -> None:
    """Raise ValueError naming the files in which a source differs from the one that a folder was prepared from."""
    path = folder / SOURCES
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing{again(folder)}")
    before = read_plain(path)
    if before == now:
        return
    try:
        was, found = sizes(before), sizes(now)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}){again(folder)}") from error
    names = sorted(name for name in {**was, **found} if was.get(name) != found.get(name))
    differences = [f"{name} ({was.get(name, 'no')} bytes then, {found.get(name, 'no')} now)" for name in names[:3]]
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    raise ValueError(
        f"the source is not the one that {folder} was prepared from: {', '.join(differences) or 'another order'}{more}"
        "; put the files back, or delete the folder and prepare it again"
    )


def sizes(listing: bytes) -> dict[str, str]:
    """The size of each file in a list of `source_list`, by split and name."""
    rows = [line.split(" ", 2) for line in listing.decode().split("\n") if line]
    return {f"{split} {json.loads(name)}": size for split, size, name in rows}


def resolved(folders: list[Path]) -> list[str]:
    """Where folders are, as text."""
    return [str(folder.resolve()) for folder in folders]
