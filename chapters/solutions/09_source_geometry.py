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
# # Exercises to 09 Source geometry
#
# Fill in the places marked `...` and run the cell below each of them: it says whether your function is right and, if
# it is not, what is wrong. The words and formulas are in [the chapter](../09_source_geometry.ipynb).

# %%
import math

import torch

from fmcore.course import checks
from fmcore.sources.tabulated import chi

generator = torch.Generator().manual_seed(1)

# %% [markdown]
# ## 1. The density of the length
#
# The density of a standard Gaussian in $\mathbb{R}^d$ is $(2\pi)^{-d/2} e^{-r^2/2}$ at all points of length $r$. They form a sphere of area
# $2 \pi^{d/2}\, r^{d-1} / \Gamma(d/2)$. Return the logarithm of the density of the length, for `r` of shape $(n,)$, float64, and a whole number `d`.
# In 3,072 dimensions $\Gamma(d/2)$ is too large for a computer: `math.lgamma(z)` is $\log \Gamma(z)$.


# %% tags=["exercise", "points:2"]
def log_length_density(r, d):
    ### BEGIN SOLUTION
    log_area = math.log(2) + d / 2 * math.log(math.pi) - math.lgamma(d / 2) + (d - 1) * r.log()
    return log_area - d / 2 * math.log(2 * math.pi) - r.square() / 2
    ### END SOLUTION


# %% tags=["check"]
def reference_length(r, d):
    return chi(d).log_prob(r)


def log_gauss(r, d):
    return -d / 2 * math.log(2 * math.pi) - r.square() / 2


# %% tags=["check"]
mistakes = {
    "that is the density of a point; multiply by the area of the sphere, which adds its logarithm": log_gauss,
    "that is the density; its logarithm is asked": lambda r, d: reference_length(r, d).exp(),
    "the area of the sphere grows like r^(d-1), not like r^d": lambda r, d: reference_length(r, d) + r.log(),
    "the factor r^(d-1) is missing: that is the area of the unit sphere": lambda r, d: (
        reference_length(r, d) - (d - 1) * r.log()
    ),
    "the factor 2 of the area is missing": lambda r, d: reference_length(r, d) - math.log(2),
    "it must be Gamma(d/2), not Gamma(d)": lambda r, d: reference_length(r, d) + math.lgamma(d / 2) - math.lgamma(d),
    "Gamma(d/2) divides the area: its logarithm is subtracted": lambda r, d: (
        reference_length(r, d) + 2 * math.lgamma(d / 2)
    ),
    "Gamma(d/2) is missing": lambda r, d: reference_length(r, d) + math.lgamma(d / 2),
    "the normalization (2 pi)^(-d/2) of the Gaussian is missing": lambda r, d: (
        reference_length(r, d) + d / 2 * math.log(2 * math.pi)
    ),
    "the exponent is -r^2/2, not -r^2": lambda r, d: reference_length(r, d) - r.square() / 2,
    "the exponential e^(-r^2/2) is missing": lambda r, d: reference_length(r, d) + r.square() / 2,
}

# %% tags=["check"]
length_cases = [(math.sqrt(d) + torch.linspace(-1, 2, 5, dtype=torch.float64), d) for d in (2, 3, 64, 3072)]
checks.compare("log_length_density", log_length_density, reference_length, length_cases, mistakes)

# %% [markdown]
# ## 2. Angles of images
#
# Return the cosine of the angle between each image and the noise in the same row, shape $(B,)$, for `images` and `noise` of shape
# $(B, C, H, W)$: the inner product over all numbers of an image, divided by both lengths.


# %% tags=["exercise", "points:1"]
def cosines(images, noise):
    ### BEGIN SOLUTION
    a, b = images.flatten(1), noise.flatten(1)
    return (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1))
    ### END SOLUTION


# %% tags=["check"]
def reference_cosines(images, noise):
    return torch.cosine_similarity(images.flatten(1), noise.flatten(1), dim=1)


def inner(images, noise):
    return torch.einsum("bchw,bchw->b", images, noise)


