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
# A velocity carries noise to data. Nobody knows that velocity; all we have are samples of the data. Flow matching
# learns it by plain regression on a *wrong* target, the velocity of a single pair of noise and data. This chapter
# shows why the network nevertheless learns the *right* one, and measures it.

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
        "derive why the conditional loss has the right gradient (Theorem 2)",
        "write, train and sample a flow matching model in 25 lines",
        "say which part of the loss no network can remove",
    ],
    before=["chapter 02: flows and the continuity equation", "a training loop in PyTorch"],
    exercises=[
        "1. The conditional velocity",
        "2. The marginal velocity",
        "3. The loss",
        "4. The loss of a perfect network",
        "5. A sampler",
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
# Nobody does. We know neither the target $u_t$ nor how to draw from $p_t$.

# %% [markdown] slideshow={"slide_type": "notes"}
# Chapter 02 trained a flow by maximum likelihood, which solves a differential equation in every training step. Flow
# matching (Lipman et al. 2023) never solves one while it trains. Here the data are 2,000 points on two moons in the
# plane, so $d = 2$. Losses are averaged over the $d$ dimensions, as in `fmcore.losses`.

# %% slideshow={"slide_type": "subslide"}
points = data.toy.two_moons(2000, torch.Generator().manual_seed(0))  # all that we know about p_1
source = torch.randn(2000, 2, generator=torch.Generator().manual_seed(1))

figure, (left, right) = plotting.canvas(1, 2, width=7.5)
plotting.clouds(source=source, limit=3.2, title="source $p_0$: drawn at will", ax=left)
plotting.clouds(data=points, limit=3.2, title="data: 2,000 samples of $p_1$", ax=right)
figure

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
# which says: the rest of the way, divided by the rest of the time.

# %% [markdown] slideshow={"slide_type": "notes"}
# This is the rectified path, the optimal-transport path of Lipman et al. with $\sigma_{\min} = 0$. Their Theorem 3
# gives $u_t(x \mid x_1)$ for every path $\alpha_t x_1 + \sigma_t x_0$; chapter 04 compares them. Theorems 1 and 2
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
torch.testing.assert_close(by_hand_velocity, x1 - x0, rtol=1e-4, atol=1e-5)  # the two are one

# %% slideshow={"slide_type": "subslide"}
lone = torch.tensor([1.6, 1.0])  # one data point


def towards_lone(x, t):
    return path.velocity(x, lone.expand_as(x), t)


figure, axes = plotting.canvas(1, 4)
for ax, time in zip(axes, (0.0, 0.3, 0.6, 0.9), strict=True):
    plotting.field(towards_lone, time, points=11, limit=3.2, color=style.MUTED, ax=ax)
    cloud = path.interpolate(source[:400], lone.expand(400, 2), time)
    ax.scatter(*cloud.T, s=7, color=style.time_map()(time), linewidths=0, alpha=0.8)
    ax.scatter(*lone, s=90, marker="*", color="white", edgecolors=style.DATA, zorder=3)
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# The Gaussian (dots) shrinks onto one data point (star). The grey arrows are the conditional velocity $u_t(x \mid
# x_1)$, scaled in each panel so that the longest fits: they always point at the star. Following a field like this one
# takes all noise to one point. The question is how to put 2,000 such fields together.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Many data points: which way?
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
# ## Theorem 1: the marginal velocity is a posterior average
#
# Each conditional pair satisfies the continuity equation of chapter 02, $\partial_t\, p_t(x \mid x^{(i)}) = -\nabla
# \cdot \big( p_t(x \mid x^{(i)})\, u_t(x \mid x^{(i)}) \big)$. Average it over $i$. Derivative and divergence are
# linear, so they pass through the sum:
#
# $$
# \partial_t\, p_t(x)
# = -\nabla \cdot \Big( \frac{1}{n} \sum_i p_t(x \mid x^{(i)})\, u_t(x \mid x^{(i)}) \Big)
# = -\nabla \cdot \Big( p_t(x) \underbrace{\sum_i w_i(x, t)\, u_t(x \mid x^{(i)})}_{u^*(x, t)} \Big) ,
# \qquad
# w_i(x, t) = \frac{p_t(x \mid x^{(i)})}{\sum_j p_t(x \mid x^{(j)})} .
# $$
#
# This is the continuity equation of $p_t$ with the velocity $u^*$. So $u^*$ carries $p_0$ through every $p_t$ to
# $p_1$. By Bayes' rule $w_i(x, t)$ is the probability that a particle found at $x$ at time $t$ is on its way to
# $x^{(i)}$.

# %% [markdown] slideshow={"slide_type": "notes"}
# This is Theorem 1 of Lipman et al. 2023, for data that are $n$ points. For any $p_1$ the sums become integrals:
# $u_t(x) = \mathbb{E}[\,u_t(x \mid x_1) \mid x_t = x\,]$, the expectation over the data points that may have produced
# $x$. We write $u^*$ where the data are finitely many points, because then it can be computed exactly.

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
for time in (0.0, 0.25, 0.5, 0.75):
    velocity, weights = marginal_velocity(x, time, few)
    torch.testing.assert_close(exact_few.weights(x, time), weights, rtol=1e-3, atol=1e-5)
    gap_by_hand = max(gap_by_hand, float((exact_few(x, time) - velocity).abs().max()))
assert gap_by_hand < 1e-3, gap_by_hand

# %% [markdown] slideshow={"slide_type": "skip"}
# These few lines and `fmcore.closed_form.EmpiricalVelocity` agree. The latter also works for images, for 50,000
# points and up to $t = 1 - 10^{-5}$, where the short version loses its digits.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The picture of Theorem 1
#
# One place $x$, all conditional arrows, and their average.


# %% slideshow={"slide_type": "skip"}
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


# %% slideshow={"slide_type": "fragment"}
figure, axes = plotting.canvas(1, 3)
for ax, time in zip(axes, (0.1, 0.5, 0.8), strict=True):
    posterior_picture(time, 1.2, 0.9, 80, ax=ax)
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# The circle is the place $x$, the same in all three panels. Each thin line is a conditional velocity $u_t(x \mid
# x^{(i)})$, drawn $(1 - t)$ times as long as it is: at this scale it ends at its data point. The more opaque the line
# and the larger the dot, the larger the weight $w_i(x, t)$. The black arrow is the average, $u^*(x, t)$ at the same
# scale, and ends at the mean of the data points as seen from $x$, $\mathbb{E}[x_1 \mid x_t = x]$. The title counts
# how many points take part, as $1 / \sum_i w_i^2$: all of them count near the source, a few near the data.

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
# from one moon to the other: where does the arrow turn over? Raise $n$ at $t = 0.95$: from which $n$ on does the
# arrow stop pointing at a single data point?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The same average by experiment
#
# No formula this time. Draw many pairs $(x_0, x_1)$, keep those whose $x_t$ falls within 0.05 of a place $x$, and
# average their $x_1 - x_0$. The lines of the pairs that meet at $x$ go every way; their average is $u^*(x, t)$.

# %% slideshow={"slide_type": "fragment"}
places = torch.tensor([[1.2, 0.9], [-0.8, -0.6], [0.0, 0.0], [0.5, -1.0]])
generator = torch.Generator().manual_seed(4)
x0 = torch.randn(2_000_000, 2, generator=generator)
x1 = few[torch.randint(len(few), (len(x0),), generator=generator)]
xt = path.interpolate(x0, x1, 0.5)

meeting = [(xt - place).norm(dim=1) < 0.05 for place in places]  # which pairs pass through each place at t = 0.5
counted = torch.stack([(x1 - x0)[close].mean(dim=0) for close in meeting])
error = torch.stack([(x1 - x0)[close].std(dim=0) / close.sum().sqrt() for close in meeting])
formula = exact_few(places, 0.5)
worst_place = float(((counted - formula).abs() / error).max())
for x, count, half, u, close in zip(places, counted, error, formula, meeting, strict=True):
    average = f"average ({count[0]:5.2f}, {count[1]:5.2f}) ± ({half[0]:.2f}, {half[1]:.2f})"
    print(f"x = ({x[0]:4.1f}, {x[1]:4.1f}) {int(close.sum()):6} pairs   {average}   u* ({u[0]:5.2f}, {u[1]:5.2f})")

# %% slideshow={"slide_type": "fragment"}
figure, axes = plotting.canvas(1, 2, width=7.5)
for ax, k in zip(axes, (0, 1), strict=True):
    chosen = meeting[k].nonzero()[:40, 0]
    title = f"40 pairs that meet at ({places[k, 0]:.1f}, {places[k, 1]:.1f})"
    plotting.pairs(x0[chosen], x1[chosen], limit=3.2, title=title, ax=ax)
    ax.annotate("", places[k] + 0.5 * formula[k], places[k], arrowprops=ARROW, zorder=5)
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# Orange ends are source samples, blue ends data points. The black arrow is $u^*$ at half its length, so that it ends
# at the mean of the blue ends. All averages of the table agree with the formula within two of their standard errors
# (the numbers after ±).

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Does $u^*$ really carry $p_0$ along $p_t$?
#
# Two ways to time $t$. **Pairs**: draw $x_0$ and $x_1$ independently and put $x_t$ on the line between them; by
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
    "says nothing about single points, and a point that follows u* does not move along "
    "any of the lines.",
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

# %% slideshow={"slide_type": "subslide"}
figure, axes = plotting.canvas(2, 4)
plotting.snapshots((times, pairs), times=times[1:], limit=3.0, axes=axes[0])
plotting.snapshots(flow, times=times[1:], limit=3.0, title="", axes=axes[1])
axes[0, 0].set_ylabel("pairs")
axes[1, 0].set_ylabel("flow of $u^*$")
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# To the eye they are the same. As a number: $W_2$, the 2-Wasserstein distance, is the root mean square distance over
# which the points of one set must be moved to become the other. Two finite samples of the *same* distribution are not
# at distance 0, so a yardstick is needed: the distance between two fresh samples of $p_t$. Both are averages over
# four sets of 500. The last column says how far the two ways take the same $x_0$ from each other.

# %% slideshow={"slide_type": "fragment"}
fresh = [on_lines(torch.randn(500, 2, generator=generator)) for _ in range(8)]
marginal_ratios, apart = [], (flow.trajectory - pairs).norm(dim=-1).mean(dim=1)
for k in range(1, 5):
    of_flow = sum(wasserstein2(flow.trajectory[k, :500], other[k]) for other in fresh[:4]) / 4
    yardstick = sum(wasserstein2(a[k], b[k]) for a, b in zip(fresh[:4], fresh[4:], strict=True)) / 4
    marginal_ratios.append(of_flow / yardstick)
    both = f"W2(flow, pairs) = {of_flow:.2f}   W2(pairs, pairs) = {yardstick:.2f}"
    print(f"t = {times[k]:.2f}   {both}   the same x0, flow to line: {apart[k]:.2f}")

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
# = u^*(x_t, t)$, by Theorem 1. Write $x_1 - x_0 = u^* + \varepsilon$, with $\mathbb{E}[\varepsilon \mid x_t] = 0$,
# and expand:
#
# $$
# \mathbb{E} \| v_\theta - u^* - \varepsilon \|^2
# = \underbrace{\mathbb{E} \| v_\theta - u^* \|^2}_{L_{\mathrm{FM}}(\theta)}
# - 2\, \underbrace{\mathbb{E} \langle v_\theta - u^*,\, \varepsilon \rangle}_{= \, 0}
# + \underbrace{\mathbb{E} \| \varepsilon \|^2}_{= \, C} .
# $$
#
# The middle term vanishes because $v_\theta - u^*$ depends on $(x_t, t)$ alone, given which $\varepsilon$ averages to
# zero. $C$ has no $\theta$ in it. So $\nabla_\theta L_{\mathrm{CFM}} = \nabla_\theta L_{\mathrm{FM}}$.

# %% [markdown] slideshow={"slide_type": "notes"}
# This is Theorem 2 of Lipman et al. 2023. The argument is that of any regression: the mean of noisy labels is learned
# as well as the mean itself. It needs a target whose average given $x_t$ is $u^*$; it does not need straight lines, a
# Gaussian source or independent pairs.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "One network, N samples (x0, x1, t): the gradients of both losses, from the same samples?",
    [
        "two equal gradients, up to rounding",
        "two gradients that differ by a constant, however large N is",
        "two gradients whose difference shrinks like 1 / sqrt(N)",
    ],
    answer=2,
    because="The equality holds for expectations. Over N samples the noise in the conditional "
    "target averages out at the rate of every Monte Carlo mean, 1 / sqrt(N). The constant "
    "belongs to the values of the losses, not to their gradients.",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The experiment
#
# One network with random weights, the 200 data points, the same $(x_0, x_1, t)$ for both losses. The exact target
# $u^*$ comes from the closed form. As a control, a third target: the conditional velocity of the *most likely* data
# point. It is not $u^*$ on average, so its gradient should stay wrong however many samples there are.

# %% slideshow={"slide_type": "skip"}
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


# %% slideshow={"slide_type": "skip"}
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

# %% slideshow={"slide_type": "skip"}
truth = found[-1, :, 0].mean(dim=0).norm()  # length of the true gradient, from 40 x 16,384 samples


def squared_distance(found):
    """Of each pair of gradients, relative to the length of the true one; (sizes, repeats)."""
    return (found[:, :, 1] - found[:, :, 0]).square().sum(dim=-1) / truth**2


distance = squared_distance(found).mean(dim=1).sqrt()  # root mean square over the repeats
distance_control = squared_distance(found_control).mean(dim=1).sqrt()
cosine = torch.cosine_similarity(found[:, :, 0], found[:, :, 1], dim=-1).mean(dim=1)

again = torch.randint(40, (1000, 40), generator=generator)  # bootstrap: draw the 40 repeats again, 1,000 times
resampled = squared_distance(found)[:, again].mean(dim=-1).sqrt()  # (sizes, 1000)
low, high = resampled.quantile(torch.tensor([0.025, 0.975]), dim=1)
slope = plotting.slope(sizes, distance)
slopes = torch.tensor([plotting.slope(sizes, one) for one in resampled.T])
slope_low, slope_high = slopes.quantile(torch.tensor([0.025, 0.975]))
print(f"slope {slope:.2f}, 95% interval [{slope_low:.2f}, {slope_high:.2f}]")
print(f"cosine similarity at N = {sizes[-1]:,}: {cosine[-1]:.4f}")

# %% slideshow={"slide_type": "subslide"}
figure, ax = plotting.canvas(width=7.6, height=4.4)
single = squared_distance(found).sqrt()
ax.plot(sizes, single, ".", color=style.PATH, alpha=0.25, markersize=4)
ax.fill_between(sizes, low, high, color=style.PATH, alpha=0.25, linewidth=0)
ax.plot(sizes, distance_control, "s-", color=style.SOURCE, label="control: target towards the most likely data point")
ax.plot(sizes, distance, "o-", color=style.PATH, label=f"conditional target: slope {slope:.2f}".replace("-", "−"))
ideal = (squared_distance(found) * sizes[:, None]).mean().sqrt() / sizes.sqrt()
ax.plot(sizes, ideal, color=style.EXACT, linestyle="--", linewidth=1.2, label="slope −1/2")
for n, height, value in zip(sizes, high, cosine, strict=True):
    ax.annotate(f"{value:.4f}", (n, height), (3, 12), textcoords="offset points", color=style.PATH)
ax.set(xlim=(11, 36_000), xscale="log", yscale="log", xlabel="samples N", ylabel="distance / length of the gradient")
ax.set_title("Distance between the gradients of $L_{CFM}$ and $L_{FM}$, and their cosine")
ax.legend(loc="lower left")
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# Each faint dot compares two gradients that come from the same $N$ samples; the line is the root mean square of 40
# such repeats, with its 95% band. The distance falls like $1/\sqrt{N}$, and the cosine similarity (numbers)
# approaches one. For small $N$ the conditional gradient is mostly noise; training works because the noise is fresh in
# each step and averages out. The control settles at a distance that more samples do not reduce: a target must have
# the right mean, not only look plausible.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The values differ, by a constant
#
# Theorem 2 also says $L_{\mathrm{CFM}} = L_{\mathrm{FM}} + C$, with the **conditional variance**
#
# $$
# C = \mathbb{E} \| \varepsilon \|^2 = \mathbb{E}\, \big\| (x_1 - x_0) - u^*(x_t, t) \big\|^2 ,
# $$
#
# the mean variance of the target given $(x_t, t)$. It depends on the data and the path, not on the network. The
# weights give it without drawing a target: a point $x$ sees the data point $x^{(i)}$ with probability $w_i$.


# %% slideshow={"slide_type": "fragment"}
def target_variance(x, t, exact):
    """Variance of the conditional velocity given x and t, a dimension; shape (B,)."""
    weights, points = exact.weights(x, t), exact.data
    variance = weights @ points.square().sum(dim=1) - (weights @ points).square().sum(dim=1)
    return variance.clamp(min=0) / ((1 - t) ** 2 * points.shape[1])


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
print(f"variance of the target, from the weights: C = {C:.2f}")

# %% [markdown] slideshow={"slide_type": "skip"}
# The three differences agree with $C$ within the noise of 65,536 samples, about one per cent. The last of the three
# models is the important one: a *perfect* network has the loss $C$, not 0. When a training curve of flow matching
# levels off far above zero, nothing is wrong. The loss that is left is the variance of the target.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Where the variance sits
#
# At $t = 0$ the place $x = x_0$ says nothing about $x_1$: the target varies as much as the data. In between, the
# variance is larger. Near $t = 1$ the place says *which* of finitely many data points it is about to reach, and the
# variance falls to zero.

# %% slideshow={"slide_type": "fragment"}
grid = torch.linspace(0, 0.995, 50)
variances, colors = {}, {}
for n, shade in ((20, 0.35), (200, 0.6), (2000, 0.9)):
    oracle = closed_form.EmpiricalVelocity(points[:n])
    generator = torch.Generator().manual_seed(8)
    x0 = torch.randn(800, 2, generator=generator)
    x1 = points[torch.randint(n, (800,), generator=generator)]
    rows = [target_variance(path.interpolate(x0, x1, time), time, oracle).mean() for time in grid]
    variances[f"{n:,} data points"] = torch.stack(rows)
    colors[f"{n:,} data points"] = style.density_map()(shade)
title = "The part of the loss that no network can remove"
plotting.curves(grid, variances, xlabel="t", ylabel="variance of the target", title=title, colors=colors)

# %% [markdown] slideshow={"slide_type": "notes"}
# The more data, the later the fall: with $n$ points it comes when $1 - t$ is about the distance between neighbours.
# For a continuous distribution the variance does not vanish at $t = 1$: there $x$ fixes $x_1$, and $x_0$ remains
# unknown, with variance 1. In many dimensions the fall comes very early, which is the subject of chapter 07.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## All of it in 25 lines
#
# Draw a data point, a source sample and a time; regress; repeat. Then follow the network with Euler's method.

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

# %% slideshow={"slide_type": "subslide"}
figure, axes = plotting.canvas(1, 3)
plotting.clouds(source=start, limit=3.0, title="start", ax=axes[0])
plotting.clouds(model=samples, limit=3.0, title="25 lines", ax=axes[1])
plotting.clouds(data=points[:1000], limit=3.0, title="data", ax=axes[2])
figure

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A better training
#
# After a thousand steps the moons are blurred. Now four hidden layers, 2,000 steps of 512 samples, a learning rate
# that falls to zero, and an average over the last weights. `fmcore.training.train` does all that; the loss is the one
# you know.


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
print(f"L_CFM of the trained network {L_learned:.3f}, of the exact velocity {L_exact:.3f}")

smooth = run.losses.unfold(0, 100, 20).mean(dim=1)
steps = 100 + 20 * torch.arange(len(smooth))
figure = plotting.curves(
    steps, {"": smooth}, xlabel="training step", ylabel="$L_{CFM}$, mean of 100 steps", colors={"": style.MODEL}
)
ax = figure.axes[0]
ax.axhline(L_exact, color=style.EXACT, linestyle="--", linewidth=1.5)
ax.text(2000, L_exact - 0.01, "C, the loss of the exact velocity $u^*$", ha="right", va="top")
ax.set_ylim(L_exact - 0.08, float(smooth.max()) + 0.02)
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# The loss falls by about a third and stays far above zero. What counts is its distance from the dashed line, which is
# $L_{\mathrm{FM}}$, the error of the network. A loss curve of flow matching says little as long as $C$ is not known.

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


distances = {"noise": to_data(x0), "25 lines": to_data(samples), "longer training": to_data(learned_flow.x)}
distances["yardstick: fresh data"] = (to_data(new_data[4]) + to_data(new_data[5])) / 2
colors = dict(zip(distances, (style.SOURCE, style.MODEL, style.MODEL, style.DATA), strict=True))
print(f"dopri5: {learned_flow.nfe} network evaluations (NFE)")
plotting.bars(distances, xlabel="$W_2$ to 1,000 fresh data points, mean of four sets", colors=colors)

# %% slideshow={"slide_type": "subslide"}
plotting.snapshots(learned_flow, times=[0, 0.25, 0.5, 0.75, 1], limit=3.0)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Learned against exact
#
# The exact $u^*$ is known at every place and time, so we can say where the network is wrong. Black arrows: $u^*$ at
# points of $p_t$. Teal arrows on top: the network.

# %% slideshow={"slide_type": "fragment"}
x0 = torch.randn(2000, 2, generator=torch.Generator().manual_seed(12))
figure, axes = plotting.canvas(1, 3)
for ax, time in zip(axes, (0.2, 0.6, 0.95), strict=True):
    where = path.interpolate(x0[:80], points[:80], time)
    with torch.no_grad():
        arrows = ((exact(where, time), style.EXACT, 0.009), (learned(where, time), style.MODEL, 0.004))
    ax.scatter(*points.T, s=1.5, color=style.MUTED, alpha=0.4, linewidths=0)
    for u, color, width in arrows:
        ax.quiver(*where.T, *u.T, color=color, angles="xy", scale_units="xy", scale=3, width=width, headwidth=4)
    style.blank(ax, 3.0).set_title(f"t = {time}")
figure

# %% slideshow={"slide_type": "subslide"}
grid = torch.cat([torch.linspace(0, 0.9, 19), torch.tensor([0.92, 0.94, 0.96, 0.98, 0.99])])
misfit, variance = [], []
for time in grid:
    xt = path.interpolate(x0, points, time)
    with torch.no_grad():
        misfit.append((learned(xt, time) - exact(xt, time)).square().mean())
    variance.append(target_variance(xt, time, exact).mean())
misfit, variance = torch.stack(misfit), torch.stack(variance)

names = ("variance of the targets", "squared error of the network")
curves = dict(zip(names, (variance, misfit), strict=True))
colors = dict(zip(names, (style.PATH, style.MODEL), strict=True))
plotting.curves(grid, curves, xlabel="t", ylabel="mean, a dimension", log="y", markers=True, colors=colors)

# %% [markdown] slideshow={"slide_type": "skip"}
# The upper curve is the variance of the targets that the network was shown, $\mathbb{E}\|(x_1 - x_0) - u^*\|^2$; the
# lower is its own error, $\mathbb{E}\|v_\theta - u^*\|^2$. For $t \le 0.5$ the error is below one per cent of that
# variance: the network has averaged over thousands of wrong targets and found their mean. Towards $t = 1$ the curves
# meet. There $u^*$ points at single training points, and the network has not learned those. That is no failure: a
# network equal to $u^*$ would only reproduce its training set. Chapters 07 and 08 are about this gap.

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
    "average changes along the way. Where two lines cross, the flow has one velocity "
    "only, so its trajectories cannot cross.",
)

