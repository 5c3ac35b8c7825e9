"""The training loop: it learns, repeats, resumes, and stops when it should."""

import itertools
import math
import pickle
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import TensorDataset

from fmcore.checkpoints import load_checkpoint, save_checkpoint
from fmcore.training import (
    TrainingConfig,
    batch_rows,
    ema_decay,
    history,
    learning_rate,
    microbatches,
    random_flips,
    train,
)

CONFIG = TrainingConfig(steps=20, batch=8, lr=1e-2, warmup=3, ema=0.9, checkpoint_every=5)
DATA = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))


def network(seed=0):
    """A network with dropout, so that two sources of randomness are at work."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.3), nn.Linear(16, 4))


def denoising(model, batch, generator):
    noise = torch.randn(batch.shape, generator=generator)
    return (model(batch + noise) - batch).square().mean()


def run(config=CONFIG, loss=denoising, **settings):
    return train(network(), loss, DATA, config, progress=False, **settings)


def assert_same_weights(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_it_finds_the_weights_that_made_the_data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 3, generator=generator)
    weight, bias = torch.randn(2, 3, generator=generator), torch.tensor([0.5, -1.0])
    rows = TensorDataset(x, x @ weight.T + bias)
    config = TrainingConfig(steps=400, batch=50, lr=0.05, warmup=10, decay="cosine", ema=0.9, clip=100)
    trained = train(
        nn.Linear(3, 2), lambda model, pair, _: (model(pair[0]) - pair[1]).square().mean(), rows, config, progress=False
    )
    torch.testing.assert_close(trained.ema.weight, weight, atol=1e-3, rtol=0)
    torch.testing.assert_close(trained.ema.bias, bias, atol=1e-3, rtol=0)
    assert trained.losses[-1] < 1e-5 < trained.losses[0]


def test_a_seed_fixes_the_weights_and_another_changes_them():
    first, again, other = run(), run(), run(replace(CONFIG, seed=1))
    assert_same_weights(first.model.state_dict(), again.model.state_dict())
    assert torch.equal(first.losses, again.losses)
    assert not torch.equal(first.losses, other.losses)


def test_the_global_generator_is_left_as_it_was():
    before = torch.get_rng_state()
    run()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("stop", [1, 5, 7, 19])
def test_a_stopped_run_resumes_to_the_same_weights(tmp_path, stop):
    whole = run(checkpoint=tmp_path / "whole.pt")
    calls = 0

    def interrupted(model, batch, generator):
        nonlocal calls
        calls += 1
        if calls > stop:
            raise KeyboardInterrupt
        return denoising(model, batch, generator)

    with pytest.raises(KeyboardInterrupt):
        run(loss=interrupted, checkpoint=tmp_path / "part.pt")
    assert (tmp_path / "part.pt").exists() == (stop >= CONFIG.checkpoint_every)
    resumed = run(checkpoint=tmp_path / "part.pt", resume=True)
    assert_same_weights(whole.model.state_dict(), resumed.model.state_dict())
    assert_same_weights(whole.ema.state_dict(), resumed.ema.state_dict())
    assert torch.equal(whole.losses, resumed.losses)
    one, two = (load_checkpoint(tmp_path / name)["optimizer"]["state"] for name in ("whole.pt", "part.pt"))
    for key in one:
        assert_same_weights(one[key], two[key])


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    first = run(checkpoint=tmp_path / "run.pt")
    content = (tmp_path / "run.pt").read_bytes()
    again = run(checkpoint=tmp_path / "run.pt", resume=True)
    assert_same_weights(first.ema.state_dict(), again.ema.state_dict())
    assert (tmp_path / "run.pt").read_bytes() == content


def test_a_run_may_also_end_earlier_though_not_before_what_it_has_made(tmp_path):
    constant = replace(CONFIG, decay="none")
    calls = 0

    def interrupted(model, batch, generator):
        nonlocal calls
        calls += 1
        if calls > 12:
            raise KeyboardInterrupt
        return denoising(model, batch, generator)

    with pytest.raises(KeyboardInterrupt):
        run(constant, loss=interrupted, checkpoint=tmp_path / "run.pt")
    with pytest.raises(ValueError, match=f"steps \\(was {CONFIG.steps}, now 9\\)"):
        run(replace(constant, steps=9), checkpoint=tmp_path / "run.pt", resume=True)
    ended = run(replace(constant, steps=10), checkpoint=tmp_path / "run.pt", resume=True)
    assert_same_weights(ended.model.state_dict(), run(replace(constant, steps=10)).model.state_dict())


def test_a_finished_run_may_last_longer_where_the_rate_stays(tmp_path):
    constant = replace(CONFIG, decay="none")
    whole = run(constant)
    run(replace(constant, steps=6), checkpoint=tmp_path / "run.pt")
    longer = run(constant, checkpoint=tmp_path / "run.pt", resume=True)
    assert_same_weights(whole.model.state_dict(), longer.model.state_dict())
    assert_same_weights(whole.ema.state_dict(), longer.ema.state_dict())
    assert torch.equal(whole.losses, longer.losses)
    assert longer.notes == (f"{CONFIG.steps} steps in place of 6",)
    with pytest.raises(ValueError, match=f"steps \\(was {CONFIG.steps}, now 6\\)"):
        run(replace(constant, steps=6), checkpoint=tmp_path / "run.pt", resume=True)


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_nor_may_one_whose_rate_would_have_been_another(tmp_path, decay):
    config = replace(CONFIG, decay=decay, steps=6)
    run(config, checkpoint=tmp_path / "run.pt")
    with pytest.raises(ValueError, match="steps \\(was 6, now 9\\)"):
        run(replace(config, steps=9), checkpoint=tmp_path / "run.pt", resume=True)


def test_an_old_checkpoint_is_neither_overwritten_nor_resumed_by_accident(tmp_path):
    run(checkpoint=tmp_path / "run.pt")
    with pytest.raises(FileExistsError, match="resume from it, delete it, or name another file"):
        run(checkpoint=tmp_path / "run.pt")


def test_another_configuration_is_refused_by_field(tmp_path):
    run(checkpoint=tmp_path / "run.pt")
    with pytest.raises(ValueError, match="lr \\(was 0.01, now 0.02\\), seed \\(was 0, now 3\\); resume with the same"):
        run(replace(CONFIG, lr=0.02, seed=3), checkpoint=tmp_path / "run.pt", resume=True)


def test_another_network_is_refused(tmp_path):
    run(checkpoint=tmp_path / "run.pt")
    with pytest.raises(ValueError, match="run.pt belongs to another network"):
        train(nn.Linear(4, 4), denoising, DATA, CONFIG, tmp_path / "run.pt", resume=True, progress=False)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path, bad):
    calls = 0

    def failing(model, batch, generator):
        nonlocal calls
        calls += 1
        return denoising(model, batch, generator) * (bad if calls == 13 else 1)

    with pytest.raises(FloatingPointError, match=r"diverged at step 12: loss .* holds the state before.*lower lr"):
        run(loss=failing, checkpoint=tmp_path / "run.pt")
    state = load_checkpoint(tmp_path / "run.pt")
    assert len(state["losses"]) == 10
    assert all(torch.isfinite(value).all() for value in state["model"].values())


def test_a_gradient_that_is_not_finite_stops_the_run():
    def failing(model, batch, generator):
        return torch.sqrt(model(batch).square().sum() * 0)  # finite, with an infinite slope

    with pytest.raises(FloatingPointError, match="gradient norm nan"):
        run(loss=failing)


@pytest.mark.parametrize(("bad_step", "kept"), [(12, 10), (9, 5)])
def test_losses_that_are_read_late_never_reach_a_checkpoint(tmp_path, monkeypatch, bad_step, kept):
    """As on a GPU. Step 9 is the last one before a checkpoint."""
    calls = 0

    def failing(model, batch, generator):
        nonlocal calls
        calls += 1
        return denoising(model, batch, generator) * (math.nan if calls == bad_step + 1 else 1)

    monkeypatch.setattr(history, "steps_between_reads", lambda device: 4)
    late = run(checkpoint=tmp_path / "late.pt")
    with pytest.raises(FloatingPointError, match=f"diverged at step {bad_step}: loss nan"):
        run(loss=failing, checkpoint=tmp_path / "run.pt")
    monkeypatch.undo()
    assert torch.equal(late.losses, run().losses)
    assert len(load_checkpoint(tmp_path / "run.pt")["losses"]) == kept


def test_one_wild_batch_is_clipped(tmp_path):
    def wild(model, batch, generator):
        return 1e6 * denoising(model, batch, generator)

    run(replace(CONFIG, steps=1, clip=0.5), loss=wild, checkpoint=tmp_path / "run.pt")
    moments = load_checkpoint(tmp_path / "run.pt")["optimizer"]["state"]
    norm = torch.cat([state["exp_avg"].flatten() for state in moments.values()]).norm()
    assert norm == pytest.approx(0.5 * (1 - 0.9), rel=1e-3)  # Adam's first moment after one gradient of norm 0.5


@settings(deadline=None, max_examples=40, derandomize=True)
@given(rows=st.integers(1, 40), batch=st.integers(1, 60), seed=st.integers(0, 1000), epochs=st.integers(1, 4))
def test_every_row_is_seen_once_an_epoch(rows, batch, seed, epochs):
    steps = math.ceil(epochs * rows / batch)
    seen = torch.cat([batch_rows(rows, step, batch, seed) for step in range(steps)])
    for epoch in range(epochs):
        assert sorted(seen[epoch * rows : (epoch + 1) * rows].tolist()) == list(range(rows))


def test_epochs_and_seeds_have_their_own_order():
    orders = {tuple(batch_rows(50, step, 50, seed).tolist()) for step in range(3) for seed in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize("decay", ["none", "linear", "cosine"])
def test_the_learning_rate_rises_to_its_peak_and_then_decays(decay):
    config = TrainingConfig(steps=100, lr=0.2, warmup=20, decay=decay)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[:20] == pytest.approx([0.01 * (step + 1) for step in range(20)])
    assert rates[20] == pytest.approx(0.2)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[20:]))
    middle, last = {"none": (0.2, 0.2), "linear": (0.1, 0.2 / 80), "cosine": (0.1, 0.0)}[decay]
    assert rates[60] == pytest.approx(middle)
    assert rates[99] == pytest.approx(last, abs=1e-4)


@pytest.mark.parametrize("decay", ["none", "linear"])
def test_the_schedule_of_the_paper_is_met_but_for_rounding(decay):
    """From 1e-8 to the peak in a straight line, then down to 1e-8 or not at all (Lipman et al. 2023, appendix E)."""
    config = TrainingConfig(steps=2000, lr=5e-4, warmup=500, decay=decay)
    for step in range(2000):
        up, down = 1e-8 + (5e-4 - 1e-8) * step / 500, 5e-4 + (1e-8 - 5e-4) * (step - 500) / 1500
        paper = up if step < 500 else down if decay == "linear" else 5e-4
        assert learning_rate(config, step) == pytest.approx(paper, abs=1.1e-8 + 5e-4 / 500)


def test_no_averaging_means_the_last_weights():
    trained = run(replace(CONFIG, ema=0.0))
    assert_same_weights(trained.model.state_dict(), trained.ema.state_dict())


def test_a_short_run_is_not_stuck_at_its_first_weights():
    first = network().state_dict()
    trained = run(replace(CONFIG, steps=60, ema=0.9999))
    moved, averaged = (
        sum(float((model.state_dict()[name] - first[name]).square().sum()) for name in first) ** 0.5
        for model in (trained.model, trained.ema)
    )
    assert averaged > 0.6 * moved
    decays = [ema_decay(0.9999, updates) for updates in (1, 10, 100, 10**6)]
    assert decays == sorted(decays)
    assert decays[-1] == 0.9999


def test_the_average_is_for_evaluation_and_dropout_is_off_in_it():
    trained = run()
    assert torch.equal(trained.ema(DATA), trained.ema(DATA))


def test_bfloat16_trains_about_as_well():
    plain, short = run(), run(replace(CONFIG, precision="bf16"))
    assert not torch.equal(plain.losses, short.losses)
    assert float(short.losses.mean()) == pytest.approx(float(plain.losses.mean()), rel=0.02)


def noisy(batch, generator):
    return batch, torch.randn(batch.shape, generator=generator)


def denoising_pairs(model, pair, generator):
    x, noise = pair
    return (model(x + noise) - x).square().mean()


def still():
    """A network without dropout, in float64: equal but for rounding is equal to many digits."""
    return network().eval()[0:2].append(nn.Linear(16, 4)).double()


def run_still(config=CONFIG, **settings):
    torch.manual_seed(0)
    return train(still(), denoising_pairs, DATA.double(), config, progress=False, prepare=noisy, **settings)


@pytest.mark.parametrize("accumulate", [2, 3, 8])
def test_micro_batches_add_up_to_the_whole_batch(accumulate):
    """8 images in parts of 2 or 3 (accumulate = 3), and one by one."""
    whole, parts = run_still(), run_still(replace(CONFIG, accumulate=accumulate))
    torch.testing.assert_close(parts.losses, whole.losses, rtol=1e-5, atol=0)
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(parts.model.state_dict()[name], value, rtol=1e-6, atol=1e-9)


def test_micro_batches_are_as_small_as_promised():
    sizes = []

    def loss(model, pair, generator):
        sizes.append(len(pair[0]))
        return denoising_pairs(model, pair, generator)

    train(network(), loss, DATA, replace(CONFIG, accumulate=3, steps=1), progress=False, prepare=noisy)
    assert sizes == [2, 3, 3]


@given(batch=st.integers(1, 60), accumulate=st.integers(1, 10), processes=st.integers(1, 6))
def test_processes_share_a_batch_without_gap_or_overlap(batch, accumulate, processes):
    count = math.ceil(accumulate / processes) * processes
    if batch < count:
        with pytest.raises(ValueError, match=f"a batch of {batch} cannot be cut into {count} micro-batches"):
            microbatches(batch, accumulate, 0, processes)
        return
    parts = [part for rank in range(processes) for part in microbatches(batch, accumulate, rank, processes)]
    assert [position for part in parts for position in part] == list(range(batch))
    assert len(parts) == count
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_preparing_in_a_thread_changes_nothing_and_leaves_no_thread(ahead):
    threads = []

    def prepare(batch, generator):
        threads.append(threading.current_thread())
        return noisy(batch, generator)

    trained = train(network(), denoising_pairs, DATA, CONFIG, progress=False, prepare=prepare, ahead=ahead)
    plain = train(network(), denoising_pairs, DATA, CONFIG, progress=False, prepare=noisy, ahead=0)
    assert_same_weights(trained.model.state_dict(), plain.model.state_dict())
    assert len(threads) == CONFIG.steps
    assert {thread is threading.main_thread() for thread in threads} == {ahead == 0}
    assert not any(thread.is_alive() for thread in threads if thread is not threading.main_thread())


@pytest.mark.parametrize("where", ["prepare", "loss"])
def test_an_interrupt_ends_the_thread(where):
    threads, calls = [], []

    def prepare(batch, generator):
        threads.append(threading.current_thread())
        if where == "prepare" and len(threads) == 5:
            raise KeyboardInterrupt
        return noisy(batch, generator)

    def loss(model, pair, generator):
        calls.append(len(pair))
        if where == "loss" and len(calls) == 5:
            raise KeyboardInterrupt
        return denoising_pairs(model, pair, generator)

    with pytest.raises(KeyboardInterrupt):
        train(network(), loss, DATA, CONFIG, progress=False, prepare=prepare)
    assert len({*threads}) == 1
    assert not threads[0].is_alive()


def test_prepare_sees_the_coupled_images_and_has_no_gradient():
    seen = []

    def prepare(batch, generator):
        seen.append((len(batch), torch.is_grad_enabled(), float(torch.rand((), generator=generator))))
        return noisy(batch, generator)

    train(network(), denoising_pairs, DATA, replace(CONFIG, coupling_batch=3), progress=False, prepare=prepare)
    assert [size for size, _, _ in seen] == [3, 3, 2] * CONFIG.steps
    assert not any(gradient for _, gradient, _ in seen)
    assert len({drawn for _, _, drawn in seen}) == len(seen)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (
            lambda batch, generator: (batch, batch[1:]),
            r"prepare returned shape \(7, 4\) for a batch of 8: keep one row",
        ),
        (lambda batch, generator: batch.mean(), r"prepare returned shape \(\) for a batch of 8"),
        (lambda batch, generator: {"x": batch}, "prepare returned dict: return a tensor, or a tuple of tensors"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(prepare, message):
    with pytest.raises(ValueError, match=message):
        run(prepare=prepare)


def test_flips_mirror_half_of_the_images_left_to_right():
    images = torch.arange(400 * 2 * 3 * 5, dtype=torch.uint8).reshape(400, 2, 3, 5)
    flipped = random_flips(images, torch.Generator().manual_seed(0))
    mirrored = images.numpy()[..., ::-1]
    kinds = []
    for image, before, mirror in zip(flipped.numpy(), images.numpy(), mirrored, strict=True):
        kinds.append((image == mirror).all())
        assert kinds[-1] != (image == before).all()
    assert 160 < sum(kinds) < 240  # four standard deviations


def convolutional():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 3, 3, padding=1))


@pytest.mark.parametrize(
    "changes",
    [{"channels_last": True}, {"precision": "tf32"}, {"compile": True}],
    ids=lambda changes: next(iter(changes)),
)
def test_ways_to_be_fast_train_alike(monkeypatch, changes):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # seconds instead of a minute
    images, layouts = torch.randn(30, 3, 6, 6, generator=torch.Generator().manual_seed(0)), []

    def loss(model, x, generator):
        layouts.append(x.is_contiguous(memory_format=torch.channels_last))
        return denoising(model, x, generator)

    plain, fast = (
        train(convolutional(), loss, images, replace(CONFIG, **settings), progress=False) for settings in ({}, changes)
    )
    torch.testing.assert_close(fast.losses, plain.losses, rtol=1e-4, atol=0)
    assert layouts == [False] * CONFIG.steps + [changes.get("channels_last", False)] * CONFIG.steps
    assert fast.ema.state_dict().keys() == plain.ema.state_dict().keys()


def test_the_result_says_how_fast_it_was():
    trained = run()
    assert trained.images_per_second * trained.seconds == pytest.approx(CONFIG.steps * CONFIG.batch)
    assert (trained.processes, trained.notes) == (1, ())


def test_another_number_of_processes_is_noted_and_warned_of(tmp_path):
    run(replace(CONFIG, steps=5), checkpoint=tmp_path / "run.pt")
    state = load_checkpoint(tmp_path / "run.pt")
    save_checkpoint({**state, "processes": 8}, tmp_path / "run.pt")
    with pytest.warns(UserWarning, match="resumed at step 5 with 1 process instead of 8"):
        trained = run(replace(CONFIG, steps=5), checkpoint=tmp_path / "run.pt", resume=True)
    assert len(trained.notes) == 1


def test_the_bar_shows_loss_speed_and_time_left(capsys):
    train(network(), denoising, DATA, CONFIG, progress=True)
    shown = capsys.readouterr().err.replace("\r", "\n").splitlines()[-1]
    assert "images/s" in shown
    assert "loss=" in shown
    assert "160/160" in shown


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"batch": -1}, "batch must be at least 1"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"clip": math.nan}, "clip=nan: the number must be finite"),
        ({"ema": 1.0}, "ema is a decay in \\[0, 1\\)"),
        ({"warmup": -1}, "must not be negative"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"coupling_batch": 0}, "coupling_batch must be at least 1 image"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**changes)


def test_empty_data_is_refused():
    with pytest.raises(ValueError, match="data is empty"):
        train(network(), denoising, DATA[:0], CONFIG, progress=False)


class Hostile:
    """Unpickling it would create a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def test_a_hostile_checkpoint_is_not_executed(tmp_path):
    for name, write in (
        ("torch.pt", lambda path: torch.save({"model": Hostile(tmp_path / "harm")}, path)),
        ("pickle.pt", lambda path: path.write_bytes(pickle.dumps(Hostile(tmp_path / "harm")))),
    ):
        write(tmp_path / name)
        with pytest.raises(ValueError, match="damaged or is not a checkpoint"):
            run(checkpoint=tmp_path / name, resume=True)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("keep", [0, 1, 100, 3000, -1])
