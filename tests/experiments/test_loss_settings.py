"""Settings of the loss and of the optimizer: each reaches the place where it counts, and is recorded."""

import pytest
import torch

from fmcore import losses, paths, time_sampling
from fmcore.data import digits
from fmcore.experiments.config.overrides import with_overrides
from fmcore.experiments.run.network import as_velocity
from fmcore.experiments.run.training_batch import batch_loss, time_drawer
from fmcore.papers import catalog
from fmcore.training import TrainingConfig
from fmcore.training.step import Objective, Step

DIGITS = digits()


def row(*settings):
    return with_overrides(catalog.by_name("digits"), settings)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_times_are_drawn_as_the_configuration_says():
    seen = []

    def network(x, t):
        seen.append(t)
        return torch.zeros_like(x)

    pair = torch.randn(4000, 1, 8, 8), torch.randn(4000, 1, 8, 8)
    for settings in (["times=logit_normal", "times_mean=1"], ["times_shift=3"], []):
        batch_loss(row(*settings), DIGITS, DIGITS.train)(network, pair, seeded())
    towards_data, towards_source, uniform = seen
    last = paths.rectified().t_max
    assert torch.equal(uniform, last * torch.rand(4000, generator=seeded()))  # as a loss draws by itself
    torch.testing.assert_close(towards_source, last * time_sampling.shifted(torch.rand(4000, generator=seeded()), 3.0))
    assert float(torch.logit(towards_data / last).mean()) == pytest.approx(1, abs=0.06)


def test_a_share_of_times_is_uniform():
    draw = time_drawer(row("times=logit_normal", "times_std=0.01", "times_uniform=0.25"))
    t = draw(8000, seeded())
    assert float(((t - 0.5).abs() > 0.05).double().mean()) == pytest.approx(0.25 * 0.9, abs=0.02)


def test_the_weight_reaches_the_loss():
    pair = torch.randn(64, 1, 8, 8), torch.randn(64, 1, 8, 8)

    def network(x, t):
        return 0.5 * x

    found = batch_loss(row("weight=data"), DIGITS, DIGITS.train)(network, pair, seeded())
    path = paths.rectified()
    expected = losses.conditional_flow_matching(network, path, *pair, weight=lambda t: (1 - t) ** 2, generator=seeded())
    torch.testing.assert_close(found, expected)


def test_a_network_of_data_is_turned_into_a_velocity():
    x, t = torch.randn(6, 1, 8, 8), torch.rand(6)
    velocity = as_velocity(lambda x, t: torch.ones_like(x), row("loss=data_prediction"))
    torch.testing.assert_close(velocity(x, t), (1 - x) / (1 - t).view(-1, 1, 1, 1))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["times_mean=1"], "belong to times=logit_normal"),
        (["times=logit_normal", "times_std=0"], "std above 0"),
        (["times_shift=-1"], "shift=-1.0"),
        (["times=logit_normal", "times_uniform=1"], "a share from 0 to below 1"),
        (["weight=noise", "loss=data_prediction"], "weight=noise belongs to loss=conditional_flow_matching"),
        (["method=sde"], "every other method needs solver_steps"),
        (["sde_scale=2"], "sde_scale=2.0 with method=dopri5"),
        (["method=sde", "solver_steps=5", "norm=data_up"], "method=sde with"),
        (["beta1=1"], "beta1 is a decay"),
        (["clip=0"], "clip must be above 0, or none"),
        (["weight_decay=-1"], "weight_decay must be a number from 0"),
    ],
)
def test_what_does_not_go_together_is_said(settings, words):
    with pytest.raises(ValueError, match=words):
        row(*settings)


class TestOptimizer:
    def stepped(self, scale=1.0, **settings):
        """The weights after two steps on a loss whose gradient is (3, 4) times scale, and the optimizer."""
        model = torch.nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[1.0, -1.0]]))
        config = TrainingConfig(lr=0.1, warmup=0, batch=1, **settings)
        objective = Objective(model, lambda model, batch, generator: scale * model(torch.tensor([[3.0, 4.0]])).sum())
        step = Step(model, objective, [range(1)], config, [])
        for number in range(2):
            step.gradient(number, [None])
            step.update(number)
        return model.weight.detach()[0], step

    def test_weight_decay_is_that_of_adamw(self):
        with_decay, step = self.stepped(weight_decay=0.5)
        model = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
        optimizer = torch.optim.AdamW([model], lr=0.1, weight_decay=0.5)
        for _ in range(2):
            model.grad = torch.tensor([0.6, 0.8])  # clipped to norm 1
            optimizer.step()
        torch.testing.assert_close(with_decay, model.detach())
        assert isinstance(step.optimizer, torch.optim.AdamW)
        assert type(self.stepped()[1].optimizer) is torch.optim.Adam

    def test_without_a_bound_the_gradient_stays_as_it_is(self):
        for clip, norm in ((None, 5.0), (1.0, 1.0)):
            _, step = self.stepped(clip=clip)
            assert float(step.model.weight.grad.norm()) == pytest.approx(norm, rel=1e-4)

    def test_the_decays_of_adam(self):
        _, step = self.stepped(beta1=0.5, beta2=0.75, clip=None)
        state = step.optimizer.state[step.model.weight]
        torch.testing.assert_close(state["exp_avg"][0], torch.tensor([3.0, 4.0]) * (1 - 0.5**2))
        torch.testing.assert_close(state["exp_avg_sq"][0], torch.tensor([9.0, 16.0]) * (1 - 0.75**2))
