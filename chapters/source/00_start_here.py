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
# A flow carries noise to data. Here you see what that is good for, train a flow in seconds, compare it with the exact
# answer, and get the map and the words of the course.

# %% slideshow={"slide_type": "skip"}
import math

import torch
from matplotlib.patches import Circle

from fmcore import closed_form, data, losses, networks, paths, solvers
from fmcore.course import card, claims, plotting, predict, style, widgets
from fmcore.course.claims import Claim, above, below, between, exactly

style.use()
torch.set_num_threads(1)  # networks this small gain nothing from a second core

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
card.show(
    "00_start_here",
    goals=[
        "say what flow matching is for, and why plain regression cannot do the same",
        "say what a source, a path, a velocity and a solver are",
        "train a flow in the plane and draw samples from it",
        "compare it with the exact velocity of a finite data set",
        "find your way through the course and its words",
    ],
    before=["vectors and derivatives", "a training loop in PyTorch"],
    exercises=[
        "1. an Euler solver",
        "2. three losses that are not the right one",
        "3. on a straight line Euler makes no error",
        "4. where lines cross",
        "5. is every data point copied equally often?",
    ],
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What flow matching is for
#
# Each row below is one kind of data, and each kind is a list of numbers: the pixels of a digit, the pixels of all frames
# of a short film, the places of the atoms of a molecule, the places that a robot plans to pass on its way around an
# obstacle. On the left there is only noise, at $t = 1$ there is an example. **Flow matching trains a network to carry noise
# to data in this manner, so that each new sample of noise becomes a new example.**

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
draw = torch.Generator().manual_seed(3)
pictures = data.digits().train[:, 0].float() / 8 - 1  # (1500, 8, 8), from -1 for paper to 1 for ink
wide = torch.nn.functional.pad(pictures, (0, 4), value=-1.0)
films = torch.stack([wide.roll(shift, dims=2) for shift in (0, 2, 4)], dim=1)  # three frames: the digit moves right

hexagon = torch.arange(6) * math.pi / 3
ring = torch.stack([hexagon.cos(), hexagon.sin()], dim=1)
outside = torch.tensor([[2.8, 0.0], [3.2, 0.9]])
phenol = torch.cat([1.4 * ring, 2.5 * ring[1:], outside])  # six C, five H, then O and its H; lengths in ångström
BONDS = [(k, (k + 1) % 6) for k in range(6)] + [(k, k + 5) for k in range(1, 6)] + [(0, 11), (11, 12)]
turn = 2 * math.pi * torch.rand(500, 1, 1, generator=draw)  # 500 directions of the same molecule
turned = torch.cat([torch.cat([turn.cos(), turn.sin()], 2), torch.cat([-turn.sin(), turn.cos()], 2)], 1)
molecules = phenol @ turned

RADIUS = 0.3  # of the obstacle, at the origin
along = torch.linspace(-1, 1, 25)
side = torch.tensor([1.0, -1.0]).repeat(250)[:, None]  # every other plan passes above, the others below
height = 0.5 + 0.4 * torch.rand(500, 1, generator=draw)
plans = torch.stack([along.expand(500, 25), side * height * (along * math.pi / 2).cos() ** 2], dim=2)


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
def show_pictures(x, ax):
    strip = torch.nn.functional.pad(x, (0, 1), value=-1.3).permute(1, 0, 2).flatten(1)[:, :-1]
    ax.imshow(strip, cmap="Greys", vmin=-1.3, vmax=1.3, interpolation="nearest")


def show_atoms(x, ax):
    for first, second in BONDS:
        ax.plot(*x[[first, second]].T, color="#57606A", linewidth=1.2, zorder=1)
    colors = [style.INK] * 6 + ["white"] * 5 + [style.BAD, "white"]
    ax.scatter(*x.T, s=[60] * 6 + [26] * 5 + [60, 26], c=colors, edgecolors=style.INK, linewidths=0.8, zorder=2)
    ax.set(xlim=(-4.6, 4.6), ylim=(-3.7, 3.7), aspect="equal")


def show_plans(x, ax):
    for k, plan in enumerate(x):
        ax.plot(*plan.T, color=(style.DATA, style.PATH)[k % 2], linestyle=("-", "--")[k % 2], linewidth=1.2)
    ax.add_patch(Circle((0, 0), RADIUS, color="#8C959F", zorder=0))
    ax.set(xlim=(-1.3, 1.3), ylim=(-1.05, 1.05), aspect="equal")


mean_plan = plans.mean(0)
mean_passes = mean_plan.norm(dim=1).min()  # how near to the centre of the obstacle
plans_pass = plans.norm(dim=2).min()

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
kinds = {  # name: example, size of the noise, mean of the data, how to draw it
    "images": (pictures[:2], 1.0, pictures.mean(0).expand(2, 8, 8), show_pictures),
    "video": (films[5], 1.0, films.mean(0), show_pictures),
    "molecules": (molecules[3], 1.6, molecules.mean(0), show_atoms),
    "robots": (plans[:6], 0.45, mean_plan[None], show_plans),
}
moments = [0.0, 0.4, 0.7, 0.9, 1.0]
figure, axes = plotting.canvas(4, 6, height=4.7, width=10.5, height_ratios=[0.6, 0.3, 1.0, 1.0])
for (name, (example, size, mean, show)), row in zip(kinds.items(), axes, strict=True):
    noise = size * torch.randn(example.shape, generator=draw)
    for moment, ax in zip(moments, row[:5], strict=True):
        show((1 - moment) * noise + moment * example, ax)
    show(mean, row[5])
    row[0].set_ylabel(name, rotation=0, ha="right", va="center")
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    ax.spines[:].set_visible(True)
for ax, moment in zip(axes[0, :5], moments, strict=True):
    ax.set_title(f"t = {moment:g}" + {0.0: ": noise", 1.0: ": data"}.get(moment, ""))
axes[0, 5].set_title("mean of all data", color=style.BAD)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# From left to right one mixture, $(1 - t) \cdot \text{noise} + t \cdot \text{example}$. No network has drawn
# anything here: these are the motions that a network *learns from*. (The digits are real; the molecule, phenol, and the
# robot's plans are made by the cells above. The first row shows two examples, the last one six.)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Why not plain regression, why not diffusion?
#
# **Regression** would train a network to output an example at once, by least squares. Where several answers are possible
# it learns their *mean*: the last column. The mean of the digits is a blur, the mean of a molecule over all directions is a
# point, and the mean of the plans leads into the obstacle. A **generative model** must give one of the possible answers,
# each as often as it occurs. Flow matching is still regression, but of the *velocity* from noise to data. At each place and
# time the mean velocity is the right one (chapter 03), and many small steps along it end at single examples.
#
# **Diffusion models** (chapter 01) solve the same problem: add noise to data step by step, and learn to undo it. With
# Gaussian noise the two methods are one family. A trained diffusion model can be turned into a velocity, and a velocity
# into a noise prediction (chapters 01 and 04). Flow matching simplifies what one has to set up: no random process and no
# reversal of one, only a source, a rule that pairs noise with data, and a path between the two, all three free to choose.
# The loss is a squared difference, and sampling solves an ordinary differential equation.
#
# **It is in use** for images (Stable Diffusion 3: Esser et al. 2024), video (Movie Gen: Polyak et al. 2024), proteins
# (Jing et al. 2024; Bose et al. 2024) and robots (the policy π0: Black et al. 2024). Three groups proposed the method at
# about the same time: Lipman et al. (2023), Liu et al. (2023), and Albergo and Vanden-Eijnden (2023).

# %% [markdown] slideshow={"slide_type": "slide"}
# ## One idea
#
# A generative model turns random numbers into new examples of something. A **flow** does it by motion. It starts at a
# random point of a simple distribution, the **source**, and moves the point a little at a time until it looks like one of
# the **data**.
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
# This picture is not a sketch: every point and every line was computed by the package. Below you will compute them too.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Source and data
#
# Our data are points of the plane on two moons, our source is a standard Gaussian. Both are tensors of shape $(B, 2)$: $B$
# points with two coordinates. Random numbers come from a generator with a seed, so that every run shows the same points.

# %% slideshow={"slide_type": "-"}
generator = torch.Generator().manual_seed(0)
x1 = data.toy.two_moons(2000, generator)
x0 = torch.randn(2000, 2, generator=generator)

plotting.clouds(source=x0, data=x1, limit=3.6)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A path for each pair
#
# Where should a point be between source and data? Take any $x_0$ and any $x_1$ and join them by a straight line,
#
# $$
# x_t = (1 - t)\, x_0 + t\, x_1 .
# $$
#
# This is the **path** of the pair. Its velocity is the derivative in $t$, which for this path is constant in time:
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
# It says: *go straight to $x_1$, and arrive there at $t = 1$.* It is called the **conditional velocity**, because it is the
# velocity given the data point $x_1$.

# %% slideshow={"slide_type": "fragment"}
by_hand = (x1 - xt) / (1 - t)[:, None]
conditional_error = (by_hand - path.velocity(xt, x1, t)).norm() / by_hand.norm()
assert conditional_error < 1e-5

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A velocity for all pairs
#
# The pairs were joined at random. So at each place there are points of many pairs, and they move in different directions.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
plotting.pairs(x0[:150], x1[:150], limit=3.6)

# %% [markdown] slideshow={"slide_type": "fragment"}
# 150 of the 2,000 pairs: orange is the end at the source, dark blue the end at the data.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
predict.ask(
    "A network v(x, t) is given a place and a time, and is trained to output the velocity of the pair that passes there. "
    "Two pairs pass the same place at the same time, with different velocities. What does the network learn to output?",
    [
        "the velocity of the pair that it saw last",
        "the average of the two velocities",
        "nothing useful: the training fails",
    ],
    answer=1,
    because="The number with the smallest mean squared distance to several numbers is their average. So the network "
    "learns the average velocity of all pairs that pass there, and a point that follows it turns where pairs cross.",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Training
#
# **Flow matching** (Lipman et al. 2023) draws a pair and a time, computes $x_t$, evaluates the network there, and compares
# its velocity with that of the pair. With $v_\theta$ for the network with weights $\theta$, the loss is
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
# The network is small: its inputs are a place and a time, it has three layers of 64 units, and its output is a velocity.
# Two thousand steps take a few seconds, and every step uses new points.

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

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
smooth = history.reshape(-1, 50).mean(1)
seen = torch.arange(len(smooth)) * 50 + 25
figure = plotting.curves(seen, {"loss": smooth}, xlabel="training steps", ylabel="loss")
figure.axes[0].set_ylim(bottom=0)
figure

# %% [markdown] slideshow={"slide_type": "-"}
# The loss falls and then stays well above zero. It must: where pairs cross, no single velocity is right for all of them.
# What remains is the **irreducible loss**, the spread of the pairs' velocities about their average. Further down you will
# see how much of the loss it is.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Sampling
#
# A **solver** follows the velocity from new points of the source, in small steps. The midpoint method evaluates the
# network twice in each step. The number of network evaluations, **NFE**, is what a sample costs.

# %% slideshow={"slide_type": "-"}
start = torch.randn(1000, 2, generator=generator)
learned = solvers.solve(model, start, method="midpoint", steps=20, times=torch.linspace(0, 1, 21))

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 3)
plotting.clouds(source=start, title="start", limit=3.2, ax=axes[0])
plotting.trajectories(learned, title="trajectories", count=250, limit=3.2, ax=axes[1])
plotting.clouds(model=learned.x, behind=x1, title="samples of the model", limit=3.2, ax=axes[2])
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# New noise (left) has become new points of the two moons (right). On the way the **trajectories**, the curves along which
# the points move, bend.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Can two trajectories meet?
#
# In the plane some of these curves cross. That is no contradiction: two points may pass the same place *at different
# times*. At the same place *at the same time* two points of a flow cannot be: $v(x, t)$ would give both the same velocity,
# and they would have been together all along (chapter 02). So at each moment, points that are close to one another move
# alike. For the straight lines of the pairs this is not so.


# %% slideshow={"slide_type": "-"}
def agreement(places, velocities):
    """Mean cosine between the velocity of a point and that of its nearest neighbour at the same time."""
    nearest = torch.cdist(places, places).fill_diagonal_(torch.inf).argmin(dim=1)
    return torch.cosine_similarity(velocities, velocities[nearest]).mean()


together = agreement(learned.trajectory[10], model(learned.trajectory[10], torch.tensor(0.5)).detach())
crossing = agreement(path.interpolate(x0, x1, 0.5), x1 - x0)
print(f"nearest neighbours at t = 0.5, mean cosine of their velocities: flow {together:.2f}, pairs {crossing:.2f}")


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
def share_that_crosses(curves):
    """Of all pairs of curves (T, n, 2) in the plane, the share that cross, at whatever times."""
    first, last = curves[:-1].flatten(0, 1), curves[1:].flatten(0, 1)  # ends of all straight pieces
    normal = (last - first) @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    offset = (normal * first).sum(1, keepdim=True)
    met = (normal @ first.T - offset) * (normal @ last.T - offset) < 0  # piece j has its ends on both sides of line i
    met = (met & met.T).reshape(len(curves) - 1, curves.shape[1], len(curves) - 1, curves.shape[1])
    return met.any(dim=2).any(dim=0).float().triu(1).sum() / (curves.shape[1] * (curves.shape[1] - 1) / 2)


flow_crosses = share_that_crosses(learned.trajectory[:, :100])
pairs_cross = share_that_crosses(torch.stack([x0, x1])[:, :100])
print(f"curves that cross in the plane, at whatever times: flow {flow_crosses:.1%}, pairs {pairs_cross:.1%}")


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "slide"} tags=["hide-input"]
predict.ask(
    "Now a single step: x = x0 + v(x0, 0), one evaluation of the network. Where do the 1000 points land?",
    [
        "on the two moons, a little blurred",
        "nearly all close to one point, the mean of the data",
        "where they started",
    ],
    answer=1,
    because="At t = 0 every data point is still possible, whatever x0 is, so the average velocity is the mean of the "
    "data minus x0. One step with it goes from x0 to the mean of the data: with a single step, flow matching gives what "
    "plain regression gives.",
)

