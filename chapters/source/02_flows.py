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

# %% [markdown] slideshow={"slide_type": "slide"}
# # 02 Flows
#
# Put a particle at every point of the plane and let a wind blow for one unit of time. Each particle ends somewhere. The
# map from where a particle starts to where it ends is a **flow**. If the particles start as noise and the wind is the right
# one, they end as data.
#
# This chapter follows the particles: how to compute their trajectories, why a flow can be undone, what happens to areas and
# to densities, and what it costs to learn the wind from data by maximum likelihood. That cost is the reason for flow matching.

# %% slideshow={"slide_type": "skip"}
import math

import torch
from sklearn.linear_model import LogisticRegression
from torch.utils.flop_counter import FlopCounterMode

from fmcore import closed_form, data, likelihood, losses, networks, paths, solvers, sources, training
from fmcore.course import card, claims, plotting, predict, style, widgets
from fmcore.course.claims import Claim, about, above, below, between, exactly

style.use()
torch.set_num_threads(1)  # tensors are small here: more threads would only wait for each other

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
card.show(
    "02_flows",
    goals=[
        "follow a velocity field with a solver, and choose the solver and its steps",
        "say why a flow can be run backward, and when the computer's version cannot",
        "turn an image into its noise and back, and move between two images in the noise",
        "test whether a velocity field carries a given density, with the continuity equation",
        "compute the density that a flow gives to a point, exactly and by Hutchinson's estimate",
        "say why training a flow by maximum likelihood is expensive",
    ],
    before=["chapter 01: the continuity equation", "derivatives of several variables", "autograd in PyTorch"],
    exercises=[
        "1. a method that has lost an order",
        "2. the divergence of a radial field",
        "3. a density whose mass is not one",
        "4. a motion that leaves a Gaussian unchanged",
        "5. the spread of Hutchinson's estimate",
        "6. does a high order survive a kink?",
    ],
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 1. A velocity field and its flow
#
# A **velocity field** $v(x, t)$ says how a point moves that is at $x \in \mathbb{R}^d$ at time $t \in [0, 1]$: in which
# direction and how fast. A point that starts at $x_0$ follows the **ordinary differential equation** (ODE)
#
# $$
# \frac{dx_t}{dt} = v(x_t, t) .
# $$
#
# Its solution $t \mapsto x_t$ is a **trajectory**. The **flow map** $\phi_t$ sends every start to its place at time $t$:
# $x_t = \phi_t(x_0)$. In `fmcore` a velocity is any callable `(x, t) -> v`, where `x` has shape $(B, d)$, `t` has shape
# $()$ or $(B,)$, and `v` has the shape of `x`.

# %% [markdown] slideshow={"slide_type": "subslide"}
# Our first field, the *whirl*, is one that we can solve by hand. Write $Jx$ for $x$ turned by a quarter turn,
# $J(a, b) = (-b, a)$:
#
# $$
# v(x, t) = 2\, \frac{4 - \|x\|^2}{4 + \|x\|^2}\, x \;+\; 4\, t\, J x .
# $$
#
# The first term moves points outward inside the circle of radius 2 and inward outside it. The second turns them about the
# origin, faster and faster.


# %% slideshow={"slide_type": "-"}
def quarter_turn(x):
    return torch.stack([-x[:, 1], x[:, 0]], dim=1)


def whirl(x, t):
    t = torch.as_tensor(t, dtype=x.dtype).reshape(-1, 1)  # () or (B,) becomes a column, one time per row
    square = x.square().sum(dim=1, keepdim=True)
    return 2 * (4 - square) / (4 + square) * x + 4 * t * quarter_turn(x)


# %% [markdown] slideshow={"slide_type": "subslide"}
# In polar coordinates the two terms separate: $\dot r = 2 r (4 - r^2) / (4 + r^2)$ and $\dot\beta = 4t$ for the radius $r$ and
# the angle $\beta$; the dot is the derivative in $t$. The angle is $\beta_t = \beta_0 + 2 t^2$. For the radius put $q = 2/r - r/2$, which is 0 on the
# circle of radius 2. Then $\dot q = -(2/r^2 + 1/2)\, \dot r = -2 q$, so
#
# $$
# q_t = q_0\, e^{-2t}, \qquad r_t = \sqrt{q_t^2 + 4} - q_t .
# $$
#
# This is the exact flow map of the whirl. We compute in float64, so that the errors we read below are those of the methods
# and not of rounding.


# %% slideshow={"slide_type": "-"}
def whirl_exact(x0, t):
    """phi_t(x0) in closed form."""
    r0 = x0.norm(dim=1, keepdim=True)
    q = (2 / r0 - r0 / 2) * math.exp(-2 * t)
    r = (q**2 + 4).sqrt() - q
    angle = 2 * t**2
    return r / r0 * (math.cos(angle) * x0 + math.sin(angle) * quarter_turn(x0))


generator = torch.Generator().manual_seed(0)
x0 = torch.randn(200, 2, generator=generator, dtype=torch.float64)

eta = 1e-5  # does the formula obey the ODE? a central difference in time, against the velocity
derivative = (whirl_exact(x0, 0.6 + eta) - whirl_exact(x0, 0.6 - eta)) / (2 * eta)
formula_error = (derivative - whirl(whirl_exact(x0, 0.6), 0.6)).abs().max()
assert formula_error < 1e-7

# %% slideshow={"slide_type": "subslide"}
times = torch.linspace(0, 1, 101)
flow = solvers.solve(whirl, x0, times=times, rtol=1e-9, atol=1e-9)

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 3, height=3.2)
for t, ax in zip((0.0, 1.0), axes[:2], strict=True):
    plotting.field(whirl, t, limit=2.7, points=15, title=f"velocity at t = {t:.0f}", ax=ax)
plotting.trajectories(flow, count=70, limit=2.7, title="trajectories", ax=axes[2])
figure

# %% [markdown] slideshow={"slide_type": "-"}
# Left and middle: the velocity, longer arrows where it is faster (each panel has its own scale). Right: each line is a
# trajectory, coloured by time: orange at the start ($t = 0$), then pink, dark violet at the end ($t = 1$). A round cloud
# becomes a ring.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Ten lines that solve an ODE
#
# Few fields can be solved by hand. **Euler's method** needs only values of $v$: keep the velocity fixed for a short
# time $h$, go straight, look again.
#
# $$
# x_{t + h} \approx x_t + h\, v(x_t, t) .
# $$


# %% slideshow={"slide_type": "-"}
def euler(velocity, x0, steps):
    x, h = x0, 1 / steps
    for i in range(steps):
        t = torch.tensor(i * h)
        x = x + h * velocity(x, t)
    return x


by_fmcore = solvers.solve(whirl, x0, method="euler", steps=50)
euler_gap = (euler(whirl, x0, 50) - by_fmcore.x).abs().max()
assert euler_gap < 1e-6
print(f"50 Euler steps: NFE {by_fmcore.nfe}")

# %% [markdown] slideshow={"slide_type": "-"}
# Both give the same numbers, up to rounding. `solvers.solve` also counts the evaluations of the velocity, the **NFE** (number
# of function evaluations). When the velocity is a large network, NFE is what a sample costs.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
predict.ask(
    "The whirl turns points about the origin. Euler goes straight for a while, then looks again. With 8 steps, where do "
    "the points end, compared with the exact flow?",
    ["too far inside", "at the right radius, but turned by a wrong angle", "too far outside"],
    answer=2,
    because="A straight step along a circle leaves the circle on its outer side, at every step. The field pulls points that "
    "are too far out back to the ring, but with 8 steps not enough. Look at the dots in the next figure.",
)


# %% slideshow={"slide_type": "fragment"}
def rms(difference):
    """Root mean square length of the rows."""
    return float(difference.square().sum(dim=1).mean().sqrt())


coarse = solvers.solve(whirl, x0, method="euler", steps=8)
outward_drift = (coarse.x.norm(dim=1) - whirl_exact(x0, 1.0).norm(dim=1)).mean()
print(f"8 Euler steps from 200 random points: mean radius too large by {outward_drift:.2f}")


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
def compare_with_exact(nfe, method):
    """A fixed-step method from 12 starts, with the exact trajectories behind it."""
    steps = nfe // {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}[method]
    angles = torch.arange(12, dtype=torch.float64) * (math.pi / 6)
    starts = torch.stack([angles.cos(), angles.sin()], dim=1)
    found = solvers.solve(whirl, starts, method=method, times=torch.linspace(0, 1, steps + 1))
    figure, ax = plotting.canvas(width=5.0, height=5.0)
    exact = torch.stack([whirl_exact(starts, float(t)) for t in times])
    for line in exact.unbind(dim=1):
        ax.plot(*line.T, color=style.EXACT, linewidth=1.0, linestyle="--")
    plotting.trajectories(found, limit=2.9, width=1.6, ends=False, ax=ax)
    marks = found.trajectory.reshape(-1, 2)
    ax.scatter(*marks.T, c=found.times.repeat_interleave(12), cmap=style.time_map(), s=16, zorder=3)
    ax.set_title(f"{method}, {steps} steps, NFE {found.nfe}: error {rms(found.x - exact[-1]):.2g}")
    return figure


