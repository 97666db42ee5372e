"""Progress: seldom lines in a file, a bar in a terminal, a pace that is that of now."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import time

import pytest
import torch

from pmi_cl.models.host import PhaseState
from pmi_cl.utils.run.progress import Pace, Progress, described, duration


class Costly:
    """A number that counts how often it is read, as a tensor on a device would be waited for."""

    def __init__(self):
        self.read = 0

    def __float__(self):
        self.read += 1
        return 0.5


# progress


def test_a_file_gets_nothing_of_a_short_phase():
    out, value = io.StringIO(), Costly()
    progress = Progress("auto", out)
    for step in range(1, 1001):
        progress.update("training", step, 1000, loss=value)
    assert out.getvalue() == "" and value.read == 0


def test_a_long_phase_gets_a_line_now_and_then_and_one_at_its_end():
    out = io.StringIO()
    progress = Progress("auto", out, line_seconds=0.02)
    for step in range(1, 6):
        time.sleep(0.03)
        state = PhaseState(step, 6, "batch 1/2, stage 4/16: layer 12", values={"loss": torch.tensor(1.25)})
        progress.show("inversion", state)
    progress.update("inversion", 6, 6, loss=1.0)
    lines = out.getvalue().splitlines()
    assert 4 <= len(lines) <= 6 and lines[-1].startswith("inversion: 6/6 in 0:0")
    assert "inversion: 5/6 in " in lines[-2] and "stage 4/16: layer 12, loss 1.25" in lines[-2]


def test_the_pace_is_that_of_the_last_seconds():
    """A phase that was fast for an hour and is slow now, as after a change of the stage."""
    pace = Pace(seconds=10)
    for second in range(3600):
        pace.add(second, second * 100, 0.5 * second / 3600)
    assert pace.rate == pytest.approx(100)
    for second in range(3600, 3620):
        pace.add(second, 360_000 + second - 3600, 0.5 + 0.001 * (second - 3600))
    assert pace.rate == pytest.approx(1)
    assert pace.seconds_left == pytest.approx((0.5 - 0.019) / 0.001)


def test_steps_slower_than_the_time_that_is_looked_at_have_a_pace():
    pace = Pace(seconds=10)
    assert pace.rate is None and pace.seconds_left is None
    for done in (1, 2, 3):
        pace.add(60.0 * done, done, done / 10)
    assert pace.rate == pytest.approx(1 / 60) and pace.seconds_left == pytest.approx(420)


def test_a_pace_keeps_few_points():
    pace = Pace(seconds=10)
    for step in range(100_000):
        pace.add(step / 1000, step, step / 100_000)
    assert len(pace._points) < 60 and pace.rate == pytest.approx(1000, rel=0.02)


def test_what_is_shown_can_be_read():
    pace = Pace()
    for moment in (0.0, 2.0):
        pace.add(moment, 100 + int(moment) * 30, 0.5 + moment / 200)
    state = PhaseState(160, 400, "batch 2/5, stage 4/16: layer 12", 0.51, {"loss": 0.5})
    assert described(state, pace) == "1:38 left, 30/s, batch 2/5, stage 4/16: layer 12, loss 0.5"
    assert [duration(seconds) for seconds in (7, 723.4, 18010)] == ["0:07", "12:03", "5:00:10"]


def test_silence_reads_and_writes_nothing():
    out, value = io.StringIO(), Costly()
    Progress("0", out).update("training", 1, 1, loss=value)
    assert out.getvalue() == "" and value.read == 0


@contextlib.contextmanager
def open_terminal(shown):
    """Yield a terminal of the system. The bytes written to it stand in ``shown`` afterwards."""
    master, slave = os.openpty()

    def read():
        with contextlib.suppress(OSError):  # the other end is closed
            while block := os.read(master, 4096):
                shown.append(block)

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(slave, "w") as terminal:
        yield terminal
    reader.join()
    os.close(master)


@pytest.mark.parametrize("mode", ["auto", "1"])
def test_a_terminal_gets_a_bar(mode):
    shown, value = [], Costly()
    with open_terminal(shown) as terminal:
        progress = Progress(mode, terminal)
        began = time.monotonic()
        for step in range(1, 501):
            progress.update("training", step, 500, loss=value)
        spent = time.monotonic() - began
    text = b"".join(shown).decode()
    assert "training" in text and "500/500" in text and "loss 0.5" in text
    assert value.read <= 2 + spent / 0.5


def test_a_bar_that_is_wished_for_is_drawn_into_a_file_too():
    out = io.StringIO()
    progress = Progress("1", out)
    progress.update("training", 3, 10)
    progress.close()
    assert "3/10" in out.getvalue() and "\r" in out.getvalue()
