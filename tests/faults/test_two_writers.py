"""Two processes in one folder, at any moment: one of them does all that it was asked for, the other is told."""

import os
import random
from pathlib import Path

import pytest

from fmcore.atomic import write_file
from fmcore.experiments.run.finished import Run
from fmcore.experiments.run.folder import read_configuration
from fmcore.locks import locked
from tests.forked import python
from tests.test_locks import needs_flock

ROUNDS = 20
SCRIPT = """
import sys, time
from pathlib import Path
from fmcore.experiments.config.overrides import with_overrides
from fmcore.experiments.run.train import train_run
from fmcore.papers import catalog
folder, seed, wait, choice = sys.argv[1:]
settings = ["channels=8", "multipliers=1", "blocks=1", "attention=", "steps=2", "batch=4", "warmup=1"]
settings += ["checkpoint_every=1", "curve_every=1"]
time.sleep(float(wait))
configuration = with_overrides(catalog.by_name("digits"), [*settings, f"seed={seed}"])
try:
    train_run(configuration, Path(folder), progress=False, **{choice: True})
except (BlockingIOError, FileExistsError, ValueError) as error:
    print(type(error).__name__, error)
else:
    print("trained")
"""


@pytest.mark.xdist_group(__name__)
@needs_flock
def test_whoever_trained_last_left_all_files_of_the_folder(tmp_path):
    draw = random.Random(0)
    trained = refused = 0
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    folder = tmp_path / "run"
    for _ in range(ROUNDS):
        seeds = draw.sample(range(5), 2)
        waits = [0.0, draw.uniform(0, 0.3)]
        choices = [draw.choice(["overwrite", "overwrite", "resume"]) for _ in range(2)]
        asked = list(zip(seeds, waits, choices, strict=True))
        started = [python(["-c", SCRIPT, folder, *one], environment) for one in asked]
        said = []
        for process in started:
            with process:
                output, _ = process.communicate(timeout=240)
            assert process.returncode == 0, output
            said.append(output.strip().splitlines()[-1])
        succeeded = [seed for seed, words in zip(seeds, said, strict=True) if words == "trained"]
        for words in said:
            assert words == "trained" or "is in use by process" in words or "another configuration" in words, words
        trained, refused = trained + len(succeeded), refused + len(said) - len(succeeded)
        if not folder.exists():
            continue
        run = Run(folder)  # its files belong together, or this raises
        run.record()
        for file in (folder / "snapshots").iterdir():
            run.use_weights(file)
        if succeeded:
            assert read_configuration(folder).training.seed in succeeded
    assert trained >= ROUNDS // 2
    assert refused >= 1


@pytest.mark.parametrize("name", ["record.json.partial", "record.json.0a1b2c3d.partial"])
def test_no_link_is_followed_to_a_file_of_somebody_else(tmp_path, name):
    theirs = tmp_path / "theirs"
    theirs.write_text("mine")
    theirs.chmod(0o600)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).symlink_to(theirs)
    write_file(tmp_path / "folder" / "record.json", b"{}")
    assert theirs.read_text() == "mine"
    assert (tmp_path / "folder" / "record.json").read_bytes() == b"{}"
    assert not (tmp_path / "folder" / "record.json").is_symlink()


@needs_flock
def test_nor_by_a_lock(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.write_text("mine")
    Path(tmp_path / ".run.lock").symlink_to(theirs)
    with locked(tmp_path / "run"):
        pass
    assert theirs.read_text() == "mine"
