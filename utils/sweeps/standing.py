"""Find out how far planned runs are, and what is left to do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pmi_cl.errors import UserError
from pmi_cl.utils.arguments.command_line import all_specs
from pmi_cl.utils.arguments.option_texts import shown
from pmi_cl.utils.arguments.resumed_arguments import check_recorded, read_arguments
from pmi_cl.utils.records.run_record import RunRecord
from pmi_cl.utils.run.progress import duration
from pmi_cl.utils.run.run_cost import mean_seconds
from pmi_cl.utils.sweeps.planned_runs import PlannedRun

NEW, UNFINISHED, FINISHED = "new", "unfinished", "finished"
ACTIONS = {NEW: "run", UNFINISHED: "go on", FINISHED: "keep"}
FREE = ("machine", "output")  # roles of options in which a run that is there may differ


def standing(run: PlannedRun) -> str:
    """Return NEW, UNFINISHED (it has a checkpoint) or FINISHED.

    Raises:
        UserError: the folder holds a run with other values, or a record that cannot be read.
    """
    record = RunRecord(run.folder)
    if not (run.folder / "args.json").is_file():
        return NEW
    _check_same(run, run.folder / "args.json")
    if record.status() == "finished":
        return FINISHED
    return UNFINISHED if record.checkpoint.is_file() else NEW


def command_of(run: PlannedRun) -> list[str]:
    """Return the words that begin or continue the run.

    A folder that was left before its first checkpoint is renamed, so that the run has its name.
    """
    if standing(run) == UNFINISHED:
        return ["--resume", str(run.folder)]
    if run.folder.exists():
        run.folder.rename(run.folder.with_name(f"{run.folder.name}-stopped-{time.time_ns()}"))
    return list(run.words)


def listing(runs: Sequence[PlannedRun], jobs: int) -> str:
    """Return a line for each run, and how long what is left may take.

    The time is that of earlier runs of the same setting below ``--results_path``.
    """
    found = {run: standing(run) for run in runs}
    left = [run for run in runs if found[run] != FINISHED]
    seconds = {run: mean_seconds(run.resolved) for run in left}
    known = [value for value in seconds.values() if value is not None]
    lines = [f"{ACTIONS[found[run]]:8} {run}{_about(seconds.get(run))}" for run in runs]
    counts = f"{len(runs)} runs, {len(left)} of them to be carried out"
    if known:
        time_taken = duration(sum(known) / jobs)
        counts += f"; {time_taken} (h:mm:ss) on {jobs} jobs for the {len(known)} whose setting has run before"
    return "\n".join([*lines, counts, ""])


def _about(seconds: float | None) -> str:
    return "" if seconds is None else f", about {duration(seconds)}"


def _check_same(run: PlannedRun, path: Path) -> None:
    specs = all_specs(run.resolved.model, run.resolved.dataset, run.resolved.backbone)
    recorded = check_recorded(read_arguments(path)[0], specs, path)
    for spec in specs:
        value: Any = getattr(run.resolved.args, spec.name)
        # None: decided when the run begins, and recorded then.
        if spec.role not in FREE and spec.binds != "nothing" and value not in (None, recorded[spec.name]):
            raise UserError(
                f"{run.folder} is a run with --{spec.name} {shown(recorded[spec.name])}, not {shown(value)}: "
                "choose another --results_path, or give the runs another name"
            )
