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
# Fill in the places marked `...` and run the cell below each of them: it says whether your function is right and, if
# it is not, what is wrong. The words and formulas are in [the chapter](../10_source_direction.ipynb).

# %%
import math

import torch
from torch.nn.functional import normalize

from fmcore import data
from fmcore.course import checks, plotting, style
from fmcore.ensemble.plane import at_angles
from fmcore.sources import ChiSphere, Gaussian, VonMisesFisher
from fmcore.sources.tabulated import angle_to_axis

style.use()

# %% [markdown]
# ## 1. Directions from cosines
#
# Make unit vectors $u = \mu\, w + v \sqrt{1 - w^2}$ with given cosines $w$: `mu` has shape $(d,)$ and length 1,
# `cosines` shape $(n,)$, and `noise` shape $(n, d)$ holds Gaussian numbers. From them make $v$: take away from each
# row its part along $\mu$, and give what remains length 1. `normalize(x, dim=1)` divides each row by its length.
# Return shape $(n, d)$.


# %% tags=["exercise", "points:2"]
def around(mu, cosines, noise):
    ### BEGIN SOLUTION
    w = cosines[:, None]
    v = normalize(noise - (noise @ mu)[:, None] * mu, dim=1)
    return mu * w + v * (1 - w**2).sqrt()
    ### END SOLUTION


# %% tags=["check"]
def built(aside=None, sine=None, w_of=None, unit=None):
    """The vectors with one part replaced."""

    def make(mu, cosines, noise):
        w = cosines[:, None] if w_of is None else w_of(cosines)[:, None]
        tangent = noise - torch.outer(noise @ mu, mu) if aside is None else aside(noise, mu)
        v = tangent / tangent.square().sum(dim=1, keepdim=True).sqrt() if unit is None else unit(tangent)
        return w * mu + v * ((1 - w * w) ** 0.5 if sine is None else sine(w))

    return make


# %% tags=["check"]
mistakes = {
    "v is not orthogonal to mu: the part of the noise along mu is still in it": built(aside=lambda noise, mu: noise),
    "v has not length 1: normalize what is left of the noise": built(unit=lambda tangent: tangent),
    "v is normalized before its part along mu is taken away; then it is no longer of length 1": built(
        aside=lambda noise, mu: normalize(noise, dim=1) - torch.outer(normalize(noise, dim=1) @ mu, mu),
        unit=lambda tangent: tangent,
    ),
    "v is normalized along the batch; each row needs length 1: dim=1": built(unit=lambda v: normalize(v, dim=0)),
    "all of v is divided by one length; each row has its own": built(unit=lambda v: v / v.norm()),
}
# %% tags=["check"]
mistakes |= {
    "the part along mu is added to the noise, not taken away": built(
        aside=lambda noise, mu: noise + torch.outer(noise @ mu, mu)
    ),
    "a square root is missing: v is multiplied by 1 - w^2": built(sine=lambda w: 1 - w**2),
    "v is multiplied by 1 - w; it must be sqrt(1 - w^2), so that the length is 1": built(sine=lambda w: 1 - w),
    "v is multiplied by 1: the factor sqrt(1 - w^2) is missing": built(sine=torch.ones_like),
    "the cosine and the sine are swapped": lambda mu, cosines, noise: built()(mu, (1 - cosines**2).sqrt(), noise),
    "the cosine is taken of the cosines: they are no angles": built(w_of=torch.cos),
}
generator = torch.Generator().manual_seed(1)
direction_cases = [
    (
        normalize(torch.randn(1, d, generator=generator), dim=1)[0],
        0.9 * torch.rand(n, generator=generator),
        torch.randn(n, d, generator=generator),
    )
    for n, d in ((4, 3), (5, 8), (3, 20))
]
right_around = checks.compare("around", around, built(), direction_cases, mistakes)

# %% [markdown]
# ## 2. The density of the angle
#
# Return the logarithm of $e^{\kappa \cos a}\, \sin^{d-2} a$, which up to a constant is the density of the angle $a$
# between $\mu$ and a von Mises-Fisher direction in `dim` dimensions. `angle` has shape $(m,)$, all angles strictly
# between 0 and $\pi$. Write it with logarithms, so that it does not overflow for `dim` in the thousands. Return shape
# $(m,)$.


