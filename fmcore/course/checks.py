"""Exercise checks that say what is wrong.

    checks.compare("velocity", velocity, reference, cases=[(x0, x1, t)], mistakes={"divided by t": lambda x0, x1, t: ...})

compares an attempt with the reference on each case and prints one line: a tick, or the mistake that explains the difference.
Besides the mistakes given, it tries the usual ones: not written yet, wrong shape, sign flipped, a constant factor, sum
instead of mean, time running the other way, x0 and x1 swapped, t not broadcast over the batch, an argument ignored.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Any]


def compare(
    name: str,
    attempt: Function,
    reference: Function,
    cases: Sequence[Sequence[Any]],
    mistakes: Mapping[str, Function] | None = None,
    rtol: float = 1e-3,
    atol: float = 1e-4,
) -> bool:
    """Check the function `attempt` against `reference` on every case (a tuple of arguments); print and return the outcome.

    mistakes: a name of a mistake -> what a function with that mistake returns (same arguments). They are tried before
    the usual mistakes; one is named only if it explains all cases.
    """
    if not callable(attempt):
        return _say(name, f"{name} is {_kind(attempt)}, not a function: write `def {name}(...):` above")
    if not cases:
        raise ValueError("compare needs at least one case, a tuple of arguments")
    expected = [reference(*_copy(case)) for case in cases]
    results = []
    for case, right in zip(cases, expected, strict=True):
        given = _copy(case)
        try:
            result = attempt(*given)
        except NotImplementedError:
            return _say(name, "not written yet")
        except Exception as error:
            return _say(name, _explain_error(error, case, reference))
        problem = _wrong_kind(result, right)
        if problem:
            return _say(name, problem)
        for argument, before, after in zip(_names(reference, case), case, given, strict=True):
            if isinstance(before, Tensor) and not torch.equal(before, after):
                return _say(name, f"your function changes its argument {argument} in place; work on a new tensor")
        results.append(result)
    if all(_close(result, right, rtol, atol) for result, right in zip(results, expected, strict=True)):
        return _say(name, None, len(cases))
    for mistake, wrong in [*(mistakes or {}).items(), *_usual(reference, cases)]:
        if _explains(wrong, cases, results, expected, rtol, atol):
            return _say(name, mistake)
    for case, result, right in zip(cases, results, expected, strict=True):
        problem = _wrong_shape(result, right, case)
        if problem:
            return _say(name, problem)
    return _say(name, _arithmetic(results, expected, rtol, atol) or _furthest(cases, results, expected, reference))


def value(
    name: str,
    attempt: Any,
    expected: Any,
    mistakes: Mapping[str, Any] | None = None,
    rtol: float = 1e-3,
    atol: float = 1e-4,
) -> bool:
    """Check one number or tensor: `checks.value("slope", slope, 1.0, {"log of one axis only": 0.4}, rtol=0.1)`."""
    wrong = {mistake: (lambda answer=answer: answer) for mistake, answer in (mistakes or {}).items()}
    return compare(name, lambda: attempt, lambda: expected, [()], wrong, rtol, atol)


def choice(name: str, attempt: Any, answer: Any, hints: Mapping[Any, str] | None = None) -> bool:
    """Check a choice (a word or a number); `hints` says what each wrong choice overlooks."""
    if attempt is None or attempt is Ellipsis:
        return _say(name, "not written yet")
    if attempt == answer:
        return _say(name, None)
    return _say(name, (hints or {}).get(attempt, f"{attempt!r} is not the answer"))


def holds(name: str, condition: Any, otherwise: str) -> bool:
    """Check a property that many answers may have; `otherwise` says what is wrong when it does not hold."""
    if condition is None or condition is Ellipsis:
        return _say(name, "not written yet")
    return _say(name, None if bool(condition) else otherwise)


def _say(name: str, problem: str | None, cases: int = 1) -> bool:
    if problem is None:
        print(f"✓ {name}: right" + (f" on all {cases} cases." if cases > 1 else "."))
        return True
    print(f"✗ {name}: {problem.rstrip('.')}.")
    return False


def _usual(reference: Function, cases: Sequence[Sequence[Any]]) -> Iterator[tuple[str, Function]]:
    """The usual mistakes as functions with the reference's arguments, most specific first."""
    names = _names(reference, cases[0])
    yield "your result is minus the right one: sign flipped", lambda *a: -reference(*a)
    if "t" in names:
        i = names.index("t")
        yield "time runs the other way: you use 1 - t where t belongs (t = 0 is the source, t = 1 the data)", (
            lambda *a: reference(*a[:i], 1 - a[i], *a[i + 1 :])
        )
    for first, second in (("x0", "x1"), ("mean", "std"), ("alpha", "sigma")):
        if first in names and second in names:
            i, j = names.index(first), names.index(second)
            yield f"{first} and {second} swapped", lambda *a, i=i, j=j: reference(*_swap(a, i, j))
            yield f"sign flipped and {first} and {second} swapped", lambda *a, i=i, j=j: -reference(*_swap(a, i, j))
    if "t" in names:
        i = names.index("t")
        yield (
            "t not broadcast over the batch: t runs along the wrong axis; give t of shape (B,) the shape (B, 1) before it meets x",
            lambda *a: _t_along_last_axis(reference, a, i),
        )
        yield (
            "t not broadcast over the batch: one time is used for all; each row has its own t",
            lambda *a: reference(*a[:i], a[i].reshape(-1)[0].expand_as(a[i]), *a[i + 1 :]) if a[i].ndim else None,
        )
    yield "sum instead of mean", lambda *a: _sum_for_mean(reference, a)
    yield "mean instead of sum", lambda *a: _sum_for_mean(reference, a, invert=True)
    yield "squared: a square root is missing", lambda *a: reference(*a) ** 2
    yield "a square is missing: your result is the square root of the right one", lambda *a: reference(*a) ** 0.5
    yield "the logarithm is missing: your result is the exponential of the right one", lambda *a: reference(*a).exp()
    yield "logarithm taken where the value itself is asked", lambda *a: reference(*a).log()
    yield "one over the right one", lambda *a: 1 / reference(*a)
    for i, argument in enumerate(names):
        yield f"the factor {argument} is missing: your result is the right one divided by {argument}", (
            lambda *a, i=i: reference(*a) / _like(a[i], reference(*a))
        )
        yield f"a factor {argument} too many: your result is the right one times {argument}", (
            lambda *a, i=i: reference(*a) * _like(a[i], reference(*a))
        )
        yield f"{argument} is ignored: you get what {argument} = 0 gives", (
            lambda *a, i=i: reference(*a[:i], a[i] * 0, *a[i + 1 :])
        )


