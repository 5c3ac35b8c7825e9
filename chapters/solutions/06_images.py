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
# # Exercises to 06 Images
#
# Fill in the places marked `...` and run the cell below each of them: it says whether your function is right and, if
# it is not, what is wrong. The words and formulas are in [the chapter](../06_images.ipynb).

# %%
import math

import torch

from fmcore import paths
from fmcore.course import checks, plotting, style

style.use()

# %% [markdown]
# ## 1. A place in the bin
#
# Write the dequantization $y = \Delta\, (k + u) - 1$ with $\Delta = 2 / L$. `k` holds whole-number grey levels in $\{0,
# \dots, L - 1\}$ (int64, any shape), `u` the noise from $\mathcal{U}(0, 1)$ in the same shape, and `levels` is $L$.


# %% tags=["exercise", "points:1"]
def place_in_bin(k, u, levels):
    ### BEGIN SOLUTION
    return 2 / levels * (k + u) - 1
    ### END SOLUTION


# %% tags=["check"]
def reference_bin(k, u, levels):
    edges = torch.linspace(-1, 1, levels + 1, dtype=u.dtype)
    return torch.lerp(edges[:-1][k], edges[1:][k], u)


mistakes = {
    "there is no noise: y is the lower edge of each bin": lambda k, u, levels: 2 / levels * k - 1,
    "there is no noise: y is the middle of each bin": lambda k, u, levels: 2 / levels * (k + 0.5) - 1,
    "the bins are too wide: L levels make L bins, not L - 1": lambda k, u, levels: 2 / (levels - 1) * (k + u) - 1,
    "256 levels are taken for granted; the number of levels is an argument": lambda k, u, levels: (k + u) / 128 - 1,
    "the noise is added after the scaling, so it spans half of [-1, 1]; it must span one bin": lambda k, u, levels: (
        2 / levels * k - 1 + u
    ),
    "the bins fill [0, 1]; they must fill [-1, 1]": lambda k, u, levels: (k + u) / levels,
    "the bins fill [0, 2]: the - 1 is missing": lambda k, u, levels: 2 / levels * (k + u),
    "the noise is centred: y moves down by half a bin, below -1": lambda k, u, levels: 2 / levels * (k + u - 0.5) - 1,
    "the noise is subtracted: y lies in the bin below": lambda k, u, levels: 2 / levels * (k - u) - 1,
}

# %% tags=["check"]
generator = torch.Generator().manual_seed(1)
bin_cases = [
    (torch.randint(levels, (3, 4), generator=generator), torch.rand(3, 4, generator=generator), levels)
    for levels in (17, 4, 256)
]
checks.compare("place_in_bin", place_in_bin, reference_bin, bin_cases, mistakes, rtol=1e-5, atol=1e-6)

# %% [markdown]
# ## 2. Nats to bits/dim
#
# `log_density` holds $\log p(y)$ of each image in nats, shape $(B,)$, at points on the scale $[-1, 1]$; an image has
# `d` numbers of `levels` grey levels. Return the bits/dim of each image, shape $(B,)$.


# %% tags=["exercise", "points:2"]
def bits_per_dim(log_density, d, levels):
    ### BEGIN SOLUTION
    return -log_density / (d * math.log(2)) + math.log2(levels / 2)
    ### END SOLUTION


# %% tags=["check"]
def reference_bits(log_density, d, levels):
    """From the mass of the box: its volume is (2 / L)^d."""
    log_mass = log_density + d * math.log(2 / levels)
    return -log_mass / math.log(2) / d


nats = reference_bits  # shorter below
mistakes = {
    "the sign of the constant is flipped: the bins are narrower than 1, which costs bits": lambda p, d, L: (
        nats(p, d, L) - 2 * math.log2(L / 2)
    ),
    "this is nats/dim: the change to bits, 1 / ln 2, is missing, and the constant must be in bits too": lambda p, d, L: (
        nats(p, d, L) * math.log(2)
    ),
    "the density is still in nats: divide by ln 2": lambda p, d, L: -p / d + math.log2(L / 2),
    "forgot d: these are bits per image in the first term": lambda p, d, L: -p / math.log(2) + math.log2(L / 2),
    "d times too much: bits of the whole image, not of a dimension": lambda p, d, L: nats(p, d, L) * d,
}