# %% slideshow={"slide_type": "subslide"}
line_data = torch.tensor([[-2.0], [0.4], [2.0]])  # three data points in one dimension
generator = torch.Generator().manual_seed(13)
start = torch.randn(60, 1, generator=generator)
ends = line_data[torch.randint(3, (60,), generator=generator)]
lines = torch.stack([path.interpolate(start, ends, time) for time in moments])
flow_1d = solvers.solve(closed_form.EmpiricalVelocity(line_data), start, t1=path.t_max, times=moments).trajectory

figure, axes = plotting.canvas(1, 2, height=3.6, sharey=True)
crossings = []
for ax, name, states in zip(axes, ("lines", "flow of $u^*$"), (lines[..., 0], flow_1d[..., 0]), strict=True):
    for point, color in zip(line_data, (style.DATA, style.PATH, style.CYCLE[4]), strict=True):
        ax.plot(moments, states[:, (states[-1] - point).abs() < 0.05], color=color, linewidth=1.1, alpha=0.8)
    ahead = states[:, :, None] > states[:, None, :]  # which of two is ahead, at each time
    crossings.append(float((ahead[0] != ahead[95]).sum() / (60 * 59)))  # until t = 0.95, before they all meet
    ax.set(xlabel="t", title=f"{name}: {crossings[-1]:.0%} of the pairs cross")
