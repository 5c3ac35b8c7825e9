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
# networks trained with this loss draw images that nobody has seen. So these networks do not reach the minimum, and that is
# why they are useful. This chapter measures *where* between noise and image they miss it, from *how many* training images
# on, and tests two explanations: the *noise in the targets*, and the *narrow view* of a convolution. It ends with what
# such measurements cannot say.

# %% slideshow={"slide_type": "skip"}
import math
from dataclasses import replace

import torch
from torch.nn.functional import unfold

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
GREY = "#57606A"

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
card.show(
    "08_generalization",
    goals=[
        "split a network's loss into its failure to learn the exact velocity and the irreducible loss",
        "say at which times this failure is underfitting, and at which it is generalization",
        "build hybrid flows, and read off when a sample becomes a copy and when it is decided",
        "derive targets with less noise, show that they are unbiased, and say where they help",
        "build a velocity that sees only a few pixels at a time, and compare it with a network",
        "name what these experiments do not show",
    ],
    before=["chapter 07: the exact velocity, its collapse, copies", "chapter 06: U-Net, Fréchet distance"],
    exercises=[
        "1. Copies",
        "2. All banks of two",
        "3. Who leads this step?",
        "4. How much noise a bank removes",
        "5. Windows of a single pixel",
        "6. How much blur makes a copy new?",
    ],
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The puzzle
#
# As in chapter 07: $n$ training images $x^{(1)}, \dots, x^{(n)}$ in $\mathbb{R}^d$, a noise sample
# $x_0 \sim \mathcal{N}(0, I)$, a training image $x_1$, and the point $x_t = (1-t)\, x_0 + t\, x_1$ between them. The network
# $v(x, t)$ is trained to predict $x_1 - x_0$. The best possible prediction is the **exact velocity**
# $u^*(x, t) = \mathbb{E}[x_1 - x_0 \mid x_t = x]$. Chapter 03 derives it: the mean of the velocities
# $(x^{(i)} - x)/(1-t)$, weighted by the posterior weights $w_i(x, t)$, the probabilities that $x$ was made from $x^{(i)}$.
#
# Following $u^*$ from noise ends at training images. From some time on, the **collapse** (chapter 07), nearly all of the
# weight is on one of them.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Copies
#
# How near a sample is to the training set we measure by the Euclidean distance to the nearest training image. A sample is a
# **copy** if this distance is less than a third of the distance to the second nearest training image (Yoon et al. 2023, Gu
# et al. 2023).
#
# A bar for everything below: how far from the training images are *real* digits that were held out?

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
# The loss splits (chapters 03 and 07). Per dimension, at a time $t$:
#
# $$
# \frac{1}{d}\, \mathbb{E} \| v - (x_1 - x_0) \|^2
# = \underbrace{\frac{1}{d}\, \mathbb{E} \| v - u^* \|^2}_{\text{failure to learn}}
# {} + \underbrace{\frac{1}{d}\, \mathbb{E} \| u^* - (x_1 - x_0) \|^2}_{\text{irreducible loss: the noise of the target}} .
# $$
#
# The second part does not depend on the network. The first, the **failure to learn**, is what Bertrand et al. (2025) plot
# against $t$ for networks trained on more and more images.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Two networks
#
# We train two networks of the same size on batches of 64 images: one on $n = 10$ digits, for 250 steps, which will turn out
# to be enough, and one on all 1,500, for 320 steps. As in the paper the images are used as they are, without dequantization
# noise, so that the training set is the finite list in the formula.

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
for n, name, steps in ((10, "n10", 250), (1500, "hybrid", 320)):
    network[n], points[n], final_loss[n] = trained(name, steps)
    print(f"n = {n:5,}: mean loss of the last 100 steps {final_loss[n]:.3f}")
exact = {n: closed_form.EmpiricalVelocity(chosen) for n, chosen in points.items()}

# %% slideshow={"slide_type": "subslide"}
TIMES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def beside_exact(v, u, x0, x1, t):
    """Of pairs (x0, x1) at time t: failure to learn, irreducible loss and size of u*, means over pairs and pixels."""
    xt, target = path.interpolate_with_target(x0, x1, t)
    best = u(xt, t)
    parts = v(xt, torch.tensor(t)) - best, best - target, best
    return [float(part.square().mean()) for part in parts]


failure, floor, size = {}, {}, {}
for n, chosen in points.items():
    generator = torch.Generator().manual_seed(2)
    x1 = chosen[torch.randint(n, (160,), generator=generator)]
    x0 = torch.randn(x1.shape, generator=generator)
    parts = [beside_exact(network[n], exact[n], x0, x1, t) for t in TIMES]
    failure[n], floor[n], size[n] = (dict(zip(TIMES, part, strict=True)) for part in zip(*parts, strict=True))
same = float(velocity_mse(network[1500], exact[1500], path, x0, x1, 0.5).mean())
gap_failure = abs(same - failure[1500][0.5])
assert gap_failure < 1e-5, gap_failure
for t in (0.15, 0.5, 0.9, 0.99):
    print(f"t = {t:.2f}   failure to learn: n = 10: {failure[10][t]:.3f}   n = 1,500: {failure[1500][t]:.3f}")

# %% [markdown] slideshow={"slide_type": "skip"}
# The failure is computed by hand, in three lines; `metrics.velocity_mse` must give the same. With $v = u^*$ it would be
# zero; for a network that always says 0 it would be $\mathbb{E} \|u^*\|^2 / d$, the size of what there is to learn.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 2, height=3.6, sharey=True)
for ax, n in zip(axes, (10, 1500), strict=True):
    ax.plot(TIMES, list(size[n].values()), ":", color=GREY, label="size of $u^*$")
    ax.plot(TIMES, list(floor[n].values()), "--", color=style.PATH, label="irreducible loss")
    ax.plot(TIMES, list(failure[n].values()), "o-", color=style.MODEL, label="failure to learn", markersize=4)
    ax.set(xlabel="t", title=f"n = {n:,} digits", ylim=(0, 1.75), xlim=(0, 1))
axes[0].set_ylabel("per dimension")
axes[0].legend(loc="center left", bbox_to_anchor=(0, 0.6), fontsize=10)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Ten digits are learned**, up to a small bump on the way to *their* collapse and up to the last moments. **1,500 digits are
# not**: the failure rises on the way to the collapse, where the irreducible loss falls to zero, and does not come back.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Towards $t = 1$, and the paper's two bumps
#
# Towards $t = 1$ both fail. There $u^* = (x^{(i)} - x_t)/(1-t)$, and its size comes from $x_0$, of which only a trace is left in
# $x_t$: an error $\varepsilon$ in the image is an error $\varepsilon / (1-t)$ in the velocity. No smooth network
# follows that; and at the end it matters little, since only $1 - t$ of the time is left.
#
# The paper sees two bumps for CIFAR-10, at $t = 0.15$ and towards $t = 1$. Our digits have the second. At $t = 0.15$ they have
# nothing of the kind: the first bump is where the collapse is, and in 64 dimensions that is much later than in 3,072 (chapter 07).

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A fault or a virtue?
#
# A network that has learned nothing fails to learn $u^*$, too. So a large failure is not generalization: it may be plain
# **underfitting**, too small a network or too few steps. What tells them apart is a test on data that neither has seen, the
# loss on **held-out** images. Where $u^*$ has the lower loss, the network would gain by coming closer to $u^*$: most of its
# failure is underfitting. Where the network has the lower loss, coming closer would hurt: most of the failure is
# generalization.

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

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 2, height=3.7)
for ax, n in zip(axes, (10, 1500), strict=True):
    ax.plot(TIMES, unseen["u*", n], color=style.EXACT, label="$u^*$, held-out digits")
    ax.plot(TIMES, unseen["network", n], "o-", color=style.MODEL, label="network, held-out digits", markersize=4)
    ax.plot(TIMES, seen[n], "s--", color=style.PATH, label="network, its training digits", markersize=3, linewidth=1.4)
    ax.set(xlabel="t", title=f"n = {n:,}", xlim=(0, 1))
