"""Run a checkout's ``main.py`` with our methods, data sets and backbones: ``pmi-cl mammoth``."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pmi_cl.errors import UserError, unknown_name
from pmi_cl.machine.terminal import show
from pmi_cl.machine.user_paths import user_path
from pmi_cl.mammoth.bridge import Bridge, register
from pmi_cl.mammoth.checkout import find_mammoth, part
from pmi_cl.mammoth.flags import PREFIX
from pmi_cl.options import OptionSpec
from pmi_cl.registry.catalogue import KINDS, Catalogue, canonical
from pmi_cl.utils.arguments.command_line import scan

USAGE = f"""\
usage: pmi-cl mammoth --mammoth_path DIR --model MODEL --dataset DATASET [Mammoth's own flags and ours]

  --mammoth_path DIR   a checkout of aimagelab/mammoth, which is not changed (or MAMMOTH_PATH in the environment)

Runs the main.py of that checkout with pmi-cl's methods, data sets and backbones beside its own. They keep their names.
A name or flag that Mammoth has, too, gets '{PREFIX.rstrip("_")}' in front: pmi-resnet32, --{PREFIX}lr_milestones.
--model_config takes our presets. With --model and --dataset, --help lists every flag.
Paths that you type, results and checkpoints are relative to the current folder. Data sets are read from the checkout's
data/ if it exists, else from ./data.
"""
PATHS = ("base_path", "results_path", "checkpoint_path", "loadcheck")


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
        UserError: no checkout, or a mistake in what was typed. Nothing has been written then.
    """
    typed, words = scan(argv, [_text("mammoth_path")])
    flags = {word.partition("=")[0] for word in words}
    if not {"--model", "--loadcheck"} & flags and (not words or {"-h", "--help"} & flags):
        show(USAGE)
        return 0
    bridge = register(find_mammoth(typed.get("mammoth_path", os.environ.get("MAMMOTH_PATH"))))
    sys.argv = [str(bridge.folder / "main.py"), *words_for_mammoth(words, bridge)]
    with contextlib.suppress(ImportError):  # as Mammoth's main.py does for its settings of wandb
        part("dotenv").load_dotenv(bridge.folder / ".env")
    main = part("main")
    try:
        args = main.parse_args(verbose=True)
    except (AssertionError, FileNotFoundError, ValueError) as error:  # Mammoth's ways to say what does not fit
        raise UserError(f"Mammoth: {error}") from error
    part("utils.conf").get_checkpoint_path(args.checkpoint_path)  # main.main() asks for it before it looks at args
    main.main(args)
    return 0


def words_for_mammoth(argv: Sequence[str], bridge: Bridge) -> list[str]:
    """Return the command line with names as they are registered, and lists as Mammoth takes them.

    Raises:
        UserError: an unknown name, a method that cannot be imported, or no such checkpoint.
    """
    many = {flag: spec for hosted in bridge.hosted() for flag, spec in hosted.new.items() if spec.many}
    specs = [*map(_text, (*KINDS, *PATHS)), *(replace(spec, name=flag) for flag, spec in many.items())]
    typed, rest = scan(argv, specs)
    for name in typed:
        if name in KINDS:
            typed[name] = _known_name(name, typed[name], bridge)
        elif name in PATHS and "://" not in typed[name]:
            path = Path.cwd() / user_path(typed[name], f"--{name}")
            if name == "loadcheck" and not path.is_file():
                advice = "--savecheck task writes them to ./checkpoints"
                raise UserError(f"--loadcheck {typed[name]}: there is no such file; {advice}")
            typed[name] = str(path)
    return [*(f"--{name}={value}" for name, value in typed.items()), *rest]


def _text(name: str) -> OptionSpec:
    return OptionSpec(name, "str", "", "")


def _known_name(kind: str, typed: str, bridge: Bridge) -> str:
    """Return a name as Mammoth looks it up. Raise UserError for one that cannot be used."""
    name, hosted = canonical(typed), bridge.ours[kind]
    if name not in hosted and name not in bridge.theirs[kind]:
        known = [one.entry.name if canonical(one.entry.name) == key else key for key, one in hosted.items()]
        raise unknown_name(KINDS[kind], typed, [*known, *bridge.theirs[kind]])
    method = part("models").get_model_names().get(name) if kind == "model" else None
    if isinstance(method, Exception):
        file = bridge.folder / "requirements-optional.txt"
        raise UserError(f"--model {typed} is Mammoth's and needs more than its requirements.txt ({method}): see {file}")
    return name if name in hosted else typed
