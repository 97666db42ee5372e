"""Run a checkout's ``main.py`` with our methods, data sets and backbones: ``pmi-cl mammoth``."""

from __future__ import annotations

import contextlib
import itertools
import os
import runpy
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from pmi_cl.errors import UserError
from pmi_cl.machine.terminal import show
from pmi_cl.machine.user_paths import user_path
from pmi_cl.mammoth.bridge import Bridge
from pmi_cl.mammoth.checkout import canonical_name, find_mammoth
from pmi_cl.mammoth.flags import PREFIX, own_runner_flags
from pmi_cl.mammoth.registration import register
from pmi_cl.registry.catalogue import Catalogue
from pmi_cl.utils.arguments.presets import OWN_FILES

USAGE = f"""\
usage: pmi-cl mammoth --mammoth_path DIR --model MODEL --dataset DATASET [Mammoth's own flags and ours]

  --mammoth_path DIR   a checkout of aimagelab/mammoth, which is not changed (or MAMMOTH_PATH in the environment)

Runs the main.py of that checkout with pmi-cl's methods, data sets and backbones beside its own. They keep their names.
A name or flag that Mammoth has, too, gets '{PREFIX.rstrip("_")}' in front: pmi-resnet32, --{PREFIX}lr_milestones.
--model_config takes our presets. With --model and --dataset, --help lists every flag.
Paths that you type, results and checkpoints are relative to the current folder. Data sets are read from the checkout's
data/ if it exists, else from ./data.
"""
PATH_FLAGS = ("base_path", "results_path", "checkpoint_path", "loadcheck", "data_dir")


def help_text(argv: Sequence[str], catalogue: Catalogue) -> str:
    """Return how the command is used.

    With a method and a data set, Mammoth's own ``--help`` lists the flags.
    """
    return USAGE


def run_command(argv: Sequence[str], catalogue: Catalogue) -> int:
    """Carry the command out and return the exit code. Raise UserError as :func:`launch`."""
    return launch(argv)


def launch(argv: Sequence[str]) -> int:
    """Run Mammoth's ``main.py`` with our entries in it, and return the exit code.

    Args:
        argv: the words behind ``pmi-cl mammoth``.

    Raises:
        UserError: no checkout, an unknown name, or a flag that Mammoth does not take.
    """
    path, words = _mammoth_path(argv)
    named = any(word.partition("=")[0] in ("--model", "--loadcheck") for word in words)
    if not named and (not words or set(words) & {"-h", "--help"}):
        show(USAGE)
        return 0
    if not path:
        raise UserError("--mammoth_path is missing: give the folder of a Mammoth checkout")
    folder = find_mammoth(path)
    bridge = register(folder, words)
    bridge.names.check(words)
    _check_flags(words, own_runner_flags(bridge.mammoth.flags))
    _run_main(bridge, _with_folders(bridge.names.as_registered(words), bridge.start_folder, bridge.folders))
    return 0


def _run_main(bridge: Bridge, words: list[str]) -> None:
    """Run ``main.py`` without leaving anything in the checkout."""
    folder = words[words.index("--checkpoint_path") + 1]
    # Mammoth keeps the first folder that it is told. This must come before a module asks for it.
    sys.modules["utils.conf"].get_checkpoint_path(folder)
    sys.argv = [str(bridge.mammoth.folder / "main.py"), *words]
    sys.dont_write_bytecode = True
    default = bridge.mammoth.folder / "checkpoints"
    existed = default.exists()
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        if not existed:
            with contextlib.suppress(OSError):  # with --savecheck Mammoth creates it and leaves it empty
                default.rmdir()


def _mammoth_path(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Return the value of ``--mammoth_path`` or MAMMOTH_PATH, or "", and the other words."""
    words, path = [], os.environ.get("MAMMOTH_PATH", "")
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if canonical_name(name) != "--mammoth-path":
            words.append(word)
        elif equals:
            path = value
        else:
            path = rest.pop(0) if rest and not rest[0].startswith("--") else ""
    return path, words


def _check_flags(words: Sequence[str], own_runner: Collection[str]) -> None:
    """Raise UserError for a flag that Mammoth does not take.

    These are a flag that is typed twice, which Mammoth answers with a traceback, ``--class_order``,
    which has another name inside Mammoth, and the flags of our own runner.

    Args:
        own_runner: the names of the flags of our own runner.
    """
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    twice = next((flag for place, flag in enumerate(flags) if flag in flags[:place]), None)
    if twice:
        raise UserError(f"{twice} is typed twice: give it once")
    if "--class_order" in flags:
        raise UserError(
            f"--class_order: say --{PREFIX}class_order for a data set of ours, or Mammoth's own --custom_class_order"
        )
    absent = next((flag for flag in flags if flag.removeprefix("--") in own_runner), None)
    if absent:
        raise UserError(
            f"{absent} belongs to pmi-cl's own runner, and the loop here is Mammoth's: "
            "leave it out, or run pmi-cl without 'mammoth'"
        )


def _with_folders(words: Sequence[str], start_folder: Path, folders: dict[str, str]) -> list[str]:
    """Return the words with absolute paths, and with default folders where none are typed.

    Mammoth works inside its checkout, so a relative path would mean another place there.
    """
    flags: list[str] = []
    for word in words:
        name, equals, value = word.partition("=")
        flags += [name, value] if equals and _is_path(name, value) else [word]
    for place, (flag, value) in enumerate(itertools.pairwise(flags)):
        if _is_path(flag, value):
            flags[place + 1] = str(start_folder / user_path(value, flag))
    # Flags that are typed win over the folders of a checkpoint.
    for name, folder in folders.items():
        flags += [] if f"--{name}" in flags else [f"--{name}", folder]
    return flags


def _is_path(flag: str, value: str) -> bool:
    """Return whether the value of a flag is a path of the user."""
    own_preset = flag == "--model_config" and value.lower().endswith(OWN_FILES)
    return own_preset or (flag.startswith("--") and flag[2:] in PATH_FLAGS and "://" not in value)
