"""Starts and terms of an inversion as they are typed: ``--inv_start NAME``, ``--inv_terms NAME NAME=WEIGHT``."""

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
    """One of the engine's own starts by name, or another package's function. Raises UserError."""
    return _told(f"--inv_start {name}", partial(plugins.start_named, name))


def terms_named(words: Sequence[str]) -> tuple[Term, ...]:
    """Terms of other packages, each from ``NAME`` (weight 1) or ``NAME=WEIGHT``. Raises UserError."""
    return tuple(_told(f"--inv_terms {word}", partial(plugins.term_named, *_name_and_weight(word))) for word in words)


def check_named(start: str, words: Sequence[str], side: int = 8) -> None:
    """Refuse names that no package offers, and what is no start or no term: each is loaded and tried. Raises UserError.

    Args:
        start: as typed.
        words: the terms, as typed.
        side: of the images in pixels.
    """
    _told(f"--inv_start {start}", partial(plugins.check_start, start, side))
    for word in words:
        name, weight = _name_and_weight(word)
        _told(f"--inv_terms {word}", partial(plugins.check_term, name, weight))


def _told(typed: str, ask: Callable[[], T]) -> T:
    """What ``ask`` gives, and what it refuses as a UserError; where a package is at fault, with what was typed in front."""
    try:
        return ask()
    except ValueError as error:
        raise UserError(str(error)) from error
    except UserError as error:
        raise UserError(f"{typed}: {error}") from error


def _name_and_weight(word: str) -> tuple[str, float]:
    name, equals, text = word.partition("=")
    try:
        weight = float(text) if equals else 1.0
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise UserError(f"--inv_terms {word}: write NAME or NAME=WEIGHT, the weight a finite number")
    return name, weight
