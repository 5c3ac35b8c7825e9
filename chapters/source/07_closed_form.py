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
# # 07 Closed form
#
# A training set is a finite list. So the velocity that minimizes the flow matching loss need not be learned: it can
# be written down. This chapter writes it down, follows it, and finds that it does nothing but return the training
# set. Then it asks *when* on the way this is decided, predicts the time with a pencil, and measures it on points, on
# digits and on photographs.

# %% slideshow={"slide_type": "skip"}
import itertools
import math

import torch
import torch.nn.functional as F
from matplotlib.colors import ListedColormap, hsv_to_rgb

from fmcore import closed_form, data, losses, networks, paths, solvers, training
from fmcore.course import card, claims, plotting, predict, style, widgets
from fmcore.course.claims import Claim, about, above, below, between, exactly
from fmcore.metrics import cosine_to_conditional, nearest_training_images
from fmcore.papers import reference

style.use()
torch.set_num_threads(1)  # an 8x8 image gives a second core too little to do

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
card.show(
    "07_closed_form",
    goals=[
        "derive the exact velocity of a training set, and recognize it as attention over the training images",
        "show that following it returns training images, each equally often",
        "predict from the number of images and the dimension at which time a sample is decided, and measure it",
        "read a cosine between velocities without being fooled by its high start",
        "say why a model that makes new images cannot have minimized its loss",
    ],
    before=["chapter 03: the marginal velocity and what is left of the loss", "softmax", "Gaussian integrals"],
    exercises=[
        "1. The weights",
        "2. Two points on any path",
        "3. A running softmax",
        "4. The effective number of images",
        "5. The time of the collapse",
    ],
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Three lines of algebra
#
# The training set is $n$ points $x^{(1)}, \dots, x^{(n)}$ in $\mathbb{R}^d$. Training draws one of them as $x_1$, noise
# $x_0 \sim \mathcal{N}(0, I)$ and a time $t$, and asks the network for $x_1 - x_0$ at $x_t = (1-t)\, x_0 + t\, x_1$.
#
# 1. The best answer to a random target, in mean square, is its mean. At the place $x$ that is $u^*(x, t) =
#    \mathbb{E}[x_1 - x_0 \mid x_t = x]$, and no function has a lower loss.
# 2. If $x_t = x$ and $x_1 = x^{(i)}$ are given, then $x_0 = (x - t x^{(i)}) / (1-t)$ is given too, and the target is
#    $x_1 - x_0 = (x^{(i)} - x) / (1-t)$.
# 3. So the only unknown is *which* $i$. All are equally likely beforehand, and $x_t$ given $x^{(i)}$ is Gaussian with
#    mean $t x^{(i)}$ and standard deviation $1-t$. Bayes' rule, in which all factors but the exponentials cancel, gives
#
# $$
# w_i(x, t) = P(x_1 = x^{(i)} \mid x_t = x)
# = \operatorname{softmax}_i \Big( \! -\frac{\| x - t x^{(i)} \|^2}{2 (1-t)^2} \Big) ,
# \qquad
# u^*(x, t) = \sum_{i=1}^n w_i(x, t)\, \frac{x^{(i)} - x}{1 - t} .
# $$

# %% [markdown] slideshow={"slide_type": "notes"}
# This is Proposition 1 of Bertrand et al. 2025, "On the Closed-Form of Flow Matching". Chapter 03 found the same
# velocity from the continuity equation, as the one that carries the noise to the data; here it is the minimizer of
# the loss. The sum is the same for every path $x_t = \alpha_t x_1 + \sigma_t x_0$: with $\alpha_t x^{(i)}$ and
# $\sigma_t$ in the softmax.


# %% slideshow={"slide_type": "fragment"}
def by_hand(x, t, points):
    """u*(x, t) and the weights w_i, (B, n), for x of shape (B, d), one time t and points of shape (n, d)."""
    squares = (x[:, None] - t * points).square().sum(dim=2)
    weights = torch.softmax(-squares / (2 * (1 - t) ** 2), dim=1)
    mean = weights @ points  # E[x1 | x_t = x]
    return (mean - x) / (1 - t), weights


# %% slideshow={"slide_type": "fragment"}
path = paths.rectified()
digits = data.digits()
images, held_out = digits.scaled(digits.train), digits.scaled(digits.held_out)  # (n, 1, 8, 8) in (-1, 1)
moons = data.toy.two_moons(2000, torch.Generator().manual_seed(0))
exact = {"moons": closed_form.EmpiricalVelocity(moons), "digits": closed_form.EmpiricalVelocity(images)}
generator, gap_by_hand = torch.Generator().manual_seed(1), 0.0
for points, velocity in zip((moons, images), exact.values(), strict=True):
    for time in (0.0, 0.3, 0.6, 0.9):
        xt = path.interpolate(torch.randn(points[:100].shape, generator=generator), points[:100], time)
        u, weights = by_hand(xt.flatten(1), time, points.flatten(1))
        torch.testing.assert_close(velocity.weights(xt, time), weights, rtol=1e-3, atol=1e-4)
        gap_by_hand = max(gap_by_hand, float((velocity(xt, time).flatten(1) - u).abs().max()))
assert gap_by_hand < 2e-3, gap_by_hand
print(f"n = {len(images):,} digits in d = {images[0].numel()}, {len(moons):,} points of two moons in d = 2")
print(f"largest difference to fmcore: {gap_by_hand:.0e}")

# %% [markdown] slideshow={"slide_type": "skip"}
# From here on we use `closed_form.EmpiricalVelocity`. It does the same for 50,000 images in memory that does not grow
# with their number (exercise 3), and keeps its digits up to $t = 1 - 10^{-5}$.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## It is attention
#
# Divide $x_t$ by $1-t$, so that the noise has size 1, and call the signal's strength $\rho = t / (1-t)$:
#
# $$
# q = \frac{x_t}{1-t} = x_0 + \rho\, x_1 ,
# \qquad
# -\frac{\| x_t - t x^{(i)} \|^2}{2 (1-t)^2} = -\tfrac12 \| q - \rho\, x^{(i)} \|^2
# = \rho\, \langle q, x^{(i)} \rangle - \tfrac12 \rho^2 \| x^{(i)} \|^2 - \tfrac12 \|q\|^2 .
# $$
#
# The last term is the same for all $i$, and the softmax does not see it. What remains is the attention of a
# transformer, with one query $q$, the training images as keys *and* as values, and the temperature $1/\rho =
# (1-t)/t$. It is infinite at $t = 0$, where all keys count alike, and zero at $t = 1$, where only the best match
# counts. PyTorch's own attention function must give $\mathbb{E}[x_1 \mid x_t]$.

# %% slideshow={"slide_type": "fragment"}
keys = values = images.flatten(1)
gap_attention = 0.0
for time in (0.1, 0.4, 0.7):
    rho = time / (1 - time)
    xt = path.interpolate(torch.randn(200, 1, 8, 8, generator=generator), images[:200], time)
    query = xt.flatten(1) / (1 - time)
    bias = (-0.5 * rho**2 * keys.square().sum(dim=1)).expand(200, -1)  # one number a key
    attended = F.scaled_dot_product_attention(query[None], keys[None], values[None], bias[None], scale=rho)[0]
    gap_attention = max(
        gap_attention, float((attended - exact["digits"].posterior_mean(xt, time).flatten(1)).abs().max())
    )
assert gap_attention < 1e-3, gap_attention
print(f"attention of PyTorch and E[x1 | x_t] of fmcore: largest difference of a pixel {gap_attention:.0e}")

# %% slideshow={"slide_type": "subslide"}
ten = torch.stack([images[digits.train_labels == label][0] for label in range(10)])  # a training set of ten
attention = closed_form.EmpiricalVelocity(ten)
noise = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(2))
figure, axes = plotting.canvas(1, 4, height=2.9)
for ax, time in zip(axes, (0.05, 0.15, 0.25, 0.5), strict=True):
    xt = path.interpolate(noise, ten, time)
    ax.imshow(attention.weights(xt, time), cmap=style.density_map(), vmin=0, vmax=1)
    ax.set_title(f"t = {time:.2f}, temperature {(1 - time) / time:.0f}", fontsize=11)
    ax.set(xticks=range(10), yticks=range(10), xlabel="key: a training image")
    ax.tick_params(length=0, labelsize=8)
    ax.grid(False)
