"""The judges of the exercises to chapter 05, optimal transport."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fmcore.course import checks
from fmcore.course.checks import Outcome
from fmcore.course.exercises.attempts import tried

Couple = Callable[[Tensor, Tensor], Tensor]


def _normal(*shape: int) -> Tensor:
    """The same normal numbers of this shape each time, in double precision."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def _by_assignment(x0: Tensor, x1: Tensor) -> Tensor:
    """The cheapest order of x0, as an assignment problem."""
    from fmcore import couplings

    return couplings.MinibatchOT()(x0, x1)[0]


def exercise_1(pair_on_a_line: Any) -> Outcome:
    """Pairs on a line, against the assignment problem; negative values, values far apart and both precisions."""

    def rank(x: Tensor) -> Tensor:
        return x[:, 0].argsort().argsort()

    mistakes = {
        "x0 is sorted, but x1 is not: row i must get the partner of x1[i]": lambda x0, x1: x0.sort(dim=0).values,
        "x0 is ordered by argsort(x1); what is needed is the rank of each x1, the inverse permutation": lambda x0, x1: (
            x0.sort(dim=0).values[x1[:, 0].argsort()]
        ),
        "x0 must be sorted before it is given out": lambda x0, x1: x0[rank(x1)],
        "the order is reversed: the largest noise goes to the smallest data point, which costs most": lambda x0, x1: (
            x0.sort(dim=0, descending=True).values[rank(x1)]
        ),
        "each data point takes the noise nearest to it; then some are used twice and some never": lambda x0, x1: x0[
            torch.cdist(x1, x0).argmin(dim=1)
        ],
    }
    cases = [tuple(_normal(2, n, 1).float()) for n in (7, 12, 30)]
    x0, x1 = 1000 * _normal(2, 9, 1)
    cases += [(x0, x1), (x0 - 3000, x1.sort(dim=0).values), tuple(_normal(2, 1, 1))]
    return checks.compare("pair_on_a_line", pair_on_a_line, _by_assignment, cases, mistakes, atol=1e-6)


def exercise_2a(pair_within_classes: Any) -> Outcome:
    """Pairs within classes for four functions `couple` and labels of every kind, against a loop over rows."""

    def reference(couple: Couple, x0: Tensor, x1: Tensor, labels: Tensor) -> Tensor:
        paired: list[Any] = [None] * len(x0)
        for label in set(labels.tolist()):
            rows = [i for i, other in enumerate(labels.tolist()) if other == label]
            for row, partner in zip(rows, couple(x0[rows], x1[rows]), strict=True):
                paired[row] = partner
        return torch.stack(paired)

    def among(wanted: Callable[[Tensor], Any]) -> Callable[..., Tensor]:
        """Only the classes that are wanted are paired."""

        def paired(couple: Couple, x0: Tensor, x1: Tensor, labels: Tensor) -> Tensor:
            mine = torch.tensor([label in wanted(labels) for label in labels.tolist()])
            return torch.where(mine[:, None], reference(couple, x0, x1, labels), x0)

        return paired

    def joined(couple: Couple, x0: Tensor, x1: Tensor, labels: Tensor) -> Tensor:
        return torch.cat([couple(x0[labels == c], x1[labels == c]) for c in labels.unique()])

    def first_rows(couple: Couple, x0: Tensor, x1: Tensor, labels: Tensor) -> Tensor:
        paired = x0.clone()
        for c in labels.unique():
            paired[labels == c] = couple(x0[: (labels == c).sum()], x1[labels == c])
        return paired

    mistakes = {
        "couple is not used: this is optimal transport within the classes, whatever couple is": lambda f, x0, x1, c: (
            reference(_by_assignment, x0, x1, c)
        ),
        "the labels are ignored: each class gets the noise nearest to it": lambda f, x0, x1, c: f(x0, x1),
        "the classes are joined one after the other; each result belongs into the rows of its class": joined,
        "each class takes the first rows of x0, so noise is used twice; take the same rows as of x1": first_rows,
        "the pairs are as they came": lambda f, x0, x1, c: x0,
        "only the classes 0, 1 and 2 are paired; labels may be any whole numbers": among(lambda c: range(3)),
        "labels below zero are left out": among(lambda c: range(10**6)),
        "the largest label is left out: range(n) ends at n - 1": among(lambda c: set(c.tolist()) - {int(c.max())}),
        "couple(x1, x0): x0 and x1 are swapped, and this returns data": lambda f, x0, x1, c: reference(f, x1, x0, c),
    }
    couples: tuple[Couple, ...] = (
        _by_assignment,
        lambda x0, x1: x0.flip(0),
        lambda x0, x1: x0.roll(1, dims=0),
        lambda x0, x1: x0[x0[:, 0].argsort()][x1[:, 0].argsort().argsort()],
    )
    classes = ([0, 2, 1, 0, 1, 2, 0, 0, 1], [7, 7, -1, 40, 7, -1, 40, -1], [3, 1, 0, 2, 4, 3, 3, 1, 0, 2], [5, 5, 5, 6])
    cases = []
    for k, labels in enumerate(classes):
        for d in (2, 3, 5):
            x0, x1 = _normal(2, len(labels), d).float()
            cases.append((couples[k], x0, x1 + 1, torch.tensor(labels)))
            cases.append((couples[(k + d) % 4], x1, x0, torch.tensor(labels)))
    return checks.compare("pair_within_classes", pair_within_classes, reference, cases, mistakes)


