"""Define ``pmi-cl invert``: check its flags without torch, then make pictures of a text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from pmi_cl.errors import RunFailed, UserError
from pmi_cl.machine.user_paths import path_text
from pmi_cl.options import OptionSpec, specs_of
from pmi_cl.registry.catalogue import Catalogue, Entry
from pmi_cl.utils.arguments.command_line import check_paths, device_name, scan
from pmi_cl.utils.arguments.command_words import read_words
from pmi_cl.utils.arguments.option_texts import section, table
from pmi_cl.utils.arguments.option_values import convert
from pmi_cl.utils.commands.invert.options import RECORD, InvertOptions

TITLE = 'pmi-cl invert --prompt "TEXT": pictures of a text, by inverting a CLIP'
FOLDER = "runs/invert"  # where pictures go without --output


def invert_specs(argv: Sequence[str], catalogue: Catalogue) -> tuple[Entry, tuple[OptionSpec, ...]]:
    """Return the backbone that was typed, or the default one, and all flags that go with it.

    Raises:
        UserError: it is unknown, or no CLIP; names those that are.
    """
    own = specs_of(InvertOptions)
    entry = catalogue.find("backbone", scan(argv, own)[0].get("backbone", InvertOptions.backbone))
    if entry.constants.get("KIND") != "clip":
        clips = ", ".join(
            other.name for other in catalogue.entries("backbone") if other.constants.get("KIND") == "clip"
        )
        raise UserError(f"--backbone {entry.name} reads no text: choose from {clips}")
    return entry, (*own, *entry.options)


def resolve_invert(argv: Sequence[str], catalogue: Catalogue) -> tuple[SimpleNamespace, dict[str, str]]:
    """Return the value and the source ("flag" or "default") of every flag, checked without torch.

    Raises:
        UserError: anything unknown, missing, given twice or out of bounds, or a folder that has
            pictures already.
    """
    entry, specs = invert_specs(argv, catalogue)
    words, typed = read_words(argv, specs, "invert")
    if words:
        raise UserError(f"'{words[0]}' stands alone: write --flag value, and a text of several words in quotes")
    values = {
        spec.name: convert(spec, typed[spec.name], f"--{spec.name}") if spec.name in typed else spec.default
        for spec in specs
    }
    args = SimpleNamespace(**{**values, "backbone": entry.name, "device": device_name(values["device"])})
    check_paths(vars(args), specs)
    if not (args.prompt or "").strip():
        raise UserError('--prompt is missing: write the text in quotes, --prompt "a photo of the digit 5."')
    if args.data_dir is not None and args.dataset is not None:
        raise UserError("--data_dir and --dataset: statistics are measured on one of them, keep one")
    if args.data_dir is None and "dataset" not in typed and entry.name == InvertOptions.backbone:
        args.dataset = "seq-digits"  # in the package, and what clip-tiny is for
    if args.dataset is not None:
        args.dataset = catalogue.find("dataset", args.dataset).name
    if args.output is None:
        args.output = new_folder(args.prompt)
    if (Path(args.output) / RECORD).exists():
        raise UserError(f"--output {args.output} has pictures already: name another folder")
    return args, {name: "flag" if name in typed else "default" for name in vars(args)}


def new_folder(prompt: str) -> str:
    """Return a folder named after the text, with a number if that has pictures already."""
    words = re.sub(r"[^\w]+", "-", prompt.lower()).strip("-")[:60] or "text"
    names = (f"{FOLDER}/{path_text(words)}{'' if number == 1 else f'-{number}'}" for number in itertools.count(1))
    return next(name for name in names if not (Path(name) / RECORD).exists())


def help_text(argv: Sequence[str], catalogue: Catalogue) -> str:
    """Return the flags of the command and of the typed backbone, as ``--help`` prints them."""
    return section(TITLE, invert_specs(argv, catalogue)[1])


def check_command(argv: Sequence[str], catalogue: Catalogue) -> str:
    """Check flags and machine, and return the value of every flag, as ``--check`` prints them.

    Raises:
        UserError: as :func:`resolve_invert`, and what is wrong with the device, the disk, the
            weights or the images.
    """
    args, sources = resolve_invert(argv, catalogue)
    from pmi_cl.utils.commands.invert.text_to_image import check_machine  # imports torch
    from pmi_cl.utils.run.preflight import show_decided

    show_decided(check_machine(args, catalogue), args, sources)
    return table(args, sources)


def run_command(argv: Sequence[str], catalogue: Catalogue) -> int:
    """Carry the command out and return the exit code. Raise UserError as :func:`check_command`."""
    args, _ = resolve_invert(argv, catalogue)
    from pmi_cl.utils.commands.invert.text_to_image import text_to_image  # imports torch: only now
    from pmi_cl.utils.run.out_of_memory import is_out_of_memory

    try:
        text_to_image(args, catalogue)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunFailed(f"out of memory: start again with fewer --images ({args.images})") from error
    return 0
