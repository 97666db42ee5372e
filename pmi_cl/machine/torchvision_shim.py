"""Make torchvision importable beside a CPU-only torch."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_registered: list[object] = []  # keeps registrations alive: each ends when its object is deleted


def ensure_torchvision() -> None:
    """Declare the operators that torchvision misses. Call it before ``import torchvision``.

    It does nothing where the import works, or where torchvision is not installed.

    The package index's Linux build of torchvision is linked against CUDA. Beside a CPU-only torch
    its compiled operators cannot be loaded. The import then fails with "operator torchvision::nms
    does not exist", because Python code is attached to two operators that are not declared. This
    function declares them. They still cannot be *called*, and torchvision cannot decode images. Its
    networks, transforms and data sets work.

    It must run first, because a failed import leaves half of torchvision behind, and a second
    import then fails in another place.
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
