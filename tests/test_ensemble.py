"""Networks trained as one get the weights that plain modules, plain Adam and automatic differentiation give."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from fmcore.ensemble import Ensemble, Member, SeluMLP, draw_batches, train
from fmcore.ensemble.networks import selu_
from fmcore.ensemble.training import steps_at_once
from fmcore.solvers import solve
from fmcore.sources import ChiSphere, Gaussian
from tests.analytic import seeded


def plain_network(seed: int, width: int = 64) -> nn.Sequential:
    """The network as anyone would write it, started from PyTorch's own generator."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(3, width),
            nn.SELU(),
            nn.Linear(width, width),
            nn.SELU(),
            nn.Linear(width, width),
            nn.SELU(),
            nn.Linear(width, 2),
        )


def stacked(network: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def members(count: int, transport: bool = False) -> list[Member]:
    """Each with its own data, source and seed."""
    sources = [Gaussian((2,)), Gaussian((2,), std=2.0), ChiSphere((2,), dof=9)]
    return [
        Member(sources[k % 3], (k + 1) * torch.randn(100 + k, 2, generator=seeded(k)), seed=50 + k, transport=transport)
        for k in range(count)
    ]


def plain_loop(member: Member, network: nn.Module, steps: int, batch: int) -> list[float]:
    """One model, one step after the other: PyTorch's Adam, and x_t and its velocity from x0, x1 and t."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for step in range(steps):
        block, row = divmod(step, steps_at_once(batch))
        x0, x1, t = (drawn[row] for drawn in draw_batches(member, block, batch))
        xt = (1 - t[:, None]) * x0 + t[:, None] * x1
        loss = (network(torch.cat([xt, t[:, None]], dim=1)) - (x1 - x0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# First weights and evaluation


def test_members_start_as_plain_modules_do():
    ensemble = Ensemble([3, 7, 3])
    for k, seed in enumerate([3, 7, 3]):
        assert torch.equal(stacked(ensemble.member(k)), stacked(plain_network(seed)))
    assert sum(p.numel() for p in ensemble.parameters()) == 3 * sum(p.numel() for p in plain_network(0).parameters())


def test_each_member_is_evaluated_at_its_own_points():
    ensemble = Ensemble([1, 2, 3])
    x, t = 20 * torch.randn(3, 5, 2, generator=seeded(0)), torch.rand(3, 5, generator=seeded(1))
    v = ensemble(x, t)
    for k in range(3):
        expected = plain_network(k + 1)(torch.cat([x[k], t[k][:, None]], dim=1))
        assert torch.allclose(v[k], expected, rtol=1e-5, atol=1e-5)
        assert torch.allclose(ensemble.member(k)(x[k], t[k]), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(ensemble(x, 0.25), ensemble(x, torch.full((3, 5), 0.25)))
    a_member = torch.tensor([0.1, 0.5, 0.9])
    assert torch.equal(ensemble(x, a_member), ensemble(x, a_member[:, None].expand(3, 5)))


def test_a_solver_follows_all_members_at_once():
    ensemble = Ensemble([1, 2])
    x0 = torch.randn(2, 6, 2, generator=seeded(0))
    together = solve(ensemble, x0, method="rk4", steps=4).x
    for k in range(2):
        assert torch.allclose(together[k], solve(ensemble.member(k), x0[k], method="rk4", steps=4).x, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 2), (3, 4, 2), (2, 4, 3)])
def test_points_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="takes \\(2, B, 2\\)"):
        Ensemble([0, 1])(torch.zeros(shape), 0.0)


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="at least one seed"):
        Ensemble([])
    with pytest.raises(ValueError, match="at least 1"):
        Ensemble([0], width=0)


def test_selu_is_that_of_pytorch_at_every_size():
    z = torch.cat([torch.linspace(-30, 30, 5001), torch.tensor([-1e30, -200.0, -1e-6, 0.0, 1e-6, 1e30])])
    assert torch.allclose(selu_(z.clone(), torch.empty_like(z)), nn.functional.selu(z), rtol=1e-6, atol=2e-7)
    assert selu_(torch.tensor([torch.nan]), torch.empty(1)).isnan().all()


# The gradient


@pytest.mark.parametrize(("width", "depth"), [(64, 3), (8, 1), (5, 4)])
def test_gradient_is_that_of_automatic_differentiation(width, depth):
    ensemble = Ensemble([1, 2, 3, 4], width=width, depth=depth).double()
    g = seeded(0)
    for batch in (7, 3):  # another batch size takes other buffers
        x, t = 5 * torch.randn(4, batch, 2, generator=g).double(), torch.rand(4, batch, generator=g).double()
        target = 5 * torch.randn(4, batch, 2, generator=g).double()
        losses = (ensemble(x, t) - target).square().mean(dim=(1, 2))
        (expected,) = torch.autograd.grad(losses.sum(), ensemble.flat)
        found = ensemble.gradient(torch.cat([x, t[..., None]], dim=2), target)
        assert torch.allclose(found, losses, rtol=1e-12)
        assert torch.allclose(ensemble.flat_gradient, expected, rtol=1e-7, atol=1e-9)
        assert expected.abs().max() > 0.1


# Training


@pytest.mark.parametrize("transport", [False, True], ids=["independent", "transport"])
def test_an_ensemble_of_one_gets_the_weights_of_a_plain_model(transport):
    (member,) = members(1, transport)
    network = plain_network(11)
    losses = plain_loop(member, network, steps=60, batch=16)
    ensemble = Ensemble([11])
    start = stacked(ensemble.member(0))
    mean, _ = train(ensemble, [member], steps=60, batch=16)
    assert torch.allclose(stacked(ensemble.member(0)), stacked(network), rtol=0, atol=2e-6)
    assert (stacked(network) - start).abs().max() > 0.01
    assert mean.item() == pytest.approx(sum(losses) / 60, rel=1e-5)


def test_member_k_of_many_gets_the_weights_of_member_k_alone():
    """Also over several blocks of draws (68 steps each at this batch size) and in groups of another size."""
    all_of_them = members(5)
    together = Ensemble(range(5))
    losses, _ = train(together, all_of_them, steps=150, batch=60, group=3)
    assert losses.shape == (3, 5)
    for k in (0, 3, 4):
        alone = Ensemble([k])
        train(alone, [all_of_them[k]], steps=150, batch=60)
        assert torch.allclose(stacked(together.member(k)), stacked(alone.member(0)), rtol=0, atol=5e-5)
    apart = [
        (stacked(together.member(j)) - stacked(together.member(k))).abs().max()
        for j, k in itertools.combinations(range(5), 2)
    ]
    assert min(apart) > 0.1


def test_the_number_of_threads_changes_nothing():
    before, weights = torch.get_num_threads(), []
    for threads in (1, 3):
        ensemble = Ensemble(range(5))
        train(ensemble, members(5, transport=True), steps=300, batch=16, group=2, threads=threads)
        weights.append(ensemble.flat.detach())
    assert torch.equal(*weights)
    assert torch.get_num_threads() == before


def test_copies_are_kept_at_the_steps_asked_for():
    counted = []
    ensemble = Ensemble([0, 1, 2])
    _, kept = train(ensemble, members(3), 30, keep=(10, 30), group=2, progress=counted.append)
    short = Ensemble([0, 1, 2])
    train(short, members(3), 10, group=2)
    assert torch.equal(kept[10].flat, short.flat)
    assert torch.equal(kept[30].flat, ensemble.flat)
    assert sum(counted) == 90


def test_training_lowers_the_loss_to_that_of_the_best_velocity():
    """From N(0, 1) to one point, v = (x1 - x) / (1 - t) has no error, and v = 0 one of E|x1 - x0|^2 / 2 = 10."""
    ensemble = Ensemble([0])
    member = Member(Gaussian((2,)), torch.full((64, 2), 3.0), seed=0)
    losses, _ = train(ensemble, [member], steps=1024, batch=16)
    assert losses[-1].item() < 0.02 * 10
    made = solve(ensemble.member(0), torch.randn(200, 2, generator=seeded(1)), method="rk4", steps=20).x
    assert (made - 3).norm(dim=1).mean() < 0.5


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="2 networks, and there are 1 members"):
        train(Ensemble([0, 1]), members(1), 5)
    for keep in ((6,), (0,)):
        with pytest.raises(ValueError, match="steps start at 1"):
            train(Ensemble([0]), members(1), 5, keep=keep)
    for given, words in (
        ({"steps": 0}, "steps is 0: it must be at least 1"),
        ({"steps": 5.0}, r"steps=5\.0: a number of steps is a whole number, write steps=5"),
        ({"batch": 0}, "batch is 0: it must be at least 1"),
        ({"batch": 16.0}, r"batch=16\.0: a number of points is a whole number, write batch=16"),
        ({"group": 0}, "group is 0: it must be at least 1"),
    ):
        with pytest.raises(ValueError, match=words):
            train(Ensemble([0]), members(1), **{"steps": 5, **given})
    with pytest.raises(ValueError, match="batch of 101 cannot be drawn from 100"):
        train(Ensemble([0]), members(1), 5, batch=101)


def test_a_loss_that_is_not_finite_is_an_error():
    data = torch.randn(100, 2, generator=seeded(0))
    data[3] = torch.nan
    with pytest.raises(RuntimeError, match="seeds \\[77\\] are not finite"):
        train(Ensemble([0, 1]), [members(1)[0], Member(Gaussian((2,)), data, 77)], 200)


# What a member draws


def test_a_batch_has_no_point_twice_and_every_point_is_visited():
    data = torch.arange(50.0)[:, None].expand(50, 2)
    _, x1, t = draw_batches(Member(Gaussian((2,)), data, 0), 0, 16)
    assert x1.shape == (256, 16, 2)
    assert t.shape == (256, 16)
    visits = torch.zeros(50)
    for batch in x1[..., 0].long():
        assert len(batch.unique()) == 16
        visits[batch] += 1
    assert (visits - 4096 / 50).abs().max() < 20
    assert t.mean().item() == pytest.approx(0.5, abs=0.02)


def test_draws_depend_on_the_seed_and_the_block():
    data = torch.randn(50, 2, generator=seeded(0))
    drawn = [
        draw_batches(Member(Gaussian((2,)), data, seed), block, 16) for seed, block in ((0, 0), (0, 1), (1, 0), (0, 0))
    ]
    for parts in zip(*drawn, strict=True):
        assert torch.equal(parts[0], parts[3])
        assert not torch.equal(parts[0], parts[1])
        assert not torch.equal(parts[0], parts[2])


def test_stacked_modules_have_the_same_layers():
    assert [tuple(p.shape) for p in SeluMLP().parameters()] == [tuple(p.shape) for p in plain_network(0).parameters()]
