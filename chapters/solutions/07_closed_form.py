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
# Fill in the places marked `...` and run the cell below each of them: it says whether your answer is right and, if it
# is not, what is wrong. The terms and formulas are in [the chapter](../07_closed_form.ipynb). Each exercise has a line
# with its kind, the minutes that it takes once you have read the chapter, and its difficulty.

# %%
import math

import torch

from fmcore import closed_form, data, paths, solvers
from fmcore.course import checks, plotting, style

style.use()

# %% [markdown]
# ## 1. Two points on any path
#
# *Derivation · 10 minutes · ★☆☆*
#
# The training set is two points, `a` and `b`, each of shape $(d,)$, and the path is $x_t = \alpha x_1 + \sigma x_0$. The
# chapter has the posterior weight of $a$ for $b = -a$ and the straight path. Derive it for any two points and any path. `x` has
# shape $(B, d)$, `alpha` and `sigma` are numbers; return shape $(B,)$. The points may be so far away that `exp` overflows.
#
# <details><summary>Hint</summary>
#
# Write the weight as a sigmoid of the difference of two exponents and expand the squares. Besides a term with
# $\langle x, a - b \rangle$ a second one remains, which vanishes if $a$ and $b$ are equally long.
#
# </details>


# %% tags=["exercise", "points:2"]
def weight_of_a(x, a, b, alpha, sigma):
    ### BEGIN SOLUTION
    mixed = alpha * (x @ (a - b)) / sigma**2
    lengths = alpha**2 * (a.square().sum() - b.square().sum()) / (2 * sigma**2)
    return torch.sigmoid(mixed - lengths)
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("07.1", weight_of_a)

# %% [markdown]
# ## 2. Basins on a line
#
# *Derivation · 20 minutes · ★★★*
#
# Let $d = 1$. The data are $n$ different numbers $x^{(1)}, \dots, x^{(n)}$ with probabilities $p_1, \dots, p_n > 0$ that sum to
# 1 and need not be equal. The source is $\mathcal{N}(0, 1)$. Following $u^*$, every noise sample ends at one of the numbers, so
# the line of noise samples is divided into $n$ basins. Derive the $n - 1$ places where one basin ends and the next begins.
#
# `points` and `probabilities` have shape $(n,)$ and are in the same order, which need not be that of the line. Return the
# places from left to right, shape $(n - 1,)$.
#
# <details><summary>Hint</summary>
#
# Can two trajectories of one differential equation cross on a line? What follows for the order of starts and ends? And how
# much of the noise does each basin hold? `torch.special.ndtri` is the inverse of the distribution function $\Phi$.
#
# </details>


# %% tags=["exercise", "points:3"]
def borders(points, probabilities):
    ### BEGIN SOLUTION
    order = points.argsort()
    return torch.special.ndtri(probabilities[order].cumsum(dim=0)[:-1])
    ### END SOLUTION


# %% tags=["check"]
right_borders = checks.exercise("07.2", borders)

# %% [markdown]
# Once the check is right, this cell follows noise samples to the numbers $-2$, $0$ and $0.5$ with probabilities $\frac14$,
# $\frac12$ and $\frac14$. Dotted lines at the left are your borders.

# %%
picture = None
if right_borders:
    numbers = torch.tensor([[0.0], [-2.0], [0.5], [0.0]])  # 0 stands there twice
    starts, path = torch.linspace(-2.6, 2.6, 53)[:, None], paths.rectified()
    times = torch.linspace(0, path.t_max, 201)
    ways = solvers.solve(closed_form.EmpiricalVelocity(numbers), starts, t1=path.t_max, times=times).trajectory
    picture, ax = plotting.canvas(width=7.2, height=3.7)
    ax.plot(times, ways[..., 0], color=style.PATH, linewidth=1)
    for place in borders(torch.tensor([0.0, -2.0, 0.5]), torch.tensor([0.5, 0.25, 0.25])).tolist():
        ax.plot([-0.06, 0.12], [place, place], ":", color=style.EXACT, linewidth=2.5)
    ax.set(xlabel="t", ylabel="x", yticks=[-2, 0, 0.5])
picture

