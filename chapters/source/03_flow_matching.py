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
# # 03 Flow matching
#
# We look for a velocity that carries noise to data, and all we have are samples of the data. Flow matching learns it by
# regression on the velocity of a single pair of noise and data, a target that is wrong for almost every sample. This
# chapter shows why the network nevertheless learns the right velocity, and measures it.

# %% slideshow={"slide_type": "skip"}
import torch
from torch import nn

from fmcore import closed_form, data, losses, networks, paths, solvers, training
from fmcore.course import card, claims, plotting, predict, style, widgets
from fmcore.course.claims import Claim, about, above, below, between, exactly
from fmcore.metrics import wasserstein2

style.use()
torch.set_num_threads(1)  # networks this small gain nothing from a second core

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
card.show(
    "03_flow_matching",
    goals=[
        "say why the velocity of a whole data set is an average of simple velocities (Theorem 1)",
        "say what happens to the exact velocity of a finite data set as t goes to 1",
        "derive why the conditional loss has the right gradient (Theorem 2)",
        "write, train and sample a flow matching model in 25 lines",
        "say which part of the loss no network can remove",
    ],
    before=["chapter 01: the continuity equation", "chapter 02: flows and their solvers", "a training loop in PyTorch"],
    exercises=[
        "1. The velocity towards a small Gaussian",
        "2. A source that is not Gaussian",
        "3. A loss that falls",
        "4. The loss of a perfect network",
        "5. The weak form of Theorem 1",
        "6. How should a batch draw its times?",
    ],
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The problem
#
# We have samples $x_1$ of a data distribution $p_1$, points in $\mathbb{R}^d$, and a source $p_0 = \mathcal{N}(0, I)$
# from which we can draw samples $x_0$. Time $t$ runs from 0 at the source to 1 at the data. We look for a velocity
# $u_t(x)$ such that points that start in $p_0$ and follow $\mathrm{d}x/\mathrm{d}t = u_t(x)$ arrive in $p_1$. Between
# the ends they pass through distributions $p_t$.
#
# If somebody handed us $u_t$ and $p_t$, learning would be regression. For a network $v_\theta(x, t)$,
#
# $$
# L_{\mathrm{FM}}(\theta) = \mathbb{E}_{t,\; x \sim p_t} \, \big\| v_\theta(x, t) - u_t(x) \big\|^2 .
# $$
#
# But we know neither the target $u_t$ nor how to draw from $p_t$.

# %% [markdown] slideshow={"slide_type": "notes"}
# Chapter 02 trained a flow by maximum likelihood, which solves a differential equation in every training step. Flow
# matching (Lipman et al. 2023) never solves one while it trains. Here the data are 2,000 points on two moons in the
# plane, so $d = 2$. Losses are averaged over the $d$ dimensions, as in `fmcore.losses`.

# %% slideshow={"slide_type": "subslide"}
points = data.toy.two_moons(2000, torch.Generator().manual_seed(0))  # all that we know about p_1
source = torch.randn(2000, 2, generator=torch.Generator().manual_seed(1))

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
figure, (left, right) = plotting.canvas(1, 2, width=7.5)
plotting.clouds(source=source, limit=3.2, title="source $p_0$", ax=left)
plotting.clouds(data=points, limit=3.2, title="data: 2,000 samples of $p_1$", ax=right)
figure

# %% [markdown] slideshow={"slide_type": "-"}
# Of the source we can draw as many samples as we like. Of the data these points are all that we have.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## One data point: the velocity is known
#
# Take a single data point $x_1$ and join each source sample to it by a straight line,
#
# $$
# x_t = (1 - t)\, x_0 + t\, x_1 .
# $$
#
# For fixed $x_1$ this gives the **conditional path** $p_t(x \mid x_1) = \mathcal{N}(t x_1, (1-t)^2 I)$: the whole
# Gaussian shrinks onto $x_1$. The velocity along the line is $\mathrm{d}x_t/\mathrm{d}t = x_1 - x_0$. Written as a
# function of the place $x = x_t$, with $x_0 = (x - t x_1)/(1-t)$ put in, it is the **conditional velocity**
#
# $$
# u_t(x \mid x_1) = x_1 - \frac{x - t x_1}{1 - t} = \frac{x_1 - x}{1 - t} ,
# $$
#
# the remaining distance divided by the remaining time.

# %% [markdown] slideshow={"slide_type": "notes"}
# This is the rectified path, the OT path of Lipman et al. with $\sigma_{\min} = 0$. Their Theorem 3 gives
# $u_t(x \mid x_1)$ for every path $\alpha_t x_1 + \sigma_t x_0$; chapter 04 compares them. Theorems 1 and 2
# hold for all of them.

# %% slideshow={"slide_type": "subslide"}
path = paths.rectified()
generator = torch.Generator().manual_seed(2)
x0, x1 = torch.randn(5, 2, generator=generator), points[:5]
t = torch.rand(5, generator=generator)  # each pair has its own time

by_hand_xt = (1 - t[:, None]) * x0 + t[:, None] * x1
by_hand_velocity = (x1 - by_hand_xt) / (1 - t[:, None])

torch.testing.assert_close(path.interpolate(x0, x1, t), by_hand_xt)
torch.testing.assert_close(path.velocity(by_hand_xt, x1, t), by_hand_velocity)  # u_t(x | x1)
torch.testing.assert_close(path.target(x0, x1, t), x1 - x0)  # d x_t / dt
torch.testing.assert_close(by_hand_velocity, x1 - x0, rtol=1e-4, atol=1e-5)  # the same velocity

# %% slideshow={"slide_type": "subslide"}
lone = torch.tensor([1.6, 1.0])  # one data point


def towards_lone(x, t):
    return path.velocity(x, lone.expand_as(x), t)


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 4)
for ax, time in zip(axes, (0.0, 0.3, 0.6, 0.9), strict=True):
    plotting.field(towards_lone, time, points=11, limit=3.2, color="#6E7781", ax=ax)
    cloud = path.interpolate(source[:400], lone.expand(400, 2), time)
    ax.scatter(*cloud.T, s=7, color=style.time_map()(time), linewidths=0, alpha=0.8)
    ax.scatter(*lone, s=90, marker="*", color="white", edgecolors=style.DATA, zorder=3)
figure

# %% [markdown] slideshow={"slide_type": "-"}
# The Gaussian (dots) shrinks onto one data point (star). The grey arrows are the conditional velocity $u_t(x \mid
# x_1)$, scaled in each panel so that the longest fits: they always point at the star. A field like this one takes all
# noise samples to one point. The question is how to combine 2,000 such fields.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Many data points
#
# The data are $n$ points $x^{(1)}, \dots, x^{(n)}$. Each has its own conditional path, so the distribution at time
# $t$ is their mixture, the **marginal path**
#
# $$
# p_t(x) = \frac{1}{n} \sum_{i=1}^{n} p_t(x \mid x^{(i)}) .
# $$
#
# A flow has *one* velocity at each place and time. At a place $x$ there are now $n$ conditional velocities, one
# towards each data point.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "A particle is at x at time t. Which single velocity makes a cloud of particles follow p_t?",
    [
        "the conditional velocity towards the nearest data point",
        "the plain average of the n conditional velocities",
        "their average, each weighted by how likely its data point has produced x at time t",
    ],
    answer=2,
    because="The flow must move as much probability mass through x as all conditional flows "
    "together, and each of them has its own share of the mass there. The nearest point "
    "would be right only when all others are impossible.",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Theorem 1: the marginal velocity is a conditional mean
#
# Let $(x_0, x_1)$ be a random pair, drawn from **any coupling**: independent or not. Let $x_t = \alpha_t x_1 + \sigma_t
# x_0$ be any affine path, with velocity $\dot x_t = \alpha_t' x_1 + \sigma_t' x_0$ of finite mean length. Write $p_t$
# for the distribution of $x_t$, and
#
# $$
# u_t(x) = \mathbb{E}\big[\, \dot x_t \mid x_t = x \,\big]
# $$
#
# for the mean velocity of the pairs that are at $x$ at time $t$, the **marginal velocity**. Then $p_t$ and $u_t$ satisfy
# the continuity equation.

