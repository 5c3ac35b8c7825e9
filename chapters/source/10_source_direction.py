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
# # 10 Source direction
#
# A flow may start from any distribution. Noise points in all directions alike, images only in a few. Why not start
# where the images are? Lee, Kim and Lee (2025) tried this and report three findings: a source that points towards the
# data gives each part of the data its right share; a source that points there *too sharply* entangles the training
# paths; and training from *all* directions makes a network robust. This chapter builds such sources, measures the three
# findings, and says where our numbers agree and where they do not.

# %% slideshow={"slide_type": "skip"}
import math

import torch
from torch.nn.functional import normalize

from fmcore import closed_form, data, paths, solvers
from fmcore.course import card, claims, plotting, predict, style, widgets
from fmcore.course.claims import Claim, about, above, below, between
from fmcore.ensemble import Arcs, Ensemble, pair, three_directions
from fmcore.ensemble.plane import ANGLES, SHARES
from fmcore.metrics import (
    covered_share,
    distances_to_data,
    frechet_distance,
    mode_divergence,
    normalized_wasserstein,
)
from fmcore.papers import reference
from fmcore.sources import ChiSphere, Gaussian, VonMisesFisher, spherical_k_means, uniform_directions

style.use()
torch.set_num_threads(1)  # many small products gain nothing from a second core

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
card.show(
    "10_source_direction",
    goals=[
        "draw directions from a von Mises-Fisher distribution, and say what its concentration means in d dimensions",
        "tell by one number when a sampler draws from something else",
        "measure how much the paths of a source and a coupling disagree, in two ways that do not say the same",
        "say what a concentrated source gains and what it gives up, with spreads over several networks",
        "read the paper's results on sources of this kind with the right doubts",
    ],
    before=["chapter 05: couplings", "chapter 07: the exact velocity", "chapter 09: lengths in many dimensions"],
    exercises=[
        "1. Directions from cosines",
        "2. A sampler that is right for some dimensions only",
        "3. The concentration in closed form",
        "4. The mean cosine grows with the concentration",
        "5. How much do the targets disagree?",
        "6. What is it worth to know the mean direction?",
    ],
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Length and direction
#
# A sample $x_0$ of Gaussian noise in $d$ dimensions has a length and a direction, independent of each other (chapter
# 09):
#
# $$
# x_0 = r\, u, \qquad r \sim \chi(d), \quad u \text{ uniform on the unit sphere}.
# $$
#
# Chapter 09 showed that the length is close to $\sqrt d$. What is left to choose is the direction. The **von
# Mises-Fisher distribution** is to the sphere what the round Gaussian is to the plane: around a **mean direction**
# $\mu$ with $\|\mu\| = 1$,
#
# $$
# p(u) \;\propto\; \exp\big( \kappa\, \langle \mu, u \rangle \big), \qquad \|u\| = 1 .
# $$
#
# The **concentration** $\kappa \ge 0$ says how tightly the directions gather around $\mu$: 0 gives the uniform
# distribution, $\infty$ gives $\mu$ itself. The length stays $\chi(d)$, so such a source differs from noise in its
# direction alone.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Drawing a direction
#
# The density depends only on the angle $a$ between $u$ and $\mu$. All directions with the same angle form a sphere of
# radius $\sin a$ in $d - 1$ dimensions, whose surface is proportional to $\sin^{d-2} a$. So
#
# $$
# p(a) \;\propto\; e^{\kappa \cos a}\, \sin^{d-2} a ,
# \qquad
# u = \mu \cos a + v \sin a ,
# $$
#
# with $v$ uniform among the unit vectors orthogonal to $\mu$. To draw $a$, tabulate its density, add up, and invert the
# distribution function.


# %% slideshow={"slide_type": "fragment"}
def angles_by_hand(n, dim, kappa, generator):
    """Angles between u and mu, (n,) float64."""
    a = torch.linspace(0, math.pi, 200_001, dtype=torch.float64)[1:-1]
    logarithm = kappa * a.cos() + (dim - 2) * a.sin().log()
    cumulative = (logarithm - logarithm.max()).exp().cumsum(0)
    return a[torch.searchsorted(cumulative, cumulative[-1] * torch.rand(n, generator=generator, dtype=torch.float64))]


def by_hand(n, mu, kappa, generator):
    """Directions (n, d) around the unit vector mu (d,)."""
    a = angles_by_hand(n, len(mu), kappa, generator)[:, None].float()
    noise = torch.randn(n, len(mu), generator=generator)
    v = normalize(noise - (noise @ mu)[:, None] * mu, dim=1)
    return mu * a.cos() + v * a.sin()


# %% [markdown] slideshow={"slide_type": "slide"}
# ### The mean cosine
#
# The mean of $\cos a$ is known. It is a ratio of two Bessel functions (Mardia and Jupp 2000), $A_d(\kappa) =
# I_{d/2}(\kappa) / I_{d/2-1}(\kappa)$. Both overflow in thousands of dimensions, but their ratio has a continued
# fraction that does not:
#
# $$
# A_d(\kappa) = \cfrac{1}{\frac{d}{\kappa} + \cfrac{1}{\frac{d+2}{\kappa} + \cfrac{1}{\frac{d+4}{\kappa} + \dots}}} .
# $$


# %% slideshow={"slide_type": "fragment"}
def bessel_ratio(dim, kappa, terms=400):
    """A_d(kappa), the mean cosine, from the last term of the continued fraction to the first."""
    value = 0.0
    for j in reversed(range(terms)):
        value = 1 / ((dim + 2 * j) / kappa + value)
    return value


# %% [markdown] slideshow={"slide_type": "subslide"}
# We compare our sampler with this mean, and with the sampler of `fmcore`. Two samplers are compared by the
# Kolmogorov-Smirnov statistic, the largest difference of their two distribution functions; for 4,000 samples each it
# exceeds 0.044 by chance in one case of a thousand.

# %% slideshow={"slide_type": "fragment"}
apart, mean_cosine = {}, {}
print("    d   kappa   mean cosine: by hand    fmcore   A_d(kappa)")
for dim, kappa in ((2, 5.0), (64, 20.0), (3072, 50.0), (3072, 1500.0)):
    generator = torch.Generator().manual_seed(dim)
    mu = uniform_directions(1, dim, generator)[0]
    ours = (by_hand(4000, mu, kappa, generator) @ mu).sort().values
    theirs = (normalize(VonMisesFisher(mu[None], kappa).sample(4000, generator), dim=1) @ mu).sort().values
    apart[dim] = float((torch.searchsorted(theirs, ours, right=True) - torch.arange(1, 4001)).abs().max()) / 4000
    mean_cosine[dim, kappa] = float(ours.mean()), float(theirs.mean()), bessel_ratio(dim, kappa)
    print(f"{dim:5}   {kappa:5.0f} {'':18}" + "   ".join(f"{value:7.4f}" for value in mean_cosine[dim, kappa]))
print(f"largest Kolmogorov-Smirnov statistic, by hand against fmcore: {max(apart.values()):.3f}")
assert max(apart.values()) < 0.044, apart

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "In 3,072 dimensions you are given one direction u. It is either uniform, or von Mises-Fisher with kappa = 50 "
    "around a mu that you know. How often can you tell which, at best?",
    [
        "nearly always: kappa = 50 is concentrated",
        "in about two of three cases",
        "in half of the cases: there is no way to tell",
    ],
    answer=1,
    because="The mean cosine is 0.016, and a uniform direction has cosines of 0 give or take 0.018. The two overlap; "
    "the best rule, cosine above or below 0.008, is right in 67% of the cases. kappa has to be read together with d.",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ### What $\kappa$ means in $d$ dimensions
#
# A uniform direction has a cosine of $0 \pm 1/\sqrt d$ with any $\mu$. With $\kappa \ll d$ the continued fraction
# reduces to its first term, $A_d \approx \kappa / d$, and the spread hardly changes. In terms of the noise $x_0 = r u$
# with $r \approx \sqrt d$: along $\mu$ it is no longer $\mathcal{N}(0, 1)$ but about $\mathcal{N}(\kappa / \sqrt d,\,
# 1)$, and in the other $d - 1$ directions it is what it was. For $\kappa = 50$, $d = 3{,}072$ this is **ordinary noise,
# shifted by 0.9 in one direction of 3,072.**

# %% slideshow={"slide_type": "fragment"}
a = torch.linspace(0, math.pi, 200_001, dtype=torch.float64)[1:-1]


def angle_density(dim, kappa):
    """Probabilities of the grid's angles, summing to 1."""
    return torch.softmax(kappa * a.cos() + (dim - 2) * a.sin().log(), dim=0)


KAPPAS = (50, 100, 300, 900, 1500, 3000)
told, shift = {}, {}
print("kappa   mean cosine   its angle   shift of the noise   told from uniform, at best")
for kappa in KAPPAS:
    told[kappa] = 0.5 + 0.25 * float((angle_density(3072, kappa) - angle_density(3072, 0)).abs().sum())
    mean = bessel_ratio(3072, kappa)
    shift[kappa] = 55.42 * mean
    print(f"{kappa:5}{mean:14.3f}{math.degrees(math.acos(mean)):10.0f}°{shift[kappa]:21.2f}{told[kappa]:29.1%}")


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
def hump(ax, dim, kappa, color, dash, label, place, side="center"):
    """The density of the cosine, scaled to the height 1, with its label above."""
    p = (angle_density(dim, kappa) / a.sin())[::50]
    ax.fill_between(a[::50].cos(), p / p.max(), color=color, alpha=0.12, linewidth=0)
    ax.plot(a[::50].cos(), p / p.max(), color=color, linestyle=dash, linewidth=1.6)
    ax.text(place, 1.05, label, ha=side, fontsize=10)


figure, axes = plotting.canvas(1, 2, height=3.4)
hump(axes[0], 3072, 0, style.EXACT, ":", "0", -0.005, "right")
hump(axes[0], 3072, 50, style.DATA, "-", "50", 0.016, "left")
for kappa, dash in ((300, "--"), (1500, "-."), (3000, "-")):
    hump(axes[0], 3072, kappa, style.DATA, dash, f"{kappa:,}", bessel_ratio(3072, kappa))
hump(axes[1], 3, 50, style.MODEL, "--", "3", 0.99, "right")
hump(axes[1], 64, 50, style.PATH, "-.", "64", bessel_ratio(64, 50))
hump(axes[1], 3072, 50, style.DATA, "-", "3,072", bessel_ratio(3072, 50))
axes[0].set(title=r"d = 3,072, $\kappa$ = 0 to 3,000", xlim=(-0.2, 0.75))
axes[1].set(title=r"$\kappa$ = 50, d = 3, 64, 3,072", xlim=(-0.25, 1.02))
for ax in axes:
    ax.set(xlabel=r"cosine with $\mu$", yticks=[], ylim=(0, 1.2))
    ax.spines["left"].set_visible(False)
    ax.grid(False)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# **A concentration means nothing without the dimension.** Left: in 3,072 dimensions $\kappa = 50$ lies almost on top of
# the uniform distribution, and with $\kappa = 3{,}000$ the typical angle with $\mu$ is still 52°. Right: the same
# $\kappa$ is sharp in three dimensions. (Each curve is scaled to the same height.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A sampler that draws from something else
#
# Another way to draw the cosine $y = \cos a$ is by rejection (Wood 1994). With $b = \big( \sqrt{4 \kappa^2 + (d-1)^2} -
# 2 \kappa \big) / (d-1)$ and $y_0 = (1 - b)/(1 + b)$, propose and accept:
#
# $$
# y = \frac{1 - (1 + b)\, z}{1 - (1 - b)\, z}, \quad z \sim \mathrm{Beta}\big( \tfrac{d-1}{2}, \tfrac{d-1}{2} \big) ;
# \qquad
# \text{accept if}\quad \log(\text{uniform}) \le \kappa y + (d - 1) \log(1 - y_0 y) - c ,
# $$
#
# where $c$ is the right side's largest value. Now suppose that someone draws $z$ *uniformly* from $[0, 1]$ and keeps
# all the rest. The program runs, it accepts and rejects, and it returns unit vectors around $\mu$.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "kappa = 50 in 3,072 dimensions. With the uniform z, how many of the directions lie within 60 degrees of mu?",
    ["none, as with the right z: the acceptance corrects the proposal", "a few in a thousand", "about a quarter"],
    answer=2,
    because="Acceptance corrects a proposal only if it is the one that it was derived for. Here it hardly rejects "
    "anything, and the cosine is nearly uniform on [-1, 1]. For a von Mises-Fisher direction with this kappa a cosine "
    "above 1/2 is as good as impossible.",
)


