"""What `fmcore measure NAME` measures. No image network is trained for any of them.

bertrand2025/DATA/collapse       how soon the exact velocity becomes that of one image (figure 1)
lee2025/geometry/DATA            lengths, empty directions, faint frequencies and clusters of images
lee2025/simulation/SETTING       ten ways to start a flow in the plane (table 7)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from fmcore.experiments import records, sealed
from fmcore.experiments.drawing import save
from fmcore.experiments.evaluate.leaving import check_can_write
from fmcore.papers.bertrand2025 import collapse, collapse_report
from fmcore.papers.bertrand2025.collapse import CollapseConfig
from fmcore.papers.lee2025 import geometry, geometry_report, simulation_report, simulation_setting
from fmcore.papers.lee2025.geometry import GeometryConfig
from fmcore.papers.lee2025.simulation_setting import SimulationConfig
from fmcore.validation import unknown_name

MeasurementConfig: TypeAlias = CollapseConfig | GeometryConfig | SimulationConfig
MEASUREMENTS: dict[str, MeasurementConfig] = {
    **collapse.MEASUREMENTS,
    **geometry.MEASUREMENTS,
    **simulation_setting.MEASUREMENTS,
}
RECORD = "record.json"


@dataclass(frozen=True)
class Kind:
    """What belongs to one kind of measurement.

    Attributes:
        picture: the name of its picture's file.
        measure: a configuration, and whether to show progress, to what was found.
        record: what was found to its record.
        figure: what was found to its picture.
        show: prints a record.
    """

    picture: str
    measure: Callable[..., Any]
    record: Callable[[Any], dict[str, Any]]
    figure: Callable[[Any], Any]
    show: Callable[[dict[str, Any]], None]


def itself(found: dict[str, Any]) -> dict[str, Any]:
    """The record, where a measurement finds nothing else."""
    return found


KINDS: dict[type, Kind] = {
    CollapseConfig: Kind(
        "collapse.png", collapse.measure, itself, collapse_report.collapse_figure, collapse_report.show_values
    ),
    GeometryConfig: Kind(
        "geometry.png",
        geometry.measure,
        lambda found: found.record,
        geometry_report.geometry_figure,
        geometry_report.show_values,
    ),
    SimulationConfig: Kind(
        "simulation.png",
        simulation_report.measured,
        itself,
        simulation_report.distances_figure,
        simulation_report.show_values,
    ),
}


def by_name(name: str) -> MeasurementConfig:
    """The configuration of a named measurement.

    Raises:
        ValueError: on an unknown name; the known ones are listed.
    """
    if name not in MEASUREMENTS:
        raise unknown_name("measurement", name, MEASUREMENTS)
    return MEASUREMENTS[name]


def measure_run(
    configuration: MeasurementConfig, folder: Path, overwrite: bool = False, progress: bool = True
) -> dict[str, Any]:
    """Measure, leave record.json and a picture in the folder, and return the record.

    Args:
        configuration: what to measure.
        folder: made if it does not exist; the record is written, with its digest, before the picture is drawn.
        overwrite: replace a measurement that is there.
        progress: show how far it is.

    Raises:
        FileExistsError: if the folder is not empty, unless it holds such files alone and overwrite was asked for.
        ValueError: if the data are fewer than asked for.
        OSError: if the data are not there, or nothing can be written in the folder; the latter is found at the start.
    """
    kind = KINDS[type(configuration)]
    files = (RECORD, kind.picture)
    records.check_folder(folder, overwrite, files)
    there = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    check_can_write(there, files if there == folder else ())
    found = kind.measure(configuration, progress)
    record = kind.record(found)
    folder.mkdir(parents=True, exist_ok=True)
    sealed.write(folder / RECORD, record)
    save(kind.figure(found), folder / kind.picture)
    return record


def show_values(configuration: MeasurementConfig, record: dict[str, Any]) -> None:
    """Print what was measured."""
    KINDS[type(configuration)].show(record)


def show_all() -> None:
    """Print one line a measurement."""
    from rich.table import Table

    from fmcore.console.tables import WHOLE, WORDS, Console

    table = Table(title="measurements, without an image network: fmcore measure NAME", title_justify="left")
    for title, kind in (("name", WHOLE), ("data", WHOLE), ("what", WORDS)):
        table.add_column(title, **kind)
    for name, one in MEASUREMENTS.items():
        table.add_row(name, *in_words(one))
    Console().show(table)


def in_words(one: MeasurementConfig) -> tuple[str, str]:
    """What a measurement is taken on, and what it consists of."""
    if isinstance(one, SimulationConfig):
        return "three directions", f"{one.runs} runs of {one.steps:,} steps"
    if isinstance(one, GeometryConfig):
        return one.data, f"axes at tau {one.tau:g}; {one.directions:,} directions of noise"
    sizes = ", ".join(map(str, one.sizes)) or "the plane"
    return one.data, f"sizes {sizes}; {one.pairs} pairs at {one.times} times"
