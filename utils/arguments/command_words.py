"""Read what a command beside a run was given: its words, such as a run or files, and its flags."""

from __future__ import annotations

from collections.abc import Sequence

from pmi_cl.options import OptionSpec
from pmi_cl.utils.arguments.command_line import LONG_DASHES, flag_name, scan, unknown_flag

SHORT = {"-o": "output"}  # flags that may be written with one letter


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
