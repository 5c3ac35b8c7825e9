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
# matching. This chapter derives the velocity of every such path, watches two of them at work, counts what each costs
# a solver, and finds that they have more in common than their pictures suggest: they carry the same noise to the same
# data.

# %% slideshow={"slide_type": "skip"}
import copy
import math

import torch
from matplotlib.colors import LogNorm

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
    ],
    before=["chapter 03: conditional and marginal velocity, the two theorems", "chapter 01: the VP and VE diffusions"],
    exercises=[
        "1. The velocity of any path",
        "2. From score to velocity",
        "3. The weight between two losses",
        "4. The same place on another path",
        "5. NFE at equal error",
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
# $\alpha_t$ says how much of the data is there at time $t$, $\sigma_t$ how much noise. Near $t = 0$ the noise wins,
# near $t = 1$ the data. In between, anything goes.
#
# | Path | $\alpha_t$ | $\sigma_t$ |
# |---|---|---|
# | rectified | $t$ | $1 - t$ |
# | OT | $t$ | $1 - (1 - \sigma_{\min})\, t$ |
# | VP, variance preserving | $e^{-T(1-t)/2}$ | $\sqrt{1 - \alpha_t^2}$ |
# | VE, variance exploding | $1$ | $\sigma_{\min}\, (\sigma_{\max} / \sigma_{\min})^{1-t}$ |
#
# As in chapter 01, $\beta(s) = 0.1 + 19.9\, s$ is the noise rate and $T(s) = 0.1\, s + 9.95\, s^2$ its integral, with
# $s = 1 - t$ the time of the diffusion.

# %% [markdown] slideshow={"slide_type": "notes"}
# "OT" is what Lipman et al. 2023 call the optimal-transport path: for one data point, it moves the noise to it in the
# cheapest way. For a whole data set it is *not* optimal transport; chapter 05 is about that. Its limit
# $\sigma_{\min} = 0$ is the rectified path of chapter 03. In the text we say "OT" for both where they do not differ.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Half of the time is over, t = 0.5. How much noise is left on the VP path: what is sigma?",
    ["0.50", "0.71", "0.96"],
    answer=2,
    because="The noise rate is largest at the source. On the way from noise to data, the first half of the time "
    "undoes noise that had long drowned the data, and little changes. The rectified path has 0.50.",
)

# %% slideshow={"slide_type": "subslide"}
PATHS = {
    "rectified": paths.rectified(),
    "OT": paths.ot(sigma_min=0.1),
    "VP": paths.variance_preserving(),
    "VE": paths.variance_exploding(sigma_min=0.01, sigma_max=50.0),
}
ot, vp = PATHS["rectified"], PATHS["VP"]  # the two that the chapter compares
line = torch.linspace(0, 1, 201)
figure, axes = plotting.canvas(1, 4, height=2.8)
for ax, (name, path) in zip(axes, PATHS.items(), strict=True):
    both = {r"$\alpha_t$": path.alpha(line), r"$\sigma_t$": path.sigma(line)}
    colors = dict(zip(both, (style.DATA, style.SOURCE), strict=True))
    title = {"OT": r"OT, $\sigma_{\min} = 0.1$", "VE": "VE, logarithmic"}.get(name, name)
    plotting.curves(line, both, xlabel="t", colors=colors, title=title, log="y" if name == "VE" else "", ax=ax)
    ax.set_xticks([0, 0.5, 1])
noise_left = {name: float(path.sigma(torch.tensor(0.5))) / path.source_scale for name, path in PATHS.items()}
print("share of the noise left at t = 0.5:", ", ".join(f"{k} {v:.3f}" for k, v in noise_left.items()))
figure

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Theorem 3: the velocity of one data point
#
# Fix $x_1$. A point that starts at $x_0$ is at time $t$ at
#
# $$
# \psi_t(x_0) = \alpha_t x_1 + \sigma_t x_0 , \qquad\text{so it moves with}\qquad
# \frac{\mathrm{d}}{\mathrm{d}t} \psi_t(x_0) = \alpha_t' x_1 + \sigma_t' x_0 .
# $$
#
# A velocity *field* must say this as a function of the place $x = \psi_t(x_0)$. The place tells where the point came
# from, $x_0 = (x - \alpha_t x_1) / \sigma_t$. Put it in:
#
# $$
# u_t(x \mid x_1) = \frac{\sigma_t'}{\sigma_t} \big( x - \alpha_t x_1 \big) + \alpha_t' x_1 .
# $$

# %% [markdown] slideshow={"slide_type": "notes"}
# This is Theorem 3 of Lipman et al. 2023; the prime is the derivative in $t$. Nothing was used but that
# $\sigma_t > 0$ (to solve for $x_0$) and that both schedules are differentiable. With Theorems 1 and 2 it is all that
# flow matching needs to know about a path.


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
# A formula that agrees with itself proves nothing. The flow map $\psi_t$ needs no derivative, so move the time a
# little and see where the point goes:
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
# Every one of these fields is a pull: towards the **aim** $a_t x_1$, at the **rate** $k_t$.
#
# | | aim $a_t$ | rate $k_t$ |
# |---|---|---|
# | rectified | $1$ | $1 / (1 - t)$ |
# | OT | $1 / (1 - \sigma_{\min})$ | $1 / (1 / (1 - \sigma_{\min}) - t)$ |
# | VP | $1 / \alpha_t$ | $\tfrac12 \beta(1-t)\, \alpha_t^2 / \sigma_t^2$ |
# | VE | $1$ | $\ln(\sigma_{\max} / \sigma_{\min})$ |

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "At one place x, watch the arrow of the VP path as t goes from 0 to 1. What does it do?",
    [
        "it keeps its direction and grows, like that of the rectified path",
        "it turns: first parallel to x1, in the end towards the data point",
        "it turns once around the data point",
    ],
    answer=1,
    because="The aim x1 / alpha starts 150 times as far away as the data point, so at first all arrows are parallel to "
    "x1 and weak. As alpha grows the aim comes closer, and the arrows turn to the data point.",
)


