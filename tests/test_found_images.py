"""Test what is found in a folder: links, pipes, system folders, splits, names in any encoding."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pmi_cl.cli import main
from pmi_cl.datasets.files.find_images import find_images
from pmi_cl.datasets.files.image_files import images_below
from pmi_cl.datasets.files.image_folder import class_names, folder_images, list_images
from pmi_cl.datasets.files.split_folders import role_of
from pmi_cl.datasets.seq_folder import SeqFolder
from pmi_cl.errors import UserError
from tests.support.command_runs import results_in
from tests.support.image_sets import make_folder, write_image


def found(root: Path) -> tuple[int, int]:
    """Return how many training and test images a folder has."""
    train, test = list_images(root, class_names(root), 0.2)
    return len(train.paths), len(test.paths)


def refused(root: Path) -> str:
    """Return the error of a folder: --check and the data set itself have the same."""
    messages = set()
    for use in (SeqFolder.check, lambda args: SeqFolder(args, "cpu")):
        with pytest.raises(UserError) as caught:
            use(SimpleNamespace(data_dir=str(root)))
        messages.add(str(caught.value))
    (message,) = messages
    assert "\n" not in message
    return message


# links


def test_linked_folders_and_files_are_read_once_each(tmp_path: Path) -> None:
    store, root = make_folder(tmp_path / "store", classes=2, images=50), make_folder(tmp_path / "data", classes=2)
    for label in ("c0", "c1"):
        (root / label / "more").symlink_to(store / label)
        (root / label / "again").symlink_to(store / label)
        (root / label / "up").symlink_to(root)
        (root / label / "here").symlink_to(".")
        (root / label / "z.png").symlink_to(root / label / "0.png")
    assert found(root) == (88, 22)
    assert folder_images(root, 0.2).notes() == ["left out: 8 links to what is read already"]
    (root / "linked class").symlink_to(make_folder(tmp_path / "third", classes=1) / "c0")
    assert class_names(root) == ["c0", "c1", "linked class"]
    assert found(root) == (92, 23)


def test_a_folder_belongs_to_one_class(tmp_path: Path) -> None:
    root = make_folder(tmp_path, classes=2)
    (root / "c2").symlink_to(root / "c1")
    assert f"{root / 'c1'} and {root / 'c2'} are one folder, but belong to two classes: remove one" in refused(root)
    (root / "c2").unlink()
    (root / "c0" / "more").symlink_to(root / "c1")
    assert f"{root / 'c0' / 'more'} and {root / 'c1'} are one folder" in refused(root)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def bound_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket may have 107 bytes
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(path.name)
    os.chdir(here)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.symlink_to("nowhere.png"), "a link to nowhere.png, which is not there"),
        (lambda path: path.symlink_to(path.name), "a link to z.png, Too many levels of symbolic links"),
        (pipe, "a pipe"),
        (bound_socket, "a socket"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
    ],
    ids=["to nothing", "to itself", "pipe", "socket", "device"],
)
def test_what_cannot_be_read_is_refused_by_its_name(tmp_path: Path, make: Callable[[Path], Any], reason: str) -> None:
    path = make_folder(tmp_path) / "c1" / "z.png"
    make(path)
    assert f"{path} is not a readable image ({reason}): repair it, or take it out" in refused(tmp_path)
    with pytest.raises(UserError, match="is not a readable image"):
        images_below(tmp_path / "c1")


def test_a_file_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_folder(tmp_path) / "c1" / "3.png"
    monkeypatch.setattr(os, "access", lambda name, mode: Path(name) != path)
    assert f"{path} is not a readable image (Permission denied)" in refused(tmp_path)


# what systems leave


def test_system_folders_are_passed_over(tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    for name in ("@eaDir", "__MACOSX", "lost+found", "$RECYCLE.BIN", "System Volume Information", ".git", "#recycle"):
        for place in (root, root / "c0"):
            write_image(place / name / "0.png" / "SYNOPHOTO_THUMB_M.jpg")
            (place / name / "._0.png").write_bytes(b"x")
    assert class_names(root) == ["c0", "c1", "c2", "c3"] and found(root) == (16, 4)
    assert folder_images(root, 0.2).notes() == []


def test_what_is_left_out_is_said_once_with_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_folder(tmp_path / "plain", classes=2)
    for name in ("a.png", "b.jpg", "README.md"):
        (root / name).write_text("beside the classes")
    (root / "Thumbs.db").write_text("nobody asks")
    line = f"{root}: left out: 2 loose images (a.png, b.jpg); 1 other file (README.md)\n"
    args = SimpleNamespace(data_dir=str(root))
    SeqFolder.check(args)
    SeqFolder(args, "cpu")
    assert capsys.readouterr().err == line
    SeqFolder.check(SimpleNamespace(**vars(args), non_verbose=True))
    assert capsys.readouterr().err == ""
    split = make_folder(tmp_path / "split", classes=2, images=3, parts=("train", "test", "val"))
    write_image(split / "train" / "loose.png")
    said = folder_images(split, 0.2).notes()
    assert said == ["left out: 6 images in val/; 1 loose image (loose.png)"]


# splits


@pytest.mark.parametrize(
    ("train", "test", "note"),
    [
        ("train", "test", ""),
        ("Train", "Test", ""),
        ("TRAIN", "test", ""),
        ("training", "validation", "tested on validation/, as there is no test folder"),
        ("train", "val", "tested on val/, as there is no test folder"),
        ("Train", "Valid", "tested on Valid/, as there is no test folder"),
        ("seg_train/seg_train", "seg_test/seg_test", ""),
        ("seg_train", "seg_test", ""),
        ("training_set", "test_set", ""),
    ],
)
def test_the_usual_names_of_splits(tmp_path: Path, train: str, test: str, note: str) -> None:
    make_folder(tmp_path, images=3, parts=(train,))
    make_folder(tmp_path, images=2, parts=(test,))
    assert class_names(tmp_path) == ["c0", "c1", "c2", "c3"] and found(tmp_path) == (12, 8)
    assert folder_images(tmp_path, 0.2).notes() == ([note] if note else [])


def test_a_test_folder_comes_before_a_validation_folder(tmp_path: Path) -> None:
    make_folder(tmp_path, images=3, parts=("train", "val"))
    make_folder(tmp_path, images=2, parts=("test",))
    assert found(tmp_path) == (12, 8)


def test_a_folder_beside_the_splits_is_left_out(tmp_path: Path) -> None:
    root = make_folder(tmp_path, images=3, parts=("train", "val", "docs"))
    assert found(root) == (12, 12)
    assert folder_images(root, 0.2).notes()[1:] == ["left out: 12 images in docs/"]


@pytest.mark.parametrize(
    ("parts", "seen"),
    [
        (("train",), "has train/ (4 folders): it needs both train/ and test/ (or val/)"),
        (("test", "val"), "has test/ (4 folders), val/ (4 folders): it needs both"),
        (("Train", "training", "test"), "has Train/ and training/, which both look like train folders"),
        (("fold1", "fold2"), "fold1/ and fold2/ both hold c0/, c1/, c2/, ... and no image, as splits do"),
        (("Trainingsbilder", "Testbilder"), "Testbilder/ and Trainingsbilder/ both hold c0/, c1/, c2/, ..."),
        (("train/a", "train/b", "test/a", "test/b"), "train: a/ and b/ both hold c0/, c1/, c2/, ..."),
    ],
)
def test_what_looks_like_a_split_and_is_none_is_refused(tmp_path: Path, parts: tuple[str, ...], seen: str) -> None:
    assert seen in refused(make_folder(tmp_path, images=2, parts=parts))


def test_splits_inside_the_classes_are_refused(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for part in ("train", "test"):
            write_image(tmp_path / name / part / "0.png")
    assert "cat/ and dog/ both hold test/, train/ and no image" in refused(tmp_path)


def test_test_images_without_classes_are_refused(tmp_path: Path) -> None:
    write_image(make_folder(tmp_path, parts=("train",)) / "test" / "0.png")
    assert "has test/ (1 images, no folder), train/ (4 folders): it needs both" in refused(tmp_path)


def test_class_folders_may_hold_folders(tmp_path: Path) -> None:
    """Tiny-ImageNet has images/ in each class; classes may share the names of single folders."""
    make_folder(tmp_path, classes=1)
    shutil.rmtree(tmp_path / "c0")
    for name in ("cat", "dog"):
        for k in range(5):
            write_image(tmp_path / name / "images" / f"{k}.png")
    assert found(tmp_path) == (8, 2)


@pytest.mark.parametrize("name", ["trainer", "trains", "testament", "value", "c0", "latest", "seg_valley"])
def test_other_names_are_no_splits(name: str) -> None:
    assert role_of(name) is None


# names in any encoding


def test_names_that_are_not_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_folder(tmp_path / "data", classes=2)
    (data / "c0" / "0.png").rename(data / "c0" / os.fsdecode(b"caf\xe9.png"))
    (data / "c1").rename(data / os.fsdecode(b"th\xe9"))
    words = f"--model sgd --dataset seq-folder --data_dir {data} --backbone resnet20 --image_size 8 --n_epochs 1"
    words += f" --n_tasks 1 --results_path {tmp_path / 'runs'} --run_name one"
    assert main([*words.split(), "--check"]) == 0
    assert main(words.split()) == 0
    assert results_in(tmp_path / "runs" / "sgd" / "seq-folder" / "one")["status"] == "finished"
    assert SeqFolder(SimpleNamespace(data_dir=str(data)), "cpu").class_names == ["c0", "th\\xe9"]
    capsys.readouterr()
    (data / "c0" / os.fsdecode(b"caf\xe9.png")).write_text("no image")
    assert main(words.split()) == 2
    assert f"{data}/c0/caf\\xe9.png is not a readable image" in capsys.readouterr().err


def test_a_folder_deeper_than_pythons_stack(tmp_path: Path) -> None:
    place, here = tmp_path, Path.cwd()
    try:
        os.chdir(tmp_path)
        for _ in range(300):
            Path("d").mkdir()
            os.chdir("d")
    finally:
        os.chdir(here)
    write_image(place / "a.png")
    assert [path.name for path in find_images(place).images] == ["a.png"]