axes[0].set_ylabel("query: $x_t$ made from")
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# Attention maps for a training set of ten digits, one of each class: a row is an $x_t$, the columns are the ten
# training images, the shade is the weight $w_i$. As the temperature falls, attention that was spread over all images
# narrows to the one that $x_t$ was made from. The rest of the chapter is about this picture.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Sanity: one point, two points
#
# **One point.** The softmax over one entry is 1, and $u^*(x, t) = (x^{(1)} - x)/(1-t)$ is the conditional velocity.
#
# **Two points** $a$ and $-a$. The softmax over two entries is a logistic function $\operatorname{sigmoid}(z) = 1 / (1 +
# e^{-z})$ of the difference of the exponents, in which only the mixed term of the square survives:
#
# $$
# w_a = \operatorname{sigmoid}\! \Big( \frac{\|x + t a\|^2 - \|x - t a\|^2}{2 (1-t)^2} \Big)
# = \operatorname{sigmoid}\! \Big( \frac{2 t \langle x, a \rangle}{(1-t)^2} \Big) ,
# \qquad
# u^* = \frac{a \tanh \big( t \langle x, a \rangle / (1-t)^2 \big) - x}{1 - t} .
# $$

# %% slideshow={"slide_type": "fragment"}
a = torch.tensor([1.5])
two, one = closed_form.EmpiricalVelocity(torch.stack([a, -a])), closed_form.EmpiricalVelocity(a[None])
x = torch.linspace(-3, 3, 241)[:, None]
gap_one, gap_two = 0.0, 0.0
for time in (0.0, 0.2, 0.5, 0.7, 0.9):
    t = torch.tensor(time)
    formula = (a * torch.tanh(t * (x * a) / (1 - t) ** 2) - x) / (1 - t)
    gap_one = max(gap_one, float((one(x, t) - path.velocity(x, a.expand_as(x), t)).abs().max()))
    gap_two = max(gap_two, float((two(x, t) - formula).abs().max()))
assert max(gap_one, gap_two) < 1e-3, (gap_one, gap_two)
print(f"one point, against the conditional velocity: {gap_one:.0e};  two points, against tanh: {gap_two:.0e}")

figure, axes = plotting.canvas(1, 2, height=3.5)
for time in (0.2, 0.5, 0.7, 0.9):
    axes[0].plot(x, two.weights(x, time)[:, 0], color=style.color_of(time), label=f"t = {time}")
axes[0].set(xlabel="x", title="weight of the point at 1.5", yticks=[0, 0.5, 1])
axes[0].legend()
starts, times = torch.linspace(-2.4, 2.4, 32)[:, None], torch.linspace(0, path.t_max, 201)
lines = solvers.solve(two, starts, t1=path.t_max, times=times).trajectory[..., 0]
axes[1].plot(times, lines, color=style.PATH, linewidth=1)
axes[1].set(xlabel="t", ylabel="x", yticks=[-1.5, 0, 1.5], title="following u*")
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# Left: the choice between the two points is soft early and hard late. Right: where $x$ is small, the flow hesitates,
# then falls to one side. Whatever it was at the start, it ends at one of two values.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Nothing has a lower loss
#
# Chapter 03 split the loss. For any velocity $v$,
#
# $$
# \mathbb{E} \| v - (x_1 - x_0) \|^2 = \mathbb{E} \| v - u^* \|^2 + \mathbb{E} \| u^* - (x_1 - x_0) \|^2 ,
# $$
#
# so the excess of a loss over that of $u^*$ *is* the squared distance to $u^*$. Three candidates that should know
# better than to compete: $u^*$ of half of the images; the most likely image alone, $\arg\max_i w_i$, in place of the
# mean; and the mean image, whatever $x$.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Each x_t was made from one image. Whom does the loss prefer: the posterior mean, a blur of several images, or the "
    "most likely image alone, which is often the right one?",
    ["the most likely image: it is right more often than any other guess", "the mean", "they have equal loss"],
    answer=1,
    because="A square punishes a bold mistake more than it rewards a bold hit. The mean is the best answer to a square, "
    "and a blur is what a good network must return at early times.",
)

# %% slideshow={"slide_type": "fragment"}
generator = torch.Generator().manual_seed(3)
picks = torch.randint(len(images), (6000,), generator=generator)
x0, x1 = torch.randn(6000, 1, 8, 8, generator=generator), images[picks]
t = 0.9 * torch.rand(6000, generator=generator)  # up to 0.9: later, the other candidates' errors explode
u_star = exact["digits"]


def most_likely(x, t):
    return path.velocity(x, images[u_star.weights(x, t).argmax(dim=1)], t)


def mean_image(x, t):
    return path.velocity(x, images.mean(dim=0).expand_as(x), t)


candidates = {"u* of half of the images": closed_form.EmpiricalVelocity(images[:750])}
candidates |= {"most likely image": most_likely, "mean image": mean_image}
lowest = float(losses.conditional_flow_matching(u_star, path, x0, x1, t))
pythagoras = {}
print(f"{'u*':26} loss {lowest:.3f}")
for name, candidate in candidates.items():
    excess = float(losses.conditional_flow_matching(candidate, path, x0, x1, t)) - lowest
    distance = float(losses.exact_flow_matching(candidate, path, x0, x1, u_star, t))
    pythagoras[name] = excess, distance
    print(f"{name:26} loss {lowest + excess:.3f}   excess {excess:.3f}   squared distance to u* {distance:.3f}")

# %% [markdown] slideshow={"slide_type": "skip"}
# Excess and distance agree within the noise of 6,000 samples. The loss of $u^*$ is not zero but the variance of what it
# cannot know (chapter 03); nothing can go lower. In this sense $u^*$ is the perfect model. What does it make?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Follow it: twelve points
#
# A training set of twelve points on two moons. Noise follows $\mathrm{d}x / \mathrm{d}t = u^*(x, t)$ to $t = 1$. As
# $t \to 1$ the velocity $(\mathbb{E}[x_1 \mid x] - x)/(1-t)$ pulls ever harder, and the posterior mean becomes a
# single point. So every noise ends *at* one of the twelve. The plane of starting points falls into twelve **basins**.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Some of the twelve points lie at the rim of the noise, some in its middle. How is the noise shared out among them?",
    [
        "each point gets the noise that is nearest to it",
        "each gets exactly one twelfth",
        "those in the middle get more: most of the noise is there",
    ],
    answer=1,
    because="Chapter 03: the flow carries the noise distribution to the data distribution exactly, and in the training set "
    "every point has probability 1/n. The basins arrange themselves so that this comes out.",
)

# %% slideshow={"slide_type": "fragment"}
few = data.toy.two_moons(12, torch.Generator().manual_seed(269))
to_few = closed_form.EmpiricalVelocity(few)


def follow(x0, **options):
    """The solution from the noise x0 along u* of the twelve points."""
    return solvers.solve(to_few, x0, t1=path.t_max, method="midpoint", **options)


