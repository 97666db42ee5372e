"""Published sets with something wrong in them: said in one line, before anything is written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pmi_cl.cli import main
from tests.support.image_sets import WNIDS, write, write_cub, write_imagenet_r, write_tiny


def remove(name: str) -> Callable[[Path], Any]:
    def damage(base: Path) -> None:
        path = base / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def add(name: str, text: str) -> Callable[[Path], Any]:
    def append(base: Path) -> None:
        with (base / name).open("a") as file:
            file.write(text)

    return append


def put(name: str, text: str) -> Callable[[Path], Any]:
    return lambda base: write(base / name, text)


TINY, CUB, INR = "tiny-imagenet-200", "CUB_200_2011", "imagenet-r"
PROOF_FLAGS = ["--split", "proof", "--allow_other_split", "1"]
WRONG: dict[str, tuple[Callable[[Path], Any], str, list[str], str]] = {
    "no tiny": (
        remove(TINY),
        "seq-tinyimg",
        [],
        "download http://cs231n.stanford.edu/tiny-imagenet-200.zip and put it at ",
    ),
    "no wnids": (remove(f"{TINY}/wnids.txt"), "seq-tinyimg", [], "wnids.txt is missing: unpack the archive again"),
    "one wnid": (put(f"{TINY}/wnids.txt", "n1\n"), "seq-tinyimg", [], "must hold two or more different classes"),
    "no words": (remove(f"{TINY}/words.txt"), "seq-tinyimg", [], "words.txt is missing"),
    "unnamed": (put(f"{TINY}/words.txt", f"{WNIDS[0]}\tcat\n"), "seq-tinyimg", [], "words.txt has no name for n0"),
    "no annotations": (remove(f"{TINY}/val/val_annotations.txt"), "seq-tinyimg", [], "val_annotations.txt is missing"),
    "odd annotations": (
        put(f"{TINY}/val/val_annotations.txt", "val_0.JPEG\n"),
        "seq-tinyimg",
        [],
        "an image and its class on each line",
    ),
    "a class without annotations": (
        put(f"{TINY}/val/val_annotations.txt", f"val_0.JPEG\t{WNIDS[3]}\n"),
        "seq-tinyimg",
        [],
        "has no image of n0",
    ),
    "no validation image": (
        remove(f"{TINY}/val/images/val_7.JPEG"),
        "seq-tinyimg",
        [],
        "1 of the 60 images of val_annotations.txt are not in",
    ),
    "a validation image without annotation": (
        lambda base: shutil.copy(base / TINY / "val/images/val_7.JPEG", base / TINY / "val/images/val_90.JPEG"),
        "seq-tinyimg",
        [],
        "leaves out 1 of the images in",
    ),
    "an image with two annotations": (
        add(f"{TINY}/val/val_annotations.txt", f"val_7.JPEG\t{WNIDS[3]}\n"),
        "seq-tinyimg",
        [],
        "has val_7.JPEG more than once",
    ),
    "an annotation that leaves the folder": (
        add(f"{TINY}/val/val_annotations.txt", f"/etc/x.JPEG\t{WNIDS[3]}\n"),
        "seq-tinyimg",
        [],
        "names /etc/x.JPEG, which is no name of an image",
    ),
    "no training folder": (remove(f"{TINY}/train/{WNIDS[4]}"), "seq-tinyimg", [], f"though wnids.txt has {WNIDS[4]}"),
    "no image in a folder": (
        lambda base: [path.unlink() for path in (base / TINY / "train" / WNIDS[4] / "images").iterdir()],
        "seq-tinyimg",
        [],
        "holds no image",
    ),
    "boxes among images": (
        put(f"{TINY}/train/{WNIDS[4]}/images/boxes.txt", "1"),
        "seq-tinyimg",
        [],
        "boxes.txt is no image of a kind",
    ),
    "no cub": (remove(CUB), "seq-cub200", [], "CUB_200_2011 is missing: download https://data.caltech.edu/"),
    "no cub of proof": (
        lambda base: None,
        "seq-cub200",
        ["--split", "proof"],
        "cub.zip that the README of github.com/zhoudw-zdw/PROOF",
    ),
    "no class list": (remove(f"{CUB}/classes.txt"), "seq-cub200", [], "classes.txt is missing"),
    "odd class list": (
        put(f"{CUB}/classes.txt", "2 a\n3 b\n"),
        "seq-cub200",
        [],
        "must number two or more classes from 1",
    ),
    "odd line": (
        put(f"{CUB}/images.txt", "1 a b\n"),
        "seq-cub200",
        [],
        "images.txt, line 1: it must be a number and a value, not '1 a b'",
    ),
    "other lists": (
        put(f"{CUB}/images.txt", "1 a\n"),
        "seq-cub200",
        [],
        "images.txt and image_class_labels.txt do not list the same images",
    ),
    "class out of range": (
        lambda base: write(
            base / CUB / "image_class_labels.txt",
            (base / CUB / "image_class_labels.txt").read_text().replace("5 1\n", "5 11\n", 1),
        ),
        "seq-cub200",
        [],
        "image 5 has the class 11, there are 10",
    ),
    "images missing": (
        remove(f"{CUB}/images/002.Great_Bird_1"),
        "seq-cub200",
        [],
        "18 of the 180 images of images.txt are not in",
    ),
    "no imagenet-r": (
        remove(INR),
        "seq-imagenet-r",
        ["--split", "rapf"],
        "imagenet-r is missing: download https://people.eecs.berkeley",
    ),
    "no parts": (
        remove(f"{INR}/test"),
        "seq-imagenet-r",
        PROOF_FLAGS,
        "test is missing: unpack the archive imagenet-r.zip",
    ),
    "another folder": (
        remove(f"{INR}/test/{WNIDS[8]}"),
        "seq-imagenet-r",
        PROOF_FLAGS,
        f"the same class folders, these do not: {WNIDS[8]};",
    ),
    "proof's folders": (
        lambda base: None,
        "seq-imagenet-r",
        [],
        "has PROOF's folders train/ and test/, which --split coda is not for",
    ),
    "another split": (
        lambda base: None,
        "seq-imagenet-r",
        ["--split", "proof"],
        "say --allow_other_split 1 and do not compare",
    ),
    "no names": (
        remove(f"{INR}/README.txt"),
        "seq-imagenet-r",
        PROOF_FLAGS,
        "which has the names of the classes: take the README.txt of",
    ),
    "other names": (
        put(f"{INR}/README.txt", f"{WNIDS[0]} cat\n"),
        "seq-imagenet-r",
        PROOF_FLAGS,
        f"has no name for {WNIDS[1]}, ",
    ),
    "ids": (
        lambda base: None,
        "seq-imagenet-r",
        [*PROOF_FLAGS, "--class_ids", "coda"],
        "not --split proof; use --split coda",
    ),
}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("pristine")
    write_tiny(base, train=1)
    write_cub(base)
    write_imagenet_r(base, train=1, test=1)
    return base


@pytest.mark.parametrize("fault", WRONG)
def test_what_is_wrong_is_said_before_anything_is_written(
    fault: str, pristine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, name, flags, message = WRONG[fault]
    base = shutil.copytree(pristine, tmp_path / "data")
    damage(base)
    before = sorted(tmp_path.rglob("*"))
    words = [
        "--model",
        "sgd",
        "--dataset",
        name,
        "--base_path",
        str(base),
        "--offline",
        "1",
        "--results_path",
        str(tmp_path / "runs"),
        *flags,
    ]
    said = []
    for more in (["--check"], []):
        assert main([*words, *more]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and message in err
        said.append(err)
    assert said[0] == said[1] and sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["seq-tinyimg", "seq-cub200", "seq-imagenet-r"])
def test_a_broken_image_is_named(name: str, pristine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = shutil.copytree(pristine, tmp_path / "data")
    places = {
        "seq-tinyimg": f"{TINY}/val/images",
        "seq-cub200": f"{CUB}/images/004.Great_Bird_3",
        "seq-imagenet-r": f"{INR}/train/{WNIDS[5]}",
    }
    broken = sorted((base / places[name]).iterdir())[-1]
    broken.write_text("just words")
    words = [
        "--model",
        "sgd",
        "--dataset",
        name,
        "--base_path",
        str(base),
        "--results_path",
        str(tmp_path / "runs"),
        "--progress",
        "0",
    ]
    assert main([*words, *(PROOF_FLAGS if name == "seq-imagenet-r" else [])]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"{broken} is not a readable image (of no known format)" in err
    assert not (tmp_path / "runs").exists() and not list(base.glob("cache/*.part"))


def test_checking_a_published_set_needs_no_torch(pristine: Path) -> None:
    program = (
        "import sys; from types import SimpleNamespace as N; "
        "from pmi_cl.datasets import seq_cub200, seq_imagenet_r, seq_tinyimg;"
        f"args = N(base_path={str(pristine)!r}, split='official'); seq_tinyimg.SeqTinyImageNet.check(args);"
        "seq_cub200.SeqCub200.check(args);"
        "args.split, args.allow_other_split = 'proof', True; seq_imagenet_r.SeqImageNetR.check(args); "
        "print('torch' in sys.modules)"
    )
    root = Path(__file__).resolve().parent.parent
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