# %% slideshow={"slide_type": "skip"}
def draw_field(path, t, ax, target=(1.1, 0.7), limit=2.5, arrows=11):
    """Directions (arrows) and speed (shade) of u_t(x | x1); circles: one and two sigma of p_t(x | x1)."""
    x1 = torch.tensor(target)
    t = torch.tensor(float(t))
    where = plotting.grid(limit * (1 - 1 / arrows), arrows)
    u = path.velocity(where, x1.expand_as(where), t)
    speed = u.norm(dim=1)
    drawn = ax.quiver(
        *where.T, *(u / speed[:, None]).T, speed.clamp(0.12, 90), cmap=style.density_map(), norm=LogNorm(0.02, 100),
        pivot="mid", scale=1.2 * arrows, width=0.1 / arrows, headwidth=3.6, headlength=4, headaxislength=3.6,
    )  # fmt: skip
    angle = torch.linspace(0, 2 * math.pi, 100)
    for radius in (1, 2):
        circle = path.alpha(t) * x1[:, None] + radius * path.sigma(t) * torch.stack([angle.cos(), angle.sin()])
        ax.plot(*circle, color=style.color_of(t), linewidth=2.2 / radius)
    ax.scatter(*x1, marker="*", s=110, color="white", edgecolors=style.EXACT, linewidths=1.3, zorder=4)
    aim = (path.alpha(t) - path.d_alpha(t) * path.sigma(t) / path.d_sigma(t)) * x1
    ax.scatter(*aim, marker="x", s=45, color=style.PATH, linewidths=2.2, zorder=5)
    style.blank(ax, limit)
    return drawn


# %% slideshow={"slide_type": "subslide"}
figure, axes = plotting.canvas(3, 4, height=6.1)
for row, name in zip(axes, ("rectified", "VP", "VE"), strict=True):
    for ax, time in zip(row, (0.0, 0.4, 0.7, 0.95), strict=True):
        drawn = draw_field(PATHS[name], time, ax)
        ax.set_title(f"t = {time:g}" if name == "rectified" else "")
    row[0].set_ylabel(name)
bar = figure.colorbar(drawn, ax=axes, label="speed", shrink=0.6, ticks=[0.1, 1, 10, 100])
bar.ax.set_yticklabels(["0.1", "1", "10", "100"])
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# Star: the data point $x_1$. Cross: the aim $a_t x_1$, where it is in view. Circles: the Gaussian
# $p_t(x \mid x_1)$, at one and two standard deviations. All arrows are equally long; their shade is the speed, on the
# same scale in all panels. The rectified field never turns; it only gets faster. The VP field starts slow and
# parallel (its aim is far outside the picture), bends, and closes in late. The VE field does not change at all: for
# most of the time its Gaussian, up to 50 wide, is outside the picture. As numbers: by how much the arrow at a place
# turns between $t = 0$ and $t = 0.95$, and how much of its way a point has gone at half time.

# %% slideshow={"slide_type": "fragment"}
place = plotting.grid(2.3, 12)
target = torch.tensor([1.1, 0.7]).expand_as(place)
noise = torch.randn(1000, 2, generator=torch.Generator().manual_seed(1))
turn, gone = {}, {}
for name, path in PATHS.items():
    first, last = path.velocity(place, target, 0.0), path.velocity(place, target, 0.95)
    cosine = torch.cosine_similarity(first, last, dim=1).clamp(-1, 1)
    turn[name] = float(cosine.acos().rad2deg().mean())
    states = torch.stack([path.interpolate(noise, target[:1].expand_as(noise), s) for s in path.t_max * line])
    lengths = states.diff(dim=0).norm(dim=-1).cumsum(dim=0).mean(dim=1)
    gone[name] = float(lengths[99] / lengths[-1])
    print(f"{name:10} mean turn {turn[name]:5.1f} degrees   way gone at t = 0.5: {gone[name]:.0%}")


# %% slideshow={"slide_type": "skip"}
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
    colors = dict(zip(lines, (style.DATA, style.SOURCE, style.PATH), strict=True))
    plotting.curves(times, lines, xlabel="t", colors=colors, ax=right)
    right.axvline(t, color=style.MUTED, zorder=0)
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
# points. For a *smooth* distribution, take Gaussians of standard deviation $s$ around centres $m_1, \dots, m_K$. Add
# noise and they stay Gaussians, of variance $V_t = \alpha_t^2 s^2 + \sigma_t^2$, and Bayes' rule gives the mean of the
# data seen from $x$:
#
# $$
# \mathbb{E}[x_1 \mid x_t = x] = \sum_k w_k \Big( m_k + \frac{\alpha_t s^2}{V_t} \big( x - \alpha_t m_k \big) \Big) ,
# \qquad
# w_k = \operatorname{softmax}_k \Big( \! - \frac{\| x - \alpha_t m_k \|^2}{2 V_t} \Big) .
# $$
#
# $u_t(x \mid x_1)$ is linear in $x_1$, so the marginal velocity (Theorem 1: the average over $x_1$ given $x$) is
# $u_t(x \mid \mathbb{E}[x_1 \mid x])$.


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
# The same 600 noise samples follow the exact velocity of the eight Gaussians, once of the OT path, once of the VP
# path. Everything in this experiment is exact: no network, and a solver with a tolerance of $10^{-7}$.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "One noise sample x0 follows the flow of the OT path, then that of the VP path. Where does it end?",
    [
        "at two unrelated points of the data distribution",
        "in the same one of the eight Gaussians, but at different points",
        "at the same point, both times",
    ],
    answer=2,
    because="Look at the numbers below; the reason follows. The paths differ in when they do what, not in where they go.",
)