# %% tags=["exercise", "points:2"]
def log_density_of_angle(angle, kappa, dim):
    ### BEGIN SOLUTION
    return kappa * angle.cos() + (dim - 2) * angle.sin().log()
    ### END SOLUTION


# %% tags=["check"]
def angle_formula(power=2, of=torch.sin, along=torch.cos, sign=1):
    return lambda angle, kappa, dim: kappa * along(angle) + sign * (dim - power) * of(angle).log()


# %% tags=["check"]
mistakes = {
    "the factor sin^(d-2) is missing: how many directions have this angle counts, too": lambda angle, kappa, dim: (
        kappa * angle.cos()
    ),
    "the power of the sine is d; it must be d - 2": angle_formula(power=0),
    "the power of the sine is d - 1; the directions of one angle form a sphere in d - 1 dimensions, of surface sin^(d-2)": (
        angle_formula(power=1)
    ),
    "the power of the sine is d - 3: that belongs to the density of the cosine": angle_formula(power=3),
    "the sine stands in the exponent with kappa; it must be the cosine": angle_formula(along=torch.sin),
    "kappa multiplies the angle itself; it must be its cosine": angle_formula(along=lambda x: x),
    "the sine factor is divided by, not multiplied with: the sign of its logarithm is flipped": angle_formula(sign=-1),
    "the sign of kappa is flipped: the directions crowd opposite to mu": lambda angle, kappa, dim: angle_formula()(
        angle, -kappa, dim
    ),
    "this is the density; its logarithm is asked": lambda angle, kappa, dim: (
        torch.exp(kappa * angle.cos()) * angle.sin() ** (dim - 2)
    ),
    "the sine is multiplied by d - 2; its logarithm must be": lambda angle, kappa, dim: (
        kappa * angle.cos() + (dim - 2) * angle.sin()
    ),
}


# %% tags=["check"]
def reference_log_density(angle, kappa, dim):
    """From the table of fmcore, its constant taken out at a right angle, where the density is 1."""
    found = angle_to_axis(dim, kappa).log_density
    return (found(angle.double()) - found(torch.tensor([math.pi / 2], dtype=torch.float64))).to(angle)


angle_cases = [
    (0.3 + 2.4 * torch.rand(5, generator=generator, dtype=torch.float64), kappa, dim)
    for kappa, dim in ((2.0, 5), (7.5, 64), (50.0, 3072))
]
right_density = checks.compare(
    "log_density_of_angle", log_density_of_angle, reference_log_density, angle_cases, mistakes
)

# %% [markdown]
# A use for it. Somebody's sampler for $\kappa = 50$ in 3,072 dimensions has drawn 2,000 directions; their angles with
# $\mu$ are in `sampled`. Are they what they should be? The mean of the log-density over the angles says so: for angles
# that were drawn from this density it is within 5 of `expected`. Answer `"good"` or `"faulty"`.

# %%
table = angle_to_axis(3072, 50.0)
weights = (table.log_density(table.values) + table.log_constant).exp()
expected = float(torch.trapezoid(weights * (50 * table.values.cos() + 3070 * table.values.sin().log()), table.values))
sampled = (2 * torch.rand(2000, generator=torch.Generator().manual_seed(3), dtype=torch.float64) - 1).acos()

# %% tags=["exercise", "points:1"]
verdict = ...
### BEGIN SOLUTION
mean = (50 * sampled.cos() + 3070 * sampled.sin().log()).mean()
verdict = "good" if abs(float(mean) - expected) < 5 else "faulty"
### END SOLUTION

# %% tags=["check"]
hints = {
    "good": "the mean log-density of its angles is about -900, expected is about 0: it hardly ever draws where the density is"
}
checks.choice("verdict", verdict, "faulty", hints)

