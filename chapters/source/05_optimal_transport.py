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
# # 05 Optimal transport
#
# Training needs pairs: which noise sample goes with which data point? So far chance decided. The pairs may also be
# chosen, and a good choice makes the trajectories straight, so that a few steps are enough to sample. This chapter
# pairs by optimal transport within a batch, measures what that gains and costs, and shows where it goes wrong.

# %% slideshow={"slide_type": "skip"}
import itertools
import math
from dataclasses import replace

import torch
from torch import nn

from fmcore import closed_form, couplings, data, losses, networks, paths, solvers, training
from fmcore.course import card, claims, plotting, predict, style, widgets
from fmcore.course.claims import Claim, about, above, below, between, exactly
from fmcore.metrics import wasserstein2
from fmcore.papers import reference

style.use()
torch.set_num_threads(1)  # networks this small gain nothing from a second core

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
card.show(
    "05_optimal_transport",
    goals=[
        'say why the "OT path" of flow matching is not optimal transport, with a number',
        "pair noise and data by optimal transport within a batch, and say how far that is from the true plan",
        "measure crossings, straightness, transport cost and solver steps against the batch size",
        "pair with class labels without breaking a conditional model",
        "straighten a trained flow by reflow, sample it in one step, and say what reflow does not do",
    ],
    before=["chapter 03: flow matching", "Gaussians in two dimensions"],
    exercises=[
        "1. Transport on a line",
        "2. Pairs and labels",
        "3. The entropic plan of two Gaussians",
        "4. Sinkhorn's iterations that break",
        "5. The flow never costs more than its pairs",
        "6. What is a batch drawn with replacement worth?",
    ],
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Which noise goes with which data?
#
# A **coupling** $q(x_0, x_1)$ is a way to draw pairs such that $x_0$ alone follows the source $p_0$ and $x_1$ alone
# the data $p_1$. Chapter 03 trained with the **independent** coupling $q = p_0\, p_1$, but Theorem 1 is proved there
# for *any* coupling. In weak form: for $x_t = (1-t)\, x_0 + t\, x_1$, any smooth test function $\varphi$ and
# $u_t(x) = \mathbb{E}\,[\, x_1 - x_0 \mid x_t = x \,]$,
#
# $$
# \frac{\mathrm{d}}{\mathrm{d}t}\, \mathbb{E}\, \varphi(x_t)
# = \mathbb{E}\, \big[ \nabla \varphi(x_t) \cdot (x_1 - x_0) \big]
# = \int p_t(x)\, \nabla \varphi(x) \cdot u_t(x)\, \mathrm{d}x .
# $$
#
# The first step is the chain rule, the second averages over the pairs that meet at $x$. Neither asks how the pairs
# were drawn. So $u_t$ carries $p_0$ to $p_1$, and regression on $x_1 - x_0$ learns it: we may choose the coupling.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The cost of a coupling
#
# The **transport cost** of a coupling is the mean squared distance of its pairs,
#
# $$
# C(q) = \mathbb{E}_q\, \| x_1 - x_0 \|^2 .
# $$
#
# The coupling with the smallest cost is the **optimal transport plan** (for short: the plan). Its cost is
# $W_2^2(p_0, p_1)$, the square of the 2-Wasserstein distance with which chapter 03 compared samples (Villani 2009,
# Peyré & Cuturi 2019).

# %% [markdown] slideshow={"slide_type": "notes"}
# A coupling keeps both marginals and only changes who is paired with whom; this is what leaves the choice free. Tong
# et al. 2024 and Pooladian et al. 2023 proposed optimal transport within the batch for flow matching at the same
# time.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The OT path is not an OT coupling
#
# Lipman et al. 2023 call $x_t = (1-t)\, x_0 + t\, x_1$ the *optimal transport path*. What is optimal there? For *one*
# data point $x_1$ the path moves the whole Gaussian onto $x_1$ in straight lines at constant speed, which is optimal
# transport from $p_0$ to a single point. It says nothing about many data points together.
#
# In this course **OT path** means this straight path, and **OT pairs** or **OT coupling** means pairs chosen by
# optimal transport. Three couplings of the same $p_0$ and $p_1$ to compare:
#
# - **independent**: the pairs that the network is trained on;
# - **the flow's own pairs**: $x_0$ and the place where the marginal flow takes it;
# - **the plan**: the cheapest of all.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
predict.ask(
    "Independent pairs cost 8.2 here and the plan 2.2. What do the flow's own pairs cost?",
    [
        "8.2: the flow was made from independent pairs",
        "2.2: its conditional paths are optimal transport",
        "something in between",
    ],
    answer=2,
    because="The flow averages over the pairs that meet at a place, and its own pairs never cost more than "
    "those it was made from. But nothing in that average looks for the cheapest plan.",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Gaussians: everything in closed form
#
# Let $x_0 \sim \mathcal{N}(0, \Sigma_0)$ and $x_1 \sim \mathcal{N}(0, \Sigma_1)$, independent. The conditional mean
# of one Gaussian given another is linear,
# $\mathbb{E}[a \mid b] = \operatorname{Cov}(a, b) \operatorname{Cov}(b)^{-1} b$, so the marginal velocity is
#
# $$
# u_t(x) = \big( t\, \Sigma_1 - (1-t)\, \Sigma_0 \big) \big( (1-t)^2\, \Sigma_0 + t^2\, \Sigma_1 \big)^{-1} x .
# $$
#
# The optimal map is linear too, $x_1 = T x_0$ with
# $T = \Sigma_0^{-1/2} (\Sigma_0^{1/2} \Sigma_1 \Sigma_0^{1/2})^{1/2}\, \Sigma_0^{-1/2}$ (Olkin & Pukelsheim 1982). We
# take two long ellipses, one turned by 45 degrees.


# %% slideshow={"slide_type": "fragment"}
def root(matrix):
    """The symmetric square root of a covariance."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.sqrt()) @ vectors.T


quarter = torch.tensor([[1.0, -1.0], [1.0, 1.0]], dtype=torch.float64) / 2**0.5  # a turn by 45 degrees
S0 = torch.diag(torch.tensor([4.0, 0.09], dtype=torch.float64))
S1 = quarter @ S0 @ quarter.T
identity = torch.eye(2, dtype=torch.float64)


def gaussian_velocity(x, t):
    t = t.double()
    return x @ ((t * S1 - (1 - t) * S0) @ torch.linalg.inv((1 - t) ** 2 * S0 + t**2 * S1)).T


optimal_map = root(S0).inverse() @ root(root(S0) @ S1 @ root(S0)) @ root(S0).inverse()
flow_map = solvers.solve(gaussian_velocity, identity, rtol=1e-8, atol=1e-8).x.T  # where the flow takes both axes

# %% slideshow={"slide_type": "fragment"}
cost_independent = float((S0 + S1).trace())
cost_flow, cost_plan = (float(((M - identity) @ S0 @ (M - identity).T).trace()) for M in (flow_map, optimal_map))
map_errors = [float((M @ S0 @ M.T - S1).abs().max()) for M in (flow_map, optimal_map)]
print(f"both maps arrive in N(0, S1): largest error of the covariance {max(map_errors):.0e}")
print(
    f"cost of independent pairs {cost_independent:.2f}, of the flow's own pairs {cost_flow:.2f}, of the plan {cost_plan:.2f}"
)
print(f"the flow's own pairs cost {cost_flow / cost_plan:.2f} times as much as the plan")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 3)
x0 = torch.randn(120, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) @ root(S0)
other = torch.randn(120, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) @ root(S1)
panels = {
    f"independent: {cost_independent:.2f}": other,
    f"flow's own pairs: {cost_flow:.2f}": x0 @ flow_map.T,
    f"plan: {cost_plan:.2f}": x0 @ optimal_map.T,
}
for ax, (title, x1) in zip(axes, panels.items(), strict=True):
    plotting.pairs(x0, x1, limit=5.2, title=title, ax=ax)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# Each line joins a source sample (orange end) to its partner (dark end); the titles give the exact cost. All three
# couplings have the same marginals. The flow's own pairs lie between the two others.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### How far from optimal is it usually?
#
# That example was made to be bad. In practice the source is $\mathcal{N}(0, I)$ and the data have structure. The
# exact velocity of chapter 03 takes 500 noise samples to the data; then the *same* ends are shuffled (independent)
# and paired in the cheapest way (the plan between the two sets).

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "From a round Gaussian to two moons or to eight Gaussians on a circle: how much more than the plan between "
    "its own ends does the marginal flow cost?",
    ["more than twice as much, as before", "about a third more", "less than two percent more"],
    answer=2,
    because="From a round Gaussian the flow goes nearly where optimal transport would. Its ends are nearly "
    "optimal pairs although the pairs it was trained on cost several times as much.",
)

# %% slideshow={"slide_type": "fragment"}
path, exact_ot = paths.rectified(), couplings.MinibatchOT()


def transport_cost(x0, x1):
    return float((x1 - x0).flatten(1).square().sum(dim=1).mean())


def detour(states):
    """Median over the trajectories (T, n, 2) of length over distance between the ends; 1 is straight."""
    return float((states.diff(dim=0).norm(dim=-1).sum(dim=0) / (states[-1] - states[0]).norm(dim=-1)).median())


flow_over_plan, moments = {}, torch.linspace(0, 1, 41)
x0 = torch.randn(500, 2, generator=torch.Generator().manual_seed(2))
for name in ("two_moons", "eight_gaussians"):
    data_points = data.toy.by_name(name, 500, torch.Generator().manual_seed(3))
    u, times = closed_form.EmpiricalVelocity(data_points), path.t_max * moments
    flow = solvers.solve(u, x0, t1=path.t_max, rtol=1e-3, atol=1e-3, times=times)
    own, best = transport_cost(x0, flow.x), transport_cost(*exact_ot(x0, flow.x))
    shuffled = transport_cost(x0, flow.x[torch.randperm(500, generator=torch.Generator().manual_seed(4))])
    flow_over_plan[name] = own / best
    said = f"independent {shuffled:.2f}   flow {own:.3f}   plan {best:.3f}   flow/plan {own / best:.3f}"
    print(f"{name:16} {said}   detour {detour(flow.trajectory):.2f}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# From a round Gaussian the *ends* of the flow are nearly optimal. What better pairs can improve is how it gets there:
# the trajectories are bent. Their **detour** (last column) is length over distance between the ends, and 1 if
# straight.

# %% [markdown] slideshow={"slide_type": "notes"}
# So "the flow is not optimal transport" is true, and from a round Gaussian it matters little. In one dimension it is
# not even true: trajectories cannot overtake each other, so the flow keeps the order, and keeping the order *is*
# optimal transport on a line.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Optimal transport within a batch
#
# Between two sets of $n$ points with equal weights there is always a cheapest plan that pairs them one to one, a
# permutation $\pi$. For a handful of points one can try all $n!$ of them. Expand the square:
#
# $$
# \sum_i \| x_{1,i} - x_{0,\pi(i)} \|^2
# = \sum_i \|x_{1,i}\|^2 + \sum_i \|x_{0,i}\|^2 - 2 \sum_i \langle x_{1,i},\, x_{0,\pi(i)} \rangle .
# $$
#
# The first two sums are the same for every permutation. Only the inner products decide: a single matrix
# product, for images too.


# %% slideshow={"slide_type": "fragment"}
def by_hand(x0, x1):
    """x0 in the order with the smallest sum of squared distances to x1, of all n! orders."""
    squares = (x1[:, None] - x0).square().sum(dim=2)  # (n, n): row = data point, column = noise
    rows = torch.arange(len(x1))
    orders = [torch.tensor(order) for order in itertools.permutations(range(len(x1)))]
    return x0[min(orders, key=lambda order: float(squares[rows, order].sum()))]


generator = torch.Generator().manual_seed(5)
gap_by_hand = 0.0
for _ in range(5):
    x0, x1 = torch.randn(6, 2, generator=generator), data.toy.eight_gaussians(6, generator)
    paired, unchanged = exact_ot(x0, x1)
    assert unchanged is x1  # the data keep their order, so labels stay right; only the noise is moved
    gap_by_hand = max(gap_by_hand, float((paired - by_hand(x0, x1)).abs().max()))
assert gap_by_hand == 0.0, gap_by_hand

# %% [markdown] slideshow={"slide_type": "fragment"}
# Six points have 720 permutations; for 64 points trying them all is hopeless. `couplings.MinibatchOT` solves the same
# *assignment problem* exactly with about $n^3$ operations.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Batches of 1, 8, 64, 512
#
# The plan between $p_0$ and $p_1$ is out of reach; the plan between the noise and the data of one *batch* is not.
# From here on there is one pool of $2^{15}$ noise samples and as many data points. It is cut into batches of $B$, and
# each batch is paired within itself. $B = 1$ is the independent coupling.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Noise from a round Gaussian, data on eight Gaussians. Independent pairs cost 8.3. What do pairs from batches of 8 "
    "cost?",
    ["about 7.5: eight samples leave little choice", "about 3.6", "about 1.9, as the plan between all samples does"],
    answer=1,
    because="In the plane even eight partners to choose from are enough to save more than half of the cost. Larger "
    "batches save the rest slowly.",
)

# %% slideshow={"slide_type": "fragment"}
POOL, SIZES = 2**15, (1, 8, 64, 512)


def in_batches(x0, x1, size, labels=None):
    """x0 reordered: paired with x1 by optimal transport within consecutive batches of the given size."""
    if size == 1:
        return x0
    groups = labels.split(size) if labels is not None else [None] * math.ceil(len(x1) / size)
    batches = zip(x0.split(size), x1.split(size), groups, strict=True)
    return torch.cat([exact_ot(*batch)[0] for batch in batches])


generator = torch.Generator().manual_seed(6)
noise, points = torch.randn(POOL, 2, generator=generator), data.toy.eight_gaussians(POOL, generator)
pool = {size: in_batches(noise, points, size) for size in SIZES}
same_marginal = all(torch.equal(x0[:, 0].sort().values, noise[:, 0].sort().values) for x0 in pool.values())
assert same_marginal  # every noise sample is used exactly once, whatever the batch size

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 4)
for ax, (size, x0) in zip(axes, pool.items(), strict=True):
    title = f"B = {size}: cost {transport_cost(x0, points):.2f}"
    plotting.pairs(x0[:512], points[:512], limit=3.3, title=title, ax=ax)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# The same noise and the same data in all panels, paired in batches of different size. The cost (of the whole pool)
# falls quickly at first, then slowly.


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
def pairs_picture(size, seen):
    """Pairs of the first batches of the given size; as many pairs as asked."""
    count = max(size, 512)
    x0 = in_batches(noise[:count], points[:count], size)
    cost = transport_cost(x0, points[:count])
    return plotting.pairs(x0[:seen], points[:seen], limit=3.3, title=f"B = {size}: cost {cost:.2f}")


widgets.explore(
    pairs_picture,
    size=widgets.choice([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024], value=16, label="batch size B"),
    seen=widgets.choice([16, 64, 256, 512], value=256, label="pairs drawn"),
)

# %% [markdown] slideshow={"slide_type": "notes"}
# Try: at which batch size do you stop seeing a change? Draw 16 pairs only and go from B = 16 to B = 1024: the noise
# sample that belongs to a data point still changes.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Crossed pairs
#
# Take two pairs and swap their partners. By the expansion above, the total cost changes by
#
# $$
# 2\, \big\langle x_{1,i} - x_{1,j},\; x_{0,i} - x_{0,j} \big\rangle .
# $$
#
# Call the two pairs **crossed** when this is negative, that is, when a swap makes them cheaper. Two pairs can be at the
# same place at the same time only if they are crossed, because $x_{t,i} = x_{t,j}$ means
# $(1-t)(x_{0,i} - x_{0,j}) = -t\, (x_{1,i} - x_{1,j})$.
#
# The optimal plan has no crossed pairs, or a swap would improve it. So no two of its lines meet at any time, there is
# nothing to average over, and the flow *is* the lines: straight.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "The optimal plan between 512 noise and 512 data points in the plane: draw its 512 lines on paper. Which share of "
    "all pairs of lines cross?",
    ["none", "about one in a hundred", "about one in four, as for independent pairs"],
    answer=1,
    because="No swap makes the plan cheaper, so no two points are at the same place at the same time. On paper "
    "the time is not seen: two lines may pass through one place at different times, and some do.",
)


# %% slideshow={"slide_type": "fragment"}
def crossed(x0, x1):
    """Share of the pairs of pairs whose swap would lower the cost."""
    gain = ((x1[:, None] - x1) * (x0[:, None] - x0)).sum(dim=2)
    return float((gain < 0).sum() / (len(x0) * (len(x0) - 1)))


def side(p, q, r):
    """Positive where r lies to the left of the line from p to q."""
    (a, b), (c, d) = (q - p).unbind(-1), (r - p).unbind(-1)
    return a * d - b * c


def cross_on_paper(x0, x1):
    """Share of the pairs of segments that intersect in the plane, at whatever times."""
    p, q, r, s = x0[:, None], x1[:, None], x0[None], x1[None]
    cut = (side(p, q, r) * side(p, q, s) < 0) & (side(r, s, p) * side(r, s, q) < 0)
    return float(cut.sum() / (len(x0) * (len(x0) - 1)))


# %% slideshow={"slide_type": "fragment"}
some = torch.randperm(POOL, generator=torch.Generator().manual_seed(7))[:1024]  # pairs from many different batches
share_crossed = {size: crossed(x0[some], points[some]) for size, x0 in pool.items()}
share_paper = {size: cross_on_paper(x0[some], points[some]) for size, x0 in pool.items()}
one_plan = pool[512][:512], points[:512]  # all pairs of a single batch
plan_crossed, plan_paper = crossed(*one_plan), cross_on_paper(*one_plan)
print("pairs from many batches        " + "   ".join(f"B = {size:3}" for size in SIZES))
print("crossed (a swap is cheaper)    " + "   ".join(f"{share:7.1%}" for share in share_crossed.values()))
print("cross on paper                 " + "   ".join(f"{share:7.1%}" for share in share_paper.values()))
print(f"within one batch of 512: crossed {plan_crossed:.1%}, on paper {plan_paper:.1%}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Within a batch no pairs are crossed, by construction. Between batches some are, and the fewer the larger the
# batches. Lines that still cross on paper pass through the same place at different times, and do no harm.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What does a network gain?
#
# Four networks, equal in all but the pairing: the same architecture and initial weights, the same $2^{15}$ noise
# samples and data points, the same 256 pairs per training step, the same 800 steps. Pairs are made once, in batches
# of $B$, and then drawn at random. So the batch of the *coupling* and the batch of the *gradient* are two different
# numbers here, and the training budget is the same for all.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### How straight is a flow?
#
# Let $z_t$ be a trajectory of the flow from $z_0$ to $z_1$. At constant velocity, $v$ would be $z_1 - z_0$ at all
# times. The **straightness** of Liu et al. 2023 is the mean squared difference,
#
# $$
# S(v) = \int_0^1 \mathbb{E}\, \big\| (z_1 - z_0) - v(z_t, t) \big\|^2 \, \mathrm{d}t ,
# $$
#
# zero exactly when all trajectories are straight and run at constant speed. Then one Euler step is exact. The detour
# sees bends but not changes of speed.

# %% slideshow={"slide_type": "fragment"}
start = torch.randn(1000, 2, generator=torch.Generator().manual_seed(8))


def straightness(velocity, x0):
    """S of the flow from x0, and the flow itself, with 41 moments on the way."""
    flow = solvers.solve(velocity, x0, times=moments)  # by dopri5, at its usual tolerance of 1e-5
    states = flow.trajectory
    with torch.no_grad():
        speed = torch.stack([velocity(x, t) for x, t in zip(states, moments.to(x0), strict=True)])
    squares = (speed - (states[-1] - states[0])).square().sum(dim=-1).mean(dim=1)
    return float(torch.trapezoid(squares, moments.to(x0))), flow


def euler_error(velocity, x0, ends, steps):
    """Root mean square distance between the ends by Euler's method and the given ends."""
    return transport_cost(solvers.solve(velocity, x0, method="euler", steps=steps).x, ends) ** 0.5


# %% [markdown] slideshow={"slide_type": "subslide"}
# ### How good are the samples?
#
# $W_2$ to fresh data, as in chapter 03, depends mostly on how many samples each of the eight Gaussians happens to
# get. So a finer measure stands beside it, the **stray share**: the share of samples farther than three standard
# deviations (0.6) from all eight centres. For the data it is known exactly: the squared distance in units of the
# variance follows a $\chi^2$ distribution with two degrees of freedom, so the share is $e^{-9/2} = 1.1\%$.


# %% slideshow={"slide_type": "fragment"}
ANGLES = torch.arange(8) * (math.pi / 4)
CENTRES = 2.5 * torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1)


def is_stray(x):
    """True where a sample is farther than 3 standard deviations (0.6) from all eight centres."""
    return torch.cdist(x, CENTRES).amin(dim=1) > 0.6


def stray(x):
    return float(is_stray(x).float().mean())


# %% slideshow={"slide_type": "fragment"}
fresh = data.toy.eight_gaussians(3000, torch.Generator().manual_seed(9)).split(500)  # never seen in training
yardstick = sum(wasserstein2(a, b) for a, b in zip(fresh[:4], (*fresh[4:], *fresh[4:]), strict=True)) / 4
many = torch.randn(4000, 2, generator=torch.Generator().manual_seed(10))  # noise, for the stray shares


def W2_to_fresh(x):
    return sum(wasserstein2(x[:500], other) for other in fresh[:4]) / 4


def measure(velocity):
    """What we want to know about a flow, as a dictionary."""
    S, flow = straightness(velocity, start)
    ends = flow.x
    return {
        "trajectory": flow.trajectory,
        "cost": transport_cost(start, ends),
        "S": S,
        "detour": detour(flow.trajectory),
        "nfe": {1e-5: flow.nfe, 1e-2: solvers.solve(velocity, start, rtol=1e-2, atol=1e-2).nfe},
        "euler": {steps: euler_error(velocity, start, ends, steps) for steps in (1, 2, 4, 8)},
        "W2": W2_to_fresh(ends),
        "stray": stray(solvers.solve(velocity, many, rtol=1e-3, atol=1e-3).x),
        "one step": solvers.solve(velocity, many, method="euler", steps=1).x,
    }


# %% slideshow={"slide_type": "fragment"}
def loss_of_pairs(model, pairs, generator):
    x0, x1 = pairs
    return losses.conditional_flow_matching(model, path, x0, x1, generator=generator)


CONFIG = training.TrainingConfig(steps=800, batch=256, lr=2e-2, decay="cosine", ema=0.99)


def train_on(pairs):
    torch.manual_seed(0)
    network = networks.MLP(2, width=64, depth=3)
    return training.train(network, loss_of_pairs, pairs, CONFIG, progress=False, ahead=0)


runs = {size: train_on(couplings.FixedPairs(x0, points)) for size, x0 in pool.items()}
flows = {size: measure(run.ema) for size, run in runs.items()}

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
predict.ask(
    "From B = 1 to B = 64: what happens to the transport cost of the network's own pairs (x0, and where it "
    "takes x0), and what to the number of evaluations of dopri5 at tolerance 1e-5?",
    [
        "the cost falls to a quarter, and the evaluations too",
        "the cost hardly changes, the evaluations fall to between a third and two thirds",
        "the cost hardly changes, the evaluations fall to a tenth",
    ],
    answer=1,
    because="The ends of the flow were nearly optimal from the start. Straighter trajectories cost an adaptive solver fewer "
    "steps, but it must still follow the small bends that are left, to an error of 1e-5.",
)


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
def draw_samples(ax, x, size=5):
    """Samples inside the circles of three standard deviations (teal dots) and stray ones (black crosses)."""
    for centre in CENTRES:
        ax.plot(centre[0] + 0.6 * TURN.cos(), centre[1] + 0.6 * TURN.sin(), color="#57606A", linewidth=1.1)
    off = is_stray(x)
    ax.scatter(*x[~off].T, s=size, color=style.MODEL, linewidths=0)
    ax.scatter(*x[off].T, s=2.4 * size, marker="x", color=style.EXACT, linewidths=0.7)
    style.blank(ax, 3.5)


TURN = torch.linspace(0, 2 * math.pi, 60)


def show_flows(flows):
    """One column for each flow: its trajectories, and where a single Euler step takes the noise."""
    figure, axes = plotting.canvas(2, len(flows), height=5.0)
    for (name, flow), (top, bottom) in zip(flows.items(), axes.T, strict=True):
        shown = moments, flow["trajectory"]
        plotting.trajectories(shown, count=70, limit=3.5, title=f"{name}: S = {flow['S']:.3f}", ax=top)
        draw_samples(bottom, flow["one step"][:1000])
        bottom.set_title(f"{stray(flow['one step']):.0%} stray")
    axes[0, 0].set_ylabel("trajectories")
    axes[1, 0].set_ylabel("one Euler step")
    return figure


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
show_flows({f"B = {size}": flow for size, flow in flows.items()})

# %% [markdown] slideshow={"slide_type": "fragment"}
# Top: the larger the batch of the coupling, the straighter the trajectories. Bottom: a single Euler step puts more
# samples inside the circles of three standard deviations (dots); the stray ones are crosses.

# %% slideshow={"slide_type": "subslide"}
HEAD = f"{'cost':>5}{'S':>7}{'detour':>8}{'W2':>6}{'stray':>7}   NFE 1e-5, 1e-2   error of 1, 2, 4, 8 Euler steps"


def report(flow):
    errors = "  ".join(f"{error:.2f}" for error in flow["euler"].values())
    nfe = "     ".join(f"{count:3}" for count in flow["nfe"].values())
    return f"{flow['cost']:5.2f}{flow['S']:7.3f}{flow['detour']:8.2f}{flow['W2']:6.2f}{flow['stray']:7.1%} {nfe:>13}       {errors}"


print("  B  pairs  " + HEAD)
for size, flow in flows.items():
    print(f"{size:3}  {transport_cost(pool[size], points):5.2f}  {report(flow)}")
print(f"fresh data: W2 {yardstick:.2f} between two samples, stray {math.exp(-4.5):.1%}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 3, height=3.3)
costs = {
    "training pairs": [transport_cost(pool[size], points) for size in SIZES],
    "pairs of the trained flow": [flow["cost"] for flow in flows.values()],
}
spread = {
    "variance of targets": [2 * float(run.losses[-300:].mean()) for run in runs.values()],
    "S": [flow["S"] for flow in flows.values()],
}
errors = {f"{steps} step{'s'[: steps - 1]}": [flow["euler"][steps] for flow in flows.values()] for steps in (1, 2, 4)}
panels = (("transport cost", costs, "x"), ("straightness", spread, "xy"), ("error of Euler's method", errors, "xy"))
for ax, (title, lines, log) in zip(axes, panels, strict=True):
    shades = dict(zip(lines, (style.PATH, style.DATA, style.EXACT), strict=False))
    plotting.curves(SIZES, lines, xlabel="batch size B", title=title, log=log, markers=True, colors=shades, ax=ax)
    ax.set_xticks(SIZES, [str(size) for size in SIZES])
    ax.minorticks_off()
axes[0].set_ylim(0, 11)
axes[1].set_ylim(0.001, 10)
axes[1].legend(loc="lower left")
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# - The **training pairs** get cheaper, the **flow's own pairs** hardly: their cost was close to the optimum at $B = 1$.
# - **$S$** falls with the variance of the targets: there is less left to average over.
# - With **few Euler steps** the gain is large: one step at $B = 512$ has a smaller error than four steps at $B = 1$.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### And an adaptive solver?
#
# - **dopri5** saves between a fifth and a half of its evaluations, and no more at $B = 512$ than at $B = 8$.
#   "Straight, so sampling gets many times cheaper" holds for a few fixed steps, not for an adaptive solver: $S$ is
#   small but not zero.
# - The **samples** of an accurate solver do not get better with $B$. Better pairs do not make better samples here;
#   they make them in fewer steps.

# %% [markdown] slideshow={"slide_type": "notes"}
# One step at $B = 1$ takes all noise to the mean of the data, in the middle. $W_2$ is the same for all $B$ within a
# few hundredths; the stray share moves without order between 6 and 9%, because the networks are small and each was
# trained once.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Each pair once, or drawn with replacement?
#
# `MinibatchOT()` permutes the noise: each sample of the batch is used once. TorchCFM (Tong et al. 2024) draws the $B$
# pairs of a step *from the plan with replacement*. An exact plan has weight $1/B$ on each of $B$ pairs, so every pair
# that is drawn is a pair of the permutation: the **coupling is the same**. Only the batch changes. A pair is left out
# with probability $(1 - 1/B)^B \approx 1/e$, and others appear twice or more.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "The same batches of 256, the same number of steps: once each pair is used once, once 256 pairs are drawn with "
    "replacement. What does the second network lose?",
    [
        "straightness: repeated pairs cross",
        "samples: a third of the data is never seen",
        "no straightness, but its batches are noisier",
    ],
    answer=2,
    because="Every pair still comes from the plan, so what is learned is the same. A pair left out of one batch comes up in "
    "another. A batch with repetitions has noisier gradients, as a smaller batch has.",
)

# %% slideshow={"slide_type": "subslide"}
paired = in_batches(noise, points, 256)
whole = couplings.FixedPairs(paired.view(-1, 256, 2), points.view(-1, 256, 2))  # one element: a whole batch of pairs


def train_in_batches(again, seed):
    """Each step uses one batch of 256 pairs: each pair once, or (again) 256 draws with replacement."""

    def loss(model, batch, generator):
        x0, x1 = batch[0][0], batch[1][0]
        rows = torch.randint(256, (256,), generator=generator) if again else torch.arange(256)
        return losses.conditional_flow_matching(model, path, x0[rows], x1[rows], generator=generator)

    torch.manual_seed(seed)
    config = replace(CONFIG, steps=400, batch=1, seed=seed)
    return training.train(networks.MLP(2, width=64, depth=3), loss, whole, config, progress=False, ahead=0)


drawn_rows = torch.randint(256, (200, 256), generator=torch.Generator().manual_seed(27))
used = sum(len(rows.unique()) for rows in drawn_rows) / drawn_rows.numel()
print(f"with replacement, {used:.1%} of the pairs of a batch of 256 are used on average")

# %% slideshow={"slide_type": "fragment"}
ways_to_draw, by_draw = {"each once": False, "with replacement": True}, {}
print(f"{'':18}seed  variance of target       S   one step: error  stray    accurate: stray")
for name, again in ways_to_draw.items():
    for seed in (0, 1):
        run = train_in_batches(again, seed)
        S, flow = straightness(run.ema, start)
        variance, error = 2 * float(run.losses[-100:].mean()), euler_error(run.ema, start, flow.x, 1)
        one = stray(solvers.solve(run.ema, many, method="euler", steps=1).x)
        by_draw[name, seed] = variance, S, error, one, stray(flow.x)
        print(f"{name:18}{seed:4}{variance:20.3f}{S:8.4f}{error:18.2f}{one:7.1%}{stray(flow.x):19.1%}")
over_once = [  # with replacement over each once, mean over both seeds, for each of the five measures
    sum(by_draw["with replacement", seed][k] for seed in (0, 1)) / sum(by_draw["each once", seed][k] for seed in (0, 1))
    for k in range(5)
]
print("with replacement over each once, mean of both:" + "".join(f"{value:7.2f}" for value in over_once))

# %% [markdown] slideshow={"slide_type": "fragment"}
# Straightness and the error of one step are the same: it is the same coupling. The samples of the accurate solver are
# somewhat worse with replacement in these short runs: a part of each batch is left out, and the gradients are noisier.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The bias of a batch
#
# Pairs from batches of $B$ are a valid coupling for every $B$: the marginals are exact, as the assertion above
# checked sample by sample. So their mean cost $C_B$ is never below $W_2^2$, the cost of the plan. The difference is
# the **bias** of the mini-batch. It has two parts:
#
# $$
# \underbrace{C_B - W_2^2}_{\text{bias}}
# = \underbrace{(C_B - C_n)}_{\text{batches, not all at once}} \;+ \underbrace{(C_n - W_2^2)}_{\text{samples, not distributions}} ,
# $$
#
# where $C_n$ pairs all $n$ samples at once. The second part is not zero either: on average a plan between finite
# samples costs more than the plan between the distributions.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### How to measure it
#
# For our two ellipses the optimal map $T$ is known. Take the number
# $x_0^\top (I - T)\, x_0 + x_1^\top (I - T^{-1})\, x_1$ off the cost of each pair. Its mean is $W_2^2$ for *every*
# coupling, because it treats $x_0$ and $x_1$ separately, and what remains is a square:
#
# $$
# \|x_1 - x_0\|^2 - x_0^\top (I - T)\, x_0 - x_1^\top (I - T^{-1})\, x_1
# = \big\| T^{1/2} x_0 - T^{-1/2} x_1 \big\|^2 .
# $$
#
# So the bias is the mean of this **excess**, pair by pair. It is zero exactly when $x_1 = T x_0$.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "In the plane, pairs from batches of 16: how much more do they cost than the plan between the distributions?",
    ["a few percent more", "nearly half as much again", "three times as much"],
    answer=1,
    because="Sixteen points are a thin sample: the right partner of a noise sample is usually not in the batch. "
    "It takes batches of a few hundred to come within five percent.",
)