# %% slideshow={"slide_type": "fragment"}
few = {n: solvers.solve(model, start, method="euler", steps=n) for n in (1, 2, 4, 16)}
from_mean = (few[1].x - x1.mean(0)).norm(dim=1).mean()
print(f"one step: the points end {from_mean:.2f} from the mean of the data, on average")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 4)
for n, ax in zip(few, axes, strict=True):
    plotting.clouds(model=few[n].x, behind=x1, title=f"NFE {few[n].nfe}", limit=3.2, ax=ax)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# With more evaluations the samples spread from the mean of the data to the two moons (grey). Chapter 02 measures how the
# error falls with the number of steps.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The exact velocity
#
# The network learned an average over pairs. For a finite data set with points $x^{(1)}, \dots, x^{(n)}$ and a Gaussian
# source this average is known exactly: it is the mean of the conditional velocities to all data points, weighted by how
# probable it is that a pair which passes $x$ at time $t$ ends there,
#
# $$
# u^*(x, t) = \sum_{i=1}^{n} w_i(x, t)\, \frac{x^{(i)} - x}{1 - t}, \qquad
# w_i(x, t) \propto \exp\!\Big( -\frac{\| x - t\, x^{(i)} \|^2}{2 (1 - t)^2} \Big), \qquad \sum_{i} w_i = 1 .
# $$
#
# It needs no training. It is called the **exact velocity**, and it is the reference of this course: whatever a network, a
# loss or a solver does can be compared with it. Chapter 03 derives the formula; here we only check that the package
# computes it.

