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
# Put a speck of dust at every point of the plane and let a wind blow for one unit of time. Each speck ends somewhere. The
# map from where a speck starts to where it ends is a **flow**. If the specks start as noise and the wind is the right one,
# they end as data.
#
# This chapter follows the specks: how to compute their way, why it can be undone, what happens to areas and to densities,
# and what it costs to learn the wind from data by maximum likelihood. That cost is the reason for flow matching.

# %% slideshow={"slide_type": "skip"}
import math

import torch
from torch.utils.flop_counter import FlopCounterMode

from fmcore import closed_form, data, likelihood, losses, networks, paths, solvers, sources
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
        "test whether a velocity field carries a given density, with the continuity equation",
        "compute the density that a flow gives to a point, exactly and by Hutchinson's estimate",
        "say why training a flow by maximum likelihood is expensive",
    ],
    before=["chapter 00", "derivatives of several variables", "autograd in PyTorch"],
    exercises=[
        "1. Heun's method and its order",
        "2. the divergence of a velocity",
        "3. density under an invertible map",
        "4. a motion that leaves a Gaussian unchanged",
        "5. Hutchinson's estimate and its spread",
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
# Our first field, the *whirl*, is one that we can solve with a pencil. Write $Jx$ for $x$ turned by a quarter turn,
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
    t = torch.as_tensor(t, dtype=x.dtype).reshape(-1, 1)  # () or (B,) becomes a column, one time a row
    square = x.square().sum(dim=1, keepdim=True)
    return 2 * (4 - square) / (4 + square) * x + 4 * t * quarter_turn(x)


# %% [markdown] slideshow={"slide_type": "subslide"}
# In polar coordinates the two terms separate: $\dot r = 2 r (4 - r^2) / (4 + r^2)$ and $\dot\theta = 4t$, where the dot is
# the derivative in $t$. The angle is $\theta_t = \theta_0 + 2 t^2$. For the radius put $q = 2/r - r/2$, which is 0 on the
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

h = 1e-5  # does the formula obey the ODE? a central difference in time, against the velocity
derivative = (whirl_exact(x0, 0.6 + h) - whirl_exact(x0, 0.6 - h)) / (2 * h)
formula_error = (derivative - whirl(whirl_exact(x0, 0.6), 0.6)).abs().max()
assert formula_error < 1e-7

# %% slideshow={"slide_type": "subslide"}
times = torch.linspace(0, 1, 101)
flow = solvers.solve(whirl, x0, times=times, rtol=1e-9, atol=1e-9)

figure, axes = plotting.canvas(1, 3, height=3.2)
for t, ax in zip((0.0, 1.0), axes[:2], strict=True):
    plotting.field(whirl, t, limit=2.7, points=15, title=f"velocity at t = {t:.0f}", ax=ax)
plotting.trajectories(flow, count=70, limit=2.7, title="trajectories", ax=axes[2])
figure

# %% [markdown] slideshow={"slide_type": "-"}
# Left and middle: the velocity, longer arrows where it is faster (each panel has its own scale). Right: each line is a
# trajectory, coloured by time, from its start (orange) to its end (indigo). A round cloud becomes a ring.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Ten lines that solve an ODE
#
# Few fields can be solved with a pencil. **Euler's method** needs only values of $v$: keep the velocity fixed for a short
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

# %% [markdown] slideshow={"slide_type": "-"}
# The same numbers. `solvers.solve` also counts the evaluations of the velocity, the **NFE** (number of function
# evaluations), which is what a sample costs when the velocity is a large network: here `by_fmcore.nfe` is 50.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
predict.ask(
    "The whirl turns points about the origin. Euler goes straight for a while, then looks again. With 8 steps, where do "
    "the points end, compared with the exact flow?",
    ["too far inside", "at the right radius, but turned by a wrong angle", "too far outside"],
    answer=2,
    because="A straight step along a circle leaves the circle on its outer side, at every step. Points far out are pulled "
    "back, but with 8 steps not enough. Look at the dots in the next figure.",
)


# %% slideshow={"slide_type": "fragment"}
def rms(difference):
    """Root mean square length of the rows."""
    return float(difference.square().sum(dim=1).mean().sqrt())


def compare_with_exact(nfe, method):
    """A fixed-step method from 12 starts, with the exact trajectories behind it."""
    steps = nfe // {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}[method]
    angles = torch.arange(12, dtype=torch.float64) * (math.pi / 6)
    starts = torch.stack([angles.cos(), angles.sin()], dim=1)
    found = solvers.solve(whirl, starts, method=method, times=torch.linspace(0, 1, steps + 1))
    figure, ax = plotting.canvas(width=5.0, height=5.0)
    exact = torch.stack([whirl_exact(starts, float(t)) for t in times])
    for line in exact.unbind(dim=1):
        ax.plot(*line.T, color=style.MUTED, linewidth=3.5, alpha=0.45)
    plotting.trajectories(found, limit=2.9, width=1.6, ends=False, ax=ax)
    marks = found.trajectory.reshape(-1, 2)
    ax.scatter(*marks.T, c=found.times.repeat_interleave(12), cmap=style.time_map(), s=16, zorder=3)
    ax.set_title(f"{method}, {steps} steps, NFE {found.nfe}: error {rms(found.x - exact[-1]):.2g}")
    return figure


compare_with_exact(8, "euler")

# %% slideshow={"slide_type": "-"}
coarse = solvers.solve(whirl, x0, method="euler", steps=8)
outward_drift = (coarse.x.norm(dim=1) - whirl_exact(x0, 1.0).norm(dim=1)).mean()
print(f"8 Euler steps from 200 random points: mean radius too large by {outward_drift:.2f}")

# %% [markdown] slideshow={"slide_type": "skip"}
# Grey: exact. Coloured: the solver, with a dot after each step. Move the sliders: how many evaluations does each method need
# before you cannot see the difference?

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
# $h^p$ has an error of $h^{p+1}$ a step and $h^p$ at the end: it has **order** $p$, and half the step divides its error by
# $2^p$.

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
plotting.error_against(steps, errors, ylabel="root mean square error at t = 1")

# %% [markdown] slideshow={"slide_type": "-"}
# Midpoint and Heun lie on each other: they have the same order and cost, and on this field nearly the same constant. The
# slopes are $-1, -2, -2, -4$ up to a few hundredths. If you write a solver, draw this figure: most mistakes show as a wrong slope.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### What a given error costs
#
# RK4 pays four evaluations per step. Is that worth it? Take NFE as the axis, and add `dopri5`. It gets no number of steps
# but **tolerances** `rtol` and `atol`: it estimates its error in each step, and makes the step shorter if the estimate is larger
# than the tolerance. Steps that are rejected were paid for, and `nfe` counts them.

# %% slideshow={"slide_type": "-"}
tolerances = [10.0**-k for k in range(2, 10)]
adaptive = [solvers.solve(whirl, x0, rtol=tol, atol=tol) for tol in tolerances]
adaptive_nfe = [solution.nfe for solution in adaptive]
adaptive_error = [rms(solution.x - truth) for solution in adaptive]

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
tighter_costs = adaptive_nfe[6] / adaptive_nfe[2]  # tolerance 1e-8 against 1e-4
figure

# %% [markdown] slideshow={"slide_type": "-"}
# The error estimate in a step of `dopri5` is of order $h^5$, so for small tolerances $\tau$ the step is proportional to
# $\tau^{1/5}$ and NFE to $\tau^{-1/5}$. From $10^{-4}$ to $10^{-8}$ that is a factor of 6.3; the figure shows about 3.5, because
# the steps are not small yet. Either way, accuracy is cheap here: ten thousand times for a few times the price. Note that the
# tolerance is a limit for each step and not for the end, where the error may be larger.


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
figure, axes = plotting.canvas(1, 2, height=2.4)
for (goal, nfe), ax in zip(needed.items(), axes, strict=True):
    plotting.bars(nfe, digits=0, xlabel="NFE", title=f"for an error of {goal}", ax=ax)
figure

# %% [markdown] slideshow={"slide_type": "-"}
# There is no best solver, only a best one for an error. For a rough answer order 2 is as cheap as order 4; for a finer one the
# higher order wins, and `dopri5` for the finest. Euler is never the cheapest here. But it can take a single step for a single
# evaluation, and if trajectories were straight lines at constant speed, this one step would be exact: chapter 05.

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
# So every data point has its own noise, and nothing is lost on the way.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "We run the whirl forward with 50 Euler steps, then backward with 50 Euler steps. Are we back at the start?",
    ["yes: the flow is invertible", "no: Euler backward does not undo Euler forward"],
    answer=1,
    because="The exact flow is invertible, but Euler's map is only near it. Forward, a step uses the velocity where it "
    "starts; backward, the velocity at the other end. The gap shrinks with the step, as fast as the order says.",
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
# The flow comes back as well as the solver is exact, and no better. An inversion with a few Euler steps is not an inversion.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Never crossing, seen in one dimension
#
# In the figure of the whirl lines do cross: two points pass the same place at *different* times. With one dimension of space
# we can draw time as a second axis, and then they may not. Here is a flow from a Gaussian to three narrow bumps. Its velocity
# comes from `closed_form`; section 5 shows how to test such a velocity.

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


# %% slideshow={"slide_type": "subslide"}
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
# Colour is the rank at the start. Both pictures carry the same Gaussian to the same three bumps. On the left the order is kept
# for ever; on the right half of all pairs cross. Where two lines cross, one place and time would need two velocities: **no
# velocity field has these lines as its trajectories.** Keep the picture on the right in mind. Chapter 03 trains on such lines
# and gets a flow like the one on the left.

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
# For the whirl, write $s = \|x\|^2 / 4$. Differentiate the first term, and note that the turning term has no divergence (a turn
# moves area without changing it):
#
# $$
# \operatorname{div} v = 4\, \frac{1 - 2s - s^2}{(1 + s)^2} , \qquad \text{positive for } \|x\| < 2 \sqrt{\sqrt 2 - 1} \approx 1.29 .
# $$
#
# No need to trust a pencil: autograd gives one row of the Jacobian with each backward pass. (`create_graph=True` keeps the result
# differentiable, which section 9 will need.)


# %% slideshow={"slide_type": "-"}
def divergence(velocity, x, t):
    """v(x, t) and its divergence (B,): one backward pass for each dimension; x must require a gradient."""
    v = velocity(x, t)
    rows = [torch.autograd.grad(v[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(x.shape[1])]
    return v, torch.stack(rows).sum(dim=0)


s = x0.square().sum(dim=1) / 4
by_pencil = 4 * (1 - 2 * s - s**2) / (1 + s) ** 2
_, by_autograd = divergence(whirl, x0.clone().requires_grad_(), 0.6)
assert torch.allclose(by_pencil, by_autograd)

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
predict.ask(
    "Three small squares ride on the whirl. They start at distance 0.5, 1.9 and 2.5 from the origin. Which of them grow?",
    [
        "only the first",
        "the first two: both are inside the circle of radius 2",
        "all three: they are drawn out along the ring",
    ],
    answer=0,
    because="The divergence is positive only inside distance 1.29. The second square moves outward and still shrinks: it is "
    "squeezed between those behind it and the ring.",
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


# %% slideshow={"slide_type": "subslide"}
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

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 5. The continuity equation
#
# Now fill the plane with specks, with a density $p_0(x)$, and let them flow. What is their density $p_t(x)$ at a later time?
# Specks are neither made nor lost. In one dimension, the mass between $a$ and $b$ changes only by what flows in at $a$ and
# out at $b$:
#
# $$
# \frac{d}{dt} \int_a^b p_t(x)\, dx = p_t(a)\, v(a, t) - p_t(b)\, v(b, t) .
# $$
#
# Take the derivative in $b$, and do the same along each axis of $\mathbb{R}^d$. The result is the **continuity equation**:
#
# $$
# \frac{\partial p_t}{\partial t} + \operatorname{div}(p_t\, v) = 0 .
# $$
#
# For smooth $p$ and $v$ it says everything about which velocities belong to which densities: $v$ carries $p_0$ into $p_t$ for
# every $t$ exactly when it holds.

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
# And the velocity? `closed_form.EmpiricalVelocity` is a candidate. It gives each of the 48 Gaussians its own velocity, the one
# that moves and shrinks it, and averages these 48 with weights: the probability that a speck at $x$ belongs to Gaussian $i$.
# Chapter 03 derives it. Here we only ask whether it passes the test.

# %% slideshow={"slide_type": "-"}
right = closed_form.EmpiricalVelocity(points, path)
noise = torch.randn(600, 2, generator=generator, dtype=torch.float64)
moons_flow = solvers.solve(right, noise, times=times)

figure, axes = plotting.canvas(1, 5, height=2.0)
for t, ax in zip((0.0, 0.25, 0.5, 0.75, 1.0), axes, strict=True):
    plotting.density(lambda x, t=t: log_density(x.double(), t), limit=3.2, points=81, title=f"t = {t:g}", ax=ax)
    ax.scatter(*moons_flow.trajectory[round(100 * t)].T, s=2, color=style.SOURCE, linewidths=0)
figure

# %% [markdown] slideshow={"slide_type": "-"}
# Shades: the formula for $p_t$. Dots: samples of $p_0$ that `solve` carried with the velocity. They stay on the shades. That is a
# good sign, but no test: the eye forgives much. The continuity equation does not.


# %% slideshow={"slide_type": "subslide"}
def continuity(density, velocity, x, t, h=1e-3):
    """dp/dt and div(p v) at points x, by central differences with distance h."""
    change = (density(x, t + h) - density(x, t - h)) / (2 * h)
    outflow = torch.zeros_like(change)
    for i in range(x.shape[1]):
        shift = torch.zeros(x.shape[1], dtype=x.dtype)
        shift[i] = h
        ahead, behind = x + shift, x - shift
        outflow += density(ahead, t) * velocity(ahead, t)[:, i] / (2 * h)
        outflow -= density(behind, t) * velocity(behind, t)[:, i] / (2 * h)
    return change, outflow


def residual(velocity, t=0.6, h=1e-3):
    """Largest |dp/dt + div(p v)| on a grid, as a share of the largest |dp/dt|."""
    change, outflow = continuity(density, velocity, plotting.grid(3.2, 61).double(), t, h)
    return float((change + outflow).abs().max() / change.abs().max())


# %% [markdown] slideshow={"slide_type": "subslide"}
# To see that the test can fail, we need a wrong field. A tempting one: the same 48 velocities, averaged with *equal* weights.


# %% slideshow={"slide_type": "-"}
def equal_weights(x, t):
    """The plain average of the 48 velocities. Each is linear in its c_i: the average is that of the mean."""
    return path.velocity(x, points.mean(dim=0).expand(len(x), 2), t)


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Each of the 48 velocities carries its own Gaussian correctly. Does their plain average carry the average of the "
    "Gaussians?",
    ["yes: the continuity equation is linear", "no"],
    answer=1,
    because="The equation is linear in the product p v, not in v. Adding the 48 equations gives the flux, the sum of "
    "p_i v_i, and the velocity is this sum divided by the sum of the p_i: an average with weights p_i.",
)

# %% slideshow={"slide_type": "subslide"}
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
right_residual, wrong_residual = residual(right), residual(equal_weights)
print("largest residual as a share of the largest |dp/dt|:")
print(f"right {right_residual:.0e}, equal weights {wrong_residual:.1f}")
figure

# %% [markdown] slideshow={"slide_type": "-"}
# Is the upper residual zero, or only small? A central difference with distance $h$ has an error of order $h^2$. If that is all
# there is, then the residual must fall with slope 2 when $h$ does; a residual of the field itself would stay where it is.

# %% slideshow={"slide_type": "fragment"}
distances = [3e-2, 1e-2, 3e-3, 1e-3]
curves = {
    "right": [residual(right, h=h) for h in distances],
    "equal weights": [residual(equal_weights, h=h) for h in distances],
}
residual_slope = plotting.slope(distances, curves["right"])
colors = {"right": style.EXACT, "equal weights": style.BAD}
labels = {"xlabel": "distance h", "ylabel": "relative residual"}
print(f"slope of the right field's residual: {residual_slope:.2f}")
plotting.curves(distances, curves, log="xy", markers=True, colors=colors, **labels)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 6. The density that a flow gives to a point
#
# In the continuity equation, expand $\operatorname{div}(p_t v) = v \cdot \nabla p_t + p_t \operatorname{div} v$ and divide by
# $p_t$. On the left is then the change of $\log p_t$ *for a speck that moves along*:
#
# $$
# \frac{d}{dt} \log p_t(x_t) = \frac{\partial \log p_t}{\partial t} + v \cdot \nabla \log p_t = - \operatorname{div} v(x_t, t) .
# $$
#
# Section 4 again: where a small square grows, its specks thin out, and density times area stays the same. To get the
# density at a data point $x_1$, run the flow back to $x_0 = \phi_1^{-1}(x_1)$ and add up the divergence on the way:
#
# $$
# \log p_1(x_1) = \log p_0(x_0) - \int_0^1 \operatorname{div} v(x_t, t)\, dt .
# $$
#
# This is the **change of variables** for flows. It needs the velocity, not the densities in between.

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
# The flow knows its density everywhere, to any precision one pays for. So we can draw it: no samples, no histogram. A density
# must have mass 1, and that is a test too.

# %% slideshow={"slide_type": "subslide"}
side = 81
grid = plotting.grid(3.2, side).double()
cell_area = (6.4 / (side - 1)) ** 2


def picture(values, title, ax, low=0.0, high=0.5, colors=None):
    """Values on the grid as an image."""
    look = {"origin": "lower", "cmap": colors or style.density_map(), "interpolation": "bilinear"}
    ax.imshow(values.reshape(side, side), vmin=low, vmax=high, **look)
    style.blank(ax).set_title(title)


by_flow = likelihood.log_likelihood(right, grid, source).log_prob.exp()
by_formula = density(grid, 1.0)
mass = float(by_flow.sum() * cell_area)

figure, axes = plotting.canvas(1, 3, height=3.2)
picture(by_flow, "from the flow", axes[0])
picture(by_formula, "from the formula", axes[1])
picture(1e5 * (by_flow - by_formula), "difference x 100,000", axes[2], low=-0.5, colors="PuOr")
print(f"mass of the flow's density on the grid: {mass:.4f}")
figure


# %% [markdown] slideshow={"slide_type": "slide"}
# ### Density times area
#
# One picture for sections 4 to 6: a patch of specks on its way, over the density. Move the time.

# %% slideshow={"slide_type": "-"}
PATCHES = {"left": (-0.9, 0.3), "middle": (0.1, 0.1), "far out": (1.4, -1.5)}


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

# %% slideshow={"slide_type": "subslide"}
widgets.explore(
    follow_patch,
    t=widgets.slider(0, 1, step=0.05, value=0.5, label="time t"),
    start=widgets.choice(list(PATCHES)),
)

# %% slideshow={"slide_type": "-"}
patches = torch.tensor(list(PATCHES.values()), dtype=torch.float64)
ride = torch.cat([patches, (patches[:, None] + 0.005 * corners).reshape(-1, 2)])
arrived = solvers.solve(right, ride, rtol=1e-9, atol=1e-9).x
growth = shoelace(arrived[3:].reshape(3, 4, 2)) / shoelace(ride[3:].reshape(3, 4, 2))
conservation_gap = (growth * density(arrived[:3], 1.0) / density(patches, 0.0) - 1).abs().max()
print(f"three patches, t = 1: the product is 1 up to {conservation_gap:.0e}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 7. The divergence in many dimensions
#
# The exact divergence needs one backward pass for each dimension: 2 for the plane, 64 for an image of 8 x 8 pixels, 3,072 for
# a small colour image, and all of them at every evaluation of the velocity. **Hutchinson's estimate** needs one. Draw a probe
# $\varepsilon \in \mathbb{R}^d$ whose entries are independent signs $\pm 1$, so $\mathbb{E}[\varepsilon_i \varepsilon_j]$
# is 1 for $i = j$ and 0 otherwise. For any matrix $A$,
#
# $$
# \mathbb{E}\big[ \varepsilon^{\top} A\, \varepsilon \big] = \sum_{i, j} A_{ij}\, \mathbb{E}[\varepsilon_i \varepsilon_j] = \sum_i A_{ii} = \operatorname{tr} A .
# $$
#
# With $A = \partial v / \partial x$, the product $\varepsilon^{\top} A$ is one backward pass. The estimate is unbiased: right
# on average. How far off is a single one? Its variance is
#
# $$
# \operatorname{Var}\big[ \varepsilon^{\top} A\, \varepsilon \big] = 2 \sum_{i \ne j} S_{ij}^2, \qquad S = \tfrac12 (A + A^{\top}),
# $$
#
# and the average of $K$ probes has $1/K$ of it.

# %% [markdown] slideshow={"slide_type": "subslide"}
# We try it on real data: handwritten digits, $d = 64$. The velocity is again the exact one, now for a Gaussian of width 0.3
# around each of 500 images, and we look at one noisy image halfway.

# %% slideshow={"slide_type": "-"}
digits = data.digits()
images = digits.scaled(digits.train).flatten(1).double()  # (1500, 64) in (-1, 1)
digit_path = paths.ot(sigma_min=0.3)
digit_velocity = closed_form.EmpiricalVelocity(images[:500], digit_path)
half = torch.tensor(0.5)
x_half = digit_path.interpolate(torch.randn(1, 64, generator=generator, dtype=torch.float64), images[600:601], half)

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
    "K: ten times closer costs a hundred probes. That is more than 64, which give the exact value.",
)

# %% slideshow={"slide_type": "subslide"}
probes = [1, 4, 16, 64]
averages = {k: estimates.reshape(-1, k).mean(dim=1) for k in probes}
spread = [float(averages[k].std()) for k in probes]
probe_slope = plotting.slope(probes, spread)
bias_in_standard_errors = float((estimates.mean() - exact_trace).abs() / (estimates.std() / math.sqrt(len(estimates))))

figure, axes = plotting.canvas(1, 2, height=3.8)
shown = {"1 probe": averages[1], "16 probes": averages[16]}
colors = {"1 probe": style.MUTED, "16 probes": style.MODEL}
plotting.histogram(shown, bins=60, colors=colors, xlabel="estimate of the divergence", ax=axes[0])
axes[0].axvline(float(exact_trace), color=style.EXACT, linestyle="--", label="exact")
axes[0].legend()
plotting.error_against(probes, {"measured": spread}, xlabel="probes K", ylabel="standard deviation", ax=axes[1])
theory = [float(expected_spread) / math.sqrt(k) for k in probes]
axes[1].plot(probes, theory, color=style.EXACT, linestyle="--", label="from the formula")
axes[1].set_yticks([2, 5, 10], ["2", "5", "10"])
axes[1].legend()
print(f"exact {float(exact_trace):.1f}, mean of 8192 estimates {estimates.mean():.1f}, spread of one {spread[0]:.1f}")
figure

# %% [markdown] slideshow={"slide_type": "-"}
# In `log_likelihood(..., divergence="hutchinson", probes=K)` the probes are drawn once and kept for the whole solve, so that
# the solver sees one smooth function of time. The result is a random number around the right one. How far around?

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
print(f"one probe, 400 times: mean {repeated.log_prob.mean():.1f}, spread {hutchinson_error.std():.1f} nats")

# %% [markdown] slideshow={"slide_type": "-"}
# A single estimate for a single image is poor; an average over many images is good, because their probes are independent.
# This is how chapter 06 and the papers report likelihoods of images.

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
# moves specks along the level lines of the density, where there are equally many before and behind. For a Gaussian with
# covariance $\sigma^2 I$ it is a rotation.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "We add this field to the velocity of the two moons, at every time. What changes?",
    [
        "the trajectories and the densities on the way, but not the density at t = 1",
        "every trajectory, but no density at any time",
        "nothing: the fields are equal",
    ],
    answer=1,
    because="The continuity equation holds at every time with the same p_t, so all marginals are the same. Each single speck "
    "goes another way and ends elsewhere; only the crowd looks the same.",
)


# %% slideshow={"slide_type": "-"}
def swirling(x, t):
    v = right(x, t)
    score = path.velocity_to_score(v, x, t)  # grad log p_t(x), from the velocity
    return v + quarter_turn(score)


swirl_residual = residual(swirling)
swirl_flow = solvers.solve(swirling, noise, times=times)
plain_flow = solvers.solve(right, noise, times=times)
endpoint_distance = (swirl_flow.x - plain_flow.x).norm(dim=1).mean()

with_swirl = likelihood.log_likelihood(swirling, x1, source, rtol=1e-7, atol=1e-7).log_prob
without = likelihood.log_likelihood(right, x1, source, rtol=1e-7, atol=1e-7).log_prob
swirl_density_gap = (with_swirl - without).abs().max()
print(f"continuity residual with the swirl: {swirl_residual:.0e}")
print(f"log p_1 at 300 points: largest difference {swirl_density_gap:.0e}")
print(f"ends of the same 600 starts: mean distance {endpoint_distance:.2f}")

# %% slideshow={"slide_type": "subslide"}
figure, axes = plotting.canvas(1, 4, height=2.4)
behind = {"limit": 3.2, "points": 81}
for flow, name, (left, middle) in ((plain_flow, "v", axes[:2]), (swirl_flow, "v + w", axes[2:])):
    plotting.trajectories(flow, count=60, limit=3.2, title=f"{name}: trajectories", ax=left)
    plotting.density(lambda x: log_density(x.double(), 1.0), title=f"{name}: ends", ax=middle, **behind)
    middle.scatter(*flow.x.T, s=3, color=style.SOURCE, linewidths=0)
figure

# %% [markdown] slideshow={"slide_type": "-"}
# So "learn *the* velocity of the data" is not a task yet: there are infinitely many, even for one sequence $p_t$, and there
# are many sequences between noise and data. Somebody has to choose. Maximum likelihood, next, asks only for the right $p_1$ and
# leaves the rest to the network and its first weights. Flow matching chooses a path first.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 9. What it costs to learn a flow by maximum likelihood
#
# Let $v_\theta$ be a network with weights $\theta$. The flow gives every data point a density, so train by maximum
# likelihood: minimize the **negative log-likelihood** (NLL) $-\mathbb{E}[\log p_1(x_1)]$. Nothing is wrong with this
# objective; it was how continuous flows were trained at first (Chen et al. 2018). But look at what one update has to do:
# solve the ODE backward, with the divergence at each step, and then differentiate through all of it.
#
# Flow matching regresses $v_\theta$ on a known target at *one* random time. There is no solve. How the target is found, and
# why this works, is chapter 03; here we call it as a function and compare the bills.


# %% slideshow={"slide_type": "-"}
def draw_moons(n, generator):
    """Samples of p_1: a point c_i and Gaussian noise of width 0.2."""
    chosen = points[torch.randint(0, len(points), (n,), generator=generator)].float()
    return chosen + 0.2 * torch.randn(n, 2, generator=generator)


def maximum_likelihood(model, x1, generator):
    return -log_prob(model, x1, steps=8).mean()


def flow_matching(model, x1, generator):
    noise = torch.randn(x1.shape, generator=generator)
    return losses.conditional_flow_matching(model, paths.rectified(), noise, x1, generator=generator)


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "log_prob with 8 midpoint steps, then one update. How many evaluations of the network for each update, and how many "
    "for flow matching?",
    ["8 and 1", "16 and 1", "16 and 8"],
    answer=1,
    because="Midpoint evaluates twice a step. And that is not all: each divergence adds a backward pass for each dimension, and "
    "the gradient of the loss goes back through all of them.",
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

# %% [markdown] slideshow={"slide_type": "-"}
# An update by maximum likelihood costs as much as 32 by flow matching, and 8 midpoint steps are few. A solve to a tolerance
# of $10^{-5}$ takes more: sampling from a model trained on CIFAR-10 took 142 evaluations (Lipman et al. 2023, Table 1).
# Memory grows alike: all evaluations are kept for the backward pass.
#
# What does each buy? We train the same network twice, with the same number of operations.

# %% slideshow={"slide_type": "-"}
held_out = draw_moons(1000, torch.Generator().manual_seed(7))
best_nll = -float(log_density(held_out.double(), 1.0).mean())  # nobody can do better than the true density


def train(loss, updates, every, lr=3e-2):
    """Train an MLP; returns it with the updates made and the held-out NLL then, in nats."""
    torch.manual_seed(0)
    model, generator = networks.MLP(2), torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    made, nll = [], []
    for update in range(1, updates + 1):
        value = loss(model, draw_moons(256, generator), generator)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        decay.step()
        if update % every == 0:
            made.append(update)
            nll.append(-float(likelihood.log_likelihood(model, held_out, source).log_prob.mean()))
    return model, torch.tensor(made), nll


# %% slideshow={"slide_type": "subslide"}
by_likelihood, likelihood_updates, likelihood_nll = train(maximum_likelihood, 50, every=5)
by_matching, matching_updates, matching_nll = train(flow_matching, 1600, every=50)

figure, axes = plotting.canvas(1, 2, height=3.9, sharey=True)
for updates, nll, flops, name, color in (
    (likelihood_updates, likelihood_nll, likelihood_flops, "maximum likelihood", style.PATH),
    (matching_updates, matching_nll, matching_flops, "flow matching", style.MODEL),
):
    axes[0].plot(updates, nll, color=color, label=name)
    axes[1].plot(updates * flops / 1e9, nll, color=color, label=name)
for ax, xlabel in zip(axes, ("updates", "billion floating-point operations"), strict=True):
    ax.axhline(best_nll, color=style.EXACT, linestyle="--", label="true density")
    ax.set(xscale="log", xlabel=xlabel, ylim=(1.9, 2.9))
axes[0].set_ylabel("NLL on held-out points (nats)")
axes[0].legend(loc="upper right")
print(f"after 50 updates: maximum likelihood {likelihood_nll[-1]:.2f}, flow matching {matching_nll[0]:.2f} nats")
print(f"at equal operations: maximum likelihood {likelihood_nll[-1]:.2f}, flow matching {matching_nll[-1]:.2f} nats")
figure

# %% [markdown] slideshow={"slide_type": "-"}
# Left: *update by update* maximum likelihood is ahead, because it minimizes the very number we measure. Right: *operation by
# operation* flow matching is, although it never computes a likelihood. (In a small search over learning rates, none was clearly
# better than 0.03 for either.) This is the plane, where a likelihood is cheap. In 3,072 dimensions the exact divergence is out
# of the question, its estimate adds noise, and a solve takes a hundred evaluations.

# %% slideshow={"slide_type": "subslide"}
figure, axes = plotting.canvas(1, 3, height=3.2)
masses = {}
models = {"maximum likelihood": by_likelihood, "flow matching": by_matching}
for ax, (name, model) in zip(axes[:2], models.items(), strict=True):
    values = likelihood.log_likelihood(model, grid.float(), source, rtol=1e-4, atol=1e-4).log_prob.exp()
    masses[name] = float(values.sum() * cell_area)
    picture(values, name, ax)
picture(by_formula, "true density", axes[2])
print("mass on the grid:", ", ".join(f"{name} {mass:.3f}" for name, mass in masses.items()))
figure

# %% [markdown] slideshow={"slide_type": "-"}
# Both networks are flows, so both have a density with mass 1: it is not a property of good training. That they are invertible
# and have an exact likelihood comes with the ODE. What training decides is where the mass goes.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you saw

# %% slideshow={"slide_type": "-"} tags=["nbval-check-output"]
cost = needed[0.01]["euler"] / needed[0.01]["rk4"]
returns = returned["dopri5, tolerance 1e-09"], returned["euler, 50 steps"]
claims.table(
    [
        Claim("Euler by hand equals solvers.solve: largest difference", euler_gap, below(1e-6)),
        Claim("Euler with 8 steps ends outside the exact flow: mean excess of the radius", outward_drift, above(0.1)),
        Claim("order of Euler", orders["euler"], about(1, 0.1), digits=1),
        Claim("order of the midpoint method", orders["midpoint"], about(2, 0.1), digits=1),
        Claim("order of Heun's method", orders["heun"], about(2, 0.1), digits=1),
        Claim("order of RK4", orders["rk4"], about(4, 0.1), digits=1),
        Claim("error 0.01: NFE of Euler over NFE of RK4", cost, above(20)),
        Claim("dopri5: factor in NFE from tolerance 1e-4 to 1e-8", tighter_costs, between(2, 6.3)),
        Claim("there and back, dopri5 at 1e-9: root mean square gap", returns[0], below(1e-6)),
        Claim("there and back, 50 Euler steps: root mean square gap", returns[1], above(0.3)),
        Claim("pairs of trajectories of a flow that cross", crossings(line_flow.trajectory), exactly(0), digits=0),
        Claim("pairs of straight lines that cross, share", crossings(straight), about(0.5, 0.05), digits=1),
        Claim("area against exp of the integrated divergence: relative gap", volume_gap, below(1e-3)),
    ],
    title="What you saw: motion",
)

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
claims.table(
    [
        Claim("continuity residual, right field", right_residual, below(1e-4)),
        Claim("slope of that residual in the distance h", residual_slope, about(2, 0.1), digits=1),
        Claim("continuity residual, equal weights", wrong_residual, above(1)),
        Claim(
            "density times area along the flow, as a multiple of the start: distance from 1",
            conservation_gap,
            below(2e-3),
        ),
        Claim("log-likelihood by hand equals fmcore: largest difference (nats)", likelihood_gap, below(1e-4)),
        Claim("log-likelihood of a Gaussian: largest error (nats)", gaussian_gap, below(1e-4)),
        Claim("log-likelihood of two moons: largest error (nats)", moons_gap, below(1e-4)),
        Claim("mass of the exact flow's density on a grid", mass, about(1, 0.001), digits=2),
        Claim("mass of the learned flow's density on a grid", masses["flow matching"], about(1, 0.02)),
        Claim("two velocities, one density: largest difference of log p_1 (nats)", swirl_density_gap, below(1e-3)),
        Claim("and the mean distance between their ends", endpoint_distance, above(1)),
    ],
    title="What you saw: densities",
)

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
one_probe = spread[0] / float(expected_spread)
early, late = matching_nll[0] - likelihood_nll[-1], likelihood_nll[-1] - matching_nll[-1]
claims.table(
    [
        Claim("Hutchinson: mean against the trace, in standard errors", bias_in_standard_errors, below(3)),
        Claim("Hutchinson: slope of the spread in the number of probes", probe_slope, about(-0.5, 0.04), digits=1),
        Claim("Hutchinson: spread of one probe over the formula's", one_probe, about(1, 0.04), digits=1),
        Claim(
            "log-likelihood of a digit: Hutchinson's mean against exact, in standard errors", hutchinson_bias, below(3)
        ),
        Claim("network evaluations of an update: maximum likelihood", likelihood_calls, exactly(16), digits=0),
        Claim("network evaluations of an update: flow matching", matching_calls, exactly(1), digits=0),
        Claim("operations of an update: maximum likelihood over flow matching", price, above(30)),
        Claim("NLL after 50 updates each: flow matching minus maximum likelihood (nats)", early, above(0.05)),
        Claim("NLL at equal operations: maximum likelihood minus flow matching (nats)", late, above(0.05)),
    ],
    title="What you saw: costs",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# Open [exercises/02_flows.ipynb](exercises/02_flows.ipynb). Each exercise has a check that says what is wrong.
#
# 1. **Heun's method and its order.** Write it, and read its order off the whirl.
# 2. **The divergence of a velocity.** With autograd, in any number of dimensions.
# 3. **Density under an invertible map.** The change of variables without an ODE.
# 4. **A motion that leaves a Gaussian unchanged.** Find $w$ with $\operatorname{div}(p\, w) = 0$ for any covariance.
# 5. **Hutchinson's estimate and its spread.** From probes, and its standard deviation from the Jacobian.
#
# <!-- next: written by fmcore.course.build -->
#
# Next: [03 Flow matching](03_flow_matching.ipynb). Why does regression on single pairs learn the velocity of all of them?
#
# <!-- end of next -->
