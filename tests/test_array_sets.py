"""CIFAR-10, MNIST, Fashion-MNIST and SVHN: their files, whole, damaged, missing and malicious."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from scipy.io import savemat

from pmi_cl.cli import main
from pmi_cl.datasets import seq_cifar10
from pmi_cl.datasets.files.array_files import ArrayFiles
from pmi_cl.datasets.files.idx_arrays import read_idx
from pmi_cl.datasets.files.idx_images import IdxImages
from pmi_cl.datasets.files.mat_arrays import read_mat
from pmi_cl.datasets.seq_cifar10 import SeqCifar10
from pmi_cl.datasets.seq_fashion_mnist import SeqFashionMnist
from pmi_cl.datasets.seq_mnist import SeqMnist
from pmi_cl.datasets.seq_svhn import SeqSvhn
from pmi_cl.errors import UserError
from tests.support.array_sets import (
    TEST,
    TRAIN,
    idx,
    know,
    labels_of,
    md5,
    noise,
    python2_pickle,
    write_cifar10,
    write_mnist,
    write_svhn,
)

WRITERS: dict[type[ArrayFiles], Callable[[Path, pytest.MonkeyPatch], None]] = {
    SeqCifar10: write_cifar10,
    SeqMnist: write_mnist,
    SeqFashionMnist: lambda base, patch: write_mnist(base, patch, SeqFashionMnist),
    SeqSvhn: write_svhn,
}
KINDS = list(WRITERS)


def opened(kind: type[ArrayFiles], base: Path, **values: Any) -> ArrayFiles:
    return kind(SimpleNamespace(base_path=str(base), **values), "cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_images_and_labels_are_those_of_the_files(
    kind: type[ArrayFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS[kind](tmp_path, monkeypatch)
    dataset = opened(kind, tmp_path, offline=True)
    for split, count in ((dataset.train, TRAIN), (dataset.test, TEST)):
        pixels = split.pixels(torch.arange(10 * count)).numpy()
        expected = noise(kind, 10 * count, count)
        if issubclass(kind, IdxImages):  # grey: the first channel is in the file
            expected = expected[:, :1].repeat(3, 1)
        numpy.testing.assert_array_equal(pixels, expected)
        assert split.labels.tolist() == labels_of(count).tolist()  # so SVHN's digit 10 is 0
    assert len(dataset.class_names) == 10 and dataset.N_TASKS == 5


def test_what_a_mirror_image_is_of_the_same_class() -> None:
    assert [kind.FLIP for kind in KINDS] == [True, False, True, False]


@pytest.mark.parametrize("kind", KINDS)
def test_missing_files_are_refused_offline_in_one_line_that_says_what_to_put_where(
    kind: type[ArrayFiles], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", "sgd", "--dataset", kind.NAME, "--base_path", str(tmp_path), "--offline", "1", "--check"]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    for download in kind.DOWNLOADS:
        assert Path(download.file).name in line and download.url.rpartition("/")[0] in line
    assert str((tmp_path / kind.DOWNLOADS[0].file).parent) in line and list(tmp_path.iterdir()) == []


def test_only_what_is_missing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, monkeypatch)
    (tmp_path / SeqMnist.DOWNLOADS[2].file).unlink()
    args = SimpleNamespace(base_path=str(tmp_path))
    assert SeqMnist.missing_files(args) == [(SeqMnist.DOWNLOADS[2].url, tmp_path / SeqMnist.DOWNLOADS[2].file)]


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        (SeqCifar10, "cifar-10-batches-py/data_batch_3"),
        (SeqMnist, "MNIST/raw/t10k-labels-idx1-ubyte.gz"),
        (SeqSvhn, "test_32x32.mat"),
    ],
)
def test_a_changed_file_is_refused_before_it_is_read(
    kind: type[ArrayFiles], file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS[kind](tmp_path, monkeypatch)
    path = tmp_path / file
    content = bytearray(path.read_bytes())
    content[200 % len(content)] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged \(md5:.*delete .* fetches it again"):
        opened(kind, tmp_path)


def test_a_batch_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path, monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "test_batch").unlink()
    with pytest.raises(UserError, match=r"test_batch is missing: delete .*cifar-10-batches-py, and the next run"):
        opened(SeqCifar10, tmp_path)


class Malicious:
    """An object whose pickle would create a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_batch_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path, monkeypatch)
    path, marker = tmp_path / "cifar-10-batches-py" / "batches.meta", tmp_path / "was here"
    path.write_bytes(python2_pickle({b"label_names": Malicious(marker)}))
    monkeypatch.setattr(seq_cifar10, "META", {"batches.meta": md5(path)})
    with pytest.raises(UserError, match="not plain data"):
        opened(SeqCifar10, tmp_path)
    assert not marker.exists()


