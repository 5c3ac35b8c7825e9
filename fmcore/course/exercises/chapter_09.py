"""Judges of the exercises to chapter 09, Source geometry."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from fmcore.course import checks
from fmcore.course.checks import Outcome
from fmcore.course.exercises import attempts, measurements

_RUNS, _STEPS = 4, 300
_OWN = 8  # runs of the judge


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exercise_1(most_likely_length: Any, spread_of_length: Any) -> Outcome:
    """Maximum and curvature of the log-density of the length, found by Newton's method."""

    def log_density(r: Tensor, d: int, std: float) -> Tensor:
        return (d - 1) * r.log() - r.square() / (2 * std**2)

    def found(d: int, std: float) -> tuple[float, float]:
        """The maximum, and the spread that belongs to the second derivative there."""
        r = torch.tensor(0.8 * std * math.sqrt(d), dtype=torch.float64)
        for _ in range(60):
            r = r.detach().requires_grad_()
            slope = torch.autograd.grad(log_density(r, d, std), r, create_graph=True)[0]
            bend = torch.autograd.grad(slope, r)[0]
            r = r - slope / bend
        return float(r.detach()), float((-1 / bend.detach()) ** 0.5)

    cases = [(d, std) for d in (2, 3, 5, 64, 3072) for std in (1.0, 0.4, 3.0)]
    mistakes: dict[str, Callable[..., float]] = {
        "this is the root of the mean of r^2; the density of the length is largest a little below": (
            lambda d, std: std * math.sqrt(d)
        ),
        "the power of r is d - 1, not d - 2": lambda d, std: std * math.sqrt(d - 2),
        "this is the square of the most likely length": lambda d, std: std**2 * (d - 1),
        "std is missing": lambda d, std: math.sqrt(d - 1),
        "the spread of r^2 / (2 s^2) is s^2, but r itself scales with std, not with std^2": (
            lambda d, std: std**2 * math.sqrt(d - 1)
        ),
        "this is the place where a point is most likely; the sphere of that length has no area": lambda d, std: 0.0,
    }
    outcome = checks.compare("most_likely_length", most_likely_length, lambda d, std: found(d, std)[0], cases, mistakes)
    if not outcome:
        return outcome
    mistakes = {
        "both terms of the logarithm bend: the second derivative of (d - 1) log r counts, too": lambda d, std: std,
        "this is the variance: take the root": lambda d, std: std**2 / 2,
        "this is the second derivative; the sigma that belongs to it is asked": lambda d, std: -2 / std**2,
        "std is missing": lambda d, std: math.sqrt(0.5),
        "put the most likely length into the second derivative: then d drops out": lambda d, std: std / math.sqrt(d),
        "the second derivative is -2 / s^2; its inverse is s^2 / 2": lambda d, std: math.sqrt(2) / std,
    }
    return checks.compare("spread_of_length", spread_of_length, lambda d, std: found(d, std)[1], cases, mistakes)


def exercise_2a(told_by: Any) -> Outcome:
    """Which moments give each sampler of directions away."""
    right = {"a": "nothing", "b": "the fourth moments only", "c": "the second moments"}
    symmetric = "Gaussian noise has the same density in all directions: how far are its moments from 1/3 and 1/5?"
    cube = "compare the fourth moments with 1/5: towards its corners the cube has more room than a ball"
    hints = {
        "a": dict.fromkeys(("the second moments", "the fourth moments only"), symmetric),
        "b": {"nothing": cube, "the second moments": "the axes of a cube are alike: all second moments are 1/3"},
        "c": dict.fromkeys(
            ("nothing", "the fourth moments only"), "look at the second moments of all three coordinates, one by one"
        ),
    }
    return measurements.choices("told_by", told_by, right, hints)


