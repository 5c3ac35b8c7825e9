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
# # Exercises to 08 Generalization
#
# Fill in the places marked `...` and run the cell below each of them: it says whether your answer is right and, if it
# is not, what is wrong. The terms and formulas are in [the chapter](../08_generalization.ipynb). Each exercise has a line
# with its kind, the minutes that it takes once you have read the chapter, and its difficulty.

# %%
import math

import torch

from fmcore import closed_form, data
from fmcore.course import checks, plotting, style

style.use()

# %% [markdown]
# ## 1. Copies
#
# *Transcription · 10 minutes · ★☆☆*
#
# A sample is a copy if its Euclidean distance to the nearest training image is *less* than a third of that to the second
# nearest. Return the share of copies among `samples`, shape $(B, C, H, W)$, with the training images `train`, shape
# $(n, C, H, W)$, $n \ge 2$, as one number. An image may occur twice in the training set.
#
# <details><summary>Hint</summary>
#
# `torch.cdist` has the distances of two lists of vectors, and `.topk(2, dim=1, largest=False)` the two smallest of each row, in
# order.
#
# </details>


# %% tags=["exercise", "points:1"]
def share_of_copies(samples, train):
    ### BEGIN SOLUTION
    distance = torch.cdist(samples.flatten(1), train.flatten(1))
    nearest, second = distance.topk(2, dim=1, largest=False).values.T
    return (nearest < second / 3).double().mean()
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("08.1", share_of_copies)

# %% [markdown]
# ## 2. All banks of two
#
# *Proof · 30 minutes · ★★★*
#
# Take $M = 2$ and draw the second point of the bank from all $n$ training points, each with probability $1/n$, the first one
# included. At a point $x$ and a time $t$ let $w_i$ be the posterior weights, $u_i = (x^{(i)} - x) / (1 - t)$ the conditional velocities, and
# $u^* = \sum_i w_i u_i$.
#
# **Claim.** Given $x_t = x$, the target $u_2$ has the mean $u^*$, and its variance is not larger than that of $u_i$ in
# conditional flow matching.
#
# **Proof.**
#
# 1. Given $x_t = x$, the first point $b_1 = x_1$ is point $i$ with a certain probability; $b_2$ does not depend on $x_t$. Hence
#    the probability of the bank $(b_1, b_2) = (x^{(i)}, x^{(j)})$.
# 2. $u_2$ does not depend on the order of the bank: for the points $i \ne j$ it is a mean of $u_i$ and $u_j$ with weights in the
#    proportion $w_i : w_j$. Multiply it by the probability of the *two* banks $(i, j)$ and $(j, i)$ together. The sum of the two
#    weights cancels, and what is left is a multiple of $u_i$ plus a multiple of $u_j$. Add this up over all pairs, and
#    over the banks $(i, i)$: $u_i$ occurs $n$ times, and the sum is $u^*$.
# 3. Given the bank and $x$, $u_2$ is the mean of the conditional velocity. So
#    $\mathbb{E} \|u_{b_1} - u^*\|^2 = \mathbb{E} \|u_2 - u^*\|^2 + \mathbb{E} \|u_{b_1} - u_2\|^2$,
#    where $u_{b_1}$ is the conditional velocity to $b_1$, and the last term is not negative. $\square$
#
# Write the quantities of the steps for `points` of shape $(n, d)$, `x` of shape $(1, d)$ and a number `t`. You may use
# `closed_form.EmpiricalVelocity(points)`, which has the exact velocity of any list of points, `(x, t)` of shape $(1, d)$, and the
# posterior weights, `.weights(x, t)` of shape $(1, n)$.
#
# Step 1: the probabilities of all banks, shape $(n, n)$, with $i$ as the row.
#
# <details><summary>Hint</summary>
#
# All entries add up to 1. Which of the two indices does the probability depend on?
#
# </details>


# %% tags=["exercise", "points:1"]
def chances(points, x, t):
    ### BEGIN SOLUTION
    n = len(points)
    return closed_form.EmpiricalVelocity(points).weights(x, t)[0][:, None].expand(n, n) / n
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("08.2a", chances)

# %% [markdown]
# Step 2: for two different points `i` and `j`, the probability of $(i, j)$ times its $u_2$ plus the same for $(j, i)$, shape
# $(1, d)$. Write it with conditional velocities alone.


