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
# # Exercises to 00 Start here
#
# Fill in the places marked `...` and run the cell below each of them: it says whether your answer is right and, if it is
# not, what is wrong. The words and formulas are in [the chapter](../00_start_here.ipynb). Under each title you find the kind
# of exercise, the time it takes somebody who has read the chapter, and how hard it is. A hint helps you to start.

# %%
import torch

from fmcore import closed_form, data, networks, solvers
from fmcore.course import checks, plotting, style

style.use()

# %% [markdown]
# ## 1. An Euler solver
#
# *Transcription · 10 minutes · ★☆☆*
#
# The simplest solver follows a velocity from $t = 0$ to $t = 1$ in $n$ equal steps of length $h = 1/n$. In step
# $k = 0, \dots, n - 1$ it looks at the velocity once and goes straight on:
#
# $$
# x \leftarrow x + h\, v(x, t_k), \qquad t_k = k h .
# $$
#
# `velocity` is called as `velocity(x, t)` with a tensor `t` of shape $()$. Return the last `x`; leave `x0` as it is.
#
# <details><summary>Hint</summary>
#
# A loop over `range(n)` with two lines before it. The time of a step is `torch.tensor(k * h)`. Write `x = x + ...`, which
# makes a new tensor, and not `x += ...`, which would change `x0`.
#
# </details>


# %% tags=["exercise", "points:2"]
def euler(velocity, x0, n):
    ### BEGIN SOLUTION
    x, h = x0, 1 / n
    for k in range(n):
        x = x + h * velocity(x, torch.tensor(k * h))
    return x
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("00.1", euler)

# %% [markdown]
# Let it follow the exact velocity of 500 data points. The picture should show two moons.

# %%
generator = torch.Generator().manual_seed(1)
moons = data.toy.two_moons(500, generator)
start = torch.randn(500, 2, generator=generator)
end = euler(closed_form.EmpiricalVelocity(moons), start, 100)
None if end is None else plotting.clouds(source=start, exact=end, behind=moons, limit=3.6)

# %% [markdown]
# ## 2. Three losses that are not the right one
#
# *Diagnosis · 20 minutes · ★★☆*
#
# Each of these losses differs from that of the chapter in one place. All three can be trained without an error message.
# Read them first, and decide on paper what the samples will look like. Then run the cell after them, which trains a small
# network with each loss (a few seconds) and draws 400 samples of it.


# %%
def loss_a(model, x0, x1, t):
    xt = (1 - t)[:, None] * x0 + t[:, None] * x1
    return (model(xt, t) - x1).square().mean()


def loss_b(model, x0, x1, t):
    xt = (1 - t)[:, None] * x0 + t[:, None] * x1
    return (model(xt, t) - (x1 - x0)).square().sum(dim=1).mean()


def loss_c(model, x0, x1, t):
    xt = (1 - t)[:, None] * x0 + t[:, None] * x1
    return (model(xt, t) - (x1 - x0)).mean().square()


