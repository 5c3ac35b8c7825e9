"""Several processes do what one does, and what stops one of them stops all."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fmcore.checkpoints import load_checkpoint
from fmcore.training import train
from tests.distributed.launch import PATIENCE, as_under_torchrun, torchrun
from tests.distributed.tasks import CONFIG, DATA, INPUTS, TARGETS, network, pairs, velocity_loss

# With pytest -n 2 --dist loadgroup, one worker runs all of this file: the processes are started once.
pytestmark = pytest.mark.xdist_group(__name__)

SCENARIOS = Path(__file__).with_name("scenarios.py")


def run(processes, folder):
    """Start the processes once, two of them by torchrun, and return what each of them found."""
    start = torchrun if processes == 2 else as_under_torchrun
    with start(processes, SCENARIOS, folder) as started:
        for process in started if isinstance(started, list) else [started]:
            output, _ = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, output
    return [torch.load(folder / f"found_{rank}.pt", weights_only=True) for rank in range(processes)]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    return folder, run(2, folder)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    return folder, run(3, folder)


@pytest.fixture(params=["two", "three"])
def several(request):
    return request.getfixturevalue(request.param)


def alone(config=CONFIG):
    return train(network(), velocity_loss, DATA, config, progress=False, prepare=pairs)


def largest_difference(a, b):
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def test_the_gradient_is_that_of_the_mean_over_the_whole_batch(several):
    """7 rows in parts of 1 and 2, against the gradient on paper: 2/(7 * 2) sum_i (W x_i - y_i) x_i^T."""
    x, y = INPUTS.double(), TARGETS.double()
    expected = (x @ torch.full((3, 2), 0.1).double() - y).T @ x / 7
    moment = load_checkpoint(several[0] / "linear.pt")["optimizer"]["state"][0]["exp_avg"]
    torch.testing.assert_close(10 * moment.double(), expected, rtol=1e-5, atol=1e-6)


def test_weights_and_losses_are_those_of_one_process(several):
    """Adam, unequal parts, flips, noise and transport over the whole batch; each process began with other weights."""
    expected = alone()
    for found in several[1]:
        assert largest_difference(found["whole"], expected.model.state_dict()) < 1e-5
        torch.testing.assert_close(found["summary"][3], expected.losses, rtol=1e-5, atol=1e-6)
    state = load_checkpoint(several[0] / "whole.pt")
    ema = {name.removeprefix("module."): value for name, value in state["ema"].items() if name != "n_averaged"}
    assert largest_difference(ema, expected.ema.state_dict()) < 1e-5


def test_process_0_says_how_many_steps_fit_into_the_minutes(several):
    assert [found["minutes"] for found in several[1]] == [(9, 9)] * len(several[1])


def test_all_processes_hold_the_same_weights(several):
    first, *others = several[1]
    for other in others:
        assert largest_difference(first["whole"], other["whole"]) == 0


def test_blocks_are_coupled_alike_by_any_number_of_processes(several):
    expected = alone(replace(CONFIG, coupling_batch=5)).model.state_dict()
    assert largest_difference(several[1][0]["blocks"], expected) < 1e-5
    assert largest_difference(alone().model.state_dict(), expected) > 1e-3


def test_the_processes_share_the_images_of_one_process_in_its_order(several):
    steps = zip(*(found["rows"] for found in several[1]), strict=True)
    together = [[row for part in parts for row in part] for parts in steps]
    seen = []

    def loss(model, batch, generator):
        seen.append(batch.tolist())
        return (model.weight * batch[:, None]).square().mean()

    train(torch.nn.Linear(1, 1, bias=False), loss, torch.arange(30.0), CONFIG, progress=False)
    # the rehearsal of three processes, before the first step, has its images in each process
    assert together[-12:] == seen
    assert len(together) == 12 + (len(several[1]) > 2)
    assert {len(part) for found in several[1] for part in found["rows"]} == ({6, 7} if len(several[1]) == 2 else {4, 5})


def test_stopped_and_resumed_ends_bit_for_bit_as_uninterrupted(several):
    whole, resumed = (load_checkpoint(several[0] / f"{name}.pt") for name in ("whole", "resumed"))
    for part in ("model", "ema"):
        assert largest_difference(whole[part], resumed[part]) == 0
    assert torch.equal(whole["losses"], resumed["losses"])


def test_the_result_says_how_many_processes_trained(several):
    for found in several[1]:
        assert found["summary"][:3] == (len(several[1]), True, ())


def test_only_the_first_process_shows_progress(several):
    first, *others = (found["bar"] for found in several[1])
    assert "156/156" in first
    assert others == [""] * len(others)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("nan", "FloatingPointError", ["diverged at step 7: loss nan", "nan.pt holds the state before"]),
        ("full_disk", "OSError", ["cannot write", "No space left on device (the version before it is intact)"]),
        (
            "unlike",
            "ValueError",
            ["process 0 was started with a training of seed=", ", process 1 with a training of", "start all alike"],
        ),
        ("small", "ValueError", ["a batch of 1 cannot be cut into 2 micro-batches", "start fewer processes"]),
        ("again", "FileExistsError", ["whole.pt exists: resume from it"]),
        ("lock", "BlockingIOError", ["run is in use by process", "wait until that has ended"]),
    ],
)
def test_an_error_is_the_same_in_all_processes(two, name, kind, words):
    first, second = (found[name] for found in two[1])
    assert first == second
    assert first[0] == kind
    assert all(word in first[1] for word in words), first[1]


@pytest.mark.parametrize("name", ["nan", "full_disk", "error"])
def test_an_error_leaves_the_checkpoint_before_it(two, name):
    folder = two[0]
    assert len(load_checkpoint(folder / f"{name}.pt")["losses"]) == 5
    assert not list(folder.glob("*.partial"))


@pytest.mark.parametrize(("name", "message"), [("error", "this image is torn"), ("outside", "no images here")])
def test_an_error_in_one_process_is_told_by_the_other(two, name, message):
    first, second = (found[name] for found in two[1])
    assert second == ("ValueError", message)
    assert first == ("ProcessLost", f"process 1 of 2 stopped: ValueError: {message}")


def test_an_interrupt_of_one_process_stops_the_other(two):
    first, second = (found["interrupt"] for found in two[1])
    assert second[0] == "KeyboardInterrupt"
    assert first[0] == "ProcessLost"
    assert "process 1 of 2 stopped by" in first[1]


def test_process_0_holds_a_folder_for_all_and_lets_go_of_it(two):
    folder, found = two
    assert found[0]["held"] == found[1]["held"]
    words, pid = found[0]["held"]
    assert words == ["process", str(pid)]
    assert not (folder / ".run.lock").exists()


def test_a_process_group_that_was_there_is_used_and_kept(two):
    folder, found = two
    assert [each["kept"] for each in found] == [True, True]
    assert load_checkpoint(folder / "kept.pt")["processes"] == 2


def test_one_process_can_train_while_the_others_wait(two):
    assert [each["alone"] for each in two[1]] == [1, 1]
