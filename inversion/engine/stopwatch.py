"""Adds up the time that an inversion itself takes.

On a device this is done without making the host wait in the loop.
"""

from __future__ import annotations

import time

import torch


class Stopwatch:
    """Add up the seconds between :meth:`start` and :meth:`stop`, over many rounds.

    What the caller does between two rounds is not counted. On a CUDA device work is only queued
    when a step returns, so a clock of the host would count it for whoever waits for it first.
    There, the device itself records when it begins and ends each round.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None
        self._began = 0.0
        self._seconds = 0.0
        self._first: torch.cuda.Event | None = None
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def start(self) -> None:
        """Begin a round."""
        if self._cuda is None:
            self._began = time.perf_counter()
        else:
            self._first = self._mark()

    def stop(self) -> None:
        """End the round."""
        if self._cuda is None:
            self._seconds += time.perf_counter() - self._began
        elif self._first is not None:
            self._events.append((self._first, self._mark()))
            self._first = None

    def take(self, wait: bool = True) -> float:
        """Return the seconds of all rounds since the last call.

        Args:
            wait: whether to wait until the device has done its work; else only the rounds that it
                has ended are returned, and the others later.
        """
        if wait and self._events:
            self._events[-1][1].synchronize()
        while self._events and self._events[0][1].query():
            first, last = self._events.pop(0)
            self._seconds += first.elapsed_time(last) / 1000  # events count milliseconds
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _mark(self) -> torch.cuda.Event:
        """Record an event behind all work that is queued so far."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._cuda))
        return event