# %% slideshow={"slide_type": "subslide"}
def by_rejection(n, dim, kappa, draw_z, generator):
    """Cosines accepted out of proposals made from z."""
    b = (math.sqrt(4 * kappa**2 + (dim - 1) ** 2) - 2 * kappa) / (dim - 1)
    y0 = (1 - b) / (1 + b)
    z = draw_z(20 * n, generator)
    y = (1 - (1 + b) * z) / (1 - (1 - b) * z)
    bound = kappa * y0 + (dim - 1) * math.log(1 - y0**2)
    chance = torch.rand(len(y), generator=generator, dtype=torch.float64)
    return y[chance.log() <= kappa * y + (dim - 1) * torch.log1p(-y0 * y) - bound][:n]


def beta_z(n, generator):  # (1 + y) / 2 of a uniform direction has this Beta distribution
    return (1 + angles_by_hand(n, 3072, 0, generator).cos()) / 2


def uniform_z(n, generator):
    return torch.rand(n, generator=generator, dtype=torch.float64)


# %% slideshow={"slide_type": "fragment"}
spread, near = {}, {}
for kappa in (50, 1500):
    for name, draw_z in (("Beta", beta_z), ("uniform", uniform_z)):
        y = by_rejection(5000, 3072, kappa, draw_z, torch.Generator().manual_seed(4))
        spread[kappa, name], near[kappa, name] = float(y.std()), float((y > 0.5).double().mean())
        said = f"cosine {y.mean():6.3f} ± {y.std():.3f}   within 60 degrees {near[kappa, name]:.1%}"
        print(f"kappa = {kappa:5,}, z {name:8} {said}")
    print(f"    spread, uniform over Beta: {spread[kappa, 'uniform'] / spread[kappa, 'Beta']:.1f}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Test a sampler by a spread, not only by a mean.** The mean cosine does not betray the fault; the spread does, 0.55
# in place of 0.018.

# %% [markdown] slideshow={"slide_type": "skip"}
# The k-means sampler in the code released with the paper draws $z$ uniformly. Whether the table at the end of this
# chapter was made with it we cannot tell; if it was, its rows are no von Mises-Fisher sources, and "$\kappa = 50$" is
# not nearly uniform. `fmcore` draws the angle from its density, as we did by hand.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Paths in the plane
#
# To *see* paths, take the paper's picture of image data in two dimensions. The data are 1,024 points in three
# directions, 5%, 30% and 65% of them, at a distance of about 25. The sources lie at a distance of about 55, the length
# of noise in 3,072 dimensions, and differ in direction:
#
# | Name | Directions | `fmcore` |
# |---|---|---|
# | ring | all, like noise | `ChiSphere((2,), dof=3072)` |
# | wide arcs | within 26° of the data's directions (cosine above 0.9) | `Arcs(0.9)` |
# | tight arcs | within 11° (cosine above 0.98) | `Arcs(0.98)` |
# | rays | the three directions themselves | `Arcs(1.0)` |
#
# The data reach 10° to either side of their directions, so the tight arcs are about as wide as the data.

# %% [markdown] slideshow={"slide_type": "subslide"}
# Each source meets the data in three ways: **independent** pairs; **OT pairs of 16**, the optimal transport of chapter
# 05 within batches of 16; and **OT pairs of all**, optimal transport between all 1,024 data points and as many starts.

# %% slideshow={"slide_type": "fragment"}
SOURCES = {"ring": ChiSphere((2,), dof=3072), "wide arcs": Arcs(0.9), "tight arcs": Arcs(0.98), "rays": Arcs(1.0)}
PAIRINGS = {"independent": 1, "OT pairs of 16": 16, "OT pairs of all": 1024}
OF_16, OF_ALL = list(PAIRINGS)[1:]
points = three_directions(1024, torch.Generator().manual_seed(0))


def pairs_of(source, size, count=4096, seed=1):
    """Starts and data points (count, 2) each, paired by optimal transport within batches of a size."""
    generator = torch.Generator().manual_seed(seed)
    x1 = torch.cat([points[torch.randperm(1024, generator=generator)] for _ in range(count // 1024)])
    x0 = source.sample(count, generator)
    return (pair(x0.view(-1, size, 2), x1.view(-1, size, 2)).view(-1, 2) if size > 1 else x0), x1


pools = {(s, p): pairs_of(source, size) for s, source in SOURCES.items() for p, size in PAIRINGS.items()}

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
ORANGE = "#C2570C"  # the orange of sources, dark enough for lines on white
LOOK = dict(zip(SOURCES, (ORANGE, style.PATH, style.DATA, style.MODEL), strict=True))
DASH = dict(zip(SOURCES, ("-", "--", "-", "-."), strict=True))
MARK = dict(zip(SOURCES, style.MARKERS, strict=False))
figure, axes = plotting.canvas(3, 4, height=7.1)
for line, p in zip(axes, PAIRINGS, strict=True):
    for ax, s in zip(line, SOURCES, strict=True):
        x0, x1 = pools[s, p]
        plotting.pairs(x0[:160], x1[:160], limit=62, title=s if p == "independent" else "", ax=ax)
    line[0].set_ylabel(p)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# Orange: where 160 pairs start; violet: where they end. **Independent pairs run across the picture whatever the source;
# with OT pairs of 16 most pairs from arcs and rays stay with their direction, but not all.**

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Crossings
#
# The paper calls paths that disturb each other *entangled*. We shall measure that in two ways. First: of two pairs, how
# often do their straight lines cross? With $m_i = x_{1,i} - x_{0,i}$, and $p \times q = p_1 q_2 - p_2 q_1$ for vectors
# of the plane, line $i$ meets line $j$ at its time $t$ and the other's time $t'$:
#
# $$
# t = \frac{(x_{0,j} - x_{0,i}) \times m_j}{m_i \times m_j}, \qquad
# t' = \frac{(x_{0,j} - x_{0,i}) \times m_i}{m_i \times m_j},
# \qquad \text{crossed if both lie in } (0, 1) .
# $$

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "OT pairs of 16. Which source has the most crossings: the ring, the arcs, or the three rays?",
    ["the ring: its paths come from everywhere", "about the same for all", "the rays"],
    answer=2,
    because="Starts that are close together leave together, and paths from nearly one point to a fan of data points lie "
    "on top of each other, with ends in any order. About twice as many pairs cross as from the ring.",
)


# %% slideshow={"slide_type": "subslide"}
def cross(p, q):
    return p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]


def crossings(x0, x1):
    """Share of pairs of pairs whose lines cross."""
    move, gap = x1 - x0, x0[None] - x0[:, None]  # gap[i, j] = x0_j - x0_i
    turn = cross(move[:, None], move[None])
    t, t_other = cross(gap, move[None]) / turn, cross(gap, move[:, None]) / turn
    crossed = (t > 0) & (t < 1) & (t_other > 0) & (t_other < 1)  # a line and itself: 0/0, which is in no interval
    return float(crossed.sum() / (len(x0) * (len(x0) - 1)))


# %% slideshow={"slide_type": "fragment"}
crossed = {}
for key, (x0, x1) in pools.items():
    crossed[key] = sum(crossings(a, b) for a, b in zip(x0.split(1024), x1.split(1024), strict=True)) / 4
print("share that cross " + "".join(f"{s:>12}" for s in SOURCES))
for p in PAIRINGS:
    print(f"  {p:15}" + "".join(f"{crossed[s, p]:12.1%}" for s in SOURCES))

# %% [markdown] slideshow={"slide_type": "fragment"}
# **With OT pairs of 16, the usual case, the ring has the fewest crossings and the rays have the most.** That is the
# paper's point. With OT pairs of all, hardly any lines from the arcs cross; from the rays many still do. (Lines of an
# optimal plan may cross in the picture, but two of its points are never in one place at one time, chapter 05.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Strays
#
# We call a pair a **stray** if its start and its data point belong to different directions, by the nearest of the
# three. A batch of 16 starts and a batch of 16 data points have, by chance, different numbers in each direction. Those
# in excess must change direction, whatever the plan. How many follows from the shares alone: half of the sum of the
# differences.


# %% slideshow={"slide_type": "fragment"}
AXES = torch.tensor([[math.cos(angle), math.sin(angle)] for angle in ANGLES])


def direction_of(x):
    """Which of the three directions is nearest, (n,)."""
    return (normalize(x, dim=1) @ AXES.T).argmax(dim=1)


strays = {key: float((direction_of(x0) != direction_of(x1)).float().mean()) for key, (x0, x1) in pools.items()}
generator = torch.Generator().manual_seed(5)
drawn = torch.multinomial(torch.tensor(SHARES), 2 * 16 * 20_000, replacement=True, generator=generator).view(2, -1, 16)
counts = torch.nn.functional.one_hot(drawn, 3).sum(dim=2).float()  # starts and data, batches, directions
by_chance = float((counts[0] - counts[1]).abs().sum(dim=1).mean() / 2 / 16)
for s in ("wide arcs", "tight arcs", "rays"):
    print(f"{s:10}: " + ", ".join(f"{p}: {strays[s, p]:.1%}" for p in PAIRINGS) + " strays")
print(f"by the numbers of two batches of 16 alone: {by_chance:.1%}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The strays are made by the pairing, not by the source.** Chance alone makes about one pair in six of a batch of 16 a
# stray; the plan adds a few, because two short detours can be cheaper than a long one. How tight the arcs are hardly
# matters. (In the released code each batch has a fixed number of starts from each direction, which changes this.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ### What a network pays: the irreducible loss
#
# A network does not see lines. It sees a place $x$ and a time $t$, and is asked for $x_1 - x_0$. Lines that cross at
# *different* times do not disturb it. What does is pairs that are at the same place at the same time and have different
# targets: this is **path entanglement**. The variance of those targets is the irreducible loss (chapter 08), the part of
# the loss that no network can remove. Per coordinate it is
#
# $$
# F(t) = \tfrac12\, \mathbb{E}\, \big\| (x_1 - x_0) - u(x_t, t) \big\|^2, \qquad u(x, t) = \mathbb{E}[x_1 - x_0 \mid x_t = x] .
# $$
#
# For **independent** pairs $u$ is the posterior average of chapter 03. With another source only the posterior weights
# change: given $x_t = x$ and $x_1 = x^{(i)}$, the start was $(x - t x^{(i)}) / (1-t)$, so $w_i \propto p_0 \big( (x - t
# x^{(i)}) / (1-t) \big)$.


# %% slideshow={"slide_type": "fragment"}
def exact_targets(log_density, data, x, t):
    """u (B, 2) for independent pairs and a source with this log-density, and the variance of the target (B,)."""
    starts = (x[:, None] - t * data) / (1 - t)
    logits = log_density(starts.flatten(0, 1)).view(len(x), len(data))
    w = torch.softmax(logits.double(), dim=1)[:, :, None]
    targets = ((data - x[:, None]) / (1 - t)).double()
    u = (w * targets).sum(dim=1)
    return u, (w * (targets - u[:, None]).square()).sum(dim=(1, 2))


path = paths.rectified()
x, small = torch.randn(200, 2, generator=torch.Generator().manual_seed(6)), points[:100] / 10
gap_exact = 0.0
for t in (0.1, 0.5, 0.8):
    u, _ = exact_targets(Gaussian((2,)).log_prob, small, x, t)
    gap_exact = max(gap_exact, float((u - closed_form.EmpiricalVelocity(small)(x, torch.tensor(t))).abs().max()))
assert gap_exact < 1e-3, gap_exact
print(f"with a Gaussian source, against fmcore: largest difference {gap_exact:.0e}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# For the other pairings there is no formula, but there are **neighbours**: of many pairs, take the eight whose $x_t$ is
# nearest, and look at the variance of their targets. Neighbours are not in exactly one place, and the mean target
# changes from place to place; so we fit it by a linear function of $x_t$ and take the variance around the fit. For the
# ring with independent pairs we can compare with the exact value.


# %% slideshow={"slide_type": "fragment"}
def irreducible(x0, x1, t, asked=256, near=8):
    """F(t): variance of the targets of neighbours around a linear fit, per coordinate, mean over places."""
    xt, target = (1 - t) * x0 + t * x1, x1 - x0
    who = torch.cdist(xt[:asked], xt).topk(near, largest=False).indices
    fitted = torch.cat([torch.ones(asked, near, 1), xt[who] - xt[:asked, None]], dim=2).double()
    basis, _ = torch.linalg.qr(fitted)  # a constant and two slopes, orthonormal
    rest = target[who].double()
    rest = rest - basis @ (basis.mT @ rest)
    return float(rest.square().sum(dim=(1, 2)).mean()) / (near - 3) / 2


MOMENTS = [round(0.03 * k, 2) for k in range(1, 32)]  # 0.03, 0.06, ..., 0.93
F = {key: [irreducible(x0, x1, t) for t in MOMENTS] for key, (x0, x1) in pools.items()}

# %% slideshow={"slide_type": "fragment"}
x0, x1 = (part[:256] for part in pools["ring", "independent"])
exact_F = []
for t in MOMENTS:
    _, variance = exact_targets(SOURCES["ring"].log_prob, points, (1 - t) * x0 + t * x1, t)
    exact_F.append(float(variance.mean()) / 2)
ratios = torch.tensor(F["ring", "independent"]) / torch.tensor(exact_F)
off_F = sum(F["ring", "independent"]) / sum(exact_F)
print(f"ring, independent, neighbours over exact: mean over all times {off_F:.2f}")
print(
    f"    at single times {ratios.min():.2f} to {ratios.max():.2f}, in the middle half {ratios.quantile(0.25):.2f} to {ratios.quantile(0.75):.2f}"
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The estimate is good to some percent on the average over times, and to about a quarter at a single time.** We use it
# for differences that are larger than that.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Where strays meet
#
# A stray from direction A to the data of B and one from B to the data of A want opposite things. They are in the same
# place where both cross the line half-way between the two directions. If start and data point lie at the angles
# $\alpha$ and $\beta$ from that line, this happens when
#
# $$
# (1 - t)\, 55 \sin\alpha = t\, 25 \sin\beta
# \quad\Longrightarrow\quad
# t = \frac{55 \sin\alpha}{55 \sin\alpha + 25 \sin\beta} ,
# \qquad \text{which is } 0.69 \text{ for } \alpha = \beta .
# $$

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "OT pairs choose as strays the starts and the data points that lie nearest to that line. Wide arcs, tight arcs, "
    "rays: from which source do strays meet earliest?",
    ["from the wide arcs", "from the tight arcs", "from the rays", "at 0.69 from all three"],
    answer=0,
    because="The wide arcs reach nearest to the line half-way, nearer than the data: alpha is smaller than beta, and t is "
    "smaller than 0.69. The tight arcs are as wide as the data. The rays have no near edge but the data have one, so "
    "alpha is larger than beta, and strays meet later.",
)


# %% slideshow={"slide_type": "subslide"}
def meeting(x0, x1):
    """Of strays: angles of start and data point with the line half-way, in degrees, and when they cross it."""
    from_, to = direction_of(x0), direction_of(x1)
    stray = from_ != to
    away = normalize(AXES[from_[stray]] - AXES[to[stray]], dim=1)  # orthogonal to the line half-way
    start, end = (x0[stray] * away).sum(dim=1), -(x1[stray] * away).sum(dim=1)
    alpha, beta = (start / x0[stray].norm(dim=1)).asin(), (end / x1[stray].norm(dim=1)).asin()
    return torch.stack([alpha.rad2deg(), beta.rad2deg(), start / (start + end)]).median(dim=1).values.tolist()


LATER = [k for k, t in enumerate(MOMENTS) if 0.4 < t < 0.85]
predicted, peak = {}, {}
print("medians of strays          alpha    beta   they meet at   largest F at")
for key in ((s, p) for p in (OF_16, OF_ALL) for s in list(SOURCES)[1:]):
    alpha, beta, predicted[key] = meeting(*pools[key])
    peak[key] = MOMENTS[max(LATER, key=lambda k: F[key][k])]
    print(f"{key[0]:11}{key[1]:16}{alpha:4.0f}°{beta:7.0f}°{predicted[key]:13.2f}{peak[key]:15.2f}")
off_peak = max(abs(peak[key] - t) for key, t in predicted.items())

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 3, height=3.9, sharey=True)
for ax, p in zip(axes, PAIRINGS, strict=True):
    for s in SOURCES:
        ax.plot(
            MOMENTS, F[s, p], color=LOOK[s], linestyle=DASH[s], marker=MARK[s], markevery=4, markersize=4.5, label=s
        )
        if (s, p) in predicted:
            ax.plot(predicted[s, p], 1100, "v", color=LOOK[s], markersize=8)
    ax.set(yscale="log", xlabel="t", title=p, ylim=(0.001, 2000), xlim=(0, 0.95))
axes[0].plot(MOMENTS, exact_F, ":", color=style.EXACT, linewidth=1.8, label="ring, exact", zorder=4)
axes[0].set_ylabel("irreducible loss $F(t)$")
axes[2].text(0.02, 850, "▼ strays meet", fontsize=10, color=style.INK)
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=10)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The loss of a source with few directions peaks where its strays meet**: for each source at its own time, the one
# predicted (triangles). Mind the logarithmic scale.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Peak, rest and mean
#
# Is the loss of a sharp source larger, then? Compare its largest value after $t = 0.4$ with its mean away from
# that peak, and with its mean over all times.

# %% slideshow={"slide_type": "fragment"}
highest, elsewhere, overall = {}, {}, {}
for key, values in F.items():
    at = MOMENTS[max(LATER, key=lambda k: values[k])]
    away = [value for value, t in zip(values, MOMENTS, strict=True) if abs(t - at) > 0.12]
    highest[key], elsewhere[key] = values[MOMENTS.index(at)], sum(away) / len(away)
    overall[key] = sum(values) / len(values)
TITLES = {"F at its peak": highest, "F away from the peak": elsewhere, "F, mean of all times": overall}
for title, values in TITLES.items():
    print(f"{title:21}" + "".join(f"{s:>12}" for s in SOURCES))
    for p in PAIRINGS:
        print(f"  {p:19}" + "".join(f"{values[s, p]:12.2f}" for s in SOURCES))

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Sharp sources gather their strays in one place at one time.** With OT pairs of 16 the peak of the tight arcs is
# higher than that of the wide arcs, while away from the peak their targets disagree *less*: there the place tells
# nearly everything about the path. On the whole, both arcs have a higher irreducible loss than the ring, and the rays a
# lower one. With OT pairs of all, the loss of every source is a small part of what it is with 16.
#
# Crossings, the peak, and the mean of $F$ rank the four sources in three different ways. Which one do networks follow?

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Look at it
#
# Colours: how far the targets of the pairs in a small square scatter around their mean at time $t$ (a standard
# deviation, in units of the plane); arrows: their mean. Here the directions follow von Mises-Fisher distributions;
# $\kappa = 15$ is about as wide as the wide arcs, 75 as the tight ones.


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
def in_cells(x, value, size, limit=66.0):
    """Mean of value (n, 2) and the root of its variance in square cells, (cells, cells, ...); NaN below 3 points."""
    cells = int(2 * limit / size)
    column, row = ((x + limit) / size).long().clamp(0, cells - 1).T
    number = row * cells + column
    count = torch.zeros(cells**2).index_add_(0, number, torch.ones(len(x)))[:, None]
    mean = torch.zeros(cells**2, 2).index_add_(0, number, value) / count
    squares = torch.zeros(cells**2, 2).index_add_(0, number, (value - mean[number]).square())
    scatter = (squares.sum(dim=1) / (count[:, 0] - 1)).sqrt()
    empty = count[:, 0] < 3
    mean, scatter = mean.masked_fill(empty[:, None], torch.nan), scatter.masked_fill(empty, torch.nan)
    return mean.view(cells, cells, 2), scatter.view(cells, cells)


def source_of(kappa):
    """Three von Mises-Fisher directions of the plane with the lengths of the ring."""
    return VonMisesFisher(AXES, kappa, weights=torch.tensor(SHARES), dof=3072)


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
def targets_picture(xt, target, ax):
    """Mean of the targets in cells as arrows, their scatter as colour."""
    _, scatter = in_cells(xt, target, 2.0)
    edge = (-66, 66, -66, 66)
    shown = ax.imshow(scatter, origin="lower", extent=edge, cmap="magma_r", vmin=0, vmax=40, interpolation="nearest")
    mean, _ = in_cells(xt, target, 6.0)
    centre = torch.arange(-63.0, 66.0, 6.0)
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    arrows = {"angles": "xy", "scale_units": "xy", "scale": 7, "width": 0.005}
    ax.quiver(x, y, mean[..., 0], mean[..., 1], color=style.MODEL, **arrows)
    ax.figure.colorbar(shown, ax=ax, shrink=0.82, pad=0.02).outline.set_visible(False)
    style.blank(ax, 66)


def entanglement(kappa, t, pairing):
    """Left: pairs, and where they are at time t. Right: mean and scatter of the targets in each place."""
    count = 4096 if pairing == OF_ALL else 16_384
    x0, x1 = pairs_of(source_of(kappa), PAIRINGS[pairing], count)
    xt = (1 - t) * x0 + t * x1
    figure, axes = plotting.canvas(1, 2, height=4.4)
    plotting.pairs(x0[:220], x1[:220], limit=66, title=f"κ = {kappa}, {pairing}".replace("inf", "∞"), ax=axes[0])
    axes[0].scatter(*xt[:220].T, s=7, color=style.EXACT, linewidths=0, zorder=4)
    targets_picture(xt, x1 - x0, axes[1])
    axes[1].set_title(f"targets at t = {t}: mean and scatter")
    return figure


# %% slideshow={"slide_type": "fragment"}
widgets.explore(
    entanglement,
    kappa=widgets.choice([0, 2, 5, 15, 75, 400, 3000, math.inf], value=75, label="concentration κ"),
    t=widgets.slider(0.0, 0.95, step=0.05, value=0.7, label="time t"),
    pairing=widgets.choice(list(PAIRINGS), value=OF_16, label="pairs"),
)

# %% [markdown] slideshow={"slide_type": "notes"}
# Try: at t = 0.7 go from κ = 0 to κ = 400. The colour leaves the picture but for two or three dark dots, where the
# strays meet. Move t by 0.05 to either side: they part. Then OT pairs of all: hardly any colour is left. Then κ = 0 and
# independent pairs, t from 0 to 0.95.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What networks make of it
#
# Twelve combinations of source and pairing, four networks each: 3-64-64-64-2, as in the paper, trained on exactly the
# pairs that we have measured. `fmcore.ensemble` evaluates and differentiates all $12 \cdot 4$ of them together. The
# learning rate falls to a tenth for the last quarter of the steps.


# %% slideshow={"slide_type": "fragment"}
def trained(x0, x1, width, steps, lr, batch=32):
    """One network for each of R lists of pairs, x0 and x1 (R, N, d), all trained at the same time."""
    networks = Ensemble(range(len(x0)), dim=x0.shape[2], width=width)
    optimizer = torch.optim.Adam([networks.flat], lr=lr, fused=True)
    networks.flat.grad = networks.flat_gradient
    generator, rows, move = torch.Generator().manual_seed(7), torch.arange(len(x0))[:, None], x1 - x0
    for step in range(steps):
        if step == 3 * steps // 4:
            optimizer.param_groups[0]["lr"] = lr / 10
        picks = torch.randint(x0.shape[1], (len(x0), batch), generator=generator)
        t = torch.rand(len(x0), batch, 1, generator=generator)
        target = move[rows, picks]
        networks.gradient(torch.cat([x0[rows, picks] + t * target, t], dim=2), target)
        optimizer.step()
    networks.flat.grad = None
    return networks


RUNS = 4
stacked = [torch.stack([pools[key][side] for key in pools for _ in range(RUNS)]) for side in (0, 1)]
planes = trained(*stacked, width=64, steps=1500, lr=4e-3)


# %% slideshow={"slide_type": "skip"}
def sampled(networks, starts, **options):
    """Where each network takes its starts (R, n, d); by 8 steps of order 4, if nothing else is asked for."""
    shape, options = starts.shape, options or {"method": "rk4", "steps": 8}
    with torch.no_grad():
        flow = solvers.solve(lambda x, t: networks(x.reshape(shape), t).flatten(0, 1), starts.flatten(0, 1), **options)
    return flow.x.view(shape)


def starts_of(sources):
    """1,024 starts for each source and run, the same in every run of a source's name."""
    return torch.stack(
        [source.sample(1024, torch.Generator().manual_seed(k)) for source in sources for k in range(RUNS)]
    )


def per_run(measure, ends):
    """A measure of each set of points, (combinations, RUNS)."""
    return torch.tensor([float(measure(x)) for x in ends]).view(-1, RUNS)


# %% [markdown] slideshow={"slide_type": "slide"}
# ### Five measures
#
# The measures are the paper's:
#
# - **distance**: mean distance of a sample to the nearest data point;
# - **failures**: share of samples farther than 1 from every data point;
# - **mode divergence**: how far the samples' shares of eight parts of the data are from the right ones (chapter 09);
# - **normalized Wasserstein** distance: transport distance to the data, over the mean distance of two data points;
# - **coverage**: share of data points that have a sample of their own within 1.

# %% slideshow={"slide_type": "fragment"}
own_ends = sampled(planes, starts_of([SOURCES[s] for s, _ in pools]))
MEASURES = {
    "distance": lambda x: distances_to_data(x, points).mean(),
    "failures": lambda x: (distances_to_data(x, points) > 1).double().mean(),
    "mode divergence": lambda x: mode_divergence(x, points),
    "norm. Wasserstein": lambda x: normalized_wasserstein(x[:256], points),
    "coverage": lambda x: covered_share(x, points),
}
measured = {name: dict(zip(pools, per_run(f, own_ends), strict=True)) for name, f in MEASURES.items()}

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "With OT pairs of 16: from the wide arcs to the tight arcs, what happens to the distance to the data?",
    [
        "it grows: tight sources entangle the paths, as the paper says",
        "nothing that four networks could tell from chance",
        "it falls to half",
    ],
    answer=1,
    because="In the paper it grows, from .18 to .26. Here the difference is within the spread over networks. The peak of "
    "the irreducible loss is higher for tight arcs, its mean is lower, and neither shows in this distance.",
)


# %% slideshow={"slide_type": "subslide"}
def mean_and_spread(name, key):
    return float(measured[name][key].mean()), float(measured[name][key].std())


print(f"{'':27}" + "".join(f"{name:>19}" for name in MEASURES))
for s, p in pools:
    cells = ["{:.3f} ± {:.3f}".format(*mean_and_spread(name, (s, p))) for name in MEASURES]
    print(f"{s:10} {p:16}" + "".join(f"{cell:>19}" for cell in cells))

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 4, height=3.7, sharey=True)
for ax, name in zip(axes, ("failures", "mode divergence", "norm. Wasserstein", "coverage"), strict=True):
    for i, p in enumerate(PAIRINGS):
        for j, s in enumerate(SOURCES):
            values = measured[name][s, p].clamp(min=1e-3)
            place = i + 0.19 * (j - 1.5)
            ax.plot(values, [place] * RUNS, MARK[s], color=LOOK[s], markersize=4.5, markeredgewidth=0)
            bar = [place - 0.08, place + 0.08]
            ax.plot([values.mean()] * 2, bar, color=LOOK[s], linewidth=2.4)
    ax.set(title=name, yticks=range(3), yticklabels=list(PAIRINGS), ylim=(2.5, -0.5))
    if name != "coverage":
        ax.set_xscale("log")
