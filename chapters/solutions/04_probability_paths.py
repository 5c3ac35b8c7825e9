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
# # Exercises to 04 Probability paths
#
# Fill in the places marked `...` and run the cell below each of them: it says whether your function is right and, if
# it is not, what is wrong. The words and formulas are in [the chapter](../04_probability_paths.ipynb).

# %%
import torch

from fmcore import networks, paths, solvers
from fmcore.course import checks, plotting, style

style.use()
SEVERAL = (paths.variance_preserving(), paths.cosine(), paths.ot(0.2), paths.variance_exploding(0.1, 5.0))

# %% [markdown]
# ## 1. The velocity of any path
#
# Write $u_t(x \mid x_1)$ of an affine path, from Theorem 3. `path` has the schedules `path.alpha(t)`, `path.sigma(t)`
# and their derivatives `path.d_alpha(t)`, `path.d_sigma(t)`; each takes times of any shape and returns that shape. `x`
# and `x1` have shape $(B, d)$, `t` has shape $(B,)$. Do not call `path.velocity`.


# %% tags=["exercise", "points:2"]
def conditional_velocity(path, x, x1, t):
    ### BEGIN SOLUTION
    t = t[:, None]
    x0 = (x - path.alpha(t) * x1) / path.sigma(t)  # the noise that led to x
    return path.d_alpha(t) * x1 + path.d_sigma(t) * x0
    ### END SOLUTION


# %% tags=["check"]
def reference_velocity(path, x, x1, t):
    return path.velocity(x, x1, t)


def with_schedules(formula):
    """A function of (path, x, x1, t) from one of (x, x1, alpha, sigma, alpha', sigma')."""
    return lambda path, x, x1, t: formula(
        x, x1, *(s(t[:, None]) for s in (path.alpha, path.sigma, path.d_alpha, path.d_sigma))
    )


# %% tags=["check"]
mistakes = {
    "x is put in where x0 belongs: solve x = alpha x1 + sigma x0 for x0": with_schedules(
        lambda x, x1, a, s, da, ds: da * x1 + ds * x
    ),
    "x and x1 swapped": with_schedules(lambda x, x1, a, s, da, ds: da * x + ds / s * (x1 - a * x)),
    "the division by sigma is missing: x0 = (x - alpha x1) / sigma": with_schedules(
        lambda x, x1, a, s, da, ds: da * x1 + ds * (x - a * x1)
    ),
    "alpha is missing: x0 = (x - alpha x1) / sigma": with_schedules(
        lambda x, x1, a, s, da, ds: da * x1 + ds / s * (x - x1)
    ),
    "the term alpha' x1 is missing: the centre of the Gaussian moves too": with_schedules(
        lambda x, x1, a, s, da, ds: ds / s * (x - a * x1)
    ),
    "the term with x0 is missing: the Gaussian shrinks too": with_schedules(lambda x, x1, a, s, da, ds: da * x1),
    "the sign of sigma' is flipped: it is negative, and that is what pulls x in": with_schedules(
        lambda x, x1, a, s, da, ds: da * x1 - ds / s * (x - a * x1)
    ),
    "alpha stands where alpha' belongs": with_schedules(lambda x, x1, a, s, da, ds: a * x1 + ds / s * (x - a * x1)),
    "sigma / sigma' stands where sigma' / sigma belongs": with_schedules(
        lambda x, x1, a, s, da, ds: da * x1 + s / ds * (x - a * x1)
    ),
}

# %% tags=["check"]
generator = torch.Generator().manual_seed(1)
velocity_cases = [
    (path, torch.randn(n, 2, generator=generator), torch.randn(n, 2, generator=generator), 0.1 + 0.8 * torch.rand(n, generator=generator))
    for path, n in zip(SEVERAL, (5, 2, 7, 4), strict=True)
]  # fmt: skip
checks.compare("conditional_velocity", conditional_velocity, reference_velocity, velocity_cases, mistakes)

# %% [markdown]
# ## 2. From score to velocity
#
# A network gives you the score $s = \nabla \log p_t(x)$ of the VP path with $\beta(r) = 0.1 + 19.9\, r$, where
# $r = 1 - t$ is the time of the diffusion. Write the velocity. You may derive it from
# $s = -\mathbb{E}[x_0 \mid x] / \sigma_t$, or recall chapter 01. `x` and `score` have shape $(B, d)$, `t` has shape
# $(B,)$.


