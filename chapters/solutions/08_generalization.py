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

# %% [markdown]
# # Exercises to 08 Generalization
#
# Fill in the places marked `...` and run the cell below each of them: it says whether your function is right and, if
# it is not, what is wrong. The words and formulas are in [the chapter](../08_generalization.ipynb).

# %%
import torch

from fmcore import closed_form, data, paths
from fmcore.course import checks, plotting, style

style.use()
path = paths.rectified()

# %% [markdown]
# ## 1. A target with less noise
#
# Compute the target of empirical flow matching,
#
# $$
# u_M(x_t, t) = \sum_{i=1}^M \omega_i\, \frac{b_i - x_t}{1 - t} ,
# \qquad
# \omega_i = \operatorname{softmax}_i \Big( \! -\frac{\| x_t - t\, b_i \|^2}{2 (1-t)^2} \Big) ,
# \qquad
# b_1 = x_1 ,
# $$
#
# at points `xt` of the plane, shape $(B, 2)$, that were made from `x1`, shape $(B, 2)$, at times `t`, shape $(B,)$. `bank`
# holds $b_2, \dots, b_M$, shape $(M - 1, 2)$, the same for all rows; $b_1$ is another one in each row. `torch.cat` joins
# tensors of shapes $(B, 1, 2)$ and $(B, M - 1, 2)$ to $(B, M, 2)$. Return shape $(B, 2)$.


# %% tags=["exercise", "points:3"]
def target(xt, x1, t, bank):
    ### BEGIN SOLUTION
    points = torch.cat([x1[:, None], bank.expand(len(x1), -1, -1)], dim=1)
    t = t[:, None]
    squares = (xt[:, None] - t[:, None] * points).square().sum(dim=2)
    weights = torch.softmax(-squares / (2 * (1 - t) ** 2), dim=1)
    mean = (weights[:, :, None] * points).sum(dim=1)
    return (mean - xt) / (1 - t)
    ### END SOLUTION


# %% tags=["check"]
def reference_target(xt, x1, t, bank):
    x0 = (xt - t[:, None] * x1) / (1 - t[:, None])
    return closed_form.bank_velocity(path, x0, x1, t, bank)


def variant(exponent=None, points=None, weigh=None):
    """The right formula with one part replaced."""

    def wrong(xt, x1, t, bank):
        b = torch.cat([x1[:, None], bank.expand(len(x1), -1, -1)], dim=1)
        b = b if points is None else points(b)
        t = t[:, None]
        squares = (xt[:, None] - t[:, None] * b).square().sum(dim=2)
        logits = -squares / (2 * (1 - t) ** 2) if exponent is None else exponent(xt, t, b, squares)
        weights = torch.softmax(logits, dim=1) if weigh is None else weigh(logits)
        return ((weights[:, :, None] * b).sum(dim=1) - xt) / (1 - t)

    return wrong


# %% tags=["check"]
mistakes = {
    "x1 is not in the bank: b_1 = x1 is missing, and the target is biased": variant(points=lambda b: b[:, 1:]),
    "this is the conditional velocity of x1 alone: the bank plays no part": lambda xt, x1, t, bank: (
        (x1 - xt) / (1 - t[:, None])
    ),
    "all points of the bank count the same: the weights are missing": variant(exponent=lambda xt, t, b, s: 0 * s),
    "the sign in the softmax is flipped: the farthest point gets the weight": variant(
        exponent=lambda xt, t, b, s: s / (2 * (1 - t) ** 2)
    ),
    "the factor 2 in the softmax is missing": variant(exponent=lambda xt, t, b, s: -s / (1 - t) ** 2),
    "1 - t is not squared in the softmax": variant(exponent=lambda xt, t, b, s: -s / (2 * (1 - t))),
    "the distances in the softmax are not divided by 2 (1 - t)^2": variant(exponent=lambda xt, t, b, s: -s),
    "the distance is not squared": variant(exponent=lambda xt, t, b, s: -s.sqrt() / (2 * (1 - t) ** 2)),
    "the distance is to b_i; it must be to t b_i, where x_t would be without noise": variant(
        exponent=lambda xt, t, b, s: -(xt[:, None] - b).square().sum(dim=2) / (2 * (1 - t) ** 2)
    ),
    "the weights are not normalized: exp instead of softmax": variant(weigh=lambda logits: logits.exp()),
}

