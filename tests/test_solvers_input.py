"""What solvers are given by mistake, or meet on the way, and what they say to it."""

from __future__ import annotations

import copy
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from fmcore import networks, solvers
from fmcore.closed_form import HybridVelocity, draw_bank
from fmcore.guidance import drop_labels, guided
from fmcore.likelihood import bits_per_dim, log_likelihood
from fmcore.solvers import grid
from fmcore.sources import Gaussian
from fmcore.velocity import from_data, scaled_up
from tests.analytic import COSINE, OT, RECTIFIED, VE, VP, gaussian_flow, seeded

X = torch.randn(4, 3, generator=seeded(0))


def still(x, t):
    return torch.zeros_like(x)


# Numbers


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (10.0, r"steps=10\.0: a number of steps is a whole number, write steps=10\."),
        (10.5, r"steps=10\.5: a number of steps is a whole number, for example steps=50"),
        (True, r"steps=True: a number of steps is a whole number"),
        (float("nan"), r"steps=nan: a number of steps"),
        (float("inf"), r"steps=inf: a number of steps"),
        ("ten", r"steps='ten': a number of steps"),
        (0, "steps is 0: it must be at least 1"),
    ],
)
def test_steps_that_are_no_number_of_steps(steps, words):
    with pytest.raises(ValueError, match=words):
        solvers.solve(still, X, method="euler", steps=steps)
    with pytest.raises(ValueError, match=words):
        solvers.solve_sde(still, VP.path, X, steps=steps)


def test_steps_of_numpy_are_whole_numbers():
    assert solvers.solve(still, X, method="euler", steps=np.int64(3)).nfe == 3


@pytest.mark.parametrize("name", ["rtol", "atol"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0, 0.0, -1e-5, None, "small", True])
def test_tolerances_that_are_none_are_called_by_their_name(name, value):
    with pytest.raises(ValueError, match=rf"{name}={value!r}: a tolerance is a finite number above 0"):
        solvers.solve(still, X, **{name: value})


@pytest.mark.parametrize("ends", [(float("nan"), 1.0), (0.0, float("inf"))])
def test_ends_that_are_no_times_are_refused(ends):
    with pytest.raises(ValueError, match="starts and ends at finite times"):
        solvers.solve(still, X, *ends)


@pytest.mark.parametrize("method", ["euler", "dopri5"])
def test_times_with_nan_are_refused(method):
    with pytest.raises(ValueError, match="times must go one way"):
        solvers.solve(still, X, method=method, times=[0.0, float("nan"), 1.0])


# Batches, velocities


@pytest.mark.parametrize("method", ["dopri5", "euler", "rk4"])
@pytest.mark.parametrize("shape", [(0, 3), (0, 1, 8, 8), (4, 0)])
def test_nothing_moves_nowhere(method, shape):
    """An empty batch is not shown to the network, which may not take it."""

    def never(x, t):
        raise AssertionError("asked")

    x, steps = torch.zeros(shape), {} if method == "dopri5" else {"steps": 2}
    solution = solvers.solve(never, x, method=method, **steps)
    assert solution.x.shape == shape
    assert solution.nfe == 0
    assert solution.times.tolist() == [0, 1]
    kept = solvers.solve(never, x, method=method, times=[0.0, 0.5, 1.0], **steps)
    assert kept.trajectory.shape == (3, *shape)
    assert kept.times.tolist() == [0, 0.5, 1]
    stochastic = solvers.solve_sde(never, VP.path, x, 0.0, 1.0, steps=2, times=[0.5])
    assert (stochastic.x.shape, stochastic.trajectory.shape, stochastic.nfe) == (shape, (1, *shape), 0)
    with pytest.raises(ValueError, match="unknown method"):
        solvers.solve(never, x, method="rk45")


