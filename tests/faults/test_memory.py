"""Memory: how much there is, that batches fit into it, and what is said when it runs out."""

import os
import sys

import numpy as np
import pytest
import torch
from torch import nn

from fmcore import memory
from fmcore.data import to_uint8
from fmcore.experiments import drawing
from fmcore.experiments.evaluate import bits_per_dim
from fmcore.experiments.run import in_batches, samples
from fmcore.metrics import features
from fmcore.solvers import solve
from tests.experiments.made_run import MadeRun
from tests.forked import python

LIMITED = """
import resource, sys, torch
import numpy as np
from fmcore import memory
torch.ones(2) @ torch.ones(2)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000,) * 2)
print(memory.available())
for ask in (lambda: torch.zeros(10**9), lambda: np.zeros(10**9), lambda: bytearray(10**10)):
    try:
        ask()
    except BaseException as error:
        print(memory.explained(error, ["evaluate", "runs/a", "solver_batch=1000"]))
"""


@pytest.mark.xdist_group(__name__)
@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the address space")
def test_a_process_under_a_limit_sees_it_and_says_what_to_do():
    with python(["-c", LIMITED], os.environ, separate_errors=True) as process:
        printed, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    seen, *said = printed.splitlines()
    assert 100_000_000 < int(seen) <= 300_000_000
    assert len(said) == 3
    for line in said:
        assert line.startswith("memory ran out")
        assert line.endswith("take less at once, for example solver_batch=500")
    assert "4000000000 bytes more were asked for" in said[0]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        np._core._exceptions._ArrayMemoryError((10,), np.dtype("f8")),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried to ..."
        ),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 40000 bytes."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("std::bad_alloc"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_errors_of_memory_are_recognized(error):
    assert memory.explained(error, ["train", "digits"]).endswith("for example batch=32")
    outer = RuntimeError("the worker failed")
    outer.__cause__ = error
    assert memory.explained(outer, ["train", "digits", "batch=4096"]).endswith("for example batch=2048")
    assert memory.explained(error, ["sample", "a", "--n", "100"]).endswith("for example --n 50")
    assert "batch=32 for train" in memory.explained(error)


@pytest.mark.parametrize(
    "error",
    [ValueError("out of memory"), RuntimeError("shapes"), OSError(28, "No space left on device"), KeyError("a")],
)
def test_other_errors_are_not(error):
    assert memory.explained(error) is None


def test_limits_of_containers_are_seen(tmp_path):
    """Two groups, one in the other: what the tighter one leaves, where files in memory count as free."""
    groups = tmp_path / "cgroup"
    groups.write_text("0::/outer/inner\n")
    for place, limit, used in (("outer", "5000", "4500"), ("outer/inner", "max", "100")):
        folder = tmp_path / "v2" / place
        folder.mkdir(parents=True)
        for name, text in (
            ("memory.max", limit),
            ("memory.current", used),
            ("memory.stat", "anon 1\ninactive_file 30\n"),
        ):
            (folder / name).write_text(text)
    assert memory._of_containers(tmp_path / "v2", groups) == [530]
    groups.write_text("4:cpu,memory:/job\n3:freezer:/\n")
    folder = tmp_path / "v1" / "memory" / "job"
    folder.mkdir(parents=True)
    for name, text in (("limit_in_bytes", "900"), ("usage_in_bytes", "200"), ("stat", "total_inactive_file 50\n")):
        (folder / f"memory.{name}").write_text(text)
    assert memory._of_containers(tmp_path / "v1", groups) == [750]
    assert memory._of_containers(tmp_path, tmp_path / "none") == []


def test_what_a_computation_holds_is_counted():
    """Three layers of 4 n, 8 n and 4 n bytes: at most two of them, and the input, are there at a time."""
    n = 1000

    def compute():
        x = torch.zeros(n)  # 4 n
        y = x.double()  # 8 n more
        del x
        return y.float()  # 4 n more, with 4 n freed

    assert memory.peak(compute) == 12 * n
    assert memory.peak(lambda: torch.zeros(n).view(10, 100).T) == 4 * n  # views hold nothing
    weights = torch.ones(n)
    assert memory.peak(lambda: weights.add_(1)) == 0


def test_as_many_fit_as_there_is_room_for(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda device: 1_000_000)
    network = nn.Linear(10, 100)  # 400 bytes a sample, and 40 of its input
    with torch.no_grad():
        found = memory.most_at_once(lambda count: network(torch.zeros(count, 10)), 10_000)
    assert found == int(memory.SHARE * 1_000_000) // 440
    assert memory.most_at_once(lambda count: torch.zeros(count), 50) == 50
    assert memory.most_at_once(lambda count: torch.zeros(count, 10**6), 50) == 1


