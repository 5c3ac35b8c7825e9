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
# # 06 Images
#
# The loss of chapter 03 does not know that its points are images, and nothing in it changes here. What changes is
# around it: grey levels are whole numbers, the network is a U-Net, and "are the samples good?" becomes a question with
# several answers that contradict each other. This chapter trains a flow on digits while you watch, measures it in
# bits, network evaluations and Fréchet distances, takes each of these measures apart, and then compares five ways to
# train one and the same network.

# %% slideshow={"slide_type": "skip"}
import math

import torch
from matplotlib.patches import Rectangle

from fmcore import data, likelihood, losses, networks, solvers, sources, training, velocity
from fmcore.course import card, claims, plotting, predict, style, widgets
from fmcore.course.claims import Claim, about, above, below, between, exactly
from fmcore.data.images import dequantize, to_uint8
from fmcore.experiments.evaluate import simple_models
from fmcore.experiments.run import pretrained
from fmcore.experiments.run.network import build_network
from fmcore.metrics import frechet_distance
from fmcore.metrics.classifier import cached_classifier
from fmcore.papers import catalog, reference
from fmcore.papers.lipman2023 import table as table_1

style.use()
torch.set_num_threads(1)  # an 8x8 image gives a second core too little to do

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
card.show(
    "06_images",
    goals=[
        "turn whole-number grey levels into points with a density, and say why the noise is needed",
        "say what a U-Net must be able to do, and count what it is made of",
        "train a flow on images, and convert its log-density into bits/dim by hand",
        "name three ways in which a better number does not mean a better model: draws, noisy estimates, sample size",
        "compare five training methods at equal budget, and say what agrees with the paper and what does not",
    ],
    before=["chapter 03: the loss", "chapter 04: noise, score and velocity are one prediction", "convolutions"],
    exercises=[
        "1. A place in the bin",
        "2. Nats to bits/dim",
        "3. The logarithm of a mean",
        "4. A Fréchet distance",
        "5. The velocity of a noise predictor",
    ],
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## An image is a point
#
# An image of height $H$, width $W$ and $C$ colour channels is a list of $d = C H W$ numbers, a point in
# $\mathbb{R}^d$. The digits of scikit-learn have $d = 1 \cdot 8 \cdot 8 = 64$, CIFAR-10 has $3 \cdot 32 \cdot 32 =
# 3072$. But each of these numbers is a **grey level** $k \in \{0, 1, \dots, L - 1\}$, a whole number: $L = 17$ levels
# for the digits, 256 for usual 8-bit images. The data lie on a grid, and a flow wants points anywhere.
#
# So cut the interval $[-1, 1]$ into $L$ bins of width $\Delta = 2 / L$. Level $k$ owns bin $k$, and stands at a random
# place in it:
#
# $$
# y = \Delta\, (k + u) - 1 , \qquad u \sim \mathcal{U}(0, 1) .
# $$
#
# This is **dequantization**. The way back asks which bin $y$ lies in: $k = \lfloor (y + 1) / \Delta \rfloor$.

# %% slideshow={"slide_type": "fragment"}
digits = data.digits()
levels, shape = digits.levels, digits.shape
generator = torch.Generator().manual_seed(0)
y = dequantize(digits.train, levels, generator)
wrong_bins = int((to_uint8(y, levels) != digits.train).sum())
print(digits)
print(f"grey levels {levels}, bins of width {2 / levels:.4f}; y from {y.min():.3f} to {y.max():.3f}")
print(f"pixels that do not come back to their level: {wrong_bins} of {y.numel():,}")

figure, axes = plotting.canvas(1, 2, height=3.6, width_ratios=[1, 2])
plotting.images(digits.train[:1], low=0, high=16, title="an image", ax=axes[0])
fourth = digits.train[0, 0, 3]
noisy = dequantize(fourth.repeat(60, 1), levels, generator)
aside = torch.arange(8) + 0.5 * (torch.rand(60, 8, generator=generator) - 0.5)  # so that points do not hide each other
for edge in torch.linspace(-1, 1, levels + 1).tolist():
    axes[1].axhline(edge, color=style.MUTED, linewidth=0.6)
axes[1].scatter(aside, noisy, s=5, color=style.PATH, linewidths=0, zorder=3)
for place, k in enumerate(fourth.tolist()):
    axes[1].text(place, 2 * (k + (1.35 if k < 16 else -1.0)) / levels - 1, f"k = {k}", ha="center", fontsize=9)
axes[1].set(yticks=[-1, 0, 1], ylim=(-1.01, 1.01), xlabel="pixel of the fourth row", ylabel="y")
axes[1].set_title("60 places in each bin")
axes[1].grid(False)
figure

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Why the noise?
#
# What a model of images owes us is a *probability* $P(k)$ of the whole numbers $k = (k_1, \dots, k_d)$. A flow has a
# *density* $p(y)$. They meet if $P(k)$ is the mass that $p$ puts into the box of $k$, which has volume $\Delta^d$:
#
# $$
# \log P(k) = \log \int_{\text{box of } k} \! p(y)\, \mathrm{d}y
# = d \log \Delta + \log \mathbb{E}_u\, p\big(y(k, u)\big)
# \;\ge\; d \log \Delta + \mathbb{E}_u \log p\big(y(k, u)\big) .
# $$
#
# The inequality is Jensen's: the logarithm of a mean is at least the mean of the logarithms. So the average
# log-density of *noisy* images is a lower bound of the log-probability of the real ones. Divide by $-d \ln 2$ to get
# **bits per dimension**, bits/dim: a code length for a pixel, the lower the better.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Leave the noise out: fit a density to the whole numbers themselves and make it as sharp as you like. How many "
    "bits/dim can it reach?",
    [
        "the entropy of the grey levels, about 3 bits, and not less",
        "zero: every level is then known",
        "as few as you like, below zero too",
    ],
    answer=2,
    because="A density may be larger than 1. A narrow peak on each whole number has no upper bound, and says nothing about "
    "images. With the noise the model pays for every peak: half of the noisy points fall beside it.",
)


# %% slideshow={"slide_type": "fragment"}
# One pixel: a Gaussian of width s on each of the 17 levels, weighted as often as the level occurs.
counts = torch.bincount(digits.train.flatten().long(), minlength=levels).double()
share = counts / counts.sum()
centres = 2 * (torch.arange(levels).double() + 0.5) / levels - 1
inside = (torch.arange(400).double() + 0.5) / 400  # evenly spread places in a bin, in place of random u
widths = torch.logspace(-3, 0, 61, dtype=torch.float64)


def pixel_bits(u, s):
    """Bits of the pixel, averaged over levels and over the places u in the bin."""
    y = 2 * (torch.arange(levels).double()[:, None] + u) / levels - 1
    log_normal = -((y[..., None] - centres) / s).square() / 2 - math.log(s * (2 * math.pi) ** 0.5)
    log_density = torch.logsumexp(share.log() + log_normal, dim=-1)
    return float(-(share[:, None] * log_density).sum(0).mean() / math.log(2) + math.log2(levels / 2))


without = [pixel_bits(torch.full((1,), 0.5).double(), float(s)) for s in widths]
with_noise = [pixel_bits(inside, float(s)) for s in widths]
entropy = float(-(share * share.log2()).sum())
print(f"lowest value without noise {min(without):.2f} and falling, with noise {min(with_noise):.2f}")
print(f"entropy of the grey level of a pixel: {entropy:.2f} bits")

# %% slideshow={"slide_type": "fragment"}
lines = {"without noise": without, "with noise": with_noise}
colors = {"without noise": style.SOURCE, "with noise": style.DATA}
figure = plotting.curves(widths, lines, xlabel="width s of the peaks", ylabel="bits of a pixel", log="x", colors=colors)
ax = figure.axes[0]
ax.axhline(entropy, color=style.EXACT, linestyle="--", linewidth=1.2)
ax.text(1.0, entropy - 0.15, "entropy", ha="right", va="top")
ax.axvline(2 / levels, color=style.MUTED, linewidth=1.2)
ax.text(2 / levels, -2.4, " width of a bin", va="bottom")
ax.set_ylim(-2.7, 9)
figure

