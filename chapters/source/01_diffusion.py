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
# back: from pure noise to a new picture. This chapter builds one from nothing, on points in the plane where every
# claim can be checked against an exact answer, and ends where flow matching begins: at a velocity field.

# %% slideshow={"slide_type": "skip"}
import math

import torch

from fmcore import closed_form, data, losses, networks, paths, solvers
from fmcore.course import card, claims, plotting, predict, style, widgets
from fmcore.course.claims import Claim, about, above, below
from fmcore.data.digits import digits
from fmcore.metrics.two_sample import energy_distance
from fmcore.velocity import from_noise

style.use()
torch.set_num_threads(1)  # networks this small gain nothing from a second core

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "-"} tags=["hide-input"]
card.show(
    "01_diffusion",
    goals=[
        "noise data in one jump, and say why a thousand small steps end in the same distribution",
        "say what the score is, and why predicting noise is the same as learning it",
        "train a noise predictor and sample from it by an SDE and by an ODE",
        "derive why both have the same marginals, and measure it",
        "find a wrong sign before it costs you a day",
    ],
    before=["chapter 00", "Gaussians in two dimensions", "a training loop in PyTorch"],
    exercises=[
        "1. a chain without discretization error",
        "2. score and data from a noise prediction",
        "3. one step of the SDE",
        "4. DDIM: another step for the ODE",
        "5. the ODE of a variance-exploding path",
    ],
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 1. Why noise?
#
# We are given examples $x_1$ of some distribution, say images, and want new ones. Three facts make noise the tool:
#
# - **Destroying is easy.** Adding Gaussian noise needs no model, and it always ends in the same place: a standard
#   Gaussian, which we know how to sample.
# - **Undoing a little noise is regression.** "Which noise was added to this picture?" has an answer for every
#   training picture, so a network can learn it by least squares.
# - **Noise fills space.** Real images lie on a thin set; far from it there is nothing to learn from. Noised images
#   lie everywhere, so the network learns what to do at every point that sampling will visit.

# %% slideshow={"slide_type": "subslide"}
path = paths.variance_preserving()  # the noising used throughout this chapter; section 2 builds it by hand
generator = torch.Generator().manual_seed(0)
pictures = digits().train[[5, 11, 24]].float() / 8 - 1  # pixels from -1 to 1
columns = [1.0, 0.9, 0.8, 0.7, 0.6, 0.4, 0.0]
noise = torch.randn(pictures.shape, generator=generator)
rows = torch.stack([path.interpolate(noise, pictures, min(t, path.t_max)) for t in columns], dim=1)
plotting.images(rows.flatten(0, 1), titles=[f"t = {t:g}" for t in columns], low=-1.3, high=1.3, width=7.5)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 2. Noising in one jump
#
# **Time.** In this course $t = 0$ is noise (the *source*) and $t = 1$ is data, so sampling runs forward in $t$.
# Papers on diffusion count the other way, from data to noise; we write their time as $s = 1 - t$.
#
# - $x_1$ is a data point, $x_0$ a draw of the standard Gaussian $\mathcal N(0, I)$, $x_t$ the noised point at time $t$;
# - $p_t$ is the distribution of $x_t$ over all data and all noise, called the **marginal** at time $t$;
# - $\beta(s)$ is the rate at which noise is added, here from 0.1 at the data to 20 at the source, and
#   $T(s) = \int_0^s \beta(r)\, \mathrm dr$ is what was added up to $s$;
# - $w_s$ is Brownian motion: over a short time $h$ it moves by $\sqrt h$ times a standard normal.

# %% [markdown] slideshow={"slide_type": "subslide"}
# The diffusion shrinks the point a little and adds a little noise, all the time (a stochastic differential equation,
# SDE):
#
# $$
# \mathrm dx = -\tfrac12 \beta(s)\, x\, \mathrm ds + \sqrt{\beta(s)}\, \mathrm dw_s .
# $$
#
# Started at $x_1$ it stays Gaussian. Its mean $m$ obeys $m' = -\tfrac12 \beta m$, so $m = e^{-T(s)/2} x_1$. Its
# variance $V$ obeys $V' = -\beta V + \beta$ with $V(0) = 0$, so $V = 1 - e^{-T(s)}$. Hence one jump does what the
# whole equation does:
#
# $$
# x_t = \alpha_t x_1 + \sigma_t x_0, \qquad \alpha_t = e^{-T(1-t)/2}, \qquad \sigma_t^2 = 1 - \alpha_t^2 .
# $$
#
# The path is called *variance preserving* because $\alpha_t^2 + \sigma_t^2 = 1$: data of variance one keep that
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
# These twenty lines are what `paths.variance_preserving()` holds. The check, in double precision:

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
    because="The noise rate grows towards the source, so most of the data is gone by the middle: alpha = 0.28, sigma = 0.96. "
    "During the first half of the time alpha never exceeds that.",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# From here on the data are 2,000 points of two moons, `points`. They are *all* there is to learn: the data
# distribution of this chapter is "pick one of these points". That makes every exact answer computable.

# %% slideshow={"slide_type": "fragment"}
points = data.toy.two_moons(2000, generator)


def draw_data(n):
    return points[torch.randint(len(points), (n,), generator=generator)]


fixed_noise = torch.randn(len(points), 2, generator=torch.Generator().manual_seed(1))
line = torch.linspace(0, path.t_max, 200)


def plot_noised(t):
    figure, (left, right) = plotting.canvas(1, 2, height=3.6, width=8.0)
    xt = path.interpolate(fixed_noise, points, t)
    plotting.snapshots((torch.tensor([t]), xt[None]), times=[t], limit=3.6, size=4, axes=[left])
    both = {"alpha: data": alpha(line), "sigma: noise": sigma(line)}
    colors = {"alpha: data": style.DATA, "sigma: noise": style.SOURCE}
    plotting.curves(line, both, xlabel="t", colors=colors, ax=right)
    right.axvline(t, color=style.MUTED, linewidth=1)
    return figure


plot_noised(0.8)

# %% slideshow={"slide_type": "fragment"}
widgets.explore(plot_noised, t=widgets.slider(0, 0.99, step=0.03, value=0.6, label="time t"))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 3. Two schedules
#
# The other classic, *variance exploding* (VE), leaves the data alone and adds noise until it drowns them:
# $\alpha_t = 1$ and $\sigma_t = \sigma_{\min} (\sigma_{\max}/\sigma_{\min})^{1-t}$. It ends at
# $\mathcal N(0, \sigma_{\max}^2 I)$, so its sampling starts from $\sigma_{\max} x_0$ (`path.source_scale`). What both
# share is seen in the ratio $\alpha_t / \sigma_t$, the signal for each unit of noise: it rises from far below 1 at
# the source to far above 1 at the data.

# %% slideshow={"slide_type": "fragment"}
exploding = paths.variance_exploding(sigma_min=0.01, sigma_max=50.0)
colors = {"alpha": style.DATA, "sigma": style.SOURCE}
figure, axes = plotting.canvas(1, 3, height=3.1)
panels = ((path, "variance preserving", ""), (exploding, "variance exploding", "y"))
for (schedule, title, log), ax in zip(panels, axes[:2], strict=True):
    both = {"alpha": schedule.alpha(line), "sigma": schedule.sigma(line)}
    plotting.curves(line, both, xlabel="t", colors=colors, title=title, log=log, ax=ax)
ratios = {"VP": path.alpha(line) / path.sigma(line), "VE": 1 / exploding.sigma(line)}
plotting.curves(line, ratios, xlabel="t", title="signal to noise, alpha / sigma", log="y", ax=axes[2])
axes[2].axhline(1, color=style.MUTED, linewidth=1, zorder=0)
figure

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 4. A thousand small steps
#
# The first diffusion models (DDPM) add noise in $K$ small steps, a Markov chain with step sizes $b_1, \dots, b_K$:
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
# The two noises are independent, so together they are one Gaussian of variance
# $(1-b_2)b_1 + b_2 = 1 - (1-b_1)(1-b_2)$. By induction $k$ steps are one jump with
# $\alpha = \prod_{j \le k} \sqrt{1-b_j}$ and $\sigma^2 = 1 - \alpha^2$. This equals $\alpha_t = e^{-T/2}$ at
# $s_k = k/K$ if
#
# $$
# b_k = 1 - e^{-(T(s_k) - T(s_{k-1}))} \;\approx\; \beta(s_k)/K .
# $$
#
# DDPM takes the right-hand side: for $K = 1000$ it grows in a line from about 0.0001 to 0.02.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
predict.ask(
    "We run 1000 steps from every data point, with fresh noise at each, and compare with one jump. What comes out?",
    ["the small errors of 1000 steps add up", "the same points", "other points from the same distribution"],
    answer=2,
    because="The noise differs, so the points do. But Gaussian steps make a Gaussian: the distribution is that of one jump, "
    "up to a gap of order 1/1000 that comes from rounding the step sizes, not from adding errors up.",
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

# %% [markdown] slideshow={"slide_type": "skip"}
# At every $k$ we fit the line "state = $a \cdot$ start + noise" over the 2,000 chains: $a$ is measured by least
# squares, the standard deviation of the noise is what the line leaves over. If the chain is one jump, these are
# $\alpha_t$ and $\sigma_t$. Without sampling, we also compare $\prod \sqrt{1-b_j}$ with $\alpha_t$ for several $K$,
# with DDPM's steps and with exact ones.

# %% slideshow={"slide_type": "skip"}
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

# %% slideshow={"slide_type": "subslide"}
figure, axes = plotting.canvas(1, 3, height=3.3)
plotting.curves(line, {"alpha": path.alpha(line), "sigma": path.sigma(line)}, xlabel="t", colors=colors, ax=axes[0])
for measured, color in ((slope, style.DATA), (spread, style.SOURCE)):
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

# %% [markdown] slideshow={"slide_type": "subslide"}
# The circles lie on the lines, and the gap of DDPM's step sizes falls like $1/K$; with the exact $b_k$ it is zero for
# every $K$.
#
# To compare whole distributions and not two moments, we need a distance between samples. The *energy distance*
# $2\,\mathbb E|A-B| - \mathbb E|A-A'| - \mathbb E|B-B'|$ (averages over pairs of points) is zero exactly when two
# distributions agree. Its estimate from finite samples scatters around zero even then, so it needs a **yardstick**:
# the largest value among twenty pairs of fresh samples of one and the same $p_t$. A ratio to the yardstick between
# $-1$ and $1$ says: *no further apart than two samples of the same thing*. (One time in twenty-one or so, chance
# alone exceeds it.)

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
print("chain against one jump, in yardsticks")
print("   ".join(f"t = {t:g}: {value:4.1f}" for t, value in zip(times, chain_ratios, strict=True)))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 5. What there is to learn: the score
#
# The *score* of $p_t$ is the gradient of its log-density with respect to the point, $\nabla_x \log p_t(x)$: an arrow
# at every $x$ that points to where noised data are denser. If there were one data point, $p_t$ would be the Gaussian
# $\mathcal N(\alpha_t x_1, \sigma_t^2 I)$ with score $-(x - \alpha_t x_1)/\sigma_t^2 = -x_0/\sigma_t$: minus the
# noise, over sigma. For many data points, differentiate $p_t(x) = \mathbb E_{x_1}\, p_t(x \mid x_1)$ and divide by
# $p_t(x)$:
#
# $$
# \nabla \log p_t(x) = \mathbb E\big[\nabla \log p_t(x \mid x_1) \,\big|\, x_t = x\big] = -\frac{1}{\sigma_t}\, \mathbb E[x_0 \mid x_t = x] .
# $$
#
# **The score is minus the mean noise in $x$, over sigma.** All of this chapter follows from that line.
#
# Our data are finitely many points, so $p_t$ is a mixture of as many Gaussians. Its log-density is a `logsumexp`, and
# autograd gives the score. `closed_form.EmpiricalVelocity` holds the same answer, which we call *exact* from here on.


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


# %% slideshow={"slide_type": "subslide"}
def plot_score(t, score=exact_score, ax=None, title="t = {t:.2f}"):
    def arrows(x, t):
        s = path.sigma(t)[:, None] * score(x, t)
        return s / (1 + s.norm(dim=1, keepdim=True))  # long arrows are shortened: the direction is what counts

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
# Near the source all arrows point to the middle: only the mean of the data is visible through the noise. Nearer to
# the data they bend towards the two moons. The shade is the density $p_t$, the arrows are its score.

# %% slideshow={"slide_type": "skip"}
widgets.explore(plot_score, t=widgets.slider(0.05, 0.95, step=0.05, value=0.7, label="time t"))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 6. Predicting noise is score matching
#
# A network $e(x, t)$ that predicts the noise is trained by least squares (DDPM). A network $s(x, t)$ for the score is
# trained on the score of the single Gaussian that made $x_t$, which is known (*denoising score matching*), with
# weight $\sigma_t^2$:
#
# $$
# L_{\text{noise}} = \mathbb E \,\lVert e(x_t, t) - x_0 \rVert^2, \qquad
# L_{\text{score}} = \mathbb E\, \sigma_t^2 \,\Big\lVert s(x_t, t) + \frac{x_0}{\sigma_t} \Big\rVert^2 .
# $$
#
# Put $s = -e/\sigma_t$ and the two are equal, term by term. The two models differ in what they print, not in what
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
# least squares finds a mean, and section 5 says which: the best noise predictor is
# $e^*(x, t) = \mathbb E[x_0 \mid x_t = x] = -\sigma_t \nabla \log p_t(x)$. Since $x_0 - e^*$ averages to zero at
# every $x$, the cross term vanishes and
#
# $$
# L_{\text{noise}}(e) = \underbrace{\mathbb E\, \lVert e - e^* \rVert^2}_{\text{distance to the true score}} + \underbrace{\mathbb E\, \lVert e^* - x_0 \rVert^2}_{\text{the same for every network}} .
# $$

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "We train the noise predictor as well as can be. Where does its loss end?",
    ["at zero", "at a number well above zero", "at 1, the variance of the noise"],
    answer=1,
    because="A noised point does not tell which data point and which noise made it. The spread of the possible noises is "
    "the second term: no network removes it. A loss that stays at 0.2 may belong to a perfect model.",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 7. Train it
#
# A multilayer perceptron with four hidden layers, five thousand steps of Adam. `losses.noise_prediction` draws $t$
# uniformly.

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

# %% [markdown] slideshow={"slide_type": "skip"}
# Now the decomposition of section 6, on one large batch: for the untrained network, the trained one and the exact
# $e^*$ we compute the loss, the distance to $e^*$, and the difference of the two. If the algebra is right, the
# difference is the same number three times (up to the scatter of a finite batch).


# %% slideshow={"slide_type": "subslide"}
def exact_noise(x, t):
    return path.velocity_to_noise(exact(x, t), x, t)


x1, x0, t = draw_data(8192), torch.randn(8192, 2, generator=generator), 0.99 * torch.rand(8192, generator=generator)
xt = path.interpolate(x0, x1, t)
best = exact_noise(xt, t)
floor_of = {}
print("            noise loss   distance to exact   difference")
for name, prediction in {"untrained": untrained(xt, t).detach(), "trained": net(xt, t), "exact": best}.items():
    loss = float((prediction - x0).square().mean())
    distance = float((prediction - best).square().mean())
    floor_of[name] = loss - distance
    print(f"{name:10s}{loss:12.3f}{distance:20.3f}{floor_of[name]:13.3f}")

# %% slideshow={"slide_type": "fragment"}
smooth = torch.tensor(history).reshape(-1, 50).mean(1)
seen = 50 * torch.arange(len(smooth)) + 25
figure = plotting.curves(seen, {"training loss": smooth}, colors={"training loss": style.MODEL}, xlabel="step")
figure.axes[0].axhline(floor_of["exact"], color=style.EXACT, linestyle="--", label="floor: loss of the exact score")
figure.axes[0].set_ylim(0, 0.6)
figure.axes[0].legend()
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# How good is the score that came out? Below, the error of the network's score relative to the exact one, at times
# $t$. The grey curve is the same error for the exact score of *another* 2,000 points of the two moons: how much the
# exact score itself depends on which points we happened to draw.

# %% slideshow={"slide_type": "fragment"}
learned = from_noise(net, path)  # the velocity that belongs to the network's noise; section 8
learned_score = as_score(net)
other = closed_form.EmpiricalVelocity(data.toy.two_moons(2000, generator), path)
score_times = [0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98]
curves = {"network": [], "exact, other points": []}
for moment in score_times:
    t, x = torch.tensor(moment), draw_marginal(moment)
    truth = exact_score(x, t)
    for name, s in zip(curves, (learned_score(x, t), path.velocity_to_score(other(x, t), x, t)), strict=True):
        curves[name].append(float((s - truth).norm() / truth.norm()))

# %% slideshow={"slide_type": "fragment"}
figure, axes = plotting.canvas(1, 3)
plot_score(0.85, exact_score, ax=axes[0], title="exact score, t = 0.85")
plot_score(0.85, learned_score, ax=axes[1], title="the network's, t = 0.85")
colors = {"network": style.MODEL, "exact, other points": style.MUTED}
plotting.curves(score_times, curves, xlabel="t", colors=colors, markers=True, ax=axes[2])
axes[2].set_title("relative error of the score")
figure

# %% [markdown] slideshow={"slide_type": "notes"}
# Read the right panel with care. Up to $t = 0.8$ the network is within about a tenth. Near the data both curves rise:
# there the noise is smaller than the distance between neighbouring points, the exact score pulls towards single
# training points, and neither another data set nor a small network agrees with it. A model that did would only repeat
# its training points. Chapters 07 and 08 are about this.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 8. The way back: one SDE, one ODE, and all between
#
# When points move with velocity $v$, their density obeys the continuity equation
# $\partial_t p = -\nabla\!\cdot(p\,v)$; noise of strength $g$ adds $\tfrac12 g^2 \Delta p$ (Fokker–Planck). For the
# noising of section 2, with $\Delta p = \nabla\!\cdot(p\,\nabla \log p)$,
#
# $$
# \partial_s p = \nabla\!\cdot\big(\tfrac12 \beta x\, p\big) + \tfrac12 \beta \Delta p = -\nabla\!\cdot\Big( p\, \big[ -\tfrac12 \beta\, (x + \nabla \log p) \big] \Big) .
# $$
#
# So the noise acts on the *density* like a velocity, the bracket. In $t = 1 - s$ it changes sign:
#
# $$
# v(x, t) = \tfrac12 \beta(1-t)\, \big( x + \nabla \log p_t(x) \big) .
# $$
#
# The ordinary differential equation $\mathrm dx/\mathrm dt = v$ then moves noise to data through the same $p_t$: the
# **probability-flow ODE**.

# %% [markdown] slideshow={"slide_type": "subslide"}
# Now add noise, and pull back with the score what it spreads. For any scale $\lambda \ge 0$, with
# $g_t = \lambda \sqrt{\beta(1-t)}$:
#
# $$
# \mathrm dx = \Big[ v(x, t) + \tfrac12 g_t^2\, \nabla \log p_t(x) \Big] \mathrm dt + g_t\, \mathrm dw .
# $$
#
# Nothing changes for the density:
# $-\nabla\!\cdot\big(p\, \tfrac12 g^2 \nabla \log p\big) + \tfrac12 g^2 \Delta p = 0$, because
# $p\, \nabla \log p = \nabla p$. So **every $\lambda$ has the marginals $p_t$.** At $\lambda = 0$ it is the ODE, at
# $\lambda = 1$ the reversed diffusion.


# %% slideshow={"slide_type": "subslide"}
def score_to_velocity(score, x, t):
    return beta(1 - t) / 2 * (x + score)


def walk(velocity, x, steps, scale, generator, pull=1.0, end=0.999):
    """Euler-Maruyama from t = 0 to end; pull = 0 forgets the score that balances the noise."""
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

# %% [markdown] slideshow={"slide_type": "skip"}
# We stop at $t = 0.999$, where noise of standard deviation 0.01 is left: at $t = 1$ itself $\sigma_t = 0$ and the
# score does not exist.
#
# Look at one dimension first, where $p_t$ can be drawn as a shade over time. The data are 400 points in two heaps,
# and the score is exact.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "subslide"} tags=["hide-input"]
predict.ask(
    "Points start from the same noise and follow the ODE or the SDE. What do the two have in common?",
    ["each point ends at the same place", "the histogram at every time", "only the histogram at the end"],
    answer=1,
    because="Single points take quite different ways and ends. The density obeys the same equation for every scale "
    "of the noise, at all times.",
)

# %% slideshow={"slide_type": "skip"}
heap = torch.rand(400, 1, generator=generator) < 0.35
heaps = torch.where(heap, -1.6, 1.0) + torch.where(heap, 0.2, 0.4) * torch.randn(400, 1, generator=generator)
exact_line = closed_form.EmpiricalVelocity(heaps, path)
x_line, t_line = torch.linspace(-3.2, 3.2, 160), torch.linspace(0, 0.985, 120)


def density_line(t, x=x_line):
    """p_t(x) of the noised heaps, shape (len(x),)."""
    mean, std = path.alpha(t) * heaps[:, 0], path.sigma(t)
    return torch.exp(-((x[:, None] - mean) ** 2) / (2 * std**2)).mean(1) / (std * math.sqrt(2 * math.pi))


shade = torch.stack([density_line(t) for t in t_line])
line_noise = torch.randn(1000, 1, generator=generator)
KEPT = torch.arange(0, 201, 2) * 0.999 / 200  # every second of 200 steps


# %% slideshow={"slide_type": "skip"}
def draw_walks(walks, ax):
    plane = torch.cat([KEPT[:, None, None].expand_as(walks), walks], dim=2)  # t to the right, x upwards
    plotting.trajectories((KEPT, plane), count=16, ends=False, ax=ax)
    ax.collections[0].set_alpha(0.95)
    ax.contourf(t_line, x_line, shade.T.clamp(max=0.6), levels=15, cmap="Greys", vmax=1.1, zorder=0)
    ax.set(xlim=(0, 0.985), ylim=(-3.2, 3.2), xlabel="t", ylabel="x", aspect="auto")
    ax.set(xticks=[0, 0.2, 0.4, 0.6, 0.8], yticks=[-2, 0, 2])


def plot_scale(scale):
    noise = torch.Generator().manual_seed(5)
    walks = solvers.solve_sde(
        exact_line, path, line_noise, t1=0.999, steps=200, scale=scale, times=KEPT, generator=noise
    ).trajectory
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
# Grey shade and black curves are the exact $p_t$: they do not depend on the scale. The walks get rougher as the scale
# grows, and their histograms (1,000 walks) stay where they are.

# %% [markdown] slideshow={"slide_type": "subslide"}
# Now in numbers, on the two moons: the distance to a fresh sample of the exact $p_t$ in yardsticks, for the exact
# velocity and for the network. The last run is a control, to see that the number can fail: the noise of the SDE
# *without* the score that balances it.


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
figure, axes = plotting.canvas(1, 5, height=2.3)
for (name, states), ax in zip(reached.items(), axes, strict=True):
    role = {"exact" if name.startswith("exact") else "model": states[-1]}
    plotting.clouds(**role, behind=points, limit=3.0, size=2.5, ax=ax)
    ax.set_title(name, fontsize=10)
stray = {name: float((torch.cdist(x[-1], points).min(1).values > 0.25).float().mean()) for name, x in reached.items()}
for name, share in stray.items():
    print(f"{name:22s}{share:6.1%} of the points are further than 0.25 from the data")
figure

# %% [markdown] slideshow={"slide_type": "notes"}
# The network's two rows pass the yardstick, yet the eye finds points between the moons that the data do not have.
# Both are right. A distance between samples of 1,000 points does not notice a few strays; the share of strays does.
# They are the network's error and not the solver's: with the exact velocity there are none. A number answers only the
# question that it asks.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 9. How many network evaluations?
#
# The marginals agree in the limit of small steps. Steps are what sampling costs: the *number of function evaluations*
# (NFE) counts the calls of the network for one sample.

# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "With 4 network evaluations, which comes closer to the data?",
    ["the ODE", "the SDE", "no difference: they have the same marginals"],
    answer=0,
    because="The ODE's paths are smooth and survive long steps. The SDE adds fresh noise in each step, "
    "and few steps are left to remove it.",
)

# %% slideshow={"slide_type": "skip"}
many = torch.randn(N, 2, generator=generator)
nfes = [4, 8, 16, 32, 64, 128]
errors = {"ODE, Euler": [], "ODE, Heun": [], "SDE": []}
for nfe in nfes:
    euler = solvers.solve(learned, many, t1=0.999, method="euler", steps=nfe)
    heun = solvers.solve(learned, many, t1=0.999, method="heun", steps=nfe // 2)
    sde = solvers.solve_sde(learned, path, many, t1=0.999, steps=nfe, generator=generator)
    assert euler.nfe == heun.nfe == sde.nfe == nfe
    for name, solution in zip(errors, (euler, heun, sde), strict=True):
        errors[name].append(max(1.0, ratio(solution.x, 0.999)))

# %% slideshow={"slide_type": "fragment"}
colors = {"ODE, Euler": style.MODEL, "ODE, Heun": style.DATA, "SDE": style.SOURCE}
figure = plotting.error_against(nfes, errors, xlabel="NFE", ylabel="distance in yardsticks", fit=False, colors=colors)
figure.axes[0].axhspan(0.7, 1, color=style.GRID, zorder=0)
figure.axes[0].set(ylim=(0.7, 200), yticks=[1, 10, 100], yticklabels=["1", "10", "100"])
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# In the grey band this distance cannot tell samples from data (values below 1 are drawn at 1). The ODE by Euler's method
# arrives there first, the SDE needs more. Heun's method calls the network twice a step, so at equal NFE its steps are
# twice as long; here that costs more than its higher order gains, and it arrives last. Chapter 02 measures order
# properly.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 10. The sign
#
# Papers differ in what the letter $s$ means. In the diffusion baselines of Lipman et al. (2023) $s_t$ is **minus**
# the score: their sampler reads
#
# $$
# u_t(x) = -\tfrac12 T'(1-t)\, \big[ s_t(x) - x \big], \qquad s_t = \frac{e}{\sigma_t} .
# $$
#
# With $T' = \beta$ this is section 8's $\tfrac12 \beta\,(x + \nabla \log p_t)$ exactly when $s_t = -\nabla \log p_t$.
# Put the score itself there, as the letter suggests, and nothing crashes.


# %% jupyter={"source_hidden": true} slideshow={"slide_type": "fragment"} tags=["hide-input"]
predict.ask(
    "We sample with the wrong sign. Where do the points end?",
    ["at the mirror image of the data", "at noise again, about where they started", "thousands of times too far out"],
    answer=2,
    because="Near the source the score is about -x. With the right sign it cancels the x in the velocity, with the "
    "wrong one it doubles it: points grow by exp(T) or more, and T reaches 10.",
)


# %% slideshow={"slide_type": "fragment"}
def paper_velocity(s, x, t):
    return -beta(1 - t) / 2 * (s - x)


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
colors = {"right sign": style.MODEL, "wrong sign": style.BAD}
plotting.curves(grid, size, xlabel="t", ylabel="median of |x|", log="y", colors=colors)

# %% [markdown] slideshow={"slide_type": "subslide"}
# A test that finds this before any sampling, and needs no exact score: integrate by parts in $d$ dimensions,
#
# $$
# \mathbb E_{p_t}\big[ x \cdot \nabla \log p_t(x) \big] = \int x \cdot \nabla p_t(x)\, \mathrm dx = - \int p_t(x)\, \nabla\!\cdot x \;\mathrm dx = -d .
# $$
#
# Noise some data, average $x \cdot s(x, t)$: minus two in the plane, at every $t$, whatever the data are, up to the
# scatter of a finite sample (which grows towards the data). Plus two is a wrong sign, any other number a wrong scale.

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
# ## 11. The bridge: the ODE is a flow
#
# Of all the scales, zero is special. The ODE has no noise of its own: $x_0$ decides $x_1$, and running time backward
# leads from $x_1$ to $x_0$ again. Such a map is a *flow*, and $v(x, t)$ is its *velocity field*.

# %% slideshow={"slide_type": "subslide"}
grid = torch.linspace(0, 0.999, 101)
ode = solvers.solve(learned, start, t1=0.999, times=grid)
here = start[:1].expand(500, 2)  # one start, five hundred times
sde = solvers.solve_sde(learned, path, here, t1=0.999, steps=200, times=grid, generator=generator)
figure, axes = plotting.canvas(1, 2, width=7.2)
plotting.trajectories(ode, count=120, data=points, limit=3.2, title="ODE: a start decides its end", ax=axes[0])
plotting.clouds(model=sde.x, behind=points, limit=3.2, size=5, legend=False, ax=axes[1])
plotting.trajectories(sde, count=3, limit=3.2, title="SDE: 500 ends from one start, 3 walks", ax=axes[1])
figure

# %% slideshow={"slide_type": "fragment"}
back = solvers.solve(learned, ode.x, t0=0.999, t1=0.0)
round_trip = float((back.x - start).norm(dim=1).mean())
same_start = float((sde.x[:250] - sde.x[250:]).norm(dim=1).mean())
random_pair = float((points[:1000] - points[1000:]).norm(dim=1).mean())
print(f"ODE, there and back again: {round_trip:.5f} from the start on average")
print(f"SDE twice from one start: ends {same_start:.2f} apart; two random data points: {random_pair:.2f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# The SDE forgets its start, the ODE keeps it. Three questions follow, and the next chapters answer them:
#
# - A flow is invertible, so what density does it give to a point? ([02 Flows](02_flows.ipynb))
# - We trained a noise predictor and computed the velocity from it. Why not train the velocity itself? ([03 Flow
#   matching](03_flow_matching.ipynb))
# - In the first half of the time the ODE hardly moves a point. Who says that the path must be a diffusion? (Chapter 03
#   begins with another one, the straight line.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you saw

# %% slideshow={"slide_type": "-"} tags=["nbval-check-output"]
worst = {name: max(abs(value) for value in values) for name, values in ratios.items()}
floors = sorted(floor_of.values())
both_worst = {of: max(worst[f"{of}, ODE"], worst[f"{of}, SDE"]) for of in ("exact", "network")}
far = errors["SDE"][0] / errors["ODE, Euler"][0]
claims.table(
    [
        Claim("1,000 small steps are one jump: error of alpha and sigma", chain_error, below(0.06)),
        Claim("the same for the whole marginals, in yardsticks", max(map(abs, chain_ratios)), below(2)),
        Claim("the gap of DDPM's alpha: power of K", plotting.slope(counts, gaps), about(-1, 0.04), digits=1),
        Claim("the gap with exact step sizes, any K", exact_gap, below(1e-9)),
        Claim("the score by autograd and in closed form: relative difference", score_gap, below(1e-4)),
        Claim("noise loss and score loss on one batch: relative difference", loss_gap, below(1e-5)),
        Claim("loss minus distance to the exact score, three models: spread", floors[-1] - floors[0], below(0.02)),
        Claim("the network's score at t = 0.7: relative error", curves["network"][score_times.index(0.7)], below(0.1)),
        Claim("marginals of ODE and SDE, exact score, in yardsticks", both_worst["exact"], below(2)),
        Claim("the same with the network's score", both_worst["network"], below(3)),
        Claim("control: noise without score, in yardsticks", min(ratios["noise without score"]), above(10)),
        Claim("4 evaluations: distance of the SDE over that of the ODE", far, above(5)),
        Claim("mean of x · score in the plane, by the network", parts["network"][1], about(-2, 0.2)),
        Claim("wrong sign: median distance from the origin", size["wrong sign"][-1], above(1000)),
        Claim("ODE there and back again: mean distance", round_trip, below(0.01)),
        Claim("SDE: two ends from one start over two random points", same_start / random_pair, about(1, 0.15)),
    ]
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# In [exercises/01_diffusion.ipynb](exercises/01_diffusion.ipynb); each has a check that says what is wrong.
#
# 1. **A chain without discretization error.** The step sizes $b_k$ with which $K$ steps equal one jump exactly.
# 2. **Score and data from a noise prediction.** Two lines that every sampler needs, and their signs.
# 3. **One step of the SDE**, for any noise scale.
# 4. **DDIM: another step for the ODE.** Use what is known about the path; when is it better than Euler at equal NFE?
# 5. **The ODE of a variance-exploding path.** The same derivation for the other schedule.
#
# <!-- next: written by fmcore.course.build -->
#
# Next: [02 Flows](02_flows.ipynb). When is a flow invertible, how dense are its samples, how exact is a solver?
#
# <!-- end of next -->
