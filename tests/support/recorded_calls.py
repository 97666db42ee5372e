"""Calls of the package's own functions, recorded wherever they are imported."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

import pytest

from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.engine.problem import Problem

Call = dict[str, Any]  # a call's arguments by name, defaults filled in


class Enough(Exception):
    """The test has recorded what it needs."""


def arguments(function: Callable[..., Any], args: tuple[Any, ...], named: Call) -> Call:
    """Return the arguments of a call by name."""
    bound = inspect.signature(function).bind(*args, **named)
    bound.apply_defaults()
    return dict(bound.arguments)


def recorded(
    monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any], instead: Callable[..., Any] | None = None
) -> list[Call]:
    """Record every later call of a function of the package, from whichever module.

    Call ``instead`` in its place.
    """
    calls: list[Call] = []

    def heard(*args: Any, **named: Any) -> Any:
        calls.append(arguments(function, args, named))
        return (instead or function)(*args, **named)

    ours = [module for name, module in sys.modules.items() if name.partition(".")[0] == "pmi_cl"]
    for module in ours:
        for name, value in list(vars(module).items()):
            if value is function:
                monkeypatch.setattr(module, name, heard)
    return calls


def recorded_inversions(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Record the fields of the problem of each new inversion.

    None is made: :class:`Enough` is raised instead.
    """
    calls: list[Call] = []

    def heard(inversion: Inversion, problem: Problem) -> None:
        calls.append(vars(problem))
        raise Enough

    monkeypatch.setattr(Inversion, "__init__", heard)
    return calls
