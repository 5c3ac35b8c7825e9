"""The papers' numbers, from data/reference, and our records, from data/results and from runs."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fmcore.experiments import sealed

ROOT = Path(__file__).resolve().parents[2] / "data"
REFERENCE, RESULTS = ROOT / "reference", ROOT / "results"
RECORD = "record.json"  # what a run and a measurement leave in their folder


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


class Record(dict[str, Any]):
    """A record, and the file that it was read from."""

    file: Path

    def __init__(self, content: dict[str, Any], file: Path) -> None:
        super().__init__(content)
        self.file = file


def find_records(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """The finished records in folders and below, by experiment; later ones win, and of several seeds the smallest.

    Other JSON is passed over, and the record of a run that is not evaluated yet. A file called record.json is a record.

    Raises:
        FileNotFoundError: if a folder does not exist.
        ValueError: if a file is damaged.
        OSError: if a file cannot be read.
    """
    return {name: by_seed[min(by_seed)] for name, by_seed in find_seeds(folders).items()}


def find_seeds(folders: Sequence[Path]) -> dict[str, dict[int, dict[str, Any]]]:
    """The finished records in folders and below, by experiment and by the seed of the training (0 for a measurement).

    What a later folder has of an experiment takes the place of all that earlier ones have. In one folder the last
    record by name says what the experiment is: others count beside it if they differ from it in the seed alone.

    Raises:
        as `find_records`.
    """
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder: name one that holds runs or records")
        here: dict[str, dict[int, dict[str, Any]]] = {}
        for file in sorted(folder.rglob("*.json")):
            if file.is_dir() and file.name != RECORD:
                continue
            content = sealed.read(file)
            if is_finished(content):
                by_seed = here.setdefault(content["experiment"], {})
                alike = {seed: one for seed, one in by_seed.items() if without_seed(one) == without_seed(content)}
                here[content["experiment"]] = {**alike, seed_of(content): Record(content, file)}
            elif file.name == RECORD and not is_trained(content):
                raise ValueError(f"{file} is no record: put back the original, or move it out of {folder}")
        found.update(here)
    return found


def seed_of(record: Mapping[str, Any]) -> int:
    """The seed of the training that a record is about, 0 where there was none."""
    training = record["configuration"].get("training")
    seed = training.get("seed") if isinstance(training, dict) else None
    return seed if isinstance(seed, int) else 0


def without_seed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a record apart from the seed of the training."""
    configuration: dict[str, Any] = record["configuration"]
    training = configuration.get("training")
    return {**configuration, "training": {**training, "seed": None}} if isinstance(training, dict) else configuration


def is_finished(content: Any) -> bool:
    """Whether what was read is a record with values: of an evaluated run, or of a measurement."""
    kinds = {"experiment": str, "values": dict, "configuration": dict}
    return isinstance(content, dict) and all(isinstance(content.get(name), kind) for name, kind in kinds.items())


def is_trained(content: Any) -> bool:
    """Whether what was read is the record of a run that is not evaluated yet."""
    return isinstance(content, dict) and "values" not in content and isinstance(content.get("training"), dict)


@contextmanager
def reading(record: Mapping[str, Any] | None) -> Iterator[None]:
    """Take numbers out of a record; one that lacks some, or has other things in their place, is named by its file.

    Raises:
        ValueError: in place of what a missing or wrong entry raises. An error with other causes stays as it is: without
            a record, or with one that was not read from a file.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        if not isinstance(record, Record):
            raise
        said = f"an entry is of another kind than it should be ({error})"
        if isinstance(error, LookupError):
            said = f"it lacks {error}" if isinstance(error, KeyError) else "a list in it is too short"
        raise ValueError(
            f"{record.file} cannot be shown beside the paper: {said}; put back the original, or leave it out"
        ) from error
