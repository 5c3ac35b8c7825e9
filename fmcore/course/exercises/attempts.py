"""Call what a learner wrote once, where a judge has to look at the result itself before it can compare anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fmcore.course import checks, diagnosis


def tried(name: str, attempt: Any, *arguments: Any, names: Sequence[str] = ()) -> Any:
    """What the attempt returns; an Outcome, which has been printed, if there is nothing to look at.

    Args:
        name: what the printed line calls the attempt.
        attempt: the learner's function.
        arguments: what it is called with.
        names: the names of the arguments, for the words about an error.
    """
    if attempt is None or attempt is Ellipsis:
        return checks.holds(name, attempt, "")
    if not callable(attempt):
        return checks.holds(name, False, f"{name} is a {type(attempt).__name__}, a function is asked")
    try:
        result = attempt(*arguments)
    except NotImplementedError:
        return checks.holds(name, None, "")
    except Exception as error:  # whatever a learner's code raises is explained in words
        return checks.holds(name, False, diagnosis.of_error(error, names or [""] * len(arguments), arguments))
    return checks.holds(name, result, "") if result is None or result is Ellipsis else result
