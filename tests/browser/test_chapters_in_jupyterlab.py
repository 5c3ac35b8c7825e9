"""Some chapters and an exercise sheet in JupyterLab, as a learner meets them: Run All, then the page is used.

Every chapter is run elsewhere, under nbval. A page is needed to see that each kind of element works in one; so those
chapters are opened that together have every kind and take the least time.
"""

from __future__ import annotations

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from fmcore.course import build
from tests.browser import elements, jupyterlab
from tests.notebooks import checks

KINDS = elements.of_chapters()
SECONDS = elements.seconds(KINDS)
CHOSEN = elements.slowest_first(elements.cheapest(KINDS, SECONDS), SECONDS)
SHEET = "exercises/00_start_here"


@pytest.mark.parametrize("name", CHOSEN)
def test_chapter(lab, name):
    lab.study(name)


def test_an_exercise_sheet_says_what_is_missing_and_accepts_an_answer(lab):
    sheet = nbformat.read(build.ROOT / "chapters" / f"{SHEET}.ipynb", as_version=4)
    answers = build.read(build.ROOT / "chapters" / "solutions" / f"{SHEET.rpartition('/')[2]}.py")
    code = [i for i, cell in enumerate(sheet.cells) if cell.cell_type == "code"]
    exercises = [i for i in code if "exercise" in checks.tags(sheet.cells[i])]
    with lab.page(SHEET) as page:
        said = page.locator(".jp-Notebook .jp-OutputArea-output")
        assert said.filter(has_text="not written yet").count() >= len(exercises)
        assert said.filter(has_text="✓").count() == 0
        cells = [i for i in code if exercises[0] <= i < exercises[1]]
        jupyterlab.write(page, cells[0], answers.cells[cells[0]].source)
        jupyterlab.run(page, len(cells))
        said.filter(has_text="✓").first.wait_for(timeout=60_000)
        assert said.filter(has_text="✓").count() == 1
        jupyterlab.assert_no_errors(page)


def test_an_error_in_a_cell_and_a_page_of_another_machine_are_found(lab):
    with pytest.raises(AssertionError, match="ZeroDivisionError"), lab.page("error_in_a_cell"):
        pass
    assert "http://picture.invalid/x.png" in lab.outside


def test_pictures_that_do_not_move_a_question_without_an_answer_and_an_error_in_a_widget_are_found(lab):
    with lab.page("widgets") as page:
        with pytest.raises(AssertionError, match="slider moves, the picture does not"):
            lab.move(page, which=0)
        with pytest.raises(AssertionError, match="check box changes, the picture does not"):
            lab.switch(page)
        with pytest.raises(AssertionError, match="to contain"):
            lab.answer_questions(page)
        with pytest.raises(AssertionError, match="ZeroDivisionError"):
            lab.move(page, which=1)


def test_the_chosen_chapters_have_every_kind_of_element():
    everything = set().union(*KINDS.values())
    assert set().union(*(KINDS[name] for name in CHOSEN)) == everything
    # The kinds that a page can break, so that no change of names makes them all disappear.
    needed = {
        "card",
        "claims",
        "predict",
        "widgets.explore",
        "widgets.slider",
        "widgets.choice",
        "image/png",
        "<table>",
    }
    assert needed <= everything, needed - everything


def test_chapters_are_listed_in_one_order_though_two_take_as_long():
    times = {"a": 1.0, "b": 1.0, "c": 3.0}
    assert elements.slowest_first({"c", "b", "a"}, times) == elements.slowest_first(["a", "b", "c"], times) == [*"cab"]


def test_a_new_kind_of_element_is_not_forgotten():
    kinds = {"a": {"card"}, "b": {"card", "predict"}, "c": {"card", "animation"}, "d": {"card", "predict", "animation"}}
    times = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 9.0}
    assert elements.cheapest(kinds, times) == ("b", "c")
    assert elements.cheapest(kinds, {**times, "d": 4.0}) == ("d",)
    film = new_output("display_data", data={"text/html": "<video controls>", "application/x": "0"})
    code = "from IPython.display import Audio\nwidgets.dial(0, 1)\ncard.show('x')\npredict.draw()\nplotting.curves(x)"
    cells = [new_markdown_cell("| a | $b$ |\n|---|---|\n<kbd>x</kbd>"), new_code_cell(code, outputs=[film])]
    assert elements.of(new_notebook(cells=cells)) == {
        "table in the text",
        "formula in the text",
        "<kbd> in the text",
        "IPython.display",
        "widgets.dial",
        "card",
        "predict",
        "text/html",
        "application/x",
        "<video>",
    }
