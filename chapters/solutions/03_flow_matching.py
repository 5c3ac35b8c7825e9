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
# # Exercises to 03 Flow matching
#
# Fill in the places marked `...` and run the cell below each of them: it says whether your answer is right and, if it
# is not, what is wrong. The terms and formulas are in [the chapter](../03_flow_matching.ipynb). Each exercise has a
# line with its kind, the minutes that it takes once you have read the chapter, and its difficulty.

# %%
import math

import torch

from fmcore import closed_form, data, networks, paths, solvers
from fmcore.course import checks, plotting, style

style.use()
path = paths.rectified()
moons = data.toy.two_moons(2000, torch.Generator().manual_seed(0))

# %% [markdown]
# ## 1. The velocity towards a small Gaussian
#
# *Derivation · 10 minutes · ★☆☆*
#
# The path of Lipman et al. 2023 does not shrink the Gaussian to a point but to a small Gaussian of standard deviation
# $\sigma_{\min}$ around $x_1$. It joins $x_0$ and $x_1$ by
#
# $$
# x_t = \big(1 - (1 - \sigma_{\min})\, t\big)\, x_0 + t\, x_1 .
# $$
#
# Derive its conditional velocity $u_t(x \mid x_1)$, a function of the place $x$ and the data point $x_1$, not of
# $x_0$. `x` and `x1` have shape $(B, d)$, `t` has shape $(B,)$, and `sigma_min` is a number.
#
# <details><summary>Hint</summary>
#
# Follow the steps by which the chapter finds $u_t(x \mid x_1)$ for the straight path: first the derivative of $x_t$ in
# $t$, then what $x_t = x$ says about $x_0$.
#
# </details>


# %% tags=["exercise", "points:2"]
def conditional_velocity(x, x1, t, sigma_min):
    ### BEGIN SOLUTION
    t = t[:, None]
    x0 = (x - t * x1) / (1 - (1 - sigma_min) * t)
    return x1 - (1 - sigma_min) * x0
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("03.1", conditional_velocity)

# %% [markdown]
# ## 2. A source that is not Gaussian
#
# *Derivation · 15 minutes · ★★☆*
#
# Theorem 1 holds for every source. Let $x_0$ have a density $p_0$ that is positive everywhere, and let the data be $n$
# points $x^{(1)}, \dots, x^{(n)}$, each with probability $1/n$. The path is still $x_t = (1 - t)\, x_0 + t\, x_1$ with
# $x_0$ and $x_1$ independent. Derive the weights $w_i(x, t)$ and write the marginal velocity $u^*(x, t)$.
#
# `x` has shape $(B, d)$, `t` has shape $(B,)$ (each row has its own time), `points` has shape $(n, d)$. The function
# `log_source` takes places of shape $(\dots, d)$ and returns $\log p_0$ up to a constant, in shape $(\dots)$. Return
# shape $(B, d)$. The densities may be far too small for the computer ($e^{-10000}$).
#
# <details><summary>Hint</summary>
#
# Which noise sample must a particle have started from, if it is at $x$ at time $t$ and on its way to $x^{(i)}$? A
# change of variables turns $p_0$ into $p_t(x \mid x^{(i)})$; its factor is the same for all $i$. Stay with logarithms
# until a softmax.
#
# </details>


# %% tags=["exercise", "points:3"]
def marginal_velocity(x, t, points, log_source):
    ### BEGIN SOLUTION
    rest = 1 - t[:, None]
    starts = (x[:, None] - t[:, None, None] * points) / rest[:, None]  # (B, n, d): the x0 of each data point
    weights = torch.softmax(log_source(starts), dim=1)  # the factor (1 - t)^(-d) cancels
    return (weights @ points - x) / rest
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("03.2", marginal_velocity)

# %% [markdown]
# ## 3. A loss that falls
#
# *Diagnosis · 15 minutes · ★★☆*
#
# The function below was meant to draw a batch and return the loss $L_{\mathrm{CFM}}$ of the straight path, the mean
# over batch *and* dimensions. A network that was trained with it gives the samples in the picture, although the loss
# went down smoothly. There are **three** faults in the function: two of them spoil the samples, one shows only when
# losses are compared between data of different dimension.


