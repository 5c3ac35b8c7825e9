# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Exercises to 07 Closed form
#
# Fill in the places marked `...` and run the cell below each of them: it says whether your function is right and, if
# it is not, what is wrong. The words and formulas are in [the chapter](../07_closed_form.ipynb).

# %%
import math
import weakref

import torch

from fmcore import closed_form, paths
from fmcore.course import checks, plotting, style

style.use()


def without_nan(function):
    """The same function with -1e6 in the place of NaN, so that a check can say what a NaN comes from."""

    def inner(*arguments):
        result = function(*arguments)
        return result.nan_to_num(nan=-1e6) if isinstance(result, torch.Tensor) else result

    return inner


# %% [markdown]
# ## 1. The weights
#
# Write the posterior weights of the straight path,
#
# $$
# w_i(x, t) = \operatorname{softmax}_i \Big( \! -\frac{\| x - t x^{(i)} \|^2}{2 (1-t)^2} \Big) ,
# $$
#
# for `x` of shape $(B, d)$, times `t` of shape $(B,)$, one for each row, and `points` of shape $(n, d)$. Return a
# tensor of shape $(B, n)$. Near $t = 1$ all exponents are far below $-1000$, and `exp` of them is 0: `torch.softmax`
# subtracts the largest first.


# %% tags=["exercise", "points:2"]
def weights(x, t, points):
    ### BEGIN SOLUTION
    t = t[:, None]
    squares = (x[:, None] - t[..., None] * points).square().sum(dim=2)
    return torch.softmax(-squares / (2 * (1 - t) ** 2), dim=1)
    ### END SOLUTION


# %% tags=["check"]
def reference_weights(x, t, points):
    return closed_form.EmpiricalVelocity(points).weights(x, t)


def softmax_of(exponent, dim=1):
    """The softmax over an exponent made from x (B, 1, d), t (B, 1, 1) and points (n, d)."""
    return lambda x, t, points: torch.softmax(exponent(x[:, None], t[:, None, None], points)[..., 0], dim=dim)


def squared(difference):
    return difference.square().sum(dim=-1, keepdim=True)


def by_exp(x, t, points):
    share = torch.exp(-squared(x[:, None] - t[:, None, None] * points) / (2 * (1 - t[:, None, None]) ** 2))[..., 0]
    return share / share.sum(dim=1, keepdim=True)


# %% tags=["check"]
mistakes = {
    "sign flipped: the minus in the exponent is missing, and the farthest point wins": softmax_of(
        lambda x, t, p: squared(x - t * p) / (2 * (1 - t) ** 2)
    ),
    "forgot t before the points: at time t the point i stands at t x_i": softmax_of(
        lambda x, t, p: -squared(x - p) / (2 * (1 - t) ** 2)
    ),
    "the factor 2 in the denominator is missing": softmax_of(lambda x, t, p: -squared(x - t * p) / (1 - t) ** 2),
    "1 - t is not squared: the variance belongs there": softmax_of(lambda x, t, p: -squared(x - t * p) / (2 * (1 - t))),
    "the denominator is missing: the exponent must be in units of the noise": softmax_of(
        lambda x, t, p: -squared(x - t * p)
    ),
    "the distance is not squared": softmax_of(lambda x, t, p: -squared(x - t * p).sqrt() / (2 * (1 - t) ** 2)),
}

# %% tags=["check"]
mistakes |= {
    "the maximum is not subtracted: exp of every exponent is 0 near t = 1, and 0 / 0 is NaN; use torch.softmax": by_exp,
    "the softmax runs over the batch: over the points, dim=1, each row must sum to one": softmax_of(
        lambda x, t, p: -squared(x - t * p) / (2 * (1 - t) ** 2), dim=0
    ),
    "these are the logarithms of the weights": lambda x, t, p: reference_weights(x, t, p).log(),
    "averaged over the dimensions; the squared norm is a sum over them": softmax_of(
        lambda x, t, p: -squared(x - t * p) / (2 * p.shape[1] * (1 - t) ** 2)
    ),
    "t not broadcast over the batch: one time is used for all rows; each row has its own t": lambda x, t, p: (
        reference_weights(x, t[:1].expand_as(t), p)
    ),
}
mistakes = {words: without_nan(wrong) for words, wrong in mistakes.items()}

