"""Predictions before an experiment."""

from __future__ import annotations

import pytest

from fmcore.course import predict

QUESTION = predict.Question("Which is larger, a or b?", ("a < b", "b < a"), 1, "Because b is <small>.")


def test_text_shows_question_and_options_but_not_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    predict.ask(QUESTION.question, QUESTION.options, answer=1, because=QUESTION.because)
    said = capsys.readouterr().out
    assert said.splitlines() == ["Predict. Which is larger, a or b?", "  ( ) a < b", "  ( ) b < a"]


def test_html_keeps_the_answer_folded() -> None:
    html = QUESTION._repr_mimebundle_()["text/html"]
    shown, _, folded = html.partition("<details>")
    assert "Which is larger" in shown
    assert "a &lt; b" in shown
    assert "Because" not in shown
    assert "<b>b &lt; a.</b> Because b is &lt;small&gt;." in folded


def test_output_is_the_same_in_two_runs() -> None:
    view = "application/vnd.jupyter.widget-view+json"
    bundles = [
        dict(predict.Question(QUESTION.question, QUESTION.options, 1, "x")._repr_mimebundle_()) for _ in range(2)
    ]
    assert all(bundle.pop(view) for bundle in bundles)
    assert bundles[0] == bundles[1]


def test_choice_is_linked_to_its_own_feedback_and_nothing_shows_before() -> None:
    _, radio, feedback = QUESTION.build().children
    assert radio.value is None
    assert feedback.selected_index is None
    assert "Not this one." in feedback.children[0].value
    assert "Yes." in feedback.children[1].value
    assert QUESTION.link.source == (radio, "index")
    assert QUESTION.link.target == (feedback, "selected_index")


def test_mistakes_of_authors_are_told() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        predict.Question("?", ("a", "b"), 2, "")
    with pytest.raises(ValueError, match="different options"):
        predict.Question("?", ("a", "a"), 0, "")
