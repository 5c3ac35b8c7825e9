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
# # Exercises to 11 Norms and pruning
#
# Fill in the places marked `...` and run the cell below each of them: it says whether your function is right and, if
# it is not, what is wrong. The words and formulas are in [the chapter](../11_norms_and_pruning.ipynb).

# %%
import torch

from fmcore import velocity
from fmcore.course import checks, style

style.use()

# %% [markdown]
# ## 1. The clock of aligned norms
#
# The aligned path is $y_s = (1-s)\, x_0 + s\, c\, x_1$, the unaligned one $x_t = (1-t)\, x_0 + t\, x_1$. Return the time $s$ at which $y_s$
# is a multiple of $x_t$, for times `t` of any shape in $[0, 1]$ and a factor `c`: the *inverse* of $t = c s / (1 - s + c s)$.


# %% tags=["exercise", "points:1"]
def aligned_time(t, c):
    ### BEGIN SOLUTION
    return t / (c - (c - 1) * t)
    ### END SOLUTION


# %% tags=["check"]
def reference_time(t, c):
    return (t / c) / (1 - t + t / c)


mistakes = {
    "this is t as a function of s; its inverse is asked": lambda t, c: c * t / (1 - t + c * t),
    "the time is only divided by c; at t = 1 both clocks must show 1": lambda t, c: t / c,
    "the clocks are not the same: c plays no part": lambda t, c: t + 0 * c,
    "c and 1 are swapped in the denominator: it is c - (c - 1) t": lambda t, c: t / (1 - (1 - c) * t),
    "the sign of (c - 1) t is flipped": lambda t, c: t / (c + (c - 1) * t),
    "a factor c is too much: at t = 1 both clocks must show 1": lambda t, c: c * t / (c - (c - 1) * t),
    "this is the density ds/dt, not s": lambda t, c: c / (c - (c - 1) * t) ** 2,
}
generator = torch.Generator().manual_seed(1)
time_cases = [(torch.rand(5, generator=generator), factor) for factor in (2.0, 0.6, 1.25)]
checks.compare("aligned_time", aligned_time, reference_time, time_cases, mistakes)

# %% [markdown]
# ## 2. The aligned velocity
#
# `v(x, t)` is the velocity of $x_t$. Return the velocity $dy/ds$ of the aligned path at `y`, shape $(B, D)$, and times `s`,
# shape $(B,)$, one for each row:
#
# $$
# \frac{dy}{ds} = \frac{(c-1)\, y + c\, v(y/a,\, t)}{a} , \qquad a = 1 - s + c s , \qquad t = \frac{c s}{a} .
# $$


# %% tags=["exercise", "points:2"]
def aligned_velocity(v, y, s, c):
    ### BEGIN SOLUTION
    a = 1 - s + c * s
    t = c * s / a
    a = a[:, None]
    return ((c - 1) * y + c * v(y / a, t)) / a
    ### END SOLUTION


# %% tags=["check"]
def reference_velocity(v, y, s, c):
    return velocity.scaled_up(v, c)(y, s)


def variant(time=None, point=None, join=None):
    """The right formula with one part replaced."""

    def wrong(v, y, s, c):
        a = (1 - s + c * s)[:, None]
        t = c * s / a[:, 0] if time is None else time(s, c, a[:, 0])
        u = v(y / a if point is None else point(y, a), t)
        return ((c - 1) * y + c * u) / a if join is None else join(y, u, a, c)

    return wrong


# %% tags=["check"]
mistakes = {
    "v is asked at the time s; its own clock shows t = c s / a": variant(time=lambda s, c, a: s),
    "v is asked at the time c s, without the division by a": variant(time=lambda s, c, a: c * s),
    "v is asked at the time s / a; a factor c is missing": variant(time=lambda s, c, a: s / a),
    "v is asked at the point y; divide it by a first": variant(point=lambda y, a: y),
    "v is asked at the point a y; y must be divided by a": variant(point=lambda y, a: y * a),
    "the change of scale is missing: (c - 1) y": variant(join=lambda y, u, a, c: c * u / a),
    "the sign of (c - 1) y is flipped": variant(join=lambda y, u, a, c: ((1 - c) * y + c * u) / a),
    "the factor c of v is missing": variant(join=lambda y, u, a, c: ((c - 1) * y + u) / a),
    "the division by a is missing at the end": variant(join=lambda y, u, a, c: (c - 1) * y + c * u),
    "only v is divided by a; (c - 1) y must be too": variant(join=lambda y, u, a, c: (c - 1) * y + c * u / a),
    "v is divided by a squared: dt/ds is c / a^2, and x is y / a, so that one a remains": variant(
        join=lambda y, u, a, c: (c - 1) * y / a + c * u / a**2
    ),
    "this is only v at another place and time; y also changes its scale": variant(join=lambda y, u, a, c: u),
}


