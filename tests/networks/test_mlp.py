"""The perceptron: how time enters, what gradients see, and that it learns a known velocity."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from fmcore import losses, networks
from tests.analytic import RECTIFIED, gaussian_flow, modest, seeded


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return networks.MLP(2, width=16, depth=2)


@modest
@given(
    batch=st.integers(1, 5),
    shape=st.sampled_from([(1,), (3,), (2, 2), (1, 2, 3)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_a_number_a_scalar_and_a_vector_of_equal_times_agree(batch, shape, dtype):
    x = torch.randn(batch, *shape, generator=seeded(0), dtype=dtype)
    model = networks.MLP(x[0].numel(), width=8, depth=1).to(dtype)
    v = model(x, 0.3)
    assert v.dtype == dtype
    assert v.shape == x.shape
    assert_close(model(x, torch.tensor(0.3, dtype=dtype)), v, rtol=0, atol=0)
    assert_close(model(x, torch.full((batch,), 0.3, dtype=dtype)), v, rtol=0, atol=0)


def test_each_sample_has_its_own_time_and_no_other_sample(model):
    x, t = torch.randn(4, 2, generator=seeded(1)), torch.tensor([0.0, 0.2, 0.7, 1.0])
    together = model(x, t)
    for i in range(4):
        assert_close(model(x[i : i + 1], t[i]), together[i : i + 1])
    order = torch.tensor([2, 0, 3, 1])
    assert_close(model(x[order], t[order]), together[order])
    assert (model(x, t + 0.5) - together).abs().min() > 1e-5


def test_gradients_reach_every_parameter_and_the_input(model):
    x = torch.randn(5, 2, generator=seeded(2), requires_grad=True)
    t = torch.linspace(0, 1, 5).requires_grad_(True)
    model(x, t).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    assert (x.grad.abs().sum(dim=1) > 0).all()
    assert (t.grad.abs() > 0).all()


def test_gradients_equal_finite_differences(model):
    model = model.double()
    x, t = torch.randn(3, 2, generator=seeded(3)).double().requires_grad_(True), torch.tensor([0.1, 0.5, 0.9]).double()
    assert torch.autograd.gradcheck(model, (x, t.requires_grad_(True)))


@pytest.mark.parametrize(("dim", "width", "depth"), [(1, 1, 1), (2, 64, 3), (5, 7, 4)])
def test_depth_counts_hidden_layers_of_the_given_width(dim, width, depth):
    layers = [layer for layer in networks.MLP(dim, width, depth).modules() if isinstance(layer, nn.Linear)]
    sizes = [(layer.in_features, layer.out_features) for layer in layers]
    assert [inner for _, inner in sizes[:-1]] == [width] * depth
    assert sizes[0][0] == dim + 1
    assert sizes[-1][1] == dim


def test_bad_sizes_times_and_points_are_refused(model):
    for sizes in ((0, 8, 1), (2, 0, 1), (2, 8, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            networks.MLP(*sizes)
    with pytest.raises(ValueError, match="built for 2 dimensions"):
        model(torch.zeros(3, 4), 0.5)
    with pytest.raises(ValueError, match=r"t has shape \(3, 1\)"):
        model(torch.zeros(3, 2), torch.zeros(3, 1))


def test_it_learns_the_velocity_of_a_gaussian_flow(model):
    truth, generator = gaussian_flow(RECTIFIED), seeded(4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(400):
        x0 = torch.randn(256, 2, generator=generator)
        x1 = truth.sample(256, 1.0, generator).float()
        loss = losses.conditional_flow_matching(model, RECTIFIED.path, x0, x1, generator=generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    t = torch.full((2000,), 0.5)
    x = truth.sample(2000, 0.5, seeded(5)).float()
    with torch.no_grad():
        error = (model(x, t) - truth.velocity(x, t)).square().mean()
    assert error < 0.05 * truth.velocity(x, t).square().mean()


class TestLabels:
    @pytest.fixture
    def told(self):
        torch.manual_seed(0)
        return networks.MLP(2, width=16, depth=2, num_classes=3)

    def test_each_class_has_its_velocity_and_none_is_the_last(self, told):
        x = torch.randn(1, 2).expand(4, 2)
        of_each = told(x, 0.5, torch.tensor([0, 1, 2, 3]))
        assert len({tuple(row) for row in of_each.tolist()}) == 4
        torch.testing.assert_close(told(x, 0.5), of_each[3:].expand(4, 2))
        assert torch.equal(told(x, 0.5, [2, 2, 2, 2]), told(x, 0.5, torch.full((4,), 2)))

    def test_samples_are_guided(self, told):
        from fmcore.guidance import guided

        x, labels = torch.randn(4, 2), torch.tensor([0, 1, 2, 0])
        expected = told(x, 0.5) + 2 * (told(x, 0.5, labels) - told(x, 0.5))
        torch.testing.assert_close(guided(told, labels, 2.0)(x, torch.tensor(0.5)), expected)

    def test_without_labels_the_weights_are_those_of_before(self, told):
        torch.manual_seed(0)
        plain = networks.MLP(2, width=16, depth=2)
        assert plain.state_dict().keys() == told.state_dict().keys() - {"label.weight"}
        for name, value in plain.state_dict().items():
            assert torch.equal(value, told.state_dict()[name])

    def test_labels_that_cannot_be_are_refused(self, told, model):
        with pytest.raises(ValueError, match="this network was built without labels"):
            model(torch.zeros(3, 2), 0.5, torch.zeros(3, dtype=torch.int64))
        with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2"):
            told(torch.zeros(1, 2), 0.5, torch.tensor([4]))
        with pytest.raises(ValueError, match="num_classes"):
            networks.MLP(2, num_classes=0)