def test_images_without_their_labels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, monkeypatch)
    (tmp_path / SeqMnist.DOWNLOADS[3].file).write_bytes(idx(labels_of(1).astype(numpy.uint8)))
    know(tmp_path, monkeypatch, SeqMnist)
    with pytest.raises(UserError, match=r"t10k-images.*have the shapes \(50, 28, 28\) and \(10,\)"):
        opened(SeqMnist, tmp_path)


@pytest.mark.parametrize("shape", [(7,), (4, 3), (2, 5, 3)])
def test_idx_files_hold_arrays_of_any_dimensions(shape: tuple[int, ...], tmp_path: Path) -> None:
    array = numpy.random.default_rng(0).integers(0, 256, shape, dtype=numpy.uint8)
    (tmp_path / "x.gz").write_bytes(idx(array))
    numpy.testing.assert_array_equal(read_idx(tmp_path / "x.gz"), array)


WHOLE = gzip.decompress(idx(numpy.arange(12, dtype=numpy.uint8).reshape(3, 4)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip", "no whole gzip file"),
        (gzip.compress(WHOLE)[:-9], "no whole gzip file"),
        *((gzip.compress(wrong), "no IDX file") for wrong in (b"", WHOLE[:-1], WHOLE + b"0", WHOLE[:6])),
        (gzip.compress(WHOLE[:2] + b"\x0d" + WHOLE[3:]), "no IDX file"),  # floats
    ],
    ids=["no gzip", "cut", "empty", "a value less", "a byte more", "a cut head", "floats"],
)
def test_what_is_no_idx_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_idx(tmp_path / "x.gz")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4", "f4", "f8"])
def test_mat_files_of_scipy_are_read(kind: str, compressed: bool, tmp_path: Path) -> None:
    random = numpy.random.default_rng(1)
    arrays = {
        "X": random.integers(0, 100, (3, 2, 5, 4)).astype(kind),
        "name_of_a_long_one": random.integers(0, 9, (7, 1)).astype(kind),
        "z": numpy.array([[3]], kind),
    }
    savemat(tmp_path / "x.mat", arrays, do_compression=compressed)
    found = read_mat(tmp_path / "x.mat")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        numpy.testing.assert_array_equal(found[name], array)


def test_what_is_no_mat_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.mat"
    savemat(path, {"X": numpy.arange(1000)}, do_compression=False)
    whole = path.read_bytes()
    savemat(path, {"X": numpy.arange(1000)}, do_compression=True)
    packed = path.read_bytes()
    for wrong in (b"", b"no", whole[:-8], whole[:140], packed[:-9], whole[:124] + b"\0\2IM" + whole[128:]):
        path.write_bytes(wrong)
        with pytest.raises(UserError, match=r"x\.mat cannot be read \(.+\): delete it"):
            read_mat(path)


def test_a_mat_file_without_images_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_svhn(tmp_path, monkeypatch)
    savemat(tmp_path / "test_32x32.mat", {"X": numpy.zeros((32, 32, 3, 4), numpy.uint8)})
    know(tmp_path, monkeypatch, SeqSvhn)
    with pytest.raises(UserError, match=r"test_32x32\.mat does not hold X and y"):
        opened(SeqSvhn, tmp_path)