@pytest.mark.parametrize(
    ("velocity", "words"),
    [
        (lambda x, t: (x, t), r"returned a tuple, not a tensor: .*pass lambda x, t: network\(x, t\)\[0\]"),
        (lambda x, t: [x], r"returned a list, not a tensor: .*\[0\]"),
        (lambda x, t: None, r"returned a NoneType, not a tensor"),
        (lambda x, t: x.numpy(), r"returned a ndarray, not a tensor"),
    ],
)
def test_velocities_that_return_no_tensor(velocity, words):
    for method, steps in (("dopri5", None), ("euler", 3)):
        with pytest.raises(TypeError, match=words):
            solvers.solve(velocity, X, method=method, steps=steps)
    with pytest.raises(TypeError, match=words):
        solvers.solve_sde(velocity, VP.path, X, steps=3)


@pytest.mark.parametrize("method", ["dopri5", "euler"])
def test_an_assertion_of_the_velocity_arrives_as_it_is(method):
    def velocity(x, t):
        assert t < 0.5, "asked too late"
        return x

    steps = {} if method == "dopri5" else {"steps": 4}
    with pytest.raises(AssertionError, match="^asked too late"):
        solvers.solve(velocity, X, method=method, **steps)
    with pytest.raises(AssertionError, match="^asked too late"):
        log_likelihood(velocity, X, Gaussian((3,)), t1=0.7, method=method, **steps)


@pytest.mark.parametrize("ends", [(0.0, 1 / 3), (0.9, 0.1), (0.3, 0.7)])
@pytest.mark.parametrize("method", ["heun", "midpoint", "rk4", "dopri5"])
def test_no_rounding_of_times_leads_past_the_ends(method, ends):
    """t + dt in float32 is not always the next time of the grid."""
    generator = seeded(7)
    low, high = (float(np.float32(end)) for end in sorted(ends))
    for _ in range(10):
        inner = torch.rand(6, generator=generator, dtype=torch.float64).sort(descending=ends[0] > ends[1]).values
        times = [ends[0], *(min(ends) + abs(ends[1] - ends[0]) * inner).tolist(), ends[1]]
        seen = []

        def velocity(x, t, seen=seen):
            seen.append(float(t))
            return -x

        solvers.solve(velocity, X, *ends, method=method, times=times)
        assert low <= min(seen)
        assert max(seen) <= high


# Stiff fields


def stiff(x, t):
    """Pulled to cos t at a rate of a million: an explicit method needs steps of about a millionth."""
    return -1e6 * (x - torch.cos(t))


@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)])
def test_a_stiff_field_ends_with_an_error_that_says_where(ends):
    asked = []

    def velocity(x, t):
        asked.append(float(t))
        return (1 if ends[1] > ends[0] else -1) * stiff(x, t)

    words = rf"300 evaluations have led from t = {ends[0]:g} only to t = .*on the way to {ends[1]:g}.*raise max_nfe"
    with pytest.raises(RuntimeError, match=words) as error:
        solvers.solve(velocity, X.double(), *ends, max_nfe=300)
    assert len(asked) == 300
    reached = float(str(error.value).split("only to t = ")[1].split(",")[0])
    assert abs(reached - asked[-1]) < 1e-3


def test_the_limit_is_the_number_of_evaluations_that_are_allowed():
    nfe = solvers.solve(lambda x, t: -x, X).nfe
    assert solvers.solve(lambda x, t: -x, X, max_nfe=nfe).nfe == nfe
    with pytest.raises(RuntimeError, match=f"{nfe - 1} evaluations"):
        solvers.solve(lambda x, t: -x, X, max_nfe=nfe - 1)


def test_the_limit_counts_forwards_and_leaves_fixed_steps_alone():
    velocity = guided(lambda x, t, labels: -x, torch.zeros(4, dtype=torch.long), 2.0, null=1)
    with pytest.raises(RuntimeError, match="10 evaluations"):
        solvers.solve(velocity, X, max_nfe=10)
    assert solvers.solve(velocity, X, method="euler", steps=20, max_nfe=10).nfe == 40


def test_without_a_limit_there_is_one():
    function = solvers.CountedVelocity(still, 0.0, 1.0)
    function.nfe = 100_000
    with pytest.raises(RuntimeError, match="100,000 evaluations"):
        function(X, torch.tensor(0.5))


@pytest.mark.parametrize("limit", [0, 10.0, True])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(ValueError, match="max_nfe"):
        solvers.solve(still, X, max_nfe=limit)


# Networks in training mode


class Net(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 3), *layers)

    def forward(self, x, t, labels=None):
        return self.layers(x)


