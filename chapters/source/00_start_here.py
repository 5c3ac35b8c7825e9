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
# # 00 Start here
#
# A flow carries noise to data. Here you train one in seconds, compare it with the exact answer, and get the map and the
# words of the course.

# %% slideshow={"slide_type": "skip"}
import torch

from fmcore import closed_form, data, losses, networks, paths, solvers
from fmcore.course import card, claims, plotting, predict, style, widgets
from fmcore.course.claims import Claim, above, below, between, exactly

style.use()
torch.set_num_threads(1)  # networks this small gain nothing from a second core

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
card.show(
    "00_start_here",
    goals=[
        "say what a source, a path, a velocity and a solver are",
        "train a flow in the plane and draw samples from it",
        "compare it with the exact velocity of a finite data set",
        "find your way through the course and its words",
    ],
    before=["vectors and derivatives", "a training loop in PyTorch"],
    exercises=[
        "1. a point on the path and its velocity",
        "2. the loss of flow matching",
        "3. an Euler solver",
        "4. the exact velocity",
    ],
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## One idea
#
# A generative model turns random numbers into new examples of something: images, sounds, molecules. A **flow** does it by
# motion. It starts at a random point of a simple distribution, the **source**, and moves the point a little at a time until
# it looks like one of the **data**.
#
# - $t$ is time: $t = 0$ at the source, $t = 1$ at the data;
# - $x_0$ is a point of the source, $x_1$ a point of the data;
# - $v(x, t)$ is the **velocity**: which way, and how fast, a point at place $x$ moves at time $t$.
#
# To sample is to solve one differential equation, starting from $x_0$:
#
# $$
# \frac{dx}{dt} = v(x, t), \qquad t \text{ from } 0 \text{ to } 1 .
# $$

# %% [markdown] slideshow={"slide_type": "subslide"}
# ![Five planes in a row, from t = 0 to t = 1: a round cloud of points becomes two moons, and lines show how each point moves](figures/overview.png)
#
# Nothing in this picture is a sketch: the package computed each point and each line, and you will do the same below.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Source and data
#
# Our data are points of the plane on two moons, our source is a standard Gaussian. Both are tensors of shape $(B, 2)$: $B$
# points with two coordinates. Random numbers come from a generator with a seed, so you will see what is printed here.

# %% slideshow={"slide_type": "-"}
generator = torch.Generator().manual_seed(0)
x1 = data.toy.two_moons(2000, generator)
x0 = torch.randn(2000, 2, generator=generator)

plotting.clouds(source=x0, data=x1, limit=3.6)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A path for each pair
#
# Where should a point be between source and data? Take one $x_0$ and one $x_1$, any two, and join them by a straight line,
#
# $$
# x_t = (1 - t)\, x_0 + t\, x_1 .
# $$
#
# This is the **path** of the pair. Its velocity is the derivative in $t$, which here does not even depend on $t$:
#
# $$
# \frac{d x_t}{dt} = x_1 - x_0 .
# $$

# %% slideshow={"slide_type": "fragment"}
path = paths.rectified()  # the straight line; chapter 04 has others
t = torch.rand(2000, generator=generator)  # each pair has its own time

xt = (1 - t)[:, None] * x0 + t[:, None] * x1
line_error = (xt - path.interpolate(x0, x1, t)).abs().max()
target_error = ((x1 - x0) - path.target(x0, x1, t)).abs().max()
assert line_error < 1e-6
assert target_error < 1e-6

# %% [markdown] slideshow={"slide_type": "subslide"}
# The same velocity can be written without $x_0$. Solve the first equation for $x_0 = (x_t - t\, x_1) / (1 - t)$ and put it
# into $x_1 - x_0$:
#
# $$
# u_t(x_t \mid x_1) = x_1 - \frac{x_t - t\, x_1}{1 - t} = \frac{x_1 - x_t}{1 - t} .
# $$
#
# Read it aloud: *go to $x_1$, and arrive when the time is up.* It is called the **conditional velocity**, because it knows
# the data point $x_1$ where it should end.

# %% slideshow={"slide_type": "fragment"}
by_hand = (x1 - xt) / (1 - t)[:, None]
conditional_error = (by_hand - path.velocity(xt, x1, t)).norm() / by_hand.norm()
assert conditional_error < 1e-5

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A velocity for all pairs
#
# Pairs were joined at random, so their lines cross.

# %% slideshow={"slide_type": "-"}
plotting.pairs(x0[:150], x1[:150], limit=3.6)

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "A network v(x, t) sees a place and a time, and is trained to give the velocity of the pair that passes there. "
    "Two lines cross at one place and time, with different velocities. What does it learn to answer there?",
    [
        "the velocity of the pair that it saw last",
        "the average of the two velocities",
        "nothing useful: the training fails",
    ],
    answer=1,
    because="The number with the smallest mean squared distance to several numbers is their average. So the network "
    "learns the average velocity of all pairs that pass, and the lines that it makes turn where the pairs cross.",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Training
#
# **Flow matching** draws a pair and a time, goes to $x_t$, asks the network for a velocity, and compares it with that of
# the pair. With $v_\theta$ for the network with weights $\theta$, the loss is
#
# $$
# L(\theta) = \mathbb{E}\, \big\| v_\theta(x_t, t) - (x_1 - x_0) \big\|^2 ,
# $$
#
# the mean over pairs and times. In code, the mean also runs over the coordinates.


# %% slideshow={"slide_type": "-"}
def flow_matching_loss(model, x0, x1, t):
    xt = (1 - t)[:, None] * x0 + t[:, None] * x1
    return (model(xt, t) - (x1 - x0)).square().mean()


# %% slideshow={"slide_type": "fragment"}
torch.manual_seed(0)  # the first weights of the network
model = networks.MLP(2, width=64, depth=3)

by_hand = flow_matching_loss(model, x0, x1, t)
loss_error = by_hand - losses.conditional_flow_matching(model, path, x0, x1, t)
assert abs(loss_error) < 1e-5

# %% [markdown] slideshow={"slide_type": "subslide"}
# The network is small: place and time go in, three layers of 64 units, a velocity comes out. Two thousand steps take a few
# seconds, and every step sees new points.

# %% slideshow={"slide_type": "-"}
steps = 2000
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
history = torch.zeros(steps)

for step in range(steps):
    batch = data.toy.two_moons(256, generator)
    noise = torch.randn(256, 2, generator=generator)
    times = torch.rand(256, generator=generator)
    loss = flow_matching_loss(model, noise, batch, times)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    decay.step()
    history[step] = loss.detach()

# %% slideshow={"slide_type": "subslide"}
smooth = history.reshape(-1, 50).mean(1)
seen = torch.arange(len(smooth)) * 50 + 25
figure = plotting.curves(seen, {"loss": smooth}, xlabel="training steps", ylabel="loss")
figure.axes[0].set_ylim(bottom=0)
figure

# %% [markdown] slideshow={"slide_type": "-"}
# The loss falls, then stays well above zero. It must: where lines cross, no single answer fits all of them. What is left
# is the spread of the pairs about their average, not a fault of the network. Below you will see how much better any
# velocity could be.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Sampling
#
# A **solver** follows the velocity from new points of the source, in small steps. The midpoint method asks the network
# twice in each step; the number of network evaluations, **NFE**, is what a sample costs.

# %% slideshow={"slide_type": "-"}
start = torch.randn(1000, 2, generator=generator)
learned = solvers.solve(model, start, method="midpoint", steps=20, times=torch.linspace(0, 1, 21))

figure, axes = plotting.canvas(1, 3)
plotting.clouds(source=start, title="start", limit=3.2, ax=axes[0])
plotting.trajectories(learned, title="on the way", count=250, limit=3.2, ax=axes[1])
plotting.clouds(model=learned.x, behind=x1, title="samples of the model", limit=3.2, ax=axes[2])
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# Compare the middle panel with the pairs above: the lines of the flow bend and do not cross. Each point knows only its
# place and the time, so two points that met would stay together from then on.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "slide"} tags=["hide-input"]
predict.ask(
    "Now a single step: x = x0 + v(x0, 0), one evaluation of the network. Where do the 1000 points land?",
    [
        "on the two moons, a little blurred",
        "nearly all on one point, the mean of the data",
        "where they started",
    ],
    answer=1,
    because="At t = 0 every data point is still possible, whatever x0 is, so the average velocity is the mean of the "
    "data minus x0. One step with it goes from x0 to the mean of the data.",
)

# %% slideshow={"slide_type": "fragment"}
figure, axes = plotting.canvas(1, 4)
for n, ax in zip([1, 2, 4, 16], axes, strict=True):
    few = solvers.solve(model, start, method="euler", steps=n)
    plotting.clouds(model=few.x, behind=x1, title=f"NFE {few.nfe}", limit=3.2, ax=ax)

one_step = solvers.solve(model, start, method="euler", steps=1)
from_mean = (one_step.x - x1.mean(0)).norm(dim=1).mean()
figure

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The exact velocity
#
# The network learned an average over pairs. For a finite data set with points $x^{(1)}, \dots, x^{(n)}$ and a Gaussian
# source this average is known: each data point pulls with its conditional velocity, weighted by how likely it is the one
# that the place $x$ leads to,
#
# $$
# u^*(x, t) = \sum_{i=1}^{n} w_i(x, t)\, \frac{x^{(i)} - x}{1 - t}, \qquad
# w_i(x, t) \propto \exp\!\Big( -\frac{\| x - t\, x^{(i)} \|^2}{2 (1 - t)^2} \Big), \qquad \sum_{i} w_i = 1 .
# $$
#
# It needs no training. In this course it is the oracle: whatever a network, a loss or a solver does, we can compare.
# Chapter 03 derives it; here we only check that the formula is what the package computes.

# %% slideshow={"slide_type": "fragment"}
exact = closed_form.EmpiricalVelocity(x1)

x, half = xt[:100], torch.tensor(0.5)
weights = torch.softmax(-(x[:, None] - half * x1).square().sum(2) / (2 * (1 - half) ** 2), dim=1)
closed_by_hand = weights @ x1 / (1 - half) - x / (1 - half)
closed_error = (closed_by_hand - exact(x, half)).norm() / closed_by_hand.norm()
assert closed_error < 1e-5

# %% [markdown] slideshow={"slide_type": "subslide"}
# No velocity has a smaller loss on these data, when source and time are drawn again and again. On the pairs that we drew
# first, the network is already close to it:

# %% slideshow={"slide_type": "-"}
with torch.no_grad():
    loss_of_model = flow_matching_loss(model, x0, x1, t)
    loss_of_exact = flow_matching_loss(exact, x0, x1, t)

plotting.bars(
    {"v = 0": (x1 - x0).square().mean(), "network": loss_of_model, "exact velocity": loss_of_exact},
    colors={"v = 0": style.MUTED, "network": style.MODEL, "exact velocity": style.EXACT},
    xlabel="loss",
)

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
predict.ask(
    "Where do the samples of the exact velocity end?",
    [
        "between the data points, like new data",
        "on data points that we already have",
        "far from the data: a sum of so many terms is not stable",
    ],
    answer=1,
    because="Near t = 1 one weight is almost 1 and the velocity goes straight to that data point. The exact velocity "
    "copies its data. Chapters 07 and 08 ask why a network trained on the same data does not.",
)


# %% slideshow={"slide_type": "-"}
def to_nearest(x):
    """Distance from each x to the nearest data point."""
    return torch.cdist(x, x1).min(dim=1).values


# The solver stops just before t = 1, where the exact velocity divides by 1 - t = 0.
oracle = solvers.solve(exact, start, t1=0.999, rtol=1e-4, atol=1e-4, times=torch.linspace(0, 0.999, 41))

figure, axes = plotting.canvas(1, 3)
plotting.trajectories(oracle, title="exact velocity", count=250, limit=3.2, ax=axes[0])
plotting.clouds(exact=oracle.x, behind=x1, title="its samples", limit=3.2, ax=axes[1])
plotting.histogram(
    {"exact": to_nearest(oracle.x), "model": to_nearest(learned.x)},
    bins=30,
    range=(0, 0.12),
    xlabel="distance to the nearest data point",
    colors={"exact": style.EXACT, "model": style.MODEL},
    ax=axes[2],
)
figure

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Both, at any time
#
# How near is the network to the oracle? Here are both velocities at one time $t$, with the points of both flows at that
# time. Where there are points they agree. Far away they do not: no pair ever passed there, so nobody told the network.


# %% slideshow={"slide_type": "-"}
def at_time(t):
    """Points of both flows at time t, and their velocities on a grid."""
    figure, axes = plotting.canvas(1, 2, width=7.2)
    panels = (("exact", exact, oracle), ("model", model, learned))
    for (name, velocity, flow), ax in zip(panels, axes, strict=True):
        now = int((flow.times - t).abs().argmin())
        plotting.clouds(**{name: flow.trajectory[now]}, limit=3.2, ax=ax)
        plotting.field(velocity, t, limit=3.2, speed=4.0, title=f"{name}, t = {t:.2f}", ax=ax)
    return figure


at_time(0.7)

# %% [markdown] slideshow={"slide_type": "skip"}
# Move $t$ with the mouse, or select the slider and use the arrow keys. Watch when the two moons separate, and where the two
# velocities disagree.

# %% slideshow={"slide_type": "subslide"}
widgets.explore(at_time, t=widgets.slider(0, 0.95, step=0.05, value=0.5, label="time t"))

# %% slideshow={"slide_type": "skip"}
some_times, disagreement = [0.1, 0.3, 0.5, 0.7, 0.9], []
for time in some_times:
    place = path.interpolate(x0, x1, time)
    difference = model(place, time).detach() - exact(place, time)
    disagreement.append(float(difference.norm() / exact(place, time).norm()))

plotting.curves(
    some_times,
    {"model": disagreement},
    xlabel="time t",
    ylabel="|model - exact| / |exact|",
    colors={"model": style.MODEL},
    markers=True,
)

# %% [markdown] slideshow={"slide_type": "skip"}
# They disagree most near the data. There the exact velocity has the finest detail, the 2,000 points themselves, while the
# network saw new points in every step and knows only their shape.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The map of the course
#
# You have now used every part once. The package has one module for each part, the course takes them in the same order:
#
#     sources + data -> couplings -> paths -> losses -> networks -> training -> solvers -> likelihood -> metrics
#
# | Part | Question | Here it was |
# |---|---|---|
# | sources, data | where does the motion start, where should it end? | a Gaussian, two moons |
# | couplings | which $x_0$ meets which $x_1$? | any, at random |
# | paths | how does a pair get from one to the other? | in a straight line |
# | losses | what is the network compared with? | the velocity of the pair |
# | networks, training | what is fitted, and how? | three layers, Adam |
# | solvers | how is the velocity followed? | 20 midpoint steps |
# | likelihood, metrics | how good is the result? | distance to the nearest data point |

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Chapters
#
# <!-- map: written by fmcore.course.build -->
#
# | Chapter | What it answers |
# |---|---|
# | [01 Diffusion](01_diffusion.ipynb) | How do diffusion models make data from noise, and why is that a flow? |
# | [02 Flows](02_flows.ipynb) | When is a flow invertible, how dense are its samples, how exact is a solver? |
# | [03 Flow matching](03_flow_matching.ipynb) | Why does regression on single pairs learn the velocity of all of them? |
# | [04 Probability paths](04_probability_paths.ipynb) | Which path is best: diffusion or a straight line? |
# | [05 Optimal transport](05_optimal_transport.ipynb) | What changes when pairs are chosen, not drawn? |
# | [06 Images](06_images.ipynb) | How do five ways of training compare on images at equal cost? |
# | [07 Closed form](07_closed_form.ipynb) | What does the exact velocity do in many dimensions? |
# | [08 Generalization](08_generalization.ipynb) | Why does a network make new data when the exact velocity does not? |
# | [09 Source geometry](09_source_geometry.ipynb) | What does a Gaussian look like in many dimensions, and is a better source possible? |
# | [10 Source direction](10_source_direction.ipynb) | What if the source already points at the data? |
# | [11 Norms and pruning](11_norms_and_pruning.ipynb) | How much is gained by sizes that match and directions left out? |
#
# <!-- end of map -->

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Words
#
# One word for one thing, in the text, in the formulas and in the code. Shapes: $B$ samples, each of any shape; times have
# shape $()$ or $(B,)$.
#
# | Symbol | Name in code | Meaning |
# |---|---|---|
# | $t$ | `t` | time, 0 at the source, 1 at the data |
# | $x_0$ | `x0` | a sample of the source |
# | $x_1$ | `x1` | a sample of the data |
# | $x_t$ | `xt` | the point of a path at time $t$ |
# | $p_0$ | `fmcore.sources.Gaussian` | the distribution of the source |
# | | `fmcore.couplings.independent`, `fmcore.couplings.MinibatchOT` | which $x_0$ meets which $x_1$ |
# | $\alpha_t, \sigma_t$ | `fmcore.paths.AffinePath.alpha`, `fmcore.paths.AffinePath.sigma` | $x_t = \alpha_t x_1 + \sigma_t x_0$; here $\alpha_t = t$, $\sigma_t = 1 - t$ |
# | $\dot\alpha_t, \dot\sigma_t$ | `fmcore.paths.AffinePath.d_alpha`, `fmcore.paths.AffinePath.d_sigma` | their derivatives in $t$ |
# | $d x_t / dt$ | `fmcore.paths.AffinePath.target` | the velocity of a pair |
# | $u_t(x \mid x_1)$ | `fmcore.paths.AffinePath.velocity` | the conditional velocity |
# | $u^*(x, t)$ | `fmcore.closed_form.EmpiricalVelocity` | the exact velocity of a finite data set |
# | $w_i(x, t)$ | `fmcore.closed_form.EmpiricalVelocity.weights` | how likely $x$ leads to data point $i$ |
# | $v_\theta(x, t)$ | `model` | the learned velocity; every velocity is called as $(x, t)$ and returns the shape of $x$ |
# | $L$ | `fmcore.losses.conditional_flow_matching` | the loss of flow matching |
# | $\nabla \log p_t(x)$ | `fmcore.paths.AffinePath.velocity_to_score` | the score |
# | | `fmcore.solvers.solve` | follow a velocity |
# | NFE | `fmcore.solvers.Solution.nfe` | network evaluations for a sample |
# | $\log p_1(x)$ | `fmcore.likelihood.log_likelihood` | log-density of data under a flow |
# | bits/dim | `fmcore.likelihood.bits_per_dim` | negative $\log_2$-likelihood of an image, for each pixel and colour |

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you saw

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input", "nbval-check-output"]
claims.table(
    [
        Claim("point on the line, by hand and in fmcore: largest difference", line_error, below(1e-6)),
        Claim("conditional velocity, by hand and in fmcore: relative difference", conditional_error, below(1e-5)),
        Claim("loss, by hand and in fmcore: difference", abs(loss_error), below(1e-5)),
        Claim("exact velocity, by hand and in fmcore: relative difference", closed_error, below(1e-5)),
        Claim("network evaluations of 20 midpoint steps", learned.nfe, exactly(40), digits=0),
        Claim("one step of Euler: mean distance from the mean of the data", from_mean, below(0.3)),
        Claim("from noise to the nearest data point: mean distance", to_nearest(start).mean(), above(0.2)),
        Claim("from a sample of the model to it: mean distance", to_nearest(learned.x).mean(), below(0.08)),
        Claim("from a sample of the exact velocity to it: mean distance", to_nearest(oracle.x).mean(), below(0.01)),
        Claim("loss of the model minus loss of the exact velocity", loss_of_model - loss_of_exact, between(0, 0.15)),
        Claim("model against exact velocity, t = 0.1: relative difference", disagreement[0], below(0.15)),
        Claim("that at t = 0.9 divided by that at t = 0.1", disagreement[-1] / disagreement[0], above(1.5)),
    ]
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# Open [exercises/00_start_here.ipynb](exercises/00_start_here.ipynb). Each exercise has a check that says what is wrong, not
# only that something is.
#
# 1. **A point on the path and its velocity.** Write $x_t$ and $u_t(x_t \mid x_1)$ for a batch in which each row has its own time.
# 2. **The loss of flow matching.** Write it for any path with $\alpha_t$ and $\sigma_t$.
# 3. **An Euler solver.** Follow a velocity in $n$ equal steps.
# 4. **The exact velocity.** Write $u^*$ for the straight path, with the weights as a softmax.
#
# <!-- next: written by fmcore.course.build -->
#
# Next: [01 Diffusion](01_diffusion.ipynb). How do diffusion models make data from noise, and why is that a flow?
#
# <!-- end of next -->
