"""Read files of ``torch.save`` safely: tensors and plain data only, damaged files refused."""

from __future__ import annotations

import math
import pickle
import warnings
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pmi_cl.errors import UserError


class DamagedFile(ValueError):
    """Report a file that is incomplete or that ``torch.save`` did not write."""


def read_tensors(path: Path) -> Any:
    """Return the content of a file, with its tensors on the CPU.

    Raises:
        UserError: the file holds Python objects, whose loading could run code. None was run.
        DamagedFile: the file cannot be read.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about old pickle formats
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} was refused and nothing in it was run: it holds more than tensors and plain data"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, LookupError, AttributeError, TypeError, MemoryError) as error:
        raise DamagedFile(str(path)) from error


def is_whole_archive(path: Path) -> bool:
    """Return whether every part of a file of ``torch.save`` (a zip archive) matches its checksum.

    ``torch.load`` does not compare the checksums.

    Raises:
        OSError: the file cannot be read.
        UserError: as :func:`refuse_swelling_archive`.
    """
    refuse_swelling_archive(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
        return False


def refuse_swelling_archive(path: Path) -> None:
    """Refuse a zip archive that becomes larger than its file when it is read.

    A megabyte of compressed zeros would fill the memory. ``torch.save`` compresses nothing, so that
    a file of its own never takes more than its length. Only the directory of the archive is read.

    Raises:
        OSError: the file cannot be read.
        UserError: a part is compressed or encrypted, or the parts are longer than the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return  # no archive at all: its reader says so
    for part in parts:
        if part.compress_type != zipfile.ZIP_STORED or part.flag_bits & 1:
            raise UserError(
                f"{path} was refused and nothing in it was read: its part {part.filename} is compressed or encrypted, "
                "and torch.save does neither; save the tensors again"
            )
    if sum(max(part.file_size, part.compress_size) for part in parts) > path.stat().st_size:
        raise UserError(
            f"{path} was refused and nothing in it was read: its parts are longer than the file, "
            "which torch.save never writes; save the tensors again"
        )


def first_not_finite(value: Any, leave_out: Collection[str] = ()) -> str | None:
    """Return where a number in nested data is NaN or infinite, as "net.head.weight".

    None: all numbers are finite.

    Args:
        value: nested dicts, lists and tuples of tensors and plain data.
        leave_out: keys whose values are not looked at.
    """
    return next((".".join(place) for place, number in _numbers(value, leave_out, ()) if not _is_finite(number)), None)


def _numbers(value: Any, leave_out: Collection[str], place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each tensor and each float with its place."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key not in leave_out:
                yield from _numbers(item, leave_out, (*place, str(key)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _numbers(item, leave_out, (*place, str(index)))
    elif hasattr(value, "is_floating_point") or isinstance(value, float):
        yield place, value


def _is_finite(number: Any) -> bool:
    """Return whether a float, or all numbers of a tensor, are finite."""
    import torch

    if isinstance(number, float):
        return math.isfinite(number)
    if not number.is_floating_point() or not number.numel():
        return True
    known = number if number.dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16) else number.float()
    return bool(torch.isfinite(torch.stack(known.aminmax())).all())  # one pass, no copy: NaN spreads to both
