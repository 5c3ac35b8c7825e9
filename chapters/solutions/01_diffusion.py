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
# # Exercises to 01 Diffusion
#
# Fill in the places marked `...` and run the cell below each of them: it says whether your answer is right and, if it is
# not, what is wrong. The words and formulas are in [the chapter](../01_diffusion.ipynb). Under each title you find the kind of
# exercise, the time it takes somebody who has read the chapter, and how hard it is. A hint helps you to start.
#
# As in the chapter, $x_1$ is a data point, $x_0$ a standard normal noise sample and $x_t = \alpha_t x_1 + \sigma_t x_0$, with $t = 0$ at the
# source and $t = 1$ at the data. A dot is a derivative in $t$.

# %%
from itertools import pairwise

import torch

from fmcore import closed_form, data, paths, solvers
from fmcore.course import checks, style

style.use()
path = paths.variance_preserving()

# %% [markdown]
# ## 1. A chain without discretization error
#
# *Derivation · 15 minutes · ★★☆*
#
# DDPM's step sizes $b_k = \beta(s_k)/K$ are right only for many steps. The chain
# $x_k = \sqrt{1-b_k}\, x_{k-1} + \sqrt{b_k}\, \varepsilon_k$ has $\alpha = \prod_{j \le k} \sqrt{1-b_j}$ after $k$ steps. Choose
# $b_1, \dots, b_K$ so that this equals `path.alpha(t)` at $t_k = 1 - k/K$ *exactly*, for $k = 1, \dots, K$.
#
# Every path of this exercise has $\alpha_t^2 + \sigma_t^2 = 1$ and $\alpha_1 = 1$, but not every one has a $\beta$: use `path.alpha` only.
# Return a tensor of shape $(K,)$, ordered from the data to the source, in double precision (`torch.float64`). Steps near the data are
# small, and single precision would lose their digits.
#
# <details><summary>Hint</summary>
#
# Divide the product after $k$ steps by the product after $k - 1$ steps. What is left on each side?
#
# </details>


# %% tags=["exercise", "points:2"]
def step_sizes(path, K):
    ### BEGIN SOLUTION
    t = 1 - torch.arange(K + 1, dtype=torch.float64) / K
    alpha = path.alpha(t)
    return 1 - (alpha[1:] / alpha[:-1]) ** 2
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("01.1", step_sizes)

# %% [markdown]
# ## 2. The noise prediction for Gaussian data
#
# *Derivation · 15 minutes · ★★☆*
#
# Let the data be Gaussian: $x_1 \sim \mathcal N(m, c^2 I)$ with a mean $m$ of shape $(d,)$ and a number $c > 0$. No network is needed
# then. Work out the best noise prediction $e^*(x, t) = \mathbb E[x_0 \mid x_t = x]$, for any path with $\alpha_t$ and $\sigma_t$.
#
# `x` has shape $(B, d)$, `t` has shape $(B,)$: each row has its own time. `mean` is $m$ and `std` is $c$. Use `path.alpha(t)` and
# `path.sigma(t)`.
#
# <details><summary>Hint</summary>
#
# A sum of two independent Gaussian variables is Gaussian, so you can write down $p_t$, and from it the score. One line of
# section 5 of the chapter leads from the score to the mean noise.
#
# </details>


# %% tags=["exercise", "points:2"]
def gaussian_noise(x, t, mean, std, path):
    ### BEGIN SOLUTION
    alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
    return sigma * (x - alpha * mean) / (alpha**2 * std**2 + sigma**2)
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("01.2", gaussian_noise)

# %% [markdown]
# ## 3. A sampler that loses its noise
#
# *Diagnosis · 20 minutes · ★★☆*
#
# `broken_step` should be one Euler–Maruyama step from $t$ to $t + h$ of
#
# $$
# \mathrm dx = \Big[ v + \tfrac12 g^2\, \nabla \log p_t \Big] \mathrm dt + g\, \mathrm dw ,
# $$
#
# where `v` is the velocity, `z` a standard normal draw of the shape of `x`, and `g` and `h` are numbers. No error is raised. But the
# standard deviation of $x_t$ at $t = \tfrac12$, which is 1.00 for this path and these data, comes out like this:


# %%
def broken_step(x, v, score, g, h, z):
    return x + h * (v + g**2 * score) + g * h * z


def spread_at_half(step, steps):
    """Standard deviation of 800 points at t = 1/2 that started as noise and took this many steps."""
    generator = torch.Generator().manual_seed(0)
    exact = closed_form.EmpiricalVelocity(data.toy.two_moons(200, generator), path)
    x, h = torch.randn(800, 2, generator=generator), 0.5 / steps
    for k in range(steps):
        t = torch.tensor(k * h)
        v = exact(x, t)
        score, g = path.velocity_to_score(v, x, t), float(path.diffusion(t))
        x = step(x, v, score, g, h, torch.randn(x.shape, generator=generator))
    return float(x.std())