# %% slideshow={"slide_type": "fragment"}
x0 = torch.randn(600, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
flows = {}
for name in ("OT", "VP"):
    path = {"OT": ot, "VP": vp}[name]
    moments = path.t_max * line.double()
    field = exact["rectified" if name == "OT" else name]
    flows[name] = solvers.solve(field, x0, t1=path.t_max, rtol=1e-7, atol=1e-7, times=moments)
shown = [0, 0.2, 0.4, 0.6, 0.8, 1]
figure, axes = plotting.canvas(2, 6, height=3.15)
for row, (name, flow) in zip(axes, flows.items(), strict=True):
    plotting.snapshots(flow, times=shown, limit=3.4, size=3, title="t = {t:.1f}" if name == "OT" else "", axes=row)
    row[0].set_ylabel(name)
figure


# %% [markdown] slideshow={"slide_type": "skip"}
# How much noise is in a point on its way? The posterior mean of the noise, $\mathbb{E}[x_0 \mid x_t]$, which
# `path.velocity_to_noise` reads off the velocity, times $\sigma_t$. Its root mean square, relative to the start:


# %% slideshow={"slide_type": "subslide"}
def noise_left(flow, field, path):
    """Root mean square of sigma_t E[x0 | x_t] over its value at the start, at each time of the flow."""
    found = []
    for t, x in zip(flow.times, flow.trajectory, strict=True):
        found.append(path.sigma(t) * path.velocity_to_noise(field(x, t.to(x)), x, t.to(x)).square().mean().sqrt())
    return torch.stack(found) / found[0]


def half_time(values):
    """The first of the times of `line` at which the values are below one half."""
    return float(line[(values < 0.5).nonzero()[0, 0]])


LOOK = {"OT": style.DATA, "VP": style.SOURCE}
left = {"OT": noise_left(flows["OT"], exact["rectified"], ot), "VP": noise_left(flows["VP"], exact["VP"], vp)}
halfway = {name: half_time(values) for name, values in left.items()}
figure, axes = plotting.canvas(1, 3, height=3.3)
for ax, (name, flow) in zip(axes, flows.items(), strict=False):
    plotting.trajectories(flow, count=70, limit=3.4, title=name, ax=ax)
plotting.curves(line, left, xlabel="t", title="share of the noise that is left", colors=LOOK, ax=axes[2])
axes[2].axhline(0.5, color=style.MUTED, linewidth=1, zorder=0)
figure

# %% slideshow={"slide_type": "fragment"}
ends_gap = float((flows["OT"].x - flows["VP"].x).norm(dim=1).max())
for name, values in left.items():
    print(f"{name}: half of the noise is gone at t = {halfway[name]:.2f}; left at t = 0.5: {float(values[100]):.0%}")
print(f"largest distance between the two ends of one noise: {ends_gap:.5f}")

# %% [markdown] slideshow={"slide_type": "skip"}
# On the OT path the noise goes from the first moment on; half of it is gone after a third of the time. On the VP path
# more than four fifths are still there at half time, and the points turn late and sharply. And yet both end at the
# same points. This is no property of the eight Gaussians.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A path is a clock and a ruler
#
# Write $D$ and $E$ for the mean of the data and of the noise given the place, $D = \mathbb{E}[x_1 \mid x_t = x]$ and
# $E = \mathbb{E}[x_0 \mid x_t = x]$. Averaging $x_t$ and its derivative gives two lines from which everything else in
# this chapter follows:
#
# $$
# x = \alpha_t D + \sigma_t E , \qquad \frac{\mathrm{d}x}{\mathrm{d}t} = \alpha_t' D + \sigma_t' E .
# $$
#
# Measure places in units of the noise, $y = x / \sigma_t$, and time by the ratio of signal to noise,
# $r_t = \alpha_t / \sigma_t$. Then $E$ drops out:
#
# $$
# \frac{\mathrm{d}y}{\mathrm{d}t} = \frac{x'}{\sigma_t} - \frac{\sigma_t' x}{\sigma_t^2}
# = \Big( \frac{\alpha_t'}{\sigma_t} - \frac{\sigma_t' \alpha_t}{\sigma_t^2} \Big) D = r_t' \, D ,
# \qquad\text{that is}\qquad \boxed{\;\frac{\mathrm{d}y}{\mathrm{d}r} = D\;} .
# $$
#
# $D$ depends on the place and the time through $y$ and $r$ alone: $x = \sigma_t (r x_1 + x_0)$, so seeing $x$ is
# seeing $y = r x_1 + x_0$. **No path is left in the equation.** The path only says when $r$ is passed (the clock) and
# in which units the place is written (the ruler $\sigma_t$).

# %% [markdown] slideshow={"slide_type": "notes"}
# All these flows start from $y = x_0$ and end at $x_1$, up to the ends of the clocks: the rectified path starts at
# $r = 0$, VP at 0.0066, VE at $1 / \sigma_{\max} = 0.02$; OT with $\sigma_{\min} > 0$ and VE stop before
# $r = \infty$. That the choice of path does not change the map from noise to data holds for the exact velocity,
# whatever the data and whatever the source. For networks it is a prediction; we test it on digits below.


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
tracks, clocks, rulers = {}, {}, {}
for name, path in {"OT": ot, "VP": vp}.items():
    clocks[name] = times = time_at(path, ratio)
    field = mixture_velocity(path, heaps, 0.15)
    way = solvers.solve(field, start, t1=path.t_max, rtol=1e-8, atol=1e-8, times=times)
    tracks[name] = way.trajectory[..., 0]
    rulers[name] = (path.alpha(times) ** 2 + path.sigma(times) ** 2).sqrt()[:, None]

# %% slideshow={"slide_type": "fragment"}
figure, axes = plotting.canvas(1, 3, height=3.4, sharey=True)
share = ratio.atan() / (math.pi / 2)  # 0 at the noise, 1 at the data
for ax, (name, track) in zip(axes, tracks.items(), strict=False):
    ax.plot(clocks[name], track, color=LOOK[name], linewidth=1.2)
    ax.set(xlabel="t", title=f"{name}: $x_t$ against $t$")
axes[2].plot(share, tracks["OT"] / rulers["OT"], color=LOOK["OT"], linewidth=3.6, alpha=0.35)
axes[2].plot(share, tracks["VP"] / rulers["VP"], color=LOOK["VP"], linewidth=1.1)
axes[2].set(xlabel=r"$\frac{2}{\pi} \arctan(\alpha_t / \sigma_t)$", title="both, on one clock and ruler")
axes[0].set(ylabel="x", ylim=(-2.7, 2.7))
one_flow_gap = float((tracks["OT"] / rulers["OT"] - tracks["VP"] / rulers["VP"]).abs().max())
print(f"largest distance between the two sets of curves on the right: {one_flow_gap:.4f}")
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# Left and middle: the same 24 noises along the two paths. Right: the same curves, each place divided by
# $\sqrt{\alpha_t^2 + \sigma_t^2}$, against a time that depends on $\alpha_t / \sigma_t$ only (this is the clock and
# ruler of the cosine path). The broad blue lines are OT, the fine orange ones VP: they coincide. Now all five paths
# of `fmcore`, on the eight Gaussians, each from `path.source_scale` times the same noise.

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
# The same on 8x8 images in $[-1, 1]$, with networks. Two of them, equal in everything but the path: the same weights
# to start from, the same 800 steps, the same flow matching loss. Lipman et al. call them "FM with OT" and "FM with
# diffusion".


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

# %% slideshow={"slide_type": "subslide"}
noise = torch.randn(256, 1, 8, 8, generator=torch.Generator().manual_seed(3))
digit_flows = {}
for name, path in {"OT": ot, "VP": vp}.items():
    moments = path.t_max * line
    digit_flows[name] = solvers.solve(digit_nets[name], noise, t1=path.t_max, times=moments)
    left["digits, " + name] = noise_left(digit_flows[name], digit_nets[name], path)
    halfway["digits, " + name] = half_time(left["digits, " + name])
    print(f"digits, {name}: half of the noise is gone at t = {halfway['digits, ' + name]:.2f}")
columns = [0, 40, 80, 110, 130, 150, 170, 185, 200]
near = torch.cdist(digit_flows["OT"].x.flatten(1), images.flatten(1)).amin(dim=1)
chosen = near.argsort()[[0, 3, 4]].tolist()  # three of the clearest digits: near a real one
rows = [flow.trajectory[columns, k] for k in chosen for flow in digit_flows.values()]
titles = [f"t = {float(line[k]):.2f}" for k in columns]
plotting.images(torch.cat(rows), columns=9, rows=["OT", "VP"] * 3, titles=titles, low=-1.1, high=1.1)

# %% [markdown] slideshow={"slide_type": "skip"}
# Three noises, chosen because their ends are clear digits, each along both paths. The OT network shows the digit early
# and takes the noise away evenly; on the VP path one sees noise until about three quarters of the time are over, and
# then all happens at once. The last column is what the theory of the clock and the ruler asks for: two networks that
# were trained separately, on different paths, make nearly the same digit from the same noise. How near? For scale: the
# distance between samples from *different* noises.

# %% slideshow={"slide_type": "fragment"}
ends = {name: flow.x for name, flow in digit_flows.items()}
ends["exact"] = solvers.solve(closed_form.EmpiricalVelocity(images, ot), noise, t1=ot.t_max, rtol=1e-3, atol=1e-3).x


def apart(a, b):
    """Root mean square distance a pixel."""
    return float((a - b).square().mean().sqrt())


pair_ratio = apart(ends["OT"], ends["VP"]) / apart(ends["OT"], ends["OT"].roll(1, 0))
for name in ("VP", "exact"):
    other = apart(ends["OT"], ends[name].roll(1, 0))
    print(f"OT against {name:9}: same noise {apart(ends['OT'], ends[name]):.2f}, other noise {other:.2f}")
sheet = torch.cat([ends[name][:14] for name in ("exact", "OT", "VP")])
rows = ["exact velocity", "OT network", "VP network"]
plotting.images(sheet, columns=14, rows=rows, low=-1, high=1)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What a path costs
#
# The flow is one, but a solver does not see it: it takes equal steps in the $t$ of the path and in the $x$ of the
# path. On a path that does everything at the end, equal steps in $t$ are badly placed. Lipman et al. measured on
# ImageNet-32 that the OT path reaches the same error with about 60% of the evaluations.
#
# The protocol, the same for each pair of curves below:
#
# - the same noise for both paths, equal steps in $t$ from 0 to $1 - 10^{-5}$, the midpoint method (2 evaluations a
#   step), NFE from 4 to 100;
# - the error is the mean squared distance, a dimension, to the end of *the same path* by a method of order 4 in 100
#   steps (400 evaluations), whose own error is far smaller;
# - "NFE at equal error" is read off the curve between its points, in a straight line between logarithms.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "The NFE that OT needs, over the NFE that VP needs, at the same error: is it a property of the two paths?",
    [
        "yes: about 0.6, whatever the data, the network and the error",
        "no: it depends on all three, but it is below 1 in these experiments",
        "no: at small errors VP is better, because it slows down near the data",
    ],
    answer=1,
    because="An error constant of a solver depends on the velocity along the flow, so on the data and the network. "
    "What the paths fix is how the steps are spread over the noise levels.",
)