axes[2].set_xticks([0.05, 0.1, 0.2], ["0.05", "0.1", "0.2"])
axes[2].minorticks_off()
axes[3].set(xlim=(0, 1), xticks=[0, 0.5, 1])
handles = [axes[0].plot([], [], MARK[s], color=LOOK[s], label=s)[0] for s in SOURCES]
figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=10)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# A marker is a network, a bar the mean of four. **Direction gives the right shares**: from the ring with independent
# pairs or OT pairs of 16 the mode divergence is 0.6 or more, from the arcs a few hundredths. (The paper, after more
# training: .100 and .066 from the ring, .016 from its wide arcs.) **A good coupling gives them, too**: with OT pairs of
# all the ring has the right shares.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Does "too tight" hurt?
#
# In the paper the tight arcs are worse than the wide ones, with distances of .26 and .18. Here the comparison of the
# tight arcs with the wide ones is, with the standard error of the difference of two means of four networks:

# %% slideshow={"slide_type": "fragment"}
tight_over_wide = {}
for name in ("distance", "failures"):
    for p in (OF_16, OF_ALL):
        (tight, s_tight), (wide, s_wide) = (
            mean_and_spread(name, ("tight arcs", p)),
            mean_and_spread(name, ("wide arcs", p)),
        )
        tight_over_wide[name, p] = tight / wide
        errors = (tight - wide) / math.hypot(s_tight, s_wide) * RUNS**0.5
        print(f"{name:9} {p}: tight over wide arcs {tight / wide:.2f}, {errors:.1f} standard errors from equal")

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Tight arcs fail more often in this short training, with both kinds of OT pairs**; in the distance the difference shows with
# OT pairs of all only. The next cell asks our record of the paper's Table 7, with longer training of ten networks, at
# the best of their checkpoints, as in chapter 09.

