"""The checks of notebooks can fail: each gets a small notebook with one fault planted in it."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from fmcore.course import build, execution
from tests.notebooks import checks, notation
from tests.notebooks.exercise_sheets import judged

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


@pytest.fixture
def course(tmp_path):
    """A course of one chapter and one exercise sheet, built."""
    for folder, text in (("source", SOURCE), ("solutions", SOLUTION)):
        (tmp_path / "chapters" / folder).mkdir(parents=True)
        (tmp_path / "chapters" / folder / "00_small.py").write_text(text)
    assert build.main(["--root", str(tmp_path)]) == 0
    assert build.out_of_step(tmp_path) == []
    return tmp_path


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

    def test_an_error_inside_a_widget_is_found(self):
        cells = [
            "import ipywidgets\noutput = ipywidgets.Output()\nslider = ipywidgets.IntSlider()\n"
            "slider.observe(output.capture()(lambda change: 1 / 0), names='value')\noutput",
            "slider.value = 3",
        ]
        notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells], metadata=execution.METADATA)
        execution.execute(notebook, build.ROOT / "tests")
        [problem] = checks.widget_errors(notebook)
        assert "ZeroDivisionError" in problem

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


class TestExercises06:
    SHEET = "06_images"

    def test_answers_are_right_and_an_empty_sheet_says_so(self):
        lines = judged(self.SHEET)
        assert [line[:1] for line in lines] == ["✓"] * 6, lines
        assert all("not written yet" in line for line in judged(self.SHEET, student=True))

    @pytest.mark.parametrize(
        ("attempt", "words"),
        [
            (lambda k, u, levels: 2 * k / levels - 1, "no noise"),
            (lambda k, u, levels: 2 * (k + 0.5) / levels - 1, "the middle of each bin"),
            (lambda k, u, levels: (k + u) / (levels - 1) * 2 - 1, "bins are too wide"),
            (lambda k, u, levels: 2 * k / levels - 1 + u, "added after the scaling"),
            (lambda k, u, levels: (k + u) / levels, "fill [0, 1]"),
            (lambda k, u, levels: (k + u) / 127.5 - 1, "not the right values"),
        ],
    )
    def test_dequantization(self, attempt, words):
        self.names("place_in_bin", attempt, words)

    @pytest.mark.parametrize(
        ("attempt", "words"),
        [
            (lambda p, d, L: -p / (d * math.log(2)) - math.log2(L / 2), "sign of the constant"),
            (lambda p, d, L: -p / math.log(2) + math.log2(L / 2), "forgot d"),
            (lambda p, d, L: -p / d + math.log2(L / 2), "still in nats"),
            (lambda p, d, L: -p / d + math.log(L / 2), "nats/dim"),
            (lambda p, d, L: -p / (d * math.log(2)), "constant is missing"),
            (lambda p, d, L: -p / (d * math.log(2)) + math.log2(L), "bins on [0, 1]"),
            (lambda p, d, L: p / (d * math.log(2)) + math.log2(L / 2), "minus sign of the log-density"),
            (
                lambda p, d, L: (-p / (d * math.log(2)) + math.log2(L / 2)).mean(),
                "averaged (or summed) over everything",
            ),
        ],
    )
    def test_bits(self, attempt, words):
        self.names("bits_per_dim", attempt, words)

    @pytest.mark.parametrize(
        ("attempt", "words"),
        [
            (lambda p: p.mean(0), "mean of the logarithms"),
            (lambda p: p.exp().mean(0).log(), "overflows"),
            (lambda p: p.logsumexp(0), "forgot log K"),
            (lambda p: p.logsumexp(0) / len(p), "outside the logarithm"),
            (lambda p: p.max(0).values, "largest of the draws"),
            (lambda p: p.logsumexp(1) - math.log(p.shape[1]), "over the images"),
        ],
    )
    def test_log_mean(self, attempt, words):
        self.names("log_mean", attempt, words)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda m, A, B, root: (A + B - 2 * root(root(A) @ B @ root(A))).trace(), "means are missing"),
            (lambda m, A, B, root: m @ m + (A + B - 2 * A @ B).trace(), "outer square root"),
            (lambda m, A, B, root: m.norm() + (A + B - 2 * root(root(A) @ B @ root(A))).trace(), "is not squared"),
            (lambda m, A, B, root: m @ m + (A + B - 2 * root(A) @ root(B)).trace(), "same axes"),
            (lambda m, A, B, root: m @ m + (A + B - root(root(A) @ B @ root(A))).trace(), "factor 2"),
            (lambda m, A, B, root: (m @ m + (A + B - 2 * root(root(A) @ B @ root(A))).trace()).sqrt(), "square root"),
            (lambda m, A, B, root: m @ m, "covariances are missing"),
        ],
    )
    def test_frechet_distance(self, change, words):
        def root(matrix):
            values, vectors = torch.linalg.eigh(matrix)
            return vectors * values.clamp(min=0).sqrt() @ vectors.T

        def attempt(a, b):
            return change(a.mean(0) - b.mean(0), torch.cov(a.T), torch.cov(b.T), root)

        self.names("frechet", attempt, words)

    @pytest.mark.parametrize(
        ("attempt", "words"),
        [
            (lambda e, a, s, da, ds, x: da / a * (x + s * e) - ds * e, "sign of the noise"),
            (lambda e, a, s, da, ds, x: da / a * (x + s * s * e) - s * ds * e, "taken for a score"),
            (lambda e, a, s, da, ds, x: da / a * (x - s * e), "term with sigma' is missing"),
            (lambda e, a, s, da, ds, x: da * (x - s * e) + ds * e, "without being divided by alpha"),
            (lambda e, a, s, da, ds, x: e, "noise itself"),
            (lambda e, a, s, da, ds, x: (x - s * e) / a - e, "straight path only"),
        ],
    )
    def test_velocity_of_noise(self, attempt, words):
        def velocity(model, path, x, t):
            c = t[:, None]
            return attempt(model(x, t), path.alpha(c), path.sigma(c), path.d_alpha(c), path.d_sigma(c), x)

        self.names("velocity", velocity, words)

    def names(self, name, attempt, words):
        """The check of `name` says these words of an attempt, and the other checks are content."""
        lines = judged(self.SHEET, {name: attempt})
        (wrong,) = [line for line in lines if line.startswith("✗")]
        assert wrong.startswith(f"✗ {name}:"), lines
        assert words in wrong, wrong


def test_nbval_finds_a_changed_claim_and_a_second_run_that_differs(tmp_path):
    """The command of `make notebooks` on three notebooks: one right, one with a changed claim, one without a seed."""
    right = written(said("error below 0.1\n"), 'print("error below 0.1")', [checks.CLAIMS])
    changed = written(said("error below 0.2\n"), 'print("error below 0.1")', [checks.CLAIMS])
    random = written(said("0.123\n"), "import random\nprint(random.random())")
    for name, notebook in (("right", right), ("changed", changed), ("random", random)):
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "-q", "."]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert "2 failed, 1 passed" in result.stdout, result.stdout + result.stderr
    assert "right.ipynb F" not in result.stdout
