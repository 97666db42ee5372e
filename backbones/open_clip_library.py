"""Import open_clip when it is used.

Importing this package never imports it, and torchvision is made fit for it first.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any

from pmi_cl.errors import UserError
from pmi_cl.machine.torchvision_shim import ensure_torchvision


def open_clip_module(name: str = "") -> ModuleType:
    """Return open_clip itself, or one of its modules such as "transformer".

    The first call costs 1.4 s of processor time, beside the 0.8 s of torch.

    Raises:
        UserError: it is not installed.
    """
    ensure_torchvision()
    try:
        return importlib.import_module(f"open_clip.{name}" if name else "open_clip")
    except ModuleNotFoundError as error:
        raise UserError(
            f"CLIP backbones need {error.name}, which is not installed: pip install 'open_clip_torch>=2.32'"
        ) from error


@functools.cache
def tokenizer_of(model: str) -> Any:
    """Return the tokenizer of one of open_clip's models, made once for a process.

    It reads a vocabulary of 49,408 entries. A command needs it to check the texts, and to build the
    network.

    Raises:
        UserError: open_clip is not installed.
    """
    return open_clip_module().get_tokenizer(model)