# %% slideshow={"slide_type": "fragment"}
exact = closed_form.EmpiricalVelocity(x1)

x, half = xt[:100], torch.tensor(0.5)
weights = torch.softmax(-(x[:, None] - half * x1).square().sum(2) / (2 * (1 - half) ** 2), dim=1)
closed_by_hand = weights @ x1 / (1 - half) - x / (1 - half)
closed_error = (closed_by_hand - exact(x, half)).norm() / closed_by_hand.norm()
assert closed_error < 1e-5

# %% [markdown] slideshow={"slide_type": "subslide"}
# On these data no velocity has a smaller expected loss than the exact one: its loss is the irreducible one. Here are three
# losses on the 2,000 pairs that we drew first:

# %% slideshow={"slide_type": "-"}
with torch.no_grad():
    loss_at_rest = (x1 - x0).square().mean()  # of the velocity 0
    loss_of_model = flow_matching_loss(model, x0, x1, t)
    loss_of_exact = flow_matching_loss(exact, x0, x1, t)

irreducible_share = loss_of_exact / loss_of_model
print(f"irreducible: {irreducible_share:.0%} of the network's loss")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
plotting.bars(
    {"velocity 0": loss_at_rest, "network": loss_of_model, "exact velocity": loss_of_exact},
    colors={"velocity 0": "#6E7781", "network": style.MODEL, "exact velocity": style.EXACT},
    xlabel="loss",
)

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
predict.ask(
    "Where do the samples of the exact velocity end?",
    [
        "between the data points, like new data",
        "on data points that we already have",
        "far from the data, because a sum of so many terms is not stable",
    ],
    answer=1,
    because="Near t = 1 one weight is almost 1 and the velocity points straight at that data point. The exact velocity "
    "copies its data. Chapters 07 and 08 ask why a network trained on the same data need not do so.",
)