for steps in (25, 50, 100, 200):
    print(f"{steps:4d} steps: standard deviation {spread_at_half(broken_step, steps):.2f}")

# %% [markdown]
# Two terms of the step are wrong, each by a factor. Mend one of them at a time and look at `spread_at_half` for several numbers of
# steps. Which term causes which symptom? `cause` gets a symptom and returns `"score term"` or `"noise term"`. Then write the right step.
#
# <details><summary>Hint</summary>
#
# The variances of independent noise terms add up: what is the variance of $n$ noise terms with $h = \tfrac{1}{2n}$, and how should it depend on
# $n$? After that, compare the score term with the formula.
#
# </details>


# %% tags=["exercise", "points:2"]
def cause(symptom):
    ### BEGIN SOLUTION
    return {
        "the spread falls to 0 with more steps": "noise term",
        "the spread is too small by the same factor for any number of steps": "score term",
    }[symptom]
    ### END SOLUTION


def sde_step(x, v, score, g, h, z):
    ### BEGIN SOLUTION
    return x + h * (v + g**2 / 2 * score) + g * h**0.5 * z
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("01.3", cause, sde_step)

# %% [markdown]
# ## 4. The ODE of a variance-exploding path
#
# *Derivation · 10 minutes · ★★☆*
#
# The chapter derives the ODE for the variance-preserving path. On a variance-exploding path $\alpha_t = 1$ and
# $x_t = x_1 + \sigma_t x_0$, so a pair moves with the velocity $\dot\sigma_t x_0$. Average over what $x_0$ may be at a place $x$, and return
# the velocity of the ODE from the score.
#
# `score` has shape $(B, d)$, `t` has shape $(B,)$. Use `path.sigma(t)` and `path.d_sigma(t)`, which is $\dot\sigma_t$.
#
# <details><summary>Hint</summary>
#
# The velocity at $x$ is the mean of $\dot\sigma_t x_0$ given $x_t = x$. Which line of the chapter says what the mean of $x_0$ is? Mind the sign
# of $\dot\sigma_t$: noise shrinks towards the data.
#
# </details>


# %% tags=["exercise", "points:1"]
def exploding_velocity(score, t, path):
    ### BEGIN SOLUTION
    return -(path.sigma(t) * path.d_sigma(t))[:, None] * score
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("01.4", exploding_velocity)

# %% [markdown]
# ## 5. DDIM is Euler's method in other variables
#
# *Proof · 25 minutes · ★★★*
#
# An Euler step of the ODE keeps the whole velocity fixed, although $\alpha_t$ and $\sigma_t$ are known functions. DDIM (Song, Meng and Ermon
# 2021) keeps fixed only what the network says. Let $e(x, t)$ be the noise prediction and $\rho_t = \sigma_t / \alpha_t$ the ratio of noise to signal.
#
# **Claim.** DDIM is Euler's method for $y = x / \alpha_t$ as a function of $\rho$. If the noise prediction is the same all along a
# trajectory, a single step of any length has no error.
#
# **Proof.**
#
# 1. The prediction $e$ belongs to the data point $\hat x_1 = (x - \sigma_t e) / \alpha_t$, and the average over all pairs at $x$ moves with the velocity
#    $v = \dot\alpha_t \hat x_1 + \dot\sigma_t e$. Differentiate $y_t = x_t / \alpha_t$ by the quotient rule, and put in $v$ and
#    $x = \alpha_t \hat x_1 + \sigma_t e$. The data point drops out. *Return* $\dot y_t$ as a function of $e$ and $t$.
# 2. Compare the factor in front of $e$ with $\dot\rho_t$: now you know $\mathrm dy / \mathrm d\rho$. Take one Euler step in $\rho$, from
#    $\rho_t$ to $\rho_r$ with $r > t$, and go back from $y$ to $x$. *Return* $x_r$.
# 3. If $e$ stays the same along a trajectory, then $y$ is a straight line as a function of $\rho$, and Euler's method makes no error on
#    straight lines. $\square$ The simplest example is a single data point $c$: the noise in $x$ is then known, solve
#    $x = \alpha_t c + \sigma_t e$ for it. *Return* the end $x_r$ of the exact trajectory through $x$, as a function of $x$ and $c$. Your
#    step 2 gives the same with this $e$.
#
# Here `path.alpha`, `path.sigma`, `path.d_alpha` and `path.d_sigma` are functions of time, `t` and `r` are tensors of shape $()$, `x` and
# `e` have shape $(B, d)$, and `c` has shape $(d,)$. The check takes the derivative of step 1 numerically and solves the ODE of step 3 with a
# solver.
#
# <details><summary>Hint</summary>
#
# $\dot y = v / \alpha - x\, \dot\alpha / \alpha^2$. For step 2 write $y_r = y_t + (\rho_r - \rho_t) \cdot$ (slope), then multiply by $\alpha_r$.
#
# </details>


