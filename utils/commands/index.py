"""List the commands: the word that is typed, a line about it, and the module for it.

A new command is one file and one row of ``COMMANDS``. Its module has these functions::

    help_text(argv, catalogue) -> str      return what --help prints
    run_command(argv, catalogue) -> int    carry the command out, return the exit code
    check_command(argv, catalogue) -> str  check all that was typed, return what --check prints

``check_command`` may be left out. ``argv`` are the words behind the word of the command, without
--help and --check. A mistake in them raises UserError. The module is named as text and imported
when it is used: ``--help`` stays quick, and this file imports no layer above its own.
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
        takes_all_words: whether the command itself reads --help, --list, --check and --version.
    """

    word: str
    about: str
    module: str
    takes_all_words: bool = False

    def load(self) -> Any:
        """Import and return the module."""
        return importlib.import_module(self.module)


COMMANDS = (
    Command("sweep", "methods x data sets x seeds, and their table", "pmi_cl.utils.commands.sweep"),
    Command("compare", "finished runs side by side, as a table and as curves", "pmi_cl.utils.commands.compare"),
    Command("invert", "pictures of a text", "pmi_cl.utils.commands.invert.command"),
    Command("predict", "the classes of images, by the network of a run", "pmi_cl.utils.commands.predict"),
    Command("evaluate", "the network of a run, class by class", "pmi_cl.utils.commands.evaluate"),
    Command("export", "the network of a run in one file", "pmi_cl.utils.commands.export"),
    Command("privacy", "what a run gives away of its images", "pmi_cl.utils.commands.privacy"),
    Command("mammoth", "the same methods inside a checkout of Mammoth", "pmi_cl.mammoth.launch", takes_all_words=True),
)


def find_command(word: str) -> Command:
    """Return the row of a word. Raise UserError, with the nearest words, if there is none."""
    by_word = {command.word: command for command in COMMANDS}
    if word not in by_word:
        raise unknown_name("command", word, by_word)
    return by_word[word]


def checker(command: Command) -> Any:
    """Return the ``check_command`` of a command. Raise UserError if it has none."""
    found = getattr(command.load(), "check_command", None)
    if found is None:
        raise UserError(f"pmi-cl {command.word} has no --check: leave it out")
    return found
