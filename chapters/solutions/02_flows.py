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
# # Exercises to 02 Flows
#
# Fill in the places marked `...` and run the cell below each of them: it says whether your answer is right and, if it is
# not, what is wrong. The words and formulas are in [the chapter](../02_flows.ipynb). Under each title you find the kind of
# exercise, the time it takes somebody who has read the chapter, and how hard it is. A hint helps you to start.

# %%
import math

import torch

from fmcore import solvers, sources
from fmcore.course import checks, plotting, style

style.use()


# %% [markdown]
# The whirl of section 1 of the chapter, and its exact flow:


# %%
def quarter_turn(x):
    return torch.stack([-x[:, 1], x[:, 0]], dim=1)


def whirl(x, t):
    t = torch.as_tensor(t, dtype=x.dtype).reshape(-1, 1)
    square = x.square().sum(dim=1, keepdim=True)
    return 2 * (4 - square) / (4 + square) * x + 4 * t * quarter_turn(x)


def whirl_exact(x0, t):
    """Where its flow carries x0 until time t."""
    r0 = x0.norm(dim=1, keepdim=True)
    q = (2 / r0 - r0 / 2) * math.exp(-2 * t)
    r, angle = (q**2 + 4).sqrt() - q, 2 * t**2
    return r / r0 * (math.cos(angle) * x0 + math.sin(angle) * quarter_turn(x0))


# %% [markdown]
# ## 1. A method that has lost an order
#
# *Diagnosis · 15 minutes · ★★☆*
#
# `broken_heun` was meant to be Heun's method: look ahead to the end of the step with Euler, then go with the average of the
# velocities at the two ends. On a field that does not change in time it has order 2, as it should. On the whirl it has order 1.


# %%
def broken_heun(velocity, x0, steps):
    x, h = x0, 1 / steps
    for i in range(steps):
        t = torch.tensor(i * h)
        k1 = velocity(x, t)
        k2 = velocity(x + h * k1, t)
        x = x + h / 2 * (k1 + k2)
    return x


def frozen(x, t):
    return whirl(x, 0.5)


starts = torch.randn(50, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
steps = torch.tensor([16, 32, 64, 128])
truth = {"whirl": whirl_exact(starts, 1.0), "frozen whirl": solvers.solve(frozen, starts, rtol=1e-9, atol=1e-9).x}
errors = {
    name: [(broken_heun(field, starts, int(n)) - truth[name]).norm(dim=1).mean() for n in steps]
    for name, field in (("whirl", whirl), ("frozen whirl", frozen))
}
plotting.error_against(steps, errors)

# %% [markdown]
# Find the line that can only matter where the velocity depends on time, and write the method as it was meant. The velocity gets its
# time as a tensor of shape $()$.
#
# <details><summary>Hint</summary>
#
# For each of the two velocities say where the point is, and when it is there.
#
# </details>


# %% tags=["exercise", "points:1"]
def heun(velocity, x0, steps):
    ### BEGIN SOLUTION
    x, h = x0, 1 / steps
    for i in range(steps):
        now, later = torch.tensor(i * h), torch.tensor((i + 1) * h)
        k1 = velocity(x, now)
        k2 = velocity(x + h * k1, later)
        x = x + h / 2 * (k1 + k2)
    return x
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("02.1a", heun)

# %% [markdown]
# Now write what the legend above shows. `errors[i]` is the error with `steps[i]` steps (two tensors), and the error is about $C h^p$ with
# $h = 1 / \text{steps}$. Measured errors scatter, so use **all** of them: return the $p$ of the straight line that fits the logarithms
# best in the sense of least squares.


# %% tags=["exercise", "points:1"]
def order(steps, errors):
    ### BEGIN SOLUTION
    u, v = torch.log(1 / steps), torch.log(errors)
    u = u - u.mean()
    return (u * (v - v.mean())).sum() / u.square().sum()
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("02.1b", order)

# %% [markdown]
# ## 2. The divergence of a radial field
#
# *Derivation · 15 minutes · ★★☆*
#
# A radial field in $d$ dimensions points straight away from the origin, or towards it: $v(x) = f(s)\, x$ with $s = \|x\|^2$. The first term of
# the whirl is such a field. Work out its divergence, for any $f$ with derivative $f'$ and any $d$.
#
# `f` and `df` are functions that map a tensor of values $s$ to $f(s)$ and $f'(s)$; `x` has shape $(B, d)$. Return the divergence at each row,
# shape $(B,)$. Use no autograd: the check does.
#
# Then take $v(x) = \|x\|^p\, x$. For one power $p$ this field neither expands nor compresses space away from the origin: the velocity of water
# from a point source. Return this $p$ for $d$ dimensions.
#
# <details><summary>Hint</summary>
#
# $\partial v_i / \partial x_i$ by the product rule, with $\partial s / \partial x_i = 2 x_i$; then sum over $i$. For the second part, which $f$ is it?
#
# </details>


# %% tags=["exercise", "points:2"]
def radial_divergence(x, f, df):
    ### BEGIN SOLUTION
    s = x.square().sum(dim=1)
    return x.shape[1] * f(s) + 2 * s * df(s)
    ### END SOLUTION


def power_of_a_source(d):
    ### BEGIN SOLUTION
    return -d
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("02.2", radial_divergence, power_of_a_source)

# %% [markdown]
# ## 3. A density whose mass is not one
#
# *Diagnosis · 20 minutes · ★★☆*
#
# Samples $x_0$ of the density $p_0$ are sent through an invertible map $x_1 = \phi(x_0)$. `broken_log_density` should return $\log p_1(x_1)$ at
# each row of `x1`. It gets the inverse map (a batch in, a batch out, rows independent) and `log_prob0`, which maps $(B, d)$ to $(B,)$.
# A density has mass 1. Here is its mass on a fine grid, for three maps of a standard Gaussian:


# %%
def broken_log_density(x1, inverse, log_prob0):
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: inverse(row[None])[0]))(x1)  # (B, d, d)
    return log_prob0(inverse(x1)) - torch.linalg.det(jacobian).log()


