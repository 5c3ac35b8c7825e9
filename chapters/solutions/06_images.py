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
# Fill in the places marked `...` and run the cell below each of them: it says whether your answer is right and, if it
# is not, what is wrong. The terms and formulas are in [the chapter](../06_images.ipynb). Each exercise has a line with
# its kind, the minutes that it takes once you have read the chapter, and its difficulty.

# %%
import math

import torch

from fmcore import closed_form, data, paths, solvers
from fmcore.course import checks, plotting, style
from fmcore.metrics import frechet_distance

style.use()

# %% [markdown]
# ## 1. A dequantizer with gaps
#
# *Diagnosis · 10 minutes · ★☆☆*
#
# The first function below was meant to dequantize the grey levels `k`, whole numbers in $\{0, \dots, L - 1\}$, with the
# noise `u` from $\mathcal{U}(0, 1)$ and `levels` $= L$. The second was meant to take points back to levels. The cell
# after them tries both for $L = 5$: all levels come back, and still the histogram should be flat from $-1$ to 1, and there
# are no levels but 0 to 4. There are **two** faults in the first function and **two** in the second.


# %%
def broken_to_points(k, u, levels):
    return 2 * k / (levels - 1) - 1 + u / levels


def broken_to_levels(y, levels):
    return ((y + 1) / 2 * (levels - 1)).round().long()


# %%
def picture_of(to_points, to_levels):
    """A histogram of 50,000 points of equally frequent levels; prints which levels come back."""
    generator = torch.Generator().manual_seed(0)
    k = torch.randint(5, (50_000,), generator=generator)
    y = to_points(k, torch.rand(50_000, generator=generator), 5)
    print(f"levels that come back: {(to_levels(y, 5) == k).float().mean():.0%}")
    print(f"levels of -1.4 and of 1.4: {to_levels(torch.tensor([-1.4, 1.4]), 5).tolist()}")
    figure, ax = plotting.canvas(width=6, height=2.6)
    ax.hist(y.numpy(), bins=torch.linspace(-1.5, 1.5, 91).tolist(), color=style.DATA)
    ax.set(xlabel="y", yticks=[], title="five equally frequent levels")
    return figure


picture_of(broken_to_points, broken_to_levels)

# %% [markdown]
# Mend both. `k`, `u` and `y` have any shape, the same for `k` and `u`. The sample of a flow may lie outside of $[-1, 1]$: such
# a number gets the level of the nearest bin.
#
# <details><summary>Hint</summary>
#
# How wide is a bin, and how wide is the gap between the lower edges of two neighbouring levels in the broken function?
# Where does the noise of one level end, and where does the next level begin? For the way back: which number below $L$
# counts the edges that $y$ has passed, and does rounding find it?
#
# </details>


# %% tags=["exercise", "points:2"]
def to_points(k, u, levels):
    ### BEGIN SOLUTION
    return 2 / levels * (k + u) - 1
    ### END SOLUTION


def to_levels(y, levels):
    ### BEGIN SOLUTION
    return ((y + 1) / 2 * levels).floor().clamp(0, levels - 1).long()
    ### END SOLUTION


# %% tags=["check"]
mended = checks.exercise("06.1", to_points, to_levels)

# %% [markdown]
# Once both are right, the same experiment with your functions.

# %%
picture_of(to_points, to_levels) if mended else None

# %% [markdown]
# ## 2. Bits per dimension of standardized images
#
# *Derivation · 15 minutes · ★★☆*
#
# Somebody dequantizes images of $d$ pixels with $L$ levels to points $y$ on the scale $[-1, 1]$, as in the chapter, and
# then standardizes each pixel: $z_j = (y_j - m_j) / s_j$, where $m_j$ and $s_j > 0$ are the mean and the standard
# deviation of pixel $j$. The flow is trained on $z$. Its log-density $\log p_z(z)$ is given in nats. Derive the
# bits/dim of the images.
#
# `log_density` has shape $(B,)$, `s` has shape $(d,)$, and `levels` is $L$. Return shape $(B,)$.
#
# <details><summary>Hint</summary>
#
# The probability of an image is the mass that the density puts into the box of its levels. Which sides does this box
# have in the coordinates $z$?
#
# </details>