# %% [markdown]
# ## 3. A running softmax
#
# *Derivation · 25 minutes · ★★★*
#
# ImageNet does not fit into memory, but its exact velocity does. Write the posterior mean $\sum_i w_i x^{(i)}$ for one query
# $q$, shape $(d,)$, with the exponents of the chapter,
# $e_i = \rho \langle q, x^{(i)} \rangle - \frac12 \rho^2 \| x^{(i)} \|^2$. The points come from an iterator `chunks` that yields
# them in pieces of shape $(k, d)$, with different $k$, and can be walked through **once**. The memory that you need must not grow
# with the number of chunks, so neither points nor exponents may be collected. Exponents may be in the thousands, positive
# or negative, and the largest may come in any chunk.
#
# <details><summary>Hint</summary>
#
# With exponents near zero two running sums would do: of $e^{e_i}$, and of $e^{e_i} x^{(i)}$. For large exponents keep both sums
# divided by $e^m$, where $m$ is the largest exponent *so far*. What happens to the two sums when a chunk brings a larger one?
#
# </details>


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
checks.exercise("07.3", running_mean)

# %% [markdown]
# ## 4. An effective number that is wrong
#
# *Diagnosis · 15 minutes · ★★☆*
#
# `exponents` has shape $(B, n)$: the exponents in the softmax of each of $B$ queries over $n$ images. The function was meant to
# return $n_{\mathrm{eff}}$ of the chapter for each query, shape $(B,)$. Four queries whose answer is known show that it does not.
# There are **three** faults.


# %%
def broken_effective_number(exponents):
    weights = torch.softmax(exponents, dim=0)
    entropy = -(weights * weights.log2()).sum(dim=1)
    return entropy.exp()


def known_answers(effective_number):
    """What a function says for queries whose effective number is known."""
    far = -2000.0
    queries = {
        "all 6 images count alike: 6": [7.0] * 6,
        "2 of 6 count alike: 2": [3.0, far, far, 3.0, far, far],
        "1 of 6 counts: 1": [far, far, 3000.0, far, far, far],
        "as 1 : 1 : 2, exp(1.040): 2.828": [0.0, 0.0, math.log(2), far, far, far],
    }
    found = effective_number(torch.tensor(list(queries.values()), dtype=torch.float64))
    for query, number in zip(queries, found, strict=True):
        print(f"{query:35} yours {float(number):.3f}")


known_answers(broken_effective_number)

# %% [markdown]
# Mend it. Exponents may have any size, and any constant may have been left out of those of a query.
#
# <details><summary>Hint</summary>
#
# Give the function a single query (a batch of one): what should its weights sum to, and along which axis? Then look at the
# intermediate results. Which value does $w \log w$ have in floating point for $w = 0$, and which is its limit? Which number
# belongs to the power of an entropy in bits?
#
# </details>


# %% tags=["exercise", "points:2"]
def effective_number(exponents):
    ### BEGIN SOLUTION
    weights = torch.softmax(exponents, dim=1)
    return torch.special.entr(weights).sum(dim=1).exp()  # entr(w) is -w log w, and 0 for w = 0
    ### END SOLUTION


# %% tags=["check"]
mended = checks.exercise("07.4", effective_number)

# %%
known_answers(effective_number) if mended else None