# %% slideshow={"slide_type": "subslide"}
recorded = reference.find_records([reference.RESULTS])
at_length = {}
for setting, arcs in [(s, a) for s in ("paper", "released") for a in ("directional", "directional_tight")] + [
    ("paper", "directional_full")
]:
    record = recorded[f"lee2025/simulation/{setting}"]
    settings, of_all = record["configuration"], arcs == "directional_full"
    steps, batch = (settings[key] for key in (("full_steps", "points") if of_all else ("steps", "batch")))
    best = dict(zip(record["measures"], record["values"][arcs]["best"], strict=True))
    at_length[setting, arcs] = best["distance"][0]
    said = f"distance {best['distance'][0]:.2f} ± {best['distance'][1]:.2f}"
    said += f", failures {best['failures'][0]:.1%} ± {best['failures'][1]:.1%}"
    print(f"{steps:7,} steps of {batch:5,}  {arcs:18} {said}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# **After longer training with few pairs at a time, wide and tight arcs differ by less than their spread over ten
# networks.** There we do not find the paper's difference. Wide arcs with OT pairs of all (`directional_full`) are the best
# of the record, as in the paper, which has a distance of .16 and .93% of failures there.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Rays
#
# **What breaks is coverage, once the source has no width at all.** With OT pairs the rays reach about a quarter of the
# data. The samples that there are lie nearer to the data than those of any other source with the same pairing: a distance
# to the data alone would have praised them.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Contracting, stretching, tearing
#
# A flow is invertible: it takes different starts to different ends, and cannot make an area out of a line. It can only
# contract or stretch. From the widths one expects around a direction: the data are 10° wide to either side at a
# distance of 25, the wide arcs 26° at 55, the tight ones 11°. Starts side by side then come $25 \cdot 10 / (55 \cdot
# 26)$ or $25 \cdot 10 / (55 \cdot 11)$ times as far apart as they were. We measure it on a fan of starts around the
# third direction, and count the samples that end up between the directions.

# %% slideshow={"slide_type": "fragment"}
rows_full = [k * RUNS + run for k, (_, p) in enumerate(pools) if p == OF_ALL for run in range(RUNS)]
angle = torch.tensor(ANGLES[2]) + torch.linspace(-1, 1, 401) * math.radians(10)
beside = 55.42 * torch.stack([angle.cos(), angle.sin()], dim=1)
on_fan = sampled(planes.part(rows_full), beside.expand(len(rows_full), -1, -1), method="rk4", steps=16)
apart_at_end = (on_fan.diff(dim=1).norm(dim=2) / beside.diff(dim=0).norm(dim=1)).mean(dim=1).view(-1, RUNS)
stretch = dict(zip(SOURCES, apart_at_end.mean(dim=1).tolist(), strict=True))
by_width = {s: 24.99 * math.radians(10) / (55.42 * math.acos(c)) for s, c in (("wide arcs", 0.9), ("tight arcs", 0.98))}
for s in ("wide arcs", "tight arcs"):
    print(f"{s}: distances are multiplied by {stretch[s]:.2f}, expected {by_width[s]:.2f}")

degrees = torch.tensor(ANGLES).rad2deg()
far_off = {}
for s, ends in zip(SOURCES, own_ends[rows_full].view(4, -1, 2), strict=True):
    off = (torch.atan2(ends[:, 1], ends[:, 0]).rad2deg()[:, None] - degrees + 180).remainder(360) - 180
    far_off[s] = float((off.abs().amin(dim=1) > 20).double().mean())
print("samples between the directions: " + ", ".join(f"{s} {share:.1%}" for s, share in far_off.items()))

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 4, height=2.45)
for ax, k, s in zip(axes, rows_full[::RUNS], SOURCES, strict=True):
    plotting.clouds(model=own_ends[k], behind=points, limit=31, legend=False, title=s, size=4, ax=ax)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# Samples of one network each, OT pairs of all; the data in grey behind. **The arcs contract, the rays can only make