def exercise_2b(share_alone: Any) -> Outcome:
    """The share alone, against all batches of a few images one by one."""

    def reference(batch: int, p: Tensor) -> Tensor:
        share = torch.zeros((), dtype=torch.float64)
        for labels in itertools.product(range(len(p)), repeat=batch):
            alone = sum(labels.count(label) == 1 for label in labels)
            share += p[list(labels)].prod() * alone / batch
        return share

    mistakes = {
        "that is the chance that one given other image has another class; all others must": lambda b, p: (
            p * (1 - p)
        ).sum(),
        "there are batch - 1 other images": lambda b, p: (p * (1 - p) ** b).sum(),
        "the image's own class has the probability p: average with it": lambda b, p: ((1 - p) ** (b - 1)).mean(),
        "that is right only for equally frequent classes": lambda b, p: torch.tensor((1 - 1 / len(p)) ** (b - 1)),
    }
    chances = [[0.5, 0.3, 0.2], [0.25] * 4, [0.9, 0.1], [1.0]]
    cases = [(b, torch.tensor(p, dtype=torch.float64)) for b, p in zip((4, 5, 7, 3), chances, strict=True)]
    return checks.compare("share_alone", share_alone, reference, [*cases, (1, cases[0][1])], mistakes)


def exercise_3(entropic_correlation: Any) -> Outcome:
    """The correlation of the entropic plan, against a search for the smallest value of cost minus entropy."""

    def reference(epsilon: Tensor, s0: Tensor, s1: Tensor) -> Tensor:
        low, high = torch.zeros_like(s0), torch.ones_like(s0)
        for _ in range(60):  # the slope in rho of -2 rho s0 s1 - epsilon / 2 ln(1 - rho^2) grows with rho
            rho = (low + high) / 2
            falls = epsilon * rho / (1 - rho**2) < 2 * s0 * s1
            low, high = torch.where(falls, rho, low), torch.where(falls, high, rho)
        return low

    def root(p: Tensor, q: Tensor) -> Tensor:
        """The positive root of rho^2 + p rho - q."""
        return -p / 2 + (p**2 / 4 + q).sqrt()

    mistakes = {
        "s0 and s1 are missing": lambda e, s0, s1: root(e / 2, torch.ones_like(e)),
        "a factor 2 is lost: the cost contains -2 rho s0 s1, the entropy ln(1 - rho^2) / 2": lambda e, s0, s1: root(
            e / (s0 * s1), torch.ones_like(e)
        ),
        "that is the covariance; divide it by s0 s1": lambda e, s0, s1: (
            s0 * s1 * root(e / (2 * s0 * s1), torch.ones_like(e))
        ),
        "that is the other root of the quadratic equation": lambda e, s0, s1: (
            -e / (2 * s0 * s1) - root(e / (2 * s0 * s1), torch.ones_like(e))
        ),
    }
    cases = []
    for n in (5, 8):
        s0, s1 = 0.3 + 3 * torch.linspace(0, 1, n).double(), 0.5 + _normal(n).abs()
        cases.append((torch.logspace(-3, 3, n, dtype=torch.float64), s0, s1))
    return checks.compare("entropic_correlation", entropic_correlation, reference, cases, mistakes, atol=1e-5)


