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
# Fill in the places marked `...` and run the cell below each of them: it says whether your function is right and, if it is
# not, what is wrong. The words and formulas are in [the chapter](../00_start_here.ipynb).

# %%
import torch

from fmcore import closed_form, data, losses, networks, paths, solvers
from fmcore.course import checks, plotting, style

style.use()

# %% [markdown]
# ## 1. A point on the path and its velocity
#
# `x0` and `x1` have shape $(B, 2)$ and `t` has shape $(B,)$: each row has its own time. Return the point on the straight
# line, $x_t = (1 - t)\, x_0 + t\, x_1$.


# %% tags=["exercise", "points:1"]
def interpolate(x0, x1, t):
    ### BEGIN SOLUTION
    t = t[:, None]
    return (1 - t) * x0 + t * x1
    ### END SOLUTION


# %% tags=["check"]
generator = torch.Generator().manual_seed(1)
# Five rows of two coordinates, and two rows of two: a wrong broadcast passes unseen only when B = 2.
cases = [
    (torch.randn(b, 2, generator=generator), torch.randn(b, 2, generator=generator), torch.rand(b, generator=generator))
    for b in (5, 2)
]


def right_point(x0, x1, t):
    return paths.rectified().interpolate(x0, x1, t)


checks.compare("interpolate", interpolate, right_point, cases)

# %% [markdown]
# Now the conditional velocity $u_t(x \mid x_1) = (x_1 - x) / (1 - t)$: from $x$, arrive at $x_1$ when the time is up.


# %% tags=["exercise", "points:1"]
def conditional_velocity(x, x1, t):
    ### BEGIN SOLUTION
    return (x1 - x) / (1 - t)[:, None]
    ### END SOLUTION


# %% tags=["check"]
def right_velocity(x, x1, t):
    return paths.rectified().velocity(x, x1, t)


mistakes = {
    "divided by t, but the time left is 1 - t": lambda x, x1, t: (x1 - x) / t[:, None],
    "not divided by the time left, 1 - t": lambda x, x1, t: x1 - x,
    "multiplied by 1 - t, where it should be divided": lambda x, x1, t: (x1 - x) * (1 - t)[:, None],
}
checks.compare("conditional_velocity", conditional_velocity, right_velocity, cases, mistakes)

# %% [markdown]
# ## 2. The loss of flow matching
#
# Write it for any affine path $x_t = \alpha_t x_1 + \sigma_t x_0$, whose velocity is
# $\dot\alpha_t x_1 + \dot\sigma_t x_0$. The path gives you `path.interpolate(x0, x1, t)` and `path.target(x0, x1, t)`. Return one
# number: the mean of the squared error over rows and coordinates.


# %% tags=["exercise", "points:1"]
def flow_matching_loss(model, path, x0, x1, t):
    ### BEGIN SOLUTION
    xt = path.interpolate(x0, x1, t)
    return (model(xt, t) - path.target(x0, x1, t)).square().mean()
    ### END SOLUTION


# %% tags=["check"]
torch.manual_seed(0)
model = networks.MLP(2, width=16, depth=2)


def right_loss(model, path, x0, x1, t):
    return losses.conditional_flow_matching(model, path, x0, x1, t)


mistakes = {
    "the model is asked at x1; it should be asked at the point on the path": lambda model, path, x0, x1, t: (
        (model(x1, t) - path.target(x0, x1, t)).square().mean()
    ),
    "summed over the coordinates; take the mean over them too": lambda model, path, x0, x1, t: (
        (model(path.interpolate(x0, x1, t), t) - path.target(x0, x1, t)).square().sum(1).mean()
    ),
    "compared with x1 - x0, which is the velocity of the straight line only": lambda model, path, x0, x1, t: (
        (model(path.interpolate(x0, x1, t), t) - (x1 - x0)).square().mean()
    ),
}
loss_cases = [(model, path, *case) for path in (paths.rectified(), paths.cosine()) for case in cases]
checks.compare("flow_matching_loss", flow_matching_loss, right_loss, loss_cases, mistakes)

# %% [markdown]
# ## 3. An Euler solver
#
# Follow a velocity from $t = 0$ to $t = 1$ in $n$ equal steps of length $h = 1/n$: in step $k = 0, \dots, n - 1$,
#
# $$
# x \leftarrow x + h\, v(x, t_k), \qquad t_k = k h .
# $$
#
# `velocity` is called as `velocity(x, t)` with a tensor `t` of shape $()$. Return the last `x`; leave `x0` as it is.


# %% tags=["exercise", "points:2"]
def euler(velocity, x0, n):
    ### BEGIN SOLUTION
    x, h = x0, 1 / n
    for k in range(n):
        x = x + h * velocity(x, torch.tensor(k * h))
    return x
    ### END SOLUTION


# %% tags=["check"]
def right_end(velocity, x0, n):
    return solvers.solve(velocity, x0, method="euler", steps=n).x