# %% [markdown]
# ## 5. The evidence of coordinates with different variances
#
# *Proof · 30 minutes · ★★★*
#
# Let the coordinates of the data be independent and normal: coordinate $k$ has mean $m_k$ and variance $\lambda_k$. As in the
# chapter $q = x_0 + \rho\, x_1$ with $\rho = t / (1 - t)$. A training point $x$ has the weight $e^{-\frac12 \|q - \rho x\|^2}$ before
# normalization.
#
# **Claim.** The logarithm of the weight of the true point $x_1$ exceeds the logarithm of the mean weight of a fresh point, on
# average over $x_0$ and $x_1$, by exactly
#
# $$
# \tfrac12 \sum_{k=1}^d \log (1 + \rho^2 \lambda_k) .
# $$
#
# **Proof.** The coordinates are independent and the exponent is a sum over them, so consider one coordinate first and leave
# out the index $k$.
#
# 1. *Complete the square.* As a function of $x$,
#    $\frac12 (q - \rho x)^2 + \frac{(x - m)^2}{2 \lambda} = \frac{(x - c)^2}{2 v} + r$.
#    The width $v$ depends on $\rho$ and $\lambda$, the rest $r$ is what remains at the minimum $x = c$.
# 2. *Integrate.* The mean weight of a fresh point is the integral of $e^{-\frac12 (q - \rho x)^2}$ times the normal density,
#    hence $\sqrt{v / \lambda}\; e^{-r}$. For $d$ coordinates the logarithms add up.
# 3. *Take the mean.* The logarithm of the weight of the true point is $-\frac12 \|x_0\|^2$, with mean $-\frac d2$. And
#    $q - \rho m$ has a known variance, so the mean of $r$ is a number. In the difference of the two everything but the
#    $\log \sqrt{v / \lambda}$ cancels, which is the claim. $\square$
#
# Together with the $n$ competitors, whose weights add up to about $n$ times the mean weight, this gives the collapse.
#
# Step 1: write $v$ and $r$ (numbers, for numbers `q`, `rho`, `m` and `lam` $= \lambda$).
#
# <details><summary>Hint</summary>
#
# $1 / v$ is the second derivative in $x$. Without a calculation: for fixed $m$, $q$ is normal with mean $\rho m$ and the variance
# that noise and data have together, and $e^{-r}$ must be its density up to a factor.
#
# </details>


# %% tags=["exercise", "points:2"]
def width(rho, lam):
    ### BEGIN SOLUTION
    return lam / (1 + rho**2 * lam)
    ### END SOLUTION


def rest(q, rho, m, lam):
    ### BEGIN SOLUTION
    return (q - rho * m) ** 2 / (2 * (1 + rho**2 * lam))
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("07.5a", width, rest)

# %% [markdown]
# Step 2: the logarithm of the mean weight of a fresh point, one number; `q`, `m` and `lam` have shape $(d,)$.


# %% tags=["exercise", "points:2"]
def log_mean_weight(q, rho, m, lam):
    ### BEGIN SOLUTION
    return (-torch.log1p(rho**2 * lam) / 2 - rest(q, rho, m, lam)).sum()
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("07.5b", log_mean_weight)

# %% [markdown]
# Step 3, with a consequence: the time $t$ at which the mean difference of the claim is $\log n$. There is no formula for it
# if the $\lambda_k$ differ, so solve the equation numerically, to five digits. `lam` has shape $(d,)$; return a number.


# %% tags=["exercise", "points:2"]
def collapse_time(n, lam):
    ### BEGIN SOLUTION
    low, high = 0.0, 1.0
    for _ in range(40):
        t = (low + high) / 2
        evidence = torch.log1p((t / (1 - t)) ** 2 * lam).sum() / 2
        low, high = (t, high) if evidence < math.log(n) else (low, t)
    return low
    ### END SOLUTION


# %% tags=["check"]
right_time = checks.exercise("07.5c", collapse_time)

# %% [markdown]
# Once it is right, this cell draws theory and experiment together: the median posterior weight of the true point for 100
# Gaussian points, and a dotted line where your theory expects one half. In the third case most directions are faint.

# %%
picture = None
if right_time:
    picture, ax = plotting.canvas(width=7.2, height=3.7)
    generator, times = torch.Generator().manual_seed(2), torch.linspace(0.02, 0.98, 25)
    cases = {"d = 8": torch.ones(8), "d = 64": torch.ones(64), "d = 64, 56 of them faint": torch.ones(64)}
    cases["d = 64, 56 of them faint"][8:] = 0.01
    for (name, lam), color in zip(cases.items(), (style.SOURCE, style.DATA, style.PATH), strict=True):
        points, noise = torch.randn(2, 100, len(lam), generator=generator)
        points = lam.sqrt() * points
        velocity = closed_form.EmpiricalVelocity(points)
        own = [velocity.weights((1 - t) * noise + t * points, t).diagonal().median() for t in times]
        ax.plot(times, own, color=color, label=name)
        ax.axvline(collapse_time(100, lam), color=color, linestyle=":")
    ax.set(xlabel="t", title="median posterior weight of the true point")
    ax.legend()
