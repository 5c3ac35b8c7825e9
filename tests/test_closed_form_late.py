"""Queries near the data: float32 only selects the points, differences in float64 weight them."""

from __future__ import annotations

import pytest
import torch

from fmcore import paths
from fmcore.closed_form import LOGIT_TOLERANCE, EmpiricalVelocity
from tests.analytic import RECTIFIED, VE, VP, seeded

CLOUDS = {
    "plane": lambda g: torch.randn(1500, 2, generator=g),
    "images": lambda g: torch.rand(1000, 3, 10, 10, generator=g) * 2 - 1,
    "twins": lambda g: (
        torch.rand(700, 1, 8, 8, generator=g).repeat(2, 1, 1, 1) + 1e-3 * torch.randn(1400, 1, 8, 8, generator=g)
    ),
    "far from the origin": lambda g: 50 + torch.randn(1500, 4, generator=g),
}
clouds = pytest.mark.parametrize("cloud", CLOUDS)
three_paths = pytest.mark.parametrize("case", [RECTIFIED, VP, VE], ids=str)


def noisy(case, data, t, g):
    """Points x_t of random data points at times t."""
    path = case.path
    x1 = data[torch.randint(len(data), (len(t),), generator=g)]
    return path.interpolate(torch.randn(x1.shape, generator=g), x1, t.clamp(max=path.t_max))


def posterior(case, data, x, t):
    """Weights (B, n) and mean from all differences ||x - alpha x_i||^2 in float64."""
    x, data, t = x.double().flatten(1), data.double().flatten(1), t.double()
    alpha, sigma = case.path.alpha(t)[:, None, None], case.path.sigma(t)[:, None]
    weights = torch.softmax(-(x[:, None] - alpha * data).square().sum(dim=2) / (2 * sigma**2), dim=1)
    return weights, weights @ data


def calls(monkeypatch):
    """Record the queries and points that are weighted by their differences."""
    seen, original = [], EmpiricalVelocity._mean_by_differences

    def record(self, query, t, row, column):
        seen.append((query, t, row, column))
        return original(self, query, t, row, column)

    monkeypatch.setattr(EmpiricalVelocity, "_mean_by_differences", record)
    return seen


@three_paths
@clouds
def test_mean_equals_the_one_by_differences_at_every_time(case, cloud, monkeypatch):
    g, seen = seeded(0), calls(monkeypatch)
    data = CLOUDS[cloud](g)
    t = torch.cat([torch.rand(40, generator=g), 1 - 10 ** (-5 * torch.rand(40, generator=g))]).clamp(
        max=case.path.t_max
    )
    x = noisy(case, data, t, g)
    _, truth = posterior(case, data, x, t)
    error = (EmpiricalVelocity(data, case.path).posterior_mean(x, t).flatten(1).double() - truth).norm(dim=1)
    # Early weights may be off by a thousandth; then the mean moves by that share of the spread of the data.
    assert error.max() < LOGIT_TOLERANCE * float((data - data.mean(dim=0)).flatten(1).norm(dim=1).max())
    assert any(len(row) for _, _, row, _ in seen)


@three_paths
@clouds
def test_no_point_with_a_weight_is_left_out(case, cloud, monkeypatch):
    g, seen = seeded(1), calls(monkeypatch)
    data = CLOUDS[cloud](g)
    t = (1 - 10 ** (-1 - 4 * torch.rand(60, generator=g))).clamp(max=case.path.t_max)
    EmpiricalVelocity(data, case.path).posterior_mean(noisy(case, data, t, g), t)
    ((query, times, row, column),) = seen
    weights, _ = posterior(case, data, query, times)
    weights[row, column] = 0
    assert len(row.unique()) > 20
    assert weights[row.unique()].sum(dim=1).max() < 1e-8


