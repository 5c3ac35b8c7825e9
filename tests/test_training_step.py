"""One step of training against its parts on paper: the average, the noise, dropout, modes, and names of weights."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fmcore.checkpoints import load_checkpoint
from fmcore.experiments.run import pretrained
from fmcore.training import TrainingConfig, train
from fmcore.training.device import fastest_convolutions, matmul_precision

CONFIG = TrainingConfig(steps=6, batch=6, lr=0.1, warmup=0, ema=0.3, clip=1e9, checkpoint_every=1)
DATA = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))


def network():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))


def reconstruction(model, batch, generator):
    return (model(batch) - batch).square().mean()


def run(config=CONFIG, loss=reconstruction, model=None, **settings):
    return train(network() if model is None else model, loss, DATA, config, progress=False, **settings)


def test_the_average_is_the_recursion_on_paper(tmp_path):
    """After the first step the weights themselves; after n more, with d = min(0.3, (1 + n) / (10 + n)), both."""
    decays = [0, 2 / 11, 3 / 12, 0.3, 0.3, 0.3]
    model, averages, weights = network()[3].double(), [], []

    def keep(step, averaged):
        averages.append(averaged.weight.clone())
        weights.append(model.weight.detach().clone())

    def loss(model, batch, generator):
        return (model(F.pad(batch, (0, 1), value=1.0)) - batch).square().mean()

    train(model, loss, DATA.double(), CONFIG, tmp_path / "run.pt", progress=False, keep=keep)
    assert len(averages) == len(decays)
    expected = torch.zeros(3, 4, dtype=torch.float64)
    for decay, weight, average in zip(decays, weights, averages, strict=True):
        expected = decay * expected + (1 - decay) * weight
        torch.testing.assert_close(average, expected, rtol=1e-12, atol=1e-12)
    assert (
        min(float((a - b).norm()) for a, b in itertools.pairwise(weights)) > 0.1
    )  # Adam moves each weight by about lr


def test_the_average_takes_over_what_is_no_weight():
    trained = run()
    assert trained.ema[1].num_batches_tracked == CONFIG.steps
    for name, buffer in trained.model.named_buffers():
        assert torch.equal(trained.ema.get_buffer(name), buffer), name
    assert trained.ema[1].running_mean.abs().min() > 0


@pytest.mark.parametrize("accumulate", [1, 3])
def test_each_micro_batch_of_each_step_has_noise_and_dropout_of_its_own(accumulate):
    noise, dropped = [], []

    def loss(model, batch, generator):
        noise.append(torch.rand(40, generator=generator))
        dropped.append(torch.rand(40))  # by the generator that dropout draws from
        assert F.dropout(torch.ones(40)).unique().tolist() == [0, 2]
        return reconstruction(model, batch, generator)

    run(replace(CONFIG, accumulate=accumulate), loss)
    first = torch.stack(noise + dropped)
    noise.clear()
    dropped.clear()
    run(replace(CONFIG, accumulate=accumulate), loss)
    assert torch.equal(first, torch.stack(noise + dropped))
    assert len(first) == 2 * accumulate * CONFIG.steps
    assert len(first.unique(dim=0)) == len(first)


def test_a_network_is_trained_in_training_mode_and_sampled_in_evaluation_mode(tmp_path):
    modes, kept = set(), []
    trained = run(
        loss=lambda model, *rest: (modes.add(model.training and model[2].training), reconstruction(model, *rest))[1],
        model=network().eval(),
        checkpoint=tmp_path / "run.pt",
        keep=lambda step, averaged: kept.append(any(part.training for part in averaged.modules())),
    )
    assert modes == {True}
    assert kept == [False] * CONFIG.steps
    assert not any(part.training for part in trained.ema.modules())


def test_a_kept_network_is_loaded_in_evaluation_mode():
    name = min(file.stem for file in pretrained.FOLDER.glob("*.safetensors"))
    assert not any(part.training for part in pretrained.load(name).network.modules())


class Compiled(nn.Module):
    """What torch.compile returns, as far as names of weights go."""

    def __init__(self, model):
        super().__init__()
        self._orig_mod = model

    def forward(self, *arguments):
        return self._orig_mod(*arguments)


def test_a_compiled_network_leaves_the_names_of_its_weights_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", Compiled)
    seen, kept, model = [], [], network()

    def loss(compiled, *rest):
        seen.append(type(compiled))
        return reconstruction(compiled, *rest)

    trained = run(
        replace(CONFIG, compile=True), loss, model, checkpoint=tmp_path / "run.pt", keep=lambda _, net: kept.append(net)
    )
    assert seen == [Compiled] * CONFIG.steps
    plain, state = network().state_dict().keys(), load_checkpoint(tmp_path / "run.pt")
    assert trained.model is model
    for found in (trained.model.state_dict(), trained.ema.state_dict(), state["model"], kept[-1].state_dict()):
        assert found.keys() == plain
    assert state["ema"].keys() == {"n_averaged", *(f"module.{name}" for name in plain)}
    resumed = run(replace(CONFIG, compile=True), model=network(), checkpoint=tmp_path / "run.pt", resume=True)
    assert torch.equal(resumed.model[0].weight, trained.model[0].weight)
    uncompiled = run()
    assert torch.equal(uncompiled.ema[0].weight, trained.ema[0].weight)


def flags():
    cudnn = torch.backends.cudnn
    return torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark, torch.get_num_threads()


@pytest.mark.parametrize("before", ["highest", "high"])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_arithmetic_is_set_for_a_training_and_put_back_also_after_an_error(before, precision):
    """The flags of NVIDIA GPUs can be set and read without one."""
    found, seen = flags(), []

    def failing():
        with matmul_precision(precision, torch.device("cuda", 0)):
            seen.append(flags()[:3])
            raise ZeroDivisionError

    torch.set_float32_matmul_precision(before)
    outside = flags()
    try:
        with pytest.raises(ZeroDivisionError):
            failing()
        assert seen == [("highest", False, False) if precision == "fp32" else ("high", True, True)]
        assert flags() == outside
        with fastest_convolutions():
            assert torch.backends.cudnn.benchmark
        assert flags() == outside
    finally:
        torch.set_float32_matmul_precision(found[0])


def test_a_training_that_fails_puts_back_all_that_it_set():
    def failing(model, batch, generator):
        torch.rand(3)
        raise ZeroDivisionError

    torch.manual_seed(5)
    before, state = flags(), torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        run(replace(CONFIG, precision="bf16"), failing)
    assert flags() == before
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.is_autocast_enabled("cpu")
    assert torch.is_grad_enabled()


def test_each_step_moves_the_weights_by_its_own_learning_rate():
    """Under a gradient that stays the same, Adam moves a weight by the learning rate; the loss says where it is."""
    config = replace(CONFIG, steps=8, warmup=3, decay="cosine", lr=0.1)
    weight = nn.Linear(1, 1, bias=False).double()
    losses = train(weight, lambda model, batch, generator: model.weight.sum(), DATA, config, progress=False).losses
    done = (torch.arange(3, 7, dtype=torch.float64) - 3) / 5
    expected = torch.cat([0.1 * torch.tensor([1, 2, 3]) / 3, 0.1 * (1 + torch.cos(torch.pi * done)) / 2])
    torch.testing.assert_close(-losses.double().diff(), expected, rtol=1e-5, atol=1e-6)
