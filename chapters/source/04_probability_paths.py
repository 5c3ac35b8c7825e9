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
# # 04 Probability paths
#
# Chapter 03 joined noise and data by a straight line. Diffusion joins them by another curve, and both are flow
# matching. This chapter derives the velocity of every such path, follows two of them from noise to data, and counts
# what each costs a solver. At the end the paths turn out to have more in common than their pictures suggest: they
# take the same noise to the same data.

# %% slideshow={"slide_type": "skip"}
import copy
import math

import torch
from matplotlib.colors import LinearSegmentedColormap, LogNorm

from fmcore import closed_form, data, losses, networks, paths, solvers, training, velocity
from fmcore.course import card, claims, plotting, predict, style, widgets
from fmcore.course.claims import Claim, about, above, below, between

style.use()
torch.set_num_threads(1)  # networks this small gain nothing from a second core

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
card.show(
    "04_probability_paths",
    goals=[
        "derive the velocity of any path from its two schedules (Theorem 3)",
        "say in which sense the OT path and the diffusion path are one flow, and in which they are not",
        "measure what a path costs a solver, and say what the number depends on",
        "turn a network that predicts noise, score, data or velocity into any other of the four, with the weight of its loss",
        "say where flow matching and v-prediction agree and where they differ",
    ],
    before=["chapter 03: conditional and marginal velocity, the two theorems", "chapter 01: the VP and VE diffusions"],
    exercises=[
        "1. A path that always points at the data",
        "2. A velocity in other coordinates",
        "3. A sampler that is wrong at one end",
        "4. A loss in another time",
        "5. The straight path needs the least energy",
        "6. Is the straight path always the cheapest to sample?",
    ],
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A path is two schedules
#
# As before, $x_0 \sim \mathcal{N}(0, I)$ is noise, $x_1$ is data, and time $t$ runs from 0 at the noise to 1 at the
# data. An **affine path** joins them by
#
# $$
# x_t = \alpha_t\, x_1 + \sigma_t\, x_0 , \qquad\text{so}\qquad
# p_t(x \mid x_1) = \mathcal{N}\big(\alpha_t x_1,\; \sigma_t^2 I\big) .
# $$
#
# The schedule $\alpha_t$ says how much data is in $x_t$, the schedule $\sigma_t$ how much noise. Noise dominates near
# $t = 0$ and data near $t = 1$.
#
# | Path | $\alpha_t$ | $\sigma_t$ |
# |---|---|---|
# | rectified | $t$ | $1 - t$ |
# | OT | $t$ | $1 - (1 - \sigma_{\min})\, t$ |
# | VP, variance preserving | $e^{-T(1-t)/2}$ | $\sqrt{1 - \alpha_t^2}$ |
# | VE, variance exploding | $1$ | $\sigma_{\min}\, (\sigma_{\max} / \sigma_{\min})^{1-t}$ |
#
# VP and VE are the diffusions of chapter 01 (Song et al. 2021), run backwards: $s = 1 - t$ is the time of the
# diffusion, $\beta(s) = 0.1 + 19.9\, s$ its noise rate and $T(s) = 0.1\, s + 9.95\, s^2$ the integral of that rate.

# %% [markdown] slideshow={"slide_type": "fragment"}
# **OT path** is the name that Lipman et al. 2023 gave to the straight path: for *one* data point it moves the noise
# there in the cheapest way. For a whole data set it is not optimal transport (chapter 05). With $\sigma_{\min} = 0$ it
# is the rectified path of chapter 03, and that is the OT path that this chapter compares with the others.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
predict.ask(
    "Half of the time is over, t = 0.5. How much noise is left on the VP path: what is sigma?",
    ["0.50", "0.71", "0.96"],
    answer=2,
    because="The noise rate of the diffusion is largest far from the data. Run backwards, the first half of the time "
    "undoes noise that had long covered the data, and little changes. On the OT path 0.50 is left.",
)

# %% slideshow={"slide_type": "fragment"}
PATHS = {
    "rectified": paths.rectified(),
    "OT": paths.ot(sigma_min=0.1),
    "VP": paths.variance_preserving(),
    "VE": paths.variance_exploding(sigma_min=0.01, sigma_max=50.0),
}
ot, vp = PATHS["rectified"], PATHS["VP"]  # the two that the chapter compares
line, half = torch.linspace(0, 1, 201), torch.tensor(0.5)
noise_left = {name: float(path.sigma(half)) / path.source_scale for name, path in PATHS.items()}
print("sigma at t = 0.5 over sigma at t = 0:", ", ".join(f"{k} {v:.3f}" for k, v in noise_left.items()))
print(f"VP path at t = 0: alpha = {float(vp.alpha(0 * half)):.4f}, so a little of the data is there from the start")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 4, height=2.8)
titles = {
    "rectified": "rectified (OT path)",
    "OT": r"OT path, $\sigma_{\min} = 0.1$",
    "VP": "VP path",
    "VE": "VE path, log scale",
}
for ax, (name, path) in zip(axes, PATHS.items(), strict=True):
    both = {r"$\alpha_t$": path.alpha(line), r"$\sigma_t$": path.sigma(line)}
    colors = dict(zip(both, (style.DATA, style.PATH), strict=True))
    plotting.curves(line, both, xlabel="t", colors=colors, log="y" if name == "VE" else "", ax=ax)
    ax.lines[1].set_linestyle("--")
    ax.legend(handlelength=2.6)
    ax.set_title(titles[name], fontsize=11)
    ax.set_xticks([0, 0.5, 1])
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### One pair on three paths
#
# Fix one data point $x_1$ and one noise sample $x_0$. Where is $x_t$ between them? The next figure shows this pair
# as a thick line, with a dot after every tenth of the time, and 25 other noise samples on their way to the same $x_1$.

# %% slideshow={"slide_type": "fragment"}
pair0, pair1 = torch.tensor([[-1.5, 1.2]]), torch.tensor([[1.2, 0.2]])
around = torch.randn(25, 2, generator=torch.Generator().manual_seed(11))
three = {"OT path": ot, "VP path": vp, "VE path": PATHS["VE"]}
every = {}  # the times, the pair, and the other noise samples with the same x1
for name, path in three.items():
    moments = path.t_max * line
    pair = torch.stack([path.interpolate(pair0, pair1, t)[0] for t in moments])
    cloud = torch.stack([path.interpolate(around, pair1.expand_as(around), t) for t in moments])
    every[name] = moments, pair, cloud

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 3)
for ax, (name, (moments, pair, cloud)) in zip(axes, every.items(), strict=True):
    plotting.trajectories((moments, cloud), limit=2.7, title=name, width=0.9, ax=ax)
    ax.plot(*pair.T, color=style.EXACT, linewidth=2.2, zorder=4)
    tenths = pair[::20]
    shades = [style.color_of(k / 10) for k in range(11)]
    ax.scatter(*tenths.T, s=42, c=shades, edgecolors=style.EXACT, linewidths=1.1, zorder=5)
    white = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    ax.annotate("t = 0.5", tenths[5], (9, 9), textcoords="offset points", fontsize=10, zorder=6, bbox=white)
    ax.scatter(*pair1[0], marker="*", s=150, color="white", edgecolors=style.EXACT, linewidths=1.3, zorder=7)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# All three paths lead to the data point (star). The OT path is a straight line with equal distances in equal times.
# The VP path is bent, and most of its length is covered late. The VE path is straight, but comes from far outside the
# picture and slows down.