# %% [markdown] slideshow={"slide_type": "notes"}
# With noise no density gets below the entropy: that is the bound above, for one pixel. The best width is about a third
# of a bin. Bits below zero in a paper or a log file mean that somebody forgot the noise. Theis et al. 2016 made this
# argument.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The U-Net
#
# The velocity $v_\theta(x, t)$ takes an image and returns one of the same size. Four demands, four parts:
#
# - **See everything.** Whether a pixel belongs to a 3 or an 8 is decided far away from it. *Down:* halve the
#   resolution a few times, with more channels each time, until a 3x3 convolution spans the image.
# - **Keep every detail.** The noise to be removed sits in single pixels. *Skips:* going up, each block also gets what
#   its counterpart going down has made.
# - **Know the time.** At $t = 0$ the task is to guess an average image, at $t = 1$ to clean single pixels. *Embedding:*
#   sines and cosines of $t$ become a vector that is added in every block.
# - **Relate distant places** at once. *Attention* over all pixels, where there are few enough: its cost grows with the
#   square of their number.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "The U-Net of most CIFAR-10 papers has 35.7 million parameters. Which part of them works at the full resolution "
    "of 32x32 pixels?",
    ["most: that is where most of the pixels are", "about a third", "less than a tenth"],
    answer=2,
    because="A convolution has as many parameters at 4x4 as at 32x32, and the lower levels are wider. The arithmetic is "
    "the other way round: 32x32 has 64 times as many pixels as 4x4.",
)


# %% slideshow={"slide_type": "skip"}
def layers(net, side):
    """Each layer of a U-Net for images of that height: part, kind, output shape, parameters, attention."""
    parts = [("down", net.first), *(("down", m) for m in net.down), *(("middle", m) for m in net.middle)]
    parts += [*(("up", m) for m in net.up), ("up", net.last)]
    found = []
    for part, layer in parts:
        kind = type(layer).__name__
        side = side // 2 if kind == "Downsample" else 2 * side if kind == "Upsample" else side
        channels = next(m.out_channels for m in layer.modules() if isinstance(m, torch.nn.Conv2d))
        count = sum(p.numel() for p in layer.parameters())
        attends = any(type(m).__name__ == "Attention" for m in layer.modules())
        found.append((part, kind, (channels, side, side), count, attends))
    return found


def block_width(found):
    """Channels of the blocks."""
    return max(layer[2][0] for layer in found if layer[1] == "Block")


# %% slideshow={"slide_type": "subslide"}
with torch.device("meta"):  # shapes without numbers
    usual = networks.UNet(
        (3, 32, 32), channels=128, multipliers=(1, 2, 2, 2), blocks=2, attention=(16,), head_channels=64
    )
    small = networks.UNet((1, 8, 8), channels=16, multipliers=(1, 2), blocks=1, attention=(4,), heads=2)
parameters = {"CIFAR-10": sum(p.numel() for p in usual.parameters())}
parameters["digits"] = sum(p.numel() for p in small.parameters())
overview = {"CIFAR-10": layers(usual, 32), "digits": layers(small, 8)}
at_resolution = {}
for name, found in overview.items():
    print(f"{name}: {parameters[name]:,} parameters")
    for side in sorted({layer[2][1] for layer in found}, reverse=True):
        here = [layer for layer in found if layer[2][1] == side]
        count = sum(layer[3] for layer in here)
        at_resolution[name, side] = count / parameters[name]
        widest, attends = block_width(here), sum(layer[4] for layer in here)
        said = f"{len(here):2} layers, {widest:3} channels, attention in {attends}"
        print(f"  {side:2}x{side:<2}  {said}, {count:10,} parameters ({count / parameters[name]:.0%})")


# %% slideshow={"slide_type": "skip"}
def draw_unet(found, title, ax):
    """Layers from left to right, resolutions from top to bottom, skips as dashed lines."""
    sides = sorted({layer[2][1] for layer in found}, reverse=True)
    waiting = []
    for place, (part, kind, (_, side, _), _, attends) in enumerate(found):
        y = -sides.index(side)
        color = style.PATH if attends else style.DATA if kind == "Block" else style.MUTED
        tall = 0.22 + 0.5 / 2 ** sides.index(side)
        ax.add_patch(Rectangle((place - 0.36, y - tall / 2), 0.72, tall, facecolor=color, edgecolor="white"))
        if part == "up" and kind == "Block":
            start, height = waiting.pop()
            ax.plot([start + 0.36, place - 0.36], [height, height], "--", color=style.MUTED, linewidth=0.7, zorder=0)
        if part == "down":
            waiting.append((place, y))
    for row, side in enumerate(sides):
        width = block_width([layer for layer in found if layer[2][1] == side])
        ax.text(len(found) + 0.3, -row, f"{side}x{side}\n{width} channels", va="center", fontsize=9)
    ax.set(xlim=(-0.8, len(found) + 0.2), ylim=(0.55 - len(sides), 0.55))
    ax.axis("off")
    ax.set_title(title, loc="left")


# %% slideshow={"slide_type": "subslide"}
figure, axes = plotting.canvas(1, 2, height=3.6, width_ratios=[2.4, 1])
for ax, (name, found) in zip(axes, overview.items(), strict=True):
    draw_unet(found, f"{name}: {parameters[name]:,} parameters", ax)
axes[0].text(10, 0.35, "dashed: skips", fontsize=9, color="#57606A")
axes[1].scatter([], [], marker="s", color=style.DATA, label="block")
axes[1].scatter([], [], marker="s", color=style.PATH, label="block with attention")
axes[1].scatter([], [], marker="s", color=style.MUTED, label="first, last, halve, double")
figure.legend(loc="outside lower center", ncols=3)
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# Dhariwal & Nichol 2021 made this network for diffusion; 35,746,307 parameters is the number to expect if you build it
# for CIFAR-10. The paper that we compare with, Lipman et al. 2023, doubles its width. The digits get away with half a
# per cent of it.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## One training step by hand
#
# All of chapter 03 in one cell: noise $x_0$, a dequantized image $x_1$, a time $t$ for each, the point
# $x_t = (1 - t)\, x_0 + t\, x_1$ and the target $x_1 - x_0$. The configuration is a named experiment of the package,
# `lipman2023/digits/fm_ot`: the row "FM w/ OT" of the paper's table, at a size for one CPU core.

# %% slideshow={"slide_type": "fragment"}
row = catalog.by_name("lipman2023/digits/fm_ot")
path = row.build_path()
net = build_network(row, shape)
optimizer = torch.optim.Adam(net.parameters(), lr=row.training.lr)

generator = torch.Generator().manual_seed(1)
x1 = dequantize(digits.train[:64], levels, generator)
x0 = torch.randn(x1.shape, generator=generator)
t = path.t_max * torch.rand(64, generator=generator)
s = t[:, None, None, None]  # one time an image: broadcast over channels and pixels
loss = (net((1 - s) * x0 + s * x1, t) - (x1 - x0)).square().mean()
same_loss = losses.conditional_flow_matching(net, path, x0, x1, t).detach()
loss.backward()
optimizer.step()
gap_loss = abs(float(loss.detach() - same_loss))
assert gap_loss < 1e-5, gap_loss

expected_first = 1 + float(y.square().mean())
print(f"loss by hand {loss.detach():.4f}, of fmcore {same_loss:.4f}; predicted for a new network: {expected_first:.2f}")

# %% [markdown] slideshow={"slide_type": "skip"}
# The first loss of a run is known before it: the untrained U-Net returns zero, so the loss is $\mathbb{E}\,\|x_1 -
# x_0\|^2 / d = 1 + \mathbb{E}\,\|x_1\|^2 / d$. If yours starts elsewhere, the scale of the images or of the noise is
# not what you think.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Train
#
# 400 steps of 64 images with Adam: the learning rate rises over 50 steps to 0.01 and falls linearly to zero, the
# gradient is clipped, and a moving average of the weights is kept for sampling. About half a minute.


# %% slideshow={"slide_type": "fragment"}
def prepare(images, generator):
    """A batch of whole-number images to pairs of noise and dequantized data."""
    x1 = dequantize(images, levels, generator)
    return torch.randn(x1.shape, generator=generator), x1


def flow_loss(model, pairs, generator):
    return losses.conditional_flow_matching(model, path, *pairs, generator=generator)


