"""Read the records of runs and group them: seeds into rows, rows that can be compared into tables.

Rows can be compared where data, tasks and selection are the same, and all networks or none had
learned before. What else changes the meaning of a figure, such as the network, is a column.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pmi_cl.datasets.task_split import TaskSplit
from pmi_cl.errors import UserError
from pmi_cl.machine.plain_text import excerpt
from pmi_cl.registry.catalogue import INSTALLED, Catalogue
from pmi_cl.utils.arguments.known_options import roles
from pmi_cl.utils.records.record_shape import check_arguments, check_results, read_json, refuse_newer

OVER_IMAGES = {"last": "micro_last", "average": "micro_average"}  # what stands for a figure where tasks differ in size
SCRATCH, RANDOM = "from scratch", "random weights"
DIGITS_OF_DIGEST = 8  # of a checksum, as many as tell weights apart


@dataclass(frozen=True)
class Run:
    """Hold the record of a finished run.

    Attributes:
        path: its folder.
        args: the value of every option.
        sources: the source of every value (flag, preset, default).
        results: the content of its ``results.json``.
        roles: the role of each known option, by name (:data:`pmi_cl.options.ROLES`). An option that
            only an older record has counts as a setting.
    """

    path: Path
    args: dict[str, Any]
    sources: dict[str, str]
    results: dict[str, Any]
    roles: Mapping[str, str]

    @property
    def protocol(self) -> str:
        """The title of the table: data set, tasks, selection of classes and images, and start.

        The start is whether the network had learned before. Only runs of one protocol can be
        compared. Options that took nothing away, as the record says, are passed over.
        """
        tasks = f"{max(len(row) for row in self.results['class_il']['matrix'])} tasks"
        if self.over_images:
            tasks = f"{TaskSplit(tuple(self.results['classes_per_task']))} (accuracies over all images)"
        idle = self.results.get("without_effect", [])
        names = [name for name, role in self.roles.items() if role == "protocol" and name not in idle]
        named = [f"{name} {_text(self.args[name])}" for name in names if self.args.get(name) not in (None, 0, [])]
        return f"{', '.join([self.args['dataset'], tasks, *named])}; {self.start}"

    @property
    def images(self) -> str:
        """The numbers of training and test images; empty where the record does not say."""
        counts = self.results.get("images") or {}
        return f"{counts['train']} training and {counts['test']} test images" if counts else ""

    @property
    def start(self) -> str:
        """Whether the network had learned before."""
        return "networks from scratch" if self._weights in (SCRATCH, RANDOM) else "pretrained networks"

    @property
    def _weights(self) -> str:
        """The weights that the network began with."""
        record = self.results.get("backbone_weights")  # records older than pretrained networks lack it
        if record is None:
            return SCRATCH
        if record.get("tag") == "random":
            return RANDOM
        name = record.get("tag") or record.get("file") or "weights of its own"
        digest = (record.get("sha256") or "")[:DIGITS_OF_DIGEST]
        return f"pretrained {name}" + (f" ({digest})" if digest else "")

    @property
    def network(self) -> str:
        """The network: its name, what it had learned before, and the typed flags that shape it."""
        model = (self.results.get("backbone_weights") or {}).get("model")
        name = self.args.get("backbone") or ""
        built = model if model and f"clip:{model}" != name else ""
        return ", ".join(filter(None, [name, built, self._weights, " ".join(self._typed("network", "backbone"))]))

    @property
    def precision(self) -> str:
        """The precision of the inversion, or of the training where there is none.

        Training is in float32 unless ``--precision bf16`` asks for another.
        """
        if self.results["inversion"].get("images"):
            return str(self.results.get("precision", ""))
        return "bfloat16" if self.args.get("precision") == "bf16" else "float32"

    @property
    def over_images(self) -> bool:
        """Return whether its headline is over all images; in version 0.1 none was."""
        return bool(self.results.get("headline_over") == "images")

    @property
    def typed(self) -> tuple[str, ...]:
        """The typed flags as "name=value", without those of the protocol or without effect."""
        return self._typed("setting")

    def _typed(self, role: str, *left_out: str) -> tuple[str, ...]:
        typed = (name for name, source in self.sources.items() if source == "flag" and name not in left_out)
        return tuple(f"{name}={_text(self.args[name])}" for name in sorted(typed) if self._role(name) == role)

    def _role(self, name: str) -> str:
        return self.roles.get(name, "setting")

    def is_setting(self, name: str) -> bool:
        """Return whether an option decides how the method learns, or which network.

        Others decide on what it learns, where, or what is shown.
        """
        return self._role(name) in ("setting", "network")

    def settings(self, shared: Collection[str] = ()) -> str:
        """Return the preset and the typed flags, without those that all rows share."""
        return " ".join(filter(None, [self.args["model_config"], *(word for word in self.typed if word not in shared)]))


@dataclass(frozen=True)
class Row:
    """Hold runs that differ in their seed alone.

    Attributes:
        method: the method's name.
        settings: the preset and the flags that distinguish the row.
        network: which network learned, and what it had learned before.
        precision: of the arithmetic, "float32" or "bfloat16".
        runs: the run of each seed.
        repeats: folders of runs whose seed a later run of the row has, too.
    """

    method: str
    settings: str
    network: str
    precision: str
    runs: dict[int, Run]
    repeats: tuple[Path, ...]

    @property
    def name(self) -> str:
        """The method and its settings."""
        return f"{self.method} {self.settings}".strip()

    @property
    def full_name(self) -> str:
        """The method, its settings, the network and the precision: no two rows share it."""
        return ", ".join(filter(None, [self.name, self.network, self.precision]))

    @property
    def over_images(self) -> bool:
        """Return whether the headline is over all images; the runs of a row share it."""
        return next(iter(self.runs.values())).over_images

    def figure(self, part: str, name: str) -> dict[int, float]:
        """Return a figure of ``results.json`` by seed, for the runs that have it."""
        name = OVER_IMAGES.get(name, name) if self.over_images and part != "inversion" else name
        values = {seed: run.results[part].get(name) for seed, run in self.runs.items()}
        return {seed: float(value) for seed, value in values.items() if value is not None}

    def last_over_tasks(self) -> dict[int, float]:
        """Return the last accuracy as a mean over tasks by seed, where the headline is another."""
        if not self.over_images:
            return {}
        return {seed: float(run.results["class_il"]["last"]) for seed, run in self.runs.items()}

    def last_by(self, classifier: str) -> dict[int, float]:
        """Return the last accuracy in % by another classifier than the usual one, by seed."""
        name = OVER_IMAGES["last"] if self.over_images else "last"
        by_seed = {seed: run.results.get("classifiers", {}).get(classifier, {}) for seed, run in self.runs.items()}
        return {seed: float(figures[name]) for seed, figures in by_seed.items() if figures}

    def transfer(self) -> dict[int, float]:
        """Return Transfer in % by seed, the identity of tasks known, for runs that measured it."""
        everywhere = {seed: run.results.get("everywhere", {}) for seed, run in self.runs.items()}
        values = {seed: figures.get("task_il", {}).get("transfer") for seed, figures in everywhere.items()}
        return {seed: float(value) for seed, value in values.items() if value is not None}

    def minutes(self) -> dict[int, float]:
        """Return the minutes of the run of each seed, over all phases."""
        return {seed: sum(run.results["seconds"].values()) / 60 for seed, run in self.runs.items()}

    def stored(self, when: str, kind: str | None = None) -> dict[int, float]:
        """Return the most MiB that the method holds beside its network, by seed.

        Args:
            when: "after_task" or "while_training".
            kind: such as "real images". None: of every kind.
        """
        found: dict[int, float] = {}
        for seed, run in self.runs.items():
            tasks = [kinds for kinds in run.results.get("stored", {}).get(when, []) if kinds is not None]
            counts = [sum(kinds.values()) if kind is None else kinds.get(kind, 0) for kinds in tasks]
            found |= {seed: max(counts) / 2**20} if counts else {}
        return found

    def curve(self) -> list[list[float]]:
        """Return for each seed the accuracy in % after each task.

        It is the mean over the tasks seen, or over all images if tasks differ in size. Joint
        training has a single value.
        """
        results = [run.results["class_il"] for run in self.runs.values()]
        if self.over_images:
            return [list(figures["micro"]) for figures in results]
        return [[statistics.mean(row) for row in figures["matrix"]] for figures in results]


def read_runs(folders: Iterable[Path], catalogue: Catalogue = INSTALLED) -> tuple[list[Run], list[str]]:
    """Return all finished runs below the folders, by path, and a line for each skipped record.

    Args:
        catalogue: whose methods, data sets and backbones say what role an option has.
    """
    known = roles(catalogue)
    runs, skipped = [], []
    for path in sorted({file for folder in folders for file in folder.rglob("results.json")}):
        try:
            run = _read(path, known)
        except UserError as error:
            skipped.append(f"{path.parent}: {error}")
            continue
        except Exception as error:  # whatever stands in a file that no run of ours has written
            skipped.append(f"{path.parent}: no readable record ({type(error).__name__}: {excerpt(error)})")
            continue
        if isinstance(run, Run):
            runs.append(run)
        else:
            skipped.append(f"{path.parent}: {run}")
    return runs, skipped


def _read(path: Path, known: Mapping[str, str]) -> Run | str:
    """Return the run, or the status of an unfinished run."""
    results = read_json(path)
    refuse_newer(results, path)
    if results["status"] != "finished":
        return excerpt(results["status"])
    args = read_json(path.with_name("args.json"))["args"]
    check_arguments(args)
    check_results(results)
    values, sources = ({name: item[part] for name, item in args.items()} for part in ("value", "source"))
    run = Run(path.parent, values, sources, results, known)
    _check_complete(run)
    return run


def _check_complete(run: Run) -> None:
    """Raise the error of the first value that a table needs and the record lacks."""
    row = _row(_Kind.of(run), [run])
    _ = (run.protocol, run.images, row.curve(), row.minutes(), row.transfer(), row.last_over_tasks())
    _ = [row.stored(when) for when in ("after_task", "while_training")], row.last_by("ncm")
    for part in ("class_il", "task_il", "inversion"):
        row.figure(part, "last")


def comparisons(runs: Sequence[Run]) -> dict[str, list[Row]]:
    """Return the rows of each protocol, by title.

    Flags that all runs of a protocol share stand in the title instead of every row. Runs of one
    protocol that saw other numbers of images, because files were added, have tables of their own.
    """
    named: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        named[run.protocol].append(run)
    members: dict[str, list[Run]] = defaultdict(list)
    for protocol, alike in named.items():
        differ = len({run.images for run in alike if run.images}) > 1
        for run in alike:
            members[f"{protocol}; {run.images or 'images not counted'}" if differ else protocol].append(run)
    tables = {}
    for protocol, alike in sorted(members.items()):
        settings = {run.settings() for run in alike}
        shared = set.intersection(*(set(run.typed) for run in alike)) if len(settings) > 1 else set()
        title = "; all with ".join(filter(None, [protocol, " ".join(sorted(shared))]))
        tables[title] = _rows(alike, shared)
    return tables


def _rows(runs: Sequence[Run], shared: Collection[str]) -> list[Row]:
    """Return the rows of one protocol.

    Runs of the same settings may still differ in other values, for example because a preset was
    changed. These values are then named, so that only runs that differ in their seed share a row.
    """
    alike: dict[_Kind, list[Run]] = defaultdict(list)
    for run in runs:
        alike[_Kind.of(run, shared)].append(run)
    groups: dict[_Kind, list[Run]] = defaultdict(list)
    for kind, members in alike.items():
        names = sorted({name for run in members for name in run.args if run.is_setting(name)})
        values = {name: [_value(run, name, members) for run in members] for name in names}
        differing = [name for name in names if any(value != values[name][0] for value in values[name])]
        for place, run in enumerate(members):
            named = [f"{name}={_text(values[name][place])}" for name in differing]
            groups[kind._replace(settings=" ".join(filter(None, [kind.settings, *named])))].append(run)
    return [_row(kind, members) for kind, members in sorted(groups.items())]


class _Kind(NamedTuple):
    """What the runs of a row share."""

    method: str
    settings: str
    network: str
    precision: str

    @classmethod
    def of(cls, run: Run, shared: Collection[str] = ()) -> _Kind:
        return cls(run.args["model"], run.settings(shared), run.network, run.precision)


def _row(kind: _Kind, runs: Sequence[Run]) -> Row:
    """Make a row. Of two runs with one seed, the one with the later results counts."""
    ordered = sorted(runs, key=lambda run: (run.path / "results.json").stat().st_mtime)
    by_seed = {int(run.args["seed"]): run for run in ordered}
    kept = {run.path for run in by_seed.values()}
    repeats = tuple(run.path for run in ordered if run.path not in kept)
    return Row(*kind, dict(sorted(by_seed.items())), repeats)


def _value(run: Run, name: str, runs: Sequence[Run]) -> Any:
    """Return an option's value in a run.

    A record that is older than the option lacks it. Its value is then the default of the others.
    """
    defaults = (other.args[name] for other in runs if other.sources.get(name) == "default")
    return run.args[name] if name in run.args else next(defaults, None)


def _text(value: Any) -> str:
    """Return a value as its flag takes it: 0 and 1 for off and on, lists with commas."""
    value = int(value) if isinstance(value, bool) else value
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
