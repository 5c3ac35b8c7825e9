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
# A training set is a finite list of points. So the velocity that minimizes the flow matching loss need not be learned:
# it can be written down (chapter 03). In this chapter we follow it in many dimensions and find that it does nothing but
# return the training set. Then we ask *when*, between $t = 0$ and $t = 1$, it starts to point at a single training
# image, predict that time with pencil and paper, and measure it on points, on digits and on photographs.

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
ORANGE, GREY = "#C65D12", "#6E7781"  # readable on white as thin lines, too

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
card.show(
    "07_closed_form",
    goals=[
        "rewrite the exact velocity of a training set as attention over the training images",
        "show that following it returns training images, each equally often",
        "predict from the number of images and the dimension at which time a sample collapses onto one of them",
        "read a cosine between velocities without being fooled by its high start",
        "say why a model that makes new images cannot have minimized its loss",
    ],
    before=["chapter 03: the marginal velocity and the irreducible loss", "softmax", "Gaussian integrals"],
    exercises=[
        "1. Two points on any path",
        "2. Basins on a line",
        "3. A running softmax",
        "4. An effective number that is wrong",
        "5. The evidence of coordinates with different variances",
        "6. Does the covariance tell the collapse time?",
    ],
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Recall: the exact velocity
#
# The training set is $n$ points $x^{(1)}, \dots, x^{(n)}$ in $\mathbb{R}^d$; a training step draws one of them as
# $x_1$, a noise sample $x_0 \sim \mathcal{N}(0, I)$ and a time $t$, and forms $x_t = (1-t)\, x_0 + t\, x_1$. Chapter 03
# derived the velocity with the lowest loss: $u^*(x, t) = (\mathbb{E}[x_1 \mid x_t = x] - x) / (1-t)$, where the mean is
# taken with the **posterior weights** $w_i(x, t)$: the probability that $x_t = x$ was made from $x^{(i)}$. They are a
# softmax of $-\| x - t x^{(i)} \|^2 / (2 (1-t)^2)$ over the training points.
#
# Bertrand et al. (2025) study this closed form for images, and this chapter follows their questions.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## It is attention
#
# Divide $x_t$ by $1-t$, so that the noise has size 1, and let $\rho$ be the **signal strength**, the factor in front of
# $x_1$:
#
# $$
# q = \frac{x_t}{1-t} = x_0 + \rho\, x_1 , \qquad \rho = \frac{t}{1-t} .
# $$
#
# The exponent of $w_i$ is now $\| q - \rho\, x^{(i)} \|^2 / 2$ with a minus sign. Expand the square: $\|q\|^2$ is the
# same for all $i$, and the softmax does not see it. What remains is
#
# $$
# w_i = \operatorname{softmax}_i \Big( \rho\, \langle q, x^{(i)} \rangle - \tfrac12 \rho^2 \| x^{(i)} \|^2 \Big) ,
# \qquad
# \mathbb{E}[x_1 \mid x_t] = \sum_{i=1}^n w_i\, x^{(i)} .
# $$
#
# This is the attention of a transformer (Vaswani et al. 2017) with one query $q$, and the training images as keys *and*
# as values. The temperature is $1/\rho = (1-t)/t$: infinite at $t = 0$, where all keys count alike, and zero at $t =
# 1$, where only the best match counts. Ramsauer et al. (2021) read attention in this way, as retrieval from a memory.


# %% slideshow={"slide_type": "fragment"}
def by_hand(x, t, points):
    """u*(x, t) and the weights w_i, (B, n), for x of shape (B, d), one time t and points of shape (n, d)."""
    rho, query = t / (1 - t), x / (1 - t)
    scores = rho * query @ points.T - 0.5 * rho**2 * points.square().sum(dim=1)
    weights = torch.softmax(scores, dim=1)
    return (weights @ points - x) / (1 - t), weights


def by_torch(x, t, points):
    """E[x1 | x_t = x] by PyTorch's attention function; the term with |x_i|^2 enters as a bias, one number per key."""
    rho, query = t / (1 - t), x / (1 - t)
    bias = (-0.5 * rho**2 * points.square().sum(dim=1)).expand(len(x), -1)
    return F.scaled_dot_product_attention(query[None], points[None], points[None], bias[None], scale=rho)[0]


# %% slideshow={"slide_type": "fragment"}
path = paths.rectified()
digits = data.digits()
images, held_out = digits.scaled(digits.train), digits.scaled(digits.held_out)  # (n, 1, 8, 8) in (-1, 1)
moons = data.toy.two_moons(2000, torch.Generator().manual_seed(0))
exact = {"moons": closed_form.EmpiricalVelocity(moons), "digits": closed_form.EmpiricalVelocity(images)}
generator, gap_by_hand, gap_attention = torch.Generator().manual_seed(1), 0.0, 0.0
for points, velocity in zip((moons, images), exact.values(), strict=True):
    flat = points.flatten(1).double()
    for time in (0.0, 0.3, 0.6, 0.9):
        xt = path.interpolate(torch.randn(points[:100].shape, generator=generator), points[:100], time)
        u, weights = by_hand(xt.flatten(1).double(), time, flat)
        torch.testing.assert_close(velocity.weights(xt, time).double(), weights, rtol=1e-3, atol=1e-4)
        gap_by_hand = max(gap_by_hand, float((velocity(xt, time).flatten(1) - u).abs().max()))
        mean = velocity.posterior_mean(xt, time).flatten(1)
        gap_attention = max(gap_attention, float((by_torch(xt.flatten(1).double(), time, flat) - mean).abs().max()))
assert max(gap_by_hand, gap_attention) < 2e-3, (gap_by_hand, gap_attention)
print(f"n = {len(images):,} digits in d = {images[0].numel()}, {len(moons):,} points of two moons in d = 2")
print(f"u* by hand and in fmcore: largest difference {gap_by_hand:.0e}")
print(f"attention of PyTorch and E[x1 | x_t] of fmcore: largest difference of a pixel {gap_attention:.0e}")

# %% [markdown] slideshow={"slide_type": "skip"}
# From here on we use `closed_form.EmpiricalVelocity`. It does the same for 50,000 images in memory that does not grow
# with their number (exercise 3), and stays accurate up to $t = 1 - 10^{-5}$.

# %% slideshow={"slide_type": "subslide"}
ten = torch.stack([images[digits.train_labels == label][0] for label in range(10)])  # a training set of ten
attention = closed_form.EmpiricalVelocity(ten)
noise = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(2))
maps = {time: attention.weights(path.interpolate(noise, ten, time), time) for time in (0.05, 0.15, 0.25, 0.5)}
on_true = {time: float(weights.diag().mean()) for time, weights in maps.items()}
print(
    "mean weight of the image that x_t was made from: " + "  ".join(f"{w:.2f} at t = {t}" for t, w in on_true.items())
)

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 4, height=2.9)
for ax, (time, weights) in zip(axes, maps.items(), strict=True):
    ax.imshow(weights, cmap=style.density_map(), vmin=0, vmax=1)
    ax.set_title(f"t = {time:.2f}, temperature {(1 - time) / time:.0f}", fontsize=11)
    ax.set(xticks=range(0, 10, 3), yticks=range(0, 10, 3), xlabel="key: a training image")
    ax.tick_params(length=0)
    ax.grid(False)