net = build_network(row, shape)
run = training.train(net, flow_loss, digits.train, row.training, prepare=prepare, progress=False)
flow = run.ema.requires_grad_(False)
recorded = reference.find_records([reference.RESULTS])
final_loss = float(run.losses[-100:].mean())
known_loss = recorded["lipman2023/digits/fm_ot"]["training"]["mean_loss_of_last_100_steps"]
print(f"first loss {run.losses[0]:.2f}; mean of the last 100: {final_loss:.3f}, in the record {known_loss:.3f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "The loss has settled at about a half. At which times t does the trained network err most?",
    [
        "near t = 0, where the input is pure noise",
        "half-way, where noise and image overlap",
        "near t = 1, where the input is almost the image itself",
    ],
    answer=2,
    because="At t = 0 the network knows x0 exactly and guesses x1 by the mean image. Near t = 1 it must say what x0 was, "
    "and of that only a trace is left, finer than a bin: it cannot be told from the noise of dequantization.",
)

# %% slideshow={"slide_type": "fragment"}
when = torch.tensor([0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.999])
loss_at = {}
for name, images in {"training images": digits.train[:120], "held-out images": digits.held_out[:120]}.items():
    x0, x1 = prepare(images, torch.Generator().manual_seed(2))
    with torch.no_grad():
        loss_at[name] = [losses.conditional_flow_matching(flow, path, x0, x1, t) for t in when]
smooth = run.losses.unfold(0, 20, 1).mean(dim=1)

figure, axes = plotting.canvas(1, 2, height=3.3)
axes[0].plot(run.losses, color=style.MUTED, linewidth=0.8, label="each step")
axes[0].plot(range(19, len(run.losses)), smooth, color=style.MODEL, label="mean of 20")
axes[0].set(xlabel="step", title="training loss", ylim=(0, 1.8))
axes[0].legend()
colors = {"training images": style.MODEL, "held-out images": style.DATA}
plotting.curves(when, loss_at, xlabel="t", title="loss by time", colors=colors, markers=True, ax=axes[1])
axes[1].set_ylim(0, 1.15)
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# The loss does not go to zero, and most of it is not the network's fault: the target is random (chapter 03). So the
# loss ranks two runs of *one* method on *one* data set, and nothing else. Training and held-out images differ by a few
# per cent, which is the scatter of 120 images: after 17 passes over 1,500 images the network hardly memorizes.

# %% slideshow={"slide_type": "subslide"}
source = sources.Gaussian(shape)
noise = source.sample(297, torch.Generator().manual_seed(3))
made = solvers.solve(flow, noise, t1=path.t_max, method="rk4", steps=4)
generated = to_uint8(made.x, levels)  # whole-number grey levels again
figure, axes = plotting.canvas(1, 2, height=4.4)
for ax, (images, title) in zip(
    axes, ((generated, f"generated, NFE {made.nfe}"), (digits.held_out, "real, held out from training")), strict=True
):
    plotting.images(images[:64], columns=8, low=0, high=16, title=title, ax=ax)
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# Most are digits, some are nearly, and in the black corners there are traces of grey that real digits do not have. That is
# as far as the eye goes. Now numbers.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Bits per dimension
#
# The density of a flow at a point $y$ comes from solving backward (chapter 02), in **nats**: natural logarithms. From
# the bound above,
#
# $$
# \text{bits/dim} = -\frac{\log P(k)}{d \ln 2} \;\le\;
# -\frac{\mathbb{E}_u \log p(y)}{d \ln 2} - \log_2 \Delta
# = -\frac{\mathbb{E}_u \log p(y)}{d \ln 2} + \log_2 \frac{L}{2} .
# $$
#
# The constant is the price of the scale: the interval $[-1, 1]$ instead of $[0, L]$. It is 7 for 8-bit images and
# $\log_2 8.5 = 3.09$ for the digits. Who divides by 127.5 instead of 128 has other bins, and the constant 6.994.

# %% slideshow={"slide_type": "fragment"}
some = digits.held_out[::3]  # 99 images
d = some[0].numel()
SOLVER = {"t1": path.t_max, "rtol": 1e-2, "atol": 1e-2}


def in_bits(log_density):
    """Nats of an image to bits/dim."""
    return -log_density / (d * math.log(2)) + math.log2(levels / 2)


def by_fmcore(images):
    """Bits/dim as fmcore measures them, with the same noise and probes in each call."""
    return likelihood.bits_per_dim(flow, images, source, levels, generator=torch.Generator().manual_seed(4), **SOLVER)


generator = torch.Generator().manual_seed(4)
at = dequantize(some[:4], levels, generator)
solved = likelihood.log_likelihood(flow, at, source, "hutchinson", generator=generator, **SOLVER)
by_hand = in_bits(solved.log_prob)
gap_bits = float((by_hand - by_fmcore(some[:4]).per_image).abs().max())
assert gap_bits < 1e-4, gap_bits
ours = by_fmcore(some)
print(f"four images by hand: log-density {solved.log_prob.mean():.1f} nats, bits/dim {by_hand.mean():.3f}")
print(f"{len(some)} images: bits/dim {ours.value:.3f} ± {ours.standard_error:.3f}")
print(f"constant for 256 levels {math.log2(256 / 2):.3f}, for 17 levels {math.log2(levels / 2):.3f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
predict.ask(
    "Three models without a network: all 17 levels equally likely; a histogram for each pixel, pixels independent; a "
    "Gaussian with the full covariance of the 64 pixels. Which has the fewest bits/dim?",
    ["the Gaussian: it knows how pixels go together", "the histograms", "they are about equal"],
    answer=1,
    because="Half of all pixels are exactly 0, and those at the border nearly always. A histogram pays next to nothing "
    "for that; a Gaussian cannot have a sharp edge at the lowest level. What a model gains depends on the data.",
)

# %% slideshow={"slide_type": "fragment"}
generator = torch.Generator().manual_seed(5)
simple = {
    "uniform": simple_models.uniform_bits_per_dim(digits),
    "Gaussian, full covariance": simple_models.gaussian_bits_per_dim(digits, generator),
    "histogram of each pixel": simple_models.histogram_bits_per_dim(digits),
}
bars = {name: float(values.mean()) for name, values in simple.items()} | {"this flow": ours.value}
spread = {"this flow": ours.standard_error}
colors = dict(zip(bars, (style.MUTED, style.MUTED, style.MUTED, style.MODEL), strict=True))
plotting.bars(bars, spread=spread, title="bits/dim of held-out digits (lower is better)", colors=colors)

# %% [markdown] slideshow={"slide_type": "skip"}
# Without such a list a value like 2.1 means nothing. Uniform is $\log_2 L$, what storing the pixels costs.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## One draw or K draws
#
# The bound has slack: the logarithm stands inside the mean over $u$. With $K$ draws of $u$ *inside* the logarithm,
#
# $$
# \log P(k) \;\approx\; d \log \Delta + \log \frac1K \sum_{j=1}^K p\big(y(k, u_j)\big) ,
# $$
#
# the bound tightens: its mean rises with $K$, so bits/dim can only fall. $K = 1$ is the bound of before. For the
# Gaussian the log-density is exact, and many draws are cheap.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "The Gaussian has 2.92 bits/dim with one draw. And with 50?",
    ["2.92: the draws only reduce the noise of the estimate", "about 2.88", "about 2.5"],
    answer=1,
    because="The slack of the bound is real but small, and it is used up soon: from 50 to 500 draws only 0.002 more.",
)


# %% slideshow={"slide_type": "fragment"}
def log_mean(log_densities):
    """log of the mean density over the first axis, (K, n) -> (n,), without overflow."""
    return torch.logsumexp(log_densities, dim=0) - math.log(len(log_densities))


def bits_of_draws(log_densities, K):
    """Mean bits/dim with K draws each, from (draws, n) log-densities that are cut into groups of K."""
    return float(torch.stack([in_bits(log_mean(group)).mean() for group in log_densities.split(K)]).mean())


generator = torch.Generator().manual_seed(6)
flat = dequantize(digits.train, levels, generator).flatten(1).double()
gaussian = torch.distributions.MultivariateNormal(flat.mean(0), torch.cov(flat.T))
exact_draws = torch.stack(
    [gaussian.log_prob(dequantize(digits.held_out, levels, generator).flatten(1).double()) for _ in range(500)]
)
KS = (1, 2, 5, 10, 50, 500)
gaussian_K = {K: bits_of_draws(exact_draws, K) for K in KS}
print("Gaussian, exact log-density: " + "   ".join(f"K = {K}: {value:.3f}" for K, value in gaussian_K.items()))

