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
# # 01 Diffusion
#
# Take a picture and add noise until nothing of it is left. That needs no learning. A diffusion model learns the way
# back: from pure noise to a new picture. This chapter builds one from scratch, on points in the plane where every
# claim can be checked against an exact answer, and ends where flow matching begins: at a velocity field.

# %% slideshow={"slide_type": "skip"}
import functools
import math

import torch
from matplotlib.patches import Circle

from fmcore import closed_form, data, losses, networks, paths, solvers
from fmcore.course import card, claims, plotting, predict, style, widgets
from fmcore.course.claims import Claim, about, above, below, between, exactly
from fmcore.data.digits import digits
from fmcore.metrics.two_sample import energy_distance
from fmcore.velocity import from_noise

style.use()
torch.set_num_threads(1)  # networks this small gain nothing from a second core
NOISE = "#B45309"  # the orange of the source, darker: for lines

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
card.show(
    "01_diffusion",
    goals=[
        "add noise to data in one jump, and say why a thousand small steps end in the same distribution",
        "say what the score is, and why predicting noise is the same as learning it",
        "train a noise predictor and sample from it by an SDE and by an ODE",
        "derive the continuity and the Fokker-Planck equation, and why the ODE and the SDE have the same marginals",
        "find a wrong sign before it costs you a day",
    ],
    before=["chapter 00", "Gaussians in two dimensions", "a training loop in PyTorch"],
    exercises=[
        "1. a chain without discretization error",
        "2. the noise prediction for Gaussian data",
        "3. a sampler that loses its noise",
        "4. the ODE of a variance-exploding path",
        "5. DDIM is Euler's method in other variables",
        "6. DDIM or Euler?",
    ],
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 1. Why noise?
#
# We are given examples $x_1$ of some distribution, say images, and want new ones. Sohl-Dickstein et al. (2015) proposed
# to destroy them with noise and to learn the way back; Ho, Jain and Abbeel (2020) made it work for images. Three facts
# make noise the right tool:
#
# - **Destroying is easy.** Adding Gaussian noise needs no model, and it always leads to the same distribution: a
#   standard Gaussian, which we know how to sample.
# - **Removing a little noise is regression.** "Which noise was added to this picture?" has an answer for every
#   training picture, so a network can learn it by least squares.
# - **Noise fills space.** Real images lie on a thin set; far from it there is nothing to learn from. Noised images
#   lie everywhere, so the network learns what to do at every point that sampling will visit.

# %% slideshow={"slide_type": "subslide"}
path = paths.variance_preserving()  # the noising used throughout this chapter; section 2 builds it by hand
generator = torch.Generator().manual_seed(0)

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
pictures = digits().train[[5, 11, 24]].float() / 8 - 1  # pixels from -1 to 1
columns = [1.0, 0.9, 0.8, 0.7, 0.6, 0.4, 0.0]
noise = torch.randn(pictures.shape, generator=generator)
rows = torch.stack([path.interpolate(noise, pictures, min(t, path.t_max)) for t in columns], dim=1)
plotting.images(rows.flatten(0, 1), titles=[f"t = {t:g}" for t in columns], low=-1.3, high=1.3, width=7.5)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Three handwritten digits, from the data on the left to pure noise on the right. In this course time runs from noise to
# data, so here it runs from right to left.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 2. Noising in one jump
#
# **Time.** In this course $t = 0$ is noise (the *source*) and $t = 1$ is data, so sampling runs forward in $t$.
# Papers on diffusion count the other way, from data to noise; we write their time as $s = 1 - t$.
#
# - $x_1$ is a data point, $x_0$ a sample of the standard Gaussian $\mathcal N(0, I)$, $x_t$ the noised point at time $t$;
# - $p_t$ is the distribution of $x_t$ over all data and all noise, called the **marginal** at time $t$;
# - $\beta(s)$ is the rate at which noise is added, here from 0.1 at the data to 20 at the source, and
#   $T(s) = \int_0^s \beta(r)\, \mathrm dr$ is what was added up to $s$;
# - $w_s$ is Brownian motion: over a short time $h$ it moves by $\sqrt h$ times a standard normal.

# %% [markdown] slideshow={"slide_type": "subslide"}
# The diffusion shrinks the point and adds noise, both continuously. It is a stochastic differential equation (SDE):
#
# $$
# \mathrm dx = -\tfrac12 \beta(s)\, x\, \mathrm ds + \sqrt{\beta(s)}\, \mathrm dw_s .
# $$
#
# Started at $x_1$ it stays Gaussian. A step of length $h$ multiplies the mean $m$ by $1 - \tfrac12 \beta h$ and the
# variance $V$ by $(1 - \tfrac12 \beta h)^2$, and adds $\beta h$ to the variance. As $h \to 0$ this says
# $m' = -\tfrac12 \beta m$, so $m = e^{-T(s)/2} x_1$, and $V' = -\beta V + \beta$ with $V(0) = 0$, so
# $V = 1 - e^{-T(s)}$. Hence one jump does what the whole equation does:
#
# $$
# x_t = \alpha_t x_1 + \sigma_t x_0, \qquad \alpha_t = e^{-T(1-t)/2}, \qquad \sigma_t^2 = 1 - \alpha_t^2 .
# $$
#
# The path is called *variance preserving* (VP) because $\alpha_t^2 + \sigma_t^2 = 1$: data of variance one keep that
# variance.

# %% slideshow={"slide_type": "subslide"}
BETA_MIN, BETA_MAX = 0.1, 20.0


def beta(s):
    return BETA_MIN + s * (BETA_MAX - BETA_MIN)


def total(s):
    return s * BETA_MIN + s**2 * (BETA_MAX - BETA_MIN) / 2


def alpha(t):
    return torch.exp(-total(1 - t) / 2)


def sigma(t):
    return torch.sqrt(1 - torch.exp(-total(1 - t)))


def noised(x0, x1, t):
    t = t[:, None]  # (B,) -> (B, 1): one time for each row of x
    return alpha(t) * x1 + sigma(t) * x0


# %% [markdown] slideshow={"slide_type": "skip"}
# `paths.variance_preserving()` holds the same formulas. The check, in double precision:

# %% slideshow={"slide_type": "skip"}
x1 = data.toy.two_moons(1000, generator).double()
x0 = torch.randn(1000, 2, generator=generator, dtype=torch.float64)
t = torch.rand(1000, generator=generator, dtype=torch.float64)
assert torch.allclose(noised(x0, x1, t), path.interpolate(x0, x1, t), atol=1e-9)
assert torch.allclose(beta(1 - t), path.diffusion(t) ** 2)  # path.diffusion is g(t) = sqrt(beta(1 - t))

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "slide"} tags=["hide-input"]
predict.ask(
    "Halfway, at t = 0.5, a point is alpha times data plus sigma times noise, with alpha^2 + sigma^2 = 1. How large is alpha?",
    ["about 0.71, as large as sigma", "about 0.5", "about 0.28"],
    answer=2,
    because="The noise rate grows towards the source, so at the middle alpha = 0.28 and sigma = 0.96: in variance, 8% data and "
    "92% noise. During the first half of the time alpha is smaller still.",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# From here on the data are 2,000 points of two moons, `points`. The data distribution of this chapter is "pick one of
# these points at random", and nothing else. That makes every exact answer computable.

# %% slideshow={"slide_type": "fragment"}
points = data.toy.two_moons(2000, generator)


def draw_data(n):
    return points[torch.randint(len(points), (n,), generator=generator)]


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
fixed_noise = torch.randn(len(points), 2, generator=torch.Generator().manual_seed(1))
line = torch.linspace(0, path.t_max, 200)


def plot_noised(t):
    figure, (left, right) = plotting.canvas(1, 2, height=3.6, width=8.0)
    xt = path.interpolate(fixed_noise, points, t)
    plotting.snapshots((torch.tensor([t]), xt[None]), times=[t], limit=3.6, size=4, axes=[left])
    both = {"alpha: data": alpha(line), "sigma: noise": sigma(line)}
    colors = {"alpha: data": style.DATA, "sigma: noise": NOISE}
    plotting.curves(line, both, xlabel="t", colors=colors, ax=right)
    right.lines[1].set_linestyle("--")
    right.legend()
    right.axvline(t, color=style.EXACT, linestyle=":", linewidth=1.5)
    return figure


plot_noised(0.8)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Left: the noised points at the time of the dotted line. Right: how much of the data ($\alpha_t$) and of the noise
# ($\sigma_t$) is in them.

# %% slideshow={"slide_type": "fragment"}
widgets.explore(plot_noised, t=widgets.slider(0, 0.99, step=0.03, value=0.6, label="time t"))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 3. Two schedules
#
# The other classic schedule, *variance exploding* (VE; Song and Ermon 2019), leaves the data unchanged and adds noise
# until they are negligible beside it: $\alpha_t = 1$ and $\sigma_t = \sigma_{\min} (\sigma_{\max}/\sigma_{\min})^{1-t}$.
# Since $\sigma_{\max}$ is much larger than the data, it ends close to $\mathcal N(0, \sigma_{\max}^2 I)$, and its sampling
# starts from $\sigma_{\max} x_0$ (`path.source_scale`).

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
exploding = paths.variance_exploding(sigma_min=0.01, sigma_max=50.0)
colors = {"alpha": style.DATA, "sigma": NOISE}
figure, axes = plotting.canvas(1, 3, height=3.1)
panels = ((path, "variance preserving", ""), (exploding, "variance exploding", "y"))
for (schedule, title, log), ax in zip(panels, axes[:2], strict=True):
    both = {"alpha": schedule.alpha(line), "sigma": schedule.sigma(line)}
    plotting.curves(line, both, xlabel="t", colors=colors, title=title, log=log, ax=ax)
    ax.lines[1].set_linestyle("--")
    ax.legend()
signal_to_noise = {"VP": path.alpha(line) / path.sigma(line), "VE": 1 / exploding.sigma(line)}
pair = {"VP": style.EXACT, "VE": style.PATH}
plotting.curves(line, signal_to_noise, xlabel="t", colors=pair, title="alpha / sigma", log="y", ax=axes[2])
axes[2].lines[1].set_linestyle("--")
axes[2].axhline(1, color="#6E7781", linewidth=1, zorder=0)
axes[2].legend()
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# Different as they look, both do the same to the ratio $\alpha_t / \sigma_t$ of signal to noise: it rises from well below
# 1 at the source to well above 1 at the data (right). Chapter 04 shows that this ratio is nearly all that matters.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 4. A thousand small steps
#
# The denoising diffusion models of Ho, Jain and Abbeel (2020), DDPM for short, add noise in $K$ small steps, a Markov
# chain with step sizes $b_1, \dots, b_K$:
#
# $$
# x_k = \sqrt{1 - b_k}\; x_{k-1} + \sqrt{b_k}\; \varepsilon_k, \qquad \varepsilon_k \sim \mathcal N(0, I).
# $$
#
# Two steps in a row give
#
# $$
# x_2 = \sqrt{(1-b_1)(1-b_2)}\; x_{\text{start}} + \sqrt{(1-b_2)\, b_1}\; \varepsilon_1 + \sqrt{b_2}\; \varepsilon_2 .
# $$
#
# The two noise terms are independent, so together they are one Gaussian of variance
# $(1-b_2)b_1 + b_2 = 1 - (1-b_1)(1-b_2)$. By induction $k$ steps are one jump with
# $\alpha = \prod_{j \le k} \sqrt{1-b_j}$ and $\sigma^2 = 1 - \alpha^2$. This equals $\alpha_t = e^{-T/2}$ at
# $s_k = k/K$ if
#
# $$
# b_k = 1 - e^{-(T(s_k) - T(s_{k-1}))} \;\approx\; \beta(s_k)/K .
# $$
#
# DDPM takes the right-hand side: for $K = 1000$ it grows linearly from about 0.0001 to 0.02.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
predict.ask(
    "We run 1000 steps from every data point, with fresh noise at each, and compare with one jump. What comes out?",
    ["the small errors of 1000 steps add up", "the same points", "other points from the same distribution"],
    answer=2,
    because="The noise differs, so the points do. But Gaussian steps make a Gaussian: the distribution is that of one jump, "
    "up to a gap of order 1/1000 that comes from the approximate step sizes.",
)


# %% slideshow={"slide_type": "fragment"}
def run_chain(x, steps):
    states = [x]
    for b in steps:
        x = (1 - b).sqrt() * x + b.sqrt() * torch.randn(x.shape, generator=generator)
        states.append(x)
    return torch.stack(states)


K = 1000
s = torch.arange(1, K + 1) / K
ddpm_steps = beta(s) / K
x_start = draw_data(2000)
states = run_chain(x_start, ddpm_steps)  # (K + 1, 2000, 2), from data to noise

# %% [markdown] slideshow={"slide_type": "subslide"}
# At every $k$ we fit the line "state = $a \cdot$ start + noise" over the 2,000 chains: $a$ is measured by least
# squares, and the standard deviation of the noise is that of the residuals. If the chain is one jump, these two are
# $\alpha_t$ and $\sigma_t$. Without sampling, we also compare $\prod \sqrt{1-b_j}$ with $\alpha_t$ for several $K$,
# with DDPM's step sizes and with the exact ones.

# %% slideshow={"slide_type": "fragment"}
slope = (states * x_start).sum((1, 2)) / x_start.square().sum()
spread = (states - slope[:, None, None] * x_start).square().mean((1, 2)).sqrt()
t_chain = 1 - torch.arange(K + 1) / K
chain_error = max(float((slope - path.alpha(t_chain)).abs().max()), float((spread - path.sigma(t_chain)).abs().max()))


def alpha_gap(count, exact):
    s = torch.arange(count + 1, dtype=torch.float64) / count
    steps = 1 - torch.exp(total(s[:-1]) - total(s[1:])) if exact else beta(s[1:]) / count
    return float(((1 - steps).sqrt().cumprod(0) - path.alpha(1 - s[1:])).abs().max())


counts = [32, 64, 128, 256, 512, 1024]
gaps = [alpha_gap(count, exact=False) for count in counts]
exact_gap = max(alpha_gap(count, exact=True) for count in counts)

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 3, height=3.3)
plotting.curves(line, {"alpha": path.alpha(line), "sigma": path.sigma(line)}, xlabel="t", colors=colors, ax=axes[0])
for measured, color in ((slope, style.DATA), (spread, NOISE)):
    axes[0].plot(t_chain[::100], measured[::100], "o", color=color, markerfacecolor="white", zorder=4)
