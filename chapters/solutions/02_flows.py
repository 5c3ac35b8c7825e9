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
# Fill in the places marked `...` and run the cell below each of them: it says whether your function is right and, if it is
# not, what is wrong. The words and formulas are in [the chapter](../02_flows.ipynb).

# %%
import itertools
import math

import torch

from fmcore import likelihood, networks, solvers, sources
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
# ## 1. Heun's method and its order
#
# Follow $dx/dt = v(x, t)$ from $t = 0$ to $t = 1$ in `steps` equal steps of length $h$. In each step, look ahead with Euler and
# go with the average of the velocities at the two ends:
#
# $$
# k_1 = v(x, t), \qquad k_2 = v(x + h\, k_1,\; t + h), \qquad x \leftarrow x + \tfrac{h}{2} (k_1 + k_2) .
# $$
#
# Give the velocity its time as a tensor of shape $()$: `torch.tensor(i * h)`.


# %% tags=["exercise", "points:2"]
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
def one_step_method(second, average, shift=0):
    """A solver with a mistake: `second` finds the second velocity, `average` combines the two."""

    def solver(velocity, x0, steps):
        x, h = x0, 1 / steps
        for i in range(steps):
            t = torch.tensor((i + shift) * h)
            k1 = velocity(x, t)
            x = x + h * average(k1, second(velocity, x, t, h, k1))
        return x

    return solver


def right_heun(velocity, x0, steps):
    return solvers.solve(velocity, x0, method="heun", steps=steps).x


def at_the_end(velocity, x, t, h, k1):
    return velocity(x + h * k1, t + h)


# %% tags=["check"]
mistakes = {
    "the second velocity is taken at time t; the look-ahead is at t + h": one_step_method(
        lambda velocity, x, t, h, k1: velocity(x + h * k1, t), lambda k1, k2: (k1 + k2) / 2
    ),
    "the second velocity is taken at x; the look-ahead is at x + h k1": one_step_method(
        lambda velocity, x, t, h, k1: velocity(x, t + h), lambda k1, k2: (k1 + k2) / 2
    ),
    "the two velocities are added, not averaged: a factor 1/2 is missing": one_step_method(
        at_the_end, lambda k1, k2: k1 + k2
    ),
    "this is Euler's method: the second velocity is not used": one_step_method(at_the_end, lambda k1, k2: k1),
    "you go with the second velocity alone; go with the average of both": one_step_method(
        at_the_end, lambda k1, k2: k2
    ),
    "this is the midpoint method: it has order 2 too, but Heun averages the velocities at both ends": one_step_method(
        lambda velocity, x, t, h, k1: velocity(x + h / 2 * k1, t + h / 2), lambda k1, k2: k2
    ),
    "time is one step ahead: the first step starts at t = 0": one_step_method(
        at_the_end, lambda k1, k2: (k1 + k2) / 2, shift=1
    ),
    "only one step is taken; repeat it for i = 0, ..., steps - 1": lambda velocity, x0, steps: (
        solvers.solve(velocity, x0, t1=1 / steps, method="heun", steps=1).x
    ),
}

# %% tags=["check"]
generator = torch.Generator().manual_seed(1)
starts = torch.randn(5, 2, generator=generator, dtype=torch.float64)
checks.compare("heun", heun, right_heun, [(whirl, starts, 6), (whirl, starts, 13)], mistakes)

# %% [markdown]
# Now read its order off. `errors[i]` is the error with `steps[i]` steps (two tensors), and the error is about
# $C\, h^p$ with $h = 1 / \text{steps}$. Return $p$: take logarithms and fit a straight line. `plotting.slope(x, y)` does the fit.


# %% tags=["exercise", "points:1"]
def order(steps, errors):
    ### BEGIN SOLUTION
    return -plotting.slope(steps, errors)
    ### END SOLUTION


# %% tags=["check"]
steps = torch.tensor([16, 32, 64, 128])


