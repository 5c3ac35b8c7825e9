"""Run a notebook, and store what it shows: outputs, the time it took, and a still picture for each widget."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CORES = 2  # what a chapter may use, and what its run time is stated for
CARD = re.compile(r"\bcard\.show\(")
VIEW, STATE = (f"application/vnd.jupyter.widget-{kind}+json" for kind in ("view", "state"))
PICTURE = re.compile(r'<img[^>]*\bwidth:(\d+)px[^>]*\bsrc="data:image/png;base64,([^"]+)"')
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "pygments_lexer": "ipython3",
    },
}


def execute(notebook: Any, folder: Path, timeout: int = 600) -> float:
    """Run all cells in `folder`; outputs and widget state are stored in the notebook. Returns the seconds taken.

    Raises nbclient.exceptions.CellExecutionError at the first cell that fails.
    """
    from nbclient import NotebookClient

    environment = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    environment["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # the kernel's debugger warns on stderr otherwise
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=40"],  # no note in the terminal that the kernel listens on TCP
        resources={"metadata": {"path": str(folder)}},
    )
    start = time.perf_counter()
    client.execute(env=environment)
    return time.perf_counter() - start


def record_time(name: str, seconds: float, file: Path) -> bool:
    """Note how long a chapter took, unless the known time is within a quarter of it. Returns whether it was noted."""
    times = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    entry = {"seconds": round(seconds) if seconds >= 10 else round(seconds, 1), "cores": CORES}
    known = times.get(name)
    if known and known["cores"] == CORES and abs(known["seconds"] - seconds) <= 0.25 * seconds:
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    replace(file, json.dumps({**times, name: entry}, indent=2, sort_keys=True) + "\n")
    return True


def refresh_card(notebook: Any, folder: Path) -> None:
    """Draw the card again, which shows the run time: run the cells as far as the card and take its output."""
    import nbformat

    place = next((i for i, cell in enumerate(notebook.cells) if is_card(cell)), None)
    if place is not None:
        opening = nbformat.from_dict({**notebook, "metadata": METADATA, "cells": notebook.cells[: place + 1]})
        execute(opening, folder)
        notebook.cells[place].outputs = opening.cells[place].outputs


def is_card(cell: Any) -> bool:
    """Whether a cell shows the card of its chapter."""
    return cell["cell_type"] == "code" and CARD.search(cell["source"]) is not None


def still_pictures(notebook: Any) -> None:
    """Store each widget as the picture it shows, for readers without a kernel: on the web, and before the first run."""
    models = notebook.metadata.pop("widgets", {}).get(STATE, {}).get("state", {})
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        view = output.get("data", {}).pop(VIEW, None)
        picture = view and next(_pictures(models, view["model_id"]), None)
        if picture:
            width, png = picture
            output.data["image/png"] = png
            output.metadata = {"image/png": {"width": int(width)}}


def _pictures(models: Any, model_id: str) -> Iterator[tuple[str, str]]:
    """Width and base64 PNG of each picture in a widget, depth first."""
    state = models.get(model_id, {}).get("state", {})
    yield from PICTURE.findall(str(state.get("value", "")))
    for child in state.get("children", ()):
        yield from _pictures(models, child.removeprefix("IPY_MODEL_"))


def replace(path: Path, text: str) -> None:
    """Write a file as a whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    partial.replace(path)
