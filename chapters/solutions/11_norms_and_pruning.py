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
# # Exercises to 11 Norms and pruning
#
# Fill in the places marked `...` and run the cell below each of them: it says whether your answer is right and, if it is
# not, what is wrong. The words and formulas are in [the chapter](../11_norms_and_pruning.ipynb). Under each title you find the
# kind of exercise, the time it takes somebody who has read the chapter, and how hard it is. A hint helps you to start.

# %%
import itertools
import math

import torch

from fmcore import closed_form, data, solvers, sources, velocity
from fmcore.course import checks

# %% [markdown]
# ## 1. Four ways to align norms
#
# *Diagnosis · 15 minutes · ★★☆*
#
# Four ways to sample with norms aligned, from the unaligned velocity `v`, noise `x0` and the factor `c`. `scaled_up` is *data
# up*: the velocity of the path $(1-s)\, x_0 + s\, c\, x_1$. `scaled_down` is *noise down*: that of the path $(1-s)\, x_0 / c + s\, x_1$.
# Not all of them are right.


# %%
def scaled_down(v, c):
    return lambda y, s: velocity.scaled_up(v, c)(c * y, s) / c


def way_a(v, x0, c):
    return solvers.solve(velocity.scaled_up(v, c), x0, method="rk4", steps=40).x


def way_b(v, x0, c):
    return solvers.solve(velocity.scaled_up(v, c), x0, method="rk4", steps=40).x / c


def way_c(v, x0, c):
    return solvers.solve(velocity.scaled_up(v, c), x0 / c, method="rk4", steps=40).x


def way_d(v, x0, c):
    return solvers.solve(scaled_down(v, c), x0 / c, method="rk4", steps=40).x


# %% [markdown]
# The first test takes Gaussian data $\mathcal{N}(0, \lambda I)$, whose exact velocity is below, and looks at the standard deviation of
# the samples, which should be 0.5.


# %%
def gaussian_velocity(x, t, lam=0.25):
    return (t * lam - (1 - t)) / ((1 - t) ** 2 + t**2 * lam) * x


def exact_velocity(points):
    return closed_form.EmpiricalVelocity(points)


noise = torch.randn(4000, 2, generator=torch.Generator().manual_seed(1))
for name, way in {"a": way_a, "b": way_b, "c": way_c, "d": way_d}.items():
    print(f"{name}: standard deviation {way(gaussian_velocity, noise, 2.0).std():.2f}")

# %% [markdown]
# This test misses a fault. Design a second one, with other data: `exact_velocity(points)` is the exact velocity for data
# points of your choice, shape $(n, 2)$. Then return for each of `"a"`, `"b"`, `"c"` and `"d"` one of the words `"right"`, `"too large"` (the samples are too
# long for all data) and `"right for centred Gaussian data only"`.
#
# <details><summary>Hint</summary>
#
# An exact flow from the right source chooses each data point equally often, also one that is far away from all the
# others. From a source that is too narrow it does not. Why can a *linear* flow not show that?
#
# </details>


# %% tags=["exercise", "points:2"]
def verdict_on(way):
    ### BEGIN SOLUTION
    # c starts from noise that is too short and does not shrink the images: for a linear flow both faults cancel
    return {"a": "too large", "b": "right", "c": "right for centred Gaussian data only", "d": "right"}[way]
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("11.1", verdict_on)

# %% [markdown]
# ## 2. The velocity of noise down
#
# *Derivation · 15 minutes · ★★☆*
#
# The chapter derives the velocity of *data up*. Derive that of *noise down* in the same way: of the path
#
# $$
# y_s = (1 - s)\, x_0 / c + s\, x_1 ,
# $$
#
# from the velocity $v(x, t)$ of $x_t = (1-t)\, x_0 + t\, x_1$. Return $dy/ds$ at `y`, shape $(B, D)$, and times `s`, shape $(B,)$, one for
# each row, from `v` alone: the check knows `scaled_down` of above, and a solution that does not call `velocity.scaled_up`
# teaches you more. `v` is called as `v(x, t)` with `t` of shape $(B,)$; `c` is a number above 0.
#
# <details><summary>Hint</summary>
#
# Divide $y_s$ by the sum $b$ of its two weights: $y_s = b\, x_t$. What is $t$? The chapter's $a$ is $c\, b$. Then differentiate $y = b\, x$
# with the product rule and $dt/ds$.
#
# </details>