# %% tags=["exercise", "points:2"]
def bits_per_dim(log_density, s, levels):
    ### BEGIN SOLUTION
    nats = -(log_density - s.log().sum()) / len(s)  # of the density of y, per dimension
    return nats / math.log(2) + math.log2(levels / 2)
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("06.2", bits_per_dim)

# %% [markdown]
# ## 3. More draws never loosen the bound
#
# *Proof · 25 minutes · ★★★*
#
# Let $\ell_1, \dots, \ell_K$ be the log-densities $\log p(y(k, u_j))$ of one image for $K$ independent draws of the
# noise $u_j$, and
#
# $$
# B_K = \mathbb{E} \log \frac1K \sum_{j=1}^K e^{\ell_j} .
# $$
#
# **Claim.** $B_{K-1} \le B_K$ for every $K \ge 2$: with more draws bits/dim can only fall, on average.
#
# **Proof.**
#
# 1. Write $A = \frac1K \sum_j e^{\ell_j}$ for the mean density of all draws. Its logarithm is the number inside $B_K$.
# 2. Leave out draw $j$, and let $A_j$ be the mean density of the other $K - 1$ draws. Since all draws have the same
#    distribution, $\mathbb{E} \log A_j = B_{K-1}$, whatever $j$ is.
# 3. Each $e^{\ell_i}$ occurs in all $A_j$ but one, so the mean of the $A_j$ over $j$ is $A$. The logarithm is concave;
#    by Jensen's inequality $\frac1K \sum_j \log A_j \le \log A$. The expectation of this is the claim. $\square$
# 4. *How large can the fall be?* Let $\ell_j \sim \mathcal{N}(m, s^2)$. For $K \to \infty$ the mean density tends to
#    its expectation, while $B_1 = m$. The difference depends on $s$ only.
#
# Write the quantities of the four steps. `log_densities` holds $\ell_j$ for $K$ draws of $n$ images, shape $(K, n)$. Its
# numbers may be as small as $-5000$ and as large as $5000$, and differ by thousands between images and between draws.
#
# Step 1: $\log A$ for each image, shape $(n,)$.
#
# <details><summary>Hint</summary>
#
# Taking out a number $c$ changes nothing: $\log \sum_j e^{\ell_j} = c + \log \sum_j e^{\ell_j - c}$. For which $c$ can
# nothing overflow, and not all terms vanish? PyTorch has this as `torch.logsumexp`.
#
# </details>


# %% tags=["exercise", "points:1"]
def log_mean(log_densities):
    ### BEGIN SOLUTION
    return torch.logsumexp(log_densities, dim=0) - math.log(len(log_densities))
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("06.3a", log_mean)

# %% [markdown]
# Step 2: $\log A_j$ for each draw $j$ of each image, shape $(K, n)$.


# %% tags=["exercise", "points:1"]
def without_each(log_densities):
    ### BEGIN SOLUTION
    K = len(log_densities)
    return torch.stack([log_mean(log_densities[torch.arange(K) != j]) for j in range(K)])
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("06.3b", without_each)

# %% [markdown]
# Step 3: the difference of the two sides of Jensen's inequality for each image, shape $(n,)$; it is never negative.


# %% tags=["exercise", "points:1"]
def gain(log_densities):
    ### BEGIN SOLUTION
    return log_mean(log_densities) - without_each(log_densities).mean(dim=0)
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("06.3c", gain)

# %% [markdown]
# Step 4: by how many **bits/dim** does the value fall from $K = 1$ to $K \to \infty$, if log-densities of images in $d$
# dimensions scatter with a standard deviation of $s$ nats?


# %% tags=["exercise", "points:1"]
def fall(s, d):
    ### BEGIN SOLUTION
    return s**2 / (2 * d * math.log(2))
    ### END SOLUTION


# %% tags=["check"]
proved = checks.exercise("06.3d", fall)

# %% [markdown]
# Step 4 does not ask where the scatter comes from. If it is that of a noisy estimator, the true log-density is $m$, and all
# of the fall is false. Once the check is right, this cell compares: estimates of one number with a noise of 5 nats, in the
# dimensions of the digits.