def right_order(steps, errors):
    return torch.log(errors[0] / errors[-1]) / math.log(steps[-1] / steps[0])


mistakes = {
    "this is the slope against the number of steps; the order is the slope against h = 1 / steps": lambda steps, errors: (
        -right_order(steps, errors)
    ),
    "this is the factor by which the error falls when the step is halved; its logarithm to base 2 is the order": lambda steps, errors: (
        2 ** right_order(steps, errors)
    ),
    "no logarithms: the fit is of the errors themselves": lambda steps, errors: (
        ((1 / steps - (1 / steps).mean()) * (errors - errors.mean())).sum()
        / (1 / steps - (1 / steps).mean()).square().sum()
    ),
}

# %% tags=["check"]
powers = [(steps, 3.0 * (1 / steps) ** p) for p in (1, 2, 4)]
if checks.compare("order", order, right_order, powers, mistakes, rtol=0.01):
    truth = whirl_exact(starts, 1.0)
    errors = torch.stack([(heun(whirl, starts, int(n)) - truth).norm(dim=1).mean() for n in steps])
    checks.value(
        "order of your Heun on the whirl",
        order(steps, errors),
        2.0,
        {"order 1: there is still a mistake in heun": 1.0},
        rtol=0.05,
    )

# %% [markdown]
# ## 2. The divergence of a velocity
#
# Return $\operatorname{div} v = \sum_i \partial v_i / \partial x_i$ at each row of `x`, shape $(B,)$, for any number of dimensions
# $d$. The velocity treats rows independently, so the gradient of `v[:, i].sum()` with respect to `x` holds
# $\partial v_i / \partial x_j$ of every row. `x` arrives without a gradient: start with `x = x.detach().requires_grad_()`.


# %% tags=["exercise", "points:2"]
def divergence(velocity, x, t):
    ### BEGIN SOLUTION
    x = x.detach().requires_grad_()
    v = velocity(x, t)
    total = torch.zeros(len(x), dtype=x.dtype)
    for i in range(x.shape[1]):
        total += torch.autograd.grad(v[:, i].sum(), x, retain_graph=True)[0][:, i]
    return total
    ### END SOLUTION


# %% tags=["check"]
def jacobians(velocity, x, t):
    """dv/dx of each row, (B, d, d): brute force."""
    return torch.stack(
        [
            torch.autograd.functional.jacobian(lambda row, i=i: velocity(row[None], t[i : i + 1])[0], x[i])
            for i in range(len(x))
        ]
    )


def right_divergence(velocity, x, t):
    return jacobians(velocity, x, t).diagonal(dim1=1, dim2=2).sum(dim=1)


# %% tags=["check"]
mistakes = {
    "only the first coordinate: sum over all i": lambda velocity, x, t: jacobians(velocity, x, t)[:, 0, 0],
    "all entries of the Jacobian are summed (is it the gradient of v.sum()?); only the diagonal belongs to the divergence": (
        lambda velocity, x, t: jacobians(velocity, x, t).sum(dim=(1, 2))
    ),
    "averaged over the coordinates; the divergence is their sum": lambda velocity, x, t: (
        right_divergence(velocity, x, t) / x.shape[1]
    ),
    "summed over the rows: each row has its own divergence": lambda velocity, x, t: right_divergence(
        velocity, x, t
    ).sum(),
    "this is the product of the diagonal, not its sum": lambda velocity, x, t: (
        jacobians(velocity, x, t).diagonal(dim1=1, dim2=2).prod(dim=1)
    ),
    "this is the determinant of the Jacobian; the divergence is its trace": lambda velocity, x, t: torch.linalg.det(
        jacobians(velocity, x, t)
    ),
}