# %% slideshow={"slide_type": "subslide"}
many = torch.randn(1000, 2, generator=torch.Generator().manual_seed(1))
gone, bend = {}, {}
for name, path in three.items():
    states = torch.stack([path.interpolate(many, pair1.expand_as(many), s) for s in path.t_max * line])
    lengths = states.diff(dim=0).norm(dim=-1).cumsum(dim=0)
    gone[name] = float(lengths[99].mean() / lengths[-1].mean())
    bend[name] = float((lengths[-1] / (states[-1] - states[0]).norm(dim=-1)).mean())
    print(f"{name}: {gone[name]:.0%} of its length is covered at t = 0.5; length over distance {bend[name]:.2f}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Theorem 3: the velocity for one data point
#
# Fix $x_1$. A point that starts at $x_0$ is at time $t$ at
#
# $$
# \psi_t(x_0) = \alpha_t x_1 + \sigma_t x_0 , \qquad\text{so it moves with}\qquad
# \frac{\mathrm{d}}{\mathrm{d}t} \psi_t(x_0) = \alpha_t' x_1 + \sigma_t' x_0 .
# $$
#
# A velocity *field* must give this as a function of the place $x = \psi_t(x_0)$. The place determines where the point
# came from, $x_0 = (x - \alpha_t x_1) / \sigma_t$. Substitute:
#
# $$
# u_t(x \mid x_1) = \frac{\sigma_t'}{\sigma_t} \big( x - \alpha_t x_1 \big) + \alpha_t' x_1 .
# $$
#
# This is Theorem 3 of Lipman et al. 2023. It needs only $\sigma_t > 0$, to solve for $x_0$, and differentiable
# schedules.


# %% slideshow={"slide_type": "fragment"}
def conditional_velocity(path, x, x1, t):
    """u_t(x | x1) by Theorem 3, for x and x1 of shape (B, d) and t of shape (B, 1)."""
    rest = x - path.alpha(t) * x1  # sigma times the noise that led here
    return path.d_sigma(t) / path.sigma(t) * rest + path.d_alpha(t) * x1


generator = torch.Generator().manual_seed(0)
x0, x1 = torch.randn(2, 1000, 2, generator=generator, dtype=torch.float64)
t = 0.02 + 0.96 * torch.rand(1000, generator=generator, dtype=torch.float64)
by_hand_gap = 0.0
for path in PATHS.values():
    x = 2 * torch.randn(1000, 2, generator=generator, dtype=torch.float64)  # anywhere in the plane
    difference = conditional_velocity(path, x, x1, t[:, None]) - path.velocity(x, x1, t)
    by_hand_gap = max(by_hand_gap, float(difference.abs().max()))
assert by_hand_gap < 1e-10, by_hand_gap

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Is it right?
#
# That two versions of one formula agree does not show that the formula is right. The flow map $\psi_t$ itself contains
# no derivative, so it gives an independent check: move the time a little and see where the point goes,
#
# $$
# \frac{\psi_{t+h}(x_0) - \psi_{t-h}(x_0)}{2h} \;\approx\; u_t\big( \psi_t(x_0) \mid x_1 \big) .
# $$

# %% slideshow={"slide_type": "fragment"}
h = 1e-5
finite_gap = {}
for name, path in PATHS.items():
    moved = (path.interpolate(x0, x1, t + h) - path.interpolate(x0, x1, t - h)) / (2 * h)
    formula = conditional_velocity(path, path.interpolate(x0, x1, t), x1, t[:, None])
    finite_gap[name] = float(((formula - moved).norm(dim=1) / moved.norm(dim=1)).max())
    print(f"{name:10} largest relative difference, 1,000 places and times: {finite_gap[name]:.0e}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Where do the arrows point?
#
# Collect the two terms with $x_1$:
#
# $$
# u_t(x \mid x_1) = k_t \, \big( a_t x_1 - x \big) , \qquad
# k_t = -\frac{\sigma_t'}{\sigma_t} , \qquad
# a_t = \alpha_t - \alpha_t' \frac{\sigma_t}{\sigma_t'} .
# $$
#
# Each of these fields pulls towards one point, which we call the **aim** $a_t x_1$, at the **rate** $k_t$.
#
# | Path | $a_t$ | $k_t$ |
# |---|---|---|
# | rectified | $1$ | $1 / (1 - t)$ |
# | OT | $1 / (1 - \sigma_{\min})$ | $(1 - \sigma_{\min}) / \sigma_t$ |
# | VP | $1 / \alpha_t$ | $\tfrac12 \beta(1-t)\, \alpha_t^2 / \sigma_t^2$ |
# | VE | $1$ | $\ln(\sigma_{\max} / \sigma_{\min})$ |

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
predict.ask(
    "At one place x, watch the arrow of the VP path as t goes from 0 to 1. What does it do?",
    [
        "it keeps its direction and grows, like that of the rectified path",
        "it turns: first parallel to x1, in the end towards the data point",
        "it turns once around the data point",
    ],
    answer=1,
    because="The aim x1 / alpha starts 150 times as far from the origin as the data point, so at first all arrows are "
    "parallel to x1 and short. As alpha grows the aim comes closer, and the arrows turn to the data point.",
)


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
SHADES = LinearSegmentedColormap.from_list("speed", ["#9C82D6", style.DATA, "#16073D"])  # the slowest still legible
GREY = "#6E7781"


def draw_field(path, t, ax, target=(1.1, 0.7), limit=2.5, arrows=11):
    """Directions (arrows) and speed (shade) of u_t(x | x1); circles: one and two sigma of p_t(x | x1)."""
    x1, t = torch.tensor(target), torch.tensor(float(t))
    where = plotting.grid(limit * (1 - 1 / arrows), arrows)
    u = path.velocity(where, x1.expand_as(where), t)
    speed = u.norm(dim=1)
    drawn = ax.quiver(
        *where.T, *(u / speed[:, None]).T, speed.clamp(0.03, 90), cmap=SHADES, norm=LogNorm(0.03, 100),
        pivot="mid", scale=1.2 * arrows, width=0.1 / arrows, headwidth=3.6, headlength=4, headaxislength=3.6,
    )  # fmt: skip
    angle = torch.linspace(0, 2 * math.pi, 100)
    for radius in (1, 2):
        circle = path.alpha(t) * x1[:, None] + radius * path.sigma(t) * torch.stack([angle.cos(), angle.sin()])
        ax.plot(*circle, color=style.PATH, linewidth=2.4 / radius)
    ax.scatter(*x1, marker="*", s=110, color="white", edgecolors=style.EXACT, linewidths=1.3, zorder=4)
    aim = (path.alpha(t) - path.d_alpha(t) * path.sigma(t) / path.d_sigma(t)) * x1
    ax.scatter(*aim, marker="x", s=45, color=style.EXACT, linewidths=2.2, zorder=5)
    style.blank(ax, limit)
    return drawn


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(3, 4, height=5.9)
for row, name in zip(axes, ("rectified", "VP", "VE"), strict=True):
    for ax, time in zip(row, (0.0, 0.4, 0.7, 0.95), strict=True):
        drawn = draw_field(PATHS[name], time, ax)
        ax.set_title(f"t = {time:g}" if name == "rectified" else "")
    row[0].set_ylabel("OT path" if name == "rectified" else f"{name} path")
bar = figure.colorbar(drawn, ax=axes, label="speed", shrink=0.6, ticks=[0.1, 1, 10, 100])
bar.ax.set_yticklabels(["0.1", "1", "10", "100"])
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# The field of the OT path never turns, it only gets faster. The field of the VP path starts slow and parallel, turns,
# and pulls strongly only at the end. The field of the VE path does not change.

# %% [markdown] slideshow={"slide_type": "skip"}
# Star: the data point $x_1$. Cross: the aim $a_t x_1$, where it lies inside the panel. Circles: one and two standard
# deviations of $p_t(x \mid x_1)$; on the VE path they are up to 50 and 100 wide and outside the panel at first. All
# arrows are drawn equally long; their shade is the speed, on one scale for all panels.

# %% slideshow={"slide_type": "subslide"}
place = plotting.grid(2.3, 12)
target = torch.tensor([1.1, 0.7]).expand_as(place)
turn = {}
for name, path in PATHS.items():
    first, last = path.velocity(place, target, 0.0), path.velocity(place, target, 0.95)
    cosine = torch.cosine_similarity(first, last, dim=1).clamp(-1, 1)
    turn[name] = float(cosine.acos().rad2deg().mean())
    print(f"{name:10} between t = 0 and t = 0.95 the arrow at a place turns by {turn[name]:5.1f} degrees on average")


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
def field_picture(path, t):
    """The conditional field of a path at time t, and where its two schedules stand."""
    figure, (left, right) = plotting.canvas(1, 2, height=4.1, width_ratios=[1, 1])
    draw_field(PATHS[path], t, left, arrows=15)
    left.set_title(f"{path} path, t = {t:.2f}")
    end = PATHS[path].t_max
    times = end * line
    alpha, sigma = PATHS[path].alpha(times), PATHS[path].sigma(times) / PATHS[path].source_scale
    rate = -PATHS[path].d_sigma(times) / PATHS[path].sigma(times)
    lines = {r"$\alpha_t$": alpha, r"$\sigma_t / \sigma_0$": sigma, "rate $k_t$ / 20": (rate / 20).clamp(max=1.2)}
    colors = dict(zip(lines, (style.DATA, style.PATH, style.EXACT), strict=True))
    plotting.curves(times, lines, xlabel="t", colors=colors, ax=right)
    for drawn, dashes in zip(right.lines, ("-", "--", ":"), strict=True):
        drawn.set_linestyle(dashes)
    right.legend(handlelength=2.6)
    right.axvline(t, color=GREY, linewidth=1.2, zorder=0)
    right.set_ylim(-0.03, 1.08)
    return figure


# %% slideshow={"slide_type": "subslide"}
widgets.explore(
    field_picture,
    path=widgets.choice(list(PATHS), value="VP", label="path"),
    t=widgets.slider(0.0, 0.98, step=0.02, value=0.8, label="time t"),
)

# %% [markdown] slideshow={"slide_type": "notes"}
# Try: on the VP path, find the time at which the cross (the aim) comes into view. Compare the OT path
# ($\sigma_{\min} = 0.1$) with the rectified one at $t = 0.98$: what do the circles do, and where is the cross?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## From one data point to a distribution
#
# To compare paths we need a marginal velocity without a network's error. `EmpiricalVelocity` has it for finitely many
# points. For a *smooth* distribution, take Gaussians of standard deviation $\rho$ around centres $m_1, \dots, m_K$.
# With noise added they stay Gaussians, of variance $V_t = \alpha_t^2 \rho^2 + \sigma_t^2$, and Bayes' rule gives the
# posterior mean of the data,
#
# $$
# \mathbb{E}[x_1 \mid x_t = x] = \sum_k w_k \Big( m_k + \frac{\alpha_t \rho^2}{V_t} \big( x - \alpha_t m_k \big) \Big) ,
# \qquad
# w_k = \operatorname{softmax}_k \Big( \! - \frac{\| x - \alpha_t m_k \|^2}{2 V_t} \Big) .
# $$
#
# $u_t(x \mid x_1)$ is linear in $x_1$, so the marginal velocity, the posterior average of chapter 03, is
# $u_t(x) = u_t(x \mid \mathbb{E}[x_1 \mid x_t = x])$.


# %% slideshow={"slide_type": "fragment"}
def mixture_velocity(path, centres, std):
    """The exact velocity from N(0, I) to equal Gaussians of that standard deviation around the centres (K, d)."""

    def velocity(x, t):
        alpha, sigma = path.alpha(t), path.sigma(t)
        spread = alpha**2 * std**2 + sigma**2
        weights = torch.softmax(-torch.cdist(x, alpha * centres).square() / (2 * spread), dim=1)
        centre = weights @ centres
        mean = centre + alpha * std**2 / spread * (x - alpha * centre)
        return path.data_to_velocity(mean, x, t)

    return velocity


angle = torch.arange(8, dtype=torch.float64) * math.pi / 4
centres = 2.5 * torch.stack([angle.cos(), angle.sin()], dim=1)  # data.toy.eight_gaussians: std 0.2
exact = {name: mixture_velocity(path, centres, 0.2) for name, path in PATHS.items()}
mixture_gap = 0.0
for path in PATHS.values():  # with std = 0 the distribution is eight points, for which fmcore has the answer
    oracle = closed_form.EmpiricalVelocity(centres, path)
    for time in torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64):
        difference = mixture_velocity(path, centres, 0.0)(x, time) - oracle(x, time)
        mixture_gap = max(mixture_gap, float(difference.abs().max()))
assert mixture_gap < 1e-8, mixture_gap

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The same noise along two paths
#
# The same 600 noise samples follow the exact velocity of the eight Gaussians, first on the OT path, then on the VP
# path. No network is involved, and the solver has a tolerance of $10^{-7}$.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "One noise sample x0 follows the flow of the OT path, then that of the VP path. Where does it end?",
    [
        "at two unrelated points of the data distribution",
        "in the same one of the eight Gaussians, but at different points",
        "at the same point, both times",
    ],
    answer=2,
    because="The paths differ in when they do what, not in where they lead. Below it is measured, and then derived.",
)

