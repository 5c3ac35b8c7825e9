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
# # Exercises to 10 Source direction
#
# Fill in the places marked `...` and run the cell below each of them: it says whether your answer is right and, if it is
# not, what is wrong. The words and formulas are in [the chapter](../10_source_direction.ipynb). Under each title you find
# the kind of exercise, the time it takes somebody who has read the chapter, and how hard it is. A hint helps you to start.

# %%
import math

import torch
from torch.nn.functional import normalize

from fmcore.course import checks, plotting, style
from fmcore.ensemble.plane import at_angles
from fmcore.sources import ChiSphere, VonMisesFisher, uniform_directions

style.use()

# %% [markdown]
# ## 1. Directions from cosines
#
# *Transcription · 10 minutes · ★☆☆*
#
# Make unit vectors $u = \mu\, w + v \sqrt{1 - w^2}$ with given cosines $w$, negative ones too: `mu` has shape $(d,)$ and
# length 1, `cosines` shape $(n,)$, and `noise` shape $(n, d)$ holds Gaussian numbers. From them make $v$, the unit vectors
# orthogonal to $\mu$: take away from each row its part along $\mu$, and give what remains length 1. Return shape $(n, d)$.
#
# <details><summary>Hint</summary>
#
# `noise @ mu` holds the inner products of all rows with $\mu$, and `normalize(x, dim=1)` divides each row by its length. A
# number for each row has to stand beside the row: `cosines[:, None]`.
#
# </details>


# %% tags=["exercise", "points:2"]
def around(mu, cosines, noise):
    ### BEGIN SOLUTION
    w = cosines[:, None]
    v = normalize(noise - (noise @ mu)[:, None] * mu, dim=1)
    return mu * w + v * (1 - w**2).sqrt()
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("10.1", around)

# %% [markdown]
# ## 2. A sampler that is right for some dimensions only
#
# *Diagnosis · 20 minutes · ★★☆*
#
# Somebody draws the angle $a$ between $\mu$ and a von Mises-Fisher direction by inverting the distribution function, as the
# chapter does, and has tried it for $\kappa = 50$ in 3,072 dimensions only:


# %%
def hasty_angles(n, dim, kappa, generator):
    a = torch.linspace(0, math.pi, 20_001, dtype=torch.float64)[1:-1]
    density = torch.exp(kappa * a.cos()) * a.sin() ** (dim - 1)
    cumulative = density.cumsum(dim=0) / density.sum()
    uniform = torch.rand(n, generator=generator, dtype=torch.float64)
    return a[torch.searchsorted(cumulative, uniform).clamp(max=len(a) - 1)]


def bessel_ratio(dim, kappa, terms=400):
    """A_d(kappa), the mean cosine, from the last term of the continued fraction to the first; see the chapter."""
    value = 0.0
    for j in reversed(range(terms)):
        value = 1 / ((dim + 2 * j) / kappa + value)
    return value


for dim, kappa in ((3072, 50.0), (3072, 1500.0), (3, 5.0)):
    cosine = hasty_angles(4000, dim, kappa, torch.Generator().manual_seed(1)).cos()
    said = f"mean cosine {cosine.mean():6.3f} ± {cosine.std() / 4000**0.5:.4f} (standard error)"
    print(f"d = {dim:5,}, kappa = {kappa:5,.0f}: {said}, right {bessel_ratio(dim, kappa):.3f}")

# %% [markdown]
# It has two faults, and at its first setting neither can be seen. What does each setting show? Return for the pairs `(3072, 50)`,
# `(3072, 1500)` and `(3, 5)` of dimension and concentration one of `"nothing"`, `"overflow"` (numbers too large for the computer)
# and `"a wrong power"`.
#
# <details><summary>Hint</summary>
#
# The largest number in double precision is about $e^{709}$. What is the largest of `density` in each case? And by how much does
# a mean cosine of about $\kappa / d$ change if $d$ is off by one?
#
# </details>


# %% tags=["exercise", "points:1"]
def shows(setting):
    ### BEGIN SOLUTION
    # the power must be d - 2: d is off by one, which is a lot for d = 3 and nothing for d = 3,072
    return {(3072, 50): "nothing", (3072, 1500): "overflow", (3, 5): "a wrong power"}[setting]
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("10.2a", shows)

# %% [markdown]
# Mend it: return $n$ angles, shape $(n,)$, for `dim` from 2 to 3,072 and `kappa` from 0 to 3,000. All randomness comes from
# `generator`. The check compares distribution functions, in nine settings.