compare_with_exact(8, "euler")

# %% [markdown] slideshow={"slide_type": "-"}
# Dashed: exact. Coloured by time: the solver, with a dot after each step. Euler leaves the exact trajectories on the outer
# side. Move the sliders below: how many evaluations does each method need before you cannot see the difference?

# %% slideshow={"slide_type": "subslide"}
widgets.explore(
    compare_with_exact,
    nfe=widgets.choice([4, 8, 16, 32, 64], value=16, label="NFE"),
    method=widgets.choice(["euler", "midpoint", "heun", "rk4"]),
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 2. The order of a solver
#
# How fast does the error fall when we take more steps? Taylor's formula for one step of length $h$ is
#
# $$
# x_{t+h} = x_t + h\, \dot x_t + \frac{h^2}{2}\, \ddot x_t + \dots
# $$
#
# Euler keeps the first two terms and makes an error of about $\frac{h^2}{2} \|\ddot x_t\|$ in each step. There are $1/h$
# steps, so the error at the end is proportional to $h$. A method whose step agrees with Taylor's formula up to the term
# $h^k$ has an error of about $h^{k+1}$ per step and $h^k$ at the end: it has **order** $k$, and half the step divides its
# error by $2^k$.

# %% [markdown] slideshow={"slide_type": "subslide"}
# | Method | What it does in a step from $x$ | Evaluations per step | Order |
# |---|---|---|---|
# | `euler` | goes with the velocity at the start | 1 | 1 |
# | `midpoint` | goes with the velocity in the middle, found by half an Euler step | 2 | 2 |
# | `heun` | goes with the average of the velocities at the start and at the end of an Euler step | 2 | 2 |
# | `rk4` | goes with an average of four velocities: start, twice the middle, end | 4 | 4 |
# | `dopri5` | order 5; compares itself with a result of order 4 and chooses the step | 6 | 5 |
#
# Order is a statement about $h \to 0$. We read it off the whirl, whose solution we know.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "RK4 with 32 steps has some error. What is left of it with 64 steps?",
    ["half", "a quarter", "about a sixteenth", "nothing but rounding"],
    answer=2,
    because="The order is 4, so half the step divides the error by 2 to the power 4. On logarithmic axes the error falls on "
    "a straight line of slope -4.",
)

# %% slideshow={"slide_type": "subslide"}
steps = torch.tensor([16, 32, 64, 128, 256, 512])
truth = whirl_exact(x0, 1.0)
errors, evaluations = {}, {}
for method in ("euler", "midpoint", "heun", "rk4"):
    found = [solvers.solve(whirl, x0, method=method, steps=int(n)) for n in steps]
    errors[method] = [rms(solution.x - truth) for solution in found]
    evaluations[method] = [solution.nfe for solution in found]

orders = {method: -plotting.slope(steps, error) for method, error in errors.items()}
print("measured orders:", ", ".join(f"{method} {order:.2f}" for method, order in orders.items()))
plotting.error_against(steps, errors, ylabel="root mean square error at t = 1")

# %% [markdown] slideshow={"slide_type": "-"}
# On logarithmic axes each method falls along a straight line whose slope is minus its order. The curves of midpoint and Heun
# nearly coincide: same order, same cost, and on this field nearly the same constant. If you write a solver, draw this figure:
# most mistakes show as a wrong slope.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### What a given error costs
#
# RK4 needs four evaluations per step. Is that worth it? Take NFE as the axis, and add `dopri5`. It is not given a number of
# steps but **tolerances** `rtol` and `atol`: it estimates its error in each step, and repeats the step with a shorter one if the
# estimate is larger than the tolerance. Rejected steps cost evaluations too, and `nfe` counts them.

# %% slideshow={"slide_type": "-"}
tolerances = [10.0**-k for k in range(2, 10)]
adaptive = [solvers.solve(whirl, x0, rtol=tol, atol=tol) for tol in tolerances]
adaptive_nfe = [solution.nfe for solution in adaptive]
adaptive_error = [rms(solution.x - truth) for solution in adaptive]
tighter_costs = adaptive_nfe[6] / adaptive_nfe[2]
print(
    f"dopri5 from tolerance 1e-4 to 1e-8: NFE {adaptive_nfe[2]} to {adaptive_nfe[6]}, a factor of {tighter_costs:.1f}"
)
print(
    f"error at t = 1: {adaptive_error[2]:.0e} to {adaptive_error[6]:.0e};  10,000 to the power 1/5 is {10_000**0.2:.1f}"
)

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 2, height=4.0)
for i, (method, error) in enumerate([*errors.items(), ("dopri5", adaptive_error)]):
    nfe = evaluations.get(method, adaptive_nfe)
    axes[0].loglog(nfe, error, color=style.CYCLE[i], marker=style.MARKERS[i], label=method)
axes[0].set(xlabel="NFE", ylabel="error at t = 1", title="error against cost")
axes[0].legend()
axes[1].loglog(tolerances, adaptive_nfe, color=style.CYCLE[4], marker=style.MARKERS[4])
axes[1].set(xlabel="tolerance (rtol = atol)", ylabel="NFE", title="dopri5")
axes[1].set_yticks([25, 50, 100, 200], ["25", "50", "100", "200"])
axes[1].minorticks_off()
axes[1].invert_xaxis()
figure

# %% [markdown] slideshow={"slide_type": "-"}
# The error estimate in a step of `dopri5` is of order $h^5$, so for small tolerances $\tau$ the step is proportional to
# $\tau^{1/5}$ and NFE to $\tau^{-1/5}$. From $10^{-4}$ to $10^{-8}$ that would be a factor of $10{,}000^{1/5}$. The measured
# factor is smaller, because the steps are not small yet. Either way, accuracy is cheap here: a tolerance ten thousand times
# smaller costs a few times as much. Note that the tolerance limits the error of each step and not the error at the end.


# %% slideshow={"slide_type": "subslide"}
def cheapest(method, goal):
    """The smallest NFE at which the error is at most the goal: double the steps, then bisect."""

    def error(n):
        return rms(solvers.solve(whirl, x0, method=method, steps=n).x - truth)

    low, high = 0, 1
    while error(high) > goal:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if error(middle) <= goal else (middle, high)
    return solvers.solve(whirl, x0, method=method, steps=high).nfe


needed = {goal: {method: cheapest(method, goal) for method in errors} for goal in (0.3, 0.01)}

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 2, height=2.4)
for (goal, nfe), ax in zip(needed.items(), axes, strict=True):
    plotting.bars(nfe, digits=0, xlabel="NFE", title=f"for an error of {goal}", ax=ax)
figure

# %% [markdown] slideshow={"slide_type": "-"}
# Which solver is cheapest depends on the error that one accepts. For 0.3 order 2 needs as many evaluations as order 4; for 0.01
# the higher order needs fewer, and in the figure before `dopri5` falls below RK4 for the smallest errors. Euler needs the most
# for both goals. But a single Euler step costs a single evaluation, and if trajectories were straight lines at constant speed,
# this one step would be exact: chapter 05.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 3. A flow can be run backward
#
# Let $v$ be Lipschitz in $x$: $\|v(x, t) - v(y, t)\| \le L\, \|x - y\|$ with one constant $L$. Our MLPs are, and so is the
# whirl. Then **exactly one** trajectory passes through each place $x$ at each time $t$ (the theorem of Picard and Lindelöf). Two
# facts follow.
#
# - **Trajectories never cross.** Two that met would be at one place at one time, and there is only one way on from there, and
#   only one way back.
# - **The flow map is invertible.** To undo it, solve the same ODE from $t = 1$ to $t = 0$.
#
# So every data point has its own noise sample, and nothing is lost on the way. (The condition matters: for the exact velocity
# of a finite data set, $L$ grows without bound as $t \to 1$. Chapter 03 shows what happens then.)

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "We run the whirl forward with 50 Euler steps, then backward with 50 Euler steps. Are we back at the start?",
    ["yes: the flow is invertible", "no: Euler backward does not undo Euler forward"],
    answer=1,
    because="The exact flow is invertible, but Euler's method only approximates it. Forward, a step uses the velocity where it "
    "starts; backward, the velocity at the other end. The gap shrinks with the step, at the rate that the order gives.",
)


# %% slideshow={"slide_type": "fragment"}
def there_and_back(**options):
    there = solvers.solve(whirl, x0, t0=0.0, t1=1.0, **options)
    back = solvers.solve(whirl, there.x, t0=1.0, t1=0.0, **options)
    return rms(back.x - x0)


