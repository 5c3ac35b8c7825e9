"""The exact velocity of a finite data set against brute force, known special cases and the continuity equation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from fmcore import data, solvers
from fmcore.closed_form import EmpiricalVelocity
from fmcore.closed_form.empirical import BLOCK
from fmcore.data.mapped import map_images
from tests.analytic import CASES, COSINE, FIVE, OT_NARROW, RECTIFIED, VE, VP, exact_schedules, modest, schedules, seeded

LATE = 1 - 1e-5
five_cases = pytest.mark.parametrize("case", FIVE, ids=str)


def brute_force(case, data, x, t):
    """Query by query in float64: posterior weights, and the weighted mean of conditional velocities.

    Distances are sums of squared differences; the velocities are averaged, not the points.
    """
    data, x, t = (value.detach().double().numpy() for value in (data.flatten(1), x.flatten(1), t))
    weights, velocities = np.zeros((len(x), len(data))), np.zeros_like(x)
    for b in range(len(x)):
        alpha, sigma, d_alpha, d_sigma = exact_schedules(case, float(t[b]))
        noise = (x[b] - alpha * data) / sigma  # the source samples that would be here now, one for each point as x1
        exponents = -(noise**2).sum(axis=1) / 2
        likelihoods = np.exp(exponents - exponents.max())
        weights[b] = likelihoods / likelihoods.sum()
        velocities[b] = weights[b] @ (d_sigma * noise + d_alpha * data)
    return weights, velocities


def queries(case, data, t, generator):
    """Points between two data points, scattered by the noise of time t, so that weights are shared."""
    first, second = (torch.randint(0, len(data), (len(t),), generator=generator) for _ in range(2))
    share = torch.rand(len(t), 1, generator=generator).to(data)
    alpha, sigma = (value.to(data)[:, None] for value in schedules(case)(t.double()))
    noise = torch.randn(len(t), data[0].numel(), generator=generator).to(data)
    flat = data.flatten(1)
    x = alpha * (share * flat[first] + (1 - share) * flat[second]) + sigma * noise
    return x.reshape(len(t), *data.shape[1:])


def scattered(n, shape, generator, close=False):
    points = torch.randn(n, *shape, generator=generator, dtype=torch.float64)
    return 1.5 + 1e-3 * points if close else points


# Values


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("close", [False, True], ids=["spread", "1e-3 apart"])
def test_equals_brute_force_in_float64(case, close):
    g = seeded(0)
    data = scattered(12, (3,), g, close)
    times = [0.0, 0.01, *torch.rand(12, generator=g).tolist(), 0.99, 0.999, 0.9999, LATE]
    t = torch.tensor(times, dtype=torch.float64).repeat(3)
    x = queries(case, data, t, g)
    u = EmpiricalVelocity(data, case.path)
    weights, velocities = brute_force(case, data, x, t)
    error = np.linalg.norm(u(x, t).numpy() - velocities, axis=1) / np.linalg.norm(velocities, axis=1)
    early = (t <= 0.9).numpy()
    assert error[early].max() < 1e-10
    assert error.max() < 1e-5
    assert np.abs(u.weights(x, t).numpy() - weights).max() < 1e-4
    assert np.abs(u.weights(x, t).numpy() - weights)[early].max() < 1e-10


@modest
@given(
    case=st.sampled_from(FIVE),
    n=st.integers(1, 6),
    batch=st.integers(1, 4),
    shape=st.sampled_from([(1,), (2,), (3, 1), (1, 2, 2)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    t=st.floats(0, 0.9),
    one_time=st.booleans(),
    chunk_size=st.sampled_from([None, 1, 2, 5]),
)
def test_equals_brute_force_for_any_shape_dtype_and_chunk(case, n, batch, shape, dtype, t, one_time, chunk_size):
    g = seeded(n)
    data = scattered(n, shape, g).to(dtype)
    times = torch.full((batch,), t, dtype=dtype)
    x = queries(case, data, times, g)
    u = EmpiricalVelocity(data, case.path, chunk_size)
    found = u(x, times[0] if one_time else times)
    weights, velocities = brute_force(case, data, x, times)
    scale = max(1.0, float(np.abs(velocities).max()))
    tolerance = 1e-10 if dtype == torch.float64 else 5e-3 if case is VE else 2e-4  # VE: sigma' / sigma is 8.5, always
    assert_close(found, torch.from_numpy(velocities).reshape(x.shape).to(dtype), rtol=0, atol=tolerance * scale)
    assert_close(u.weights(x, times).double(), torch.from_numpy(weights), rtol=0, atol=1e-3 if case is VE else 1e-4)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_point_pulls_everything_by_its_conditional_velocity(case):
    g = seeded(1)
    data = torch.randn(1, 2, 3, generator=g, dtype=torch.float64)
    t = torch.tensor([0.0, 0.3, 0.9, LATE], dtype=torch.float64)
    x = torch.randn(4, 2, 3, generator=g, dtype=torch.float64)
    u = EmpiricalVelocity(data, case.path)
    assert_close(u(x, t), case.path.velocity(x, data.expand(4, -1, -1), t), rtol=1e-12, atol=0)
    assert (u.weights(x, t) == 1).all()


@five_cases
@pytest.mark.parametrize("t", [0.0, 0.2, 0.7, 0.95])
def test_two_points_on_a_line_share_by_a_sigmoid(case, t):
    """The log-odds of two normal densities of equal spread: alpha (a - b) (x - alpha (a + b)/2) / sigma^2."""
    a, b = 1.3, -0.4
    data, x = torch.tensor([[a], [b]], dtype=torch.float64), torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    alpha, sigma, *_ = exact_schedules(case, t)
    expected = expit(alpha * (a - b) * (x[:, 0].numpy() - alpha * (a + b) / 2) / sigma**2)
    u = EmpiricalVelocity(data, case.path)
    assert_close(u.weights(x, t)[:, 0].numpy(), expected, rtol=1e-9, atol=1e-12)
    mean = u.posterior_mean(x, t)[:, 0].numpy()
    assert_close(mean, b + (a - b) * expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", [RECTIFIED, COSINE], ids=str)
def test_at_the_source_every_point_counts_alike(case):
    data, x = scattered(7, (2,), seeded(2)), torch.randn(5, 2, generator=seeded(3), dtype=torch.float64)
    u = EmpiricalVelocity(data, case.path)
    assert_close(u.weights(x, 0.0), torch.full((5, 7), 1 / 7, dtype=torch.float64))
    assert_close(u.posterior_mean(x, 0.0), data.mean(dim=0).expand(5, 2))


@five_cases
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("t", [0.0, 0.4, 0.97, LATE])
def test_weights_are_positive_and_sum_to_one(case, dtype, t):
    g = seeded(4)
    data = scattered(30, (4,), g).to(dtype)
    weights = EmpiricalVelocity(data, case.path).weights(queries(case, data, torch.full((8,), t), g), t)
    assert weights.dtype == dtype
    assert (weights >= 0).all()
    assert_close(weights.sum(dim=1), torch.ones(8, dtype=dtype))


# Chunks


@five_cases
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(("n", "chunk_size"), [(20, 1), (20, 7), (20, 20), (20, 25), (1500, 100), (1500, 1499)])
def test_chunks_change_nothing(case, dtype, n, chunk_size):
    """Points in order of distance from the origin, so that the largest logit moves from chunk to chunk."""
    g = seeded(5)
    data = scattered(n, (3,), g)
    data = data[data.norm(dim=1).argsort()].to(dtype)
    t = torch.tensor([0.0, 0.3, 0.8, 0.98, LATE], dtype=dtype)
    x = queries(case, data, t, g)
    whole, chunked = (EmpiricalVelocity(data, case.path, size)(x, t) for size in (None, chunk_size))
    tolerance = 1e-3 if dtype == torch.float32 else 1e-9
    assert_close(chunked, whole, rtol=tolerance, atol=tolerance)


# Precision


def float32_errors(case, data, x, t):
    """Return the errors of u* in float32, the rounding error that is allowed, and what inexact weights may add to it.

    With every weight exact, x and the mean are rounded by eps of their size and the velocity multiplies them by
    sigma'/sigma and alpha'. Logits wrong by up to 1e-3 move the mean by twice that times its mean deviation.
    """
    weights, truth = brute_force(case, data, x, t)
    errors = np.linalg.norm(EmpiricalVelocity(data, case.path)(x, t).double().numpy() - truth, axis=1)
    points, query = data.double().numpy(), x.double().numpy()
    rounding, sharing = np.zeros(len(x)), np.zeros(len(x))
    for b in range(len(x)):
        alpha, sigma, d_alpha, d_sigma = exact_schedules(case, float(t[b]))
        size = np.linalg.norm(query[b]) + np.linalg.norm(points, axis=1).max()
        rounding[b] = torch.finfo(torch.float32).eps * size * (abs(d_sigma / sigma) + d_alpha)
        deviation = weights[b] @ np.linalg.norm(points - weights[b] @ points, axis=1)
        sharing[b] = 2e-3 * deviation * abs(d_alpha - alpha * d_sigma / sigma)
    return errors, rounding, sharing


WELL_CONDITIONED = [case for case in CASES if case is not OT_NARROW]  # its float32 sigma: see test_paths.py


@pytest.mark.parametrize("case", WELL_CONDITIONED, ids=str)
@pytest.mark.parametrize("close", [False, True], ids=["spread", "1e-3 apart"])
@pytest.mark.parametrize("n", [12, 1500])
def test_float32_errs_by_rounding_alone_where_weights_are_taken_in_float64(case, close, n):
    g = seeded(6)
    data = scattered(n, (3,), g, close).float()
    t = torch.tensor([0.9999, LATE]).repeat(24)
    x = queries(case, data, t, g)
    errors, rounding, sharing = float32_errors(case, data, x, t)
    late = float(case.path.sigma(t).max()) < 0.02  # paths that end at a visible spread stay in float32
    assert (errors <= 2 * rounding + (0 if late else sharing)).all()


@pytest.mark.parametrize("case", WELL_CONDITIONED, ids=str)
@pytest.mark.parametrize("close", [False, True], ids=["spread", "1e-3 apart"])
@pytest.mark.parametrize("n", [12, 1500])
def test_float32_keeps_its_weights_to_a_thousandth_at_every_time(case, close, n):
    """Just before the switch to float64 the weights, not the last rounding, are the larger error."""
    g = seeded(7)
    data = scattered(n, (3,), g, close).float()
    t = torch.linspace(0, LATE, 120)
    x = queries(case, data, t, g)
    errors, rounding, sharing = float32_errors(case, data, x, t)
    assert (errors <= 4 * rounding + sharing).all()


@pytest.mark.parametrize("case", [RECTIFIED, VP, COSINE], ids=str)
def test_the_float64_rule_is_needed(case):
    """The same expansion of the distance in float32 picks wrong points just before t = 1."""
    g = seeded(8)
    data = scattered(12, (3,), g, close=True).float()
    t = torch.full((64,), LATE)
    x = queries(case, data, t, g)
    alpha, sigma, *_ = exact_schedules(case, float(t[0]))
    logits = -((x**2).sum(1)[:, None] - 2 * alpha * x @ data.T + alpha**2 * (data**2).sum(1)) / (2 * sigma**2)
    naive = case.path.velocity(x, torch.softmax(logits, dim=1) @ data, t)
    naive_errors = np.linalg.norm(naive.double().numpy() - brute_force(case, data, x, t)[1], axis=1)
    errors, rounding, _ = float32_errors(case, data, x, t)
    assert (errors / rounding).max() < 2
    assert np.median(naive_errors / rounding) > 20


@pytest.mark.parametrize("n", [10, 1500])
def test_rows_of_mixed_precision_come_back_in_order(n):
    g = seeded(9)
    data = scattered(n, (2, 2), g).float()
    t = torch.tensor([LATE, 0.1, 0.999, 0.0, 0.5, 0.9999, 0.3])
    x = queries(RECTIFIED, data, t, g)
    u = EmpiricalVelocity(data)
    together = u(x, t)
    for i in range(len(t)):
        assert_close(together[i : i + 1], u(x[i : i + 1], t[i]), rtol=1e-5, atol=1e-5)


# Gradients


@five_cases
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_gradients_equal_finite_differences(case, chunk_size):
    g = seeded(10)
    data, t = scattered(8, (2,), g), torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    x = queries(case, data, t, g).requires_grad_(True)
    u = EmpiricalVelocity(data, case.path, chunk_size)
    assert torch.autograd.gradcheck(lambda x: u(x, t), (x,), atol=1e-6)


@pytest.mark.parametrize("n", [8, 1500])
def test_gradients_of_mixed_precision_rows_equal_those_in_float64(n):
    g = seeded(11)
    data, t = scattered(n, (2,), g).float(), torch.tensor([0.99, 0.2, 0.999, 0.6, 0.0])
    x, direction = queries(RECTIFIED, data, t, g), torch.randn(5, 2, generator=g)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        query = x.detach().clone().to(dtype).requires_grad_(True)
        u = EmpiricalVelocity(data.to(dtype))
        (u(query, t.to(dtype)) * direction).sum().backward()
        gradients.append(query.grad.double())
    assert_close(*gradients, rtol=1e-3, atol=1e-4)
    assert (gradients[0].norm(dim=1) > 0).all()


# The flow


@pytest.mark.parametrize("case", [RECTIFIED, VP, VE], ids=str)
def test_following_it_ends_on_the_training_points(case):
    g = seeded(12)
    data = 2 * scattered(15, (2,), g)
    path = case.path
    x0 = path.source_scale * torch.randn(60, 2, generator=g, dtype=torch.float64)
    end = solvers.solve(EmpiricalVelocity(data, path), x0, t1=path.t_max).x
    distance, nearest = torch.cdist(end, data).min(dim=1)
    assert (distance < 10 * float(path.sigma(torch.tensor(path.t_max, dtype=torch.float64))) + 1e-5).all()
    assert len(nearest.unique()) > 7


@five_cases
@pytest.mark.parametrize("t", [0.25, 0.6, 0.85])
def test_continuity_equation_in_one_dimension(case, t):
    """dp/dt + d(p u)/dx = 0 for the mixture p_t = mean_i N(alpha x_i, sigma^2), by fourth-order differences."""
    points = torch.tensor([-1.2, 0.3, 0.5, 2.0], dtype=torch.float64)

    def density(x, time):
        alpha, sigma, *_ = exact_schedules(case, time)
        return (-0.5 * ((x[:, None] - alpha * points) / sigma) ** 2).exp().mean(dim=1) / sigma

    def difference(f, step):
        return (f(-2 * step) - 8 * f(-step) + 8 * f(step) - f(2 * step)) / (12 * step)

    alpha, sigma, *_ = exact_schedules(case, t)
    x = torch.linspace(-1.2 * alpha - 3 * sigma, 2 * alpha + 3 * sigma, 301, dtype=torch.float64)
    u = EmpiricalVelocity(points[:, None], case.path)
    change = difference(lambda h: density(x, t + h), 1e-4)
    flux = difference(lambda h: density(x + h, t) * u((x + h)[:, None], t)[:, 0], 1e-3 * sigma)
    assert change.abs().max() > 0.01
    assert (change + flux).abs().max() < 1e-7 * change.abs().max()


def test_continuity_equation_in_two_dimensions():
    """The same along lines: the divergence is summed over two directions."""
    g = seeded(13)
    data, t, h = scattered(5, (2,), g), 0.6, 1e-4
    x = queries(RECTIFIED, data, torch.full((50,), t), g)
    u = EmpiricalVelocity(data)

    def density(x, time):
        return (-0.5 * (torch.cdist(x, time * data) / (1 - time)) ** 2).exp().mean(dim=1) / (1 - time) ** 2

    change = (density(x, t + h) - density(x, t - h)) / (2 * h)
    flux = torch.zeros(50, dtype=torch.float64)
    for axis in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[axis] = h
        after, before = (density(x + s, t) * u(x + s, t)[:, axis] for s in (step, -step))
        flux += (after - before) / (2 * h)
    assert (change + flux).abs().max() < 1e-6 * change.abs().max()


def test_following_it_in_float32_repeats_real_images():
    """Up to t = 1 - 1e-5, by Euler steps that come ever closer: x ends within sigma of a training image."""
    digits = data.by_name("digits")
    u = EmpiricalVelocity(digits.train, scale=digits.scaled)
    x0 = torch.randn(64, 1, 8, 8, generator=seeded(15))
    times = 1 - torch.logspace(0, -5, 101, dtype=torch.float64)
    end = solvers.solve(u, x0, t1=float(times[-1]), method="euler", times=times).x
    distance, row = torch.cdist(end.double().flatten(1), digits.scaled(digits.train).double().flatten(1)).min(dim=1)
    assert distance.max() < 1e-3
    assert len(row.unique()) > 50


# How the data are kept


@five_cases
def test_whole_numbers_in_a_file_equal_points_in_memory(case, tmp_path):
    digits = data.by_name("digits")
    (tmp_path / "train.pixels").write_bytes(digits.train.numpy().tobytes())
    mapped = map_images(tmp_path / "train.pixels", tuple(digits.train.shape))
    points = digits.scaled(digits.train)
    kept, held = EmpiricalVelocity(mapped, case.path, scale=digits.scaled), EmpiricalVelocity(points, case.path)
    assert kept.data is mapped
    g = seeded(16)
    t = torch.cat([torch.rand(20, generator=g), 1 - 10 ** (-5 * torch.rand(20, generator=g))]).clamp(
        max=case.path.t_max
    )
    x = queries(case, points, t, g)
    for found, expected in ((kept(x, t), held(x, t)), (kept.weights(x, t), held.weights(x, t))):
        assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_points_are_scaled_chunk_by_chunk():
    digits, sizes = data.by_name("digits"), []

    def scaled(images):
        sizes.append(len(images))
        return digits.scaled(images)

    u = EmpiricalVelocity(digits.train, chunk_size=100, scale=scaled)
    sizes.clear()
    u(torch.randn(3, 1, 8, 8, generator=seeded(17)), 0.3)
    assert sum(sizes) == len(digits.train)  # once
    assert max(sizes) == 100


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_data_of_any_layout_and_precision(dtype):
    """Channels last, every second image, float16 numbers: the same velocity as of a plain copy."""
    g = seeded(18)
    plain = torch.randn(40, 3, 4, 4, generator=g).half().to(dtype)
    x, t = (
        torch.randn(6, 3, 4, 4, generator=g, dtype=dtype),
        torch.tensor([0.0, 0.2, 0.5, 0.9, 0.999, LATE], dtype=dtype),
    )
    expected = EmpiricalVelocity(plain)(x, t)
    others = (
        plain.contiguous(memory_format=torch.channels_last),
        torch.stack([plain, plain + 1], dim=1).flatten(0, 1)[::2],
        plain.half(),
        plain.double(),
    )
    for other in others:
        assert_close(EmpiricalVelocity(other)(x, t), expected, rtol=1e-4, atol=1e-4)


class Sizes(TorchDispatchMode):
    """Remember the largest tensor that was made."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for made in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(made, torch.Tensor):
                self.largest = max(self.largest, made.numel())
        return result


