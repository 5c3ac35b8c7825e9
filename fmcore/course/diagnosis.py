"""What may have gone wrong in an exercise, in words: the usual mistakes, and what a wrong result looks like.

The usual mistakes are functions with the arguments of the reference; the check that calls them names the first one that
gives what the learner's function gave.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Any]
_SWAPPED = (("x0", "x1"), ("alpha", "sigma"), ("mean", "std"))
_KNOWN_FACTORS = {
    "1/2": 0.5,
    "1/4": 0.25,
    "pi": math.pi,
    "2 pi": 2 * math.pi,
    "ln 2": math.log(2),
    "1/ln 2": 1 / math.log(2),
}


@dataclass(frozen=True)
class Closeness:
    """Equal shapes, and values equal within the tolerances of `torch.allclose`."""

    rtol: float
    atol: float

    def __call__(self, a: Any, b: Any) -> bool:
        """Whether a and b (tensors or numbers) are equal within the tolerances; NaN equals nothing."""
        a, b = _tensor(a), _tensor(b)
        return a.shape == b.shape and torch.allclose(a, b, rtol=self.rtol, atol=self.atol)


def usual_mistakes(
    reference: Function, names: Sequence[str], cases: Sequence[Sequence[Any]]
) -> Iterator[tuple[str, Function]]:
    """Pairs (name, function), the most specific mistakes first."""
    yield "your result is minus the right one: sign flipped", lambda *a: -reference(*a)
    if "t" in names:
        i = list(names).index("t")
        yield (
            "time runs the other way: 1 - t stands where t belongs (t = 0 is the source, t = 1 the data)",
            lambda *a: reference(*a[:i], 1 - a[i], *a[i + 1 :]),
        )
    for first, second in _SWAPPED:
        if first in names and second in names:
            j, k = list(names).index(first), list(names).index(second)
            yield f"{first} and {second} swapped", lambda *a, j=j, k=k: reference(*_swap(a, j, k))
    if "t" in names:
        yield (
            "t not broadcast over the batch: it runs along the last axis; give it the shape (B, 1) before it meets x",
            lambda *a: _t_along_last_axis(reference, a, i),
        )
        yield (
            "t not broadcast over the batch: one time is used for all rows; each row has its own t",
            lambda *a: reference(*a[:i], a[i][:1].expand_as(a[i]), *a[i + 1 :]),
        )
    yield "sum instead of mean", lambda *a: reference(*a) * _entries(reference, a)
    yield "mean instead of sum", lambda *a: reference(*a) / _entries(reference, a)
    yield "your result is the square of the right one: a square root is missing", lambda *a: reference(*a) ** 2
    yield "your result is the square root of the right one: a square is missing", lambda *a: reference(*a) ** 0.5
    yield "your result is the exponential of the right one: a logarithm is missing", lambda *a: reference(*a).exp()
    yield "your result is the logarithm of the right one", lambda *a: reference(*a).log()
    yield "your result is 1 over the right one", lambda *a: 1 / reference(*a)
    for j, name in enumerate(names):
        if _varies([case[j] for case in cases]):  # a constant argument cannot be told from a constant factor
            yield (
                f"a factor {name} is missing: your result is the right one divided by {name}",
                lambda *a, j=j: reference(*a) / _beside(a[j], reference(*a)),
            )
            yield (
                f"one factor {name} too many: your result is the right one times {name}",
                lambda *a, j=j: reference(*a) * _beside(a[j], reference(*a)),
            )
            yield (
                f"the term with {name} is missing: your result is the right one for {name} = 0",
                lambda *a, j=j: reference(*a[:j], a[j] * 0, *a[j + 1 :]),
            )


def of_error(error: Exception, names: Sequence[str], case: Sequence[Any]) -> str:
    """An exception of the learner's function in words."""
    said = (str(error).strip() or "no message").splitlines()[0]
    t = case[list(names).index("t")] if "t" in names else None
    if isinstance(error, RuntimeError) and "must match" in said and isinstance(t, Tensor) and t.ndim == 1:
        return (
            f"t not broadcast over the batch: t has shape {tuple(t.shape)}, one time a row; give it the shape "
            f"({len(t)}, 1) before it meets x (PyTorch says: {said})"
        )
    if isinstance(error, TypeError) and "ellipsis" in said.lower():
        return "not written yet: an ellipsis (...) is left in your function"
    if isinstance(error, TypeError) and "positional argument" in said:
        return f"your function must take the arguments ({', '.join(names)}) (Python says: {said})"
    return f"your function raises {type(error).__name__}: {said}"


def of_kind(result: Any, right: Any, subject: str = "your function returns") -> str | None:
    """What is wrong with a result that is not even a number or tensor; None if it is one."""
    if result is None:
        return "not written yet: your function returns nothing (is the `return` missing?)"
    if result is Ellipsis:
        return "not written yet: your function still returns an ellipsis (...)"
    wanted = f"a tensor of shape {tuple(right.shape)}" if isinstance(right, Tensor) and right.ndim else "one number"
    try:
        if torch.as_tensor(result).is_complex():
            return f"{subject} complex numbers; real ones are asked"
        numeric = _tensor(result)
    except (TypeError, ValueError, RuntimeError):
        return f"{subject} a {type(result).__name__}, {wanted} is asked"
    if numeric.ndim == 0 and isinstance(right, Tensor) and right.ndim and not isinstance(result, Tensor):
        return f"{subject} one number ({type(result).__name__}), {wanted} is asked"
    return None


