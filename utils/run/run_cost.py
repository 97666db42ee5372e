"""Say what a run will cost: hours, memory and disk, from earlier runs of the same setting."""

from __future__ import annotations

import contextlib
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmi_cl.utils.arguments.known_options import roles
from pmi_cl.utils.records.record_shape import check_arguments, check_results, read_json

if TYPE_CHECKING:
    from pmi_cl.utils.arguments.command_line import Resolved

WITHOUT_COST = ("seed", "machine", "output")  # roles of options that may differ between runs of one cost
NOT_COMPARED = ("resume", "n_tasks")  # the number of tasks is that of the record's own accuracies


@dataclass(frozen=True)
class Cost:
    """What a run takes.

    Attributes:
        seconds: by phase.
        memory_mib: the highest memory, of the device, or of the process on a CPU.
        disk_mib: what its folder holds at its end.
    """

    seconds: dict[str, float]
    memory_mib: float
    disk_mib: float

    def __str__(self) -> str:
        """Return "2.1 hours (training 1.9 hours, inversion 11 minutes), 860 MiB of memory ..."."""
        parts = sorted(self.seconds.items(), key=lambda item: -item[1])
        named = ", ".join(f"{name} {_time(seconds)}" for name, seconds in parts if seconds >= 0.5)
        whole = _time(sum(self.seconds.values())) + (f" ({named})" if named else "")
        return f"{whole}, {self.memory_mib:,.0f} MiB of memory, {self.disk_mib:,.0f} MiB on the disk"


def _time(seconds: float) -> str:
    for unit, length in (("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def told_by_records(run: Resolved) -> str:
    """Return the cost of earlier runs of the same setting, or how to estimate it, as a line."""
    found = list(_records(run))
    if not found:
        return f"no finished run of this setting below {run.args.results_path}: --estimate times a few steps"
    names = sorted({name for _, results in found for name in results["seconds"]})
    mean = Cost(
        {name: statistics.mean(results["seconds"].get(name, 0.0) for _, results in found) for name in names},
        max(max(results["peak_memory_mib"].values(), default=0.0) for _, results in found),
        max(_size_mib(folder) for folder, _ in found),
    )
    machines = " and ".join(sorted({_machine(results["hardware"]) for _, results in found}))
    runs = f"{len(found)} earlier runs" if len(found) > 1 else "an earlier run"
    return f"{mean}, as {runs} of this setting took on {machines}"


def mean_seconds(run: Resolved) -> float | None:
    """Return the mean seconds of earlier runs of the same setting; None: there is none."""
    found = [sum(results["seconds"].values()) for _, results in _records(run)]
    return statistics.mean(found) if found else None


def _records(run: Resolved) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield folder and results of every finished run of the same setting below the results."""
    compared = {name for name, role in roles().items() if role not in WITHOUT_COST} - set(NOT_COMPARED)
    wanted = json.loads(json.dumps({name: value for name, value in vars(run.args).items() if name in compared}))
    root = Path(run.args.results_path) / run.model.name / run.dataset.name
    for path in sorted(root.glob("*/results.json")):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):  # no record of ours
            results, args = read_json(path), read_json(path.with_name("args.json"))["args"]
            check_arguments(args)
            check_results(results)
            same = all(_has(args, name, value, run.sources[name]) for name, value in wanted.items())
            tasks = max(len(row) for row in results["class_il"]["matrix"])
            of_run = min(run.args.stop_after or tasks, run.args.n_tasks or tasks)
            if same and tasks == of_run and results["status"] == "finished":
                _ = (max(results["peak_memory_mib"].values(), default=0.0), _machine(results["hardware"]))
                yield path.parent, results


def _has(args: dict[str, Any], name: str, value: Any, source: str) -> bool:
    """Return whether a record has a value. It has the default of an option that is newer."""
    return bool(args[name]["value"] == value if name in args else source == "default")


def _size_mib(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20


def _machine(hardware: dict[str, Any]) -> str:
    gpus: Sequence[str] = hardware.get("gpus") or ()
    words = gpus[0] if gpus else hardware.get("processor") or "this processor"
    return f"{words} ({hardware.get('threads')} threads)"