# %%
def broken_loss(model, x1, generator):
    t = torch.rand(x1.shape, generator=generator)
    xt = (1 - t) * torch.randn(x1.shape, generator=generator) + t * x1
    target = x1 - torch.randn(x1.shape, generator=generator)
    return (model(xt, t[:, 0]) - target).square().sum(dim=1).mean() / 2


# %%
def trained(loss_of):
    """A network after 400 training steps on the two moons."""
    torch.manual_seed(0)
    network, generator = networks.MLP(2), torch.Generator().manual_seed(6)
    adam = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(400):
        loss = loss_of(network, moons[torch.randint(2000, (256,), generator=generator)], generator)
        adam.zero_grad()
        loss.backward()
        adam.step()
    return network


def picture_of(network):
    noise = torch.randn(1000, 2, generator=torch.Generator().manual_seed(9))
    samples = solvers.solve(network, noise, method="euler", steps=50).x
    return plotting.clouds(data=moons, model=samples, limit=3.0)


picture_of(trained(broken_loss))

# %% [markdown]
# Write the loss as it was meant. `x1` has shape $(B, d)$; draw all that is random from `generator`. The model takes
# `x` of shape $(B, d)$ and `t` of shape $(B,)$ and is asked once.
#
# <details><summary>Hint</summary>
#
# Write next to each tensor its shape and what it stands for in the formula of the loss. How many different $t$ and
# how many different $x_0$ does one row of the batch have?
#
# </details>


# %% tags=["exercise", "points:2"]
def training_loss(model, x1, generator):
    ### BEGIN SOLUTION
    t = torch.rand(len(x1), generator=generator, dtype=x1.dtype)
    x0 = torch.randn(x1.shape, generator=generator, dtype=x1.dtype)
    xt = (1 - t[:, None]) * x0 + t[:, None] * x1
    return (model(xt, t) - (x1 - x0)).square().mean()
    ### END SOLUTION


# %% tags=["check"]
mended = checks.exercise("03.3a", training_loss)

# %% [markdown]
# Suppose that only one fault is left: the noise in the target is drawn anew. Of which quantity does a perfect network
# then learn the mean given $x_t$? Answer with one of the words `"velocity"` ($x_1 - x_0$), `"data"` ($x_1$), `"noise"`
# ($x_0$), `"zero"`.

# %% tags=["exercise", "points:1"]
learned = ...
### BEGIN SOLUTION
learned = "data"  # the new noise has mean zero given x_t
### END SOLUTION

# %% tags=["check"]
checks.exercise("03.3b", learned)

# %% [markdown]
# Once your loss is right, this cell trains the same network with it.

# %%
picture_of(trained(training_loss)) if mended else None

# %% [markdown]
# ## 4. The loss of a perfect network
#
# *Derivation · 20 minutes · ★★☆*
#
# Let $x_0 \sim \mathcal{N}(0, 1)$ and $x_1 \sim \mathcal{N}(0, s^2)$ be numbers ($d = 1$), jointly Gaussian with
# correlation $\rho$, so that $\operatorname{Cov}(x_0, x_1) = \rho s$. A perfect network still has a loss, the
# irreducible loss: at time $t$ it is the variance of the target $x_1 - x_0$ given $x_t = (1 - t)\, x_0 + t\, x_1$.
# Derive it as a function of $t$, $s$ and $\rho$ (tensors of one shape). It becomes short.
#
# <details><summary>Hint</summary>
#
# For jointly Gaussian $a$ and $b$, $\operatorname{Var}(a \mid b) = \operatorname{Var}(a) - \operatorname{Cov}(a, b)^2
# / \operatorname{Var}(b)$, which is the determinant of the covariance of $(b, a)$ divided by $\operatorname{Var}(b)$.
# The pair $(x_t, x_1 - x_0)$ is a matrix times $(x_0, x_1)$. What is the determinant of that matrix?
#
# </details>


# %% tags=["exercise", "points:2"]
def perfect_loss_at(t, s, rho):
    ### BEGIN SOLUTION
    return s**2 * (1 - rho**2) / ((1 - t) ** 2 + 2 * rho * t * (1 - t) * s + t**2 * s**2)
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("03.4a", perfect_loss_at)

