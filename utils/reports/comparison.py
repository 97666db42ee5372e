"""Reads the records of runs and groups them: runs that differ in their seed alone share a row, rows of one protocol a table."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pmi_cl.datasets.task_split import TaskSplit

QUIET = (
    *("model", "dataset", "model_config", "seed", "results_path", "run_name", "base_path", "device", "num_threads"),
    *("progress", "non_verbose", "tensorboard", "savecheck", "checkpoint_minutes", "offline", "resume"),
)
PROTOCOL = (  # beside data set and tasks
    *("n_classes", "class_order", "split", "class_ids", "train_per_class", "validation", "stop_after"),
    *("data_dir", "test_fraction", "image_size"),
)
TASKS = ("n_tasks", "base_classes", "classes_per_task")  # the record's classes_per_task says what came of them
OVER_IMAGES = {"last": "micro_last", "average": "micro_average"}  # what stands for a figure where tasks differ in size


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        path: its folder.
        args: the value of every option. sources: where each came from.
        results: its ``results.json``.
    """

    path: Path
    args: dict[str, Any]
    sources: dict[str, str]
    results: dict[str, Any]

    @property
    def protocol(self) -> str:
        """What runs must share to be compared: data set, number of tasks, and how the classes and images were chosen, for people."""
        tasks = f"{max(len(row) for row in self.results['class_il']['matrix'])} tasks"
        if not self.equal_tasks:
            tasks = f"{TaskSplit(tuple(self.results['classes_per_task']))} (accuracies over all images)"
        named = [f"{name} {_text(self.args[name])}" for name in PROTOCOL if self.args.get(name) not in (None, 0)]
        return ", ".join([self.args["dataset"], tasks, *named])

    @property
    def equal_tasks(self) -> bool:
        """Return whether all tasks have the same number of classes; version 0.1 knew no others."""
        return len(set(self.results.get("classes_per_task", ()))) <= 1

    @property
    def typed(self) -> tuple[str, ...]:
        """The flags that were typed, but for those of the protocol and those that change no figure, as "name=value"."""
        hidden = (*QUIET, *PROTOCOL, *TASKS)
        names = sorted(name for name, source in self.sources.items() if source == "flag" and name not in hidden)
        return tuple(f"{name}={_text(self.args[name])}" for name in names)

    def settings(self, shared: Collection[str] = ()) -> str:
        """The preset and the flags that were typed, for people, without those that are ``shared`` with the other rows."""
        return " ".join(filter(None, [self.args["model_config"], *(word for word in self.typed if word not in shared)]))


@dataclass(frozen=True)
class Row:
    """Runs that differ in their seed alone.

    Attributes:
        method, settings: what they ran, for people.
        runs: one for each seed, by seed.
        repeats: folders of runs with a seed that another, later run of the row has.
    """

    method: str
    settings: str
    runs: dict[int, Run]
    repeats: tuple[Path, ...]

    @property
    def name(self) -> str:
        """Method and settings."""
        return f"{self.method} {self.settings}".strip()

    @property
    def equal_tasks(self) -> bool:
        """Return whether all tasks have the same number of classes; the runs of a row share it."""
        return next(iter(self.runs.values())).equal_tasks

    def figure(self, part: str, name: str) -> dict[int, float]:
        """One figure of ``results.json`` by seed, of the runs that have it."""
        name = name if self.equal_tasks or part == "inversion" else OVER_IMAGES.get(name, name)
        found = {seed: run.results[part].get(name) for seed, run in self.runs.items()}
        return {seed: float(value) for seed, value in found.items() if value is not None}

    def minutes(self) -> dict[int, float]:
        """What each seed's run took, all phases together."""
        return {seed: sum(run.results["seconds"].values()) / 60 for seed, run in self.runs.items()}

    def curve(self) -> list[list[float]]:
        """Return for each seed the accuracy in % after each task; joint training has one value.

        It is the mean over the tasks seen, or over all images where tasks differ in size.
        """
        found = [run.results["class_il"] for run in self.runs.values()]
        if not self.equal_tasks:
            return [list(figures["micro"]) for figures in found]
        return [[statistics.mean(row) for row in figures["matrix"]] for figures in found]


def read_runs(folders: Iterable[Path]) -> tuple[list[Run], list[str]]:
    """Every finished run below the folders, in the order of their paths; and what was passed over, a line each."""
    runs, passed_over = [], []
    for path in sorted({file for folder in folders for file in folder.rglob("results.json")}):
        try:
            found = _read(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            passed_over.append(f"{path.parent}: no readable record ({type(error).__name__}: {error})")
            continue
        if isinstance(found, Run):
            runs.append(found)
        else:
            passed_over.append(f"{path.parent}: {found}")
    return runs, passed_over


def _read(path: Path) -> Run | str:
    """The run, or the status of one that has not finished."""
    results = json.loads(path.read_text(encoding="utf-8"))
    if results["status"] != "finished":
        return str(results["status"])
    args = json.loads(path.with_name("args.json").read_text(encoding="utf-8"))["args"]
    run = Run(path.parent, {k: v["value"] for k, v in args.items()}, {k: v["source"] for k, v in args.items()}, results)
    row = _row(run.args["model"], run.settings(), [run])
    _ = (
        run.protocol,
        row.curve(),
        row.minutes(),
        [row.figure(part, "last") for part in ("class_il", "task_il", "inversion")],
    )
    return run  # all that a table takes is there


def comparisons(runs: Sequence[Run]) -> dict[str, list[Row]]:
    """The rows of each protocol. What all its runs were told by flags stands in its name, not in every row."""
    members: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        members[run.protocol].append(run)
    tables = {}
    for protocol, alike in sorted(members.items()):
        shared = (
            set.intersection(*(set(run.typed) for run in alike))
            if len({run.settings() for run in alike}) > 1
            else set()
        )
        tables["; all with ".join(filter(None, [protocol, " ".join(sorted(shared))]))] = _rows(alike, shared)
    return tables


def _rows(runs: Sequence[Run], shared: Collection[str]) -> list[Row]:
    """The rows of one protocol. Settings of the same words may hide different values, of a preset that was changed say: then
    they are named too, so that only runs that differ in their seed alone share a row."""
    alike: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        alike[run.args["model"], run.settings(shared)].append(run)
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for (method, words), members in alike.items():
        names = sorted({name for run in members for name in run.args} - {*QUIET, *PROTOCOL, *TASKS})
        values = {name: [_value(run, name, members) for run in members] for name in names}
        differing = [name for name in names if any(value != values[name][0] for value in values[name])]
        for place, run in enumerate(members):
            named = [f"{name}={_text(values[name][place])}" for name in differing]
            groups[method, " ".join(filter(None, [words, *named]))].append(run)
    return [_row(method, settings, members) for (method, settings), members in sorted(groups.items())]


def _row(method: str, settings: str, runs: Sequence[Run]) -> Row:
    """Of two runs with one seed the later one counts, by the time at which its results were written."""
    ordered = sorted(runs, key=lambda run: (run.path / "results.json").stat().st_mtime)
    by_seed = {int(run.args["seed"]): run for run in ordered}
    kept = {run.path for run in by_seed.values()}
    return Row(
        method, settings, dict(sorted(by_seed.items())), tuple(run.path for run in ordered if run.path not in kept)
    )


def _value(run: Run, name: str, runs: Sequence[Run]) -> Any:
    """The option's value in the run. A record older than the option lacks it: it then has what is the default in the others."""
    defaults = (other.args[name] for other in runs if other.sources.get(name) == "default")
    return run.args[name] if name in run.args else next(defaults, None)


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
