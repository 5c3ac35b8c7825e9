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
# # Exercises to 05 Optimal transport
#
# Fill in the places marked `...` and run the cell below each of them: it says whether your answer is right and, if it
# is not, what is wrong. The terms and formulas are in [the chapter](../05_optimal_transport.ipynb). Each exercise has
# a line with its kind, the minutes that it takes once you have read the chapter, and its difficulty.

# %%
import math

import torch

from fmcore import couplings, data
from fmcore.course import checks, plotting, style

style.use()
exact_ot = couplings.MinibatchOT()

# %% [markdown]
# ## 1. Transport on a line
#
# *Derivation · 10 minutes · ★★☆*
#
# In one dimension the cheapest pairing keeps the order: the smallest $x_0$ meets the smallest $x_1$, and so on. No
# assignment problem is needed, sorting is enough. Return `x0` reordered, shape $(n, 1)$, so that row $i$ is the
# partner of row $i$ of `x1`. The data keep *their* order, as labels would belong to them: `x1` is not sorted.
#
# <details><summary>Hint</summary>
#
# Which rank does row $i$ of `x1` have among the data? Its partner is the noise sample of the same rank. `argsort`
# gives the rows in the order of their ranks, which is the inverse of what you need.
#
# </details>


# %% tags=["exercise", "points:2"]
def pair_on_a_line(x0, x1):
    ### BEGIN SOLUTION
    paired = torch.empty_like(x0)
    paired[x1[:, 0].argsort()] = x0[x0[:, 0].argsort()]
    return paired
    ### END SOLUTION


# %% tags=["check"]
on_a_line = checks.exercise("05.1", pair_on_a_line)

# %% [markdown]
# Once its check is right, this cell pairs noise with data on a line and draws the lines $x_t$ of the pairs before and
# after: afterwards none cross.

# %%
picture = None
if on_a_line:
    generator = torch.Generator().manual_seed(2)
    x0, x1 = torch.randn(60, 1, generator=generator), data.toy.eight_gaussians(60, generator)[:, :1]
    picture, axes = plotting.canvas(1, 2, height=3.4, sharey=True)
    for ax, start, title in zip(axes, (x0, pair_on_a_line(x0, x1)), ("as they came", "paired on a line"), strict=True):
        ax.plot([0, 1], torch.cat([start, x1], dim=1).T, color=style.PATH, alpha=0.5, linewidth=1)
        ax.plot(0 * start, start, "o", color=style.SOURCE, markersize=3)
        ax.plot(1 + 0 * x1, x1, "o", color=style.DATA, markersize=3)
        ax.set(xlabel="t", title=f"{title}: cost {(x1 - start).square().mean():.2f}")
picture

# %% [markdown]
# ## 2. Pairs and labels
#
# *Diagnosis · 15 minutes · ★★☆*
#
# The function below was meant to pair noise and data within their classes. `couple(x0, x1)` is *any* function that
# returns `x0` reordered so that its rows are the partners of the rows of `x1`. For each class the function should take
# its rows of `x1` and the *same rows* of `x0`, pair those, and put the result back into these rows. It runs without an
# error on the data for which it was written, and it has **three** faults.


# %%
def broken_pairs(couple, x0, x1, labels):
    done = []
    for label in range(3):
        mine = labels == label
        done.append(couple(x0[: mine.sum()], x1[mine]))
    return torch.cat(done)


generator = torch.Generator().manual_seed(4)
x0, x1 = torch.randn(2, 9, 2, generator=generator)
labels = torch.tensor([0, 1, 2, 0, 1, 2, 2, 0, 0])
paired = broken_pairs(lambda a, b: exact_ot(a, b)[0], x0, x1, labels)
print(f"noise samples that are used: {len(paired.unique(dim=0))} of {len(x0)}")

# %% [markdown]
# Write it as it was meant. `x0` and `x1` have shape $(n, d)$, `labels` has shape $(n,)$ and holds any whole numbers.
# Return `x0` reordered, shape $(n, d)$.
#
# <details><summary>Hint</summary>
#
# Try the function with a `couple` that changes nothing, `lambda a, b: a`: then `x0` must come back as it is. Then try
# labels that are not 0, 1, 2.
#
# </details>


# %% tags=["exercise", "points:2"]
def pair_within_classes(couple, x0, x1, labels):
    ### BEGIN SOLUTION
    paired = x0.clone()
    for label in labels.unique():
        mine = labels == label
        paired[mine] = couple(x0[mine], x1[mine])
    return paired
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("05.2a", pair_within_classes)

# %% [markdown]
# An image that is alone in its class within the batch keeps its noise: pairing cannot improve it. A batch holds
# `batch` images, drawn independently; class $c$ has the probability $p_c$. Which share of the images of a batch is
# alone in its class, on average? `p` has shape (number of classes,) and sums to one.
#
# <details><summary>Hint</summary>
#
# Take one image and fix its class: what is the probability that none of the others has this class? Then average over
# its class.
#
# </details>