# %% [markdown]
# The loss of the perfect network is the mean of this over $t \in [0, 1]$. Derive it for independent pairs ($\rho = 0$)
# and any $s > 0$, without numerical integration.
#
# <details><summary>Hint</summary>
#
# Substitute $z = t s / (1 - t)$. The integral of $1 / (1 + z^2)$ is $\arctan z$.
#
# </details>


# %% tags=["exercise", "points:2"]
def perfect_loss(s):
    ### BEGIN SOLUTION
    return math.pi * s / 2  # for s = 1, where source and data are the same, it is 1.57 and not 0
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("03.4b", perfect_loss)

# %% [markdown]
# ## 5. The weak form of Theorem 1
#
# *Proof · 25 minutes · ★★★*
#
# **Claim.** For every smooth function $\varphi: \mathbb{R}^d \to \mathbb{R}$ that grows no faster than a polynomial,
#
# $$
# \frac{\mathrm{d}}{\mathrm{d}t}\, \mathbb{E}\, \varphi(x_t) = \mathbb{E}\, \big[ \nabla \varphi(x_t) \cdot u^*(x_t, t) \big] ,
# \qquad x_t = (1 - t)\, x_0 + t\, x_1 .
# $$
#
# A particle $z_t$ that follows $\mathrm{d}z / \mathrm{d}t = u^*(z, t)$ satisfies the same equation, by the chain
# rule. So the distributions of $z_t$ and of $x_t$ both start at $p_0$ and solve the same equation. Where its solution
# is unique, they are equal: this is Theorem 1, without densities.
#
# **Proof.**
#
# 1. *Chain rule.* For one pair $(x_0, x_1)$, $\frac{\mathrm{d}}{\mathrm{d}t} \varphi(x_t)$ is a product of the
#    gradient of $\varphi$ at a certain place and a certain direction. The derivative of the expectation is the
#    expectation of this rate.
# 2. *Conditional mean.* Split the expectation according to the place: first over the pairs with $x_t = x$, then over
#    $x$. The gradient depends on the place alone and can be taken out of the inner mean. What is left of the pair is
#    its mean direction given $x_t = x$, which is $u^*(x, t)$.
# 3. *An example to check it by.* For $\varphi(x) = \|x\|^2$ the left side can be computed from the two second moments.
#
# Write the three quantities. `phi` maps places $(B, d)$ to values $(B,)$ and can be differentiated; `x0`, `x1` and `x`
# have shape $(B, d)$. Step 1, with `t` of shape $(B,)$: the rate for each pair, shape $(B,)$.
#
# <details><summary>Hint</summary>
#
# For a tensor `x` with `x.requires_grad_()`, `torch.autograd.grad(phi(x).sum(), x)[0]` holds the gradients of `phi` at
# all rows, because the value of one row depends on that row alone.
#
# </details>


# %% tags=["exercise", "points:1"]
def rate(phi, x0, x1, t):
    ### BEGIN SOLUTION
    xt = ((1 - t[:, None]) * x0 + t[:, None] * x1).requires_grad_()
    (gradient,) = torch.autograd.grad(phi(xt).sum(), xt)
    return (gradient * (x1 - x0)).sum(dim=1)
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("03.5a", rate)

# %% [markdown]
# Step 2, for data that are the `points` $(n, d)$, a Gaussian source and one time `t`: the mean of that rate over all
# pairs that meet at `x`, shape $(B,)$. You may use `closed_form.EmpiricalVelocity(points)(x, t)`.


# %% tags=["exercise", "points:2"]
def mean_rate(phi, x, t, points):
    ### BEGIN SOLUTION
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(phi(x).sum(), x)
    return (gradient * closed_form.EmpiricalVelocity(points)(x.detach(), t)).sum(dim=1)
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("03.5b", mean_rate)

# %% [markdown]
# Step 3, for data that are the `points` $(n, d)$ and $x_0 \sim \mathcal{N}(0, I)$: the number
# $\frac{\mathrm{d}}{\mathrm{d}t}\, \mathbb{E} \|x_t\|^2$ at time `t`.


# %% tags=["exercise", "points:1"]
def rate_of_square(t, points):
    ### BEGIN SOLUTION
    return -2 * (1 - t) * points.shape[1] + 2 * t * points.square().sum(dim=1).mean()
    ### END SOLUTION