def lengths(x):
    return torch.linalg.vector_norm(x, dim=(1, 2, 3))


# %% tags=["check"]
mistakes = {
    "that is the inner product; divide by both lengths": inner,
    "the length of the noise does not divide yet": lambda images, noise: inner(images, noise) / lengths(images),
    "the length of the images does not divide yet": lambda images, noise: inner(images, noise) / lengths(noise),
    "squared lengths divide; take their square roots": lambda images, noise: (
        inner(images, noise) / (lengths(images) ** 2 * lengths(noise) ** 2)
    ),
    "the means are subtracted first, that is a correlation; the angle is the one at the origin": lambda images, noise: (
        reference_cosines(
            images - images.mean(dim=(1, 2, 3), keepdim=True), noise - noise.mean(dim=(1, 2, 3), keepdim=True)
        )
    ),
    "the lengths are those of the whole batch; each row has its own": lambda images, noise: (
        inner(images, noise) / (images.norm() * noise.norm())
    ),
    "that is the angle; its cosine is asked": lambda images, noise: reference_cosines(images, noise).acos(),
    "the cosine is averaged over rows of pixels; flatten each image to one vector first": lambda images, noise: (
        torch.cosine_similarity(images, noise, dim=3).mean(dim=(1, 2))
    ),
}

# %% tags=["check"]
angle_cases = [
    (torch.randn(4, 1, 3, 3, generator=generator) + 0.7, 2 * torch.randn(4, 1, 3, 3, generator=generator) + 0.3),
    (3 * torch.rand(5, 3, 2, 4, generator=generator), torch.randn(5, 3, 2, 4, generator=generator)),
]
checks.compare("cosines", cosines, reference_cosines, angle_cases, mistakes)

# %% [markdown]
# ## 3. Pairs that must cross
#
# `source` and `data` hold the number of the mode of each point, whole numbers from 0 to `modes` $- 1$, shape $(n,)$ and $(m,)$; $n$ and $m$ may
# differ. With the shares $q_k$ of the source and $p_k$ of the data, return the smallest share of pairs that any coupling must send from one mode to another,
# $\sum_k \max(q_k - p_k, 0)$. `torch.bincount(numbers, minlength=modes)` counts.


# %% tags=["exercise", "points:2"]
def must_cross(source, data, modes):
    ### BEGIN SOLUTION
    q = torch.bincount(source, minlength=modes) / len(source)
    p = torch.bincount(data, minlength=modes) / len(data)
    return (q - p).clamp(min=0).sum()
    ### END SOLUTION


# %% tags=["check"]
def both_shares(source, data, modes):
    hot = torch.nn.functional.one_hot
    return hot(source, modes).float().mean(dim=0), hot(data, modes).float().mean(dim=0)


def with_shares(rule):
    return lambda source, data, modes: rule(*both_shares(source, data, modes))


reference_cross = with_shares(lambda q, p: 1 - torch.minimum(q, p).sum())


def with_counts(source, data, modes):
    q, p = both_shares(source, data, modes)
    return (q * len(source) - p * len(data)).clamp(min=0).sum()


# %% tags=["check"]
mistakes = {
    "that is the share that can stay; the rest must cross": with_shares(lambda q, p: torch.minimum(q, p).sum()),
    "numbers of points are subtracted; divide by n and m first": with_counts,
    "surpluses and deficits are both counted: each crossing pair leaves one mode and enters another, so take half": (
        with_shares(lambda q, p: (q - p).abs().sum())
    ),
    "only the largest surplus is counted; all of them must leave": with_shares(lambda q, p: (q - p).max()),
    "surpluses and deficits cancel; clamp the differences at 0 before the sum": with_shares(lambda q, p: (q - p).sum()),
    "the differences are squared; the surpluses themselves are asked": with_shares(lambda q, p: (q - p).square().sum()),
    "that is what crosses if pairs are drawn independently; a coupling may do better": with_shares(
        lambda q, p: 1 - (q * p).sum()
    ),
    "the mean over modes is taken; the surpluses add up": with_shares(lambda q, p: (q - p).clamp(min=0).mean()),
}