axes[0].set_ylabel("x")
figure


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
figure, axes = plotting.canvas(1, 3)
for ax, (name, states) in zip(axes, panels.items(), strict=True):
    plotting.trajectories((moments, states), count=120, limit=3.0, title=f"{name}: detour {detours[name]:.2f}", ax=ax)
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# Colour is time, from orange at the source to blue at the data; the detour is the length of a trajectory over the
# distance between its ends, here the median over the trajectories. A solver must follow the bends, which costs
# evaluations; chapter 05 pairs source and data better, so that there are fewer.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Real data: handwritten digits
#
# Nothing above depends on the plane. An 8x8 image is a point in $\mathbb{R}^{64}$, and scikit-learn brings 1,797 of
# them: 1,500 to train on, 297 held out. The same loss, the same network with 64 inputs, and the exact velocity of the
# training images.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Both velocities start from the same noise. Where do they end?",
    [
        "both at training images",
        "both at new images",
        "the exact one at training images, the network at new ones",
    ],
    answer=2,
    because="u* is the exact velocity of the 1,500 images and carries the noise to exactly these. "
    "The network has not learned u* near t = 1, and so it makes images that are not in "
    "the training set.",
)

# %% slideshow={"slide_type": "fragment"}
digits = data.digits()
SCALE = 3.0  # stretched, so that the images reach further than the noise
train, held_out = SCALE * digits.scaled(digits.train), SCALE * digits.scaled(digits.held_out)

