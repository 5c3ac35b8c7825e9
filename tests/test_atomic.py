"""Files in full or not at all: with several writers, kills, no permission."""

import errno
import os
import signal
import stat
import threading

import pytest

from fmcore import atomic, locks
from fmcore.atomic import original_name, replaced, write_file
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


@pytest.mark.xdist_group(__name__)
@pytest.mark.skipif(not locks.has_flock(), reason="needs flock")
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
    begun, hold = [], locks.hold

    def late(file):
        begun.append(file.name)
        if len(begun) == 1:
            os.unlink(file.name)
        return hold(file)

    monkeypatch.setattr(locks, "hold", late)
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


def test_where_python_has_no_flock_a_file_is_in_full_too_and_left_overs_stay(tmp_path, monkeypatch):
    """Nothing tells a killed writer's from a living one's there."""
    monkeypatch.setattr(locks, "fcntl", None)
    (tmp_path / "a.0a1b2c3d.partial").write_bytes(b"half")
    write_file(tmp_path / "a", b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert names(tmp_path) == ["a", "a.0a1b2c3d.partial"]
