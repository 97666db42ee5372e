"""Starts and terms of an inversion as they are typed: ``--inv_start NAME``, ``--inv_terms NAME NAME=WEIGHT``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pmi_cl.errors import UserError
from pmi_cl.inversion import plugins
from pmi_cl.inversion.objectives import Term


def start_named(name: str) -> Any:
    """One of the engine's own starts by name, or another package's function. Raises UserError."""
    _check_start(name)
    return plugins.start_named(name)


def terms_named(words: Sequence[str]) -> tuple[Term, ...]:
    """Terms of other packages, each from ``NAME`` (weight 1) or ``NAME=WEIGHT``. Raises UserError."""
    _check_terms(words)
    return tuple(plugins.term_named(*_name_and_weight(word)) for word in words)


def check_named(start: str, words: Sequence[str]) -> None:
    """Refuse names that no package offers, without importing one. Raises UserError."""
    _check_start(start)
    _check_terms(words)


def _check_start(name: str) -> None:
    try:
        plugins.check_start(name)
    except ValueError as error:
        raise UserError(str(error)) from error


def _check_terms(words: Sequence[str]) -> None:
    for word in words:
        name, _ = _name_and_weight(word)
        try:
            plugins.check_term(name)
        except ValueError as error:
            raise UserError(str(error)) from error


def _name_and_weight(word: str) -> tuple[str, float]:
    name, equals, text = word.partition("=")
    try:
        weight = float(text) if equals else 1.0
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise UserError(f"--inv_terms {word}: write NAME or NAME=WEIGHT, the weight a finite number")
    return name, weight
