"""The index of the commands beside a run: the word that is typed, a line about it, and the module that carries it out.

A new command is a file and a row in ``COMMANDS``. Its module has three functions, the last where there is something to check::

    help_text(argv, catalogue) -> str      what --help prints
    run_command(argv, catalogue) -> int    carries it out; the exit code
    check_command(argv, catalogue) -> str  what --check prints, once everything that was typed is found to be right

``argv`` are the words behind the command's own, without --help and --check. A mistake in them raises UserError.
The module is named as text and imported when it is used: ``--help`` stays quick, and no file here imports a layer above.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from pmi_cl.errors import UserError, unknown_name


@dataclass(frozen=True)
class Command:
    """One row of the index.

    Attributes:
        word: what is typed behind ``pmi-cl``.
        about: a line about it, for ``--help``.
        module: the full name of its module.
        takes_all_words: whether --help, --list, --check and --version behind the word are the command's own affair.
    """

    word: str
    about: str
    module: str
    takes_all_words: bool = False

    def load(self) -> Any:
        """Return the module, which is imported now."""
        return importlib.import_module(self.module)


COMMANDS = (
    Command("compare", "finished runs side by side, as a table and as curves", "pmi_cl.utils.commands.compare"),
    Command("invert", "pictures of a text", "pmi_cl.utils.commands.invert.command"),
    Command("mammoth", "the same methods inside a checkout of Mammoth", "pmi_cl.mammoth.launch", takes_all_words=True),
)


def find_command(word: str) -> Command:
    """Return the row of a word. Raises UserError with the nearest words."""
    by_word = {command.word: command for command in COMMANDS}
    if word not in by_word:
        raise unknown_name("command", word, by_word)
    return by_word[word]


def checker(command: Command) -> Any:
    """Return the ``check_command`` of a command. Raises UserError where it has none."""
    found = getattr(command.load(), "check_command", None)
    if found is None:
        raise UserError(f"pmi-cl {command.word} has no --check: leave it out")
    return found