# lines, and the ring has to be torn between the directions.** A network can tear only in a finite width; what is left
# are bridges between the directions, which make up many of the ring's failures and which sources with gaps hardly have.

# %% [markdown] slideshow={"slide_type": "skip"}
# Neither crossings nor the irreducible loss show this: with OT pairs of 16 the ring has the fewest crossings and a lower
# mean of $F$ than the arcs, and yet the worse networks.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Starts outside the training source
#
# A network has learned where its training paths went, and nothing elsewhere. How large is that region? On the circle,
# the share of the arcs can be read off. In 3,072 dimensions, ask which share of all directions is as near to $\mu$ as
# the *average* direction of a von Mises-Fisher source is.

# %% slideshow={"slide_type": "fragment"}
covered_circle = {s: 3 * math.acos(c) / math.pi for s, c in (("wide arcs", 0.9), ("tight arcs", 0.98))}
for s, share in covered_circle.items():
    print(f"{s}: {share:.0%} of the circle")
log_share = {}
uniform = 3070 * a.sin().log()
for kappa in KAPPAS:
    cap = a <= math.acos(bessel_ratio(3072, kappa))
    log_share[kappa] = float(torch.logsumexp(uniform[cap], 0) - torch.logsumexp(uniform, 0)) / math.log(10)
    print(f"kappa = {kappa:5,}: one in 10^{-log_share[kappa]:.1f} of all directions is that near to mu")

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Starting where nobody has trained
#
# Each of the networks of OT pairs of 16 now starts from each of the four sources. How many samples fail?

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "A network trained from the wide arcs is started from the tight ones, and the other way round. How many samples fail?",
    [
        "about as many in both cases: the arcs overlap by half",
        "nearly none from wide to tight, and about half from tight to wide",
        "few in both cases: networks interpolate",
    ],
    answer=1,
    because="The tight arcs lie within the wide ones, so the first network has seen all of its new starts, and the second "
    "has seen fewer than half of them. Outside it does not merely lose accuracy: its samples do not arrive.",
)

