"""Register our methods, data sets and backbones in a checkout of Mammoth.

Each entry becomes a subclass of Mammoth's own class, which is entered into Mammoth's registers. The
functions of Mammoth that have to know of our entries are replaced.
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pmi_cl.machine.torchvision_shim import ensure_torchvision
from pmi_cl.mammoth.bridge import Bridge
from pmi_cl.mammoth.checkout import find_mammoth, import_mammoth, importable_checkout, part, working_in
from pmi_cl.mammoth.flags import HostedEntry, preset_names, preset_values
from pmi_cl.registry.catalogue import INSTALLED


def register(mammoth_path: str | Path | None = None) -> Bridge:
    """Register our methods, data sets and backbones in a Mammoth. A second call does nothing.

    Args:
        mammoth_path: the checkout. None takes the one whose ``models`` is imported or importable.

    Raises:
        UserError: there is no Mammoth, or one that the bridge does not fit.
    """
    ensure_torchvision()
    return _bridge_to(find_mammoth(mammoth_path or importable_checkout()))


@functools.cache
def _bridge_to(folder: Path) -> Bridge:
    import_mammoth(folder)
    with working_in(folder), contextlib.redirect_stdout(io.StringIO()):  # Mammoth prints a line for every data set
        bridge = Bridge(folder)
        enter_entries(bridge)
    _replace_functions(bridge)
    return bridge


def enter_entries(bridge: Bridge) -> None:
    """Enter our backbones, data sets and methods into Mammoth's registers."""
    # Subclasses of Mammoth's classes: they can be imported only now.
    from pmi_cl.mammoth.hosted_data import HostedBackbone, HostedDataset
    from pmi_cl.mammoth.hosted_method import HostedMethod

    for kind, base in (("backbone", HostedBackbone), ("dataset", HostedDataset), ("model", HostedMethod)):
        module = part("backbone" if kind == "backbone" else f"{kind}s")
        for name, hosted in bridge.ours[kind].items():
            members = {"NAME": name.replace("-", "_") if kind == "model" else name, "HOSTED": hosted, "BRIDGE": bridge}
            members["COMPATIBILITY"] = list(hosted.entry.constants.get("COMPATIBILITY", ()))
            getattr(module, f"register_{kind}")(name)(type(base.__name__, (base,), members))
            getattr(module, f"REGISTERED_{kind.upper()}S")[name]["parsable_args"] = hosted.parsable_args()
    for name, hosted in bridge.ours["dataset"].items():
        part("datasets.utils").DEFAULT_ARGS[name] = _defaults_on(hosted, bridge)


def _defaults_on(dataset: HostedEntry, bridge: Bridge) -> dict[str, Any]:
    """Return what Mammoth's methods without a value of their own take: that of our fine-tuning."""
    values = preset_values(INSTALLED.find("model", "sgd"), dataset.name, dataset.entry, None)
    values["backbone"] = bridge.name_of(INSTALLED.find("backbone", values["backbone"]))
    return {flag: values[flag] for flag in ("backbone", "n_epochs", "batch_size", "lr")}


def _replace_functions(bridge: Bridge) -> None:
    """Replace those functions of Mammoth that look for files or have to know of our entries."""
    from torch import nn

    from pmi_cl.mammoth.refusals import watch

    original: dict[str, Callable[..., Any]] = {}

    def add_initial_args(parser: Any, strict: bool = True) -> Any:
        watch(parser, bridge)
        base = bridge.folder / "data" if (bridge.folder / "data").is_dir() else Path("data")
        parser.set_defaults(base_path=str(base.absolute()), results_path=str(Path("data/results").absolute()))
        return original["add_initial_args"](parser, strict)

    def add_configuration_args(parser: Any, args: Any) -> None:
        original["add_configuration_args"](parser, args)
        model = bridge.find("model", args.model)
        for action in parser._actions:
            if model and action.dest == "model_config":
                action.type, action.choices = str, None  # an unknown preset is refused when presets are read
                action.metavar = f"{{{','.join(preset_names(model.entry))}}}"
                action.help = f"Preset of {model.entry.name}; default: its choice for the data set; "
                action.help += "none: no preset; or a file, MINE.yaml."

    def load_model_config(args: Any, buffer_size: int | None = None) -> dict[str, Any]:
        theirs = original["load_model_config"]
        return bridge.preset(args) if bridge.find("model", args.model) else theirs(args, buffer_size=buffer_size)

    def get_backbone(args: Any) -> Any:
        # Our methods build their network themselves, from the run's seed.
        return nn.Identity() if bridge.find("model", args.model) else original["get_backbone"](args)

    for module, name, ours in (
        ("utils.args", "add_initial_args", add_initial_args),
        ("utils.args", "add_configuration_args", add_configuration_args),
        ("models.utils", "load_model_config", load_model_config),
        ("backbone", "get_backbone", get_backbone),
        ("models", "get_all_models_legacy", None),
        ("datasets", "get_all_datasets_legacy", None),
        ("datasets.utils", "load_dataset_config", None),
    ):
        original[name] = working_in(bridge.folder)(getattr(part(module), name))
        setattr(part(module), name, ours or original[name])
