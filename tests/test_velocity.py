"""Networks that predict noise, score or data become the one velocity of the flow."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from fmcore import solvers
from fmcore.velocity import from_data, from_noise, from_score, scaled_up
from tests.analytic import FIVE, RECTIFIED, VP, gaussian_flow, seeded

five_cases = pytest.mark.parametrize("case", FIVE, ids=str)


@five_cases
@pytest.mark.parametrize(
    ("convert", "prediction"),
    [(from_noise, "noise"), (from_score, "score"), (from_data, "data")],
    ids=["noise", "score", "data"],
)
@pytest.mark.parametrize("one_time", [True, False])
def test_an_exact_prediction_gives_the_exact_velocity(case, convert, prediction, one_time):
    truth = gaussian_flow(case, (2, 2))
    t = torch.tensor(0.6) if one_time else torch.tensor([0.1, 0.5, 0.9])
    t = t.double()
    m, s = truth.moments(t)
    x = m + s * torch.randn(3, 2, 2, generator=seeded(0), dtype=torch.float64)
    velocity = convert(getattr(truth, prediction), case.path)
    assert_close(velocity(x, t), truth.velocity(x, t), rtol=1e-8, atol=1e-8)


def test_the_model_sees_the_same_point_and_time():
    seen = []

    def model(x, t):
        seen.append((x, t))
        return torch.zeros_like(x)

    x, t = torch.ones(2, 3), torch.tensor([0.25, 0.5])
    for convert in (from_noise, from_score, from_data):
        convert(model, RECTIFIED.path)(x, t)
    assert len(seen) == 3
    for point, time in seen:
        assert point is x
        assert_close(time, t, rtol=0, atol=0)


def test_the_score_leads_to_the_data_and_minus_the_score_away():
    """One symbol of Lipman et al. 2023 is minus the score: with that sign the samples do not end on the data."""
    truth = gaussian_flow(VP)
    x0 = truth.sample(2000, 0.0, seeded(1))
    arrive = solvers.solve(from_score(truth.score, VP.path), x0, t1=VP.path.t_max).x
    assert_close(arrive, truth.flow(x0, 0.0, VP.path.t_max), rtol=0, atol=2e-3)
    wrong = from_score(lambda x, t: -truth.score(x, t), VP.path)
    away = solvers.solve(wrong, x0, t1=0.9, method="rk4", steps=50).x
    assert (away.std(dim=0) > 10 * truth.std).all()


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0375])
def test_data_scaled_up_are_reached_by_the_same_flow(factor):
    truth = gaussian_flow(RECTIFIED, (3,))
    x0 = torch.randn(5, 3, generator=seeded(0), dtype=torch.float64)
    plain = solvers.solve(truth.velocity, x0, rtol=1e-9, atol=1e-9).x
    scaled = solvers.solve(scaled_up(truth.velocity, factor), x0, rtol=1e-9, atol=1e-9).x
    assert_close(scaled, factor * plain, rtol=1e-6, atol=1e-6)


def test_a_factor_that_is_no_scale_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        scaled_up(lambda x, t: x, 0.0)
