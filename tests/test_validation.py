"""Each check lets good input through unchanged and names what is wrong with bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fmcore.validation import (
    check_count,
    check_finite,
    check_floating,
    check_generator,
    check_pair,
    check_time,
    expand_time,
    level_of_caller,
    unknown_name,
)
from tests.analytic import modest

dtypes = st.sampled_from([torch.float32, torch.float64])


@modest
@given(batch=st.integers(1, 6), shape=st.lists(st.integers(1, 3), max_size=3), dtype=dtypes, time_dtype=dtypes)
def test_check_time_takes_the_dtype_of_x_and_keeps_the_values(batch, shape, dtype, time_dtype):
    x = torch.zeros(batch, *shape, dtype=dtype)
    for t in (torch.tensor(0.25, dtype=time_dtype), torch.linspace(0, 1, batch, dtype=time_dtype)):
        checked = check_time(t, x)
        torch.testing.assert_close(checked, t.to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("number", [0, 1, 0.25])
def test_check_time_takes_plain_numbers(number):
    checked = check_time(number, torch.zeros(3, 2))
    assert checked.dtype == torch.float32
    assert checked.shape == ()
    assert checked.item() == number


@pytest.mark.parametrize("shape", [(3, 1), (1, 3), (1,), (2,), (3, 3), (3, 2)])
def test_check_time_refuses_shapes_that_would_broadcast_silently(shape):
    with pytest.raises(ValueError, match=r"t has shape .* x has shape \(3, 2\).*shape \(3,\)"):
        check_time(torch.zeros(shape), torch.zeros(3, 2))


@modest
@given(batch=st.integers(1, 5), shape=st.lists(st.integers(1, 4), max_size=3))
def test_expand_time_scales_each_sample_by_its_own_time(batch, shape):
    t = torch.arange(1.0, batch + 1)
    product = expand_time(t, torch.ones(batch, *shape)) * torch.ones(batch, *shape)
    assert product.shape == (batch, *shape)
    for i in range(batch):
        assert (product[i] == i + 1).all()
    assert expand_time(torch.tensor(2.0), torch.ones(batch, *shape)).ndim == 0


def test_check_pair_accepts_equal_shapes_of_either_float_type():
    check_pair(torch.zeros(2, 3), torch.zeros(2, 3))
    check_pair(torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64))


@pytest.mark.parametrize(("first", "second"), [((4, 2), (3, 2)), ((4, 2), (4, 1)), ((4, 2), (4,)), ((1, 2), (4, 2))])
def test_check_pair_refuses_other_shapes(first, second):
    with pytest.raises(ValueError, match=r"x0 has shape .* x1 has shape"):
        check_pair(torch.zeros(first), torch.zeros(second))


@pytest.mark.parametrize("which", ["x0", "x1"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_check_pair_refuses_integers_and_says_which(which, dtype):
    pair = {"x0": torch.zeros(2, 2), "x1": torch.zeros(2, 2)}
    pair[which] = pair[which].to(dtype)
    with pytest.raises(TypeError, match=rf"{which} holds torch\.{str(dtype)[6:]}: scale it"):
        check_pair(**pair)


def test_check_pair_refuses_two_devices():
    with pytest.raises(ValueError, match="x0 is on cpu and x1 on meta"):
        check_pair(torch.zeros(2, 2), torch.zeros(2, 2, device="meta"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_check_finite_counts_bad_samples_and_names_the_first(bad):
    x = torch.zeros(5, 2, 2)
    check_finite("x", x)
    x[2, 0, 1] = x[2, 1, 1] = x[4, 0, 0] = bad
    with pytest.raises(ValueError, match=r"images has NaN or infinite values in 2 of 5 samples .*first is number 2\)"):
        check_finite("images", x)


def test_check_finite_of_a_vector_and_of_a_number():
    check_finite("x", torch.tensor(1.0))
    with pytest.raises(ValueError, match="in 1 of 3 samples .*number 1"):
        check_finite("x", torch.tensor([0.0, float("nan"), 1.0]))
    with pytest.raises(ValueError, match="in 1 of 1 samples"):
        check_finite("x", torch.tensor(float("nan")))


def test_check_generator_accepts_what_pytorch_draws_from():
    for device in (None, "cpu", torch.device("cpu")):
        check_generator(None, device)
        check_generator(torch.Generator(), device)
    check_generator(None, "meta")  # the global one is everywhere


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (7, r"generator is 7 \(int\): .*manual_seed\(7\)"),
        (True, r"generator is True \(bool\): .*manual_seed\(0\)"),
        (np.random.default_rng(0), r"generator is Generator\(PCG64\).* \(numpy\.random\S*Generator\): pass a torch"),
        (torch.zeros(2), r"torch\.Tensor\): pass a torch\.Generator"),
    ],
    ids=["seed", "bool", "numpy", "tensor"],
)
def test_check_generator_names_what_is_no_generator(wrong, words):
    with pytest.raises(TypeError, match=words):
        check_generator(wrong, "cpu")


def test_check_generator_refuses_another_device():
    with pytest.raises(ValueError, match=r"generator is on cpu and draws numbers for meta: .*Generator\('meta'\)"):
        check_generator(torch.Generator(), torch.zeros(2, device="meta").device)


@pytest.mark.parametrize("one", [1, np.int64(1), np.uint8(1), torch.tensor(1)], ids=["int", "int64", "uint8", "tensor"])
def test_check_count_takes_whole_numbers_of_any_library(one):
    check_count("n", one)
    check_count("n", one - 1, "samples", least=0)
    with pytest.raises(ValueError, match="^n is 1: it must be at least 2.$"):
        check_count("n", one, "samples", least=2)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (10.0, r"k=10\.0: a number of draws is a whole number, write k=10\."),
        (np.float32(10), r"k=.*10\.0.*: a number of draws is a whole number, write k=10\."),
        (1e30, "write k=1000000000000000019884624838656"),
        (10.5, r"k=10\.5: a number of draws is a whole number, for example k=50\."),
        (0.0, "for example k=50"),  # not "write k=0", which is refused too
        (float("nan"), "k=nan: .*for example k=50"),
        (float("inf"), "k=inf: .*for example k=50"),
        (True, "k=True: a number of draws is a whole number, for example k=50"),
        (np.bool_(True), "k=.*True.*: .*for example k=50"),
        (torch.tensor(True), r"k=tensor\(True\): .*for example k=50"),
        ("10", "k='10': .*for example k=50"),
        (None, "k=None: .*for example k=50"),
        ([3], r"k=\[3\]: .*for example k=50"),
        (torch.ones(2), "k=tensor.*for example k=50"),
    ],
    ids=repr,
)
def test_check_count_says_what_to_write(wrong, words):
    with pytest.raises(ValueError, match=words):
        check_count("k", wrong, "draws")


def test_check_count_says_the_name_where_no_kind_is_given():
    with pytest.raises(ValueError, match=r"^steps=2\.0: a number of steps is a whole number, write steps=2\.$"):
        check_count("steps", 2.0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.complex64])
def test_check_floating_names_the_way_to_scale(dtype):
    check_floating("x", torch.zeros(1, dtype=torch.bfloat16))
    with pytest.raises(TypeError, match=rf"^points holds torch\.{str(dtype)[6:]}: scale it to floating point first"):
        check_floating("points", torch.zeros(2, dtype=dtype))
    with pytest.raises(TypeError, match=r"pass scale=\.\.\., or scale it to floating point first"):
        check_floating("points", torch.zeros(2, dtype=dtype), scale=True)


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_the_level_of_a_caller_skips_this_package_however_deep(depth):
    """Functions of a module called fmcore.made, which call each other before one warns."""
    module = {"__name__": "fmcore.made", "level_of_caller": level_of_caller}
    code = """
import warnings

def warn(depth):
    if depth:
        return warn(depth - 1)
    warnings.warn("look here", stacklevel=level_of_caller())
"""
    exec(compile(code, "made.py", "exec"), module)
    with pytest.warns(UserWarning, match="look here") as caught:
        module["warn"](depth)
    assert caught[0].filename == __file__


def test_unknown_name_lists_the_known_ones_in_order():
    error = unknown_name("path", "diagonal", ["ot", "cosine"])
    assert isinstance(error, ValueError)
    assert str(error) == "unknown path 'diagonal': choose one of cosine, ot."