# %% slideshow={"slide_type": "-"}
def to_nearest(x):
    """Distance from each x to the nearest data point."""
    return torch.cdist(x, x1).min(dim=1).values


# The solver stops just before t = 1, where the exact velocity divides by 1 - t = 0.
oracle = solvers.solve(exact, start, t1=0.999, rtol=1e-3, atol=1e-3, times=torch.linspace(0, 0.999, 41))

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
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

# %% [markdown] slideshow={"slide_type": "fragment"}
# The right panel: samples of the exact velocity end on data points, those of the network at some distance from them. The
# network saw new points of the two moons in every step; the exact velocity knows only these 2,000.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Network and exact velocity at any time
#
# How close is the network to the exact velocity? Here are both at one time $t$, with the points of both flows at that
# time. Compare the arrows where there are points, and in the margin, where hardly any pair ever passed and the network had
# nothing to learn from.


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
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


# %% slideshow={"slide_type": "fragment"}
def difference(place, time):
    """Size of model minus exact velocity at these places, relative to the size of the exact velocity."""
    with torch.no_grad():
        reference = exact(place, torch.tensor(time))
        return float((model(place, torch.tensor(time)) - reference).norm() / reference.norm())


margin = plotting.grid(3.2, 19)
margin = margin[margin.abs().amax(dim=1) > 2.8]
passed, unvisited = difference(path.interpolate(x0, x1, 0.7), 0.7), difference(margin, 0.7)
print(f"t = 0.7, relative difference: {passed:.2f} where pairs pass, {unvisited:.2f} in the margin")

