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
# # 08 Generalization
#
# Chapter 07 ended with a contradiction. The velocity that minimizes the loss returns training images and nothing else;
# networks trained with this loss draw images that nobody has seen. So they do not reach the minimum, and that is why they
# are of use. This chapter measures *where* on the way from noise to image they miss it, from *how many* training images
# on, and whether the *noise in the targets* is to be thanked, as one might think. It ends with what such measurements
# cannot say.

# %% slideshow={"slide_type": "skip"}
import math
from dataclasses import replace

import torch

from fmcore import closed_form, data, paths, solvers, training
from fmcore.course import card, claims, plotting, predict, style, widgets
from fmcore.course.claims import Claim, above, below, between
from fmcore.experiments.evaluate import exact_velocity
from fmcore.experiments.run import training_batch
from fmcore.experiments.run.network import build_network
from fmcore.metrics import velocity_mse, nearest_training_images
from fmcore.papers import catalog, reference

style.use()
torch.set_num_threads(1)  # an 8x8 image gives a second core too little to do

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
card.show(
    "08_generalization",
    goals=[
        "split a network's loss into its failure to learn the exact velocity and a floor that nothing can go below",
        "say at which times this failure is underfitting, and at which it is generalization",
        "build hybrid flows, and read off when a sample becomes new and when it is decided",
        "derive targets with less noise, show that they are unbiased, and say where they help",
        "name what these experiments do not show",
    ],
    before=["chapter 07: the exact velocity, its collapse, copies", "chapter 06: U-Net, Fréchet distance"],
    exercises=[
        "1. A target with less noise",
        "2. The mean over all banks",
        "3. A hybrid sampler",
        "4. Copies",
    ],
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The puzzle
#
# As in chapter 07: $n$ training images $x^{(1)}, \dots, x^{(n)}$ in $\mathbb{R}^d$, noise $x_0 \sim \mathcal{N}(0, I)$, a
# training image $x_1$, the point $x_t = (1-t)\, x_0 + t\, x_1$ between them. The network $v(x, t)$ is trained to predict
# $x_1 - x_0$. The best possible answer is the **exact velocity**
#
# $$
# u^*(x, t) = \mathbb{E}[x_1 - x_0 \mid x_t = x] = \sum_{i=1}^n w_i(x, t)\, \frac{x^{(i)} - x}{1 - t} ,
# \qquad
# w_i(x, t) = \operatorname{softmax}_i \Big( \! -\frac{\| x - t x^{(i)} \|^2}{2 (1-t)^2} \Big) ,
# $$
#
# and following it ends at training images. How near a sample is to one we measure by the Euclidean distance to the nearest
# training image; it is a **copy** if that is less than a third of the distance to the second nearest.
#
# A bar for everything below: how far are *real* digits from the training images, digits that were held out?

# %% slideshow={"slide_type": "fragment"}
path = paths.rectified()
digits = data.digits()
images, held_out = digits.scaled(digits.train), digits.scaled(digits.held_out)  # (n, 1, 8, 8) in (-1, 1)
real = nearest_training_images(held_out, images)
real_distance = float(real.distance[:, 0].mean())
print(f"n = {len(images):,} training images, {len(held_out)} held out, d = {images[0].numel()}")
print(f"held-out digits: nearest training image at {real_distance:.2f}, copies {real.share_of_copies():.0%}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Failure to learn
#
# The loss splits, as chapter 07 found. For a dimension, at a time $t$:
#
# $$
# \frac{1}{d}\, \mathbb{E} \| v - (x_1 - x_0) \|^2
# = \underbrace{\frac{1}{d}\, \mathbb{E} \| v - u^* \|^2}_{\text{failure to learn}}
# + \underbrace{\frac{1}{d}\, \mathbb{E} \| u^* - (x_1 - x_0) \|^2}_{\text{floor: the noise of the target}} .
# $$
#
# The second part does not depend on the network. The first is what Bertrand et al. 2025 plot against $t$ for networks
# trained on more and more images. We train two, of the same size and on batches of 64 images: one on $n = 10$ digits, for
# 250 steps, which will turn out to be enough, and one on all 1,500, for 350 steps. As in the paper the images are used as
# they are, without dequantization noise, so that the training set is the finite list in the formula.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "177,000 parameters, 10 or 1,500 images of 64 numbers. Which network fails to learn its u*, and when?",
    [
        "neither: there are more parameters than numbers in the data",
        "both, and mostly at early times, where the input is nearly pure noise",
        "the one with 1,500 images, and mostly at late times",
    ],
    answer=2,
    because="At early times u* is an average over many images, a smooth function that is easy to learn. At late times it is a "
    "look-up in a table: find the one image that fits. Ten entries are learned by heart, 1,500 are not.",
)


# %% slideshow={"slide_type": "fragment"}
def trained(name, steps):
    """The network of an experiment, averaged weights, and the images that it was trained on."""
    row = catalog.by_name(f"bertrand2025/digits/{name}")
    chosen = training_batch.training_images(row, digits)
    run = training.train(
        build_network(row, digits.shape),
        training_batch.batch_loss(row, digits, chosen),
        chosen,
        replace(row.training, steps=steps),
        prepare=training_batch.batch_maker(row, digits),
        progress=False,
    )
    return run.ema.requires_grad_(False), digits.scaled(chosen), float(run.losses[-100:].mean())


network, points, final_loss = {}, {}, {}
for n, name, steps in ((10, "n10", 250), (1500, "hybrid", 350)):
    network[n], points[n], final_loss[n] = trained(name, steps)
    print(f"n = {n:5,}: mean loss of the last 100 steps {final_loss[n]:.3f}")
exact = {n: closed_form.EmpiricalVelocity(chosen) for n, chosen in points.items()}

# %% [markdown] slideshow={"slide_type": "skip"}
# The failure by hand, three lines; `metrics.velocity_mse` must say the same. With $v = u^*$ it would be zero; a network
# that always says 0 would have $\mathbb{E} \|u^*\|^2 / d$, the size of what there is to learn.

# %% slideshow={"slide_type": "fragment"}
TIMES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def beside_exact(v, u, x0, x1, t):
    """Of pairs (x0, x1) at time t: failure to learn, floor and size of u*, each a mean over pairs and pixels."""
    xt, target = path.interpolate_with_target(x0, x1, t)
    best = u(xt, t)
    parts = v(xt, torch.tensor(t)) - best, best - target, best
    return [float(part.square().mean()) for part in parts]


failure, floor, size = {}, {}, {}
for n, chosen in points.items():
    generator = torch.Generator().manual_seed(2)
    x1 = chosen[torch.randint(n, (256,), generator=generator)]
    x0 = torch.randn(x1.shape, generator=generator)
    parts = [beside_exact(network[n], exact[n], x0, x1, t) for t in TIMES]
    failure[n], floor[n], size[n] = (dict(zip(TIMES, part, strict=True)) for part in zip(*parts, strict=True))
same = float(velocity_mse(network[1500], exact[1500], path, x0, x1, 0.5).mean())
gap_failure = abs(same - failure[1500][0.5])
assert gap_failure < 1e-5, gap_failure
for t in (0.15, 0.5, 0.9, 0.99):
    print(f"t = {t:.2f}   failure to learn: n = 10: {failure[10][t]:.3f}   n = 1,500: {failure[1500][t]:.3f}")

# %% slideshow={"slide_type": "subslide"}
figure, axes = plotting.canvas(1, 2, height=3.6, sharey=True)
for ax, n in zip(axes, (10, 1500), strict=True):
    lines = {
        "size of $u^*$": list(size[n].values()),
        "floor: noise of the target": list(floor[n].values()),
        "failure to learn": list(failure[n].values()),
    }
    colors = dict(zip(lines, (style.MUTED, style.PATH, style.MODEL), strict=True))
    plotting.curves(TIMES, lines, xlabel="t", title=f"n = {n:,} digits", colors=colors, ax=ax)
    ax.set(ylim=(0, 1.75), xlim=(0, 1))
    ax.get_legend().remove()
axes[0].set_ylabel("a dimension")
axes[0].legend(loc="center left", bbox_to_anchor=(0, 0.62), fontsize=9)
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# **Ten digits are learned**, up to a small bump at the time of *their* collapse, where the floor falls to zero (chapter 07),
# and up to the last moments. **1,500 digits are not**: the failure takes off on the way to the collapse and does not come back.
#
# Towards $t = 1$ both fail. There $u^* = (x^{(i)} - x_t)/(1-t)$, and its size comes from $x_0$, of which only a trace is left in
# $x_t$: a mistake of $\varepsilon$ about the image is a mistake of $\varepsilon / (1-t)$ about the velocity. No smooth network
# follows that; and at the end it matters little, since only $1 - t$ of time is left.
#
# The paper sees two bumps for CIFAR-10, at $t = 0.15$ and towards $t = 1$. Our digits have the second. At $t = 0.15$ they have
# nothing: the first bump is where the collapse is, in 3,072 dimensions at 0.15, in 64 much later (chapter 07).

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A failure, or a virtue?
#
# A network that has learned nothing fails to learn $u^*$, too. So a large failure is not generalization: it may be plain
# **underfitting**, too small a network or too few steps. What tells them apart is a judge that neither has seen: the loss
# on **held-out** images. Where $u^*$ has the lower one, the network would do well to come closer to $u^*$, and most of its failure
# is underfitting. Where the network has the lower one, coming closer would hurt: there most of the failure is generalization.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Held-out digits, all times from 0 to 1: where does u* of the 1,500 training digits have a lower loss than the "
    "network trained on them?",
    ["nowhere: u* is overfitted at all times", "at early times, up to about the collapse", "at late times"],
    answer=1,
    because="Before the collapse u* averages over many images, and an average over 1,500 digits is nearly the one over all "
    "digits in the world. Memorization begins when the weights settle on one image.",
)


