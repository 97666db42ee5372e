"""Test archives as whole folders: fetched if missing, unpacked with suspicion, used when whole."""

from __future__ import annotations

import hashlib
import io
import stat
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pmi_cl.cli import main
from pmi_cl.datasets import seq_tinyimg
from pmi_cl.datasets.files import downloads
from pmi_cl.datasets.files.downloads import Download
from pmi_cl.datasets.files.unpacking import unpack_folder
from pmi_cl.datasets.seq_tinyimg import SeqTinyImageNet
from pmi_cl.errors import UserError
from tests.support.image_sets import write, write_tiny

FILES = {"set/a.txt": b"1", "set/deep/er/b.txt": b"22", "beside.txt": b"3", "other/c.txt": b"4"}


def zipped(path: Path, files: dict[str, bytes], *more: zipfile.ZipInfo) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
        for info in more:
            file.writestr(info, "target")
    return path


def tarred(path: Path, files: dict[str, bytes], *more: tarfile.TarInfo, mode: Any = "w:gz") -> Path:
    with tarfile.open(path, mode) as file:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        for info in more:
            file.addfile(info)
    return path


def quietly(done: int, total: int) -> None:
    """Take a report of progress and say nothing."""


def below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_check_says_what_a_run_will_fetch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for dataset, file in (("seq-cifar100", "cifar-100-python.tar.gz"), ("seq-tinyimg", "tiny-imagenet-200.zip")):
        words = [
            "--model",
            "sgd",
            "--dataset",
            dataset,
            "--base_path",
            str(tmp_path),
            "--results_path",
            str(tmp_path / "runs"),
            "--check",
        ]
        assert main(words) == 0
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("the run will first fetch http") and line.endswith(f"{file} into {tmp_path / file}")
        (tmp_path / file).touch()
        assert main(words) == 0 and capsys.readouterr().err == ""


@pytest.mark.parametrize("make", [zipped, tarred])
def test_one_folder_is_unpacked_whole(make: Any, tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", {"./": b"", **FILES} if make is zipped else FILES)
    told: list[tuple[int, int]] = []
    unpack_folder(archive, tmp_path, "set", lambda *amounts: told.append(amounts))
    assert below(tmp_path / "set") == {"a.txt": b"1", "deep/er/b.txt": b"22"}
    assert {path.name for path in tmp_path.iterdir()} == {"archive", "set"}
    assert told[-1][0] == told[-1][1] and sorted(told) == told


def test_names_that_start_with_a_dot_and_a_slash(tmp_path: Path) -> None:
    folder = tarfile.TarInfo("./")
    folder.type = tarfile.DIRTYPE
    unpack_folder(tarred(tmp_path / "a.tgz", {"./set/a.txt": b"1"}, folder), tmp_path, "set", quietly)
    assert below(tmp_path / "set") == {"a.txt": b"1"}


@pytest.mark.parametrize("name", ["../outside", "set/../../outside", "/tmp/outside", "C:/outside"])
@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_path_that_leaves_the_folder_is_refused(make: Any, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    with pytest.raises(UserError, match="which no data set holds, and was not unpacked: delete it"):
        unpack_folder(make(tmp_path / "archive", {"set/a.txt": b"1", name: b"2"}), folder, "set", quietly)
    assert list(folder.iterdir()) == [] and {path.name for path in tmp_path.iterdir()} == {"archive", "inner"}


def test_links_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("set/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    tar_link = tarfile.TarInfo("set/link")
    tar_link.type, tar_link.linkname = tarfile.SYMTYPE, "/etc"
    for archive in (zipped(tmp_path / "a.zip", FILES, link), tarred(tmp_path / "a.tgz", FILES, tar_link)):
        with pytest.raises(UserError, match="holds 'set/link'"):
            unpack_folder(archive, tmp_path, "set", quietly)
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip", "a.tgz"}


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("damage", ["cut", "garbage", "another folder"])
def test_a_damaged_archive_leaves_nothing(make: Any, damage: str, tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", {"other/a.txt": b"1"} if damage == "another folder" else FILES)
    if damage == "cut":
        archive.write_bytes(archive.read_bytes()[:150])
    if damage == "garbage":
        archive.write_bytes(b"garbage" * 200)
    with pytest.raises(UserError, match=r"cannot unpack .*: make room, or delete it|lacks the folder set: delete it"):
        unpack_folder(archive, tmp_path, "set", quietly)
    assert {path.name for path in tmp_path.iterdir()} == {"archive"}


def test_a_zip_file_that_ends_too_early_is_called_so(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "tiny-imagenet-200.zip", FILES)
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"200\.zip \(no whole zip file: its end is missing\): make room, or"):
        unpack_folder(archive, tmp_path, "set", quietly)
    assert list(tmp_path.iterdir()) == [archive]


def test_tiny_is_fetched_unpacked_and_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with a network. ``fetch`` is replaced by a copy of our own archive."""
    write_tiny(tmp_path / "elsewhere", classes=200, train=1, test=1)
    archive = zipped(
        tmp_path / "tiny.zip", {**below(tmp_path / "elsewhere"), "tiny-imagenet-200/test/images/test_0.JPEG": b"?"}
    )
    asked = []

    def fetched(url: str, target: Path, digest: str, progress: Any) -> None:
        asked.append((url, digest))
        progress(2**20 + 1, 3 * 2**20)
        write(target, archive.read_bytes())

    monkeypatch.setattr(downloads, "fetch", fetched)
    args, told = SimpleNamespace(base_path=str(tmp_path / "data")), []
    SeqTinyImageNet.check(SimpleNamespace(base_path=args.base_path, n_classes=20))
    assert not (tmp_path / "data").exists()
    dataset = SeqTinyImageNet(
        SimpleNamespace(base_path=args.base_path, n_classes=20), "cpu", lambda *state: told.append(state)
    )
    assert asked == [("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "md5:90528d7ca1a48142e341f4ef8d21d0de")]
    assert len(dataset.train.labels) == 20
    assert told[0] == ("downloading tiny-imagenet-200.zip (MiB)", 2, 3) and told[-1] == ("decoding images", 400, 400)
    assert ("unpacking tiny-imagenet-200.zip", 404, 404) in told
    SeqTinyImageNet(args, "cpu")
    assert len(asked) == 1


def test_an_archive_that_lies_there_is_checked_and_used_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny(tmp_path / "elsewhere", classes=200, train=1, test=1)
    (tmp_path / "data").mkdir()
    archive = zipped(tmp_path / "data" / "tiny-imagenet-200.zip", below(tmp_path / "elsewhere"))
    args = SimpleNamespace(base_path=str(tmp_path / "data"), offline=True, n_classes=20)
    SeqTinyImageNet.check(args)
    with pytest.raises(
        UserError, match=r"tiny-imagenet-200.zip is damaged \(md5:.*delete it to download http://cs231n"
    ):
        SeqTinyImageNet(args, "cpu")
    digest = f"md5:{hashlib.md5(archive.read_bytes()).hexdigest()}"
    monkeypatch.setattr(
        seq_tinyimg, "ARCHIVE", Download(seq_tinyimg.ARCHIVE.url, digest, archive.name, "tiny-imagenet-200")
    )
    assert len(SeqTinyImageNet(args, "cpu").test.labels) == 20
