"""JupyterLab and Chromium for the tests of pages; each worker starts them once."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import nbformat
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from fmcore.course import build, execution
from tests.browser import jupyterlab

REPORT = build.ROOT / "build" / "browser"
SECONDS = 600  # for one chapter, on a machine with other work; it takes less than 120 on an idle core

PLOT = """
from matplotlib.figure import Figure
from fmcore.course import widgets

def plot(t):
    figure = Figure(figsize=(2, 2))
    figure.subplots().plot([0, 1], [0, {}])
    return figure

widgets.explore(plot, t=widgets.slider(0, 1, value=0.5))
"""
SWITCH = "widgets.explore(lambda on, plot=plot: plot(1), on=widgets.switch())"
QUESTION = """
import ipywidgets
radios = "".join(f'<input type="radio" name="option">{option}' for option in ("this", "that"))
ipywidgets.HTML(f'<form class="prediction">{radios}<div role="status"></div></form>')
"""
BROKEN = {
    "error_in_a_cell": ["%%html\n<img src='http://picture.invalid/x.png'>", "1 / 0"],
    "widgets": [PLOT.format("1"), SWITCH, PLOT.format("1 / (t - 1)"), QUESTION],
}


@dataclass
class Lab:
    """JupyterLab on a copy of the chapters, a browser, and the addresses outside this machine that it asked for."""

    server: jupyterlab.Server
    browser: BrowserContext
    outside: set[str]

    @contextmanager
    def page(self, notebook: str) -> Iterator[Page]:
        """An open notebook after Run All. What is on the page when a test fails is kept as a picture."""
        self.outside.clear()
        page = self.browser.new_page()
        try:
            jupyterlab.run_all(page, self.server.page(f"{notebook}.ipynb"), SECONDS)
            yield page
        except BaseException:
            jupyterlab.screenshot(page, REPORT / f"{notebook.replace('/', '_')}.png")
            raise
        finally:
            page.close()
            self.server.stop_kernels()

    def study(self, notebook: str) -> None:
        """Do with a chapter what a learner does."""
        with self.page(notebook) as page:
            self.answer_questions(page)
            self.move(page)
            self.switch(page)
            assert not self.outside, f"the page asks for addresses outside this machine: {sorted(self.outside)[:5]}"

    def move(self, page: Page, which: int = 0) -> None:
        """Move a slider to and fro; the picture follows it."""
        low, high, again = jupyterlab.move_slider(page, self.server, which)
        assert low != high, "the slider moves, the picture does not"
        assert low == again, "the same place of the slider shows another picture"

    def switch(self, page: Page) -> None:
        """Set the check box of a picture, where there is one; the picture follows it."""
        pictures = jupyterlab.set_check_box(page, self.server)
        if pictures:
            before, after, again = pictures
            assert before != after, "the check box changes, the picture does not"
            assert before == again, "the same state of the check box shows another picture"

    def answer_questions(self, page: Page) -> None:
        """Choose the first option of each prediction, then the next by keyboard; the page says whether it is right."""
        for question in page.locator("form.prediction").all():
            options, said = question.locator("input[type=radio]"), question.get_by_role("status")
            options.first.check()
            expect(said).to_contain_text(re.compile(r"Yes\.|Not this one\."), use_inner_text=True)
            options.first.press("ArrowDown")
            expect(options.nth(1)).to_be_checked()
            expect(options.nth(1)).to_be_focused()  # and not the next cell
            expect(said).to_contain_text(re.compile(r"Yes\.|Not this one\."), use_inner_text=True)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab and a browser; without a Chromium the tests are left out, or fail where it is required."""
    chromium = jupyterlab.find_chromium()
    if chromium is None:
        said = "BROWSER TEST LEFT OUT: no Chromium here. Install one, or run .venv/bin/playwright install chromium"
        (pytest.fail if os.environ.get("FMCORE_REQUIRE_BROWSER") else pytest.skip)(said)
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(build.ROOT / "chapters", home / "chapters", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for fault, cells in BROKEN.items():
        cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
        notebook = nbformat.v4.new_notebook(cells=cells, metadata=execution.METADATA)
        nbformat.write(notebook, home / "chapters" / f"{fault}.ipynb")
    outside: set[str] = set()
    with (
        jupyterlab.server(home / "chapters", home) as server,
        jupyterlab.browser(chromium, home / "profile", outside) as browser,
    ):
        yield Lab(server, browser, outside)
        REPORT.mkdir(parents=True, exist_ok=True)
        shutil.copy(home / "server.log", REPORT / f"server_{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}.log")