returned = {f"dopri5, tolerance {tol:g}": there_and_back(rtol=tol, atol=tol) for tol in (1e-3, 1e-6, 1e-9)}
returned |= {f"{method}, 50 steps": there_and_back(method=method, steps=50) for method in ("euler", "midpoint", "rk4")}
for name, gap in returned.items():
    print(f"{name:25s} misses its start by {gap:.0e}")

# %% [markdown] slideshow={"slide_type": "-"}
# We come back as exactly as the solver is exact. With 50 Euler steps the gap is more than half as large as the cloud, whose points
# have the root mean square length $\sqrt 2$.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Never crossing, seen in one dimension
#
# In the figure of the whirl, trajectories seem to cross: two points pass the same place at *different* times. With one
# dimension of space we can draw time as a second axis, and then no two may cross. Here is a flow from a Gaussian to three narrow
# bumps. Its velocity comes from `closed_form`; section 5 shows how to test such a velocity.

# %% slideshow={"slide_type": "-"}
bumps = torch.tensor([[-1.8], [0.2], [1.9]], dtype=torch.float64)
line_path = paths.ot(sigma_min=0.2)  # alpha_t = t, sigma_t = 1 - 0.8 t
line_velocity = closed_form.EmpiricalVelocity(bumps, line_path)

starts = torch.randn(400, 1, generator=generator, dtype=torch.float64).sort(dim=0).values
line_flow = solvers.solve(line_velocity, starts, times=times, rtol=1e-8, atol=1e-8)

chosen = bumps[torch.randint(0, 3, (400,), generator=generator)]
ends = chosen + 0.2 * torch.randn(400, 1, generator=generator, dtype=torch.float64)
straight = (1 - times)[:, None, None] * starts + times[:, None, None] * ends


def crossings(trajectory):
    """Share of all pairs of lines (T, B, 1) that have changed their order at some time."""
    first, second = torch.triu_indices(trajectory.shape[1], trajectory.shape[1], offset=1)
    gaps = trajectory[:, second, 0] - trajectory[:, first, 0]  # starts are sorted: positive at t = 0
    return float((gaps < 0).any(dim=0).double().mean())


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 2, height=4.0, sharey=True)
panels = {"trajectories of a flow": line_flow.trajectory, "straight lines, paired at random": straight}
for ax, (title, lines) in zip(axes, panels.items(), strict=True):
    for i in range(0, 400, 8):
        ax.plot(times, lines[:, i, 0], color=style.time_map()(i / 400), linewidth=1.0, alpha=0.8)
    ax.set(xlabel="t", title=title, ylim=(-3.1, 3.1))
    ax.grid(False)
axes[0].set_ylabel("x")
for title, lines in panels.items():
    print(f"{title}: {crossings(lines):.0%} of all pairs cross")
figure

# %% [markdown] slideshow={"slide_type": "-"}
# Colour shows the rank at the start (here it is not time). Both pictures carry the same Gaussian to the same three bumps. On the
# left the order is kept; on the right about half of all pairs cross. Where two lines cross, one place and time would need two
# velocities: **no velocity field has these lines as its trajectories.** Remember the picture on the right: chapter 03 trains on
# such lines and gets a flow like the one on the left.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### An inverse at work: between two digits
#
# What is an exact inverse good for? It turns an image into its own noise sample, and noise can be changed. Take two images $x_1$
# and $y_1$, solve backward to $x_0 = \phi_1^{-1}(x_1)$ and $y_0 = \phi_1^{-1}(y_1)$, move from $x_0$ to $y_0$ in the noise, and
# solve forward from each point in between. That gives a sequence of images from one to the other.
#
# We need a flow of images. Here is a small network, trained for a thousand steps by flow matching on handwritten digits of
# $8 \times 8$ pixels, so $d = 64$. Chapter 03 explains the loss; here it is a function that we call.


# %% slideshow={"slide_type": "-"}
def flow_matching(model, x1, generator):
    noise = torch.randn(x1.shape, generator=generator)
    return losses.conditional_flow_matching(model, paths.rectified(), noise, x1, generator=generator)


digits = data.digits()
train_images, held_out = 3 * digits.scaled(digits.train), 3 * digits.scaled(digits.held_out)  # pixels from -3 to 3
torch.manual_seed(0)
config = training.TrainingConfig(steps=1000, batch=128, lr=1e-2, decay="cosine", ema=0.99)
model = networks.MLP(64, width=192, depth=2)
digit_flow = training.train(model, flow_matching, train_images, config, progress=False).ema

