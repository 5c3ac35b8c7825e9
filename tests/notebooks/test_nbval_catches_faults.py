"""What `make notebooks` and `make twice` run can fail: a notebook in which many cells have a fault each."""

from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import ipywidgets
import nbformat
import pytest
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_notebook, new_output

from fmcore.course import build, card, execution, widgets
from tests.notebooks import checks, close_numbers, copies

COMMAND = [sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", "-p", "tests.notebooks.close_numbers"]
COMMAND += ["--nbval", "--nbval-current-env"]
DRAW = """\
from matplotlib.figure import Figure
from fmcore.course import style, widgets
style.use()
def plot(t):
    figure = Figure(figsize=(2, 2))
    figure.subplots().plot([0, 1], [0, 1 / (t - 1)])
    return figure
explorer = widgets.explore(plot, t=widgets.slider(0, 1, value=0.5))
explorer"""
SHOW_CARD = 'from fmcore.course import card\ncard.show("01_diffusion", ["see"])'
HTML = 'from IPython.display import HTML\nHTML("<b>{}</b>")'
KEPT = "import ipywidgets\nwith ipywidgets.Output():\n    1 / 0"
TABLE = "<IPython.core.display.HTML object>"


def said(text: str) -> dict:
    return new_output("stream", name="stdout", text=text)


def shown(plain: str, kind: str = "text/plain", text: str | None = None) -> dict:
    return new_output("execute_result", data={"text/plain": plain, kind: text or plain}, execution_count=1)


STILL = shown("Picture for t = 0.5")
STILL["data"]["image/png"] = "aGk="
CARD = card.render("01_diffusion", ["see"])
LATE = CARD._repr_mimebundle_()
LATE = {kind: text.replace(card.run_time("01_diffusion"), "3 seconds on 2 CPU cores") for kind, text in LATE.items()}

# For each cell: its code, what is stored, and what nbval says of the difference; nothing where there should be none.
CELLS = {
    "the claim that is stored": ('print("cosine 0.97")', [said("cosine 0.97\n")], ""),
    "another claim": ('print("cosine 0.98")', [said("cosine 0.97\n")], "mismatch 'stdout'"),
    "a claim with a number of one machine": ('print("✓  < 0.1  ≈ 3e-7")', [said("✓  < 0.1  ≈ 0.012\n")], ""),
    "another tick": ('print("✗  < 0.1  ≈ 3e-7")', [said("✓  < 0.1  ≈ 3e-7\n")], "mismatch 'stdout'"),
    "another expectation": ('print("✓  < 0.2  ≈ 3e-7")', [said("✓  < 0.1  ≈ 3e-7\n")], "mismatch 'stdout'"),
    "the card": (SHOW_CARD, [new_output("display_data", data=CARD._repr_mimebundle_())], ""),
    "a card with another time": (SHOW_CARD, [new_output("display_data", data=LATE)], "3 seconds on 2 CPU cores"),
    "other words": ('print("loss 0.5 at the end")', [said("loss 0.5 at the start\n")], "mismatch 'stdout'"),
    "a number far off": ('print("loss  0.531 of 64")', [said("loss 12.345 of 64\n")], "0.531"),
    "the last digits": ('print("loss   9.98 of -64")', [said("loss  10.02 of -64\n")], ""),
    "rounding errors": ('print("error 3e-16")', [said("error 1.2e-9\n")], ""),
    "another sign": ('print("slope 0.98")', [said("slope -0.98\n")], "mismatch 'stdout'"),
    "digits of a name": ('print("x1 float64")', [said("x0 float64\n")], "mismatch 'stdout'"),
    "no number": ('print("loss nan")', [said("loss 0.5\n")], "mismatch 'stdout'"),
    "a line more": ('print("one\\ntwo")', [said("one\n")], "mismatch 'stdout'"),
    "nothing printed": ("pass", [said("one\n")], "Missing output fields"),
    "text on stderr": ('import sys\nprint("two", file=sys.stderr)\nprint("one")', [said("one\n")], "{'stderr'}"),
    "a warning": ('import warnings\nwarnings.warn("careful")\nprint("one")', [said("one\n")], "{'stderr'}"),
    "a path": ('print("saved in /tmp/x")', [said("saved\n")], "/tmp/x"),
    "an error": ("1 / 0", [], "ZeroDivisionError"),
    "a number in HTML": (HTML.format(0.5), [shown(TABLE, "text/html", "<b>7.5</b>")], "mismatch 'text/html'"),
    "a number close to it in HTML": (HTML.format(0.5), [shown(TABLE, "text/html", "<b>0.51</b>")], ""),
    "a widget with its picture": (DRAW, [STILL], ""),
    "a picture that is missing": ("explorer.values and None", [STILL], "Missing output fields"),
    "text in the place of a picture": ('"Picture for t = 0.5"', [STILL], "0 pictures; 1 stored"),
    "an error in a widget": ("explorer.set(t=1)\nNone", [], ""),
    "an error that a widget keeps": (
        "import ipywidgets\nwith ipywidgets.Output():\n    1 / 0",
        [],
        "ZeroDivisionError",
    ),
    "no seed": ('import random\nprint(f"{1 + random.random() / 100:.9f}")', [said("1.005000000\n")], ""),
    "the last cell": (copies.LAST.read_text(), [said(copies.ALL_IS_WELL)], "a widget shows ZeroDivisionError"),
}
EXACT = {
    "the claim that is stored",
    "another claim",
    "a claim with a number of one machine",
    "another tick",
    "another expectation",
}


def failures(folder: Path, *arguments: str) -> dict[str, str]:
    """Run nbval in a folder. Returns what it says of each cell that fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment["PYTHONPATH"] = str(build.ROOT)
    command = [*COMMAND, "--junitxml=report.xml", *arguments]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert (folder / "report.xml").is_file(), result.stdout + result.stderr
    names = {f"Cell {number}": name for number, name in enumerate(CELLS)}
    cases = ElementTree.parse(folder / "report.xml").iter("testcase")
    return {names[case.attrib["name"]]: "".join(case.itertext()) for case in cases if len(case)}


def test_nbval_finds_each_fault_and_a_second_run_what_has_no_seed(tmp_path: Path) -> None:
    cells = [
        new_code_cell(code, outputs=outputs, execution_count=1, metadata={"tags": [checks.CLAIMS] * (name in EXACT)})
        for name, (code, outputs, _) in CELLS.items()
    ]
    notebook = copies.with_last_cell(new_notebook(cells=cells[:-1], metadata=execution.METADATA))
    nbformat.write(notebook, tmp_path / "faults.ipynb")
    found = failures(tmp_path, "faults.ipynb")
    assert list(found) == [name for name, (_, _, fault) in CELLS.items() if fault]
    for name, message in found.items():
        assert CELLS[name][2] in message, f"{name}: {message}"
    # What was shown is now what is stored. An error is none the less an error, and a warning names a file of one run.
    again = failures(tmp_path, "--nbval-exactly", str(close_numbers.EXECUTED))
    assert list(again) == ["a warning", "an error", "an error that a widget keeps", "no seed"]


COUNTER = itertools.count()


def explore(height: Callable[[float], float]) -> widgets.Explorer:
    def plot(t: float) -> Figure:
        figure = Figure(figsize=(1, 1))
        figure.subplots().plot([0, 1], [0, height(t)])
        return figure

    return widgets.explore(plot, t=widgets.slider(0, 1, value=0.5))


@pytest.mark.parametrize(
    ("height", "words"),
    [
        (lambda t: t, copies.ALL_IS_WELL),
        (lambda t: 1, "t moves, the picture does not"),
        (lambda t: 1 / (t - 1), "ZeroDivisionError"),
        (lambda t: t + next(COUNTER), "t comes back to its place, the picture does not"),
        (None, "There is no widget."),
    ],
)
def test_the_last_cell_moves_what_can_be_moved(height, words, capsys):
    ipywidgets.Widget.close_all()
    gc.collect()
    explorer = height and explore(height)
    exec(copies.LAST.read_text(), {})
    assert words in capsys.readouterr().out
    assert not explorer or explorer.values == {"t": 0.5}


@pytest.mark.parametrize(
    ("fresh", "stored"),
    [
        ("0.52", "0.68"),
        ("loss  9.98 of 64", "loss 10.02 of 64"),
        ("1,024 of 2048", "998 of 2048"),
        ("-0.0020", "-0.0007"),
        ("0.01", "0.00"),
        ("0%, 1 of 2", "1%, 1 of 2"),
        ("3e-16", "1.2e-9"),
        ("5e-5", "4e-5"),
        ("0.181 ± 0.074", "0.165 ± 0.039"),
        ("-1.5, 2.5.", "−1.4, 2.6."),
    ],
)
def test_close_numbers_become_the_stored_ones(fresh, stored):
    assert close_numbers.with_close_numbers(fresh, stored) == stored


@pytest.mark.parametrize(
    ("fresh", "stored"),
    [
        ("0.52", "0.80"),
        ("0.98", "-0.98"),
        ("1 of 8", "2 of 8"),
        ("0 of 96", "1 of 96"),
        ("0.006", "0.003"),
        ("0%", "2%"),
        ("3e-6", "3e-8"),
        ("5e-5", "2e-3"),
        ("0.181 ± 0.014", "0.165 ± 0.139"),
        ("x1 float64 #1A2B3C 32x32", "x0 float32 #1A2B3D 32x16"),
        ("1 2", "1 2 3"),
        ("nan", "0.5"),
        ("inf", "nan"),
    ],
)
def test_other_numbers_and_words_stay(fresh, stored):
    assert close_numbers.with_close_numbers(fresh, stored) != stored
