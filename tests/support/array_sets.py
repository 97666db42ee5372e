"""Small image sets in the files of CIFAR-10, MNIST, Fashion-MNIST and SVHN."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy
import pytest
from scipy.io import savemat

from pmi_cl.datasets import seq_cifar10
from pmi_cl.datasets.files.array_files import ArrayFiles
from pmi_cl.datasets.files.idx_images import IdxImages
from pmi_cl.datasets.seq_cifar10 import SeqCifar10
from pmi_cl.datasets.seq_fashion_mnist import SeqFashionMnist
from pmi_cl.datasets.seq_mnist import SeqMnist
from pmi_cl.datasets.seq_svhn import SeqSvhn
from tests.support.image_sets import write

TRAIN, TEST = 20, 5  # images of each class


class Python2Pickler(pickle._Pickler):
    """Write bytes as Python 2 wrote its strings, as the files of CIFAR have them."""

    dispatch = {**pickle._Pickler.dispatch}  # noqa: RUF012

    def save_text_of_bytes(self, value: bytes) -> None:
        self.write(b"T" + struct.pack("<I", len(value)) + value)  # type: ignore[attr-defined]

    dispatch[bytes] = save_text_of_bytes


def python2_pickle(content: Any) -> bytes:
    """Return a pickle as Python 2 and its NumPy wrote it."""
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(content)
    return file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def idx(array: numpy.ndarray) -> bytes:
    """Return an array of bytes as the content of a compressed IDX file."""
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(head + array.tobytes(), compresslevel=1, mtime=0)


def noise(kind: type[ArrayFiles], count: int, seed: int) -> numpy.ndarray:
    """Return random pixels uint8 (count, c, h, w) of the data set's mean and deviation.

    A pixel is black or of one other level.
    """
    mean, std = (numpy.array(values)[:, None, None] for values in (kind.MEAN, kind.STD))
    lit = 1 / (1 + (std / mean) ** 2)
    random = numpy.random.default_rng(seed).random((count, len(kind.MEAN), *kind.SIZE))
    return ((random < lit) * (mean / lit).clip(0, 1) * 255).round().astype(numpy.uint8)


def labels_of(count: int) -> numpy.ndarray:
    """Return the labels of ``count`` images of each class, shuffled."""
    return numpy.random.default_rng(count).permutation(numpy.repeat(numpy.arange(10), count))


def md5(path: Path) -> str:
    return f"md5:{hashlib.md5(path.read_bytes()).hexdigest()}"


def write_cifar10(base: Path, patch: pytest.MonkeyPatch) -> None:
    """Write the batches of CIFAR-10, and let their digests be the known ones."""
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    parts = {"TRAIN": (seq_cifar10.TRAIN, TRAIN), "TEST": (seq_cifar10.TEST, TEST)}
    for name, (files, count) in parts.items():
        images, labels = noise(SeqCifar10, 10 * count, count).reshape(10 * count, -1), labels_of(count)
        for file, rows in zip(files, numpy.array_split(numpy.arange(10 * count), len(files)), strict=True):
            content = {b"data": images[rows], b"labels": labels[rows].tolist()}
            write(base / "cifar-10-batches-py" / file, python2_pickle(content))
        patch.setattr(seq_cifar10, name, {file: md5(base / "cifar-10-batches-py" / file) for file in files})
    meta = python2_pickle({b"label_names": [name.encode() for name in names]})
    path = write(base / "cifar-10-batches-py" / "batches.meta", meta)
    patch.setattr(seq_cifar10, "META", {"batches.meta": md5(path)})


def write_mnist(base: Path, patch: pytest.MonkeyPatch, kind: type[IdxImages] = SeqMnist) -> None:
    """Write the four files of MNIST or Fashion-MNIST, and let their digests be the known ones."""
    for count, (images, labels) in ((TRAIN, kind.DOWNLOADS[:2]), (TEST, kind.DOWNLOADS[2:])):
        write(base / images.file, idx(noise(kind, 10 * count, count)[:, 0]))
        write(base / labels.file, idx(labels_of(count).astype(numpy.uint8)))
    know(base, patch, kind)


def write_svhn(base: Path, patch: pytest.MonkeyPatch) -> None:
    """Write the two files of SVHN, one compressed, and let their digests be the known ones."""
    for count, download in ((TRAIN, SeqSvhn.DOWNLOADS[0]), (TEST, SeqSvhn.DOWNLOADS[1])):
        pixels, labels = noise(SeqSvhn, 10 * count, count).transpose(2, 3, 1, 0), labels_of(count)
        content = {"X": pixels, "y": numpy.where(labels == 0, 10, labels)[:, None].astype(numpy.uint8)}
        savemat(base / download.file, content, do_compression=count == TRAIN)
    know(base, patch, SeqSvhn)


def know(base: Path, patch: pytest.MonkeyPatch, kind: type[ArrayFiles]) -> None:
    """Let the digests of the files that are there be the known ones."""
    files = tuple(dataclasses.replace(one, digest=md5(base / one.file)) for one in kind.DOWNLOADS)
    patch.setattr(kind, "DOWNLOADS", files)


def write_array_sets(base: Path, patch: pytest.MonkeyPatch) -> Path:
    """Write all four sets. Return their ``base_path``."""
    write_cifar10(base, patch)
    write_mnist(base, patch)
    write_mnist(base, patch, SeqFashionMnist)
    write_svhn(base, patch)
    return base