# %% tags=["check"]
mistakes |= {
    "the softmax runs over the batch; it must run over the bank": variant(weigh=lambda logits: logits.softmax(dim=0)),
    "only the most likely point counts; the weights of all are needed": variant(
        weigh=lambda logits: torch.nn.functional.one_hot(logits.argmax(dim=1), logits.shape[1]).to(logits)
    ),
    "the division by 1 - t is missing": lambda xt, x1, t, bank: reference_target(xt, x1, t, bank) * (1 - t[:, None]),
    "this is the mean of the points, not yet a velocity: subtract x_t and divide by 1 - t": lambda xt, x1, t, bank: (
        reference_target(xt, x1, t, bank) * (1 - t[:, None]) + xt
    ),
    "all rows get the x1 of the first; b_1 is another point in each row": lambda xt, x1, t, bank: variant()(
        xt, x1[:1].expand_as(x1), t, bank
    ),
}
generator = torch.Generator().manual_seed(1)
target_cases = []
for B, M in ((3, 5), (4, 9), (5, 2)):
    x0, x1 = torch.randn(2, B, 2, generator=generator)
    t = 0.2 + 0.5 * torch.rand(B, generator=generator)
    target_cases.append((path.interpolate(x0, x1, t), x1, t, torch.randn(M - 1, 2, generator=generator)))
checks.compare("target", target, reference_target, target_cases, mistakes)

# %% [markdown]
# ## 2. The mean over all banks
#
# For five training points and $M = 2$ all banks can be listed: $b_1$ is one of five, and so is $b_2$. At a point `x`, shape
# $(1, 2)$, and a time `t`, $b_1$ is point $i$ with probability $w_i(x, t)$, because `x` was made from it; $b_2$ is
# point $j$ with probability $1/5$, the same as $b_1$ included. Return the mean of $u_2(x, t)$ over all 25 banks, shape $(1, 2)$.
#
# `closed_form.EmpiricalVelocity(points)` has the velocity of any list of points, `(x, t)`, and the weights,
# `.weights(x, t)` of shape $(1, n)$; `points[[i, j]]` picks two. The exact velocity of all five must come out, and that is how the
# check knows.


# %% tags=["exercise", "points:2"]
def mean_over_banks(points, x, t):
    ### BEGIN SOLUTION
    n = len(points)
    weights = closed_form.EmpiricalVelocity(points).weights(x, t)[0]
    total = torch.zeros_like(x)
    for i in range(n):
        for j in range(n):
            total += weights[i] / n * closed_form.EmpiricalVelocity(points[[i, j]])(x, t)
    return total
    ### END SOLUTION


# %% tags=["check"]
def over_banks(points, x, t, chance):
    """The sum over i and j of chance(w, i, j) u_2."""
    w = closed_form.EmpiricalVelocity(points).weights(x, t)[0]
    n = len(points)
    every = [(chance(w, i, j), points[[i, j]]) for i in range(n) for j in range(n)]
    return sum(p * closed_form.EmpiricalVelocity(two)(x, t) for p, two in every)


def reference_mean(points, x, t):
    return closed_form.EmpiricalVelocity(points)(x, t)


def with_chances(chance):
    return lambda points, x, t: over_banks(points, x, t, chance)