# %% [markdown]
# ## 3. The concentration of data
#
# For vectors of `data`, shape $(n, d)$ and of any length, and a mean direction `mu` of any length, shape $(d,)$,
# compute the mean cosine $r$ between them and return $\kappa \approx r\, (d - r^2) / (1 - r^2)$, an approximation of
# the solution of $A_d(\kappa) = r$ (Banerjee et al. 2005), as a number or a tensor of shape $()$.


# %% tags=["exercise", "points:2"]
def concentration(data, mu):
    ### BEGIN SOLUTION
    r = (normalize(data, dim=1) @ (mu / mu.norm())).mean()
    return r * (data.shape[1] - r**2) / (1 - r**2)
    ### END SOLUTION


# %% tags=["check"]
def from_cosine(r, d):
    return r * (d - r * r) / (1 - r * r)


def reference_concentration(data, mu):
    return from_cosine(torch.nn.functional.cosine_similarity(data, mu[None], dim=1).mean(), data.shape[1])


def with_r(rule, dims=None):
    return lambda data, mu: from_cosine(rule(data, mu), data.shape[1] if dims is None else dims(data))


def cosine(data, mu):
    return torch.nn.functional.cosine_similarity(data, mu[None], dim=1).mean()


# %% tags=["check"]
mistakes = {
    "the data are not normalized: these are inner products, not cosines": with_r(
        lambda x, mu: (x @ mu).mean() / mu.norm()
    ),
    "mu is not normalized: divide by its length": with_r(lambda x, mu: (normalize(x, dim=1) @ mu).mean()),
    "neither the data nor mu are normalized: these are inner products, not cosines": with_r(
        lambda x, mu: (x @ mu).mean()
    ),
    "the cosine of the mean vector is taken; the mean of the cosines is asked: normalize each row first": with_r(
        lambda x, mu: torch.nn.functional.cosine_similarity(x.mean(dim=0), mu, dim=0)
    ),
    "the data are normalized along the batch; each row needs length 1: dim=1": with_r(
        lambda x, mu: (normalize(x, dim=0) @ normalize(mu, dim=0)).mean()
    ),
    "this is r, the mean cosine; kappa is asked": cosine,
}
# %% tags=["check"]
mistakes |= {
    "n stands where d belongs: the number of dimensions is data.shape[1]": with_r(cosine, dims=len),
    "the denominator is 1 - r; it must be 1 - r^2": lambda x, mu: reference_concentration(x, mu) * (1 + cosine(x, mu)),
    "this is r d / (1 - r^2): the -r^2 beside d is missing": lambda x, mu: (
        cosine(x, mu) * x.shape[1] / (1 - cosine(x, mu) ** 2)
    ),
    "the factor r is missing": lambda x, mu: reference_concentration(x, mu) / cosine(x, mu),
}

# %% tags=["check"]
concentration_cases = []
for n, d, kappa in ((30, 3, 4.0), (40, 5, 9.0), (20, 8, 15.0)):
    mu = torch.randn(d, generator=generator)
    lengths = 0.5 + torch.rand(n, 1, generator=generator)
    concentration_cases.append((lengths * VonMisesFisher(mu[None], kappa).sample(n, generator), mu))
checks.compare("concentration", concentration, reference_concentration, concentration_cases, mistakes)

# %% [markdown]
# ## 4. One step of spherical k-means
#
# `data` has shape $(n, d)$, vectors of any length above 0, and `centres` shape $(K, d)$, of length 1. Give each vector
# to the centre of largest cosine, and return the new centres, shape $(K, d)$: the mean of the *directions* of a
# centre's vectors, with its length set to 1. (No centre is left without vectors here.)


# %% tags=["exercise", "points:2"]
def k_means_step(data, centres):
    ### BEGIN SOLUTION
    directions = normalize(data, dim=1)
    belongs = (directions @ centres.T).argmax(dim=1)
    return torch.stack([normalize(directions[belongs == k].mean(dim=0), dim=0) for k in range(len(centres))])
    ### END SOLUTION