axes[0].set_ylabel("query: $x_t$ made from")
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# A training set of ten digits, one per class; dark is a large weight. As the temperature falls, attention narrows from
# all images to the one that $x_t$ was made from (the diagonal). The rest of the chapter is about this picture.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Check: one point, two points
#
# **One point.** The softmax over one entry is 1, and $u^*(x, t) = (x^{(1)} - x)/(1-t)$ is the conditional velocity.
#
# **Two points** $a$ and $-a$. The softmax over two entries is a logistic function $\operatorname{sigmoid}(z) = 1 / (1 +
# e^{-z})$ of the difference of the exponents, in which only the mixed term of the square survives:
#
# $$
# w_a = \operatorname{sigmoid}\! \Big( \frac{2 t \langle x, a \rangle}{(1-t)^2} \Big) ,
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

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 2, height=3.5)
for time, dash in ((0.2, ":"), (0.5, "-."), (0.7, "--"), (0.9, "-")):
    axes[0].plot(x, two.weights(x, time)[:, 0], dash, color=style.color_of(time), label=f"t = {time}")
axes[0].set(xlabel="x", title="weight of the point at 1.5", yticks=[0, 0.5, 1])
axes[0].legend()
starts, times = torch.linspace(-2.4, 2.4, 32)[:, None], torch.linspace(0, path.t_max, 201)
lines = solvers.solve(two, starts, t1=path.t_max, times=times).trajectory[..., 0]
axes[1].plot(times, lines, color=style.PATH, linewidth=1)
axes[1].set(xlabel="t", ylabel="x", yticks=[-1.5, 0, 1.5], title="trajectories of u*")
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# Left: the choice between the two points is soft early and hard late. Right: wherever a trajectory starts, it ends at
# one of the two points; those that start near $x = 0$ turn to one side late.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Nothing has a lower loss
#
# Chapter 03 split the loss of any velocity $v$ into the squared distance to $u^*$ and the irreducible loss:
#
# $$
# \mathbb{E} \| v - (x_1 - x_0) \|^2 = \mathbb{E} \| v - u^* \|^2 + \mathbb{E} \| u^* - (x_1 - x_0) \|^2 .
# $$
#
# So the excess of a loss over that of $u^*$ *is* the squared distance to $u^*$. We compare $u^*$ with three other
# velocities: $u^*$ of half of the images; the conditional velocity to the most likely image, $\arg\max_i w_i$, in place
# of the mean; and the conditional velocity to the mean image, whatever $x$.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Each x_t was made from one image. Which does the loss prefer: the posterior mean, a blur of several images, or the "
    "most likely image alone, which is often the right one?",
    ["the most likely image: it is right more often than any other guess", "the mean", "they have equal loss"],
    answer=1,
    because="A square punishes a bold mistake more than it rewards a bold hit. The mean is the best answer to a square, "
    "and a blur is what a good network must return at early times.",
)

# %% slideshow={"slide_type": "subslide"}
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

# %% [markdown] slideshow={"slide_type": "fragment"}
# Excess and squared distance agree. The loss of $u^*$ is not zero, but all of it is irreducible; nothing can go lower.
# In this sense $u^*$ is the perfect model. What does it generate?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Follow it: twelve points
#
# A training set of twelve points on two moons. Noise samples follow $\mathrm{d}x / \mathrm{d}t = u^*(x, t)$ to $t = 1$.
# As $t \to 1$ the velocity $(\mathbb{E}[x_1 \mid x_t = x] - x)/(1-t)$ pulls ever harder, and the posterior mean becomes
# a single point. So every trajectory ends *at* one of the twelve points. The **basin** of a training point is the set
# of all starting points whose trajectories end there.

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

# %% slideshow={"slide_type": "subslide"}
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

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
side, edges = 241, (-2.9, 2.9, -2.9, 2.9)
where = plotting.grid(2.9, side)
order = torch.argsort(torch.atan2(few[:, 1], few[:, 0]))
hue = torch.empty(12)
hue[order] = torch.arange(12) * 5 % 12 / 12  # neighbours get distant colours
pastel = ListedColormap([tuple(hsv_to_rgb((float(h), 0.35, 0.95))) for h in hue])


def draw_regions(ax, owner):
    """A map of the plane: who owns each place of `where`, with borders and the number of the owner."""
    picture = owner.reshape(side, side)
    ax.imshow(picture, origin="lower", extent=edges, cmap=pastel, vmin=0, vmax=11, interpolation="nearest")
    for k in range(12):
        ax.contour((picture == k).float(), [0.5], extent=edges, colors=GREY, linewidths=0.8)
        mine = where[owner == k]
        middle = mine.clamp(-2.4, 2.4).mean(dim=0)
        at = mine[torch.cdist(mine, middle[None]).argmin()]
        if (at - few[k]).norm() > 0.45:  # else the point itself shows whose region it is
            ax.text(*at, str(k + 1), fontsize=10, ha="center", va="center")


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 3)
ways = follow(noise[:110], times=torch.linspace(0, path.t_max, 121, dtype=torch.float64))
plotting.trajectories(ways, limit=2.9, title="110 trajectories", ax=axes[0])
maps = {"basins of the flow": torch.cdist(follow(where, steps=60).x, few), "nearest point": torch.cdist(where, few)}
for ax, (title, distances) in zip(axes[1:], maps.items(), strict=True):
    draw_regions(ax, distances.argmin(dim=1))
    style.blank(ax, 2.9).set_title(title)
for ax in axes:
    ax.scatter(*few.T, s=130, color=style.DATA, edgecolors="white", linewidths=1, zorder=4)
    for k, point in enumerate(few):
        ax.text(*point, str(k + 1), fontsize=8, color="white", ha="center", va="center_baseline", zorder=5)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# Middle: starting points in region $k$ end at training point $k$, which need not lie in its own basin. Each basin holds