# %% tags=["exercise", "points:1"]
def both_orders(points, x, t, i, j):
    ### BEGIN SOLUTION
    w = closed_form.EmpiricalVelocity(points).weights(x, t)[0]
    u = (points - x) / (1 - t)
    return (w[i] * u[i] + w[j] * u[j])[None] / len(points)
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("08.2b", both_orders)

# %% [markdown]
# Step 3: the variance that is left, $\mathbb{E} \|u_2 - u^*\|^2$ given $x_t = x$, by going through all $n^2$ banks; one number.


# %% tags=["exercise", "points:2"]
def variance(points, x, t):
    ### BEGIN SOLUTION
    chance, best, total = chances(points, x, t), closed_form.EmpiricalVelocity(points)(x, t), 0.0
    for i in range(len(points)):
        for j in range(len(points)):
            u2 = closed_form.EmpiricalVelocity(points[[i, j]])(x, t)
            total = total + chance[i, j] * (u2 - best).square().sum()
    return total
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("08.2c", variance)

# %% [markdown]
# And the assumption is needed: if the bank is drawn without regard to $x_1$, *both* points with probability $1/n$ each, the proof
# fails in step 1. Compute the squared length of the bias that results, $\| \mathbb{E} u_2 - u^* \|^2$; one number.


# %% tags=["exercise", "points:1"]
def squared_bias(points, x, t):
    ### BEGIN SOLUTION
    n = len(points)
    every = [closed_form.EmpiricalVelocity(points[[i, j]])(x, t) for i in range(n) for j in range(n)]
    mean = torch.stack(every).mean(dim=0)
    return (mean - closed_form.EmpiricalVelocity(points)(x, t)).square().sum()
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("08.2d", squared_bias)

# %% [markdown]
# ## 3. Who leads this step?
#
# *Diagnosis · 15 minutes · ★★☆*
#
# A hybrid sampler follows `first(x, t)` up to the time `switch` and `second(x, t)` from there on, from `x0` at $t = 0$ to $t = 1$
# in `steps` Euler steps of equal length. Step $k$ starts at $t_k = k / \text{steps}$ and takes the velocity there; it
# belongs to `first` if $t_k$ is *before* the switch, and else to `second`. Below are two attempts. Each is right for most switches and
# wrong for some.


# %%
def broken_one(first, second, x0, switch, steps):
    x, t = x0, 0.0
    for _ in range(steps):
        x = x + (first if t < switch else second)(x, torch.tensor(t)) / steps
        t += 1 / steps
    return x


def broken_two(first, second, x0, switch, steps):
    x = x0
    for k in range(steps):
        x = x + (first if k < int(switch * steps) else second)(x, torch.tensor(k / steps)) / steps
    return x


def steps_of_first(hybrid, switch, steps):
    """How many steps `first` leads: it goes to the right with velocity 1, `second` stands still."""
    end = hybrid(lambda x, t: torch.ones_like(x), lambda x, t: 0 * x, torch.zeros(1, 1), switch, steps)
    return round(float(end) * steps)


# %%
for switch, steps in ((0.5, 10), (0.3, 10), (0.8, 10), (0.75, 10), (0.25, 300), (0.29, 100)):
    found = [steps_of_first(hybrid, switch, steps) for hybrid in (broken_one, broken_two)]
    print(f"switch {switch:.2f}, {steps:3} steps: first leads {found[0]:3} of them, or {found[1]:3}")

# %% [markdown]
# Find out in which lines which attempt is wrong and why, then write a sampler that is right for all switches from 0 to 1 and any
# number of steps. Times go in as `torch.tensor(t_k)`.
#
# <details><summary>Hint</summary>
#
# Print `0.1 + 0.1 + 0.1 == 0.3` and `0.29 * 100`. Which numbers of the loop are exact, and which are rounded once, or many times? And
# what does `int` do to a switch that lies between two steps?
#
# </details>


# %% tags=["exercise", "points:2"]
def hybrid(first, second, x0, switch, steps):
    ### BEGIN SOLUTION
    x = x0
    for k in range(steps):
        t = k / steps
        velocity = first if t < switch else second
        x = x + velocity(x, torch.tensor(t)) / steps
    return x
    ### END SOLUTION


# %% tags=["check"]
right_hybrid = checks.exercise("08.3", hybrid)

