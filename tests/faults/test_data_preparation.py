"""A preparation that is killed, runs into a full disk, or is started twice ends with the files of one that was not."""

import errno
import importlib
import json
import os
import random
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from fmcore.data import imagenet
from tests.forked import python

# The processes are forked, and the photographs made, in one worker.
pytestmark = pytest.mark.xdist_group(__name__)

SHARD = 4
IMAGES = 40
PHOTOGRAPHS = importlib.import_module("fmcore.data.photographs")

# Prints a line for each photograph that it reads, and takes its time: to be killed.
PROCESS = f"""
import sys, time
from fmcore.data import imagenet, photographs
photographs.SHARD = {SHARD}
reduce = photographs.reduce
def slow(image, reduction):
    print("photograph", flush=True)
    time.sleep(0.01)
    return reduce(image, reduction)
photographs.reduce = slow
imagenet(32, sys.argv[1], prepared=sys.argv[2], progress=False)
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    for split, n in (("train", IMAGES - 10), ("val", 10)):
        (root / split / "n01440764").mkdir(parents=True)
        for index in range(n):
            pixels = generator.integers(0, 256, (40, 50, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / split / "n01440764" / f"{index}.JPEG")
    return root


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(PHOTOGRAPHS, "SHARD", SHARD)


def prepare(tree, out):
    return imagenet(32, tree, prepared=out, progress=False)


def contents(out):
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name != ".lock"}


@pytest.fixture(scope="module")
def whole(tree, tmp_path_factory):
    """The files of a preparation that nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PHOTOGRAPHS, "SHARD", SHARD)
        prepare(tree, out)
    assert len(json.loads((out / "manifest.json").read_text())["splits"]["train"]["shards"]) == 8
    return contents(out)


def start(tree, out):
    return python(["-c", PROCESS, tree, out], os.environ, separate_errors=True)


def test_a_killed_preparation_goes_on_where_it_was(tree, tmp_path, whole, monkeypatch):
    out, moment = tmp_path / "out", random.randint(1, IMAGES - 1)  # another on every run of the tests
    with start(tree, out) as process:
        for _ in range(moment):
            process.stdout.readline()
        process.kill()
        seen = moment + len(process.stdout.readlines())
    assert process.returncode == -9
    read, reduce = [], PHOTOGRAPHS.reduce
    monkeypatch.setattr(PHOTOGRAPHS, "reduce", lambda *arguments: read.append(1) or reduce(*arguments))
    data = prepare(tree, out)
    assert contents(out) == whole, f"killed at photograph {moment}"
    assert len(data.train) + len(data.held_out) == IMAGES
    assert IMAGES - seen <= len(read) <= IMAGES - moment + 2 * SHARD, f"killed at photograph {moment}"


class PowerCut(BaseException):
    """Nothing after it is carried out, and no handler of Exception sees it."""


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_cut_at_every_moment_of_writing(tree, tmp_path, whole, monkeypatch, name):
    monkeypatch.setattr(PHOTOGRAPHS, "SHARD", 11)  # three shards and one: all kinds of moments, none too often
    original = getattr(os, name)
    for moment in range(1, 200):
        calls = []

        def cut(*arguments, calls=calls, moment=moment):
            calls.append(arguments)
            if len(calls) == moment:
                raise PowerCut
            return original(*arguments)

        out = tmp_path / str(moment)
        with monkeypatch.context() as patch:
            patch.setattr(os, name, cut)
            try:
                prepare(tree, out)
            except PowerCut:
                assert not (out / "manifest.json").exists(), moment
        if len(calls) < moment:
            break
        for path in out.glob("*.pixels"):  # the rest of a write that had begun
            path.write_bytes(path.read_bytes() + b"torn")
        prepare(tree, out)
        finished = contents(out)
        assert [
            file for file in whole if ("pixels" in file or "labels" in file) and finished[file] != whole[file]
        ] == []
        assert imagenet(32, out, verify=True).num_classes == 1
        shutil.rmtree(out)
    assert moment > {"fsync": 15, "replace": 6}[name]


def test_the_disk_is_full(tree, tmp_path, whole, monkeypatch):
    out, synced, fsync = tmp_path / "out", [], os.fsync

    def full(descriptor):
        synced.append(descriptor)
        if len(synced) == 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            OSError, match=r"cannot write train.\w+ in .*out: No space left on device; the 12 images"
        ) as found:
            prepare(tree, out)
    assert found.value.errno == errno.ENOSPC
    assert not (out / "manifest.json").exists()
    prepare(tree, out)
    assert contents(out) == whole


