"""Replace the functions of Mammoth that read presets, default folders and the backbone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pmi_cl.mammoth.checkout import canonical_name
from pmi_cl.mammoth.flags import UNUSED, options_from_preset, preset_names
from pmi_cl.registry.catalogue import INSTALLED

if TYPE_CHECKING:
    from pmi_cl.mammoth.bridge import Bridge

Original = Callable[..., Any]


def replace_functions(bridge: Bridge) -> None:
    """Put our functions in the place of Mammoth's, which looks them up when it calls them."""
    patches = Patches(bridge)
    for module, function, ours in (
        ("utils.args", "add_configuration_args", patches.add_configuration_args),
        ("utils.args", "add_management_args", patches.add_management_args),
        ("models.utils", "load_model_config", patches.load_model_config),
        ("backbone", "get_backbone", patches.get_backbone),
    ):
        _replace(module, function, ours)


def _replace(module: str, function: str, ours: Callable[..., Any]) -> None:
    """Replace a function. Ours gets the original as its first argument."""
    original = getattr(sys.modules[module], function)
    setattr(sys.modules[module], function, lambda *args, **kwargs: ours(original, *args, **kwargs))


class Patches:
    """Treat our methods as our own program does, and call Mammoth's function for all others."""

    def __init__(self, bridge: Bridge) -> None:
        self._names, self._entries, self._flags = bridge.names, bridge.entries, bridge.flags
        self._folders = bridge.folders

    def add_configuration_args(self, original: Original, parser: Any, args: Any) -> None:
        """Let ``--model_config`` take our presets for our methods."""
        original(parser, args)
        model = self._entries["model"].get(canonical_name(args.model))
        for action in parser._actions:
            if model and action.dest == "model_config":
                action.type, action.choices = str, None  # an unknown preset is refused when presets are read
                action.metavar = f"{{{','.join(preset_names(model))}}}"
                action.help = (
                    f"Preset of {model.name}; default: its choice for the data set; "
                    "none: no preset; or a file, MINE.yaml."
                )

    def add_management_args(self, original: Original, parser: Any) -> None:
        """Make the default folders relative to the user's folder instead of Mammoth's checkout."""
        original(parser)
        for action in parser._actions:
            action.default = self._folders.get(action.dest, action.default)

    def load_model_config(self, original: Original, args: Any, buffer_size: int | None = None) -> dict[str, Any]:
        """Return the preset of one of our methods in the form of Mammoth's yaml files."""
        model, dataset = canonical_name(args.model), canonical_name(args.dataset)
        if model not in self._entries["model"]:
            return original(args, buffer_size=buffer_size)
        typed = self._entries["backbone"].get(canonical_name(args.backbone or ""))
        values = options_from_preset(
            self._entries["model"][model],
            args.dataset,
            self._entries["dataset"].get(dataset),
            args.model_config,
            typed.name if typed else None,
        )
        config = self._as_config(model, dataset, values)
        if getattr(args, "loadcheck", None):  # the settings of a checkpoint win over a preset
            config = {name: value for name, value in config.items() if getattr(args, name, None) is None}
        return config

    def _as_config(self, model: str, dataset: str, values: dict[str, Any]) -> dict[str, Any]:
        """Return our option values by Mammoth's flags."""
        backbone = self._names.name_of(INSTALLED.find("backbone", values["backbone"]))
        config: dict[str, Any] = {"backbone": backbone, "drop_last": True}
        config["lr"] = 0.0  # a method that trains nothing has no rate
        # These replace the schedule of the data set.
        config |= {name: UNUSED[name][0] for name in ("lr_scheduler", "lr_milestones")}
        flags = (self._flags["model"][model], self._flags["dataset"].get(dataset), self._flags["backbone"][backbone])
        for each in filter(None, flags):
            config |= {each.names[spec.name]: values[spec.name] for spec in each.set_by_preset}
        return config

    def get_backbone(self, original: Original, args: Any) -> Any:
        """Return a placeholder for our methods, which build their network from the run's seed."""
        model = self._entries["model"].get(canonical_name(args.model))
        if model is None:
            return original(args)
        from pmi_cl.mammoth.hosted_backbone import make_placeholder

        name = canonical_name(args.backbone)
        entry, flags = self._entries["backbone"].get(name), self._flags["backbone"].get(name)
        return make_placeholder(model, entry, flags, args)