# %% tags=["exercise", "points:2"]
def drawn_angles(n, dim, kappa, generator):
    ### BEGIN SOLUTION
    a = torch.linspace(0, math.pi, 20_001, dtype=torch.float64)[1:-1]
    logarithm = kappa * a.cos() + (dim - 2) * a.sin().log()
    cumulative = torch.softmax(logarithm, dim=0).cumsum(dim=0)
    uniform = torch.rand(n, generator=generator, dtype=torch.float64)
    return a[torch.searchsorted(cumulative, uniform).clamp(max=len(a) - 1)]
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("10.2b", drawn_angles)

# %% [markdown]
# ## 3. The concentration in closed form
#
# *Derivation · 15 minutes · ★★☆*
#
# The chapter fits $\kappa$ by halving an interval until $A_d(\kappa) = r$, where $r$ is the mean cosine of the data with the mean
# direction. There is a formula that is nearly as good. The continued fraction says
#
# $$
# A_d(\kappa) = \frac{1}{d/\kappa + A_{d+2}(\kappa)} ,
# $$
#
# and in many dimensions $A_{d+2}$ and $A_d$ are nearly the same. Put $r$ in place of both, and solve for $\kappa$. Then return
# this $\kappa$ for vectors of `data`, shape $(n, d)$ and of any length above 0, and a mean direction `mu` of any length above 0, shape
# $(d,)$, as a number or a tensor of shape $()$. The mean cosine may be negative; then so is $\kappa$: the data gather opposite to `mu`.
#
# <details><summary>Hint</summary>
#
# First isolate $d / \kappa$. A cosine is an inner product over both lengths; take the mean of the cosines, not the cosine of
# the mean.
#
# </details>


# %% tags=["exercise", "points:2"]
def concentration(data, mu):
    ### BEGIN SOLUTION
    r = (normalize(data, dim=1) @ (mu / mu.norm())).mean()
    return r * data.shape[1] / (1 - r**2)  # 1 / r = d / kappa + r
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("10.3", concentration)

# %% [markdown]
# ## 4. The mean cosine grows with the concentration
#
# *Proof · 25 minutes · ★★★*
#
# **Claim.** Let $A(\kappa)$ be the mean of $\cos a$ under the density $p(a) = e^{\kappa \cos a} \sin^{d-2} a \,/\, Z(\kappa)$ of the angle, with
# $Z(\kappa) = \int_0^\pi e^{\kappa \cos a} \sin^{d-2} a\; da$. Then $A$ grows strictly with $\kappa$, so that each mean cosine between $-1$ and 1 belongs to one
# concentration at most; and its slope is a function of $A$, $\kappa$ and $d$ alone.
#
# **Proof.**
#
# 1. Differentiate under the integral: $Z'(\kappa) / Z(\kappa)$ is the mean of $\cos a$, so $A = (\log Z)'$. Differentiate once more. *Return*
#    $A'(\kappa)$ as `slope_by_moments(m1, m2)`, where `m1` and `m2` are the means of $\cos a$ and of $\cos^2 a$. You know this
#    expression; it is above 0 unless $\cos a$ is a constant.
# 2. Note that $\kappa \sin a\; e^{\kappa \cos a}$ is minus the derivative of $e^{\kappa \cos a}$ with respect to $a$. Integrate by parts. *Return* the
#    mean of $\sin^2 a$ as `mean_sine_squared(A, kappa, d)`, for $\kappa \ne 0$.
# 3. Since $\cos^2 a = 1 - \sin^2 a$, steps 1 and 2 give the slope. *Return* it as `slope(A, kappa, d)`. $\square$
#
# **Use.** Newton's method solves $A(\kappa) = r$: it goes from $\kappa$ to the place where the tangent of $A$ has the height $r$. *Return* this place as
# `newton_step(kappa, r, A, d)`, where `A` is $A(\kappa)$.
#
# All arguments are numbers. The check has the means and slopes from integrals and differences.
#
# <details><summary>Hint</summary>
#
# Step 1: a second derivative of a logarithm is $Z''/Z - (Z'/Z)^2$. Step 2: write $\kappa \sin^d a\; e^{\kappa \cos a}$ as $\sin^{d-1} a$ times the given
# derivative; the boundary terms are 0.
#
# </details>


# %% tags=["exercise", "points:3"]
def slope_by_moments(m1, m2):
    ### BEGIN SOLUTION
    return m2 - m1**2  # the variance of cos a
    ### END SOLUTION


def mean_sine_squared(A, kappa, d):
    ### BEGIN SOLUTION
    return (d - 1) * A / kappa
    ### END SOLUTION


