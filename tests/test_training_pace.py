"""Test images per second: at least one point a task, of the time of training alone.

The test moves the clock.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pmi_cl.models.host import NullHost
from pmi_cl.utils.run import training as training_module
from pmi_cl.utils.run.training import Training
from tests.support.small_runs import start

IMAGES, STEPS = 48, 12  # of each of the 3 tasks: its images, and its steps in 4 epochs
STEP, PREPARATION = 0.25, 100.0  # seconds


class Scalars(NullHost):
    """Keeps the points of one curve."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []

    def scalars(self, values: Any, step: int) -> None:
        """Record numbers by tag."""
        self.points += [(step, value) for tag, value in values.items() if tag == "training/images per second"]


def run(host: Scalars, patch: pytest.MonkeyPatch) -> Training:
    """Run three tasks by a clock that only a step and the preparation of a task move."""
    now = [0.0]
    patch.setattr(training_module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    training = start("sgd", host)

    def taking(seconds: float, do: Any) -> Any:
        def done(*args: Any, **words: Any) -> Any:
            now[0] += seconds
            return do(*args, **words)

        return done

    training.model.begin_task = taking(PREPARATION, training.model.begin_task)  # type: ignore[method-assign]
    training.model.observe = taking(STEP, training.model.observe)  # type: ignore[method-assign]
    training.run()
    return training


def test_a_short_run_has_a_point_for_each_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is of the time of its steps alone."""
    host = Scalars()
    run(host, monkeypatch)
    assert host.points == [(STEPS * task, 4 * IMAGES / (STEPS * STEP)) for task in (1, 2, 3)]


def test_a_long_task_has_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_module, "PACE_SECONDS", 0.0)
    host = Scalars()
    steps = run(host, monkeypatch).steps
    assert [step for step, _ in host.points] == list(range(1, steps + 1))