def exercise_2b(direction: Any) -> Outcome:
    """Unit vectors whose cosine with every axis is uniform, and which use both numbers."""
    u, v = torch.rand(2, 20_000, generator=_generator(1), dtype=torch.float64)
    name = "direction"
    for dtype in (torch.float64, torch.float32):
        x = attempts.tried(name, direction, u.to(dtype), v.to(dtype), names=("u", "v"))
        if isinstance(x, Outcome):
            return x
        if not isinstance(x, Tensor) or x.shape != (20_000, 3):
            shape = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
            return checks.holds(name, False, f"{shape}, but a tensor of shape (20000, 3) is asked")
        if not bool(((x.norm(dim=1) - 1).abs() < 1e-3).all()):
            return checks.holds(name, False, "the rows have not length 1: the sine must belong to the cosine")
        if problem := _of_directions(x.detach().double()):
            return checks.holds(name, False, problem)
    again = direction(u, v)
    if not torch.equal(again, direction(u, v)):
        return checks.holds(name, False, "the same u and v give other directions: use nothing else that is random")
    return checks.holds(name, True, "")


def _of_directions(x: Tensor) -> str | None:
    """What is wrong with unit vectors (n, 3), judged by their cosines with nine axes."""
    axes = torch.nn.functional.normalize(torch.randn(6, 3, generator=_generator(2), dtype=torch.float64), dim=1)
    axes = torch.cat([torch.eye(3, dtype=torch.float64), axes])
    cosines = (x @ axes.T).sort(dim=0).values  # uniform on [-1, 1] by Archimedes
    even = torch.linspace(-1, 1, len(x), dtype=torch.float64)
    largest = float((cosines - even[:, None]).abs().amax() / 2)  # of two distribution functions
    if largest < 0.02:  # by chance in less than one case of 10^6
        return None
    square = x.square().mean(dim=0)
    if float((square - 1 / 3).abs().max()) > 0.02:
        said = ", ".join(f"{s:.2f}" for s in square)
        return f"the mean squares of the coordinates are {said}, and 1/3 is right for each: where are they too dense?"
    fourth = float(x[:, 2].pow(4).mean())
    said = f"the third has the mean fourth power {fourth:.2f}, and 1/5 is right"
    return f"the second moments are right, but the cosines with some axis are not uniform on [-1, 1]; {said}"


def exercise_3(mean_squared_distance: Any, std_of_squared_distance: Any) -> Outcome:
    """Moments of the noncentral chi-squared distribution, as SciPy has them."""
    from scipy import stats

    cases = [(R, d) for d in (2, 3, 5, 64, 3072) for R in (0.5, 1.0, 6.4, 27.2)]
    mistakes: dict[str, Callable[..., float]] = {
        "the length of the image is not squared": lambda R, d: d + R,
        "this is the squared length of the noise alone": lambda R, d: d,
        "this is the root; the mean of the square itself is asked": lambda R, d: math.sqrt(d + R**2),
        "the mixed term -2 <x0, x1> has the mean 0: noise has no direction": lambda R, d: (math.sqrt(d) - R) ** 2,
    }
    outcome = checks.compare(
        "mean_squared_distance",
        mean_squared_distance,
        lambda R, d: float(stats.ncx2(d, R**2).mean()),
        cases,
        mistakes,
    )
    if not outcome:
        return outcome
    mistakes = {
        "this is the spread of |x0|^2 alone; the mixed term -2 <x0, x1> scatters, too": lambda R, d: math.sqrt(2 * d),
        "this is the variance; the standard deviation is asked": lambda R, d: 2 * d + 4 * R**2,
        "standard deviations are added; of independent terms the variances add up": lambda R, d: (
            math.sqrt(2 * d) + 2 * R
        ),
        "the factor 2 of the mixed term must be squared for the variance": lambda R, d: math.sqrt(2 * d + 2 * R**2),
        "the mixed term is -2 R z, not -R z": lambda R, d: math.sqrt(2 * d + R**2),
        "z^2 has the variance 2, not 1": lambda R, d: math.sqrt(d + 4 * R**2),
        "this is the spread of the mixed term alone": lambda R, d: 2 * R,
        "the variance of 2 R z is 4 R^2: R is not squared": lambda R, d: math.sqrt(2 * d + 4 * R),
    }
    return checks.compare(
        "std_of_squared_distance",
        std_of_squared_distance,
        lambda R, d: float(stats.ncx2(d, R**2).std()),
        cases,
        mistakes,
    )