# %% slideshow={"slide_type": "subslide"}
def true_ends(field, path, x0):
    """Where the flow ends: 100 steps of order 4."""
    return solvers.solve(field, x0, t1=path.t_max, method="rk4", steps=100).x


def error_curve(field, path, x0):
    """Mean squared error a dimension of the midpoint method for each NFE."""
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

# %% slideshow={"slide_type": "fragment"}
route = {"OT": ot, "VP": vp}
exact_pair = {"OT": exact["rectified"], "VP": exact["VP"]}
experiments = {
    "plane, exact": {name: error_curve(exact_pair[name], route[name], plane_noise) for name in route},
    "plane, networks": {name: error_curve(plane_nets[name], route[name], plane_noise.float()) for name in route},
    "digits, networks": {name: error_curve(digit_nets[name], route[name], noise) for name in route},
}
LEVELS = (1e-2, 1e-3, 1e-4, 1e-5)
quotient = {}
print(f"{'NFE at equal error: OT / VP':28}" + "".join(f"{f'error {level:.0e}':>20}" for level in LEVELS))
for name, pair in experiments.items():
    counts = [(nfe_at(level, pair["OT"]), nfe_at(level, pair["VP"])) for level in LEVELS]
    quotient[name] = {level: a / b for level, (a, b) in zip(LEVELS, counts, strict=True)}
    cells = (f"{a:.1f} / {b:.1f} = {a / b:.2f}" if a == a else "OT below with 4" for a, b in counts)
    print(f"{name:28}" + "".join(f"{cell:>20}" for cell in cells))