# %% tags=["check"]
mistakes |= {
    "the constant is missing: this is the density on the scale [-1, 1]": lambda p, d, L: -p / (d * math.log(2)),
    "the constant is log2(L), for bins on [0, 1]; here they fill [-1, 1]": lambda p, d, L: nats(p, d, L) + 1,
    "the constant is in nats: log2, not ln": lambda p, d, L: -p / (d * math.log(2)) + math.log(L / 2),
    "the constant belongs to L - 1 bins, as for images divided by 127.5": lambda p, d, L: (
        -p / (d * math.log(2)) + math.log2((L - 1) / 2)
    ),
    "the constant is 7, which is right for 256 levels only": lambda p, d, L: -p / (d * math.log(2)) + 7,
    "the minus sign of the log-density is missing": lambda p, d, L: p / (d * math.log(2)) + math.log2(L / 2),
    "the constant is divided by d too": lambda p, d, L: (-p / math.log(2) + math.log2(L / 2)) / d,
}

# %% tags=["check"]
bits_cases = [
    (100 * torch.randn(5, generator=generator) + 40, d, levels) for d, levels in ((64, 17), (12, 256), (48, 8))
]
checks.compare("bits_per_dim", bits_per_dim, reference_bits, bits_cases, mistakes)

# %% [markdown]
# From $K = 1$ to $K = 50$ the bits/dim of the paper's FM w/ OT on CIFAR-10 (images of $3 \cdot 32 \cdot 32$ numbers) fall
# from 3.11 to 2.99. By how many **nats per image** does the log-probability rise?

# %% tags=["exercise", "points:1"]
nats_gained = ...
### BEGIN SOLUTION
nats_gained = (3.11 - 2.99) * 3 * 32 * 32 * math.log(2)
### END SOLUTION

# %% tags=["check"]
drop = 3.11 - 2.99
wrong_values = {
    "these are bits of an image; a bit is ln 2 = 0.693 nats": drop * 3072,
    "bits times ln 2 are nats; you divided by it": drop * 3072 / math.log(2),
    "an image has three colours: 3 times 32 times 32 numbers": drop * 1024 * math.log(2),
    "nats of a dimension; all 3,072 together are asked": drop * math.log(2),
    "it rises: fewer bits mean a larger probability": -drop * 3072 * math.log(2),
}
checks.value("nats_gained", nats_gained, drop * 3072 * math.log(2), wrong_values)

# %% [markdown]
# ## 3. The logarithm of a mean
#
# `log_densities` holds $\log p(y_j)$ of $K$ draws for each of $n$ images, shape $(K, n)$. Return $\log \frac1K \sum_j
# p(y_j)$ for each image, shape $(n,)$. Such numbers are as small as $-5000$ and as large as $+5000$: `exp` of them is
# 0 or infinity in floating point. `torch.logsumexp` takes the largest out first.


# %% tags=["exercise", "points:2"]
def log_mean(log_densities):
    ### BEGIN SOLUTION
    return torch.logsumexp(log_densities, dim=0) - math.log(len(log_densities))
    ### END SOLUTION


# %% tags=["check"]
def reference_mean(log_densities):
    """With the largest taken out by hand."""
    largest = log_densities.amax(dim=0)
    return largest + (log_densities - largest).exp().mean(dim=0).log()


mistakes = {
    "this is the mean of the logarithms, the bound of a single draw; the mean belongs inside the logarithm": lambda p: (
        p.mean(dim=0)
    ),
    "exp overflows (or underflows to 0) before the logarithm: use torch.logsumexp": lambda p: p.exp().mean(dim=0).log(),
    "exp overflows (or underflows to 0), and the sum is not divided by K": lambda p: p.exp().sum(dim=0).log(),
    "forgot log K: this is the logarithm of the sum, not of the mean": lambda p: torch.logsumexp(p, dim=0),
    "log K is added; a mean is smaller than the sum": lambda p: torch.logsumexp(p, dim=0) + math.log(len(p)),
    "divided by K outside the logarithm; that is a subtraction of log K": lambda p: torch.logsumexp(p, dim=0) / len(p),
    "this is the largest of the draws": lambda p: p.amax(dim=0),
    "the mean runs over the images: the draws are the first axis": lambda p: (
        torch.logsumexp(p, dim=1) - math.log(p.shape[1])
    ),
    "divided by the number of images, not of draws": lambda p: torch.logsumexp(p, dim=0) - math.log(p.shape[1]),
    "all images are mixed: keep one value for each": lambda p: torch.logsumexp(p.flatten(), 0) - math.log(p.numel()),
}

