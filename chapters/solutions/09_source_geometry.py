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
# # Exercises to 09 Source geometry
#
# Fill in the places marked `...` and run the cell below each of them: it says whether your answer is right and, if it is
# not, what is wrong. The words and formulas are in [the chapter](../09_source_geometry.ipynb). Under each title you find the
# kind of exercise, the time it takes somebody who has read the chapter, and how hard it is. A hint helps you to start.

# %%
import math

import torch
from torch.nn.functional import normalize

from fmcore import solvers
from fmcore.course import checks
from fmcore.ensemble import Ensemble, Member, three_directions, train
from fmcore.metrics import distances_to_data
from fmcore.papers.lee2025.simulation import Cached
from fmcore.sources import ChiSphere

# %% [markdown]
# ## 1. The most likely length
#
# *Derivation · 10 minutes · ★☆☆*
#
# The chapter finds the spread of the length of noise from a sum of independent terms. Find it again from the density of the
# length alone. Let the noise be $\mathcal{N}(0, s^2 I)$ in $\mathbb{R}^d$, $d \ge 2$, so that its length $r$ has a density
# proportional to $r^{d-1} e^{-r^2 / (2 s^2)}$.
#
# 1. Return the length at which this density is largest, as a function of $d$ and $s$ (`std`).
# 2. Near its maximum a density is nearly normal. A normal density of standard deviation $\sigma$ has a logarithm whose second
#    derivative is $-1/\sigma^2$. Return the $\sigma$ that belongs to the second derivative at the maximum.
#
# Both arguments are numbers. Compare the second result with the chapter's 0.7.
#
# <details><summary>Hint</summary>
#
# Take the logarithm first: it has two terms that depend on $r$. The maximum of the logarithm is that of the density.
#
# </details>


# %% tags=["exercise", "points:2"]
def most_likely_length(d, std):
    ### BEGIN SOLUTION
    return std * math.sqrt(d - 1)  # (d - 1) / r = r / s^2
    ### END SOLUTION


def spread_of_length(d, std):
    ### BEGIN SOLUTION
    return std / math.sqrt(2)  # the second derivative is -(d - 1) / r^2 - 1 / s^2 = -2 / s^2
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("09.1", most_likely_length, spread_of_length)

# %% [markdown]
# ## 2. Three samplers of directions
#
# *Diagnosis · 20 minutes · ★★☆*
#
# A random direction in space is asked, uniform on the unit sphere of $\mathbb{R}^3$. Here are three samplers. Each returns unit
# vectors of shape $(n, 3)$, and in each the opposite of a direction is as likely as the direction itself.


# %%
def sampler_a(n, generator):
    return normalize(torch.randn(n, 3, generator=generator), dim=1)


def sampler_b(n, generator):
    return normalize(2 * torch.rand(n, 3, generator=generator) - 1, dim=1)


def sampler_c(n, generator):
    u, v = torch.rand(2, n, generator=generator)
    theta, phi = math.pi * u, 2 * math.pi * v
    return torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()], dim=1)


# %% [markdown]
# The chapter says that each coordinate $u_j$ of a uniform direction has $\mathbb{E}[u_j] = 0$ and $\mathbb{E}[u_j^2] = 1/3$. By
# Archimedes it is even uniform on $[-1, 1]$, so that $\mathbb{E}[u_j^4] = 1/5$. Measure these moments for all three samplers, with
# enough samples to see a difference of 0.01. Then return for `"a"`, `"b"` and `"c"` what tells the sampler from a right one:
# `"nothing"`, `"the second moments"` or `"the fourth moments only"`.
#
# <details><summary>Hint</summary>
#
# `x.square().mean(dim=0)` are the second moments of all three coordinates. A mean over 100,000 samples is known up to about
# 0.001. When a sampler is wrong, say where the directions are too dense, and why.
#
# </details>


# %% tags=["exercise", "points:1"]
def told_by(sampler):
    ### BEGIN SOLUTION
    # b is too dense towards the corners of the cube; c is too dense near both poles, where its circles are short
    return {"a": "nothing", "b": "the fourth moments only", "c": "the second moments"}[sampler]
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("09.2a", told_by)

# %% [markdown]
# Mend sampler c: from two numbers `u` and `v` of shape $(n,)$, independent and uniform on $[0, 1]$, make uniform directions, shape
# $(n, 3)$. Use nothing else that is random.


# %% tags=["exercise", "points:2"]
def direction(u, v):
    ### BEGIN SOLUTION
    cosine, phi = 2 * u - 1, 2 * math.pi * v  # by Archimedes the cosine with the axis is uniform
    sine = (1 - cosine**2).sqrt()
    return torch.stack([sine * phi.cos(), sine * phi.sin(), cosine], dim=1)
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("09.2b", direction)