# %% [markdown]
# The chapter's figure in the plane, once the check is right. `first` is the exact velocity of twelve training points of two
# moons; `second`, that of 2,000 points, stands for a network that has learned what moons are. From left to right the twelve points
# lead longer: from new points on the moons to copies of the twelve.

# %%
picture = None
if right_hybrid:
    twelve = data.toy.two_moons(12, torch.Generator().manual_seed(3))
    copies = closed_form.EmpiricalVelocity(twelve)
    moons = closed_form.EmpiricalVelocity(data.toy.two_moons(2000, torch.Generator().manual_seed(0)))
    noise = torch.randn(600, 2, generator=torch.Generator().manual_seed(2))
    picture, axes = plotting.canvas(1, 4, height=2.6)
    for ax, switch in zip(axes, (0.0, 0.5, 0.8, 1.0), strict=True):
        ends = hybrid(copies, moons, noise, switch, 40)
        ax.scatter(*ends.T, s=5, color=style.PATH, linewidths=0, alpha=0.6)
        ax.scatter(*twelve.T, s=26, color=style.DATA, edgecolors="white", linewidths=0.8)
        style.blank(ax, 2.9).set_title(f"switch = {switch}")
picture

# %% [markdown]
# ## 4. How much noise a bank removes
#
# *Derivation · 20 minutes · ★★★*
#
# A simple model of the posterior weights: at some time, $r$ of the $n$ training images could have been the source of $x_t$, all
# equally likely (the true one is among them), and the others not at all. Draw $x_1$ and, as the rest of the bank, $M - 1$ images
# independently from all $n$ training images. The target $u_M$ is then a mean over $x_1$ and those members of the bank that are
# among the $r$, each as often as it was drawn.
#
# Given $x_t$, these are independent draws from the $r$ images. So with $B$ of them besides $x_1$, the variance of $u_M$ is $1 / (1 + B)$
# of that of conditional flow matching. Derive the mean share that is left, $\mathbb{E} \big[ 1 / (1 + B) \big]$, as a formula
# without a sum. The arguments are whole numbers, $M \ge 1$ and $1 \le r \le n$.
#
# <details><summary>Hint</summary>
#
# Which distribution has $B$? Write the expectation as a sum over $k$ and use
# $\frac{1}{k + 1} \binom{M - 1}{k} = \frac1M \binom{M}{k + 1}$.
#
# </details>


# %% tags=["exercise", "points:2"]
def share_left(M, n, r):
    ### BEGIN SOLUTION
    return (1 - (1 - r / n) ** M) * n / (M * r)
    ### END SOLUTION


# %% tags=["check"]
right_share = checks.exercise("08.4", share_left)

# %% [markdown]
# Once it is right, your formula for $n = 1500$ digits and the numbers of images that count, $n_{\mathrm{eff}}$, in place of $r$. Compare it
# with the table "share left" of the chapter.

# %%
if right_share:
    for M in (16, 128, 1000):
        said = "   ".join(f"r = {r}: {share_left(M, 1500, r):.2f}" for r in (1400, 1000, 300, 30, 3))
        print(f"M = {M:5,}   {said}")

# %% [markdown]
# ## 5. Windows of a single pixel
#
# *Derivation · 15 minutes · ★★☆*
#
# Make the view of the local velocity as narrow as possible, $k = 1$: each pixel sees only itself. Follow this $u_1$ exactly from
# $x_0 \sim \mathcal{N}(0, I)$ to $t = 1$. What is the probability that the sample is one of the training images, in all its pixels?
#
# Return its natural logarithm. `train` has shape $(n, d)$; pixels take few different values, so equal values occur, and an image may
# occur more than once. The probability may be as small as $e^{-1000}$.
#
# <details><summary>Hint</summary>
#
# For one pixel, $u_1$ is the exact velocity of $n$ numbers. At which values does it end, and how often at each of them? Do
# the pixels know of each other? Different images are events that exclude each other. `torch.unique(train, dim=0)` has each
# image once.
#
# </details>


# %% tags=["exercise", "points:3"]
def log_chance_of_copy(train):
    ### BEGIN SOLUTION
    images = torch.unique(train, dim=0)
    share = torch.stack([(train == image).double().mean(dim=0) for image in images])  # of the value of each pixel
    return torch.logsumexp(share.log().sum(dim=1), dim=0)
    ### END SOLUTION


