"""Every chapter in JupyterLab, as a learner meets it: Run All, then the slider moves the picture."""

from __future__ import annotations

import os
import shutil

import nbformat
import pytest

from fmcore.course import build, execution
from tests.browser import jupyterlab

CHAPTERS = [pair.name for pair in build.pairs() if not pair.student]
SECONDS = 300  # for one chapter, on a busy machine; it takes less than 120 on an idle core
REPORT = build.ROOT / "build" / "browser"

PLOT = """
from matplotlib.figure import Figure
from fmcore.course import widgets

def plot(t):
    figure = Figure(figsize=(2, 2))
    figure.subplots().plot([0, 1], [0, {}])
    return figure

widgets.explore(plot, t=widgets.slider(0, 1, value=0.5))
"""
BROKEN = {
    "error_in_a_cell": [PLOT.format("t"), "1 / 0"],
    "error_in_a_widget": [PLOT.format("1 / (t - 1)")],
    "picture_that_does_not_move": [PLOT.format("1")],
    "page_of_another_machine": [PLOT.format("t"), "%%html\n<img src='http://picture.invalid/x.png'>"],
}


@pytest.fixture(scope="module")
def chromium() -> str:
    found = jupyterlab.find_chromium()
    if found is None:
        said = "BROWSER TEST LEFT OUT: no Chromium here. Install one, or run .venv/bin/playwright install chromium"
        (pytest.fail if os.environ.get("FMCORE_REQUIRE_BROWSER") else pytest.skip)(said)
    return found


@pytest.fixture(scope="module")
def lab(chromium, tmp_path_factory):
    """JupyterLab on a copy of the chapters, a browser, and the addresses outside this machine that it asked for."""
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(build.ROOT / "chapters", home / "chapters", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    outside: set[str] = set()
    for fault, cells in BROKEN.items():
        cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
        notebook = nbformat.v4.new_notebook(cells=cells, metadata=execution.METADATA)
        nbformat.write(notebook, home / "chapters" / f"{fault}.ipynb")
    with (
        jupyterlab.server(home / "chapters", home) as server,
        jupyterlab.browser(chromium, home / "profile", outside) as browser,
    ):
        yield server, browser, outside
        REPORT.mkdir(parents=True, exist_ok=True)
        shutil.copy(home / "server.log", REPORT / f"server_{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}.log")


def study(lab, name: str, seconds: float) -> None:
    """Do what a learner does with one notebook."""
    server, browser, outside = lab
    outside.clear()
    page = browser.new_page()
    try:
        jupyterlab.run_all(page, server.page(f"{name}.ipynb"), seconds)
        low, high, again = jupyterlab.move_slider(page, server)
        assert low != high, "the slider moves, the picture does not"
        assert low == again, "the same place of the slider shows another picture"
        assert not outside, f"the page asks for addresses outside this machine: {sorted(outside)[:5]}"
    except BaseException:
        jupyterlab.screenshot(page, REPORT / f"{name}.png")
        raise
    finally:
        page.close()
        server.stop_kernels()


@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter(lab, name):
    study(lab, name, SECONDS)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("error_in_a_cell", "ZeroDivisionError"),
        ("error_in_a_widget", "ZeroDivisionError"),
        ("picture_that_does_not_move", "the picture does not"),
        ("page_of_another_machine", "picture.invalid"),
    ],
)
def test_a_broken_notebook_is_found(lab, name, said):
    with pytest.raises(AssertionError, match=said):
        study(lab, name, SECONDS)