def test_a_disk_that_is_too_small_is_found_before_the_work(tree, tmp_path, whole, monkeypatch):
    out = tmp_path / "out"
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100_000))
        patch.setattr(PHOTOGRAPHS, "reduce", lambda *_: pytest.fail("a photograph was read"))
        with pytest.raises(OSError, match=r"out needs 0.00 GB more and its disk has 0.00 GB left: make room"):
            prepare(tree, out)
    prepare(tree, out)
    assert contents(out) == whole


FILE_SIZE_LIMIT = """
import resource, signal, sys
from fmcore.data import imagenet
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    imagenet(32, sys.argv[1], prepared=sys.argv[2], progress=False)
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX limit on the size of files")
def test_the_operating_system_refuses_the_write(tree, tmp_path):
    out = tmp_path / "out"
    with python(["-c", FILE_SIZE_LIMIT, tree, out], os.environ) as process:
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0, printed
    assert "cannot write train.pixels" in printed
    assert "File too large; the 0 images of this split before it are kept, and another run goes on from" in printed
    assert "make room" not in printed  # the disk is not full


def test_two_processes_at_once_do_the_work_once(tree, tmp_path, whole):
    out = tmp_path / "out"
    processes = [start(tree, out) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sorted(errors for _, errors in outputs) == [
        "",
        f"another process is preparing imagenet32 in {out}; waiting for it\n",
    ]
    assert sum(out.count("photograph") for out, _ in outputs) == IMAGES
    assert contents(out) == whole


def interrupted(tree, out, monkeypatch, after):
    """Leave a preparation as a kill after some photographs would."""
    read, reduce = [], PHOTOGRAPHS.reduce

    def until(*arguments):
        read.append(1)
        if len(read) > after:
            raise PowerCut
        return reduce(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(PHOTOGRAPHS, "reduce", until)
        with pytest.raises(PowerCut):
            prepare(tree, out)


def test_a_source_that_changed_meanwhile_is_an_error(tree, tmp_path, monkeypatch):
    copy, out = tmp_path / "tree", tmp_path / "out"
    shutil.copytree(tree, copy)
    interrupted(copy, out, monkeypatch, after=10)
    path = copy / "train" / "n01440764" / "5.JPEG"
    content = path.read_bytes()
    path.write_bytes(content + b"1")
    with pytest.raises(ValueError, match=r"the source is not the one .*: train n01440764/5.JPEG .*put the files back"):
        prepare(copy, out)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"prepared with other settings: crop .was True, now False."):
        imagenet(32, copy, prepared=out, crop=False, progress=False)
    with pytest.raises(ValueError, match=r"prepared with other settings: name .was imagenet32, now imagenet64."):
        imagenet(64, copy, prepared=out, progress=False)
    prepare(copy, out)


def test_half_a_preparation_that_was_altered_is_an_error(tree, tmp_path, monkeypatch):
    out = tmp_path / "out"
    interrupted(tree, out, monkeypatch, after=18)
    path = out / "train.pixels"
    content = path.read_bytes()
    path.write_bytes(content[:5000])
    with pytest.raises(ValueError, match=r"train.pixels is shorter than journal.json says: it is altered; delete"):
        prepare(tree, out)
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(ValueError, match=r"train.pixels is altered: rows 0 to 3 have SHA-256"):
        prepare(tree, out)
    assert not (out / "manifest.json").exists()
    (out / "journal.json").write_text("{")
    with pytest.raises(ValueError, match=r"journal.json is damaged .*delete .*out and prepare it again"):
        prepare(tree, out)


def test_a_photograph_that_vanishes_is_named(tree, tmp_path, monkeypatch):
    copy, out = tmp_path / "tree", tmp_path / "out"
    shutil.copytree(tree, copy)
    gone = copy / "train" / "n01440764" / "9.JPEG"
    prepare_photographs = PHOTOGRAPHS.photograph_shards

    def then_remove(*arguments, **keywords):
        shards = prepare_photographs(*arguments, **keywords)
        gone.unlink(missing_ok=True)
        return shards

    monkeypatch.setattr(importlib.import_module("fmcore.data.imagenet"), "photograph_shards", then_remove)
    with pytest.raises(FileNotFoundError, match="9.JPEG"):
        prepare(copy, out)