# %% tags=["check"]
mistakes = {
    "b_1 is drawn like the others; it must be point i with probability w_i, or the mean is biased": with_chances(
        lambda w, i, j: 1 / len(w) ** 2
    ),
    "both points are drawn with the weights w; the rest of the bank is drawn uniformly": with_chances(
        lambda w, i, j: w[i] * w[j]
    ),
    "the 1/n of b_2 is missing: the probabilities sum to n": with_chances(lambda w, i, j: w[i]),
    "the probabilities w_i are missing, and 1/n is there once only": with_chances(lambda w, i, j: 1 / len(w)),
    "pairs with i = j are left out, so the probabilities do not sum to 1: b_2 may be the same point": with_chances(
        lambda w, i, j: w[i] / len(w) * (i != j)
    ),
    "only pairs with i < j are counted; b_1 and b_2 have different parts, so both orders count": with_chances(
        lambda w, i, j: w[i] / len(w) * (i < j)
    ),
    "the weight of point j stands where that of point i belongs, and nothing else": with_chances(
        lambda w, i, j: w[j] / len(w) ** 2
    ),
}
five = torch.tensor([[1.5, 0.0], [0.5, 1.2], [-1.0, 0.8], [-0.8, -1.0], [0.7, -1.3]])
bank_cases = [(five, torch.randn(1, 2, generator=generator), time) for time in (0.3, 0.5, 0.6)]
right_mean = checks.compare("mean_over_banks", mean_over_banks, reference_mean, bank_cases, mistakes)

# %% [markdown]
# And if $x_1$ is left out, with *both* points drawn uniformly? Compute the squared length of the bias, $\| \text{mean} - u^* \|^2$,
# for the points `five`, at this `x` and $t = 0.5$.

# %%
x, t = torch.tensor([[0.6, 0.2]]), 0.5

# %% tags=["exercise", "points:1"]
squared_bias = ...
### BEGIN SOLUTION
total = torch.zeros_like(x)
for i in range(5):
    for j in range(5):
        total += closed_form.EmpiricalVelocity(five[[i, j]])(x, t) / 25
squared_bias = (total - closed_form.EmpiricalVelocity(five)(x, t)).square().sum()
### END SOLUTION

# %% tags=["check"]
uniform = over_banks(five, x, t, lambda w, i, j: 1 / 25) - reference_mean(five, x, t)
different = over_banks(five, x, t, lambda w, i, j: (i != j) / 20) - reference_mean(five, x, t)
right_bias = float(uniform.square().sum())
wrong_values = {
    "this is the length; its square is asked": right_bias**0.5,
    "that is the mean over both coordinates; the squared length is their sum": right_bias / 2,
    "zero is the bias with x1 in the bank": 0.0,
    "pairs with i = j are left out; the two points are drawn independently": float(different.square().sum()),
    "this is the squared length of the mean; subtract u* first": float(
        (uniform + reference_mean(five, x, t)).square().sum()
    ),
}
checks.value("squared_bias", squared_bias, right_bias, wrong_values)

# %% [markdown]
# ## 3. A hybrid sampler
#
# Follow `first(x, t)` up to the time `switch`, and `second(x, t)` from there on, from `x0` at $t = 0$ to $t = 1$ in `steps` Euler
# steps of equal length. Step $k$ starts at $t_k = k / \text{steps}$, for $k = 0, \dots, \text{steps} - 1$, and takes the velocity
# *there*. A step that starts at the switch belongs to `second`. Times go in as `torch.tensor(t_k)`.


# %% tags=["exercise", "points:2"]
def hybrid(first, second, x0, switch, steps):
    ### BEGIN SOLUTION
    x = x0
    for k in range(steps):
        t = k / steps
        velocity = first if t < switch else second
        x = x + velocity(x, torch.tensor(t)) / steps
    return x
    ### END SOLUTION


# %% tags=["check"]
def euler(velocity, x, times):
    for k, now in enumerate(times[:-1]):
        x = x + (times[k + 1] - now) * velocity(x, now)
    return x