# %% slideshow={"slide_type": "fragment"}
fresh = held_out[::2]  # 149 digits
x0 = torch.randn(fresh.shape, generator=torch.Generator().manual_seed(3))


def predictions(velocity, x1):
    """What a velocity says between x0 and given images, at each of TIMES: (times, 149, 1, 8, 8)."""
    with torch.no_grad():
        return torch.stack([velocity(path.interpolate(x0, x1, t), torch.tensor(t)) for t in TIMES])


def loss_by_time(predicted, x1):
    """The loss at each of TIMES."""
    return (predicted - (x1 - x0)).square().mean(dim=(1, 2, 3, 4)).tolist()


predicted = {("u*", n): predictions(exact[n], fresh) for n in points}
predicted |= {("network", n): predictions(network[n], fresh) for n in points}
unseen = {who: loss_by_time(velocities, fresh) for who, velocities in predicted.items()}
own = {n: chosen.repeat(-(-149 // n), 1, 1, 1)[:149] for n, chosen in points.items()}
seen = {n: loss_by_time(predictions(network[n], own[n]), own[n]) for n in points}


# %% slideshow={"slide_type": "fragment"}
def takes_over(n):
    """The first time from which on the network has the lower loss on held-out images, between two of TIMES."""
    ahead = [a - b for a, b in zip(unseen["u*", n], unseen["network", n], strict=True)]
    k = max(k for k, value in enumerate(ahead) if value < 0)
    return TIMES[k] + (TIMES[k + 1] - TIMES[k]) * ahead[k] / (ahead[k] - ahead[k + 1])


turn = takes_over(1500)
for t in (0.2, 0.5, 0.7, 0.9):
    k = TIMES.index(t)
    said = "   ".join(f"{who}, n = {n:,}: {loss[k]:.2f}" for (who, n), loss in unseen.items())
    print(f"t = {t}   held-out loss   {said}")
print(f"n = 1,500: the network is ahead from t = {turn:.2f} on")

# %% slideshow={"slide_type": "subslide"}
figure, axes = plotting.canvas(1, 2, height=3.7)
for ax, n in zip(axes, (10, 1500), strict=True):
    ax.plot(TIMES, unseen["u*", n], color=style.EXACT, label="$u^*$, held-out digits")
    ax.plot(TIMES, unseen["network", n], color=style.MODEL, label="network, held-out digits")
    ax.plot(TIMES, seen[n], "--", color=style.MODEL, label="network, its training digits")
    ax.set(xlabel="t", title=f"n = {n:,}", xlim=(0, 1))
axes[0].set(ylim=(0, 8), ylabel="loss")
axes[1].set_ylim(0, 1.6)
axes[1].axvline(turn, color=style.MUTED, linewidth=1.2, zorder=0)
axes[1].text(turn - 0.02, 0.06, "underfitting", ha="right", fontsize=9, color="#57606A")
axes[1].text(turn + 0.02, 0.06, "generalization", fontsize=9, color="#57606A")
axes[0].legend(fontsize=9)
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# With $n = 1{,}500$ the lines cross once, at the collapse of chapter 07. **Before** it $u^*$ is the better model of *unseen* digits:
# to come closer to it would help. **After** it $u^*$ is sure of the wrong image, and the network, which never became sure, is as
# good on unseen digits as on those that it was trained on.
#
# With $n = 10$ the network has followed its $u^*$ into memory: its loss on its own ten digits is near zero, on unseen ones it
# explodes.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### How much of each?
#
# Go from $v$ towards $u^*$ in a straight line, $v + \lambda\, (u^* - v)$. The held-out loss along it is a parabola in $\lambda$. With
# $L_v$ and $L_{u^*}$ the losses at its ends, and $D = \mathbb{E}\|v - u^*\|^2 / d$ on held-out images, its lowest point is at
#
# $$
# \lambda^* = \frac12 + \frac{L_v - L_{u^*}}{2 D} .
# $$
#
# At $\lambda^* = 1$ the network should go all the way, and its failure is underfitting; at 0 it should stay where it is.

# %% slideshow={"slide_type": "fragment"}
apart = (predicted["network", 1500] - predicted["u*", 1500]).square().mean(dim=(1, 2, 3, 4))
way = {}
for k, t in enumerate(TIMES):
    way[t] = 0.5 + (unseen["network", 1500][k] - unseen["u*", 1500][k]) / (2 * float(apart[k]))
print("best step towards u*:  " + "   ".join(f"t = {t}: {way[t]:.2f}" for t in (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9)))

figure, ax = plotting.canvas(width=6.4, height=3.4)
ax.axhspan(0, 1, color=style.MUTED, alpha=0.15, linewidth=0)
ax.plot(TIMES, list(way.values()), "o-", color=style.MODEL, markersize=4)
ax.axvline(turn, color=style.MUTED, linewidth=1.2, zorder=0)
ax.set(xlabel="t", ylabel=r"best step $\lambda^*$ from $v$ to $u^*$", xlim=(0, 1), ylim=(-0.1, 1.3))
ax.text(0.97, 1.04, "all the way: underfitting", fontsize=9, color="#57606A", ha="right")
ax.text(0.97, -0.06, "stay: generalization", fontsize=9, color="#57606A", ha="right")
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# One passes into the other: up to $t = 0.4$ the network should go all the way or nearly so, at the collapse half of it, at 0.9
# next to nothing. (Above 1, at early times, the two nearly agree, and going a little beyond $u^*$ would help.) So most of the
# failure at $t = 0.5$ is underfitting, and most of it from 0.7 on is generalization. It does not follow that *this* network is
# the best that can be had at late times: a larger one, trained for longer, may lower both of its curves. It would not do so by
# coming closer to $u^*$.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What they draw
#
# 64 noises, the same for both networks, in 20 Euler steps.

# %% slideshow={"slide_type": "fragment"}
start = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(4))
STEPS = 20
grid = torch.linspace(0, 1, STEPS + 1, dtype=torch.float64)
trail, drawn, near = {}, {}, {}
for n, v in network.items():
    trail[n] = solvers.solve(v, start, method="euler", times=grid).trajectory  # (21, 64, 1, 8, 8)
    drawn[n] = trail[n][-1]
    near[n] = nearest_training_images(drawn[n], points[n])
    said = f"nearest training image at {near[n].distance[:, 0].mean():.2f}, copies {near[n].share_of_copies():.0%}"
    print(f"network of n = {n:5,}: {said}")
print(f"held-out digits:         nearest training image at {real_distance:.2f}, copies {real.share_of_copies():.0%}")
print(
    f"the noise itself:        nearest training image at {nearest_training_images(start, images).distance[:, 0].mean():.2f}"
)

sheet, rows = [], []
for n in (10, 1500):
    sheet += [drawn[n][:12], points[n][near[n].row[:12, 0]]]
    rows += [f"drawn, n = {n:,}", "nearest in training"]
plotting.images(torch.cat(sheet), columns=12, rows=rows)

# %% [markdown] slideshow={"slide_type": "skip"}
# Same architecture, same loss, same noise: one copies, one does not, and the one that copies had fewer steps. What makes it copy
# is the small number of images.
#
# But look at the distances again. The samples of the second network are *farther* from the training digits than real
# unseen digits are. They are blurred, with grey where digits are black. New is not the same as good: a distance above that
# of real images is a shortcoming, and the noise that they started from has the largest distance of all.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## From how many images on?
#
# The records: networks trained on $n$ images, each for 400 steps, and measured like the two above, on the digits and on
# CIFAR-10 (real photographs, $d = 3{,}072$, a network of 0.7 million parameters). The paper's networks are fifty times as
# large and see 250 times as many images.
#
#     fmcore train bertrand2025/digits/n100            # about a minute
#     fmcore train bertrand2025/cifar10_small/n100     # about ten minutes, and CIFAR-10 in data_dir=...
#     fmcore table bertrand2025

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Every network gets the same number of steps. As n grows from 10 to all images, the share of copies falls from 1 to 0. "
    "Where on the digits?",
    ["between 10 and 100", "between 100 and 1,000", "above 1,000"],
    answer=0,
    because="400 steps of 64 show each of 10 images 2,560 times, and each of 100 images 256 times: too seldom for this network to "
    "learn by heart. The number depends on the budget. With more steps it moves up.",
)

# %% slideshow={"slide_type": "fragment"}
BLOCKS = {"digits": "digits, d = 64", "cifar10_small": "CIFAR-10, d = 3,072"}
ALL = {"digits": 1500, "cifar10_small": 50_000}
recorded = reference.find_records([reference.RESULTS])


def of_size(size):
    """The records of one data set by number of training images."""
    rows = {n: recorded.get(f"bertrand2025/{size}/n{n}") for n in (10, 100, 1000, 10_000)}
    rows[ALL[size]] = recorded.get(f"bertrand2025/{size}/hybrid")
    return {n: row for n, row in rows.items() if row}


def value(record, measure, of="generated"):
    return record["values"][measure][of]["value"]


few = {block: rows for block in BLOCKS if (rows := of_size(block))}
NEAREST, COPIES, FD = "distance_to_nearest_training_image", "share_of_copies", "classifier_frechet_distance"
for block in few:
    print(f"{BLOCKS[block]:20} copies   distance to nearest: drawn, held out   FD to training, to held out")
    for n, record in few[block].items():
        first = f"{value(record, COPIES):7.0%}   {value(record, NEAREST):10.2f}  {value(record, NEAREST, 'held out (real)'):6.2f}"
        last = f"{value(record, FD):10.2f}  {value(record, FD, 'generated, to held out'):7.2f}"
        print(f"  n = {n:6,}         {first}              {last}")

# %% [markdown] slideshow={"slide_type": "notes"}
# FD is the Fréchet distance in the features of a classifier of the same data set (chapter 06), always to *all* training
# images or to held-out ones, also where the network has seen only ten. The two data sets have different classifiers: their
# distances do not compare. The nearest training image is looked for among those that the network was trained on.

# %% slideshow={"slide_type": "subslide"}
figure, axes = plotting.canvas(len(few), 3, height=2.9 * len(few), squeeze=False)
for line, block in zip(axes, few, strict=True):
    ns = list(few[block])
    for k, (n, record) in enumerate(few[block].items()):
        errors = record["velocity_error"]
        shade = style.density_map()(0.3 + 0.65 * k / max(1, len(ns) - 1))
        label = f"n = {n:,}" if n < ALL[block] else f"all {n:,}"
        line[0].plot([e["t"] for e in errors], [e["error"] for e in errors], color=shade, label=label)
    held = [value(record, NEAREST, "held out (real)") for record in few[block].values()]
    made = [value(record, NEAREST) for record in few[block].values()]
    line[1].plot(ns, held, "s--", color=style.DATA, label="real, held out")
    line[1].plot(ns, made, "o-", color=style.MODEL, label="drawn")
    line[2].plot(ns, [value(record, COPIES) for record in few[block].values()], "o-", color=style.MODEL)
    line[0].set(xlabel="t", ylabel=BLOCKS[block], title="failure to learn", ylim=(0, 1), xlim=(0, 1))
    line[1].set(xscale="log", xlabel="n", title="distance to nearest", ylim=(0, None))
    line[2].set(xscale="log", xlabel="n", title="share of copies", ylim=(-0.04, 1.04))
    line[0].legend(fontsize=9)
axes[0, 1].legend(fontsize=9)
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# **The failure.** On the digits most of the change happens between 10 and 100 images: at $t = 0.8$ it goes from 0.02 to 0.36, and
# then to 0.48 for all. At $t = 0.15$ it is about 0.01 or less for every $n$.
#
# On CIFAR-10 the early times show what the digits, in their few dimensions, cannot. With ten images there are the paper's two bumps,
# one of 0.09 at $t = 0.1$ and one towards $t = 1$. With more images the first becomes a step: from 0.03 before the collapse at 0.15
# to 0.16 or more after it. In both data sets the failure begins at the collapse, and grows mostly from 10 to 100 images.
#
# **The samples.** With ten images most are copies, 99% of the digits and 72% of the photographs; with 100 none. Read the two
# distances together: the more training images there are, the nearer is the nearest of them, to anything. Samples of ten images
# lie far below the line of real ones. Then the lines approach, with no copies left, and cross. (Above the line,
# on the digits, is the blur that you have seen.)
#
# **The paper** sees the distance to the nearest training image rise from $n = 3{,}000$ on, where ours has long risen. The likely
# reason is the budget: to learn 1,000 images by heart takes more parameters and more steps than ours. The threshold is not a
# property of the data alone. We have not varied the budget, so this stays a guess.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Hybrid flows
#
# The network departs from $u^*$ at some times. Does it *matter* there? Bertrand et al.'s test: start from noise, follow $u^*$ up
# to a time $\tau$, the **switch**, and the network from there on,
#
# $$
# v_\tau(x, t) = \begin{cases} u^*(x, t) & t < \tau \\ v(x, t) & t \ge \tau \end{cases}
# $$
#
# At $\tau = 0$ the network is alone, at $\tau = 1$ the exact velocity, which copies. In between there is a last $\tau$ up to
# which samples are as new as the network's own: the failure *after* it is enough to generalize.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "The paper on CIFAR-10: nothing changes up to tau = 0.2, and from 0.3 on samples approach training images. And on the "
    "digits, in 64 dimensions?",
    ["at the same tau", "earlier: small images are easy to copy", "later, at 0.5 to 0.6"],
    answer=2,
    because="Up to the collapse u* does not know yet which image to copy. Chapter 07: that is at t = 0.15 for CIFAR-10 and "
    "at 0.6 for the digits. A network that takes over before that finds nothing decided.",
)