# %% [markdown] slideshow={"slide_type": "subslide"}
# **Proof.** Chapter 01 derives the continuity equation in its weak form, with a test function $\varphi$: smooth, and zero
# outside a bounded set. Differentiate its mean along the path:
#
# $$
# \frac{\mathrm{d}}{\mathrm{d}t}\, \mathbb{E}\, \varphi(x_t)
# = \mathbb{E}\big[ \nabla \varphi(x_t) \cdot \dot x_t \big]
# = \mathbb{E}\big[ \nabla \varphi(x_t) \cdot \mathbb{E}[\, \dot x_t \mid x_t \,] \big]
# = \int p_t(x)\, \nabla \varphi(x) \cdot u_t(x)\, \mathrm{d}x .
# $$
#
# First the chain rule. Then, given $x_t$, the factor $\nabla \varphi(x_t)$ is fixed, so the velocity may be replaced by
# its conditional mean. The result is the weak form of the continuity equation with the velocity $u_t$. $\square$
#
# So particles that start in $p_0$ and follow $u_t$ have the distribution $p_t$ at every $t$, as long as their flow exists (more on
# that below). Nothing was assumed about how $x_0$ and $x_1$ are paired, nor that either of them is Gaussian. Chapter 05 will
# pair them by optimal transport, and the theorem still holds.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## For a finite data set: a posterior average
#
# Now let $x_1$ be one of the $n$ data points, drawn independently of $x_0$. Given $x_t = x$ and $x_1 = x^{(i)}$, the velocity
# is the conditional one, $u_t(x \mid x^{(i)})$. So the conditional mean is an average over the data points,
#
# $$
# u^*(x, t) = \sum_{i=1}^{n} w_i(x, t)\, u_t(x \mid x^{(i)}) ,
# \qquad
# w_i(x, t) = \mathbb{P}\big( x_1 = x^{(i)} \mid x_t = x \big) = \frac{p_t(x \mid x^{(i)})}{\sum_j p_t(x \mid x^{(j)})} .
# $$
#
# The weight $w_i$ is the **posterior weight** of the data point $x^{(i)}$ (Bayes' rule): how likely a particle found at $x$
# at time $t$ is on its way to $x^{(i)}$. We write $u^*$ for the marginal velocity of a finite data set, because it can
# be computed exactly.

# %% [markdown] slideshow={"slide_type": "skip"}
# *Aside.* Lipman et al. 2023 prove Theorem 1 for independent pairs, by averaging the continuity equations of the conditional
# paths: $\partial_t\, p_t = \frac1n \sum_i \partial_t\, p_t(x \mid x^{(i)}) = -\nabla \cdot \big( \frac1n \sum_i p_t(x \mid
# x^{(i)})\, u_t(x \mid x^{(i)}) \big) = -\nabla \cdot ( p_t\, u^* )$. The flux is averaged, so each velocity is weighted with
# its density. Independence only enters the weights: it makes $p_t(x \mid x^{(i)})$ a Gaussian.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### By hand
#
# For the straight path $p_t(x \mid x^{(i)}) \propto \exp\!\big(-\|x - t x^{(i)}\|^2 / (2 (1-t)^2)\big)$, so the
# weights are a softmax,
#
# $$
# w_i(x, t) = \operatorname{softmax}_i \Big( \! -\frac{\|x - t x^{(i)}\|^2}{2 (1-t)^2} \Big) ,
# \qquad
# u^*(x, t) = \sum_i w_i(x, t)\, \frac{x^{(i)} - x}{1 - t} .
# $$


# %% slideshow={"slide_type": "fragment"}
def marginal_velocity(x, t, points):
    """Return u*(x, t), shape (B, 2), and the weights w_i(x, t), shape (B, n), for x of shape (B, 2) and one time t."""
    distances = (x[:, None] - t * points).square().sum(dim=-1)
    weights = torch.softmax(-distances / (2 * (1 - t) ** 2), dim=1)
    conditional = (points - x[:, None]) / (1 - t)  # (B, n, 2)
    return (weights[..., None] * conditional).sum(dim=1), weights


few = points[:200]  # 200 of the data points are enough for the theory
exact_few = closed_form.EmpiricalVelocity(few)
x = torch.randn(500, 2, generator=torch.Generator().manual_seed(3))
gap_by_hand = 0.0

# %% slideshow={"slide_type": "-"}
for time in (0.0, 0.25, 0.5, 0.75):
    velocity, weights = marginal_velocity(x, time, few)
    torch.testing.assert_close(exact_few.weights(x, time), weights, rtol=1e-3, atol=1e-5)
    gap_by_hand = max(gap_by_hand, float((exact_few(x, time) - velocity).abs().max()))
assert gap_by_hand < 1e-3, gap_by_hand
print(f"u* by hand and in fmcore: largest difference {gap_by_hand:.0e}")

# %% [markdown] slideshow={"slide_type": "-"}
# `fmcore.closed_form.EmpiricalVelocity` is the same function, written so that it also works for large sets of images and
# very close to $t = 1$, where the short version loses precision.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The picture of Theorem 1
#
# One place $x$, the conditional velocities that meet there, and their average.


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
ARROW = {"arrowstyle": "-|>", "color": style.EXACT, "lw": 2.4, "mutation_scale": 15, "shrinkA": 0, "shrinkB": 0}


def posterior_picture(t, x, y, n, ax=None):
    """The conditional velocities at the place (x, y), as opaque as their weights, and their average u*."""
    place, subset = torch.tensor([[x, y]]), points[:n]
    weights = closed_form.EmpiricalVelocity(subset).weights(place, t)[0]
    mean = weights @ subset  # E[x1 | x_t = x], where the average arrow ends
    figure, ax = (ax.figure, ax) if ax is not None else plotting.canvas(width=4.6, height=4.8)
    strength = (weights / weights.max()).sqrt().tolist()
    for point, alpha in zip(subset, strength, strict=True):
        if alpha > 0.05:
            ax.plot(*torch.stack([place[0], point]).T, color=style.PATH, alpha=0.6 * alpha, linewidth=0.3 + 0.9 * alpha)
    ax.scatter(*subset.T, s=5 + 30 * torch.tensor(strength) ** 2, color=style.DATA, alpha=0.8, linewidths=0)
    ax.annotate("", mean, place[0], arrowprops=ARROW, zorder=4)
    ax.scatter(x, y, s=45, color="white", edgecolors=style.EXACT, linewidths=1.8, zorder=5)
    style.blank(ax, 2.6).set_title(f"t = {t:.2f}: {1 / weights.square().sum():.0f} of {n} points count")
    return figure


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 3)
for ax, time in zip(axes, (0.1, 0.5, 0.8), strict=True):
    posterior_picture(time, 1.2, 0.9, 80, ax=ax)
figure

# %% [markdown] slideshow={"slide_type": "-"}
# Circle: the place $x$, the same in all panels. Thin lines: the conditional velocities $u_t(x \mid x^{(i)})$, more opaque for a
# larger weight $w_i$ and drawn $(1 - t)$ times as long, so that each ends at its data point. Black arrow: their average $u^*$ at the
# same scale; it ends at $\mathbb{E}[x_1 \mid x_t = x]$. The title gives the effective number of points, $1 / \sum_i w_i^2$: nearly
# all count near the source, few near the data.

# %% slideshow={"slide_type": "subslide"}
widgets.explore(
    posterior_picture,
    t=widgets.slider(0.0, 0.95, step=0.05, value=0.6, label="time t"),
    x=widgets.slider(-2.5, 2.5, step=0.1, value=-1.6, label="place: right"),
    y=widgets.slider(-2.5, 2.5, step=0.1, value=-1.0, label="place: up"),
    n=widgets.choice([5, 20, 80, 400, 2000], value=400, label="data points n"),
)

