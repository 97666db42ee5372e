"""Starts and terms of an inversion that other packages offer.

They are found by the name of their entry point in the group ``pmi_cl.inversion``.
"""

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
    """Return the name of a start of the engine, or the function of another package.

    Raises:
        ValueError: there is no start of that name.
    """
    return name if name in STARTS else _start(name).load()


def term_named(name: str, weight: float = 1.0) -> Term:
    """Return a term of another package: what its entry point names is called with the weight.

    Raises:
        ValueError: there is no term of that name.
    """
    return _term(name).load()(weight)


def check_start(name: str, side: int = 8) -> None:
    """Try a start on one image, so that a faulty one is refused before a task is trained.

    The starts of the engine are not tried.

    Args:
        name: of the start.
        side: of the image, in pixels.

    Raises:
        ValueError: there is no start of that name.
        UserError: its package cannot be imported, or it gives no image; names the package.
    """
    if name in STARTS:
        return
    offered, shape = _start(name), (1, 3, side, side)
    function = offered.load()
    try:
        with torch.random.fork_rng(devices=[]):
            drawn = function(shape, torch.Generator().manual_seed(0))
    except (Exception, SystemExit) as error:  # whatever the other package raises
        raise offered.fault(f"no start, called with {shape} and a generator it ends with {_one_line(error)}") from error
    if not isinstance(drawn, Tensor) or tuple(drawn.shape) != shape:
        given = (
            f"a tensor of the shape {tuple(drawn.shape)}" if isinstance(drawn, Tensor) else f"a {type(drawn).__name__}"
        )
        raise offered.fault(f"no start, called with {shape} and a generator it gives {given}, not images of that shape")


def check_term(name: str, weight: float = 1.0) -> None:
    """Call the entry point of a term with its weight, as :func:`term_named` will.

    Raises:
        ValueError: there is no term of that name.
        UserError: its package cannot be imported, or it gives no term; names the package.
    """
    offered = _term(name)
    make = offered.load()
    try:
        term = make(weight)
    except (Exception, SystemExit) as error:  # whatever the other package raises
        raise offered.fault(f"no term, called with the weight {weight:g} it ends with {_one_line(error)}") from error
    if not callable(term):
        raise offered.fault(
            f"no term, called with the weight {weight:g} it gives a {type(term).__name__}, which cannot be called"
        )


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _start(name: str) -> Extension:
    return _offered("start", name, STARTS)


def _term(name: str) -> Extension:
    return _offered("term", name, ())


def _offered(what: str, name: str, own: Sequence[str]) -> Extension:
    """Return the entry point of that name.

    Args:
        what: "start" or "term".
        name: of the entry point.
        own: the names that the engine itself has.

    Raises:
        ValueError: there is none of that name; lists those that there are.
    """
    offered = {extension.name: extension for extension in extensions("inversion")}
    if name not in offered:
        raise ValueError(str(unknown_name(f"{what} of the inversion", name, [*own, *offered])))
    return offered[name]