# %% slideshow={"slide_type": "fragment"}
u, v = exact[1500], network[1500]


def hybrid_by_hand(first, second, x, switch):
    """Euler steps with `first` up to the switch, a multiple of 1/STEPS, and `second` from there on."""
    for k in range(STEPS):
        velocity = first if k < round(switch * STEPS) else second
        x = x + velocity(x, grid[k].float()) / STEPS
    return x


by_hand = hybrid_by_hand(u, v, start[:8], 0.6)
joined = closed_form.HybridVelocity(u, v, switch=0.6)
same = solvers.solve(joined, start[:8], method="euler", steps=STEPS).x
gap_hybrid = float((by_hand - same).abs().max())
assert gap_hybrid < 1e-3, gap_hybrid
print(f"hybrid by hand and fmcore: largest difference of a pixel {gap_hybrid:.0e}")

# %% [markdown] slideshow={"slide_type": "skip"}
# Now for eleven switches, from the same 64 noises. The first part of the way is shared: $u^*$ is followed once, and the
# network starts from each of eleven points on this way. We also turn the experiment round, which the paper does not: the
# **network first**, $u^*$ from $\tau$ on.

# %% slideshow={"slide_type": "fragment"}
SWITCHES = [round(0.1 * k, 1) for k in range(11)]


