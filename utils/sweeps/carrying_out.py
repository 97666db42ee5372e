"""Carry a sweep out: what is left of it, its record, and the table of what is finished."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pmi_cl.errors import RunFailed
from pmi_cl.machine.disk import check_writable
from pmi_cl.machine.plain_text import few
from pmi_cl.machine.terminal import show, tell
from pmi_cl.registry.catalogue import Catalogue
from pmi_cl.utils.records.atomic import write_json
from pmi_cl.utils.records.surroundings import surroundings
from pmi_cl.utils.reports.comparison import comparisons, read_runs
from pmi_cl.utils.reports.comparison_tables import cells, markdown
from pmi_cl.utils.run.interrupts import Interrupts
from pmi_cl.utils.sweeps.planned_runs import PlannedRun
from pmi_cl.utils.sweeps.processes import Outcome, Workers, shares
from pmi_cl.utils.sweeps.standing import FINISHED, standing
from pmi_cl.utils.sweeps.status_lines import StatusLines

SCHEMA = 1


def carry_out(runs: Sequence[PlannedRun], results: Path, jobs: int, gpus: Sequence[int], catalogue: Catalogue) -> int:
    """Carry out the runs that are not finished, show the table, and return the exit code.

    It is 0, or 128 + the number of the signal that stopped the sweep.

    Raises:
        UserError: a folder holds another run, or cannot be written to. No run is begun then.
        RunFailed: runs have failed; the others have been carried out.
    """
    before = {run: standing(run) for run in runs}
    left = [run for run in runs if before[run] != FINISHED]
    if len(left) < len(runs):
        tell(f"{len(runs) - len(left)} of {len(runs)} runs are finished: they are kept")
    check_writable(results)
    threads_given = all(run.resolved.args.num_threads for run in runs)
    workers = Workers(shares(jobs, gpus, threads_given), results / "logs")
    record = _Record(results / "sweep.json", before, workers)
    with Interrupts() as interrupts, StatusLines(workers, len(left), jobs, sys.stderr.isatty()) as lines:
        workers.carry_out(left, interrupts, (lines.changed, record.changed))
    if interrupts.requested is not None:
        tell("stopped: every run that was being carried out has saved; the same command goes on")
        return 128 + interrupts.requested
    _show_table(runs, catalogue)
    failed = [str(run) for run, outcome in workers.outcomes.items() if outcome.exit_code]
    if failed:
        raise RunFailed(f"{len(failed)} of {len(runs)} runs failed, {record.path} says how: {few(failed)}")
    return 0


def _show_table(runs: Sequence[PlannedRun], catalogue: Catalogue) -> None:
    folders = [run.folder for run in runs if run.folder.is_dir() and standing(run) == FINISHED]
    found, passed_over = read_runs(folders, catalogue)
    for line in passed_over:
        tell(f"passed over {line}")
    if found:
        show(f"{markdown({protocol: cells(rows) for protocol, rows in comparisons(found).items()})}\n")


class _Record:
    """Write ``sweep.json``: the command, and how each run stands."""

    def __init__(self, path: Path, before: Mapping[PlannedRun, str], workers: Workers) -> None:
        self.path, self._before, self._workers = path, before, workers
        self._head = {"schema": SCHEMA, "command": sys.argv, **surroundings()}
        self._written: dict[str, Any] = {}

    def changed(self) -> None:
        """Write the record if a run stands otherwise than before."""
        running = {job.run for job in self._workers.running}
        entries = {str(run): self._entry(run, running) for run in self._before}
        if entries != self._written:
            write_json(self.path, {**self._head, "runs": entries})
            self._written = entries

    def _entry(self, run: PlannedRun, running: set[PlannedRun]) -> dict[str, Any]:
        words = {"words": list(run.words)}
        outcome = self._workers.outcomes.get(run)
        if outcome is None:
            return {**words, "status": "running" if run in running else self._before[run]}
        return {**words, **_ending(outcome)}


def _ending(outcome: Outcome) -> dict[str, Any]:
    status = FINISHED if outcome.exit_code == 0 else "failed"
    found = {"status": status, "exit_code": outcome.exit_code, "seconds": outcome.seconds}
    return found if status == FINISHED else {**found, "last_line": outcome.last_line}
