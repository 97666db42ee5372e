"""Carry out runs in processes, several at once, each on its share of the machine."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pmi_cl.machine.plain_text import excerpt
from pmi_cl.utils.run.interrupts import Interrupts
from pmi_cl.utils.sweeps.planned_runs import PlannedRun
from pmi_cl.utils.sweeps.standing import command_of

LOOK_SECONDS = 0.2  # between two looks at the processes
TAIL_BYTES = 2000  # of a log, in which its last line is looked for


@dataclass(frozen=True)
class Share:
    """Hold what one of the processes that run at once may use.

    Attributes:
        threads: CPU threads; None: as the run itself decides.
        gpu: the number of a GPU; None: those that this process sees.
    """

    threads: int | None = None
    gpu: int | None = None

    @property
    def words(self) -> list[str]:
        """The words that tell a run its threads."""
        return [] if self.threads is None else [f"--num_threads={self.threads}"]

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the process."""
        own = {} if self.gpu is None else {"CUDA_VISIBLE_DEVICES": str(self.gpu)}
        return {**os.environ, **own}


def shares(jobs: int, gpus: Sequence[int], threads_given: bool) -> list[Share]:
    """Return the share of each of ``jobs`` processes: threads evenly, GPUs in turn.

    Args:
        threads_given: whether the runs have a number of threads of their own.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = None if threads_given or jobs == 1 else max(1, cores // jobs)
    return [Share(threads, gpus[place % len(gpus)] if gpus else None) for place in range(jobs)]


@dataclass
class Job:
    """Hold one process, and the run that it carries out.

    Attributes:
        run: the run.
        log: the file with all that the process prints.
        share: what it may use.
        started: when, in seconds of the monotonic clock.
        process: the process.
        stopping: whether it has been asked to save and end.
    """

    run: PlannedRun
    log: Path
    share: Share
    started: float
    process: subprocess.Popen[bytes]
    stopping: bool = False

    @property
    def last_line(self) -> str:
        """The last line that the process has printed."""
        return last_line(self.log)


@dataclass(frozen=True)
class Outcome:
    """Say how a run ended.

    Attributes:
        exit_code: of its process; negative: the signal that killed it.
        seconds: that it took.
        last_line: the last line that it printed.
    """

    exit_code: int
    seconds: float
    last_line: str


def last_line(log: Path) -> str:
    """Return the last line of a file that is not empty; a bar redraws its line after a return."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        lines = [line.strip() for line in re.split(r"[\r\n]+", file.read().decode(errors="replace"))]
        return excerpt(next((line for line in reversed(lines) if line), ""))
    return ""


class Workers:
    """Carry out runs, as many at once as there are shares.

    Attributes:
        running: the jobs that run now.
        outcomes: how each run that has ended did so.
    """

    def __init__(self, shares: Sequence[Share], logs: Path) -> None:
        self.running: list[Job] = []
        self.outcomes: dict[PlannedRun, Outcome] = {}
        self._free, self._logs = deque(shares), logs

    def carry_out(
        self, runs: Iterable[PlannedRun], interrupts: Interrupts, watchers: Sequence[Callable[[], None]]
    ) -> None:
        """Carry out all runs. A run that fails does not keep the others from going on.

        After a signal no more runs are begun, and those that run save and end. A second SIGINT
        raises KeyboardInterrupt and ends them at once.

        Args:
            watchers: are called after each look at the processes.
        """
        waiting = deque(runs)
        try:
            while self.running or (waiting and interrupts.requested is None):
                while waiting and self._free and interrupts.requested is None:
                    self._begin(waiting.popleft())
                if interrupts.requested is not None:
                    self._stop()
                self._collect()
                for watcher in watchers:
                    watcher()
                time.sleep(LOOK_SECONDS)
        finally:
            for job in self.running:
                job.process.kill()

    def _begin(self, run: PlannedRun) -> None:
        share, log = self._free.popleft(), self._logs / f"{str(run).replace('/', '-')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pmi_cl", *command_of(run), *share.words]
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=share.environment,
                start_new_session=True,  # Ctrl-C goes to the sweep alone, which tells its runs to save
            )
        self.running.append(Job(run, log, share, time.monotonic(), process))

    def _stop(self) -> None:
        """Ask every run once to save and end."""
        for job in self.running:
            if not job.stopping:
                job.process.terminate()
                job.stopping = True

    def _collect(self) -> None:
        """Take note of the processes that have ended, and free their shares."""
        for job in [job for job in self.running if job.process.poll() is not None]:
            self.running.remove(job)
            self._free.append(job.share)
            self.outcomes[job.run] = Outcome(
                job.process.returncode, round(time.monotonic() - job.started, 1), job.last_line
            )