# %% tags=["exercise", "points:2"]
def velocity_of_score(x, score, t):
    ### BEGIN SOLUTION
    beta = 0.1 + 19.9 * (1 - t[:, None])
    return beta / 2 * (x + score)
    ### END SOLUTION


# %% tags=["check"]
def reference_of_score(x, score, t):
    return SEVERAL[0].score_to_velocity(score, x, t)


def with_rate(formula):
    """A function of (x, score, t) from one of (x, score, beta(1 - t), beta(t))."""
    return lambda x, s, t: formula(x, s, 0.1 + 19.9 * (1 - t[:, None]), 0.1 + 19.9 * t[:, None])


# %% tags=["check"]
mistakes = {
    "the sign of the score is flipped: x - s holds for the symbol s of Lipman et al. 2023, which is minus the score": (
        with_rate(lambda x, s, b, c: b / 2 * (x - s))
    ),
    "the whole velocity has the wrong sign: this one leads from data to noise": with_rate(
        lambda x, s, b, c: -b / 2 * (x + s)
    ),
    "beta is taken at t; the diffusion counts time from the data, so it is beta(1 - t)": with_rate(
        lambda x, s, b, c: c / 2 * (x + s)
    ),
    "the factor 1/2 is missing": with_rate(lambda x, s, b, c: b * (x + s)),
    "the factor 1/2 of the score is missing: that is the drift of the reversed SDE, not of the flow": with_rate(
        lambda x, s, b, c: b / 2 * x + b * s
    ),
    "the term with x is missing: the data shrink on this path, and the velocity undoes that": with_rate(
        lambda x, s, b, c: b / 2 * s
    ),
}
generator = torch.Generator().manual_seed(2)
score_cases = [
    (torch.randn(n, 2, generator=generator), torch.randn(n, 2, generator=generator), 0.1 + 0.8 * torch.rand(n, generator=generator))
    for n in (5, 2, 7)
]  # fmt: skip
checks.compare("velocity_of_score", velocity_of_score, reference_of_score, score_cases, mistakes)

# %% [markdown]
# ## 3. The weight between two losses
#
# A network $d(x, t)$ predicts the data. Made into a velocity $v$, its flow matching error is
# $\| v - u \|^2 = w \, \| d - x_1 \|^2$. Write $w$ from the values of the two schedules and their derivatives at one
# time. All are tensors of one shape.


# %% tags=["exercise", "points:2"]
def data_weight(alpha, sigma, d_alpha, d_sigma):
    ### BEGIN SOLUTION
    # v = alpha' d + sigma' (x - alpha d) / sigma, and the same for u with x1 in place of d
    return (d_alpha - d_sigma * alpha / sigma) ** 2
    ### END SOLUTION


# %% tags=["check"]
def reference_weight(alpha, sigma, d_alpha, d_sigma):
    """From the definition: the error of the velocity that an error of the data by 1 makes, squared."""
    one = torch.ones_like(alpha)
    slopes = [d_alpha * d + d_sigma * (one - alpha * d) / sigma for d in (2 * one, 3 * one)]
    return (slopes[1] - slopes[0]).square()


mistakes = {
    "this is the weight of the noise error; without x0, not without x1": lambda a, s, da, ds: (
        ((da * s - a * ds) / a) ** 2
    ),
    "this is the weight of the score error": lambda a, s, da, ds: ((da * s - a * ds) * s / a) ** 2,
    "x0 depends on d too: at a given x, an error of d is also one of x0": lambda a, s, da, ds: da**2,
    "alpha is missing in x0 = (x - alpha d) / sigma": lambda a, s, da, ds: (da - ds / s) ** 2,
    "the minus sign of x0 = (x - alpha d) / sigma is lost": lambda a, s, da, ds: (da + ds * a / s) ** 2,
    "the division by sigma is missing": lambda a, s, da, ds: (da * s - a * ds) ** 2,
}

# %% tags=["check"]
generator = torch.Generator().manual_seed(3)
weight_cases = []
for path in SEVERAL:
    t = 0.1 + 0.8 * torch.rand(5, generator=generator)
    weight_cases.append((path.alpha(t), path.sigma(t), path.d_alpha(t), path.d_sigma(t)))
checks.compare("data_weight", data_weight, reference_weight, weight_cases, mistakes)

# %% [markdown]
# On the rectified path, at which time does flow matching weight an error of the *noise* 16 times as much as the plain
# noise loss does?

