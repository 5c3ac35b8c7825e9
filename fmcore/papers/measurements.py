"""What `fmcore measure NAME` measures. No image network is trained for any of them.

bertrand2025/DATA/collapse       how soon the exact velocity becomes that of one image (figure 1)
lee2025/geometry/DATA            lengths, empty directions, faint frequencies and clusters of images
lee2025/simulation/SETTING       ten ways to start a flow in the plane (table 7)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

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


def by_name(name: str) -> MeasurementConfig:
    """The configuration of a named measurement.

    Raises:
        ValueError: on an unknown name; the known ones are listed.
    """
    if name not in MEASUREMENTS:
        raise unknown_name("measurement", name, MEASUREMENTS)
    return MEASUREMENTS[name]


def measure_run(configuration: MeasurementConfig, folder: Path, overwrite: bool = False) -> dict[str, Any]:
    """Measure and leave record and picture in the folder.

    Raises:
        FileExistsError: if something there would be lost.
        ValueError, OSError: if the data are not there, or are fewer than asked for.
    """
    if isinstance(configuration, SimulationConfig):
        return simulation_report.measure_run(configuration, folder, overwrite)
    if isinstance(configuration, GeometryConfig):
        return geometry_report.measure_run(configuration, folder, overwrite)
    return collapse_report.measure_run(configuration, folder, overwrite)


def show_values(configuration: MeasurementConfig, record: dict[str, Any]) -> None:
    """Print what was measured."""
    if isinstance(configuration, SimulationConfig):
        simulation_report.show_values(record)
    elif isinstance(configuration, GeometryConfig):
        geometry_report.show_values(record)
    else:
        collapse_report.show_values(record)


def show_all() -> None:
    """Print one line a measurement."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="measurements, without an image network: fmcore measure NAME", title_justify="left")
    for title in ("name", "data", "what"):
        table.add_column(title)
    for name, one in MEASUREMENTS.items():
        if isinstance(one, SimulationConfig):
            row = ("three directions", f"{one.runs} runs of {one.steps:,} steps")
        elif isinstance(one, GeometryConfig):
            row = (one.data, f"axes at tau {one.tau:g}; {one.directions:,} directions of noise")
        else:
            sizes = ", ".join(map(str, one.sizes)) or "the plane"
            row = (one.data, f"sizes {sizes}; {one.pairs} pairs at {one.times} times")
        table.add_row(name, *row)
    Console().print(table)