axes[0].set(ylim=(0, 8), ylabel="loss per dimension")
axes[1].set_ylim(0, 1.6)
axes[1].axvline(turn, color=GREY, linewidth=1.2, linestyle=":", zorder=0)
axes[1].text(turn - 0.02, 0.06, "underfitting", ha="right", fontsize=10, color=GREY)
axes[1].text(turn + 0.02, 0.06, "generalization", fontsize=10, color=GREY)
axes[0].legend(fontsize=10)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# **With $n = 1{,}500$ the lines cross at about the collapse.** Before it $u^*$ is the better model of *unseen* digits. After it
# $u^*$ is sure of the wrong image, and the network, which never became sure, does as well on unseen digits as on those that
# it was trained on. With $n = 10$ the network has followed its $u^*$ into memory: at $t = 0.9$ its loss on unseen digits is
# more than thirty times that on its own ten.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### How much of each?
#
# Go from $v$ towards $u^*$ in a straight line, $v + \lambda\, (u^* - v)$. The held-out loss along it is a parabola in $\lambda$. With
# $L_v$ and $L_{u^*}$ the losses at its ends, and $\Delta = \mathbb{E}\|v - u^*\|^2 / d$ on held-out images, its lowest point is at
#
# $$
# \lambda^* = \frac12 + \frac{L_v - L_{u^*}}{2 \Delta} .
# $$
#
# At $\lambda^* = 1$ the network should go all the way, and its failure is underfitting; at 0 it should stay where it is.

# %% slideshow={"slide_type": "fragment"}
apart = (predicted["network", 1500] - predicted["u*", 1500]).square().mean(dim=(1, 2, 3, 4))
way = {}
for k, t in enumerate(TIMES):
    way[t] = 0.5 + (unseen["network", 1500][k] - unseen["u*", 1500][k]) / (2 * float(apart[k]))