# %% slideshow={"slide_type": "fragment"}
BIAS_SIZES = (1, 4, 16, 64, 256, 1024)
generator = torch.Generator().manual_seed(30)
many0 = torch.randn(4096, 2, generator=generator) @ root(S0).float()
many1 = torch.randn(4096, 2, generator=generator) @ root(S1).float()
half = root(optimal_map).float()  # T^(1/2)


def excess(x0, x1, B):
    """The excess of each pair over the plan, for pairs made in batches of B."""
    return (in_batches(x0, x1, B) @ half - x1 @ half.inverse()).square().sum(dim=1)


all_at_once = float(excess(many0[:2048], many1[:2048], 2048).mean())
bias, against_n = {}, {}
for B in BIAS_SIZES:
    values = excess(many0, many1, B)
    means = values.view(-1, max(B, 64)).mean(dim=1)  # of separate batches: independent
    bias[B] = float(means.mean()), float(means.std() / len(means) ** 0.5)
    if 1 < B < 1024:
        against_n[B] = float(values[:2048].mean()) - all_at_once
for B, (value, error) in bias.items():
    print(f"B = {B:4}   C_B - W2^2 = {value:6.3f} ± {error:.3f}   in percent of W2^2: {100 * value / cost_plan:5.1f}")

# %% slideshow={"slide_type": "fragment"}
bias_slope = plotting.slope(BIAS_SIZES[1:], [bias[B][0] for B in BIAS_SIZES[1:]])
print(f"fitted power of B, from 4 to 1024: {bias_slope:.2f}")
print(f"2,048 samples at once: C_n - W2^2 = {all_at_once:.3f}")
print("the same samples in batches: " + "   ".join(f"C_{B} - C_n = {value:.3f}" for B, value in against_n.items()))

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, ax = plotting.canvas(width=6.4, height=3.6)
values, error = zip(*bias.values(), strict=True)
ax.errorbar(BIAS_SIZES, values, error, color=style.PATH, marker="o", label="$C_B - W_2^2$")
ax.plot(list(against_n), list(against_n.values()), "s", color=style.DATA, label="$C_B - C_n$ for 2,048 samples")
ax.plot(BIAS_SIZES[1:], values[1] * 4 / torch.tensor(BIAS_SIZES[1:]), "--", color="#57606A", label="slope −1")
ax.set(xscale="log", yscale="log", xlabel="batch size B", title="Excess cost over the plan")
ax.set_xticks(BIAS_SIZES, [str(size) for size in BIAS_SIZES])
ax.minorticks_off()
ax.legend()
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# The bias falls a little more slowly than $1/B$. The plan of $n$ samples *is* a batch of $n$, with a bias of its own
# (printed above for $n = 2048$): measured against $C_n$, as the squares are, the bias of a batch comes out too small
# by that much.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### One noise sample, many batches
#
# What the bias means for the coupling is easier to see than the cost: fix *one* noise sample, pair it within 50
# different batches, and look at its partners. The plan between the distributions would give it nearly always the same
# one.