def reference_hybrid(first, second, x0, switch, steps):
    """Two flows, one after the other."""
    times = torch.linspace(0, 1, steps + 1)
    cut = next(k for k in range(steps + 1) if k / steps >= switch)
    return euler(second, euler(first, x0, times[: cut + 1]), times[cut:])


def loop(velocity_of=None, time_of=None, count=None, length=None):
    """Euler steps with one part of the loop replaced."""

    def wrong(first, second, x0, switch, steps):
        x = x0
        for k in range(steps if count is None else count(steps)):
            t = k / steps if time_of is None else time_of(k, steps)
            choose = velocity_of or (lambda a, b, t, tau: a if t < tau else b)
            x = x + choose(first, second, t, switch)(x, torch.tensor(t)) * (length or (lambda s: 1 / s))(steps)
        return x

    return wrong


# %% tags=["check"]
def second_from_the_start(first, second, x0, switch, steps):
    times = torch.linspace(0, 1, steps + 1)
    cut = next(k for k in range(steps + 1) if k / steps >= switch)
    return euler(second, euler(first, x0, times[: cut + 1]), times)


mistakes = {
    "first and second are swapped": loop(lambda a, b, t, tau: b if t < tau else a),
    "the step that starts at the switch belongs to second: t < switch, not t <= switch": loop(
        lambda a, b, t, tau: a if t <= tau else b
    ),
    "the velocity is taken at the end of each step; Euler takes it at the start": loop(
        time_of=lambda k, steps: (k + 1) / steps
    ),
    "the switch plays no part: first leads all the way": loop(lambda a, b, t, tau: a),
    "the switch plays no part: second leads all the way": loop(lambda a, b, t, tau: b),
    "the last step is missing: steps - 1 were taken, and the sample stops before t = 1": loop(
        count=lambda steps: steps - 1
    ),
    "steps + 1 steps were taken, one beyond t = 1": loop(count=lambda steps: steps + 1),
}

# %% tags=["check"]
mistakes |= {
    "linspace(0, 1, steps) makes steps - 1 steps: n steps have n + 1 times": lambda a, b, x, tau, steps: loop()(
        a, b, x, tau, steps - 1
    ),
    "the length of a step is 1 / (steps - 1); it must be 1 / steps": loop(length=lambda steps: 1 / (steps - 1)),
    "the velocity is not multiplied by the length of the step": loop(length=lambda steps: 1),
    "second starts from x0 again; it must go on from where first has led": lambda a, b, x, tau, steps: loop(
        lambda _, b, t, tau: (lambda x, s: 0 * x) if t < tau else b
    )(a, b, x, tau, steps),
    "second runs its whole way from t = 0 after the switch; it must go on at t = switch": second_from_the_start,
    "both velocities are mixed in the proportion of the switch; one leads at a time": lambda a, b, x, tau, steps: loop(
        lambda a, b, t, tau: lambda x, s: tau * a(x, s) + (1 - tau) * b(x, s)
    )(a, b, x, tau, steps),
}


# %% tags=["check"]
def turn(x, t):
    return torch.stack([-x[:, 1], x[:, 0]], dim=1) * (1 + t)


def shrink(x, t):
    return torch.sin(x) - 2 * t * x


hybrid_cases = [
    (turn, shrink, torch.randn(4, 2, generator=generator), switch, steps)
    for switch, steps in ((0.5, 10), (0.25, 8), (0.75, 16))
]
right_hybrid = checks.compare("hybrid", hybrid, reference_hybrid, hybrid_cases, mistakes)

# %% [markdown]
# The chapter's figure in the plane, once the check is right. `first` is the exact velocity of twelve training points of two
# moons; `second`, that of 2,000 points, plays the network that has understood what moons are. Left to right the twelve points lead
# longer: from new points on the moons to copies of the twelve.