def all_switches(way, second):
    """Samples that follow a way (21, 64, 1, 8, 8) up to each switch, and `second` from there on: (switches, 64, 1, 8, 8)."""
    ends = [round(switch * STEPS) for switch in SWITCHES]
    return torch.stack([exact_velocity.follow(second, way[end], grid[end:]) for end in ends])


def measured(sets, goal):
    """Of each set: mean distance to the nearest training image, copies, share whose nearest is the goal."""
    found = [nearest_training_images(x, images) for x in sets]
    decided = [float((one.row[:, 0] == goal).float().mean()) for one in found]
    return [float(one.distance[:, 0].mean()) for one in found], [one.share_of_copies() for one in found], decided


# %% slideshow={"slide_type": "fragment"}
by_exact = solvers.solve(u, start, method="euler", times=grid).trajectory
exact_first, network_first = all_switches(by_exact, v), all_switches(trail[1500], u)
copied = nearest_training_images(exact_first[-1], images).row[:, 0]  # where u* alone leads each noise
liked = nearest_training_images(exact_first[0], images).row[:, 0]  # nearest to what the network alone draws
forward, backward = measured(exact_first, copied), measured(network_first, liked)
for switch, distance, copies, decided in zip(SWITCHES, *forward, strict=True):
    print(f"tau = {switch}   nearest at {distance:.2f}   copies {copies:4.0%}   decided {decided:4.0%}")

# %% slideshow={"slide_type": "subslide"}
sheet = torch.cat([exact_first[:, :4].transpose(0, 1).flatten(0, 1)])
plotting.images(sheet, columns=len(SWITCHES), titles=[f"{switch}" for switch in SWITCHES], title=r"$\tau$")

# %% [markdown] slideshow={"slide_type": "skip"}
# A row is one noise. On the left the network is alone, on the right $u^*$: those are training images, pixel by pixel. Up to
# $\tau = 0.4$ nothing changes in a row; then the digit drifts, at times into another one, and sharpens into the training
# image.
#
# Two things happen, and not at the same time. **Decided** is the share of noises from which the sample's nearest training image
# is the one where $u^*$ alone would have ended. It jumps between 0.5 and 0.7, at the collapse. The sample is then a blurred
# version of that image, not yet a copy: *copies* appear only when $u^*$ is followed nearly to the end.


# %% slideshow={"slide_type": "skip"}
goal_images = exact_first[-1]


def hybrid_picture(switch):
    """Ten samples that follow u* up to the switch, their nearest training images, and where u* alone leads."""
    k = SWITCHES.index(switch)
    x = exact_first[k][:10]
    found = nearest_training_images(x, images)
    sheet = torch.cat([x, images[found.row[:, 0]], goal_images[:10]])
    figure, (upper, lower) = plotting.canvas(2, 1, height=4.6, height_ratios=[1.5, 1])
    titles = [f"{float(distance):.1f}" for distance in found.distance[:, 0]]
    plotting.images(sheet, columns=10, titles=titles, rows=["hybrid", "nearest", "$u^*$ alone"], ax=upper)
    for name, line, color in zip(("copies", "decided"), forward[1:], (style.BAD, style.EXACT), strict=True):
        lower.plot(SWITCHES, line, color=color, label=name)
        lower.plot(switch, line[k], "o", color=color)
    lower.set(xlabel=r"switch $\tau$", ylabel="share of 64", ylim=(-0.05, 1.05), xlim=(-0.01, 1.01))
    lower.legend(loc="upper left")
    return figure


# %% slideshow={"slide_type": "subslide"}
widgets.explore(hybrid_picture, switch=widgets.choice(SWITCHES, value=0.6, label="switch τ"))

# %% [markdown] slideshow={"slide_type": "notes"}
# The numbers are distances to the nearest training image. Try: at which $\tau$ do the second and the third row agree, column by
# column? And at which do *you* no longer see a difference between the first and the second?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Against the switch
#
# The same from the records, with CIFAR-10. Of its samples we show numbers only: with a late switch they are photographs of the
# data set, which this repository does not contain. Distances are divided by that of real held-out images, so that the two data
# sets fit into one picture. Dotted lines are the collapse in chapter 07's records: the time from which on nine of ten $x_t$ have
# a cosine above 0.9 between $u^*$ and $x_1 - x_0$.

# %% slideshow={"slide_type": "fragment"}
SETTLED = {"digits": ("digits", "8x8 pixels"), "cifar10_small": ("cifar10", "32x32 pixels")}
collapse = {}
for block, (name, pixels) in SETTLED.items():
    times = recorded[f"bertrand2025/{name}/collapse"]["values"]["time_of_collapse"]
    collapse[block] = times[pixels]["value"]
hybrids = {block: recorded.get(f"bertrand2025/{block}/hybrid") for block in BLOCKS}
hybrids = {block: record for block, record in hybrids.items() if record}
for block, record in hybrids.items():
    print(f"{BLOCKS[block]}: collapse at {collapse[block]:.2f}")
    for one in record["hybrid"]:
        distance, error = one["distance_to_nearest_training_image"], one["standard_error"]
        said = f"copies {one['share_of_copies']:4.0%}   decided {one['share_decided']:4.0%}"
        print(f"  tau = {one['switch']:.1f}   nearest at {distance:5.2f} ± {error:.2f}   {said}")

# %% slideshow={"slide_type": "subslide"}
figure, axes = plotting.canvas(1, 3, height=3.5)
colors = {"digits": style.PATH, "cifar10_small": style.DATA}
KEYS = ("distance_to_nearest_training_image", "share_of_copies", "share_decided")
for block, record in hybrids.items():
    taus = [one["switch"] for one in record["hybrid"]]
    for ax, key in zip(axes, KEYS, strict=True):
        scale = value(record, NEAREST, "held out (real)") if ax is axes[0] else 1
        line = [one[key] / scale for one in record["hybrid"]]
        ax.plot(taus, line, "o-", color=colors[block], label=BLOCKS[block], markersize=4)
        ax.axvline(collapse[block], color=colors[block], linestyle=":", linewidth=1.4)
for ax, title in zip(axes, ("distance to nearest / real", "share of copies", "share decided"), strict=True):
    ax.set(xlabel=r"$\tau$", title=title, ylim=(-0.04, None))
figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=2)
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# **Digits.** Up to $\tau = 0.2$ nothing changes; the distance is 2% lower at 0.3, a quarter lower at 0.6, and the sample is decided at
# the collapse. That copies come so late has to do with the strict test: at $\tau = 0.8$ every sample is a blurred version of
# *its* image. Not 0% but a quarter counts as decided at $\tau = 0$: network and $u^*$ start from the same noise and agree at early
# times, so the new sample often resembles the copy best.
#
# **CIFAR-10.** All of it happens earlier, and as in the paper: decided are 11% at $\tau = 0.2$, 55% at 0.3 and 92% at 0.4. The distance falls
# by 4% and 6% at 0.1 and 0.2, where the paper (with another distance) sees no change, and then faster. At 0.3 samples are nearer to
# training images than real ones are. Copies by our strict test appear only at 0.8; the pixels are not equal, but the picture is
# settled.
#
# **The collapse is not the whole clock.** For the digits it coincides with the decision. For CIFAR-10 $u^*$ knows at 0.15 which image it
# will be, and yet a network that takes over at 0.2 draws another one in nine of ten cases. To *identify* one of 50,000 known images in
# noise takes little: 3,072 faint pixels together tell. A network that does not know them by heart has to *see* the image, and that is
# possible only when it stands out from the noise. Before the collapse nothing can be decided; how long after it something is, depends on
# the network, too.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### The other way round
#
# The network first, $u^*$ from $\tau$ on.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "The network leads until t = 0.8, when its sample is nearly finished and new. Then u* takes over for the last fifth of the "
    "way. What comes out?",
    ["the new digit: only details are left to decide", "a copy of a training image", "something in between"],
    answer=1,
    because="u* knows nothing but training images. It ends at one from wherever it starts, however late, and its velocity grows like "
    "1 / (1 - t) to get there in time.",
)

# %% slideshow={"slide_type": "fragment"}
for switch, distance, copies, agrees in zip(SWITCHES, *backward, strict=True):
    said = f"nearest at {distance:.2f}   copies {copies:4.0%}   the image nearest to the network's own sample {agrees:4.0%}"
    print(f"network up to {switch}   {said}")

figure, axes = plotting.canvas(1, 2, height=3.5, sharey=True)
axes[0].plot(SWITCHES, forward[1], "o-", color=style.EXACT, label="$u^*$, then network", markersize=4)
axes[0].plot(SWITCHES, backward[1], "o-", color=style.MODEL, label="network, then $u^*$", markersize=4)
axes[0].set(xlabel=r"$\tau$", title="share of copies")
axes[0].legend(fontsize=9, loc="center left")
axes[1].plot(SWITCHES, forward[2], "o-", color=style.EXACT, label="$u^*$ first: as $u^*$ alone", markersize=4)
axes[1].plot(
    SWITCHES, backward[2], "o-", color=style.MODEL, label="network first: nearest to the network's", markersize=4
)
axes[1].set(xlabel=r"$\tau$", title="which training image", ylim=(-0.04, 1.04))
axes[1].legend(fontsize=9, loc="lower right")
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# Every one a copy, until the network has the last word. So *whether* a sample is new depends on who leads **at the end**, after the
# collapse. *Which* training image it is or resembles depends on who led **around** the collapse and before. What happens at
# early times, where network and $u^*$ nearly agree, is harmless in both orders.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Is it the noise of the targets?
#
# A common explanation of generalization: the target $x_1 - x_0$ is random, the network sees a different one each time, and this
# noise keeps it from learning $u^*$, as noise in gradients is said to keep networks from overfitting. If so, targets with *less*
# noise should bring it closer to $u^*$, and samples closer to copies.
#
# Such targets can be had. **Empirical flow matching** (EFM) draws, besides $x_0$, $x_1$ and $t$, a **bank** of $M - 1$ further
# training images, and regresses on the exact velocity of these $M$:
#
# $$
# u_M(x_t, t) = \sum_{i=1}^M \omega_i\, \frac{b_i - x_t}{1 - t} ,
# \qquad
# \omega_i = \operatorname{softmax}_i \Big( \! -\frac{\| x_t - t\, b_i \|^2}{2 (1-t)^2} \Big) ,
# \qquad
# b_1 = x_1 .
# $$
#
# $M = 1$ is the conditional velocity of usual training (CFM). As $M \to \infty$ it becomes $u^*$ itself.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Why $b_1 = x_1$ must be in it
#
# Draw $M$ images independently, and make $x_t$ from the first of them. Shuffle them. Someone who sees $x_t$ and the shuffled
# bank, but not which one was first, will say: it was $b_i$ with probability $\omega_i$, by Bayes' rule. So $u_M$ is the mean of
# the conditional velocity given $x_t$ *and the bank*, and the mean of that over banks, given $x_t$ alone, is
#
# $$
# \mathbb{E}[u_M \mid x_t] = \mathbb{E} \big[ \mathbb{E}[x_1 - x_0 \mid x_t, \text{bank}] \,\big|\, x_t \big]
# = \mathbb{E}[x_1 - x_0 \mid x_t] = u^*(x_t, t) .
# $$
#
# **Unbiased**: the same minimizer as CFM. And a conditional mean has less variance than what it is a mean of. Both hold because
# $x_t$ was made from a member of the bank. A bank that is drawn without $x_1$ asks "which of these *others* was it?", and gets a wrong
# answer.

# %% slideshow={"slide_type": "fragment"}
pairs = torch.Generator().manual_seed(6)
numbers = torch.randint(len(images), (512,), generator=pairs)
x0, x1 = torch.randn(512, 1, 8, 8, generator=pairs), images[numbers]


def target_by_hand(x0, x1, t, bank):
    """u_M at x_t for one bank (M - 1, 1, 8, 8) and one time t."""
    xt = (1 - t) * x0 + t * x1
    everyone = torch.cat([x1[:, None], bank.expand(len(x1), *bank.shape)], dim=1).flatten(2)  # (B, M, d), x1 first
    squares = (xt.flatten(1)[:, None] - t * everyone).square().sum(dim=2)
    omega = torch.softmax(-squares / (2 * (1 - t) ** 2), dim=1)
    mean = (omega[:, None] @ everyone).view(x1.shape)
    return (mean - xt) / (1 - t)


bank, _ = closed_form.draw_bank(images, 127, pairs)
gap_bank = 0.0
for t in (0.0, 0.3, 0.6):
    ours = closed_form.bank_velocity(path, x0[:64], x1[:64], t, bank)
    gap_bank = max(gap_bank, float((target_by_hand(x0[:64], x1[:64], t, bank) - ours).abs().max()))
assert gap_bank < 1e-3, gap_bank
print(f"u_M by hand and fmcore, M = 128: largest difference {gap_bank:.0e}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Measure the bias
#
# Fix 64 points $x_t$ at $t = 0.5$. Draw $b_1$ as it would have been, image $i$ with probability $w_i(x_t, t)$, and the rest of
# the bank uniformly; average $u_M$ over many draws, and subtract $u^*$. The squared length of what remains is not zero even without
# bias, because the average is noisy. So average two independent halves of the draws: the *product* of their deviations has the
# squared bias as its mean, and no more.


# %% slideshow={"slide_type": "fragment"}
def squared_bias(M, with_own, draws=40, t=0.5):
    """Squared bias of u_M at 64 points x_t, a dimension; mean over the points and half of a 95% interval."""
    chance = torch.Generator().manual_seed(7)
    xt = path.interpolate(x0[:64], x1[:64], t)
    best, weights = u(xt, t), u.weights(xt, t)
    halves = []
    for _ in range(2):
        total = torch.zeros_like(xt)
        for _ in range(draws):
            first = images[torch.multinomial(weights, 1, generator=chance)[:, 0]]
            if with_own:  # a bank for each point
                bank = images[torch.randint(len(images), (64, M - 1), generator=chance)]
                total += closed_form.bank_velocity(path, (xt - t * first) / (1 - t), first, t, bank)
            else:
                total += closed_form.EmpiricalVelocity(closed_form.draw_bank(images, M, chance)[0])(xt, t)
        halves.append(total / draws - best)
    product = (halves[0] * halves[1]).flatten(1).mean(dim=1)
    return float(product.mean()), 1.96 * float(product.std()) / len(product) ** 0.5


SIZES = (2, 16, 128)
bias = {(M, own): squared_bias(M, own) for M in SIZES for own in (True, False)}
for (M, own), (mean, half) in bias.items():
    print(f"M = {M:3}   {'b_1 = x_1 in the bank' if own else 'b_1 left out         '}   {mean:8.5f} ± {half:.5f}")

# %% [markdown] slideshow={"slide_type": "skip"}
# With $x_1$ in the bank what is left is within its error, which is below a thousandth; without, the bias is about a hundred
# times that or more, and fades only as the bank approaches the whole data set. (In exercise 2 the banks are few enough to be
# enumerated, and the bias is zero exactly.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Measure the variance
#
# The floor of the loss with bank size $M$ is $\mathbb{E} \|u_M - u^*\|^2 / d$, the variance of the target. How much of the floor of
# CFM is left?

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "M = 128 of 1,500 images. How much of the variance of the CFM target is left at t = 0.1, and at t = 0.6?",
    [
        "about a 128th at both: the mean of 128 has a 128th of the variance",
        "a few per cent at t = 0.1, and most of it at t = 0.6",
        "most of it at both: 128 of 1,500 are few",
    ],
    answer=1,
    because="A bank helps if it contains rivals, images that x_t could have come from as well. At t = 0.1 more than a thousand "
    "are. At t = 0.6 two or three of the 1,500 are, and 128 random ones rarely include one: x1 gets all the weight.",
)