# %% [markdown] slideshow={"slide_type": "notes"}
# Try: move $t$ with the place fixed and watch the number of points that count. At $t = 0.8$ move the place slowly
# from one moon to the other: where does the arrow change its direction? Raise $n$ at $t = 0.95$: from which $n$ on does the
# arrow stop pointing at a single data point?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The same average by experiment
#
# Theorem 1 without the formula: draw many pairs $(x_0, x_1)$, keep those whose $x_t$ falls within 0.05 of a place $x$, and
# average their $x_1 - x_0$. The lines that meet at $x$ have many directions; their average should be $u^*(x, t)$.

# %% slideshow={"slide_type": "fragment"}
places = torch.tensor([[1.2, 0.9], [-0.8, -0.6], [0.0, 0.0], [0.5, -1.0]])
generator = torch.Generator().manual_seed(4)
x0 = torch.randn(2_000_000, 2, generator=generator)
x1 = few[torch.randint(len(few), (len(x0),), generator=generator)]
xt = path.interpolate(x0, x1, 0.5)

meeting = [(xt - place).norm(dim=1) < 0.05 for place in places]  # which pairs pass through each place at t = 0.5
counted = torch.stack([(x1 - x0)[close].mean(dim=0) for close in meeting])

# %% slideshow={"slide_type": "-"}
error = torch.stack([(x1 - x0)[close].std(dim=0) / close.sum().sqrt() for close in meeting])
formula = exact_few(places, 0.5)
worst_place = float(((counted - formula).abs() / error).max())
for x, count, half, u, close in zip(places, counted, error, formula, meeting, strict=True):
    average = f"average ({count[0]:5.2f}, {count[1]:5.2f}) ± ({half[0]:.2f}, {half[1]:.2f})"
    print(f"x = ({x[0]:4.1f}, {x[1]:4.1f}) {int(close.sum()):6} pairs   {average}   u* ({u[0]:5.2f}, {u[1]:5.2f})")
print(f"largest difference, in standard errors (the numbers after ±): {worst_place:.1f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 2, width=7.5)
for ax, k in zip(axes, (0, 1), strict=True):
    chosen = meeting[k].nonzero()[:40, 0]
    title = f"40 pairs that meet at ({places[k, 0]:.1f}, {places[k, 1]:.1f})"
    plotting.pairs(x0[chosen], x1[chosen], limit=3.2, title=title, ax=ax)
    ax.annotate("", places[k] + 0.5 * formula[k], places[k], arrowprops=ARROW, zorder=5)
figure

# %% [markdown] slideshow={"slide_type": "-"}
# Orange ends are source samples, dark violet ends data points. The black arrow is $u^*$ at half its length, so that it ends
# near the mean of the violet ends.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Does $u^*$ really carry $p_0$ along $p_t$?
#
# There are two ways to get points at time $t$. **Pairs**: draw $x_0$ and $x_1$ independently and put $x_t$ on the line between them; by
# definition $x_t \sim p_t$. **Flow**: start at $x_0$ and follow $\mathrm{d}x/\mathrm{d}t = u^*(x, t)$.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Both ways start from the same 1,000 source samples. What do they have in common at t = 0.5?",
    [
        "the same 1,000 points",
        "the same distribution, but other points",
        "nothing before t = 1, where both reach the data",
    ],
    answer=1,
    because="Theorem 1 is about distributions: at every time the flow has the marginal p_t. It "
    "says nothing about single points, and a point that follows u* leaves the line of its pair at once.",
)

# %% slideshow={"slide_type": "subslide"}
exact = closed_form.EmpiricalVelocity(points)
times = torch.tensor([0.0, 0.25, 0.5, 0.75, 0.95])
generator = torch.Generator().manual_seed(5)


def on_lines(x0):
    """Samples of p_t at each of the times: every x0 joined to a data point that is drawn at random."""
    x1 = points[torch.randint(len(points), (len(x0),), generator=generator)]
    return torch.stack([path.interpolate(x0, x1, time) for time in times])


x0 = torch.randn(1000, 2, generator=generator)
pairs = on_lines(x0)
flow = solvers.solve(exact, x0, t1=0.95, times=times)

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(2, 4)
plotting.snapshots((times, pairs), times=times[1:], limit=3.0, axes=axes[0])
plotting.snapshots(flow, times=times[1:], limit=3.0, title="", axes=axes[1])
axes[0, 0].set_ylabel("pairs")
axes[1, 0].set_ylabel("flow of $u^*$")
figure

# %% [markdown] slideshow={"slide_type": "-"}
# The two rows look alike. To measure it we need a distance between sets of points.

# %% [markdown] slideshow={"slide_type": "subslide"}
# The **2-Wasserstein distance** $W_2$ is the smallest root mean square distance over which the points of one set can be
# moved to become the other set. Two finite samples of the *same* distribution are not at distance 0, so we need a reference
# value: the distance between two fresh samples of $p_t$. Both are averages over four sets of 500. The last column says how far
# apart the two ways take the same $x_0$.

# %% slideshow={"slide_type": "fragment"}
fresh = [on_lines(torch.randn(500, 2, generator=generator)) for _ in range(8)]
marginal_ratios, apart = [], (flow.trajectory - pairs).norm(dim=-1).mean(dim=1)
for k in range(1, 5):
    of_flow = sum(wasserstein2(flow.trajectory[k, :500], other[k]) for other in fresh[:4]) / 4
    reference = sum(wasserstein2(a[k], b[k]) for a, b in zip(fresh[:4], fresh[4:], strict=True)) / 4
    marginal_ratios.append(of_flow / reference)
    both = f"W2(flow, pairs) = {of_flow:.2f}   W2(pairs, pairs) = {reference:.2f}"
    print(f"t = {times[k]:.2f}   {both}   the same x0, flow to line: {apart[k]:.2f}")