# %% slideshow={"slide_type": "fragment"}
fixed = torch.tensor([[0.6, 0.25]])


def partners(size, repeats=50):
    """The data points that the fixed noise sample meets in many batches."""
    generator, found = torch.Generator().manual_seed(11), []
    for _ in range(repeats):
        x0 = torch.cat([fixed, torch.randn(size - 1, 2, generator=generator)])
        x0, x1 = exact_ot(x0, data.toy.eight_gaussians(size, generator))
        found.append(x1[(x0 == fixed).all(dim=1)][0])
    return torch.stack(found)


met = {size: partners(size) for size in SIZES}
scatter = {size: float(x1.var(dim=0).sum().sqrt()) for size, x1 in met.items()}

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 4)
for ax, (size, x1) in zip(axes, met.items(), strict=True):
    plotting.pairs(fixed.expand_as(x1), x1, limit=3.3, title=f"B = {size}: spread {scatter[size]:.2f}", ax=ax)
    ax.scatter(*fixed.T, s=80, marker="*", color="white", edgecolors=style.EXACT, zorder=4)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# The larger the batch, the nearer together are the partners of one noise sample (star).

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Sinkhorn: a plan with entropy
#
# A smoother relative: let data point $i$ meet noise sample $j$ with probability $P_{ij}$, and ask for
#
# $$
# \min_P \; \sum_{ij} P_{ij}\, C_{ij} - \varepsilon\, H(P), \qquad H(P) = -\sum_{ij} P_{ij} \ln P_{ij}, \qquad
# C_{ij} = \|x_{1,i} - x_{0,j}\|^2,
# $$
#
# with rows and columns that sum to $1/n$. The solution has the form $P_{ij} = \exp\!\big((f_i + g_j - C_{ij}) /
# \varepsilon\big)$. **Sinkhorn's iterations** (Cuturi 2013) choose $f$ so that the rows are right, then $g$ so that the
# columns are, and repeat. $\varepsilon$ is called the *regularization*.