def _shares() -> list[tuple[Tensor, Tensor]]:
    """Shares of 2, 3 and 5 modes: a flat source, empty modes, equal shares, nothing in common."""
    made = [tuple(torch.softmax(torch.randn(2, K, generator=_generator(K)), dim=1).double()) for K in (2, 3, 5)]
    lists = (
        ([1 / 3] * 3, [0.05, 0.3, 0.65]),
        ([0.0, 0.25, 0.75], [0.05, 0.3, 0.65]),
        ([0.2, 0.5, 0.3], [0.2, 0.5, 0.3]),
        ([0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.75, 0.25]),
    )
    return [(q / q.sum(), p / p.sum()) for q, p in made] + [
        (torch.tensor(q, dtype=torch.float64), torch.tensor(p, dtype=torch.float64)) for q, p in lists
    ]


def exercise_4(most_that_stays: Any, best_plan: Any) -> Outcome:
    """The bound against a linear program; the plan by its sums, its signs and its diagonal."""
    from scipy.optimize import linprog

    def reference(q: Tensor, p: Tensor) -> float:
        K = len(q)
        rows = torch.kron(torch.eye(K), torch.ones(1, K))
        columns = torch.kron(torch.ones(1, K), torch.eye(K))
        sums = torch.cat([rows, columns])[:-1]  # the last sum follows from the others
        right = torch.cat([q, p])[:-1]
        return -float(
            linprog((-torch.eye(K)).flatten().numpy(), A_eq=sums.numpy(), b_eq=right.numpy(), bounds=(0, None)).fun
        )

    mistakes: dict[str, Callable[..., Tensor]] = {
        "this is the share that must cross; the share that can stay is asked": lambda q, p: (q - p).clamp(min=0).sum(),
        "this is what stays if pairs are drawn independently; a coupling may keep more": lambda q, p: (q * p).sum(),
        "surpluses and deficits are both taken off: a pair that crosses leaves one mode and enters another": (
            lambda q, p: 1 - (q - p).abs().sum()
        ),
        "only the largest surplus is taken off; all of them must leave": lambda q, p: 1 - (q - p).max(),
        "the larger share is taken; an entry is at most the smaller of both": lambda q, p: torch.maximum(q, p).sum(),
        "this is the bound on each entry; add them up": lambda q, p: torch.minimum(q, p),
        "a geometric mean is no bound: take the smaller of both shares": lambda q, p: (q * p).sqrt().sum(),
    }
    outcome = checks.compare("most_that_stays", most_that_stays, reference, _shares(), mistakes)
    if not outcome:
        return outcome
    for q, p in _shares():
        P = attempts.tried("best_plan", best_plan, q.clone(), p.clone(), names=("q", "p"))
        if isinstance(P, Outcome):
            return P
        if problem := _of_plan(P, q, p):
            return checks.holds("best_plan", False, problem)
    return checks.holds("best_plan", True, "")


def _of_plan(given: Any, q: Tensor, p: Tensor) -> str | None:
    """What is wrong with a plan between these shares."""
    K = len(q)
    try:
        P = torch.as_tensor(given).detach().double()
    except (TypeError, ValueError, RuntimeError):
        return f"a tensor of shape ({K}, {K}) is asked; yours is a {type(given).__name__}"
    if P.shape != (K, K):
        return f"shape {tuple(P.shape)}, but ({K}, {K}) is asked"
    if not bool(P.isfinite().all()):
        return "some entries are no numbers: where q = p, nothing is left to distribute; do not divide by 0"
    if float(P.min()) < -1e-6:
        return f"an entry is {float(P.min()):.3f}; shares are not negative"
    rows, columns = (float((P.sum(dim=k) - right).abs().max()) for k, right in ((1, q), (0, p)))
    if max(rows, columns) > 1e-4:
        turned = float((P.T.sum(dim=1) - q).abs().max() + (P.T.sum(dim=0) - p).abs().max()) < 1e-4
        if turned:
            return "the plan is transposed: rows are modes of the source, columns modes of the data"
        which = f"rows do not sum to q: off by {rows:.3f}"
        if rows <= 1e-4:
            which = f"columns do not sum to p: off by {columns:.3f}"
        return f"this is no coupling: its {which}"
    stays, most = float(P.diagonal().sum()), float(torch.minimum(q, p).sum())
    if abs(stays - most) > 1e-4:
        return (
            f"a coupling, but {1 - stays:.3f} of its pairs cross; {1 - most:.3f} is possible: fill the diagonal first"
        )
    return None