# a twelfth of the *noise*, not of the plane. Right, for comparison: the cells of the nearest point, whose shares differ
# widely.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Follow it: digits
#
# The same in 64 dimensions, with all 1,500 training images and 297 noise samples, as many as there are held-out images.
# Three measures: the distance to the nearest training image; its **ratio** to the distance of the second nearest,
# which is near 1 for something new and 0 for a copy; and the **share of copies**, samples with a ratio below a third
# (`metrics.Nearest`).

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "297 noise samples, 1,500 training images. How many different training images will the samples be?",
    [
        "297: every noise sample finds its own",
        "about 270",
        "a few dozen: some images attract most of the noise",
    ],
    answer=1,
    because="Every image is hit with the same probability 1/1500, independently for each noise sample. Then 297 draws with "
    "replacement give 1500 (1 - (1 - 1/1500)^297) = 269.5 different images on average.",
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

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
rows = []
for these, near in ((sampled.x, found["samples of u*"]), (held_out, found["held-out digits"])):
    rows += [these[:12], images[near.row[:12, 0]]]
names = ["sample of $u^*$", "nearest in training", "held out", "nearest in training"]
plotting.images(torch.cat(rows), columns=12, rows=names)

# %% [markdown] slideshow={"slide_type": "fragment"}
# The first two rows are the same; the distance that is left comes from stopping just before $t = 1$. The lower two rows
# show what "similar but new" looks like.

# %% [markdown] slideshow={"slide_type": "subslide"}
# So the perfect model draws training images at random, with a solver in the place of an index. This is
# **memorization**: every sample is a copy of a training image. Whatever else a flow model does, it does by *not* being
# perfect.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## When does the velocity point at one image?
#
# At $t = 0$ it points at the mean of all images, at $t = 1$ at a single one. In between, take $x_t$ made from the pair
# $(x_0, x_1)$ and compare the exact velocity with the one of the pair: the **cosine** of the angle between $u^*(x_t,
# t)$ and $x_1 - x_0$. It is 1 when $u^*$ points straight at *this* training point. Below are 512 pairs each, at the
# times of figure 1 of Bertrand et al. (2025).

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


cosines = {}
for name, points in {"moons": moons, "digits": images}.items():
    x0, x1, _ = pairs_from(points, 512, seed=6)
    for time in MOMENTS:
        cosines[name, time] = cosine_to_conditional(exact[name], path, x0, x1, time)

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(2, 6, height=3.9, sharex=True)
for line, (name, color) in zip(axes, (("moons", ORANGE), ("digits", style.DATA)), strict=True):
    for ax, time in zip(line, MOMENTS, strict=True):
        ax.hist(cosines[name, time].numpy(), bins=30, range=(-1, 1), color=color)
        ax.set(xticks=[-1, 0, 1], yticks=[], title=f"mean {cosines[name, time].mean():.2f}")
        ax.spines["left"].set_visible(False)
        ax.grid(False)
    line[0].set_ylabel({"moons": "two moons", "digits": "digits"}[name])
for ax, time in zip(axes[0], MOMENTS, strict=True):
    ax.set_title(f"t = {time:.2f}\nmean {cosines['moons', time].mean():.2f}")
axes[1, 2].set_xlabel("cosine of $u^*(x_t, t)$ and $x_1 - x_0$", x=1.1)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# In the plane the target of training stays random until the very end. For the digits the histogram is a single bar from
# $t = 0.79$ on: there the regression target *is* the exact velocity, and no randomness is left to average over.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### A high cosine is not yet a collapse
#
# But why do the digits start at 0.92, where $x_t$ is pure noise and says nothing about $x_1$? Because at $t = 0$ both
# velocities know $x_0$. With the mean image $m$, $u^*(x_0, 0) = m - x_0$, to be compared with $x_1 - x_0$. Let $\mu^2 =
# \|m\|^2 / d$ be the mean square of a pixel of $m$ and $s^2$ the mean variance of a pixel. In many dimensions lengths
# and angles hardly vary (chapter 09), and
#
# $$
# \cos \;\approx\; \frac{\langle m - x_0,\, x_1 - x_0 \rangle}{\|m - x_0\|\, \|x_1 - x_0\|}
# \;\approx\; \sqrt{\frac{1 + \mu^2}{1 + \mu^2 + s^2}} .
# $$
#
# This number measures the **contrast** $s$ of the images; it is near 1 when they are faint beside the noise.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The collapse
#
# A cleaner question than the cosine is: what is the **posterior weight of the true point**, the weight $w_i$ of the
# training point $x^{(i)}$ that $x_t$ was really made from? When it rises from near 0 to near 1 we speak of the
# **collapse**, a word of Biroli et al. (2024): from then on $u^*$ points at that one training point. The **collapse
# time** $t_c$ is the time at which the median of this weight over many pairs $(x_0, x_1)$ is one half.

# %% slideshow={"slide_type": "subslide"}
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
print(f"lowest cosine {cosine_dip:.3f}, at t = {times[lowest_at]:.2f}; median weight of the true point {own_there:.3f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, ax = plotting.canvas(width=7.2, height=3.6)
ax.plot(times, cosine_at, "--", color=style.PATH, label="mean cosine")
ax.plot(times, own_at, color=style.EXACT, label="median posterior weight of the true point")
ax.axhline(0.5, color=GREY, linewidth=0.8)
ax.set(xlabel="t", title="digits, n = 1,500", ylim=(0, 1.03))
ax.legend(loc="center left", bbox_to_anchor=(0, 0.3))
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# The cosine first *falls* and then rises: while $x_t$ says little, both velocities are mostly $-x_0$, and the cosine
# counts that as agreement. The weight of the true point is not fooled; it crosses one half at $t_c$.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Theory: two points
#
# Take two points at distance $D$, and $x_t$ made from the first. In units of the noise, $q = x_0 + \rho\, x^{(1)}$, so
#
# $$
# \log \frac{w_1}{w_2} = \tfrac12 \| q - \rho\, x^{(2)} \|^2 - \tfrac12 \| q - \rho\, x^{(1)} \|^2
# = \tfrac12 \rho^2 D^2 + \rho\, \langle x_0,\, x^{(1)} - x^{(2)} \rangle .
# $$
#
# This is a Gaussian number with mean $\rho^2 D^2 / 2$ and standard deviation $\rho D$. It depends only on $\rho D$, the
# distance of the two *signals* in units of the noise. The wrong point has the larger weight with probability
# $\Phi(-\rho D / 2)$, where $\Phi$ is the distribution function of the standard normal distribution.

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
# A single competitor is soon beaten. But there are $n - 1$ of them, and the true point must beat the *sum* of their
# weights. A first guess: each of them lies behind by the mean gap $\rho^2 D^2 / 2$, so the true point wins when
# $\rho^2 D^2 / 2$ exceeds $\log n$.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Counting properly
#
# The guess ignores that the noise favours some competitors. Take points from a Gaussian $\mathcal{N}(0, s^2 I)$ in $d$
# dimensions. The exponent of the true point is $-\frac12 \|x_0\|^2 \approx -\frac d2$. The other points are independent
# of $q$, so their sum is about $n$ times the mean over a fresh point $x$, a Gaussian integral:
#
# $$
# \sum_{j \ne i} e^{-\frac12 \| q - \rho x^{(j)} \|^2} \approx n\, \mathbb{E}_x\, e^{-\frac12 \| q - \rho x \|^2}
# = n\, (1 + \rho^2 s^2)^{-d/2}\, e^{-\frac{\|q\|^2}{2 (1 + \rho^2 s^2)}}
# \approx n\, (1 + \rho^2 s^2)^{-d/2}\, e^{-\frac d2} ,
# $$
#
# because $q = x_0 + \rho\, x^{(i)}$ has mean square $d\, (1 + \rho^2 s^2)$.

# %% [markdown] slideshow={"slide_type": "subslide"}
# The true point and all others together weigh the same when
#
# $$
# \log n = \tfrac d2 \log (1 + \rho_c^2 s^2) ,
# \qquad\text{so}\qquad
# \rho_c = \frac1s \sqrt{n^{2/d} - 1} , \quad t_c = \frac{\rho_c}{1 + \rho_c} .
# $$
#
# The right side of the first equation is the **evidence** in $x_t$: the information, in nats, that it carries about
# $x_1$. The collapse comes when the evidence reaches $\log n$, which is what it takes to pick one of $n$ points. Biroli
# et al. (2024) found the same time for diffusion models.

# %% [markdown] slideshow={"slide_type": "notes"}
# $\frac d2 \log(1 + \rho^2 s^2)$ is also the capacity of a channel with Gaussian noise (Shannon 1948): the training set
# is a code book, and $x_t$ a code word received through noise. For large $d$ the condition becomes $\rho^2 s^2 d / 2 =
# \log n$, while the first guess, with $D^2 = 2 s^2 d$, says $\rho^2 s^2 d = \log n$: too early, by a factor $\sqrt2$ in
# $\rho$.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "1,000 Gaussian points with s = 1. In 2 dimensions the formula gives a collapse at t = 0.97. And in 4,096 dimensions?",
    ["at t = 0.97: it depends on n only", "at about t = 0.5", "at about t = 0.05"],
    answer=2,
    because="n^(2/d) - 1 goes to zero like 2 log(n) / d. Every dimension adds a little evidence about which point it was, and "
    "4,096 little pieces are decisive even when each is drowned in noise.",
)


