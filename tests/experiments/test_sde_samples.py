"""Samples by the stochastic equation: the marginals of the flow, on the path whose own diffusion is infinite at 0."""

import pytest
import torch

from fmcore import paths
from fmcore.experiments.evaluate.evaluation import solver
from fmcore.solvers import bounded_diffusion, solve_sde
from tests.experiments.made_run import SPREAD, MadeRun, gaussian


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0])
def test_the_end_has_the_spread_of_the_data(scale):
    x0 = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0))
    path = paths.rectified()
    noise = torch.Generator().manual_seed(1)
    found = solve_sde(
        gaussian, path, x0, steps=200, generator=noise, diffusion=bounded_diffusion(path, scale), times=[0, path.t_max]
    )
    assert float(found.x.std()) == pytest.approx(SPREAD, rel=0.03)
    together = torch.corrcoef(torch.stack([x0[:, 0], found.x[:, 0]]))[0, 1]
    # The flow keeps the order of points on a line; noise forgets where they came from.
    assert together > 0.999 if scale == 0 else together < 0.9


def test_a_run_draws_with_it_from_one_generator(tmp_path):
    run = MadeRun(tmp_path, "method=sde", "solver_steps=20", "sde_scale=0.5")
    one, again, other = (run.sample(50, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert one.nfe == 20
    assert torch.equal(one.x, again.x)
    assert not torch.equal(one.x, other.x)
    assert float(one.x.std()) == pytest.approx(SPREAD, rel=0.1)
    assert solver(run.configuration.evaluation) == "Euler-Maruyama, 20 steps, g^2 = 1 sigma"
    flow = MadeRun(tmp_path, "method=euler", "solver_steps=20").sample(50, torch.Generator().manual_seed(0))
    assert not torch.allclose(one.x, flow.x, atol=0.05)
    still = MadeRun(tmp_path, "method=sde", "solver_steps=20", "sde_scale=0").sample(
        50, torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(still.x, flow.x, rtol=1e-3, atol=1e-4)


def test_its_scale_is_a_number_from_0():
    with pytest.raises(ValueError, match="a number from 0"):
        bounded_diffusion(paths.rectified(), -1.0)
