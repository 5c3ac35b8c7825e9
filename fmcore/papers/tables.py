"""`fmcore table NAME`: the tables that can be printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fmcore.papers.bertrand2025 import tables as bertrand2025_tables
from fmcore.papers.blocks import show_blocks
from fmcore.papers.lee2025 import simulation_report
from fmcore.papers.lee2025 import tables as lee2025_tables
from fmcore.papers.lipman2023 import table as lipman2023_table


def lipman2023(folders: Sequence[Path]) -> None:
    """Print Table 1 of Lipman et al. 2023; raises as `fmcore.papers.lipman2023.table.lipman2023`."""
    lipman2023_table.show_comparison(lipman2023_table.lipman2023(folders))


def bertrand2025(folders: Sequence[Path]) -> None:
    """Print the figures of Bertrand et al. 2025; raises as `fmcore.papers.bertrand2025.tables.bertrand2025`."""
    show_blocks(
        "Bertrand et al. 2025, figures 1 to 4", bertrand2025_tables.bertrand2025(folders), bertrand2025_tables.NOTES
    )


def lee2025(folders: Sequence[Path]) -> None:
    """Print the tables of Lee et al. 2025 on images; raises as `fmcore.papers.lee2025.tables.lee2025`."""
    show_blocks("Lee et al. 2025, sources", lee2025_tables.lee2025(folders), lee2025_tables.NOTES)


def simulation(folders: Sequence[Path]) -> None:
    """Print Table 7 of Lee et al. 2025; raises as `fmcore.papers.lee2025.simulation_report.simulation`."""
    show_blocks("Lee et al. 2025, table 7", simulation_report.simulation(folders), simulation_report.NOTES)


PAPERS: dict[str, Callable[[Sequence[Path]], None]] = {
    "lipman2023": lipman2023,
    "bertrand2025": bertrand2025,
    "lee2025": lee2025,
    "simulation": simulation,
}