# %% slideshow={"slide_type": "fragment"}
BANKS = (1, 16, 128, 256, 1000)
MOMENTS = [round(0.1 * k, 1) for k in range(11)]  # at t = 1 all variances are zero
variance, effective = {M: [] for M in BANKS}, []
chance = torch.Generator().manual_seed(8)
for t in MOMENTS[:-1]:
    xt = path.interpolate(x0, x1, t)
    best = u(xt, t)
    effective.append(float(torch.special.entr(u.weights(xt, t)).sum(dim=1).mean().exp()))
    for M in BANKS:
        banks = [closed_form.draw_bank(images, M - 1, chance)[0] for _ in range(1 if M in (1, 1000) else 3)]
        errors = [(closed_form.bank_velocity(path, x0, x1, t, bank) - best).square().mean() for bank in banks]
        variance[M].append(float(torch.stack(errors).mean()))
left = {M: [v / c for v, c in zip(variance[M], variance[1], strict=True)] for M in BANKS}
total = {M: (sum(variance[M]) - variance[M][0] / 2) / 10 for M in BANKS}  # the integral over t, by trapezoids
print("share left at t =   " + "  ".join(f"{t:4.1f}" for t in MOMENTS[:8]) + "   all times")
for M in BANKS[1:]:
    print(f"  M = {M:5,}         " + "  ".join(f"{s:4.2f}" for s in left[M][:8]) + f"   {total[M] / total[1]:8.2f}")
print("  images that count " + "  ".join(f"{e:4.0f}" for e in effective[:8]))

# %% slideshow={"slide_type": "subslide"}
figure, axes = plotting.canvas(1, 2, height=3.6)
shade = {M: style.density_map()(s) for M, s in zip(BANKS, (0.22, 0.4, 0.6, 0.75, 0.98), strict=True)}
for M in BANKS:
    label = "CFM (M = 1)" if M == 1 else f"M = {M:,}"
    axes[0].plot(MOMENTS[:-1], variance[M], color=shade[M], label=label)
    if M > 1:
        axes[1].plot(MOMENTS[:8], left[M][:8], color=shade[M], label=label)
axes[0].set(xlabel="t", title="variance of the target", ylabel="a dimension", ylim=(0, None))
axes[1].set(xlabel="t", title="share of CFM's variance", ylim=(0, 1.03))
for M in BANKS[1:]:
    k = min(range(8), key=lambda k, M=M: abs(math.log(M * effective[k] / 1500)))
    axes[1].plot(MOMENTS[k], left[M][k], "o", color=shade[M])
axes[1].plot([], [], "o", color=style.MUTED, label="about one rival in the bank")
axes[0].legend(fontsize=9)
axes[1].legend(fontsize=9, loc="upper left")
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# Early, $M$ images share the weight evenly and the variance falls like $1/M$. Late, the target is deterministic anyway, whatever
# $M$. In between the number of rivals decides: of $n$ images $n_{\mathrm{eff}}$ count (chapter 07), so a bank holds about $M\,
# n_{\mathrm{eff}} / n$ of them, and where this falls below one, EFM has little left to offer.
#
# So EFM removes target noise *where $u^*$ is an average*: nearly all of it early, and less and less on the way to the collapse. Over
# all times $M = 128$ removes more than four fifths of it on the digits. Does that change what is drawn?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Five targets
#
# The records: five networks on each data set, alike in everything but the target. OT-CFM pairs noise and images of each batch by
# optimal transport (chapter 05), which also makes targets less noisy, but changes what they average to: its minimizer is not
# $u^*$. On CIFAR-10 these five are trained with mirror images too, as in the paper; the networks before were not.
#
#     fmcore train bertrand2025/digits/efm128            # about a minute
#     fmcore train bertrand2025/cifar10_small/efm128     # about ten minutes

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "EFM with M = 1,000 has nearly no noise in its targets. Compared with CFM, at equal budget, its samples are ...",
    [
        "more often copies: without the noise it learns u*",
        "worse: the noise regularized the network",
        "much the same: no copies, and a distance to the data within a few per cent or better",
    ],
    answer=2,
    because="The noise that EFM removes sits at times where u* averages. What makes a copy is u* after the collapse, and there "
    "the targets of CFM are already free of noise, and the network has not learned them.",
)

# %% slideshow={"slide_type": "fragment"}
TARGETS = {"cfm": "CFM", "ot_cfm": "OT-CFM", "efm128": "EFM-128", "efm256": "EFM-256", "efm1000": "EFM-1000"}
targets = {
    block: {name: recorded.get(f"bertrand2025/{block}/{row}") for row, name in TARGETS.items()} for block in BLOCKS
}
targets = {block: rows for block, rows in targets.items() if all(rows.values())}


def with_spread(record, of):
    """A Fréchet distance and its standard deviation over generated sets."""
    entry = record["values"][FD][of]
    return entry["value"], entry["spread"]


for block in targets:
    print(f"{BLOCKS[block]:20}  FD to training     to held out      copies   nearest   mean loss, last 100 steps")
    photo = next(iter(targets[block].values()))
    real_row = [value(photo, measure, "held out (real)") for measure in (FD, COPIES, NEAREST)]
    print("  {:18} {:>15.2f}  {:>15}     {:5.1%}   {:7.2f}".format("real, held out", real_row[0], "", *real_row[1:]))
    for name, record in targets[block].items():
        to = ["{:.2f} ± {:.2f}".format(*with_spread(record, of)) for of in ("generated", "generated, to held out")]
        rest = f"{value(record, COPIES):5.1%}   {value(record, NEAREST):7.2f}"
        print(
            f"  {name:18} {to[0]:>15}  {to[1]:>15}     {rest}   {record['training']['mean_loss_of_last_100_steps']:12.3f}"
        )

# %% slideshow={"slide_type": "subslide"}
LOOK = dict(
    zip(TARGETS.values(), (style.MODEL, style.SOURCE, *(style.density_map()(s) for s in (0.4, 0.6, 0.9))), strict=True)
)
figure, axes = plotting.canvas(len(targets), 3, height=2.8 * len(targets), squeeze=False)
for line, block in zip(axes, targets, strict=True):
    for ax, of in zip(line, ("generated", "generated, to held out"), strict=False):
        found = {name: with_spread(record, of) for name, record in targets[block].items()}
        spread = {name: s for name, (_, s) in found.items()}
        plotting.bars({name: v for name, (v, _) in found.items()}, spread=spread, colors=LOOK, ax=ax)
        ax.set_title("FD to training" if of == "generated" else "FD to held out", fontsize=11)
        ax.tick_params(labelleft=ax is line[0])
    for name, record in targets[block].items():
        steps = [point["step"] for point in record["curve"]]
        distances = [point["classifier_frechet_distance"] for point in record["curve"]]
        line[2].plot(steps, distances, "o-", color=LOOK[name], label=name, markersize=4)
    line[0].set_ylabel(BLOCKS[block])
    line[2].set(xlabel="training step", ylim=(0, None))
    line[2].set_title("FD to training, on the way", fontsize=11)