# %% slideshow={"slide_type": "-"}
to_noise = solvers.solve(digit_flow, held_out, t0=1.0, t1=0.0, rtol=1e-6, atol=1e-6)
and_back = solvers.solve(digit_flow, to_noise.x, rtol=1e-6, atol=1e-6)
inversion_gap = (and_back.x - held_out).abs().max() / 6  # as a share of the range of a pixel
lengths = to_noise.x.flatten(1).norm(dim=1)
print(f"{len(held_out)} held-out digits, to noise and back: largest error {inversion_gap:.0e} of a pixel's range")
print(f"length of their noise samples: mean {lengths.mean():.1f}, standard deviation {lengths.std():.1f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# **Straight or round?** A Gaussian sample in 64 dimensions has a length near $\sqrt{64} = 8$ (chapter 09 says why, and how near).
# Two such samples are almost orthogonal, so halfway along the straight line between them the length is smaller by a factor of
# about $\sqrt 2$. Hardly any noise sample is that short, so the network has hardly been trained there. **Spherical interpolation** turns
# from one direction to the other and keeps the length: with $\omega$ the angle between $x_0$ and $y_0$, and $\lambda$ from 0 to 1,
#
# $$
# z_\lambda = \frac{\sin((1 - \lambda)\, \omega)}{\sin \omega}\, x_0 + \frac{\sin(\lambda\, \omega)}{\sin \omega}\, y_0 .
# $$


# %% slideshow={"slide_type": "-"}
def straight_line(a, b, share):
    return (1 - share) * a + share * b


def sphere(a, b, share):
    omega = torch.acos(torch.cosine_similarity(a.flatten(1), b.flatten(1))).reshape(-1, 1, 1, 1)
    return (torch.sin((1 - share) * omega) * a + torch.sin(share * omega) * b) / torch.sin(omega)


# %% slideshow={"slide_type": "subslide"}
order = torch.randperm(296, generator=torch.Generator().manual_seed(3)).reshape(2, 148)
first, second = order[:, digits.held_out_labels[order[0]] != digits.held_out_labels[order[1]]]  # pairs of two classes
shares = torch.linspace(0, 1, 9)
between_pixels = torch.stack([straight_line(held_out[first], held_out[second], share) for share in shares])
between_noise = {
    way: torch.stack([move(to_noise.x[first], to_noise.x[second], share) for share in shares])
    for way, move in (("noise, sphere", sphere), ("noise, straight", straight_line))
}
ways = {"pixels": between_pixels}  # each (9, pairs, 1, 8, 8)
for way, z in between_noise.items():
    ways[way] = solvers.solve(digit_flow, z.flatten(0, 1)).x.reshape(z.shape)
    print(f"{way}: mean length halfway {z[4].flatten(1).norm(dim=1).mean():.1f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
pictures = [ways[way][:, k] / 3 for k in (4, 9, 1) for way in ("pixels", "noise, sphere")]
plotting.images(torch.cat(pictures), columns=9, rows=["pixels", "noise"] * 3)

# %% [markdown] slideshow={"slide_type": "-"}
# Three pairs of held-out digits, at the left and right ends. Rows "pixels": weighted averages of the two images, which show both
# digits at once. Rows "noise": the flow from points on the sphere between their noise samples turns one digit into the other.

# %% [markdown] slideshow={"slide_type": "subslide"}
# Is the difference more than an impression? We ask a classifier (logistic regression on the training digits) for its
# **confidence**, the probability that it gives to its best guess, and measure the distance to the nearest training image.

# %% slideshow={"slide_type": "subslide"}
flat_train = train_images.flatten(1) / 3
classifier = LogisticRegression(max_iter=200).fit(flat_train.numpy(), digits.train_labels.numpy())
accuracy = classifier.score(held_out.flatten(1).numpy() / 3, digits.held_out_labels.numpy())
confidence, nearest = {}, {}
for way, between_images in ways.items():
    flat = [images.flatten(1) / 3 for images in between_images]
    confidence[way] = [float(classifier.predict_proba(images.numpy()).max(axis=1).mean()) for images in flat]
    nearest[way] = [float(torch.cdist(images, flat_train).amin(dim=1).mean()) for images in flat]
    sure, far = (f"{values[0]:.2f}, {values[4]:.2f}, {values[8]:.2f}" for values in (confidence[way], nearest[way]))
    print(f"{way:15}  start, middle, end: confidence {sure}; distance to training images {far}")
print(f"the classifier is right for {accuracy:.0%} of the held-out digits; mean over {len(first)} pairs")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 2, height=3.4)
looks = {"colors": dict(zip(ways, (style.EXACT, style.MODEL, style.PATH), strict=True)), "markers": True}
plotting.curves(shares, confidence, xlabel="$\\lambda$", ylabel="confidence", ax=axes[0], **looks)
plotting.curves(shares, nearest, xlabel="$\\lambda$", ylabel="distance to training images", ax=axes[1], **looks)
axes[1].get_legend().remove()
figure

# %% [markdown] slideshow={"slide_type": "-"}
# Halfway, the pixel average has a lower confidence and a larger distance to the training images than the flow's images. The straight
# line in the noise is not worse than the sphere by these two numbers: the argument about lengths says where the network was
# trained, not what it makes elsewhere. And a confident classifier does not prove that an image is good.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 4. How a flow stretches space
#
# A small square is carried along. Each of its corners is near the centre $x_t$, at $x_t + \delta$. To first order the
# velocity there is $v(x_t) + A\, \delta$ with $A = \partial v / \partial x$, the Jacobian matrix ($d \times d$) at $x_t$. So
# in a time $dt$ every $\delta$ is multiplied by $I + A\, dt$, and the area by
#
# $$
# \det (I + A\, dt) = 1 + (A_{11} + \dots + A_{dd})\, dt + O(dt^2) .
# $$
#
# The sum of the diagonal is the trace of $A$, the **divergence** of $v$:
#
# $$
# \operatorname{div} v = \sum_{i=1}^{d} \frac{\partial v_i}{\partial x_i} , \qquad
# \frac{d}{dt} \log(\text{area}) = \operatorname{div} v(x_t, t) .
# $$
#
# The area is multiplied by $\exp \int_0^1 \operatorname{div} v(x_t, t)\, dt$ on the way.

# %% [markdown] slideshow={"slide_type": "subslide"}
# For the whirl, write $s = \|x\|^2 / 4$. Differentiate the first term, and note that the turning term has no divergence (a
# rotation moves area without changing it):
#
# $$
# \operatorname{div} v = 4\, \frac{1 - 2s - s^2}{(1 + s)^2} , \qquad \text{positive for } \|x\| < 2 \sqrt{\sqrt 2 - 1} \approx 1.29 .
# $$
#
# Autograd checks the calculation: each backward pass gives one row of the Jacobian. (`create_graph=True` keeps the result
# differentiable, which section 9 will need.)


# %% slideshow={"slide_type": "-"}
def divergence(velocity, x, t):
    """v(x, t) and its divergence (B,): one backward pass for each dimension; x must require a gradient."""
    v = velocity(x, t)
    rows = [torch.autograd.grad(v[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(x.shape[1])]
    return v, torch.stack(rows).sum(dim=0)


s = x0.square().sum(dim=1) / 4
by_formula = 4 * (1 - 2 * s - s**2) / (1 + s) ** 2
_, by_autograd = divergence(whirl, x0.clone().requires_grad_(), 0.6)
assert torch.allclose(by_formula, by_autograd)

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
predict.ask(
    "Three small squares ride on the whirl. They start at distance 0.5, 1.9 and 2.5 from the origin. Which of them grow?",
    [
        "only the one at 0.5",
        "those at 0.5 and at 1.9: both start inside the circle of radius 2",
        "all three: they are drawn out along the ring",
    ],
    answer=0,
    because="The divergence is positive only inside distance 1.29. The square at 1.9 moves outward and still shrinks: points "
    "nearer to the ring are slower, so what follows from behind catches up.",
)

# %% slideshow={"slide_type": "fragment"}
centres = torch.tensor([[0.4, 0.3], [1.5, -1.17], [-2.4, 0.7]], dtype=torch.float64)
corners = torch.tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64)


def shoelace(polygon):
    """Area of polygons (..., corners, 2) with corners in order."""
    x, y = polygon.unbind(dim=-1)
    return 0.5 * (x * y.roll(-1, dims=-1) - x.roll(-1, dims=-1) * y).sum(dim=-1)


small = (centres[:, None] + 0.005 * corners).reshape(-1, 2)
carried = solvers.solve(whirl, torch.cat([centres, small]), times=times, rtol=1e-9, atol=1e-9).trajectory
area = shoelace(carried[:, 3:].reshape(-1, 3, 4, 2))  # (T, 3)
grown = area[-1] / area[0]

s = carried[:, :3].square().sum(dim=2) / 4
divergence_along = 4 * (1 - 2 * s - s**2) / (1 + s) ** 2  # (T, 3), at the three centres
from_divergence = torch.trapezoid(divergence_along, times.double(), dim=0).exp()
for measured, predicted in zip(grown, from_divergence, strict=True):
    print(f"area after / before: {measured:.4f}     exp of the integrated divergence: {predicted:.4f}")
volume_gap = (grown / from_divergence - 1).abs().max()


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
def outline(centre, side, points=12):
    """Points along the four edges of a square."""
    along = torch.linspace(-0.5, 0.5, points + 1, dtype=torch.float64)[:-1]
    edge = torch.stack([along, torch.full_like(along, -0.5)], dim=1)
    edges = [edge]
    for _ in range(3):
        edges.append(quarter_turn(edges[-1]))
    return centre + side * torch.cat(edges)


big = torch.cat([outline(centre, 0.5) for centre in centres])
shapes = solvers.solve(whirl, big, times=times, rtol=1e-6, atol=1e-6).trajectory.reshape(len(times), 3, -1, 2)
figure, ax = plotting.canvas(width=5.2, height=5.2)
plotting.trajectories((times, carried[:, :3]), limit=3.1, width=1.5, ends=False, ax=ax)
for i in range(0, len(times), 20):
    for polygon in shapes[i]:
        ax.fill(*polygon.T, facecolor=style.time_map()(i / 100), alpha=0.55, edgecolor="white", linewidth=1.0)
for place, factor in zip(((-2.1, 1.75), (0.85, 2.15), (0.9, -2.2)), grown, strict=True):
    ax.text(*place, f"area x {factor:.2f}", fontsize=11)
ax.set_title("three squares, t = 0, 0.2, ..., 1")
figure

# %% [markdown] slideshow={"slide_type": "-"}
# The square that starts near the origin grows; the other two are squeezed towards the ring. Each carried area agrees with the
# exponential of the integrated divergence.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 5. The continuity equation
#
# Fill the plane with particles of density $p_0(x)$ and let them flow; $p_t$ is their density at time $t$. Particles are neither
# created nor lost on the way. As an equation this is the **continuity equation**, which chapter 01 derives:
#
# $$
# \frac{\partial p_t}{\partial t} + \operatorname{div}(p_t\, v) = 0 .
# $$
#
# The product $p_t v$ is the **flux**: how much mass passes a place per unit of time, and in which direction. For smooth $p$ and
# $v$ the equation decides which velocities belong to which densities: $v$ carries $p_0$ into $p_t$ for every $t$ exactly when it
# holds. So it is a test, and here we use it as one.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### A density to test it on
#
# Put $n = 48$ points $c_i$ on two moons. Let $p_t$ be the average of $n$ Gaussians that move from the origin to the points
# and become narrower:
#
# $$
# p_t(x) = \frac{1}{n} \sum_{i=1}^{n} \mathcal{N}\big(x;\; \alpha_t\, c_i,\; \sigma_t^2 I\big), \qquad \alpha_t = t, \quad \sigma_t = 1 - 0.8\, t .
# $$
#
# At $t = 0$ all of them are one standard Gaussian; at $t = 1$ they are a smooth density on two moons.

# %% slideshow={"slide_type": "-"}
path = paths.ot(sigma_min=0.2)
points = data.toy.two_moons(48, generator, noise=0.05).double()


def log_density(x, t):
    """log p_t(x) of the moving Gaussians, shape (B,), for x (B, 2) and one time t."""
    t = torch.as_tensor(t, dtype=x.dtype)
    alpha, sigma = path.alpha(t), path.sigma(t)
    squares = (x[:, None] - alpha * points).square().sum(dim=2)
    return torch.logsumexp(-squares / (2 * sigma**2), dim=1) - math.log(len(points)) - torch.log(2 * math.pi * sigma**2)


def density(x, t):
    return log_density(x, t).exp()


# %% [markdown] slideshow={"slide_type": "subslide"}
# And the velocity? `closed_form.EmpiricalVelocity` is a candidate. It gives each of the 48 Gaussians the velocity that moves and
# shrinks it, and averages the 48 velocities, each weighted by the probability that a particle at $x$ belongs to its Gaussian.
# Chapter 03 derives it. Here we only ask whether it passes the test.

# %% slideshow={"slide_type": "-"}
right = closed_form.EmpiricalVelocity(points, path)
noise = torch.randn(600, 2, generator=generator, dtype=torch.float64)
moons_flow = solvers.solve(right, noise, times=times)

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 5, height=2.0)
for t, ax in zip((0.0, 0.25, 0.5, 0.75, 1.0), axes, strict=True):
    plotting.density(lambda x, t=t: log_density(x.double(), t), limit=3.2, points=81, title=f"t = {t:g}", ax=ax)
    ax.scatter(*moons_flow.trajectory[round(100 * t)].T, s=2, color=style.SOURCE, linewidths=0)
figure

# %% [markdown] slideshow={"slide_type": "-"}
# Shades: the formula for $p_t$. Dots: samples of $p_0$ that `solve` carried with the velocity. They seem to follow the shades.
# That is a good sign, but the eye does not measure. The continuity equation does.


# %% slideshow={"slide_type": "subslide"}
def continuity(density, velocity, x, t, eta=1e-3):
    """dp/dt and div(p v) at points x, by central differences with distance eta."""
    change = (density(x, t + eta) - density(x, t - eta)) / (2 * eta)
    outflow = torch.zeros_like(change)
    for i in range(x.shape[1]):
        shift = torch.zeros(x.shape[1], dtype=x.dtype)
        shift[i] = eta
        ahead, behind = x + shift, x - shift
        outflow += density(ahead, t) * velocity(ahead, t)[:, i] / (2 * eta)
        outflow -= density(behind, t) * velocity(behind, t)[:, i] / (2 * eta)
    return change, outflow


def residual(velocity, t=0.6, eta=1e-3):
    """Largest |dp/dt + div(p v)| on a grid, as a share of the largest |dp/dt|."""
    change, outflow = continuity(density, velocity, plotting.grid(3.2, 61).double(), t, eta)
    return float((change + outflow).abs().max() / change.abs().max())


# %% [markdown] slideshow={"slide_type": "subslide"}
# To see that the test can fail, we need a wrong field: the same 48 velocities, averaged with *equal* weights.


# %% slideshow={"slide_type": "-"}
def equal_weights(x, t):
    """The plain average of the 48 velocities. Each is affine in its c_i, so the average is the velocity for their mean."""
    return path.velocity(x, points.mean(dim=0).expand(len(x), 2), t)


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Each of the 48 velocities carries its own Gaussian correctly. Does their plain average carry the average of the "
    "Gaussians?",
    ["yes: the continuity equation is linear", "no: the average must be weighted"],
    answer=1,
    because="The equation is linear in the product p v, not in v. Adding the 48 equations gives the flux, the sum of "
    "p_i v_i, and the velocity is this sum divided by the sum of the p_i: an average with weights p_i.",
)

