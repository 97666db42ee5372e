"""Run a checkout's ``main.py`` with our methods, data sets and backbones: ``pmi-cl mammoth``."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

from pmi_cl.errors import UserError
from pmi_cl.machine.terminal import show
from pmi_cl.mammoth.checkout import find_mammoth, part
from pmi_cl.mammoth.flags import PREFIX
from pmi_cl.mammoth.registration import register
from pmi_cl.mammoth.typed_words import read_words, words_for_mammoth
from pmi_cl.registry.catalogue import Catalogue

USAGE = f"""\
usage: pmi-cl mammoth --mammoth_path DIR --model MODEL --dataset DATASET [Mammoth's own flags and ours]

  --mammoth_path DIR   a checkout of aimagelab/mammoth, which is not changed (or MAMMOTH_PATH in the environment)

Runs the main.py of that checkout with pmi-cl's methods, data sets and backbones beside its own. They keep their names.
A name or flag that Mammoth has, too, gets '{PREFIX.rstrip("_")}' in front: pmi-resnet32, --{PREFIX}lr_milestones.
--model_config takes our presets. With --model and --dataset, --help lists every flag.
Paths that you type, results and checkpoints are relative to the current folder. Data sets are read from the checkout's
data/ if it exists, else from ./data.
"""


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
    typed = read_words(argv)
    path = [os.environ.get("MAMMOTH_PATH", "")]
    path = typed.pop("--mammoth-path", typed.pop("--mammoth_path", path))
    if not {"--model", "--loadcheck"} & typed.keys() and (not typed or {"-h", "--help"} & typed.keys()):
        show(USAGE)
        return 0
    if not "".join(path):
        raise UserError("--mammoth_path is missing: give the folder of a Mammoth checkout")
    bridge = register(find_mammoth(path[0]))
    sys.argv = [str(bridge.folder / "main.py"), *words_for_mammoth(typed, bridge)]
    with contextlib.suppress(ImportError):  # as Mammoth's main.py does for its settings of wandb
        part("dotenv").load_dotenv(bridge.folder / ".env")
    main = part("main")
    try:
        args = main.parse_args(verbose=True)
    except (AssertionError, FileNotFoundError) as error:  # Mammoth's way to say what does not fit
        raise UserError(f"Mammoth: {error}") from error
    part("utils.conf").get_checkpoint_path(args.checkpoint_path)  # main.main() asks for it before it looks at args
    main.main(args)
    return 0