# %% tags=["check"]
torch.manual_seed(0)
network = networks.MLP(5, width=16, depth=2).double()
cases = [
    (
        whirl,
        torch.randn(4, 2, generator=generator, dtype=torch.float64),
        torch.rand(4, generator=generator, dtype=torch.float64),
    ),
    (
        network,
        torch.randn(3, 5, generator=generator, dtype=torch.float64),
        torch.rand(3, generator=generator, dtype=torch.float64),
    ),
]
checks.compare("divergence", divergence, right_divergence, cases, mistakes, rtol=1e-5, atol=1e-7)

# %% [markdown]
# ## 3. Density under an invertible map
#
# A sample $x_0$ of the density $p_0$ is sent through an invertible map: $x_1 = \phi(x_0)$. Whatever the map is, a flow or a formula,
# the density of $x_1$ is
#
# $$
# \log p_1(x_1) = \log p_0\big(\phi^{-1}(x_1)\big) + \log \Big| \det \frac{\partial \phi^{-1}}{\partial x_1} \Big| .
# $$
#
# You get the inverse map (a batch in, a batch out, rows independent) and `log_prob0`, which maps $(B, d)$ to $(B,)$. Return
# $\log p_1$ at each row of `x1`. For the Jacobians: `torch.func.vmap(torch.func.jacrev(lambda row: inverse(row[None])[0]))(x1)`
# has shape $(B, d, d)$.


# %% tags=["exercise", "points:2"]
def log_density(x1, inverse, log_prob0):
    ### BEGIN SOLUTION
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: inverse(row[None])[0]))(x1)
    return log_prob0(inverse(x1)) + torch.linalg.det(jacobian).abs().log()
    ### END SOLUTION


# %% tags=["check"]
def undo_whirl(x1):
    """From t = 1 back to t = 0, in closed form."""
    r1 = x1.norm(dim=1, keepdim=True)
    q = (2 / r1 - r1 / 2) * math.exp(2.0)
    return ((q**2 + 4).sqrt() - q) / r1 * (math.cos(2.0) * x1 - math.sin(2.0) * quarter_turn(x1))


mirror = torch.tensor([[0.5, 0.3, 0.0], [0.0, -2.0, 0.4], [0.1, 0.0, 1.5]], dtype=torch.float64)  # determinant below 0


def undo_affine(x1):
    return (x1 - 1.0) @ mirror.T


def log_scale(x1, inverse):
    return torch.stack(
        [
            torch.linalg.slogdet(torch.autograd.functional.jacobian(lambda row: inverse(row[None])[0], row)).logabsdet
            for row in x1
        ]
    )


def right_log_density(x1, inverse, log_prob0):
    return log_prob0(inverse(x1)) + log_scale(x1, inverse)


# %% tags=["check"]
mistakes = {
    "the determinant has the wrong sign in front: where space grows on the way, the density falls": lambda x1, inverse, log_prob0: (
        log_prob0(inverse(x1)) - log_scale(x1, inverse)
    ),
    "the determinant is missing: this is the density of x0 only": lambda x1, inverse, log_prob0: log_prob0(inverse(x1)),
    "log p_0 is taken at x1; take it at the point of the source that x1 came from": lambda x1, inverse, log_prob0: (
        log_prob0(x1) + log_scale(x1, inverse)
    ),
    "the logarithm of the determinant is missing": lambda x1, inverse, log_prob0: (
        log_prob0(inverse(x1)) + log_scale(x1, inverse).exp()
    ),
}
cases = [
    (torch.randn(4, 2, generator=generator, dtype=torch.float64), undo_whirl, sources.Gaussian((2,)).log_prob),
    (torch.randn(5, 3, generator=generator, dtype=torch.float64), undo_affine, sources.Gaussian((3,)).log_prob),
]
if checks.compare("log_density", log_density, right_log_density, cases, mistakes):
    ends = whirl_exact(torch.randn(50, 2, generator=generator, dtype=torch.float64), 1.0)
    by_flow = likelihood.log_likelihood(whirl, ends, sources.Gaussian((2,)), rtol=1e-8, atol=1e-8).log_prob
    gap = (log_density(ends, undo_whirl, sources.Gaussian((2,)).log_prob) - by_flow).abs().max()
    checks.holds("the determinant and the integrated divergence agree on the whirl", gap < 1e-4, "they do not")

