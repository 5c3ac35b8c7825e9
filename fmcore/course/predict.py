"""Ask for a prediction before an experiment, with feedback the moment an answer is chosen.

The feedback is part of the page and needs no kernel: it also works before anything is run. The text of the question
mixes the options, so that the place of an option says nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from html import escape
from typing import Any

from fmcore.console import signs
from fmcore.course import display
from fmcore.course.style import BAD, GOOD, PATH

_LEAD = f'<b style="color:{PATH}">Predict.</b>'


def ask(question: str, options: Sequence[str], answer: int, because: str) -> None:
    """Show a question with options; choosing one says whether it is right. A wrong one can be tried again.

    answer: index of the right option in `options`, counted from 0. They are shown in another order.
    because: the explanation, shown with the right option, folded with a wrong one, never before a choice.
    """
    asked = Question(question, tuple(options), answer, because)
    if display.in_notebook():
        from IPython.display import display as show

        show(asked)
    else:
        signs.say(asked)


class Question:
    """A question that shows itself: radio buttons in a notebook, question and options in text.

    Attributes:
        options: as they are shown, mixed by the text of the question: the same on every machine.
        answer: index of the right one in `options`.
    """

    def __init__(self, question: str, options: tuple[str, ...], answer: int, because: str) -> None:
        if len(options) < 2 or len(set(options)) != len(options):
            raise ValueError(f"a prediction needs two or more different options, got {list(options)}")
        if not 0 <= answer < len(options):
            raise ValueError(f"answer is an index from 0 to {len(options) - 1}, got {answer}")
        self.question, self.because = question, because
        self.options = tuple(sorted(options, key=lambda option: hashlib.sha256((question + option).encode()).digest()))
        self.answer = self.options.index(options[answer])
        self.widget: Any = None

    def verdict(self, choice: int) -> str:
        """The feedback to one choice, as HTML: the explanation stays folded where another try is due."""
        right = choice == self.answer
        color, word = (GOOD, "Yes.") if right else (BAD, "Not this one.")
        said = (
            escape(self.because)
            if right
            else f"Try again, or <details><summary>read why</summary>{escape(self.because)}</details>"
        )
        return (
            f'<div class="feedback-{choice}" style="display:none;border-left:4px solid {color};padding:.2em .8em">'
            f'<b style="color:{color}">{word}</b> {said}</div>'
        )

    def form(self) -> str:
        """The question as a form in HTML: the browser shows the feedback of the option that is chosen.

        A fieldset with its legend names the group for screen readers, and the feedback is read out. On an option
        JupyterLab's own keys are off, so that arrows go to the next option and not to the next cell. method="dialog":
        Enter sends nothing anywhere.
        """
        rules = "".join(
            f".prediction:has(.option-{i}:checked) .feedback-{i}{{display:block!important}}"
            for i in range(len(self.options))
        )
        radios = "".join(
            f'<label style="display:block;padding:.15em 0"><input type="radio" name="option" class="option-{i}" '
            f'data-lm-suppress-shortcuts="true"> {escape(option)}</label>'
            for i, option in enumerate(self.options)
        )
        return (
            f'<style>{rules}</style><form class="prediction" method="dialog" '
            f'style="line-height:1.5;white-space:normal"><fieldset style="border:0;margin:0;padding:0">'
            f'<legend style="padding:0;margin-bottom:.3em">{_LEAD} {escape(self.question)}</legend>{radios}</fieldset>'
            f'<div role="status">{"".join(self.verdict(i) for i in range(len(self.options)))}</div></form>'
        )

    def build(self) -> Any:
        """The ipywidgets form of the question (made once)."""
        import ipywidgets

        if self.widget is None:
            self.widget = ipywidgets.HTML(self.form(), layout={"margin": "0.5em 0"})
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