# %% slideshow={"slide_type": "-"}
right_residual, wrong_residual = residual(right), residual(equal_weights)
print(f"largest residual over largest |dp/dt|: right {right_residual:.0e}, equal weights {wrong_residual:.1f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
grid = plotting.grid(3.2, 101).double()
look = {"origin": "lower", "cmap": "PuOr", "vmin": -0.6, "vmax": 0.6, "interpolation": "bilinear"}
figure, axes = plotting.canvas(2, 3, height=5.7)
for row, (name, velocity) in zip(axes, {"right": right, "equal weights": equal_weights}.items(), strict=True):
    change, outflow = continuity(density, velocity, grid, 0.6)
    pictures = {"dp/dt": change, f"-div(p v), {name}": -outflow, f"residual, {name}": change + outflow}
    for ax, (title, values) in zip(row, pictures.items(), strict=True):
        shown = ax.imshow(values.reshape(101, 101), **look)
        style.blank(ax).set_title(title)
figure.colorbar(shown, ax=axes, shrink=0.5, label="density per unit of time")
figure

# %% [markdown] slideshow={"slide_type": "-"}
# Violet: the density grows. Orange: it falls. In the upper row both sides of the equation agree and nothing is left; with equal
# weights too much mass is moved to the middle.

# %% [markdown] slideshow={"slide_type": "subslide"}
# Is the upper residual zero, or only small? A central difference over a distance $\eta$ has an error of order $\eta^2$. If that is
# the whole residual, it falls with slope 2 as $\eta$ becomes small; a residual of the field itself would not change.

# %% slideshow={"slide_type": "fragment"}
distances = [3e-2, 1e-2, 3e-3, 1e-3]
curves = {
    "right": [residual(right, eta=eta) for eta in distances],
    "equal weights": [residual(equal_weights, eta=eta) for eta in distances],
}
residual_slope = plotting.slope(distances, curves["right"])
colors = {"right": style.EXACT, "equal weights": style.BAD}
labels = {"xlabel": "distance $\\eta$", "ylabel": "relative residual"}
print(f"slope of the right field's residual: {residual_slope:.2f}")
plotting.curves(distances, curves, log="xy", markers=True, colors=colors, **labels)

# %% [markdown] slideshow={"slide_type": "-"}
# The residual of the right field falls with slope 2, so it comes from the differences alone. That of the equal weights stays.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 6. The density that a flow gives to a point
#
# In the continuity equation, expand $\operatorname{div}(p_t v) = v \cdot \nabla p_t + p_t \operatorname{div} v$ and divide by
# $p_t$. This gives the change of $\log p_t$ *along a trajectory*, for a particle that moves with the flow:
#
# $$
# \frac{d}{dt} \log p_t(x_t) = \frac{\partial \log p_t}{\partial t} + v \cdot \nabla \log p_t = - \operatorname{div} v(x_t, t) .
# $$
#
# It agrees with section 4: where a small square grows, its particles thin out, and density times area stays the same. To get
# the density at a data point $x_1$, solve backward to $x_0 = \phi_1^{-1}(x_1)$ and add up the divergence on the way:
#
# $$
# \log p_1(x_1) = \log p_0(x_0) - \int_0^1 \operatorname{div} v(x_t, t)\, dt .
# $$
#
# This is the **change of variables** for flows (Chen et al. 2018). It needs the velocity, not the densities in between.

# %% [markdown] slideshow={"slide_type": "subslide"}
# By hand: midpoint steps backward in time, with the divergence of section 4 at the middle of each step.

# %% slideshow={"slide_type": "-"}
source = sources.Gaussian((2,))


def log_prob(velocity, x1, steps):
    x, h = x1.clone().requires_grad_(), 1 / steps
    change = 0.0
    for i in reversed(range(steps)):
        t = torch.tensor((i + 1) * h)
        middle = x - h / 2 * velocity(x, t)
        v, div = divergence(velocity, middle, t - h / 2)
        x, change = x - h * v, change + h * div
    return source.log_prob(x) - change


# %% slideshow={"slide_type": "-"}
chosen = points[torch.randint(0, 48, (300,), generator=generator)]
x1 = chosen + 0.2 * torch.randn(300, 2, generator=generator, dtype=torch.float64)  # 300 samples of p_1
by_hand = log_prob(right, x1, steps=20).detach()
by_fmcore = likelihood.log_likelihood(right, x1, source, method="midpoint", steps=20)
likelihood_gap = (by_hand - by_fmcore.log_prob).abs().max()
assert likelihood_gap < 1e-4

# %% [markdown] slideshow={"slide_type": "subslide"}
# Now against the truth. First the simplest flow, a standard Gaussian that becomes a narrow one around one point; then the two
# moons. `log_likelihood` uses `dopri5`; we ask for a tolerance of $10^{-7}$.

# %% slideshow={"slide_type": "-"}
centre = torch.tensor([[1.0, -0.5]], dtype=torch.float64)
to_one_point = closed_form.EmpiricalVelocity(centre, paths.ot(sigma_min=0.5))
y = centre + 0.5 * torch.randn(300, 2, generator=generator, dtype=torch.float64)
found = likelihood.log_likelihood(to_one_point, y, source, rtol=1e-7, atol=1e-7)
known = torch.distributions.Normal(centre, 0.5).log_prob(y).sum(dim=1)
gaussian_gap = (found.log_prob - known).abs().max()

found = likelihood.log_likelihood(right, x1, source, rtol=1e-7, atol=1e-7)
moons_gap = (found.log_prob - log_density(x1, 1.0)).abs().max()
print(f"largest error of log p_1: Gaussian {gaussian_gap:.0e}, two moons {moons_gap:.0e} nats")

# %% [markdown] slideshow={"slide_type": "-"}
# A flow gives its density at every point, as exactly as we solve. So we can draw it without samples or a histogram. A density
# must have mass 1, which is one more test.

# %% slideshow={"slide_type": "subslide"}
side = 81
grid = plotting.grid(3.2, side).double()
cell_area = (6.4 / (side - 1)) ** 2
by_flow = likelihood.log_likelihood(right, grid, source).log_prob.exp()
by_formula = density(grid, 1.0)
mass = float(by_flow.sum() * cell_area)
print(f"mass of the flow's density on the grid: {mass:.4f}")


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
def picture(values, title, ax, low=0.0, high=0.5, colors=None):
    """Values on the grid as an image."""
    look = {"origin": "lower", "cmap": colors or style.density_map(), "interpolation": "bilinear"}
    ax.imshow(values.reshape(side, side), vmin=low, vmax=high, **look)
    style.blank(ax).set_title(title)


figure, axes = plotting.canvas(1, 3, height=3.2)
picture(by_flow, "from the flow", axes[0])
picture(by_formula, "from the formula", axes[1])
picture(1e5 * (by_flow - by_formula), "difference x 100,000", axes[2], low=-0.5, colors="PuOr")
figure

# %% [markdown] slideshow={"slide_type": "-"}
# The density from the flow and the formula look the same; their difference becomes visible only when it is enlarged 100,000 times.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Density times area
#
# Sections 4 to 6 say together: density times area stays the same along the flow. We carry patches of particles and measure both.

# %% slideshow={"slide_type": "-"}
PATCHES = {"left": (-0.9, 0.3), "middle": (0.1, 0.1), "far out": (1.4, -1.5)}
patches = torch.tensor(list(PATCHES.values()), dtype=torch.float64)
ride = torch.cat([patches, (patches[:, None] + 0.005 * corners).reshape(-1, 2)])
arrived = solvers.solve(right, ride, rtol=1e-9, atol=1e-9).x
growth = shoelace(arrived[3:].reshape(3, 4, 2)) / shoelace(ride[3:].reshape(3, 4, 2))
conservation_gap = (growth * density(arrived[:3], 1.0) / density(patches, 0.0) - 1).abs().max()
print(f"three patches, t = 1: density times area is the same as at t = 0, up to a factor of 1 ± {conservation_gap:.0e}")


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
def follow_patch(t, start):
    """A patch carried to time t; density and area at its centre as multiples of their values at t = 0."""
    centre = torch.tensor([PATCHES[start]], dtype=torch.float64)
    ride = torch.cat([centre, centre + 0.005 * corners, outline(centre, 0.6)])
    now = ride if t == 0 else solvers.solve(right, ride, t1=t, rtol=1e-7, atol=1e-7).x
    growth = float(shoelace(now[1:5]) / shoelace(ride[1:5]))
    thinning = float(density(now[:1], t) / density(centre, 0.0))
    figure, axes = plotting.canvas(1, 2, width=7.2, height=4.1)
    for ax, time, patch in ((axes[0], 0.0, ride), (axes[1], t, now)):
        plotting.density(lambda x, time=time: log_density(x.double(), time), limit=2.4, points=101, ax=ax)
        ax.fill(*patch[5:].T, facecolor=style.SOURCE, alpha=0.6, edgecolor=style.INK, linewidth=1.0)
        ax.set_title(f"t = {time:.2f}")
    product = growth * thinning
    figure.suptitle(f"area x {growth:.3f},  density x {thinning:.3f},  product {product:.3f}", fontsize=12)
    return figure


follow_patch(0.85, "left")

# %% [markdown] slideshow={"slide_type": "-"}
# The patch shrinks, the density on it grows, and their product stays at 1. Move the time below.

# %% slideshow={"slide_type": "subslide"}
widgets.explore(
    follow_patch,
    t=widgets.slider(0, 1, step=0.05, value=0.5, label="time t"),
    start=widgets.choice(list(PATCHES)),
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 7. The divergence in many dimensions
#
# The exact divergence needs one backward pass for each dimension: 2 for the plane, 64 for an image of $8 \times 8$ pixels,
# $3 \times 32 \times 32$ for a small colour image, and that at every evaluation of the velocity. **Hutchinson's estimate**
# (Hutchinson 1989; for flows, Grathwohl et al. 2019) needs one backward pass in any dimension. Draw a probe
# $\varepsilon \in \mathbb{R}^d$ whose entries are independent signs $\pm 1$, so $\mathbb{E}[\varepsilon_i \varepsilon_j]$
# is 1 for $i = j$ and 0 otherwise. For any matrix $A$,
#
# $$
# \mathbb{E}\big[ \varepsilon^{\top} A\, \varepsilon \big] = \sum_{i, j} A_{ij}\, \mathbb{E}[\varepsilon_i \varepsilon_j] = \sum_i A_{ii} = \operatorname{tr} A .
# $$
#
# With $A = \partial v / \partial x$, the product $\varepsilon^{\top} A$ takes one backward pass. The estimate is unbiased: right
# on average. How far off is a single estimate? Its variance is
#
# $$
# \operatorname{Var}\big[ \varepsilon^{\top} A\, \varepsilon \big] = 2 \sum_{i \ne j} S_{ij}^2, \qquad S = \tfrac12 (A + A^{\top}),
# $$
#
# and the average of $K$ probes has $1/K$ of it.

# %% [markdown] slideshow={"slide_type": "subslide"}
# We try it on the digits, $d = 64$. The velocity is again the exact one, now for a Gaussian of width 0.3 around each of 500
# images, and we look at one noisy image at $t = 0.5$.

# %% slideshow={"slide_type": "-"}
images = digits.scaled(digits.train).flatten(1).double()  # (1500, 64) in (-1, 1)
digit_path = paths.ot(sigma_min=0.3)
digit_velocity = closed_form.EmpiricalVelocity(images[:500], digit_path)
half = torch.tensor(0.5)
x_half = digit_path.interpolate(torch.randn(1, 64, generator=generator, dtype=torch.float64), images[600:601], half)

# %% slideshow={"slide_type": "-"}
unit_vectors = torch.eye(64, dtype=torch.float64)
_, exact_trace = likelihood.velocity_and_divergence(digit_velocity, x_half, half, unit_vectors)
signs = torch.randint(0, 2, (1, 8192, 64), generator=generator).double() * 2 - 1
copies = x_half.expand(8192, 64)  # the same point 8192 times, each with one probe
_, estimates = likelihood.velocity_and_divergence(digit_velocity, copies, half, signs)

jacobian = torch.func.jacrev(lambda x: digit_velocity(x[None], half)[0])(x_half[0])
symmetric = (jacobian + jacobian.T) / 2
expected_spread = (2 * (symmetric.square().sum() - symmetric.diagonal().square().sum())).sqrt()

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "One probe misses the trace by some typical amount. How many probes do we need to come ten times closer?",
    ["10", "as many as dimensions, 64", "100"],
    answer=2,
    because="The variance of an average of K probes is 1/K of that of one, so the spread falls as one over the square root of "
    "K: ten times closer costs a hundred probes. The exact value takes 64 backward passes, which is less.",
)

# %% slideshow={"slide_type": "subslide"}
probes = [1, 4, 16, 64]
averages = {k: estimates.reshape(-1, k).mean(dim=1) for k in probes}
spread = [float(averages[k].std()) for k in probes]
probe_slope = plotting.slope(probes, spread)
bias_in_standard_errors = float((estimates.mean() - exact_trace).abs() / (estimates.std() / math.sqrt(len(estimates))))
print(f"exact {float(exact_trace):.1f}, mean of 8192 estimates {estimates.mean():.1f}, spread of one {spread[0]:.1f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 2, height=3.8)
shown = {"1 probe": averages[1], "16 probes": averages[16]}
colors = {"1 probe": style.MODEL, "16 probes": style.DATA}
plotting.histogram(shown, bins=60, colors=colors, xlabel="estimate of the divergence", ax=axes[0])
axes[0].axvline(float(exact_trace), color=style.EXACT, linestyle="--", label="exact")
axes[0].legend()
plotting.error_against(probes, {"measured": spread}, xlabel="probes K", ylabel="standard deviation", ax=axes[1])
theory = [float(expected_spread) / math.sqrt(k) for k in probes]
axes[1].plot(probes, theory, color=style.EXACT, linestyle="--", label="from the formula")
axes[1].set_yticks([2, 5, 10], ["2", "5", "10"])
axes[1].legend()
figure

# %% [markdown] slideshow={"slide_type": "-"}
# The estimates are centred on the exact trace, and their spread falls like $1/\sqrt K$, as the formula says.

# %% [markdown] slideshow={"slide_type": "subslide"}
# In `log_likelihood(..., divergence="hutchinson", probes=K)` the probes are drawn once and kept for the whole solve, so that
# the solver sees one smooth function of time. The result is a random number around the right one. How large is its spread?

# %% slideshow={"slide_type": "fragment"}
image = images[600:601]
digit_source = sources.Gaussian((64,))
options = {"rtol": 1e-4, "atol": 1e-4}
exact_log_prob = float(likelihood.log_likelihood(digit_velocity, image, digit_source, **options).log_prob)
repeated = likelihood.log_likelihood(
    digit_velocity, image.expand(400, 64), digit_source, divergence="hutchinson", generator=generator, **options
)
hutchinson_error = repeated.log_prob - exact_log_prob
hutchinson_bias = float(hutchinson_error.mean().abs() / (hutchinson_error.std() / math.sqrt(400)))
print(f"log p_1 of one digit: exact {exact_log_prob:.1f} nats")
error_of_average = hutchinson_error.std() / math.sqrt(400)
print(f"one probe, 400 times: mean {repeated.log_prob.mean():.1f}, spread {hutchinson_error.std():.1f} nats")
print(f"so an average over 400 independent probes has a standard error of {error_of_average:.1f} nats")

# %% [markdown] slideshow={"slide_type": "-"}
# One probe for one image is uncertain by the spread. An average over a whole test set is much less so, because each image has its
# own probe. This is how chapter 06 and the papers report likelihoods of images.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 8. Many velocities, one sequence of densities
#
# A velocity determines the densities. Do the densities $p_t$ determine the velocity? Let $v$ carry $p_t$, and add a field
# $w$. The continuity equation still holds if
#
# $$
# \operatorname{div}(p_t\, w) = 0 .
# $$
#
# There are many such $w$. Take $w = J\, \nabla \log p_t$, the score turned by a quarter turn. Then $p_t w = J \nabla p_t =
# (-\partial_2 p_t,\; \partial_1 p_t)$, and its divergence is $-\partial_1 \partial_2 p_t + \partial_2 \partial_1 p_t = 0$. It
# moves particles along the level lines of the density. For a Gaussian with covariance $\sigma^2 I$ it is a rotation.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "We add this field to the velocity of the two moons, at every time. What changes?",
    [
        "the trajectories and the densities for 0 < t < 1, but not the density at t = 1",
        "every trajectory, but no density at any time",
        "nothing: the fields are equal",
    ],
    answer=1,
    because="The continuity equation holds at every time with the same p_t, so the density at each time is the same. A single "
    "particle takes another trajectory and ends elsewhere.",
)


# %% slideshow={"slide_type": "-"}
def swirling(x, t):
    v = right(x, t)
    score = path.velocity_to_score(v, x, t)  # grad log p_t(x), from the velocity
    return v + quarter_turn(score)


swirl_residual = residual(swirling)
print(f"continuity residual with the swirl: {swirl_residual:.0e}")

# %% slideshow={"slide_type": "-"}
swirl_flow = solvers.solve(swirling, noise, times=times)
plain_flow = solvers.solve(right, noise, times=times)
endpoint_distance = (swirl_flow.x - plain_flow.x).norm(dim=1).mean()

with_swirl = likelihood.log_likelihood(swirling, x1, source, rtol=1e-7, atol=1e-7).log_prob
without = likelihood.log_likelihood(right, x1, source, rtol=1e-7, atol=1e-7).log_prob
swirl_density_gap = (with_swirl - without).abs().max()
print(f"log p_1 at 300 points: largest difference {swirl_density_gap:.0e}")
print(f"ends of the same 600 starts: mean distance {endpoint_distance:.2f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 4, height=2.4)
behind = {"limit": 3.2, "points": 81}
for flow, name, (left, middle) in ((plain_flow, "v", axes[:2]), (swirl_flow, "v + w", axes[2:])):
    plotting.trajectories(flow, count=60, limit=3.2, title=f"{name}: trajectories", ax=left)
    plotting.density(lambda x: log_density(x.double(), 1.0), title=f"{name}: ends", ax=middle, **behind)
    middle.scatter(*flow.x.T, s=3, color=style.SOURCE, linewidths=0)
figure

# %% [markdown] slideshow={"slide_type": "-"}
# The trajectories differ, the ends have the same density. So "learn *the* velocity of the data" is not yet a well-posed task:
# infinitely many velocities belong to one sequence $p_t$, and there are many sequences between noise and data. Maximum
# likelihood, next, asks only for the right $p_1$ and leaves the rest to the network and its initial weights. Flow matching
# chooses the sequence $p_t$ first.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 9. What it costs to learn a flow by maximum likelihood
#
# Let $v_\theta$ be a network with weights $\theta$. The flow gives every data point a density, so train by maximum
# likelihood: minimize the **negative log-likelihood** (NLL) $-\mathbb{E}[\log p_1(x_1)]$. Nothing is wrong with this
# objective; continuous flows were first trained with it (Chen et al. 2018, Grathwohl et al. 2019). But look at what one update
# has to do: solve the ODE backward, with the divergence at each step, and then differentiate through the whole solve.
#
# Flow matching (Lipman et al. 2023) regresses $v_\theta$ on a known target at *one* random time. There is no solve. How the
# target is found, and why this works, is chapter 03; here we call the function `flow_matching` of section 3 and compare costs.


# %% slideshow={"slide_type": "-"}
def draw_moons(n, generator):
    """Samples of p_1: a point c_i and Gaussian noise of width 0.2."""
    chosen = points[torch.randint(0, len(points), (n,), generator=generator)].float()
    return chosen + 0.2 * torch.randn(n, 2, generator=generator)


def maximum_likelihood(model, x1, generator):
    return -log_prob(model, x1, steps=8).mean()


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "log_prob with 8 midpoint steps, then one update. How many evaluations of the network for each update, and how many "
    "for flow matching?",
    ["8 and 1", "16 and 1", "16 and 8"],
    answer=1,
    because="Midpoint evaluates the network twice per step, flow matching once per update. On top of that, each divergence adds "
    "a backward pass for each dimension, and the gradient of the loss goes back through all of them.",
)


# %% slideshow={"slide_type": "subslide"}
def bill(loss):
    """Evaluations of the network, and floating-point operations, of one update on a batch of 256."""
    generator = torch.Generator().manual_seed(0)
    model, x1 = networks.MLP(2), draw_moons(256, generator)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    with FlopCounterMode(display=False) as counter:
        loss(model, x1, generator).backward()
    return len(calls), counter.get_total_flops()


likelihood_calls, likelihood_flops = bill(maximum_likelihood)
matching_calls, matching_flops = bill(flow_matching)
price = likelihood_flops / matching_flops
print("one update                evaluations   million operations")
print(f"maximum likelihood {likelihood_calls:18d} {likelihood_flops / 1e6:20.0f}")
print(f"flow matching      {matching_calls:18d} {matching_flops / 1e6:20.0f}")
print(f"one update by maximum likelihood costs as much as {price:.1f} by flow matching")

# %% [markdown] slideshow={"slide_type": "-"}
# And 8 midpoint steps are few. A solve to a tolerance of $10^{-5}$ takes more: sampling from a model trained on CIFAR-10 took 142
# evaluations (Lipman et al. 2023, Table 1). Memory grows in the same way, since the backward pass keeps all evaluations.
# (The adjoint method of Chen et al. avoids that, with a second solve.)

# %% [markdown] slideshow={"slide_type": "subslide"}
# What does each objective achieve for the same cost? We train the same network twice, with about the same number of operations.

# %% slideshow={"slide_type": "-"}
fresh = draw_moons(1000, torch.Generator().manual_seed(7))
best_nll = -float(log_density(fresh.double(), 1.0).mean())  # on average no model does better than the true density


def train(loss, measured, lr=3e-2):
    """Train an MLP; returns it with the held-out NLL, in nats, after each of the numbers of updates in `measured`."""
    torch.manual_seed(0)
    model, generator = networks.MLP(2), torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, measured[-1])
    nll = []
    for update in range(1, measured[-1] + 1):
        value = loss(model, draw_moons(256, generator), generator)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        decay.step()
        if update in measured:
            nll.append(-float(likelihood.log_likelihood(model, fresh, source).log_prob.mean()))
    return model, nll