# %% tags=["exercise", "points:1"]
time_of_weight_16 = ...
### BEGIN SOLUTION
time_of_weight_16 = 0.25  # alpha' sigma - alpha sigma' = 1, so the weight is 1 / t^2
### END SOLUTION

# %% tags=["check"]
wrong_values = {
    "that is the answer for an error of the data; the weight of the noise is (W / alpha)^2": 0.75,
    "the weight is squared: 1 / t^2, not 1 / t": 1 / 16,
}
checks.value("time_of_weight_16", time_of_weight_16, 0.25, wrong_values)

# %% [markdown]
# ## 4. The same place on another path
#
# A flow is at $x$ at time $t$ of some affine path. Where is the same flow on the rectified path? At the time with the
# same ratio of signal to noise, and at the place with the same $x / \sigma$. Write both: `matching_time(path, t)` for
# `t` of shape $(B,)$, and `matching_place(path, x, t)` for `x` of shape $(B, d)$.


# %% tags=["exercise", "points:2"]
def matching_time(path, t):
    ### BEGIN SOLUTION
    ratio = path.alpha(t) / path.sigma(t)  # on the rectified path t / (1 - t)
    return ratio / (1 + ratio)
    ### END SOLUTION


def matching_place(path, x, t):
    ### BEGIN SOLUTION
    ratio = (path.alpha(t) / path.sigma(t))[:, None]
    sigma = 1 / (1 + ratio)  # 1 minus the matching time
    return x * sigma / path.sigma(t)[:, None]
    ### END SOLUTION


# %% tags=["check"]
def reference_time(path, t):
    """By bisection on the rectified path, for the same ratio."""
    other, low, high = paths.rectified(), torch.zeros_like(t), torch.ones_like(t)
    for _ in range(40):
        middle = (low + high) / 2
        early = other.alpha(middle) * path.sigma(t) < path.alpha(t) * other.sigma(middle)
        low, high = torch.where(early, middle, low), torch.where(early, high, middle)
    return low


def reference_place(path, x, t):
    return x / path.sigma(t)[:, None] * paths.rectified().sigma(reference_time(path, t))[:, None]


# %% tags=["check"]
generator = torch.Generator().manual_seed(4)
place_cases = [
    (path, torch.randn(n, 2, generator=generator), 0.1 + 0.8 * torch.rand(n, generator=generator))
    for path, n in zip(SEVERAL, (5, 2, 7, 4), strict=True)
]
mistakes = {
    "this is the ratio alpha / sigma; which t of the rectified path has it? Solve t / (1 - t) = ratio": lambda path, t: (
        path.alpha(t) / path.sigma(t)
    ),
    "this is alpha; it is the matching time only where alpha + sigma = 1": lambda path, t: path.alpha(t),
    "alpha and sigma swapped: signal over noise, not noise over signal": lambda path, t: 1 - reference_time(path, t),
    "the time is not changed; the clocks of the two paths differ": lambda path, t: t,
}
timed = checks.compare("matching_time", matching_time, reference_time, [(p, t) for p, _, t in place_cases], mistakes)

# %% tags=["check"]
mistakes = {
    "the ruler of the rectified path is missing: this is x / sigma": lambda path, x, t: x / path.sigma(t)[:, None],
    "the ruler of the first path is missing: divide by its sigma": lambda path, x, t: (
        x * (1 - reference_time(path, t))[:, None]
    ),
    "the ruler of the rectified path is taken at t; there the time is another": lambda path, x, t: (
        x * ((1 - t) / path.sigma(t))[:, None]
    ),
    "the rulers are swapped: divide by the sigma of the path that you leave": lambda path, x, t: (
        x * (path.sigma(t) / (1 - reference_time(path, t)))[:, None]
    ),
}
placed = checks.compare("matching_place", matching_place, reference_place, place_cases, mistakes)

# %% [markdown]
# With it, a network that was trained on one path can be sampled on another. Once both checks are right, this cell
# follows a network of the rectified path on the cosine path and compares the ends.

# %%
torch.manual_seed(0)
network = networks.MLP(2, width=32, depth=2).double().requires_grad_(False)  # untrained: the map is the same anyway
straight, cosine = paths.rectified(), paths.cosine()


def on_cosine(x, t):
    time = matching_time(cosine, t[None])[0]
    place = matching_place(cosine, x, t.expand(len(x)))
    return cosine.data_to_velocity(straight.velocity_to_data(network(place, time), place, time), x, t)


