"""Test the seconds of an inversion: its own alone, measured without making a device wait."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.engine.problem import Problem, frozen_network
from pmi_cl.inversion.engine.stopwatch import Stopwatch
from tests.support.small_networks import two_blocks

CUDA = torch.device("cuda", 0)


def test_what_the_caller_does_between_two_rounds_is_not_counted() -> None:
    watch = Stopwatch(torch.device("cpu"))
    for _ in range(2):
        watch.start()
        time.sleep(0.02)
        watch.stop()
        time.sleep(0.1)
    assert 0.04 <= watch.take(wait=False) < 0.1
    assert watch.take() == 0.0


class Device:
    """Stands in for a GPU that does ``work`` milliseconds at a time.

    It has a clock of its own, and events that wait in its queue.
    """

    def __init__(self) -> None:
        self.queued = self.done = 0.0
        self.waits = 0

    def work(self, milliseconds: float) -> None:
        self.queued += milliseconds

    def event(self, enable_timing: bool) -> Any:
        device = self

        class Event:
            at = 0.0

            def record(self, stream: None) -> None:
                self.at = device.queued

            def query(self) -> bool:
                return device.done >= self.at

            def synchronize(self) -> None:
                device.waits += 1
                device.done = max(device.done, self.at)

            def elapsed_time(self, other: Any) -> float:
                assert self.query() and other.query()
                return float(other.at - self.at)

        return Event()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Device()
    monkeypatch.setattr(torch.cuda, "Event", made.event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    return made


def test_queued_work_is_counted_when_the_device_has_done_it_without_waiting(device: Device) -> None:
    watch = Stopwatch(CUDA)
    for milliseconds in (1000, 2000, 3000):
        watch.start()
        device.work(milliseconds)
        watch.stop()
        device.work(50)  # the caller's
    assert watch.take(wait=False) == 0.0
    device.done = 3050.0
    assert watch.take(wait=False) == pytest.approx(3.0) and device.waits == 0
    assert watch.take() == pytest.approx(3.0) and device.waits == 1
    assert watch.take() == 0.0 and device.waits == 1


def test_a_round_under_way_is_left_alone(device: Device) -> None:
    watch = Stopwatch(CUDA)
    watch.start()
    device.work(1000)
    assert watch.take() == 0.0
    watch.stop()
    assert watch.take() == pytest.approx(1.0)


def inversion(steps: int, device: torch.device | None = None) -> Inversion:
    network = two_blocks().to(device)
    config = InversionConfig(steps=steps, batch=8)
    frozen = frozen_network(network.pieces(), network.head, config)
    return Inversion(Problem(frozen, config, image_shape=(3, 8, 8), targets=torch.randn(8, 32)))


def test_a_state_in_mid_stage_has_the_seconds_so_far() -> None:
    whole = inversion(4)
    steps = whole.run()
    seen = []
    for _ in range(4):
        next(steps)
        seen.append(whole.state()["report"]["seconds"])
        time.sleep(0.1)
    assert 0 < seen[0] < seen[1] < seen[2] < seen[3] < 0.3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_the_sum_is_that_of_a_clock_that_waits() -> None:
    list(inversion(20, CUDA).run())  # kernels are loaded on first use
    whole = inversion(400, CUDA)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in whole.run():
        pass
    torch.cuda.synchronize()
    assert whole.report.seconds == pytest.approx(time.perf_counter() - began, rel=0.2)