# %% [markdown] slideshow={"slide_type": "slide"}
# ### The trap
#
# A flow's log-density is not exact. The divergence of $v$ is estimated with a random vector (Hutchinson, chapter 02):
# unbiased, but noisy. For $K = 1$ that is harmless, the noise averages out over images. Inside the logarithm of a mean
# of exponentials it is not: the largest of the $K$ estimates dominates, and it is largest because its *noise* is.
#
# The experiment that shows it: fix the image **and** $u$. There is now one number $\log p(y)$, and no slack to remove.
# Estimate it 32 times with different probes, and put $K$ of these estimates into the formula as if they were draws.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Same network, same images, same u; only the probes differ. What does the formula give from K = 1 to K = 32?",
    [
        "the same value: it is one number, estimated better and better",
        "a value that falls with K, by more than 0.1 bits/dim",
        "a value that rises with K",
    ],
    answer=1,
    because="The estimates scatter by several nats around the truth. The log of the mean of their exponentials lies near the "
    "largest of them, and the largest of many grows with their number. The model has not changed at all.",
)

# %% slideshow={"slide_type": "fragment"}
few = dequantize(digits.held_out[:8], levels, torch.Generator().manual_seed(7))  # one u each, and it stays
grid = {"t1": path.t_max, "method": "rk4", "steps": 2}  # 8 evaluations


def estimates(probes):
    """One Hutchinson estimate of log p(y) for each number in `probes`, the seed of its probe: (probes, 8)."""
    y = few.repeat(len(probes), 1, 1, 1)
    chance = torch.Generator().manual_seed(probes[0])
    found = likelihood.log_likelihood(flow, y, source, "hutchinson", generator=chance, **grid)
    return found.log_prob.view(len(probes), len(few)).double()


probed = torch.cat([estimates(range(k, k + 16)) for k in (100, 200)])
exact = likelihood.log_likelihood(flow, few, source, "exact", **grid).log_prob.double()
probe_noise = float(probed.std(dim=0).mean())
truth = float(in_bits(exact).mean())
hutchinson_K = {K: bits_of_draws(probed, K) for K in (1, 2, 4, 8, 16, 32)}
averaged = float(in_bits(probed.mean(dim=0)).mean())
print(f"exact divergence {truth:.3f} bits/dim; one estimate scatters by {probe_noise:.1f} nats")
print("estimates as draws:   " + "   ".join(f"K = {K}: {value:.3f}" for K, value in hutchinson_K.items()))
print(f"the 32 estimates averaged before the formula: {averaged:.3f}")

# %% slideshow={"slide_type": "subslide"}
figure, axes = plotting.canvas(1, 2, height=3.4, sharey=True)
drop = {"exact log-density": [gaussian_K[K] - gaussian_K[1] for K in KS]}
plotting.curves(KS, drop, log="x", markers=True, title="Gaussian, real draws of u", ax=axes[0])
fake = {"estimates as draws": [value - truth for value in hutchinson_K.values()]}
colors = {"estimates as draws": style.BAD}
plotting.curves(list(hutchinson_K), fake, log="x", markers=True, title="flow, u fixed", colors=colors, ax=axes[1])
axes[1].axhline(0, color=style.EXACT, linestyle="--", linewidth=1.2)
axes[1].text(32, 0.003, "truth", ha="right", va="bottom")
for ax, ticks in zip(axes, (KS, tuple(hutchinson_K)), strict=True):
    ax.set_xticks(ticks, [str(K) for K in ticks])
    ax.minorticks_off()
    ax.set_xlabel("K")
axes[0].set_ylabel("bits/dim, change")
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# Left, an honest gain of 0.04 that levels off. Right, a gain that is pure noise: it does not level off, and a *worse*
# estimator would gain more. Averaging the estimates of the log-density first (more probes) is right; averaging their
# exponentials is not.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### 3.11 is not 2.99
#
# The table that everybody cites (Lipman et al., Table 1) has 2.99 bits/dim for CIFAR-10. That is $K = 50$ with one
# probe each. With $K = 1$ their Table 4 has **3.11**. A run of yours with one draw is to be compared with 3.11, and a
# method that was measured with $K = 1$ has not lost against 2.99.
#
# Our records keep both, and say what share of the difference is noise: they repeat the first draw with other probes.

# %% slideshow={"slide_type": "fragment"}
digit_rows = {m: recorded[f"lipman2023/digits/{m}"] for m in table_1.METHODS}
artefact = {}
print("digits, 100 images       K = 1   K = 3   drop   of it noise   nats between probes, between draws")
for method, record in digit_rows.items():
    values, about_noise = record["values"]["bits_per_dim"], record["evaluation"]["likelihood_spread"]
    one, three = values["flow"]["value"], values["flow, K = 3"]["value"]
    noise_part = -about_noise["bias_of_K_draws"]["gaussian_model"]
    artefact[method] = noise_part / (one - three)
    probes, draws = (about_noise[f"deviation_between_{k}"] / about_noise["bits_per_nat"] for k in ("probes", "draws"))
    said = f"{one:.3f}   {three:.3f}  {one - three:.3f}         {noise_part:.3f}"
    print(f"{table_1.METHODS[method]:22}   {said}                {probes:.1f}             {draws:.1f}")
paper_drop = 0.12 * 3072 * math.log(2)
print(f"the paper's drop for CIFAR-10, 0.12 bits/dim in 3,072 dimensions, is one of {paper_drop:.0f} nats")

# %% [markdown] slideshow={"slide_type": "notes"}
# "Of it noise" is an estimate (`fmcore.experiments.evaluate.bits_per_dim.bias_of_noise`): the log-densities of the
# draws are taken as normal, with the scatter between probes as their noise. By it, between four and seven tenths of the
# drop are not a tighter bound. How much of the paper's 0.12 is noise cannot be said without its raw estimates.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Network evaluations
#
# Samples cost **NFE**, network evaluations for each image. An adaptive solver takes a tolerance and decides the NFE; a
# fixed grid takes the NFE. Both are compared with the same flow solved at a tolerance of $10^{-6}$, from the same
# noise: the root mean square difference of a pixel, and the share of pixels that get the same grey level.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "The tolerance goes from 1e-3 to 1e-5, a hundred times as careful. What happens to the NFE of dopri5?",
    ["about 100 times as many", "about 10 times as many", "about twice as many"],
    answer=2,
    because="A method of order 5 has an error that falls like the fifth power of the step: a hundredth of the error needs "
    "steps 2.5 times shorter. High order makes care cheap.",
)

# %% slideshow={"slide_type": "fragment"}
start = noise[:12]
best = solvers.solve(flow, start, t1=path.t_max, rtol=1e-6, atol=1e-6).x


def quality(x):
    """Root mean square difference of a pixel to the careful solution, and the share of equal grey levels."""
    same = (to_uint8(x, levels) == to_uint8(best, levels)).float().mean()
    return float((x - best).square().mean().sqrt()), float(same)


adaptive = {}
for tolerance in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5):
    found = solvers.solve(flow, start, t1=path.t_max, rtol=tolerance, atol=tolerance)
    adaptive[tolerance] = found.nfe, *quality(found.x)
    nfe, error, same = adaptive[tolerance]
    print(f"dopri5, tolerance {tolerance:5.0e}: NFE {nfe:3}   error {error:.4f}   same grey level {same:.1%}")

