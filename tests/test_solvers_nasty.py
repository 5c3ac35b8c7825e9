"""Velocities that no solver can follow, and tolerances that no step meets: each ends, in a number or in a sentence."""

import itertools
import math

import pytest
import torch

from fmcore.likelihood import log_likelihood
from fmcore.solvers import FIXED_STEP, SolveError, solve
from fmcore.sources import Gaussian

X = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
ROWS = torch.arange(8)[:, None]
NASTY = {
    "NaN at once": lambda x, t: x * math.nan,
    "infinity at once": lambda x, t: x * math.inf,
    "NaN late": lambda x, t: x + (math.nan if 0.3 < t < 0.7 else 0),
    "infinity late": lambda x, t: x * (math.inf if 0.3 < t < 0.7 else 1),
    "NaN in one sample": lambda x, t: x + torch.where(ROWS == 3, math.nan, 0.0),
    "grows without bound": lambda x, t: 100 * x**3,
    "leaves float32": lambda x, t: 0 * x + 3e38,
    "jumps in t": lambda x, t: 0 * x + (1e8 if t > 0.3 else -1e8),
    "jumps in x": lambda x, t: -1e8 * torch.sign(x),
    "stiff": lambda x, t: -1e9 * x,
    "singular at the end": lambda x, t: x / (1 - t),
    "random": lambda x, t: torch.randn(x.shape, generator=torch.Generator().manual_seed(int(1e6 * t))),
}
NEVER = ["NaN at once", "infinity at once", "NaN late", "infinity late", "NaN in one sample"]
SENTENCES = (
    r"^(the solution stopped being finite: the velocity returns NaN or grows without bound\. Check the network"
    r"|[\d,]+ evaluations have led from t = .* Take larger rtol and atol)"
)


@pytest.mark.parametrize("method", ["dopri5", *FIXED_STEP])
@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)], ids=["forward", "backward"])
def test_a_nasty_velocity_ends_in_finite_numbers_or_in_a_sentence(name, method, ends):
    steps = None if method == "dopri5" else 10
    try:
        end = solve(NASTY[name], X, *ends, method=method, steps=steps, max_nfe=200).x
    except SolveError as error:
        with pytest.raises(SolveError, match=SENTENCES):
            raise error
    else:
        assert torch.isfinite(end).all()
        assert name not in NEVER


@pytest.mark.parametrize(("rtol", "atol"), [*itertools.product((1e-300, 5e-324, 1e-40), repeat=2)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_tolerances_without_a_step_are_named(rtol, atol, dtype):
    with pytest.raises(SolveError) as error:
        solve(lambda x, t: torch.sin(3 * x), X.to(dtype), rtol=rtol, atol=atol, max_nfe=200)
    said = str(error.value)
    assert (
        said.startswith(f"rtol={rtol:g} and atol={atol:g} ask for more digits") or "Take larger rtol and atol" in said
    )


def test_a_velocity_without_numbers_is_not_blamed_on_the_tolerances():
    with pytest.raises(SolveError, match="the velocity returns NaN"):
        solve(NASTY["NaN at once"], X, rtol=1e-300, atol=1e-300)


@pytest.mark.parametrize(("rtol", "words"), [(1e-300, "rtol=1e-300 and atol=1e-300 ask for more digits than float32")])
def test_a_likelihood_says_the_same(rtol, words):
    with pytest.raises(SolveError, match=words):
        log_likelihood(lambda x, t: torch.sin(x), X, Gaussian((2,)), rtol=rtol, atol=rtol)


def test_one_tolerance_alone_may_be_tiny():
    """The other one decides: the same end as with a usual pair, up to a small multiple of it."""
    usual = solve(lambda x, t: torch.sin(3 * x), X.double(), rtol=1e-9, atol=1e-9).x
    for rtol, atol in ((1e-300, 1e-5), (1e-5, 1e-300)):
        end = solve(lambda x, t: torch.sin(3 * x), X.double(), rtol=rtol, atol=atol).x
        assert float((end - usual).abs().max()) < 1e-3


def test_it_is_caught_as_the_errors_that_it_is():
    for kind in (RuntimeError, FloatingPointError):
        with pytest.raises(kind, match="stopped being finite"):
            solve(NASTY["NaN at once"], X, method="euler", steps=2)