chosen_times = (0.1, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
print("best step towards u*:  " + "   ".join(f"t = {t}: {way[t]:.2f}" for t in chosen_times))

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, ax = plotting.canvas(width=6.4, height=3.4)
ax.axhspan(0, 1, color=style.GRID, alpha=0.5, linewidth=0)
ax.plot(TIMES, list(way.values()), "o-", color=style.MODEL, markersize=5)
ax.axvline(turn, color=GREY, linewidth=1.2, linestyle=":", zorder=0)
ax.set(xlabel="t", ylabel=r"best step $\lambda^*$ from $v$ to $u^*$", xlim=(0, 1), ylim=(-0.1, 1.3))
ax.text(0.97, 1.04, "all the way: underfitting", fontsize=10, color=GREY, ha="right")
ax.text(0.97, -0.07, "stay: generalization", fontsize=10, color=GREY, ha="right")
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Underfitting passes into generalization around the collapse**: early the network should go (nearly) all the way to $u^*$, at
# the dotted line half of it, at $t = 0.9$ next to nothing.

# %% [markdown] slideshow={"slide_type": "fragment"}
# (Above 1, at early times, the two nearly agree, and going a little beyond $u^*$ would help.) So most of the
# failure at $t = 0.5$ is underfitting, and most of it from 0.7 on is generalization. It does not follow that *this* network is
# the best that can be had at late times: a larger one, trained for longer, may lower its held-out loss. It would not do so by
# coming closer to $u^*$.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What they draw
#
# 64 noise samples, the same for both networks, in 20 Euler steps.

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
from_noise = nearest_training_images(start, images).distance[:, 0].mean()
print(f"the noise samples:       nearest training image at {from_noise:.2f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
sheet, rows = [], []
for n in (10, 1500):
    sheet += [drawn[n][:12], points[n][near[n].row[:12, 0]]]
    rows += [f"drawn, n = {n:,}", "nearest in training"]
plotting.images(torch.cat(sheet), columns=12, rows=rows)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Same architecture, same loss, same noise samples: one network copies, the other does not.** The one that copies had fewer
# steps. What makes it copy is the small number of images.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### New is not the same as good
#
# But look at the distances again. The samples of the second network are *farther* from the training digits than real
# unseen digits are, and they look blurred. New is not the same as good: a distance above that of real images is a
# shortcoming, and the noise samples have the largest distance of all.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## From how many images on?
#
# The records: networks trained on $n$ images, each for 400 steps, and measured like the two above, on the digits and on
# CIFAR-10 (photographs, $d = 3{,}072$).
#
#     fmcore train bertrand2025/digits/n100            # about a minute
#     fmcore train bertrand2025/cifar10_small/n100     # about ten minutes, and CIFAR-10 in data_dir=...
#     fmcore table bertrand2025

# %% slideshow={"slide_type": "skip"}
budget = {}
for name in ("cifar10", "cifar10_small"):
    row = catalog.by_name(f"bertrand2025/{name}/n100")
    with torch.device("meta"):  # only to count the parameters
        parameters = sum(p.numel() for p in build_network(row, (3, 32, 32)).parameters())
    budget[name] = parameters, row.training.steps * row.training.batch
    print(f"{name:14} {budget[name][0]:11,} parameters, {budget[name][1]:10,} training images seen")
more = [a / b for a, b in zip(budget["cifar10"], budget["cifar10_small"], strict=True)]
print(f"paper over ours: {more[0]:.0f} times the parameters, {more[1]:.0f} times the images")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Every network gets the same number of steps. As n grows from 10 to all images, the share of copies falls from 1 to 0. "
    "Where on the digits?",
    ["between 10 and 100", "between 100 and 1,000", "above 1,000"],
    answer=0,
    because="400 steps of 64 show each of 10 images 2,560 times, and each of 100 images 256 times. In these records that is "
    "too seldom for this network to learn them by heart. One expects the number to depend on the budget.",
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
error_at = {
    block: {n: {e["t"]: e["error"] for e in one["velocity_error"]} for n, one in few[block].items()} for block in few
}
for block in few:
    print(f"{BLOCKS[block]:22} failure to learn at t = 0.05   0.1  0.15  0.25   0.8")
    for n, errors in error_at[block].items():
        print(f"  n = {n:6,} {'':34}" + " ".join(f"{errors[t]:5.2f}" for t in (0.05, 0.1, 0.15, 0.25, 0.8)))

# %% slideshow={"slide_type": "subslide"}
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

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
DASHES = ("-", "--", "-.", ":", "-")


def shades(k, count):
    """Colour, marker and dashes of line k of an ordered family: dark enough to be seen, told apart without colour."""
    color = style.density_map()(0.5 + 0.48 * k / max(1, count - 1))
    return {"color": color, "marker": style.MARKERS[k], "linestyle": DASHES[k], "markersize": 4.5, "linewidth": 1.5}


figure, axes = plotting.canvas(1, len(few), height=3.9, squeeze=False, sharey=True)
for ax, block in zip(axes[0], few, strict=True):
    for k, (n, errors) in enumerate(error_at[block].items()):
        label = f"n = {n:,}" if n < ALL[block] else f"all {n:,}"
        ax.plot(list(errors), list(errors.values()), label=label, **shades(k, len(few[block])))
    ax.set(xlabel="t", title=BLOCKS[block], ylim=(0, 1), xlim=(0, 1))
    ax.legend(fontsize=10, loc="upper left")
axes[0, 0].set_ylabel("failure to learn")
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# **In both data sets the failure begins on the way to the collapse, and grows mostly from 10 to 100 images.** On CIFAR-10 early
# times show what the digits, in their few dimensions, cannot: with ten images the paper's two bumps, one of 0.09 at $t = 0.1$
# and one towards $t = 1$; with more images a step in place of the first bump.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(2, len(few), height=5.6, squeeze=False, sharex="col")
for line, block in zip(axes.T, few, strict=True):
    ns = list(few[block])
    held = [value(record, NEAREST, "held out (real)") for record in few[block].values()]
    made = [value(record, NEAREST) for record in few[block].values()]
    line[0].plot(ns, held, "s--", color=style.DATA, label="real, held out")
    line[0].plot(ns, made, "o-", color=style.MODEL, label="drawn")
    line[1].plot(ns, [value(record, COPIES) for record in few[block].values()], "o-", color=style.MODEL)
    line[0].set(xscale="log", title=BLOCKS[block], ylim=(0, None))
    line[1].set(xscale="log", xlabel="n", ylim=(-0.04, 1.04))
    line[0].legend(fontsize=10)
axes[0, 0].set_ylabel("distance to nearest")
axes[1, 0].set_ylabel("share of copies")
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# **With ten images most samples are copies, 99% of the digits and 72% of the photographs; with 100 images none is.** The more
# training images there are, the nearer is the nearest of them to anything (dashed line). Samples of ten images lie far below
# this line; with more images the two lines meet and cross, and there are no copies left.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### And in the paper?
#
# **The paper** sees the distance to the nearest training image rise from $n = 3{,}000$ on, where ours has long risen. A likely
# reason is the budget: to learn 1,000 images by heart takes more parameters and more steps than ours. We have not varied the
# budget, so this stays a guess. In any case the threshold need not be a property of the data alone.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Hybrid flows
#
# The network departs from $u^*$ at some times. Does it *matter* there? The test of Bertrand et al. (2025): start from noise,
# follow $u^*$ up to a time $\tau$, the **switch**, and the network from there on,
#
# $$
# v_\tau(x, t) = \begin{cases} u^*(x, t) & t < \tau \\ v(x, t) & t \ge \tau \end{cases}
# $$
#
# At $\tau = 0$ the network is alone; at $\tau = 1$ the exact velocity is, which copies. From which $\tau$ on are samples copies?

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

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Eleven switches
#
# From the same 64 noise samples. The first part of the trajectory is shared: $u^*$ is followed once, and the network starts
# from each of eleven points on it. **Decided** is the share of noise samples from which the sample's nearest training image
# is the one where $u^*$ alone would have ended.

# %% slideshow={"slide_type": "fragment"}
SWITCHES = [round(0.1 * k, 1) for k in range(11)]


def all_switches(way, second):
    """Samples that follow a trajectory (21, 64, 1, 8, 8) up to each switch, then `second`: (switches, 64, 1, 8, 8)."""
    ends = [round(switch * STEPS) for switch in SWITCHES]
    return torch.stack([exact_velocity.follow(second, way[end], grid[end:]) for end in ends])


def measured(sets, goal):
    """Of each set: mean distance to the nearest training image, copies, share whose nearest is the goal."""
    found = [nearest_training_images(x, images) for x in sets]
    decided = [float((one.row[:, 0] == goal).float().mean()) for one in found]
    return [float(one.distance[:, 0].mean()) for one in found], [one.share_of_copies() for one in found], decided


# %% slideshow={"slide_type": "subslide"}
by_exact = solvers.solve(u, start, method="euler", times=grid).trajectory
exact_first, network_first = all_switches(by_exact, v), all_switches(trail[1500], u)
copied = nearest_training_images(exact_first[-1], images).row[:, 0]  # where u* alone leads each noise sample
liked = nearest_training_images(exact_first[0], images).row[:, 0]  # nearest to what the network alone draws
forward, backward = measured(exact_first, copied), measured(network_first, liked)
for switch, distance, copies, decided in zip(SWITCHES, *forward, strict=True):
    print(f"tau = {switch}   nearest at {distance:.2f}   copies {copies:4.0%}   decided {decided:4.0%}")
first_copies = next(switch for switch, share in zip(SWITCHES, forward[1], strict=True) if share > 0.1)
print(f"more than a tenth of the samples are copies from tau = {first_copies} on")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
sheet = torch.cat([exact_first[:, :4].transpose(0, 1).flatten(0, 1)])
plotting.images(sheet, columns=len(SWITCHES), titles=[f"{switch}" for switch in SWITCHES], title=r"$\tau$")

# %% [markdown] slideshow={"slide_type": "fragment"}
# A row is one noise sample: on the left the network is alone, on the right $u^*$ is, at a training image. **First it is decided
# *which* image, then it is copied**: "decided" rises between 0.5 and 0.7, at the collapse, to blurred versions of that image;
# copies appear only when $u^*$ is followed nearly to the end.


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
# data set, which this repository does not contain. Distances are also given relative to that of real held-out images, so that
# the two data sets can be compared. The collapse is taken from chapter 07's records: the time from which on nine of ten $x_t$
# have a cosine above 0.9 between $u^*$ and $x_1 - x_0$.

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
    held = value(record, NEAREST, "held out (real)")
    for one in record["hybrid"]:
        distance, error = one["distance_to_nearest_training_image"], one["standard_error"]
        said = f"{distance / held:5.0%} of real   copies {one['share_of_copies']:4.0%}   decided {one['share_decided']:4.0%}"
        print(f"  tau = {one['switch']:.1f}   nearest at {distance:5.2f} ± {error:.2f}   {said}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 3, height=3.6)
LINES = {"digits": (style.PATH, "o-"), "cifar10_small": (style.DATA, "s--")}
KEYS = ("distance_to_nearest_training_image", "share_of_copies", "share_decided")
for block, record in hybrids.items():
    color, mark = LINES[block]
    taus = [one["switch"] for one in record["hybrid"]]
    for ax, key in zip(axes, KEYS, strict=True):
        scale = value(record, NEAREST, "held out (real)") if ax is axes[0] else 1
        line = [one[key] / scale for one in record["hybrid"]]
        ax.plot(taus, line, mark, color=color, label=BLOCKS[block], markersize=5, linewidth=1.6)
        ax.axvline(collapse[block], color=color, linestyle=":", linewidth=1.6)
for ax, title in zip(axes, ("distance to nearest / real", "share of copies", "share decided"), strict=True):
    ax.set(xlabel=r"$\tau$", title=title, ylim=(-0.04, None))
figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=2)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# Dotted: the collapse. **A sample is decided at the collapse of the digits, and after the collapse of CIFAR-10; it becomes a
# copy only for the last switches.** The digits have 1% of copies at $\tau = 0.8$, CIFAR-10 52%.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Read the table
#
# **Digits.** Up to $\tau = 0.2$ the distance stays within 1%; at 0.6 it is a quarter lower. Even at $\tau = 0$ 23% count as
# decided: network and $u^*$ start from the same noise sample and agree at early times, so the new sample often resembles the
# copy best. At 0.8, 99% are decided and 1% are copies: the rest are blurred versions of *their* image.
#
# **CIFAR-10.** All of it happens earlier, and much as in the paper: decided are 11% at $\tau = 0.2$, 55% at 0.3 and 92% at 0.4. The
# distance falls by 4% at 0.1 and 6% at 0.2, where the paper (with another distance) sees no change, and then faster.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The collapse does not explain all of it
#
# For CIFAR-10 $u^*$ knows at 0.15 which image it will be, and yet a network that
# takes over at 0.2 draws another one in nine of ten cases. To *identify* one of 50,000 known images in noise takes little:
# 3,072 faint pixels together tell. A network that does not know them by heart may have to *see* the image, and that is
# possible only when it stands out from the noise. Before the collapse nothing can be decided; how long after it something is
# may depend on the network, too.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### The other way round
#
# We also turn the experiment round, which the paper does not do: the **network first**, $u^*$ from $\tau$ on.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "The network leads until t = 0.8, when its sample is nearly finished and new. Then u* takes over for the last fifth of the "
    "time. What comes out?",
    ["the new digit: only details are left to decide", "a copy of a training image", "something in between"],
    answer=1,
    because="u* knows nothing but training images. It ends at one from wherever it starts, however late, and its velocity grows like "
    "1 / (1 - t) to get there in time.",
)

# %% slideshow={"slide_type": "fragment"}
for switch, distance, copies, agrees in zip(SWITCHES, *backward, strict=True):
    said = f"nearest at {distance:.2f}   copies {copies:4.0%}   the image nearest to the network's own sample {agrees:4.0%}"
    print(f"network up to {switch}   {said}")
fewest_copies_back = min(backward[1][:-1])
print(
    f"u* leads the last tenth only: {backward[1][-2]:.0%} copies; the network leads the last tenth only: {forward[1][-2]:.0%}"
)

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 2, height=3.6, sharey=True)
both = {"$u^*$ first": (forward, style.EXACT, "o-"), "network first": (backward, style.MODEL, "s--")}
for name, (found, color, mark) in both.items():
    axes[0].plot(SWITCHES, found[1], mark, color=color, label=name, markersize=5)
    goal = "as $u^*$ alone" if found is forward else "nearest to the network's"
    axes[1].plot(SWITCHES, found[2], mark, color=color, label=f"{name}: {goal}", markersize=5)