# %% slideshow={"slide_type": "subslide"}
likelihood_updates, matching_updates = [5, 10, 20, 30, 40, 50], [50, 100, 200, 400, 800, 1200, 1600]
by_likelihood, likelihood_nll = train(maximum_likelihood, likelihood_updates)
by_matching, matching_nll = train(flow_matching, matching_updates)
print(f"NLL after 50 updates: maximum likelihood {likelihood_nll[-1]:.2f}, flow matching {matching_nll[0]:.2f} nats")
print(f"at equal operations:  maximum likelihood {likelihood_nll[-1]:.2f}, flow matching {matching_nll[-1]:.2f} nats")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 2, height=3.9, sharey=True)
for updates, nll, flops, name, look in (
    (likelihood_updates, likelihood_nll, likelihood_flops, "maximum likelihood", {"color": style.PATH, "marker": "s"}),
    (matching_updates, matching_nll, matching_flops, "flow matching", {"color": style.MODEL, "marker": "o"}),
):
    axes[0].plot(updates, nll, label=name, **look)
    axes[1].plot(torch.tensor(updates) * flops / 1e9, nll, label=name, **look)
for ax, xlabel in zip(axes, ("updates", "billion floating-point operations"), strict=True):
    ax.axhline(best_nll, color=style.EXACT, linestyle="--", label="true density")
    ax.set(xscale="log", xlabel=xlabel, ylim=(1.9, 2.9))
