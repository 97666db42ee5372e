"""Read files of ``torch.save`` safely: tensors and plain data only, damaged files refused."""

from __future__ import annotations

import pickle
import warnings
import zipfile
import zlib
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
    except (RuntimeError, OSError, EOFError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise DamagedFile(str(path)) from error


def is_whole_archive(path: Path) -> bool:
    """Return whether every part of a file of ``torch.save`` (a zip archive) matches its checksum.

    ``torch.load`` does not compare the checksums.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
        return False