# %% slideshow={"slide_type": "subslide"}
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
    """The posterior weight of the true point, w_i, (B,): one over the sum of all w_j / w_i."""
    return torch.exp(-torch.logsumexp(log_ratios(gaps, squares, t), dim=1))


# %% slideshow={"slide_type": "fragment"}
def collapse_time(points, count=1000, seed=9):
    """The time at which the median posterior weight of the true point is one half, by bisection."""
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

# %% slideshow={"slide_type": "subslide"}
DIMENSIONS, n = (2, 4, 8, 16, 32, 64, 256, 1024, 4096), 1000


def independent(n, d, s=1.0):
    """t_c of n Gaussian points with d independent coordinates of standard deviation s."""
    rho = math.sqrt(n ** (2 / d) - 1) / s
    return rho / (1 + rho)


t_measured, t_theory, t_guess = {}, {}, {}
for d in DIMENSIONS:
    t_measured[d] = collapse_time(torch.randn(n, d, generator=torch.Generator().manual_seed(d)))
    rho_guess = math.sqrt(math.log(n) / d)
    t_theory[d], t_guess[d] = independent(n, d), rho_guess / (1 + rho_guess)
theory_gap = max(abs(t_measured[d] - t_theory[d]) for d in DIMENSIONS)
guess_gap = max(abs(t_measured[d] - t_guess[d]) for d in DIMENSIONS)
too_early = sum(t_measured[d] < t_theory[d] for d in DIMENSIONS)
print(f"largest error: of the theory {theory_gap:.3f}, of the first guess {guess_gap:.3f}")
print(f"measured earlier than predicted by the theory at {too_early} of {len(DIMENSIONS)} dimensions")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
line = torch.logspace(math.log10(1.6), math.log10(5000), 200, dtype=torch.float64)
figure, ax = plotting.canvas(width=7.2, height=3.8)
root = (n ** (2 / line) - 1).sqrt()
guess = (math.log(n) / line).sqrt()
ax.plot(line, root / (1 + root), color=style.EXACT, label=r"theory: $\log n = \frac{d}{2} \log(1 + \rho^2 s^2)$")
ax.plot(line, guess / (1 + guess), "--", color=GREY, label="first guess: mean gap alone")
ax.plot(DIMENSIONS, list(t_measured.values()), "o", color=style.DATA, label="measured")
ax.set(xscale="log", xlabel="dimension d", ylabel="collapse time $t_c$", ylim=(0, 1))
ax.set_xticks([2, 8, 32, 128, 512, 2048], ["2", "8", "32", "128", "512", "2048"])
ax.minorticks_off()
ax.set_title(f"n = {n:,} Gaussian points, nothing fitted")
ax.legend()
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# The theory has no free parameter and is right to within 0.02 at all dimensions; the first guess is not. **Dimension is
# what makes the target deterministic**: at $d = 4096$ nearly the whole of a trajectory leads straight to one training
# point.

# %% [markdown] slideshow={"slide_type": "notes"}
# The measured times are a little early: the mean over a fresh point includes excellent matches that $n$ draws
# seldom contain.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Digits of 2x2, 4x4 and 8x8 pixels
#
# Now real images: the digits, averaged down to 4x4 and 2x2. Averaging also makes them fainter, and the theory says that
# contrast matters. So at each size we subtract the mean image and stretch to $s = 1$.
#
# The pixels of an image are not independent. If the data were Gaussian with the covariance of the images, with
# eigenvalues $\lambda_1, \dots, \lambda_d$, each eigenvector would contribute its own evidence:
#
# $$
# \log n = \tfrac12 \sum_{k=1}^d \log (1 + \rho_c^2 \lambda_k) .
# $$

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "64 independent pixels with s = 1 collapse at t = 0.34 for n = 1,500. And 8x8 digits, stretched to s = 1 as well?",
    ["earlier", "at the same time: d, n and s are the same", "later"],
    answer=2,
    because="Neighbouring pixels repeat each other: they bring less evidence than independent ones. What counts is not the "
    "number of pixels but how many directions carry variance.",
)


# %% slideshow={"slide_type": "subslide"}
def resized(size):
    """The training digits at size x size pixels, centred, with mean variance 1."""
    small = F.adaptive_avg_pool2d(images, size).flatten(1).double()
    small = small - small.mean(dim=0)
    return small / small.square().mean().sqrt()


def evidence_at(t, points):
    """Nats that x_t carries about x_1, for times t and Gaussian points with the covariance of the given ones."""
    eigenvalues = torch.linalg.eigvalsh(torch.cov(points.flatten(1).double().T)).clamp(min=0)
    return 0.5 * torch.log1p((t / (1 - t)).square()[:, None] * eigenvalues).sum(dim=1)