axes[0].set(xlabel=r"$\tau$", title="share of copies")
axes[0].legend(fontsize=10, loc="center left")
axes[1].set(xlabel=r"$\tau$", title="which training image", ylim=(-0.04, 1.04))
axes[1].legend(fontsize=9, loc="upper left")
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Being last is not enough for the network.** $u^*$ makes every sample a copy, even when it leads only the last tenth. The
# network cannot undo that in the last tenth: a large part of the samples remain copies. On the digits it must take over by
# $\tau = 0.8$ or so. What counts is *when* each of the two leads.

# %% [markdown] slideshow={"slide_type": "fragment"}
# *Which* training image a sample is or resembles depends on who led **around** the collapse and before. What happens at
# early times, where network and $u^*$ nearly agree, changes little in either order.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Is it the noise of the targets?
#
# A common explanation of generalization: the target $x_1 - x_0$ is random, the network sees a different one each time, and this
# noise keeps it from learning $u^*$, as noise in gradients is said to keep networks from overfitting. If so, targets with *less*
# noise should bring it closer to $u^*$, and samples closer to copies.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Targets with less noise
#
# **Empirical flow matching** (EFM; Bertrand et al. 2025) draws, besides $x_0$, $x_1$ and $t$, a **bank** of $M - 1$ further
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
# $M = 1$ is conditional flow matching (CFM), the usual training. As $M \to \infty$, $u_M$ becomes $u^*$ itself.

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
# **Unbiased**: the same minimizer as CFM. And a conditional mean has no more variance than what it is a mean of. Both hold
# because $x_t$ was made from a member of the bank. A bank that is drawn without $x_1$ asks "which of these *others* was it?",
# and gets a wrong answer.

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
# bias, because the average is noisy. So average two independent halves of the draws: the *product* of their deviations has
# exactly the squared bias as its mean.


# %% slideshow={"slide_type": "fragment"}
def squared_bias(M, with_own, draws=30, t=0.5):
    """Squared bias of u_M at 64 points x_t, per dimension; mean over the points and half of a 95% interval."""
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


# %% slideshow={"slide_type": "subslide"}
SIZES = (2, 16, 128)
bias = {(M, own): squared_bias(M, own) for M in SIZES for own in (True, False)}
for (M, own), (mean, half) in bias.items():
    print(f"M = {M:3}   {'b_1 = x_1 in the bank' if own else 'b_1 left out         '}   {mean:8.5f} ± {half:.5f}")
worst_bias = max(abs(mean) - 3 * half for (_, own), (mean, half) in bias.items() if own)
least_bias_without = min(mean for (_, own), (mean, _) in bias.items() if not own)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **With $x_1$ in the bank the bias is zero within its error; without, it is far from zero**, and fades only as the bank
# approaches the whole data set. (In exercise 2 the banks are few enough to be enumerated, and the bias is zero exactly.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Measure the variance
#
# The irreducible loss with $M$ points is $\mathbb{E} \|u_M - u^*\|^2 / d$, the variance of the target. How much of that of CFM
# is left?

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

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 2, height=3.8)
for k, M in enumerate(BANKS):
    label = "CFM (M = 1)" if M == 1 else f"M = {M:,}"
    axes[0].plot(MOMENTS[:-1], variance[M], label=label, **shades(k, len(BANKS)))
    if M > 1:
        axes[1].plot(MOMENTS[:8], left[M][:8], label=label, **shades(k, len(BANKS)))
        at = min(range(8), key=lambda j, M=M: abs(math.log(M * effective[j] / 1500)))
        axes[1].plot(MOMENTS[at], left[M][at], "o", markersize=11, markerfacecolor="none", color=style.INK)
