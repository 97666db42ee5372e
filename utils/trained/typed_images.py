"""Find the image files that a path means which somebody typed: itself, or all below a folder."""

from __future__ import annotations

import os
from pathlib import Path

from pmi_cl.datasets.files.decoding import BadFile
from pmi_cl.datasets.files.file_names import shown_name
from pmi_cl.datasets.files.find_images import ENDINGS, Found, find_images, why_unreadable
from pmi_cl.datasets.files.image_files import refuse_bad, refuse_few
from pmi_cl.datasets.files.skipping import take_unreadable
from pmi_cl.errors import UserError


def files_of(path: Path, skipped: list[BadFile] | None = None, skippable: bool = False) -> list[Path]:
    """Return the image files that a path means, sorted. None of them is opened.

    Args:
        path: a file or a folder.
        skipped: takes what cannot be read. None: that is refused.
        skippable: whether the command has a flag that skips such files.

    Raises:
        UserError: there is no such file or folder, or a folder holds no image.
    """
    found = find_images(path) if path.is_dir() else _file(path)
    if skipped is not None:
        skipped += take_unreadable(found)
    refuse_bad(found, skippable)
    if path.is_dir():
        refuse_few(path, len(found.images), 1)
    return found.images


def _file(path: Path) -> Found:
    """Return a file as a search finds it. Raise UserError if there is nothing of that name."""
    if not os.path.lexists(path):
        kinds = ", ".join(ENDINGS)
        raise UserError(f"there is no file or folder {shown_name(path)}: name images ({kinds}) or a folder of them")
    found, reason = Found(), why_unreadable(path)
    if reason:
        found.bad.append(BadFile(path, reason))
    else:
        (found.images if path.suffix.lower() in ENDINGS else found.others).append(path)
    return found
