"""Find a checkout of Mammoth, import it, and check that it has what the bridge builds on."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from pmi_cl.errors import UserError
from pmi_cl.machine.user_paths import user_path

PACKAGES = ("models", "datasets", "backbone", "utils")
# What the bridge builds on, by module.
CONTRACT = {
    "models": ("register_model", "REGISTERED_MODELS", "get_model_names", "get_all_models_legacy"),
    "models.utils": ("load_model_config",),
    "models.utils.continual_model": (
        *("ContinualModel.meta_begin_task", "ContinualModel.meta_observe", "ContinualModel.meta_end_task"),
        *("ContinualModel.get_parser", "ContinualModel.get_optimizer", "ContinualModel.epoch_iteration"),
    ),
    "datasets": ("register_dataset", "REGISTERED_DATASETS", "get_dataset_names", "get_all_datasets_legacy"),
    "datasets.utils": ("DEFAULT_ARGS", "load_dataset_config"),
    "datasets.utils.continual_dataset": (
        *("ContinualDataset.get_offsets", "store_masked_loaders", "fix_class_names_order"),
    ),
    "backbone": ("register_backbone", "REGISTERED_BACKBONES", "MammothBackbone", "get_backbone"),
    "utils.args": (
        *("add_configuration_args", "add_initial_args", "add_experiment_args", "add_management_args"),
        "build_parsable_args",
    ),
    "utils.conf": ("get_checkpoint_path", "get_device"),
}


def find_mammoth(path: str | Path | None) -> Path:
    """Return the root of the checkout at a path.

    Without a path it is the checkout on ``sys.path``, or the one that MAMMOTH_PATH names.

    Raises:
        UserError: there is none, or the folder is none.
    """
    if not path:
        spec = importlib.util.find_spec("backbone")
        path = Path(spec.origin).parent.parent if spec and spec.origin else os.environ.get("MAMMOTH_PATH")
    if not path:
        raise UserError("--mammoth_path is missing, and no Mammoth is on sys.path: give the folder of its main.py")
    folder = user_path(str(path), "--mammoth_path").resolve()
    for name in ("main.py", *(f"{package}/__init__.py" for package in PACKAGES)):
        if not (folder / name).is_file():
            raise UserError(
                f"{path} is no checkout of Mammoth (it lacks {name}): give the folder that holds its main.py"
            )
    return folder


def part(module: str) -> Any:
    """Return a module of the Mammoth that is imported, such as "models.utils"."""
    return importlib.import_module(module)


def import_mammoth(folder: Path) -> None:
    """Import the packages of a checkout under their own names, as its ``main.py`` does.

    Mammoth makes its checkout the current folder. Here the current folder stays as it is: what
    Mammoth writes to relative paths is then written where the user is. Python writes no bytecode
    from then on.

    Raises:
        UserError: a requirement is missing, another package has the same name, or the checkout
            lacks something that the bridge builds on.
    """
    for name in PACKAGES:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and folder not in Path(file).resolve().parents:
            advice = f"use a Python process that has imported Mammoth's '{name}' or none"
            raise UserError(f"'{name}' is already imported from {file}: {advice}")
    if str(folder) != sys.path[0]:
        sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    try:
        with working_in(folder), _without_a_download(folder):
            modules = {name: part(name) for name in CONTRACT}
    except ImportError as error:
        hint = f"install what it needs: pip install -r {folder / 'requirements.txt'}"
        raise UserError(f"Mammoth in {folder} cannot be imported ({error}): {hint}") from error
    for name, attributes in CONTRACT.items():
        for attribute in attributes:
            if not _has(modules[name], attribute):
                known = "its contract differs from the snapshot of May 2026, e75a491"
                raise UserError(f"Mammoth in {folder} has no {name}.{attribute}: {known}")


def _has(module: Any, attribute: str) -> bool:
    """Return whether a module has an attribute, such as "Class.method"."""
    owner, _, name = attribute.rpartition(".")
    return hasattr(getattr(module, owner, None) if owner else module, name)


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Make a folder the current one: Mammoth looks for its own files from its root."""
    here = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)


def _without_a_download(folder: Path) -> contextlib.AbstractContextManager[Any]:
    """Give seq-8vision the test transform of OpenAI's CLIPs, for which it downloads 600 MB."""
    if not (folder / "datasets/seq_8vision.py").is_file():
        return contextlib.nullcontext()
    test_transform = part("open_clip").image_transform(224, is_train=False)
    return mock.patch("open_clip.create_model_and_transforms", lambda *_, **__: (None, None, test_transform))
