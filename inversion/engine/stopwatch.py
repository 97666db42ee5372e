"""Adds up the time of an inversion's own work, on a device too, without making the device wait in the loop."""

from __future__ import annotations

import time

import torch


class Stopwatch:
    """Seconds between :meth:`start` and :meth:`stop`, over many rounds.

    On a CUDA device work is only queued when a step returns, so a clock of the host would charge it to whoever waits for it first. There,
    the device itself notes when it begins and ends each round, and what the caller does between two rounds is still not counted.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None
        self._began = 0.0
        self._seconds = 0.0
        self._first: torch.cuda.Event | None = None
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def start(self) -> None:
        """A round begins."""
        if self._cuda is None:
            self._began = time.perf_counter()
        else:
            self._first = self._mark()

    def stop(self) -> None:
        """The round ends."""
        if self._cuda is None:
            self._seconds += time.perf_counter() - self._began
        elif self._first is not None:
            self._events.append((self._first, self._mark()))
            self._first = None

    def take(self, wait: bool = True) -> float:
        """The seconds of all rounds since the last time they were taken.

        Args:
            wait: for the device to end what it has been given; else the rounds that it has ended are taken, and the others later.
        """
        if wait and self._events:
            self._events[-1][1].synchronize()
        while self._events and self._events[0][1].query():
            first, last = self._events.pop(0)
            self._seconds += first.elapsed_time(last) / 1000  # events count milliseconds
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _mark(self) -> torch.cuda.Event:
        """An event behind all that the device has been given so far."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._cuda))
        return event
