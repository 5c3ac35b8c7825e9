"""Run the exercise sheets in this process, with answers of one's own, to see what their checks say.

A sheet is run once with its own answers. An attempt at one exercise then starts from the names as they were before that
exercise, and runs its cells and those of later exercises that use what the attempt changes. What the checks of the
others said, they would say again.
"""

from __future__ import annotations

import ast
import contextlib
import io
import symtable
from dataclasses import dataclass, field
from functools import cache
from types import CodeType
from typing import Any

import torch
from nbformat.v4 import new_output

from fmcore.course import build, style
from tests.notebooks import checks


@dataclass
class Section:
    """The cells from one that is to be filled in up to the next of that kind. What stands before is a section, too."""

    cells: list[tuple[str, CodeType]] = field(default_factory=list)
    before: dict[str, Any] = field(default_factory=dict)  # the names when it starts
    random: dict[str, torch.Tensor] = field(default_factory=dict)  # and where the random numbers are
    lines: list[str] = field(default_factory=list)  # what its checks say of the sheet's own answer

    def loads(self, names: set[str]) -> bool:
        """Whether its cells use one of these names."""
        return any(names & loaded for source, _ in self.cells for loaded, _ in _statements(source))


@dataclass
class Sheet:
    """An exercise sheet that has been run with its own answers."""

    sections: list[Section]
    names: dict[str, Any] = field(default_factory=dict)  # one dictionary, because all functions look into it

    def run(self, section: Section, attempts: dict[str, Any]) -> list[str]:
        """Run a section, with attempts in place of the functions of their names. Returns what its checks say."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            for source, code in section.cells:
                exec(code, self.names)
                self.names.update({name: made for name, made in attempts.items() if f"def {name}(" in source})
        return [line for line in printed.getvalue().splitlines() if line[:1] in "✓✗"]

    def remember(self, section: Section) -> None:
        """Keep the state in which a section starts."""
        section.before = dict(self.names)
        section.random = {name: g.get_state() for name, g in self.names.items() if isinstance(g, torch.Generator)}
        section.random[""] = torch.get_rng_state()

    def restore(self, section: Section) -> None:
        """Bring that state back."""
        self.names.clear()
        self.names.update(section.before)
        for name, state in section.random.items():
            if name:
                self.names[name].set_state(state)
            else:
                torch.set_rng_state(state)

    def judge(self, attempts: dict[str, Any]) -> list[str]:
        """What all checks say, with attempts in place of answers."""
        changed = self.depends_on(set(attempts))
        new: dict[str, Any] = {}
        lines: list[str] = []
        reached = False
        for section in self.sections:
            written = any(f"def {name}(" in source for name in attempts for source, _ in section.cells)
            reached = reached or written
            if written or (reached and section.loads(changed)):
                self.restore(section)
                self.names.update(new)
                lines += self.run(section, attempts)
                new = {name: self.names[name] for name in changed if name in self.names}
            else:
                lines += section.lines
        assert reached, f"no cell of the sheet defines {sorted(attempts)}"
        return lines

    def depends_on(self, names: set[str]) -> set[str]:
        """These names, and those that get their value with the help of them."""
        found = set(names)
        statements = [s for section in self.sections for source, _ in section.cells for s in _statements(source)]
        while more := {name for loaded, stored in statements if loaded & found for name in stored} - found:
            found |= more
        return found


@cache
def _statements(source: str) -> list[tuple[set[str], set[str]]]:
    """For each statement of a cell: the names of the sheet that it uses, and those that it sets."""
    found = []
    for statement in ast.parse(source).body:
        tables = [symtable.symtable(ast.unparse(statement), "cell", "exec")]
        top = tables[0]
        stored = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned()}
        loaded = set()
        while tables:
            table = tables.pop()
            tables += table.get_children()
            loaded |= {
                s.get_name() for s in table.get_symbols() if s.is_referenced() and (table is top or s.is_global())
            }
        found.append((loaded, stored))
    return found


def run_with_answers(notebook: Any) -> Sheet:
    """Run a sheet with its own answers."""
    made = Sheet([Section()])
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if "exercise" in checks.tags(cell):
                made.sections.append(Section())
            made.sections[-1].cells.append((cell.source, compile(cell.source, "exercise", "exec")))
    for section in made.sections:
        made.remember(section)
        section.lines = made.run(section, {})
    return made


@cache
def answered(sheet: str) -> Sheet:
    """The sheet of this name, run with its own answers."""
    return run_with_answers(build.read(build.ROOT / "chapters" / "solutions" / f"{sheet}.py"))


def judged(sheet: str, replace: dict[str, Any] | None = None) -> list[str]:
    """The lines that the checks of a sheet print, with other functions in place of answers."""
    made = answered(sheet)
    return made.judge(replace) if replace else [line for section in made.sections for line in section.lines]


def names(sheet: str, name: str, attempt: object, words: str, said: str | None = None) -> None:
    """The check of `name` says these words of an attempt, and the other checks of the sheet are content."""
    lines = judged(sheet, {name: attempt})
    (wrong,) = [line for line in lines if line.startswith("✗")]
    assert wrong.startswith(f"✗ {said or name}:"), lines
    assert words in wrong, wrong


def answers_are_right(sheet: str, checks: int) -> None:
    """All checks of the sheet accept its own answers."""
    lines = judged(sheet)
    assert [line[:1] for line in lines] == ["✓"] * checks, lines


def execute_here(notebook: Any) -> None:
    """Run a notebook without a kernel. Its cells get as outputs what they print, and what their last line shows."""
    names: dict[str, Any] = {}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        body = ast.parse(cell.source).body
        last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
        printed = {"stdout": io.StringIO(), "stderr": io.StringIO()}
        with contextlib.redirect_stdout(printed["stdout"]), contextlib.redirect_stderr(printed["stderr"]):
            exec(compile(ast.Module(body, []), "cell", "exec"), names)
            shown = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None
            if hasattr(shown, "savefig"):
                style.png(shown)
            elif shown is not None:
                repr(shown)
        cell.outputs = [
            new_output("stream", name=name, text=said.getvalue()) for name, said in printed.items() if said.tell()
        ]
