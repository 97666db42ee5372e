"""Progress: seldom lines in a file, a bar in a terminal, values read only for what is shown."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import time

import pytest
import torch

from pmi_cl.utils.run.progress import Progress


class Costly:
    """A number that counts how often it is read, as a tensor on a device would be waited for."""

    def __init__(self):
        self.read = 0

    def __float__(self):
        self.read += 1
        return 0.5


# progress


def test_lines_are_seldom_and_values_are_read_only_for_them():
    out, value = io.StringIO(), Costly()
    progress = Progress("auto", out)
    for step in range(1, 1001):
        progress.update("training", step, 1000, loss=value)
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().startswith("training: 1000/1000 in ") and "loss 0.5" in out.getvalue()
    assert value.read == 1


def test_a_long_phase_gets_a_line_now_and_then():
    out = io.StringIO()
    progress = Progress("auto", out, line_seconds=0.02)
    for step in range(1, 6):
        time.sleep(0.03)
        progress.update("inversion", step, 100, loss=torch.tensor(1.25))
    assert 3 <= out.getvalue().count("\n") <= 5
    assert "inversion: 5/100" in out.getvalue() and "loss 1.25" in out.getvalue()


def test_every_phase_has_its_end():
    out = io.StringIO()
    progress = Progress("auto", out)
    for phase in ("one", "two", "two"):
        for step in (1, 2):
            progress.update(phase, step, 2)
    assert [line.split(":")[0] for line in out.getvalue().splitlines()] == ["one", "two", "two"]


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
