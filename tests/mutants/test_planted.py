"""Every fault can be planted: its text is there once, and the tests that should fail are there too."""

from collections import Counter

import pytest

from tests.mutants.__main__ import ROOT
from tests.mutants.planted import PLANTED


@pytest.mark.parametrize("mutant", PLANTED, ids=lambda mutant: mutant.name)
def test_it_can_be_planted(mutant):
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1
    changed = text.replace(mutant.old, mutant.new)
    assert changed != text
    compile(changed, mutant.file, "exec")
    assert all((ROOT / test).exists() for test in mutant.tests)


def test_no_two_have_one_name():
    assert not [name for name, count in Counter(mutant.name for mutant in PLANTED).items() if count > 1]
