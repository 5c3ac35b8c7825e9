"""The predictions of all chapters: where the right option stands says nothing."""

from __future__ import annotations

import ast
from collections import Counter

from fmcore.course import build, predict


def questions() -> list[predict.Question]:
    """Every predict.ask(...) of the chapters."""
    found = []
    for pair in build.pairs():
        for node in ast.walk(ast.parse(pair.source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "predict.ask":
                named = {word.arg: ast.literal_eval(word.value) for word in node.keywords}
                question, options = (ast.literal_eval(argument) for argument in node.args)
                found.append(predict.Question(question, tuple(options), **named))
    return found


def test_no_place_of_the_right_option_is_more_frequent_than_the_others():
    asked = questions()
    assert len(asked) >= 70
    places = Counter(question.answer for question in asked)
    assert max(places.values()) <= 0.45 * len(asked), places
    last = sum(question.answer == len(question.options) - 1 for question in asked)
    assert last <= 0.45 * len(asked)


def test_no_question_refers_to_the_place_of_an_option():
    for question in questions():
        for text in (question.because, *question.options):
            for words in ("first option", "last option", "both of the above", "none of the above", "the first answer"):
                assert words not in text.lower(), text
