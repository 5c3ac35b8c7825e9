"""The exercises of chapter 00: the answers pass, and each mistake that a check knows is named by it."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest
import torch

from fmcore.course import build

SOLUTIONS = Path(__file__).parents[2] / "chapters" / "solutions" / "00_start_here.py"


def run(replace: dict[str, Any] | None = None, student: bool = False) -> list[str]:
    """Run the sheet cell by cell, putting other functions in place of answers; returns the lines that checks print."""
    names: dict[str, Any] = {}
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        for cell in build.read(SOLUTIONS, student).cells:
            if cell.cell_type != "code":
                continue
            exec(cell.source, names)
            for name, attempt in (replace or {}).items():
                if f"def {name}(" in cell.source:
                    names[name] = attempt
    return [line for line in said.getvalue().splitlines() if line[:1] in "✓✗"]


def test_the_answers_are_right() -> None:
    lines = run()
    assert len(lines) == 6
    assert all(line.startswith("✓") for line in lines), lines


def test_an_empty_sheet_runs_and_says_so() -> None:
    lines = run(student=True)
    assert len(lines) == 6
    assert all("not written yet" in line for line in lines), lines


def broken_euler(velocity, x0, n):
    x = x0
    for k in range(n):
        x = x + velocity(x, torch.tensor(k / n)) / n
        if k == n - 2:
            break
    return x


def softmax_over_batch(x, t, points):
    squares = (x[:, None] - t * points).square().sum(2)
    return (torch.softmax(-squares / (2 * (1 - t) ** 2), dim=0) @ points - x) / (1 - t)


@pytest.mark.parametrize(
    ("name", "attempt", "words"),
    [
        ("interpolate", lambda x0, x1, t: (1 - t) * x0 + t * x1, "t not broadcast over the batch"),
        ("interpolate", lambda x0, x1, t: t[:, None] * x0 + (1 - t)[:, None] * x1, "time runs the other way"),
        ("conditional_velocity", lambda x, x1, t: (x - x1) / (1 - t)[:, None], "sign flipped"),
        ("conditional_velocity", lambda x, x1, t: x1 - x, "not divided by the time left"),
        (
            "flow_matching_loss",
            lambda model, path, x0, x1, t: (
                (model(path.interpolate(x0, x1, t), t) - path.target(x0, x1, t)).square().sum()
            ),
            "sum instead of mean",
        ),
        ("euler", lambda v, x0, n: x0 + v(x0, torch.tensor(0.0)), "not the right values"),
        ("euler", broken_euler, "one step too few"),
        ("exact_velocity", softmax_over_batch, "softmax along the wrong axis"),
    ],
)
def test_mistakes_are_named(name: str, attempt: Any, words: str) -> None:
    lines = run({name: attempt})
    (line,) = [line for line in lines if line.startswith(f"✗ {name}:")]
    assert words in line
