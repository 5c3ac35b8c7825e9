"""Predictions before an experiment."""

from __future__ import annotations

import pytest

from fmcore.course import predict

QUESTION = predict.Question("Which is larger, a or b?", ("a < b", "b < a"), 1, "Because b is <small>.")


def test_text_shows_question_and_options_but_not_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    predict.ask(QUESTION.question, QUESTION.options, answer=1, because=QUESTION.because)
    said = capsys.readouterr().out
    assert said.splitlines()[0] == "Predict. Which is larger, a or b?"
    assert sorted(said.splitlines()[1:]) == ["  ( ) a < b", "  ( ) b < a"]


def test_options_are_mixed_by_the_question_and_the_right_one_stays_right() -> None:
    options, places = ("one", "two", "three"), []
    for number in range(60):
        question = predict.Question(f"Which of {number}?", options, 1, "Because.")
        again = predict.Question(f"Which of {number}?", options, 1, "Because.")
        assert question.options == again.options
        assert sorted(question.options) == sorted(options)
        assert question.options[question.answer] == "two"
        places.append(question.answer)
    assert all(places.count(place) > 10 for place in range(3)), places


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


def test_each_choice_has_its_own_feedback_and_a_wrong_one_keeps_the_explanation_folded() -> None:
    right, wrong = QUESTION.answer, 1 - QUESTION.answer
    assert "Yes.</b> Because" in QUESTION.verdict(right)
    assert "details" not in QUESTION.verdict(right)
    before, folded = QUESTION.verdict(wrong).split("<details>")
    assert "Not this one." in before
    assert "Because" not in before
    assert "Because b is &lt;small&gt;." in folded
    form = QUESTION.build().value
    for place in (0, 1):
        assert f".prediction:has(.option-{place}:checked) .feedback-{place}{{display:block!important}}" in form
        assert f'<div class="feedback-{place}" style="display:none' in form
        assert f'class="option-{place}" data-lm-suppress-shortcuts="true">' in form  # arrows stay with the options


def test_mistakes_of_authors_are_told() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        predict.Question("?", ("a", "b"), 2, "")
    with pytest.raises(ValueError, match="different options"):
        predict.Question("?", ("a", "a"), 0, "")
