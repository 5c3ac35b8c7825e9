"""Every exercise sheet with its answers in a kernel of its own, as learners run it; part of `make test-all`.

`make test` runs the same cells in one process (test_execution.py), where nothing has to start twelve times.
"""

from __future__ import annotations

import pytest

from fmcore.course import build, execution
from tests.notebooks.test_execution import SHEETS, assert_right


@pytest.mark.parametrize("pair", SHEETS, ids=lambda pair: pair.name)
def test_solutions_pass_every_check_in_a_kernel(pair, tmp_path):
    notebook = build.read(pair.source)
    execution.execute(notebook, tmp_path)
    assert_right(notebook)