picture = None
if timed and placed:
    noise = torch.randn(200, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    ends = [solvers.solve(network, noise, t1=0.999).x]
    end_time = float(2 / torch.pi * torch.atan(torch.tensor(999.0)))  # where the cosine path has the same ratio
    ends.append(solvers.solve(on_cosine, noise, t1=end_time).x * 0.001 / float(cosine.sigma(torch.tensor(end_time))))
    gap = float((ends[0] - ends[1]).abs().max())
    checks.holds("one network on two paths", gap < 1e-2, f"the ends are {gap:.2g} apart: see the checks above")
    picture = plotting.clouds(others={"rectified path": ends[0], "cosine path, shifted a little": ends[1] + 0.05})
picture

# %% [markdown]
# ## 5. NFE at equal error
#
# A solver was run with several NFE (increasing) and gave errors (decreasing). Write the NFE at which the error would
# be `level`: a straight line between the two neighbouring points, on logarithmic axes for *both*. `nfe` and `errors`
# are tensors of one length, `level` a number between the largest and the smallest error.


# %% tags=["exercise", "points:2"]
def nfe_at(level, nfe, errors):
    ### BEGIN SOLUTION
    k = int((errors > level).sum())  # the first error that is not above the level
    level, errors, nfe = torch.tensor(level).log(), errors.log(), nfe.log()
    part = (errors[k - 1] - level) / (errors[k - 1] - errors[k])
    return (nfe[k - 1] + part * (nfe[k] - nfe[k - 1])).exp()
    ### END SOLUTION


# %% tags=["check"]
def between(level, nfe, errors, of_nfe, of_error):
    """Interpolation with other axes: functions of the NFE and of the errors, and the inverse of the first."""
    import numpy as np

    (there, back), scale = of_nfe, of_error
    ys = -scale(errors.double()).numpy()  # increasing
    level = -float(scale(torch.tensor(level, dtype=torch.float64)))
    return back(torch.tensor(np.interp(level, ys, there(nfe.double()).numpy())))


LOG, PLAIN = (torch.log, torch.exp), (lambda x: x, lambda x: x)


def reference_nfe(level, nfe, errors):
    return between(level, nfe, errors, LOG, torch.log)


# %% tags=["check"]
mistakes = {
    "the line is straight on plain axes; take logarithms of both": lambda level, nfe, errors: between(
        level, nfe, errors, PLAIN, PLAIN[0]
    ),
    "the errors have logarithms, the NFE have not": lambda level, nfe, errors: between(
        level, nfe, errors, PLAIN, torch.log
    ),
    "the NFE have logarithms, the errors have not": lambda level, nfe, errors: between(
        level, nfe, errors, LOG, PLAIN[0]
    ),
    "this is the logarithm of the NFE": lambda level, nfe, errors: reference_nfe(level, nfe, errors).log(),
    "this is the next NFE that was run; read off the line between two of them": lambda level, nfe, errors: nfe[
        int((errors > level).sum())
    ],
    "this is the last NFE with a larger error; read off the line between two of them": lambda level, nfe, errors: nfe[
        int((errors > level).sum()) - 1
    ],
}
runs = torch.tensor([4.0, 8.0, 20.0, 50.0])
curve_cases = [
    (0.01, runs, torch.tensor([0.3, 0.06, 0.004, 0.0001])),
    (0.001, runs, torch.tensor([0.3, 0.06, 0.004, 0.0001])),
    (0.2, runs, torch.tensor([0.9, 0.1, 0.01, 0.002])),
]
checks.compare("nfe_at", nfe_at, reference_nfe, curve_cases, mistakes)

# %% [markdown]
# On one path a solver of order $p$ has squared errors $C_1\, \mathrm{NFE}^{-2p}$, on another
# $C_2\, \mathrm{NFE}^{-2p}$. The midpoint method has $p = 2$, and at equal NFE the first error is 81 times smaller.
# What is the ratio of their NFE at equal error, first over second?

# %% tags=["exercise", "points:1"]
ratio_at_equal_error = ...
### BEGIN SOLUTION
ratio_at_equal_error = (1 / 81) ** (1 / 4)  # C_1 / n_1^4 = C_2 / n_2^4
### END SOLUTION

# %% tags=["check"]
wrong_values = {
    "that is the ratio of the errors at equal NFE": 1 / 81,
    "the errors are squared: they fall with the power 2p = 4, not 2": 1 / 9,
    "that is second over first": 3.0,
}
checks.value("ratio_at_equal_error", ratio_at_equal_error, 1 / 3, wrong_values)