# %% slideshow={"slide_type": "fragment"}
def sinkhorn(costs, regularization, rounds=500):
    """The entropic plan for costs (n, n), by Sinkhorn's iterations on logarithms."""
    n = len(costs)
    g = torch.zeros(n, dtype=torch.float64)
    for _ in range(rounds):
        f = -regularization * (torch.logsumexp((g - costs) / regularization, dim=1) + math.log(n))
        g = -regularization * (torch.logsumexp((f[:, None] - costs) / regularization, dim=0) + math.log(n))
    return ((f[:, None] + g - costs) / regularization).exp()


def by_angle(x):
    return x[torch.atan2(x[:, 1], x[:, 0]).argsort()]


few0, few1 = by_angle(noise[:40]), by_angle(points[:40])  # sorted by angle: a good plan lies near the diagonal
costs = torch.cdist(few1.double(), few0.double()).square()
plan = sinkhorn(costs, 1.0)
assert (plan.sum(dim=1) - 1 / 40).abs().max() < 1e-6
assert (plan.sum(dim=0) - 1 / 40).abs().max() < 1e-6

# %% [markdown] slideshow={"slide_type": "subslide"}
# `MinibatchOT("sinkhorn", regularization)` draws one noise sample for each data point from its row of $P$. So over
# many draws the mean cost of its pairs must be the cost of the plan by hand.