axes[0].set_title("lines: formula, circles: chain")
jump = path.interpolate(torch.randn(2000, 2, generator=generator), draw_data(2000), 0.85)
both = {"chain": states[150], "one jump": jump}
plotting.clouds(others=both, size=3, limit=3.4, title="t = 0.85, after 150 steps", ax=axes[1])
plotting.error_against(counts, {"DDPM's steps": gaps}, xlabel="steps K", ylabel="", ax=axes[2])
axes[2].set_title("largest gap in alpha")
axes[2].set_yticks([0.001, 0.003, 0.01, 0.03], ["0.001", "0.003", "0.01", "0.03"])
axes[2].legend(loc="lower left")
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# The chain has the moments of one jump (left). The gap of DDPM's step sizes falls like $1/K$ (right); with the exact
# $b_k$ it is zero up to rounding, for every $K$.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Comparing distributions
#
# To compare whole distributions and not only two moments, we need a distance between samples. The *energy distance*
# (Székely and Rizzo 2013),
#
# $$
# 2\,\mathbb E|A-B| - \mathbb E|A-A'| - \mathbb E|B-B'| ,
# $$
#
# with $A, A'$ drawn from one distribution and $B, B'$ from the other, is zero exactly when the two agree. Its estimate
# from finite samples scatters around zero even then. So we measure that scatter: the **yardstick** is the largest
# absolute value among twenty pairs of fresh samples of one and the same $p_t$. A distance between $-1$ and $1$ yardstick
# says: *no further apart than two samples of the same distribution*. (By chance alone, one value in twenty-one exceeds
# it on average.)