# %% tags=["check"]
mean_cases = [
    (level + 2 * torch.randn(K, n, generator=generator, dtype=torch.float64),)
    for K, n, level in ((3, 4, 0.0), (10, 3, -5000.0), (5, 6, 5000.0))
]
checks.compare("log_mean", log_mean, reference_mean, mean_cases, mistakes, rtol=1e-7, atol=1e-5)

# %% [markdown]
# ## 4. A Fréchet distance
#
# From two sets of features, `a` of shape $(n, f)$ and `b` of shape $(m, f)$ in double precision: fit a mean and a
# covariance to each (`torch.cov` wants the *features* along its rows) and return
#
# $$
# \mathrm{FD} = \|m_a - m_b\|^2 + \operatorname{tr} S_a + \operatorname{tr} S_b
# - 2 \operatorname{tr} \big( S_a^{1/2}\, S_b\, S_a^{1/2} \big)^{1/2} .
# $$
#
# `root` is the square root of a symmetric matrix.


# %%
def root(matrix):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T


# %% tags=["exercise", "points:2"]
def frechet(a, b):
    ### BEGIN SOLUTION
    S_a, S_b = torch.cov(a.T), torch.cov(b.T)
    cross = root(root(S_a) @ S_b @ root(S_a))
    return (a.mean(dim=0) - b.mean(dim=0)).square().sum() + (S_a + S_b - 2 * cross).trace()
    ### END SOLUTION


# %% tags=["check"]
def parts(a, b, unbiased=True):
    """The squared distance of the means, the two traces, and the trace of the root (by the eigenvalues of S_a S_b)."""
    centred = [x - x.mean(dim=0) for x in (a, b)]
    S_a, S_b = (x.T @ x / (len(x) - unbiased) for x in centred)
    cross = torch.linalg.eigvals(S_a @ S_b).real.clamp(min=0).sqrt().sum()
    means = (a.mean(dim=0) - b.mean(dim=0)).square()
    return means, S_a.trace() + S_b.trace(), cross, S_a, S_b


def reference_frechet(a, b):
    means, traces, cross, *_ = parts(a, b)
    return means.sum() + traces - 2 * cross


def biased(a, b):
    means, traces, cross, *_ = parts(a, b, unbiased=False)
    return means.sum() + traces - 2 * cross


# %% tags=["check"]
def from_parts(formula):
    return lambda a, b: formula(*parts(a, b))


mistakes = {
    "the means are missing": from_parts(lambda means, traces, cross, A, B: traces - 2 * cross),
    "the distance of the means is not squared": from_parts(
        lambda m, traces, cross, A, B: m.sum().sqrt() + traces - 2 * cross
    ),
    "the means are averaged over the features; the squared norm is their sum": from_parts(
        lambda means, traces, cross, A, B: means.mean() + traces - 2 * cross
    ),
    "the outer square root is missing": from_parts(lambda m, traces, c, A, B: m.sum() + traces - 2 * (A @ B).trace()),
    "root(S_a) @ root(S_b) is that root only if both have the same axes": from_parts(
        lambda means, traces, c, A, B: means.sum() + traces - 2 * (root(A) @ root(B)).trace()
    ),
    "the factor 2 of the last trace is missing": from_parts(lambda m, traces, cross, A, B: m.sum() + traces - cross),
    "the last trace is missing": from_parts(lambda means, traces, cross, A, B: means.sum() + traces),
}

# %% tags=["check"]
mistakes |= {
    "only the means are compared: the covariances are missing": from_parts(lambda means, *rest: means.sum()),
    "the covariances are divided by n, not by n - 1": biased,
    "this is the square root: FD is the squared distance": lambda a, b: reference_frechet(a, b).sqrt(),
    "torch.cov(a) is the covariance of the images; transpose: torch.cov(a.T)": lambda a, b: reference_frechet(a.T, b.T),
}
frechet_cases = []
for n, m, f in ((9, 12, 2), (20, 15, 3), (30, 30, 5)):
    mix = torch.randn(f, f, generator=generator, dtype=torch.float64)
    a, b = (torch.randn(count, f, generator=generator, dtype=torch.float64) for count in (n, m))
    frechet_cases.append((a @ mix, 1.5 * b + 0.7))