# %% slideshow={"slide_type": "fragment"}
fixed, NFES = {}, (4, 8, 16, 32)
for method, cost in {"euler": 1, "midpoint": 2, "rk4": 4}.items():
    runs = [solvers.solve(flow, start, t1=path.t_max, method=method, steps=nfe // cost) for nfe in NFES]
    assert [one.nfe for one in runs] == list(NFES)
    fixed[method] = [quality(one.x) for one in runs]
    print(
        f"{method:9} same grey level: "
        + "  ".join(f"NFE {n}: {q[1]:.0%}" for n, q in zip(NFES, fixed[method], strict=True))
    )

# %% slideshow={"slide_type": "subslide"}
colors = {"euler": style.SOURCE, "midpoint": style.PATH, "rk4": style.DATA}
lines = {method: [error for error, _ in found] for method, found in fixed.items()}
figure = plotting.error_against(NFES, lines, xlabel="NFE", ylabel="error of a pixel", colors=colors)
ax = figure.axes[0]
for tolerance, (nfe, error, _) in adaptive.items():
    ax.plot(nfe, error, "*", color=style.EXACT, markersize=9)
    side = "top" if tolerance == 1e-1 else "bottom" if tolerance == 1e-2 else "center"
    ax.text(nfe * 1.08, error, f"{tolerance:.0e}", fontsize=9, va=side)
ax.plot([], [], "*", color=style.EXACT, label="dopri5 at that tolerance")
ax.axhline(1 / levels, color=style.MUTED, linewidth=1.2, zorder=0)
ax.text(100, 1 / levels * 1.1, "half a grey level", fontsize=9, color="#57606A", ha="right")
ax.set_xlim(3.6, 105)
ax.legend(fontsize=9)
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# An error below half a grey level is hardly an error: the sample is rounded anyway. The midpoint method gets there with
# 8 evaluations, and with 16 nearly all pixels have their right level. The 70 or so of `dopri5` at the paper's tolerance
# are for the comparison, not for the eye. The adaptive solver chooses its steps for the whole batch, so its NFE comes
# in jumps: equal at 1e-3 and 1e-4, and at 0.1 its few steps even lie a little better than at 0.01.


# %% slideshow={"slide_type": "skip"}
def samples_picture(nfe, method):
    """Twelve samples with few evaluations (top), carefully solved from the same noise (middle), and where they differ."""
    steps = max(1, nfe // {"euler": 1, "midpoint": 2, "rk4": 4}[method])
    found = solvers.solve(flow, start, t1=path.t_max, method=method, steps=steps)
    _, same = quality(found.x)
    parts = [to_uint8(x, levels).float() for x in (found.x, best)]
    sheet = torch.cat([*parts, 16 - (parts[0] - parts[1]).abs()])
    said = f"{method}, {found.nfe} evaluations: {same:.0%} of the pixels at the same grey level"
    rows = [f"NFE {found.nfe}", "careful", "difference"]
    return plotting.images(sheet, columns=12, low=0, high=16, rows=rows, title=said)


# %% slideshow={"slide_type": "subslide"}
widgets.explore(
    samples_picture,
    nfe=widgets.choice([4, 8, 12, 16, 24, 32, 48, 64], value=8, label="NFE"),
    method=widgets.choice(["euler", "midpoint", "rk4"], value="euler", label="method"),
)

# %% [markdown] slideshow={"slide_type": "notes"}
# Try: at which NFE do *you* stop seeing a difference, for each method? Then look at the percentage. The lowest row is
# white where both have the same grey level.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Five ways to train one network
#
# Table 1 of Lipman et al. 2023 has five rows. The network, the data and the number of steps are the same; what differs
# is the path, what the output means, and the weight. With $x_t = \alpha_t x_1 + \sigma_t x_0$, $\beta = \beta(1-t)$ the
# noise rate of the VP path, and a prime for the derivative in $t$:
#
# | Row | Path | The network predicts | Loss | Its velocity |
# |---|---|---|---|---|
# | DDPM | VP | noise $e$ | $\lVert e - x_0 \rVert^2$ | $\frac{\alpha'}{\alpha}\,(x - \sigma e) + \sigma' e$ |
# | Score Matching | VP | score $s$ | $\sigma^2\, \lVert s + x_0 / \sigma \rVert^2$ | $\frac{\alpha'}{\alpha}\,(x + \sigma^2 s) - \sigma \sigma' s$ |
# | ScoreFlow | VP | score $s$ | $\beta\, \lVert s + x_0 / \sigma \rVert^2$ | as Score Matching |
# | FM w/ Diffusion | VP | velocity $v$ | $\lVert v - u \rVert^2$ | $v$ |
# | FM w/ OT | OT | velocity $v$ | $\lVert v - (x_1 - x_0) \rVert^2$ | $v$ |
#
# Here $u = \alpha' x_1 + \sigma' x_0$. With $e = -\sigma s$ all of them are one error, $\lVert e - x_0 \rVert^2$, times a
# weight (chapter 04): 1 for DDPM and Score Matching, $\beta / \sigma^2$ for ScoreFlow, $\beta^2 / (4 \sigma^2)$ for flow
# matching on the VP path.

# %% [markdown] slideshow={"slide_type": "notes"}
# Two remarks on the paper. DDPM and Score Matching have the *same* loss as functions of the noise error; they differ in
# what the network prints, $e$ or $e$ divided by $-\sigma$, which is unbounded near the data. And the paper's $s_t$ is
# minus the score; its formula for the sampler is right with that sign only.

# %% slideshow={"slide_type": "fragment"}
vp = catalog.by_name("lipman2023/digits/ddpm").build_path()
t = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9, 0.97])
x0, x1 = prepare(digits.train[:6], torch.Generator().manual_seed(8))


def noise_of(x, t):
    """Any network will do as a noise predictor."""
    return flow(x, t)


def score_of(x, t):
    return -noise_of(x, t) / vp.sigma(t)[:, None, None, None]


beta = vp.diffusion(t) ** 2
WEIGHTS = {"DDPM": torch.ones(6), "Score Matching": torch.ones(6), "ScoreFlow": beta / vp.sigma(t) ** 2}
WEIGHTS["FM w/ Diffusion"] = beta**2 / (4 * vp.sigma(t) ** 2)
measured = {
    "DDPM": losses.noise_prediction(noise_of, vp, x0, x1, t),
    "Score Matching": losses.score_matching(score_of, vp, x0, x1, t),
    "ScoreFlow": losses.score_flow(score_of, vp, x0, x1, t),
    "FM w/ Diffusion": losses.conditional_flow_matching(velocity.from_noise(noise_of, vp), vp, x0, x1, t),
}

# %% slideshow={"slide_type": "fragment"}
errors = (noise_of(vp.interpolate(x0, x1, t), t) - x0).square().mean(dim=(1, 2, 3))  # of the noise, one per image
weight_gap = max(abs(float((WEIGHTS[m] * errors).mean() / measured[m]) - 1) for m in measured)
print(f"losses of fmcore over weight times noise error: 1 up to {weight_gap:.0e}")

# %% slideshow={"slide_type": "subslide"}
inner = torch.linspace(0.002, 0.998, 300, dtype=torch.float64)
rate, sigma, alpha = vp.diffusion(inner) ** 2, vp.sigma(inner), vp.alpha(inner)
lines = {
    "DDPM, Score Matching": torch.ones(300).double(),
    "ScoreFlow": rate / sigma**2,
    "FM w/ Diffusion": rate**2 / (4 * sigma**2),
}
LOOK = {"DDPM": style.SOURCE, "Score Matching": style.PATH, "ScoreFlow": "#4E6E1F"}
LOOK |= {"FM w/ Diffusion": style.MODEL, "FM w/ OT": style.DATA, "DDPM, Score Matching": style.SOURCE}
figure, axes = plotting.canvas(1, 2, height=3.6)
plotting.curves(inner, lines, log="y", xlabel="t", title="weight of the noise error, VP path", colors=LOOK, ax=axes[0])
clock = {name: w * 2 * sigma**2 / rate for name, w in lines.items()}  # dt over d log(alpha / sigma) on the VP path
ratio = alpha / sigma
clock["FM w/ OT"] = 1 / ratio  # chapter 04
for name, line in clock.items():
    middle = int((ratio - 1).abs().argmin())
    axes[1].plot(ratio, line / line[middle], label=name, color=LOOK[name])
axes[1].set(
    xscale="log", yscale="log", xlabel=r"signal to noise $\alpha_t / \sigma_t$", xlim=(0.01, 60), ylim=(1e-2, 1e2)
)
axes[1].set_title("the same on one clock")
axes[1].legend(fontsize=9)
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# The two figures show the same losses: left as they are written, right as what they are, the weight of an error at each
# signal-to-noise ratio (1 where both are equal; an integral over $t$ has become one over the logarithm of that ratio).
# ScoreFlow, made for the likelihood, counts all ratios alike: $\beta / \sigma^2$ is just the speed of that clock, times
# two. So it gives more than the others to the last traces of noise, in the left figure near $t = 1$, where single batches
# scatter. All others care less and less about traces. Flow matching on the OT path gives most to the noisy end.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### The measured rows
#
# Each row was trained and measured by one command. The **digits** rows are the experiment that you just ran, five times,
# with evaluation at the paper's tolerances; the **CIFAR-10, small** rows are real photographs, a network of 0.7 million
# parameters, three quarters of one pass over the data, on one CPU core. The paper's rows took 391,000 steps on two GPUs.
#
#     fmcore train lipman2023/digits/fm_ot            # about a minute
#     fmcore train lipman2023/cifar10_small/fm_ot     # half an hour, and CIFAR-10 in data_dir=...
#     fmcore table lipman2023                         # the paper's numbers beside ours
#
# **Numbers of different blocks do not compare.** Another data set, another network, another feature space. What can be
# compared is the *order of the rows* within a block.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "At the paper's size FM w/ OT is first in bits/dim, in FID and in NFE. At our small sizes, in how many of the "
    "three is it first on the digits?",
    ["in none: small networks are another world", "in bits/dim only", "in all three"],
    answer=2,
    because="On the digits it is first in all three, the Fréchet distance with a margin of about one standard deviation. "
    "The order of the other four is another story.",
)