axes[0, 2].legend(fontsize=8)
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# **Digits.** No copies in any row. The Fréchet distance falls as $M$ grows, from 1.20 to 0.81, to the training images and to held-out
# ones alike; the nearest training image is at 2.6 to 2.8 in all rows, farther than from real digits (1.93). CFM, OT-CFM, EFM-128 and
# EFM-256 differ by no more than about the spread over their two generated sets, EFM-1000 is ahead of CFM by twice that spread.
#
# **CIFAR-10.** No copies either. All three EFM rows are ahead of CFM, by 0.5 to 0.8, and not in the order of $M$; OT-CFM is behind. But how
# much does a second training differ? The table of before can tell: CFM without mirror images has 3.48 with 10,000 images and 4.68 with all
# 50,000. More images should not hurt, so a difference of one is within the scatter of single trainings, which is more than the spread over
# the sets of one network. No row is ahead of CFM, or behind it, beyond that.
#
# With one training for each row these differences may turn round. What can be said is that less noise did *not* hurt, neither the
# distance to training images nor that to held-out ones, and did *not* make copies. The paper says the same, of networks and budgets that
# do not compare with ours.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Nearer to $u^*$?
#
# The last column of the table falls from 0.46 to 0.25. Has EFM learned better? The split of the loss holds for every unbiased
# target: what is left of the loss after its floor is the failure to learn $u^*$. The floors we have measured above.

# %% slideshow={"slide_type": "fragment"}
OF_BANK = {"CFM": 1, "EFM-128": 128, "EFM-256": 256, "EFM-1000": 1000}
remains = {}
for name, M in OF_BANK.items():
    loss = targets["digits"][name]["training"]["mean_loss_of_last_100_steps"]
    remains[name] = loss - total[M]
    print(f"{name:9} loss {loss:.3f} - floor {total[M]:.3f} = failure to learn {remains[name]:.3f}")
at = torch.tensor(TIMES)
direct = float(torch.trapezoid(torch.tensor(list(failure[1500].values())), at) + (1 - at[-1]) * failure[1500][0.99])
print(f"the area under the curve of the failure of n = 1,500, at the start of the chapter: {direct:.3f}")

# %% slideshow={"slide_type": "fragment"}
errors = few["cifar10_small"][50_000]["velocity_error"]
cifar_at, cifar_floor = (torch.tensor([e[key] for e in errors]) for key in ("t", "conditional"))
cifar_floor = float(torch.trapezoid(cifar_floor, cifar_at))
last = {name: record["training"]["mean_loss_of_last_100_steps"] for name, record in targets["cifar10_small"].items()}
print(
    f"CIFAR-10: loss of CFM {last['CFM']:.3f}, of EFM-1000 {last['EFM-1000']:.3f}, less by {last['CFM'] - last['EFM-1000']:.3f}"
)
print(f"floor of CFM, from the record of all 50,000 images without mirror images: {cifar_floor:.3f}")

# %% [markdown] slideshow={"slide_type": "skip"}
# Nearly the whole gain is the floor. The failure to learn changes by a few per cent, noise or no noise: **what keeps this network
# from $u^*$ is not the noise of the targets.** The area under the curve of the failure, an independent measurement, agrees. (OT-CFM is
# left out, since its targets are biased. The losses are those of the last 100 training steps, the floors come from eleven times; a
# difference of 0.01 means little here.)
#
# On CIFAR-10 the floor is only an eighth of the loss, for the targets are noisy before $t = 0.2$ only. EFM-1000 has removed about all of
# it, and the other seven eighths are as they were.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The paper's numbers
#
# The paper compares the five at full size in curves, without numbers. Its appendix has numbers for two other data sets:

# %% slideshow={"slide_type": "fragment"}
paper = {}
for row in reference.read_reference("bertrand2025_appendix"):
    paper.setdefault(f"{row['data']}, epoch {row['epoch']}", {})[int(row["M"])] = float(row["distance"])
for title, distances in paper.items():
    base = distances[1]
    said = "   ".join(f"M = {M}: {fd:.2f} ({fd / base - 1:+.0%})" for M, fd in distances.items())
    print(f"{title:24} {said}")

# %% [markdown] slideshow={"slide_type": "skip"}
# Classifier Fréchet distances to the test set; $M = 1$ is CFM. In both the distance falls as the targets get less noisy. No spread over
# seeds is given.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What the evidence says, and what it does not
#
# **It says**
#
# - A network that draws new images differs from $u^*$ after the collapse, and this difference is enough: until then it may follow
#   $u^*$ itself, and still nothing is copied.
# - Taking the noise out of the targets changes this little. After the collapse there is none to take out.
#
# **It does not say**
#
# - *Why* the network fails after the collapse. Width, architecture (a convolution cannot easily look things up), the optimizer and the
#   number of steps were all kept fixed here, together. With ten images the same network does not fail; so it is a matter of how
#   much there is to learn by heart, in how many steps, but that is as far as it goes.
# - That failure is *good*. Before the collapse it was underfitting, and our samples are worse than real images by every measure.
# - Much about $d$ alone: from digits to photographs $d$, $n$, contrast and network change together.
# - Much about rare copies. Each row is one seed and a few hundred samples: a copy in a thousand would not be seen. Larger networks
#   trained for longer do copy some of their images (Carlini et al. 2023), and by more than pixels can tell: our distance
#   takes a shifted copy for a new image.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you saw