print(f"largest ratio of the two distances: {max(marginal_ratios):.2f}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## How steep is $u^*$ near $t = 1$?
#
# Carrying $p_0$ along needs a flow, and chapter 02 asked for a velocity that is Lipschitz in $x$. Is $u^*$? Differentiate the softmax:
# $\nabla w_i = w_i\, t\, (x^{(i)} - m) / (1-t)^2$ with the mean $m = \sum_i w_i x^{(i)}$. So the Jacobian is
#
# $$
# \frac{\partial u^*}{\partial x} = \frac{1}{1-t} \Big( \frac{t}{(1-t)^2} \operatorname{Cov}(x_1 \mid x_t = x) - I \Big) .
# $$
#
# - Where one data point has nearly all the weight, the covariance is nearly zero: the largest singular value is $\frac{1}{1-t}$.
# - Halfway between two neighbouring data points at distance $D$, at $x = t\, (x^{(i)} + x^{(j)})/2$, both have the weight
#   $\frac12$. The covariance has the eigenvalue $D^2/4$, and the largest singular value, for $t$ near 1, is $\frac{t\, D^2}{4\,
#   (1-t)^3} - \frac{1}{1-t}$.
#
# Both grow without bound: no single Lipschitz constant holds up to $t = 1$.


# %% slideshow={"slide_type": "subslide"}
def largest_singular_value(x, t):
    """Of the Jacobian of u*, in float64; x (B, 2), one time t -> (B,)."""
    x = x.double().requires_grad_()
    v = closed_form.EmpiricalVelocity(few.double())(x, t)
    rows = [torch.autograd.grad(v[:, i].sum(), x, retain_graph=True)[0] for i in range(2)]
    return torch.linalg.matrix_norm(torch.stack(rows, dim=1), ord=2)


first, second = torch.triu_indices(len(few), len(few), offset=1)  # all pairs of data points
middles, radii = (few[first] + few[second]) / 2, (few[first] - few[second]).norm(dim=1) / 2
alone = torch.cdist(middles, few).amin(dim=1) > radii - 1e-5  # no third data point is nearer to the middle
widest = int((radii * alone).argmax())
D = float(2 * radii[widest])
print(f"two neighbouring data points at distance D = {D:.2f}")

# %% slideshow={"slide_type": "-"}
remaining = torch.tensor([0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005], dtype=torch.float64)  # 1 - t
generator = torch.Generator().manual_seed(15)
x0, x1 = torch.randn(500, 2, generator=generator), few[torch.randint(len(few), (500,), generator=generator)]
typical = [largest_singular_value(path.interpolate(x0, x1, 1 - rest), 1 - rest).median() for rest in remaining]
halfway = [largest_singular_value((1 - rest) * middles[widest : widest + 1], 1 - rest)[0] for rest in remaining]
typical, halfway = torch.stack(typical), torch.stack(halfway)

# %% slideshow={"slide_type": "-"}
by_formula = (1 - remaining) * D**2 / (4 * remaining**3) - 1 / remaining
formula_gap = float((halfway / by_formula - 1)[-4:].abs().max())  # the last four times
formula_gap_typical = float((typical * remaining - 1)[-4:].abs().max())
rates = [plotting.slope(remaining[-4:], values[-4:]) for values in (typical, halfway)]
print(f"growth as a power of 1 - t: at samples of p_t {rates[0]:.2f}, halfway between the two {rates[1]:.2f}")
print(f"1 - t = {remaining[-1]}: {typical[-1]:.0f} at samples of p_t (median), {halfway[-1]:,.0f} halfway")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
curves = {"halfway between two data points": halfway, "at samples of $p_t$, median": typical}
colors = dict(zip(curves, (style.PATH, style.DATA), strict=True))
labels = {"xlabel": "$1 - t$", "ylabel": "largest singular value"}
figure = plotting.curves(remaining, curves, log="xy", markers=True, colors=colors, **labels)
ax = figure.axes[0]
late = remaining <= 0.1
ax.plot(remaining[late], by_formula[late], color=style.EXACT, linestyle="--", label="formulas", zorder=3)
ax.plot(remaining[late], 1 / remaining[late], color=style.EXACT, linestyle="--", zorder=3)
ax.invert_xaxis()
ax.legend()
figure

# %% [markdown] slideshow={"slide_type": "-"}
# Time runs to the right. At typical places the Jacobian grows like $(1-t)^{-1}$, on the boundary between two data points like
# $(1-t)^{-3}$, as the formulas say. Such a boundary region becomes thinner and thinner, and hardly any sample of $p_t$ lies in it.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Why the flow exists all the same
#
# - **Up to any $T < 1$** the covariance is bounded, since the data lie in a bounded set. So $u^*$ is Lipschitz on $[0, T]$, with a constant that
#   depends on $T$. Exactly one trajectory passes through each place at each $t < 1$, and every $\phi_t$ with $t < 1$ is invertible.
# - **Towards $t = 1$**, near a data point $x^{(i)}$ whose weight is nearly 1, the velocity is nearly $(x^{(i)} - x)/(1-t)$. Then
#   the distance to $x^{(i)}$ shrinks in proportion to $1 - t$, and the trajectory reaches $x^{(i)}$ at $t = 1$. As $p_t$ concentrates
#   at the data points, this happens to almost every start.
# - **At $t = 1$** a whole region of noise arrives at the same data point. The limit $\phi_1$ is not invertible, and its distribution has
#   no density. The exceptions are starts on the boundary between two such regions, a set of probability zero.

# %% [markdown] slideshow={"slide_type": "-"}
# In this chapter the solver stops at `path.t_max`, just before 1. A network with finite weights has no such problem: our MLPs are Lipschitz
# on all of $[0, 1]$. Their flow is invertible, so it cannot reproduce a finite data set exactly.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Theorem 2: regress on the conditional velocity instead
#
# $u^*$ costs a sum over all data points. The **conditional flow matching** loss uses a single pair instead,
#
# $$
# L_{\mathrm{CFM}}(\theta) = \mathbb{E}_{t,\, x_0,\, x_1} \, \big\| v_\theta(x_t, t) - u_t(x_t \mid x_1) \big\|^2
# = \mathbb{E}_{t,\, x_0,\, x_1} \, \big\| v_\theta(x_t, t) - (x_1 - x_0) \big\|^2 .
# $$
#
# Its target is wrong at almost every sample. But given $x_t$ it is right on average: $\mathbb{E}[x_1 - x_0 \mid x_t]
# = u^*(x_t, t)$, the definition in Theorem 1. Write $x_1 - x_0 = u^* + \varepsilon$, with $\mathbb{E}[\varepsilon \mid
# x_t] = 0$, and expand:
#
# $$
# \mathbb{E} \| v_\theta - u^* - \varepsilon \|^2
# = \underbrace{\mathbb{E} \| v_\theta - u^* \|^2}_{L_{\mathrm{FM}}(\theta)}
# {} - 2\, \underbrace{\mathbb{E} \langle v_\theta - u^*,\, \varepsilon \rangle}_{= \, 0}
# {} + \underbrace{\mathbb{E} \| \varepsilon \|^2}_{= \, C} .
# $$
#
# The middle term vanishes because $v_\theta - u^*$ depends on $(x_t, t)$ alone, given which $\varepsilon$ averages to
# zero. $C$ has no $\theta$ in it. So $\nabla_\theta L_{\mathrm{CFM}} = \nabla_\theta L_{\mathrm{FM}}$.

# %% [markdown] slideshow={"slide_type": "-"}
# This is Theorem 2 of Lipman et al. 2023. The argument holds for any regression, since a network learns the mean of noisy
# labels; denoising score matching uses it too (Vincent 2011, chapter 01). It needs a target whose mean given $x_t$ is
# $u^*$; it does not need straight lines, a Gaussian source or independent pairs.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## One idea, three proposals
#
# Three groups proposed this method independently, within weeks, in 2022. All join a sample $x_0$ and a sample $x_1$ by a path, regress a network on
# $\dot x_t$, and follow the network with a solver.
#
# | | Name | Starts from | Adds |
# |---|---|---|---|
# | Lipman et al. 2023 | flow matching | conditional paths $p_t(x \mid x_1)$ from Gaussian noise | diffusion paths and straight ones in one family (chapter 04) |
# | Albergo and Vanden-Eijnden 2023 | stochastic interpolants | an interpolant $I_t(x_0, x_1)$ between any two distributions | the interpolant itself can be optimized, for shorter trajectories |
# | Liu, Gong and Liu 2023 | rectified flow | straight lines for any coupling of $x_0$ and $x_1$ | new pairs from the flow, again and again: reflow (chapter 05) |
#
# Albergo, Boffi and Vanden-Eijnden 2023 add noise between the ends, $x_t = I_t(x_0, x_1) + \gamma_t z$, and get flows
# and diffusions from one construction, like chapter 01.

# %% [markdown] slideshow={"slide_type": "skip"}
# *Aside.* The loss of Albergo and Vanden-Eijnden is $\mathbb{E}\big[ \|v_\theta(x_t, t)\|^2 - 2\, v_\theta(x_t, t) \cdot \dot x_t
# \big]$. Add $\mathbb{E} \|\dot x_t\|^2$, which has no $\theta$ in it, and it is $L_{\mathrm{CFM}}$.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Take one network and N samples (x0, x1, t), and compute the gradients of L_FM and L_CFM from the same "
    "samples. What do you get?",
    [
        "two equal gradients, up to rounding",
        "two gradients that differ by a constant, however large N is",
        "two gradients whose difference shrinks like 1 / sqrt(N)",
    ],
    answer=2,
    because="The equality of the gradients holds for expectations. Over N samples the noise in the "
    "conditional target averages out at the rate of every Monte Carlo mean, 1 / sqrt(N). The constant "
    "C belongs to the values of the losses, not to their gradients.",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The gradients agree: an experiment
#
# One network with random weights, the 200 data points, the same $(x_0, x_1, t)$ for both losses. The exact target
# $u^*$ comes from the closed form. As a control, a third target: the conditional velocity of the *most likely* data
# point. It is not $u^*$ on average, so its gradient should stay wrong however many samples there are.

# %% slideshow={"slide_type": "-"}
torch.manual_seed(0)
network = networks.MLP(2, width=64, depth=3)
with torch.no_grad():
    for weight in network.parameters():
        weight *= 2  # far from the answer, so that the gradient is not small


def most_likely(x, t):
    """The control: the conditional velocity of the data point with the largest weight."""
    return path.velocity(x, few[exact_few.weights(x, t).argmax(dim=1)], t)


def batch(n, generator):
    x0 = torch.randn(n, 2, generator=generator)
    x1 = few[torch.randint(len(few), (n,), generator=generator)]
    return x0, x1, path.t_max * torch.rand(n, generator=generator)


def gradient(loss):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])


