"""Empirical flow matching: its target against brute force and, by enumerating every bank, its mean and variance."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit
from torch.testing import assert_close

from fmcore import losses, networks
from fmcore.closed_form import EmpiricalVelocity, bank_velocity, draw_bank
from tests.analytic import FIVE, OT, RECTIFIED, VE, VP, exact_schedules, modest, seeded

LATE = 1 - 1e-5
five_cases = pytest.mark.parametrize("case", FIVE, ids=str)


def conditional(case, x, t, point):
    """The velocity of the noise that is at x now and ends at the point: sigma' x0 + alpha' x1."""
    alpha, sigma, d_alpha, d_sigma = exact_schedules(case, t)
    return d_sigma * (x - alpha * point) / sigma + d_alpha * point


def likelihoods(case, x, t, points):
    """The probabilities that x came from each of the points, from squared distances in float64."""
    alpha, sigma, *_ = exact_schedules(case, t)
    exponents = -((x - alpha * points) ** 2).sum(axis=1) / (2 * sigma**2)
    weights = np.exp(exponents - exponents.max())
    return weights / weights.sum()


def brute_force(case, x0, x1, t, banks):
    """Row by row in float64, the weighted mean of conditional velocities; banks: one array (M - 1, d) a row."""
    rows = []
    for noise, own, time, bank in zip(x0, x1, t, banks, strict=True):
        alpha, sigma, *_ = exact_schedules(case, float(time))
        x = alpha * own + sigma * noise
        points = np.concatenate([own[None], bank])
        weights = likelihoods(case, x, float(time), points)
        rows.append(weights @ np.stack([conditional(case, x, float(time), point) for point in points]))
    return np.stack(rows)


def arrays(*tensors):
    return [x.double().numpy() if x.ndim == 1 else x.double().flatten(1).numpy() for x in tensors]


def batch(seed, n=5, shape=(2,), dtype=torch.float64, points=4):
    """x0, x1, t and a bank of points near enough to share the weights."""
    g = seeded(seed)
    x0, x1 = torch.randn(2, n, *shape, generator=g, dtype=dtype)
    return (
        x0,
        0.6 * x1,
        0.9 * torch.rand(n, generator=g, dtype=dtype),
        0.6 * torch.randn(points, *shape, generator=g).to(dtype),
    )


# Values


@modest
@given(
    case=st.sampled_from(FIVE),
    n=st.integers(1, 4),
    points=st.integers(1, 6),
    shape=st.sampled_from([(1,), (2,), (1, 2, 2)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    own=st.booleans(),
    one_time=st.booleans(),
)
def test_the_target_equals_brute_force(case, n, points, shape, dtype, own, one_time):
    x0, x1, t, bank = batch(n, n, shape, dtype, points)
    t = t[:1].expand(n) if one_time else t
    if own:
        bank = torch.stack([bank + 0.1 * i for i in range(n)])
    found = bank_velocity(case.path, x0, x1, t[0] if one_time else t, bank)
    banks = [b.double().flatten(1).numpy() for b in (bank if own else [bank] * n)]
    truth = brute_force(case, *arrays(x0, x1, t), banks)
    assert found.shape == x1.shape
    assert found.dtype == dtype
    scale = max(1.0, np.abs(truth).max())
    tolerance = 1e-9 if dtype == torch.float64 else 5e-4 if case is VE else 2e-5
    assert np.abs(found.double().flatten(1).numpy() - truth).max() < tolerance * scale


@five_cases
@pytest.mark.parametrize("t", [0.0, 0.3, 0.8, 0.99, LATE])
def test_one_more_point_shares_by_a_sigmoid_of_the_distances(case, t):
    g = seeded(0)
    own, other = torch.randn(2, 3, generator=g, dtype=torch.float64)
    alpha, sigma, *_ = exact_schedules(case, t)
    x0 = torch.randn(6, 3, generator=g, dtype=torch.float64)
    if t > 0.5:  # noise that leads to where the two points are equally likely, give or take
        x0 = 0.1 * x0 + alpha * (other - own) / (2 * sigma)
    x = alpha * own + sigma * x0
    gap = ((x - alpha * other) ** 2).sum(dim=1) - (sigma * x0).square().sum(dim=1)
    share = expit(-gap.numpy() / (2 * sigma**2))[:, None]
    expected = [conditional(case, x.numpy(), t, point.numpy()) for point in (own, other)]
    expected = (1 - share) * expected[0] + share * expected[1]
    for bank in (other[None], other.expand(6, 1, 3)):
        found = bank_velocity(case.path, x0, own.expand(6, 3), t, bank)
        assert_close(found, torch.from_numpy(expected), rtol=1e-5 if t == LATE else 1e-9, atol=1e-9)
    if t not in (0.0, LATE):
        assert 0.01 < share.min() < 0.99


@five_cases
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("t", [0.0, 0.5, LATE, 1.0])
def test_one_point_is_conditional_flow_matching_to_the_last_bit(case, dtype, t):
    x0, x1, *_ = batch(1, shape=(3, 2), dtype=dtype)
    expected = case.path.target(x0, x1, t)
    for bank in (x1[:0], x1.new_zeros(5, 0, 3, 2)):
        assert torch.equal(bank_velocity(case.path, x0, x1, t, bank), expected)
    generators = seeded(2), seeded(2)
    losses_ = (
        losses.empirical_flow_matching(
            lambda x, t: x * t[:, None, None], case.path, x0, x1, x1[:0], generator=generators[0]
        ),
        losses.conditional_flow_matching(lambda x, t: x * t[:, None, None], case.path, x0, x1, generator=generators[1]),
    )
    assert torch.equal(*losses_)


@pytest.mark.parametrize("case", [RECTIFIED, OT, VP], ids=str)
@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
def test_float32_keeps_its_digits_up_to_the_data(case, own):
    """Images with almost equal ones in the bank, which share their weight to the end."""
    g, n, dim = seeded(3), 24, 300
    x1 = torch.rand(n, dim, generator=g) * 2 - 1
    t = 1 - 10 ** (-5 * torch.rand(n, generator=g))
    sigma = case.path.sigma(t)[:, None]
    twins = x1 + 0.05 * sigma * torch.randn(n, dim, generator=g)
    x0, bank = torch.randn(n, dim, generator=g), torch.cat([twins, torch.rand(40, dim, generator=g) * 2 - 1])
    found = bank_velocity(case.path, x0, x1, t, bank.expand(n, -1, -1) if own else bank)
    truth = torch.from_numpy(brute_force(case, *arrays(x0, x1, t), [bank.double().numpy()] * n))
    cfm = case.path.target(x0, x1, t).double()
    error = (found.double() - truth).norm(dim=1) / truth.norm(dim=1)
    assert error.max() < 1e-5
    assert ((cfm - truth).norm(dim=1) / truth.norm(dim=1)).median() > 1e-3  # the twins do count


@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
def test_a_bank_of_copies_of_x1_changes_nothing(own):
    x0, x1, *_ = batch(4, n=1, shape=(5,), dtype=torch.float32)
    bank = x1.expand(7, 5)
    for t in (0.0, 0.5, 0.999, LATE):
        found = bank_velocity(RECTIFIED.path, x0, x1, t, bank[None] if own else bank)
        assert_close(found, x1 - x0, rtol=0, atol=1e-6)


def test_a_shared_bank_equals_the_same_bank_for_each():
    x0, x1, t, bank = batch(5, n=50, shape=(1, 3, 3), dtype=torch.float32, points=30)
    exclude = torch.rand(50, 30, generator=seeded(6)) < 0.5
    for mask in (None, exclude):
        shared = bank_velocity(VP.path, x0, x1, t, bank, mask)
        each = bank_velocity(VP.path, x0, x1, t, bank.expand(50, *bank.shape), mask)
        assert_close(shared, each, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
def test_excluded_points_are_as_if_they_were_not_there(own):
    x0, x1, t, bank = batch(7, n=6, points=5)
    exclude = torch.rand(6, 5, generator=seeded(8)) < 0.5
    exclude[0], exclude[1] = True, False
    given_bank = bank.expand(6, 5, 2) if own else bank
    found = bank_velocity(VP.path, x0, x1, t, given_bank, exclude)
    kept = [bank[~row].numpy() for row in exclude]
    assert_close(found, torch.from_numpy(brute_force(VP, *arrays(x0, x1, t), kept)), rtol=1e-9, atol=1e-9)
    assert torch.equal(found[0], VP.path.target(x0, x1, t)[0])


def test_own_banks_in_pieces_equal_each_row_alone(monkeypatch):
    from fmcore.closed_form import banks

    x0, x1, t, _ = batch(9, n=7)
    bank = torch.randn(7, 4, 2, generator=seeded(10), dtype=torch.float64)
    whole = bank_velocity(RECTIFIED.path, x0, x1, t, bank)
    monkeypatch.setattr(banks, "PIECE", 20)  # two rows, with one left over
    assert_close(bank_velocity(RECTIFIED.path, x0, x1, t, bank), whole, rtol=1e-12, atol=1e-12)


# Mean and variance, over every bank there is


DATA = torch.tensor([[1.0, 0.2], [-0.7, 0.9], [0.4, -1.1], [-0.2, -0.3]], dtype=torch.float64)
AT = torch.tensor([0.3, 0.1], dtype=torch.float64)


def every_target(case, t, size, replacement, exclude_own=True):
    """All targets at the place AT, (n * banks, 2), and the probability of each: x1 by its posterior, banks alike."""
    alpha, sigma, *_ = exact_schedules(case, t)
    posterior = likelihoods(case, AT.numpy(), t, DATA.numpy())
    n = len(DATA)
    banks = list(itertools.product(range(n), repeat=size) if replacement else itertools.combinations(range(n), size))
    rows = torch.tensor(banks, dtype=torch.int64).reshape(len(banks), size)
    targets = []
    for i, own in enumerate(DATA):
        x0 = ((AT - alpha * own) / sigma).expand(len(rows), 2)
        exclude = None if replacement or not exclude_own else rows == i
        targets.append(bank_velocity(case.path, x0, own.expand(len(rows), 2), t, DATA[rows], exclude))
    chance = torch.from_numpy(posterior).repeat_interleave(len(rows)) / len(rows)
    return torch.cat(targets), chance[:, None]


def exact(case, t):
    """u* at the place AT: the average of conditional velocities by the posterior."""
    points = DATA.numpy()
    velocities = np.stack([conditional(case, AT.numpy(), t, point) for point in points])
    return torch.from_numpy(likelihoods(case, AT.numpy(), t, points) @ velocities)


@five_cases
@pytest.mark.parametrize("t", [0.1, 0.4, 0.7])
@pytest.mark.parametrize("replacement", [True, False], ids=["replaced", "distinct"])
@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_the_mean_of_the_target_is_the_exact_velocity(case, t, replacement, size):
    targets, chance = every_target(case, t, size, replacement)
    assert_close((chance * targets).sum(dim=0), exact(case, t), rtol=1e-9, atol=1e-9)


@five_cases
@pytest.mark.parametrize("t", [0.1, 0.4, 0.7])
@pytest.mark.parametrize("replacement", [True, False], ids=["replaced", "distinct"])
def test_its_variance_falls_with_every_point_from_that_of_conditional_flow_matching(case, t, replacement):
    truth = exact(case, t)
    variances = []
    for size in range(5):
        targets, chance = every_target(case, t, size, replacement)
        variances.append(float((chance * (targets - truth) ** 2).sum()))
    velocities = np.stack([conditional(case, AT.numpy(), t, point) for point in DATA.numpy()])
    posterior = likelihoods(case, AT.numpy(), t, DATA.numpy())
    assert variances[0] == pytest.approx(posterior @ ((velocities - truth.numpy()) ** 2).sum(axis=1), rel=1e-9)
    for more, fewer in itertools.pairwise(variances):
        assert fewer < more or more < 1e-20
    if not replacement:
        assert variances[4] < 1e-18  # every bank is the whole data set


def test_distinct_banks_that_may_hold_x1_twice_are_biased():
    """Why exclude is needed without replacement."""
    targets, chance = every_target(RECTIFIED, 0.4, 2, replacement=False, exclude_own=False)
    assert ((chance * targets).sum(dim=0) - exact(RECTIFIED, 0.4)).abs().max() > 0.01


@pytest.mark.parametrize("replacement", [True, False], ids=["replaced", "distinct"])
@pytest.mark.parametrize("t", [0.2, 0.6])
def test_the_mean_over_drawn_banks_is_the_exact_velocity(replacement, t):
    """As it is used: x1 by its posterior at one place of 40-dimensional data, one shared bank a batch."""
    g, n, dim, banks = seeded(11), 60, 40, 300
    data = 0.4 * torch.randn(n, dim, generator=g, dtype=torch.float64)
    x = t * data[0] + (1 - t) * torch.randn(dim, generator=g, dtype=torch.float64)
    posterior = torch.from_numpy(likelihoods(RECTIFIED, x.numpy(), t, data.numpy()))
    truth = posterior @ torch.stack([torch.from_numpy(conditional(RECTIFIED, x.numpy(), t, b)) for b in data.numpy()])
    means, spreads, plain = [], [], []
    for _ in range(banks):
        rows = torch.multinomial(posterior, 64, replacement=True, generator=g)
        x1 = data[rows]
        bank, bank_rows = draw_bank(data, 15, g, replacement)
        exclude = None if replacement else bank_rows == rows[:, None]
        x0 = (x - t * x1) / (1 - t)
        target = bank_velocity(RECTIFIED.path, x0, x1, t, bank, exclude)
        means.append(target.mean(dim=0))
        spreads.append((target - truth).square().sum(dim=1).mean())
        plain.append((x1 - x0 - truth).square().sum(dim=1).mean())
    means = torch.stack(means)
    score = (means.mean(dim=0) - truth) / (means.std(dim=0) / math.sqrt(banks))
    assert score.abs().max() < 4
    assert score.square().mean() < 2
    assert torch.stack(spreads).mean() < 0.9 * torch.stack(plain).mean()


def test_the_gradient_equals_that_of_exact_flow_matching_on_average():
    """So the minimizer is the same. The same test finds a bank out that comes from other data."""
    g, batches, size = seeded(12), 60, 128
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = networks.MLP(2, width=4, depth=1).double()
    velocity = EmpiricalVelocity(DATA)
    rows = []
    for _ in range(batches):
        x0 = torch.randn(size, 2, generator=g, dtype=torch.float64)
        x1 = DATA[torch.randint(0, 4, (size,), generator=g)]
        t = 0.9 * torch.rand(size, generator=g, dtype=torch.float64)
        bank, _ = draw_bank(DATA, 3, g)
        values = [
            losses.empirical_flow_matching(model, RECTIFIED.path, x0, x1, b, t) for b in (bank, bank.flip(1) + 0.3)
        ]
        values.append(losses.exact_flow_matching(model, RECTIFIED.path, x0, x1, velocity, t))
        parameters = list(model.parameters())
        gradients = [torch.cat([d.flatten() for d in torch.autograd.grad(v, parameters)]) for v in values]
        rows.append([gradients[0] - gradients[2], gradients[1] - gradients[2]])
    right, control = (torch.stack([row[i] for row in rows]) for i in range(2))

    def standard_errors(difference):
        return (difference.mean(dim=0) / (difference.std(dim=0) / math.sqrt(batches))).abs().max()

    assert standard_errors(right) < 4.5
    assert standard_errors(control) > 9


# The loss


@five_cases
def test_the_loss_is_the_mean_square_to_its_target(case):
    x0, x1, t, bank = batch(13)
    exclude = torch.rand(5, 4, generator=seeded(14)) < 0.3
    xt = torch.stack(
        [a * p + s * q for p, q, (a, s, *_) in zip(x1, x0, [exact_schedules(case, float(s)) for s in t], strict=True)]
    )
    kept = [bank[~row].numpy() for row in exclude]
    errors = (torch.sin(3 * xt) - torch.from_numpy(brute_force(case, *arrays(x0, x1, t), kept))).square().mean(dim=1)
    arguments = {"t": t, "exclude": exclude}
    found = losses.empirical_flow_matching(lambda x, t: torch.sin(3 * x), case.path, x0, x1, bank, **arguments)
    assert_close(found, errors.mean(), rtol=1e-8, atol=0)
    weighted = losses.empirical_flow_matching(
        lambda x, t: torch.sin(3 * x), case.path, x0, x1, bank, weight=lambda t: t**2, **arguments
    )
    assert_close(weighted, (t**2 * errors).mean(), rtol=1e-8, atol=0)


def test_every_path_has_its_own_loss():
    x0, x1, t, bank = batch(15)
    paths = (RECTIFIED.path, RECTIFIED.path, VP.path)
    values = [losses.empirical_flow_matching(lambda x, t: x, path, x0, x1, bank, t) for path in paths]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


def test_the_target_has_no_gradient():
    x0, x1, t, bank = batch(16)
    bank.requires_grad_(True)
    scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    losses.empirical_flow_matching(lambda x, t: scale * x, RECTIFIED.path, x0, x1, bank, t=t).backward()
    assert bank.grad is None
    assert scale.grad != 0


def test_times_are_drawn_by_the_generator_alone():
    x0, x1, _, bank = batch(17, n=500)
    seen = []
    before = torch.random.get_rng_state()
    for seed in (1, 1, 2):
        losses.empirical_flow_matching(
            lambda x, t: seen.append(t) or x, RECTIFIED.path, x0, x1, bank, generator=seeded(seed)
        )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert stats.kstest(seen[0].numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
def test_autocast_does_not_reach_the_target(own):
    x0, x1, t, bank = batch(18, n=4, shape=(3, 8, 8), dtype=torch.float32)
    bank = bank.expand(4, -1, -1, -1, -1) if own else bank
    outside = bank_velocity(RECTIFIED.path, x0, x1, t, bank)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(bank_velocity(RECTIFIED.path, x0, x1, t, bank), outside)


# Bad input


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 2, 1), (3, 4, 2), (5, 4, 3), (5, 4, 2, 1), ()], ids=str)
def test_a_bank_of_another_shape_is_refused(shape):
    x0, x1, t, _ = batch(19)
    with pytest.raises(ValueError, match=r"bank has shape .* for x1 of shape \(5, 2\): pass \(M - 1, 2\)"):
        losses.empirical_flow_matching(torch.mul, RECTIFIED.path, x0, x1, torch.zeros(shape), t=t)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
def test_a_bank_that_is_not_finite_is_refused(bad, own):
    x0, x1, t, bank = batch(20)
    bank[2, 1] = bad
    bank = bank.repeat(5, 1, 1) if own else bank
    with pytest.raises(ValueError, match="bank has NaN or infinite values in [15] of"):
        losses.empirical_flow_matching(lambda x, t: x, RECTIFIED.path, x0, x1, bank, t=t)


def test_other_bad_input_is_refused():
    x0, x1, t, bank = batch(21)

    def loss(**changes):
        arguments = {"path": RECTIFIED.path, "x0": x0, "x1": x1, "bank": bank, "t": t} | changes
        return losses.empirical_flow_matching(lambda x, t: x, **arguments)

    with pytest.raises(TypeError, match=r"bank holds torch\.uint8: scale it"):
        loss(bank=bank.to(torch.uint8))
    with pytest.raises(TypeError, match=r"exclude holds torch\.int64: pass booleans"):
        loss(exclude=torch.zeros(5, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"exclude has shape \(4,\): .* shape \(5, 4\)"):
        loss(exclude=torch.zeros(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="bank is on meta and x1 on cpu"):
        loss(bank=bank.to("meta"))
    with pytest.raises(ValueError, match="each source sample needs exactly one data sample"):
        loss(x0=x0[:3])
    with pytest.raises(ValueError, match=r"t has shape \(5, 1\)"):
        loss(t=t[:, None])


# Drawing banks


def test_banks_with_replacement_are_uniform_and_independent():
    g, n, size, draws = seeded(22), 6, 4, 3000
    data = torch.arange(n)[:, None]
    banks = torch.stack([draw_bank(data, size, g)[1] for _ in range(draws)])
    pairs = torch.bincount(banks[:, 0] * n + banks[:, 1], minlength=n * n)
    assert stats.chisquare(pairs.numpy()).pvalue > 1e-3  # all 36 pairs alike, equal ones too
    assert stats.chisquare(torch.bincount(banks[:, 3], minlength=n).numpy()).pvalue > 1e-3


def test_banks_without_replacement_are_uniform_and_distinct():
    g, n, size, draws = seeded(23), 5, 2, 2000
    data = torch.arange(n)[:, None]
    banks = torch.stack([draw_bank(data, size, g, replacement=False)[1] for _ in range(draws)])
    counts = torch.bincount(banks[:, 0] * n + banks[:, 1], minlength=n * n).reshape(n, n)
    assert (counts.diagonal() == 0).all()
    off = counts[~torch.eye(n, dtype=torch.bool)]
    assert stats.chisquare(off.numpy()).pvalue > 1e-3
    assert sorted(draw_bank(data, n, g, replacement=False)[1].tolist()) == list(range(n))


@pytest.mark.parametrize("replacement", [True, False])
def test_a_bank_is_rows_of_the_data_drawn_by_the_generator(replacement):
    data = torch.randint(0, 256, (30, 1, 2, 2), dtype=torch.uint8, generator=seeded(24))
    before = torch.random.get_rng_state()
    bank, rows = draw_bank(data, 12, seeded(25), replacement)
    again, other = draw_bank(data, 12, seeded(25), replacement)[1], draw_bank(data, 12, seeded(26), replacement)[1]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert bank.dtype == torch.uint8
    assert torch.equal(bank, data[rows])
    assert torch.equal(rows, again)
    assert not torch.equal(rows, other)
    assert draw_bank(data, 0, seeded(27), replacement)[0].shape == (0, 1, 2, 2)


@pytest.mark.parametrize(("n", "size", "replacement"), [(0, 1, True), (3, -1, True), (3, 4, False)])
def test_banks_that_cannot_be_drawn_are_refused(n, size, replacement):
    with pytest.raises(ValueError, match=f"a bank of {size} points from {n} data points cannot be drawn"):
        draw_bank(torch.zeros(n, 2), size, seeded(0), replacement)