# %% slideshow={"slide_type": "subslide"}
BLOCKS = {"paper": "paper: CIFAR-10", "cifar10_small": "ours: CIFAR-10, small", "digits": "ours: digits"}
MEASURES = {"bits": "bits/dim, K = 1", "distance": "Fréchet distance", "nfe": "NFE"}
table = {block: {measure: {} for measure in MEASURES} for block in BLOCKS}
for entry in table_1.lipman2023():
    name = table_1.METHODS[entry.method]
    if entry.size == "cifar10":
        numbers, block = (entry.paper["nll_one"], entry.paper["fid"], entry.paper["nfe"]), "paper"
    elif entry.size in BLOCKS and entry.ours:
        numbers, block = tuple(entry.ours[k] for k in ("nll_one", "classifier_distance", "nfe")), entry.size
    else:
        continue
    for measure, number in zip(MEASURES, numbers, strict=True):
        table[block][measure][name] = number

print(f"{'':16}" + "".join(f"{title:^31}" for title in BLOCKS.values()))
print(f"{'':16}" + "   bits/dim  distance     NFE    " * len(BLOCKS))
for name in table_1.METHODS.values():
    cells = [[table[block][measure].get(name) for measure in MEASURES] for block in BLOCKS]
    parts = [
        "      -         -         -    " if c[0] is None else f"{c[0]:9.2f} {c[1]:9.2f} {c[2]:9.0f}    " for c in cells
    ]
    print(f"{name:16}" + " ".join(parts))

# %% slideshow={"slide_type": "subslide"}
figure, axes = plotting.canvas(len(BLOCKS), 3, height=6.6)
for line, (block, title) in zip(axes, BLOCKS.items(), strict=True):
    for ax, (measure, what) in zip(line, MEASURES.items(), strict=True):
        values = table[block][measure]
        what = "FID-50k" if block == "paper" and measure == "distance" else what
        if values:
            plotting.bars(values, digits=0 if measure == "nfe" else 2, colors=LOOK, ax=ax)
        ax.set_title(what, fontsize=11)
        if ax is not line[0]:
            ax.set_yticklabels([])
    line[0].set_ylabel(title)
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What agrees, and what does not
#
# Five methods make ten pairs. For each measure, how many pairs stand in the order of the paper's CIFAR-10 column?


# %% slideshow={"slide_type": "fragment"}
def pairs_as_in_paper(block, measure):
    """How many pairs of methods are ordered as in the paper, and how many there are."""
    paper, ours = table["paper"][measure], table[block][measure]
    names = list(ours)
    found = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    return sum((ours[a] < ours[b]) == (paper[a] < paper[b]) for a, b in found), len(found)


agreement = {}
for block in list(BLOCKS)[1:]:
    for measure, what in MEASURES.items():
        order = sorted(table[block][measure], key=table[block][measure].get)
        agreement[block, measure] = pairs_as_in_paper(block, measure)
        share_said = "{} of {}".format(*agreement[block, measure])
        print(f"{BLOCKS[block]:22} {what:17} {share_said:>8} pairs as in the paper; order: {' < '.join(order)}")


def first(block):
    """The measures in which FM w/ OT is the best of a block."""
    return [m for m in MEASURES if table[block][m] and min(table[block][m], key=table[block][m].get) == "FM w/ OT"]


print("FM w/ OT is first in: " + "; ".join(f"{title}: {', '.join(first(block))}" for block, title in BLOCKS.items()))

# %% [markdown] slideshow={"slide_type": "skip"}
# **Agrees.** FM w/ OT has the fewest bits/dim and the smallest distance in every block. On small CIFAR-10 eight of ten
# pairs of bits/dim stand as in the paper, with Score Matching last in both.
#
# **Does not agree.**
#
# - *ScoreFlow* is second in the paper's bits/dim, fourth on small CIFAR-10, and last on the digits. Its weight makes single
#   batches scatter, which 391,000 steps average out and a few hundred do not.
# - *NFE.* On small CIFAR-10, Score Matching needs fewer evaluations than FM w/ OT. It also has the most bits/dim and four
#   times the distance: a network that has learned little has a simple flow. NFE is a virtue at equal quality only.
# - *DDPM and Score Matching* have one loss, but DDPM needs 224 evaluations on the digits and 262 on small CIFAR-10, Score
#   Matching 86 and 73. On the way to a velocity the predicted noise is divided by $\sigma_t$, which goes to zero, and the
#   solver has to follow the error that this amplifies; a predicted score is not divided.
# - *DDPM* is second in the paper's FID, and has the largest distance of our five on small CIFAR-10, with fewer bits/dim than
#   either score method. Likelihood and looks are two things; and this network is far from done: in the curves below its
#   distance still falls fast at the last step.
# - *FM w/ Diffusion* is second in the paper's NFE, and behind both score methods on our two data sets.
#
# One seed for each row, a few hundred samples: differences below the spread in the records mean nothing.

# %% slideshow={"slide_type": "subslide"}
every = {
    size: {m: recorded.get(f"lipman2023/{size}/{m}") for m in table_1.METHODS} for size in ("digits", "cifar10_small")
}
figure, axes = plotting.canvas(2, 2, height=6.0, sharex="col")
for column, (size, found) in zip(axes.T, every.items(), strict=True):
    for method, record in found.items():
        if record is None:
            continue
        name, steps = table_1.METHODS[method], [point["step"] for point in record["curve"]]
        for ax, key in zip(column, ("classifier_frechet_distance", "nfe"), strict=True):
            ax.plot(steps, [point[key] for point in record["curve"]], "o-", color=LOOK[name], label=name, markersize=4)
    column[0].set(title=table_1.TITLES[size], ylabel="Fréchet distance, 100 images")
    column[1].set(xlabel="training step", ylim=(0, None), ylabel="NFE")
axes[0, 0].set_ylim(0, None)
axes[0, 1].set(yscale="log", ylim=(4, 90))
axes[0, 1].set_yticks([5, 10, 20, 50], ["5", "10", "20", "50"])
axes[0, 1].minorticks_off()
axes[0, 0].legend(fontsize=9)
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# The paper's figure 5 shows this for ImageNet-64: the OT path is ahead from early on. Here too, at every point of both
# data sets. The distances are of 100 images each and thus larger than those of the table: the next but one section says
# why.


# %% slideshow={"slide_type": "skip"}
def always_lowest(size):
    """Share of the points of the training curve at which FM w/ OT has the smallest distance of the rows there are."""
    curves = {m: [p["classifier_frechet_distance"] for p in r["curve"]] for m, r in every[size].items() if r}
    points = list(zip(*curves.values(), strict=True))
    return sum(curves["fm_ot"][i] == min(point) for i, point in enumerate(points)) / len(points)


# %% [markdown] slideshow={"slide_type": "slide"}
# ## Photographs
#
# Now CIFAR-10 in colour: $d = 3072$, 256 levels. The repository holds a small network, trained by
#
#     fmcore train cifar10 data_dir=...     # one to two hours on one CPU core

