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
# Fill in the places marked `...` and run the cell below each of them: it says whether your function is right and, if
# it is not, what is wrong. The words and formulas are in [the chapter](../03_flow_matching.ipynb).

# %%
import math

import torch

from fmcore import closed_form, data, losses, networks, paths, solvers
from fmcore.course import checks, plotting, style

style.use()
path = paths.rectified()

# %% [markdown]
# ## 1. The conditional velocity
#
# The path of Lipman et al. 2023 does not shrink the Gaussian to a point but to a small Gaussian of standard deviation
# $\sigma_{\min}$ around $x_1$. It joins $x_0$ and $x_1$ by
#
# $$
# x_t = \big(1 - (1 - \sigma_{\min})\, t\big)\, x_0 + t\, x_1 .
# $$
#
# Write its conditional velocity $u_t(x \mid x_1)$, a function of the place $x$ and the data point, not of $x_0$: take
# the derivative in $t$ and replace $x_0$ by what $x_t = x$ says about it. `x` and `x1` have shape $(B, d)$, `t` has
# shape $(B,)$.


# %% tags=["exercise", "points:2"]
def conditional_velocity(x, x1, t, sigma_min):
    ### BEGIN SOLUTION
    t = t[:, None]
    x0 = (x - t * x1) / (1 - (1 - sigma_min) * t)
    return x1 - (1 - sigma_min) * x0
    ### END SOLUTION


# %% tags=["check"]
def reference_velocity(x, x1, t, sigma_min):
    return paths.ot(sigma_min).velocity(x, x1, t)


def rest(x, x1, t, sigma_min):
    return x1 - (1 - sigma_min) * x, 1 - (1 - sigma_min) * t[:, None]


# %% tags=["check"]
mistakes = {
    "sigma_min is left out: this is the velocity of the straight path": lambda x, x1, t, s: (x1 - x) / (1 - t[:, None]),
    "x is put in where x0 belongs: solve x_t = x for x0 first": lambda x, x1, t, s: rest(x, x1, t, s)[0],
    "the denominator is 1 - t; it is the factor of x0, 1 - (1 - sigma_min) t": lambda x, x1, t, s: (
        rest(x, x1, t, s)[0] / (1 - t[:, None])
    ),
    "x lacks its factor 1 - sigma_min in the numerator": lambda x, x1, t, s: (x1 - x) / rest(x, x1, t, s)[1],
    "the derivative of the factor of x0 is -(1 - sigma_min), not -1": lambda x, x1, t, s: (
        x1 - (x - t[:, None] * x1) / rest(x, x1, t, s)[1]
    ),
    "this is x0, solved for; the velocity is x1 - (1 - sigma_min) x0": lambda x, x1, t, s: (
        (x - t[:, None] * x1) / rest(x, x1, t, s)[1]
    ),
}

# %% tags=["check"]
generator = torch.Generator().manual_seed(1)
velocity_cases = [
    (torch.randn(n, 2, generator=generator), torch.randn(n, 2, generator=generator), 0.1 + 0.8 * torch.rand(n, generator=generator), s)
    for n, s in ((5, 0.1), (2, 0.3), (7, 0.05))
]  # fmt: skip
checks.compare("conditional_velocity", conditional_velocity, reference_velocity, velocity_cases, mistakes)

# %% [markdown]
# ## 2. The marginal velocity
#
# The version in the chapter takes one time for all places. In training each row has its own. Write $u^*(x, t)$ of the
# straight path for `x` of shape $(B, d)$, `t` of shape $(B,)$ and `points` of shape $(n, d)$; return a tensor of
# shape $(B, d)$.


# %% tags=["exercise", "points:2"]
def marginal_velocity(x, t, points):
    ### BEGIN SOLUTION
    t = t[:, None]
    distances = (x[:, None] - t[:, :, None] * points).square().sum(dim=2)  # (B, n)
    weights = torch.softmax(-distances / (2 * (1 - t) ** 2), dim=1)
    return (weights @ points - x) / (1 - t)
    ### END SOLUTION


# %% tags=["check"]
def reference_marginal(x, t, points):
    return closed_form.EmpiricalVelocity(points)(x, t)


def squares(x, t, points):
    """Squared distances to t times each data point, shape (B, n)."""
    return (x[:, None] - t[:, None, None] * points).square().sum(dim=2)