# %% tags=["check"]
def turn(x, t):
    return torch.stack([-x[:, 1], torch.sin(x[:, 0])], dim=1) * (1 + t[:, None])


velocity_cases = [
    (turn, torch.randn(4, 2, generator=generator), 0.1 + 0.8 * torch.rand(4, generator=generator), factor)
    for factor in (2.0, 0.6, 1.5)
]
checks.compare("aligned_velocity", aligned_velocity, reference_velocity, velocity_cases, mistakes)

# %% [markdown]
# ## 3. Ends without data
#
# `axes` holds orthonormal rows, shape $(m, D)$; `points` are data, shape $(n, D)$. Return which ends are rejected, a boolean tensor of shape
# $(m, 2)$: in the first column whether $+a$ is, in the second whether $-a$ is. An end is rejected if the *largest* cosine of any point with it
# is at most `tau`.


# %% tags=["exercise", "points:2"]
def rejected_ends(axes, points, tau):
    ### BEGIN SOLUTION
    cosines = points @ axes.T / points.norm(dim=1, keepdim=True)
    largest = torch.stack([cosines.amax(0), (-cosines).amax(0)], dim=1)
    return largest <= tau
    ### END SOLUTION


# %% tags=["check"]
def reference_ends(axes, points, tau):
    unit = torch.nn.functional.normalize(points, dim=1)
    both = torch.stack([axes, -axes], dim=1).flatten(0, 1)
    return (torch.cdist(both, unit).square().amin(1) >= 2 - 2 * tau).view(-1, 2)


def by_rule(rule, unit=True):
    def wrong(axes, points, tau):
        return rule((points / points.norm(dim=1, keepdim=True) if unit else points) @ axes.T, tau)

    return wrong


# %% tags=["check"]
def columns(plus, minus):
    return torch.stack([plus, minus], dim=1)


# %% tags=["check"]
mistakes = {
    "the points are not divided by their lengths: these are products, not cosines": by_rule(
        lambda p, tau: columns(p.amax(0) <= tau, -p.amin(0) <= tau), unit=False
    ),
    "the two columns are swapped: +a first": by_rule(lambda p, tau: columns(-p.amin(0) <= tau, p.amax(0) <= tau)),
    "these are the ends that are kept; the rejected ones are asked": by_rule(
        lambda p, tau: columns(p.amax(0) > tau, -p.amin(0) > tau)
    ),
    "the smallest cosine is compared; one near point is enough to keep an end: take the largest": by_rule(
        lambda p, tau: columns(p.amin(0) <= tau, -p.amax(0) <= tau)
    ),
    "the mean cosine is compared; one near point is enough to keep an end: take the largest": by_rule(
        lambda p, tau: columns(p.mean(0) <= tau, -p.mean(0) <= tau)
    ),
    "both ends get the answer of +a; -a has its own largest cosine": by_rule(
        lambda p, tau: columns(p.amax(0) <= tau, p.amax(0) <= tau)
    ),
    "an end is rejected only with its opposite; each end has its own answer": by_rule(
        lambda p, tau: columns(p.abs().amax(0) <= tau, p.abs().amax(0) <= tau)
    ),
    "the second column asks whether the smallest cosine with +a is at most tau; take that with -a, its negative": by_rule(
        lambda p, tau: columns(p.amax(0) <= tau, p.amin(0) <= tau)
    ),
}

# %% tags=["check"]
end_cases = []
for n, D, tau in ((12, 4, 0.1), (9, 5, 0.3), (15, 6, 0.2)):
    basis = torch.linalg.qr(torch.randn(D, D, generator=generator)).Q
    coordinates = 20 * torch.randn(n, D, generator=generator)
    coordinates[:, 0], coordinates[:, 1] = coordinates[:, 0].abs(), -coordinates[:, 1].abs()
    coordinates[:, 2] *= 0.02
    end_cases.append((basis.T.contiguous(), coordinates @ basis.T, tau))
checks.compare("rejected_ends", rejected_ends, reference_ends, end_cases, mistakes)

