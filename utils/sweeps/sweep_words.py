"""Read a sweep as it is typed: methods with flags of their own, a grid, flags of every run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pmi_cl.errors import UserError
from pmi_cl.utils.sweeps.planned_runs import NOTHING, Arm

DECIDED = ("model", "dataset", "seed", "run_name", "results_path", "resume")  # flags that the sweep gives itself
_NEXT_FLAG = re.compile(r",(?=\w+=)")  # a comma within a value, as in 0.2,0.4, begins no flag


def check_flags(where: str, flags: Iterable[object]) -> None:
    """Raise UserError if the sweep gives one of these flags itself.

    Args:
        where: what the error message begins with.
        flags: their names.
    """
    for name in flags:
        if name in DECIDED:
            raise UserError(f"{where}: --{name} is given by the sweep itself, leave it out")


def read_arm(text: str) -> Arm:
    """Return the method that ``MODEL`` or ``MODEL:flag=value,flag=value`` means.

    Raises:
        UserError: the text has another form.
    """
    model, colon, rest = text.partition(":")
    return Arm(model.strip(), read_flags(f"--models {text}", _NEXT_FLAG.split(rest)) if colon else NOTHING)


def read_flags(where: str, words: Sequence[str]) -> dict[str, str]:
    """Return flags by name, from words such as ``lr=0.1``.

    Raises:
        UserError: a word has another form, names a flag twice, or one that the sweep gives itself.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.strip().lstrip("-").partition("=")
        if not equals or not value or not re.fullmatch(r"\w+", name):
            raise UserError(f"{where}: write flag=value, here is '{word}'")
        if name in found:
            raise UserError(f"{where}: {name} is given twice, keep one")
        found[name] = value
    check_flags(where, found)
    return found


def read_grid(words: Sequence[str]) -> dict[str, list[str]]:
    """Return the values of each flag of the grid, from words such as ``lr=0.01,0.1``."""
    return {name: values.split(",") for name, values in read_flags("--grid", words).items()}


def read_shared(words: Sequence[str]) -> dict[str, str]:
    """Return the flags of every run, from the words behind ``--``. Many values become one text.

    Raises:
        UserError: a value without a flag, or a flag without a value.
    """
    found: list[list[str]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            found.append([name.lstrip("-"), *([value] if equals else [])])
        elif found:
            found[-1].append(word)
        else:
            raise UserError(f"behind --: '{word}' stands alone, write --flag value")
    return read_flags("behind --", [f"{name}={','.join(values)}" for name, *values in found])


def take(words: Sequence[str], flag: str) -> tuple[list[str], list[str]]:
    """Return the values of a flag as they were typed, and the words without flag and values.

    Raises:
        UserError: the flag has no value, or comes twice.
    """
    if flag not in words:
        return [], list(words)
    if words.count(flag) > 1:
        raise UserError(f"{flag} is given twice: keep one")
    start = words.index(flag)
    end = next((place for place in range(start + 1, len(words)) if words[place].startswith("--")), len(words))
    if end == start + 1:
        raise UserError(f"{flag}: give a value")
    return list(words[start + 1 : end]), [*words[:start], *words[end:]]