# %% tags=["check"]
right_chance = checks.exercise("08.5", log_chance_of_copy)

# %%
if right_chance:
    digits = data.digits().train.flatten(1)
    print(
        f"1,500 digits, windows of one pixel: a sample is a copy with probability exp({log_chance_of_copy(digits):.0f})"
    )

# %% [markdown]
# ## 6. How much blur makes a copy new?
#
# *Investigation · 40 minutes · ★★★*
#
# The simplest model that does not just copy: give every training point a width $h$, and use the exact velocity of the
# **blurred** data, in which each point is a small Gaussian $\mathcal{N}(x^{(i)}, h^2 I)$. Its samples can be drawn without a solver: a
# training point, chosen at random, plus $h$ times standard normal noise. And its density is known,
#
# $$
# p_h(x) = \frac1n \sum_{i=1}^n (2 \pi h^2)^{-d/2} \exp \Big( \! -\frac{\| x - x^{(i)} \|^2}{2 h^2} \Big) .
# $$
#
# With a small $h$ it copies. The question: **at the width that describes unseen data best, are the samples still copies?**
#
# Write `experiment(train, held_out, seed)` for points of shape $(n, d)$ and $(m, d)$. It returns a dictionary with
#
# - `"widths"`: at least six widths in growing order, wide enough a range that the best is neither the first nor the last;
# - `"copies"`: the share of copies among at least 1,000 samples, for each width;
# - `"train"` and `"held_out"`: the mean of $\log p_h$ over the training points (a control: why is this no measure?) and over the held-out
#   ones, for each width;
# - `"best"`: the one of your widths with the largest mean for held-out points;
# - `"verdict"`: `"copies"` if more than half of the samples at the best width are copies, `"new"` otherwise.
#
# It will be run for data and seeds that you do not know. Their coordinates are of size 1. Three sets to start with:

# %%
generator = torch.Generator().manual_seed(4)
some = data.toy.two_moons(300, generator).double()
plain, centres = torch.randn(200, 3, generator=generator).double(), 2 * torch.randn(15, 3, generator=generator).double()
clusters = centres.repeat(6, 1) + 0.03 * torch.randn(90, 3, generator=generator).double()
SETS = {"two moons": (some[:12], some[12:]), "cloud": (plain[:100], plain[100:])}
SETS["one training point of each cluster"] = clusters[:15], clusters[15:]

# %% [markdown]
# A good answer (one point for each line):
#
# - shows all three curves over $h$ for at least three data sets, with the uncertainty of the share of copies;
# - explains why the training curve has no maximum, and why the held-out curve has one;
# - finds a data set for which the best model *copies*, and says whether these copies are a fault of the model or of the measure;
# - examines how the best width changes with the number of training points, and says what that means for $n \to \infty$;
# - says what the experiment does not show about networks, which do not blur all points alike.
#
# <details><summary>Hint</summary>
#
# `torch.logspace(-2.5, 0.5, 25)` is a sensible range of widths. Use `torch.logsumexp` for $\log p_h$; the densities of distant points
# vanish in floating point. The function of exercise 1 takes images: `points[:, None, None]` makes some out of points.
#
# </details>


# %% tags=["exercise", "points:4"]
def experiment(train, held_out, seed):
    ### BEGIN SOLUTION
    generator, (n, d) = torch.Generator().manual_seed(seed), train.shape
    found = {"widths": torch.logspace(-2.5, 0.5, 25).tolist(), "copies": [], "train": [], "held_out": []}
    for h in found["widths"]:
        samples = train[torch.randint(n, (2000,), generator=generator)]
        samples = samples + h * torch.randn(2000, d, generator=generator)
        found["copies"].append(float(share_of_copies(samples[:, None, None], train[:, None, None])))
        for name, points in (("train", train), ("held_out", held_out)):
            terms = -torch.cdist(points, train).square() / (2 * h**2)
            log_density = torch.logsumexp(terms, dim=1) - math.log(n) - d / 2 * math.log(2 * math.pi * h**2)
            found[name].append(float(log_density.mean()))
    k = max(range(25), key=lambda k: found["held_out"][k])
    return found | {"best": found["widths"][k], "verdict": "copies" if found["copies"][k] > 0.5 else "new"}
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("08.6", experiment)

# %% [markdown]
# *Your answer in words:*
