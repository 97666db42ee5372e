"""Starts and terms of an inversion that other packages offer, by the name of their entry point in the group ``pmi_cl.inversion``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pmi_cl.errors import UserError, unknown_name
from pmi_cl.extensions import Extension, extensions
from pmi_cl.inversion.objectives import Term
from pmi_cl.inversion.starts import STARTS


def start_named(name: str) -> Any:
    """One of the engine's own starts by name, or another package's function. Raises UserError."""
    return name if name in STARTS else _found("start", name, STARTS).load()


def terms_named(words: Sequence[str]) -> tuple[Term, ...]:
    """Terms of other packages, each from ``NAME`` or ``NAME=WEIGHT``: what is named is called with the weight (1). Raises UserError."""
    return tuple(_found("term", *_parts(word)[:1]).load()(_parts(word)[1]) for word in words)


def check_named(start: str, words: Sequence[str]) -> None:
    """Refuse names that no package offers, without importing one. Raises UserError."""
    if start not in STARTS:
        _found("start", start, STARTS)
    for word in words:
        _found("term", _parts(word)[0])


def _parts(word: str) -> tuple[str, float]:
    name, equals, text = word.partition("=")
    try:
        weight = float(text) if equals else 1.0
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise UserError(f"--inv_terms {word}: write NAME or NAME=WEIGHT, the weight a finite number")
    return name, weight


def _found(what: str, name: str, own: Sequence[str] = ()) -> Extension:
    offered = {extension.name: extension for extension in extensions("inversion")}
    if name not in offered:
        raise unknown_name(f"{what} of the inversion", name, [*own, *offered])
    return offered[name]
