"""The papers' numbers, from data/reference, and our records, from data/results and from runs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fmcore.experiments import sealed

ROOT = Path(__file__).resolve().parents[2] / "data"
REFERENCE, RESULTS = ROOT / "reference", ROOT / "results"


def read_reference(name: str) -> list[dict[str, str]]:
    """The rows of a table in data/reference; lines that start with # say where it is from.

    Raises:
        FileNotFoundError: if the package runs without its data folder.
    """
    file = REFERENCE / f"{name}.csv"
    if not file.exists():
        raise FileNotFoundError(
            f"{file} is missing: the papers' tables come with the repository; run from a checkout of it"
        )
    return list(csv.DictReader(line for line in file.read_text().splitlines() if not line.startswith("#")))


def find_records(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """The finished records in folders and below, by experiment; later ones win.

    Raises:
        FileNotFoundError: if a folder does not exist.
        ValueError: if a file is damaged.
    """
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder: name one that holds runs or records")
        for file in sorted(folder.rglob("*.json")):
            content = sealed.read(file)
            if isinstance(content, dict) and {"experiment", "values", "configuration"} <= set(content):
                found[content["experiment"]] = content
    return found