# %% slideshow={"slide_type": "fragment"}
generator, entropic = torch.Generator().manual_seed(12), couplings.MinibatchOT("sinkhorn", 1.0)
drawn = torch.tensor([transport_cost(*entropic(few0, few1, generator=generator)) for _ in range(36)])
plan_cost = float((plan * costs).sum())
sinkhorn_errors = abs(float(drawn.mean()) - plan_cost) / float(drawn.std() / 6)
print(f"cost by hand {plan_cost:.3f}, of 36 draws of fmcore {drawn.mean():.3f} ± {drawn.std() / 6:.3f}")


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
def plan_picture(regularization):
    """The plan as a matrix, and as lines between the points."""
    P = sinkhorn(costs, regularization) * 40  # each row sums to 1: the probabilities of one data point
    cost, entropy = float((P * costs).sum() / 40), float(torch.special.entr(P / 40).sum())
    figure, (left, right) = plotting.canvas(1, 2, width=7.6, height=4.2)
    left.imshow(P, cmap=style.density_map(), vmax=float(P.max()), interpolation="nearest")
    left.set(
        xticks=[],
        yticks=[],
        xlabel="noise, by angle",
        ylabel="data, by angle",
        title=f"entropy {entropy:.2f}, probabilities up to {float(P.max()):.0%}",
    )
    left.title.set_fontsize(11)
    left.grid(False)
    chosen = torch.multinomial(P, 4, replacement=True, generator=torch.Generator().manual_seed(13))
    lines = few0[chosen.flatten()], few1.repeat_interleave(4, dim=0)
    plotting.pairs(*lines, limit=3.3, title=f"4 draws for each data point, cost {cost:.2f}", ax=right)
    right.title.set_fontsize(11)
    return figure


plan_picture(0.3)

# %% [markdown] slideshow={"slide_type": "fragment"}
# The plan as a matrix (darker is more probable), and pairs drawn from it. With little regularization most of the
# probability of a data point lies on a few noise samples nearby.

# %% slideshow={"slide_type": "subslide"}
widgets.explore(
    plan_picture,
    regularization=widgets.choice([0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0], value=3.0, label="regularization"),
)

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Where are the limits? As the regularization goes to 0 and to infinity, the entropy of the plan between n and n "
    "points goes to",
    ["0 and infinity", "0 and ln n", "ln n and 2 ln n"],
    answer=2,
    because="Even the exact plan spreads its mass over n pairs of weight 1/n each, which has entropy ln n. The "
    "independent plan spreads it evenly over all n^2 pairs: entropy 2 ln n.",
)

# %% slideshow={"slide_type": "fragment"}
temperatures = torch.tensor([0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 200], dtype=torch.float64)
plans = [sinkhorn(costs, float(value), rounds=600) for value in temperatures]
entropic_cost = torch.stack([(P * costs).sum() for P in plans])
entropy = torch.stack([torch.special.entr(P).sum() for P in plans])
cheapest, independent_cost = transport_cost(*exact_ot(few0, few1)), float(costs.mean())

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 2, height=3.4)
limits = (
    ((cheapest, "exact"), (independent_cost, "independent")),
    ((math.log(40), "ln n"), (2 * math.log(40), "2 ln n")),
)
named = (("cost", entropic_cost, style.PATH), ("entropy", entropy, style.DATA))
for ax, (name, values, color), ends in zip(axes, named, limits, strict=True):
    plotting.curves(temperatures, {name: values}, xlabel="regularization", title=name, log="x", ax=ax, markers=True)
    ax.lines[0].set_color(color)
    for height, word in ends:
        ax.axhline(height, color=style.EXACT, linestyle="--", linewidth=1.2)
        ax.annotate(word, (0.005, height), (0, -4), textcoords="offset points", va="top")
    ax.set_ylim(ends[0][0] - 0.14 * (ends[1][0] - ends[0][0]), None)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# Towards small regularization the plan becomes the exact permutation, with entropy $\ln n$. Towards large
# regularization it becomes the independent coupling, with entropy $2 \ln n$.

# %% [markdown] slideshow={"slide_type": "notes"}
# In between lies a choice. For flow matching the exact plan of a batch is usually affordable, so entropy is a choice
# of model, not of speed: regularization $2 \eta^2$ belongs to a Schrödinger bridge with noise level $\eta$ (Tong et
# al. 2024).

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The nearest of a few
#
# An assignment costs up to $B^3$ operations. A cheap relative, known from *immiscible diffusion* (Li et al. 2024),
# looks at $k$ noise samples for each data point and takes the nearest: `couplings.NearestNoise(k)`. Nothing keeps two
# data points from taking the same noise sample.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Pairs of the nearest of 16 cost less than pairs of any batch, and less than the optimal plan between all noise and all "
    "data. How can that be?",
    [
        "sixteen noise samples are more to choose from than a batch of 512",
        "the noise that is taken has another distribution than all noise",
        "it cannot be: the plan is the cheapest",
    ],
    answer=1,
    because="The plan is the cheapest way to use all of the noise. Here some noise samples are taken many times and some "
    "never, so what is paired with the data is no longer the round Gaussian that sampling starts from.",
)

# %% slideshow={"slide_type": "fragment"}
near = {k: couplings.NearestNoise(k)(noise, points)[0] for k in (4, 16)}
kinds = {"independent": noise, "exact, B = 512": pool[512], "nearest of 4": near[4], "nearest of 16": near[16]}
near_cost = {name: transport_cost(x0, points) for name, x0 in kinds.items()}
near_used = {name: len(x0.unique(dim=0)) / POOL for name, x0 in kinds.items()}
near_length = {name: float(x0.square().sum(dim=1).mean()) for name, x0 in kinds.items()}
for name in kinds:
    said = f"noise used {near_used[name]:4.0%}   mean of |x0|^2 {near_length[name]:.2f}"
    print(f"{name:15} cost {near_cost[name]:.2f}   {said}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What does that do to the samples?
#
# A flow trained on these pairs carries the noise that was *taken* to the data, but sampling starts from all of it.
# Train on the nearest of 16, then start once from fresh noise and once from noise taken in the same way for other
# data points.

# %% slideshow={"slide_type": "fragment"}
on_near = train_on(couplings.FixedPairs(near[16], points)).ema
others = torch.Generator().manual_seed(41)
as_taken, _ = couplings.NearestNoise(16)(torch.randn(4000, 2, generator=others), data.toy.eight_gaussians(4000, others))
near_ends = {
    name: solvers.solve(on_near, x0, rtol=1e-3, atol=1e-3).x for name, x0 in (("all", many), ("taken", as_taken))
}
near_stray = {name: stray(x) for name, x in near_ends.items()}

# %% slideshow={"slide_type": "fragment"}
said = ", ".join(f"from {name} noise {value:.1%}" for name, value in near_stray.items())
print(f"stray share: {said}; of the network of independent pairs {flows[1]['stray']:.1%}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 3, height=3.4)
axes[0].scatter(*near[16][:2000].T, s=4, color=style.PATH, linewidths=0)
style.blank(axes[0], 3.5).set_title("noise taken in training")
for ax, (name, x) in zip(axes[1:], near_ends.items(), strict=True):
    draw_samples(ax, x[:1500], size=4)
    ax.set_title(f"from {name} noise: {near_stray[name]:.1%} stray")
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# The noise that was taken has a hole in the middle. Started from all noise, more samples go astray (crosses).

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### In many dimensions
#
# A CIFAR-10 image has 3,072 numbers. There the nearest of four is hardly nearer.

# %% slideshow={"slide_type": "fragment"}
d = 3072
wide0, wide1 = torch.randn(1024, d, generator=others), torch.randn(1024, d, generator=others) / 2
wide, _ = couplings.NearestNoise(4)(wide0, wide1)
fall = transport_cost(wide0, wide1) - transport_cost(wide, wide1)
shorter = float((wide0.square() - wide.square()).sum(dim=1).mean())
wide_saved, wide_shorter = fall / transport_cost(wide0, wide1), shorter / fall
print(f"d = {d}: squared distances fall by {wide_saved:.1%}; {wide_shorter:.0%} of that is noise that is shorter")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Squared distances fall by little, and most of that little is noise that is shorter, not nearer. A low transport cost
# alone says nothing about a coupling: first ask whether it keeps $p_0$.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Labels
#
# Now a class-conditional model $v_\theta(x, t, c)$: the eight Gaussians form four classes of two neighbours each. To
# sample class $c$ one draws $x_0 \sim p_0$, from *all* of the noise, and follows $v_\theta(\cdot, \cdot, c)$. Pairing
# by optimal transport without looking at the labels gives each data point noise from its own side, whatever its
# class.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "A conditional network is trained on pairs that ignore the labels (B = 256). How do its samples of a class look?",
    [
        "better than with independent pairs: the trajectories are straighter",
        "the same, the labels are given to the network after all",
        "a large part of them lands outside the class",
    ],
    answer=2,
    because="In training each class came with its own part of the noise, about a quarter of the plane. Sampling starts "
    "anywhere, so about three quarters of the starts are places where the network has seen no example of that class.",
)


# %% slideshow={"slide_type": "fragment"}
def class_of(x):
    """0 to 3: which two neighbours of the eight Gaussians are nearest in angle."""
    return (torch.atan2(x[:, 1], x[:, 0]) / (math.pi / 4)).round().long() % 8 // 2


labels = class_of(points)
ways = {
    "independent": noise,
    "OT, labels ignored": paired,
    "OT within classes": in_batches(noise, points, 256, labels),
}


class ConditionalMLP(nn.Module):
    """v(x, t, c): the label enters as four more inputs, 0 or 1."""

    def __init__(self, classes=4, width=64):
        super().__init__()
        sizes = [3 + classes, width, width, width]
        hidden = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.SiLU())]
        self.layers, self.classes = nn.Sequential(*hidden, nn.Linear(width, 2)), classes

    def forward(self, x, t, c):
        return self.layers(torch.cat([x, t.expand(len(x), 1), nn.functional.one_hot(c, self.classes)], dim=1))