# %% slideshow={"slide_type": "fragment"}
x0 = torch.randn(600, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
flows = {}
for name in ("OT", "VP"):
    path = {"OT": ot, "VP": vp}[name]
    moments = path.t_max * line.double()
    field = exact["rectified" if name == "OT" else name]
    flows[name] = solvers.solve(field, x0, t1=path.t_max, rtol=1e-7, atol=1e-7, times=moments)
ends_gap = float((flows["OT"].x - flows["VP"].x).norm(dim=1).max())
print(f"largest distance between the two ends of one noise sample: {ends_gap:.5f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
shown = [0, 0.2, 0.4, 0.6, 0.8, 1]
figure, axes = plotting.canvas(2, 6, height=3.15)
for row, (name, flow) in zip(axes, flows.items(), strict=True):
    plotting.snapshots(flow, times=shown, limit=3.4, size=4, title="t = {t:.1f}" if name == "OT" else "", axes=row)
    row[0].set_ylabel(f"{name} path")
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# The eight Gaussians appear earlier on the OT path than on the VP path. At $t = 1$ the two pictures are the same,
# point by point.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### How much noise is left?
#
# The noise that is still in a point on its way is $\sigma_t\, \mathbb{E}[x_0 \mid x_t]$; `path.velocity_to_noise`
# computes the expectation from the velocity. We follow its root mean square, relative to the start.


# %% slideshow={"slide_type": "fragment"}
def noise_left(flow, field, path):
    """Root mean square of sigma_t E[x0 | x_t] over its value at the start, at each time of the flow."""
    found = []
    for t, x in zip(flow.times, flow.trajectory, strict=True):
        found.append(path.sigma(t) * path.velocity_to_noise(field(x, t.to(x)), x, t.to(x)).square().mean().sqrt())
    return torch.stack(found) / found[0]


def half_time(values):
    """The first of the times of `line` at which the values are below one half."""
    return float(line[(values < 0.5).nonzero()[0, 0]])


left = {"OT": noise_left(flows["OT"], exact["rectified"], ot), "VP": noise_left(flows["VP"], exact["VP"], vp)}
halfway = {name: half_time(values) for name, values in left.items()}
for name, values in left.items():
    print(
        f"{name} path: half of the noise is gone at t = {halfway[name]:.2f}; left at t = 0.5: {float(values[100]):.0%}"
    )

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
LOOK = {"OT": style.DATA, "VP": style.PATH}
figure, axes = plotting.canvas(1, 3, height=3.3)
for ax, (name, flow) in zip(axes, flows.items(), strict=False):
    plotting.trajectories(flow, count=70, limit=3.4, title=f"{name} path", ax=ax)
shares = {f"{name} path": values for name, values in left.items()}
colors = {f"{name} path": color for name, color in LOOK.items()}
plotting.curves(line, shares, xlabel="t", title="share of the noise that is left", colors=colors, ax=axes[2])
axes[2].lines[1].set_linestyle("--")
axes[2].legend(handlelength=2.6)
axes[2].axhline(0.5, color=GREY, linewidth=1, linestyle=":", zorder=0)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# On the OT path half of the noise is gone after about a third of the time. On the VP path most of it is still there at
# $t = 0.5$, and the points turn late. Yet both end at the same points, and this is no special property of the eight
# Gaussians.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A path is a scale and a reparametrization of time
#
# Write $D$ and $E$ for the posterior means of data and noise, $D = \mathbb{E}[x_1 \mid x_t = x]$ and
# $E = \mathbb{E}[x_0 \mid x_t = x]$. Averaging $x_t$ and its derivative gives the two equations from which the rest
# of this chapter follows:
#
# $$
# x = \alpha_t D + \sigma_t E , \qquad \frac{\mathrm{d}x}{\mathrm{d}t} = \alpha_t' D + \sigma_t' E .
# $$
#
# Measure places in units of the noise, $y = x / \sigma_t$, and time by the ratio of signal to noise,
# $r_t = \alpha_t / \sigma_t$. Then $E$ cancels:
#
# $$
# \frac{\mathrm{d}y}{\mathrm{d}t} = \frac{x'}{\sigma_t} - \frac{\sigma_t' x}{\sigma_t^2}
# = \Big( \frac{\alpha_t'}{\sigma_t} - \frac{\sigma_t' \alpha_t}{\sigma_t^2} \Big) D = r_t' \, D ,
# \qquad\text{that is}\qquad \boxed{\;\frac{\mathrm{d}y}{\mathrm{d}r} = D\;} .
# $$
#
# $D$ depends on the place and the time only through $y$ and $r$, because $x = \sigma_t (r x_1 + x_0)$: to know $x$ is
# to know $y = r x_1 + x_0$. **No path is left in the equation.** The path only decides when each $r$ is reached, a
# *reparametrization of time*, and in which units the place is written, the *scale* $\sigma_t$.

# %% [markdown] slideshow={"slide_type": "notes"}
# All these flows start from $y = x_0$ and end at $x_1$, up to the ends of their schedules: the rectified path starts
# at $r = 0$, the VP path at about $\alpha_0$ (printed above), the VE path at $1 / \sigma_{\max} = 0.02$; the OT path
# with $\sigma_{\min} > 0$ and the VE path stop before $r = \infty$. That the map from noise to data does not depend
# on the path holds for the exact velocity, for any data and any source. For networks it is a prediction, which we
# test on digits. Karras et al. 2022 and Kingma et al. 2021 made the same change of variables for diffusion models.


# %% slideshow={"slide_type": "subslide"}
def time_at(path, ratio):
    """The time at which signal to noise, alpha / sigma, reaches the ratio: by bisection, for any affine path."""
    low, high = torch.zeros_like(ratio), torch.full_like(ratio, path.t_max)
    for _ in range(60):
        middle = (low + high) / 2
        early = path.alpha(middle) / path.sigma(middle) < ratio
        low, high = torch.where(early, middle, low), torch.where(early, high, middle)
    return low


heaps = torch.tensor([[-2.0], [0.3], [2.0]], dtype=torch.float64)  # three Gaussians in one dimension, std 0.15
start = torch.linspace(-2.2, 2.2, 24, dtype=torch.float64)[:, None]
ratio = torch.tan(torch.linspace(0.005, 0.997, 150, dtype=torch.float64) * math.pi / 2)  # from 0.008 to 200
tracks, when, scales = {}, {}, {}
for name, path in {"OT": ot, "VP": vp}.items():
    when[name] = times = time_at(path, ratio)
    field = mixture_velocity(path, heaps, 0.15)
    tracks[name] = solvers.solve(field, start, t1=path.t_max, rtol=1e-8, atol=1e-8, times=times).trajectory[..., 0]
    scales[name] = (path.alpha(times) ** 2 + path.sigma(times) ** 2).sqrt()[:, None]
one_flow_gap = float((tracks["OT"] / scales["OT"] - tracks["VP"] / scales["VP"]).abs().max())
print(f"same scale, same signal-to-noise ratio: largest distance between the two paths {one_flow_gap:.4f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 3, height=3.5, sharey=True)
share = ratio.atan() / (math.pi / 2)  # 0 at the noise, 1 at the data
for ax, (name, track) in zip(axes, tracks.items(), strict=False):
    ax.plot(when[name], track, color=LOOK[name], linewidth=1.3)
    ax.set(xlabel="t", title=f"{name} path")
axes[2].plot(share, tracks["OT"] / scales["OT"], color=LOOK["OT"], linewidth=1.3)
some = slice(3, None, 12)
axes[2].plot(share[some], (tracks["VP"] / scales["VP"])[some], "o", color=LOOK["VP"], markersize=3.6)
axes[2].set(xlabel=r"$\frac{2}{\pi} \arctan(\alpha_t / \sigma_t)$", title="both, rescaled")
axes[0].set(ylabel="x", ylim=(-2.7, 2.7))
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# The same 24 noise samples along the OT path and along the VP path. On the right, each place is divided by
# $\sqrt{\alpha_t^2 + \sigma_t^2}$ and drawn against a function of $\alpha_t / \sigma_t$: the dots (VP path) lie on
# the lines (OT path). It is one flow.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### All five paths of `fmcore`
#
# On the eight Gaussians, each path starts from `path.source_scale` times the same noise.

# %% slideshow={"slide_type": "fragment"}
reached = {"rectified": flows["OT"], "variance_preserving": flows["VP"]}  # solved above
for path in (paths.ot(0.001), paths.variance_exploding(0.001, 100.0), paths.cosine()):
    field = mixture_velocity(path, centres, 0.2)
    reached[path.name] = solvers.solve(field, path.source_scale * x0, t1=path.t_max, rtol=1e-7, atol=1e-7)
distances = {name: float((flow.x - flows["OT"].x).norm(dim=1).max()) for name, flow in reached.items()}
for name, distance in distances.items():
    print(f"{name:20} NFE {reached[name].nfe:3}   largest distance to the end on the rectified path {distance:.5f}")
five_gap = max(distances.values())

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Real digits
#
# The same on 8x8 images in $[-1, 1]$, with two networks that are equal in everything but the path, the **OT network**
# and the **VP network**: the same initial weights, the same 800 steps, the same flow matching loss. Lipman et al.
# call them "FM with OT" and "FM with diffusion".


# %% slideshow={"slide_type": "fragment"}
def trained(loss, path, points, width, batch, lr, weight=None):
    """A network trained with one of the losses of fmcore; the same seeds for all."""

    def on_batch(model, x1, generator):
        x0 = torch.randn(x1.shape, generator=generator)
        return loss(model, path, x0, x1, weight=weight, generator=generator)

    torch.manual_seed(0)
    network = networks.MLP(points[0].numel(), width=width, depth=3)
    config = training.TrainingConfig(steps=800, batch=batch, lr=lr, decay="cosine", ema=0.99)
    return training.train(network, on_batch, points, config, progress=False, ahead=0).ema.requires_grad_(False)


fm = losses.conditional_flow_matching
digits = data.digits()
images = digits.scaled(digits.train)
digit_nets = {"OT": trained(fm, ot, images, 256, 128, 5e-3), "VP": trained(fm, vp, images, 256, 128, 5e-3)}

# %% slideshow={"slide_type": "fragment"}
noise = torch.randn(256, 1, 8, 8, generator=torch.Generator().manual_seed(3))
digit_flows = {}
for name, path in {"OT": ot, "VP": vp}.items():
    moments = path.t_max * line
    digit_flows[name] = solvers.solve(digit_nets[name], noise, t1=path.t_max, times=moments)
    left["digits, " + name] = noise_left(digit_flows[name], digit_nets[name], path)
    halfway["digits, " + name] = half_time(left["digits, " + name])
    print(f"digits, {name} path: half of the noise is gone at t = {halfway['digits, ' + name]:.2f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
columns = [0, 40, 80, 110, 130, 150, 170, 185, 200]
near = torch.cdist(digit_flows["OT"].x.flatten(1), images.flatten(1)).amin(dim=1)
chosen = near.argsort()[[0, 3, 4]].tolist()  # three of the clearest digits: near a real one
rows = [flow.trajectory[columns, k] for k in chosen for flow in digit_flows.values()]
titles = [f"t = {float(line[k]):.2f}" for k in columns]
labels = ["OT path", "VP path"] * 3
plotting.images(torch.cat(rows), columns=9, rows=labels, titles=titles, low=-1.1, high=1.1, width=7.8)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Three noise samples along both paths. The digit shows early on the OT path and late on the VP path. The last column
# holds what the derivation predicts: two networks, trained separately on different paths, make nearly the same digit.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### How near is "nearly the same"?
#
# For comparison we take the distance between samples from *different* noise. A second comparison is with the ends of
# the exact velocity.

# %% slideshow={"slide_type": "fragment"}
ends = {name: flow.x for name, flow in digit_flows.items()}
ends["exact"] = solvers.solve(closed_form.EmpiricalVelocity(images, ot), noise, t1=ot.t_max, rtol=1e-3, atol=1e-3).x


def apart(a, b):
    """Root mean square distance per pixel."""
    return float((a - b).square().mean().sqrt())


pair_ratio = apart(ends["OT"], ends["VP"]) / apart(ends["OT"], ends["OT"].roll(1, 0))
nearer_ratio = apart(ends["OT"], ends["VP"]) / apart(ends["OT"], ends["exact"])
for name in ("VP", "exact"):
    other, said = apart(ends["OT"], ends[name].roll(1, 0)), {"VP": "VP network", "exact": "exact velocity"}[name]
    print(f"OT network against {said:15} same noise {apart(ends['OT'], ends[name]):.2f}, other noise {other:.2f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
sheet = torch.cat([ends[name][:14] for name in ("exact", "OT", "VP")])
rows = ["exact velocity", "OT network", "VP network"]
plotting.images(sheet, columns=14, rows=rows, low=-1, high=1)

# %% [markdown] slideshow={"slide_type": "fragment"}
# From the same noise (a column) the OT network ends nearer to the VP network than to the exact velocity. Both
# networks are smoother than the exact velocity, which returns training images only.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What a path costs
#
# The flow is one, but a solver does not see that: it takes equal steps in the $t$ of the path and in the $x$ of the
# path. If a path does nearly everything at the end, equal steps in $t$ are badly placed. Lipman et al. 2023 measured
# on ImageNet-32 that the OT path reaches the same error with about 60% of the evaluations. Our protocol:
#
# - the same noise for both paths, equal steps in $t$ from 0 to $1 - 10^{-5}$, the midpoint method (2 evaluations per
#   step), NFE from 4 to 100;
# - the error is the mean squared distance, per dimension, to the end of *the same path* computed by a method of order
#   4 with 100 steps (400 evaluations), whose own error is far smaller;
# - "NFE at equal error" is read off each curve by interpolation, linear between logarithms.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Divide the NFE that the OT path needs by the NFE that the VP path needs, at the same error. Is it a property of the "
    "two paths?",
    [
        "yes: about 0.6, whatever the data, the network and the error",
        "no: it depends on all three, but it is below 1 in these experiments",
        "no: at small errors the VP path is better, because it slows down near the data",
    ],
    answer=1,
    because="The error of a solver depends on the velocity along the flow, so on the data and the network. "
    "What the paths fix is how the steps are spread over the noise levels.",
)


# %% slideshow={"slide_type": "subslide"}
def true_ends(field, path, x0):
    """Where the flow ends: 100 steps of order 4."""
    return solvers.solve(field, x0, t1=path.t_max, method="rk4", steps=100).x


def error_curve(field, path, x0):
    """Mean squared error per dimension of the midpoint method for each NFE."""
    truth = true_ends(field, path, x0)
    ends = [solvers.solve(field, x0, t1=path.t_max, method="midpoint", steps=n // 2) for n in NFE]
    assert [end.nfe for end in ends] == NFE
    return torch.stack([(end.x - truth).square().mean() for end in ends]).double()


def nfe_at(level, errors):
    """The NFE at which a curve first falls to the level; not-a-number if the level is outside the curve."""
    for k in range(len(NFE) - 1):
        if errors[k] >= level > errors[k + 1]:
            a, b = float(errors[k].log()), float(errors[k + 1].log())
            part = (a - math.log(level)) / (a - b)
            return math.exp(math.log(NFE[k]) + part * (math.log(NFE[k + 1]) - math.log(NFE[k])))
    return math.nan


# %% slideshow={"slide_type": "skip"}
NFE = [4, 6, 8, 10, 14, 20, 28, 40, 56, 80, 100]
plane_noise = torch.randn(1000, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
plane_points = data.toy.eight_gaussians(4000, torch.Generator().manual_seed(5))
plane_nets = {name: trained(fm, path, plane_points, 64, 256, 2e-2) for name, path in {"OT": ot, "VP": vp}.items()}

# %% slideshow={"slide_type": "subslide"}
route = {"OT": ot, "VP": vp}
exact_pair = {"OT": exact["rectified"], "VP": exact["VP"]}
experiments = {
    "plane, exact": {name: error_curve(exact_pair[name], route[name], plane_noise) for name in route},
    "plane, networks": {name: error_curve(plane_nets[name], route[name], plane_noise.float()) for name in route},
    "digits, networks": {name: error_curve(digit_nets[name], route[name], noise) for name in route},
}
LEVELS = (1e-2, 1e-3, 1e-4, 1e-5)
quotient = {}
print(f"{'NFE: OT path / VP path':23}" + "".join(f"{f'error {level:.0e}':>20}" for level in LEVELS))
for name, pair in experiments.items():
    counts = [(nfe_at(level, pair["OT"]), nfe_at(level, pair["VP"])) for level in LEVELS]
    quotient[name] = {level: a / b for level, (a, b) in zip(LEVELS, counts, strict=True)}
    cells = (f"{a:.1f} / {b:.1f} = {a / b:.2f}" if a == a else "less than 4 suffice" for a, b in counts)
    print(f"{name:23}" + "".join(f"{cell:>20}" for cell in cells))

# %% slideshow={"slide_type": "fragment"}
levels = torch.logspace(-1, -6, 120)
ratios = {
    name: torch.tensor([nfe_at(float(level), pair["OT"]) / nfe_at(float(level), pair["VP"]) for level in levels])
    for name, pair in experiments.items()
}
defined = torch.cat([values[~values.isnan()] for values in ratios.values()])
ratio_low, ratio_high = float(defined.min()), float(defined.max())
print(f"NFE of the OT path over NFE of the VP path, over all errors reached: {ratio_low:.2f} to {ratio_high:.2f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 3, height=3.6)
for ax, name in zip(axes, ("plane, exact", "digits, networks"), strict=False):
    pair = {f"{path} path": errors for path, errors in experiments[name].items()}
    plotting.error_against(NFE, pair, xlabel="NFE", ylabel="", fit=False, colors=colors, title=name, ax=ax)
    ax.set_xticks([4, 10, 20, 40, 100], ["4", "10", "20", "40", "100"])
axes[0].set_ylabel("squared error per dimension")
looks = ((style.EXACT, "-"), (style.PATH, "--"), (style.DATA, "-."))
for (name, values), (color, dashes) in zip(ratios.items(), looks, strict=True):
    axes[2].plot(levels, values, color=color, linestyle=dashes, label=name)
axes[2].axhline(0.6, color=GREY, linestyle=":", linewidth=2, label="Lipman et al.")
axes[2].set(xscale="log", xlabel="error", title="NFE, OT over VP path", ylim=(0, 1))
axes[2].invert_xaxis()
axes[2].minorticks_off()
axes[2].legend(loc="lower right", fontsize=9, handlelength=2.6)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# The OT path needs fewer evaluations at every error that both curves reach. How many fewer is not one number: the
# quotient depends on the data, the network and the error.

# %% [markdown] slideshow={"slide_type": "notes"}
# For large NFE the midpoint method has squared errors $C\, \mathrm{NFE}^{-4}$ on both paths, so the curves become
# parallel and the quotient tends to $(C_{\mathrm{OT}} / C_{\mathrm{VP}})^{1/4}$; with few steps there is no such law.
# The 0.6 of Lipman et al., for U-Nets on ImageNet-32, lies in the range that is printed above. Neither the data nor
# the networks are the same here, so this does not reproduce their number.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Why not the exact velocity of the digits?
#
# Because the mean squared error then measures something else. With finitely many data points the exact flow ends *at*
# one of them. The error of a solver is then either close to zero, or the point has gone to another image.

# %% slideshow={"slide_type": "fragment"}
few = noise[:64]
switched, mean_error, median_error = {}, {}, {}
for name, path in route.items():
    field = closed_form.EmpiricalVelocity(images, path)
    truth = solvers.solve(field, few, t1=path.t_max, rtol=1e-4, atol=1e-4).x
    found = [solvers.solve(field, few, t1=path.t_max, method="midpoint", steps=n // 2).x for n in NFE]
    errors = torch.stack([(x - truth).square().flatten(1).mean(dim=1) for x in found])
    home = torch.cdist(truth.flatten(1), images.flatten(1)).argmin(dim=1)
    other = [torch.cdist(x.flatten(1), images.flatten(1)).argmin(dim=1) != home for x in found]
    switched[name] = torch.stack([o.double().mean() for o in other])
    mean_error[name], median_error[name] = errors.mean(dim=1).double(), errors.median(dim=1).values.double()
    blame = (errors * torch.stack(other)).sum(dim=1) / errors.sum(dim=1)  # share of the error that these make
    said = (f"NFE {NFE[k]:2}: {int(other[k].sum()):2} make {float(blame[k]):.0%} of the error" for k in (0, 3, 5))
    print(f"{name} path, of 64 points, at another image:  " + ";  ".join(said))
switch_share = float(blame[5])

# %% slideshow={"slide_type": "fragment"}
exact_digits = nfe_at(3e-2, mean_error["OT"]) / nfe_at(3e-2, mean_error["VP"])
print(f"NFE of the OT path over NFE of the VP path at a mean error of 0.03: {exact_digits:.2f}")
above_median = min(float(mean_error[name][5] / median_error[name][5]) for name in route)
print(f"mean error over median error at NFE 20: at least {above_median:.0f} on both paths")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 2, height=3.7, width=8.4)
for name, marker in zip(route, "os", strict=True):
    look = {"color": LOOK[name], "marker": marker, "markersize": 5}
    axes[0].plot(NFE, mean_error[name], label=f"{name} path, mean", **look)
    middle = median_error[name].clamp(min=1e-14)
    axes[0].plot(NFE, middle, linestyle=":", markerfacecolor="white", label=f"{name} path, median", **look)
    axes[1].plot(NFE, switched[name], label=f"{name} path", **look)
axes[0].set(xscale="log", yscale="log", xlabel="NFE", title="squared error per dimension")
axes[1].set(xscale="log", xlabel="NFE", title="share of points at another image")
for ax in axes:
    ax.set_xticks([4, 10, 20, 40, 100], ["4", "10", "20", "40", "100"])
    ax.minorticks_off()
figure.legend(handles=axes[0].lines, loc="outside upper center", ncols=4, fontsize=10)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# At NFE 20 the mean error is far above the median: the median point has arrived, and a handful of points that ended at
# another image make nearly all of the mean. That is why the table above uses a smooth distribution and networks.

# %% [markdown] slideshow={"slide_type": "notes"}
# The medians of the two paths differ too. Near the end each point only moves to its own image, along a conditional
# path. On the OT path this is a straight line at constant speed, which every solver follows exactly. On the VP path
# the rate grows like $1 / (2 (1 - t))$, and the last step leaves some noise.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Is it only the times?
#
# If the flow is one, then to a solver the two paths differ only in scale and in the reparametrization of time. So
# take the VP path, and place its steps where the OT path has them: step $k$ of $K$ ends where $\alpha_t / \sigma_t$
# is what it is on the OT path at $t = k / K$. The scale remains that of the VP path.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "VP path, steps placed at the noise levels of the OT path. How does its error compare with that of the OT path?",
    [
        "it stays that of VP's own steps",
        "it is about half-way between the two",
        "it is within a factor of two of the OT path's",
    ],
    answer=2,
    because="What makes the VP path expensive is that equal steps in its t crowd where nothing happens. Placed at the "
    "noise levels of the OT path, they are worth nearly as much as those of the OT path.",
)


# %% slideshow={"slide_type": "fragment"}
def ot_times(steps):
    """Times on the VP path with the signal to noise that the rectified path has at k / steps; ends included."""
    own = torch.linspace(0, 1, steps + 1, dtype=torch.float64)[1:-1]
    inner = time_at(vp, own / (1 - own))
    return torch.cat([torch.zeros(1).double(), inner, torch.tensor([vp.t_max], dtype=torch.float64)])


truth = true_ends(exact["VP"], vp, plane_noise)
found = []
for n in NFE:
    flow = solvers.solve(exact["VP"], plane_noise, t1=vp.t_max, method="midpoint", times=ot_times(n // 2))
    assert flow.nfe == n
    found.append((flow.x - truth).square().mean())
curves = {f"{name} path": errors for name, errors in experiments["plane, exact"].items()}
curves["VP path, times of OT"] = torch.stack(found)
over_ot = {name: float((errors / curves["OT path"]).log().mean().exp()) for name, errors in curves.items()}
for name, value in over_ot.items():
    print(f"{name:20} squared error over that of the OT path, geometric mean over all NFE: {value:4.1f}")
gap_ratio, timed_ratio = over_ot["VP path"], over_ot["VP path, times of OT"]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
colors["VP path, times of OT"] = "#4E6E1F"
figure = plotting.error_against(NFE, curves, xlabel="NFE", ylabel="squared error", fit=False, colors=colors)
figure.axes[0].set_title("plane, exact velocity")
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# With the times of the OT path most of the gap between the two paths is gone. The merit of the OT path is a good
# reparametrization of time: equal steps in $t$ are well placed. A sampler on the VP path can have it too, by choosing
# its times.


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
def nfe_picture(nfe):
    """Ends with few evaluations (dots), joined to where the flow really ends."""
    steps, some = nfe // 2, plane_noise[:256]
    runs = {
        "OT path": solvers.solve(exact["rectified"], some, t1=ot.t_max, method="midpoint", steps=steps).x,
        "VP path": solvers.solve(exact["VP"], some, t1=vp.t_max, method="midpoint", steps=steps).x,
        "VP path, times of OT": solvers.solve(
            exact["VP"], some, t1=vp.t_max, method="midpoint", times=ot_times(steps)
        ).x,
    }
    figure, axes = plotting.canvas(1, 3)
    for ax, (name, x), marker in zip(axes, runs.items(), "os^", strict=True):
        for a, b in zip(truth[:256], x, strict=True):
            ax.plot(*torch.stack([a, b]).T, color=GREY, linewidth=0.9, zorder=1)
        ax.scatter(*x.T, s=15, marker=marker, color=colors[name], linewidths=0, zorder=2)
        ax.scatter(*truth[:256].T, s=4, color=style.EXACT, linewidths=0, zorder=3)
        title = f"{name}\nerror {(x - truth[:256]).square().mean():.2g}"
        style.blank(ax, 3.6).set_title(title, fontsize=11)
    figure.suptitle(f"{nfe} evaluations", fontsize=12)
    return figure


# %% slideshow={"slide_type": "subslide"}
widgets.explore(nfe_picture, nfe=widgets.choice([2, 4, 6, 8, 10, 14, 20, 28, 40], value=8, label="NFE"))

# %% slideshow={"slide_type": "fragment"}
single = {
    "OT path": solvers.solve(exact["rectified"], plane_noise, t1=ot.t_max, method="midpoint", steps=1).x,
    "VP path": solvers.solve(exact["VP"], plane_noise, t1=vp.t_max, method="midpoint", steps=1).x,
}
single = {name: float((x - truth).square().mean()) for name, x in single.items()}
print("squared error of a single step:", ", ".join(f"{name} {value:.2f}" for name, value in single.items()))

# %% [markdown] slideshow={"slide_type": "notes"}
# Black dots are the true ends, coloured marks what the solver makes of them. Try NFE 2, a single step: the order of
# the two paths is then not that of the table. "Fewer evaluations" holds for the errors one would accept, not for
# every number of steps.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## One model, four outputs
#
# A network may predict the velocity $v$, the noise $E$, the data $D$ or the score $S = -E / \sigma_t$. From
# $x = \alpha D + \sigma E$ and $v = \alpha' D + \sigma' E$, each follows from any other, given $x$ and $t$. For
# instance, without $D$:
#
# $$
# v = \frac{\alpha'}{\alpha}\, x - \frac{W}{\alpha}\, E , \qquad W = \alpha' \sigma - \alpha \sigma' > 0 .
# $$
#
# The same holds for a single pair, with the target $u = \alpha' x_1 + \sigma' x_0$ in place of $v$ and $x_0$ in place
# of $E$. Subtract the two: $x$ cancels, and an error of the noise is an error of the velocity, times a number.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Four losses, one weight apart
#
# Let $\hat v$ be the velocity that follows from what the network predicts. The flow matching loss of a pair,
# $\lVert \hat v - u \rVert^2$, is the network's own loss times a weight:
#
# | The network predicts | its own loss | weight |
# |---|---|---|
# | the noise, $\hat x_0$ | $\lVert \hat x_0 - x_0 \rVert^2$ | $W^2 / \alpha^2$ |
# | the data, $\hat x_1$ | $\lVert \hat x_1 - x_1 \rVert^2$ | $W^2 / \sigma^2$ |
# | the score, $\hat S$ | $\lVert \hat S + x_0 / \sigma \rVert^2$ | $W^2 \sigma^2 / \alpha^2$ |
#
# The number $W = \sigma^2\, r'$ says how fast the ratio of signal to noise grows.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
predict.ask(
    "Two networks without any limits, perfectly trained on the same path: one with the flow matching loss, one with the "
    "noise loss. How do their samples differ?",
    [
        "not at all",
        "the flow matching samples are better, because the target is a velocity",
        "the noise network needs stochastic sampling",
    ],
    answer=0,
    because="At each x and t both losses have the same minimizer, up to the change of variables: weights do not move the "
    "minimum. They matter as soon as the network cannot be perfect: then they decide where errors count.",
)


# %% slideshow={"slide_type": "subslide"}
def speed(path, t):
    """W = alpha' sigma - alpha sigma'."""
    return path.d_alpha(t) * path.sigma(t) - path.alpha(t) * path.d_sigma(t)


WEIGHTS = {
    "noise": lambda path, t: (speed(path, t) / path.alpha(t)) ** 2,
    "data": lambda path, t: (speed(path, t) / path.sigma(t)) ** 2,
    "score": lambda path, t: (speed(path, t) * path.sigma(t) / path.alpha(t)) ** 2,
}

# %% slideshow={"slide_type": "fragment"}
model = copy.deepcopy(digit_nets["OT"]).double()  # any network will do
generator = torch.Generator().manual_seed(6)
x1 = images[:256].double()
x0 = torch.randn(x1.shape, generator=generator, dtype=torch.float64)
weight_gap = 0.0
for path in (ot, vp, paths.cosine(), PATHS["VE"]):
    for t in torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9, 0.99], dtype=torch.float64):
        xt = path.interpolate(x0, x1, t)
        v = model(xt, t)
        flow_loss = (v - path.target(x0, x1, t)).square().mean()
        noise_loss = (path.velocity_to_noise(v, xt, t) - x0).square().mean()
        data_loss = (path.velocity_to_data(v, xt, t) - x1).square().mean()
        score_loss = (path.velocity_to_score(v, xt, t) + x0 / path.sigma(t)).square().mean()
        for name, loss in {"noise": noise_loss, "data": data_loss, "score": score_loss}.items():
            weight_gap = max(weight_gap, float((WEIGHTS[name](path, t) * loss / flow_loss - 1).abs()))
print(f"weighted losses over the flow matching loss, 4 paths, 6 times: 1 up to {weight_gap:.0e}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What the weights do
#
# The paths pass the noise levels at different times, so weights against $t$ cannot be compared between paths. They
# can be against the logarithm of signal to noise, $\lambda = \ln r$. An integral over $t$ becomes one over $\lambda$
# with $\mathrm{d}t = \mathrm{d}\lambda / \lambda'$, where
#
# $$
# \lambda' = \frac{\alpha'}{\alpha} - \frac{\sigma'}{\sigma} = \frac{W}{\alpha \sigma} .
# $$

# %% slideshow={"slide_type": "fragment"}
inside = torch.linspace(0.005, 0.995, 400, dtype=torch.float64)
signal = torch.logspace(-2, 2, 201, dtype=torch.float64)  # the middle one is 1
methods = {
    "FM, OT path": (ot, WEIGHTS["noise"]),
    "FM, VP path": (vp, WEIGHTS["noise"]),
    "noise loss, VP path": (vp, lambda path, t: torch.ones_like(t)),
}
counts = {}  # how much an error of the noise counts at each noise level, relative to signal = noise
for name, (path, loss_weight) in methods.items():
    t = time_at(path, signal)
    total = loss_weight(path, t) * path.alpha(t) * path.sigma(t) / speed(path, t)  # weight of the loss / lambda'
    counts[name] = total / total[100]
    ends_of = f"at signal / noise = 0.01: {float(counts[name][0]):6.2f}   at 10: {float(counts[name][150]):.3f}"
    print(f"{name:20} an error of the noise counts, {ends_of}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 3, height=3.7)
for ax, (name, path) in zip(axes, route.items(), strict=False):
    lines = {f"{k} loss": weight(path, inside) for k, weight in WEIGHTS.items()}
    shades = dict(zip(lines, (style.PATH, style.DATA, style.EXACT), strict=True))
    plotting.curves(inside, lines, xlabel="t", log="y", title=f"{name} path: weight", colors=shades, ax=ax)
    for drawn, dashes in zip(ax.lines, ("--", "-", ":"), strict=True):
        drawn.set_linestyle(dashes)
    ax.legend(handlelength=2.6)
    ax.set_ylim(1e-4, 1e5)
looks = ((style.DATA, "-"), (style.PATH, "--"), (style.EXACT, ":"))
for (name, values), (color, dashes) in zip(counts.items(), looks, strict=True):
    axes[2].plot(signal, values, color=color, linestyle=dashes, label=name)
axes[2].set(xscale="log", yscale="log", xlabel=r"signal to noise $\alpha_t / \sigma_t$", ylim=(1e-3, 1e3))
axes[2].set_title("weight of the noise error")
axes[2].legend(handlelength=2.6)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# Compared at the same noise level (right panel), the three methods differ at the noisy end: there flow matching on
# the OT path weights an error most, the noise loss of DDPM (Ho et al. 2020) least.

# %% [markdown] slideshow={"slide_type": "notes"}
# Left and middle: the weights that turn each loss into the flow matching loss. Right: how much an error of the
# predicted noise counts at each noise level, relative to the level at which signal and noise are equal. On the OT
# path it is exactly $1 / r$, from $w\, \mathrm{d}t / \mathrm{d}\lambda = (1 - t) / t$. Kingma & Gao 2023 compare
# diffusion losses in this way.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Flow matching or v-prediction?
#
# Salimans & Ho 2022 let a network predict $\mathbf{v} = \alpha x_0 - \sigma x_1$. "Flow matching" and "v-prediction"
# each stand for a set of choices:
#
# | What a paper means | "v-prediction" | "flow matching" |
# |---|---|---|
# | target | $\alpha x_0 - \sigma x_1$ | $\alpha' x_1 + \sigma' x_0$ |
# | usual path | variance preserving | OT path |
# | usual loss | mean square of $\mathbf{v}$ | mean square of $u$, $t$ uniform |
# | usual sampler | DDIM or an SDE | an ODE solver |
#
# **They agree** in what is learned. Solve $x_t$ and $\mathbf{v}$ for $x_0$ and $x_1$, and substitute:
#
# $$
# u = \frac{\alpha \alpha' + \sigma \sigma'}{\alpha^2 + \sigma^2}\, x_t - \frac{W}{\alpha^2 + \sigma^2}\, \mathbf{v} .
# $$
#
# On every path the one is a linear map of the other, given $x_t$. On a path with $\alpha^2 + \sigma^2 = 1$ the first
# term is zero: $u = -W \mathbf{v}$, with the constant $W = \pi/2$ on the cosine path. **They differ** in what usually
# comes with the word: the path, the weight ($W^2 / (\alpha^2 + \sigma^2)^2$ between the two losses) and the sampler.

# %% [markdown] slideshow={"slide_type": "notes"}
# On a path with $\alpha^2 + \sigma^2 = 1$ write $\alpha = \sin \varphi_t$, $\sigma = \cos \varphi_t$. Then
# $\mathrm{d} x_t / \mathrm{d} \varphi = -\mathbf{v}$ and $W = \varphi'$: up to the sign, $\mathbf{v}$ *is* the
# velocity, in the time $\varphi$. On the VP path of diffusion $\varphi'$ is not constant, so flow matching there is
# v-prediction with a weight that depends on $t$. A step of DDIM (Song et al. 2021) is a step of Euler's method for
# $\mathrm{d}y / \mathrm{d}r = D$: an ODE solver too, with a particular scale and time.

# %% slideshow={"slide_type": "subslide"}
x0 = torch.randn(256, 2, generator=generator, dtype=torch.float64)
x1, t = plane_points[:256].double(), 0.02 + 0.96 * torch.rand(256, generator=generator, dtype=torch.float64)
linear_gap, v_factor = 0.0, {}
for name, path in {"cosine": paths.cosine(), "VP": vp, "OT": ot, "VE": PATHS["VE"]}.items():
    a, s, da, ds = (f(t)[:, None] for f in (path.alpha, path.sigma, path.d_alpha, path.d_sigma))
    v, total = a * x0 - s * x1, a**2 + s**2
    of_x, of_v = (a * da + s * ds) / total, -speed(path, t)[:, None] / total
    u = path.target(x0, x1, t)
    linear_gap = max(linear_gap, float((of_x * path.interpolate(x0, x1, t) + of_v * v - u).norm() / u.norm()))
    v_factor[name] = of_v
    ends_of = (f"{round(float(c.min()), 3) + 0.0:7.3f} to {round(float(c.max()), 3) + 0.0:6.3f}" for c in (of_x, of_v))
    print(f"{name + ' path':12} u = a x_t + b v, with  a: {'   b: '.join(ends_of)}")
v_ratio, v_spread = float(v_factor["cosine"].mean()), float(v_factor["cosine"].std())
assert linear_gap < 1e-10, linear_gap
assert v_spread < 1e-6, v_spread
print(f"-pi/2 = {-math.pi / 2:.3f}; largest relative error of the linear map on all four paths {linear_gap:.0e}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# On the cosine path flow matching *is* v-prediction, times $-\pi/2$. On the VP path the factor depends on $t$, and on
# the other two the velocity also needs $x_t$.

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Does it matter in training?
#
# Three networks on the VP path in the plane, of the same size, seed and budget:
#
# - one predicts the velocity, with the flow matching loss (it is already trained);
# - one predicts the velocity, with the weight $(\alpha / W)^2$: that *is* the noise loss;
# - one predicts the noise, with the noise loss.
#
# All three are converted into noise predictions and compared with the exact one.

# %% slideshow={"slide_type": "skip"}
noise_net = trained(losses.noise_prediction, vp, plane_points, 64, 256, 2e-2)
weighted_net = trained(fm, vp, plane_points, 64, 256, 2e-2, weight=lambda t: 1 / WEIGHTS["noise"](vp, t))


def noise_of(field):
    return lambda x, t: vp.velocity_to_noise(field(x, t), x, t)


guesses = {
    "velocity, flow matching loss": noise_of(plane_nets["VP"]),
    "velocity, noise loss": noise_of(weighted_net),
    "noise, noise loss": noise_net,
}
generator = torch.Generator().manual_seed(7)
x1, x0 = data.toy.eight_gaussians(8192, generator), torch.randn(8192, 2, generator=generator)

# %% slideshow={"slide_type": "fragment"}
times = torch.tensor([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98])
wrong = {name: [] for name in guesses}
for t in times:
    xt = vp.interpolate(x0, x1, t)
    right = noise_of(exact["VP"])(xt.double(), t.double())
    for name, guess in guesses.items():
        wrong[name].append((guess(xt, t) - right).square().mean())
by_weight, by_output = (
    torch.tensor(wrong[a]) / torch.tensor(wrong["velocity, noise loss"])
    for a in ("velocity, flow matching loss", "noise, noise loss")
)
early_ratio, late_ratio, output_ratio = float(by_weight[2]), float(by_weight[11]), float(by_output[2])
print(f"another weight (first over second):    {early_ratio:.2f} at t = 0.2, {late_ratio:.2f} at t = 0.95")
print(f"another output (third over second):    {output_ratio:.2f} at t = 0.2, {float(by_output[11]):.2f} at t = 0.95")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
shades = dict(zip(guesses, (style.DATA, style.PATH, style.EXACT), strict=True))
plotting.curves(times, wrong, xlabel="t", ylabel="squared error of the noise", log="y", markers=True, colors=shades)

# %% [markdown] slideshow={"slide_type": "fragment"}
# The first two networks differ by the weight alone, and as the weights predict: the flow matching loss is nearer to the
# exact answer where noise dominates, the noise loss near the data.

# %% [markdown] slideshow={"slide_type": "notes"}
# The third has the loss of the second and another output; in this run that matters too. "The same model" is a
# statement about a perfect network. For a real one both the weight and the output decide where it errs. These are
# single runs of small networks: the direction of the first comparison follows from the weights, the size does not.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Convert a trained network
#
# The network that was trained with the flow matching loss on the VP path becomes a noise, a score and a data
# prediction, and each of these is turned back into a velocity. All four are solved from the same noise.
#
# The same for the network of the OT path. There $\alpha_0 = 0$: at $t = 0$, where $x$ *is* the noise, a noise
# prediction says nothing about the velocity, so these start at $t = 0.01$.


# %% slideshow={"slide_type": "fragment"}
def views(model, path):
    """The velocity of a network, and the velocities of the noise, score and data prediction made of it."""

    def noise_of(x, t):
        return path.velocity_to_noise(model(x, t), x, t)

    def score_of(x, t):
        return path.velocity_to_score(model(x, t), x, t)

    def data_of(x, t):
        return path.velocity_to_data(model(x, t), x, t)

    return {
        "noise": velocity.from_noise(noise_of, path),
        "score": velocity.from_score(score_of, path),
        "data": velocity.from_data(data_of, path),
    }


# %% slideshow={"slide_type": "fragment"}
convert_gap = 0.0
for name, path in route.items():
    model, begin = digit_nets[name], 0.0 if path is vp else 0.01
    straight = solvers.solve(model, noise[:64], begin, path.t_max).x
    for output, field in views(model, path).items():
        there = solvers.solve(field, noise[:64], begin, path.t_max).x
        convert_gap = max(convert_gap, apart(there, straight))
        print(f"{name} network as {output:5} prediction: rms difference per pixel {apart(there, straight):.1e}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
predict.ask(
    "A network was trained on the OT path. Can it be sampled along the VP path?",
    [
        "no: it has never seen a point of the VP path",
        "yes, but it makes other digits from the same noise",
        "yes, and it makes the same digits from the same noise",
    ],
    answer=2,
    because="What it has learned is the mean of the data at each signal-to-noise ratio, and that is the same for all paths. "
    "It only has to be asked at the right time and in the right scale.",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Change the path after training
#
# Not even the path is built into a network. To know the data prediction at $(x, t)$ on the VP path, ask the OT
# network at the place and time with the same $y$ and $r$:
#
# $$
# D_{\mathrm{VP}}(x, t) = D_{\mathrm{OT}}\Big( \frac{\tilde\sigma}{\sigma_t}\, x,\; \tilde t\, \Big) , \qquad
# \tilde t = \frac{r}{1 + r} , \quad \tilde\sigma = 1 - \tilde t , \quad r = \frac{\alpha_t}{\sigma_t} .
# $$


# %% slideshow={"slide_type": "fragment"}
def on_vp(model):
    """The velocity on the VP path of a network that was trained on the rectified path."""

    def moved(x, t):
        own = vp.alpha(t) / (vp.alpha(t) + vp.sigma(t))  # r / (1 + r)
        place = x * (1 - own) / vp.sigma(t)
        return vp.data_to_velocity(ot.velocity_to_data(model(place, own), place, own), x, t)

    return moved


moved_net = on_vp(digit_nets["OT"])
elsewhere = solvers.solve(moved_net, noise, t1=vp.t_max).x
path_gap = apart(digit_flows["OT"].x, elsewhere)
few_steps = [solvers.solve(moved_net, noise, t1=vp.t_max, method="midpoint", steps=n // 2).x for n in NFE]
moved_errors = torch.stack([(x - elsewhere).square().mean() for x in few_steps])
own_nfe, moved_nfe = nfe_at(1e-3, experiments["digits, networks"]["VP"]), nfe_at(1e-3, moved_errors)
same_net = nfe_at(1e-3, experiments["digits, networks"]["OT"]) / moved_nfe
print(f"one network, sampled on two paths: rms difference per pixel {path_gap:.1e}")
print(f"NFE on the VP path at an error of 1e-3: {moved_nfe:.1f}, of the network trained there {own_nfe:.1f}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# One network, sampled along two paths, gives the same digits. On the VP path it needs nearly as many evaluations as
# the network that was trained there: the saving of the OT path is a matter of sampling. What training on the OT path
# changes is the weight of the noise levels.

# %% [markdown] slideshow={"slide_type": "skip"}
# ## Which convention?
#
# | Path, in this course | TorchCFM 1.0 | Meta flow_matching 1.0 |
# |---|---|---|
# | `rectified()` | `ConditionalFlowMatcher` | `CondOTProbPath` |
# | `ot(sigma_min)` | `TargetConditionalFlowMatcher` | |
# | `variance_preserving()` | | `VPScheduler` |
# | `cosine()` | `VariancePreserving...` | `CosineScheduler` |
#
# | Call, in this course | TorchCFM 1.0 | Meta flow_matching 1.0 |
# |---|---|---|
# | `target(x0, x1, t)` | `ut` | `dx_t` of a sample |
# | `noise_to_velocity` | | `epsilon_to_velocity` |
# | `data_to_velocity` | | `target_to_velocity` |
# | `model(x, t)` | `model(t, x)` for images | `model(x=x, t=t)` |
#
# Both libraries have noise at $t = 0$ and data at $t = 1$, as here. Papers on diffusion have the data at time 0 and
# write $x_0$ for them. Mind the names: the full name in TorchCFM is `VariancePreservingConditionalFlowMatcher`, and
# it is our cosine path, not the diffusion of Song et al. With `sigma > 0` its `ConditionalFlowMatcher` adds noise of
# constant width beside that of $x_0$, which no affine path does.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Three pitfalls, as numbers
#
# - **Where to start.** The VE path starts from $\mathcal{N}(0, \sigma_{\max}^2 I)$, not from $\mathcal{N}(0, I)$:
#   multiply the noise by `path.source_scale`.
# - **Where to stop.** $\sigma_1 = 0$ on the VP path, and $u_t(x \mid x_1)$ divides by it. Train and sample up to
#   `path.t_max`, which is $1 - 10^{-5}$.
# - **Which sign.** With the score, the velocity of the VP path is $\tfrac12 \beta(1-t)\, (x + \nabla \log p_t)$. In
#   Lipman et al. 2023 the symbol for the score network means *minus* the score. With the wrong sign points run away.


# %% slideshow={"slide_type": "fragment"}
def score(x, t):
    return vp.velocity_to_score(exact["VP"](x, t), x, t)


def off(x):
    """Root mean square distance to the nearest centre; for the data it is sqrt(2) * 0.2 = 0.28."""
    return float(torch.cdist(x, centres).amin(dim=1).square().mean().sqrt())


ve, N = PATHS["VE"], plane_noise[:256]
results = {
    "VE from source_scale * x0": solvers.solve(exact["VE"], ve.source_scale * N, t1=ve.t_max).x,
    "VE from x0": solvers.solve(exact["VE"], N, t1=ve.t_max).x,
    "VP with the score": solvers.solve(velocity.from_score(score, vp), N, t1=vp.t_max).x,
    "VP with minus the score": solvers.solve(velocity.from_score(lambda x, t: -score(x, t), vp), N, t1=0.9).x,
}
radius = {name: float(x.norm(dim=1).mean()) for name, x in results.items()}
for name, x in results.items():
    print(f"{name:26} distance to the nearest centre {off(x):10.4g}   mean radius {radius[name]:10.4g} (data 2.5)")
pull = -float(vp.velocity(N, torch.zeros_like(N), vp.t_max)[0, 0] / N[0, 0])
print(f"rate k of the VP pull at t = 1 - 1e-5: {pull:,.0f}; at t = 1 it is infinite")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you saw

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
plane_quotient, net_quotient, digit_quotient = (quotient[name][1e-3] for name in experiments)
first = [
    Claim("Theorem 3 against finite differences of the flow map, 4 paths", max(finite_gap.values()), below(1e-6)),
    Claim(
        "one data point, share of the length covered at t = 0.5: OT path", gone["OT path"], about(0.5, 0.01), digits=2
    ),
    Claim("one data point, share of the length covered at t = 0.5: VP path", gone["VP path"], below(0.25)),
    Claim("eight Gaussians, one noise on OT and VP path: largest gap of the ends", ends_gap, below(1e-3)),
    Claim("digits, OT and VP network: gap for the same noise over other noise", pair_ratio, below(0.5)),
    Claim("NFE of OT / VP path at error 1e-3: plane, exact", plane_quotient, about(0.38, 0.02), digits=2),
    Claim("NFE of OT / VP path: largest at any error and in any experiment", ratio_high, below(1)),
    Claim("squared error over that of the OT path: VP path, times of OT", timed_ratio, below(2)),
    Claim("weighted noise, data and score loss over FM loss, minus 1", weight_gap, below(1e-9)),
    Claim("u over the v of Salimans & Ho on the cosine path: -pi/2", v_ratio, about(-1.5708, 1e-4), digits=4),
]
of_the_flow = [
    Claim("Theorem 3 by hand and in fmcore: largest difference", by_hand_gap, below(1e-10)),
    Claim("degrees by which the arrow at a place turns: rectified", turn["rectified"], below(0.1), digits=0),
    Claim("degrees by which the arrow at a place turns: VP path", turn["VP"], about(56.6, 0.3), digits=0),
    Claim("one data point, length over distance: OT path", bend["OT path"], about(1, 0.001), digits=2),
    Claim("one data point, length over distance: VP path", bend["VP path"], above(1.02)),
    Claim("eight Gaussians, half of the noise gone at t: OT path", halfway["OT"], between(0.3, 0.37)),
    Claim("eight Gaussians, noise left at t = 0.5: VP path", left["VP"][100], about(0.85, 0.02), digits=2),
]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
noisy_weight = float(counts["FM, OT path"][0] / counts["noise loss, VP path"][0])
of_the_solver = [
    Claim("digits, half of the noise gone at t: OT path", halfway["digits, OT"], between(0.43, 0.53)),
    Claim("digits, half of the noise gone at t: VP path", halfway["digits, VP"], between(0.77, 0.87)),
    Claim("digits, OT network: gap to the VP network over gap to the exact velocity", nearer_ratio, below(0.9)),
    Claim("the ends on all five paths of fmcore: largest gap", five_gap, below(1e-2)),
    Claim("OT path and VP path on the same scale and times: largest gap", one_flow_gap, below(1e-2)),
    Claim("NFE of OT / VP path at error 1e-3: plane, networks", net_quotient, between(0.4, 0.9)),
    Claim("NFE of OT / VP path at error 1e-3: digits, networks", digit_quotient, between(0.25, 0.55)),
    Claim(
        "NFE of OT / VP path at error 1e-5: plane, exact", quotient["plane, exact"][1e-5], about(0.52, 0.03), digits=2
    ),
    Claim("digits, one network on both paths: NFE of OT / VP at 1e-3", same_net, between(0.25, 0.55)),
    Claim("digits, exact, NFE 20: share of the error made by switched points", switch_share, above(0.5)),
    Claim("digits, exact, NFE 20: mean error over median error", above_median, above(10)),
    Claim("squared error over that of the OT path, all NFE: VP path", gap_ratio, above(10)),
    Claim("a single midpoint step: squared error of OT / VP path", single["OT path"] / single["VP path"], above(1)),
]

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
of_the_model = [
    Claim("u as a linear map of x_t and v, 4 paths: relative error", linear_gap, below(1e-10)),
    Claim("velocity network, error with FM over noise loss, t = 0.2", early_ratio, below(0.7)),
    Claim("velocity network, error with FM over noise loss, t = 0.95", late_ratio, above(1)),
    Claim("weight of the noise error at signal / noise 0.01: FM, OT path / noise loss", noisy_weight, above(10)),
    Claim("network as noise, score, data prediction: rms gap per pixel", convert_gap, below(1e-3)),
    Claim("one network on two paths: rms gap per pixel", path_gap, below(0.02)),
    Claim("its NFE on the VP path over that of the network trained there", moved_nfe / own_nfe, between(0.75, 1.25)),
    Claim("radius of samples on VP with minus the score (data: 2.5)", radius["VP with minus the score"], above(100)),
]
claims.table(first + of_the_flow + of_the_solver + of_the_model)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## To remember
#
# - A path is two schedules. Its conditional velocity is a pull towards $a_t x_1$ at a rate $k_t$; both follow from
#   the schedules.
# - All affine paths are one flow, up to the scale and a reparametrization of time. They take the same noise to the
#   same data.
# - The OT path is cheap to sample because equal steps in its time are well placed. How cheap depends on the data, the
#   network and the error that one accepts.
# - Velocity, noise, data and score are one prediction in four variables. The losses differ by a weight over the noise
#   levels, and that is what to compare.
# - v-prediction is flow matching on a variance preserving path, up to a factor that depends on $t$.

# %% [markdown] slideshow={"slide_type": "skip"}
# ## References
#
# - Lipman, Chen, Ben-Hamu, Nickel, Le 2023. *Flow Matching for Generative Modeling.* ICLR. arXiv 2210.02747. Theorem
#   3, the OT path, the comparison with diffusion paths.
# - Ho, Jain, Abbeel 2020. *Denoising Diffusion Probabilistic Models.* NeurIPS. arXiv 2006.11239. The noise loss.
# - Song, Meng, Ermon 2021. *Denoising Diffusion Implicit Models.* ICLR. arXiv 2010.02502. DDIM.
# - Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole 2021. *Score-Based Generative Modeling through Stochastic
#   Differential Equations.* ICLR. arXiv 2011.13456. The VP and VE diffusions.
# - Nichol, Dhariwal 2021. *Improved Denoising Diffusion Probabilistic Models.* ICML. arXiv 2102.09672. The cosine
#   schedule.
# - Kingma, Salimans, Poole, Ho 2021. *Variational Diffusion Models.* NeurIPS. arXiv 2107.00630. Time as signal to
#   noise.
# - Salimans, Ho 2022. *Progressive Distillation for Fast Sampling of Diffusion Models.* ICLR. arXiv 2202.00512.
#   v-prediction.
# - Karras, Aittala, Aila, Laine 2022. *Elucidating the Design Space of Diffusion-Based Generative Models.* NeurIPS.
#   arXiv 2206.00364. Scale and times of a sampler as free choices.
# - Kingma, Gao 2023. *Understanding Diffusion Objectives as the ELBO with Simple Data Augmentation.* NeurIPS.
#   arXiv 2303.00848. Losses compared by their weight at each noise level.
# - Albergo, Vanden-Eijnden 2023. *Building Normalizing Flows with Stochastic Interpolants.* ICLR. arXiv 2209.15571.
#   The cosine path as an interpolant.
#
# Where to read on: Karras et al. 2022 on how to choose scale and times of a sampler; Kingma & Gao 2023 on what the
# weights of the losses mean.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# In [exercises/04_probability_paths.ipynb](exercises/04_probability_paths.ipynb); each has a check that says what is
# wrong.
#
# 1. **A path that always points at the data.** Which $\alpha_t$ belongs to a given $\sigma_t$?
# 2. **A velocity in other coordinates.** Change the time and the scale of a flow, then sample a network on another
#    path.
# 3. **A sampler that is wrong at one end.** Two paths, two symptoms: find the causes by experiment and mend the
#    sampler.
# 4. **A loss in another time.** What a change of time does to the weight of the loss.
# 5. **The straight path needs the least energy.** A proof in three steps, each checked numerically.
# 6. **Is the straight path always the cheapest to sample?** Find Gaussian data that decide the question.
#
# <!-- next: written by fmcore.course.build -->
#
# Next: [05 Optimal transport](05_optimal_transport.ipynb). What changes when pairs are chosen, not drawn?
#
# <!-- end of next -->
