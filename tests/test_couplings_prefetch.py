"""Pairs made in a background thread: the same pairs, in order, and nothing left behind."""

from __future__ import annotations

import gc
import threading
import time

import pytest
import torch

from fmcore.couplings import MinibatchOT, prefetch_pairs
from tests.analytic import seeded


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert_no_thread_is_left()


def assert_no_thread_is_left():
    if threads():  # going through all that a test process holds takes half a second
        gc.collect()
    assert not threads()


def draw(step):
    g = seeded(step)
    return MinibatchOT("sinkhorn", 1.0)(*torch.randn(2, 16, 2, generator=g), generator=g)


@pytest.mark.parametrize("ahead", [1, 2, 5])
@pytest.mark.parametrize("steps", [0, 1, 4, 9])
def test_pairs_equal_those_made_in_place(ahead, steps):
    found = list(prefetch_pairs(draw, range(steps), ahead))
    assert len(found) == steps
    for step, pair in enumerate(found):
        for ours, expected in zip(pair, draw(step), strict=True):
            assert torch.equal(ours, expected)


def test_a_later_start_goes_on_with_the_same_pairs():
    """A resumed run: step k does not depend on the steps before it."""
    resumed = list(prefetch_pairs(draw, range(3, 6)))
    assert all(
        torch.equal(a, b)
        for pair, step in zip(resumed, range(3, 6), strict=True)
        for a, b in zip(pair, draw(step), strict=True)
    )


def test_it_works_while_the_caller_does_and_no_further_ahead_than_asked():
    started, release = [], threading.Event()

    def wait(item):
        started.append(item)
        assert release.wait(20)
        return item

    pairs = prefetch_pairs(wait, range(10), ahead=2)
    release.set()
    assert next(pairs) == 0
    release.clear()
    for _ in range(2000):
        if started == [0, 1]:
            break
        time.sleep(0.01)
    assert started == [0, 1]  # item 1 is at work, though nobody asked for it yet; item 2 waits for the one thread
    release.set()
    assert next(pairs) == 1
    pairs.close()
    assert set(started) <= {0, 1, 2, 3}


def test_one_other_thread_draws_everything():
    drawn_by = list(prefetch_pairs(lambda item: threading.current_thread(), range(12), ahead=3))
    assert len(drawn_by) == 12
    assert len(set(drawn_by)) == 1
    assert drawn_by[0] is not threading.current_thread()


def test_errors_come_at_their_turn_and_end_the_thread():
    def fail_at_two(item):
        if item == 2:
            raise ArithmeticError("batch 2")
        return item

    pairs = prefetch_pairs(fail_at_two, range(5), ahead=3)
    assert [next(pairs), next(pairs)] == [0, 1]
    with pytest.raises(ArithmeticError, match="batch 2"):
        next(pairs)
    assert not threads()


def test_errors_of_the_items_are_raised_too():
    def items():
        yield 1
        raise OSError("the data are gone")

    with pytest.raises(OSError, match="the data are gone"):
        list(prefetch_pairs(lambda item: item, items()))


def test_leaving_the_loop_ends_the_thread():
    for item in prefetch_pairs(lambda item: item, iter(int, 1), ahead=3):  # an endless run of zeros
        assert item == 0
        assert threads()
        break
    assert_no_thread_is_left()


def test_an_error_of_the_caller_ends_the_thread():
    def training():
        for _ in prefetch_pairs(draw, range(100)):
            raise FloatingPointError("diverged")

    with pytest.raises(FloatingPointError):
        training()


def test_nothing_runs_before_the_first_pair_is_asked_for():
    made = []
    prefetch_pairs(made.append, range(3))
    assert not made
    assert not threads()


@pytest.mark.parametrize(
    ("ahead", "words"),
    [
        (0, "ahead is 0: it must be at least 1"),
        (1.5, r"ahead=1\.5: a number of batches is a whole number"),
        (True, "=True"),
    ],
)
def test_ahead_is_a_whole_number_of_at_least_1(ahead, words):
    with pytest.raises(ValueError, match=words):
        prefetch_pairs(draw, range(3), ahead=ahead)