# %% tags=["check"]
proved = checks.exercise("03.5c", rate_of_square)

# %% [markdown]
# Once the checks are right, this cell compares the two sides of the claim: your number of step 3, and the mean of
# your step 2 over 50,000 samples of $p_t$.

# %%
if proved:
    generator = torch.Generator().manual_seed(3)
    few, start = moons[:50], torch.randn(50_000, 2, generator=generator)
    for t in (0.2, 0.5, 0.8):
        xt = path.interpolate(start, few[torch.randint(50, (50_000,), generator=generator)], t)
        rates = mean_rate(lambda x: x.square().sum(dim=1), xt, t, few)
        print(
            f"t = {t}: {rate_of_square(t, few):6.3f}   from samples {rates.mean():6.3f} ± {rates.std() / 50_000**0.5:.3f}"
        )

# %% [markdown]
# ## 6. How should a batch draw its times?
#
# *Investigation · 40 minutes · ★★★*
#
# A batch of $B$ rows needs $B$ times. Here are three ways to draw them, each of which gives every single row a
# uniform time. `loss_of` is the loss of a perfect network for 50 data points and a batch with the times `t`. The
# question: **does it matter for training which way the times are drawn?**

# %%
WAYS = {
    "independent": lambda n, generator: torch.rand(n, generator=generator),
    "one for all": lambda n, generator: torch.rand(1, generator=generator).expand(n),
    "stratified": lambda n, generator: (torch.arange(n) + torch.rand(n, generator=generator)) / n,
}
exact = closed_form.EmpiricalVelocity(moons[:50])


def loss_of(t, generator):
    """The loss of one batch with the times t, shape (B,)."""
    x1 = moons[torch.randint(50, (len(t),), generator=generator)]
    x0 = torch.randn(x1.shape, generator=generator)
    t = t.clamp(max=path.t_max)
    return (exact(path.interpolate(x0, x1, t), t) - (x1 - x0)).square().mean()


# %% [markdown]
# Design a measurement. Write `measure_times(loss_of, ways, batch, seed)`, which returns a dictionary with an entry
# `(mean, spread, repeats)` for each way: over how many batches you measured, and the mean and the standard deviation
# of the losses of these batches. It will also be tried on other losses and other ways, whose answers are known. Then
# set `ranking` to the three names, the least noisy first, and write a few sentences below.
#
# A good answer (one point for each line):
#
# - says what must be equal for all ways in a fair comparison (network, batch size, distribution of a single time);
# - shows that the ways have the same mean, with standard errors, and says what a different mean would have implied;
# - has enough repeats that the difference of the spreads is larger than their uncertainty;
# - explains the ranking by splitting the variance of a batch loss into a part from the times and a part from the
#   pairs;
# - says for which networks or data the difference would be small, and why a spread of the loss need not be a spread
#   of the gradient.
#
# <details><summary>Hint</summary>
#
# The standard deviation of a standard deviation from $n$ repeats is about $1 / \sqrt{2n}$ of it. One generator for all
# draws makes the result reproducible. As a control, try a loss that does not depend on $t$.
#
# </details>


# %% tags=["exercise", "points:3"]
def measure_times(loss_of, ways, batch, seed):
    ### BEGIN SOLUTION
    generator, found = torch.Generator().manual_seed(seed), {}
    for name, draw in ways.items():
        losses = torch.stack([loss_of(draw(batch, generator), generator) for _ in range(300)])
        found[name] = (float(losses.mean()), float(losses.std()), len(losses))
    return found
    ### END SOLUTION


ranking = ...
### BEGIN SOLUTION
# All three have the mean of a single uniform time, so none changes what is learned. The variance of a batch loss is
# Var(L(t)) / B + E[Var(pair | t)] / B for independent times, where L(t) is the mean loss at time t. One time for all
# keeps the whole Var(L(t)), stratified times remove nearly all of it. The second part is the same for all three, so the
# ways differ little where L(t) is nearly constant. A gradient has its own L(t): measure it before you decide.
ranking = ["stratified", "independent", "one for all"]
### END SOLUTION

# %% tags=["check"]
checks.exercise("03.6", measure_times, ranking, loss_of, WAYS)

# %% [markdown]
# *Your answer in words:*