@pytest.mark.parametrize("chunk_size", [1, 13, 400, None])
def test_chunks_find_the_same_points(chunk_size):
    """In order of distance from the queries' own points, largest last: the threshold rises from chunk to chunk."""
    g = seeded(2)
    data = CLOUDS["twins"](g)
    t = torch.cat([torch.full((10,), 0.999), torch.full((10,), 0.2)])
    x = noisy(RECTIFIED, data, t, g)
    data = data[(data - x[0]).flatten(1).norm(dim=1).argsort(descending=True)]
    whole, parts = (EmpiricalVelocity(data, chunk_size=size).posterior_mean(x, t) for size in (None, chunk_size))
    assert torch.allclose(whole, parts, rtol=1e-5, atol=1e-5)


def test_late_weights_are_better_than_one_product_in_float32():
    g = seeded(3)
    data = torch.rand(300, 64, generator=g).repeat(2, 1)
    data = data + 1e-4 * torch.randn(data.shape, generator=g)  # every point has a twin about 1e-3 away
    t = torch.full((50,), 0.9995)
    x = noisy(RECTIFIED, data, t, g)
    _, truth = posterior(RECTIFIED, data, x, t)
    flat = data.flatten(1)
    logits = (x.flatten(1) @ flat.T * t[:, None] - 0.5 * t[:, None] ** 2 * flat.square().sum(dim=1)) / (
        1 - t[:, None]
    ) ** 2
    naive = (torch.softmax(logits, dim=1) @ flat - truth).norm(dim=1).mean()
    ours = (EmpiricalVelocity(data).posterior_mean(x, t).flatten(1) - truth).norm(dim=1).mean()
    assert ours < 1e-6
    assert naive > 100 * ours


def test_queries_far_from_all_data_have_many_candidates_and_are_still_right():
    """The rounding of ||x|| ||x_i|| spans every logit, so nothing can be selected: these rows go through float64."""
    g = seeded(4)
    data = CLOUDS["plane"](g)
    x, t = 1e4 * torch.randn(20, 2, generator=g), torch.linspace(0.5, 0.99, 20)
    _, truth = posterior(RECTIFIED, data, x, t)
    assert torch.allclose(EmpiricalVelocity(data).posterior_mean(x, t).double(), truth, rtol=1e-6, atol=1e-6)


def test_points_of_negligible_weight_leave_no_denormal_numbers():
    """Means stay finite where all weights but one vanish, in early rows and late ones."""
    g = seeded(5)
    data = 30 * torch.randn(500, 64, generator=g)
    t = torch.tensor([0.05, 0.3, 0.6, 0.9, 0.99])
    x = noisy(RECTIFIED, data, t, g)
    weights, truth = posterior(RECTIFIED, data, x, t)
    assert float(weights.max(dim=1).values.min()) > 0.999
    assert torch.allclose(EmpiricalVelocity(data).posterior_mean(x, t).double(), truth, rtol=1e-6, atol=1e-5)


@three_paths
def test_gradients_of_late_rows_equal_those_of_the_differences(case):
    g = seeded(6)
    data = CLOUDS["plane"](g)
    t = (1 - 10 ** (-1 - 2 * torch.rand(30, generator=g))).clamp(max=case.path.t_max)
    x, direction = noisy(case, data, t, g), torch.randn(30, 2, generator=g)
    ours, exact = x.clone().requires_grad_(True), x.double().requires_grad_(True)
    (EmpiricalVelocity(data, case.path).posterior_mean(ours, t) * direction).sum().backward()
    (posterior(case, data, exact, t)[1] * direction.double()).sum().backward()
    error = (ours.grad.double() - exact.grad).norm(dim=1) / exact.grad.norm(dim=1).clamp(min=0.1)
    assert error.max() < 4e-3  # weights that are trusted may be off by 2e-3, see EmpiricalVelocity


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_data_are_kept_by_reference_and_stay_as_they_are(dtype):
    data = CLOUDS["images"](seeded(7)).to(dtype)
    before = data.clone()
    u = EmpiricalVelocity(data, paths.cosine())
    assert u.data is data
    u(torch.randn(5, 3, 10, 10, generator=seeded(8), dtype=dtype), torch.linspace(0.1, 0.999, 5))
    assert torch.equal(data, before)
