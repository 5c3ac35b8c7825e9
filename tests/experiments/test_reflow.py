"""Reflow of a run: its pairs are ends of the teacher's flow, they are kept, and few steps do better with them."""

import shutil

import pytest
import torch

from fmcore.experiments.config.overrides import with_overrides
from fmcore.experiments.run import reflow
from fmcore.experiments.run.finished import Run
from fmcore.experiments.run.train import train_run
from fmcore.papers import catalog
from fmcore.solvers import solve
from fmcore.tensor_file import read_tensors

SMALL = [
    "channels=8",
    "multipliers=1",
    "attention=",
    "batch=16",
    "warmup=1",
    "decay=none",
    "method=euler",
    "solver_steps=3",
]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher") / "run"
    train_run(with_overrides(catalog.by_name("digits"), [*SMALL, "steps=5"]), folder, progress=False)
    return folder


def student(teacher, *settings):
    few = ["coupling=reflow", f"teacher={teacher}", "teacher_pairs=40", "budgets="]
    return with_overrides(catalog.by_name("digits"), [*SMALL, *few, "steps=3", *settings])


def test_its_pairs_are_the_ends_of_the_teachers_flow(teacher, tmp_path):
    train_run(student(teacher), tmp_path / "run", progress=False)
    pairs = read_tensors(tmp_path / "run" / "pairs.safetensors", "").tensors
    run = Run(teacher)
    expected = solve(run.velocity, pairs["x0"], t1=run.path.t_max, method="euler", steps=3).x
    torch.testing.assert_close(pairs["x1"], expected)
    assert pairs["x0"].shape == (40, 1, 8, 8)
    assert abs(float(pairs["x0"].std()) - 1) < 0.05
    said = Run(tmp_path / "run").record()["training"]
    assert (said["images"], said["epochs"]) == (40, 1.2)


def test_it_goes_on_without_the_teacher(teacher, tmp_path):
    gone = tmp_path / "teacher"
    shutil.copytree(teacher, gone)
    train_run(student(gone, "steps=4"), tmp_path / "whole", progress=False)
    train_run(student(gone, "steps=2"), tmp_path / "part", progress=False)
    shutil.rmtree(gone)
    train_run(student(gone, "steps=4"), tmp_path / "part", resume=True, progress=False)
    one, other = (Run(tmp_path / name).network.state_dict() for name in ("whole", "part"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_both_ends_are_mirrored_together(teacher):
    x0, x1 = torch.randn(64, 1, 8, 8), torch.randn(64, 1, 8, 8)
    prepare = reflow.batch_maker(student(teacher, "flips=true"), 10)
    one, other = prepare((x0, x1), torch.Generator().manual_seed(0))
    mirrored = [bool((a == b.flip(-1)).all()) for a, b in zip(one, x0, strict=True)]
    assert mirrored == [bool((a == b.flip(-1)).all()) for a, b in zip(other, x1, strict=True)]
    assert 16 < sum(mirrored) < 48
    same = reflow.batch_maker(student(teacher), 10)((x0, x1), torch.Generator())
    assert torch.equal(same[0], x0)
    assert torch.equal(same[1], x1)


def test_pairs_of_another_run_are_refused(teacher, tmp_path):
    train_run(student(teacher), tmp_path / "one", progress=False)
    train_run(student(teacher, "seed=1"), tmp_path / "two", progress=False)
    shutil.copy(tmp_path / "one" / "pairs.safetensors", tmp_path / "two" / "pairs.safetensors")
    (tmp_path / "two" / "checkpoint.pt").unlink()
    with pytest.raises(ValueError, match=r"pairs.safetensors belongs to another run: training.seed is 0 there"):
        train_run(student(teacher, "seed=1"), tmp_path / "two", resume=True, progress=False)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["coupling=reflow"], "reflow is trained on the pairs of a finished run, teacher=FOLDER"),
        (["teacher=runs/digits"], "coupling=independent with teacher=runs/digits"),
        (["teacher_pairs=10"], "teacher_pairs=10"),
        (
            ["coupling=reflow", "teacher=a", "loss=noise_prediction", "path=variance_preserving"],
            "coupling=reflow needs",
        ),
        (["coupling=reflow", "teacher=a", "train_images=10"], "coupling=reflow needs"),
    ],
)
def test_what_does_not_go_together_is_said(settings, words):
    with pytest.raises(ValueError, match=words):
        with_overrides(catalog.by_name("digits"), settings)


def test_another_path_or_no_run_is_refused_and_leaves_nothing(teacher, tmp_path):
    with pytest.raises(ValueError, match=r"has path=rectified, and this run path=cosine: name another teacher"):
        train_run(student(teacher, "path=cosine"), tmp_path / "run", progress=False)
    with pytest.raises(FileNotFoundError, match="holds no run"):
        train_run(student(tmp_path / "nowhere"), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_leads_noise_to_many_images_is_refused(tmp_path):
    train_run(
        with_overrides(catalog.by_name("digits"), [*SMALL, "steps=1", "method=sde"]), tmp_path / "sde", progress=False
    )
    with pytest.raises(ValueError, match="method=sde, which leads the same noise to many images"):
        train_run(student(tmp_path / "sde"), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
