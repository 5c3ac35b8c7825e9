"""Files in full or not at all, and folders for one process at a time: with several writers, kills, no permission."""

import errno
import os
import signal
import stat
import threading
from pathlib import Path

import pytest
import torch

from fmcore import atomic
from fmcore.atomic import locked, original_name, replaced, write_file
from fmcore.experiments.config.overrides import with_overrides
from fmcore.experiments.run.finished import Run
from fmcore.experiments.run.train import train_run
from fmcore.papers.catalog import by_name
from tests.forked import python


def names(folder):
    return sorted(os.listdir(folder))


def killed(code, *arguments):
    """Run code that kills its own process."""
    with python(["-c", code, *arguments], os.environ) as process:
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, printed


def test_writers_at_the_same_time_do_not_mix_and_the_last_to_end_stays(tmp_path):
    path = tmp_path / "run.pt"
    with replaced(path) as second:
        with replaced(path) as first:
            first.write(b"1" * 10_000)
            second.write(b"2" * 10_000)
            first.write(b"1" * 10_000)
            assert len(names(tmp_path)) == 2
        assert path.read_bytes() == b"1" * 20_000
        second.write(b"2" * 20_000)
    assert path.read_bytes() == b"2" * 30_000
    assert names(tmp_path) == ["run.pt"]


def test_many_threads_that_write_one_file_leave_one_whole_version(tmp_path):
    path = tmp_path / "run.pt"
    versions = [bytes([number]) * (5000 + 100 * number) for number in range(8)]
    failed = []

    def write(version):
        try:
            for _ in range(10):
                write_file(path, version)
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert path.read_bytes() in versions
    assert names(tmp_path) == ["run.pt"]


def test_one_writer_that_fails_leaves_another_alone(tmp_path):
    path = tmp_path / "run.pt"
    with replaced(path) as good:
        good.write(b"good")
        with pytest.raises(TypeError), replaced(path) as bad:
            bad.write("text")
        assert not path.exists()
    assert path.read_bytes() == b"good"
    assert names(tmp_path) == ["run.pt"]


WRITER = """
import os, signal, sys
from pathlib import Path
from fmcore.atomic import replaced
with replaced(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.xdist_group("forked processes")
@pytest.mark.skipif(atomic.fcntl is None, reason="needs flock")
def test_what_a_killed_writer_left_is_removed_by_the_next_and_nothing_else(tmp_path):
    path, other = tmp_path / "run.pt", tmp_path / "run.pt.old"
    killed(WRITER, path)
    killed(WRITER, other)
    (tmp_path / "run.pt.partial").write_bytes(b"of an earlier version of the package")
    left = names(tmp_path)
    assert sorted(map(original_name, left)) == ["run.pt", "run.pt", "run.pt.old"]
    with replaced(path) as living:
        living.write(b"living")
        write_file(path, b"whole")  # it cleans up, too
        assert path.read_bytes() == b"whole"
        assert len([name for name in names(tmp_path) if original_name(name) == "run.pt"]) == 2
    assert path.read_bytes() == b"living"
    assert [original_name(name) for name in names(tmp_path)] == ["run.pt", "run.pt.old"]


def test_a_file_that_was_taken_for_a_left_over_is_begun_again(tmp_path, monkeypatch):
    """Another process may look for left-overs between the making of a file and its lock."""
    begun, hold = [], atomic.hold

    def late(file):
        begun.append(file.name)
        if len(begun) == 1:
            os.unlink(file.name)
        return hold(file)

    monkeypatch.setattr(atomic, "hold", late)
    write_file(tmp_path / "run.pt", b"whole")
    assert (tmp_path / "run.pt").read_bytes() == b"whole"
    assert len({*begun}) == 2


@pytest.mark.parametrize(
    ("name", "original"),
    [
        ("record.json.0a1b2c3d.partial", "record.json"),
        ("record.json.partial", "record.json"),
        ("record.json", "record.json"),
        ("weights.partial", "weights"),
        ("a.0a1b2c3.partial", "a.0a1b2c3"),
    ],
)
def test_the_name_that_a_left_over_was_to_have(name, original):
    assert original_name(name) == original


def test_a_file_may_be_read_by_whom_the_user_lets(tmp_path):
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "run.pt", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "run.pt").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "make room and run again"),
        (errno.EDQUOT, "make room and run again"),
        (errno.EACCES, "write to another folder, or have its owner let you write to it"),
        (errno.EPERM, "write to another folder, or have its owner let you write to it"),
        (errno.EROFS, "can only be read: write to another folder"),
        (errno.EIO, ""),
    ],
)
@pytest.mark.parametrize("where", ["open", "fsync", "rename"])
def test_each_refusal_of_the_system_has_advice_of_its_own(tmp_path, monkeypatch, number, advice, where):
    path = tmp_path / "run.pt"
    path.write_bytes(b"before")

    def refuse(*arguments, **settings):
        raise OSError(number, os.strerror(number), str(path))

    if where == "open":
        monkeypatch.setattr(atomic, "open", refuse, raising=False)
    else:
        monkeypatch.setattr(os, {"fsync": "fsync", "rename": "replace"}[where], refuse)
    with pytest.raises(OSError, match="cannot write") as found:
        write_file(path, b"after")
    said = found.value.strerror
    assert said == f"cannot write {path}: {os.strerror(number)} (the version before it is intact)" + (
        f"; {said.rpartition('; ')[2]}" if advice else ""
    )
    assert said.endswith(advice)
    assert found.value.errno == number
    assert isinstance(found.value, PermissionError) == (number in (errno.EACCES, errno.EPERM))
    assert path.read_bytes() == b"before"
    assert names(tmp_path) == ["run.pt"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="nothing was saved.; write to another folder"):
        write_file(tmp_path / "run.pt", b"")


# Locks


HOLDER = """
import os, sys, time
from pathlib import Path
from fmcore.atomic import locked
with locked(Path(sys.argv[1])):
    print(os.getpid(), flush=True)
    time.sleep(600)
