"""The one door to open_clip, so that importing this package never imports it, and so that torchvision is made fit for it first."""

from __future__ import annotations

import importlib
from types import ModuleType

from pmi_cl.errors import UserError
from pmi_cl.machine.torchvision_shim import ensure_torchvision


def open_clip_module(name: str = "") -> ModuleType:
    """open_clip itself, or one of its modules such as "transformer". The first time costs 1.4 s of processor time beside torch's own 0.8 s.

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