def with_times(times, step=lambda n: 1 / n, old=False):
    """An Euler solver that takes the velocity at the given times, for the mistakes below."""

    def solver(velocity, x0, n):
        x = x0
        for k in range(n):
            x = x + step(n) * velocity(x0 if old else x, torch.tensor(times(k, n)))
        return x

    return solver


# %% tags=["check"]
mistakes = {
    "time starts at h; the first step uses t = 0": with_times(lambda k, n: (k + 1) / n),
    "time never moves: the velocity is always taken at t = 0": with_times(lambda k, n: 0.0),
    "time runs the other way, from 1 to 0": with_times(lambda k, n: 1 - k / n),
    "the step k is used as the time; t = k h": with_times(lambda k, n: float(k)),
    "the step length h is missing": with_times(lambda k, n: k / n, step=lambda n: 1.0),
    "the velocity is always taken at x0; take it where the point is now": with_times(lambda k, n: k / n, old=True),
    "one step too few": lambda velocity, x0, n: with_times(lambda k, m: k / n, step=lambda m: 1 / n)(
        velocity, x0, n - 1
    ),
}


def turning(x, t):
    """A velocity that depends on place and time: it turns the plane faster and faster, and moves it to the right."""
    return (1 + t) * torch.stack([-x[:, 1], x[:, 0]], dim=1) + torch.tensor([1.0, 0.0])


checks.compare("euler", euler, right_end, [(turning, cases[0][0], n) for n in (4, 7)], mistakes)

# %% [markdown]
# ## 4. The exact velocity
#
# Write $u^*$ of the straight path for the data points `points` of shape $(n, 2)$: with $x$ of shape $(B, 2)$ and $t$ of shape $()$,
#
# $$
# u^*(x, t) = \sum_{i=1}^{n} w_i\, \frac{x^{(i)} - x}{1 - t}, \qquad
# w_i \propto \exp\!\Big( -\frac{\| x - t\, x^{(i)} \|^2}{2 (1 - t)^2} \Big), \qquad \sum_i w_i = 1 .
# $$
#
# The weights are a softmax over the points: `torch.softmax(logits, dim=1)`.


# %% tags=["exercise", "points:2"]
def exact_velocity(x, t, points):
    ### BEGIN SOLUTION
    squares = (x[:, None] - t * points).square().sum(2)  # (B, n)
    weights = torch.softmax(-squares / (2 * (1 - t) ** 2), dim=1)
    return (weights @ points - x) / (1 - t)
    ### END SOLUTION


# %% tags=["check"]
def right_exact(x, t, points):
    return closed_form.EmpiricalVelocity(points)(x, t)


def with_logits(logits, dim=1):
    """The exact velocity with other weights, for the mistakes below."""

    def velocity(x, t, points):
        squares = (x[:, None] - t * points).square().sum(2)
        weights = torch.softmax(logits(squares, t, x, points), dim=dim)
        return (weights @ points - x) / (1 - t)

    return velocity


# %% tags=["check"]
mistakes = {
    "the weights grow with the distance: the minus sign in the exponent is missing": with_logits(
        lambda s, t, *_: s / (2 * (1 - t) ** 2)
    ),
    "the distance is not squared": with_logits(lambda s, t, *_: -s.sqrt() / (2 * (1 - t) ** 2)),
    "1 - t is not squared in the exponent": with_logits(lambda s, t, *_: -s / (2 * (1 - t))),
    "the factor 2 in the exponent is missing": with_logits(lambda s, t, *_: -s / (1 - t) ** 2),
    "the distance is taken to the data point itself; the path at time t is centred on t times it": with_logits(
        lambda s, t, x, points: -(x[:, None] - points).square().sum(2) / (2 * (1 - t) ** 2)
    ),
    "softmax along the wrong axis: the weights of one x sum to one over the points": with_logits(
        lambda s, t, *_: -s / (2 * (1 - t) ** 2), dim=0
    ),
    "all data points weigh the same": with_logits(lambda s, *_: torch.zeros_like(s)),
    "not divided by the time left, 1 - t": lambda x, t, points: right_exact(x, t, points) * (1 - t),
}
points = data.toy.two_moons(6, generator)
exact_cases = [(torch.randn(4, 2, generator=generator), torch.tensor(time), points) for time in (0.3, 0.6)]
checks.compare("exact_velocity", exact_velocity, right_exact, exact_cases, mistakes)

# %% [markdown]
# ## All together
#
# Your solver follows your velocity: the picture should show two moons.

# %%
moons = data.toy.two_moons(500, generator)
start = torch.randn(500, 2, generator=generator)

try:
    end = euler(lambda x, t: exact_velocity(x, t, moons), start, 100)
    picture = plotting.clouds(source=start, exact=end, behind=moons, limit=3.6)
except TypeError:  # euler or exact_velocity are not written yet
    end = picture = None
picture

# %% tags=["check"]
nearest = None if end is None else torch.cdist(end, moons).min(1).values.mean()
checks.holds(
    "two moons",
    None if nearest is None else nearest < 0.1,
    "the end points are far from the data, although each part may be right: does euler stop at t = 1 - h?",
)
