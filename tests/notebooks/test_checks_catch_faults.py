"""The checks of notebooks can fail: each gets a small notebook with one fault planted in it."""

from __future__ import annotations

import json
import shutil

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from fmcore.course import build, execution
from tests.notebooks import checks, notation

SOURCE = """\
# %% [markdown] slideshow={"slide_type": "slide"}
# # A chapter

# %%
print("hello")
if False:
    card.show("00_small", goals=["see"])
"""
SOLUTION = """\
# %% tags=["exercise"]
def double(x):
    ### BEGIN SOLUTION
    y = 2 * x
    return y
    ### END SOLUTION
"""


def written(output: dict, source: str = "1", tags=()) -> object:
    """A notebook of one cell with one output."""
    cell = new_code_cell(source, execution_count=1, outputs=[output], metadata={"tags": list(tags)})
    return new_notebook(cells=[cell])


def said(text: str) -> dict:
    return new_output("stream", name="stdout", text=text)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A course of one chapter and one exercise sheet, built."""
    root = tmp_path_factory.mktemp("course")
    for folder, text in (("source", SOURCE), ("solutions", SOLUTION)):
        (root / "chapters" / folder).mkdir(parents=True)
        (root / "chapters" / folder / "00_small.py").write_text(text)
    assert build.main(["--root", str(root)]) == 0
    assert build.out_of_step(root) == []
    return root


@pytest.fixture
def course(built, tmp_path):
    """A copy of it, for one test."""
    return shutil.copytree(built, tmp_path / "course")


class TestPairs:
    @pytest.mark.parametrize(
        ("before", "after"),
        [("hello", "goodbye"), ("# A chapter", "# The chapter"), ('"slide"', '"skip"'), ('print("hello")', "pass")],
    )
    def test_a_changed_source_is_found(self, course, before, after):
        source = course / "chapters" / "source" / "00_small.py"
        source.write_text(SOURCE.replace(before, after, 1))
        [message] = build.out_of_step(course)
        assert "00_small.ipynb against" in message
        assert build.main(["--root", str(course), "--check"]) == 1

    @pytest.mark.parametrize(("before", "after"), [("hello", "hi"), ('"id": "', '"id": "0')])
    def test_a_changed_notebook_is_found(self, course, before, after):
        notebook = course / "chapters" / "00_small.ipynb"
        notebook.write_text(notebook.read_text().replace(before, after))
        assert len(build.out_of_step(course)) == 1

    def test_a_missing_notebook_and_a_notebook_without_source_are_found(self, course):
        (course / "chapters" / "00_small.ipynb").rename(course / "chapters" / "01_orphan.ipynb")
        missing, orphan = build.out_of_step(course)
        assert "00_small.ipynb does not exist" in missing
        assert orphan == "chapters/01_orphan.ipynb has no source"

    def test_an_edited_or_executed_exercise_sheet_is_found(self, course):
        sheet = course / "chapters" / "exercises" / "00_small.ipynb"
        notebook = nbformat.read(sheet, as_version=4)
        notebook.cells[0].outputs = [said("done")]
        nbformat.write(notebook, sheet)
        assert "without outputs" in build.out_of_step(course)[0]
        (course / "chapters" / "solutions" / "00_small.py").write_text(SOLUTION.replace("double", "twice"))
        assert "twice" in build.out_of_step(course)[0]

    def test_the_table_in_the_readme_follows_the_chapters(self, course):
        readme = course / "README.md"
        readme.write_text("before\n<!-- chapters: written -->\nold\n<!-- end of chapters -->\nafter\n")
        assert "README.md" in build.out_of_step(course)[0]
        assert build.main(["--root", str(course)]) == 0
        assert build.out_of_step(course) == []
        before, *rows, after = readme.read_text().splitlines()
        assert (before, after) == ("before", "after")
        assert any(row.startswith("| [A chapter](chapters/00_small.ipynb) | see |") for row in rows)

    def test_text_is_written_without_running_anything_and_changed_code_is_not(self, course, capsys):
        source, notebook = (course / "chapters" / name for name in ("source/00_small.py", "00_small.ipynb"))
        cells = nbformat.read(notebook, as_version=4).cells
        source.write_text(SOURCE.replace("# A chapter", "# The chapter"))
        assert build.main(["--root", str(course), "--text"]) == 0
        assert build.out_of_step(course) == []
        head, *others = nbformat.read(notebook, as_version=4).cells
        assert head.source == "# The chapter"
        assert others == cells[1:]
        source.write_text(SOURCE.replace("hello", "goodbye"))
        assert build.main(["--root", str(course), "--text"]) == 1
        assert "its code has changed, so it must be run" in capsys.readouterr().err
        assert nbformat.read(notebook, as_version=4).cells[1:] == cells[1:]

    def test_map_and_way_to_the_next_are_written_into_sources(self, course):
        source = course / "chapters" / "source" / "00_small.py"
        places = "# <!-- map: here -->\n# old\n# <!-- end of map -->\n# <!-- next: here -->\n# <!-- end of next -->\n"
        source.write_text(f"{SOURCE}\n# %% [markdown]\n{places}")
        assert any("00_small.py: what it says of the chapters" in message for message in build.out_of_step(course))
        build.write_contents(course)
        text = source.read_text()
        assert "# old" not in text
        assert "# | Chapter | What it answers |\n" in text
        assert "# This is the last chapter. The map of all of them is in [A chapter](00_small.ipynb).\n" in text
        build.write_contents(course)
        assert source.read_text() == text

    def test_building_twice_writes_the_same_bytes(self, course):
        files = sorted(course.rglob("*.ipynb"))
        before = [file.read_bytes() for file in files]
        assert build.main(["--root", str(course)]) == 0
        assert [file.read_bytes() for file in files] == before

    def test_a_chapter_that_fails_is_reported_and_not_written(self, course, capsys):
        before = (course / "chapters" / "00_small.ipynb").read_bytes()
        (course / "chapters" / "source" / "00_small.py").write_text("# %%\n1 / 0\n")
        assert build.main(["--root", str(course)]) == 1
        assert "ZeroDivisionError" in capsys.readouterr().err
        assert (course / "chapters" / "00_small.ipynb").read_bytes() == before

    @pytest.mark.parametrize("content", ["{", "", '{"cells": 1}', "\x00"])
    def test_a_broken_notebook_is_named(self, course, capsys, content):
        notebook = course / "chapters" / "00_small.ipynb"
        notebook.write_text(content)
        assert "00_small.ipynb is broken" in "".join(build.out_of_step(course))
        assert build.main(["--root", str(course), "--text"]) == 1
        assert "00_small.ipynb is broken" in capsys.readouterr().err

    def test_an_unknown_chapter_lists_the_known_ones(self, course, capsys):
        with pytest.raises(SystemExit):
            build.main(["--root", str(course), "07_missing"])
        assert "there are 00_small" in capsys.readouterr().err


class TestSolutions:
    def test_a_region_becomes_a_stub_that_runs(self):
        code = SOLUTION.split("\n", 1)[1].strip()
        assert build.without_solution(code) == "def double(x):\n    ...  # your code here"

    @pytest.mark.parametrize(
        "code",
        [
            "### BEGIN SOLUTION\nx = 1",
            "x = 1\n### END SOLUTION",
            "### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION",
            "for i in range(3):\n### BEGIN SOLUTION\n    x = i\n### END SOLUTION",
        ],
    )
    def test_markers_that_do_not_pair_or_leave_no_python_are_refused(self, code):
        with pytest.raises(build.BuildError):
            build.without_solution(code)

    @pytest.mark.parametrize(
        "mark", ["## BEGIN SOLUTION", "### begin solution", "###BEGIN SOLUTION", "# Begin_Solution:"]
    )
    def test_a_marker_written_in_another_way_leaves_no_answer_in_the_sheet(self, course, capsys, mark):
        source = course / "chapters" / "solutions" / "00_small.py"
        source.write_text(SOLUTION.replace("### BEGIN SOLUTION", mark).replace("    ### END SOLUTION\n", ""))
        before = (course / "chapters" / "exercises" / "00_small.ipynb").read_bytes()
        assert build.main(["--root", str(course), "00_small"]) == 1
        assert f"{mark!r} is no marker" in capsys.readouterr().err
        assert (course / "chapters" / "exercises" / "00_small.ipynb").read_bytes() == before
        assert "is no marker" in "".join(build.out_of_step(course))


class TestTimes:
    def test_a_time_is_kept_until_it_is_off_by_a_quarter(self, tmp_path):
        file = tmp_path / "times.json"
        assert execution.record_time("01_a", 20.2, file)
        assert not execution.record_time("01_a", 24.0, file)
        assert json.loads(file.read_text()) == {"01_a": {"cores": 2, "seconds": 20}}
        assert execution.record_time("01_a", 30.0, file)
        assert execution.record_time("00_b", 4.26, file)
        assert json.loads(file.read_text()) == {
            "00_b": {"cores": 2, "seconds": 4.3},
            "01_a": {"cores": 2, "seconds": 30},
        }


class TestStoredOutputs:
    @pytest.mark.parametrize(
        "output",
        [
            new_output("error", ename="ValueError", evalue="no", traceback=[]),
            new_output("stream", name="stderr", text="progress"),
            said("saved in /home/someone/x.png"),
            said("reading /tmp/x"),
            said(r"C:\Users\someone"),
            said("x.py:3: UserWarning: careful"),
            new_output("display_data", data={"text/html": "<b>DeprecationWarning: old</b>"}),
        ],
        ids=lambda output: output.get("text") or output.output_type,
    )
    def test_a_fault_is_found(self, output):
        assert checks.stored_outputs(written(output))

    def test_a_path_in_the_code_is_found(self):
        assert checks.stored_outputs(written(said("ok"), source='open("/home/someone/data.csv")'))

    @pytest.mark.parametrize(
        "text", ["loss 0.5 / home 3", "https://example.org/home/page", "1/tmp/2", "no warnings here"]
    )
    def test_harmless_text_passes(self, text):
        assert checks.stored_outputs(written(said(text))) == []

    def test_cells_run_out_of_order_or_not_at_all_are_found(self):
        for counts in ([2, 1], [1, None], [2, 3]):
            cells = [new_code_cell("1", execution_count=count) for count in counts]
            assert checks.executed_in_order(new_notebook(cells=cells))

    def test_a_long_cell_is_found(self):
        assert checks.short_cells(written(said(""), source="\n".join(["x = 1"] * 26)))
        assert not checks.short_cells(written(said(""), source="\n".join(["x = 1"] * 25)))


class TestParts:
    def test_a_missing_or_late_or_empty_card_is_found(self):
        def card(*outputs):
            return new_code_cell('card.show("00_small", goals=["x"])', outputs=list(outputs))

        prose = [new_markdown_cell("prose") for _ in range(4)]
        shown = card(said("the card"))
        assert checks.card_first(new_notebook(cells=[shown])) == []
        for cells in (prose, [*prose, shown], [shown, card(said("again"))], [card()]):
            assert checks.card_first(new_notebook(cells=cells))

    def test_missing_or_misspelt_slides_are_found(self):
        def notebook(*types):
            return new_notebook(
                cells=[new_markdown_cell("x", metadata={"slideshow": {"slide_type": t}}) for t in types]
            )

        assert checks.slides(notebook("slide", "-", "slide")) == []
        for types in (("-", "slide", "slide"), ("slide", "-"), ("slide", "slide", "slied")):
            assert checks.slides(notebook(*types))

    def test_a_missing_widget_or_picture_is_found(self):
        picture = new_output("execute_result", data={"image/png": "aGk="}, execution_count=1)
        assert checks.widget(written(picture, "widgets.explore(plot)")) == []
        assert checks.widget(written(picture, "plot()"))
        assert checks.widget(written(said("Picture for t = 1"), "widgets.explore(plot)"))

    def test_claims_that_nothing_compares_are_found(self):
        assert checks.claims(written(said("a claim"), "claims.table(rows)", [checks.CLAIMS])) == []
        assert checks.claims(written(said("a claim"), "claims.table(rows)"))
        assert checks.claims(written(said(""), "claims.table(rows)", [checks.CLAIMS]))
        assert checks.claims(written(said("no table"), "1"))
        for tag in ("nbval-skip", "raises-exception", "nbval-ignore-output"):
            assert checks.claims(written(said("a claim"), "claims.table(rows)", [checks.CLAIMS, tag]))
        assert checks.claims(written(said("a claim"), "# NBVAL_SKIP\nclaims.table(rows)", [checks.CLAIMS]))


class TestNotation:
    TABLE = "| Symbol | Name in code | Meaning |\n|---|---|---|\n| a | `{}` | something |\n\n| x | `not_read` |"

    @pytest.mark.parametrize(
        "name",
        [
            "t",
            "x1",
            "path.sigma",
            "path.velocity(x, t)",
            "model(x, t)",
            "EmpiricalVelocity",
            "fmcore.losses",
            "fmcore.losses.conditional_flow_matching",
            "fmcore.solvers.Solution.nfe",
            "losses.conditional_flow_matching",
        ],
    )
    def test_a_name_of_fmcore_resolves(self, name):
        assert notation.names(self.TABLE.format(name)) == [name]
        assert notation.resolves(name)

    @pytest.mark.parametrize(
        "name",
        [
            "x_zero",
            "path.velocities",
            "model(x, tt)",
            "modle(x, t)",
            "EmpiricalVelocty",
            "fmcore.loss.x",
            "fmcore.losses.flow_matching",
            "fmcore.solvers.Solution.evaluations",
            "a + b",
        ],
    )
    def test_a_misspelt_name_does_not(self, name):
        assert notation.names(self.TABLE.format(name)) == [name]
        assert not notation.resolves(name)