# %% slideshow={"slide_type": "fragment"}
N = 1000  # points in each sample that is compared
times = [0.25, 0.5, 0.75, 0.9, 0.999]


def draw_marginal(t, n=N):
    return path.interpolate(torch.randn(n, 2, generator=generator), draw_data(n), t)


def yardstick(t, pairs=20):
    return max(abs(energy_distance(draw_marginal(t), draw_marginal(t))) for _ in range(pairs))


rulers = {t: yardstick(t) for t in times}


def ratio(x, t):
    """Energy distance of x to a fresh sample of the exact p_t, in units of the yardstick."""
    return energy_distance(x, draw_marginal(t)) / rulers[t]


chain_ratios = [ratio(states[round(K * (1 - t)), :N], t) for t in times]
print("energy distance between chain and one jump, in yardsticks")
print("   ".join(f"t = {t:g}: {value:4.1f}" for t, value in zip(times, chain_ratios, strict=True)))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 5. What there is to learn: the score
#
# The *score* of $p_t$ is the gradient of its log-density with respect to the place, $\nabla_x \log p_t(x)$: an arrow
# at every $x$ that points to where noised data are denser. With a single data point, $p_t$ would be the Gaussian
# $\mathcal N(\alpha_t x_1, \sigma_t^2 I)$ with score $-(x - \alpha_t x_1)/\sigma_t^2 = -x_0/\sigma_t$: minus the
# noise, over sigma. For many data points, differentiate $p_t(x) = \mathbb E_{x_1}\, p_t(x \mid x_1)$ and divide by
# $p_t(x)$:
#
# $$
# \nabla \log p_t(x) = \mathbb E\big[\nabla \log p_t(x \mid x_1) \,\big|\, x_t = x\big] = -\frac{1}{\sigma_t}\, \mathbb E[x_0 \mid x_t = x] .
# $$
#
# **The score is minus the mean noise in $x$, over sigma** (Tweedie's formula, Efron 2011). Most of this chapter follows
# from that line.
#
# Our data are finitely many points, so $p_t$ is a mixture of as many Gaussians. Its log-density is a `logsumexp`, and
# autograd gives the score. `closed_form.EmpiricalVelocity` computes the same, which we call *exact* from here on.


# %% slideshow={"slide_type": "subslide"}
def log_density(x, t):
    """log p_t(x) of the noised points, shape (n,)."""
    centres, std = path.alpha(t) * points, path.sigma(t)
    squares = (x[:, None] - centres.to(x)).square().sum(2)
    return torch.logsumexp(-squares / (2 * std**2), 1) - torch.log(2 * math.pi * std**2 * len(points))


exact = closed_form.EmpiricalVelocity(points, path)


def exact_score(x, t):
    return path.velocity_to_score(exact(x, t), x, t)


x, t = draw_marginal(0.8, 200).double().requires_grad_(), torch.tensor(0.8, dtype=torch.float64)
(by_autograd,) = torch.autograd.grad(log_density(x, t).sum(), x)
score_gap = float((by_autograd - exact_score(x.detach(), t)).norm() / by_autograd.norm())
assert score_gap < 1e-4
print(f"score by autograd against fmcore: relative difference {score_gap:.0e}")


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
def plot_score(t, score=exact_score, ax=None, title="t = {t:.2f}"):
    def arrows(x, t):
        scaled = path.sigma(t)[:, None] * score(x, t)
        return scaled / (
            1 + scaled.norm(dim=1, keepdim=True)
        )  # long arrows are shortened: the direction is what counts

    def log_p(x):
        return log_density(x, torch.tensor(t))

    figure = plotting.density(log_p, limit=3.2, points=81, chunk=1500, ax=ax)
    ax = ax or figure.axes[0]
    plotting.field(arrows, t, limit=3.2, points=17, color=style.EXACT, title=title, ax=ax)
    return figure


figure, axes = plotting.canvas(1, 3)
for t, ax in zip((0.4, 0.8, 0.95), axes, strict=True):
    plot_score(t, ax=ax)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# The shade is the density $p_t$, the arrows are its score. Near the source the arrows point to the middle: through so
# much noise, hardly more than the mean of the data can be seen. Nearer to the data they point to the two moons.

# %% slideshow={"slide_type": "subslide"}
widgets.explore(plot_score, t=widgets.slider(0.05, 0.95, step=0.05, value=0.7, label="time t"))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 6. Predicting noise is score matching
#
# DDPM trains a network $e(x, t)$ to predict the noise, by least squares. Fitting the score of a density that is known
# only from samples, *score matching*, goes back to Hyvärinen (2005). Vincent (2011) showed that it can be done by
# denoising: a network $S(x, t)$ for the score is trained on the score of the single Gaussian that made $x_t$, which is
# known. With weight $\sigma_t^2$:
#
# $$
# L_{\text{noise}} = \mathbb E \,\lVert e(x_t, t) - x_0 \rVert^2, \qquad
# L_{\text{score}} = \mathbb E\, \sigma_t^2 \,\Big\lVert S(x_t, t) + \frac{x_0}{\sigma_t} \Big\rVert^2 .
# $$
#
# Put $S = -e/\sigma_t$ and the two are equal, term by term. The two models differ in what they output, not in what
# they learn.


# %% slideshow={"slide_type": "subslide"}
def noise_loss(e, x0, x1, t):
    return (e(noised(x0, x1, t), t) - x0).square().mean()


def score_loss(score, x0, x1, t):
    std = sigma(t)[:, None]
    return (std**2 * (score(noised(x0, x1, t), t) + x0 / std).square()).mean()


def as_score(e):
    return lambda x, t: -e(x, t) / path.sigma(t).reshape(-1, 1)


torch.manual_seed(0)
net = networks.MLP(2, width=128, depth=4)
x1, x0, t = draw_data(4096), torch.randn(4096, 2, generator=generator), 0.99 * torch.rand(4096, generator=generator)
with torch.no_grad():
    by_noise = losses.noise_prediction(net, path, x0, x1, t)
    by_score = losses.score_matching(as_score(net), path, x0, x1, t)
    assert torch.isclose(noise_loss(net, x0, x1, t), by_noise, rtol=1e-4)
    assert torch.isclose(score_loss(as_score(net), x0, x1, t), by_score, rtol=1e-4)