"""


@pytest.mark.xdist_group("forked processes")
@pytest.mark.skipif(atomic.fcntl is None, reason="needs flock")
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


def test_a_folder_is_the_same_by_any_name_and_another_is_free(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    monkeypatch.chdir(tmp_path / "run")
    with locked(tmp_path / "run"):
        for same in (tmp_path / "link", tmp_path / "run" / ".." / "run", Path(), Path("../link")):
            with pytest.raises(BlockingIOError), locked(same):
                pass
        with locked(tmp_path / "other"), locked(tmp_path / "run" / "inner"):
            pass
        assert names(tmp_path / "run") == []  # nothing appears in the folder itself


def test_a_lock_that_was_removed_before_it_was_held_is_no_lock(tmp_path, monkeypatch):
    """The one that held it may let go between our opening and locking; a third may then hold a new one."""
    opened, hold = [], atomic.hold

    def late(file):
        opened.append(file.name)
        if len(opened) == 1:
            os.unlink(file.name)
        return hold(file)

    monkeypatch.setattr(atomic, "hold", late)
    with locked(tmp_path / "run"):
        assert len(opened) == 2
        with pytest.raises(BlockingIOError), locked(tmp_path / "run"):
            pass


def test_where_no_lock_can_be_made_the_work_goes_on(tmp_path, monkeypatch):
    def refuse(*arguments, **settings):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "open", refuse, raising=False)
        with locked(tmp_path / "run"):
            pass
    with monkeypatch.context() as patch:  # a network disk without locks
        patch.setattr(atomic, "hold", lambda file: None)
        with locked(tmp_path / "run"), locked(tmp_path / "run"):
            pass


def test_where_python_has_no_flock_filelock_holds_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "fcntl", None)
    message = "in use by another process"
    with locked(tmp_path / "run"), pytest.raises(BlockingIOError, match=message), locked(tmp_path / "run"):
        pass
    with locked(tmp_path / "run"):
        pass
    write_file(tmp_path / "a", b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_a_run_that_is_under_way_is_read_but_neither_resumed_nor_overwritten(tmp_path):
    folder = tmp_path / "run"
    tiny = ["steps=1", "channels=8", "multipliers=1", "blocks=1", "attention="]
    configuration = with_overrides(by_name("digits"), tiny)
    train_run(configuration, folder, progress=False)
    before = {name: (folder / name).read_bytes() for name in names(folder)}
    with locked(folder):
        for choice in ({"resume": True}, {"overwrite": True}, {}):
            with pytest.raises(BlockingIOError, match="run is in use by process"):
                train_run(configuration, folder, progress=False, **choice)
        assert {name: (folder / name).read_bytes() for name in names(folder)} == before
        run = Run(folder)
        assert not any(part.training for part in run.network.modules())
        assert run.sample(2, torch.Generator().manual_seed(0)).x.isfinite().all()
    assert names(tmp_path) == ["run"]