class Outer(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, t):
        return self.inner(x, t)


NETWORK = Net(nn.Dropout(0.1))


def by_name(x, t):
    return NETWORK(x, t)


def by_two_names(x, t):
    return by_name(x, t)


class Holder:
    def __init__(self, network, unused=None):
        self.network = network
        self.unused = unused

    def velocity(self, x, t):
        return self.network(x, t)


LABELS = torch.zeros(4, dtype=torch.long)
BYTES = torch.tensor([[0, 7, 255], [1, 2, 3], [4, 5, 6]])
WAYS = {
    "itself": lambda net: net,
    "in a function": lambda net: lambda x, t: net(x, t),
    "with arguments": lambda net: partial(net, labels=None),
    "a method": lambda net: Holder(net).velocity,
    "guided": lambda net: guided(net, LABELS, 2.0, null=1),
    "scaled and of data": lambda net: scaled_up(from_data(net, OT.path), 2.0),
    "second half": lambda net: HybridVelocity(still, net, 0.5),
    "in a list": lambda net: lambda x, t, nets=[net]: nets[0](x, t),
    "in a dictionary": lambda net: (lambda nets: lambda x, t: nets["net"](x, t))({"net": net}),
    "of an object that cannot be called": lambda net: (lambda holder: lambda x, t: holder.network(x, t))(Holder(net)),
    "in a network": Outer,
    "by name": lambda net: by_name,
    "by the name of a function": lambda net: by_two_names,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_dropout_while_sampling_is_a_warning_in_any_wrapping(way):
    NETWORK.train()
    words = r"(Net|Outer) is in training mode: its Dropout\(p=0.1\).*call \.eval\(\)"
    with pytest.warns(UserWarning, match=words) as found:
        solvers.solve(way(NETWORK), X, method="euler", steps=2)
    assert [warning.filename for warning in found] == [__file__]
    NETWORK.eval()
    solvers.solve(way(NETWORK), X, method="euler", steps=2)  # a warning would fail the test


def in_a_solve(velocity):
    return lambda x, t: solvers.solve(velocity, x, method="euler", steps=1).x


@pytest.mark.parametrize(
    "by",
    [
        lambda v: solvers.solve(v, X, rtol=10.0, atol=10.0),
        lambda v: solvers.solve(in_a_solve(v), X, method="euler", steps=1),
        lambda v: log_likelihood(v, X, Gaussian((3,)), method="euler", steps=9),
        lambda v: bits_per_dim(v, BYTES, Gaussian((3,)), draws=2, batch_size=2, method="euler", steps=2),
    ],
    ids=["adaptive", "a solve in a solve", "a likelihood", "bits of two batches, twice"],
)
def test_every_solve_warns_once_at_the_line_that_asked_for_it(by):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        by(Net(nn.Dropout(0.1)))
    assert [(warning.filename, warning.lineno) for warning in found] == [(__file__, by.__code__.co_firstlineno)]


def test_networks_that_do_not_run_are_not_looked_at():
    """An average of weights samples; the network that is trained lies beside it."""
    trained, average = Net(nn.Dropout(0.1)), Net(nn.Dropout(0.1)).eval()
    solvers.solve(Holder(average, trained).velocity, X, method="euler", steps=2)
    solvers.solve(lambda x, t: average(x, t) if trained else trained(x, t), X, method="euler", steps=2)
    unused = Net()
    unused.dropout = nn.Dropout(0.1)
    solvers.solve(unused, X, method="euler", steps=2)


def test_the_hooks_of_a_watch_are_gone_afterwards():
    from torch.nn.modules.module import _global_forward_pre_hooks as hooks

    seen = []

    def velocity(x, t):
        seen.append(len(hooks))
        if len(seen) == 8:
            raise KeyError("broken")
        return -x

    before = len(hooks)
    with pytest.raises(KeyError, match="broken"):
        solvers.solve(velocity, X, method="euler", steps=10)
    assert len(hooks) == before
    assert [number - before for number in seen] == [1, 1, 0, 1, 0, 0, 0, 1]


@pytest.mark.filterwarnings("ignore:(?s).*is deprecated")
@pytest.mark.parametrize("kind", ["network", "in a function", "function"])
def test_compiled_velocities_are_compiled_once_and_say_nothing_else(kind):
    """A hook that is seen by the compiler would mean another graph."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    torch.compiler.reset()
    network = Net(nn.Dropout(0.1))
    compiled = torch.compile(
        (lambda x, t: network(x, t)) if kind == "function" else network, backend=backend, fullgraph=True
    )
    velocity = (lambda x, t: compiled(x, t)) if kind == "in a function" else compiled
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        solvers.solve(velocity, X, method="euler", steps=4)
    assert len(graphs) == 1
    words = [str(warning.message) for warning in found if "is deprecated" not in str(warning.message)]
    if kind == "function":
        assert not words
    else:
        assert len(words) == 1
        assert words[0].startswith("the network Net is in training mode: its Dropout(p=0.1)")


def test_the_stochastic_solver_warns_too():
    with pytest.warns(UserWarning, match=r"call \.eval\(\)"):
        solvers.solve_sde(Net(nn.Dropout1d(0.2)), VP.path, X, steps=1, generator=seeded(0))


def test_batch_normalization_in_training_mode_is_a_warning():
    with pytest.warns(UserWarning, match=r"its BatchNorm1d mixes the samples.*call \.eval\(\)"):
        solvers.solve(Net(nn.BatchNorm1d(3)), X, method="euler", steps=1)


@pytest.mark.parametrize("layers", [[], [nn.Dropout(0.0)], [nn.LayerNorm(3)], [nn.Dropout(0.5).eval()]], ids=str)
def test_networks_that_are_the_same_in_both_modes_sample_in_silence(layers):
    network = Net(*copy.deepcopy(layers))
    assert network.training
    solvers.solve(network, X, method="euler", steps=1)


def test_training_through_a_solve_is_silent():
    solvers.solve(Net(nn.Dropout(0.1)), X, method="euler", steps=1, grad=True)


# Dtypes


class Weights(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.layer = nn.Conv1d(1, 1, 1) if kind == "convolution" else nn.Linear(3, 3)
        self.kind = kind

    def forward(self, x, t):
        return self.layer(x[:, None])[:, 0] if self.kind == "convolution" else self.layer(x)


@pytest.mark.parametrize("kind", ["convolution", "linear"])
@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize(
    ("of_x", "of_weights", "words"),
    [
        (
            "float64",
            "float32",
            r"x is float64 and the network's weights are float32: .*x0\.float\(\) or network\.double",
        ),
        (
            "float32",
            "float64",
            r"x is float32 and the network's weights are float64: .*x0\.double\(\) or network\.float",
        ),
        ("bfloat16", "float32", r"x is bfloat16 and the network's weights are float32: .*network\.bfloat16\(\)"),
        (
            "float16",
            "bfloat16",
            r"x is float16 and the network's weights are bfloat16: .*x0\.bfloat16\(\) or network\.half",
        ),
    ],
)
def test_two_dtypes_are_called_by_their_names(kind, wrap, of_x, of_weights, words):
    network = Weights(kind).to(getattr(torch, of_weights))
    velocity = (lambda x, t: network(x, t)) if wrap else network
    with pytest.raises(ValueError, match=words):
        solvers.solve(velocity, X.to(getattr(torch, of_x)), method="euler", steps=1)


def test_networks_of_the_package_name_the_two_dtypes_too():
    with pytest.raises(ValueError, match="float64.*float32"):
        solvers.solve(networks.MLP(3), X.double(), method="euler", steps=1)


def test_other_errors_of_a_velocity_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        solvers.solve(lambda x, t: nn.Linear(2, 2)(x), X, method="euler", steps=1)


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun", "rk4", "dopri5"])
def test_the_state_keeps_its_dtype_with_a_velocity_of_another(method):
    seen = set()

    def velocity(x, t):
        seen.add(x.dtype)
        return -x.double()

    steps = {} if method == "dopri5" else {"steps": 20}
    solution = solvers.solve(velocity, X, method=method, **steps)
    assert seen == {torch.float32}
    assert solution.x.dtype == torch.float32
    assert_close(solution.x, solvers.solve(lambda x, t: -x, X, method=method, **steps).x)


# Generators


@pytest.mark.parametrize("wrong", [3, np.random.default_rng(0)], ids=["seed", "numpy"])
def test_generators_of_a_wrong_kind_are_called_what_they_are(wrong):
    for draw in (
        lambda: solvers.solve_sde(still, VP.path, X, steps=1, generator=wrong),
        lambda: drop_labels(LABELS, 0.5, 2, wrong),
        lambda: draw_bank(X, 2, wrong),
    ):
        with pytest.raises(TypeError, match=r"generator is .*: pass a torch\.Generator"):
            draw()


def test_a_generator_on_another_device_than_the_labels():
    with pytest.raises(ValueError, match="generator is on cpu and draws numbers for meta"):
        drop_labels(LABELS.to("meta"), 0.5, 2, torch.Generator())


# Where a solve ends


@pytest.mark.parametrize("case", [RECTIFIED, VP, VE, OT, COSINE], ids=str)
@pytest.mark.parametrize("method", ["dopri5", "euler"])
def test_both_solvers_end_where_the_path_does(case, method):
    steps = {} if method == "dopri5" else {"steps": 4}
    by_ode = solvers.solve(still, X, path=case.path, method=method, **steps)
    by_sde = solvers.solve_sde(still, case.path, X, steps=4, scale=0.0)
    assert by_ode.times.tolist() == by_sde.times.tolist() == [0.0, case.path.t_max]


def test_an_end_that_is_given_counts_and_without_a_path_it_is_one():
    assert solvers.solve(still, X, t1=0.5, path=VP.path).times.tolist() == [0, 0.5]
    assert solvers.solve(still, X, VP.path.t_max, 0.0, path=VP.path).times.tolist() == [VP.path.t_max, 0]
    assert solvers.solve(still, X).times.tolist() == [0, 1]


def test_a_velocity_singular_at_one_is_solved_with_its_path_alone():
    truth = gaussian_flow(VP)
    x = truth.sample(5, 0.0, seeded(3))
    found = solvers.solve(truth.velocity, x, path=VP.path, method="rk4", steps=400).x
    assert_close(found, truth.flow(x, 0.0, VP.path.t_max), rtol=0, atol=1e-3)


# Devices without float64


class NoFloat64(TorchDispatchMode):
    """A device that has no float64: what makes a tensor of it is written down."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.float64:
            self.made.append(str(function))
        return result


@pytest.mark.parametrize("method", ["dopri5", "euler", "midpoint", "heun", "rk4"])
@pytest.mark.parametrize("has_float64", [True, False])
def test_on_apple_gpus_no_time_is_float64(method, has_float64, monkeypatch):
    """The CPU plays the part of the GPU, from where torchdiffeq takes over."""
    import torchdiffeq

    if not has_float64:
        monkeypatch.setitem(grid.TIME_DTYPES, "cpu", grid.TIME_DTYPES["mps"])
    watch, odeint = NoFloat64(), torchdiffeq.odeint

    def watched(*args, **kwargs):
        with watch:
            return odeint(*args, **kwargs)

    monkeypatch.setattr(torchdiffeq, "odeint", watched)
    given = {"rtol": 0.1, "atol": 0.1} if method == "dopri5" else {}
    for ends in ((0.0, 1.0), (1.0, 0.0)):
        start, times = 1.0 if ends[1] else 0.5, [ends[0], 0.4, ends[1]]
        x0 = torch.full((3, 1), start)
        solution = solvers.solve(lambda x, t: -2 * t * x**2, x0, *ends, method, times=times, **given)
        assert torch.equal(solution.trajectory[0], x0)
        assert_close(solution.x, 1.5 - x0, rtol=0.5, atol=0)  # x = 1 / (1 + t^2), in two steps
    if method == "dopri5":
        assert bool(watch.made) == has_float64
    elif not has_float64:
        assert not watch.made


def test_times_are_float64_but_on_apple_gpus():
    assert solvers.time_dtype(torch.device("cpu")) == torch.float64
    assert solvers.time_dtype(torch.device("cuda", 1)) == torch.float64
    assert solvers.time_dtype(torch.device("mps")) == torch.float32