# %% tags=["check"]
generator = torch.Generator().manual_seed(1)
weight_cases = []
for B, n, d in ((4, 6, 2), (5, 3, 3), (3, 8, 5)):
    points = torch.randn(n, d, generator=generator, dtype=torch.float64)
    t = torch.cat([torch.rand(B - 1, generator=generator), torch.tensor([0.995])]).double()
    noise = torch.randn(B, d, generator=generator, dtype=torch.float64)
    # As far from the points as a solver's rounding takes a sample: there every exponent is large.
    far = 8.0 * (t > 0.99)[:, None]
    weight_cases.append(((1 - t[:, None]) * noise + t[:, None] * points[:1] + far, t, points))
seen = weights if not callable(weights) else without_nan(weights)
right_weights = checks.compare("weights", seen, reference_weights, weight_cases, mistakes, rtol=1e-4, atol=1e-6)

# %% [markdown]
# ## 2. Two points on any path
#
# The training set is two points, `a` and `b`, each of shape $(d,)$, the path is $x_t = \alpha x_1 + \sigma x_0$.
# Return the weight of `a` at `x`, shape $(B, d)$, for the numbers `alpha` and `sigma`; the result has the shape
# $(B,)$. Expand the two squares first: what remains in the sigmoid is a mixed term with $\langle x, a - b \rangle$
# and a second one that vanishes only if `a` and `b` are equally long.


# %% tags=["exercise", "points:2"]
def weight_of_a(x, a, b, alpha, sigma):
    ### BEGIN SOLUTION
    mixed = alpha * (x @ (a - b)) / sigma**2
    lengths = alpha**2 * (a.square().sum() - b.square().sum()) / (2 * sigma**2)
    return torch.sigmoid(mixed - lengths)
    ### END SOLUTION


# %% tags=["check"]
def reference_two(x, a, b, alpha, sigma):
    """From the two densities."""
    log_density = torch.stack([-(x - alpha * p).square().sum(dim=1) / (2 * sigma**2) for p in (a, b)])
    return torch.softmax(log_density, dim=0)[0]


def inside(formula):
    """A sigmoid of m = <x, a - b> and l = |a|^2 - |b|^2, for a formula of m, l, alpha and sigma."""
    return lambda x, a, b, alpha, sigma: torch.sigmoid(formula(x @ (a - b), a @ a - b @ b, alpha, sigma))


mistakes = {
    "this is the weight of b: sign flipped in the sigmoid": inside(lambda m, q, A, S: -(A * m - A * A * q / 2) / S**2),
    "the second term is missing: a and b may have different lengths": inside(lambda m, q, A, S: A * m / S**2),
    "the second term has the wrong sign: the longer point needs more evidence": inside(
        lambda m, q, A, S: (A * m + A * A * q / 2) / S**2
    ),
    "the factor 1/2 of the second term is missing": inside(lambda m, q, A, S: (A * m - A * A * q) / S**2),
    "the mixed term has a 2 in its denominator too; the 2 of the square cancels it": inside(
        lambda m, q, A, S: (A * m / 2 - A * A * q / 2) / S**2
    ),
}

# %% tags=["check"]
mistakes |= {
    "a factor 2 is left in the mixed term: it cancels with the 2 of the denominator": inside(
        lambda m, q, A, S: (2 * A * m - A * A * q / 2) / S**2
    ),
    "forgot alpha: at that time the points stand at alpha a and alpha b": inside(lambda m, q, A, S: (m - q / 2) / S**2),
    "alpha is missing in the mixed term": inside(lambda m, q, A, S: (m - A * A * q / 2) / S**2),
    "alpha is not squared in the second term": inside(lambda m, q, A, S: (A * m - A * q / 2) / S**2),
    "sigma is not squared: the variance belongs there": inside(lambda m, q, A, S: (A * m - A * A * q / 2) / S),
    "sigma is missing: the evidence counts in units of the noise": inside(lambda m, q, A, S: A * m - A * A * q / 2),
    "the sigmoid is missing: this is the difference of the exponents": lambda x, a, b, A, S: torch.logit(
        reference_two(x, a, b, A, S)
    ),
}