def predicted_collapse(points, n):
    """t_c of n Gaussian points with the covariance of the given ones."""
    t = torch.linspace(0.001, 0.999, 9981, dtype=torch.float64)
    return float(t[(evidence_at(t, points) >= math.log(n)).nonzero()[0]])


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

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 2, height=3.6)
looks = {2: (ORANGE, "--"), 4: (style.PATH, "-."), 8: (style.DATA, "-")}
for ax, part in zip(axes, (0, 1), strict=True):
    for size, curves in by_size.items():
        color, dash = looks[size]
        label = f"{size}x{size}" if part == 0 else f"{size}x{size}: $t_c$ = {t_size[size][0]:.2f}"
        ax.plot(times, curves[part], dash, color=color, label=label)
    ax.set(xlabel="t", ylim=(0, 1.03))
axes[0].set_title("mean cosine")
axes[1].set_title("median weight of the true point")
for size, (_, predicted) in t_size.items():
    axes[1].axvline(predicted, color=looks[size][0], linestyle=":", linewidth=1.6)
axes[1].plot([], [], ":", color=style.EXACT, label="predicted $t_c$")
axes[0].legend(loc="lower right")
axes[1].legend(loc="upper left", fontsize=9)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# The larger the image, the earlier the collapse, by both measures. The prediction from the covariance alone is close.
# At 4x4 and 8x8 pixels it is early: digits are not Gaussian, and their pixels depend on each other in more ways than a
# covariance can express.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Would more images help?
#
# More images crowd the space and delay the collapse. From 15 to 1,500 digits, at their own contrast:

# %% slideshow={"slide_type": "fragment"}
COUNTS = (15, 50, 150, 500, 1500)
t_count = {count: (collapse_time(images[:count]), predicted_collapse(images, count)) for count in COUNTS}
print("collapse time: " + "   ".join(f"n = {count}: {measured:.2f}" for count, (measured, _) in t_count.items()))

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "A hundred times as many digits moved the collapse from 0.35 to 0.57. To delay it to t = 0.9 it takes",
    ["about 10,000 digits", "about a million", "over ten million"],
    answer=2,
    because="A hundred million by the lower of the two estimates below. n counts through its logarithm, and every independent "
    "direction of the data with full weight: the curse of dimension, seen from the other side.",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# What happens beyond 1,500 digits can only be estimated. Two estimates: the formula with the covariance of the digits,
# as if they were Gaussian; and the trend of the last three measured points, continued as a power law, $n \propto
# \rho_c^{\,p}$.

# %% slideshow={"slide_type": "fragment"}
last = COUNTS[-3:]
strength = [t_count[count][0] / (1 - t_count[count][0]) for count in last]
power = plotting.slope(strength, last)
grid = torch.linspace(0.3, 0.92, 200, dtype=torch.float64)
by_covariance = evidence_at(grid, images) / math.log(10)  # powers of ten
by_trend = math.log10(1500) + power * ((grid / (1 - grid)).log10() - math.log10(strength[-1]))
at_09 = int((grid - 0.9).abs().argmin())
needed = {"covariance": float(by_covariance[at_09]), "trend": float(by_trend[at_09])}
print(f"trend: n grows like rho to the power {power:.1f}")
print("digits needed for a collapse at t = 0.9: " + ", ".join(f"10^{v:.0f} by {k}" for k, v in needed.items()))

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, ax = plotting.canvas(width=7.2, height=3.6)
ax.plot(10**by_covariance, grid, color=style.EXACT, label="from the covariance")
late = grid > 0.5
ax.plot(10 ** by_trend[late], grid[late], "--", color=style.PATH, label="trend of the last three points")
ax.plot(COUNTS, [measured for measured, _ in t_count.values()], "o", color=style.DATA, label="measured")
ax.set(xscale="log", xlabel="number of digits n", ylabel="collapse time $t_c$", xlim=(5, 1e30), ylim=(0.2, 1))
ax.legend(loc="lower right")
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# The two estimates lie many powers of ten apart, so the number itself is unknown. But by either of them, it takes
# more than ten million digits to delay the collapse to $t = 0.9$.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## How many images take part?
#
# A softmax over $n$ images rarely uses all of them. Its **effective number of images** is $n_{\mathrm{eff}} = \exp
# \big( -\sum_i w_i \log w_i \big)$: it is $n$ if all weights are equal, 1 if one weight is 1, and $k$ if $k$ images
# share equally. At $t = 0$ it is $n$; after the collapse it is 1. In between, its logarithm is what remains unknown
# about $i$: $\log n$ minus the evidence in $x_t$. Before the collapse the theory says
#
# $$
# \log n_{\mathrm{eff}} \approx \log n - \tfrac12 \sum_k \log (1 + \rho^2 \lambda_k) .
# $$

# %% slideshow={"slide_type": "fragment"}
cloud = torch.randn(1500, 64, generator=torch.Generator().manual_seed(11), dtype=torch.float64) * s2**0.5
n_eff, n_theory = {}, {}
for title, points in {"Gaussian points, d = 64": cloud, "digits": images}.items():
    found_points = gaps_and_squares(points, 256, seed=11)
    weights = [torch.softmax(log_ratios(*found_points, t), dim=1) for t in times.double()]
    n_eff[title] = torch.stack([torch.special.entr(w).sum(dim=1).mean().exp() for w in weights])
    n_theory[title] = (math.log(1500) - evidence_at(times.double(), points)).exp().clamp(min=1)
for time in (0.1, 0.3, 0.5, 0.6, 0.8):
    k = int((times - time).abs().argmin())
    print(f"digits, t = {time}: {n_eff['digits'][k]:6.1f} of 1,500 images take part")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 2, height=3.5, sharey=True)
for ax, title in zip(axes, n_eff, strict=True):
    ax.plot(times, n_eff[title], color=style.PATH, label="measured")
    ax.plot(times, n_theory[title], "--", color=style.EXACT, label="theory")
    ax.set(yscale="log", xlabel="t", title=title, ylim=(0.9, 2000))
    ax.set_yticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
axes[0].set_ylabel("effective number of images")
axes[0].legend()
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# The number falls smoothly from all images to one. The theory holds until few images are left; for the digits, which
# are not Gaussian, it is early.


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
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