# %% slideshow={"slide_type": "fragment"}
photos = pretrained.load("cifar10")
paper_row = catalog.by_name("lipman2023/cifar10/fm_ot")
with torch.device("meta"):
    full_size = sum(p.numel() for p in build_network(paper_row, (3, 32, 32)).parameters())
own, full = photos.configuration.training, paper_row.training
seen, seen_paper = own.steps * own.batch, full.steps * full.batch
print(f"parameters: here {sum(p.numel() for p in photos.network.parameters()):,}, in the paper {full_size:,}")
print(f"images seen in training: here {seen:,}, in the paper {seen_paper:,}, {seen_paper / seen:.0f} times as many")
values, evaluation = photos.record["values"], photos.record["evaluation"]
cifar_bits = {name: entry["value"] for name, entry in values["bits_per_dim"].items() if "K =" not in name}
print("bits/dim: " + "   ".join(f"{name} {value:.2f}" for name, value in cifar_bits.items()))
print(f"NFE of dopri5 at 1e-5: {evaluation['nfe']:.0f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "1.5 million parameters and 3.3 passes over the data. What will its samples look like?",
    [
        "noise with the right mean colour",
        "natural colours and layouts, without objects",
        "small but recognizable animals and cars",
    ],
    answer=1,
    because="Colours, light above and dark below, smooth and rough areas are in the statistics of small neighbourhoods and "
    "are learned first. Objects need width, depth and hundreds of times as many images.",
)

# %% slideshow={"slide_type": "subslide"}
times = torch.linspace(0, photos.path.t_max, 7, dtype=torch.float64)
sheet = photos.sample(12, torch.Generator().manual_seed(0), method="midpoint", times=times)
plotting.images(to_uint8(sheet.x, photos.levels), columns=6, title=f"12 samples, midpoint method, NFE {sheet.nfe}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### From noise to image
#
# On the OT path, $x_t = (1-t)\, x_0 + t\, x_1$ and $v = \mathbb{E}[x_1 - x_0 \mid x_t]$. So at any time the network also
# says where it thinks the image will be, $\mathbb{E}[x_1 \mid x_t] = x_t + (1 - t)\, v(x_t, t)$: the step to $t = 1$ in
# one go.

# %% slideshow={"slide_type": "fragment"}
picks = [1, 5, 9]
strip, guesses = sheet.trajectory[:, picks], []
with torch.no_grad():
    for x, time in zip(strip, times.float(), strict=True):
        guesses.append(photos.path.velocity_to_data(photos.velocity(x, time), x, time))
guesses = torch.stack(guesses)
films = torch.cat([torch.stack([strip[:, i], guesses[:, i]]) for i in range(3)]).flatten(0, 1)
titles = [f"t = {float(time):.2f}" for time in times]
rows = ["$x_t$", "guess of $x_1$"] * 3
figure = plotting.images(films.clamp(-1, 1), titles=titles, rows=rows)
to_end = (guesses - strip[-1]).square().mean(dim=(1, 2, 3, 4)).sqrt()
print("difference of the guess to the final image: " + "  ".join(f"{float(value):.2f}" for value in to_end))
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# The first guess, at $t = 0$, is nearly the mean of all images whatever the noise. Colour and layout come first, texture
# last; at half time the guess is more than five times nearer to the final image than at the start. The noise fades
# evenly in $x_t$, as the paper's figure 6 has it for the OT path; on the diffusion path it would stay until shortly
# before the end (chapter 04).

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Fréchet distance, and how to be fooled by it
#
# Likelihood needs a density, and says little about looks. The usual measure of samples compares two *sets* of images.
# Map each image to a vector of features, sum up each set by mean $m$ and covariance $S$, and take the distance of
# chapter 05 between the two Gaussians:
#
# $$
# \mathrm{FD} = \|m_1 - m_2\|^2 + \operatorname{tr} S_1 + \operatorname{tr} S_2
# - 2 \operatorname{tr} \big( S_1^{1/2}\, S_2\, S_1^{1/2} \big)^{1/2} .
# $$
#
# It is called **FID** if the features are the 2,048 of one particular Inception network, and "FID-50k" if there are
# 50,000 samples. Our features come from a classifier of digits that this package trains in seconds. We say *classifier
# Fréchet distance* and never FID: a number from other features is on another scale.

# %% slideshow={"slide_type": "fragment"}
classifier = cached_classifier(digits)


def features(images):
    """32 features of whole-number images, or of points that were never rounded."""
    return classifier.network.features(images if images.is_floating_point() else digits.scaled(images))


real, held, fake = features(digits.train), features(digits.held_out), features(generated)
FD_flow, FD_real = frechet_distance(fake, real), frechet_distance(held, real)
print(f"accuracy of the classifier on held-out digits: {classifier.accuracy:.1%}")
print(f"297 generated to the training images: {FD_flow:.2f}")
print(f"297 held-out (real) to the same:      {FD_real:.2f}")

# %% [markdown] slideshow={"slide_type": "skip"}
# The second number is what a perfect model would get: not zero. Without it the first means nothing. Why is it not zero?

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Real held-out digits against the training images, but only 50 of them instead of 297: what happens to the distance?",
    [
        "it scatters more, around the same value",
        "it grows several times",
        "it shrinks: fewer images, fewer differences",
    ],
    answer=1,
    because="Mean and covariance of few samples are off, and a squared distance only counts how far, not in which direction. "
    "So the error does not average out: the distance is biased upwards, roughly like 1/n.",
)

# %% slideshow={"slide_type": "fragment"}
COUNTS = (50, 75, 100, 150, 297)
generator = torch.Generator().manual_seed(9)


def by_count(these):
    """The mean distance to the training images of 20 random subsets of each size."""
    picks = {n: [torch.randperm(297, generator=generator)[:n] for _ in range(20)] for n in COUNTS}
    return {n: sum(frechet_distance(these[p], real) for p in some) / 20 for n, some in picks.items()}


by_n = {"real, held out": by_count(held), "generated": by_count(fake)}
for name, found in by_n.items():
    print(f"{name:15} " + "   ".join(f"n = {n}: {value:.2f}" for n, value in found.items()))
# %% slideshow={"slide_type": "subslide"}
lines = {name: list(found.values()) for name, found in by_n.items()}
colors = {"real, held out": style.DATA, "generated": style.MODEL}
title = "The same images, counted in smaller sets"
figure = plotting.curves(
    [1 / n for n in COUNTS],
    lines,
    xlabel="1 / n",
    ylabel="FD to the training images",
    colors=colors,
    markers=True,
    title=title,
)
figure.axes[0].set_xticks([1 / n for n in COUNTS], [f"1/{n}" for n in COUNTS])
figure.axes[0].set(xlim=(0, 0.021), ylim=(0, None))
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# Fifty *real* digits are farther from the data than 297 generated ones. Hence the rules: compare equal numbers only;
# FID-10k is not FID-50k; and put the distance of equally many held-out images beside it.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Three more ways
#
# - **Flips.** Training often mirrors images at random. Is the *reference* mirrored too?
# - **Split.** Distance to the training images, or to held-out ones?
# - **Feature space.** A Gaussian fitted to the training *pixels* has their mean and covariance by construction.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Samples of a Gaussian fitted to the pixels look like smeared ink. By the Fréchet distance of the pixels themselves, how "
    "do they compare with real held-out digits?",
    ["far worse", "about equal to real digits, or better", "worse than the flow, better than noise"],
    answer=1,
    because="The distance sees means and covariances only, and in pixel space those are exactly what was fitted. In the "
    "features of a classifier a smear is no digit. Where a measure is blind, a model can cheat.",
)

# %% slideshow={"slide_type": "fragment"}
generator = torch.Generator().manual_seed(10)
draws = torch.randn(297, d, generator=generator, dtype=torch.float64)
smeared = (gaussian.loc + draws @ gaussian.scale_tril.T).float().view(-1, *shape)
flips = torch.rand(len(real), 1, 1, 1, generator=generator) < 0.5
flipped = features(torch.where(flips, digits.train.flip(-1), digits.train))


def pixels(images):
    return (images if images.is_floating_point() else digits.scaled(images)).flatten(1)