# %% tags=["check"]
two_cases = []
for B, d, t in ((5, 2, 0.3), (4, 3, 0.6), (6, 4, 0.45)):
    path = paths.variance_preserving(beta_max=6.0)
    a, b = 1.5 * torch.randn(d, generator=generator).double(), torch.randn(d, generator=generator).double()
    x = torch.randn(B, d, generator=generator).double()
    two_cases.append((x, a, b, float(path.alpha(torch.tensor(t))), float(path.sigma(torch.tensor(t)))))
checks.compare("weight_of_a", weight_of_a, reference_two, two_cases, mistakes, rtol=1e-5, atol=1e-7)

# %% [markdown]
# ## 3. A running softmax
#
# ImageNet does not fit into memory, its velocity does. Write the posterior mean $\sum_i w_i x^{(i)}$ for one `q`,
# shape $(d,)$, with the exponents $e_i = \rho \langle q, x^{(i)} \rangle - \frac12 \rho^2 \| x^{(i)} \|^2$, from an
# iterator `chunks` that yields the points in pieces of shape $(k, d)$ and can be walked through **once**. Keep three
# things: the largest exponent so far, the sum of the $e^{e_i - \text{largest}}$, and the sum of these times the
# points. When a chunk brings a new largest exponent, both old sums must be scaled down to it. Do not collect the
# chunks.


# %% tags=["exercise", "points:3"]
def running_mean(q, rho, chunks):
    ### BEGIN SOLUTION
    largest, weight, total = torch.tensor(-torch.inf, dtype=q.dtype), 0.0, torch.zeros_like(q)
    for points in chunks:
        exponents = rho * (points @ q) - 0.5 * rho**2 * points.square().sum(dim=1)
        new = torch.maximum(largest, exponents.max())
        share, shrink = torch.exp(exponents - new), torch.exp(largest - new)
        weight, total = weight * shrink + share.sum(), total * shrink + share @ points
        largest = new
    return total / weight
    ### END SOLUTION


# %% tags=["check"]
def exponents_of(q, rho, points):
    return rho * (points @ q) - 0.5 * rho**2 * points.square().sum(dim=1)


def reference_mean(q, rho, points):
    return torch.softmax(exponents_of(q, rho, points), dim=0) @ points


def each_chunk(q, rho, points):
    return torch.stack([reference_mean(q, rho, chunk) for chunk in points.split(4)])


def old_sums(q, rho, points, shrink_weight, shrink_total):
    """The running softmax in which the old sums are scaled down or not."""
    largest, weight, total = -torch.inf, 0.0, 0.0
    for chunk in points.split(4):
        exponents = exponents_of(q, rho, chunk)
        new = max(largest, float(exponents.max()))
        share, shrink = torch.exp(exponents - new), math.exp(largest - new)
        weight = weight * (shrink if shrink_weight else 1) + share.sum()
        total = total * (shrink if shrink_total else 1) + share @ chunk
        largest = new
    return total / weight


# %% tags=["check"]
def plain(q, rho, points):
    share = exponents_of(q, rho, points).exp()
    return (share @ points) / share.sum()


mistakes = {
    "the old sums are not scaled down when a larger exponent comes": lambda *a: old_sums(*a, False, False),
    "only the sum of the points is scaled down; the sum of the weights must be, too": lambda *a: old_sums(
        *a, False, True
    ),
    "only the sum of the weights is scaled down; the sum of the points must be, too": lambda *a: old_sums(
        *a, True, False
    ),
    "the largest exponent is not subtracted: exp overflows, and infinity / infinity is NaN": plain,
    "this is the plain average of the means of the chunks; a chunk counts as much as its weights sum to": lambda *a: (
        each_chunk(*a).mean(dim=0)
    ),
    "this is the mean of the last chunk alone": lambda *a: each_chunk(*a)[-1],
    "this is the mean of the first chunk alone: is the return inside the loop?": lambda *a: each_chunk(*a)[0],
}

# %% tags=["check"]
mistakes |= {
    "the sum of the weights is missing: divide by it at the end": lambda q, rho, p: (
        torch.exp(exponents_of(q, rho, p) - exponents_of(q, rho, p).max()) @ p
    ),
    "the bias of the keys, - rho^2 |x_i|^2 / 2, is missing": lambda q, rho, p: torch.softmax(rho * p @ q, 0) @ p,
    "the factor 1/2 of the bias is missing": lambda q, rho, p: (
        torch.softmax(rho * p @ q - rho**2 * p.square().sum(1), 0) @ p
    ),
}
mistakes = {words: without_nan(wrong) for words, wrong in mistakes.items()}