noise = torch.randn(10_000, 2, generator=torch.Generator().manual_seed(4))
ends = follow(noise, steps=60).x
to_point, basin = torch.cdist(ends, few).min(dim=1)
nearest_start = torch.cdist(noise, few).argmin(dim=1)
share_flow, share_nearest = (12 * torch.bincount(k, minlength=12) / len(noise) for k in (basin, nearest_start))
agree = float((basin == nearest_start).float().mean())
print(f"largest distance of an end to one of the twelve points: {to_point.max():.4f}")
print(f"share of the noise, times 12: by the flow {share_flow.min():.2f} to {share_flow.max():.2f}")
print(f"                        by nearest point {share_nearest.min():.2f} to {share_nearest.max():.2f}")
outside = int((torch.cdist(follow(few, steps=60).x, few).argmin(dim=1) != torch.arange(12)).sum())
print(f"noise that ends at the point nearest to its start: {agree:.0%}; points outside of their own basin: {outside}")

# %% slideshow={"slide_type": "subslide"}
side = 241
where = plotting.grid(2.9, side)
order = torch.argsort(torch.atan2(few[:, 1], few[:, 0]))
hue = torch.empty(12)
hue[order] = torch.arange(12) * 5 % 12 / 12  # neighbours get distant colours
pastel = ListedColormap([tuple(hsv_to_rgb((float(h), 0.35, 0.95))) for h in hue])
figure, axes = plotting.canvas(1, 3)
ways = follow(noise[:110], times=torch.linspace(0, path.t_max, 121, dtype=torch.float64))
plotting.trajectories(ways, limit=2.9, title="110 noises on their way", ax=axes[0])
maps = {"basins of the flow": torch.cdist(follow(where, steps=60).x, few), "nearest point": torch.cdist(where, few)}
for ax, (title, distances) in zip(axes[1:], maps.items(), strict=True):
    picture = distances.argmin(dim=1).reshape(side, side)
    edges = (-2.9, 2.9, -2.9, 2.9)
    ax.imshow(picture, origin="lower", extent=edges, cmap=pastel, vmin=0, vmax=11, interpolation="nearest")
    style.blank(ax, 2.9).set_title(title)
for ax in axes:
    ax.scatter(*few.T, s=42, color=style.DATA, edgecolors="white", linewidths=1, zorder=4)
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# Middle: starting points of one colour end at the same data point, which need not lie in its own basin. Each basin
# holds a twelfth of the *noise*, not of the plane. Right: the cells of the nearest point for comparison; they hold
# between a quarter and two and a half times their share.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Follow it: digits
#
# The same in 64 dimensions, with all 1,500 training images and 297 noises, as many as there are held-out images.
# Three measures: the distance to the nearest training image; its **ratio** to the distance of the second nearest,
# which is near 1 for something new and 0 for a copy; the **share of copies**, samples with a ratio below a third
# (`metrics.Nearest`).

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "297 noises, 1,500 training images. How many different training images will the samples be?",
    ["297: every noise finds its own", "about 270", "a few dozen: some images attract most of the noise"],
    answer=1,
    because="Every image is hit with the same probability 1/1500, independently for each noise. Then 297 draws with replacement "
    "give 1500 (1 - (1 - 1/1500)^297) = 269.5 different images on average.",
)

# %% slideshow={"slide_type": "fragment"}
noise = torch.randn(297, 1, 8, 8, generator=torch.Generator().manual_seed(5))
sampled = solvers.solve(u_star, noise, t1=path.t_max, rtol=1e-3, atol=1e-3)
found = {"samples of u*": nearest_training_images(sampled.x, images)}
found["held-out digits"] = nearest_training_images(held_out, images)
for name, near in found.items():
    said = f"nearest at {near.distance[:, 0].mean():.4f}   ratio {near.ratio.mean():.4f}"
    print(f"{name:16} {said}   copies {near.share_of_copies():.0%}")
different = len(found["samples of u*"].row[:, 0].unique())
expected_different = 1500 * (1 - (1 - 1 / 1500) ** 297)
print(f"different training images among the samples: {different}, expected {expected_different:.1f}")

# %% slideshow={"slide_type": "subslide"}
rows = []
for these, near in ((sampled.x, found["samples of u*"]), (held_out, found["held-out digits"])):
    rows += [these[:12], images[near.row[:12, 0]]]
names = ["sample of $u^*$", "nearest in training", "held out", "nearest in training"]
plotting.images(torch.cat(rows), columns=12, rows=names)

# %% [markdown] slideshow={"slide_type": "skip"}
# The first two rows are the same: the distance of 0.0004 is what is left of the way when the solver stops just before
# $t = 1$. The lower two are what "similar but new" looks like.
#
# So the perfect model is a way to draw training images at random, with a solver in the place of an index. It has
# learned them by heart: **memorization**. Whatever else a flow model does, it does by *not* being perfect.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## When is it decided?
#
# At $t = 0$ nothing is decided, at $t = 1$ everything. In between, at $x_t$ made from the pair $(x_0, x_1)$, compare
# the exact velocity with the one of the pair: the **cosine** of the angle between $u^*(x_t, t)$ and $x_1 - x_0$. It
# is 1 when $u^*$ already runs straight to *this* training point. Below, 512 pairs each, at the times of Bertrand et
# al.'s figure 1.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "At t = 0.6: for which data do nearly all pairs have a cosine close to 1?",
    ["for the two moons: 2 dimensions are easier than 64", "for the digits", "for both"],
    answer=1,
    because="In the plane 2,000 points crowd, and x_t may come from any of the points around it. In 64 dimensions the 1,500 "
    "digits are far apart, and a noisy digit still says which digit it was.",
)

# %% slideshow={"slide_type": "fragment"}
MOMENTS = (0.01, 0.21, 0.40, 0.60, 0.79, 0.99)


