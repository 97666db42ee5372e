"""Refuse or skip files that cannot be read as images, as ``--on_bad_image`` says."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from pmi_cl.datasets.files.decoding import BadFile, decode_whole, try_in_order
from pmi_cl.datasets.files.fetching import disk_errors, part_file
from pmi_cl.datasets.files.file_names import shown_name
from pmi_cl.datasets.files.find_images import Found
from pmi_cl.datasets.files.image_files import state_of_files
from pmi_cl.machine.plain_text import few


def skip_bad(found: Found) -> list[BadFile]:
    """Take what cannot be read out of what was found in a folder, and return it."""
    decoded = try_in_order(found.images, decode_whole)
    bad = [file for file in decoded if isinstance(file, BadFile)]
    gone = {file.path for file in bad}
    bad += take_unreadable(found)
    found.images = [path for path in found.images if path not in gone]
    return sorted(bad, key=lambda file: file.path)


def take_unreadable(found: Found) -> list[BadFile]:
    """Take out, and return, what is known not to be readable before any file is opened."""
    bad = [*found.bad, *(BadFile(path, "no image by its ending") for path in found.others)]
    found.bad, found.others = [], []
    return bad


def skipped_note(files: Sequence[BadFile]) -> list[str]:
    """Return a line that names files that are skipped, or no line if there are none."""
    if not files:
        return []
    names = few(f"{shown_name(file.path)} ({file.reason})" for file in files)
    amount = "1 file that cannot be read is" if len(files) == 1 else f"{len(files)} files that cannot be read are"
    return [f"{amount} skipped: {names}"]


def as_record(files: Sequence[BadFile], root: Path) -> dict[str, str]:
    """Return why each file was skipped, by its name below ``root``."""
    return {shown_name(file.path.relative_to(root)): file.reason for file in files}


def unreadable_files(paths: Sequence[Path], root: Path, cache: Path) -> list[BadFile]:
    """Return the files that cannot be decoded. The result is kept while the files stay the same.

    Args:
        paths: image files.
        root: the folder that holds them all.
        cache: the JSON file that keeps the result.
    """
    key = state_of_files(paths, root)
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        kept = json.loads(cache.read_text(encoding="utf-8"))
        if kept["files"] == key:
            return [BadFile(paths[int(row)], str(reason)) for row, reason in kept["unreadable"].items()]
    found = {row: file for row, file in enumerate(try_in_order(paths, decode_whole)) if isinstance(file, BadFile)}
    content = json.dumps({"files": key, "unreadable": {row: file.reason for row, file in found.items()}})
    with part_file(cache, "checks") as part, disk_errors(cache):
        os.ftruncate(part.fileno(), 0)
        part.write(content.encode())
        part.flush()
        Path(part.name).replace(cache)
    return list(found.values())