# %% tags=["exercise", "points:2"]
def noise_down_velocity(v, y, s, c):
    ### BEGIN SOLUTION
    b = (1 - s) / c + s
    t = s / b  # so dt/ds = 1 / (c b^2)
    b = b[:, None]
    return ((1 - 1 / c) * y + v(y / b, t) / c) / b
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("11.2", noise_down_velocity)

# %% [markdown]
# ## 3. A rule that rejects every end
#
# *Diagnosis · 15 minutes · ★★☆*
#
# `axes` holds orthonormal rows, shape $(m, D)$; `points` are data, shape $(n, D)$. An end of an axis is rejected if the *largest*
# cosine of any data point with it is at most `tau`, $\max_i \cos(x^{(i)}, e) \le \tau$. The answer is a boolean tensor of shape $(m, 2)$:
# in the first column whether the end $+a$ is rejected, in the second whether $-a$ is. Somebody wrote this:


# %%
def hasty_ends(axes, points, tau):
    cosines = points @ axes.T / points.norm()
    rejected = cosines.abs().amax(dim=0) < tau
    return torch.stack([rejected, rejected], dim=1)


digits = data.digits()
images = digits.scaled(digits.train).flatten(1)
unit = images / images.norm(dim=1, keepdim=True)
axes = torch.linalg.eigh(torch.cov(unit.T)).eigenvectors.T
print(f"by this function: {int(hasty_ends(axes, images, 0.1).sum())} of 128 ends of the digits are rejected")
print(f"by fmcore:        {sources.pruning_axes(images.view(-1, 1, 8, 8), 0.1, flips=False).count}")

# %% [markdown]
# It has three faults. The first one makes all cosines tiny, the second one shows once the first is mended, and the third one
# matters only for ends that lie exactly on the border, for instance with $\tau = 0$ and a pixel that is never negative. Mend all
# three.
#
# <details><summary>Hint</summary>
#
# Each point has a length of its own: `points.norm(dim=1, keepdim=True)`. The cosine with the end $-a$ is minus that with $+a$, and its
# largest value is not found from absolute values: draw two data points in the plane.
#
# </details>


# %% tags=["exercise", "points:2"]
def rejected_ends(axes, points, tau):
    ### BEGIN SOLUTION
    cosines = points @ axes.T / points.norm(dim=1, keepdim=True)
    largest = torch.stack([cosines.amax(dim=0), (-cosines).amax(dim=0)], dim=1)
    return largest <= tau
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("11.3", rejected_ends)