def weighted(weights_of):
    """The velocity with other weights: a function of the squared distances (B, n) and of 1 - t (B, 1)."""
    return lambda x, t, p: (weights_of(squares(x, t, p), 1 - t[:, None]) @ p - x) / (1 - t[:, None])


# %% tags=["check"]
mistakes = {
    "the factor 2 is missing in the exponent": weighted(lambda d, w: torch.softmax(-d / w**2, 1)),
    "1 - t is not squared in the exponent": weighted(lambda d, w: torch.softmax(-d / (2 * w), 1)),
    "the exponent lacks its width (1 - t)^2": weighted(lambda d, w: torch.softmax(-d / 2, 1)),
    "the sign of the exponent is flipped: far points weigh most": weighted(lambda d, w: torch.softmax(d / (2 * w**2), 1)),
    "the distance is not squared": weighted(lambda d, w: torch.softmax(-d.sqrt() / (2 * w**2), 1)),
    "the softmax runs over the batch; each row weights the data points": weighted(
        lambda d, w: torch.softmax(-d / (2 * w**2), 0)
    ),
    "the weights do not sum to one: divide by their sum": weighted(lambda d, w: torch.exp(-d / (2 * w**2))),
    "only the nearest point counts; each one does, with its weight": weighted(lambda d, w: (d == d.amin(1, True)).float()),
    "all points have the same weight": weighted(lambda d, w: torch.ones_like(d) / d.shape[1]),
    "distances go to the data points; at time t their Gaussians are centred at t times them": lambda x, t, p: (
        (torch.softmax(-torch.cdist(x, p) ** 2 / (2 * (1 - t[:, None]) ** 2), 1) @ p - x) / (1 - t[:, None])
    ),
    "this is the mean of the data points as seen from x; the velocity leads there from x": lambda x, t, p: (
        reference_marginal(x, t, p) * (1 - t[:, None]) + x
    ),
    "the division by 1 - t is missing": lambda x, t, p: reference_marginal(x, t, p) * (1 - t[:, None]),
}  # fmt: skip

# %% tags=["check"]
generator = torch.Generator().manual_seed(2)
marginal_cases = [
    (torch.randn(n, 2, generator=generator), 0.1 + 0.8 * torch.rand(n, generator=generator), torch.randn(m, 2, generator=generator))
    for n, m in ((5, 4), (2, 6), (9, 3))
]  # fmt: skip
checks.compare("marginal_velocity", marginal_velocity, reference_marginal, marginal_cases, mistakes)

# %% [markdown]
# ## 3. The loss
#
# Write $L_{\mathrm{CFM}}$ of the straight path for given samples: the mean, over batch and dimensions, of the squared
# difference between `model(xt, t)` and its target. `x0` and `x1` have shape $(B, d)$, `t` has shape $(B,)$, and the
# model takes `t` in this shape.


# %% tags=["exercise", "points:2"]
def cfm_loss(model, x0, x1, t):
    ### BEGIN SOLUTION
    s = t[:, None]
    xt = (1 - s) * x0 + s * x1
    return (model(xt, t) - (x1 - x0)).square().mean()
    ### END SOLUTION


# %% tags=["check"]
def reference_loss(model, x0, x1, t):
    return losses.conditional_flow_matching(model, path, x0, x1, t)


def loss_with(target, model, x0, x1, t):
    xt = path.interpolate(x0, x1, t)
    return (model(xt, t) - target(x0, x1, xt, t[:, None])).square().mean()


# %% tags=["check"]
mistakes = {
    "the target is x0 - x1: sign flipped, the samples would flow away from the data": lambda m, x0, x1, t: loss_with(
        lambda a, b, xt, s: a - b, m, x0, x1, t
    ),
    "the target is x1: that trains a network to predict the data, not the velocity": lambda m, x0, x1, t: loss_with(
        lambda a, b, xt, s: b, m, x0, x1, t
    ),
    "the target is x1 - xt: the rest of the way, not divided by the rest of the time": lambda m, x0, x1, t: loss_with(
        lambda a, b, xt, s: b - xt, m, x0, x1, t
    ),
    "x0 and x1 are swapped in xt: at t = 1 it would be noise": lambda m, x0, x1, t: (
        (m(path.interpolate(x1, x0, t), t) - (x1 - x0)).square().mean()
    ),
    "summed over the dimensions and averaged over the batch; the mean runs over both": lambda m, x0, x1, t: (
        2 * reference_loss(m, x0, x1, t)
    ),
    "the difference is not squared": lambda m, x0, x1, t: (m(path.interpolate(x0, x1, t), t) - (x1 - x0)).abs().mean(),
    "the model is asked at x1, not at xt": lambda m, x0, x1, t: (m(x1, t) - (x1 - x0)).square().mean(),
}