# %%
if proved:
    estimates = 5 * torch.randn(1024, 400, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for K in (1, 4, 32, 256):
        groups = torch.stack([log_mean(group).mean() for group in estimates.split(K)])
        print(f"K = {K:3}: bits/dim fall by {groups.mean() / (64 * math.log(2)):.3f}; the most is {fall(5.0, 64):.3f}")

# %% [markdown]
# ## 4. The loss of the exact velocity at both ends
#
# *Derivation · 15 minutes · ★★☆*
#
# The data are $n$ images of $d$ pixels with whole-number grey levels $k_p^{(i)}$, each image with probability $1/n$. They are
# dequantized with $L$ levels, with new noise $u$ each time, and $x_t = (1 - t)\, x_0 + t\, x_1$ as always. The loss is the
# mean of $(u^*(x_t, t) - (x_1 - x_0))^2$ over pairs *and* pixels, for the exact velocity $u^*$.
#
# Derive this loss at $t = 0$. `k` has shape $(n, d)$ (int64), `levels` is $L$; return one number.
#
# <details><summary>Hint</summary>
#
# At $t = 0$ the point $x_t$ is $x_0$. What is still random about the target $x_1 - x_0$ then, and from which two independent
# sources does it come? The variance of a number that is uniform on an interval of length $\Delta$ is $\Delta^2 / 12$.
#
# </details>


# %% tags=["exercise", "points:2"]
def loss_at_start(k, levels):
    ### BEGIN SOLUTION
    width = 2 / levels
    return width**2 * (k.double().var(dim=0, correction=0).mean() + 1 / 12)
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("06.4a", loss_at_start)

# %% [markdown]
# And for $t \to 1$? Give the limit of the loss with dequantization, and the limit for images that are left in the middle of
# their bins (all $u = \frac12$).
#
# <details><summary>Hint</summary>
#
# Eliminate $x_1$: the target is $x_1 - x_0 = (x_t - x_0) / t$. So the question is what $x_t$ says about $x_0$. How much noise
# is left in $x_t$, compared with the width of a bin?
#
# </details>

# %% tags=["exercise", "points:2"]
end_with_noise = ...
end_without_noise = ...
### BEGIN SOLUTION
end_with_noise, end_without_noise = 1.0, 0.0  # within a bin x_t says nothing about x0, whose variance is 1
### END SOLUTION

# %% tags=["check"]
checks.exercise("06.4b", end_with_noise, end_without_noise)

# %% [markdown]
# ## 5. A noise predictor that was borrowed
#
# *Diagnosis · 20 minutes · ★★☆*
#
# A DDPM network from elsewhere is to be sampled as a flow. It predicts the noise, $e = \mathbb{E}[x_0 \mid x_t = x]$, on the
# variance-preserving path, and has its own time $s$: at $s = 0$ there is no noise, at $s = 1$ there is only noise. To keep things
# small, the exact prediction for 500 points of two moons plays the network. The function below turns it into a velocity, with
# **two** faults. Of the samples that come out, none lies inside the picture.

# %%
vp = paths.variance_preserving()
moons = data.toy.two_moons(500, torch.Generator().manual_seed(0))
exact = closed_form.EmpiricalVelocity(moons, vp)


def borrowed(x, s):
    """The noise in x, for x of shape (B, d) and times s of shape (B,)."""
    return vp.velocity_to_noise(exact(x, 1 - s), x, 1 - s)


def broken_velocity(model, path, x, t):
    e = model(x, t)
    alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
    x1 = (x + sigma * e) / alpha
    return path.d_alpha(t)[:, None] * x1 + path.d_sigma(t)[:, None] * e


# %%
def samples_of(velocity):
    """Samples of the borrowed network from 500 noise samples, as a picture."""
    noise = torch.randn(500, 2, generator=torch.Generator().manual_seed(1))

    def flow(x, t):
        return velocity(borrowed, vp, x, t.expand(len(x)))

    x = solvers.solve(flow, noise, t1=0.998, method="midpoint", steps=60).x
    print(f"samples inside the picture: {(x.abs().amax(dim=1) < 4).float().mean():.0%}")
    return plotting.clouds(data=moons, model=x, limit=4.0)


samples_of(broken_velocity)

# %% [markdown]
# Mend the function. It will be tried with other networks and other paths, too. `x` has shape $(B, d)$, `t` has shape $(B,)$
# (the time of the flow, noise at $t = 0$); `model(x, s)` takes the time $s$ of the network. A path has `path.alpha(t)`,
# `path.sigma(t)` and their derivatives `path.d_alpha(t)`, `path.d_sigma(t)`, each of shape $(B,)$.
#
# <details><summary>Hint</summary>
#
# Test the parts one by one on a pair whose $x_0$ and $x_1$ you know. With a model that always returns the true $x_0$, the line
# for `x1` must return the true $x_1$. And at which time does the network expect a point that is nearly noise?
#
# </details>


# %% tags=["exercise", "points:2"]
def velocity(model, path, x, t):
    ### BEGIN SOLUTION
    e = model(x, 1 - t)
    alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
    x1 = (x - sigma * e) / alpha
    return path.d_alpha(t)[:, None] * x1 + path.d_sigma(t)[:, None] * e
    ### END SOLUTION


# %% tags=["check"]
sampled = checks.exercise("06.5", velocity)

# %%
samples_of(velocity) if sampled else None

# %% [markdown]
# ## 6. Is the bias of a Fréchet distance the same for every model?
#
# *Investigation · 40 minutes · ★★★*
#
# A Fréchet distance from $n$ samples is too large, and the less so the larger $n$ is. A proposal: *take the distance of $n$ real
# images as a control and subtract it; what is left has no bias any more.* This is right only if the bias is the same for the
# model as for the real images. **Is it?**
#
# Write `experiment(draw_real, draw_model, seed)`. `draw_real(n, generator)` and `draw_model(n, generator)` draw features of shape
# $(n, f)$. Measure `frechet_distance` of $n$ samples to one **reference** set of 2,000 real samples, for several $n$ and averaged
# over repeats with new samples. Return a dictionary with
#
# - `"counts"`: at least four $n$ in growing order, the last at least eight times the first (and at most 2,000);
# - `"model"`: the mean distance of $n$ samples of the model, one for each count;
# - `"control"`: the same for $n$ new real samples;
# - `"verdict"`: the *fall* of a line is its first entry minus its last. `"smaller"` or `"larger"`, if the fall of the model
#   is smaller or larger than that of the control; `"equal"` if their ratio is between 0.8 and 1.25. Let your own numbers decide.
#
# It will be run for models and seeds that you do not know, and should take a few seconds at most. Three models to start with:

# %%
FEATURES = 6


def drawer(spread, shift):
    """Draws features from a Gaussian of this standard deviation around `shift`."""
    return lambda n, generator: spread * torch.randn(n, FEATURES, generator=generator, dtype=torch.float64) + shift


draw_real = drawer(1.0, 0.0)
MODELS = {"blurred": drawer(0.4, 0.0), "too bright": drawer(1.0, 0.3), "noisy": drawer(2.0, 0.0)}

# %% [markdown]
# A good answer (one point for each line):
#
# - has enough repeats that the standard error of each mean is small beside the differences that the verdict rests on;
# - shows for which models the proposal works and for which it does not, with a reason: which of the terms of the distance is
#   biased by the covariance of the model, and which by its mean?
# - tests whether the bias falls like $1/n$, and extrapolates both lines to $n \to \infty$;
# - checks the extrapolated values against the true distances, which are known for these Gaussians;
# - says what this means for two models that are compared at the same $n$: can their order be wrong?
#
# <details><summary>Hint</summary>
#
# Start with one model, `counts = [20, 40, 80, 160]` and 50 repeats, and draw the distances against $1/n$ (`plotting.curves`).
# The expected squared distance of the mean of $n$ samples from its true value is the trace of the covariance over $n$.
#
# </details>


# %% tags=["exercise", "points:4"]
def experiment(draw_real, draw_model, seed):
    ### BEGIN SOLUTION
    generator, counts = torch.Generator().manual_seed(seed), [20, 40, 80, 160]
    reference = draw_real(2000, generator)

    def mean_distance(draw, n):
        return sum(frechet_distance(draw(n, generator), reference) for _ in range(60)) / 60

    model, control = ([mean_distance(draw, n) for n in counts] for draw in (draw_model, draw_real))
    ratio = (model[0] - model[-1]) / (control[0] - control[-1])
    verdict = "equal" if 0.8 <= ratio <= 1.25 else "smaller" if ratio < 1 else "larger"
    return {"counts": counts, "model": model, "control": control, "verdict": verdict}
    ### END SOLUTION


# %% tags=["check"]
checks.exercise("06.6", experiment)

# %% [markdown]
# *Your answer in words:*
