"""CIFAR-10: from a folder, an archive or a server, and the 60,000 real images where they are at hand."""

import hashlib
import http.server
import importlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from fmcore.data import cifar10, scale

MODULE = importlib.import_module("fmcore.data.cifar10")
NAMES = [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]
PER_FILE = 30
REPOSITORY = Path(__file__).resolve().parents[1]


def write_batches(folder, files):
    folder.mkdir(parents=True)
    for name, records in zip(NAMES, files, strict=True):
        (folder / name).write_bytes(records.tobytes())


def write_archive(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, records in zip(NAMES, files, strict=True):
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = records.nbytes
            tar.addfile(info, io.BytesIO(records.tobytes()))


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Six files of 30 records, and the package made to expect them; returns the files, (30, 3073) each."""
    generator = np.random.default_rng(0)
    files = generator.integers(0, 256, (6, PER_FILE, 3073)).astype(np.uint8)
    files[:, :, 0] = np.arange(PER_FILE) % 10
    for split, part in (("train", files[:5]), ("held_out", files[5:])):
        digests = sorted(hashlib.sha256(record.tobytes()).digest() for record in part.reshape(-1, 3073))
        monkeypatch.setitem(MODULE.SHA256, split, hashlib.sha256(b"".join(digests)).hexdigest())
    monkeypatch.setattr(MODULE, "RECORDS", PER_FILE)
    write_archive(tmp_path / "server.tar.gz", files)
    monkeypatch.setattr(MODULE, "ARCHIVE_MD5", hashlib.md5((tmp_path / "server.tar.gz").read_bytes()).hexdigest())
    return files


@pytest.fixture
def server(monkeypatch):
    """A web server of one file; returns a dictionary with its content, status and announced length."""
    answer = {"content": b"", "status": 200, "length": None, "requests": 0}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer["requests"] += 1
            self.send_response(answer["status"])
            self.send_header("Content-Length", str(answer["length"] or len(answer["content"])))
            self.end_headers()
            self.wfile.write(answer["content"])

        def log_message(self, *args):
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setattr(MODULE, "URL", f"http://127.0.0.1:{running.server_port}/cifar-10-binary.tar.gz")
        yield answer
        running.shutdown()
        thread.join()


def contents(images, labels):
    return sorted(
        bytes([label]) + image.numpy().tobytes() for image, label in zip(images, labels.tolist(), strict=True)
    )


def check_complete(data, files):
    assert contents(data.train, data.train_labels) == sorted(record.tobytes() for record in files[:5].reshape(-1, 3073))
    assert contents(data.held_out, data.held_out_labels) == sorted(record.tobytes() for record in files[5])
    assert data.train.dtype == torch.uint8
    assert data.train_labels.dtype == torch.int64
    assert (data.name, data.shape, data.levels, data.num_classes) == ("cifar10", (3, 32, 32), 256, 10)
    assert data.classes[0] == "airplane"
    assert data.classes[9] == "truck"


def test_the_folder_of_the_files_and_the_one_around_it_are_accepted(tmp_path, small):
    write_batches(tmp_path / "cifar-10-batches-bin", small)
    check_complete(cifar10(tmp_path / "cifar-10-batches-bin", download=False), small)
    check_complete(cifar10(str(tmp_path), download=False), small)
    (tmp_path / "cifar-10-batches-bin").rename(tmp_path / "renamed")
    check_complete(cifar10(tmp_path / "renamed", download=False), small)


def test_each_pixel_is_where_the_format_says(tmp_path, small):
    write_batches(tmp_path / "cifar-10-batches-bin", small)
    data = cifar10(tmp_path, download=False)
    for record in small[5]:
        (image,) = (
            image for image in data.held_out if int(image[0, 0, 0]) == record[1] and image[2, 31, 31] == record[-1]
        )
        red, green, blue = np.split(record[1:], 3)
        assert image[0, 3, 7] == red[3 * 32 + 7]
        assert image[1, 31, 0] == green[31 * 32]
        assert image[2, 0, 31] == blue[31]


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_records_makes_no_difference(tmp_path, small, seed):
    write_batches(tmp_path / "official" / "cifar-10-batches-bin", small)
    official = cifar10(tmp_path / "official", download=False)
    generator = np.random.default_rng(seed)
    train = generator.permutation(small[:5].reshape(-1, 3073)).reshape(5, PER_FILE, 3073)
    write_batches(tmp_path / "other" / "cifar-10-batches-bin", [*train, generator.permutation(small[5])])
    other = cifar10(tmp_path / "other", download=False)
    for field in ("train", "held_out", "train_labels", "held_out_labels"):
        assert torch.equal(getattr(official, field), getattr(other, field)), field


def test_an_archive_in_the_folder_is_unpacked_without_the_network(tmp_path, small, monkeypatch):
    monkeypatch.setattr(MODULE, "URL", "http://127.0.0.1:9/nobody-listens")
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "server.tar.gz").rename(root / "cifar-10-binary.tar.gz")
    check_complete(cifar10(root), small)
    check_complete(cifar10(root / "cifar-10-batches-bin"), small)


def test_the_archive_is_downloaded_once_with_a_bar(tmp_path, small, server, capfd):
    server["content"] = (tmp_path / "server.tar.gz").read_bytes()
    check_complete(cifar10(tmp_path / "new" / "root"), small)
    assert "100%" in capfd.readouterr().err
    check_complete(cifar10(tmp_path / "new" / "root"), small)
    check_complete(cifar10(tmp_path / "new" / "root" / "cifar-10-batches-bin"), small)
    assert server["requests"] == 1


def test_no_bar_when_none_is_wanted(tmp_path, small, server, capfd):
    server["content"] = (tmp_path / "server.tar.gz").read_bytes()
    cifar10(tmp_path / "root", progress=False)
    assert "%" not in capfd.readouterr().err


def test_what_arrives_must_be_the_archive(tmp_path, small, server):
    root, whole = tmp_path / "root", (tmp_path / "server.tar.gz").read_bytes()
    altered = bytearray(whole)
    altered[len(whole) // 2] ^= 1
    for answer, reason in (
        ({"content": bytes(altered)}, "does not match the known hash"),
        ({"content": whole[:-9]}, "does not match the known hash"),
        ({"content": whole[:-9], "length": len(whole)}, "IncompleteRead"),
        ({"content": b"moved", "status": 404, "length": None}, "404"),
    ):
        server.update(answer)
        with pytest.raises(
            OSError, match=rf"(?s)cannot download http.*{reason}.*Run again, or get the file by other means"
        ):
            cifar10(root, progress=False)
        assert [path.name for path in root.iterdir() if path.name != ".lock"] == []


def test_nobody_answers(tmp_path, small, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(MODULE, "URL", "http://127.0.0.1:9/cifar-10-binary.tar.gz")
    with pytest.raises(OSError, match="cannot download http://127.0.0.1:9.*get the file by other means"):
        cifar10(tmp_path / "root", progress=False)


def test_a_truncated_archive_is_an_error_or_replaced(tmp_path, small, server):
    whole = (tmp_path / "server.tar.gz").read_bytes()
    root = tmp_path / "root"
    root.mkdir()
    (root / "cifar-10-binary.tar.gz").write_bytes(whole[:5000])
    with pytest.raises(
        ValueError, match=r"cifar-10-binary.tar.gz is truncated or altered \(md5 .*delete it and get http"
    ):
        cifar10(root, download=False)
    server.update(content=b"", status=500)
    with pytest.raises(OSError, match="(?s)cannot download.*cifar-10-binary.tar.gz is truncated or altered"):
        cifar10(root, progress=False)
    server.update(content=whole, status=200)
    check_complete(cifar10(root, progress=False), small)


def test_an_archive_that_names_a_path_outside_is_refused(tmp_path, small, monkeypatch):
    root = tmp_path / "root"
    root.mkdir()
    with tarfile.open(root / "cifar-10-binary.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("cifar-10-batches-bin/../../escaped"))
    content = (root / "cifar-10-binary.tar.gz").read_bytes()
    monkeypatch.setattr(MODULE, "ARCHIVE_MD5", hashlib.md5(content).hexdigest())
    with pytest.raises(ValueError, match="path outside its folder .*nothing of it was unpacked"):
        cifar10(root, download=False)
    assert not (tmp_path / "escaped").exists()


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path(os.environ["BOMB"]),)


@pytest.mark.parametrize("inside", ["cifar-10-batches-py", "."])
def test_the_pickled_version_is_refused_unread(tmp_path, monkeypatch, inside):
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    root = tmp_path / "root"
    (root / inside).mkdir(parents=True)
    for name in ("batches.meta", "data_batch_1", "test_batch"):
        (root / inside / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(
        ValueError, match=r"pickled version .*never read.*get https://www.cs.toronto.edu.*binary.tar.gz"
    ):
        cifar10(root)
    assert not (tmp_path / "exploded").exists()


def test_the_archive_of_the_pickled_version_is_refused(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="cifar-10-python.tar.gz is the pickled version"):
        cifar10(tmp_path)


def test_a_folder_without_the_data(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(
        FileNotFoundError, match="holds neither cifar-10-batches-bin nor cifar-10-binary.tar.gz: get https"
    ):
        cifar10(tmp_path, download=False)
    with pytest.raises(FileNotFoundError, match="or allow the download"):
        cifar10(tmp_path / "missing", download=False)
    assert not (tmp_path / "missing").exists()


def test_damaged_files_are_named(tmp_path, small):
    batches = tmp_path / "cifar-10-batches-bin"
    write_batches(batches, small)
    path = batches / "data_batch_3.bin"
    whole = path.read_bytes()

    path.write_bytes(whole[:-1])
    with pytest.raises(
        ValueError, match=r"data_batch_3.bin has 92,189 bytes, expected 92,190 .*Delete the folder and get"
    ):
        cifar10(tmp_path, download=False)

    path.write_bytes(whole[: 4 * 3073] + b"\x0a" + whole[4 * 3073 + 1 :])
    with pytest.raises(ValueError, match=r"data_batch_3.bin: record 4 has label 10, expected 0..9"):
        cifar10(tmp_path, download=False)

    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"data_batch_3.bin.* do not hold the 150 images of CIFAR-10"):
        cifar10(tmp_path, download=False)

    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_3.bin is missing: delete the folder and get"):
        cifar10(tmp_path, download=False)


@pytest.fixture
def real(tmp_path):
    """A folder with the 60,000 real images."""
    if "FMCORE_CIFAR10" in os.environ:
        return Path(os.environ["FMCORE_CIFAR10"])
    script = REPOSITORY.parent / "shared" / "datasets" / "unpack_cifar10.py"
    if not script.exists():
        pytest.skip("the real CIFAR-10 is not here: name the folder that holds it in FMCORE_CIFAR10")
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, capture_output=True, timeout=120)
    return tmp_path


def test_the_real_images(real):
    data = cifar10(real, download=False)
    assert (len(data.train), len(data.held_out)) == (50_000, 10_000)
    assert torch.bincount(data.train_labels).tolist() == [5000] * 10
    assert torch.bincount(data.held_out_labels).tolist() == [1000] * 10

    # The mean and standard deviation of each channel that are found all over the literature.
    greys, counts = np.arange(256) / 255, np.zeros((3, 256))
    norms = {"-1 to 1": 0.0, "middles of bins": 0.0}
    for part in data.train.split(5000):
        for channel in range(3):
            counts[channel] += np.bincount(part[:, channel].reshape(-1).numpy(), minlength=256)
        norms["-1 to 1"] += float((part.flatten(1).float() / 127.5 - 1).norm(dim=1).mean()) / 10
        norms["middles of bins"] += float(scale(part).flatten(1).norm(dim=1).mean()) / 10
    mean = counts @ greys / (50_000 * 1024)
    assert mean.tolist() == pytest.approx([0.49139968, 0.48215841, 0.44653091], abs=1e-8)
    spread = np.sqrt(counts @ greys**2 / (50_000 * 1024) - mean**2)
    assert spread.tolist() == pytest.approx([0.24703223, 0.24348513, 0.26158784], abs=1e-8)
    # The mean norm of Lee et al. 2025 is on the scale where black is -1 and white is 1.
    assert norms == pytest.approx({"-1 to 1": 27.198, "middles of bins": 27.092}, abs=5e-4)

    train = {hashlib.sha256(image.numpy().tobytes()).digest() for image in data.train}
    assert len(train) == 50_000
    assert train.isdisjoint(hashlib.sha256(image.numpy().tobytes()).digest() for image in data.held_out)

    # One pixel, and two labels that are exchanged: neither changes a size or a count.
    if "FMCORE_CIFAR10" not in os.environ:
        path = real / "cifar-10-batches-bin" / "test_batch.bin"
        records = np.memmap(path, np.uint8, "r+", shape=(10_000, 3073))
        records[123, 2000] ^= 1
        records.flush()
        with pytest.raises(ValueError, match=r"test_batch.bin in .* do not hold the 10,000 images of CIFAR-10"):
            MODULE.read_split(path.parent, "held_out")
        records[123, 2000] ^= 1
        other = int((records[:, 0] != records[0, 0]).argmax())
        records[[0, other], 0] = records[[other, 0], 0]
        records.flush()
        with pytest.raises(
            ValueError, match=r"\[1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000\] images per class"
        ):
            MODULE.read_split(path.parent, "held_out")