# %% tags=["check"]
def step(assign=None, average=None, finish=None):
    """One step with one part replaced."""

    def make(data, centres):
        u = data / data.norm(dim=1, keepdim=True)
        belongs = (u @ centres.T).argmax(dim=1) if assign is None else assign(data, u, centres)
        one_hot = torch.nn.functional.one_hot(belongs, len(centres)).to(data)
        sums = one_hot.T @ (u if average is None else average(data, u))
        return sums / sums.norm(dim=1, keepdim=True) if finish is None else finish(sums, one_hot)

    return make


def of_mean(sums, one_hot):
    return sums / one_hot.sum(dim=0)[:, None]


# %% tags=["check"]
mistakes = {
    "the new centres have not length 1: normalize the means": step(finish=of_mean),
    "the means are of the vectors as they are, so long ones count more; average their directions": step(
        average=lambda data, u: data
    ),
    "neither are the vectors' lengths taken out nor have the new centres length 1": step(
        average=lambda data, u: data, finish=of_mean
    ),
    "each vector goes to the centre of smallest cosine: argmax, not argmin": step(
        assign=lambda data, u, centres: (u @ centres.T).argmin(dim=1)
    ),
    "the centres are normalized along the wrong axis: each row needs length 1": step(
        finish=lambda sums, one_hot: normalize(of_mean(sums, one_hot), dim=0)
    ),
    "the centres come back as they were": lambda data, centres: centres,
}

# %% tags=["check"]
k_means_cases = []
for n, K, d in ((60, 3, 2), (80, 4, 5), (50, 2, 8)):
    centres = normalize(torch.randn(K, d, generator=generator), dim=1)
    lengths = 0.2 + 3 * torch.rand(n, 1, generator=generator)
    k_means_cases.append((lengths * normalize(torch.randn(n, d, generator=generator), dim=1), centres))
right_step = checks.compare("k_means_step", k_means_step, step(), k_means_cases, mistakes)

# %% [markdown]
# The centres of ten steps on digits, once the check is right: from ten images to ten mean directions.

# %%
picture = None
if right_step:
    digits = data.digits()
    images = digits.scaled(digits.train).flatten(1)
    first = [int((digits.train_labels == k).nonzero()[0]) for k in range(10)]
    rows = [normalize(images[first], dim=1)]
    for _ in range(10):
        rows.append(k_means_step(images, rows[-1]))
    shown = torch.cat([rows[0], rows[1], rows[-1]]).view(-1, 1, 8, 8)
    shown = shown / shown.flatten(1).abs().amax(dim=1).view(-1, 1, 1, 1)
    picture = plotting.images(shown, columns=10, rows=["start", "after 1 step", "after 10"])
picture

# %% [markdown]
# ## 5. How much do the targets disagree?
#
# Independent pairs, data points $x^{(1)}, \dots, x^{(n)}$ and a source with `log_density`, which takes points $(m, d)$
# and returns $(m,)$. At one place `x`, shape $(d,)$, and time `t`, a number in $(0, 1)$, the targets are $v_i =
# (x^{(i)} - x) / (1 - t)$ with the weights
#
# $$
# w_i = \frac{p_0(s_i)}{\sum_j p_0(s_j)}, \qquad s_i = \frac{x - t\, x^{(i)}}{1 - t} .
# $$
#
# Return their variance $\sum_i w_i\, \| v_i - u \|^2$ with $u = \sum_i w_i v_i$, a tensor of shape $()$. `points` has
# shape $(n, d)$.


# %% tags=["exercise", "points:3"]
def disagreement(log_density, points, x, t):
    ### BEGIN SOLUTION
    weights = torch.softmax(log_density((x - t * points) / (1 - t)), dim=0)[:, None]
    targets = (points - x) / (1 - t)
    mean = (weights * targets).sum(dim=0)
    return (weights * (targets - mean).square()).sum()
    ### END SOLUTION


