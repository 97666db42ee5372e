"""The errors that end the command with one line: a user's mistake, or a run that cannot go on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A user's mistake. Its text is one line: what is wrong, and what to type instead."""

    exit_code = 2


class RunFailed(RuntimeError):
    """A run that cannot go on, through no mistake in what was typed. Its text is one line."""

    exit_code = 1


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Return the error for a name that does not exist, with the nearest names that do.

    Args:
        kind: what the name should have named, in the singular ("model", "data set").
        name: what was typed.
        known: every name that would have been right.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name.replace("_", "-"), [n.replace("_", "-") for n in names], n=3, cutoff=0.5)
    spelled = {n.replace("_", "-"): n for n in names}
    if near:
        return UserError(f"unknown {kind} '{name}': did you mean {' or '.join(spelled[n] for n in near)}?")
    return UserError(f"unknown {kind} '{name}': choose from {', '.join(names) or '(none)'}")
