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
# The loss of chapter 03 does not know that its points are images, and nothing in it changes here. What is new is
# everything around the loss: grey levels are whole numbers, the network is a U-Net, and "are the samples good?" has
# several answers, which may contradict each other. In this chapter you train a flow on digits, measure it in bits per
# dimension, network evaluations and Fréchet distances, learn how each of these measures can mislead, and compare five
# ways to train the same network.

# %% slideshow={"slide_type": "skip"}
import math

import torch
import torch.nn.functional as F
from matplotlib.patches import Rectangle
from torch import nn

from fmcore import data, likelihood, losses, networks, solvers, sources, training, velocity
from fmcore.course import card, claims, plotting, predict, style, widgets
from fmcore.course.claims import Claim, about, above, below, between, exactly
from fmcore.data.images import dequantize, to_uint8
from fmcore.experiments.evaluate import simple_models
from fmcore.experiments.run import pretrained
from fmcore.experiments.run.network import build_network
from fmcore.metrics import frechet_distance
from fmcore.metrics.classifier import cached_classifier
from fmcore.networks import unet
from fmcore.papers import catalog, reference
from fmcore.papers.lipman2023 import order
from fmcore.papers.lipman2023 import table as table_1

style.use()
torch.set_num_threads(1)  # an 8x8 image gives a second core too little to do
ORANGE, GREY = "#C65D12", "#6E7781"  # readable on white as thin lines, too

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
card.show(
    "06_images",
    goals=[
        "turn whole-number grey levels into points with a density, and say why the noise is needed",
        "write a block of a U-Net, and say what each of its parts is for",
        "tell the error of a trained network from its loss",
        "convert a log-density into bits per dimension by hand",
        "name three ways in which a better number does not mean a better model: draws, noisy estimates, sample size",
        "compare five training methods at equal budget, and say what agrees with the paper and what does not",
    ],
    before=["chapter 03: the loss", "chapter 04: noise, score and velocity are one prediction", "convolutions"],
    exercises=[
        "1. A dequantizer with gaps",
        "2. Bits per dimension of standardized images",
        "3. More draws never loosen the bound",
        "4. The loss of the exact velocity at both ends",
        "5. A noise predictor that was borrowed",
        "6. Is the bias of a Fréchet distance the same for every model?",
    ],
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## An image is a point
#
# An image of height $H$, width $W$ and $C$ colour channels is a list of $d = C H W$ numbers, a point in
# $\mathbb{R}^d$. The digits of scikit-learn have $d = 1 \cdot 8 \cdot 8 = 64$, CIFAR-10 has $3 \cdot 32 \cdot 32 =
# 3072$. But each of these numbers is a **grey level** $k \in \{0, 1, \dots, L - 1\}$, a whole number: $L = 17$ levels
# for the digits, 256 for ordinary 8-bit images. The data lie on a grid, whereas a flow has a density on all of
# $\mathbb{R}^d$.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Dequantization
#
# We cut the interval $[-1, 1]$ into $L$ **bins** of width $\Delta = 2 / L$. A pixel of level $k$ is placed at a
# random position in bin $k$:
#
# $$
# y = \Delta\, (k + u) - 1 , \qquad u \sim \mathcal{U}(0, 1) .
# $$
#
# This is **dequantization**. To go back, ask which bin $y$ lies in: $k = \lfloor (y + 1) / \Delta \rfloor$.

# %% slideshow={"slide_type": "fragment"}
digits = data.digits()
levels, shape = digits.levels, digits.shape
generator = torch.Generator().manual_seed(0)
y = dequantize(digits.train, levels, generator)
wrong_bins = int((to_uint8(y, levels) != digits.train).sum())
print(digits)
print(f"grey levels {levels}, bins of width {2 / levels:.4f}; y from {y.min():.3f} to {y.max():.3f}")
print(f"pixels that do not come back to their level: {wrong_bins} of {y.numel():,}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 2, height=3.6, width_ratios=[1, 2])
plotting.images(digits.train[:1], low=0, high=16, title="an image", ax=axes[0])
fourth = digits.train[0, 0, 3]
noisy = dequantize(fourth.repeat(60, 1), levels, generator)
aside = torch.arange(8) + 0.5 * (torch.rand(60, 8, generator=generator) - 0.5)  # so that points do not hide each other
for edge in torch.linspace(-1, 1, levels + 1).tolist():
    axes[1].axhline(edge, color=GREY, linewidth=0.5)
axes[1].scatter(aside, noisy, s=5, color=style.PATH, linewidths=0, zorder=3)
for place, k in enumerate(fourth.tolist()):
    axes[1].text(place, 2 * (k + (1.35 if k < 16 else -1.0)) / levels - 1, f"k = {k}", ha="center", fontsize=10)
axes[1].set(yticks=[-1, 0, 1], ylim=(-1.01, 1.01), xlabel="pixel of the fourth row", ylabel="y")
axes[1].set_title("60 dequantizations of one row of pixels")
axes[1].grid(False)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# The noise spreads a pixel over its own bin (between two grey lines) and no further, so no information is lost.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Why the noise?
#
# A model of images should give a *probability* $P(k)$ of the whole numbers $k = (k_1, \dots, k_d)$. A flow has a
# *density* $p(y)$. The two are connected if $P(k)$ is the mass that $p$ puts into the box of all $y$ with the levels
# $k$, which has volume $\Delta^d$:
#
# $$
# \log P(k) = \log \int_{\text{box of } k} \! p(y)\, \mathrm{d}y
# = d \log \Delta + \log \mathbb{E}_u\, p\big(y(k, u)\big)
# \;\ge\; d \log \Delta + \mathbb{E}_u \log p\big(y(k, u)\big) .
# $$
#
# The inequality is Jensen's: the logarithm of a mean is at least the mean of the logarithms. So the average
# log-density of *dequantized* images is a lower bound of the log-probability of the images themselves (Theis et al.
# 2016). Divided by $-d \ln 2$ it becomes **bits per dimension**, bits/dim: the length of a code for one pixel, lower
# is better.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Leave the noise out: fit a density to the whole numbers themselves and make it as sharp as you like. How many "
    "bits/dim can it reach?",
    [
        "the entropy of the grey levels, about 3 bits, and not less",
        "zero: every level is then known",
        "as few as you like, even below zero",
    ],
    answer=2,
    because="A density may be larger than 1. The height of a narrow peak on each whole number has no upper bound, and says "
    "nothing about images. With the noise the model pays for narrow peaks: most dequantized points fall beside them.",
)


# %% slideshow={"slide_type": "subslide"}
# One pixel: a Gaussian of width h on each of the 17 levels, weighted as often as the level occurs.
counts = torch.bincount(digits.train.flatten().long(), minlength=levels).double()
share = counts / counts.sum()
centres = 2 * (torch.arange(levels).double() + 0.5) / levels - 1
inside = (torch.arange(400).double() + 0.5) / 400  # evenly spread places in a bin, in place of random u
widths = torch.logspace(-3, 0, 61, dtype=torch.float64)


def pixel_bits(u, h):
    """Bits of the pixel, averaged over levels and over the places u in the bin."""
    y = 2 * (torch.arange(levels).double()[:, None] + u) / levels - 1
    log_normal = -((y[..., None] - centres) / h).square() / 2 - math.log(h * (2 * math.pi) ** 0.5)
    log_density = torch.logsumexp(share.log() + log_normal, dim=-1)
    return float(-(share[:, None] * log_density).sum(0).mean() / math.log(2) + math.log2(levels / 2))


without = [pixel_bits(torch.full((1,), 0.5).double(), float(h)) for h in widths]
with_noise = [pixel_bits(inside, float(h)) for h in widths]
entropy = float(-(share * share.log2()).sum())
best_width = float(widths[with_noise.index(min(with_noise))]) / (2 / levels)
print(f"lowest value without noise {min(without):.2f} and falling, with noise {min(with_noise):.2f}")
print(f"entropy of the grey level of a pixel: {entropy:.2f} bits; best width with noise: {best_width:.2f} bins")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, ax = plotting.canvas(width=7.2, height=3.6)
ax.plot(widths, without, "--", color=ORANGE, label="without noise")
ax.plot(widths, with_noise, color=style.DATA, label="with noise")
ax.axhline(entropy, color=style.EXACT, linestyle=":", linewidth=1.4)
ax.text(1.0, entropy - 0.15, "entropy", ha="right", va="top")
ax.axvline(2 / levels, color=GREY, linewidth=1.2)
ax.text(2 / levels, -2.4, " width of a bin", va="bottom")
ax.set(xscale="log", xlabel="width h of the peaks", ylabel="bits per pixel", ylim=(-2.7, 9))
ax.legend()
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# With noise no density gets below the entropy: that is the bound above, for one pixel. Without noise the bits fall
# without end. Negative bits/dim in a paper or a log file are a sign that dequantization was forgotten.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The U-Net
#
# The velocity $v_\theta(x, t)$ takes an image and returns one of the same size. Four demands, and the part of the
# network (Ronneberger et al. 2015; Ho et al. 2020) that meets each of them:
#
# - **See the whole image.** Whether a pixel belongs to a 3 or to an 8 may be decided far away from it. *Down:* halve
#   the resolution a few times, with more channels each time, until a 3x3 convolution spans a large part of the image.
# - **Keep every detail.** The noise that has to be removed sits in single pixels. *Skip connections:* on the way up,
#   each block also gets the output of its counterpart on the way down.
# - **Know the time.** At $t = 0$ the task is to predict the mean image, near $t = 1$ to clean single pixels. *Time
#   embedding:* cosines and sines of $t$ become a vector that is added in every block.
# - **Relate distant places.** *Self-attention* (Vaswani et al. 2017) lets every pixel look at every other. Its cost
#   grows with the square of the number of pixels, so it is used only at low resolutions.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "The U-Net of most CIFAR-10 papers has 35.7 million parameters. Which part of them works at the full resolution "
    "of 32x32 pixels?",
    ["most: that is where most of the pixels are", "about a third", "less than a tenth"],
    answer=2,
    because="A convolution has as many parameters at 4x4 as at 32x32, and the lower levels are wider. For the arithmetic it is "
    "the other way round: 32x32 has 64 times as many pixels as 4x4.",
)


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
def layers(net, side):
    """Each layer of a U-Net for images of that height: part, kind, output shape, parameters, attention."""
    parts = [("down", net.first), *(("down", m) for m in net.down), *(("middle", m) for m in net.middle)]
    parts += [*(("up", m) for m in net.up), ("up", net.last)]
    found = []
    for part, layer in parts:
        kind = type(layer).__name__
        side = side // 2 if kind == "Downsample" else 2 * side if kind == "Upsample" else side
        channels = next(m.out_channels for m in layer.modules() if isinstance(m, nn.Conv2d))
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
print(f"digits over CIFAR-10: {parameters['digits'] / parameters['CIFAR-10']:.1%} of the parameters")


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
PLAIN = "#8A939D"  # of layers that are no blocks