axes[0].set_ylabel("NLL on held-out points (nats)")
axes[0].legend(loc="upper right")
figure

# %% [markdown] slideshow={"slide_type": "-"}
# Left: after 50 *updates* each, maximum likelihood is ahead; it minimizes the very number that we measure. Right: for the same
# number of *operations* flow matching is ahead, although it never computes a likelihood. Both use the same learning rate, 0.03.
# And this is the plane, where a likelihood is cheap: for a colour image the exact divergence would take $3 \times 32 \times 32$
# backward passes at each evaluation.

# %% slideshow={"slide_type": "subslide"}
learned_densities, masses = {}, {}
for name, trained in (("maximum likelihood", by_likelihood), ("flow matching", by_matching)):
    values = likelihood.log_likelihood(trained, grid.float(), source, rtol=1e-4, atol=1e-4).log_prob.exp()
    learned_densities[name], masses[name] = values, float(values.sum() * cell_area)
    print(f"{name}: mass on the grid {masses[name]:.3f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 3, height=3.2)
for ax, (name, values) in zip(axes, (learned_densities | {"true density": by_formula}).items(), strict=True):
    picture(values, name, ax)
figure

# %% [markdown] slideshow={"slide_type": "-"}
# Both networks define flows, so both densities have mass 1, however well they were trained: that comes with the ODE. Training
# decides where the mass goes.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you saw

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
returns = returned["dopri5, tolerance 1e-09"], returned["euler, 50 steps"]
early, late = matching_nll[0] - likelihood_nll[-1], likelihood_nll[-1] - matching_nll[-1]
surer = confidence["noise, sphere"][4] - confidence["pixels"][4]
either_way = confidence["noise, sphere"][4] - confidence["noise, straight"][4]
closer = nearest["pixels"][4] - nearest["noise, sphere"][4]
one_probe = spread[0] / float(expected_spread)
euler_over_rk4 = needed[0.01]["euler"] / needed[0.01]["rk4"]
first_rows = [
    Claim("order of Euler's method", orders["euler"], about(1, 0.1), digits=1),
    Claim("order of RK4", orders["rk4"], about(4, 0.1), digits=1),
    Claim("there and back, dopri5 at 1e-9: root mean square gap", returns[0], below(1e-6)),
    Claim("pairs of trajectories of a flow that cross", crossings(line_flow.trajectory), exactly(0), digits=0),
    Claim("midway between two digits: confidence, noise minus pixels", surer, above(0.1)),
    Claim("continuity residual, right field", right_residual, below(1e-4)),
    Claim("continuity residual, equal weights", wrong_residual, above(1), digits=1),
    Claim("log-likelihood of two moons: largest error (nats)", moons_gap, below(1e-4)),
    Claim("NLL after 50 updates each: flow matching minus maximum likelihood (nats)", early, above(0.05)),
    Claim("NLL at equal operations: maximum likelihood minus flow matching (nats)", late, above(0.05)),
]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
motion_rows = [
    Claim("Euler by hand equals solvers.solve: largest difference", euler_gap, below(1e-6)),
    Claim("Euler with 8 steps: mean excess of the radius at the end", outward_drift, above(0.1), digits=2),
    Claim("order of the midpoint method", orders["midpoint"], about(2, 0.1), digits=1),
    Claim("order of Heun's method", orders["heun"], about(2, 0.1), digits=1),
    Claim("error 0.01: NFE of Euler over NFE of RK4", euler_over_rk4, above(20)),
    Claim("error 0.3: NFE of RK4 minus that of midpoint", needed[0.3]["rk4"] - needed[0.3]["midpoint"], exactly(0), 0),
    Claim("error 0.01: NFE of RK4 minus that of midpoint", needed[0.01]["rk4"] - needed[0.01]["midpoint"], below(0), 0),
    Claim("dopri5: factor in NFE from tolerance 1e-4 to 1e-8", tighter_costs, between(2, 6.3)),
    Claim("there and back, 50 Euler steps: root mean square gap", returns[1], above(0.3), digits=1),
    Claim("pairs of straight lines that cross, share", crossings(straight), about(0.5, 0.05), digits=1),
    Claim("digits to noise and back: largest error of a pixel, of its range", inversion_gap, below(1e-3)),
    Claim("midway between two digits: distance to training images, pixels minus noise", closer, above(0.05)),
    Claim("midway, sphere minus straight line in the noise: confidence", either_way, about(0, 0.05)),
    Claim("area against exp of the integrated divergence: relative gap", volume_gap, below(1e-3)),
]
density_rows = [
    Claim(
        "slope of the continuity residual in the distance of the differences", residual_slope, about(2, 0.1), digits=1
    ),
    Claim("density times area along the flow over its start: distance from 1", conservation_gap, below(2e-3)),
    Claim("log-likelihood by hand equals fmcore: largest difference (nats)", likelihood_gap, below(1e-4)),
    Claim("log-likelihood of a Gaussian: largest error (nats)", gaussian_gap, below(1e-4)),
    Claim("mass of the exact flow's density on a grid", mass, about(1, 0.001), digits=2),
]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
cost_rows = [
    Claim("mass of the density learned by maximum likelihood", masses["maximum likelihood"], about(1, 0.02)),
    Claim("mass of the density learned by flow matching", masses["flow matching"], about(1, 0.02)),
    Claim("two velocities, one density: largest difference of log p_1 (nats)", swirl_density_gap, below(1e-3)),
    Claim("and the mean distance between their ends", endpoint_distance, above(1), digits=1),
    Claim("Hutchinson: mean against the trace, in standard errors", bias_in_standard_errors, below(3)),
    Claim("Hutchinson: slope of the spread in the number of probes", probe_slope, about(-0.5, 0.04), digits=1),
    Claim("Hutchinson: spread of one probe over the formula's", one_probe, about(1, 0.04), digits=1),
    Claim("Hutchinson, log-likelihood of a digit: mean against exact, in standard errors", hutchinson_bias, below(3)),
    Claim("network evaluations per update: maximum likelihood", likelihood_calls, exactly(16), digits=0),
    Claim("network evaluations per update: flow matching", matching_calls, exactly(1), digits=0),
    Claim("operations per update: maximum likelihood over flow matching", price, above(30)),
]

# %% slideshow={"slide_type": "-"} tags=["nbval-check-output"]
claims.table(first_rows + motion_rows + density_rows + cost_rows)

# %% [markdown] slideshow={"slide_type": "skip"}
# ## References
#
# - John R. Dormand, Peter J. Prince 1980. A family of embedded Runge-Kutta formulae. *Journal of Computational and Applied
#   Mathematics*. The method `dopri5`.
# - Michael F. Hutchinson 1989. A stochastic estimator of the trace of the influence matrix for Laplacian smoothing splines.
#   *Communications in Statistics: Simulation and Computation*.
# - Ricky T. Q. Chen, Yulia Rubanova, Jesse Bettencourt, David Duvenaud 2018. Neural ordinary differential equations. NeurIPS.
#   arXiv 1806.07366.
# - Will Grathwohl, Ricky T. Q. Chen, Jesse Bettencourt, Ilya Sutskever, David Duvenaud 2019. FFJORD: free-form continuous
#   dynamics for scalable reversible generative models. ICLR. arXiv 1810.01367.
# - Yaron Lipman, Ricky T. Q. Chen, Heli Ben-Hamu, Maximilian Nickel, Matt Le 2023. Flow matching for generative modeling. ICLR.
#   arXiv 2210.02747.
#
# Where to read on: Ernst Hairer, Syvert P. Nørsett, Gerhard Wanner 1993, *Solving ordinary differential equations I* (Springer), on
# Euler's method, other solvers and their order; George Papamakarios and others 2021, Normalizing flows for probabilistic modeling and inference,
# *Journal of Machine Learning Research*, arXiv 1912.02762, on flows of all kinds.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# Open [exercises/02_flows.ipynb](exercises/02_flows.ipynb). Each exercise has a check that says what is wrong.
#
# 1. **A method that has lost an order.** Mend a version of Heun's method that has order 1 on the whirl.
# 2. **The divergence of a radial field.** With a pencil, in any number of dimensions.
# 3. **A density whose mass is not one.** Find two faults in a change of variables without an ODE.
# 4. **A motion that leaves a Gaussian unchanged.** Find $w$ with $\operatorname{div}(p\, w) = 0$ for any covariance.
# 5. **The spread of Hutchinson's estimate.** Prove the formula of section 7.
# 6. **Does a high order survive a kink?** Measure it on velocities that are not smooth.
#
# <!-- next: written by fmcore.course.build -->
#
# Next: [03 Flow matching](03_flow_matching.ipynb). Why does regression on single pairs learn the velocity of all of them?
#
# <!-- end of next -->