@pytest.fixture
def short(monkeypatch):
    """Memory for 300 to 400 digits at a time, as samples are solved."""
    monkeypatch.setattr(memory, "available", lambda device: 12_000_000)


def test_samples_are_those_of_one_solve_in_batches_that_fit(tmp_path, short):
    run, sizes = MadeRun(tmp_path, "method=heun", "solver_steps=3"), []
    x0 = run.source.sample(1500, torch.Generator().manual_seed(0))

    def one(x, place):
        assert len(x) == place.stop - place.start
        sizes.append(len(x))
        return solve(run.velocity, x, t1=run.path.t_max, method="heun", steps=3, times=[0, 1 / 3, run.path.t_max][::2])

    found = in_batches.in_batches(one, lambda place: run.velocity, x0, run.device)
    assert sum(sizes) == 1500
    assert 1 < max(sizes) < 1000
    whole = solve(run.velocity, x0, t1=run.path.t_max, method="heun", steps=3, times=[0, run.path.t_max])
    assert found.nfe == whole.nfe
    torch.testing.assert_close(found.x, whole.x)
    torch.testing.assert_close(found.trajectory, whole.trajectory)
    sizes.clear()
    in_batches.in_batches(one, lambda place: run.velocity, x0[:64], run.device)
    assert sizes == [64]


def test_parts_hold_the_images_of_one_sample_and_go_on_from_there(tmp_path, monkeypatch):
    run = MadeRun(tmp_path, "method=euler", "solver_steps=2")
    [whole] = samples.drawn(run, 100, torch.Generator().manual_seed(3))
    expected = to_uint8(run.sample(100, torch.Generator().manual_seed(3)).x, 17)
    assert torch.equal(whole.images, expected)
    monkeypatch.setattr(samples, "AT_ONCE", 40)
    parts = list(samples.drawn(run, 100, torch.Generator().manual_seed(3)))
    assert [len(part.images) for part in parts] == [40, 40, 20]
    assert len(torch.cat([part.images for part in parts]).unique(dim=0)) == 100  # noise goes on, none is drawn twice


def test_likelihoods_fit_where_memory_is_short(tmp_path, monkeypatch):
    run = MadeRun(tmp_path, "divergence=exact", "rtol=1e-4", "atol=1e-4", "likelihood_images=100")
    images = run.data.held_out[:100]
    enough = bits_per_dim.densities(run, images).draws
    asked, log_likelihood = [], bits_per_dim.log_likelihood
    monkeypatch.setattr(memory, "available", lambda device: 10_000_000)
    monkeypatch.setattr(
        bits_per_dim, "log_likelihood", lambda v, y, *a, **k: asked.append(len(y)) or log_likelihood(v, y, *a, **k)
    )
    found = bits_per_dim.densities(run, images).draws
    assert sum(asked) == 100
    assert len(asked) > 1
    torch.testing.assert_close(found, enough, rtol=1e-3, atol=1e-2)


def test_moments_are_the_same_in_smaller_batches(short):
    images = torch.randint(17, (1000, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    sizes = []

    def extract(batch):
        sizes.append(len(batch))
        return (batch.flatten(1).float()[:, :, None] * torch.ones(100)).mean(2)[:, :3]  # 25,600 bytes an image

    found = features.moments(features.FeatureSpace("classifier", "", extract), images)
    assert 2 < max(sizes) < 300
    exact = images.flatten(1)[:, :3].double()
    torch.testing.assert_close(found.mean, exact.mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.covariance, torch.cov(exact.T), rtol=1e-4, atol=1e-4)


def test_more_images_than_a_picture_holds_become_several(tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "MOST_IMAGES", 4)
    images = torch.zeros(10, 1, 2, 2, dtype=torch.uint8)
    files = drawing.save_grids(images, tmp_path / "a.png", 17)
    assert [file.name for file in files] == ["a.png", "a-2.png", "a-3.png"]
    assert {file.name for file in tmp_path.iterdir()} == {"a.png", "a-2.png", "a-3.png"}
    assert [file.name for file in drawing.save_grids(images[:4], tmp_path / "a.png", 17, first=4)] == ["a-4.png"]
    with pytest.raises(ValueError, match=r"10 images: a picture holds at most 4; .*images\[:4\]"):
        drawing.save_grid(images, tmp_path / "b.png", 17)