# %% slideshow={"slide_type": "skip"}
def conditional_loss(model, batch, generator):
    x0, x1, c = batch
    return losses.conditional_flow_matching(lambda x, t: model(x, t[:, None], c), path, x0, x1, generator=generator)


def train_with_labels(x0):
    torch.manual_seed(0)
    rows, config = torch.utils.data.TensorDataset(x0, points, labels), replace(CONFIG, steps=600)
    return training.train(ConditionalMLP(), conditional_loss, rows, config, progress=False, ahead=0).ema


def flow_of(model, c):
    """The velocity of class c."""
    return lambda x, t: model(x, t, torch.full((len(x),), c))


fresh_points = data.toy.eight_gaussians(4000, torch.Generator().manual_seed(14))
fresh_class = class_of(fresh_points)


def wrong(x, c):
    """Share of the samples whose nearest fresh data point belongs to another class."""
    return float((fresh_class[torch.cdist(x, fresh_points).argmin(dim=1)] != c).float().mean())


# %% slideshow={"slide_type": "fragment"}
conditional = {name: train_with_labels(x0) for name, x0 in ways.items()}
starts = torch.randn(500, 2, generator=torch.Generator().manual_seed(15))
made = {name: [solvers.solve(flow_of(model, c), starts).x for c in range(4)] for name, model in conditional.items()}
share_wrong = {name: sum(wrong(x, c) for c, x in enumerate(sets)) / 4 for name, sets in made.items()}
real = [fresh_points[fresh_class == c] for c in range(4)]
W2_class = {name: sum(wasserstein2(x, real[c][:500]) for c, x in enumerate(sets)) / 4 for name, sets in made.items()}
W2_yardstick = sum(wasserstein2(x[:450], x[450:900]) for x in real) / 4

one_step = {
    name: sum(euler_error(flow_of(v, c), starts, made[name][c], 1) / 4 for c in range(4))
    for name, v in conditional.items()
}
seen = [ways["OT, labels ignored"][labels == c][:500] for c in range(4)]  # the noise that each class came with
blind = conditional["OT, labels ignored"]
control = sum(wrong(solvers.solve(flow_of(blind, c), x0).x, c) for c, x0 in enumerate(seen)) / 4
for name in ways:
    distances = f"W2 to the class {W2_class[name]:.2f}   error of one Euler step {one_step[name]:.2f}"
    print(f"{name:20} in another class {share_wrong[name]:6.1%}   {distances}")
print(f"labels ignored, started from the noise it has seen: in another class {control:.1%}")
print(f"W2 between two fresh sets of a class: {W2_yardstick:.2f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
CLASSES = (style.DATA, style.PATH, style.MODEL, style.EXACT)
figure, axes = plotting.canvas(2, 3, height=6.0)
for column, name in enumerate(ways):
    kept = [ways[name][labels == c][:300] for c in range(4)]
    for row, sets in enumerate((kept, made[name])):
        ax = axes[row, column]
        for centre in CENTRES if row else ():
            ax.plot(centre[0] + 0.6 * TURN.cos(), centre[1] + 0.6 * TURN.sin(), color="#57606A", linewidth=1.1)
        for x, color, marker in zip(sets, CLASSES, "os^x", strict=True):
            ax.scatter(*x[:300].T, s=9, marker=marker, color=color, linewidths=0.8 if marker == "x" else 0)
        style.blank(ax, 3.5).set_title(name if row == 0 else f"{share_wrong[name]:.0%} in another class")
axes[0, 0].set_ylabel("noise seen in training")
axes[1, 0].set_ylabel("samples from all noise")
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# One colour and mark for each class. If the pairing ignores the labels, a class sees only its quarter of the noise
# (top), and samples that start elsewhere end in other classes (bottom).

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Pair within the classes
#
# The independent coupling and pairing *within* classes keep $x_0$ independent of the class, as sampling assumes, and
# the latter keeps the gain of transport: its error after one Euler step is far smaller. In code it is one more
# argument, `MinibatchOT()(x0, x1, labels)`.
#
# A batch then needs several samples per class, or there is nothing to choose from. In a batch of 256 images of 1,000
# classes, most are alone in their class:

# %% slideshow={"slide_type": "fragment"}
alone = (1 - 1 / 1000) ** 255  # none of the other 255 images has the class of this one
print(f"share of the images that are alone in their class: {alone:.0%}; they keep the noise that chance gave them")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Reflow
#
# Another way to better pairs needs no transport problem at all (*rectified flow*, Liu et al. 2023). Take a trained
# flow, follow it from $x_0$ to its end $z_1$, and train a new network on the pairs $(x_0, z_1)$:
#
# - trajectories of a flow never meet, so these pairs cross less than independent ones;
# - their cost is at most that of the pairs before, for every convex cost (Theorem 3.5 there);
# - it can be repeated.
#
# `couplings.reflow` makes the pairs. We start from the network with independent pairs and take two rounds.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "What happens to the transport cost of the flow's own pairs in two rounds of reflow?",
    ["it falls a lot, towards the optimal plan", "it hardly changes", "it rises, errors accumulate"],
    answer=1,
    because="Reflow straightens the trajectories. Apart from errors of the network the cost cannot rise, but nothing makes it "
    "fall to the optimum either. Here it was close to the optimum before.",
)

