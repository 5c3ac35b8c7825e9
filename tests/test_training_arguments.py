"""What `train` and its configuration are given: Python numbers in the end, or an error that says what to pass."""

from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fmcore.checkpoints import load_checkpoint, save_checkpoint
from fmcore.training import TrainingConfig, batch_rows, derived_seed, seeded_generator, train

CONFIG = TrainingConfig(steps=2, batch=4, checkpoint_every=1)
DATA = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))


def reconstruction(model, batch, generator):
    return (model(batch) - batch).square().mean()


def run(model=None, data=DATA, config=CONFIG, checkpoint=None, resume=False, loss=reconstruction):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = nn.Linear(3, 3) if model is None else model
    return train(model, loss, data, config, checkpoint, resume, progress=False)


def test_scalars_of_numpy_are_kept_as_pythons_and_a_run_with_them_resumes(tmp_path):
    config = TrainingConfig(
        steps=np.int64(2),
        batch=np.int32(4),
        lr=np.float64(1e-3),
        ema=np.float32(0.5),
        seed=np.int64(3),
        checkpoint_every=np.int64(1),
        channels_last=np.bool_(False),
        coupling_batch=np.int64(2),
    )
    assert {type(value) for value in asdict(config).values()} <= {int, float, bool, str, type(None)}
    assert (config.steps, config.batch, config.lr, config.ema, config.seed) == (2, 4, 1e-3, 0.5, 3)
    first = run(config=config, checkpoint=tmp_path / "run.pt")
    plain = TrainingConfig(steps=2, batch=4, lr=1e-3, ema=0.5, seed=3, checkpoint_every=1, coupling_batch=2)
    again = run(config=plain, checkpoint=tmp_path / "run.pt", resume=True)
    assert torch.equal(first.model.weight, again.model.weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 10.0}, "steps=10.0: .*whole number.*write steps=10"),
        ({"batch": 2.5}, "batch=2.5"),
        ({"batch": True}, "batch=True"),
        ({"seed": "0"}, "seed='0'"),
        ({"lr": "1e-3"}, "lr='1e-3'"),
        ({"compile": 1}, "compile=1"),
        ({"decay": "Linear"}, "unknown decay 'Linear': choose one of cosine, linear, none"),
        ({"precision": "fp16"}, "unknown precision 'fp16': choose one of auto, bf16, fp32, tf32"),
        ({"coupling_batch": 4.0}, "coupling_batch=4.0"),
        ({"minutes": float("inf")}, "minutes"),
        ({"ema": float("nan")}, "ema"),
    ],
)
def test_a_setting_of_another_kind_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**changes)


def stopped_after_one_step(path, config):
    """A checkpoint as one that was written when a field had its former name."""
    calls = []

    def loss(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return reconstruction(*arguments)

    with pytest.raises(KeyboardInterrupt):
        run(config=config, checkpoint=path, loss=loss)
    state = load_checkpoint(path)
    assert len(state["losses"]) == 1
    state["config"]["coupled"] = state["config"].pop("coupling_batch")
    save_checkpoint(state, path)


def test_a_checkpoint_with_the_former_name_of_a_field_resumes(tmp_path):
    path, config = tmp_path / "run.pt", replace(CONFIG, coupling_batch=2)
    assert "coupled" not in {field.name for field in fields(TrainingConfig)}
    stopped_after_one_step(path, config)
    with pytest.raises(ValueError, match=r"another configuration: coupling_batch \(was 2, now 3\); resume"):
        run(config=replace(config, coupling_batch=3), checkpoint=path, resume=True)
    resumed = run(config=config, checkpoint=path, resume=True)
    assert torch.equal(resumed.model.weight, run(config=config).model.weight)
    assert load_checkpoint(path)["config"] == asdict(config)


def compiled():
    return torch.compile(nn.Linear(3, 3), backend="eager")


class Wrapped(nn.parallel.DistributedDataParallel):
    """Without a process group."""

    def __init__(self, module):
        nn.Module.__init__(self)
        self.module = module


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        (lambda: compiled(), ValueError, r"model is compiled.*TrainingConfig\(compile=True\)"),
        (lambda: nn.Sequential(nn.Linear(3, 3), compiled()), ValueError, "model is compiled, or a part of it"),
        (lambda: Wrapped(nn.Linear(3, 3)), ValueError, "wrapped in DistributedDataParallel: pass .* model.module"),
        (lambda: nn.DataParallel(nn.Linear(3, 3)), ValueError, "wrapped in DataParallel: pass .* model.module"),
        (lambda: nn.Tanh(), ValueError, "no weights to train"),
        (lambda: nn.Linear(3, 3).requires_grad_(False), ValueError, r"no weights to train.*model.requires_grad_\(\)"),
        (lambda: lambda x: x, TypeError, "model is of type function: only a torch.nn.Module"),
    ],
)
def test_a_network_that_cannot_be_trained_as_it_is(model, kind, message):
    with pytest.raises(kind, match=message):
        run(model())