inverses = {
    "a quarter turn": lambda x1: -quarter_turn(x1),
    "everything twice as large": lambda x1: x1 / 2,
    "a mirror": lambda x1: x1 * torch.tensor([1.0, -1.0], dtype=x1.dtype),
}


def mass(log_density, inverse, limit=10.0, points=101):
    grid = plotting.grid(limit, points).double()
    log_p = log_density(grid, inverse, sources.Gaussian((2,)).log_prob)
    return float(log_p.exp().sum()) * (2 * limit / (points - 1)) ** 2


for name, inverse in inverses.items():
    print(f"{name:26s} mass {mass(broken_log_density, inverse):6.3f}")

# %% [markdown]
# Two things are wrong. Mend them. Then explain the number in the second line: return the mass that `broken_log_density` would give to
# the image of a density under $x_1 = c\, x_0$ in $d$ dimensions, for $c > 0$.
#
# <details><summary>Hint</summary>
#
# In one dimension, a probability is $p_1(x_1)\, dx_1 = p_0(x_0)\, dx_0$, with both lengths positive. Solve it for $p_1$, and compare with the code.
# For the last question integrate what the code returns, with $x_1 = c\, x_0$ as substitution.
#
# </details>


# %% tags=["exercise", "points:2"]
def log_density(x1, inverse, log_prob0):
    ### BEGIN SOLUTION
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: inverse(row[None])[0]))(x1)
    return log_prob0(inverse(x1)) + torch.linalg.det(jacobian).abs().log()
    ### END SOLUTION


def broken_mass(c, d):
    ### BEGIN SOLUTION
    return c ** (2 * d)
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("02.3", log_density, broken_mass)

# %% [markdown]
# ## 4. A motion that leaves a Gaussian unchanged
#
# *Derivation · 10 minutes · ★★☆*
#
# For a Gaussian $p$ with mean $m$, shape $(2,)$, and covariance $C$, shape $(2, 2)$, return $w(x) = J\, \nabla \log p(x)$ at each row of
# `x`, where $J (a, b) = (-b, a)$ (`quarter_turn` above). Work out $\nabla \log p$ first. Every point moves, and the density stays: the check
# follows some points with your field.
#
# <details><summary>Hint</summary>
#
# $\log p(x) = -\tfrac12 (x - m)^{\top} C^{-1} (x - m) + \text{const}$. `torch.linalg.solve(C, b)` is $C^{-1} b$ for columns $b$.
#
# </details>


# %% tags=["exercise", "points:2"]
def stirring(x, mean, covariance):
    ### BEGIN SOLUTION
    score = -torch.linalg.solve(covariance, (x - mean).T).T
    return quarter_turn(score)
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("02.4", stirring)

# %% [markdown]
# ## 5. The spread of Hutchinson's estimate
#
# *Proof · 25 minutes · ★★★*
#
# **Claim** (section 7 of the chapter). For a probe $\varepsilon \in \mathbb R^d$ of independent random signs and a matrix $A$, which need not be
# symmetric, $\operatorname{Var}[\varepsilon^{\top} A\, \varepsilon] = 2 \sum_{i \ne j} S_{ij}^2$ with $S = \tfrac12 (A + A^{\top})$.
#
# **Proof.**
#
# 1. In $\varepsilon^{\top} A\, \varepsilon = \sum_{i, j} A_{ij}\, \varepsilon_i \varepsilon_j$ the terms with $i = j$ are not random, because $\varepsilon_i^2 = 1$: their sum is $\operatorname{tr} A$.
#    Of the others, the terms $(i, j)$ and $(j, i)$ have the same product of signs. So there are numbers $c_{ij}$ with
#
#    $$
#    \varepsilon^{\top} A\, \varepsilon - \operatorname{tr} A = \sum_{i < j} c_{ij}\, \varepsilon_i \varepsilon_j .
#    $$
#
#    *Return* the matrix of the $c_{ij}$, shape $(d, d)$, with zeros where $i \ge j$.