# %% [markdown]
# ## 4. The coin toss makes the sampler exact
#
# *Proof · 25 minutes · ★★★*
#
# **Claim.** Propose Gaussians $x_0 \sim \mathcal{N}(0, I)$ given that $\langle x_0, e \rangle \le \beta$ for every rejected end $e$. Accept a proposal with a
# probability that depends on its direction only. With the right probability the accepted directions are uniform among
# the kept ones; and the share $Z$ of all noise that is kept follows from the acceptance rate.
#
# Let $u$ be the direction of $x_0$, $r$ its length, $q$ the largest cosine of $u$ with a rejected end, $\tau_r$ the threshold (`threshold`), $\beta$ the
# bound (`bound`, above 0 as is $\tau_r$), and $F$ the distribution function of the length: `shorter(length)` is the share of noise that is
# shorter. It takes numbers and tensors.
#
# **Proof.**
#
# 1. A Gaussian is a proposal if $r\, q \le \beta$. Given $u$, this happens with a probability that depends on $q$ and $F$. *Return it*
#    as `proposed(q, bound, shorter)` for `q` of shape $(B,)$; $q$ may be negative or 0. The direction of a proposal therefore has this
#    probability, up to a constant, as its density relative to the uniform one.
# 2. So that the product of this density and the probability of acceptance is *the same* for all $q \le \tau_r$, and 0 for
#    $q > \tau_r$, we accept with a constant over the density. The largest constant for which no probability exceeds 1 belongs to
#    $q = \tau_r$. *Return the probability* as `acceptance(q, threshold, bound, shorter)`, shape $(B,)$.
# 3. A Gaussian is a proposal with the probability $\Phi(\beta)^m$ if there are $m$ rejected ends on $m$ different axes: its coordinates are independent,
#    and $\Phi$ is the distribution function of one. The share of Gaussians that are proposals *and* accepted is, by steps 1 and 2, the
#    product of $Z$ and a number. *Return $Z$* as `share_kept(rate, threshold, bound, shorter, ends)`, where `rate` is the share of
#    *proposals* that are accepted and `ends` is $m$. $\square$
#
# The check draws Gaussians in two to five dimensions and counts.
#
# <details><summary>Hint</summary>
#
# Step 1: solve $r\, q \le \beta$ for $r$, and mind the sign of $q$. Where you divide by $q$ inside `torch.where`, use `q.clamp(min=1e-9)`.
# Step 3: write the probability that a Gaussian is a proposal and accepted in two ways. $\Phi$ is `torch.special.ndtr`.
#
# </details>


# %% tags=["exercise", "points:4"]
def proposed(q, bound, shorter):
    ### BEGIN SOLUTION
    return torch.where(q > 0, shorter(bound / q.clamp(min=1e-9)), 1.0)
    ### END SOLUTION


def acceptance(q, threshold, bound, shorter):
    ### BEGIN SOLUTION
    return torch.where(q <= threshold, shorter(bound / threshold) / proposed(q, bound, shorter), 0.0)
    ### END SOLUTION


def share_kept(rate, threshold, bound, shorter, ends):
    ### BEGIN SOLUTION
    # Phi^m rate = Z F(bound / threshold)
    return rate * float(torch.special.ndtr(torch.tensor(bound))) ** ends / shorter(bound / threshold)
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("11.4", proposed, acceptance, share_kept)

# %% [markdown]
# ## 5. What pruning costs an exact flow
#
# *Derivation · 15 minutes · ★★☆*
#
# The chapter says that an exact flow could only lose by pruning. How much does it lose? A flow is invertible, so the
# distributions at its end differ as much as the sources do, by any measure that does not depend on coordinates. Two such measures
# of $\tilde p_0$, the density of the noise that is kept, against $p_0$, that of all noise, of which the share $Z$ is kept:
#
# 1. the **total variation** $\tfrac12 \int | \tilde p_0 - p_0 |\, dx$, the largest difference that the two can have in the
#    probability of any event;
# 2. the **Kullback-Leibler divergence** $\int \tilde p_0 \log ( \tilde p_0 / p_0 )\, dx$.
#
# Return both as functions of $Z$, a number in $(0, 1]$. Then an example for $Z$: in $\mathbb{R}^3$ prune `ends` different ends of the three coordinate axes
# (up to six), with a `threshold` above $\sqrt{1/2}$, so that no two of the cones overlap. Return the share of noise that is kept. (By
# Archimedes the cosine of a uniform direction of $\mathbb{R}^3$ with any axis is uniform on $[-1, 1]$.)
#
# <details><summary>Hint</summary>
#
# What is $\tilde p_0 / p_0$ where noise is kept, and where it is not? Split the integrals there.
#
# </details>


# %% tags=["exercise", "points:3"]
def total_variation(Z):
    ### BEGIN SOLUTION
    return 1 - Z  # (Z (1/Z - 1) + (1 - Z)) / 2
    ### END SOLUTION