picture

# %% [markdown]
# ## 6. Does the covariance tell the collapse time?
#
# *Investigation · 40 minutes · ★★★*
#
# The formula of exercise 5 knows two things about the data: their number and their covariance. In the chapter it was close for
# digits, but early. There are two possible reasons: the formula itself is approximate, or digits are **not Gaussian** and
# what matters is not in the covariance. Separate the two by an experiment.
#
# Write `experiment(points, seed)` for `points` of shape $(n, d)$. It returns a dictionary with
#
# - `"data"`: at least five measured collapse times of the points, with new pairs for each;
# - `"control"`: as many collapse times of a control that shares *everything that the formula knows* with the data, and is
#   Gaussian; draw the control anew for each;
# - `"verdict"`: `"later"` or `"earlier"`, if the mean of the data is more than 0.03 later or earlier than that of the control,
#   `"no difference"` otherwise. Let your own numbers decide.
#
# `measured_collapse` is the measurement of the chapter. The experiment will be run for point sets and seeds that you do not know.


# %%
def measured_collapse(points, generator, count=300):
    """The time at which the median posterior weight of the true point is one half, over `count` pairs."""
    own = torch.randint(len(points), (count,), generator=generator)
    noise = torch.randn(count, points.shape[1], generator=generator).to(points)
    inner = noise @ points.T
    gaps, squares = inner - inner.gather(1, own[:, None]), torch.cdist(points[own], points).square()
    low, high = 0.0, 1.0
    for _ in range(12):
        rho = (low + high) / (2 - low - high)
        weight = torch.exp(-torch.logsumexp(rho * gaps - rho**2 * squares / 2, dim=1))
        low, high = (low, (low + high) / 2) if weight.median() > 0.5 else ((low + high) / 2, high)
    return low


generator = torch.Generator().manual_seed(1)
centres = 3 * torch.randn(12, 6, generator=generator)
DATA = {
    "Gaussian": torch.randn(300, 8, generator=generator).double(),
    "12 clusters": (centres.repeat(25, 1) + 0.1 * torch.randn(300, 6, generator=generator)).double(),
    "corners of a cube": torch.randn(400, 16, generator=generator).sign().double(),
}
DATA["digits"] = data.digits().scaled(data.digits().train).flatten(1).double()[:500]

# %% [markdown]
# A good answer (one point for each line):
#
# - says what exactly the control shares with the data, and why a control with equal variances in all directions would not do;
# - has means with standard errors for at least three data sets, and says how large a difference could have been missed;
# - compares both times with the formula, and says which part of its error is due to which reason;
# - explains why no data set collapses much *earlier* than its control (among all distributions with the same covariance, which one
#   carries the most information through Gaussian noise?);
# - names a data set for which covariance is useless, with the measurement, and says what one would have to know instead.
#
# <details><summary>Hint</summary>
#
# If $L L^\top$ is the covariance (`torch.linalg.cholesky` has $L$), then $L z + m$ with standard normal $z$ has it. Some digit pixels
# are always black, so their covariance has zero eigenvalues: add a tiny multiple of the identity.
#
# </details>


# %% tags=["exercise", "points:4"]
def experiment(points, seed):
    ### BEGIN SOLUTION
    generator, found = torch.Generator().manual_seed(seed), {"data": [], "control": []}
    n, d = points.shape
    root = torch.linalg.cholesky(torch.cov(points.T) + 1e-6 * torch.eye(d).to(points))
    for _ in range(6):
        control = points.mean(dim=0) + torch.randn(n, d, generator=generator).to(points) @ root.T
        found["data"].append(measured_collapse(points, generator))
        found["control"].append(measured_collapse(control, generator))
    difference = (sum(found["data"]) - sum(found["control"])) / 6
    verdict = "no difference" if abs(difference) <= 0.03 else "later" if difference > 0 else "earlier"
    return found | {"verdict": verdict}
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("07.6", experiment)

# %% [markdown]
# *Your answer in words:*
