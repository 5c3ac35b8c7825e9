"""Folders for one process at a time: by any name, after kills, without permission, from training to record."""

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from fmcore import cli, data, locks
from fmcore.experiments.config.overrides import with_overrides
from fmcore.experiments.evaluate import evaluation
from fmcore.experiments.run import finished
from fmcore.experiments.run.finished import Run
from fmcore.experiments.run.train import train_run
from fmcore.locks import locked
from fmcore.papers.catalog import by_name
from tests.experiments.made_run import MadeRun
from tests.forked import python

needs_flock = pytest.mark.skipif(not locks.has_flock(), reason="needs flock")
TINY = ["steps=1", "batch=8", "channels=8", "multipliers=1", "blocks=1", "attention="]
QUICK = ["method=euler", "solver_steps=1", "generated_sets=2", "set_images=4", "likelihood_images=0"]
QUICK += ["classifier_steps=1", "nearest_images=0"]


def names(folder):
    return sorted(os.listdir(folder))


def contents(folder):
    return {name: (folder / name).read_bytes() for name in names(folder)}


def elsewhere(act, *arguments, **settings):
    """What an act returns, or raises, in a thread of its own: for locks, that is another program."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(act, *arguments, **settings).result()


def take(folder):
    with locked(folder):
        pass


def taken(folder):
    """Whether somebody else is refused."""
    try:
        elsewhere(take, folder)
    except BlockingIOError:
        return True
    return False


HOLDER = """
import os, sys, time
from pathlib import Path
from fmcore.locks import locked
with locked(Path(sys.argv[1])):
    print(os.getpid(), flush=True)
    time.sleep(600)
"""


@pytest.mark.xdist_group(__name__)
@needs_flock
def test_a_second_process_is_told_who_holds_the_folder_until_that_is_killed(tmp_path):
    folder = tmp_path / "run"
    with python(["-c", HOLDER, folder], os.environ) as holder:
        pid = int(holder.stdout.readline())
        for _ in range(2):
            with (
                pytest.raises(BlockingIOError, match=rf"run is in use by process {pid} on .*: wait until"),
                locked(folder),
            ):
                pass
        holder.kill()
        holder.wait()
    with locked(folder):
        assert not folder.exists()
    assert names(tmp_path) == []


def test_a_lock_ends_with_its_block_however_that_ends(tmp_path):
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), locked(tmp_path / "run"):
            raise error
        assert names(tmp_path) == []
        assert not taken(tmp_path / "run")


def test_a_folder_is_the_same_by_any_name_and_another_is_free(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    monkeypatch.chdir(tmp_path / "run")
    with locked(tmp_path / "run"):
        for same in (tmp_path / "link", tmp_path / "run" / ".." / "run", Path(), Path("../link")):
            assert taken(same)
            with locked(same):  # but not by whoever holds it
                assert taken(tmp_path / "run")
        assert not taken(tmp_path / "other")
        assert not taken(tmp_path / "run" / "inner")
        assert names(tmp_path / "run") == []  # nothing appears in the folder itself
    assert not taken(tmp_path / "run")


def test_the_outermost_of_several_blocks_lets_go(tmp_path):
    folder = tmp_path / "run"
    with locked(folder):
        with pytest.raises(KeyError), locked(folder), locked(folder):
            raise KeyError
        assert taken(folder)
    assert not taken(folder)


@needs_flock
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_holds_nothing(tmp_path):
    with locked(tmp_path / "run"):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                take(tmp_path / "run")
            except BlockingIOError:
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0


@needs_flock
def test_a_lock_that_was_removed_before_it_was_held_is_no_lock(tmp_path, monkeypatch):
    """The one that held it may let go between our opening and locking; a third may then hold a new one."""
    opened, hold = [], locks.hold

    def late(file):
        opened.append(file.name)
        if len(opened) == 1:
            os.unlink(file.name)
        return hold(file)

    monkeypatch.setattr(locks, "hold", late)
    with locked(tmp_path / "run"):
        assert len(opened) == 2
        assert taken(tmp_path / "run")


def test_where_no_lock_can_be_made_the_work_goes_on(tmp_path, monkeypatch):
    def refuse(*arguments, **settings):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(locks, "open", refuse, raising=False)
        with locked(tmp_path / "run"):
            assert not taken(tmp_path / "run")
    with monkeypatch.context() as patch:  # a network disk without locks
        patch.setattr(locks, "hold", lambda file: None)
        with locked(tmp_path / "run"):
            assert not taken(tmp_path / "run")


def test_where_python_has_no_flock_filelock_holds_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    message = "in use by another process"
    with locked(tmp_path / "run"), locked(tmp_path / "run"), pytest.raises(BlockingIOError, match=message):
        elsewhere(take, tmp_path / "run")
    assert not taken(tmp_path / "run")


@needs_flock
class TestALockFileOfAnotherUser:
    """It can be read, but not written to."""

    @pytest.fixture
    def to_be_read(self, monkeypatch):
        """As if all lock files that are there were another user's (root, who may run the tests, may write them)."""

        def protected(path, mode="r", **settings):
            if mode != "r" and Path(path).exists():
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return open(path, mode, **settings)

        monkeypatch.setattr(locks, "open", protected, raising=False)

    def test_its_holder_is_respected(self, tmp_path, to_be_read):
        with locked(tmp_path / "run"), pytest.raises(BlockingIOError, match=f"in use by process {os.getpid()} on"):
            elsewhere(take, tmp_path / "run")

    def test_one_that_was_left_is_held_as_one_of_our_own(self, tmp_path, to_be_read):
        (tmp_path / ".run.lock").write_text("process 1 on earth")
        with locked(tmp_path / "run"):
            assert taken(tmp_path / "run")
        assert not taken(tmp_path / "run")

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
    def test_with_the_permissions_of_the_system(self, tmp_path):
        lock = tmp_path / ".run.lock"
        lock.write_text("process 1 on earth")
        lock.chmod(0o444)
        with open(lock) as file:
            assert locks.hold(file)
            with pytest.raises(BlockingIOError, match="in use by process 1 on earth"):
                take(tmp_path / "run")


