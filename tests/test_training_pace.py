"""Images per second: at least one point a task, of the time that training took and no other."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pmi_cl.models.host import NullHost
from pmi_cl.utils import training as training_module
from tests.small_runs import start


class Scalars(NullHost):
    """Keeps the points of one curve."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []

    def scalars(self, values: Any, step: int) -> None:
        """Numbers by tag."""
        self.points += [(step, value) for tag, value in values.items() if tag == "training/images per second"]


def run(host: Scalars) -> Any:
    training = start("sgd", host)
    began = training.model.begin_task

    def slow(dataset: Any) -> None:
        time.sleep(0.5)
        began(dataset)

    training.model.begin_task = slow  # type: ignore[method-assign]
    training.run()
    return training


def test_a_short_run_has_a_point_for_each_task() -> None:
    """3 tasks of 4 epochs of 48 images; a preparation of half a second is not counted."""
    host = Scalars()
    began = time.perf_counter()
    training = run(host)
    spent = time.perf_counter() - began
    assert [step for step, _ in host.points] == [training.steps // 3 * task for task in (1, 2, 3)]
    seconds = sum(4 * 48 / value for _, value in host.points)
    assert 0 < seconds < spent - 1.4


def test_a_long_task_has_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_module, "PACE_SECONDS", 0.0)
    host = Scalars()
    steps = run(host).steps
    assert [step for step, _ in host.points] == list(range(1, steps + 1))