# %% [markdown]
# ## 4. A motion that leaves a Gaussian unchanged
#
# For a Gaussian $p$ with mean $m$, shape $(2,)$, and covariance $C$, shape $(2, 2)$, return $w(x) = J\, \nabla \log p(x)$ at each row of
# `x`, where $J (a, b) = (-b, a)$ (`quarter_turn` above). Work out $\nabla \log p$ first. Every point moves, and the density stays.


# %% tags=["exercise", "points:2"]
def stirring(x, mean, covariance):
    ### BEGIN SOLUTION
    score = -torch.linalg.solve(covariance, (x - mean).T).T
    return quarter_turn(score)
    ### END SOLUTION


# %% tags=["check"]
def right_stirring(x, mean, covariance):
    x = x.detach().requires_grad_()
    log_prob = torch.distributions.MultivariateNormal(mean, covariance).log_prob(x)
    return quarter_turn(torch.autograd.grad(log_prob.sum(), x)[0])


mistakes = {
    "turned about the origin, not about the mean": lambda x, mean, covariance: right_stirring(x, 0 * mean, covariance),
    "the covariance is missing: a rotation leaves only round Gaussians unchanged": lambda x, mean, covariance: (
        right_stirring(x, mean, torch.eye(2, dtype=x.dtype))
    ),
    "multiplied by the covariance; the score has its inverse": lambda x, mean, covariance: right_stirring(
        x, mean, torch.linalg.inv(covariance)
    ),
    "this is the score; turn it by a quarter turn": lambda x, mean, covariance: (
        -quarter_turn(right_stirring(x, mean, covariance))
    ),
    "turned first and divided by the covariance after; the quarter turn comes last": lambda x, mean, covariance: (
        -torch.linalg.solve(covariance, quarter_turn(x - mean).T).T
    ),
}

# %% tags=["check"]
mean = torch.tensor([1.0, -0.5], dtype=torch.float64)
covariance = torch.tensor([[1.5, 0.6], [0.6, 0.5]], dtype=torch.float64)
gaussian = torch.distributions.MultivariateNormal(mean, covariance)
x = torch.randn(6, 2, generator=generator, dtype=torch.float64)
if checks.compare("stirring", stirring, right_stirring, [(x, mean, covariance)], mistakes):
    spots = mean + torch.randn(500, 2, generator=generator, dtype=torch.float64) @ torch.linalg.cholesky(covariance).T
    moved = solvers.solve(lambda x, t: stirring(x, mean, covariance), spots, rtol=1e-8, atol=1e-8).x
    level = (gaussian.log_prob(moved) - gaussian.log_prob(spots)).abs().max()
    checks.holds("every point stays on its level line", level < 1e-4, "points leave their level lines")
    print(f"and every point moves: mean distance {(moved - spots).norm(dim=1).mean():.1f}")

# %% [markdown]
# ## 5. Hutchinson's estimate and its spread
#
# `probes` has shape $(K, B, d)$: $K$ probes of random signs for each row. Return the estimate of the divergence at each row, shape
# $(B,)$: the mean over the probes of $\varepsilon^{\top} (\partial v / \partial x)\, \varepsilon$. One backward pass a probe:
# the gradient of `(v * epsilon).sum()` with respect to `x` is $\varepsilon^{\top} (\partial v / \partial x)$.


# %% tags=["exercise", "points:2"]
def hutchinson(velocity, x, t, probes):
    ### BEGIN SOLUTION
    x = x.detach().requires_grad_()
    v = velocity(x, t)
    total = torch.zeros(len(x), dtype=x.dtype)
    for epsilon in probes:
        (product,) = torch.autograd.grad((v * epsilon).sum(), x, retain_graph=True)
        total += (product * epsilon).sum(dim=1)
    return total / len(probes)
    ### END SOLUTION