def exercise_4a(explanation: Any) -> Outcome:
    """Why the plain iterations break."""
    hints = {
        "a": "there is one for every epsilon above 0: the plans are a bounded set, and entropy makes it unique",
        "b": "with more rounds, or only one, the result is as useless; look at K itself",
    }
    return checks.choice("explanation", explanation, "c", hints)


def exercise_4b(sinkhorn: Any) -> Outcome:
    """Sinkhorn's plan, against scaling in the plan itself where that works; then for tiny epsilon and huge costs."""

    def scaled(costs: Tensor, epsilon: float, rounds: int, mass: float | None = None) -> Tensor:
        """The plan itself, by logarithms: its rows scaled, then its columns."""
        size = math.log(len(costs)) if mass is None else -math.log(mass)
        plan = -costs.double() / epsilon
        for _ in range(rounds):
            plan = plan - plan.logsumexp(dim=1, keepdim=True) - size
            plan = plan - plan.logsumexp(dim=0, keepdim=True) - size
        return plan.exp()

    def plain(costs: Tensor, epsilon: float, rounds: int) -> Tensor:
        plan = (-costs / epsilon).exp()
        for _ in range(rounds):
            plan = plan / plan.sum(dim=1, keepdim=True) / len(costs)
            plan = plan / plan.sum(dim=0, keepdim=True) / len(costs)
        return plan

    mistakes = {
        "rows and columns sum to 1; they must sum to 1/n": lambda c, e, r: scaled(c, e, r, mass=1.0),
        "the minus sign in K is lost: the most expensive pairs are the likeliest": lambda c, e, r: scaled(-c, e, r),
        "epsilon is missing": lambda c, e, r: scaled(c, 1.0, r),
        "columns first; the rows come first, and the columns are exact at the end": lambda c, e, r: scaled(c.T, e, r).T,
        "the plan is transposed": lambda c, e, r: scaled(c, e, r).T,
    }
    cases = []
    for n, epsilon, rounds in ((4, 0.7, 3), (6, 2.0, 2), (5, 0.4, 4)):
        x0, x1 = _normal(2, n, 3)
        cases.append((torch.cdist(x1, x0).square(), epsilon, rounds))
    if not (found := checks.compare("sinkhorn", sinkhorn, plain, cases, mistakes, rtol=1e-5, atol=1e-7)):
        return found
    hard = [
        (c + shift, e, 50) for (c, _, _), e, shift in zip(cases, (0.001, 1.0, 0.003), (0, 1000, -3000), strict=True)
    ]
    hard.append((1000 * cases[1][0], 1.0, 50))
    shown = "sinkhorn for small epsilon and large costs"
    if not (found := checks.compare(shown, sinkhorn, scaled, hard, mistakes, rtol=1e-5, atol=1e-7)):
        return found
    precise = torch.as_tensor(sinkhorn(cases[0][0], 0.7, 3)).dtype == torch.float64
    return (
        found
        if precise
        else checks.holds("sinkhorn", False, "costs in double precision give a plan in single precision")
    )


def _covariances() -> list[tuple[Tensor, Tensor]]:
    """Pairs of covariances in 2, 3 and 5 dimensions, with different axes."""
    factors = [_normal(2, d, d) for d in (2, 3, 5)]
    both = [factor @ factor.mT + 0.3 * torch.eye(factor.shape[1], dtype=torch.float64) for factor in factors]
    return [(S0, 2 * S1) for S0, S1 in both]


def _samples(S0: Tensor, S1: Tensor) -> tuple[Tensor, Tensor]:
    """x0 and x1 (n, d) whose second moments are exactly S0, S1 and 0."""
    d = len(S0)
    columns = torch.linalg.qr(_normal(64, 2 * d))[0] * 8
    return columns[:, :d] @ torch.linalg.cholesky(S0).T, columns[:, d:] @ torch.linalg.cholesky(S1).T