# %% slideshow={"slide_type": "subslide"}
def fm(x0, x1, t):
    return losses.exact_flow_matching(network, path, x0, x1, exact_few, t)


def cfm(x0, x1, t):
    return losses.conditional_flow_matching(network, path, x0, x1, t)


def control(x0, x1, t):
    return losses.exact_flow_matching(network, path, x0, x1, most_likely, t)


def experiment(loss, repeats, generator):
    """Gradients of L_FM and of another loss from the same samples: (sizes, repeats, 2, parameters)."""
    draws = [[batch(int(n), generator) for _ in range(repeats)] for n in sizes]
    return torch.stack(
        [torch.stack([torch.stack([gradient(fm(*d)), gradient(loss(*d))]) for d in row]) for row in draws]
    )


sizes = torch.tensor([4**k for k in range(2, 8)])  # N = 16 ... 16,384
generator = torch.Generator().manual_seed(6)
found, found_control = experiment(cfm, 40, generator), experiment(control, 5, generator)

# %% slideshow={"slide_type": "subslide"}
truth = found[-1, :, 0].mean(dim=0).norm()  # length of the true gradient, from 40 x 16,384 samples


def squared_distance(found):
    """Of each pair of gradients, relative to the length of the true one; (sizes, repeats)."""
    return (found[:, :, 1] - found[:, :, 0]).square().sum(dim=-1) / truth**2


distance = squared_distance(found).mean(dim=1).sqrt()  # root mean square over the repeats
distance_control = squared_distance(found_control).mean(dim=1).sqrt()
cosine = torch.cosine_similarity(found[:, :, 0], found[:, :, 1], dim=-1).mean(dim=1)

# %% slideshow={"slide_type": "-"}
again = torch.randint(40, (1000, 40), generator=generator)  # bootstrap: draw the 40 repeats again, 1,000 times
resampled = squared_distance(found)[:, again].mean(dim=-1).sqrt()  # (sizes, 1000)
low, high = resampled.quantile(torch.tensor([0.025, 0.975]), dim=1)
slope = plotting.slope(sizes, distance)
slopes = torch.tensor([plotting.slope(sizes, one) for one in resampled.T])
slope_low, slope_high = slopes.quantile(torch.tensor([0.025, 0.975]))
print(f"slope {slope:.2f}, 95% interval [{slope_low:.2f}, {slope_high:.2f}]")
print(f"cosine similarity at N = {sizes[-1]:,}: {cosine[-1]:.4f}")
earlier, last = distance_control[-2:]
print(f"the control: relative distance {earlier:.2f} at N = {sizes[-2]:,}, {last:.2f} at N = {sizes[-1]:,}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, ax = plotting.canvas(width=7.6, height=4.4)
single = squared_distance(found).sqrt()
ax.plot(sizes, single, ".", color=style.PATH, alpha=0.25, markersize=4)
ax.fill_between(sizes, low, high, color=style.PATH, alpha=0.25, linewidth=0)
ax.plot(sizes, distance_control, "s-", color=style.DATA, label="control: target towards the most likely data point")
ax.plot(sizes, distance, "o-", color=style.PATH, label=f"conditional target: slope {slope:.2f}".replace("-", "−"))
ideal = (squared_distance(found) * sizes[:, None]).mean().sqrt() / sizes.sqrt()
ax.plot(sizes, ideal, color=style.EXACT, linestyle="--", linewidth=1.2, label="slope −1/2")
for n, height, value in zip(sizes, high, cosine, strict=True):
    ax.annotate(f"{value:.4f}", (n, height), (3, 12), textcoords="offset points", color=style.PATH)
ax.set(xlim=(11, 36_000), xscale="log", yscale="log", xlabel="samples N", ylabel="distance / length of the gradient")
ax.set_title("Distance between the gradients of $L_{CFM}$ and $L_{FM}$, and their cosine")
ax.legend(loc="lower left")
figure

# %% [markdown] slideshow={"slide_type": "-"}
# Each faint dot compares two gradients from the same $N$ samples; the line is the root mean square of 40 such repeats, with
# its 95% band. The distance falls like $1/\sqrt{N}$, and the cosine similarity (the numbers) approaches one. More samples
# do not help the control: a target must have the right mean.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The values differ, by a constant
#
# Theorem 2 also says $L_{\mathrm{CFM}} = L_{\mathrm{FM}} + C$, with the **conditional variance**
#
# $$
# C = \mathbb{E} \| \varepsilon \|^2 = \mathbb{E}\, \big\| (x_1 - x_0) - u^*(x_t, t) \big\|^2 ,
# $$
#
# the mean variance of the target given $(x_t, t)$, the **irreducible loss**. It depends on the data and the path, not on
# the network. The posterior weights give it without drawing a target.


# %% slideshow={"slide_type": "fragment"}
def target_variance(x, t, exact):
    """Variance of the conditional velocity given x and t, mean over the dimensions; shape (B,)."""
    weights, points = exact.weights(x, t), exact.data
    variance = weights @ points.square().sum(dim=1) - (weights @ points).square().sum(dim=1)
    return variance.clamp(min=0) / ((1 - t) ** 2 * points.shape[1])


# %% slideshow={"slide_type": "-"}
x0, x1, t = batch(65_536, torch.Generator().manual_seed(7))
C = float(target_variance(path.interpolate(x0, x1, t), t, exact_few).mean())
candidates = {"no motion, v = 0": lambda x, t: 0 * x, "random network": network, "the exact u*": exact_few}
constants = []
with torch.no_grad():
    for name, model in candidates.items():
        conditional = float(losses.conditional_flow_matching(model, path, x0, x1, t))
        marginal = float(losses.exact_flow_matching(model, path, x0, x1, exact_few, t))
        constants.append(conditional - marginal)
        print(f"{name:18} L_CFM = {conditional:.2f}   L_FM = {marginal:.2f}   difference {conditional - marginal:.2f}")
spread_of_C = max(abs(constant - C) / C for constant in constants)
print(f"variance of the target, from the weights: C = {C:.2f}; largest relative deviation from it {spread_of_C:.1%}")

# %% [markdown] slideshow={"slide_type": "-"}
# The three differences agree with $C$ up to the deviation in the last line, which is due to the finite number of samples. The
# last model matters most: a *perfect* network has the loss $C$, not 0. A training curve of flow matching levels off far above zero, at the variance of the target.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Where the variance sits
#
# At $t = 0$ the place $x = x_0$ says nothing about $x_1$: the target varies as much as the data. In between, the
# variance is larger. Near $t = 1$ the place tells *which* of finitely many data points it is about to reach, and the
# variance falls to zero.

# %% slideshow={"slide_type": "-"}
grid = torch.cat([torch.linspace(0, 0.9, 19), torch.tensor([0.92, 0.94, 0.96, 0.98, 0.995])])
variances = {}
for n in (20, 200, 2000):
    oracle = closed_form.EmpiricalVelocity(points[:n])
    generator = torch.Generator().manual_seed(8)
    x0 = torch.randn(800, 2, generator=generator)
    x1 = points[torch.randint(n, (800,), generator=generator)]
    rows = [target_variance(path.interpolate(x0, x1, time), time, oracle).mean() for time in grid]
    variances[f"{n:,} data points"] = torch.stack(rows)

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
colors = dict(zip(variances, (style.MODEL, style.PATH, style.DATA), strict=True))
labels = {"xlabel": "t", "ylabel": "variance of the target", "title": "The part of the loss that no network can remove"}
plotting.curves(grid, variances, colors=colors, markers=True, **labels)

# %% [markdown] slideshow={"slide_type": "-"}
# The more data points, the later the variance falls.

# %% [markdown] slideshow={"slide_type": "notes"}
# With $n$ points the fall comes when $1 - t$ is about the distance between neighbours.
# For a distribution with a density the variance does not vanish at $t = 1$: there $x$ fixes $x_1$, and $x_0$ remains
# unknown, with variance 1. In many dimensions the fall comes very early, which is the subject of chapter 07.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## All of it in 25 lines
#
# Draw a data point, a source sample and a time; regress; repeat. Then follow the network with Euler's method (chapter 02).

# %% slideshow={"slide_type": "fragment"}
torch.manual_seed(0)  # the initial weights
net = nn.Sequential(
    nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2)
)
adam = torch.optim.Adam(net.parameters(), lr=5e-3)
generator = torch.Generator().manual_seed(1)  # everything else that is random

