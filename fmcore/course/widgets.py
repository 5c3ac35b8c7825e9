"""Sliders that drive a pure plotting function.

    def plot(t, n):            # returns a matplotlib Figure
        ...
    widgets.explore(plot, t=widgets.slider(0, 1, step=0.05, value=0.5), n=widgets.choice([1, 2, 5, 10]))

The picture is an <img> that holds the PNG itself, so the same values always give the same page. The one of the start is
also an output of its own, which a saved notebook keeps: a page without a kernel shows it in place of the widget. An
error in the plotting function at the first draw fails the cell; a later one is shown under the picture, and is kept in
the notebook when it is saved.
"""

from __future__ import annotations

import base64
import traceback
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from fmcore.course import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDE = {"width": "min(100%, 34em)"}
_LABEL = {"description_width": "8em"}


def slider(low: float, high: float, step: float = 0.05, value: float | None = None, label: str = "") -> Any:
    """A slider over the numbers from `low` to `high`, whole ones if low, high, step and value are.

    It moves by hand or with the arrow keys, Home and End. `value` is where it starts, by default at `low`; `label` is
    written beside it, by default the name of the argument that it sets.
    """
    import ipywidgets

    if not low < high or step <= 0:
        raise ValueError(f"slider(low, high, step) needs low < high and step > 0, got {low}, {high}, {step}")
    value = low if value is None else value
    if not low <= value <= high:
        raise ValueError(f"the value {value} is outside [{low}, {high}]")
    options = {"description": label, "continuous_update": False, "layout": _WIDE, "style": _LABEL}
    if all(float(number).is_integer() for number in (low, high, step, value)):
        return ipywidgets.IntSlider(int(value), int(low), int(high), int(step), **options)
    decimals = max(2, len(f"{step:.10f}".rstrip("0").partition(".")[2]))
    return ipywidgets.FloatSlider(float(value), min=low, max=high, step=step, readout_format=f".{decimals}f", **options)


def choice(options: Sequence[Any] | Mapping[str, Any], value: Any = None, label: str = "") -> Any:
    """A slider over a list of values, or over a dictionary of label -> value."""
    import ipywidgets

    pairs = list(options.items()) if isinstance(options, Mapping) else [(str(option), option) for option in options]
    if len(pairs) < 2:
        raise ValueError("a choice needs two or more options")
    start = pairs[0][1] if value is None else value
    return ipywidgets.SelectionSlider(
        options=pairs, value=start, description=label, continuous_update=False, layout=_WIDE, style=_LABEL
    )


def switch(value: bool = False, label: str = "") -> Any:
    """A check box: True or False."""
    import ipywidgets

    return ipywidgets.Checkbox(value, description=label, style=_LABEL)


def explore(plot: Callable[..., Figure], /, *, quick: bool = False, **controls: Any) -> Explorer:
    """Show the controls and the picture that they redraw; make it the last expression of a cell.

    plot: takes the values of the controls by name and returns a Figure.
    quick: redraw while a slider moves, not only when it rests; for pictures that take well under 0.1 s.
    """
    return Explorer(plot, controls, quick)


class Explorer:
    """Controls and their picture. For tests and the curious: `values`, `set(...)`, `picture` and `error`."""

    def __init__(self, plot: Callable[..., Figure], controls: Mapping[str, Any], quick: bool = False) -> None:
        import ipywidgets

        if not controls:
            raise ValueError("explore needs at least one control, for example t=widgets.slider(0, 1)")
        for name, control in controls.items():
            if not isinstance(control, ipywidgets.ValueWidget):
                kind = type(control).__name__
                raise TypeError(f"{name} must be a slider, choice or switch from fmcore.course.widgets, got {kind}")
            control.description = control.description or name
            if quick and hasattr(control, "continuous_update"):
                control.continuous_update = True
        self.plot = plot
        self.controls = dict(controls)
        self.error: Exception | None = None
        self._image = ipywidgets.HTML()
        self._errors = ipywidgets.Output()
        self._draw()  # before anything reacts: an error here fails the cell that asked for the picture
        for control in self.controls.values():
            control.observe(self._changed, names="value")
        self.widget = ipywidgets.VBox([*self.controls.values(), self._image, self._errors])

    @property
    def values(self) -> dict[str, Any]:
        """The current values, as the plotting function receives them."""
        # Rounded, because a slider in the page counts 0.1 + 0.1 + 0.1 = 0.30000000000000004.
        values = {name: control.value for name, control in self.controls.items()}
        return {name: round(value, 10) if isinstance(value, float) else value for name, value in values.items()}

    @property
    def picture(self) -> bytes:
        """The PNG on show."""
        return base64.b64decode(self._image.value.partition("base64,")[2].partition('"')[0])

    def set(self, **values: Any) -> Explorer:
        """Move controls from code, as a hand would."""
        for name, value in values.items():
            if name not in self.controls:
                raise KeyError(f"unknown control {name!r}; there are: {', '.join(self.controls)}")
            self.controls[name].value = value
        return self

    def _draw(self) -> None:
        import matplotlib.pyplot as plt

        figure = self.plot(**self.values)
        if not hasattr(figure, "savefig"):
            name, kind = getattr(self.plot, "__name__", "the plotting function"), type(figure).__name__
            raise TypeError(f"{name} must return a matplotlib Figure, got {kind}")
        source = "data:image/png;base64," + base64.b64encode(style.png(figure)).decode("ascii")
        self._width = round(figure.get_size_inches()[0] * style.DPI / 2)
        plt.close(figure)  # pyplot keeps its figures; ones made by plotting.canvas go when nothing refers to them
        size = f"width:{self._width}px;max-width:100%"
        self._image.value = f'<img alt="{escape(repr(self))}" style="{size}" src="{source}">'

    def _changed(self, change: Any) -> None:
        try:
            self._draw()
            self.error, self._errors.outputs = None, ()
        except Exception as error:
            # Written as an error output, which notebooks show as one and keep; the picture stays as it was.
            lines = "".join(traceback.format_exception(type(error), error, error.__traceback__)).splitlines()
            said = {"output_type": "error", "ename": type(error).__name__, "evalue": str(error), "traceback": lines}
            self.error, self._errors.outputs = error, (said,)

    def __repr__(self) -> str:
        return "Picture for " + ", ".join(f"{name} = {value}" for name, value in self.values.items())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget, and for where it cannot live its picture and words; with the width of the picture."""
        picture = base64.b64encode(self.picture).decode("ascii")
        shown = {**self.widget._repr_mimebundle_(), "image/png": picture, "text/plain": repr(self)}
        return shown, {"image/png": {"width": self._width}}