# %% tags=["check"]
def spread_of(starts=None, weigh=None, targets=None, finish=None):
    """The variance with one part replaced."""

    def make(log_density, points, x, t):
        s = (x - t * points) / (1 - t) if starts is None else starts(points, x, t)
        logits = log_density(s)
        w = (logits - logits.logsumexp(dim=0)).exp() if weigh is None else weigh(logits)
        v = (points - x) / (1 - t) if targets is None else targets(points, x, t, s)
        second, u = w @ v.square().sum(dim=1), w @ v
        return second - u.square().sum() if finish is None else finish(w, v, u, second)

    return make


# %% tags=["check"]
mistakes = {
    "every data point counts the same: the weights are missing, or their density is taken at x and not at s_i": spread_of(
        weigh=lambda z: torch.full_like(z, 1 / len(z))
    ),
    "the weights are not normalized: divide by their sum": spread_of(
        weigh=torch.exp, finish=lambda w, v, u, second: w @ (v - u).square().sum(dim=1)
    ),
    "the logarithms of the densities are used as weights: softmax, or exp and divide by the sum": spread_of(
        weigh=lambda z: z / z.sum(), finish=lambda w, v, u, second: w @ (v - u).square().sum(dim=1)
    ),
    "the sign of the log-density is flipped": spread_of(weigh=lambda z: torch.softmax(-z, dim=0)),
    "the start is x - t x_i: it must be divided by 1 - t": spread_of(starts=lambda points, x, t: x - t * points),
    "the density is taken at the data points; it belongs to the source: take it at s_i": spread_of(
        starts=lambda points, x, t: points
    ),
}

# %% tags=["check"]
mistakes |= {
    "this is the variance of the data points; the targets are theirs divided by 1 - t: a factor 1/(1-t)^2 is missing": (
        spread_of(targets=lambda points, x, t, s: points)
    ),
    "the mean is not subtracted: this is the mean square of the targets": spread_of(
        finish=lambda w, v, u, second: second
    ),
    "the mean of the targets has no weights in it": spread_of(
        finish=lambda w, v, u, second: w @ (v - v.mean(dim=0)).square().sum(dim=1)
    ),
    "the weights are in the mean only: the squares need them, too": spread_of(
        finish=lambda w, v, u, second: (v - u).square().sum(dim=1).mean()
    ),
    "you took the mean over the coordinates; the squared length is their sum": spread_of(
        finish=lambda w, v, u, second: (second - u.square().sum()) / v.shape[1]
    ),
    "this is the standard deviation; the variance is asked": spread_of(
        finish=lambda w, v, u, second: (second - u.square().sum()) ** 0.5
    ),
    "this is the mean velocity's squared length; the variance of the targets is asked": spread_of(
        finish=lambda w, v, u, second: u.square().sum()
    ),
}

# %% tags=["check"]
normal = Gaussian((3,)).log_prob
disagreement_cases = [
    (normal, torch.randn(n, 3, generator=generator), 0.5 * torch.randn(3, generator=generator), t)
    for n, t in ((6, 0.3), (9, 0.5), (5, 0.2))
]
right_spread = checks.compare("disagreement", disagreement, spread_of(), disagreement_cases, mistakes)

# %% [markdown]
# Once the check is right: the disagreement on the way from the ring to the middle of one direction of the chapter's
# data, for four times. It is large wherever paths of other directions come by.

# %%
picture = None
if right_spread:
    ring = ChiSphere((2,), dof=3072)
    three = torch.cat(
        [at_angles(angle + torch.linspace(-0.17, 0.17, 60), torch.full((60,), 25.0)) for angle in (4.5, 5.92, 1.1)]
    )
    figure, axes = plotting.canvas(1, 4, height=2.8)
    for ax, t in zip(axes, (0.2, 0.4, 0.6, 0.8), strict=True):
        x0 = ring.sample(600, torch.Generator().manual_seed(1))
        xt = (1 - t) * x0 + t * three[torch.randint(180, (600,), generator=torch.Generator().manual_seed(2))]
        value = torch.stack([disagreement(ring.log_prob, three, x, t) for x in xt]).sqrt()
        ax.scatter(*xt.T, c=value, s=4, cmap="magma_r", vmin=0, vmax=40, linewidths=0)
        style.blank(ax, 58).set_title(f"t = {t}")
    picture = figure
picture