# %% slideshow={"slide_type": "subslide"}
figure, axes = plotting.canvas(1, 3, height=3.6)
for ax, name in zip(axes, ("plane, exact", "digits, networks"), strict=False):
    plotting.error_against(NFE, experiments[name], xlabel="NFE", ylabel="", fit=False, colors=LOOK, title=name, ax=ax)
    ax.set_xticks([4, 10, 20, 40, 100], ["4", "10", "20", "40", "100"])
axes[0].set_ylabel("squared error, a dimension")
levels = torch.logspace(-1, -6, 120)
for (name, pair), color in zip(experiments.items(), (style.EXACT, style.PATH, style.MODEL), strict=True):
    values = [nfe_at(float(level), pair["OT"]) / nfe_at(float(level), pair["VP"]) for level in levels]
    axes[2].plot(levels, values, color=color, label=name)
axes[2].axhline(0.6, color=style.MUTED, linestyle="--", linewidth=1.5, label="the paper")
axes[2].set(xscale="log", xlabel="error", title="NFE of OT over NFE of VP", ylim=(0, 1))
axes[2].invert_xaxis()
axes[2].minorticks_off()
axes[2].legend(loc="lower right", fontsize=9)
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# OT needs fewer evaluations at every error that both curves reach. How many fewer is no single number: it lies between
# about 0.35 and 0.75 here, and moves with the data, the network and the error. For large NFE the midpoint
# method has squared errors $C\, \mathrm{NFE}^{-4}$ on both paths, so the curves become parallel and the ratio tends to
# $(C_{\mathrm{OT}} / C_{\mathrm{VP}})^{1/4}$; with few steps it is whatever the first steps do. The paper's 0.6, for
# U-Nets on ImageNet-32, lies in the same range. Neither the data nor the networks are the same here, so this is no
# reproduction of that number.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Why not the exact velocity of the digits?
#
# Because the mean squared error then measures something else. With finitely many data points, each noise ends *at* one
# of them. A solver's error either vanishes or carries the point over to another image.

# %% slideshow={"slide_type": "fragment"}
few = noise[:96]
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
    print(
        f"{name}: points at another image make", ", ".join(f"{float(blame[k]):.0%} at NFE {NFE[k]}" for k in (0, 3, 5))
    )
switch_share = float(blame[5])

# %% slideshow={"slide_type": "fragment"}
figure, axes = plotting.canvas(1, 2, height=3.3, width=7.8)
for name in route:
    axes[0].plot(NFE, mean_error[name], "o-", color=LOOK[name], label=f"{name}, mean")
    axes[0].plot(
        NFE, median_error[name].clamp(min=1e-14), "o:", color=LOOK[name], markersize=3, label=f"{name}, median"
    )
    axes[1].plot(NFE, switched[name], "o-", color=LOOK[name], label=name)
axes[0].set(xscale="log", yscale="log", xlabel="NFE", title="squared error, a dimension")
axes[1].set(xscale="log", xlabel="NFE", title="share of points at another image")
for ax, place in zip(axes, ((0.34, 0.16), "best"), strict=True):
    ax.set_xticks([4, 10, 20, 40, 100], ["4", "10", "20", "40", "100"])
    ax.minorticks_off()
    ax.legend(loc=place)
exact_digits = nfe_at(3e-2, mean_error["OT"]) / nfe_at(3e-2, mean_error["VP"])
print(f"digits, exact: NFE of OT over NFE of VP at a mean error of 0.03: {exact_digits:.2f}")
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# Mean and median differ by powers of ten: the median point has arrived, and a few undecided noises make nearly all of
# the mean. Below an error of 0.01 its curve follows the fate of a handful of points out of 96. That is why the table
# above rests on a smooth distribution and on networks. The medians differ too. Near the end each point only goes to
# its own image, along a conditional path. On the OT path that is a straight line at constant speed, which every
# solver follows exactly. On the VP path the rate grows like $1 / (2 (1 - t))$, and the last step leaves some noise.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Only the clock?
#
# If the flow is one, the two paths differ for a solver only in clock and ruler. Take the VP path, and place its steps
# where the OT path would have them: step $k$ of $K$ ends where $\alpha_t / \sigma_t$ is what it is on the OT path at
# $t = k / K$. The ruler stays that of VP.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "VP path, steps placed by the clock of OT. How does its error compare with that of the OT path?",
    ["it stays at that of VP", "about half-way between the two", "about that of OT"],
    answer=2,
    because="What makes the VP path expensive is that equal steps in its t crowd where nothing happens. Placed well, "
    "they cost no more than those of the OT path.",
)


# %% slideshow={"slide_type": "fragment"}
def ot_clock(steps):
    """Times on the VP path with the signal to noise that the rectified path has at k / steps; ends included."""
    own = torch.linspace(0, 1, steps + 1, dtype=torch.float64)[1:-1]
    inner = time_at(vp, own / (1 - own))
    return torch.cat([torch.zeros(1).double(), inner, torch.tensor([vp.t_max], dtype=torch.float64)])


