"""Test real signals: noted, obeyed at safe points, answered with the right exit code.

Old handlers are restored whatever happens.
"""

import os
import signal
import subprocess
import sys
import threading

import pytest

from pmi_cl.utils.run.interrupts import Interrupted, Interrupts

PROGRAM = """
import os, signal, sys, time
from pmi_cl.utils.run.interrupts import Interrupted, Interrupts
with Interrupts() as interrupts:
    print("ready", flush=True)
    for _ in range(3000):
        time.sleep(0.01)
        if interrupts.requested is not None and "stubborn" not in sys.argv:
            raise SystemExit(Interrupted(interrupts.requested).exit_code)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_first_signal_is_only_noted(number, code):
    with Interrupts() as interrupts:
        assert interrupts.requested is None
        os.kill(os.getpid(), number)
        assert interrupts.requested == number
    assert Interrupted(number).exit_code == code


def test_a_second_ctrl_c_stops_at_once():
    with pytest.raises(KeyboardInterrupt), Interrupts():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)


def test_a_second_sigterm_is_patient():
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.requested == signal.SIGINT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_old_handlers_come_back_even_when_the_body_raises(number):
    heard = []
    before = signal.signal(number, lambda *_: heard.append(number))
    try:
        with pytest.raises(ZeroDivisionError), Interrupts():
            raise ZeroDivisionError
        os.kill(os.getpid(), number)
        assert heard == [number]
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("ends_process", [True, False])
def test_where_nothing_is_left_to_do_signals_change_nothing(ends_process):
    """If the process ends after the body, it holds there, too. Else the old handlers are back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        with Interrupts(ends_process) as interrupts:
            interrupts.ignore_signals()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
                os.kill(os.getpid(), number)
        assert interrupts.requested is None
        after = {number: signal.getsignal(number) for number in before}
        assert after == (dict.fromkeys(before, signal.SIG_IGN) if ends_process else before)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_outside_the_main_thread_nothing_is_touched():
    handlers = []

    def enter():
        with Interrupts():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_program_ends_with_the_signals_code(number, code):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout.readline() == "ready\n"
        program.send_signal(number)
        _, errors = program.communicate(timeout=20)
    assert program.returncode == code
    assert "finished and saved" in errors


def test_a_program_that_never_reaches_a_safe_point_is_stopped_by_the_second_ctrl_c():
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "stubborn"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout.readline() == "ready\n"
        program.send_signal(signal.SIGINT)
        assert "stopping" in program.stderr.readline() + program.stderr.readline()
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=20)
    assert "KeyboardInterrupt" in errors


def test_a_hangup_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            assert interrupts.requested is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_is_gone_is_no_error(monkeypatch):
    def gone(number, text):
        raise OSError(5, "Input/output error")

    with Interrupts() as interrupts:
        monkeypatch.setattr(os, "write", gone)
        os.kill(os.getpid(), signal.SIGHUP)
        assert interrupts.requested == signal.SIGHUP