# %%
picture = None
if right_hybrid:
    twelve = data.toy.two_moons(12, torch.Generator().manual_seed(3))
    copies = closed_form.EmpiricalVelocity(twelve)
    moons = closed_form.EmpiricalVelocity(data.toy.two_moons(2000, torch.Generator().manual_seed(0)))
    noise = torch.randn(600, 2, generator=torch.Generator().manual_seed(2))
    picture, axes = plotting.canvas(1, 4, height=2.6)
    for ax, switch in zip(axes, (0.0, 0.5, 0.8, 1.0), strict=True):
        ends = hybrid(copies, moons, noise, switch, 40)
        ax.scatter(*ends.T, s=5, color=style.PATH, linewidths=0, alpha=0.6)
        ax.scatter(*twelve.T, s=26, color=style.DATA, edgecolors="white", linewidths=0.8)
        style.blank(ax, 2.9).set_title(f"switch = {switch}")
picture

# %% [markdown]
# ## 4. Copies
#
# A sample is a copy if its distance to the nearest training image is less than a third of that to the second nearest. Return
# the share of copies among `samples`, shape $(B, C, H, W)$, with the training images `train`, shape $(n, C, H, W)$, $n \ge 2$, as a
# number or a tensor of shape $()$. `torch.cdist` has the distances of two lists of vectors, and `.topk(2, largest=False)` the two
# smallest, in order.


# %% tags=["exercise", "points:2"]
def share_of_copies(samples, train):
    ### BEGIN SOLUTION
    distance = torch.cdist(samples.flatten(1), train.flatten(1))
    nearest, second = distance.topk(2, dim=1, largest=False).values.T
    return (nearest < second / 3).double().mean()
    ### END SOLUTION


# %% tags=["check"]
def two_nearest(samples, train, p=2.0):
    """The two smallest of all distances, (B, 2), from the differences."""
    apart = (samples[:, None] - train[None]).flatten(2)
    return torch.linalg.vector_norm(apart, ord=p, dim=2).sort(dim=1).values[:, :2]


def reference_share(samples, train):
    nearest, second = two_nearest(samples, train).T
    return (3 * nearest < second).double().mean()


def share_if(rule):
    return lambda samples, train: rule(*two_nearest(samples, train).T).double().mean()


# %% tags=["check"]
mistakes = {
    "that is the number of copies; divide by the number of samples": lambda samples, train: (
        reference_share(samples, train) * len(samples)
    ),
    "that is the share of samples that are NOT copies": share_if(lambda a, b: 3 * a >= b),
    "squared distances are compared with a third; their ratio would have to be below 1/9": share_if(
        lambda a, b: 3 * a**2 < b**2
    ),
    "the nearest distance itself is compared with 1/3, whatever the second is": share_if(lambda a, b: a < 1 / 3),
    "the nearest must be below a third of the second, not below the second": share_if(lambda a, b: a < b),
    "the threshold is a half; a third is asked": share_if(lambda a, b: 2 * a < b),
    "no sample can pass this test: take the two smallest distances, and compare nearest < second / 3": share_if(
        lambda a, b: a < 0
    ),
    "the copies are counted among the training images; swap the arguments of cdist, or take the other axis": (
        lambda samples, train: reference_share(train, samples)
    ),
    "the distances are sums of absolute differences (p=1); Euclidean ones are asked": lambda samples, train: l1_share(
        samples, train
    ),
}


# %% tags=["check"]
def l1_share(samples, train):
    nearest, second = two_nearest(samples, train, p=1.0).T
    return (3 * nearest < second).double().mean()


copy_cases = []
for B, n, size in ((40, 12, 2.0), (30, 20, 0.3), (50, 9, 1.0)):
    train = size * torch.randn(n, 1, 2, 3, generator=generator)
    near = size * 0.6 * torch.rand(B, 1, 1, 1, generator=generator) * torch.randn(B, 1, 2, 3, generator=generator)
    copy_cases.append((train[torch.randint(n, (B,), generator=generator)] + near, train))
checks.compare("share_of_copies", share_of_copies, reference_share, copy_cases, mistakes)