# %% tags=["check"]
cross_cases = [
    (torch.tensor([0, 0, 0, 1, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 1, 1, 2, 2, 3, 3, 3]), 4),
    (torch.tensor([0, 0, 1, 1]), torch.tensor([2, 2, 2, 1, 0, 1]), 3),
    (torch.randint(3, (40,), generator=generator), torch.randint(5, (25,), generator=generator), 5),
]
checks.compare("must_cross", must_cross, reference_cross, cross_cases, mistakes)

# %% [markdown]
# ## 4. The best of ten
#
# `values` has the distance of each run at each checkpoint, shape (runs, checkpoints); small is good. Return a tensor of two numbers: the mean over runs
# of the *best* checkpoint of each run, and the mean over runs of the *last* checkpoint.


# %% tags=["exercise", "points:1"]
def best_and_last(values):
    ### BEGIN SOLUTION
    return torch.stack([values.min(dim=1).values.mean(), values[:, -1].mean()])
    ### END SOLUTION


# %% tags=["check"]
def two(best, last):
    return lambda values: torch.stack([best(values), last(values)])


def end(values):
    return values[:, -1].mean()


def of_each(values):
    return values.sort(dim=1).values[:, 0].mean()


reference_best = two(of_each, end)
mistakes = {
    "the best of all runs and checkpoints; each run has its own best": two(lambda v: v.min(), end),
    "the mean over runs is taken before the best; the best is chosen for each run": two(
        lambda v: v.mean(dim=0).min(), end
    ),
    "the best runs along the wrong axis: it must be over checkpoints, dim=1": two(lambda v: v.amin(dim=0).mean(), end),
    "the largest distance is taken as the best; small is good": two(lambda v: v.amax(dim=1).mean(), end),
    "the second number is the last run; the last checkpoint is asked": two(of_each, lambda v: v[-1].mean()),
    "the second number is the mean over all checkpoints; the last is asked": two(of_each, lambda v: v.mean()),
    "the second number is the first checkpoint; the last is asked": two(of_each, lambda v: v[:, 0].mean()),
    "the two numbers are in the other order: best first": two(end, of_each),
}

# %% tags=["check"]
best_cases = [
    (0.3 + 0.1 * torch.randn(runs, count, generator=generator),) for runs, count in ((4, 10), (10, 5), (3, 3))
]
checks.compare("best_and_last", best_and_last, reference_best, best_cases, mistakes)

# %% [markdown]
# How much better does the best of ten look? Ten independent normal values have mean `mean` and standard deviation `std`. The smallest of ten standard
# normal numbers is $-1.54$ on average. Return what the smallest of the ten values is on average.


# %% tags=["exercise", "points:1"]
def smallest_of_ten(mean, std):
    ### BEGIN SOLUTION
    return mean - 1.54 * std
    ### END SOLUTION


# %% tags=["check"]
mistakes = {
    "that is the mean of the values; the smallest of them is asked": lambda mean, std: mean,
    "the smallest lies below the mean, not above it": lambda mean, std: mean + 1.54 * std,
    "the standard deviation is missing: -1.54 is that of standard normal numbers": lambda mean, std: mean - 1.54,
    "that is one standard deviation below the mean; the smallest of ten is 1.54 of them below": lambda mean, std: (
        mean - std
    ),
    "divided by the square root of ten, as for a mean of ten; this is no mean": lambda mean, std: (
        mean - 1.54 * std / 10**0.5
    ),
    "std is a standard deviation already; take no square root": lambda mean, std: mean - 1.54 * std**0.5,
    "std is a standard deviation, not to be squared": lambda mean, std: mean - 1.54 * std**2,
}

# %% tags=["check"]
ten_cases = [(torch.tensor(0.30), torch.tensor(0.05)), (torch.tensor(1.0), torch.tensor(0.3))]
checks.compare("smallest_of_ten", smallest_of_ten, lambda mean, std: mean - 1.54 * std, ten_cases, mistakes)
