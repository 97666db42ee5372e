"""Read starts and terms of an inversion as they are typed.

The flags are ``--inv_start NAME`` and ``--inv_terms NAME NAME=WEIGHT``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from pmi_cl.errors import UserError
from pmi_cl.inversion import plugins
from pmi_cl.inversion.objectives import Term

T = TypeVar("T")


def start_named(name: str) -> Any:
    """Return one of the engine's starts, or a function of another package, by name.

    Raises:
        UserError: nothing has that name.
    """
    return _as_user_error(f"--inv_start {name}", partial(plugins.start_named, name))


def terms_named(words: Sequence[str]) -> tuple[Term, ...]:
    """Return terms of other packages, each from ``NAME`` (weight 1) or ``NAME=WEIGHT``.

    Raises:
        UserError: no package has such a term, or the weight is not a finite number.
    """
    return tuple(
        _as_user_error(f"--inv_terms {word}", partial(plugins.term_named, *_name_and_weight(word))) for word in words
    )


def check_named(start: str, words: Sequence[str], side: int = 8) -> None:
    """Load and try a start and terms.

    Args:
        start: the start, as typed.
        words: the terms, as typed.
        side: the side of the images in pixels.

    Raises:
        UserError: no package offers the name, or what it offers is not a start or a term.
    """
    _as_user_error(f"--inv_start {start}", partial(plugins.check_start, start, side))
    for word in words:
        name, weight = _name_and_weight(word)
        _as_user_error(f"--inv_terms {word}", partial(plugins.check_term, name, weight))


def _as_user_error(typed: str, ask: Callable[[], T]) -> T:
    """Return the result of ``ask``, and turn its ValueError into a UserError.

    A UserError of ``ask`` means that a package is at fault: ``typed`` is put in front of it.
    """
    try:
        return ask()
    except ValueError as error:
        raise UserError(str(error)) from error
    except UserError as error:
        raise UserError(f"{typed}: {error}") from error


def _name_and_weight(word: str) -> tuple[str, float]:
    """Split ``NAME=WEIGHT``, or give ``NAME`` the weight 1."""
    name, equals, text = word.partition("=")
    try:
        weight = float(text) if equals else 1.0
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise UserError(f"--inv_terms {word}: write NAME or NAME=WEIGHT, the weight a finite number")
    return name, weight