# %% slideshow={"slide_type": "fragment"}
rows_16 = [k for k, (_, p) in enumerate(pools) if p == OF_16]
planes_16 = planes.part([k * RUNS + run for k in rows_16 for run in range(RUNS)])
of_16 = torch.zeros(4, 4)  # trained from, started from
for j, start in enumerate(SOURCES.values()):
    ends = sampled(planes_16, starts_of([start] * 4)[:, :512])  # half of them are enough for a share
    of_16[:, j] = per_run(MEASURES["failures"], ends).mean(dim=1)

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
figure, ax = plotting.canvas(width=5.6, height=4.1)
ax.imshow(of_16, cmap=style.density_map(), vmin=0, vmax=1.25)
for i, line in enumerate(of_16.tolist()):
    for j, share in enumerate(line):
        ax.text(j, i, f"{share:.1%}", ha="center", va="center", color="white" if share > 0.55 else style.INK)
ax.set(xticks=range(4), xticklabels=list(SOURCES), yticks=range(4), yticklabels=list(SOURCES))
ax.set(xlabel="started from", ylabel="trained from", title="share of samples that fail")
ax.tick_params(length=0)
ax.grid(False)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Below the diagonal, where starts were not covered in training, networks fail.** For the ring's networks it matters
# less where they start. Training on starts in all directions is what the paper calls *omnidirectional coverage*; its
# remedy is to *train* from all directions and to leave out directions only when *sampling* (chapter 11).

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Is it better to train from everywhere?
#
# The stronger claim: even when started from the wide arcs, a network that was trained from the whole ring should be
# better than one that was trained from the arcs alone. Compare the two, for each pairing.

