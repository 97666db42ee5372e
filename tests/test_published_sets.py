"""The published sets as they are read: splits, orders, class ids, names and templates."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch

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
from tests.support.image_sets import (
    UNPACK,
    WNIDS,
    write,
    write_coda,
    write_cub,
    write_imagenet_r,
    write_parts,
    write_tiny,
)


def np1993(count: int) -> list[int]:
    """Return the class order of PROOF, by its own rule."""
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


@pytest.mark.parametrize("inner", ["", "images"])
@pytest.mark.parametrize("annotated", [True, False])
def test_tiny_whose_validation_images_were_sorted_into_folders(tmp_path: Path, inner: str, annotated: bool) -> None:
    root = write_tiny(tmp_path, classes=4, train=1)
    before = build(SeqTinyImageNet, tmp_path, n_tasks=2, class_order="natural")
    lines = (root / "val" / "val_annotations.txt").read_text().splitlines()
    for name, wnid, *_ in (line.split("\t") for line in lines):
        (root / "val" / wnid / inner).mkdir(parents=True, exist_ok=True)
        (root / "val" / "images" / name).rename(root / "val" / wnid / inner / name)
    if not annotated:
        (root / "val" / "images").rmdir()
        (root / "val" / "val_annotations.txt").unlink()
    after = build(SeqTinyImageNet, tmp_path, n_tasks=2, class_order="natural")
    assert torch.equal(after.test.labels, before.test.labels)
    assert torch.equal(after.test.images, before.test.images)  # type: ignore[arg-type]
    shutil.rmtree(root / "val" / lines[0].split("\t")[1])
    with pytest.raises(UserError, match="has folders for classes, but none for n0"):
        SeqTinyImageNet.check(SimpleNamespace(base_path=str(tmp_path), n_tasks=2, class_order="natural"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    tiny, cub = write_tiny(tmp_path, classes=4, train=1), write_cub(tmp_path)
    tiny_args = {"n_tasks": 2, "class_order": "natural"}
    sets: list[tuple[type[ContinualDataset], dict[str, Any]]] = [(SeqTinyImageNet, tiny_args), (SeqCub200, {})]
    before = [build(kind, tmp_path, **values) for kind, values in sets]
    for path in (*tiny.glob("*.txt"), tiny / "val" / "val_annotations.txt", *cub.glob("*.txt")):
        path.write_text(path.read_text(), encoding=encoding)
    for (kind, values), old in zip(sets, before, strict=True):
        new = build(kind, tmp_path, **values)
        assert new.class_names == old.class_names and torch.equal(new.test.labels, old.test.labels)
    (tiny / "wnids.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(UserError, match=r"wnids\.txt is no text in UTF-8"):
        SeqTinyImageNet.check(SimpleNamespace(base_path=str(tmp_path), **tiny_args))


def test_before_it_is_fetched_tiny_has_200_classes(tmp_path: Path) -> None:
    SeqTinyImageNet.check(SimpleNamespace(base_path=str(tmp_path), n_tasks=20))
    with pytest.raises(UserError, match="200 classes do not split into 7 equal tasks"):
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
    """Return a listing without files.

    It has these numbers of test images for each ten classes in the order np1993.
    """
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
    """Write the official layout with made-up lists.

    Their checksums are taken for those of CODA-Prompt's.
    """
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


def test_templates_and_prompts() -> None:
    assert [len(kind.TEMPLATES) for kind in (SeqCifar100, SeqImageNetR, SeqCub200)] == [18, 7, 1]
    assert SeqCub200.TEMPLATES[0].format("Laysan Albatross") == "a photo of a Laysan Albatross, a type of bird."
    assert {kind.PROMPT for kind in (SeqCifar100, SeqImageNetR, SeqCub200, SeqTinyImageNet)} == {"a bad photo of a {}."}


# the real images, where they are


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a ``base_path`` with the real images that this project's developers have."""
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
