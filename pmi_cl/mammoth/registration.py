"""Register our methods, data sets and backbones in a checkout of Mammoth.

Each entry becomes a class of Mammoth's kind, which is entered into Mammoth's registers. The names
inside Mammoth are in ``names.py``; the functions of Mammoth that are replaced, in ``patches.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pmi_cl.mammoth.bridge import Bridge
from pmi_cl.mammoth.checkout import find_mammoth, import_mammoth, importable_checkout, without_output
from pmi_cl.mammoth.flags import options_from_preset
from pmi_cl.mammoth.patches import replace_functions
from pmi_cl.registry.catalogue import INSTALLED, Entry

# Mammoth's methods that give a data set's default for a flag.
DEFAULT_GETTERS = {
    "get_backbone": "backbone",
    "get_epochs": "n_epochs",
    "get_batch_size": "batch_size",
    "get_rate": "lr",
}


def register(mammoth_path: str | Path | None = None, words: Sequence[str] = ()) -> Bridge:
    """Register our methods, data sets and backbones in a Mammoth. A second call does nothing.

    Args:
        mammoth_path: the checkout. None takes the one whose ``models`` is imported or importable.
        words: names that will be used, so that modules that only they need are imported.

    Raises:
        UserError: there is no Mammoth, or one that the bridge does not fit.
    """
    from pmi_cl.machine.torchvision_shim import ensure_torchvision

    ensure_torchvision()
    start_folder = Path.cwd()  # importing Mammoth makes its checkout the current folder
    mammoth = import_mammoth(find_mammoth(mammoth_path or importable_checkout()), words)
    models = mammoth.models
    if not hasattr(models, "pmi_cl_bridge"):
        models.pmi_cl_bridge = Bridge(mammoth, start_folder)
        # Modules of Mammoth make a folder there when they are imported: by default in the checkout.
        checkpoints = models.pmi_cl_bridge.folders["checkpoint_path"]
        sys.modules["utils.conf"].get_checkpoint_path.path = f"{checkpoints}/"
        register_entries(models.pmi_cl_bridge)
        replace_functions(models.pmi_cl_bridge)
    return models.pmi_cl_bridge


def register_entries(bridge: Bridge) -> None:
    """Enter all our backbones, data sets and methods into Mammoth's registers."""
    makers = {"backbone": _register_backbone, "dataset": _register_dataset, "model": _register_model}
    with without_output():
        for kind, make in makers.items():
            for name in bridge.entries[kind]:
                make(bridge, name)


def _register_backbone(bridge: Bridge, name: str) -> None:
    from pmi_cl.mammoth.hosted_backbone import HostedBackbone

    backbone, flags = bridge.mammoth.backbone, bridge.flags["backbone"][name]
    members = {"ENTRY": bridge.entries["backbone"][name], "FLAGS": flags}
    hosted = type(HostedBackbone.__name__, (HostedBackbone, backbone.MammothBackbone), members)
    backbone.register_backbone(name)(hosted)
    classes = {"num_classes": {"type": int, "required": False, "default": None}}
    backbone.REGISTERED_BACKBONES[name]["parsable_args"] = {**classes, **flags.parsable_arguments()}


def _register_dataset(bridge: Bridge, name: str) -> None:
    from pmi_cl.mammoth.hosted_dataset import HostedDataset

    datasets, base = bridge.mammoth.datasets, sys.modules["datasets.utils.continual_dataset"]
    entry, flags = bridge.entries["dataset"][name], bridge.flags["dataset"][name]
    members = {"NAME": name, "ENTRY": entry, "FLAGS": flags, **_default_getters(bridge, name, entry)}
    members["store_loaders"] = staticmethod(base.store_masked_loaders)
    members["order_names"] = staticmethod(base.fix_class_names_order)
    hosted = type(HostedDataset.__name__, (HostedDataset, base.ContinualDataset), members)
    datasets.register_dataset(name)(hosted)
    datasets.REGISTERED_DATASETS[name]["parsable_args"] = flags.parsable_arguments()


def _default_getters(bridge: Bridge, name: str, entry: Entry) -> dict[str, Any]:
    """Return the methods that give backbone, epochs, batch size and rate of a data set.

    They serve Mammoth's methods without a default of their own. The values are those of our
    fine-tuning on the data set.
    """
    NAME = name  # Mammoth's decorator looks this variable up in the function that calls it
    default_from_args = sys.modules["datasets.utils"].set_default_from_args
    values = options_from_preset(INSTALLED.find("model", "sgd"), NAME, entry, None)
    values["backbone"] = bridge.names.name_of(INSTALLED.find("backbone", values["backbone"]))
    members = {}
    for getter, flag in DEFAULT_GETTERS.items():
        members[getter] = default_from_args(flag)(_getter(values[flag]))
    return members


def _getter(value: Any) -> Callable[[Any], Any]:
    return lambda self: value


def _register_model(bridge: Bridge, name: str) -> None:
    from pmi_cl.mammoth.hosted_method import HostedMethod

    entry, base = bridge.entries["model"][name], sys.modules["models.utils.continual_model"].ContinualModel
    members = {"NAME": name.replace("-", "_"), "ENTRY": entry, "FLAGS": bridge.flags["model"][name]}
    members["COMPATIBILITY"] = list(entry.constants["COMPATIBILITY"])
    bridge.mammoth.models.register_model(name)(type(HostedMethod.__name__, (HostedMethod, base), members))