for _ in range(1000):
    x1 = points[torch.randint(len(points), (256,), generator=generator)]
    x0 = torch.randn(256, 2, generator=generator)
    t = torch.rand(256, 1, generator=generator)
    xt = (1 - t) * x0 + t * x1
    v = net(torch.cat([xt, t], dim=1))  # time is one more input
    loss = (v - (x1 - x0)).square().mean()
    adam.zero_grad()
    loss.backward()
    adam.step()

samples = start = torch.randn(1000, 2, generator=generator)
with torch.no_grad():
    for k in range(50):  # 50 Euler steps of length 1/50
        t = torch.full((1000, 1), k / 50)
        samples = samples + net(torch.cat([samples, t], dim=1)) / 50

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The same with `fmcore`
#
# The same seeds must give the same weights and the same samples.

# %% slideshow={"slide_type": "fragment"}
torch.manual_seed(0)
model = networks.MLP(2, width=64, depth=3)
generator = torch.Generator().manual_seed(1)
adam = torch.optim.Adam(model.parameters(), lr=5e-3)
for _ in range(1000):
    x1 = points[torch.randint(len(points), (256,), generator=generator)]
    x0 = torch.randn(256, 2, generator=generator)
    t = torch.rand(256, generator=generator)
    loss = losses.conditional_flow_matching(model, path, x0, x1, t)
    adam.zero_grad()
    loss.backward()
    adam.step()
solution = solvers.solve(model, torch.randn(1000, 2, generator=generator), method="euler", steps=50)