torch.manual_seed(0)
network = networks.MLP(64, width=256, depth=3)
config = training.TrainingConfig(steps=2000, batch=256, lr=1e-2, decay="cosine", ema=0.99)
digit_run = training.train(network, flow_matching_loss, train, config, progress=False)

noise = torch.randn(297, 1, 8, 8, generator=torch.Generator().manual_seed(14))
copies = solvers.solve(closed_form.EmpiricalVelocity(train), noise, t1=path.t_max)
made = solvers.solve(digit_run.ema, noise, t1=path.t_max)
print(f"NFE of dopri5: exact {copies.nfe}, network {made.nfe}")


# %% slideshow={"slide_type": "subslide"}
def nearest(images):
    """The two nearest training images: distances (B, 2) on the pixel scale [-1, 1], and indices."""
    return torch.cdist(images.flatten(1), train.flatten(1)).div(SCALE).topk(2, largest=False)


columns = []
for images in (copies.x[:12], made.x[:12]):
    columns += [images / SCALE, train[nearest(images).indices[:, 0]] / SCALE]
rows = ["exact $u^*$", "nearest in training", "network", "nearest in training"]
plotting.images(torch.cat(columns), columns=12, rows=rows)

# %% [markdown] slideshow={"slide_type": "skip"}
# Each column starts from one noise. Is the network's sample new, or a copy with some noise on it? Two numbers tell:
# how far the nearest training image is, and whether it stands out, that is, how far it is compared with the *second*
# nearest. For scale, the same numbers for held-out digits (new and real), for training images with noise added
# (copies that are just as far away as the network's samples), and for noise alone, as wide as the pixels.