# %% [markdown]
# ## 3. How far is noise from an image?
#
# *Derivation · 15 minutes · ★★☆*
#
# Optimal pairs can gain only if the distances from one image to many noise samples differ. Do they? Let the image $x_1$ be fixed,
# of length $R$, and $x_0 \sim \mathcal{N}(0, I)$ in $\mathbb{R}^d$. Work out the mean and the standard deviation of the *squared*
# distance $\| x_0 - x_1 \|^2$, exactly. Both depend on $R$ and $d$ only; both arguments are numbers.
#
# <details><summary>Hint</summary>
#
# Turn the space until $x_1$ lies along the first axis, as the chapter does for the angle. What is left is a sum of independent terms,
# of which only the first knows $R$. The square of a standard normal number $z$ has the variance 2, and $z^2$ and $z$ are uncorrelated.
#
# </details>


# %% tags=["exercise", "points:3"]
def mean_squared_distance(R, d):
    ### BEGIN SOLUTION
    return d + R**2
    ### END SOLUTION


def std_of_squared_distance(R, d):
    ### BEGIN SOLUTION
    return math.sqrt(2 * d + 4 * R**2)  # of |x0|^2 and of -2 R z
    ### END SOLUTION


# %% tags=["check"]
right_distance = checks.exercise("09.3", mean_squared_distance, std_of_squared_distance)

# %% [markdown]
# Once the check is right: by how many percent do squared distances from a CIFAR-10 image ($R = 27.2$, $d = 3{,}072$) to noise
# scatter? And from an image of a third of the length, and in the plane?

# %%
if right_distance:
    for R, d in ((27.2, 3072), (9.1, 3072), (1.0, 2)):
        share = std_of_squared_distance(R, d) / mean_squared_distance(R, d)
        print(f"R = {R:4.1f}, d = {d:5,}: squared distances scatter by {share:.1%}")

# %% [markdown]
# ## 4. No coupling sends fewer pairs across
#
# *Proof · 20 minutes · ★★☆*
#
# **Claim.** Let $q_k$ and $p_k$ be the shares of source and data in mode $k = 1, \dots, K$. Every coupling sends at least
# $\sum_k \max(q_k - p_k, 0)$ of the pairs from one mode to another, and some coupling sends exactly so many.
#
# **Proof.** Let $P_{jk}$ be the share of pairs that start in mode $j$ and end in mode $k$. It is not negative, row $j$ of $P$ sums to
# $q_j$, and column $k$ sums to $p_k$.
#
# 1. The entry $P_{kk}$ is part of a row and of a column, which bounds it in two ways. So the share of pairs that stay in
#    their mode, $\sum_k P_{kk}$, is at most a certain number. *Return this number* from `q` and `p`, tensors of shape $(K,)$.
# 2. Since $q_k$ less the bound on $P_{kk}$ is $\max(q_k - p_k, 0)$, and the $q_k$ sum to 1, at least the claimed share crosses.
# 3. It remains to find a plan for which step 1 is an equality. Fill its diagonal. What is left of the rows are the surpluses
#    $s_j = \max(q_j - p_j, 0)$; what is left of the columns are the deficits $m_k = \max(p_k - q_k, 0)$; and both have the same sum. Distribute
#    the surpluses over the deficits. *Return such a plan*, shape $(K, K)$, also where nothing is left to distribute. $\square$
#
# The check solves the linear program of step 1, and tries whether your plan is a coupling of `q` and `p`, with as few crossings as
# you have proved to be possible. Several plans are right.
#
# <details><summary>Hint</summary>
#
# Step 3: send the surplus of each mode to all deficits, in proportion to their sizes. The outer product of two vectors is
# `torch.outer`. If $q = p$, both sums are 0: then your formula must not divide by them.
#
# </details>


# %% tags=["exercise", "points:3"]
def most_that_stays(q, p):
    ### BEGIN SOLUTION
    return torch.minimum(q, p).sum()
    ### END SOLUTION


def best_plan(q, p):
    ### BEGIN SOLUTION
    surplus, deficit = (q - p).clamp(min=0), (p - q).clamp(min=0)
    return torch.diag(torch.minimum(q, p)) + torch.outer(surplus, deficit) / deficit.sum().clamp(min=1e-12)
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("09.4", most_that_stays, best_plan)

# %% [markdown]
# ## 5. The best of correlated checkpoints
#
# *Derivation · 20 minutes · ★★★*
#
# The chapter reads tables of the best of ten *independent* checkpoints. Checkpoints of one run are correlated: a run that
# is lucky stays lucky. Let the value at checkpoint $k$ be
#
# $$
# y_k = \mu + s \left( \sqrt{\rho}\; z + \sqrt{1 - \rho}\; z_k \right), \qquad k = 1, \dots, n,
# $$
#
# with independent standard normal numbers $z$ (one for the run) and $z_1, \dots, z_n$. Each value has the mean $\mu$ and the standard
# deviation $s$, and two checkpoints have the correlation $\rho$.
#
# 1. Return `smallest(n)`, the mean of the smallest of $n$ independent standard normal numbers, with an error below 0.003 for $n$ up to
#    100. It is greater than $x$ if all $n$ are; this gives its distribution function, hence its density. Integrate numerically.
# 2. Return `best_on_average(mean, std, rho, n)`, the mean of the smallest of $y_1, \dots, y_n$.
#
# <details><summary>Hint</summary>
#
# `torch.special.ndtr(x)` is the distribution function $\Phi$ of a standard normal number, and `torch.trapezoid(f, x)` integrates. Which
# of the terms of $y_k$ are the same for all $k$? They can be taken out of the minimum.
#
# </details>


