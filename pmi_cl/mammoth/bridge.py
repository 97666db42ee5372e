"""Register our methods, data sets and backbones in a checkout of Mammoth.

The names inside Mammoth are in ``names.py``, the classes that Mammoth gets in ``registration.py``,
and the functions of Mammoth that are replaced in ``patches.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pmi_cl.mammoth.checkout import Mammoth, find_mammoth, import_mammoth, importable_checkout
from pmi_cl.mammoth.flags import Flags
from pmi_cl.mammoth.names import HostedNames
from pmi_cl.mammoth.patches import replace_functions
from pmi_cl.mammoth.registration import register_entries


class Bridge:
    """Hold what is registered in a Mammoth.

    Attributes:
        mammoth: the imported checkout.
        start_folder: the current folder before Mammoth was imported.
        folders: the default folders for data, results and checkpoints, by flag.
        names: the names of our entries inside Mammoth.
        entries: our entries, by kind and by the name that they have in Mammoth.
        flags: the flags of each entry, by kind and name.
    """

    def __init__(self, mammoth: Mammoth, start_folder: Path) -> None:
        self.mammoth, self.start_folder = mammoth, start_folder
        self.folders = default_folders(mammoth.folder, start_folder)
        self.names = HostedNames(mammoth)
        self.entries = self.names.entries
        self.flags = {
            kind: {name: Flags(entry, mammoth.flags) for name, entry in entries.items()}
            for kind, entries in self.entries.items()
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
        register_entries(models.pmi_cl_bridge)
        replace_functions(models.pmi_cl_bridge)
    return models.pmi_cl_bridge


def default_folders(checkout: Path, start_folder: Path) -> dict[str, str]:
    """Return the folders, by flag, that are used if the flag is not typed.

    They lie in the folder where the user is. Data sets lie in the checkout's ``data/`` if it
    exists.
    """
    data = checkout / "data" if (checkout / "data").is_dir() else start_folder / "data"
    return {
        "base_path": str(data),
        "results_path": str(start_folder / "data/results"),
        "checkpoint_path": str(start_folder / "checkpoints"),
    }
