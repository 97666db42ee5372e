"""Read what a command beside a run was given: its words, such as a run or files, and its flags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from pmi_cl.machine.plain_text import excerpt
from pmi_cl.options import OptionSpec, specs_of
from pmi_cl.utils.arguments.command_line import LONG_DASHES, check_paths, flag_name, scan, unknown_flag
from pmi_cl.utils.arguments.option_values import convert

SHORT = {"-o": "output"}  # flags that may be written with one letter
O = TypeVar("O")  # noqa: E741 (the options of a command)


def read_words(argv: Sequence[str], specs: Sequence[OptionSpec], command: str) -> tuple[list[str], dict[str, str]]:
    """Return the words that belong to no flag, in their order, and the typed flags, as text.

    Args:
        argv: what was typed behind the word of the command.
        specs: the flags of the command.
        command: its word, for error messages.

    Raises:
        UserError: a flag is unknown, has no value, or is given twice.
    """
    names = [spec.name for spec in specs]
    full = {short: f"--{name}" for short, name in SHORT.items() if name in names}
    typed, words = scan([full.get(word, word) for word in argv], specs)
    for word in words:
        if word.startswith(("-", *LONG_DASHES)):
            raise unknown_flag(flag_name(word), [*names, "help"], f"pmi-cl {command} --help lists the flags")
    return words, typed


def read_options(
    argv: Sequence[str], kind: type[O], command: str, others: Sequence[OptionSpec] = ()
) -> tuple[list[str], O, dict[str, str]]:
    """Return the words of a command, its options, and the typed flags among ``others``, as text.

    Args:
        argv: what was typed behind the word of the command.
        kind: the dataclass of its options.
        command: its word, for error messages.
        others: flags that it takes beside its own.

    Raises:
        UserError: a flag is unknown, given twice or has a wrong value, or a path cannot be.
    """
    own = specs_of(kind)
    words, typed = read_words(argv, (*own, *others), command)
    given = {spec: typed.pop(spec.name) for spec in own if spec.name in typed}
    values = {spec.name: convert(spec, text, f"--{spec.name} {excerpt(text)}") for spec, text in given.items()}
    check_paths(values, own)
    return words, kind(**values), typed