# %% slideshow={"slide_type": "fragment"}
on_arcs = {}
rows_ring = [k * RUNS + run for k, (s, _) in enumerate(pools) if s == "ring" for run in range(RUNS)]
from_arcs = sampled(planes.part(rows_ring), starts_of([SOURCES["wide arcs"]] * 3))
failing, reach = (per_run(MEASURES[name], from_arcs) for name in ("failures", "coverage"))
print("started from the wide arcs:       failures, trained from ring        from arcs     coverage")
for p, ring, reached in zip(PAIRINGS, failing, reach, strict=True):
    own, own_reached = (measured[name]["wide arcs", p] for name in ("failures", "coverage"))  # from the same starts
    on_arcs[p] = float(ring.mean() / own.mean())
    said = f"{ring.mean():.3f} ± {ring.std():.3f}    {own.mean():.3f} ± {own.std():.3f}"
    print(f"{p:16}{said:>60}   {reached.mean():.2f}, {own_reached.mean():.2f}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# **For independent pairs the claim holds, for OT pairs the opposite does.** In all three cases the network of the ring
# reaches less of the data from the arcs: its flow takes the arcs to a part of the data only, because the rest belongs
# to starts that are now left out. Leaving out directions at the start changes the distribution at the end.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Digits
#
# Now real images, in 64 dimensions, pixels in $[-1, 1]$. Where do digits point? **Spherical k-means** (Banerjee and
# others 2005) finds $K$ mean directions: each image belongs to the centre of largest cosine, and each centre is the
# normalized mean of its images' directions. $\kappa$ is fitted by the mean cosine: the likelihood is largest where
# $A_d(\kappa)$ equals it.


# %% slideshow={"slide_type": "fragment"}
def fitted_kappa(dim, cosine, low=1.0, high=1e5):
    """The kappa with A_d(kappa) = cosine: A_d grows with kappa, so halve the interval."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if bessel_ratio(dim, middle) < cosine else (low, middle)
    return low


digits = data.digits()
images, held_out = (digits.scaled(part).flatten(1) for part in (digits.train, digits.held_out))
unit = normalize(images, dim=1)
centres, sizes = spherical_k_means(images, 3)
nearest = (unit @ centres.T).max(dim=1)
cosine_digits = float(nearest.values.mean())
kappa_digits = fitted_kappa(64, cosine_digits)
at_random = uniform_directions(4000, 64, torch.Generator().manual_seed(1)) @ centres.T
said = f"of {len(images):,} digits {cosine_digits:.3f}, of uniform directions {at_random.amax(dim=1).mean():.2f}"
print(f"mean cosine with the nearest of 3 centres: {said}")
print(f"clusters of {sizes.long().tolist()} images; fitted kappa = {kappa_digits:.0f}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Do directions of the source look like digits?
#
# They have the right *mean* cosine with the centre. But is the spread right? And in how many directions do they go
# around the centre? We count these by the **participation ratio** of the covariance's eigenvalues $\lambda_k$ of what is
# left orthogonal to the centre, $\big( \sum_k \lambda_k \big)^2 / \sum_k \lambda_k^2$: it is $m$ if $m$ directions share
# the variance equally.

# %% slideshow={"slide_type": "fragment"}
source = VonMisesFisher(centres, kappa_digits, sizes)
u_source = normalize(source.sample(1500, torch.Generator().manual_seed(2)), dim=1)


def used_directions(u):
    """Participation ratio of the part of u (n, d) orthogonal to the nearest centre."""
    cosine, which = (u @ centres.T).max(dim=1)
    eigenvalues = torch.linalg.eigvalsh(torch.cov((u - cosine[:, None] * centres[which]).T.double())).clamp(min=0)
    return float(eigenvalues.sum() ** 2 / eigenvalues.square().sum())


directions_used = {"digits": used_directions(unit), "source": used_directions(u_source)}
cosine_spread = {"digits": float(nearest.values.std()), "source": float((u_source @ centres.T).amax(dim=1).std())}
for name, count in directions_used.items():
    print(f"{name:7} cosine with the centre ± {cosine_spread[name]:.3f}   {count:2.0f} of 63 directions used around it")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
shown = torch.cat([centres, unit[:9], u_source[:9]]).view(-1, 1, 8, 8)
shown = shown / shown.flatten(1).abs().amax(dim=1).view(-1, 1, 1, 1)
blank = torch.ones(6, 1, 8, 8)
plotting.images(torch.cat([shown[:3], blank, shown[3:]]), columns=9, rows=["centres", "digits", "source"])

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The source matches digits in the mean cosine, and in little else**: its cosines scatter less, and around the centre
# it goes in nearly all directions alike, where digits use a few.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Does direction help on digits?
#
# Small networks again (64 + 1 inputs, three layers of 96, two networks each), OT pairs of 32. The sources are noise, the
# three centres at several concentrations, and the paper's **oracle**: a source that starts each path in the direction of
# its own image, and so knows all images. Samples are measured by the Fréchet distance of their pixels to the training
# images, and by the distance to the nearest training image.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "In the paper, on CIFAR-10, the k-means sources get worse the sharper they are: FID 4.15 at kappa = 50, 7.11 at "
    "1,500, plain noise 4.40. On the digits, with kappa up to the fitted one?",
    ["the same: sharper is worse", "the opposite: sharper is better", "no difference"],
    answer=1,
    because="At kappa = 158, where the source is about as concentrated as the digits are, the Fréchet distance is little "
    "more than half that of noise. It turns round well beyond, and breaks down at infinity.",
)


# %% slideshow={"slide_type": "subslide"}
def digit_pairs(source, pairing, seed):
    """Starts and images (7,360, 64), paired within 32 ("OT"), by their own direction ("own"), or not at all."""
    generator = torch.Generator().manual_seed(seed)
    x1 = torch.cat([images[torch.randperm(1500, generator=generator)[:1472]] for _ in range(5)])
    if pairing == "own":
        lengths = source.radius.sample(len(x1), generator).float()
        return lengths[:, None] * source.around(normalize(x1, dim=1), generator), x1
    x0 = source.sample(len(x1), generator)
    return (pair(x0.view(-1, 32, 64), x1.view(-1, 32, 64)).view(-1, 64) if pairing == "OT" else x0), x1


noise = Gaussian((64,))
STARTS = {"noise, independent": (noise, "none"), "noise": (noise, "OT")}
for kappa in (31, 158, 1000, math.inf):
    STARTS[f"3 centres, κ = {kappa:,}".replace("inf", "∞")] = VonMisesFisher(centres, kappa, sizes), "OT"
for kappa in (158, math.inf):
    STARTS[f"oracle, κ = {kappa}".replace("inf", "∞")] = VonMisesFisher(images, kappa), "own"
drawn = [digit_pairs(*how, seed=k) for how in STARTS.values() for k in (1, 2)]
on_digits = trained(*(torch.stack([pool[side] for pool in drawn]) for side in (0, 1)), width=96, steps=1000, lr=3e-3)


# %% slideshow={"slide_type": "subslide"}
def judged(sources):
    """Fréchet distance to the training images and mean distance to the nearest one, (sources, 2 runs) each."""
    starts = torch.stack([s.sample(1000, torch.Generator().manual_seed(k)) for s in sources for k in (3, 4)])
    ends = sampled(on_digits, starts, method="midpoint", steps=10)
    values = [(frechet_distance(x, images), float(distances_to_data(x, images).mean())) for x in ends]
    return torch.tensor(values).view(-1, 2, 2).permute(2, 0, 1)


FD, near_image = judged([how[0] for how in STARTS.values()])
FD_noise, _ = judged([noise] * len(STARTS))
real_FD, real_near = frechet_distance(held_out, images), float(distances_to_data(held_out, images).mean())
print(f"{'':22} Fréchet distance   over noise   nearest image   started from noise")
print(
    f"{f'{len(held_out)} held-out digits':22} {real_FD:8.2f}          {real_FD / FD[1].mean():10.2f}   {real_near:13.2f}"
)
for k, name in enumerate(STARTS):
    said = f"{FD[k].mean():8.2f} ± {FD[k].std():.2f}   {FD[k].mean() / FD[1].mean():10.2f}"
    print(f"{name:22} {said}   {near_image[k].mean():13.2f}       {FD_noise[k].mean():14.2f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 3, height=3.8, sharey=True)
titles = {"Fréchet distance": (FD, real_FD), "nearest training image": (near_image, real_near)}
titles["Fréchet, from noise"] = (FD_noise, real_FD)
for ax, (title, (values, bar)) in zip(axes, titles.items(), strict=True):
    for k in range(len(STARTS)):
        color, mark = (ORANGE, "o") if k < 2 else (style.DATA, "s") if k < 6 else (style.MODEL, "^")
        ax.plot(values[k], [k] * 2, mark, color=color, markersize=7, markeredgewidth=0)
    ax.axvline(bar, color=style.EXACT, linestyle=":", linewidth=1.6)
    ax.set(
        xscale="linear" if ax is axes[1] else "log", title=title, yticks=range(len(STARTS)), yticklabels=list(STARTS)
    )
    ax.title.set_fontsize(11)
    ax.invert_yaxis()
axes[0].text(real_FD * 1.15, 6.9, "held-out digits", fontsize=9.5, color=style.INK)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# **Concentrated starts help, up to the concentration of the data.** The Fréchet distance at $\kappa = 158$ is a little
# more than half that of noise. At 1,000 it is higher again, and without width it is ruined. So "too concentrated hurts"
# holds here as well, but *too* begins later than in the paper.

# %% [markdown] slideshow={"slide_type": "subslide"}
# **The oracle is no model.** Its distance is the smallest, and with $\kappa = \infty$ its samples lie far nearer to a
# training image than held-out digits do. To start it one has to draw the direction *of an image*, and all it does is
# to find that image again.
#
# **Off its training source a network with a concentrated source fails**, the more so the more concentrated the source
# was (third panel, started from plain noise).

# %% [markdown] slideshow={"slide_type": "skip"}
# Cautions. The Fréchet distance of pixels compares means and covariances only, small fully connected networks are no
# U-Nets, and the value of held-out digits rests on 297 images, which makes it a little too high.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The paper's numbers
#
# FID on CIFAR-10 with 100 Euler steps, as reported, beside records of ours where there are any: a Fréchet distance of
# other features, to be compared within a column. On the digits $\kappa$ is divided by $3{,}072 / 64 = 48$, as the
# dimension is, which leaves the mean cosine about the same.
#
#     fmcore train lee2025/digits/kmeans1500
#     fmcore train lee2025/cifar10_small/kmeans1500
#     fmcore table lee2025

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
WORDS = {"independent": "noise, independent pairs", "ot": "noise", "oracle": "oracle, κ = ∞"}
WORDS |= {f"oracle{kappa}": f"oracle, κ = {kappa:,}" for kappa in (3000, 1500)}
WORDS |= {f"kmeans{kappa}": f"3 centres, κ = {kappa:,}" for kappa in (1500, 900, 300, 100, 50)}
reported = {
    row["row"]: float(row["fid"])
    for row in reference.read_reference("lee2025_fid")
    if (row["data"], row["start"], row["nfe"]) == ("cifar10", "source", "100")
}


def beside_the_paper(blocks=("digits", "cifar10_small")):
    """Print the paper's FID, the mean cosine of its source, and our records of the same rows, as far as there are any."""
    shown = [block for block in blocks if any(f"lee2025/{block}/{row}" in recorded for row in WORDS if "kmeans" in row)]
    print(f"{'':26}mean cosine   paper: FID" + "".join(f"{block:>16}" for block in shown))
    for row, words in WORDS.items():
        kappa = row.removeprefix("kmeans").removeprefix("oracle")
        cosine = f"{bessel_ratio(3072, float(kappa)):.2f}" if kappa.isdigit() else ("1" if row == "oracle" else "0")
        ours = [recorded.get(f"lee2025/{block}/{row}") for block in shown]
        cells = [r["values"]["classifier_frechet_distance"]["generated"] if r else None for r in ours]
        said = "".join(f"{c['value']:9.2f} ± {c['spread']:.2f}" if c else f"{'':16}" for c in cells)
        print(f"{words:26}{cosine:>11}   {reported[row]:10.2f}{said}")


# %% slideshow={"slide_type": "fragment"}
beside_the_paper()

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The trend of the paper: the more concentrated around three centres, the worse**, from 4.15 to 7.11. At $\kappa = 50$,
# where the source is noise with a shift of 0.9, the distance is close to that of noise, 4.15 and 4.40; the paper gives
# no spread over seeds. Only the oracle gains much, and it gains by knowing the answer.
#
# **On the digits the trend is the opposite one**, up to the fitted $\kappa$: with the small networks above, and by our
# records with U-Nets from 0.97 (noise) to 0.63 ($\kappa = 1{,}500$), though neighbouring rows differ by about as
# much as they scatter.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Why the trends differ
#
# Is the paper's $\kappa$ beyond that of the data? Our record of the geometry of CIFAR-10 has the cosines of all images,
# with their mirror images, with the nearest of three centres.

# %% slideshow={"slide_type": "fragment"}
of_photos = recorded["lee2025/geometry/cifar10"]["values"]["clusters"]["cosine of images with their centre"]
kappa_photos = fitted_kappa(3072, of_photos["value"])
print(
    f"photographs             cosine {of_photos['value']:.2f} ± {of_photos['spread']:.2f}, fitted kappa {kappa_photos:,.0f}"
)
for name in ("Beta", "uniform"):
    said = f"cosine {bessel_ratio(3072, 1500):.2f} ± {spread[1500, name]:.3f}"
    print(
        f"kappa = 1,500, z {name:8}{said}, spread over that of photographs {spread[1500, name] / of_photos['spread']:.2f}"
    )

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The paper's concentrations around three centres lie below that of the data.** So the source is not too sharp in the mean. Two differences
# from the digits may matter: the cosines of photographs scatter far more than those of the source, and the paper's
# sampler may have been the faulty one above, with a larger spread. Which of these it is, if any, our numbers do not say.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you saw

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
off_bessel = max(abs(mine / exact - 1) for mine, _, exact in mean_cosine.values())
off_fmcore = max(abs(theirs / exact - 1) for _, theirs, exact in mean_cosine.values())
ring_16, wide_16, tight_16, rays_16 = ((s, OF_16) for s in SOURCES)
ring_all, wide_all, tight_all, rays_all = ((s, OF_ALL) for s in SOURCES)
fd, image_at, off = (dict(zip(STARTS, part.mean(dim=1).tolist(), strict=True)) for part in (FD, near_image, FD_noise))
k31, k158, k1000, k_inf = list(STARTS)[2:6]
used = directions_used["source"] / directions_used["digits"]
paper_trend = reported["kmeans1500"] / reported["kmeans50"]
times_sharper = {kappa: spread[kappa, "uniform"] / spread[kappa, "Beta"] for kappa in (50, 1500)}
all_over_16 = {s: overall[s, OF_ALL] / overall[s, OF_16] for s in SOURCES}
record_all_over_10 = at_length["paper", "directional_full"] / at_length["released", "directional"]
gap_at_length = at_length["released", "directional_tight"] - at_length["released", "directional"]


def mean_of(name, key):
    return mean_and_spread(name, key)[0]


def over(name, key, other):
    return mean_of(name, key) / mean_of(name, other)


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
first = [
    Claim("kappa = 50, d = 3,072: shift of the noise along mu", shift[50], about(0.9, 0.01), digits=2),
    Claim("kappa = 50: share of cases told from uniform, at best", told[50], about(0.67, 0.01), digits=2),
    Claim("kappa = 50, z uniform: spread of the cosine over the right one", times_sharper[50], above(25)),
    Claim("OT pairs of 16: crossings, rays over ring", crossed[rays_16] / crossed[ring_16], above(1.7)),
    Claim("peak of F: its time less the predicted one, largest of six", off_peak, below(0.06)),
    Claim("OT pairs of 16: mode divergence, ring over wide arcs", over("mode divergence", ring_16, wide_16), above(5)),
    Claim("OT pairs of 16: coverage from rays", mean_of("coverage", rays_16), below(0.4)),
    Claim("trained from wide arcs, started from tight: failures", of_16[1, 2], below(0.05)),
    Claim("trained from tight arcs, started from wide: failures", of_16[2, 1], above(0.35)),
    Claim("digits: Fréchet distance, 3 centres at kappa = 158 over noise", fd[k158] / fd["noise"], between(0.45, 0.65)),
]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
on_the_sphere = [
    Claim("largest Kolmogorov-Smirnov statistic, by hand against fmcore", max(apart.values()), below(0.044)),
    Claim("d = 3,072, kappa = 50: mean cosine", bessel_ratio(3072, 50), about(0.016, 0.0005), digits=3),
    Claim("d = 3,072, kappa = 1,500: mean cosine", bessel_ratio(3072, 1500), about(0.41, 0.005), digits=2),
    Claim("largest relative error of sampled mean cosines, by hand", off_bessel, below(0.06)),
    Claim("the same, fmcore", off_fmcore, below(0.06)),
    Claim("kappa = 50, z uniform: share within 60 degrees", near[50, "uniform"], between(0.2, 0.3)),
    Claim("kappa = 50, z right: share within 60 degrees", near[50, "Beta"], below(1e-6)),
    Claim("kappa = 1,500, z uniform: spread over the right one", times_sharper[1500], above(1.8)),
    Claim("kappa = 1,500: log10 of the share of directions that near", log_share[1500], about(-122.7, 0.1), digits=1),
]
of_paths = [
    Claim("exact velocity by hand and fmcore, Gaussian source: difference", gap_exact, below(1e-3)),
    Claim("F by neighbours over exact, ring, mean of all times", off_F, about(1, 0.12)),
    Claim("OT pairs of 16: crossings, wide arcs over ring", crossed[wide_16] / crossed[ring_16], above(1.3)),
    Claim("the same, tight arcs over ring", crossed[tight_16] / crossed[ring_16], above(1.3)),
    Claim("OT pairs of all: crossings, wide arcs over ring", crossed[wide_all] / crossed[ring_all], below(1)),
    Claim("OT pairs of 16: share of strays, wide arcs", strays[wide_16], between(0.14, 0.22)),
    Claim("the same, by the numbers of two batches alone", by_chance, about(0.16, 0.01), digits=2),
    Claim("OT pairs of all: share of strays, wide arcs", strays[wide_all], below(0.04)),
]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
of_loss = [
    Claim("strays meet, OT pairs of 16: wide arcs less tight", predicted[wide_16] - predicted[tight_16], below(-0.03)),
    Claim("the same: rays less tight arcs", predicted[rays_16] - predicted[tight_16], above(0.01)),
    Claim("OT pairs of 16: peak of F, tight over wide arcs", highest[tight_16] / highest[wide_16], above(1.2)),
    Claim("F away from the peak, tight over wide arcs", elsewhere[tight_16] / elsewhere[wide_16], below(0.8)),
    Claim("the same, rays over ring", elsewhere[rays_16] / elsewhere[ring_16], below(0.2)),
    Claim("mean of F: wide arcs over ring", overall[wide_16] / overall[ring_16], above(1.2)),
    Claim("the same: tight arcs over ring", overall[tight_16] / overall[ring_16], above(1.1)),
    Claim("the same: rays over ring", overall[rays_16] / overall[ring_16], below(0.9)),
    Claim("mean of F, OT pairs of all over 16: largest of four sources", max(all_over_16.values()), below(0.15)),
]
of_networks = [
    Claim("OT pairs of all, ring: mode divergence", mean_of("mode divergence", ring_all), below(0.05)),
    Claim("OT pairs of 16: failures, ring over wide arcs", over("failures", ring_16, wide_16), above(1.5)),
    Claim("wide arcs: failures, OT pairs of all over 16", over("failures", wide_all, wide_16), below(0.6)),
    Claim(
        "OT pairs of 16: distance, tight over wide arcs (paper: 1.44)", tight_over_wide["distance", OF_16], below(1.44)
    ),
    Claim("OT pairs of 16: failures, tight over wide arcs", tight_over_wide["failures", OF_16], above(1.1)),
    Claim("OT pairs of all: failures, tight over wide arcs", tight_over_wide["failures", OF_ALL], above(1.2)),
    Claim("record, 100,000 steps: distance, tight arcs less wide", gap_at_length, about(0.01, 0.02), digits=2),
    Claim("record of Table 7, wide arcs: distance, OT pairs of all over 10", record_all_over_10, below(0.9)),
    Claim("OT pairs of 16: coverage from wide arcs", mean_of("coverage", wide_16), above(0.7)),
]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
of_starts = [
    Claim("OT pairs of all: distances from wide arcs multiplied by", stretch["wide arcs"], about(0.175, 0.04)),
    Claim("OT pairs of all: distances from tight arcs multiplied by", stretch["tight arcs"], about(0.39, 0.06)),
    Claim("OT pairs of all: share of the ring's samples between the directions", far_off["ring"], above(0.01)),
    Claim("the same, ring over wide arcs", far_off["ring"] / far_off["wide arcs"], above(2)),
    Claim("trained from the ring, started from tight arcs: failures", of_16[0, 2], below(0.4)),
    Claim("independent, on wide arcs: failures, trained from ring over arcs", on_arcs["independent"], below(0.8)),
    Claim("OT pairs of 16: the same", on_arcs[OF_16], above(1.2)),
    Claim("OT pairs of all: the same", on_arcs[OF_ALL], above(1.2)),
]
of_digits = [
    Claim("digits: mean cosine with the nearest of 3 centres", cosine_digits, about(0.82, 0.005), digits=2),
    Claim("digits: fitted kappa", kappa_digits, between(150, 165)),
    Claim("photographs: fitted kappa", kappa_photos, about(2017, 10), digits=-1),
    Claim("spread of the cosine, digits over source", cosine_spread["digits"] / cosine_spread["source"], above(1.5)),
    Claim("directions used around the centre, source over digits", used, above(3)),
    Claim("Fréchet distance, 3 centres at kappa = 31 over noise", fd[k31] / fd["noise"], below(0.97)),
    Claim("kappa = 1,000 over kappa = 158", fd[k1000] / fd[k158], above(1.03)),
    Claim("kappa infinite over kappa = 158", fd[k_inf] / fd[k158], above(10)),
    Claim("oracle, kappa infinite: nearest image over held-out", image_at["oracle, κ = ∞"] / real_near, below(0.3)),
    Claim("kappa = 158, started from noise, over its own start", off[k158] / fd[k158], above(20)),
    Claim("paper: FID of 3 centres, kappa = 1,500 over 50", paper_trend, about(1.71, 0.01), digits=2),
]

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
claims.table(first + on_the_sphere + of_paths + of_loss + of_networks + of_starts + of_digits)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## To remember
#
# - A concentration means nothing without its dimension: the mean cosine is about $\kappa / d$ as long as that is small.
#   $\kappa = 50$ in 3,072 dimensions is noise with a small shift.
# - Test a sampler by a spread, not only by a mean.
# - Crossing lines are not yet a problem. Pairs that are in the same place *at the same time* are: the strays of a sharp
#   source meet in nearly one place at nearly one time. Their number is a matter of the pairing, not of the source.
# - Starts in the directions of the data give the right shares and few bridges; a good coupling gives the right shares,
#   too. A source without width leaves parts of the data out of reach.
# - A network fails where its training source never was. Starting from fewer directions than it was trained on costs
#   little in distance to the data, but changes its shares.
# - An oracle source contains the answer.

# %% [markdown] slideshow={"slide_type": "skip"}
# ## References
#
# - Lee, Kim and Lee (2025). *Is There a Better Source Distribution than Gaussian?* arXiv:2512.18184.
# - Wood (1994). *Simulation of the von Mises Fisher distribution.* Communications in Statistics: Simulation
#   and Computation 23(1).
# - Mardia and Jupp (2000). *Directional Statistics.* Wiley.
# - Banerjee, Dhillon, Ghosh and Sra (2005). *Clustering on the Unit Hypersphere using von Mises-Fisher
#   Distributions.* Journal of Machine Learning Research 6.
# - Tong and others (2024). *Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport.*
#   Transactions on Machine Learning Research.
#
# Where to read on: Mardia and Jupp for everything on directions, and Tong and others for what mini-batch couplings do to
# the paths; Pooladian and others (2023), *Multisample Flow Matching: Straightening Flows with Minibatch Couplings*,
# ICML, treat the same question by theory.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# In [exercises/10_source_direction.ipynb](exercises/10_source_direction.ipynb); each has a check that says what is
# wrong.
#
# 1. **Directions from cosines.** The geometric part of a sampler.
# 2. **A sampler that is right for some dimensions only**, and why it looked right.
# 3. **The concentration in closed form,** nearly exact in many dimensions.
# 4. **The mean cosine grows with the concentration.** Its slope, and Newton's method.
# 5. **How much do the targets disagree?** The variance of the target when a start knows the direction of its data.
# 6. **What is it worth to know the mean direction?** Tests with and without it, in few and in many dimensions.
#
# <!-- next: written by fmcore.course.build -->
#
# Next: [11 Norms and pruning](11_norms_and_pruning.ipynb). How much is gained by sizes that match and directions left out?
#
# <!-- end of next -->