def exercise_5(smallest: Any, best_on_average: Any) -> Outcome:
    """The mean of the smallest of n normal numbers by quadrature, and the means of correlated ones."""
    from scipy import integrate, stats

    def right(n: int) -> Tensor:
        def above(x: float) -> float:
            return float(stats.norm.sf(x)) ** n

        positive, _ = integrate.quad(above, 0, 12)  # the mean is the integral of P(> x), less that of P(< x) for x < 0
        negative, _ = integrate.quad(lambda x: 1 - above(x), -12, 0)
        return torch.tensor(positive - negative, dtype=torch.float64)

    numbers: dict[str, Callable[..., Any]] = {
        "this is the largest of them on average; the smallest is asked: sign flipped": lambda n: -right(n),
        "this is the median of the smallest": lambda n: float(stats.norm.isf(0.5 ** (1 / n))),
        "the same number for every n": lambda n: right(10),
        "one factor too many: the density is n phi(x) (1 - Phi(x))^(n - 1)": lambda n: right(n + 1) * n / (n + 1),
        "the factor n of the density is missing": lambda n: right(n) / n,
    }
    cases = [(n,) for n in (1, 2, 3, 5, 10, 50, 100)]
    outcome = checks.compare("smallest", smallest, right, cases, numbers, rtol=0, atol=3e-3)
    if not outcome:
        return outcome

    def best(mean: float, std: float, rho: float, n: int) -> Tensor:
        return mean + std * math.sqrt(1 - rho) * right(n)

    mistakes: dict[str, Callable[..., Any]] = {
        "the correlation plays no part; what is common to all checkpoints cannot be chosen": lambda m, s, r, n: best(
            m, s, 0, n
        ),
        "1 - rho is a share of the variance: take its root": lambda m, s, r, n: m + s * (1 - r) * right(n),
        "what is common to all checkpoints, sqrt(rho), cannot be chosen; what differs can": lambda m, s, r, n: best(
            m, s, 1 - r, n
        ),
        "both parts are chosen; the part that is the same for all k comes out of the minimum": lambda m, s, r, n: (
            m + s * (math.sqrt(r) + math.sqrt(1 - r)) * right(n)
        ),
        "the best lies below the mean, not above it": lambda m, s, r, n: m - s * math.sqrt(1 - r) * right(n),
        "the smallest of ten is used; n is an argument": lambda m, s, r, n: m + s * math.sqrt(1 - r) * right(10),
        "the standard deviation is missing": lambda m, s, r, n: m + math.sqrt(1 - r) * right(n),
    }
    settings = [(0.3, 0.05, 0.0, 10), (1.0, 0.3, 0.5, 10), (-2.0, 1.5, 0.8, 3), (0.5, 0.2, 1.0, 5), (40.0, 9.0, 0.2, 5)]
    return checks.compare("best_on_average", best_on_average, best, settings, mistakes, rtol=0, atol=0.03)


def exercise_6(experiment: Any) -> Outcome:
    """Two flows beside one of the same budget: complete, possible, reproducible, trained so long, and the verdict."""
    points = _points()
    runs = measurements.three_runs(
        experiment, (points, _STEPS), ("two flows", "control", "verdict"), ("two flows", "control"), _unlikely_distances
    )
    if isinstance(runs, Outcome):
        return runs
    two, control = (torch.cat([_list(run[key]) for run in (runs[0], runs[2])]) for key in ("two flows", "control"))
    if problem := _other_training(two, control):
        return checks.holds("experiment", False, problem)
    outcome = checks.holds("experiment", True, "")
    for run in runs:
        two, control = _list(run["two flows"]), _list(run["control"])
        apart = float((control.mean() - two.mean()) / (control.var() / len(control) + two.var() / len(two)).sqrt())
        allowed = [word for word, low, high in _VERDICTS if low - 0.3 < apart < high + 0.3]
        said = f"by your numbers the two flows are better by {apart:.1f} standard errors, so that is not what they show"
        hints = dict.fromkeys((word for word, _, _ in _VERDICTS), said)
        if run["verdict"] not in allowed:
            return checks.choice("verdict", run["verdict"], allowed[0], hints)
    return outcome


