"""A number of minutes in place of steps: the run is the one that was given the steps which fit into them."""

import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from fmcore.checkpoints import load_checkpoint
from fmcore.training import TrainingConfig, minutes, train
from fmcore.training.progress import Lines

CONFIG = TrainingConfig(batch=4, lr=1e-2, warmup=8, decay="cosine", ema=0.9, checkpoint_every=3, minutes=1.0)
DATA = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))


def network():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Linear(3, 3)


def denoising(model, batch, generator):
    return (model(batch + torch.randn(batch.shape, generator=generator)) - batch).square().mean()


def weights(trained):
    return torch.cat([weight.flatten() for weight in trained.ema.parameters()])


class Clock:
    """Seconds that pass only when a step is made: the first ones are slow, as when a network is compiled."""

    def __init__(self, first=10.0, later=0.5):
        self.first, self.later, self.seconds, self.steps = first, later, 0.0, 0

    def __call__(self):
        return self.seconds

    def loss(self, *arguments):
        self.seconds += self.first if self.steps < 3 else self.later
        self.steps += 1
        return denoising(*arguments)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    told = minutes.StepsForMinutes.__init__
    monkeypatch.setattr(
        minutes.StepsForMinutes,
        "__init__",
        lambda self, config, device, ahead: told(self, config, device, ahead, clock),
    )
    return clock


def test_slow_first_steps_do_not_count_as_the_speed_but_as_time(clock):
    trained = train(network(), clock.loss, DATA, CONFIG, progress=False)
    # three steps of 10 s and five of .5 s are the warm-up; what is left of 60 s, less a little, holds steps of .5 s
    assert trained.config.steps == 8 + int((1 - minutes.KEPT_BACK) * (60 - 32.5) / 0.5)
    assert len(trained.losses) == trained.config.steps == clock.steps
    assert 58 < clock.seconds <= 60
    assert trained.config == replace(CONFIG, steps=trained.config.steps)


def test_the_run_is_the_one_with_that_many_steps(clock, tmp_path):
    trained = train(network(), clock.loss, DATA, CONFIG, tmp_path / "a.pt", progress=False)
    given = replace(CONFIG, steps=trained.config.steps, minutes=None)
    expected = train(network(), denoising, DATA, given, tmp_path / "b.pt", progress=False)
    assert torch.equal(trained.losses, expected.losses)
    assert torch.equal(weights(trained), weights(expected))
    constant = train(network(), denoising, DATA, replace(given, decay="none"), progress=False)
    assert not torch.equal(weights(trained), weights(constant)), "the rate has not decayed"


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_time_that_is_up_during_the_warm_up_ends_the_run_there(ahead):
    config = replace(CONFIG, minutes=0)

    def prepare(batch, generator):
        return batch

    trained = train(network(), denoising, DATA, config, progress=False, prepare=prepare, ahead=ahead)
    assert len(trained.losses) == trained.config.steps == 8 + ahead + minutes.MARGIN


def test_there_is_no_checkpoint_before_the_number_is_known(clock, tmp_path):
    class Killed(Exception):
        pass

    def killed(*arguments):
        if clock.steps == 7:
            raise Killed
        return clock.loss(*arguments)

    with pytest.raises(Killed):
        train(network(), killed, DATA, CONFIG, tmp_path / "a.pt", progress=False)
    assert not (tmp_path / "a.pt").exists()
    train(network(), clock.loss, DATA, replace(CONFIG, minutes=0), tmp_path / "b.pt", progress=False)
    assert load_checkpoint(tmp_path / "b.pt")["config"]["steps"] == 8 + 1 + minutes.MARGIN


def test_a_killed_run_goes_on_to_the_number_that_was_set(clock, tmp_path):
    whole = train(network(), clock.loss, DATA, CONFIG, progress=False)
    clock.seconds, clock.steps = 0.0, 0

    class Killed(Exception):
        pass

    def killed(*arguments):
        if clock.steps == 20:
            raise Killed
        return clock.loss(*arguments)

    file = tmp_path / "a.pt"
    with pytest.raises(Killed):
        train(network(), killed, DATA, CONFIG, file, progress=False)
    assert load_checkpoint(file)["config"]["steps"] == whole.config.steps
    resumed = train(network(), denoising, DATA, CONFIG, file, resume=True, progress=False)
    assert resumed.config == whole.config
    assert torch.equal(weights(resumed), weights(whole))


def test_other_minutes_or_a_number_of_steps_are_another_run(tmp_path):
    file = tmp_path / "a.pt"
    train(network(), denoising, DATA, replace(CONFIG, minutes=0), file, progress=False)
    for other in (replace(CONFIG, minutes=2), replace(CONFIG, minutes=None, steps=500)):
        with pytest.raises(ValueError, match="minutes"):
            train(network(), denoising, DATA, other, file, resume=True, progress=False)


@pytest.mark.parametrize("fields", [{"minutes": -1}, {"minutes": 1, "warmup": 3}, {"minutes": float("nan")}])
def test_minutes_that_cannot_be_measured_are_refused(fields):
    with pytest.raises(ValueError, match="minutes"):
        replace(CONFIG, **fields)


class TestKeep:
    def test_it_is_called_before_each_checkpoint_with_the_averaged_network(self, tmp_path):
        kept, file = {}, tmp_path / "a.pt"

        def keep(step, averaged):
            there = len(load_checkpoint(file)["losses"]) if file.exists() else 0
            kept[step] = there, averaged.weight.clone()

        config = replace(CONFIG, steps=7, minutes=None)
        trained = train(network(), denoising, DATA, config, file, progress=False, keep=keep)
        assert {step: there for step, (there, _) in kept.items()} == {3: 0, 6: 3, 7: 6}
        assert torch.equal(kept[7][1], trained.ema.weight)
        assert not torch.equal(kept[6][1], trained.ema.weight)


class TestOneSize:
    def test_micro_batches_of_two_sizes_are_not_compiled(self):
        with pytest.raises(ValueError, match="make batch a multiple of 3"):
            train(network(), denoising, DATA, replace(CONFIG, compile=True, accumulate=3), progress=False)


class TestLines:
    def test_a_line_comes_every_ten_seconds_and_at_the_end(self, capsys, monkeypatch):
        now = [0.0]
        monkeypatch.setattr("fmcore.training.progress.time.monotonic", lambda: now[0])
        with Lines(1000, 100, show=True) as lines:
            for _ in range(30):
                now[0] += 1.0
                lines.set_postfix(loss="1.5")
                lines.update(20)
            lines.total = 800
            lines.update(10)
        first, *_, last = said = capsys.readouterr().err.splitlines()
        assert len(said) == 4
        assert first == "training: 300 of 1,000 images, 20 images/s, 35 s left, loss 1.5"
        assert last.startswith("training: 710 of 800 images")

    def test_it_can_be_silent(self, capsys):
        with Lines(10, 0, show=False) as lines:
            lines.update(10)
        assert capsys.readouterr().err == ""

    def test_it_stands_in_for_a_bar_where_there_is_none(self, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
        train(network(), denoising, DATA, replace(CONFIG, minutes=None, steps=9))
        assert capsys.readouterr().err.startswith("training: 36 of 36 images")
