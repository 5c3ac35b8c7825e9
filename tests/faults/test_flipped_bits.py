"""A faulty disk: whichever bit of whichever file of a run flips, samples stay the same, or an error names the file."""

import random
import shutil
import warnings

import pytest
import torch

from fmcore.cli import main
from fmcore.experiments.config.overrides import with_overrides
from fmcore.experiments.evaluate.evaluation import evaluate_run
from fmcore.experiments.run import pretrained
from fmcore.experiments.run.finished import Run
from fmcore.experiments.run.train import train_run
from fmcore.experiments.run.verification import verify_run
from fmcore.papers import catalog

FLIPS = 200  # over all files of all runs
SETTINGS = [
    "channels=8",
    "multipliers=1",
    "attention=",
    "steps=4",
    "batch=8",
    "warmup=1",
    "checkpoint_every=2",
    "curve_every=2",
]
SETTINGS += ["method=euler", "solver_steps=2", "rtol=0.1", "atol=0.1", "set_images=10", "likelihood_images=2"]
SETTINGS += ["classifier_steps=2", "nearest_images=2", "budgets=", "features=classifier"]
# Sources of which every kind of number is kept: plain, norms, a mixture, directions, axes.
ROWS = {
    "digits": [],
    "lee2025/digits/independent_norm": ["budgets=2", "prune_tau=0.1", "prune_threshold=0.3"],
    "lee2025/digits/mixture2": ["likelihood_images=0"],
    "lee2025/digits/kmeans1500": ["likelihood_images=0"],
}


@pytest.fixture(scope="module")
def runs(own_cache, tmp_path_factory):
    """Finished runs, evaluated and exported."""
    folder = tmp_path_factory.mktemp("runs")
    found = {}
    for number, (name, changes) in enumerate(ROWS.items()):
        place = folder / str(number)
        train_run(with_overrides(catalog.by_name(name), [*SETTINGS, *changes]), place, progress=False)
        evaluate_run(Run(place))
        pretrained.keep(Run(place), place / "kept")
        found[place] = used(place)
    return found


def used(place):
    """All that is made from the files of a run: samples, records, what a resume goes on from, the kept network."""
    run = Run(place)
    found = [run.sample(4, torch.Generator().manual_seed(0)).x]
    if run.configuration.evaluation.prune_tau is not None:
        source, _ = run.pruned()
        found.append(run.sample(4, torch.Generator().manual_seed(0), source=source).x)
    for file in sorted((place / "snapshots").iterdir()):
        run.use_weights(file)
        found.append(run.sample(2, torch.Generator().manual_seed(0)).x)
    record = run.record()
    [name] = [file.stem for file in (place / "kept").glob("*.json")]
    kept = pretrained.load(name, place / "kept")
    found.append(kept.sample(2, torch.Generator().manual_seed(0), method="euler", steps=2).x)
    return found, record, kept.record


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one[0], other[0], strict=True)) and one[1:] == other[1:]


def flipped(content, place, bit):
    changed = bytearray(content)
    changed[place] ^= 1 << bit
    return bytes(changed)


def test_a_flipped_bit_changes_nothing_or_is_an_error_that_names_the_file(runs, tmp_path):
    draw = random.Random(0)
    # What only people read, and what is read when a training goes on (below), is left out.
    aside = {"checkpoint.pt", "losses.csv", "curve.csv", "samples.png"}
    files = [
        (place, file.relative_to(place))
        for place in runs
        for file in sorted(place.rglob("*"))
        if file.is_file() and file.name not in aside
    ]
    noticed = harmless = 0
    for _ in range(FLIPS):
        place, name = draw.choice(files)
        content = (place / name).read_bytes()
        # Half of the flips go to the first kilobyte, where the names and the numbers about numbers are.
        where = draw.randrange(len(content) if draw.random() < 0.5 else min(1000, len(content)))
        bit = draw.randrange(8)
        (place / name).write_bytes(flipped(content, where, bit))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of files that seem to be of an earlier version now
                found = used(place)
        except (ValueError, OSError) as error:
            said = str(error)
            noticed += 1
            assert name.name in said or name.stem in said, f"{name}: {said}"
            assert "\n" not in said
        else:
            assert same(found, runs[place]), f"bit {bit} of byte {where} of {place / name} changed something in silence"
            harmless += 1
        (place / name).write_bytes(content)
    assert noticed > 0.9 * FLIPS, (noticed, harmless)


def test_a_flipped_bit_in_a_checkpoint_changes_nothing_or_is_an_error(runs, tmp_path):
    place = next(iter(runs))
    configuration = Run(place).configuration
    content = (place / "checkpoint.pt").read_bytes()
    kept = {name: (place / name).read_bytes() for name in ("weights.safetensors", "losses.csv")}
    draw = random.Random(1)
    for _ in range(12):
        folder = tmp_path / "run"
        shutil.copytree(place, folder)
        where = draw.randrange(len(content))
        (folder / "checkpoint.pt").write_bytes(flipped(content, where, draw.randrange(8)))
        try:
            train_run(configuration, folder, resume=True, progress=False)
        except ValueError as error:
            assert "checkpoint.pt" in str(error)  # noqa: PT017
        else:
            assert {name: (folder / name).read_bytes() for name in kept} == kept, where
        shutil.rmtree(folder)


def test_a_run_can_be_asked_whether_all_its_files_are_right(runs, capsys):
    """Every file that tells apart, one flip each in the middle; and an intact run says so."""
    place = next(iter(runs))
    assert verify_run(place) == []
    main(["verify", str(place)])
    assert "are what was written" in capsys.readouterr().out
    for name in (
        "weights.safetensors",
        "source.safetensors",
        "checkpoint.pt",
        "record.json",
        "config.json",
        "data.json",
    ):
        content = (place / name).read_bytes()
        (place / name).write_bytes(flipped(content, len(content) // 2, 0))
        found = verify_run(place)
        (place / name).write_bytes(content)
        assert len(found) == 1
        assert name in found[0] or name == "data.json"
    snapshot = sorted((place / "snapshots").iterdir())[0]
    content = snapshot.read_bytes()
    snapshot.write_bytes(flipped(content, len(content) // 2, 0))
    assert [snapshot.name in sentence for sentence in verify_run(place)] == [True]
    snapshot.write_bytes(content)