# %%
def samples_after_training(loss, steps=400):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = networks.MLP(2, width=64, depth=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        x0, x1 = torch.randn(128, 2, generator=generator), data.toy.two_moons(128, generator)
        value = loss(model, x0, x1, torch.rand(128, generator=generator))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        decay.step()
    return solvers.solve(model, torch.randn(400, 2, generator=generator), method="midpoint", steps=20).x


picture, axes = plotting.canvas(1, 3)
for name, loss, ax in zip("ABC", (loss_a, loss_b, loss_c), axes, strict=True):
    plotting.clouds(model=samples_after_training(loss), behind=moons, limit=4, title=f"loss {name}", ax=ax)
picture

# %% [markdown]
# Where do the samples of each loss end? Return for `"A"`, `"B"` and `"C"` one of the words `"two moons"`, `"too wide"` and
# `"as at the start"`. Before you go on, say *why*: which velocity makes each loss smallest, and is there only one?
#
# <details><summary>Hint</summary>
#
# Write the difference to the loss of the chapter as one word: another target, another factor, another order of two operations.
# Does a constant factor move the minimum of a loss? Can errors that are not zero have the mean zero?
#
# </details>


# %% tags=["exercise", "points:1"]
def leads_to(loss):
    ### BEGIN SOLUTION
    return {"A": "too wide", "B": "two moons", "C": "as at the start"}[loss]
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("00.2a", leads_to)

# %% [markdown]
# The right loss has `t[:, None]` in it, because it was written for points. Give it 8 images of shape $(8, 1, 8, 8)$: it raises no
# error, trains, and is wrong. Here is why, with 3 images of 3 x 3 pixels. All pixels of the first image should be multiplied by its
# own time, 0:

# %%
print((torch.tensor([0.0, 1.0, 2.0])[:, None] * torch.ones(3, 1, 3, 3))[0, 0])

# %% [markdown]
# Mend it. `x0` and `x1` have shape $(B, \dots)$: rows of numbers or images, with any number of axes after the first; `t` has shape
# $(B,)$, and the model is called as `model(xt, t)`. The loss is one number, the mean squared error over rows and all their entries.


# %% tags=["exercise", "points:2"]
def mended_loss(model, x0, x1, t):
    ### BEGIN SOLUTION
    s = t.reshape(-1, *[1] * (x0.ndim - 1))
    xt = (1 - s) * x0 + s * x1
    return (model(xt, t) - (x1 - x0)).square().mean()
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("00.2b", mended_loss)

# %% [markdown]
# ## 3. On a straight line Euler makes no error
#
# *Proof · 15 minutes · ★★☆*
#
# **Claim.** Follow the conditional velocity $u_t(x \mid x_1) = (x_1 - x) / (1 - t)$ from $x_0$ by Euler's method in $n$ equal
# steps. After every step the point lies on the straight line from $x_0$ to $x_1$, exactly where the path of the pair is at
# that time, and the last step ends at $x_1$. This holds for every $n$, even for $n = 1$.
#
# **Proof.**
#
# 1. One step of length $h$ that starts at the point $x$ at time $t$ leads to $x + h\, (x_1 - x) / (1 - t) = x + s\, (x_1 - x)$. So
#    the point goes a share $s$ of what is left of its way to $x_1$. *Return this share* as a function of $t$ and $h$.
# 2. After the step, the distance to $x_1$ is the old one times $1 - s$. The steps start at $t = 0, h, 2h, \dots$ with
#    $h = 1/n$. Multiply the first $k$ of these factors: each denominator cancels the numerator before it. *Return the product*,
#    the part of the distance from $x_0$ to $x_1$ that is left after $k$ of $n$ steps.
# 3. Hence after $k$ steps $x = x_1 + (\text{your product}) \cdot (x_0 - x_1)$. This is a point of the line, the one that belongs to
#    $t = k/n$, and for $k = n$ it is $x_1$. $\square$
#
# The check takes Euler steps from random points and compares what it measures with your formulas.
#
# <details><summary>Hint</summary>
#
# Write $1 - s$ as a single fraction. Then write the factors for $n = 4$ next to each other: $t = 0, \tfrac14, \tfrac12, \tfrac34$.
#
# </details>


# %% tags=["exercise", "points:2"]
def share(t, h):
    ### BEGIN SOLUTION
    return h / (1 - t)
    ### END SOLUTION


def left(k, n):
    ### BEGIN SOLUTION
    return 1 - k / n
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("00.3", share, left)

# %% [markdown]
# ## 4. Where lines cross
#
# *Derivation · 15 minutes · ★★☆*
#
# At one place and time two kinds of pairs pass: a share $p$ of them with the velocity $a$, the share $1 - p$ with the velocity
# $b$. Both are vectors of shape $(d,)$. A network that answers with the velocity $v$ has there the mean squared error
#
# $$
# L(v) = p\, \| v - a \|^2 + (1 - p)\, \| v - b \|^2 .
# $$
#
# Work out the answer $v$ with the smallest $L$, and then this smallest $L$ itself: it is what is left of the loss of a perfect
# network. The second result depends on $p$ and the distance of $a$ and $b$ only; you find it when you put the first into $L$.
#
# <details><summary>Hint</summary>
#
# Set the gradient of $L$ with respect to $v$ to zero. Then write $v - a$ and $v - b$ as multiples of $b - a$.
#
# </details>


# %% tags=["exercise", "points:2"]
def best_answer(a, b, p):
    ### BEGIN SOLUTION
    return p * a + (1 - p) * b
    ### END SOLUTION


def loss_left(a, b, p):
    ### BEGIN SOLUTION
    return p * (1 - p) * (a - b).square().sum()
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("00.4", best_answer, loss_left)

# %% [markdown]
# ## 5. Is every data point copied equally often?
#
# *Investigation · 30 minutes · ★★★*
#
# Samples of the exact velocity end on data points. Some data points lie in the middle of the others, some far outside. Does
# each of them get the same share of the samples, or are some of them favoured? Nobody tells you what to measure; this is the
# question.
#
# Chance alone makes counts unequal. If $N$ samples chose among $n$ data points by drawing lots, each point would be chosen about
# $N/n$ times, give or take $\sqrt{N/n}$. So you need a **control**: the same counts for samples that do draw lots
# (`torch.randint`). Equal shares means: the counts of the flow scatter no more than those of the control.
#
# Write `experiment(points, seed)` for data `points` of shape $(n, 2)$. It returns a dictionary with
#
# - `"flow"`: how many samples of the exact velocity end at each data point (the nearest one), shape $(n,)$;
# - `"control"`: the counts of equally many lots, shape $(n,)$;
# - `"verdict"`: `"equally often"` or `"some more often"`, what you conclude. Let your own numbers decide.
#
# The check runs it for data sets and seeds of its own, so it should take a few seconds at most. It asks for at least 50
# samples for each data point.
#
# **What a good answer has** (write a few sentences into a new cell below):
#
# - a number that measures how unequal counts are, for the flow and for the control, from several seeds (2 points);
# - a test that the result does not depend on the solver: other methods or more steps (1 point);
# - two data sets that differ, for example one with a point far away from all others (1 point);
# - a verdict that names what the numbers do *not* show (1 point).
#
# <details><summary>Hint</summary>
#
# `closed_form.EmpiricalVelocity(points)` is the exact velocity and `solvers.solve(velocity, x0, t1=0.999, ...)` follows it.
# `torch.cdist(x, points).argmin(dim=1)` is the number of the nearest data point of each sample, and
# `torch.bincount(numbers, minlength=n)` counts. A measure of scatter: the mean of $(\text{count} - N/n)^2 / (N/n)$, which is about 1 for
# lots.
#
# </details>


# %% tags=["exercise", "points:4"]
def experiment(points, seed):
    ### BEGIN SOLUTION
    generator = torch.Generator().manual_seed(seed)
    n = len(points)
    x0 = torch.randn(100 * n, 2, generator=generator)
    x = solvers.solve(closed_form.EmpiricalVelocity(points), x0, t1=0.999, method="midpoint", steps=60).x
    flow = torch.bincount(torch.cdist(x, points).argmin(dim=1), minlength=n)
    control = torch.bincount(torch.randint(n, (100 * n,), generator=generator), minlength=n)
    unequal = ((flow - 100) ** 2 / 100).mean()  # about 1 for lots, give or take sqrt(2 / n)
    verdict = "equally often" if unequal < 1 + 4 * (2 / n) ** 0.5 else "some more often"
    return {"flow": flow, "control": control, "verdict": verdict}
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("00.5", experiment)
