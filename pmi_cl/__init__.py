"""pmi-cl: data-free continual learning by per-layer model inversion (PMI + CFS).

The code lies in the top-level folders of the project (``models``, ``datasets`` ...). It is imported
under one name: ``pmi_cl.models``, ``pmi_cl.datasets`` and so on, from a checkout and installed.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from pathlib import Path as _Path
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
    from pmi_cl.utils.trained.trained_model import TrainedModel

__version__ = "0.2.0"

_root = _Path(__file__).resolve().parent.parent
if (_root / "setup.cfg").is_file() and (_root / "inversion").is_dir():
    __path__.append(str(_root))  # a checkout: pmi_cl.models is <root>/models


def load(source: str | _Path, device: str = "auto", base_path: str | None = None) -> TrainedModel:
    """Return the network of a run, ready for images: ``pmi_cl.load(run).predict(images)``.

    Args:
        source: the folder of a finished run (or its name below ``runs``), a checkpoint in its run's
            folder, a run's ``model.safetensors``, or a file that ``pmi-cl export`` wrote.
        device: "auto", "cpu", "cuda" or "cuda:N".
        base_path: the folder of data sets and weights, if it is not the one that the run had.

    Raises:
        pmi_cl.errors.UserError: there is no such run or file, the run is not finished or has kept
            no network, or the file is damaged or not one of ours. The message is one line.
    """
    # By name: ``import pmi_cl`` imports no torch.
    model: TrainedModel = _import_module("pmi_cl.utils.trained.loading").load(source, device, base_path)
    return model