# %% tags=["exercise", "points:3"]
def smallest(n):
    ### BEGIN SOLUTION
    x = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    density = n * torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) * torch.special.ndtr(-x) ** (n - 1)
    return torch.trapezoid(x * density, x)
    ### END SOLUTION


def best_on_average(mean, std, rho, n):
    ### BEGIN SOLUTION
    return mean + std * math.sqrt(1 - rho) * smallest(n)
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("09.5", smallest, best_on_average)

# %% [markdown]
# So two rows of a table with the same mean and the same spread can differ in their best values: correlated checkpoints make
# the best of them look worse.

# %% [markdown]
# ## 6. More than a head start?
#
# *Investigation · 40 minutes · ★★★*
#
# A flow from a source near the data is better after the same number of steps. The chapter calls this a head start, because the flow
# that made the source has been trained, too. **Is it more than that: are two flows of $N$ steps, one after the other, better than one
# flow that is trained for $2N$ steps?** Two things speak for it: two networks hold more than one, and the second has a shorter
# way to go. One speaks against it: the second cannot repair what the first has torn.
#
# These two functions train and follow flows, with independent pairs and batches of 16:


# %%
def flows(sources, points, steps, seed):
    """One network for each source, all trained at the same time."""
    networks = Ensemble([1000 * seed + k for k in range(len(sources))])
    train(networks, [Member(source, points, 7000 * seed + k) for k, source in enumerate(sources)], steps, 16)
    return networks


def follow(networks, x0):
    """Where each of R networks takes its own samples x0, shape (R, n, 2)."""
    with torch.no_grad():
        return solvers.solve(networks, x0, method="rk4", steps=8).x


ring = ChiSphere((2,), dof=3072)
points = three_directions(1024, torch.Generator().manual_seed(0))

# %% [markdown]
# Write `experiment(points, steps, seed)` for data `points` of shape $(m, 2)$. It returns a dictionary with
#
# - `"two flows"`: for at least 4 runs the mean distance to the data of at least 400 generated points. In each run a first flow is trained for
#   `steps` from the ring, samples of it are the source of a second flow (`Cached(samples)` makes a source of points), and this is trained
#   for `steps`, too;
# - `"control"`: the same number of runs of a single flow from the ring, trained for `2 * steps`;
# - `"verdict"`: `"more than a head start"` if the two flows are better by more than 2 standard errors of the difference of the two
#   means, `"less than a head start"` if they are worse by more than that, and `"cannot tell"` otherwise. Compute it from your numbers.
#
# `distances_to_data(x, points)` gives the distances of samples $(n, 2)$. Runs differ in all that is random. The check calls your experiment with
# 300 steps and seeds of its own; it may take a few seconds. What happens with more steps is for you to find out.
#
# **What a good answer has** (write a few sentences into a new cell below):
#
# - both means with their standard errors, for at least three numbers of steps that differ by a factor of 4 or more (2 points);
# - a second control that separates two explanations: a single network that is as large as two, or a second flow that goes on from the weights
#   of the first (1 point);
# - a second measure that could contradict the first, such as the shares of the modes, and what it says (1 point);
# - a verdict that names its range of steps, and what it does not show about images (1 point).
#
# <details><summary>Hint</summary>
#
# `flows([ring] * 4, points, steps, seed)` are four first flows. Follow them from `ring.sample(4 * 2048, generator).view(4, 2048, 2)`. The
# standard error of the difference is the root of the sum of both variances over the number of runs. Do not use one seed for two trainings.
#
# </details>


# %% tags=["exercise", "points:4"]
def experiment(points, steps, seed):
    ### BEGIN SOLUTION
    runs, generator = 4, torch.Generator().manual_seed(seed)

    def start(sources, n):
        return torch.stack([source.sample(n, generator) for source in sources])

    def distance(networks, sources):
        return [float(distances_to_data(x, points).mean()) for x in follow(networks, start(sources, 512))]

    rings = [ring] * runs
    middle = [Cached(x) for x in follow(flows(rings, points, steps, 3 * seed), start(rings, 2048))]
    two = torch.tensor(distance(flows(middle, points, steps, 3 * seed + 1), middle))
    control = torch.tensor(distance(flows(rings, points, 2 * steps, 3 * seed + 2), rings))
    apart = (control.mean() - two.mean()) / ((control.var() + two.var()) / runs).sqrt()
    verdict = "more than a head start" if apart > 2 else "less than a head start" if apart < -2 else "cannot tell"
    return {"two flows": two, "control": control, "verdict": verdict}
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("09.6", experiment)
