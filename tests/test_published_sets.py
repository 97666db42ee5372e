"""Tiny-ImageNet, CUB-200 and ImageNet-R in their published layouts: labels, names, splits, and what is said when something is wrong."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch

from pmi_cl.cli import main
from pmi_cl.datasets.continual_dataset import ContinualDataset
from pmi_cl.datasets.files import cub_files, imagenet_r_files
from pmi_cl.datasets.files.decoding import bicubic_square
from pmi_cl.datasets.files.image_files import ImageList
from pmi_cl.datasets.files.listed_images import Listing, refuse_other_split
from pmi_cl.datasets.seq_cifar100 import SeqCifar100
from pmi_cl.datasets.seq_cub200 import SeqCub200
from pmi_cl.datasets.seq_imagenet_r import SeqImageNetR
from pmi_cl.datasets.seq_tinyimg import SeqTinyImageNet
from pmi_cl.errors import UserError
from tests.conftest import UNPACK
from tests.support.image_sets import WNIDS, write, write_coda, write_cub, write_imagenet_r, write_parts, write_tiny


def np1993(count: int) -> list[int]:
    """The class order of PROOF, by its own rule."""
    return [int(k) for k in numpy.random.RandomState(1993).permutation(count)]


def build(kind: type[ContinualDataset], base: Path, **values: Any) -> ContinualDataset:
    return kind(SimpleNamespace(base_path=str(base), **values), "cpu")


# Tiny-ImageNet


def test_tiny_class_ids_are_the_lines_of_wnids(tmp_path: Path) -> None:
    root = write_tiny(tmp_path)
    wnids = (root / "wnids.txt").read_text().split()
    assert wnids != sorted(wnids)
    dataset = build(SeqTinyImageNet, tmp_path, class_order="natural")
    assert (dataset.N_CLASSES, dataset.N_TASKS, dataset.SIZE) == (20, 10, (64, 64))
    assert dataset.class_names == [f"thing {sorted(wnids).index(wnid)}" for wnid in wnids]
    rows = [line.split("\t")[:2] for line in (root / "val" / "val_annotations.txt").read_text().splitlines()]
    assert dataset.test.labels.tolist() == [wnids.index(wnid) for _, wnid in rows]
    for k in (0, 7, 59):
        expected = bicubic_square(root / "val" / "images" / rows[k][0], 64, "squash")
        numpy.testing.assert_array_equal(dataset.test.images[k].numpy(), expected)
    first = sorted((root / "train" / wnids[3] / "images").iterdir())
    for k, row in enumerate((dataset.train.labels == 3).nonzero().flatten().tolist()):
        numpy.testing.assert_array_equal(dataset.train.images[row].numpy(), bicubic_square(first[k], 64, "squash"))


def test_tiny_orders_are_r_dfcils(tmp_path: Path) -> None:
    write_tiny(tmp_path, classes=200, train=1, test=1)
    for rule, digest in (
        ("rdfcil0", "b0c978e9a0ad7a3c"),
        ("rdfcil1", "916b68e88779a5d4"),
        ("np1993", "1d364b99a5915405"),
    ):
        order = build(SeqTinyImageNet, tmp_path, class_order=rule).class_order
        assert hashlib.sha256(",".join(map(str, order)).encode()).hexdigest()[:16] == digest
    assert build(SeqTinyImageNet, tmp_path).class_order[:3] == [131, 181, 22]


def test_the_folder_of_r_dfcil_is_found_too(tmp_path: Path) -> None:
    write_tiny(tmp_path, folder="tiny-imagenet200")
    SeqTinyImageNet.check(SimpleNamespace(base_path=str(tmp_path), offline=True))
    assert len(build(SeqTinyImageNet, tmp_path, offline=True).train.labels) == 240


def test_before_it_is_fetched_tiny_has_200_classes(tmp_path: Path) -> None:
    SeqTinyImageNet.check(SimpleNamespace(base_path=str(tmp_path), n_tasks=20))
    with pytest.raises(UserError, match="--n_tasks 7 does not divide the 200 classes"):
        SeqTinyImageNet.check(SimpleNamespace(base_path=str(tmp_path), n_tasks=7))


# CUB-200-2011


def test_cub_is_split_as_its_file_says(tmp_path: Path) -> None:
    root = write_cub(tmp_path)
    dataset = build(SeqCub200, tmp_path, image_size=16, class_order="natural")
    assert dataset.class_names == [f"Great Bird {k}" for k in range(10)]
    assert dataset.train.labels.bincount().tolist() == [14] * 10 and dataset.test.labels.bincount().tolist() == [4] * 10
    for k, number in enumerate((1, 2, 3, 4)):  # of each class these are test images
        expected = bicubic_square(root / "images" / "003.Great_Bird_2" / f"bird_{number}.jpg", 16, "squash")
        numpy.testing.assert_array_equal(dataset.test.images[8 + k].numpy(), expected)
    assert build(SeqCub200, tmp_path, image_size=16).class_order == np1993(10)


def test_cub_in_proofs_folders(tmp_path: Path) -> None:
    folders = [f"{k:03d}.Tiny_Bird" for k in range(1, 201)]
    write_parts(tmp_path / "cub", folders, 1, 1)
    with pytest.raises(
        UserError,
        match=r"is not PROOF's split: .* have 10, 10, 10, 10, \.\.\. test images, .* 118, 129, 97, 110, \.\.\.;",
    ):
        build(SeqCub200, tmp_path, image_size=8, split="proof")
    dataset = build(SeqCub200, tmp_path, image_size=8, split="proof", allow_other_split=True)
    assert set(dataset.class_names) == {"Tiny Bird"} and dataset.class_order == np1993(200)


def counted(counts: tuple[int, ...]) -> Listing:
    """A listing without files that has these numbers of test images for each ten classes in the order np1993."""
    order = np1993(200)
    labels = [order[10 * group + k % 10] for group, count in enumerate(counts) for k in range(count)]
    empty = ImageList([], [])
    return Listing("proof", Path("somewhere"), empty, ImageList([Path()] * len(labels), labels), ["?"] * 200)


@pytest.mark.parametrize(("counts", "total"), [(cub_files.PROOF_COUNTS, 2358), (imagenet_r_files.PROOF_COUNTS, 6000)])
def test_the_fingerprint_of_proofs_split(counts: tuple[int, ...], total: int) -> None:
    assert sum(counts) == total and len(counts) == 20
    refuse_other_split(counted(counts), counts, allowed=False)
    other = (counts[1], counts[0], *counts[2:])
    with pytest.raises(UserError, match="is not PROOF's split"):
        refuse_other_split(counted(other), counts, allowed=False)
    refuse_other_split(counted(other), counts, allowed=True)


# ImageNet-R


def test_imagenet_r_in_proofs_folders(tmp_path: Path) -> None:
    write_imagenet_r(tmp_path, train=2, test=1)
    dataset = build(SeqImageNetR, tmp_path, image_size=8, split="proof", allow_other_split=True)
    assert dataset.class_order == np1993(200) and dataset.N_TASKS == 10
    assert dataset.prompt_names == [f"some_thing_{k}" for k in dataset.class_order]
    assert dataset.train.labels.bincount().tolist() == [2] * 200


@pytest.fixture
def coda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[str, int]]]:
    """The official layout in ``tmp_path`` with made-up lists, whose checksums are taken for those of CODA-Prompt's."""
    rows = write_coda(tmp_path)
    lists = tuple(
        replace(one, digest=f"md5:{hashlib.md5((tmp_path / one.file).read_bytes()).hexdigest()}")
        for one in imagenet_r_files.CODA_LISTS
    )
    monkeypatch.setattr(imagenet_r_files, "CODA_LISTS", lists)
    return rows