sets = {"real, held out": digits.held_out, "flow": generated, "Gaussian of pixels": smeared}
FD_sets = {}
print(f"{'':20}  classifier   reference flipped   to held-out   pixels")
for name, images in sets.items():
    own = features(images)
    to_held = math.nan if name == "real, held out" else frechet_distance(own, held)
    FD_sets[name] = (
        frechet_distance(own, real),
        frechet_distance(own, flipped),
        frechet_distance(pixels(images), pixels(digits.train)),
    )
    a, b, c = FD_sets[name]
    print(f"{name:20}  {a:10.2f}   {b:17.2f}   {to_held:11.2f}   {c:6.2f}".replace("nan", "  -"))

# %% slideshow={"slide_type": "subslide"}
figure, axes = plotting.canvas(1, 3, height=3.3)
for ax, (name, images) in zip(axes, sets.items(), strict=True):
    shown = to_uint8(images, levels) if images.is_floating_point() else images
    title = f"{name}\nclassifier {FD_sets[name][0]:.2f}, pixels {FD_sets[name][2]:.2f}"
    plotting.images(shown[:36], columns=6, low=0, high=16, ax=ax)
    ax.set_title(title, fontsize=11)
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# - With a **flipped reference** the generated digits come out *better than the real ones*: half of the reference is no
#   digits, and real digits are punished for looking like none of these.
# - To **held-out** images the distance is a little larger: there are fewer of them, which is the bias of above on the
#   other side. Papers use either split; the larger training split is usual for FID.
# - In **pixel space** the smeared Gaussian beats real digits, and the flow is last. In the classifier's features the
#   Gaussian is last.
#
# None of these is a bug, and none is visible in the number. A distance is worth reporting with its features, the number
# of samples, the reference split, flips, and the value of real images. The records of `fmcore` hold all of them.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you saw

# %% slideshow={"slide_type": "skip"}
early, late = (float(loss_at["held-out images"][i]) for i in (0, -2))
fall_hutchinson = hutchinson_K[1] - hutchinson_K[32]
fall_gaussian = gaussian_K[1] - gaussian_K[50]
nfe_ratio = adaptive[1e-5][0] / adaptive[1e-3][0]
slopes = {method: plotting.slope(NFES[1:], [error for error, _ in found[1:]]) for method, found in fixed.items()}
half_level = fixed["midpoint"][1][0] * levels
bits_digits = sorted(table["digits"]["bits"].values())
guess_ratio = float(to_end[0] / to_end[3])
cifar_gain = cifar_bits["flow"] / cifar_bits["Gaussian, full covariance"]
FD_gain = by_n["real, held out"][50] / by_n["real, held out"][297]

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
rows = [
    Claim("pixels that dequantization moves to another level", wrong_bins, exactly(0), digits=0),
    Claim("one pixel, sharp peaks, no noise: bits", min(without), below(0)),
    Claim("the same with noise: lowest bits minus entropy", min(with_noise) - entropy, between(0, 0.3)),
    Claim("parameters of the usual U-Net, minus 35,746,307", parameters["CIFAR-10"] - 35_746_307, exactly(0), digits=0),
    Claim("share of them at full resolution", at_resolution["CIFAR-10", 32], about(0.09, 0.01), digits=2),
    Claim("parameters of the U-Net for digits", parameters["digits"], exactly(176849), digits=0),
    Claim("loss by hand and fmcore: difference", gap_loss, below(1e-5)),
    Claim("first loss over 1 + mean square of the data", run.losses[0] / expected_first, between(0.9, 1.1)),
    Claim("mean loss of the last 100 steps, live over record", final_loss / known_loss, between(0.97, 1.03)),
    Claim("loss at t = 0.98 over loss at t = 0", late / early, above(2.5)),
    Claim("bits/dim by hand and fmcore: largest difference", gap_bits, below(1e-4)),
    Claim("bits/dim: uniform", bars["uniform"], about(math.log2(17), 1e-3), digits=2),
    Claim("bits/dim: Gaussian", bars["Gaussian, full covariance"], about(2.91, 0.03), digits=1),
    Claim("bits/dim: histograms", bars["histogram of each pixel"], about(2.44, 0.02), digits=2),
    Claim("bits/dim: the live flow", ours.value, between(1.95, 2.3)),
]
claims.table(rows)

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
rows = [
    Claim("Gaussian, 1 to 50 draws: bits/dim fall by", fall_gaussian, about(0.04, 0.006), digits=2),
    Claim("flow, u fixed, 1 to 32 noisy estimates as draws: fall by", fall_hutchinson, above(0.1)),
    Claim("exact minus mean of all estimates, bits/dim", abs(truth - averaged), below(0.05)),
    Claim("scatter of one Hutchinson estimate, nats", probe_noise, between(3, 9)),
    Claim("records, digits: least share of the fall to K = 3 that is noise", min(artefact.values()), above(0.3)),
    Claim("NFE of dopri5, tolerance 1e-5 over 1e-3", nfe_ratio, between(1.3, 3.5)),
    Claim("Euler, from NFE 8 on: power of NFE", slopes["euler"], between(-1.2, -0.8)),
    Claim("midpoint, from NFE 8 on: power of NFE", slopes["midpoint"], between(-2.3, -1.5)),
    Claim("midpoint, NFE 8: error of a pixel in half grey levels", half_level, below(1)),
    Claim("losses on the VP path as weighted noise errors: relative difference", weight_gap, below(1e-3)),
    Claim("digits: measures (of 3) in which FM w/ OT is first", len(first("digits")), exactly(3), digits=0),
    Claim("CIFAR-10, small: the same", len(first("cifar10_small")), exactly(2), digits=0),
    Claim("digits: bits/dim, best over second best row", bits_digits[0] / bits_digits[1], below(0.96)),
    Claim("digits: share of the curve at which FM w/ OT is lowest", always_lowest("digits"), exactly(1), digits=0),
    Claim(
        "CIFAR-10, small: share of the curve at which FM w/ OT is lowest",
        always_lowest("cifar10_small"),
        exactly(1),
        digits=0,
    ),
    Claim("CIFAR-10 network: bits/dim over those of a Gaussian", cifar_gain, below(0.9)),
    Claim("CIFAR-10: error of the guess at t = 0 over that at t = 0.5", guess_ratio, above(1.5)),
]
claims.table(rows, title="What you saw (continued)")

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
rows = [
    Claim("FD of real digits, n = 50 over n = 297", FD_gain, above(3)),
    Claim("FD of 50 real digits over that of 297 generated ones", by_n["real, held out"][50] / FD_flow, above(1)),
    Claim("FD of generated over FD of real digits, n = 297", FD_flow / FD_real, above(1.5)),
    Claim("the same, reference flipped", FD_sets["flow"][1] / FD_sets["real, held out"][1], below(1)),
    Claim(
        "pixel FD, Gaussian over real digits", FD_sets["Gaussian of pixels"][2] / FD_sets["real, held out"][2], below(1)
    ),
    Claim("classifier FD, Gaussian over flow", FD_sets["Gaussian of pixels"][0] / FD_sets["flow"][0], above(1.2)),
]
claims.table(rows, title="What you saw: Fréchet distances")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## To remember
#
# - A pixel is a bin. Dequantization noise makes the density of a flow a bound on the probability of whole numbers;
#   without it bits/dim have no floor.
# - bits/dim = nats$/(d \ln 2) + \log_2 (L / 2)$, and beside it stand simple models, $K$ and the number of probes. **3.11 is
#   not 2.99.**
# - Noise inside the logarithm of a mean looks like a better model.
# - The loss ranks runs of one method. NFE ranks flows of equal quality. The Fréchet distance ranks sets of equal size in
#   one feature space.
# - At equal budget FM w/ OT is ahead here as in the paper; the order of the others changes with the size.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# In [exercises/06_images.ipynb](exercises/06_images.ipynb); each has a check that says what is wrong.
#
# 1. **A place in the bin.** Dequantize by hand.
# 2. **Nats to bits/dim.** The constant, and the nats in the paper's third decimal.
# 3. **The logarithm of a mean** of $K$ densities of $e^{-5000}$.
# 4. **A Fréchet distance** from two sets of features.
# 5. **The velocity of a noise predictor,** so that DDPM can be sampled as a flow.
#
# <!-- next: written by fmcore.course.build -->
#
# Next: [07 Closed form](07_closed_form.ipynb). What does the exact velocity do in many dimensions?
#
# <!-- end of next -->