# %% tags=["check"]
torch.manual_seed(0)  # a model to try the loss on
model = networks.MLP(2, width=16, depth=2)
generator = torch.Generator().manual_seed(3)
loss_cases = [
    (model, torch.randn(n, 2, generator=generator), torch.randn(n, 2, generator=generator), torch.rand(n, generator=generator))
    for n in (6, 2, 11)
]  # fmt: skip
checks.compare("cfm_loss", cfm_loss, reference_loss, loss_cases, mistakes)

# %% [markdown]
# ## 4. The loss of a perfect network
#
# Let the data be Gaussian in one dimension, $x_1 \sim \mathcal{N}(0, s^2)$, and $x_0 \sim \mathcal{N}(0, 1)$
# independent of it. A perfect network still has a loss: the variance of $x_1 - x_0$ given $x_t = (1-t)\, x_0 + t\,
# x_1$. Write it as a function of $t$ and $s$ (numbers or tensors of one shape).
#
# For Gaussian variables, $\operatorname{Var}(a \mid b) = \operatorname{Var}(a) - \operatorname{Cov}(a, b)^2 /
# \operatorname{Var}(b)$. The result becomes short.


# %% tags=["exercise", "points:2"]
def perfect_loss_at(t, s):
    ### BEGIN SOLUTION
    return s**2 / ((1 - t) ** 2 + t**2 * s**2)
    ### END SOLUTION


# %% tags=["check"]
def reference_floor(t, s):
    """The last entry of the conditional covariance, from the covariance of (x_t, x1 - x0) itself."""
    mix = torch.stack(
        [torch.stack([1 - t, t], dim=-1), torch.stack([-torch.ones_like(t), torch.ones_like(t)], dim=-1)], dim=-2
    )
    covariance = mix @ torch.diag_embed(torch.stack([torch.ones_like(s), s**2], dim=-1)) @ mix.mT
    return 1 / torch.linalg.inv(covariance)[..., 1, 1]  # the conditional variance is one over an entry of the precision


# %% tags=["check"]
mistakes = {
    "this is the variance of x1 - x0 when x_t is not known": lambda t, s: 1 + s**2,
    "this is the variance of x1 given x_t; the target is x1 - x0": lambda t, s: (
        s**2 * (1 - t) ** 2 / ((1 - t) ** 2 + t**2 * s**2)
    ),
    "this is the variance of x0 given x_t; the target is x1 - x0": lambda t, s: (
        t**2 * s**2 / ((1 - t) ** 2 + t**2 * s**2)
    ),
    "Cov(x1 - x0, x_t) = t s^2 - (1 - t): the minus sign is lost": lambda t, s: (
        1 + s**2 - (t * s**2 + 1 - t) ** 2 / ((1 - t) ** 2 + t**2 * s**2)
    ),
    "the covariance is not squared": lambda t, s: 1 + s**2 - (t * s**2 - 1 + t) / ((1 - t) ** 2 + t**2 * s**2),
}  # fmt: skip
generator = torch.Generator().manual_seed(4)
floor_cases = [(torch.rand(n, generator=generator), 0.5 + torch.rand(n, generator=generator)) for n in (6, 9)]
checks.compare("perfect_loss_at", perfect_loss_at, reference_floor, floor_cases, mistakes)

# %% [markdown]
# The loss of the perfect network is the mean of this over $t \in [0, 1]$. Which number is it for $s = 1$, where
# source and data are the same distribution? (The integral of $1/(1 + z^2)$ is $\arctan z$.)

# %% tags=["exercise", "points:1"]
loss_of_perfect_network = ...
### BEGIN SOLUTION
loss_of_perfect_network = math.pi / 2  # a network that has learned all there is to learn, and its loss is 1.57
### END SOLUTION