def _explains(
    wrong: Function, cases: Sequence[Any], results: list[Any], expected: list[Any], rtol: float, atol: float
) -> bool:
    """True when the mistaken function gives the attempt's result in every case, and differs from the right one somewhere."""
    differs = False
    for case, result, right in zip(cases, results, expected, strict=True):
        try:
            guess = wrong(*_copy(case))
        except Exception:
            return False  # the mistake does not apply to these arguments
        if guess is None or not _close(result, guess, rtol, atol):
            return False
        differs = differs or not _close(guess, right, rtol, atol)
    return differs


def _arithmetic(results: list[Any], expected: list[Any], rtol: float, atol: float) -> str | None:
    """One constant factor or offset that turns the right results into the attempt's."""
    got = torch.cat([torch.as_tensor(r).detach().double().reshape(-1) for r in results])
    right = torch.cat([torch.as_tensor(r).detach().double().reshape(-1) for r in expected])
    if not torch.isfinite(got).all():
        return "your result has values that are not finite (division by zero, or the logarithm of a negative number?)"
    if right.abs().max() > atol and len(right) + len(results) > 2:
        factor = float((got @ right) / (right @ right))
        if _close(got, factor * right, rtol, atol):
            return "your result is zero everywhere" if abs(factor) < rtol else f"factor {_number(factor)}: your result is {_number(factor)} times the right one"
    offset = float((got - right).mean())
    if len(right) > 1 and _close(got, right + offset, rtol, atol):
        return f"off by a constant: your result is the right one {'+' if offset > 0 else '-'} {abs(offset):.4g}"
    if len(right) == 1 and float(right) != 0:
        factor = float(got / right)
        for known in (2.0, 0.5, 4.0, 0.25, 3.141592653589793, 0.6931471805599453, 1.4426950408889634):
            if abs(factor / known - 1) < rtol:
                return f"factor {_number(factor)}: your result is {_number(factor)} times the right one"
    return None


def _furthest(cases: Sequence[Any], results: list[Any], expected: list[Any], reference: Function) -> str:
    gaps = [
        float((torch.as_tensor(got).double() - torch.as_tensor(right).double()).abs().max())
        for got, right in zip(results, expected, strict=True)
    ]
    i = max(range(len(gaps)), key=gaps.__getitem__)
    got, right = (torch.as_tensor(r[i]).detach().double().reshape(-1) for r in (results, expected))
    j = int((got - right).abs().argmax())
    where = f" (case {i + 1} of {len(cases)})" if len(cases) > 1 else ""
    return f"not equal to the reference{where}: for example {float(got[j]):.4g} where {float(right[j]):.4g} is right"


def _wrong_kind(result: Any, right: Any) -> str | None:
    if result is None:
        return "not written yet: your function returns nothing (is the `return` missing?)"
    if result is Ellipsis:
        return "not written yet: it still returns ..."
    if isinstance(right, Tensor) and right.ndim and not isinstance(result, Tensor):
        return f"your function returns {_kind(result)}, a tensor of shape {tuple(right.shape)} is asked"
    try:
        torch.as_tensor(result)
    except (TypeError, ValueError, RuntimeError):
        return f"your function returns {_kind(result)}, {'a tensor' if isinstance(right, Tensor) else 'a number'} is asked"
    return None


