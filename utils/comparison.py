"""A table of runs side by side, made from their records alone: ``python -m pmi_cl.utils.comparison runs``."""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QUIET = ("seed", "results_path", "run_name", "base_path", "device", "num_threads", "progress", "tensorboard", "savecheck", "offline")


@dataclass(frozen=True)
class Run:
    """A finished run: what it was told and what came out."""

    args: dict[str, Any]
    sources: dict[str, str]
    results: dict[str, Any]

    @property
    def settings(self) -> tuple[str, str, str]:
        """(data set, method, preset and the flags that were typed), for people."""
        typed = sorted(
            name for name, source in self.sources.items() if source == "flag" and name not in (*QUIET, "model", "dataset", "model_config")
        )
        flags = " ".join(f"{name}={_text(self.args[name])}" for name in typed)
        return self.args["dataset"], self.args["model"], " ".join(filter(None, [self.args["model_config"] or "", flags]))


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Every finished run below the folders, in the order of their paths."""
    runs = []
    for path in sorted({file for folder in folders for file in folder.rglob("results.json")}):
        results = json.loads(path.read_text(encoding="utf-8"))
        recorded = path.with_name("args.json")
        if results["status"] == "finished" and recorded.is_file():
            args = json.loads(recorded.read_text(encoding="utf-8"))["args"]
            runs.append(Run({k: v["value"] for k, v in args.items()}, {k: v["source"] for k, v in args.items()}, results))
    return runs


def table(runs: Sequence[Run]) -> str:
    """Markdown: a row for each group of runs that differ in their seed alone; mean and standard deviation over the seeds (ddof 1)."""
    rows = ["| data set | method | settings | seeds | last, % | average, % | forgetting | task-IL last, % | minutes |", "|" + "---|" * 9]
    for (dataset, method, settings), members in sorted(_groups(runs).items()):
        figures = [_spread([run.results[part][name] for run in members]) for part, name in _COLUMNS]
        minutes = statistics.mean(sum(run.results["seconds"].values()) for run in members) / 60
        seeds = " ".join(str(seed) for seed in sorted(run.args["seed"] for run in members))
        rows.append(f"| {dataset} | `{method}` | {settings} | {seeds} | {' | '.join(figures)} | {minutes:.1f} |")
    return "\n".join(rows)


def _groups(runs: Sequence[Run]) -> dict[tuple[str, str, str], list[Run]]:
    """Runs by (data set, method, settings). Settings of the same words may hide different values, of a preset that was changed say:
    then they are named too, so that only runs that differ in their seed alone share a row."""
    alike: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        alike[run.settings].append(run)
    groups: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for (dataset, method, words), members in alike.items():
        names = sorted({name for run in members for name in run.args} - {*QUIET})
        values = {name: [_value(run, name, members) for run in members] for name in names}
        differing = [name for name in names if any(value != values[name][0] for value in values[name])]
        for row, run in enumerate(members):
            named = [f"{name}={_text(values[name][row])}" for name in differing]
            groups[dataset, method, " ".join([words, *named])].append(run)
    return groups


def _value(run: Run, name: str, runs: Sequence[Run]) -> Any:
    """The option's value in the run. A record older than the option lacks it: it then has what is the default in the others."""
    defaults = (other.args[name] for other in runs if other.sources.get(name) == "default")
    return run.args[name] if name in run.args else next(defaults, None)


_COLUMNS = (("class_il", "last"), ("class_il", "average"), ("class_il", "forgetting"), ("task_il", "last"))


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    print(table(read_runs([Path(word) for word in sys.argv[1:] or ["runs"]])))
