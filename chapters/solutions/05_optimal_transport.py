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
# # Exercises to 05 Optimal transport
#
# Fill in the places marked `...` and run the cell below each of them: it says whether your function is right and, if
# it is not, what is wrong. The words and formulas are in [the chapter](../05_optimal_transport.ipynb).

# %%
import math

import torch

from fmcore import couplings, data
from fmcore.course import checks, plotting, style

style.use()
exact_ot = couplings.MinibatchOT()

# %% [markdown]
# ## 1. Transport on a line
#
# In one dimension the cheapest pairing keeps the order: the smallest $x_0$ meets the smallest $x_1$, and so on. No
# assignment problem is needed, sorting is enough. Return `x0` reordered, shape $(n, 1)$, so that row $i$ is the
# partner of row $i$ of `x1`. The data keep *their* order, as labels would belong to them: `x1` is not sorted.


# %% tags=["exercise", "points:2"]
def pair_on_a_line(x0, x1):
    ### BEGIN SOLUTION
    paired = torch.empty_like(x0)
    paired[x1[:, 0].argsort()] = x0[x0[:, 0].argsort()]
    return paired
    ### END SOLUTION


# %% tags=["check"]
def reference_line(x0, x1):
    return exact_ot(x0, x1)[0]


def rank(x):
    return x[:, 0].argsort().argsort()


# %% tags=["check"]
mistakes = {
    "x0 is sorted, but x1 is not: row i must get the partner of x1[i]": lambda x0, x1: x0.sort(dim=0).values,
    "x0 is ordered by argsort(x1); what is needed is the place of each x1 in the order, the inverse permutation": (
        lambda x0, x1: x0.sort(dim=0).values[x1[:, 0].argsort()]
    ),
    "x0 must be sorted before it is given out": lambda x0, x1: x0[rank(x1)],
    "the order is reversed: the largest noise goes to the smallest data point, the dearest plan": lambda x0, x1: (
        x0.sort(dim=0, descending=True).values[rank(x1)]
    ),
    "each data point takes the noise nearest to it; then some are used twice and some never": lambda x0, x1: x0[
        torch.cdist(x1, x0).argmin(dim=1)
    ],
    "these are the pairs as they came": lambda x0, x1: x0,
}
generator = torch.Generator().manual_seed(1)
line_cases = [tuple(torch.randn(2, n, 1, generator=generator)) for n in (7, 12, 30)]
checks.compare("pair_on_a_line", pair_on_a_line, reference_line, line_cases, mistakes)

# %% [markdown]
# ## 2. The cheapest plan between two Gaussians
#
# The cost of the plan between $\mathcal{N}(m_0, \Sigma_0)$ and $\mathcal{N}(m_1, \Sigma_1)$ is known,
#
# $$
# W_2^2 = \|m_1 - m_0\|^2 + \operatorname{tr} \Sigma_0 + \operatorname{tr} \Sigma_1
# - 2 \operatorname{tr} \big( \Sigma_0^{1/2}\, \Sigma_1\, \Sigma_0^{1/2} \big)^{1/2} .
# $$
#
# The Fréchet distance (FID) of chapter 06 is this number for Gaussians fitted to features of images. Write it for
# means of shape $(d,)$ and covariances of shape $(d, d)$ in double precision. `root` is the square root of a
# symmetric matrix.


# %%
def root(matrix):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T


# %% tags=["exercise", "points:2"]
def gaussian_w2_squared(m0, S0, m1, S1):
    ### BEGIN SOLUTION
    cross = root(root(S0) @ S1 @ root(S0))
    return (m1 - m0).square().sum() + (S0 + S1 - 2 * cross).trace()
    ### END SOLUTION


# %% tags=["check"]
def reference_w2(m0, S0, m1, S1):
    """By another way: the eigenvalues of S0 S1 are those of the matrix under the root."""
    roots = torch.linalg.eigvals(S0 @ S1).real.clamp(min=0).sqrt()
    return (m1 - m0).square().sum() + S0.trace() + S1.trace() - 2 * roots.sum()