def _wrong_shape(result: Any, right: Any, case: Sequence[Any]) -> str | None:
    got, want = tuple(torch.as_tensor(result).shape), tuple(torch.as_tensor(right).shape)
    if got == want:
        return None
    said = f"shape {got}, but {want} is asked"
    if len(got) == 2 and len(want) == 2 and got[0] == got[1] == want[0] and got != want:
        return f"{said}: every row met every other row; t not broadcast over the batch"
    if got == () and want:
        return f"{said}: you averaged or summed over everything; keep one value {'a sample' if len(want) == 1 else 'an entry'}"
    if want == () and got:
        return f"{said}: one number is asked; take the mean (or sum) over all entries"
    if len(got) == len(want) + 1 and got[: len(want)] == want:
        return f"{said}: sum (or average) over the last axis"
    if got[::-1] == want:
        return f"{said}: transposed"
    return said


def _explain_error(error: Exception, case: Sequence[Any], reference: Function) -> str:
    names = _names(reference, case)
    said = str(error).strip().splitlines()[0] if str(error).strip() else ""
    if "t" in names and isinstance(error, RuntimeError) and "must match" in said:
        t = case[names.index("t")]
        if isinstance(t, Tensor) and t.ndim == 1:
            return (
                f"t not broadcast over the batch: t has shape {tuple(t.shape)}, one time a row; "
                f"give it the shape ({len(t)}, 1) before it meets x (PyTorch said: {said})"
            )
    if isinstance(error, TypeError) and "positional argument" in said:
        return f"your function must take the arguments ({', '.join(names)}) (Python said: {said})"
    if isinstance(error, TypeError) and "ellipsis" in said.lower():
        return "not written yet: a ... is left in your function"
    if isinstance(error, NameError):
        return f"a name is used before it is defined (Python said: {said})"
    return f"your function raises {type(error).__name__}: {said}"


def _close(got: Any, right: Any, rtol: float, atol: float) -> bool:
    a, b = torch.as_tensor(got).detach().cpu().double(), torch.as_tensor(right).detach().cpu().double()
    return a.shape == b.shape and torch.allclose(a, b, rtol=rtol, atol=atol, equal_nan=False)


def _sum_for_mean(reference: Function, arguments: Sequence[Any], invert: bool = False) -> Tensor | None:
    """The reference times (or divided by) the number of entries that its mean runs over: all, or those of one row."""
    right = torch.as_tensor(reference(*arguments))
    largest = max((a for a in arguments if isinstance(a, Tensor)), key=Tensor.numel, default=None)
    if largest is None or largest.numel() <= right.numel():
        return None
    count = largest.numel() // max(right.numel(), 1)
    return right / count if invert else right * count


def _t_along_last_axis(reference: Function, arguments: Sequence[Any], i: int) -> Tensor | None:
    """What an elementwise formula gives when t of shape (B,) meets x of shape (B, B) without being reshaped."""
    t = arguments[i]
    if not isinstance(t, Tensor) or t.ndim != 1:
        return None
    columns = []
    for j in range(len(t)):
        part = [a[:, j : j + 1] if isinstance(a, Tensor) and a.ndim == 2 else a for a in arguments]
        part[i] = t[j].expand(len(t))
        columns.append(reference(*part))
    return torch.cat(columns, 1)


def _like(argument: Any, right: Any) -> Any:
    if isinstance(argument, Tensor) and isinstance(right, Tensor) and argument.ndim == 1 and right.ndim > 1:
        return argument.reshape(-1, *[1] * (right.ndim - 1))
    return argument


def _swap(arguments: Sequence[Any], i: int, j: int) -> list[Any]:
    swapped = list(arguments)
    swapped[i], swapped[j] = swapped[j], swapped[i]
    return swapped


def _copy(case: Sequence[Any]) -> list[Any]:
    return [a.clone() if isinstance(a, Tensor) else a for a in case]


def _names(reference: Function, case: Sequence[Any]) -> list[str]:
    """Names of the reference's arguments, one for each value of the case."""
    try:
        names = [p.name for p in inspect.signature(reference).parameters.values() if p.kind != p.KEYWORD_ONLY]
    except (TypeError, ValueError):
        names = []
    return (names + [f"argument {i + 1}" for i in range(len(names), len(case))])[: len(case)]


def _kind(thing: Any) -> str:
    return "nothing (None)" if thing is None else "..." if thing is Ellipsis else f"a {type(thing).__name__}"


def _number(factor: float) -> str:
    for name, known in {"1/2": 0.5, "1/4": 0.25, "pi": 3.141592653589793, "ln 2": 0.6931471805599453, "1/ln 2": 1.4426950408889634}.items():
        if abs(factor - known) < 1e-3 * known:
            return name
    return f"{factor:.3g}"
