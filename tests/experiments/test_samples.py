"""Samples shared between processes: the same images and numbers for any number of them."""

import json
import os
import socket

import pytest
import torch

from fmcore.experiments.config.overrides import with_overrides
from fmcore.experiments.run import samples
from fmcore.experiments.run.finished import Run
from fmcore.experiments.run.train import train_run
from fmcore.papers import catalog
from tests.forked import python

pytestmark = pytest.mark.xdist_group(__name__)

SETTINGS = [
    "channels=8",
    "multipliers=1",
    "attention=",
    "steps=2",
    "batch=8",
    "set_images=10",
    "solver_batch=4",
    "likelihood_images=6",
]
SETTINGS += ["rtol=0.1", "atol=0.1", "draws=2", "probe_repeats=2", "classifier_steps=20", "generated_sets=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "digits"
    train_run(with_overrides(catalog.by_name("digits"), SETTINGS), place, progress=False)
    return place


@pytest.mark.parametrize(("count", "size"), [(1, 1), (10, 4), (12, 4), (3, 10)])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_chunks_cover_all_images_once(count, size, processes):
    found = [piece for rank in range(processes) for piece in samples.chunks(count, size, rank, processes)]
    covered = sorted(index for _, place in found for index in range(count)[place])
    assert covered == list(range(count))
    assert sorted(number for number, _ in found) == list(range(len(found)))
    assert all(place.start == number * size and place.stop - place.start <= size for number, place in found)


@pytest.mark.parametrize("processes", [2, 3])
def test_the_shares_of_processes_are_the_samples_of_one(folder, processes):
    run = Run(folder)
    whole = samples.share(run, 10, "samples")
    parts = [samples.share(run, 10, "samples", rank, processes) for rank in range(processes)]
    assert torch.equal(sum(part.images for part in parts), whole.images)
    assert torch.equal(sum(part.nfe for part in parts), whole.nfe)
    assert (whole.nfe >= 8).all()
    assert not torch.equal(whole.images[:4], whole.images[4:8])  # every chunk has noise of its own
    other = samples.share(run, 10, "curve")
    assert not torch.equal(other.images, whole.images)


def test_nfe_is_averaged_over_images_not_over_chunks(folder):
    run = Run(folder)
    counts = iter([10, 40])

    def sample(n, generator, source=None, variant=None, labels=None):
        return type("Solution", (), {"x": torch.zeros(n, *run.data.shape), "nfe": next(counts)})

    run.sample = sample
    found = samples.samples(run, 5)  # chunks of 4 and 1 images
    assert float(found.nfe.mean()) == pytest.approx((4 * 10 + 1 * 40) / 5)


def test_two_processes_leave_the_record_of_one(folder, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "FMCORE_DATA": str(tmp_path), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment |= {"WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}

    def measured(processes):
        places = [{"RANK": str(rank)} for rank in range(processes)] if processes > 1 else [{"WORLD_SIZE": "1"}]
        command = ["-m", "fmcore", "evaluate", folder]
        started = [python(command, environment | place, separate_errors=True) for place in places]
        outputs = [process.communicate(timeout=120) for process in started]
        assert [process.returncode for process in started] == [0] * processes, outputs
        return outputs, json.loads((folder / "record.json").read_text())

    outputs, two = measured(2)
    assert "what was measured" in outputs[0][0]
    assert outputs[1][0] == ""  # process 0 speaks for both
    _, one = measured(1)
    assert (two["evaluation"]["processes"], one["evaluation"]["processes"]) == (2, 1)
    assert two["values"] == one["values"]
    assert two["evaluation"]["nfe"] == one["evaluation"]["nfe"]
