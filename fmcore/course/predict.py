"""Ask for a prediction before an experiment, with feedback the moment an answer is chosen.

The feedback is linked in the page, not through the kernel: it also works on a static page, and before anything is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from fmcore.console import signs
from fmcore.course import display
from fmcore.course.style import BAD, GOOD, PATH

_LEAD = f'<b style="color:{PATH}">Predict.</b>'


def ask(question: str, options: Sequence[str], answer: int, because: str) -> None:
    """Show a question with options; choosing one says whether it is right, and why.

    answer: index of the right option, counted from 0.
    because: the explanation, shown with either verdict, only after a choice.
    """
    asked = Question(question, tuple(options), answer, because)
    if display.in_notebook():
        from IPython.display import display as show

        show(asked)
    else:
        signs.say(asked)


class Question:
    """A question that shows itself: radio buttons in a notebook, question and options in text."""

    def __init__(self, question: str, options: tuple[str, ...], answer: int, because: str) -> None:
        if len(options) < 2 or len(set(options)) != len(options):
            raise ValueError(f"a prediction needs two or more different options, got {list(options)}")
        if not 0 <= answer < len(options):
            raise ValueError(f"answer is an index from 0 to {len(options) - 1}, got {answer}")
        self.question, self.options, self.answer, self.because = question, options, answer, because
        self.widget: Any = None
        self.link: Any = None

    def verdict(self, choice: int) -> str:
        """The feedback to one choice, as HTML."""
        right = choice == self.answer
        color, word = (GOOD, "Yes.") if right else (BAD, "Not this one.")
        return (
            f'<div style="border-left:4px solid {color};padding:.2em .8em;line-height:1.5;white-space:normal">'
            f'<b style="color:{color}">{word}</b> {escape(self.because)}</div>'
        )

    def build(self) -> Any:
        """The ipywidgets form of the question (made once)."""
        import ipywidgets

        if self.widget is None:
            wide = {"width": "auto"}
            head = ipywidgets.HTML(
                f'<div style="line-height:1.5;white-space:normal">{_LEAD} {escape(self.question)}</div>'
            )
            radio = ipywidgets.RadioButtons(options=self.options, value=None, layout=wide)
            answers = [ipywidgets.HTML(self.verdict(i)) for i in range(len(self.options))]
            feedback = ipywidgets.Stack(answers, selected_index=None, layout=wide)
            self.link = ipywidgets.jslink((radio, "index"), (feedback, "selected_index"))
            self.widget = ipywidgets.VBox([head, radio, feedback], layout={"margin": "0.5em 0"})
        return self.widget

    def __str__(self) -> str:
        return "\n".join([f"Predict. {self.question}", *(f"  ( ) {option}" for option in self.options)])

    __repr__ = __str__

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        items = "".join(f"<li>{escape(option)}</li>" for option in self.options)
        html = (
            f'<div style="line-height:1.5">{_LEAD} {escape(self.question)}'
            f'<ul style="list-style:circle">{items}</ul><details><summary>Answer</summary>'
            f"<b>{escape(self.options[self.answer])}.</b> {escape(self.because)}</details></div>"
        )
        bundle = dict(self.build()._repr_mimebundle_())
        return {**bundle, "text/plain": str(self), "text/html": html}
