"""Lets torchvision be imported beside a CPU-only torch, where the registry's build of it stops at a missing operator."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_registered: list[object] = []  # a registration dies with the object that made it


def ensure_torchvision() -> None:
    """Call before the first ``import torchvision``; does nothing where that import works, or where torchvision is not installed.

    The registry's Linux build of torchvision is linked against CUDA. Beside a CPU-only torch its compiled operators cannot be loaded, and
    the import ends in "operator torchvision::nms does not exist", because Python code is attached to two operators that nobody
    declared. This declares them. They still cannot be *called* then, nor can torchvision decode images; its networks, transforms and
    data sets work.

    It has to run first: an import that failed leaves half of torchvision behind, and trying again fails in another place.
    """
    if sys.platform != "linux" or "torchvision" in sys.modules:
        return
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    import torch

    compiled = next(Path(spec.origin).parent.glob("_C*.so"), None)
    try:
        if compiled is not None:
            torch.ops.load_library(str(compiled))
    except OSError:
        _declare_operators()


def _declare_operators() -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _registered.append(library)