truth = true_ends(exact["VP"], vp, plane_noise)
found = []
for n in NFE:
    flow = solvers.solve(exact["VP"], plane_noise, t1=vp.t_max, method="midpoint", times=ot_clock(n // 2))
    assert flow.nfe == n
    found.append((flow.x - truth).square().mean())
reclocked = torch.stack(found)
three = {**experiments["plane, exact"], "VP, clock of OT": reclocked}
clock_ratio = float((reclocked / three["OT"]).log().mean().exp())
gap_ratio = float((three["VP"] / three["OT"]).log().mean().exp())
print(
    f"squared error over that of OT, geometric mean over all NFE: VP {gap_ratio:.1f}, VP on OT's clock {clock_ratio:.1f}"
)
colors = {**LOOK, "VP, clock of OT": style.PATH}
figure = plotting.error_against(NFE, three, xlabel="NFE", ylabel="squared error", fit=False, colors=colors)
figure.axes[0].set_title("plane, exact velocity")
figure


# %% slideshow={"slide_type": "skip"}
def nfe_picture(nfe):
    """Ends with few evaluations (dots), joined to where the flow really ends."""
    steps, some = nfe // 2, plane_noise[:256]
    runs = {
        "OT": solvers.solve(exact["rectified"], some, t1=ot.t_max, method="midpoint", steps=steps).x,
        "VP": solvers.solve(exact["VP"], some, t1=vp.t_max, method="midpoint", steps=steps).x,
        "VP, clock of OT": solvers.solve(exact["VP"], some, t1=vp.t_max, method="midpoint", times=ot_clock(steps)).x,
    }
    figure, axes = plotting.canvas(1, 3)
    for ax, (name, x) in zip(axes, runs.items(), strict=True):
        for a, b in zip(truth[:256], x, strict=True):
            ax.plot(*torch.stack([a, b]).T, color=style.MUTED, linewidth=0.9, zorder=1)
        ax.scatter(*truth[:256].T, s=5, color=style.EXACT, linewidths=0, zorder=2)
        ax.scatter(*x.T, s=13, color=colors[name], alpha=0.85, linewidths=0, zorder=3)
        style.blank(ax, 3.6).set_title(f"{name}: error {(x - truth[:256]).square().mean():.2g}")
    figure.suptitle(f"{nfe} evaluations", fontsize=12)
    return figure


# %% slideshow={"slide_type": "subslide"}
widgets.explore(nfe_picture, nfe=widgets.choice([2, 4, 6, 8, 10, 14, 20, 28, 40], value=8, label="NFE"))

# %% [markdown] slideshow={"slide_type": "notes"}
# Black dots are the true ends, coloured dots what the solver makes of them. Try NFE 2, a single step: there OT is the
# worst of the three. "Fewer evaluations" holds for the errors one would accept, not for every number of steps.
#
# So the merit of the OT path is a good clock that comes for free: equal steps are well placed. A sampler on the VP
# path can have it too, by choosing its times.

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
# of $E$. Subtract: $x$ drops out, and an error of the noise is an error of the velocity, times a number.
#
# | The network predicts | $\| v - u \|^2$ equals | so flow matching is its loss with the weight |
# |---|---|---|
# | noise $e$ | $(W / \alpha)^2\, \| e - x_0 \|^2$ | $(W / \alpha)^2$ |
# | data $d$ | $(W / \sigma)^2\, \| d - x_1 \|^2$ | $(W / \sigma)^2$ |
# | score $s$ | $(W \sigma / \alpha)^2\, \| s + x_0 / \sigma \|^2$ | $(W \sigma / \alpha)^2$ |

# %% [markdown] slideshow={"slide_type": "notes"}
# $W = \sigma^2\, r'$: it is the speed of the clock. The "v-prediction" of Salimans & Ho 2022 is
# $\alpha\, x_0 - \sigma\, x_1$ on paths with $\alpha^2 + \sigma^2 = 1$. Put $\alpha = \sin \varphi$ and
# $\sigma = \cos \varphi$: then $u = \varphi' (\sigma x_1 - \alpha x_0)$, which is v-prediction times $-\varphi'$, and
# $W = \varphi'$. On the cosine path $\varphi' = \pi / 2$ is constant: flow matching there *is* v-prediction.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "Two perfect networks, without limits, on the same path: one trained with the flow matching loss, one with the "
    "noise loss. How do their samples differ?",
    [
        "not at all",
        "the flow matching samples are better, because the target is a velocity",
        "the noise network needs stochastic sampling",
    ],
    answer=0,
    because="At each x and t both losses have the same minimizer, up to the change of variables: weights do not move the "
    "minimum. They matter as soon as the network cannot be perfect: then they say where errors count.",
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
# Left: the weights against $t$. But the paths have different clocks, so a time on one is not a time on the other.
# Right: the same losses on one clock, the logarithm of signal to noise $\lambda = \ln r$. An integral over $t$ becomes
# one over $\lambda$ with $\mathrm{d}t = \mathrm{d}\lambda / \lambda'$, and
# $\lambda' = \alpha' / \alpha - \sigma' / \sigma = W / (\alpha \sigma)$.

# %% slideshow={"slide_type": "fragment"}
inside = torch.linspace(0.005, 0.995, 400, dtype=torch.float64)
figure, axes = plotting.canvas(1, 3, height=3.6)
for ax, (name, path) in zip(axes, route.items(), strict=False):
    lines = {f"of the {k} loss": weight(path, inside) for k, weight in WEIGHTS.items()}
    shades = dict(zip(lines, (style.SOURCE, style.DATA, style.PATH), strict=True))
    plotting.curves(inside, lines, xlabel="t", log="y", title=f"{name}: weight that gives FM", colors=shades, ax=ax)
    ax.set_ylim(1e-4, 1e5)
signal = torch.logspace(-2, 2, 200, dtype=torch.float64)
for name, (path, loss_weight), look in (
    ("FM, OT", (ot, WEIGHTS["noise"]), {"color": style.DATA}),
    ("FM, VP", (vp, WEIGHTS["noise"]), {"color": style.SOURCE}),
    ("noise loss, VP", (vp, lambda path, t: torch.ones_like(t)), {"color": style.SOURCE, "linestyle": "--"}),
):
    t = time_at(path, signal)
    total = loss_weight(path, t) * path.alpha(t) * path.sigma(t) / speed(path, t)
    axes[2].plot(signal, total / total[100], label=name, **look)
axes[2].set(xscale="log", yscale="log", xlabel=r"signal to noise $\alpha_t / \sigma_t$", ylim=(1e-3, 1e3))
axes[2].set_title("weight of the noise error")
axes[2].legend()
figure

# %% [markdown] slideshow={"slide_type": "skip"}
# Right: how much an error of the predicted noise counts at each noise level, relative to the level at which signal
# and noise are equal. On this clock the three methods can be compared, and where signal prevails they nearly agree.
# They differ at the noisy end: flow matching on OT weights it most (like $1/r$, from
# $w\, \mathrm{d}t/\mathrm{d}\lambda = (1 - t)/t$), the noise loss of DDPM least.

# %% slideshow={"slide_type": "fragment"}
cosine_path = paths.cosine()
x0 = torch.randn(256, 2, generator=generator, dtype=torch.float64)
x1, t = plane_points[:256].double(), torch.rand(256, generator=generator, dtype=torch.float64)
alpha, sigma = cosine_path.alpha(t)[:, None], cosine_path.sigma(t)[:, None]
v_prediction = alpha * x0 - sigma * x1  # Salimans & Ho: alpha times the noise minus sigma times the data
quotients = cosine_path.target(x0, x1, t) / v_prediction
v_ratio = float(quotients.mean())
assert float(quotients.std()) < 1e-6
print(f"flow matching target over v-prediction target, cosine path: {v_ratio:.4f}, and -pi/2 = {-math.pi / 2:.4f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Does it matter in training?
#
# Three networks on the VP path in the plane, the same size, seeds and budget. One has the flow matching loss (we have
# it). One predicts the velocity too, but its loss is weighted by $(\alpha / W)^2$: that *is* the noise loss. The last
# predicts the noise, with the noise loss. All are turned into noise predictions and compared with the exact one.

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
when = torch.tensor([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98])
wrong = {name: [] for name in guesses}
for t in when:
    xt = vp.interpolate(x0, x1, t)
    right = noise_of(exact["VP"])(xt.double(), t.double())
    for name, guess in guesses.items():
        wrong[name].append((guess(xt, t) - right).square().mean())
shades = dict(zip(guesses, (style.MODEL, style.PATH, style.SOURCE), strict=True))
plotting.curves(when, wrong, xlabel="t", ylabel="squared error of the noise", log="y", markers=True, colors=shades)

# %% [markdown] slideshow={"slide_type": "skip"}
# The first two differ by the weight alone, and in the way the weights foretell: the flow matching loss is nearer to the
# exact answer where noise prevails, the noise loss near the data. The third has the loss of the second and prints
# another variable; that makes a difference of the same size. "The same model" is a statement about what is learned by
# a perfect network. For one that is not, both the weight and the variable it prints say where it errs.

# %% slideshow={"slide_type": "fragment"}
by_loss = torch.tensor(wrong["velocity, flow matching loss"]) / torch.tensor(wrong["velocity, noise loss"])
early_ratio, late_ratio = float(by_loss[2]), float(by_loss[11])
print(
    f"error with the FM loss over error with the noise loss: {early_ratio:.2f} at t = 0.2, {late_ratio:.2f} at t = 0.95"
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Convert a trained network
#
# The network that was trained with the flow matching loss on the VP path becomes a noise, a score and a data
# prediction, and each of these becomes a velocity again. Then all four are solved from the same noise. And the OT
# network, whose path has $\alpha_0 = 0$: at $t = 0$ its noise prediction says nothing about the velocity ($x$ *is* the
# noise), so those start at $t = 0.01$.


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
        print(f"{name} network as {output:5} prediction: rms difference of a pixel {apart(there, straight):.1e}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
predict.ask(
    "A network was trained on the OT path. Can it be sampled along the VP path?",
    [
        "no: it has never seen a point of the VP path",
        "yes, but it makes other digits from the same noise",
        "yes, and it makes the same digits from the same noise",
    ],
    answer=2,
    because="What it knows is the mean of the data at each signal-to-noise ratio, and that is the same for all paths. "
    "It only has to be asked on its own clock and ruler.",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Change the path after training
#
# By the clock and the ruler, even the path is not built into a network. To know the data prediction at $(x, t)$ on the
# VP path, ask the OT network at the place and time with the same $y$ and $r$:
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
same_net = nfe_at(1e-3, experiments["digits, networks"]["OT"]) / nfe_at(1e-3, moved_errors)
print(f"one network, sampled on two paths: rms difference of a pixel {path_gap:.1e}")
print(f"its NFE on OT over its NFE on VP at an error of 1e-3: {same_net:.2f}")
print(f"the same for two networks, each trained on its path:  {quotient['digits, networks'][1e-3]:.2f}")

# %% [markdown] slideshow={"slide_type": "skip"}
# One network, sampled along two paths, gives the same digits, and on the VP path it needs about as many evaluations as
# the network that was trained there. So the saving of the OT path at sampling is the clock's, not the training's. What
# training on OT changes is the weight of the noise levels.

# %% [markdown] slideshow={"slide_type": "notes"}
# ## Which convention?
#
# | | this course | TorchCFM 1.0 | Meta flow_matching 1.0 | Song et al., Ho et al. |
# |---|---|---|---|---|
# | noise at | $t = 0$ | $t = 0$ | $t = 0$ | the last time, $s = 1$ or step $K$ |
# | data at | $t = 1$ | $t = 1$ | $t = 1$ | time 0 |
# | straight path | `rectified()` | `ConditionalFlowMatcher(sigma=0)` | `CondOTProbPath()` | |
# | OT, $\sigma_{\min} > 0$ | `ot(sigma_min)` | `TargetConditionalFlowMatcher(sigma)` | | |
# | diffusion path | `variance_preserving()` | | `AffineProbPath(VPScheduler())` | VP SDE, DDPM |
# | cosine path | `cosine()` | `VariancePreservingConditionalFlowMatcher(sigma=0)` | `AffineProbPath(CosineScheduler())` | |
# | $\mathrm{d}x_t / \mathrm{d}t$ | `target(x0, x1, t)` | `ut` | `path.sample(x_0, x_1, t).dx_t` | |
# | noise to velocity | `noise_to_velocity` | | `epsilon_to_velocity` | |
# | data to velocity | `data_to_velocity` | | `target_to_velocity` | |
# | network call | `model(x, t)` | `model(t, x)` for images | `model(x=x, t=t)` | |
#
# Mind the names: TorchCFM's "variance preserving" is our cosine path, not the diffusion of Song et al. With
# `sigma > 0` its `ConditionalFlowMatcher` adds noise of constant width beside that of $x_0$, which no affine path
# does. Papers on diffusion write $x_0$ for data; here $x_0$ is noise.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Three pitfalls, as numbers
#
# - **Where to start.** The VE path starts from $\mathcal{N}(0, \sigma_{\max}^2 I)$, not from $\mathcal{N}(0, I)$:
#   multiply the noise by `path.source_scale`.
# - **Where to stop.** $\sigma_1 = 0$ on the VP path, and $u_t(x \mid x_1)$ divides by it. Train and sample up to
#   `path.t_max`, which is $1 - 10^{-5}$.
# - **Which sign.** The symbol $s_t$ of Lipman et al. 2023 is *minus* the score. With the score, the velocity of the VP
#   path is $\tfrac12 \beta(1-t)\, (x + \nabla \log p_t)$. With the wrong sign points run away.


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

# %% slideshow={"slide_type": "skip"}
plane_quotient, net_quotient, digit_quotient = (quotient[name][1e-3] for name in experiments)
of_the_flow = [
    Claim("Theorem 3 by hand and in fmcore: largest difference", by_hand_gap, below(1e-10)),
    Claim("Theorem 3 against finite differences of the flow map, 4 paths", max(finite_gap.values()), below(1e-6)),
    Claim("degrees by which the arrow at a place turns: rectified", turn["rectified"], below(0.1), digits=0),
    Claim("degrees by which the arrow at a place turns: VP", turn["VP"], about(56.6, 0.3), digits=0),
    Claim("one data point, way gone at t = 0.5: rectified", gone["rectified"], about(0.5, 0.01), digits=2),
    Claim("one data point, way gone at t = 0.5: VP", gone["VP"], about(0.18, 0.01), digits=2),
    Claim("digits, half of the noise gone at t: OT", halfway["digits, OT"], between(0.43, 0.53)),
    Claim("digits, half of the noise gone at t: VP", halfway["digits, VP"], between(0.77, 0.87)),
    Claim("eight Gaussians, one noise on OT and VP: largest gap of the ends", ends_gap, below(1e-3)),
    Claim("the same for all five paths of fmcore", five_gap, below(1e-2)),
    Claim("digits, OT and VP network: gap for the same noise over other noise", pair_ratio, below(0.5)),
]
of_the_solver = [
    Claim("NFE of OT / VP at error 1e-3: plane, exact (paper: 0.6)", plane_quotient, about(0.38, 0.02), digits=2),
    Claim("NFE of OT / VP at error 1e-3: plane, networks", net_quotient, between(0.4, 0.9)),
    Claim("NFE of OT / VP at error 1e-3: digits, networks", digit_quotient, between(0.25, 0.55)),
    Claim("NFE of OT / VP at error 1e-5: plane, exact", quotient["plane, exact"][1e-5], about(0.52, 0.03), digits=2),
    Claim("NFE of OT / VP at error 1e-3: digits, one network on both", same_net, between(0.25, 0.55)),
    Claim("digits, exact, NFE 20: share of the error made by switched points", switch_share, above(0.5)),
    Claim("squared error over that of OT, all NFE: VP", gap_ratio, above(10)),
    Claim("squared error over that of OT, all NFE: VP on the clock of OT", clock_ratio, below(3)),
]

# %% slideshow={"slide_type": "fragment"} tags=["nbval-check-output"]
of_the_model = [
    Claim("weighted noise, data and score loss over FM loss, minus 1", weight_gap, below(1e-9)),
    Claim("velocity network, error with FM over noise loss, t = 0.2", early_ratio, below(0.7)),
    Claim("velocity network, error with FM over noise loss, t = 0.95", late_ratio, above(1)),
    Claim("u over the v of Salimans & Ho on the cosine path: -pi/2", v_ratio, about(-1.5708, 1e-4), digits=4),
    Claim("network as noise, score, data prediction: rms gap of a pixel", convert_gap, below(1e-3)),
    Claim("one network on two paths: rms gap of a pixel", path_gap, below(0.02)),
    Claim("radius of samples on VP with minus the score (data: 2.5)", radius["VP with minus the score"], above(100)),
]
claims.table(of_the_flow + of_the_solver + of_the_model)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## To remember
#
# - A path is two schedules. Its velocity is a pull towards $a_t x_1$ at a rate $k_t$; both follow from the schedules.
# - All affine paths are one flow, seen with another clock and another ruler. They lead the same noise to the same data.
# - The OT path is cheap to sample because equal steps are well placed on its clock. How cheap depends on the data, the
#   network and the error that one accepts.
# - Velocity, noise, data and score are one prediction in four variables. The losses differ by a weight over the noise
#   levels, and that is what to compare.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# In [exercises/04_probability_paths.ipynb](exercises/04_probability_paths.ipynb); each has a check that says what is
# wrong.
#
# 1. **The velocity of any path** from two schedules, with Theorem 3.
# 2. **From score to velocity** on the VP path, with the right sign.
# 3. **The weight between two losses:** data prediction as flow matching.
# 4. **The same place on another path:** the change of clock and ruler.
# 5. **NFE at equal error:** read it off two curves.
#
# <!-- next: written by fmcore.course.build -->
#
# Next: [05 Optimal transport](05_optimal_transport.ipynb). What changes when pairs are chosen, not drawn?
#
# <!-- end of next -->