def _regressed(S0: Tensor, S1: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """The target's best linear prediction from x_t, at samples, and what it leaves: mean squares."""
    x0, x1 = _samples(S0, S1)
    place, target = (1 - t) * x0 + t * x1, x1 - x0
    predicted = place @ torch.linalg.lstsq(place, target).solution
    return predicted.square().sum(dim=1).mean(), (target - predicted).square().sum(dim=1).mean()


def exercise_5a(mean_square_speed: Any, target_variance: Any) -> Outcome:
    """Step 1: both parts, against a regression of the targets on the places of samples with exact moments."""
    cases = [(S0, S1, t) for (S0, S1), t in zip(_covariances(), (0.3, 0.6, 0.85), strict=True)]
    cases.append((cases[0][1], cases[0][0], 0.0))

    def velocity(S0: Tensor, S1: Tensor, t: float) -> Tensor:
        return (t * S1 - (1 - t) * S0) @ torch.linalg.inv((1 - t) ** 2 * S0 + t**2 * S1)

    of_speed = {
        "the covariance of x_t is missing: this is the trace of A A'": lambda S0, S1, t: (
            velocity(S0, S1, t).square().sum()
        ),
        "the covariance of x_t is (1 - t)^2 S0 + t^2 S1, not (1 - t) S0 + t S1": lambda S0, S1, t: (
            velocity(S0, S1, t) @ ((1 - t) * S0 + t * S1) @ velocity(S0, S1, t).T
        ).trace(),
        "this is C, the mean square of the targets": lambda S0, S1, t: (S0 + S1).trace(),
        "this is the other part, the variance of the targets": lambda S0, S1, t: _regressed(S0, S1, t)[1],
    }
    of_variance = {
        "this is C, the mean square of the targets": lambda S0, S1, t: (S0 + S1).trace(),
        "this is the other part, the mean square of the velocity": lambda S0, S1, t: _regressed(S0, S1, t)[0],
    }
    first, second = (lambda S0, S1, t, k=k: _regressed(S0, S1, t)[k] for k in (0, 1))
    if not (found := checks.compare("mean_square_speed", mean_square_speed, first, cases, of_speed)):
        return found
    return checks.compare("target_variance", target_variance, second, cases, of_variance)


def exercise_5b(straightness: Any) -> Outcome:
    """Step 3: S, against the velocities along the trajectories themselves."""

    def along(S0: Tensor, S1: Tensor, steps: int = 240) -> tuple[Tensor, Tensor]:
        """The matrix that takes z_0 to the velocity at each time (steps + 1, d, d), and that to z_1 - z_0."""
        M, speeds = torch.eye(len(S0), dtype=S0.dtype), []
        for k in range(steps + 1):
            t, h = k / steps, 1 / steps
            A = [(s * S1 - (1 - s) * S0) @ torch.linalg.inv((1 - s) ** 2 * S0 + s**2 * S1) for s in (t, t + h / 2)]
            speeds.append(A[0] @ M)
            if k < steps:
                M = M + h * A[1] @ (M + h / 2 * speeds[-1])
        return torch.stack(speeds), M - torch.eye(len(S0), dtype=S0.dtype)

    def reference(S0: Tensor, S1: Tensor) -> Tensor:
        speeds, move = along(S0, S1)
        rest = speeds - move
        return torch.trapezoid((rest @ S0 @ rest.mT).diagonal(dim1=1, dim2=2).sum(dim=1), dx=1 / (len(speeds) - 1))

    def cost(S0: Tensor, S1: Tensor) -> Tensor:
        move = along(S0, S1)[1]
        return (move @ S0 @ move.T).trace()

    mistakes = {
        "this is the integral of E(t); take off the cost of the flow": lambda S0, S1: reference(S0, S1) + cost(S0, S1),
        "this is the cost of the flow": cost,
        "this is C - C_flow, which is V + S": lambda S0, S1: (S0 + S1).trace() - cost(S0, S1),
    }
    pairs = _covariances()
    return checks.compare("straightness", straightness, reference, [*pairs, pairs[0][::-1]], mistakes, rtol=2e-3)


def exercise_5c(straightness_of_nothing: Any) -> Outcome:
    """S for equal Gaussians in one dimension."""
    mistakes = {
        "z_1 = z_0, but on the way there and back the trajectories move": 0.0,
        "that is V; S is C - C_flow - V": math.pi / 2,
    }
    return checks.value("straightness_of_nothing", straightness_of_nothing, 2 - math.pi / 2, mistakes)


def _batches(experiment: Any, draw: Any, batch: int, repeats: int, seed: int) -> dict[str, Tensor] | Outcome:
    """The tables (2, repeats) of an experiment; an Outcome, which has been said, if they have another form."""
    name, kinds = "experiment", ("permutation", "replacement", "half")
    found = tried(name, experiment, draw, batch, repeats, seed, names=("draw", "batch", "repeats", "seed"))
    if isinstance(found, Outcome):
        return found
    if not isinstance(found, dict) or set(found) != set(kinds):
        return checks.holds(name, False, f"return a dictionary with the entries {', '.join(map(repr, kinds))}")
    tables = {}
    for kind in kinds:
        try:
            table = torch.as_tensor(found[kind]).detach().double()
        except (TypeError, ValueError, RuntimeError):
            table = torch.empty(0)
        if table.shape != (repeats, 2) or not table.isfinite().all():
            return checks.holds(name, False, f"{kind}: a tensor of finite numbers of shape ({repeats}, 2) is asked")
        tables[kind] = table.T
    return tables


def exercise_6(experiment: Any, variance_ratio: Any, verdict: Any) -> Outcome:
    """The experiment on draws whose moments are known, its reproducibility, and what it says about the verdict."""
    name = "experiment"
    runs: list[dict[str, Tensor]] = []
    plans = [(2, 0.0, 300, 0), (5, 3.0, 300, 0), (2, 0.0, 20, 0), (2, 0.0, 20, 0), (2, 0.0, 20, 1)]
    for d, mean, repeats, seed in plans:

        def draw(n: int, generator: torch.Generator, d: int = d, mean: float = mean) -> Any:  # standard deviation d - 1
            return mean + (d - 1) * torch.randn(n, d, generator=generator), 4 * torch.rand(n, d, generator=generator)

        if isinstance(run := _batches(experiment, draw, 16, repeats, seed), Outcome):
            return run
        if repeats == 300 and (problem := _problem_of_batches(run, draw, 16, mean, d - 1)):
            return checks.holds(name, False, problem)
        runs.append(run)
    first, _, short, again, other = runs
    if any(not torch.equal(short[kind], again[kind]) for kind in short):
        return checks.holds(name, False, "the same seed gives other numbers: make one generator from the seed")
    if any(torch.equal(short[kind], other[kind]) for kind in short):
        return checks.holds(name, False, "another seed gives the same numbers: the seed is not used")
    checks.holds(name, True, "")
    mistakes = {
        "drawing with replacement adds to the variance over batches, it does not leave it": 1.0,
        "that is the ratio of the standard deviations": math.sqrt(2),
        "that is 1 over the share of pairs that is used; some of them also count twice": 1 / (1 - math.exp(-1)),
    }
    if not (outcome := checks.value("variance_ratio", variance_ratio, 2.0, mistakes, rtol=2e-2)):
        return outcome
    longer, noise = (torch.stack([first[kind][k] for kind in ("replacement", "half")]) for k in (1, 0))
    means, variances = longer.mean(dim=1).tolist(), noise.var(dim=1).tolist()
    words = "in your experiment {} is {:.3f} with replacement and {:.3f} in half batches"
    hints = {
        "same noise, same pairs": words.format("the mean squared distance", *means),
        "less noise, same pairs": words.format("the variance of the control", *variances),
    }
    return checks.choice("verdict", verdict, "same noise, longer pairs", hints)


def _problem_of_batches(found: dict[str, Tensor], draw: Any, batch: int, mean: float, std: float) -> str | None:
    """What is wrong with batch means, whose first column is known and whose second is measured once more."""
    generator = torch.Generator().manual_seed(9)
    for kind, size, factor in (
        ("permutation", batch, 1),
        ("replacement", batch, 2 - 1 / batch),
        ("half", batch // 2, 1),
    ):
        (control, cost), right = found[kind], factor * std**2 / size
        variance, middle = float(control.var()), float(control.mean())
        if abs(middle - mean) > 5 * math.sqrt(right / len(control)):
            return f"{kind}: the control has the mean {middle:.2f}; that of all x0 is {mean:.2f}"
        if not abs(math.log(max(variance, 1e-9) / right)) < 0.31:  # half of ln 1.9, and four standard errors
            said = f"{kind}: the batch mean of the control has the variance {variance:.3f}, and {right:.3f} is right"
            return f"{said}; is each row the mean over one batch, of the size that is asked?"
        draws = (draw(size, generator) for _ in range(100))
        own = torch.stack([(x1 - _by_assignment(x0, x1)).square().sum(dim=1).mean() for x0, x1 in draws])
        spread = math.sqrt(float(cost.var()) / len(cost) + float(own.var()) / len(own))
        if abs(float(cost.mean() - own.mean())) > 5 * spread:
            said = f"{kind}: the mean squared distance is {float(cost.mean()):.3f}, not {float(own.mean()):.3f}"
            return f"{said}; draw whole pairs from the optimal plan, x0 together with its x1"
    return None
