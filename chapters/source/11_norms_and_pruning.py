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
# # 11 Norms and pruning
#
# A sample of a Gaussian source has a length and a direction. This chapter changes one at a time and leaves the rest of
# flow matching as it is. *Norm alignment* gives source and data the same mean length. *Pruning* leaves out starts that
# point where there are no data, with networks that were trained on all starts. Both come from Lee, Kim and Lee (2025).
# For each we ask what it really changes, before we look at how much it helps.

# %% slideshow={"slide_type": "skip"}
import math

import torch

from fmcore import closed_form, couplings, data, likelihood, paths, solvers, sources, training, velocity
from fmcore.course import card, claims, plotting, predict, style, widgets
from fmcore.course.claims import Claim, about, above, below, between, exactly
from fmcore.experiments.run import training_batch
from fmcore.experiments.run.network import build_network
from fmcore.metrics import features
from fmcore.metrics.classifier import cached_classifier
from fmcore.papers import catalog, reference

style.use()
torch.set_num_threads(1)  # an 8x8 image gives a second core too little to do

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
card.show(
    "11_norms_and_pruning",
    goals=[
        "compute the mean length of noise and of images, and align the two by scaling either",
        "show that for straight paths norm alignment is a change of time, and get the aligned flow without training",
        "tell what a change of time does to Euler's steps, to the loss and to optimal pairs",
        "find directions without data, and draw exactly from a Gaussian without them, in any dimension",
        "say what pruning does to the likelihood of a flow",
        "read a table of five budgets: what holds on other data, and what does not",
    ],
    before=["chapter 03: the loss", "chapter 05: mini-batch optimal transport", "chapters 09 and 10: other sources"],
    exercises=[
        "1. Four ways to align norms",
        "2. The velocity of noise down",
        "3. A rule that rejects every end",
        "4. The coin toss makes the sampler exact",
        "5. What pruning costs an exact flow",
        "6. Is the alignment factor the best one?",
    ],
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Lengths
#
# Chapter 09 derived the length of noise $x_0 \sim \mathcal{N}(0, I)$ in $d$ dimensions: about $\sqrt d$, give or take
# 0.7 whatever $d$ is. How long are images? The lengths of all 50,000 training images of CIFAR-10, grey levels from -1 to
# 1, are in our record of `fmcore measure lee2025/geometry/cifar10`.

# %% slideshow={"slide_type": "fragment"}
path = paths.rectified()
digits = data.digits()
images = digits.scaled(digits.train)  # (1500, 1, 8, 8) in (-1, 1)
lengths = images.flatten(1).norm(dim=1)
noise_source = sources.Gaussian((1, 8, 8))
photo_noise = sources.Gaussian((3, 32, 32))
recorded = reference.find_records([reference.RESULTS])
geometry = recorded["lee2025/geometry/cifar10"]
of_photos = geometry["values"]
PHOTO_LENGTH, photo_spread = (of_photos["mean_length"]["images"][part] for part in ("value", "spread"))

images_of = {
    "digits": (lengths.mean(), lengths.std(), noise_source),
    "CIFAR-10": (PHOTO_LENGTH, photo_spread, photo_noise),
}
for name, (mean_length, spread_length, source) in images_of.items():
    d, noise = math.prod(source.shape), source.mean_norm
    said = f"images {mean_length:5.2f} ± {spread_length:.2f}   noise {noise:5.2f} ± {(d - noise**2) ** 0.5:.2f}"
    print(f"{name:9} d = {d:5,}   {said}   noise over images {noise / mean_length:.3f}")
counts, edges = (torch.tensor(geometry["histograms"]["length of images"][part]) for part in ("counts", "edges"))
long_share = float(counts[edges[:-1] > 50].sum() / counts.sum())
print(f"photographs in the bins above a length of 50: {long_share:.2%}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
ORANGE, GREY = "#C2570C", "#6E7781"  # of sources and of what is compared with, dark enough for lines on white
figure, axes = plotting.canvas(1, 2, height=3.2)
one = noise_source.sample(5000, torch.Generator().manual_seed(1)).flatten(1).norm(dim=1)
kinds = {"noise": one, "digits": lengths}
colors = {"noise": ORANGE, "digits": style.DATA}
plotting.histogram(kinds, colors=colors, xlabel="length", title="digits, d = 64", ax=axes[0])
one = photo_noise.sample(2000, torch.Generator().manual_seed(2)).flatten(1).norm(dim=1)
axes[1].stairs(counts / counts.max(), edges, fill=True, color=style.DATA, alpha=0.45, label="photographs")
axes[1].stairs(counts / counts.max(), edges, color=style.DATA)
of_noise, places = torch.histogram(one, 8)
axes[1].stairs(of_noise / of_noise.max(), places, fill=True, color=ORANGE, alpha=0.45, label="noise")
axes[1].stairs(of_noise / of_noise.max(), places, color=ORANGE)
axes[1].set(title="CIFAR-10, d = 3,072", xlabel="length", yticks=[], xlim=(0, 60), ylim=(0, 1.3))
axes[1].spines["left"].set_visible(False)
axes[1].grid(False)
axes[1].legend(loc="upper left", ncols=2, fontsize=9)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Images are shorter than noise, photographs by half in the mean; and the lengths of photographs scatter ten times as
# much as those of noise.** (Right, both histograms are scaled to the same height.) A very bright or very dark photograph
# may be nearly as long as noise.

# %% [markdown] slideshow={"slide_type": "skip"}
# Lee, Kim and Lee call it **norm misalignment** that the mean lengths differ: on its trajectory from noise to image a
# point has to change its direction *and* to shrink. Nothing is wrong with a flow that shrinks; the question is whether
# one that need not shrink is easier to learn or to solve.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Norm alignment, two ways
#
# All that is needed is one number, the **factor** $c = \mathbb{E}\|x_0\| \,/\, \mathbb{E}\|x_1\|$, with $x_1$ a training
# image. There are two ways to use it:
#
# - **data up**, as in the text of the paper: train on $c\, x_1$, and divide what the flow draws by $c$;
# - **noise down**, as in the notes of the paper's code: start from $x_0 / c$, and leave the images as they are.

# %% slideshow={"slide_type": "fragment"}
gamma_ratio = math.exp(math.lgamma(32.5) - math.lgamma(32))  # d = 64
by_hand = math.sqrt(2) * gamma_ratio / float(lengths.double().mean())  # mean of chi(64) over that of the digits
c = sources.alignment_factor(noise_source, float(lengths.double().mean()))
gap_factor = abs(by_hand - c)
assert gap_factor < 1e-9, gap_factor

x0 = noise_source.sample(2000, torch.Generator().manual_seed(3))
down = sources.NormAligned(noise_source, float(lengths.double().mean())).sample(2000, torch.Generator().manual_seed(3))
gap_down = float((down - x0 / by_hand).abs().max())
assert gap_down < 1e-5, gap_down
length_up, length_down = float((c * lengths).mean()), float(down.flatten(1).norm(dim=1).mean())
c_photo = sources.alignment_factor(photo_noise, PHOTO_LENGTH)
print(f"digits: c = {c:.4f}")
print(f"    data up:    images {length_up:.2f}, noise {noise_source.mean_norm:.2f}")
print(f"    noise down: images {lengths.mean():.2f}, noise {length_down:.2f}")
print(f"CIFAR-10: c = {c_photo:.4f}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A reparametrization of time
#
# The flow of chapter 03 follows $x_t = (1-t)\, x_0 + t\, x_1$. The aligned one (data up) follows $y_s = (1-s)\, x_0 +
# s\, c\, x_1$, with its time called $s$. Both are mixtures of the same two points. Divide $y_s$ by the sum of its two
# weights:
#
# $$
# y_s = a\, x_t ,
# \qquad
# a = 1 - s + c s ,
# \qquad
# t = \frac{c s}{a} ,
# \qquad
# s = \frac{t}{c - (c-1)\, t} .
# $$
#
# A point of one path *is* a point of the other, at another time and magnified. So the function $s \mapsto t$ is a
# **reparametrization of time**, or time change. This holds for each pair, so it holds for the averages over pairs too.

# %% [markdown] slideshow={"slide_type": "subslide"}
# By the chain rule, with $dt/ds = c / a^2$ and $v$ the velocity of $x$,
#
# $$
# \frac{dy}{ds} = (c-1)\, x + a\, \frac{dt}{ds}\, v(x, t) = \frac{(c-1)\, y + c\, v(y/a,\, t)}{a} .
# $$
#
# **The aligned velocity follows from the unaligned one. Nothing has to be trained for it.**

# %% slideshow={"slide_type": "fragment"}
exact = closed_form.EmpiricalVelocity(images)
generator = torch.Generator().manual_seed(4)
x1 = images[torch.randint(len(images), (64,), generator=generator)]
x0 = torch.randn(x1.shape, generator=generator)


def time_of(s, factor):
    """The time t of the unaligned path that belongs to the time s of the aligned one."""
    return factor * s / (1 - s + factor * s)


s = torch.tensor(0.4)
a = 1 - s + c_photo * s
y = (1 - s) * x0 + s * c_photo * x1
gap_point = float((y - a * path.interpolate(x0, x1, time_of(s, c_photo))).abs().max())
aligned = ((c_photo - 1) * y + c_photo * exact(y / a, time_of(s, c_photo))) / a
same = velocity.scaled_up(exact, c_photo)(y, s)
direct = closed_form.EmpiricalVelocity(c_photo * images)(y, s)  # the exact velocity of the scaled-up images
gap_aligned, gap_direct = float((aligned - same).abs().max()), float((aligned - direct).abs().max())
assert max(gap_point, gap_aligned, gap_direct) < 1e-3, (gap_point, gap_aligned, gap_direct)
said = f"point {gap_point:.0e}, by hand and fmcore {gap_aligned:.0e}, exact velocity {gap_direct:.0e}"
print(f"largest differences: {said}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "c = 2.04, as for CIFAR-10. Ten Euler steps, equal in s. In the time t of the flow without alignment, they are",
    [
        "equal as well: the samples end at the same place",
        "long at first and short near the data",
        "short at first and long near the data",
    ],
    answer=1,
    because="dt/ds = c / a^2 is c at the start, where a = 1, and 1/c at the end, where a = c. So steps near the start are "
    "about twice as long as equal ones, and steps near the data about half as long.",
)

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
ticks = torch.linspace(0, 1, 101)
figure, axes = plotting.canvas(1, 3, height=3.2)
for row, (factor, color, dash) in enumerate(((1.0, GREY, ":"), (c, style.MODEL, "--"), (c_photo, style.DATA, "-"))):
    label = f"c = {factor:.2f}"
    axes[0].plot(ticks, time_of(ticks, factor), color=color, linestyle=dash, label=label)
    axes[1].plot(ticks, factor / (factor - (factor - 1) * ticks) ** 2, color=color, linestyle=dash, label=label)
    grid = time_of(torch.linspace(0, 1, 11), factor)
    axes[2].plot(grid, torch.full((11,), -float(row)), "|", markersize=22, markeredgewidth=2, color=color)
    axes[2].text(0, -row + 0.32, label, fontsize=9, color=color)
axes[0].set(xlabel="s, aligned", ylabel="t", title="the change of time")
axes[0].legend(fontsize=9)
axes[1].set(xlabel="t", ylabel="density of t", title="s drawn uniformly", ylim=(0, None))
axes[2].set(xlabel="t", title="ten equal steps in s", yticks=[], ylim=(-2.5, 0.75))
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# **With norms aligned, Euler takes long steps first and short ones near the data, and training draws late times more
# often.**

# %% [markdown] slideshow={"slide_type": "slide"}
# ### To the last digit
#
# A step of Euler on $y$ from $s$ to $s'$ *is* a step of Euler on $x$ from $t$ to $t'$. Write it down, with $a'$ for $a$
# at $s'$, and use $a + (s' - s)(c - 1) = a'$:
#
# $$
# a' x' = a x + (s' - s) \big( (c-1)\, x + \tfrac{c}{a} v \big)
# \quad\Longrightarrow\quad
# x' = x + \frac{(s'-s)\, c}{a\, a'}\, v = x + (t' - t)\, v .
# $$
#
# **Solving the aligned flow with Euler means choosing other times for the unaligned one.** The samples differ by the
# errors of the solver and by nothing else.

# %% slideshow={"slide_type": "fragment"}
start = torch.randn(200, 1, 8, 8, generator=torch.Generator().manual_seed(5))


def euler(v, x, steps, factor):
    """Euler steps on x that are equal in the time s of `factor`; 1 for steps equal in t."""
    times = time_of(torch.linspace(0, 1, steps + 1, dtype=torch.float64), factor)
    return solvers.solve(v, x, method="euler", times=times).x


one = solvers.solve(velocity.scaled_up(exact, c_photo), start[:20], method="euler", steps=10).x / c_photo
two = euler(exact, start[:20], 10, c_photo)
gap_euler = float((one - two).abs().max())
assert gap_euler < 1e-3, gap_euler
print(f"ten Euler steps of the aligned flow and at the other times of the unaligned one: {gap_euler:.0e}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Which steps are better?
#
# That can be measured without a network, where the end of every trajectory is known. First a **Gaussian** with the mean
# $\mu$ and the covariance of the digits. In its principal axes, of variance $\lambda$, the flow is
#
# $$
# x_t = t\, \mu + \sqrt{(1-t)^2 + t^2 \lambda}\; x_0
# \quad\Longrightarrow\quad
# v(x, t) = \mu + \frac{t \lambda - (1-t)}{(1-t)^2 + t^2 \lambda}\, (x - t\, \mu) ,
# $$
#
# and it ends at $\mu + \sqrt{\lambda}\, x_0$. Then the **exact velocity** of the 1,500 digits, against its own end after
# 300 steps.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Equal steps in s put more of them near the data, where the exact velocity must choose an image. With 5 or 10 steps, "
    "c = 2.04: the error of Euler against that of equal steps in t is",
    [
        "smaller: more steps where it matters",
        "larger: the long steps at the start cost more than the short ones save",
        "equal",
    ],
    answer=1,
    because="With five steps the first two already reach t = 0.58, where digits are all but decided (chapter 07). After "
    "that the exact trajectories are nearly straight lines to one image, and short steps have little to save.",
)

# %% slideshow={"slide_type": "subslide"}
flat = images.flatten(1).double()
mean, (variances, basis) = flat.mean(0), torch.linalg.eigh(torch.cov(flat.T))
variances = variances.clamp(min=0)


def gaussian_velocity(x, t):
    """The exact velocity of the Gaussian with the digits' mean and covariance, at x (B, 64) float64."""
    z, mu = x @ basis, mean @ basis
    pull = (t * variances - (1 - t)) / ((1 - t) ** 2 + t**2 * variances)
    return (mu + pull * (z - t * mu)) @ basis.T


flat_start = torch.randn(500, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
flat_end = mean + (variances.sqrt() * (flat_start @ basis)) @ basis.T
STEPS = (5, 10, 20, 40, 80)
FACTORS = {"equal in t": 1.0, f"c = {c:.2f}": c, f"c = {c_photo:.2f}": c_photo}
gaussian_error = {
    name: [float((euler(gaussian_velocity, flat_start, n, f) - flat_end).norm(dim=1).mean()) for n in STEPS]
    for name, f in FACTORS.items()
}
empirical_end = euler(exact, start, 300, 1.0)
empirical_error = {
    name: [float((euler(exact, start, n, f) - empirical_end).flatten(1).norm(dim=1).mean()) for n in STEPS[:4]]
    for name, f in FACTORS.items()
}

# %% slideshow={"slide_type": "fragment"}
ratio_of = {}
print("error over that of steps equal in t     " + "".join(f"{n:>7}" for n in STEPS) + " steps")
for title, errors in {
    "Gaussian of the digits": gaussian_error,
    "exact velocity of the digits": empirical_error,
}.items():
    for name in list(FACTORS)[1:]:
        found = [e / equal for e, equal in zip(errors[name], errors["equal in t"], strict=True)]
        ratio_of[title, name] = found
        print(f"{title + ', ' + name:40}" + "".join(f"{ratio:7.2f}" for ratio in found))

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 2, height=3.6)
colors = dict(zip(FACTORS, (GREY, style.MODEL, style.DATA), strict=True))
plotting.error_against(STEPS, gaussian_error, colors=colors, title="Gaussian of the digits", ax=axes[0])
plotting.error_against(STEPS[:4], empirical_error, colors=colors, title="exact velocity of the digits", ax=axes[1])
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# **A smooth change of time changes the constant of the error and not the order.** With $c = 2.04$ the constant is
# larger: by 7% for the Gaussian, by 20% to 40% for the digits. The digits' own $c = 1.25$ changes it by less than 10%.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### In 3,072 dimensions
#
# A third example has the numbers of photographs: a Gaussian in 3,072 dimensions with the mean length of CIFAR-10. The
# variances of photographs along principal axes fall roughly like a power, so we take $\lambda_k \propto k^{-p}$. Each axis
# evolves by itself, so a list of numbers is enough.


# %% slideshow={"slide_type": "fragment"}
def power_error(power, steps, factor):
    """Euler's error, root mean square over noise, for a centred Gaussian in 3,072 dimensions of mean length 27.2."""
    lam = torch.arange(1, 3073, dtype=torch.float64) ** -power
    lam *= PHOTO_LENGTH**2 / lam.sum()
    unit = torch.ones(1, 3072, dtype=torch.float64)  # each axis is scaled by a number: follow that number
    end = euler(lambda x, t: (t * lam - (1 - t)) / ((1 - t) ** 2 + t**2 * lam) * x, unit, steps, factor)
    return float((end - lam.sqrt()).norm())


power_ratio = {}
print("error aligned over not      " + "".join(f"{n:>7}" for n in (5, 10, 20, 100)) + " steps")
for power in (0.5, 1.0, 1.5, 2.0):
    for n in (5, 10, 20, 100):
        power_ratio[power, n] = power_error(power, n, c_photo) / power_error(power, n, 1.0)
    said = "".join(f"{power_ratio[power, n]:7.2f}" for n in (5, 10, 20, 100))
    print(f"variances like k^-{power}       {said}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Where the variances fall steeply, alignment makes Euler's error larger, with every number of steps.** With nearly
# equal variances ($p = 1/2$), where almost all that the flow has to do is to shrink, it makes it smaller.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What the change of time does to the loss
#
# Training draws $s$ uniformly. In $t$ this is the density $ds/dt = c / b^2$ with $b = c - (c-1)\, t$: compared with
# uniform $t$, late times become $c$ times as frequent, and early ones $c$ times less frequent. One would think that the
# network now cares more about late times. But an error of $v$ also counts differently: the velocity of $y$ has $c/a = b$
# times the error of the velocity of $x$, and its square $b^2$ times. Together,
#
# $$
# \int_0^1 \| \text{error of } dy/ds \|^2\, ds = \int_0^1 b^2\, \| \text{error of } v \|^2\, \frac{c}{b^2}\, dt = c \int_0^1 \| \text{error of } v \|^2\, dt .
# $$
#
# **The weights cancel.** The aligned loss is $c$ times the unaligned one, for every $v$, exact or not. What changes is
# *how* the same integral is sampled.

# %% [markdown] slideshow={"slide_type": "subslide"}
# We check it on a small network of the digits, trained as for the records below: the same pairs for both losses, and
# times spread evenly in $t$ for one and in $s$ for the other.


# %% slideshow={"slide_type": "skip"}
def trained(name):
    """The network of an experiment, averaged weights."""
    row = catalog.by_name(f"lee2025/digits/{name}")
    chosen = training_batch.training_images(row, digits)
    run = training.train(
        build_network(row, digits.shape),
        training_batch.batch_loss(row, digits, chosen),
        chosen,
        row.training,
        prepare=training_batch.batch_maker(row, digits),
        progress=False,
    )
    return run.ema.requires_grad_(False)


network = trained("independent")
print(f"{sum(p.numel() for p in network.parameters()):,} parameters, 400 steps of 64 images")


# %% slideshow={"slide_type": "fragment"}
def each_loss(v, x0, x1, times):
    """The loss of each pair at its own time, (n,)."""
    xt, target = path.interpolate_with_target(x0, x1, times)
    with torch.no_grad():
        return (v(xt, times) - target).square().flatten(1).mean(1)


generator = torch.Generator().manual_seed(7)
x1 = images[torch.randint(len(images), (4096,), generator=generator)]
x0 = torch.randn(x1.shape, generator=generator)
even = (torch.arange(4096) + 0.5)[torch.randperm(4096, generator=generator)] / 4096
plain = each_loss(network, x0, x1, even)
scaled = each_loss(velocity.scaled_up(network, c_photo), x0, c_photo * x1, even)
loss_ratio = float(scaled.mean() / (c_photo * plain.mean()))
loss_error = float(torch.stack([scaled.std() / scaled.mean(), plain.std() / plain.mean()]).norm()) / 4096**0.5
print(f"c = {c_photo:.2f}: aligned loss {scaled.mean():.3f}, c times the unaligned {c_photo * plain.mean():.3f}")
print(f"ratio {loss_ratio:.3f}, standard error at most {loss_error:.3f}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Alignment does not shift what is to be learned.** What is left of it in training: other draws of the same integral;
# and a network sees $y$ and predicts $dy/ds$, numbers of another size at another time, with the same learning rate as
# before. Scaling what a network reads and predicts is called preconditioning (Karras and others 2022).

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Optimal pairs
#
# OT pairs (chapter 05) match a batch so that $\sum_i \|x_0^{(\pi(i))} - x_1^{(i)}\|^2$ is least over permutations
# $\pi$. With data up,
#
# $$
# \| x_0 - c\, x_1 \|^2 = \| x_0 \|^2 - 2 c\, x_0 \cdot x_1 + c^2 \| x_1 \|^2 ,
# $$
#
# and the sums of the first and the last term are the same for all permutations. What remains is $c$ times what it was:
# **the pairs do not change.**

# %% slideshow={"slide_type": "fragment"}
optimal = couplings.MinibatchOT()
same_pairs = 0
for k in range(8):
    batch = slice(128 * k, 128 * (k + 1))
    before, _ = optimal(x0[batch], x1[batch])
    after, _ = optimal(x0[batch], c_photo * x1[batch])
    lower, _ = optimal(x0[batch] / c_photo, x1[batch])
    same_pairs += torch.equal(before, after) and torch.allclose(before, c_photo * lower, atol=1e-5)
print(f"batches of 128 whose optimal pairs stay, data up and noise down: {same_pairs} of 8")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Pruning: a picture first
#
# Now the direction. Where, seen from the origin, are no data at all? Lee, Kim and Lee look along axes: the principal
# components of the directions of the data, each with its two ends $e$ and $-e$. An end is **rejected** if no training
# point comes near it:
#
# $$
# \max_i \cos(x^{(i)}, e) \le \tau .
# $$
#
# Noise $x_0$ is then kept if its cosine with every rejected end is at most a second number, the **threshold** $\tau_r$:
# a cone around each rejected end is cut out. This is done when *sampling*, with a network that was trained on all noise.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
generator = torch.Generator().manual_seed(8)
angles = torch.cat(
    [0.1 + 0.15 * torch.randn(60, generator=generator), 1.5 + 0.15 * torch.randn(60, generator=generator)]
)
plane = (2.2 + 0.2 * torch.randn(120, 1, generator=generator)) * torch.stack([angles.cos(), angles.sin()], dim=1)
plane_axes = sources.pruning_axes(plane, tau=0.1, flips=False)
plane_noise = torch.randn(1500, 2, generator=generator)

# %% slideshow={"slide_type": "skip"}
TAU = 0.1
axes_of_digits = sources.pruning_axes(images, TAU, flips=False)
many = noise_source.sample(20_000, torch.Generator().manual_seed(9))
worst = axes_of_digits.largest_cosine(many)  # of each noise sample with the nearest rejected end
THRESHOLDS = [round(0.05 * k, 2) for k in range(2, 20)]


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
def pruning_picture(threshold):
    """Left: kept and rejected noise in the plane. Right: share of the digits' noise that is rejected."""
    figure, (left, right) = plotting.canvas(1, 2, height=4.4)
    kept = plane_axes.largest_cosine(plane_noise) <= threshold
    left.scatter(*plane_noise[kept].T, s=7, color=ORANGE, linewidths=0, label="kept noise")
    left.scatter(*plane_noise[~kept].T, s=9, color=GREY, marker="x", linewidths=0.8, label="rejected")
    left.scatter(*plane.T, s=12, color=style.DATA, linewidths=0, label="data")
    ends = torch.cat([plane_axes.axes[plane_axes.positive], -plane_axes.axes[plane_axes.negative]])
    for x, y in 2.6 * ends:
        left.annotate("", (float(x), float(y)), (0, 0), arrowprops={"arrowstyle": "->", "color": style.BAD, "lw": 2.5})
    style.blank(left, 3.4).legend(loc="lower right", fontsize=9, markerscale=2)
    left.set_title(f"plane: {float((~kept).float().mean()):.0%} rejected")
    fine = torch.linspace(0.05, 1, 191)
    right.plot(fine, [float((worst > u).float().mean()) for u in fine], color=style.DATA)
    share = float((worst > threshold).float().mean())
    right.plot(threshold, share, "o", color=style.DATA, markersize=9)
    right.set(xlabel=r"threshold $\tau_r$", ylabel="share of noise rejected", title=f"digits: {share:.1%} rejected")
    return figure


# %% slideshow={"slide_type": "subslide"}
widgets.explore(pruning_picture, threshold=widgets.choice(THRESHOLDS, value=0.25, label="threshold τ_r"))

# %% [markdown] slideshow={"slide_type": "fragment"}
# Left, data in the plane in two clusters; one of the four ends is rejected (red arrow). Right, the digits: **in many
# dimensions a small change of the threshold decides whether nearly all noise is rejected or next to none.**

# %% [markdown] slideshow={"slide_type": "notes"}
# At which threshold does the cut reach the data? And at which does nothing happen any more, in the plane and in 64
# dimensions? In the plane a cone of $\tau_r = 0.25$ takes 42% of all directions. In 64 dimensions a cosine with a
# *given* end is about $0 \pm 1/\sqrt{64}$, so that 0.25 is two standard deviations: one cone takes 2%, and only many
# of them take much.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Ends without data, of digits
#
# In a few lines, and then `sources.pruning_axes`. The signs of principal components are arbitrary, so both ends have to
# be looked at; the code of the paper prunes by one of them in its simulation. Mirror images do not count here: a mirrored
# digit is no digit.

# %% slideshow={"slide_type": "fragment"}
unit = flat / flat.norm(dim=1, keepdim=True)
components = torch.linalg.eigh(torch.cov(unit.T)).eigenvectors.T
cosines = unit @ components.T
largest = torch.cat([cosines.amax(0), (-cosines).amax(0)])  # of any digit with an axis and with its opposite
by_hand_ends = torch.cat([components, -components])[largest <= TAU]

rejected = axes_of_digits.count
hand_worst = ((many.flatten(1).double() @ by_hand_ends.T) / many.flatten(1).double().norm(dim=1, keepdim=True)).amax(1)
shares_above = {"by hand": float((hand_worst > 0.25).double().mean()), "fmcore": float((worst > 0.25).double().mean())}
gap_share = abs(shares_above["by hand"] - shares_above["fmcore"])
assert len(by_hand_ends) == rejected, (len(by_hand_ends), rejected)
print(f"tau = {TAU}: {rejected} of 128 ends are rejected")
print("threshold 0.25: share of noise rejected " + ", ".join(f"{name} {s:.1%}" for name, s in shares_above.items()))
unseen = axes_of_digits.largest_cosine(digits.scaled(digits.held_out))
unseen_above = {u: float((unseen > u).float().mean()) for u in (0.1, 0.25)}
said = f"above 0.1 {unseen_above[0.1]:.1%}, above 0.25 {unseen_above[0.25]:.1%}"
print(f"held-out digits, by their largest cosine with a rejected end: {said}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, (upper, lower) = plotting.canvas(2, 1, height=4.4, height_ratios=[1, 1.5])
shown = by_hand_ends[:: max(1, len(by_hand_ends) // 12)][:12]
low_rejected = (shown / shown.abs().amax(1, keepdim=True)).view(-1, 1, 8, 8)
plotting.images(low_rejected, columns=12, title="some rejected ends", ax=upper)
sets = {"noise": worst, "digits": axes_of_digits.largest_cosine(images)}
colors = {"noise": ORANGE, "digits": style.DATA}
plotting.histogram(sets, colors=colors, xlabel="largest cosine with a rejected end", ax=lower)
lower.axvline(0.25, color=style.EXACT, linewidth=1.2)
lower.text(0.255, lower.get_ylim()[1] * 0.9, r"$\tau_r = 0.25$", fontsize=10, va="top")
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Rejected ends of digits are patterns of small variance: fine detail, and pixels at the edges on which hardly anybody
# writes.** Digits, the held-out ones too, stay below 0.25; two thirds of all noise lie above.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What it costs
#
# The plain method is rejection: draw noise, keep it if it passes. For CIFAR-10 with $\tau = 0.01$ the share that passes
# is tiny. The share of noise rejected in percent, by our record beside the paper's numbers:

# %% slideshow={"slide_type": "fragment"}
told = reference.read_reference("lee2025_geometry")
PAPER_REJECTS = {float(row["of"]): float(row["value"]) for row in told if row["measure"] == "rejected_percent"}
ends = {version: found["ends"]["value"] for version, found in of_photos["rejected_ends"].items()}
rejects = {
    version: {float(threshold): 100 * one["value"] for threshold, one in found.items()}
    for version, found in of_photos["rejected_share"].items()
}
print(f"{'':22}ends of 6,144" + "".join(f"{f'at {threshold:g}':>10}" for threshold in PAPER_REJECTS))
for version, found in rejects.items():
    print(f"{version:22}{ends[version]:13,}" + "".join(f"{found[threshold]:10.2f}" for threshold in PAPER_REJECTS))
print(f"{'paper':35}" + "".join(f"{theirs:10.2f}" for theirs in PAPER_REJECTS.values()))
plain_way, fast_way = (of_photos["proposals"]["with mirror images"][way]["value"] for way in ("plain", "truncated"))
print(f"threshold 0.048: {plain_way:,.0f} proposals per sample by plain rejection, {fast_way:.1f} with what follows")

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The share falls as steeply as in the paper, and at the paper's threshold plain rejection takes more than ten thousand
# proposals per sample.** With mirror images, which the paper says it uses, ours rejects up to 6 in 100 less between 0.05
# and 0.07; which images the paper's axes come from we do not know.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "To waste less, one could draw each coordinate along a rejected end from a normal distribution cut off at the bound "
    "tau_r sqrt(d), where most cosines pass, and keep what passes. Is the result the pruned Gaussian?",
    [
        "it is: what does not pass is thrown away anyway",
        "it is not: some noise that passes could not be drawn",
        "only in the limit of many proposals",
    ],
    answer=1,
    because="Long noise with a small cosine has large coordinates: it is cut off, although it passes. The bound is on "
    "coordinates, the rule on cosines. So lengths and directions are no longer independent, and neither has the right "
    "distribution. The repair is one more coin toss, and a fresh length.",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ### An exact sampler
#
# Write noise as length times direction, $x_0 = r\, u$. For a Gaussian, $r$ and $u$ are independent, and whether $x_0$ is
# kept depends on $u$ alone, through $q(u)$, its largest cosine with a rejected end.
#
# 1. **Propose** a Gaussian whose coordinates along rejected ends are cut off at a bound $\beta$. That is a Gaussian given
#    $r\, q(u) \le \beta$. So its direction has a density proportional to $P(r \le \beta / q(u)) = F(\beta / q(u))$, with
#    $F$ the distribution function of the length.
# 2. **Accept** with the probability $F(\beta / \tau_r)\, /\, F(\beta / q(u))$ if $q(u) \le \tau_r$, and not otherwise.
#    It is at most 1, and the product of both is the same for all directions that are kept: uniform.
# 3. Give the direction a **fresh length**.
#
# This is exact for every $\beta$; `sources.Pruned` takes the one with most acceptances.


# %% slideshow={"slide_type": "subslide"}
def cut_normal(n, axes, bound, generator):
    """Gaussians (n, 64) whose coordinates along rejected ends are at most the bound, by the inverse of their cdf."""
    low = torch.where(axes.negative, torch.special.ndtr(torch.tensor(-bound).double()), 0.0)
    high = torch.where(axes.positive, torch.special.ndtr(torch.tensor(bound).double()), 1.0)
    u = torch.rand(n, 64, generator=generator, dtype=torch.float64)
    return torch.special.ndtri((low + (high - low) * u).clamp(1e-15, 1 - 1e-15)) @ axes.axes.double()


def shorter(length):
    """F, the share of noise that is shorter."""
    return torch.special.gammainc(torch.tensor(32.0).double(), torch.as_tensor(length).double() ** 2 / 2)


def pruned_by_hand(n, axes, threshold, bound, generator, coin=True, fresh=True):
    """About as many of n proposals as are accepted; without the coin toss or the fresh length if not asked for."""
    x = cut_normal(n, axes, bound, generator)
    q = axes.largest_cosine(x)
    chance = shorter(bound / threshold) / shorter(bound / q.clamp(min=1e-9))
    x = x[(q <= threshold) & ((torch.rand(n, generator=generator) < chance) | (not coin))]
    length = torch.randn(len(x), 64, generator=generator, dtype=torch.float64).norm(dim=1, keepdim=True)
    return (length * x / x.norm(dim=1, keepdim=True) if fresh else x).float()


# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Does a test notice the coin toss?
#
# A test has to look at what the coin toss corrects: how near kept directions are to the rejected ends. Compare the mean
# of $q(u)$ with that of plain rejection, and the mean length too, each difference in units of its standard error.

# %% slideshow={"slide_type": "fragment"}
pruned = sources.Pruned(noise_source, axes_of_digits, threshold=0.25)
generator = torch.Generator().manual_seed(10)
fast, proposals = pruned.sample_counted(4000, generator)
sets = {"plain rejection": many[worst <= 0.25], "fmcore": fast}  # below, by hand: another bound than that of fmcore
for name, kind in {"by hand": {}, "no coin toss": {"coin": False}, "neither": {"coin": False, "fresh": False}}.items():
    sets[name] = pruned_by_hand(8000, axes_of_digits, 0.25, 2.0, generator, **kind)
moments, errors = {}, {}
print("                 samples   mean of q (standard errors)   mean length (standard errors)")
for name, x in sets.items():
    both = torch.stack([axes_of_digits.largest_cosine(x), x.flatten(1).norm(dim=1)])
    moments[name] = both.mean(dim=1), both.std(dim=1) / len(x) ** 0.5
    (at, error), (base, base_error) = moments[name], moments["plain rejection"]
    errors[name] = ((at - base) / torch.hypot(error, base_error)).tolist()
    said = f"{at[0]:14.4f} {f'({errors[name][0]:.1f})':>12}{at[1]:17.3f} {f'({errors[name][1]:.1f})':>12}"
    print(f"{name:15}{len(x):9,}{said}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Both exact samplers agree with plain rejection; without the coin toss the test notices.** What passes then points too
# far away from the rejected ends; and without a fresh length it is too short as well.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### The share kept
#
# The acceptance rate also gives the **share kept**, the share $Z$ of noise that pruning keeps: the rate is $Z$ times a
# known number. Plain rejection would soon find nothing to count.

# %% slideshow={"slide_type": "fragment"}
shares = {}
print("threshold   kept: counted   from the rate   proposals per sample: plain   fmcore")
for threshold in (0.15, 0.2, 0.25, 0.3, 0.35):
    one = sources.Pruned(noise_source, axes_of_digits, threshold)
    taken = one.sample_counted(1000, torch.Generator().manual_seed(11))[1] / 1000
    estimate = one.share_kept(20_000, torch.Generator().manual_seed(12))
    shares[threshold] = float((worst <= threshold).float().mean()), estimate, taken
    print(f"{threshold:9.2f}{shares[threshold][0]:16.2%}{estimate:16.2%}{1 / estimate:30.1f}{taken:9.1f}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The fewer directions are kept, the more is saved.** For the digits at 0.25, where about a third of all noise passes,
# that is little; for CIFAR-10 it makes the difference between thousands of proposals and a few.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What pruning does to the likelihood
#
# The likelihood of chapter 02 is $\log p_0$ at the start of a point's trajectory, plus the change of density along it.
# Pruning replaces $p_0$ by the **pruned source's density**
#
# $$
# \tilde p_0(x_0) = \begin{cases} p_0(x_0) / Z & \text{if } x_0 \text{ is kept,} \\ 0 & \text{otherwise,} \end{cases}
# \qquad Z = P(x_0 \text{ is kept}) ,
# $$
#
# and the velocity stays. So the log-likelihood of a point rises by $-\log Z$ if its start is kept, and is $-\infty$
# otherwise.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "A flow that has learned the data well is sampled from a pruned source that keeps a third of all noise. Of how many "
    "held-out images is the likelihood zero?",
    ["of none: images are far from the rejected ends", "of about a third", "of about two thirds"],
    answer=2,
    because="The flow takes all noise to all data. So the data that come from rejected starts are as much of all data as "
    "those starts are of all noise. Images do not point to rejected ends, but their starts may.",
)


# %% slideshow={"slide_type": "subslide"}
class PrunedDensity:
    """The density of Gaussian noise that is kept; share: Z."""

    def __init__(self, source, axes, threshold, share):
        self.source, self.axes, self.threshold, self.share = source, axes, threshold, share

    def log_prob(self, x0):
        kept = self.axes.largest_cosine(x0) <= self.threshold
        return torch.where(kept, self.source.log_prob(x0) - math.log(self.share), -math.inf)


plane_mean, (lam, turn) = plane.mean(0), torch.linalg.eigh(torch.cov(plane.T))


def plane_velocity(x, t):
    """The exact velocity of the Gaussian with the mean and the covariance of the two clusters."""
    pull = (t * lam - (1 - t)) / ((1 - t) ** 2 + t**2 * lam)
    return plane_mean + (pull * ((x - t * plane_mean) @ turn)) @ turn.T


line = torch.linspace(-4, 6, 201)
squares, area = torch.cartesian_prod(line, line), float(line[1] - line[0]) ** 2
Z_plane = 1 - math.acos(0.25) / math.pi  # one cone is cut out of the plane

# %% [markdown] slideshow={"slide_type": "subslide"}
# First in the plane, where $Z$ has a closed form, with the flow of a Gaussian. A density must have the integral 1.

# %% slideshow={"slide_type": "fragment"}
plane_noise_source = sources.Gaussian((2,))
integral = {}
for name, source in {
    "all noise": plane_noise_source,
    "kept noise, not divided by Z": PrunedDensity(plane_noise_source, plane_axes, 0.25, 1.0),
    "kept noise, divided by Z": PrunedDensity(plane_noise_source, plane_axes, 0.25, Z_plane),
}.items():
    found = likelihood.log_likelihood(plane_velocity, squares, source, method="rk4", steps=5)
    integral[name] = float(found.log_prob.exp().sum() * area)
    print(f"{name:30} integral of the density of the flow {integral[name]:.3f}")
print(f"Z = {Z_plane:.3f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# Now the digits at $\tau_r = 0.25$: $Z$ by Monte Carlo, from the 20,000 noise samples above. We follow the held-out
# digits back to their starts with the network. (It was trained on digits with uniform noise within a grey level,
# chapter 06, so they get the same.)

# %% slideshow={"slide_type": "fragment"}
Z, n = float((worst <= 0.25).double().mean()), len(worst)
gain, gain_error = -math.log(Z), math.sqrt((1 - Z) / (Z * n))
generator = torch.Generator().manual_seed(14)
held_out = digits.scaled(digits.held_out)
held_out = held_out + (2 * torch.rand(held_out.shape, generator=generator) - 1) / digits.levels
back = solvers.solve(network, held_out, 1.0, 0.0, method="midpoint", steps=10).x
no_density = float((~pruned.contains(back)).double().mean())
no_density_error = math.sqrt(no_density * (1 - no_density) / len(back))
print(f"Z = {Z:.3f} ± {math.sqrt(Z * (1 - Z) / n):.3f}, share of noise rejected {1 - Z:.1%}")
print(
    f"held-out digits whose start is rejected, of likelihood 0: {no_density:.1%} ± {no_density_error:.1%} of {len(back)}"
)
print(f"the others gain {gain:.3f} ± {gain_error:.3f} nats, or {gain / math.log(2) / 64:.3f} bits per dimension")

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Under the pruned source more than half of the held-out digits have no density at all, so the mean log-likelihood is
# $-\infty$.** (With an exact flow the share would be that of rejected noise; the network's is somewhat smaller.) The likelihood of a network belongs to the source of its training, and pruned flows are not to be compared by
# bits per dimension.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Does pruning help?
#
# A flow that has learned the exact velocity takes the *whole* Gaussian to the data. Start from a part of it, and only a
# part of the data comes out, in other proportions. So for an exact flow pruning can only do harm. If it helps, then
# because a real network errs most from the starts that are left out.
#
# Both can be measured. We draw 2,400 noise samples, follow each once, and sort the ends by whether the start would have
# been kept. The measure is that of chapter 06, the Fréchet distance (FD) to the training digits in the features of a
# classifier. It depends on the number of images, so all sets have 370; several sets of a kind show its scatter.

# %% slideshow={"slide_type": "skip"}
space = features.classifier_space(cached_classifier(digits), digits)
of_digits = features.train_moments(space, digits)
SET = 370
starts = noise_source.sample(2400, torch.Generator().manual_seed(13))
passes = pruned.contains(starts)


def FD(x):
    """Classifier Fréchet distance of images in [-1, 1] to the training digits."""
    return features.distance(features.moments(space, data.images.to_uint8(x, digits.levels)), of_digits)


def sorted_FD(x):
    """The distances of sets of 370: from kept noise, from rejected noise, and from all noise as it comes."""
    parts = {"kept": x[passes], "rejected": x[~passes], "all": x}
    return {name: torch.tensor([FD(one) for one in part.split(SET) if len(one) == SET]) for name, part in parts.items()}


# %% slideshow={"slide_type": "fragment"}
ends = {
    "exact velocity, 20 steps": euler(exact, starts, 20, 1.0),
    "network, 5 steps": euler(network, starts, 5, 1.0),
    "network, 5 steps, aligned": euler(network, starts, 5, c_photo),
}
split = {name: sorted_FD(x) for name, x in ends.items()}
for name, found in split.items():
    said = "   ".join(f"{part} {x.mean():.2f} ± {x.std():.2f} ({len(x)} sets)" for part, x in found.items())
    print(f"{name:27} {said}")
print(f"{int(passes.sum()):,} of {len(starts):,} noise samples are kept; ± is the standard deviation of sets")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
x = ends["network, 5 steps"]
sheet = torch.cat([x[passes][:24], x[~passes][:24]])
plotting.images(
    sheet, columns=12, rows=["kept", "", "rejected", ""], title="five Euler steps of the network, by their starts"
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **On the digits the difference is too small for these sets.** Rejected starts end in slightly worse digits in the mean,
# but sets of one kind differ by more. What an exact flow should lose by pruning cannot be seen either.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The paper's table, and ours
#
# Two pairings (OT pairs in the batch, and independent pairs), aligned in training or not (data up), pruned in sampling or
# not, each with five budgets of Euler steps. We have records of the same rows on the digits and, with a small network, on
# CIFAR-10. Numbers of different measures are not to be compared, only what each says about its rows.
#
#     fmcore train lee2025/digits/ot_norm      # about a minute
#     fmcore table lee2025

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
ROWS = {
    ("ot", "source"): "OT pairs",
    ("ot", "pruned"): "OT pairs, pruned",
    ("ot_norm", "source"): "OT pairs, aligned",
    ("ot_norm", "pruned"): "OT pairs, both",
    ("independent", "source"): "independent",
    ("independent", "pruned"): "independent, pruned",
    ("independent_norm", "source"): "independent, aligned",
    ("independent_norm", "pruned"): "independent, both",
}
NFE, NAMES = (5, 10, 20, 40, 100), ("ot", "independent", "ot_norm", "independent_norm")
paper = {}
for line in reference.read_reference("lee2025_fid"):
    if line["data"] == "cifar10" and line["fid"]:
        paper[line["row"], line["start"], int(line["nfe"])] = float(line["fid"])


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
def by_budget(size):
    """Distances and their spreads over generated sets, by row, start and number of steps, from the records of a size."""
    found, scatter = {}, {}
    for name, record in recorded.items():
        if name.startswith(f"lee2025/{size}/"):
            for one in record.get("budgets", []):
                key = (name.rpartition("/")[2], one["start"], one["nfe"])
                found[key], scatter[key] = one["frechet_distance"], one["spread"]
    return found, scatter


(ours, spread), (small, small_spread) = by_budget("digits"), by_budget("cifar10_small")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
in_paper = catalog.by_name("lee2025/cifar10/ot")
with torch.device("meta"):  # shapes without numbers
    large = sum(p.numel() for p in build_network(in_paper, (3, 32, 32)).parameters())


def about_records():
    """Print how large the networks are, how long they were trained, and on how many images each entry rests."""
    steps, batch = in_paper.training.steps, in_paper.training.batch
    print(f"paper: CIFAR-10, {large:,} parameters, {steps:,} steps of {batch} images, FID with 50,000")
    for name, words in (("digits", "digits"), ("cifar10_small", "CIFAR-10, small network")):
        record = recorded[f"lee2025/{name}/ot"]
        run, drawn, measure = (record[part] for part in ("training", "evaluation", "values"))
        real = measure["classifier_frechet_distance"]["held out (real)"]["value"]
        print(f"{words}: {record['parameters']:,} parameters, {run['steps']} steps of {run['global_batch']} images")
        shown = f"    {run['epochs']:.1f} epochs, {steps / run['steps']:.0f} times fewer steps; classifier FD with"
        sets, count = drawn["generated_sets"], drawn["generated"]
        print(f"{shown} {sets} sets of {count // sets}, {count:,} in all; real images {real:.2f}")


about_records()

# %% slideshow={"slide_type": "fragment"}
print(f"{'':22}{'paper: FID':>12}{'digits: FD':>22}{'CIFAR-10, small: FD':>32}")
print(f"{'Euler steps':22}" + "".join(f"{n:{width}}" for width in (7, 16) for n in (5, 100)) + f"{5:16}{100:16}")
for (row, start_at), name in ROWS.items():
    said = "".join(f"{paper[row, start_at, n]:7.2f}" for n in (5, 100))
    for found, scatter in ((ours, spread), (small, small_spread)):
        said += "".join(f"{found[row, start_at, n]:9.2f} ± {scatter[row, start_at, n]:.2f}" for n in (5, 100))
    print(f"{name:22}{said}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
predict.ask(
    "The paper, independent pairs: alignment takes FID from 34.5 to 52.2 with 5 steps, and from 4.35 to 3.79 with 100. What "
    "of it could the change of time in sampling explain?",
    ["the loss with 5 steps at most", "the gain with 100 steps at most", "the loss and the gain", "none of it"],
    answer=0,
    because="With 5 steps the error of the solver is large, and we have seen it grow by this change of time. With 100 it is "
    "small with either, and still larger with the aligned one: a gain there must come from training.",
)

# %% slideshow={"slide_type": "subslide"}
CHANGES = {
    "pruned over plain": lambda found, row, n: found[row, "pruned", n] / found[row, "source", n],
    "aligned over not": lambda found, row, n: found[row + "_norm", "source", n] / found[row, "source", n],
}
TABLES = {"paper": paper, "digits": ours, "CIFAR-10, small": small}
prune, align = CHANGES.values()
for title, change in CHANGES.items():
    print(f"{title:35}" + "".join(f"{n:7}" for n in NFE) + " steps")
    for row in NAMES if change is prune else NAMES[:2]:
        for table, found in TABLES.items():
            said = "".join(f"{change(found, row, n):7.2f}" for n in NFE)
            print(f"    {ROWS[row, 'source'] if table == 'paper' else '':22}{table:16}"[:42] + said)

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 2, height=4.0)
LOOKS = {"paper": (style.EXACT, "o"), "digits": (ORANGE, "s"), "CIFAR-10, small": (style.DATA, "^")}
for ax, (title, change) in zip(axes, CHANGES.items(), strict=True):
    for table, (color, mark) in LOOKS.items():
        for row, dash in (("ot", "-"), ("independent", "--")):
            label = f"{table}, {ROWS[row, 'source']}"
            values = [change(TABLES[table], row, n) for n in NFE]
            ax.plot(NFE, values, mark + dash, color=color, label=label, markersize=5, linewidth=1.6)
    ax.axhline(1, color=GREY, linewidth=1.0, zorder=0)
    ax.set(xscale="log", xlabel="Euler steps", title=title, xticks=NFE, xticklabels=NFE)
    ax.minorticks_off()
axes[0].set_ylabel("ratio of distances, below 1 is better")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Pruning helps with five and ten steps in all three tables. Alignment costs with five and ten steps in the paper and in
# our rows of CIFAR-10.** On the digits alignment changes little, and by as much with all budgets.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### How sure is that?
#
# All entries of a row start from the same noise samples, so five budgets are not five tests. For the digits we print the
# range of the gains, and the gains in standard errors of the difference of two means of five sets.

# %% slideshow={"slide_type": "fragment"}
for name, found in TABLES.items():
    values = [prune(found, row, n) for row in NAMES for n in NFE]
    said = f"{sum(value < 1 for value in values)} of {len(values)} entries better, from {1 - max(values):.0%} to {1 - min(values):.0%}"
    print(f"pruned: {name:17}{said}")
in_errors = [
    (ours[row, "source", n] - ours[row, "pruned", n])
    / math.hypot(spread[row, "source", n], spread[row, "pruned", n])
    * math.sqrt(recorded["lee2025/digits/ot"]["evaluation"]["generated_sets"])
    for row in NAMES
    for n in NFE
]
print(f"digits: gains of {min(in_errors):.1f} to {max(in_errors):.1f} standard errors each")
for row in NAMES[:2]:
    values = [align(ours, row, n) - 1 for n in NFE]
    print(f"digits, aligned, {ROWS[row, 'source']:12}: change of FD {min(values):+.0%} to {max(values):+.0%}")
of_rows = [spread[row, start_at, n] for row, start_at in ROWS for n in NFE]
print(f"digits: scatter of the sets of one entry {min(of_rows):.2f} to {max(of_rows):.2f}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The direction is the paper's; the evidence of the digits is weak.** Each of the twenty gains by pruning is about one
# standard error, and they are not independent. For alignment the digits show nothing beyond their scatter, with one
# training for each row: there $c$ is 1.25 in place of 2.04, and beyond ten steps the distances hardly depend on the
# steps.

# %% [markdown] slideshow={"slide_type": "subslide"}
# **On CIFAR-10 with the small network pruning helps with five and ten steps, and no longer with forty and a hundred;
# alignment costs, most with few steps.** That slope is the paper's, and it is that of the change of time. But here the
# ratios stay above 1, where the paper's fall below it after far more training. One training per row: whether the aligned
# network would catch up, these rows cannot tell.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The change of time alone, on photographs
#
# On CIFAR-10 $c$ is about 2, and the change of time can be tried apart from training. The network of `data/pretrained`
# was trained *without* alignment, with independent pairs. Its record has the same weights sampled in four ways: from all
# noise or from pruned noise ($\tau = .01$, $\tau_r = .048$), in steps equal in $t$ or equal in $s$.

# %% slideshow={"slide_type": "fragment"}
photos = recorded["cifar10"]["budgets"]
by_way = {(one["start"], one["steps"], one["nfe"]): one["frechet_distance"] for one in photos}
scatter = {(one["start"], one["steps"], one["nfe"]): one["spread"] for one in photos}
WAYS = {"plain": ("source", "uniform"), "pruned": ("pruned", "uniform")}
WAYS |= {"aligned, in time only": ("source", "aligned"), "both": ("pruned", "aligned")}
print(f"{'Euler steps':23}" + "".join(f"{n:>15}" for n in NFE))
for name, key in WAYS.items():
    print(f"{name:23}" + "".join(f"{by_way[(*key, n)]:8.2f} ± {scatter[(*key, n)]:4.2f}" for n in NFE))
time_costs = {n: by_way["source", "aligned", n] / by_way["source", "uniform", n] for n in NFE}
print(f"{'aligned over plain':23}" + "".join(f"{time_costs[n]:15.2f}" for n in NFE))
print(f"{'the same, paper':23}" + "".join(f"{align(paper, 'independent', n):15.2f}" for n in NFE))
photo_prune = {n: [by_way["pruned", k, n] / by_way["source", k, n] for k in ("uniform", "aligned")] for n in NFE}
print(f"{'pruned over not':23}" + "".join(f"{plain:9.2f}, {norm:.2f}" for plain, norm in photo_prune.values()))

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
record = recorded["cifar10"]
real = record["values"]["classifier_frechet_distance"]["held out (real)"]["value"]
said = f"{record['evaluation']['generated_sets']} sets, {record['evaluation']['generated']} images per entry"
print(f"{said}; as many real images {real:.2f}; {record['training']['epochs']:.1f} epochs of training")

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Pruning helps on photographs up to forty steps, with both kinds of steps, by 9% to 24%**, without any training for it.
# With forty steps the gain is no larger than the scatter of two sets. With a hundred steps there is none that could be
# told from chance, where the paper's table has 4% to 9%.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What the change of time explains
#
# **The loss with few steps.** In this network the change of time alone costs as much with five steps as the paper's
# trained networks lose (independent pairs), and more than they lose with ten, twenty and forty. With a hundred it costs
# next to nothing, and theirs gain 13%.
#
# If the change of time costs the paper's networks about as much as ours, then what training adds is a *gain*, from ten
# steps on. Where it comes from, these numbers do not say: the expected loss is the same in both times; what is left are
# the draws of times, the scaling of what the network reads and predicts, and the difference between any two trainings,
# about which the paper's table says nothing.

# %% [markdown] slideshow={"slide_type": "skip"}
# If the gain is in training, one may have it without the cost: train with norms aligned, and sample in steps equal in
# $t$. Nobody has shown that this works; it is one line with `scaled_up` and a factor of $1/c$.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Pruned in training too?
#
# The paper says no: trained and sampled with the pruned source it has 4.18 (OT pairs) and 4.17 (independent) at 100
# steps, pruned in sampling only 4.15 and 3.97. Together with alignment by *noise down*, ours, at 100 steps:

# %% slideshow={"slide_type": "fragment"}
PRUNED_PAPER = {"ot": 4.18, "independent": 4.17}
LINES = {
    "plain": ("{}", "source"),
    "pruned in sampling": ("{}", "pruned"),
    "pruned in training and sampling": ("pruned_{}", "source"),
    "aligned, data up": ("{}_norm", "source"),
    "aligned, noise down": ("{}_norm_down", "source"),
}
print(f"{'':33}digits: OT, independent      paper: OT, independent")
for label, (row, start_at) in LINES.items():
    said = ""
    for pairs in ("ot", "independent"):
        key = (row.format(pairs), start_at, 100)
        said += f"{ours[key]:.2f} ± {spread[key]:.2f}   " if key in ours else "          -   "
    theirs = [paper.get((row.format(pairs), start_at, 100)) for pairs in ("ot", "independent")]
    theirs = list(PRUNED_PAPER.values()) if row == "pruned_{}" else theirs
    print(f"{label:33}{said}   " + "  ".join("   -" if x is None else f"{x:.2f}" for x in theirs))

# %% [markdown] slideshow={"slide_type": "fragment"}
# **On the digits hardly one of these differences can be told from chance**: each row is one training, and its sets
# scatter by about a fifth of the value. *Data up* and *noise down* have the same change of time and the same pairs; they show the
# network numbers that are smaller by $c$, and differ in nothing else.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you saw

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
gaussian, of_exact = "Gaussian of the digits", "exact velocity of the digits"
at_photo, at_digits = f"c = {c_photo:.2f}", f"c = {c:.2f}"
steep = min(ratio for (power, _), ratio in power_ratio.items() if power >= 1)
order = {name: -plotting.slope(STEPS, errors_of) for name, errors_of in gaussian_error.items()}
own_factor = max(abs(ratio - 1) for title in (gaussian, of_exact) for ratio in ratio_of[title, at_digits])
exact_off = max(abs(z) for name in ("fmcore", "by hand") for z in errors[name])
largest_paper = max(prune(paper, row, n) for row in NAMES for n in NFE)
largest_ours = max(prune(ours, row, n) for row in NAMES for n in NFE)
small_prune = {n: [prune(small, row, n) for row in NAMES] for n in (5, 10, 40, 100)}
small_align = [align(small, row, n) for row in NAMES[:2] for n in NFE]
small_slope = min(align(small, row, 5) / align(small, row, 100) for row in NAMES[:2])
few_prune = [ratio for n in NFE[:-1] for ratio in photo_prune[n]]
more_than_paper = min(time_costs[n] / align(paper, "independent", n) for n in (10, 20, 40, 100))
saved = 1 / shares[0.15][1] / shares[0.15][2]
kept_difference = abs(float(split["network, 5 steps"]["rejected"].mean() - split["network, 5 steps"]["kept"].mean()))

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
first = [
    Claim("CIFAR-10: noise over images, mean lengths, the factor c", c_photo, about(2.038, 0.001), digits=3),
    Claim("aligned velocity by hand and exact one of scaled images: difference", gap_direct, below(1e-3)),
    Claim("ten Euler steps, aligned and at other times: difference", gap_euler, below(1e-3)),
    Claim("digits, 5 steps: error with c = 2.04 over equal in t", ratio_of[of_exact, at_photo][0], above(1.15)),
    Claim("aligned loss over c times the unaligned one", loss_ratio, between(0.95, 1.05)),
    Claim("exact samplers: mean of q and length, largest difference in standard errors", exact_off, below(3.5)),
    Claim(
        "without the coin toss: mean of q less plain rejection's, in standard errors",
        errors["no coin toss"][0],
        below(-4),
    ),
    Claim("pruned source in the plane: integral of the density", integral["kept noise, divided by Z"], about(1, 0.01)),
    Claim("share of held-out digits without density less share of noise rejected", no_density - (1 - Z), about(0, 0.1)),
    Claim("CIFAR-10 network, up to 40 steps, pruned over plain: largest of 8", max(few_prune), below(0.95)),
]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
of_norms = [
    Claim("noise in 3,072 dimensions: mean length", photo_noise.mean_norm, between(55.4, 55.5), digits=1),
    Claim("photographs: standard deviation of the length", photo_spread, about(6.83, 0.01), digits=2),
    Claim("digits: mean length", float(lengths.mean()), between(6.37, 6.38), digits=1),
    Claim("digits: factor c", c, between(1.24, 1.26), digits=2),
    Claim("factor by hand and in fmcore: difference", gap_factor, below(1e-9)),
    Claim("aligned velocity by hand and scaled_up: difference", gap_aligned, below(1e-3)),
    Claim("Euler's order on the Gaussian, equal in t", order["equal in t"], between(0.85, 1.05)),
    Claim("Euler's order on the Gaussian, c = 2.04", order[at_photo], between(0.85, 1.05)),
    Claim(
        "Gaussian: error with c = 2.04 over equal in t, 80 steps", ratio_of[gaussian, at_photo][-1], about(1.07, 0.02)
    ),
    Claim("digits: error with c = 2.04 over equal in t, smallest", min(ratio_of[of_exact, at_photo]), above(1.1)),
    Claim("digits: the same, largest", max(ratio_of[of_exact, at_photo]), below(1.6)),
    Claim("c = 1.25: largest relative change of an error", own_factor, below(0.12)),
    Claim("3,072 dimensions, power 1 and more: smallest ratio of errors", steep, above(1.1)),
    Claim("3,072 dimensions, power 1/2: the same for 100 steps", power_ratio[0.5, 100], below(1)),
    Claim("batches of 8 whose optimal pairs stay", same_pairs, exactly(8)),
]
of_pruning = [
    Claim("digits: rejected ends of 128 at tau = 0.1", rejected, exactly(46)),
    Claim("share rejected at 0.25, by hand less fmcore", gap_share, below(0.01)),
    Claim("threshold 0.25: share of noise rejected", float((worst > 0.25).float().mean()), between(0.66, 0.7)),
    Claim("the same: share of held-out digits", unseen_above[0.25], exactly(0)),
]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
of_pruning += [
    Claim("without a fresh length: mean length, in standard errors", errors["neither"][1], below(-4)),
    Claim("threshold 0.15: proposals saved, plain over exact sampler", saved, above(100)),
    Claim("threshold 0.25: share kept, from the rate over counted", shares[0.25][1] / shares[0.25][0], about(1, 0.07)),
    Claim("CIFAR-10: proposals per sample, plain", plain_way, about(14519, 1), digits=0),
    Claim("CIFAR-10: proposals per sample, exact sampler", fast_way, about(3.1, 0.05), digits=1),
    Claim(
        "plane: integral without division by Z, less Z",
        integral["kept noise, not divided by Z"] - Z_plane,
        about(0, 0.01),
    ),
    Claim("share of held-out digits without density", no_density, between(0.55, 0.75)),
    Claim("digits, 5 steps: FD from rejected less from kept starts", kept_difference, below(0.3)),
]
of_tables = [
    Claim("paper, pruned over plain: largest of 20", largest_paper, about(0.963, 0.002), digits=2),
    Claim("records of digits, pruned over plain: largest of 20", largest_ours, below(1)),
    Claim("the same: largest gain in standard errors", max(in_errors), below(2)),
    Claim("small network on CIFAR-10, 5 steps, pruned over plain: largest of 4", max(small_prune[5]), below(0.97)),
    Claim("the same, 10 steps", max(small_prune[10]), below(0.98)),
    Claim("the same, 40 steps: smallest of 4", min(small_prune[40]), above(0.99)),
    Claim("the same, 100 steps: smallest of 4", min(small_prune[100]), above(1)),
    Claim("small network, aligned over not: smallest of 10", min(small_align), above(1.1)),
    Claim("small network, aligned over not: 5 steps over 100, smaller of 2", small_slope, above(1.1)),
]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
of_tables += [
    Claim("paper, independent, 5 steps: aligned over not", align(paper, "independent", 5), about(1.51, 0.01), digits=2),
    Claim(
        "paper, independent, 100 steps: aligned over not", align(paper, "independent", 100), about(0.87, 0.01), digits=2
    ),
    Claim("CIFAR-10 network, 5 steps: aligned over plain, time only", time_costs[5], between(1.5, 1.65)),
    Claim("the same, 40 steps", time_costs[40], between(1.1, 1.25)),
    Claim("the same over the paper's ratio, 10 steps and more: smallest", more_than_paper, above(1.1)),
    Claim("CIFAR-10 network, 100 steps, pruned over plain: smaller of 2", min(photo_prune[100]), above(0.95)),
]

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
claims.table(first + of_norms + of_pruning + of_tables)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## To remember
#
# - For straight paths norm alignment is a reparametrization of time. The samples of the exact flow, the expected loss of
#   any velocity (but for the factor $c$) and the optimal pairs stay the same. Euler's steps and the draws of training times change.
# - Aligned, Euler takes long steps first, and that costs: on CIFAR-10, with five steps, about as much as the paper's
#   trained networks lose. What they gain with many steps must come from training.
# - Pruning changes the source. An exact flow could only lose by it; a network gains if it errs most from the starts that
#   are left out.
# - In many dimensions, propose near the kept region and correct by one coin toss: the same distribution, thousands of
#   times as fast. A test of a sampler has to look at what the correction corrects.
# - The likelihood of a flow belongs to the source of its training. Under a pruned source most data may have none.

# %% [markdown] slideshow={"slide_type": "skip"}
# ## References
#
# - Lee, Kim and Lee (2025). *Is There a Better Source Distribution than Gaussian?* arXiv:2512.18184.
# - Karras, Aittala, Aila and Laine (2022). *Elucidating the Design Space of Diffusion-Based Generative Models.* NeurIPS.
# - Tong and others (2024). *Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport.*
#   Transactions on Machine Learning Research.
# - Chen, Rubanova, Bettencourt and Duvenaud (2018). *Neural Ordinary Differential Equations.* NeurIPS.
# - Devroye (1986). *Non-Uniform Random Variate Generation.* Springer.
#
# Where to read on: Karras and others on scaling, time steps and preconditioning, which is what norm alignment comes down
# to; Devroye on rejection sampling and what makes it exact.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# In [exercises/11_norms_and_pruning.ipynb](exercises/11_norms_and_pruning.ipynb); each has a check that says what is
# wrong.
#
# 1. **Four ways to align norms,** and a test that misses a fault.
# 2. **The velocity of noise down** from the unaligned one.
# 3. **A rule that rejects every end** has three faults.
# 4. **The coin toss makes the sampler exact,** and its rate gives the share kept.
# 5. **What pruning costs an exact flow,** by two measures of distributions.
# 6. **Is the alignment factor the best one?** Euler's error for many factors and kinds of data.
#
# <!-- next: written by fmcore.course.build -->
#
# This is the last chapter. The map of all of them is in [00 Start here](00_start_here.ipynb).
#
# <!-- end of next -->