# %% tags=["check"]
class Stream:
    """Yields the points in chunks of four, once, and counts how many chunks are alive at a time."""

    most_alive = 0

    def __init__(self, points):
        self.points = points

    def __iter__(self):
        handed_out = []
        for start in range(0, len(self.points), 4):
            chunk = self.points[start : start + 4].clone()
            handed_out.append(weakref.ref(chunk))
            alive = sum(reference() is not None for reference in handed_out)
            Stream.most_alive = max(Stream.most_alive, alive)
            yield chunk
            del chunk


def attempt(q, rho, points):
    return without_nan(running_mean)(q, rho, iter(Stream(points)))


# %% tags=["check"]
mean_cases = []
for n, d, rho in ((10, 2, 1.0), (14, 3, 2.0), (13, 4, 80.0)):
    points = torch.randn(n, d, generator=generator, dtype=torch.float64)
    points = points[(points @ points[0]).argsort()]  # the best match comes late
    noise = torch.randn(d, generator=generator, dtype=torch.float64)
    mean_cases.append((noise + rho * points[-2], rho, points))
right_mean = checks.compare("running_mean", attempt, reference_mean, mean_cases, mistakes, rtol=1e-6, atol=1e-8)
if right_mean:
    few_alive = Stream.most_alive <= 2
    checks.holds(
        "running_mean, memory", few_alive, f"{Stream.most_alive} chunks were kept at a time: use each, then let it go"
    )

# %% [markdown]
# ## 4. The effective number of images
#
# `exponents` has shape $(B, n)$: the exponents in the softmax of each row, from which a constant may have been left
# out. Return $n_{\mathrm{eff}} = \exp \big( - \sum_i w_i \log w_i \big)$ for each row, shape $(B,)$. Some weights are
# exactly 0 in floating point, and $0 \cdot \log 0$ is NaN; the limit is 0. `torch.log_softmax` has the logarithms of
# the weights without ever taking one of zero, and `torch.special.entr(w)` is $-w \log w$ with the right limit.


# %% tags=["exercise", "points:2"]
def effective_number(exponents):
    ### BEGIN SOLUTION
    w = torch.softmax(exponents, dim=1)
    return torch.special.entr(w).sum(dim=1).exp()
    ### END SOLUTION


# %% tags=["check"]
def reference_effective(exponents):
    log_w = torch.log_softmax(exponents, dim=1)
    return torch.exp(-torch.where(log_w > -700, log_w.exp() * log_w, 0.0).sum(dim=1))


def entropy(exponents):
    return reference_effective(exponents).log()


def raw(exponents):
    w = torch.softmax(exponents, dim=1)
    return torch.exp(-(w * w.log()).sum(dim=1))


mistakes = {
    "0 log 0 became NaN: use torch.log_softmax or torch.special.entr": raw,
    "0 log 0 became NaN, and the exponential is missing": lambda e: raw(e).log(),
    "this is the entropy: its exponential is missing": entropy,
    "the minus sign is missing: this is 1 / n_eff": lambda e: 1 / reference_effective(e),
    "this is 1 / sum of w^2, another effective number, which is never larger": lambda e: (
        1 / torch.softmax(e, dim=1).square().sum(dim=1)
    ),
    "the entropy is in bits: 2 to its power, or the natural logarithm": lambda e: (entropy(e) / math.log(2)).exp(),
    "averaged over the images; the entropy is a sum over them": lambda e: (entropy(e) / e.shape[1]).exp(),
}

# %% tags=["check"]
mistakes |= {
    "the exponents are taken for log-weights: a constant was left out, so normalize with a softmax": lambda e: (
        torch.exp(-(e.exp() * e).sum(dim=1))
    ),
    "this is the number of weights above zero": lambda e: (torch.softmax(e, dim=1) > 0).sum(dim=1),
    "the softmax runs over the batch: over the images, dim=1": lambda e: (
        torch.special.entr(torch.softmax(e, dim=0)).sum(dim=1).exp()
    ),
    "all rows are mixed into one number": lambda e: entropy(e).mean().exp(),
}
mistakes = {words: without_nan(wrong) for words, wrong in mistakes.items()}
effective_cases = [
    (spread * torch.randn(B, n, generator=generator, dtype=torch.float64) + 1.5,)
    for B, n, spread in ((3, 7, 1.0), (4, 5, 900.0), (5, 20, 2.0))
]
seen = effective_number if not callable(effective_number) else without_nan(effective_number)
checks.compare("effective_number", seen, reference_effective, effective_cases, mistakes, rtol=1e-5, atol=1e-7)