right_frechet = checks.compare("frechet", frechet, reference_frechet, frechet_cases, mistakes)

# %% [markdown]
# ## 5. The velocity of a noise predictor
#
# A DDPM network `model(x, t)` predicts the noise $e = \mathbb{E}[x_0 \mid x_t = x]$. Return the velocity at `x`, shape
# $(B, d)$, and `t`, shape $(B,)$:
#
# $$
# v = \frac{\alpha'}{\alpha}\, (x - \sigma e) + \sigma' e ,
# $$
#
# with `path.alpha(t)`, `path.sigma(t)` and their derivatives `path.d_alpha(t)`, `path.d_sigma(t)`, each of shape $(B,)$.


# %% tags=["exercise", "points:2"]
def velocity(model, path, x, t):
    ### BEGIN SOLUTION
    e = model(x, t)
    alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
    return path.d_alpha(t)[:, None] / alpha * (x - sigma * e) + path.d_sigma(t)[:, None] * e
    ### END SOLUTION


# %% tags=["check"]
def model(x, t):
    return torch.sin(2 * x) + t[:, None]


def reference_velocity(model, path, x, t, e=None):
    """The data that x and the noise stand for, and the derivative of the path through both."""
    e = model(x, t) if e is None else e
    column = t[:, None]
    x1 = (x - path.sigma(column) * e) / path.alpha(column)
    return path.d_alpha(column) * x1 + path.d_sigma(column) * e


def with_noise(change):
    """The right formula with something else in place of the noise."""
    return lambda f, path, x, t: reference_velocity(f, path, x, t, change(f(x, t), path, t[:, None]))


# %% tags=["check"]
mistakes = {
    "the sign of the noise is flipped, as if the network predicted the score times sigma": with_noise(
        lambda e, path, t: -e
    ),
    "the prediction is taken for a score; the model predicts noise": with_noise(lambda e, path, t: -path.sigma(t) * e),
    "the prediction is taken for the negative score, as in the paper; it is already the noise": with_noise(
        lambda e, path, t: path.sigma(t) * e
    ),
    "that is the noise itself; it must be turned into a velocity": lambda f, path, x, t: f(x, t),
    "the term with sigma' is missing": lambda f, path, x, t: (
        reference_velocity(f, path, x, t) - path.d_sigma(t)[:, None] * f(x, t)
    ),
}

# %% tags=["check"]
mistakes |= {
    "alpha' stands without being divided by alpha": lambda f, path, x, t: (
        path.d_alpha(t)[:, None] * (x - path.sigma(t)[:, None] * f(x, t)) + path.d_sigma(t)[:, None] * f(x, t)
    ),
    "in the first term x stands without the noise taken out": lambda f, path, x, t: (
        path.d_alpha(t)[:, None] / path.alpha(t)[:, None] * x + path.d_sigma(t)[:, None] * f(x, t)
    ),
    "this is the data that the network sees in x, not the velocity": lambda f, path, x, t: (
        (x - path.sigma(t)[:, None] * f(x, t)) / path.alpha(t)[:, None]
    ),
    "x1 - x0 is the velocity of the straight path only": lambda f, path, x, t: (
        (x - path.sigma(t)[:, None] * f(x, t)) / path.alpha(t)[:, None] - f(x, t)
    ),
}
velocity_cases = [
    (model, path, torch.randn(B, 3, generator=generator), 0.2 + 0.7 * torch.rand(B, generator=generator))
    for path, B in ((paths.variance_preserving(), 4), (paths.cosine(), 5), (paths.variance_preserving(), 3))
]
checks.compare("velocity", velocity, reference_velocity, velocity_cases, mistakes)

# %% [markdown]
# With the function of 4 you can see the bias of a Fréchet distance where the truth is known: both sets come from *one*
# normal distribution, so the distance of the distributions is zero. Once its check is right, this cell draws what `n`
# samples of it say, for 2, 8 and 32 features.

# %%
picture = None
counts = (40, 80, 160, 320, 640)
generator = torch.Generator().manual_seed(2)
if right_frechet:
    lines = {}
    for f in (2, 8, 32):
        sets = [torch.randn(2, n, f, generator=generator, dtype=torch.float64) for n in counts]
        lines[f"{f} features"] = [frechet(*two) for two in sets]
    picture = plotting.error_against(counts, lines, xlabel="n, samples in each set", ylabel="FD (truth: 0)")
picture
