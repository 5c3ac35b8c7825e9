"""Sliders that redraw a picture."""

from __future__ import annotations

import base64
import io
from typing import Any

import ipywidgets
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib import pyplot as plt
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from fmcore.course import execution, style, widgets
from fmcore.course.execution import VIEW


def line(slope: float = 1.0, n: int = 2):
    figure, ax = style.figure(width=3, height=2)
    ax.plot(range(n), [slope * i for i in range(n)])
    return figure


def test_the_picture_is_that_of_the_current_values() -> None:
    explorer = widgets.explore(line, slope=widgets.slider(0, 1, value=0.5), n=widgets.choice([2, 5]))
    assert explorer.values == {"slope": 0.5, "n": 2}
    assert explorer.picture == style.png(line(0.5, 2))
    explorer.set(slope=0.25, n=5)
    assert explorer.picture == style.png(line(0.25, 5))
    explorer.set(slope=0.5, n=2)
    assert explorer.picture == style.png(line(0.5, 2))
    assert Image.open(io.BytesIO(explorer.picture)).width == 3 * style.DPI


def test_the_page_holds_the_picture_as_an_image_with_words_for_it() -> None:
    explorer = widgets.explore(line, slope=widgets.slider(0, 1, value=0.5))
    html = explorer.widget.children[-2].value
    assert html.startswith('<img alt="Picture for slope = 0.5"')
    assert html.count("<img") == 1
    assert "width:216px" in html  # 3 inches at 72 to the inch


def test_a_slider_counts_in_floating_point_but_the_plot_sees_the_number_meant() -> None:
    seen = []

    def plot(t: float):
        seen.append(t)
        return line(t)

    widgets.explore(plot, t=widgets.slider(0, 1)).set(t=0.1 + 0.2)
    assert seen == [0.0, 0.3]


def test_an_error_at_the_first_draw_fails_the_cell() -> None:
    def broken(t: float):
        raise RuntimeError("no picture")

    with pytest.raises(RuntimeError, match="no picture"):
        widgets.explore(broken, t=widgets.slider(0, 1))


def test_a_later_error_is_shown_kept_and_gone_after_a_good_draw() -> None:
    def inverse(t: float):
        return line(1 / (t - 0.5))

    explorer = widgets.explore(inverse, t=widgets.slider(0, 1, value=0.0))
    good = explorer.picture
    explorer.set(t=0.5)
    assert isinstance(explorer.error, ZeroDivisionError)
    (shown,) = explorer.widget.children[-1].outputs
    assert shown["output_type"] == "error"
    assert shown["ename"] == "ZeroDivisionError"
    assert "in inverse" in "\n".join(shown["traceback"])  # says where
    assert explorer.picture == good
    explorer.set(t=1.0)
    assert explorer.error is None
    assert explorer.widget.children[-1].outputs == ()


def test_no_figure_is_left_open_and_pyplot_figures_are_closed() -> None:
    def with_pyplot(t: float):
        figure, ax = plt.subplots()
        ax.plot([0, t])
        return figure

    before = plt.get_fignums()
    explorer = widgets.explore(with_pyplot, t=widgets.slider(0, 1))
    for step in range(1, 6):
        explorer.set(t=step / 10)
    assert plt.get_fignums() == before


@pytest.mark.parametrize(
    ("control", "kind", "start"),
    [
        (lambda: widgets.slider(0, 10, step=1), ipywidgets.IntSlider, 0),
        (lambda: widgets.slider(0, 1, step=0.05, value=0.5), ipywidgets.FloatSlider, 0.5),
        (lambda: widgets.choice({"one": 1, "many": 50}), ipywidgets.SelectionSlider, 1),
        (lambda: widgets.switch(True), ipywidgets.Checkbox, True),
    ],
)
def test_controls(control: Any, kind: type, start: Any) -> None:
    made = control()
    assert type(made) is kind
    assert made.value == start
    explorer = widgets.explore(lambda value: line(2.0), value=made)
    assert made.description == "value"
    assert explorer.values == {"value": start}