# %% [markdown]
# ## 5. The time of the collapse
#
# For `n` points from $\mathcal{N}(0, s^2 I)$ in `d` dimensions: solve $\log n = \frac d2 \log(1 + \rho^2 s^2)$ for
# $\rho$, and return the time $t$ that belongs to $\rho = t / (1 - t)$.


# %% tags=["exercise", "points:2"]
def collapse_time(n, d, s):
    ### BEGIN SOLUTION
    rho = math.sqrt(n ** (2 / d) - 1) / s
    return rho / (1 + rho)
    ### END SOLUTION


# %% tags=["check"]
def reference_time(n, d, s):
    """By bisection, where evidence and log n meet."""
    low, high = 0.0, 1.0
    for _ in range(60):
        t = (low + high) / 2
        low, high = (t, high) if d / 2 * math.log1p((t / (1 - t) * s) ** 2) < math.log(n) else (low, t)
    return low


def time_of(rho):
    return lambda n, d, s: rho(n, d, s) / (1 + rho(n, d, s))


# %% tags=["check"]
mistakes = {
    "this is rho; the time is rho / (1 + rho)": lambda n, d, s: math.sqrt(n ** (2 / d) - 1) / s,
    "rho = t / (1 - t) is solved by t = rho / (1 + rho), not by rho / (1 - rho)": lambda n, d, s: (
        math.sqrt(n ** (2 / d) - 1) / s / (1 - math.sqrt(n ** (2 / d) - 1) / s)
    ),
    "the square root is missing: this takes rho^2 for rho": time_of(lambda n, d, s: (n ** (2 / d) - 1) / s**2),
    "the exponent is 2 / d, not 1 / d: the d / 2 stands in front of the logarithm": time_of(
        lambda n, d, s: math.sqrt(n ** (1 / d) - 1) / s
    ),
    "forgot the 1 under the logarithm: n^(2/d) - 1": time_of(lambda n, d, s: math.sqrt(n ** (2 / d)) / s),
}

# %% tags=["check"]
mistakes |= {
    "s is missing: a fainter image collapses later": time_of(lambda n, d, s: math.sqrt(n ** (2 / d) - 1)),
    "times s, where it is divided by s: a fainter image collapses later": time_of(
        lambda n, d, s: math.sqrt(n ** (2 / d) - 1) * s
    ),
    "that is the limit of many dimensions, sqrt(2 log n / d) / s; no approximation is needed": time_of(
        lambda n, d, s: math.sqrt(2 * math.log(n) / d) / s
    ),
    "that is the first guess, in which the mean gap alone beats n competitors": time_of(
        lambda n, d, s: math.sqrt(math.log(n) / d) / s
    ),
}

# %% tags=["check"]
time_cases = [(1000, 16, 1.0), (50_000, 3072, 0.5), (20, 3, 2.0)]
right_time = checks.compare("collapse_time", collapse_time, reference_time, time_cases, mistakes, rtol=1e-6, atol=1e-9)

# %% [markdown]
# With the functions of 1 and 5 you can see theory and experiment together. Once both are right, this cell makes
# Gaussian points, takes noisy ones at each time, and draws the median weight of the point that each was made from; a
# dotted line stands where your theory expects one half.

# %%
picture = None
if right_weights and right_time:
    picture, ax = plotting.canvas(width=7.2, height=3.7)
    generator, times = torch.Generator().manual_seed(2), torch.linspace(0.02, 0.98, 25)
    for d, color in ((2, style.SOURCE), (8, style.PATH), (64, style.DATA)):
        points, noise = (torch.randn(100, d, generator=generator) for _ in range(2))
        own = [weights((1 - t) * noise + t * points, t.expand(100), points).diagonal().median() for t in times]
        ax.plot(times, own, color=color, label=f"d = {d}")
        ax.axvline(collapse_time(100, d, 1.0), color=color, linestyle=":")
    ax.set(xlabel="t", title="median own weight, 100 Gaussian points")
    ax.legend()
picture