@pytest.mark.parametrize("kind", ["random times", "far away"])
def test_no_block_holds_all_queries_times_all_points(kind):
    """Nor do the candidates of late queries, when float32 cannot tell any two points apart."""
    g, n, batch = seeded(19), 20_000, 1_000
    points, t = torch.randn(n, 2, generator=g), torch.rand(batch, generator=g)
    x = queries(RECTIFIED, points, t, g)
    if kind == "far away":
        x, t = 1e6 * x, torch.full((batch,), 0.5)
    u = EmpiricalVelocity(points)
    with Sizes() as sizes:
        u(x, t)
    assert sizes.largest <= BLOCK < n * batch / 4


def test_autocast_and_tf32_do_not_reach_the_products():
    g = seeded(20)
    points, t = torch.randn(200, 50, generator=g), torch.tensor([0.1, 0.5, 0.9, 0.999])
    x = queries(RECTIFIED, points, t, g)
    u = EmpiricalVelocity(points)
    expected = u(x, t)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            found = u(x, t)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(found, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_queries_on_a_device_with_data_on_the_host_or_the_device():
    g = seeded(21)
    points = torch.randn(3000, 64, generator=g)
    t = torch.cat([torch.rand(20, generator=g), 1 - 10 ** (-5 * torch.rand(20, generator=g))])
    x = queries(RECTIFIED, points, t, g)
    expected = EmpiricalVelocity(points)(x, t)
    for kept in (points, points.cuda()):
        found = EmpiricalVelocity(kept)(x.cuda(), t.cuda())
        assert found.is_cuda
        assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-3)