# %% tags=["exercise", "points:1"]
def rate_of_y(e, path, t):
    ### BEGIN SOLUTION
    alpha, sigma = path.alpha(t), path.sigma(t)
    return (path.d_sigma(t) * alpha - sigma * path.d_alpha(t)) / alpha**2 * e
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("01.5a", rate_of_y)


# %% tags=["exercise", "points:2"]
def ddim_step(x, e, path, t, r):
    ### BEGIN SOLUTION
    y = x / path.alpha(t) + (path.sigma(r) / path.alpha(r) - path.sigma(t) / path.alpha(t)) * e
    return path.alpha(r) * y
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("01.5b", ddim_step)


# %% tags=["exercise", "points:1"]
def end_of_trajectory(x, c, path, t, r):
    ### BEGIN SOLUTION
    e = (x - path.alpha(t) * c) / path.sigma(t)
    return path.alpha(r) * c + path.sigma(r) * e
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("01.5c", end_of_trajectory)

# %% [markdown]
# ## 6. DDIM or Euler?
#
# *Investigation · 35 minutes · ★★★*
#
# With one data point DDIM makes no error at all. With many data points the prediction changes along the way, and both methods
# have order one. Which of the two ends nearer to the exact ODE at equal NFE? Is it always the same one? Write down what you expect
# for a variance-preserving and for a variance-exploding path, and then find out.
#
# Write `experiment(path, points, seed)` for data `points` of shape $(n, 2)$. Take at least 200 starts, follow the ODE with exact noise
# predictions from $t = 0$ to $t = 0.95$ in equal steps of $t$, and measure the *mean distance* of the ends from those of an accurate solution
# of the ODE. Return a dictionary with
#
# - `"steps"`: at least three numbers of steps, the largest at least four times the smallest;
# - `"DDIM"` and `"Euler"`: the mean distance for each of them;
# - `"control"`: the two distances (DDIM, Euler) for the smallest number of steps when `points[:1]` is all the data, a case of which you
#   know the answer;
# - `"nearer"`: `"DDIM"` or `"Euler"`, what you conclude for this path.
#
# The check runs it for paths, data and seeds of its own, and compares your numbers with its own measurement.
#
# **What a good answer has** (write a few sentences into a new cell below):
#
# - a figure of both errors against NFE, on logarithmic axes, for both paths (1 point);
# - a control, and the scatter over several seeds beside the difference between the methods (2 points);
# - an idea why the answer depends on the path: what changes along a trajectory, the prediction or the coefficients? Then a measurement
#   that could refute this idea, for example other values of $\sigma_{\max}$ or data with another spread (3 points);
# - one sentence that says for which paths, data and numbers of steps your verdict holds (1 point).
#
# <details><summary>Hint</summary>
#
# `closed_form.EmpiricalVelocity(points, path)` is the exact velocity and `path.velocity_to_noise(v, x, t)` its noise prediction. The
# start is `path.source_scale` times standard normal numbers. `solvers.solve(velocity, x0, t1=0.95, rtol=1e-5, atol=1e-5).x` is accurate enough,
# `method="euler", steps=n` gives Euler, and `pairwise(torch.linspace(0, 0.95, n + 1))` the steps of DDIM.
# `fmcore.course.plotting.error_against(steps, {"DDIM": ..., "Euler": ...})` draws the figure.
#
# </details>


# %% tags=["exercise", "points:5"]
def experiment(path, points, seed):
    ### BEGIN SOLUTION
    def errors(points, steps):
        exact = closed_form.EmpiricalVelocity(points, path)
        truth = solvers.solve(exact, x0, t1=0.95, rtol=1e-5, atol=1e-5).x
        distances = []
        for n in steps:
            x = x0
            for t, r in pairwise(torch.linspace(0, 0.95, n + 1)):
                x = ddim_step(x, path.velocity_to_noise(exact(x, t), x, t), path, t, r)
            euler = solvers.solve(exact, x0, t1=0.95, method="euler", steps=n).x
            distances.append([float((end - truth).norm(dim=1).mean()) for end in (x, euler)])
        return distances

    x0 = path.source_scale * torch.randn(300, 2, generator=torch.Generator().manual_seed(seed))
    steps = [4, 8, 16]
    ddim, euler = zip(*errors(points, steps), strict=True)
    [control] = errors(points[:1], steps[:1])
    nearer = "DDIM" if all(d < e for d, e in zip(ddim, euler, strict=True)) else "Euler"
    return {"steps": steps, "DDIM": ddim, "Euler": euler, "control": control, "nearer": nearer}
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("01.6", experiment)
