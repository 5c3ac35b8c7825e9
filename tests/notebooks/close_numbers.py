"""A pytest plugin for `pytest --nbval`: words as they are stored, numbers close to the stored ones.

    pytest -p tests.notebooks.close_numbers --nbval build/notebooks

nbval runs each cell and compares what it shows with what is stored. Stored outputs come from another processor, whose
sums round differently, and training amplifies that. So in the fresh outputs each number that is close to the stored one
in its place is replaced by it, and nbval compares the rest, letter by letter. In the card nothing is replaced, and in
cells tagged `nbval-check-output` (claims) what the table marks with "≈" as a number of one machine: whether it is what
was expected, says the tick. Pictures are counted, not compared.

How close is close was measured: two kinds of processors, one and two threads, 4522 numbers in 12 chapters. Of these
196 differed, no word did. The largest differences were 0.23 of the number itself (of "a ± b", of a + b: the scatter of
two or three runs is uncertain), 0.0021 where the number is a difference of nearly equal ones, and 1e-7 where it is a
rounding error. The bounds are above that, since other processors will come.

What each notebook showed is left in build/executed, for a second run on the same machine to be compared with it.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbval.plugin import IPyNbCell

from fmcore.course import build
from fmcore.course.execution import VIEW, is_card
from tests.notebooks import checks

EXECUTED = Path("build", "executed")
OF_ONE_MACHINE = re.compile(r"≈ [^<\n]*")  # in the table of claims
# Not the digits of a name (x0, float64, #1A7F37); with the spaces around, which pad the columns of tables.
NUMBER = re.compile(r"( *(?<![\w.#])[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[-+]?\d+)?(?![\w#]) *)")
RELATIVE = 1 / 3  # of the larger of the two
SMALL = 0.0025  # of numbers printed without an exponent; one with an exponent is there for its size
ROUNDING = 1e-6


def with_close_numbers(fresh: str, stored: str) -> str:
    """The fresh text with the stored numbers (and the stored padding around them) where they are close."""
    new, old = NUMBER.split(fresh), NUMBER.split(stored)
    if len(new) != len(old):
        return fresh
    a, b = ([float(text.replace(",", "").replace("−", "-")) for text in texts[1::2]] for texts in (new, old))
    sizes = [max(abs(x), abs(y)) for x, y in zip(a, b, strict=True)]
    for k in range(len(a)):
        before, printed, after = old[2 * k : 2 * k + 3]
        size = sizes[k] + (sizes[k - 1] if before == "±" else sizes[k + 1] if after == "±" else 0)
        if sizes[k] <= ROUNDING or abs(a[k] - b[k]) <= max(RELATIVE * size, smallest(printed, after)):
            new[2 * k + 1] = printed
    return "".join(new)


def without_numbers_of_one_machine(outputs: Any) -> Any:
    """The same outputs, with nothing after the sign that marks such numbers in a table of claims."""
    alike = nbformat.from_dict(json.loads(json.dumps(outputs)))
    for _, holder, key in places(alike):
        holder[key] = OF_ONE_MACHINE.sub("≈", holder[key])
    return alike


def smallest(printed: str, after: str = "") -> float:
    """The difference that says nothing: one in the last digit (0.01 of "3.14", 1 of "3%"), and no less than SMALL."""
    mantissa, _, exponent = printed.strip().partition("e")
    decimals = len(mantissa.partition(".")[2])
    if not decimals and not exponent and not after.startswith("%"):
        return 0.0  # a whole number, which may be a count
    one = 1.01 * 10.0 ** (int(exponent or 0) - decimals)
    return one if exponent else max(SMALL, one)


def places(outputs: Any) -> Iterator[tuple[str, Any, str]]:
    """Each text of the outputs: what kind it is, and the dictionary and key that hold it."""
    for output in outputs:
        if output.output_type == "stream":
            yield output.name, output, "text"
        for kind in output.get("data", {}):
            if kind.startswith("text/"):
                yield kind, output.data, kind


def pictures(outputs: Any) -> int:
    """How many outputs are pictures, or widgets: what is stored of one is its picture, or its HTML."""
    shown = [output.get("data", {}) for output in outputs]
    return sum("image/png" in data or (VIEW in data and "text/html" not in data) for data in shown)


class Cell(IPyNbCell):
    """A cell whose fresh numbers may be close to the stored ones."""

    fixturenames = ()  # which hooks for tests ask for

    def compare_outputs(self, test: Any, ref: Any, skip_compare: Any = None) -> bool:
        alike = nbformat.from_dict(json.loads(json.dumps(test)))
        if self.config.option.nbval_exactly or is_card(self.cell):
            pass
        elif checks.CLAIMS in checks.tags(self.cell):
            alike, ref = without_numbers_of_one_machine(test), without_numbers_of_one_machine(ref)
        else:
            stored = defaultdict(list)
            for kind, holder, key in places(ref):
                stored[kind].append(holder[key])
            for kind, holder, key in places(alike):
                if stored[kind]:
                    holder[key] = with_close_numbers(holder[key], stored[kind].pop(0))
        same = super().compare_outputs(alike, ref, skip_compare)
        if pictures(test) != pictures(ref):
            self.comparison_traceback.append(f"{pictures(test)} pictures; {pictures(ref)} stored")
            return False
        return same


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nbval-exactly", action="store_true", help="numbers must be the stored ones: a second run")


def pytest_itemcollected(item: pytest.Item) -> None:
    if type(item) is IPyNbCell:
        item.__class__ = Cell


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with what takes longest, so that the workers end together: the exercise sheets, then the long chapters."""
    times = json.loads((build.ROOT / build.TIMES).read_text(encoding="utf-8"))

    def place(item: pytest.Item) -> tuple[int, float]:
        if type(item) is Cell:
            return 1, -times.get(item.path.stem, {"seconds": 0})["seconds"]
        return (0 if item.path.stem == "test_execution" else 2), 0

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[None]:
    """Start kernels without the backend that is set for the tests: a kernel draws into its notebook."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MPLBACKEND", raising=False)
        return (yield)


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Keep what a cell showed; after the last of a notebook, write it."""
    if type(item) is Cell and not item.config.option.nbval_exactly:
        item.cell.outputs = item.test_outputs or []
        if nextitem is None or nextitem.parent is not item.parent:
            folder = item.config.invocation_params.dir / EXECUTED
            folder.mkdir(parents=True, exist_ok=True)
            nbformat.write(item.parent.nb, folder / item.path.name)