weights = zip(net.parameters(), model.parameters(), strict=True)
gap_weights = max(float((a - b).detach().abs().max()) for a, b in weights)
gap_samples = float((samples - solution.x).abs().max())
assert gap_weights < 1e-5, gap_weights
assert gap_samples < 1e-4, gap_samples
print(f"25 lines and fmcore: largest difference of a weight {gap_weights:.0e}, of a sample {gap_samples:.0e}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 3)
plotting.clouds(source=start, limit=3.0, title="start", ax=axes[0])
plotting.clouds(model=samples, limit=3.0, title="25 lines", ax=axes[1])
plotting.clouds(data=points[:1000], limit=3.0, title="data", ax=axes[2])
figure

# %% [markdown] slideshow={"slide_type": "-"}
# The samples lie on two moons, but blurred ones, with points between them.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A better training
#
# Now four hidden layers, 2,000 steps of 512 samples, a learning rate that falls to zero, and an average over the last
# weights. `fmcore.training.train` does all that; the loss is the same.


# %% slideshow={"slide_type": "fragment"}
def flow_matching_loss(model, x1, generator):
    x0 = torch.randn(x1.shape, generator=generator)
    return losses.conditional_flow_matching(model, path, x0, x1, generator=generator)


torch.manual_seed(0)
network = networks.MLP(2, width=64, depth=4)
config = training.TrainingConfig(steps=2000, batch=512, lr=1e-2, decay="cosine", ema=0.99)
run = training.train(network, flow_matching_loss, points, config, progress=False)
learned = run.ema

# %% slideshow={"slide_type": "fragment"}
generator = torch.Generator().manual_seed(9)
x1 = points[torch.randint(len(points), (8192,), generator=generator)]
x0, t = torch.randn(8192, 2, generator=generator), path.t_max * torch.rand(8192, generator=generator)
with torch.no_grad():
    L_learned, L_exact = (float(losses.conditional_flow_matching(v, path, x0, x1, t)) for v in (learned, exact))
smooth = run.losses.unfold(0, 100, 20).mean(dim=1)
print(f"training loss, mean of 100 steps: from {smooth[0]:.2f} to {smooth[-1]:.2f}")
print(f"L_CFM of the trained network {L_learned:.3f}, of the exact velocity {L_exact:.3f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
steps = 100 + 20 * torch.arange(len(smooth))
figure = plotting.curves(
    steps, {"": smooth}, xlabel="training step", ylabel="$L_{CFM}$, mean of 100 steps", colors={"": style.MODEL}
)
ax = figure.axes[0]
ax.axhline(L_exact, color=style.EXACT, linestyle="--", linewidth=1.5)
ax.text(2000, L_exact - 0.01, "C, the loss of the exact velocity $u^*$", ha="right", va="top")
ax.set_ylim(L_exact - 0.08, float(smooth.max()) + 0.02)
figure

# %% [markdown] slideshow={"slide_type": "-"}
# The loss stays far above zero. What counts is its distance from the dashed line, which is $L_{\mathrm{FM}}$, the error of the
# network. Without $C$, a loss curve of flow matching says little about quality.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Sampling
#
# New samples: draw $x_0$, solve $\mathrm{d}x/\mathrm{d}t = v_\theta(x, t)$ to $t = 1$. `dopri5` chooses its own steps
# so that the error of each stays below the tolerance, here $10^{-5}$. NFE is the number of network evaluations it
# took.

# %% slideshow={"slide_type": "fragment"}
x0 = torch.randn(1000, 2, generator=torch.Generator().manual_seed(10))
moments = torch.linspace(0, path.t_max, 101)
learned_flow = solvers.solve(learned, x0, t1=path.t_max, method="dopri5", rtol=1e-5, atol=1e-5, times=moments)

new_data = data.toy.two_moons(6000, torch.Generator().manual_seed(11)).split(1000)  # never seen in training


def to_data(x):
    """W2 from x (1000, 2) to fresh data, the mean over four sets of 1,000."""
    return sum(wasserstein2(x, other) for other in new_data[:4]) / 4


# %% slideshow={"slide_type": "-"}
distances = {"noise": to_data(x0), "25 lines": to_data(samples), "longer training": to_data(learned_flow.x)}
distances["reference: fresh data"] = (to_data(new_data[4]) + to_data(new_data[5])) / 2
W2_ratio = distances["longer training"] / distances["reference: fresh data"]
print(f"dopri5: {learned_flow.nfe} network evaluations (NFE)")
print(f"W2 after longer training, over that of fresh data: {W2_ratio:.2f}")
colors = dict(zip(distances, (style.CYCLE[4], style.MODEL, style.MODEL, style.DATA), strict=True))
plotting.bars(distances, xlabel="$W_2$ to 1,000 fresh data points, mean of four sets", colors=colors)

# %% [markdown] slideshow={"slide_type": "-"}
# Fresh data are not at distance 0 either; the longer training comes close to that reference.

# %% slideshow={"slide_type": "subslide"}
plotting.snapshots(learned_flow, times=[0, 0.25, 0.5, 0.75, 1], limit=3.0)

# %% [markdown] slideshow={"slide_type": "-"}
# The network carries 1,000 source samples to the two moons.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Learned against exact
#
# The exact $u^*$ is known at every place and time, so we can say where the network is wrong. Draw the difference $v_\theta - u^*$ at
# samples of $p_t$, with one scale for all times.

# %% slideshow={"slide_type": "-"}
x0 = torch.randn(2000, 2, generator=torch.Generator().manual_seed(12))
differences = {}
for time in (0.2, 0.6, 0.95):
    where = path.interpolate(x0, points, time)
    with torch.no_grad():
        u, difference = exact(where, time), learned(where, time) - exact(where, time)
    differences[time] = where, difference
    length_of_u, length_of_error = (v.square().sum(dim=1).mean().sqrt() for v in (u, difference))
    print(f"t = {time:4}   root mean square length: u* {length_of_u:.2f}, error of the network {length_of_error:.2f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 3)
for ax, (time, (where, difference)) in zip(axes, differences.items(), strict=True):
    plotting.clouds(data=points, limit=3.0, size=1.0, ax=ax)
    ax.quiver(
        *where[:150].T, *difference[:150].T, color=style.PATH, angles="xy", scale_units="xy", scale=1, width=0.006
    )
    ax.set_title(f"error of the network, t = {time}")
figure

# %% [markdown] slideshow={"slide_type": "-"}
# Arrows: the error of the network, as long as it is; small dots: the data. Early the errors are hardly visible; near $t = 1$ they are
# large and have no common direction.

# %% slideshow={"slide_type": "subslide"}
grid = torch.cat([torch.linspace(0, 0.9, 19), torch.tensor([0.92, 0.94, 0.96, 0.98, 0.99])])
misfit, variance = [], []
for time in grid:
    xt = path.interpolate(x0, points, time)
    with torch.no_grad():
        misfit.append((learned(xt, time) - exact(xt, time)).square().mean())
    variance.append(target_variance(xt, time, exact).mean())
misfit, variance = torch.stack(misfit), torch.stack(variance)
error_early = float((misfit / variance)[grid <= 0.5].max())
print(f"squared error over variance of the targets: at most {error_early:.2%} for t up to 0.5, ", end="")
print(f"{misfit[-1] / variance[-1]:.1f} at t = {grid[-1]:.2f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
names = ("variance of the targets", "squared error of the network")
curves = dict(zip(names, (variance, misfit), strict=True))
colors = dict(zip(names, (style.PATH, style.MODEL), strict=True))
plotting.curves(grid, curves, xlabel="t", ylabel="mean per dimension", log="y", markers=True, colors=colors)

# %% [markdown] slideshow={"slide_type": "-"}
# For $t \le 0.5$ the error is a small part of the variance of the targets: from many wrong targets the network has learned their
# mean. Towards $t = 1$ the error exceeds the variance. There $u^*$ points at single training points, and the network
# has not learned those. That is welcome: a network equal to $u^*$ would only reproduce its training set (chapters 07 and 08).

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Straight lines, curved flow
#
# Every conditional path is a straight line at constant speed. The network was trained on nothing else.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "What do the trajectories of the marginal flow look like?",
    [
        "straight, like the lines it was trained on",
        "curved, and they never meet at the same place and time",
        "curved, and they cross like the lines do",
    ],
    answer=1,
    because="At each place the flow takes the average over the lines that pass there, and this "
    "average changes along a trajectory, so it bends. Where two lines cross, the flow has one velocity "
    "only, so its trajectories cannot cross.",
)

# %% slideshow={"slide_type": "subslide"}
line_data = torch.tensor([[-2.0], [0.4], [2.0]])  # three data points in one dimension
generator = torch.Generator().manual_seed(13)
start = torch.randn(60, 1, generator=generator)
ends = line_data[torch.randint(3, (60,), generator=generator)]
lines = torch.stack([path.interpolate(start, ends, time) for time in moments])
flow_1d = solvers.solve(closed_form.EmpiricalVelocity(line_data), start, t1=path.t_max, times=moments).trajectory


def crossing(states):
    """Share of the pairs of trajectories (T, B) that have changed their order by t = 0.95, before they all meet."""
    ahead = states[:, :, None] > states[:, None, :]  # which of two is ahead, at each time
    return float((ahead[0] != ahead[95]).sum() / (len(start) * (len(start) - 1)))


crossings = [crossing(lines[..., 0]), crossing(flow_1d[..., 0])]
print(f"pairs that cross: lines {crossings[0]:.0%}, flow {crossings[1]:.0%}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 2, height=3.6, sharey=True)
for ax, name, states in zip(axes, ("lines", "flow of $u^*$"), (lines[..., 0], flow_1d[..., 0]), strict=True):
    for point, color in zip(line_data, (style.DATA, style.PATH, style.CYCLE[4]), strict=True):
        ax.plot(moments, states[:, (states[-1] - point).abs() < 0.05], color=color, linewidth=1.1, alpha=0.8)
    ax.set(xlabel="t", title=name)
axes[0].set_ylabel("x")
figure

# %% [markdown] slideshow={"slide_type": "-"}
# Three data points on a line; colour shows where a trajectory ends. The lines cross; the trajectories of the flow bend and do not.


# %% slideshow={"slide_type": "subslide"}
def detour(trajectory):
    """Length of each trajectory (T, B, 2) over the distance between its ends; 1 for a straight line."""
    return trajectory.diff(dim=0).norm(dim=-1).sum(dim=0) / (trajectory[-1] - trajectory[0]).norm(dim=-1)


x0 = learned_flow.trajectory[0, :300]
panels = {
    "lines": torch.stack([path.interpolate(x0, points[:300], time) for time in moments]),
    "flow of $u^*$": solvers.solve(exact, x0, t1=path.t_max, times=moments).trajectory,
    "network": learned_flow.trajectory[:, :300],
}
detours = {name: float(detour(states).median()) for name, states in panels.items()}

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 3)
for ax, (name, states) in zip(axes, panels.items(), strict=True):
    plotting.trajectories((moments, states), count=120, limit=3.0, title=f"{name}: detour {detours[name]:.2f}", ax=ax)
figure

# %% [markdown] slideshow={"slide_type": "-"}
# Colour is time: orange at the source ($t = 0$), then pink, dark violet at the data ($t = 1$). The **detour** is the length
# of a trajectory over the distance between its ends, here the median over the trajectories. A solver must follow the
# bends, which costs evaluations; chapter 05 pairs source and data so that trajectories bend less.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Real data: handwritten digits
#
# Nothing above depends on the plane. An image of $8 \times 8$ pixels is a point in $\mathbb{R}^{64}$. We take the handwritten
# digits of scikit-learn, the same loss, a wider network with 64 inputs, and the exact velocity of the training images.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "The exact velocity of the training images and the network start from the same noise samples. Where do they end?",
    [
        "both at training images",
        "both at new images",
        "the exact one at training images, the network at new ones",
    ],
    answer=2,
    because="u* is the exact velocity of the training images and carries the noise to exactly these. "
    "The network differs from u* near t = 1, and so it makes images that are not in the training set.",
)

# %% slideshow={"slide_type": "-"}
digits = data.digits()
print(f"{len(digits.train):,} training images, {len(digits.held_out)} held out")
SCALE = 3.0  # stretched, so that the images reach further than the noise
train, held_out = SCALE * digits.scaled(digits.train), SCALE * digits.scaled(digits.held_out)

torch.manual_seed(0)
network = networks.MLP(64, width=256, depth=3)
config = training.TrainingConfig(steps=2000, batch=256, lr=1e-2, decay="cosine", ema=0.99)
digit_run = training.train(network, flow_matching_loss, train, config, progress=False)

# %% slideshow={"slide_type": "-"}
noise = torch.randn(297, 1, 8, 8, generator=torch.Generator().manual_seed(14))
copies = solvers.solve(closed_form.EmpiricalVelocity(train), noise, t1=path.t_max)
made = solvers.solve(digit_run.ema, noise, t1=path.t_max)
print(f"NFE of dopri5: exact {copies.nfe}, network {made.nfe}")


# %% slideshow={"slide_type": "subslide"}
def nearest(images):
    """The two nearest training images: distances (B, 2) on the pixel scale [-1, 1], and indices."""
    return torch.cdist(images.flatten(1), train.flatten(1)).div(SCALE).topk(2, largest=False)


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
columns = []
for images in (copies.x[:12], made.x[:12]):
    columns += [images / SCALE, train[nearest(images).indices[:, 0]] / SCALE]
rows = ["exact $u^*$", "nearest in training", "network", "nearest in training"]
plotting.images(torch.cat(columns), columns=12, rows=rows)

# %% [markdown] slideshow={"slide_type": "-"}
# Each column starts from one noise sample. The exact velocity makes training images; the network's samples differ from
# their nearest training images.

# %% [markdown] slideshow={"slide_type": "subslide"}
# Is the network's sample new, or a copy with some noise on it? Two numbers help: the distance to the nearest training image, and
# that distance over the distance to the *second* nearest. If a sample is a copy, its original stands out and the ratio is small.
# For comparison, the same numbers for held-out digits (new and real), for training images with noise added (copies about as far
# away as the network's samples), and for noise alone, as wide as the pixels.

# %% slideshow={"slide_type": "-"}
found = nearest(made.x)
far = float(found.values[:, 0].mean()) * SCALE / 8  # noise of that length in 64 dimensions
sets = {
    "exact u*": copies.x,
    "held-out digits": held_out,
    "network": made.x,
    "noisy copies": train[:297] + far * noise,
    "noise": SCALE * 0.7 * noise,
}
distance_to = {name: nearest(images).values for name, images in sets.items()}
stands_out = {name: float((d[:, 0] / d[:, 1]).mean()) for name, d in distance_to.items()}
for name, d in distance_to.items():
    print(f"{name:16} nearest at {d[:, 0].mean():4.2f}   nearest over second nearest {stands_out[name]:.2f}")
means = {name: float(d[:, 0].mean()) for name, d in distance_to.items()}

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
shades = dict(zip(sets, (style.EXACT, style.DATA, style.MODEL, style.PATH, style.CYCLE[4]), strict=True))
figure, axes = plotting.canvas(1, 2, height=2.6)
plotting.bars(means, title="distance to the nearest", colors=shades, ax=axes[0])
plotting.bars(stands_out, title="nearest over second nearest", colors=shades, ax=axes[1])
axes[1].set_yticklabels([])
figure

# %% [markdown] slideshow={"slide_type": "-"}
# The exact velocity copies: its samples *are* training images. The network's samples are not: their nearest training image is
# almost as far as the second nearest, as for held-out digits, while for noisy copies it is clearly nearer.

# %% slideshow={"slide_type": "subslide"}
reached, nearest_of_network = nearest(copies.x).indices[:, 0], found.indices[:, 0]
same = float((nearest_of_network == reached).float().mean())
by_chance = float((nearest_of_network[:, None] == reached).float().mean())  # unrelated noise samples
print(f"nearest training image of the network's sample = image that u* reaches: {same:.0%}")
print(f"for pairs of unrelated noise samples: {by_chance:.1%}")

# %% [markdown] slideshow={"slide_type": "-"}
# Still, the two flows are related: far more often than by chance, the training image nearest to the network's sample is the
# very one that $u^*$ reaches from the same noise sample.
#
# The samples are farther from the training images than real digits are: this is a small network, trained for seconds. Chapter 06
# trains a U-Net. Why a network generalizes at all, when the minimizer of its loss copies, is the question of chapters 07 and 08.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you saw

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
control_ratio = float(distance_control[-1] / distance[-1])
far_ratio = means["network"] / means["held-out digits"]
first_rows = [
    Claim("u* and the average of pairs that meet at x: standard errors", worst_place, below(4)),
    Claim("flow of u* against p_t: W2 over that of two samples of p_t, worst t", max(marginal_ratios), below(1.5)),
    Claim(
        "Jacobian of u*, largest singular value at samples of p_t: power of 1 - t", rates[0], about(-1, 0.05), digits=1
    ),
    Claim("the same halfway between two data points: power of 1 - t", rates[1], about(-3, 0.05), digits=1),
    Claim("gradient of L_CFM minus gradient of L_FM: power of N", slope, about(-0.5, 0.04), digits=1),
    Claim("L_CFM - L_FM against C, three models: relative difference", spread_of_C, below(0.03)),
    Claim("25 lines and fmcore: largest difference of a weight", gap_weights, below(1e-5)),
    Claim("learned samples against fresh data: W2 over that of two fresh sets", W2_ratio, below(1.5)),
    Claim("pairs of trajectories of u* that cross", crossings[1], exactly(0), digits=0),
    Claim("digits, exact u*: distance to the nearest training image", means["exact u*"], below(0.005), digits=2),
]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
more_rows = [
    Claim("u* as a softmax by hand and in fmcore: largest difference", gap_by_hand, below(1e-4)),
    Claim(
        "Jacobian of u* at samples of p_t, against 1 / (1 - t): relative difference", formula_gap_typical, below(0.02)
    ),
    Claim("Jacobian of u* halfway, against its formula: relative difference", formula_gap, below(0.02)),
    Claim("cosine of the two gradients at N = 16,384", cosine[-1], above(0.999)),
    Claim("distance from the gradient of L_FM: control over L_CFM, same N", control_ratio, above(10)),
    Claim("25 lines and fmcore: largest difference of a sample", gap_samples, below(1e-4)),
    Claim("loss of u* over loss of the trained network", L_exact / L_learned, between(0.95, 1)),
    Claim("network evaluations of dopri5 for the learned samples", learned_flow.nfe, below(120)),
    Claim("error of the network over variance of its targets, t up to 0.5", error_early, below(0.01)),
    Claim("the same at t = 0.99", misfit[-1] / variance[-1], above(1)),
    Claim("pairs of conditional lines that cross", crossings[0], about(0.37, 0.02), digits=2),
    Claim("detour of the trajectories of u* (a line has 1)", detours["flow of $u^*$"], about(1.77, 0.03), digits=1),
    Claim("digits, network: distance to the nearest, over that of held-out digits", far_ratio, above(1)),
    Claim("digits, network: nearest over second nearest training image", stands_out["network"], above(0.85)),
    Claim("digits, noisy copies: nearest over second nearest", stands_out["noisy copies"], below(0.8)),
    Claim("network and u* from the same noise sample: same training image, over chance", same / by_chance, above(10)),
]

# %% slideshow={"slide_type": "-"} tags=["nbval-check-output"]
claims.table(first_rows + more_rows)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## To remember
#
# - The velocity of one pair is known; the marginal velocity is its conditional mean given $x_t$, for any coupling.
# - Regression on noisy targets learns their mean. That is why the simple loss is enough, and why it does not go to zero.
# - Straight conditional paths do not give straight flows.
# - The minimizer of the loss over finitely many data points copies them, and is not Lipschitz up to $t = 1$. A trained network differs.

# %% [markdown] slideshow={"slide_type": "skip"}
# ## References
#
# - Pascal Vincent 2011. A connection between score matching and denoising autoencoders. *Neural Computation*.
# - Yaron Lipman, Ricky T. Q. Chen, Heli Ben-Hamu, Maximilian Nickel, Matt Le 2023. Flow matching for generative modeling. ICLR.
#   arXiv 2210.02747.
# - Michael S. Albergo, Eric Vanden-Eijnden 2023. Building normalizing flows with stochastic interpolants. ICLR. arXiv 2209.15571.
# - Michael S. Albergo, Nicholas M. Boffi, Eric Vanden-Eijnden 2023. Stochastic interpolants: a unifying framework for flows and
#   diffusions. arXiv 2303.08797.
# - Xingchao Liu, Chengyue Gong, Qiang Liu 2023. Flow straight and fast: learning to generate and transfer data with rectified
#   flow. ICLR. arXiv 2209.03003.
#
# Where to read on: Yaron Lipman and others 2024, Flow matching guide and code, arXiv 2412.06264, on flow matching beyond $\mathbb{R}^d$;
# Peter Holderrieth, Ezra Erives 2025, An introduction to flow matching and diffusion models, lecture notes of MIT 6.S184.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# In [exercises/03_flow_matching.ipynb](exercises/03_flow_matching.ipynb); each has a check that says what is wrong.
#
# 1. **The velocity towards a small Gaussian.** Derive the velocity of the path of Lipman et al. that stops at a
#    small Gaussian around each data point.
# 2. **A source that is not Gaussian.** Theorem 1 with any source: derive the weights of the data points.
# 3. **A loss that falls.** A training loss with three faults goes down smoothly. Find and mend them.
# 4. **The loss of a perfect network.** For Gaussian pairs, correlated or not, the irreducible loss can be derived.
# 5. **The weak form of Theorem 1.** A proof without densities, each step checked numerically.
# 6. **How should a batch draw its times?** Measure what the way of drawing times does to the noise of the loss.
#
# <!-- next: written by fmcore.course.build -->
#
# Next: [04 Probability paths](04_probability_paths.ipynb). Which path is best: diffusion or a straight line?
#
# <!-- end of next -->
