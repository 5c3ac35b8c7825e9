"""Paths, targets and couplings of TorchCFM; conventions.py says how they translate."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fmcore import couplings, losses, networks, paths
from fmcore.couplings.minibatch import entropic_plan, inner_products
from tests.peers.conventions import agree, pairs

cfm = pytest.importorskip(
    "torchcfm.conditional_flow_matching",
    reason="TorchCFM is not installed: `make bench` installs it in build/peers, for PYTHONPATH",
)
transport = pytest.importorskip("torchcfm.optimal_transport")


def test_rectified_path():
    x0, x1, t = pairs()
    t, xt, ut = cfm.ConditionalFlowMatcher(sigma=0.0).sample_location_and_conditional_flow(x0, x1, t)
    agree(paths.rectified(), xt, ut, x0, x1, t)


@pytest.mark.parametrize("sigma", [0.0, 0.01, 0.3])
def test_ot_path_draws_its_own_source(sigma):
    given, x1, t = pairs()
    matcher = cfm.TargetConditionalFlowMatcher(sigma=sigma)
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        t, xt, ut, x0 = matcher.sample_location_and_conditional_flow(given, x1, t, return_noise=True)
    assert not torch.equal(x0, given)
    agree(paths.ot(sigma_min=sigma), xt, ut, x0, x1, t)


def test_cosine_path():
    x0, x1, t = pairs()
    matcher = cfm.VariancePreservingConditionalFlowMatcher(sigma=0.0)
    t, xt, ut = matcher.sample_location_and_conditional_flow(x0, x1, t)
    agree(paths.cosine(), xt, ut, x0, x1, t)


def test_loss_of_a_network():
    x0, x1, t = (value.float() for value in pairs((2,)))
    with torch.random.fork_rng([]):
        torch.manual_seed(2)
        model = networks.MLP(2)
    t, xt, ut = cfm.ConditionalFlowMatcher(sigma=0.0).sample_location_and_conditional_flow(x0, x1, t)
    theirs = torch.mean((model(xt, t) - ut) ** 2)
    ours = losses.conditional_flow_matching(model, paths.rectified(), x0, x1, t)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)


@pytest.mark.parametrize("n", [16, 128])
@pytest.mark.parametrize("shape", [(2,), (3, 32, 32)], ids=str)
def test_exact_coupling_has_the_optimum_of_the_plan(n, shape):
    x0, x1, _ = pairs(shape, n)
    x0, x1 = x0.float(), x1.float() + 0.5
    plan = torch.as_tensor(transport.OTPlanSampler(method="exact").get_map(x0, x1)).double()
    distances = torch.cdist(x0.double().flatten(1), x1.double().flatten(1)) ** 2
    paired, data = couplings.MinibatchOT()(x0, x1)
    cost = (paired.double() - data.double()).square().flatten(1).sum(dim=1).mean()
    assert float(cost) == pytest.approx(float((plan * distances).sum()), rel=1e-6)
    # The plan is a permutation: sampling it with replacement loses a share of about 1/e of the source, ours none.
    sources = plan.argmax(dim=0)
    assert len(sources.unique()) == n
    assert torch.equal(paired, x0[sources])


def test_sampling_the_plan_with_replacement_loses_samples_that_the_permutation_keeps(monkeypatch):
    x0, x1, _ = pairs((2,), 256)
    generator = np.random.default_rng(0)
    monkeypatch.setattr(np.random, "choice", generator.choice)  # TorchCFM draws from the global state
    theirs, _ = transport.OTPlanSampler(method="exact").sample_plan(x0, x1)
    ours, _ = couplings.MinibatchOT()(x0, x1)
    assert len(theirs.unique(dim=0)) == pytest.approx((1 - np.exp(-1)) * 256, rel=0.1)
    assert len(ours.unique(dim=0)) == 256


@pytest.mark.parametrize("regularization", [0.5, 2.0])
def test_entropic_plan(regularization):
    x0, x1, _ = pairs((2,), 64)
    theirs = transport.OTPlanSampler(method="sinkhorn", reg=regularization).get_map(x0, x1)
    ours = entropic_plan(inner_products(x1, x0), regularization)
    # Ours stops at marginals that are right to a thousandth, theirs at 1e-9.
    np.testing.assert_allclose(ours.T, theirs, rtol=1e-2, atol=1e-2 / 64**2)