# %% tags=["check"]
def products(velocity, x, t, probes):
    """epsilon^T A of each probe and row, (K, B, d): brute force."""
    return torch.einsum("kbi,bij->kbj", probes, jacobians(velocity, x, t))


def right_hutchinson(velocity, x, t, probes):
    return (products(velocity, x, t, probes) * probes).sum(dim=2).mean(dim=0)


mistakes = {
    "summed over the probes; take their mean": lambda velocity, x, t, probes: (
        products(velocity, x, t, probes) * probes
    ).sum(dim=(0, 2)),
    "the probe is used once; multiply by it a second time before you sum": lambda velocity, x, t, probes: (
        products(velocity, x, t, probes).sum(dim=2).mean(dim=0)
    ),
    "only the first probe is used": lambda velocity, x, t, probes: right_hutchinson(velocity, x, t, probes[:1]),
    "averaged over the coordinates; sum over them": lambda velocity, x, t, probes: (
        right_hutchinson(velocity, x, t, probes) / x.shape[1]
    ),
    "this is the exact divergence; estimate it from the probes": lambda velocity, x, t, probes: right_divergence(
        velocity, x, t
    ),
}


# %% tags=["check"]
def random_signs(*shape):
    return 2 * torch.randint(0, 2, shape, generator=generator).double() - 1


cases = [
    (
        whirl,
        torch.randn(4, 2, generator=generator, dtype=torch.float64),
        torch.rand(4, generator=generator, dtype=torch.float64),
        random_signs(3, 4, 2),
    ),
    (
        network,
        torch.randn(3, 5, generator=generator, dtype=torch.float64),
        torch.rand(3, generator=generator, dtype=torch.float64),
        random_signs(7, 3, 5),
    ),
]
checks.compare("hutchinson", hutchinson, right_hutchinson, cases, mistakes, rtol=1e-5, atol=1e-7)

# %% [markdown]
# How far off is one probe? Return the standard deviation of $\varepsilon^{\top} A\, \varepsilon$ for a matrix $A$, shape $(d, d)$, which need
# not be symmetric:
#
# $$
# \operatorname{Var} = 2 \sum_{i \ne j} S_{ij}^2, \qquad S = \tfrac12 (A + A^{\top}) .
# $$


# %% tags=["exercise", "points:1"]
def spread(matrix):
    ### BEGIN SOLUTION
    symmetric = (matrix + matrix.T) / 2
    off_diagonal = symmetric - torch.diag(symmetric.diagonal())
    return (2 * off_diagonal.square().sum()).sqrt()
    ### END SOLUTION


# %% tags=["check"]
def right_spread(matrix):
    """Brute force: all 2^d probes."""
    every = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=len(matrix))), dtype=matrix.dtype)
    return torch.einsum("ki,ij,kj->k", every, matrix, every).std(correction=0)


def off_diagonal(matrix):
    return matrix - torch.diag(matrix.diagonal())


mistakes = {
    "this is the variance: a square root is missing": lambda matrix: right_spread(matrix) ** 2,
    "A is not made symmetric first; entries A_ij and A_ji add before they are squared": lambda matrix: (
        2 * off_diagonal(matrix).square().sum()
    ).sqrt(),
    "the diagonal is included; with signs it has no part in the spread": lambda matrix: (
        2 * ((matrix + matrix.T) / 2).square().sum()
    ).sqrt(),
    "each pair is counted once; the sum runs over i < j and i > j": lambda matrix: right_spread(matrix) / math.sqrt(2),
    "a factor 1/2 is missing in S": lambda matrix: 2 * right_spread(matrix),
}
matrices = [(torch.randn(d, d, generator=generator, dtype=torch.float64),) for d in (2, 4, 6)]
checks.compare("spread", spread, right_spread, matrices, mistakes)