_VERDICTS = (
    ("more than a head start", 2.0, math.inf),
    ("cannot tell", -2.0, 2.0),
    ("less than a head start", -math.inf, -2.0),
)


def _list(value: Any) -> Tensor:
    """Distances that have been found to be a list of numbers."""
    found = measurements.numbers(value)
    assert found is not None
    return found


def _unlikely_distances(report: dict[str, Any]) -> str | None:
    """What is wrong with the distances of one run of the experiment."""
    found = {key: measurements.numbers(report[key]) for key in ("two flows", "control")}
    for key, values in found.items():
        if values is None or len(values) < _RUNS:
            return f"{key!r} must hold the mean distances of at least {_RUNS} runs"
        if float(values.min()) <= 0:
            return f"{key!r} has a distance that is not above 0"
        if float(values.max() - values.min()) < 1e-3:
            return f"{key!r}: all runs have the same distance; each needs a seed of its own"
    if len(_list(report["two flows"])) != len(_list(report["control"])):
        return "take as many runs of two flows as of the control"
    return None


def _other_training(two: Tensor, control: Tensor) -> str | None:
    """What is wrong with distances that flows of these budgets do not have, measured once more."""
    own = _measured()
    names = {"single": "a single flow of 300 steps from the ring", "double": "a single flow of 600 steps from the ring"}
    names["two"] = "a second flow"
    for key, values, right in (("two flows", two, "two"), ("control", control, "double")):
        gaps = {}
        for name, mine in own.items():
            a, b = values.log(), mine.log()  # the distances have a tail to the right
            error = math.sqrt(float(a.var()) / len(a) + float(b.var()) / len(b) + 0.02**2)
            gaps[name] = abs(float(a.mean() - b.mean())) / error
        if gaps[right] > 5:
            nearest = min(gaps, key=lambda name: gaps[name])
            like = f", like {names[nearest]}" if nearest != right and gaps[nearest] < 4 else ""
            said = f"{key!r} has the mean distance {float(values.mean()):.2f}{like}"
            return f"{said}; {float(own[right].mean()):.2f} is about right: which flow is trained how long?"
    return None


def _points() -> Tensor:
    """Data of the check, (512, 2)."""
    from fmcore.ensemble import three_directions

    return three_directions(512, _generator(5))


@cache
def _measured() -> dict[str, Tensor]:
    """Mean distances of eight flows of each kind: once trained, trained for two times as long, and two in a row."""
    from fmcore import solvers
    from fmcore.ensemble import Ensemble, Member, train
    from fmcore.metrics import distances_to_data
    from fmcore.papers.lee2025.simulation import Cached
    from fmcore.sources import ChiSphere

    ring, points = ChiSphere((2,), dof=3072), _points()

    def follow(networks: Any, x0: Tensor) -> Tensor:
        with torch.no_grad():
            return solvers.solve(networks, x0, method="rk4", steps=8).x

    def trained(sources: Any, seed: int, keep: tuple[int, ...]) -> Any:
        networks = Ensemble([seed + k for k in range(_OWN)])
        members = [Member(source, points, seed + 50 + k) for k, source in enumerate(sources)]
        return train(networks, members, max(keep), 16, keep=keep)[1]

    def distance(networks: Any, x0: Tensor) -> Tensor:
        return torch.stack([distances_to_data(x, points).mean() for x in follow(networks, x0)]).double()

    first = trained([ring] * _OWN, 31_000, (_STEPS, 2 * _STEPS))
    x0 = ring.sample(_OWN * 2048, _generator(8)).view(_OWN, 2048, 2)
    middle = follow(first[_STEPS], x0)
    second = trained([Cached(x) for x in middle], 32_000, (_STEPS,))
    return {
        "single": distance(first[_STEPS], x0[:, :512]),
        "double": distance(first[2 * _STEPS], x0[:, :512]),
        "two": distance(second[_STEPS], middle[:, :512]),
    }
