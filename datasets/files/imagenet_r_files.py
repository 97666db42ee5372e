"""Read the images and class names of ImageNet-R, and its three published splits."""

from __future__ import annotations

import re
from pathlib import Path

from pmi_cl.datasets.files.downloads import Download
from pmi_cl.datasets.files.fetching import check_digest
from pmi_cl.datasets.files.file_names import read_text
from pmi_cl.datasets.files.find_images import ENDINGS
from pmi_cl.datasets.files.image_files import ImageList, refuse_missing
from pmi_cl.datasets.files.listed_images import Listing, class_folders
from pmi_cl.errors import UserError

FOLDER = "imagenet-r"
N_CLASSES = 200
ARCHIVE = Download(
    "https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar",
    "md5:a61312130a589d0ca1a8fca1f2bd3337",
    "imagenet-r.tar",
    FOLDER,
)
_CODA = (
    "https://raw.githubusercontent.com/GT-RIPL/CODA-Prompt/6417d4f68754be68b697c7ca2323ee61e791e1a3/dataloaders/splits/"
)
CODA_LISTS = tuple(
    Download(f"{_CODA}{name}", f"md5:{digest}", name)
    for name, digest in (
        ("imagenet-r_train.yaml", "b90d9c763369c87dbd9becb80abd83b3"),
        ("imagenet-r_test.yaml", "3ea5a3aa2e96578874254d4ee87321b3"),
    )
)
RAPF_LIST = Download(
    "https://raw.githubusercontent.com/linlany/RAPF/81d41dfb2e6f0c856c8ca520c1b35bd6ef0ba883/imgr_split/imgr_train_test_split.txt",
    "sha256:ecf0b2e74696f38d0180ab60cf632a9cb417b5522df20d57bc587911e3b59f81",
    "imgr_train_test_split.txt",
)
PROOF = "unpack the archive imagenet-r.zip that the README of github.com/zhoudw-zdw/PROOF links to"
# Test images of each ten classes in the order np1993, recovered from the accuracies in PROOF's log.
# They are 6,000 in all.
PROOF_COUNTS = (317, 372, 300, 332, 302, 304, 298, 273, 310, 177, 284, 376, 271, 298, 367, 362, 230, 248, 308, 271)

Rows = list[tuple[str, int | None]]  # (path below the folder, class id in the list)


def coda(base_path: Path, own_ids: bool) -> Listing:
    """Return CODA-Prompt's split.

    Args:
        own_ids: use the class ids of the lists. Otherwise the id is the place of the class among
            the sorted class folders.
    """
    parts = []
    for download in CODA_LISTS:
        path = base_path / download.file
        check_digest(path, download.digest, f"delete it, and the next run downloads {download.url} again")
        parts.append(read_coda(path))
    return _listed("coda", base_path / FOLDER, parts, "CODA-Prompt's lists", own_ids)


def rapf(base_path: Path) -> Listing:
    """Return RAPF's split without the one of its 6,001 test files that is no image."""
    path = base_path / RAPF_LIST.file
    check_digest(path, RAPF_LIST.digest, f"delete it, and the next run downloads {RAPF_LIST.url} again")
    return _listed("rapf", base_path / FOLDER, read_rapf(path), "RAPF's list", own_ids=False)


def proof(base_path: Path) -> Listing:
    """Return PROOF's split: ``train/`` and ``test/`` with a folder for each class."""
    root = base_path / FOLDER
    folders, train, test = class_folders(root, PROOF)
    if len(folders) != N_CLASSES:
        raise UserError(f"{root / 'train'} holds {len(folders)} class folders, ImageNet-R has {N_CLASSES}: {PROOF}")
    return Listing("proof", root, train, test, class_names(root, folders))


def read_coda(path: Path) -> Rows:
    """Read one of CODA-Prompt's two lists: YAML with the sequences ``data`` and ``targets``."""
    lines = [line.strip() for line in read_text(path).splitlines()]
    middle = lines.index("targets:")
    parts = (lines[1:middle], lines[middle + 1 :])
    files, targets = ([line.removeprefix("- ") for line in part if line] for part in parts)
    return [(file.removeprefix("data/imagenet-r/"), int(target)) for file, target in zip(files, targets, strict=True)]


def read_rapf(path: Path) -> list[Rows]:
    """Read RAPF's list: "train" and the training images, then "test" and the test images."""
    lines = read_text(path).split()
    middle = lines.index("test")
    parts = (lines[1:middle], lines[middle + 1 :])
    return [[(line, None) for line in part if line.lower().endswith(ENDINGS)] for part in parts]


def _listed(name: str, root: Path, parts: list[Rows], origin: str, own_ids: bool) -> Listing:
    """Return the images of a training and a test list. The class of an image is its folder."""
    folders = sorted({file.partition("/")[0] for rows in parts for file, _ in rows})
    ids = {folder: label for label, folder in enumerate(folders)}
    if own_ids:
        ids = {file.partition("/")[0]: target for file, target in parts[0] if target is not None}
    lists = [
        ImageList([root / file for file, _ in rows], [ids[file.partition("/")[0]] for file, _ in rows])
        for rows in parts
    ]
    refuse_missing([*lists[0].paths, *lists[1].paths], root, origin, f"unpack {ARCHIVE.url} again")
    return Listing(name, root, lists[0], lists[1], class_names(root, sorted(folders, key=ids.__getitem__)))


def class_names(root: Path, folders: list[str]) -> list[str]:
    """Return the names of the class folders in Hendrycks' ``README.txt``, with underscores."""
    file, remedy = root / "README.txt", f"take the README.txt of {ARCHIVE.url}"
    if not file.is_file():
        raise UserError(f"{file} is missing, which has the names of the classes: {remedy}")
    names = dict(re.findall(r"^(n\d{8})\s+(\S+)\s*$", read_text(file, strict=False), re.MULTILINE))
    unnamed = [folder for folder in folders if folder not in names]
    if unnamed:
        raise UserError(f"{file} has no name for {', '.join(unnamed[:3])}: {remedy}")
    return [names[folder] for folder in folders]
