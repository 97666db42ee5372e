"""Show how a sweep goes: a line for each job on a terminal, elsewhere a line for each event."""

from __future__ import annotations

import sys
import time
from typing import Any

from pmi_cl.machine.plain_text import printable
from pmi_cl.machine.terminal import columns, tell
from pmi_cl.utils.run.progress import duration
from pmi_cl.utils.sweeps.planned_runs import PlannedRun
from pmi_cl.utils.sweeps.processes import Job, Outcome, Workers


class StatusLines:
    """Say what begins and ends, and on a terminal what each job does.

    Use it as a context: on leaving, the lines of the jobs are wiped.
    """

    def __init__(self, workers: Workers, total: int, jobs: int, live: bool) -> None:
        """
        Args:
            workers: what is watched.
            total: the number of runs that are to be carried out.
            jobs: the number of jobs at once.
            live: whether there is a terminal whose lines can be redrawn.
        """
        self._workers, self._total = workers, total
        self._told: set[PlannedRun] = set()
        self._begun: set[PlannedRun] = set()
        self._lines: list[Any] = _empty_lines(jobs) if live else []

    def __enter__(self) -> StatusLines:
        return self

    def __exit__(self, *_: object) -> None:
        for line in self._lines:
            line.close()

    def changed(self) -> None:
        """Show what is new since the last call."""
        for job in self._workers.running:
            if job.run not in self._begun:
                self._begun.add(job.run)
                self._tell(f"{job.run}: began, its output goes to {job.log}")
        for run in [run for run in self._workers.outcomes if run not in self._told]:
            self._told.add(run)
            self._tell(f"{run}: {ended(self._workers.outcomes[run])} ({len(self._told)} of {self._total})")
        for place, line in enumerate(self._lines):
            running = self._workers.running
            line.set_description_str(_now(running[place]) if place < len(running) else "", refresh=True)

    def _tell(self, line: str) -> None:
        if self._lines:
            self._lines[0].write(printable(line))
        else:
            tell(line)


def ended(outcome: Outcome) -> str:
    """Return how a run ended, in words."""
    time_taken = duration(outcome.seconds)
    if outcome.exit_code == 0:
        return f"finished in {time_taken}"
    how = f"killed by signal {-outcome.exit_code}" if outcome.exit_code < 0 else f"exit code {outcome.exit_code}"
    return f"ended after {time_taken}, {how}: {outcome.last_line}"


def _now(job: Job) -> str:
    text = f"{job.run} {duration(time.monotonic() - job.started)}: {job.last_line}"
    return printable(text)[: columns(sys.stderr) - 1]


def _empty_lines(jobs: int) -> list[Any]:
    from tqdm import tqdm

    return [tqdm(total=0, position=place, bar_format="{desc}", leave=False) for place in range(jobs)]