def slope(A, kappa, d):
    ### BEGIN SOLUTION
    return 1 - (d - 1) * A / kappa - A**2
    ### END SOLUTION


def newton_step(kappa, r, A, d):
    ### BEGIN SOLUTION
    return kappa + (r - A) / slope(A, kappa, d)
    ### END SOLUTION


# %% tags=["check"]
right_proof = checks.exercise("10.4", slope_by_moments, mean_sine_squared, slope, newton_step)

# %% [markdown]
# Once the check is right: Newton's method with your step, from the formula of exercise 3. How many steps does it take until the
# mean cosine is right to eight digits?

# %%
if right_proof:
    dim, r = 64, 0.78
    kappa = r * dim / (1 - r**2)
    for k in range(4):
        print(f"{k} steps: kappa = {kappa:.6f}, mean cosine {bessel_ratio(dim, kappa):.8f}, wanted {r:.8f}")
        kappa = newton_step(kappa, r, bessel_ratio(dim, kappa), dim)

# %% [markdown]
# ## 5. How much do the targets disagree?
#
# *Derivation · 20 minutes · ★★★*
#
# The chapter has the targets' variance for *independent* pairs. Now let the start know where its data point is: each data point belongs to
# a mode, a group of data in one direction, and the start is drawn near that direction. The data points $x^{(1)}, \dots, x^{(n)}$
# are equally likely, and point $i$ belongs to mode $k_i$ (`modes`, whole numbers of shape $(n,)$). Given that the data point is $x^{(i)}$, the start has the
# density $p_0(x_0 \mid k_i)$: `log_density(starts, modes)` takes starts $(m, d)$ with a mode for each, $(m,)$, and returns the logarithms,
# shape $(m,)$.
#
# Of all pairs, look at those whose straight path $(1 - t)\, x_0 + t\, x_1$ is at the place `x`, shape $(d,)$, at the time `t`, a number in
# $(0, 1)$. Their targets $x_1 - x_0$ are $n$ different vectors. Work out the probability of each *given the place and the time*, and
# return the variance of the target,
#
# $$
# \mathbb{E} \big[ \| x_1 - x_0 - u \|^2 \,\big|\, x_t = x \big], \qquad u = \mathbb{E} [ x_1 - x_0 \mid x_t = x ],
# $$
#
# a tensor of shape $()$. `points` has shape $(n, d)$. Densities may be as small as $e^{-5000}$: stay with logarithms as long as you can.
#
# <details><summary>Hint</summary>
#
# If the path of $x^{(i)}$ is at $x$ at time $t$, where did it start, and from which of the densities? `torch.softmax` turns
# logarithms into probabilities.
#
# </details>


# %% tags=["exercise", "points:3"]
def disagreement(log_density, points, modes, x, t):
    ### BEGIN SOLUTION
    weights = torch.softmax(log_density((x - t * points) / (1 - t), modes), dim=0)[:, None]
    targets = (points - x) / (1 - t)
    mean = (weights * targets).sum(dim=0)
    return (weights * (targets - mean).square()).sum()
    ### END SOLUTION


# %% tags=["check"]
right_spread = checks.exercise("10.5", disagreement)

# %% [markdown]
# Once the check is right: the disagreement at places on paths to three short arcs of data, at two times. With $\kappa = 0$ the starts
# know nothing of the modes and come from the whole ring; with $\kappa = 15$ they gather around the direction of their mode.

# %%
picture = None
if right_spread:
    ring, angles = ChiSphere((2,), dof=3072), torch.tensor([4.5, 5.92, 1.1])
    modes = torch.arange(3).repeat_interleave(60)
    three = at_angles(angles[modes] + torch.linspace(-0.17, 0.17, 60).repeat(3), torch.full((180,), 25.0))
    generator = torch.Generator().manual_seed(1)
    picture, axes = plotting.canvas(1, 4, height=2.8)
    for ax, (kappa, t) in zip(axes, ((0.0, 0.5), (15.0, 0.5), (0.0, 0.7), (15.0, 0.7)), strict=True):

        def log_density(x0, modes, kappa=kappa):
            return ring.log_prob(x0) + kappa * torch.cos(torch.atan2(x0[:, 1], x0[:, 0]) - angles[modes])

        i = torch.randint(180, (600,), generator=generator)
        turned = VonMisesFisher(torch.eye(2)[:1], kappa, dof=3072).sample(600, generator)
        x0 = at_angles(torch.atan2(turned[:, 1], turned[:, 0]) + angles[modes[i]], turned.norm(dim=1))
        xt = (1 - t) * x0 + t * three[i]
        value = torch.stack([disagreement(log_density, three, modes, x, t) for x in xt]).sqrt()
        ax.scatter(*xt.T, c=value, s=4, cmap="magma_r", vmin=0, vmax=40, linewidths=0)
        style.blank(ax, 58).set_title(f"κ = {kappa:.0f}, t = {t}")