# %% tags=["check"]
mistakes = {
    "the means are missing": lambda m0, S0, m1, S1: reference_w2(m0, S0, m0, S1),
    "the distance of the means is not squared": lambda m0, S0, m1, S1: reference_w2(m0, S0, m0, S1) + (m1 - m0).norm(),
    "the factor 2 of the last trace is missing": lambda m0, S0, m1, S1: (
        (reference_w2(m0, S0, m1, S1) + (m1 - m0).square().sum() + S0.trace() + S1.trace()) / 2
    ),
    "this is the cost of independent pairs: the last trace is missing": lambda m0, S0, m1, S1: (
        (m1 - m0).square().sum() + S0.trace() + S1.trace()
    ),
    "the outer root is missing": lambda m0, S0, m1, S1: (
        (m1 - m0).square().sum() + (S0 + S1 - 2 * root(S0) @ S1 @ root(S0)).trace()
    ),
    "root(S0) @ root(S1) is that root only if both matrices have the same axes": lambda m0, S0, m1, S1: (
        (m1 - m0).square().sum() + (S0 + S1 - 2 * root(S0) @ root(S1)).trace()
    ),
    "sqrt() takes the root of each entry; root() takes that of the matrix": lambda m0, S0, m1, S1: (
        (m1 - m0).square().sum() + (S0 + S1 - 2 * (S0.sqrt() @ S1 @ S0.sqrt()).sqrt()).trace()
    ),
    "this is W2; W2 squared is asked": lambda m0, S0, m1, S1: reference_w2(m0, S0, m1, S1).sqrt(),
}


# %% tags=["check"]
def covariance(d):
    """A covariance with positive entries, so that a root of each entry exists too."""
    factor = torch.rand(d, d, generator=generator, dtype=torch.float64)
    return factor @ factor.T + 0.3 * torch.eye(d, dtype=torch.float64)


w2_cases = [
    (torch.randn(d, generator=generator).double(), covariance(d), torch.randn(d, generator=generator).double(), covariance(d))
    for d in (2, 3, 5)
]  # fmt: skip
checks.compare("gaussian_w2_squared", gaussian_w2_squared, reference_w2, w2_cases, mistakes)

# %% [markdown]
# ## 3. How straight is a flow?
#
# Write the straightness
#
# $$
# S = \int_0^1 \mathbb{E}\, \big\| (z_1 - z_0) - v(z_t, t) \big\|^2 \, \mathrm{d}t
# $$
#
# of a flow from its stored states `z`, shape $(T, B, d)$, and the velocities `v` there, of the same shape, at the
# times `t`, shape $(T,)$, that run from 0 to 1 and need *not* be evenly spaced. Sum over the dimensions, average over
# the batch, and integrate over time with `torch.trapezoid(values, t)`.


# %% tags=["exercise", "points:2"]
def straightness(z, v, t):
    ### BEGIN SOLUTION
    difference = (z[-1] - z[0]) - v
    return torch.trapezoid(difference.square().sum(dim=2).mean(dim=1), t)
    ### END SOLUTION


# %% tags=["check"]
def reference_straightness(z, v, t):
    weights = torch.zeros_like(t)  # of the trapezoidal rule: half of each interval goes to each of its ends
    weights[1:] += t.diff() / 2
    weights[:-1] += t.diff() / 2
    squares = ((z[-1:] - z[:1] - v) ** 2).mean(dim=1).sum(dim=-1)
    return (weights * squares).sum()


def integrated(difference, t):
    return torch.trapezoid(difference.square().sum(dim=2).mean(dim=1), t)


# %% tags=["check"]
mistakes = {
    "averaged over the dimensions; the squared norm is a sum over them": lambda z, v, t: (
        reference_straightness(z, v, t) / z.shape[2]
    ),
    "summed over the batch; E is the mean over it": lambda z, v, t: reference_straightness(z, v, t) * z.shape[1],
    "the norm is not squared": lambda z, v, t: torch.trapezoid(((z[-1] - z[0]) - v).norm(dim=2).mean(dim=1), t),
    "this is the mean over the stored times; they are not evenly spaced, so integrate": lambda z, v, t: (
        ((z[-1] - z[0]) - v).square().sum(dim=2).mean()
    ),
    "trapezoid needs the times: without them every interval has length 1": lambda z, v, t: torch.trapezoid(
        ((z[-1] - z[0]) - v).square().sum(dim=2).mean(dim=1)
    ),
    "the velocity is compared with that at the start, not with z_1 - z_0": lambda z, v, t: integrated(v[0] - v, t),
    "sign flipped: z_0 - z_1 points backward": lambda z, v, t: integrated((z[0] - z[-1]) - v, t),
    "the mean velocity is compared: take the norm of each sample before averaging": lambda z, v, t: torch.trapezoid(
        ((z[-1] - z[0]) - v).mean(dim=1).square().sum(dim=1), t
    ),
}