# %% [markdown] slideshow={"slide_type": "fragment"}
# The numbers above the six training images are their weights; "mean" is $\mathbb{E}[x_1 \mid x_t]$, where $u^*$ points.
# Try: raise $t$ until the mean is no longer a blur. Then tick *an unseen digit*: now $x_1$ is a held-out image, and
# $u^*$ becomes just as sure, of a training image that is not the right one.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Photographs
#
# The claim of Bertrand et al. (2025) is about the images that people train on: *the larger the dimension, the earlier
# the collapse*. The photographs are not part of this course, but anyone who has them can measure. Each record below is
# made by one command, and holds cosines of pairs with the exact velocity of **all** images.
#
#     fmcore measure bertrand2025/two_moons/collapse
#     fmcore measure bertrand2025/digits/collapse
#     fmcore measure bertrand2025/cifar10/collapse        # 50,000 images, d = 3,072
#     fmcore measure bertrand2025/imagenet128/collapse    # photographs at five sizes
#
# The records have cosines and no weights, so two times stand for the collapse: the first from which on **nine of ten
# pairs** have a cosine above 0.9, and the first with a **mean cosine** of 0.99. Images are made smaller by leaving out
# rows and columns, which keeps the contrast of a pixel.

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
for name, record in records.items():
    entries = record["values"]["time_of_collapse"].values()
    for curve, entry in zip(record["curves"], entries, strict=True):
        key = name, curve["dimension"]
        t_first[key] = math.inf if entry["value"] is None else entry["value"]
        reached = [t for t, cosine in zip(curve["times"], curve["mean_cosine"], strict=True) if cosine >= 0.99]
        t_sure[key] = min(reached, default=math.inf)
largest = {name: max(record["curves"], key=lambda one: one["dimension"]) for name, record in records.items()}
sizes = records["imagenet128"]["curves"]
for name, curve in largest.items():
    said = f"mean cosine at t = 0: {curve['mean_cosine'][0]:.2f}, at t = 0.99: {curve['mean_cosine'][-1]:.2f}"
    print(f"{NAMES[name]:10} n = {curve['images']:6,}, d = {curve['dimension']:6,}   {said}")
