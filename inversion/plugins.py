"""Starts and terms of an inversion that other packages offer, by the name of their entry point in the group ``pmi_cl.inversion``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pmi_cl.errors import unknown_name
from pmi_cl.inversion.objectives import Term
from pmi_cl.inversion.starts import STARTS
from pmi_cl.registry.extensions import Extension, extensions


def start_named(name: str) -> Any:
    """One of the engine's own starts by name, or another package's function. Raises ValueError where there is none of that name."""
    return name if name in STARTS else _start(name).load()


def term_named(name: str, weight: float = 1.0) -> Term:
    """A term of another package: what is named is called with the weight. Raises ValueError where there is none of that name."""
    return _term(name).load()(weight)


def check_start(name: str, side: int = 8) -> None:
    """Try a start on one image, so that what is no start is found before a task is trained; the engine's own are not tried.

    Raises:
        ValueError: nobody offers it.
        UserError: its package cannot be imported, or what it gives is no image; names the package.
    """
    if name in STARTS:
        return
    offered, shape = _start(name), (1, 3, side, side)
    function = offered.load()
    try:
        with torch.random.fork_rng(devices=[]):
            drawn = function(shape, torch.Generator().manual_seed(0))
    except Exception as error:  # whatever somebody's function does
        raise offered.fault(f"no start, called with {shape} and a generator it ends with {_one_line(error)}") from error
    if not isinstance(drawn, Tensor) or tuple(drawn.shape) != shape:
        given = (
            f"a tensor of the shape {tuple(drawn.shape)}" if isinstance(drawn, Tensor) else f"a {type(drawn).__name__}"
        )
        raise offered.fault(f"no start, called with {shape} and a generator it gives {given}, not images of that shape")


def check_term(name: str, weight: float = 1.0) -> None:
    """Call a term's entry point with its weight, as :func:`term_named` will.

    Raises:
        ValueError: nobody offers it.
        UserError: its package cannot be imported, or what it gives is no term; names the package.
    """
    offered = _term(name)
    make = offered.load()
    try:
        term = make(weight)
    except Exception as error:  # whatever somebody's class does
        raise offered.fault(f"no term, called with the weight {weight:g} it ends with {_one_line(error)}") from error
    if not callable(term):
        raise offered.fault(
            f"no term, called with the weight {weight:g} it gives a {type(term).__name__}, which cannot be called"
        )


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _start(name: str) -> Extension:
    return _offered("start", name, STARTS)


def _term(name: str) -> Extension:
    return _offered("term", name, ())


def _offered(what: str, name: str, own: Sequence[str]) -> Extension:
    """The entry point of that name; ``own`` are the engine's names, which the error tells as well."""
    offered = {extension.name: extension for extension in extensions("inversion")}
    if name not in offered:
        raise ValueError(str(unknown_name(f"{what} of the inversion", name, [*own, *offered])))
    return offered[name]