axes[0].set(xlabel="t", title="variance of the target", ylabel="per dimension", ylim=(0, None))
axes[1].set(xlabel="t", title="share of CFM's variance", ylim=(0, 1.05))
axes[1].plot([], [], "o", markersize=10, markerfacecolor="none", color=style.INK, label="about one rival in the bank")
axes[0].legend(fontsize=10)
axes[1].legend(fontsize=10, loc="upper left")
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# **EFM removes target noise where $u^*$ is an average**: nearly all of it early, and less and less on the way to the collapse.
# Over all times $M = 128$ removes more than four fifths of it on the digits.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Why less and less?
#
# Early, $M$ images share the weight evenly and the variance falls like $1/M$. Late, the target is deterministic anyway, whatever
# $M$. In between the number of **rivals** decides, other images that $x_t$ could well have come from: of $n$ images
# $n_{\mathrm{eff}}$ count (chapter 07; last line above), so a bank holds about $M\, n_{\mathrm{eff}} / n$ of them, and where this
# falls below one (circles), EFM has little left to offer.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Five targets
#
# Does less noise change what is drawn? The records: five networks on each data set, alike in everything but the target. OT-CFM
# pairs noise and images of each batch by optimal transport (OT pairs, chapter 05; Tong et al. 2024), which also makes targets
# less noisy, but changes what they average to: its minimizer is not $u^*$. On CIFAR-10 these five are trained with mirror
# images too, as in the paper; the networks before were not.
#
#     fmcore train bertrand2025/digits/efm128            # about a minute
#     fmcore train bertrand2025/cifar10_small/efm128     # about ten minutes

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "EFM with M = 1,000 has nearly no noise in its targets. Compared with CFM, at equal budget, its samples are ...",
    [
        "more often copies: without the noise it learns u*",
        "worse: the noise regularized the network",
        "no copies either, and no farther from the data",
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
        loss = record["training"]["mean_loss_of_last_100_steps"]
        print(
            f"  {name:18} {to[0]:>15}  {to[1]:>15}     {value(record, COPIES):5.1%}   {value(record, NEAREST):7.2f}   {loss:12.3f}"
        )

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
LOOK = {
    name: style.MODEL if name == "CFM" else style.PATH if name == "OT-CFM" else style.DATA for name in TARGETS.values()
}
figure, axes = plotting.canvas(len(targets), 2, height=2.5 * len(targets), squeeze=False)
for line, block in zip(axes, targets, strict=True):
    for ax, of in zip(line, ("generated", "generated, to held out"), strict=True):
        found = {name: with_spread(record, of) for name, record in targets[block].items()}
        for k, (name, (center, spread)) in enumerate(found.items()):
            ax.errorbar(center, k, xerr=spread, color=LOOK[name], marker=style.MARKERS[k], markersize=7, capsize=4)
            ax.text(center + spread, k - 0.25, f"  {center:.2f}", fontsize=9, va="center")
        ax.set_yticks(range(len(found)), list(found) if ax is line[0] else [])
        ax.invert_yaxis()
        ax.margins(0.12, 0.15)
    line[0].set_ylabel(BLOCKS[block])
axes[0, 0].set_title("FD to training images")
axes[0, 1].set_title("FD to held-out images")
figure

# %% slideshow={"slide_type": "subslide"}
ahead = {}
for block, rows in targets.items():
    cfm, spread = with_spread(rows["CFM"], "generated")
    ahead[block] = {name: cfm - with_spread(record, "generated")[0] for name, record in rows.items() if name != "CFM"}
    said = "   ".join(f"{name} {gain:+.2f}" for name, gain in ahead[block].items())
    print(f"{BLOCKS[block]:20} FD of CFM minus FD of   {said}   (spread of CFM over its sets {spread:.2f})")
trainings = [with_spread(few["cifar10_small"][n], "generated")[0] for n in (10_000, 50_000)]
scatter = trainings[1] - trainings[0]
print(
    f"CIFAR-10, CFM: with 10,000 images {trainings[0]:.2f}, with all 50,000 {trainings[1]:.2f}: worse by {scatter:.2f}"
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Less noise in the targets made no copies, and no EFM row has a larger Fréchet distance than CFM.** That it *helps* these
# records cannot show: each row is one training, and the gains are of the size that single trainings may differ by.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### How much may chance explain?
#
# **Digits.** The Fréchet distance falls as $M$ grows, to training images and to held-out ones alike. EFM-1000 gains about
# twice the spread of CFM over its two generated sets, the others about that spread or less. The nearest training image is
# farther than from real digits in all rows.
#
# **CIFAR-10.** The EFM rows are ahead, not in the order of $M$; OT-CFM is behind. The last line tells how much trainings may
# differ: more images should not hurt, so most of the difference there is likely the scatter of single trainings, and no gain
# or loss in the line above is as large.
#
# The paper finds that less noise does not hurt and slightly helps, with networks and budgets that do not compare with ours.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Nearer to $u^*$?
#
# The last column of the table falls from 0.46 to 0.25. Has EFM learned better? The split of the loss holds for every unbiased
# target: the loss minus the irreducible loss is the failure to learn $u^*$. The irreducible losses we have measured above.

# %% slideshow={"slide_type": "fragment"}
OF_BANK = {"CFM": 1, "EFM-128": 128, "EFM-256": 256, "EFM-1000": 1000}
remains, loss = {}, {}
for name, M in OF_BANK.items():
    loss[name] = targets["digits"][name]["training"]["mean_loss_of_last_100_steps"]
    remains[name] = loss[name] - total[M]
    print(f"{name:9} loss {loss[name]:.3f} - irreducible {total[M]:.3f} = failure to learn {remains[name]:.3f}")
fall = loss["CFM"] - loss["EFM-1000"]
share_of_noise = (total[1] - total[1000]) / fall
print(f"from CFM to EFM-1000: loss less by {fall:.3f}, of which {share_of_noise:.0%} is irreducible loss")
at = torch.tensor(TIMES)
direct = float(torch.trapezoid(torch.tensor(list(failure[1500].values())), at) + (1 - at[-1]) * failure[1500][0.99])
print(f"area under the failure of n = 1,500 at the start of the chapter: {direct:.3f}")

# %% slideshow={"slide_type": "fragment"}
errors = few["cifar10_small"][50_000]["velocity_error"]
cifar_at, cifar_floor = (torch.tensor([e[key] for e in errors]) for key in ("t", "conditional"))
cifar_floor = float(torch.trapezoid(cifar_floor, cifar_at))
last = {name: record["training"]["mean_loss_of_last_100_steps"] for name, record in targets["cifar10_small"].items()}
cifar_fall = last["CFM"] - last["EFM-1000"]
print(f"CIFAR-10: loss of CFM {last['CFM']:.3f}, of EFM-1000 {last['EFM-1000']:.3f}, less by {cifar_fall:.3f}")
print(f"irreducible loss of CFM {cifar_floor:.3f}, {cifar_floor / last['CFM']:.0%} of its loss")

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Most of the gain in loss is irreducible loss; the failure to learn hardly changes, noise or no noise.** So what keeps this
# network from $u^*$ is not, in the main, the noise of the targets.

# %% [markdown] slideshow={"slide_type": "fragment"}
# The area under the failure curve, a measurement of another kind, is of the same size. (OT-CFM is left out, since its targets
# are biased. The losses are those of the last 100 training steps, the irreducible losses come from eleven times; a difference
# of 0.01 means little here.) On CIFAR-10 the irreducible loss, from the record of all 50,000 images without mirror images, is a
# small part of the loss. EFM-1000 has removed about as much as there was, and the rest is as it was.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The paper's numbers
#
# The paper compares the five at full size in curves, without numbers. Its appendix has numbers for two other data sets, the
# Fréchet distance to the test set in the features of a classifier, without a spread over seeds:

# %% slideshow={"slide_type": "fragment"}
paper = {}
for row in reference.read_reference("bertrand2025_appendix"):
    paper.setdefault(f"{row['data']}, epoch {row['epoch']}", {})[int(row["M"])] = float(row["distance"])
for title, distances in paper.items():
    base = distances[1]
    said = "   ".join(f"M = {M}: {fd:.2f} ({fd / base - 1:+.0%})" for M, fd in distances.items())
    print(f"{title:24} {said}")
paper_falls = min(distances[1] / max(distances[M] for M in distances if M > 1) for distances in paper.values())

# %% [markdown] slideshow={"slide_type": "fragment"}
# **In both, every $M > 1$ has a smaller distance than CFM ($M = 1$).**

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The paper's code
#
# It is public (github.com/generativemodels/closedformfm) and **differs from the text**. Its targets average over the whole
# batch of 128 images *and* a bank of 128 more, so "$M = 128$" acts like 256. The bank comes from a second shuffled pass over
# the data, so within an epoch it is drawn without replacement. The average of the weights (EMA) starts at step 1,000. And
# while it trains it measures samples of 9 Euler steps, from a grid of 10 times. Our records follow the text.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Is it locality?
#
# Another explanation looks at the network. A convolution with a $3 \times 3$ kernel sees a pixel and its neighbours. Suppose that
# a velocity may use, for each pixel $p$, only the window $W(p)$ of $k \times k$ pixels around it. The best one is again a
# conditional mean, now given the window alone. It is the exact velocity with *windows* compared in place of images:
#
# $$
# u_k(x, t)_p = \sum_{i=1}^n w_i^{(p)}\, \frac{x^{(i)}_p - x_p}{1 - t} ,
# \qquad
# w_i^{(p)} = \operatorname{softmax}_i \Big( \! -\frac{\| x_{W(p)} - t\, x^{(i)}_{W(p)} \|^2}{2 (1-t)^2} \Big) .
# $$
#
# Each pixel looks up its own training images, and different pixels may follow different ones: a mosaic. Kamb and Ganguli (2024)
# derive such local velocities and predict samples of convolutional diffusion models with them; see also Niedoba et al. (2024).

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "No network, no training: follow u_k of the 1,500 training digits, with windows of 3 x 3 pixels. What comes out?",
    ["copies: every weight settles on some training image", "new images", "noise"],
    answer=1,
    because="Each pixel settles on a training image, but on its own: neighbours whose windows overlap mostly agree, distant pixels "
    "need not. The result is pieced together from several digits.",
)


# %% slideshow={"slide_type": "fragment"}
class LocalVelocity:
    """u_k(x, t): the exact velocity where each pixel sees only the k x k pixels around it (for one time t)."""

    def __init__(self, data, k):
        self.k, self.pixels = k, data.flatten(1).T  # (64, n)
        self.patches = self.windows(data)
        self.squares = self.patches.square().sum(dim=2)

    def windows(self, x):
        """The window of every pixel, (64, B, k * k); beyond the edge there are zeros."""
        return unfold(x, self.k, padding=self.k // 2).permute(2, 0, 1).contiguous()

    def __call__(self, x, t):
        t = torch.as_tensor(t).float()
        products = self.windows(x) @ self.patches.transpose(1, 2)  # (64, B, n)
        logits = (t * products - t**2 / 2 * self.squares[:, None]) / (1 - t) ** 2
        mean = torch.softmax(logits, dim=2) @ self.pixels[:, :, None]  # (64, B, 1)
        return (mean[:, :, 0].T.reshape(x.shape) - x) / (1 - t)


# %% slideshow={"slide_type": "subslide"}
local = {"3 x 3": LocalVelocity(images, 3), "5 x 5": LocalVelocity(images, 5)}
few_images = images[:100]
whole = LocalVelocity(few_images, 15)  # 15 x 15 around any pixel holds the whole image
xt = path.interpolate(x0[:16], few_images[:16], 0.4)
gap_local = float((whole(xt, 0.4) - closed_form.EmpiricalVelocity(few_images)(xt, 0.4)).abs().max())
assert gap_local < 1e-2, gap_local
from_local = {name: solvers.solve(one, start, method="euler", times=grid).x for name, one in local.items()}
from_local |= {"whole image: u*": exact_first[-1], "network": drawn[1500]}
near_local = {name: nearest_training_images(x, images) for name, x in from_local.items()}
for name, found in near_local.items():
    copies = found.share_of_copies()
    print(f"{name:16} copies {copies:4.0%}   nearest training image at {found.distance[:, 0].mean():.2f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
sheet = torch.cat([x[:12] for x in from_local.values()])
plotting.images(sheet, columns=12, rows=["$3 \\times 3$", "$5 \\times 5$", "$u^*$", "network"])

# %% [markdown] slideshow={"slide_type": "fragment"}
# A column is one noise sample. **A narrow view is enough to make new images: no copies with $3 \times 3$ or $5 \times 5$, only
# copies with the whole image.** Nothing was trained, and the targets' noise plays no part.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Is it what the network does?
#
# Compare velocities at points $x_t$ between noise and training digits. As a control a velocity that is not local and does not copy
# either: the exact velocity of a *Gaussian* with the mean $m$ and the covariance $C$ of the training digits, which is linear
# in $x$ (Li, Dai and Qu 2024 find networks close to it).

# %% slideshow={"slide_type": "fragment"}
flat = images.flatten(1)
m, C = flat.mean(dim=0), torch.cov(flat.T)


def gaussian(x, t):
    """The exact velocity if the data were Gaussian: E[x1 | x_t] is linear in x_t."""
    t = torch.as_tensor(t).float()
    gain = t * C @ torch.linalg.inv(t**2 * C + (1 - t) ** 2 * torch.eye(64))
    return ((m + (x.flatten(1) - t * m) @ gain.T).view(x.shape) - x) / (1 - t)


rivals = {"whole image: u*": u, "Gaussian": gaussian, **local}
LATE = (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
beside = {name: [] for name in rivals}
for t in LATE:
    xt, now = path.interpolate(x0[:96], x1[:96], t), torch.tensor(t)
    for name, velocity in rivals.items():
        beside[name].append(float((velocity(xt, now) - v(xt, now)).square().mean()))

# %% slideshow={"slide_type": "subslide"}
from_local["Gaussian"] = solvers.solve(gaussian, start, method="euler", times=grid).x
away = {name: float((x - drawn[1500]).flatten(1).norm(dim=1).mean()) for name, x in from_local.items()}
print("distance to the network's velocity, per dimension                  to its sample from the same noise")
print(" " * 12 + "t =" + "".join(f"{t:6.1f}" for t in LATE))
for name, line in beside.items():
    print(f"{name:15}" + "".join(f"{one:6.2f}" for one in line) + f"{away[name]:24.2f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, ax = plotting.canvas(width=6.8, height=3.7)
LOOKS = (("-", "o", style.EXACT), ("--", "s", style.PATH), ("-.", "^", style.MODEL), (":", "D", style.DATA))
for (name, line), (dash, marker, color) in zip(beside.items(), LOOKS, strict=True):
    ax.plot(LATE, line, linestyle=dash, marker=marker, color=color, label=name, markersize=5)
ax.set(xlabel="t", ylabel="distance to the network", ylim=(0, None))
ax.legend(fontsize=10)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# **After the collapse the velocity of $3 \times 3$ windows is nearer to the network than $u^*$ is; but so is the Gaussian, and
# its samples are nearer to the network's.** So locality is *enough* to explain new images. That it is what happens in this network, these
# numbers do not show.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What the control says
#
# The network is not bound to be local: it halves the resolution once and has an attention layer, so each pixel can see the
# whole image. What the two approximations share is that neither can look up a whole image. At $t = 0.7$ the windows of
# $3 \times 3$ are the nearest of the four, at 0.9 the Gaussian is; one training, 96 points.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What the evidence says
#
# - A network that draws new images differs from $u^*$ after the collapse, and this difference is enough: until then it may follow
#   $u^*$ itself, and still nothing is copied.
# - Taking the noise out of the targets changes this little. After the collapse there is hardly any to take out.
# - A velocity that sees a few pixels at a time draws new images, too, and is nearer to the network than $u^*$ is.
#   The same holds for a Gaussian that is not local.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What it does not say
#
# - *Why* the network fails after the collapse. Width, architecture, the optimizer and the number of steps were all kept fixed
#   here, together. With ten images the same network does not fail; so it is a matter of how much there is to learn by heart,
#   in how many steps, but that is as far as it goes.
# - That failure is *good*. Before the collapse it was underfitting, and our samples are farther from the data than real images
#   are, by both distances.
# - Much about $d$ alone: from digits to photographs $d$, $n$, contrast and network change together.
# - Much about rare copies. Each row is one seed and a few hundred samples: a copy in a thousand would not be seen. Larger networks
#   trained for longer do copy some of their images (Carlini et al. 2023). And pixels do not tell everything: our distance
#   takes a shifted copy for a new image.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
before_turn = unseen["u*", 1500][TIMES.index(0.5)] / unseen["network", 1500][TIMES.index(0.5)]
after_turn = unseen["u*", 1500][TIMES.index(0.8)] / unseen["network", 1500][TIMES.index(0.8)]
gap = {n: unseen["network", n][TIMES.index(0.9)] / seen[n][TIMES.index(0.9)] for n in points}
new_distance = float(near[1500].distance[:, 0].mean())
by_switch = {tau: tuple(part[k] for part in forward) for k, tau in enumerate(SWITCHES)}
most_over_least = max(remains.values()) / min(remains.values())
no_copies = max(near_local[name].share_of_copies() for name in local)
nearer = {name: line[LATE.index(0.7)] / beside["whole image: u*"][LATE.index(0.7)] for name, line in beside.items()}
first_rows = [
    Claim("n = 1,500, t = 0.15: failure to learn over size of u*", failure[1500][0.15] / size[1500][0.15], below(0.02)),
    Claim("n = 1,500, t = 0.9: the same", failure[1500][0.9] / size[1500][0.9], above(0.2)),
    Claim("the network is ahead of u* on held-out digits from t =", turn, between(0.5, 0.7)),
    Claim("n = 10: share of copies", near[10].share_of_copies(), above(0.85)),
    Claim("n = 1,500: share of copies", near[1500].share_of_copies(), below(0.05)),
    Claim("u* first: copies at tau = 0.8", by_switch[0.8][1], below(0.1)),
    Claim("u* first: copies at tau = 0.9, the network leads the last tenth", by_switch[0.9][1], between(0.3, 0.8)),
    Claim("network first: copies for any tau <= 0.9, fewest", fewest_copies_back, above(0.98)),
    Claim("digits, CFM and EFM: largest over smallest failure to learn", most_over_least, between(1, 1.15)),
    Claim("windows of 3 x 3 and 5 x 5: largest share of copies", no_copies, below(0.05)),
]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
page_rows = [
    Claim("windows of 3 x 3 at t = 0.7: distance to the network over that of u*", nearer["3 x 3"], below(0.5)),
    Claim("Gaussian at t = 0.7: the same", nearer["Gaussian"], below(0.8)),
    Claim("Gaussian: distance to the network's samples over that of 3 x 3", away["Gaussian"] / away["3 x 3"], below(1)),
    Claim("window of the whole image and u*: largest difference", gap_local, below(1e-2)),
    Claim("failure to learn by hand and in fmcore: difference", gap_failure, below(1e-5)),
    Claim("n = 10, t = 0.9: failure to learn over size of u*", failure[10][0.9] / size[10][0.9], below(0.06)),
    Claim("t = 0.5, held-out digits: loss of u* over that of the network", before_turn, below(0.95)),
    Claim("t = 0.8, held-out digits: loss of u* over that of the network", after_turn, above(2)),
    Claim("best step towards u* at t = 0.4", way[0.4], above(0.75)),
    Claim("best step towards u* at t = 0.9", way[0.9], between(-0.05, 0.2)),
    Claim("n = 10, t = 0.9: network's loss on held-out over training digits", gap[10], above(30)),
    Claim("n = 1,500: the same", gap[1500], between(0.9, 1.2)),
    Claim("held-out digits: distance to the nearest training image", real_distance, between(1.93, 1.94), digits=2),
    Claim("n = 1,500: distance of samples over that of held-out digits", new_distance / real_distance, above(1.15)),
    Claim("distance to nearest, tau = 0.3 over tau = 0", by_switch[0.3][0] / by_switch[0.0][0], between(0.93, 1.05)),
    Claim("distance to nearest, tau = 0.8 over tau = 0", by_switch[0.8][0] / by_switch[0.0][0], below(0.6)),
    Claim("decided at tau = 0.3", by_switch[0.3][2], below(0.5)),
    Claim("decided at tau = 0.8", by_switch[0.8][2], above(0.9)),
    Claim("hybrid by hand and in fmcore: largest difference", gap_hybrid, below(1e-3)),
    Claim("u_M by hand and in fmcore: largest difference", gap_bank, below(1e-3)),
    Claim("squared bias of u_M with x1 in the bank, beyond three times its error", worst_bias, below(0.0)),
]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
live = failure[1500][0.8] / error_at["digits"][1500][0.8]
ten_hundred = error_at["digits"][100][0.8] / error_at["digits"][10][0.8]
hundred_all = error_at["digits"][1500][0.8] / error_at["digits"][100][0.8]
switched = {block: {one["switch"]: one for one in hybrids[block]["hybrid"]} for block in hybrids}
most_copies = max(value(record, COPIES) for rows in targets.values() for record in rows.values())
page_rows += [
    Claim("smallest squared bias without x1 in the bank", least_bias_without, above(0.05)),
    Claim("M = 128: share of CFM's variance left at t = 0.1", left[128][1], below(0.03)),
    Claim("M = 128: share left at t = 0.6", left[128][6], above(0.5)),
    Claim("M = 128: share left over all times", total[128] / total[1], below(0.2)),
    Claim("CFM to EFM-1000: share of the fall of the loss that is irreducible loss", share_of_noise, above(0.8)),
    Claim("the network of this page over that of the record: failure at t = 0.8", live, between(0.9, 1.1)),
    Claim("paper: distance of CFM over the largest with M > 1, smaller data set", paper_falls, above(1.05), digits=2),
]
record_rows = [
    Claim("records, digits, n = 10: share of copies", value(few["digits"][10], COPIES), above(0.95), digits=2),
    Claim("records, digits, n = 100: share of copies", value(few["digits"][100], COPIES), below(0.02), digits=2),
    Claim("records, digits: failure at t = 0.8, n = 100 over n = 10", ten_hundred, above(10), digits=0),
    Claim("records, digits: failure at t = 0.8, all over n = 100", hundred_all, below(2), digits=2),
    Claim("records, digits: copies at tau = 0.8", switched["digits"][0.8]["share_of_copies"], below(0.05), digits=2),
    Claim("records, digits: decided at tau = 0.5", switched["digits"][0.5]["share_decided"], below(0.5), digits=2),
    Claim("records, digits: decided at tau = 0.8", switched["digits"][0.8]["share_decided"], above(0.95), digits=2),
    Claim("records, five targets, both data sets: largest share of copies", most_copies, below(0.01), digits=2),
]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
photos, photo_error, photo_switched = few["cifar10_small"], error_at["cifar10_small"], switched["cifar10_small"]
step = photo_error[10_000][0.25] / photo_error[10_000][0.05]
bump = photo_error[10][0.1] / max(photo_error[10][0.05], photo_error[10][0.3])
both_fd = ("generated", "generated, to held out")
behind = max(
    with_spread(rows[name], of)[0] / with_spread(rows["CFM"], of)[0]
    for rows in targets.values() for name in OF_BANK if name != "CFM" for of in both_fd
)  # fmt: skip
most_gain = max(abs(gain) for gain in ahead["cifar10_small"].values()) / scatter
record_rows += [
    Claim("records, CFM and EFM: FD over FD of CFM, largest of all", behind, below(1), digits=2),
    Claim("records, CIFAR-10, n = 10: share of copies", value(photos[10], COPIES), above(0.5), digits=2),
    Claim("records, CIFAR-10, n = 100: share of copies", value(photos[100], COPIES), below(0.02), digits=2),
    Claim("records, CIFAR-10, n = 10: failure at t = 0.1 over that at 0.05 and 0.3", bump, above(1.3), digits=1),
    Claim("records, CIFAR-10, n = 10,000: failure at t = 0.25 over that at 0.05", step, above(3), digits=1),
    Claim("collapse of the digits minus that of CIFAR-10", collapse["digits"] - collapse["cifar10_small"], above(0.3)),
    Claim("records, CIFAR-10: decided at tau = 0.2", photo_switched[0.2]["share_decided"], below(0.25), digits=2),
    Claim("records, CIFAR-10: decided at tau = 0.4", photo_switched[0.4]["share_decided"], above(0.8), digits=2),
    Claim("records, CIFAR-10: copies at tau = 0.6", photo_switched[0.6]["share_of_copies"], below(0.05), digits=2),
    Claim("records, CIFAR-10: copies at tau = 0.8", photo_switched[0.8]["share_of_copies"], above(0.4), digits=2),
    Claim("records, CIFAR-10: largest gain or loss over CFM, over the scatter", most_gain, below(1), digits=2),
    Claim("records, CIFAR-10: irreducible loss of CFM over its loss", cifar_floor / last["CFM"], below(0.17), digits=2),
    Claim("records, CIFAR-10: loss removed by EFM-1000 over it", cifar_fall / cifar_floor, between(0.8, 1.25)),
]

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you saw

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
claims.table(first_rows + page_rows + record_rows)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## To remember
#
# - Loss = failure to learn $u^*$ + irreducible loss. The failure is small where $u^*$ is an average, and large where it is a
#   look-up, after the collapse.
# - Held-out images tell two kinds of failure apart: before the collapse most of it is underfitting, after it generalization.
# - Samples become copies when $u^*$ leads until nearly the end, and they are decided at the collapse or somewhat later. It
#   depends on *when* the network leads.
# - $u_M$ with $x_1$ in the bank is an unbiased target of less variance. What it takes away is noise at times that do not make
#   copies.
# - A local view is enough to make new images. A Gaussian without that view makes them, too.
# - A sample farther from the training images than real images are is not *more general*; here it is blurred.

# %% [markdown] slideshow={"slide_type": "skip"}
# ## References
#
# - Bertrand, Gagneux, Massias and Emonet 2025, *On the closed-form of flow matching: generalization does not arise from target
#   stochasticity*, arXiv:2506.03719
# - Carlini et al. 2023, *Extracting training data from diffusion models*, USENIX Security, arXiv:2301.13188
# - Gu, Du, Pang, Li, Lin and Wang 2023, *On memorization in diffusion models*, arXiv:2310.02664
# - Kamb and Ganguli 2024, *An analytic theory of creativity in convolutional diffusion models*, arXiv:2412.20292
# - Li, Dai and Qu 2024, *Understanding generalizability of diffusion models requires rethinking the hidden Gaussian structure*,
#   NeurIPS, arXiv:2410.24060
# - Niedoba, Zwartsenberg, Murphy and Wood 2024, *Towards a mechanistic explanation of diffusion model generalization*,
#   arXiv:2411.19339
# - Tong et al. 2024, *Improving and generalizing flow-based generative models with minibatch optimal transport*, TMLR,
#   arXiv:2302.00482
# - Yoon, Choi, Kwon and Ryu 2023, *Diffusion probabilistic models generalize when they fail to memorize*, ICML workshop on
#   structured probabilistic inference and generative modeling
#
# **Where to read on.** Kadkhodaie, Guth, Simoncelli and Mallat 2024, *Generalization in diffusion models arises from
# geometry-adaptive harmonic representations*, ICLR, arXiv:2310.02557: two networks trained on different halves of a large
# data set draw the same images.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# In [exercises/08_generalization.ipynb](exercises/08_generalization.ipynb); each has a check that says what is wrong.
#
# 1. **Copies.** The share of samples that repeat a training image.
# 2. **All banks of two.** A proof that $u_2$ is unbiased and less noisy, with all banks listed, and what happens
#    without $x_1$.
# 3. **Who leads this step?** Two hybrid samplers that are right for most switches.
# 4. **How much noise a bank removes.** Derive the share of the variance that is left when $r$ of $n$ images are
#    rivals.
# 5. **Windows of a single pixel.** Derive how probable it is that the narrowest view draws a training image.
# 6. **How much blur makes a copy new?** Search the width that describes unseen data best, and see whether it copies.
#
# <!-- next: written by fmcore.course.build -->
#
# Next: [09 Source geometry](09_source_geometry.ipynb). What does a Gaussian look like in many dimensions, and is a better source possible?
#
# <!-- end of next -->
