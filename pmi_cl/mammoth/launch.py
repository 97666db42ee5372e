"""``pmi-cl mammoth``: start a checkout's ``main.py`` with our methods, data sets and backbones in it."""

from __future__ import annotations

import contextlib
import itertools
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from pmi_cl.errors import UserError
from pmi_cl.machine.terminal import show
from pmi_cl.mammoth.bridge import register
from pmi_cl.mammoth.checkout import find_mammoth, spelled
from pmi_cl.mammoth.flags import PREFIX
from pmi_cl.utils.arguments.presets import OWN_FILES

USAGE = f"""\
usage: pmi-cl mammoth --mammoth_path DIR --model MODEL --dataset DATASET [Mammoth's own flags and ours]

  --mammoth_path DIR   a checkout of aimagelab/mammoth, which is not changed (or MAMMOTH_PATH in the environment)

Runs that checkout's main.py with pmi-cl's methods, data sets and backbones beside its own, under their own names; a name or a
flag that Mammoth has, too, gets '{PREFIX.rstrip("_")}' in front: pmi-resnet32, --{PREFIX}lr_milestones. Our presets: --model_config.
With --model and --dataset, --help lists every flag. Paths that are typed, results and checkpoints are relative to the current
folder; data sets are looked for in the checkout's data/, if there is one, else in ./data.
"""
PATHS = ("base_path", "results_path", "checkpoint_path", "loadcheck", "data_dir")


def launch(argv: Sequence[str]) -> int:
    """``pmi-cl mammoth``: Mammoth's ``main.py``, as if started by itself, with ours in it. Raises UserError."""
    path, words = _mammoth_path(argv)
    named = any(word.partition("=")[0] in ("--model", "--loadcheck") for word in words)
    if not named and (not words or set(words) & {"-h", "--help"}):
        show(USAGE)
        return 0
    if not path:
        raise UserError("--mammoth_path is missing: give the folder of a Mammoth checkout")
    folder = find_mammoth(path)
    bridge = register(folder, words)
    bridge.check_names(words)
    _check_flags(words)
    words = _anchored(bridge.as_registered(words), bridge.here, bridge.folders)
    sys.modules["utils.conf"].get_checkpoint_path(
        words[words.index("--checkpoint_path") + 1]
    )  # before a module makes Mammoth's default
    sys.argv = [str(bridge.mammoth.folder / "main.py"), *words]
    sys.dont_write_bytecode = True
    made = folder / "checkpoints"
    there_before = made.exists()
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        if not there_before:
            with contextlib.suppress(OSError):  # with --savecheck Mammoth makes it and puts nothing there
                made.rmdir()
    return 0


def _mammoth_path(argv: Sequence[str]) -> tuple[str, list[str]]:
    """The value of ``--mammoth_path``, or of MAMMOTH_PATH; empty where there is none. And the other words."""
    words, path = [], os.environ.get("MAMMOTH_PATH", "")
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if spelled(name) != "--mammoth-path":
            words.append(word)
        elif equals:
            path = value
        else:
            path = rest.pop(0) if rest and not rest[0].startswith("--") else ""
    return path, words


def _check_flags(words: Sequence[str]) -> None:
    """Raises UserError for a flag that is typed twice, which Mammoth answers with a traceback, and for ours that has another name here."""
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    twice = next((flag for place, flag in enumerate(flags) if flag in flags[:place]), None)
    if twice:
        raise UserError(f"{twice} is typed twice: give it once")
    if "--class_order" in flags:
        raise UserError(
            f"--class_order: say --{PREFIX}class_order for a data set of ours, or Mammoth's own --custom_class_order"
        )


def _anchored(words: Sequence[str], here: Path, folders: dict[str, str]) -> list[str]:
    """The words with absolute paths, and with Mammoth's default folders where none are typed: Mammoth works inside its checkout."""
    flags: list[str] = []
    for word in words:
        name, equals, value = word.partition("=")
        flags += [name, value] if equals and _is_path(name, value) else [word]
    for place, (flag, value) in enumerate(itertools.pairwise(flags)):
        if _is_path(flag, value):
            flags[place + 1] = str(here / Path(value).expanduser())
    # typed, they count more than those of a checkpoint
    return [*flags, *(word for name, at in folders.items() if f"--{name}" not in flags for word in (f"--{name}", at))]


def _is_path(flag: str, value: str) -> bool:
    own_preset = flag == "--model_config" and value.lower().endswith(OWN_FILES)
    return own_preset or (flag.startswith("--") and flag[2:] in PATHS and "://" not in value)