# %% slideshow={"slide_type": "fragment"}
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
same = float((found.indices[:, 0] == nearest(copies.x).indices[:, 0]).float().mean())
print(f"network and u* from the same noise have the same nearest training image: {same:.0%}")

means = {name: float(d[:, 0].mean()) for name, d in distance_to.items()}
shades = dict(zip(sets, (style.EXACT, style.DATA, style.MODEL, style.MUTED, style.SOURCE), strict=True))
figure, axes = plotting.canvas(1, 2, height=2.6)
plotting.bars(means, title="distance to the nearest", colors=shades, ax=axes[0])
plotting.bars(stands_out, title="nearest over second nearest", colors=shades, ax=axes[1])
axes[1].set_yticklabels([])
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# The exact velocity copies: its samples *are* training images. The network's are not. No training image stands out as
# the one that they were made from: the nearest is almost as far as the second nearest, as for held-out digits, while
# for noisy copies it is clearly nearer. Still, both velocities agree for most of the way: about three in ten samples
# of the network have as their nearest training image the very one that $u^*$ reaches from the same noise.
#
# The samples are not good yet. They are farther from the training images than real digits are, and some are no digits
# at all: a small network, seconds of training. Chapter 06 trains a U-Net. Why a network generalizes at all, when the
# minimizer of its loss copies, is the question of chapters 07 and 08.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you saw

