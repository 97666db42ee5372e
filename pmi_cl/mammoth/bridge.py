"""Hold what is registered in a Mammoth: our entries, their names and flags there, folders."""

from __future__ import annotations

from pathlib import Path

from pmi_cl.mammoth.checkout import Mammoth
from pmi_cl.mammoth.flags import Flags
from pmi_cl.mammoth.names import HostedNames


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