def test_a_network_that_was_compiled_in_place_keeps_its_names_and_is_trained():
    model = nn.Linear(3, 3)
    with torch.no_grad():
        model.weight.copy_(torch.eye(3))
        model.bias.zero_()
    model.compile(backend="eager")
    trained = run(model)
    assert trained.model is model
    assert trained.ema.state_dict().keys() == {"weight", "bias"}


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (DATA.numpy(), TypeError, r"data is a numpy array of float32: pass torch.from_numpy\(data\)"),
        (list(DATA), TypeError, r"data is a list.*torch.stack\(data\)"),
        ((DATA, DATA), TypeError, "data is a tuple.*torch.utils.data.TensorDataset"),
        ({"x": DATA}, TypeError, "data is a dict"),
        (DataLoader(TensorDataset(DATA)), TypeError, "data is of type DataLoader.*a DataLoader is not needed"),
        (iter(DATA), TypeError, "a batch is data.rows., for a tensor of row numbers"),
        (torch.tensor(1.0), ValueError, r"data has shape \(\): give it an axis of rows"),
        (DATA[:0], ValueError, "data is empty"),
        (TensorDataset(DATA[:0]), ValueError, "data is empty"),
    ],
)
def test_data_without_rows_to_take(data, kind, message):
    with pytest.raises(kind, match=message):
        run(data=data)


def test_a_batch_that_is_larger_than_the_data_has_each_row_as_often_as_any_other():
    seen = []
    train(
        nn.Linear(1, 1),
        lambda model, batch, _: (seen.append(batch.flatten().tolist()), model(batch).square().mean())[1],
        torch.arange(4.0)[:, None],
        replace(CONFIG, batch=8),
        progress=False,
    )
    assert [sorted(batch) for batch in seen] == [[0, 0, 1, 1, 2, 2, 3, 3]] * CONFIG.steps


def test_a_generator_has_the_seed_of_its_purpose():
    """The first bytes of the SHA-256 of "3 noise", by sha256sum."""
    assert derived_seed(3, "noise") == 0x71F53BAE
    expected = torch.rand(4, generator=torch.Generator().manual_seed(0x71F53BAE))
    assert torch.equal(torch.rand(4, generator=seeded_generator(3, "noise")), expected)
    drawn = [seeded_generator(seed, what).initial_seed() for seed in (3, 4) for what in ("noise", "dropout")]
    assert len({*drawn}) == 4
    assert seeded_generator(3, "noise", torch.device("cpu")).device.type == "cpu"
    order = torch.randperm(10, generator=seeded_generator(7, "epoch 0"))
    assert torch.equal(batch_rows(10, 0, 10, 7), order)


def test_a_precision_must_be_named_here():
    with pytest.raises(ValueError, match="precision=auto is settled where an experiment is run: name it here"):
        run(config=replace(CONFIG, precision="auto"))