# %% slideshow={"slide_type": "skip"}
spread_of_C = max(abs(constant - C) / C for constant in constants)
error_early = float((misfit / variance)[grid <= 0.5].max())
control_ratio = float(distance_control[-1] / distance[-1])
W2_ratio = distances["longer training"] / distances["yardstick: fresh data"]
far_ratio = means["network"] / means["held-out digits"]

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
rows = [
    Claim("u* as a softmax by hand and in fmcore: largest difference", gap_by_hand, below(1e-4)),
    Claim("u* and the average of pairs that meet at x: standard errors", worst_place, below(4)),
    Claim("flow of u* against p_t, W2 in yardsticks, worst t", max(marginal_ratios), below(1.5)),
    Claim("gradient of L_CFM minus gradient of L_FM: power of N", slope, about(-0.5, 0.04), digits=1),
    Claim("cosine of the two gradients at N = 16,384", cosine[-1], above(0.999)),
    Claim("distance of the control's gradient over that one, same N", control_ratio, above(10)),
    Claim("L_CFM - L_FM against C, three models: relative difference", spread_of_C, below(0.03)),
    Claim("25 lines and fmcore: largest difference of a weight", gap_weights, below(1e-5)),
    Claim("25 lines and fmcore: largest difference of a sample", gap_samples, below(1e-4)),
    Claim("loss of u* over loss of the trained network", L_exact / L_learned, between(0.95, 1)),
    Claim("learned samples against fresh data, W2 in yardsticks", W2_ratio, below(1.5)),
    Claim("network evaluations of dopri5 for that", learned_flow.nfe, below(120)),
    Claim("error of the network over variance of its targets, t up to 0.5", error_early, below(0.01)),
    Claim("pairs of conditional lines that cross", crossings[0], about(0.37, 0.02), digits=2),
    Claim("pairs of trajectories of u* that cross", crossings[1], exactly(0), digits=0),
    Claim("detour of the trajectories of u* (a line has 1)", detours["flow of $u^*$"], about(1.77, 0.03), digits=1),
    Claim("digits, exact u*: distance to the nearest training image", means["exact u*"], below(0.005), digits=2),
    Claim("digits, network: the same, over that of held-out digits", far_ratio, above(0.9)),
    Claim("digits, network: nearest over second nearest training image", stands_out["network"], above(0.85)),
]
claims.table(rows)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## To remember
#
# - The velocity of one pair is known; the velocity of the data set is its average over what may have led to $x$.
# - Regression on noisy targets learns their mean. That is why the simple loss is enough, and why it never goes to zero.
# - Straight conditional paths do not give straight flows.
# - The minimizer of the loss over finitely many data points copies them. What a trained network makes is a different matter.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# In [exercises/03_flow_matching.ipynb](exercises/03_flow_matching.ipynb); each has a check that says what is wrong.
#
# 1. **The conditional velocity** of the path of Lipman et al., which stops at a small Gaussian around each data point.
# 2. **The marginal velocity** for a batch in which each row has its own time.
# 3. **The loss.** Five lines, and four places to get a sign or an axis wrong.
# 4. **The loss of a perfect network.** For Gaussian data the variance of the target can be computed with a pencil.
# 5. **A sampler.** Euler's method, and where its last evaluation lies.
#
# <!-- next: written by fmcore.course.build -->
#
# Next: [04 Probability paths](04_probability_paths.ipynb). Which path is best: diffusion or a straight line?
#
# <!-- end of next -->