def draw_unet(found, title, ax):
    """Layers from left to right, resolutions from top to bottom, skip connections as thin lines."""
    sides = sorted({layer[2][1] for layer in found}, reverse=True)
    waiting = []
    for place, (part, kind, (_, side, _), _, attends) in enumerate(found):
        y = -sides.index(side)
        color = style.PATH if attends else style.DATA if kind == "Block" else PLAIN
        tall = 0.22 + 0.5 / 2 ** sides.index(side)
        ax.add_patch(Rectangle((place - 0.36, y - tall / 2), 0.72, tall, facecolor=color, edgecolor="white"))
        if part == "up" and kind == "Block":
            start, height = waiting.pop()
            ax.plot([start + 0.36, place - 0.36], [height, height], color=GREY, linewidth=0.9, zorder=0)
        if part == "down":
            waiting.append((place, y))
    for row, side in enumerate(sides):
        width = block_width([layer for layer in found if layer[2][1] == side])
        ax.text(len(found) + 0.3, -row, f"{side}x{side}\n{width} channels", va="center", fontsize=10)
    ax.set(xlim=(-0.8, len(found) + 0.2), ylim=(0.55 - len(sides), 0.55))
    ax.axis("off")
    ax.set_title(title, loc="left")


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 2, height=3.6, width_ratios=[2.4, 1])
for ax, (name, found) in zip(axes, overview.items(), strict=True):
    draw_unet(found, f"{name}: {parameters[name]:,} parameters", ax)
axes[0].text(10, 0.35, "lines: skip connections", fontsize=10, color="#57606A")
axes[1].scatter([], [], marker="s", color=style.DATA, label="block")
axes[1].scatter([], [], marker="s", color=style.PATH, label="block with attention")
axes[1].scatter([], [], marker="s", color=PLAIN, label="first, last, halve, double")
figure.legend(loc="outside lower center", ncols=3)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# The left network is the U-Net of Dhariwal and Nichol (2021) in the size of most CIFAR-10 papers; Lipman et al. (2023)
# use twice its width. For the digits half a percent of its parameters is enough.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## One block by hand
#
# A block is what a U-Net is made of. It maps a feature map of shape $(B, C_{\text{in}}, H, W)$ to $(B, C_{\text{out}},
# H, W)$:
#
# 1. **normalize** groups of channels (GroupNorm), so that later layers see numbers of one size at every $t$;
# 2. apply the nonlinearity SiLU, $z \mapsto z \operatorname{sigmoid}(z)$, and a 3x3 **convolution**;
# 3. add the **time**: one number per channel, computed from the time embedding, the same for all pixels;
# 4. normalize, SiLU and convolve once more;
# 5. add the input again: a **skip** around the whole block, so that the block learns only a change. A 1x1 convolution
#    adapts the number of channels where it differs.