# %% [markdown]
# ## 4. A sampler that wastes less
#
# Proposals are Gaussians in $d$ dimensions whose coordinates along rejected ends are cut off at `bound`, $\beta$. `m`, shape $(B,)$, is the
# largest cosine of each with a rejected end, and `shorter(length)` is $F$, the share of Gaussians that are shorter. Return the probability
# with which each is accepted, shape $(B,)$, so that the directions that are left are uniform over $m \le \tau_r$, with $\tau_r$ given as
# `threshold`:
#
# $$
# 1[m \le \tau_r]\; F(\beta / \tau_r) \,/\, F(\beta / m) .
# $$
#
# Where $m \le 0$ the bound never bites, and $F(\beta / m)$ is 1.


# %% tags=["exercise", "points:2"]
def acceptance(m, threshold, bound, shorter):
    ### BEGIN SOLUTION
    share = torch.where(m > 0, shorter(bound / m.clamp(min=1e-9)), 1.0)
    ratio = shorter(torch.as_tensor(bound / threshold)) / share
    return torch.where(m <= threshold, ratio, 0.0)
    ### END SOLUTION


# %% tags=["check"]
def share_shorter(length):
    """F in four dimensions: chi(4) has the distribution function 1 - (1 + r^2/2) exp(-r^2/2)."""
    half = torch.as_tensor(length, dtype=torch.float32) ** 2 / 2
    return 1 - (1 + half) * torch.exp(-half)


def share_at(m, bound, shorter):
    return torch.where(m > 0, shorter(bound / m.clamp(min=1e-6)), torch.ones_like(m))


def reference_acceptance(m, threshold, bound, shorter):
    return (m <= threshold) * shorter(bound / threshold) / share_at(m, bound, shorter)


# %% tags=["check"]
mistakes = {
    "directions beyond the threshold are accepted too: 1[m <= threshold] is missing": lambda m, u, b, F: (
        F(b / u) / share_at(m, b, F)
    ),
    "all that is within the threshold is accepted: the coin toss is missing": lambda m, u, b, F: (m <= u).float(),
    "directions beyond the threshold are kept, and the others thrown away": lambda m, u, b, F: (
        (m > u) * F(b / u) / share_at(m, b, F)
    ),
    "the ratio is upside down, and above 1: no probability": lambda m, u, b, F: (m <= u) * share_at(m, b, F) / F(b / u),
    "F(bound / threshold) is missing: above 1, no probability": lambda m, u, b, F: (m <= u) / share_at(m, b, F),
    "the acceptance is F(bound / m): it must be divided by, to undo what the proposals favour": lambda m, u, b, F: (
        (m <= u) * share_at(m, b, F)
    ),
    "the same probability for all that pass: F(bound / m) is missing": lambda m, u, b, F: (m <= u) * F(b / u),
    "F is taken at bound times the cosine; a length of bound / cosine touches the bound": lambda m, u, b, F: (
        (m <= u) * F(torch.tensor(b * u)) / F(b * m.clamp(min=1e-6))
    ),
    "where m is negative the bound never bites: F is 1 there, not F(bound / |m|)": lambda m, u, b, F: (
        (m <= u) * F(b / u) / F(b / m.abs())
    ),
    "where m is negative, directions pass too, and F(bound / m) is 1 there": lambda m, u, b, F: (
        (m > 0) * reference_acceptance(m, u, b, F)
    ),
}

# %% tags=["check"]
acceptance_cases = []
for threshold, bound in ((0.4, 0.7), (0.6, 1.2), (0.25, 0.5)):
    m = 1.6 * torch.rand(12, generator=generator) * threshold
    m[:3] = -m[:3]
    acceptance_cases.append((m, threshold, bound, share_shorter))
right_acceptance = checks.compare("acceptance", acceptance, reference_acceptance, acceptance_cases, mistakes)

# %% [markdown]
# Once the check is right: what your function keeps, of Gaussians in four dimensions with one rejected end, must have the cosines of plain
# rejection. The two numbers are the means of the cosine among what is kept; they agree to about 0.003.

# %%
compared = None
if right_acceptance:
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(200_000, 4, generator=generator)
    plain = noise[:, 0] / noise.norm(dim=1)
    cut = noise[noise[:, 0] <= 0.6]
    cosine = cut[:, 0] / cut.norm(dim=1)
    toss = torch.rand(len(cosine), generator=generator)
    chosen = cosine[toss < acceptance(cosine, 0.4, 0.6, share_shorter)]
    compared = round(float(plain[plain <= 0.4].mean()), 3), round(float(chosen.mean()), 3)
compared
