"""Reads what ``torch.save`` wrote as tensors and plain data and nothing else: a file may come from anybody, and be damaged."""

from __future__ import annotations

import pickle
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

from pmi_cl.errors import UserError


class DamagedFile(ValueError):
    """A file is not whole, or nothing that ``torch.save`` wrote."""


def read_tensors(path: Path) -> Any:
    """The content of a file; its tensors go to the CPU.

    Raises:
        UserError: it holds Python objects, whose loading could run code: nothing in it was run.
        DamagedFile: it cannot be read.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old forms of pickles, which are read or refused all the same
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} was refused and nothing in it was run: it holds more than tensors and plain data"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise DamagedFile(str(path)) from error


def is_whole_archive(path: Path) -> bool:
    """Whether the parts of a zip archive, as ``torch.save`` writes them, have their checksums, which ``torch.load`` does not compare.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
        return False