class TestFoldersAbove:
    """Those that a lock makes for itself."""

    def test_they_are_removed_if_nothing_came_into_them(self, tmp_path):
        (tmp_path / "runs").mkdir()
        with locked(tmp_path / "runs" / "paper" / "data" / "row"):
            assert (tmp_path / "runs" / "paper" / "data").is_dir()
        assert names(tmp_path) == ["runs"]  # it was there before
        assert names(tmp_path / "runs") == []

    def test_they_stay_with_what_came_into_them(self, tmp_path):
        folder = tmp_path / "runs" / "paper" / "data" / "row"
        with locked(folder):
            (tmp_path / "runs" / "paper" / "notes").touch()
        assert names(tmp_path / "runs" / "paper") == ["notes"]
        with locked(folder):
            folder.mkdir()
        assert names(tmp_path / "runs" / "paper" / "data") == ["row"]

    @needs_flock
    def test_a_lock_is_held_although_another_removes_them_meanwhile(self, tmp_path, monkeypatch):
        tried = []

        def vanish(path, *arguments, **settings):
            tried.append(path)
            if len(tried) == 1:
                Path(path).parent.rmdir()
            return open(path, *arguments, **settings)

        monkeypatch.setattr(locks, "open", vanish, raising=False)
        with locked(tmp_path / "runs" / "row"):
            assert taken(tmp_path / "runs" / "row")
        assert names(tmp_path) == []

    @pytest.mark.parametrize(
        ("settings", "says"),
        [
            (["lee2025/digits/ot", "train_images=100000"], "digits has 1500: ask for fewer"),
            (["bertrand2025/cifar10_small/hybrid"], "None holds no cifar10"),
        ],
    )
    def test_a_training_without_its_data_leaves_none(self, tmp_path, monkeypatch, capsys, settings, says):
        by_name = data.by_name

        def without_download(name, folder=None):
            if name != "digits":
                raise FileNotFoundError(f"{folder} holds no {name}")
            return by_name(name, folder)

        monkeypatch.setattr(data, "by_name", without_download)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit):
            cli.main(["train", *settings])
        assert says in capsys.readouterr().err
        assert names(tmp_path) == []

    def test_an_evaluation_of_nothing_leaves_none(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit):
            cli.main(["evaluate", "runs/digits"])
        assert "holds no run" in capsys.readouterr().err
        assert names(tmp_path) == []


def test_a_run_that_is_under_way_is_read_but_neither_trained_nor_measured(tmp_path):
    folder = tmp_path / "run"
    configuration = with_overrides(by_name("digits"), TINY)
    train_run(configuration, folder, progress=False)
    before = contents(folder)
    with locked(folder):
        for choice in ({"resume": True}, {"overwrite": True}, {}):
            with pytest.raises(BlockingIOError, match="run is in use by process"):
                elsewhere(train_run, configuration, folder, progress=False, **choice)
        run = elsewhere(Run, folder)
        assert not any(part.training for part in run.network.modules())
        assert run.sample(2, torch.Generator().manual_seed(0)).x.isfinite().all()
        with pytest.raises(BlockingIOError, match="run is in use by process"):
            elsewhere(evaluation.evaluate_run, run)
        with pytest.raises(SystemExit):
            elsewhere(cli.main, ["evaluate", str(folder)])
        assert contents(folder) == before
    assert names(tmp_path) == ["run"]


def test_an_evaluation_holds_its_folder_until_the_record_is_written(own_cache, tmp_path, monkeypatch):
    seen = {}
    for name in ("samples", "leave"):
        act = getattr(evaluation, name)
        monkeypatch.setattr(
            evaluation,
            name,
            lambda *given, act=act, name=name: (seen.update({name: taken(tmp_path / "run")}), act(*given))[1],
        )
    evaluation.evaluate_run(MadeRun(tmp_path / "run", "batch=8", *QUICK))
    assert seen == {"samples": True, "leave": True}
    assert not taken(tmp_path / "run")


def test_a_training_on_the_command_line_holds_its_folder_until_its_record_is_written(tmp_path, monkeypatch, capsys):
    """Also between the training and the evaluation, where the run is loaded: nobody can start anew under it."""
    from fmcore.experiments.run import train as run_train

    folder, seen, trained = tmp_path / "run", {}, threading.Event()
    first_train_run, load = run_train.train_run, finished.Run.__init__

    def train_run(*arguments, **settings):
        first_train_run(*arguments, **settings | {"progress": False})
        trained.set()
        seen["after training"] = taken(folder)

    def loading(self, *arguments):
        assert trained.is_set()
        seen["loading"] = taken(folder)
        load(self, *arguments)

    def measured(run, **_):
        seen["evaluation"] = taken(folder)
        return {"values": {}}

    monkeypatch.setattr(run_train, "train_run", train_run)
    monkeypatch.setattr(finished.Run, "__init__", loading)
    monkeypatch.setattr(evaluation, "evaluate_run", measured)
    monkeypatch.setattr("fmcore.papers.printing.show_record", lambda record: None)
    cli.main(["train", "digits", *TINY, "--run-dir", str(folder)])
    assert seen == {"after training": True, "loading": True, "evaluation": True}
    seen.clear()
    cli.main(["evaluate", str(folder)])
    assert seen == {"loading": True, "evaluation": True}
    assert not taken(folder)