def test_codas_lists_say_the_split_and_folders_the_classes(
    coda: dict[str, list[tuple[str, int]]], tmp_path: Path
) -> None:
    dataset = build(SeqImageNetR, tmp_path, image_size=8, class_order="natural", offline=True)
    for split, part in ((dataset.train, "train"), (dataset.test, "test")):
        assert split.labels.tolist() == [WNIDS.index(file.partition("/")[0]) for file, _ in coda[part]]
        for k in (0, 123):
            expected = bicubic_square(tmp_path / "imagenet-r" / coda[part][k][0], 8, "squash")
            numpy.testing.assert_array_equal(split.images[k].numpy(), expected)
    assert dataset.class_names == [f"some_thing_{k}" for k in range(200)]
    assert build(SeqImageNetR, tmp_path, image_size=8).class_order == np1993(200)


def test_codas_own_class_ids(coda: dict[str, list[tuple[str, int]]], tmp_path: Path) -> None:
    dataset = build(SeqImageNetR, tmp_path, image_size=8, class_order="natural", class_ids="coda")
    assert dataset.test.labels.tolist() == [label for _, label in coda["test"]]
    file, label = coda["test"][5]
    assert dataset.class_names[label] == f"some_thing_{WNIDS.index(file.partition('/')[0])}"