loss_gap = float((by_noise - by_score).abs() / by_noise)
print(f"untrained network, one batch:  noise loss {by_noise:.4f}   score loss {by_score:.4f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# But the network never sees the true score, only the noise of single samples. Why does it learn the score? Because
# least squares finds a mean, and section 5 says of what: the best noise predictor is
# $e^*(x, t) = \mathbb E[x_0 \mid x_t = x] = -\sigma_t \nabla \log p_t(x)$. Since $x_0 - e^*$ averages to zero at
# every $x$, the cross term vanishes and
#
# $$
# L_{\text{noise}}(e) = \underbrace{\mathbb E\, \lVert e - e^* \rVert^2}_{\text{distance to the true score}} + \underbrace{\mathbb E\, \lVert e^* - x_0 \rVert^2}_{\text{the same for every network}} .
# $$

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "We train the noise predictor as well as possible. Where does its loss end?",
    ["at zero", "at a number well above zero", "at 1, the variance of the noise"],
    answer=1,
    because="A noised point does not tell which data point and which noise sample made it. The spread of the possible noise "
    "samples is the second term, the irreducible loss: no network removes it.",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 7. Train it
#
# The network is a multilayer perceptron with four hidden layers. It is trained by five thousand steps of Adam;
# `losses.noise_prediction` draws $t$ uniformly.

# %% slideshow={"slide_type": "fragment"}
untrained = networks.MLP(2, width=128, depth=4)
untrained.load_state_dict(net.state_dict())
STEPS = 5000
optimizer = torch.optim.Adam(net.parameters(), lr=3e-3, fused=True)  # all weights in one call
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
history = []
for _ in range(STEPS):
    x1, x0 = draw_data(256), torch.randn(256, 2, generator=generator)
    loss = losses.noise_prediction(net, path, x0, x1, generator=generator)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    history.append(loss.item())
net = net.requires_grad_(False)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Now the decomposition of section 6, on one large batch: for the untrained network, the trained one and the exact
# $e^*$ we compute the loss, the distance to $e^*$, and the difference of the two. If the algebra is right, the
# difference is the same number three times, up to the scatter of a finite batch: the irreducible loss.


# %% slideshow={"slide_type": "fragment"}
def exact_noise(x, t):
    return path.velocity_to_noise(exact(x, t), x, t)


x1, x0, t = draw_data(8192), torch.randn(8192, 2, generator=generator), 0.99 * torch.rand(8192, generator=generator)
xt = path.interpolate(x0, x1, t)
best = exact_noise(xt, t)
irreducible, excess = {}, {}
print("            noise loss   distance to exact   difference: irreducible")
for name, prediction in {"untrained": untrained(xt, t).detach(), "trained": net(xt, t), "exact": best}.items():
    loss = float((prediction - x0).square().mean())
    excess[name] = float((prediction - best).square().mean())
    irreducible[name] = loss - excess[name]
    print(f"{name:10s}{loss:12.3f}{excess[name]:20.3f}{irreducible[name]:13.3f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
smooth = torch.tensor(history).reshape(-1, 50).mean(1)
seen = 50 * torch.arange(len(smooth)) + 25
figure = plotting.curves(seen, {"training loss": smooth}, colors={"training loss": style.MODEL}, xlabel="step")
figure.axes[0].axhline(
    irreducible["exact"], color=style.EXACT, linestyle="--", label="irreducible: loss of the exact score"
)
figure.axes[0].set_ylim(0, 0.6)
figure.axes[0].legend()
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# The training loss ends just above the irreducible loss. A loss that stays well above zero says nothing against a model;
# what counts is the distance to the exact answer, and here we know it.

# %% [markdown] slideshow={"slide_type": "subslide"}
# How good is the score that came out? Below is the error of the network's score relative to the exact one, at several
# times $t$. For comparison, the same error for the exact score of *another* 2,000 points of the two moons: how much the
# exact score itself depends on which points we happened to draw.

# %% slideshow={"slide_type": "fragment"}
learned = from_noise(net, path)  # the velocity that belongs to the network's noise; section 9
learned_score = as_score(net)
other = closed_form.EmpiricalVelocity(data.toy.two_moons(2000, generator), path)
score_times = [0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98]
curves = {"network": [], "exact, other points": []}
for moment in score_times:
    t, x = torch.tensor(moment), draw_marginal(moment)
    truth = exact_score(x, t)
    for name, score in zip(curves, (learned_score(x, t), path.velocity_to_score(other(x, t), x, t)), strict=True):
        curves[name].append(float((score - truth).norm() / truth.norm()))
until = score_times.index(0.8) + 1
worst_until, (last, last_other) = max(curves["network"][:until]), [curve[-1] for curve in curves.values()]
print(
    f"network: relative error at most {worst_until:.2f} up to t = 0.8, then up to {last:.2f} at t = {score_times[-1]}"
)
print(f"exact score of other points: {last_other:.2f} at t = {score_times[-1]}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 3)
plot_score(0.85, exact_score, ax=axes[0], title="exact score, t = 0.85")
plot_score(0.85, learned_score, ax=axes[1], title="the network's, t = 0.85")
colors = {"network": style.MODEL, "exact, other points": "#6E7781"}
plotting.curves(score_times, curves, xlabel="t", colors=colors, markers=True, ax=axes[2])
axes[2].set_title("relative error of the score")
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# Near the data both errors rise (right). There the noise becomes as small as the distance between neighbouring points,
# the exact score points to single training points, and neither another data set nor a small network agrees with it. A
# model that did would only repeat its training points. Chapters 07 and 08 are about this.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 8. How a density moves
#
# To sample we shall move points. What matters then is not a single point but the density $p_t$ of all of them. Two
# equations say how it changes. We derive them here since the next section and chapters 02 and 03 rest on them.
#
# **The continuity equation.** Let every point move with a velocity, $\mathrm dx_t/\mathrm dt = u(x_t, t)$. Look at the
# points through any smooth *test function* $\varphi$ that vanishes far away. By the chain rule
# $\tfrac{\mathrm d}{\mathrm dt} \varphi(x_t) = \nabla\varphi(x_t) \cdot u(x_t, t)$, and on average over all points
#
# $$
# \frac{\mathrm d}{\mathrm dt}\, \mathbb E\, \varphi(x_t) = \mathbb E\big[ \nabla\varphi(x_t) \cdot u(x_t, t) \big] .
# $$
#
# This is the **weak form**. Write both averages as integrals and integrate the right one by parts:
#
# $$
# \int \varphi\; \partial_t p_t\, \mathrm dx = \int \nabla\varphi \cdot u\, p_t\, \mathrm dx = - \int \varphi\; \nabla\!\cdot (p_t\, u)\, \mathrm dx .
# $$
#
# It holds for every $\varphi$, so the two factors of $\varphi$ are equal: $\;\partial_t p_t = -\nabla\!\cdot(p_t\, u)$.

# %% [markdown] slideshow={"slide_type": "fragment"}
# The chain rule did not need a velocity that is a function of the place. If points in the same place have different
# velocities $\dot x_t$, the weak form reads $\mathbb E[\nabla\varphi(x_t) \cdot \dot x_t]$, and since $\nabla\varphi$
# depends on the place alone, only the mean velocity $u(x, t) = \mathbb E[\dot x_t \mid x_t = x]$ counts. Chapter 03 is
# built on this remark.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### With noise: the Fokker–Planck equation
#
# Now let the points move by an SDE, $\mathrm dx = f\, \mathrm dt + g\, \mathrm dw$: in a short time $h$ from $x$ to
# $x + f h + g \sqrt h\, \varepsilon$ with $\varepsilon \sim \mathcal N(0, I)$. Expand $\varphi$ to second order, with
# $\nabla^2 \varphi$ for its matrix of second derivatives:
#
# $$
# \varphi(x + f h + g \sqrt h\, \varepsilon) = \varphi(x) + \nabla\varphi \cdot \big( f h + g \sqrt h\, \varepsilon \big) +
# \tfrac12 g^2 h\; \varepsilon^{\!\top} \nabla^2 \varphi\; \varepsilon + \dots
# $$
#
# Average over $\varepsilon$: its mean is zero, and $\mathbb E[\varepsilon_i \varepsilon_j]$ is 1 for $i = j$ and else 0,
# which leaves the Laplacian $\Delta\varphi$, the sum of the second derivatives. What the dots stand for is of order
# $h^2$ on average. Divide by $h$:
#
# $$
# \frac{\mathrm d}{\mathrm dt}\, \mathbb E\, \varphi(x_t) = \mathbb E\big[ \nabla\varphi \cdot f + \tfrac12 g^2 \Delta\varphi \big]
# \qquad\Longrightarrow\qquad
# \partial_t p_t = -\nabla\!\cdot(p_t f) + \tfrac12 g^2 \Delta p_t ,
# $$
#
# where the Laplacian moved to $p_t$ by two integrations by parts.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Both sides, in numbers
#
# As $\varphi$ take a bump, $e^{-\|x - c\|^2 / 2\ell^2}$ with $\ell = 0.4$, its centre $c$ at the upper left of the two
# moons: $\mathbb E\, \varphi(x_t)$ says how many of the points are near $c$. For our $p_t$, a mixture of Gaussians, this
# average is known exactly, and so is its rate of change. Three right-hand sides, by samples, should all give this rate:
#
# - the velocity $\dot x_t$ of each pair, which depends on the pair;
# - the exact velocity $u(x_t, t)$, its mean at each place (`closed_form`);
# - the noising SDE of section 2, with $f = -\tfrac12 \beta x$ and $g^2 = \beta$. It runs in $s = 1 - t$, so its sign changes.


# %% slideshow={"slide_type": "fragment"}
centre, width = torch.tensor([-0.9, 1.0]), 0.4


def bump(x):
    """phi at x (n, 2): its values (n,), gradients (n, 2) and Laplacians (n,)."""
    pull = (centre - x) / width**2
    phi = torch.exp(-(width**2) * pull.square().sum(1) / 2)
    return phi, phi[:, None] * pull, phi * (pull.square().sum(1) - 2 / width**2)


def mean_bump(t):
    """E phi(x_t), exactly: each noised data point is a Gaussian."""
    variance = path.sigma(t) ** 2 + width**2
    squares = (path.alpha(t) * points.double() - centre).square().sum(1)
    return (width**2 / variance * torch.exp(-squares / (2 * variance))).mean()


def three_rates(t, draws, n=200_000, few=8000):
    x0, x1 = torch.randn(n, 2, generator=draws), points[torch.randint(len(points), (n,), generator=draws)]
    x = path.interpolate(x0, x1, t)
    _, grad, laplacian = bump(x)
    of_pairs = (grad * path.target(x0, x1, t)).sum(1).mean()
    of_places = (grad[:few] * exact(x[:few], t)).sum(1).mean()
    of_noise = -(-beta(1 - t) / 2 * (grad * x).sum(1) + beta(1 - t) / 2 * laplacian).mean()
    return torch.stack([of_pairs, of_places, of_noise])


# %% slideshow={"slide_type": "fragment"}
rate_times = torch.linspace(0.6, 0.98, 10)
draws = torch.Generator().manual_seed(6)
rates = torch.stack([three_rates(t, draws) for t in rate_times])
step = 1e-4
left_side = torch.stack([mean_bump(t + step) - mean_bump(t - step) for t in rate_times.double()]) / (2 * step)
off = (rates - left_side[:, None]).abs().amax(0) / left_side.abs().max()
print("largest difference from the left side, relative to its largest value")
print(f"pairs {off[0]:.3f}   exact velocity {off[1]:.3f}   drift and noise of the SDE {off[2]:.3f}")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
figure, (left, right) = plotting.canvas(1, 2, height=3.9, width=9.0, width_ratios=[1, 1.3])
plotting.density(lambda x: log_density(x, torch.tensor(0.85)), limit=3.2, points=81, chunk=1500, ax=left)
left.add_patch(Circle(centre.tolist(), width, fill=False, color=style.SOURCE, linewidth=2.5))
left.set_title(r"$p_t$ at t = 0.85; in the circle $\varphi > 0.6$")
fine = torch.linspace(0.6, 0.98, 100, dtype=torch.float64)
slopes = [(mean_bump(t + step) - mean_bump(t - step)) / (2 * step) for t in fine]
right.plot(fine, torch.stack(slopes), color=style.EXACT, label=r"left side: rate of $\mathbb{E}\,\varphi(x_t)$")
labels = ("velocity of each pair", "exact velocity", "drift and noise of the SDE")
for values, label, marker, color in zip(rates.T, labels, "os^", (style.PATH, style.DATA, NOISE), strict=True):
    right.plot(rate_times, values, marker, color=color, markerfacecolor="none", markeredgewidth=1.6, label=label)
right.set(xlabel="t", ylabel="rate", ylim=(0, 0.24))
right.legend(loc="upper left")
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# All three give the rate of the left side, up to the scatter of their samples. Three quite different motions, one and
# the same moving density.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 9. The way back: one SDE, one ODE, and all between
#
# Apply the Fokker–Planck equation to the noising SDE of section 2, which runs in $s$, and write
# $\Delta p = \nabla\!\cdot \nabla p = \nabla\!\cdot(p\,\nabla \log p)$:
#
# $$
# \partial_s p = \nabla\!\cdot\big(\tfrac12 \beta x\, p\big) + \tfrac12 \beta \Delta p = -\nabla\!\cdot\Big( p\, \big[ -\tfrac12 \beta\, (x + \nabla \log p) \big] \Big) .
# $$
#
# This is a continuity equation: the noise acts on the *density* like a velocity, the bracket. In $t = 1 - s$ it changes
# its sign:
#
# $$
# v(x, t) = \tfrac12 \beta(1-t)\, \big( x + \nabla \log p_t(x) \big) .
# $$
#
# The ordinary differential equation $\mathrm dx/\mathrm dt = v$ then moves noise to data through the same $p_t$: the
# **probability-flow ODE** (Song et al. 2021).

# %% [markdown] slideshow={"slide_type": "subslide"}
# Now add noise, and let the score pull together again what the noise spreads. For any scale $\lambda \ge 0$, with
# $g_t = \lambda \sqrt{\beta(1-t)}$:
#
# $$
# \mathrm dx = \Big[ v(x, t) + \tfrac12 g_t^2\, \nabla \log p_t(x) \Big] \mathrm dt + g_t\, \mathrm dw .
# $$
#
# Nothing changes for the density:
# $-\nabla\!\cdot\big(p\, \tfrac12 g^2 \nabla \log p\big) + \tfrac12 g^2 \Delta p = 0$, because
# $p\, \nabla \log p = \nabla p$. So **every $\lambda$ has the marginals $p_t$.** At $\lambda = 0$ it is the ODE, at
# $\lambda = 1$ the reversed diffusion (Anderson 1982; Song et al. 2021).


# %% slideshow={"slide_type": "subslide"}
def score_to_velocity(score, x, t):
    return beta(1 - t) / 2 * (x + score)


def walk(velocity, x, steps, scale, generator, pull=1.0, end=0.999):
    """Euler-Maruyama steps from t = 0 to end; pull = 0 leaves out the score that balances the noise."""
    h = end / steps
    for k in range(steps):
        t = torch.tensor(k * h)
        g = scale * beta(1 - t).sqrt()
        v = velocity(x, t)
        score = 2 * v / beta(1 - t) - x
        dw = math.sqrt(h) * torch.randn(x.shape, generator=generator)
        x = x + (v + pull * g**2 / 2 * score) * h + g * dw
    return x


start, t = torch.randn(N, 2, generator=generator), torch.tensor(0.7)
assert torch.allclose(score_to_velocity(learned_score(start, t), start, t), learned(start, t), atol=1e-4)
ours = walk(learned, start, 100, 1.0, torch.Generator().manual_seed(3))
same = torch.Generator().manual_seed(3)
theirs = solvers.solve_sde(learned, path, start, t1=0.999, steps=100, scale=1.0, generator=same)
assert torch.allclose(ours, theirs.x, atol=1e-2)

# %% [markdown] slideshow={"slide_type": "subslide"}
# We stop at $t = 0.999$, where noise of standard deviation 0.01 is left: at $t = 1$ itself $\sigma_t = 0$ and the
# score does not exist.
#
# Look at one dimension first, where $p_t$ can be drawn as a shade over time. The data are 400 points in two clusters,
# and the score is exact.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
predict.ask(
    "Points start from the same noise and follow the ODE or the SDE. What do the two have in common?",
    ["each point ends at the same place", "the histogram at every time", "only the histogram at the end"],
    answer=1,
    because="Single points follow different trajectories to different ends. The density obeys the same equation for every "
    "scale of the noise, at all times.",
)

# %% slideshow={"slide_type": "skip"}
left = torch.rand(400, 1, generator=generator) < 0.35
on_line = torch.where(left, -1.6, 1.0) + torch.where(left, 0.2, 0.4) * torch.randn(400, 1, generator=generator)
exact_line = closed_form.EmpiricalVelocity(on_line, path)
x_line, t_line = torch.linspace(-3.2, 3.2, 160), torch.linspace(0, 0.985, 120)


def density_line(t, x=x_line):
    """p_t(x) of the noised points on the line, shape (len(x),)."""
    mean, std = path.alpha(t) * on_line[:, 0], path.sigma(t)
    return torch.exp(-((x[:, None] - mean) ** 2) / (2 * std**2)).mean(1) / (std * math.sqrt(2 * math.pi))


shade = torch.stack([density_line(t) for t in t_line])
line_noise = torch.randn(1000, 1, generator=generator)
KEPT = torch.arange(0, 201, 2) * 0.999 / 200  # every second of 200 steps


@functools.cache
def walks_at(scale):
    """1,000 trajectories (times, points, 1) at this scale of the noise, all from the same starts."""
    noise = torch.Generator().manual_seed(5)
    return solvers.solve_sde(
        exact_line, path, line_noise, t1=0.999, steps=200, scale=scale, times=KEPT, generator=noise
    ).trajectory


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
def draw_walks(walks, ax):
    plane = torch.cat([KEPT[:, None, None].expand_as(walks), walks], dim=2)  # t to the right, x upwards
    plotting.trajectories((KEPT, plane), count=16, ends=False, ax=ax)
    ax.collections[0].set_alpha(0.95)
    ax.contourf(t_line, x_line, shade.T.clamp(max=0.6), levels=15, cmap="Greys", vmax=1.1, zorder=0)
    ax.set(xlim=(0, 0.985), ylim=(-3.2, 3.2), xlabel="t", ylabel="x", aspect="auto")
    ax.set(xticks=[0, 0.2, 0.4, 0.6, 0.8], yticks=[-2, 0, 2])


def plot_scale(scale):
    walks = walks_at(scale)
    figure, (wide, *narrow) = plotting.canvas(1, 3, height=3.5, width_ratios=[2.2, 1, 1])
    draw_walks(walks, wide)
    wide.set_title(f"noise scale {scale:g}" + {0.0: ": the ODE", 1.0: ": the reversed diffusion"}.get(float(scale), ""))
    for ax, k in zip(narrow, (80, 94), strict=True):
        histogram, exact_curve = walks[k, :, 0], lambda x, t=KEPT[k]: density_line(t, x)
        color = style.time_map()(float(KEPT[k]))
        plotting.histogram(histogram, range=(-3.2, 3.2), density=exact_curve, colors={"": color}, xlabel="x", ax=ax)
        ax.set_title(f"t = {float(KEPT[k]):.2f}")
        ax.get_legend().remove()
    return figure


# %% slideshow={"slide_type": "subslide"}
plot_scale(0.0)

# %% slideshow={"slide_type": "subslide"}
plot_scale(1.0)

# %% slideshow={"slide_type": "subslide"}
widgets.explore(plot_scale, scale=widgets.slider(0, 2, step=0.25, value=0.5, label="noise scale"))

# %% [markdown] slideshow={"slide_type": "fragment"}
# The grey shade and the black curves are the exact $p_t$, which does not depend on the scale. With more noise the
# trajectories get rougher, yet the histograms of 1,000 of them follow the same black curves.

# %% slideshow={"slide_type": "fragment"}
lengths = {scale: float(walks_at(scale).diff(dim=0).abs().sum(0).mean()) for scale in (0.0, 1.0)}
print(
    "mean length of a trajectory: " + ", ".join(f"{value:.1f} at scale {scale:g}" for scale, value in lengths.items())
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Now in numbers, on the two moons: the distance to a fresh sample of the exact $p_t$ in yardsticks, for the exact
# velocity and for the network. The last row is a control, which should fail: the noise of the SDE *without* the score
# that balances it.


# %% slideshow={"slide_type": "fragment"}
def follow(velocity, scale, steps=16):
    """States at `times`, with `steps` Euler-Maruyama steps from each of them to the next."""
    x, states = torch.randn(N, 2, generator=generator), []
    for t0, t1 in zip([0.0, *times], times, strict=False):
        x = solvers.solve_sde(velocity, path, x, t0, t1, steps=steps, scale=scale, generator=generator).x
        states.append(x)
    return states


reached = {
    "exact, ODE": follow(exact, 0.0),
    "exact, SDE": follow(exact, 1.0),
    "network, ODE": follow(learned, 0.0),
    "network, SDE": follow(learned, 1.0),
    "noise without score": [walk(learned, start, 80, 1.0, generator, pull=0.0, end=t) for t in times],
}
ratios = {name: [ratio(x, t) for x, t in zip(states, times, strict=True)] for name, states in reached.items()}
print("t" + " " * 21 + "".join(f"{t:8g}" for t in times))
for name, values in ratios.items():
    print(f"{name:22s}" + "".join(f"{value:8.1f}" for value in values))

# %% slideshow={"slide_type": "subslide"}
far_away = {
    name: float((torch.cdist(x[-1], points).min(1).values > 0.25).float().mean()) for name, x in reached.items()
}
for name, share in far_away.items():
    print(f"{name:22s}{share:6.1%} of the points are further than 0.25 from the data")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 5, height=2.3)
for (name, states), ax in zip(reached.items(), axes, strict=True):
    role = {"exact" if name.startswith("exact") else "model": states[-1]}
    plotting.clouds(**role, behind=points, limit=3.0, size=2.5, ax=ax)
    ax.set_title(name, fontsize=10)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# The energy distance does not tell the network's samples from data (rows three and four of the table above), yet a few of
# them lie between the moons, where there are no data. Both findings are right. A distance between samples of 1,000 points does not notice so few
# outliers; their share does. They are an error of the network and not of the solver: with the exact velocity there are
# none. A measure answers only the question that it asks.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 10. How many network evaluations?
#
# The marginals agree in the limit of small steps. Steps are what sampling costs: the *number of function evaluations*
# (NFE) counts how often the network is evaluated for one sample. The ODE is followed by Euler's method or by Heun's, the
# method of order two that Karras et al. (2022) use for diffusion models; the SDE by Euler-Maruyama.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "With 4 network evaluations, which comes closer to the data?",
    ["the ODE", "the SDE", "no difference, since they have the same marginals"],
    answer=0,
    because="The trajectories of the ODE are smooth and tolerate long steps. The SDE adds fresh noise in each step, "
    "and few steps are left to remove it.",
)

# %% slideshow={"slide_type": "fragment"}
nfes = [4, 8, 16, 32, 64]
errors = {"ODE, Euler": [], "ODE, Heun": [], "SDE": []}
for nfe in nfes:
    seen = {name: [] for name in errors}
    for _ in range(3):
        many = torch.randn(N, 2, generator=generator)
        euler = solvers.solve(learned, many, t1=0.999, method="euler", steps=nfe)
        heun = solvers.solve(learned, many, t1=0.999, method="heun", steps=nfe // 2)
        sde = solvers.solve_sde(learned, path, many, t1=0.999, steps=nfe, generator=generator)
        assert euler.nfe == heun.nfe == sde.nfe == nfe
        for name, solution in zip(errors, (euler, heun, sde), strict=True):
            seen[name].append(ratio(solution.x, 0.999))
    for name, three in seen.items():
        errors[name].append(max(1.0, sum(three) / 3))  # below 1 the distance says nothing
enough = {name: next(n for n, error in zip(nfes, values, strict=True) if error == 1) for name, values in errors.items()}
print("evaluations until the mean distance of three runs is below one yardstick")
print("   ".join(f"{name}: {n}" for name, n in enough.items()))

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
colors = {"ODE, Euler": style.MODEL, "ODE, Heun": style.DATA, "SDE": NOISE}
figure = plotting.error_against(nfes, errors, xlabel="NFE", ylabel="distance in yardsticks", fit=False, colors=colors)
figure.axes[0].axhspan(0.7, 1, color=style.GRID, zorder=0)
figure.axes[0].set(ylim=(0.7, 200), yticks=[1, 10, 100], yticklabels=["1", "10", "100"])
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# In the grey band this distance cannot tell samples from data (values below 1 are drawn at 1). With few evaluations the
# ODE by Euler's method is closest. Heun's method evaluates the network twice per step, so at equal NFE its steps are
# twice as long; for this network and these data that costs more than its higher order gains. Chapter 02 measures order.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 11. The sign
#
# Papers differ in the sign of what they call the score. In the diffusion baselines of Lipman et al. (2023) it is
# **minus** the score; we write $q_t$ for it here. Their sampler reads
#
# $$
# v(x, t) = -\tfrac12 T'(1-t)\, \big[ q_t(x) - x \big], \qquad q_t = \frac{e}{\sigma_t} .
# $$
#
# With $T' = \beta$ this is $\tfrac12 \beta\,(x + \nabla \log p_t)$ of section 9 exactly when $q_t = -\nabla \log p_t$.
# If one puts the score itself there, as its name suggests, no error message appears.


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "We sample with the wrong sign. Where do the points end?",
    ["at the mirror image of the data", "at noise again, about where they started", "thousands of times too far out"],
    answer=2,
    because="Near the source the score is about -x. With the right sign it cancels the x in the velocity, with the "
    "wrong one it doubles it: points grow by exp(T) or more, and T reaches 10.",
)


# %% slideshow={"slide_type": "fragment"}
def paper_velocity(minus_score, x, t):
    return -beta(1 - t) / 2 * (minus_score - x)


def right_sign(x, t):
    return paper_velocity(-learned_score(x, t), x, t)


def wrong_sign(x, t):
    return paper_velocity(learned_score(x, t), x, t)


assert torch.allclose(right_sign(start, torch.tensor(0.7)), learned(start, torch.tensor(0.7)), atol=1e-4)
grid = torch.linspace(0, 0.999, 201)
size = {}
for name, velocity in {"right sign": right_sign, "wrong sign": wrong_sign}.items():
    flow = solvers.solve(velocity, start, t1=0.999, method="euler", times=grid)
    size[name] = flow.trajectory.norm(dim=2).median(dim=1).values
    print(f"{name}: half of the points end within {float(size[name][-1]):,.1f} of the origin")

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
colors = {"right sign": style.MODEL, "wrong sign": style.BAD}
figure = plotting.curves(grid, size, xlabel="t", ylabel="median of |x|", log="y", colors=colors)
figure.axes[0].lines[1].set_linestyle("--")
figure.axes[0].legend()
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# With the wrong sign the points run away from the very beginning. Here it is plain to see; in a large model one sees
# only bad samples.

# %% [markdown] slideshow={"slide_type": "subslide"}
# There is a test that finds this before any sampling and needs no exact score. Integrate by parts in $d$ dimensions:
#
# $$
# \mathbb E_{p_t}\big[ x \cdot \nabla \log p_t(x) \big] = \int x \cdot \nabla p_t(x)\, \mathrm dx = - \int p_t(x)\, \nabla\!\cdot x \;\mathrm dx = -d .
# $$
#
# Add noise to data and average $x \cdot S(x, t)$. In the plane the result is $-2$, at every $t$ and for all data, up to
# the scatter of a finite sample. If it is $+2$, the sign is wrong; if it is another number, the scale is.

# %% slideshow={"slide_type": "fragment"}
scores = {"exact": exact_score, "network": learned_score, "wrong sign": lambda x, t: -learned_score(x, t)}
parts = {name: [] for name in scores}
moments = [0.3, 0.5, 0.7, 0.9]
for moment in moments:
    t, x = torch.tensor(moment), draw_marginal(moment, 4000)
    for name, score in scores.items():
        parts[name].append(float((x * score(x, t)).sum(1).mean()))
print("t" + " " * 11 + "".join(f"{t:8g}" for t in moments))
for name, values in parts.items():
    print(f"{name:12s}" + "".join(f"{value:8.2f}" for value in values))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 12. From diffusion to flows
#
# Of all the scales, zero is special. The ODE has no noise of its own: $x_0$ determines $x_1$, and running time backward
# leads from $x_1$ to $x_0$ again. Such a map is a *flow*, and $v(x, t)$ is its *velocity field*.

# %% slideshow={"slide_type": "subslide"}
grid = torch.linspace(0, 0.999, 101)
ode = solvers.solve(learned, start, t1=0.999, times=grid)
here = start[:1].expand(500, 2)  # one start, five hundred times
sde = solvers.solve_sde(learned, path, here, t1=0.999, steps=200, times=grid, generator=generator)

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
figure, axes = plotting.canvas(1, 2, width=7.2)
plotting.trajectories(ode, count=120, data=points, limit=3.2, title="ODE: the start determines the end", ax=axes[0])
plotting.clouds(model=sde.x, behind=points, limit=3.2, size=5, legend=False, ax=axes[1])
plotting.trajectories(sde, count=3, limit=3.2, title="SDE: 500 ends from one start", ax=axes[1])
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# Left: 120 starts (orange), each with its end (dark blue). Right: one start leads by the SDE to ends all over the data;
# three of the 500 trajectories are drawn.

# %% slideshow={"slide_type": "fragment"}
back = solvers.solve(learned, ode.x, t0=0.999, t1=0.0)
round_trip = float((back.x - start).norm(dim=1).mean())
same_start = float((sde.x[:250] - sde.x[250:]).norm(dim=1).mean())
random_pair = float((points[:1000] - points[1000:]).norm(dim=1).mean())
moved = ode.trajectory.diff(dim=0).norm(dim=2)  # per step and point
early = float(moved[:50].sum() / moved.sum())
print(f"ODE, there and back again: {round_trip:.5f} from the start on average")
print(f"SDE twice from one start: ends {same_start:.2f} apart; two random data points: {random_pair:.2f}")
print(f"ODE, first half of the time: {early:.0%} of the length of the trajectories")

# %% [markdown] slideshow={"slide_type": "subslide"}
# The SDE forgets its start, the ODE keeps it. Three questions follow, and the next chapters answer them:
#
# - A flow is invertible, so what density does it give to a point? ([02 Flows](02_flows.ipynb))
# - We trained a noise predictor and computed the velocity from it. Why not train the velocity itself? ([03 Flow
#   matching](03_flow_matching.ipynb))
# - In the first half of the time the ODE moves the points only a small part of their way. Must the path be a diffusion?
#   (Chapter 03 begins with another path, the straight line.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you saw

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "skip"} tags=["hide-input"]
same = sorted(irreducible.values())
worst = {name: max(abs(value) for value in values) for name, values in ratios.items()}
both_worst = {of: max(worst[f"{of}, ODE"], worst[f"{of}, SDE"]) for of in ("exact", "network")}
outliers = {of: (far_away[f"{of}, ODE"] + far_away[f"{of}, SDE"]) / 2 for of in ("exact", "network")}
far, heun_over_euler = errors["SDE"][0] / errors["ODE, Euler"][0], errors["ODE, Heun"][1] / errors["ODE, Euler"][1]
further = [
    Claim("marginals of ODE and SDE, exact score, in yardsticks", both_worst["exact"], below(2)),
    Claim("control: noise without score, in yardsticks", min(ratios["noise without score"]), above(10)),
    Claim("outliers among the network's samples: share", outliers["network"], between(0.0005, 0.03)),
    Claim("outliers with the exact score", outliers["exact"], exactly(0), digits=0),
    Claim("the gap of DDPM's alpha: power of K", plotting.slope(counts, gaps), about(-1, 0.04), digits=1),
    Claim("the gap with exact step sizes, any K", exact_gap, below(1e-9)),
    Claim("the score by autograd and in closed form: relative difference", score_gap, below(1e-4)),
    Claim("loss minus distance to the exact score, three models: spread", same[-1] - same[0], below(0.02)),
    Claim("trained network: loss minus irreducible loss", excess["trained"], below(0.02)),
    Claim("the network's score at t = 0.98 over that up to t = 0.8: relative error", last / worst_until, above(2)),
    Claim("the exact score of other points at t = 0.98: relative error", last_other, above(0.2)),
    Claim("length of a trajectory: SDE over ODE", lengths[1.0] / lengths[0.0], above(3)),
    Claim("8 evaluations: distance by Heun over that by Euler", heun_over_euler, above(1.2)),
    Claim("mean of x · score in the plane, by the network", parts["network"][1], about(-2, 0.2)),
    Claim("SDE: two ends from one start over two random points", same_start / random_pair, about(1, 0.15)),
    Claim("ODE: share of the way in the first half of the time", early, below(0.25)),
]

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input", "nbval-check-output"]
claims.table(
    [
        Claim("1,000 small steps are one jump: error of alpha and sigma", chain_error, below(0.06)),
        Claim("the same for whole distributions, in yardsticks", max(map(abs, chain_ratios)), below(2)),
        Claim("noise loss and score loss on one batch: relative difference", loss_gap, below(1e-5)),
        Claim("irreducible loss: that of the exact score", irreducible["exact"], about(0.22, 0.01), digits=2),
        Claim("the network's score up to t = 0.8: relative error", worst_until, below(0.12)),
        Claim("continuity equation, weak form: difference of the sides", off[1], below(0.12)),
        Claim("Fokker-Planck equation, weak form: difference of the sides", off[2], below(0.12)),
        Claim("marginals of ODE and SDE, network, in yardsticks", both_worst["network"], below(3)),
        Claim("4 evaluations: distance of the SDE over that of the ODE", far, above(5)),
        Claim("wrong sign: median distance from the origin", size["wrong sign"][-1], above(1000)),
        Claim("ODE there and back again: mean distance", round_trip, below(0.01)),
        *further,
    ]
)

# %% [markdown] slideshow={"slide_type": "skip"}
# ## References
#
# - Anderson 1982, *Reverse-time diffusion equation models*, Stochastic Processes and their Applications
# - Efron 2011, *Tweedie's formula and selection bias*, Journal of the American Statistical Association
# - Ho, Jain and Abbeel 2020, *Denoising diffusion probabilistic models*, NeurIPS, arXiv:2006.11239
# - Hyvärinen 2005, *Estimation of non-normalized statistical models by score matching*, Journal of Machine Learning
#   Research
# - Karras, Aittala, Aila and Laine 2022, *Elucidating the design space of diffusion-based generative models*, NeurIPS,
#   arXiv:2206.00364
# - Lipman, Chen, Ben-Hamu, Nickel and Le 2023, *Flow matching for generative modeling*, ICLR, arXiv:2210.02747
# - Sohl-Dickstein, Weiss, Maheswaranathan and Ganguli 2015, *Deep unsupervised learning using nonequilibrium
#   thermodynamics*, ICML, arXiv:1503.03585
# - Song and Ermon 2019, *Generative modeling by estimating gradients of the data distribution*, NeurIPS,
#   arXiv:1907.05600
# - Song, Meng and Ermon 2021, *Denoising diffusion implicit models*, ICLR, arXiv:2010.02502 (exercises 5 and 6)
# - Song, Sohl-Dickstein, Kingma, Kumar, Ermon and Poole 2021, *Score-based generative modeling through stochastic
#   differential equations*, ICLR, arXiv:2011.13456 ("Song et al." in the text)
# - Székely and Rizzo 2013, *Energy statistics: a class of statistics based on distances*, Journal of Statistical
#   Planning and Inference
# - Vincent 2011, *A connection between score matching and denoising autoencoders*, Neural Computation
#
# **Where to read on.** The paper by Song et al. (2021) for SDEs and their reversal, that by Karras et al. (2022) for the
# choices that matter in practice. A textbook on the mathematics: Särkkä and Solin 2019, *Applied stochastic differential
# equations*, Cambridge University Press.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# In [exercises/01_diffusion.ipynb](exercises/01_diffusion.ipynb); each has a check that says what is wrong.
#
# 1. **A chain without discretization error.** The step sizes $b_k$ with which $K$ steps equal one jump exactly.
# 2. **The noise prediction for Gaussian data.** Derive the best one; no network is needed.
# 3. **A sampler that loses its noise.** Find what is wrong with a step of the SDE, and mend it.
# 4. **The ODE of a variance-exploding path.** The same derivation for the other schedule.
# 5. **DDIM is Euler's method in other variables.** Prove it, and say when it makes no error.
# 6. **DDIM or Euler?** Which of the two is nearer to the exact ODE at equal NFE? Find out.
#
# <!-- next: written by fmcore.course.build -->
#
# Next: [02 Flows](02_flows.ipynb). When is a flow invertible, how dense are its samples, how exact is a solver?
#
# <!-- end of next -->