def of_zeros(results: Sequence[Any], expected: Sequence[Any]) -> str | None:
    """What to say of results of the right shape that are zero everywhere but for rounding, None if they are not.

    To be asked before the usual mistakes: many of them, a mean of small numbers for example, are zero within the
    tolerances too, and would be blamed for it.
    """
    if any(_tensor(result).shape != _tensor(right).shape for result, right in zip(results, expected, strict=True)):
        return None
    got, right = (torch.cat([_tensor(one).reshape(-1) for one in many]) for many in (results, expected))
    rounding = 1e-6 * right.abs().max() if len(right) else 0.0
    return "your result is zero everywhere" if len(got) and bool((got.abs() <= rounding).all()) else None


def of_values(results: Sequence[Any], expected: Sequence[Any], close: Closeness) -> str:
    """How the results differ from the right ones, when no known mistake explains it."""
    for result, right in zip(results, expected, strict=True):
        problem = _of_shape(tuple(_tensor(result).shape), tuple(_tensor(right).shape))
        if problem:
            return problem
    got = torch.cat([_tensor(r).reshape(-1) for r in results])
    right = torch.cat([_tensor(r).reshape(-1) for r in expected])
    if not torch.isfinite(got).all():
        return _of_not_finite(got)
    if close(got, got[:1].expand_as(got)) and not close(right, right[:1].expand_as(right)):
        if close(got, torch.zeros_like(got)):
            return "your result is zero everywhere"
        return f"your result is {float(got[0]):.4g} everywhere, and the right one is not the same everywhere"
    factor = float((got @ right) / (right @ right).clamp_min(1e-300))
    constant = close(got, factor * right)
    if constant and (len(right) > 1 or abs(factor - round(factor)) < 1e-3 or _name(factor) in _KNOWN_FACTORS):
        return f"factor {_name(factor)}: your result is {_name(factor)} times the right one"
    offset = float((got - right).mean())
    if len(right) > 1 and close(got, right + offset):
        return f"off by a constant: your result is the right one {'plus' if offset > 0 else 'minus'} {abs(offset):.4g}"
    j = int((got - right).abs().argmax())
    return f"not the right values: for example {float(got[j]):.4g} where {float(right[j]):.4g} is right"


def _of_not_finite(got: Tensor) -> str:
    bad = ~torch.isfinite(got)
    where = "everywhere" if bad.all() else f"in {int(bad.sum())} of {len(got)} entries"
    if torch.isnan(got).any():
        return f"your result is not a number (NaN) {where} (0 / 0, the root or logarithm of a negative number?)"
    return f"your result is infinite {where} (a division by zero, the logarithm of zero?)"


def argument_names(reference: Function, case: Sequence[Any]) -> list[str]:
    """Names of the reference's positional arguments, one for each value of the case."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in inspect.signature(reference).parameters.values() if p.kind in kinds]
    return (names + [f"argument {i + 1}" for i in range(len(names), len(case))])[: len(case)]


def _of_shape(got: tuple[int, ...], want: tuple[int, ...]) -> str | None:
    if got == want:
        return None
    said = f"shape {got}, but {want} is asked"
    if got == (*want, *want) and len(want) == 1:
        return f"{said}: every row met every other row; check how the shapes broadcast"
    if len(got) == len(want) + 1 and got[: len(want)] == want and want:
        return f"{said}: sum (or average) over the last axis"
    if not want:
        return f"{said}: take the mean (or sum) over all entries"
    if not got:
        each = "row" if len(want) == 1 else "entry"
        return f"{said}: you averaged (or summed) over everything; keep one value for each {each}"
    if got[::-1] == want:
        return f"{said}: transposed"
    return said


def _entries(reference: Function, arguments: Sequence[Any]) -> int:
    """How many entries each mean of the reference runs over: all of its largest argument, or those of one row."""
    largest = max(a.numel() for a in arguments if isinstance(a, Tensor))
    entries, rest = divmod(largest, _tensor(reference(*arguments)).numel())
    if rest or entries < 2:
        raise ValueError("no mean over such an argument gives a result of this size")
    return entries


def _t_along_last_axis(reference: Function, arguments: Sequence[Any], i: int) -> Tensor:
    """What a formula applied to each entry gives when t of shape (B,) meets x of shape (B, B) as it is."""
    t = arguments[i]
    columns = []
    for j in range(len(t)):
        part = [a[:, j : j + 1] if isinstance(a, Tensor) and a.ndim == 2 else a for a in arguments]
        part[i] = t[j].expand(len(t))
        columns.append(reference(*part))
    return torch.cat(columns, 1)


def _swap(arguments: Sequence[Any], i: int, j: int) -> list[Any]:
    swapped = list(arguments)
    swapped[i], swapped[j] = swapped[j], swapped[i]
    return swapped


def _beside(argument: Any, right: Any) -> Any:
    """The argument in a shape that multiplies each row of `right`."""
    if isinstance(argument, Tensor) and isinstance(right, Tensor) and argument.ndim == 1 < right.ndim:
        return argument.reshape(-1, *[1] * (right.ndim - 1))
    return argument


def _varies(values: Sequence[Any]) -> bool:
    """True for numbers or tensors that do not all hold one and the same value."""
    if not all(isinstance(v, (Tensor, float, int)) for v in values):
        return False
    every = torch.cat([_tensor(v).reshape(-1) for v in values])
    return bool((every != every[:1]).any())


def _tensor(value: Any) -> Tensor:
    return torch.as_tensor(value).detach().cpu().double()


def _name(factor: float) -> str:
    for name, known in _KNOWN_FACTORS.items():
        if abs(factor - known) < 1e-3 * known:
            return name
    return f"{factor:.3g}"