# %% slideshow={"slide_type": "skip"}
at_half = TIMES.index(0.5)
before_turn = unseen["u*", 1500][at_half] / unseen["network", 1500][at_half]
after_turn = unseen["u*", 1500][TIMES.index(0.8)] / unseen["network", 1500][TIMES.index(0.8)]
gap = {n: unseen["network", n][TIMES.index(0.9)] / seen[n][TIMES.index(0.9)] for n in points}
new_distance = float(near[1500].distance[:, 0].mean())
by_switch = {tau: tuple(part[k] for part in forward) for k, tau in enumerate(SWITCHES)}
worst_bias = max(abs(mean) - 3 * half for (_, own), (mean, half) in bias.items() if own)
least_bias_without = min(mean for (_, own), (mean, _) in bias.items() if not own)
fewest_copies_back = min(backward[1][:-1])
most_over_least = max(remains.values()) / min(remains.values())
paper_falls = min(distances[1] - min(distances[M] for M in distances if M > 1) for distances in paper.values())

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
rows = [
    Claim("failure to learn by hand and in fmcore: difference", gap_failure, below(1e-5)),
    Claim("n = 10, t = 0.9: failure to learn over size of u*", failure[10][0.9] / size[10][0.9], below(0.06)),
    Claim("n = 1,500, t = 0.15: the same", failure[1500][0.15] / size[1500][0.15], below(0.02)),
    Claim("n = 1,500, t = 0.9: the same", failure[1500][0.9] / size[1500][0.9], above(0.2)),
    Claim("t = 0.5, held-out digits: loss of u* over that of the network", before_turn, below(0.95)),
    Claim("t = 0.8, held-out digits: loss of u* over that of the network", after_turn, above(2)),
    Claim("the network is ahead on held-out digits from t =", turn, between(0.5, 0.7)),
    Claim("best step towards u* at t = 0.2", way[0.2], above(0.75)),
    Claim("best step towards u* at t = 0.9", way[0.9], between(-0.05, 0.2)),
    Claim("n = 10, t = 0.9: network's loss on held-out over training digits", gap[10], above(30)),
    Claim("n = 1,500: the same", gap[1500], between(0.9, 1.2)),
    Claim("n = 10: share of copies", near[10].share_of_copies(), above(0.85)),
    Claim("n = 1,500: share of copies", near[1500].share_of_copies(), below(0.05)),
    Claim("held-out digits: distance to the nearest training image", real_distance, between(1.93, 1.94)),
    Claim("n = 1,500: distance of samples over that of held-out digits", new_distance / real_distance, above(1.15)),
]
claims.table(rows)

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
rows = [
    Claim("hybrid by hand and in fmcore: largest difference", gap_hybrid, below(1e-3)),
    Claim("distance to nearest, tau = 0.3 over tau = 0", by_switch[0.3][0] / by_switch[0.0][0], between(0.93, 1.05)),
    Claim("distance to nearest, tau = 0.8 over tau = 0", by_switch[0.8][0] / by_switch[0.0][0], below(0.6)),
    Claim("copies at tau = 0.5", by_switch[0.5][1], below(0.05)),
    Claim("decided at tau = 0.3", by_switch[0.3][2], below(0.5)),
    Claim("decided at tau = 0.8", by_switch[0.8][2], above(0.9)),
    Claim("network first, u* from tau <= 0.9 on: smallest share of copies", fewest_copies_back, above(0.98)),
    Claim("u_M by hand and in fmcore: largest difference", gap_bank, below(1e-3)),
    Claim("squared bias of u_M with x1 in the bank, beyond its error", worst_bias, below(0.0)),
    Claim("smallest squared bias without", least_bias_without, above(0.05)),
    Claim("M = 128: share of CFM's variance left at t = 0.1", left[128][1], below(0.03)),
    Claim("M = 128: share left at t = 0.6", left[128][6], above(0.5)),
    Claim("M = 128: share left over all times", total[128] / total[1], between(0.1, 0.25)),
    Claim("digits, CFM and EFM: largest over smallest failure to learn", most_over_least, between(1, 1.15)),
    Claim("paper: smallest fall of the distance from CFM to the best M", paper_falls, between(0.43, 0.45)),
]
claims.table(rows, title="What you saw (continued)")

# %% slideshow={"slide_type": "skip"}
ten, hundred = few["digits"][10], few["digits"][100]
error_at = {n: {one["t"]: one["error"] for one in few["digits"][n]["velocity_error"]} for n in few["digits"]}
live = failure[1500][0.8] / error_at[1500][0.8]
switched = {one["switch"]: one for one in hybrids["digits"]["hybrid"]}
apart = switched[0.2]["distance_to_nearest_training_image"] / switched[0.0]["distance_to_nearest_training_image"]
cfm, efm = targets["digits"]["CFM"], targets["digits"]["EFM-1000"]
gain = with_spread(efm, "generated")[0] / with_spread(cfm, "generated")[0]
gain_held_out = with_spread(efm, "generated, to held out")[0] / with_spread(cfm, "generated, to held out")[0]
most_copies = max(value(record, COPIES) for record in targets["digits"].values())

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
rows = [
    Claim("n = 10: share of copies", value(ten, COPIES), above(0.95)),
    Claim("n = 100: share of copies", value(hundred, COPIES), below(0.02)),
    Claim("failure to learn at t = 0.8, n = 100 over n = 10", error_at[100][0.8] / error_at[10][0.8], above(10)),
    Claim("failure to learn at t = 0.8, all over n = 100", error_at[1500][0.8] / error_at[100][0.8], below(2)),
    Claim("the network of this page over that of the record", live, between(0.9, 1.1)),
    Claim("hybrid: distance to nearest, tau = 0.2 over tau = 0", apart, between(0.98, 1.02)),
    Claim("hybrid: decided at tau = 0.5", switched[0.5]["share_decided"], below(0.5)),
    Claim("hybrid: decided at tau = 0.8", switched[0.8]["share_decided"], above(0.95)),
    Claim(
        "collapse of the digits minus collapse of CIFAR-10", collapse["digits"] - collapse["cifar10_small"], above(0.3)
    ),
    Claim("five targets: largest share of copies", most_copies, below(0.01)),
    Claim("FD to training, EFM-1000 over CFM", gain, below(1)),
    Claim("FD to held out, EFM-1000 over CFM", gain_held_out, below(1)),
]
claims.table(rows, title="What you saw: records of the digits")

# %% slideshow={"slide_type": "skip"}
photos = few["cifar10_small"]
photo_error = {n: {one["t"]: one["error"] for one in photos[n]["velocity_error"]} for n in photos}
step = photo_error[10_000][0.25] / photo_error[10_000][0.05]
bump = photo_error[10][0.1] / max(photo_error[10][0.05], photo_error[10][0.3])
photo_switched = {one["switch"]: one for one in hybrids["cifar10_small"]["hybrid"]}
FDs = {
    (name, of): with_spread(record, of)[0]
    for name, record in targets["cifar10_small"].items()
    for of in ("generated", "generated, to held out")
}
behind = max(FDs[name, of] / FDs["CFM", of] for name, of in FDs if name.startswith("EFM"))
photo_copies = max(value(record, COPIES) for record in targets["cifar10_small"].values())

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
rows = [
    Claim("n = 10: share of copies", value(photos[10], COPIES), above(0.5)),
    Claim("n = 100: share of copies", value(photos[100], COPIES), below(0.02)),
    Claim("n = 10: failure at t = 0.1 over that at 0.05 and at 0.3", bump, above(1.3)),
    Claim("n = 10,000: failure at t = 0.25 over that at t = 0.05", step, above(3)),
    Claim("collapse of u*, time", collapse["cifar10_small"], between(0.1, 0.2)),
    Claim("hybrid: decided at tau = 0.2", photo_switched[0.2]["share_decided"], below(0.25)),
    Claim("hybrid: decided at tau = 0.4", photo_switched[0.4]["share_decided"], above(0.8)),
    Claim("hybrid: copies at tau = 0.6", photo_switched[0.6]["share_of_copies"], below(0.05)),
    Claim("five targets: largest share of copies", photo_copies, below(0.01)),
    Claim("FD of EFM over FD of CFM, largest, both splits", behind, below(1)),
    Claim("floor of CFM over its loss", cifar_floor / last["CFM"], between(0.1, 0.17)),
    Claim("loss removed by EFM-1000 over floor", (last["CFM"] - last["EFM-1000"]) / cifar_floor, between(0.8, 1.25)),
]
claims.table(rows, title="What you saw: records of CIFAR-10")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## To remember
#
# - Loss = failure to learn $u^*$ + floor. The failure is small where $u^*$ is an average, and large where it is a look-up, after
#   the collapse.
# - Held-out images tell the two kinds of failure apart: before the collapse it is underfitting, after it generalization.
# - A sample is new if the network has the last word. Before the collapse nothing is decided; a network may need to see more.
# - $u_M$ with $x_1$ in the bank is an unbiased target of less variance. What it takes away is noise at times that do not make
#   copies.
# - Farther from the training images than real images are is not *more general*; it is blurred.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# In [exercises/08_generalization.ipynb](exercises/08_generalization.ipynb); each has a check that says what is wrong.
#
# 1. **A target with less noise.** Compute $u_M$ for a bank in the plane.
# 2. **The mean over all banks,** with $x_1$ in them and without.
# 3. **A hybrid sampler** in Euler steps, and where it sends points of two moons.
# 4. **Copies.** The share of samples that repeat a training image.
#
# <!-- next: written by fmcore.course.build -->
#
# Next: [09 Source geometry](09_source_geometry.ipynb). What does a Gaussian look like in many dimensions, and is a better source possible?
#
# <!-- end of next -->
