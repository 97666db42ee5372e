"""CIFAR-100: its official files, and files that are damaged, missing or malicious."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest

from pmi_cl.datasets.files import cifar100_files
from pmi_cl.datasets.seq_cifar100 import SeqCifar100
from pmi_cl.errors import UserError


def test_cifar_against_the_files(cifar100_dir: Path) -> None:
    dataset = SeqCifar100(SimpleNamespace(base_path=str(cifar100_dir)), "cpu")
    with (cifar100_dir / "cifar-100-python" / "test").open("rb") as file:
        raw = pickle.load(file, encoding="latin1")
    with (cifar100_dir / "cifar-100-python" / "meta").open("rb") as file:
        names = pickle.load(file, encoding="latin1")["fine_label_names"]
    assert dataset.class_order[:3] == [23, 8, 11]
    assert dataset.class_names == [names[k] for k in dataset.class_order]
    numpy.testing.assert_array_equal(dataset.test.images.flatten(1).numpy(), raw["data"])
    assert dataset.test.labels.tolist() == [dataset.class_order.index(k) for k in raw["fine_labels"]]
    assert [len(dataset.train_indices(task)) for task in range(10)] == [5000] * 10
    assert dataset.steps_per_epoch(0, 128) == 39


@pytest.fixture
def cifar_files(cifar100_dir: Path, tmp_path: Path) -> Path:
    """Return a ``base_path`` with links to the real files, which a test may replace."""
    (tmp_path / "cifar-100-python").mkdir()
    for name in cifar100_files.FILES:
        (tmp_path / "cifar-100-python" / name).symlink_to((cifar100_dir / "cifar-100-python" / name).resolve())
    return tmp_path


def test_a_truncated_cifar_file_is_refused_without_reading_it(cifar_files: Path) -> None:
    broken = cifar_files / "cifar-100-python" / "train"
    broken.unlink()
    broken.write_bytes(b"short")
    with pytest.raises(UserError, match=r"train has 5 bytes, not 155249918: delete it"):
        SeqCifar100.check(SimpleNamespace(base_path=str(cifar_files)))


def test_a_changed_cifar_file_is_refused_before_it_is_unpickled(cifar_files: Path) -> None:
    changed = cifar_files / "cifar-100-python" / "meta"
    content = bytearray(changed.read_bytes())
    changed.unlink()
    content[700] ^= 1
    changed.write_bytes(content)
    with pytest.raises(UserError, match=r"meta is damaged \(md5:.*delete it"):
        SeqCifar100(SimpleNamespace(base_path=str(cifar_files)), "cpu")


class Malicious:
    """An object whose pickle would create a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "was here"
    content = pickle.dumps({b"fine_label_names": Malicious(marker)}, protocol=2)
    (tmp_path / "cifar-100-python").mkdir()
    (tmp_path / "cifar-100-python" / "meta").write_bytes(content)
    # As if somebody had made a file with the right checksum: only then is it unpickled at all.
    monkeypatch.setitem(cifar100_files.FILES, "meta", (len(content), f"md5:{hashlib.md5(content).hexdigest()}"))
    with pytest.raises(UserError, match="not plain data"):
        cifar100_files.read_file(tmp_path, "meta")
    assert not marker.exists()


def test_missing_cifar_is_an_error_only_when_offline(tmp_path: Path) -> None:
    SeqCifar100.check(SimpleNamespace(base_path=str(tmp_path)))
    for refuse in (SeqCifar100.check, lambda args: SeqCifar100(args, "cpu")):
        with pytest.raises(UserError) as caught:
            refuse(SimpleNamespace(base_path=str(tmp_path / "data"), offline=True))
        message = str(caught.value)
        assert f"download {cifar100_files.URL} and put it at {tmp_path / 'data' / 'cifar-100-python.tar.gz'}" in message
    assert list(tmp_path.iterdir()) == []


def test_an_archive_that_the_user_put_there_is_unpacked(
    cifar100_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(tmp_path / cifar100_files.ARCHIVE, "w") as tar:
        tar.add(cifar100_dir / "cifar-100-python", "cifar-100-python")
    digest = hashlib.md5((tmp_path / cifar100_files.ARCHIVE).read_bytes()).hexdigest()
    monkeypatch.setattr(cifar100_files, "ARCHIVE_DIGEST", f"md5:{digest}")  # of our own archive of the official files
    dataset = SeqCifar100(
        SimpleNamespace(base_path=str(tmp_path), offline=True, n_classes=10, n_tasks=5, train_per_class=2), "cpu"
    )
    assert len(dataset.train.labels) == 20


def test_the_templates_of_cifar() -> None:
    assert len(SeqCifar100.TEMPLATES) == 18
