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
# A point of a Gaussian source has a length and a direction. This chapter changes one at a time, and leaves the rest of
# flow matching as it is. *Norm alignment* gives source and data the same mean length. *Pruning* throws away starts that
# point where no data are, with networks that were never told. Both come from Lee, Kim and Lee 2025. We ask of each what it
# really changes, before we look at how much it helps.

# %% slideshow={"slide_type": "skip"}
import math

import torch

from fmcore import closed_form, couplings, data, metrics, paths, solvers, sources, training, velocity
from fmcore.course import card, claims, plotting, predict, style, widgets
from fmcore.course.claims import Claim, above, below, between, exactly
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
        "show that for straight paths norm alignment is another clock, and get the aligned flow without training",
        "tell what a change of clock does to Euler's steps, to the loss and to optimal pairs",
        "find directions without data, and draw exactly from a Gaussian without them, in any dimension",
        "read a table of five budgets: what holds on other data, and what does not",
    ],
    before=["chapter 03: the loss", "chapter 05: mini-batch optimal transport", "chapters 09 and 10: other sources"],
    exercises=[
        "1. The clock of aligned norms",
        "2. The aligned velocity",
        "3. Ends without data",
        "4. A sampler that wastes less",
    ],
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Lengths
#
# Noise $x_0 \sim \mathcal{N}(0, I)$ in $d$ dimensions: the squared length $\|x_0\|^2$ is a sum of $d$ squares of mean 1 and variance
# 2. So it is about $d$, give or take $\sqrt{2d}$, and the length itself is
#
# $$
# \|x_0\| \approx \sqrt{d \pm \sqrt{2 d}} \approx \sqrt{d} \pm \tfrac{1}{\sqrt 2} .
# $$
#
# The spread does not grow with $d$. In 3,072 dimensions, the size of a CIFAR-10 image, noise lies in a thin shell of
# radius 55.4.

# %% slideshow={"slide_type": "fragment"}
path = paths.rectified()
digits = data.digits()
images = digits.scaled(digits.train)  # (1500, 1, 8, 8) in (-1, 1)
lengths = images.flatten(1).norm(dim=1)
noise_source = sources.Gaussian((1, 8, 8))
recorded = reference.find_records([reference.RESULTS])
of_photos = recorded["lee2025/geometry/cifar10"]["values"]  # measured on all 50,000 training images
PHOTO_LENGTH = of_photos["mean_length"]["images"]["value"]  # in [-1, 1]

for name, shape, of_data in (("digits", (1, 8, 8), float(lengths.mean())), ("CIFAR-10", (3, 32, 32), PHOTO_LENGTH)):
    d = math.prod(shape)
    noise = sources.Gaussian(shape).sample(2000, torch.Generator().manual_seed(0)).flatten(1).norm(dim=1)
    exact_mean = sources.Gaussian(shape).mean_norm
    said = (
        f"noise {exact_mean:.2f} (2,000 samples: {noise.mean():.2f} ± {noise.std():.2f}, square root of d {d**0.5:.2f})"
    )
    print(f"{name:9} d = {d:5,}   {said}   images {of_data:.2f}   ratio {exact_mean / of_data:.3f}")

# %% slideshow={"slide_type": "subslide"}
noise = noise_source.sample(5000, torch.Generator().manual_seed(1)).flatten(1).norm(dim=1)
figure, axes = plotting.canvas(1, 2, height=3.2)
plotting.histogram(
    {"noise": noise, "digits": lengths},
    colors={"noise": style.SOURCE, "digits": style.DATA},
    xlabel="length",
    title="8x8 pixels",
    ax=axes[0],
)
photo_noise = sources.Gaussian((3, 32, 32)).sample(2000, torch.Generator().manual_seed(2)).flatten(1).norm(dim=1)
plotting.histogram(
    {"noise": photo_noise}, colors={"noise": style.SOURCE}, xlabel="length", title="CIFAR-10", ax=axes[1]
)
axes[1].axvline(PHOTO_LENGTH, color=style.DATA, label="images, mean length")
axes[1].set_xlim(0, 62)
axes[1].legend(loc="upper left", fontsize=9)
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# Lee et al. call it **norm misalignment**: on the way from noise to image a point has to change its direction *and* to shrink, to a
# half for photographs. (Not every image does: a very bright or a very dark one is as long as noise. The mean is meant.) Nothing
# is wrong with a flow that shrinks; the question is whether one that need not is easier to learn or to follow.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Norm alignment, two ways
#
# One number, the **factor** $c = \mathbb{E}\|x_0\| \,/\, \mathbb{E}\|x_1\|$, with $x_1$ a training image. Two ways to use it:
#
# - **data up**, as the text of the paper has it: train on $c\, x_1$, and divide what the flow draws by $c$.
# - **noise down**, as the notes of the paper's code have it: start from $x_0 / c$, and leave the images as they are.

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
print(f"digits: c = {c:.4f}")
print(f"data up:    images {length_up:.2f}, noise {noise_source.mean_norm:.2f}")
print(f"noise down: images {lengths.mean():.2f}, noise {length_down:.2f}")
c_photo = sources.alignment_factor(sources.Gaussian((3, 32, 32)), PHOTO_LENGTH)
print(f"CIFAR-10: c = {c_photo:.4f}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Another clock
#
# The flow of chapter 03 goes along $x_t = (1-t)\, x_0 + t\, x_1$. The aligned one (data up) goes along $y_s = (1-s)\, x_0 + s\, c\, x_1$,
# with its time called $s$. Both are mixtures of the same two points. Divide $y_s$ by the sum of its two weights:
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
# A point of one path *is* a point of the other, read off at another time and magnified. This holds for each pair, so it holds for
# the averages over pairs too. By the chain rule, with $dt/ds = c / a^2$ and $v$ the velocity of $x$,
#
# $$
# \frac{dy}{ds} = (c-1)\, x + a\, \frac{dt}{ds}\, v(x, t) = \frac{(c-1)\, y + c\, v(y/a,\, t)}{a} .
# $$
#
# The aligned velocity follows from the unaligned one. Nothing has to be trained for it.

# %% slideshow={"slide_type": "fragment"}
exact = closed_form.EmpiricalVelocity(images)
generator = torch.Generator().manual_seed(4)
x1 = images[torch.randint(len(images), (64,), generator=generator)]
x0 = torch.randn(x1.shape, generator=generator)


def clock(s, factor):
    """The time t of the unaligned path that belongs to the time s of the aligned one."""
    return factor * s / (1 - s + factor * s)


s = torch.tensor(0.4)
a = 1 - s + c_photo * s
y = (1 - s) * x0 + s * c_photo * x1
gap_point = float((y - a * path.interpolate(x0, x1, clock(s, c_photo))).abs().max())
aligned = ((c_photo - 1) * y + c_photo * exact(y / a, clock(s, c_photo))) / a
same = velocity.scaled_up(exact, c_photo)(y, s)
direct = closed_form.EmpiricalVelocity(c_photo * images)(y, s)  # the exact velocity of the scaled-up images
gap_aligned, gap_direct = float((aligned - same).abs().max()), float((aligned - direct).abs().max())
assert max(gap_point, gap_aligned, gap_direct) < 1e-3, (gap_point, gap_aligned, gap_direct)
print(
    f"largest differences: point {gap_point:.0e}, by hand and fmcore {gap_aligned:.0e}, exact velocity {gap_direct:.0e}"
)

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "c = 2.04, as for CIFAR-10. Ten Euler steps, equal in s. Seen on the clock t of the flow without alignment, they are",
    [
        "equal as well: the samples end at the same place",
        "long at first and short near the data",
        "short at first and long near the data",
    ],
    answer=1,
    because="dt/ds = c / a^2 is c at the start, where a = 1, and 1/c at the end, where a = c. The first step is twice as long as "
    "an equal one, the last half as long.",
)