# %% tags=["check"]
wrong_values = {
    "a perfect network has the loss 0 only if x_t determines x0 and x1": 0.0,
    "that is its value at t = 0 and t = 1; in between it is larger": 1.0,
    "that is its value at t = 1/2, the largest; the loss is the mean over t": 2.0,
    "a factor 2 is missing: the integral runs to both sides of t = 1/2": math.pi / 4,
}
checks.value("loss_of_perfect_network", loss_of_perfect_network, math.pi / 2, wrong_values)

# %% [markdown]
# ## 5. A sampler
#
# Euler's method divides $[0, 1]$ into `steps` equal steps and moves along the velocity found at the *start* of each.
# Write it; the velocity is a function of `x` of shape $(B, d)$ and of `t`, for which it takes a number.


# %% tags=["exercise", "points:2"]
def euler(velocity, x0, steps):
    ### BEGIN SOLUTION
    x = x0
    for k in range(steps):
        x = x + velocity(x, k / steps) / steps
    return x
    ### END SOLUTION


# %% tags=["check"]
@torch.no_grad()
def reference_euler(velocity, x0, steps):
    return solvers.solve(velocity, x0, method="euler", steps=steps).x


@torch.no_grad()
def stepped(velocity, x0, times, step):
    x = x0
    for t in times:
        x = x + step * velocity(x, float(t))
    return x


# %% tags=["check"]
mistakes = {
    "the velocity is taken at the end of each step, at t = (k + 1) / steps": lambda v, x0, n: stepped(
        v, x0, torch.arange(1, n + 1) / n, 1 / n
    ),
    "the step length 1 / steps is missing": lambda v, x0, n: stepped(v, x0, torch.arange(n) / n, 1.0),
    "one step too many: linspace(0, 1, steps + 1) has steps + 1 points, and the last is the end": lambda v, x0, n: (
        stepped(v, x0, torch.arange(n + 1) / n, 1 / n)
    ),
    "linspace(0, 1, steps) has steps - 1 intervals: its points are not k / steps": lambda v, x0, n: stepped(
        v, x0, torch.linspace(0, 1, n), 1 / n
    ),
    "one step too few": lambda v, x0, n: stepped(v, x0, torch.arange(n - 1) / n, 1 / n),
    "time stands still at t = 0": lambda v, x0, n: stepped(v, x0, torch.zeros(n), 1 / n),
    "the flow runs backward: minus the velocity": lambda v, x0, n: stepped(v, x0, torch.arange(n) / n, -1 / n),
    "time runs from 1 to 0; the source is at t = 0": lambda v, x0, n: stepped(v, x0, 1 - torch.arange(n) / n, 1 / n),
    "the velocity at the start is used for all steps; it changes along the way": lambda v, x0, n: (
        x0 + v(x0, 0.0).detach()
    ),
}

# %% tags=["check"]
generator = torch.Generator().manual_seed(5)
sampler_cases = [(model, torch.randn(n, 2, generator=generator), steps) for n, steps in ((5, 7), (3, 4), (8, 12))]
checks.compare("euler", euler, reference_euler, sampler_cases, mistakes)

# %% [markdown]
# With the functions of 3 and 5 you have all of flow matching. Once their checks are right, these cells train a
# network with your loss and sample it with your solver.

# %%
torch.manual_seed(0)
network = networks.MLP(2)
points = data.toy.two_moons(2000, torch.Generator().manual_seed(0))
adam = torch.optim.Adam(network.parameters(), lr=5e-3)
generator = torch.Generator().manual_seed(6)
trained = isinstance(cfm_loss(*loss_cases[0]), torch.Tensor)
for _ in range(800 if trained else 0):
    x1 = points[torch.randint(2000, (256,), generator=generator)]
    loss = cfm_loss(network, torch.randn(256, 2, generator=generator), x1, torch.rand(256, generator=generator))
    adam.zero_grad()
    loss.backward()
    adam.step()

# %%
picture = None
with torch.no_grad():
    yours = euler(network, torch.randn(1000, 2, generator=generator), 50) if trained else None
if isinstance(yours, torch.Tensor):
    gap = torch.cdist(yours, points).amin(dim=1).mean()
    checks.holds("samples near the data", gap < 0.15, f"mean distance {gap:.2f}: see the checks of 3 and 5")
    picture = plotting.clouds(data=points, model=yours, limit=3.0)
picture
