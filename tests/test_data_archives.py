"""Archives from elsewhere: nothing lands outside their folder, and nothing half."""

import io
import random
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmcore.data.archives import check_member, unpack


def member(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def write_archive(path, members):
    """members: TarInfo objects, each with the content of its file."""
    with tarfile.open(path, "w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


HOSTILE = {
    "above": member("data/../../escaped"),
    "absolute": member("/tmp/escaped"),
    "beside": member("other/escaped"),
    "of Windows": member("data/..\\..\\escaped"),
    "a drive": member("data/C:escaped"),
    "symbolic link": member("data/link", tarfile.SYMTYPE, "/etc"),
    "hard link": member("data/link", tarfile.LNKTYPE, "../../escaped"),
    "inner link": member("data/link", tarfile.SYMTYPE, "good.bin"),
    "device": member("data/null", tarfile.CHRTYPE),
    "pipe": member("data/pipe", tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("own_filter", [True, False], ids=["filter of Python", "own check alone"])
def test_an_archive_of_plain_files_is_unpacked(tmp_path, monkeypatch, own_filter):
    if not own_filter:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
        if hasattr(tarfile.TarFile, "extraction_filter"):  # without it Python 3.12 and 3.13 warn
            monkeypatch.setattr(tarfile.TarFile, "extraction_filter", staticmethod(tarfile.fully_trusted_filter))
    content = {"data/a.bin": b"first", "data/more/b.bin": bytes(3000)}
    archive = write_archive(tmp_path / "a.tar.gz", [(member(name), text) for name, text in content.items()])
    folder = unpack(archive, tmp_path, "data", limit=4000)
    assert folder == tmp_path / "data"
    found = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "data"]


@pytest.mark.parametrize("bad", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("own_filter", [True, False], ids=["filter of Python", "own check alone"])
def test_a_hostile_archive_is_refused_before_anything_is_written(tmp_path, monkeypatch, bad, own_filter):
    if not own_filter:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    inner = tmp_path / "inner"
    inner.mkdir()
    archive = write_archive(tmp_path / "a.tar.gz", [(member("data/good.bin"), b"good"), (bad, b"")])
    with pytest.raises(ValueError, match=r"a.tar.gz holds a .*, where plain files in data/ are expected.*get it again"):
        unpack(archive, inner, "data", limit=1000)
    assert list(inner.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "inner"]


@given(st.lists(st.sampled_from(["..", ".", "data", "a", "", "\\", "C:"]), min_size=1, max_size=5))
def test_no_accepted_name_leaves_the_folder(tmp_path_factory, parts):
    name = "/".join(parts)
    try:
        check_member(member(name), tmp_path_factory.getbasetemp() / "a.tar", "data")
    except ValueError:
        return
    root = (tmp_path_factory.getbasetemp() / "data").resolve()
    assert (root.parent / name).resolve().is_relative_to(root)


def test_a_small_archive_of_a_large_file_is_refused(tmp_path):
    archive = write_archive(tmp_path / "a.tar.gz", [(member("data/zeros"), bytes(2_000_000))])
    assert archive.stat().st_size < 10_000
    with pytest.raises(ValueError, match="unpacks to 2,000,000 bytes, more than the 1,000,000 expected"):
        unpack(archive, tmp_path, "data", limit=1_000_000)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


def test_damage_is_named_wherever_it_is(tmp_path):
    content = random.Random(0).randbytes(3000)
    whole = write_archive(tmp_path / "a.tar.gz", [(member("data/a"), content)]).read_bytes()
    archive = tmp_path / "cut.tar.gz"
    for size in [*range(0, len(whole), 7), len(whole) - 1]:
        archive.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cut.tar.gz is truncated or damaged .*delete it and get it again"):
            unpack(archive, tmp_path, "data", limit=100_000)
        assert not (tmp_path / "data").exists()
    archive.write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match="is truncated or damaged"):
        unpack(archive, tmp_path, "data", limit=100_000)


def test_what_a_killed_process_left_is_no_hindrance(tmp_path):
    (tmp_path / "data.partial" / "data").mkdir(parents=True)
    (tmp_path / "data.partial" / "data" / "a").write_bytes(b"half")
    archive = write_archive(tmp_path / "a.tar.gz", [(member("data/b"), b"whole")])
    unpack(archive, tmp_path, "data", limit=100)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["b"]