# %% tags=["exercise", "points:2"]
def share_alone(batch, p):
    ### BEGIN SOLUTION
    return (p * (1 - p) ** (batch - 1)).sum()
    ### END SOLUTION


# %% tags=["check"]
counted = checks.exercise("05.2b", share_alone)

# %%
if counted:
    imagenet = torch.full((1000,), 1 / 1000, dtype=torch.float64)
    print(f"256 images of 1,000 equally frequent classes: {float(share_alone(256, imagenet)):.0%} are alone")

# %% [markdown]
# ## 3. The entropic plan of two Gaussians
#
# *Derivation · 20 minutes · ★★★*
#
# Let $p_0 = \mathcal{N}(0, s_0^2)$ and $p_1 = \mathcal{N}(0, s_1^2)$ on a line. The entropic plan minimizes
#
# $$
# \mathbb{E}_P\, (x_1 - x_0)^2 - \varepsilon\, H(P)
# $$
#
# over all couplings $P$ of the two, where $H(P) = -\mathbb{E}_P \ln P(x_0, x_1)$. The minimizer is known to be
# Gaussian, so it is determined by the correlation $\rho$ of $x_0$ and $x_1$. Derive $\rho$ as a function of
# $\varepsilon$, $s_0$ and $s_1$ (tensors of one shape, all positive). Check your result by its limits: $\rho \to 1$
# as $\varepsilon \to 0$, and $\rho \to 0$ as $\varepsilon \to \infty$.
#
# <details><summary>Hint</summary>
#
# The entropy of a Gaussian in the plane is $\ln(2 \pi e) + \tfrac12 \ln \det \Sigma$. Write cost and entropy as
# functions of $\rho$, set the derivative to zero, and choose the root in $(0, 1)$ of a quadratic equation.
#
# </details>


# %% tags=["exercise", "points:3"]
def entropic_correlation(epsilon, s0, s1):
    ### BEGIN SOLUTION
    # minimize -2 rho s0 s1 - epsilon / 2 ln(1 - rho^2): 2 s0 s1 (1 - rho^2) = epsilon rho
    product = 4 * s0 * s1
    return product / (epsilon + (epsilon**2 + product**2).sqrt())
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("05.3", entropic_correlation)

# %% [markdown]
# ## 4. Sinkhorn's iterations that break
#
# *Diagnosis · 15 minutes · ★★☆*
#
# The entropic plan between $n$ noise samples and $n$ data points has the form $P_{ij} = a_i K_{ij} b_j$ with
# $K_{ij} = \exp(-c_{ij} / \varepsilon)$, and its rows and columns sum to $1/n$. Each round chooses $a$ so that the rows are
# right, then $b$ so that the columns are. The function below does so, word for word. For a small $\varepsilon$, and
# for costs that are all large, it returns something useless.


# %%
def plain_sinkhorn(costs, epsilon, rounds):
    n = len(costs)
    K = torch.exp(-costs / epsilon)
    b = torch.ones(n, dtype=costs.dtype)
    for _ in range(rounds):
        a = 1 / (n * (K @ b))
        b = 1 / (n * (K.T @ a))
    return a[:, None] * K * b