def test_a_truncated_checkpoint_is_refused_by_name(tmp_path, keep):
    path = tmp_path / "run.pt"
    run(checkpoint=path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="run.pt is damaged"):
        run(checkpoint=path, resume=True)


def test_an_altered_checkpoint_is_refused_by_name(tmp_path):
    path = tmp_path / "run.pt"
    run(checkpoint=path)
    content = bytearray(path.read_bytes())
    weights = torch.load(path, weights_only=True)["model"]["0.weight"].numpy().tobytes()
    content[content.find(weights) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="run.pt is damaged"):
        run(checkpoint=path, resume=True)


def test_a_checkpoint_of_an_older_version_is_refused_as_such(tmp_path):
    run(checkpoint=tmp_path / "run.pt")
    state = load_checkpoint(tmp_path / "run.pt")
    for name in ("format", "processes", "notes"):
        del state[name]
    torch.save({**state, "cpu_rng": torch.get_rng_state()}, tmp_path / "run.pt")
    with pytest.raises(ValueError, match=r"run.pt was made by another version .*format 1, this one reads 2"):
        run(checkpoint=tmp_path / "run.pt", resume=True)


def test_a_file_of_other_content_is_refused(tmp_path):
    save_checkpoint({"model": {}, "steps": 3}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="it lacks config, ema, losses"):
        run(checkpoint=tmp_path / "other.pt", resume=True)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"list.pt is not a checkpoint|list.pt is damaged or is not a checkpoint"):
        run(checkpoint=tmp_path / "list.pt", resume=True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have other allocators")
def test_memory_that_was_freed_is_used_again():
    """Twenty steps of a small network, after twenty that brought what they need."""
    code = """
        import resource, torch
        from fmcore.training.device import keep_freed_memory

        def new_pages():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(20):
                network(torch.ones(64, 8, 32, 32, requires_grad=True)).square().mean().backward()
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        torch.set_num_threads(1)
        assert keep_freed_memory(torch.device("cpu"))
        assert not keep_freed_memory(torch.device("meta"))
        network = torch.nn.Sequential(*[torch.nn.Conv2d(8, 8, 3, padding=1) for _ in range(6)])
        new_pages()
        print(new_pages())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2000  # without it 10,000 to 100,000