# %% tags=["check"]
straight_cases = []
for T, B, d in ((5, 4, 2), (9, 3, 5), (6, 7, 3)):
    t = torch.cat([torch.zeros(1), torch.rand(T - 2, generator=generator).sort().values, torch.ones(1)])
    z, v = torch.randn(2, T, B, d, generator=generator)
    straight_cases.append((z, v, t))
checks.compare("straightness", straightness, reference_straightness, straight_cases, mistakes)

# %% [markdown]
# ## 4. Sinkhorn's iterations
#
# The entropic plan between $n$ noise samples and $n$ data points has the form $P_{ij} = a_i K_{ij} b_j$ with $K_{ij} =
# \exp(-c_{ij} / \varepsilon)$, and its rows and columns sum to $1/n$. Start with $b = (1, \dots, 1)$ and repeat: choose $a$
# so that the rows are right, then $b$ so that the columns are. Return $P$, shape $(n, n)$, after `rounds` rounds.


# %% tags=["exercise", "points:2"]
def sinkhorn(costs, epsilon, rounds):
    ### BEGIN SOLUTION
    n = len(costs)
    K = torch.exp(-costs / epsilon)
    b = torch.ones(n, dtype=costs.dtype)
    for _ in range(rounds):
        a = 1 / (n * (K @ b))
        b = 1 / (n * (K.T @ a))
    return a[:, None] * K * b
    ### END SOLUTION


# %% tags=["check"]
def reference_sinkhorn(costs, epsilon, rounds, mass=None):
    """On the plan itself: scale its rows, then its columns."""
    mass = 1 / len(costs) if mass is None else mass
    plan = torch.exp(-costs / epsilon)
    for _ in range(rounds):
        plan = mass * plan / plan.sum(dim=1, keepdim=True)
        plan = mass * plan / plan.sum(dim=0, keepdim=True)
    return plan


def columns_first(costs, epsilon, rounds):
    return reference_sinkhorn(costs.T, epsilon, rounds).T


# %% tags=["check"]
mistakes = {
    "rows and columns sum to 1; they must sum to 1/n": lambda c, e, r: reference_sinkhorn(c, e, r, mass=1.0),
    "the minus sign in K is lost: the dearest pairs are the likeliest": lambda c, e, r: reference_sinkhorn(-c, e, r),
    "costs times epsilon, where they are divided by it": lambda c, e, r: reference_sinkhorn(c, 1 / e, r),
    "epsilon is missing": lambda c, e, r: reference_sinkhorn(c, 1.0, r),
    "columns first; the rows come first, and the columns are exact at the end": columns_first,
    "one round too few": lambda c, e, r: reference_sinkhorn(c, e, r - 1),
    "one round too many": lambda c, e, r: reference_sinkhorn(c, e, r + 1),
    "the plan is transposed": lambda c, e, r: reference_sinkhorn(c, e, r).T,
    "this is K, scaled as a whole: rows and columns must be scaled apart": lambda c, e, r: (
        torch.exp(-c / e) / torch.exp(-c / e).sum()
    ),
    "only the rows are scaled": lambda c, e, r: torch.softmax(-c / e, dim=1) / len(c),
}
sinkhorn_cases = []
for n, epsilon, rounds in ((4, 0.7, 3), (6, 2.0, 2), (5, 0.4, 4)):
    x0, x1 = torch.randn(2, n, 2, generator=generator, dtype=torch.float64)
    sinkhorn_cases.append((torch.cdist(x1, x0).square(), epsilon, rounds))
checks.compare("sinkhorn", sinkhorn, reference_sinkhorn, sinkhorn_cases, mistakes, rtol=1e-5, atol=1e-7)