def test_fine_steps_can_be_read() -> None:
    assert widgets.slider(0, 1, step=0.05).readout_format == ".2f"
    assert widgets.slider(0, 0.01, step=0.001).readout_format == ".3f"


def test_quick_redraws_while_the_slider_moves() -> None:
    slow, quick = widgets.slider(0, 1), widgets.slider(0, 1)
    widgets.explore(line, slope=slow)
    widgets.explore(line, quick=True, slope=quick)
    assert not slow.continuous_update
    assert quick.continuous_update


def test_the_page_without_a_kernel_has_words() -> None:
    bundle, _ = widgets.explore(line, slope=widgets.slider(0, 1))._repr_mimebundle_()
    assert bundle["text/plain"] == "Picture for slope = 0.0"
    assert "application/vnd.jupyter.widget-view+json" in bundle


def displayed(thing: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a kernel sends to the page for the last expression of a cell: data and metadata by type."""
    return DisplayFormatter().format(thing)


def test_a_saved_notebook_has_the_picture_of_the_start_at_the_width_of_the_page() -> None:
    explorer = widgets.explore(line, slope=widgets.slider(0, 1, value=0.5))
    data, metadata = displayed(explorer)
    assert base64.b64decode(data["image/png"]) == style.png(line(0.5)) == explorer.picture
    assert metadata == {"image/png": {"width": 216}}  # 3 inches at 72 to the inch
    assert data[VIEW] == {"version_major": 2, "version_minor": 0, "model_id": explorer.widget.model_id}
    assert set(data) == {VIEW, "image/png", "text/plain"}


def test_what_the_build_stores_of_a_widget_is_what_a_learner_saves() -> None:
    explorer = widgets.explore(line, slope=widgets.slider(0, 1, value=0.5))
    data, metadata = displayed(explorer)
    saved = new_output("display_data", data=data, metadata=metadata)
    stored = new_output("display_data", data={kind: data[kind] for kind in (VIEW, "text/plain")})
    state = {"application/vnd.jupyter.widget-state+json": {"state": ipywidgets.Widget.get_manager_state()["state"]}}
    notebook = new_notebook(cells=[new_code_cell("", outputs=[stored])], metadata={"widgets": state})
    execution.still_pictures(notebook)
    (still,) = notebook.cells[0].outputs
    assert still.data == {kind: text for kind, text in saved.data.items() if kind != VIEW}
    assert still.metadata == saved.metadata


def test_a_web_page_of_a_saved_notebook_shows_the_picture() -> None:
    explorer = widgets.explore(line, slope=widgets.slider(0, 1, value=0.5))
    data, metadata = displayed(explorer)
    outputs = [new_output("display_data", data=data, metadata=metadata)]
    page, _ = HTMLExporter().from_notebook_node(new_notebook(cells=[new_code_cell("", outputs=outputs)]))
    assert data["image/png"] in page


def test_mistakes_of_authors_are_told() -> None:
    with pytest.raises(ValueError, match="at least one control"):
        widgets.explore(line)
    with pytest.raises(TypeError, match="slope must be a slider"):
        widgets.explore(line, slope=0.5)
    with pytest.raises(TypeError, match="must return a matplotlib Figure, got NoneType"):
        widgets.explore(lambda slope: None, slope=widgets.slider(0, 1))
    with pytest.raises(ValueError, match="outside"):
        widgets.slider(0, 1, value=2)
    with pytest.raises(ValueError, match="low < high"):
        widgets.slider(1, 0)
    with pytest.raises(ValueError, match="two or more"):
        widgets.choice([1])
    with pytest.raises(KeyError, match="unknown control 'speed'; there are: slope"):
        widgets.explore(line, slope=widgets.slider(0, 1)).set(speed=1)
