"""Guidance against two Gaussian classes, whose densities and velocities are known at every time."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal
from torch.testing import assert_close

from fmcore import networks, solvers
from fmcore.guidance import drop_labels, guided
from tests.analytic import OT, RECTIFIED, VP, GaussianFlow, seeded

NONE = 2
three_paths = pytest.mark.parametrize("case", [RECTIFIED, OT, VP], ids=str)


class TwoClasses:
    """The exact network (x, t, labels) -> v of two equally frequent Gaussians on a path; label 2 means none."""

    def __init__(self, case):
        self.case = case
        self.classes = [
            GaussianFlow(case, torch.tensor([-1.5, 0.5]).double(), torch.tensor([0.4, 0.8]).double()),
            GaussianFlow(case, torch.tensor([1.0, 1.0]).double(), torch.tensor([0.7, 0.3]).double()),
        ]
        self.batches = []

    def log_densities(self, x, t):
        """log p_t(x | c), (2, B)."""
        return torch.stack([Normal(*one.moments(t)).log_prob(x).sum(dim=1) for one in self.classes])

    def __call__(self, x, t, labels):
        self.batches.append(len(x))
        velocities = torch.stack([one.velocity(x, t) for one in self.classes])  # (2, B, 2)
        weights = self.log_densities(x, t).softmax(dim=0)
        weights[0] = torch.where(labels == NONE, weights[0], (labels == 0).double())
        weights[1] = 1 - weights[0]
        return (weights[..., None] * velocities).sum(dim=0)


def some_points(case, n=50):
    model = TwoClasses(case)
    return model, 2 * torch.randn(n, 2, generator=seeded(0), dtype=torch.float64), torch.arange(n) % 2


@three_paths
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("one_time", [True, False])
def test_guidance_is_the_velocity_of_the_density_times_a_power_of_the_class_probability(case, scale, one_time):
    model, x, labels = some_points(case)
    t = torch.tensor(0.6) if one_time else torch.linspace(0.1, 0.9, len(x))
    t = t.double()
    x.requires_grad_()
    each = model.log_densities(x, t)
    log_p = each.logsumexp(dim=0)
    log_class = each.gather(0, labels[None])[0] - log_p
    (score,) = torch.autograd.grad((log_p + scale * log_class).sum(), x)
    found = guided(model, labels, scale, null=NONE)(x.detach(), t)
    assert_close(found, case.path.score_to_velocity(score, x.detach(), t), rtol=1e-8, atol=1e-8)


def test_scale_one_samples_the_class_and_scale_zero_all_of_them():
    model, _, _ = some_points(RECTIFIED)
    x0 = torch.randn(2000, 2, generator=seeded(1), dtype=torch.float64)
    labels = torch.zeros(len(x0), dtype=torch.long)
    one = solvers.solve(guided(model, labels, 1.0, null=NONE), x0, method="rk4", steps=40).x
    assert_close(one, model.classes[0].flow(x0, 0.0, 1.0), rtol=1e-4, atol=1e-4)
    every = solvers.solve(guided(model, labels, 0.0, null=NONE), x0, method="rk4", steps=40).x
    mean = (model.classes[0].mean + model.classes[1].mean) / 2
    assert_close(every.mean(dim=0), mean, rtol=0, atol=0.1)


def test_more_guidance_gives_samples_of_which_the_class_is_more_certain():
    model, _, _ = some_points(RECTIFIED)
    x0 = torch.randn(500, 2, generator=seeded(2), dtype=torch.float64)
    labels = torch.zeros(len(x0), dtype=torch.long)
    certain = []
    for scale in (0.0, 1.0, 2.0, 4.0):
        x = solvers.solve(guided(model, labels, scale, null=NONE), x0, method="rk4", steps=40).x
        certain.append(float(model.log_densities(x, torch.tensor(1.0).double()).log_softmax(dim=0)[0].mean()))
    assert certain == sorted(certain)


@pytest.mark.parametrize(("scale", "forwards"), [(0.0, 1), (1.0, 1), (0.5, 2), (3.0, 2)])
def test_it_says_how_many_forwards_a_call_costs(scale, forwards):
    model, x, labels = some_points(RECTIFIED)
    velocity = guided(model, labels, scale, null=NONE)
    velocity(x, torch.tensor(0.5).double())
    assert sum(model.batches) == forwards * len(x) == velocity.evaluations * len(x)


@pytest.mark.parametrize(("method", "steps"), [("euler", 7), ("heun", 4), ("dopri5", None)])
def test_solvers_count_both_forwards(method, steps):
    model, x, labels = some_points(RECTIFIED)
    for scale in (1.0, 2.0):
        model.batches.clear()
        solution = solvers.solve(guided(model, labels, scale, null=NONE), x, method=method, steps=steps)
        assert solution.nfe * len(x) == sum(model.batches)
    model.batches.clear()
    velocity = guided(model, labels, 2.0, null=NONE)
    assert solvers.solve_sde(velocity, RECTIFIED.path, x, t0=0.1, t1=0.9, steps=5).nfe * len(x) == sum(model.batches)


def test_a_network_brings_its_own_label_for_none():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = networks.UNet((1, 8, 8), channels=8, multipliers=(1, 2), blocks=1, attention=(4,), num_classes=3)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    x, t, labels = torch.randn(2, 1, 8, 8, generator=seeded(3)), torch.tensor([0.2, 0.7]), torch.tensor([0, 2])
    with torch.no_grad():
        apart = network(x, t, labels) - network(x, t)
        found = guided(network, labels, 4.0)(x, t)
    assert apart.abs().max() > 1e-2
    assert_close(found, network(x, t, labels) + 3 * apart, rtol=1e-4, atol=1e-5)


def test_each_label_is_dropped_with_the_probability():
    labels = torch.arange(10).repeat(2000)
    dropped = drop_labels(labels, 0.2, 10, seeded(4))
    lost = (dropped == 10).reshape(2000, 10).double()
    assert torch.equal(dropped[dropped != 10], labels[dropped != 10])
    assert_close(lost.mean(dim=0), torch.full((10,), 0.2).double(), rtol=0, atol=0.04)  # over four deviations
    assert torch.equal(drop_labels(labels, 0.0, 10), labels)
    assert torch.equal(drop_labels(labels, 1.0, 10), torch.full_like(labels, 10))
    assert torch.equal(drop_labels(labels, 0.2, 10, seeded(4)), dropped)
    assert labels.max() == 9  # those given stay as they are


def test_bad_input_is_refused():
    model, x, labels = some_points(RECTIFIED)
    with pytest.raises(ValueError, match="50 labels for 3 samples"):
        guided(model, labels, 2.0, null=NONE)(x[:3], torch.tensor(0.5))
    with pytest.raises(ValueError, match="whole numbers of shape"):
        guided(model, labels.float(), 2.0, null=NONE)
    with pytest.raises(ValueError, match="whole numbers of shape"):
        guided(model, labels[0], 2.0, null=NONE)
    with pytest.raises(ValueError, match="pass null"):
        guided(model, labels, 2.0)
    with pytest.raises(ValueError, match="must be in \\[0, 1\\]"):
        drop_labels(labels, 1.5, NONE)