def test_rapfs_list_without_its_stray_file(
    coda: dict[str, list[tuple[str, int]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {part: [file for file, _ in sorted(rows)] for part, rows in coda.items()}
    text = "\n".join(
        ["train", *files["train"], "test", *files["test"][:9], f"{WNIDS[3]}/test_img_R.py", *files["test"][9:], ""]
    )
    write(tmp_path / "imgr_train_test_split.txt", text)
    with pytest.raises(UserError, match=r"imgr_train_test_split.txt is damaged \(sha256:.*delete it"):
        build(SeqImageNetR, tmp_path, image_size=8, split="rapf")
    one = replace(imagenet_r_files.RAPF_LIST, digest=f"sha256:{hashlib.sha256(text.encode()).hexdigest()}")
    monkeypatch.setattr(imagenet_r_files, "RAPF_LIST", one)
    dataset = build(SeqImageNetR, tmp_path, image_size=8, split="rapf", class_order="natural")
    assert dataset.test.labels.tolist() == [WNIDS.index(file.partition("/")[0]) for file in files["test"]]


def test_templates_and_prompts() -> None:
    assert [len(kind.TEMPLATES) for kind in (SeqCifar100, SeqImageNetR, SeqCub200)] == [18, 7, 1]
    assert SeqCub200.TEMPLATES[0].format("Laysan Albatross") == "a photo of a Laysan Albatross, a type of bird."
    assert {kind.PROMPT for kind in (SeqCifar100, SeqImageNetR, SeqCub200, SeqTinyImageNet)} == {"a bad photo of a {}."}


# what is wrong is said in one line, before anything is written


def remove(name: str) -> Callable[[Path], Any]:
    def damage(base: Path) -> None:
        path = base / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


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


def test_a_list_that_does_not_fit_the_folder(
    coda: dict[str, list[tuple[str, int]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wnid in WNIDS[:5]:
        shutil.rmtree(tmp_path / "imagenet-r" / wnid)
    with pytest.raises(
        UserError,
        match=r"^15 of the 600 images of CODA-Prompt's lists are not in .*/imagenet-r: n0\S+, n0\S+, n0\S+, \.\.\.;",
    ):
        SeqImageNetR.check(SimpleNamespace(base_path=str(tmp_path)))
    write(tmp_path / "imagenet-r_test.yaml", "something else")
    with pytest.raises(
        UserError, match=r"imagenet-r_test.yaml is damaged .*delete it, and the next run downloads https://raw"
    ):
        SeqImageNetR.check(SimpleNamespace(base_path=str(tmp_path)))


def test_checking_a_published_set_needs_no_torch(pristine: Path) -> None:
    program = (
        "import sys; from types import SimpleNamespace as N; from pmi_cl.datasets import seq_cub200, seq_imagenet_r, seq_tinyimg;"
        f"args = N(base_path={str(pristine)!r}, split='official'); seq_tinyimg.SeqTinyImageNet.check(args);"
        "seq_cub200.SeqCub200.check(args);"
        "args.split, args.allow_other_split = 'proof', True; seq_imagenet_r.SeqImageNetR.check(args); print('torch' in sys.modules)"
    )
    root = Path(__file__).resolve().parent.parent
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


# the real images, where they are


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``base_path`` with the real images that this project's developers have."""
    if not UNPACK.exists():
        pytest.skip(f"no real images: {UNPACK} is not here")
    base = tmp_path_factory.mktemp("photographs")
    names = ["cub10", "imagenet_r_photos", "tiny200"]
    subprocess.run([sys.executable, str(UNPACK), str(base), *names], check=True, stdout=subprocess.DEVNULL)
    return base


def test_real_birds(photographs: Path) -> None:
    dataset = build(SeqCub200, photographs, image_size=32)
    assert (len(dataset.train.labels), len(dataset.test.labels), dataset.N_TASKS) == (224, 70, 10)
    assert sorted(dataset.class_names)[:2] == ["Black footed Albatross", "Brewer Blackbird"]


def test_real_renditions_in_proofs_layout(photographs: Path) -> None:
    dataset = build(SeqImageNetR, photographs, image_size=32, split="proof", allow_other_split=True)
    natural = [name for _, name in sorted(zip(dataset.class_order, dataset.class_names, strict=True))]
    assert natural[:4] == ["goldfish", "great_white_shark", "hammerhead", "stingray"] and natural[80] == "ladybug"
    assert torch.equal(dataset.train.images, dataset.test.images)  # type: ignore[arg-type]


def test_real_small_images(photographs: Path) -> None:
    dataset = build(SeqTinyImageNet, photographs)
    assert (len(dataset.train.labels), len(dataset.test.labels), dataset.N_CLASSES) == (2000, 1000, 200)
    batch = dataset.normalise(dataset.train.pixels(torch.arange(0, 2000, 7)))
    assert batch.mean((0, 2, 3)).abs().max() < 0.15 and (batch.std((0, 2, 3)) - 1).abs().max() < 0.15