# %% slideshow={"slide_type": "fragment"}
ticks = torch.linspace(0, 1, 101)
figure, axes = plotting.canvas(1, 3, height=3.2)
for row, (factor, color) in enumerate(((1.0, style.MUTED), (c, style.MODEL), (c_photo, style.DATA))):
    label = f"c = {factor:.2f}"
    axes[0].plot(ticks, clock(ticks, factor), color=color, label=label)
    axes[1].plot(ticks, factor / (factor - (factor - 1) * ticks) ** 2, color=color, label=label)
    grid = clock(torch.linspace(0, 1, 11), factor)
    axes[2].plot(grid, torch.full((11,), -float(row)), "|", markersize=22, markeredgewidth=2, color=color)
axes[0].set(xlabel="s, aligned", ylabel="t", title="the two clocks")
axes[0].legend(fontsize=9)
axes[1].set(xlabel="t", ylabel="density of t", title="s drawn uniformly", ylim=(0, None))
axes[2].set(xlabel="t", title="ten equal steps in s", yticks=[], ylim=(-2.6, 0.6))
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# And not only roughly: a step of Euler on $y$ from $s$ to $s'$ *is* a step of Euler on $x$ from $t$ to $t'$. Write it down,
# with $a'$ for $a$ at $s'$, and use $a + (s' - s)(c - 1) = a'$:
#
# $$
# a' x' = a x + (s' - s) \big( (c-1)\, x + \tfrac{c}{a} v \big)
# \quad\Longrightarrow\quad
# x' = x + \frac{(s'-s)\, c}{a\, a'}\, v = x + (t' - t)\, v .
# $$
#
# So solving the aligned flow with Euler means to choose other times for the unaligned one, to the last digit. The samples of
# both clocks differ by the errors of the solver and by nothing else.

# %% slideshow={"slide_type": "fragment"}
start = torch.randn(200, 1, 8, 8, generator=torch.Generator().manual_seed(5))


def on_clock(v, x, steps, factor):
    """Euler steps at times that are equal on the clock of `factor`; 1 for equal times."""
    times = clock(torch.linspace(0, 1, steps + 1, dtype=torch.float64), factor)
    return solvers.solve(v, x, method="euler", times=times).x


one = solvers.solve(velocity.scaled_up(exact, c_photo), start[:20], method="euler", steps=10).x / c_photo
two = on_clock(exact, start[:20], 10, c_photo)
gap_euler = float((one - two).abs().max())
assert gap_euler < 1e-3, gap_euler
print(f"ten Euler steps of the aligned flow and at the other times of the unaligned one: {gap_euler:.0e}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Which steps are better?
#
# That can be measured without a network, where the end of every path is known. First a **Gaussian** with the mean $m$ and the
# covariance of the digits. In its principal axes, of variance $\lambda$, the flow is
#
# $$
# x_t = t\, m + \sqrt{(1-t)^2 + t^2 \lambda}\; x_0
# \quad\Longrightarrow\quad
# v(x, t) = m + \frac{t \lambda - (1-t)}{(1-t)^2 + t^2 \lambda}\, (x - t\, m) ,
# $$
#
# and it ends at $m + \sqrt{\lambda}\, x_0$. Then the **exact velocity** of the 1,500 digits, against its own end in 300 steps.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Equal steps in s put more of them near the data, where u* must choose an image. With 5 or 10 steps, c = 2.04: the error "
    "of Euler against that of equal steps in t is",
    [
        "smaller: more steps where it matters",
        "larger: the long steps at the start cost more than the short ones save",
        "equal",
    ],
    answer=1,
    because="With five steps the first two already reach t = 0.58, where digits are all but decided (chapter 07). After that the exact "
    "paths are straight lines to one image, and short steps have nothing to save.",
)

# %% slideshow={"slide_type": "fragment"}
flat = images.flatten(1).double()
mean, (variances, basis) = flat.mean(0), torch.linalg.eigh(torch.cov(flat.T))
variances = variances.clamp(min=0)


def gaussian_velocity(x, t):
    """The exact velocity of the Gaussian with the digits' mean and covariance, at x (B, 64) float64."""
    z, m = x @ basis, mean @ basis
    pull = (t * variances - (1 - t)) / ((1 - t) ** 2 + t**2 * variances)
    return (m + pull * (z - t * m)) @ basis.T