# %% slideshow={"slide_type": "subslide"}
rounds, reflowed = [flows[1]], [runs[1].ema]
for number in (1, 2):
    x0 = torch.randn(POOL // 2, 2, generator=torch.Generator().manual_seed(20 + number))
    pairs = couplings.reflow(lambda x, v=reflowed[-1]: solvers.solve(v, x, rtol=1e-4, atol=1e-4).x, x0, batch_size=4096)
    reflowed.append(train_on(pairs).ema)
    rounds.append(measure(reflowed[-1]))

print("round  " + HEAD)
for number, flow in enumerate(rounds):
    print(f"{number:5}  {report(flow)}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Sampling in one step
#
# What reflow is for: a single evaluation. The same measures of quality, for samples of one Euler step and for those
# of an accurate solver.

# %% slideshow={"slide_type": "fragment"}
one_W2 = [W2_to_fresh(flow["one step"]) for flow in (*rounds, flows[512])]
named = {f"round {k}": (flow, one_W2[k]) for k, flow in enumerate(rounds)}
named["OT pairs, B = 512"] = flows[512], one_W2[3]
print(f"{'':18}  one Euler step: error    W2   stray    accurate solver:   W2   stray")
for name, (flow, distance) in named.items():
    one = f"{flow['euler'][1]:21.2f}{distance:6.2f}{stray(flow['one step']):8.1%}"
    print(f"{name:18}  {one}{flow['W2']:24.2f}{flow['stray']:8.1%}")
print(f"{'fresh data':18}  {'':21}{yardstick:6.2f}{math.exp(-4.5):8.1%}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
show_flows({f"round {number}": flow for number, flow in enumerate(rounds)})

# %% [markdown] slideshow={"slide_type": "fragment"}
# One round is enough to make a single Euler step useful: before, it puts all samples in the middle; after, most of
# them lie inside the circles. The second round changes little.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The price: errors accumulate
#
# Each round learns from samples of the network before it, not from data, so the mistakes of that network have become
# the truth. The stray share of an accurate solver grows from round to round, although the flow gets straighter. The
# network of OT pairs, $B = 512$, has learned from data, and its stray share is about that of round 0. $W_2$ is too
# coarse to see the difference.

# %% [markdown] slideshow={"slide_type": "notes"}
# Why the samples between the circles stay: a single step is a continuous map, and cannot tear the noise into eight
# pieces. The same holds for OT pairs.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### What reflow does not do
#
# It does not find the optimal plan. The two ellipses show it without any training. The flow of independent pairs is
# a linear map $x_1 = M x_0$, and its cost is more than twice that of the plan. The lines between its ends,
# $x_t = \big((1-t) I + t M\big) x_0$, never meet, so the reflowed velocity is the one along these lines:
#
# $$
# u_t(x) = (M - I) \big((1-t)\, I + t\, M\big)^{-1} x .
# $$
#
# It is perfectly straight and takes $x_0$ to the same $M x_0$. A second round has the same pairs again: reflow changes
# nothing more, at more than twice the optimal cost.


# %% slideshow={"slide_type": "fragment"}
def reflowed_velocity(x, t):
    t = t.double()
    return x @ ((flow_map - identity) @ torch.linalg.inv((1 - t) * identity + t * flow_map)).T


ellipse = torch.randn(2000, 2, generator=torch.Generator().manual_seed(25), dtype=torch.float64) @ root(S0)
gaussian_S = [straightness(v, ellipse)[0] for v in (gaussian_velocity, reflowed_velocity)]
again = solvers.solve(reflowed_velocity, identity, rtol=1e-8, atol=1e-8).x.T
moved = float((again - flow_map).abs().max())
assert all(torch.linalg.det((1 - t) * identity + t * flow_map) > 0 for t in moments)  # the lines never meet
cost_reflow = float(((again - identity) @ S0 @ (again - identity).T).trace())
print(f"S of the flow of independent pairs {gaussian_S[0]:.2f}, after reflow {gaussian_S[1]:.0e}")
print(f"cost {cost_flow:.2f}, after reflow {cost_reflow:.2f}, of the plan {cost_plan:.2f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### OT pairs or reflow?
#
# | | OT pairs | reflow |
# |---|---|---|
# | costs | an assignment for each batch | a second training, and a solve for each pair |
# | learns from | data | samples of the first network |
# | batch size | matters | does not matter |
# | labels | pair within classes | nothing to do |

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Many dimensions
#
# In the plane a batch of 64 was enough. Real data have more dimensions. The digits of chapter 03 have 64 pixels;
# their first 2 or 8 principal components give data of fewer dimensions from the same images. By how much does
# pairing within a batch lower the transport cost?

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Eight Gaussians in the plane: pairing within 256 lowers the cost by 77%. Digits, 64 dimensions: by how much?",
    ["by about 75%, too", "by about 40%", "by less than 20%"],
    answer=2,
    because="In 64 dimensions all noise samples are nearly equally far from a data point: even the best of 256 is "
    "not much nearer than an average one.",
)

# %% slideshow={"slide_type": "fragment"}
digits = data.digits()
images = digits.scaled(digits.train)
centred = images.flatten(1) - images.flatten(1).mean(dim=0)
axes_of_data = torch.linalg.svd(centred, full_matrices=False).Vh
sets = {"eight Gaussians, d = 2": points[:1024]}
sets |= {f"digits, d = {d}": (centred @ axes_of_data[:d].T)[:1024] for d in (2, 8)}
sets["digits, d = 64"] = images.flatten(1)[:1024]

GAIN_SIZES = (1, 4, 16, 64, 256, 1024)
saved = {}
for name, x1 in sets.items():
    x0 = torch.randn(x1.shape, generator=torch.Generator().manual_seed(26))
    cost = [transport_cost(in_batches(x0, x1, B), x1) for B in GAIN_SIZES]
    saved[name] = [100 * (1 - value / cost[0]) for value in cost]
    print(f"{name:24} " + "  ".join(f"{B}: {saved[name][GAIN_SIZES.index(B)]:.0f}%" for B in GAIN_SIZES[1:]))

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
colors = dict(zip(saved, (style.EXACT, style.PATH, style.MODEL, style.DATA), strict=True))
title = "Transport cost saved by pairing within batches of B"
figure = plotting.curves(
    GAIN_SIZES, saved, xlabel="batch size B", ylabel="percent", title=title, log="x", markers=True, colors=colors
)
ax = figure.axes[0]
ax.set_xticks(GAIN_SIZES, [str(size) for size in GAIN_SIZES])
ax.minorticks_off()
ax.set_ylim(0, 119)
ax.legend(loc="upper left", ncols=2)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# The more dimensions, the less a batch saves: in 64 dimensions far less than in the plane, at every batch size.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Why so little?
#
# Only the inner product $\langle x_1, x_0 \rangle$ can be gained, and for fixed $x_1$ it is Gaussian with standard
# deviation $\|x_1\|$. The best of $B$ draws is on average at most $\|x_1\| \sqrt{2 \ln B}$, while the cost contains
# $\|x_0\|^2 \approx d$, on which pairing has no influence. To double this bound, raise the batch to the fourth power.
#
# Is it worth it? The cost is a poor judge, because $\|x_0\|^2$ and $\|x_1\|^2$ are in it for all pairs alike. So
# train on both kinds of pairs, and measure the flows.

# %% slideshow={"slide_type": "fragment"}
x1 = images.flatten(1).repeat(7, 1)[torch.randperm(10_500, generator=torch.Generator().manual_seed(31))][:10_240]
x0 = torch.randn(x1.shape, generator=torch.Generator().manual_seed(32))
start_digits = torch.randn(500, 64, generator=torch.Generator().manual_seed(33))
config = training.TrainingConfig(steps=400, batch=256, lr=1e-2, decay="cosine", ema=0.99)
on_digits = {}
for B in (1, 256):
    torch.manual_seed(0)
    pairs = couplings.FixedPairs(in_batches(x0, x1, B), x1)
    v = networks.MLP(64, width=128, depth=3)
    v = training.train(v, loss_of_pairs, pairs, config, progress=False, ahead=0).ema
    S, flow = straightness(v, start_digits)
    errors = [euler_error(v, start_digits, flow.x, steps) for steps in (1, 4)]
    on_digits[B] = {"S": S, "one step": errors[0], "nfe": flow.nfe}
    said = f"S {S:.2f}   error of 1 Euler step {errors[0]:.2f}, of 4 steps {errors[1]:.2f}   NFE {on_digits[B]['nfe']}"
    print(f"B = {B:3}   cost of the pairs {transport_cost(pairs.x0, pairs.x1):6.2f}   {said}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Pairing lowers $S$ and the error of a few steps by more than it lowers the cost, though far less than in the plane.
# The evaluations of `dopri5` hardly change.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### And on CIFAR-10?
#
# Lee et al. 2025 trained with independent pairs and with OT pairs, and report the FID of samples by Euler's method:

# %% slideshow={"slide_type": "fragment"}
rows = [r for r in reference.read_reference("lee2025_fid") if (r["data"], r["start"]) == ("cifar10", "source")]
reported = {(r["row"], int(r["nfe"])): float(r["fid"]) for r in rows}
STEPS = (5, 10, 20, 40, 100)
print("FID with Euler steps   " + "".join(f"{steps:8}" for steps in STEPS))
for row, name in {"independent": "independent pairs", "ot": "OT pairs"}.items():
    print(f"{name:23}" + "".join(f"{reported[row, steps]:8.2f}" for steps in STEPS))
lee_few, lee_many = (reported["independent", steps] / reported["ot", steps] for steps in (5, 100))

# %% [markdown] slideshow={"slide_type": "fragment"}
# The same pattern: OT pairs help with few steps, and with many steps there is nothing left to gain.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Two details of practice
#
# **Flips come first.** Whatever changes $x_1$, a flip, a crop, added noise, must happen *before* pairing. Flipped
# afterwards, half of the images have the partner of their mirror image.

# %% slideshow={"slide_type": "fragment"}
generator = torch.Generator().manual_seed(27)
x0, x1 = torch.randn(1024, 1, 8, 8, generator=generator), images[:1024]
flip = torch.rand(1024, 1, 1, 1, generator=generator) < 0.5
flipped = torch.where(flip, x1.flip(3), x1)
unpaired = transport_cost(x0, flipped)
before = 1 - transport_cost(*exact_ot(x0, flipped)) / unpaired
after = 1 - transport_cost(exact_ot(x0, x1)[0], flipped) / unpaired
print(f"saved by pairing 1,024 digits: flipped before {before:.1%}, flipped after {after:.1%}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# **Pairing can hide behind training.** The assignment runs on the CPU while a GPU trains. `couplings.prefetch_pairs`
# makes the next batch in a thread. If each batch is made from the number of its step alone, then the batches are the
# same with and without the thread, and after a restart.


# %% slideshow={"slide_type": "fragment"}
def draw(step):
    generator = torch.Generator().manual_seed(1000 + step)
    x1 = points[torch.randint(POOL, (256,), generator=generator)]
    return exact_ot(torch.randn(256, 2, generator=generator), x1)


for step, (x0, x1) in enumerate(couplings.prefetch_pairs(draw, range(20))):
    in_place = draw(step)  # a training step would stand here; meanwhile the thread pairs the next batch
    assert torch.equal(x0, in_place[0])
    assert torch.equal(x1, in_place[1])

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you saw

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
plane_256, digits_256 = (saved[name][GAIN_SIZES.index(256)] for name in ("eight Gaussians, d = 2", "digits, d = 64"))
cost_ratio = flows[1]["cost"] / flows[512]["cost"]
pair_ratio = transport_cost(noise, points) / transport_cost(pool[512], points)
nfe_ratios = [flows[B]["nfe"][tol] / flows[1]["nfe"][tol] for B in SIZES[1:] for tol in (1e-5, 1e-2)]
nfe_64 = flows[64]["nfe"][1e-5] / flows[1]["nfe"][1e-5]
error_ratio = flows[1]["euler"][4] / flows[512]["euler"][1]
S_digits, error_digits = (on_digits[256][key] / on_digits[1][key] for key in ("S", "one step"))
W2_all = [flow["W2"] for flow in (*flows.values(), *rounds)]
limits_met = max(abs(float(entropic_cost[0]) / cheapest - 1), abs(float(entropic_cost[-1]) / independent_cost - 1))
one_step_gain = stray(flows[1]["one step"]) - stray(flows[512]["one step"])
astray = [flow["stray"] for flow in rounds]
dear_classes = W2_class["OT within classes"] / W2_yardstick
gain_classes = one_step["OT within classes"] / one_step["independent"]
near_ratio = near_cost["nearest of 16"] / near_cost["exact, B = 512"]
near_astray = near_stray["all"] / near_stray["taken"]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
first = [
    Claim(
        "two ellipses: cost of the flow's own pairs over the plan", cost_flow / cost_plan, about(2.29, 0.01), digits=2
    ),
    Claim("round Gaussian to moons or circle: the same", max(flow_over_plan.values()), between(1, 1.02)),
    Claim("cost of the training pairs, B = 1 over B = 512", pair_ratio, above(4)),
    Claim("cost of the trained flow's own pairs, B = 1 over B = 512", cost_ratio, between(0.95, 1.1)),
    Claim("straightness S, B = 1 over B = 64", flows[1]["S"] / flows[64]["S"], above(30)),
    Claim("error of 4 Euler steps at B = 1 over 1 step at B = 512", error_ratio, above(1)),
    Claim("pairs drawn with replacement: S over that of each pair once", over_once[1], between(0.75, 1.35)),
    Claim("labels ignored in pairing: samples in another class", share_wrong["OT, labels ignored"], above(0.2)),
    Claim("reflow, W2 after one Euler step: round 0 over round 1", one_W2[0] / one_W2[1], above(3)),
    Claim("cost saved at B = 256, digits, percent (eight Gaussians: 77)", digits_256, about(18, 1), digits=0),
]
of_the_pairs = [
    Claim("two ellipses: cost of independent pairs", cost_independent, about(8.18, 0.005), digits=2),
    Claim("two ellipses: cost of the plan", cost_plan, about(2.15, 0.01), digits=2),
    Claim("all 720 permutations and MinibatchOT: largest difference", gap_by_hand, exactly(0), digits=0),
    Claim("crossed pairs, B = 1", share_crossed[1], about(0.5, 0.02), digits=1),
    Claim("crossed pairs, B = 512, over those of B = 1", share_crossed[512] / share_crossed[1], below(0.03)),
    Claim("crossed pairs within one batch of 512", plan_crossed, below(1e-4)),
]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
of_the_batch = [
    Claim("dopri5 at 1e-5: evaluations of B = 64 over B = 1", nfe_64, between(0.33, 0.67)),
    Claim("dopri5, both tolerances, all B: largest share of evaluations left", max(nfe_ratios), between(0.5, 0.95)),
    Claim("stray after one Euler step, B = 1 minus B = 512", one_step_gain, above(0.5)),
    Claim("W2 to fresh data, largest over smallest of all flows", max(W2_all) / min(W2_all), below(1.25)),
    Claim(
        "stray share, OT pairs of B = 512 over independent pairs", flows[512]["stray"] / flows[1]["stray"], below(1.2)
    ),
    Claim("with replacement: share of a batch that is used", used, about(1 - math.exp(-1), 0.01), digits=2),
    Claim("with replacement: variance of the target over each pair once", over_once[0], between(0.85, 1.25)),
    Claim("with replacement: error of one Euler step over each pair once", over_once[2], between(0.85, 1.15)),
    Claim("with replacement: stray share over each pair once", over_once[4], between(0.6, 1.6)),
    Claim("bias of a batch of 16 over W2^2", bias[16][0] / cost_plan, about(0.46, 0.05), digits=2),
    Claim("bias of a batch of 256 over W2^2", bias[256][0] / cost_plan, below(0.05)),
    Claim("power of B with which the bias falls, B = 4 to 1024", bias_slope, between(-1, -0.6)),
    Claim("spread of the partners of one noise sample, B = 512 over B = 1", scatter[512] / scatter[1], below(0.5)),
    Claim("Sinkhorn by hand and MinibatchOT: standard errors apart", sinkhorn_errors, below(4)),
    Claim("cost at smallest and largest regularization, off the two limits", limits_met, below(0.05)),
    Claim("nearest of 16: cost of its pairs over exact, B = 512", near_ratio, below(0.8)),
    Claim("nearest of 16: share of the noise that is used", near_used["nearest of 16"], below(0.6)),
    Claim("nearest of 16: stray share, from all noise over noise as taken", near_astray, above(2)),
    Claim("nearest of 4, d = 3072: share of the cost that is saved", wide_saved, below(0.05)),
    Claim("of that, noise that is shorter", wide_shorter, above(0.5)),
    Claim("digits: error of one Euler step, B = 256 over B = 1", error_digits, between(0.5, 0.95)),
]

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
of_the_rest = [
    Claim("labels ignored, started from the noise of the class: in another class", control, below(0.02)),
    Claim("OT within classes: samples in another class", share_wrong["OT within classes"], below(0.02)),
    Claim("OT within classes: W2 to the class over that of fresh data", dear_classes, below(1.5)),
    Claim("OT within classes: error of one Euler step over independent", gain_classes, below(0.6)),
    Claim("reflow: S of round 0 over round 1", rounds[0]["S"] / rounds[1]["S"], above(100)),
    Claim(
        "reflow: error of one Euler step, round 0 over round 1", rounds[0]["euler"][1] / rounds[1]["euler"][1], above(5)
    ),
    Claim("reflow: stray after one step, round 1", stray(rounds[1]["one step"]), below(0.5)),
    Claim(
        "reflow: cost of the flow's own pairs, round 0 over round 2",
        rounds[0]["cost"] / rounds[2]["cost"],
        about(1, 0.1),
    ),
    Claim("reflow: stray share of round 2 over round 0 (errors accumulate)", astray[2] / astray[0], above(1.2)),
    Claim("reflow of the ellipses: S", gaussian_S[1], below(1e-8)),
    Claim("reflow of the ellipses: largest change of the map", moved, below(1e-5)),
    Claim("reflow of the ellipses: cost over that of the plan", cost_reflow / cost_plan, about(2.29, 0.01), digits=2),
    Claim("cost saved at B = 256, eight Gaussians, percent", plane_256, about(77, 2), digits=0),
    Claim("digits: S at B = 256 over S at B = 1", S_digits, between(0.25, 0.75)),
    Claim("FID of Lee et al., independent over OT pairs: 5 steps", lee_few, above(1.5), digits=2),
    Claim("FID of Lee et al., independent over OT pairs: 100 steps", lee_many, about(1, 0.05), digits=2),
]
claims.table(first + of_the_pairs + of_the_batch + of_the_rest)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## To remember
#
# - Any coupling may be used for training. The OT path to a single data point does not make the flow optimal
#   transport.
# - From a round Gaussian the flow of *independent* pairs ends almost where the plan would. OT pairs make the
#   trajectories straight, not the ends better: few Euler steps gain much, an adaptive solver gains little.
# - Pairing within a batch keeps the marginals exactly and costs more than the plan, the less so the larger the batch.
#   Drawing pairs of the plan with replacement is the same coupling, from a noisier batch.
# - The nearest of a few noise samples gives cheaper pairs, but it is no coupling of $p_0$: samples start from noise
#   that training has not seen.
# - In a conditional model pair within the classes, or sampling starts from noise that the class has never seen.
# - Reflow straightens a flow in one round and makes one step useful. Straight does not mean optimal, and errors
#   accumulate.
# - In many dimensions a batch holds no near partner, and the cost falls little. A few steps still gain from it.

# %% [markdown] slideshow={"slide_type": "skip"}
# ## References
#
# - Lipman, Chen, Ben-Hamu, Nickel, Le 2023. *Flow Matching for Generative Modeling.* ICLR. arXiv 2210.02747. The OT
#   path.
# - Tong, Fatras, Malkin, Huguet, Zhang, Rector-Brooks, Wolf, Bengio 2024. *Improving and Generalizing Flow-Based
#   Generative Models with Minibatch Optimal Transport.* TMLR. arXiv 2302.00482. OT pairs, Schrödinger bridges,
#   TorchCFM.
# - Pooladian, Ben-Hamu, Domingo-Enrich, Amos, Lipman, Chen 2023. *Multisample Flow Matching: Straightening Flows with
#   Minibatch Couplings.* ICML. arXiv 2304.14772. OT pairs.
# - Liu, Gong, Liu 2023. *Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow.* ICLR.
#   arXiv 2209.03003. Straightness and reflow.
# - Cuturi 2013. *Sinkhorn Distances: Lightspeed Computation of Optimal Transport.* NeurIPS. arXiv 1306.0895.
# - Olkin, Pukelsheim 1982. *The Distance between Two Random Vectors with Given Dispersion Matrices.* Linear Algebra
#   and its Applications. The optimal map between Gaussians.
# - Li, Jiang, Kodaira, Tomizuka, Keutzer, Xu 2024. *Immiscible Diffusion: Accelerating Diffusion Training with Noise
#   Assignment.* NeurIPS. arXiv 2406.12303. The nearest of a few.
# - Lee, Kim, Lee 2025. *Is There a Better Source Distribution than Gaussian?* arXiv 2512.18184. The FIDs by number of
#   steps.
# - Villani 2009. *Optimal Transport: Old and New.* Springer.
# - Peyré, Cuturi 2019. *Computational Optimal Transport.* Foundations and Trends in Machine Learning.
#   arXiv 1803.00567.
#
# Where to read on: Peyré & Cuturi 2019 for optimal transport as computation, from assignments to Sinkhorn; Liu et al.
# 2023 for what reflow guarantees.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# In [exercises/05_optimal_transport.ipynb](exercises/05_optimal_transport.ipynb); each has a check that says what is
# wrong.
#
# 1. **Transport on a line.** In one dimension sorting is enough, if the data keep their order.
# 2. **Pairs and labels.** Find three faults in a pairing within classes, and count the images that are alone in
#    theirs.
# 3. **The entropic plan of two Gaussians.** Derive its correlation as a function of the regularization.
# 4. **Sinkhorn's iterations that break.** Find out why they return nothing useful, and mend them.
# 5. **The flow never costs more than its pairs.** A proof that gives the difference as a sum of two terms, checked
#    numerically.
# 6. **What is a batch drawn with replacement worth?** Design the test: how much noisier, and like a batch of which
#    size?
#
# <!-- next: written by fmcore.course.build -->
#
# Next: [06 Images](06_images.ipynb). How do five ways of training compare on images at equal cost?
#
# <!-- end of next -->