# %% [markdown]
# ## 5. Pairs and labels
#
# Pair noise and data within their classes, with the function `couple(x0, x1)` that returns `x0` reordered (here:
# optimal transport). For each class take its rows of `x1` and the *same rows* of `x0`, pair those, and put the result
# back into these rows. Return `x0` reordered, shape $(n, d)$; `labels` has shape $(n,)$.


# %% tags=["exercise", "points:2"]
def pair_within_classes(couple, x0, x1, labels):
    ### BEGIN SOLUTION
    paired = x0.clone()
    for label in labels.unique():
        mine = labels == label
        paired[mine] = couple(x0[mine], x1[mine])
    return paired
    ### END SOLUTION


# %% tags=["check"]
def couple(x0, x1):
    return exact_ot(x0, x1)[0]


def reference_classes(couple, x0, x1, labels):
    return exact_ot(x0, x1, labels)[0]


def in_order_of_class(couple, x0, x1, labels):
    return torch.cat([couple(x0[labels == c], x1[labels == c]) for c in labels.unique()])


# %% tags=["check"]
mistakes = {
    "the labels are ignored: each class gets the noise nearest to it": lambda f, x0, x1, c: f(x0, x1),
    "the classes are joined one after the other; each result belongs into the rows of its class": in_order_of_class,
    "the pairs are as they came": lambda f, x0, x1, c: x0,
    "only the first class is paired: is the return inside the loop?": lambda f, x0, x1, c: torch.where(
        (c == c.min())[:, None], reference_classes(f, x0, x1, c), x0
    ),
    "couple(x1, x0): x0 and x1 are swapped, and this returns data": lambda f, x0, x1, c: reference_classes(
        f, x1, x0, c
    ),
}
class_cases = []
for n in (12, 20, 9):
    x0, x1 = torch.randn(2, n, 2, generator=generator)
    class_cases.append((couple, x0, x1 + 1, torch.randint(3, (n,), generator=generator)))
checks.compare("pair_within_classes", pair_within_classes, reference_classes, class_cases, mistakes)

# %% [markdown]
# A batch holds `batch` images of `classes` equally frequent classes. What share of them is alone in its class on
# average, so that pairing within classes cannot improve its noise? Write it for 256 images of 1,000 classes
# (ImageNet).

# %% tags=["exercise", "points:1"]
share_alone = ...
### BEGIN SOLUTION
share_alone = (1 - 1 / 1000) ** 255  # none of the other 255 has the same class
### END SOLUTION

# %% tags=["check"]
wrong_values = {
    "that is the chance that one given other image has another class; all 255 must": 1 - 1 / 1000,
    "that is the share with company; what is asked is the share alone": 1 - (1 - 1 / 1000) ** 255,
    "that is the share of a class in the batch; ask that none of the others has the class of this image": 256 / 1000,
    "1/e belongs to batches as large as the number of classes": math.exp(-1),
    "that is the chance that all 256 classes differ": math.exp(sum(math.log(1 - k / 1000) for k in range(256))),
}
checks.value("share_alone", share_alone, (1 - 1 / 1000) ** 255, wrong_values, rtol=5e-4)

# %% [markdown]
# With the function of 1 you can see why one dimension is special. Once its check is right, this cell pairs noise with
# data on a line and draws the lines $x_t$ of the pairs before and after: afterwards none cross.

# %%
picture = None
generator = torch.Generator().manual_seed(2)
x0, x1 = torch.randn(60, 1, generator=generator), data.toy.eight_gaussians(60, generator)[:, :1]
paired = pair_on_a_line(x0, x1)
if isinstance(paired, torch.Tensor):
    picture, axes = plotting.canvas(1, 2, height=3.4, sharey=True)
    for ax, start, title in zip(axes, (x0, paired), ("as they came", "paired on a line"), strict=True):
        ax.plot([0, 1], torch.cat([start, x1], dim=1).T, color=style.PATH, alpha=0.5, linewidth=1)
        ax.plot(0 * start, start, "o", color=style.SOURCE, markersize=3)
        ax.plot(1 + 0 * x1, x1, "o", color=style.DATA, markersize=3)
        ax.set(xlabel="t", title=f"{title}: cost {(x1 - start).square().mean():.2f}")
picture