# %% tags=["exercise", "points:1"]
def coefficients(matrix):
    ### BEGIN SOLUTION
    return torch.triu(matrix + matrix.T, diagonal=1)
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("02.5a", coefficients)

# %% [markdown]
# 2. The mean of the right-hand side is 0, because $\mathbb E[\varepsilon_i \varepsilon_j] = 0$ for $i \ne j$. So the variance is the mean of its square, a double sum over
#    pairs $i < j$ and $k < m$ of $c_{ij}\, c_{km}\, \mathbb E[\varepsilon_i \varepsilon_j \varepsilon_k \varepsilon_m]$. *Return* this last mean for whole numbers $i < j$ and $k < m$.
#
# <details><summary>Hint</summary>
#
# A sign that occurs once, or three times, makes the mean 0; one that occurs twice drops out. When do all signs drop out?
#
# </details>


# %% tags=["exercise", "points:1"]
def mean_of_four(i, j, k, m):
    ### BEGIN SOLUTION
    return float((i, j) == (k, m))
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("02.5b", mean_of_four)

# %% [markdown]
# 3. So only one sum over pairs $i < j$ is left. Write it with your $c_{ij}$, then with $S$: each $i \ne j$ counts once in the sum of the claim, so each
#    pair counts twice there. $\square$
#
# *Return* the standard deviation of $\varepsilon^{\top} A\, \varepsilon$. The check goes through all $2^d$ probes.


# %% tags=["exercise", "points:1"]
def spread(matrix):
    ### BEGIN SOLUTION
    return coefficients(matrix).square().sum().sqrt()
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("02.5c", spread)

# %% [markdown]
# ## 6. Does a high order survive a kink?
#
# *Investigation · 35 minutes · ★★★*
#
# Order is a statement about smooth velocities. A network with ReLU units is not smooth: its velocity is continuous, but its derivative jumps. A
# velocity towards the nearest of several data points is not even continuous. What is left of the order of RK4 then? Make a guess for each of the fields below and write
# it down before you measure.


# %%
def smooth(x, t):
    return 1 + x**2 / 2


def kink(x, t):
    return 1 + x.abs() / 2


def jump(x, t):
    return 1 + (x > 0).to(x) / 2


# %% [markdown]
# Write `experiment(method, seed)` for a method of `solvers.solve` with fixed steps. It draws at least 300 starts uniformly from $(-0.9, -0.1)$, shape
# $(B, 1)$, all of which pass $x = 0$ before $t = 1$, solves from $t = 0$ to $t = 1$, and returns a dictionary with
#
# - `"steps"`: at least four numbers of steps, the largest at least eight times the smallest;
# - `"smooth"`, `"kink"`, `"jump"`: the mean absolute error at $t = 1$ for each of them. `smooth` is your control: you know the order there;
# - `"orders"`: three whole numbers, the order that you conclude for `smooth`, `kink` and `jump`.
#
# The check runs it for two methods and compares your errors with its own. You need a true solution for each field: a solver can give it, but is it
# exact enough for the field with the jump?
#
# **What a good answer has** (write a few sentences into a new cell below):
#
# - a figure of the errors against the steps for the three fields, with the slopes (1 point);
# - a test that the true solution is much more exact than the smallest error that you measure (2 points);
# - the error that one step makes when the kink lies inside it, as a power of $h$, and how many steps have a kink inside; from this the
#   order at the end (3 points);
# - what follows for the choice of a solver for a ReLU network, and what you would have to measure to be sure (1 point).
#
# <details><summary>Hint</summary>
#
# Use `torch.float64`. Each field is simple on both sides of 0: the exact solution can be found with a pencil, with the time at which a point passes 0.
# Or take as truth the same solver with very many steps, and ask how its error compares. `order` of exercise 1 gives the slope.
#
# </details>


# %% tags=["exercise", "points:5"]
def experiment(method, seed):
    ### BEGIN SOLUTION
    generator = torch.Generator().manual_seed(seed)
    x0 = -0.9 + 0.8 * torch.rand(400, 1, generator=generator, dtype=torch.float64)
    at = 2 * torch.log(1 - x0 / 2)  # when dx/dt = 1 - x/2 leads to 0
    root = math.sqrt(2)
    exact = {
        smooth: root * torch.tan(torch.atan(x0 / root) + 1 / root),
        kink: 2 * (torch.exp((1 - at) / 2) - 1),
        jump: 1.5 * (1 + x0),
    }
    found = {"steps": torch.tensor([8, 16, 32, 64])}
    for field, truth in exact.items():
        ends = [solvers.solve(field, x0, method=method, steps=int(n)).x for n in found["steps"]]
        found[field.__name__] = torch.stack([(end - truth).abs().mean() for end in ends])
    found["orders"] = [round(float(order(found["steps"], found[field.__name__]))) for field in exact]
    return found
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("02.6", experiment)