def kullback_leibler(Z):
    ### BEGIN SOLUTION
    return -math.log(Z)
    ### END SOLUTION


def kept_in_space(threshold, ends):
    ### BEGIN SOLUTION
    return 1 - ends * (1 - threshold) / 2
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("11.5", total_variation, kullback_leibler, kept_in_space)

# %% [markdown]
# With $Z = 1/14519$, as for CIFAR-10 at the threshold 0.048, some events have nearly the probability 1 under one source and nearly 0
# under the other. What a network gains by pruning must be worth that.

# %% [markdown]
# ## 6. Is the alignment factor the best one?
#
# *Investigation · 40 minutes · ★★★*
#
# Euler steps that are equal in the time $s$ of the factor $f$ stand at the times $t = f s / (1 - s + f s)$ of the unaligned flow. Any $f > 0$
# is possible: $f = 1$ is the flow without alignment, and norm alignment takes $f = c$, the ratio of the mean lengths of noise and
# data. **For which data is $c$ a good choice, or even the best one?** The chapter has one set of images and one kind of Gaussian data.
#
# Take centred Gaussian data with the variances $\lambda_1, \dots, \lambda_d$ along the axes. The exact velocity of axis $k$ is
# $(t \lambda_k - (1 - t))\, x / ((1-t)^2 + t^2 \lambda_k)$, and the flow ends at $\sqrt{\lambda_k}\, x_0$. The **error** of a factor is the root of the mean, over noise,
# of the squared distance between where Euler's method ends and this end. The lengths of the data are about
# $\sqrt{\sum_k \lambda_k}$, so let $c = \sqrt{d / \sum_k \lambda_k}$.
#
# Write `experiment(variances, steps)` for `variances` of shape $(d,)$, float64. It returns a dictionary with
#
# - `"factors"`: at least 12 factors. 1 and $c$ are among them, they reach from at most 1/2 and $c/2$
#   to at least $2 c$;
# - `"errors"`: the error of each;
# - `"verdict"`: `"best"` if the error of $c$ is at most 1% above the smallest of all errors, else `"better than 1"` or
#   `"worse than 1"`, by comparison with the error of the factor 1. Compute it from your numbers.
#
# The check runs it for data of its own. Then ask for yourself what decides.
#
# **What a good answer has** (write a few sentences into a new cell below):
#
# - at least three kinds of variances, from all equal to steeply falling, each for few and for many steps (2 points);
# - the factor of the smallest error beside $c$, and how much choosing it would save (1 point);
# - an explanation why $c$ is so good if all variances are equal, and which axes decide if they are not (1 point);
# - a verdict on photographs that names what a Gaussian leaves out (1 point).
#
# <details><summary>Hint</summary>
#
# Each axis evolves by itself, and Euler's method multiplies it by a number. So follow the number 1 on each axis: the mean
# over noise of the squared error is the sum over axes of (number at the end $- \sqrt{\lambda_k})^2$. A geometric sequence covers a wide range of
# factors.
#
# </details>


# %% tags=["exercise", "points:4"]
def experiment(variances, steps):
    ### BEGIN SOLUTION
    c = float((len(variances) / variances.sum()).sqrt())

    def error(factor):
        s = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        times = (factor * s / (1 - s + factor * s)).tolist()
        x = torch.ones_like(variances)
        for t, later in itertools.pairwise(times):
            x = x + (later - t) * (t * variances - (1 - t)) / ((1 - t) ** 2 + t**2 * variances) * x
        return float((x - variances.sqrt()).norm())

    low, high = 0.4 * min(1, c), 2.5 * max(1, c)
    factors = [1.0, c] + [low * (high / low) ** (k / 29) for k in range(30)]
    errors = [error(factor) for factor in factors]
    best, better = errors[1] <= 1.01 * min(errors), errors[1] < errors[0]
    return {
        "factors": factors,
        "errors": errors,
        "verdict": "best" if best else "better than 1" if better else "worse than 1",
    }
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("11.6", experiment)