picture

# %% [markdown]
# ## 6. What is it worth to know the mean direction?
#
# *Investigation · 40 minutes · ★★★*
#
# In the chapter you are given one direction, know $\mu$, and have to say whether it comes from the uniform distribution or from a von
# Mises-Fisher distribution around $\mu$. Now you are given $n$ directions, all from the same of the two. How many do you need to be right in nine
# of ten cases? And how many if you do *not* know $\mu$, which may be anything? **Does knowing $\mu$ save more in more dimensions, less, or always the
# same factor?** To compare dimensions, let $\kappa = \sqrt d$, which shifts noise by about 1 along $\mu$ in every dimension.
#
# You need a number that tells, for each case: with $\mu$ known, the mean of the $n$ cosines is a good one; without $\mu$, look for one that
# does not change when the whole space is turned. And you need a border for it, above which you say "von Mises-Fisher". The border must not be chosen
# on the same draws on which you count how often you are right.
#
# Write `experiment(dim, seed)`. It returns a dictionary with
#
# - `"numbers"`: values of $n$ in increasing order, from 1 to at least $4 \sqrt{d} + 8$, at least six of them;
# - `"known"`: for each $n$ the share of right decisions with $\mu$ known, over at least 400 sets of $n$ directions, half of them uniform;
# - `"unknown"`: the same without $\mu$;
# - `"ratio"`: the first $n$ of your list with a share of at least 0.9 in `"unknown"`, over the first one in `"known"`.
#
# The check runs it in 16 and in 256 dimensions, with seeds of its own. State as `verdict` what your ratios show: knowing $\mu$ is worth
# `"more in more dimensions"`, `"less in more dimensions"` or `"the same in all dimensions"`.
#
# **What a good answer has** (write a few sentences into a new cell below):
#
# - the standard errors of the shares, and what they make of the ratio (1 point);
# - three or more dimensions, and how the ratio grows with $d$: which power? (1 point);
# - a control of both tests: how often do they say "von Mises-Fisher" of uniform directions? (1 point);
# - an explanation by a calculation: signal and scatter of both numbers, as functions of $n$ and $d$ (2 points).
#
# <details><summary>Hint</summary>
#
# Without $\mu$: the length of the mean of the $n$ directions. A border: the middle between the medians of that number for uniform and for von
# Mises-Fisher directions, each from draws made for the purpose. Draw the largest $n$ once; the first $k$ directions of it are a set of $k$.
# `uniform_directions(n, dim, generator)` and `normalize(VonMisesFisher(mu[None], kappa).sample(n, generator), dim=1)` draw directions.
#
# </details>


# %% tags=["exercise", "points:4"]
def experiment(dim, seed):
    ### BEGIN SOLUTION
    generator = torch.Generator().manual_seed(seed)
    largest, sets, mu = int(4 * dim**0.5) + 8, 400, torch.eye(dim)[0]
    numbers = sorted({*range(1, 13), *(int(12 * 1.15**k) for k in range(30)), largest})
    numbers = [n for n in numbers if n <= largest]
    source = VonMisesFisher(mu[None], dim**0.5)

    def statistics(u):
        means = u.view(sets, largest, dim).cumsum(dim=1)[:, [n - 1 for n in numbers]]
        means = means / torch.tensor(numbers)[:, None]
        return torch.stack([means @ mu, means.norm(dim=2)])  # (2, sets, numbers)

    def draw():
        uniform = uniform_directions(sets * largest, dim, generator)
        pointed = normalize(source.sample(sets * largest, generator), dim=1)
        return statistics(uniform), statistics(pointed)

    border = sum(part.median(dim=1, keepdim=True).values for part in draw()) / 2
    uniform, pointed = draw()
    known, unknown = ((uniform <= border).double().mean(dim=1) + (pointed > border).double().mean(dim=1)) / 2
    first = [numbers[int((share >= 0.9).nonzero()[0])] for share in (known, unknown)]
    return {"numbers": numbers, "known": known, "unknown": unknown, "ratio": first[1] / first[0]}
    ### END SOLUTION


verdict = ...
### BEGIN SOLUTION
verdict = "more in more dimensions"  # about like the root of d
### END SOLUTION

# %% tags=["check"]
checks.exercise("10.6", experiment, verdict)