x0, x1 = torch.randn(2, 6, 2, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
costs = torch.cdist(x1, x0).square()
for epsilon, shift in ((1.0, 0), (0.001, 0), (1.0, 1000)):
    plan = plain_sinkhorn(costs + shift, epsilon, rounds=200)
    print(f"epsilon {epsilon}, costs + {shift}: cost of the plan {float((plan * costs).sum()):.3f}")

# %% [markdown]
# Which explanation is right? Answer with its letter, after an experiment.
#
# - `"a"`: there is no entropic plan for such costs and such an $\varepsilon$;
# - `"b"`: 200 rounds are not enough for the iterations to settle;
# - `"c"`: the numbers $K_{ij}$ are too small for the computer, and so are their sums.
#
# Then mend the function: the same plan after the same number of rounds wherever the plain one works, and a right one
# for $\varepsilon \ge 0.001$ and costs of up to several thousand. Return $P$, shape $(n, n)$, in the precision of
# `costs`.
#
# <details><summary>Hint</summary>
#
# What does adding 1000 to all costs change in the problem, and what in $K$? Keep $\ln a$ and $\ln b$ instead of $a$
# and $b$. `torch.logsumexp` adds numbers that are given by their logarithms.
#
# </details>

# %% tags=["exercise", "points:1"]
explanation = ...
### BEGIN SOLUTION
explanation = "c"  # K is zero in whole rows
### END SOLUTION

# %% tags=["check"]
checks.exercise("05.4a", explanation)


# %% tags=["exercise", "points:2"]
def sinkhorn(costs, epsilon, rounds):
    ### BEGIN SOLUTION
    n = len(costs)
    log_K, log_b = -costs / epsilon, torch.zeros(n, dtype=costs.dtype)
    for _ in range(rounds):
        log_a = -torch.logsumexp(log_K + log_b, dim=1) - math.log(n)
        log_b = -torch.logsumexp(log_K + log_a[:, None], dim=0) - math.log(n)
    return (log_a[:, None] + log_K + log_b).exp()
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("05.4b", sinkhorn)

# %% [markdown]
# ## 5. The flow never costs more than its pairs
#
# *Proof · 30 minutes · ★★★*
#
# Pairs $(x_0, x_1)$ from any coupling have the cost $C = \mathbb{E}\, \|x_1 - x_0\|^2$. Let
# $u_t(x) = \mathbb{E}[x_1 - x_0 \mid x_t = x]$ be the marginal velocity, and let $z_t$ follow
# $\mathrm{d}z / \mathrm{d}t = u_t(z)$ from $z_0 = x_0$. The flow's own pairs $(z_0, z_1)$ have the cost
# $C_{\text{flow}} = \mathbb{E}\, \|z_1 - z_0\|^2$.
#
# **Claim.** $C_{\text{flow}} = C - V - S$ with two numbers $V, S \ge 0$. So the flow never costs more than its pairs.
# $V = \int_0^1 \mathbb{E}\, \| (x_1 - x_0) - u_t(x_t) \|^2\, \mathrm{d}t$ is the mean variance of the targets, and
# $S$ is the straightness of the flow.
#
# **Proof.** Let $E(t) = \mathbb{E}\, \|u_t(x_t)\|^2$.
#
# 1. *At each time.* $u_t(x_t)$ is the conditional mean of $x_1 - x_0$, so the rest is orthogonal to it (Pythagoras):
#    $C = E(t) + \mathbb{E}\, \|(x_1 - x_0) - u_t(x_t)\|^2$. Integrated over $t$, $C = \int E(t)\, \mathrm{d}t + V$.
# 2. *The same places.* By Theorem 1, $z_t$ and $x_t$ have the same distribution at each time, so
#    $\mathbb{E}\, \|u_t(z_t)\|^2 = E(t)$.
# 3. *Along each trajectory.* $z_1 - z_0 = \int_0^1 u_t(z_t)\, \mathrm{d}t$ is the mean of the velocity over time. The
#    mean square is the square of the mean plus the variance: $\int E(t)\, \mathrm{d}t = C_{\text{flow}} + S$. Insert
#    this in 1.
#
# Check it where everything can be computed: $x_0 \sim \mathcal{N}(0, \Sigma_0)$ and $x_1 \sim \mathcal{N}(0,
# \Sigma_1)$ independent in $\mathbb{R}^d$. Then $u_t(x) = A_t x$, and the two functions below give $A_t$ and the
# matrix $M$ with $z_1 = M z_0$.


# %%
def velocity_matrix(S0, S1, t):
    return (t * S1 - (1 - t) * S0) @ torch.linalg.inv((1 - t) ** 2 * S0 + t**2 * S1)


def flow_matrix(S0, S1, steps=400):
    M = torch.eye(len(S0), dtype=S0.dtype)
    for k in range(steps):  # Heun's method
        first = velocity_matrix(S0, S1, k / steps) @ M
        M = M + (first + velocity_matrix(S0, S1, (k + 1) / steps) @ (M + first / steps)) / (2 * steps)
    return M


# %% [markdown]
# Step 1: the two parts of $C$ at one time `t` (a number): $E(t)$, and the mean variance of the targets. `S0` and `S1`
# have shape $(d, d)$; return numbers.
#
# <details><summary>Hint</summary>
#
# For $x \sim \mathcal{N}(0, \Sigma)$ and a matrix $A$, $\mathbb{E}\, \|A x\|^2 = \operatorname{tr}(A \Sigma A^\top)$.
# What is the covariance of $x_t$? The second part is then what is left of $C$.
#
# </details>


# %% tags=["exercise", "points:2"]
def mean_square_speed(S0, S1, t):
    ### BEGIN SOLUTION
    A = velocity_matrix(S0, S1, t)
    return (A @ ((1 - t) ** 2 * S0 + t**2 * S1) @ A.T).trace()
    ### END SOLUTION


def target_variance(S0, S1, t):
    ### BEGIN SOLUTION
    return S0.trace() + S1.trace() - mean_square_speed(S0, S1, t)
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("05.5a", mean_square_speed, target_variance)

# %% [markdown]
# Step 3: the straightness $S$, **without following a single trajectory** between its ends: from $E(t)$ and
# $M$ alone. Use `torch.trapezoid` at a few hundred times.


# %% tags=["exercise", "points:2"]
def straightness(S0, S1):
    ### BEGIN SOLUTION
    t = torch.linspace(0, 1, 401, dtype=S0.dtype)
    speeds = torch.stack([mean_square_speed(S0, S1, time) for time in t])
    move = flow_matrix(S0, S1) - torch.eye(len(S0), dtype=S0.dtype)
    return torch.trapezoid(speeds, t) - (move @ S0 @ move.T).trace()
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("05.5b", straightness)

# %% [markdown]
# Use the claim for $\Sigma_0 = \Sigma_1 = I$ and $d = 1$, where source and data are the same. Here $z_1 = z_0$, but
# the trajectories are not straight. What is $S$, as an exact number?
#
# <details><summary>Hint</summary>
#
# $C$ and $C_{\text{flow}}$ are whole numbers. The variance of the target at time $t$ is $1 / ((1 - t)^2 + t^2)$, and
# the integral of $1 / (1 + z^2)$ is $\arctan z$.
#
# </details>

# %% tags=["exercise", "points:1"]
straightness_of_nothing = ...
### BEGIN SOLUTION
straightness_of_nothing = 2 - math.pi / 2  # C - C_flow - V
### END SOLUTION

# %% tags=["check"]
checks.exercise("05.5c", straightness_of_nothing)

# %% [markdown]
# ## 6. What is a batch drawn with replacement worth?
#
# *Investigation · 40 minutes · ★★★*
#
# Some libraries do not use the optimal permutation of a batch. They draw $B$ pairs *with replacement* from the optimal
# plan, so that some pairs appear twice or more and others never. By the chapter this is the same coupling with noisier
# batches. **How much noisier? And would a batch of half the size, in which each pair is used once, do as well?** Two
# things can differ: how averages over a batch scatter (as a gradient does), and which pairs there are on average.
#
# Design the test. Write `experiment(draw, batch, repeats, seed)`, where `draw(n, generator)` returns new `x0` and
# `x1`, both of shape $(n, d)$. It returns a dictionary with the entries `"permutation"`, `"replacement"` and `"half"`
# (the optimal permutation of a batch of `batch // 2`). Each is a tensor of shape (repeats, 2) with one row for each
# batch:
#
# - column 0: the batch mean of the first coordinate of the paired `x0`, a control whose mean and spread are known;
# - column 1: the batch mean of the squared distance of the pairs, $\|x_1 - x_0\|^2$.
#
# Then state what your experiment shows: `variance_ratio`, the variance of column 0 with replacement over that of the
# permutation, for large batches and unlimited repeats; and `verdict`, what a half batch is compared with a batch
# drawn with replacement: `"same noise, same pairs"`, `"same noise, longer pairs"` (a larger mean squared distance) or
# `"less noise, same pairs"`.
#
# A good answer (one point for each line):
#
# - compares the first two on the same batches, so that only the drawing differs;
# - gives the differences of the means with their standard errors, and says which difference it could have missed;
# - checks the spread of the control against its known value, and explains `variance_ratio` by a calculation;
# - explains the verdict on the pairs by the bias of a batch, which the chapter measures;
# - says what the two ways cost in computing time, and for which kind of training one would choose which.
#
# <details><summary>Hint</summary>
#
# The variance of a batch mean splits into the variance given the batch, which is zero for a permutation, and the
# variance over batches. With 1,000 repeats a variance is known up to about 4 percent.
#
# </details>


# %% tags=["exercise", "points:3"]
def experiment(draw, batch, repeats, seed):
    ### BEGIN SOLUTION
    generator, found = torch.Generator().manual_seed(seed), {"permutation": [], "replacement": [], "half": []}
    for _ in range(repeats):
        for size in (batch, batch // 2):
            x0, x1 = exact_ot(*draw(size, generator))
            values = torch.stack([x0[:, 0], (x1 - x0).square().sum(dim=1)], dim=1)
            found["permutation" if size == batch else "half"].append(values.mean(dim=0))
            if size == batch:
                rows = torch.randint(batch, (batch,), generator=generator)
                found["replacement"].append(values[rows].mean(dim=0))
    return {name: torch.stack(means) for name, means in found.items()}
    ### END SOLUTION


variance_ratio, verdict = ..., ...
### BEGIN SOLUTION
# Given the batch, the mean of B draws scatters with the variance of the batch over B; that is (1 - 1 / B) / B for variance
# 1. The variance over batches, 1 / B, stays: (2 - 1 / B) / B together, as for B / 2 pairs that are used once. But pairs
# that are optimal within B / 2 samples are longer than pairs that are optimal within B: the bias of a batch.
variance_ratio, verdict = 2.0, "same noise, longer pairs"
### END SOLUTION

# %% tags=["check"]
checks.exercise("05.6", experiment, variance_ratio, verdict)

# %% [markdown]
# *Your answer in words:*
