"""What chapters and sheets say: numbers that the page shows, sources that are named, formulas for every renderer."""

from __future__ import annotations

import re
from collections import Counter

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from fmcore.course import build
from tests.notebooks import prose_numbers

PAIRS = build.pairs()
CHAPTERS = [pair for pair in PAIRS if not pair.student]
# Numbers that neither a page nor a paper's table has, each with the reason why a reader need not find it there.
TAKEN_ON_TRUST: dict[tuple[str, str], str] = {}
ODD_WORDS = re.compile(r"\b(noises|homemade|dear|dearer|dearest)\b", re.IGNORECASE)
FORMULA = re.compile(r"\$\$(.*?)\$\$", re.DOTALL)
TASK = re.compile(
    r"^## \d+\. [^\n]+\n\n\*(Transcription|Derivation|Diagnosis|Proof|Investigation) · \d+ minutes · [★☆]{3}\*$",
    re.MULTILINE,
)


def stored(pair):
    return nbformat.read(pair.notebook, as_version=4)


def words(notebook) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


@pytest.mark.parametrize("pair", CHAPTERS, ids=lambda pair: pair.name)
def test_every_number_in_prose_stands_on_its_page_or_in_a_paper_s_table(pair):
    found = prose_numbers.unbacked(stored(pair), prose_numbers.references())
    unknown = [number for number in found if (pair.name, number.said) not in TAKEN_ON_TRUST]
    assert not unknown, "\n".join(f"cell {n.cell}: {n.said!r} in … {n.around} …" for n in unknown)


def test_few_numbers_are_taken_on_trust_and_all_of_them_are_needed():
    assert len(TAKEN_ON_TRUST) <= 5
    known = prose_numbers.references()
    found = {(pair.name, n.said) for pair in CHAPTERS for n in prose_numbers.unbacked(stored(pair), known)}
    assert set(TAKEN_ON_TRUST) <= found, "these stand on their pages by now"


@pytest.mark.parametrize(
    ("said", "trusted"),
    [
        ("The error is 0.52.", []),
        ("The error is 0.5.", []),  # rounded
        ("The error is 0.53.", ["0.53"]),
        ("That is 37% of the pairs.", []),
        ("The others are 63%.", []),
        ("That is 36% of them.", ["36%"]),
        ("It takes 1,797 images.", []),
        ("It takes 1,798 images.", ["1,798"]),
        ("About one in three, or four in ten, cross.", []),
        ("Three in ten cross.", ["Three in ten"]),
        ("Two fifths cross, two thirds do not.", []),
        ("Three quarters cross.", ["Three quarters"]),
        ("In chapter 13, table 44 of 2023, $x = 99.5$, `99.5`, 8x8 pixels, CIFAR-10: three of four rows.", []),
    ],
)
def test_a_number_that_nothing_shows_is_found(said, trusted):
    cell = new_code_cell(
        "n = 1_797", outputs=[new_output("stream", text="error 0.5216, crossings 0.373, 1,797 images\n")]
    )
    notebook = new_notebook(cells=[new_markdown_cell("# Title"), cell, new_markdown_cell(said)])
    assert [number.said for number in prose_numbers.unbacked(notebook, set())] == trusted


def test_a_fraction_in_words_must_stand_near_by():
    shown = new_code_cell("", outputs=[new_output("stream", text="0.3\n")])
    far = [new_markdown_cell("## One"), shown, new_markdown_cell("## Two"), new_markdown_cell("## Three")]
    for text, trusted in (("Three in ten cross.", ["Three in ten"]), ("That is 0.3.", [])):
        notebook = new_notebook(cells=[*far, new_markdown_cell(text)])
        assert [number.said for number in prose_numbers.unbacked(notebook, set())] == trusted


@pytest.mark.parametrize("pair", CHAPTERS, ids=lambda pair: pair.name)
def test_a_comparison_stands_where_something_is_shown(pair):
    assert prose_numbers.comparisons(stored(pair)) == []


def test_a_comparison_beside_nothing_is_found():
    shown = new_code_cell("", outputs=[new_output("stream", text="0.3\n")])
    says, sums_up = (
        new_markdown_cell(f"{head}\n\nOne is larger\nthan the other.") for head in ("## One", "## To remember")
    )
    assert len(prose_numbers.comparisons(new_notebook(cells=[says, new_markdown_cell("## Two"), shown]))) == 1
    assert prose_numbers.comparisons(new_notebook(cells=[says, shown, sums_up])) == []


@pytest.mark.parametrize("pair", CHAPTERS, ids=lambda pair: pair.name)
def test_a_chapter_names_its_sources_and_where_to_read_on(pair):
    (cell,) = [text for text in words(stored(pair)) if "## References" in text]
    assert len(re.findall(r"\b(?:19|20)\d\d\b", cell)) >= 2
    assert "read on" in cell.lower()


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair.name}{'_sheet' * pair.student}")
def test_formulas_and_words_are_such_that_every_renderer_and_reader_takes_them(pair):
    texts = words(stored(pair))
    formulas = [formula for text in texts for formula in FORMULA.findall(text)]
    quoted = [line for formula in formulas for line in formula.splitlines() if re.match(r"\s*[>+-]", line)]
    assert not quoted, f"a line of a formula that starts with >, + or - is a quotation or a list elsewhere: {quoted}"
    odd = [word for text in texts for word in ODD_WORDS.findall(text)]
    assert not odd, odd


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair.student], ids=lambda pair: pair.name)
def test_a_sheet_has_tasks_of_several_kinds_with_hints_and_short_checks(pair):
    notebook = stored(pair)
    text = "\n".join(words(notebook))
    headings = re.findall(r"^## \d+\. .*$", text, re.MULTILINE)
    kinds = Counter(TASK.findall(text))
    assert kinds.total() == len(headings) >= 4, f"{len(headings)} tasks, of which {kinds.total()} say kind and minutes"
    assert kinds["Transcription"] <= 1, kinds
    assert kinds["Derivation"] + kinds["Diagnosis"] >= 2, kinds
    assert kinds["Proof"] == kinds["Investigation"] == 1, kinds
    assert text.count("<summary>Hint</summary>") >= len(headings)
    long = [
        c.source for c in notebook.cells if "check" in c.metadata.get("tags", []) and len(c.source.splitlines()) > 2
    ]
    assert not long, f"a reference stands in view: {long}"
