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

from pmi_cl.errors import UserError
from pmi_cl.models.host import NullHost
from tests.support.small_runs import Stopped, start

FLAGS: dict[str, dict[str, Any]] = {
    "rdfcil": {},
    "abd": {},
    "dcmi": {},
    "lwf": {},
    "ewc_on": {},
    "pass": {},
    "pmi_rdfcil": {"inv_colour": 1, "inv_keep_best": 1, "pmi_boost": 1, "cont_optimizer": "adam"},
    "pmi_moe": {"inversion": "smi", "optimizer": "adamw"},
    "pmi_codap": {"synthetic_last_task": 1},
}
REFUSALS = (
    UserError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    RuntimeError,
)  # as the runner turns them into a line


class Keeping(NullHost):
    """A host that keeps a state of each kind: within training, and within an inversion.

    It stops the run when the second task has been trained.
    """

    def __init__(self) -> None:
        self.states: dict[tuple[str, bool], dict[str, Any]] = {}
        self.training: Any = None

    def safe_point(self) -> None:
        """Copy the state of the second task where it is the first of its kind."""
        position = self.training.position
        if position.task == 0:
            return
        if position.phase in ("end", "evaluate"):
            raise Stopped
        kind = position.phase, position.phase == "prepare" and self.training.model.state().get("inversion") is not None
        if kind in (("train", False), ("prepare", True)) and kind not in self.states:
            self.states[kind] = copy.deepcopy(self.training.state())


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


def forged(value: Any) -> Any:
    """Return a value that cannot stand in a field's place: of another size, or of another type."""
    return torch.zeros(*value.shape, 2) if isinstance(value, torch.Tensor) else "text"


def holder_of(state: Any, place: tuple[Any, ...]) -> Any:
    """Return the dict or list in which a field stands."""
    for key in place[:-1]:
        state = state[key]
    return state


@pytest.mark.parametrize("method", FLAGS)
def test_no_field_of_another_type_or_size_is_accepted(method: str) -> None:
    host = Keeping()
    training = start(method, host, **FLAGS[method])
    host.training = training
    with pytest.raises(Stopped):
        training.run()
    assert host.states
    again, accepted = start(method, **FLAGS[method]), []
    for kind, state in host.states.items():
        again.load_state(copy.deepcopy(state))  # as it is it fits
        for place in one_of_each_kind(state):
            if "inversion" in place[:-1]:
                continue  # the inversion itself loads it, when it is made again
            holder = holder_of(state, place)
            true, holder[place[-1]] = holder[place[-1]], forged(holder[place[-1]])
            try:
                again.load_state(state)
            except REFUSALS:
                pass
            else:
                accepted.append((kind, place))
            holder[place[-1]] = true
    assert not accepted
