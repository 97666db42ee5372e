"""Test that fields of a checkpoint with a wrong type or size are refused when it is loaded.

Otherwise a run would end much later, in a product of matrices, or go on with nonsense.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from pmi_cl.models.host import NullHost
from tests.support.small_runs import start

FLAGS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "rdfcil": {},
    "pmi_rdfcil": {"inv_colour": 1, "inv_keep_best": 1, "pmi_boost": 1, "cont_optimizer": "adam"},
    "pmi_moe": {"inversion": "smi", "optimizer": "adamw"},
    "pmi_codap": {"synthetic_last_task": 1},
}
REFUSALS = (LookupError, TypeError, ValueError, AttributeError, RuntimeError)  # as the runner turns them into a line


class Keeping(NullHost):
    """A host that keeps a state of each kind: within training, and within an inversion."""

    def __init__(self) -> None:
        self.states: dict[tuple[str, bool], dict[str, Any]] = {}
        self.training: Any = None

    def safe_point(self) -> None:
        """Copy the state of the second task where it is the first of its kind."""
        position = self.training.position
        if position.task == 1:
            state = self.training.state()
            self.states.setdefault((position.phase, bool(state["method"].get("inversion"))), copy.deepcopy(state))


def fields(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of each field of nested data, that of what holds others, too."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*place, key)
        yield from fields(item, (*place, key))


def one_of_each_kind(state: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return the places of fields. Of those whose names differ in numbers, only the first."""
    found: dict[str, tuple[Any, ...]] = {}
    for place in fields(state):
        found.setdefault(re.sub(r"\d+", "#", ".".join(map(str, place))), place)
    return list(found.values())


def forged(value: Any) -> list[Any]:
    """Return values of another type, and of another size, that cannot stand in a field's place."""
    if isinstance(value, torch.Tensor):
        return ["text", torch.zeros(*value.shape, 2)]
    return ["text", torch.zeros(5)]


def with_field(state: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(state)
    holder = changed
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    return changed


def value_at(state: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        state = state[key]
    return state


@pytest.mark.parametrize("method", FLAGS)
def test_no_field_of_another_type_or_size_is_accepted(method: str) -> None:
    host = Keeping()
    training = start(method, host, **FLAGS[method])
    host.training = training
    training.run()
    assert len(host.states) >= 2
    again, accepted = start(method, **FLAGS[method]), []
    for kind, state in host.states.items():
        again.load_state(copy.deepcopy(state))  # as it is it fits
        for place in one_of_each_kind(state):
            if "inversion" in place[:-1]:
                continue  # the inversion itself loads it, when it is made again
            for value in forged(value_at(state, place)):
                try:
                    again.load_state(with_field(state, place, value))
                except REFUSALS:
                    continue
                accepted.append((kind, place, value))
    assert not accepted, accepted