# %% slideshow={"slide_type": "subslide"}
class BlockByHand(nn.Module):
    """A block of the U-Net: (B, inputs, H, W) and a time vector (B, width) to (B, outputs, H, W)."""

    def __init__(self, inputs, outputs, width, groups_1, groups_2):
        super().__init__()
        self.norm_1, self.conv_1 = nn.GroupNorm(groups_1, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(width, outputs)
        self.norm_2, self.conv_2 = nn.GroupNorm(groups_2, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x, time):
        h = self.conv_1(F.silu(self.norm_1(x)))
        h = h + self.time(time)[:, :, None, None]
        h = self.conv_2(F.silu(self.norm_2(h)))
        return self.skip(x) + h


def copied(block):
    """A block by hand with the weights of a block of fmcore; both list them in the same order."""
    first, last = block.before[2], block.after[3]
    sizes = first.in_channels, last.out_channels, block.condition.in_features
    mine = BlockByHand(*sizes, block.before[0].num_groups, block.after[0].num_groups)
    mine.load_state_dict(dict(zip(mine.state_dict(), block.state_dict().values(), strict=False)))
    return mine


# %% slideshow={"slide_type": "fragment"}
generator = torch.Generator().manual_seed(20)
theirs = unet.Block(16, 32, width=64, dropout=0.0, attend=False, heads=1)
for weights in theirs.parameters():  # a new block ends with a convolution of zeros: give it other weights
    nn.init.normal_(weights, std=0.1, generator=generator)
x, time = torch.randn(5, 16, 8, 8, generator=generator), torch.randn(5, 64, generator=generator)
with torch.no_grad():
    gap_block = float((copied(theirs)(x, time) - theirs(x, time)).abs().max())
assert gap_block < 1e-5, gap_block
print(f"block by hand and block of fmcore: largest difference {gap_block:.0e}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## One training step by hand
#
# All of chapter 03 in one cell: noise samples $x_0$, dequantized images $x_1$, a time $t$ for each pair, the point
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
t_image = t[:, None, None, None]  # one time per image, the same for all its pixels
loss = (net((1 - t_image) * x0 + t_image * x1, t) - (x1 - x0)).square().mean()
same_loss = losses.conditional_flow_matching(net, path, x0, x1, t).detach()
loss.backward()
optimizer.step()
gap_loss = abs(float(loss.detach() - same_loss))
assert gap_loss < 1e-5, gap_loss

expected_first = 1 + float(y.square().mean())
print(f"loss by hand {loss.detach():.4f}, of fmcore {same_loss:.4f}; predicted for a new network: {expected_first:.2f}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# The first loss of a run is known before it starts. The untrained U-Net returns zero, so the loss is
# $\mathbb{E}\,\|x_1 - x_0\|^2 / d = 1 + \mathbb{E}\,\|x_1\|^2 / d$. If yours starts elsewhere, check the scale of the
# images and of the noise.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Train
#
# 400 steps of 64 images with Adam: the learning rate rises over 50 steps to 0.01 and falls linearly to zero, the
# gradient is clipped, and a moving average of the weights is kept for sampling.


# %% slideshow={"slide_type": "fragment"}
def prepare(images, generator):
    """A batch of whole-number images to pairs of noise samples and dequantized images."""
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
passes = row.training.steps * row.training.batch / len(digits.train)
print(f"first loss {run.losses[0]:.2f}; mean of the last 100: {final_loss:.3f}, in the record {known_loss:.3f}")
print(f"{row.training.steps} steps of {row.training.batch} images: {passes:.0f} passes over the training set")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## When does the network err?
#
# The loss at a time $t$ is not the error of the network. Chapter 03 split it in two: the squared distance of $v_\theta$
# to the exact velocity $u^*$, which is the **error**, and the part that no velocity can avoid, the **irreducible
# loss**. For the digits both can be computed, because $u^*$ is known exactly for dequantized images, too.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The exact velocity of dequantized images
#
# If a pixel of $x_t$ has the value $x$ and came from level $k$, then $x_1$ lay in bin $k$, between two edges $a_k$ and
# $a_{k+1}$, and $x_0 = (x - t x_1) / (1 - t)$ lay between
#
# $$
# \frac{x - t\, a_{k+1}}{1 - t} \quad\text{and}\quad \frac{x - t\, a_k}{1 - t} .
# $$
#
# The probability of this interval under the standard normal distribution says how well level $k$ explains the pixel.
# For a training image, multiply over its pixels; normalized over all training images, these products are the posterior
# weights (chapter 03). Since $x_1 - x_0 = (x_t - x_0) / t$, the exact velocity is $u^*(x, t) = (x - \mathbb{E}[x_0 \mid
# x_t = x]) / t$.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "The loss of the trained network is smallest at t = 0 and largest near t = 1. At which of these times is the network "
    "farthest from the exact velocity of its training set?",
    [
        "at t = 0, where the input is pure noise",
        "at about t = 0.9, where the noise is weak but not yet gone",
        "at t = 0.999, where the loss is largest",
    ],
    answer=1,
    because="Near t = 1 the noise left in x_t is finer than a bin: nobody can tell it from the noise of dequantization, so the "
    "loss there is almost all irreducible. Early, the exact velocity is an average over many images, which is easy to "
    "learn. In between, the exact velocity recognizes the very training image, and the network does not.",
)


# %% slideshow={"slide_type": "subslide"}
def log_interval(low, high):
    """log P(low < z < high) of a standard normal z, also far out in a tail."""
    low, high = torch.where(low > 0, -high, low), torch.where(low > 0, -low, high)  # by symmetry: to the left tail
    at_low, at_high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    return at_high + torch.log1p(-torch.exp(at_low - at_high))


edges = torch.linspace(-1, 1, levels + 1, dtype=torch.float64)
one_hot = F.one_hot(digits.train.flatten(1).long(), levels).double().flatten(1)  # (n, d L): which level each pixel has


def exact_velocity(x, t):
    """u*(x, t) of the dequantized training digits, for x of shape (B, 1, 8, 8) and one time t in (0, 1)."""
    pixels, t = x.flatten(1).double()[..., None], float(t)
    z = (pixels - t * edges) / (1 - t)  # (B, d, L + 1): the x0 that belongs to each edge
    low, high = z[..., 1:], z[..., :-1]
    log_mass = log_interval(low, high)
    at_low, at_high = (torch.exp(-z.square() / 2 - log_mass) / math.sqrt(2 * math.pi) for z in (low, high))
    mean_x0 = at_low - at_high  # the mean of a normal x0 between the two edges
    weights = torch.softmax(log_mass.flatten(1) @ one_hot.T, dim=1)  # (B, n): of the training images
    of_levels = (weights @ one_hot).view_as(log_mass)  # the same, of the levels of each pixel
    return ((pixels[..., 0] - (of_levels * mean_x0).sum(dim=2)) / t).view(x.shape).to(x)


# %% slideshow={"slide_type": "subslide"}
when = torch.tensor([0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.999])
x0, x1 = prepare(digits.train[:120], torch.Generator().manual_seed(2))
by_time = {"loss of the network": [], "irreducible loss": [], "error of the network": []}
for t in when:
    xt, target = path.interpolate(x0, x1, t), x1 - x0
    v, u = flow(xt, t.expand(120)), exact_velocity(xt, t)
    for name, difference in zip(by_time, (v - target, u - target, v - u), strict=True):
        by_time[name].append(float(difference.square().mean()))
new = prepare(digits.held_out[:120], torch.Generator().manual_seed(2))
held_loss = [float(losses.conditional_flow_matching(flow, path, *new, t)) for t in when]

loss_at, irreducible, error_at = (torch.tensor(values) for values in by_time.values())
split_gap = float((loss_at - irreducible - error_at).abs().max())
t_loss, t_error = float(when[loss_at.argmax()]), float(when[error_at.argmax()])
print(f"loss = irreducible loss + error, up to the scatter of 120 pairs: largest difference {split_gap:.3f}")
print(f"largest loss {loss_at.max():.2f} at t = {t_loss:.3f}, of which error {error_at[loss_at.argmax()]:.2f}")
print(f"largest error {error_at.max():.2f} at t = {t_error:.2f}; error at t = 0.2: {error_at[3]:.3f}")
print(f"mean loss, training images {loss_at.mean():.3f}, held-out images {sum(held_loss) / len(held_loss):.3f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
smooth = run.losses.unfold(0, 20, 1).mean(dim=1)
figure, axes = plotting.canvas(1, 2, height=3.6)
axes[0].plot(run.losses, color=PLAIN, linewidth=0.8, label="each step")
axes[0].plot(range(19, len(run.losses)), smooth, color=style.DATA, label="mean of 20")
axes[0].set(xlabel="step", title="training loss", ylim=(0, 1.8))
axes[0].legend()
looks = (("o-", style.MODEL), ("s--", style.EXACT), ("D-", style.PATH))
for (name, values), (mark, color) in zip(by_time.items(), looks, strict=True):
    axes[1].plot(when, values, mark, color=color, label=name, markersize=5)
axes[1].set(xlabel="t", title="by time, training images", ylim=(0, 1.3))
axes[1].legend(loc="upper left")
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# The loss is largest near $t = 1$, but only a small part of it is error there. So a loss ranks two runs of *one* method
# on *one* data set, and nothing else. From about $t = 0.4$ on the network departs from $u^*$, which recognizes the
# training image more and more surely. Chapters 07 and 08 show that this is not a defect: it is why samples are new.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Inside the trained network
#
# **Time embedding.** The network does not get $t$ itself but $\cos(30\, f t)$ and $\sin(30\, f t)$ for eight
# frequencies $f$, from 1 down to 1/3,162.
#
# **Self-attention** after a block: each pixel $i$ of the feature map makes a query $q_i$, a key $k_i$ and a value
# $v_i$, three linear maps of its channels. Pixel $i$ looks at pixel $j$ with the weight $\operatorname{softmax}_j
# (\langle q_i, k_j \rangle / \sqrt{c})$, where $c$ is the length of a key, and receives the weighted mean of the
# values. Several **heads** do this side by side.
#
# We run the whole U-Net with blocks, time embedding and attention by hand, compare it with `fmcore`, and keep the
# attention weights, which `fmcore` does not return.


# %% slideshow={"slide_type": "subslide"}
def time_embedding(net, t):
    """The time vector of every block, (B, width)."""
    f = 10_000 ** (-torch.arange(net.channels // 2) / (net.channels // 2))  # for 16 channels: 1 to 1/3,162
    features = torch.cat([torch.cos(30 * t[:, None] * f), torch.sin(30 * t[:, None] * f)], dim=1)
    return F.silu(net.time(features)), features


def attend(layer, x):
    """Self-attention over the pixels of x, and its weights (B, heads, H W, H W)."""
    pixels = layer.norm(x).flatten(2).transpose(1, 2)  # (B, H W, C)
    q, k, v = layer.qkv(pixels).unflatten(2, (layer.heads, 3, -1)).permute(3, 0, 2, 1, 4)
    weights = torch.softmax(q @ k.transpose(2, 3) / k.shape[3] ** 0.5, dim=3)
    mixed = layer.out((weights @ v).transpose(1, 2).flatten(2))
    return x + mixed.transpose(1, 2).reshape(x.shape), weights


# %% slideshow={"slide_type": "subslide"}
def velocity_by_hand(net, x, t):
    """The velocity of a U-Net of fmcore, and the attention weights of each block that has them."""
    time, _ = time_embedding(net, t)
    h, looks = net.first(x), []
    waiting = [h]  # outputs for the skip connections
    for part in ("down", "middle", "up"):
        for layer in getattr(net, part):
            if isinstance(layer, unet.Block):
                h = torch.cat([h, waiting.pop()], dim=1) if part == "up" else h
                h = copied(layer)(h, time)
                if isinstance(layer.attention, unet.Attention):
                    h, weights = attend(layer.attention, h)
                    looks.append(weights)
            else:
                h = layer(h, time)  # half or double the resolution
            waiting += [h] if part == "down" else []
    return net.last(h), looks


# %% slideshow={"slide_type": "subslide"}
t = torch.full((60,), 0.5)
xt = path.interpolate(*prepare(digits.held_out[:60], torch.Generator().manual_seed(21)), t)
with torch.no_grad():
    by_hand, looks = velocity_by_hand(flow, xt, t)
gap_unet = float((by_hand - flow(xt, t)).abs().max())
assert gap_unet < 1e-4, gap_unet

middle = looks[1][:, 1]  # the middle block, its second head: (60, 16, 16)
row_of, column_of = torch.arange(16) // 4, torch.arange(16) % 4
steps_apart = torch.maximum((row_of[:, None] - row_of).abs(), (column_of[:, None] - column_of).abs())
out_of_reach = float(middle.mean(dim=0)[steps_apart > 1].sum() / 16)
used = float(torch.special.entr(middle).sum(dim=2).exp().mean())  # exp of the entropy: chapter 07
print(f"whole U-Net by hand and flow of fmcore: largest difference {gap_unet:.0e}")
print(f"weight on pixels that a 3x3 convolution does not reach: {out_of_reach:.0%}")
print(f"a pixel spreads its weight over about {used:.1f} of the 16 pixels")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
moments = torch.linspace(0, 1, 201)
_, features = time_embedding(flow, moments)
figure, axes = plotting.canvas(1, 3, height=3.5, width_ratios=[1.5, 0.8, 1.2])
extent = (0, 1, 16.5, 0.5)
axes[0].imshow(features.T, aspect="auto", extent=extent, cmap="PuOr", vmin=-1, vmax=1, interpolation="nearest")
axes[0].set(xlabel="t", ylabel="feature: 8 cosines, 8 sines", yticks=[1, 8, 9, 16], title="time embedding")
plotting.images(xt[:1].clamp(-1, 1), title="$x_t$ at t = 0.5", ax=axes[1])
sheet = torch.full((19, 19), math.nan)
for i in range(16):
    top, left = 5 * (i // 4), 5 * (i % 4)
    sheet[top : top + 4, left : left + 4] = middle[0, i].view(4, 4)
    axes[2].add_patch(Rectangle((left - 0.5, top - 0.5), 4, 4, fill=False, edgecolor=GREY, linewidth=0.8))
    at_query = (left + i % 4 - 0.5, top + i // 4 - 0.5)
    axes[2].add_patch(Rectangle(at_query, 1, 1, fill=False, edgecolor=style.PATH, linewidth=2))
axes[2].imshow(sheet, cmap=style.density_map(), vmin=0)
axes[2].set(xticks=[], yticks=[], title="where each pixel looks")
for ax in (axes[0], axes[2]):
    ax.grid(False)
axes[2].spines[:].set_visible(False)
axes[2].set(xlim=(-0.7, 18.7), ylim=(18.7, -0.7))
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# Left: each time has its own column of 16 numbers; the fast features tell neighbouring times apart, slower ones tell
# early from late. Right: one small map for each pixel of the 4x4 feature map (the pixel is framed), dark where it
# looks. Attention is not bound to neighbours, and it is selective.

# %% slideshow={"slide_type": "slide"}
source = sources.Gaussian(shape)
noise = source.sample(297, torch.Generator().manual_seed(3))
made = solvers.solve(flow, noise, t1=path.t_max, method="rk4", steps=4)
generated = to_uint8(made.x, levels)  # whole-number grey levels again
corners = {name: float(x[..., ::7, ::7].float().mean()) for name, x in (("gen", generated), ("real", digits.held_out))}
print(f"mean grey level of the four corners: generated {corners['gen']:.2f}, real {corners['real']:.2f} (of 16)")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 2, height=4.4)
for ax, (images, title) in zip(
    axes, ((generated, f"generated, NFE {made.nfe}"), (digits.held_out, "real, held out from training")), strict=True
):
    plotting.images(images[:64], columns=8, low=0, high=16, title=title, ax=ax)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# Most samples look like digits, some do not quite, and their corners are a little less black than those of real digits.
# The eye does not get much further. The rest of the chapter is about numbers.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Bits per dimension
#
# The density of a flow at a point $y$ comes from solving the ODE backward (chapter 02), in **nats**: natural
# logarithms. From the bound above,
#
# $$
# \text{bits/dim} = -\frac{\log P(k)}{d \ln 2} \;\le\;
# \frac{-\mathbb{E}_u \log p(y)}{d \ln 2} - \log_2 \Delta
# = \frac{-\mathbb{E}_u \log p(y)}{d \ln 2} + \log_2 \frac{L}{2} .
# $$
#
# The constant accounts for the scale: the interval $[-1, 1]$ in place of $[0, L]$. Code that scales 8-bit images by
# 127.5 in place of 128 has slightly wider bins, and a slightly different constant.

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

# %% slideshow={"slide_type": "fragment"}
ours = by_fmcore(some)
print(f"four images by hand: log-density {solved.log_prob.mean():.1f} nats, bits/dim {by_hand.mean():.3f}")
print(f"{len(some)} images: bits/dim {ours.value:.3f} ± {ours.standard_error:.3f}")
print(f"constant for 17 levels {math.log2(levels / 2):.3f}, for 256 levels {math.log2(256 / 2):.3f}")
print(f"the same for a scale of 127.5: {math.log2(127.5):.3f}")
print(f"pixels at level 0: {share[0]:.0%}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
predict.ask(
    "Three models without a network: all 17 levels equally likely; a histogram for each pixel, pixels independent; a "
    "Gaussian with the full covariance of the 64 pixels. Which has the fewest bits/dim?",
    ["the Gaussian: it knows how pixels go together", "the histograms", "they are about equal"],
    answer=1,
    because="Half of all pixels have level 0, and some are nearly always 0. A histogram pays next to nothing for these; "
    "a Gaussian cannot have a sharp edge at the lowest level. What a model gains depends on the data.",
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
colors = dict(zip(bars, (GREY, GREY, GREY, style.MODEL), strict=True))
plotting.bars(bars, spread=spread, title="bits/dim of held-out digits (lower is better)", colors=colors)

# %% [markdown] slideshow={"slide_type": "fragment"}
# A value of bits/dim means something only beside those of simple models. The uniform one, $\log_2 L$, is the cost of
# storing the pixels as they are.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## One draw or K draws
#
# The bound has slack, because the logarithm stands inside the mean over $u$. With $K$ draws of $u$ *inside* the
# logarithm,
#
# $$
# \log P(k) \;\approx\; d \log \Delta + \log \frac1K \sum_{j=1}^K p\big(y(k, u_j)\big) ,
# $$
#
# the bound is tighter (Burda et al. 2016): the mean of the right side rises with $K$, so bits/dim can only fall. $K =
# 1$ is the bound from before. For the Gaussian the log-density is exact and cheap, so we can afford many draws.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "The Gaussian has 2.92 bits/dim with one draw. And with 50?",
    ["2.92: the draws only reduce the noise of the estimate", "about 2.88", "about 2.5"],
    answer=1,
    because="The slack of the bound is real but small, and it is soon used up: going from 50 to 500 draws gains only 0.002 more.",
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
# A flow's log-density is not exact. The divergence of $v$ is estimated with a random vector, called a **probe**
# (Hutchinson's estimator, chapter 02). The estimate of $\log p(y)$ is unbiased but noisy. For $K = 1$ that is harmless:
# the noise averages out over images. Inside the logarithm of a mean of exponentials it is not: the largest of the $K$
# estimates dominates, and it is partly the largest because of its *noise*.
#
# The experiment that shows it: fix the image **and** $u$. Now there is one number $\log p(y)$, and no slack to remove.
# Estimate it 32 times with different probes, and put $K$ of these estimates into the formula as if they were draws of
# $u$.

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

# %% slideshow={"slide_type": "subslide"}
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

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 2, height=3.4, sharey=True)
drop = {"exact log-density": [gaussian_K[K] - gaussian_K[1] for K in KS]}
plotting.curves(KS, drop, log="x", markers=True, title="Gaussian, real draws of u", ax=axes[0])
fake = {"estimates as draws": [value - truth for value in hutchinson_K.values()]}
colors = {"estimates as draws": style.BAD}
plotting.curves(list(hutchinson_K), fake, log="x", markers=True, title="flow, u fixed", colors=colors, ax=axes[1])
axes[1].axhline(0, color=style.EXACT, linestyle="--", linewidth=1.2)
axes[1].text(32, 0.003, "exact", ha="right", va="bottom")
for ax, ticks in zip(axes, (KS, tuple(hutchinson_K)), strict=True):
    ax.set_xticks(ticks, [str(K) for K in ticks])
    ax.minorticks_off()
    ax.set_xlabel("K")
axes[0].set_ylabel("change in bits/dim")
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# Left: a real gain of 0.04 that levels off. Right: a gain made of noise alone; a noisier estimator would "gain" more.
# Average the *logarithms* (more probes for each draw), never the exponentials of noisy estimates.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### 3.11 is not 2.99
#
# The most cited table of flow matching (Lipman et al. 2023, Table 1) has 2.99 bits/dim for CIFAR-10. That is $K = 50$
# with one probe each. With $K = 1$ their Table 4 has **3.11**. If you measure with one draw, compare with 3.11.
#
# Our records keep both values, and say what part of the difference is noise: they repeat the first draw with other
# probes.

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
print(f"share of the drop that is noise: {min(artefact.values()):.0%} to {max(artefact.values()):.0%}")
paper_drop = 0.12 * 3072 * math.log(2)
print(f"the paper's drop for CIFAR-10, 0.12 bits/dim in 3,072 dimensions, is one of {paper_drop:.0f} nats")

# %% [markdown] slideshow={"slide_type": "fragment"}
# For each of the five rows a good part of the drop from $K = 1$ to $K = 3$ is noise and no tighter bound. How large
# that part is in the paper's 0.12 cannot be said without its raw estimates.

# %% [markdown] slideshow={"slide_type": "notes"}
# "Of it noise" is an estimate (`fmcore.experiments.evaluate.bits_per_dim.bias_of_noise`): the log-densities of the
# draws are taken as normal, with the scatter between probes as their noise.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Network evaluations
#
# Samples cost **NFE**, network evaluations per image. An adaptive solver is given a tolerance and chooses the NFE; with
# a fixed grid the NFE is given. We compare both with the same flow solved at a tolerance of $10^{-6}$ from the same
# noise samples. The measures are the root mean square difference of a pixel, and the share of pixels that get the same
# grey level.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "The tolerance goes from 1e-3 to 1e-5, a hundred times smaller. What happens to the NFE of dopri5?",
    ["about 100 times as many", "about 10 times as many", "about twice as many"],
    answer=2,
    because="A method of order 5 has an error that falls like the fifth power of the step: a hundredth of the error needs "
    "steps 2.5 times shorter. At high order accuracy is cheap.",
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

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
colors = {"euler": ORANGE, "midpoint": style.PATH, "rk4": style.DATA}
lines = {method: [error for error, _ in found] for method, found in fixed.items()}
figure = plotting.error_against(NFES, lines, xlabel="NFE", ylabel="error of a pixel", colors=colors)
ax = figure.axes[0]
for tolerance, (nfe, error, _) in adaptive.items():
    ax.plot(nfe, error, "*", color=style.EXACT, markersize=9)
    side = "top" if tolerance == 1e-1 else "bottom" if tolerance == 1e-2 else "center"
    ax.text(nfe * 1.08, error, f"{tolerance:.0e}", fontsize=10, va=side)
ax.plot([], [], "*", color=style.EXACT, label="dopri5 at that tolerance")
ax.axhline(1 / levels, color=GREY, linewidth=1.2, zorder=0)
ax.text(100, 1 / levels * 1.1, "half a grey level", fontsize=10, color="#57606A", ha="right")
ax.set_xlim(3.6, 105)
ax.legend(fontsize=9)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# An error below half a grey level is hardly an error, since samples are rounded anyway. The midpoint method gets there
# with 8 evaluations. The paper's tolerance of $10^{-5}$ makes methods comparable; the eye does not need it.

# %% [markdown] slideshow={"slide_type": "notes"}
# The adaptive solver chooses its steps for the whole batch, so its NFE comes in jumps: here two pairs of neighbouring
# tolerances need the same NFE. At a tolerance of 0.1 the solution even lies nearer than at 0.01: a tolerance bounds the
# error of a step, not that of the end.


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
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

# %% [markdown] slideshow={"slide_type": "fragment"}
# Try: at which NFE do *you* stop seeing a difference, for each method? Then look at the percentage. The lowest row is
# white where both have the same grey level.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Five ways to train one network
#
# Table 1 of Lipman et al. 2023 has five rows. The network, the data and the number of steps are the same; what differs
# is the path, what the output means, and the weight. With $x_t = \alpha_t x_1 + \sigma_t x_0$, the noise rate $\beta$
# of the VP path at time $t$, and a prime for the derivative in $t$:
#
# | Row | Path | The network predicts | Loss | Its velocity |
# |---|---|---|---|---|
# | DDPM | VP | noise $e$ | $\lVert e - x_0 \rVert^2$ | $\frac{\alpha'}{\alpha}\,(x - \sigma e) + \sigma' e$ |
# | Score Matching | VP | score $s$ | $\sigma^2\, \lVert s + x_0 / \sigma \rVert^2$ | $\frac{\alpha'}{\alpha}\,(x + \sigma^2 s) - \sigma \sigma' s$ |
# | ScoreFlow | VP | score $s$ | $\beta\, \lVert s + x_0 / \sigma \rVert^2$ | as Score Matching |
# | FM w/ Diffusion | VP | velocity $v$ | $\lVert v - (\alpha' x_1 + \sigma' x_0) \rVert^2$ | $v$ |
# | FM w/ OT | OT path | velocity $v$ | $\lVert v - (x_1 - x_0) \rVert^2$ | $v$ |
#
# DDPM is by Ho et al. (2020), score matching by Song et al. (2021a), ScoreFlow by Song et al. (2021b). With
# $e = -\sigma s$ all losses on the VP path are one error, $\lVert e - x_0 \rVert^2$, times a weight (chapter 04): 1 for
# DDPM and Score Matching, $\beta / \sigma^2$ for ScoreFlow, $\beta^2 / (4 \sigma^2)$ for flow matching.

# %% [markdown] slideshow={"slide_type": "notes"}
# Two remarks on the paper. DDPM and Score Matching have the *same* loss as functions of the noise error; they differ in
# what the network returns, $e$ or $e$ divided by $-\sigma$, which is unbounded near the data. And the paper's $s_t$ is
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

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The weights compared
#
# Two paths reach the same signal-to-noise ratio $\alpha_t / \sigma_t$ at different times, so weights per unit of $t$
# cannot be compared between paths. A change of the time variable makes it possible: write each loss as an integral over
# the *logarithm of that ratio*, and compare the weights there.

# %% slideshow={"slide_type": "fragment"}
inner = torch.linspace(0.002, 0.998, 300, dtype=torch.float64)
rate, sigma, alpha = vp.diffusion(inner) ** 2, vp.sigma(inner), vp.alpha(inner)
by_t = {
    "DDPM, Score Matching": torch.ones(300).double(),
    "ScoreFlow": rate / sigma**2,
    "FM w/ Diffusion": rate**2 / (4 * sigma**2),
}
ratio = alpha / sigma
by_ratio = {name: w * 2 * sigma**2 / rate for name, w in by_t.items()}  # dt = 2 sigma^2 / rate d log(alpha / sigma)
by_ratio["FM w/ OT"] = 1 / ratio  # chapter 04
at_ratio = {r: int((ratio - r).abs().argmin()) for r in (0.1, 1.0, 10.0)}
by_ratio = {name: weight / weight[at_ratio[1.0]] for name, weight in by_ratio.items()}
print("weight at signal to noise      0.1      1     10   (1 where both are equal)")
for name, weight in by_ratio.items():
    print(f"{name:24}" + "".join(f"{weight[k]:10.2f}" if r < 1 else f"{weight[k]:7.2f}" for r, k in at_ratio.items()))

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
LOOK = {"DDPM": ORANGE, "Score Matching": style.PATH, "ScoreFlow": "#4E6E1F"}
LOOK |= {"FM w/ Diffusion": style.MODEL, "FM w/ OT": style.DATA, "DDPM, Score Matching": ORANGE}
DASHES = {"DDPM, Score Matching": "--", "ScoreFlow": "-.", "FM w/ Diffusion": ":", "FM w/ OT": "-"}
figure, axes = plotting.canvas(1, 2, height=3.6)
for name, weight in by_t.items():
    axes[0].plot(inner, weight, DASHES[name], color=LOOK[name], label=name)
for name, weight in by_ratio.items():
    axes[1].plot(ratio, weight, DASHES[name], color=LOOK[name], label=name)
axes[0].set(yscale="log", xlabel="t", title="weight by time, VP path")
axes[1].set(xscale="log", yscale="log", xlabel=r"signal to noise $\alpha_t / \sigma_t$", xlim=(0.01, 60))
axes[1].set(ylim=(1e-2, 1e2), title="weight by signal to noise")
for ax in axes:
    ax.legend(fontsize=9)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# ScoreFlow, made for the likelihood, weighs all ratios alike; all others give little weight to the last traces of noise
# (right end). Flow matching on the OT path gives most to the noisy end (left).

# %% [markdown] slideshow={"slide_type": "slide"}
# ### The measured rows
#
# Each row was trained and measured by one command. The **digits** rows are the experiment that you have just run, for
# five methods and three seeds, with evaluation at the paper's tolerances. The **CIFAR-10, small** rows are photographs and a small network,
# trained on one CPU core for less than one pass over the data.
#
#     fmcore train lipman2023/digits/fm_ot            # about a minute
#     fmcore train lipman2023/cifar10_small/fm_ot     # half an hour, and CIFAR-10 in data_dir=...
#     fmcore table lipman2023                         # the paper's numbers beside ours
#
# **Numbers of different blocks do not compare.** Another data set, another network, another feature space. What can be
# compared is the *order of the rows* within a block.

# %% slideshow={"slide_type": "fragment"}
sizes = {"digits": ((1, 8, 8), 1500), "cifar10_small": ((3, 32, 32), 50_000), "cifar10": ((3, 32, 32), 50_000)}
for size, (image, count) in sizes.items():
    entry = catalog.by_name(f"lipman2023/{size}/fm_ot")
    with torch.device("meta"):
        weights = sum(p.numel() for p in build_network(entry, image).parameters())
    steps, batch = entry.training.steps, entry.training.batch
    said = f"{steps:7,} steps of {batch:3} images, {steps * batch / count:8,.2f} passes over the data"
    print(f"{size:14} {weights:11,} parameters, {said}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "At the paper's size FM w/ OT is first in bits/dim, in FID and in NFE. At our small sizes, in how many of the "
    "three is it first on the digits?",
    ["in none: small networks are another world", "in bits/dim only", "in all three"],
    answer=2,
    because="On the digits it is first in all three, on average over three trainings; in NFE not with every one of them. "
    "The order of the other four rows is another matter.",
)

# %% slideshow={"slide_type": "subslide"}
BLOCKS = {"paper": "paper: CIFAR-10", "cifar10_small": "ours: CIFAR-10, small", "digits": "ours: digits"}
MEASURES = {"bits": "bits/dim, K = 1", "distance": "Fréchet distance", "nfe": "NFE"}
NAMES = dict(zip(MEASURES, table_1.COMPARED, strict=True))  # of our numbers; those of the paper beside them
table, spread, seeds = ({block: {measure: {} for measure in MEASURES} for block in BLOCKS} for _ in range(3))
for entry in table_1.lipman2023():
    method = table_1.METHODS[entry.method]
    block = "paper" if entry.size == "cifar10" else entry.size
    for measure, name in NAMES.items():
        if block == "paper":
            table[block][measure][method] = entry.paper[table_1.COMPARED[name][0]]
        elif block in BLOCKS and entry.by_seed:
            table[block][measure][method] = entry.ours[name]
            spread[block][measure][method] = entry.spread(name)
            seeds[block][measure][method] = {seed: ours[name] for seed, ours in entry.by_seed.items()}

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
for block, title in BLOCKS.items():
    of_one = next(iter(seeds[block]["bits"].values()), {})
    said = f" ({len(of_one)} seed{'s' * (len(of_one) > 1)})" if of_one else ""
    print(f"{title + said:30}{'bits/dim':^16}{'FID-50k' if block == 'paper' else 'distance':^16}{'NFE':^12}")
    for method in table[block]["bits"]:
        cells = ""
        for measure, (places, width) in {"bits": (2, 16), "distance": (2, 16), "nfe": (0, 12)}.items():
            half = spread[block][measure].get(method)
            text = f"{table[block][measure][method]:.{places}f}" + (f" ± {half:.{places}f}" if half else "")
            cells += f"{text:^{width}}"
        print(f"  {method:28}{cells}".rstrip())

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(len(BLOCKS), 3, height=6.6)
for line, (block, title) in zip(axes, BLOCKS.items(), strict=True):
    for ax, (measure, what) in zip(line, MEASURES.items(), strict=True):
        halves = {method: half for method, half in spread[block][measure].items() if half}
        places = 0 if measure == "nfe" else 2
        plotting.bars(table[block][measure], spread=halves, digits=places, colors=LOOK, ax=ax)
        ax.margins(x=0.34 if halves else 0.16)
        ax.set_title("FID-50k" if block == "paper" and measure == "distance" else what, fontsize=11)
        if ax is not line[0]:
            ax.set_yticklabels([])
    line[0].set_ylabel(title)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# ± is the standard deviation over seeds of the training, where there are several. FM w/ OT leads each block in bits/dim
# and in distance.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What agrees, and what does not
#
# Five methods make ten pairs. For each measure, how many pairs stand in the order of the paper's CIFAR-10 column? A
# number of this kind needs a baseline: a random order of five rows agrees in five pairs, give or take two. So we ask
# how often a random order would agree in as many pairs, or more (Kendall 1938).

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
agreement = {}
for block in ("cifar10_small", "digits"):
    for measure, what in MEASURES.items():
        theirs, rows = table["paper"][measure], table[block][measure]
        agreement[block, measure] = found = order.agreement(theirs, rows)
        ranked = " < ".join(sorted(rows, key=rows.get))
        print(f"{block:13} {what:16} {found.agreed:g} of {found.pairs}, by chance {found.by_chance:.2f}: {ranked}")


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
def leads(block, measure):
    """Whether FM w/ OT has the lowest number of a block on average, and whether with every seed."""
    others = {method: value for method, value in table[block][measure].items() if method != "FM w/ OT"}
    of_others = [value for method in others for value in seeds[block][measure][method].values()]
    worst = max(seeds[block][measure]["FM w/ OT"].values())
    return table[block][measure]["FM w/ OT"] < min(others.values()), worst < min(of_others)


first = {block: [leads(block, measure) for measure in MEASURES] for block in ("cifar10_small", "digits")}
led = {block: sum(on_average for on_average, _ in found) for block, found in first.items()}
for block, found in first.items():
    on_average, always = ([w for w, f in zip(MEASURES.values(), found, strict=True) if f[k]] for k in (0, 1))
    said = f"; with each of the seeds in {', '.join(always)}" if block == "digits" else ""
    print(f"{block}: FM w/ OT is first in {', '.join(on_average)}{said}")

scatter = max(spread["digits"]["bits"].values())
gap_of_two = abs(table["digits"]["bits"]["DDPM"] - table["digits"]["bits"]["FM w/ Diffusion"])
print(
    f"digits, bits/dim: largest deviation over seeds {scatter:.3f}; DDPM and FM w/ Diffusion differ by {gap_of_two:.4f}"
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# **Agrees.** FM w/ OT has the fewest bits/dim and the smallest distance in both of our blocks, on the digits with each of
# the three seeds; there it also has the fewest evaluations, on average but not with every seed. On the digits nine of ten pairs of distances stand as in the paper, which a random order does in one
# case of twenty-five.
#
# **Is not evidence.** Eight of ten pairs of bits/dim on small CIFAR-10 look like agreement, and a random order does as well
# in one case of eight. Six of ten on the digits is what chance gives.

# %% [markdown] slideshow={"slide_type": "subslide"}
# **Does not agree.**
#
# - *ScoreFlow* is second in the paper's bits/dim, fourth on small CIFAR-10, and last on the digits. What 391,000 steps
#   make of its weighting is not what a few hundred make of it.
# - *NFE.* On small CIFAR-10, Score Matching needs fewer evaluations than FM w/ OT. It also has the most bits/dim and
#   four times the distance: a network that has learned little has a simple flow. NFE is a virtue at equal quality only.
# - *DDPM and Score Matching* have one loss, but DDPM needs more than twice the evaluations on both data sets. On its
#   way to a velocity the predicted noise is divided by $\sigma_t$, which goes to zero, and the solver has to follow the
#   error that this amplifies; a predicted score is not divided.
# - *DDPM* is second in the paper's FID, and has the largest distance of our five on small CIFAR-10, with fewer bits/dim
#   than either score method. Likelihood and looks are two things; and this network is far from done: in the curves
#   below its distance still falls fast at the last step.
#
# On the digits the table gives each number with its scatter over three trainings. On small CIFAR-10 there is one
# training a row, so that nothing can be said of small differences.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
every = {
    size: {m: recorded.get(f"lipman2023/{size}/{m}") for m in table_1.METHODS} for size in ("digits", "cifar10_small")
}
figure, axes = plotting.canvas(2, 2, height=6.0, sharex="col")
for column, (size, found) in zip(axes.T, every.items(), strict=True):
    for marker, (method, record) in zip(style.MARKERS, found.items(), strict=False):
        if record is None:
            continue
        name, steps = table_1.METHODS[method], [point["step"] for point in record["curve"]]
        look = {"marker": marker, "color": LOOK[name], "label": name, "markersize": 5}
        for ax, key in zip(column, ("classifier_frechet_distance", "nfe"), strict=True):
            ax.plot(steps, [point[key] for point in record["curve"]], **look)
    column[0].set(title=table_1.TITLES[size], ylabel="Fréchet distance, 100 images")
    column[1].set(xlabel="training step", ylim=(0, None), ylabel="NFE")
axes[0, 0].set_ylim(0, None)
axes[0, 1].set(yscale="log", ylim=(4, 90))
axes[0, 1].set_yticks([5, 10, 20, 50], ["5", "10", "20", "50"])
axes[0, 1].minorticks_off()
axes[0, 0].legend(fontsize=9)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# The paper's figure 5 shows for ImageNet-64 that the OT path is ahead early in training. Here it has the smallest
# distance at every measured step of both data sets.


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
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
print(f"passes over the 50,000 training images: here {seen / 50_000:.1f}, in the paper {seen_paper / 50_000:,.0f}")
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

# %% [markdown] slideshow={"slide_type": "fragment"}
# Natural colours and layouts, without objects: a network of this size, trained this long, has learned what small
# neighbourhoods look like.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### From noise to image
#
# On the OT path, $x_t = (1-t)\, x_0 + t\, x_1$ and $v = \mathbb{E}[x_1 - x_0 \mid x_t]$. So at any time the network
# also predicts the final image, $\mathbb{E}[x_1 \mid x_t] = x_t + (1 - t)\, v(x_t, t)$: one Euler step from $t$ to 1.

# %% slideshow={"slide_type": "fragment"}
picks = [1, 5, 9]
strip, guesses = sheet.trajectory[:, picks], []
with torch.no_grad():
    for x, time in zip(strip, times.float(), strict=True):
        guesses.append(photos.path.velocity_to_data(photos.velocity(x, time), x, time))
guesses = torch.stack(guesses)  # (times, images, 3, 32, 32)
to_end = (guesses - strip[-1]).square().mean(dim=(1, 2, 3, 4)).sqrt()
apart = (guesses - guesses.mean(dim=1, keepdim=True)).square().mean(dim=(1, 2, 3, 4)).sqrt()
print("prediction to final image, rms of a pixel: " + "  ".join(f"{float(value):.2f}" for value in to_end))
print("spread among the three predictions:        " + "  ".join(f"{float(value):.2f}" for value in apart))

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
films = torch.cat([torch.stack([strip[:, i], guesses[:, i]]) for i in range(3)]).flatten(0, 1)
titles = [f"t = {float(time):.2f}" for time in times]
plotting.images(films.clamp(-1, 1), titles=titles, rows=["$x_t$", "prediction of $x_1$"] * 3)

# %% [markdown] slideshow={"slide_type": "fragment"}
# At $t = 0$ the three predictions are nearly alike, the mean of all images; colour and layout come first, texture last.
# In $x_t$ the noise fades evenly, as the paper's figure 6 shows for the OT path.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Fréchet distance, and how it can mislead
#
# Likelihood needs a density, and says little about looks. The usual measure of samples compares two *sets* of images
# (Heusel et al. 2017). Map each image to a vector of features, describe each set by the mean $m$ and the covariance $S$
# of its features, and take the distance of chapter 05 between the two Gaussians:
#
# $$
# \mathrm{FD} = \|m_1 - m_2\|^2 + \operatorname{tr} \Big( S_1 + S_2
# {} - 2 \big( S_1^{1/2}\, S_2\, S_1^{1/2} \big)^{1/2} \Big) .
# $$
#
# It is called **FID** if the features are those of one particular Inception network, and "FID-50k" with 50,000 samples.
# Our features come from a classifier of digits that this package trains in seconds. We say *classifier Fréchet
# distance* and never FID: a number from other features is on another scale.

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

# %% [markdown] slideshow={"slide_type": "fragment"}
# The second number is what a perfect model would get, and it is not zero. Without it the first number means nothing.
# Why is it not zero?

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

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
lines = {name: list(found.values()) for name, found in by_n.items()}
colors = {"real, held out": style.DATA, "generated": style.MODEL}
title = "The same images in smaller sets"
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

# %% [markdown] slideshow={"slide_type": "fragment"}
# Fifty *real* digits are farther from the data than 297 generated ones. So compare equal numbers only (FID-10k is not
# FID-50k), and report the distance of equally many held-out images.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Three more ways
#
# - **Flips.** Training often mirrors images at random. Is the *reference* mirrored, too?
# - **Split.** Distance to the training images, or to held-out ones?
# - **Feature space.** A Gaussian fitted to the training *pixels* has their mean and covariance by construction.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Samples of a Gaussian fitted to the pixels look like smeared ink. By the Fréchet distance of the pixels themselves, how "
    "do they compare with real held-out digits?",
    ["far worse", "about equal to real digits, or better", "worse than the flow, better than noise"],
    answer=1,
    because="The distance sees means and covariances only, and in pixel space those are exactly what was fitted. The "
    "features of a classifier tell a smear from a digit. Where a measure is blind, a model can cheat.",
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
    in_pixels = frechet_distance(pixels(images), pixels(digits.train))
    FD_sets[name] = frechet_distance(own, real), frechet_distance(own, flipped), in_pixels
    a, b, c = FD_sets[name]
    print(f"{name:20}  {a:10.2f}   {b:17.2f}   {to_held:11.2f}   {c:6.2f}".replace("nan", "  -"))

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 3, height=3.3)
for ax, (name, images) in zip(axes, sets.items(), strict=True):
    shown = to_uint8(images, levels) if images.is_floating_point() else images
    title = f"{name}\nclassifier {FD_sets[name][0]:.2f}, pixels {FD_sets[name][2]:.2f}"
    plotting.images(shown[:36], columns=6, low=0, high=16, ax=ax)
    ax.set_title(title, fontsize=11)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# In pixel space the smeared Gaussian beats the real digits and the flow is last; in the features of the classifier the
# Gaussian is last.

# %% [markdown] slideshow={"slide_type": "subslide"}
# - **Flips.** With a flipped reference the generated digits come out *better than the real ones*: half of the reference
#   is mirrored, and mirrored digits are not digits.
# - **Split.** To held-out images the distance is a little larger. There are fewer of them, which is the bias from
#   before, now on the side of the reference. For FID the larger training split is the usual reference.
# - **Feature space.** The order of the models depends on it.
#
# None of these is a mistake, and none is visible in the number. A Fréchet distance should be reported with its
# features, the number of samples, the reference split, flips, and the value of real images. The records of `fmcore`
# hold all of them.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you saw

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
fall_hutchinson = hutchinson_K[1] - hutchinson_K[32]
fall_gaussian = gaussian_K[1] - gaussian_K[50]
nfe_ratio = adaptive[1e-5][0] / adaptive[1e-3][0]
slopes = {method: plotting.slope(NFES[1:], [error for error, _ in found[1:]]) for method, found in fixed.items()}
half_level = fixed["midpoint"][1][0] * levels
bits_digits = sorted(table["digits"]["bits"].values())
guess_ratio = float(to_end[0] / to_end[3])
cifar_gain = cifar_bits["flow"] / cifar_bits["Gaussian, full covariance"]
FD_gain = by_n["real, held out"][50] / by_n["real, held out"][297]
tail = {name: float(weight[at_ratio[10.0]]) for name, weight in by_ratio.items()}
noisy_end = {name: float(weight[at_ratio[0.1]]) for name, weight in by_ratio.items()}
others = [weight for name, weight in noisy_end.items() if name != "FM w/ OT"]
a, b, c = FD_sets["real, held out"], FD_sets["flow"], FD_sets["Gaussian of pixels"]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
most = [
    Claim("pixels that dequantization moves to another level", wrong_bins, exactly(0), digits=0),
    Claim("parameters of the U-Net for CIFAR-10, minus 35,746,307", parameters["CIFAR-10"] - 35_746_307, exactly(0), 0),
    Claim("block by hand and block of fmcore: largest difference", gap_block, below(1e-5)),
    Claim("time at which the error of the network is largest", t_error, between(0.7, 0.95)),
    Claim(
        "share of the loss that is error, where the loss is largest",
        error_at[loss_at.argmax()] / max(loss_at),
        below(0.2),
    ),
    Claim("bits/dim by hand and fmcore: largest difference", gap_bits, below(1e-4)),
    Claim("flow, u fixed, 1 to 32 noisy estimates as draws: bits/dim fall by", fall_hutchinson, above(0.1)),
    Claim("midpoint, NFE 8: error of a pixel in half grey levels", half_level, below(1)),
    Claim("FD of 50 real digits over that of 297 generated ones", by_n["real, held out"][50] / FD_flow, above(1)),
    Claim("digits: measures (of 3) in which FM w/ OT is first", led["digits"], exactly(3), digits=0),
]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
more = [
    Claim("one pixel, sharp peaks, no noise: bits", min(without), below(0), digits=2),
    Claim("the same with noise: lowest bits minus entropy", min(with_noise) - entropy, between(0, 0.3), digits=2),
    Claim("share of the parameters at full resolution", at_resolution["CIFAR-10", 32], about(0.09, 0.01), digits=2),
    Claim("parameters of the U-Net for digits", parameters["digits"], exactly(176849), digits=0),
    Claim("whole U-Net by hand and fmcore: largest difference", gap_unet, below(1e-4)),
    Claim("attention: weight out of reach of a 3x3 convolution", out_of_reach, above(0.4)),
    Claim("attention: pixels (of 16) that share the weight", used, below(10)),
    Claim("loss by hand and fmcore: difference", gap_loss, below(1e-5)),
    Claim("first loss over 1 + mean square of the data", run.losses[0] / expected_first, between(0.9, 1.1)),
    Claim("mean loss of the last 100 steps, live over record", final_loss / known_loss, between(0.97, 1.03)),
    Claim("time at which the loss is largest", t_loss, above(0.97)),
    Claim("loss minus irreducible loss minus error: largest", split_gap, below(0.02)),
    Claim("error at t = 0.2", error_at[3], below(0.03)),
    Claim("mean loss, held-out over training images", sum(held_loss) / float(loss_at.sum()), about(1, 0.05)),
    Claim("corners: grey level of generated over real digits", corners["gen"] / corners["real"], above(1)),
    Claim("bits/dim: uniform", bars["uniform"], about(math.log2(17), 1e-3), digits=2),
    Claim("bits/dim: Gaussian", bars["Gaussian, full covariance"], about(2.91, 0.03), digits=1),
    Claim("bits/dim: histograms", bars["histogram of each pixel"], about(2.44, 0.02), digits=2),
    Claim("bits/dim: the live flow", ours.value, between(1.95, 2.3)),
]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
more += [
    Claim("Gaussian, 1 to 50 draws: bits/dim fall by", fall_gaussian, about(0.04, 0.006), digits=2),
    Claim("exact minus mean of all estimates, bits/dim", abs(truth - averaged), below(0.05)),
    Claim("scatter of one Hutchinson estimate, nats", probe_noise, between(3, 9)),
    Claim("records: least share of the fall to K = 3 that is noise", min(artefact.values()), above(0.3), digits=2),
    Claim("NFE of dopri5, tolerance 1e-5 over 1e-3", nfe_ratio, between(1.3, 3.5)),
    Claim("Euler, from NFE 8 on: power of NFE", slopes["euler"], between(-1.2, -0.8)),
    Claim("midpoint, from NFE 8 on: power of NFE", slopes["midpoint"], between(-2.3, -1.5)),
    Claim("losses on the VP path as weighted noise errors: relative difference", weight_gap, below(1e-3)),
    Claim(
        "weight at signal to noise 10, ScoreFlow over the largest other",
        tail.pop("ScoreFlow") / max(tail.values()),
        above(3),
    ),
    Claim(
        "weight at signal to noise 0.1, FM w/ OT over the largest other", noisy_end["FM w/ OT"] / max(others), above(2)
    ),
    Claim("CIFAR-10, small: measures (of 3) in which FM w/ OT is first", led["cifar10_small"], exactly(2), digits=0),
    Claim("digits: bits/dim, best over second best row", bits_digits[0] / bits_digits[1], below(0.96)),
    Claim("digits: share of the curve at which FM w/ OT is lowest", always_lowest("digits"), exactly(1), digits=0),
    Claim("CIFAR-10, small: the same", always_lowest("cifar10_small"), exactly(1), digits=0),
]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
more += [
    Claim("CIFAR-10 network: bits/dim over those of a Gaussian", cifar_gain, below(0.9), digits=2),
    Claim("CIFAR-10: error of the prediction of x1 at t = 0 over that at t = 0.5", guess_ratio, above(4)),
    Claim("CIFAR-10: spread of predictions at t = 0 over that at t = 1", apart[0] / apart[-1], below(0.3)),
    Claim("FD of real digits, n = 50 over n = 297", FD_gain, above(3)),
    Claim("FD of generated over FD of real digits, n = 297", FD_flow / FD_real, above(1.5)),
    Claim("the same, reference flipped", b[1] / a[1], below(1)),
    Claim("pixel FD, Gaussian over real digits", c[2] / a[2], below(1)),
    Claim("pixel FD, flow over real digits", b[2] / a[2], above(1)),
    Claim("classifier FD, Gaussian over flow", c[0] / b[0], above(1.2)),
]

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
claims.table(most + more)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## To remember
#
# - A pixel is a bin. With dequantization noise the density of a flow bounds the probability of whole numbers; without
#   it bits/dim have no lower bound.
# - The loss is irreducible loss plus error, and it peaks where the error is small. It ranks runs of one method only.
# - bits/dim = nats$/(d \ln 2) + \log_2 (L / 2)$, reported beside simple models, $K$ and the number of probes.
# - Noise inside the logarithm of a mean looks like a better model.
# - NFE ranks flows of equal quality. The Fréchet distance ranks sets of equal size in one feature space.
# - At equal budget FM w/ OT is ahead here as in the paper; the order of the others changes with the size.

# %% [markdown] slideshow={"slide_type": "skip"}
# ## References
#
# - Y. Burda, R. Grosse, R. Salakhutdinov, 2016. *Importance weighted autoencoders.* ICLR, arXiv:1509.00519.
# - P. Dhariwal, A. Nichol, 2021. *Diffusion models beat GANs on image synthesis.* NeurIPS, arXiv:2105.05233.
# - M. Heusel, H. Ramsauer, T. Unterthiner, B. Nessler, S. Hochreiter, 2017. *GANs trained by a two time-scale update
#   rule converge to a local Nash equilibrium.* NeurIPS, arXiv:1706.08500.
# - J. Ho, A. Jain, P. Abbeel, 2020. *Denoising diffusion probabilistic models.* NeurIPS, arXiv:2006.11239.
# - Y. Lipman, R. T. Q. Chen, H. Ben-Hamu, M. Nickel, M. Le, 2023. *Flow matching for generative modeling.* ICLR,
#   arXiv:2210.02747.
# - O. Ronneberger, P. Fischer, T. Brox, 2015. *U-Net: convolutional networks for biomedical image segmentation.*
#   MICCAI, arXiv:1505.04597.
# - Y. Song, J. Sohl-Dickstein, D. P. Kingma, A. Kumar, S. Ermon, B. Poole, 2021a. *Score-based generative modeling
#   through stochastic differential equations.* ICLR, arXiv:2011.13456.
# - Y. Song, C. Durkan, I. Murray, S. Ermon, 2021b. *Maximum likelihood training of score-based diffusion models.*
#   NeurIPS, arXiv:2101.09258.
# - L. Theis, A. van den Oord, M. Bethge, 2016. *A note on the evaluation of generative models.* ICLR, arXiv:1511.01844.
# - A. Vaswani, N. Shazeer, N. Parmar, J. Uszkoreit, L. Jones, A. N. Gomez, Ł. Kaiser, I. Polosukhin, 2017. *Attention
#   is all you need.* NeurIPS, arXiv:1706.03762.
#
# **Where to read on.** Theis et al. 2016 on why likelihood, samples and looks can disagree; Dhariwal and Nichol 2021
# for the choices behind the U-Net. The appendices of Lipman et al. 2023 hold the details of the full-size experiments.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# In [exercises/06_images.ipynb](exercises/06_images.ipynb); each has a check that says what is wrong.
#
# 1. **A dequantizer with gaps.** Two short functions that lose nothing, and are wrong all the same. Find and mend
#    four faults.
# 2. **Bits per dimension of standardized images.** Derive the constant when each pixel has its own scale.
# 3. **More draws never loosen the bound.** A proof in four steps, each checked numerically, down to densities of
#    $e^{-5000}$.
# 4. **The loss of the exact velocity at both ends.** Derive what dequantization adds at $t = 0$ and at $t = 1$.
# 5. **A noise predictor that was borrowed.** A DDPM network is sampled as a flow, with two faults.
# 6. **Is the bias of a Fréchet distance the same for every model?** Measure whether the distance of real images can
#    be subtracted.
#
# <!-- next: written by fmcore.course.build -->
#
# Next: [07 Closed form](07_closed_form.ipynb). What does the exact velocity do in many dimensions?
#
# <!-- end of next -->
