"""Finds a Mammoth checkout, imports it, and says what is missing where it is not the Mammoth that the bridge knows."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pmi_cl.errors import UserError

KNOWN = "the snapshot of May 2026, e75a491"
FILES = ("main.py", "models/__init__.py", "datasets/__init__.py", "backbone/__init__.py", "utils/args.py")
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
DOWNLOADS = "datasets.seq_8vision"  # fetches 600 MB of weights when it is imported


@dataclass(frozen=True)
class Mammoth:
    """An imported checkout.

    Attributes:
        folder: its root.
        names: what Mammoth itself has, by kind ("model", "dataset", "backbone"), in its spelling.
        flags: the names of Mammoth's own flags.
    """

    folder: Path
    names: dict[str, frozenset[str]]
    flags: frozenset[str]

    def __getattr__(self, module: str) -> Any:
        """Mammoth's module of that name, such as ``mammoth.models``."""
        if module not in ("models", "datasets", "backbone", "utils"):
            raise AttributeError(module)
        return sys.modules[module]


def spelled(name: str) -> str:
    """A name as Mammoth compares it."""
    return name.replace("_", "-").lower()


def find_mammoth(path: str | Path) -> Path:
    """The checkout's root. Raises UserError for a folder that is not one."""
    folder = Path(path).expanduser().resolve()
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{path} is no checkout of Mammoth (it lacks {missing[0]}): give the folder that holds its main.py"
        )
    return folder


def enter_mammoth(folder: Path, wanted: Iterable[str] = ()) -> Mammoth:
    """Import the checkout's packages under their own names, as its ``main.py`` does; nothing is written into it.

    Args:
        wanted: words of the command line; the data set that downloads while it is imported is imported only if one of them asks for it.

    Raises:
        UserError: a package that is not at hand, a name that something else has, a contract that differs.
    """
    _refuse_strangers(folder)
    if not {"seq-8vision", "tak"} & {spelled(word.rpartition("=")[2]) for word in wanted}:
        sys.modules.setdefault(DOWNLOADS, types.ModuleType(DOWNLOADS))
    if str(folder) != sys.path[0]:
        sys.path.insert(0, str(folder))
    with _no_bytecode():
        for module, attributes in CONTRACT.items():
            _check(folder, _import(folder, module), attributes)
    return Mammoth(folder, {kind: _names(folder, kind) for kind in ("model", "dataset", "backbone")}, _flags())


def _refuse_strangers(folder: Path) -> None:
    for name in ("models", "datasets", "backbone", "utils"):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and folder not in Path(file).resolve().parents:
            raise UserError(
                f"'{name}' is already imported from {file}: use a Python process that has imported Mammoth's '{name}' or none"
            )


def _import(folder: Path, module: str) -> types.ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        hint = f"install what it needs: pip install -r {folder / 'requirements.txt'}"
        raise UserError(f"Mammoth in {folder} cannot be imported ({module}: {error}): {hint}") from error


def _check(folder: Path, module: types.ModuleType, attributes: Iterable[str]) -> None:
    for attribute in attributes:
        value: Any = module
        for part in attribute.split("."):
            if not hasattr(value, part):
                raise UserError(
                    f"Mammoth in {folder} has no {module.__name__}.{attribute}: its contract differs from {KNOWN}"
                )
            value = getattr(value, part)


def _names(folder: Path, kind: str) -> frozenset[str]:
    """The registered names, those of the files that Mammoth searches, and what these files call themselves."""
    package = sys.modules["backbone" if kind == "backbone" else f"{kind}s"]
    names = list(getattr(package, f"REGISTERED_{kind.upper()}S"))
    for file in () if kind == "backbone" else (folder / f"{kind}s").glob("[!_]*.py"):
        text = file.read_text(encoding="utf-8", errors="replace")
        names += [file.stem, *re.findall(r"^    NAME\s*=\s*['\"]([\w-]+)", text, re.MULTILINE)]
    return frozenset(map(spelled, names))


def _flags() -> frozenset[str]:
    """The destinations of all flags that Mammoth adds by itself."""
    import argparse

    parser, own = argparse.ArgumentParser(add_help=False), sys.modules["utils.args"]
    for add in ("add_experiment_args", "add_management_args"):
        getattr(own, add)(parser)
    # Of the first stage, and what Mammoth puts into the same namespace by itself; adding the former would import every method.
    first = {"model", "dataset", "backbone", "load_best_args", "loadcheck", "dataset_config", "model_config"}
    return frozenset({action.dest for action in parser._actions} | first | {"class_order", "num_classes", "nowand"})


@contextlib.contextmanager
def _no_bytecode() -> Iterator[None]:
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def quietly() -> contextlib.AbstractContextManager[Any]:
    """Mammoth prints a line for every data set that is registered."""
    return contextlib.redirect_stdout(io.StringIO())
