"""Small image sets in the layouts of the published ones, and where the real ones lie."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
from PIL import Image

from pmi_cl.datasets.seq_tinyimg import SeqTinyImageNet

UNPACK = Path(os.environ.get("PMI_CL_UNPACK", Path(__file__).resolve().parents[2] / "shared" / "data" / "unpack.py"))
RED = (200, 30, 10)
WNIDS = tuple(f"n{1_000_000 + 37 * k:08d}" for k in range(200))


def noise(mean: Sequence[float], std: Sequence[float], size: tuple[int, int], seed: int = 0) -> Iterator[bytes]:
    """Yield PNG files of random pixels with this mean and deviation."""
    random = numpy.random.default_rng(seed)
    while True:
        pixels = random.uniform(-(3**0.5), 3**0.5, (*size[::-1], 3)) * numpy.array(std) + numpy.array(mean)
        yield encoded(Image.fromarray((pixels.clip(0, 1) * 255).round().astype(numpy.uint8)))


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    """Return an image as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def write(path: Path, content: bytes | str) -> Path:
    """Write a file and the folders above it. Return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_tiny(
    base: Path, classes: int = 20, train: int = 12, test: int = 3, folder: str = "tiny-imagenet-200"
) -> Path:
    """Write Tiny-ImageNet with fewer classes, its wnids unsorted.

    Each validation image is of another class than the one before it.
    """
    root, images = base / folder, noise(SeqTinyImageNet.MEAN, SeqTinyImageNet.STD, (64, 64))
    wnids = [WNIDS[(7 * k + 3) % classes] for k in range(classes)]
    for wnid in wnids:
        for k in range(train):
            write(root / "train" / wnid / "images" / f"{wnid}_{k}.JPEG", next(images))
    lines = []
    for k in range(classes * test):
        write(root / "val" / "images" / f"val_{k}.JPEG", next(images))
        lines.append(f"val_{k}.JPEG\t{wnids[k % classes]}\t0\t0\t62\t62\n")
    write(root / "val" / "val_annotations.txt", "".join(lines))
    write(root / "wnids.txt", "\n".join(wnids))  # the official file's last line has no end either
    write(root / "words.txt", "".join(f"{wnid}\tthing {k}, Res {k}\n" for k, wnid in enumerate(sorted(wnids))))
    return root


def write_cub(base: Path, classes: int = 10, train: int = 14, test: int = 4, size: tuple[int, int] = (20, 16)) -> Path:
    """Write CUB_200_2011 with fewer classes.

    The test images of a class stand between its training images.
    """
    root, images, number = base / "CUB_200_2011", noise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), size), 0
    tables: dict[str, list[str]] = {"images": [], "image_class_labels": [], "train_test_split": [], "classes": []}
    for label in range(classes):
        folder = f"{label + 1:03d}.Great_Bird_{label}"
        tables["classes"].append(f"{label + 1} {folder}\n")
        for k in range(train + test):
            number += 1
            write(root / "images" / folder / f"bird_{k}.jpg", next(images))
            tables["images"].append(f"{number} {folder}/bird_{k}.jpg\n")
            tables["image_class_labels"].append(f"{number} {label + 1}\n")
            tables["train_test_split"].append(f"{number} {int(not 1 <= k <= test)}\n")
    for name, lines in tables.items():
        write(root / f"{name}.txt", "".join(lines))
    return root


def write_parts(root: Path, folders: Sequence[str], train: int, test: int, size: tuple[int, int] = (8, 8)) -> Path:
    """Write PROOF's layout: train/ and test/ with a folder for each class."""
    images = noise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), size)
    for part, count in (("train", train), ("test", test)):
        for folder in folders:
            for k in range(count):
                write(root / part / folder / f"{part}_{k}.jpg", next(images))
    return root


def write_names(root: Path) -> None:
    """Write the names of ImageNet-R's classes as its README.txt has them."""
    start = "The following classes are contained in ImageNet-R\n\n"
    write(root / "README.txt", start + "".join(f"{wnid} some_thing_{k}\n" for k, wnid in enumerate(WNIDS)))


def write_imagenet_r(base: Path, train: int = 6, test: int = 2) -> Path:
    """Write PROOF's layout of ImageNet-R, with the names."""
    root = write_parts(base / "imagenet-r", WNIDS, train, test)
    write_names(root)
    return root


def write_coda(base: Path, per_class: int = 3) -> dict[str, list[tuple[str, int]]]:
    """Write the official layout of ImageNet-R and lists like CODA-Prompt's, and return the lists.

    The lists are shuffled and have class ids of their own.
    """
    root, images = base / "imagenet-r", noise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (8, 8))
    write_names(root)
    random, ids = numpy.random.default_rng(0), numpy.random.default_rng(1).permutation(200)
    rows: dict[str, list[tuple[str, int]]] = {"train": [], "test": []}
    for label, wnid in enumerate(WNIDS):
        for k in range(per_class):
            write(root / wnid / f"art_{k}.jpg", next(images))
            rows["test" if k == label % per_class else "train"].append((f"{wnid}/art_{k}.jpg", int(ids[label])))
    for part, entries in rows.items():
        random.shuffle(entries)
        files = "".join(f"- data/imagenet-r/{file}\n" for file, _ in entries)
        write(
            base / f"imagenet-r_{part}.yaml",
            f"data:\n{files}targets:\n" + "".join(f"- {label}\n" for _, label in entries),
        )
    return rows


def write_image(
    path: Path, size: tuple[int, int] = (20, 16), colour: tuple[int, ...] = RED, mode: str = "RGB", **options: Any
) -> Path:
    """Write an image of one colour. Return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path, **options)
    return path


def make_folder(
    root: Path, classes: int = 4, images: int = 5, parts: tuple[str, ...] = ("",), letter: str = "c"
) -> Path:
    """Write ``classes`` folders c0, c1 ... of small PNG files below each of ``parts``.

    Return the root.

    The red value of an image is its number, the green one its class.
    """
    for part in parts:
        for label in range(classes):
            for k in range(images):
                write_image(root / part / f"{letter}{label}" / f"{k}.png", colour=(k, label, 0))
    return root