# Bad input


@pytest.mark.parametrize("t", [1.0, 0.999995])
def test_times_beyond_the_last_are_taken_at_the_last(t):
    g = seeded(14)
    data, x = scattered(5, (2,), g), torch.randn(3, 2, generator=g, dtype=torch.float64)
    u = EmpiricalVelocity(data)
    assert_close(u(x, t), u(x, u.path.t_max), rtol=0, atol=0)
    assert torch.isfinite(u(x, t)).all()


@pytest.mark.parametrize("shape", [(0, 2), (3,)])
def test_empty_data_and_plain_vectors_are_refused(shape):
    with pytest.raises(ValueError, match="at least one point"):
        EmpiricalVelocity(torch.zeros(shape))


def test_bad_data_chunks_and_queries_are_refused():
    with pytest.raises(TypeError, match=r"data holds torch\.uint8"):
        EmpiricalVelocity(torch.zeros(3, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="data has NaN or infinite values in 1 of 3"):
        EmpiricalVelocity(torch.tensor([[0.0], [float("inf")], [1.0]]))
    with pytest.raises(ValueError, match="chunk_size is 0"):
        EmpiricalVelocity(torch.zeros(3, 2), chunk_size=0)
    u = EmpiricalVelocity(torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"x of shape \(B, 2\)"):
        u(torch.zeros(4, 3), 0.5)
    with pytest.raises(ValueError, match=r"t has shape \(4, 1\)"):
        u(torch.zeros(4, 2), torch.zeros(4, 1))