shares = ", ".join(f"{curve['share_above'][0]:.2f}" for curve in sizes)
print(f"ImageNet, five sizes: share of pairs with a cosine above 0.9 at t = 0: {shares}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(2, 6, height=3.9, sharex=True)
for line, (name, color) in zip(axes, (("two_moons", ORANGE), ("cifar10", style.DATA)), strict=True):
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

# %% [markdown] slideshow={"slide_type": "fragment"}
# Figure 1 of Bertrand et al. (2025) again, here with all images: on CIFAR-10 the velocity has found its image long
# before half of the time is over; on two moons, with as many points, it has not even at $t = 0.99$.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 2, height=4.2, sharey=True)
looks = {"two_moons": (ORANGE, ":"), "digits": (style.PATH, "-."), "cifar10": (style.DATA, "-")}
looks["imagenet128"] = style.EXACT, "--"
for name, curve in largest.items():
    label = f"{NAMES[name]}, d = {curve['dimension']:,}"
    axes[0].plot(curve["times"], curve["mean_cosine"], looks[name][1], color=looks[name][0], label=label)
for k, curve in enumerate(sizes):
    shade = style.density_map()(0.58 + 0.4 * k / max(1, len(sizes) - 1))
    label, marker = f"{curve['size']}x{curve['size']}", style.MARKERS[k]
    axes[1].plot(curve["times"], curve["share_above"], color=shade, label=label, marker=marker, markevery=6)
axes[0].set(xlabel="t", title="mean cosine", ylim=(0, 1.03))
axes[1].set(xlabel="t", title="ImageNet: share of pairs above 0.9", xlim=(-0.02, 1))
for ax in axes:
    ax.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# The larger the photographs, the earlier the collapse. But the curves also start high: at $t = 0$ the mean cosine is
# about 0.9 for every set of images, and more than a third of the ImageNet pairs begin above 0.9 at every size. A share
# above 0.9 mixes contrast and collapse.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Photographs against independent pixels
#
# How much of this is the dimension alone? The theory answers for pixels that are independent, given $n$, $d$ and $s$.
# The contrast $s$ can be read off the record: with a nearly grey mean image ($\mu \approx 0$) the cosine at $t = 0$
# is $1 / \sqrt{1 + s^2}$.

# %% slideshow={"slide_type": "fragment"}
contrast, t_independent = {}, {}
for name in ("cifar10", "imagenet128"):
    contrast[name] = math.sqrt(1 / largest[name]["mean_cosine"][0] ** 2 - 1)
    for d in sorted(d for which, d in t_first if which == name):
        t_independent[name, d] = independent(largest[name]["images"], d, contrast[name])
    print(f"{NAMES[name]:8} contrast s = {contrast[name]:.2f}")
first_over = [t_first[key] / time for key, time in t_independent.items()]
sure_over = [t_sure[key] / time for key, time in t_independent.items()]
print(f"measured over predicted time, nine of ten: {min(first_over):.1f} to {max(first_over):.1f}")
print(f"                              mean cosine: {min(sure_over):.1f} to {max(sure_over):.1f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, ax = plotting.canvas(width=7.2, height=3.8)
line = torch.logspace(1.8, 4.9, 200, dtype=torch.float64).tolist()
for name, color, aside, dash in (("cifar10", style.DATA, 1.07, "-"), ("imagenet128", ORANGE, 0.93, "--")):
    count = largest[name]["images"]
    curve = [independent(count, d, contrast[name]) for d in line]
    ax.plot(line, curve, dash, color=color, linewidth=1.6, label=f"independent pixels, n = {count:,}")
    for d in sorted(d for which, d in t_first if which == name):
        span = sorted((t_first[name, d], t_sure[name, d]))
        ax.plot([aside * d] * 2, span, "-", color=color, linewidth=6, solid_capstyle="butt")
    ax.plot([], [], color=color, linewidth=6, solid_capstyle="butt", label=f"{NAMES[name]}, between the two times")
ax.set(xscale="log", xlabel="dimension d", ylabel="collapse time", ylim=(0, 1))
ax.legend()
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# Nothing is fitted, and the theory has the fall with the dimension. The measured times are somewhat later, for two
# reasons: the two cosine criteria are stricter than $t_c$ (see the next table), and neighbouring pixels repeat each
# other and bring less evidence.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## All collapse times in one table
#
# The chapter has measured a collapse in several ways. Here they stand side by side:
#
# - **$t_c$ measured**: the median posterior weight of the true point is one half;
# - **$t_c$ predicted**: the evidence is $\log n$, with the covariance of the data, or (i) for independent coordinates;
# - from the records: nine of ten pairs with a cosine **above 0.9**, and a **mean** cosine of **0.99**.

# %% slideshow={"slide_type": "subslide"}
inf = math.inf  # never, or not measured: a dash
lines = [("two moons", 2000, 2, "", collapse_time(moons), predicted_collapse(moons, 2000), inf, inf)]
lines += [("Gaussian points", n, d, "1.00", t_measured[d], t_theory[d], inf, inf) for d in (2, 64, 4096)]
lines += [("digits, s = 1", 1500, size**2, "1.00", *t_size[size], inf, inf) for size in (2, 4, 8)]
lines += [("independent", 1500, 64, "1.00", inf, independent(1500, 64), inf, inf)]
for count, times_of_digits in t_count.items():
    cosines_64 = (t_first["digits", 64], t_sure["digits", 64]) if count == 1500 else (inf, inf)
    lines += [("digits", count, 64, f"{math.sqrt(s2):.2f}", *times_of_digits, *cosines_64)]
for key in t_first:
    if key != ("digits", 64):
        name, d = key
        s = f"{contrast[name]:.2f}" if name in contrast else ""
        predicted = t_independent.get(key, inf)
        lines += [(NAMES[name], largest[name]["images"], d, s, inf, predicted, t_first[key], t_sure[key])]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
ORDER = ("Gaussian points", "independent", "two moons", "digits, s = 1", "digits", "CIFAR-10", "ImageNet")
print(f"{'':16}      n       d     s   t_c measured  predicted   above 0.9   mean 0.99")
for name, count, d, s, *found_times in sorted(lines, key=lambda line: (ORDER.index(line[0]), *line[1:3])):
    cells = ["-" if math.isinf(time) else f"{time:.2f}" for time in found_times]
    cells[1] += " (i)" if name in ("CIFAR-10", "ImageNet", "independent", "Gaussian points") else "    "
    print(f"{name:16} {count:6,}  {d:6,}  {s:4}   {cells[0]:>12} {cells[1]:>13} {cells[2]:>7} {cells[3]:>11}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Within each data set, more dimensions mean an earlier collapse and more images a later one. The cosine criteria come
# after $t_c$: the 1,500 digits of 8x8 pixels have all three.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What it means
#
# - The minimizer of the loss over a training set only repeats the training set.
# - In the dimensions of images it is settled early *which* image it repeats. After the collapse the conditional
#   velocity, the target of training, *is* the exact velocity. Only before it are the targets noisy, in a way that
#   averaging over many images would smooth out.
# - So a network that makes new images has not learned $u^*$. At which times does it differ?
#
# We train one, a small multilayer perceptron on the same 1,500 digits, and evaluate the loss at fixed times: of the
# network and of $u^*$, on training images and on held-out ones.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "On training images nothing beats u*. What about held-out images, at t = 0.8?",
    [
        "u* is better there, too: it is exact",
        "about equal",
        "the network wins: u* is sure of the wrong image",
    ],
    answer=2,
    because="u* is the most overfitted model there is. It points at a training image with full conviction, and the error is "
    "divided by 1 - t. The network never became sure.",
)


# %% slideshow={"slide_type": "subslide"}
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

# %% slideshow={"slide_type": "fragment"}
made = solvers.solve(learned, noise, t1=path.t_max, rtol=1e-3, atol=1e-3)
found["network"] = nearest_training_images(made.x, images)
at = {time: int((grid - time).abs().argmin()) for time in (0.2, 0.35, 0.8)}
for time, k in at.items():
    said = "   ".join(f"{name}, {split}: {float(loss[k]):.2f}" for (name, split), loss in by_time.items())
    print(f"t = {time:.2f}   {said}")
near = found["network"]
print(f"samples of the network: ratio {near.ratio.mean():.2f}, copies {near.share_of_copies():.0%}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, ax = plotting.canvas(width=7.2, height=3.9)
for (name, split), loss in by_time.items():
    color, dash = {"u*": style.EXACT, "network": style.MODEL}[name], "-" if split == "training" else "--"
    ax.plot(grid, loss, dash, color=color, label=f"{name}, {split} images")
ax.set(xlabel="t", ylabel="loss", ylim=(0, 1.5), title="The exact velocity against a network")
ax.legend()
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# Until about $t = 0.35$ it hardly matters whether images were trained on: even $u^*$ averages over many of them. Later
# the loss of $u^*$ falls to zero on its training images and explodes on held-out ones. The network does neither. **It
# makes new images because it fails to learn $u^*$ where $u^*$ copies.** When it fails, and why, is the subject of
# chapter 08.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you saw

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
pythagoras_gap = max(abs(excess / distance - 1) for excess, distance in pythagoras.values())
two_point_gap = max(abs(counted - predicted) for counted, predicted in wrong.values())
size_gap = max(abs(counted - predicted) for counted, predicted in t_size.values())
in_order = [t_sure["imagenet128", curve["dimension"]] for curve in sizes]
earlier = sum(after < before for before, after in itertools.pairwise(in_order))
copies = {name: near.share_of_copies() for name, near in found.items()}
middle = int((times - 0.3).abs().argmin())
held = {name: by_time[name, "held-out"] for name in ("u*", "network")}
trained = {name: by_time[name, "training"] for name in ("u*", "network")}
split_early = float(abs(held["u*"][at[0.35]] / trained["u*"][at[0.35]] - 1))
by_likely = lowest / (lowest + pythagoras["most likely image"][0])

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
most = [
    Claim("attention of PyTorch and E[x1 | x_t]: largest difference", gap_attention, below(1e-3)),
    Claim("excess loss over squared distance to u*, minus 1: largest", pythagoras_gap, below(0.06)),
    Claim("digits: share of copies among the samples of u*", copies["samples of u*"], exactly(1), digits=0),
    Claim("the same among the samples of a network", copies["network"], exactly(0), digits=0),
    Claim("digits: collapse time, n = 1,500", t_count[1500][0], about(0.574, 0.005), digits=2),
    Claim("Gaussian points, d = 4096: collapse time", t_measured[4096], about(0.052, 0.002), digits=2),
    Claim("Gaussian points: largest error of the theory, d = 2 to 4096", theory_gap, below(0.025), digits=2),
    Claim("record, CIFAR-10, n = 50,000: mean cosine 0.99 from t", t_sure["cifar10", 3072], below(0.3), digits=2),
    Claim("t = 0.8, training images: loss of u*", trained["u*"][at[0.8]], below(0.02)),
    Claim(
        "t = 0.8, held-out: loss of u* over that of the network",
        held["u*"][at[0.8]] / held["network"][at[0.8]],
        above(2),
    ),
]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
more = [
    Claim("u* by hand and in fmcore: largest difference", gap_by_hand, below(2e-3)),
    Claim("ten digits, t = 0.05: mean weight of the true image", on_true[0.05], below(0.2), digits=2),
    Claim("the same at t = 0.5", on_true[0.5], above(0.95), digits=2),
    Claim("one point: difference to the conditional velocity", gap_one, below(1e-3)),
    Claim("two points: difference to the hyperbolic tangent", gap_two, below(1e-3)),
    Claim("loss of u* over that of the most likely image", by_likely, below(0.9)),
    Claim("twelve points: largest distance of an end to one of them", float(to_point.max()), below(0.01)),
    Claim("smallest share of the noise, times 12, by the flow", share_flow.min(), between(0.9, 1)),
    Claim("the same by nearest point", share_nearest.min(), below(0.4)),
    Claim("largest share of the noise, times 12, by nearest point", share_nearest.max(), above(2)),
    Claim("digits: share of copies among held-out digits", copies["held-out digits"], exactly(0), digits=0),
    Claim("different training images among 297 samples (expected 269.5)", different, between(255, 284)),
    Claim("two moons, t = 0.99: mean cosine", cosines["moons", 0.99].mean(), below(0.9)),
    Claim("two moons, t = 0.60: mean cosine", cosines["moons", 0.60].mean(), below(0.6)),
    Claim("digits, t = 0.79: mean cosine", cosines["digits", 0.79].mean(), above(0.98)),
    Claim("digits: cosine at the start, measured minus predicted", abs(start_measured - start_predicted), below(0.01)),
    Claim("digits: fall of the mean cosine before it rises", start_measured - cosine_dip, above(0.03)),
    Claim("two points: share of wrong decisions, largest error of the prediction", two_point_gap, below(0.02)),
    Claim("Gaussian points, d = 2: collapse time", t_measured[2], between(0.95, 0.98), digits=3),
    Claim("dimensions (of 9) at which the theory is late", too_early, exactly(9), digits=0),
    Claim("largest error of the first guess", guess_gap, above(0.2), digits=1),
]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
more += [
    Claim("digits, 2x2 over 8x8 pixels: collapse time", t_size[2][0] / t_size[8][0], above(1.5)),
    Claim(
        "digits, 8x8 pixels, over independent pixels: collapse time", t_size[8][0] / independent(1500, 64), above(1.1)
    ),
    Claim("digits of three sizes: largest error of the prediction from the covariance", size_gap, below(0.08)),
    Claim(
        "4x4 and 8x8 pixels: least measured minus predicted time",
        min(a - b for a, b in (t_size[4], t_size[8])),
        above(0),
    ),
    Claim("digits: collapse time with n = 1,500 over n = 15", t_count[1500][0] / t_count[15][0], between(1.4, 2)),
    Claim("digits needed for a collapse at t = 0.9, the lower guess: power of ten", min(needed.values()), above(7)),
    Claim("the higher guess over the lower: power of ten", max(needed.values()) - min(needed.values()), above(5)),
    Claim("digits, t = 0.3: effective number of images", n_eff["digits"][middle], between(300, 420)),
]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
more += [
    Claim(
        "record, two moons, n = 50,000: mean cosine at t = 0.99", largest["two_moons"]["mean_cosine"][-1], below(0.8), 2
    ),
    Claim(
        "record, CIFAR-10, n = 50,000: mean cosine at t = 0", largest["cifar10"]["mean_cosine"][0], about(0.9, 0.02), 1
    ),
    Claim(
        "record, CIFAR-10: nine of ten pairs above 0.9 from t", t_first["cifar10", 3072], about(0.15, 0.03), digits=2
    ),
    Claim(
        "record, ImageNet: sizes that collapse before the next smaller one", earlier, exactly(len(sizes) - 1), digits=0
    ),
    Claim("photographs: nine of ten over independent pixels, least", min(first_over), above(1), digits=2),
    Claim("photographs: mean cosine 0.99 over independent pixels, largest", max(sure_over), below(2.5), digits=1),
    Claim("t = 0.35: loss of u*, held-out over training images, minus 1", split_early, below(0.1)),
    Claim(
        "the network, t = 0.8: held-out over training",
        held["network"][at[0.8]] / trained["network"][at[0.8]],
        between(0.95, 1.25),
    ),
]

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
claims.table(most + more)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## To remember
#
# - The exact velocity of a training set is attention over it: query $x_t / (1-t)$, temperature $(1-t)/t$.
# - It is the minimum of the loss, and it is a lookup: every sample is a training image, each with probability $1/n$.
# - The collapse comes when the evidence in $x_t$ reaches $\log n$, with evidence $\frac12 \sum_k \log(1 + \rho^2
#   \lambda_k)$. Dimension enters with full weight, the number of images through a logarithm.
# - A high cosine at early times is shared noise. Look at the posterior weight of the true point.
# - A model that makes new images has not reached the minimum of its loss.

# %% [markdown] slideshow={"slide_type": "skip"}
# ## References
#
# - Q. Bertrand, A. Gagneux, M. Massias, R. Emonet, 2025. *On the closed-form of flow matching: generalization does not
#   arise from target stochasticity.* arXiv:2506.03719.
# - G. Biroli, T. Bonnaire, V. de Bortoli, M. Mézard, 2024. *Dynamical regimes of diffusion models.* Nature
#   Communications 15, arXiv:2402.18491.
# - M. Kamb, S. Ganguli, 2024. *An analytic theory of creativity in convolutional diffusion models.* arXiv:2412.20292.
# - Y. Lipman, R. T. Q. Chen, H. Ben-Hamu, M. Nickel, M. Le, 2023. *Flow matching for generative modeling.* ICLR,
#   arXiv:2210.02747.
# - H. Ramsauer, B. Schäfl, J. Lehner, P. Seidl, M. Widrich and others, 2021. *Hopfield networks is all you need.* ICLR,
#   arXiv:2008.02217.
# - C. E. Shannon, 1948. *A mathematical theory of communication.* Bell System Technical Journal 27.
# - A. Vaswani, N. Shazeer, N. Parmar, J. Uszkoreit, L. Jones, A. N. Gomez, Ł. Kaiser, I. Polosukhin, 2017. *Attention
#   is all you need.* NeurIPS, arXiv:1706.03762.
#
# **Where to read on.** Biroli et al. 2024 for the physics of the collapse, and of what happens before it. Kamb and
# Ganguli 2024 for what convolutional networks do in place of $u^*$.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# In [exercises/07_closed_form.ipynb](exercises/07_closed_form.ipynb); each has a check that says what is wrong.
#
# 1. **Two points on any path.** A logistic function with one more term.
# 2. **Basins on a line.** Derive where the basin of one data point ends and the next begins, for any probabilities.
# 3. **A running softmax.** The velocity of a data set that does not fit into memory.
# 4. **An effective number that is wrong.** Three faults, and four queries whose answer is known.
# 5. **The evidence of coordinates with different variances.** A proof in three steps, each checked numerically, and
#    the collapse time that follows.
# 6. **Does the covariance tell the collapse time?** Separate the error of the formula from the shape of the data by
#    an experiment.
#
# <!-- next: written by fmcore.course.build -->
#
# Next: [08 Generalization](08_generalization.ipynb). Why does a network make new data when the exact velocity does not?
#
# <!-- end of next -->
