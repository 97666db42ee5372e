"""Tell from the names of folders whether they are the splits of a data set or its classes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pmi_cl.datasets.files.file_names import shown_name
from pmi_cl.datasets.files.find_images import ENDINGS, is_folder, is_passed_over, refuse_unreadable, subfolders
from pmi_cl.errors import UserError
from pmi_cl.machine.plain_text import few

_ROLES = {"train": "train|training", "test": "test|testing", "val": "val|valid|validation"}
_SHARED = 2  # subfolders of one name in two folders that are therefore no classes


@dataclass(frozen=True)
class Layout:
    """Say where the classes of a folder lie.

    Attributes:
        root: the folder.
        train: the folder of the training classes; ``root`` itself where there is no split.
        test: the folder of the test classes; None where there is no split.
        names: the sorted names of the class folders.
        tested_on: "test", or "val" where a validation folder stands in for it.
    """

    root: Path
    train: Path
    test: Path | None
    names: list[str]
    tested_on: str = "test"


@refuse_unreadable()
def read_layout(root: Path) -> Layout:
    """Return where the classes of a folder lie. Only names of folders are read, no images.

    Folders called as training and test or validation folders usually are, in any case, are the
    splits if they hold folders themselves. The validation folder stands in for a missing test
    folder.

    Raises:
        UserError: there are fewer than two classes, the splits have other classes, or folders look
            like splits but it is not clear which is which.
    """
    if not root.is_dir():
        raise UserError(
            f"--data_dir {shown_name(root)}: there is no such folder; give one that holds a folder for each class"
        )
    parts = _parts(root)
    train, test = parts.get("train"), parts.get("test") or parts.get("val")
    if train and test:
        names = subfolders(train)
        _refuse_mismatch(root, train, test)
        _refuse_hidden_splits(train, names)
        layout = Layout(root, train, test, names, "test" if "test" in parts else "val")
    else:
        names = subfolders(root)
        _refuse_half(root, names, parts)
        _refuse_hidden_splits(root, names)
        layout = Layout(root, root, None, names)
    if len(names) < 2:
        _refuse_few_classes(layout.train, names)
    return layout


def _refuse_few_classes(folder: Path, names: Sequence[str]) -> NoReturn:
    """Raise UserError for a folder that holds one class folder or none."""
    found = f"one class folder ('{shown_name(names[0])}')" if names else "no class folder"
    inner = len(subfolders(folder / names[0])) if names else 0
    advice = "give a folder with at least two, each with the images of one class"
    if inner >= _SHARED:
        advice = f"give --data_dir {shown_name(folder / names[0])}, which holds {inner}"
    raise UserError(f"--data_dir {shown_name(folder)} holds {found}: {advice}")


def role_of(name: str) -> str | None:
    """Return "train", "test" or "val" for the usual names of such folders, in any case.

    "Training", "seg_train" and "test_set" are such names.
    """
    for role, words in _ROLES.items():
        if re.fullmatch(rf"(seg[_-]?)?({words})([_-]?(set|data|images))?", name.lower()):
            return role
    return None


def left_out(layout: Layout) -> list[str]:
    """Say what lies beside the class folders, or beside the split folders, and is not read."""
    places = [layout.root] if layout.test is None else [layout.root, layout.train, layout.test]
    folders: list[Path] = []
    images: list[Path] = []
    others: list[Path] = []
    for place in dict.fromkeys(places):
        with os.scandir(place) as entries:
            files = [entry.name for entry in entries if not is_folder(entry) and not is_passed_over(entry.name, False)]
        for name in sorted(files):
            (images if name.lower().endswith(ENDINGS) else others).append(place / name)
    if layout.test is not None:
        used = {layout.train.relative_to(layout.root).parts[0], layout.test.relative_to(layout.root).parts[0]}
        folders = [layout.root / name for name in subfolders(layout.root) if name not in used]
    said = [f"{_images_in(folder)} images in {shown_name(folder.name)}/" for folder in folders]
    said += [_counted(images, "loose image"), _counted(others, "other file")]
    return [text for text in said if text]


def _counted(paths: Sequence[Path], what: str) -> str:
    if not paths:
        return ""
    return f"{len(paths)} {what}{'s' if len(paths) > 1 else ''} ({few(shown_name(path.name) for path in paths)})"


def _images_in(folder: Path) -> int:
    return sum(name.lower().endswith(ENDINGS) for _, _, names in os.walk(folder) for name in names)


def _parts(root: Path) -> dict[str, Path]:
    """Return the split folders in ``root`` by role: with two folders, or one and no image.

    Some archives hold ``seg_train/seg_train/``. The inner one is then the split.

    Raises:
        UserError: two folders have one role.
    """
    parts: dict[str, Path] = {}
    for name in subfolders(root):
        role = role_of(name)
        if role is None or not (len(subfolders(root / name)) >= _SHARED or _holds_only_folders(root / name)):
            continue
        if role in parts:
            both = f"{shown_name(parts[role].name)}/ and {shown_name(name)}/"
            raise UserError(f"{shown_name(root)} has {both}, which both look like {role} folders: rename one")
        parts[role] = root / name
    return {role: _innermost(folder, role) for role, folder in parts.items()}


def _innermost(folder: Path, role: str) -> Path:
    inner = subfolders(folder)
    while len(inner) == 1 and role_of(inner[0]) == role and _holds_only_folders(folder / inner[0]):
        folder = folder / inner[0]
        inner = subfolders(folder)
    return folder


def _holds_only_folders(folder: Path) -> bool:
    """Return whether a folder holds folders, and no image beside them."""
    found = False
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_folder(entry):
                found = found or not is_passed_over(entry.name, True)
            elif entry.name.lower().endswith(ENDINGS) and not is_passed_over(entry.name, False):
                return False
    return found


def _refuse_half(root: Path, names: Sequence[str], parts: Mapping[str, Path]) -> None:
    """Raise UserError if there is half a split: training or test images are missing."""
    split = all(role_of(name) for name in names)
    looks = split or any(len(subfolders(part)) >= _SHARED for part in parts.values())
    if (parts and looks) or (split and len(names) > 1):
        found = few((f"{shown_name(name)}/ ({_content(root / name)})" for name in names), 6)
        needs = "it needs both train/ and test/ (or val/) with class folders in them, or the class folders themselves"
        raise UserError(f"{shown_name(root)} has {found}: {needs}")


def _content(folder: Path) -> str:
    inner = len(subfolders(folder))
    return f"{inner} folder{'' if inner == 1 else 's'}" if inner else f"{_images_in(folder)} images, no folder"


def _refuse_mismatch(root: Path, train: Path, test: Path) -> None:
    """Raise UserError unless both folders hold the same class folders."""
    classes = {part: set(subfolders(part)) for part in (train, test)}
    only = {train: classes[train] - classes[test], test: classes[test] - classes[train]}
    shown = {part: f"{shown_name(part.relative_to(root))}/" for part in (train, test)}
    faults = [
        f"only in {shown[part]}: {', '.join(map(shown_name, sorted(names)))}" for part, names in only.items() if names
    ]
    if faults:
        both = f"{shown[train]} and {shown[test]}"
        raise UserError(f"{shown_name(root)}: {both} must hold the same class folders; {'; '.join(faults)}")


def _refuse_hidden_splits(root: Path, names: Sequence[str]) -> None:
    """Raise UserError if two folders hold no image but the same folders: they are no classes."""
    first_with: dict[str, str] = {}
    for name in names:
        if not _holds_only_folders(root / name):
            continue
        inner = subfolders(root / name)
        shared: dict[str, list[str]] = {}
        for folder in inner:
            shared.setdefault(first_with.setdefault(folder, name), []).append(folder)
        for other, folders in shared.items():
            if other != name and len(folders) >= _SHARED:
                seen = few(f"{shown_name(folder)}/" for folder in folders)
                both = f"{shown_name(other)}/ and {shown_name(name)}/ both hold {seen} and no image"
                advice = "call the splits train/ and test/, give one of them as --data_dir, or put images into classes"
                raise UserError(f"{shown_name(root)}: {both}, as splits do and classes do not: {advice}")