def pairs_from(points, count, seed):
    """Noise and points, drawn independently, and the numbers of the points."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(len(points), (count,), generator=generator)
    return torch.randn(count, *points.shape[1:], generator=generator).to(points), points[numbers], numbers


figure, axes = plotting.canvas(2, 6, height=3.9, sharex=True)
cosines = {}
for line, (name, points, color) in zip(
    axes, (("moons", moons, style.SOURCE), ("digits", images, style.DATA)), strict=True
):
    x0, x1, _ = pairs_from(points, 512, seed=6)
    for ax, time in zip(line, MOMENTS, strict=True):
        cosines[name, time] = cosine_to_conditional(exact[name], path, x0, x1, time)
        plotting.histogram({"": cosines[name, time]}, bins=30, range=(-1, 1), colors={"": color}, ax=ax)
        ax.set(xticks=[-1, 0, 1], title=f"mean {cosines[name, time].mean():.2f}")
    line[0].set_ylabel({"moons": "two moons", "digits": "digits"}[name])
for ax, time in zip(axes[0], MOMENTS, strict=True):
    ax.set_title(f"t = {time:.2f}\nmean {cosines['moons', time].mean():.2f}")
axes[1, 2].set_xlabel("cosine of $u^*(x_t, t)$ and $x_1 - x_0$", x=1.1)
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# In the plane the target of training is noisy until the very end. For the digits the histogram is one bar from $t =
# 0.8$ on: the regression target *is* the exact velocity, and there is no randomness left to average over.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### A high cosine is not yet a collapse
#
# But why do the digits start at 0.92, where $x_t$ is pure noise and says nothing about $x_1$? Because at $t = 0$ both
# velocities know $x_0$. With the mean image $m$, $u^*(x_0, 0) = m - x_0$, against $x_1 - x_0$. Let $\mu^2 = \|m\|^2 /
# d$ be the mean square of a pixel of $m$ and $s^2$ the mean variance of a pixel. In many dimensions lengths and
# angles hardly scatter, and
#
# $$
# \cos \;\approx\; \frac{\langle m - x_0,\, x_1 - x_0 \rangle}{\|m - x_0\|\, \|x_1 - x_0\|}
# \;\approx\; \sqrt{\frac{1 + \mu^2}{1 + \mu^2 + s^2}} .
# $$
#
# A number about the *contrast* of the images, near 1 when they are faint beside the noise. The clean question is
# another one: which weight $w_i$ does the point have that $x_t$ was really made from? We call it the **own weight**.

# %% slideshow={"slide_type": "fragment"}
times = torch.linspace(0.005, 0.995, 100)
x0, x1, own = pairs_from(images, 256, seed=7)
cosine_at, own_at = [], []
for time in times:
    cosine_at.append(cosine_to_conditional(u_star, path, x0, x1, time).mean())
    weights = u_star.weights(path.interpolate(x0, x1, time), time)
    own_at.append(weights.gather(1, own[:, None]).median())
mu2, s2 = float(images.mean(dim=0).square().mean()), float(images.var(dim=0, correction=0).mean())
start_predicted, start_measured = math.sqrt((1 + mu2) / (1 + mu2 + s2)), float(cosine_at[0])
lowest_at = int(torch.stack(cosine_at).argmin())
cosine_dip, own_there = float(cosine_at[lowest_at]), float(own_at[lowest_at])
print(f"cosine at t = 0.005: predicted {start_predicted:.3f}, measured {start_measured:.3f}")
print(f"lowest cosine {cosine_dip:.3f}, at t = {times[lowest_at]:.2f}; median own weight there {own_there:.3f}")

figure = plotting.curves(
    times,
    {"mean cosine": cosine_at, "median own weight": own_at},
    xlabel="t",
    colors={"mean cosine": style.PATH, "median own weight": style.EXACT},
    title="digits, n = 1,500",
)
figure.axes[0].set_ylim(0, 1.03)
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# On the digits the cosine first *falls* and then rises. While $x_t$ says little, both velocities are mostly $-x_0$;
# the cosine counts that as agreement. The own weight knows no such start: it is 0 before the collapse and 1 after it.
# So we define the **collapse time** $t_c$: the time at which the median own weight is one half.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Theory: two points
#
# Take two points at distance $D$, and $x_t$ made from the first. In units of the noise, $q = x_0 + \rho\, x^{(1)}$
# with $\rho = t/(1-t)$, so
#
# $$
# \log \frac{w_1}{w_2} = \tfrac12 \| q - \rho\, x^{(2)} \|^2 - \tfrac12 \| q - \rho\, x^{(1)} \|^2
# = \tfrac12 \rho^2 D^2 + \rho\, \langle x_0,\, x^{(1)} - x^{(2)} \rangle .
# $$
#
# A Gaussian number: mean $\rho^2 D^2 / 2$, standard deviation $\rho D$. The gap grows with $\rho D$, the distance of
# the two *signals* in units of the noise, and with nothing else. The wrong point has the larger weight with
# probability $\Phi(-\rho D / 2)$, where $\Phi$ is the distribution function of the standard normal distribution.

# %% slideshow={"slide_type": "fragment"}
first, second = images[0], images[1]
D = float((first - second).norm())
pair_of_digits = closed_form.EmpiricalVelocity(torch.stack([first, second]))
x0 = torch.randn(20_000, 1, 8, 8, generator=torch.Generator().manual_seed(8))
wrong = {}
print(f"two digits at distance D = {D:.2f}")
for time in (0.1, 0.2, 0.3, 0.4):
    rho = time / (1 - time)
    weights = pair_of_digits.weights(path.interpolate(x0, first.expand_as(x0), time), time)
    predicted = float(torch.special.ndtr(torch.tensor(-rho * D / 2)))
    wrong[time] = float((weights[:, 0] < 0.5).float().mean()), predicted
    print(f"t = {time}: wrong point ahead in {wrong[time][0]:.3f} of the cases, predicted {predicted:.3f}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Theory: n points
#
# One competitor is soon beaten. But there are $n - 1$ of them, and the *sum* of their weights must be beaten. A first
# guess: every one of them lies behind by the mean gap $\rho^2 D^2 / 2$, so the own point wins when $e^{\rho^2 D^2/2}
# > n$.
#
# The guess forgets the noise, which favours some competitors. Count properly, for points from a Gaussian
# $\mathcal{N}(0, s^2 I)$ in $d$ dimensions. The own exponent is $-\frac12 \|x_0\|^2 \approx -\frac d2$. The others
# know nothing about $q$, so their sum is about $n$ times the mean over a fresh point $x$, a Gaussian integral:
#
# $$
# \sum_{j \ne i} e^{-\frac12 \| q - \rho x^{(j)} \|^2} \approx n\, \mathbb{E}_x\, e^{-\frac12 \| q - \rho x \|^2}
# = n\, (1 + \rho^2 s^2)^{-d/2}\, e^{-\frac{\|q\|^2}{2 (1 + \rho^2 s^2)}}
# \approx n\, (1 + \rho^2 s^2)^{-d/2}\, e^{-\frac d2} ,
# $$
#
# because $q = x_0 + \rho\, x^{(i)}$ has mean square $d\, (1 + \rho^2 s^2)$. Own weight and the rest are equal when
#
# $$
# \log n = \tfrac d2 \log (1 + \rho_c^2 s^2) ,
# \qquad\text{so}\qquad
# \rho_c = \frac1s \sqrt{n^{2/d} - 1} , \quad t_c = \frac{\rho_c}{1 + \rho_c} .
# $$

# %% [markdown] slideshow={"slide_type": "notes"}
# The right side, $\frac d2 \log(1 + \rho^2 s^2)$, is the capacity of a channel with Gaussian noise: Shannon 1948. The
# training set is a code book, $x_t$ a word received through noise, and the flow memorizes from the moment at which
# the word can be decoded. Biroli et al. 2024 find the same time for diffusion. For large $d$ it becomes $\rho^2 s^2 d
# / 2 = \log n$, while the first guess, with $D^2 = 2 s^2 d$, says $\rho^2 s^2 d = \log n$: too early, by a factor
# $\sqrt2$ in $\rho$.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "1,000 Gaussian points with s = 1. In 2 dimensions the formula says that a sample is decided at t = 0.97. And in 4,096 "
    "dimensions?",
    ["at t = 0.97: it depends on n only", "at about t = 0.5", "at about t = 0.05"],
    answer=2,
    because="n^(2/d) - 1 goes to zero like 2 log(n) / d. Every dimension adds a little evidence about which point it was, and "
    "4,096 little pieces are decisive even when each is drowned in noise.",
)


# %% slideshow={"slide_type": "fragment"}
def gaps_and_squares(points, count, seed):
    """For pairs (x0, x1 = x_i): <x0, x_j - x_i> and |x_j - x_i|^2 for all j, (B, n) each. They serve all times."""
    points = points.flatten(1).double()
    x0, x1, numbers = pairs_from(points, count, seed)
    inner = x0 @ points.T
    return inner - inner.gather(1, numbers[:, None]), torch.cdist(x1, points).square()


def log_ratios(gaps, squares, t):
    """log (w_j / w_i) for all j, (B, n): minus the log-gap of two points."""
    rho = t / (1 - t)
    return rho * gaps - rho**2 * squares / 2


def own_weight(gaps, squares, t):
    """w_i, (B,): one over the sum of all w_j / w_i."""
    return torch.exp(-torch.logsumexp(log_ratios(gaps, squares, t), dim=1))


# %% slideshow={"slide_type": "fragment"}
def collapse_time(points, count=1000, seed=9):
    """The time at which the median own weight is one half, by bisection."""
    found = gaps_and_squares(points, count, seed)
    low, high = 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if own_weight(*found, middle).median() > 0.5 else (middle, high)
    return (low + high) / 2


found_digits = gaps_and_squares(images, 256, seed=9)
x0, x1, own = pairs_from(images.flatten(1).double(), 256, seed=9)
in_double = closed_form.EmpiricalVelocity(images.flatten(1).double())
for time in (0.1, 0.3, 0.5, 0.7):
    weights = in_double.weights(path.interpolate(x0, x1, time), time)
    torch.testing.assert_close(own_weight(*found_digits, time), weights.gather(1, own[:, None])[:, 0])

# %% slideshow={"slide_type": "fragment"}
DIMENSIONS, n = (2, 4, 8, 16, 32, 64, 256, 1024, 4096), 1000
t_measured, t_theory, t_guess = {}, {}, {}
for d in DIMENSIONS:
    cloud = torch.randn(n, d, generator=torch.Generator().manual_seed(d))
    t_measured[d] = collapse_time(cloud)
    rho_c, rho_guess = math.sqrt(n ** (2 / d) - 1), math.sqrt(math.log(n) / d)
    t_theory[d], t_guess[d] = rho_c / (1 + rho_c), rho_guess / (1 + rho_guess)
    print(f"d = {d:4}: measured {t_measured[d]:.3f}   theory {t_theory[d]:.3f}   first guess {t_guess[d]:.3f}")

# %% slideshow={"slide_type": "subslide"}
line = torch.logspace(math.log10(1.6), math.log10(5000), 200, dtype=torch.float64)
figure, ax = plotting.canvas(width=7.2, height=3.8)
root = (n ** (2 / line) - 1).sqrt()
guess = (math.log(n) / line).sqrt()
ax.plot(line, root / (1 + root), color=style.EXACT, label=r"theory: $\log n = \frac{d}{2} \log(1 + \rho^2 s^2)$")
ax.plot(line, guess / (1 + guess), "--", color=style.MUTED, label="first guess: mean gap alone")
ax.plot(DIMENSIONS, list(t_measured.values()), "o", color=style.DATA, label="measured")
ax.set(xscale="log", xlabel="dimension d", ylabel="collapse time $t_c$", ylim=(0, 1))
ax.set_xticks([2, 8, 32, 128, 512, 2048], ["2", "8", "32", "128", "512", "2048"])
ax.minorticks_off()
ax.set_title(f"n = {n:,} Gaussian points, nothing fitted")
ax.legend()
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# The theory has no free number and is right within 0.02 at every dimension from 2 to 4,096; the first guess is not.
# The measured times are always a little early: the mean over a fresh point includes excellent matches that $n$ draws
# seldom contain. **Dimension is what makes the target deterministic**: at $d = 4096$ all of the way after $t = 0.06$
# leads straight to one training point.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Digits of 2x2, 4x4 and 8x8 pixels
#
# Real images: the digits, averaged down to 4x4 and 2x2. Averaging also makes them fainter, and the theory says that
# contrast matters. So at each size we subtract the mean image and stretch to $s = 1$.
#
# Pixels of an image are not independent. If the data had the covariance of the images, with eigenvalues $\lambda_1,
# \dots, \lambda_d$, and were Gaussian otherwise, each direction would be a channel of its own, and
#
# $$
# \log n = \tfrac12 \sum_{k=1}^d \log (1 + \rho_c^2 \lambda_k) .
# $$

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "64 independent pixels with s = 1 collapse at t = 0.34 for n = 1,500. And 8x8 digits, stretched to s = 1 as well?",
    ["earlier", "at the same time: d, n and s are the same", "later"],
    answer=2,
    because="Neighbouring pixels repeat each other: they bring less evidence than independent ones. What counts is not the number of "
    "pixels but how many directions carry variance.",
)


# %% slideshow={"slide_type": "fragment"}
def resized(size):
    """The training digits at size x size pixels, centred, with mean variance 1."""
    small = F.adaptive_avg_pool2d(images, size).flatten(1).double()
    small = small - small.mean(dim=0)
    return small / small.square().mean().sqrt()


def predicted_collapse(points, n):
    """t_c of n Gaussian points with the covariance of the given ones."""
    eigenvalues = torch.linalg.eigvalsh(torch.cov(points.flatten(1).double().T)).clamp(min=0)
    t = torch.linspace(0.001, 0.999, 9981, dtype=torch.float64)
    evidence = 0.5 * torch.log1p((t / (1 - t)).square()[:, None] * eigenvalues).sum(dim=1)
    return float(t[(evidence >= math.log(n)).nonzero()[0]])


# %% slideshow={"slide_type": "fragment"}
by_size, t_size = {}, {}
for size in (2, 4, 8):
    small = resized(size)
    x0, x1, _ = pairs_from(small, 256, seed=10)
    velocity = closed_form.EmpiricalVelocity(small)
    cosine = torch.stack([cosine_to_conditional(velocity, path, x0, x1, t).mean() for t in times])
    found_small = gaps_and_squares(small, 1000, seed=10)
    own = torch.stack([own_weight(*found_small, t).median() for t in times.double()])
    by_size[size], t_size[size] = (cosine, own), (collapse_time(small, seed=10), predicted_collapse(small, 1500))
    print(f"{size}x{size}: collapse at {t_size[size][0]:.3f}, from n and the covariance {t_size[size][1]:.3f}")
rho_white = math.sqrt(1500 ** (2 / 64) - 1)
t_white = rho_white / (1 + rho_white)
print(f"64 independent pixels: {t_white:.3f}")

# %% slideshow={"slide_type": "subslide"}
figure, axes = plotting.canvas(1, 2, height=3.5)
shades = {size: style.density_map()(shade) for size, shade in ((2, 0.4), (4, 0.6), (8, 0.9))}
for ax, part, title in zip(axes, (0, 1), ("mean cosine", "median own weight"), strict=True):
    lines = {f"{size}x{size}": curves[part] for size, curves in by_size.items()}
    plotting.curves(times, lines, xlabel="t", title=title, colors={f"{k}x{k}": c for k, c in shades.items()}, ax=ax)
    ax.set_ylim(0, 1.03)
for size, (_, predicted) in t_size.items():
    axes[1].axvline(predicted, color=shades[size], linestyle=":", linewidth=1.6)
axes[1].plot([], [], ":", color=style.EXACT, label="predicted")
axes[1].legend(loc="upper left")
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# The larger the image, the earlier the collapse, in both measures. The prediction from the covariance alone is right
# within a few hundredths, and at 4x4 and 8x8 pixels it is early: digits are not Gaussian, their pixels depend on each
# other in more ways than a covariance can say, and so bring still less evidence.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Would more images help?
#
# More images crowd the space and delay the collapse. From 15 to 1,500 digits, at their own contrast:

# %% slideshow={"slide_type": "fragment"}
COUNTS = (15, 50, 150, 500, 1500)
t_count = {}
for count in COUNTS:
    t_count[count] = collapse_time(images[:count]), predicted_collapse(images, count)
    print(f"n = {count:4}: collapse at {t_count[count][0]:.3f}, predicted {t_count[count][1]:.3f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "A hundred times as many digits moved the collapse from 0.35 to 0.57. To delay it to t = 0.9 it takes",
    ["about 10,000 digits", "about a million", "over ten million"],
    answer=2,
    because="A hundred million by the lower of the two estimates below. n counts through its logarithm, and every independent "
    "direction of the data with full weight: the curse of dimension, seen from the other side.",
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# To look beyond 1,500 digits takes a guess. Two guesses: the formula with the covariance of the digits, as if they
# were Gaussian; and the trend of the last three measured points, continued as a power law, $n \propto \rho_c^{\,k}$.

# %% slideshow={"slide_type": "fragment"}
eigenvalues = torch.linalg.eigvalsh(torch.cov(images.flatten(1).double().T)).clamp(min=0)
last = COUNTS[-3:]
strength = [t_count[count][0] / (1 - t_count[count][0]) for count in last]
power = plotting.slope(strength, last)
grid = torch.linspace(0.3, 0.92, 200, dtype=torch.float64)
by_covariance = 0.5 * torch.log1p((grid / (1 - grid)).square()[:, None] * eigenvalues).sum(dim=1) / math.log(10)
by_trend = math.log10(1500) + power * ((grid / (1 - grid)).log10() - math.log10(strength[-1]))
at_09 = int((grid - 0.9).abs().argmin())
needed = {"covariance": float(by_covariance[at_09]), "trend": float(by_trend[at_09])}
print(f"trend: n grows like rho to the power {power:.1f}")
print("digits needed for a collapse at t = 0.9: " + ", ".join(f"10^{v:.0f} by {k}" for k, v in needed.items()))

figure, ax = plotting.canvas(width=7.2, height=3.6)
ax.plot(10**by_covariance, grid, color=style.EXACT, label="from the covariance")
late = grid > 0.5
ax.plot(10 ** by_trend[late], grid[late], "--", color=style.PATH, label="trend of the last three points")
ax.plot(COUNTS, [measured for measured, _ in t_count.values()], "o", color=style.DATA, label="measured")
ax.set(xscale="log", xlabel="number of digits n", ylabel="collapse time $t_c$", xlim=(5, 1e30), ylim=(0.2, 1))
ax.legend(loc="lower right")
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# The two guesses lie many powers of ten apart, and that is the honest answer: the covariance overrates the digits,
# whose 64 pixels vary together in fewer ways than a Gaussian with their covariance, and nobody knows how long the
# trend lasts. By either, images to delay the collapse run out long before $t_c$ comes near 1.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## How many images take part?
#
# A softmax over $n$ images rarely uses $n$ of them. Its **effective number of images** is $n_{\mathrm{eff}} = \exp
# \big( -\sum_i w_i \log w_i \big)$: $n$ if all weights are equal, 1 if one is 1, and $k$ if $k$ of them share
# equally. At $t = 0$ it is $n$; after the collapse it is 1. And in between? Its logarithm is what remains unknown
# about $i$: $\log n$ minus the evidence in $x_t$. Before the collapse the theory has
#
# $$
# \log n_{\mathrm{eff}} \approx \log n - \tfrac12 \sum_k \log (1 + \rho^2 \lambda_k) .
# $$

# %% slideshow={"slide_type": "fragment"}
cloud = torch.randn(1500, 64, generator=torch.Generator().manual_seed(11), dtype=torch.float64) * s2**0.5
figure, axes = plotting.canvas(1, 2, height=3.5, sharey=True)
n_eff = {}
for ax, (title, points) in zip(axes, {"Gaussian points, d = 64": cloud, "digits": images}.items(), strict=True):
    found_points = gaps_and_squares(points, 256, seed=11)
    weights = [torch.softmax(log_ratios(*found_points, t), dim=1) for t in times.double()]
    n_eff[title] = torch.stack([torch.special.entr(w).sum(dim=1).mean().exp() for w in weights])
    spectrum = torch.linalg.eigvalsh(torch.cov(points.flatten(1).double().T)).clamp(min=0)
    evidence = 0.5 * torch.log1p((times / (1 - times)).square()[:, None] * spectrum).sum(dim=1)
    ax.plot(times, n_eff[title], color=style.PATH, label="measured")
    ax.plot(times, (math.log(1500) - evidence).exp().clamp(min=1), "--", color=style.EXACT, label="theory")
    ax.set(yscale="log", xlabel="t", title=title, ylim=(0.9, 2000))
    ax.set_yticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
axes[0].set_ylabel("effective number of images")
axes[0].legend()
for time in (0.1, 0.3, 0.5, 0.6, 0.8):
    k = int((times - time).abs().argmin())
    print(f"digits, t = {time}: {n_eff['digits'][k]:6.1f} of 1,500 images take part")
figure


# %% slideshow={"slide_type": "skip"}
def posterior_picture(t, number, unseen):
    """x_t of one digit, what u* believes that it is, and the six training images that count most; below, n_eff(t)."""
    x1 = (held_out if unseen else images)[number : number + 1]
    x0 = torch.randn(x1.shape, generator=torch.Generator().manual_seed(number))
    xt = path.interpolate(x0, x1, t)
    top = u_star.weights(xt, t)[0].topk(6)
    shown = torch.cat([x1, xt / xt.abs().max().clamp(min=1), u_star.posterior_mean(xt, t), images[top.indices]])
    titles = ["$x_1$", "$x_t$", "mean", *(f"{value:.3f}" for value in top.values)]
    figure, (upper, lower) = plotting.canvas(2, 1, height=3.6, height_ratios=[1, 1.35])
    plotting.images(shown, titles=titles, ax=upper)
    moments = torch.linspace(0, 0.99, 67)
    at = path.interpolate(x0.expand(67, -1, -1, -1), x1.expand(67, -1, -1, -1), moments)
    effective = torch.special.entr(u_star.weights(at, moments)).sum(dim=1).exp()
    lower.plot(moments, effective, color=style.PATH)
    k = int((moments - t).abs().argmin())
    lower.plot(t, effective[k], "o", color=style.EXACT)
    lower.set(yscale="log", ylim=(0.8, 2500), xlabel="t", ylabel="images that count", xlim=(0, 1))
    lower.set_yticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
    return figure


# %% slideshow={"slide_type": "subslide"}
widgets.explore(
    posterior_picture,
    t=widgets.slider(0.0, 0.95, step=0.05, value=0.45, label="time t"),
    number=widgets.slider(0, 99, step=1, value=3, label="which digit"),
    unseen=widgets.switch(False, label="an unseen digit"),
)

# %% [markdown] slideshow={"slide_type": "notes"}
# The numbers above the six images are their weights; "mean" is $\mathbb{E}[x_1 \mid x_t]$, where $u^*$ points. Try:
# raise $t$ until the mean is no blur any more. Then tick *an unseen digit*: $x_1$ is now a held-out image, and $u^*$
# becomes just as sure, of a training image that is not the right one.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Photographs
#
# Bertrand et al.'s claim is about images as people train on them: *the larger the dimension, the earlier the
# collapse*. The photographs are not part of this course, but anyone who has them can measure: each record below is
# one command, and holds cosines of pairs with the exact velocity of **all** images.
#
#     fmcore measure bertrand2025/two_moons/collapse
#     fmcore measure bertrand2025/digits/collapse
#     fmcore measure bertrand2025/cifar10/collapse        # 50,000 images, d = 3,072
#     fmcore measure bertrand2025/imagenet128/collapse    # photographs at five sizes

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "All 50,000 images of CIFAR-10. From which time on does u* point at the very image that x_t was made from?",
    ["t = 0.9: 50,000 are many, and they resemble each other", "t = 0.6, as for the digits", "t = 0.3 or earlier"],
    answer=2,
    because="33 times as many images raise log n by half; the dimension has grown 48 times. Dimension wins.",
)

# %% slideshow={"slide_type": "fragment"}
NAMES = {"two_moons": "two moons", "digits": "digits", "cifar10": "CIFAR-10", "imagenet128": "ImageNet"}
recorded = reference.find_records([reference.RESULTS])
records = {name: recorded[f"bertrand2025/{name}/collapse"] for name in NAMES}
t_first, t_sure = {}, {}
print("                                      cosine at t = 0   nine of ten above 0.9   mean cosine 0.99")
for name, record in records.items():
    entries = record["values"]["time_of_collapse"].values()
    for curve, entry in zip(record["curves"], entries, strict=True):
        key = name, curve["dimension"]
        t_first[key] = math.inf if entry["value"] is None else entry["value"]
        reached = [t for t, cosine in zip(curve["times"], curve["mean_cosine"], strict=True) if cosine >= 0.99]
        t_sure[key] = min(reached, default=math.inf)
        at_last = "         -" if math.isinf(t_first[key]) else f"from {t_first[key]:.2f} ± {entry['spread']:.2f}"
        what = f"{NAMES[name]:10} d = {key[1]:6,}   n = {curve['images']:6,}"
        print(
            f"{what}        {curve['mean_cosine'][0]:.2f}          {at_last:20}  from {t_sure[key]:.2f}".replace(
                "from inf", "   -"
            )
        )

# %% [markdown] slideshow={"slide_type": "notes"}
# A record has cosines and no weights, so two times stand for the collapse: the first from which on nine of ten pairs
# have a cosine above 0.9 (± is the standard deviation over redrawn sets of 256 pairs), and the first with a mean
# cosine of 0.99. Images are made smaller by leaving out rows and columns, which keeps the contrast of a pixel. Two
# moons get to neither: 50,000 points in the plane are closer to each other than the noise that is left at $t = 0.99$.

# %% slideshow={"slide_type": "subslide"}
largest = {name: max(record["curves"], key=lambda one: one["dimension"]) for name, record in records.items()}
figure, axes = plotting.canvas(2, 6, height=3.9, sharex=True)
for line, (name, color) in zip(axes, (("two_moons", style.SOURCE), ("cifar10", style.DATA)), strict=True):
    curve = largest[name]
    for ax, histogram in zip(line, curve["histograms"], strict=True):
        edges = torch.tensor(curve["edges"])
        ax.bar(edges[:-1], histogram["counts"], width=edges.diff(), align="edge", color=color)
        ax.set(yticks=[], xticks=[-1, 0, 1], xlim=(-1, 1.03))
        ax.grid(False)
        ax.spines["left"].set_visible(False)
    line[0].set_ylabel(f"{NAMES[name]}\nd = {curve['dimension']:,}")
for ax, histogram in zip(axes[0], largest["cifar10"]["histograms"], strict=True):
    ax.set_title(f"t = {histogram['t']:.2f}")
axes[1, 2].set_xlabel("cosine of $u^*(x_t, t)$ and $x_1 - x_0$", x=1.1)
figure

# %% slideshow={"slide_type": "subslide"}
figure, axes = plotting.canvas(1, 2, height=4.2, sharey=True)
colors = {"two_moons": style.SOURCE, "digits": style.PATH, "cifar10": style.DATA, "imagenet128": style.EXACT}
for name, curve in largest.items():
    label = f"{NAMES[name]}, d = {curve['dimension']:,}"
    axes[0].plot(curve["times"], curve["mean_cosine"], color=colors[name], label=label)
sizes = records["imagenet128"]["curves"]
for k, curve in enumerate(sizes):
    shade = style.density_map()(0.3 + 0.65 * k / max(1, len(sizes) - 1))
    axes[1].plot(curve["times"], curve["share_above"], color=shade, label=f"{curve['size']}x{curve['size']}")
axes[0].set(xlabel="t", title="mean cosine", ylim=(0, 1.03))
axes[1].set(xlabel="t", title="ImageNet: share of pairs above 0.9", xlim=(-0.02, 1))
for ax in axes:
    ax.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# What the paper says about photographs holds: with all 50,000 images of CIFAR-10 the mean cosine is 0.99 before a
# quarter of the way, and the larger the photographs, the earlier. The figures also show the high start of above: the
# mean cosine at $t = 0$ is about 0.9 for *every* set of images, and a third of the ImageNet pairs begin above 0.9 at
# every size, those with little contrast. A share above 0.9 mixes contrast and collapse: on CIFAR-10 nine of ten pairs
# are above it well before the mean cosine says that the image is found.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Photographs against independent pixels
#
# How much of this is the dimension alone? The theory answers for pixels that are independent, given $n$, $d$ and $s$.
# The contrast $s$ can be read off the record: with a nearly grey mean image ($\mu \approx 0$) the cosine at $t = 0$
# is $1 / \sqrt{1 + s^2}$.

# %% slideshow={"slide_type": "fragment"}
figure, ax = plotting.canvas(width=7.2, height=3.8)
line = torch.logspace(1.8, 4.9, 200, dtype=torch.float64)
t_independent = {}
for name, color, aside in (("cifar10", style.DATA, 1.07), ("imagenet128", style.SOURCE, 0.93)):
    count = largest[name]["images"]
    contrast2 = 1 / largest[name]["mean_cosine"][0] ** 2 - 1
    rho = ((count ** (2 / line) - 1) / contrast2).sqrt()
    ax.plot(line, rho / (1 + rho), color=color, linewidth=1.4, label=f"independent pixels, n = {count:,}")
    for d in sorted(d for which, d in t_first if which == name):
        rho_d = math.sqrt((count ** (2 / d) - 1) / contrast2)
        t_independent[name, d] = rho_d / (1 + rho_d)
        span = sorted((t_first[name, d], t_sure[name, d]))
        ax.plot([aside * d] * 2, span, "-", color=color, linewidth=6, solid_capstyle="butt")
        said = f"nine of ten {t_first[name, d]:.2f}, mean cosine {t_sure[name, d]:.2f}"
        print(f"{NAMES[name]:8} d = {d:6,}: independent pixels {t_independent[name, d]:.2f}; measured: {said}")
    ax.plot([], [], color=color, linewidth=5, solid_capstyle="butt", label=f"{NAMES[name]}, between the two times")
ax.set(xscale="log", xlabel="dimension d", ylabel="collapse time", ylim=(0, 1))
ax.legend()
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# Nothing is fitted, and the theory is right about the fall with the dimension. At small sizes the photographs are
# later than independent pixels: what is left of a photograph after leaving out rows still repeats itself from pixel
# to pixel.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What it means
#
# - The minimizer of the loss over a training set only repeats the training set.
# - In the dimensions of images it is decided early *which* image it repeats. From then on the conditional velocity,
#   the target of training, *is* the exact velocity. Noise in the targets, which averaging over many images would
#   smooth out, is there only before.
# - So a network that makes new images has not learned $u^*$. At which times does it differ?
#
# Train one, a small multilayer perceptron on the same 1,500 digits, and evaluate the loss at fixed times: of the
# network and of $u^*$, on training images and on held-out ones.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "On training images nothing beats u*. What about held-out images, at t = 0.8?",
    [
        "u* is also better there: it is exact",
        "about equal",
        "the network wins: u* is sure of the wrong image",
    ],
    answer=2,
    because="u* is the most overfitted model there is. It points at a training image with full conviction, and the error is divided "
    "by 1 - t. The network never became sure.",
)


# %% slideshow={"slide_type": "fragment"}
def flow_loss(model, x1, generator):
    x0 = torch.randn(x1.shape, generator=generator)
    return losses.conditional_flow_matching(model, path, x0, x1, generator=generator)


torch.manual_seed(0)
network = networks.MLP(64, width=384, depth=2)
config = training.TrainingConfig(steps=1000, batch=128, lr=4e-3, decay="cosine", ema=0.99)
learned = training.train(network, flow_loss, images, config, progress=False).ema

grid = torch.linspace(0, 0.95, 20)
by_time = {}
for split, x1 in {"training": images[:297], "held-out": held_out}.items():
    x0 = torch.randn(x1.shape, generator=torch.Generator().manual_seed(12))
    for name, model in {"u*": u_star, "network": learned}.items():
        with torch.no_grad():
            loss = [losses.conditional_flow_matching(model, path, x0, x1, time) for time in grid]
        by_time[name, split] = torch.stack(loss)

# %% slideshow={"slide_type": "subslide"}
figure, ax = plotting.canvas(width=7.2, height=3.9)
for (name, split), loss in by_time.items():
    color, dash = {"u*": style.EXACT, "network": style.MODEL}[name], "-" if split == "training" else "--"
    ax.plot(grid, loss, dash, color=color, label=f"{name}, {split} images")
ax.set(xlabel="t", ylabel="loss", ylim=(0, 1.5), title="The exact velocity against a network")
ax.legend()
made = solvers.solve(learned, noise, t1=path.t_max, rtol=1e-3, atol=1e-3)
found["network"] = nearest_training_images(made.x, images)
at = {time: int((grid - time).abs().argmin()) for time in (0.2, 0.8)}
for time, k in at.items():
    said = "   ".join(f"{name}, {split}: {float(loss[k]):.2f}" for (name, split), loss in by_time.items())
    print(f"t = {time}   {said}")
near = found["network"]
print(f"samples of the network: ratio {near.ratio.mean():.2f}, copies {near.share_of_copies():.0%}")
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# Until about $t = 0.35$ it makes no difference whether images were trained on: there even $u^*$ averages over many of
# them, and the network, small and trained for seconds, stays a little above. Then $u^*$ tears apart: to zero on its
# training images, out of the picture on the others. The network does neither, and does nearly as well on images that
# it has not seen. **It makes new images because it fails to learn $u^*$ where $u^*$ copies.** When it fails, why, and
# what the noise of the targets has to do with it, is chapter 08.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you saw

# %% slideshow={"slide_type": "skip"}
pythagoras_gap = max(abs(excess / distance - 1) for excess, distance in pythagoras.values())
theory_gap = max(abs(t_measured[d] - t_theory[d]) for d in DIMENSIONS)
guess_gap = max(abs(t_measured[d] - t_guess[d]) for d in DIMENSIONS)
two_point_gap = max(abs(counted - predicted) for counted, predicted in wrong.values())
size_gap = max(abs(counted - predicted) for counted, predicted in t_size.values())
in_order = [t_sure["imagenet128", curve["dimension"]] for curve in sizes]
earlier = sum(after < before for before, after in itertools.pairwise(in_order))
sure_over_independent = [t_sure[key] / time for key, time in t_independent.items()]
copies = {name: near.share_of_copies() for name, near in found.items()}
middle = int((times - 0.3).abs().argmin())

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
rows = [
    Claim("u* by hand and in fmcore: largest difference", gap_by_hand, below(2e-3)),
    Claim("attention of PyTorch and E[x1 | x_t]: largest difference", gap_attention, below(1e-3)),
    Claim("one point: difference to the conditional velocity", gap_one, below(1e-3)),
    Claim("two points: difference to the hyperbolic tangent", gap_two, below(1e-3)),
    Claim("excess loss over squared distance to u*, minus 1: largest", pythagoras_gap, below(0.06)),
    Claim(
        "loss of u* over that of the most likely image",
        lowest / (lowest + pythagoras["most likely image"][0]),
        below(0.9),
    ),
    Claim("twelve points: largest distance of an end to one of them", float(to_point.max()), below(0.01)),
    Claim("smallest share of the noise, times 12, by the flow", share_flow.min(), between(0.9, 1)),
    Claim("the same by nearest point", share_nearest.min(), below(0.4)),
    Claim("digits: share of copies among the samples of u*", copies["samples of u*"], exactly(1), digits=0),
    Claim("the same among held-out digits", copies["held-out digits"], exactly(0), digits=0),
    Claim("the same among the samples of a network", copies["network"], exactly(0), digits=0),
    Claim("different training images among 297 samples (expected 269.5)", different, between(255, 284)),
]
claims.table(rows)

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
rows = [
    Claim("two moons, t = 0.60: mean cosine", cosines["moons", 0.60].mean(), below(0.6)),
    Claim("digits, t = 0.79: mean cosine", cosines["digits", 0.79].mean(), above(0.98)),
    Claim("digits: cosine at the start, measured minus predicted", abs(start_measured - start_predicted), below(0.01)),
    Claim("digits: fall of the mean cosine before it rises", start_measured - cosine_dip, above(0.03)),
    Claim("two points: share of wrong decisions, largest error of the prediction", two_point_gap, below(0.02)),
    Claim("Gaussian points, d = 2: collapse time", t_measured[2], between(0.95, 0.98)),
    Claim("Gaussian points, d = 4096: collapse time", t_measured[4096], about(0.052, 0.002), digits=2),
    Claim("largest error of the theory, d = 2 to 4096", theory_gap, below(0.025)),
    Claim("largest error of the first guess", guess_gap, above(0.2)),
    Claim("digits, 2x2 over 8x8 pixels: collapse time", t_size[2][0] / t_size[8][0], above(1.5)),
    Claim("digits of three sizes: largest error of the prediction from the covariance", size_gap, below(0.08)),
    Claim("digits: collapse time with n = 1,500 over n = 15", t_count[1500][0] / t_count[15][0], between(1.4, 2)),
    Claim("digits needed for a collapse at t = 0.9, the lower guess: power of ten", min(needed.values()), above(7)),
    Claim("digits, t = 0.3: effective number of images", n_eff["digits"][middle], between(300, 420)),
]
claims.table(rows, title="What you saw (continued)")

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
rows = [
    Claim(
        "record, two moons, n = 50,000: mean cosine at t = 0.99", largest["two_moons"]["mean_cosine"][-1], below(0.8)
    ),
    Claim(
        "record, CIFAR-10, n = 50,000: mean cosine at t = 0", largest["cifar10"]["mean_cosine"][0], about(0.9, 0.02), 1
    ),
    Claim(
        "record, CIFAR-10: nine of ten pairs above 0.9 from t", t_first["cifar10", 3072], about(0.15, 0.03), digits=2
    ),
    Claim("record, CIFAR-10: mean cosine 0.99 from t", t_sure["cifar10", 3072], below(0.3)),
    Claim(
        "record, ImageNet: sizes that collapse before the next smaller one", earlier, exactly(len(sizes) - 1), digits=0
    ),
    Claim(
        "records: time of mean cosine 0.99 over that of independent pixels, least", min(sure_over_independent), above(1)
    ),
    Claim("the same, largest", max(sure_over_independent), below(2.5)),
]
claims.table(rows, title="What you saw: photographs")

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
rows = [
    Claim("t = 0.8, training images: loss of u*", by_time["u*", "training"][at[0.8]], below(0.02)),
    Claim(
        "the same, held-out images: loss of u* over that of the network",
        by_time["u*", "held-out"][at[0.8]] / by_time["network", "held-out"][at[0.8]],
        above(2),
    ),
    Claim(
        "the network: loss on held-out over training images",
        by_time["network", "held-out"][at[0.8]] / by_time["network", "training"][at[0.8]],
        between(0.95, 1.25),
    ),
]
claims.table(rows, title="What you saw: a network beside the exact velocity")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## To remember
#
# - The exact velocity of a training set is attention over it: query $x_t$, temperature $(1-t)/t$.
# - It is the minimum of the loss, and it is a lookup: every sample is a training image, each with probability $1/n$.
# - A sample is decided when the evidence in $x_t$ exceeds $\log n$: $\frac12 \sum_k \log(1 + \rho^2 \lambda_k) = \log
#   n$. Dimension enters with full weight, the number of images through a logarithm.
# - A high cosine at early times is shared noise. Look at the weights.
# - Whoever makes new images has not reached the minimum.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# In [exercises/07_closed_form.ipynb](exercises/07_closed_form.ipynb); each has a check that says what is wrong.
#
# 1. **The weights** $w_i(x, t)$ for a batch with a time for each row, safe near $t = 1$.
# 2. **Two points on any path,** anywhere: a logistic function with one more term.
# 3. **A running softmax** over chunks, in memory that does not grow with the number of images.
# 4. **The effective number of images,** without a logarithm of zero.
# 5. **The time of the collapse** from $n$, $d$ and $s$.
#
# <!-- next: written by fmcore.course.build -->
#
# Next: [08 Generalization](08_generalization.ipynb). Why does a network make new data when the exact velocity does not?
#
# <!-- end of next -->