# %% [markdown] slideshow={"slide_type": "skip"}
# Move $t$ with the mouse, or select the slider and use the arrow keys. Watch when the two moons separate, and where the two
# velocities differ.

# %% slideshow={"slide_type": "subslide"}
widgets.explore(at_time, t=widgets.slider(0, 0.95, step=0.05, value=0.5, label="time t"))

# %% slideshow={"slide_type": "subslide"}
some_times = [0.1, 0.3, 0.5, 0.7, 0.9]
disagreement = [difference(path.interpolate(x0, x1, time), time) for time in some_times]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
plotting.curves(
    some_times,
    {"model": disagreement},
    xlabel="time t",
    ylabel="|model - exact| / |exact|",
    colors={"model": style.MODEL},
    markers=True,
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# They differ most at the last of these times, nearest to the data. There the exact velocity has its finest detail, 2,000
# single points, while the network knows only the shape from which its points were drawn.

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
# ### Notation
#
# One symbol for one thing, in the text, in the formulas and in the code. Shapes: $B$ samples, each of any shape; times
# have shape $()$ or $(B,)$.
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
# | $w_i(x, t)$ | `fmcore.closed_form.EmpiricalVelocity.weights` | the probability that a pair which passes $x$ at time $t$ ends at data point $i$ |
# | $v_\theta(x, t)$ | `model` | the learned velocity; every velocity is called as $(x, t)$ and returns the shape of $x$ |
# | $L$ | `fmcore.losses.conditional_flow_matching` | the loss of flow matching |
# | $\nabla \log p_t(x)$ | `fmcore.paths.AffinePath.velocity_to_score` | the score |
# | | `fmcore.solvers.solve` | follow a velocity |
# | NFE | `fmcore.solvers.Solution.nfe` | network evaluations per sample |
# | $\log p_1(x)$ | `fmcore.likelihood.log_likelihood` | log-density of data under a flow |
# | bits/dim | `fmcore.likelihood.bits_per_dim` | negative $\log_2$-likelihood of an image, divided by the number of its pixel values |

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Words of the course
#
# Come back to these tables when a word is new. The standard term stands first, other words for it second; some of those
# are used in this course only. The last column says where the word is introduced. First, diffusion and flows:
#
# | Term | Also | Meaning | Chapter |
# |---|---|---|---|
# | exact velocity | closed form, $u^*$ | the average velocity of all pairs that pass a place at a time, known in closed form for a finite data set | 00, 03 |
# | irreducible loss | conditional variance | the loss of the exact velocity, below which no network can go: the variance of the target given place and time | 00, 03 |
# | marginal | $p_t$ | the distribution of $x_t$ over all pairs | 01 |
# | score | | the gradient of $\log p_t$ with respect to the place | 01 |
# | test function, weak form | | an equation for a density, stated for the averages of all smooth functions $\varphi$ | 01 |
# | largest distance under the null hypothesis | yardstick | how far apart two samples of *the same* distribution are by chance; distances are divided by it | 01 |
# | flow map | | takes each starting point to its end | 02 |
# | order of a solver | | $k$, if the error falls like $(\text{step size})^k$ | 02 |
# | Hutchinson's estimate | probe | an estimate of the divergence of a velocity from one random vector, the *probe* | 02, 06 |

# %% [markdown] slideshow={"slide_type": "subslide"}
# Paths, couplings and images:
#
# | Term | Also | Meaning | Chapter |
# |---|---|---|---|
# | relative length of a trajectory | detour | its length divided by the distance between its ends; 1 if it is straight | 03 |
# | OT path | | the straight conditional path of Lipman et al. (2023), on which noise of size $\sigma_{\min}$ is left at $t = 1$ | 04 |
# | reparametrization of time | time change, clock | a rule that says which time of one path corresponds to which time of another one | 04, 11 |
# | OT coupling | OT pairs | noise and data paired by optimal transport, within a batch or among all | 05 |
# | | aim and rate | the point towards which an affine path's velocity pulls, and how strongly | 04 |
# | crossed pairs | | two pairs that would be cheaper with partners swapped | 05 |
# | straightness | | the mean squared difference between the velocity along a trajectory and the displacement from its start to its end | 05 |
# | outlier | stray share | a sample far from all modes of the data; the *stray share* is the share of such samples | 01, 05 |
# | dequantization | | adding uniform noise to integer pixel values, so that they have a density | 06 |

# %% [markdown] slideshow={"slide_type": "subslide"}
# Closed form and generalization:
#
# | Term | Also | Meaning | Chapter |
# |---|---|---|---|
# | posterior weights | $w_i(x, t)$ | the probability of each data point, given a place and a time | 00, 07 |
# | posterior weight of the true point | | the weight $w_i(x_t, t)$ of the data point from which $x_t$ was made | 07 |
# | collapse of the posterior | collapse time $t_c$ | from then on one data point has nearly all the weight; $t_c$ is where the median weight of the true one is one half | 07 |
# | perplexity of the weights | effective number of images | $\exp$ of their entropy: over how many images the velocity averages | 07 |
# | basin | | all starting points that the exact velocity leads to the same training point | 07 |
# | memorization | copy | a *copy* is a sample closer to its nearest training image than a third of the distance to the second nearest | 07, 08 |
# | approximation error | failure to learn | the mean squared difference between network and exact velocity | 08 |
# | | hybrid flow | the exact velocity up to a time $\tau$, a network from then on | 08 |
# | | decided | a sample of a hybrid flow is *decided* if its nearest training image is where the exact velocity alone would have led | 08 |
# | empirical flow matching, EFM | bank | regression on the exact velocity of a few data points, the *bank*, drawn anew in each step | 08 |

# %% [markdown] slideshow={"slide_type": "subslide"}
# Sources:
#
# | Term | Also | Meaning | Chapter |
# |---|---|---|---|
# | concentration of the norm | shell | Gaussian noise in many dimensions has nearly always the same length | 09 |
# | failure rate | failures | the share of samples farther than 1 from all data, in the simulations of Lee et al. (2025) | 09 |
# | mode discrepancy | | the modes of a source have other shares than those of the data, so that some pairs must go from one mode to another | 09 |
# | von Mises-Fisher distribution | vMF | the counterpart of a Gaussian on the sphere: a mean direction and a concentration $\kappa$ | 10 |
# | | stray pair | in the plane: a pair whose start and data point belong to different directions of the data | 10 |
# | path entanglement | | many pairs with different velocities in the same place at the same time | 10 |
# | | oracle source | starts each pair in the direction of its own data point: a bound, not a model | 10 |
# | coverage | | the share of data points that have a sample of their own nearby | 10 |
# | norm alignment | factor $c$ | noise and data are scaled to the same mean length; $c$ is the ratio of the two lengths | 11 |
# | pruning | rejected directions | leaving out starting points in directions where there are no data | 11 |

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you saw

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input", "nbval-check-output"]
claims.table(
    [
        Claim("mean of all plans: distance from the centre of the obstacle (radius 0.3)", mean_passes, below(0.1)),
        Claim("exact velocity, by hand and in fmcore: relative difference", closed_error, below(1e-5)),
        Claim("irreducible share of the network's loss", irreducible_share, between(0.9, 1)),
        Claim("neighbours at t = 0.5, cosine of their velocities: flow", together, above(0.95)),
        Claim("the same for the straight lines of the pairs", crossing, below(0.3)),
        Claim("share of the flow's trajectories that cross in the plane", flow_crosses, between(0.005, 0.1)),
        Claim("one step of Euler: mean distance from the mean of the data", from_mean, below(0.3)),
        Claim("from a sample of the model to the nearest data point: mean", to_nearest(learned.x).mean(), below(0.08)),
        Claim("from a sample of the exact velocity to it: mean", to_nearest(oracle.x).mean(), below(0.01)),
        Claim("network minus exact velocity: t = 0.9 over t = 0.1", disagreement[-1] / disagreement[0], above(1.5)),
        Claim("the same at t = 0.7, margin over places where pairs pass", unvisited / passed, above(1.5)),
        Claim("the same at t = 0.1, relative to the exact velocity", disagreement[0], below(0.15)),
        Claim("any plan: distance from the centre of the obstacle", plans_pass, above(0.3)),
        Claim("straight lines of the pairs that cross in the plane: share", pairs_cross, above(0.15)),
        Claim("network evaluations of 20 midpoint steps", learned.nfe, exactly(40), digits=0),
        Claim("from noise to the nearest data point: mean", to_nearest(start).mean(), above(0.2)),
        Claim("point on the line, by hand and in fmcore: largest difference", line_error, below(1e-6)),
        Claim("conditional velocity, by hand and in fmcore: relative difference", conditional_error, below(1e-5)),
        Claim("loss, by hand and in fmcore: difference", abs(loss_error), below(1e-5)),
    ]
)

# %% [markdown] slideshow={"slide_type": "skip"}
# ## References
#
# - Albergo and Vanden-Eijnden 2023, *Building normalizing flows with stochastic interpolants*, ICLR, arXiv:2209.15571
# - Black et al. 2024, *π0: a vision-language-action flow model for general robot control*, arXiv:2410.24164
# - Bose et al. 2024, *SE(3)-stochastic flow matching for protein backbone generation*, ICLR, arXiv:2310.02391
# - Esser et al. 2024, *Scaling rectified flow transformers for high-resolution image synthesis*, ICML, arXiv:2403.03206
# - Jing, Berger and Jaakkola 2024, *AlphaFold meets flow matching for generating protein ensembles*, ICML, arXiv:2402.04845
# - Lipman, Chen, Ben-Hamu, Nickel and Le 2023, *Flow matching for generative modeling*, ICLR, arXiv:2210.02747
# - Liu, Gong and Liu 2023, *Flow straight and fast: learning to generate and transfer data with rectified flow*, ICLR,
#   arXiv:2209.03003
# - Polyak et al. 2024, *Movie Gen: a cast of media foundation models*, arXiv:2410.13720
#
# The course follows three works: Lipman et al. (2023) above; Bertrand, Gagneux, Massias and Emonet 2025, *On the closed-form
# of flow matching*, arXiv:2506.03719; Lee, Kim and Lee 2025, *Is there a better source distribution than Gaussian?*,
# arXiv:2512.18184.
#
# **Where to read on.** A reference for the whole field, with code: Lipman et al. 2024, *Flow matching guide and code*,
# arXiv:2412.06264. Lecture notes that go well with this course: Holderrieth and Erives, *Introduction to flow matching and
# diffusion models*, MIT course 6.S184, arXiv:2506.02070.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# Open [exercises/00_start_here.ipynb](exercises/00_start_here.ipynb). Each exercise has a check that says what is wrong, not
# only that something is.
#
# 1. **An Euler solver.** Follow a velocity in $n$ equal steps.
# 2. **Three losses that are not the right one.** What is wrong with each, and how do its samples show it?
# 3. **On a straight line Euler makes no error.** Prove it for the conditional velocity, with any number of steps.
# 4. **Where lines cross.** The best velocity at a crossing, and the loss that remains.
# 5. **Is every data point copied equally often?** Measure it for samples of the exact velocity, beside a control.
#
# <!-- next: written by fmcore.course.build -->
#
# Next: [01 Diffusion](01_diffusion.ipynb). How do diffusion models make data from noise, and why is that a flow?
#
# <!-- end of next -->
