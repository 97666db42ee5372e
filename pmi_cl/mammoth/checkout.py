"""Find a checkout of Mammoth, import it, and check that it has what the bridge builds on."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import sys
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pmi_cl.errors import UserError
from pmi_cl.machine.user_paths import user_path

KNOWN_SNAPSHOT = "the snapshot of May 2026, e75a491"
FILES = ("main.py", "models/__init__.py", "datasets/__init__.py", "backbone/__init__.py", "utils/args.py")
PACKAGES = ("models", "datasets", "backbone", "utils")
# What the bridge builds on, by module.
CONTRACT = {
    "models": ("register_model", "REGISTERED_MODELS"),
    "models.utils": ("load_model_config",),
    "models.utils.continual_model": (
        *("ContinualModel.meta_begin_task", "ContinualModel.meta_observe", "ContinualModel.meta_end_task"),
        *("ContinualModel.get_parser", "ContinualModel.get_optimizer", "ContinualModel.epoch_iteration"),
    ),
    "datasets": ("register_dataset", "REGISTERED_DATASETS"),
    "datasets.utils": ("set_default_from_args",),
    "datasets.utils.continual_dataset": (
        "ContinualDataset.get_offsets",
        "store_masked_loaders",
        "fix_class_names_order",
    ),
    "backbone": ("register_backbone", "REGISTERED_BACKBONES", "MammothBackbone", "get_backbone"),
    "utils.args": ("add_configuration_args", "add_initial_args", "add_experiment_args", "add_management_args"),
    "utils.conf": ("get_checkpoint_path", "get_device"),
}
DOWNLOADS = "datasets.seq_8vision"  # downloads 600 MB of weights when it is imported
DOWNLOADERS = {"seq-8vision", "tak"}  # the names on the command line that need it


@dataclass(frozen=True)
class Mammoth:
    """Hold an imported checkout.

    Attributes:
        folder: its root.
        names: the names that Mammoth itself has, by kind ("model", "dataset", "backbone").
        flags: the names of Mammoth's own flags.
    """

    folder: Path
    names: dict[str, frozenset[str]]
    flags: frozenset[str]

    def __getattr__(self, module: str) -> Any:
        """Return Mammoth's package of that name, such as ``mammoth.models``."""
        if module not in PACKAGES:
            raise AttributeError(module)
        return sys.modules[module]


def canonical_name(name: str) -> str:
    """Return a name in the form in which Mammoth compares names."""
    return name.replace("_", "-").lower()


def find_mammoth(path: str | Path) -> Path:
    """Return the root of the checkout at a path. Raise UserError if the folder is not one."""
    folder = user_path(str(path), "--mammoth_path").resolve()
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{path} is no checkout of Mammoth (it lacks {missing[0]}): give the folder that holds its main.py"
        )
    return folder


def importable_checkout() -> str:
    """Return the checkout that is imported, on ``sys.path`` or in MAMMOTH_PATH.

    Raises:
        UserError: there is none.
    """
    loaded = getattr(sys.modules.get("models"), "__file__", None)
    if loaded:
        return str(Path(loaded).parent.parent)
    for folder in filter(None, [*sys.path, os.environ.get("MAMMOTH_PATH", "")]):
        if (Path(folder) / "models/utils/continual_model.py").is_file() and (Path(folder) / "backbone").is_dir():
            return folder
    raise UserError(
        "no Mammoth is imported or on sys.path: register(mammoth_path=DIR) with the folder that holds its main.py"
    )


def import_mammoth(folder: Path, words: Iterable[str] = ()) -> Mammoth:
    """Import the packages of a checkout under their own names, as its ``main.py`` does.

    Nothing is written into the checkout.

    Args:
        words: the command line. The data set that downloads while it is imported is imported only
            if a word names it.

    Raises:
        UserError: a requirement is missing, another package has the same name, or the checkout
            lacks something that the bridge builds on.
    """
    _refuse_foreign_packages(folder)
    if not DOWNLOADERS & {canonical_name(word.rpartition("=")[2]) for word in words}:
        sys.modules.setdefault(DOWNLOADS, types.ModuleType(DOWNLOADS))
    if str(folder) != sys.path[0]:
        sys.path.insert(0, str(folder))
    with _no_bytecode():
        for module, attributes in CONTRACT.items():
            _check_contract(folder, _import(folder, module), attributes)
    names = {kind: _names(folder, kind) for kind in ("model", "dataset", "backbone")}
    return Mammoth(folder, names, _flags())


def _refuse_foreign_packages(folder: Path) -> None:
    """Raise UserError if one of Mammoth's package names is already imported from elsewhere."""
    for name in PACKAGES:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and folder not in Path(file).resolve().parents:
            advice = f"use a Python process that has imported Mammoth's '{name}' or none"
            raise UserError(f"'{name}' is already imported from {file}: {advice}")


def _import(folder: Path, module: str) -> types.ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        hint = f"install what it needs: pip install -r {folder / 'requirements.txt'}"
        raise UserError(f"Mammoth in {folder} cannot be imported ({module}: {error}): {hint}") from error


def _check_contract(folder: Path, module: types.ModuleType, attributes: Iterable[str]) -> None:
    """Raise UserError if the module lacks one of the attributes, such as "Class.method"."""
    for attribute in attributes:
        value: Any = module
        for part in attribute.split("."):
            if not hasattr(value, part):
                missing = f"{module.__name__}.{attribute}"
                raise UserError(f"Mammoth in {folder} has no {missing}: its contract differs from {KNOWN_SNAPSHOT}")
            value = getattr(value, part)


def _names(folder: Path, kind: str) -> frozenset[str]:
    """Return the names that are registered, and those of the files that Mammoth searches."""
    package = sys.modules["backbone" if kind == "backbone" else f"{kind}s"]
    names = list(getattr(package, f"REGISTERED_{kind.upper()}S"))
    for file in () if kind == "backbone" else (folder / f"{kind}s").glob("[!_]*.py"):
        text = file.read_text(encoding="utf-8", errors="replace")
        names += [file.stem, *re.findall(r"^    NAME\s*=\s*['\"]([\w-]+)", text, re.MULTILINE)]
    return frozenset(map(canonical_name, names))


def _flags() -> frozenset[str]:
    """Return the destinations of all flags that Mammoth adds by itself."""
    import argparse

    parser, own = argparse.ArgumentParser(add_help=False), sys.modules["utils.args"]
    for add in ("add_experiment_args", "add_management_args"):
        getattr(own, add)(parser)
    # Flags that Mammoth parses first. To add them here would import every method.
    first = {"model", "dataset", "backbone", "load_best_args", "loadcheck", "dataset_config", "model_config"}
    # Values that Mammoth itself puts into the same namespace.
    computed = {"class_order", "num_classes", "nowand"}
    return frozenset({action.dest for action in parser._actions} | first | computed)


@contextlib.contextmanager
def _no_bytecode() -> Iterator[None]:
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def without_output() -> contextlib.AbstractContextManager[Any]:
    """Discard stdout in the body: Mammoth prints a line for every data set that is registered."""
    return contextlib.redirect_stdout(io.StringIO())