flat_start = torch.randn(500, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
flat_end = mean + (variances.sqrt() * (flat_start @ basis)) @ basis.T
STEPS = (5, 10, 20, 40, 80)
FACTORS = {"equal in t": 1.0, f"c = {c:.2f}": c, f"c = {c_photo:.2f}": c_photo}
gaussian_error = {
    name: [float((on_clock(gaussian_velocity, flat_start, n, f) - flat_end).norm(dim=1).mean()) for n in STEPS]
    for name, f in FACTORS.items()
}
for name, errors in gaussian_error.items():
    print(f"Gaussian, {name:11} " + "  ".join(f"{n} steps: {e:.3f}" for n, e in zip(STEPS, errors, strict=True)))

# %% slideshow={"slide_type": "fragment"}
empirical_end = on_clock(exact, start, 300, 1.0)
empirical_error = {
    name: [float((on_clock(exact, start, n, f) - empirical_end).flatten(1).norm(dim=1).mean()) for n in STEPS[:4]]
    for name, f in FACTORS.items()
}
for name, errors in empirical_error.items():
    print(f"digits, {name:11} " + "  ".join(f"{n} steps: {e:.2f}" for n, e in zip(STEPS[:4], errors, strict=True)))

figure, axes = plotting.canvas(1, 2, height=3.6)
colors = dict(zip(FACTORS, (style.MUTED, style.MODEL, style.DATA), strict=True))
plotting.error_against(STEPS, gaussian_error, colors=colors, title="Gaussian of the digits", ax=axes[0])
plotting.error_against(STEPS[:4], empirical_error, colors=colors, title="exact velocity of the digits", ax=axes[1])
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# The order is Euler's on either clock, close to 1 for the Gaussian: a smooth change of clock changes the constant, not the order.
# With $c = 2.04$ the constant is *larger*, by a twelfth for the Gaussian. For the digits the error is larger by a fifth to two fifths.
# Their own $c = 1.25$ hardly matters.
#
# A third example with the numbers of the paper: a Gaussian in 3,072 dimensions with the mean length of CIFAR-10. In its place for
# photographs, whose variances along principal axes fall about like a power, we take $\lambda_k \propto k^{-p}$. Its axes do not
# mix, so that a list of numbers is all that is needed.


# %% slideshow={"slide_type": "fragment"}
def power_error(power, steps, factor):
    """Euler's error, root mean square over noise, for a centred Gaussian in 3,072 dimensions of mean length 27.2."""
    lam = torch.arange(1, 3073, dtype=torch.float64) ** -power
    lam *= PHOTO_LENGTH**2 / lam.sum()
    unit = torch.ones(1, 3072, dtype=torch.float64)  # each axis is scaled by a number: follow that number
    end = on_clock(lambda x, t: (t * lam - (1 - t)) / ((1 - t) ** 2 + t**2 * lam) * x, unit, steps, factor)
    return float((end - lam.sqrt()).norm())


power_ratio = {}
for power in (0.5, 1.0, 1.5, 2.0):
    for n in (5, 10, 20, 100):
        power_ratio[power, n] = power_error(power, n, c_photo) / power_error(power, n, 1.0)
    said = "   ".join(f"{n} steps: {power_ratio[power, n]:.2f}" for n in (5, 10, 20, 100))
    print(f"variances like k^-{power}: error aligned over error unaligned   {said}")

# %% [markdown] slideshow={"slide_type": "skip"}
# Where the variances fall steeply, as those of photographs do, the aligned clock has the *larger* error with every number of steps. With
# nearly equal variances ($p = 1/2$), where all that the flow has to do is to shrink, it has the smaller one.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What the clock does to the loss
#
# Training draws $s$ uniformly. On the clock $t$ this is the density $ds/dt = c / b^2$ with $b = c - (c-1)\, t$: late times $c$ times as
# often as before, early ones $c$ times as seldom. One would think that the network now cares more about late times. But an error of
# $v$ also counts differently: the velocity of $y$ has $c/a = b$ times the error of the velocity of $x$, and its square $b^2$ times.
# Together,
#
# $$
# \int_0^1 \| \text{error of } dy/ds \|^2\, ds = \int_0^1 b^2\, \| \text{error of } v \|^2\, \frac{c}{b^2}\, dt = c \int_0^1 \| \text{error of } v \|^2\, dt .
# $$
#
# **The weights cancel.** The aligned loss is $c$ times the unaligned one, for every $v$, whether it is exact or a poor network. What
# changes is *how* the same integral is sampled, and the noise of that. We check it on a network, trained as in the records of below.


# %% slideshow={"slide_type": "fragment"}
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
generator = torch.Generator().manual_seed(7)
x1 = images[torch.randint(len(images), (4096,), generator=generator)]
x0 = torch.randn(x1.shape, generator=generator)
even = (torch.arange(4096) + 0.5)[
    torch.randperm(4096, generator=generator)
] / 4096  # uniform, without the noise of chance


def each_loss(v, x0, x1, times):
    """The loss of each pair at its own time, (n,)."""
    xt, target = path.interpolate_with_target(x0, x1, times)
    with torch.no_grad():
        return (v(xt, times) - target).square().flatten(1).mean(1)


plain = each_loss(network, x0, x1, even)
scaled = each_loss(velocity.scaled_up(network, c_photo), x0, c_photo * x1, even)
loss_ratio = float(scaled.mean() / (c_photo * plain.mean()))
relative = {"s": float(scaled.std() / scaled.mean()), "t": float(plain.std() / plain.mean())}
print(f"c = {c_photo:.2f}: aligned loss {scaled.mean():.3f}, c times the unaligned {c_photo * plain.mean():.3f}")
print(f"single draws, spread over mean: time uniform in t {relative['t']:.2f}, uniform in s {relative['s']:.2f}")

# %% [markdown] slideshow={"slide_type": "skip"}
# The two agree to the noise of 4,096 draws. (By the way, single draws scatter alike on both clocks.)
#
# So alignment does not shift what is to be learned. What is left of it in
# training: other draws of the same integral; and a network sees $y$ and predicts $dy/ds$, numbers of another size at another time,
# with the same learning rate as before. For a given network those are matters of scaling its input and output, called
# preconditioning.
#
# ### And optimal pairs
#
# Mini-batch OT (chapter 05) pairs a batch so that $\sum_i \|x_0^{(\pi(i))} - x_1^{(i)}\|^2$ is least over permutations $\pi$. With data up,
#
# $$
# \| x_0 - c\, x_1 \|^2 = \| x_0 \|^2 - 2 c\, x_0 \cdot x_1 + c^2 \| x_1 \|^2 ,
# $$
#
# and the sums of the first and the last term are the same for all permutations. What remains is $c$ times what it was: the pairs do
# not change.

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
# Now the direction. Where, seen from the origin, are no data at all? Lee et al. look along axes: the principal components of the
# directions of the data, each with its two ends $a$ and $-a$. An end is **rejected** if no training point comes near it:
#
# $$
# \max_i \cos(x^{(i)}, a) \le \tau .
# $$
#
# Noise $x_0$ is then kept if its cosine with every rejected end is at most a second number, $\tau_r$: a cone around each rejected end is
# cut out. This is done when *sampling*, with a network that was trained on all noise. Below, data in the plane, two clusters; one of
# four ends is rejected. On the right the same for digits: the share of noise that is thrown away.


# %% slideshow={"slide_type": "skip"}
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
worst = axes_of_digits.largest_cosine(many)  # of each noise with the nearest rejected end
THRESHOLDS = [round(0.05 * k, 2) for k in range(2, 20)]


# %% slideshow={"slide_type": "skip"}
def pruning_picture(threshold):
    """Left: kept and rejected noise in the plane. Right: share of the digits' noise that is rejected."""
    figure, (left, right) = plotting.canvas(1, 2, height=4.4)
    kept = plane_axes.largest_cosine(plane_noise) <= threshold
    left.scatter(*plane_noise[kept].T, s=6, color=style.SOURCE, linewidths=0, label="kept noise")
    left.scatter(*plane_noise[~kept].T, s=6, color=style.MUTED, linewidths=0, label="rejected")
    left.scatter(*plane.T, s=12, color=style.DATA, linewidths=0, label="data")
    ends = torch.cat([plane_axes.axes[plane_axes.positive], -plane_axes.axes[plane_axes.negative]])
    for x, y in 2.6 * ends:
        left.annotate("", (float(x), float(y)), (0, 0), arrowprops={"arrowstyle": "->", "color": style.BAD, "lw": 2})
    style.blank(left, 3.4).legend(loc="lower right", fontsize=9, markerscale=2)
    left.set_title(f"plane: {float((~kept).float().mean()):.0%} rejected")
    fine = torch.linspace(0.05, 1, 191)
    right.plot(fine, [float((worst > u).float().mean()) for u in fine], color=style.MODEL)
    share = float((worst > threshold).float().mean())
    right.plot(threshold, share, "o", color=style.MODEL)
    right.set(xlabel=r"threshold $\tau_r$", ylabel="share of noise rejected", title=f"digits: {share:.1%} rejected")
    return figure


# %% slideshow={"slide_type": "fragment"}
widgets.explore(pruning_picture, threshold=widgets.choice(THRESHOLDS, value=0.25, label="threshold τ_r"))

# %% [markdown] slideshow={"slide_type": "notes"}
# The red arrow is the rejected end. At which threshold does the cut reach the data? And at which does nothing happen any more, in the
# plane and in 64 dimensions? In the plane a cone of $\tau_r = 0.25$ takes 42% of all directions. In 64 dimensions a cosine with a
# *given* end is about $0 \pm 1/\sqrt{64}$, so that 0.25 is two standard deviations: one cone takes 2%, and only many of them take much.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Ends without data, of digits
#
# In a few lines, and then `sources.pruning_axes`. The signs of principal components are arbitrary, so both ends have to be looked at;
# the code of the paper prunes by one in its simulation. Mirror images do not count: a mirrored digit is no digit.

# %% slideshow={"slide_type": "fragment"}
unit = flat / flat.norm(dim=1, keepdim=True)
components = torch.linalg.eigh(torch.cov(unit.T)).eigenvectors.T
cosines = unit @ components.T
largest = torch.cat([cosines.amax(0), (-cosines).amax(0)])  # of any digit with +a and with -a
by_hand_ends = torch.cat([components, -components])[largest <= TAU]

rejected = axes_of_digits.count
hand_worst = ((many.flatten(1).double() @ by_hand_ends.T) / many.flatten(1).double().norm(dim=1, keepdim=True)).amax(1)
gap_share = abs(float((hand_worst > 0.25).double().mean() - (worst > 0.25).double().mean()))
assert len(by_hand_ends) == rejected, (len(by_hand_ends), rejected)
print(
    f"tau = {TAU}: {rejected} of 128 ends are rejected; share of noise rejected, by hand less fmcore: {gap_share:.4f}"
)
unseen = axes_of_digits.largest_cosine(digits.scaled(digits.held_out))
unseen_above = {u: float((unseen > u).float().mean()) for u in (0.1, 0.25)}
print(
    f"held-out digits with a cosine above 0.1 with a rejected end: {unseen_above[0.1]:.1%}, above 0.25: {unseen_above[0.25]:.1%}"
)

# %% slideshow={"slide_type": "subslide"}
figure, (upper, lower) = plotting.canvas(2, 1, height=4.4, height_ratios=[1, 1.5])
shown = by_hand_ends[:: max(1, len(by_hand_ends) // 12)][:12]
low_rejected = (shown / shown.abs().amax(1, keepdim=True)).view(-1, 1, 8, 8)
plotting.images(low_rejected, columns=12, title="some rejected ends", ax=upper)
sets = {"noise": worst, "digits": axes_of_digits.largest_cosine(images), "digits, held out": unseen}
plotting.histogram(
    sets,
    colors={"noise": style.SOURCE, "digits": style.DATA, "digits, held out": style.PATH},
    xlabel="largest cosine with a rejected end",
    ax=lower,
)
lower.axvline(0.25, color=style.EXACT, linewidth=1.2)
lower.text(0.255, lower.get_ylim()[1] * 0.9, r"$\tau_r = 0.25$", fontsize=10, va="top")
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# Rejected ends of digits are patterns of fine detail, of small variance, and of pixels at the edges that are never written on.
# Digits, also the held-out ones, stay well below 0.25. Two thirds of all noise lie above.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What it costs
#
# The plain way: draw noise, keep it if it passes. For CIFAR-10 with $\tau = 0.01$ the share that passes is tiny. Our shares, with the
# mirror images as in training, beside the paper's:

# %% slideshow={"slide_type": "fragment"}
told = reference.read_reference("lee2025_geometry")
PAPER_REJECTS = {float(row["of"]): float(row["value"]) for row in told if row["measure"] == "rejected_percent"}
rejects = {}
for version, found in of_photos["rejected_share"].items():
    rejects[version] = {float(threshold): 100 * one["value"] for threshold, one in found.items()}
    ends = of_photos["rejected_ends"][version]["ends"]["value"]
    print(f"CIFAR-10 {version}, {ends:,} of 6,144 ends rejected; noise rejected, ours and the paper's:")
    for threshold, theirs in PAPER_REJECTS.items():
        print(f"    threshold {threshold:.3f}: {rejects[version][threshold]:6.2f}%   {theirs:6.2f}%")
plain_way, fast_way = (of_photos["proposals"]["with mirror images"][way]["value"] for way in ("plain", "truncated"))
print(f"threshold 0.048: about {plain_way:,.0f} proposals per sample, or {fast_way:.1f} with what follows")

# %% [markdown] slideshow={"slide_type": "skip"}
# The same steep fall. With mirror images, which the paper says it uses, ours rejects a little less between 0.05 and 0.07, up to 6 in 100;
# without them more ends are rejected, and the shares are nearer to the paper's at most thresholds, at 0.08 farther. Which images the paper's
# axes come from we do not know. `fmcore measure lee2025/geometry/cifar10` does all of this again, in some minutes.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "To waste less, one could draw each coordinate along a rejected end from a normal cut off at the bound tau_r sqrt(d), where "
    "most cosines pass, and keep what passes. Is the result the pruned Gaussian?",
    [
        "yes: what does not pass is thrown away anyway",
        "no: some noise that passes could not be drawn, and lengths and directions are no longer independent",
        "yes, in the limit of many proposals",
    ],
    answer=1,
    because="Long noise with a small cosine has large coordinates: cut off, although it passes. The bound is on coordinates, the rule "
    "on cosines. The repair is one more coin toss.",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### An exact sampler
#
# Write noise as length times direction, $x_0 = r\, u$. For a Gaussian, $r$ and $u$ are independent, and whether $x_0$ is kept depends on
# $u$ alone, through $m(u)$, its largest cosine with a rejected end.
#
# 1. **Propose** a Gaussian whose coordinates along rejected ends are cut off at a bound $\beta$. That is a Gaussian given $r\, m(u) \le \beta$.
#    So its direction has a density proportional to $P(r \le \beta / m(u)) = F(\beta / m(u))$, with $F$ the distribution function of the
#    length.
# 2. **Accept** with the probability $F(\beta / \tau_r)\, /\, F(\beta / m(u))$ if $m(u) \le \tau_r$, and not otherwise. It is at most 1, and the product of
#    both is the same for all directions that are kept: uniform.
# 3. Give the direction a **fresh length**.
#
# This is exact for every $\beta$; `sources.Pruned` takes the one with most acceptances. By hand, for $d = 64$:


# %% slideshow={"slide_type": "fragment"}
def cut_normal(n, axes, bound, generator):
    """Gaussians (n, 64) whose coordinates along rejected ends are at most the bound, by the inverse of their cdf."""
    low = torch.where(axes.negative, torch.special.ndtr(torch.tensor(-bound).double()), 0.0)
    high = torch.where(axes.positive, torch.special.ndtr(torch.tensor(bound).double()), 1.0)
    u = torch.rand(n, 64, generator=generator, dtype=torch.float64)
    return torch.special.ndtri((low + (high - low) * u).clamp(1e-15, 1 - 1e-15)) @ axes.axes.double()


def shorter(length):
    """F, the share of noise that is shorter."""
    return torch.special.gammainc(torch.tensor(32.0).double(), torch.as_tensor(length).double() ** 2 / 2)


def pruned_by_hand(n, axes, threshold, bound, generator):
    """About as many of n proposals as are accepted."""
    x = cut_normal(n, axes, bound, generator)
    m = axes.largest_cosine(x)
    chance = shorter(bound / threshold) / shorter(bound / m.clamp(min=1e-9))
    x = x[(m <= threshold) & (torch.rand(n, generator=generator) < chance)]
    fresh = torch.randn(len(x), 64, generator=generator, dtype=torch.float64).norm(dim=1, keepdim=True)
    return (fresh * x / x.norm(dim=1, keepdim=True)).float()


# %% slideshow={"slide_type": "fragment"}
pruned = sources.Pruned(noise_source, axes_of_digits, threshold=0.25)
generator = torch.Generator().manual_seed(10)
fast, proposals = pruned.sample_counted(2000, generator)
hand = pruned_by_hand(6000, axes_of_digits, 0.25, 2.0, generator)  # another bound than that of fmcore
rejection = many[worst <= 0.25][:2000]
cut_only = cut_normal(6000, axes_of_digits, 2.0, generator)
cut_only = cut_only[axes_of_digits.largest_cosine(cut_only) <= 0.25].float()  # without the coin toss


def two_sample(a, b, shuffles=19):
    """The energy distance of two sets, and the largest among sets shuffled together."""
    a, b = a.flatten(1)[:1000], b.flatten(1)[:1000]
    both, found = torch.cat([a, b]), []
    for k in range(shuffles):
        mixed = both[torch.randperm(len(both), generator=torch.Generator().manual_seed(k))]
        found.append(metrics.energy_distance(mixed[: len(a)], mixed[len(a) :]))
    return metrics.energy_distance(a, b), max(found)


tests = {"fmcore": fast, "by hand": hand, "cut off and checked, no coin": cut_only, "unpruned noise": many[-2000:]}
tests = {name: two_sample(x, rejection) for name, x in tests.items()}
for name, (distance, chance) in tests.items():
    print(f"plain rejection against {name:29} energy distance {distance:7.4f}, by chance up to {chance:.4f}")
plain_proposals = 1 / float((worst <= 0.25).float().mean())
print(f"proposals per sample: plain {plain_proposals:.1f}, fmcore {proposals / 2000:.1f}")

# %% [markdown] slideshow={"slide_type": "skip"}
# The exact samplers cannot be told from plain rejection, with two bounds; without the coin toss the test notices.
# On the digits little is saved, since a third of all noise
# passes. The gain comes with the dimension: at the paper's threshold 2.9 proposals in place of about 15,000.
#
# The acceptance rate also gives the **share kept**, by multiplication with a known number, where plain rejection would find nothing to count.

# %% slideshow={"slide_type": "fragment"}
shares = {}
for threshold in (0.15, 0.2, 0.25, 0.3, 0.35):
    one = sources.Pruned(noise_source, axes_of_digits, threshold)
    counted = one.sample_counted(1000, torch.Generator().manual_seed(11))[1] / 1000
    estimate = one.share_kept(20_000, torch.Generator().manual_seed(12))
    shares[threshold] = float((worst <= threshold).float().mean()), estimate, counted
    said = f"kept: counted {shares[threshold][0]:.2%}, from the rate {estimate:.2%}"
    print(f"threshold {threshold:.2f}   {said}   proposals: plain {1 / estimate:6.1f}, fmcore {counted:.1f}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Does it help?
#
# Be careful what to expect. A flow that has learned the exact velocity takes the *whole* Gaussian to the data. Start from a part
# of it, and only a part of the data comes out, in other proportions. So for an exact flow pruning can only do harm. If it helps, then
# because a real network errs most from the starts that are thrown away.
#
# Both can be measured. We draw 2,400 noises, follow each once, and sort the ends by whether the start would have been kept. The measure is
# that of chapter 06, the Fréchet distance (FD) to the training digits in the features of a classifier of digits. It depends on the number of
# images, so all sets have 370; several sets of a kind show by how much it scatters.

# %% slideshow={"slide_type": "fragment"}
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
    "exact velocity, 20 steps": on_clock(exact, starts, 20, 1.0),
    "network, 5 steps": on_clock(network, starts, 5, 1.0),
    "network, 5 steps, other clock": on_clock(network, starts, 5, c_photo),
}
split = {name: sorted_FD(x) for name, x in ends.items()}
for name, found in split.items():
    said = "   ".join(f"{part} {x.mean():.2f} ± {x.std():.2f} ({len(x)} sets)" for part, x in found.items())
    print(f"{name:30} {said}")
print(f"{int(passes.sum()):,} of 2,400 noises are kept; ± is the scatter of sets")

# %% slideshow={"slide_type": "subslide"}
x = ends["network, 5 steps"]
sheet = torch.cat([x[passes][:24], x[~passes][:24]])
plotting.images(
    sheet, columns=12, rows=["kept", "", "rejected", ""], title="five Euler steps of the network, by their starts"
)

# %% [markdown] slideshow={"slide_type": "skip"}
# Starts that are thrown away do end in worse digits, 1.44 against 1.38, but sets of a kind differ by more than that. What an exact flow
# should lose by pruning is too small to be seen as well. With $c = 2.04$ the aligned clock makes the five steps a little worse, 1.44
# against 1.39 from the same noise.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The paper's table, and ours
#
# Two ways to pair (**OT**, in the batch, and **I**, independent), aligned in training or not (data up), pruned in sampling or not, each
# with five budgets of Euler steps. The paper: CIFAR-10, 35.7 million parameters, 200,000 steps, FID to the training set. Ours: digits,
# 0.2 million parameters, 400 steps, classifier Fréchet distance, five generated sets of 297 images. The two kinds of numbers are not to be
# compared, only what each says about its rows.
#
#     fmcore train lee2025/digits/ot_norm      # about a minute
#     fmcore table lee2025

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "The paper, independent pairs: alignment takes FID from 34.5 to 52.2 with 5 steps, and from 4.35 to 3.79 with 100. Which of it "
    "could the change of clock in sampling explain?",
    ["the first at most", "the second at most", "both", "neither"],
    answer=0,
    because="With 5 steps the error of the solver is large, and we have seen it grow on this clock. With 100 it is small on "
    "either clock, and still the aligned one has more of it: a gain there must come from training.",
)

# %% slideshow={"slide_type": "fragment"}
ROWS = {
    ("ot", "source"): "OT",
    ("ot", "pruned"): "OT + prune",
    ("ot_norm", "source"): "OT + norm",
    ("ot_norm", "pruned"): "OT + both",
    ("independent", "source"): "I",
    ("independent", "pruned"): "I + prune",
    ("independent_norm", "source"): "I + norm",
    ("independent_norm", "pruned"): "I + both",
}
NFE, NAMES = (5, 10, 20, 40, 100), ("ot", "independent", "ot_norm", "independent_norm")
paper = {}
for line in reference.read_reference("lee2025_fid"):
    if line["data"] == "cifar10" and line["fid"]:
        paper[line["row"], line["start"], int(line["nfe"])] = float(line["fid"])


# %% slideshow={"slide_type": "skip"}
def by_budget(size):
    """Distances and their spreads over generated sets, by row, start and number of steps, from the records of a size."""
    found, scatter = {}, {}
    for name, record in recorded.items():
        if name.startswith(f"lee2025/{size}/"):
            for one in record.get("budgets", []):
                key = (name.rpartition("/")[2], one["start"], one["nfe"])
                found[key], scatter[key] = one["frechet_distance"], one["spread"]
    return found, scatter


ours, spread = by_budget("digits")

# %% slideshow={"slide_type": "fragment"}
print(f"{'':12}{'paper, CIFAR-10: FID':39}{'ours, digits: classifier FD':37}± at 100")
print(f"{'steps':12}" + "".join(f"{n:7}" for n in NFE) + "    " + "".join(f"{n:7}" for n in NFE))
for (row, start_at), name in ROWS.items():
    theirs = "".join(f"{paper[row, start_at, n]:7.2f}" for n in NFE)
    found = "".join(f"{ours[row, start_at, n]:7.2f}" for n in NFE)
    print(f"{name:12}{theirs}    {found}   {spread[row, start_at, 100]:6.2f}")

# %% slideshow={"slide_type": "subslide"}
CHANGES = {
    "pruned over plain": lambda found, row, n: found[row, "pruned", n] / found[row, "source", n],
    "aligned over not": lambda found, row, n: found[row + "_norm", "source", n] / found[row, "source", n],
}
align = CHANGES["aligned over not"]
figure, axes = plotting.canvas(1, 2, height=3.6, sharey=True)
for ax, (title, change) in zip(axes, CHANGES.items(), strict=True):
    for row, label, color in (("ot", "OT", style.DATA), ("independent", "I", style.SOURCE)):
        ax.plot(NFE, [change(paper, row, n) for n in NFE], "o-", color=color, label=f"{label}, paper", markersize=4)
        ax.plot(NFE, [change(ours, row, n) for n in NFE], "s--", color=color, label=f"{label}, digits", markersize=4)
    ax.axhline(1, color=style.MUTED, linewidth=1.2, zorder=0)
    ax.set(xscale="log", xlabel="Euler steps", title=title, xticks=NFE, xticklabels=NFE)
    ax.minorticks_off()
axes[0].set_ylabel("ratio of distances, below 1 is better")
axes[1].legend(fontsize=9)
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# **Pruning.** In the paper it helps in all twenty entries, by 4% to 22%. On the digits too, by 6% to 14%. But do not count to
# twenty: all of our entries start from the same 1,485 noises, and the pruned ones from the same 1,485 others. Five sets of one entry scatter by
# 0.12 to 0.29, so that each difference is about one standard error. With other noises, above, it was smaller. The direction is the paper's;
# the evidence of the digits is weak.
#
# **Alignment.** In the paper it costs with few steps and pays with many, and the two lines cross 1 between 10 and 40 steps. **The digits do not
# show that.** With optimal pairs the aligned row is better by 7% to 9% with all budgets, with independent ones worse by 9% to 11% with all. Both are
# within the scatter, with one training for each row. There is little to see: $c$ is 1.25 in place of 2.04, and beyond ten steps our
# distances hardly depend on the steps.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The same on photographs, with a small network
#
# The same four rows on real CIFAR-10: 687,347 parameters, 400 steps of 64 images, which is half an epoch, so the images are patches of likely colours, without objects.
# 500 images an entry, in two sets; .48 for as many real ones.

# %% slideshow={"slide_type": "fragment"}
small, small_spread = by_budget("cifar10_small")
print(f"{'Euler steps':12}" + "".join(f"{n:>15}" for n in NFE))
for (row, start_at), name in ROWS.items():
    cells = [f"{small[row, start_at, n]:8.2f} ± {small_spread[row, start_at, n]:4.2f}" for n in NFE]
    print(f"{name:12}" + "".join(cells))
print()
for title, change in CHANGES.items():
    for row in NAMES if change is not align else NAMES[:2]:
        here = "".join(f"{change(small, row, n):7.2f}" for n in NFE)
        there = "".join(f"{change(paper, row, n):7.2f}" for n in NFE)
        print(f"{title}, {row:17}{here}    paper{there}")

# %% [markdown] slideshow={"slide_type": "skip"}
# **Pruning helps with few steps**, by 6% to 11% with five, and no longer with forty and a hundred. In the paper it helps with all. All entries of a row start
# from the same noises, so five budgets are not five tests; but four trainings agree with five and with ten steps.
#
# **Alignment costs**, most with five steps and less with more: that slope is the paper's, and it is the clock's. But here the lines stay above 1. In the paper they
# cross it, after 500 times as many steps of training. Within 400 steps a network that must predict numbers twice as large from the same first weights
# is behind, perhaps; these rows cannot tell whether it would catch up. One training a row.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The clock alone, on photographs
#
# On CIFAR-10 $c$ is about 2, and the change of clock can be tried apart from training. The network of `data/pretrained` was trained
# *without* alignment, with independent pairs. Its record has the same weights sampled four ways: from all noise or from pruned noise
# ($\tau = .01$, $\tau_r = .048$), in steps equal in $t$ or equal in $s$. 400 images an entry, in two sets; classifier Fréchet distance, at the
# end that of as many real images.

# %% slideshow={"slide_type": "fragment"}
photos = recorded["cifar10"]["budgets"]
network = {(one["start"], one["steps"], one["nfe"]): one["frechet_distance"] for one in photos}
scatter = {(one["start"], one["steps"], one["nfe"]): one["spread"] for one in photos}
FOUR = {"plain": ("source", "uniform"), "prune": ("pruned", "uniform")}
FOUR |= {"norm (clock only)": ("source", "aligned"), "both": ("pruned", "aligned")}
print(f"{'Euler steps':20}" + "".join(f"{n:>15}" for n in NFE))
for name, key in FOUR.items():
    print(f"{name:20}" + "".join(f"{network[(*key, n)]:8.2f} ± {scatter[(*key, n)]:4.2f}" for n in NFE))
clock_costs = {n: network["source", "aligned", n] / network["source", "uniform", n] for n in NFE}
print(f"{'norm over plain':20}" + "".join(f"{clock_costs[n]:15.2f}" for n in NFE))
trained_costs = {n: align(paper, "independent", n) for n in NFE}
print(f"{'the same, paper, I':20}" + "".join(f"{trained_costs[n]:15.2f}" for n in NFE))
clocks = ("uniform", "aligned")
photo_prune = {n: [network["pruned", clock, n] / network["source", clock, n] for clock in clocks] for n in NFE}
print(f"{'prune over plain':20}" + "".join(f"{plain:9.2f}, {norm:.2f}" for plain, norm in photo_prune.values()))
as_many_real = recorded["cifar10"]["values"]["classifier_frechet_distance"]["held out (real)"]["value"]
print(f"{'real images':20}{as_many_real:8.2f}")

# %% [markdown] slideshow={"slide_type": "skip"}
# **Pruning helps on photographs, up to forty steps and on both clocks**, by a tenth to a quarter: nothing was trained for it. With five to twenty
# steps the gain is one and a half to five times the scatter of two sets, with forty about as large as it. With a hundred steps there is none that
# could be told from chance, where the paper's table has 4 to 9%; ours are 400 images of a network that has seen each training image about
# three times.
#
# **What the clock explains.** The loss with few steps: the clock alone costs as much with five steps as the paper's trained networks lose, and
# more than they lose with ten, twenty and forty; with a hundred it costs next to nothing, and theirs are better for alignment by an eighth. So what
# training adds is a *gain*, at every number of steps from ten on; with five there is none to see. Where it comes from, these numbers do not say. The expected
# loss is the same on both clocks; what is left are the draws of times, the scaling of what the network reads and predicts, and the difference between any two trainings, about which the paper's table
# says nothing. If the gain is in training, one may have it without the cost: train with norms aligned, and sample in steps equal in $t$. Nobody
# has shown that this works; it is one line with `scaled_up` and a factor of $1/c$.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Pruned in training too?
#
# The paper says no: trained and sampled with the pruned source it has 4.18 (OT) and 4.17 (I) at 100 steps, pruned in sampling only 4.15
# and 3.97. Together with alignment by *noise down*, ours:

# %% slideshow={"slide_type": "fragment"}
PRUNED_PAPER = {"ot": 4.18, "independent": 4.17}
LINES = {
    "plain": ("{}", "source"),
    "pruned in sampling": ("{}", "pruned"),
    "pruned in training and sampling": ("pruned_{}", "source"),
    "aligned, data up": ("{}_norm", "source"),
    "aligned, noise down": ("{}_norm_down", "source"),
}
at_100 = {}
for label, (row, start_at) in LINES.items():
    for pairs in ("ot", "independent"):
        key = (row.format(pairs), start_at, 100)
        at_100[label, pairs] = f"{ours[key]:.2f} ± {spread[key]:.2f}" if key in ours else "-"
    theirs = [paper.get((row.format(pairs), start_at, 100)) for pairs in ("ot", "independent")]
    theirs = list(PRUNED_PAPER.values()) if row == "pruned_{}" else theirs
    said = "   ".join(f"{at_100[label, pairs]:>11}" for pairs in ("ot", "independent"))
    print(f"{label:33} digits: OT, I {said}   paper: " + "  ".join("   -" if x is None else f"{x:.2f}" for x in theirs))

# %% [markdown] slideshow={"slide_type": "skip"}
# Each row is one training, and the sets of a row scatter by up to a quarter: on the digits hardly one of these differences can be told
# from chance. *Data up* and *noise down* have the same clock and the same pairs; they show the network numbers that
# are smaller by $c$, and differ in nothing else.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you saw

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
steep = min(ratio for (power, _), ratio in power_ratio.items() if power >= 1)
five = empirical_error["equal in t"][0], empirical_error[f"c = {c_photo:.2f}"][0]
order = {name: -plotting.slope(STEPS, errors) for name, errors in gaussian_error.items()}
rows = [
    Claim(
        "noise in 3,072 dimensions: mean length", sources.Gaussian((3, 32, 32)).mean_norm, between(55.4, 55.5), digits=1
    ),
    Claim("the same: standard deviation of the length", float(photo_noise.std()), between(0.65, 0.76)),
    Claim("digits: mean length", float(lengths.mean()), between(6.37, 6.38), digits=1),
    Claim("digits: factor c", c, between(1.24, 1.26), digits=2),
    Claim("factor by hand and in fmcore: difference", gap_factor, below(1e-9)),
    Claim("aligned velocity by hand and scaled_up: difference", gap_aligned, below(1e-3)),
    Claim("aligned velocity and exact one of scaled images: difference", gap_direct, below(1e-3)),
    Claim("ten Euler steps, aligned and at other times: difference", gap_euler, below(1e-3)),
    Claim("Euler's order on the Gaussian, equal in t", order["equal in t"], between(0.85, 1.05)),
    Claim("Euler's order on the Gaussian, c = 2.04", order[f"c = {c_photo:.2f}"], between(0.85, 1.05)),
    Claim("digits, 5 steps: error with c = 2.04 over equal in t", five[1] / five[0], above(1.15)),
    Claim("3,072 dimensions, power 1 and more: smallest ratio of errors", steep, above(1.1)),
    Claim("3,072 dimensions, power 1/2: the same for 100 steps", power_ratio[0.5, 100], below(1)),
    Claim("aligned loss over c times the unaligned one", loss_ratio, between(0.95, 1.05)),
    Claim("batches of 8 whose optimal pairs stay", same_pairs, exactly(8)),
]
claims.table(rows)

# %% slideshow={"slide_type": "skip"}
prune = CHANGES["pruned over plain"]
largest_paper = max(prune(paper, row, n) for row in NAMES for n in NFE)
largest_ours = max(prune(ours, row, n) for row in NAMES for n in NFE)
small_prune = {5: max(prune(small, row, 5) for row in NAMES), 100: min(prune(small, row, 100) for row in NAMES)}
few_prune = max(max(photo_prune[n]) for n in NFE[:-1])
small_slope = align(small, "independent", 5) / align(small, "independent", 100)
against_chance = {name: distance / chance for name, (distance, chance) in tests.items()}
saved = 1 / shares[0.15][1] / shares[0.15][2]

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
rows = [
    Claim("digits: rejected ends of 128 at tau = 0.1", rejected, exactly(46)),
    Claim("share rejected at 0.25, by hand less fmcore", gap_share, below(0.01)),
    Claim("threshold 0.25: share of noise rejected", float((worst > 0.25).float().mean()), between(0.66, 0.7)),
    Claim("the same: share of held-out digits", unseen_above[0.25], exactly(0)),
    Claim("exact sampler: energy distance over the largest by chance", against_chance["fmcore"], below(1.5)),
    Claim("by hand, another bound: the same", against_chance["by hand"], below(1.5)),
    Claim("unpruned noise: the same", against_chance["unpruned noise"], above(1.5)),
    Claim("threshold 0.15: proposals saved, plain over exact sampler", saved, above(100)),
    Claim(
        "threshold 0.25: share kept, from the rate over counted", shares[0.25][1] / shares[0.25][0], between(0.93, 1.07)
    ),
    Claim("paper, pruned over plain: largest of 20", largest_paper, below(1)),
    Claim("paper, I, 5 steps: aligned over not", align(paper, "independent", 5), above(1.5)),
    Claim("paper, I, 100 steps: aligned over not", align(paper, "independent", 100), below(0.9)),
    Claim("records of digits, pruned over plain: largest of 20", largest_ours, below(1)),
    Claim("small network on CIFAR-10, 5 steps, pruned over plain: largest of 4", small_prune[5], below(0.97)),
    Claim("the same, 100 steps: smallest of 4", small_prune[100], above(1)),
    Claim("small network, I, aligned over not: 5 steps over 100", small_slope, above(1.1)),
    Claim("CIFAR-10 network, up to 40 steps, pruned over plain: largest of 8", few_prune, below(0.95)),
    Claim("the same, 100 steps: smallest of 2", min(photo_prune[100]), above(0.95)),
    Claim("CIFAR-10 network, 5 steps: norm over plain by the clock alone", clock_costs[5], between(1.5, 1.65)),
    Claim("the same, 40 steps", clock_costs[40], between(1.1, 1.25)),
]
claims.table(rows, title="What you saw (continued)")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## To remember
#
# - For straight paths norm alignment is another clock. The samples of the exact flow, the expected loss of any velocity and the optimal
#   pairs stay the same. Euler's steps and the draws of training times move.
# - Its clock takes long steps first, and that costs: on CIFAR-10, with five steps, all that the paper's trained networks lose. What they gain
#   with many steps is gained in training.
# - Pruning changes the source. An exact flow could only lose by it; a network gains if it errs most where starts are thrown away.
# - In many dimensions throw away in two stages, propose near the kept region and correct by one coin toss: the same distribution, thousands of
#   times as fast.
# - The likelihood of chapter 02 belongs to the source of the training. With another start it no longer applies.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# In [exercises/11_norms_and_pruning.ipynb](exercises/11_norms_and_pruning.ipynb); each has a check that says what is wrong.
#
# 1. **The clock of aligned norms.** From $s$ to $t$, and back.
# 2. **The aligned velocity** from the unaligned one.
# 3. **Ends without data.** Principal axes, both of their ends, and the cosines of data with them.
# 4. **A sampler that wastes less.** The probability of acceptance.
#
# <!-- next: written by fmcore.course.build -->
#
# This is the last chapter. The map of all of them is in [00 Start here](00_start_here.ipynb).
#
# <!-- end of next -->
